//! Scheduling: one processor, one policy.

use lg_abi::raw::general as linux;
use lg_abi::zerocopy::{FromBytes, IntoBytes};
use lg_abi::{Errno, SchedAttr};
use lg_platform::PAGE_SIZE;

use super::Ctx;
use super::priority::may_have_nice;
use crate::task::{Process, SLICE_NS, Settings, SysResult, Task, Tid};

fn check_task(ctx: &Ctx<'_>, pid: u64) -> Result<(), Errno> {
    match pid as i32 {
        0 => Ok(()),
        pid if pid < 0 => Err(Errno::EINVAL),
        pid if ctx.kernel.tasks.contains_key(&Tid(pid as u32)) => Ok(()),
        _ => Err(Errno::ESRCH),
    }
}

/// Where processors are chosen, a negative number is that of no task.
fn check_placed_task(ctx: &Ctx<'_>, pid: u64) -> Result<(), Errno> {
    check_task(ctx, pid).map_err(|_| Errno::ESRCH)
}

/// Reads the priority of `struct sched_param`.
///
/// Errors: EINVAL without one, EFAULT.
fn priority_of(ctx: &Ctx<'_>, param: u64) -> Result<i32, Errno> {
    if param == 0 { Err(Errno::EINVAL) } else { ctx.copy_in(param) }
}

pub(super) fn sys_sched_yield(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    ctx.kernel.yielded = true;
    Ok(0)
}

pub(super) fn sys_sched_getaffinity(ctx: &mut Ctx<'_>, [pid, len, mask, ..]: [u64; 6]) -> SysResult {
    // Linux counts the bits in 32 bits.
    let len = len as u32;
    if len.wrapping_mul(8) == 0 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    check_placed_task(ctx, pid)?;
    ctx.copy_out(mask, &1u64)?;
    Ok(8)
}

pub(super) fn sys_sched_setaffinity(ctx: &mut Ctx<'_>, [pid, len, mask, ..]: [u64; 6]) -> SysResult {
    check_placed_task(ctx, pid)?;
    let mut bytes = vec![0; (len as u32).min(128) as usize];
    ctx.read_bytes(mask, &mut bytes)?;
    // There is processor 0 and no other.
    if bytes.first().is_some_and(|byte| byte & 1 != 0) { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

/// Returns the thread that a call is about; 0 is the caller.
fn task_of<'c>(ctx: &'c Ctx<'_>, pid: u64) -> Result<&'c Task, Errno> {
    check_task(ctx, pid)?;
    let tid = if pid as i32 == 0 { ctx.tid } else { Tid(pid as u32) };
    ctx.kernel.tasks.get(&tid).ok_or(Errno::ESRCH)
}

pub(super) fn sys_sched_getscheduler(ctx: &mut Ctx<'_>, [pid, ..]: [u64; 6]) -> SysResult {
    // The parent of the first program is the kernel's own.
    if pid as u32 == Process::INIT.0 {
        return Ok(0);
    }
    let settings = task_of(ctx, pid)?.settings;
    let reset = if settings.reset_on_fork { linux::SCHED_RESET_ON_FORK } else { 0 };
    Ok(u64::from(settings.policy | reset))
}

pub(super) fn sys_sched_setscheduler(ctx: &mut Ctx<'_>, [pid, policy, param, ..]: [u64; 6]) -> SysResult {
    if (policy as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority = priority_of(ctx, param)?;
    check_task(ctx, pid)?;
    let wanted = Wanted {
        policy: policy as u32 & !linux::SCHED_RESET_ON_FORK,
        priority: priority as u32,
        nice: None,
        reset_on_fork: policy as u32 & linux::SCHED_RESET_ON_FORK != 0,
    };
    set_policy(ctx, pid, wanted)
}

/// What a thread's scheduling is to be.
struct Wanted {
    policy: u32,
    priority: u32,
    /// `None` to leave it.
    nice: Option<i32>,
    reset_on_fork: bool,
}

/// Sets policy and nice value of a thread.
///
/// Errors: EINVAL; EPERM for a better place than the caller may have, and for real-time policies, which are not
/// there; ESRCH.
fn set_policy(ctx: &mut Ctx<'_>, pid: u64, wanted: Wanted) -> SysResult {
    let is_real_time = matches!(wanted.policy, linux::SCHED_FIFO | linux::SCHED_RR);
    let is_known =
        is_real_time || matches!(wanted.policy, linux::SCHED_NORMAL | linux::SCHED_BATCH | linux::SCHED_IDLE);
    if !is_known || wanted.priority > 99 || is_real_time != (wanted.priority != 0) {
        return Err(Errno::EINVAL.into());
    }
    let task = task_of(ctx, pid)?;
    let (tid, settings) = (task.tid, task.settings);
    let nice = wanted.nice.unwrap_or(settings.nice);
    let own = &ctx.task().creds;
    let leaves_idle = settings.policy == linux::SCHED_IDLE && wanted.policy != linux::SCHED_IDLE;
    let needs_privilege = (nice < settings.nice && !may_have_nice(ctx, task, nice))
        || (leaves_idle && !may_have_nice(ctx, task, settings.nice))
        || ![task.creds.euid, task.creds.uid].contains(&own.euid)
        || (settings.reset_on_fork && !wanted.reset_on_fork);
    if is_real_time || (needs_privilege && !own.has_capability(linux::CAP_SYS_NICE)) {
        return Err(Errno::EPERM.into());
    }
    if let Some(task) = ctx.kernel.tasks.get_mut(&tid) {
        let (policy, reset_on_fork) = (wanted.policy, wanted.reset_on_fork);
        task.settings = Settings { policy, nice, reset_on_fork, ..task.settings };
    }
    Ok(0)
}

/// Length of the first version of `struct sched_attr`.
const ATTR_LEN_FIRST: usize = 48;

/// Flags of `struct sched_attr` (sched_setattr(2)).
const ATTR_RESET_ON_FORK: u64 = 0x01;
const ATTR_KEEP_POLICY: u64 = 0x08;
const ATTR_KEEP_PARAMS: u64 = 0x10;
const ATTR_UTIL_CLAMP: u64 = 0x60;
const ATTR_KNOWN: u64 = 0x7f;

pub(super) fn sys_sched_getattr(ctx: &mut Ctx<'_>, [pid, to, len, flags, ..]: [u64; 6]) -> SysResult {
    let len = len as u32 as usize;
    if to == 0 || (pid as i32) < 0 || !(ATTR_LEN_FIRST..=PAGE_SIZE).contains(&len) || flags as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let settings = task_of(ctx, pid)?.settings;
    let len = len.min(size_of::<SchedAttr>());
    let attr = SchedAttr {
        size: len as u32,
        policy: settings.policy,
        flags: if settings.reset_on_fork { ATTR_RESET_ON_FORK } else { 0 },
        nice: settings.nice,
        ..SchedAttr::default()
    };
    ctx.write_bytes(to, &attr.as_bytes()[..len])?;
    Ok(0)
}

/// Copies `struct sched_attr` in, whatever its version.
///
/// Errors: EFAULT; E2BIG for a length or fields that are not known, and then the known length is told; EINVAL.
fn read_attr(ctx: &Ctx<'_>, from: u64) -> Result<SchedAttr, Errno> {
    let known = size_of::<SchedAttr>();
    let len = match ctx.copy_in::<u32>(from)? as usize {
        0 => ATTR_LEN_FIRST,
        len => len,
    };
    let mut bytes = vec![0; len.min(PAGE_SIZE)];
    let fits = (ATTR_LEN_FIRST..=PAGE_SIZE).contains(&len);
    if fits {
        ctx.read_bytes(from, &mut bytes)?;
    }
    if !fits || bytes.iter().skip(known).any(|byte| *byte != 0) {
        ctx.copy_out(from, &(known as u32))?;
        return Err(Errno::E2BIG);
    }
    bytes.resize(known, 0);
    let attr = SchedAttr::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
    if attr.flags & ATTR_UTIL_CLAMP != 0 && len < known {
        return Err(Errno::EINVAL);
    }
    Ok(attr)
}

pub(super) fn sys_sched_setattr(ctx: &mut Ctx<'_>, [pid, from, flags, ..]: [u64; 6]) -> SysResult {
    if from == 0 || (pid as i32) < 0 || flags as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let attr = read_attr(ctx, from)?;
    if (attr.policy as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let settings = task_of(ctx, pid)?.settings;
    if attr.flags & !ATTR_KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    if attr.flags & ATTR_UTIL_CLAMP != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    // There are no deadlines.
    if attr.policy == linux::SCHED_DEADLINE {
        return Err(Errno::EPERM.into());
    }
    let keeps_params = attr.flags & ATTR_KEEP_PARAMS != 0;
    let wanted = Wanted {
        // As on Linux, the policy is among the parameters that are kept.
        policy: if keeps_params || attr.flags & ATTR_KEEP_POLICY != 0 {
            settings.policy
        } else {
            attr.policy
        },
        priority: if keeps_params { 0 } else { attr.priority },
        nice: (!keeps_params).then(|| attr.nice.clamp(-20, 19)),
        reset_on_fork: attr.flags & ATTR_RESET_ON_FORK != 0,
    };
    set_policy(ctx, pid, wanted)
}

pub(super) fn sys_sched_getparam(ctx: &mut Ctx<'_>, [pid, param, ..]: [u64; 6]) -> SysResult {
    if param == 0 {
        return Err(Errno::EINVAL.into());
    }
    check_task(ctx, pid)?;
    ctx.copy_out(param, &0i32)?;
    Ok(0)
}

pub(super) fn sys_sched_setparam(ctx: &mut Ctx<'_>, [pid, param, ..]: [u64; 6]) -> SysResult {
    let priority = priority_of(ctx, param)?;
    check_task(ctx, pid)?;
    if priority == 0 { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

pub(super) fn sys_sched_get_priority_max(_ctx: &mut Ctx<'_>, [policy, ..]: [u64; 6]) -> SysResult {
    match policy as u32 {
        1 | 2 => Ok(99),
        0 | 3 | 5 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(super) fn sys_sched_get_priority_min(_ctx: &mut Ctx<'_>, [policy, ..]: [u64; 6]) -> SysResult {
    match policy as u32 {
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
