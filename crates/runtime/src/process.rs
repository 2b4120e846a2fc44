//! A child process that cannot be left behind: [`VmmProcess`].

use std::io;
use std::process::ExitStatus;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::process::Child;

/// A started vmm. Dropping it kills the process; a thread reaps it.
#[derive(Debug)]
pub(crate) struct VmmProcess {
    child: Option<Child>,
    pid: u32,
}

impl VmmProcess {
    /// Takes charge of `child`, which must not have been waited for.
    pub(crate) fn new(child: Child) -> Self {
        let pid = child.id().unwrap_or_default();
        Self { child: Some(child), pid }
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Waits until the process has ended and reaps it. Cancel safe; a second call answers the same.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait().await,
            None => Err(io::Error::other("the process is being reaped")),
        }
    }

    /// Sends SIGKILL, then waits as [`wait`](Self::wait) does.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(child) = &mut self.child
            && child.id().is_some()
        {
            child.start_kill()?;
        }
        self.wait().await
    }
}

impl Drop for VmmProcess {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        // Neither this nor the wait can fail for a child of ours that is not reaped.
        let _ = child.start_kill();
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else { return };
        // Giving back a VM takes milliseconds: too long for an async worker.
        let reaper = std::thread::Builder::new().name("reap".to_owned()).stack_size(64 * 1024);
        let _ = reaper.spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
            child.try_wait()
        });
    }
}
