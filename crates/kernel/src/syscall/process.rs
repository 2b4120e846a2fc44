//! Processes: making, ending, waiting, groups and sessions.

use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::zerocopy::FromBytes;
use lg_abi::{CloneArgs, Errno, Rusage, SigInfo, Signal, Timeval};

use super::Ctx;
use super::pidfd::{pidfd_at, process_of};
use crate::task::{
    ChildEvent, CloneRequest, ExitStatus, ProcessState, ResourceUse, Stop, SysResult, Tid, Wait, WaitOptions,
    WaitQueue, WaitTarget,
};

pub(super) fn sys_fork(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    start_child(ctx, CloneRequest { exit_signal: u64::from(Signal::SIGCHLD.number()), ..Default::default() })
}

pub(super) fn sys_vfork(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    start_child(
        ctx,
        CloneRequest {
            flags: u64::from(linux::CLONE_VFORK | linux::CLONE_VM),
            exit_signal: u64::from(Signal::SIGCHLD.number()),
            ..Default::default()
        },
    )
}

pub(super) fn sys_clone(
    ctx: &mut Ctx<'_>,
    [flags, stack, parent_tid, child_tid, tls, _]: [u64; 6],
) -> SysResult {
    let flags = flags & 0xffff_ffff;
    let exit_signal = flags & u64::from(linux::CSIGNAL);
    let flags = flags & !u64::from(linux::CSIGNAL);
    let pidfd = parent_tid;
    start_child(ctx, CloneRequest { flags, exit_signal, stack, parent_tid, pidfd, child_tid, tls })
}

pub(super) fn sys_clone3(ctx: &mut Ctx<'_>, [addr, size, ..]: [u64; 6]) -> SysResult {
    let full = size_of::<CloneArgs>() as u64;
    if !(64..=4096).contains(&size) {
        return Err(if size > 4096 { Errno::E2BIG.into() } else { Errno::EINVAL.into() });
    }
    let mut bytes = vec![0; size as usize];
    ctx.read_bytes(addr, &mut bytes)?;
    if bytes.iter().skip(full as usize).any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    bytes.resize(full as usize, 0);
    let args = CloneArgs::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
    let unsupported = args.set_tid_size != 0;
    let inconsistent = args.flags & u64::from(linux::CSIGNAL) != 0
        || (args.stack == 0) != (args.stack_size == 0)
        || args.exit_signal > u64::from(Signal::MAX);
    if unsupported || inconsistent {
        return Err(Errno::EINVAL.into());
    }
    let stack = args.stack.checked_add(args.stack_size).ok_or(Errno::EINVAL)?;
    start_child(
        ctx,
        CloneRequest {
            flags: args.flags,
            exit_signal: args.exit_signal,
            stack,
            parent_tid: args.parent_tid,
            pidfd: args.pidfd,
            child_tid: args.child_tid,
            tls: args.tls,
        },
    )
}

/// The child of a vfork whose parent sleeps until it has let go of the memory.
struct VforkChild {
    tid: Tid,
    done: Rc<WaitQueue>,
}

fn start_child(ctx: &mut Ctx<'_>, request: CloneRequest) -> SysResult {
    if let Some(child) = ctx.kept::<VforkChild>() {
        let borrows =
            ctx.kernel.tasks.get(&child.tid).is_some_and(|task| {
                task.vfork_done.as_ref().is_some_and(|done| Rc::ptr_eq(done, &child.done))
            });
        return if borrows { ctx.block(vfork_wait(&child.done)) } else { Ok(u64::from(child.tid.0)) };
    }
    let tid = ctx.kernel.clone_task(ctx.tid, &request)?;
    let done = ctx.kernel.tasks.get(&tid).and_then(|task| task.vfork_done.clone());
    match done {
        None => Ok(u64::from(tid.0)),
        Some(done) => {
            ctx.keep(Rc::new(VforkChild { tid, done: done.clone() }));
            ctx.block(vfork_wait(&done))
        }
    }
}

/// The parent of a vfork takes no signals while it waits, but its end: otherwise it would run on the memory
/// that its child uses.
fn vfork_wait(done: &Rc<WaitQueue>) -> Wait {
    Wait { uninterruptible: true, ..Wait::on([done.clone()]) }
}

pub(super) fn sys_exit(ctx: &mut Ctx<'_>, [status, ..]: [u64; 6]) -> SysResult {
    ctx.kernel.leave(ctx.tid, ExitStatus::Exited(status as u8));
    Err(Stop::NoReturn)
}

pub(super) fn sys_exit_group(ctx: &mut Ctx<'_>, [status, ..]: [u64; 6]) -> SysResult {
    let tgid = ctx.task().tgid;
    ctx.kernel.begin_exit(tgid, ExitStatus::Exited(status as u8));
    Err(Stop::NoReturn)
}

pub(super) fn sys_wait4(ctx: &mut Ctx<'_>, [pid, status, options, rusage, ..]: [u64; 6]) -> SysResult {
    let known = linux::WNOHANG
        | linux::WUNTRACED
        | linux::WCONTINUED
        | linux::__WALL
        | linux::__WCLONE
        | linux::__WNOTHREAD;
    if options & 0xffff_ffff & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = match pid as i32 {
        -1 => WaitTarget::Any,
        0 => WaitTarget::Group(ctx.process().pgid),
        i32::MIN => return Err(Errno::ESRCH.into()),
        pid @ 1.. => WaitTarget::Child(Tid(pid as u32)),
        pid => WaitTarget::Group(Tid(pid.unsigned_abs())),
    };
    let wanted = WaitOptions {
        ended: true,
        stopped: options & u64::from(linux::WUNTRACED) != 0,
        continued: options & u64::from(linux::WCONTINUED) != 0,
        keep: false,
    };
    match find_event(ctx, target, wanted, options)? {
        None => Ok(0),
        Some((tid, event, used)) => {
            ctx.copy_out_opt(status, &event.to_wait_status())?;
            ctx.copy_out_opt(rusage, &to_rusage(used))?;
            Ok(u64::from(tid.0))
        }
    }
}

pub(super) fn sys_waitid(ctx: &mut Ctx<'_>, args: [u64; 6]) -> SysResult {
    let info = args[2];
    let result = waitid(ctx, args);
    if info != 0 && matches!(result, Err(Stop::Errno(_))) {
        // Linux writes here even when the call fails, and a fault is what the caller hears of then.
        ctx.copy_out(info, &SigInfo { signo: 0, ..SigInfo::new(Signal::SIGCHLD, 0) })?;
    }
    result
}

fn waitid(ctx: &mut Ctx<'_>, [kind, id, info, options, rusage, _]: [u64; 6]) -> SysResult {
    let states = linux::WEXITED | linux::WSTOPPED | linux::WCONTINUED;
    let known =
        states | linux::WNOHANG | linux::WNOWAIT | linux::__WALL | linux::__WCLONE | linux::__WNOTHREAD;
    if options & !u64::from(known) != 0 || options & u64::from(states) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut is_nonblocking = false;
    let target = match kind as u32 {
        linux::P_ALL => WaitTarget::Any,
        linux::P_PID if id as i32 > 0 => WaitTarget::Child(Tid(id as u32)),
        linux::P_PIDFD if id as i32 >= 0 => {
            let (description, pidfd) = pidfd_at(ctx, id)?;
            is_nonblocking = description.is_nonblocking();
            WaitTarget::Child(process_of(ctx, &pidfd).map_err(|_| Errno::ECHILD)?.tgid)
        }
        linux::P_PGID if id as i32 == 0 => WaitTarget::Group(ctx.process().pgid),
        linux::P_PGID if id as i32 > 0 => WaitTarget::Group(Tid(id as u32)),
        _ => return Err(Errno::EINVAL.into()),
    };
    let has = |flag: u32| options & u64::from(flag) != 0;
    let wanted = WaitOptions {
        ended: has(linux::WEXITED),
        stopped: has(linux::WSTOPPED),
        continued: has(linux::WCONTINUED),
        keep: has(linux::WNOWAIT),
    };
    let nohang = u64::from(linux::WNOHANG);
    let found = find_event(ctx, target, wanted, if is_nonblocking { options | nohang } else { options })?;
    if found.is_none() && is_nonblocking && options & nohang == 0 {
        return Err(Errno::EAGAIN.into());
    }
    if info != 0 {
        let told = match found {
            None => SigInfo { signo: 0, ..SigInfo::new(Signal::SIGCHLD, 0) },
            Some((tid, event, _)) => {
                let (code, status) = event.to_code_and_status();
                SigInfo::from_child(code as i32, tid.0, 0, status)
            }
        };
        ctx.copy_out(info, &told)?;
    }
    if let Some((_, _, used)) = found {
        ctx.copy_out_opt(rusage, &to_rusage(used))?;
    }
    Ok(0)
}

fn find_event(
    ctx: &mut Ctx<'_>,
    target: WaitTarget,
    wanted: WaitOptions,
    options: u64,
) -> Result<Option<(Tid, ChildEvent, ResourceUse)>, Stop> {
    let found = ctx.kernel.find_child_event(ctx.tid, target, wanted)?;
    if found.is_none() && options & u64::from(linux::WNOHANG) == 0 {
        let queue = ctx.process().child_event.clone();
        return Err(Stop::Block(Wait::on([queue])));
    }
    Ok(found)
}

/// Returns the resource use as getrusage(2) writes it. Time is not split: all of it counts as user time.
pub(super) fn to_rusage(used: ResourceUse) -> Rusage {
    Rusage {
        utime: Timeval::from_ns(used.cpu_ns),
        maxrss: (used.max_resident_pages * 4) as i64,
        minflt: used.faults as i64,
        ..Rusage::default()
    }
}

pub(super) fn sys_getpgid(ctx: &mut Ctx<'_>, [pid, ..]: [u64; 6]) -> SysResult {
    let tgid = if pid as i32 == 0 { ctx.task().tgid } else { Tid(pid as u32) };
    let process = ctx.kernel.processes.get(&tgid).ok_or(Errno::ESRCH)?;
    Ok(u64::from(process.pgid.0))
}

pub(super) fn sys_getpgrp(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.process().pgid.0))
}

pub(super) fn sys_getsid(ctx: &mut Ctx<'_>, [pid, ..]: [u64; 6]) -> SysResult {
    let tgid = if pid as i32 == 0 { ctx.task().tgid } else { Tid(pid as u32) };
    let process = ctx.kernel.processes.get(&tgid).ok_or(Errno::ESRCH)?;
    Ok(u64::from(process.sid.0))
}

pub(super) fn sys_setpgid(ctx: &mut Ctx<'_>, [pid, pgid, ..]: [u64; 6]) -> SysResult {
    if (pgid as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let own = ctx.task().tgid;
    let target = if pid as i32 == 0 { own } else { Tid(pid as u32) };
    let pgid = if pgid as i32 == 0 { target } else { Tid(pgid as u32) };
    let own_sid = ctx.process().sid;
    let process = ctx.kernel.processes.get(&target).ok_or(Errno::ESRCH)?;
    if target != own {
        if process.parent != own {
            return Err(Errno::ESRCH.into());
        }
        if process.has_execed {
            return Err(Errno::EACCES.into());
        }
    }
    let exists = pgid == target
        || ctx.kernel.processes.values().any(|other| other.pgid == pgid && other.sid == own_sid);
    if process.sid != own_sid || process.sid == target || !exists {
        return Err(Errno::EPERM.into());
    }
    if let Some(process) = ctx.kernel.processes.get_mut(&target) {
        process.pgid = pgid;
    }
    Ok(0)
}

pub(super) fn sys_setsid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    let tgid = ctx.task().tgid;
    let leads = ctx
        .kernel
        .processes
        .values()
        .any(|process| process.pgid == tgid && process.state == ProcessState::Alive);
    if leads {
        return Err(Errno::EPERM.into());
    }
    let process = ctx.process_mut();
    process.sid = tgid;
    process.pgid = tgid;
    Ok(u64::from(tgid.0))
}

pub(super) fn sys_set_tid_address(ctx: &mut Ctx<'_>, [addr, ..]: [u64; 6]) -> SysResult {
    ctx.task_mut().clear_child_tid = addr;
    Ok(u64::from(ctx.tid.0))
}

pub(super) fn sys_getpid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.task().tgid.0))
}

pub(super) fn sys_gettid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.tid.0))
}

pub(super) fn sys_getppid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.process().parent.0))
}
