//! Time: clocks, timers, and the vDSO's view of both.

mod clock;
mod pause;
mod timers;

pub(crate) use clock::thread_cpu_ns;
pub use clock::{Clock, ClockId, VdsoTime};
pub use timers::{IntervalTimer, IntervalTimers, Timer, Timers};
