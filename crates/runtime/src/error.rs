//! What can go wrong: [`SpawnError`], [`CallError`], [`WaitError`].

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;

use lg_control::{Fault, FaultKind, FrameError, SpecError, StartFailure};

/// Why a sandbox did not start. Nothing of it is left when this is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The spec, or the limits of a fork, break a rule.
    #[error("the sandbox cannot be as asked")]
    Spec(#[from] SpecError),
    /// The vmm process could not be started.
    #[error("cannot start the vmm process")]
    Launch(#[source] io::Error),
    /// The vmm could not be talked to.
    #[error("cannot talk to the vmm")]
    Control(#[source] Arc<FrameError>),
    /// The sandbox or template that was to be forked is over.
    #[error("the original is over and cannot be forked")]
    OriginalEnded,
    /// The vmm says why it did not start.
    #[error("{}", .0.message)]
    Start(StartFailure),
    /// The sandbox failed before its first instruction.
    #[error("{0}")]
    Failed(String),
    /// The vmm ended without a word.
    #[error("the vmm ended before the sandbox was ready ({0})")]
    VmmDied(ExitStatus),
    /// A fork ended without a word.
    #[error("the fork ended before it was ready")]
    ForkDied,
}

/// Why a call to a running sandbox failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The sandbox is over.
    #[error("the sandbox is over")]
    Ended,
    /// The sandbox is over, since the host failed it.
    #[error("the sandbox is over: {0}")]
    Failed(String),
    /// The call can not be sent.
    #[error("cannot talk to the vmm")]
    Message(#[source] FrameError),
    /// The sandbox refuses.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// The vmm answered something else than was asked for.
    #[error("the vmm answered something else than was asked for")]
    Answer,
}

impl CallError {
    /// Whether the sandbox is over.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Ended | Self::Failed(_))
    }

    /// The errno of Linux with which the guest's kernel refused, if it was that.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(Fault { kind: FaultKind::Errno(errno), .. }) => Some(*errno),
            _ => None,
        }
    }
}

/// Why the end of a sandbox is not known. Nothing of it is left when this is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The vmm could not be understood.
    #[error("cannot talk to the vmm")]
    Control(#[source] Arc<FrameError>),
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
