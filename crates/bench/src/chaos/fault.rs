//! The faults by name: [`FaultKind`].

use std::fmt;

use serde::{Serialize, Serializer};

/// What is done to the host of the agents, or to a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// SIGKILL to a vmm.
    KillVmm,
    /// SIGSTOP to a vmm, and SIGCONT a while later.
    StopVmm,
    /// SIGKILL to the vmm of the template.
    KillTemplate,
    /// SIGKILL to a whole runtime.
    KillRuntime,
    /// Memory of the host is taken, and a guest wants more than its limit.
    MemoryPressure,
    /// The disk for results is full.
    FullDisk,
    /// Every core has something else to do.
    BusyHost,
}

impl FaultKind {
    /// All of them, in the order of their tables.
    pub const ALL: [Self; 7] = [
        Self::KillVmm,
        Self::StopVmm,
        Self::KillTemplate,
        Self::KillRuntime,
        Self::MemoryPressure,
        Self::FullDisk,
        Self::BusyHost,
    ];

    /// Its name on the command line and in result files.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillVmm => "kill-vmm",
            Self::StopVmm => "stop-vmm",
            Self::KillTemplate => "kill-template",
            Self::KillRuntime => "kill-runtime",
            Self::MemoryPressure => "memory-pressure",
            Self::FullDisk => "full-disk",
            Self::BusyHost => "busy-host",
        }
    }

    /// What it does and what must come of it, in a few lines for `--help`.
    pub fn about(self) -> &'static str {
        match self {
            Self::KillVmm => {
                "SIGKILL to the vmm of one sandbox, at work or ready in the pool. Its agent must get an error that \
                 says so, and nobody else may notice."
            }
            Self::StopVmm => {
                "SIGSTOP to the vmm of one sandbox, and SIGCONT up to a second later. Its agent must go on with \
                 all that it had."
            }
            Self::KillTemplate => {
                "SIGKILL to the vmm of the template. Its forks must live on; claims that find none ready must say \
                 why, until the pool has been given another template."
            }
            Self::KillRuntime => {
                "SIGKILL to another runtime with a template and sandboxes of its own. All its vmms must be gone \
                 within ten seconds, and a new runtime must start at once."
            }
            Self::MemoryPressure => {
                "Up to half of the memory that is available is taken for a while (at least 1 GiB and a quarter of \
                 all memory are left), and a guest wants more than its limit: its program must be ended, its sandbox \
                 and its neighbours not."
            }
            Self::FullDisk => {
                "Results are written to a small file system until it is full, and on when there is room again. What \
                 was acknowledged must stay whole, and nothing half-written may have a final name. Needs root."
            }
            Self::BusyHost => "Every core gets a thread that only counts, for up to a second.",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for FaultKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
