//! Where this process holds a VM itself, and its standard streams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use lg_control::{Report, SandboxSpec};

/// Runs the sandbox in this process, with this process's standard streams and signals.
///
/// # Errors
/// When this process lacks one of the streams.
pub(crate) fn run_here(spec: &SandboxSpec) -> Result<Report> {
    Ok(lg_vmm::run(spec, streams()?))
}

/// A second descriptor of each standard stream of this process.
///
/// # Errors
/// When this process lacks one of them.
pub(crate) fn streams() -> Result<[OwnedFd; 3]> {
    Ok([stream(io::stdin())?, stream(io::stdout())?, stream(io::stderr())?])
}

/// A second descriptor of a standard stream, above the first three.
fn stream(stream: impl AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(stream, 3)
        .context("a standard stream is closed: open it, on /dev/null if need be")
}
