//! Locks of files: flock(2), and the record locks and leases of fcntl(2).

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Flock};

use super::Ctx;
use crate::task::SysResult;
use crate::vfs::{FileDescription, LAST_BYTE, LockError, LockKind, LockOwner, LockTable, RecordLock};

/// Returns the first and the last byte of `len` bytes at `start`, which counts from `base`.
///
/// Errors: EINVAL before the first byte, EOVERFLOW behind the last.
fn range(base: u64, start: i64, len: i64) -> Result<(u64, u64), Errno> {
    let base = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?;
    let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
    if start < 0 {
        return Err(Errno::EINVAL);
    }
    let (first, last) = match len {
        0 => (start, i64::MAX),
        1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        _ => (start + len, start - 1),
    };
    if first < 0 { Err(Errno::EINVAL) } else { Ok((first as u64, last as u64)) }
}

/// Reads a lock request: `None` as kind is F_UNLCK.
fn read_lock(
    ctx: &Ctx<'_>,
    description: &FileDescription,
    command: u32,
    addr: u64,
) -> Result<(Flock, Option<LockKind>, RecordLock), Errno> {
    let flock: Flock = ctx.copy_in(addr)?;
    let base = match flock.l_whence as u32 {
        linux::SEEK_SET => 0,
        linux::SEEK_CUR => description.offset(),
        linux::SEEK_END => description.inode().attr(&ctx.fs())?.size,
        _ => return Err(Errno::EINVAL),
    };
    let (start, last) = range(base, flock.l_start, flock.l_len)?;
    let kind = match flock.l_type as u32 {
        linux::F_RDLCK => Some(LockKind::Shared),
        linux::F_WRLCK => Some(LockKind::Exclusive),
        linux::F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    };
    let is_ofd = matches!(command, linux::F_OFD_GETLK | linux::F_OFD_SETLK | linux::F_OFD_SETLKW);
    if is_ofd && flock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let owner = if is_ofd {
        LockOwner::Description(description.id)
    } else {
        LockOwner::Process(ctx.fds().borrow().lock_owner())
    };
    let pid = ctx.task().tgid.0;
    let record = RecordLock { owner, pid, start, last, kind: kind.unwrap_or(LockKind::Shared) };
    Ok((flock, kind, record))
}

pub(super) fn get_lock(ctx: &Ctx<'_>, description: &FileDescription, command: u32, addr: u64) -> SysResult {
    let (mut flock, kind, wanted) = read_lock(ctx, description, command, addr)?;
    if kind.is_none() {
        return Err(Errno::EINVAL.into());
    }
    let cx = ctx.fs();
    let key = LockTable::key_of(&cx, description)?;
    match cx.vfs.locks().find_conflict(key, &wanted) {
        None => flock.l_type = linux::F_UNLCK as i16,
        Some(held) => {
            flock.l_type = match held.kind {
                LockKind::Shared => linux::F_RDLCK as i16,
                LockKind::Exclusive => linux::F_WRLCK as i16,
            };
            flock.l_whence = linux::SEEK_SET as i16;
            flock.l_start = held.start as i64;
            flock.l_len = if held.last == LAST_BYTE { 0 } else { (held.last - held.start + 1) as i64 };
            flock.l_pid = match held.owner {
                LockOwner::Process(_) => held.pid as i32,
                LockOwner::Description(_) => -1,
            };
        }
    }
    ctx.copy_out(addr, &flock)?;
    Ok(0)
}

pub(super) fn set_lock(
    ctx: &mut Ctx<'_>,
    description: &FileDescription,
    command: u32,
    addr: u64,
) -> SysResult {
    let (_, kind, wanted) = read_lock(ctx, description, command, addr)?;
    match kind {
        Some(LockKind::Shared) => description.check_readable()?,
        Some(LockKind::Exclusive) => description.check_writable()?,
        None => {}
    }
    let key = LockTable::key_of(&ctx.fs(), description)?;
    let locks = ctx.fs().vfs.locks().clone();
    if kind.is_none() {
        locks.unlock_record(key, &wanted);
        return Ok(0);
    }
    match locks.lock_record(key, description, wanted) {
        Ok(()) => Ok(0),
        Err(error @ LockError::Conflict(_)) if matches!(command, linux::F_SETLKW | linux::F_OFD_SETLKW) => {
            let waiting = locks.wait_for(key, wanted)?;
            ctx.keep(waiting);
            Err(error.or_wait())
        }
        Err(error) => Err(error.or_again()),
    }
}

/// Returns the kind of lease that the caller has: there are none.
pub(super) fn get_lease() -> u64 {
    u64::from(linux::F_UNLCK)
}

/// Refuses a lease, as file systems do that do not offer them.
pub(super) fn set_lease(ctx: &Ctx<'_>, description: &FileDescription, kind: u32) -> SysResult {
    let attr = description.inode().attr(&ctx.fs())?;
    let creds = &ctx.task().creds;
    if attr.uid != creds.fsuid && !creds.has_capability(linux::CAP_LEASE) {
        return Err(Errno::EACCES.into());
    }
    let is_file = attr.mode & linux::S_IFMT == linux::S_IFREG;
    if is_file && kind == linux::F_UNLCK { Err(Errno::EAGAIN.into()) } else { Err(Errno::EINVAL.into()) }
}

pub(super) fn sys_flock(ctx: &mut Ctx<'_>, [fd, operation, ..]: [u64; 6]) -> SysResult {
    // Mandatory locks were never more than a wish.
    if operation as u32 & linux::LOCK_MAND != 0 {
        return Ok(0);
    }
    let kind = match operation as u32 & !linux::LOCK_NB {
        linux::LOCK_SH => Some(LockKind::Shared),
        linux::LOCK_EX => Some(LockKind::Exclusive),
        linux::LOCK_UN => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let description = ctx.open_fd(fd)?;
    let cx = ctx.fs();
    let key = LockTable::key_of(&cx, &description)?;
    match cx.vfs.locks().flock(key, &description, kind) {
        Ok(()) => Ok(0),
        Err(error) if operation as u32 & linux::LOCK_NB != 0 => Err(error.or_again()),
        Err(error) => Err(error.or_wait()),
    }
}
