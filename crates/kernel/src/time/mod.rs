//! Time: clocks, timers, and the vDSO's view of both.

mod clock;
mod pause;
mod posix;
mod timers;

pub use clock::{Clock, ClockId, VdsoTime};
pub(crate) use clock::{process_cpu_ns, thread_cpu_ns};
pub(crate) use posix::MAX_POSIX_TIMERS;
pub use posix::{Notify, PosixTimers, TimerClock};
pub use timers::{IntervalTimer, IntervalTimers, Timer, Timers};
