//! System V IPC (sysvipc(7)): shared memory, semaphores and messages that processes find by a key; and POSIX message
//! queues ([`mqueue`]).
//!
//! [`Ipc`] holds a table ([`Ids`]) for each of the three kinds. An object belongs to no process: it lives until it is
//! removed, and a shared-memory segment then until nobody has it attached. What a guest can make grow is counted:
//! segments are guest memory, messages and semaphores have totals of their own.
//!
//! | kind | object | sleeping calls |
//! |---|---|---|
//! | shared memory | [`Segment`], mapped as [`Attachment`] | none |
//! | semaphores | [`SemSet`] | [`Operation`], which whoever changes a semaphore carries out |
//! | messages | [`Queue`] | [`Receiver`], to whom a sender hands its message |

mod ends;
mod ids;
pub mod mqueue;
mod msg;
mod permission;
mod sem;
mod shm;
mod show;
mod undo;

use std::collections::BTreeMap;
use std::rc::Rc;

pub use ids::{Ids, Object};
pub use msg::{Message, Queue, Receiver, Selection};
pub use permission::{Caller, EXEC, Permission, READ, WRITE};
pub use sem::{Attempt, Awaited, Operation, SemSet};
pub use shm::{Attachment, Segment};
pub use show::Table;
pub use undo::UndoLists;

use crate::vfs::Quota;

/// The largest shared-memory segment in bytes, and most pages of all (`kernel.shmmax`, `kernel.shmall`); the memory
/// of the sandbox ends before.
pub const SHMMAX: u64 = u64::MAX - (1 << 24);
/// Most segments (`kernel.shmmni`).
pub const SHMMNI: usize = 4096;
/// Most semaphores in a set (SEMMSL).
pub const SEMMSL: u32 = 32_000;
/// Most semaphores in all (SEMMNS). Linux allows a milliard, but they are memory of the kernel.
pub const SEMMNS: u64 = 256_000;
/// Most operations in a semop(2) (SEMOPM).
pub const SEMOPM: u64 = 500;
/// Most sets (SEMMNI).
pub const SEMMNI: usize = 32_000;
/// The largest value of a semaphore, and of an adjustment at exit (SEMVMX, SEMAEM).
pub const SEMVMX: i32 = 32_767;
/// Bytes in the longest message (`kernel.msgmax`).
pub const MSGMAX: u64 = 8192;
/// Bytes in a queue, unless it is told otherwise (`kernel.msgmnb`).
pub const MSGMNB: u64 = 16_384;
/// Most queues (`kernel.msgmni`).
pub const MSGMNI: usize = 32_000;
/// Adjustments at exit, over all processes: what SEMMNU bounds.
const UNDO_TOTAL: u64 = 256_000;
/// Bytes that messages may take in all, each with its bookkeeping.
const MESSAGE_TOTAL: u64 = 16 << 20;

/// The System V IPC objects of a sandbox.
pub struct Ipc {
    /// Shared-memory segments.
    pub shm: Ids<Segment>,
    /// Semaphore sets.
    pub sem: Ids<SemSet>,
    /// Message queues.
    pub msg: Ids<Queue>,
    /// What semop(2) will undo when processes end.
    pub undo: UndoLists,
    /// POSIX message queues by name, without a slash.
    pub queues: BTreeMap<Vec<u8>, Rc<mqueue::MqQueue>>,
    /// Bytes of these queues by user.
    pub charges: mqueue::Charges,
    /// Pages of all segments.
    pub shm_pages: Rc<Quota>,
    /// Semaphores of all sets.
    pub semaphores: Rc<Quota>,
    /// Bytes of all messages.
    pub message_bytes: Rc<Quota>,
}

impl Default for Ipc {
    fn default() -> Ipc {
        Ipc {
            shm: Ids::new(SHMMNI),
            sem: Ids::new(SEMMNI),
            msg: Ids::new(MSGMNI),
            undo: UndoLists::new(UNDO_TOTAL),
            queues: BTreeMap::new(),
            charges: mqueue::Charges::default(),
            shm_pages: Rc::new(Quota::new(SHMMAX)),
            semaphores: Rc::new(Quota::new(SEMMNS)),
            message_bytes: Rc::new(Quota::new(MESSAGE_TOTAL)),
        }
    }
}

#[cfg(test)]
mod tests;
