//! Code contexts: a Python that stays warm in a sandbox and evaluates cells, with names kept between them.
//!
//! The driver (`driver.py`, in [`PYTHON_DRIVER`]) runs in the sandbox; its header is the protocol. [`message`] is the
//! host's side of that protocol: what is sent as bytes, and what comes back as
//! [`DriverMessage`](message::DriverMessage).

#[cfg_attr(not(test), expect(dead_code, reason = "nothing starts a driver yet"))]
pub(crate) mod message;

pub use message::{CellError, Representation};

/// The source of the driver, for `python3 -c`.
///
/// It wants an empty descriptor 0, the cells' output as 1 and 2, a pipe to read requests from as 3 and one to
/// write answers to as 4.
#[doc(hidden)]
pub const PYTHON_DRIVER: &str = include_str!("driver.py");
