//! A process that makes random system calls until it has made enough, or has killed itself by one.

use std::time::{Duration, Instant};

use libc::*;

use crate::calls::{self, DESCRIPTORS, World};
use crate::random::Random;
use crate::sys::{self, c, sys, zeroed};

/// Calls of each thread.
const CALLS: u64 = 400;
/// Memory and descriptors are made anew after so many.
const RENEWED_AFTER: u64 = 50;
/// The longest that a worker goes on.
const LONGEST: Duration = Duration::from_millis(800);
/// Calls that wait are interrupted after so long.
const INTERVAL_US: i64 = 3_000;

/// Runs as the process that a seed decides. Returns its exit status.
pub fn run(seed: u64, world: &World) -> i32 {
    let mut random = Random::new(seed);
    prepare(&mut random);
    let threads = if random.once_in(3) { 1 + random.below(3) } else { 0 };
    std::thread::scope(|scope| {
        for number in 1..=threads {
            let random = Random::new(seed ^ number << 56);
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || make_calls(random, world));
        }
        make_calls(random, world);
    });
    0
}

fn prepare(random: &mut Random) {
    let _ = sys!(SYS_setsid);
    let null = sys!(SYS_open, c"/dev/null".as_ptr(), O_RDWR, 0).unwrap_or(0);
    for fd in 0..3 {
        let _ = sys!(SYS_dup2, null, fd);
    }
    let directory = format!("{}/worker-{}", random.one_of(&["/tmp", "/tmp", "/dev/shm", "/rw"]), sys::pid());
    let _ = sys!(SYS_mkdir, c(&directory).as_ptr(), 0o777);
    let _ = sys!(SYS_chmod, c(&directory).as_ptr(), 0o777);
    let _ = sys!(SYS_chdir, c(&directory).as_ptr());
    interrupt_calls();
    if random.once_in(2) {
        let _ = sys!(SYS_setresuid, 1000, 1000, 1000);
    }
}

/// Has a signal come again and again, whose handler does nothing.
fn interrupt_calls() {
    extern "C" fn nothing(_: c_int) {}
    let mut action: sigaction = zeroed();
    action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
    let every = timeval { tv_sec: 0, tv_usec: INTERVAL_US };
    let timer = itimerval { it_interval: every, it_value: every };
    // SAFETY: the handler does nothing, and both structures live until the calls return.
    unsafe { sigaction(SIGALRM, &raw const action, std::ptr::null_mut()) };
    let _ = sys!(SYS_setitimer, ITIMER_REAL, &raw const timer, 0);
}

fn make_calls(mut random: Random, world: &World) {
    let start = Instant::now();
    let mut last = 0;
    for number in 0..CALLS {
        if number % RENEWED_AFTER == 0 {
            world.renew();
            world.set_up();
            open_more();
            if start.elapsed() > LONGEST {
                break;
            }
        }
        if random.once_in(150) {
            fork(&mut random, world);
        }
        let made = calls::next(&mut random, world, last);
        if let Ok(answer) = sys::raw(made.number, &made.words.map(|word| word as usize)) {
            last = answer as u64;
        }
    }
}

/// Makes a child that goes on by itself for a while.
fn fork(random: &mut Random, world: &World) {
    let seed = random.word();
    // SAFETY: the child makes system calls of its own choice and ends. What its parent's threads hold may hang it, and
    // then it is killed.
    if unsafe { libc::fork() } == 0 {
        let mut random = Random::new(seed);
        let mut last = 0;
        for _ in 0..random.below(60) {
            let made = calls::next(&mut random, world, last);
            last =
                sys::raw(made.number, &made.words.map(|word| word as usize)).unwrap_or(last as usize) as u64;
        }
        sys::exit(0);
    }
}

/// Opens what the [`World`] does not: devices, views of the kernel, files of the host and sockets of more kinds.
fn open_more() {
    const FILES: &[(&str, i32)] = &[
        ("/dev/ptmx", O_RDWR),
        ("/dev/zero", O_RDWR),
        ("/proc/self/mem", O_RDWR),
        ("/proc/self/maps", O_RDONLY),
        ("/proc/self/fd", O_RDONLY | O_DIRECTORY),
        ("/rw/file", O_RDWR),
        ("/rw", O_RDONLY | O_DIRECTORY),
        ("/ro/file", O_RDONLY),
        ("/usr/bin/true", O_RDONLY),
        ("/dev/shm", O_RDWR | O_TMPFILE),
    ];
    const SOCKETS: &[(i32, i32)] = &[
        (AF_INET, SOCK_STREAM),
        (AF_INET, SOCK_DGRAM),
        (AF_INET6, SOCK_STREAM),
        (AF_UNIX, SOCK_DGRAM),
        (AF_UNIX, SOCK_SEQPACKET),
        (AF_NETLINK, SOCK_RAW),
    ];
    let files = FILES.iter().map(|(path, flags)| sys::open(path, flags | O_NONBLOCK));
    let sockets = SOCKETS.iter().map(|(family, kind)| sys!(SYS_socket, *family, kind | SOCK_NONBLOCK, 0));
    let set = u64::MAX;
    let others = [
        sys!(SYS_signalfd4, -1i64, &raw const set, 8, SFD_NONBLOCK),
        sys!(SYS_inotify_init1, IN_NONBLOCK),
        sys!(SYS_memfd_create, c"memory".as_ptr(), MFD_ALLOW_SEALING),
    ];
    let opened: Vec<_> = files.chain(sockets).chain(others).collect();
    for (wanted, fd) in (DESCRIPTORS.start as usize + 12..DESCRIPTORS.end as usize).zip(opened) {
        if let Ok(fd) = fd {
            let _ = sys!(SYS_dup2, fd, wanted);
            let _ = sys::close(fd);
        }
    }
    let _ = sys!(SYS_close_range, DESCRIPTORS.end, u32::MAX, 0);
}
