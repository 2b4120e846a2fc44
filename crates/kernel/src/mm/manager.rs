//! The memory of one process.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use lg_abi::Errno;
use lg_platform::{
    Frame, Mapping, PAGE_SIZE, Platform, PlatformError, Prot, SpaceId, USER_END, UserAddr, UserRange,
};

use super::fault::COPIES_AROUND;
use super::{Backing, Frames, Machine, SharedPages, Vma, VmaFlags};
use crate::vfs::Inode;

/// The lowest address that can be mapped (`vm.mmap_min_addr`).
const MIN_ADDR: UserAddr = UserAddr(0x1_0000);

/// How many areas a process can have (`vm.max_map_count`).
const MAX_AREAS: usize = 65_530;

/// Where a new area shall go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Anywhere, at the hint if that is free; 0 is no hint.
    Anywhere(UserAddr),
    /// Just there, in place of what is there (MAP_FIXED).
    Fixed(UserAddr),
    /// Just there, or EEXIST (MAP_FIXED_NOREPLACE).
    FixedNoReplace(UserAddr),
}

/// Whether mremap(2) may move the area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// No flags: grow where it is, or ENOMEM.
    InPlace,
    /// MREMAP_MAYMOVE.
    MayMove,
    /// MREMAP_FIXED: to this address.
    MoveTo(UserAddr),
}

/// The memory of one process, shared by its threads.
pub struct MemoryManager {
    pub(super) machine: Machine,
    pub(super) frames: Rc<Frames>,
    pub(super) space: SpaceId,
    pub(super) areas: BTreeMap<UserAddr, Vma>,
    /// Where the last fault in memory that was absent left off, to tell sequential use.
    pub(super) next_sequential: UserAddr,
    /// How many pages the next sequential fault maps.
    pub(super) window_pages: u64,
    /// How many more stores to pages that a fork shares copy those around, too.
    pub(super) copies_around: u32,
    mmap_top: UserAddr,
    brk_start: UserAddr,
    brk: UserAddr,
    /// Most bytes a stack area may have (RLIMIT_STACK).
    pub(super) stack_limit: u64,
    /// Whether new areas are locked (mlockall(2), MCL_FUTURE).
    pub(super) lock_future: bool,
    id: u64,
    /// Addresses of the argument and environment strings, for `/proc/PID/cmdline` and `environ`.
    pub arguments: UserRange,
    /// See `arguments`.
    pub environment: UserRange,
    /// The auxiliary vector, for `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
}

impl MemoryManager {
    /// Returns an empty memory; areas without a place of their own go below `mmap_top`.
    pub fn new(machine: &Machine, frames: &Rc<Frames>, mmap_top: UserAddr) -> Result<MemoryManager, Errno> {
        if frames.is_over_limit() {
            return Err(Errno::ENOMEM);
        }
        let space = machine.borrow_mut().create_space().map_err(table_errno)?;
        frames.set_table_bytes(machine.borrow().table_bytes());
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Ok(MemoryManager {
            machine: machine.clone(),
            frames: frames.clone(),
            space,
            areas: BTreeMap::new(),
            next_sequential: UserAddr(0),
            window_pages: 0,
            copies_around: 0,
            mmap_top,
            brk_start: UserAddr(0),
            brk: UserAddr(0),
            stack_limit: 8 << 20,
            lock_future: false,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            arguments: UserRange::new(UserAddr(0), UserAddr(0)),
            environment: UserRange::new(UserAddr(0), UserAddr(0)),
            auxv: Vec::new(),
        })
    }

    /// Returns the platform's name of the address space.
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// Identifies this memory among all that ever were, for private futexes.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the areas in ascending order.
    pub fn areas(&self) -> impl Iterator<Item = &Vma> {
        self.areas.values()
    }

    /// Returns the area that holds `addr`.
    pub fn area_at(&self, addr: UserAddr) -> Option<&Vma> {
        let (_, area) = self.areas.range(..=addr).next_back()?;
        area.range.contains(addr).then_some(area)
    }

    /// Returns the bytes of all areas.
    pub fn mapped_bytes(&self) -> u64 {
        self.areas.values().map(|area| area.range.len()).sum()
    }

    /// Returns how many pages are in memory.
    pub fn resident_pages(&self) -> u64 {
        self.resident_in(UserRange::new(UserAddr(0), USER_END))
    }

    /// Returns how many pages of `range` are in memory.
    pub fn resident_in(&self, range: UserRange) -> u64 {
        let mut pages = 0;
        self.machine.borrow().visit(self.space, range, &mut |_, _| pages += 1);
        pages
    }

    /// Sets where the program break starts (after the last ELF segment) and how large stacks may get.
    pub fn set_layout(&mut self, brk_start: UserAddr, stack_limit: u64) {
        self.brk_start = brk_start;
        self.brk = brk_start;
        self.stack_limit = stack_limit;
    }

    /// Returns the current program break's start and end.
    pub fn heap(&self) -> UserRange {
        UserRange::new(self.brk_start, self.brk)
    }

    /// Makes an area as mmap(2) does and returns its start. `area.range.len()` is the length asked for;
    /// its place is chosen by `place`.
    ///
    /// Errors: ENOMEM without room, EEXIST, EINVAL, EPERM as mmap(2).
    pub fn map(&mut self, place: Place, len: u64, area: Vma) -> Result<UserAddr, Errno> {
        let len = UserAddr(len).page_ceil().filter(|len| len.0 > 0).ok_or(Errno::ENOMEM)?.0;
        let range = match place {
            Place::Anywhere(hint) => self.find_free(hint, len)?,
            Place::Fixed(addr) | Place::FixedNoReplace(addr) => {
                if !addr.is_page_aligned() {
                    return Err(Errno::EINVAL);
                }
                let range = UserRange::from_len(addr, len).ok_or(Errno::ENOMEM)?;
                if addr < MIN_ADDR {
                    return Err(Errno::EPERM);
                }
                if self.overlaps(range) {
                    if matches!(place, Place::FixedNoReplace(_)) {
                        return Err(Errno::EEXIST);
                    }
                    self.unmap(range)?;
                }
                range
            }
        };
        if self.areas.len() >= MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        self.insert(Vma { range, ..area });
        Ok(range.start)
    }

    fn overlaps(&self, range: UserRange) -> bool {
        self.areas.range(..range.end).next_back().is_some_and(|(_, area)| area.range.end > range.start)
    }

    /// Finds `len` free bytes, at the hint or else as high as possible below `mmap_top`.
    pub(super) fn find_free(&self, hint: UserAddr, len: u64) -> Result<UserRange, Errno> {
        if let Some(hint) = hint.page_ceil().filter(|hint| *hint >= MIN_ADDR)
            && let Some(range) = UserRange::from_len(hint, len)
            && !self.overlaps(range)
        {
            return Ok(range);
        }
        self.highest_gap(self.mmap_top, len).or_else(|| self.highest_gap(USER_END, len)).ok_or(Errno::ENOMEM)
    }

    fn highest_gap(&self, top: UserAddr, len: u64) -> Option<UserRange> {
        let mut end = top;
        for (_, area) in self.areas.range(..top).rev() {
            if area.range.end < end && end.bytes_from(area.range.end) >= len {
                break;
            }
            end = end.min(area.range.start);
        }
        let start = UserAddr(end.0.checked_sub(len)?);
        (start >= MIN_ADDR).then_some(UserRange { start, end })
    }

    /// Puts an area in, joined with its neighbours where they continue one another.
    pub(super) fn insert(&mut self, mut area: Vma) {
        if let Some((start, before)) = self.areas.range(..area.range.start).next_back()
            && before.merges_with(&area)
        {
            let start = *start;
            let before = self.areas.remove(&start).expect("a key just seen");
            area = Vma { range: UserRange::new(start, area.range.end), ..before };
        }
        if let Some(after) = self.areas.get(&area.range.end)
            && area.merges_with(after)
        {
            let after = self.areas.remove(&area.range.end).expect("a key just seen");
            area.range.end = after.range.end;
        }
        self.areas.insert(area.range.start, area);
    }

    /// Takes out all that lies in `range`, splitting areas at its edges, and returns it in order.
    fn take(&mut self, range: UserRange) -> Vec<Vma> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = self.areas.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        let keys: Vec<UserAddr> = self
            .areas
            .range((Bound::Included(first), Bound::Excluded(range.end)))
            .filter(|(_, area)| area.range.end > range.start)
            .map(|(start, _)| *start)
            .collect();
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            let area = self.areas.remove(&key).expect("a key just seen");
            let before = UserRange::new(area.range.start, range.start);
            let after = UserRange::new(range.end, area.range.end);
            if !before.is_empty() {
                self.areas.insert(before.start, area.slice(before));
            }
            if !after.is_empty() {
                self.areas.insert(after.start, area.slice(after));
            }
            taken.push(area.slice(range));
        }
        taken
    }

    /// Removes every area in `range` (munmap(2)).
    ///
    /// Errors: ENOMEM where that splits an area and there are too many already.
    pub fn unmap(&mut self, range: UserRange) -> Result<(), Errno> {
        let splits =
            |area: &Vma| area.range.start < range.start && range.end < area.range.end && !range.is_empty();
        if self.areas.len() >= MAX_AREAS && self.area_at(range.start).is_some_and(splits) {
            return Err(Errno::ENOMEM);
        }
        for area in self.take(range) {
            self.drop_pages(&area, area.range);
        }
        Ok(())
    }

    /// Takes the pages of `range`, part of `area`, out of the address space.
    fn drop_pages(&mut self, area: &Vma, range: UserRange) {
        let frames = &self.frames;
        self.machine.borrow_mut().unmap(self.space, range, &mut |addr, mapping| {
            report_dirty(area, addr, mapping);
            frames.release(mapping.frame);
        });
    }

    /// Changes the protection of `range` (mprotect(2)).
    ///
    /// Errors: ENOMEM where a page of the range is not mapped, EACCES for a store to a read-only file. What lies before
    /// has changed then, as on Linux.
    pub fn protect(&mut self, range: UserRange, prot: Prot) -> Result<(), Errno> {
        let mut covered = range.start;
        let mut refused = Errno::ENOMEM;
        for area in self.areas_in(range) {
            if area.range.start > covered {
                break;
            }
            let never = area.flags.contains(VmaFlags::NEVER_WRITE) && prot.contains(Prot::WRITE);
            if never || area.flags.contains(VmaFlags::KERNEL) {
                refused = Errno::EACCES;
                break;
            }
            covered = area.range.end;
        }
        if self.areas.len() + 2 > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let mapped = UserRange::new(range.start, covered.min(range.end));
        for area in self.take(mapped) {
            let area = Vma { prot, ..area };
            let frames = &self.frames;
            self.machine.borrow_mut().protect(self.space, area.range, &mut |addr, mapping| {
                report_dirty(&area, addr, mapping);
                page_prot(&area, frames, mapping)
            });
            self.insert(area);
        }
        if covered < range.end { Err(refused) } else { Ok(()) }
    }

    /// Takes the pages of a file from byte `size` on out of every mapping of it: the file has become
    /// shorter, and a touch of them is SIGBUS from now on. Private copies go too.
    pub fn file_truncated(&mut self, inode: &Rc<dyn Inode>, size: u64) {
        self.drop_file_pages(inode, size.div_ceil(PAGE_SIZE as u64)..u64::MAX, VmaFlags::empty());
    }

    /// Drops what shared areas show of a range of bytes that became a hole: pages wholly within it.
    pub fn file_punched(&mut self, inode: &Rc<dyn Inode>, start: u64, end: u64) {
        let pages = start.div_ceil(PAGE_SIZE as u64)..end / PAGE_SIZE as u64;
        self.drop_file_pages(inode, pages, VmaFlags::SHARED);
    }

    /// Drops pages of a file from areas with these flags.
    fn drop_file_pages(&mut self, inode: &Rc<dyn Inode>, pages: Range<u64>, flags: VmaFlags) {
        let shows = |area: &&Vma| {
            area.flags.contains(flags)
                && matches!(&area.backing, Backing::File { inode: other, .. } if Rc::ptr_eq(other, inode))
        };
        let place = |area: &Vma, index: u64| {
            let pages = index.saturating_sub(area.offset_pages).min(area.range.pages());
            UserAddr(area.range.start.0 + pages * PAGE_SIZE as u64)
        };
        let cut: Vec<(Vma, UserRange)> = self
            .areas
            .values()
            .filter(shows)
            .map(|area| (area.clone(), (place(area, pages.start), place(area, pages.end))))
            .filter(|(_, (start, end))| start < end)
            .map(|(area, (start, end))| (area, UserRange::new(start, end)))
            .collect();
        for (area, gone) in cut {
            self.drop_pages(&area, gone);
        }
    }

    /// Says whether a shared area of this file can be stored to, or made so.
    pub fn may_store_to(&self, inode: &Rc<dyn Inode>) -> bool {
        self.areas.values().any(|area| {
            area.flags & (VmaFlags::SHARED | VmaFlags::NEVER_WRITE) == VmaFlags::SHARED
                && matches!(&area.backing, Backing::File { inode: other, .. } if Rc::ptr_eq(other, inode))
        })
    }

    pub(super) fn areas_in(&self, range: UserRange) -> impl Iterator<Item = &Vma> {
        let first = self.areas.range(..=range.start).next_back().map_or(range.start, |(start, _)| *start);
        self.areas
            .range((Bound::Included(first), Bound::Excluded(range.end)))
            .map(|(_, area)| area)
            .filter(move |area| area.range.end > range.start)
    }

    /// Says whether every page of `range` is mapped.
    pub fn is_mapped(&self, range: UserRange) -> bool {
        let mut covered = range.start;
        for area in self.areas_in(range) {
            if area.range.start > covered {
                return false;
            }
            covered = area.range.end;
        }
        covered >= range.end
    }

    /// Says whether what is mapped in `range` is private memory that no file stands behind.
    pub fn is_private_anonymous(&self, range: UserRange) -> bool {
        self.areas_in(range)
            .all(|area| matches!(area.backing, Backing::Anonymous) && !area.flags.contains(VmaFlags::SHARED))
    }

    /// Moves the program break (brk(2)) and returns where it is afterwards.
    pub fn set_brk(&mut self, brk: UserAddr, data_limit: u64) -> UserAddr {
        let (Some(old_end), Some(new_end)) = (self.brk.page_ceil(), brk.page_ceil()) else { return self.brk };
        if brk < self.brk_start || brk >= USER_END || brk.bytes_from(self.brk_start) > data_limit {
            return self.brk;
        }
        if new_end > old_end {
            let grown = UserRange::new(old_end, new_end);
            let is_full = self.areas.len() >= MAX_AREAS;
            if is_full || self.overlaps(grown) || self.exceeds_memory(grown.len()) {
                return self.brk;
            }
            self.insert(Vma {
                range: grown,
                prot: Prot::READ | Prot::WRITE,
                flags: self.lock_of_new_areas(),
                backing: Backing::Anonymous,
                offset_pages: 0,
            });
        } else if new_end < old_end && self.unmap(UserRange::new(new_end, old_end)).is_err() {
            return self.brk;
        }
        self.brk = brk;
        brk
    }

    /// Says whether a single area of `len` bytes could never fit in the sandbox's memory: what Linux
    /// refuses under `vm.overcommit_memory` 0.
    pub fn exceeds_memory(&self, len: u64) -> bool {
        len / PAGE_SIZE as u64 > u64::from(self.frames.total())
    }

    /// Changes the size of an area, moving it if need and permission be (mremap(2)).
    ///
    /// Errors: EFAULT where nothing is mapped, or not one area; EINVAL; ENOMEM.
    pub fn remap(&mut self, old: UserRange, new_len: u64, growth: Growth) -> Result<UserAddr, Errno> {
        let area = self.area_at(old.start).ok_or(Errno::EFAULT)?.clone();
        if area.flags.contains(VmaFlags::KERNEL) {
            return Err(Errno::EFAULT);
        }
        let new = UserRange::from_len(old.start, new_len).ok_or(Errno::ENOMEM)?;
        // What stays where it is may be several areas.
        let shrinks = new_len <= old.len() && !matches!(growth, Growth::MoveTo(_));
        if shrinks {
            if new.end < old.end {
                self.unmap(UserRange::new(new.end, old.end))?;
            }
            return Ok(old.start);
        }
        if area.range.end < old.end {
            return Err(Errno::EFAULT);
        }
        // An old length of zero asks for a second mapping, which only shared pages can have.
        if old.is_empty() && !area.flags.contains(VmaFlags::SHARED) {
            return Err(Errno::EINVAL);
        }
        if let Growth::MoveTo(target) = growth {
            let target = self.clear_target(old, target, new_len)?;
            return self.move_area(&area, old, target);
        }
        if self.exceeds_memory(new_len) {
            return Err(Errno::ENOMEM);
        }
        let extra = UserRange::new(old.end, new.end);
        if old.end == area.range.end && !self.overlaps(extra) {
            self.insert(Vma { range: extra, offset_pages: area.page_index(old.end), ..area });
            return Ok(old.start);
        }
        if growth == Growth::InPlace {
            return Err(Errno::ENOMEM);
        }
        let target = self.find_free(UserAddr(0), new_len)?;
        self.move_area(&area, old, target)
    }

    /// Makes room for what mremap(2) is to move to `target`. Errors: EINVAL.
    pub(super) fn clear_target(
        &mut self,
        old: UserRange,
        target: UserAddr,
        len: u64,
    ) -> Result<UserRange, Errno> {
        let target = UserRange::from_len(target, len).ok_or(Errno::EINVAL)?;
        if !target.start.is_page_aligned() || target.start < MIN_ADDR || !target.intersect(old).is_empty() {
            return Err(Errno::EINVAL);
        }
        self.unmap(target)?;
        Ok(target)
    }

    /// Says whether the page at `addr` is in memory.
    pub fn is_resident(&self, addr: UserAddr) -> bool {
        self.machine.borrow().lookup(self.space, addr.page_floor()).is_some()
    }

    pub(super) fn move_area(
        &mut self,
        area: &Vma,
        old: UserRange,
        target: UserRange,
    ) -> Result<UserAddr, Errno> {
        if self.areas.len() + 3 > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        if u64::from(self.frames.free()) < most_tables(target) {
            return Err(Errno::ENOMEM);
        }
        let moved = area.slice(old);
        let kept = UserRange::new(old.start, UserAddr(old.start.0 + old.len().min(target.len())));
        if !old.is_empty() {
            let mut pages = Vec::new();
            self.take(old);
            self.machine.borrow_mut().unmap(self.space, old, &mut |addr, mapping| {
                report_dirty(&moved, addr, mapping);
                pages.push((addr, mapping));
            });
            let mut machine = self.machine.borrow_mut();
            for (addr, mapping) in pages {
                let to = UserAddr(target.start.0 + addr.bytes_from(old.start));
                // What was stored to has been reported. Where the platform has no room for tables, the page is lost.
                let mapping = mapping_of(&moved, mapping.frame, mapping.prot);
                if !kept.contains(addr)
                    || map_page(&mut **machine, &self.frames, self.space, to, mapping).is_err()
                {
                    self.frames.release(mapping.frame);
                }
            }
        }
        self.insert(Vma { range: target, ..moved });
        Ok(target.start)
    }

    /// Forgets the contents of private pages, so that they are read afresh from their backing
    /// (MADV_DONTNEED).
    pub fn forget(&mut self, range: UserRange) -> Result<(), Errno> {
        let areas: Vec<Vma> = self.areas_in(range).map(|area| area.slice(range)).collect();
        if areas.iter().any(|area| area.flags.contains(VmaFlags::KERNEL)) {
            return Err(Errno::EINVAL);
        }
        for area in areas {
            self.drop_pages(&area, area.range);
        }
        if self.is_mapped(range) { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Returns the parts of areas in `range`.
    pub fn parts(&self, range: UserRange) -> Vec<Vma> {
        self.areas_in(range).map(|area| area.slice(range)).collect()
    }

    /// Drops the contents of a part of a shared object of the kernel's own, for everyone who maps it.
    pub fn remove_shared(&mut self, part: &Vma, pages: &SharedPages) {
        self.drop_pages(part, part.range);
        pages.remove(part.offset_pages, part.range.pages());
    }

    /// Returns for each page of `range` 1 if it is in memory, else 0 (mincore(2)).
    pub fn residency(&self, range: UserRange) -> Vec<u8> {
        let mut bytes = vec![0; range.pages() as usize];
        self.machine.borrow().visit(self.space, range, &mut |addr, _| {
            bytes[(addr.bytes_from(range.start) / PAGE_SIZE as u64) as usize] = 1;
        });
        bytes
    }

    /// Sets or clears flags of the areas in `range` (MADV_DONTFORK and the like).
    pub fn set_flags(&mut self, range: UserRange, set: VmaFlags, clear: VmaFlags) -> Result<(), Errno> {
        if !self.is_mapped(range) || self.areas.len() + 2 > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        for mut area in self.take(range) {
            area.flags = (area.flags | set) - clear;
            self.insert(area);
        }
        Ok(())
    }

    /// Forgets what areas under MADV_WIPEONFORK hold: the whole sandbox has been forked.
    pub fn wipe_for_fork(&mut self) {
        let wiped: Vec<Vma> =
            self.areas.values().filter(|area| area.flags.contains(VmaFlags::WIPE_ON_FORK)).cloned().collect();
        for area in wiped {
            self.drop_pages(&area, area.range);
        }
    }

    /// Tells the files of shared mappings in `range` which of their pages were stored to (msync(2)).
    pub fn report_stores(&mut self, range: UserRange) {
        for area in self.areas_in(range) {
            self.machine.borrow().visit(self.space, area.range.intersect(range), &mut |addr, mapping| {
                report_dirty(area, addr, mapping);
            });
        }
    }

    /// Returns a copy for a forked process. Private pages are shared until either side stores to them.
    pub fn fork(&mut self) -> Result<MemoryManager, Errno> {
        let mut child = MemoryManager::new(&self.machine, &self.frames, self.mmap_top)?;
        child.copies_around = COPIES_AROUND;
        self.copies_around = COPIES_AROUND;
        child.brk_start = self.brk_start;
        child.brk = self.brk;
        child.stack_limit = self.stack_limit;
        child.arguments = self.arguments;
        child.environment = self.environment;
        child.auxv.clone_from(&self.auxv);
        for area in self.areas.values() {
            if area.flags.contains(VmaFlags::DONT_FORK) {
                continue;
            }
            let flags = area.flags - VmaFlags::LOCKED;
            child.areas.insert(area.range.start, Vma { flags, ..area.clone() });
            if area.flags.contains(VmaFlags::WIPE_ON_FORK) {
                continue;
            }
            let mut pages = Vec::new();
            let mut machine = self.machine.borrow_mut();
            if area.flags.contains(VmaFlags::SHARED) || !area.prot.contains(Prot::WRITE) {
                machine.visit(self.space, area.range, &mut |addr, mapping| pages.push((addr, mapping)));
            } else {
                machine.protect(self.space, area.range, &mut |addr, mapping| {
                    let prot = without_stores(mapping.prot);
                    pages.push((addr, Mapping { prot, ..mapping }));
                    prot
                });
            }
            for (addr, mapping) in pages {
                let mapping = mapping_of(area, mapping.frame, mapping.prot);
                map_page(&mut **machine, &self.frames, child.space, addr, mapping)?;
                self.frames.retain(mapping.frame);
            }
        }
        Ok(child)
    }
}

impl Drop for MemoryManager {
    fn drop(&mut self) {
        let mut machine = self.machine.borrow_mut();
        for area in self.areas.values() {
            machine.visit(self.space, area.range, &mut |addr, mapping| {
                report_dirty(area, addr, mapping);
                self.frames.release(mapping.frame);
            });
        }
        machine.destroy_space(self.space);
        self.frames.set_table_bytes(machine.table_bytes());
    }
}

/// Returns what user code may do with a mapped page of `area`: a private page with other owners must be
/// copied before it is stored to.
pub(super) fn page_prot(area: &Vma, frames: &Frames, mapping: Mapping) -> Prot {
    if area.flags.contains(VmaFlags::SHARED) || frames.owners(mapping.frame) == 1 {
        area.prot
    } else {
        without_stores(area.prot)
    }
}

/// Returns a new mapping of a page of `area`. Of a private page nobody asks whether it was stored to.
pub(super) fn mapping_of(area: &Vma, frame: Frame, prot: Prot) -> Mapping {
    Mapping { frame, prot, dirty: !area.flags.contains(VmaFlags::SHARED) }
}

/// Returns what is left of a permission without stores: what could be written can be read still (mmap(2) on x86).
fn without_stores(prot: Prot) -> Prot {
    if prot.contains(Prot::WRITE) { (prot - Prot::WRITE) | Prot::READ } else { prot }
}

fn report_dirty(area: &Vma, addr: UserAddr, mapping: Mapping) {
    if mapping.dirty
        && area.flags.contains(VmaFlags::SHARED)
        && let Backing::File { inode, .. } = &area.backing
    {
        inode.page_dirtied(area.page_index(addr));
    }
}

/// Maps a page, and counts the tables that this takes. One page may pass the limit by its tables; then no
/// other is mapped.
///
/// Errors: ENOMEM over the limit of memory.
pub(super) fn map_page(
    machine: &mut dyn Platform,
    frames: &Frames,
    space: SpaceId,
    addr: UserAddr,
    mapping: Mapping,
) -> Result<(), Errno> {
    if frames.is_over_limit() {
        return Err(Errno::ENOMEM);
    }
    machine.map(space, addr, mapping).map_err(table_errno)?;
    frames.set_table_bytes(machine.table_bytes());
    Ok(())
}

/// Returns how many page tables a range can need: one for each 512 pages and tables above, at both ends.
fn most_tables(range: UserRange) -> u64 {
    let lowest = range.pages().div_ceil(512) + 1;
    lowest + lowest.div_ceil(512) + 3
}

/// Turns the platform's refusal to make a table into the errno that the guest sees.
pub(super) fn table_errno(_: PlatformError) -> Errno {
    Errno::ENOMEM
}
