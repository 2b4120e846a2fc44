//! Each system call that vmm and runtime make of the host fails once, by the errors of its manual page.
//!
//! ```text
//!   scenario.rs: what runs ──> tracer.rs: which calls are made? ──> for each: run again, and that one fails
//!   calls.rs: how it may fail ──────────────────────────────────────^              |
//!                                                     judge.rs: right output, or an error that says what failed;
//!                                                               nothing hangs, crashes or is left
//! ```
//!
//! Processes are killed in the middle of calls in the same way: what they had under way is then half done.
//!
//! What runs by default is a part; `cargo xtask faults` runs all (`--ignored`), and prints a line for each fault.

#![forbid(unsafe_code)]

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod judge;
mod scenario;
mod tracer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::scenario::{Amount, SCENARIOS, Scenario};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((word, rest)) if word == "traced" => {
            eprintln!("cannot start what is traced: {}", tracer::become_traced(rest));
            return ExitCode::from(3);
        }
        Some((word, rest)) if word == "driver" => return driver::drive(&rest[0]),
        _ => {}
    }
    let trials = SCENARIOS.iter().flat_map(|scenario| {
        let name = scenario.name;
        [
            trial(format!("calls fail: {name}"), || scenario.fail_calls(Amount::Some)),
            trial(format!("every call fails: {name}"), || scenario.fail_calls(Amount::All))
                .with_ignored_flag(true),
            trial(format!("killed in calls: {name}"), || scenario.kill_in_calls()),
        ]
    });
    let at_random = trial("killed at random".to_owned(), kill_at_random).with_ignored_flag(true);
    libtest_mimic::run(&Arguments::from_args(), trials.chain([at_random]).collect()).exit_code()
}

fn trial(name: String, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        if !std::path::Path::new("/dev/kvm").exists() {
            eprintln!("SKIPPED: there is no /dev/kvm on this machine");
            return Ok(());
        }
        test()
    })
}

/// Kills runtimes and vmms in the middle of calls for so many seconds as `LG_FAULTS_SECONDS` says, else a minute.
fn kill_at_random() -> Result<(), Failed> {
    let seconds = match std::env::var("LG_FAULTS_SECONDS") {
        Ok(text) => text.parse()?,
        Err(_) => 60,
    };
    let seed = fastrand::u64(..);
    println!("seed {seed}, {seconds} s");
    let mut random = fastrand::Rng::with_seed(seed);
    let sound = SCENARIOS.iter().map(Scenario::sound).collect::<Result<Vec<_>, _>>()?;
    let (started, mut runs, mut wrong) = (Instant::now(), 0, Vec::new());
    while started.elapsed() < Duration::from_secs(seconds) {
        let which = random.usize(..SCENARIOS.len());
        wrong.extend(SCENARIOS[which].kill_at_random(&mut random, &sound[which])?);
        runs += 1;
    }
    println!("{runs} killed, {} wrong", wrong.len());
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
