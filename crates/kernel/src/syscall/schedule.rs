//! Scheduling: one processor, one policy.

use lg_abi::Errno;

use super::Ctx;
use crate::task::{SLICE_NS, SysResult, Tid};

fn check_task(ctx: &Ctx<'_>, pid: u64) -> Result<(), Errno> {
    match pid as i32 {
        0 => Ok(()),
        pid if pid < 0 => Err(Errno::EINVAL),
        pid if ctx.kernel.tasks.contains_key(&Tid(pid as u32)) => Ok(()),
        _ => Err(Errno::ESRCH),
    }
}

pub(super) fn sys_sched_yield(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    ctx.kernel.yielded = true;
    Ok(0)
}

pub(super) fn sys_sched_getaffinity(ctx: &mut Ctx<'_>, [pid, len, mask, ..]: [u64; 6]) -> SysResult {
    check_task(ctx, pid)?;
    if len < 8 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    ctx.copy_out(mask, &1u64)?;
    Ok(8)
}

pub(super) fn sys_sched_setaffinity(ctx: &mut Ctx<'_>, [pid, len, mask, ..]: [u64; 6]) -> SysResult {
    check_task(ctx, pid)?;
    let mut bytes = vec![0; len.min(128) as usize];
    ctx.read_bytes(mask, &mut bytes)?;
    // There is processor 0 and no other.
    if bytes.first().is_some_and(|byte| byte & 1 != 0) { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

pub(super) fn sys_sched_getscheduler(ctx: &mut Ctx<'_>, [pid, ..]: [u64; 6]) -> SysResult {
    check_task(ctx, pid)?;
    Ok(0)
}

pub(super) fn sys_sched_setscheduler(ctx: &mut Ctx<'_>, [pid, policy, param, ..]: [u64; 6]) -> SysResult {
    check_task(ctx, pid)?;
    let priority: i32 = ctx.copy_in(param)?;
    match policy as u32 & !0x4000_0000 {
        // SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
        0 | 3 | 5 if priority == 0 => Ok(0),
        1 | 2 if (1..=99).contains(&priority) => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(super) fn sys_sched_getparam(ctx: &mut Ctx<'_>, [pid, param, ..]: [u64; 6]) -> SysResult {
    check_task(ctx, pid)?;
    ctx.copy_out(param, &0i32)?;
    Ok(0)
}

pub(super) fn sys_sched_setparam(ctx: &mut Ctx<'_>, [pid, param, ..]: [u64; 6]) -> SysResult {
    check_task(ctx, pid)?;
    let priority: i32 = ctx.copy_in(param)?;
    if priority == 0 { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

pub(super) fn sys_sched_get_priority_max(_ctx: &mut Ctx<'_>, [policy, ..]: [u64; 6]) -> SysResult {
    match policy {
        1 | 2 => Ok(99),
        0 | 3 | 5 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(super) fn sys_sched_get_priority_min(_ctx: &mut Ctx<'_>, [policy, ..]: [u64; 6]) -> SysResult {
    match policy {
        1 | 2 => Ok(1),
        0 | 3 | 5 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(super) fn sys_sched_rr_get_interval(ctx: &mut Ctx<'_>, [pid, to, ..]: [u64; 6]) -> SysResult {
    check_task(ctx, pid)?;
    ctx.copy_out(to, &lg_abi::Timespec::from_ns(SLICE_NS))?;
    Ok(0)
}

pub(super) fn sys_getcpu(ctx: &mut Ctx<'_>, [cpu, node, ..]: [u64; 6]) -> SysResult {
    ctx.copy_out_opt(cpu, &0u32)?;
    ctx.copy_out_opt(node, &0u32)?;
    Ok(0)
}

/// Priorities change nothing: every task gets its turn.
pub(super) fn sys_getpriority(_ctx: &mut Ctx<'_>, [which, ..]: [u64; 6]) -> SysResult {
    // The kernel answers 20 less the nice value.
    if which <= 2 { Ok(20) } else { Err(Errno::EINVAL.into()) }
}

pub(super) fn sys_setpriority(_ctx: &mut Ctx<'_>, [which, ..]: [u64; 6]) -> SysResult {
    if which <= 2 { Ok(0) } else { Err(Errno::EINVAL.into()) }
}
