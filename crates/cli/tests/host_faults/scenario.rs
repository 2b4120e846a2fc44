//! What runs while a call fails: [`SCENARIOS`].

use std::path::Path;

use libtest_mimic::Failed;

use super::calls::Kind;
use super::judge::{Run, judge};
use super::tracer::{self, Counts, Fault, Side, Trace};

const LUMINAGUARD: &str = env!("CARGO_BIN_EXE_luminaguard");

/// How many faults there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// One error at the first occurrence of each call.
    Some,
    /// Each error at the first, the middle and the last occurrence.
    All,
}

/// A program that starts sandboxes.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// The command; `{}` is a directory for it to use.
    command: &'static [&'static str],
    /// What the directory `granted` in there holds afterwards, if the command succeeds.
    granted: &'static [&'static str],
    pub starts: Starts,
}

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// The command line, which is the vmm.
    CommandLine,
    /// A runtime with vmms.
    Runtime,
}

const fn runtime(name: &'static str, command: &'static [&'static str]) -> Scenario {
    Scenario { name, command, granted: &[], starts: Starts::Runtime }
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "run",
        command: &["run", "--", "sh", "-c", "set -e; echo hi; ls /usr > /tmp/list; wc -l < /tmp/list"],
        granted: &[],
        starts: Starts::CommandLine,
    },
    Scenario {
        name: "run with a mount",
        command: &[
            "run",
            "--mount",
            "{}/granted:/granted:rw",
            "--",
            "sh",
            "-c",
            "set -e; cd /granted; echo one > a; mv a b; cat b; mkdir d; ln -s b l; ln b h; chmod 600 h; rm l; rmdir d; \
             touch -d @0 b; sync b; ls > /tmp/list; cat /tmp/list",
        ],
        granted: &["b", "h"],
        starts: Starts::CommandLine,
    },
    runtime("template", &["driver", "template"]),
    runtime("fork", &["driver", "fork"]),
    runtime("pool", &["driver", "pool"]),
];

impl Scenario {
    /// Counts the calls, then lets them fail one by one.
    pub fn fail_each_call(&self, amount: Amount) -> Result<(), Failed> {
        let sound = self.run(None)?;
        let wrong = judge(self, None, &sound, None);
        if !wrong.is_empty() {
            return Err(format!("without any fault: {}\n{}", wrong.join("; "), sound.errors).into());
        }
        let mut wrong = Vec::new();
        for (kind, errnos) in kinds(&sound.trace.counts) {
            if errnos.is_none() {
                wrong.push(format!("{kind} is not among the known calls"));
            }
        }
        let faults = faults(&sound.trace.counts, amount);
        for fault in &faults {
            let run = self.run(Some(*fault))?;
            let found = judge(self, Some(*fault), &run, Some(&sound));
            if amount == Amount::All {
                println!("{}", told(*fault, &run, &found));
            }
            if !found.is_empty() {
                wrong.push(told(*fault, &run, &found));
            }
        }
        println!("{}: {} faults, {} wrong", self.name, faults.len(), wrong.len());
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    fn run(&self, fault: Option<Fault>) -> Result<Run, Failed> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("granted"))?;
        let trace = tracer::run(&self.words(directory.path())?, directory.path(), self.starts, fault)?;
        Ok(Run::new(trace, directory.path())?)
    }

    fn words(&self, directory: &Path) -> Result<Vec<String>, Failed> {
        let program = match self.starts {
            Starts::CommandLine => LUMINAGUARD.to_owned(),
            Starts::Runtime => std::env::current_exe()?.display().to_string(),
        };
        let directory = directory.display().to_string();
        let words = self.command.iter().map(|word| word.replace("{}", &directory));
        Ok(std::iter::once(program).chain(words).collect())
    }

    /// What is in the granted directory after a success.
    pub fn granted(&self) -> Vec<String> {
        self.granted.iter().map(|name| (*name).to_owned()).collect()
    }
}

fn kinds(counts: &Counts) -> impl Iterator<Item = (Kind, Option<&'static [nix::errno::Errno]>)> {
    counts.keys().map(|(_, kind)| (*kind, kind.errnos()))
}

/// The faults that there are to be after so many calls.
fn faults(counts: &Counts, amount: Amount) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (&(side, kind), &count) in counts {
        let errnos = kind.errnos().unwrap_or_default();
        let mut occurrences = vec![0, count / 2, count - 1];
        occurrences.dedup();
        match amount {
            Amount::Some => {
                faults.extend(errnos.first().map(|&errno| Fault { side, kind, occurrence: 0, errno }))
            }
            Amount::All => faults.extend(occurrences.into_iter().flat_map(|occurrence| {
                errnos.iter().map(move |&errno| Fault { side, kind, occurrence, errno })
            })),
        }
    }
    faults
}

/// A fault and what came of it, in a line.
fn told(fault: Fault, run: &Run, wrong: &[String]) -> String {
    let Fault { side, kind, occurrence, errno } = fault;
    let who = if side == Side::First { "first" } else { "other" };
    let Trace { end, is_injected, .. } = &run.trace;
    let came = if *is_injected { "" } else { " (did not come)" };
    let errors = run.errors.trim_end().replace('\n', " | ");
    let wrong = if wrong.is_empty() { String::new() } else { format!(" WRONG: {}", wrong.join("; ")) };
    format!("{who} {kind} #{occurrence} {errno}{came}: {end:?} {errors}{wrong}")
}
