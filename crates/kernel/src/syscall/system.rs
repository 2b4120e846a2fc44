//! The system and the process's settings: uname, sysinfo, limits, personality, arch_prctl.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Rlimit, Sysinfo, Utsname};
use lg_platform::{PAGE_SIZE, USER_END};

use super::Ctx;
use super::process::to_rusage;
use super::time::process_cpu_ns;
use crate::task::{ResourceUse, SysResult, Tid};
use crate::vfs::NR_OPEN;

/// The Linux release whose interface this is. Programs compare it with what they need.
pub const RELEASE: &str = "6.1.0-luminaguard";

/// `uname -v`
pub const VERSION: &str = "#1 LuminaGuard";

/// The part of a persona that is not flags, and the persona of 32-bit programs, to whom uname(2) shows another
/// machine (personality(2)).
const PERSONALITY_MASK: u32 = 0xff;
const PER_LINUX32: u32 = 0x08;

pub(super) fn sys_uname(ctx: &mut Ctx<'_>, [to, ..]: [u64; 6]) -> SysResult {
    let field = |text: &[u8]| {
        let mut field = [0; 65];
        let len = text.len().min(64);
        field[..len].copy_from_slice(&text[..len]);
        field
    };
    let is_32_bit = ctx.task().settings.personality & PERSONALITY_MASK == PER_LINUX32;
    let name = Utsname {
        sysname: field(b"Linux"),
        nodename: field(&ctx.kernel.hostname),
        release: field(RELEASE.as_bytes()),
        version: field(VERSION.as_bytes()),
        machine: field(if is_32_bit { b"i686" } else { b"x86_64" }),
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
    let limit = ctx.process().rlimits.get(u64::from(resource as u32)).ok_or(Errno::EINVAL)?;
    ctx.copy_out(to, &limit)?;
    Ok(0)
}

pub(super) fn sys_setrlimit(ctx: &mut Ctx<'_>, [resource, from, ..]: [u64; 6]) -> SysResult {
    let limit: Rlimit = ctx.copy_in(from)?;
    let tgid = ctx.task().tgid;
    set_limit(ctx, tgid, u64::from(resource as u32), limit)
}

pub(super) fn sys_prlimit64(ctx: &mut Ctx<'_>, [pid, resource, new, old, ..]: [u64; 6]) -> SysResult {
    let resource = u64::from(resource as u32);
    let wanted: Option<Rlimit> = if new == 0 { None } else { Some(ctx.copy_in(new)?) };
    let tgid = if pid as i32 == 0 { ctx.task().tgid } else { Tid(pid as u32) };
    let process = ctx.kernel.processes.get(&tgid).ok_or(Errno::ESRCH)?;
    let before = process.rlimits.get(resource).ok_or(Errno::EINVAL)?;
    if !ctx.kernel.may_signal(ctx.tid, tgid) {
        return Err(Errno::EPERM.into());
    }
    if let Some(limit) = wanted {
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
    let beyond_all = resource == u64::from(linux::RLIMIT_NOFILE) && limit.max > NR_OPEN;
    if limit.max > before.max && !privileged || beyond_all {
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
    ctx.kernel.sync_task(ctx.tid)?;
    let regs = &mut ctx.task_mut().context.regs;
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

pub(super) fn sys_personality(ctx: &mut Ctx<'_>, [persona, ..]: [u64; 6]) -> SysResult {
    let settings = &mut ctx.task_mut().settings;
    let before = settings.personality;
    // All bits set only asks.
    if persona as u32 != u32::MAX {
        settings.personality = persona as u32;
    }
    Ok(u64::from(before))
}
