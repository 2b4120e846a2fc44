//! What presses on the whole host: [`take_memory`] and [`keep_busy`]. Both block the thread, and end early when they are told to.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use lg_runtime::admission::{HostReadings, ProcHost, Readings};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

/// The least that is left to everybody else.
const LEAST_LEFT_BYTES: u64 = 1 << 30;
/// Memory is taken in pieces, and the host looked at before each.
const PIECE_BYTES: u64 = 64 << 20;
/// How long taking it may last.
const TAKING_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks at whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much memory others must be able to have: 1 GiB, or a quarter of all if that is more. All memory is that of the host
/// or of the tightest control group.
fn left_bytes(readings: &Readings) -> u64 {
    LEAST_LEFT_BYTES.max(readings.memory_total_bytes / 4)
}

/// How much memory may be taken: half of what is available, less if too little would be left.
fn budget_bytes(readings: &Readings) -> u64 {
    let available = readings.memory_available_bytes;
    (available / 2).min(available.saturating_sub(left_bytes(readings)))
}

/// Takes as much memory as it may, keeps it for `hold`, and gives it back; earlier if others need it. Answers how much that
/// was, in bytes.
///
/// # Errors
/// When it is not known how much there is, or there is no such memory.
pub(super) fn take_memory(hold: Duration, is_over: impl Fn() -> bool) -> Result<u64> {
    let host = ProcHost::new();
    let most = budget_bytes(&host.read()?);
    // Memory that nobody has mapped is taken faster, and goes back at once with its descriptor.
    let memory = memfd_create("luminaguard-ballast", MemfdFlags::CLOEXEC)?;
    let (started, mut taken) = (Instant::now(), 0);
    while started.elapsed() < TAKING_LIMIT && !is_over() && taken + PIECE_BYTES <= most {
        // Others may have taken some meanwhile.
        let readings = host.read()?;
        let has_room = readings.memory_available_bytes >= left_bytes(&readings) + PIECE_BYTES;
        if !has_room || fallocate(&memory, FallocateFlags::empty(), taken, PIECE_BYTES).is_err() {
            break;
        }
        taken += PIECE_BYTES;
    }
    let full = Instant::now();
    while full.elapsed() < hold && !is_over() {
        let readings = host.read()?;
        if readings.memory_available_bytes < left_bytes(&readings) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(taken)
}

/// Keeps `threads` threads busy for `hold`.
pub(super) fn keep_busy(threads: usize, hold: Duration, is_over: impl Fn() -> bool + Sync) {
    let started = Instant::now();
    let is_over = || started.elapsed() >= hold || is_over();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over() {
                    black_box((0..100_000_u64).fold(0, |sum: u64, number| black_box(sum) ^ number));
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_memory_is_left_to_everybody_else() {
        let gib = |available: u64, total: u64| {
            let bytes = |gib| gib << 30;
            let readings = Readings {
                memory_available_bytes: bytes(available),
                memory_total_bytes: bytes(total),
                ..Readings::default()
            };
            budget_bytes(&readings) as f64 / bytes(1) as f64
        };
        // Half; then what is above a quarter of all; then what is above 1 GiB; then nothing.
        assert_eq!(gib(20, 24), 10.0);
        assert_eq!(gib(8, 24), 2.0);
        assert_eq!(gib(6, 24), 0.0);
        assert_eq!(gib(2, 3), 1.0);
        assert_eq!([gib(1, 2), gib(0, 2), gib(0, 0)], [0.0; 3]);
    }

    #[test]
    fn what_is_over_ends_at_once() {
        let started = Instant::now();
        keep_busy(2, Duration::from_secs(60), || true);
        assert_eq!(take_memory(Duration::from_secs(60), || true).unwrap(), 0);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
