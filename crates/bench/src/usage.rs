//! CPU time and context switches of this process and of the children that it has reaped, from getrusage(2).

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// CPU time up to now: user and system together. And how often processes left the processor.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CpuTime {
    /// Of this process.
    pub(crate) own: Duration,
    /// Of the children that were reaped, and of theirs.
    pub(crate) children: Duration,
    /// How often those children waited for something.
    pub(crate) voluntary_switches: u64,
    /// How often they were made to wait for others.
    pub(crate) involuntary_switches: u64,
}

impl CpuTime {
    pub(crate) fn now() -> Option<Self> {
        let own = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let children = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
        Some(Self {
            own: total(&own),
            children: total(&children),
            voluntary_switches: children.voluntary_context_switches().unsigned_abs(),
            involuntary_switches: children.involuntary_context_switches().unsigned_abs(),
        })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            children: self.children.saturating_sub(earlier.children),
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
        }
    }

    pub(crate) fn seconds(self) -> f64 {
        (self.own + self.children).as_secs_f64()
    }
}

fn total(usage: &Usage) -> Duration {
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(us.unsigned_abs())
}
