//! Calls to the host that no wrapper offers safely: forking this process, closing what it has open, signals for a socket's
//! input, and attributes of mounts.

#![expect(
    unsafe_code,
    reason = "clone, close_range, F_SETOWN, mount_setattr; each block says why it is sound"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::fs::OFlags;
use rustix::process::Pid;

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
    // With CLONE_PARENT the exit signal is the one that this process has (clone(2)).
    fork(libc::CLONE_PARENT).map(|child| if child.is_none() { Side::Fork } else { Side::Original })
}

/// Forks this process as fork(2) does. Returns the child's number, and `None` in the child.
pub fn fork_child() -> io::Result<Option<Pid>> {
    fork(libc::SIGCHLD)
}

fn fork(flags: libc::c_int) -> io::Result<Option<Pid>> {
    // Not clone3: a filter of system calls can not look at its flags. The stack is this one's, and nothing is
    // written back.
    let flags = libc::c_long::from(flags);
    // SAFETY: without CLONE_VM the child has its own copy of everything, as after fork(2). No
    // lock is held by anybody who is not there in the child, as the caller says; glibc keeps no state per
    // process that is used here (its cached thread id serves only pthread_kill and the like).
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match answer {
        0 => Ok(None),
        // A process number fits.
        1.. => Ok(Pid::from_raw(answer as i32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes every descriptor from `first` to `last`, both included. Whoever owns one of them must not use it again.
pub fn close_between(first: RawFd, last: RawFd) -> io::Result<()> {
    let number = |fd: RawFd| fd.max(0).cast_unsigned();
    // SAFETY: the callers own none of these descriptors, or never return to who does.
    let answer = unsafe { libc::close_range(number(first), number(last), 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the host send SIGIO to this process whenever something arrives on the socket, or its other end closes.
pub fn signal_on_input(socket: BorrowedFd<'_>) -> io::Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: fcntl acts on a descriptor that the caller holds open.
    let set_owner = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETOWN, own) };
    if set_owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // Every other status flag stays off: the socket blocks, and calls say where they must not.
    Ok(rustix::fs::fcntl_setfl(socket, OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned()))?)
}

/// Sets attributes (MOUNT_ATTR_* of mount_setattr(2)) of a mount and of all that are mounted in it, and cuts them off from
/// what happens to the mounts that they are copies of.
pub fn restrict_mounts(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    mount_setattr(mount, libc::AT_RECURSIVE, attributes)
}

/// Sets attributes of one mount, as [`restrict_mounts`] does.
pub fn restrict_mount(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    mount_setattr(mount, 0, attributes)
}

fn mount_setattr(mount: BorrowedFd<'_>, flags: libc::c_int, attributes: u64) -> io::Result<()> {
    let change =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // SAFETY: the path is a string with an end, and the host reads as many bytes of `change` as it has.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends this process at once, without what runs at a usual exit: that touches pages, each of which would be copied first
/// in a fork, and there is nothing for it to do.
pub fn leave() -> ! {
    // SAFETY: the host takes back whatever the process has.
    unsafe { libc::_exit(0) }
}
