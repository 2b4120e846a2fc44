//! What the processor holds for a task: vector and floating-point state over switches, signals and forks.

use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libc::*;

use crate::sys::{self, sys};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("vectors_over_signals", vectors_over_signals),
    ("vectors_over_switches", vectors_over_switches),
    ("float_control", float_control),
    ("float_results", float_results),
    ("segment_bases", segment_bases),
];

/// Computes with many live vector registers for some milliseconds; the result depends on all of them.
fn churn(seed: u64, rounds: u32) -> u64 {
    let mut lanes = [0f64; 32];
    for (n, lane) in lanes.iter_mut().enumerate() {
        *lane = seed as f64 + n as f64;
    }
    for _ in 0..rounds {
        for lane in &mut lanes {
            *lane = (*lane * 1.000_000_1 + 0.5) % 1_000_003.0;
        }
    }
    lanes.iter().fold(0u64, |sum, lane| sum.wrapping_mul(31).wrapping_add(lane.to_bits()))
}

#[target_feature(enable = "avx2")]
fn churn_avx(seed: i64, rounds: u32) -> u64 {
    let mut sums = [_mm256_set1_epi64x(seed); 12];
    for round in 0..rounds {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = _mm256_add_epi64(
                _mm256_xor_si256(*sum, _mm256_set1_epi64x(i64::from(round))),
                _mm256_set1_epi64x(n as i64),
            );
            *sum = _mm256_or_si256(_mm256_slli_epi64::<7>(*sum), _mm256_srli_epi64::<57>(*sum));
        }
    }
    let mut all = 0u64;
    for sum in sums {
        let mut lanes = [0u64; 4];
        // SAFETY: the array has the size of the vector.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
        all = lanes.iter().fold(all, |all, lane| all.wrapping_mul(31).wrapping_add(*lane));
    }
    all
}

fn compute(seed: u64, rounds: u32) -> (u64, u64) {
    let plain = churn(seed, rounds);
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        (plain, unsafe { churn_avx(seed as i64, rounds * 4) })
    } else {
        (plain, 0)
    }
}

fn vectors_over_signals(r: &mut Report) {
    static TICKS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn tick(_: c_int) {
        TICKS.fetch_add(1, SeqCst);
        // Spoils the vector registers of what it interrupts, if the kernel lets it.
        std::hint::black_box(compute(99, 3));
    }
    let expected = compute(7, 60_000);
    // SAFETY: the handler computes and counts.
    unsafe { signal(SIGALRM, tick as *const () as usize) };
    let every = itimerval {
        it_interval: timeval { tv_sec: 0, tv_usec: 1000 },
        it_value: timeval { tv_sec: 0, tv_usec: 1000 },
    };
    sys!(SYS_setitimer, ITIMER_REAL, &raw const every, 0).unwrap();
    let mut wrong = 0;
    let start = std::time::Instant::now();
    while TICKS.load(SeqCst) < 20 && start.elapsed().as_secs() < 20 {
        wrong += u32::from(compute(7, 60_000) != expected);
    }
    r.see("wrong results", wrong);
    r.ensure("interrupted", TICKS.load(SeqCst) >= 20);
}

fn vectors_over_switches(r: &mut Report) {
    let expected: Vec<_> = (0..4).map(|seed| compute(seed, 50_000)).collect();
    let pids: Vec<i32> = (0..4u64)
        .map(|seed| {
            let expected = expected[seed as usize];
            sys::child(move || (0..8).filter(|_| compute(seed, 50_000) != expected).count() as i32)
        })
        .collect();
    r.see("processes", pids.into_iter().map(sys::wait).collect::<Vec<_>>());
    let wrong: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u64)
            .map(|seed| {
                let expected = expected[seed as usize];
                scope.spawn(move || (0..8).filter(|_| compute(seed, 50_000) != expected).count())
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    r.see("threads", wrong);
}

fn control_words() -> (u32, u16) {
    let (mut vector, mut x87) = (0u32, 0u16);
    // SAFETY: both store to the variables named.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut vector);
        std::arch::asm!("fnstcw [{}]", in(reg) &raw mut x87);
    }
    (vector, x87)
}

fn float_control(r: &mut Report) {
    r.see("at the start", control_words().1);
    r.see("vector control at the start", control_words().0 & !0x3f);
    // Another rounding in a child, which must keep it, and not leak.
    let set = 0x7f80u32;
    r.see(
        "a child's own",
        sys::ends(|| {
            // SAFETY: a valid control word: all exceptions masked, rounding towards zero.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const set) };
            sys::sleep_ms(5);
            let kept = control_words().0 & 0x7f80 == 0x7f80;
            let inherited = sys::ends(|| i32::from(control_words().0 & 0x7f80 != 0x7f80)) == "exited 0";
            i32::from(!kept || !inherited)
        }),
    );
    r.see("the parent's", control_words().0 & !0x3f);
    extern "C" fn look(_: c_int) {
        sys::exit(i32::from(control_words().0 & 0x6000 != 0))
    }
    r.see(
        "a handler starts with the standard words",
        sys::ends(|| {
            // SAFETY: as above; the handler ends the process.
            unsafe {
                std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const set);
                signal(SIGUSR1, look as *const () as usize);
                raise(SIGUSR1);
            }
            9
        }),
    );
    r.see(
        "unmasked division by zero",
        sys::ends(|| {
            let unmasked = 0x1d80u32;
            let none = rlimit { rlim_cur: 0, rlim_max: 0 };
            sys!(SYS_setrlimit, RLIMIT_CORE, &raw const none).unwrap();
            // SAFETY: a valid control word; the exception is wanted.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const unmasked) };
            std::hint::black_box(std::hint::black_box(1.0f64) / std::hint::black_box(0.0f64));
            0
        }),
    );
}

fn float_results(r: &mut Report) {
    let values = [0.1, 1e300, -3.7, 1e-310];
    r.see(
        "arithmetic",
        values.map(|value: f64| (value * 3.0, value.sqrt().to_bits(), value.sin(), value.exp())),
    );
    r.see("churn", compute(3, 1000));
    let mut extended = 0u64;
    let value = 2.0f64;
    // SAFETY: loads one number, stores one, and leaves the x87 stack empty.
    unsafe {
        std::arch::asm!("fld qword ptr [{0}]", "fsqrt", "fstp qword ptr [{1}]", in(reg) &raw const value, in(reg) &raw mut extended);
    }
    r.see("x87", extended);
}

fn segment_bases(r: &mut Report) {
    let word = 0x1122_3344u64;
    // SAFETY: GS is not used by the library; the base is an address of this frame, and is put back.
    let read = unsafe {
        sys!(SYS_arch_prctl, 0x1001, &raw const word).unwrap();
        sys::sleep_ms(5);
        let value: u64;
        std::arch::asm!("mov {}, gs:[0]", out(reg) value);
        value
    };
    r.see("GS", format!("{read:#x}"));
    let mut base = 0u64;
    sys!(SYS_arch_prctl, 0x1004, &raw mut base).unwrap();
    r.see("read back", base == &raw const word as u64);
    r.see(
        "inherited by fork",
        sys::ends(|| {
            let mut base = 0u64;
            sys!(SYS_arch_prctl, 0x1004, &raw mut base).unwrap();
            i32::from(base != &raw const word as u64)
        }),
    );
    r.see("non-canonical", sys!(SYS_arch_prctl, 0x1001, 0x8000_0000_0000_0000usize));
    r.see("unknown", sys!(SYS_arch_prctl, 0x9999, 0));
    sys!(SYS_arch_prctl, 0x1001, 0).unwrap();
}
