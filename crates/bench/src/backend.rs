//! Where an agent's program runs: in a micro-VM, or as a plain process for comparison.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use lg_runtime::{Launcher, Report, Sandbox, SandboxSpec, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Where agents run.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Each in a micro-VM of its own, whose vmm is started by this launcher.
    Sandbox(Launcher),
    /// Each as a plain process of the host: the baseline, without any isolation.
    Native,
}

impl Backend {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sandbox(_) => "sandbox",
            Self::Native => "native",
        }
    }
}

const STDERR_KEPT_BYTES: usize = 4096;

/// An agent's program that runs, with its streams.
pub(crate) struct Program {
    pub(crate) stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) stdout: Box<dyn AsyncRead + Send + Unpin>,
    stderr: JoinHandle<String>,
    body: Body,
}

enum Body {
    Sandbox(Box<Sandbox>),
    Native(Child),
}

impl Program {
    pub(crate) async fn start(backend: &Backend, command: &[String], limits: Limits) -> Result<Self> {
        match backend {
            Backend::Sandbox(launcher) => {
                let mut sandbox = Sandbox::builder(command)
                    .launcher(launcher.clone())
                    .memory_bytes(limits.memory_bytes)
                    .timeout(limits.deadline)
                    .stdin(Stream::Piped)
                    .stdout(Stream::Piped)
                    .stderr(Stream::Piped)
                    .spawn()
                    .await?;
                let missing = "a piped stream is missing";
                let stdin = sandbox.stdin.take().context(missing)?;
                let stdout = sandbox.stdout.take().context(missing)?;
                let stderr = sandbox.stderr.take().context(missing)?;
                Ok(Self {
                    stdin: Box::new(stdin),
                    stdout: Box::new(stdout),
                    stderr: tokio::spawn(keep_end(stderr)),
                    body: Body::Sandbox(Box::new(sandbox)),
                })
            }
            Backend::Native => {
                let (program, arguments) = command.split_first().context("a program is missing")?;
                // The environment is that of a sandbox.
                let environment = SandboxSpec::new([program]).env;
                let mut child = Command::new(program)
                    .args(arguments)
                    .env_clear()
                    .envs(environment)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
                    .with_context(|| format!("cannot start {program}"))?;
                let missing = "a piped stream is missing";
                let stdin = child.stdin.take().context(missing)?;
                let stdout = child.stdout.take().context(missing)?;
                let stderr = child.stderr.take().context(missing)?;
                Ok(Self {
                    stdin: Box::new(stdin),
                    stdout: Box::new(stdout),
                    stderr: tokio::spawn(keep_end(stderr)),
                    body: Body::Native(child),
                })
            }
        }
    }

    /// The process on the host that holds the program: the vmm, or the program itself.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.body {
            Body::Sandbox(sandbox) => Some(sandbox.vmm_pid()),
            Body::Native(child) => child.id(),
        }
    }

    /// Ends the program, waits until its process is reaped, and answers its report (sandboxes have one) and the
    /// end of what it wrote to standard error.
    pub(crate) async fn end(self) -> Result<(Option<Report>, String)> {
        let Self { stdin, stdout, stderr, body } = self;
        let report = match body {
            Body::Sandbox(mut sandbox) => Some(sandbox.kill().await?),
            Body::Native(mut child) => {
                child.kill().await?;
                None
            }
        };
        drop((stdin, stdout));
        // A process that a native program left behind could hold the pipe open.
        let abort = stderr.abort_handle();
        let text = tokio::time::timeout(Duration::from_secs(1), stderr).await;
        abort.abort();
        Ok((report, text.map(|t| t.unwrap_or_default()).unwrap_or_default()))
    }
}

/// The limits of one agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) deadline: Duration,
}

/// Reads all of a stream and keeps the end of it.
async fn keep_end(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        let excess = kept.len().saturating_sub(STDERR_KEPT_BYTES);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}
