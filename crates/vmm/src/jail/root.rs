//! Namespaces of the process's own, and in them a root directory that holds what was granted and nothing else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use lg_control::{Access, Wall};
use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_move, move_mount, open_tree, unmount,
};

use super::grants::Grants;
use super::{JailError, Role};
use crate::host;

/// What no mount of the jail allows.
const NEVER: u64 = (MountAttrFlags::MOUNT_ATTR_NOSUID.bits()
    | MountAttrFlags::MOUNT_ATTR_NODEV.bits()
    | MountAttrFlags::MOUNT_ATTR_NOEXEC.bits()) as u64;
const READ_ONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
/// Where the new root is attached for a moment, in a mount namespace that nobody else sees: it is there on every host.
const PLACE: &str = "/proc";

/// Builds the root and enters it.
pub fn enter(grants: &Grants) -> Result<(), JailError> {
    let mounts = clone_mounts(grants)?;
    build(mounts).map_err(|error| JailError::new(Wall::Namespaces, "build a root directory", error))
}

/// Enters a namespace of each kind; that of process numbers only where there is a lifeline, and it is the next fork that is
/// in it.
pub fn enter_namespaces(role: &Role) -> Result<(), JailError> {
    make_namespaces(role).map_err(|error| JailError::new(Wall::Namespaces, "make namespaces", error))
}

/// In the user namespace this user is the same as outside, and nobody else is there.
fn make_namespaces(role: &Role) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // Other groups are of use to nobody here; only some users may give them up.
    let _ = rustix::thread::set_thread_groups(&[]);
    let numbers = match role {
        Role::Alone | Role::Served(None) => CloneFlags::empty(),
        Role::Served(Some(_)) => CloneFlags::CLONE_NEWPID,
    };
    let flags = numbers
        | CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::unshare(flags)?;
    // A group can be mapped once groups can not be changed any more (user_namespaces(7)).
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Something that gets a place in the root.
enum Granted {
    /// A mount that has no place yet.
    Mount(OwnedFd, FileType),
    /// A symbolic link, with where it leads.
    Link(std::ffi::CString),
}

fn clone_mounts(grants: &Grants) -> Result<Vec<(&Path, Granted)>, JailError> {
    let mut all = Vec::new();
    for (path, access) in grants.iter() {
        match clone_mount(path, access) {
            Ok(granted) => all.push((path, granted)),
            // Whoever opens it finds that it can not be reached, and says so.
            Err(error) if is_unreachable(&error) => {}
            Err(error) => {
                return Err(JailError::new(Wall::Namespaces, format!("mount {}", path.display()), error));
            }
        }
    }
    Ok(all)
}

fn is_unreachable(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG))
}

/// Clones what is mounted at a path, with all that is mounted below.
fn clone_mount(path: &Path, access: Access) -> io::Result<Granted> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Ok(Granted::Link(rustix::fs::readlinkat(CWD, path, Vec::new())?));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(CWD, path, flags)?;
    let attributes = match access {
        Access::ReadOnly => NEVER | READ_ONLY,
        Access::ReadWrite => NEVER,
    };
    host::restrict_mounts(mount.as_fd(), attributes)?;
    Ok(Granted::Mount(mount, kind))
}

/// Builds the root and makes it this process's.
fn build(granted: Vec<(&Path, Granted)>) -> io::Result<()> {
    // The host's whole root directory may be among what is granted.
    let mut granted = granted.into_iter().peekable();
    let root = match granted.next_if(|(path, _)| *path == Path::new("/")) {
        Some((_, Granted::Mount(mount, _))) => mount,
        _ => empty_root()?,
    };
    move_mount(&root, "", CWD, PLACE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&root)?;
    for (path, granted) in granted {
        place(path.strip_prefix("/").unwrap_or(path), granted)?;
    }
    match rustix::process::pivot_root(".", ".") {
        // The old root lies over the new one now.
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // A host that runs from its initial memory file system can not be left, but hidden: nothing leads back to what
        // lies below, since no directory of it is open.
        Err(Errno::INVAL) => {
            mount_move(".", "/")?;
            rustix::process::chroot(".")?;
        }
        Err(errno) => return Err(errno.into()),
    }
    rustix::process::chdir("/")?;
    host::restrict_mount(root.as_fd(), NEVER | READ_ONLY)
}

fn empty_root() -> io::Result<OwnedFd> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&tmpfs, "size", "1m")?;
    fsconfig_set_string(&tmpfs, "mode", "0755")?;
    fsconfig_create(&tmpfs)?;
    Ok(fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Puts something at its path below the current directory.
fn place(path: &Path, granted: Granted) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    match granted {
        Granted::Link(target) => Ok(rustix::fs::symlinkat(target, CWD, path)?),
        Granted::Mount(mount, kind) => {
            if kind == FileType::Directory {
                make_directories(path)?;
            } else {
                make_file(path)?;
            }
            Ok(move_mount(&mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
        }
    }
}

fn make_directories(path: &Path) -> io::Result<()> {
    let mut paths: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    paths.reverse();
    for path in paths {
        match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn make_file(path: &Path) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
