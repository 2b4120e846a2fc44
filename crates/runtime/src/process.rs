//! A vmm process that cannot be left behind: [`VmmProcess`].

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
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
}

impl VmmProcess {
    /// Takes charge of a child of this process that nobody has waited for.
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        known().insert(pid);
        Ok(Self { pidfd: Some(pidfd), pid, ended: None })
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Waits until the process has ended and reaps it. Cancel safe; a second call answers the same.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let Some(pidfd) = self.pidfd.take() else { return Err(io::ErrorKind::NotFound.into()) };
        // Its successor is unsafe, for types that could close or change their descriptor; an OwnedFd does not.
        #[expect(deprecated, reason = "the same without unsafe")]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        // The descriptor goes back where this is given up half-way.
        let mut holder = Holder { process: self, pidfd: Some(pidfd) };
        if let Some(pidfd) = &holder.pidfd {
            pidfd.readable().await?.retain_ready();
        }
        let pidfd = holder.pidfd.take().map(AsyncFd::into_inner);
        drop(holder);
        let status = pidfd.map_or(Err(io::ErrorKind::NotFound.into()), |pidfd| reap(&pidfd, self.pid))?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Sends SIGKILL. What has ended already stays as it is.
    pub(crate) fn send_kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It can only fail for a process that has ended.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
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
            reap_later(pidfd, self.pid);
        }
    }
}

/// Waits for a process and reaps it.
fn reap(pidfd: &OwnedFd, pid: u32) -> io::Result<ExitStatus> {
    let result = wait_for(pidfd);
    known().remove(&pid);
    result
}

fn wait_for(pidfd: &OwnedFd) -> io::Result<ExitStatus> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
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

/// Hands a process that was killed to the one thread that waits for such: giving back a VM takes too long for an
/// async worker.
fn reap_later(pidfd: OwnedFd, pid: u32) {
    static REAPER: OnceLock<Option<Sender<(OwnedFd, u32)>>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        let (sender, receiver) = channel::<(OwnedFd, u32)>();
        let thread = std::thread::Builder::new().name("lg-reaper".to_owned()).stack_size(64 * 1024);
        let started = thread.spawn(move || {
            for (pidfd, pid) in receiver {
                // What somebody else has reaped is gone as well.
                let _ = reap(&pidfd, pid);
            }
        });
        started.is_ok().then_some(sender)
    });
    let unsent = match reaper {
        Some(sender) => sender.send((pidfd, pid)).err().map(|unsent| unsent.0),
        None => Some((pidfd, pid)),
    };
    if let Some((pidfd, pid)) = unsent {
        // Without the thread it is waited for here.
        let _ = reap(&pidfd, pid);
    }
}

/// The children that a [`VmmProcess`] is in charge of, or the thread that reaps.
static KNOWN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn known() -> MutexGuard<'static, BTreeSet<u32>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps the vmms that have ended and that nobody here knows: forks that were killed, and their template with them,
/// before they could say that they are there.
pub(crate) fn reap_strays() {
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
    name == "lg-vmm" && state == Some("Z") && parent == Some(&*std::process::id().to_string())
}
