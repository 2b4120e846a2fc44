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

/// The least time from one signal of a timer to the next. To deliver a signal and to return from its handler takes several
/// entries into the guest, and where the next one is due by then, the program does nothing else any more.
const LEAST_NS: u64 = 250_000;

impl IntervalTimer {
    /// Goes on to the first expiry after `now_ns` that leaves the program time, and returns how many before that are
    /// left out.
    pub fn advance(&mut self, now_ns: u64) -> u64 {
        let (Some(next_ns), 1..) = (self.next_ns, self.interval_ns) else {
            self.next_ns = None;
            return 0;
        };
        let to_come = |from_ns: u64| from_ns.saturating_sub(next_ns) / self.interval_ns + 1;
        let (due, kept) = (to_come(now_ns), to_come(now_ns.saturating_add(LEAST_NS)));
        // Whoever asks for more than the least time gets what they ask for.
        let count = if self.interval_ns < LEAST_NS { kept } else { due };
        self.next_ns = Some(next_ns.saturating_add(self.interval_ns.saturating_mul(count)));
        count - due
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

#[cfg(test)]
mod tests {
    use super::*;

    fn advanced(next_ns: u64, interval_ns: u64, now_ns: u64) -> (Option<u64>, u64) {
        let mut timer = IntervalTimer { next_ns: Some(next_ns), interval_ns };
        let left_out = timer.advance(now_ns);
        (timer.next_ns, left_out)
    }

    #[test]
    fn an_interval_timer_goes_on_in_steps() {
        assert_eq!(advanced(1_000_000, 1_000_000, 1_000_000), (Some(2_000_000), 0));
        assert_eq!(advanced(1_000_000, 1_000_000, 3_999_999), (Some(4_000_000), 0));
        assert_eq!(advanced(1_000_000, 0, 1_000_000), (None, 0));
    }

    #[test]
    fn one_that_would_leave_no_time_leaves_expiries_out() {
        assert_eq!(advanced(1000, 1000, 1000), (Some(252_000), 250));
        assert_eq!(advanced(1, 1, 1), (Some(250_002), 250_000));
        assert_eq!(advanced(u64::MAX, 1, u64::MAX).0, Some(u64::MAX));
    }
}
