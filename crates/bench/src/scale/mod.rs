//! `luminaguard bench scale`: agents that do real work, N at once, for many N.

mod arrival;
mod criteria;
mod evaluate;
mod resources;
mod run;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::backend::Backend;
use crate::descriptors;
use crate::environment::{Environment, cores};
use crate::floors::KvmProbe;
use crate::interrupt::{Interrupted, block_on};
use crate::overload::{OverloadConfig, OverloadFinding};
use crate::peers::{PeersConfig, PeersFinding};
use crate::report::{self, Files};
use crate::scenario::Scenario;
use crate::schema::{Overload, Peers, Scaling};

pub use arrival::Arrival;
pub use criteria::Criteria;
pub(crate) use evaluate::agent_id;
pub(crate) use run::{Collected, Measurement};

const MAX_AGENTS: usize = 10_000;
const MAX_REPETITIONS: usize = 1_000;
/// So many failures of an agent count are told in words.
const KEPT_ERRORS: usize = 5;
/// Agents' seeds follow from the run's: so far apart that those of two runs are not the same.
const SEEDS_EACH: u64 = 1 << 16;
/// Generators of the scenarios are good for seeds below 2^31.
const MAX_SEED: u64 = (1 << 31) / SEEDS_EACH - 1;

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
    /// When they are asked for.
    pub arrival: Arrival,
    /// What all random choices follow from.
    pub seed: u64,
    /// What is promised.
    pub criteria: Criteria,
    /// The memory limit of each sandbox, in bytes.
    pub memory_bytes: u64,
    /// How long an agent may live; `None`: a minute, or a second for each of the agents at once if that is more, and its thinking.
    pub deadline: Option<Duration>,
    /// Measures a bare virtual machine.
    pub kvm: Option<KvmProbe>,
    /// What else is measured in the same run.
    pub extras: Option<Extras>,
}

/// What is measured beside the agents, after them.
#[derive(Debug, Clone)]
pub struct Extras {
    /// Other ways to isolate a program.
    pub peers: PeersConfig,
    /// More sandboxes than there is room for.
    pub overload: OverloadConfig,
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
    /// What went wrong beside the agents, a line for each.
    failures: Vec<String>,
}

impl Extras {
    /// Measures them into `scaling`, and answers what went wrong. An interruption leaves out what was not done.
    fn add_to(&self, scaling: &mut Scaling) -> Result<Vec<String>> {
        let mut failures = Vec::new();
        eprintln!("peers");
        match self.peers.run() {
            Ok(PeersFinding { interrupted, rounds, measured, skipped, tally, .. }) => {
                failures.extend(tally.complaints());
                scaling.interrupted = interrupted;
                scaling.peers = Some(Peers { rounds, measured, skipped });
            }
            Err(error) if error.is::<Interrupted>() => scaling.interrupted = true,
            Err(error) => return Err(error.context("peers")),
        }
        if scaling.interrupted {
            return Ok(failures);
        }
        eprintln!("beyond capacity");
        let OverloadFinding { interrupted, rows, skipped, tally, .. } =
            self.overload.run().context("beyond capacity")?;
        scaling.interrupted = interrupted;
        failures.extend(tally.complaints());
        scaling.overload = Some(Overload { rows, skipped });
        Ok(failures)
    }
}

impl ScaleOutcome {
    /// Whether every agent completed, nothing was left behind and nothing else went wrong.
    pub fn is_clean(&self) -> bool {
        let mut results = self.scaling.test_results.iter();
        let is_clean = results.all(|result| result.failures.is_empty() && result.leftovers.is_nothing());
        is_clean && self.failures.is_empty()
    }

    /// The criteria, for a terminal.
    pub fn criteria_table(&self) -> String {
        report::criteria_table(&self.scaling.criteria)
    }

    /// What is wrong, a line for each: criteria that do not hold, agents that failed and why, things left behind.
    pub fn complaints(&self) -> Vec<String> {
        let missed = self.scaling.criteria.iter().filter(|criterion| !criterion.passed);
        let mut lines: Vec<String> = missed.map(report::criterion_line).collect();
        for result in &self.scaling.test_results {
            let errors = result
                .agent_results
                .iter()
                .filter_map(|agent| Some((&agent.agent_id, agent.error.as_ref()?)));
            lines.extend(
                errors
                    .take(KEPT_ERRORS)
                    .map(|(id, error)| format!("{} agents, {id}: {error}", result.agent_count)),
            );
            if !result.leftovers.is_nothing() {
                lines.push(format!(
                    "{} agents left something behind: {:?}",
                    result.agent_count, result.leftovers
                ));
            }
        }
        lines.extend(self.failures.iter().cloned());
        lines
    }

    /// Whether every criterion holds.
    pub fn criteria_hold(&self) -> bool {
        self.scaling.criteria.iter().all(|criterion| criterion.passed)
    }
}

impl ScaleConfig {
    /// Runs everything, writes the files and answers what was found. Shows progress on standard error. A run that is
    /// interrupted after its first repetition writes what it has, and says so in [`Scaling::interrupted`].
    ///
    /// # Errors
    /// When the run cannot be done at all or its files cannot be written; [`Interrupted`] before there is anything to write. An
    /// agent that fails is no error but a finding.
    pub fn run(&self) -> Result<ScaleOutcome> {
        self.check()?;
        let kvm_kind = self.kvm.map(|probe| probe().context("cannot make a virtual machine")).transpose()?;
        let environment = Environment::look(self.backend.name(), kvm_kind.map(|sample| sample.kind));
        let started = jiff::Timestamp::now();
        // Before anything is measured: whoever cannot keep what is found need not look for it.
        let files = Files::new(&self.out, started)?;
        let collected = Arc::new(Mutex::new(Collected::default()));
        let result = block_on(run::measure(self, &collected));
        let collected = std::mem::take(&mut *collected.lock().unwrap_or_else(PoisonError::into_inner));
        let interrupted = match result {
            Ok(()) => false,
            Err(error) if error.is::<Interrupted>() && collected.has_results() => true,
            Err(error) => return Err(error),
        };
        let mut scaling = evaluate::evaluate(self, started, environment, &collected, interrupted)?;
        let mut failures = Vec::new();
        if let Some(extras) = self.extras.as_ref().filter(|_| !interrupted) {
            failures = extras.add_to(&mut scaling)?;
        }
        let files = files.write(&scaling, &collected.measurements)?;
        Ok(ScaleOutcome { table: report::table(&scaling.test_results), scaling, files, failures })
    }

    fn check(&self) -> Result<()> {
        let Self { repetitions, seed, .. } = self;
        ensure!(
            (1..=MAX_REPETITIONS).contains(repetitions),
            "--repetitions {repetitions}: from 1 to {MAX_REPETITIONS} are possible"
        );
        ensure!((1..=MAX_SEED).contains(seed), "--seed {seed}: from 1 to {MAX_SEED} are possible");
        ensure!(!self.agents.is_empty(), "--agents must name at least one number");
        let most = self.agents.iter().copied().max().unwrap_or(0);
        ensure!(most <= MAX_AGENTS, "--agents {most}: at most {MAX_AGENTS} at once are possible");
        ensure!(!self.agents.contains(&0), "--agents must be at least 1");
        descriptors::allow(most)
    }

    /// All agent counts in order. The single agent is among them: speedup is measured against it. So is one agent for each
    /// processor, where agents only compute and there are that many at all: up to there all should go at full speed.
    fn counts(&self) -> Vec<usize> {
        let mut counts = self.agents.clone();
        counts.push(1);
        if self.scenario.think.is_zero() && self.agents.iter().any(|agents| *agents > cores()) {
            counts.push(cores());
        }
        counts.sort_unstable();
        counts.dedup();
        counts
    }

    /// The seed of an agent, or of one of its lives.
    fn seed_of(&self, index: usize) -> u64 {
        (self.seed - 1) * SEEDS_EACH + index as u64 + 1
    }
}
