//! Makes many objects of one kind, so that what one costs the vmm can be measured from outside.
//!
//! `guest-costs --list` prints the kinds. `guest-costs KIND COUNT` makes so many, says `ready`, and ends when its standard
//! input does. `/files` is a directory of the host.

mod kinds;
#[path = "../guest-checks/sys.rs"]
#[allow(dead_code, reason = "the other programs use the rest")]
mod sys;

use std::io::{Read, Write};
use std::process::ExitCode;

use libc::*;

use sys::sys;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            kinds::KINDS.iter().for_each(|(name, _)| println!("{name}"));
            ExitCode::SUCCESS
        }
        [name, count] => {
            let kind = kinds::KINDS.iter().find(|(known, _)| *known == name);
            let (Some((_, make)), Ok(count)) = (kind, count.parse()) else { return usage() };
            raise_limits();
            make(count);
            println!("ready");
            std::io::stdout().flush().expect("standard output can be written");
            // What is read does not matter, only that it ends.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = sys::kill(0, SIGKILL);
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: guest-costs KIND COUNT");
    ExitCode::from(2)
}

fn raise_limits() {
    for resource in [RLIMIT_NOFILE, RLIMIT_SIGPENDING, RLIMIT_NPROC, RLIMIT_MEMLOCK] {
        let limit = rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        let _ = sys!(SYS_setrlimit, resource, &raw const limit);
    }
}
