//! Settings of threads and processes: priorities, policies, persona, prctl, kcmp.

use libc::*;

use crate::sys::{self, Answer, Errno, child, close, sys, wait, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("nice_values", nice_values),
    ("io_priorities", io_priorities),
    ("scheduling_policies", scheduling_policies),
    ("scheduling_attributes", scheduling_attributes),
    ("personality", personas),
    ("prctl_settings", prctl_settings),
    ("area_names", area_names),
    ("kcmp", kcmps),
    ("restart_syscall", restart_syscalls),
];

/// A number that no task has.
pub const NOBODY: i32 = 0x3f_fffe;

const USER: u32 = 65_534;

/// Becomes a user who may not do everything.
pub fn become_user() {
    sys!(SYS_setresgid, USER, USER, USER).expect("root may change its group");
    sys!(SYS_setresuid, USER, USER, USER).expect("root may change its user");
}

fn nice_values(r: &mut Report) {
    let get = |which: u32, who: i32| sys!(SYS_getpriority, which, who);
    let set = |which: u32, who: i32, nice: i32| sys!(SYS_setpriority, which, who, nice);
    r.see("first", get(PRIO_PROCESS, 0));
    r.see("set", (set(PRIO_PROCESS, 0, 7), get(PRIO_PROCESS, 0), get(PRIO_PROCESS, sys::pid())));
    r.see("child", sys::ends(|| get(PRIO_PROCESS, 0).unwrap_or(99) as i32));
    r.see("cut above", (set(PRIO_PROCESS, 0, 100), get(PRIO_PROCESS, 0)));
    r.see("cut below", (set(PRIO_PROCESS, 0, -100), get(PRIO_PROCESS, 0)));
    r.see("back", set(PRIO_PROCESS, 0, 3));
    let stat = sys::text("/proc/self/stat").unwrap();
    r.see("in /proc", stat.split_whitespace().skip(17).take(2).collect::<Vec<_>>());
    r.see("nobody", (get(PRIO_PROCESS, NOBODY), set(PRIO_PROCESS, NOBODY, 0)));
    r.see("no group", (get(PRIO_PGRP, NOBODY), set(PRIO_PGRP, NOBODY, 0)));
    r.see("no user", (get(PRIO_USER, 54_321), set(PRIO_USER, 54_321, 0)));
    r.see("negative", (get(PRIO_PROCESS, -1), set(PRIO_PROCESS, -1, 0)));
    r.see("no such kind", (get(3, 0), set(3, 0, 0), get(u32::MAX, 0)));
    let pid = child(|| {
        sys!(SYS_setpgid, 0, 0).unwrap();
        let group = |nice| set(PRIO_PGRP, 0, nice).is_ok() && get(PRIO_PGRP, 0) == Ok((20 - nice) as usize);
        i32::from(!group(9))
    });
    r.see("group", wait(pid));
    r.see("the group's other members only", get(PRIO_PROCESS, 0));
    let as_user = |body: &dyn Fn() -> Answer| {
        sys::ends(|| {
            become_user();
            body().map_or_else(|errno| errno as i32, |value| 200 + value as i32)
        })
    };
    let parent = sys::pid();
    r.see("user: worse", as_user(&|| set(PRIO_PROCESS, 0, 5)));
    r.see("user: better", as_user(&|| set(PRIO_PROCESS, 0, 1)));
    r.see("user: the same", as_user(&|| set(PRIO_PROCESS, 0, 3)));
    r.see("user: of another", as_user(&|| set(PRIO_PROCESS, parent, 9)));
    r.see("user: look at another", as_user(&|| get(PRIO_PROCESS, parent)));
    r.see(
        "user: within the limit",
        sys::ends(|| {
            let limit = rlimit { rlim_cur: 20, rlim_max: 20 };
            // Not every root may raise a limit; where this one may not, there is nothing to see.
            if sys!(SYS_setrlimit, RLIMIT_NICE, &raw const limit).is_err() {
                return 0;
            }
            become_user();
            let answers = (set(PRIO_PROCESS, 0, 0), set(PRIO_PROCESS, 0, -1));
            i32::from(answers != (Ok(0), Err(Errno::EACCES)))
        }),
    );
}

fn io_priorities(r: &mut Report) {
    let get = |which: i32, who: i32| sys!(SYS_ioprio_get, which, who);
    let set = |which: i32, who: i32, value: u32| sys!(SYS_ioprio_set, which, who, value);
    r.see("first", get(1, 0));
    for (what, value) in
        [("best effort", 2 << 13 | 5), ("idle", 3 << 13), ("real time", 1 << 13 | 2), ("none", 0)]
    {
        r.see(what, (set(1, 0, value), get(1, 0)));
    }
    r.see("inherited", {
        set(1, 0, 2 << 13 | 1).unwrap();
        sys::ends(|| i32::from(get(1, 0) != Ok(2 << 13 | 1)))
    });
    r.see("of a group", get(2, 0));
    r.see("no class", set(1, 0, 4 << 13));
    r.see("none with a level", set(1, 0, 1));
    r.see("too large", set(1, 0, 0x1_0000 | 5 << 13));
    r.see("nobody", (get(1, NOBODY), set(1, NOBODY, 0)));
    r.see("no such kind", (get(0, 0), get(4, 0), set(4, 0, 0)));
    let parent = sys::pid();
    let as_user = |which: i32, who: i32, value: u32| {
        sys::ends(|| {
            become_user();
            set(which, who, value).map_or_else(|errno| errno as i32, |_| 0)
        })
    };
    r.see("user: real time", as_user(1, 0, 1 << 13));
    r.see("user: best effort", as_user(1, 0, 2 << 13));
    r.see("user: of another", as_user(1, parent, 2 << 13));
}

fn scheduling_policies(r: &mut Report) {
    let set = |pid: i32, policy: i32, priority: i32| {
        let param = sched_param { sched_priority: priority };
        sys!(SYS_sched_setscheduler, pid, policy, &raw const param)
    };
    let get = |pid: i32| sys!(SYS_sched_getscheduler, pid);
    for policy in [SCHED_BATCH, SCHED_IDLE, SCHED_OTHER, SCHED_OTHER | SCHED_RESET_ON_FORK] {
        r.see(policy, (set(0, policy, 0), get(0)));
    }
    r.see(
        "reset",
        sys::ends(|| {
            set(0, SCHED_BATCH | SCHED_RESET_ON_FORK, 0).unwrap();
            sys!(SYS_setpriority, PRIO_PROCESS, 0, -5i64).unwrap();
            let nice = |nice: usize| sys!(SYS_getpriority, PRIO_PROCESS, 0) == Ok(20 - nice);
            let pid = child(|| if nice(0) { get(0).unwrap() as i32 } else { 99 });
            i32::from(wait(pid) != format!("exited {SCHED_BATCH}"))
        }),
    );
    r.see("kept", sys::ends(|| if set(0, SCHED_BATCH, 0).is_ok() { get(0).unwrap() as i32 } else { 99 }));
    r.see("with a priority", set(0, SCHED_OTHER, 1));
    r.see("real time without", set(0, SCHED_FIFO, 0));
    r.see("too high", set(0, SCHED_RR, 100));
    r.see("no policy", set(0, 4, 0));
    r.see("negative policy", set(0, -1, 0));
    r.see("nobody", (set(NOBODY, 0, 0), get(NOBODY)));
    r.see("negative", (set(-1, 0, 0), get(-1)));
    r.see("bad address", sys!(SYS_sched_setscheduler, 0, 0, 8));
    r.see(
        "user: out of idle",
        sys::ends(|| {
            set(0, SCHED_IDLE, 0).unwrap();
            sys!(SYS_setpriority, PRIO_PROCESS, 0, 5).unwrap();
            become_user();
            set(0, SCHED_OTHER, 0).map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
    r.see(
        "user: real time",
        sys::ends(|| {
            become_user();
            set(0, SCHED_FIFO, 1).map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
}

/// `struct sched_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    times: [u64; 3],
    clamps: [u32; 2],
    beyond: [u64; 2],
}

fn scheduling_attributes(r: &mut Report) {
    let get = |len: usize| {
        // Room for whatever length is told.
        let mut attrs = [zeroed::<Attr>(); 100];
        let answer = sys!(SYS_sched_getattr, 0, attrs.as_mut_ptr(), len, 0);
        let [attr, ..] = attrs;
        (answer, attr.size, attr.policy, attr.flags, attr.nice, attr.priority)
    };
    let base = Attr { size: 48, ..zeroed() };
    let set = |attr: Attr| {
        let mut attr = attr;
        let answer = sys!(SYS_sched_setattr, 0, &raw mut attr, 0);
        (answer, attr.size)
    };
    for len in [0, 47, 48, 52, 56, 72, 4096, 4097] {
        r.see(format!("length {len}"), get(len));
    }
    r.see("nice", (set(Attr { nice: 4, ..base }), get(48)));
    r.see("cut", (set(Attr { nice: 40, ..base }), get(48)));
    r.see("batch", (set(Attr { nice: 1, policy: SCHED_BATCH as u32, ..base }), get(48)));
    r.see("keep the policy", (set(Attr { nice: 2, flags: 8, ..base }), get(48)));
    r.see("keep the parameters", (set(Attr { nice: 9, flags: 0x10, ..base }), get(48)));
    r.see("reset on fork", (set(Attr { nice: 2, flags: 1, ..base }), get(48)));
    r.see("size 0", set(Attr { size: 0, ..base }));
    r.see("too short", set(Attr { size: 47, ..base }));
    r.see("too long", set(Attr { size: 5000, ..base }));
    r.see("zeros beyond", set(Attr { size: 72, ..base }));
    r.see("more beyond", set(Attr { size: 72, beyond: [0, 1], ..base }));
    r.see("clamps in the first version", set(Attr { flags: 0x20, ..base }));
    r.see("unknown flags", set(Attr { flags: 1 << 40, ..base }));
    r.see("negative policy", set(Attr { policy: u32::MAX, ..base }));
    r.see("no policy", set(Attr { policy: 4, ..base }));
    r.see("with a priority", set(Attr { priority: 3, ..base }));
    r.see("NULL", (sys!(SYS_sched_getattr, 0, 0, 48, 0), sys!(SYS_sched_setattr, 0, 0, 0)));
    r.see("bad address", (sys!(SYS_sched_getattr, 0, 8, 48, 0), sys!(SYS_sched_setattr, 0, 8, 0)));
    let attr = base;
    r.see("flags", sys!(SYS_sched_setattr, 0, &raw const attr, 1));
    r.see("nobody", sys!(SYS_sched_setattr, NOBODY, &raw const attr, 0));
    r.see("negative", sys!(SYS_sched_setattr, -1i64, &raw const attr, 0));
    let mut told = base;
    r.see("asks with flags", sys!(SYS_sched_getattr, 0, &raw mut told, 48, 1));
    r.see("asks for nobody", sys!(SYS_sched_getattr, NOBODY, &raw mut told, 48, 0));
    r.see(
        "user: better",
        sys::ends(|| {
            become_user();
            set(Attr { nice: -3, ..base }).0.map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
}

fn personas(r: &mut Report) {
    let persona = |value: u32| sys!(SYS_personality, value);
    r.see("first", persona(u32::MAX));
    r.see("no randomness", (persona(0x4_0000), persona(u32::MAX)));
    r.see("in /proc", sys::text("/proc/self/personality"));
    r.see("child", sys::ends(|| i32::from(persona(u32::MAX) != Ok(0x4_0000))));
    let place = || {
        let (reader, writer) = sys::pipe(0);
        let pid = child(|| {
            sys!(SYS_dup2, writer, 1).unwrap();
            let (path, argument) = (c"/proc/self/exe", c"/proc/self/maps");
            let argv =
                [path.as_ptr(), c"--role".as_ptr(), c"show".as_ptr(), argument.as_ptr(), std::ptr::null()];
            let envp = [std::ptr::null::<c_char>()];
            sys!(SYS_execve, path.as_ptr(), argv.as_ptr(), envp.as_ptr()).map_or(9, |_| 8)
        });
        close(writer).unwrap();
        let mut text = String::new();
        while let Ok(part) = sys::read(reader, 4096)
            && !part.is_empty()
        {
            text += &part;
        }
        close(reader).unwrap();
        let word = |line: &str| line.split('-').next().unwrap_or_default().to_owned();
        let stack = text.lines().find(|line| line.ends_with("[stack]")).map(|line| line[13..25].to_owned());
        (wait(pid), text.lines().next().map(word), stack)
    };
    let (first, second) = (place(), place());
    r.see("ends", &first.0);
    r.ensure("the same places", first == second && first.1.is_some() && first.2.is_some());
    r.see("random again", persona(0));
    let (first, second) = (place(), place());
    r.ensure("other places", first.2 != second.2 && first.2.is_some());
    r.see("32 bits", persona(8));
    let mut name: utsname = zeroed();
    sys!(SYS_uname, &raw mut name).unwrap();
    r.see("machine", name.machine[..6].iter().map(|byte| *byte as u8 as char).collect::<String>());
    r.see("any flags", (persona(0x0fff_0003), persona(0), persona(0)));
}

/// prctl(2).
pub fn prctl(args: [usize; 5]) -> Answer {
    sys!(SYS_prctl, args[0], args[1], args[2], args[3], args[4])
}

fn prctl_settings(r: &mut Report) {
    let word = |option: c_int| {
        let mut value = 77i32;
        (prctl([option as usize, &raw mut value as usize, 0, 0, 0]), value)
    };
    let slack = |value: usize| prctl([PR_SET_TIMERSLACK as usize, value, 0, 0, 0]);
    let get = |option: c_int| prctl([option as usize, 0, 0, 0, 0]);
    r.see("slack", (get(PR_GET_TIMERSLACK), slack(1234), get(PR_GET_TIMERSLACK)));
    r.see(
        "a child's default",
        sys::ends(|| i32::from((slack(1), slack(0), get(PR_GET_TIMERSLACK)) != (Ok(0), Ok(0), Ok(1234)))),
    );
    r.see("default", (slack(0), get(PR_GET_TIMERSLACK)));
    let huge = |value: usize, rest: usize| prctl([PR_SET_THP_DISABLE as usize, value, 0, 0, rest]);
    r.see("huge pages", (get(PR_GET_THP_DISABLE), huge(1, 0), get(PR_GET_THP_DISABLE)));
    r.see("inherited", sys::ends(|| get(PR_GET_THP_DISABLE).unwrap_or(9) as i32));
    r.see("more arguments", (huge(1, 1), prctl([PR_GET_THP_DISABLE as usize, 1, 0, 0, 0]), huge(0, 0)));
    r.see("seccomp", get(PR_GET_SECCOMP));
    r.see("counter", (word(PR_GET_TSC), prctl([PR_SET_TSC as usize, 1, 0, 0, 0])));
    r.see(
        "counter: bad",
        (prctl([PR_SET_TSC as usize, 9, 0, 0, 0]), prctl([PR_GET_TSC as usize, 8, 0, 0, 0])),
    );
    let death = |signal: usize| prctl([PR_SET_PDEATHSIG as usize, signal, 0, 0, 0]);
    r.see("parent's death", (word(PR_GET_PDEATHSIG), death(SIGUSR1 as usize), word(PR_GET_PDEATHSIG)));
    r.see("parent's death: a child", sys::ends(|| i32::from(word(PR_GET_PDEATHSIG) != (Ok(0), 0))));
    r.see("parent's death: bad", (death(65), death(usize::MAX), death(0)));
    r.see("dumpable: bad", prctl([PR_SET_DUMPABLE as usize, 2, 0, 0, 0]));
    r.see("no_new_privs: bad", prctl([PR_SET_NO_NEW_PRIVS as usize, 0, 0, 0, 0]));
    r.see("no_new_privs: more", prctl([PR_SET_NO_NEW_PRIVS as usize, 1, 0, 1, 0]));
    r.see("asks for no_new_privs with more", prctl([PR_GET_NO_NEW_PRIVS as usize, 1, 0, 0, 0]));
    r.see("name: bad address", prctl([PR_SET_NAME as usize, 8, 0, 0, 0]));
    r.see("subreaper", (word(PR_GET_CHILD_SUBREAPER), prctl([PR_GET_CHILD_SUBREAPER as usize, 8, 0, 0, 0])));
}

fn area_names(r: &mut Report) {
    let map = |len: usize| {
        sys!(SYS_mmap, 0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0).unwrap()
    };
    let area = map(4 * 4096);
    let name = |start: usize, len: usize, name: usize| {
        prctl([PR_SET_VMA as usize, PR_SET_VMA_ANON_NAME as usize, start, len, name])
    };
    let good = c"an area: 1/2".as_ptr() as usize;
    // A kernel can be built without names, and then every call is refused.
    let there = name(area, 8192, good).is_ok();
    let mut holds = |what: &str, answer: Answer, wanted: Answer| {
        r.ensure(what, answer == if there { wanted } else { Err(Errno::EINVAL) });
    };
    holds("part of a page", name(area, 1, good), Ok(0));
    holds("unnamed", name(area, 8192, 0), Ok(0));
    holds("nothing", name(area, 0, good), Ok(0));
    holds("bad address", name(area, 4096, 8), Err(Errno::EFAULT));
    holds("long", name(area, 4096, sys::c(&"x".repeat(79)).as_ptr() as usize), Ok(0));
    sys!(SYS_munmap, area + 4096, 4096).unwrap();
    holds("with a gap", name(area, 4 * 4096, good), Err(Errno::ENOMEM));
    r.see("between pages", name(area + 1, 4096, good));
    r.see("round the end", name(area, usize::MAX, good));
    r.see("brackets", name(area, 4096, c"a[1]".as_ptr() as usize));
    r.see("control characters", name(area, 4096, c"a\n".as_ptr() as usize));
    r.see("too long", name(area, 4096, sys::c(&"x".repeat(80)).as_ptr() as usize));
    r.see("other kinds", prctl([PR_SET_VMA as usize, 1, area, 4096, good]));
}

fn kcmps(r: &mut Report) {
    let me = sys::pid();
    let compare = |other: i32, kind: i32, a: usize, b: usize| sys!(SYS_kcmp, me, other, kind, a, b);
    let kinds = [("memory", 1), ("files", 2), ("directories", 3), ("handlers", 4), ("I/O", 5), ("undo", 6)];
    for (what, kind) in kinds {
        r.see(format!("{what} of itself"), compare(me, kind, 0, 0));
    }
    let (first, second) = sys::pipe(0);
    let copy = sys!(SYS_dup, first).unwrap();
    r.see("the same file", compare(me, 0, first, copy));
    r.ensure("other files", matches!(compare(me, 0, first, second), Ok(1 | 2)));
    r.ensure(
        "an order",
        compare(me, 0, first, second).unwrap() + compare(me, 0, second, first).unwrap() == 3,
    );
    r.see("closed", compare(me, 0, first, 99));
    let (reader, writer) = sys::pipe(0);
    let pid = child(|| sys::read(reader, 1).map_or(1, |_| 0));
    r.see("a child's file", compare(pid, 0, first, first));
    for (what, kind) in &kinds[..4] {
        r.ensure(format!("other {what}"), matches!(compare(pid, *kind, 0, 0), Ok(1 | 2)));
    }
    sys::write(writer, b"x").unwrap();
    r.see("child", wait(pid));
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    let event = epoll_event { events: EPOLLIN as u32, u64: 0 };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, copy, &raw const event).unwrap();
    let watched = |f: usize, slot: [u32; 3]| compare(me, 7, f, slot.as_ptr() as usize);
    let slot = [epoll as u32, copy as u32, 0];
    r.see("watched", watched(first, slot));
    r.ensure("another than is watched", matches!(watched(second, slot), Ok(1 | 2)));
    r.see("not watched", watched(first, [epoll as u32, second as u32, 0]));
    r.see("no second of that number", watched(first, [epoll as u32, copy as u32, 1]));
    r.see("no epoll", watched(first, [first as u32, copy as u32, 0]));
    r.see("closed ones", (watched(99, slot), watched(first, [99, copy as u32, 0])));
    r.see("bad slot", compare(me, 7, first, 1));
    r.see("nobody", compare(NOBODY, 1, 0, 0));
    r.see("no kind", compare(me, 8, 0, 0));
    r.see(
        "user: of root",
        sys::ends(|| {
            become_user();
            compare(me, 1, 0, 0).map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
}

fn restart_syscalls(r: &mut Report) {
    r.see("nothing to go on with", sys!(SYS_restart_syscall));
}
