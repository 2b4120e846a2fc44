//! Attacks on a sandbox from inside, each of which must be refused.
//!
//! `guest-attacks --list` prints the names, `guest-attacks NAME` makes that attack as the first program of a sandbox
//! and says in one line how it was refused, or what it got. The test `attacks` starts a sandbox for each, and looks at
//! the host side afterwards. What the host side prepared is told by the environment:
//!
//! | variable | what |
//! |---|---|
//! | `SECRET_PATH` | a file of the host that was not granted, and that holds the secret |
//! | `LISTENER_PORT`, `LISTENER_NAME` | where a process of the host listens: TCP, and an abstract UNIX socket |
//!
//! `/rw` and `/ro` are directories of the host, the one granted for writing.
//!
//! Exit status: 0 refused, 1 it got through, 2 an unknown name.

mod calls;
mod exhaustion;
mod files;
mod host;
mod instructions;
mod memory;
mod races;
mod storms;
#[path = "../guest-checks/sys.rs"]
#[allow(dead_code, reason = "the other program uses the rest")]
mod sys;
mod verdict;

use std::process::ExitCode;

use sys::{Answer, Errno};
use verdict::tell;
pub use verdict::{Verdict, told};

/// An attack: its name without the group, and what it does.
pub struct Attack {
    name: String,
    make: Box<dyn Fn() -> Verdict>,
}

impl Attack {
    /// Describes an attack.
    pub fn new(name: impl Into<String>, make: impl Fn() -> Verdict + 'static) -> Attack {
        Attack { name: name.into(), make: Box::new(make) }
    }
}

/// The verdict on a system call that must fail, whatever the error.
pub fn must_fail(answer: Answer) -> Verdict {
    match answer {
        Ok(value) => Err(format!("answered {value}")),
        Err(errno) => Ok(format!("{errno:?}")),
    }
}

/// The verdict on a system call that must fail with one of these errors.
pub fn must_fail_with(answer: Answer, allowed: &[Errno]) -> Verdict {
    match answer {
        Err(errno) if allowed.contains(&errno) => Ok(format!("{errno:?}")),
        other => Err(format!("{other:?} where {allowed:?} is right")),
    }
}

/// The verdict on a child that must die of a fault of its own.
pub fn must_die(body: impl FnOnce()) -> Verdict {
    let end = sys::ends(|| {
        body();
        0
    });
    if end.starts_with("killed by") { Ok(end) } else { Err(end) }
}

/// The verdict once an attack is over that may have taken all there is: others can go on.
pub fn must_go_on(how: String) -> Verdict {
    let works = || {
        let end = sys::ends(|| {
            let bytes = vec![7u8; 1 << 20];
            let file = format!("/tmp/after-{}", sys::pid());
            let written = std::fs::write(&file, &bytes).is_ok() && std::fs::remove_file(&file).is_ok();
            i32::from(!written)
        });
        end == "exited 0"
    };
    if sys::eventually(works) { Ok(how) } else { Err(format!("{how}, and nothing works after it")) }
}

fn attacks() -> impl Iterator<Item = (String, Attack)> {
    let groups = [
        ("instruction", instructions::attacks()),
        ("memory", memory::attacks()),
        ("call", calls::attacks()),
        ("file", files::attacks()),
        ("race", races::attacks()),
        ("host", host::attacks()),
        ("exhaustion", exhaustion::attacks()),
        ("storm", storms::attacks()),
    ];
    groups.into_iter().flat_map(|(group, attacks)| {
        attacks.into_iter().map(move |attack| (format!("{group}/{}", attack.name), attack))
    })
}

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    if word == "--list" {
        attacks().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let Some((_, attack)) = attacks().find(|(name, _)| *name == word) else {
        eprintln!("guest-attacks: no attack is named {word}");
        return ExitCode::from(2);
    };
    tell((attack.make)())
}
