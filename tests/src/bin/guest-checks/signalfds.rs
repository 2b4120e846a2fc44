//! Signals that are read from a descriptor: signalfd, signalfd4.

use libc::*;

use crate::sys::{self, Answer, close, file, kill, pipe, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("signalfd_errors", errors),
    ("signalfd_reads", reads),
    ("signalfd_fields", fields),
    ("signalfd_readiness", readiness),
    ("signalfd_waits", waits),
    ("signalfd_of_others", of_others),
];

fn mask(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1))
}

fn signalfd(fd: i32, signals: &[i32], flags: i32) -> Answer {
    let mask = mask(signals);
    sys!(SYS_signalfd4, fd, &raw const mask, 8, flags)
}

fn block(signals: &[i32]) {
    let mask = mask(signals);
    sys!(SYS_rt_sigprocmask, SIG_BLOCK, &raw const mask, 0, 8).unwrap();
}

/// Reads at most `count` records.
fn records(fd: usize, count: usize) -> Result<Vec<signalfd_siginfo>, sys::Errno> {
    let mut records: Vec<signalfd_siginfo> = vec![zeroed(); count];
    let len = sys!(SYS_read, fd, records.as_mut_ptr(), count * 128)?;
    records.truncate(len / 128);
    Ok(records)
}

fn numbers(fd: usize, count: usize) -> Result<Vec<u32>, sys::Errno> {
    records(fd, count).map(|records| records.iter().map(|record| record.ssi_signo).collect())
}

fn ready(fd: usize) -> (Answer, i16) {
    let mut fds = [pollfd { fd: fd as i32, events: POLLIN | POLLOUT, revents: 0 }];
    (sys!(SYS_poll, fds.as_mut_ptr(), 1, 0), fds[0].revents)
}

fn errors(r: &mut Report) {
    let mask = mask(&[SIGUSR1]);
    let addr = &raw const mask;
    r.see("mask too short", sys!(SYS_signalfd4, -1i32, addr, 4, 0));
    r.see("mask too long", sys!(SYS_signalfd4, -1i32, addr, 16, 0));
    r.see("length before address", sys!(SYS_signalfd4, -1i32, 8, 4, 0));
    r.see("bad address", sys!(SYS_signalfd4, -1i32, 8, 8, 0));
    r.see("unknown flags", sys!(SYS_signalfd4, -1i32, addr, 8, 1));
    r.see("address before flags", sys!(SYS_signalfd4, -1i32, 8, 8, 1));
    r.see("closed", sys!(SYS_signalfd4, 99, addr, 8, 0));
    r.see("flags before descriptor", sys!(SYS_signalfd4, 99, addr, 8, 1));
    r.see("another negative", sys!(SYS_signalfd4, -2i32, addr, 8, 0));
    file("f", "");
    r.see("a file", sys!(SYS_signalfd4, sys::fd("f", O_RDONLY), addr, 8, 0));
    r.see("a pipe", sys!(SYS_signalfd4, pipe(0).0, addr, 8, 0));
    r.see("old call", sys!(SYS_signalfd, -1i32, addr, 8).is_ok());
    let fd = signalfd(-1, &[SIGUSR1], SFD_CLOEXEC | SFD_NONBLOCK).unwrap();
    r.see("close on exec", sys!(SYS_fcntl, fd, F_GETFD));
    r.see("status", sys!(SYS_fcntl, fd, F_GETFL).map(|flags| flags & 0xfff));
    r.see("write", write(fd, &[0; 128]));
    r.see("too short", read(fd, 127));
    r.see("nothing", read(fd, 0));
    r.see("pread", sys::pread(fd, 128, 0));
    r.see("empty", read(fd, 128));
    r.see("link", std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    r.see("info", info.lines().find(|line| line.starts_with("sigmask")));
    let most = signalfd(-1, &(1..=64).collect::<Vec<_>>(), 0).unwrap();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{most}")).unwrap();
    r.see("kill and stop are left out", info.lines().find(|line| line.starts_with("sigmask")));
}

fn reads(r: &mut Report) {
    block(&[SIGUSR1, SIGUSR2, SIGRTMIN(), SIGHUP]);
    let fd = signalfd(-1, &[SIGUSR1, SIGUSR2, SIGRTMIN()], SFD_NONBLOCK).unwrap();
    let me = sys::pid();
    for signal in [SIGRTMIN(), SIGUSR2, SIGUSR1, SIGUSR1, SIGRTMIN(), SIGHUP] {
        kill(me, signal).unwrap();
    }
    r.see("one", numbers(fd, 1));
    r.see("others", numbers(fd, 8));
    r.see("none", numbers(fd, 8));
    r.see("same descriptor", signalfd(fd as i32, &[SIGHUP], 0) == Ok(fd));
    r.see("new mask", numbers(fd, 8));
    kill(me, SIGUSR1).unwrap();
    r.see("no longer asked for", numbers(fd, 8));
    signalfd(fd as i32, &[SIGUSR1, SIGUSR2], 0).unwrap();
    r.see("bad buffer", sys!(SYS_read, fd, 8, 128));
    r.see("is lost", numbers(fd, 8));
    kill(me, SIGUSR1).unwrap();
    kill(me, SIGUSR2).unwrap();
    let mut first: signalfd_siginfo = zeroed();
    let mut second: signalfd_siginfo = zeroed();
    let vectors = [
        iovec { iov_base: (&raw mut first).cast(), iov_len: 128 },
        iovec { iov_base: (&raw mut second).cast(), iov_len: 128 },
    ];
    r.see("vectors", sys!(SYS_readv, fd, vectors.as_ptr(), 2));
    r.see("in them", (first.ssi_signo, second.ssi_signo));
    let copy = sys!(SYS_dup, fd).unwrap();
    close(fd).unwrap();
    kill(me, SIGUSR1).unwrap();
    r.see("by a duplicate", numbers(copy, 2));
    // A signal that is not blocked is delivered, not read.
    let taken = sys::ends(|| {
        let mask = mask(&[SIGUSR1]);
        sys!(SYS_rt_sigprocmask, SIG_UNBLOCK, &raw const mask, 0, 8).unwrap();
        kill(sys::pid(), SIGUSR1).unwrap();
        0
    });
    r.see("not blocked", taken);
}

fn fields(r: &mut Report) {
    block(&[SIGUSR1, SIGCHLD, SIGALRM, SIGRTMIN(), SIGSEGV]);
    let fd = signalfd(-1, &[SIGUSR1, SIGCHLD, SIGALRM, SIGRTMIN(), SIGSEGV], 0).unwrap();
    let me = sys::pid();
    let mut see = |what: &str, sender: i32| {
        let record = records(fd, 1).unwrap()[0];
        let by = record.ssi_pid as i32 == sender;
        let of = (record.ssi_signo, record.ssi_errno, record.ssi_code);
        r.see(what, (of, by, record.ssi_uid, record.ssi_status, record.ssi_int, record.ssi_ptr));
        r.see(format!("{what}, rest"), (record.ssi_fd, record.ssi_tid, record.ssi_band, record.ssi_overrun));
        r.see(format!("{what}, end"), (record.ssi_trapno, record.ssi_addr, record.ssi_syscall));
    };
    kill(me, SIGUSR1).unwrap();
    see("kill", me);
    sys!(SYS_tgkill, me, me, SIGUSR1).unwrap();
    see("tgkill", me);
    kill(me, SIGSEGV).unwrap();
    see("a fault's signal by kill", me);
    let mut info = [0i32; 32];
    (info[2], info[4], info[5], info[6], info[7]) = (SI_QUEUE, me, 77, 1234, 5678);
    sys!(SYS_rt_sigqueueinfo, me, SIGRTMIN(), info.as_ptr()).unwrap();
    see("queued", me);
    let child = sys::child(|| 5);
    see("a child's end", child);
    sys::wait(child);
    let child = sys::child(|| sys!(SYS_pause).map_or(0, |_| 0));
    kill(child, SIGKILL).unwrap();
    see("a killed child", child);
    sys::wait(child);
    sys!(SYS_setitimer, ITIMER_REAL, &raw const ONCE, 0).unwrap();
    see("alarm", 0);
}

static ONCE: itimerval = itimerval {
    it_interval: timeval { tv_sec: 0, tv_usec: 0 },
    it_value: timeval { tv_sec: 0, tv_usec: 1000 },
};

fn readiness(r: &mut Report) {
    block(&[SIGUSR1, SIGUSR2]);
    let fd = signalfd(-1, &[SIGUSR1], SFD_NONBLOCK).unwrap();
    let me = sys::pid();
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    let event = epoll_event { events: EPOLLIN as u32, u64: 7 };
    r.see("epoll", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &raw const event));
    let wait = |ms: i32| {
        let mut event = epoll_event { events: 0, u64: 0 };
        let count = sys!(SYS_epoll_wait, epoll, &raw mut event, 1, ms);
        (count, { event.events })
    };
    r.see("at first", (ready(fd), wait(0)));
    kill(me, SIGUSR2).unwrap();
    r.see("another signal", (ready(fd), wait(0)));
    kill(me, SIGUSR1).unwrap();
    r.see("its signal", (ready(fd), wait(0)));
    r.see("read", numbers(fd, 1));
    r.see("after that", (ready(fd), wait(0)));
    signalfd(fd as i32, &[SIGUSR2], 0).unwrap();
    r.see("by another mask", (ready(fd), wait(0)));
    r.see("read by that", numbers(fd, 1));
    let child = sys::child(|| {
        sys::sleep_ms(20);
        kill(me, SIGUSR2).map_or(1, |_| 0)
    });
    r.see("wait", wait(10_000));
    r.see("waited for", numbers(fd, 1));
    r.see("child", sys::wait(child));
}

fn waits(r: &mut Report) {
    block(&[SIGUSR1, SIGUSR2]);
    let fd = signalfd(-1, &[SIGUSR1], 0).unwrap();
    let me = sys::pid();
    let child = sys::child(|| {
        sys::sleep_ms(10);
        kill(me, SIGUSR2).unwrap();
        sys::sleep_ms(10);
        kill(me, SIGUSR1).map_or(1, |_| 0)
    });
    r.see("its signal only", numbers(fd, 4));
    r.see("child", sys::wait(child));
    sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK).unwrap();
    r.see("not blocking any more", numbers(fd, 1));
}

/// Whoever reads takes the signals of its own.
fn of_others(r: &mut Report) {
    block(&[SIGUSR1]);
    let fd = signalfd(-1, &[SIGUSR1], SFD_NONBLOCK).unwrap();
    kill(sys::pid(), SIGUSR1).unwrap();
    let child = sys::ends(|| i32::from(ready(fd) != (Ok(0), 0) || numbers(fd, 1).is_ok()));
    r.see("a child has none of its parent's", child);
    let thread = std::thread::scope(|scope| scope.spawn(|| numbers(fd, 1)).join().unwrap());
    r.see("a thread takes those of its process", thread);
    r.see("so that none is left", numbers(fd, 1));
    sys!(SYS_tgkill, sys::pid(), sys::pid(), SIGUSR1).unwrap();
    let thread = std::thread::scope(|scope| scope.spawn(|| numbers(fd, 1)).join().unwrap());
    r.see("not those of another thread", thread);
    r.see("which takes them itself", numbers(fd, 1));
}
