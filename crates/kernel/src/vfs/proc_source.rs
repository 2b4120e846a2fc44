//! What `/proc` needs to know of the processes and of the system.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::{Errno, Rlimit, SigSet};

use super::{FdTable, FsState, Inode, Path};
use crate::ipc::Table;
use crate::task::Credentials;

/// Answers the questions of `/proc` and of file systems about tasks. Nothing here may sleep, and nothing may
/// tell of the host.
///
/// Process ids and thread ids are those of the sandbox. Methods answer `None` for who does not exist (or no
/// longer has what was asked for: a zombie has no memory and no descriptors).
pub trait ProcSource {
    /// Returns the ids of all processes (thread groups), zombies included, in ascending order.
    fn pids(&self) -> Vec<u32>;

    /// Says whether some process runs this file as its program.
    fn runs(&self, inode: &Rc<dyn Inode>) -> bool;

    /// Returns the facts about a process.
    fn process(&self, pid: u32) -> Option<ProcessFacts>;

    /// Returns the thread ids of a process in ascending order.
    fn tids(&self, pid: u32) -> Vec<u32>;

    /// Returns the facts about a thread; `None` also where it is not of that process.
    fn thread(&self, pid: u32, tid: u32) -> Option<ThreadFacts>;

    /// Returns the process that a thread belongs to.
    fn pid_of(&self, tid: u32) -> Option<u32>;

    /// Returns the signals pending for a thread and for its process.
    fn pending_signals(&self, tid: u32) -> SigSet;

    /// Returns the memory areas of a process in ascending order.
    fn maps(&self, pid: u32) -> Option<Vec<MapFacts>>;

    /// Returns the arguments of a process, each with its NUL.
    fn cmdline(&self, pid: u32) -> Option<Vec<u8>>;

    /// Returns the environment that a process started with, each entry with its NUL.
    fn environ(&self, pid: u32) -> Option<Vec<u8>>;

    /// Returns the auxiliary vector of a process as bytes.
    fn auxv(&self, pid: u32) -> Option<Vec<u8>>;

    /// Returns the descriptors of a process.
    fn fds(&self, pid: u32) -> Option<Rc<RefCell<FdTable>>>;

    /// Returns root and working directory of a process.
    fn fs_state(&self, pid: u32) -> Option<Rc<RefCell<FsState>>>;

    /// Returns the executable of a process.
    fn exe(&self, pid: u32) -> Option<Path>;

    /// Returns the facts about the system.
    fn system(&self) -> SystemFacts;

    /// Returns the text of a file of `/proc/sysvipc`.
    fn ipc_table(&self, table: Table) -> String;

    /// Sets the name of a thread (`/proc/PID/comm`) on behalf of another.
    ///
    /// Errors: EINVAL for a thread of another process, ESRCH.
    fn set_comm(&self, asking: u32, tid: u32, comm: &[u8]) -> Result<(), Errno>;

    /// Sets the OOM score adjustment of a process on behalf of who has these credentials.
    ///
    /// Errors: EINVAL; EACCES for less than what a privileged user has set.
    fn set_oom_score_adj(&self, creds: &Credentials, pid: u32, value: i32) -> Result<(), Errno>;
}

/// The state letter of a task (proc_pid_stat(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProcessState {
    /// R
    Running,
    /// S
    #[default]
    Sleeping,
    /// T
    Stopped,
    /// Z
    Zombie,
}

impl ProcessState {
    /// Returns the letter and the word of `/proc/PID/status`.
    pub fn letter(self) -> (char, &'static str) {
        match self {
            ProcessState::Running => ('R', "running"),
            ProcessState::Sleeping => ('S', "sleeping"),
            ProcessState::Stopped => ('T', "stopped"),
            ProcessState::Zombie => ('Z', "zombie"),
        }
    }
}

/// A process as `/proc` shows it. Times are in ns.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names of proc_pid_stat(5) and proc_pid_status(5)")]
pub struct ProcessFacts {
    pub pid: u32,
    pub ppid: u32,
    pub pgrp: u32,
    pub session: u32,
    pub state: ProcessState,
    pub threads: u32,
    pub nice: i32,
    /// User and system time of the process, and of the children it waited for.
    pub utime_ns: u64,
    pub stime_ns: u64,
    pub cutime_ns: u64,
    pub cstime_ns: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    /// When it started, on CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// Address space in bytes, now and at most.
    pub vsize: u64,
    pub vsize_peak: u64,
    /// Resident pages, now and at most; shared ones of these.
    pub rss_pages: u64,
    pub rss_peak_pages: u64,
    pub shared_pages: u64,
    pub text_bytes: u64,
    pub data_bytes: u64,
    pub stack_bytes: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_stack: u64,
    pub start_brk: u64,
    /// Signals pending for the whole process, ignored, and caught.
    pub shared_pending: u64,
    pub ignored: u64,
    pub caught: u64,
    /// RLIMIT_* in the order of their numbers.
    pub limits: [Rlimit; 16],
    pub oom_score_adj: i32,
    /// The exit status as wait(2) reports it, for a zombie.
    pub exit_code: i32,
}

/// A thread as `/proc` shows it.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names of proc_pid_status(5)")]
pub struct ThreadFacts {
    pub tid: u32,
    pub comm: Vec<u8>,
    pub state: ProcessState,
    /// Real, effective, saved and file-system user id.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    /// Inheritable, permitted, effective, bounding and ambient capabilities.
    pub capabilities: [u64; 5],
    pub no_new_privs: bool,
    /// The persona (personality(2)).
    pub personality: u32,
    /// How late timers may be, in ns (prctl PR_SET_TIMERSLACK).
    pub timer_slack_ns: u64,
    pub pending: u64,
    pub blocked: u64,
    pub utime_ns: u64,
    pub stime_ns: u64,
    pub start_ns: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

/// A memory area as `/proc/PID/maps` shows it.
#[derive(Clone, Debug)]
pub struct MapFacts {
    /// First address.
    pub start: u64,
    /// First address after the area.
    pub end: u64,
    /// PROT_READ, PROT_WRITE, PROT_EXEC.
    pub prot: u32,
    /// Whether it is MAP_SHARED.
    pub shared: bool,
    /// Offset in the file in bytes.
    pub offset: u64,
    /// The file, for file mappings.
    pub file: Option<Path>,
    /// What is shown where there is no file: `[heap]`, `[stack]`, `[vdso]`; empty for nothing.
    pub label: Cow<'static, str>,
    /// Whether its pages are locked.
    pub locked: bool,
    /// Resident pages.
    pub rss_pages: u64,
}

/// The system as `/proc` shows it. Times are in ns, memory in bytes.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SystemFacts {
    pub hostname: Vec<u8>,
    /// `uname -r`
    pub release: String,
    /// `uname -v`
    pub version: String,
    pub mem_total: u64,
    pub mem_free: u64,
    /// Page cache of files.
    pub mem_cached: u64,
    pub mem_shared: u64,
    pub uptime_ns: u64,
    /// Time spent running user code, in the kernel, and idle.
    pub user_ns: u64,
    pub system_ns: u64,
    pub idle_ns: u64,
    /// When the sandbox started, in seconds since 1970.
    pub boot_time_sec: u64,
    /// Processes ever made, and tasks runnable now.
    pub forks: u64,
    pub runnable: u32,
    pub context_switches: u64,
    /// The last pid given out.
    pub last_pid: u32,
    pub pid_max: u32,
    pub threads_max: u32,
    /// Random, fresh for each sandbox and each fork.
    pub boot_id: [u8; 16],
}
