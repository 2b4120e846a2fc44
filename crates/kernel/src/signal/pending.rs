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
        if info.timer().is_some() {
            return self.push_timer(signal, info);
        }
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

    /// Adds the signal of a POSIX timer, even beside another one of the same number. Where that of the same timer
    /// is in the queue still, it stands for one more expiry. The number of timers bounds that of their signals.
    fn push_timer(&mut self, signal: Signal, info: SigInfo) -> bool {
        let of_same =
            |queued: &SigInfo| queued.timer().is_some_and(|(id, _)| Some(id) == info.timer().map(|it| it.0));
        if let Some((_, queued)) = self.queue.iter_mut().find(|(_, queued)| of_same(queued)) {
            queued.add_overrun(1);
            queued.field2 = info.field2;
            return true;
        }
        self.set.insert(signal);
        self.queue.push_back((signal, info));
        true
    }

    /// Drops the signals of POSIX timers.
    pub fn discard_timers(&mut self) {
        self.queue.retain(|(_, info)| info.timer().is_none());
        self.set = self.queue.iter().fold(SigSet::EMPTY, |set, (signal, _)| set.union(SigSet::only(*signal)));
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

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: SigSet = SigSet(u64::MAX);

    #[test]
    fn a_timer_has_one_signal_in_the_queue_beside_those_of_others() {
        let mut pending = Pending::default();
        let of = |id, round| SigInfo::from_timer(Signal::SIGUSR1, id, 0, round);
        pending.push(Signal::SIGUSR1, SigInfo::new(Signal::SIGUSR1, SigInfo::SI_USER));
        pending.push(Signal::SIGUSR1, of(0, 1));
        pending.push(Signal::SIGUSR1, of(3, 1));
        pending.push(Signal::SIGUSR1, of(0, 2));
        let mut taken = || pending.take(ALL).map(|(_, info)| (info.timer(), info.field0 >> 32));
        assert_eq!(taken(), Some((None, 0)));
        assert_eq!(taken(), Some((Some((0, 2)), 1)));
        assert_eq!(taken(), Some((Some((3, 1)), 0)));
        assert_eq!(taken(), None);
        assert!(pending.set().is_empty());
    }

    #[test]
    fn the_signals_of_timers_can_be_dropped_alone() {
        let mut pending = Pending::default();
        pending.push(Signal::SIGUSR1, SigInfo::from_timer(Signal::SIGUSR1, 0, 0, 1));
        pending.push(Signal::SIGUSR2, SigInfo::new(Signal::SIGUSR2, SigInfo::SI_USER));
        pending.discard_timers();
        assert_eq!(pending.set(), SigSet::only(Signal::SIGUSR2));
        assert!(pending.take(ALL).is_some() && pending.take(ALL).is_none());
    }

    #[test]
    fn what_tells_timers_apart_is_taken_out_and_overruns_do_not_overflow() {
        let mut info = SigInfo::from_timer(Signal::SIGUSR1, 5, 9, 2);
        assert_eq!((info.take_timer(), info.take_timer()), (Some((5, 2)), None));
        assert_eq!((info.add_overrun(7), info.add_overrun(u64::MAX)), (7, i32::MAX));
        assert_eq!(info.field0, 5 | (i32::MAX as u64) << 32);
    }
}
