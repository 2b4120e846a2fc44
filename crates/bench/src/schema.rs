//! The fields of the result files, named as `docs/metrics.md` names them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Leftovers;
use crate::agent::Outcome;
use crate::environment::Environment;
use crate::finding::{Skipped, TemplateFacts};
use crate::floors::Floors;
use crate::overload::OverloadRow;
use crate::peers::PeerFigure;
use crate::stats::Summary;
use crate::usl::Usl;

/// The schema of [`Concurrent`].
pub const CONCURRENT_SCHEMA: &str = "luminaguard.concurrent/1";
/// The schema of [`Scaling`].
pub const SCALING_SCHEMA: &str = "luminaguard.scaling/1";

/// `concurrent_{N}_agents_{date}_{time}.json`: N agents at once. What was not measured is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Concurrent {
    /// When the run started, RFC 3339.
    pub timestamp: String,
    /// [`CONCURRENT_SCHEMA`].
    pub schema: String,
    /// N.
    pub agent_count: usize,
    /// How often the N agents were run and timed.
    pub repetitions: usize,
    /// How many lives each of the N agents had in a repetition: 1, but in a closed loop.
    pub lives_each: usize,
    /// From the first request to the last clean-up, in milliseconds.
    pub total_time_ms: f64,
    /// The same of each repetition.
    pub repetition_total_time_ms: Vec<f64>,
    /// Mean over agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_spawn_time_ms: Option<f64>,
    /// Mean over agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_execute_time_ms: Option<f64>,
    /// Mean over agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_cleanup_time_ms: Option<f64>,
    /// 95 % confidence intervals of fields of this object, by bootstrap over the repetitions; absent for one repetition.
    /// Those of percentiles are named `spawn_ms.p50`.
    pub intervals_95: BTreeMap<&'static str, [f64; 2]>,
    /// Over every completed agent of every repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn_ms: Option<Summary>,
    /// The parts of a spawn in their order, mean over the same agents: they add up to `spawn_ms.mean`.
    pub spawn_phases_ms: Vec<PhaseMean>,
    /// Over every completed agent of every repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute_ms: Option<Summary>,
    /// Over every completed agent of every repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup_ms: Option<Summary>,
    /// Over every completed agent of every repetition: its whole life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_ms: Option<Summary>,
    /// Each operation by its name, over every agent of every repetition.
    pub operation_ms: BTreeMap<String, Summary>,
    /// Completed operations per minute of wall clock.
    pub throughput_ops_per_min: f64,
    /// The same, divided by N.
    pub throughput_per_agent_ops_per_min: f64,
    /// Complete lives per second.
    pub agents_per_second: f64,
    /// Total time / (mean agent time x N): 1/N is perfect overlap, 1 is serial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling_factor: Option<f64>,
    /// Serial time of N agents, measured at N = 1, / total time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speedup: Option<f64>,
    /// The most that the machine allows: min(N, `floors.parallel_speedup` x wall clock / CPU time of one agent alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ideal_speedup: Option<f64>,
    /// Speedup / ideal speedup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<f64>,
    /// The ideal if each core were a whole one: min(N, cores x wall clock / CPU time of one agent alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nominal_ideal_speedup: Option<f64>,
    /// What the agents used.
    pub resources: Resources,
    /// Exits per agent, mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exits: Option<MeanExits>,
    /// Round trips inside the sandbox over its own loopback, as a program there timed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_latency_ms: Option<Summary>,
    /// One entry per agent.
    pub agent_results: Vec<AgentResult>,
    /// Counts by outcome, over all repetitions.
    pub failures: BTreeMap<Outcome, usize>,
    /// What remained after the run: the most of any repetition.
    pub leftovers: Leftovers,
}

/// What N agents used, measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Resources {
    /// CPU time of harness and agents / (wall clock x cores), in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// CPU time of the agents' processes, per life, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_agent: Option<f64>,
    /// CPU time of this process, the harness, per life, in seconds: what asking, checking and timing cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harness_cpu_seconds_per_agent: Option<f64>,
    /// How often the agents' processes waited for something, per life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voluntary_switches_per_agent: Option<f64>,
    /// How often they were made to wait for others, per life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub involuntary_switches_per_agent: Option<f64>,
    /// The sum of PSS of the agents' processes while all N had answered hello, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<f64>,
    /// The same, divided by N.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_per_agent_mb: Option<f64>,
    /// The greatest sum of PSS that was seen, sampled ten times a second, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_mb: Option<f64>,
    /// The threads of the agents' processes on the host while all N had answered hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_active: Option<u64>,
    /// Read from storage by the agents' processes until their work was done, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_mb: Option<f64>,
    /// Written to storage, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_write_mb: Option<f64>,
}

/// Exits per agent, mean over all completed agents.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MeanExits {
    /// System calls.
    pub syscalls: f64,
    /// Page faults.
    pub page_faults: f64,
    /// Other exceptions.
    pub exceptions: f64,
    /// Interruptions.
    pub interrupts: f64,
}

/// A part of a spawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PhaseMean {
    /// What happened.
    pub name: &'static str,
    /// The mean over agents, in milliseconds.
    pub mean_ms: f64,
    /// Its share of the whole spawn.
    pub share: f64,
}

/// One agent: medians over the repetitions, and the worst outcome of any.
#[derive(Debug, Clone, Serialize)]
pub struct AgentResult {
    /// Zero-padded, so that it sorts.
    pub agent_id: String,
    /// In milliseconds.
    pub spawn_time_ms: f64,
    /// In milliseconds.
    pub execute_time_ms: f64,
    /// In milliseconds.
    pub cleanup_time_ms: f64,
    /// In milliseconds.
    pub total_time_ms: f64,
    /// The fewest of any repetition.
    pub ops_completed: usize,
    /// The worst of any repetition.
    pub outcome: Outcome,
    /// Why it did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `scaling_comprehensive_{date}_{time}.json`: all agent counts of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Scaling {
    /// When the run started, RFC 3339.
    pub timestamp: String,
    /// [`SCALING_SCHEMA`].
    pub schema: String,
    /// Whether somebody ended the run before its end: then these are the repetitions until there.
    pub interrupted: bool,
    /// What agents did.
    pub scenario: ScenarioFacts,
    /// Where it was measured.
    pub environment: Environment,
    /// The template that the agents were forked from, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateFacts>,
    /// The least that the machine can do, measured in the same run.
    pub floors: Floors,
    /// The Universal Scalability Law, fitted to the lives per second; absent with fewer than four agent counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usl: Option<Usl>,
    /// Other ways to isolate a program, in the same run; absent unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Peers>,
    /// More sandboxes asked for than there is room for, in the same run; absent unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// What was promised, and what was found.
    pub criteria: Vec<Criterion>,
    /// One for each agent count, the single agent first.
    pub test_results: Vec<Concurrent>,
}

/// Other ways to isolate a program.
#[derive(Debug, Clone, Serialize)]
pub struct Peers {
    /// How often each was run, in turns.
    pub rounds: usize,
    /// Those that were measured.
    pub measured: Vec<PeerFigure>,
    /// Those that were not, and why.
    pub skipped: Vec<Skipped>,
}

/// More sandboxes asked for than there is room for.
#[derive(Debug, Clone, Serialize)]
pub struct Overload {
    /// One row for each way to make a resource scarce.
    pub rows: Vec<OverloadRow>,
    /// What was not measured, and why.
    pub skipped: Vec<Skipped>,
}

/// What agents did, and when they were asked for.
#[derive(Debug, Clone, Serialize)]
pub struct ScenarioFacts {
    /// Its name.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// How many operations each agent does.
    pub operations: usize,
    /// How long an agent waits before each operation, on average, in milliseconds.
    pub think_ms: f64,
    /// `burst`, `poisson:RATE` or `closed`.
    pub arrival: String,
    /// What all random choices of the run follow from.
    pub seed: u64,
}

/// One promise.
#[derive(Debug, Clone, Serialize)]
pub struct Criterion {
    /// What is promised.
    pub name: String,
    /// The promised value.
    pub target: f64,
    /// `at_most` or `at_least`: what `measured` must be of `target`.
    pub bound: Bound,
    /// The value found: the worst over the agent counts that the promise is about. Absent if it could not be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
    /// The agent count where that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_count: Option<usize>,
    /// The unit of both values.
    pub unit: String,
    /// Whether it holds. What was not measured does not hold.
    pub passed: bool,
}

/// Which side of a target is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more than the target.
    AtMost,
    /// No less.
    AtLeast,
}
