//! Much of something at once, for a while: whoever comes after it can work.

use std::time::{Duration, Instant};

use libc::*;

use crate::sys::{self, c, sys, zeroed};
use crate::{Attack, Verdict, must_go_on};

/// How long a storm lasts.
const LONG: Duration = Duration::from_millis(500);

/// What a child does over and over.
type Blow = fn();

const STORMS: &[(&str, Blow)] = &[
    ("forks", || {
        sys::ends(|| 0);
    }),
    ("executions", || {
        sys::ends(|| {
            let words = [c"true".as_ptr() as usize, 0];
            let _ = sys!(SYS_execve, c("/usr/bin/true").as_ptr(), words.as_ptr(), 0);
            1
        });
    }),
    ("threads", || {
        let threads: Vec<_> = (0..8).filter_map(|_| std::thread::Builder::new().spawn(|| {}).ok()).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    }),
    ("a program that replaces itself under its threads", || {
        sys::ends(|| {
            for _ in 0..4 {
                let _ = std::thread::Builder::new().spawn(|| {
                    loop {
                        let _ = sys!(SYS_sched_yield);
                    }
                });
            }
            let words = [c"true".as_ptr() as usize, 0];
            let _ = sys!(SYS_execve, c("/usr/bin/true").as_ptr(), words.as_ptr(), 0);
            1
        });
    }),
    ("signals", || {
        let child = sys::child(|| {
            loop {
                let _ = sys!(SYS_sched_yield);
            }
        });
        for signal in 1..65 {
            for _ in 0..20 {
                let _ = sys::kill(child, if signal == SIGKILL { SIGCONT } else { signal });
            }
        }
        let _ = sys::kill(child, SIGKILL);
        sys::wait(child);
    }),
    ("stops and continues", || {
        let child = sys::child(|| {
            loop {
                let _ = sys!(SYS_getppid);
            }
        });
        for _ in 0..200 {
            let _ = sys::kill(child, SIGSTOP);
            let _ = sys::kill(child, SIGCONT);
        }
        let _ = sys::kill(child, SIGKILL);
        sys::wait(child);
    }),
    ("handlers that are interrupted by their own signal", || {
        sys::ends(|| {
            handle(SIGUSR1, SA_NODEFER, again);
            let _ = sys::kill(sys::pid(), SIGUSR1);
            0
        });
    }),
    ("faults in a handler of faults", || {
        sys::ends(|| {
            handle(SIGSEGV, SA_NODEFER, fault);
            fault(0);
            0
        });
    }),
    ("timers of a nanosecond", || {
        sys::ends(|| {
            handle(SIGALRM, 0, nothing);
            let soon = itimerval {
                it_interval: timeval { tv_sec: 0, tv_usec: 1 },
                it_value: timeval { tv_sec: 0, tv_usec: 1 },
            };
            sys!(SYS_setitimer, ITIMER_REAL, &raw const soon, 0).expect("a timer can be set");
            let fd = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK).expect("a timer can be had");
            let mut every: itimerspec = zeroed();
            (every.it_interval.tv_nsec, every.it_value.tv_nsec) = (1, 1);
            sys!(SYS_timerfd_settime, fd, 0, &raw const every, 0).expect("a timer can be set");
            for _ in 0..200 {
                let _ = sys::read(fd, 8);
            }
            0
        });
    }),
    ("mappings", || {
        for _ in 0..50 {
            if let Ok(at) =
                sys!(SYS_mmap, 0, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i32, 0)
            {
                let _ = sys!(SYS_mprotect, at + (8 << 12), 4 << 12, PROT_READ);
                let _ = sys!(SYS_munmap, at + (16 << 12), 8 << 12);
                let _ = sys!(SYS_madvise, at, 64 << 12, MADV_DONTNEED);
                let _ = sys!(SYS_munmap, at, 64 << 12);
            }
        }
    }),
    ("pages that go away under a thread", || {
        sys::ends(|| {
            let at =
                sys!(SYS_mmap, 0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i32, 0);
            let Ok(at) = at else { return 0 };
            let _ = std::thread::Builder::new().spawn(move || {
                loop {
                    for page in 0..16 {
                        // SAFETY: if the page is not there, the child dies.
                        unsafe { ((at + (page << 12)) as *mut u8).write_volatile(1) };
                    }
                }
            });
            for round in 0..200 {
                let _ = sys!(SYS_madvise, at, 1 << 16, MADV_DONTNEED);
                let _ = sys!(
                    SYS_mprotect,
                    at,
                    1 << 16,
                    if round == 199 { PROT_NONE } else { PROT_READ | PROT_WRITE }
                );
                let _ = sys!(SYS_sched_yield);
            }
            0
        });
    }),
    ("readers of /proc while processes come and go", || {
        let child = sys::child(|| {
            loop {
                sys::ends(|| 0);
            }
        });
        for _ in 0..3 {
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                for name in
                    ["stat", "status", "maps", "smaps", "cmdline", "environ", "mountinfo", "task", "fd"]
                {
                    let path = entry.path().join(name);
                    let _ = std::fs::read(&path);
                    let _ = std::fs::read_dir(&path).map(Iterator::count);
                }
            }
        }
        let _ = sys::kill(child, SIGKILL);
        sys::wait(child);
    }),
    ("futexes", || {
        sys::ends(|| {
            let word = Box::leak(Box::new(0u32)) as *const u32 as usize;
            for _ in 0..6 {
                let _ = std::thread::Builder::new().spawn(move || {
                    loop {
                        let _ = sys!(SYS_futex, word, FUTEX_WAIT, 0, 0);
                    }
                });
            }
            for _ in 0..300 {
                let _ = sys!(SYS_futex, word, FUTEX_WAKE, 1);
                let _ = sys!(SYS_futex, word, FUTEX_REQUEUE, 1, i32::MAX, word + 4);
                let _ = sys!(SYS_futex, word + 4, FUTEX_WAKE, i32::MAX);
            }
            0
        });
    }),
    ("closed descriptors under readers", || {
        sys::ends(|| {
            let (reader, writer) = sys::pipe(0);
            let _ = std::thread::Builder::new().spawn(move || {
                let _ = sys::read(reader, 10);
            });
            let _ = sys!(SYS_sched_yield);
            let _ = sys::close(reader);
            let _ = sys!(SYS_dup2, 0, reader);
            let _ = sys::write(writer, b"x");
            0
        });
    }),
    ("orphans", || {
        sys::ends(|| {
            for _ in 0..5 {
                sys::child(|| {
                    let _ = sys!(SYS_setsid);
                    sys::child(|| {
                        sys::sleep_ms(5);
                        0
                    });
                    0
                });
            }
            0
        });
    }),
    ("a parent that waits for a child that shares its memory", || {
        let child = sys::child(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            // vfork: the parent stops until the child ends, which is killed.
            let _ = sys!(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
            loop {
                let _ = sys!(SYS_sched_yield);
            }
        });
        sys::sleep_ms(5);
        let _ = sys::kill(child, SIGKILL);
        sys::wait(child);
        while sys::kill(-child, SIGKILL).is_ok() {
            let _ = sys!(SYS_sched_yield);
        }
    }),
];

pub fn attacks() -> Vec<Attack> {
    STORMS.iter().map(|&(name, blow)| Attack::new(name, move || storm(blow))).collect()
}

fn storm(blow: Blow) -> Verdict {
    let start = Instant::now();
    let child = sys::child(move || {
        while start.elapsed() < LONG {
            blow();
        }
        0
    });
    let end = sys::wait(child);
    // What it left behind.
    while sys!(SYS_wait4, -1i32, 0, WNOHANG, 0).is_ok_and(|pid| pid > 0) {}
    must_go_on(end)
}

fn handle(signal: i32, flags: i32, handler: extern "C" fn(i32)) {
    let mut action: sigaction = zeroed();
    (action.sa_sigaction, action.sa_flags) = (handler as *const () as usize, flags);
    // SAFETY: the handlers below make system calls alone.
    unsafe { sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

extern "C" fn nothing(_: i32) {}

extern "C" fn again(_: i32) {
    let _ = sys::kill(sys::pid(), SIGUSR1);
}

extern "C" fn fault(_: i32) {
    // SAFETY: none: the child dies of it in the end.
    unsafe { std::hint::black_box(8 as *mut u8).write_volatile(1) };
}
