//! What a sandbox may use, and what it has used.
//!
//! | limit | a program that reaches it sees |
//! |---|---|
//! | memory | ENOMEM; where a page can not be had, SIGKILL for the largest process |
//! | processes | EAGAIN |
//! | open files | ENFILE |
//! | file bytes | ENOSPC |
//! | output, processor time, deadline | the sandbox ends |
//!
//! Limits may change at any time, since a fork gets its own, but never to less than what is in use.

use std::fmt;

use lg_platform::PAGE_SIZE;

use crate::Kernel;
use crate::run::End;
use crate::time::process_cpu_ns;
use crate::vfs::DEFAULT_OPEN_FILES;

/// The processor time is looked at this often at most, so a sandbox may use so much more than it may.
const CPU_CHECK_NS: u64 = 1_000_000;

/// What a sandbox may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Pages of guest memory: programs, files in memory, file caches and page tables. The tables of one page may
    /// pass it.
    pub memory_pages: u32,
    /// Processes and threads at once, with those that have ended and that nobody has waited for.
    pub processes: u32,
    /// Open file descriptions at once.
    pub open_files: u32,
    /// Bytes, in whole pages, that files with a name hold in memory at once. Stores through shared mappings of
    /// the image's files count and may pass it. Files of host directories that are passed through and memfds do not count.
    pub file_bytes: u64,
    /// Bytes written to host streams; see [`Kernel::count_output`].
    pub output_bytes: u64,
    /// Processor time of the vmm's thread, guest code and kernel together, in ns.
    pub cpu_ns: Option<u64>,
    /// Time since the start, or since the fork, in ns. Time in which the clock stands still does not count.
    pub deadline_ns: Option<u64>,
}

impl Limits {
    /// Returns limits of so many pages of memory, and as good as none of anything else.
    pub fn with_memory(memory_pages: u32) -> Limits {
        Limits {
            memory_pages,
            processes: crate::kernel::MAX_TID,
            open_files: DEFAULT_OPEN_FILES,
            file_bytes: u64::MAX,
            output_bytes: u64::MAX,
            cpu_ns: None,
            deadline_ns: None,
        }
    }
}

/// A limit whose end is that of the sandbox. The deadline has an end of its own, [`End::TimedOut`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// [`Limits::cpu_ns`].
    CpuTime,
    /// [`Limits::output_bytes`].
    Output,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::CpuTime => "processor time",
            Limit::Output => "output",
        })
    }
}

/// A limit is reached that ends the sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the limit of {0} is reached")]
pub struct LimitReached(pub Limit);

/// Something that is limited, with the unit in which it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// [`Limits::memory_pages`].
    Memory,
    /// [`Limits::processes`].
    Processes,
    /// [`Limits::open_files`].
    OpenFiles,
    /// [`Limits::file_bytes`].
    FileBytes,
    /// [`Limits::output_bytes`].
    Output,
    /// [`Limits::cpu_ns`].
    CpuTime,
    /// [`Limits::deadline_ns`].
    Deadline,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Memory => "pages of memory",
            Resource::Processes => "processes and threads",
            Resource::OpenFiles => "open files",
            Resource::FileBytes => "bytes in files",
            Resource::Output => "bytes of output",
            Resource::CpuTime => "ns of processor time",
            Resource::Deadline => "ns since the start",
        })
    }
}

/// Why limits can not be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LimitError {
    /// The platform has less memory.
    #[error("cannot allow {asked} pages of memory: the virtual machine has {available}")]
    NoSuchMemory {
        /// The pages asked for.
        asked: u32,
        /// The pages that there are.
        available: u32,
    },
    /// More than that is in use, or used up, already.
    #[error("cannot lower the limit to {limit} {resource}: {used} are in use")]
    BelowUse {
        /// What of.
        resource: Resource,
        /// The limit asked for.
        limit: u64,
        /// How much there is.
        used: u64,
    },
}

/// What a sandbox has used since its start, or since its fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Most memory at once, with page tables, in bytes.
    pub peak_memory_bytes: u64,
    /// Most processes and threads at once.
    pub peak_processes: u32,
    /// Most open file descriptions at once.
    pub peak_open_files: u32,
    /// Most bytes in files at once, as [`Limits::file_bytes`] counts them.
    pub peak_file_bytes: u64,
    /// Bytes written to host streams.
    pub output_bytes: u64,
    /// Processor time in ns.
    pub cpu_ns: u64,
    /// Time in ns.
    pub wall_ns: u64,
}

/// From when time counts, and when to look at it.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The sandbox's CLOCK_MONOTONIC at its start or fork.
    wall_base_ns: u64,
    /// The process's processor time then.
    cpu_base_ns: u64,
    /// The limit of processor time can not be reached before this time on the sandbox's CLOCK_MONOTONIC: two
    /// threads, the platform's second one among them, use no more of it than twice what passes.
    cpu_check_ns: Option<u64>,
    peak_tasks: u32,
}

impl Meter {
    /// Counts from now on.
    pub(crate) fn start(monotonic_ns: u64, tasks: usize) -> Meter {
        let peak_tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        Meter { wall_base_ns: monotonic_ns, cpu_base_ns: process_cpu_ns(), cpu_check_ns: None, peak_tasks }
    }
}

impl Kernel {
    /// Returns what the sandbox may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes what the sandbox may use. After an error nothing has changed.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), LimitError> {
        let available = self.frames.store().frame_count();
        if limits.memory_pages > available {
            return Err(LimitError::NoSuchMemory { asked: limits.memory_pages, available });
        }
        let usage = self.usage();
        let above = |resource, limit: u64, used: u64| {
            if limit < used { Err(LimitError::BelowUse { resource, limit, used }) } else { Ok(()) }
        };
        above(Resource::Processes, limits.processes.into(), self.count_tasks() as u64)?;
        above(Resource::OpenFiles, limits.open_files.into(), self.vfs.open_files().used())?;
        above(Resource::FileBytes, limits.file_bytes, self.vfs.file_bytes().used())?;
        above(Resource::Output, limits.output_bytes, usage.output_bytes)?;
        above(Resource::CpuTime, limits.cpu_ns.unwrap_or(u64::MAX), usage.cpu_ns)?;
        above(Resource::Deadline, limits.deadline_ns.unwrap_or(u64::MAX), usage.wall_ns)?;
        let excess = self.frames.used().saturating_sub(limits.memory_pages);
        if excess > 0 {
            self.vfs.reclaim(excess);
        }
        above(Resource::Memory, limits.memory_pages.into(), self.frames.used().into())?;
        self.frames.set_total(limits.memory_pages);
        self.vfs.open_files().set_max(limits.open_files.into());
        self.vfs.file_bytes().set_max(limits.file_bytes);
        self.vfs.output().set_max(limits.output_bytes);
        self.meter.cpu_check_ns = limits.cpu_ns.map(|_| 0);
        self.limits = limits;
        Ok(())
    }

    /// Returns what the sandbox has used.
    pub fn usage(&self) -> Usage {
        Usage {
            peak_memory_bytes: u64::from(self.frames.peak()) * PAGE_SIZE as u64,
            peak_processes: self.meter.peak_tasks,
            peak_open_files: u32::try_from(self.vfs.open_files().peak()).unwrap_or(u32::MAX),
            peak_file_bytes: self.vfs.file_bytes().peak(),
            output_bytes: self.vfs.output().used(),
            cpu_ns: process_cpu_ns().saturating_sub(self.meter.cpu_base_ns),
            wall_ns: self.clock.monotonic_ns().saturating_sub(self.meter.wall_base_ns),
        }
    }

    /// Counts from now on, for a fork.
    pub(crate) fn restart_usage(&mut self) {
        self.meter = Meter::start(self.clock.monotonic_ns(), self.count_tasks());
        self.meter.cpu_check_ns = self.limits.cpu_ns.map(|_| 0);
        self.frames.reset_peak();
        let output = self.vfs.output();
        output.give(output.used());
        for quota in [output, self.vfs.open_files(), self.vfs.file_bytes()] {
            quota.reset_peak();
        }
    }

    /// Counts bytes that are about to be written to a host stream; what passes the limit should not be. Once it
    /// is passed, the sandbox ends at the next system call. Files count on `cx.vfs.output()`, which is the same.
    pub fn count_output(&self, bytes: u64) -> Result<(), LimitReached> {
        self.vfs.output().take_over_limit(bytes);
        if self.vfs.output().is_over() { Err(LimitReached(Limit::Output)) } else { Ok(()) }
    }

    /// Returns how many processes and threads there are, with those that nobody has waited for.
    pub(crate) fn count_tasks(&self) -> usize {
        let zombies = self.processes.values().filter(|process| process.threads.is_empty()).count();
        self.tasks.len() + zombies
    }

    /// Notes that there is one more task than `before`, or says that there can not be.
    pub(crate) fn admit_task(&mut self, before: usize) -> bool {
        let admitted = before < self.limits.processes as usize;
        if admitted {
            self.meter.peak_tasks = self.meter.peak_tasks.max(before as u32 + 1);
        }
        admitted
    }

    /// Returns when the sandbox's time is up, on its CLOCK_MONOTONIC.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.limits.deadline_ns.map(|deadline_ns| self.meter.wall_base_ns.saturating_add(deadline_ns))
    }

    /// Returns when guest code must be interrupted to look at its processor time, on its CLOCK_MONOTONIC.
    pub(crate) fn cpu_check_ns(&self) -> Option<u64> {
        self.meter.cpu_check_ns
    }

    /// Says whether more has been written than may be.
    pub(crate) fn is_over_output(&self) -> bool {
        self.vfs.output().is_over()
    }

    /// Ends the sandbox where a limit is reached that does so.
    pub(crate) fn check_limits(&mut self) {
        if self.is_over_output() {
            self.end.get_or_insert(End::LimitReached(Limit::Output));
        }
        let (Some(check_ns), Some(limit_ns)) = (self.meter.cpu_check_ns, self.limits.cpu_ns) else { return };
        let now_ns = self.clock.monotonic_ns();
        if now_ns < check_ns {
            return;
        }
        match limit_ns.saturating_sub(self.usage().cpu_ns) {
            0 => drop(self.end.get_or_insert(End::LimitReached(Limit::CpuTime))),
            left_ns => {
                self.meter.cpu_check_ns = Some(now_ns.saturating_add((left_ns / 2).max(CPU_CHECK_NS)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
