//! How a sandbox ended and what it cost: [`Report`], [`Outcome`] and [`Stats`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Wall;

/// The exit status of `luminaguard run` when the deadline ended the program.
pub const EXIT_TIMED_OUT: u8 = 124;
/// The exit status when LuminaGuard itself failed.
pub const EXIT_LUMINAGUARD: u8 = 125;
/// The exit status when the program was found but cannot be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The exit status when the program was not found.
pub const EXIT_NOT_FOUND: u8 = 127;

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The first program exited with this status.
    Exited(u8),
    /// This signal ended the first program.
    Signaled(u8),
    /// The deadline ended the sandbox.
    TimedOut,
    /// A limit ended the sandbox: which, in one word.
    LimitReached(String),
    /// Somebody asked for the end: [`crate::Request::Kill`], or the control socket was closed.
    Killed,
    /// No guest instruction ran.
    StartFailed(StartFailure),
    /// The sandbox ended for a reason outside the program: one lower-case line that says which.
    Failed(String),
}

/// Why a sandbox did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// What kind of failure it was.
    pub kind: StartFailureKind,
    /// One lower-case line that says what failed, on what, and what to do about it.
    pub message: String,
}

/// The kinds of [`StartFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StartFailureKind {
    /// The program does not exist in the guest.
    NotFound,
    /// The program exists but is a directory, has no execute permission, or is not a format the guest can run.
    NotExecutable,
    /// The image cannot be used.
    Image,
    /// A mount cannot be made.
    Mount,
    /// The working directory does not exist or is not a directory.
    Workdir,
    /// The memory for the guest cannot be had, or does not hold the program.
    Memory,
    /// The host has no usable virtual machines.
    Kvm,
    /// A limit or protection that was asked for cannot be enforced.
    Policy,
    /// The spec itself is not valid.
    Spec,
    /// The host has no process or thread left, for this user or in this control group.
    Processes,
    /// The host has no descriptor left.
    Descriptors,
}

impl Outcome {
    /// A start failure with a message.
    pub fn start_failed(kind: StartFailureKind, message: impl Into<String>) -> Self {
        Self::StartFailed(StartFailure { kind, message: message.into() })
    }

    /// The exit status that `luminaguard run` gives for it: the program's own, 128+n for a signal, 124 for the
    /// deadline, 137 when killed, 126 and 127 for a program that cannot run or is not there, else 125.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Exited(code) => *code,
            Self::Signaled(signal) => 128u8.saturating_add(*signal),
            Self::TimedOut => EXIT_TIMED_OUT,
            Self::LimitReached(_) | Self::Killed => 137,
            Self::StartFailed(StartFailure { kind: StartFailureKind::NotFound, .. }) => EXIT_NOT_FOUND,
            Self::StartFailed(StartFailure { kind: StartFailureKind::NotExecutable, .. }) => {
                EXIT_NOT_EXECUTABLE
            }
            Self::StartFailed(_) | Self::Failed(_) => EXIT_LUMINAGUARD,
        }
    }

    /// Whether the program ran to its end and exited with status 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited(0))
    }

    /// The one line that says why the sandbox failed, where it was LuminaGuard's or the host's doing.
    pub fn failure_message(&self) -> Option<&str> {
        match self {
            Self::StartFailed(failure) => Some(&failure.message),
            Self::Failed(message) => Some(message),
            _ => None,
        }
    }
}

/// What a sandbox reports when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What it cost.
    pub stats: Stats,
}

/// Exits from guest code to the kernel, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    /// System calls.
    pub syscalls: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Other exceptions.
    pub exceptions: u64,
    /// Interruptions: time slices and signals of the host.
    pub interrupts: u64,
}

impl Exits {
    /// All exits together.
    pub fn total(&self) -> u64 {
        self.syscalls
            .saturating_add(self.page_faults)
            .saturating_add(self.exceptions)
            .saturating_add(self.interrupts)
    }
}

/// How often one system call was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallCount {
    /// Its name, as in `man 2`.
    pub name: String,
    /// How often it was made.
    pub count: u64,
    /// How often it answered an error.
    pub errors: u64,
}

/// What a sandbox cost. Times are in nanoseconds of wall clock unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Exits by kind.
    pub exits: Exits,
    /// System calls that were answered without an exit.
    pub polled_syscalls: u64,
    /// System calls by name, the most frequent first.
    pub syscalls: Vec<SyscallCount>,
    /// System calls that the kernel does not have (they answered ENOSYS), with how often each was made.
    pub unsupported_syscalls: BTreeMap<String, u64>,
    /// The most guest memory in use at one time, in bytes.
    pub peak_memory_bytes: u64,
    /// The most memory of the guest's page tables at one time, in bytes.
    pub page_table_bytes: u64,
    /// The most processes and threads at one time.
    pub peak_processes: u64,
    /// The most open files at one time.
    pub peak_open_files: u64,
    /// The most bytes that files held in memory at one time.
    pub peak_file_bytes: u64,
    /// Bytes that programs wrote to streams that lead outside.
    pub output_bytes: u64,
    /// Processes and threads that were created, the first one included.
    pub processes_created: u64,
    /// CPU time of the vmm process, user and system together, guest code included.
    pub cpu_time_ns: u64,
    /// From the start of the vmm's work until the first guest instruction.
    pub spawn_ns: u64,
    /// From the first guest instruction until the end of the program.
    pub wall_ns: u64,
    /// From the end of the program until the VM and its memory were given back.
    pub cleanup_ns: u64,
    /// The walls of the vmm's jail that stand.
    pub walls: Vec<Wall>,
}
