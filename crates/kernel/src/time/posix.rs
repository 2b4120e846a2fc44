//! POSIX timers (timer_create(2)).
//!
//! ```text
//!            set                expires              its signal is taken
//!   (off) --------> running -----------> queued ---------------------------> running, or off without an interval
//! ```
//!
//! While its signal waits to be taken, a timer stands still; how often it would have expired is reckoned when the
//! signal is taken. So a timer has one signal in a queue at most, however short its interval.

use std::collections::BTreeMap;

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigInfo, Signal};

use super::{IntervalTimer, Timer};
use crate::Kernel;
use crate::signal::{Sent, SignalTarget};
use crate::task::Tid;
use crate::vfs::Counted;

/// The most timers of a sandbox (RLIMIT_SIGPENDING).
pub(crate) const MAX_POSIX_TIMERS: u64 = 4096;

/// A timer whose signal is ignored expires no sooner than after this.
const LEAST_IGNORED_NS: u64 = 1_000_000;

/// What a timer measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerClock {
    /// CLOCK_REALTIME.
    Realtime,
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// The processor time of the process.
    ProcessCpu,
    /// The processor time of one of its threads.
    ThreadCpu(Tid),
}

impl TimerClock {
    fn is_cpu(self) -> bool {
        matches!(self, TimerClock::ProcessCpu | TimerClock::ThreadCpu(_))
    }
}

/// What an expiry does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notify {
    /// Nothing (SIGEV_NONE).
    Nobody,
    /// It sends a signal to the process (SIGEV_SIGNAL).
    Process(Signal),
    /// It sends a signal to a thread (SIGEV_THREAD_ID).
    Thread(Tid, Signal),
}

/// A timer.
struct PosixTimer {
    clock: TimerClock,
    notify: Notify,
    /// `si_value`.
    value: u64,
    /// On CLOCK_MONOTONIC, or in processor time. While the signal of an interval timer is queued, when it expired.
    setting: IntervalTimer,
    /// Whether the timer stands still until its signal is taken.
    queued: bool,
    /// How often it has been set: tells whether a signal in a queue is that of the present setting.
    round: u64,
    last_overrun: i32,
    /// Expiries before the next one that are left out, as there would be too many.
    left_out: u64,
    _count: Counted,
}

/// The POSIX timers of a process, by their numbers.
#[derive(Default)]
pub struct PosixTimers {
    timers: BTreeMap<i32, PosixTimer>,
    next_id: i32,
    /// Whether one that measures processor time runs.
    watches_cpu: bool,
}

impl PosixTimers {
    /// Says whether a timer that measures processor time runs.
    pub fn watches_cpu(&self) -> bool {
        self.watches_cpu
    }

    fn get_mut(&mut self, id: i32) -> Result<&mut PosixTimer, Errno> {
        self.timers.get_mut(&id).ok_or(Errno::EINVAL)
    }

    fn free_id(&mut self) -> i32 {
        // There are far fewer timers than numbers.
        while self.timers.contains_key(&self.next_id) {
            self.next_id = self.next_id.checked_add(1).unwrap_or(0);
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(0);
        id
    }

    fn look_for_cpu(&mut self) {
        self.watches_cpu = self.timers.values().any(|timer| {
            timer.clock.is_cpu() && timer.setting.next_ns.is_some() && timer.notify != Notify::Nobody
        });
    }
}

impl Kernel {
    /// Makes a timer that is not set, and returns its number, which is also its `si_value` where that is `None`.
    ///
    /// Errors: EAGAIN where there are too many.
    pub(crate) fn create_posix_timer(
        &mut self,
        tgid: Tid,
        clock: TimerClock,
        notify: Notify,
        value: Option<u64>,
    ) -> Result<i32, Errno> {
        let process = self.processes.get_mut(&tgid).ok_or(Errno::EAGAIN)?;
        if self.posix_timers.used() >= process.rlimits.current(linux::RLIMIT_SIGPENDING) {
            return Err(Errno::EAGAIN);
        }
        let count = self.posix_timers.take_one().map_err(|_| Errno::EAGAIN)?;
        let timers = &mut process.posix_timers;
        let id = timers.free_id();
        let timer = PosixTimer {
            clock,
            notify,
            value: value.unwrap_or(id as u64),
            setting: IntervalTimer::default(),
            queued: false,
            round: 0,
            last_overrun: 0,
            left_out: 0,
            _count: count,
        };
        timers.timers.insert(id, timer);
        Ok(id)
    }

    /// Returns what a timer measures.
    ///
    /// Errors: EINVAL where there is no such timer.
    pub(crate) fn posix_timer_clock(&self, tgid: Tid, id: i32) -> Result<TimerClock, Errno> {
        let timers = &self.processes.get(&tgid).ok_or(Errno::EINVAL)?.posix_timers;
        timers.timers.get(&id).map(|timer| timer.clock).ok_or(Errno::EINVAL)
    }

    /// Returns the time on a timer's clock (for CLOCK_REALTIME, on CLOCK_MONOTONIC), in ns.
    pub(crate) fn timer_clock_ns(&mut self, tgid: Tid, clock: TimerClock) -> u64 {
        match clock {
            TimerClock::Realtime | TimerClock::Monotonic => self.clock.monotonic_ns(),
            TimerClock::ProcessCpu => self.process_cpu_ns(tgid),
            TimerClock::ThreadCpu(tid) => {
                self.charge_cpu();
                self.tasks.get(&tid).map_or(0, |task| task.cpu_ns)
            }
        }
    }

    /// Sets a timer, or stops it.
    ///
    /// Errors: EINVAL where there is no such timer.
    pub(crate) fn set_posix_timer(
        &mut self,
        tgid: Tid,
        id: i32,
        setting: IntervalTimer,
    ) -> Result<(), Errno> {
        let timers = &mut self.processes.get_mut(&tgid).ok_or(Errno::EINVAL)?.posix_timers;
        let timer = timers.get_mut(id)?;
        if let Some(next_ns) = timer.setting.next_ns {
            self.timers.remove(next_ns, Timer::Posix(tgid, id));
        }
        timer.setting = setting;
        timer.queued = false;
        timer.round += 1;
        timer.last_overrun = 0;
        timer.left_out = 0;
        if let Some(next_ns) = setting.next_ns
            && !timer.clock.is_cpu()
            && timer.notify != Notify::Nobody
        {
            self.timers.add(next_ns, Timer::Posix(tgid, id));
        }
        timers.look_for_cpu();
        Ok(())
    }

    /// Returns the time to the next expiry of a timer and its interval, both in ns; zero where it is off.
    ///
    /// Errors: EINVAL where there is no such timer.
    pub(crate) fn posix_timer_left(&mut self, tgid: Tid, id: i32) -> Result<(u64, u64), Errno> {
        let clock = self.posix_timer_clock(tgid, id)?;
        let now_ns = self.timer_clock_ns(tgid, clock);
        let timer = self.processes.get_mut(&tgid).ok_or(Errno::EINVAL)?.posix_timers.get_mut(id)?;
        let IntervalTimer { next_ns, interval_ns } = timer.setting;
        let Some(next_ns) = next_ns else { return Ok((0, interval_ns)) };
        let goes_on = timer.queued || timer.notify == Notify::Nobody;
        let left_ns = match now_ns.checked_sub(next_ns) {
            // Expiries that are left out are told all the same.
            None | Some(0) if interval_ns > 0 && timer.left_out > 0 => {
                (next_ns - now_ns).checked_rem(interval_ns).unwrap_or(0).max(1)
            }
            None | Some(0) => (next_ns - now_ns).max(1),
            Some(past_ns) if goes_on => past_ns.checked_rem(interval_ns).map_or(0, |past| interval_ns - past),
            // Its signal is about to be sent.
            Some(_) => 1,
        };
        Ok((left_ns, interval_ns))
    }

    /// Returns how many expiries the signal of a timer that was taken last stands for, beside one.
    ///
    /// Errors: EINVAL where there is no such timer.
    pub(crate) fn posix_timer_overrun(&mut self, tgid: Tid, id: i32) -> Result<i32, Errno> {
        let timers = &mut self.processes.get_mut(&tgid).ok_or(Errno::EINVAL)?.posix_timers;
        timers.get_mut(id).map(|timer| timer.last_overrun)
    }

    /// Deletes a timer. Its signal, if it is in a queue, stays there.
    ///
    /// Errors: EINVAL where there is no such timer.
    pub(crate) fn delete_posix_timer(&mut self, tgid: Tid, id: i32) -> Result<(), Errno> {
        self.set_posix_timer(tgid, id, IntervalTimer::default())?;
        if let Some(process) = self.processes.get_mut(&tgid) {
            process.posix_timers.timers.remove(&id);
        }
        Ok(())
    }

    /// Deletes all timers of a process.
    pub(crate) fn drop_posix_timers(&mut self, tgid: Tid) {
        let Some(process) = self.processes.get(&tgid) else { return };
        let ids: Vec<i32> = process.posix_timers.timers.keys().copied().collect();
        for id in ids {
            // It is there: the number was just read.
            let _ = self.delete_posix_timer(tgid, id);
        }
    }

    /// Sends the signal of a timer that has reached its time; `now_ns` is on its clock.
    pub(crate) fn posix_timer_expired(&mut self, tgid: Tid, id: i32, now_ns: u64) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        let Ok(timer) = process.posix_timers.get_mut(id) else { return };
        let (target, signal) = match timer.notify {
            Notify::Nobody => return,
            Notify::Process(signal) => (SignalTarget::Process(tgid), signal),
            Notify::Thread(tid, signal) => (SignalTarget::Thread(tid), signal),
        };
        let info = SigInfo::from_timer(signal, id, timer.value, timer.round);
        let sent = self.send_signal(target, signal, info);
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        let Ok(timer) = process.posix_timers.get_mut(id) else { return };
        match sent {
            Sent::Queued if timer.setting.interval_ns > 0 => timer.queued = true,
            Sent::Ignored if timer.setting.interval_ns > 0 => {
                timer.setting.advance(now_ns);
                let least_ns = now_ns.saturating_add(LEAST_IGNORED_NS);
                timer.setting.next_ns = timer.setting.next_ns.map(|next_ns| next_ns.max(least_ns));
                if let (Some(next_ns), false) = (timer.setting.next_ns, timer.clock.is_cpu()) {
                    self.timers.add(next_ns, Timer::Posix(tgid, id));
                }
            }
            _ => timer.setting = IntervalTimer::default(),
        }
        process.posix_timers.look_for_cpu();
    }

    /// Sends the signals of the process's timers that measure processor time, of which it has used `used_ns`.
    pub(crate) fn expire_posix_cpu_timers(&mut self, tgid: Tid, used_ns: u64) {
        let Some(process) = self.processes.get(&tgid) else { return };
        if !process.posix_timers.watches_cpu() {
            return;
        }
        let used_by = |clock| match clock {
            TimerClock::ProcessCpu => Some(used_ns),
            TimerClock::ThreadCpu(tid) => self.tasks.get(&tid).map(|task| task.cpu_ns),
            TimerClock::Realtime | TimerClock::Monotonic => None,
        };
        let timers = process.posix_timers.timers.iter();
        let due: Vec<(i32, u64)> = timers
            .filter(|(_, timer)| !timer.queued)
            .filter_map(|(id, timer)| Some((*id, used_by(timer.clock)?, timer.setting.next_ns?)))
            .filter(|(_, now_ns, next_ns)| now_ns >= next_ns)
            .map(|(id, now_ns, _)| (id, now_ns))
            .collect();
        for (id, now_ns) in due {
            self.posix_timer_expired(tgid, id, now_ns);
        }
    }

    /// Lets a timer go on whose signal has been taken, and writes into the signal how often it would have expired
    /// meanwhile.
    pub(crate) fn timer_signal_taken(&mut self, tgid: Tid, info: &mut SigInfo) {
        let Some((id, round)) = info.take_timer() else { return };
        let Ok(clock) = self.posix_timer_clock(tgid, id) else { return };
        let now_ns = self.timer_clock_ns(tgid, clock);
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        let Ok(timer) = process.posix_timers.get_mut(id) else { return };
        let Some(expired_ns) = timer.setting.next_ns.filter(|_| timer.queued && timer.round == round) else {
            return;
        };
        timer.queued = false;
        let missed = now_ns.saturating_sub(expired_ns).checked_div(timer.setting.interval_ns).unwrap_or(0);
        timer.last_overrun = info.add_overrun(missed.saturating_add(std::mem::take(&mut timer.left_out)));
        timer.left_out = timer.setting.advance(now_ns);
        if let (Some(next_ns), false) = (timer.setting.next_ns, clock.is_cpu()) {
            self.timers.add(next_ns, Timer::Posix(tgid, id));
        }
    }
}
