//! An agent whose interpreter is a program of its own, in a micro-VM that starts cold or natively: requests and answers are
//! lines of JSON (see `driver.py`).

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lg_runtime::{Launcher, Report, Sandbox, SandboxSpec, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::backend::{Answer, Limits, Tail, cell_source, clip, shell_output};
use crate::scenario::call_tool;

/// The longest line that an agent may answer, in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The interpreter of an agent that is talked to in lines.
const PROGRAM: [&str; 3] = ["python3", "-c", include_str!("driver.py")];

/// A command with the environment of a sandbox.
fn native(words: &[&str; 3]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().envs(SandboxSpec::new(words).env);
    command
}

/// A program that runs, with its streams.
pub(crate) struct LineDriver {
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    stdout: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: JoinHandle<String>,
    body: Body,
}

enum Body {
    Sandbox(Box<Sandbox>),
    Native(Child),
}

impl LineDriver {
    pub(crate) async fn start_in_sandbox(launcher: &Launcher, limits: Limits) -> Result<Self> {
        let mut sandbox = Sandbox::builder(PROGRAM)
            .launcher(launcher.clone())
            .memory_bytes(limits.memory_bytes)
            .timeout(limits.deadline)
            .stdin(Stream::Piped)
            .stdout(Stream::Piped)
            .stderr(Stream::Piped)
            .spawn()
            .await?;
        let streams = sandbox.stdin.take().zip(sandbox.stdout.take()).zip(sandbox.stderr.take());
        let ((stdin, stdout), stderr) = streams.context("a piped stream is missing")?;
        Ok(Self::new(stdin, stdout, stderr, Body::Sandbox(Box::new(sandbox))))
    }

    pub(crate) fn start_natively() -> Result<Self> {
        let mut child = native(&PROGRAM)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", PROGRAM[0]))?;
        let streams = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((stdin, stdout), stderr) = streams.context("a piped stream is missing")?;
        Ok(Self::new(stdin, stdout, stderr, Body::Native(child)))
    }

    fn new(
        stdin: impl AsyncWrite + Send + Unpin + 'static,
        stdout: impl AsyncRead + Send + Unpin + 'static,
        stderr: impl AsyncRead + Send + Unpin + 'static,
        body: Body,
    ) -> Self {
        Self {
            stdin: Box::new(stdin),
            stdout: BufReader::new(Box::new(stdout)),
            stderr: tokio::spawn(keep_end(stderr)),
            body,
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.body {
            Body::Sandbox(sandbox) => Some(sandbox.vmm_pid()),
            Body::Native(child) => child.id(),
        }
    }

    pub(crate) async fn hello(&mut self, seed: u64) -> Result<Value> {
        self.send(&json!({ "hello": seed })).await?;
        self.receive().await
    }

    pub(crate) async fn shell(&mut self, script: &str) -> Result<Vec<u8>> {
        let words = ["sh", "-c", script];
        match &self.body {
            Body::Sandbox(sandbox) => {
                let output = sandbox.program(words).output().await?;
                shell_output(output.status.is_success(), output.status, output.stdout, &output.stderr)
            }
            Body::Native(_) => {
                let output = native(&words).stdin(Stdio::null()).output().await?;
                shell_output(output.status.success(), output.status, output.stdout, &output.stderr)
            }
        }
    }

    pub(crate) async fn operate(&mut self, cell: &str, measures: bool) -> Result<Answer> {
        self.send(&json!({ "cell": cell_source(cell, measures) })).await?;
        loop {
            let answer = self.receive().await?;
            if let Some(name) = answer.get("tool").and_then(Value::as_str) {
                let value = call_tool(name, answer.get("argument").unwrap_or(&Value::Null));
                let value = value.with_context(|| format!("no such tool: {name:?}"))?;
                self.send(&json!({ "value": value })).await?;
            } else if let Some(value) = answer.get("value") {
                return Answer::of_cell(value.clone(), measures);
            } else {
                bail!(
                    "{}",
                    answer.get("error").and_then(Value::as_str).unwrap_or("an answer without a value")
                );
            }
        }
    }

    async fn send(&mut self, message: &Value) -> Result<()> {
        let mut line = message.to_string();
        line.push('\n');
        self.stdin.write_all(line.as_bytes()).await?;
        self.stdin.flush().await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Value> {
        let lines = &mut self.stdout;
        let mut line = Vec::new();
        loop {
            let available = lines.fill_buf().await?;
            ensure!(!available.is_empty(), "the program ended");
            let end = available.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(available.len(), |at| at + 1);
            line.extend_from_slice(&available[..taken]);
            lines.consume(taken);
            if end.is_some() {
                let text = || clip(&Value::String(String::from_utf8_lossy(&line).into_owned()));
                return serde_json::from_slice(&line)
                    .with_context(|| format!("not a line of JSON: {}", text()));
            }
            ensure!(line.len() <= MAX_LINE_BYTES, "an answer of more than {MAX_LINE_BYTES} bytes");
        }
    }

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

/// Reads all of a stream and keeps the end of it.
async fn keep_end(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept = Tail::default();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        kept.push(&buffer[..n]);
    }
    kept.text()
}
