//! Descriptors: close, dup, fcntl, ioctl, pipes.

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general as linux;

use super::Ctx;
use super::file_lock::{get_lease, get_lock, set_lease, set_lock};
use super::owner;
use super::stat::check_file_limit;
use crate::fs::memfs::{new_memfd, seals};
use crate::fs::pipe::{as_pipe, new_pipe};
use crate::fs::pty::{as_master, is_slave};
use crate::task::{SysResult, Wait};
use crate::vfs::{FileDescription, Inode, OnExec, close_removed};

/// Flags of close_range(2) (linux/close_range.h).
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// The highest descriptor limit of the process.
pub(super) fn fd_limit(ctx: &Ctx<'_>) -> u64 {
    ctx.rlimit(linux::RLIMIT_NOFILE).cur
}

/// Puts an open file at the lowest free descriptor; `flags` may hold O_CLOEXEC.
pub(super) fn install(ctx: &Ctx<'_>, description: Rc<FileDescription>, flags: u32) -> SysResult {
    let on_exec = OnExec::from_flags(flags, linux::O_CLOEXEC);
    let fd = ctx.fds().borrow_mut().insert(description, on_exec, fd_limit(ctx))?;
    Ok(u64::from(fd))
}

fn finish_close(ctx: &Ctx<'_>, closed: Vec<Rc<FileDescription>>) {
    let owner = ctx.fds().borrow().lock_owner();
    let cx = ctx.fs();
    closed.into_iter().for_each(|description| close_removed(&cx, owner, description));
}

pub(super) fn sys_close(ctx: &mut Ctx<'_>, [fd, ..]: [u64; 6]) -> SysResult {
    let closed = ctx.fds().borrow_mut().remove(fd)?;
    finish_close(ctx, vec![closed]);
    Ok(0)
}

pub(super) fn sys_close_range(ctx: &mut Ctx<'_>, [first, last, flags, ..]: [u64; 6]) -> SysResult {
    let (first, last) = (first as u32, last as u32);
    let known = CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC;
    if first > last || flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & u64::from(CLOSE_RANGE_UNSHARE) != 0 && Rc::strong_count(&ctx.task().fds) > 1 {
        let copy = ctx.fds().borrow().fork(&ctx.fs())?;
        ctx.task_mut().fds = Rc::new(std::cell::RefCell::new(copy));
    }
    let fds = ctx.fds();
    if flags & u64::from(CLOSE_RANGE_CLOEXEC) != 0 {
        fds.borrow_mut().close_range_on_exec(first, last);
    } else {
        let closed = fds.borrow_mut().remove_range(first, last);
        finish_close(ctx, closed);
    }
    Ok(0)
}

pub(super) fn sys_dup(ctx: &mut Ctx<'_>, [fd, ..]: [u64; 6]) -> SysResult {
    let description = ctx.fd(fd)?;
    install(ctx, description, 0)
}

pub(super) fn sys_dup2(ctx: &mut Ctx<'_>, [old, new, ..]: [u64; 6]) -> SysResult {
    if old as u32 == new as u32 {
        ctx.fd(old)?;
        return Ok(u64::from(new as u32));
    }
    duplicate_to(ctx, old, new, OnExec::Keep)
}

pub(super) fn sys_dup3(ctx: &mut Ctx<'_>, [old, new, flags, ..]: [u64; 6]) -> SysResult {
    if old as u32 == new as u32 || flags & !u64::from(linux::O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    duplicate_to(ctx, old, new, OnExec::from_flags(flags as u32, linux::O_CLOEXEC))
}

fn duplicate_to(ctx: &mut Ctx<'_>, old: u64, new: u64, on_exec: OnExec) -> SysResult {
    let description = ctx.fd(old)?;
    let limit = fd_limit(ctx);
    let replaced = ctx.fds().borrow_mut().replace(new as u32, description, on_exec, limit)?;
    finish_close(ctx, replaced.into_iter().collect());
    Ok(u64::from(new as u32))
}

pub(super) fn sys_pipe(ctx: &mut Ctx<'_>, [fds, ..]: [u64; 6]) -> SysResult {
    make_pipe(ctx, fds, 0)
}

pub(super) fn sys_pipe2(ctx: &mut Ctx<'_>, [fds, flags, ..]: [u64; 6]) -> SysResult {
    let known = linux::O_CLOEXEC | linux::O_NONBLOCK | linux::O_DIRECT;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    make_pipe(ctx, fds, flags as u32)
}

fn make_pipe(ctx: &mut Ctx<'_>, addr: u64, flags: u32) -> SysResult {
    let limit = fd_limit(ctx);
    let table = ctx.fds();
    table.borrow().next_two(limit)?;
    let (reader, writer) = new_pipe(&ctx.fs(), flags & !linux::O_CLOEXEC)?;
    let on_exec = OnExec::from_flags(flags, linux::O_CLOEXEC);
    let first = table.borrow_mut().insert(reader, on_exec, limit)?;
    let second = table.borrow_mut().insert(writer, on_exec, limit)?;
    if let Err(errno) = ctx.copy_out(addr, &[first, second]) {
        for fd in [first, second] {
            if let Ok(closed) = table.borrow_mut().remove(u64::from(fd)) {
                drop(closed);
            }
        }
        return Err(errno.into());
    }
    Ok(0)
}

pub(super) fn sys_fcntl(ctx: &mut Ctx<'_>, [fd, command, arg, ..]: [u64; 6]) -> SysResult {
    let description = ctx.fd(fd)?;
    let path_only = description.is_path_only();
    match command as u32 {
        linux::F_DUPFD | linux::F_DUPFD_CLOEXEC => {
            let limit = fd_limit(ctx);
            if (arg as i32) < 0 || u64::from(arg as u32) >= limit {
                return Err(Errno::EINVAL.into());
            }
            let on_exec = if command as u32 == linux::F_DUPFD { OnExec::Keep } else { OnExec::Close };
            let new = ctx.fds().borrow_mut().insert_from(arg as u32, description, on_exec, limit)?;
            Ok(u64::from(new))
        }
        linux::F_GETFD => Ok(u64::from(ctx.fds().borrow().on_exec(fd)? == OnExec::Close)),
        linux::F_SETFD => {
            let on_exec = OnExec::from_flags(arg as u32, linux::FD_CLOEXEC);
            ctx.fds().borrow_mut().set_on_exec(fd, on_exec)?;
            Ok(0)
        }
        linux::F_GETFL => Ok(u64::from(description.shown_flags(ctx.fs().vfs))),
        _ if path_only => Err(Errno::EBADF.into()),
        linux::F_SETFL => {
            description.set_flags(arg as u32);
            Ok(0)
        }
        linux::F_GETLK | linux::F_OFD_GETLK => get_lock(ctx, &description, command as u32, arg),
        linux::F_SETLK | linux::F_SETLKW | linux::F_OFD_SETLK | linux::F_OFD_SETLKW => {
            set_lock(ctx, &description, command as u32, arg)
        }
        linux::F_GETLEASE => Ok(get_lease()),
        linux::F_SETLEASE => set_lease(ctx, &description, arg as u32),
        linux::F_GETOWN => Ok(owner::get(&description)),
        linux::F_SETOWN => owner::set(ctx, &description, arg as i32),
        linux::F_GETOWN_EX => owner::get_typed(ctx, &description, arg),
        linux::F_SETOWN_EX => owner::set_typed(ctx, &description, arg),
        linux::F_GETSIG => Ok(u64::from(description.signal())),
        linux::F_SETSIG => owner::set_signal(&description, arg),
        linux::F_GETPIPE_SZ => {
            let pipe = as_pipe(&description.file).ok_or(Errno::EBADF)?;
            Ok(pipe.capacity() as u64)
        }
        linux::F_SETPIPE_SZ => {
            let pipe = as_pipe(&description.file).ok_or(Errno::EBADF)?;
            if arg as u32 > 1 << 31 {
                return Err(Errno::EINVAL.into());
            }
            Ok(pipe.set_capacity(u64::from(arg as u32))? as u64)
        }
        linux::F_ADD_SEALS => {
            description.check_writable().map_err(|_| Errno::EPERM)?;
            add_seals(ctx, description.inode(), arg as u32)?;
            Ok(0)
        }
        linux::F_GET_SEALS => Ok(u64::from(seals(description.inode(), None)?.ok_or(Errno::EINVAL)?)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The length of a block of the file system (linux/fs.h), and how long those here are.
const FIGETBSZ: u32 = 2;
const BLOCK: u32 = 4096;

pub(super) fn sys_ioctl(ctx: &mut Ctx<'_>, [fd, request, arg, ..]: [u64; 6]) -> SysResult {
    use lg_abi::raw::ioctl;
    let description = ctx.open_fd(fd)?;
    match request as u32 {
        ioctl::FIOCLEX => ctx.fds().borrow_mut().set_on_exec(fd, OnExec::Close)?,
        ioctl::FIONCLEX => ctx.fds().borrow_mut().set_on_exec(fd, OnExec::Keep)?,
        ioctl::FIONBIO => {
            let on: i32 = ctx.copy_in(arg)?;
            let flags = description.flags() & !linux::O_NONBLOCK;
            description.set_flags(if on != 0 { flags | linux::O_NONBLOCK } else { flags });
        }
        ioctl::FIOASYNC => {
            let on: i32 = ctx.copy_in(arg)?;
            let flags = description.flags() & !linux::FASYNC;
            description.set_flags(if on != 0 { flags | linux::FASYNC } else { flags });
        }
        FIGETBSZ => ctx.copy_out(arg, &BLOCK)?,
        ioctl::FIOQSIZE => {
            let attr = description.inode().attr(&ctx.fs())?;
            if !matches!(attr.mode & linux::S_IFMT, linux::S_IFREG | linux::S_IFDIR | linux::S_IFLNK) {
                return Err(Errno::ENOTTY.into());
            }
            ctx.copy_out(arg, &attr.blocks.saturating_mul(512))?;
        }
        ioctl::TIOCGPTPEER => {
            let otherwise = if is_slave(&description.file) { Errno::EIO } else { Errno::ENOTTY };
            let pty = as_master(&description.file).ok_or(otherwise)?;
            let peer = pty.describe_slave(&ctx.fs(), arg as u32)?;
            return install(ctx, peer, arg as u32);
        }
        request => {
            let user = ctx.user();
            let answer = description.file.ioctl(&ctx.fs(), &user, request, arg);
            return match answer {
                // A background process at a terminal was sent a signal that stops it.
                Err(Errno::EAGAIN) => ctx.block(Wait::on(description.file.queues())),
                // What is left to read of a regular file.
                Err(Errno::ENOTTY) if request == ioctl::FIONREAD => {
                    let attr = description.inode().attr(&ctx.fs())?;
                    if attr.mode & linux::S_IFMT != linux::S_IFREG {
                        return Err(Errno::ENOTTY.into());
                    }
                    let left = attr.size.saturating_sub(description.offset());
                    ctx.copy_out(arg, &(left.min(i32::MAX as u64) as u32))?;
                    Ok(0)
                }
                answer => Ok(answer?),
            };
        }
    }
    Ok(0)
}

pub(super) fn sys_fsync(ctx: &mut Ctx<'_>, [fd, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    if !description.file.has_position() {
        return Err(Errno::EINVAL.into());
    }
    description.file.sync(&ctx.fs())?;
    Ok(0)
}

pub(super) fn sys_fdatasync(ctx: &mut Ctx<'_>, args: [u64; 6]) -> SysResult {
    sys_fsync(ctx, args)
}

/// Files in memory are always in sync; writes to writable mounts reach the host at once.
pub(super) fn sys_sync(_ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(0)
}

pub(super) fn sys_syncfs(ctx: &mut Ctx<'_>, [fd, ..]: [u64; 6]) -> SysResult {
    ctx.open_fd(fd)?;
    Ok(0)
}

/// SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER.
const SYNC_FILE_RANGE_FLAGS: u32 = 7;

pub(super) fn sys_sync_file_range(ctx: &mut Ctx<'_>, [fd, offset, len, flags, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    let (offset, len) = (offset as i64, len as i64);
    let is_range = offset >= 0 && offset.checked_add(len).is_some_and(|end| end >= offset);
    if flags as u32 & !SYNC_FILE_RANGE_FLAGS != 0 || !is_range {
        return Err(Errno::EINVAL.into());
    }
    if description.file.has_position() { Ok(0) } else { Err(Errno::ESPIPE.into()) }
}

pub(super) fn sys_fadvise64(ctx: &mut Ctx<'_>, [fd, _, len, advice, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    if file_type(ctx, &description)? == linux::S_IFIFO {
        return Err(Errno::ESPIPE.into());
    }
    if (len as i64) < 0 || advice as u32 > 5 { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

pub(super) fn sys_readahead(ctx: &mut Ctx<'_>, [fd, _, len, ..]: [u64; 6]) -> SysResult {
    let description = ctx.fd(fd)?;
    description.check_readable()?;
    if file_type(ctx, &description)? != linux::S_IFREG || (len as i64) < 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// Returns what kind of file one is, S_IFREG and the like; 0 for those that stand for events.
pub(super) fn file_type(ctx: &Ctx<'_>, description: &FileDescription) -> Result<u32, Errno> {
    Ok(description.inode().attr(&ctx.fs())?.mode & linux::S_IFMT)
}

pub(super) fn sys_fallocate(ctx: &mut Ctx<'_>, [fd, mode, offset, len, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    if (offset as i64) < 0 || (len as i64) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let (keep, punch) = (linux::FALLOC_FL_KEEP_SIZE, linux::FALLOC_FL_PUNCH_HOLE);
    if !matches!(mode as u32 & !keep, 0 | linux::FALLOC_FL_ZERO_RANGE) && mode as u32 != punch | keep {
        return Err(Errno::EOPNOTSUPP.into());
    }
    description.check_writable()?;
    match file_type(ctx, &description)? {
        linux::S_IFREG => {}
        linux::S_IFIFO => return Err(Errno::ESPIPE.into()),
        linux::S_IFDIR => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
    let grows = mode as u32 & linux::FALLOC_FL_KEEP_SIZE == 0
        && offset + len > description.inode().attr(&ctx.fs())?.size;
    if grows {
        check_file_limit(ctx, offset + len)?;
    }
    description.file.allocate(&ctx.fs(), mode as u32, offset, len)?;
    if mode as u32 & (punch | linux::FALLOC_FL_ZERO_RANGE) != 0 {
        ctx.kernel.file_punched(description.inode(), offset, end);
    }
    description.tell(linux::IN_MODIFY);
    Ok(0)
}

/// Errors: EINVAL for unknown seals and files that have none, EPERM where they are sealed, EBUSY for F_SEAL_WRITE
/// while somebody maps the file to store to it.
fn add_seals(ctx: &Ctx<'_>, inode: &Rc<dyn Inode>, wanted: u32) -> Result<(), Errno> {
    let known = linux::F_SEAL_SEAL
        | linux::F_SEAL_SHRINK
        | linux::F_SEAL_GROW
        | linux::F_SEAL_WRITE
        | linux::F_SEAL_FUTURE_WRITE
        | linux::F_SEAL_EXEC;
    if wanted & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let before = seals(inode, None)?.ok_or(Errno::EINVAL)?;
    if before & linux::F_SEAL_SEAL != 0 {
        return Err(Errno::EPERM);
    }
    let mut wanted = wanted;
    if wanted & linux::F_SEAL_EXEC != 0 && inode.attr(&ctx.fs())?.mode & 0o111 != 0 {
        // A file that can be executed is not to change either.
        wanted |= known & !(linux::F_SEAL_SEAL | linux::F_SEAL_EXEC);
    }
    if wanted & !before & linux::F_SEAL_WRITE != 0
        && ctx.kernel.tasks.values().any(|task| task.mm.borrow().may_store_to(inode))
    {
        return Err(Errno::EBUSY);
    }
    seals(inode, Some(wanted)).map(drop)
}

pub(super) fn sys_memfd_create(ctx: &mut Ctx<'_>, [name, flags, ..]: [u64; 6]) -> SysResult {
    let known = linux::MFD_CLOEXEC | linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL | linux::MFD_EXEC;
    let no_exec = flags & u64::from(linux::MFD_NOEXEC_SEAL) != 0;
    if flags & !u64::from(known) != 0 || no_exec && flags & u64::from(linux::MFD_EXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = ctx.user().read_string(name, 250).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    let (seals, mode) = match flags & u64::from(linux::MFD_ALLOW_SEALING) != 0 {
        _ if no_exec => (linux::F_SEAL_EXEC, 0o666),
        true => (0, 0o777),
        false => (linux::F_SEAL_SEAL, 0o777),
    };
    let description = {
        let cx = ctx.fs();
        let inode = new_memfd(&cx, seals, mode)?;
        let file = inode.clone().open(&cx, linux::O_RDWR)?;
        let shown = [b"/memfd:".as_slice(), &name, b" (deleted)"].concat();
        FileDescription::nameless(&cx, inode, file, &shown, linux::O_RDWR)?
    };
    let cloexec = if flags & u64::from(linux::MFD_CLOEXEC) != 0 { linux::O_CLOEXEC } else { 0 };
    install(ctx, description, cloexec)
}
