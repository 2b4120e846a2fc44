//! The system and the process's settings: uname, sysinfo, limits, prctl, arch_prctl.

use lg_abi::raw::general as linux;
use lg_abi::raw::prctl;
use lg_abi::{Errno, Rlimit, Sysinfo, Utsname};
use lg_platform::{PAGE_SIZE, USER_END};

use super::Ctx;
use super::process::to_rusage;
use super::time::process_cpu_ns;
use crate::task::{ResourceUse, SysResult, Tid};

/// The Linux release whose interface this is. Programs compare it with what they need.
pub const RELEASE: &str = "6.1.0-luminaguard";

/// `uname -v`
pub const VERSION: &str = "#1 LuminaGuard";

pub(super) fn sys_uname(ctx: &mut Ctx<'_>, [to, ..]: [u64; 6]) -> SysResult {
    let field = |text: &[u8]| {
        let mut field = [0; 65];
        let len = text.len().min(64);
        field[..len].copy_from_slice(&text[..len]);
        field
    };
    let name = Utsname {
        sysname: field(b"Linux"),
        nodename: field(&ctx.kernel.hostname),
        release: field(RELEASE.as_bytes()),
        version: field(VERSION.as_bytes()),
        machine: field(b"x86_64"),
        domainname: field(b"(none)"),
    };
    ctx.copy_out(to, &name)?;
    Ok(0)
}

pub(super) fn sys_sethostname(ctx: &mut Ctx<'_>, [name, len, ..]: [u64; 6]) -> SysResult {
    if !ctx.task().creds.has_capability(linux::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    if len > 64 {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; len as usize];
    ctx.read_bytes(name, &mut bytes)?;
    ctx.kernel.hostname = bytes;
    Ok(0)
}

pub(super) fn sys_sysinfo(ctx: &mut Ctx<'_>, [to, ..]: [u64; 6]) -> SysResult {
    let frames = ctx.kernel.frames();
    let total = u64::from(frames.total()) * PAGE_SIZE as u64;
    let info = Sysinfo {
        uptime: (ctx.now_ns() / 1_000_000_000) as i64,
        totalram: total,
        freeram: total - u64::from(frames.used()) * PAGE_SIZE as u64,
        procs: ctx.kernel.processes.len().min(usize::from(u16::MAX)) as u16,
        mem_unit: 1,
        ..Sysinfo::default()
    };
    ctx.copy_out(to, &info)?;
    Ok(0)
}

pub(super) fn sys_getrlimit(ctx: &mut Ctx<'_>, [resource, to, ..]: [u64; 6]) -> SysResult {
    let limit = ctx.process().rlimits.get(resource).ok_or(Errno::EINVAL)?;
    ctx.copy_out(to, &limit)?;
    Ok(0)
}

pub(super) fn sys_setrlimit(ctx: &mut Ctx<'_>, [resource, from, ..]: [u64; 6]) -> SysResult {
    let limit: Rlimit = ctx.copy_in(from)?;
    let tgid = ctx.task().tgid;
    set_limit(ctx, tgid, resource, limit)
}

pub(super) fn sys_prlimit64(ctx: &mut Ctx<'_>, [pid, resource, new, old, ..]: [u64; 6]) -> SysResult {
    let tgid = if pid as i32 == 0 { ctx.task().tgid } else { Tid(pid as u32) };
    let process = ctx.kernel.processes.get(&tgid).ok_or(Errno::ESRCH)?;
    let before = process.rlimits.get(resource).ok_or(Errno::EINVAL)?;
    if !ctx.kernel.may_signal(ctx.tid, tgid) {
        return Err(Errno::EPERM.into());
    }
    if new != 0 {
        let limit: Rlimit = ctx.copy_in(new)?;
        set_limit(ctx, tgid, resource, limit)?;
    }
    ctx.copy_out_opt(old, &before)?;
    Ok(0)
}

fn set_limit(ctx: &mut Ctx<'_>, tgid: Tid, resource: u64, limit: Rlimit) -> SysResult {
    let privileged = ctx.task().creds.has_capability(linux::CAP_SYS_RESOURCE);
    let process = ctx.kernel.processes.get_mut(&tgid).ok_or(Errno::ESRCH)?;
    let before = process.rlimits.get(resource).ok_or(Errno::EINVAL)?;
    if limit.cur > limit.max {
        return Err(Errno::EINVAL.into());
    }
    if limit.max > before.max && !privileged {
        return Err(Errno::EPERM.into());
    }
    process.rlimits.set(resource, limit);
    Ok(0)
}

pub(super) fn sys_getrusage(ctx: &mut Ctx<'_>, [who, to, ..]: [u64; 6]) -> SysResult {
    let used = match who as i32 {
        -1 => ctx.process().children_used,
        0 | 1 => {
            let resident = ctx.task().mm.borrow().resident_pages();
            let cpu_ns = if who as i32 == 0 {
                process_cpu_ns(ctx)
            } else {
                ctx.kernel.charge_cpu();
                ctx.task().cpu_ns
            };
            let used = ctx.process().used;
            ResourceUse { cpu_ns, max_resident_pages: used.max_resident_pages.max(resident), ..used }
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    ctx.copy_out(to, &to_rusage(used))?;
    Ok(0)
}

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

pub(super) fn sys_arch_prctl(ctx: &mut Ctx<'_>, [code, addr, ..]: [u64; 6]) -> SysResult {
    if !matches!(code, ARCH_SET_FS | ARCH_SET_GS | ARCH_GET_FS | ARCH_GET_GS) {
        return Err(Errno::EINVAL.into());
    }
    if matches!(code, ARCH_SET_FS | ARCH_SET_GS) && addr >= USER_END.0 {
        return Err(Errno::EPERM.into());
    }
    let machine = ctx.kernel.machine.clone();
    let task = ctx.task_mut();
    machine.borrow_mut().sync(&mut task.context).map_err(|_| Errno::EIO)?;
    let regs = &mut task.context.regs;
    let value = match code {
        ARCH_SET_FS => {
            regs.fs_base = addr;
            return Ok(0);
        }
        ARCH_SET_GS => {
            regs.gs_base = addr;
            return Ok(0);
        }
        ARCH_GET_FS => regs.fs_base,
        _ => regs.gs_base,
    };
    ctx.copy_out(addr, &value)?;
    Ok(0)
}

pub(super) fn sys_prctl(ctx: &mut Ctx<'_>, [option, arg, arg3, arg4, arg5, _]: [u64; 6]) -> SysResult {
    match option as u32 {
        prctl::PR_SET_NAME => {
            let mut name = ctx.user().read_string(arg, 16).or_else(|errno| match errno {
                Errno::ENAMETOOLONG => {
                    let mut name = vec![0; 15];
                    ctx.read_bytes(arg, &mut name).map(|()| name)
                }
                other => Err(other),
            })?;
            name.truncate(15);
            ctx.task_mut().comm = name;
            Ok(0)
        }
        prctl::PR_GET_NAME => {
            let mut name = [0; 16];
            let comm = &ctx.task().comm;
            let len = comm.len().min(15);
            name[..len].copy_from_slice(&comm[..len]);
            ctx.write_bytes(arg, &name)?;
            Ok(0)
        }
        prctl::PR_SET_PDEATHSIG => {
            if arg > u64::from(lg_abi::Signal::MAX) {
                return Err(Errno::EINVAL.into());
            }
            ctx.task_mut().parent_death_signal = arg as u32;
            Ok(0)
        }
        prctl::PR_GET_PDEATHSIG => {
            let signal = ctx.task().parent_death_signal;
            ctx.copy_out(arg, &signal)?;
            Ok(0)
        }
        prctl::PR_GET_DUMPABLE => Ok(u64::from(ctx.process().dumpable)),
        prctl::PR_SET_DUMPABLE => {
            if arg > 1 {
                return Err(Errno::EINVAL.into());
            }
            ctx.process_mut().dumpable = arg as u32;
            Ok(0)
        }
        prctl::PR_SET_NO_NEW_PRIVS => {
            if arg != 1 || arg3 | arg4 | arg5 != 0 {
                return Err(Errno::EINVAL.into());
            }
            let mut creds = (*ctx.task().creds).clone();
            creds.no_new_privs = true;
            ctx.task_mut().creds = std::rc::Rc::new(creds);
            Ok(0)
        }
        prctl::PR_GET_NO_NEW_PRIVS => Ok(u64::from(ctx.task().creds.no_new_privs)),
        prctl::PR_SET_CHILD_SUBREAPER => {
            ctx.process_mut().is_subreaper = arg != 0;
            Ok(0)
        }
        prctl::PR_GET_CHILD_SUBREAPER => {
            let value = u32::from(ctx.process().is_subreaper);
            ctx.copy_out(arg, &value)?;
            Ok(0)
        }
        prctl::PR_CAPBSET_READ => {
            if arg < 41 {
                Ok(1)
            } else {
                Err(Errno::EINVAL.into())
            }
        }
        prctl::PR_GET_KEEPCAPS | prctl::PR_GET_TIMERSLACK => {
            Ok(50_000 * u64::from(option as u32 == prctl::PR_GET_TIMERSLACK))
        }
        prctl::PR_SET_TIMERSLACK | prctl::PR_SET_VMA => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
