//! What the owner of a sandbox can do from outside: no program inside helps with it.
//!
//! The operator is whoever holds the [`Kernel`]: it launches programs ([`Stdio`] says what their descriptors are),
//! sends signals, reads and writes files, lists processes, and forks the whole sandbox. Everything happens
//! between two turns of the run loop, as the superuser, and nothing here waits.

mod files;
mod fork;
mod processes;
mod programs;
#[cfg(test)]
mod tests;

pub use files::{Depth, Entry, FileFacts, MAX_CHUNK, Parents, WriteMode};
pub use fork::ForkError;
pub use processes::ProcessSummary;
pub use programs::{LaunchError, Launched, Stdio, StreamReader, StreamWriter};

use crate::task::{Credentials, Tid};
use crate::vfs::FsContext;
use crate::{End, Kernel};

impl Kernel {
    /// Does something with the file system as the superuser.
    pub(crate) fn as_superuser<T>(&self, act: impl FnOnce(&FsContext<'_>) -> T) -> T {
        act(&self.fs_context_for(&Credentials::new(0, 0), Tid(0)))
    }

    /// Ends the sandbox now, whatever its programs do.
    pub fn kill_all(&mut self) {
        self.end = Some(End::Killed);
    }
}
