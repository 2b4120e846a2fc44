//! `cargo xtask ci`: everything that must hold before a change is merged, in the order of what fails soonest.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::target_directory;

/// A command that must succeed.
struct Step {
    name: &'static str,
    /// `cargo` stands for the cargo that runs this, and [`BINARY`] for the release build.
    command: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    /// Without /dev/kvm the step is skipped, loudly.
    needs_kvm: bool,
}

impl Step {
    const fn new(name: &'static str, command: &'static [&'static str]) -> Step {
        Step { name, command, env: &[], needs_kvm: false }
    }

    const fn with_kvm(name: &'static str, command: &'static [&'static str]) -> Step {
        Step { needs_kvm: true, ..Step::new(name, command) }
    }
}

const BINARY: &str = "{luminaguard}";
const SCRATCH: &str = "{scratch}";

const STEPS: &[Step] = &[
    Step::new("format", &["cargo", "fmt", "--all", "--check"]),
    Step::new(
        "dependencies",
        &["cargo", "deny", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
    ),
    Step::new(
        "lints",
        &["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"],
    ),
    Step {
        env: &[("RUSTDOCFLAGS", "--deny warnings")],
        ..Step::new(
            "documentation",
            &["cargo", "doc", "--workspace", "--no-deps", "--document-private-items", "--locked"],
        )
    },
    Step::new("unsafe code", &["cargo", "xtask", "unsafe-code", "--check"]),
    Step::new("generated documentation", &["cargo", "xtask", "syscalls", "--check"]),
    Step::new("generated attack surface", &["cargo", "xtask", "attack-surface", "--check"]),
    Step::new("tests", &["cargo", "test", "--workspace", "--locked"]),
    // Also where a virtual machine's calls take no exit from the first on.
    Step {
        env: &[("LG_KVM_TEST_POLLING", "always")],
        ..Step::with_kvm(
            "the platform, polled",
            &["cargo", "test", "--package", "lg-kvm", "--locked", "--tests"],
        )
    },
    Step::new("fuzz, a minute each", &["cargo", "xtask", "fuzz"]),
    Step::with_kvm("fuzz from inside of sandboxes", &["cargo", "xtask", "fuzz", "guest"]),
    Step::new("release build", &["cargo", "build", "--release", "--locked"]),
    Step::with_kvm("doctor", &[BINARY, "doctor"]),
    Step::with_kvm("a suite of others, its quick part", &["cargo", "xtask", "suite", "cpython", "--quick"]),
    Step::with_kvm("a program in a sandbox", &[BINARY, "run", "--", "python3", "-c", "assert 6 * 7 == 42"]),
    Step::with_kvm(
        "a small scale run",
        &[BINARY, "bench", "scale", "--agents", "1,3", "--repetitions", "1", "--out", SCRATCH],
    ),
    Step::new(
        "benches, once each",
        &[
            "cargo",
            "bench",
            "--workspace",
            "--features",
            "lg-kernel/testing",
            "--locked",
            "--bench",
            "exits",
            "--bench",
            "calls",
            "--bench",
            "messages",
            "--bench",
            "sandboxes",
            "--",
            "--test",
        ],
    ),
    Step::new("ordinary KVM", &["cargo", "xtask", "ordinary-kvm"]),
];

/// Runs the steps whose name contains `only`, or all, and stops at the first that fails.
pub fn run(only: Option<&str>) -> anyhow::Result<ExitCode> {
    let target = target_directory()?;
    let has_kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let mut times = Vec::new();
    for step in STEPS.iter().filter(|step| only.is_none_or(|only| step.name.contains(only))) {
        if step.needs_kvm && !has_kvm {
            println!("=== {}: SKIPPED, /dev/kvm can not be opened", step.name);
            continue;
        }
        println!("=== {}: {}", step.name, step.command.join(" "));
        let start = Instant::now();
        let status = command(step, &target)
            .status()
            .with_context(|| format!("starting {}", step.command.join(" ")))?;
        if !status.success() {
            bail!("{} failed: {} ({status})", step.name, step.command.join(" "));
        }
        times.push((step.name, start.elapsed()));
    }
    if times.is_empty() && only.is_some() {
        bail!("no step was run");
    }
    println!("=== passed");
    for (name, time) in times {
        println!("{:>7.1} s  {name}", time.as_secs_f64());
    }
    Ok(ExitCode::SUCCESS)
}

fn command(step: &Step, target: &Path) -> Command {
    let word = |word: &str| match word {
        "cargo" => env!("CARGO").into(),
        BINARY => target.join("release/luminaguard").into_os_string(),
        SCRATCH => target.join("ci-bench-results").into_os_string(),
        other => other.into(),
    };
    let mut words = step.command.iter().copied().map(word);
    let mut command = Command::new(words.next().expect("a step has a program"));
    command.args(words).envs(step.env.iter().copied());
    command
}
