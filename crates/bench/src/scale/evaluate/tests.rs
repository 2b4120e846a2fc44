use std::time::Duration;

use super::*;
use crate::agent::{OperationSample, Phase};
use crate::usage::CpuTime;

fn life(spawn_ms: f64, execute_ms: f64, cleanup_ms: f64) -> Life {
    let phases = [("fork in the vmm", 0.25), ("first answer", 0.75)];
    Life {
        spawn_ms,
        spawn_phases: phases.map(|(name, share)| Phase { name, ms: share * spawn_ms }).into(),
        execute_ms,
        cleanup_ms,
        total_ms: spawn_ms + execute_ms + cleanup_ms,
        operations: vec![OperationSample { name: "evaluate".to_owned(), ms: execute_ms }; 10],
        measures: BTreeMap::from([(NETWORK_LATENCY.to_owned(), vec![0.5, 1.5])]),
        outcome: Outcome::Completed,
        error: None,
        sandbox: None,
        pid: None,
    }
}

fn repetition(round: usize, wall_ms: f64, cpu_ms: u64, lives: Vec<Life>) -> Repetition {
    let cpu = CpuTime {
        own: Duration::from_millis(cpu_ms / 10),
        children: Duration::from_millis(cpu_ms - cpu_ms / 10),
        voluntary_switches: 8,
        involuntary_switches: 4,
    };
    Repetition { round, wall_ms, cpu: Some(cpu), lives, leftovers: Leftovers::default() }
}

fn measurement(timed: Vec<Repetition>) -> Measurement {
    let agents = timed[0].lives.len();
    let sampled = repetition(0, 1.0, 1, vec![life(1.0, 1.0, 1.0); agents]);
    Measurement { agents, lives_each: 1, timed, sampled: Some((sampled, Resources::default())) }
}

fn frame(baseline: Option<Baseline>) -> Frame {
    Frame { started: jiff::Timestamp::UNIX_EPOCH, operations: 10, baseline, parallel_speedup: 1.5 }
}

#[test]
fn the_figures_of_a_run_are_those_worked_out_by_hand() {
    let one = measurement(vec![repetition(0, 100.0, 100, vec![life(30.0, 60.0, 10.0)])]);
    let four = measurement(vec![repetition(0, 200.0, 300, vec![life(50.0, 100.0, 10.0); 4])]);
    let result = frame(Some(Baseline::of(&one))).concurrent(&four);
    assert_eq!((result.total_time_ms, result.avg_spawn_time_ms), (200.0, Some(50.0)));
    // 40 operations in 0.2 s.
    assert!((result.throughput_ops_per_min - 12_000.0).abs() < 1e-9);
    assert!((result.throughput_per_agent_ops_per_min - 3_000.0).abs() < 1e-9);
    assert!((result.agents_per_second - 20.0).abs() < 1e-9);
    // 200 / (160 x 4), and 100 x 4 / 200.
    assert!((result.scaling_factor.unwrap() - 0.3125).abs() < 1e-12);
    assert!((result.speedup.unwrap() - 2.0).abs() < 1e-12);
    // One agent alone keeps one core busy, and all together are worth 1.5.
    assert!((result.ideal_speedup.unwrap() - 1.5).abs() < 1e-12);
    assert!((result.efficiency.unwrap() - 2.0 / 1.5).abs() < 1e-12);
    assert!((result.nominal_ideal_speedup.unwrap() - (cores() as f64).min(4.0)).abs() < 1e-12);
    let resources = &result.resources;
    assert!((resources.cpu_percent.unwrap() - 150.0 / cores() as f64).abs() < 1e-9);
    assert!((resources.cpu_seconds_per_agent.unwrap() - 0.0675).abs() < 1e-12);
    assert!((resources.harness_cpu_seconds_per_agent.unwrap() - 0.0075).abs() < 1e-12);
    assert_eq!(resources.voluntary_switches_per_agent, Some(2.0));
    assert_eq!(result.network_latency_ms.map(|summary| (summary.n, summary.p50)), Some((8, 1.0)));
    assert!(result.failures.is_empty() && result.exits.is_none() && result.intervals_95.is_empty());
    let phases: f64 = result.spawn_phases_ms.iter().map(|phase| phase.mean_ms).sum();
    assert!((phases - result.spawn_ms.unwrap().mean).abs() < 1e-9);
}

#[test]
fn figures_are_medians_over_repetitions_and_have_intervals() {
    let repetitions = [100.0, 300.0, 120.0];
    let timed = repetitions.iter().enumerate();
    let timed = timed.map(|(n, wall)| repetition(n, *wall, 10, vec![life(wall / 2.0, 1.0, 1.0)]));
    let result = frame(None).concurrent(&measurement(timed.collect()));
    assert_eq!((result.total_time_ms, result.avg_spawn_time_ms), (120.0, Some(60.0)));
    assert_eq!(result.speedup, None);
    assert_eq!(result.intervals_95["total_time_ms"], [100.0, 300.0]);
    assert_eq!(result.intervals_95["spawn_ms.p50"], [50.0, 150.0]);
    assert!(!result.intervals_95.contains_key("speedup"));
}

#[test]
fn speedup_is_against_the_single_agent_of_the_same_round() {
    let alone = [(0, 100.0), (0, 120.0), (1, 220.0)];
    let alone = alone.map(|(round, ms)| repetition(round, ms, 10, vec![life(0.0, ms, 0.0)]));
    let baseline = Baseline::of(&measurement(alone.into()));
    assert_eq!(baseline.life_ms, Some(165.0));
    // In both rounds two agents take as long as one.
    for (round, ms) in [(0, 110.0), (1, 220.0)] {
        assert_eq!(baseline.speedup(&repetition(round, ms, 10, vec![life(0.0, ms, 0.0); 2])), Some(2.0));
    }
}

#[test]
fn failed_agents_count_as_failures_and_not_in_times() {
    let failed = Life {
        outcome: Outcome::Failed,
        error: Some("wrong".to_owned()),
        operations: Vec::new(),
        ..life(9.0, 9.0, 9.0)
    };
    let m = measurement(vec![repetition(0, 100.0, 10, vec![life(1.0, 2.0, 3.0), failed])]);
    let result = frame(None).concurrent(&m);
    assert_eq!(result.failures, BTreeMap::from([(Outcome::Failed, 1)]));
    assert_eq!(result.spawn_ms.unwrap().max, 1.0);
    assert!((result.throughput_ops_per_min - 10.0 / (0.1 / 60.0)).abs() < 1e-9);
    let agent = &result.agent_results[1];
    assert_eq!(
        (agent.agent_id.as_str(), agent.error.as_deref(), agent.ops_completed),
        ("agent-02", Some("wrong"), 0)
    );
}

#[test]
fn an_agent_of_a_closed_loop_has_several_lives() {
    let lives = [10.0, 20.0, 30.0, 40.0].map(|ms| life(ms, 1.0, 1.0)).to_vec();
    let timed = vec![repetition(0, 100.0, 10, lives)];
    let m = Measurement { agents: 2, lives_each: 2, timed, sampled: None };
    let result = frame(None).concurrent(&m);
    let spawns: Vec<f64> = result.agent_results.iter().map(|agent| agent.spawn_time_ms).collect();
    assert_eq!((result.agents_per_second, spawns), (40.0, vec![15.0, 35.0]));
    // 100 / (27 x 4)
    assert!((result.scaling_factor.unwrap() - 100.0 / 108.0).abs() < 1e-12);
}

#[test]
fn names_of_agents_sort() {
    assert_eq!(agent_id(0, 5), "agent-01");
    assert_eq!(agent_id(99, 100), "agent-100");
    assert_eq!(agent_id(0, 1000), "agent-0001");
}
