//! From what was measured to the figures of the result files.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::ScaleConfig;
use super::run::{Collected, Measurement, Repetition};
use crate::Leftovers;
use crate::agent::{Life, Outcome, SandboxSample};
use crate::bootstrap::{interval, quantile_interval};
use crate::environment::{Environment, cores};
use crate::report::seconds;
use crate::schema::{
    AgentResult, CONCURRENT_SCHEMA, Concurrent, MeanExits, PhaseMean, Resources, SCALING_SCHEMA, Scaling,
    ScenarioFacts,
};
use crate::stats::{Summary, mean, median};
use crate::usl::Usl;

/// The measure that [`Concurrent::network_latency_ms`] shows.
const NETWORK_LATENCY: &str = "network_latency_ms";

pub(super) fn evaluate(
    config: &ScaleConfig,
    started: jiff::Timestamp,
    environment: Environment,
    collected: &Collected,
    interrupted: bool,
) -> Result<Scaling> {
    let floors = collected.floors.clone().context("nothing was measured")?;
    let measured = || collected.measurements.iter().filter(|m| !m.timed.is_empty());
    let frame = Frame {
        started,
        operations: config.scenario.operations(),
        baseline: measured().find(|m| m.agents == 1).map(Baseline::of),
        parallel_speedup: floors.parallel_speedup,
    };
    let test_results: Vec<Concurrent> = measured().map(|m| frame.concurrent(m)).collect();
    let points: Vec<(usize, f64)> =
        test_results.iter().map(|result| (result.agent_count, result.agents_per_second)).collect();
    let mut scaling = Scaling {
        timestamp: seconds(started),
        schema: SCALING_SCHEMA.to_owned(),
        interrupted,
        scenario: ScenarioFacts {
            name: config.scenario.name.clone(),
            about: config.scenario.about.clone(),
            operations: config.scenario.operations(),
            think_ms: crate::ms(config.scenario.think),
            arrival: config.arrival.to_string(),
            seed: config.seed,
        },
        environment,
        template: collected.template.clone(),
        floors,
        usl: Usl::fit(&points),
        peers: None,
        overload: None,
        criteria: Vec::new(),
        test_results,
    };
    scaling.criteria = config.criteria.evaluate(&scaling);
    Ok(scaling)
}

/// What one agent alone takes, by the round in which that was measured.
#[derive(Debug, Clone)]
struct Baseline {
    life_ms_by_round: BTreeMap<usize, f64>,
    life_ms: Option<f64>,
    cpu_ms: Option<f64>,
}

impl Baseline {
    fn of(measurement: &Measurement) -> Self {
        let mut rounds: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for repetition in &measurement.timed {
            let lives = rounds.entry(repetition.round).or_default();
            lives.extend(completed(repetition).map(|life| life.total_ms));
        }
        let cpu_of = |r: &Repetition| Some(r.cpu?.seconds() * 1e3 / r.lives.len().max(1) as f64);
        let cpu: Vec<f64> = measurement.timed.iter().filter_map(cpu_of).collect();
        let means: BTreeMap<usize, f64> =
            rounds.into_iter().filter_map(|(round, lives)| Some((round, mean(&lives)?))).collect();
        let life_ms = mean(&means.values().copied().collect::<Vec<_>>());
        Self { life_ms_by_round: means, life_ms, cpu_ms: median(&cpu) }
    }

    /// The speedup of a repetition, against the single agent of the same round.
    fn speedup(&self, repetition: &Repetition) -> Option<f64> {
        let life_ms = self.life_ms_by_round.get(&repetition.round).copied().or(self.life_ms)?;
        Some(life_ms * completed(repetition).count() as f64 / repetition.wall_ms)
    }

    /// What processors that are worth `cores` whole ones allow `agents` agents.
    fn ideal_speedup(&self, agents: usize, cores: f64) -> Option<f64> {
        let cpu_ms = self.cpu_ms.filter(|cpu| *cpu > 0.0)?;
        Some((cores * self.life_ms? / cpu_ms).clamp(1.0, agents as f64))
    }
}

fn completed(repetition: &Repetition) -> impl Iterator<Item = &Life> {
    repetition.lives.iter().filter(|life| life.outcome == Outcome::Completed)
}

fn mean_of(repetition: &Repetition, of: impl Fn(&Life) -> f64) -> Option<f64> {
    mean(&completed(repetition).map(of).collect::<Vec<_>>())
}

fn lives_per_second(repetition: &Repetition) -> Option<f64> {
    Some(completed(repetition).count() as f64 / (repetition.wall_ms / 1e3))
}

fn operations_per_minute(repetition: &Repetition) -> Option<f64> {
    let done: usize = repetition.lives.iter().map(|life| life.operations.len()).sum();
    Some(done as f64 / (repetition.wall_ms / 60_000.0))
}

impl Measurement {
    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.timed.iter().flat_map(|repetition| &repetition.lives)
    }

    /// The lives whose times count.
    pub(crate) fn completed(&self) -> impl Iterator<Item = &Life> {
        self.timed.iter().flat_map(completed)
    }

    fn summary(&self, of: fn(&Life) -> f64) -> Option<Summary> {
        Summary::of(&self.completed().map(of).collect::<Vec<_>>())
    }

    /// The median over the timed repetitions of what `of` says of each.
    fn median_of(&self, of: impl Fn(&Repetition) -> Option<f64>) -> Option<f64> {
        median(&self.timed.iter().filter_map(of).collect::<Vec<_>>())
    }

    fn repetitions(&self) -> impl Iterator<Item = &Repetition> {
        self.timed.iter().chain(self.sampled.iter().map(|(repetition, _)| repetition))
    }

    /// How many lives there were, sampled ones included.
    pub(crate) fn lived(&self) -> usize {
        self.repetitions().map(|repetition| repetition.lives.len()).sum()
    }

    /// All lives that did not complete, by outcome, sampled ones included.
    pub(crate) fn failures(&self) -> BTreeMap<Outcome, usize> {
        let mut failures = BTreeMap::new();
        for life in self.repetitions().flat_map(|repetition| &repetition.lives) {
            if life.outcome != Outcome::Completed {
                *failures.entry(life.outcome).or_default() += 1;
            }
        }
        failures
    }

    /// The most that any repetition left.
    pub(crate) fn leftovers(&self) -> Leftovers {
        self.repetitions().map(|repetition| repetition.leftovers).reduce(Leftovers::max).unwrap_or_default()
    }

    /// The median of the wall clock.
    pub(crate) fn total_ms(&self) -> f64 {
        self.median_of(|repetition| Some(repetition.wall_ms)).unwrap_or(0.0)
    }
}

/// What all agent counts of a run are evaluated with.
struct Frame {
    started: jiff::Timestamp,
    operations: usize,
    baseline: Option<Baseline>,
    parallel_speedup: f64,
}

impl Frame {
    fn concurrent(&self, m: &Measurement) -> Concurrent {
        let agents = m.agents as f64;
        let total_time_ms = m.total_ms();
        let throughput = m.median_of(operations_per_minute).unwrap_or(0.0);
        let avg_agent_ms = m.median_of(|r| mean_of(r, |life| life.total_ms));
        let speedup_of = |r: &Repetition| self.baseline.as_ref()?.speedup(r);
        let ideal = |cores: f64| self.baseline.as_ref()?.ideal_speedup(m.agents, cores);
        let (speedup, ideal_speedup) = (m.median_of(speedup_of), ideal(self.parallel_speedup));
        let spawn_ms = m.summary(|life| life.spawn_ms);
        Concurrent {
            timestamp: seconds(self.started),
            schema: CONCURRENT_SCHEMA.to_owned(),
            agent_count: m.agents,
            repetitions: m.timed.len(),
            lives_each: m.lives_each,
            total_time_ms,
            repetition_total_time_ms: m.timed.iter().map(|repetition| repetition.wall_ms).collect(),
            avg_spawn_time_ms: m.median_of(|r| mean_of(r, |life| life.spawn_ms)),
            avg_execute_time_ms: m.median_of(|r| mean_of(r, |life| life.execute_ms)),
            avg_cleanup_time_ms: m.median_of(|r| mean_of(r, |life| life.cleanup_ms)),
            intervals_95: self.intervals(m, ideal_speedup),
            spawn_ms,
            spawn_phases_ms: phases(m, spawn_ms),
            execute_ms: m.summary(|life| life.execute_ms),
            cleanup_ms: m.summary(|life| life.cleanup_ms),
            agent_ms: m.summary(|life| life.total_ms),
            operation_ms: operations(m),
            throughput_ops_per_min: throughput,
            throughput_per_agent_ops_per_min: throughput / agents,
            agents_per_second: m.median_of(lives_per_second).unwrap_or(0.0),
            scaling_factor: avg_agent_ms.map(|mean| total_time_ms / (mean * agents * m.lives_each as f64)),
            speedup,
            ideal_speedup,
            efficiency: speedup.zip(ideal_speedup).map(|(speedup, ideal)| speedup / ideal),
            nominal_ideal_speedup: ideal(cores() as f64),
            resources: resources(m),
            exits: mean_exits(m),
            network_latency_ms: measured(m, NETWORK_LATENCY),
            agent_results: (0..m.agents).map(|index| agent_result(m, index, self.operations)).collect(),
            failures: m.failures(),
            leftovers: m.leftovers(),
        }
    }

    /// The confidence intervals, by the fields they are of.
    fn intervals(&self, m: &Measurement, ideal_speedup: Option<f64>) -> BTreeMap<&'static str, [f64; 2]> {
        let of = |statistic: &dyn Fn(&Repetition) -> Option<f64>| {
            interval(&m.timed, |drawn| median(&drawn.iter().filter_map(|r| statistic(r)).collect::<Vec<_>>()))
        };
        let speedup = of(&|r| self.baseline.as_ref()?.speedup(r));
        let efficiency =
            speedup.zip(ideal_speedup).map(|(speedup, ideal)| speedup.map(|bound| bound / ideal));
        let quantile = |time: fn(&Life) -> f64, fraction| {
            let groups: Vec<Vec<f64>> = m
                .timed
                .iter()
                .map(|r| completed(r).map(time).collect())
                .filter(|g: &Vec<f64>| !g.is_empty())
                .collect();
            quantile_interval(&groups, fraction)
        };
        let all = [
            ("total_time_ms", of(&|r| Some(r.wall_ms))),
            ("agents_per_second", of(&lives_per_second)),
            ("throughput_ops_per_min", of(&operations_per_minute)),
            ("speedup", speedup),
            ("efficiency", efficiency),
            ("spawn_ms.p50", quantile(|life| life.spawn_ms, 0.5)),
            ("spawn_ms.p99", quantile(|life| life.spawn_ms, 0.99)),
            ("execute_ms.p50", quantile(|life| life.execute_ms, 0.5)),
            ("execute_ms.p99", quantile(|life| life.execute_ms, 0.99)),
            ("cleanup_ms.p50", quantile(|life| life.cleanup_ms, 0.5)),
            ("agent_ms.p50", quantile(|life| life.total_ms, 0.5)),
            ("agent_ms.p99", quantile(|life| life.total_ms, 0.99)),
        ];
        all.into_iter().filter_map(|(name, interval)| Some((name, interval?))).collect()
    }
}

/// The parts of a spawn, in the order in which they happen.
fn phases(m: &Measurement, spawn: Option<Summary>) -> Vec<PhaseMean> {
    let (Some(spawn), Some(first)) = (spawn, m.completed().next()) else { return Vec::new() };
    let mean_of = |place: usize| {
        let all = m.completed().filter_map(|life| life.spawn_phases.get(place));
        mean(&all.map(|phase| phase.ms).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let names = first.spawn_phases.iter().map(|phase| phase.name).enumerate();
    names
        .map(|(place, name)| PhaseMean { name, mean_ms: mean_of(place), share: mean_of(place) / spawn.mean })
        .collect()
}

fn operations(m: &Measurement) -> BTreeMap<String, Summary> {
    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for operation in m.lives().flat_map(|life| &life.operations) {
        samples.entry(&operation.name).or_default().push(operation.ms);
    }
    samples
        .into_iter()
        .filter_map(|(name, samples)| Some((name.to_owned(), Summary::of(&samples)?)))
        .collect()
}

fn measured(m: &Measurement, name: &str) -> Option<Summary> {
    let samples: Vec<f64> =
        m.completed().filter_map(|life| life.measures.get(name)).flatten().copied().collect();
    Summary::of(&samples)
}

fn resources(m: &Measurement) -> Resources {
    let sampled = m.sampled.as_ref().map(|(_, resources)| resources.clone()).unwrap_or_default();
    let each = |r: &Repetition, total: f64| total / r.lives.len().max(1) as f64;
    let whole_ms = |r: &Repetition| r.wall_ms / 1e3 * cores() as f64;
    Resources {
        cpu_percent: m.median_of(|r| Some(r.cpu?.seconds() / whole_ms(r) * 100.0)),
        cpu_seconds_per_agent: m.median_of(|r| Some(each(r, r.cpu?.children.as_secs_f64()))),
        harness_cpu_seconds_per_agent: m.median_of(|r| Some(each(r, r.cpu?.own.as_secs_f64()))),
        voluntary_switches_per_agent: m.median_of(|r| Some(each(r, r.cpu?.voluntary_switches as f64))),
        involuntary_switches_per_agent: m.median_of(|r| Some(each(r, r.cpu?.involuntary_switches as f64))),
        ..sampled
    }
}

fn mean_exits(m: &Measurement) -> Option<MeanExits> {
    let samples: Vec<_> = m.completed().filter_map(|life| life.sandbox).collect();
    let mean_of = |of: fn(&SandboxSample) -> u64| {
        mean(&samples.iter().map(|sample| of(sample) as f64).collect::<Vec<_>>())
    };
    Some(MeanExits {
        syscalls: mean_of(|s| s.syscalls)?,
        page_faults: mean_of(|s| s.page_faults)?,
        exceptions: mean_of(|s| s.exceptions)?,
        interrupts: mean_of(|s| s.interrupts)?,
    })
}

fn agent_result(m: &Measurement, index: usize, operations: usize) -> AgentResult {
    let places = index * m.lives_each..(index + 1) * m.lives_each;
    let lives: Vec<&Life> = m.timed.iter().filter_map(|r| r.lives.get(places.clone())).flatten().collect();
    let time =
        |of: fn(&Life) -> f64| median(&lives.iter().map(|life| of(life)).collect::<Vec<_>>()).unwrap_or(0.0);
    AgentResult {
        agent_id: agent_id(index, m.agents),
        spawn_time_ms: time(|life| life.spawn_ms),
        execute_time_ms: time(|life| life.execute_ms),
        cleanup_time_ms: time(|life| life.cleanup_ms),
        total_time_ms: time(|life| life.total_ms),
        ops_completed: lives.iter().map(|life| life.operations.len()).min().unwrap_or(0).min(operations),
        outcome: lives.iter().map(|life| life.outcome).max().unwrap_or(Outcome::Failed),
        error: lives.iter().find_map(|life| life.error.clone()),
    }
}

/// The name of an agent: all names of a run are equally long.
pub(crate) fn agent_id(index: usize, agents: usize) -> String {
    let width = agents.to_string().len().max(2);
    format!("agent-{:0width$}", index + 1)
}

#[cfg(test)]
mod tests;
