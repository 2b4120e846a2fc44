//! Developer verbs: `cargo xtask <verb>`.

mod ci;
mod faults;
mod fuzz;
mod ordinary_kvm;
mod pages;
mod suite;
mod unsafe_code;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const HELP: &str = "\
usage: cargo xtask <verb>

verbs:
  ci [name]                   run all checks, or those whose name contains `name`
  syscalls [--check]          write docs/syscalls.md from the system-call table, or fail if it is stale
  fuzz [target...]            run the fuzz targets of the package `fuzz`, or those named, for a minute each
      --seconds N             for so many seconds each
  fuzz guest                  make random system calls inside of sandboxes for a minute, and look at the host meanwhile;
                              needs /dev/kvm
      --seconds N             for so many seconds
      --seed N                the first sandbox gets this seed, the others those that follow; with `--seconds 0` only
                              that one is run
  faults [name...]            let each call of the host fail in turn that vmm and runtime make, some twenty minutes of
                              it, and kill them in the middle of calls: all of the test `host_faults`, or the parts
                              whose name contains `name` (`every call fails: run`, `killed at random`)
      --seconds N             kill for so many seconds, not for a minute
  unsafe-code [--check]       count the word `unsafe` in each package: the numbers of unsafe-code.toml may only fall
  attack-surface [--check]    write docs/attack-surface.md from the table of the vmm's system-call filter, or fail if
                              it is stale
  ordinary-kvm [program...]   run the tests that need KVM, and the programs given (static binaries), on
                              ordinary KVM inside an emulated machine; needs qemu-system-x86 and either a
                              Debian kernel installed or apt-get to download one
  suite NAME [group...]       run a suite that others wrote natively and in sandboxes, and compare: `cpython`, by
                              module, or `stress-ng`, by class. Needs /dev/kvm and the release build; see
                              docs/suites.md
      --quick                 leave out what takes long
      --json FILE             write the results to a file, too
";

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ci"] => ci::run(None),
        ["ci", only] => ci::run(Some(only)),
        ["fuzz", words @ ..] => fuzz::run(words),
        ["faults", words @ ..] => faults::run(words),
        ["unsafe-code"] => unsafe_code::run(false),
        ["unsafe-code", "--check"] => unsafe_code::run(true),
        ["syscalls"] => pages::run(&pages::SYSCALLS, pages::Mode::Write),
        ["syscalls", "--check"] => pages::run(&pages::SYSCALLS, pages::Mode::Check),
        ["attack-surface"] => pages::run(&pages::ATTACK_SURFACE, pages::Mode::Write),
        ["attack-surface", "--check"] => pages::run(&pages::ATTACK_SURFACE, pages::Mode::Check),
        ["ordinary-kvm", programs @ ..] => ordinary_kvm::run(programs.iter().map(PathBuf::from).collect()),
        ["suite", words @ ..] => suite::run(words),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{HELP}");
            Ok(ExitCode::from(2))
        }
    }
}

/// Returns the directory of the workspace's Cargo.toml.
fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Asks cargo where build products go.
fn target_directory() -> anyhow::Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("starting cargo")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("no target directory")?.into())
}

/// Reads the words of a verb that runs what is named, or all, each for so many seconds: `[NAME...] [--seconds N]`.
fn seconds_and_names(words: &[&str], default_seconds: u32) -> anyhow::Result<(u32, Vec<String>)> {
    let (mut seconds, mut names) = (default_seconds, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--seconds" => {
                let value = words.next().context("--seconds needs a number")?;
                seconds = value.parse().with_context(|| format!("--seconds {value}"))?;
            }
            option if option.starts_with('-') => bail!("unknown option {option}"),
            name => names.push(name.to_owned()),
        }
    }
    Ok((seconds, names))
}
