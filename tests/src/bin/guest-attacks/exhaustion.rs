//! Taking all there is of something: the taker gets an error or dies, and whoever comes after it can work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libc::*;

use crate::sys::{self, Errno, c, open, sys, zeroed};
use crate::{Attack, Verdict, must_die, must_fail_with, must_go_on};

/// How long something may be taken without meeting a limit.
const LONG: Duration = Duration::from_secs(60);
/// Exit statuses of a child that takes.
const MET_A_LIMIT: i32 = 10;
const MET_NONE: i32 = 11;

/// Answers the number of the segment at an index (shmctl(2)).
const SHM_STAT: i32 = 13;
const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// One more of what is taken, given how many were.
type Take = fn(usize) -> sys::Answer;

/// What is taken until there is no more, and at what number the taker is content: what takes no memory.
const TAKEN: &[(&str, Take)] = &[
    ("memory", |_| touched(MIB)),
    ("memory by the page, far apart", |count| {
        let at = 0x10_0000_0000 + count * (2 * MIB);
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        let at = sys!(SYS_mmap, at, PAGE, PROT_READ | PROT_WRITE, flags, -1i32, 0)?;
        touch(at, PAGE);
        Ok(at)
    }),
    ("memory of one mapping of a terabyte", |count| {
        static PLACE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        let at = *PLACE.get_or_init(|| {
            sys!(SYS_mmap, 0, 1usize << 40, PROT_READ | PROT_WRITE, flags, -1i32, 0).unwrap_or(0)
        });
        if at == 0 {
            return Err(Errno::ENOMEM);
        }
        touch(at + count * MIB, MIB);
        Ok(at)
    }),
    ("shared memory", |_| {
        let at = sys!(SYS_mmap, 0, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1i32, 0)?;
        touch(at, MIB);
        Ok(at)
    }),
    ("mappings", |count| {
        let protection = if count % 2 == 0 { PROT_READ } else { PROT_NONE };
        sys!(SYS_mmap, 0, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1i32, 0)
    }),
    ("locked memory", |_| {
        let at = touched(MIB)?;
        sys!(SYS_mlock, at, MIB)
    }),
    ("the program break", |_| {
        let before = sys!(SYS_brk, 0)?;
        let after = sys!(SYS_brk, before + MIB)?;
        if after == before {
            return Err(Errno::ENOMEM);
        }
        touch(before, MIB);
        Ok(after)
    }),
    ("descriptors", |_| sys!(SYS_dup, 0)),
    ("pipes", |_| {
        let mut fds = [0i32; 2];
        sys!(SYS_pipe2, fds.as_mut_ptr(), O_NONBLOCK)?;
        let _ = sys!(SYS_fcntl, fds[1], F_SETPIPE_SZ, MIB);
        fill(fds[1] as usize);
        Ok(0)
    }),
    ("event descriptors", |_| sys!(SYS_eventfd2, 0, 0)),
    ("timer descriptors", |_| sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0)),
    ("epoll instances", |_| sys!(SYS_epoll_create1, 0)),
    ("epoll watches", |_| {
        // The same file under another number is another watch.
        static EPOLL: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let epoll = *EPOLL.get_or_init(|| sys!(SYS_epoll_create1, 0).expect("the first can be had"));
        let fd = sys!(SYS_eventfd2, 0, 0)?;
        let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
        sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &raw mut event)
    }),
    ("memory files", |_| {
        let fd = sys!(SYS_memfd_create, c("x").as_ptr(), 0)?;
        sys!(SYS_fallocate, fd, 0, 0, MIB)
    }),
    ("stream sockets and what waits in them", |_| {
        let mut fds = [0i32; 2];
        sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.as_mut_ptr())?;
        let size = 1i32 << 30;
        let _ = sys!(SYS_setsockopt, fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &raw const size, 4);
        fill(fds[0] as usize);
        Ok(0)
    }),
    ("datagrams", |_| {
        let mut fds = [0i32; 2];
        sys!(SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds.as_mut_ptr())?;
        fill(fds[0] as usize);
        Ok(0)
    }),
    ("connections over TCP", |_| connection()),
    ("terminals", |_| open("/dev/ptmx", O_RDWR | O_NOCTTY)),
    ("files", |count| {
        let fd = open(&format!("/tmp/file-{count}"), O_RDWR | O_CREAT)?;
        sys::close(fd)
    }),
    ("names of files", |count| {
        let name = format!("/tmp/{count:0>250}");
        let fd = open(&name, O_RDWR | O_CREAT)?;
        sys::close(fd)
    }),
    ("directories, each in the last", |_| {
        sys!(SYS_mkdir, c("d").as_ptr(), 0o755)?;
        sys!(SYS_chdir, c("d").as_ptr())
    }),
    ("links", |count| {
        sys!(SYS_symlink, c(&"x".repeat(4000)).as_ptr(), c(&format!("/tmp/link-{count}")).as_ptr())
    }),
    ("bytes of one file", |_| {
        static FILE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let fd = *FILE.get_or_init(|| sys::fd("/tmp/large", O_RDWR | O_CREAT));
        sys::write(fd, &vec![1; MIB])
    }),
    ("extended attributes", |count| {
        if count % 200 == 0 {
            std::fs::write(format!("/tmp/x-{}", count / 200), "").map_err(|_| Errno::ENOSPC)?;
        }
        let path = c(&format!("/tmp/x-{}", count / 200));
        let name = c(&format!("user.{count}"));
        sys!(SYS_setxattr, path.as_ptr(), name.as_ptr(), vec![1u8; 2000].as_ptr(), 2000, 0)
    }),
    ("record locks", |count| {
        // Few in each file, as the kernel goes through those of a file.
        static FILE: AtomicUsize = AtomicUsize::new(0);
        if count % 200 == 0 {
            FILE.store(open(&format!("/tmp/locks-{count}"), O_RDWR | O_CREAT)?, Ordering::Relaxed);
        }
        let fd = FILE.load(Ordering::Relaxed);
        let mut lock: flock = zeroed();
        (lock.l_type, lock.l_start, lock.l_len) = (F_WRLCK as i16, 2 * count as i64, 1);
        sys!(SYS_fcntl, fd, F_SETLK, &raw const lock)
    }),
    ("shared memory of System V", |_| {
        let id = sys!(SYS_shmget, IPC_PRIVATE, MIB, IPC_CREAT | 0o600)?;
        let at = sys!(SYS_shmat, id, 0, 0)?;
        touch(at, MIB);
        Ok(at)
    }),
    ("semaphores of System V", |_| sys!(SYS_semget, IPC_PRIVATE, 250, IPC_CREAT | 0o600)),
    ("messages of System V", |_| {
        let id = sys!(SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0o600)?;
        let message = vec![1u8; 8200];
        while sys!(SYS_msgsnd, id, message.as_ptr(), 8000, IPC_NOWAIT).is_ok() {}
        Ok(id)
    }),
    ("message queues", |count| {
        let name = c(&format!("queue-{count}"));
        let fd = sys!(SYS_mq_open, name.as_ptr(), O_RDWR | O_CREAT | O_NONBLOCK, 0o600, 0)?;
        let message = vec![1u8; 8192];
        while sys!(SYS_mq_timedsend, fd, message.as_ptr(), 8192, 0, 0).is_ok() {}
        Ok(fd)
    }),
    ("interval timers", |_| {
        let mut timer = 0i32;
        let mut event: sigevent = zeroed();
        event.sigev_notify = SIGEV_NONE;
        sys!(SYS_timer_create, CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
    }),
    ("queued signals", |_| {
        static BLOCKED: std::sync::Once = std::sync::Once::new();
        BLOCKED.call_once(|| {
            let mask = u64::MAX;
            sys!(SYS_rt_sigprocmask, SIG_SETMASK, &raw const mask, 0, 8).expect("signals can be blocked");
        });
        let mut info = [0u32; 32];
        (info[0], info[2]) = (40, -1i32 as u32);
        sys!(SYS_rt_sigqueueinfo, sys::pid(), 40, info.as_ptr())
    }),
];

pub fn attacks() -> Vec<Attack> {
    let mut all: Vec<Attack> =
        TAKEN.iter().map(|&(name, take)| Attack::new(name, move || takes_all(take))).collect();
    all.extend([
        Attack::new("descriptors in flight", descriptors_in_flight),
        Attack::new("processes", fork_bomb),
        Attack::new("threads", threads),
        Attack::new("the stack", || must_die(|| recurse(0))),
        Attack::new("epoll instances in each other", epoll_nest),
        Attack::new("links to links", link_chain),
        Attack::new("a robust list without an end", robust_list),
        Attack::new("arguments of a program", arguments),
        Attack::new("lengths beyond all", lengths),
        Attack::new("a file that grows as it is unpacked", unpacked),
        Attack::new("a file of holes", holes),
    ]);
    all
}

fn touch(at: usize, len: usize) {
    for page in (at..at + len).step_by(PAGE) {
        // SAFETY: the pages were just mapped for writing, or the child dies.
        unsafe { (page as *mut u8).write_volatile(1) };
    }
}

fn touched(len: usize) -> sys::Answer {
    let at = sys!(SYS_mmap, 0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i32, 0)?;
    touch(at, len);
    Ok(at)
}

/// Writes to what does not wait until it takes no more.
fn fill(fd: usize) {
    let bytes = vec![1u8; 1 << 16];
    while sys::write(fd, &bytes).is_ok() {}
}

fn takes_all(take: Take) -> Verdict {
    let end = sys::ends(move || {
        // It is the one to go when memory is short.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        // As much as may be had.
        let most = [u64::MAX; 2];
        for limit in [RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE] {
            let _ = sys!(SYS_prlimit64, 0, limit, most.as_ptr(), 0);
        }
        let _ = sys!(SYS_chdir, c("/tmp").as_ptr());
        let start = Instant::now();
        for count in 0.. {
            if take(count).is_err() {
                return MET_A_LIMIT;
            }
            if start.elapsed() > LONG {
                break;
            }
        }
        MET_NONE
    });
    clean_up();
    match end.as_str() {
        "exited 10" | "killed by 9" => must_go_on(end),
        _ => Err(format!("{end}: no limit was met")),
    }
}

/// Removes what outlives who made it.
fn clean_up() {
    for index in 0..4096 {
        if let Ok(id) = sys!(SYS_shmctl, index, SHM_STAT, vec![0u8; 256].as_mut_ptr()) {
            let _ = sys!(SYS_shmctl, id, IPC_RMID, 0);
        }
    }
    let _ = std::process::Command::new("find").args(["/tmp", "-mindepth", "1", "-delete"]).output();
}

fn connection() -> sys::Answer {
    static LISTENER: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let mut address: sockaddr_in = zeroed();
    (address.sin_family, address.sin_port) = (AF_INET as u16, 7777u16.to_be());
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let listener = *LISTENER.get_or_init(|| {
        let fd = sys!(SYS_socket, AF_INET, SOCK_STREAM, 0).expect("the first can be had");
        sys!(SYS_bind, fd, &raw const address, size_of::<sockaddr_in>()).expect("the port is free");
        sys!(SYS_listen, fd, 4096).expect("it is bound");
        fd
    });
    let fd = sys!(SYS_socket, AF_INET, SOCK_STREAM, 0)?;
    sys!(SYS_connect, fd, &raw const address, size_of::<sockaddr_in>())?;
    let peer = sys!(SYS_accept4, listener, 0, 0, SOCK_NONBLOCK)?;
    fill(peer);
    Ok(peer)
}

/// Those that nobody can receive any more are collected, so there is no limit to meet.
fn descriptors_in_flight() -> Verdict {
    for count in 0..20_000 {
        if let Err(errno) = in_flight() {
            return Err(format!("{errno:?} after {count}"));
        }
    }
    must_go_on("twenty thousand pairs went".to_owned())
}

/// Sends a socket over itself, so that only the kernel knows it.
fn in_flight() -> sys::Answer {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds.as_mut_ptr())?;
    let byte = [1u8];
    let mut part = iovec { iov_base: byte.as_ptr() as *mut c_void, iov_len: 1 };
    let mut control = [0u64; 3];
    let header = control.as_mut_ptr().cast::<cmsghdr>();
    // SAFETY: the buffer is large enough for a header and two descriptors.
    unsafe {
        (*header).cmsg_len = 24;
        (*header).cmsg_level = SOL_SOCKET;
        (*header).cmsg_type = SCM_RIGHTS;
    }
    control[2] = u64::from(fds[0] as u32) | u64::from(fds[1] as u32) << 32;
    let mut message: msghdr = zeroed();
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), 24);
    sys!(SYS_sendmsg, fds[0], &raw const message, MSG_DONTWAIT)?;
    sys::close(fds[0] as usize)?;
    sys::close(fds[1] as usize)
}

/// Children that make children, all of which stay.
fn fork_bomb() -> Verdict {
    let bomb = sys::child(|| {
        sys!(SYS_setpgid, 0, 0).expect("a child may");
        loop {
            let _ = sys!(SYS_fork);
        }
    });
    // The group is there once the first of them is in it.
    std::thread::sleep(Duration::from_millis(700));
    while sys!(SYS_kill, -bomb, SIGKILL).is_ok() {
        while sys!(SYS_wait4, -1i32, 0, WNOHANG, 0).is_ok_and(|pid| pid > 0) {}
        std::thread::yield_now();
    }
    while sys!(SYS_wait4, -1i32, 0, 0, 0).is_ok() {}
    must_go_on("the group was killed".to_owned())
}

fn threads() -> Verdict {
    let end = sys::ends(|| {
        for _ in 0..100_000 {
            let thread = std::thread::Builder::new().stack_size(16 << 10).spawn(|| {
                loop {
                    std::thread::park();
                }
            });
            if thread.is_err() {
                return MET_A_LIMIT;
            }
        }
        MET_NONE
    });
    if end == "exited 10" || end == "killed by 9" { must_go_on(end) } else { Err(end) }
}

#[allow(unconditional_recursion, reason = "the stack ends")]
fn recurse(depth: u64) {
    let frame = std::hint::black_box([depth; 512]);
    recurse(frame[0] + 1);
    std::hint::black_box(frame);
}

fn epoll_nest() -> Verdict {
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
    let new = || sys!(SYS_epoll_create1, 0).expect("some can be had");
    let (first, mut last) = (new(), new());
    let mut add = |to: usize, what: usize| sys!(SYS_epoll_ctl, to, EPOLL_CTL_ADD, what, &raw mut event);
    must_fail_with(add(first, first), &[Errno::EINVAL])?;
    add(first, last).map_err(|errno| errno.to_string())?;
    must_fail_with(add(last, first), &[Errno::ELOOP])?;
    for depth in 0..100 {
        let next = new();
        if let Err(errno) = add(last, next) {
            return Ok(format!("{errno:?} at {depth}"));
        }
        last = next;
    }
    Err("a hundred in each other".to_owned())
}

fn link_chain() -> Verdict {
    for number in 0..200 {
        let link = c(&format!("/tmp/chain-{number}"));
        sys!(SYS_symlink, c(&format!("chain-{}", number + 1)).as_ptr(), link.as_ptr())
            .map_err(|errno| errno.to_string())?;
    }
    std::fs::write("/tmp/chain-200", "").map_err(|error| error.to_string())?;
    must_fail_with(open("/tmp/chain-0", O_RDONLY), &[Errno::ELOOP])?;
    let long = format!("/{}", "tmp/../".repeat(580));
    must_fail_with(open(&format!("{long}{long}"), O_RDONLY), &[Errno::ENAMETOOLONG])
}

/// The kernel walks the list of a thread that ends: a cycle must not keep it.
fn robust_list() -> Verdict {
    let end = sys::ends(|| {
        let mut list = [0usize; 8];
        list[0] = list.as_ptr() as usize + 24;
        list[3] = list.as_ptr() as usize + 32;
        list[4] = list.as_ptr() as usize + 24;
        sys!(SYS_set_robust_list, list.as_ptr(), 24).expect("any address will do");
        std::hint::black_box(&list);
        sys!(SYS_exit, 5).expect("it does not return");
        0
    });
    if end == "exited 5" { must_go_on(end) } else { Err(end) }
}

fn arguments() -> Verdict {
    let word = c(&"x".repeat(100_000));
    let mut words = vec![word.as_ptr() as usize; 2000];
    words.push(0);
    let program = c("/usr/bin/true");
    must_fail_with(sys!(SYS_execve, program.as_ptr(), words.as_ptr(), 0), &[Errno::E2BIG])?;
    // A list that does not end.
    let end = sys::ends(|| {
        let words = vec![c"x".as_ptr() as usize; 4 << 20 >> 3];
        let _ = sys!(SYS_execve, c("/usr/bin/true").as_ptr(), words.as_ptr(), words.as_ptr());
        MET_A_LIMIT
    });
    must_go_on(end)
}

fn lengths() -> Verdict {
    let null = sys::fd("/dev/zero", O_RDWR);
    // A page, and behind it nothing.
    let at = touched(2 * PAGE).map_err(|errno| errno.to_string())?;
    sys!(SYS_mprotect, at + PAGE, PAGE, PROT_NONE).map_err(|errno| errno.to_string())?;
    let refused =
        [Errno::EINVAL, Errno::EFAULT, Errno::ENOMEM, Errno::E2BIG, Errno::EMSGSIZE, Errno::ENOBUFS];
    let mut answers = Vec::new();
    for length in [usize::MAX, 1 << 63, (1 << 63) - 1, 1 << 47, 1 << 40] {
        for answer in [
            sys!(
                SYS_mmap,
                0,
                length,
                PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                -1i32,
                0
            ),
            sys!(SYS_poll, at, length, 0),
            sys!(SYS_readv, null, at, length),
            sys!(SYS_setgroups, length, at),
            sys!(SYS_sethostname, at, length),
            sys!(SYS_prctl, PR_SET_NAME, 0, 0, 0, 0),
            sys!(SYS_sched_setaffinity, 0, 0, at),
            sys!(SYS_add_key, at, at, at, length, 0).and(Ok(0)).or(Err(Errno::EINVAL)),
            sys!(SYS_setsockopt, null, SOL_SOCKET, SO_RCVBUF, at, length).or(Err(Errno::EINVAL)),
            sys!(SYS_semtimedop, 0, at, length, 0).or(Err(Errno::EINVAL)),
        ] {
            // Where only the lower half of a length counts it may be 0, and that is no more than nothing.
            if answer != Ok(0) {
                answers.push(must_fail_with(answer, &refused)?);
            }
        }
        // These take as much as is there, or fail.
        let _ = sys!(SYS_getrandom, at, length, 0);
        let _ = sys!(SYS_read, null, at, length);
        let _ = sys!(SYS_pwrite64, null, at, length, length);
    }
    must_go_on(answers[0].clone())
}

fn unpacked() -> Verdict {
    let script = "head -c 100M /dev/zero | gzip -1 > /tmp/small.gz && gzip -dc /tmp/small.gz > /tmp/one && \
                  gzip -dc /tmp/small.gz > /tmp/two";
    let output = std::process::Command::new("sh").args(["-c", script]).output();
    let status = output.map_err(|error| error.to_string())?.status;
    let there: u64 =
        ["/tmp/one", "/tmp/two"].iter().filter_map(|it| std::fs::metadata(it).ok()).map(|it| it.len()).sum();
    for name in ["/tmp/one", "/tmp/two", "/tmp/small.gz"] {
        let _ = std::fs::remove_file(name);
    }
    if status.success() || there > 64 << 20 {
        return Err(format!("{status}, {there} bytes"));
    }
    must_go_on(format!("{status}"))
}

fn holes() -> Verdict {
    let fd = sys::fd("/tmp/holes", O_RDWR | O_CREAT);
    must_fail_with(sys!(SYS_ftruncate, fd, -1i64), &[Errno::EINVAL])?;
    let huge = sys!(SYS_ftruncate, fd, 1i64 << 50);
    for offset in (0..1u64 << 50).step_by(1 << 42) {
        if sys!(SYS_pwrite64, fd, c"x".as_ptr(), 1, offset).is_err() {
            break;
        }
    }
    let full = sys!(SYS_fallocate, fd, 0, 0, 1i64 << 40);
    must_fail_with(full, &[Errno::ENOSPC, Errno::EFBIG, Errno::ENOMEM]).and_then(|how| {
        sys::close(fd).expect("it is open");
        must_go_on(format!("{huge:?}, then {how}"))
    })
}
