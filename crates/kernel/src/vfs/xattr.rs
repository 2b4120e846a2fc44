//! Extended attributes (xattr(7)): which there are, and who may see and change them.

use lg_abi::Errno;
use lg_abi::raw::general::{CAP_SETFCAP, CAP_SYS_ADMIN, S_IFDIR, S_IFMT, S_IFREG, S_ISVTX};

use super::permission::{Access, check_access, has_capability, owns};
use super::{Attr, FsContext, Path};

/// Bytes in the longest name of an attribute, without its NUL.
pub const XATTR_NAME_MAX: usize = 255;

/// Bytes in the largest value.
pub const XATTR_SIZE_MAX: usize = 65_536;

/// Bytes in the longest list of names.
pub const XATTR_LIST_MAX: usize = 65_536;

const USER: &[u8] = b"user.";
const TRUSTED: &[u8] = b"trusted.";
const SECURITY: &[u8] = b"security.";
const SYSTEM: &[u8] = b"system.";
const CAPABILITY: &[u8] = b"security.capability";

/// Where an inode keeps its attributes. Names come with their namespace; permission has been checked.
pub trait XattrStore {
    /// Returns a value.
    fn get(&self, name: &[u8]) -> Option<Vec<u8>>;

    /// Sets a value, or removes it with `None`.
    ///
    /// Errors: ENOSPC.
    fn set(&self, cx: &FsContext<'_>, name: &[u8], value: Option<&[u8]>) -> Result<(), Errno>;

    /// Returns the names, in order.
    fn names(&self) -> Vec<Vec<u8>>;
}

/// What setxattr(2) demands of what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// Nothing.
    Any,
    /// That there is none (XATTR_CREATE).
    Absent,
    /// That there is one (XATTR_REPLACE).
    Present,
}

/// Returns the value of an attribute.
///
/// Errors: ENODATA where there is none or the caller may not see it, EOPNOTSUPP, EINVAL, EACCES.
pub fn get(cx: &FsContext<'_>, path: &Path, name: &[u8]) -> Result<Vec<u8>, Errno> {
    check(cx, &path.inode().attr(cx)?, name, Access::READ)?;
    store(path, name)?.get(name).ok_or(Errno::ENODATA)
}

/// Sets an attribute.
///
/// Errors: EEXIST and ENODATA as `presence` says, EROFS, EPERM, EACCES, EOPNOTSUPP, EINVAL, ENOSPC.
pub fn set(
    cx: &FsContext<'_>,
    path: &Path,
    name: &[u8],
    value: &[u8],
    presence: Presence,
) -> Result<(), Errno> {
    path.check_writable()?;
    if name == CAPABILITY && !is_capability(value) {
        return Err(Errno::EINVAL);
    }
    check_change(cx, path, name)?;
    let store = store(path, name)?;
    match (presence, store.get(name).is_some()) {
        (Presence::Absent, true) => Err(Errno::EEXIST),
        (Presence::Present, false) => Err(Errno::ENODATA),
        _ => store.set(cx, name, Some(value)),
    }?;
    cx.vfs.notify().xattr_changed(cx, path);
    Ok(())
}

/// Removes an attribute.
///
/// Errors: ENODATA, EROFS, EPERM, EACCES, EOPNOTSUPP, EINVAL.
pub fn remove(cx: &FsContext<'_>, path: &Path, name: &[u8]) -> Result<(), Errno> {
    path.check_writable()?;
    check_change(cx, path, name)?;
    let store = store(path, name)?;
    store.get(name).ok_or(Errno::ENODATA)?;
    store.set(cx, name, None)?;
    cx.vfs.notify().xattr_changed(cx, path);
    Ok(())
}

/// Returns the names that the caller may see, each with its NUL; none on a file system without attributes.
pub fn list(cx: &FsContext<'_>, path: &Path) -> Result<Vec<u8>, Errno> {
    path.inode().attr(cx)?;
    let sees_trusted = has_capability(cx.creds, CAP_SYS_ADMIN);
    let names = path.inode().xattrs().map(XattrStore::names).unwrap_or_default();
    let seen = names.into_iter().filter(|name| sees_trusted || !name.starts_with(TRUSTED));
    Ok(seen.flat_map(|name| [name, vec![0]].concat()).collect())
}

/// Returns where an attribute of this name is kept.
///
/// Errors: EOPNOTSUPP for another namespace or file system, EINVAL for a namespace without a name in it.
fn store<'a>(path: &'a Path, name: &[u8]) -> Result<&'a dyn XattrStore, Errno> {
    let store = path.inode().xattrs().ok_or(Errno::EOPNOTSUPP)?;
    let namespace = [USER, TRUSTED, SECURITY].into_iter().find(|namespace| name.starts_with(namespace));
    match namespace {
        Some(namespace) if name.len() == namespace.len() => Err(Errno::EINVAL),
        Some(_) => Ok(store),
        None => Err(Errno::EOPNOTSUPP),
    }
}

fn check_change(cx: &FsContext<'_>, path: &Path, name: &[u8]) -> Result<(), Errno> {
    check(cx, &path.inode().attr(cx)?, name, Access::WRITE)?;
    let needed = match name {
        CAPABILITY => CAP_SETFCAP,
        name if name.starts_with(SECURITY) => CAP_SYS_ADMIN,
        _ => return Ok(()),
    };
    if has_capability(cx.creds, needed) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Checks access to an attribute by its namespace: who may not read has no data there.
fn check(cx: &FsContext<'_>, attr: &Attr, name: &[u8], access: Access) -> Result<(), Errno> {
    let refused = if access == Access::WRITE { Errno::EPERM } else { Errno::ENODATA };
    if name.starts_with(SECURITY) || name.starts_with(SYSTEM) {
        return Ok(());
    }
    if name.starts_with(TRUSTED) {
        return if has_capability(cx.creds, CAP_SYS_ADMIN) { Ok(()) } else { Err(refused) };
    }
    if name.starts_with(USER) {
        match attr.mode & S_IFMT {
            S_IFREG => {}
            S_IFDIR if access == Access::WRITE && attr.mode & S_ISVTX != 0 && !owns(cx, attr) => {
                return Err(Errno::EPERM);
            }
            S_IFDIR => {}
            _ => return Err(refused),
        }
    }
    check_access(cx, attr, access)
}

/// Says whether the bytes are capabilities of a file (`struct vfs_cap_data` of capabilities(7), versions 2 and 3).
fn is_capability(value: &[u8]) -> bool {
    let version = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) & 0xff00_0000);
    matches!((version, value.len()), (Some(0x0200_0000), 20) | (Some(0x0300_0000), 24))
}
