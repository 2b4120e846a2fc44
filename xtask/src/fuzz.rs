//! `cargo xtask fuzz`: builds the fuzz targets with instrumentation, and runs them for a while each.
//!
//! The package `fuzz` is laid out as cargo-fuzz wants it, and can be run with that, too. Without it a stable compiler is
//! enough, as no sanitizer is used: the code has no `unsafe` to be sanitized, and what is looked for are panics and hangs.

mod guest;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};

use crate::{seconds_and_names, target_directory, workspace_root};

/// What libFuzzer wants of the code: counters of edges, and the values that are compared.
const INSTRUMENTATION: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];
/// Named, so that build scripts and macros are built without instrumentation.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// How long each target runs if nothing else is said.
const SECONDS: u32 = 60;
/// The longest that one input may take.
const INPUT_SECONDS: u32 = 20;

/// Runs the targets that are named, or all but that of [`guest`].
pub fn run(words: &[&str]) -> anyhow::Result<ExitCode> {
    if let ["guest", words @ ..] = words {
        return guest::run(words);
    }
    let (seconds, chosen) = seconds_and_names(words, SECONDS)?;
    let package = workspace_root().join("fuzz");
    let all = targets(&package)?;
    if let Some(unknown) = chosen.iter().find(|name| !all.contains(name)) {
        bail!("no fuzz target is named {unknown}: there are {}", all.join(", "));
    }
    let programs = build(&package)?;
    let scratch = target_directory()?.join("fuzz");
    let mut failed = Vec::new();
    for name in if chosen.is_empty() { &all } else { &chosen } {
        if !fuzz(name, &programs.join(name), &package, &scratch, seconds)? {
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("inputs that fail, in {}: {}", scratch.display(), failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn targets(package: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(package.join("fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets and returns the directory of the programs.
fn build(package: &Path) -> anyhow::Result<PathBuf> {
    let directory = target_directory()?.join("fuzz-build");
    let status = Command::new(env!("CARGO"))
        .current_dir(package)
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}"))
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the fuzz targets can not be built");
    Ok(directory.join(TARGET).join("release"))
}

/// Tries what failed once and must not again, then looks for more. Says whether nothing fails.
fn fuzz(name: &str, program: &Path, package: &Path, scratch: &Path, seconds: u32) -> anyhow::Result<bool> {
    // What is found goes to the first directory; the others are only read.
    let found = scratch.join(name);
    std::fs::create_dir_all(&found)?;
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/{name}-", scratch.display()))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .env("RUST_BACKTRACE", "0")
        .arg(&found);
    let seeds = package.join("seeds").join(name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let output = command.output().with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let statistic = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(key));
        line.map_or("?", |value| value.trim_start_matches(':').trim()).to_owned()
    };
    println!(
        "{name}: {} inputs in {seconds} s, {} of them new, at most {} MiB",
        statistic("number_of_executed_units"),
        statistic("new_units_added"),
        statistic("peak_rss_mb")
    );
    if !output.status.success() {
        eprintln!("{said}");
    }
    Ok(output.status.success())
}
