//! Signals: sigaction, masks, sending, waiting.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigAction, SigInfo, SigSet, SigStack, Signal};

use super::Ctx;
use crate::signal::{Sent, SignalTarget, on_alt_stack};
use crate::task::{Stop, SysResult, Tid, Wait};

/// Size of the kernel's `sigset_t`.
const SIGSET_LEN: u64 = 8;

pub(super) fn check_sigset_len(len: u64) -> Result<(), Errno> {
    if len == SIGSET_LEN { Ok(()) } else { Err(Errno::EINVAL) }
}

pub(super) fn signal_or_none(number: u64) -> Result<Option<Signal>, Errno> {
    match number as u32 {
        0 => Ok(None),
        number => Signal::new(u64::from(number)).map(Some).ok_or(Errno::EINVAL),
    }
}

pub(super) fn sys_rt_sigaction(ctx: &mut Ctx<'_>, [signal, new, old, len, ..]: [u64; 6]) -> SysResult {
    check_sigset_len(len)?;
    let action = if new == 0 { None } else { Some(ctx.copy_in::<SigAction>(new)?) };
    let signal = Signal::new(u64::from(signal as u32)).ok_or(Errno::EINVAL)?;
    if action.is_some() && SigSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL.into());
    }
    let actions = ctx.task().actions.clone();
    let before = actions.borrow().get(signal);
    if let Some(action) = action {
        actions.borrow_mut().set(signal, action);
        if actions.borrow().ignores(signal) {
            // What is ignored does not stay pending.
            let only = SigSet::only(signal);
            ctx.process_mut().pending.discard(only);
            ctx.task_mut().pending.discard(only);
        }
    }
    ctx.copy_out_opt(old, &before)?;
    Ok(0)
}

pub(super) fn sys_rt_sigprocmask(ctx: &mut Ctx<'_>, [how, new, old, len, ..]: [u64; 6]) -> SysResult {
    check_sigset_len(len)?;
    let before = ctx.task().mask;
    if new != 0 {
        let set: SigSet = ctx.copy_in(new)?;
        let mask = match how as u32 {
            linux::SIG_BLOCK => before.union(set),
            linux::SIG_UNBLOCK => before.minus(set),
            linux::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        ctx.task_mut().mask = mask.minus(SigSet::UNBLOCKABLE);
    }
    ctx.copy_out_opt(old, &before)?;
    Ok(0)
}

pub(super) fn sys_rt_sigpending(ctx: &mut Ctx<'_>, [set, len, ..]: [u64; 6]) -> SysResult {
    if len > SIGSET_LEN {
        return Err(Errno::EINVAL.into());
    }
    let pending = ctx.task().pending.set().union(ctx.process().pending.set()).intersect(ctx.task().mask);
    let bytes = pending.0.to_le_bytes();
    ctx.write_bytes(set, &bytes[..len as usize])?;
    Ok(0)
}

pub(super) fn sys_rt_sigsuspend(ctx: &mut Ctx<'_>, [set, len, ..]: [u64; 6]) -> SysResult {
    check_sigset_len(len)?;
    let mask: SigSet = ctx.copy_in(set)?;
    ctx.set_temporary_mask(mask);
    ctx.block(Wait::default().interruptible())
}

pub(super) fn sys_pause(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    ctx.block(Wait::default().interruptible())
}

pub(super) fn sys_rt_sigreturn(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    if ctx.kernel.pop_signal_frame(ctx.tid).is_err() {
        let info = SigInfo::new(Signal::SIGSEGV, SigInfo::SI_KERNEL);
        ctx.kernel.force_signal(ctx.tid, Signal::SIGSEGV, info);
    }
    Err(Stop::NoReturn)
}

pub(super) fn sys_rt_sigtimedwait(ctx: &mut Ctx<'_>, [set, info, timeout, len, ..]: [u64; 6]) -> SysResult {
    check_sigset_len(len)?;
    let wanted = ctx.copy_in::<SigSet>(set)?.minus(SigSet::UNBLOCKABLE);
    let deadline_ns = ctx.deadline_from(timeout)?;
    if let Some((signal, told)) = ctx.kernel.take_pending(ctx.tid, wanted) {
        ctx.copy_out_opt(info, &told)?;
        return Ok(u64::from(signal.number()));
    }
    if deadline_ns.is_some_and(|deadline_ns| ctx.now_ns() >= deadline_ns) {
        return Err(Errno::EAGAIN.into());
    }
    let arrived = ctx.kernel.signal_arrived.clone();
    ctx.block(Wait::on([arrived]).until(deadline_ns).interruptible())
}

/// Linux makes a sleep that a stop has interrupted go on under this number. Here the call itself is made again, so
/// there is never one to go on with.
pub(super) fn sys_restart_syscall(_ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Err(Errno::EINTR.into())
}

pub(super) fn sys_kill(ctx: &mut Ctx<'_>, [pid, signal, ..]: [u64; 6]) -> SysResult {
    let signal = signal_or_none(signal)?;
    ctx.kernel.kill(ctx.tid, pid as i32, signal)?;
    Ok(0)
}

pub(super) fn sys_tkill(ctx: &mut Ctx<'_>, [tid, signal, ..]: [u64; 6]) -> SysResult {
    send_to_thread(ctx, None, tid as i32, signal, None)
}

pub(super) fn sys_tgkill(ctx: &mut Ctx<'_>, [tgid, tid, signal, ..]: [u64; 6]) -> SysResult {
    send_to_thread(ctx, Some(tgid as i32), tid as i32, signal, None)
}

fn send_to_thread(
    ctx: &mut Ctx<'_>,
    tgid: Option<i32>,
    tid: i32,
    signal: u64,
    info: Option<SigInfo>,
) -> SysResult {
    if tid <= 0 || tgid.is_some_and(|tgid| tgid <= 0) {
        return Err(Errno::EINVAL.into());
    }
    let signal = signal_or_none(signal)?;
    let target = ctx.kernel.tasks.get(&Tid(tid as u32)).ok_or(Errno::ESRCH)?;
    let (target_tid, target_tgid) = (target.tid, target.tgid);
    if tgid.is_some_and(|tgid| target_tgid.0 != tgid as u32) {
        return Err(Errno::ESRCH.into());
    }
    if !ctx.kernel.may_signal(ctx.tid, target_tgid) {
        return Err(Errno::EPERM.into());
    }
    if let Some(signal) = signal {
        let sender = ctx.task().tgid.0;
        let info = info.unwrap_or_else(|| {
            SigInfo::from_process(signal, SigInfo::SI_TKILL, sender, ctx.task().creds.uid)
        });
        queue(ctx, SignalTarget::Thread(target_tid), signal, info)?;
    }
    Ok(0)
}

/// Sends a signal that says more than its number: EAGAIN where there is no room for what it says.
pub(super) fn queue(
    ctx: &mut Ctx<'_>,
    target: SignalTarget,
    signal: Signal,
    info: SigInfo,
) -> Result<(), Errno> {
    match ctx.kernel.send_signal(target, signal, info) {
        Sent::Full if signal.is_realtime() && info.code != SigInfo::SI_USER => Err(Errno::EAGAIN),
        _ => Ok(()),
    }
}

/// Reads the siginfo of a queued signal. A process may not pretend that the kernel sent it.
fn queued_info(ctx: &Ctx<'_>, addr: u64, signal: u64, to_self: bool) -> Result<SigInfo, Errno> {
    let mut info: SigInfo = ctx.copy_in(addr)?;
    info.signo = signal as i32;
    if !to_self && (info.code >= 0 || info.code == SigInfo::SI_TKILL) {
        return Err(Errno::EPERM);
    }
    Ok(kept_by_kernel(info))
}

/// Returns a siginfo from a process without what only the kernel may say: that a timer of its own sent it.
pub(super) fn kept_by_kernel(mut info: SigInfo) -> SigInfo {
    info.take_timer();
    info
}

pub(super) fn sys_rt_sigqueueinfo(ctx: &mut Ctx<'_>, [pid, signal, info, ..]: [u64; 6]) -> SysResult {
    let tgid = Tid(pid as u32);
    let info = queued_info(ctx, info, signal, ctx.task().tgid == tgid)?;
    let signal = signal_or_none(signal)?;
    if !ctx.kernel.processes.contains_key(&tgid) {
        return Err(Errno::ESRCH.into());
    }
    if !ctx.kernel.may_signal(ctx.tid, tgid) {
        return Err(Errno::EPERM.into());
    }
    if let Some(signal) = signal {
        queue(ctx, SignalTarget::Process(tgid), signal, info)?;
    }
    Ok(0)
}

pub(super) fn sys_rt_tgsigqueueinfo(ctx: &mut Ctx<'_>, [tgid, tid, signal, info, ..]: [u64; 6]) -> SysResult {
    let info = queued_info(ctx, info, signal, ctx.task().tgid.0 == tgid as u32)?;
    send_to_thread(ctx, Some(tgid as i32), tid as i32, signal, Some(info))
}

pub(super) fn sys_sigaltstack(ctx: &mut Ctx<'_>, [new, old, ..]: [u64; 6]) -> SysResult {
    let task = ctx.task();
    let rsp = task.context.regs.rsp;
    let mut before = task.alt_stack;
    let active = on_alt_stack(&before, rsp);
    if active {
        before.ss_flags |= linux::SS_ONSTACK as i32;
    }
    if new != 0 {
        let mut stack: SigStack = ctx.copy_in(new)?;
        if active {
            return Err(Errno::EPERM.into());
        }
        let mode = stack.ss_flags & !(1 << 31);
        if mode & linux::SS_DISABLE as i32 != 0 {
            stack = SigStack { ss_flags: linux::SS_DISABLE as i32, ..SigStack::default() };
        } else if mode != 0 && mode != linux::SS_ONSTACK as i32 {
            return Err(Errno::EINVAL.into());
        } else if stack.ss_size < 2048 {
            return Err(Errno::ENOMEM.into());
        } else {
            stack.ss_flags = 0;
        }
        ctx.task_mut().alt_stack = stack;
    }
    ctx.copy_out_opt(old, &before)?;
    Ok(0)
}
