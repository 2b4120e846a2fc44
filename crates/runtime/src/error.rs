//! What can go wrong: [`SpawnError`] and [`WaitError`].

use std::io;
use std::process::ExitStatus;

use lg_control::{FrameError, SpecError, StartFailure};

/// Why a sandbox did not start. Nothing of it is left when this is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The spec breaks a rule.
    #[error("the sandbox cannot be as asked")]
    Spec(#[from] SpecError),
    /// The vmm process could not be started.
    #[error("cannot start the vmm process")]
    Launch(#[source] io::Error),
    /// The vmm could not be talked to.
    #[error("cannot talk to the vmm")]
    Control(#[from] FrameError),
    /// The vmm says why it did not start.
    #[error("{}", .0.message)]
    Start(StartFailure),
    /// The sandbox failed before its first instruction.
    #[error("{0}")]
    Failed(String),
    /// The vmm ended without a word.
    #[error("the vmm ended before the sandbox was ready ({0})")]
    VmmDied(ExitStatus),
}

/// Why the end of a sandbox is not known. Nothing of it is left when this is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The vmm could not be understood.
    #[error("cannot talk to the vmm")]
    Control(#[from] FrameError),
    /// The vmm ended without a report.
    #[error("the vmm ended without a report ({0})")]
    VmmDied(ExitStatus),
    /// The process could not be waited for.
    #[error("cannot wait for the vmm process")]
    Wait(#[source] io::Error),
    /// A stream of the guest could not be read.
    #[error("cannot read the output of the guest")]
    Output(#[source] io::Error),
}
