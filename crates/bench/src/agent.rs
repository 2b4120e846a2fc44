//! The life of one agent: spawn, execute, clean up; timed, and every answer checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use lg_runtime::{Report, Stats};
use serde::Serialize;

use crate::backend::{Answer, Ground, Interpreter, Limits, clip};
use crate::checkpoint::{Checkpoint, Stage};
use crate::ms;
use crate::scenario::{Action, Scenario};

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
    /// The parts of that, one after the other. Together they are [`spawn_ms`](Self::spawn_ms).
    pub spawn_phases: Vec<Phase>,
    /// From then until the answer to the last operation.
    pub execute_ms: f64,
    /// From then until the agent's process was reaped.
    pub cleanup_ms: f64,
    /// The three together.
    pub total_ms: f64,
    /// The operations that were done, in order.
    pub operations: Vec<OperationSample>,
    /// What operations measured themselves, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, Vec<f64>>,
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

/// A part of a spawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Phase {
    /// What happened.
    pub name: &'static str,
    /// How long it took, in milliseconds.
    pub ms: f64,
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
        spawn_phases: Vec::new(),
        execute_ms: 0.0,
        cleanup_ms: 0.0,
        total_ms: 0.0,
        operations: Vec::new(),
        measures: BTreeMap::new(),
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
    let directory = plan.directory_of(seed);
    let steps = plan.scenario.steps(seed, &directory)?;
    let started = Interpreter::start(&plan.ground, plan.limits).await.context("spawn")?;
    let there = requested.elapsed();
    let interpreter = interpreter.insert(started);
    life.pid = interpreter.pid();
    interpreter.hello(seed).await.context("hello")?;
    let answered = requested.elapsed();
    life.spawn_ms = ms(answered);
    life.spawn_phases = phases(interpreter.fork_time(), there, answered);
    checkpoint.reach(Stage::Alive, life.pid).await;
    for step in steps {
        if !step.think.is_zero() {
            tokio::time::sleep(step.think).await;
        }
        let asked = Instant::now();
        let answer = match &step.action {
            Action::Cell(source) => interpreter.operate(source, step.measure.is_some()).await,
            Action::Shell(script) => interpreter.shell(script).await.map(Answer::plain),
        };
        let Answer { value, samples } = answer.with_context(|| step.name.clone())?;
        let took = ms(asked.elapsed());
        if value != step.expected {
            bail!("{}: wrong answer {}, expected {}", step.name, clip(&value), clip(&step.expected));
        }
        life.operations.push(OperationSample { name: step.name, ms: took });
        if let Some(measure) = step.measure {
            life.measures.entry(measure).or_default().extend(samples);
        }
    }
    checkpoint.reach(Stage::Worked, life.pid).await;
    Ok(())
}

/// The parts of a spawn: how long the vmm took for the fork, and when after the request the sandbox was there and when its
/// interpreter had answered.
fn phases(fork: Option<Duration>, there: Duration, answered: Duration) -> Vec<Phase> {
    let answer = Phase { name: "first answer", ms: ms(answered - there) };
    match fork {
        Some(fork) => vec![
            Phase { name: "queue and hand-over", ms: ms(there.saturating_sub(fork)) },
            Phase { name: "fork in the vmm", ms: ms(fork.min(there)) },
            answer,
        ],
        None => vec![Phase { name: "start", ms: ms(there) }, answer],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_of_a_spawn_add_up_to_it() {
        let of = |fork| {
            let phases = phases(fork, Duration::from_millis(3), Duration::from_millis(5));
            (phases.iter().map(|phase| phase.ms).sum::<f64>(), phases.len())
        };
        assert_eq!(of(Some(Duration::from_millis(1))), (5.0, 3));
        assert_eq!(of(None), (5.0, 2));
        // Two clocks: the vmm's own time is never more than what it is a part of.
        assert_eq!(of(Some(Duration::from_millis(4))), (5.0, 3));
    }
}
