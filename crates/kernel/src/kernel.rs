//! The kernel's state.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use lg_abi::raw::general::{S_IFDIR, S_IFMT};
use lg_abi::{Errno, SigSet, SigStack, Timespec};
use lg_platform::{Context, Platform, PlatformError, Regs};

use crate::fs::terminal::Terminal;
use crate::futex::FutexTable;
use crate::ipc::Ipc;
use crate::limits::{LimitError, Limits, Meter};
use crate::mm::{Frames, Machine, SharedPages};
use crate::run::End;
use crate::signal::{Pending, SignalActions};
use crate::stats::Stats;
use crate::task::{
    Credentials, ExecRequest, ExitStatus, MemoryPolicy, Process, ReadyList, Rlimits, RunQueue, Settings,
    Stop, Task, TaskState, Tid, WaitQueue,
};
use crate::time::{Clock, MAX_POSIX_TIMERS, Timers};
use crate::vfs::{FdTable, Final, FsContext, FsState, Inode, Quota, Vfs, close_removed};

/// What the sandbox is, apart from its files and its first program.
pub struct KernelConfig {
    /// The host name that it shows.
    pub hostname: Vec<u8>,
    /// What it may use.
    pub limits: Limits,
    /// Where each system call is logged, if anywhere.
    pub trace: Option<Box<dyn FnMut(&str)>>,
}

/// Why the first program can not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such file.
    #[error("command not found")]
    NotFound,
    /// It is there, but it can not be executed.
    #[error("cannot execute: {0}")]
    NotExecutable(Errno),
    /// The limit of processes and threads is reached.
    #[error("the limit of processes is reached")]
    TooManyProcesses,
    /// The memory limit leaves no room for it, or the host has none left.
    #[error("no memory for the program: the memory limit is too small, or the host has none left (ENOMEM)")]
    OutOfMemory,
    /// The working directory can not be entered.
    #[error("cannot enter the working directory: {0}")]
    BadWorkdir(Errno),
}

/// Task numbers are below this (`/proc/sys/kernel/pid_max`).
pub(crate) const MAX_TID: u32 = 1 << 22;

/// A Linux-compatible kernel with one sandbox's processes in it.
pub struct Kernel {
    pub(crate) machine: Machine,
    pub(crate) frames: Rc<Frames>,
    pub(crate) clock: Clock,
    pub(crate) hostname: Vec<u8>,
    pub(crate) limits: Limits,
    pub(crate) meter: Meter,
    pub(crate) trace: Option<Box<dyn FnMut(&str)>>,
    pub(crate) tasks: BTreeMap<Tid, Task>,
    pub(crate) processes: BTreeMap<Tid, Process>,
    pub(crate) last_tid: u32,
    pub(crate) run_queue: RunQueue,
    pub(crate) ready: ReadyList,
    pub(crate) timers: Timers,
    /// Counts the POSIX timers of all processes.
    pub(crate) posix_timers: Rc<Quota>,
    pub(crate) futexes: FutexTable,
    /// Woken by every signal that is sent, for sigtimedwait and signalfd.
    pub(crate) signal_arrived: Rc<WaitQueue>,
    pub(crate) vdso: Option<Rc<SharedPages>>,
    /// The task whose lazy state the platform holds.
    pub(crate) loaded: Option<Tid>,
    /// When `loaded` was last charged for processor time.
    pub(crate) charged_until_ns: u64,
    /// The sandbox ends with this process.
    pub(crate) main: Option<Tid>,
    /// Processes that the operator has launched and whose end it has not been told of.
    pub(crate) launched: BTreeMap<Tid, Option<ExitStatus>>,
    pub(crate) end: Option<End>,
    /// Why the platform is of no use any more, once it has failed: the sandbox ends before guest code runs again.
    pub(crate) failed: Option<PlatformError>,
    /// After how long the running task is interrupted to look for requests from outside, in ns.
    pub(crate) look_every_ns: Option<u64>,
    /// Whether the running task gives up its turn (sched_yield(2)).
    pub(crate) yielded: bool,
    /// Since when no task could run.
    pub(crate) idle_since_ns: Option<u64>,
    pub(crate) stats: Stats,
    pub(crate) vfs: Vfs,
    pub(crate) ipc: Ipc,
    /// The terminal that the standard streams are, if they are one.
    pub(crate) terminal: Option<Rc<Terminal>>,
    pub(crate) boot_id: [u8; 16],
}

impl Kernel {
    /// Returns a kernel without processes on this platform.
    ///
    /// Errors: [`LimitError`] where the platform has less memory than the limit.
    pub fn new(platform: Box<dyn Platform>, config: KernelConfig) -> Result<Kernel, LimitError> {
        let store = platform.frames();
        let machine: Machine = Rc::new(RefCell::new(platform));
        let frames = Frames::new(store);
        let clock = Clock::start(&machine);
        let mut boot_id = [0; 16];
        crate::syscall::fill_random(&mut boot_id);
        let vdso = crate::vdso::build(&frames, clock.vdso());
        let mut kernel = Kernel {
            limits: config.limits,
            meter: Meter::start(clock.monotonic_ns(), 0),
            hostname: config.hostname,
            trace: config.trace,
            tasks: BTreeMap::new(),
            processes: BTreeMap::new(),
            last_tid: Process::INIT.0,
            run_queue: RunQueue::default(),
            ready: ReadyList::default(),
            timers: Timers::default(),
            posix_timers: Rc::new(Quota::new(MAX_POSIX_TIMERS)),
            futexes: FutexTable::default(),
            signal_arrived: WaitQueue::new(),
            vdso,
            loaded: None,
            charged_until_ns: 0,
            main: None,
            launched: BTreeMap::new(),
            end: None,
            failed: None,
            look_every_ns: None,
            yielded: false,
            idle_since_ns: None,
            stats: Stats::default(),
            vfs: Vfs::new(),
            ipc: Ipc::default(),
            terminal: None,
            boot_id,
            machine,
            frames,
            clock,
        };
        kernel.set_limits(config.limits)?;
        Ok(kernel)
    }

    /// Returns the guest memory's allocator, from which file systems take theirs.
    pub fn frames(&self) -> &Rc<Frames> {
        &self.frames
    }

    /// Returns what has been counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the most memory that the guest and its page tables took at once, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.usage().peak_memory_bytes
    }

    /// Returns the memory that page tables take now, in bytes.
    pub fn table_bytes(&self) -> u64 {
        self.machine.borrow().table_bytes()
    }

    /// Returns how many system calls came without an exit.
    pub fn calls_without_exit(&self) -> u64 {
        self.machine.borrow().calls_without_exit()
    }

    /// Returns the processor time that guest code and the kernel have used, in ns. A second thread that the platform runs counts.
    pub fn cpu_time_ns(&self) -> u64 {
        self.usage().cpu_ns
    }

    /// Makes a process with these descriptors that nobody inside is the parent of. The program is looked up in the
    /// directories of `search` where its name has no slash.
    pub fn launch(&mut self, fds: FdTable, program: FirstProgram) -> Result<Tid, StartError> {
        let root = self.vfs.root().map_err(StartError::BadWorkdir)?;
        let tid = self.next_tid().ok_or(StartError::TooManyProcesses)?;
        let mm = crate::mm::MemoryManager::new(&self.machine, &self.frames, lg_platform::USER_END)
            .map_err(|_| StartError::OutOfMemory)?;
        let rlimits = Rlimits::new(u64::from(self.limits.processes));
        let task = Task {
            tid,
            tgid: tid,
            context: Context::new(Regs::default()),
            state: TaskState::Runnable,
            call: None,
            mm: Rc::new(RefCell::new(mm)),
            fds: Rc::new(RefCell::new(fds)),
            fs: Rc::new(RefCell::new(FsState::new(root))),
            actions: Rc::new(RefCell::new(SignalActions::default())),
            creds: Rc::new(program.creds),
            mask: SigSet::EMPTY,
            saved_mask: None,
            pending: Pending::default(),
            alt_stack: SigStack { ss_flags: lg_abi::raw::general::SS_DISABLE as i32, ..SigStack::default() },
            clear_child_tid: 0,
            robust_list: 0,
            rseq: None,
            comm: RefCell::default(),
            vfork_done: None,
            cpu_ns: 0,
            settings: Settings::default(),
            parent_death_signal: 0,
            memory_policy: MemoryPolicy::default(),
            leaving: None,
        };
        let process = Process::new(tid, Process::INIT, rlimits, self.clock.monotonic_ns());
        self.tasks.insert(tid, task);
        self.processes.insert(tid, process);
        self.stats.tasks_created += 1;
        let started = self.start_program(tid, program.workdir, program.argv, program.envp, &program.search);
        if let Err(error) = started {
            if let Some(task) = self.tasks.remove(&tid) {
                self.close_descriptors(&task);
            }
            self.processes.remove(&tid);
            return Err(error);
        }
        self.launched.insert(tid, None);
        self.run_queue.push(tid);
        Ok(tid)
    }

    /// Says whether the sandbox is over, or will be before guest code runs again.
    pub fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// Makes the sandbox end with this process.
    pub fn end_with(&mut self, process: Tid) {
        self.main = Some(process);
    }

    fn start_program(
        &mut self,
        tid: Tid,
        workdir: Vec<u8>,
        argv: Vec<Vec<u8>>,
        envp: Vec<Vec<u8>>,
        search: &[Vec<u8>],
    ) -> Result<(), StartError> {
        self.change_dir(tid, &workdir).map_err(StartError::BadWorkdir)?;
        let name = argv.first().cloned().unwrap_or_default();
        if name.is_empty() {
            return Err(StartError::NotFound);
        }
        let candidates: Vec<Vec<u8>> = if name.contains(&b'/') {
            vec![name]
        } else {
            search.iter().map(|dir| [dir.as_slice(), b"/", name.as_slice()].concat()).collect()
        };
        let mut denied = None;
        for path in candidates {
            let request = ExecRequest::from_path(path, argv.clone(), envp.clone());
            match self.exec(tid, request) {
                Ok(()) => return Ok(()),
                Err(Stop::Errno(Errno::ENOENT | Errno::ENOTDIR)) => {}
                Err(Stop::Errno(Errno::ENOMEM)) => return Err(StartError::OutOfMemory),
                Err(Stop::Errno(errno)) => denied = denied.or(Some(errno)),
                Err(_) => return Err(StartError::OutOfMemory),
            }
        }
        Err(denied.map_or(StartError::NotFound, StartError::NotExecutable))
    }

    /// Returns what file-system operations on behalf of a task need to know.
    pub(crate) fn fs_context<'a>(&'a self, task: &'a Task) -> FsContext<'a> {
        self.fs_context_for(&task.creds, task.tid)
    }

    /// Returns what file-system operations need to know, before there is a task or after it.
    pub fn fs_context_for<'a>(&'a self, creds: &'a Credentials, tid: Tid) -> FsContext<'a> {
        let monotonic_ns = self.clock.monotonic_ns();
        FsContext {
            creds,
            tid,
            now: Timespec::from_ns(monotonic_ns.saturating_add(self.clock.boot_realtime_ns())),
            monotonic_ns,
            frames: &self.frames,
            procs: self,
            vfs: &self.vfs,
        }
    }

    /// Returns the time on CLOCK_REALTIME in seconds.
    pub(crate) fn realtime_sec(&self) -> i64 {
        let ns = self.clock.monotonic_ns().saturating_add(self.clock.boot_realtime_ns());
        (ns / Timespec::NS_PER_SEC) as i64
    }

    /// Says which terminal the sandbox has: its foreground process group gets the signals of its keys.
    pub fn set_terminal(&mut self, terminal: Rc<Terminal>) {
        self.terminal = Some(terminal);
    }

    /// Returns what all file systems share, for mounting.
    pub fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    fn change_dir(&mut self, tid: Tid, path: &[u8]) -> Result<(), Errno> {
        let task = self.tasks.get(&tid).ok_or(Errno::ESRCH)?;
        let cx = self.fs_context(task);
        let dir = task.fs.borrow().lookup(&cx, path, Final::Follow)?;
        if dir.inode().attr(&cx)?.mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        task.fs.borrow_mut().cwd = dir;
        Ok(())
    }

    /// Takes the pages of a file from byte `size` on out of every process.
    pub(crate) fn file_truncated(&self, inode: &Rc<dyn Inode>, size: u64) {
        for task in self.tasks.values() {
            task.mm.borrow_mut().file_truncated(inode, size);
        }
    }

    /// Makes tasks that map a file see that pages of it became a hole: those wholly within the range of bytes.
    pub(crate) fn file_punched(&self, inode: &Rc<dyn Inode>, start: u64, end: u64) {
        for task in self.tasks.values() {
            task.mm.borrow_mut().file_punched(inode, start, end);
        }
    }

    /// Closes the descriptors of a task that ends, if nobody shares them.
    pub(crate) fn close_descriptors(&self, task: &Task) {
        if Rc::strong_count(&task.fds) > 1 {
            return;
        }
        let (owner, closed) = {
            let mut fds = task.fds.borrow_mut();
            (fds.lock_owner(), fds.remove_range(0, u32::MAX))
        };
        let cx = self.fs_context(task);
        closed.into_iter().for_each(|description| close_removed(&cx, owner, description));
    }

    /// Returns an unused task number, or `None` when the limit of tasks is reached.
    pub(crate) fn next_tid(&mut self) -> Option<Tid> {
        if !self.admit_task(self.count_tasks()) {
            return None;
        }
        loop {
            self.last_tid = if self.last_tid + 1 >= MAX_TID { 300 } else { self.last_tid + 1 };
            let tid = Tid(self.last_tid);
            // A number is free once no task, process, group or session has it.
            let in_use = self.tasks.contains_key(&tid)
                || self.processes.contains_key(&tid)
                || self.processes.values().any(|process| process.pgid == tid || process.sid == tid);
            if !in_use {
                return Some(tid);
            }
        }
    }
}

/// A program to launch from outside.
pub struct FirstProgram {
    /// Its arguments; the first names the program.
    pub argv: Vec<Vec<u8>>,
    /// Its environment, as `NAME=value`.
    pub envp: Vec<Vec<u8>>,
    /// The directories in which a name without a slash is looked up.
    pub search: Vec<Vec<u8>>,
    /// Its working directory.
    pub workdir: Vec<u8>,
    /// Who it runs as.
    pub creds: Credentials,
}
