//! A vmm process that cannot be left behind: [`VmmProcess`].

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A vmm, a child of this process. Dropping it kills the process; a thread reaps it.
#[derive(Debug)]
pub(crate) struct VmmProcess {
    /// None once it is reaped, or somebody else is to do it.
    pidfd: Option<OwnedFd>,
    pid: u32,
    ended: Option<ExitStatus>,
    held: Held,
}

/// What is given back when a process has been reaped.
#[derive(Default)]
struct Held(Vec<Box<dyn Send + Sync>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} things", self.0.len())
    }
}

impl VmmProcess {
    /// Takes charge of a child of this process that nobody has waited for. Where that fails, it is killed, and reaped
    /// by the thread.
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        known().insert(pid);
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pidfd: Some(pidfd), pid, ended: None, held: Held::default() }),
            Err(error) => {
                // As long as nobody has waited for it, its number is no other process's.
                let _ = kill_process(raw, Signal::KILL);
                reap_later(Orphaned { pidfd: None, pid, held: Held::default() });
                Err(error.into())
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Gives something back when the process has been reaped.
    pub(crate) fn hold(&mut self, held: Box<dyn Send + Sync>) {
        if self.ended.is_none() {
            self.held.0.push(held);
        }
    }

    /// Waits until the process has ended and reaps it. Cancel safe; a second call answers the same.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let Some(pidfd) = self.pidfd.take() else { return Err(io::ErrorKind::NotFound.into()) };
        // Its successor is unsafe, for types that could close or change their descriptor; an OwnedFd does not.
        #[expect(deprecated, reason = "the same without unsafe")]
        let pidfd = match AsyncFd::try_with_interest(pidfd, Interest::READABLE) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let (pidfd, error) = error.into_parts();
                self.pidfd = Some(pidfd);
                return Err(error);
            }
        };
        // The descriptor goes back where this is given up half-way.
        let mut holder = Holder { process: self, pidfd: Some(pidfd) };
        if let Some(pidfd) = &holder.pidfd {
            pidfd.readable().await?.retain_ready();
        }
        let pidfd = holder.pidfd.take().map(AsyncFd::into_inner);
        drop(holder);
        let status = reap(pidfd.as_ref(), self.pid)?;
        self.ended = Some(status);
        self.held = Held::default();
        Ok(status)
    }

    /// Sends SIGKILL. What has ended already stays as it is.
    pub(crate) fn send_kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It can only fail for a process that has ended.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Has it reaped when it ends by itself; it is killed only if it does not within a while.
    pub(crate) fn reap_when_ended(mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            let held = std::mem::take(&mut self.held);
            reap_later(Orphaned { pidfd: Some(pidfd), pid: self.pid, held });
        }
    }

    /// Sends SIGKILL, then waits as [`wait`](Self::wait) does.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.send_kill();
        self.wait().await
    }
}

struct Holder<'p> {
    process: &'p mut VmmProcess,
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            self.process.pidfd = Some(pidfd.into_inner());
        }
    }
}

impl Drop for VmmProcess {
    fn drop(&mut self) {
        self.send_kill();
        if let Some(pidfd) = self.pidfd.take() {
            let held = std::mem::take(&mut self.held);
            reap_later(Orphaned { pidfd: Some(pidfd), pid: self.pid, held });
        }
    }
}

/// Waits for a child and reaps it.
fn reap(pidfd: Option<&OwnedFd>, pid: u32) -> io::Result<ExitStatus> {
    let result = wait_for(pidfd, pid);
    known().remove(&pid);
    result
}

fn wait_for(pidfd: Option<&OwnedFd>, pid: u32) -> io::Result<ExitStatus> {
    loop {
        let id = match pidfd {
            Some(pidfd) => WaitId::PidFd(pidfd.as_fd()),
            None => WaitId::Pid(Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::NotFound)?),
        };
        match waitid(id, WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(exit_status(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::from_raw((code & 0xff) << 8),
        (None, signal) => ExitStatus::from_raw(signal.unwrap_or(0)),
    }
}

/// How long a child that is to be reaped has to end before it is killed (again). One that was killed ends in no time; the keeper
/// of a namespace waits for all that is in it.
const END_GRACE: Duration = Duration::from_secs(2);
/// Between two looks for strays while such a child is waited for.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// A child that is about to end and is to be reaped.
struct Orphaned {
    /// None where there was no descriptor to be had.
    pidfd: Option<OwnedFd>,
    pid: u32,
    held: Held,
}

impl Orphaned {
    fn reap(self) {
        if let Some(pidfd) = &self.pidfd {
            wait_for_end(pidfd);
        }
        // What somebody else has reaped is gone as well.
        let _ = reap(self.pidfd.as_ref(), self.pid);
        drop(self.held);
    }
}

/// Waits until a child has ended. A namespace ends only when all that was in it has been reaped, so strays are reaped
/// meanwhile.
fn wait_for_end(pidfd: &OwnedFd) {
    let started = Instant::now();
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        if matches!(poll(&mut fds, Some(&LOOK_EVERY)), Ok(1..)) {
            return;
        }
        reap_ended_strays();
        if started.elapsed() >= END_GRACE {
            // It can only fail for a process that has ended.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            return;
        }
    }
}

/// What the reaping thread does.
enum Errand {
    Reap(Orphaned),
    LookForStrays,
}

impl Errand {
    fn run_here(self) {
        match self {
            Self::Reap(orphaned) => orphaned.reap(),
            Self::LookForStrays => reap_ended_strays(),
        }
    }
}

/// Hands a process that was killed to the one thread that waits for such: giving back a VM takes too long for an
/// async worker.
fn reap_later(orphaned: Orphaned) {
    send(Errand::Reap(orphaned));
}

/// Reaps vmms that nobody here knows, when they have ended: forks that could not become what was asked for, or were killed
/// before they could say that they are there. They end a little after their connection does, so the thread looks
/// several times.
pub(crate) fn reap_strays() {
    send(Errand::LookForStrays);
}

fn send(errand: Errand) {
    static REAPER: OnceLock<Option<Sender<Errand>>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        let (sender, receiver) = channel::<Errand>();
        let thread = std::thread::Builder::new().name("lg-reaper".to_owned()).stack_size(64 * 1024);
        thread.spawn(move || work(&receiver)).is_ok().then_some(sender)
    });
    let unsent = match reaper {
        Some(sender) => sender.send(errand).err().map(|unsent| unsent.0),
        None => Some(errand),
    };
    if let Some(errand) = unsent {
        // Without the thread it is done here.
        errand.run_here();
    }
}

/// After which pauses the thread looks for strays.
const LOOKS_MS: [u64; 5] = [2, 10, 50, 200, 1000];

fn work(errands: &Receiver<Errand>) {
    let after = |ms: &u64| Instant::now() + Duration::from_millis(*ms);
    let (mut looks, mut next_look) = (LOOKS_MS.iter(), None::<Instant>);
    loop {
        let errand = match next_look {
            None => errands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => errands.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match errand {
            Ok(Errand::Reap(orphaned)) => orphaned.reap(),
            Ok(Errand::LookForStrays) => {
                looks = LOOKS_MS.iter();
                let soon = looks.next().map(after);
                next_look = [next_look, soon].into_iter().flatten().min();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if next_look.is_some_and(|at| at <= Instant::now()) {
            reap_ended_strays();
            next_look = looks.next().map(after);
        }
    }
}

/// The children that a [`VmmProcess`] is in charge of, or the thread that reaps.
static KNOWN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn known() -> MutexGuard<'static, BTreeSet<u32>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the vmms of every sandbox and template that was dropped are reaped; says whether they are.
///
/// Dropping kills them, and a thread reaps them. A program that ends at once leaves that to the host's init. Sandboxes that
/// are still there are waited for as well, so drop them first.
pub fn settle(within: Duration) -> bool {
    let started = Instant::now();
    loop {
        if known().is_empty() {
            return true;
        }
        if started.elapsed() >= within {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reaps the vmms that have ended and that nobody here knows.
fn reap_ended_strays() {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        if !is_ended_vmm_of_ours(pid) {
            continue;
        }
        let known = known();
        if !known.contains(&pid)
            && let Some(raw) = Pid::from_raw(pid.cast_signed())
        {
            // Whoever else was faster has done the same.
            let _ = waitid(WaitId::Pid(raw), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Says whether a process is a zombie of this process by the name of a vmm.
fn is_ended_vmm_of_ours(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else {
        return false;
    };
    let mut fields = rest.split_ascii_whitespace();
    let (state, parent) = (fields.next(), fields.next());
    // No vmm can give itself another name.
    name == "lg-vmm" && state == Some("Z") && parent == Some(&*std::process::id().to_string())
}
