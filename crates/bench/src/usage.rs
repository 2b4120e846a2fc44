//! CPU time of this process and of the children that it has reaped, from getrusage(2).

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// CPU time up to now: user and system together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    /// Of this process.
    pub(crate) own: Duration,
    /// Of the children that were reaped, and of theirs.
    pub(crate) children: Duration,
}

impl CpuTime {
    pub(crate) fn now() -> Option<Self> {
        let own = total(&getrusage(UsageWho::RUSAGE_SELF).ok()?);
        let children = total(&getrusage(UsageWho::RUSAGE_CHILDREN).ok()?);
        Some(Self { own, children })
    }

    /// The CPU time since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            children: self.children.saturating_sub(earlier.children),
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
