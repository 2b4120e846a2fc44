//! Why a sandbox may not start: [`Refused`], and what was short: [`Shortage`].

use std::time::Duration;

use super::cost::Cost;
use super::host::ReadingsError;

/// What there is too little of at the moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Shortage {
    /// Memory of the machine.
    #[error(
        "not enough memory: {} MiB are needed, {} MiB are available, {} MiB of those are kept in reserve",
        mib(*.needed_bytes), mib(*.available_bytes), mib(*.reserve_bytes)
    )]
    NoMemory {
        /// What the sandbox needs.
        needed_bytes: u64,
        /// What is there, less what was promised to others and not used yet.
        available_bytes: u64,
        /// What of that is not for sandboxes.
        reserve_bytes: u64,
    },
    /// Descriptors of this process.
    #[error(
        "not enough descriptors: {needed} are needed, {used} of {limit} are used or promised, and {reserve} kept in \
         reserve; raise the limit with `ulimit -n`"
    )]
    NoDescriptors {
        /// What the sandbox needs.
        needed: u64,
        /// Those in use, and those promised to others.
        used: u64,
        /// The limit of this process.
        limit: u64,
        /// What is not for sandboxes.
        reserve: u64,
    },
    /// Processes of the machine, the user or the control group, whichever has the fewest left.
    #[error(
        "not enough processes: {needed} are needed, {used} of {limit} are used or promised, and {reserve} kept in \
         reserve; see `ulimit -u`, kernel.pid_max and pids.max of the control group"
    )]
    NoProcesses {
        /// What the sandbox needs.
        needed: u64,
        /// Those that there are, and those promised to others.
        used: u64,
        /// The limit that is nearest.
        limit: u64,
        /// What is not for sandboxes.
        reserve: u64,
    },
    /// As many sandboxes as are allowed are there.
    #[error("{alive} sandboxes are there, and at most {most} may be")]
    TooManyAlive {
        /// How many there are.
        alive: usize,
        /// How many there may be.
        most: usize,
    },
    /// As many sandboxes as are allowed are just starting.
    #[error("{starting} sandboxes are starting, and at most {most} may start at once")]
    TooManyStarting {
        /// How many are starting.
        starting: usize,
        /// How many may be.
        most: usize,
    },
    /// What the machine has is not known, so nothing of it is given away.
    #[error("the state of the machine cannot be read")]
    Unreadable(#[source] ReadingsError),
}

impl Shortage {
    /// Whether the end of an idle sandbox would help.
    pub fn is_helped_by_idle(&self) -> bool {
        match self {
            Self::NoMemory { .. }
            | Self::NoDescriptors { .. }
            | Self::NoProcesses { .. }
            | Self::TooManyAlive { .. } => true,
            Self::TooManyStarting { .. } | Self::Unreadable(_) => false,
        }
    }

    /// Whether others than sandboxes can end it, so that the machine must be read again.
    pub(super) fn is_of_the_machine(&self) -> bool {
        !matches!(self, Self::TooManyAlive { .. } | Self::TooManyStarting { .. })
    }
}

/// What the machine is too small for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Memory, in bytes.
    Memory,
    /// Descriptors of this process.
    Descriptors,
    /// Processes and threads.
    Processes,
    /// Sandboxes: the configuration allows none.
    Sandboxes,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "bytes of memory",
            Self::Descriptors => "descriptors",
            Self::Processes => "processes",
            Self::Sandboxes => "sandboxes",
        })
    }
}

/// Why a sandbox may not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is too little, and the caller did not want to wait, or nobody may.
    #[error("no room for one more sandbox now")]
    Short {
        /// Of what.
        #[source]
        short: Shortage,
        /// See [`Refused::retry_after`].
        retry_after: Option<Duration>,
    },
    /// There is too little, and too many wait already.
    #[error("no room for one more sandbox, and {length} wait for it already")]
    QueueFull {
        /// How many wait.
        length: usize,
        /// What they wait for.
        #[source]
        short: Shortage,
        /// See [`Refused::retry_after`].
        retry_after: Option<Duration>,
    },
    /// There was too little until the deadline.
    #[error("no room for one more sandbox within {} ms", .waited.as_millis())]
    DeadlinePassed {
        /// How long the caller waited.
        waited: Duration,
        /// What was short at the end, for whoever was next.
        #[source]
        short: Shortage,
        /// See [`Refused::retry_after`].
        retry_after: Option<Duration>,
    },
    /// It could not start even if it were alone on the machine.
    #[error(
        "a sandbox that needs {needed} {resource} is too large for this machine, which has {most} to give"
    )]
    TooLarge {
        /// What it needs too much of.
        resource: Resource,
        /// How much it needs.
        needed: u64,
        /// How much the machine has, less what is kept in reserve.
        most: u64,
    },
    /// No sandbox is admitted any more.
    #[error("no sandbox is admitted any more: LuminaGuard is shutting down")]
    ShuttingDown,
}

impl Refused {
    /// When it is worth trying again, reckoned from how fast sandboxes end (or start, where that is what was short) and
    /// how many wait. `None` when nothing is known yet, or it is never worth trying.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Short { retry_after, .. }
            | Self::QueueFull { retry_after, .. }
            | Self::DeadlinePassed { retry_after, .. } => *retry_after,
            Self::TooLarge { .. } | Self::ShuttingDown => None,
        }
    }

    /// What was short, if that was the reason.
    pub fn short(&self) -> Option<&Shortage> {
        match self {
            Self::Short { short, .. }
            | Self::QueueFull { short, .. }
            | Self::DeadlinePassed { short, .. } => Some(short),
            Self::TooLarge { .. } | Self::ShuttingDown => None,
        }
    }
}

/// Asks for idle sandboxes to be given up, see [`Admission::on_pressure`](super::Admission::on_pressure).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressure {
    /// What is short.
    pub short: Shortage,
}

impl Pressure {
    /// How many idle sandboxes that cost `one` each would end the shortage; at least one.
    pub fn idle_to_give_up(&self, one: &Cost) -> usize {
        let (lacking, each) = match self.short {
            Shortage::NoMemory { needed_bytes, available_bytes, reserve_bytes } => {
                let wanted = needed_bytes.saturating_add(reserve_bytes);
                (wanted.saturating_sub(available_bytes), one.memory_bytes)
            }
            Shortage::NoDescriptors { needed, used, limit, reserve } => {
                (lacking(needed, used, limit, reserve), one.descriptors)
            }
            Shortage::NoProcesses { needed, used, limit, reserve } => {
                (lacking(needed, used, limit, reserve), one.processes)
            }
            _ => (1, 1),
        };
        usize::try_from(lacking.div_ceil(each.max(1))).unwrap_or(usize::MAX).max(1)
    }
}

fn lacking(needed: u64, used: u64, limit: u64, reserve: u64) -> u64 {
    used.saturating_add(needed).saturating_add(reserve).saturating_sub(limit)
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_was_short() {
        let short =
            Shortage::NoMemory { needed_bytes: 3 << 20, available_bytes: 5 << 20, reserve_bytes: 4 << 20 };
        let message =
            "not enough memory: 3 MiB are needed, 5 MiB are available, 4 MiB of those are kept in reserve";
        assert_eq!(short.to_string(), message);
        let refused = Refused::DeadlinePassed { waited: Duration::from_millis(7), short, retry_after: None };
        assert_eq!(refused.to_string(), "no room for one more sandbox within 7 ms");
        assert_eq!(std::error::Error::source(&refused).unwrap().to_string(), message);
        let refused = Refused::TooLarge { resource: Resource::Descriptors, needed: 9, most: 8 };
        assert!(refused.to_string().contains("needs 9 descriptors"), "{refused}");
        assert_eq!((refused.retry_after(), refused.short()), (None, None));
    }

    #[test]
    fn as_many_idle_ones_go_as_are_needed() {
        let one = Cost { memory_bytes: 2 << 20, descriptors: 6, processes: 1 };
        let count = |short: Shortage| Pressure { short }.idle_to_give_up(&one);
        let memory = |available_mib: u64| Shortage::NoMemory {
            needed_bytes: 2 << 20,
            available_bytes: available_mib << 20,
            reserve_bytes: 4 << 20,
        };
        assert_eq!([0, 1, 4, 5].map(|mib| count(memory(mib))), [3, 3, 1, 1]);
        assert_eq!(count(Shortage::NoDescriptors { needed: 6, used: 100, limit: 100, reserve: 1 }), 2);
        assert_eq!(count(Shortage::TooManyAlive { alive: 5, most: 5 }), 1);
    }
}
