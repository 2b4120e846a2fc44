//! Watching files: inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2).

use lg_abi::Errno;
use lg_abi::raw::general as linux;

use super::Ctx;
use super::event::check_flags;
use super::fd::install;
use super::path::resolve_at;
use crate::fs::anon::new_anon;
use crate::fs::inotify::{Inotify, as_inotify};
use crate::task::SysResult;
use crate::vfs::permission::{Access, check_access};

/// All bits that the mask of a watch may have.
const KNOWN: u32 = linux::IN_ALL_EVENTS
    | linux::IN_UNMOUNT
    | linux::IN_Q_OVERFLOW
    | linux::IN_IGNORED
    | linux::IN_ONLYDIR
    | linux::IN_DONT_FOLLOW
    | linux::IN_EXCL_UNLINK
    | linux::IN_MASK_CREATE
    | linux::IN_MASK_ADD
    | linux::IN_ISDIR
    | linux::IN_ONESHOT;

pub(super) fn sys_inotify_init(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    sys_inotify_init1(ctx, [0; 6])
}

pub(super) fn sys_inotify_init1(ctx: &mut Ctx<'_>, [flags, ..]: [u64; 6]) -> SysResult {
    let flags = check_flags(flags, linux::IN_CLOEXEC | linux::IN_NONBLOCK)?;
    let description = {
        let cx = ctx.fs();
        new_anon(&cx, Inotify::new(&cx)?, "inotify", linux::O_RDONLY | flags & linux::O_NONBLOCK)?
    };
    install(ctx, description, flags)
}

pub(super) fn sys_inotify_add_watch(ctx: &mut Ctx<'_>, [fd, path, mask, ..]: [u64; 6]) -> SysResult {
    let mask = mask as u32;
    if mask & !KNOWN != 0 || mask & KNOWN == 0 {
        return Err(Errno::EINVAL.into());
    }
    let description = ctx.open_fd(fd)?;
    if mask & linux::IN_MASK_ADD != 0 && mask & linux::IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let inotify = as_inotify(&description.file)?;
    let flags = if mask & linux::IN_DONT_FOLLOW != 0 { linux::AT_SYMLINK_NOFOLLOW } else { 0 };
    let found = resolve_at(ctx, linux::AT_FDCWD as u64, path, u64::from(flags))?;
    let attr = found.inode().attr(&ctx.fs())?;
    if mask & linux::IN_ONLYDIR != 0 && attr.mode & linux::S_IFMT != linux::S_IFDIR {
        return Err(Errno::ENOTDIR.into());
    }
    check_access(&ctx.fs(), &attr, Access::READ)?;
    let wd = inotify.add(found.inode(), mask)?;
    Ok(wd as u64)
}

pub(super) fn sys_inotify_rm_watch(ctx: &mut Ctx<'_>, [fd, wd, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    as_inotify(&description.file)?.remove(wd as i32)?;
    Ok(0)
}
