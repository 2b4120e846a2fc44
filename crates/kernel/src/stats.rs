//! What a sandbox has done, counted.

use std::collections::BTreeMap;

/// How often a system call was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CallStats {
    /// Calls, each counted once however often it slept.
    pub calls: u64,
    /// Calls that failed.
    pub errors: u64,
}

/// Counters of one sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// System calls that came from guest code, by an exit or without one.
    pub syscall_traps: u64,
    /// Exits for a page fault.
    pub fault_exits: u64,
    /// Exits for another exception.
    pub exception_exits: u64,
    /// Exits because time was up or a signal came.
    pub interrupt_exits: u64,
    /// Changes from one task to another.
    pub task_switches: u64,
    /// Processes and threads made, with the first.
    pub tasks_created: u64,
    /// System calls by number.
    pub calls: BTreeMap<u64, CallStats>,
}
