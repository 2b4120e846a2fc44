//! What `bench figures` runs inside a sandbox: a loop, and how long each turn took by the guest's clock.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use anyhow::Result;

use crate::args::{GuestProbe, ProbeKind};

/// Prints the nanoseconds of one turn.
pub(crate) fn run(probe: &GuestProbe) -> Result<u8> {
    let started = Instant::now();
    match probe.what {
        ProbeKind::Getppid => (0..probe.count).for_each(|_| {
            black_box(rustix::process::getppid());
        }),
        ProbeKind::Spin => {
            black_box(
                (0..probe.count)
                    .fold(1u64, |x, n| black_box(x).wrapping_mul(6_364_136_223_846_793_005) + u64::from(n)),
            );
        }
    }
    let elapsed = started.elapsed();
    writeln!(std::io::stdout(), "{:.3}", elapsed.as_secs_f64() * 1e9 / f64::from(probe.count.max(1)))?;
    Ok(0)
}
