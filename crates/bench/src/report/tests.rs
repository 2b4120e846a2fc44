//! Golden tests: the fields of the files and the shape of the report.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::agent::Outcome;
use crate::environment::Environment;
use crate::schema::{AgentResult, CONCURRENT_SCHEMA, Criterion, MeanExits, Resources, SCALING_SCHEMA};

fn summary(base: f64) -> Summary {
    Summary {
        min: base,
        p50: base + 1.0,
        p90: base + 2.0,
        p95: base + 3.0,
        p99: base + 4.0,
        max: base + 5.0,
        mean: base + 1.5,
        stddev: 0.5,
    }
}

fn concurrent(agents: usize) -> Concurrent {
    let spawn = 10.0 * agents as f64;
    Concurrent {
        timestamp: "2026-01-02T03:04:05Z".to_owned(),
        schema: CONCURRENT_SCHEMA.to_owned(),
        agent_count: agents,
        repetitions: 3,
        total_time_ms: 123.456_789,
        avg_spawn_time_ms: Some(spawn),
        avg_execute_time_ms: Some(50.0),
        avg_cleanup_time_ms: Some(2.0),
        spawn_ms: Some(summary(spawn)),
        execute_ms: Some(summary(50.0)),
        cleanup_ms: Some(summary(2.0)),
        agent_ms: Some(summary(spawn + 52.0)),
        operation_ms: BTreeMap::from([
            ("compute".to_owned(), summary(7.0)),
            ("evaluate".to_owned(), summary(1.0)),
        ]),
        throughput_ops_per_min: 6000.0,
        throughput_per_agent_ops_per_min: 6000.0 / agents as f64,
        agents_per_second: 10.0,
        scaling_factor: Some(0.5),
        speedup: Some(1.8),
        ideal_speedup: Some(2.0),
        efficiency: Some(0.9),
        resources: Resources {
            cpu_percent: Some(88.0),
            cpu_seconds_per_agent: Some(0.07),
            memory_mb: Some(14.0 * agents as f64),
            memory_per_agent_mb: Some(14.0),
            memory_peak_mb: Some(15.0 * agents as f64),
            threads_active: Some(agents as u64),
            disk_read_mb: Some(0.0),
            disk_write_mb: Some(0.0),
        },
        exits: Some(MeanExits { syscalls: 900.0, page_faults: 200.0, interrupts: 3.0 }),
        agent_results: (0..agents)
            .map(|index| AgentResult {
                agent_id: agent_id(index, agents),
                spawn_time_ms: spawn,
                execute_time_ms: 50.0,
                cleanup_time_ms: 2.0,
                total_time_ms: spawn + 52.0,
                ops_completed: 10,
                outcome: if index == 1 { Outcome::Failed } else { Outcome::Completed },
                error: (index == 1).then(|| "compute: wrong answer 1, expected 2".to_owned()),
            })
            .collect(),
        failures: if agents > 1 { BTreeMap::from([(Outcome::Failed, 1)]) } else { BTreeMap::new() },
        leftovers: Leftovers { mounts: Some(0), ..Leftovers::default() },
    }
}

fn scaling() -> Scaling {
    Scaling {
        timestamp: "2026-01-02T03:04:05Z".to_owned(),
        schema: SCALING_SCHEMA.to_owned(),
        scenario: "interpreter".to_owned(),
        environment: Environment {
            cpu_model: Some("A Processor".to_owned()),
            cores: 2,
            memory_mb: 16_000,
            kernel: Some("6.1.0".to_owned()),
            kvm_kind: Some("pvm".to_owned()),
            cgroup_version: Some(2),
            version: "0.1.0".to_owned(),
            commit: None,
            build_profile: "release".to_owned(),
            command_line: vec!["luminaguard".to_owned(), "bench".to_owned(), "scale".to_owned()],
            backend: "warm".to_owned(),
            load_average: [0.5, 0.25, 0.125],
        },
        template: None,
        floors: Floors { process_ms: Some(summary(0.5)), kvm_ms: Some(summary(0.7)), native_agent_ms: None },
        criteria: vec![Criterion::exactly("leftovers at 2 agents".to_owned(), 0, 0)],
        test_results: vec![concurrent(1), concurrent(2)],
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_report_reads_as_before() {
    insta::assert_snapshot!(markdown(&scaling()));
}

#[test]
fn the_table_reads_as_before() {
    insta::assert_snapshot!(table(&scaling().test_results));
}

#[test]
fn the_fields_of_a_concurrent_file_are_those_that_readers_know() {
    let value = serde_json::to_value(concurrent(2)).unwrap();
    let original = [
        "timestamp",
        "agent_count",
        "total_time_ms",
        "avg_spawn_time_ms",
        "avg_execute_time_ms",
        "avg_cleanup_time_ms",
        "throughput_ops_per_min",
        "throughput_per_agent_ops_per_min",
        "scaling_factor",
        "resources",
        "agent_results",
    ];
    let added = [
        "schema",
        "repetitions",
        "spawn_ms",
        "execute_ms",
        "cleanup_ms",
        "agent_ms",
        "operation_ms",
        "agents_per_second",
        "speedup",
        "ideal_speedup",
        "efficiency",
        "exits",
        "failures",
        "leftovers",
    ];
    assert_eq!(keys(&value), original.into_iter().chain(added).collect());
    let resources = [
        "cpu_percent",
        "cpu_seconds_per_agent",
        "memory_mb",
        "memory_per_agent_mb",
        "memory_peak_mb",
        "threads_active",
        "disk_read_mb",
        "disk_write_mb",
    ];
    assert_eq!(keys(&value["resources"]), BTreeSet::from(resources));
    let agent = [
        "agent_id",
        "spawn_time_ms",
        "execute_time_ms",
        "cleanup_time_ms",
        "total_time_ms",
        "ops_completed",
        "outcome",
        "error",
    ];
    assert_eq!(keys(&value["agent_results"][1]), BTreeSet::from(agent));
    assert_eq!(value["agent_results"][1]["outcome"], "failed");
    assert_eq!(
        keys(&value["spawn_ms"]),
        BTreeSet::from(["min", "p50", "p90", "p95", "p99", "max", "mean", "stddev"])
    );
    assert_eq!(keys(&value["exits"]), BTreeSet::from(["syscalls", "page_faults", "interrupts"]));
    assert_eq!(value["failures"]["failed"], 1);
}

#[test]
fn the_fields_of_a_scaling_file_are_those_that_readers_know() {
    let value = serde_json::to_value(scaling()).unwrap();
    let fields = ["timestamp", "schema", "scenario", "environment", "floors", "criteria", "test_results"];
    assert_eq!(keys(&value), BTreeSet::from(fields));
    assert_eq!(keys(&value["criteria"][0]), BTreeSet::from(["name", "target", "measured", "unit", "passed"]));
}

#[test]
fn what_was_not_measured_is_absent() {
    let mut result = concurrent(1);
    result.resources = Resources::default();
    result.exits = None;
    result.speedup = None;
    let value = serde_json::to_value(result).unwrap();
    assert!(keys(&value["resources"]).is_empty());
    assert!(value.get("exits").is_none() && value.get("speedup").is_none());
    assert!(value["leftovers"].get("cgroups").is_none());
}

#[test]
fn files_have_the_names_of_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let started: jiff::Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
    let paths = Files::new(directory.path(), started).write(&scaling(), &[]).unwrap();
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let expected = [
        "concurrent_1_agents_20260102_030405.json",
        "concurrent_2_agents_20260102_030405.json",
        "scaling_comprehensive_20260102_030405.json",
        "report.md",
        "samples.jsonl",
    ];
    assert_eq!(names, expected);
    let value: Value = serde_json::from_slice(&fs::read(&paths[0]).unwrap()).unwrap();
    assert_eq!(value["total_time_ms"], 123.4568);
}
