//! What one more sandbox takes from the machine: [`Cost`], and [`CostEstimate`] from measurements.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// What one sandbox takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Cost {
    /// Memory that it makes unavailable to others: what a fork dirties, not what it shares with its template.
    pub memory_bytes: u64,
    /// Descriptors of this process: control socket, pipes, pidfd.
    pub descriptors: u64,
    /// Processes of the host, and threads, which Linux counts alike.
    pub processes: u64,
}

impl Cost {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            descriptors: self.descriptors.saturating_add(other.descriptors),
            processes: self.processes.saturating_add(other.processes),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            descriptors: self.descriptors.saturating_sub(other.descriptors),
            processes: self.processes.saturating_sub(other.processes),
        }
    }
}

/// How many measurements are remembered: enough that a 95th percentile means something, few enough that a change of
/// what sandboxes do is followed within some hundred of them.
const WINDOW: usize = 256;
/// Until there are so many measurements, the guess counts if it is higher.
const TRUSTED: usize = 32;
const PERCENTILE: usize = 95;

/// The cost of the sandboxes of one template, learned from those that lived.
///
/// Memory is the 95th percentile of the last 256 measurements. The first 32 can only raise the guess that it starts with,
/// never lower it. So a wrong guess errs towards too few sandboxes, and for a short time.
#[derive(Debug)]
pub struct CostEstimate {
    guess: Cost,
    overhead_bytes: u64,
    learned: Mutex<Learned>,
}

#[derive(Debug)]
struct Learned {
    measurements: VecDeque<u64>,
    memory_bytes: u64,
}

impl CostEstimate {
    /// Starts from a guess, which should be rather too high: the memory limit of the sandbox is one that never errs.
    /// Descriptors and processes do not change; they are known beforehand.
    pub fn new(guess: Cost) -> Self {
        let learned = Learned { measurements: VecDeque::new(), memory_bytes: guess.memory_bytes };
        Self { guess, overhead_bytes: 0, learned: Mutex::new(learned) }
    }

    /// Adds `bytes` to each measurement: what a sandbox takes that its process does not show, such as the
    /// memory that the host's kernel keeps for a VM.
    #[must_use]
    pub fn with_overhead_bytes(mut self, bytes: u64) -> Self {
        self.overhead_bytes = bytes;
        self
    }

    /// Learns what a sandbox had dirtied, best when it had most: at its end, or while it is at work. See
    /// [`private_bytes`](crate::proc::private_bytes).
    pub fn observe(&self, private_bytes: u64) {
        let mut learned = self.learned();
        if learned.measurements.len() == WINDOW {
            learned.measurements.pop_front();
        }
        learned.measurements.push_back(private_bytes.saturating_add(self.overhead_bytes));
        let mut sorted: Vec<u64> = learned.measurements.iter().copied().collect();
        // The nearest rank.
        let rank = (sorted.len() * PERCENTILE).div_ceil(100) - 1;
        let high = *sorted.select_nth_unstable(rank).1;
        let least = if sorted.len() < TRUSTED { self.guess.memory_bytes } else { 0 };
        learned.memory_bytes = high.max(least);
    }

    /// What the next sandbox is expected to cost.
    pub fn cost(&self) -> Cost {
        Cost { memory_bytes: self.learned().memory_bytes, ..self.guess }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESS: Cost = Cost { memory_bytes: 1000, descriptors: 6, processes: 1 };

    #[test]
    fn few_measurements_only_raise_the_guess() {
        let estimate = CostEstimate::new(GUESS);
        assert_eq!(estimate.cost(), GUESS);
        estimate.observe(10);
        assert_eq!(estimate.cost(), GUESS);
        estimate.observe(5000);
        assert_eq!(estimate.cost(), Cost { memory_bytes: 5000, ..GUESS });
    }

    #[test]
    fn many_measurements_replace_the_guess_by_a_high_percentile() {
        let estimate = CostEstimate::new(GUESS).with_overhead_bytes(7);
        (1..=100).for_each(|bytes| estimate.observe(bytes));
        assert_eq!(estimate.cost().memory_bytes, 95 + 7);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let estimate = CostEstimate::new(GUESS);
        (0..WINDOW).for_each(|_| estimate.observe(1 << 30));
        (0..WINDOW).for_each(|_| estimate.observe(4096));
        assert_eq!(estimate.cost().memory_bytes, 4096);
    }

    #[test]
    fn absurd_measurements_overflow_nothing() {
        let estimate = CostEstimate::new(GUESS).with_overhead_bytes(u64::MAX);
        estimate.observe(u64::MAX);
        assert_eq!(estimate.cost().memory_bytes, u64::MAX);
        assert_eq!(estimate.cost().plus(estimate.cost()).memory_bytes, u64::MAX);
    }
}
