//! Processes by descriptor: pidfd_open, CLONE_PIDFD, pidfd_send_signal, pidfd_getfd, waitid.

use libc::*;

use crate::sys::{self, Answer, close, file, kill, pipe, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("pidfd_open", opens),
    ("pidfd_readiness", readiness),
    ("pidfd_send_signal", sends),
    ("pidfd_getfd", takes_descriptors),
    ("pidfd_waitid", waits),
    ("clone_pidfd", clones),
];

fn pidfd(pid: i32, flags: i32) -> Answer {
    sys!(SYS_pidfd_open, pid, flags)
}

/// A child that waits for a signal, and a descriptor for it.
fn sleeper(flags: i32) -> (i32, usize) {
    let pid = sys::child(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    });
    (pid, pidfd(pid, flags).unwrap())
}

fn end(pid: i32) -> String {
    kill(pid, SIGKILL).unwrap();
    sys::wait(pid)
}

fn poll(fd: usize, ms: i32) -> (Answer, i16) {
    let mut fds = [pollfd { fd: fd as i32, events: POLLIN | POLLOUT, revents: 0 }];
    (sys!(SYS_poll, fds.as_mut_ptr(), 1, ms), fds[0].revents)
}

/// The lines of fdinfo that tell the number, with the number as what it should be.
fn info(fd: usize, pid: i32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Pid:") || line.starts_with("NSpid:"));
    lines.map(|line| line.replace(&pid.to_string(), "PID")).collect()
}

fn opens(r: &mut Report) {
    r.see("zero", pidfd(0, 0));
    r.see("negative", pidfd(-1, 0));
    r.see("nobody", pidfd(0x3fff_ffff, 0));
    r.see("unknown flags", pidfd(sys::pid(), 1));
    let me = pidfd(sys::pid(), 0).unwrap();
    r.see("close on exec", sys!(SYS_fcntl, me, F_GETFD));
    r.see("status", sys!(SYS_fcntl, me, F_GETFL).map(|flags| flags & O_NONBLOCK as usize));
    let nonblocking = pidfd(sys::pid(), O_NONBLOCK).unwrap();
    r.see("nonblocking", sys!(SYS_fcntl, nonblocking, F_GETFL).map(|flags| flags & O_NONBLOCK as usize));
    r.see("read", read(me, 8));
    r.see("write", write(me, b"x"));
    r.see("info", info(me, sys::pid()));
    let child = sys::child(|| 3);
    let mut told: siginfo_t = zeroed();
    sys!(SYS_waitid, P_PID, child, &raw mut told, WEXITED | WNOWAIT, 0).unwrap();
    let zombie = pidfd(child, 0);
    r.see("a zombie", zombie.is_ok());
    r.see("its info", info(zombie.unwrap(), child));
    r.see("end", sys::wait(child));
    r.see("its info after that", info(zombie.unwrap(), child));
    r.see("nobody any more", pidfd(child, 0));
}

fn readiness(r: &mut Report) {
    let (child, fd) = sleeper(0);
    r.see("alive", poll(fd, 0));
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    let event = epoll_event { events: EPOLLIN as u32, u64: 7 };
    r.see("epoll", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &raw const event));
    let wait = |ms: i32| {
        let mut event = epoll_event { events: 0, u64: 0 };
        let count = sys!(SYS_epoll_wait, epoll, &raw mut event, 1, ms);
        (count, { event.events })
    };
    r.see("nothing yet", wait(0));
    kill(child, SIGTERM).unwrap();
    r.see("waits for the end", wait(10_000));
    r.see("zombie", poll(fd, 0).1 & POLLIN);
    r.see("waited for", sys::wait(child));
    r.see("gone", poll(fd, 0).1 & POLLIN);
    let (child, fd) = sleeper(0);
    let killer = sys::child(|| {
        sys::sleep_ms(20);
        kill(child, SIGKILL).map_or(1, |_| 0)
    });
    r.see("poll waits", poll(fd, 10_000).1 & POLLIN);
    r.see("both", (sys::wait(child), sys::wait(killer)));
}

fn sends(r: &mut Report) {
    let send = |fd: usize, signal: i32, info: *const i32, flags: u32| {
        sys!(SYS_pidfd_send_signal, fd, signal, info, flags)
    };
    let none = std::ptr::null();
    let (child, fd) = sleeper(0);
    r.see("unknown flags", send(fd, 0, none, 0x100));
    r.see("closed", send(99, 0, none, 0));
    r.see("flags before descriptor", send(99, 0, none, 0x100));
    file("f", "");
    r.see("a file", send(sys::fd("f", O_RDONLY), 0, none, 0));
    r.see("a pipe", send(pipe(0).0, 0, none, 0));
    r.see("no signal", send(fd, 0, none, 0));
    r.see("bad signal", send(fd, 65, none, 0));
    r.see("bad address", send(fd, SIGTERM, 8 as *const i32, 0));
    let mut info = [0i32; 32];
    info[0] = SIGUSR1;
    r.see("another signal in the info", send(fd, SIGTERM, info.as_ptr(), 0));
    r.see("a forged kill", send(fd, SIGUSR1, info.as_ptr(), 0));
    info[2] = SI_TKILL;
    r.see("a forged tgkill", send(fd, SIGUSR1, info.as_ptr(), 0));
    r.see("still alive", poll(fd, 0));
    info[2] = SI_QUEUE;
    r.see("queued", send(fd, SIGUSR1, info.as_ptr(), 0));
    r.see("that ended it", sys::wait(child));
    r.see("gone", send(fd, SIGTERM, none, 0));
    r.see("gone, no signal", send(fd, 0, none, 0));
    let child = sys::child(|| 0);
    let fd = pidfd(child, 0).unwrap();
    r.see("ends", poll(fd, 10_000).1 & POLLIN);
    r.see("a zombie", send(fd, SIGTERM, none, 0));
    r.see("ended by itself", sys::wait(child));
    let me = pidfd(sys::pid(), 0).unwrap();
    let mask = 1u64 << (SIGUSR1 - 1);
    sys!(SYS_rt_sigprocmask, SIG_BLOCK, &raw const mask, 0, 8).unwrap();
    r.see("oneself", send(me, SIGUSR1, none, 0));
    let mut told: siginfo_t = zeroed();
    r.see("arrives", sys!(SYS_rt_sigtimedwait, &raw const mask, &raw mut told, 0, 8));
    // SAFETY: a signal sent by a process has these fields.
    r.see("from", (told.si_code, unsafe { told.si_pid() } == sys::pid()));
}

fn takes_descriptors(r: &mut Report) {
    let take = |pidfd: usize, fd: i32, flags: u32| sys!(SYS_pidfd_getfd, pidfd, fd, flags);
    file("f", "text");
    let child = sys::child(|| {
        let fd = sys::fd("f", O_RDONLY);
        sys!(SYS_dup3, fd, 50, 0).unwrap();
        sys!(SYS_dup3, sys::fd("f", O_PATH), 51, 0).unwrap();
        loop {
            let _ = sys!(SYS_pause);
        }
    });
    let fd = pidfd(child, 0).unwrap();
    r.ensure("ready", sys::eventually(|| take(fd, 51, 0).is_ok()));
    r.see("flags", take(fd, 50, 1));
    r.see("closed", take(99, 50, 0));
    r.see("a file", take(sys::fd("f", O_RDONLY), 50, 0));
    r.see("closed there", take(fd, 49, 0));
    r.see("negative there", take(fd, -1, 0));
    r.see("only a place", take(fd, 51, 0).and_then(|fd| read(fd, 1)).is_err());
    let mine = take(fd, 50, 0).unwrap();
    r.see("close on exec", sys!(SYS_fcntl, mine, F_GETFD));
    r.see("read", read(mine, 2));
    let again = take(fd, 50, 0).unwrap();
    r.see("the same open file", read(again, 2));
    r.see("end", end(child));
    r.see("gone", take(fd, 50, 0));
    let me = pidfd(sys::pid(), 0).unwrap();
    r.see("one's own", take(me, mine as i32, 0).is_ok());
}

fn waits(r: &mut Report) {
    let wait = |fd: i32, options: i32| {
        let mut told: siginfo_t = zeroed();
        let answer = sys!(SYS_waitid, P_PIDFD, fd, &raw mut told, options, 0);
        // SAFETY: what waitid tells has this field, or it is zero.
        (answer, told.si_signo, told.si_code, unsafe { told.si_status() })
    };
    let (child, fd) = sleeper(0);
    let fd = fd as i32;
    r.see("closed", wait(99, WEXITED));
    r.see("negative", wait(-1, WEXITED));
    file("f", "");
    r.see("a file", wait(sys::fd("f", O_RDONLY) as i32, WEXITED));
    r.see("not a child", wait(pidfd(sys::pid(), 0).unwrap() as i32, WEXITED));
    r.see("nothing yet", wait(fd, WEXITED | WNOHANG));
    kill(child, SIGTERM).unwrap();
    r.see("look", wait(fd, WEXITED | WNOWAIT));
    r.see("wait", wait(fd, WEXITED));
    r.see("again", wait(fd, WEXITED));
    let (child, fd) = sleeper(O_NONBLOCK);
    let fd = fd as i32;
    r.see("nonblocking", wait(fd, WEXITED));
    r.see("nonblocking and WNOHANG", wait(fd, WEXITED | WNOHANG));
    kill(child, SIGTERM).unwrap();
    r.see("ready", poll(fd as usize, 10_000).1 & POLLIN);
    r.see("nonblocking, ended", wait(fd, WEXITED));
}

/// clone(2) with a pidfd at `to`; the child exits with 7.
fn clone(flags: i32, to: *mut i32) -> Answer {
    let answer = sys!(SYS_clone, flags | SIGCHLD, 0, to, 0, 0);
    if answer == Ok(0) {
        sys::exit(7);
    }
    answer
}

fn clones(r: &mut Report) {
    let mut fd = -1i32;
    r.see("with the number at the same place", clone(CLONE_PIDFD | CLONE_PARENT_SETTID, &raw mut fd));
    r.see("bad address", clone(CLONE_PIDFD, 8 as *mut i32));
    let lowest = sys!(SYS_dup, 0).unwrap();
    close(lowest).unwrap();
    let child = clone(CLONE_PIDFD, &raw mut fd).unwrap() as i32;
    r.see("the lowest free one", fd as usize == lowest);
    r.see("close on exec", sys!(SYS_fcntl, fd, F_GETFD));
    r.see("info", info(fd as usize, child));
    r.see("ends", poll(fd as usize, 10_000).1 & POLLIN);
    r.see("how", sys::wait(child));
    close(fd as usize).unwrap();
    let mut number = 0i32;
    let mut args = [0u64; 8];
    (args[0], args[1], args[3], args[4]) = (
        (CLONE_PIDFD | CLONE_PARENT_SETTID) as u64,
        &raw mut fd as u64,
        &raw mut number as u64,
        SIGCHLD as u64,
    );
    let child =
        sys!(SYS_clone3, args.as_ptr(), 64).map(|pid| if pid == 0 { sys::exit(8) } else { pid as i32 });
    r.see("clone3", child.is_ok_and(|child| child == number));
    r.see("its descriptor", info(fd as usize, number));
    r.see("how that ends", sys::wait(number));
    args[1] = args[3];
    r.see("clone3, both at one place", sys!(SYS_clone3, args.as_ptr(), 64));
    args[1] = 8;
    r.see("clone3, bad address", sys!(SYS_clone3, args.as_ptr(), 64));
    let limit = rlimit { rlim_cur: 0, rlim_max: 100 };
    let full = sys::ends(|| {
        sys!(SYS_setrlimit, RLIMIT_NOFILE, &raw const limit).unwrap();
        i32::from(clone(CLONE_PIDFD, &raw mut fd) != Err(sys::Errno::EMFILE))
    });
    r.see("no room", full);
}
