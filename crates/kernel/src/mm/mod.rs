//! Memory of processes: frames, areas, faults and access to user memory.
//!
//! [`Frames`] hands out counted frames. A [`MemoryManager`] is one process's memory: a list of [`Vma`]s
//! that says what lies where, and an address space of the platform that holds the pages touched so far.
//! [`UserMemory`] copies bytes between the kernel and a process.
//!
//! A frame mapped in a private area is writable only while it has one owner; a store to a shared one
//! copies it first. That one rule gives copy-on-write after fork, private file mappings and their mprotect.

mod buffers;
mod fault;
mod frames;
mod frameset;
mod lock;
mod manager;
mod segments;
#[cfg(test)]
mod tests;
mod user;
mod vma;

pub use buffers::{Sink, Source, Span, UserBuffers};
pub use fault::MemoryFault;
pub use frames::{FrameRef, Frames, host_errno};
pub use lock::{Locking, Placement, whole_pages};
pub use manager::{Growth, MemoryManager, Place};
pub use user::UserMemory;
pub use vma::{Backing, SharedPages, Vma, VmaFlags};

use std::cell::RefCell;
use std::rc::Rc;

use lg_platform::Platform;

/// The platform as the kernel shares it among its parts.
pub type Machine = Rc<RefCell<Box<dyn Platform>>>;
