//! Where this binary becomes a vmm.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use lg_control::{Report, SandboxSpec};

/// Runs the sandbox in this process, with this process's standard streams and signals.
///
/// # Errors
/// When this process lacks one of the streams.
pub(crate) fn run_here(spec: &SandboxSpec) -> Result<Report> {
    let streams = [stream(io::stdin())?, stream(io::stdout())?, stream(io::stderr())?];
    Ok(lg_vmm::run(spec, streams))
}

/// Serves one sandbox for the process that holds the other end of the control socket, which is descriptor 0.
pub(crate) fn serve() -> Result<u8> {
    let control = UnixStream::from(stream(io::stdin())?);
    // A fork has another socket: this one must close with the process that it belongs to.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null").context("cannot open /dev/null")?)
        .context("cannot give up descriptor 0")?;
    match lg_vmm::serve(control)? {}
}

/// A second descriptor of a standard stream, above the first three.
fn stream(stream: impl AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(stream, 3)
        .context("a standard stream is closed: open it, on /dev/null if need be")
}
