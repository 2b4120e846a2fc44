//! What the host says of processes, in `/proc`. Whatever cannot be read is left out by the callers.

use std::fs;

/// The sum over `pids` of their proportional share of memory, in bytes. Processes that ended count nothing;
/// `None` when no process could be read.
pub(crate) fn pss_bytes(pids: &[u32]) -> Option<u64> {
    let one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        field(&text, "Pss:").map(|kib| kib * 1024)
    };
    sum(pids.iter().filter_map(one))
}

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

/// The children of this process, zombies included.
pub(crate) fn children() -> Vec<u32> {
    let me = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent_in_stat(&stat) == Some(me)
    })
    .collect()
}

/// The parent in a line of `/proc/PID/stat`. The name in parentheses may hold anything.
fn parent_in_stat(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The number behind `name` at the beginning of a line.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

fn sum(mut values: impl Iterator<Item = u64>) -> Option<u64> {
    let first = values.next()?;
    Some(values.fold(first, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_threads() {
        let me = [std::process::id()];
        assert!(threads(&me).is_some_and(|count| count >= 1));
        assert!(pss_bytes(&me).is_none_or(|bytes| bytes > 4096));
        assert_eq!(threads(&[]), None);
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in_stat("12 (a) b (c)) S 34 5 6"), Some(34));
        assert_eq!(parent_in_stat(""), None);
    }

    #[test]
    fn a_child_is_listed_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        assert!(children().contains(&child.id()));
        child.wait().unwrap();
        assert!(!children().contains(&child.id()));
    }
}
