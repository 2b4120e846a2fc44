//! `cargo xtask faults`: what the test `host_faults` leaves out by default. Each call of the host fails, and processes are
//! killed for a while in the middle of calls.

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::seconds_and_names;

/// How long processes are killed if nothing else is said.
const SECONDS: u32 = 60;

/// Runs the parts that are named, or all.
pub fn run(words: &[&str]) -> anyhow::Result<ExitCode> {
    let (seconds, chosen) = seconds_and_names(words, SECONDS)?;
    let status = Command::new(env!("CARGO"))
        .args(["test", "--package", "luminaguard", "--locked", "--test", "host_faults", "--"])
        .args(["--ignored", "--nocapture"])
        .args(chosen)
        .env("LG_FAULTS_SECONDS", seconds.to_string())
        .status()
        .context("starting cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
