//! Tasks (threads) and processes.
//!
//! ```text
//!            clone                 switch                  blocks
//!   (none) --------> runnable <-------------> running ---------------> sleeping
//!                       ^                        |  ^                     |
//!                       |        SIGSTOP         |  |   woken: the call   |
//!                    SIGCONT <--- stopped <------+  +---- is made again --+
//!                                                |
//!                                                +--- exit ---> zombie --- wait4 ---> (none)
//! ```
//!
//! A [`Task`] is a thread: registers, signal mask, and handles to what threads may share (memory,
//! descriptors, directories, signal handlers). A [`Process`] is a thread group. Both live in the
//! [`crate::Kernel`]'s tables, by number.

mod clone;
mod credentials;
mod exec;
mod exit;
mod oom;
mod process;
mod rseq;
mod sched;
mod settings;
mod wait;

pub use clone::CloneRequest;
pub use credentials::Credentials;
pub use exec::{ExecRequest, MAX_STRING, Program};
pub use exit::{ChildEvent, ExitStatus, WaitOptions, WaitTarget};
pub use process::{OomAdjust, Process, ProcessState, ResourceUse, Rlimits, StopEvent};
pub use rseq::Rseq;
pub use sched::{RunQueue, SLICE_NS};
pub use settings::Settings;
pub use wait::{HostEvent, Interest, OnSignal, ReadyList, Sleeper, Stop, SysResult, Wait, WaitQueue};

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use lg_abi::{SigSet, SigStack};
use lg_platform::Context;

use crate::mm::MemoryManager;
use crate::signal::{Pending, SignalActions};
use crate::vfs::{FdTable, FsState};

/// A thread or process number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tid(pub u32);

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a task is doing.
#[derive(Debug)]
pub enum TaskState {
    /// It runs or waits for the processor.
    Runnable,
    /// It sleeps in the system call that [`Task::call`] describes.
    Sleeping(Sleep),
    /// It is stopped by a signal until SIGCONT; a call it slept in is made again after that.
    Stopped,
}

/// A sleep in progress.
#[derive(Debug)]
pub struct Sleep {
    /// What it waits for.
    pub wait: Wait,
    /// Its entry in the wait queues.
    pub sleeper: Rc<Sleeper>,
}

/// The system call a task is in, kept from the first try to the last.
#[derive(Default)]
pub struct Call {
    /// The number.
    pub number: u64,
    /// The arguments.
    pub args: [u64; 6],
    /// Whether it has slept.
    pub retried: bool,
    /// The end of its time-out on the guest's CLOCK_MONOTONIC in ns, once reckoned.
    pub deadline_ns: Option<u64>,
    /// How much of it earlier tries have done: bytes moved, or whatever number the call needs.
    pub progress: u64,
    /// What a signal that is handled does to it, once it has had to wait.
    pub on_signal: OnSignal,
    /// Whether it fails with EAGAIN rather than sleeps, although its files may wait.
    pub never_sleeps: bool,
    /// What else the call keeps between tries.
    pub state: Option<Rc<dyn Any>>,
}

/// A memory policy, which has no effect where there is one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryPolicy {
    /// The `MPOL_` mode with its flags.
    pub mode: u32,
    /// The nodes, a bit for each.
    pub nodes: u64,
}

/// A thread.
pub struct Task {
    /// Its number.
    pub tid: Tid,
    /// The number of its process.
    pub tgid: Tid,
    /// Registers and FPU state.
    pub context: Context,
    /// What it is doing.
    pub state: TaskState,
    /// The system call it is in, if it is in one.
    pub call: Option<Call>,
    /// Its memory.
    pub mm: Rc<RefCell<MemoryManager>>,
    /// Its descriptors.
    pub fds: Rc<RefCell<FdTable>>,
    /// Its root and working directory and its umask.
    pub fs: Rc<RefCell<FsState>>,
    /// Its signal handlers.
    pub actions: Rc<RefCell<SignalActions>>,
    /// Who it acts as.
    pub creds: Rc<Credentials>,
    /// The signals it has blocked.
    pub mask: SigSet,
    /// The mask to go back to once a signal has been taken, while a call like sigsuspend lends another.
    pub saved_mask: Option<SigSet>,
    /// Signals sent to this thread alone.
    pub pending: Pending,
    /// The alternate signal stack.
    pub alt_stack: SigStack,
    /// Where to store 0 and wake a futex when the thread ends (set_tid_address(2)).
    pub clear_child_tid: u64,
    /// The list of robust futexes (set_robust_list(2)).
    pub robust_list: u64,
    /// The area for restartable sequences (rseq(2)).
    pub rseq: Option<Rseq>,
    /// Its name, up to 15 bytes (prctl PR_SET_NAME).
    pub comm: RefCell<Vec<u8>>,
    /// Woken when a vfork child no longer uses its parent's memory.
    pub vfork_done: Option<Rc<WaitQueue>>,
    /// Host CPU time it has used, in ns.
    pub cpu_ns: u64,
    /// What it was told to be and tells again.
    pub settings: Settings,
    /// The death of the parent sends this signal (prctl PR_SET_PDEATHSIG), 0 for none.
    pub parent_death_signal: u32,
    /// On which memory nodes it wants its memory (set_mempolicy(2)).
    pub memory_policy: MemoryPolicy,
    /// Set once this thread is to end: it does when it would next return to user code.
    pub leaving: Option<ExitStatus>,
}
