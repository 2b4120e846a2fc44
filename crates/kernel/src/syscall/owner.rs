//! Who is told when something can be read or written, and by which signal: F_SETOWN and the like of fcntl(2). It is kept and
//! told again; no signal is sent.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Signal};

use super::Ctx;
use crate::task::{SysResult, Tid};
use crate::vfs::{FileDescription, FileOwner};

/// Returns the owner as F_GETOWN does: negative for a process group.
pub(super) fn get(description: &FileDescription) -> u64 {
    match description.owner() {
        FileOwner::Group(group) => (-(group as i32)) as u64,
        FileOwner::Process(pid) | FileOwner::Thread(pid) => u64::from(pid),
        FileOwner::Nobody => 0,
    }
}

/// Does F_SETOWN. Errors: EINVAL, ESRCH.
pub(super) fn set(ctx: &Ctx<'_>, description: &FileDescription, who: i32) -> SysResult {
    let owner = match who {
        0 => FileOwner::Nobody,
        1.. => FileOwner::Process(who as u32),
        i32::MIN => return Err(Errno::EINVAL.into()),
        _ => FileOwner::Group(who.unsigned_abs()),
    };
    change(ctx, description, owner)
}

/// Does F_GETOWN_EX. Errors: EFAULT.
pub(super) fn get_typed(ctx: &Ctx<'_>, description: &FileDescription, to: u64) -> SysResult {
    let (kind, number) = match description.owner() {
        FileOwner::Thread(tid) => (linux::F_OWNER_TID, tid),
        FileOwner::Process(pid) => (linux::F_OWNER_PID, pid),
        FileOwner::Group(group) => (linux::F_OWNER_PGRP, group),
        FileOwner::Nobody => (linux::F_OWNER_TID, 0),
    };
    ctx.copy_out(to, &[kind, number])?;
    Ok(0)
}

/// Does F_SETOWN_EX. Errors: EFAULT, EINVAL, ESRCH.
pub(super) fn set_typed(ctx: &Ctx<'_>, description: &FileDescription, from: u64) -> SysResult {
    let [kind, number]: [u32; 2] = ctx.copy_in(from)?;
    let owner = match (kind, number) {
        (linux::F_OWNER_TID | linux::F_OWNER_PID | linux::F_OWNER_PGRP, 0) => FileOwner::Nobody,
        (linux::F_OWNER_TID, tid) => FileOwner::Thread(tid),
        (linux::F_OWNER_PID, pid) => FileOwner::Process(pid),
        (linux::F_OWNER_PGRP, group) => FileOwner::Group(group),
        _ => return Err(Errno::EINVAL.into()),
    };
    change(ctx, description, owner)
}

fn change(ctx: &Ctx<'_>, description: &FileDescription, owner: FileOwner) -> SysResult {
    let kernel = &ctx.kernel;
    let is_there = match owner {
        FileOwner::Nobody => true,
        FileOwner::Thread(tid) => kernel.tasks.contains_key(&Tid(tid)),
        FileOwner::Process(pid) => kernel.processes.contains_key(&Tid(pid)),
        FileOwner::Group(group) => kernel.processes.values().any(|process| process.pgid == Tid(group)),
    };
    if !is_there {
        return Err(Errno::ESRCH.into());
    }
    description.set_owner(owner);
    Ok(0)
}

/// Does F_SETSIG. Errors: EINVAL.
pub(super) fn set_signal(description: &FileDescription, signal: u64) -> SysResult {
    let signal = signal as u32;
    if signal > u32::from(Signal::MAX) {
        return Err(Errno::EINVAL.into());
    }
    description.set_signal(signal);
    Ok(0)
}
