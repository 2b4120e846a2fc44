//! What runs while a call fails: [`SCENARIOS`].

use std::path::Path;

use libtest_mimic::Failed;

use super::judge::{Run, judge};
use super::tracer::{self, Counts, Fault, Side, Trace};

const LUMINAGUARD: &str = env!("CARGO_BIN_EXE_luminaguard");

/// How many faults there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// One error at the first occurrence of calls.
    Some,
    /// Each error at the first, the middle and the last occurrence of each call.
    All,
}

/// In the middle of how many calls processes are killed.
const KILLS: usize = 6;

/// A program that starts sandboxes.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// The command; `{}` is a directory for it to use.
    command: &'static [&'static str],
    /// What the directory `granted` in there holds afterwards, if the command succeeds.
    granted: &'static [&'static str],
    pub starts: Starts,
    /// Of how many calls one fails where not all do.
    one_of: usize,
}

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// The command line, which is the vmm.
    CommandLine,
    /// A runtime with vmms.
    Runtime,
}

const fn runtime(name: &'static str, command: &'static [&'static str], one_of: usize) -> Scenario {
    Scenario { name, command, granted: &[], starts: Starts::Runtime, one_of }
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "run",
        command: &["run", "--", "sh", "-c", "set -e; echo hi; ls /usr > /tmp/list; wc -l < /tmp/list"],
        granted: &[],
        starts: Starts::CommandLine,
        one_of: 1,
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
        one_of: 4,
    },
    runtime("template", &["driver", "template"], 3),
    runtime("cgroup", &["driver", "cgroup"], 8),
    runtime("fork", &["driver", "fork"], 8),
    runtime("pool", &["driver", "pool"], 8),
];

impl Scenario {
    /// Counts the calls, then lets them fail one by one.
    pub fn fail_calls(&self, amount: Amount) -> Result<(), Failed> {
        let sound = self.sound()?;
        let counts = &sound.trace.counts;
        let unknown = counts.keys().filter(|(_, kind)| kind.row().is_none());
        let mut wrong: Vec<String> =
            unknown.map(|(_, kind)| format!("{kind} is not among the known calls")).collect();
        let mut faults = faults(counts, amount);
        if amount == Amount::Some {
            faults = faults.into_iter().step_by(self.one_of).collect();
        }
        wrong.extend(self.go_wrong(&faults, &sound, amount)?);
        println!("{}: {} calls failed, {} wrong", self.name, faults.len(), wrong.len());
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    /// Kills runtimes and vmms, each time another in the middle of another call.
    pub fn kill_in_calls(&self) -> Result<(), Failed> {
        let sound = self.sound()?;
        let sides =
            if self.starts == Starts::Runtime { vec![Side::First, Side::Other] } else { vec![Side::First] };
        let trace = &sound.trace;
        let faults = (0..KILLS).flat_map(|kill| {
            let call = move |side| kill * trace.calls(side) / KILLS + kill;
            sides.iter().map(move |&side| Fault::Killed { side, call: call(side) })
        });
        let wrong = self.go_wrong(&faults.collect::<Vec<_>>(), &sound, Amount::Some)?;
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    /// Kills a runtime or a vmm in the middle of a call, as a generator of random numbers says.
    pub fn kill_at_random(&self, random: &mut fastrand::Rng, sound: &Run) -> Result<Vec<String>, Failed> {
        let side = if self.starts == Starts::Runtime && random.bool() { Side::Other } else { Side::First };
        let call = random.usize(0..sound.trace.calls(side).max(1));
        self.go_wrong(&[Fault::Killed { side, call }], sound, Amount::All)
    }

    /// A run in which nothing goes wrong.
    pub fn sound(&self) -> Result<Run, Failed> {
        let sound = self.run(None)?;
        let wrong = judge(self, None, &sound, None);
        if wrong.is_empty() {
            return Ok(sound);
        }
        Err(format!("without any fault: {}\n{}", wrong.join("; "), sound.errors).into())
    }

    /// Runs once for each fault; answers a line for each run that went as none may, and prints one
    /// for each where all are wanted.
    fn go_wrong(&self, faults: &[Fault], sound: &Run, amount: Amount) -> Result<Vec<String>, Failed> {
        let mut wrong = Vec::new();
        for fault in faults {
            let run = self.run(Some(*fault))?;
            let found = judge(self, Some(*fault), &run, Some(sound));
            let line = told(*fault, &run, &found);
            if amount == Amount::All {
                println!("{}: {line}", self.name);
            }
            if !found.is_empty() {
                wrong.push(line);
            }
        }
        Ok(wrong)
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

/// The faults that there are to be after so many calls.
fn faults(counts: &Counts, amount: Amount) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (&(side, kind), &count) in counts {
        let errnos = kind.errnos().unwrap_or_default();
        let mut occurrences = vec![0, count / 2, count - 1];
        occurrences.dedup();
        match amount {
            Amount::Some => {
                faults.extend(errnos.first().map(|&errno| Fault::Fails { side, kind, occurrence: 0, errno }))
            }
            Amount::All => faults.extend(occurrences.into_iter().flat_map(|occurrence| {
                errnos.iter().map(move |&errno| Fault::Fails { side, kind, occurrence, errno })
            })),
        }
    }
    faults
}

/// A fault and what came of it, in a line.
fn told(fault: Fault, run: &Run, wrong: &[String]) -> String {
    let who = |side| if side == Side::First { "first" } else { "other" };
    let what = match fault {
        Fault::Fails { side, kind, occurrence, errno } => {
            format!("{} process, {kind} no. {occurrence}: {errno:?}", who(side))
        }
        Fault::Killed { side, call } => format!("{} process, call no. {call}: killed", who(side)),
    };
    let Trace { end, is_injected, .. } = &run.trace;
    let came = if *is_injected { "" } else { " (did not come)" };
    let errors = run.errors.trim_end().replace('\n', " | ");
    let wrong = if wrong.is_empty() { String::new() } else { format!(" WRONG: {}", wrong.join("; ")) };
    format!("{what}{came}: {end:?} {errors}{wrong}")
}
