//! Signals that were sent and not yet taken.

use std::collections::VecDeque;

use lg_abi::{SigInfo, SigSet, Signal};

/// A queue of signals. A standard signal is in it once at most; real-time signals queue.
#[derive(Clone, Default, Debug)]
pub struct Pending {
    set: SigSet,
    queue: VecDeque<(Signal, SigInfo)>,
}

impl Pending {
    /// How many real-time signals one queue holds (RLIMIT_SIGPENDING of the sandbox).
    pub const MAX_QUEUED: usize = 4096;

    /// Returns the signals in the queue.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Adds a signal; answers whether there was room.
    pub fn push(&mut self, signal: Signal, info: SigInfo) -> bool {
        if !signal.is_realtime() && self.set.contains(signal) {
            return true;
        }
        if self.queue.len() >= Self::MAX_QUEUED {
            return false;
        }
        self.set.insert(signal);
        self.queue.push_back((signal, info));
        true
    }

    /// Takes the first signal that is in `wanted`: faults first, then the lowest number.
    pub fn take(&mut self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let synchronous = [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGFPE,
            Signal::SIGSYS,
        ];
        let available = self.set.intersect(wanted);
        let signal = synchronous
            .into_iter()
            .find(|signal| available.contains(*signal))
            .or_else(|| available.lowest())?;
        let at = self.queue.iter().position(|(queued, _)| *queued == signal)?;
        let taken = self.queue.remove(at)?;
        if !self.queue.iter().any(|(queued, _)| *queued == signal) {
            self.set.remove(signal);
        }
        Some(taken)
    }

    /// Drops all signals of the set.
    pub fn discard(&mut self, unwanted: SigSet) {
        self.set = self.set.minus(unwanted);
        self.queue.retain(|(signal, _)| !unwanted.contains(*signal));
    }
}
