//! Memory: mmap(2) and its family.

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general as linux;
use lg_platform::{Access, PAGE_SIZE, Prot, UserAddr, UserRange};

use super::Ctx;
use super::lock::lock_limit;
use crate::fs::memfs::seals;
use crate::mm::{Backing, Growth, MemoryFault, Place, Placement, SharedPages, Vma, VmaFlags, whole_pages};
use crate::task::{Stop, SysResult};

const PAGE: u64 = PAGE_SIZE as u64;

/// Device number of /dev/zero.
const DEV_ZERO: u64 = 1 << 8 | 5;

/// Returns the pages from `addr` on that `len` bytes touch.
///
/// Errors: EINVAL for an address inside a page, ENOMEM for a range that leaves user space.
pub(super) fn page_range(addr: u64, len: u64) -> Result<UserRange, Errno> {
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let len = UserAddr(len).page_ceil().ok_or(Errno::ENOMEM)?;
    UserRange::from_len(UserAddr(addr), len.0).ok_or(Errno::ENOMEM)
}

/// As [`page_range`], with a length that Linux rounds up without looking: one that is beyond the address space comes
/// out as 0, and an empty range is none, wherever it lies.
///
/// Errors: EINVAL for an address inside a page, `wrapped` for an end before the start, ENOMEM for a range that leaves
/// user space.
pub(super) fn rounded_range(addr: u64, len: u64, wrapped: Errno) -> Result<UserRange, Errno> {
    let len = len.wrapping_add(PAGE - 1) & !(PAGE - 1);
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    addr.checked_add(len).ok_or(wrapped)?;
    if len == 0 { Ok(UserRange::new(UserAddr(0), UserAddr(0))) } else { page_range(addr, len) }
}

fn prot_of(bits: u64) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, bits & u64::from(linux::PROT_READ) != 0);
    prot.set(Prot::WRITE, bits & u64::from(linux::PROT_WRITE) != 0);
    prot.set(Prot::EXEC, bits & u64::from(linux::PROT_EXEC) != 0);
    prot
}

pub(super) fn sys_mmap(ctx: &mut Ctx<'_>, [addr, len, prot, flags, fd, offset]: [u64; 6]) -> SysResult {
    let has = |flag: u32| flags & u64::from(flag) != 0;
    if len == 0 || !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL.into());
    }
    let shared = match flags as u32 & linux::MAP_TYPE {
        linux::MAP_PRIVATE => false,
        linux::MAP_SHARED | linux::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL.into()),
    };
    let prot = prot_of(prot);
    let mut area_flags = VmaFlags::empty();
    area_flags.set(VmaFlags::SHARED, shared);
    area_flags.set(VmaFlags::GROWS_DOWN, has(linux::MAP_GROWSDOWN));
    let shared_zeros = || Backing::Shared(Rc::new(SharedPages::new(len.div_ceil(PAGE))));
    let backing = if has(linux::MAP_ANONYMOUS) {
        if shared { shared_zeros() } else { Backing::Anonymous }
    } else {
        let description = ctx.open_fd(fd)?;
        UserRange::from_len(UserAddr(0), len).ok_or(Errno::ENOMEM)?;
        description.check_readable().map_err(|_| Errno::EACCES)?;
        let writable = description.check_writable().is_ok();
        if shared && prot.contains(Prot::WRITE) && !writable {
            return Err(Errno::EACCES.into());
        }
        area_flags.set(VmaFlags::NEVER_WRITE, shared && !writable);
        offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
        let inode = description.inode().clone();
        let attr = inode.attr(&ctx.fs())?;
        match attr.mode & linux::S_IFMT {
            linux::S_IFREG => {
                let sealed = seals(&inode, None)?.unwrap_or(0);
                if shared && writable && sealed & (linux::F_SEAL_WRITE | linux::F_SEAL_FUTURE_WRITE) != 0 {
                    if prot.contains(Prot::WRITE) {
                        return Err(Errno::EPERM.into());
                    }
                    area_flags.insert(VmaFlags::NEVER_WRITE);
                }
                Backing::File { inode, description }
            }
            // /dev/zero (major 1, minor 5): each mapping has zeros of its own.
            linux::S_IFCHR if attr.rdev == DEV_ZERO && shared => shared_zeros(),
            linux::S_IFCHR if attr.rdev == DEV_ZERO => Backing::Anonymous,
            _ => return Err(Errno::ENODEV.into()),
        }
    };
    if has(linux::MAP_GROWSDOWN) && !matches!(backing, Backing::Anonymous) {
        return Err(Errno::EINVAL.into());
    }
    let place = if has(linux::MAP_FIXED_NOREPLACE) {
        Place::FixedNoReplace(UserAddr(addr))
    } else if has(linux::MAP_FIXED) {
        Place::Fixed(UserAddr(addr))
    } else {
        Place::Anywhere(UserAddr(addr).page_floor())
    };
    let mm = ctx.task().mm.clone();
    let commits = matches!(backing, Backing::Anonymous | Backing::Shared(_));
    if commits && prot.contains(Prot::WRITE) && !has(linux::MAP_NORESERVE) && mm.borrow().exceeds_memory(len)
    {
        return Err(Errno::ENOMEM.into());
    }
    let limit = ctx.rlimit(linux::RLIMIT_AS).cur;
    if limit != u64::MAX && mm.borrow().mapped_bytes().saturating_add(len) > limit {
        return Err(Errno::ENOMEM.into());
    }
    area_flags.insert(mm.borrow().lock_of_new_areas());
    if has(linux::MAP_LOCKED) {
        lock_limit(ctx)?;
        area_flags.insert(VmaFlags::LOCKED);
    }
    let is_locked = area_flags.contains(VmaFlags::LOCKED);
    if is_locked && mm.borrow().locked_pages().saturating_add(whole_pages(len)) > lock_limit(ctx).unwrap_or(0)
    {
        return Err(Errno::EAGAIN.into());
    }
    let nowhere = UserRange::new(UserAddr(0), UserAddr(0));
    let area = Vma { range: nowhere, prot, flags: area_flags, backing, offset_pages: offset / PAGE };
    let at = mm.borrow_mut().map(place, len, area)?;
    if let Some(range) = UserRange::from_len(at, len.next_multiple_of(PAGE)) {
        if is_locked || has(linux::MAP_POPULATE) && !has(linux::MAP_NONBLOCK) {
            // What can not be had now faults later.
            let _ = mm.borrow_mut().populate_for_use(range);
        } else if !has(linux::MAP_NORESERVE) {
            mm.borrow_mut().prefault(range);
        }
    }
    Ok(at.0)
}

pub(super) fn sys_munmap(ctx: &mut Ctx<'_>, [addr, len, ..]: [u64; 6]) -> SysResult {
    let range = page_range(addr, len).map_err(|_| Errno::EINVAL)?;
    if range.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    ctx.task().mm.borrow_mut().unmap(range)?;
    Ok(0)
}

pub(super) fn sys_mprotect(ctx: &mut Ctx<'_>, [addr, len, prot, ..]: [u64; 6]) -> SysResult {
    let known = linux::PROT_READ | linux::PROT_WRITE | linux::PROT_EXEC | linux::PROT_SEM;
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let len = UserAddr(len).page_ceil().ok_or(Errno::ENOMEM)?.0;
    addr.checked_add(len).ok_or(Errno::ENOMEM)?;
    if prot & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    ctx.task().mm.borrow_mut().protect(page_range(addr, len)?, prot_of(prot))?;
    Ok(0)
}

pub(super) fn sys_mremap(
    ctx: &mut Ctx<'_>,
    [addr, old_len, new_len, flags, new_addr, _]: [u64; 6],
) -> SysResult {
    let known = linux::MREMAP_MAYMOVE | linux::MREMAP_FIXED | linux::MREMAP_DONTUNMAP;
    let keeps_old = flags & u64::from(linux::MREMAP_DONTUNMAP) != 0;
    let fixed = flags & u64::from(linux::MREMAP_FIXED) != 0;
    let may_move = flags & u64::from(linux::MREMAP_MAYMOVE) != 0;
    if flags & !u64::from(known) != 0 || ((fixed || keeps_old) && !may_move) {
        return Err(Errno::EINVAL.into());
    }
    let new_len = UserAddr(new_len).page_ceil().filter(|len| len.0 > 0).ok_or(Errno::EINVAL)?.0;
    // Memory that can not be mapped is missing, and more of it than there can be is wrong.
    let is_place = !addr.is_multiple_of(PAGE) || UserRange::from_len(UserAddr(addr), PAGE).is_some();
    let beyond = if is_place { Errno::EINVAL } else { Errno::EFAULT };
    let old = page_range(addr, old_len).map_err(|_| beyond)?;
    if keeps_old {
        if old.len() != new_len {
            return Err(Errno::EINVAL.into());
        }
        let placement = if fixed { Placement::Fixed } else { Placement::Hint };
        return Ok(ctx.task().mm.borrow_mut().move_pages_away(old, UserAddr(new_addr), placement)?.0);
    }
    let growth = match (fixed, may_move) {
        (true, _) => Growth::MoveTo(UserAddr(new_addr)),
        (false, true) => Growth::MayMove,
        (false, false) => Growth::InPlace,
    };
    Ok(ctx.task().mm.borrow_mut().remap(old, new_len, growth)?.0)
}

pub(super) fn sys_brk(ctx: &mut Ctx<'_>, [addr, ..]: [u64; 6]) -> SysResult {
    let limit = ctx.rlimit(linux::RLIMIT_DATA).cur;
    let mm = ctx.task().mm.clone();
    let mut mm = mm.borrow_mut();
    let before = mm.heap().end;
    let after = mm.set_brk(UserAddr(addr), limit);
    if let (Some(before), Some(after)) = (before.page_ceil(), after.page_ceil())
        && before < after
    {
        mm.prefault(UserRange::new(before, after));
    }
    Ok(after.0)
}

pub(super) fn sys_madvise(ctx: &mut Ctx<'_>, [addr, len, advice, ..]: [u64; 6]) -> SysResult {
    let known = matches!(
        advice as u32,
        linux::MADV_NORMAL..=linux::MADV_DONTNEED | linux::MADV_FREE..=linux::MADV_DONTNEED_LOCKED
    );
    if !known {
        return Err(Errno::EINVAL.into());
    }
    let range = rounded_range(addr, len, Errno::EINVAL)?;
    if range.is_empty() {
        // Rounded to nothing is not the same as nothing.
        return if len == 0 { Ok(0) } else { Err(Errno::EINVAL.into()) };
    }
    if advice as u32 == linux::MADV_REMOVE {
        return remove(ctx, range);
    }
    let mm = ctx.task().mm.clone();
    let mut mm = mm.borrow_mut();
    let none = VmaFlags::empty();
    let is_locked = mm.locked_in(range) > 0;
    match advice as u32 {
        linux::MADV_DONTNEED | linux::MADV_FREE if is_locked => return Err(Errno::EINVAL.into()),
        linux::MADV_FREE if !mm.is_private_anonymous(range) => return Err(Errno::EINVAL.into()),
        linux::MADV_DONTNEED | linux::MADV_FREE | linux::MADV_DONTNEED_LOCKED => mm.forget(range)?,
        linux::MADV_POPULATE_READ => mm.populate(range, Access::Read).map_err(populate_errno)?,
        linux::MADV_POPULATE_WRITE => mm.populate(range, Access::Write).map_err(populate_errno)?,
        linux::MADV_DONTFORK => mm.set_flags(range, VmaFlags::DONT_FORK, none)?,
        linux::MADV_DOFORK => mm.set_flags(range, none, VmaFlags::DONT_FORK)?,
        linux::MADV_WIPEONFORK if !mm.is_private_anonymous(range) => return Err(Errno::EINVAL.into()),
        linux::MADV_WIPEONFORK => mm.set_flags(range, VmaFlags::WIPE_ON_FORK, none)?,
        linux::MADV_KEEPONFORK => mm.set_flags(range, none, VmaFlags::WIPE_ON_FORK)?,
        // Hints: there is nothing to do better by knowing.
        linux::MADV_NORMAL
        | linux::MADV_RANDOM
        | linux::MADV_SEQUENTIAL
        | linux::MADV_WILLNEED
        | linux::MADV_MERGEABLE
        | linux::MADV_UNMERGEABLE
        | linux::MADV_HUGEPAGE
        | linux::MADV_NOHUGEPAGE
        | linux::MADV_DONTDUMP
        | linux::MADV_DODUMP
        | linux::MADV_COLD
        | linux::MADV_PAGEOUT => {
            if !mm.is_mapped(range) {
                return Err(Errno::ENOMEM.into());
            }
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// Makes a hole in what shared areas map (MADV_REMOVE).
///
/// Errors: EINVAL for locked areas and those that have nothing behind them, EACCES for those that are not shared or can
/// not be stored to, ENOMEM behind the rest where nothing is mapped; what the file says.
fn remove(ctx: &mut Ctx<'_>, range: UserRange) -> SysResult {
    let mm = ctx.task().mm.clone();
    let parts = mm.borrow().parts(range);
    for part in &parts {
        if part.flags.contains(VmaFlags::LOCKED) {
            return Err(Errno::EINVAL.into());
        }
        if let Some(pages) = part.backing.shared_pages() {
            mm.borrow_mut().remove_shared(part, pages);
            continue;
        }
        let Backing::File { inode, .. } = &part.backing else { return Err(Errno::EINVAL.into()) };
        if part.flags & (VmaFlags::SHARED | VmaFlags::NEVER_WRITE) != VmaFlags::SHARED {
            return Err(Errno::EACCES.into());
        }
        let (start, len) = (part.offset_pages * PAGE, part.range.len());
        let mode = linux::FALLOC_FL_PUNCH_HOLE | linux::FALLOC_FL_KEEP_SIZE;
        let file = match inode.clone().open(&ctx.fs(), linux::O_RDWR) {
            Ok(file) => file,
            Err(Stop::Errno(errno)) => return Err(errno.into()),
            Err(_) => return Err(Errno::EINVAL.into()),
        };
        file.allocate(&ctx.fs(), mode, start, len)?;
        ctx.kernel.file_punched(inode, start, start.saturating_add(len));
    }
    if mm.borrow().is_mapped(range) { Ok(0) } else { Err(Errno::ENOMEM.into()) }
}

fn populate_errno(fault: MemoryFault) -> Errno {
    match fault {
        MemoryFault::Forbidden => Errno::EINVAL,
        MemoryFault::BeyondFile => Errno::EFAULT,
        MemoryFault::Unmapped | MemoryFault::OutOfMemory => Errno::ENOMEM,
    }
}

pub(super) fn sys_msync(ctx: &mut Ctx<'_>, [addr, len, flags, ..]: [u64; 6]) -> SysResult {
    let known = linux::MS_ASYNC | linux::MS_INVALIDATE | linux::MS_SYNC;
    let both = linux::MS_ASYNC | linux::MS_SYNC;
    if flags & !u64::from(known) != 0 || flags as u32 & both == both {
        return Err(Errno::EINVAL.into());
    }
    let range = rounded_range(addr, len, Errno::ENOMEM)?;
    if range.is_empty() {
        return Ok(0);
    }
    let mm = ctx.task().mm.clone();
    if !mm.borrow().is_mapped(range) {
        return Err(Errno::ENOMEM.into());
    }
    if flags & u64::from(linux::MS_INVALIDATE) != 0 && mm.borrow().locked_in(range) > 0 {
        return Err(Errno::EBUSY.into());
    }
    mm.borrow_mut().report_stores(range);
    Ok(0)
}

pub(super) fn sys_mincore(ctx: &mut Ctx<'_>, [addr, len, vec, ..]: [u64; 6]) -> SysResult {
    let range = page_range(addr, len)?;
    let mm = ctx.task().mm.clone();
    if !mm.borrow().is_mapped(range) {
        return Err(Errno::ENOMEM.into());
    }
    // In chunks, so that no guest makes us hold a byte for each page of a huge range.
    let mut at = range.start;
    let mut out = vec;
    while at < range.end {
        let end = UserAddr(at.0.saturating_add(4096 * PAGE).min(range.end.0));
        let bytes = mm.borrow().residency(UserRange::new(at, end));
        ctx.write_bytes(out, &bytes)?;
        out = out.wrapping_add(bytes.len() as u64);
        at = end;
    }
    Ok(0)
}

/// Protection keys are those of a machine without them: -1 is no key, and no other can be had.
pub(super) fn sys_pkey_mprotect(ctx: &mut Ctx<'_>, args: [u64; 6]) -> SysResult {
    if args[3] as i32 != -1 {
        return Err(Errno::EINVAL.into());
    }
    sys_mprotect(ctx, args)
}

pub(super) fn sys_pkey_alloc(_ctx: &mut Ctx<'_>, [flags, rights, ..]: [u64; 6]) -> SysResult {
    let known = u64::from(linux::PKEY_DISABLE_ACCESS | linux::PKEY_DISABLE_WRITE);
    Err(if flags != 0 || rights & !known != 0 { Errno::EINVAL } else { Errno::ENOSPC }.into())
}

pub(super) fn sys_pkey_free(_ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Err(Errno::EINVAL.into())
}

/// With one processor every barrier has been passed before the call returns.
pub(super) fn sys_membarrier(_ctx: &mut Ctx<'_>, [command, flags, ..]: [u64; 6]) -> SysResult {
    // MEMBARRIER_CMD_QUERY answers the mask of the others: global, global expedited and its registration,
    // private expedited and its registration, private expedited sync-core and its registration.
    const SUPPORTED: u64 = 0x7f;
    match command {
        0 if flags == 0 => Ok(SUPPORTED),
        _ if flags == 0 && command.is_power_of_two() && command & SUPPORTED != 0 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
