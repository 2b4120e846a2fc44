//! Golden tests: the fields of the files and the shape of the report.

use std::collections::BTreeSet;

use serde_json::Value;

use super::sample::{concurrent, scaling};
use super::*;
use crate::schema::Resources;

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn document(scaling: &crate::schema::Scaling) -> document::Document {
    sections::report(scaling, &vec![(1, vec![11.0]), (5, vec![51.0, 52.0])]).unwrap().0
}

#[test]
fn the_report_reads_as_before() {
    insta::assert_snapshot!(markdown::render(&document(&scaling())));
}

#[test]
fn the_page_is_whole_and_hostile_errors_are_text() {
    let mut hostile = scaling();
    hostile.test_results[1].agent_results[1].error =
        Some("<script>alert(1)</script> | \u{1b}[31m `x` **y**\n| a | b |".to_owned());
    let document = document(&hostile);
    let html = html::render(&document);
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    let body = html.strip_prefix("<!DOCTYPE html>\n").unwrap();
    // The head has elements without an end, which only HTML knows.
    let body = &body[body.find("<body>").unwrap()..body.find("</html>").unwrap()];
    let parsed = roxmltree::Document::parse(body).unwrap();
    let count = |name: &str| parsed.descendants().filter(|node| node.has_tag_name(name)).count();
    assert_eq!((count("script"), count("figure"), count("h1")), (0, 6, 1));
    let markdown = markdown::render(&document);
    let line = markdown.lines().find(|line| line.contains("alert")).unwrap();
    assert!(line.contains("&lt;script>") && line.contains("\\| a \\|") && !line.contains("**"), "{line}");
}

#[test]
fn a_run_with_gaps_has_a_report() {
    let mut gaps = scaling();
    gaps.interrupted = true;
    for result in &mut gaps.test_results {
        result.intervals_95.clear();
        result.spawn_phases_ms.clear();
        (result.spawn_ms, result.agent_ms, result.speedup, result.efficiency) = (None, None, None, None);
    }
    let text = markdown::render(&document(&gaps));
    assert!(text.contains("interrupted") && text.contains("There is no interval"), "{text}");
    gaps.test_results.clear();
    html::render(&document(&gaps));
}

#[test]
fn the_table_reads_as_before() {
    insta::assert_snapshot!(table(&scaling().test_results));
}

#[test]
fn the_fields_of_a_concurrent_file_are_those_that_readers_know() {
    let value = serde_json::to_value(concurrent(5)).unwrap();
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
        "lives_each",
        "repetition_total_time_ms",
        "intervals_95",
        "spawn_phases_ms",
        "nominal_ideal_speedup",
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
        "harness_cpu_seconds_per_agent",
        "voluntary_switches_per_agent",
        "involuntary_switches_per_agent",
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
        BTreeSet::from(["n", "min", "p50", "p90", "p95", "p99", "max", "mean", "stddev"])
    );
    assert_eq!(
        keys(&value["exits"]),
        BTreeSet::from(["syscalls", "page_faults", "exceptions", "interrupts"])
    );
    assert_eq!(value["failures"]["failed"], 1);
}

#[test]
fn the_fields_of_a_scaling_file_are_those_that_readers_know() {
    let value = serde_json::to_value(scaling()).unwrap();
    let fields = [
        "timestamp",
        "schema",
        "interrupted",
        "scenario",
        "environment",
        "floors",
        "criteria",
        "test_results",
    ];
    assert_eq!(keys(&value), BTreeSet::from(fields));
    let criterion = ["name", "target", "bound", "measured", "agent_count", "unit", "passed"];
    assert_eq!(keys(&value["criteria"][0]), BTreeSet::from(criterion));
    let scenario = ["name", "about", "operations", "think_ms", "arrival", "seed"];
    assert_eq!(keys(&value["scenario"]), BTreeSet::from(scenario));
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
    let paths = Files::new(directory.path(), started).unwrap().write(&scaling(), &[]).unwrap();
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let expected = [
        "concurrent_1_agents_20260102_030405.json",
        "concurrent_5_agents_20260102_030405.json",
        "scaling_comprehensive_20260102_030405.json",
        "report.md",
        "report.html",
        "latency.svg",
        "throughput.svg",
        "efficiency.svg",
        "phases.svg",
        "memory.svg",
        "spawn_cdf.svg",
        "samples.jsonl",
    ];
    assert_eq!(names, expected);
    let value: Value = serde_json::from_slice(&std::fs::read(&paths[0]).unwrap()).unwrap();
    assert_eq!(value["total_time_ms"], 123.4568);
}

#[test]
fn numbers_are_as_long_as_they_say_something() {
    let short = |x: f64| rounded(serde_json::json!(x)).to_string();
    assert_eq!(
        [123.456_789, 0.0, 0.000_412_345_6, -0.05].map(short),
        ["123.4568", "0.0", "0.0004123", "-0.05"]
    );
}
