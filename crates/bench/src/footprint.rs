//! What a fork costs in memory: by what its vmm holds, and by what the machine has left.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lg_runtime::proc::{field, private_bytes, pss_bytes};
use lg_runtime::{Sandbox, Template};
use serde::Serialize;

use crate::finding::Tally;
use crate::stats::{Summary, median};
use crate::warm_life::{answer, end};

const MIB: f64 = (1 << 20) as f64;
/// Reading so often, so far apart, tells what the machine settles at.
const READINGS: usize = 5;
const BETWEEN_READINGS: Duration = Duration::from_millis(60);
/// How long what has just begun or ended may take to give memory back.
const SETTLING: Duration = Duration::from_millis(300);

/// The memory of forks that are alive at once and do nothing. What this host does not tell is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Footprint {
    /// How many were alive when each vmm was looked at.
    pub forks: usize,
    /// The vmms of forks that did nothing yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Held>,
    /// The same forks after their first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<Held>,
    /// How many were alive when the machine was looked at.
    pub all_in_forks: usize,
    /// How much less memory was available with them, divided by their number, in MiB: page tables, kernel and all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_in_idle_mb: Option<f64>,
    /// The same after their first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_in_answered_mb: Option<f64>,
}

/// What vmms hold, in MiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Held {
    /// Private_Clean + Private_Dirty: what nobody shares (USS).
    pub private_mb: Summary,
    /// How much of that is anonymous: pages that were copied because they were written, and the heap's.
    pub private_anonymous_mb: Summary,
    /// PSS: what is shared counts in proportion.
    pub pss_mb: Summary,
}

impl Held {
    fn of(sandboxes: &[Sandbox]) -> Option<Self> {
        let summary = |of: fn(u32) -> Option<u64>| {
            let bytes = sandboxes.iter().filter_map(|sandbox| of(sandbox.vmm_pid()));
            Summary::of(&bytes.map(|bytes| bytes as f64 / MIB).collect::<Vec<_>>())
        };
        Some(Self {
            private_mb: summary(private_bytes)?,
            private_anonymous_mb: summary(private_anonymous_bytes)?,
            pss_mb: summary(|pid| pss_bytes(&[pid]))?,
        })
    }
}

impl Footprint {
    /// Has `forks` alive at once, looks at them, and then `all_in_forks`.
    pub(crate) async fn measure(
        template: &Template,
        forks: usize,
        all_in_forks: usize,
        tally: &mut Tally,
    ) -> Result<Self> {
        let mut sandboxes = fork(template, forks).await?;
        let idle = Held::of(&sandboxes);
        answer_all(&mut sandboxes).await?;
        let answered = Held::of(&sandboxes);
        end_all(sandboxes, tally).await;

        let before = settled_available().await;
        let mut sandboxes = fork(template, all_in_forks).await?;
        let with_idle = settled_available().await;
        answer_all(&mut sandboxes).await?;
        let with_answered = settled_available().await;
        end_all(sandboxes, tally).await;
        let after = settled_available().await;
        // What else the machine does in the long run counts half.
        let without = before.zip(after).map(|(before, after)| (before + after) / 2.0);
        let each = |with: Option<f64>| Some((without? - with?) / MIB / all_in_forks as f64);
        Ok(Self {
            forks,
            idle,
            answered,
            all_in_forks,
            all_in_idle_mb: each(with_idle),
            all_in_answered_mb: each(with_answered),
        })
    }

    /// Lines for a terminal.
    pub(crate) fn lines(&self) -> String {
        let held = |held: Option<Held>| match held {
            Some(held) => format!(
                "private {:.2} MiB, of it anonymous {:.2} MiB, PSS {:.2} MiB",
                held.private_mb.p50, held.private_anonymous_mb.p50, held.pss_mb.p50
            ),
            None => "not told by this host".to_owned(),
        };
        let all_in =
            |each: Option<f64>| each.map_or("not told by this host".to_owned(), |mb| format!("{mb:.2} MiB"));
        format!(
            "memory of a fork, {} alive (medians): {}\n  after its first answer: {}\nall in, by MemAvailable, {} alive: {} each, \
             after their first answer {}",
            self.forks,
            held(self.idle),
            held(self.answered),
            self.all_in_forks,
            all_in(self.all_in_idle_mb),
            all_in(self.all_in_answered_mb),
        )
    }
}

async fn fork(template: &Template, count: usize) -> Result<Vec<Sandbox>> {
    let mut sandboxes = Vec::with_capacity(count);
    for _ in 0..count {
        sandboxes.push(template.spawn().await.context("fork, to look at its memory")?);
    }
    Ok(sandboxes)
}

async fn answer_all(sandboxes: &mut [Sandbox]) -> Result<()> {
    for sandbox in sandboxes {
        answer(sandbox).await?;
    }
    Ok(())
}

async fn end_all(sandboxes: Vec<Sandbox>, tally: &mut Tally) {
    for sandbox in sandboxes {
        tally.count(end(sandbox).await);
    }
}

/// MemAvailable in bytes, once what has just happened is over: the median of a few readings.
async fn settled_available() -> Option<f64> {
    tokio::time::sleep(SETTLING).await;
    let mut readings = Vec::with_capacity(READINGS);
    for _ in 0..READINGS {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        readings.push((field(&text, "MemAvailable:")? << 10) as f64);
        tokio::time::sleep(BETWEEN_READINGS).await;
    }
    median(&readings)
}

/// The private memory of a process that no file backs.
fn private_anonymous_bytes(pid: u32) -> Option<u64> {
    Some(private_anonymous_kib(&fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?) << 10)
}

/// Sums what smaps says, mapping by mapping. Where a mapping has both kinds, the private pages of its file that nobody else
/// maps cannot be told from its own.
fn private_anonymous_kib(smaps: &str) -> u64 {
    let (mut sum, mut private) = (0, 0);
    for line in smaps.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let value = || rest.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        match name {
            // The first field of each mapping.
            "Size" => private = 0,
            "Private_Clean" | "Private_Dirty" => private += value().unwrap_or(0),
            "Anonymous" => sum += private.min(value().unwrap_or(0)),
            _ => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_pages_of_files_are_not_anonymous() {
        let smaps = "\
55d0-55d1 r-xp 00000000 08:01 7 /usr/bin/luminaguard
Size:                100 kB
Private_Clean:        40 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
7f00-7f01 rw-p 00000000 00:00 0
Size:                 64 kB
Private_Clean:         0 kB
Private_Dirty:        20 kB
Anonymous:            60 kB
VmFlags: rd wr mr
";
        assert_eq!(private_anonymous_kib(smaps), 24);
        assert_eq!(private_anonymous_kib(""), 0);
    }

    #[test]
    fn this_process_has_anonymous_memory() {
        assert!(private_anonymous_bytes(std::process::id()).is_none_or(|bytes| bytes > 4096));
    }
}
