//! Where agents run, and the interpreter of one agent, however it is talked to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lg_runtime::{Launcher, Report, Template, TemplateSpec, WarmUp};
use serde_json::{Value, json};

use crate::cell_driver::{CellDriver, PRELUDE};
use crate::line_driver::LineDriver;

/// Where agents run.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Each in a micro-VM that is forked from a warm Python template. The template's vmm is started by this launcher.
    Warm(Launcher),
    /// Each in a micro-VM of its own that starts cold, whose vmm is started by this launcher.
    Cold(Launcher),
    /// Each as a plain process of the host: the baseline, without any isolation.
    Native,
}

impl Backend {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Warm(_) => "warm",
            Self::Cold(_) => "cold",
            Self::Native => "native",
        }
    }

    /// Makes what the agents stand on.
    pub(crate) async fn prepare(&self, memory_bytes: u64) -> Result<Ground> {
        Ok(match self {
            Self::Warm(launcher) => {
                let warm_up = WarmUp::Python { cell: Some(PRELUDE.to_owned()) };
                let mut spec = TemplateSpec::new("agent", warm_up);
                spec.sandbox.memory_bytes = memory_bytes;
                let template = Template::build(&spec, launcher).await.context("cannot make the template")?;
                Ground::Template(template.into())
            }
            Self::Cold(launcher) => Ground::Cold(launcher.clone()),
            Self::Native => Ground::Native,
        })
    }
}

/// What agents stand on.
#[derive(Debug, Clone)]
pub(crate) enum Ground {
    Template(Arc<Template>),
    Cold(Launcher),
    Native,
}

/// The limits of one agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) deadline: Duration,
}

/// The answer of an operation.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) value: Value,
    /// What the operation measured, where it measures something.
    pub(crate) samples: Vec<f64>,
}

impl Answer {
    pub(crate) fn plain(value: Value) -> Self {
        Self { value, samples: Vec::new() }
    }

    /// From what a cell answered: a pair of `result` and `samples`, if it measures.
    pub(crate) fn of_cell(value: Value, measures: bool) -> Result<Self> {
        if !measures {
            return Ok(Self::plain(value));
        }
        let (value, samples) =
            serde_json::from_value(value).context("a cell that measures has no `samples`")?;
        Ok(Self { value, samples })
    }
}

/// The source of a cell that leaves its answer in `result`, where [`Answer::of_cell`] finds it.
pub(crate) fn cell_source(cell: &str, measures: bool) -> String {
    let pair = if measures { "\nresult = [result, samples]" } else { "" };
    format!("{cell}{pair}")
}

/// What a shell wrote to standard output.
///
/// # Errors
/// When it did not succeed.
pub(crate) fn shell_output(
    success: bool,
    status: impl std::fmt::Display,
    stdout: Vec<u8>,
    stderr: &[u8],
) -> Result<Vec<u8>> {
    ensure!(success, "the shell ended with {status}: {}", String::from_utf8_lossy(stderr).trim_end());
    Ok(stdout)
}

/// The interpreter of one agent.
pub(crate) enum Interpreter {
    /// It evaluates cells in the sandbox's code context.
    Cells(Box<CellDriver>),
    /// It is the scenario's program, and is talked to in lines.
    Lines(Box<LineDriver>),
}

impl Interpreter {
    pub(crate) async fn start(ground: &Ground, limits: Limits) -> Result<Self> {
        Ok(match ground {
            Ground::Template(template) => {
                Self::Cells(Box::new(CellDriver::start(template, limits.deadline).await?))
            }
            Ground::Cold(launcher) => {
                Self::Lines(Box::new(LineDriver::start_in_sandbox(launcher, limits).await?))
            }
            Ground::Native => Self::Lines(Box::new(LineDriver::start_natively()?)),
        })
    }

    /// Has it answer for the first time.
    pub(crate) async fn hello(&mut self, seed: u64) -> Result<()> {
        let answer = match self {
            Self::Cells(cells) => cells.operate(&format!("result = {{'hello': {seed}}}"), false).await?.value,
            Self::Lines(lines) => lines.hello(seed).await?,
        };
        ensure!(answer == json!({ "hello": seed }), "unexpected answer {answer}");
        Ok(())
    }

    /// Has one cell evaluated, answers the tools that it calls meanwhile, and answers what it left in `result`, and in `samples`
    /// if it measures something.
    pub(crate) async fn operate(&mut self, cell: &str, measures: bool) -> Result<Answer> {
        match self {
            Self::Cells(cells) => cells.operate(cell, measures).await,
            Self::Lines(lines) => lines.operate(cell, measures).await,
        }
    }

    /// Has a command line executed by a shell beside the interpreter, and answers what it wrote to standard output.
    pub(crate) async fn shell(&mut self, script: &str) -> Result<Value> {
        let output = match self {
            Self::Cells(cells) => cells.shell(script).await?,
            Self::Lines(lines) => lines.shell(script).await?,
        };
        Ok(Value::String(String::from_utf8(output).context("standard output is not UTF-8")?))
    }

    /// How long the vmm took to fork it, if it was forked.
    pub(crate) fn fork_time(&self) -> Option<Duration> {
        match self {
            Self::Cells(cells) => Some(cells.fork_time()),
            Self::Lines(_) => None,
        }
    }

    /// The process on the host that holds it: the vmm, or itself.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Cells(cells) => Some(cells.pid()),
            Self::Lines(lines) => lines.pid(),
        }
    }

    /// Ends it, waits until its process is reaped, and answers its report (sandboxes have one) and the end of what
    /// it wrote to standard error.
    pub(crate) async fn end(self) -> Result<(Option<Report>, String)> {
        match self {
            Self::Cells(cells) => cells.end().await.map(|(report, stderr)| (Some(report), stderr)),
            Self::Lines(lines) => lines.end().await,
        }
    }
}

/// How much of standard error is kept, in bytes.
const STDERR_KEPT_BYTES: usize = 4096;

/// The end of a standard error.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let excess = self.0.len().saturating_sub(STDERR_KEPT_BYTES);
        self.0.drain(..excess);
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim_end().to_owned()
    }
}

/// The beginning of a value, for a message.
pub(crate) fn clip(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
