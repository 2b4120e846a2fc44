//! Forking the whole sandbox: the host process is forked, and with it guest memory, page tables and every
//! structure of this kernel.
//!
//! ```text
//!   operator                              child process
//!   prepare_fork()
//!   seal()          (templates only)
//!   fork(2)  ---------------------------> after_fork()   before any guest instruction
//!   goes on                               goes on
//! ```

use std::any::Any;
use std::rc::Rc;

use lg_abi::{SigInfo, Signal};
use lg_platform::PlatformError;

use crate::Kernel;
use crate::fs::hostio::HostStream;
use crate::signal::{Disposition, SignalTarget};
use crate::task::{Process, TaskState, Tid};
use crate::vfs::File;

/// Why a sandbox can not be forked, or not go on after it.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The platform failed.
    #[error("the virtual machine cannot be forked")]
    Platform(#[from] PlatformError),
    /// The memory could not be moved to where forks share it.
    #[error("cannot seal the memory of the template")]
    Seal(#[source] std::io::Error),
}

impl Kernel {
    /// Takes all lazy state out of the platform. The host process may be forked until guest code runs again.
    pub fn prepare_fork(&mut self) -> Result<(), ForkError> {
        Ok(self.unload()?)
    }

    /// Makes the sandbox a template: its memory moves to where forks share it, and the virtual machine is given up.
    /// Nothing runs any more in this process until [`Kernel::after_fork`].
    ///
    /// Errors: what failed. The sandbox is over then: its memory may have moved half-way.
    pub fn seal(&mut self) -> Result<(), ForkError> {
        self.prepare_fork()?;
        self.freeze_clock();
        self.frames.give_back();
        let used = self.frames.used_ranges();
        let result = self.machine.borrow_mut().seal(&used);
        result.map_err(|error| {
            self.kill_all();
            ForkError::Seal(error)
        })
    }

    /// Begins a rehearsal of what forks will do first. What it touches until [`Kernel::seal`], forks are given at once.
    ///
    /// Errors: as of [`Kernel::seal`].
    pub fn rehearse(&mut self) -> Result<(), ForkError> {
        self.prepare_fork()?;
        self.frames.give_back();
        let used = self.frames.used_ranges();
        let result = self.machine.borrow_mut().observe(&used);
        result.map_err(|error| {
            self.kill_all();
            ForkError::Platform(error)
        })
    }

    /// Makes the kernel the forked process's own: a new virtual machine over the same memory. Streams that lead to
    /// the host are detached: programs read the end of the file from them, and what they write is thrown away.
    pub fn after_fork(&mut self) -> Result<(), ForkError> {
        self.machine.borrow_mut().revive_after_fork()?;
        self.detach_host_streams();
        Ok(())
    }

    /// Sends a signal to every process that has a handler for it.
    pub fn signal_handlers(&mut self, signal: Signal) {
        let handles = |process: &&Process| {
            let task = process.threads.first().and_then(|tid| self.tasks.get(tid));
            task.is_some_and(|task| {
                matches!(task.actions.borrow().disposition(signal), Disposition::Handle(_))
            })
        };
        let processes: Vec<Tid> =
            self.processes.values().filter(handles).map(|process| process.tgid).collect();
        for process in processes {
            let info = SigInfo::new(signal, SigInfo::SI_KERNEL);
            self.send_signal(SignalTarget::Process(process), signal, info);
        }
    }

    fn detach_host_streams(&mut self) {
        // Open files may also be on their way between processes.
        let mut files = self.vfs.net().files_in_flight();
        for task in self.tasks.values() {
            let fds = task.fds.borrow();
            files.extend(fds.fds().into_iter().filter_map(|fd| fds.get(u64::from(fd)).ok()));
        }
        for description in files {
            let file: Rc<dyn File> = description.file.clone();
            let any: Rc<dyn Any> = file;
            if let Ok(stream) = any.downcast::<HostStream>() {
                stream.detach();
            }
        }
        // Who waits for the host looks again, and finds the stream detached.
        for task in self.tasks.values() {
            if let TaskState::Sleeping(sleep) = &task.state
                && !sleep.wait.host.is_empty()
            {
                sleep.sleeper.wake();
            }
        }
    }
}
