//! A run that was never made, for tests of whatever reads runs.

use std::collections::BTreeMap;

use crate::Leftovers;
use crate::agent::Outcome;
use crate::environment::Environment;
use crate::floors::Floors;
use crate::scale::agent_id;
use crate::schema::{
    AgentResult, Bound, CONCURRENT_SCHEMA, Concurrent, Criterion, MeanExits, PhaseMean, Resources,
    SCALING_SCHEMA, Scaling, ScenarioFacts,
};
use crate::stats::Summary;

pub(crate) fn summary(base: f64) -> Summary {
    Summary {
        n: 30,
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

pub(crate) fn concurrent(agents: usize) -> Concurrent {
    let spawn = 10.0 * agents as f64;
    Concurrent {
        timestamp: "2026-01-02T03:04:05Z".to_owned(),
        schema: CONCURRENT_SCHEMA.to_owned(),
        agent_count: agents,
        repetitions: 3,
        lives_each: 1,
        total_time_ms: 123.456_789,
        repetition_total_time_ms: vec![120.0, 123.456_789, 130.0],
        avg_spawn_time_ms: Some(spawn),
        avg_execute_time_ms: Some(50.0),
        avg_cleanup_time_ms: Some(2.0),
        intervals_95: BTreeMap::from([
            ("total_time_ms", [120.0, 130.0]),
            ("agents_per_second", [9.0, 11.0]),
            ("efficiency", [0.85, 0.95]),
            ("spawn_ms.p50", [spawn, spawn + 2.0]),
            ("spawn_ms.p99", [spawn + 3.0, spawn + 5.0]),
        ]),
        spawn_ms: Some(summary(spawn)),
        spawn_phases_ms: [("queue and hand-over", 0.25), ("fork in the vmm", 0.25), ("first answer", 0.5)]
            .map(|(name, share)| PhaseMean { name, mean_ms: (spawn + 1.5) * share, share })
            .into(),
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
        nominal_ideal_speedup: Some(2.0),
        resources: Resources {
            cpu_percent: Some(88.0),
            cpu_seconds_per_agent: Some(0.07),
            harness_cpu_seconds_per_agent: Some(0.002),
            voluntary_switches_per_agent: Some(40.0),
            involuntary_switches_per_agent: Some(3.0),
            memory_mb: Some(14.0 * agents as f64),
            memory_per_agent_mb: Some(14.0),
            memory_peak_mb: Some(15.0 * agents as f64),
            threads_active: Some(agents as u64),
            disk_read_mb: Some(0.0),
            disk_write_mb: Some(0.0),
        },
        exits: Some(MeanExits { syscalls: 900.0, page_faults: 200.0, exceptions: 0.0, interrupts: 3.0 }),
        network_latency_ms: None,
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

/// A run of 1 and of 5 agents, of which one failed.
pub(crate) fn scaling() -> Scaling {
    Scaling {
        timestamp: "2026-01-02T03:04:05Z".to_owned(),
        schema: SCALING_SCHEMA.to_owned(),
        interrupted: false,
        scenario: ScenarioFacts {
            name: "interpreter".to_owned(),
            about: "Python cells.".to_owned(),
            operations: 10,
            think_ms: 0.0,
            arrival: "burst".to_owned(),
            seed: 1,
        },
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
        floors: Floors {
            process_ms: Some(summary(0.5)),
            kvm_ms: Some(summary(0.7)),
            native_agent_ms: None,
            native_burst: None,
            parallel_speedup: 1.8,
        },
        usl: None,
        peers: None,
        overload: None,
        criteria: vec![Criterion {
            name: "nothing is left behind".to_owned(),
            target: 0.0,
            bound: Bound::AtMost,
            measured: Some(0.0),
            agent_count: Some(5),
            unit: "1".to_owned(),
            passed: true,
        }],
        test_results: vec![concurrent(1), concurrent(5)],
    }
}
