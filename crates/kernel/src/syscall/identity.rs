//! Users and groups: get*id, set*id, capabilities.

use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::{CapData, CapHeader, Errno};

use super::Ctx;
use crate::task::{Credentials, SysResult, Tid};

const UNCHANGED: u32 = u32::MAX;

/// Most supplementary groups (Linux's NGROUPS_MAX).
const MAX_GROUPS: u64 = 65_536;

pub(super) fn change(
    ctx: &mut Ctx<'_>,
    edit: impl FnOnce(&mut Credentials) -> Result<(), Errno>,
) -> SysResult {
    let mut creds = (*ctx.task().creds).clone();
    edit(&mut creds)?;
    creds.follow_user_change(&ctx.task().creds);
    ctx.task_mut().creds = Rc::new(creds);
    Ok(0)
}

pub(super) fn sys_getuid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.task().creds.uid))
}

pub(super) fn sys_geteuid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.task().creds.euid))
}

pub(super) fn sys_getgid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.task().creds.gid))
}

pub(super) fn sys_getegid(ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Ok(u64::from(ctx.task().creds.egid))
}

pub(super) fn sys_getresuid(ctx: &mut Ctx<'_>, [real, effective, saved, ..]: [u64; 6]) -> SysResult {
    let creds = ctx.task().creds.clone();
    ctx.copy_out(real, &creds.uid)?;
    ctx.copy_out(effective, &creds.euid)?;
    ctx.copy_out(saved, &creds.suid)?;
    Ok(0)
}

pub(super) fn sys_getresgid(ctx: &mut Ctx<'_>, [real, effective, saved, ..]: [u64; 6]) -> SysResult {
    let creds = ctx.task().creds.clone();
    ctx.copy_out(real, &creds.gid)?;
    ctx.copy_out(effective, &creds.egid)?;
    ctx.copy_out(saved, &creds.sgid)?;
    Ok(0)
}

pub(super) fn sys_setuid(ctx: &mut Ctx<'_>, [uid, ..]: [u64; 6]) -> SysResult {
    let uid = valid_id(uid)?;
    change(ctx, |creds| {
        if creds.has_capability(linux::CAP_SETUID) {
            (creds.uid, creds.suid) = (uid, uid);
        } else if uid != creds.uid && uid != creds.suid {
            return Err(Errno::EPERM);
        }
        (creds.euid, creds.fsuid) = (uid, uid);
        Ok(())
    })
}

pub(super) fn sys_setgid(ctx: &mut Ctx<'_>, [gid, ..]: [u64; 6]) -> SysResult {
    let gid = valid_id(gid)?;
    change(ctx, |creds| {
        if creds.has_capability(linux::CAP_SETGID) {
            (creds.gid, creds.sgid) = (gid, gid);
        } else if gid != creds.gid && gid != creds.sgid {
            return Err(Errno::EPERM);
        }
        (creds.egid, creds.fsgid) = (gid, gid);
        Ok(())
    })
}

fn valid_id(id: u64) -> Result<u32, Errno> {
    if id as u32 == UNCHANGED { Err(Errno::EINVAL) } else { Ok(id as u32) }
}

/// The real, effective and saved ids that a set*id call asks for, each allowed if privileged or one of the
/// three that the task has.
fn allowed(wanted: [u32; 3], has: [u32; 3], privileged: bool) -> Result<[u32; 3], Errno> {
    let mut ids = has;
    for (id, wanted) in ids.iter_mut().zip(wanted) {
        if wanted != UNCHANGED {
            if !privileged && !has.contains(&wanted) {
                return Err(Errno::EPERM);
            }
            *id = wanted;
        }
    }
    Ok(ids)
}

pub(super) fn sys_setresuid(ctx: &mut Ctx<'_>, [real, effective, saved, ..]: [u64; 6]) -> SysResult {
    change(ctx, |creds| {
        let wanted = [real as u32, effective as u32, saved as u32];
        let has = [creds.uid, creds.euid, creds.suid];
        [creds.uid, creds.euid, creds.suid] = allowed(wanted, has, creds.has_capability(linux::CAP_SETUID))?;
        creds.fsuid = creds.euid;
        Ok(())
    })
}

pub(super) fn sys_setresgid(ctx: &mut Ctx<'_>, [real, effective, saved, ..]: [u64; 6]) -> SysResult {
    change(ctx, |creds| {
        let wanted = [real as u32, effective as u32, saved as u32];
        let has = [creds.gid, creds.egid, creds.sgid];
        [creds.gid, creds.egid, creds.sgid] = allowed(wanted, has, creds.has_capability(linux::CAP_SETGID))?;
        creds.fsgid = creds.egid;
        Ok(())
    })
}

pub(super) fn sys_setreuid(ctx: &mut Ctx<'_>, [real, effective, ..]: [u64; 6]) -> SysResult {
    change(ctx, |creds| {
        let (old, has) = (creds.uid, [creds.uid, creds.euid, creds.suid]);
        let wanted = [real as u32, effective as u32, UNCHANGED];
        [creds.uid, creds.euid, _] = allowed(wanted, has, creds.has_capability(linux::CAP_SETUID))?;
        if real as u32 != UNCHANGED || (effective as u32 != UNCHANGED && effective as u32 != old) {
            creds.suid = creds.euid;
        }
        creds.fsuid = creds.euid;
        Ok(())
    })
}

pub(super) fn sys_setregid(ctx: &mut Ctx<'_>, [real, effective, ..]: [u64; 6]) -> SysResult {
    change(ctx, |creds| {
        let (old, has) = (creds.gid, [creds.gid, creds.egid, creds.sgid]);
        let wanted = [real as u32, effective as u32, UNCHANGED];
        [creds.gid, creds.egid, _] = allowed(wanted, has, creds.has_capability(linux::CAP_SETGID))?;
        if real as u32 != UNCHANGED || (effective as u32 != UNCHANGED && effective as u32 != old) {
            creds.sgid = creds.egid;
        }
        creds.fsgid = creds.egid;
        Ok(())
    })
}

pub(super) fn sys_setfsuid(ctx: &mut Ctx<'_>, [uid, ..]: [u64; 6]) -> SysResult {
    let old = ctx.task().creds.fsuid;
    change(ctx, |creds| {
        let uid = uid as u32;
        if creds.has_capability(linux::CAP_SETUID)
            || [creds.uid, creds.euid, creds.suid, creds.fsuid].contains(&uid)
        {
            creds.fsuid = uid;
        }
        Ok(())
    })?;
    Ok(u64::from(old))
}

pub(super) fn sys_setfsgid(ctx: &mut Ctx<'_>, [gid, ..]: [u64; 6]) -> SysResult {
    let old = ctx.task().creds.fsgid;
    change(ctx, |creds| {
        let gid = gid as u32;
        if creds.has_capability(linux::CAP_SETGID)
            || [creds.gid, creds.egid, creds.sgid, creds.fsgid].contains(&gid)
        {
            creds.fsgid = gid;
        }
        Ok(())
    })?;
    Ok(u64::from(old))
}

pub(super) fn sys_getgroups(ctx: &mut Ctx<'_>, [size, list, ..]: [u64; 6]) -> SysResult {
    let groups = ctx.task().creds.groups.clone();
    let count = groups.len() as u64;
    if size as i32 != 0 {
        if (size as i32) < 0 || (size as u32 as u64) < count {
            return Err(Errno::EINVAL.into());
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
        ctx.write_bytes(list, &bytes)?;
    }
    Ok(count)
}

pub(super) fn sys_setgroups(ctx: &mut Ctx<'_>, [size, list, ..]: [u64; 6]) -> SysResult {
    if !ctx.task().creds.has_capability(linux::CAP_SETGID) {
        return Err(Errno::EPERM.into());
    }
    let size = u64::from(size as u32);
    if size > MAX_GROUPS {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; size as usize * 4];
    ctx.read_bytes(list, &mut bytes)?;
    let groups = bytes.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
    change(ctx, |creds| {
        creds.groups = groups;
        Ok(())
    })
}

const CAPABILITY_VERSIONS: [(u32, usize); 3] = [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];

/// Returns how many words the sets have, and the thread that is asked about; 0 for the caller.
fn capability_header(ctx: &Ctx<'_>, header: u64) -> Result<(usize, i32), Errno> {
    let head: CapHeader = ctx.copy_in(header)?;
    match CAPABILITY_VERSIONS.iter().find(|(version, _)| *version == head.version) {
        Some((_, words)) => Ok((*words, head.pid)),
        None => {
            ctx.copy_out(header, &CapHeader { version: 0x2008_0522, ..head })?;
            Err(Errno::EINVAL)
        }
    }
}

pub(super) fn sys_capget(ctx: &mut Ctx<'_>, [header, data, ..]: [u64; 6]) -> SysResult {
    let (words, pid) = match capability_header(ctx, header) {
        // Without room for an answer this asks for the version.
        Err(Errno::EINVAL) if data == 0 => return Ok(0),
        header => header?,
    };
    let tid = match u32::try_from(pid).map_err(|_| Errno::EINVAL)? {
        0 => ctx.tid,
        pid => Tid(pid),
    };
    let creds = ctx.kernel.tasks.get(&tid).ok_or(Errno::ESRCH)?.creds.clone();
    if data == 0 {
        return Ok(0);
    }
    for word in 0..words {
        let bits = |set: u64| (set >> (32 * word)) as u32;
        let (effective, permitted) = (bits(creds.effective), bits(creds.permitted));
        let value = CapData { effective, permitted, inheritable: bits(creds.inheritable) };
        ctx.copy_out(data.wrapping_add((word * size_of::<CapData>()) as u64), &value)?;
    }
    Ok(0)
}

pub(super) fn sys_capset(ctx: &mut Ctx<'_>, [header, data, ..]: [u64; 6]) -> SysResult {
    let (words, pid) = capability_header(ctx, header)?;
    if pid != 0 && pid as u32 != ctx.tid.0 {
        return Err(Errno::EPERM.into());
    }
    let (mut effective, mut permitted, mut inheritable) = (0, 0, 0);
    for word in 0..words {
        let value: CapData = ctx.copy_in(data.wrapping_add((word * size_of::<CapData>()) as u64))?;
        effective |= u64::from(value.effective) << (32 * word);
        permitted |= u64::from(value.permitted) << (32 * word);
        inheritable |= u64::from(value.inheritable) << (32 * word);
    }
    // Bits beyond the last capability are ignored.
    let known = Credentials::ALL_CAPABILITIES;
    let (effective, permitted, inheritable) = (effective & known, permitted & known, inheritable & known);
    change(ctx, |creds| {
        let may_inherit_more = creds.has_capability(linux::CAP_SETPCAP);
        if permitted & !creds.permitted != 0
            || effective & !permitted != 0
            || inheritable & !(creds.inheritable | creds.bounding) != 0
            || (!may_inherit_more && inheritable & !(creds.inheritable | creds.permitted) != 0)
        {
            return Err(Errno::EPERM);
        }
        (creds.effective, creds.permitted, creds.inheritable) = (effective, permitted, inheritable);
        creds.ambient &= permitted & inheritable;
        Ok(())
    })
}
