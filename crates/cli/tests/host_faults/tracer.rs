//! Runs a program with all its descendants under ptrace(2), counts their system calls, and makes one of them fail.
//!
//! A call that is to fail is replaced by getpid(2) at its entry, which every vmm may make, and gets its error at the exit.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{
    self, CLONE_THREAD, PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK,
    PTRACE_SYSCALL_INFO_ENTRY, SYS_getpid, SYS_getppid, SYS_sigaltstack, c_void,
};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls::{Fails, Kind, Row};
use super::scenario::Starts;

/// How long a run may take under the tracer, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(60);
/// How long anything may still be there when the program is over.
const MOMENT: Duration = Duration::from_secs(10);

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The program that was started.
    First,
    /// Another that it has started, or a fork of one.
    Other,
}

/// How often each call was made, from where the main function of each program begins.
pub type Counts = BTreeMap<(Side, Kind), usize>;

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A call fails.
    Fails {
        side: Side,
        kind: Kind,
        /// The how manieth of its kind, from 0.
        occurrence: usize,
        errno: Errno,
    },
    /// A process is killed in the middle of a call.
    Killed {
        side: Side,
        /// The how manieth call of its side, from 0.
        call: usize,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Signaled(Signal),
}

/// What was seen of a run.
#[derive(Debug)]
pub struct Trace {
    /// How the first program ended.
    pub end: End,
    pub counts: Counts,
    /// Whether the call was made in which something was to go wrong.
    pub is_injected: bool,
    /// What went wrong in the eyes of the tracer: it hung, something was left, a process crashed.
    pub wrong: Vec<String>,
}

impl Trace {
    /// How many calls of a side were counted.
    pub fn calls(&self, side: Side) -> usize {
        self.counts.iter().filter(|((of, _), _)| *of == side).map(|(_, count)| count).sum()
    }
}

/// Waits, in the place of a tracer that is about to come, and becomes the program that is named.
pub fn become_traced(words: &[String]) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let stopped = nix::sys::signal::raise(Signal::SIGSTOP);
    stopped.map_or_else(Into::into, |()| Command::new(&words[0]).args(&words[1..]).exec())
}

/// Runs a program to its end, with `directory` for its temporary files and its output in the files `out` and `err` there.
pub fn run(
    command: &[String],
    directory: &Path,
    starts: Starts,
    fault: Option<Fault>,
) -> std::io::Result<Trace> {
    use std::os::unix::process::CommandExt;
    let temporary = directory.join("tmp");
    std::fs::create_dir_all(&temporary)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("traced")
        .args(command)
        .env("TMPDIR", &temporary)
        .env("HOME", directory)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(File::create(directory.join("out"))?)
        .stderr(File::create(directory.join("err"))?)
        .process_group(0)
        .spawn()?;
    let first = Pid::from_raw(child.id().cast_signed());
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options)?;
    kill(first, Signal::SIGCONT)?;
    let watchdog = Watchdog::start(first);
    let mut tracer = Tracer::new(first, starts, fault);
    tracer.follow_all(&watchdog)?;
    let mut wrong = tracer.wrong;
    wrong.extend(watchdog.finish());
    // It is reaped already; this only says so to the library.
    let _ = child.try_wait();
    let end = tracer.end.ok_or_else(|| std::io::Error::other("the end of the program was not seen"))?;
    Ok(Trace { end, counts: tracer.counts, is_injected: tracer.is_injected, wrong })
}

/// Kills what takes too long.
struct Watchdog {
    first_is_over: Sender<()>,
    thread: std::thread::JoinHandle<Option<String>>,
}

impl Watchdog {
    fn start(group: Pid) -> Self {
        let (first_is_over, receiver) = channel();
        let thread = std::thread::spawn(move || {
            let too_long = if receiver.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                Some(format!("it did not end within {LIMIT:?}: {}", names_of(group)))
            } else if receiver.recv_timeout(MOMENT) == Err(RecvTimeoutError::Timeout) {
                Some(format!("{MOMENT:?} after its end this is left: {}", names_of(group)))
            } else {
                None
            };
            if too_long.is_some() {
                // What has just ended by itself was slow all the same.
                let _ = killpg(group, Signal::SIGKILL);
            }
            too_long
        });
        Self { first_is_over, thread }
    }

    fn finish(self) -> Option<String> {
        drop(self.first_is_over);
        self.thread.join().unwrap_or_else(|_| Some("the watchdog panicked".to_owned()))
    }
}

/// The processes of a group, by what proc(5) says of them.
fn names_of(group: Pid) -> String {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let of = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(2)?.to_owned();
        let place = std::fs::read_to_string(entry.path().join("wchan")).unwrap_or_default();
        let call = std::fs::read_to_string(entry.path().join("syscall")).unwrap_or_default();
        let words: Vec<&str> = stat.split_ascii_whitespace().take(4).collect();
        (of == group.to_string()).then(|| format!("{} in {place} ({})", words.join(" "), call.trim()))
    });
    stats.collect::<Vec<_>>().join(", ")
}

/// Whether the call that a tracee is in makes a thread of the same process: clone(2), clone3(2).
fn makes_thread(pid: Pid) -> bool {
    let Ok(registers) = ptrace::getregs(pid) else { return false };
    let flags = match registers.orig_rax.cast_signed() {
        libc::SYS_clone => Some(registers.rdi),
        // The first field of its argument.
        libc::SYS_clone3 => ptrace::read(pid, registers.rdi as *mut c_void).ok().map(i64::cast_unsigned),
        _ => None,
    };
    flags.is_some_and(|flags| flags & CLONE_THREAD.cast_unsigned() as u64 != 0)
}

/// What is known of one thread.
#[derive(Debug, Clone, Copy)]
struct Tracee {
    side: Side,
    /// Whether the program's own main function has begun: what the dynamic linker and the standard library do before is
    /// theirs.
    is_counted: bool,
    /// The error that the call under way gets.
    pending: Option<Errno>,
}

struct Tracer {
    first: Pid,
    starts: Starts,
    /// How often a runtime has called getppid(2): after the first time its calls are counted, after the second no more.
    marks: usize,
    fault: Option<Fault>,
    tracees: BTreeMap<Pid, Tracee>,
    counts: Counts,
    /// All calls of a side.
    calls: BTreeMap<Side, usize>,
    is_injected: bool,
    end: Option<End>,
    wrong: Vec<String>,
}

impl Tracer {
    fn new(first: Pid, starts: Starts, fault: Option<Fault>) -> Self {
        let tracee = Tracee { side: Side::First, is_counted: false, pending: None };
        Self {
            first,
            starts,
            marks: 0,
            fault,
            tracees: [(first, tracee)].into(),
            counts: Counts::new(),
            calls: BTreeMap::new(),
            is_injected: false,
            end: None,
            wrong: Vec::new(),
        }
    }

    /// Serves every stop of every tracee of this thread, until none is left.
    fn follow_all(&mut self, watchdog: &Watchdog) -> nix::Result<()> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return Ok(()),
                Err(Errno::EINTR) => continue,
                // A signal that the library has no name for, as those for real-time uses.
                Err(Errno::EINVAL) => continue,
                Err(error) => return Err(error),
            };
            if let Some(end) = self.stop(status) {
                self.end = Some(end);
                // The watchdog may have given up already.
                let _ = watchdog.first_is_over.send(());
            }
        }
    }

    /// Serves one stop, and lets the tracee go on. Answers the end of the first program.
    fn stop(&mut self, status: WaitStatus) -> Option<End> {
        let (pid, signal) = match status {
            WaitStatus::PtraceSyscall(pid) => {
                // One that was killed meanwhile has no registers.
                let _ = self.at_call(pid);
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.at_event(pid, event);
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            WaitStatus::Exited(pid, code) => return self.at_end(pid, End::Exited(code)),
            WaitStatus::Signaled(pid, signal, _) => return self.at_end(pid, End::Signaled(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => return None,
        };
        // One that was killed meanwhile tells its end.
        let _ = ptrace::syscall(pid, signal);
        None
    }

    fn at_end(&mut self, pid: Pid, end: End) -> Option<End> {
        self.tracees.remove(&pid);
        let is_crash = match end {
            End::Exited(code) => code == 101,
            End::Signaled(signal) => signal != Signal::SIGKILL,
        };
        if is_crash {
            self.wrong.push(format!("process {pid} crashed: {end:?}"));
        }
        (pid == self.first).then_some(end)
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        match event {
            PTRACE_EVENT_FORK | PTRACE_EVENT_VFORK | PTRACE_EVENT_CLONE => {
                let (Some(&parent), Ok(child)) = (self.tracees.get(&pid), ptrace::getevent(pid)) else {
                    return;
                };
                // The standard library is not done with a thread before it has a stack for signals, either.
                let is_counted = parent.is_counted && !makes_thread(pid);
                if let Ok(child) = i32::try_from(child) {
                    let child = Pid::from_raw(child);
                    self.tracees.insert(child, Tracee { pending: None, is_counted, ..parent });
                }
            }
            PTRACE_EVENT_EXEC => {
                let side = if pid == self.first { Side::First } else { Side::Other };
                self.tracees.insert(pid, Tracee { side, is_counted: false, pending: None });
            }
            _ => {}
        }
    }

    /// A call begins, or ends.
    fn at_call(&mut self, pid: Pid) -> nix::Result<()> {
        let first = self.first;
        let new = || Tracee {
            side: if pid == first { Side::First } else { Side::Other },
            is_counted: false,
            pending: None,
        };
        let tracee = self.tracees.entry(pid).or_insert_with(new);
        if ptrace::syscall_info(pid)?.op != PTRACE_SYSCALL_INFO_ENTRY {
            if let Some(errno) = tracee.pending.take() {
                let mut registers = ptrace::getregs(pid)?;
                registers.rax = (-i64::from(errno as i32)).cast_unsigned();
                ptrace::setregs(pid, registers)?;
            }
            return Ok(());
        }
        let mut registers = ptrace::getregs(pid)?;
        let number = registers.orig_rax.cast_signed();
        if !tracee.is_counted {
            // A stack for signals is set: the last that the standard library does before main.
            tracee.is_counted = number == SYS_sigaltstack && registers.rdi != 0;
            return Ok(());
        }
        if self.starts == Starts::Runtime && tracee.side == Side::First {
            self.marks += usize::from(number == SYS_getppid);
            if self.marks != 1 {
                return Ok(());
            }
        }
        let kind = Kind::of(number, [registers.rdi, registers.rsi, registers.rdx]);
        let count = self.counts.entry((tracee.side, kind)).or_insert(0);
        let occurrence = std::mem::replace(count, *count + 1);
        let calls = self.calls.entry(tracee.side).or_insert(0);
        let call_of_side = std::mem::replace(calls, *calls + 1);
        match self.fault {
            Some(Fault::Fails { side, kind: failing, occurrence: at, errno })
                if (side, failing, at) == (tracee.side, kind, occurrence) =>
            {
                self.is_injected = true;
                tracee.pending = Some(errno);
                if kind.row().is_none_or(|row: &Row| !matches!(row.fails, Fails::AfterAll(_))) {
                    registers.orig_rax = SYS_getpid.cast_unsigned();
                    ptrace::setregs(pid, registers)?;
                }
            }
            Some(Fault::Killed { side, call }) if (side, call) == (tracee.side, call_of_side) => {
                self.is_injected = true;
                kill(pid, Signal::SIGKILL)?;
            }
            _ => {}
        }
        Ok(())
    }
}
