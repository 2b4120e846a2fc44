//! Attacks from a vmm that was taken over, each of which must be refused by the jail or the runtime.
//!
//! `vmm-attacks --list` prints the names with the scene of each, `vmm-attacks NAME` makes that attack in a running vmm and
//! says in one line how it was refused, or what it got. It needs root, and traces the vmm ([`captive`]). The test
//! `vmm_attacks` forks a sandbox for each attack, and looks at the others and at the host afterwards. What
//! is to be attacked is told by the environment:
//!
//! | variable | what |
//! |---|---|
//! | `VMM` | the process that is taken over, a fork of a template |
//! | `TEMPLATE`, `SIBLING`, `RUNTIME` | the template, another fork of it, and the process that started them |
//! | `ROOT` | a directory of the host: `secret` in it was not granted, `ro` and `rw` were in the scene `granted` |
//!
//! Exit status: 0 refused, 1 it got through, 2 an unknown name.

mod arguments;
mod captive;
mod control;
mod descriptors;
mod files;
mod memory;
mod numbers;
mod processes;
// What the jail allows. As a dependency it would bring the whole kernel with it.
#[path = "../../../../crates/vmm/src/jail/table.rs"]
#[allow(dead_code, reason = "only numbers and parts are looked at")]
mod table;
#[path = "../guest-attacks/verdict.rs"]
mod verdict;

use std::process::ExitCode;

use nix::sys::signal::Signal;

use captive::{Answer, Captive, End};
use verdict::tell;
pub use verdict::{Verdict, told};

/// Which sandbox is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// One that was granted nothing but the image.
    Plain,
    /// One with a directory to read and one to write.
    Granted,
    /// One where few processes have been, so that their numbers in a namespace are none of the host's.
    Quiet,
}

/// An attack: its name without the group, where it is made, and what it does.
pub struct Attack {
    name: String,
    scene: Scene,
    make: Box<dyn Fn(&Captive) -> Verdict>,
}

impl Attack {
    /// Describes an attack on a sandbox that was granted nothing.
    pub fn new(name: impl Into<String>, make: impl Fn(&Captive) -> Verdict + 'static) -> Attack {
        Attack { name: name.into(), scene: Scene::Plain, make: Box::new(make) }
    }

    /// Makes it somewhere else.
    #[must_use]
    pub fn on(self, scene: Scene) -> Attack {
        Attack { scene, ..self }
    }
}

/// The verdict on a call that must end the process.
pub fn must_die(answer: Answer) -> Verdict {
    match answer {
        Err(End::Signal(Signal::SIGSYS)) => Ok("SIGSYS".to_owned()),
        other => Err(format!("{other:?} where SIGSYS is right")),
    }
}

/// The verdict on a call that must fail or end the process.
pub fn must_fail(answer: Answer) -> Verdict {
    match answer {
        Err(End::Signal(Signal::SIGSYS)) => Ok("SIGSYS".to_owned()),
        Ok(errno @ -4095..0) => Ok(format!("{:?}", nix::errno::Errno::from_raw(-errno as i32))),
        other => Err(format!("answered {other:?}")),
    }
}

/// The verdict on many attempts, each in a fork of its own. It names how many there were, and each that got
/// through.
pub fn all_in_forks<T>(
    captive: &Captive,
    attempts: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
    make: impl Fn(&Captive, &T) -> Verdict,
) -> Verdict {
    let mut count = 0;
    let mut through = Vec::new();
    for attempt in attempts {
        count += 1;
        let fork = captive.fork().map_err(|error| error.to_string())?;
        if let Err(what) = make(&fork, &attempt) {
            through.push(format!("{}: {what}", name(&attempt)));
        }
        fork.end();
    }
    if through.is_empty() { Ok(format!("{count} attempts")) } else { Err(through.join("; ")) }
}

/// A process of the environment.
pub fn process(variable: &str) -> u64 {
    told(variable).parse().unwrap_or_else(|error| panic!("{variable}: {error}"))
}

fn attacks() -> impl Iterator<Item = (String, Attack)> {
    let groups = [
        ("number", numbers::attacks()),
        ("argument", arguments::attacks()),
        ("file", files::attacks()),
        ("process", processes::attacks()),
        ("memory", memory::attacks()),
        ("descriptor", descriptors::attacks()),
        ("control", control::attacks()),
    ];
    groups.into_iter().flat_map(|(group, attacks)| {
        attacks.into_iter().map(move |attack| (format!("{group}/{}", attack.name), attack))
    })
}

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    if word == "--list" {
        attacks().for_each(|(name, attack)| println!("{name} {:?}", attack.scene));
        return ExitCode::SUCCESS;
    }
    let Some((_, attack)) = attacks().find(|(name, _)| *name == word) else {
        eprintln!("vmm-attacks: no attack is named {word}");
        return ExitCode::from(2);
    };
    let captive = match Captive::take(process("VMM") as i32) {
        Ok(captive) => captive,
        Err(error) => {
            eprintln!("vmm-attacks: the vmm can not be taken over: {error}");
            return ExitCode::from(2);
        }
    };
    tell((attack.make)(&captive))
}
