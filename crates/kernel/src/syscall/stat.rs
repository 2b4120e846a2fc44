//! Attributes: stat, chmod, chown, times, truncate, statfs.

use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Signal, Statfs, Statx, StatxTimestamp, Timespec, Timeval};

use super::Ctx;
use super::path::resolve_at;
use crate::task::SysResult;
use crate::vfs::ops::{self, TimeChange};
use crate::vfs::{AttrChange, Path, split_dev};

const MOUNT_ROOT: u64 = linux::STATX_ATTR_MOUNT_ROOT as u64;
const AT_FDCWD: u64 = linux::AT_FDCWD as u64;
const NOFOLLOW: u64 = linux::AT_SYMLINK_NOFOLLOW as u64;
const EMPTY_PATH: u64 = linux::AT_EMPTY_PATH as u64;

pub(super) fn sys_stat(ctx: &mut Ctx<'_>, [path, to, ..]: [u64; 6]) -> SysResult {
    let found = resolve_at(ctx, AT_FDCWD, path, 0)?;
    write_stat(ctx, &found, to)
}

pub(super) fn sys_lstat(ctx: &mut Ctx<'_>, [path, to, ..]: [u64; 6]) -> SysResult {
    let found = resolve_at(ctx, AT_FDCWD, path, NOFOLLOW)?;
    write_stat(ctx, &found, to)
}

pub(super) fn sys_fstat(ctx: &mut Ctx<'_>, [fd, to, ..]: [u64; 6]) -> SysResult {
    let path = ctx.fd(fd)?.path.clone();
    write_stat(ctx, &path, to)
}

pub(super) fn sys_newfstatat(ctx: &mut Ctx<'_>, [dir, path, to, flags, ..]: [u64; 6]) -> SysResult {
    if flags & !(NOFOLLOW | EMPTY_PATH | u64::from(linux::AT_NO_AUTOMOUNT)) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = resolve_at(ctx, dir, path, flags)?;
    write_stat(ctx, &found, to)
}

fn write_stat(ctx: &Ctx<'_>, path: &Path, to: u64) -> SysResult {
    let attr = path.inode().attr(&ctx.fs())?;
    ctx.copy_out(to, &attr.to_stat())?;
    Ok(0)
}

pub(super) fn sys_statx(ctx: &mut Ctx<'_>, [dir, path, flags, mask, to, _]: [u64; 6]) -> SysResult {
    let known =
        NOFOLLOW | EMPTY_PATH | u64::from(linux::AT_NO_AUTOMOUNT) | u64::from(linux::AT_STATX_SYNC_TYPE);
    let sync = flags & u64::from(linux::AT_STATX_SYNC_TYPE) == u64::from(linux::AT_STATX_SYNC_TYPE);
    if flags & !known != 0 || sync || mask & u64::from(linux::STATX__RESERVED) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = resolve_at(ctx, dir, path, flags)?;
    let attr = found.inode().attr(&ctx.fs())?;
    let time = |time: Timespec| StatxTimestamp { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec as u32, pad: 0 };
    let (rdev_major, rdev_minor) = split_dev(attr.rdev);
    let (dev_major, dev_minor) = split_dev(attr.dev);
    let answer = Statx {
        stx_mask: linux::STATX_BASIC_STATS
            | linux::STATX_MNT_ID
            | attr.btime.map_or(0, |_| linux::STATX_BTIME),
        stx_attributes: if Rc::ptr_eq(&found.dentry, &found.mount.root) { MOUNT_ROOT } else { 0 },
        stx_attributes_mask: MOUNT_ROOT,
        stx_blksize: 4096,
        stx_nlink: attr.nlink,
        stx_uid: attr.uid,
        stx_gid: attr.gid,
        stx_mode: attr.mode as u16,
        stx_ino: attr.ino,
        stx_size: attr.size,
        stx_blocks: attr.blocks,
        stx_atime: time(attr.atime),
        stx_btime: attr.btime.map(time).unwrap_or_default(),
        stx_ctime: time(attr.ctime),
        stx_mtime: time(attr.mtime),
        stx_rdev_major: rdev_major,
        stx_rdev_minor: rdev_minor,
        stx_dev_major: dev_major,
        stx_dev_minor: dev_minor,
        stx_mnt_id: u64::from(found.mount.id),
        ..Statx::default()
    };
    ctx.copy_out(to, &answer)?;
    Ok(0)
}

pub(super) fn sys_chmod(ctx: &mut Ctx<'_>, [path, mode, ..]: [u64; 6]) -> SysResult {
    let found = resolve_at(ctx, AT_FDCWD, path, 0)?;
    ops::chmod(&ctx.fs(), &found, mode as u32)?;
    Ok(0)
}

pub(super) fn sys_fchmod(ctx: &mut Ctx<'_>, [fd, mode, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    ops::chmod(&ctx.fs(), &description.path, mode as u32)?;
    Ok(0)
}

pub(super) fn sys_fchmodat(ctx: &mut Ctx<'_>, [dir, path, mode, ..]: [u64; 6]) -> SysResult {
    let found = resolve_at(ctx, dir, path, 0)?;
    ops::chmod(&ctx.fs(), &found, mode as u32)?;
    Ok(0)
}

pub(super) fn sys_fchmodat2(ctx: &mut Ctx<'_>, [dir, path, mode, flags, ..]: [u64; 6]) -> SysResult {
    if flags & !(NOFOLLOW | EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = resolve_at(ctx, dir, path, flags)?;
    ops::chmod(&ctx.fs(), &found, mode as u32)?;
    Ok(0)
}

/// An id of chown(2): -1 leaves it.
fn id(value: u64) -> Option<u32> {
    (value as u32 != u32::MAX).then_some(value as u32)
}

pub(super) fn sys_chown(ctx: &mut Ctx<'_>, [path, uid, gid, ..]: [u64; 6]) -> SysResult {
    sys_fchownat(ctx, [AT_FDCWD, path, uid, gid, 0, 0])
}

pub(super) fn sys_lchown(ctx: &mut Ctx<'_>, [path, uid, gid, ..]: [u64; 6]) -> SysResult {
    sys_fchownat(ctx, [AT_FDCWD, path, uid, gid, NOFOLLOW, 0])
}

pub(super) fn sys_fchown(ctx: &mut Ctx<'_>, [fd, uid, gid, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    ops::chown(&ctx.fs(), &description.path, id(uid), id(gid))?;
    Ok(0)
}

pub(super) fn sys_fchownat(ctx: &mut Ctx<'_>, [dir, path, uid, gid, flags, _]: [u64; 6]) -> SysResult {
    if flags & !(NOFOLLOW | EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = resolve_at(ctx, dir, path, flags)?;
    ops::chown(&ctx.fs(), &found, id(uid), id(gid))?;
    Ok(0)
}

pub(super) fn sys_utimensat(ctx: &mut Ctx<'_>, [dir, path, times, flags, ..]: [u64; 6]) -> SysResult {
    let (atime, mtime) = if times == 0 {
        (TimeChange::Now, TimeChange::Now)
    } else {
        let change = |time: Timespec| match time.tv_nsec {
            nsec if nsec == i64::from(linux::UTIME_NOW) => Ok(TimeChange::Now),
            nsec if nsec == i64::from(linux::UTIME_OMIT) => Ok(TimeChange::Omit),
            0..1_000_000_000 => Ok(TimeChange::To(time)),
            _ => Err(Errno::EINVAL),
        };
        let times: [Timespec; 2] = [ctx.copy_in(times)?, ctx.copy_in(times.wrapping_add(16))?];
        if times.iter().all(|time| time.tv_nsec == i64::from(linux::UTIME_OMIT)) {
            // There is nothing to do, and nothing to be checked.
            return Ok(0);
        }
        (change(times[0])?, change(times[1])?)
    };
    if flags & !(NOFOLLOW | EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = resolve_timed(ctx, dir, path, flags)?;
    ops::set_times(&ctx.fs(), &found, atime, mtime)?;
    Ok(0)
}

/// Finds the file whose times a call changes: a NULL path names the descriptor itself (futimens(3)).
fn resolve_timed(ctx: &Ctx<'_>, dir: u64, path: u64, flags: u64) -> Result<Path, Errno> {
    if path == 0 && dir as i32 != linux::AT_FDCWD {
        return Ok(ctx.fd(dir)?.path.clone());
    }
    resolve_at(ctx, dir, path, flags)
}

fn from_timeval(time: Timeval) -> Result<TimeChange, Errno> {
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EINVAL);
    }
    Ok(TimeChange::To(Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_usec * 1000 }))
}

pub(super) fn sys_utimes(ctx: &mut Ctx<'_>, [path, times, ..]: [u64; 6]) -> SysResult {
    sys_futimesat(ctx, [AT_FDCWD, path, times, 0, 0, 0])
}

pub(super) fn sys_futimesat(ctx: &mut Ctx<'_>, [dir, path, times, ..]: [u64; 6]) -> SysResult {
    let (atime, mtime) = if times == 0 {
        (TimeChange::Now, TimeChange::Now)
    } else {
        (from_timeval(ctx.copy_in(times)?)?, from_timeval(ctx.copy_in(times.wrapping_add(16))?)?)
    };
    let found = resolve_timed(ctx, dir, path, 0)?;
    ops::set_times(&ctx.fs(), &found, atime, mtime)?;
    Ok(0)
}

pub(super) fn sys_utime(ctx: &mut Ctx<'_>, [path, times, ..]: [u64; 6]) -> SysResult {
    let (atime, mtime) = if times == 0 {
        (TimeChange::Now, TimeChange::Now)
    } else {
        let seconds = |tv_sec: i64| TimeChange::To(Timespec { tv_sec, tv_nsec: 0 });
        (seconds(ctx.copy_in(times)?), seconds(ctx.copy_in(times.wrapping_add(8))?))
    };
    let found = resolve_at(ctx, AT_FDCWD, path, 0)?;
    ops::set_times(&ctx.fs(), &found, atime, mtime)?;
    Ok(0)
}

fn check_length(len: u64) -> Result<u64, Errno> {
    if (len as i64) < 0 { Err(Errno::EINVAL) } else { Ok(len) }
}

/// Refuses a length beyond RLIMIT_FSIZE, with SIGXFSZ.
pub(super) fn check_file_limit(ctx: &mut Ctx<'_>, len: u64) -> Result<(), Errno> {
    if len > ctx.rlimit(linux::RLIMIT_FSIZE).cur {
        ctx.signal_self(Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

pub(super) fn sys_truncate(ctx: &mut Ctx<'_>, [path, len, ..]: [u64; 6]) -> SysResult {
    let len = check_length(len)?;
    let found = resolve_at(ctx, AT_FDCWD, path, 0)?;
    check_file_limit(ctx, len)?;
    ops::truncate(&ctx.fs(), &found, len)?;
    ctx.kernel.file_truncated(found.inode(), len);
    Ok(0)
}

pub(super) fn sys_ftruncate(ctx: &mut Ctx<'_>, [fd, len, ..]: [u64; 6]) -> SysResult {
    let len = check_length(len)?;
    let description = ctx.open_fd(fd)?;
    let mode = description.inode().attr(&ctx.fs())?.mode & linux::S_IFMT;
    if description.check_writable().is_err() || mode != linux::S_IFREG {
        return Err(Errno::EINVAL.into());
    }
    check_file_limit(ctx, len)?;
    ops::set_attr(&ctx.fs(), &description.path, &AttrChange { size: Some(len), ..AttrChange::default() })?;
    ctx.kernel.file_truncated(description.inode(), len);
    Ok(0)
}

pub(super) fn sys_statfs(ctx: &mut Ctx<'_>, [path, to, ..]: [u64; 6]) -> SysResult {
    let found = resolve_at(ctx, AT_FDCWD, path, 0)?;
    write_statfs(ctx, &found, to)
}

pub(super) fn sys_fstatfs(ctx: &mut Ctx<'_>, [fd, to, ..]: [u64; 6]) -> SysResult {
    let path = ctx.fd(fd)?.path.clone();
    write_statfs(ctx, &path, to)
}

fn write_statfs(ctx: &Ctx<'_>, path: &Path, to: u64) -> SysResult {
    let space = path.inode().space(&ctx.fs());
    // ST_VALID (0x20) says that the flags are to be believed.
    let answer = Statfs {
        f_type: i64::from(path.mount.sb.magic),
        f_bsize: 4096,
        f_blocks: space.blocks,
        f_bfree: space.blocks_free,
        f_bavail: space.blocks_free,
        f_files: space.files,
        f_ffree: space.files_free,
        f_fsid: path.mount.sb.dev,
        f_namelen: 255,
        f_frsize: 4096,
        f_flags: i64::from(path.mount.flags.bits() | 0x20),
        ..Statfs::default()
    };
    ctx.copy_out(to, &answer)?;
    Ok(0)
}
