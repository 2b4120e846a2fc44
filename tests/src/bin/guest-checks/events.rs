//! Waiting for descriptors: poll, select, epoll, eventfd, timerfd.

use std::time::{Duration, Instant};

use libc::*;

use crate::sys::{self, Answer, close, fd, file, pipe, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("fdinfo", fdinfo),
    ("poll", polls),
    ("select", selects),
    ("epoll", epolls),
    ("epoll_edge", epoll_edge),
    ("eventfd", eventfds),
    ("timerfd", timerfds),
];

fn poll(fds: &mut [pollfd], ms: i32) -> Answer {
    sys!(SYS_poll, fds.as_mut_ptr(), fds.len(), ms)
}

fn one(fd: usize, events: i16) -> [pollfd; 1] {
    [pollfd { fd: fd as i32, events, revents: 0x55 }]
}

fn polls(r: &mut Report) {
    let (reader, writer) = pipe(0);
    let mut ask = |what: &str, fd: usize, events: i16, ms: i32| {
        let mut fds = one(fd, events);
        let answer = poll(&mut fds, ms);
        r.see(what, (answer, fds[0].revents));
    };
    ask("empty", reader, POLLIN, 0);
    ask("room", writer, POLLOUT, 0);
    ask("wrong direction", reader, POLLOUT, 0);
    write(writer, b"x").unwrap();
    ask("data", reader, POLLIN | POLLRDNORM, -1);
    ask("nothing asked", reader, 0, 0);
    let full = pipe(O_NONBLOCK);
    while write(full.1, &[0; 4096]).is_ok() {}
    ask("full", full.1, POLLOUT, 0);
    read(full.0, 4096).unwrap();
    ask("room again", full.1, POLLOUT, 0);
    close(full.0).unwrap();
    ask("no reader", full.1, POLLOUT, 0);
    close(writer).unwrap();
    ask("data and end", reader, POLLIN, 0);
    read(reader, 10).unwrap();
    ask("end", reader, POLLIN, 0);
    ask("closed", 99, POLLIN, 0);
    file("f", "");
    ask("file", fd("f", O_RDWR), POLLIN | POLLOUT, 0);
    ask("null", fd("/dev/null", O_RDWR), POLLIN | POLLOUT, 0);
    let mut negative = [pollfd { fd: -1, events: POLLIN, revents: 7 }];
    r.see("negative descriptor", (poll(&mut negative, 0), negative[0].revents));
    let start = Instant::now();
    r.see("nothing to wait for", poll(&mut [], 20));
    r.ensure("at least that", start.elapsed() >= Duration::from_millis(20));
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        sys::sleep_ms(30);
        write(writer, b"x").unwrap();
        0
    });
    let mut fds = one(reader, POLLIN);
    r.see("waits", (poll(&mut fds, 10_000), fds[0].revents, sys::wait(pid)));
    r.see("too many", sys!(SYS_poll, 8, 1usize << 20, 0));
    r.see("bad address", sys!(SYS_poll, 8, 1, 0));
    let short = timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let mut none = one(pipe(0).0, POLLIN);
    r.see("ppoll", sys!(SYS_ppoll, none.as_mut_ptr(), 1, &raw const short, 0, 0));
    let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    r.see("ppoll with a bad time", sys!(SYS_ppoll, none.as_mut_ptr(), 1, &raw const bad, 0, 0));
}

fn selects(r: &mut Report) {
    let (reader, writer) = pipe(0);
    let bits = |fds: &[usize]| -> [u64; 16] {
        let mut set = [0u64; 16];
        fds.iter().for_each(|fd| set[fd / 64] |= 1 << (fd % 64));
        set
    };
    let select = |read: &mut [u64; 16], write: &mut [u64; 16], us: i64| {
        let mut time = timeval { tv_sec: us / 1_000_000, tv_usec: us % 1_000_000 };
        let answer = sys!(SYS_select, 64, read.as_mut_ptr(), write.as_mut_ptr(), 0, &raw mut time);
        (answer, time.tv_sec, time.tv_usec)
    };
    let (mut wants_read, mut wants_write) = (bits(&[reader]), bits(&[writer]));
    r.see("room", select(&mut wants_read, &mut wants_write, 0).0);
    r.see("sets", (wants_read == bits(&[]), wants_write == bits(&[writer])));
    let (mut wants_read, mut wants_write) = (bits(&[reader]), bits(&[]));
    let start = Instant::now();
    r.see("timeout", select(&mut wants_read, &mut wants_write, 20_000));
    r.ensure("at least that", start.elapsed() >= Duration::from_millis(20));
    write(writer, b"x").unwrap();
    let (mut wants_read, mut wants_write) = (bits(&[reader]), bits(&[writer]));
    r.see("both", select(&mut wants_read, &mut wants_write, 1_000_000).0);
    r.see("left of the time", {
        let (mut wants_read, mut wants_write) = (bits(&[reader]), bits(&[]));
        let left = select(&mut wants_read, &mut wants_write, 5_000_000);
        left.1 == 4 || left.2 == 0
    });
    let (mut wants_read, mut wants_write) = (bits(&[50]), bits(&[]));
    r.see("closed", select(&mut wants_read, &mut wants_write, 0).0);
    r.see("negative count", sys!(SYS_select, -1i64, 0, 0, 0, 0));
    let mut bad = timeval { tv_sec: -1, tv_usec: 0 };
    r.see("negative time", sys!(SYS_select, 0, 0, 0, 0, &raw mut bad));
    r.see("pselect6", {
        let mut wants_read = bits(&[reader]);
        let time = timespec { tv_sec: 0, tv_nsec: 0 };
        sys!(SYS_pselect6, 64, wants_read.as_mut_ptr(), 0, 0, &raw const time, 0)
    });
}

fn add(epoll: usize, fd: usize, events: i32, data: u64) -> Answer {
    let event = epoll_event { events: events as u32, u64: data };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &raw const event)
}

fn wait(epoll: usize, ms: i32) -> Result<Vec<(u64, u32)>, sys::Errno> {
    let mut events = [epoll_event { events: 0, u64: 0 }; 8];
    let count = sys!(SYS_epoll_wait, epoll, events.as_mut_ptr(), 8, ms)?;
    let mut seen: Vec<(u64, u32)> = events[..count].iter().map(|it| (it.u64, it.events)).collect();
    seen.sort_unstable();
    Ok(seen)
}

fn epolls(r: &mut Report) {
    let epoll = sys!(SYS_epoll_create1, EPOLL_CLOEXEC).unwrap();
    let (reader, writer) = pipe(0);
    r.see("add", (add(epoll, reader, EPOLLIN, 1), add(epoll, writer, EPOLLOUT, 2)));
    r.see("twice", add(epoll, reader, EPOLLIN, 1));
    r.see("room", wait(epoll, 0));
    write(writer, b"x").unwrap();
    r.see("both", wait(epoll, -1));
    r.see("level-triggered", wait(epoll, 0));
    read(reader, 1).unwrap();
    let event = epoll_event { events: 0, u64: 3 };
    r.see("modify", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_MOD, writer, &raw const event));
    r.see("nothing", wait(epoll, 10));
    r.see("delete", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, writer, 0));
    r.see("delete twice", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, writer, 0));
    r.see("modify what is not there", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_MOD, writer, &raw const event));
    r.see("unknown operation", sys!(SYS_epoll_ctl, epoll, 9, writer, &raw const event));
    file("f", "");
    r.see("file", add(epoll, fd("f", O_RDONLY), EPOLLIN, 4));
    r.see("itself", add(epoll, epoll, EPOLLIN, 4));
    r.see("bad descriptor", add(epoll, 99, EPOLLIN, 4));
    r.see("not an epoll", add(reader, writer, EPOLLIN, 4));
    r.see("no events", sys!(SYS_epoll_wait, epoll, 8, 0, 0));
    close(writer).unwrap();
    r.see("end", wait(epoll, 1000));
    let outer = sys!(SYS_epoll_create1, 0).unwrap();
    r.see("nested", (add(outer, epoll, EPOLLIN, 5), wait(outer, 1000)));
    close(reader).unwrap();
    r.see("closed descriptors leave", wait(epoll, 0));
    let (reader, writer) = pipe(0);
    add(epoll, reader, EPOLLIN, 6).unwrap();
    let pid = sys::child(|| {
        sys::sleep_ms(20);
        write(writer, b"x").unwrap();
        0
    });
    r.see("waits", (wait(epoll, 10_000), sys::wait(pid)));
}

fn epoll_edge(r: &mut Report) {
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    let (reader, writer) = pipe(O_NONBLOCK);
    add(epoll, reader, EPOLLIN | EPOLLET, 1).unwrap();
    r.see("nothing", wait(epoll, 0));
    write(writer, b"abc").unwrap();
    r.see("edge", (wait(epoll, 1000), wait(epoll, 0)));
    read(reader, 1).unwrap();
    r.see("a read is no edge", wait(epoll, 0));
    write(writer, b"d").unwrap();
    r.see("more data is", (wait(epoll, 1000), wait(epoll, 0)));
    let (once, feeder) = pipe(O_NONBLOCK);
    add(epoll, once, EPOLLIN | EPOLLONESHOT, 2).unwrap();
    write(feeder, b"x").unwrap();
    r.see("one shot", (wait(epoll, 1000), wait(epoll, 0)));
    let again = epoll_event { events: (EPOLLIN | EPOLLONESHOT) as u32, u64: 2 };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_MOD, once, &raw const again).unwrap();
    r.see("armed again", (wait(epoll, 1000), wait(epoll, 0)));
}

fn eventfds(r: &mut Report) {
    let event = sys!(SYS_eventfd2, 3, EFD_NONBLOCK).unwrap();
    let get = |event: usize| {
        let mut value = 0u64;
        sys!(SYS_read, event, &raw mut value, 8).map(|_| value)
    };
    let put = |event: usize, value: u64| sys!(SYS_write, event, &raw const value, 8);
    r.see("initial value", get(event));
    r.see("empty", get(event));
    r.see("sum", (put(event, 4), put(event, 5), get(event)));
    r.see("too large", put(event, u64::MAX));
    r.see("full", (put(event, u64::MAX - 1), put(event, 1)));
    r.see("short", (read(event, 4), sys!(SYS_write, event, &raw const r, 4)));
    let semaphore = sys!(SYS_eventfd2, 2, EFD_SEMAPHORE | EFD_NONBLOCK).unwrap();
    r.see("semaphore", (get(semaphore), get(semaphore), get(semaphore)));
    let waiting = sys!(SYS_eventfd2, 0, 0).unwrap();
    let pid = sys::child(|| {
        sys::sleep_ms(20);
        i32::from(put(waiting, 9).is_err())
    });
    r.see("waits", (get(waiting), sys::wait(pid)));
    r.see("bad flags", sys!(SYS_eventfd2, 0, 0x10));
}

fn timerfds(r: &mut Report) {
    let timer = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK).unwrap();
    let set = |first_ms: i64, next_ms: i64| {
        let time = |ms: i64| timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        let value = itimerspec { it_interval: time(next_ms), it_value: time(first_ms) };
        sys!(SYS_timerfd_settime, timer, 0, &raw const value, 0)
    };
    let get = || {
        let mut value = 0u64;
        sys!(SYS_read, timer, &raw mut value, 8).map(|_| value)
    };
    r.see("not set", get());
    let start = Instant::now();
    r.see("set", set(20, 0));
    let mut fds = one(timer, POLLIN);
    r.see("poll", (poll(&mut fds, 10_000), fds[0].revents));
    r.ensure("not too soon", start.elapsed() >= Duration::from_millis(20));
    r.see("expired", (get(), get()));
    set(5, 5).unwrap();
    sys::sleep_ms(40);
    r.see("several times", get().is_ok_and(|count| count >= 4));
    r.see("off", (set(0, 0), get()));
    let mut now: itimerspec = zeroed();
    r.see("read out", (sys!(SYS_timerfd_gettime, timer, &raw mut now), now.it_value.tv_sec));
    r.see("unknown clock", sys!(SYS_timerfd_create, 77, 0));
}

/// What fdinfo tells of counters and of what is watched.
fn fdinfo(r: &mut Report) {
    let lines = |fd: usize, start: &str| {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect::<Vec<_>>()
    };
    let counter = sys!(SYS_eventfd2, 0xabc, 0).unwrap();
    r.see("counter", lines(counter, "eventfd-count"));
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    r.see("nothing watched", lines(epoll, "tfd"));
    for (fd, events, data) in [(counter, EPOLLIN, 7), (crate::sys::pipe(0).1, EPOLLOUT | EPOLLET, u64::MAX)] {
        let mut event = epoll_event { events: events as u32, u64: data };
        sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &raw mut event).unwrap();
    }
    // Where the files are is another place here and there. The order is that of addresses.
    let mut watched: Vec<String> =
        lines(epoll, "tfd").iter().filter_map(|line| Some(line.split_once(" ino:")?.0.to_owned())).collect();
    watched.sort();
    r.see("watched", watched);
}
