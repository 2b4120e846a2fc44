//! The end of tasks and processes, and waiting for it.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigInfo, Signal};

use super::{Process, ProcessState, ResourceUse, StopEvent, TaskState, Tid};
use crate::Kernel;
use crate::mm::UserMemory;
use crate::run::End;
use crate::signal::SignalTarget;
use crate::time::Timer;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// It called exit with this status.
    Exited(u8),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: u8,
        /// Whether Linux could have written a core dump.
        core: bool,
    },
}

impl ExitStatus {
    /// Returns the status word of wait4(2).
    pub fn to_wait_status(self) -> u32 {
        match self {
            ExitStatus::Exited(code) => u32::from(code) << 8,
            // No core file is ever written, so the core flag (0x80) is not set.
            ExitStatus::Signaled { signal, .. } => u32::from(signal),
        }
    }

    fn child_code(self) -> (u32, i32) {
        match self {
            ExitStatus::Exited(code) => (linux::CLD_EXITED, i32::from(code)),
            ExitStatus::Signaled { signal, .. } => (linux::CLD_KILLED, i32::from(signal)),
        }
    }
}

/// Which children wait4(2) and waitid(2) ask about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitTarget {
    /// Any child.
    Any,
    /// The child of this number.
    Child(Tid),
    /// Any child in this process group.
    Group(Tid),
}

/// What a wait found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildEvent {
    /// The child ended.
    Ended(ExitStatus),
    /// The child was stopped by this signal number.
    Stopped(u8),
    /// The child goes on.
    Continued,
}

impl ChildEvent {
    /// Returns the status word of wait4(2).
    pub fn to_wait_status(self) -> u32 {
        match self {
            ChildEvent::Ended(status) => status.to_wait_status(),
            ChildEvent::Stopped(signal) => u32::from(signal) << 8 | 0x7f,
            ChildEvent::Continued => 0xffff,
        }
    }

    /// Returns `si_code` and `si_status` of waitid(2).
    pub fn to_code_and_status(self) -> (u32, i32) {
        match self {
            ChildEvent::Ended(status) => status.child_code(),
            ChildEvent::Stopped(signal) => (linux::CLD_STOPPED, i32::from(signal)),
            ChildEvent::Continued => (linux::CLD_CONTINUED, i32::from(Signal::SIGCONT.number())),
        }
    }
}

/// What kinds of events a wait asks for, and whether it takes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitOptions {
    /// WEXITED.
    pub ended: bool,
    /// WSTOPPED (WUNTRACED).
    pub stopped: bool,
    /// WCONTINUED.
    pub continued: bool,
    /// WNOWAIT: the event stays to be waited for again.
    pub keep: bool,
}

impl Kernel {
    /// Starts the end of a process: each of its threads ends when it would next return to user code. The
    /// first status counts.
    pub(crate) fn begin_exit(&mut self, tgid: Tid, status: ExitStatus) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        if process.exiting.is_some() || process.state != ProcessState::Alive {
            return;
        }
        process.exiting = Some(status);
        for tid in process.threads.clone() {
            self.abandon_call(tid);
        }
    }

    /// Starts the end of one thread (exit(2)).
    pub(crate) fn leave(&mut self, tid: Tid, status: ExitStatus) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.leaving = Some(status);
        }
    }

    /// Takes a task out of a sleep or stop for good: the call it was in never returns.
    fn abandon_call(&mut self, tid: Tid) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        match std::mem::replace(&mut task.state, TaskState::Runnable) {
            TaskState::Runnable => return,
            TaskState::Sleeping(sleep) => {
                if let Some(deadline_ns) = sleep.wait.deadline_ns {
                    self.timers.remove(deadline_ns, Timer::Sleep(tid));
                }
            }
            TaskState::Stopped => {}
        }
        task.call = None;
        self.run_queue.push(tid);
    }

    /// Ends a thread; with the last one ends the process.
    pub(crate) fn end_task(&mut self, tid: Tid, status: ExitStatus) {
        self.run_queue.remove(tid);
        if self.loaded == Some(tid) {
            // What the platform still holds of it is of no use to anybody.
            self.discard_loaded();
        }
        let Some(task) = self.tasks.get(&tid) else { return };
        if task.clear_child_tid != 0 {
            let _ = UserMemory::new(&task.mm).copy_out(task.clear_child_tid, &0u32);
            let (mm, addr) = (task.mm.clone(), task.clear_child_tid);
            self.futexes.wake_address(&mm, addr, 1);
        }
        self.release_robust_futexes(tid);
        let Some(task) = self.tasks.remove(&tid) else { return };
        if let TaskState::Sleeping(sleep) = &task.state
            && let Some(deadline_ns) = sleep.wait.deadline_ns
        {
            self.timers.remove(deadline_ns, Timer::Sleep(tid));
        }
        if let Some(done) = &task.vfork_done {
            done.wake_all();
        }
        self.close_descriptors(&task);
        self.detach_segments(&task.mm, task.tgid);
        let Some(process) = self.processes.get_mut(&task.tgid) else { return };
        process.used.cpu_ns += task.cpu_ns;
        process.threads.retain(|other| *other != tid);
        if process.threads.is_empty() {
            let status = process.exiting.unwrap_or(status);
            let resident = task.mm.borrow().resident_pages();
            process.used.max_resident_pages = process.used.max_resident_pages.max(resident);
            let tgid = task.tgid;
            drop(task);
            self.end_process(tgid, status);
        }
    }

    /// Turns a process without threads into a zombie, or drops it where nobody will ask.
    fn end_process(&mut self, tgid: Tid, status: ExitStatus) {
        self.trace_line(tgid, &format!("+++ {status:?} +++"));
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.state = ProcessState::Zombie(status);
        process.ended.wake_all();
        let (parent, exit_signal) = (process.parent, process.exit_signal);
        if let Some(next_ns) = process.timers.real.next_ns.take() {
            self.timers.remove(next_ns, Timer::Real(tgid));
        }
        if process.sid == tgid {
            self.vfs.ptys().leader_ended(tgid.0);
        }
        self.undo_semaphores(tgid);
        self.drop_posix_timers(tgid);
        self.adopt_children_of(tgid);
        self.hang_up_orphans(tgid, parent);
        if self.main == Some(tgid) {
            self.end = Some(End::Exited(status));
        }
        if let Some(ended) = self.launched.get_mut(&tgid) {
            *ended = Some(status);
        }
        let parent_ignores = match self.processes.get(&parent) {
            None => true,
            Some(parent) => {
                let task = parent.threads.first().and_then(|tid| self.tasks.get(tid));
                exit_signal == u32::from(Signal::SIGCHLD.number())
                    && task.is_some_and(|task| task.actions.borrow().reaps_children())
            }
        };
        let (code, value) = status.child_code();
        self.notify_parent(tgid, exit_signal, code, value);
        if parent_ignores {
            self.processes.remove(&tgid);
        }
    }

    /// Gives the children of an ended process to the nearest subreaper, or to nobody.
    fn adopt_children_of(&mut self, tgid: Tid) {
        let mut heir = self.processes.get(&tgid).map_or(Process::INIT, |process| process.parent);
        while let Some(process) = self.processes.get(&heir) {
            if process.is_subreaper && process.state == ProcessState::Alive {
                break;
            }
            heir = process.parent;
        }
        let children: Vec<Tid> =
            self.processes.values().filter(|child| child.parent == tgid).map(|child| child.tgid).collect();
        for child in children {
            let Some(process) = self.processes.get_mut(&child) else { continue };
            process.parent = heir;
            if let ProcessState::Zombie(status) = process.state {
                if self.processes.contains_key(&heir) {
                    let (code, value) = status.child_code();
                    self.notify_parent(child, u32::from(Signal::SIGCHLD.number()), code, value);
                } else {
                    self.processes.remove(&child);
                }
                continue;
            }
            let threads = process.threads.clone();
            self.hang_up_orphans(child, tgid);
            for tid in threads {
                let signal = self.tasks.get(&tid).map_or(0, |task| task.parent_death_signal);
                if let Some(signal) = Signal::new(u64::from(signal)) {
                    let info = SigInfo::from_process(signal, SigInfo::SI_USER, tgid.0, 0);
                    self.send_signal(SignalTarget::Thread(tid), signal, info);
                }
            }
        }
    }

    /// Ends every other thread of the task's process, for execve(2).
    pub(crate) fn end_other_threads(&mut self, tid: Tid) {
        let Some(task) = self.tasks.get(&tid) else { return };
        let Some(process) = self.processes.get(&task.tgid) else { return };
        for other in process.threads.clone() {
            if other != tid {
                self.end_task(other, ExitStatus::Exited(0));
            }
        }
    }

    /// Looks for an event of a child as wait4(2) does. `None`: there are such children, none has one.
    ///
    /// Errors: ECHILD where there is no such child.
    pub fn find_child_event(
        &mut self,
        tid: Tid,
        target: WaitTarget,
        options: WaitOptions,
    ) -> Result<Option<(Tid, ChildEvent, ResourceUse)>, Errno> {
        let tgid = self.tasks.get(&tid).ok_or(Errno::ECHILD)?.tgid;
        let children: Vec<Tid> = self
            .processes
            .values()
            .filter(|child| child.parent == tgid)
            .filter(|child| match target {
                WaitTarget::Any => true,
                WaitTarget::Child(number) => child.tgid == number,
                WaitTarget::Group(pgid) => child.pgid == pgid,
            })
            .map(|child| child.tgid)
            .collect();
        if children.is_empty() {
            return Err(Errno::ECHILD);
        }
        for number in children {
            let Some(child) = self.processes.get_mut(&number) else { continue };
            let used = {
                let mut used = child.used;
                used.add(child.children_used);
                used
            };
            match (child.state, child.stop_event) {
                (ProcessState::Zombie(status), _) if options.ended => {
                    if !options.keep {
                        self.processes.remove(&number);
                        if let Some(process) = self.processes.get_mut(&tgid) {
                            process.children_used.add(used);
                        }
                    }
                    return Ok(Some((number, ChildEvent::Ended(status), used)));
                }
                (ProcessState::Alive, Some(StopEvent::Stopped(signal))) if options.stopped => {
                    if !options.keep {
                        child.stop_event = None;
                    }
                    return Ok(Some((number, ChildEvent::Stopped(signal), used)));
                }
                (ProcessState::Alive, Some(StopEvent::Continued)) if options.continued => {
                    if !options.keep {
                        child.stop_event = None;
                    }
                    return Ok(Some((number, ChildEvent::Continued, used)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
