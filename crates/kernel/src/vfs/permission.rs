//! Who may do what to an inode (path_resolution(7), credentials(7), capabilities(7)).

use lg_abi::Errno;
use lg_abi::raw::general::{CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, S_IFDIR, S_IFMT, S_ISVTX};

use super::{Attr, FsContext};
use crate::task::Credentials;

bitflags::bitflags! {
    /// Ways of access, with the bits of access(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u32 {
        /// Execute a file, search a directory.
        const EXEC = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}

/// Says whether the credentials include a capability (`CAP_*`).
pub fn has_capability(creds: &Credentials, capability: u32) -> bool {
    creds.has_capability(capability)
}

/// Says whether the file-system group or a supplementary group is `gid`.
pub fn in_group(creds: &Credentials, gid: u32) -> bool {
    creds.fsgid == gid || creds.groups.contains(&gid)
}

/// Checks that the task may access an inode in all of the ways of `want`.
///
/// Errors: EACCES.
pub fn check_access(cx: &FsContext<'_>, attr: &Attr, want: Access) -> Result<(), Errno> {
    let creds = cx.creds;
    let shift = if creds.fsuid == attr.uid {
        6
    } else if in_group(creds, attr.gid) {
        3
    } else {
        0
    };
    let granted = Access::from_bits_truncate(attr.mode >> shift & 7);
    if granted.contains(want) {
        return Ok(());
    }
    let is_dir = attr.mode & S_IFMT == S_IFDIR;
    if has_capability(creds, CAP_DAC_OVERRIDE)
        && (is_dir || !want.contains(Access::EXEC) || attr.mode & 0o111 != 0)
    {
        return Ok(());
    }
    if has_capability(creds, CAP_DAC_READ_SEARCH)
        && (want == Access::READ || is_dir && !want.contains(Access::WRITE))
    {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Says whether the task owns the inode or may act as if it did.
pub fn owns(cx: &FsContext<'_>, attr: &Attr) -> bool {
    cx.creds.fsuid == attr.uid || has_capability(cx.creds, CAP_FOWNER)
}

/// Checks that the task may add names to a directory.
pub fn check_may_create(cx: &FsContext<'_>, dir: &Attr) -> Result<(), Errno> {
    if dir.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    check_access(cx, dir, Access::WRITE | Access::EXEC)
}

/// Checks that the task may remove the name of `victim` from a directory: the sticky bit protects the files
/// of others.
///
/// Errors: EACCES, EPERM.
pub fn check_may_delete(cx: &FsContext<'_>, dir: &Attr, victim: &Attr) -> Result<(), Errno> {
    check_access(cx, dir, Access::WRITE | Access::EXEC)?;
    let uid = cx.creds.fsuid;
    if dir.mode & S_ISVTX != 0 && uid != dir.uid && uid != victim.uid && !has_capability(cx.creds, CAP_FOWNER)
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Returns the credentials of the superuser, for the kernel's own work on file systems.
pub fn superuser() -> Credentials {
    Credentials::new(0, 0)
}
