//! Locked memory: mlock(2) and its family.

use lg_abi::Errno;
use lg_abi::raw::general::{
    CAP_IPC_LOCK, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT, RLIMIT_MEMLOCK,
};
use lg_platform::{UserAddr, UserRange};

use super::Ctx;
use super::memory::rounded_range;
use crate::mm::{Locking, MemoryFault, VmaFlags, whole_pages};
use crate::task::SysResult;

/// Returns how many pages the caller may lock. Errors: EPERM where it may not lock any.
pub(super) fn lock_limit(ctx: &Ctx<'_>) -> Result<u64, Errno> {
    if ctx.task().creds.has_capability(CAP_IPC_LOCK) {
        return Ok(u64::MAX);
    }
    match ctx.rlimit(RLIMIT_MEMLOCK).cur {
        0 => Err(Errno::EPERM),
        bytes => Ok(whole_pages(bytes)),
    }
}

/// Returns the pages that a range of bytes touches. Errors: EINVAL, ENOMEM.
fn touched(addr: u64, len: u64) -> Result<UserRange, Errno> {
    let start = UserAddr(addr).page_floor();
    rounded_range(start.0, len.wrapping_add(UserAddr(addr).page_offset() as u64), Errno::EINVAL)
}

pub(super) fn sys_mlock(ctx: &mut Ctx<'_>, [addr, len, ..]: [u64; 6]) -> SysResult {
    lock(ctx, addr, len, 0)
}

pub(super) fn sys_mlock2(ctx: &mut Ctx<'_>, [addr, len, flags, ..]: [u64; 6]) -> SysResult {
    if flags & !u64::from(MLOCK_ONFAULT) != 0 {
        return Err(Errno::EINVAL.into());
    }
    lock(ctx, addr, len, flags as u32)
}

fn lock(ctx: &mut Ctx<'_>, addr: u64, len: u64, flags: u32) -> SysResult {
    let limit = lock_limit(ctx)?;
    let range = touched(addr, len)?;
    let mm = ctx.task().mm.clone();
    let mut mm = mm.borrow_mut();
    let locked = mm.locked_pages().saturating_add(range.pages()).saturating_sub(mm.locked_in(range));
    if locked > limit {
        return Err(Errno::ENOMEM.into());
    }
    if range.is_empty() {
        return Ok(0);
    }
    mm.set_flags(range, VmaFlags::LOCKED, VmaFlags::empty())?;
    if flags & MLOCK_ONFAULT == 0 {
        mm.populate_for_use(range).map_err(|fault| match fault {
            MemoryFault::OutOfMemory => Errno::EAGAIN,
            _ => Errno::ENOMEM,
        })?;
    }
    Ok(0)
}

pub(super) fn sys_munlock(ctx: &mut Ctx<'_>, [addr, len, ..]: [u64; 6]) -> SysResult {
    let range = touched(addr, len)?;
    if !range.is_empty() {
        ctx.task().mm.borrow_mut().set_flags(range, VmaFlags::empty(), VmaFlags::LOCKED)?;
    }
    Ok(0)
}

pub(super) fn sys_mlockall(ctx: &mut Ctx<'_>, [flags, ..]: [u64; 6]) -> SysResult {
    let known = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
    if flags == 0 || flags & !u64::from(known) != 0 || flags as u32 == MCL_ONFAULT {
        return Err(Errno::EINVAL.into());
    }
    let flags = flags as u32;
    let limit = lock_limit(ctx)?;
    let mm = ctx.task().mm.clone();
    let mut mm = mm.borrow_mut();
    let locks_current = flags & MCL_CURRENT != 0;
    if locks_current && whole_pages(mm.mapped_bytes()) > limit {
        return Err(Errno::ENOMEM.into());
    }
    let future = if flags & MCL_FUTURE != 0 { Locking::Locked } else { Locking::Unlocked };
    mm.set_all_locked(locks_current.then_some(Locking::Locked), future);
    if locks_current && flags & MCL_ONFAULT == 0 {
        mm.populate_all();
    }
    Ok(0)
}

pub(super) fn sys_munlockall(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    ctx.task().mm.borrow_mut().set_all_locked(Some(Locking::Unlocked), Locking::Unlocked);
    Ok(0)
}
