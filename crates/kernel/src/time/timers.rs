//! What is to happen at a certain time.

use std::collections::BTreeSet;

use crate::task::Tid;

/// Something that a point in time sets off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// A sleep of this task ends.
    Sleep(Tid),
    /// The ITIMER_REAL of this process expires.
    Real(Tid),
    /// The POSIX timer of that number of this process expires.
    Posix(Tid, i32),
}

/// All that is to happen, earliest first. Times are on the sandbox's CLOCK_MONOTONIC in ns.
#[derive(Default)]
pub struct Timers {
    set: BTreeSet<(u64, Timer)>,
}

impl Timers {
    /// Adds a timer.
    pub fn add(&mut self, at_ns: u64, timer: Timer) {
        self.set.insert((at_ns, timer));
    }

    /// Takes a timer out.
    pub fn remove(&mut self, at_ns: u64, timer: Timer) {
        self.set.remove(&(at_ns, timer));
    }

    /// Returns when the next one is due.
    pub fn next_ns(&self) -> Option<u64> {
        self.set.first().map(|(at_ns, _)| *at_ns)
    }

    /// Takes one that is due at `now_ns`.
    pub fn take_due(&mut self, now_ns: u64) -> Option<Timer> {
        let (at_ns, _) = self.set.first()?;
        if *at_ns > now_ns {
            return None;
        }
        self.set.pop_first().map(|(_, timer)| timer)
    }
}

/// An interval timer (setitimer(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IntervalTimer {
    /// When it expires next: on CLOCK_MONOTONIC, or in processor time of the process; `None` when off.
    pub next_ns: Option<u64>,
    /// The time between expiries; 0 for one expiry only.
    pub interval_ns: u64,
}

impl IntervalTimer {
    /// Goes on to the first expiry after `now_ns`.
    pub fn advance(&mut self, now_ns: u64) {
        self.next_ns = match self.next_ns {
            Some(next_ns) if self.interval_ns > 0 => {
                let missed = now_ns.saturating_sub(next_ns) / self.interval_ns;
                Some(next_ns.saturating_add(self.interval_ns.saturating_mul(missed + 1)))
            }
            _ => None,
        };
    }
}

/// The interval timers of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IntervalTimers {
    /// ITIMER_REAL: SIGALRM by wall-clock time.
    pub real: IntervalTimer,
    /// ITIMER_VIRTUAL: SIGVTALRM by processor time.
    pub virtual_: IntervalTimer,
    /// ITIMER_PROF: SIGPROF by processor time.
    pub prof: IntervalTimer,
}
