//! Whether a run went as one may in which a call of the host failed.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::scenario::{Scenario, Starts};
use super::tracer::{End, Fault, Side, Trace};

/// The exit status of the command line where LuminaGuard failed, not the program.
const EXIT_LUMINAGUARD: i32 = 125;
/// The exit status of a shell whose program ended with SIGBUS.
const SHELL_BUS_ERROR: i32 = 128 + Signal::SIGBUS as i32;
/// What is told of an interpreter that found an error before it could tell of it.
const GUEST_GAVE_UP: &str = "the interpreter ended: exit status 1";
/// What only a bug says.
const PANICS: [&str; 5] =
    ["panicked", "internal error", "RUST_BACKTRACE", "fatal runtime error", "memory allocation of"];

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub trace: Trace,
    pub output: String,
    pub errors: String,
    /// The names in the granted directory.
    granted: Vec<String>,
    /// Files that were left in the directory for temporary ones.
    temporary: Vec<String>,
}

impl Run {
    /// Looks at what a run left in its directory.
    pub fn new(trace: Trace, directory: &Path) -> std::io::Result<Self> {
        let text = |name: &str| {
            std::fs::read(directory.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self {
            trace,
            output: text("out")?,
            errors: text("err")?,
            granted: names(&directory.join("granted"))?,
            temporary: names(&directory.join("tmp"))?,
        })
    }
}

fn names(directory: &Path) -> std::io::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// What is wrong with a run; `sound` is one without a fault.
pub fn judge(scenario: &Scenario, fault: Option<Fault>, run: &Run, sound: Option<&Run>) -> Vec<String> {
    let mut wrong = run.trace.wrong.clone();
    wrong.extend(
        PANICS.iter().filter(|text| run.errors.contains(**text)).map(|text| format!("it says \"{text}\"")),
    );
    if !run.temporary.is_empty() {
        wrong.push(format!("temporary files are left: {:?}", run.temporary));
    }
    let is_named = |line: &str| match fault {
        None => false,
        Some(Fault::Fails { errno, .. }) => names_error(line, errno),
        // A vmm that is killed says nothing; its runtime says what became of it.
        Some(Fault::Killed { .. }) => line.starts_with("error: "),
    };
    if let (Some(Fault::Killed { side: Side::First, .. }), End::Signaled(Signal::SIGKILL)) =
        (fault, run.trace.end)
    {
        return wrong;
    }
    match run.trace.end {
        End::Exited(0) => {
            if sound.is_some_and(|sound| sound.output != run.output) {
                wrong.push(format!("success with a wrong output: {:?}", run.output));
            }
            if scenario.granted() != run.granted {
                wrong.push(format!("success with wrong files: {:?}", run.granted));
            }
            let unnamed = run.errors.lines().filter(|line| !line.trim().is_empty() && !is_named(line));
            wrong.extend(unnamed.map(|line| format!("not named in {line:?}")));
        }
        End::Exited(EXIT_LUMINAGUARD) if scenario.starts == Starts::CommandLine => {
            let lines: Vec<&str> = run.errors.lines().collect();
            match lines[..] {
                [line] if line.starts_with("luminaguard: ") && is_named(line) => {}
                _ => wrong.push("not one line of an error that names what failed".to_owned()),
            }
        }
        // A program of the guest found the error, and says so; or its shell does in its status.
        End::Exited(1..=100) if scenario.starts == Starts::CommandLine && !run.errors.is_empty() => {}
        End::Exited(SHELL_BUS_ERROR) if scenario.starts == Starts::CommandLine => {}
        end => wrong.push(format!("{end:?}")),
    }
    wrong
}

/// Whether a line tells the error, with its name or its text.
fn names_error(line: &str, errno: Errno) -> bool {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    // The last is what the dynamic linker says.
    let told = [text.to_owned(), format!("{errno:?}"), format!("Error {}", errno as i32)];
    told.iter().any(|told| line.contains(told)) || is_bus_error(line) || line.contains(GUEST_GAVE_UP)
}

/// Whether a program of the guest could not read what is mapped, which it gets as SIGBUS (mmap(2)).
fn is_bus_error(line: &str) -> bool {
    line.contains("Bus error") || line.contains(&format!("signal {}", Signal::SIGBUS as i32))
}
