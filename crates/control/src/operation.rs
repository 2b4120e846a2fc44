//! What requests carry and what is answered: programs, files, processes, forks, faults.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{check_path, validate_strings};
use crate::{Limits, SpecError, Stats, User};

/// The most descriptors that a program is launched with.
pub const MAX_STDIO: usize = 16;

/// What one descriptor of a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// `/dev/null` of the guest.
    Null,
    /// A pipe that [`crate::Request::WriteStream`] fills.
    In,
    /// A pipe whose contents come as [`crate::Event::Output`].
    Out,
    /// A terminal of that size: [`crate::Request::WriteStream`] types, and what is to be shown, echo included, comes as
    /// [`crate::Event::Output`], both with the number of this descriptor. The first one of a program is its controlling
    /// terminal.
    Terminal(Terminal),
    /// A descriptor of the host that comes along with the request. Forks of the sandbox do not have it: there
    /// reads find the end of the file, and what is written is thrown away.
    Descriptor,
    /// The same as an earlier descriptor of the program.
    Same(u32),
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Terminal {
    /// Its height in characters; 0 if it is not known.
    pub rows: u16,
    /// Its width in characters; 0 if it is not known.
    pub columns: u16,
}

impl Default for Terminal {
    /// 24 rows of 80 columns.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// A program to launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program, looked up in the `PATH` of `env` unless it has a slash, and its arguments.
    pub command: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    #[serde(with = "crate::spec::path_as_os_string")]
    pub workdir: PathBuf,
    /// Who it runs as.
    pub user: User,
    /// Its descriptors 0, 1, 2…, at most [`MAX_STDIO`].
    pub stdio: Vec<Stdio>,
}

impl Program {
    /// How many descriptors come along with it.
    pub fn descriptors(&self) -> usize {
        self.stdio.iter().filter(|stdio| **stdio == Stdio::Descriptor).count()
    }

    /// Checks everything that can be checked without looking into the guest.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.command.first().is_none_or(|program| program.is_empty()) {
            return Err(SpecError::NoCommand);
        }
        validate_strings(&self.command, &self.env)?;
        check_path("working directory", &self.workdir)?;
        if self.stdio.len() > MAX_STDIO {
            return Err(SpecError::TooManyDescriptors { count: self.stdio.len() });
        }
        let later =
            |(index, stdio): (usize, &Stdio)| matches!(stdio, Stdio::Same(fd) if *fd as usize >= index);
        if self.stdio.iter().enumerate().any(later) {
            return Err(SpecError::LaterDescriptor);
        }
        Ok(())
    }
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalScope {
    /// The process.
    Process,
    /// Every process of its group.
    Group,
    /// It and all that descend from it; the signal must be SIGKILL.
    Tree,
}

/// Whether a file that is written may or must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteMode {
    /// It is made, or emptied.
    Replace,
    /// It must not be there.
    New,
    /// It must be there; the rest of it stays.
    Into,
}

/// What a fork is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ForkSpec {
    /// Its host name; `None`: that of the original.
    pub hostname: Option<String>,
    /// Its limits, where they differ from the original's.
    pub limits: Limits,
    /// The signal that tells its processes that they are a fork: each one that has a handler for it gets it before
    /// anything else runs.
    pub notify: Option<u8>,
    /// The host's processors it runs on; `None`: those of the original.
    pub cpus: Option<Vec<u16>>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this status.
    Exited(u8),
    /// This signal ended it.
    Signaled(u8),
}

impl ExitStatus {
    /// Whether it exited with status 0.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The answer to a request that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The program runs.
    Started {
        /// Its process.
        process: u32,
    },
    /// The chunk of a file.
    Bytes(Vec<u8>),
    /// What is at a path.
    File(FileFacts),
    /// Entries of a directory.
    Entries {
        /// In no particular order.
        entries: Vec<DirEntry>,
        /// Where to go on, if there are more.
        next: Option<u64>,
    },
    /// The processes, in the order of their numbers.
    Processes(Vec<ProcessInfo>),
    /// What has been used so far.
    Stats(Box<Stats>),
    /// The sandbox is a template now.
    Frozen {
        /// Guest memory in use, in bytes.
        memory_bytes: u64,
    },
}

/// What is at a path of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// File type and permission bits, as in stat(2).
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents, in nanoseconds since 1970.
    pub modified_ns: u64,
    /// Where a symbolic link leads.
    pub link: Option<Vec<u8>>,
}

/// One entry of a directory of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its type, as in the mode of stat(2).
    pub file_type: u32,
}

/// A process of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its number.
    pub pid: u32,
    /// Its parent's; 1 where nobody in the guest is.
    pub parent: u32,
    /// The letter of its state, as in proc_pid_stat(5).
    pub state: char,
    /// How many threads it has.
    pub threads: u32,
    /// Its arguments, each with its NUL; its name where it has none.
    pub command: Vec<u8>,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// The processor time that it has used.
    pub cpu_time: Duration,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind of failure it was.
    pub kind: FaultKind,
    /// One lower-case line that says what failed.
    pub message: String,
}

/// The kinds of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FaultKind {
    /// The guest's kernel refuses, with this errno of Linux.
    Errno(i32),
    /// The request breaks a rule of the protocol.
    Invalid,
    /// It is not possible in the state that the sandbox is in.
    State,
    /// The program can not be started.
    Start(crate::StartFailureKind),
    /// A limit can not be had.
    Limit,
    /// The host failed.
    Host,
}

impl Fault {
    /// A fault with a message.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
