//! Calls to the host that no wrapper offers safely: forking this process, and signals for a socket's input.

#![expect(unsafe_code, reason = "clone3 and fcntl of signal-driven I/O; each block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that called.
    Original,
    /// The new one.
    Fork,
}

/// Forks this process. The new one is a child of this one's parent (CLONE_PARENT), which sees its end as it sees this
/// one's: a template's forks belong to the runtime and outlive the template.
///
/// Must be called while no other thread of this process holds a lock. A vmm has at most one more thread, which runs the
/// virtual CPU and takes none.
pub fn fork_sibling() -> io::Result<Side> {
    // SAFETY: zeros are valid for this plain structure: no flags, no stack of its own, nothing to write back.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PARENT as u64;
    // With CLONE_PARENT the exit signal must be 0: it is the one that this process has (clone(2)).
    // SAFETY: without CLONE_VM the child has its own copy of everything, as after fork(2). No
    // lock is held by anybody who is not there in the child, as the caller says; glibc keeps no state per
    // process that is used here (its cached thread id serves only pthread_kill and the like).
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match answer {
        0 => Ok(Side::Fork),
        1.. => Ok(Side::Original),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the host send SIGIO to this process whenever something arrives on the socket, or its other end closes.
pub fn signal_on_input(socket: BorrowedFd<'_>) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: getpid has no preconditions; fcntl acts on a descriptor that the caller holds open.
    let set_owner = unsafe { libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) };
    if set_owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above. Every other status flag stays off: the socket blocks, and calls say where they must not.
    let set_flags = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC) };
    if set_flags < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends this process at once, without what runs at a usual exit: that touches pages, each of which would be copied first
/// in a fork, and there is nothing for it to do.
pub fn leave() -> ! {
    // SAFETY: the host takes back whatever the process has.
    unsafe { libc::_exit(0) }
}
