//! What is promised of a run: a TOML file, and how it is compared with what was found.

use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use toml::Table;

use crate::environment::cores;
use crate::scenario::check_keys;
use crate::schema::{Bound, Concurrent, Criterion, Scaling};
use crate::suggest::no_such;

const SHIPPED: &str = include_str!("../../scenarios/criteria.toml");
const KEYS: [&str; 7] = ["name", "metric", "agents", "at_most", "at_least", "scenarios", "backends"];

/// What is promised of a run.
#[derive(Debug, Clone)]
pub struct Criteria(Vec<Promise>);

#[derive(Debug, Clone)]
struct Promise {
    name: String,
    metric: &'static Metric,
    agents: Counts,
    bound: Bound,
    target: f64,
    scenarios: Vec<String>,
    backends: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    metric: String,
    #[serde(default = "all")]
    agents: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
    #[serde(default)]
    scenarios: Vec<String>,
    #[serde(default)]
    backends: Vec<String>,
}

fn all() -> String {
    "all".to_owned()
}

/// A figure of one agent count.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    unit: &'static str,
    of: fn(&Found<'_>) -> Option<f64>,
}

/// One agent count among all of the run.
struct Found<'a> {
    result: &'a Concurrent,
    all: &'a [Concurrent],
    operations: usize,
}

const METRICS: [Metric; 13] = [
    Metric { name: "completed_share", unit: "share", of: |f| Some(1.0 - f.failed() as f64 / f.lived()) },
    Metric { name: "failed_operations", unit: "1", of: |f| Some(f.failed_operations() as f64) },
    Metric { name: "leftovers", unit: "1", of: |f| Some(f.result.leftovers.things() as f64) },
    Metric { name: "spawn_p50_ms", unit: "ms", of: |f| Some(f.result.spawn_ms?.p50) },
    Metric { name: "spawn_p99_ms", unit: "ms", of: |f| Some(f.result.spawn_ms?.p99) },
    Metric { name: "total_time_ms", unit: "ms", of: |f| Some(f.result.total_time_ms) },
    Metric { name: "efficiency", unit: "ratio", of: |f| f.result.efficiency },
    Metric { name: "throughput_of_single", unit: "ratio", of: |f| f.throughput_of(f.single()?) },
    Metric { name: "throughput_of_best", unit: "ratio", of: |f| f.throughput_of(f.best_before()?) },
    Metric { name: "memory_per_agent_mb", unit: "MiB", of: |f| f.result.resources.memory_per_agent_mb },
    Metric { name: "cpu_percent", unit: "%", of: |f| f.result.resources.cpu_percent },
    Metric {
        name: "cpu_of_single",
        unit: "ratio",
        of: |f| {
            let cpu = |result: &Concurrent| result.resources.cpu_seconds_per_agent;
            Some(cpu(f.result)? / cpu(f.single()?).filter(|seconds| *seconds > 0.0)?)
        },
    },
    Metric { name: "network_p50_ms", unit: "ms", of: |f| Some(f.result.network_latency_ms?.p50) },
];

impl Found<'_> {
    fn failed(&self) -> usize {
        self.result.failures.values().sum()
    }

    fn lived(&self) -> f64 {
        (self.result.agent_count * self.result.lives_each * self.result.repetitions).max(1) as f64
    }

    /// Operations that agents should have done in the timed repetitions and did not.
    fn failed_operations(&self) -> usize {
        self.result
            .agent_results
            .iter()
            .map(|agent| self.operations.saturating_sub(agent.ops_completed))
            .sum()
    }

    fn single(&self) -> Option<&Concurrent> {
        self.all.iter().find(|result| result.agent_count == 1)
    }

    /// The agent count before this one with the most lives per second.
    fn best_before(&self) -> Option<&Concurrent> {
        let before = self.all.iter().filter(|result| result.agent_count < self.result.agent_count);
        before.max_by(|a, b| a.agents_per_second.total_cmp(&b.agents_per_second))
    }

    fn throughput_of(&self, other: &Concurrent) -> Option<f64> {
        let other = other.agents_per_second;
        (other > 0.0).then(|| self.result.agents_per_second / other)
    }
}

impl Criteria {
    /// Those that come with the program.
    ///
    /// # Errors
    /// Never, unless the embedded file is broken.
    pub fn shipped() -> Result<Self> {
        Self::parse(SHIPPED).context("the embedded criteria.toml")
    }

    /// Those of a TOML file.
    ///
    /// # Errors
    /// When it is none: an unknown key or metric is named with the nearest that there is.
    pub fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse()?;
        check_keys(&table, &["criterion"], "key")?;
        let entries = table.get("criterion").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let promises = entries.into_iter().enumerate().map(|(place, entry)| {
            let table = entry.as_table().context("`criterion` must be a list of tables: [[criterion]]")?;
            let place = || format!("criterion {}", place + 1);
            check_keys(table, &KEYS, "key").with_context(place)?;
            Promise::new(entry.try_into::<Entry>().with_context(place)?).with_context(place)
        });
        Ok(Self(promises.collect::<Result<_>>()?))
    }

    /// Compares them with what was found; what is about something else is left out.
    pub(super) fn evaluate(&self, scaling: &Scaling) -> Vec<Criterion> {
        let about = |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
        self.0
            .iter()
            .filter(|promise| about(&promise.scenarios, &scaling.scenario.name))
            .filter(|promise| about(&promise.backends, &scaling.environment.backend))
            .filter_map(|promise| promise.evaluate(&scaling.test_results, scaling.scenario.operations))
            .collect()
    }
}

impl Promise {
    fn new(entry: Entry) -> Result<Self> {
        let names = METRICS.iter().map(|metric| metric.name);
        let metric = METRICS.iter().find(|metric| metric.name == entry.metric);
        let metric = metric.with_context(|| no_such("metric", &entry.metric, names))?;
        let (bound, target) = match (entry.at_most, entry.at_least) {
            (Some(target), None) => (Bound::AtMost, target),
            (None, Some(target)) => (Bound::AtLeast, target),
            _ => bail!("{}: it needs either `at_most` or `at_least`", entry.name),
        };
        let agents = entry.agents.parse().with_context(|| format!("{}: agents", entry.name))?;
        let Entry { name, scenarios, backends, .. } = entry;
        Ok(Self { name, metric, agents, bound, target, scenarios, backends })
    }

    /// `None` if none of the agent counts is one that this is about.
    fn evaluate(&self, all: &[Concurrent], operations: usize) -> Option<Criterion> {
        let counted = all.iter().filter(|result| self.agents.contains(result.agent_count));
        let values = counted.map(|result| {
            let value = (self.metric.of)(&Found { result, all, operations });
            // What was not measured is worse than any value.
            let badness = match (value, self.bound) {
                (None, _) => f64::INFINITY,
                (Some(value), Bound::AtMost) => value,
                (Some(value), Bound::AtLeast) => -value,
            };
            (badness, value, result.agent_count)
        });
        let (_, measured, agents) = values.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let passed = measured.is_some_and(|value| match self.bound {
            Bound::AtMost => value <= self.target,
            Bound::AtLeast => value >= self.target,
        });
        Some(Criterion {
            name: self.name.clone(),
            target: self.target,
            bound: self.bound,
            measured,
            agent_count: Some(agents),
            unit: self.metric.unit.to_owned(),
            passed,
        })
    }
}

/// Agent counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts(RangeInclusive<usize>);

impl Counts {
    fn contains(&self, count: usize) -> bool {
        self.0.contains(&count)
    }
}

impl std::str::FromStr for Counts {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| match text {
            "cores" => Ok(cores()),
            text => {
                text.parse::<usize>().with_context(|| format!("{text:?} is neither a number nor `cores`"))
            }
        };
        let range = match text.split_once("..") {
            _ if text == "all" => 0..=usize::MAX,
            None => number(text)?..=number(text)?,
            Some((low, "")) => number(low)?..=usize::MAX,
            Some((low, high)) => {
                let high = high.strip_prefix('=').with_context(|| format!("{text:?}: write A..=B or A.."))?;
                number(low)?..=number(high)?
            }
        };
        ensure!(range.start() <= range.end() || text.contains("cores"), "{text:?} holds no number");
        Ok(Self(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_scaling;

    fn criterion(text: &str) -> Vec<Criterion> {
        Criteria::parse(&format!("[[criterion]]\nname = \"x\"\n{text}")).unwrap().evaluate(&sample_scaling())
    }

    #[test]
    fn the_shipped_criteria_are_read() {
        assert!(Criteria::shipped().unwrap().0.len() >= 12);
    }

    #[test]
    fn the_worst_agent_count_decides() {
        // Of the sample, spawns take 4 + 10 N ms at the 99th percentile.
        let [one] = &criterion("metric = \"spawn_p99_ms\"\nat_most = 30")[..] else { panic!("one") };
        assert_eq!((one.measured, one.agent_count, one.passed), (Some(54.0), Some(5), false));
        let [one] = &criterion("metric = \"spawn_p99_ms\"\nagents = \"1\"\nat_most = 14")[..] else {
            panic!("one")
        };
        assert_eq!((one.measured, one.passed), (Some(14.0), true));
        let [one] = &criterion("metric = \"completed_share\"\nat_least = 1")[..] else { panic!("one") };
        assert_eq!((one.agent_count, one.passed), (Some(5), false));
    }

    #[test]
    fn what_is_about_something_else_is_left_out_and_what_is_missing_fails() {
        assert!(criterion("metric = \"leftovers\"\nat_most = 0\nscenarios = [\"cpu\"]").is_empty());
        assert!(criterion("metric = \"leftovers\"\nat_most = 0\nbackends = [\"native\"]").is_empty());
        assert!(criterion("metric = \"leftovers\"\nat_most = 0\nagents = \"77\"").is_empty());
        let [one] = &criterion("metric = \"network_p50_ms\"\nat_most = 1")[..] else { panic!("one") };
        assert_eq!((one.measured, one.passed), (None, false));
    }

    #[test]
    fn broken_criteria_are_refused_with_what_is_wrong() {
        let error = |text: &str| {
            format!("{:#}", Criteria::parse(&format!("[[criterion]]\nname = \"x\"\n{text}")).unwrap_err())
        };
        let text = error("metric = \"efficency\"\nat_most = 1");
        assert!(text.contains("criterion 1: no such metric: efficency; did you mean efficiency?"), "{text}");
        assert!(error("metric = \"leftovers\"").contains("at_most"), "{}", error("metric = \"leftovers\""));
        assert!(error("metric = \"leftovers\"\nat_mots = 1").contains("did you mean at_most?"));
        for counts in ["5..3", "x", "1..=y", "1..5"] {
            let text = error(&format!("metric = \"leftovers\"\nat_most = 1\nagents = \"{counts}\""));
            assert!(text.contains("agents"), "{text}");
        }
    }

    #[test]
    fn agent_counts_are_read() {
        let contains = |text: &str, count| text.parse::<Counts>().unwrap().contains(count);
        assert!(contains("all", 1) && contains("5..", 5) && !contains("5..", 4));
        assert!(contains("1..=cores", 1) && !contains("1..=cores", 1_000_000) && !contains("50", 51));
    }
}
