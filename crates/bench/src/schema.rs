//! The fields of the result files, named as `docs/metrics.md` names them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Leftovers;
use crate::agent::Outcome;
use crate::environment::Environment;
use crate::finding::TemplateFacts;
use crate::floors::Floors;
use crate::stats::Summary;

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
    /// From the first request to the last clean-up, in milliseconds.
    pub total_time_ms: f64,
    /// Mean over agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_spawn_time_ms: Option<f64>,
    /// Mean over agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_execute_time_ms: Option<f64>,
    /// Mean over agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_cleanup_time_ms: Option<f64>,
    /// Over every completed agent of every repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn_ms: Option<Summary>,
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
    /// The most that the cores allow: min(N, cores x wall clock / CPU time of one agent alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ideal_speedup: Option<f64>,
    /// Speedup / ideal speedup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<f64>,
    /// What the agents used.
    pub resources: Resources,
    /// Exits per agent, mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exits: Option<MeanExits>,
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
    /// CPU time of the agents' processes, per agent, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_agent: Option<f64>,
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
    /// Interruptions.
    pub interrupts: f64,
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
    /// The scenario's name.
    pub scenario: String,
    /// Where it was measured.
    pub environment: Environment,
    /// The template that the agents were forked from, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateFacts>,
    /// The least that the machine can do, measured in the same run.
    pub floors: Floors,
    /// What was promised, and what was found.
    pub criteria: Vec<Criterion>,
    /// One for each agent count, the single agent first.
    pub test_results: Vec<Concurrent>,
}

/// One promise.
#[derive(Debug, Clone, Serialize)]
pub struct Criterion {
    /// What is promised.
    pub name: String,
    /// The promised value; absent where nothing is promised and the value is only told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// The value found.
    pub measured: f64,
    /// The unit of both.
    pub unit: String,
    /// Whether it holds.
    pub passed: bool,
}

impl Criterion {
    /// A count that must be exactly `target`.
    pub(crate) fn exactly(name: String, target: usize, measured: usize) -> Self {
        Self {
            name,
            target: Some(target as f64),
            measured: measured as f64,
            unit: "1".to_owned(),
            passed: target == measured,
        }
    }

    /// A value that is told and promised by nobody.
    pub(crate) fn told(name: String, measured: f64, unit: &str) -> Self {
        Self { name, target: None, measured, unit: unit.to_owned(), passed: true }
    }
}
