//! The Linux x86-64 user interface: error numbers, structures that cross between user memory and the
//! kernel, and signals.
//!
//! System-call numbers and flag constants come from `linux_raw_sys`, re-exported as [`raw`]. The structures
//! here are byte-for-byte those of the kernel's headers, with padding spelt out, so that each can be copied
//! to and from user memory as plain bytes ([`zerocopy`]).

mod errno;
pub mod ipc;
mod signal;
mod structs;

pub use errno::Errno;
pub use linux_raw_sys as raw;
pub use signal::{SigInfo, SigSet, Signal};
pub use structs::*;
pub use zerocopy;
