//! A namespace of process numbers for a vmm that is served, and for all its forks.
//!
//! Who makes such a namespace is not in it, and whoever is first in it must not fork siblings. So three processes come of
//! one:
//!
//! ```text
//!   runtime ---- keeper        the process that was started; it waits for init and does nothing else
//!      |            |
//!      |           init        process 1 of the namespace: reads the lifeline until its end, then ends
//!      |                         - - - - - - - - - - - - - - - - - - - - - - the namespace
//!      +---- vmm (process 2), and its forks: siblings, so all of them are the runtime's children
//! ```
//!
//! The lifeline is a pipe whose other end the runtime alone has, for as long as it wants any of them. With init the host's
//! kernel ends whatever is in the namespace, also a fork that nobody knows of, and what is left of it when the
//! runtime dies. A vmm can neither name nor signal a process outside of it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::privileges;
use crate::host::{self, Side};

/// Goes on in a process of the namespace that this one has made for its children. In the others this does not return.
///
/// # Errors
/// When a process can not be forked.
pub fn enter(lifeline: OwnedFd) -> io::Result<()> {
    match host::fork_child()? {
        None => watch(&lifeline),
        Some(init) => match host::fork_sibling() {
            Ok(Side::Fork) => Ok(()),
            Ok(Side::Original) => keep(init),
            Err(error) => {
                // It is a child that nobody has waited for.
                let _ = kill_process(init, Signal::KILL);
                let _ = waitpid(Some(init), WaitOptions::empty());
                Err(error)
            }
        },
    }
}

/// The keeper: ends when all of the namespace has ended.
fn keep(init: Pid) -> ! {
    let _ = rustix::thread::set_name(c"lg-keeper");
    withdraw(None);
    while matches!(waitpid(Some(init), WaitOptions::empty()), Err(Errno::INTR)) {}
    host::leave()
}

/// Init: ends when nobody holds the other end of the lifeline.
fn watch(lifeline: &OwnedFd) -> ! {
    let _ = rustix::thread::set_name(c"lg-init");
    withdraw(Some(lifeline.as_raw_fd()));
    let mut byte = [0; 1];
    // Nothing is ever written to it.
    while matches!(rustix::io::read(lifeline, &mut byte), Ok(1) | Err(Errno::INTR)) {}
    host::leave()
}

/// Closes everything but one descriptor, most of all the control socket, and gives up all privileges. These processes
/// read nothing that a guest could have written; what they can not give up harms nobody.
fn withdraw(kept: Option<RawFd>) {
    let closed = match kept {
        Some(fd) => host::close_between(0, fd - 1).and_then(|()| host::close_between(fd + 1, RawFd::MAX)),
        None => host::close_between(0, RawFd::MAX),
    };
    if closed.is_err() {
        // With the control socket open the runtime would not learn of the vmm's end.
        host::leave();
    }
    let _ = privileges::drop_all();
}
