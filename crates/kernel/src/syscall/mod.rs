//! System calls.
//!
//! `sys_x(ctx, raw words)` decodes the arguments; what it calls does the work. [`TABLE`] lists every call of
//! Linux x86-64 with the function that serves it and how complete that is: it is the compatibility
//! statement, from which `docs/syscalls.md` is made.
//!
//! A call that can not finish answers [`Stop::Block`] and is made again, from the start and with the same
//! arguments, when the task wakes; what it must remember meanwhile it keeps in the task's [`Call`].

mod control;
mod ctx;
mod dispatch;
mod event;
mod exec;
mod fd;
mod file_lock;
mod futex;
mod identity;
mod inotify;
mod io;
mod ipc;
mod kcmp;
mod lock;
mod memory;
mod mempolicy;
mod message;
mod mqueue;
mod multicast;
mod netlink;
mod owner;
mod packet;
mod path;
mod pidfd;
mod poll;
mod prctl;
mod priority;
mod process;
mod random;
mod rseq;
mod schedule;
mod signal;
mod signalfd;
mod socket;
mod sockopt;
mod stat;
mod system;
mod table;
mod time;
mod timer;
mod xattr;

pub use ctx::Ctx;
pub use random::fill_random;
pub use system::{RELEASE, VERSION};
pub use table::{ArgKind, Handler, Row, Support, TABLE, row};

#[expect(unused_imports, reason = "named by the documentation above")]
use crate::task::{Call, Stop};
