//! Waiting for several files: poll(2), select(2) and their variants.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, PollFd, SigSet, Timespec, Timeval};

use super::Ctx;
use super::io::wait_for;
use crate::task::{Stop, SysResult, Wait};
use crate::vfs::Readiness;

/// Most descriptors of one select(2).
const MAX_SELECT: i32 = 65_536;

pub(super) fn sys_poll(ctx: &mut Ctx<'_>, [fds, count, timeout_ms, ..]: [u64; 6]) -> SysResult {
    let deadline_ns = match timeout_ms as i32 {
        ms if ms < 0 => None,
        ms => Some(ctx.deadline_after(ms as u64 * 1_000_000)),
    };
    poll(ctx, fds, count, deadline_ns)
}

pub(super) fn sys_ppoll(ctx: &mut Ctx<'_>, [fds, count, timeout, mask, mask_len, _]: [u64; 6]) -> SysResult {
    let deadline_ns = ctx.deadline_from(timeout)?;
    lend_mask(ctx, mask, mask_len)?;
    let result = poll(ctx, fds, count, deadline_ns);
    if timeout != 0 {
        write_remaining(ctx, timeout, deadline_ns, &result);
    }
    result
}

/// Puts the signal mask of a waiting call in force; NULL leaves the task's own.
pub(super) fn lend_mask(ctx: &mut Ctx<'_>, mask: u64, len: u64) -> Result<(), Errno> {
    if mask == 0 {
        return Ok(());
    }
    if len != 8 {
        return Err(Errno::EINVAL);
    }
    let mask: SigSet = ctx.copy_in(mask)?;
    ctx.set_temporary_mask(mask);
    Ok(())
}

/// Writes what is left of a time-out back once the call is over, as Linux does.
fn write_remaining(ctx: &Ctx<'_>, timeout: u64, deadline_ns: Option<u64>, result: &SysResult) {
    if let (Some(deadline_ns), Ok(_)) = (deadline_ns, result) {
        let left = Timespec::from_ns(deadline_ns.saturating_sub(ctx.now_ns()));
        // As on Linux, a time-out in read-only memory is no error.
        let _ = ctx.copy_out(timeout, &left);
    }
}

fn poll(ctx: &mut Ctx<'_>, addr: u64, count: u64, deadline_ns: Option<u64>) -> SysResult {
    let count = u64::from(count as u32);
    if count > ctx.rlimit(linux::RLIMIT_NOFILE).cur {
        return Err(Errno::EINVAL.into());
    }
    let mut entries = Vec::with_capacity(count.min(1024) as usize);
    for index in 0..count {
        let at = addr.checked_add(index * size_of::<PollFd>() as u64).ok_or(Errno::EFAULT)?;
        entries.push(ctx.copy_in::<PollFd>(at)?);
    }
    let mut ready = 0;
    let mut wait = Wait::default();
    for entry in &mut entries {
        entry.revents = 0;
        if entry.fd < 0 {
            continue;
        }
        let found = match ctx.open_fd(entry.fd as u64) {
            Err(_) => Readiness::NVAL,
            Ok(description) => {
                let wanted = Readiness::from_bits_truncate(u32::from(entry.events as u16))
                    | Readiness::ERR
                    | Readiness::HUP;
                let found = description.file.readiness(&ctx.fs()) & wanted;
                if found.is_empty() {
                    merge(&mut wait, wait_for(&description, wanted));
                }
                found
            }
        };
        entry.revents = found.bits() as u16 as i16;
        ready += u64::from(!found.is_empty());
    }
    if ready == 0 {
        wait_or_time_out(ctx, wait, deadline_ns)?;
    }
    for (index, entry) in entries.iter().enumerate() {
        let at = addr.wrapping_add((index * size_of::<PollFd>() + 6) as u64);
        ctx.copy_out(at, &entry.revents)?;
    }
    Ok(ready)
}

/// Adds the events of one file to those of the others.
pub(super) fn merge(all: &mut Wait, one: Wait) {
    all.queues.extend(one.queues);
    all.host.extend(one.host);
    all.deadline_ns = match (all.deadline_ns, one.deadline_ns) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

/// Sleeps until one of the events or the deadline; returns once the deadline has passed.
pub(super) fn wait_or_time_out(ctx: &Ctx<'_>, mut wait: Wait, deadline_ns: Option<u64>) -> Result<(), Stop> {
    if deadline_ns.is_some_and(|deadline_ns| ctx.now_ns() >= deadline_ns) {
        return Ok(());
    }
    merge(&mut wait, Wait::default().until(deadline_ns));
    Err(Stop::Block(wait.interruptible()))
}

pub(super) fn sys_select(
    ctx: &mut Ctx<'_>,
    [count, reads, writes, excepts, timeout, _]: [u64; 6],
) -> SysResult {
    let deadline_ns = if timeout == 0 {
        None
    } else {
        let timeout: Timeval = ctx.copy_in(timeout)?;
        if timeout.tv_sec < 0 || timeout.tv_usec < 0 {
            return Err(Errno::EINVAL.into());
        }
        let ns = (timeout.tv_sec as u64)
            .saturating_mul(Timespec::NS_PER_SEC)
            .saturating_add((timeout.tv_usec as u64).saturating_mul(1000));
        Some(ctx.deadline_after(ns))
    };
    let result = select(ctx, count as i32, [reads, writes, excepts], deadline_ns);
    if let (Some(deadline_ns), Ok(_)) = (deadline_ns, &result) {
        let left = Timeval::from_ns(deadline_ns.saturating_sub(ctx.now_ns()));
        let _ = ctx.copy_out(timeout, &left);
    }
    result
}

pub(super) fn sys_pselect6(
    ctx: &mut Ctx<'_>,
    [count, reads, writes, excepts, timeout, mask]: [u64; 6],
) -> SysResult {
    let deadline_ns = ctx.deadline_from(timeout)?;
    if mask != 0 {
        // A pointer to the mask and its length.
        let [addr, len]: [u64; 2] = ctx.copy_in(mask)?;
        lend_mask(ctx, addr, len)?;
    }
    let result = select(ctx, count as i32, [reads, writes, excepts], deadline_ns);
    if timeout != 0 {
        write_remaining(ctx, timeout, deadline_ns, &result);
    }
    result
}

fn select(ctx: &mut Ctx<'_>, count: i32, sets: [u64; 3], deadline_ns: Option<u64>) -> SysResult {
    if count < 0 {
        return Err(Errno::EINVAL.into());
    }
    let count = count.min(MAX_SELECT) as usize;
    let len = count.div_ceil(64) * 8;
    // What each set asks for, and what satisfies it (select(2), "Correspondence between select() and poll()").
    let wanted = [Readiness::READABLE, Readiness::WRITABLE, Readiness::PRI];
    let satisfied = [
        Readiness::READABLE | Readiness::HUP | Readiness::ERR,
        Readiness::WRITABLE | Readiness::ERR,
        Readiness::PRI,
    ];
    let mut asked: [Vec<u8>; 3] = Default::default();
    for (set, addr) in asked.iter_mut().zip(sets) {
        if addr != 0 {
            *set = vec![0; len];
            ctx.read_bytes(addr, set)?;
        }
    }
    let mut answers = asked.clone().map(|set| vec![0; set.len()]);
    let has = |set: &[u8], fd: usize| set.get(fd / 8).is_some_and(|byte| byte & 1 << (fd % 8) != 0);
    let mut ready = 0;
    let mut wait = Wait::default();
    for fd in 0..count {
        if !asked.iter().any(|set| has(set, fd)) {
            continue;
        }
        let description = ctx.fd(fd as u64)?;
        let found = description.file.readiness(&ctx.fs());
        let mut waits_for = Readiness::empty();
        for which in 0..3 {
            if !has(&asked[which], fd) {
                continue;
            }
            if found.intersects(satisfied[which]) {
                answers[which][fd / 8] |= 1 << (fd % 8);
                ready += 1;
            } else {
                waits_for |= wanted[which];
            }
        }
        if !waits_for.is_empty() {
            merge(&mut wait, wait_for(&description, waits_for));
        }
    }
    if ready == 0 {
        wait_or_time_out(ctx, wait, deadline_ns)?;
    }
    for (answer, addr) in answers.iter().zip(sets) {
        if addr != 0 {
            ctx.write_bytes(addr, answer)?;
        }
    }
    Ok(ready)
}
