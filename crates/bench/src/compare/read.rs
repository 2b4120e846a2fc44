//! Runs that were written to files, as series of samples.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::schema::SCALING_SCHEMA;

/// The schemas whose `samples` are lists of objects with times.
const VERBS: [&str; 4] = ["spawn", "fork", "claim", "lives"];

/// What one series is about: agents at once, where it matters, and the name of the figure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) agents: Option<u64>,
    pub(super) metric: String,
}

/// Times in milliseconds, by the repetition in which they were measured.
pub(super) type Groups = Vec<Vec<f64>>;

/// A run, or several of the same kind.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) schema: String,
    /// What should be the same for a fair comparison, by name.
    pub(super) circumstances: BTreeMap<&'static str, String>,
    pub(super) series: BTreeMap<Key, Groups>,
}

impl Run {
    /// A directory of `bench scale`, its newest run; or a file of any `bench` verb that has samples.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { newest(path)? } else { path.to_owned() };
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a result file", file.display()))?;
        let schema = value.get("schema").and_then(Value::as_str).unwrap_or("none").to_owned();
        let mut run = Self { circumstances: circumstances(&value), schema, ..Self::default() };
        if run.schema == SCALING_SCHEMA {
            let directory =
                file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            ensure!(
                newest(directory)?.file_name() == file.file_name(),
                "{}: samples.jsonl beside it is of a later run",
                file.display()
            );
            run.add_totals(&value);
            run.add_lives(&directory.join("samples.jsonl"))?;
        } else if VERBS.iter().any(|verb| run.schema == format!("luminaguard.bench.{verb}/1")) {
            run.add_samples(&value);
        } else {
            bail!("{}: its schema is {:?}, which cannot be compared", file.display(), run.schema);
        }
        ensure!(!run.series.is_empty(), "{}: there are no samples in it", file.display());
        Ok(run)
    }

    /// Adds another run of the same kind: its samples are groups of their own.
    pub(super) fn merge(&mut self, other: Self) {
        if self.series.is_empty() {
            *self = other;
            return;
        }
        for (key, groups) in other.series {
            self.series.entry(key).or_default().extend(groups);
        }
    }

    fn push(&mut self, agents: Option<u64>, metric: &str, group: usize, sample: f64) {
        let key = Key { agents, metric: metric.to_owned() };
        let groups = self.series.entry(key).or_default();
        if groups.len() <= group {
            groups.resize(group + 1, Vec::new());
        }
        groups[group].push(sample);
    }

    /// The wall clock of each repetition.
    fn add_totals(&mut self, scaling: &Value) {
        for result in scaling["test_results"].as_array().into_iter().flatten() {
            let agents = result["agent_count"].as_u64();
            let totals = result["repetition_total_time_ms"].as_array();
            for (group, total) in totals.into_iter().flatten().filter_map(Value::as_f64).enumerate() {
                self.push(agents, "total", group, total);
            }
        }
    }

    fn add_lives(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let sample: Value = serde_json::from_str(line)
                .with_context(|| format!("{}, line {}: not a sample", path.display(), number + 1))?;
            if sample["phase"] != "timed" || sample["outcome"] != "completed" {
                continue;
            }
            let agents = sample["agent_count"].as_u64();
            let group = sample["repetition"].as_u64().unwrap_or(1).clamp(1, 100_000) as usize - 1;
            for (field, metric) in [
                ("spawn_ms", "spawn"),
                ("execute_ms", "execute"),
                ("cleanup_ms", "clean-up"),
                ("total_ms", "life"),
            ] {
                if let Some(ms) = sample[field].as_f64() {
                    self.push(agents, metric, group, ms);
                }
            }
            for operation in sample["operations"].as_array().into_iter().flatten() {
                if let (Some(name), Some(ms)) = (operation["name"].as_str(), operation["ms"].as_f64()) {
                    self.push(agents, &format!("operation {name}"), group, ms);
                }
            }
        }
        self.series.values_mut().for_each(|groups| groups.retain(|group| !group.is_empty()));
        Ok(())
    }

    /// All times of samples that are objects.
    fn add_samples(&mut self, finding: &Value) {
        for sample in finding["samples"].as_array().into_iter().flatten() {
            for (field, value) in sample.as_object().into_iter().flatten() {
                if let (Some(metric), Some(ms)) = (field.strip_suffix("_ms"), value.as_f64()) {
                    self.push(None, metric, 0, ms);
                }
            }
        }
    }
}

fn circumstances(value: &Value) -> BTreeMap<&'static str, String> {
    let environment = &value["environment"];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut all = BTreeMap::new();
    for (name, value) in [
        ("scenario", &value["scenario"]["name"]),
        ("arrival", &value["scenario"]["arrival"]),
        ("operations", &value["scenario"]["operations"]),
        ("backend", &environment["backend"]),
        ("processor", &environment["cpu_model"]),
        ("processors", &environment["cores"]),
        ("host kernel", &environment["kernel"]),
        ("KVM", &environment["kvm_kind"]),
        ("build profile", &environment["build_profile"]),
    ] {
        if !value.is_null() {
            all.insert(name, text(value));
        }
    }
    all
}

/// The newest `scaling_comprehensive_*.json` of a directory: their names sort by time.
fn newest(directory: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("scaling_comprehensive_") && name.ends_with(".json")
    });
    names.max().with_context(|| {
        format!(
            "{}: there is no scaling_comprehensive_*.json in it, as `bench scale` writes it",
            directory.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &Path) -> String {
        format!("{:#}", Run::read(path).unwrap_err())
    }

    #[test]
    fn runs_of_scale_are_read_by_repetition() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        assert!(error(directory.path()).contains("there is no scaling_comprehensive_"));
        file("scaling_comprehensive_20260101_000000.json", "{}");
        file(
            "scaling_comprehensive_20260102_000000.json",
            r#"{"schema": "luminaguard.scaling/1", "scenario": {"name": "cpu"},
                "test_results": [{"agent_count": 5, "repetition_total_time_ms": [10.0, 11.0]}]}"#,
        );
        assert!(error(directory.path()).contains("samples.jsonl"));
        let line = |repetition: usize, ms: f64, phase: &str| {
            format!(
                r#"{{"agent_count": 5, "repetition": {repetition}, "phase": "{phase}", "outcome": "completed", "spawn_ms": {ms},
                    "operations": [{{"name": "x", "ms": 1.5}}]}}"#
            )
            .replace('\n', " ")
                + "\n"
        };
        file(
            "samples.jsonl",
            &[line(1, 1.0, "timed"), line(2, 2.0, "timed"), line(3, 9.0, "memory")].concat(),
        );
        let run = Run::read(directory.path()).unwrap();
        let groups = |metric: &str| &run.series[&Key { agents: Some(5), metric: metric.to_owned() }];
        assert_eq!(groups("spawn"), &[vec![1.0], vec![2.0]]);
        assert_eq!((groups("total"), groups("operation x").len()), (&vec![vec![10.0], vec![11.0]], 2));
        assert_eq!(run.circumstances["scenario"], "cpu");
        let old = error(&directory.path().join("scaling_comprehensive_20260101_000000.json"));
        assert!(old.contains("cannot be compared"), "{old}");
        file("samples.jsonl", "{\"agent_count\": 5}\n{\"agent");
        assert!(error(directory.path()).contains("line 2: not a sample"), "{}", error(directory.path()));
    }

    #[test]
    fn other_files_are_told_apart_by_their_schema() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("found.json");
        fs::write(
            &path,
            r#"{"schema": "luminaguard.bench.spawn/1", "samples": [{"fork_ms": 1.0, "origin": "x"}]}"#,
        )
        .unwrap();
        let run = Run::read(&path).unwrap();
        assert_eq!(run.series[&Key { agents: None, metric: "fork".to_owned() }], [vec![1.0]]);
        fs::write(&path, r#"{"schema": "something/2"}"#).unwrap();
        assert!(error(&path).contains("its schema is \"something/2\""));
        fs::write(&path, "{").unwrap();
        assert!(error(&path).contains("is not a result file"));
        assert!(error(Path::new("/nowhere/x.json")).contains("cannot read /nowhere/x.json"));
    }
}
