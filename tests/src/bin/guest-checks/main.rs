//! Many small programs in one: each *check* makes system calls and prints what it saw.
//!
//! `guest-checks NAME...` runs the checks of these names, `guest-checks --list` prints all names, and
//! `guest-checks --bad-input` the system calls that get bad input or are left out. The test `differential` runs
//! each check natively and in a sandbox: both must succeed and print the same. So a check prints only what must
//! not differ, and never a time, an address or a process number.
//!
//! ```text
//! open_flags/missing: Err(ENOENT)
//! ```
//!
//! Exit status: 0 if every check held what it promised, 1 if not, 2 for an unknown name.

mod areas;
mod bad_input;
mod capabilities;
mod cpu;
mod descriptors;
mod events;
mod exec;
mod extents;
mod faults;
mod files;
mod identity;
mod inotify;
mod interfaces;
mod job_control;
mod locks;
mod lonely;
mod memory;
mod mqueue;
mod names;
mod netlink;
mod packets;
mod pidfds;
mod pipes;
mod places;
mod posix_timers;
mod proc_files;
mod process;
mod procfs;
mod residence;
mod rseq;
mod scheduling;
mod settings;
mod signalfds;
mod signals;
mod sockets;
mod sys;
mod sysv;
mod terminals;
mod threads;
mod time;
mod transfers;
mod xattr;

use std::fmt::Debug;
use std::process::ExitCode;

/// What a check has seen so far.
pub struct Report {
    name: &'static str,
    failed: bool,
}

impl Report {
    /// Says whether something did not hold.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Prints a value that must be the same natively and in a sandbox.
    pub fn see(&mut self, what: impl std::fmt::Display, value: impl Debug) {
        println!("{}/{what}: {value:?}", self.name);
    }

    /// Prints whether something holds that must hold everywhere.
    pub fn ensure(&mut self, what: impl std::fmt::Display, holds: bool) {
        println!("{}/{what}: {}", self.name, if holds { "holds" } else { "FAILS" });
        self.failed |= !holds;
    }
}

/// A name and what to do.
pub type Check = (&'static str, fn(&mut Report));

const GROUPS: &[&[Check]] = &[
    files::CHECKS,
    locks::CHECKS,
    names::CHECKS,
    places::CHECKS,
    extents::CHECKS,
    transfers::CHECKS,
    descriptors::CHECKS,
    pipes::CHECKS,
    pidfds::CHECKS,
    process::CHECKS,
    exec::CHECKS,
    faults::CHECKS,
    settings::CHECKS,
    capabilities::CHECKS,
    signals::CHECKS,
    signalfds::CHECKS,
    sockets::CHECKS,
    packets::CHECKS,
    netlink::CHECKS,
    interfaces::CHECKS,
    memory::CHECKS,
    areas::CHECKS,
    threads::CHECKS,
    scheduling::CHECKS,
    time::CHECKS,
    posix_timers::CHECKS,
    events::CHECKS,
    rseq::CHECKS,
    inotify::CHECKS,
    identity::CHECKS,
    cpu::CHECKS,
    xattr::CHECKS,
    procfs::CHECKS,
    proc_files::CHECKS,
    sysv::CHECKS,
    mqueue::CHECKS,
    residence::CHECKS,
    terminals::CHECKS,
    job_control::CHECKS,
    bad_input::CHECKS,
];

fn checks() -> impl Iterator<Item = &'static Check> {
    GROUPS.iter().copied().flatten()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--list") {
        checks().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if words.first().is_some_and(|word| word == "--bad-input") {
        bad_input::print_calls();
        return ExitCode::SUCCESS;
    }
    // Roles that the program plays when a check executes it again.
    if words.first().is_some_and(|word| word == "--role") {
        return exec::play(&words[1..]);
    }
    let mut failed = false;
    for word in &words {
        let Some((name, check)) = checks().find(|(name, _)| name == word) else {
            eprintln!("guest-checks: no check is named {word}");
            return ExitCode::from(2);
        };
        sys::start_afresh();
        let directory = sys::enter_new_directory(name);
        let mut report = Report { name, failed: false };
        check(&mut report);
        failed |= report.failed;
        let _ = std::env::set_current_dir("/");
        let _ = std::fs::remove_dir_all(directory);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
