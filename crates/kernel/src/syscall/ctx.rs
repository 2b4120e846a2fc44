//! What a system call can reach: the kernel, and the task that makes the call.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use lg_abi::{Errno, Rlimit, SigInfo, SigSet, Signal, Timespec};

use crate::Kernel;
use crate::mm::UserMemory;
use crate::signal::SignalTarget;
use crate::task::{Call, Process, SysResult, Task, Tid, Wait};
use crate::vfs::{FdTable, FileDescription, FsContext, FsState};

/// A system call in progress.
pub struct Ctx<'k> {
    /// The kernel.
    pub kernel: &'k mut Kernel,
    /// The calling task.
    pub tid: Tid,
}

impl Ctx<'_> {
    /// Returns the calling task.
    ///
    /// # Panics
    ///
    /// Never in a call: a task that ends goes only after its call has returned.
    pub fn task(&self) -> &Task {
        self.kernel.tasks.get(&self.tid).expect("the calling task lives")
    }

    /// Returns the calling task, to be changed.
    pub fn task_mut(&mut self) -> &mut Task {
        self.kernel.tasks.get_mut(&self.tid).expect("the calling task lives")
    }

    /// Returns the calling process.
    pub fn process(&self) -> &Process {
        self.kernel.processes.get(&self.task().tgid).expect("a living task has a process")
    }

    /// Returns the calling process, to be changed.
    pub fn process_mut(&mut self) -> &mut Process {
        let tgid = self.task().tgid;
        self.kernel.processes.get_mut(&tgid).expect("a living task has a process")
    }

    fn call_mut(&mut self) -> &mut Call {
        self.task_mut().call.get_or_insert_default()
    }

    /// Returns what file-system operations need to know.
    pub fn fs(&self) -> FsContext<'_> {
        self.kernel.fs_context(self.task())
    }

    /// Returns the descriptors.
    pub fn fds(&self) -> Rc<RefCell<FdTable>> {
        self.task().fds.clone()
    }

    /// Returns root, working directory and umask.
    pub fn fs_state(&self) -> Rc<RefCell<FsState>> {
        self.task().fs.clone()
    }

    /// Returns the open file of a descriptor.
    ///
    /// Errors: EBADF.
    pub fn fd(&self, fd: u64) -> Result<Rc<FileDescription>, Errno> {
        self.task().fds.borrow().get(fd)
    }

    /// Returns the open file of a descriptor that is more than a place (O_PATH).
    ///
    /// Errors: EBADF.
    pub fn open_fd(&self, fd: u64) -> Result<Rc<FileDescription>, Errno> {
        self.fd(fd).and_then(|file| if file.is_path_only() { Err(Errno::EBADF) } else { Ok(file) })
    }

    /// Returns the access to the caller's memory.
    pub fn user(&self) -> UserMemory {
        UserMemory::new(&self.task().mm)
    }

    /// Copies a value in. Errors: EFAULT.
    pub fn copy_in<T: FromBytes + IntoBytes>(&self, addr: u64) -> Result<T, Errno> {
        self.user().copy_in(addr)
    }

    /// Copies a value out. Errors: EFAULT.
    pub fn copy_out<T: IntoBytes + Immutable + ?Sized>(&self, addr: u64, value: &T) -> Result<(), Errno> {
        self.user().copy_out(addr, value)
    }

    /// Copies a value out unless the address is NULL. Errors: EFAULT.
    pub fn copy_out_opt<T: IntoBytes + Immutable>(&self, addr: u64, value: &T) -> Result<(), Errno> {
        if addr == 0 { Ok(()) } else { self.copy_out(addr, value) }
    }

    /// Fills `buf` from user memory. Errors: EFAULT.
    pub fn read_bytes(&self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.user().read(addr, buf)
    }

    /// Writes to user memory. Errors: EFAULT.
    pub fn write_bytes(&self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        self.user().write(addr, data)
    }

    /// Writes to user memory as far as that goes, and returns how far.
    pub fn write_bytes_partial(&self, addr: u64, data: &[u8]) -> usize {
        self.user().write_partial(addr, data)
    }

    /// Copies a path in. Errors: EFAULT, ENAMETOOLONG. It may be empty.
    pub fn read_path(&self, addr: u64) -> Result<Vec<u8>, Errno> {
        self.user().read_string(addr, 4096)
    }

    /// Sends the caller a signal.
    pub fn signal_self(&mut self, signal: Signal) {
        let tgid = self.task().tgid.0;
        let info = SigInfo::from_process(signal, SigInfo::SI_USER, tgid, self.task().creds.uid);
        self.kernel.send_signal(SignalTarget::Thread(self.tid), signal, info);
    }

    /// Says whether the caller has a signal that would interrupt a sleep.
    pub fn signal_pending(&self) -> bool {
        self.kernel.has_signal_to_take(self.tid)
    }

    /// Gives the caller another signal mask until the call is over and its signals are taken
    /// (ppoll(2), sigsuspend(2)). In a call that is made again the mask is in place already.
    pub fn set_temporary_mask(&mut self, mask: SigSet) {
        let task = self.task_mut();
        if task.saved_mask.is_none() {
            task.saved_mask = Some(task.mask);
        }
        task.mask = mask.minus(SigSet::UNBLOCKABLE);
    }

    /// Returns a limit of one of the `RLIMIT_` constants.
    pub fn rlimit(&self, resource: u32) -> Rlimit {
        let unlimited = Rlimit { cur: u64::MAX, max: u64::MAX };
        self.process().rlimits.get(u64::from(resource)).unwrap_or(unlimited)
    }

    /// Returns the time on CLOCK_MONOTONIC in ns.
    pub fn now_ns(&self) -> u64 {
        self.kernel.clock.monotonic_ns()
    }

    /// Returns the time `ns` after the call was first made, on CLOCK_MONOTONIC.
    pub fn deadline_after(&mut self, ns: u64) -> u64 {
        let deadline_ns = self.now_ns().saturating_add(ns);
        *self.call_mut().deadline_ns.get_or_insert(deadline_ns)
    }

    /// Returns the time-out argument of a call (a `struct timespec`), as a deadline; `None` for NULL.
    ///
    /// Errors: EFAULT, EINVAL.
    pub fn deadline_from(&mut self, timespec_addr: u64) -> Result<Option<u64>, Errno> {
        if timespec_addr == 0 {
            return Ok(None);
        }
        let timeout_ns = self.copy_in::<Timespec>(timespec_addr)?.to_ns().ok_or(Errno::EINVAL)?;
        Ok(Some(self.deadline_after(timeout_ns)))
    }

    /// Returns what earlier tries of the call have done.
    pub fn progress(&mut self) -> &mut u64 {
        &mut self.call_mut().progress
    }

    /// Makes the call fail with EAGAIN where it would have to sleep, whatever its files say.
    pub fn forbid_sleep(&mut self) {
        self.call_mut().never_sleeps = true;
    }

    /// Says whether the call may sleep, as far as its flags go.
    pub fn may_sleep(&self) -> bool {
        self.task().call.as_ref().is_none_or(|call| !call.never_sleeps)
    }

    /// Returns what an earlier try of the call has kept.
    pub fn kept<T: Any>(&mut self) -> Option<Rc<T>> {
        self.call_mut().state.clone().and_then(|state| state.downcast().ok())
    }

    /// Keeps something for the next try of the call.
    pub fn keep<T: Any>(&mut self, state: Rc<T>) {
        self.call_mut().state = Some(state);
    }

    /// Sleeps until the wait's events; then the call is made again.
    pub fn block(&self, wait: Wait) -> SysResult {
        Err(crate::task::Stop::Block(wait))
    }
}
