//! Every number of a system call that the table does not have.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::captive::{Captive, End};
use crate::table::{ABSENT, Part, TABLE};
use crate::{Attack, Scene, Verdict, all_in_forks, must_die};

/// Beyond the last number that a host knows.
const NUMBERS: i64 = 620;
/// uretprobe(2) and uprobe(2), which the host's kernel lets through every filter: they work only from code that it has
/// placed itself, where a probe is.
const UNFILTERED: [i64; 2] = [335, 336];
/// Marks the numbers of the x32 interface.
const X32: i64 = 0x4000_0000;

/// All attacks of the group.
pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("not-in-the-table", |captive| not_in_the_table(captive, Scene::Plain)),
        Attack::new("not-in-the-table-with-a-writable-mount", |captive| {
            not_in_the_table(captive, Scene::Granted)
        })
        .on(Scene::Granted),
        Attack::new("x32", |captive| {
            let numbers = (0..NUMBERS).step_by(7).map(|number| number | X32);
            all_in_forks(captive, numbers, i64::to_string, |fork, number| must_die(fork.call(*number, &[])))
        }),
        Attack::new("out-of-range", |captive| {
            let numbers = [i64::from(i32::MAX), i64::from(i32::MIN), i64::from(u32::MAX), 1 << 20, 4096];
            all_in_forks(captive, numbers, i64::to_string, |fork, number| must_die(fork.call(*number, &[])))
        }),
        Attack::new("32-bit-entry", |captive| {
            // read, open, execve, getpid, kill, mmap2 and clone there. A host without that entry answers with SIGSEGV.
            let numbers = [3, 5, 11, 20, 37, 192, 120];
            all_in_forks(captive, numbers, i64::to_string, |fork, number| match fork.call_32(*number) {
                Err(end) => Ok(format!("{end:?}")),
                Ok(answer) => Err(format!("answered {answer}")),
            })
        }),
        Attack::new("absent", |captive| {
            let name = |absent: &&(&str, i64, &str)| absent.0.to_owned();
            all_in_forks(captive, ABSENT, name, |fork, absent| match fork.call(absent.1, &[]) {
                Ok(answer) if answer == -i64::from(libc::ENOSYS) => Ok("ENOSYS".to_owned()),
                other => Err(format!("{other:?}")),
            })
        }),
    ]
}

fn not_in_the_table(captive: &Captive, scene: Scene) -> Verdict {
    // A fork of a template is served.
    let is_there = |part| part != Part::WritableMounts || scene == Scene::Granted;
    let mut allowed: BTreeSet<i64> =
        TABLE.iter().filter(|row| is_there(row.part)).map(|row| row.number).collect();
    allowed.extend(ABSENT.iter().map(|absent| absent.1));
    let numbers = (0..NUMBERS).filter(|number| !allowed.contains(number));
    all_in_forks(captive, numbers, i64::to_string, |fork, number| match fork.call(*number, &[]) {
        Err(End::Signal(Signal::SIGILL)) | Ok(..0) if UNFILTERED.contains(number) => {
            Ok("no probe".to_owned())
        }
        answer => must_die(answer),
    })
}
