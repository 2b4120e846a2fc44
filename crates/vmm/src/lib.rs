//! The host process of one micro-VM.
//!
//! [`run`] holds a sandbox in the calling process: its program has the process's streams and signals. [`serve`] makes the
//! process the vmm of a sandbox that somebody else owns, who talks to it over a control socket. Both build
//! the VM and the kernel, run guest code to its end, and say how it went. They stay on the calling thread and
//! start no other: the process can be forked at any time, which is how a sandbox is forked.
//!
//! ```text
//!   spec -> checks -> KVM platform -> kernel -> root file system -> first program, or none
//!                                        |
//!   server (requests, streams, forks) <-> run loop --> Report
//! ```

mod build;
mod host;
pub mod jail;
mod report;
mod server;
mod streams;
mod supervisor;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use lg_control::{
    Event, FrameError, Inbox, Outcome, Report, Runs, SandboxSpec, StartFailureKind, Stats, Wall,
};
use lg_kernel::Kernel;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::FileType;

use jail::Role;
pub use server::ServerError;
use server::{INPUT_SIGNAL, Server};
use supervisor::HostEvents;

/// Where the program's standard input, output and error go.
pub type Streams = [OwnedFd; 3];

/// Runs a sandbox to its end, with the calling process's signals as its own: SIGINT, SIGQUIT, SIGHUP, SIGTERM and others
/// reach the program.
pub fn run(spec: &SandboxSpec, streams: Streams) -> Report {
    let mut stats = Stats::default();
    let outcome = run_counted(spec, streams, &mut stats).unwrap_or_else(|outcome| outcome);
    Report { outcome, stats }
}

fn run_counted(spec: &SandboxSpec, streams: Streams, stats: &mut Stats) -> Result<Outcome, Outcome> {
    let start = Instant::now();
    raise_descriptor_limit();
    let mut events = HostEvents::new().map_err(|error| Outcome::Failed(describe(&error)))?;
    let (mut kernel, walls) = build::build(spec, events.signals(), Role::Alone)?;
    stats.walls = walls;
    build::start(&mut kernel, spec, streams)?;
    stats.spawn_ns = nanoseconds(start);
    let running = Instant::now();
    let end = kernel.run(&mut events);
    stats.wall_ns = nanoseconds(running);
    report::collect(&kernel, stats);
    let ending = Instant::now();
    drop(kernel);
    stats.cleanup_ns = nanoseconds(ending);
    Ok(end.map_or_else(|error| Outcome::Failed(describe(&error)), report::outcome))
}

/// Why a process could not become a vmm.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The first message did not come, or was no start.
    #[error("`vmm` is started by LuminaGuard itself, with a control socket as standard input")]
    Start(#[source] FrameError),
    /// Standard input or output can not be used.
    #[error("cannot take the control socket from standard input, and the lifeline from standard output")]
    Stdin(#[source] std::io::Error),
    /// The connection can not be served.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Serves a sandbox for the process that holds the other end of the control socket, until it is over; then ends this
/// process. So do the forks of the sandbox, each with its own end told on its own socket.
///
/// The other end of the lifeline, a pipe, must be closed when the sandbox and all its forks are to be over: they are in a
/// namespace of process numbers, which ends then. Without a lifeline there is no such namespace.
pub fn serve(control: UnixStream, lifeline: Option<OwnedFd>) -> Result<(), ServeError> {
    let start = Instant::now();
    // A name to find it by; without one it is only harder to find.
    let _ = rustix::thread::set_name(c"lg-vmm");
    raise_descriptor_limit();
    let mut inbox = Inbox::default();
    let (spec, descriptors) = match lg_control::recv_start(&control, &mut inbox) {
        Ok(start) => start,
        // Whoever started this process is gone, and with it the sandbox.
        Err(FrameError::Closed) => return Ok(()),
        Err(error) => {
            let report = Report {
                outcome: Outcome::start_failed(StartFailureKind::Spec, describe(&error)),
                stats: Stats::default(),
            };
            // Nobody may be there to be told.
            let _ = lg_control::send(&control, &Event::Ended(Box::new(report)));
            return Err(ServeError::Start(error));
        }
    };
    let input_signal = match server::input_signal(&control) {
        Ok(signal) => signal,
        Err(error) => {
            give_up(control.as_fd(), &error);
            return Err(error.into());
        }
    };
    let mut server = Server::new(control, inbox, input_signal);
    match start_served(&spec, descriptors, lifeline) {
        Ok((mut kernel, walls)) => {
            let outcome = match server.jailed(walls) {
                Ok(()) => {
                    server.ready(nanoseconds(start));
                    let end = kernel.run(&mut server);
                    end.map_or_else(|error| Outcome::Failed(describe(&error)), report::outcome)
                }
                Err(error) => Outcome::Failed(describe(&error)),
            };
            server.finish(Some(&mut kernel), outcome);
            std::mem::forget(kernel);
        }
        Err(outcome) => server.finish(None, outcome),
    }
    // The end of the process gives back everything at once, where drops would do so piece by piece.
    host::leave()
}

/// Serves a sandbox as [`serve`] does, with the control socket as standard input and the lifeline as standard output: what
/// a program does that is started as a vmm. Standard output that is no pipe is no
/// lifeline. Of other descriptors only standard error stays open.
///
/// # Errors
/// See [`ServeError`].
pub fn serve_stdin() -> Result<(), ServeError> {
    let take_descriptors = || -> std::io::Result<(OwnedFd, Option<OwnedFd>)> {
        // Whatever whoever started this process has let slip.
        host::close_between(3, RawFd::MAX)?;
        let control = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(std::io::stdout())?.st_mode);
        let lifeline = (kind == FileType::Fifo)
            .then(|| rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3))
            .transpose()?;
        // A fork has another socket: this one must close with the process that it belongs to.
        let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        rustix::stdio::dup2_stdout(&nothing)?;
        Ok((control, lifeline))
    };
    match take_descriptors() {
        Ok((control, lifeline)) => serve(control.into(), lifeline),
        Err(error) => {
            let error = ServeError::Stdin(error);
            give_up(std::io::stdin().as_fd(), &error);
            Err(error)
        }
    }
}

/// Tells whoever holds the other end of the control socket why this process does not become a vmm.
fn give_up(control: BorrowedFd<'_>, error: &(dyn std::error::Error + 'static)) {
    let outcome = match build::lacking(error) {
        Some(kind) => Outcome::start_failed(kind, describe(error)),
        None => Outcome::Failed(describe(error)),
    };
    let report = Report { outcome, stats: Stats::default() };
    if let Ok(bytes) = lg_control::encode(&Event::Ended(Box::new(report))) {
        // Nobody may be there to be told.
        let _ = lg_control::send_with_descriptors(control, &bytes, &[]);
    }
}

fn start_served(
    spec: &SandboxSpec,
    descriptors: Vec<OwnedFd>,
    lifeline: Option<OwnedFd>,
) -> Result<(Kernel, Vec<Wall>), Outcome> {
    let (mut kernel, walls) = build::build(spec, vec![INPUT_SIGNAL], Role::Served(lifeline))?;
    if spec.runs() == Runs::Program {
        let streams: Streams = descriptors
            .try_into()
            .map_err(|_| Outcome::Failed("the program's three streams did not come along".to_owned()))?;
        build::start(&mut kernel, spec, streams)?;
    }
    Ok((kernel, walls))
}

/// Lets this process open as many files as it may: the views of host directories keep descriptors.
fn raise_descriptor_limit() {
    // A limit that can not be raised shows as EMFILE where it is reached.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, maximum)| setrlimit(Resource::RLIMIT_NOFILE, maximum, maximum));
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
