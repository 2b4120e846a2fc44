//! Each check of the program `guest-checks`, natively and in a sandbox: both must succeed and print the same.
//!
//! Natively a check must hold before anything is said about the sandbox. Without /dev/kvm the checks run
//! natively only, and this is said loudly.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

const GUEST: &str = env!("CARGO_BIN_EXE_guest-checks");

/// Checks that fail in a sandbox today, each with the reason. One that passes after all fails the test.
const KNOWN_FAILURES: &[(&str, &str)] = &[];

fn main() {
    let arguments = Arguments::from_args();
    let sandbox = common::luminaguard(Path::new(GUEST));
    if sandbox.is_none() {
        eprintln!("SKIPPED: /dev/kvm can not be opened, so the checks run natively only");
    }
    let list = Command::new(GUEST).arg("--list").output().expect("the guest program can be started");
    let names = String::from_utf8(list.stdout).expect("names are text");
    let trials = names.lines().map(|name| {
        let (name, sandbox) = (name.to_owned(), sandbox.clone());
        Trial::test(name.clone(), move || check(&name, sandbox.as_deref()))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// What a run of the guest program came to.
#[derive(PartialEq, Eq)]
struct Run {
    status: Option<i32>,
    output: String,
    errors: String,
}

fn run(command: &mut Command) -> Run {
    let output = command.stdin(Stdio::null()).output().expect("a program can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { status: output.status.code(), output: text(output.stdout), errors: text(output.stderr) }
}

fn check(name: &str, sandbox: Option<&Path>) -> Result<(), Failed> {
    let natively = run(Command::new(GUEST).arg(name));
    if natively.status != Some(0) {
        return Err(format!(
            "natively: status {:?}\n{}{}",
            natively.status, natively.output, natively.errors
        )
        .into());
    }
    let Some(luminaguard) = sandbox else { return Ok(()) };
    // SAFETY: these calls only answer.
    let user = unsafe { format!("{}:{}", libc::geteuid(), libc::getegid()) };
    let directory = Path::new(GUEST).parent().expect("a program lies in a directory").display();
    let sandboxed = run(Command::new(luminaguard)
        .args(["run", "--timeout", "60s", "--user", &user, "--mount", &format!("{directory}:/guest:ro")])
        .args(["--", "/guest/guest-checks", name]));
    let differences = differences(&natively.output, &sandboxed.output);
    let passed = sandboxed.status == Some(0) && differences.is_empty();
    let known = KNOWN_FAILURES.iter().find(|(known, _)| *known == name);
    match (passed, known) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some((_, reason))) => Err(format!("passes, but is a known failure: {reason}").into()),
        (false, None) => {
            Err(format!("in a sandbox: status {:?}\n{differences}{}", sandboxed.status, sandboxed.errors)
                .into())
        }
    }
}

/// The lines that are not the same, and those that are only on one side.
fn differences(natively: &str, sandboxed: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (natively.lines().collect(), sandboxed.lines().collect());
    let mut text = String::new();
    for n in 0..left.len().max(right.len()) {
        let (left, right) = (left.get(n).unwrap_or(&"(nothing)"), right.get(n).unwrap_or(&"(nothing)"));
        if left != right {
            text += &format!("natively:  {left}\nsandboxed: {right}\n");
        }
    }
    text
}
