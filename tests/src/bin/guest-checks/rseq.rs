//! Restartable sequences: rseq(2).

use std::arch::asm;
use std::cell::UnsafeCell;

use libc::*;

use crate::sys::{self, Answer, sys, zeroed};
use crate::{Check, Report, exec};

pub const CHECKS: &[Check] = &[("rseq", sequences)];

/// What stands in front of an abort handler.
const SIGNATURE: u32 = 0x5305_3053;
const UNREGISTER: i32 = 1;

/// `struct rseq`.
#[repr(C, align(32))]
struct Area {
    cpu_start: u32,
    cpu: u32,
    sequence: u64,
    flags: u32,
    rest: [u32; 3],
}

/// `struct rseq_cs`.
#[repr(C, align(32))]
#[derive(Default)]
struct Sequence {
    version: u32,
    flags: u32,
    start: u64,
    len: u64,
    abort: u64,
}

/// The library registers an area of its own, so the program runs again and tells it not to.
fn sequences(r: &mut Report) {
    let (text, end) = exec::role(&["rseq"], &["GLIBC_TUNABLES=glibc.pthread.rseq=0"], || {});
    for (index, line) in text.lines().enumerate() {
        r.see(index, line);
    }
    r.see("end", end);
}

fn register(area: *mut Area, len: usize, flags: i32, signature: u32) -> Answer {
    sys!(SYS_rseq, area, len, flags, signature)
}

/// What the program does in its role.
pub fn play() {
    let area = UnsafeCell::new(Area { cpu_start: 7, cpu: 7, sequence: 0, flags: 0, rest: [0; 3] });
    let area = area.get();
    errors(area);
    println!("signal {:?}", by_signal(area));
    println!("others {:?}", by_others(area));
    for (what, version, signature) in
        [("nothing wrong", 0, SIGNATURE), ("version", 1, SIGNATURE), ("signature", 0, SIGNATURE + 1)]
    {
        let end = sys::ends(|| {
            register(area, 32, 0, signature).unwrap();
            alarm_soon();
            let mut sequence = Sequence { version, ..Sequence::default() };
            i32::from(spin(area, &raw mut sequence) == 0)
        });
        println!("{what} {end}");
    }
    let end = sys::ends(|| {
        register(area, 32, 0, SIGNATURE).unwrap();
        // SAFETY: the area lives, and nobody else writes to it meanwhile.
        unsafe { (&raw mut (*area).sequence).write_volatile(0x1000) };
        alarm_soon();
        sys::sleep_ms(10_000);
        0
    });
    println!("nowhere {end}");
}

fn errors(area: *mut Area) {
    // SAFETY: the area lives.
    let cpus = || unsafe {
        ((&raw const (*area).cpu_start).read_volatile(), (&raw const (*area).cpu).read_volatile())
    };
    println!("nothing to unregister {:?}", register(area, 32, UNREGISTER, SIGNATURE));
    println!("flags {:?}", register(area, 32, 2, SIGNATURE));
    println!("length {:?}", register(area, 16, 0, SIGNATURE));
    println!("alignment {:?}", register(area.wrapping_byte_add(8), 32, 0, SIGNATURE));
    println!("address {:?}", register((1usize << 63) as *mut Area, 32, 0, SIGNATURE));
    println!("untouched {:?}", cpus());
    println!("register {:?}", register(area, 32, 0, SIGNATURE));
    let (start, cpu) = cpus();
    println!("processor {} {}", start < 4096, cpu < 4096);
    println!("again {:?}", register(area, 32, 0, SIGNATURE));
    println!("elsewhere {:?}", register(area.wrapping_add(1), 32, 0, SIGNATURE));
    println!("longer {:?}", register(area, 64, 0, SIGNATURE));
    println!("another signature {:?}", register(area, 32, 0, 1));
    println!("unregister by that {:?}", register(area, 32, UNREGISTER, 1));
    println!("more flags {:?}", register(area, 32, UNREGISTER | 2, SIGNATURE));
    let child = sys::ends(|| i32::from(register(area, 32, 0, SIGNATURE) != Err(sys::Errno::EBUSY)));
    println!("a child has it {child}");
    let addr = area as usize;
    let thread = std::thread::spawn(move || {
        let area = addr as *mut Area;
        (register(area, 32, 0, SIGNATURE), register(area, 32, UNREGISTER, SIGNATURE))
    });
    println!("a thread has none {:?}", thread.join().unwrap());
    println!("unregister {:?}", register(area, 32, UNREGISTER, SIGNATURE));
    println!("no processor {:?}", cpus());
}

/// Goes round in a sequence until that is aborted, and answers how often.
fn spin(area: *mut Area, sequence: *mut Sequence) -> u64 {
    let mut rounds = 0u64;
    // SAFETY: the code changes what it says, and leaves the loop by way of the abort handler alone.
    unsafe {
        asm!(
            "lea {t}, [rip + 2f]",
            "mov [{sequence} + 8], {t}",
            "lea {t}, [rip + 3f]",
            "sub {t}, [{sequence} + 8]",
            "mov [{sequence} + 16], {t}",
            "lea {t}, [rip + 4f]",
            "mov [{sequence} + 24], {t}",
            "mov [{area} + 8], {sequence}",
            "2:",
            "inc {rounds}",
            "jmp 2b",
            "3:",
            ".long 0x53053053",
            "4:",
            t = out(reg) _,
            area = in(reg) area,
            sequence = in(reg) sequence,
            rounds = inout(reg) rounds,
        );
    }
    rounds
}

extern "C" fn nothing(_: c_int) {}

/// Has alarms come until the process ends or stops them.
fn alarm_soon() {
    // SAFETY: the handler does nothing.
    unsafe { signal(SIGALRM, nothing as *const () as sighandler_t) };
    let soon = timeval { tv_sec: 0, tv_usec: 5000 };
    set_alarm(itimerval { it_interval: soon, it_value: soon });
}

fn set_alarm(timer: itimerval) {
    sys!(SYS_setitimer, ITIMER_REAL, &raw const timer, 0).unwrap();
}

/// Whether a signal ends a sequence, and whether the area then names it no longer.
fn by_signal(area: *mut Area) -> (Answer, bool, u64, Answer) {
    let registered = register(area, 32, 0, SIGNATURE);
    alarm_soon();
    let mut sequence = Sequence::default();
    let rounds = spin(area, &raw mut sequence);
    set_alarm(zeroed());
    // SAFETY: the area lives.
    let named = unsafe { (&raw const (*area).sequence).read_volatile() };
    (registered, rounds > 0, named, register(area, 32, UNREGISTER, SIGNATURE))
}

/// Whether another process on the same processor ends a sequence.
fn by_others(area: *mut Area) -> (Answer, bool, Answer) {
    let mut cpu = 0u32;
    sys!(SYS_getcpu, &raw mut cpu, 0, 0).unwrap();
    let mut set = [0u64; 16];
    set[cpu as usize / 64] = 1 << (cpu % 64);
    sys!(SYS_sched_setaffinity, 0, 128, set.as_ptr()).unwrap();
    let busy = sys::child(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    let registered = register(area, 32, 0, SIGNATURE);
    let mut sequence = Sequence::default();
    let rounds = spin(area, &raw mut sequence);
    sys::kill(busy, SIGKILL).unwrap();
    sys::wait(busy);
    (registered, rounds > 0, register(area, 32, UNREGISTER, SIGNATURE))
}
