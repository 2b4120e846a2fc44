//! POSIX message queues.

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use libc::*;

use crate::sys::{self, Answer, Errno, c, child, close, kill, pipe, sys, text, wait, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("mq_open", open),
    ("mq_names", names),
    ("mq_priorities", priorities),
    ("mq_errors", errors),
    ("mq_nonblocking", nonblocking),
    ("mq_waiting", waiting),
    ("mq_notify", notify),
    ("mq_notify_thread", notify_thread),
    ("mq_poll", poll),
    ("mq_limits", limits),
    ("mq_permission", permission),
];

const RW: i32 = 0o600;

/// A name that no other run has.
fn name(n: i32) -> String {
    format!("guest-check-{}-{n}", sys::pid())
}

fn attr(max: i64, len: i64) -> [i64; 8] {
    [0, max, len, 0, 0, 0, 0, 0]
}

fn mq_open(name: &str, flags: i32, mode: i32, attr: Option<&[i64; 8]>) -> Answer {
    let attr = attr.map_or(0, |attr| attr.as_ptr() as usize);
    sys!(SYS_mq_open, c(name).as_ptr(), flags, mode, attr)
}

fn unlink(name: &str) -> Answer {
    sys!(SYS_mq_unlink, c(name).as_ptr())
}

fn send(fd: usize, text: &str, priority: u32) -> Answer {
    sys!(SYS_mq_timedsend, fd, text.as_ptr(), text.len(), priority, 0)
}

fn receive(fd: usize, len: usize) -> Result<(u32, String), Errno> {
    receive_until(fd, len, 0)
}

fn receive_until(fd: usize, len: usize, timeout: usize) -> Result<(u32, String), Errno> {
    let mut text = vec![0u8; len];
    let mut priority = 99u32;
    let count = sys!(SYS_mq_timedreceive, fd, text.as_mut_ptr(), len, &raw mut priority, timeout)?;
    Ok((priority, String::from_utf8_lossy(&text[..count]).into_owned()))
}

fn getattr(fd: usize) -> Result<[i64; 4], Errno> {
    let mut old = [9i64; 8];
    sys!(SYS_mq_getsetattr, fd, 0, old.as_mut_ptr())?;
    Ok(old[..4].try_into().unwrap())
}

fn open(r: &mut Report) {
    let name = name(1);
    r.see("missing", mq_open(&name, O_RDWR, 0, None));
    let fd = mq_open(&name, O_RDWR | O_CREAT | O_EXCL, 0o640, Some(&attr(4, 16))).unwrap();
    r.see("attributes", getattr(fd));
    r.see("exclusive", mq_open(&name, O_RDWR | O_CREAT | O_EXCL, RW, None));
    let again = mq_open(&name, O_RDONLY | O_CREAT | O_NONBLOCK, RW, Some(&attr(9, 9))).unwrap();
    r.see("again", getattr(again));
    r.see("bad access", mq_open(&name, O_ACCMODE, 0, None));
    r.see("closed on exec", sys!(SYS_fcntl, fd, F_GETFD));
    r.see("flags", (sys!(SYS_fcntl, fd, F_GETFL), sys!(SYS_fcntl, again, F_GETFL)));
    let stat = sys::fstat(fd).unwrap();
    r.see("stat", (stat.st_mode, stat.st_size, stat.st_nlink, stat.st_uid));
    send(fd, "x", 0).unwrap();
    r.see("shared", (receive(again, 16), getattr(fd)));
    r.see("unlink", (unlink(&name), unlink(&name)));
    r.see("still there", (send(fd, "y", 0), receive(again, 16)));
    r.see("not found", mq_open(&name, O_RDWR, 0, None));
    r.see("close", (close(fd), close(again)));
}

fn names(r: &mut Report) {
    for name in ["", ".", "..", "a/b", "/a"] {
        r.see(format!("create {name:?}"), mq_open(name, O_RDWR | O_CREAT, RW, None));
        r.see(format!("unlink {name:?}"), unlink(name));
    }
    let long = "n".repeat(256);
    r.see("too long", (mq_open(&long, O_RDWR | O_CREAT, RW, None), unlink(&long)));
    let longest = format!("{:n<255}", name(2));
    r.see("longest", (mq_open(&longest, O_RDWR | O_CREAT, RW, None).is_ok(), unlink(&longest)));
    r.see("bad address", (sys!(SYS_mq_open, 8, O_RDWR, 0, 0), sys!(SYS_mq_unlink, 8)));
    let name = name(3);
    r.see("bad attributes", sys!(SYS_mq_open, c(&name).as_ptr(), O_RDWR | O_CREAT, RW, 8));
    for (max, len) in [(0, 8), (8, 0), (-1, 8), (8, -1), (i64::MAX, i64::MAX)] {
        r.see(format!("{max} of {len}"), mq_open(&name, O_RDWR | O_CREAT, RW, Some(&attr(max, len))));
    }
    let usual = mq_open(&name, O_RDWR | O_CREAT, RW, None).unwrap();
    r.see("usual", getattr(usual));
    unlink(&name).unwrap();
}

fn fresh(n: i32, max: i64, len: i64, flags: i32) -> usize {
    let name = name(n);
    let fd = mq_open(&name, O_RDWR | O_CREAT | O_EXCL | flags, RW, Some(&attr(max, len))).unwrap();
    unlink(&name).unwrap();
    fd
}

fn priorities(r: &mut Report) {
    let fd = fresh(4, 8, 16, 0);
    for (text, priority) in [("low", 1), ("high", 7), ("lower", 0), ("also high", 7), ("", 32767)] {
        r.see(format!("send {text:?}"), send(fd, text, priority));
    }
    let mut bytes = [0u8; 80];
    let count = sys!(SYS_read, fd, bytes.as_mut_ptr(), bytes.len()).unwrap();
    r.see("read", String::from_utf8_lossy(&bytes[..count]));
    r.see("write", sys!(SYS_write, fd, bytes.as_ptr(), 1));
    r.see("received", (0..5).map(|_| receive(fd, 16)).collect::<Vec<_>>());
    r.see("no priority wanted", {
        send(fd, "x", 3).unwrap();
        sys!(SYS_mq_timedreceive, fd, bytes.as_mut_ptr(), 16, 0, 0)
    });
}

fn errors(r: &mut Report) {
    let fd = fresh(5, 2, 16, 0);
    r.see("too long", send(fd, "12345678901234567", 0));
    r.see("bad priority", (send(fd, "x", 32768), send(fd, "x", u32::MAX)));
    r.see("buffer too small", receive(fd, 15));
    r.see("bad descriptor", (send(99, "x", 0), receive(99, 16), getattr(99)));
    let pipe = pipe(0);
    r.see("another kind", (send(pipe.1, "x", 0), receive(pipe.0, 16), getattr(pipe.0)));
    r.see("bad address", sys!(SYS_mq_timedsend, fd, 8, 3, 0, 0));
    r.see(
        "bad time",
        (receive_until(fd, 16, 8), {
            let time = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
            receive_until(fd, 16, &raw const time as usize)
        }),
    );
    send(fd, "lost", 0).unwrap();
    r.see("bad buffer", sys!(SYS_mq_timedreceive, fd, 8, 16, 0, 0));
    r.see("lost", getattr(fd));
    let name = name(6);
    let both = mq_open(&name, O_RDWR | O_CREAT, RW, None).unwrap();
    let (reader, writer) =
        (mq_open(&name, O_RDONLY, 0, None).unwrap(), mq_open(&name, O_WRONLY, 0, None).unwrap());
    unlink(&name).unwrap();
    r.see("wrong way", (send(reader, "x", 0), receive(writer, 8192)));
    r.see("right way", (send(writer, "x", 0), receive(reader, 8192)));
    r.see("seek", sys::seek(both, 5, SEEK_SET));
    r.see(
        "bad attributes",
        (
            sys!(SYS_mq_getsetattr, both, 8, 0),
            sys!(SYS_mq_getsetattr, both, 0, 8),
            sys!(SYS_mq_getsetattr, both, [1i64, 0, 0, 0, 0, 0, 0, 0].as_ptr(), 0),
        ),
    );
}

fn nonblocking(r: &mut Report) {
    let fd = fresh(7, 1, 8, O_NONBLOCK);
    r.see("empty", receive(fd, 8));
    r.see("full", (send(fd, "a", 0), send(fd, "b", 0)));
    let mut old = [0i64; 8];
    r.see("set", (sys!(SYS_mq_getsetattr, fd, [0i64; 8].as_ptr(), old.as_mut_ptr()), old));
    r.see("then", (getattr(fd), sys!(SYS_fcntl, fd, F_GETFL)));
    let past = timespec { tv_sec: 1, tv_nsec: 0 };
    r.see("full in the past", sys!(SYS_mq_timedsend, fd, b"b".as_ptr(), 1, 0, &raw const past));
    r.see("in the past with a message", receive_until(fd, 8, &raw const past as usize));
    r.see("in the past without", receive_until(fd, 8, &raw const past as usize));
}

fn soon(ms: i64) -> timespec {
    let mut now: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_REALTIME, &raw mut now).unwrap();
    let nsec = now.tv_nsec + ms * 1_000_000;
    timespec { tv_sec: now.tv_sec + nsec / 1_000_000_000, tv_nsec: nsec % 1_000_000_000 }
}

extern "C" fn nothing(_: i32) {}

fn waiting(r: &mut Report) {
    let fd = fresh(8, 1, 8, 0);
    let time = soon(20);
    r.see("time is up", receive_until(fd, 8, &raw const time as usize));
    let receiver = child(|| i32::from(receive(fd, 8) != Ok((5, "hello".into()))));
    sys::sleep_ms(30);
    send(fd, "hello", 5).unwrap();
    r.see("handed over", getattr(fd).map(|attr| attr[3]));
    r.see("receiver", wait(receiver));
    send(fd, "first", 1).unwrap();
    let time = soon(20);
    r.see("full, time is up", sys!(SYS_mq_timedsend, fd, b"x".as_ptr(), 1, 0, &raw const time));
    let sender = child(|| i32::from(send(fd, "second", 2).is_err()));
    sys::sleep_ms(30);
    r.see("room", receive(fd, 8));
    r.see("sender", (wait(sender), receive(fd, 8)));
    let interrupted = child(|| {
        // SAFETY: the handler does nothing; without SA_RESTART the call ends with it.
        unsafe {
            let mut action: sigaction = zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            sigaction(SIGUSR1, &raw const action, std::ptr::null_mut());
        }
        i32::from(receive(fd, 8) != Err(Errno::EINTR))
    });
    sys::sleep_ms(50);
    kill(interrupted, SIGUSR1).unwrap();
    r.see("interrupted", wait(interrupted));
    send(fd, "last", 0).unwrap();
    r.see("who was interrupted gets nothing", receive(fd, 8));
}

static VALUE: AtomicI64 = AtomicI64::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn told(_: i32, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a siginfo, and a queued signal has a value.
    let (code, value) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr as i64) };
    CODE.store(code, Ordering::SeqCst);
    VALUE.fetch_add(value, Ordering::SeqCst);
}

fn notify(r: &mut Report) {
    // SAFETY: the handler only stores to atomics.
    unsafe {
        let mut action: sigaction = zeroed();
        action.sa_sigaction = told as *const () as usize;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGUSR2, &raw const action, std::ptr::null_mut());
    }
    let fd = fresh(9, 4, 8, 0);
    let event = |notify: i32, signo: i32, value: u64| {
        [value, u64::from(signo as u32) | (notify as u64) << 32, 0, 0, 0, 0, 0, 0]
    };
    let ask = |event: [u64; 8]| sys!(SYS_mq_notify, fd, event.as_ptr());
    r.see("ask", ask(event(SIGEV_SIGNAL, SIGUSR2, 7)));
    r.see("again", ask(event(SIGEV_SIGNAL, SIGUSR2, 7)));
    r.see("another process", sys::ends(|| i32::from(ask(event(SIGEV_NONE, 0, 0)) != Err(Errno::EBUSY))));
    r.see("another process can not cancel", sys::ends(|| i32::from(sys!(SYS_mq_notify, fd, 0).is_err())));
    send(fd, "x", 0).unwrap();
    r.see("told", (VALUE.load(Ordering::SeqCst), CODE.load(Ordering::SeqCst)));
    send(fd, "y", 0).unwrap();
    r.see("once", VALUE.load(Ordering::SeqCst));
    r.see("ask when there are some", ask(event(SIGEV_SIGNAL, SIGUSR2, 100)));
    send(fd, "z", 0).unwrap();
    r.see("not told", VALUE.load(Ordering::SeqCst));
    for _ in 0..3 {
        receive(fd, 8).unwrap();
    }
    let receiver = child(|| i32::from(receive(fd, 8).is_err()));
    sys::sleep_ms(30);
    send(fd, "w", 0).unwrap();
    r.see("not told of what is awaited", (wait(receiver), VALUE.load(Ordering::SeqCst)));
    r.see("cancel", (sys!(SYS_mq_notify, fd, 0), sys!(SYS_mq_notify, fd, 0)));
    send(fd, "v", 0).unwrap();
    r.see("cancelled", VALUE.load(Ordering::SeqCst));
    receive(fd, 8).unwrap();
    r.see(
        "nothing is sent",
        (
            ask(event(SIGEV_NONE, 0, 0)),
            ask(event(SIGEV_NONE, 0, 0)),
            send(fd, "u", 0),
            ask(event(SIGEV_NONE, 0, 0)),
        ),
    );
    let mut bytes = [0u8; 80];
    let count = sys!(SYS_read, fd, bytes.as_mut_ptr(), bytes.len()).unwrap();
    r.see(
        "read",
        String::from_utf8_lossy(&bytes[..count]).replace(&sys::pid().to_string(), "PID").replace(' ', ""),
    );
    let other = sys!(SYS_dup, fd).unwrap();
    r.see("closing a duplicate cancels", (close(other), ask(event(SIGEV_NONE, 0, 0))));
    r.see(
        "errors",
        (
            ask(event(9, 0, 0)),
            ask(event(SIGEV_SIGNAL, 65, 0)),
            ask(event(SIGEV_SIGNAL, -1, 0)),
            sys!(SYS_mq_notify, fd, 8),
            sys!(SYS_mq_notify, 99, 0),
            sys!(SYS_mq_notify, pipe(0).0, 0),
        ),
    );
    let cookie = [0u8; 32];
    r.see(
        "thread",
        (
            ask(event(SIGEV_THREAD, 99, cookie.as_ptr() as u64)),
            ask(event(SIGEV_THREAD, fd as i32, cookie.as_ptr() as u64)),
            ask(event(SIGEV_THREAD, 99, 8)),
        ),
    );
}

/// SIGEV_THREAD as a C library does it: a thread of its own reads cookies from a netlink socket.
fn notify_thread(r: &mut Report) {
    let fd = fresh(11, 4, 8, 0);
    let socket = sys!(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0).unwrap();
    let cookie: [u8; 32] = std::array::from_fn(|n| n as u8 + 1);
    let ask = |to: usize| {
        let event = [cookie.as_ptr() as u64, to as u64 | (SIGEV_THREAD as u64) << 32, 0, 0, 0, 0, 0, 0];
        sys!(SYS_mq_notify, fd, event.as_ptr())
    };
    let told = || {
        let mut bytes = [0u8; 100];
        let mut from = [7u32; 3];
        let mut len = 12u32;
        let (at, from_at) = (bytes.as_mut_ptr(), from.as_mut_ptr());
        let count = sys!(SYS_recvfrom, socket, at, 100, MSG_DONTWAIT, from_at, &raw mut len)?;
        Ok::<_, Errno>((bytes[..count].to_vec(), from, len))
    };
    let unix = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).unwrap();
    r.see("another family", ask(unix));
    r.see("ask", (ask(socket), ask(socket), told()));
    let mut shown = [0u8; 80];
    let count = sys!(SYS_read, fd, shown.as_mut_ptr(), shown.len()).unwrap();
    let shown = String::from_utf8_lossy(&shown[..count]);
    r.see("read", shown.split("NOTIFY_PID").next());
    send(fd, "x", 0).unwrap();
    r.see("a message", (told(), told()));
    send(fd, "y", 0).unwrap();
    r.see("once", told());
    receive(fd, 8).unwrap();
    receive(fd, 8).unwrap();
    r.see("cancelled", (ask(socket), sys!(SYS_mq_notify, fd, 0), told()));
    let other = sys!(SYS_dup, fd).unwrap();
    r.see("a duplicate is closed", (ask(socket), close(other), told()));
    let gone = sys!(SYS_socket, AF_NETLINK, SOCK_RAW, 0).unwrap();
    r.see("the socket is gone", (ask(gone), close(gone), send(fd, "z", 0), ask(socket)));
}

fn poll(r: &mut Report) {
    let fd = fresh(10, 1, 8, 0);
    let ready = || {
        let mut list = [pollfd { fd: fd as i32, events: POLLIN | POLLOUT, revents: 0 }];
        (sys!(SYS_poll, list.as_mut_ptr(), 1, 0), list[0].revents)
    };
    r.see("empty", ready());
    send(fd, "x", 0).unwrap();
    r.see("full", ready());
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 5 };
    r.see("epoll", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &raw mut event));
    r.see("event", sys!(SYS_epoll_wait, epoll, &raw mut event, 1, 0));
    receive(fd, 8).unwrap();
    r.see("no event", sys!(SYS_epoll_wait, epoll, &raw mut event, 1, 0));
    let sender = child(|| {
        sys::sleep_ms(20);
        i32::from(send(fd, "y", 0).is_err())
    });
    r.see("event later", sys!(SYS_epoll_wait, epoll, &raw mut event, 1, 5000));
    r.see("sender", wait(sender));
}

fn limits(r: &mut Report) {
    for name in ["msg_default", "msg_max", "msgsize_default", "msgsize_max", "queues_max"] {
        r.see(name, text(&format!("/proc/sys/fs/mqueue/{name}")));
    }
    // What is counted for a queue: the limit is just enough, or one byte short.
    let needed: u64 = 4 * (48 + 48) + 4 * 100;
    for bytes in [needed, needed - 1] {
        let status = sys::ends(|| {
            let limit = rlimit { rlim_cur: bytes, rlim_max: bytes };
            sys!(SYS_setrlimit, RLIMIT_MSGQUEUE, &raw const limit).unwrap();
            let answer = mq_open(&name(11), O_RDWR | O_CREAT, RW, Some(&attr(4, 100)));
            let _ = unlink(&name(11));
            answer.err().map_or(0, |errno| errno as i32)
        });
        r.see(format!("limit {bytes}"), status);
    }
}

fn permission(r: &mut Report) {
    let name = name(12);
    let fd = mq_open(&name, O_RDWR | O_CREAT, 0o666, Some(&attr(2, 8))).unwrap();
    r.see("mode", sys::fstat(fd).map(|stat| stat.st_mode));
    let pid = child(|| {
        if sys!(SYS_setresgid, 1234, 1234, 1234).is_err() || sys!(SYS_setresuid, 1234, 1234, 1234).is_err() {
            return 0;
        }
        let answers = [
            mq_open(&name, O_RDONLY, 0, None).err(),
            mq_open(&name, O_WRONLY, 0, None).err(),
            mq_open(&name, O_RDWR, 0, None).err(),
            unlink(&name).err(),
            mq_open(&format!("{name}-own"), O_RDWR | O_CREAT, RW, Some(&attr(11, 8))).err(),
            mq_open(&format!("{name}-own"), O_RDWR | O_CREAT, RW, Some(&attr(1, 8193))).err(),
        ];
        println!("mq_permission/other: {answers:?}");
        use std::io::Write;
        std::io::stdout().flush().unwrap();
        0
    });
    r.see("child", wait(pid));
    unlink(&name).unwrap();
}
