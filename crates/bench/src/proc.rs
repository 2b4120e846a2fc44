//! What the host says of processes, in `/proc`. Whatever cannot be read is left out by the callers.

use std::fs;
use std::time::Duration;

pub(crate) use lg_runtime::proc::{field, private_bytes, pss_bytes};

/// The sum of the threads of `pids`.
pub(crate) fn threads(pids: &[u32]) -> Option<u64> {
    sum(pids
        .iter()
        .filter_map(|pid| field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "Threads:")))
}

/// The bytes that `pids` caused to be read from and written to storage.
pub(crate) fn disk_bytes(pids: &[u32]) -> Option<(u64, u64)> {
    let one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        Some((field(&text, "read_bytes:")?, field(&text, "write_bytes:")?))
    };
    pids.iter().filter_map(one).reduce(|a, b| (a.0 + b.0, a.1 + b.1))
}

/// The CPU time of the one thread of `pid` up to now.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_ascii_whitespace().next()?.parse().ok()?))
}

fn sum(mut values: impl Iterator<Item = u64>) -> Option<u64> {
    let first = values.next()?;
    Some(values.fold(first, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads() {
        let me = [std::process::id()];
        assert!(threads(&me).is_some_and(|count| count >= 1));
        assert_eq!(threads(&[]), None);
        assert!(cpu_time(std::process::id()).is_none_or(|time| time < Duration::from_secs(3600)));
    }
}
