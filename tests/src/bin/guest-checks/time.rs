//! Clocks and sleeping.

use std::time::{Duration, Instant};

use libc::*;

use crate::sys::{Answer, sys, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[("clocks", clocks), ("clocks_agree", clocks_agree), ("sleeping", sleeping)];

fn raw_clock(clock: i32) -> i128 {
    let mut now: timespec = zeroed();
    sys!(SYS_clock_gettime, clock, &raw mut now).unwrap();
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

fn library_clock(clock: i32) -> i128 {
    let mut now: timespec = zeroed();
    // SAFETY: the library fills the structure in; on Linux by way of the vDSO.
    unsafe { clock_gettime(clock, &raw mut now) };
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

fn clocks(r: &mut Report) {
    let mut now: timespec = zeroed();
    for clock in [
        CLOCK_REALTIME,
        CLOCK_MONOTONIC,
        CLOCK_PROCESS_CPUTIME_ID,
        CLOCK_THREAD_CPUTIME_ID,
        CLOCK_MONOTONIC_RAW,
        CLOCK_REALTIME_COARSE,
        CLOCK_MONOTONIC_COARSE,
        CLOCK_BOOTTIME,
        CLOCK_TAI,
    ] {
        r.see(format!("clock {clock}"), sys!(SYS_clock_gettime, clock, &raw mut now));
        r.see(format!("nanoseconds {clock}"), (0..1_000_000_000).contains(&now.tv_nsec));
    }
    r.see("unknown", sys!(SYS_clock_gettime, 77, &raw mut now));
    r.see("resolution", (sys!(SYS_clock_getres, CLOCK_MONOTONIC, &raw mut now), now.tv_sec, now.tv_nsec));
    r.see("resolution of an unknown clock", sys!(SYS_clock_getres, 77, 0));
    r.ensure("this century", raw_clock(CLOCK_REALTIME) > 1_600_000_000_000_000_000);
    r.ensure("processor time", raw_clock(CLOCK_PROCESS_CPUTIME_ID) > 0);
    let mut seconds = 0i64;
    let told = sys!(SYS_time, &raw mut seconds).unwrap();
    r.ensure(
        "time",
        told as i64 == seconds && (seconds - (raw_clock(CLOCK_REALTIME) / 1_000_000_000) as i64).abs() < 2,
    );
    let mut day: timeval = zeroed();
    r.see("gettimeofday", (sys!(SYS_gettimeofday, &raw mut day, 0), (0..1_000_000).contains(&day.tv_usec)));
    let mut cpu = 77u32;
    r.see("getcpu", (sys!(SYS_getcpu, &raw mut cpu, 0, 0), cpu < 1024));
}

fn clocks_agree(r: &mut Report) {
    for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW] {
        // One after the other, by the vDSO and by system call: never backwards.
        let mut last = 0;
        let mut backwards = 0;
        for _ in 0..300 {
            for now in [library_clock(clock), library_clock(clock), raw_clock(clock)] {
                backwards += u32::from(now < last);
                last = now;
            }
        }
        r.see(format!("clock {clock} went back"), backwards);
    }
    let start = Instant::now();
    let (mut last, mut steps) = (start, 0);
    while start.elapsed() < Duration::from_millis(30) {
        let now = Instant::now();
        assert!(now >= last);
        steps += u32::from(now > last);
        last = now;
    }
    r.ensure("it moves in small steps", steps > 50);
    let real = library_clock(CLOCK_REALTIME);
    // SAFETY: time(2) takes a null pointer.
    let seconds = i128::from(unsafe { libc::time(std::ptr::null_mut()) });
    r.ensure("time and clock_gettime", (seconds - real / 1_000_000_000).abs() <= 1);
    let mut day: timeval = zeroed();
    // SAFETY: the structure is filled in.
    unsafe { gettimeofday(&raw mut day, std::ptr::null_mut()) };
    let micros = i128::from(day.tv_sec) * 1_000_000 + i128::from(day.tv_usec);
    r.ensure("gettimeofday and clock_gettime", (0..1_000_000).contains(&(micros - real / 1000)));
}

fn sleeping(r: &mut Report) {
    let sleep = |ns: i64| {
        let time = timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
        sys!(SYS_nanosleep, &raw const time, 0)
    };
    for ms in [0, 1, 5, 40] {
        let start = Instant::now();
        let raw_start = raw_clock(CLOCK_MONOTONIC);
        r.see(format!("{ms} ms"), sleep(ms * 1_000_000));
        r.ensure("at least that", start.elapsed() >= Duration::from_millis(ms as u64));
        r.ensure("by system call too", raw_clock(CLOCK_MONOTONIC) - raw_start >= i128::from(ms) * 1_000_000);
    }
    let bad = |sec: i64, nsec: i64| -> Answer {
        let time = timespec { tv_sec: sec, tv_nsec: nsec };
        sys!(SYS_nanosleep, &raw const time, 0)
    };
    r.see("bad nanoseconds", (bad(0, 1_000_000_000), bad(0, -1), bad(-1, 0)));
    r.see("null", sys!(SYS_nanosleep, 0, 0));
    let at = |clock: i32, from_now_ms: i64| {
        let time = raw_clock(clock) as i64 + from_now_ms * 1_000_000;
        let time = timespec { tv_sec: time / 1_000_000_000, tv_nsec: time % 1_000_000_000 };
        sys!(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &raw const time, 0)
    };
    for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
        let start = Instant::now();
        r.see(format!("until, clock {clock}"), at(clock, 20));
        r.ensure("at least that", start.elapsed() >= Duration::from_millis(19));
        r.see(format!("a time that has passed, clock {clock}"), at(clock, -5));
    }
    let second = timespec { tv_sec: 1, tv_nsec: 0 };
    r.see("unknown clock", sys!(SYS_clock_nanosleep, 77, 0, &raw const second, 0));
    r.see("own processor time", sys!(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &raw const second, 0));
}
