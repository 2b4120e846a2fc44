//! Nice values, scheduling policies, priorities of disk accesses, and clocks of processor time.

use libc::*;

use crate::sys::{self, Answer, Errno, child, kill, pid, pipe, read, sys, wait, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("nice_values", nice_values),
    ("nice_of_others", nice_of_others),
    ("scheduling_policies", scheduling_policies),
    ("scheduling_lies", scheduling_lies),
    ("io_priorities", io_priorities),
    ("cpu_clocks", cpu_clocks),
    ("epoll_many_events", epoll_many_events),
    ("seeking_in_devices", seeking_in_devices),
    ("sync_file_range", sync_file_range),
    ("fallocate_limit", fallocate_limit),
];

const NOBODY: usize = 0x3fff_fff0;

fn priority() -> Answer {
    sys!(SYS_getpriority, PRIO_PROCESS, 0)
}

fn nice_values(r: &mut Report) {
    r.see("at first", priority());
    for nice in [0, 1, 5, 19, 20, 100] {
        r.see(format!("{nice}"), (sys!(SYS_setpriority, PRIO_PROCESS, 0, nice), priority()));
    }
    let inherited = child(|| priority().map_or(99, |value| value as i32));
    r.see("inherited", wait(inherited));
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    r.see("as /proc shows it", (fields.get(15), fields.get(16)));
    for which in [-1i32, 3, 100] {
        r.see(
            format!("which {which}"),
            (sys!(SYS_getpriority, which, 0), sys!(SYS_setpriority, which, 0, 19)),
        );
    }
    r.see(
        "nobody",
        (
            sys!(SYS_getpriority, PRIO_PROCESS, NOBODY),
            sys!(SYS_getpriority, PRIO_PGRP, NOBODY),
            sys!(SYS_getpriority, PRIO_USER, NOBODY),
            sys!(SYS_setpriority, PRIO_PROCESS, NOBODY, 19),
        ),
    );
}

fn nice_of_others(r: &mut Report) {
    let (from_child, to_parent) = pipe(0);
    let (from_parent, to_child) = pipe(0);
    let other = child(|| {
        sys!(SYS_setpgid, 0, 0).unwrap();
        write(to_parent, b"x").unwrap();
        read(from_parent, 1).unwrap();
        priority().map_or(99, |value| value as i32)
    });
    read(from_child, 1).unwrap();
    r.see(
        "set of another",
        (
            sys!(SYS_setpriority, PRIO_PROCESS, other, 7),
            sys!(SYS_getpriority, PRIO_PROCESS, other),
            priority(),
        ),
    );
    r.see(
        "set of a group",
        (sys!(SYS_setpriority, PRIO_PGRP, other, 9), sys!(SYS_getpriority, PRIO_PGRP, other), priority()),
    );
    write(to_child, b"x").unwrap();
    r.see("seen by it", wait(other));
    r.see("gone", sys!(SYS_getpriority, PRIO_PROCESS, other));
}

fn scheduler() -> Answer {
    sys!(SYS_sched_getscheduler, 0)
}

fn set_policy(policy: i32, priority: i32) -> Answer {
    sys!(SYS_sched_setscheduler, 0, policy, &raw const priority)
}

fn scheduling_policies(r: &mut Report) {
    const RESET: i32 = SCHED_RESET_ON_FORK;
    r.see("at first", scheduler());
    for (policy, priority) in [
        (SCHED_BATCH, 0),
        (SCHED_BATCH, 1),
        (SCHED_OTHER, 0),
        (SCHED_OTHER, -1),
        (SCHED_FIFO, 0),
        (SCHED_FIFO, 100),
        (4, 0),
        (8, 0),
        (-1, 0),
        (SCHED_BATCH | RESET, 0),
    ] {
        r.see(format!("{policy:#x} {priority}"), (set_policy(policy, priority), scheduler()));
    }
    let inherited = child(|| scheduler().map_or(99, |policy| policy as i32));
    r.see("the child of one that resets", wait(inherited));
    for policy in [-1i32, 0, 1, 2, 3, 4, 5, 6] {
        r.see(
            format!("range of {policy}"),
            (sys!(SYS_sched_get_priority_min, policy), sys!(SYS_sched_get_priority_max, policy)),
        );
    }
    let mut value: c_int = 5;
    r.see("parameter", (sys!(SYS_sched_getparam, 0, &raw mut value), value));
    r.see("set to 0", sys!(SYS_sched_setparam, 0, &raw const value));
    value = 1;
    r.see("set to 1", sys!(SYS_sched_setparam, 0, &raw const value));
}

fn scheduling_lies(r: &mut Report) {
    let mut value: c_int = 0;
    for who in [-1i32 as usize, i32::MIN as usize, NOBODY] {
        r.see(
            format!("{:#x}", who as u32),
            (
                sys!(SYS_sched_getscheduler, who),
                sys!(SYS_sched_getparam, who, &raw mut value),
                sys!(SYS_sched_setparam, who, &raw const value),
                sys!(SYS_sched_setscheduler, who, 0, &raw const value),
            ),
        );
        let mut mask = 1u64;
        r.see(
            format!("affinity of {:#x}", who as u32),
            (
                sys!(SYS_sched_getaffinity, who, 8, &raw mut mask).is_err(),
                sys!(SYS_sched_setaffinity, who, 8, &raw const mask),
            ),
        );
    }
    r.see(
        "no parameter",
        (
            sys!(SYS_sched_getparam, 0, 0),
            sys!(SYS_sched_setparam, 0, 0),
            sys!(SYS_sched_setscheduler, 0, 0, 0),
        ),
    );
    r.see(
        "a bad one",
        (
            sys!(SYS_sched_getparam, 0, 8),
            sys!(SYS_sched_setparam, 0, 8),
            sys!(SYS_sched_setscheduler, 0, 0, 8),
        ),
    );
    r.see("the first process", sys!(SYS_sched_getscheduler, 1).is_ok());
}

fn io_priorities(r: &mut Report) {
    let get = || sys!(SYS_ioprio_get, 1, 0);
    r.see("at first", get());
    for value in [0, 1, 0x4000, 0x4007, 0x6000, 0x6007, 0x8000, 0xe000, 0xffff, 0] {
        r.see(format!("{value:#x}"), (sys!(SYS_ioprio_set, 1, 0, value), get()));
    }
    r.see("of the group", {
        sys!(SYS_setpgid, 0, 0).ok();
        (sys!(SYS_ioprio_get, 2, 0), sys!(SYS_ioprio_set, 2, 0, 0x4003), sys!(SYS_ioprio_get, 2, 0))
    });
    let inherited = child(|| get().map_or(99, |value| (value & 7) as i32));
    r.see("inherited", wait(inherited));
    for which in [-1i32, 0, 4] {
        r.see(
            format!("which {which}"),
            (sys!(SYS_ioprio_get, which, 0), sys!(SYS_ioprio_set, which, 0, 0x4000)),
        );
    }
    r.see("nobody", (sys!(SYS_ioprio_get, 1, NOBODY), sys!(SYS_ioprio_set, 1, NOBODY, 0x4000)));
}

fn cpu_clocks(r: &mut Report) {
    let get = |clock: i64| {
        let mut now = [-1i64; 2];
        sys!(SYS_clock_gettime, clock as usize, now.as_mut_ptr()).map(|_| now[0] >= 0)
    };
    let resolution = |clock: i64| {
        let mut step = [-1i64; 2];
        sys!(SYS_clock_getres, clock as usize, step.as_mut_ptr()).map(|_| step)
    };
    // SAFETY: it only answers.
    let tid = unsafe { gettid() } as i64;
    let of = |number: i64, kind: i64| !number << 3 | kind;
    for kind in 0..8 {
        r.see(format!("own process, kind {kind}"), get(of(i64::from(pid()), kind)));
        r.see(format!("0, kind {kind}"), get(of(0, kind)));
        r.see(
            format!("nobody, kind {kind}"),
            (get(of(NOBODY as i64, kind)), resolution(of(NOBODY as i64, kind))),
        );
    }
    // The other kinds count ticks, of a length that Linux is built with.
    r.see("resolution", (resolution(of(0, 2)), resolution(of(0, 6))));
    r.see("own thread", get(of(tid, 6)));
    let other = child(|| {
        sys::sleep_ms(10_000);
        0
    });
    r.see("another process", get(of(other.into(), 2)));
    r.see("a thread of another process", get(of(other.into(), 6)));
    kill(other, SIGKILL).unwrap();
    wait(other);
    let (started, go) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let thread = std::thread::spawn(move || {
        // SAFETY: it only answers.
        started.0.send(unsafe { gettid() }).unwrap();
        go.1.recv().ok();
    });
    let other: i64 = started.1.recv().unwrap().into();
    r.see("another thread", get(of(other, 6)));
    go.0.send(()).unwrap();
    thread.join().unwrap();
    r.see("a thread that has ended", crate::sys::eventually(|| get(of(other, 6)) == Err(Errno::EINVAL)));
}

fn epoll_many_events(r: &mut Report) {
    let most = i32::MAX as usize / 12;
    let instance = sys!(SYS_epoll_create1, 0).unwrap();
    let mut events = vec![0u8; 12];
    for max in [0, -1i32 as usize, most, most + 1, i32::MAX as usize] {
        let found = sys!(SYS_epoll_wait, instance, events.as_mut_ptr(), max as u32, 0);
        r.see(format!("room for {:#x}", max as u32), found);
    }
    let limit = rlimit { rlim_cur: 6000, rlim_max: 6000 };
    sys!(SYS_setrlimit, RLIMIT_NOFILE, &raw const limit).unwrap();
    let source = sys!(SYS_eventfd2, 1, 0).unwrap();
    for number in 0..5000u64 {
        let fd = sys!(SYS_dup, source).unwrap();
        let event = epoll_event { events: EPOLLIN as u32, u64: number };
        sys!(SYS_epoll_ctl, instance, EPOLL_CTL_ADD, fd, &raw const event).unwrap();
    }
    let mut events = vec![0u8; 12 * 6000];
    r.see("all at once", sys!(SYS_epoll_wait, instance, events.as_mut_ptr(), 6000, 0));
}

fn seeking_in_devices(r: &mut Report) {
    for device in ["/dev/null", "/dev/zero", "/dev/full"] {
        let fd = sys::fd(device, O_RDWR);
        for (offset, whence) in
            [(5, SEEK_SET), (-5, SEEK_SET), (i64::MIN, SEEK_SET), (3, SEEK_CUR), (-1, SEEK_END), (0, 9)]
        {
            r.see(format!("{device} {offset} {whence}"), sys::seek(fd, offset, whence));
        }
    }
    let fd = sys::fd("file", O_RDWR | O_CREAT);
    r.see(
        "file",
        (sys::seek(fd, -5, SEEK_SET), sys::seek(fd, i64::MIN, SEEK_SET), sys::seek(fd, 5, SEEK_SET)),
    );
}

fn sync_file_range(r: &mut Report) {
    let fd = sys::fd("file", O_RDWR | O_CREAT);
    for (offset, len, flags) in [
        (0i64, 0i64, 0usize),
        (0, 0, 7),
        (0, 0, 8),
        (-1, 0, 2),
        (0, -1, 2),
        (5, -1, 2),
        (1 << 62, 1 << 62, 2),
        (0, 1, 1 << 40),
    ] {
        r.see(format!("{offset} {len} {flags:#x}"), sys!(SYS_sync_file_range, fd, offset, len, flags));
    }
    let (_, to) = pipe(0);
    r.see("pipe", (sys!(SYS_sync_file_range, to, 0, 0, 0), sys!(SYS_sync_file_range, to, 0, 0, 8)));
    r.see("no descriptor", sys!(SYS_sync_file_range, 99, 0, 0, 8));
}

fn fallocate_limit(r: &mut Report) {
    let fd = sys::fd("file", O_RDWR | O_CREAT);
    let limit = rlimit { rlim_cur: 1000, rlim_max: 1000 };
    let allocate = |mode: c_int, offset: usize, len: usize| {
        sys::ends(|| {
            sys!(SYS_setrlimit, RLIMIT_FSIZE, &raw const limit).unwrap();
            sys!(SYS_fallocate, fd, mode, offset, len).map_or_else(|errno| errno as i32, |_| 0)
        })
    };
    r.see("within", allocate(0, 0, 1000));
    r.see("beyond", allocate(0, 0, 1001));
    r.see("beyond by its place", allocate(0, 1000, 1));
    r.see("size", sys::fstat(fd).map(|stat| stat.st_size));
    // SAFETY: the disposition of a signal that this program does not use.
    unsafe { signal(SIGXFSZ, SIG_IGN) };
    r.see("ignored", allocate(0, 0, 1001));
    r.see("without growing", allocate(FALLOC_FL_KEEP_SIZE, 0, 2000));
}
