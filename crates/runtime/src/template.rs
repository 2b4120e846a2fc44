//! Warm sandboxes that others are forked from: [`TemplateSpec`], [`Template`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lg_control::{ExitStatus, ForkSpec, Limits, Reply, Request, SandboxSpec};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::context::EvaluateError;
use crate::program::GuestProgram;
use crate::{CallError, Launcher, Sandbox, SandboxBuilder, SpawnError, WaitError};

/// How much of a failed warm-up's standard error is told.
const TOLD_BYTES: usize = 2000;

/// The cell that shows which memory a fork's first cell touches. It leaves no trace.
const REHEARSAL: &str = "print(end='')\n0";

/// What a template is: an image with limits, what is done to warm it up, and when it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Its name.
    pub name: String,
    /// Image, mounts and limits; no command. The limits are those of the forks, which may have lower ones.
    pub sandbox: SandboxSpec,
    /// What makes it warm.
    pub warm_up: WarmUp,
    /// How long that may take.
    pub warm_up_limit: Duration,
}

/// What makes a template warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmUp {
    /// Nothing: no process runs in the forks until one is launched.
    Nothing,
    /// A Python interpreter is started, which has imported common modules; then it evaluates a cell, if there is one.
    /// Forks have it as their [`Context`](crate::Context).
    Python {
        /// Python source.
        cell: Option<String>,
    },
    /// A program is launched, and is part of the forks if it still runs when the template is ready.
    Program {
        /// The program and its arguments.
        command: Vec<String>,
        /// When the template is ready.
        ready: Ready,
    },
}

/// When a template whose warm-up is a program is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// The program has exited, with status 0. What it left running is part of the forks.
    Exits,
    /// The program has written a line to its standard output that contains this text.
    Line(String),
    /// This file is there.
    File(PathBuf),
}

/// Why a template could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Its VM did not start.
    #[error("the template's sandbox did not start")]
    Spawn(#[from] SpawnError),
    /// The warm-up program ended before the template was ready, or with a status other than 0.
    #[error("the warm-up ended with {status} before the template was ready{}", told(.stderr))]
    WarmUpFailed {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// The warm-up cell raised an exception.
    #[error("the warm-up cell raised {0}")]
    WarmUpRaised(crate::CellError),
    /// The template was not ready in time.
    #[error("the template was not ready within {limit:?}{}", told(.stderr))]
    WarmUpTimedOut {
        /// The time that it had.
        limit: Duration,
        /// The end of what its program wrote to standard error.
        stderr: String,
    },
    /// The interpreter could not be started.
    #[error("the interpreter of the template did not start")]
    Interpreter(#[source] EvaluateError),
    /// A call to the template's VM failed.
    #[error("cannot make the template")]
    Call(#[from] CallError),
}

fn told(stderr: &str) -> String {
    let line = stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.map(|line| format!(": {line}")).unwrap_or_default()
}

/// What a fork is to have of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForkOptions {
    /// Its host name; `None`: the template's.
    pub hostname: Option<String>,
    /// Limits that differ from the template's.
    pub limits: Limits,
    /// The host's processors it runs on; `None`: those of the template.
    pub cpus: Option<Vec<u16>>,
}

/// A warm VM that is stopped for good, and that sandboxes are forked from. Dropping it ends it; its forks live on.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use lg_runtime::{Launcher, Template, TemplateSpec};
///
/// let template = Template::build(&TemplateSpec::python(), &Launcher::default()).await?;
/// let mut sandbox = template.spawn().await?;
/// let cell = sandbox.context().ok_or("no interpreter")?.evaluate("6 * 7").await?;
/// assert_eq!(cell.text(), Some("42"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Template {
    spec: TemplateSpec,
    sandbox: Sandbox,
    memory_bytes: u64,
    build_time: Duration,
    version: u64,
    forks: AtomicU64,
}

impl TemplateSpec {
    /// The names of the built-in templates.
    pub const BUILT_IN: [&'static str; 2] = ["base", "python"];

    /// The built-in template `base`: the host's programs, and nothing running.
    pub fn base() -> Self {
        Self::new("base", WarmUp::Nothing)
    }

    /// The built-in template `python`: an interpreter that has imported common modules.
    pub fn python() -> Self {
        Self::new("python", WarmUp::Python { cell: None })
    }

    /// A template with the defaults of [`SandboxSpec::new`].
    pub fn new(name: impl Into<String>, warm_up: WarmUp) -> Self {
        Self {
            name: name.into(),
            sandbox: SandboxSpec::new(std::iter::empty::<&str>()),
            warm_up,
            warm_up_limit: Duration::from_secs(60),
        }
    }

    /// The built-in template of that name.
    pub fn built_in(name: &str) -> Option<Self> {
        match name {
            "base" => Some(Self::base()),
            "python" => Some(Self::python()),
            _ => None,
        }
    }
}

impl Template {
    /// Starts a VM, warms it up, and stops it.
    ///
    /// # Errors
    /// See [`TemplateError`]. Nothing is left behind then.
    pub async fn build(spec: &TemplateSpec, launcher: &Launcher) -> Result<Self, TemplateError> {
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        let started = Instant::now();
        let mut builder = SandboxBuilder::from(spec.sandbox.clone()).launcher(launcher.clone());
        builder.is_empty_allowed = true;
        // The clock of a limit must not run out in the template; each fork has its own.
        builder.spec.timeout = None;
        builder.spec.cpu_time = None;
        builder.spec.command = Vec::new();
        let mut sandbox = Sandbox::spawn(builder).await?;
        let warming_since = Instant::now();
        warm_up(&mut sandbox, spec).await?;
        // What warmed it up may have left something that hangs.
        let left = spec.warm_up_limit.saturating_sub(warming_since.elapsed());
        tokio::time::timeout(left, rehearse(&mut sandbox)).await.map_err(|_| {
            TemplateError::WarmUpTimedOut { limit: spec.warm_up_limit, stderr: String::new() }
        })??;
        let reply = sandbox.connection().call(Request::Freeze, Vec::new()).await?;
        let Reply::Frozen { memory_bytes } = reply else { return Err(CallError::Answer.into()) };
        Ok(Self {
            spec: spec.clone(),
            sandbox,
            memory_bytes,
            build_time: started.elapsed(),
            version: VERSIONS.fetch_add(1, Ordering::Relaxed),
            forks: AtomicU64::new(0),
        })
    }

    /// What it was made from.
    pub fn spec(&self) -> &TemplateSpec {
        &self.spec
    }

    /// Guest memory that all of its forks share, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How long it took to make.
    pub fn build_time(&self) -> Duration {
        self.build_time
    }

    /// A number that no other template of this process has.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many forks were asked for.
    pub fn forks(&self) -> u64 {
        self.forks.load(Ordering::Relaxed)
    }

    /// The process id of its vmm.
    pub fn vmm_pid(&self) -> u32 {
        self.sandbox.vmm_pid()
    }

    /// Says whether it can be forked no more.
    pub fn is_over(&self) -> bool {
        self.sandbox.is_over()
    }

    /// Forks a sandbox. Any number of calls may be under way at once.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub async fn spawn(&self) -> Result<Sandbox, SpawnError> {
        self.spawn_with(ForkOptions::default()).await
    }

    /// Forks a sandbox with a name, limits or processors of its own.
    ///
    /// # Errors
    /// See [`SpawnError`]; a limit that the fork cannot have is one.
    pub async fn spawn_with(&self, mut options: ForkOptions) -> Result<Sandbox, SpawnError> {
        options.limits = self.with_times(options.limits);
        self.spawn_timeless(options).await
    }

    /// Limits with those of time that a fork has unless it is given others. The VM itself has none, or their clocks would
    /// run out in the template.
    pub(crate) fn with_times(&self, limits: Limits) -> Limits {
        let SandboxSpec { timeout, cpu_time, .. } = self.spec.sandbox;
        Limits { timeout: limits.timeout.or(timeout), cpu_time: limits.cpu_time.or(cpu_time), ..limits }
    }

    /// Forks a sandbox without limits of time but those that are given: it may wait until somebody wants it.
    pub(crate) async fn spawn_timeless(&self, options: ForkOptions) -> Result<Sandbox, SpawnError> {
        self.forks.fetch_add(1, Ordering::Relaxed);
        let ForkOptions { hostname, limits, cpus } = options;
        // The interpreter is told with its first request; other programs need a signal.
        let notify = match self.spec.warm_up {
            WarmUp::Program { .. } => Some(crate::sandbox::SIGCONT),
            WarmUp::Nothing | WarmUp::Python { .. } => None,
        };
        let spec = ForkSpec { hostname, limits, notify, cpus };
        Sandbox::fork_of(self.sandbox.connection().clone(), spec, self.sandbox.place().cloned()).await
    }

    /// Ends it and waits until its vmm is reaped. Its forks live on.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn end(mut self) -> Result<(), WaitError> {
        self.sandbox.kill().await.map(drop)
    }
}

/// Does what forks will do first, so that they find its memory made ready.
async fn rehearse(sandbox: &mut Sandbox) -> Result<(), TemplateError> {
    let Some(context) = sandbox.context() else { return Ok(()) };
    // The first time brings what only the first time does; the second is as in the forks.
    context.evaluate(REHEARSAL).await.map_err(TemplateError::Interpreter)?;
    sandbox.connection().call(Request::Rehearse, Vec::new()).await?;
    let context = sandbox.context().ok_or(CallError::Ended)?;
    context.rehearse_fork();
    context.evaluate(REHEARSAL).await.map_err(TemplateError::Interpreter)?;
    Ok(())
}

async fn warm_up(sandbox: &mut Sandbox, spec: &TemplateSpec) -> Result<(), TemplateError> {
    let limit = spec.warm_up_limit;
    let timed_out = |stderr| TemplateError::WarmUpTimedOut { limit, stderr };
    match &spec.warm_up {
        WarmUp::Nothing => Ok(()),
        WarmUp::Python { cell } => {
            let warm = async {
                let context = sandbox.start_context().await.map_err(TemplateError::Interpreter)?;
                if let Some(cell) = cell {
                    let cell = context.evaluate(cell).await.map_err(TemplateError::Interpreter)?;
                    cell.outcome.map_err(TemplateError::WarmUpRaised)?;
                }
                Ok(())
            };
            tokio::time::timeout(limit, warm).await.unwrap_or_else(|_| Err(timed_out(String::new())))
        }
        WarmUp::Program { command, ready } => {
            let mut program = sandbox.program(command).launch().await?;
            let errors = program.stderr.take();
            let mut stderr = Vec::new();
            let result = {
                let mut collect = std::pin::pin!(async {
                    if let Some(errors) = errors {
                        // It reads to the end of the stream, and does not fail.
                        let _ = keep_end(errors, &mut stderr).await;
                    }
                    std::future::pending::<()>().await;
                });
                let result = tokio::select! {
                    result = tokio::time::timeout(limit, wait_ready(sandbox, &mut program, ready)) => result,
                    () = &mut collect => return Ok(()),
                };
                // What it wrote has come before its end, but may not have been read.
                tokio::select! {
                    biased;
                    () = &mut collect => {}
                    () = std::future::ready(()) => {}
                }
                result
            };
            let stderr = String::from_utf8_lossy(&stderr).into_owned();
            match result {
                Ok(Ok(None)) => Ok(()),
                Ok(Ok(Some(status))) => Err(TemplateError::WarmUpFailed { status, stderr }),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(timed_out(stderr)),
            }
        }
    }
}

async fn keep_end(mut stream: impl tokio::io::AsyncRead + Unpin, kept: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => kept.extend_from_slice(&buffer[..count]),
        }
        let excess = kept.len().saturating_sub(TOLD_BYTES);
        kept.drain(..excess);
    }
}

/// Waits until a warm-up program has done what makes the template ready; answers how it ended if it did not.
async fn wait_ready(
    sandbox: &Sandbox,
    program: &mut GuestProgram,
    ready: &Ready,
) -> Result<Option<ExitStatus>, CallError> {
    let ended = |status: ExitStatus| match (ready, status.is_success()) {
        (Ready::Exits, true) => None,
        _ => Some(status),
    };
    // What nobody reads is thrown away, or the program would wait for a reader.
    let stdout = program.stdout.take().filter(|_| matches!(ready, Ready::Line(_)));
    match ready {
        Ready::Exits => Ok(ended(program.wait().await?)),
        Ready::Line(text) => {
            let Some(stdout) = stdout else { return Err(CallError::Answer) };
            let mut lines = BufReader::new(stdout).split(b'\n');
            // Reading ends with the stream or with the sandbox; it does not fail.
            while let Ok(Some(line)) = lines.next_segment().await {
                if String::from_utf8_lossy(&line).contains(text.as_str()) {
                    return Ok(None);
                }
            }
            program.wait().await.map(Some)
        }
        Ready::File(path) => {
            let files = sandbox.files();
            loop {
                if files.stat(path).await.is_ok() {
                    return Ok(None);
                }
                tokio::select! {
                    status = program.wait() => {
                        // It may have made the file as the last thing that it did.
                        let status = status?;
                        return Ok(files.stat(path).await.err().map(|_| status));
                    }
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
            }
        }
    }
}
