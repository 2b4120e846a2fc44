//! Signals: who sends what to whom, and what becomes of it.
//!
//! Sending puts a signal in the queue of a thread or a process and wakes a thread that can take it. A
//! thread takes signals just before it returns to user code ([`crate::Kernel::take_signals`]).

mod actions;
mod deliver;
mod float;
mod frame;
mod pending;
mod send;

pub use actions::{DefaultAction, Disposition, SignalActions};
pub(crate) use float::floating_point_code;
pub(crate) use frame::on_alt_stack;
pub use pending::Pending;
pub use send::{Sent, SignalTarget};
