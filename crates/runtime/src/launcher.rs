//! How a vmm process is started: [`Launcher`].

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::cgroup::Cgroup;
use crate::namespace::Namespace;
use crate::process::VmmProcess;

/// The program that becomes the vmm of a sandbox.
///
/// It is started with the control socket as its standard input, see `lg_control`, and with one end of a pipe as its
/// standard output, whose other end closes when it and all its forks are to be over.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    args: Vec<OsString>,
    cgroup: Option<Arc<Cgroup>>,
}

impl Launcher {
    /// A vmm started as `program args...`.
    pub fn new<I, S>(program: impl Into<PathBuf>, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self { program: program.into(), args: args.into_iter().map(Into::into).collect(), cgroup: None }
    }

    /// The binary of this very process, with the hidden subcommand `vmm`. It stays the same binary when the file
    /// is replaced meanwhile.
    pub fn current_exe() -> Self {
        Self::new("/proc/self/exe", ["vmm"])
    }

    /// Starts vmms in this control group of the host.
    #[must_use]
    pub fn cgroup(mut self, cgroup: Arc<Cgroup>) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// Starts the process. Its environment is empty: nothing of this process's environment reaches a vmm. Traces of
    /// system calls go to this process's standard error.
    pub(crate) fn start(&self, control: OwnedFd) -> io::Result<Namespace> {
        let (lifeline, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .stdin(control)
            .stdout(lifeline)
            .stderr(Stdio::inherit())
            .spawn()?;
        let namespace = Namespace::new(VmmProcess::new(child.id())?, ours);
        if let Some(cgroup) = &self.cgroup {
            // It waits for its first message, so nothing of it is outside.
            cgroup.add(child.id()).map_err(io::Error::other)?;
        }
        Ok(namespace)
    }
}

impl Default for Launcher {
    /// `luminaguard vmm`, with `luminaguard` looked up in `PATH`.
    fn default() -> Self {
        Self::new("luminaguard", ["vmm"])
    }
}
