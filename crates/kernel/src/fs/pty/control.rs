//! Job control (setsid(2), tcsetpgrp(3)): whose controlling terminal a terminal is, and who of the session may use
//! it.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Signal};

use super::Pty;
use crate::vfs::permission::has_capability;
use crate::vfs::{FsContext, ProcessFacts, ProcessState};

/// Returns the process that asks.
pub(super) fn caller(cx: &FsContext<'_>) -> Option<ProcessFacts> {
    cx.procs.process(cx.procs.pid_of(cx.tid.0)?)
}

impl Pty {
    /// Returns the foreground process group, 0 for none.
    pub fn foreground(&self) -> u32 {
        self.foreground.get()
    }

    /// Whether it is the controlling terminal of the process.
    pub(super) fn controls(&self, process: &ProcessFacts) -> bool {
        self.session.get() != 0 && self.session.get() == process.session
    }

    /// Makes it the controlling terminal of the caller, if that leads a session and neither has one.
    pub(super) fn adopt(&self, cx: &FsContext<'_>) {
        if let Some(process) = caller(cx)
            && process.session == process.pid
            && self.session.get() == 0
            && cx.vfs.ptys().of_session(process.session).is_none()
        {
            self.give_to(&process);
        }
    }

    fn give_to(&self, process: &ProcessFacts) {
        self.session.set(process.session);
        self.foreground.set(process.pgrp);
    }

    /// Makes it the controlling terminal of a session outright, with that foreground process group.
    pub fn set_session(&self, session: u32, group: u32) {
        self.session.set(session);
        self.foreground.set(group);
    }

    /// TIOCSCTTY. Errors: EPERM for who may not.
    pub(super) fn set_controlling(&self, cx: &FsContext<'_>, steal: bool) -> Result<(), Errno> {
        let process = caller(cx).ok_or(Errno::EPERM)?;
        let leads = process.session == process.pid;
        if leads && self.session.get() == process.session {
            return Ok(());
        }
        let has_other = cx.vfs.ptys().of_session(process.session).is_some();
        if !leads || has_other {
            return Err(Errno::EPERM);
        }
        if self.session.get() != 0 && !(steal && has_capability(cx.creds, linux::CAP_SYS_ADMIN)) {
            return Err(Errno::EPERM);
        }
        self.give_to(&process);
        Ok(())
    }

    /// TIOCNOTTY. Errors: ENOTTY for a process whose controlling terminal it is not.
    pub(super) fn give_up(&self, cx: &FsContext<'_>) -> Result<(), Errno> {
        let process = caller(cx).filter(|process| self.controls(process)).ok_or(Errno::ENOTTY)?;
        if process.session == process.pid {
            let group = self.release();
            self.post(group, Signal::SIGHUP);
            self.post(group, Signal::SIGCONT);
        }
        Ok(())
    }

    /// Makes it nobody's controlling terminal; returns what was the foreground process group.
    pub(super) fn release(&self) -> u32 {
        self.session.set(0);
        self.foreground.replace(0)
    }

    /// TIOCGPGRP and TIOCGSID ask this first.
    pub(super) fn check_controls_caller(&self, cx: &FsContext<'_>) -> Result<ProcessFacts, Errno> {
        caller(cx).filter(|process| self.controls(process)).ok_or(Errno::ENOTTY)
    }

    /// TIOCSPGRP. Errors: ENOTTY, EPERM for a group of another session, ESRCH for one that is not there.
    pub(super) fn set_foreground(&self, cx: &FsContext<'_>, group: i32) -> Result<(), Errno> {
        self.check_not_background(cx)?;
        let process = self.check_controls_caller(cx)?;
        let group = u32::try_from(group).map_err(|_| Errno::EINVAL)?;
        let member = |pid| cx.procs.process(pid).filter(|process| process.pgrp == group);
        let member = cx.procs.pids().into_iter().find_map(member).ok_or(Errno::ESRCH)?;
        if member.session != process.session {
            return Err(Errno::EPERM);
        }
        self.foreground.set(group);
        Ok(())
    }

    /// A background process that reads gets SIGTTIN. Errors: EAGAIN when it was sent, EIO where that is of no use.
    pub(super) fn check_may_read(&self, cx: &FsContext<'_>) -> Result<(), Errno> {
        let Some(process) = self.background_caller(cx) else { return Ok(()) };
        if ignores(cx, &process, Signal::SIGTTIN) || is_orphaned(cx, &process) {
            return Err(Errno::EIO);
        }
        self.post(process.pgrp, Signal::SIGTTIN);
        Err(Errno::EAGAIN)
    }

    /// A background process that writes gets SIGTTOU, if the terminal is set to that (TOSTOP).
    pub(super) fn check_may_write(&self, cx: &FsContext<'_>) -> Result<(), Errno> {
        match self.discipline.borrow().settings().c_lflag & linux::TOSTOP {
            0 => Ok(()),
            _ => self.check_not_background(cx),
        }
    }

    /// A background process that changes the terminal gets SIGTTOU. Errors: EAGAIN when it was sent, EIO for a
    /// group that nobody would let go on.
    pub(super) fn check_not_background(&self, cx: &FsContext<'_>) -> Result<(), Errno> {
        let Some(process) = self.background_caller(cx) else { return Ok(()) };
        if ignores(cx, &process, Signal::SIGTTOU) {
            return Ok(());
        }
        if is_orphaned(cx, &process) {
            return Err(Errno::EIO);
        }
        self.post(process.pgrp, Signal::SIGTTOU);
        Err(Errno::EAGAIN)
    }

    /// Returns the caller if it is a background process of this terminal's session.
    fn background_caller(&self, cx: &FsContext<'_>) -> Option<ProcessFacts> {
        if self.session.get() == 0 || self.foreground.get() == 0 {
            return None;
        }
        caller(cx).filter(|process| self.controls(process) && process.pgrp != self.foreground.get())
    }
}

/// Whether the caller ignores or blocks a signal.
fn ignores(cx: &FsContext<'_>, process: &ProcessFacts, signal: Signal) -> bool {
    let bit = 1u64 << (signal.number() - 1);
    let blocked = cx.procs.thread(process.pid, cx.tid.0).map_or(0, |thread| thread.blocked);
    (process.ignored | blocked) & bit != 0
}

/// Whether no member of the process's group has a parent in another group of the session.
fn is_orphaned(cx: &FsContext<'_>, process: &ProcessFacts) -> bool {
    let all: Vec<_> = cx.procs.pids().into_iter().filter_map(|pid| cx.procs.process(pid)).collect();
    // A member that has ended does not count, even if nobody has waited for it yet.
    let lives = |member: &&ProcessFacts| member.pgrp == process.pgrp && member.state != ProcessState::Zombie;
    !all.iter().filter(lives).any(|member| {
        all.iter().any(|parent| {
            parent.pid == member.ppid && parent.pgrp != process.pgrp && parent.session == process.session
        })
    })
}
