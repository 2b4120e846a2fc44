//! The whole harness, with agents as plain processes: everything but the micro-VM.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use lg_bench::{Arrival, Backend, Criteria, ScaleConfig, Scenario};

fn config(out: &std::path::Path) -> ScaleConfig {
    ScaleConfig {
        agents: vec![3],
        repetitions: 2,
        out: out.to_owned(),
        backend: Backend::Native,
        scenario: Scenario::find("interpreter").unwrap(),
        arrival: Arrival::Burst,
        seed: 1,
        criteria: Criteria::shipped().unwrap(),
        memory_bytes: 256 << 20,
        deadline: Some(Duration::from_secs(60)),
        kvm: None,
        extras: None,
    }
}

/// Leftovers are counted for the whole process, so these tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn has_python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no python3 on this machine");
    }
    found
}

#[test]
fn native_agents_complete_and_leave_nothing() {
    if !has_python() {
        return;
    }
    let _turn = alone();
    let out = tempfile::tempdir().unwrap();
    let outcome = config(out.path()).run().unwrap();
    assert!(outcome.is_clean(), "{:#?}", outcome.scaling.test_results);
    // And as many as there are processors, where those are fewer.
    let results = &outcome.scaling.test_results;
    let [one, .., three] = &results[..] else { panic!("two agent counts at least") };
    assert_eq!((one.agent_count, one.repetitions), (1, 6));
    assert_eq!((three.agent_count, three.repetitions), (3, 2));
    assert!(three.agent_results.iter().all(|agent| agent.ops_completed == 10));
    assert!(three.resources.memory_mb.is_none_or(|mb| mb > 1.0));
    assert!(three.speedup.is_some_and(|speedup| speedup > 0.0));
    // All together, the samples, two reports and six plots.
    assert_eq!(outcome.files.len(), results.len() + 10);
    let samples = std::fs::read_to_string(out.path().join("samples.jsonl")).unwrap();
    // Each once more, for memory.
    let lives = results.iter().map(|result| result.agent_count * (result.repetitions + 1));
    assert_eq!(samples.lines().count(), lives.sum::<usize>());
}

#[test]
fn a_wrong_answer_is_a_failure() {
    if !has_python() {
        return;
    }
    let _turn = alone();
    let out = tempfile::tempdir().unwrap();
    let text = include_str!("../scenarios/interpreter.toml")
        .replace("result = sum(values)", "result = sum(values) + 1");
    let config = ScaleConfig { scenario: Scenario::parse(&text).unwrap(), ..config(out.path()) };
    let error = config.run().unwrap_err().to_string();
    assert!(error.contains("the first agent failed: evaluate: wrong answer"), "{error}");
}

#[test]
fn an_agent_that_hangs_meets_its_deadline() {
    if !has_python() {
        return;
    }
    let _turn = alone();
    let out = tempfile::tempdir().unwrap();
    let text =
        include_str!("../scenarios/interpreter.toml").replace("result = sum(values)\n", "while True: pass\n");
    let scenario = Scenario::parse(&text).unwrap();
    let config = ScaleConfig { scenario, deadline: Some(Duration::from_millis(700)), ..config(out.path()) };
    let error = config.run().unwrap_err().to_string();
    assert!(error.contains("the deadline of 700ms passed"), "{error}");
}
