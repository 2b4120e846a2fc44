//! The measuring: repetitions of all agent counts in turns, so that whatever else the machine does falls on all alike.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lg_runtime::{Census, Leftovers};
use tokio::task::JoinSet;

use super::{Arrival, ScaleConfig, resources};
use crate::agent::{self, Life, Outcome, Plan};
use crate::backend::{Backend, Ground, Limits};
use crate::checkpoint::Checkpoint;
use crate::environment::cores;
use crate::finding::TemplateFacts;
use crate::floors::{Floors, NativeBurst, parallel_speedup, process_lives_ms};
use crate::ms;
use crate::progress::Progress;
use crate::random::Random;
use crate::report;
use crate::schema::Resources;
use crate::stats::Summary;
use crate::usage::CpuTime;

/// How often the single agent lives in each round at least: everything else is compared with it.
const BASELINE_LIVES: usize = 3;
/// How long an agent may live, at least, and for each of those at once.
const LEAST_DEADLINE: Duration = Duration::from_secs(60);
const DEADLINE_EACH: Duration = Duration::from_secs(1);
/// How many bare virtual machines are made for the floor.
const BARE_LIVES: usize = 20;
/// How often one agent lives as a plain process, and how often so many at once.
const NATIVE_LIVES: usize = 5;
const NATIVE_BURST: (usize, usize) = (50, 3);
/// How long something may take to go away before it counts as left.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much more memory than one agent was seen to have each of many is taken to need, and what stays for everybody else.
const MEMORY_MARGIN: f64 = 1.25;
const MEMORY_LEFT: u64 = 256 << 20;

/// What a run has measured so far.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) template: Option<TemplateFacts>,
    pub(crate) floors: Option<Floors>,
    /// One for each agent count, in order.
    pub(crate) measurements: Vec<Measurement>,
}

impl Collected {
    /// Whether there is a repetition of something.
    pub(crate) fn has_results(&self) -> bool {
        self.floors.is_some() && self.measurements.iter().any(|m| !m.timed.is_empty())
    }
}

/// All repetitions of one agent count.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) agents: usize,
    /// How many lives each agent has in a repetition; they follow each other in [`Repetition::lives`].
    pub(crate) lives_each: usize,
    pub(crate) timed: Vec<Repetition>,
    /// The repetition in which agents waited for each other, so that memory could be sampled. Its times count nowhere.
    pub(crate) sampled: Option<(Repetition, Resources)>,
}

/// One repetition of N agents at once.
#[derive(Debug)]
pub(crate) struct Repetition {
    /// In which round it was.
    pub(crate) round: usize,
    pub(crate) wall_ms: f64,
    pub(crate) cpu: Option<CpuTime>,
    pub(crate) lives: Vec<Life>,
    pub(crate) leftovers: Leftovers,
}

/// What all repetitions share.
struct Run<'a> {
    config: &'a ScaleConfig,
    ground: Ground,
    temporary: &'a Path,
}

/// Measures everything into `collected`, which has whole repetitions at any moment.
pub(super) async fn measure(config: &ScaleConfig, collected: &Mutex<Collected>) -> Result<()> {
    let counts = config.counts();
    let progress = Progress::new(2 + (config.repetitions + 1) * counts.len());
    let temporary =
        tempfile::Builder::new().prefix(&format!("luminaguard-{}-", std::process::id())).tempdir()?;

    progress.begin("floors");
    let floors = measure_floors(config, temporary.path()).await?;
    progress.done(&report::floors_line(&floors));

    // One life is not counted: it fills the caches of the host, and whatever tokio keeps for good.
    progress.begin("warm-up");
    let ground = config.backend.prepare(config.memory_bytes).await?;
    let template = match &ground {
        Ground::Template(template) => Some(TemplateFacts::of(template)),
        Ground::Cold(_) | Ground::Native => None,
    };
    let run = Run { config, ground, temporary: temporary.path() };
    let line = run.warm_up(counts.last().copied().unwrap_or(1)).await?;
    progress.done(&line);
    let lives_each = config.arrival.lives_each();
    let measurement = |&agents| Measurement { agents, lives_each, timed: Vec::new(), sampled: None };
    let measurements = counts.iter().map(measurement).collect();
    *lock(collected) = Collected { template, floors: Some(floors), measurements };
    run.rounds(&counts, &progress, collected).await;
    Ok(())
}

async fn measure_floors(config: &ScaleConfig, temporary: &Path) -> Result<Floors> {
    let parallel_speedup = parallel_speedup(cores());
    let (native_ms, native_burst) = match config.backend {
        Backend::Native => (Vec::new(), None),
        Backend::Warm(_) | Backend::Cold(_) => native_floors(config, temporary).await,
    };
    let probes = config.kvm.into_iter().flat_map(|probe| std::iter::repeat_with(probe).take(BARE_LIVES));
    let bare_lives = probes.map(|sample| Ok(sample?.life_ms)).collect::<Result<Vec<_>>>()?;
    Ok(Floors {
        process_ms: Summary::of(&process_lives_ms().unwrap_or_default()),
        kvm_ms: Summary::of(&bare_lives),
        native_agent_ms: Summary::of(&native_ms),
        native_burst,
        parallel_speedup,
    })
}

/// The same agents as plain processes of the host: one alone, and many at once. Whatever fails there is left out.
async fn native_floors(config: &ScaleConfig, temporary: &Path) -> (Vec<f64>, Option<NativeBurst>) {
    let run = Run { config, ground: Ground::Native, temporary };
    let (agent_count, repetitions) = NATIVE_BURST;
    let all_completed = |r: &Repetition| r.lives.iter().all(|life| life.outcome == Outcome::Completed);
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    // Thinking is the same each time, and takes long.
    for _ in 0..if config.scenario.think.is_zero() { NATIVE_LIVES } else { 1 } {
        let repetition = run.repeat(1, 0, Vec::new()).await;
        if all_completed(&repetition) {
            alone.push(repetition.wall_ms);
        }
    }
    // Only what the criteria compare with it, and only where agents do not wait for minutes.
    if config.agents.contains(&agent_count)
        && config.scenario.think.is_zero()
        && config.arrival == Arrival::Burst
    {
        for _ in 0..repetitions {
            let repetition = run.repeat(agent_count, 0, Vec::new()).await;
            if all_completed(&repetition) {
                together.push(repetition.wall_ms);
            }
        }
    }
    let burst = Summary::of(&together).map(|total_time_ms| NativeBurst { agent_count, total_time_ms });
    (alone, burst)
}

impl Run<'_> {
    /// One life that is not counted. Answers a line about it.
    async fn warm_up(&self, most: usize) -> Result<String> {
        let before = resources::available_memory();
        let (life, bytes) = resources::live_and_weigh(self.plan(1), self.config.seed_of(0)).await;
        if let Some(error) = life.error {
            bail!("the first agent failed: {error}");
        }
        if let (Some(bytes), Some(available)) = (bytes, before) {
            let needed = (bytes as f64 * MEMORY_MARGIN) as u64 * most as u64 + MEMORY_LEFT;
            ensure!(
                needed <= available,
                "{most} agents at once need some {} MiB of memory, {} MiB each; {} MiB are available: \
                 at most {} agents fit",
                needed >> 20,
                bytes >> 20,
                available >> 20,
                (available.saturating_sub(MEMORY_LEFT) as f64 / (bytes as f64 * MEMORY_MARGIN)) as u64,
            );
        }
        Ok(format!("warm-up: one agent, {:.1} ms, not counted", life.total_ms))
    }

    async fn rounds(&self, counts: &[usize], progress: &Progress, collected: &Mutex<Collected>) {
        let mut random = Random::new(self.config.seed);
        let repetitions = self.config.repetitions;
        for round in 0..repetitions {
            let mut order: Vec<usize> = (0..counts.len()).collect();
            random.shuffle(&mut order);
            for place in order {
                let agents = counts[place];
                progress.begin(&format!("round {} of {repetitions}: {agents} at once", round + 1));
                for _ in 0..self.times(agents) {
                    let repetition = self.repeat(agents, round, Vec::new()).await;
                    lock(collected).measurements[place].timed.push(repetition);
                }
                progress.step();
            }
            progress.say(&format!("round {} of {repetitions} done", round + 1));
        }
        for (place, &agents) in counts.iter().enumerate() {
            progress.begin(&format!("memory: {agents} at once"));
            let sampled = self.sample(agents).await;
            let measurement = &mut lock(collected).measurements[place];
            measurement.sampled = Some(sampled);
            progress.done(&report::measurement_line(measurement));
        }
    }

    /// How often N agents are run in one round.
    fn times(&self, agents: usize) -> usize {
        // Thinking is the same each time, and takes long.
        if agents == 1 && self.config.scenario.think.is_zero() { BASELINE_LIVES } else { 1 }
    }

    fn plan(&self, agents: usize) -> Arc<Plan> {
        let Self { config, ground, temporary } = self;
        let directory = match ground {
            Ground::Template(_) | Ground::Cold(_) => "/tmp".to_owned(),
            Ground::Native => temporary.to_string_lossy().into_owned(),
        };
        let thinking = config.scenario.think * config.scenario.operations() as u32;
        let default = LEAST_DEADLINE.max(DEADLINE_EACH * agents as u32) + thinking;
        let limits =
            Limits { memory_bytes: config.memory_bytes, deadline: config.deadline.unwrap_or(default) };
        Arc::new(Plan { ground: ground.clone(), scenario: config.scenario.clone(), limits, directory })
    }

    /// One timed repetition. Nobody waits for anybody; with `checkpoints`, one for each agent, all wait for the sampler.
    async fn repeat(&self, agents: usize, round: usize, checkpoints: Vec<Checkpoint>) -> Repetition {
        let plan = self.plan(agents);
        let before = Census::take_in(self.temporary);
        let cpu = CpuTime::now();
        let (elapsed, lives) = self.live_all(&plan, agents, round, checkpoints).await;
        let cpu = CpuTime::now().zip(cpu).map(|(now, before)| now.since(before));
        Repetition { round, wall_ms: ms(elapsed), cpu, lives, leftovers: before.settle(PATIENCE).await }
    }

    async fn sample(&self, agents: usize) -> (Repetition, Resources) {
        let (sampler, checkpoints) = crate::checkpoint::checkpoints(agents);
        tokio::join!(self.repeat(agents, 0, checkpoints), resources::sample(sampler))
    }

    /// Asks for all agents and waits for all of them.
    async fn live_all(
        &self,
        plan: &Arc<Plan>,
        agents: usize,
        round: usize,
        checkpoints: Vec<Checkpoint>,
    ) -> (Duration, Vec<Life>) {
        let sampled = !checkpoints.is_empty();
        let (arrival, lives_each) = match sampled {
            // Those that wait for each other all come at once, and once.
            true => (Arrival::Burst, 1),
            false => (self.config.arrival, self.config.arrival.lives_each()),
        };
        let moments = arrival.moments(agents, self.config.seed.wrapping_add(round as u64));
        let mut checkpoints = checkpoints.into_iter();
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for (index, moment) in moments.into_iter().enumerate() {
            let mut checkpoint = checkpoints.next();
            let plan = plan.clone();
            let seeds: Vec<u64> =
                (0..lives_each).map(|n| self.config.seed_of(index * lives_each + n)).collect();
            tasks.spawn(async move {
                let mut requested = started + moment;
                tokio::time::sleep_until(requested.into()).await;
                let mut lives = Vec::with_capacity(seeds.len());
                for seed in seeds {
                    let checkpoint = checkpoint.take().unwrap_or_default();
                    lives.push(agent::live(plan.clone(), seed, requested, checkpoint).await);
                    requested = Instant::now();
                }
                (index, lives)
            });
        }
        let mut lives: Vec<(usize, Vec<Life>)> = Vec::with_capacity(agents);
        while let Some(result) = tasks.join_next().await {
            // A panic of the harness itself is not an agent's failure.
            lives.push(result.expect("an agent's task neither panics nor is cancelled"));
        }
        let elapsed = started.elapsed();
        lives.sort_unstable_by_key(|(index, _)| *index);
        (elapsed, lives.into_iter().flat_map(|(_, lives)| lives).collect())
    }
}

fn lock(collected: &Mutex<Collected>) -> MutexGuard<'_, Collected> {
    collected.lock().unwrap_or_else(PoisonError::into_inner)
}
