//! Each system call that vmm and runtime make of the host fails once, by the errors of its manual page.
//!
//! ```text
//!   scenario.rs: what runs ──> tracer.rs: which calls are made? ──> for each: run again, and that one fails
//!   calls.rs: how it may fail ──────────────────────────────────────^              |
//!                                                     judge.rs: right output, or an error that says what failed;
//!                                                               nothing hangs, crashes or is left
//! ```
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

use libtest_mimic::{Arguments, Trial};

use crate::scenario::{Amount, SCENARIOS};

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
        let trial = move |amount: Amount| {
            move || {
                if !std::path::Path::new("/dev/kvm").exists() {
                    eprintln!("SKIPPED: there is no /dev/kvm on this machine");
                    return Ok(());
                }
                scenario.fail_each_call(amount)
            }
        };
        [
            Trial::test(format!("some calls fail: {name}"), trial(Amount::Some)),
            Trial::test(format!("every call fails: {name}"), trial(Amount::All)).with_ignored_flag(true),
        ]
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
