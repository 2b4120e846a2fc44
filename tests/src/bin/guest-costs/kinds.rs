//! The kinds of objects. Each function makes so many of one kind, or panics.

use libc::*;

use crate::sys::{self, c, sys, zeroed};

const PAGE: usize = 4096;

/// A kind: the name that the table of docs/design/memory-and-limits.md has for it, and what makes so many.
pub type Kind = (&'static str, fn(usize));

pub const KINDS: &[Kind] = &[
    ("nothing", |_| {}),
    ("process that a fork made", processes),
    ("thread", threads),
    ("descriptor of a file that is open", descriptors),
    ("open file", open_files),
    ("empty file in memory", |count| files("/tmp", count)),
    ("directory in memory", directories),
    ("symbolic link in memory", links),
    ("name in a host directory, looked up", |count| looked_up("/image", count)),
    ("page of a file in memory", file_pages),
    ("page of a host file that is read", read_pages),
    ("pipe", pipes),
    ("UNIX socket, one of a pair", socket_pairs),
    ("UDP socket", |count| sockets(AF_INET, SOCK_DGRAM, count)),
    ("TCP connection, both ends", connections),
    ("datagram that waits", datagrams),
    ("mapping", mappings),
    ("page of anonymous memory", anonymous_pages),
    ("eventfd", |count| each(count, |_| sys!(SYS_eventfd2, 0, 0))),
    ("timerfd, armed", timer_descriptors),
    ("POSIX timer, armed", timers),
    ("epoll instance", |count| each(count, |_| sys!(SYS_epoll_create1, 0))),
    ("epoll item, with its descriptor", epoll_items),
    ("inotify watch, with its directory", watches),
    ("signal that waits", signals),
    ("record lock", locks),
    ("System V message", messages),
    ("System V semaphore set", |count| each(count, |_| sys!(SYS_semget, IPC_PRIVATE, 1, 0o600))),
];

/// Makes something for each number below `count`.
fn each(count: usize, make: impl Fn(usize) -> sys::Answer) {
    for number in 0..count {
        if let Err(errno) = make(number) {
            panic!("number {number}: {errno}");
        }
    }
}

fn processes(count: usize) {
    for _ in 0..count {
        sys::child(|| {
            loop {
                let _ = sys!(SYS_pause);
            }
        });
    }
}

fn threads(count: usize) {
    for _ in 0..count {
        let sleep = || {
            loop {
                let _ = sys!(SYS_pause);
            }
        };
        std::thread::Builder::new().stack_size(PAGE).spawn(sleep).expect("a thread can be made");
    }
}

fn descriptors(count: usize) {
    let fd = sys::fd("/dev/null", O_RDONLY);
    each(count, |_| sys!(SYS_dup, fd));
}

fn open_files(count: usize) {
    sys::file("/tmp/file", "contents");
    each(count, |_| sys::open("/tmp/file", O_RDONLY));
}

fn files(directory: &str, count: usize) {
    each(count, |number| {
        let fd = sys::open(&format!("{directory}/{number:08}"), O_WRONLY | O_CREAT)?;
        sys::close(fd)
    });
}

fn directories(count: usize) {
    each(count, |number| sys!(SYS_mkdir, c(&format!("/tmp/{number:08}")).as_ptr(), 0o755));
}

fn links(count: usize) {
    each(count, |number| sys!(SYS_symlink, c"target".as_ptr(), c(&format!("/tmp/{number:08}")).as_ptr()));
}

/// The host side has made the files.
fn looked_up(directory: &str, count: usize) {
    for number in 0..count {
        sys::stat(&format!("{directory}/{number:08}")).expect("a file of the host");
    }
}

fn file_pages(count: usize) {
    let fd = sys::fd("/tmp/file", O_RDWR | O_CREAT);
    each(count, |_| sys::write(fd, &[7; PAGE]));
}

fn read_pages(count: usize) {
    let fd = sys::fd("/image/large", O_RDONLY);
    let mut page = [0u8; PAGE];
    for _ in 0..count {
        assert_eq!(sys!(SYS_read, fd, page.as_mut_ptr(), PAGE), Ok(PAGE));
    }
}

fn pipes(count: usize) {
    for _ in 0..count {
        sys::pipe(0);
    }
}

fn socket_pairs(count: usize) {
    each(count.div_ceil(2), |_| {
        let mut pair = [0i32; 2];
        sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr())
    });
}

fn sockets(family: i32, kind: i32, count: usize) {
    each(count, |_| sys!(SYS_socket, family, kind, 0));
}

/// An address of the loopback, with this port.
fn loopback(port: u16) -> sockaddr_in {
    let mut address: sockaddr_in = zeroed();
    address.sin_family = AF_INET as u16;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    address
}

fn connections(count: usize) {
    let address = loopback(4000);
    let len = size_of::<sockaddr_in>();
    let listener = sys!(SYS_socket, AF_INET, SOCK_STREAM, 0).expect("a socket");
    sys!(SYS_bind, listener, &raw const address, len).expect("a free port");
    sys!(SYS_listen, listener, 16).expect("a bound socket");
    each(count, |_| {
        let socket = sys!(SYS_socket, AF_INET, SOCK_STREAM, 0)?;
        sys!(SYS_connect, socket, &raw const address, len)?;
        sys!(SYS_accept, listener, 0, 0)
    });
}

/// Each socket holds no more than some, so there are many.
fn datagrams(count: usize) {
    const EACH: usize = 8;
    for _ in 0..count.div_ceil(EACH) {
        let mut pair = [0i32; 2];
        sys!(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, pair.as_mut_ptr()).expect("a pair");
        each(EACH, |_| sys::write(pair[0] as usize, b"16 bytes of data"));
    }
}

fn map(len: usize) -> usize {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    sys!(SYS_mmap, 0, len, PROT_READ | PROT_WRITE, flags, -1i64, 0).expect("address space")
}

/// Every second page gets another protection, which takes two areas.
fn mappings(count: usize) {
    let base = map((count + 1) * PAGE * 8);
    each(count / 2, |number| sys!(SYS_mprotect, base + number * 16 * PAGE, 8 * PAGE, PROT_NONE));
}

fn anonymous_pages(count: usize) {
    let base = map(count * PAGE);
    for page in 0..count {
        // SAFETY: the page was just mapped, and nothing else refers to it.
        unsafe { ((base + page * PAGE) as *mut u8).write_volatile(1) };
    }
}

/// A time far away.
fn far() -> itimerspec {
    let mut time: itimerspec = zeroed();
    time.it_value.tv_sec = 1 << 20;
    time
}

fn timer_descriptors(count: usize) {
    let time = far();
    each(count, |_| {
        let fd = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0)?;
        sys!(SYS_timerfd_settime, fd, 0, &raw const time, 0)
    });
}

fn timers(count: usize) {
    let time = far();
    each(count, |_| {
        let mut id = 0i32;
        sys!(SYS_timer_create, CLOCK_MONOTONIC, 0, &raw mut id)?;
        sys!(SYS_timer_settime, id, 0, &raw const time, 0)
    });
}

fn epoll_items(count: usize) {
    let epoll = sys!(SYS_epoll_create1, 0).expect("epoll");
    let fd = sys!(SYS_eventfd2, 0, 0).expect("eventfd");
    each(count, |_| {
        let event = epoll_event { events: EPOLLIN as u32, u64: 0 };
        sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, sys!(SYS_dup, fd)?, &raw const event)
    });
}

fn watches(count: usize) {
    let inotify = sys!(SYS_inotify_init1, 0).expect("inotify");
    each(count, |number| {
        let path = c(&format!("/tmp/{number:08}"));
        sys!(SYS_mkdir, path.as_ptr(), 0o755)?;
        sys!(SYS_inotify_add_watch, inotify, path.as_ptr(), IN_CREATE)
    });
}

fn signals(count: usize) {
    let set = 1u64 << (SIGRTMIN() - 1);
    sys!(SYS_rt_sigprocmask, SIG_BLOCK, &raw const set, 0, 8).expect("a mask");
    let mut info = [0i32; 32];
    info[2] = SI_QUEUE;
    each(count, |_| sys!(SYS_rt_sigqueueinfo, sys::pid(), SIGRTMIN(), info.as_ptr()));
}

/// Every second byte, so that they stay apart.
fn locks(count: usize) {
    let fd = sys::fd("/tmp/file", O_RDWR | O_CREAT);
    each(count, |number| {
        let mut lock: flock = zeroed();
        lock.l_type = F_WRLCK as i16;
        lock.l_start = number as i64 * 2;
        lock.l_len = 1;
        sys!(SYS_fcntl, fd, F_SETLK, &raw const lock)
    });
}

/// Each queue holds no more than some, so there are many.
fn messages(count: usize) {
    const EACH: usize = 64;
    for _ in 0..count.div_ceil(EACH) {
        let queue = sys!(SYS_msgget, IPC_PRIVATE, 0o600).expect("a queue");
        let message = [1u64, 2, 3];
        each(EACH, |_| sys!(SYS_msgsnd, queue, message.as_ptr(), 16, IPC_NOWAIT));
    }
}
