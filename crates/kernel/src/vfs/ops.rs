//! Operations on names and attributes, with the checks of Linux: mkdir(2), unlink(2), rename(2), chmod(2)…

use std::rc::Rc;

use lg_abi::raw::general::{
    CAP_CHOWN, CAP_FSETID, CAP_MKNOD, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, S_IFDIR, S_IFLNK,
    S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_IXGRP,
};
use lg_abi::{Errno, Timespec};

use super::permission::{
    Access, check_access, check_may_create, check_may_delete, has_capability, in_group, owns,
};
use super::{AttrChange, FsContext, FsState, Last, NewInode, Path, Resolve, Walk};

/// Makes what `path` names, relative to `start`.
///
/// Errors: EEXIST where the name is taken, ENOENT for a trailing slash behind what is no directory, EPERM for
/// a device without CAP_MKNOD, EROFS, EACCES, ENOSPC.
pub fn create(
    cx: &FsContext<'_>,
    fs: &FsState,
    start: &Path,
    path: &[u8],
    what: NewInode,
    mode: u32,
) -> Result<Path, Errno> {
    let mut walk = fs.walk(cx, start, path, Resolve::empty())?;
    let last = walk.to_last()?;
    let name = check_new_name(&walk, &last)?;
    if walk.must_be_dir() && what != NewInode::Dir {
        return Err(Errno::ENOENT);
    }
    // Anybody may make a whiteout: the device of number 0.
    if matches!(what, NewInode::CharDevice(1..) | NewInode::BlockDevice(_))
        && !has_capability(cx.creds, CAP_MKNOD)
    {
        return Err(Errno::EPERM);
    }
    create_in(cx, fs, walk.at(), name, what, mode)
}

/// Returns the last component as a name that is free.
pub fn check_new_name<'a>(walk: &Walk<'_>, last: &'a Last) -> Result<&'a [u8], Errno> {
    let Last::Name(name) = last else { return Err(Errno::EEXIST) };
    match walk.child(name) {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) => Ok(name),
        Err(errno) => Err(errno),
    }
}

/// Makes a child of `dir` under a free name.
pub fn create_in(
    cx: &FsContext<'_>,
    fs: &FsState,
    dir: &Path,
    name: &[u8],
    what: NewInode,
    mode: u32,
) -> Result<Path, Errno> {
    dir.check_writable()?;
    check_may_create(cx, &dir.inode().attr(cx)?)?;
    let mode = match what {
        NewInode::Symlink(_) => 0o777,
        NewInode::Dir => mode & 0o1777 & !fs.umask,
        _ => mode & 0o7777 & !fs.umask,
    };
    let inode = dir.inode().create(cx, name, what, mode)?;
    cx.vfs.notify().created(cx, dir, name, &inode);
    Ok(dir.with(dir.dentry.add_child(name, inode)))
}

/// Makes `path` a hard link to `target`.
///
/// Errors: EEXIST, EXDEV, EPERM for a directory.
pub fn link(cx: &FsContext<'_>, fs: &FsState, target: &Path, start: &Path, path: &[u8]) -> Result<(), Errno> {
    let mut walk = fs.walk(cx, start, path, Resolve::empty())?;
    let last = walk.to_last()?;
    let name = check_new_name(&walk, &last)?;
    if walk.must_be_dir() {
        return Err(Errno::ENOENT);
    }
    let dir = walk.at();
    if !Rc::ptr_eq(&dir.mount, &target.mount) {
        return Err(Errno::EXDEV);
    }
    dir.check_writable()?;
    if target.inode().attr(cx)?.mode & S_IFMT == S_IFDIR {
        return Err(Errno::EPERM);
    }
    check_may_create(cx, &dir.inode().attr(cx)?)?;
    dir.inode().link(cx, name, target.inode())?;
    dir.dentry.add_child(name, target.inode().clone());
    cx.vfs.notify().linked(cx, dir, name, target.inode());
    Ok(())
}

/// Removes the name of what is no directory.
pub fn unlink(cx: &FsContext<'_>, fs: &FsState, start: &Path, path: &[u8]) -> Result<(), Errno> {
    let mut walk = fs.walk(cx, start, path, Resolve::empty())?;
    let Last::Name(name) = walk.to_last()? else { return Err(Errno::EISDIR) };
    let victim = walk.child(&name)?;
    let dir = walk.at();
    let attr = victim.inode().attr(cx)?;
    let is_dir = attr.mode & S_IFMT == S_IFDIR;
    if walk.must_be_dir() && !is_dir {
        return Err(Errno::ENOTDIR);
    }
    dir.check_writable()?;
    check_may_delete(cx, &dir.inode().attr(cx)?, &attr)?;
    if is_dir {
        return Err(Errno::EISDIR);
    }
    check_not_mounted(dir, &victim)?;
    dir.inode().unlink(cx, &name)?;
    dir.dentry.forget_child(&name);
    cx.vfs.notify().removed(cx, dir, &name, victim);
    Ok(())
}

/// Removes an empty directory.
pub fn rmdir(cx: &FsContext<'_>, fs: &FsState, start: &Path, path: &[u8]) -> Result<(), Errno> {
    let mut walk = fs.walk(cx, start, path, Resolve::empty())?;
    let name = match walk.to_last()? {
        Last::Name(name) => name,
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        // The root has no last component either.
        Last::Dot if path.iter().all(|byte| *byte == b'/') => return Err(Errno::EBUSY),
        Last::Dot => return Err(Errno::EINVAL),
    };
    let victim = walk.child(&name)?;
    let dir = walk.at();
    let attr = victim.inode().attr(cx)?;
    dir.check_writable()?;
    check_may_delete(cx, &dir.inode().attr(cx)?, &attr)?;
    if attr.mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    check_not_mounted(dir, &victim)?;
    dir.inode().rmdir(cx, &name)?;
    dir.dentry.forget_child(&name);
    cx.vfs.notify().removed(cx, dir, &name, victim);
    Ok(())
}

/// Refuses with EBUSY to change the name of a mount point.
fn check_not_mounted(dir: &Path, child: &Path) -> Result<(), Errno> {
    if !Rc::ptr_eq(&dir.mount, &child.mount) || child.dentry.is_mount_point() {
        return Err(Errno::EBUSY);
    }
    Ok(())
}

/// Renames `old_path` (relative to `old_start`) to `new_path`; `flags` are those of renameat2(2).
pub fn rename(
    cx: &FsContext<'_>,
    fs: &FsState,
    (old_start, old_path): (&Path, &[u8]),
    (new_start, new_path): (&Path, &[u8]),
    flags: u32,
) -> Result<(), Errno> {
    let exchange = flags & RENAME_EXCHANGE != 0;
    let no_replace = flags & RENAME_NOREPLACE != 0;
    let whiteout = flags & RENAME_WHITEOUT != 0;
    let known = RENAME_EXCHANGE | RENAME_NOREPLACE | RENAME_WHITEOUT;
    if flags & !known != 0 || exchange && (no_replace || whiteout) {
        return Err(Errno::EINVAL);
    }
    let mut old_walk = fs.walk(cx, old_start, old_path, Resolve::empty())?;
    let old_last = old_walk.to_last()?;
    let mut new_walk = fs.walk(cx, new_start, new_path, Resolve::empty())?;
    let new_last = new_walk.to_last()?;
    let (old_dir, new_dir) = (old_walk.at(), new_walk.at());
    if !Rc::ptr_eq(&old_dir.mount, &new_dir.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name(old_name) = &old_last else { return Err(Errno::EBUSY) };
    let Last::Name(new_name) = &new_last else {
        return Err(if no_replace { Errno::EEXIST } else { Errno::EBUSY });
    };
    old_dir.check_writable()?;
    let old = old_walk.child(old_name)?;
    let new = match new_walk.child(new_name) {
        Ok(_) if no_replace => return Err(Errno::EEXIST),
        Ok(new) => Some(new),
        Err(Errno::ENOENT) if exchange => return Err(Errno::ENOENT),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno),
    };
    let old_attr = old.inode().attr(cx)?;
    let is_dir = old_attr.mode & S_IFMT == S_IFDIR;
    let slash = old_walk.must_be_dir() || !exchange && new_walk.must_be_dir();
    if slash && !is_dir {
        return Err(Errno::ENOTDIR);
    }
    if exchange
        && new_walk.must_be_dir()
        && let Some(new) = &new
        && new.inode().attr(cx)?.mode & S_IFMT != S_IFDIR
    {
        return Err(Errno::ENOTDIR);
    }
    // A directory can not become its own descendant, nor replace an ancestor.
    if new_dir.dentry.is_within(&old.dentry) {
        return Err(Errno::EINVAL);
    }
    if let Some(new) = &new {
        if old_dir.dentry.is_within(&new.dentry) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if Rc::ptr_eq(old.inode(), new.inode()) {
            return Ok(());
        }
    }
    let old_dir_attr = old_dir.inode().attr(cx)?;
    let new_dir_attr = new_dir.inode().attr(cx)?;
    check_may_delete(cx, &old_dir_attr, &old_attr)?;
    let moves = !Rc::ptr_eq(&old_dir.dentry, &new_dir.dentry);
    match &new {
        None => check_may_create(cx, &new_dir_attr)?,
        Some(new) => {
            let new_attr = new.inode().attr(cx)?;
            check_may_delete(cx, &new_dir_attr, &new_attr)?;
            let new_is_dir = new_attr.mode & S_IFMT == S_IFDIR;
            if !exchange && is_dir && !new_is_dir {
                return Err(Errno::ENOTDIR);
            }
            if !exchange && !is_dir && new_is_dir {
                return Err(Errno::EISDIR);
            }
            if exchange && new_is_dir && moves {
                check_access(cx, &new_attr, Access::WRITE)?;
            }
            check_not_mounted(new_dir, new)?;
        }
    }
    if is_dir && moves {
        check_access(cx, &old_attr, Access::WRITE)?;
    }
    check_not_mounted(old_dir, &old)?;
    old_dir.inode().rename(cx, old_name, new_dir.inode(), new_name, flags)?;
    old_dir.dentry.move_child(old_name, &new_dir.dentry, new_name, exchange);
    let (from, to) = ((old_dir, old_name.as_slice()), (new_dir, new_name.as_slice()));
    match new {
        Some(new) if exchange => {
            cx.vfs.notify().moved(cx, from, to, &old, None);
            cx.vfs.notify().moved(cx, to, from, &new, None);
        }
        new => cx.vfs.notify().moved(cx, from, to, &old, new),
    }
    Ok(())
}

/// Changes attributes, and tells those who watch. Permission has been checked.
pub fn set_attr(cx: &FsContext<'_>, path: &Path, change: &AttrChange) -> Result<(), Errno> {
    path.inode().set_attr(cx, change)?;
    cx.vfs.notify().changed(cx, path, change);
    Ok(())
}

/// Changes the permission bits.
///
/// Errors: EPERM for who does not own the inode, EOPNOTSUPP for a symbolic link, EROFS.
pub fn chmod(cx: &FsContext<'_>, path: &Path, mode: u32) -> Result<(), Errno> {
    let attr = path.inode().attr(cx)?;
    path.check_writable()?;
    if attr.mode & S_IFMT == S_IFLNK {
        return Err(Errno::EOPNOTSUPP);
    }
    if !owns(cx, &attr) {
        return Err(Errno::EPERM);
    }
    let mut mode = mode & 0o7777;
    if !in_group(cx.creds, attr.gid) && !has_capability(cx.creds, CAP_FSETID) {
        mode &= !S_ISGID;
    }
    set_attr(cx, path, &AttrChange { mode: Some(mode), ..AttrChange::default() })
}

/// Changes owner and group; `None` leaves one as it is.
///
/// Errors: EPERM, EROFS.
pub fn chown(cx: &FsContext<'_>, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    path.check_writable()?;
    let attr = path.inode().attr(cx)?;
    let owner = cx.creds.fsuid == attr.uid;
    let may_uid = uid.is_none_or(|uid| owner && uid == attr.uid);
    let may_gid = gid.is_none_or(|gid| owner && (gid == attr.gid || in_group(cx.creds, gid)));
    if !(may_uid && may_gid || has_capability(cx.creds, CAP_CHOWN)) {
        return Err(Errno::EPERM);
    }
    let mut change = AttrChange { uid, gid, ..AttrChange::default() };
    if attr.mode & S_IFMT != S_IFDIR {
        change.mode = without_set_id(attr.mode);
    }
    set_attr(cx, path, &change)
}

/// Returns the permission bits without the set-id bits that a change of contents or owner clears, or `None`
/// where there are none.
pub fn without_set_id(mode: u32) -> Option<u32> {
    let mut cleared = mode & 0o7777 & !S_ISUID;
    if mode & S_IXGRP != 0 {
        cleared &= !S_ISGID;
    }
    (cleared != mode & 0o7777).then_some(cleared)
}

/// What utimensat(2) does to a time stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeChange {
    /// It becomes the present.
    Now,
    /// It stays.
    Omit,
    /// It becomes this.
    To(Timespec),
}

impl TimeChange {
    fn value(self, cx: &FsContext<'_>) -> Option<Timespec> {
        match self {
            TimeChange::Now => Some(cx.now),
            TimeChange::Omit => None,
            TimeChange::To(time) => Some(time),
        }
    }
}

/// Changes the time stamps.
///
/// Errors: EACCES or EPERM for who may not, EROFS.
pub fn set_times(cx: &FsContext<'_>, path: &Path, atime: TimeChange, mtime: TimeChange) -> Result<(), Errno> {
    if (atime, mtime) == (TimeChange::Omit, TimeChange::Omit) {
        return Ok(());
    }
    path.check_writable()?;
    let attr = path.inode().attr(cx)?;
    if !owns(cx, &attr) {
        if (atime, mtime) != (TimeChange::Now, TimeChange::Now) {
            return Err(Errno::EPERM);
        }
        check_access(cx, &attr, Access::WRITE)?;
    }
    let change = AttrChange { atime: atime.value(cx), mtime: mtime.value(cx), ..AttrChange::default() };
    set_attr(cx, path, &change)
}

/// Changes the length of a regular file that was found by its path.
///
/// Errors: EISDIR, EINVAL, EACCES, EROFS, ETXTBSY for a program that runs.
pub fn truncate(cx: &FsContext<'_>, path: &Path, size: u64) -> Result<(), Errno> {
    let attr = path.inode().attr(cx)?;
    match attr.mode & S_IFMT {
        S_IFDIR => return Err(Errno::EISDIR),
        S_IFREG => {}
        _ => return Err(Errno::EINVAL),
    }
    path.check_writable()?;
    check_access(cx, &attr, Access::WRITE)?;
    if cx.procs.runs(path.inode()) {
        return Err(Errno::ETXTBSY);
    }
    set_attr(cx, path, &AttrChange { size: Some(size), ..AttrChange::default() })
}
