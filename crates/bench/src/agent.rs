//! The life of one agent: spawn, execute, clean up; timed, and every answer checked.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use lg_runtime::{Report, Stats};
use serde::Serialize;

use crate::backend::{Ground, Interpreter, Limits, clip};
use crate::checkpoint::{Checkpoint, Stage};
use crate::ms;
use crate::scenario::Scenario;

/// How an agent's life went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All operations were done and all answers were right.
    Completed,
    /// Something failed, or an answer was wrong.
    Failed,
    /// The deadline passed.
    TimedOut,
}

/// What one agent's life measured. Times are in milliseconds of wall clock.
#[derive(Debug, Clone, Serialize)]
pub struct Life {
    /// From the request until the agent's interpreter answered for the first time.
    pub spawn_ms: f64,
    /// From then until the answer to the last operation.
    pub execute_ms: f64,
    /// From then until the agent's process was reaped.
    pub cleanup_ms: f64,
    /// The three together.
    pub total_ms: f64,
    /// The operations that were done, in order.
    pub operations: Vec<OperationSample>,
    /// How it went.
    pub outcome: Outcome,
    /// Why it did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the sandbox reported; absent when its vmm had to be killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxSample>,
    /// The process on the host.
    #[serde(skip)]
    pub(crate) pid: Option<u32>,
}

/// One operation of one agent.
#[derive(Debug, Clone, Serialize)]
pub struct OperationSample {
    /// Its name in the scenario.
    pub name: String,
    /// From the request until the answer, in milliseconds.
    pub ms: f64,
}

/// What a vmm reported of its sandbox.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SandboxSample {
    /// System calls of the guest.
    pub syscalls: u64,
    /// Page faults of the guest.
    pub page_faults: u64,
    /// Other exceptions of the guest.
    pub exceptions: u64,
    /// Interruptions of guest code.
    pub interrupts: u64,
    /// CPU time of the vmm, in seconds.
    pub cpu_seconds: f64,
    /// The most guest memory in use, in MiB.
    pub peak_memory_mb: f64,
}

impl From<&Report> for SandboxSample {
    fn from(report: &Report) -> Self {
        let stats = &report.stats;
        Self {
            syscalls: stats.exits.syscalls,
            page_faults: stats.exits.page_faults,
            exceptions: stats.exits.exceptions,
            interrupts: stats.exits.interrupts,
            cpu_seconds: stats.cpu_time_ns as f64 / 1e9,
            peak_memory_mb: stats.peak_memory_bytes as f64 / (1 << 20) as f64,
        }
    }
}

/// What all agents of a run share.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What agents stand on.
    pub(crate) ground: Ground,
    pub(crate) scenario: Scenario,
    pub(crate) limits: Limits,
    /// The parent of the agents' directories, as they see it.
    pub(crate) directory: String,
}

impl Plan {
    fn directory_of(&self, seed: u64) -> String {
        format!("{}/agent-{seed}", self.directory)
    }
}

/// Lives one agent's life. `requested` is when it was asked for; `seed` makes its answers its own.
pub(crate) async fn live(plan: Arc<Plan>, seed: u64, requested: Instant, mut checkpoint: Checkpoint) -> Life {
    let mut life = Life {
        spawn_ms: 0.0,
        execute_ms: 0.0,
        cleanup_ms: 0.0,
        total_ms: 0.0,
        operations: Vec::new(),
        outcome: Outcome::Completed,
        error: None,
        sandbox: None,
        pid: None,
    };
    let deadline = plan.limits.deadline.saturating_sub(requested.elapsed());
    let mut interpreter = None;
    let work = work(&plan, seed, requested, &mut life, &mut interpreter, &mut checkpoint);
    let result = match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => {
            life.outcome = Outcome::TimedOut;
            Err(anyhow!("the deadline of {:?} passed", plan.limits.deadline))
        }
    };
    // The sampler waits for those that did not come this far, too.
    drop(checkpoint);
    let worked = requested.elapsed();
    if life.spawn_ms > 0.0 {
        life.execute_ms = ms(worked) - life.spawn_ms;
    } else {
        life.spawn_ms = ms(worked);
    }
    let ended = match interpreter {
        Some(interpreter) => interpreter.end().await,
        None => Ok((None, String::new())),
    };
    if let Ground::Native = plan.ground {
        // A sandbox takes its files with it.
        let _ = tokio::fs::remove_dir_all(plan.directory_of(seed)).await;
    }
    life.total_ms = ms(requested.elapsed());
    life.cleanup_ms = life.total_ms - ms(worked);
    let mut errors: Vec<String> = result.err().into_iter().map(|error| format!("{error:#}")).collect();
    match ended {
        Ok((report, stderr)) => {
            // A vmm that had to be killed says nothing of what it did.
            let told = report.as_ref().filter(|report| report.stats != Stats::default());
            life.sandbox = told.map(SandboxSample::from);
            if !errors.is_empty() {
                errors.extend(report.and_then(|r| r.outcome.failure_message().map(str::to_owned)));
                errors.extend((!stderr.is_empty()).then(|| format!("standard error: {stderr}")));
            }
        }
        Err(error) => errors.push(format!("clean-up: {error:#}")),
    }
    if !errors.is_empty() {
        life.error = Some(errors.join("; "));
        if life.outcome == Outcome::Completed {
            life.outcome = Outcome::Failed;
        }
    }
    life
}

async fn work(
    plan: &Plan,
    seed: u64,
    requested: Instant,
    life: &mut Life,
    interpreter: &mut Option<Interpreter>,
    checkpoint: &mut Checkpoint,
) -> Result<()> {
    let steps = plan.scenario.steps(seed, &plan.directory_of(seed))?;
    let started = Interpreter::start(&plan.ground, &plan.scenario, plan.limits).await.context("spawn")?;
    let interpreter = interpreter.insert(started);
    life.pid = interpreter.pid();
    interpreter.hello(seed).await.context("hello")?;
    life.spawn_ms = ms(requested.elapsed());
    checkpoint.reach(Stage::Alive, life.pid).await;
    for step in steps {
        let asked = Instant::now();
        let answer = interpreter.operate(&step.cell).await.with_context(|| step.name.clone())?;
        life.operations.push(OperationSample { name: step.name.clone(), ms: ms(asked.elapsed()) });
        if answer != step.expected {
            life.operations.pop();
            bail!("{}: wrong answer {}, expected {}", step.name, clip(&answer), clip(&step.expected));
        }
    }
    checkpoint.reach(Stage::Worked, life.pid).await;
    Ok(())
}
