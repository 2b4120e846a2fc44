//! The sandbox's clocks.

use lg_platform::Tsc;
use rustix::time::{ClockId as HostClock, clock_gettime};

use crate::mm::Machine;

/// Which clock (clock_gettime(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockId {
    /// Time since 1970.
    Realtime,
    /// Time since the sandbox started.
    Monotonic,
    /// Processor time of the process.
    ProcessCpu,
    /// Processor time of the thread.
    ThreadCpu,
    /// Processor time of the process with this number (clock_getcpuclockid(3)); 0 is the caller's.
    ProcessCpuOf(u32),
    /// Processor time of a thread of the caller's process (pthread_getcpuclockid(3)); 0 is the caller.
    ThreadCpuOf(u32),
}

impl ClockId {
    /// Returns the clock of that number, or `None` where it is none of ours.
    pub fn new(number: u64) -> Option<ClockId> {
        // CLOCK_TAI (11) has no offset set, as on most machines.
        Some(match number as i32 {
            0 | 5 | 8 | 11 => ClockId::Realtime,
            1 | 4 | 6 | 7 | 9 => ClockId::Monotonic,
            2 => ClockId::ProcessCpu,
            3 => ClockId::ThreadCpu,
            // A complemented number of a process or thread, and three bits for what is meant (posix-timers.h). Bits
            // 0 and 1 choose user or all time, which is the same here; together they are for descriptors.
            number if number < 0 && number & 3 != 3 => {
                let id = !(number >> 3) as u32;
                if number & 4 == 0 { ClockId::ProcessCpuOf(id) } else { ClockId::ThreadCpuOf(id) }
            }
            _ => return None,
        })
    }
}

/// The parameters with which the vDSO turns the time-stamp counter into time:
/// `ns = ((tsc - base) * mult) >> 32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VdsoTime {
    /// The counter when the monotonic clock was 0.
    pub base: u64,
    /// Nanoseconds a tick, times 2^32.
    pub mult: u64,
    /// CLOCK_REALTIME when the monotonic clock was 0, in ns.
    pub realtime_base_ns: u64,
}

/// The clocks of one sandbox. They start when it does.
pub struct Clock {
    machine: Machine,
    vdso: Option<VdsoTime>,
    /// The host's CLOCK_MONOTONIC when ours was 0.
    host_base_ns: u64,
    realtime_base_ns: u64,
    /// What CLOCK_MONOTONIC shows while it stands still, in ns.
    frozen_ns: Option<u64>,
}

impl Clock {
    /// Starts the clocks.
    pub fn start(machine: &Machine) -> Clock {
        let host_base_ns = host_ns(HostClock::Monotonic);
        let realtime_base_ns = host_ns(HostClock::Realtime);
        let vdso = machine.borrow().tsc().filter(|tsc| tsc.khz > 0).map(|Tsc { ticks, khz }| VdsoTime {
            base: ticks,
            mult: (1_000_000u64 << 32) / khz,
            realtime_base_ns,
        });
        Clock { machine: machine.clone(), vdso, host_base_ns, realtime_base_ns, frozen_ns: None }
    }

    /// Returns what the vDSO needs, or `None` where the time-stamp counter is no clock.
    pub fn vdso(&self) -> Option<VdsoTime> {
        self.vdso
    }

    /// Returns CLOCK_MONOTONIC of the sandbox in ns: the very number that the vDSO reckons.
    pub fn monotonic_ns(&self) -> u64 {
        if let Some(frozen_ns) = self.frozen_ns {
            return frozen_ns;
        }
        match (self.vdso, self.machine.borrow().tsc()) {
            (Some(vdso), Some(tsc)) => {
                let ticks = tsc.ticks.saturating_sub(vdso.base);
                ((u128::from(ticks) * u128::from(vdso.mult)) >> 32) as u64
            }
            _ => host_ns(HostClock::Monotonic).saturating_sub(self.host_base_ns),
        }
    }

    /// Makes CLOCK_MONOTONIC stand still. No guest code may run: the vDSO does not know.
    pub fn freeze(&mut self) {
        self.frozen_ns = Some(self.monotonic_ns());
    }

    /// Lets CLOCK_MONOTONIC go on from where it stands and sets CLOCK_REALTIME to the host's. Says whether it stood
    /// still; if so, what [`Clock::vdso`] returns has changed.
    pub fn resume(&mut self) -> bool {
        let Some(frozen_ns) = self.frozen_ns.take() else { return false };
        self.host_base_ns = host_ns(HostClock::Monotonic).saturating_sub(frozen_ns);
        self.realtime_base_ns = host_ns(HostClock::Realtime).saturating_sub(frozen_ns);
        if let (Some(vdso), Some(tsc)) = (&mut self.vdso, self.machine.borrow().tsc()) {
            // Rounded up, so that the clock never shows less than it did.
            let passed = (u128::from(frozen_ns) << 32).div_ceil(u128::from(vdso.mult));
            vdso.base = tsc.ticks.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX));
            vdso.realtime_base_ns = self.realtime_base_ns;
        }
        true
    }

    /// Returns CLOCK_REALTIME in ns.
    pub fn realtime_ns(&self) -> u64 {
        self.monotonic_ns().saturating_add(self.realtime_base_ns)
    }

    /// Returns CLOCK_REALTIME when CLOCK_MONOTONIC was 0, in ns.
    pub fn boot_realtime_ns(&self) -> u64 {
        self.realtime_base_ns
    }

    /// Turns a time on our CLOCK_MONOTONIC into one on the host's.
    pub fn to_host_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add(self.host_base_ns)
    }
}

/// Returns the processor time that this host thread has used, in ns.
pub(crate) fn thread_cpu_ns() -> u64 {
    host_ns(HostClock::ThreadCPUTime)
}

/// Returns the processor time that this host process has used with all its threads, in ns.
pub(crate) fn process_cpu_ns() -> u64 {
    host_ns(HostClock::ProcessCPUTime)
}

fn host_ns(clock: HostClock) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
