//! The namespace of process numbers that a vmm and all its forks are in: [`Namespace`].

use std::os::fd::OwnedFd;

use crate::process::VmmProcess;

/// What holds such a namespace, see `crates/vmm/src/jail/pids.rs`. Dropping it ends every process in it, also one that
/// nobody here knows of; a thread reaps what is left.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// This process's end of the lifeline.
    lifeline: Option<OwnedFd>,
    /// The process that was started. Where there is no namespace it is the vmm itself.
    keeper: Option<VmmProcess>,
}

impl Namespace {
    pub(crate) fn new(keeper: VmmProcess, lifeline: OwnedFd) -> Self {
        Self { lifeline: Some(lifeline), keeper: Some(keeper) }
    }

    /// The process that was started.
    pub(crate) fn keeper(&mut self) -> Option<&mut VmmProcess> {
        self.keeper.as_mut()
    }

    /// The vmm itself, where it is the process that was started.
    pub(crate) fn into_vmm(mut self) -> Option<VmmProcess> {
        self.keeper.take()
    }

    /// Begins to end whatever is in the namespace.
    pub(crate) fn cut(&mut self) {
        self.lifeline = None;
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.cut();
        if let Some(keeper) = self.keeper.take() {
            keeper.reap_when_ended();
        }
    }
}
