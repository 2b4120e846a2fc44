//! Sending signals.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigInfo, SigSet, Signal};

use super::{DefaultAction, Disposition};
use crate::Kernel;
use crate::task::{ExitStatus, Process, ProcessState, TaskState, Tid};

/// Whom a signal is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignalTarget {
    /// One thread (tgkill(2)).
    Thread(Tid),
    /// Any thread of a process (kill(2)).
    Process(Tid),
}

/// What became of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// It waits to be taken, or it ends the process.
    Queued,
    /// The process ignores it.
    Ignored,
    /// There is nobody to take it.
    Lost,
    /// There is no room for it.
    Full,
}

impl Kernel {
    /// Sends a signal, and says what became of it. To a process that is gone or a zombie it does nothing.
    pub fn send_signal(&mut self, target: SignalTarget, signal: Signal, info: SigInfo) -> Sent {
        let tgid = match target {
            SignalTarget::Process(tgid) => tgid,
            SignalTarget::Thread(tid) => match self.tasks.get(&tid) {
                Some(task) => task.tgid,
                None => return Sent::Lost,
            },
        };
        let Some(process) = self.processes.get(&tgid) else { return Sent::Lost };
        if process.state != ProcessState::Alive {
            return Sent::Lost;
        }
        if signal == Signal::SIGCONT {
            self.discard_pending(
                tgid,
                [Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU]
                    .iter()
                    .fold(SigSet::EMPTY, |set, stop| set.union(SigSet::only(*stop))),
            );
            self.continue_process(tgid);
        } else if DefaultAction::of(signal) == DefaultAction::Stop {
            self.discard_pending(tgid, SigSet::only(Signal::SIGCONT));
        }
        if signal == Signal::SIGKILL {
            self.begin_exit(tgid, ExitStatus::Signaled { signal: signal.number(), core: false });
            return Sent::Queued;
        }
        let Some(first) = self.processes[&tgid].threads.first().copied() else { return Sent::Lost };
        let threads = self.processes[&tgid].threads.clone();
        let receiver = match target {
            SignalTarget::Thread(tid) => tid,
            SignalTarget::Process(_) => threads
                .into_iter()
                .find(|tid| self.tasks.get(tid).is_some_and(|task| !task.mask.contains(signal)))
                .unwrap_or(first),
        };
        let Some(task) = self.tasks.get_mut(&receiver) else { return Sent::Lost };
        let ignored = task.actions.borrow().ignores(signal);
        if ignored && !task.mask.contains(signal) && task.saved_mask.is_none() {
            return Sent::Ignored;
        }
        let queued = match target {
            SignalTarget::Thread(_) => task.pending.push(signal, info),
            SignalTarget::Process(_) => match self.processes.get_mut(&tgid) {
                Some(process) => process.pending.push(signal, info),
                None => false,
            },
        };
        if !queued {
            return Sent::Full;
        }
        self.signal_arrived.wake_all();
        self.interrupt_sleep(receiver);
        Sent::Queued
    }

    /// Makes a sleeping task look at its signals if it now has one to take.
    fn interrupt_sleep(&mut self, tid: Tid) {
        if !self.has_signal_to_take(tid) {
            return;
        }
        if let Some(task) = self.tasks.get(&tid)
            && let TaskState::Sleeping(sleep) = &task.state
        {
            sleep.sleeper.wake();
        }
    }

    /// Says whether the task has a signal that it would act on now.
    pub fn has_signal_to_take(&self, tid: Tid) -> bool {
        self.next_signal(tid).is_some()
    }

    /// Returns the signal that the task would act on next, without taking it, and what it would do.
    pub(crate) fn next_signal(&self, tid: Tid) -> Option<(Signal, Disposition)> {
        let task = self.tasks.get(&tid)?;
        let process = self.processes.get(&task.tgid)?;
        let waiting = task.pending.set().union(process.pending.set()).minus(task.mask);
        let actions = task.actions.borrow();
        waiting
            .iter()
            .find(|signal| !actions.ignores(*signal))
            .map(|signal| (signal, actions.disposition(signal)))
    }

    fn discard_pending(&mut self, tgid: Tid, unwanted: SigSet) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.pending.discard(unwanted);
        for tid in &process.threads {
            if let Some(task) = self.tasks.get_mut(tid) {
                task.pending.discard(unwanted);
            }
        }
    }

    /// Raises a signal that the thread can not escape: a fault of its own. Where it blocks or ignores the
    /// signal, it gets the default action.
    pub fn force_signal(&mut self, tid: Tid, signal: Signal, info: SigInfo) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let blocked = task.mask.contains(signal);
        let ignored = task.actions.borrow().ignores(signal);
        if blocked || ignored {
            task.mask.remove(signal);
            task.actions.borrow_mut().set(signal, lg_abi::SigAction::default());
        }
        task.pending.push(signal, info);
    }

    /// Sends a signal as kill(2) does: to a process, a group, or all.
    ///
    /// Errors: ESRCH, EPERM, as kill(2).
    pub fn kill(&mut self, sender: Tid, pid: i32, signal: Option<Signal>) -> Result<(), Errno> {
        let sender_process = self.tasks.get(&sender).ok_or(Errno::ESRCH)?.tgid;
        let own_group = self.processes.get(&sender_process).ok_or(Errno::ESRCH)?.pgid;
        let everyone = self.processes.values();
        let targets: Vec<Tid> = match pid {
            1.. => everyone.filter(|p| p.tgid.0 == pid as u32).map(|p| p.tgid).collect(),
            0 => everyone.filter(|p| p.pgid == own_group).map(|p| p.tgid).collect(),
            -1 => everyone.filter(|p| p.tgid != sender_process).map(|p| p.tgid).collect(),
            _ => everyone.filter(|p| p.pgid.0 == pid.unsigned_abs()).map(|p| p.tgid).collect(),
        };
        if targets.is_empty() {
            return Err(Errno::ESRCH);
        }
        let uid = self.tasks[&sender].creds.uid;
        let mut allowed = false;
        for tgid in targets {
            if self.may_send(sender, tgid, signal) {
                allowed = true;
                if let Some(signal) = signal {
                    let info = SigInfo::from_process(signal, SigInfo::SI_USER, sender_process.0, uid);
                    self.send_signal(SignalTarget::Process(tgid), signal, info);
                }
            }
        }
        if allowed { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Says whether the sender may send this signal to the process: SIGCONT it may within its session.
    pub(crate) fn may_send(&self, sender: Tid, tgid: Tid, signal: Option<Signal>) -> bool {
        let session = |tgid: Tid| self.processes.get(&tgid).map(|process| process.sid);
        let own = self.tasks.get(&sender).and_then(|task| session(task.tgid));
        signal == Some(Signal::SIGCONT) && own.is_some() && own == session(tgid)
            || self.may_signal(sender, tgid)
    }

    /// Says whether the sender's user may send signals to the process (kill(2)).
    pub fn may_signal(&self, sender: Tid, tgid: Tid) -> bool {
        let Some(sender) = self.tasks.get(&sender) else { return false };
        let Some(target) = self
            .processes
            .get(&tgid)
            .and_then(|process| process.threads.first().and_then(|tid| self.tasks.get(tid)))
        else {
            return true;
        };
        let (from, to) = (&sender.creds, &target.creds);
        from.has_capability(linux::CAP_KILL)
            || [from.euid, from.uid].iter().any(|uid| *uid == to.uid || *uid == to.suid)
    }

    /// Tells a parent that its child has ended, stopped or gone on: SIGCHLD and a wake-up.
    pub(crate) fn notify_parent(&mut self, tgid: Tid, signal: u32, code: u32, status: i32) {
        let Some(process) = self.processes.get(&tgid) else { return };
        let (parent, children_of) = (process.parent, tgid);
        let uid =
            process.threads.first().and_then(|tid| self.tasks.get(tid)).map_or(0, |task| task.creds.uid);
        let Some(parent_process) = self.processes.get(&parent) else { return };
        parent_process.child_event.wake_all();
        let Some(signal) = Signal::new(u64::from(signal)) else { return };
        let mut info = SigInfo::from_child(code as i32, children_of.0, uid, status);
        info.signo = i32::from(signal.number());
        let wants_stops = code == linux::CLD_EXITED
            || code == linux::CLD_KILLED
            || code == linux::CLD_DUMPED
            || !self.ignores_stops(parent_process);
        if wants_stops {
            self.send_signal(SignalTarget::Process(parent), signal, info);
        }
    }

    fn ignores_stops(&self, process: &Process) -> bool {
        process.threads.first().and_then(|tid| self.tasks.get(tid)).is_some_and(|task| {
            task.actions.borrow().get(Signal::SIGCHLD).flags & u64::from(linux::SA_NOCLDSTOP) != 0
        })
    }
}
