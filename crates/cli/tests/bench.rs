//! Each verb of `bench` with tiny counts: what it writes, and how it ends. Each test says loudly that it is skipped where there is
//! no /dev/kvm.

mod needs_kvm;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use needs_kvm::needs_kvm;
use rustix::process::{Pid, Signal, kill_process};

const LUMINAGUARD: &str = env!("CARGO_BIN_EXE_luminaguard");

/// Each has a directory of its own for temporary files, since what others have there at the same time would be taken for something left
/// behind.
fn bench(words: &[&str]) -> Command {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{number}"));
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(LUMINAGUARD);
    command.env("TMPDIR", temporary);
    command.arg("bench").args(words).stdin(Stdio::null());
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}\n{}", String::from_utf8_lossy(&output.stdout));
    output
}

/// Runs a measurement and answers its table and its file.
#[track_caller]
fn measure(words: &[&str]) -> (String, Value) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    let output = succeeds(bench(words).arg("--json").arg(&path));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(found["schema"], format!("luminaguard.bench.{}/1", words[0]));
    assert!(found["environment"]["cores"].as_u64().is_some_and(|cores| cores >= 1));
    assert_eq!(found["tally"]["failures"], 0);
    (String::from_utf8(output.stdout).unwrap(), found)
}

fn length(value: &Value) -> usize {
    value.as_array().expect("a list").len()
}

#[test]
fn spawns_are_measured_with_their_floors_their_bursts_and_their_memory() {
    needs_kvm!();
    let (table, found) = measure(&["spawn", "--count", "4", "--concurrency", "2", "--burst", "3"]);
    assert!(table.contains("request to answer") && table.contains("nothing left behind"), "{table}");
    assert_eq!((length(&found["samples"]), length(&found["floors"]["samples"]["kvm_ms"])), (4, 4));
    assert_eq!(found["burst"]["requests"], 3);
    let life = &found["samples"][0];
    let part = |name: &str| life[name].as_f64().unwrap();
    assert!(part("vmm_ms") > 0.0 && part("vmm_ms") <= part("fork_ms"), "{life}");
    assert!(part("fork_ms") < part("answered_ms") && part("answered_ms") < part("total_ms"), "{life}");
    assert!(found["total_ratio"]["p50"].as_f64().is_some_and(|ratio| ratio > 0.0));
    assert!(found["memory"]["idle"]["pss_mb"]["p50"].as_f64().is_none_or(|mb| mb > 0.0));
}

#[test]
fn the_base_template_runs_a_program_in_each_life() {
    needs_kvm!();
    let (_, found) = measure(&["spawn", "--count", "2", "--template", "base", "--burst", "0"]);
    assert_eq!((&found["template"]["name"], &found["burst"]), (&"base".into(), &Value::Null));
}

#[test]
fn live_forks_have_the_state_of_the_moment() {
    needs_kvm!();
    let (table, found) = measure(&["fork", "--count", "3", "--state", "1M"]);
    assert!(table.contains("1.0 MiB of state"), "{table}");
    assert_eq!((length(&found["samples"]), &found["state_mb"]), (3, &1.0.into()));
    assert!(found["fork_ms"]["p99"].as_f64() < found["answered_ms"]["p99"].as_f64());
}

#[test]
fn claims_of_a_full_pool_are_hits() {
    needs_kvm!();
    let (_, found) = measure(&["claim", "--count", "4", "--ready", "2"]);
    assert_eq!((&found["hits"], &found["misses"], &found["ready"]), (&4.into(), &0.into(), &2.into()));
    assert_eq!(found["samples"][0]["origin"], "ready");
}

#[test]
fn lives_are_sustained_and_counted_by_the_second() {
    needs_kvm!();
    let (table, found) = measure(&["lives", "--seconds", "2", "--concurrency", "2"]);
    assert!(table.contains("lives a second"), "{table}");
    assert_eq!(length(&found["lives_per_second"]["windows"]), 2);
    assert_eq!(found["tally"]["lives"].as_u64().unwrap() as usize, length(&found["samples"]));
    assert!(found["floor_per_second"]["before"].as_f64().is_some_and(|rate| rate > 0.0));
    assert!(found["vmm_cpu_ms"].as_f64().is_some_and(|ms| ms > 0.0));
}

#[test]
fn peers_take_turns_and_those_that_are_not_there_are_named() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    // No peer is found here, whatever this machine has.
    let mut run = bench(&["peers", "--rounds", "2", "--json"]);
    let output = succeeds(run.arg(&path).env("PATH", directory.path()));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("skipped: bwrap") && table.contains("Debian package bubblewrap"), "{table}");
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&found["schema"], &found["program"]), (&"luminaguard.bench.peers/1".into(), &"true".into()));
    let names: Vec<_> = found["measured"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["process", "luminaguard, warm", "luminaguard run"]);
    assert_eq!((length(&found["skipped"]), length(&found["measured"][1]["samples"])), (4, 2));
    assert_eq!(found["measured"][0]["of_process"], 1.0);
    // Two rounds and one that is not counted, of two rows.
    assert_eq!((&found["tally"]["lives"], &found["tally"]["failures"]), (&6.into(), &0.into()));
}

#[test]
fn more_than_there_is_room_for_is_given_or_refused_for_a_reason() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    let output = succeeds(bench(&["overload", "--only", "counts,descriptors", "--json"]).arg(&path));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("counts x10: refused: ") && table.contains("nothing left behind"), "{table}");
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        (&found["schema"], &found["interrupted"]),
        (&"luminaguard.bench.overload/1".into(), &false.into())
    );
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["counts x3", "counts x10", "descriptors", "descriptors, no admission"]);
    for row in rows {
        let count = |name: &str| row[name].as_u64().unwrap();
        let refused: u64 = row["refused"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(count("requested"), count("completed") + refused, "{row}");
        assert_eq!((count("failed"), count("admitted")), (0, count("completed")), "{row}");
        assert!(
            count("completed") > 0 && count("most_alive") > 0 && row["recovery_ms"].as_f64() > Some(0.0),
            "{row}"
        );
        assert_eq!(length(&row["samples"]["refused_ms"]) as u64, refused);
    }
    // Ten times the room ask, one goes in, six may wait: the others are refused at once, but for those who asked so late that
    // somebody had ended.
    let (crowd, room) = (&rows[1], rows[1]["capacity"].as_u64().unwrap());
    let refused = crowd["refused"]["queue full: sandboxes"].as_u64().unwrap();
    assert!((1..=room * 3).contains(&refused), "{crowd}");
    assert!(crowd["most_alive"].as_u64().unwrap() <= room, "{crowd}");
    assert!(rows[3]["refused"]["host: descriptors"].as_u64().is_some_and(|count| count > 0), "{}", rows[3]);
}

#[test]
fn an_interrupted_overload_keeps_what_it_has_and_leaves_nothing() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    let mut run = bench(&["overload", "--json"]);
    let run = run.arg(&path).env("TMPDIR", directory.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = run.spawn().unwrap();
    // Its first row is done, and it is in the middle of another.
    let mut stderr = BufReader::new(run.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("counts x3: "), "{line}");
    std::thread::sleep(Duration::from_millis(400));
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.ends_with("luminaguard: interrupted\n"), "{rest}");
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&found["interrupted"], &found["rows"][0]["name"]), (&true.into(), &"counts x3".into()));
    // Neither directories nor mounts remain.
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(directory.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn agents_do_their_operations_in_forks_and_in_cold_machines() {
    needs_kvm!();
    for backend in ["warm", "cold"] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = bench(&["scale", "--agents", "2", "--repetitions", "1", "--out"]);
        command.arg(directory.path());
        if backend == "cold" {
            command.arg("--cold");
        }
        succeeds(&mut command);
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let scaling = files.into_iter().find(|path| path.to_string_lossy().contains("scaling_comprehensive"));
        let found: Value = serde_json::from_slice(&std::fs::read(scaling.unwrap()).unwrap()).unwrap();
        assert_eq!(found["environment"]["backend"], backend);
        assert_eq!(found["template"].is_object(), backend == "warm");
        let two = found["test_results"].as_array().unwrap().last().unwrap();
        assert_eq!(two["agent_count"], 2);
        for agent in two["agent_results"].as_array().unwrap() {
            assert_eq!((&agent["outcome"], &agent["ops_completed"]), (&"completed".into(), &10.into()));
        }
    }
}

/// The kinds of fault, with what was found of each.
fn faults(found: &Value) -> Vec<(&str, &Value)> {
    let faults = found["faults"].as_array().unwrap();
    faults.iter().map(|fault| (fault["fault"].as_str().unwrap(), fault)).collect()
}

#[test]
fn agents_at_work_come_through_chaos() {
    needs_kvm!();
    let (table, found) = measure(&["chaos", "--seconds", "3", "--seed", "1", "--concurrency", "2"]);
    assert!(table.contains("recover ms") && table.contains("nothing left behind"), "{table}");
    assert_eq!((&found["seed"], &found["interrupted"]), (&1.into(), &false.into()));
    let lives = &found["lives"];
    assert_eq!((&lives["success_rate"], &lives["wrong_answers"]), (&1.0.into(), &0.into()), "{lives}");
    assert_eq!((&lives["hung"], &lives["lost"]), (&0.into(), &0.into()), "{lives}");
    let count = |name: &str| lives[name].as_u64().unwrap();
    assert!(count("not_hit") > 0 && count("read_back") > count("not_hit"), "{lives}");
    assert_eq!(count("hit"), count("hit_survived") + count("hit_ended"), "{lives}");
    assert_eq!(count("hit") + count("not_hit"), found["tally"]["lives"].as_u64().unwrap());
    let (schedule, events) = (found["schedule"].as_array().unwrap(), found["events"].as_array().unwrap());
    assert_eq!((schedule.len(), events.len()), (10, 10));
    for (planned, event) in schedule.iter().zip(events) {
        for field in ["number", "at_ms", "fault", "victim", "hold_ms"] {
            assert_eq!(planned[field], event[field]);
        }
        assert_eq!(event["failure"], Value::Null, "{event}");
        let aims = matches!(event["fault"].as_str(), Some("kill-vmm" | "stop-vmm"));
        assert_eq!(event["struck"].is_string(), aims && event["injected_ms"].is_number(), "{event}");
    }
    let kinds = faults(&found);
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    for (name, fault) in kinds {
        // Slow machines may leave no time for the last ones, and only root can fill a disk.
        assert!(fault["count"].as_u64().unwrap() > 0 || fault["skipped"].is_string(), "{name}: {fault}");
        assert_eq!((&fault["lost"], &fault["failures"]), (&0.into(), &0.into()), "{name}: {fault}");
    }
}

#[test]
fn interrupted_chaos_tells_what_was_found_until_then() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    let faults = "kill-vmm,stop-vmm,kill-runtime";
    let mut run = bench(&["chaos", "--seconds", "60", "--seed", "2", "--faults", faults, "--json"]);
    let run = run.arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(130), "luminaguard: interrupted\n"));
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&found["interrupted"], &found["tally"]["failures"]), (&true.into(), &0.into()));
    let things = found["tally"]["leftovers"].as_object().unwrap();
    assert!(things.values().all(|count| count == 0), "{things:?}");
    assert_eq!(self::faults(&found).len(), 3);
    assert!(found["events"].as_array().unwrap().last().unwrap()["injected_ms"].is_null());
}

/// The vmms of a process, without templates.
fn vmms_of(parent: u32) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    // proc_pid_stat(5): the process, its name, its state, its parent.
    let of_parent = stats.filter_map(|stat| {
        let (pid, rest) = stat.split_once(" (lg-vmm) ")?;
        let is_child = rest.split(' ').nth(1) == Some(&*parent.to_string());
        if is_child { Pid::from_raw(pid.parse().ok()?) } else { None }
    });
    of_parent.collect()
}

#[test]
fn a_death_that_no_fault_explains_fails_chaos() {
    needs_kvm!();
    let words = ["chaos", "--seconds", "2", "--faults", "busy-host", "--concurrency", "2"];
    let mut run = bench(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut rounds = 0;
    while rounds < 4 && run.try_wait().unwrap().is_none() {
        let vmms = vmms_of(run.id());
        // The pool alone keeps one ready: now agents are at work.
        if vmms.len() >= 3 {
            for vmm in vmms {
                // One may just have ended.
                let _ = kill_process(vmm, Signal::KILL);
            }
            rounds += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(rounds > 0, "no agents were at work");
    let output = run.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the sandbox is over: the vmm ended without a report"), "{stderr}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("hit: 0 lives") && table.contains("nothing left behind"), "{table}");
}

#[test]
fn chaos_that_makes_no_sense_is_refused() {
    needs_kvm!();
    for (words, part) in [
        (&["chaos", "--seconds", "0"][..], "--seconds must be at least 1"),
        (&["chaos", "--concurrency", "0"], "--concurrency must be at least 1"),
        (&["chaos", "--faults", "full-dsk"], "a similar value exists: 'full-disk'"),
    ] {
        let output = bench(words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains(part) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn figures_are_measured_and_written() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    succeeds(bench(&["figures", "--rounds", "1", "--json"]).arg(&path));
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&found["schema"], &found["interrupted"]), (&"luminaguard.figures/1".into(), &false.into()));
    assert!(length(&found["figures"]) >= 8, "{}", found["skipped"]);
}

#[test]
fn programs_are_measured_natively_and_in_a_sandbox() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    succeeds(bench(&["programs", "--rounds", "1", "--only", "bash", "--json"]).arg(&path));
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let names: Vec<&str> =
        found["figures"].as_array().unwrap().iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"bash -c :, native") && names.contains(&"bash -c :, sandbox"), "{names:?}");
    let output = bench(&["programs", "--only", "no such"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are: fork and exit; "));
}

#[test]
fn every_scenario_is_done_by_two_agents() {
    needs_kvm!();
    for scenario in ["shell", "files", "cpu", "think", "tools", "network"] {
        let directory = tempfile::tempdir().unwrap();
        let found = directory.path().join("found.json");
        let options = ["--scenario", scenario, "--agents", "2", "--repetitions", "1", "--think-time", "5ms"];
        let mut run = bench(&["scale"]);
        run.args(options).arg("--out").arg(directory.path().join("out")).arg("--json").arg(&found);
        succeeds(&mut run);
        let found: Value = serde_json::from_slice(&std::fs::read(&found).unwrap()).unwrap();
        let two = found["test_results"].as_array().unwrap().last().unwrap();
        assert_eq!((&found["scenario"]["name"], length(&two["agent_results"])), (&scenario.into(), 2));
        assert_eq!(two["network_latency_ms"].is_object(), scenario == "network");
        assert!(two["agent_results"].as_array().unwrap().iter().all(|agent| agent["ops_completed"] == 10));
    }
}

#[test]
fn bad_options_of_a_scale_run_are_refused_before_it() {
    for (options, part) in [
        (["--scenario", "interpeter"], "did you mean interpreter?"),
        (["--agents", "0"], "--agents must be at least 1"),
        (["--agents", "100000"], "at most 10000 at once"),
        (["--repetitions", "0"], "--repetitions 0"),
        (["--operations", "0"], "--operations 0"),
        (["--seed", "0"], "--seed 0"),
        (["--arrival", "poisson"], "none of burst, closed, poisson:RATE"),
        (["--criteria", "/nowhere/criteria.toml"], "the criteria /nowhere/criteria.toml"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ] {
        let output = bench(&["scale"]).args(options).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(part), "{options:?}: {stderr}");
        assert!(matches!(output.status.code(), Some(2 | 125)), "{options:?}: {stderr}");
    }
}

/// Interrupts a run once it has worked for a while, and sees to it that it says so.
#[track_caller]
fn interrupt(run: &mut Command, after: Duration) {
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(after);
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.lines().next_back().is_some_and(|line| line.starts_with("luminaguard: interrupted")),
        "{stderr}"
    );
}

#[test]
fn an_interrupted_run_ends_soon_and_keeps_what_it_has() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("found.json");
    interrupt(bench(&["lives", "--seconds", "60", "--json"]).arg(&path), Duration::from_secs(9));
    let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&found["interrupted"], &found["tally"]["failures"]), (&true.into(), &0.into()));
    assert!(length(&found["samples"]) > 0 && found["floor_per_second"].get("after").is_none());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn an_interrupted_scale_run_keeps_whole_repetitions() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let mut run = bench(&["scale", "--agents", "2", "--repetitions", "500", "--out"]);
    interrupt(run.arg(directory.path()), Duration::from_secs(12));
    let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = entries.collect();
    let scaling = files.iter().find(|path| path.to_string_lossy().contains("scaling_comprehensive")).unwrap();
    let found: Value = serde_json::from_slice(&std::fs::read(scaling).unwrap()).unwrap();
    assert_eq!(found["interrupted"], true);
    assert!(found["test_results"][0]["repetitions"].as_u64().is_some_and(|count| (1..500).contains(&count)));
    assert!(files.iter().any(|path| path.ends_with("report.html")), "{files:?}");
    assert!(!files.iter().any(|path| path.to_string_lossy().contains(".luminaguard-")), "{files:?}");
}

#[test]
fn runs_and_binaries_are_compared() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    for name in ["a.json", "b.json"] {
        let mut run = bench(&["spawn", "--count", "6", "--burst", "0", "--json"]);
        succeeds(run.arg(file(name)));
    }
    let output = succeeds(
        bench(&["compare"]).args([file("a.json"), file("b.json")]).arg("--json").arg(file("c.json")),
    );
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("against") && table.contains("answered"), "{table}");
    let found: Value = serde_json::from_slice(&std::fs::read(file("c.json")).unwrap()).unwrap();
    assert_eq!((&found["schema"], length(&found["comparisons"])), (&"luminaguard.bench.compare/1".into(), 6));
    assert_eq!(found["comparisons"][0]["samples"], serde_json::json!([6, 6]));
    let other = bench(&["compare"]).args([file("a.json"), file("c.json")]).output().unwrap();
    let stderr = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("its schema is \"luminaguard.bench.compare/1\""), "{stderr}");
    let words = ["compare", "--rounds", "2", "--binary", LUMINAGUARD, "--binary", LUMINAGUARD, "--"];
    let mut binaries = bench(&words);
    let output = succeeds(binaries.args(["spawn", "--count", "2", "--burst", "0", "--template", "base"]));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("4, 4"), "{table}");
    let once = bench(&["compare", "--binary", LUMINAGUARD]).output().unwrap();
    assert!(String::from_utf8_lossy(&once.stderr).contains("--binary must be given twice"));
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_the_run() {
    let output = bench(&["spawn", "--json", "/nowhere/at/all.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("/nowhere/at is no directory"), "{stderr}");
}
