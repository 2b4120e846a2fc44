//! Processes: what the threads of a thread group have in common.

use std::cell::Cell;
use std::rc::Rc;

use lg_abi::Rlimit;
use lg_abi::raw::general as linux;

use super::{ExitStatus, Tid, WaitQueue};
use crate::signal::Pending;
use crate::time::{IntervalTimers, PosixTimers};
use crate::vfs::Path;

/// Whether a process lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessState {
    /// It has threads.
    Alive,
    /// All of its threads have ended; its parent has not asked how.
    Zombie(ExitStatus),
}

/// Resources used, summed over threads (getrusage(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResourceUse {
    /// Processor time in ns.
    pub cpu_ns: u64,
    /// Page faults.
    pub faults: u64,
    /// Most pages in memory at once.
    pub max_resident_pages: u64,
}

impl ResourceUse {
    /// Adds what a child used.
    pub fn add(&mut self, other: ResourceUse) {
        self.cpu_ns += other.cpu_ns;
        self.faults += other.faults;
        self.max_resident_pages = self.max_resident_pages.max(other.max_resident_pages);
    }
}

/// Resource limits (getrlimit(2)), by resource number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rlimits([Rlimit; 16]);

impl Rlimits {
    /// No limit.
    pub const INFINITY: u64 = u64::MAX;

    /// Returns the limits of a new sandbox that may have `processes` processes.
    pub fn new(processes: u64) -> Rlimits {
        let unlimited = Rlimit { cur: Self::INFINITY, max: Self::INFINITY };
        let mut limits = Rlimits([unlimited; 16]);
        let mut set = |resource: u32, cur, max| limits.0[resource as usize] = Rlimit { cur, max };
        set(linux::RLIMIT_STACK, 8 << 20, Self::INFINITY);
        set(linux::RLIMIT_CORE, 0, Self::INFINITY);
        set(linux::RLIMIT_NPROC, processes, processes);
        set(linux::RLIMIT_NOFILE, 1024, 1 << 16);
        set(linux::RLIMIT_MEMLOCK, 8 << 20, 8 << 20);
        set(linux::RLIMIT_SIGPENDING, 4096, 4096);
        set(linux::RLIMIT_MSGQUEUE, 819_200, 819_200);
        set(linux::RLIMIT_NICE, 0, 0);
        set(linux::RLIMIT_RTPRIO, 0, 0);
        limits
    }

    /// Returns the limit of a resource, or `None` for a number that is none.
    pub fn get(&self, resource: u64) -> Option<Rlimit> {
        self.0.get(usize::try_from(resource).ok()?).copied()
    }

    /// Sets the limit of a resource; the number must be one.
    pub fn set(&mut self, resource: u64, limit: Rlimit) {
        if let Some(slot) = usize::try_from(resource).ok().and_then(|index| self.0.get_mut(index)) {
            *slot = limit;
        }
    }

    /// Returns the current (soft) limit of one of the `RLIMIT_` constants.
    pub fn current(&self, resource: u32) -> u64 {
        self.get(u64::from(resource)).map_or(Self::INFINITY, |limit| limit.cur)
    }
}

/// How a process counts when memory is used up (`/proc/PID/oom_score_adj`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OomAdjust {
    /// From -1000, never to be chosen, to 1000: thousandths of the sandbox's memory that are added to what it uses.
    pub score: i32,
    /// The lowest score that it may give itself without CAP_SYS_RESOURCE.
    pub least: i32,
}

impl OomAdjust {
    /// The score of a process that is never chosen.
    pub const NEVER: i32 = -1000;
    /// The highest score.
    pub const MAX: i32 = 1000;

    /// Returns how much a process weighs that uses `pages` of `total`, in pages; `None`: it is never chosen.
    pub fn weight(self, pages: u64, total: u64) -> Option<i64> {
        let added = i64::from(self.score).saturating_mul(total as i64) / 1000;
        (self.score != OomAdjust::NEVER).then(|| (pages as i64).saturating_add(added))
    }
}

/// A process: a thread group.
pub struct Process {
    /// Its number, that of its first thread.
    pub tgid: Tid,
    /// Its parent; [`Process::INIT`] for the first process and for orphans.
    pub parent: Tid,
    /// Its process group.
    pub pgid: Tid,
    /// Its session.
    pub sid: Tid,
    /// Its living threads.
    pub threads: Vec<Tid>,
    /// Whether it lives.
    pub state: ProcessState,
    /// Set once the process is to end: each thread ends when it next would return to user code.
    pub exiting: Option<ExitStatus>,
    /// Signals sent to the process.
    pub pending: Pending,
    /// The signal its end sends to its parent; 0 for none.
    pub exit_signal: u32,
    /// Woken when a child ends, stops or goes on.
    pub child_event: Rc<WaitQueue>,
    /// Woken when it ends, for pidfds.
    pub ended: Rc<WaitQueue>,
    /// A stop (Some(signal)) or continue (None) that the parent has not been told of.
    pub stop_event: Option<StopEvent>,
    /// Whether it is stopped by a signal.
    pub stopped: bool,
    /// Its resource limits.
    pub rlimits: Rlimits,
    /// Its interval timers.
    pub timers: IntervalTimers,
    /// Its POSIX timers.
    pub posix_timers: PosixTimers,
    /// The program it runs.
    pub exe: Option<Path>,
    /// What it used, without its living threads' processor time.
    pub used: ResourceUse,
    /// The second of processor time for which SIGXCPU was sent last (RLIMIT_CPU).
    pub cpu_limit_told: u64,
    /// What its children that it has waited for used.
    pub children_used: ResourceUse,
    /// When it started, on the guest's CLOCK_MONOTONIC in ns.
    pub started_ns: u64,
    /// Whether it has called exec since it was forked (setpgid(2) cares).
    pub has_execed: bool,
    /// Whether orphans below it become its children (prctl PR_SET_CHILD_SUBREAPER).
    pub is_subreaper: bool,
    /// Whether the process may be dumped (prctl PR_SET_DUMPABLE).
    pub dumpable: u32,
    /// How the process counts when memory is used up.
    pub oom: Cell<OomAdjust>,
    /// Whether it wants no huge pages (prctl PR_SET_THP_DISABLE). There are none.
    pub huge_pages_disabled: bool,
}

/// A change of state short of the end that wait4(2) can report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopEvent {
    /// It was stopped by this signal number.
    Stopped(u8),
    /// It goes on.
    Continued,
}

impl Process {
    /// The parent of the first process and of orphans. No process has this number: the kernel itself
    /// reaps its children.
    pub const INIT: Tid = Tid(1);

    /// Returns a process with one thread, in a group and session of its own.
    pub fn new(tgid: Tid, parent: Tid, rlimits: Rlimits, started_ns: u64) -> Process {
        Process {
            tgid,
            parent,
            pgid: tgid,
            sid: tgid,
            threads: vec![tgid],
            state: ProcessState::Alive,
            exiting: None,
            pending: Pending::default(),
            exit_signal: 0,
            child_event: WaitQueue::new(),
            ended: WaitQueue::new(),
            stop_event: None,
            stopped: false,
            rlimits,
            timers: IntervalTimers::default(),
            posix_timers: PosixTimers::default(),
            exe: None,
            used: ResourceUse::default(),
            children_used: ResourceUse::default(),
            cpu_limit_told: 0,
            started_ns,
            has_execed: false,
            is_subreaper: false,
            dumpable: 1,
            oom: Cell::default(),
            huge_pages_disabled: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OomAdjust;

    #[test]
    fn a_process_weighs_what_it_uses_and_its_adjustment() {
        let weight = |score| OomAdjust { score, least: 0 }.weight(100, 1000);
        assert_eq!(weight(0), Some(100));
        assert_eq!(weight(500), Some(600));
        assert_eq!(weight(-999), Some(-899));
        assert_eq!(weight(OomAdjust::NEVER), None);
    }
}
