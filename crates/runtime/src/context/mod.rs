//! Code contexts: a Python that stays warm in a sandbox and evaluates cells, with names kept between them.
//!
//! [`message`] is the host's side of the protocol: what is sent as bytes, and what comes back as
//! [`DriverMessage`](message::DriverMessage).

#[cfg_attr(not(test), expect(dead_code, reason = "nothing starts a driver yet"))]
pub(crate) mod message;

pub use message::{CellError, Representation};
