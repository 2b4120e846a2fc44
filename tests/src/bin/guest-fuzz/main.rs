//! Random system calls from inside a sandbox.
//!
//! `guest-fuzz SEED MILLISECONDS` starts workers for that long, a few at a time; each makes the calls that its seed
//! decides. Then it kills what is left, removes what they made, and starts `guest-fuzz --works`, which must work as in a
//! new sandbox. `cargo xtask fuzz guest` starts it in one sandbox after another, and looks at the host meanwhile.
//!
//! `/rw` and `/ro` are directories of the host, the one granted for writing. The program lies in `/guest`.
//!
//! The last line is `still works after N workers`. Exit status: 0 for that, 1 if not, 2 for wrong arguments.

mod calls;
mod random;
#[path = "../guest-checks/sys.rs"]
#[allow(dead_code, reason = "the other programs use the rest")]
mod sys;
mod worker;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use libc::*;

use calls::World;
use random::Random;
use sys::{Errno, c, sys};

/// The longest that workers have before they are killed.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--works"] => works(),
        [seed, time] => match (seed.parse(), time.parse()) {
            (Ok(seed), Ok(time)) => fuzz(seed, Duration::from_millis(time)),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: guest-fuzz SEED MILLISECONDS");
    ExitCode::from(2)
}

fn fuzz(seed: u64, time: Duration) -> ExitCode {
    let mut random = Random::new(seed);
    let world = World::new();
    let start = Instant::now();
    let mut workers = 0;
    while start.elapsed() < time {
        let count = 1 + random.below(4);
        for _ in 0..count {
            let seed = random.word();
            sys::child(|| worker::run(seed, &world));
        }
        workers += count;
        if !end_all() {
            println!("a process can not be killed after {workers} workers");
            return ExitCode::FAILURE;
        }
    }
    clear();
    let end = sys::ends(|| {
        let program = c"/guest/guest-fuzz";
        let words = [program.as_ptr() as usize, c"--works".as_ptr() as usize, 0];
        let refused = sys!(SYS_execve, program.as_ptr(), words.as_ptr(), 0);
        refused.map_or_else(|errno| errno as i32, |_| 0)
    });
    if end != "exited 0" {
        println!("{end} after {workers} workers");
        return ExitCode::FAILURE;
    }
    println!("still works after {workers} workers");
    ExitCode::SUCCESS
}

/// Waits until all workers have ended, and kills them when they take too long. Says whether none is left.
fn end_all() -> bool {
    let start = Instant::now();
    loop {
        match sys!(SYS_wait4, -1i64, 0, WNOHANG | __WALL, 0) {
            Err(Errno::ECHILD) => break,
            Ok(0) | Err(_) if start.elapsed() > PATIENCE => break,
            Ok(0) | Err(_) => sys::sleep_ms(2),
            Ok(_) => {}
        }
    }
    // What workers left behind is nobody's child here; it is gone when nothing more can be killed.
    sys::eventually(|| {
        let none = sys::kill(-1, SIGKILL) == Err(Errno::ESRCH);
        while matches!(sys!(SYS_wait4, -1i64, 0, WNOHANG | __WALL, 0), Ok(1..)) {}
        none
    })
}

/// Removes what workers have made that takes memory.
fn clear() {
    let mut empty = |directory: &str| {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir_all(entry.path());
            let _ = std::fs::remove_file(entry.path());
        }
    };
    ["/tmp", "/dev/shm"].into_iter().for_each(&mut empty);
    // Another file may have its name by now.
    if !std::path::Path::new("/tmp").is_dir() {
        let _ = std::fs::remove_file("/tmp");
        let _ = std::fs::create_dir("/tmp");
    }
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    for line in segments.lines().skip(1) {
        let id = line.split_whitespace().nth(1).and_then(|id| id.parse::<usize>().ok());
        let _ = sys!(SYS_shmctl, id.unwrap_or(usize::MAX), IPC_RMID, 0);
    }
}

/// Does a little of everything. Exit status: 0 if it works.
fn works() -> ExitCode {
    let memory = vec![7u8; 1 << 20];
    let file = "/tmp/after";
    let wrote = std::fs::write(file, &memory).is_ok();
    let same = std::fs::read(file).is_ok_and(|bytes| bytes == memory);
    let (read, write) = sys::pipe(0);
    let sent =
        sys::write(write, b"through") == Ok(7) && sys::read(read, 7).is_ok_and(|text| text == "through");
    let forked = sys::ends(|| 42) == "exited 42";
    let threaded = std::thread::Builder::new().spawn(|| 6 * 7).is_ok_and(|thread| thread.join().is_ok());
    let listed = sys::text("/proc/self/stat").is_ok_and(|text| text.contains("guest-fuzz"));
    let _ = sys!(SYS_unlink, c(file).as_ptr());
    if wrote && same && sent && forked && threaded && listed {
        return ExitCode::SUCCESS;
    }
    println!("works: {:?}", (wrote, same, sent, forked, threaded, listed));
    ExitCode::FAILURE
}
