//! Time: clocks, timers, and the vDSO's view of both.

mod clock;
mod pause;
mod timers;

pub use clock::{Clock, ClockId, VdsoTime};
pub(crate) use clock::{process_cpu_ns, thread_cpu_ns};
pub use timers::{IntervalTimer, IntervalTimers, Timer, Timers};
