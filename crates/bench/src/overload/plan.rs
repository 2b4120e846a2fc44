//! The rows: which resource is made scarce, how, and how many ask for it.

use std::path::PathBuf;
use std::time::Duration;

use lg_runtime::CgroupLimits;
use serde::{Deserialize, Serialize};

use crate::environment::cores;

/// What is made scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scarce {
    /// How many sandboxes may be there.
    Counts,
    /// Memory.
    Memory,
    /// Descriptors of the process that has the sandboxes.
    Descriptors,
    /// Processes of the host.
    Processes,
    /// Room on a disk.
    Disk,
}

/// How it is made scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// Admission is told how many may be there.
    MostAlive,
    /// Admission is told of a machine that has memory for so many.
    MemoryBudget,
    /// A control group of the host limits the memory of runtime, template and forks together; each fork fills some.
    MemoryGroup,
    /// Each guest takes more than its own limit.
    GuestMemory,
    /// RLIMIT_NOFILE leaves descriptors for so many.
    Descriptors,
    /// A control group of the host leaves processes for so many.
    Processes,
    /// The disk that guests and results are written to is full.
    FullDisk,
}

/// Who stands before the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Admission: nothing that it lets through may fail.
    Admission,
    /// Nobody: the host itself refuses, and that must be told as such.
    Nobody,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) scarce: Scarce,
    pub(crate) means: Means,
    pub(crate) guard: Guard,
    /// How many times as many ask as there is room for.
    pub(crate) times: usize,
    /// How long each waits for its turn.
    pub(crate) deadline: Duration,
    /// How many times as many as there is room for may wait.
    pub(crate) queue: usize,
}

/// How long a sandbox stays when it has answered, as if at work.
pub(crate) const STAY: Duration = Duration::from_millis(200);
/// Long enough for some five turns.
const PATIENT: Duration = Duration::from_millis(1200);
/// Long enough for some two turns.
const HASTY: Duration = Duration::from_millis(350);
/// What the memory group may hold: runtime, template and a few forks, which is what a small container has.
const GROUP_BYTES: u64 = 384 << 20;
/// What a group of processes may hold until its row has begun and says what is scarce.
const GROUP_PROCESSES: u64 = 10_000;

const fn plan(name: &'static str, scarce: Scarce, means: Means, times: usize) -> Plan {
    Plan { name, scarce, means, guard: Guard::Admission, times, deadline: HASTY, queue: usize::MAX }
}

pub(crate) const PLANS: [Plan; 10] = [
    Plan { deadline: PATIENT, ..plan("counts x3", Scarce::Counts, Means::MostAlive, 3) },
    Plan { deadline: PATIENT, queue: 6, ..plan("counts x10", Scarce::Counts, Means::MostAlive, 10) },
    plan("memory: a budget", Scarce::Memory, Means::MemoryBudget, 3),
    plan("memory: a control group", Scarce::Memory, Means::MemoryGroup, 3),
    Plan { deadline: PATIENT, ..plan("memory: guests want too much", Scarce::Memory, Means::GuestMemory, 2) },
    plan("descriptors", Scarce::Descriptors, Means::Descriptors, 3),
    Plan {
        guard: Guard::Nobody,
        ..plan("descriptors, no admission", Scarce::Descriptors, Means::Descriptors, 10)
    },
    plan("processes", Scarce::Processes, Means::Processes, 3),
    Plan { guard: Guard::Nobody, ..plan("processes, no admission", Scarce::Processes, Means::Processes, 10) },
    Plan { deadline: PATIENT, ..plan("disk: full", Scarce::Disk, Means::FullDisk, 2) },
];

impl Plan {
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        PLANS.iter().find(|plan| plan.name == name)
    }

    /// The limits of the control group that the row needs, if it needs one.
    pub(crate) fn group_limits(&self) -> Option<CgroupLimits> {
        match self.means {
            Means::MemoryGroup => {
                Some(CgroupLimits { memory_bytes: Some(GROUP_BYTES), ..CgroupLimits::default() })
            }
            Means::Processes => {
                Some(CgroupLimits { processes: Some(GROUP_PROCESSES), ..CgroupLimits::default() })
            }
            _ => None,
        }
    }
}

/// How many sandboxes at once a row makes room for: two for each core, and no more than keep the run short.
pub(crate) fn most_at_once() -> usize {
    (2 * cores()).clamp(2, 16)
}

/// What the process of a row is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The name of the plan.
    pub(crate) name: String,
    /// How many sandboxes at once there is to be room for.
    pub(crate) at_once: usize,
    /// A directory for this row alone.
    pub(crate) directory: PathBuf,
    /// The control group to go into.
    pub(crate) group: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_resource_has_a_row() {
        for (index, plan) in PLANS.iter().enumerate() {
            assert_eq!(PLANS.iter().position(|other| other.name == plan.name), Some(index));
            assert!(plan.times > 1, "{}: nothing is scarce", plan.name);
        }
        let all = [Scarce::Counts, Scarce::Memory, Scarce::Descriptors, Scarce::Processes, Scarce::Disk];
        assert!(all.iter().all(|scarce| PLANS.iter().any(|plan| plan.scarce == *scarce)));
    }
}
