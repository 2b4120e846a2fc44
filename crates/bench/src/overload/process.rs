//! The process of a row: started, waited for, and ended when nobody waits any more.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::OVERLOAD_ROW;
use super::plan::Task;
use super::row::OverloadRow;
use crate::interrupt::Interrupted;

/// Far longer than any row takes.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it has to end its sandboxes when it is told to end.
const GRACE: Duration = Duration::from_secs(3);
/// The exit status of a process that was interrupted.
const INTERRUPTED: i32 = 130;

/// A process of this binary. Dropped before its end, it is told to end, and reaped.
pub(crate) struct RowProcess {
    child: Child,
}

impl RowProcess {
    pub(crate) fn start(luminaguard: &Path, task: &Task) -> Result<Self> {
        let child = Command::new(luminaguard)
            .arg(OVERLOAD_ROW)
            .arg(serde_json::to_string(task)?)
            .env("TMPDIR", &task.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", luminaguard.display()))?;
        Ok(Self { child })
    }

    /// Waits for what it found; or how it failed.
    ///
    /// # Errors
    /// When it was interrupted, as this process is about to be.
    pub(crate) async fn row(mut self) -> Result<std::result::Result<OverloadRow, String>> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let all = async { tokio::join!(self.child.wait(), text(stdout), text(stderr)) };
        let Ok((status, stdout, stderr)) = tokio::time::timeout(LIMIT, all).await else {
            return Ok(Err(format!("it did not end within {} s", LIMIT.as_secs())));
        };
        let status = status.context("cannot wait for the process of a row")?;
        let said = stderr.lines().next_back().unwrap_or("no message");
        Ok(match status.code() {
            Some(INTERRUPTED) => return Err(Interrupted.into()),
            Some(0) => serde_json::from_str(&stdout).map_err(|error| format!("it answered no row: {error}")),
            _ => Err(format!("the process of the row ended with {status}: {said}")),
        })
    }
}

impl Drop for RowProcess {
    fn drop(&mut self) {
        // It has no id once it is reaped.
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let Some(pid) = pid else { return };
        let _ = kill_process(pid, Signal::TERM);
        let told = Instant::now();
        while told.elapsed() < GRACE && !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read until an error says as much as there is.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
