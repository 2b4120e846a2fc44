//! Making tasks: fork, vfork, clone and clone3.

use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigStack, Signal};

use super::{Process, Task, TaskState, Tid, WaitQueue};
use crate::Kernel;
use crate::fs::anon::new_anon;
use crate::fs::pidfd::PidFd;
use crate::mm::UserMemory;
use crate::signal::Pending;
use crate::vfs::OnExec;

/// What clone(2) asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CloneRequest {
    /// The `CLONE_` flags, without the exit signal.
    pub flags: u64,
    /// The signal that the child's end sends; 0 for none.
    pub exit_signal: u64,
    /// The child's stack pointer; 0 to keep the parent's.
    pub stack: u64,
    /// Where to store the child's number in the parent (CLONE_PARENT_SETTID).
    pub parent_tid: u64,
    /// Where to store a descriptor of the child in the parent (CLONE_PIDFD).
    pub pidfd: u64,
    /// Where to store, or clear at the end, the child's number in the child.
    pub child_tid: u64,
    /// The child's FS base (CLONE_SETTLS).
    pub tls: u64,
}

const VM: u64 = linux::CLONE_VM as u64;
const FS: u64 = linux::CLONE_FS as u64;
const FILES: u64 = linux::CLONE_FILES as u64;
const SIGHAND: u64 = linux::CLONE_SIGHAND as u64;
const THREAD: u64 = linux::CLONE_THREAD as u64;
const VFORK: u64 = linux::CLONE_VFORK as u64;
const PARENT: u64 = linux::CLONE_PARENT as u64;
const SETTLS: u64 = linux::CLONE_SETTLS as u64;
const PIDFD: u64 = linux::CLONE_PIDFD as u64;
const PARENT_SETTID: u64 = linux::CLONE_PARENT_SETTID as u64;
const CHILD_SETTID: u64 = linux::CLONE_CHILD_SETTID as u64;
const CHILD_CLEARTID: u64 = linux::CLONE_CHILD_CLEARTID as u64;
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Flags that change nothing here: no tracers, no I/O contexts, no undo lists, and obsolete ones.
const WITHOUT_EFFECT: u64 = (linux::CLONE_PTRACE
    | linux::CLONE_UNTRACED
    | linux::CLONE_IO
    | linux::CLONE_DETACHED
    | linux::CLONE_SYSVSEM) as u64;

const KNOWN: u64 = VM
    | FS
    | FILES
    | SIGHAND
    | THREAD
    | VFORK
    | PARENT
    | SETTLS
    | PIDFD
    | PARENT_SETTID
    | CHILD_SETTID
    | CHILD_CLEARTID
    | CLEAR_SIGHAND
    | WITHOUT_EFFECT;

/// The namespaces that a sandbox does not have of its own.
const NAMESPACES: u64 = (linux::CLONE_NEWNS
    | linux::CLONE_NEWUTS
    | linux::CLONE_NEWIPC
    | linux::CLONE_NEWUSER
    | linux::CLONE_NEWPID
    | linux::CLONE_NEWNET
    | linux::CLONE_NEWCGROUP) as u64;

impl Kernel {
    /// Refuses one more task to a user who has as many as RLIMIT_NPROC allows (getrlimit(2)).
    fn check_process_limit(&self, parent: Tid) -> Result<(), Errno> {
        let task = self.tasks.get(&parent).ok_or(Errno::ESRCH)?;
        let creds = &task.creds;
        let exempt = creds.uid == 0
            || creds.has_capability(linux::CAP_SYS_RESOURCE)
            || creds.has_capability(linux::CAP_SYS_ADMIN);
        let process = self.processes.get(&task.tgid).ok_or(Errno::ESRCH)?;
        let limit = process.rlimits.current(linux::RLIMIT_NPROC);
        let count = self.tasks.values().filter(|other| other.creds.uid == creds.uid).count() as u64;
        if !exempt && count >= limit { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// Makes a child of the task. It is runnable; it returns 0 from the call that the parent is in.
    ///
    /// Errors: EINVAL for flags that exclude each other or are not supported, EPERM for namespaces, EAGAIN
    /// at the limit of tasks, ENOMEM.
    pub fn clone_task(&mut self, parent: Tid, request: &CloneRequest) -> Result<Tid, Errno> {
        let has = |flag: u64| request.flags & flag != 0;
        if request.flags & NAMESPACES != 0 {
            return Err(Errno::EPERM);
        }
        if request.flags & !KNOWN != 0
            || (has(THREAD) && !has(SIGHAND))
            || (has(SIGHAND) && !has(VM))
            || (has(CLEAR_SIGHAND) && has(SIGHAND))
            || (has(PIDFD) && (has(THREAD) || has(linux::CLONE_DETACHED as u64)))
            || (has(PIDFD) && has(PARENT_SETTID) && request.pidfd == request.parent_tid)
            || request.exit_signal > u64::from(Signal::MAX)
        {
            return Err(Errno::EINVAL);
        }
        self.check_process_limit(parent)?;
        let tid = self.next_tid().ok_or(Errno::EAGAIN)?;
        self.charge_cpu();
        if self.loaded == Some(parent) {
            self.sync_task(parent)?;
        }
        let task = self.tasks.get(&parent).ok_or(Errno::ESRCH)?;
        let mm = if has(VM) {
            task.mm.clone()
        } else {
            let forked = task.mm.borrow_mut().fork()?;
            Rc::new(RefCell::new(forked))
        };
        let fds = if has(FILES) {
            task.fds.clone()
        } else {
            let copy = task.fds.borrow().fork(&self.fs_context(task))?;
            Rc::new(RefCell::new(copy))
        };
        let fs = if has(FS) {
            task.fs.clone()
        } else {
            let copy = task.fs.borrow().clone();
            Rc::new(RefCell::new(copy))
        };
        let actions = if has(SIGHAND) {
            task.actions.clone()
        } else {
            let mut copy = task.actions.borrow().clone();
            if has(CLEAR_SIGHAND) {
                copy.reset_for_exec();
            }
            Rc::new(RefCell::new(copy))
        };
        let mut context = task.context.duplicate();
        context.regs.rax = 0;
        if request.stack != 0 {
            context.regs.rsp = request.stack;
        }
        if has(SETTLS) {
            context.regs.fs_base = request.tls;
        }
        let (tgid, mask, creds, comm) = (task.tgid, task.mask, task.creds.clone(), task.comm.clone());
        let memory_policy = task.memory_policy;
        // A child that borrows its parent's memory but not its stack must not run handlers on its stack.
        let alt_stack = if has(VM) && !has(VFORK) {
            SigStack { ss_flags: linux::SS_DISABLE as i32, ..SigStack::default() }
        } else {
            task.alt_stack
        };
        let vfork_done = has(VFORK).then(WaitQueue::new);
        let child = Task {
            tid,
            tgid: if has(THREAD) { tgid } else { tid },
            context,
            state: TaskState::Runnable,
            call: None,
            mm,
            fds,
            fs,
            actions,
            creds,
            mask,
            saved_mask: None,
            pending: Pending::default(),
            alt_stack,
            clear_child_tid: if has(CHILD_CLEARTID) { request.child_tid } else { 0 },
            robust_list: 0,
            rseq: if has(VM) { None } else { task.rseq },
            comm,
            vfork_done,
            cpu_ns: 0,
            settings: task.settings.inherit(),
            parent_death_signal: 0,
            memory_policy,
            leaving: None,
        };
        if has(PARENT_SETTID) {
            UserMemory::new(&task.mm).copy_out(request.parent_tid, &tid.0)?;
        }
        if has(CHILD_SETTID) {
            // As on Linux, a bad address is the child's misfortune, not an error of the call.
            let _ = UserMemory::new(&child.mm).copy_out(request.child_tid, &tid.0);
        }
        let ended = WaitQueue::new();
        if has(PIDFD) {
            self.give_pidfd(task, PidFd::new(tid, &ended), request.pidfd)?;
        }
        let process = self.processes.get_mut(&tgid).ok_or(Errno::ESRCH)?;
        if has(THREAD) {
            process.threads.push(tid);
        } else {
            let started_ns = self.clock.monotonic_ns();
            let new = Process {
                parent: if has(PARENT) { process.parent } else { tgid },
                pgid: process.pgid,
                sid: process.sid,
                exit_signal: if has(PARENT) { process.exit_signal } else { request.exit_signal as u32 },
                exe: process.exe.clone(),
                dumpable: process.dumpable,
                oom: process.oom.clone(),
                ended,
                huge_pages_disabled: process.huge_pages_disabled,
                ..Process::new(tid, tgid, process.rlimits.clone(), started_ns)
            };
            self.processes.insert(tid, new);
        }
        self.tasks.insert(tid, child);
        self.stats.tasks_created += 1;
        self.run_queue.push(tid);
        Ok(tid)
    }

    /// Gives the parent a descriptor of the child that is being made, and stores its number at `addr`.
    ///
    /// Errors: EMFILE, ENFILE, EFAULT.
    fn give_pidfd(&self, parent: &Task, file: Rc<PidFd>, addr: u64) -> Result<(), Errno> {
        let description = new_anon(&self.fs_context(parent), file, "[pidfd]", linux::O_RDWR)?;
        let process = self.processes.get(&parent.tgid).ok_or(Errno::ESRCH)?;
        let limit = process.rlimits.current(linux::RLIMIT_NOFILE);
        let fd = parent.fds.borrow_mut().insert(description, OnExec::Close, limit)?;
        let stored = UserMemory::new(&parent.mm).copy_out(addr, &fd);
        if stored.is_err() {
            parent.fds.borrow_mut().remove(u64::from(fd))?;
        }
        stored
    }
}
