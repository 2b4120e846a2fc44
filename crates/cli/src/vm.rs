//! Where this binary becomes a vmm.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use lg_control::{Event, Report, SandboxSpec};

/// Runs the sandbox in this process, with this process's standard streams and signals.
///
/// # Errors
/// When this process lacks one of the streams.
pub(crate) fn run_here(spec: &SandboxSpec) -> Result<Report> {
    let streams = [stream(io::stdin())?, stream(io::stdout())?, stream(io::stderr())?];
    Ok(lg_vmm::run(spec, streams, None))
}

/// Serves one sandbox for the process that holds the other end of the control socket, which is descriptor 0.
pub(crate) fn serve() -> Result<u8> {
    let control = UnixStream::from(stream(io::stdin())?);
    let (spec, stdin) = lg_control::recv_start(&control)
        .context("`vmm` is started by LuminaGuard itself, with a control socket as standard input")?;
    let streams = [stdin, stream(io::stdout())?, stream(io::stderr())?];
    let report = lg_vmm::run(&spec, streams, Some(&control));
    lg_control::send(&control, &Event::Ended(Box::new(report))).context("cannot report the end")?;
    Ok(0)
}

/// A second descriptor of a standard stream, above the first three.
fn stream(stream: impl AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(stream, 3)
        .context("a standard stream is closed: open it, on /dev/null if need be")
}
