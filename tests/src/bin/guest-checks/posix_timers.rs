//! POSIX timers: timer_create and its family.

use libc::*;

use crate::sys::{self, Answer, read, sys, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("timer_create_errors", create_errors),
    ("timer_settime", settings),
    ("timer_signals", signals),
    ("timer_overrun", overruns),
    ("timer_to_thread", to_thread),
    ("timer_cpu", of_processor_time),
    ("timer_lives", lives),
];

/// `struct sigevent` of the kernel, with the words that count.
#[repr(C)]
struct Event {
    value: u64,
    signo: i32,
    notify: i32,
    tid: i32,
    pad: [u32; 11],
}

fn event(notify: i32, signo: i32) -> Event {
    Event { value: 0x1234_5678_9abc, signo, notify, tid: 0, pad: [0; 11] }
}

fn create(clock: i32, event: &Event) -> Result<i32, sys::Errno> {
    let mut id = -1i32;
    sys!(SYS_timer_create, clock, std::ptr::from_ref(event), &raw mut id).map(|_| id)
}

fn us(us: i64) -> timespec {
    timespec { tv_sec: us / 1_000_000, tv_nsec: us % 1_000_000 * 1000 }
}

fn set(id: i32, first_us: i64, next_us: i64) -> Answer {
    let value = itimerspec { it_interval: us(next_us), it_value: us(first_us) };
    sys!(SYS_timer_settime, id, 0, &raw const value, 0)
}

/// What is left of a timer, in whole seconds, rounded up, and its interval.
fn left(id: i32) -> Result<(i64, i64), sys::Errno> {
    let mut value: itimerspec = zeroed();
    sys!(SYS_timer_gettime, id, &raw mut value)?;
    let rounded = value.it_value.tv_sec + i64::from(value.it_value.tv_nsec > 0);
    Ok((rounded, value.it_interval.tv_sec * 1_000_000 + value.it_interval.tv_nsec / 1000))
}

fn mask(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1))
}

fn block(signals: &[i32]) {
    let mask = mask(signals);
    sys!(SYS_rt_sigprocmask, SIG_BLOCK, &raw const mask, 0, 8).unwrap();
}

/// Waits for one of the signals: its number, `si_code`, `si_timerid`, `si_overrun` and `si_value`.
fn wait(signals: &[i32], ms: i64) -> Result<[i64; 5], sys::Errno> {
    let (mask, time) = (mask(signals), us(ms * 1000));
    let mut info = [0i32; 32];
    sys!(SYS_rt_sigtimedwait, &raw const mask, info.as_mut_ptr(), &raw const time, 8)?;
    let value = i64::from(info[6] as u32) | i64::from(info[7]) << 32;
    Ok([info[0].into(), info[2].into(), info[4].into(), info[5].into(), value])
}

fn create_errors(r: &mut Report) {
    let good = event(SIGEV_SIGNAL, SIGUSR1);
    let at = &raw const good;
    let mut id = 0i32;
    let to = &raw mut id;
    for clock in [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, 2, 3] {
        r.see(format!("clock {clock}"), sys!(SYS_timer_create, clock, at, to));
    }
    for clock in [CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, 10, 12, 99] {
        r.see(format!("clock {clock}"), sys!(SYS_timer_create, clock, at, to));
    }
    r.see("bad event", sys!(SYS_timer_create, 1, 8, to));
    r.see("event before clock", sys!(SYS_timer_create, 99, 8, to));
    r.see("bad place", sys!(SYS_timer_create, 1, at, 8));
    for (notify, signo) in [
        (SIGEV_SIGNAL, 0),
        (SIGEV_SIGNAL, 65),
        (SIGEV_SIGNAL, -1),
        (SIGEV_NONE, 0),
        (SIGEV_NONE, 99),
        (SIGEV_THREAD, 0),
        (SIGEV_THREAD, 12),
        (3, 12),
        (5, 12),
        (8, 12),
        (SIGEV_THREAD_ID, 12),
    ] {
        r.see(format!("notify {notify}, signal {signo}"), create(1, &event(notify, signo)).is_ok());
    }
    let mut other = event(SIGEV_THREAD_ID, SIGUSR1);
    let child = sys::child(|| {
        loop {
            let _ = sys!(SYS_pause);
        }
    });
    other.tid = child;
    r.see("a thread of others", create(1, &other));
    sys::kill(child, SIGKILL).unwrap();
    sys::wait(child);
    let value: itimerspec = zeroed();
    for id in [-1, 0x1000_0000] {
        r.see("settime of none", sys!(SYS_timer_settime, id, 0, &raw const value, 0));
        r.see("gettime of none", sys!(SYS_timer_gettime, id, 8));
        r.see("getoverrun of none", sys!(SYS_timer_getoverrun, id));
        r.see("delete of none", sys!(SYS_timer_delete, id));
    }
    let id = create(1, &good).unwrap();
    r.see("settime to nothing", sys!(SYS_timer_settime, id, 0, 0, 0));
    r.see("settime to a bad address", sys!(SYS_timer_settime, id, 0, 8, 0));
    r.see("old to a bad address", sys!(SYS_timer_settime, id, 0, &raw const value, 8));
    r.see("gettime to a bad address", sys!(SYS_timer_gettime, id, 8));
    for (sec, nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000), (1, 2_000_000_000)] {
        let mut bad: itimerspec = zeroed();
        bad.it_value = timespec { tv_sec: sec, tv_nsec: nsec };
        r.see(format!("{sec} s {nsec} ns"), sys!(SYS_timer_settime, id, 0, &raw const bad, 0));
        std::mem::swap(&mut bad.it_value, &mut bad.it_interval);
        r.see(format!("interval {sec} s {nsec} ns"), sys!(SYS_timer_settime, id, 0, &raw const bad, 0));
    }
    r.see("delete", (sys!(SYS_timer_delete, id), sys!(SYS_timer_delete, id)));
}

fn settings(r: &mut Report) {
    for (name, notify) in [("signal", SIGEV_SIGNAL), ("nobody", SIGEV_NONE)] {
        block(&[SIGUSR1]);
        let id = create(CLOCK_MONOTONIC, &event(notify, SIGUSR1)).unwrap();
        r.see(format!("{name}: new"), left(id));
        r.see(format!("{name}: set"), (set(id, 100_000_000, 3_000_000), left(id)));
        let value = itimerspec { it_interval: us(0), it_value: us(50_000_000) };
        let mut old: itimerspec = zeroed();
        r.see(format!("{name}: again"), sys!(SYS_timer_settime, id, 0, &raw const value, &raw mut old));
        r.see(format!("{name}: before"), (old.it_value.tv_sec, old.it_interval.tv_sec));
        // Linux goes on to tell what was left of a timer without a signal.
        let off = (set(id, 0, 7_000_000), left(id).is_ok_and(|it| it == (0, 0) || notify == SIGEV_NONE));
        r.see(format!("{name}: off"), off);
        set(id, 1000, 0).unwrap();
        sys::sleep_ms(5);
        r.see(format!("{name}: past"), (left(id), wait(&[SIGUSR1], 0).map(|it| it[0])));
        // A time that has passed expires at once.
        let value = itimerspec { it_interval: us(0), it_value: us(1) };
        let answer = sys!(SYS_timer_settime, id, TIMER_ABSTIME, &raw const value, 0);
        r.see(format!("{name}: absolute"), (answer, wait(&[SIGUSR1], 50).map(|it| it[0]), left(id)));
        let mut now: timespec = zeroed();
        sys!(SYS_clock_gettime, CLOCK_REALTIME, &raw mut now).unwrap();
        let id = create(CLOCK_REALTIME, &event(notify, SIGUSR1)).unwrap();
        now.tv_sec += 100;
        let value = itimerspec { it_interval: us(0), it_value: now };
        let answer = sys!(SYS_timer_settime, id, TIMER_ABSTIME, &raw const value, 0);
        r.see(format!("{name}: absolute, by the date"), (answer, left(id)));
    }
}

fn signals(r: &mut Report) {
    let rt = SIGRTMIN() + 3;
    block(&[SIGUSR1, SIGALRM, rt]);
    let first = create(CLOCK_MONOTONIC, &event(SIGEV_SIGNAL, rt)).unwrap();
    set(first, 2000, 0).unwrap();
    let told = wait(&[rt], 5000).unwrap();
    r.see("fields", (told[0] - i64::from(SIGRTMIN()), told[1], told[2] - i64::from(first), told[3], told[4]));
    r.see("once", wait(&[rt], 20));
    let mut default = -1i32;
    r.see("without an event", sys!(SYS_timer_create, CLOCK_MONOTONIC, 0, &raw mut default));
    set(default, 1000, 0).unwrap();
    let told = wait(&[SIGALRM], 5000).unwrap();
    r.see("its fields", (told[0], told[1], told[2] - i64::from(default), told[4] as i32 - default));
    // Each of two timers has a signal of its own, even where the number is the same.
    let second = create(CLOCK_MONOTONIC, &event(SIGEV_SIGNAL, SIGUSR1)).unwrap();
    let third = create(CLOCK_MONOTONIC, &event(SIGEV_SIGNAL, SIGUSR1)).unwrap();
    set(second, 1000, 0).unwrap();
    sys::sleep_ms(5);
    set(third, 1000, 0).unwrap();
    sys::sleep_ms(5);
    let of = || wait(&[SIGUSR1], 0).map(|told| told[2] - i64::from(second));
    r.see("both", (of(), of(), of()));
    let fd = {
        let mask = mask(&[rt]);
        sys!(SYS_signalfd4, -1i32, &raw const mask, 8, 0).unwrap()
    };
    set(first, 1000, 0).unwrap();
    let mut record: signalfd_siginfo = zeroed();
    r.see("read", sys!(SYS_read, fd, &raw mut record, 128));
    r.see("record", (record.ssi_code, record.ssi_overrun, record.ssi_int, record.ssi_ptr, record.ssi_pid));
    r.see("its timer", record.ssi_tid as i32 == first);
    let mut forged = [0i32; 32];
    (forged[2], forged[4], forged[8]) = (SI_TIMER, first, 1);
    r.see("forged", sys!(SYS_rt_sigqueueinfo, sys::pid(), rt, forged.as_ptr()));
    r.see("arrives", wait(&[rt], 0).map(|told| told[1]));
    r.see("poll", read(fd, 127));
}

fn overruns(r: &mut Report) {
    let rt = SIGRTMIN() + 1;
    block(&[rt]);
    let id = create(CLOCK_MONOTONIC, &event(SIGEV_SIGNAL, rt)).unwrap();
    r.see("new", sys!(SYS_timer_getoverrun, id));
    set(id, 1000, 1000).unwrap();
    sys::sleep_ms(30);
    r.see("none before it is taken", sys!(SYS_timer_getoverrun, id));
    let told = wait(&[rt], 1000).unwrap();
    r.ensure("many", told[3] >= 20);
    r.see("as told", sys!(SYS_timer_getoverrun, id).map(|count| count as i64 == told[3]));
    r.see("goes on", wait(&[rt], 5000).map(|told| told[0]).is_ok());
    r.see("off", set(id, 0, 0));
    while wait(&[rt], 0).is_ok() {}
    r.see("quiet", wait(&[rt], 10));
    r.see("no overrun", sys!(SYS_timer_getoverrun, id));
    // One whose signal is queued and that is set again has still one.
    set(id, 1000, 0).unwrap();
    sys::sleep_ms(5);
    set(id, 1000, 0).unwrap();
    sys::sleep_ms(5);
    let both = (wait(&[rt], 0).map(|told| told[1]), wait(&[rt], 0));
    r.see("set again", both);
    // SAFETY: no handler is involved.
    unsafe { signal(SIGUSR2, SIG_IGN) };
    let ignored = create(CLOCK_MONOTONIC, &event(SIGEV_SIGNAL, SIGUSR2)).unwrap();
    let value = itimerspec { it_interval: timespec { tv_sec: 0, tv_nsec: 1 }, it_value: us(1) };
    r.see("ignored", sys!(SYS_timer_settime, ignored, 0, &raw const value, 0));
    sys::sleep_ms(20);
    r.see("goes on unseen", (sys!(SYS_timer_getoverrun, ignored), set(ignored, 0, 0)));
}

fn to_thread(r: &mut Report) {
    let rt = SIGRTMIN() + 2;
    block(&[rt]);
    let answer = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut to = event(SIGEV_THREAD_ID, rt);
            to.tid = sys!(SYS_gettid).unwrap() as i32;
            let id = create(CLOCK_MONOTONIC, &to).unwrap();
            set(id, 1000, 0).unwrap();
            (id, wait(&[rt], 5000).map(|told| (told[1], told[3])))
        });
        thread.join().unwrap()
    });
    r.see("the thread", answer.1);
    // Its thread is gone, the timer is not.
    r.see("set after that", (set(answer.0, 1000, 1000), wait(&[rt], 20)));
    let mut own = event(SIGEV_THREAD_ID, rt);
    own.tid = sys::pid();
    let id = create(CLOCK_MONOTONIC, &own).unwrap();
    set(id, 1000, 0).unwrap();
    let other = std::thread::scope(|scope| scope.spawn(|| wait(&[rt], 30)).join().unwrap());
    r.see("another thread has none", other);
    r.see("its own has", wait(&[rt], 5000).map(|told| told[1]));
}

fn of_processor_time(r: &mut Report) {
    for (name, clock) in [("process", CLOCK_PROCESS_CPUTIME_ID), ("thread", CLOCK_THREAD_CPUTIME_ID)] {
        block(&[SIGUSR1]);
        let id = create(clock, &event(SIGEV_SIGNAL, SIGUSR1)).unwrap();
        set(id, 20_000, 0).unwrap();
        r.see(format!("{name}: sleeping"), (sys::sleep_ms(40), wait(&[SIGUSR1], 0)).1);
        let expired = sys::eventually_busy(|| wait(&[SIGUSR1], 0).is_ok());
        r.ensure(format!("{name}: computing"), expired);
        r.see(format!("{name}: off"), left(id));
    }
}

fn lives(r: &mut Report) {
    block(&[SIGUSR1]);
    let id = create(CLOCK_MONOTONIC, &event(SIGEV_SIGNAL, SIGUSR1)).unwrap();
    set(id, 100_000_000, 0).unwrap();
    let child = sys::ends(|| i32::from(left(id) != Err(sys::Errno::EINVAL)));
    r.see("a child has none", child);
    r.see("the parent has it still", left(id));
    let limited = sys::ends(|| {
        let limit = rlimit { rlim_cur: 0, rlim_max: 0 };
        sys!(SYS_setrlimit, RLIMIT_SIGPENDING, &raw const limit).unwrap();
        i32::from(create(1, &event(SIGEV_SIGNAL, SIGUSR1)) != Err(sys::Errno::EAGAIN))
    });
    r.see("none beyond the limit", limited);
    let killed = sys::ends(|| {
        let id = create(1, &event(SIGEV_SIGNAL, SIGKILL)).unwrap();
        set(id, 1000, 1000).unwrap();
        loop {
            let _ = sys!(SYS_pause);
        }
    });
    r.see("one that kills", killed);
}
