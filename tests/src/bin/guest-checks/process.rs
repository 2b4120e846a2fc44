//! Processes: fork, ends, waiting, groups, sessions, orphans, limits.

use libc::*;

use crate::sys::{self, Errno, close, describe, kill, pipe, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("exit_codes", exit_codes),
    ("wait4", wait4_forms),
    ("waitid", waitid_forms),
    ("stop_and_continue", stop_and_continue),
    ("fork_copies", fork_copies),
    ("vfork", vforks),
    ("many_children", many_children),
    ("process_groups", process_groups),
    ("sessions", sessions),
    ("orphans", orphans),
    ("ignored_children", ignored_children),
    ("deep_tree", deep_tree),
    ("clone_flags", clone_flags),
    ("process_limit", process_limit),
    ("scheduling", scheduling),
    ("prctl", prctls),
    ("usage", usage),
];

fn exit_codes(r: &mut Report) {
    for code in [0, 1, 77, 255, 256, -1] {
        r.see(code, sys::ends(|| code));
    }
    r.see(
        "abort",
        sys::ends(|| {
            // SAFETY: abort has no preconditions. The limit keeps the host free of core files.
            unsafe {
                setrlimit(RLIMIT_CORE, &rlimit { rlim_cur: 0, rlim_max: 0 });
                abort()
            }
        }),
    );
    r.see("killed", sys::ends(|| kill(sys::pid(), SIGKILL).unwrap() as i32));
    r.see("exit of a thread group", sys::ends(|| sys!(SYS_exit_group, 9).unwrap() as i32));
    r.see("exit of the only thread", sys::ends(|| sys!(SYS_exit, 10).unwrap() as i32));
}

fn wait4_forms(r: &mut Report) {
    let wait4 = |pid: i32, options: i32| {
        let mut status = 0i32;
        sys!(SYS_wait4, pid, &raw mut status, options, 0).map(|pid| (pid as i32, status))
    };
    r.see("no children", wait4(-1, 0));
    let (reader, writer) = pipe(0);
    let first = sys::child(|| {
        close(writer).unwrap();
        read(reader, 1).unwrap();
        3
    });
    r.see("running", wait4(-1, WNOHANG));
    r.see("not a child", wait4(1, WNOHANG).err());
    r.see("bad options", wait4(-1, 0x10).err());
    close(writer).unwrap();
    r.see("any", wait4(-1, 0).map(|(pid, status)| (pid == first, describe(status))));
    r.see("twice", wait4(first, 0));
    let second = sys::child(|| 4);
    r.see("own group", wait4(0, 0).map(|(pid, status)| (pid == second, describe(status))));
    let third = sys::child(|| 5);
    sys!(SYS_setpgid, third, third).unwrap_or_default();
    r.see("another group", wait4(-third, 0).map(|(pid, status)| (pid == third, describe(status))));
    r.see("zombie answers to kill", {
        let zombie = sys::child(|| 0);
        sys::sleep_ms(20);
        let answer = kill(zombie, 0);
        (answer, sys::wait(zombie), kill(zombie, 0))
    });
    let mut usage: rusage = zeroed();
    let last = sys::child(|| 0);
    r.see("usage", sys!(SYS_wait4, last, 0, 0, &raw mut usage).map(|_| usage.ru_maxrss > 0));
}

fn waitid_forms(r: &mut Report) {
    let waitid = |kind: u32, id: i32, options: i32| {
        let mut info: siginfo_t = zeroed();
        sys!(SYS_waitid, kind, id, &raw mut info, options, 0)?;
        // SAFETY: waitid(2) has filled in the fields of SIGCHLD, or left zeros.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok::<_, Errno>((pid, info.si_signo, info.si_code, status))
    };
    r.see("no children", waitid(P_ALL, 0, WEXITED));
    r.see("no options", waitid(P_ALL, 0, 0));
    let pid = sys::child(|| 3);
    let others = |it: (i32, i32, i32, i32)| (it.0 == pid, it.1, it.2, it.3);
    r.see("look only", waitid(P_PID, pid, WEXITED | WNOWAIT).map(others));
    r.see("take", waitid(P_PID, pid, WEXITED).map(others));
    r.see("gone", waitid(P_PID, pid, WEXITED));
    let pid = sys::child(|| kill(sys::pid(), SIGTERM).unwrap() as i32);
    r.see("killed", waitid(P_PID, pid, WEXITED).map(|it| (it.0 == pid, it.1, it.2, it.3)));
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(writer).unwrap();
        read(reader, 1).unwrap();
        0
    });
    r.see("nothing yet", waitid(P_PID, pid, WEXITED | WNOHANG));
    close(writer).unwrap();
    sys::wait(pid);
}

fn stop_and_continue(r: &mut Report) {
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(writer).unwrap();
        read(reader, 1).unwrap();
        6
    });
    let wait4 = |options: i32| {
        let mut status = 0i32;
        sys!(SYS_wait4, pid, &raw mut status, options, 0).map(|found| (found as i32 == pid, describe(status)))
    };
    // In a group of its own, so that it is not orphaned whoever started the checks.
    sys!(SYS_setpgid, pid, pid).unwrap();
    kill(pid, SIGSTOP).unwrap();
    r.see("stopped", wait4(WUNTRACED));
    r.see("reported once", wait4(WUNTRACED | WNOHANG).map(|it| it.0));
    r.see("still a child", wait4(WNOHANG).map(|it| it.0));
    kill(pid, SIGCONT).unwrap();
    r.see("continued", wait4(WCONTINUED));
    kill(pid, SIGTSTP).unwrap();
    r.see("stopped again", wait4(WUNTRACED));
    kill(pid, SIGTERM).unwrap();
    sys::sleep_ms(20);
    r.see("a stopped process does not die of SIGTERM", wait4(WNOHANG).map(|it| it.0));
    kill(pid, SIGCONT).unwrap();
    r.see("but once it goes on", wait4(0));
    let pid = sys::child(|| {
        loop {
            // SAFETY: pause(2) has no preconditions.
            unsafe { pause() };
        }
    });
    kill(pid, SIGSTOP).unwrap();
    kill(pid, SIGKILL).unwrap();
    r.see("SIGKILL ends a stopped process", sys::wait(pid));
    let pid = sys::child(|| {
        sys!(SYS_setsid).unwrap();
        // SAFETY: raise(3) has no preconditions.
        unsafe { raise(SIGTSTP) };
        7
    });
    r.see("SIGTSTP does not stop an orphaned group", sys::wait(pid));
    close(writer).unwrap();
}

fn fork_copies(r: &mut Report) {
    let mut numbers: Vec<u64> = (0..100_000).collect();
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        let sum: u64 = numbers.iter().sum();
        numbers.iter_mut().for_each(|number| *number += 1);
        let after: u64 = numbers.iter().sum();
        write(writer, format!("{sum} {after}").as_bytes()).unwrap();
        0
    });
    numbers.iter_mut().for_each(|number| *number *= 2);
    r.see("child", (read(reader, 100), sys::wait(pid)));
    r.see("parent", numbers.iter().sum::<u64>());
    r.see("numbers", {
        let parent = sys::pid();
        sys::ends(|| i32::from(sys!(SYS_getppid) != Ok(parent as usize) || sys::pid() == parent))
    });
    r.see("pending signals are not inherited", {
        // SAFETY: the sets are initialised by the calls that take them.
        unsafe {
            let mut set: sigset_t = zeroed();
            sigaddset(&raw mut set, SIGUSR1);
            sigprocmask(SIG_BLOCK, &raw const set, std::ptr::null_mut());
            raise(SIGUSR1);
            let ends = sys::ends(|| {
                let mut pending: sigset_t = zeroed();
                sigpending(&raw mut pending);
                let mut mask: sigset_t = zeroed();
                sigprocmask(SIG_SETMASK, std::ptr::null(), &raw mut mask);
                sigismember(&raw const pending, SIGUSR1) + 2 * sigismember(&raw const mask, SIGUSR1)
            });
            signal(SIGUSR1, SIG_IGN);
            sigprocmask(SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            ends
        }
    });
}

fn vforks(r: &mut Report) {
    // What posix_spawn(3) does: the parent stands still until the child has executed or ended.
    let mut pid = 0i32;
    let arguments = [
        c"sh".as_ptr().cast_mut(),
        c"-c".as_ptr().cast_mut(),
        c"exit 7".as_ptr().cast_mut(),
        std::ptr::null_mut(),
    ];
    let environment = [std::ptr::null_mut()];
    let spawn = |path: &std::ffi::CStr, pid: &mut i32| {
        // SAFETY: both lists end with a null pointer and outlive the call.
        unsafe {
            posix_spawn(
                pid,
                path.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        }
    };
    r.see("posix_spawn", (spawn(c"/bin/sh", &mut pid), sys::wait(pid)));
    r.see("missing program", Errno::from_raw(spawn(c"/no/such/program", &mut pid)));
    r.see("no child is left", sys!(SYS_wait4, -1i64, 0, WNOHANG, 0));
    let stack =
        sys!(SYS_mmap, 0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0).unwrap();
    let mut shared = 1i32;
    extern "C" fn body(argument: *mut c_void) -> c_int {
        std::thread::sleep(std::time::Duration::from_millis(30));
        // SAFETY: the parent waits, as CLONE_VFORK says, and lends its variable.
        unsafe { *argument.cast::<i32>() = 2 };
        5
    }
    // SAFETY: the stack is 64 KiB that nothing else uses, and `shared` outlives the child.
    let pid = unsafe {
        clone(
            body,
            (stack + 65536) as *mut c_void,
            CLONE_VM | CLONE_VFORK | SIGCHLD,
            (&raw mut shared).cast(),
        )
    };
    r.see("memory is shared and the parent waited", std::hint::black_box(shared));
    r.see("end", sys::wait(pid));
}

fn many_children(r: &mut Report) {
    let pids: Vec<i32> = (0..100).map(|n| sys::child(|| n)).collect();
    r.see("different numbers", {
        let mut sorted = pids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len()
    });
    let mut codes = Vec::new();
    let mut status = 0i32;
    while sys!(SYS_wait4, -1i64, &raw mut status, 0, 0).is_ok() {
        codes.push(WEXITSTATUS(status));
    }
    codes.sort_unstable();
    r.see("codes", codes);
}

fn process_groups(r: &mut Report) {
    let pgid = |pid: i32| sys!(SYS_getpgid, pid).map(|it| it as i32);
    r.see("own", pgid(0) == pgid(sys::pid()));
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(writer).unwrap();
        read(reader, 1).unwrap();
        0
    });
    r.see("inherited", pgid(pid) == pgid(0));
    r.see("lead", (sys!(SYS_setpgid, pid, 0), pgid(pid) == Ok(pid)));
    let second = sys::child(|| {
        close(writer).unwrap();
        read(reader, 1).unwrap();
        0
    });
    r.see("join", (sys!(SYS_setpgid, second, pid), pgid(second) == Ok(pid)));
    r.see("no such group", sys!(SYS_setpgid, second, 4_000_000));
    r.see("negative", sys!(SYS_setpgid, second, -1i64));
    r.see("not a child", sys!(SYS_setpgid, 1, 0).err().is_some());
    r.see("no such process", pgid(4_000_000));
    r.see("kill the group", kill(-pid, SIGTERM));
    r.see("ends", (sys::wait(pid), sys::wait(second)));
    r.see("kill an empty group", kill(-pid, SIGTERM));
    r.see("after exec", {
        let pid = sys::child(|| {
            sys::sleep_ms(50);
            let arguments = [c"true".as_ptr(), std::ptr::null()];
            sys!(SYS_execve, c"/bin/true".as_ptr(), arguments.as_ptr(), 0).map_or(9, |_| 9)
        });
        let answer = sys!(SYS_setpgid, pid, pid);
        (answer, sys::wait(pid))
    });
    close(writer).unwrap();
}

fn sessions(r: &mut Report) {
    r.see(
        "new session",
        sys::ends(|| {
            // A group leader can not start a session; a fork of it can.
            sys!(SYS_setpgid, 0, 0).unwrap();
            let refused = sys!(SYS_setsid) == Err(Errno::EPERM);
            let inner = sys::ends(|| {
                let own = sys::pid() as usize;
                let ok = sys!(SYS_setsid) == Ok(own)
                    && sys!(SYS_getsid, 0) == Ok(own)
                    && sys!(SYS_getpgid, 0) == Ok(own)
                    && sys!(SYS_setpgid, 0, 0) == Err(Errno::EPERM);
                i32::from(!ok)
            });
            i32::from(!refused || inner != "exited 0")
        }),
    );
    r.see("no such process", sys!(SYS_getsid, 4_000_000));
    r.see("child of another session", {
        let (reader, writer) = pipe(0);
        let (ready, done) = pipe(0);
        let pid = sys::child(|| {
            close(writer).unwrap();
            sys!(SYS_setsid).unwrap();
            write(done, b"x").unwrap();
            read(reader, 1).unwrap();
            0
        });
        read(ready, 1).unwrap();
        let answer = sys!(SYS_setpgid, pid, pid);
        close(writer).unwrap();
        (answer, sys::wait(pid))
    });
}

fn orphans(r: &mut Report) {
    let (reader, writer) = pipe(0);
    let middle = sys::child(|| {
        let parent = sys::pid();
        sys::child(|| {
            let moved = sys::eventually(|| sys!(SYS_getppid) != Ok(parent as usize));
            write(writer, if moved { b"moved" } else { b"stuck" }).unwrap();
            0
        });
        0
    });
    r.see("parent", sys::wait(middle));
    r.see("orphan", read(reader, 10));
    r.see("not ours to wait for", sys!(SYS_wait4, -1i64, 0, 0, 0));
    r.see(
        "subreaper",
        sys::ends(|| {
            sys!(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).unwrap();
            let own = sys::pid() as usize;
            let middle = sys::child(|| {
                let parent = sys::pid() as usize;
                sys::child(|| {
                    sys::eventually(|| sys!(SYS_getppid) != Ok(parent));
                    if sys!(SYS_getppid) == Ok(own) { 21 } else { 22 }
                });
                0
            });
            sys::wait(middle);
            let mut status = 0i32;
            sys!(SYS_wait4, -1i64, &raw mut status, 0, 0).map_or(1, |_| WEXITSTATUS(status))
        }),
    );
    r.see(
        "death signal",
        sys::ends(|| {
            let (reader, writer) = pipe(0);
            let middle = sys::child(|| {
                let (ready, done) = pipe(0);
                sys::child(|| {
                    sys!(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0).unwrap();
                    write(done, b"x").unwrap();
                    sys::sleep_ms(5000);
                    write(writer, b"alive").unwrap();
                    0
                });
                read(ready, 1).unwrap();
                0
            });
            sys::wait(middle);
            close(writer).unwrap();
            i32::from(read(reader, 10).as_deref() != Ok(""))
        }),
    );
}

fn ignored_children(r: &mut Report) {
    // SAFETY: no handler.
    unsafe { signal(SIGCHLD, SIG_IGN) };
    let pid = sys::child(|| 3);
    r.see("wait", sys::wait(pid));
    r.see("gone", kill(pid, 0));
}

fn deep_tree(r: &mut Report) {
    fn level(depth: i32) -> i32 {
        if depth == 0 {
            return 1;
        }
        let left = sys::child(|| level(depth - 1));
        let right = sys::child(|| level(depth - 1));
        let code =
            |pid: i32| sys::wait(pid).rsplit(' ').next().and_then(|it| it.parse::<i32>().ok()).unwrap_or(99);
        code(left) + code(right)
    }
    r.see("leaves", level(5));
}

fn clone_flags(r: &mut Report) {
    r.see("CLONE_SIGHAND without CLONE_VM", sys!(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0).err());
    r.see("CLONE_THREAD without CLONE_SIGHAND", sys!(SYS_clone, CLONE_THREAD | CLONE_VM, 0, 0, 0, 0).err());
    r.see("clone3 too small", sys!(435, [0u64; 8].as_ptr(), 8).err());
    r.see("clone3", {
        let arguments: [u64; 8] = [0, 0, 0, 0, SIGCHLD as u64, 0, 0, 0];
        match sys!(435, arguments.as_ptr(), 64) {
            Ok(0) => sys::exit(12),
            Ok(pid) => Ok(sys::wait(pid as i32)),
            Err(errno) => Err(errno),
        }
    });
    r.see("child number is stored", {
        let (mut parent_tid, mut child_tid) = (0i32, 0i32);
        let flags = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD;
        match sys!(SYS_clone, flags, 0, &raw mut parent_tid, &raw mut child_tid, 0) {
            Ok(0) => sys::exit(i32::from(std::hint::black_box(child_tid) != sys::pid())),
            Ok(pid) => (std::hint::black_box(parent_tid) == pid as i32, child_tid, sys::wait(pid as i32)),
            Err(errno) => (false, errno as i32, String::new()),
        }
    });
}

fn process_limit(r: &mut Report) {
    // SAFETY: these calls only answer.
    if unsafe { geteuid() } != 0 {
        return;
    }
    r.see(
        "RLIMIT_NPROC of an ordinary user",
        sys::ends(|| {
            sys!(SYS_setresuid, 54_321, 54_321, 54_321).unwrap();
            let limit = rlimit { rlim_cur: 3, rlim_max: 3 };
            sys!(SYS_setrlimit, RLIMIT_NPROC, &raw const limit).unwrap();
            let mut children = Vec::new();
            let errno = loop {
                match sys!(SYS_clone, SIGCHLD, 0, 0, 0, 0) {
                    Ok(0) => {
                        sys::sleep_ms(5000);
                        sys::exit(0)
                    }
                    Ok(pid) => children.push(pid as i32),
                    Err(errno) => break errno,
                }
                if children.len() > 10 {
                    break Errno::UnknownErrno;
                }
            };
            for pid in &children {
                kill(*pid, SIGKILL).unwrap();
                sys::wait(*pid);
            }
            children.len() as i32 * 50 + errno as i32
        }),
    );
}

fn scheduling(r: &mut Report) {
    // Two that never give the processor up, and one that wants it now and then.
    let spin = || {
        sys::child(|| {
            loop {
                std::hint::spin_loop()
            }
        })
    };
    let spinners = [spin(), spin()];
    let start = std::time::Instant::now();
    for _ in 0..20 {
        sys::sleep_ms(1);
    }
    r.ensure("nobody starves", start.elapsed().as_secs() < 10);
    for pid in spinners {
        kill(pid, SIGKILL).unwrap();
        sys::wait(pid);
    }
    r.see("yield", sys!(SYS_sched_yield));
    r.see("policy", sys!(SYS_sched_getscheduler, 0));
    r.see("highest priority", sys!(SYS_sched_get_priority_max, SCHED_FIFO));
    r.see("bad policy", sys!(SYS_sched_get_priority_max, 77));
}

fn prctls(r: &mut Report) {
    let mut name = [0u8; 16];
    let get = |name: &mut [u8; 16]| {
        sys!(SYS_prctl, PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0).unwrap();
        String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
    };
    r.see("name", get(&mut name));
    r.see("set", sys!(SYS_prctl, PR_SET_NAME, c"a name that is too long".as_ptr(), 0, 0, 0));
    r.see("cut", get(&mut name));
    r.see("in /proc", sys::text("/proc/self/comm"));
    r.see("dumpable", sys!(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0));
    r.see(
        "no new privileges",
        sys::ends(|| {
            let set = sys!(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).is_ok();
            i32::from(!set || sys!(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != Ok(1))
        }),
    );
    r.see("unknown", sys!(SYS_prctl, 9_999, 0, 0, 0, 0));
}

fn usage(r: &mut Report) {
    let start = std::time::Instant::now();
    let mut sum = 0u64;
    while start.elapsed().as_millis() < 60 {
        sum = (0..1000u64).fold(sum, |sum, n| std::hint::black_box(sum.wrapping_mul(31) ^ n));
    }
    let mut own: rusage = zeroed();
    r.see("getrusage", sys!(SYS_getrusage, RUSAGE_SELF, &raw mut own));
    let spent_us =
        (own.ru_utime.tv_sec + own.ru_stime.tv_sec) * 1_000_000 + own.ru_utime.tv_usec + own.ru_stime.tv_usec;
    r.ensure("time is counted", spent_us > 5_000 && std::hint::black_box(sum) != 1);
    r.see("memory is counted", own.ru_maxrss > 100);
    r.see("bad who", sys!(SYS_getrusage, 5, &raw mut own));
    let mut parts = [0i64; 4];
    r.see("times", sys!(SYS_times, parts.as_mut_ptr()).is_ok());
}
