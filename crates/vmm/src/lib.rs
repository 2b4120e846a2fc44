//! The host process of one micro-VM.
//!
//! [`run`] takes a [`SandboxSpec`] and three streams, builds the VM and the kernel, runs the program to its
//! end, takes everything down again and says how it went. It stays on the calling thread and starts no
//! other: the process can be forked at any time.
//!
//! ```text
//!   spec -> checks -> KVM platform -> kernel -> root file system -> first program
//!                                        |
//!            signals, control socket --> run loop --> Report
//! ```

mod build;
mod report;
mod supervisor;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use lg_control::{Event, Outcome, Report, SandboxSpec, Stats};
use lg_kernel::Supervisor;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use supervisor::HostEvents;

/// Where the program's standard input, output and error go.
pub type Streams = [OwnedFd; 3];

/// Runs a sandbox to its end, with the calling process's signals as its own: SIGINT, SIGQUIT, SIGHUP, SIGTERM and others
/// reach the program. With `control` it also obeys the socket, and ends when the other side closes it.
pub fn run(spec: &SandboxSpec, streams: Streams, control: Option<&UnixStream>) -> Report {
    let start = Instant::now();
    let mut stats = Stats::default();
    let outcome = match run_counted(spec, streams, control, start, &mut stats) {
        Ok(outcome) => outcome,
        Err(outcome) => outcome,
    };
    Report { outcome, stats }
}

fn run_counted(
    spec: &SandboxSpec,
    streams: Streams,
    control: Option<&UnixStream>,
    start: Instant,
    stats: &mut Stats,
) -> Result<Outcome, Outcome> {
    raise_descriptor_limit();
    let mut events = HostEvents::new(control).map_err(|error| Outcome::Failed(describe(&error)))?;
    let mut kernel = build::build(spec, streams, events.signals())?;
    stats.spawn_ns = nanoseconds(start);
    if let Some(control) = control {
        let ready = Event::Ready { spawn_ns: stats.spawn_ns };
        lg_control::send(control, &ready).map_err(|error| Outcome::Failed(describe(&error)))?;
    }
    let running = Instant::now();
    let end = kernel.run(&mut events as &mut dyn Supervisor);
    stats.wall_ns = nanoseconds(running);
    report::collect(&kernel, stats);
    let ending = Instant::now();
    drop(kernel);
    stats.cleanup_ns = nanoseconds(ending);
    match end {
        Ok(end) => Ok(report::outcome(end)),
        Err(error) => Err(Outcome::Failed(describe(&error))),
    }
}

/// Lets this process open as many files as it may: the views of host directories keep descriptors.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // A limit that can not be raised shows as EMFILE where it is reached.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Returns an error with its causes on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
