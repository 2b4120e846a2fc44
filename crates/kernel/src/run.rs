//! The main loop: whose turn it is, why it stopped, what to do about it.

use std::os::fd::{AsFd, BorrowedFd};

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigInfo, Signal};
use lg_platform::{Access, PlatformError, Trap, UserAddr, Vector};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Kernel;
use crate::fs::pty::Recipient;
use crate::limits::Limit;
use crate::mm::{MemoryFault, UserMemory};
use crate::signal::{SignalTarget, floating_point_code};
use crate::task::{ExitStatus, Interest, Rlimits, SLICE_NS, Sleep, Sleeper, TaskState, Tid, Wait};
use crate::time::{Timer, thread_cpu_ns};

/// How many pages of file caches are dropped when memory runs short.
const RECLAIM_PAGES: u32 = 256;

/// A system call finds at least this many free frames, if file caches can give them.
const HEADROOM_PAGES: u32 = 64;

/// The first byte of the instruction `int` with a number.
const INT: u8 = 0xcd;

/// How a sandbox ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its first process ended so.
    Exited(ExitStatus),
    /// Its time was up.
    TimedOut,
    /// It was told to end.
    Killed,
    /// It has used what it may.
    LimitReached(Limit),
}

/// Why a sandbox can not go on.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Guest code can not run.
    #[error("the virtual machine failed")]
    Platform(#[from] PlatformError),
    /// Waiting for host descriptors failed.
    #[error("cannot wait for events on the host")]
    Poll(#[source] std::io::Error),
}

/// Who serves the sandbox's owner outside: takes requests, and passes on what has gathered inside.
pub trait Supervisor {
    /// Returns the descriptors that end the kernel's wait, each with what it is waited for.
    fn event_fds(&self) -> Vec<(BorrowedFd<'_>, Interest)>;

    /// Returns after how long running guest code is interrupted to look for requests, in ns; `None` where
    /// their arrival makes [`lg_platform::Platform::switch`] return by itself.
    fn look_every_ns(&self) -> Option<u64>;

    /// Serves what has come. Called when one of the descriptors is ready, when guest code was interrupted, and before
    /// the kernel waits. No task is in the middle of anything then.
    fn serve(&mut self, kernel: &mut Kernel) -> Result<(), KernelError>;
}

impl Kernel {
    /// Runs the sandbox to its end.
    pub fn run(&mut self, supervisor: &mut dyn Supervisor) -> Result<End, KernelError> {
        self.look_every_ns = supervisor.look_every_ns();
        loop {
            self.check_limits();
            self.expire_timers();
            self.wake_ready();
            if let Some(error) = self.failed.take() {
                return Err(error.into());
            }
            if let Some(end) = self.end {
                return Ok(end);
            }
            match self.run_queue.pop() {
                Some(tid) => {
                    self.idle_since_ns = None;
                    let turn = self.run_task(tid)?;
                    self.expire_cpu_timers(tid);
                    if turn == TurnEnd::Interrupted {
                        supervisor.serve(self)?;
                        self.poll_host(&[], Some(0))?;
                    }
                }
                None => {
                    supervisor.serve(self)?;
                    self.wake_ready();
                    if self.end.is_some() || !self.run_queue.is_empty() {
                        continue;
                    }
                    let until_ns = self.idle_until_ns();
                    let timeout = until_ns.map(|until| until.saturating_sub(self.clock.monotonic_ns()));
                    self.poll_host(&supervisor.event_fds(), timeout)?;
                }
            }
        }
    }

    /// Runs a task until it sleeps, ends, is stopped, or its turn is over.
    fn run_task(&mut self, tid: Tid) -> Result<TurnEnd, KernelError> {
        let slice_end_ns = self.clock.monotonic_ns().saturating_add(SLICE_NS);
        if self.tasks.get(&tid).is_some_and(|task| task.call.is_some()) {
            self.make_call(tid);
        }
        if self.loaded != Some(tid) {
            self.abort_sequence(tid);
        }
        loop {
            if !self.prepare_return(tid) {
                return Ok(TurnEnd::Gone);
            }
            let mut until_ns = earlier(self.next_event_ns(), self.cpu_check_ns());
            if self.has_cpu_timer(tid) {
                until_ns = Some(until_ns.map_or(slice_end_ns, |until| until.min(slice_end_ns)));
            }
            if let Some(every_ns) = self.look_every_ns {
                let look_ns = slice_end_ns.saturating_sub(SLICE_NS).saturating_add(every_ns);
                until_ns = Some(until_ns.map_or(look_ns, |until| until.min(look_ns)));
            }
            if !self.run_queue.is_empty() {
                until_ns = Some(until_ns.map_or(slice_end_ns, |until| until.min(slice_end_ns)));
            }
            let yielded = std::mem::take(&mut self.yielded) && !self.run_queue.is_empty();
            if yielded
                || self.is_over_output()
                || until_ns.is_some_and(|until| self.clock.monotonic_ns() >= until)
            {
                self.run_queue.push(tid);
                return Ok(TurnEnd::Interrupted);
            }
            match self.switch(tid, until_ns)? {
                Trap::Syscall => {
                    self.stats.syscall_traps += 1;
                    if self.frames.free() < HEADROOM_PAGES {
                        self.vfs.reclaim(RECLAIM_PAGES);
                    }
                    self.begin_call(tid);
                }
                Trap::PageFault { addr, access, present } => {
                    self.stats.fault_exits += 1;
                    self.page_fault(tid, addr, access, present);
                }
                Trap::Exception { vector, error_code } => {
                    self.stats.exception_exits += 1;
                    self.exception(tid, vector, error_code);
                }
                Trap::Interrupted => {
                    self.stats.interrupt_exits += 1;
                    self.run_queue.push(tid);
                    return Ok(TurnEnd::Interrupted);
                }
            }
            self.wake_ready();
        }
    }

    /// Brings a task to the point where user code goes on; false where it does not.
    fn prepare_return(&mut self, tid: Tid) -> bool {
        loop {
            self.take_signals(tid);
            let Some(task) = self.tasks.get(&tid) else { return false };
            let exiting = self.processes.get(&task.tgid).and_then(|process| process.exiting);
            if let Some(status) = exiting.or(task.leaving) {
                self.end_task(tid, status);
                return false;
            }
            if self.end.is_some() || self.failed.is_some() || !matches!(task.state, TaskState::Runnable) {
                return false;
            }
            if task.call.is_none() {
                return true;
            }
            // The signal that kept the call from sleeping changed nothing.
            self.make_call(tid);
        }
    }

    fn switch(&mut self, tid: Tid, until_ns: Option<u64>) -> Result<Trap, KernelError> {
        if self.loaded != Some(tid) {
            self.unload()?;
            self.loaded = Some(tid);
            self.stats.task_switches += 1;
        }
        let deadline_ns = until_ns.map(|until| self.clock.to_host_ns(until));
        let task = self.tasks.get_mut(&tid).expect("prepare_return has seen it");
        let space = task.mm.borrow().space();
        Ok(self.machine.borrow_mut().switch(space, &mut task.context, deadline_ns)?)
    }

    /// Takes the state of the task that ran last out of the platform, and charges it for its time.
    pub(crate) fn unload(&mut self) -> Result<(), PlatformError> {
        self.charge_cpu();
        if let Some(task) = self.loaded.take().and_then(|tid| self.tasks.get_mut(&tid)) {
            self.machine.borrow_mut().sync(&mut task.context)?;
        }
        Ok(())
    }

    /// Does what [`Kernel::unload`] does for a task whose state is not wanted any more.
    pub(crate) fn discard_loaded(&mut self) {
        if let Err(error) = self.unload() {
            self.failed.get_or_insert(error);
        }
    }

    /// Brings a task's lazy state out of the platform.
    ///
    /// Errors: EIO where the platform fails; then no answer reaches the guest any more, since the sandbox ends.
    pub(crate) fn sync_task(&mut self, tid: Tid) -> Result<(), Errno> {
        let task = self.tasks.get_mut(&tid).ok_or(Errno::ESRCH)?;
        let result = self.machine.borrow_mut().sync(&mut task.context);
        result.map_err(|error| {
            self.failed.get_or_insert(error);
            Errno::EIO
        })
    }

    /// Charges the loaded task for the processor time since the last charge.
    pub(crate) fn charge_cpu(&mut self) {
        let now_ns = thread_cpu_ns();
        let spent_ns = now_ns.saturating_sub(self.charged_until_ns);
        self.charged_until_ns = now_ns;
        if let Some(task) = self.loaded.and_then(|tid| self.tasks.get_mut(&tid)) {
            task.cpu_ns += spent_ns;
        }
    }

    fn page_fault(&mut self, tid: Tid, addr: UserAddr, access: Access, present: bool) {
        let Some(task) = self.tasks.get(&tid) else { return };
        if let Some(process) = self.processes.get_mut(&task.tgid) {
            process.used.faults += 1;
        }
        let mm = task.mm.clone();
        let mut result = mm.borrow_mut().fault(addr, access);
        if result == Err(MemoryFault::OutOfMemory) && self.vfs.reclaim(RECLAIM_PAGES) > 0 {
            result = mm.borrow_mut().fault(addr, access);
        }
        let (signal, code) = match result {
            Ok(()) => return,
            Err(MemoryFault::Unmapped) => (Signal::SIGSEGV, linux::SEGV_MAPERR),
            Err(MemoryFault::Forbidden) => (Signal::SIGSEGV, linux::SEGV_ACCERR),
            Err(MemoryFault::BeyondFile) => (Signal::SIGBUS, linux::BUS_ADRERR),
            Err(MemoryFault::OutOfMemory) => return self.out_of_memory(tid),
        };
        self.trace_line(tid, &format!("--- {signal} at {addr} ({access:?}, present: {present}) ---"));
        self.force_signal(tid, signal, SigInfo::from_fault(signal, code as i32, addr.0));
    }

    fn exception(&mut self, tid: Tid, vector: Vector, error_code: u64) {
        let Some(task) = self.tasks.get(&tid) else { return };
        let rip = task.context.regs.rip;
        let is_interrupt = || {
            let mut opcode = [0];
            UserMemory::new(&task.mm).read_partial(rip, &mut opcode) == 1 && opcode[0] == INT
        };
        let info = match vector {
            // PVM tells of `int` with a number that is not user code's as of an invalid opcode.
            Vector::INVALID_OPCODE if is_interrupt() => SigInfo::new(Signal::SIGSEGV, SigInfo::SI_KERNEL),
            Vector::DIVIDE_ERROR => SigInfo::from_fault(Signal::SIGFPE, linux::FPE_INTDIV as i32, rip),
            Vector::X87_FLOATING_POINT | Vector::SIMD_FLOATING_POINT => {
                // A state that can not be had ends the sandbox.
                let _ = self.sync_task(tid);
                let Some(task) = self.tasks.get(&tid) else { return };
                let code = floating_point_code(&task.context.fpu, vector);
                SigInfo::from_fault(Signal::SIGFPE, code as i32, rip)
            }
            Vector::DEBUG => SigInfo::from_fault(Signal::SIGTRAP, linux::TRAP_TRACE as i32, rip),
            Vector::BREAKPOINT => SigInfo::new(Signal::SIGTRAP, SigInfo::SI_KERNEL),
            Vector::INVALID_OPCODE => SigInfo::from_fault(Signal::SIGILL, linux::ILL_ILLOPN as i32, rip),
            Vector::ALIGNMENT_CHECK => SigInfo::from_fault(Signal::SIGBUS, linux::BUS_ADRALN as i32, 0),
            _ => SigInfo::new(Signal::SIGSEGV, SigInfo::SI_KERNEL),
        };
        let signal = Signal::new(info.signo as u64).unwrap_or(Signal::SIGSEGV);
        self.trace_line(
            tid,
            &format!("--- {signal}: exception {} ({error_code:#x}) at {rip:#x} ---", vector.0),
        );
        self.force_signal(tid, signal, info);
    }

    /// Puts a task to sleep in its system call.
    pub(crate) fn put_to_sleep(&mut self, tid: Tid, wait: Wait) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let sleeper = Sleeper::new(tid, &self.ready);
        wait.queues.iter().for_each(|queue| queue.add(&sleeper));
        if let Some(deadline_ns) = wait.deadline_ns {
            self.timers.add(deadline_ns, Timer::Sleep(tid));
        }
        task.state = TaskState::Sleeping(Sleep { wait, sleeper });
    }

    /// Makes the tasks runnable that were woken.
    pub(crate) fn wake_ready(&mut self) {
        for (recipient, signal) in self.vfs.ptys().take_posted() {
            match recipient {
                Recipient::Group(group) => self.signal_group(Tid(group), signal),
                // One that is gone needs no signal.
                Recipient::Process(process) => drop(self.signal_process(Tid(process), signal)),
            }
        }
        if self.ready.borrow().is_empty() {
            return;
        }
        let woken = self.ready.take();
        for tid in woken {
            let Some(task) = self.tasks.get_mut(&tid) else { continue };
            if let TaskState::Sleeping(sleep) = &task.state {
                if let Some(deadline_ns) = sleep.wait.deadline_ns {
                    self.timers.remove(deadline_ns, Timer::Sleep(tid));
                }
                task.state = TaskState::Runnable;
                self.run_queue.push(tid);
            }
        }
    }

    /// Returns when the next timer or the sandbox's deadline is due.
    pub(crate) fn next_event_ns(&self) -> Option<u64> {
        earlier(self.timers.next_ns(), self.deadline_ns())
    }

    fn expire_timers(&mut self) {
        if self.next_event_ns().is_none() {
            return;
        }
        let now_ns = self.clock.monotonic_ns();
        if self.deadline_ns().is_some_and(|deadline| now_ns >= deadline) {
            self.end.get_or_insert(End::TimedOut);
            return;
        }
        while let Some(timer) = self.timers.take_due(now_ns) {
            match timer {
                Timer::Sleep(tid) => {
                    if let Some(TaskState::Sleeping(sleep)) = self.tasks.get(&tid).map(|task| &task.state) {
                        sleep.sleeper.wake();
                    }
                }
                Timer::Real(tgid) => self.real_timer_expired(tgid, now_ns),
                Timer::Posix(tgid, id) => self.posix_timer_expired(tgid, id, now_ns),
            }
        }
    }

    fn real_timer_expired(&mut self, tgid: Tid, now_ns: u64) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.timers.real.advance(now_ns);
        if let Some(next_ns) = process.timers.real.next_ns {
            self.timers.add(next_ns, Timer::Real(tgid));
        }
        let info = SigInfo::new(Signal::SIGALRM, SigInfo::SI_KERNEL);
        self.send_signal(SignalTarget::Process(tgid), Signal::SIGALRM, info);
    }

    /// Says whether the processor time of the task's process is watched.
    fn has_cpu_timer(&self, tid: Tid) -> bool {
        let process = self.tasks.get(&tid).and_then(|task| self.processes.get(&task.tgid));
        process.is_some_and(|process| {
            process.timers.virtual_.next_ns.is_some()
                || process.timers.prof.next_ns.is_some()
                || process.posix_timers.watches_cpu()
                || process.rlimits.current(linux::RLIMIT_CPU) != Rlimits::INFINITY
        })
    }

    /// Sends the signals of processor-time timers and limits that the task's process has reached.
    fn expire_cpu_timers(&mut self, tid: Tid) {
        if !self.has_cpu_timer(tid) {
            return;
        }
        let Some(tgid) = self.tasks.get(&tid).map(|task| task.tgid) else { return };
        let used_ns = self.process_cpu_ns(tgid);
        self.expire_posix_cpu_timers(tgid, used_ns);
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        let mut due = Vec::new();
        for (timer, signal) in
            [(&mut process.timers.virtual_, Signal::SIGVTALRM), (&mut process.timers.prof, Signal::SIGPROF)]
        {
            if timer.next_ns.is_some_and(|next_ns| used_ns >= next_ns) {
                timer.advance(used_ns);
                due.push(signal);
            }
        }
        let limit = process.rlimits.get(u64::from(linux::RLIMIT_CPU)).unwrap_or_default();
        let second_ns = 1_000_000_000;
        if used_ns / second_ns >= limit.max {
            due.push(Signal::SIGKILL);
        } else if used_ns / second_ns >= limit.cur && process.cpu_limit_told < used_ns / second_ns {
            process.cpu_limit_told = used_ns / second_ns;
            due.push(Signal::SIGXCPU);
        }
        for signal in due {
            let info = SigInfo::new(signal, SigInfo::SI_KERNEL);
            self.send_signal(SignalTarget::Process(tgid), signal, info);
        }
    }

    /// Returns the processor time of a process's threads, living and ended, in ns.
    pub(crate) fn process_cpu_ns(&mut self, tgid: Tid) -> u64 {
        self.charge_cpu();
        let Some(process) = self.processes.get(&tgid) else { return 0 };
        let living: u64 =
            process.threads.iter().filter_map(|tid| self.tasks.get(tid)).map(|task| task.cpu_ns).sum();
        process.used.cpu_ns + living
    }

    /// Waits until one of `extra` or a host descriptor that a task sleeps on is ready, and wakes the task.
    fn poll_host(
        &mut self,
        extra: &[(BorrowedFd<'_>, Interest)],
        timeout_ns: Option<u64>,
    ) -> Result<(), KernelError> {
        let flags = |interest| match interest {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
        };
        let mut fds = Vec::new();
        let mut sleepers = Vec::new();
        for task in self.tasks.values() {
            if let TaskState::Sleeping(sleep) = &task.state {
                for event in &sleep.wait.host {
                    fds.push(PollFd::from_borrowed_fd(event.fd.as_fd(), flags(event.interest)));
                    sleepers.push(sleep.sleeper.clone());
                }
            }
        }
        if fds.is_empty() && extra.is_empty() && timeout_ns == Some(0) {
            return Ok(());
        }
        fds.extend(extra.iter().map(|(fd, interest)| PollFd::from_borrowed_fd(*fd, flags(*interest))));
        // Always with a time, if one that never comes: so it is ppoll(2), and the vmm needs no other such call of the host.
        let ns = timeout_ns.unwrap_or(u64::MAX);
        let timeout = Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(KernelError::Poll(error.into())),
        }
        for (fd, sleeper) in fds.iter().zip(&sleepers) {
            if !fd.revents().is_empty() {
                sleeper.wake();
            }
        }
        Ok(())
    }
}

/// Returns the earlier of two times that may never come.
fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Why a task's turn is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TurnEnd {
    /// It sleeps, is stopped, or has ended.
    Gone,
    /// Time was up, or something happened outside; the task is back in the queue.
    Interrupted,
}

#[cfg(test)]
mod tests;
