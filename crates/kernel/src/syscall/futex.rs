//! Futexes: futex(2) and robust lists.

use lg_abi::Errno;
use lg_abi::Timespec;
use lg_abi::raw::general as linux;

use super::Ctx;
use crate::futex::{FutexWaiter, Sharing, futex_key};
use crate::task::{SysResult, Wait};

pub(super) fn sys_futex(ctx: &mut Ctx<'_>, [addr, op, value, timeout, addr2, value3]: [u64; 6]) -> SysResult {
    let realtime = op as u32 & linux::FUTEX_CLOCK_REALTIME != 0;
    let sharing = if op as u32 & linux::FUTEX_PRIVATE_FLAG != 0 { Sharing::Private } else { Sharing::Shared };
    let command = op as u32 & !(linux::FUTEX_PRIVATE_FLAG | linux::FUTEX_CLOCK_REALTIME);
    let value = value as u32;
    match command {
        linux::FUTEX_WAIT => {
            let deadline_ns = ctx.deadline_from(timeout)?;
            wait(ctx, addr, sharing, value, deadline_ns, u32::MAX)
        }
        linux::FUTEX_WAIT_BITSET => {
            let deadline_ns = absolute_deadline(ctx, timeout, realtime)?;
            wait(ctx, addr, sharing, value, deadline_ns, value3 as u32)
        }
        linux::FUTEX_WAKE => wake(ctx, addr, sharing, value, u32::MAX),
        linux::FUTEX_WAKE_BITSET => wake(ctx, addr, sharing, value, value3 as u32),
        linux::FUTEX_REQUEUE | linux::FUTEX_CMP_REQUEUE => {
            // The time-out argument holds how many to move.
            let (wake_count, move_count) = (value as i32, timeout as i32);
            if wake_count < 0 || move_count < 0 {
                return Err(Errno::EINVAL.into());
            }
            let mm = ctx.task().mm.clone();
            let from = futex_key(&mm, addr, sharing)?;
            let to = futex_key(&mm, addr2, sharing)?;
            if command == linux::FUTEX_CMP_REQUEUE && ctx.copy_in::<u32>(addr)? != value3 as u32 {
                return Err(Errno::EAGAIN.into());
            }
            let woken = ctx.kernel.futexes.wake(from, wake_count as u64, u32::MAX);
            let moved = ctx.kernel.futexes.requeue(from, to, move_count as u64);
            Ok(if command == linux::FUTEX_CMP_REQUEUE { woken + moved } else { woken })
        }
        linux::FUTEX_WAKE_OP => wake_op(ctx, [addr, addr2], sharing, value, timeout as u32, value3 as u32),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Returns the deadline of FUTEX_WAIT_BITSET, which is a time and not a span.
fn absolute_deadline(ctx: &mut Ctx<'_>, addr: u64, realtime: bool) -> Result<Option<u64>, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    let ns = ctx.copy_in::<Timespec>(addr)?.to_ns().ok_or(Errno::EINVAL)?;
    Ok(Some(if realtime { ns.saturating_sub(ctx.kernel.clock.boot_realtime_ns()) } else { ns }))
}

fn wait(
    ctx: &mut Ctx<'_>,
    addr: u64,
    sharing: Sharing,
    expected: u32,
    deadline_ns: Option<u64>,
    bitset: u32,
) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let waiter = match ctx.kept::<FutexWaiter>() {
        Some(waiter) if waiter.is_woken() => return Ok(0),
        Some(waiter) => waiter,
        None => {
            let mm = ctx.task().mm.clone();
            let key = futex_key(&mm, addr, sharing)?;
            if ctx.copy_in::<u32>(addr)? != expected {
                return Err(Errno::EAGAIN.into());
            }
            let waiter = ctx.kernel.futexes.wait(key, bitset);
            ctx.keep(waiter.clone());
            waiter
        }
    };
    if deadline_ns.is_some_and(|deadline_ns| ctx.now_ns() >= deadline_ns) {
        return Err(Errno::ETIMEDOUT.into());
    }
    let wait = Wait::on([waiter.queue().clone()]).until(deadline_ns);
    // A time-out that starts anew after a handler would never end.
    ctx.block(if deadline_ns.is_some() { wait.interruptible() } else { wait })
}

fn wake(ctx: &mut Ctx<'_>, addr: u64, sharing: Sharing, count: u32, bitset: u32) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = ctx.task().mm.clone();
    let key = futex_key(&mm, addr, sharing)?;
    // Linux wakes one where the count is zero or negative.
    let count = (count as i32).max(1) as u64;
    Ok(ctx.kernel.futexes.wake(key, count, bitset))
}

/// FUTEX_WAKE_OP: changes the second word, wakes sleepers on the first, and, if the second word's old value
/// passes a test, on the second.
fn wake_op(
    ctx: &mut Ctx<'_>,
    [addr, addr2]: [u64; 2],
    sharing: Sharing,
    count: u32,
    count2: u32,
    encoded: u32,
) -> SysResult {
    let mm = ctx.task().mm.clone();
    let (key, key2) = (futex_key(&mm, addr, sharing)?, futex_key(&mm, addr2, sharing)?);
    let sign_extend = |bits: u32| ((bits << 20) as i32) >> 20;
    let operand = sign_extend(encoded >> 12 & 0xfff) as u32;
    let compared = sign_extend(encoded & 0xfff);
    let operand = if encoded >> 28 & 8 != 0 { 1u32 << (operand & 31) } else { operand };
    let old: u32 = ctx.copy_in(addr2)?;
    let new = match encoded >> 28 & 7 {
        0 => operand,
        1 => old.wrapping_add(operand),
        2 => old | operand,
        3 => old & !operand,
        4 => old ^ operand,
        _ => return Err(Errno::ENOSYS.into()),
    };
    let signed = old as i32;
    let passes = match encoded >> 24 & 0xf {
        0 => signed == compared,
        1 => signed != compared,
        2 => signed < compared,
        3 => signed <= compared,
        4 => signed > compared,
        5 => signed >= compared,
        _ => return Err(Errno::ENOSYS.into()),
    };
    ctx.copy_out(addr2, &new)?;
    let mut woken = ctx.kernel.futexes.wake(key, (count as i32).max(1) as u64, u32::MAX);
    if passes {
        woken += ctx.kernel.futexes.wake(key2, (count2 as i32).max(1) as u64, u32::MAX);
    }
    Ok(woken)
}

pub(super) fn sys_set_robust_list(ctx: &mut Ctx<'_>, [head, len, ..]: [u64; 6]) -> SysResult {
    if len != 24 {
        return Err(Errno::EINVAL.into());
    }
    ctx.task_mut().robust_list = head;
    Ok(0)
}

pub(super) fn sys_get_robust_list(ctx: &mut Ctx<'_>, [tid, head, len, ..]: [u64; 6]) -> SysResult {
    let tid = if tid as i32 == 0 { ctx.tid } else { crate::task::Tid(tid as u32) };
    let list = ctx.kernel.tasks.get(&tid).ok_or(Errno::ESRCH)?.robust_list;
    ctx.copy_out(head, &list)?;
    ctx.copy_out(len, &24u64)?;
    Ok(0)
}
