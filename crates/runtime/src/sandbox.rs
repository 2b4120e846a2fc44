//! One running sandbox: [`Sandbox`].

use std::ffi::OsString;
use std::io;
use std::time::{Duration, Instant};

use lg_control::{Event, FrameError, Outcome, Report, Request, Stats};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::process::{ChildStderr, ChildStdout};

use crate::control::Control;
use crate::process::VmmProcess;
use crate::{SandboxBuilder, SpawnError, WaitError, host_memory_bytes};

/// The host's end of the guest's standard input, an [`AsyncWrite`](tokio::io::AsyncWrite).
pub type Stdin = pipe::Sender;
/// The host's end of the guest's standard output, an [`AsyncRead`].
pub type Stdout = ChildStdout;
/// The host's end of the guest's standard error, an [`AsyncRead`].
pub type Stderr = ChildStderr;

/// How long a vmm that was asked to end has before it is killed.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// One program in a micro-VM of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Sandbox {
    /// The guest's standard input, if it is piped. Drop it to give the guest an end of file.
    pub stdin: Option<Stdin>,
    /// The guest's standard output, if it is piped.
    pub stdout: Option<Stdout>,
    /// The guest's standard error, if it is piped.
    pub stderr: Option<Stderr>,
    control: Control,
    process: VmmProcess,
    spawn_latency: Duration,
    report: Option<Report>,
}

/// What a program wrote, with how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended and what it cost.
    pub report: Report,
    /// All of its standard output, if that was piped.
    pub stdout: Vec<u8>,
    /// All of its standard error, if that was piped.
    pub stderr: Vec<u8>,
}

impl Sandbox {
    /// A builder for `command` with the defaults of [`lg_control::SandboxSpec::new`].
    pub fn builder<I, S>(command: I) -> SandboxBuilder
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        lg_control::SandboxSpec::new(command).into()
    }

    pub(crate) async fn spawn(builder: SandboxBuilder) -> Result<Self, SpawnError> {
        let started = Instant::now();
        let SandboxBuilder { spec, launcher, stdin, stdout, stderr } = builder;
        spec.validate()?;
        spec.validate_memory(host_memory_bytes())?;
        let (mut control, theirs) = Control::pair().map_err(SpawnError::Launch)?;
        let (guest_stdin, stdin) = stdin.into_input().map_err(SpawnError::Launch)?;
        let mut child =
            launcher.start(theirs, stdout.into_output(), stderr.into_output()).map_err(SpawnError::Launch)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut process = VmmProcess::new(child);
        let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose().map_err(SpawnError::Launch)?;
        // A vmm that died before it read the spec is found by the next receive.
        match control.send_start(&spec, guest_stdin).await {
            Err(FrameError::Io(error)) if is_closed(&error) => {}
            result => result?,
        }
        match control.recv().await {
            Ok(Event::Ready { .. }) => Ok(Self {
                stdin,
                stdout,
                stderr,
                control,
                process,
                spawn_latency: started.elapsed(),
                report: None,
            }),
            Ok(Event::Ended(report)) => {
                process.wait().await.map_err(SpawnError::Launch)?;
                Err(match report.outcome {
                    Outcome::StartFailed(failure) => SpawnError::Start(failure),
                    outcome => SpawnError::Failed(
                        outcome.failure_message().unwrap_or("the sandbox ended").to_owned(),
                    ),
                })
            }
            Err(FrameError::Closed | FrameError::Truncated) => {
                Err(SpawnError::VmmDied(process.wait().await.map_err(SpawnError::Launch)?))
            }
            Err(error) => {
                // It is killed and reaped before the error is returned.
                process.kill().await.map_err(SpawnError::Launch)?;
                Err(error.into())
            }
        }
    }

    /// From the call of `spawn` until the guest's first instruction was about to run.
    pub fn spawn_latency(&self) -> Duration {
        self.spawn_latency
    }

    /// The process id of the vmm.
    pub fn vmm_pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal, by its Linux number, to the guest's first program.
    ///
    /// # Errors
    /// When the vmm cannot be reached; a sandbox that is over ignores signals.
    pub async fn signal(&mut self, signal: u8) -> Result<(), WaitError> {
        match self.control.send(&Request::Signal(signal)).await {
            Err(FrameError::Io(error)) if is_closed(&error) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Waits for the end of the sandbox and until its vmm is reaped. Closes the guest's standard input first, so that
    /// neither waits for the other. Cancel safe; a second call answers the same report.
    ///
    /// # Errors
    /// When the vmm ended without a report. It is reaped all the same.
    pub async fn wait(&mut self) -> Result<Report, WaitError> {
        self.stdin = None;
        while self.report.is_none() {
            match self.control.recv().await {
                Ok(Event::Ended(report)) => self.report = Some(*report),
                Ok(Event::Ready { .. }) => {}
                Err(FrameError::Closed | FrameError::Truncated) => {
                    let status = self.process.wait().await.map_err(WaitError::Wait)?;
                    return Err(WaitError::VmmDied(status));
                }
                Err(error) => {
                    self.process.kill().await.map_err(WaitError::Wait)?;
                    return Err(error.into());
                }
            }
        }
        // Giving back a VM takes a moment, but never long.
        let status = match tokio::time::timeout(KILL_GRACE, self.process.wait()).await {
            Ok(status) => status,
            Err(_) => self.process.kill().await,
        };
        status.map_err(WaitError::Wait)?;
        self.report.clone().ok_or(WaitError::Control(FrameError::Closed))
    }

    /// Ends the sandbox now and waits until its vmm is reaped. A vmm that does not end itself within two seconds
    /// is killed; its statistics are lost then.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn kill(&mut self) -> Result<Report, WaitError> {
        // A vmm that is over already does not read this; its report is waiting.
        let _ = self.control.send(&Request::Kill).await;
        if let Ok(Ok(report)) = tokio::time::timeout(KILL_GRACE, self.wait()).await {
            return Ok(report);
        }
        self.process.kill().await.map_err(WaitError::Wait)?;
        let report = Report { outcome: Outcome::Killed, stats: Stats::default() };
        Ok(self.report.insert(report).clone())
    }

    /// Collects the piped output until its end, then waits as [`wait`](Self::wait) does.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and when a pipe cannot be read.
    pub async fn output(&mut self) -> Result<Output, WaitError> {
        self.stdin = None;
        let (mut out, mut err) = (self.stdout.take(), self.stderr.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (read_out, read_err) =
            tokio::join!(read_all(&mut out, &mut stdout), read_all(&mut err, &mut stderr));
        read_out.and(read_err).map_err(WaitError::Output)?;
        Ok(Output { report: self.wait().await?, stdout, stderr })
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

async fn read_all(stream: &mut Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    if let Some(stream) = stream {
        stream.read_to_end(into).await?;
    }
    Ok(())
}
