//! The run itself: all agent counts, all repetitions, and the files at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lg_runtime::{Census, Leftovers};
use tokio::task::JoinSet;

use crate::agent::{self, Life, Outcome, Plan};
use crate::backend::{Backend, Ground, Limits};
use crate::checkpoint::{Checkpoint, Stage, checkpoints};
use crate::environment::{Environment, cores};
use crate::finding::TemplateFacts;
use crate::floors::{Floors, KvmProbe, process_lives_ms};
use crate::interrupt::block_on;
use crate::progress::Progress;
use crate::report::{self, Files};
use crate::scenario::Scenario;
use crate::schema::{
    AgentResult, CONCURRENT_SCHEMA, Concurrent, Criterion, MeanExits, Resources, SCALING_SCHEMA, Scaling,
};
use crate::stats::{Summary, mean, median};
use crate::usage::CpuTime;
use crate::{descriptors, ms, proc};

const MAX_AGENTS: usize = 10_000;
/// How often the single agent is run at least: everything else is compared with it.
const MIN_BASELINE_REPETITIONS: usize = 5;
/// How long an agent may live, at least, and for each of those at once.
const LEAST_DEADLINE: Duration = Duration::from_secs(60);
const DEADLINE_EACH: Duration = Duration::from_secs(1);
/// The number of agents whose total time is told among the criteria.
const NAMED_AGENTS: usize = 50;
/// How many bare virtual machines are made for the floor.
const BARE_LIVES: usize = 10;
/// How long something may take to go away before it counts as left.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Debug, Clone)]
pub struct ScaleConfig {
    /// How many agents at once, one measurement for each.
    pub agents: Vec<usize>,
    /// How often each measurement is repeated.
    pub repetitions: usize,
    /// The directory for the result files; made if it does not exist.
    pub out: PathBuf,
    /// Where agents run.
    pub backend: Backend,
    /// What agents do.
    pub scenario: Scenario,
    /// The memory limit of each sandbox, in bytes.
    pub memory_bytes: u64,
    /// How long an agent may live; `None`: a minute, or a second for each of the agents at once if that is more.
    pub deadline: Option<Duration>,
    /// Measures a bare virtual machine.
    pub kvm: Option<KvmProbe>,
}

/// What a run found.
#[derive(Debug)]
pub struct ScaleOutcome {
    /// What was written to `scaling_comprehensive_*.json`.
    pub scaling: Scaling,
    /// The table for a terminal.
    pub table: String,
    /// The files that were written.
    pub files: Vec<PathBuf>,
}

impl ScaleOutcome {
    /// Whether every agent completed and nothing was left behind.
    pub fn is_clean(&self) -> bool {
        self.scaling
            .test_results
            .iter()
            .all(|result| result.failures.is_empty() && result.leftovers.is_nothing())
    }

    /// Whether every criterion holds.
    pub fn criteria_hold(&self) -> bool {
        self.scaling.criteria.iter().all(|criterion| criterion.passed)
    }
}

/// One repetition of N agents at once.
#[derive(Debug)]
pub(crate) struct Repetition {
    pub(crate) wall_ms: f64,
    pub(crate) cpu: Option<CpuTime>,
    pub(crate) lives: Vec<Life>,
    leftovers: Leftovers,
}

/// All repetitions of one agent count.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) agents: usize,
    pub(crate) timed: Vec<Repetition>,
    /// The repetition in which agents waited for each other, so that memory could be sampled. Its times count nowhere.
    pub(crate) sampled: Repetition,
    pub(crate) resources: Resources,
}

impl ScaleConfig {
    /// Runs everything, writes the files and answers what was found. Shows progress on standard error.
    ///
    /// # Errors
    /// When the run cannot be done at all or its files cannot be written. An agent that fails is no error
    /// but a finding.
    pub fn run(&self) -> Result<ScaleOutcome> {
        ensure!(self.repetitions > 0, "--repetitions must be at least 1");
        ensure!(!self.agents.is_empty(), "--agents must name at least one number");
        let most = self.agents.iter().copied().max().unwrap_or(0);
        ensure!(most <= MAX_AGENTS, "--agents {most}: at most {MAX_AGENTS} at once are possible");
        ensure!(!self.agents.contains(&0), "--agents must be at least 1");
        descriptors::allow(most)?;
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make the directory {}", self.out.display()))?;
        let kvm_kind = self.kvm.map(|probe| probe().context("cannot make a virtual machine")).transpose()?;
        let kvm_kind = kvm_kind.map(|sample| sample.kind);
        let environment = Environment::look(self.backend.name(), kvm_kind);
        let started = jiff::Timestamp::now();
        let (template, floors, measurements) = block_on(self.measure())?;
        let files = Files::new(&self.out, started);
        let scaling = self.evaluate(started, environment, template, floors, &measurements);
        let files = files.write(&scaling, &measurements)?;
        Ok(ScaleOutcome { table: report::table(&scaling.test_results), scaling, files })
    }

    async fn measure(&self) -> Result<(Option<TemplateFacts>, Floors, Vec<Measurement>)> {
        let mut counts = self.agents.clone();
        counts.sort_unstable();
        counts.dedup();
        // The single agent is what speedup is measured against.
        if counts.first() != Some(&1) {
            counts.insert(0, 1);
        }
        let progress = Progress::new(2 + counts.len());
        let temporary =
            tempfile::Builder::new().prefix(&format!("luminaguard-{}-", std::process::id())).tempdir()?;

        progress.begin("floors");
        let native = self.plan(&Ground::Native, 1, temporary.path());
        let mut native_ms = Vec::new();
        if !matches!(self.backend, Backend::Native) {
            for seed in 0..MIN_BASELINE_REPETITIONS as u64 {
                let life = agent::live(native.clone(), seed, Instant::now(), Checkpoint::default()).await;
                if life.outcome == Outcome::Completed {
                    native_ms.push(life.total_ms);
                }
            }
        }
        let probes = self.kvm.into_iter().flat_map(|probe| std::iter::repeat_with(probe).take(BARE_LIVES));
        let bare_lives = probes.map(|sample| Ok(sample?.life_ms)).collect::<Result<Vec<_>>>()?;
        let floors = Floors {
            process_ms: Summary::of(&process_lives_ms().unwrap_or_default()),
            kvm_ms: Summary::of(&bare_lives),
            native_agent_ms: Summary::of(&native_ms),
        };
        progress.done(&report::floors_line(&floors));

        // One life is not counted: it fills the caches of the host, and whatever tokio keeps for good.
        progress.begin("warm-up");
        let ground = self.backend.prepare(self.memory_bytes).await?;
        let plan = self.plan(&ground, 1, temporary.path());
        let life = agent::live(plan.clone(), 0, Instant::now(), Checkpoint::default()).await;
        if let Some(error) = life.error {
            bail!("the first agent failed: {error}");
        }
        progress.done(&format!("warm-up: one agent, {:.1} ms, not counted", life.total_ms));

        let mut measurements = Vec::new();
        for agents in counts {
            let repetitions =
                if agents == 1 { self.repetitions.max(MIN_BASELINE_REPETITIONS) } else { self.repetitions };
            let plan = self.plan(&ground, agents, temporary.path());
            let mut timed = Vec::new();
            for repetition in 1..=repetitions {
                progress.begin(&format!("{agents} at once, repetition {repetition} of {repetitions}"));
                timed.push(run_timed(&plan, agents, temporary.path()).await);
            }
            progress.begin(&format!("{agents} at once, memory"));
            let (sampled, resources) = run_sampled(&plan, agents, temporary.path()).await;
            let measurement = Measurement { agents, timed, sampled, resources };
            progress.done(&report::measurement_line(&measurement));
            measurements.push(measurement);
        }
        let template = match &ground {
            Ground::Template(template) => Some(TemplateFacts::of(template)),
            Ground::Cold(_) | Ground::Native => None,
        };
        Ok((template, floors, measurements))
    }

    fn plan(&self, ground: &Ground, agents: usize, temporary: &Path) -> Arc<Plan> {
        let directory = match ground {
            Ground::Template(_) | Ground::Cold(_) => "/tmp".to_owned(),
            Ground::Native => temporary.to_string_lossy().into_owned(),
        };
        let deadline = self.deadline.unwrap_or(LEAST_DEADLINE.max(DEADLINE_EACH * agents as u32));
        let limits = Limits { memory_bytes: self.memory_bytes, deadline };
        Arc::new(Plan { ground: ground.clone(), scenario: self.scenario.clone(), limits, directory })
    }

    fn evaluate(
        &self,
        started: jiff::Timestamp,
        environment: Environment,
        template: Option<TemplateFacts>,
        floors: Floors,
        measurements: &[Measurement],
    ) -> Scaling {
        let baseline = measurements.iter().find(|m| m.agents == 1).and_then(Baseline::of);
        let test_results: Vec<Concurrent> = measurements
            .iter()
            .map(|measurement| evaluate(measurement, started, baseline, self.scenario.operations()))
            .collect();
        let criteria = test_results
            .iter()
            .flat_map(|result| {
                let agents = result.agent_count;
                let lives = agents * (result.repetitions + 1);
                let failed: usize = result.failures.values().sum();
                let things = result.leftovers.things();
                let total = (agents == NAMED_AGENTS).then(|| {
                    Criterion::told(format!("total time of {agents} agents"), result.total_time_ms, "ms")
                });
                [
                    Criterion::exactly(format!("lives completed at {agents} agents"), lives, lives - failed),
                    Criterion::exactly(format!("leftovers at {agents} agents"), 0, things),
                ]
                .into_iter()
                .chain(total)
            })
            .collect();
        Scaling {
            timestamp: seconds(started),
            schema: SCALING_SCHEMA.to_owned(),
            scenario: self.scenario.name.clone(),
            environment,
            template,
            floors,
            criteria,
            test_results,
        }
    }
}

fn seconds(timestamp: jiff::Timestamp) -> String {
    timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Starts `checkpoints.len()` agents at once and waits for all of them.
async fn live_all(plan: &Arc<Plan>, checkpoints: Vec<Checkpoint>) -> (Duration, Vec<Life>) {
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for (index, checkpoint) in checkpoints.into_iter().enumerate() {
        let plan = plan.clone();
        tasks.spawn(async move { (index, agent::live(plan, index as u64 + 1, started, checkpoint).await) });
    }
    let mut lives: Vec<(usize, Life)> = Vec::new();
    while let Some(result) = tasks.join_next().await {
        // A panic of the harness itself is not an agent's failure.
        lives.push(result.expect("an agent's task neither panics nor is cancelled"));
    }
    let elapsed = started.elapsed();
    lives.sort_unstable_by_key(|(index, _)| *index);
    (elapsed, lives.into_iter().map(|(_, life)| life).collect())
}

async fn run_timed(plan: &Arc<Plan>, agents: usize, temporary: &Path) -> Repetition {
    let before = Census::take_in(temporary);
    let cpu = CpuTime::now();
    let (elapsed, lives) = live_all(plan, (0..agents).map(|_| Checkpoint::default()).collect()).await;
    let cpu = CpuTime::now().zip(cpu).map(|(now, before)| now.since(before));
    Repetition { wall_ms: ms(elapsed), cpu, lives, leftovers: before.settle(PATIENCE).await }
}

async fn run_sampled(plan: &Arc<Plan>, agents: usize, temporary: &Path) -> (Repetition, Resources) {
    const MIB: f64 = (1 << 20) as f64;
    let before = Census::take_in(temporary);
    let (mut sampler, checkpoints) = checkpoints(agents);
    let sample = async {
        let alive = sampler.gather(Stage::Alive, || {}).await;
        let memory = proc::pss_bytes(&alive);
        let threads = proc::threads(&alive);
        let mut peak = memory;
        sampler.open(Stage::Alive);
        let worked = sampler.gather(Stage::Worked, || peak = peak.max(proc::pss_bytes(&alive))).await;
        peak = peak.max(proc::pss_bytes(&worked));
        let disk = proc::disk_bytes(&worked);
        sampler.open(Stage::Worked);
        Resources {
            memory_mb: memory.map(|bytes| bytes as f64 / MIB),
            memory_per_agent_mb: memory.map(|bytes| bytes as f64 / MIB / alive.len().max(1) as f64),
            memory_peak_mb: peak.map(|bytes| bytes as f64 / MIB),
            threads_active: threads,
            disk_read_mb: disk.map(|(read, _)| read as f64 / MIB),
            disk_write_mb: disk.map(|(_, written)| written as f64 / MIB),
            ..Resources::default()
        }
    };
    let (resources, (elapsed, lives)) = tokio::join!(sample, live_all(plan, checkpoints));
    (
        Repetition { wall_ms: ms(elapsed), cpu: None, lives, leftovers: before.settle(PATIENCE).await },
        resources,
    )
}

/// What one agent alone takes.
#[derive(Debug, Clone, Copy)]
struct Baseline {
    life_ms: f64,
    cpu_ms: Option<f64>,
}

impl Baseline {
    fn of(measurement: &Measurement) -> Option<Self> {
        let lives: Vec<f64> = measurement.completed().map(|life| life.total_ms).collect();
        let cpu: Vec<f64> = measurement.timed.iter().filter_map(|r| Some(r.cpu?.seconds() * 1e3)).collect();
        Some(Self { life_ms: mean(&lives)?, cpu_ms: mean(&cpu) })
    }

    /// What the cores allow for `agents` agents.
    fn ideal_speedup(self, agents: usize) -> Option<f64> {
        let cpu_ms = self.cpu_ms.filter(|cpu| *cpu > 0.0)?;
        Some((cores() as f64 * self.life_ms / cpu_ms).clamp(1.0, agents as f64))
    }
}

impl Measurement {
    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.timed.iter().flat_map(|repetition| &repetition.lives)
    }

    /// The lives whose times count.
    pub(crate) fn completed(&self) -> impl Iterator<Item = &Life> {
        self.lives().filter(|life| life.outcome == Outcome::Completed)
    }

    /// The median over the timed repetitions of what `of` says of each.
    fn median_of(&self, of: impl Fn(&Repetition) -> Option<f64>) -> Option<f64> {
        median(&self.timed.iter().filter_map(of).collect::<Vec<_>>())
    }

    /// All lives that did not complete, by outcome, sampled ones included.
    pub(crate) fn failures(&self) -> BTreeMap<Outcome, usize> {
        let mut failures = BTreeMap::new();
        for life in self.lives().chain(&self.sampled.lives) {
            if life.outcome != Outcome::Completed {
                *failures.entry(life.outcome).or_default() += 1;
            }
        }
        failures
    }

    /// The most that any repetition left.
    pub(crate) fn leftovers(&self) -> Leftovers {
        self.timed.iter().map(|repetition| repetition.leftovers).fold(self.sampled.leftovers, Leftovers::max)
    }

    /// The median of the wall clock.
    pub(crate) fn total_ms(&self) -> f64 {
        self.median_of(|repetition| Some(repetition.wall_ms)).unwrap_or(0.0)
    }
}

fn completed_operations(repetition: &Repetition) -> usize {
    repetition.lives.iter().map(|life| life.operations.len()).sum()
}

fn mean_of(repetition: &Repetition, of: impl Fn(&Life) -> f64) -> Option<f64> {
    let completed = repetition.lives.iter().filter(|life| life.outcome == Outcome::Completed);
    mean(&completed.map(of).collect::<Vec<_>>())
}

fn evaluate(
    m: &Measurement,
    started: jiff::Timestamp,
    baseline: Option<Baseline>,
    operations: usize,
) -> Concurrent {
    let agents = m.agents as f64;
    let total_time_ms = m.total_ms();
    let summary = |of: fn(&Life) -> f64| Summary::of(&m.completed().map(of).collect::<Vec<_>>());
    let throughput =
        m.median_of(|r| Some(completed_operations(r) as f64 / (r.wall_ms / 60_000.0))).unwrap_or(0.0);
    let lives_per_second = m.median_of(|r| {
        let completed = r.lives.iter().filter(|life| life.outcome == Outcome::Completed).count();
        Some(completed as f64 / (r.wall_ms / 1e3))
    });
    let avg_agent_ms = m.median_of(|r| mean_of(r, |life| life.total_ms));
    let speedup = baseline.map(|baseline| baseline.life_ms * agents / total_time_ms);
    let ideal_speedup = baseline.and_then(|baseline| baseline.ideal_speedup(m.agents));
    let resources = Resources {
        cpu_percent: m.median_of(|r| Some(r.cpu?.seconds() / (r.wall_ms / 1e3) / cores() as f64 * 100.0)),
        cpu_seconds_per_agent: m.median_of(|r| Some(r.cpu?.children.as_secs_f64() / agents)),
        ..m.resources.clone()
    };
    let mut operation_samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for operation in m.lives().flat_map(|life| &life.operations) {
        operation_samples.entry(operation.name.clone()).or_default().push(operation.ms);
    }
    Concurrent {
        timestamp: seconds(started),
        schema: CONCURRENT_SCHEMA.to_owned(),
        agent_count: m.agents,
        repetitions: m.timed.len(),
        total_time_ms,
        avg_spawn_time_ms: m.median_of(|r| mean_of(r, |life| life.spawn_ms)),
        avg_execute_time_ms: m.median_of(|r| mean_of(r, |life| life.execute_ms)),
        avg_cleanup_time_ms: m.median_of(|r| mean_of(r, |life| life.cleanup_ms)),
        spawn_ms: summary(|life| life.spawn_ms),
        execute_ms: summary(|life| life.execute_ms),
        cleanup_ms: summary(|life| life.cleanup_ms),
        agent_ms: summary(|life| life.total_ms),
        operation_ms: operation_samples
            .into_iter()
            .filter_map(|(name, samples)| Some((name, Summary::of(&samples)?)))
            .collect(),
        throughput_ops_per_min: throughput,
        throughput_per_agent_ops_per_min: throughput / agents,
        agents_per_second: lives_per_second.unwrap_or(0.0),
        scaling_factor: avg_agent_ms.map(|mean| total_time_ms / (mean * agents)),
        speedup,
        ideal_speedup,
        efficiency: speedup.zip(ideal_speedup).map(|(speedup, ideal)| speedup / ideal),
        resources,
        exits: mean_exits(m),
        agent_results: (0..m.agents).map(|index| agent_result(m, index, operations)).collect(),
        failures: m.failures(),
        leftovers: m.leftovers(),
    }
}

fn mean_exits(m: &Measurement) -> Option<MeanExits> {
    let samples: Vec<_> = m.completed().filter_map(|life| life.sandbox).collect();
    let mean_of = |of: fn(&agent::SandboxSample) -> u64| {
        mean(&samples.iter().map(|sample| of(sample) as f64).collect::<Vec<_>>())
    };
    Some(MeanExits {
        syscalls: mean_of(|s| s.syscalls)?,
        page_faults: mean_of(|s| s.page_faults)?,
        interrupts: mean_of(|s| s.interrupts)?,
    })
}

fn agent_result(m: &Measurement, index: usize, operations: usize) -> AgentResult {
    let lives: Vec<&Life> = m.timed.iter().filter_map(|repetition| repetition.lives.get(index)).collect();
    let time =
        |of: fn(&Life) -> f64| median(&lives.iter().map(|life| of(life)).collect::<Vec<_>>()).unwrap_or(0.0);
    let outcome = lives.iter().map(|life| life.outcome).max().unwrap_or(Outcome::Failed);
    AgentResult {
        agent_id: agent_id(index, m.agents),
        spawn_time_ms: time(|life| life.spawn_ms),
        execute_time_ms: time(|life| life.execute_ms),
        cleanup_time_ms: time(|life| life.cleanup_ms),
        total_time_ms: time(|life| life.total_ms),
        ops_completed: lives.iter().map(|life| life.operations.len()).min().unwrap_or(0).min(operations),
        outcome,
        error: lives.iter().find_map(|life| life.error.clone()),
    }
}

/// The name of an agent: all names of a run are equally long.
pub(crate) fn agent_id(index: usize, agents: usize) -> String {
    let width = agents.to_string().len().max(2);
    format!("agent-{:0width$}", index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::OperationSample;

    fn life(spawn_ms: f64, execute_ms: f64, cleanup_ms: f64) -> Life {
        Life {
            spawn_ms,
            execute_ms,
            cleanup_ms,
            total_ms: spawn_ms + execute_ms + cleanup_ms,
            operations: vec![OperationSample { name: "evaluate".to_owned(), ms: execute_ms }; 10],
            outcome: Outcome::Completed,
            error: None,
            sandbox: None,
            pid: None,
        }
    }

    fn repetition(wall_ms: f64, cpu_ms: u64, lives: Vec<Life>) -> Repetition {
        let cpu = CpuTime { own: Duration::ZERO, children: Duration::from_millis(cpu_ms) };
        Repetition { wall_ms, cpu: Some(cpu), lives, leftovers: Leftovers::default() }
    }

    fn measurement(timed: Vec<Repetition>) -> Measurement {
        let agents = timed[0].lives.len();
        let sampled = repetition(1.0, 1, vec![life(1.0, 1.0, 1.0); agents]);
        Measurement { agents, timed, sampled, resources: Resources::default() }
    }

    #[test]
    fn the_figures_of_a_run_are_those_worked_out_by_hand() {
        let one = measurement(vec![repetition(100.0, 100, vec![life(30.0, 60.0, 10.0)])]);
        let baseline = Baseline::of(&one);
        let four = measurement(vec![repetition(200.0, 300, vec![life(50.0, 100.0, 10.0); 4])]);
        let result = evaluate(&four, jiff::Timestamp::UNIX_EPOCH, baseline, 10);
        assert_eq!(result.total_time_ms, 200.0);
        assert_eq!(result.avg_spawn_time_ms, Some(50.0));
        // 40 operations in 0.2 s.
        assert!((result.throughput_ops_per_min - 12_000.0).abs() < 1e-9);
        assert!((result.throughput_per_agent_ops_per_min - 3_000.0).abs() < 1e-9);
        assert!((result.agents_per_second - 20.0).abs() < 1e-9);
        // 200 / (160 x 4), and 100 x 4 / 200.
        assert!((result.scaling_factor.unwrap() - 0.3125).abs() < 1e-12);
        assert!((result.speedup.unwrap() - 2.0).abs() < 1e-12);
        let ideal = (cores() as f64).min(4.0);
        assert!((result.ideal_speedup.unwrap() - ideal).abs() < 1e-12);
        assert!((result.efficiency.unwrap() - 2.0 / ideal).abs() < 1e-12);
        let percent = result.resources.cpu_percent.unwrap();
        assert!((percent - 150.0 / cores() as f64).abs() < 1e-9);
        assert!((result.resources.cpu_seconds_per_agent.unwrap() - 0.075).abs() < 1e-12);
        assert!(result.failures.is_empty() && result.exits.is_none());
    }

    #[test]
    fn figures_are_medians_over_repetitions() {
        let repetitions =
            [100.0, 300.0, 120.0].map(|wall| repetition(wall, 10, vec![life(wall / 2.0, 1.0, 1.0)]));
        let result = evaluate(&measurement(repetitions.into()), jiff::Timestamp::UNIX_EPOCH, None, 10);
        assert_eq!(result.total_time_ms, 120.0);
        assert_eq!(result.avg_spawn_time_ms, Some(60.0));
        assert_eq!(result.speedup, None);
    }

    #[test]
    fn failed_agents_count_as_failures_and_not_in_times() {
        let failed = Life {
            outcome: Outcome::Failed,
            error: Some("wrong".to_owned()),
            operations: Vec::new(),
            ..life(9.0, 9.0, 9.0)
        };
        let m = measurement(vec![repetition(100.0, 10, vec![life(1.0, 2.0, 3.0), failed])]);
        let result = evaluate(&m, jiff::Timestamp::UNIX_EPOCH, None, 10);
        assert_eq!(result.failures, BTreeMap::from([(Outcome::Failed, 1)]));
        assert_eq!(result.spawn_ms.unwrap().max, 1.0);
        assert!((result.throughput_ops_per_min - 10.0 / (0.1 / 60.0)).abs() < 1e-9);
        assert_eq!(result.agent_results[1].agent_id, "agent-02");
        assert_eq!(result.agent_results[1].error.as_deref(), Some("wrong"));
        assert_eq!(result.agent_results[1].ops_completed, 0);
    }

    #[test]
    fn names_of_agents_sort() {
        assert_eq!(agent_id(0, 5), "agent-01");
        assert_eq!(agent_id(99, 100), "agent-100");
        assert_eq!(agent_id(0, 1000), "agent-0001");
    }
}
