//! Shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use lg_abi::ipc::*;
use lg_abi::raw::general::{CAP_IPC_LOCK, RLIMIT_AS, RLIMIT_MEMLOCK};
use lg_abi::{Errno, ShmUsage, ShmidDs, Shminfo};
use lg_platform::{Prot, UserAddr, UserRange};

use super::{caller, id_from};
use crate::PAGE_BYTES;
use crate::ipc::{Attachment, EXEC, Object, Permission, READ, SHMMAX, SHMMNI, Segment, WRITE};
use crate::mm::{Backing, Place, Vma, VmaFlags};
use crate::syscall::Ctx;
use crate::task::SysResult;

pub(in crate::syscall) fn sys_shmget(ctx: &mut Ctx<'_>, [key, size, flags, ..]: [u64; 6]) -> SysResult {
    let (key, flags) = (key as i32, flags as u32);
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let too_large = ctx.task().mm.borrow().exceeds_memory(size);
    let ipc = &mut ctx.kernel.ipc;
    let pages = ipc.shm_pages.clone();
    let suits = |segment: &Segment| if segment.bytes < size { Err(Errno::EINVAL) } else { Ok(()) };
    let make = |permission| {
        // There are no huge pages to be had.
        if flags & SHM_HUGETLB != 0 {
            return Err(Errno::ENOMEM);
        }
        if too_large && size <= SHMMAX && flags & SHM_NORESERVE == 0 {
            return Err(Errno::ENOMEM);
        }
        Segment::new(&caller, permission, size, &pages)
    };
    Ok(u64::from(ipc.shm.get(&caller, key, flags, suits, make)?))
}

pub(in crate::syscall) fn sys_shmat(ctx: &mut Ctx<'_>, [id, addr, flags, ..]: [u64; 6]) -> SysResult {
    let flags = flags as u32;
    let id = id_from(id)?;
    let mut at = UserAddr(addr);
    if !at.is_page_aligned() {
        if flags & SHM_RND == 0 {
            return Err(Errno::EINVAL.into());
        }
        at = at.page_floor();
    }
    if at.0 == 0 && flags & SHM_REMAP != 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let segment = ctx.kernel.ipc.shm.find(id)?;
    let (mut prot, mut want) = (Prot::READ, READ);
    if flags & SHM_RDONLY == 0 {
        (prot, want) = (prot | Prot::WRITE, want | WRITE);
    }
    if flags & SHM_EXEC != 0 {
        (prot, want) = (prot | Prot::EXEC, want | EXEC);
    }
    segment.permission().check(&caller, want)?;
    let place = match (at.0, flags & SHM_REMAP != 0) {
        (0, _) => Place::Anywhere(UserAddr(0)),
        (_, true) => Place::Fixed(at),
        (_, false) => Place::FixedNoReplace(at),
    };
    let mm = ctx.task().mm.clone();
    let limit = ctx.rlimit(RLIMIT_AS).cur;
    if limit != u64::MAX && mm.borrow().mapped_bytes().saturating_add(segment.bytes) > limit {
        return Err(Errno::ENOMEM.into());
    }
    let mut area_flags = VmaFlags::SHARED;
    area_flags.set(VmaFlags::NEVER_WRITE, flags & SHM_RDONLY != 0);
    let area = Vma {
        range: UserRange::new(UserAddr(0), UserAddr(0)),
        prot,
        flags: area_flags,
        backing: Backing::Segment(id, Attachment::new(&segment)),
        offset_pages: 0,
    };
    let at = mm.borrow_mut().map(place, segment.bytes, area).map_err(|errno| match errno {
        Errno::EEXIST => Errno::EINVAL,
        other => other,
    })?;
    segment.note_attach(&caller);
    Ok(at.0)
}

pub(in crate::syscall) fn sys_shmdt(ctx: &mut Ctx<'_>, [addr, ..]: [u64; 6]) -> SysResult {
    let mm = ctx.task().mm.clone();
    let segment = mm.borrow_mut().detach(UserAddr(addr))?;
    segment.note_detach(ctx.task().tgid.0, ctx.kernel.realtime_sec());
    Ok(0)
}

pub(in crate::syscall) fn sys_shmctl(ctx: &mut Ctx<'_>, [id, command, addr, ..]: [u64; 6]) -> SysResult {
    let (command, id) = (id_from(command)?, id_from(id)?);
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let shm = &ctx.kernel.ipc.shm;
    match command {
        IPC_INFO => {
            let info = Shminfo {
                shmmax: SHMMAX,
                shmmin: 1,
                shmmni: SHMMNI as u64,
                shmseg: SHMMNI as u64,
                shmall: SHMMAX,
                ..Shminfo::default()
            };
            ctx.copy_out(addr, &info)?;
            Ok(shm.highest_index())
        }
        SHM_INFO => {
            let usage = ShmUsage {
                used_ids: shm.count() as i32,
                shm_tot: ctx.kernel.ipc.shm_pages.used(),
                shm_rss: shm.iter().map(|(_, segment)| segment.pages.resident_bytes() / PAGE_BYTES).sum(),
                ..ShmUsage::default()
            };
            ctx.copy_out(addr, &usage)?;
            Ok(shm.highest_index())
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let (found, segment) = if command == IPC_STAT { (id, shm.find(id)?) } else { shm.at(id)? };
            if command != SHM_STAT_ANY {
                segment.permission().check(&caller, READ)?;
            }
            ctx.copy_out(addr, &segment.show(found))?;
            Ok(if command == IPC_STAT { 0 } else { found.into() })
        }
        IPC_SET => {
            let wanted: ShmidDs = ctx.copy_in(addr)?;
            let segment = shm.find(id)?;
            let mut permission = segment.permission();
            permission.check_owner(&caller)?;
            permission.set(&wanted.shm_perm)?;
            segment.set_permission(&caller, permission);
            Ok(0)
        }
        IPC_RMID => {
            shm.find(id)?.permission().check_owner(&caller)?;
            ctx.kernel.ipc.shm.remove(id);
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let segment = shm.find(id)?;
            let permission = segment.permission();
            let locks = command == SHM_LOCK;
            if !creds.has_capability(CAP_IPC_LOCK)
                && (!permission.is_owner(&caller) || (locks && ctx.rlimit(RLIMIT_MEMLOCK).cur == 0))
            {
                return Err(Errno::EPERM.into());
            }
            let mode = permission.mode & !SHM_LOCKED | if locks { SHM_LOCKED } else { 0 };
            segment.permission.set(Permission { mode, ..permission });
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
