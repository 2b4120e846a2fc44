//! Taking signals on the way back to user code.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigAction, SigInfo, SigSet, Signal};

use super::{DefaultAction, Disposition};
use crate::Kernel;
use crate::task::{ExitStatus, OnSignal, ProcessState, StopEvent, TaskState, Tid};

/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

impl Kernel {
    /// Acts on the signals a task has, until it has none or does no longer run. Afterwards it can return to
    /// user code if it still runs.
    pub(crate) fn take_signals(&mut self, tid: Tid) {
        while let Some((signal, info)) = self.dequeue_signal(tid) {
            let Some(task) = self.tasks.get_mut(&tid) else { return };
            let disposition = task.actions.borrow().disposition(signal);
            match disposition {
                Disposition::Ignore
                | Disposition::Default(DefaultAction::Ignore | DefaultAction::Continue) => {}
                Disposition::Default(DefaultAction::Stop) => {
                    let tgid = task.tgid;
                    if signal != Signal::SIGSTOP && self.is_in_orphaned_group(tgid) {
                        continue;
                    }
                    self.stop_process(tgid, signal);
                    return;
                }
                Disposition::Default(action @ (DefaultAction::Terminate | DefaultAction::CoreDump)) => {
                    let (tgid, core) = (task.tgid, action == DefaultAction::CoreDump);
                    self.trace_line(tid, &format!("--- {signal} ends the process ---"));
                    self.begin_exit(tgid, ExitStatus::Signaled { signal: signal.number(), core });
                    return;
                }
                Disposition::Handle(action) => self.handle_signal(tid, signal, &info, &action),
            }
        }
        // A call that sleeps keeps its temporary mask: what it lets through is what may wake it.
        if let Some(task) = self.tasks.get_mut(&tid)
            && task.call.is_none()
            && let Some(mask) = task.saved_mask.take()
        {
            task.mask = mask;
        }
    }

    fn dequeue_signal(&mut self, tid: Tid) -> Option<(Signal, SigInfo)> {
        let task = self.tasks.get_mut(&tid)?;
        if !matches!(task.state, TaskState::Runnable) {
            return None;
        }
        let wanted = SigSet(u64::MAX).minus(task.mask);
        if self.processes.get(&task.tgid)?.exiting.is_some() {
            return None;
        }
        self.take_pending(tid, wanted)
    }

    /// Takes a signal of the set that was sent to the thread or, if there is none, to its process. The POSIX timer that
    /// sent it goes on.
    pub(crate) fn take_pending(&mut self, tid: Tid, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let task = self.tasks.get_mut(&tid)?;
        let tgid = task.tgid;
        let process = self.processes.get_mut(&tgid)?;
        let (signal, mut info) = task.pending.take(wanted).or_else(|| process.pending.take(wanted))?;
        self.timer_signal_taken(tgid, &mut info);
        Some((signal, info))
    }

    /// Makes the task run its handler. A stack without room for the frame is SIGSEGV.
    fn handle_signal(&mut self, tid: Tid, signal: Signal, info: &SigInfo, action: &SigAction) {
        self.interrupt_call(tid, action);
        self.abort_sequence(tid);
        self.trace_line(tid, &format!("--- {signal} runs the handler at {:#x} ---", action.handler));
        if self.push_signal_frame(tid, signal, info, action).is_err() {
            let Some(task) = self.tasks.get_mut(&tid) else { return };
            let tgid = task.tgid;
            // Linux forces SIGSEGV here; a handler for that would find the same stack.
            if signal == Signal::SIGSEGV || task.mask.contains(Signal::SIGSEGV) {
                let status = ExitStatus::Signaled { signal: Signal::SIGSEGV.number(), core: true };
                self.begin_exit(tgid, status);
            } else {
                let info = SigInfo::new(Signal::SIGSEGV, SigInfo::SI_KERNEL);
                self.force_signal(tid, Signal::SIGSEGV, info);
            }
            return;
        }
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let mut blocked = SigSet(action.mask);
        if action.flags & u64::from(linux::SA_NODEFER) == 0 {
            blocked.insert(signal);
        }
        task.mask = task.mask.union(blocked).minus(SigSet::UNBLOCKABLE);
        if action.flags & u64::from(linux::SA_RESETHAND) != 0 {
            task.actions.borrow_mut().set(signal, SigAction::default());
        }
    }

    /// Ends the system call in which a handled signal finds the task: sets `rax`, or `rip` back to the
    /// instruction so that the call is made again after the handler.
    fn interrupt_call(&mut self, tid: Tid, action: &SigAction) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let Some(call) = task.call.take() else { return };
        let regs = &mut task.context.regs;
        let restarts = action.flags & u64::from(linux::SA_RESTART) != 0;
        let result = match call.on_signal {
            OnSignal::Restart if call.progress > 0 => Some(call.progress),
            OnSignal::Restart if restarts => None,
            _ => Some((-i64::from(Errno::EINTR.number())) as u64),
        };
        match result {
            Some(value) => regs.rax = value,
            None => {
                regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
                regs.rax = call.number;
            }
        }
        let row = crate::syscall::row(call.number);
        self.trace_call(tid, row, &call, result);
    }

    /// Says whether nobody could let the process's group go on again: no member has a parent in another group
    /// of the session. The keys of a terminal do not stop such a group (POSIX, "Orphaned Process Group").
    fn is_in_orphaned_group(&self, tgid: Tid) -> bool {
        let Some(process) = self.processes.get(&tgid) else { return true };
        self.is_orphaned(process.pgid, process.sid)
    }

    /// Says whether no living process of the group has a parent in another group of the session.
    fn is_orphaned(&self, pgid: Tid, sid: Tid) -> bool {
        let members = self.processes.values().filter(|member| member.pgid == pgid);
        !members.filter(|member| member.state == ProcessState::Alive).any(|member| {
            self.processes.get(&member.parent).is_some_and(|parent| parent.pgid != pgid && parent.sid == sid)
        })
    }

    /// Hangs up the group of a process, and lets it go on, if stopped processes are in it and nobody is left who could
    /// do that: `parent`, which has ended or whose child has, was the last one (POSIX, "_exit").
    pub(crate) fn hang_up_orphans(&mut self, tgid: Tid, parent: Tid) {
        let (Some(process), Some(parent)) = (self.processes.get(&tgid), self.processes.get(&parent)) else {
            return;
        };
        let (pgid, sid) = (process.pgid, process.sid);
        let was_tied = parent.pgid != pgid && parent.sid == sid;
        let has_stopped = self.processes.values().any(|member| member.pgid == pgid && member.stopped);
        if was_tied && has_stopped && self.is_orphaned(pgid, sid) {
            self.signal_group(pgid, Signal::SIGHUP);
            self.signal_group(pgid, Signal::SIGCONT);
        }
    }

    /// Stops every thread of the process.
    fn stop_process(&mut self, tgid: Tid, signal: Signal) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.stopped = true;
        process.stop_event = Some(StopEvent::Stopped(signal.number()));
        for tid in process.threads.clone() {
            if let Some(task) = self.tasks.get_mut(&tid)
                && !matches!(task.state, TaskState::Stopped)
            {
                let was_runnable = matches!(task.state, TaskState::Runnable);
                task.state = TaskState::Stopped;
                if was_runnable {
                    self.run_queue.remove(tid);
                }
            }
        }
        self.notify_parent(
            tgid,
            u32::from(Signal::SIGCHLD.number()),
            linux::CLD_STOPPED,
            i32::from(signal.number()),
        );
    }

    /// Lets a stopped process go on.
    pub(crate) fn continue_process(&mut self, tgid: Tid) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        if !std::mem::take(&mut process.stopped) {
            return;
        }
        process.stop_event = Some(StopEvent::Continued);
        for tid in process.threads.clone() {
            if let Some(task) = self.tasks.get_mut(&tid)
                && matches!(task.state, TaskState::Stopped)
            {
                task.state = TaskState::Runnable;
                self.run_queue.push(tid);
            }
        }
        self.notify_parent(
            tgid,
            u32::from(Signal::SIGCHLD.number()),
            linux::CLD_CONTINUED,
            i32::from(Signal::SIGCONT.number()),
        );
    }
}
