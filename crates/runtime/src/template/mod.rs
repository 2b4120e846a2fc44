//! Warm sandboxes that others are forked from: [`TemplateSpec`] says what one is, [`Template`] is one.
//!
//! `file.rs` reads and writes a spec as TOML.

mod file;
mod spec;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lg_control::{ExitStatus, ForkSpec, Limits, Reply, Request, SandboxSpec};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

pub use self::file::TemplateFileError;
pub use self::spec::{Ready, TemplateSpec, WarmUp};
use crate::context::EvaluateError;
use crate::program::GuestProgram;
use crate::{CallError, Launcher, Sandbox, SandboxBuilder, SpawnError, WaitError};

/// How much of a failed warm-up's standard error is told.
const TOLD_BYTES: usize = 2000;

/// How long the end of a failed warm-up's standard error is waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The cell that shows which memory a fork's first cell touches. It leaves no trace.
const REHEARSAL: &str = "print(end='')\n0";

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

impl Template {
    /// Starts a VM, warms it up, and stops it.
    ///
    /// # Errors
    /// See [`TemplateError`]. Nothing is left behind then.
    pub async fn build(spec: &TemplateSpec, launcher: &Launcher) -> Result<Self, TemplateError> {
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        let started = Instant::now();
        let mut builder =
            SandboxBuilder::from(spec.sandbox.clone()).launcher(launcher.clone()).without_program();
        // The clock of a limit must not run out in the template; each fork has its own.
        builder.spec.timeout = None;
        builder.spec.cpu_time = None;
        builder.spec.command = Vec::new();
        let mut sandbox = Sandbox::spawn(builder).await?;
        let memory_bytes = match make_ready(&mut sandbox, spec).await {
            Ok(memory_bytes) => memory_bytes,
            Err(error) => {
                // What is wrong with it is said already.
                let _ = sandbox.kill().await;
                return Err(error);
            }
        };
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

    /// Waits until it can be forked no more, which comes about only when its vmm dies. Cancel safe.
    ///
    /// A pool goes on with another one: [`SandboxPool::replace_template`](crate::pool::SandboxPool::replace_template).
    pub async fn ended(&self) {
        self.sandbox.connection().closed().await;
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
        self.sandbox.fork_one(spec).await
    }

    /// Ends it and waits until its vmm is reaped. Its forks live on.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn end(mut self) -> Result<(), WaitError> {
        self.sandbox.kill().await.map(drop)
    }
}

/// Warms a sandbox up and stops it. Answers how much memory its forks will share, in bytes.
async fn make_ready(sandbox: &mut Sandbox, spec: &TemplateSpec) -> Result<u64, TemplateError> {
    let limit = spec.warm_up_limit;
    let started = Instant::now();
    warm_up(sandbox, spec).await?;
    // What warmed it up may have left something that hangs.
    let left = limit.saturating_sub(started.elapsed());
    tokio::time::timeout(left, rehearse(sandbox))
        .await
        .map_err(|_| TemplateError::WarmUpTimedOut { limit, stderr: String::new() })??;
    match sandbox.connection().call(Request::Freeze, Vec::new()).await? {
        Reply::Frozen { memory_bytes } => Ok(memory_bytes),
        _ => Err(CallError::Answer.into()),
    }
}

/// Does what forks will do first, so that they find its memory made ready.
async fn rehearse(sandbox: &mut Sandbox) -> Result<(), TemplateError> {
    let Some(context) = sandbox.context() else { return Ok(()) };
    // The first time brings what only the first time does; the second is as in the forks.
    context.evaluate(REHEARSAL).await.map_err(TemplateError::Interpreter)?;
    sandbox.connection().call(Request::Rehearse, Vec::new()).await?;
    let context = sandbox.context().ok_or(CallError::Answer)?;
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
            let collect = async {
                if let Some(errors) = errors {
                    // It reads to the end of the stream, and does not fail.
                    let _ = keep_end(errors, &mut stderr).await;
                }
                std::future::pending::<()>().await;
            };
            let mut collect = Box::pin(collect);
            let result = tokio::select! {
                result = tokio::time::timeout(limit, wait_ready(sandbox, &mut program, ready)) => result,
                () = &mut collect => return Ok(()),
            };
            if matches!(result, Ok(Ok(None))) {
                return Ok(());
            }
            // What it wrote is here already, and may not have been taken.
            let _ = tokio::time::timeout(LAST_WORDS, collect).await;
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
