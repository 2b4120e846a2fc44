//! Processes by descriptor: pidfd_open, pidfd_send_signal, pidfd_getfd.

use std::rc::Rc;

use lg_abi::raw::general::{CAP_SYS_PTRACE, O_CLOEXEC, O_NONBLOCK, O_RDWR};
use lg_abi::{Errno, SigInfo};

use super::Ctx;
use super::event::check_flags;
use super::fd::install;
use super::signal::{kept_by_kernel, queue, signal_or_none};
use crate::fs::anon::new_anon;
use crate::fs::pidfd::{PidFd, as_pidfd};
use crate::fs::proc;
use crate::signal::SignalTarget;
use crate::task::{Process, SysResult, Tid};
use crate::vfs::FileDescription;

/// Returns the process descriptor at `fd`, and its open file.
///
/// Errors: EBADF, also for descriptors of another kind.
pub(super) fn pidfd_at(ctx: &Ctx<'_>, fd: u64) -> Result<(Rc<FileDescription>, Rc<PidFd>), Errno> {
    let description = ctx.open_fd(fd)?;
    let pidfd = as_pidfd(&description.file).ok_or(Errno::EBADF)?;
    Ok((description, pidfd))
}

/// Returns the process that a descriptor stands for.
///
/// Errors: ESRCH for one that has been waited for.
pub(super) fn process_of<'c>(ctx: &'c Ctx<'_>, pidfd: &PidFd) -> Result<&'c Process, Errno> {
    ctx.kernel.processes.get(&pidfd.tgid()).filter(|process| pidfd.is_of(process)).ok_or(Errno::ESRCH)
}

pub(super) fn sys_pidfd_open(ctx: &mut Ctx<'_>, [pid, flags, ..]: [u64; 6]) -> SysResult {
    // PIDFD_NONBLOCK.
    let flags = check_flags(flags, O_NONBLOCK)?;
    if pid as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let tgid = Tid(pid as u32);
    let Some(process) = ctx.kernel.processes.get(&tgid) else {
        let is_thread = ctx.kernel.tasks.contains_key(&tgid);
        return Err(if is_thread { Errno::EINVAL.into() } else { Errno::ESRCH.into() });
    };
    let file = PidFd::new(tgid, &process.ended);
    let description = new_anon(&ctx.fs(), file, "[pidfd]", O_RDWR | flags)?;
    install(ctx, description, O_CLOEXEC)
}

pub(super) fn sys_pidfd_send_signal(ctx: &mut Ctx<'_>, [fd, signal, info, flags, ..]: [u64; 6]) -> SysResult {
    check_flags(flags, 0)?;
    let description = ctx.open_fd(fd)?;
    let pidfd = as_pidfd(&description.file);
    let tgid = match (&pidfd, proc::process_of(description.inode())) {
        (Some(pidfd), _) => pidfd.tgid(),
        // The directory of a process in /proc stands for it, too.
        (None, Some(pid)) => Tid(pid),
        (None, None) => return Err(Errno::EBADF.into()),
    };
    let info = if info == 0 {
        None
    } else {
        let told: SigInfo = ctx.copy_in(info)?;
        if told.signo as u32 != signal as u32 {
            return Err(Errno::EINVAL.into());
        }
        if ctx.tid != tgid && (told.code >= 0 || told.code == SigInfo::SI_TKILL) {
            return Err(Errno::EPERM.into());
        }
        Some(kept_by_kernel(told))
    };
    match &pidfd {
        Some(pidfd) => drop(process_of(ctx, pidfd)?),
        None if !ctx.kernel.processes.contains_key(&tgid) => return Err(Errno::ESRCH.into()),
        None => {}
    }
    let signal = signal_or_none(signal)?;
    let Some(info) = info else {
        ctx.kernel.kill(ctx.tid, tgid.0 as i32, signal)?;
        return Ok(0);
    };
    if !ctx.kernel.may_send(ctx.tid, tgid, signal) {
        return Err(Errno::EPERM.into());
    }
    if let Some(signal) = signal {
        queue(ctx, SignalTarget::Process(tgid), signal, info)?;
    }
    Ok(0)
}

pub(super) fn sys_pidfd_getfd(ctx: &mut Ctx<'_>, [pidfd, fd, flags, ..]: [u64; 6]) -> SysResult {
    check_flags(flags, 0)?;
    let (_, pidfd) = pidfd_at(ctx, pidfd)?;
    let process = process_of(ctx, &pidfd)?;
    check_may_attach(ctx, process)?;
    // A zombie has no descriptors.
    let thread = process.threads.first().and_then(|tid| ctx.kernel.tasks.get(tid)).ok_or(Errno::EBADF)?;
    let description = thread.fds.borrow().get(fd)?;
    install(ctx, description, O_CLOEXEC)
}

/// Checks that the caller may do with the process what a debugger could (ptrace(2), "access mode checking", with
/// PTRACE_MODE_ATTACH_REALCREDS).
///
/// Errors: EPERM.
fn check_may_attach(ctx: &Ctx<'_>, process: &Process) -> Result<(), Errno> {
    let (caller, own) = (&ctx.task().creds, ctx.task().tgid == process.tgid);
    if own || caller.has_capability(CAP_SYS_PTRACE) {
        return Ok(());
    }
    let Some(thread) = process.threads.first().and_then(|tid| ctx.kernel.tasks.get(tid)) else {
        return Ok(());
    };
    let creds = &thread.creds;
    let same_user = [creds.uid, creds.euid, creds.suid].iter().all(|uid| *uid == caller.uid);
    let same_group = [creds.gid, creds.egid, creds.sgid].iter().all(|gid| *gid == caller.gid);
    if same_user && same_group && process.dumpable == 1 { Ok(()) } else { Err(Errno::EPERM) }
}
