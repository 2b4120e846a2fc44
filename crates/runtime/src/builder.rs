//! What to start and how its streams are connected: [`SandboxBuilder`].

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use lg_control::{Access, Image, SandboxSpec, SyscallTrace, User};

use crate::{Launcher, Sandbox, SpawnError};

/// What one of the guest's standard streams is connected to.
#[derive(Debug, Default)]
pub enum Stream {
    /// Nothing: end of file, or thrown away.
    #[default]
    Null,
    /// The same stream of this process.
    Inherit,
    /// A pipe, found as a field of the [`Sandbox`].
    Piped,
    /// This descriptor.
    Descriptor(OwnedFd),
}

impl Stream {
    /// The guest's end, and for [`Stream::Piped`] the end that stays here.
    pub(crate) fn into_output(self, inherited: &impl AsFd) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        Ok(match self {
            Self::Null => (File::options().write(true).open("/dev/null")?.into(), None),
            Self::Inherit => (inherited.as_fd().try_clone_to_owned()?, None),
            Self::Piped => {
                let (reader, writer) = io::pipe()?;
                (writer.into(), Some(reader.into()))
            }
            Self::Descriptor(descriptor) => (descriptor, None),
        })
    }

    /// The guest's end, and for [`Stream::Piped`] the end that stays here.
    pub(crate) fn into_input(self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        Ok(match self {
            Self::Null => (File::open("/dev/null")?.into(), None),
            Self::Inherit => (io::stdin().as_fd().try_clone_to_owned()?, None),
            Self::Piped => {
                let (reader, writer) = io::pipe()?;
                (reader.into(), Some(writer.into()))
            }
            Self::Descriptor(descriptor) => (descriptor, None),
        })
    }
}

/// Collects what a sandbox shall be; [`spawn`](Self::spawn) starts it. The three streams are [`Stream::Null`]
/// unless they are set.
#[derive(Debug)]
pub struct SandboxBuilder {
    pub(crate) spec: SandboxSpec,
    pub(crate) launcher: Launcher,
    pub(crate) stdin: Stream,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    /// Whether nothing needs to run.
    pub(crate) is_empty_allowed: bool,
}

impl From<SandboxSpec> for SandboxBuilder {
    fn from(spec: SandboxSpec) -> Self {
        Self {
            spec,
            launcher: Launcher::default(),
            stdin: Stream::Null,
            stdout: Stream::Null,
            stderr: Stream::Null,
            is_empty_allowed: false,
        }
    }
}

impl SandboxBuilder {
    fn map(mut self, change: impl FnOnce(SandboxSpec) -> SandboxSpec) -> Self {
        self.spec = change(self.spec);
        self
    }

    /// Sets the binary that becomes the vmm.
    #[must_use]
    pub fn launcher(mut self, launcher: Launcher) -> Self {
        self.launcher = launcher;
        self
    }

    /// Lets the sandbox begin with nothing that runs, where its spec has no command: programs are launched in it with
    /// [`Sandbox::program`], and it lasts until it is killed. The three streams are not used then.
    #[must_use]
    pub fn without_program(mut self) -> Self {
        self.is_empty_allowed = true;
        self
    }

    /// Sets the guest's standard input.
    #[must_use]
    pub fn stdin(mut self, stream: Stream) -> Self {
        self.stdin = stream;
        self
    }

    /// Sets the guest's standard output.
    #[must_use]
    pub fn stdout(mut self, stream: Stream) -> Self {
        self.stdout = stream;
        self
    }

    /// Sets the guest's standard error.
    #[must_use]
    pub fn stderr(mut self, stream: Stream) -> Self {
        self.stderr = stream;
        self
    }

    /// Sets the root file system.
    #[must_use]
    pub fn image(self, image: Image) -> Self {
        self.map(|spec| spec.image(image))
    }

    /// Shows the host's `source` at the guest's `target`.
    #[must_use]
    pub fn mount(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access) -> Self {
        self.map(|spec| spec.mount(source, target, access))
    }

    /// Sets one variable of the guest's environment.
    #[must_use]
    pub fn env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.map(|spec| spec.env(name, value))
    }

    /// Sets the working directory.
    #[must_use]
    pub fn workdir(self, workdir: impl Into<PathBuf>) -> Self {
        self.map(|spec| spec.workdir(workdir))
    }

    /// Sets the host name.
    #[must_use]
    pub fn hostname(self, hostname: impl Into<String>) -> Self {
        self.map(|spec| spec.hostname(hostname))
    }

    /// Sets the user inside the sandbox.
    #[must_use]
    pub fn user(self, user: User) -> Self {
        self.map(|spec| spec.user(user))
    }

    /// Sets the memory limit in bytes.
    #[must_use]
    pub fn memory_bytes(self, memory_bytes: u64) -> Self {
        self.map(|spec| spec.memory_bytes(memory_bytes))
    }

    /// Sets the most processes at one time.
    #[must_use]
    pub fn max_processes(self, max_processes: u32) -> Self {
        self.map(|spec| spec.max_processes(max_processes))
    }

    /// Sets the deadline.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|spec| spec.timeout(timeout))
    }

    /// Sets the tracing of system calls to the guest's standard error.
    #[must_use]
    pub fn syscall_trace(self, trace: SyscallTrace) -> Self {
        self.map(|spec| spec.syscall_trace(trace))
    }

    /// Leaves out a wall of the vmm's jail, see [`SandboxSpec::without_wall`].
    #[must_use]
    pub fn without_wall(self, wall: lg_control::Wall) -> Self {
        self.map(|spec| spec.without_wall(wall))
    }

    /// Starts the sandbox and waits until its first instruction is about to run. Needs a tokio context with I/O and time.
    ///
    /// # Errors
    /// See [`SpawnError`]. Nothing is left behind then.
    pub async fn spawn(self) -> Result<Sandbox, SpawnError> {
        Sandbox::spawn(self).await
    }
}
