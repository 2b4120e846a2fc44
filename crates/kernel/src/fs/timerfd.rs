//! Timers that are read (timerfd_create(2)).

use std::any::Any;
use std::cell::Cell;
use std::io::SeekFrom;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::CLOCK_REALTIME;

use crate::task::WaitQueue;
use crate::vfs::{File, FsContext, Readiness};

/// The setting of a timer. Times are on the guest's CLOCK_MONOTONIC in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// When it expires next.
    pub next_ns: u64,
    /// How long after that it expires again; 0 for never.
    pub interval_ns: u64,
}

/// A timer.
pub struct TimerFd {
    clock: u32,
    flags: Cell<u32>,
    setting: Cell<Option<Setting>>,
    changed: Rc<WaitQueue>,
}

/// Returns the timer that a file is.
///
/// Errors: EINVAL.
pub fn as_timer(file: &Rc<dyn File>) -> Result<Rc<TimerFd>, Errno> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<TimerFd>().map_err(|_| Errno::EINVAL)
}

impl TimerFd {
    /// Returns a timer that is not set, of one of the `CLOCK_` constants.
    pub fn new(clock: u32) -> Rc<TimerFd> {
        Rc::new(TimerFd { clock, flags: Cell::new(0), setting: Cell::new(None), changed: WaitQueue::new() })
    }

    /// Says whether its times are on CLOCK_REALTIME.
    pub fn is_realtime(&self) -> bool {
        self.clock == CLOCK_REALTIME
    }

    /// Sets the timer, or stops it, with the flags of timerfd_settime(2).
    pub fn set(&self, setting: Option<Setting>, flags: u32) {
        self.flags.set(flags);
        self.setting.set(setting);
        self.changed.wake_all();
    }

    /// Returns the time to the next expiration and the interval, both in ns; zero where it is not set.
    pub fn remaining(&self, now_ns: u64) -> (u64, u64) {
        let Some(Setting { next_ns, interval_ns }) = self.setting.get() else { return (0, 0) };
        if now_ns < next_ns {
            return (next_ns - now_ns, interval_ns);
        }
        match (now_ns - next_ns).checked_rem(interval_ns) {
            Some(past) => (interval_ns - past, interval_ns),
            None => (0, 0),
        }
    }

    /// Returns how many times it has expired since it was last read.
    fn expirations(&self, now_ns: u64) -> u64 {
        match self.setting.get() {
            Some(Setting { next_ns, interval_ns }) if now_ns >= next_ns => {
                (now_ns - next_ns).checked_div(interval_ns).unwrap_or(0).saturating_add(1)
            }
            _ => 0,
        }
    }
}

impl File for TimerFd {
    fn read(&self, cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let out = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let count = self.expirations(cx.monotonic_ns);
        let Some(setting) = self.setting.get().filter(|_| count > 0) else { return Err(Errno::EAGAIN) };
        out.copy_from_slice(&count.to_ne_bytes());
        self.setting.set((setting.interval_ns > 0).then(|| Setting {
            next_ns: setting.next_ns.saturating_add(setting.interval_ns.saturating_mul(count)),
            ..setting
        }));
        self.changed.wake_all();
        Ok(8)
    }

    fn has_position(&self) -> bool {
        false
    }

    /// As on Linux, the position can be set, and stays 0.
    fn seek(&self, _to: SeekFrom) -> Option<Result<u64, Errno>> {
        Some(Ok(0))
    }

    fn readiness(&self, cx: &FsContext<'_>) -> Readiness {
        if self.expirations(cx.monotonic_ns) > 0 { Readiness::READABLE } else { Readiness::empty() }
    }

    fn ready_at_ns(&self) -> Option<u64> {
        self.setting.get().map(|setting| setting.next_ns)
    }

    fn info(&self, cx: &FsContext<'_>) -> String {
        let (remaining_ns, interval_ns) = self.remaining(cx.monotonic_ns);
        let pair = |ns: u64| format!("({}, {})", ns / 1_000_000_000, ns % 1_000_000_000);
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 0{:o}\nit_value: {}\nit_interval: {}\n",
            self.clock,
            self.expirations(cx.monotonic_ns),
            self.flags.get(),
            pair(remaining_ns),
            pair(interval_ns),
        )
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.changed.clone()]
    }
}
