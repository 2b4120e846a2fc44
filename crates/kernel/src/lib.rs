//! A Linux-compatible kernel in safe Rust that runs outside the virtual machine.
//!
//! Programs run at user level on a [`lg_platform::Platform`]; each system call, page fault and exception
//! comes here. The kernel is a uniprocessor kernel on one host thread: no locks, no data races.
//!
//! [`Kernel::run`] is the main loop. The rooms: [`mm`] memory, [`task`] threads and processes, [`signal`],
//! [`vfs`] names and open files, [`fs`] file systems, [`net`] sockets, [`ipc`] System V
//! IPC, [`time`] clocks and timers, [`syscall`] the system-call table and its families, [`operator`] what the
//! sandbox's owner can do from outside.
//!
//! The guest is hostile. Every number it passes is checked; it gets an errno, a signal or its own end.

pub mod fs;
mod futex;
mod identity;
mod idle;
pub mod ipc;
mod kernel;
mod limits;
mod loader;
pub mod mm;
pub mod net;
pub mod operator;
mod proc;
mod run;
pub mod signal;
mod stats;
pub mod syscall;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
mod trace;
mod vdso;
pub mod vfs;

pub use identity::{Identity, IdentityError};
pub use kernel::{FirstProgram, Kernel, KernelConfig, StartError};
pub use lg_abi::{Errno, Signal};
pub use limits::{Limit, LimitError, LimitReached, Limits, Resource, Usage};
pub use run::{End, KernelError, Supervisor};
pub use stats::{CallStats, Stats};

/// Bytes in a page of memory.
pub const PAGE_BYTES: u64 = lg_platform::PAGE_SIZE as u64;
