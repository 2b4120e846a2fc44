//! What makes a forked sandbox another one than its template.

use lg_abi::Errno;

use crate::Kernel;
use crate::fs::host::OwnFiles;
use crate::stats::Stats;
use crate::task::{Credentials, Tid};
use crate::time::thread_cpu_ns;

/// What a fork is told to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Its host name, up to 64 bytes; `None` to keep the template's.
    pub hostname: Option<Vec<u8>>,
}

/// Why a fork can not be made another sandbox. It must not run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file that names the sandbox can not be written.
    #[error("cannot write {path} for the fork: {errno}")]
    File {
        /// The path in the sandbox.
        path: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl Kernel {
    /// Makes this kernel, in a process that has just been forked, a sandbox of its own: before any guest code
    /// runs, and after the platform has been revived. Every context was synced before the fork.
    ///
    /// - The boot id and `/etc/machine-id` are random, and the host name is the one given. The files of `/etc` that
    ///   say so are new files: who has an old one open still sees that. Where something is mounted over one, or the
    ///   guest has put a directory in its place or taken `/etc` away, it is left alone.
    /// - Areas under MADV_WIPEONFORK read as zero in every process.
    /// - CLOCK_MONOTONIC goes on from where [`Kernel::freeze_clock`] stopped it, CLOCK_REALTIME is right, and processes
    ///   have started now. Their processor time goes on, as it does for a process.
    /// - What is counted, and the deadline, starts anew.
    pub fn become_fork(&mut self, identity: Identity) -> Result<(), IdentityError> {
        crate::syscall::fill_random(&mut self.boot_id);
        self.freeze_clock();
        self.resume_clock();
        let now_ns = self.clock.monotonic_ns();
        for process in self.processes.values_mut() {
            process.started_ns = now_ns;
        }
        for task in self.tasks.values() {
            task.mm.borrow_mut().wipe_for_fork();
        }
        self.write_own_files(identity.hostname.as_deref())?;
        if let Some(hostname) = identity.hostname {
            self.hostname = hostname;
        }
        // The thread is another one, and so is its processor time.
        self.loaded = None;
        self.charged_until_ns = thread_cpu_ns();
        self.idle_since_ns = None;
        self.stats = Stats::default();
        self.restart_usage();
        Ok(())
    }

    /// Gives the sandbox another host name; the files of `/etc` that say it are written as by [`Kernel::become_fork`].
    pub fn set_hostname(&mut self, hostname: Vec<u8>) -> Result<(), IdentityError> {
        self.with_own_files(|files| files.rename_host(&hostname))?;
        self.hostname = hostname;
        Ok(())
    }

    fn write_own_files(&self, hostname: Option<&[u8]>) -> Result<(), IdentityError> {
        self.with_own_files(|files| {
            files.write_machine_id()?;
            hostname.map_or(Ok(()), |hostname| files.rename_host(hostname))
        })
    }

    fn with_own_files(
        &self,
        write: impl FnOnce(&OwnFiles<'_>) -> Result<(), (&'static str, Errno)>,
    ) -> Result<(), IdentityError> {
        let superuser = Credentials::new(0, 0);
        let cx = self.fs_context_for(&superuser, Tid(0));
        // A kernel without a root file system has no such files.
        let Ok(root) = cx.vfs.root() else { return Ok(()) };
        write(&OwnFiles::new(&cx, &root)).map_err(|(path, errno)| IdentityError::File { path, errno })
    }
}

#[cfg(test)]
mod tests;
