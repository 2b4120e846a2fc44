//! A vmm in the hands of an attacker: [`Captive`] makes it execute any system call.
//!
//! It is traced by ptrace(2), which takes privileges that no sandbox has, and changes nothing in the vmm but the registers
//! of its first thread and the code at its entry point, which is executed once and never again. The calls are the vmm's
//! own: its filter, its namespaces and its descriptors decide what comes of them. When the attacker
//! ends, what it has traced ends as well.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How a process ended that an attack was tried in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By a signal: SIGSYS is the filter's.
    Signal(Signal),
    /// By itself, with this status.
    Exit(i32),
}

/// What a system call answered, a negative errno included, or how the process ended in it.
pub type Answer = Result<i64, End>;

/// `syscall; int3`.
const SYSCALL: [u8; 3] = [0x0f, 0x05, 0xcc];
/// `int 0x80; int3`: the entry of 32-bit programs.
const INT_80: [u8; 3] = [0xcd, 0x80, 0xcc];
/// Type of the entry point in the auxiliary vector.
const AT_ENTRY: u64 = 9;
/// Bytes of memory that are made for arguments.
const SCRATCH_BYTES: u64 = 1 << 20;

/// A process that does what it is told.
pub struct Captive {
    pid: Pid,
    memory: File,
    registers: libc::user_regs_struct,
    code: u64,
    scratch: u64,
    ended: Cell<bool>,
    /// The last fork that it made, by its number on the host.
    forked: Cell<i32>,
}

impl Captive {
    /// Takes a running process over.
    ///
    /// # Errors
    /// When this process may not trace it.
    pub fn take(pid: i32) -> io::Result<Captive> {
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACECLONE)?;
        ptrace::interrupt(pid)?;
        let mut captive = Captive::stopped(pid)?;
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        match captive.call(libc::SYS_mmap, &[0, SCRATCH_BYTES, protection, flags, u64::MAX, 0]) {
            Ok(at @ 1..) => captive.scratch = at.cast_unsigned(),
            other => return Err(io::Error::other(format!("memory for arguments: {other:?}"))),
        }
        Ok(captive)
    }

    /// A process that is traced and about to stop.
    fn stopped(pid: Pid) -> io::Result<Captive> {
        match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => {}
            other => return Err(io::Error::other(format!("{other:?} in place of a stop"))),
        }
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        let vector = std::fs::read(format!("/proc/{pid}/auxv"))?;
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        let mut entries = vector.chunks_exact(16).map(|entry| (word(&entry[..8]), word(&entry[8..])));
        let (_, code) =
            entries.find(|entry| entry.0 == AT_ENTRY).ok_or_else(|| io::Error::other("no entry point"))?;
        Ok(Captive {
            pid,
            memory,
            registers: ptrace::getregs(pid)?,
            code,
            scratch: 0,
            ended: Cell::new(false),
            forked: Cell::new(0),
        })
    }

    /// Makes a system call.
    pub fn call(&self, number: i64, arguments: &[u64]) -> Answer {
        let mut registers = self.registers;
        let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
        (registers.rdi, registers.rsi, registers.rdx) = (argument(0), argument(1), argument(2));
        (registers.r10, registers.r8, registers.r9) = (argument(3), argument(4), argument(5));
        self.execute(SYSCALL, number, registers)
    }

    /// Makes a system call by the entry of 32-bit programs, with its number there and no arguments.
    pub fn call_32(&self, number: i64) -> Answer {
        let mut registers = self.registers;
        (registers.rbx, registers.rcx, registers.rdx) = (0, 0, 0);
        self.execute(INT_80, number, registers)
    }

    fn execute(&self, code: [u8; 3], number: i64, mut registers: libc::user_regs_struct) -> Answer {
        registers.rax = number.cast_unsigned();
        // No call is under way that the host should go on with.
        registers.orig_rax = u64::MAX;
        registers.rip = self.code;
        // The runtime may kill it at any time; the wait then says so, whatever fails before.
        let _ = self.memory.write_all_at(&code, self.code);
        unless_gone(ptrace::setregs(self.pid, registers));
        let mut signal = None;
        loop {
            unless_gone(ptrace::cont(self.pid, signal.take()));
            match waitpid(self.pid, Some(WaitPidFlag::__WALL)).expect("it is traced") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    if let Some(registers) = unless_gone(ptrace::getregs(self.pid)) {
                        return Ok(registers.rax.cast_signed());
                    }
                }
                // A fork has been made, which is traced as well. The answer is its number in the vmm's own namespace.
                WaitStatus::PtraceEvent(..) => {
                    if let Some(forked) = unless_gone(ptrace::getevent(self.pid)) {
                        self.forked.set(forked as i32);
                    }
                }
                WaitStatus::Stopped(_, other) => signal = Some(other),
                WaitStatus::Signaled(_, signal, _) => return Err(self.ended(End::Signal(signal))),
                WaitStatus::Exited(_, status) => return Err(self.ended(End::Exit(status))),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Forks it as the filter allows. The fork is a captive, too.
    ///
    /// # Errors
    /// When the call fails, or the fork can not be traced.
    pub fn fork(&self) -> io::Result<Captive> {
        match self.call(libc::SYS_clone, &[libc::CLONE_PARENT as u64]) {
            Ok(1..) => {
                let fork = Captive::stopped(Pid::from_raw(self.forked.get()))?;
                Ok(Captive { scratch: self.scratch, ..fork })
            }
            other => Err(io::Error::other(format!("a fork answered {other:?}"))),
        }
    }

    /// Notes that it has ended: its number may be another process's soon.
    fn ended(&self, end: End) -> End {
        self.ended.set(true);
        end
    }

    /// Ends it, if it has not ended.
    pub fn end(self) {
        if !self.ended.get() {
            // It is traced, so nobody else has waited for it.
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, Some(WaitPidFlag::__WALL));
        }
    }

    /// Leaves it alone, stopped: it stays when the attacker ends.
    ///
    /// # Errors
    /// When it has ended.
    pub fn leave_behind(self) -> io::Result<()> {
        Ok(ptrace::detach(self.pid, Signal::SIGSTOP)?)
    }

    /// Waits until somebody else ends it. It does not run meanwhile.
    pub fn wait_for_end(&self) -> Answer {
        match waitpid(self.pid, Some(WaitPidFlag::__WALL)).expect("it is traced") {
            WaitStatus::Signaled(_, signal, _) => Err(self.ended(End::Signal(signal))),
            other => panic!("{other:?}"),
        }
    }

    /// Its number on the host.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Puts bytes into its memory, always at the same place, and returns where.
    ///
    /// # Panics
    /// When there is no room for them.
    pub fn put(&self, bytes: &[u8]) -> u64 {
        assert!(bytes.len() as u64 <= SCRATCH_BYTES);
        let at = self.scratch;
        // It may have been killed; the next call says so.
        let _ = self.memory.write_all_at(bytes, at);
        at
    }

    /// Puts text into its memory, with a NUL at the end.
    pub fn put_text(&self, text: &str) -> u64 {
        self.put(&[text.as_bytes(), &[0]].concat())
    }

    /// Reads its memory.
    ///
    /// # Panics
    /// Where none is.
    pub fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, at).expect("it is mapped");
        bytes
    }

    /// Its mappings of memory files: where, and how many bytes.
    ///
    /// # Panics
    /// When they can not be listed.
    pub fn memory_files(&self) -> Vec<(u64, u64)> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).expect("it is traced");
        let mapping = |line: &str| {
            let (first, last) = line.split(' ').next()?.split_once('-')?;
            let (first, last) = (u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(last, 16).ok()?);
            line.contains("/memfd:").then_some((first, last - first))
        };
        maps.lines().filter_map(mapping).collect()
    }

    /// Its open descriptors, with what each of them is (the links in /proc/PID/fd).
    ///
    /// # Panics
    /// When they can not be listed.
    pub fn descriptors(&self) -> Vec<(u64, String)> {
        let directory = format!("/proc/{}/fd", self.pid);
        let entries = std::fs::read_dir(directory).expect("it is traced").flatten();
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            })
            .collect();
        all.sort();
        all
    }
}

/// What ptrace(2) answers for a process that is stopped, or `None` if it has been killed meanwhile.
fn unless_gone<T>(answer: nix::Result<T>) -> Option<T> {
    match answer {
        Err(nix::errno::Errno::ESRCH) => None,
        answer => Some(answer.expect("it is traced")),
    }
}
