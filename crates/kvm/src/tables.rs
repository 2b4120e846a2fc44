//! Address spaces: 4-level page tables (SDM volume 3, 4.5) in the table zone.
//!
//! Three rules follow from who else reads these tables:
//!
//! - An upper-level entry of a live space never changes once it is set. KVM on PVM caches upper levels
//!   without noticing host-side changes, so tables that have become empty stay until [`Tables::reclaim`].
//! - Frames of destroyed spaces are put aside, not reused, while a shadow of them may exist ([`Kind::Pvm`]).
//!   [`Tables::reclaim`] makes them usable again; its caller first makes KVM forget every shadow page.
//! - Tables hold places of the data zone, which the platform makes of frames (see `order`).
//! - User tables never map the table zone or the system zone: leaves are made from frame numbers of the data
//!   zone only.

use std::collections::HashMap;

use lg_platform::{
    Frame, Mapping, PAGE_SHIFT, PAGE_SIZE, PlatformError, Prot, SpaceId, USER_END, UserAddr, UserRange,
};

use crate::error::Kind;
use crate::layout::*;
use crate::region::Region;
use crate::stale::Stale;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits 9 to 11 are the system's to use: they hold the [`Prot`] as it was asked for, because the hardware
/// bits can not tell READ from READ|EXEC asked for as EXEC alone, nor hold an empty one.
const PROT_SHIFT: u32 = 9;
/// Bit 52 is the system's to use as well: a mapping is held here, present or not.
const HELD: u64 = 1 << 52;

const ENTRIES: u64 = 512;

/// A page-table entry that maps, or would map, a frame of the data zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(u64);

impl Entry {
    const EMPTY: Entry = Entry(0);

    fn new(frame: Frame, prot: Prot) -> Entry {
        let mut bits =
            HELD | (DATA_GPA + (u64::from(frame.0) << PAGE_SHIFT)) | u64::from(prot.bits()) << PROT_SHIFT;
        if !prot.is_empty() {
            bits |= PRESENT | USER;
        }
        if prot.contains(Prot::WRITE) {
            bits |= WRITABLE;
        }
        if !prot.contains(Prot::EXEC) {
            bits |= NO_EXECUTE;
        }
        Entry(bits)
    }

    fn of(mapping: Mapping) -> Entry {
        let dirty = if mapping.dirty { DIRTY } else { 0 };
        Entry(Entry::new(mapping.frame, mapping.prot).0 | dirty)
    }

    /// The entry with another permission, not accessed yet.
    fn with_prot(self, prot: Prot) -> Entry {
        let dirty = self.0 & DIRTY;
        Entry(Entry::new(Frame(self.frame()), prot).0 | dirty)
    }

    /// The entry with its accessed bit set.
    pub fn accessed(self) -> Entry {
        Entry(self.0 | ACCESSED)
    }

    fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// Whether the processor may use the entry.
    pub fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether a translation made from this entry may be cached somewhere.
    pub fn may_be_cached(self) -> bool {
        self.0 & (PRESENT | ACCESSED) == PRESENT | ACCESSED
    }

    /// Whether stores are allowed.
    pub fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Whether instruction fetches are allowed.
    pub fn is_executable(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }

    /// Whether there was a store through this entry.
    pub fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// The data-zone frame number.
    pub fn frame(self) -> u32 {
        (((self.0 & ADDRESS) - DATA_GPA) >> PAGE_SHIFT) as u32
    }

    fn mapping(self) -> Option<Mapping> {
        self.is_held().then(|| Mapping {
            frame: Frame(self.frame()),
            prot: Prot::from_bits_truncate((self.0 >> PROT_SHIFT) as u8 & 7),
            dirty: self.is_dirty(),
        })
    }
}

/// The tables of one address space; the first is the root.
struct Space {
    tables: Vec<u32>,
}

/// All address spaces, and the frames of the table zone.
pub struct Tables {
    zone: Region,
    kind: Kind,
    spaces: HashMap<SpaceId, Space>,
    next_id: u32,
    /// Frames from here on were never used.
    fresh: u32,
    /// Frames that may be used again; zero.
    free: Vec<u32>,
    /// Frames of destroyed spaces that KVM may hold shadows of; zero.
    quarantine: Vec<u32>,
    /// The first two tables of destroyed spaces, one of which may be the space that the vCPU is still in. They
    /// hold the kernel area and nothing else.
    retired: Vec<u32>,
}

impl Tables {
    /// Makes the store over an all-zero region.
    pub fn new(zone: Region, kind: Kind) -> Tables {
        Tables {
            zone,
            kind,
            spaces: HashMap::new(),
            next_id: 1,
            fresh: 0,
            free: Vec::new(),
            quarantine: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Returns the host mapping of the table zone.
    pub fn zone(&self) -> &Region {
        &self.zone
    }

    /// Returns the bytes of tables that are in use. Those put aside have been given back to the host.
    pub fn used_bytes(&self) -> u64 {
        ((self.fresh as usize - self.free.len() - self.quarantine.len()) << PAGE_SHIFT) as u64
    }

    /// Moves the tables to a sealed file; see [`Region::seal`].
    pub fn seal(&self) -> std::io::Result<()> {
        let used = 0..(self.fresh as usize) << PAGE_SHIFT;
        if used.is_empty() { Ok(()) } else { self.zone.seal(&[used]) }
    }

    /// Says whether [`Tables::reclaim`] would bring anything.
    pub fn can_reclaim(&self) -> bool {
        !self.quarantine.is_empty() || self.spaces.values().any(|space| space.tables.len() > 2)
    }

    /// Returns the CR3 of a space.
    pub fn root(&self, space: SpaceId) -> u64 {
        gpa(self.space(space).tables[0])
    }

    fn space(&self, space: SpaceId) -> &Space {
        self.spaces.get(&space).expect("the kernel names a live address space")
    }

    fn allocate(&mut self) -> Option<u32> {
        if let Some(table) = self.free.pop() {
            return Some(table);
        }
        let limit = (self.zone.len() >> PAGE_SHIFT) as u32;
        (self.fresh < limit).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    /// Makes an empty space: a root, and the page-directory-pointer table that holds the kernel area.
    pub fn create(&mut self) -> Result<SpaceId, PlatformError> {
        let root = self.allocate().ok_or(PlatformError::OutOfTables)?;
        let Some(top) = self.allocate() else {
            self.free.push(root);
            return Err(PlatformError::OutOfTables);
        };
        let upper = PRESENT | WRITABLE | USER | ACCESSED;
        self.zone.write_u64(slot(root, index(KERNEL_AREA, 4)), gpa(top) | upper);
        // Below this entry only leaves decide; on ordinary KVM no leaf there is user code's, so neither
        // is the entry.
        let user = if self.kind == Kind::Pvm { USER } else { 0 };
        let kernel = system_gpa(KERNEL_PD_PAGE) | PRESENT | WRITABLE | ACCESSED | user;
        self.zone.write_u64(slot(top, index(KERNEL_AREA, 3)), kernel);
        let mut id = SpaceId(self.next_id);
        while self.spaces.contains_key(&id) {
            id = SpaceId(id.0.wrapping_add(1));
        }
        self.next_id = id.0.wrapping_add(1);
        self.spaces.insert(id, Space { tables: vec![root, top] });
        Ok(id)
    }

    /// Removes a space. Its tables become zero, and free or put aside.
    pub fn destroy(&mut self, space: SpaceId, stale: &mut Stale) {
        let mut tables = self.spaces.remove(&space).expect("the kernel names a live address space").tables;
        if self.kind == Kind::Ordinary {
            // The guest changes CR3 with an instruction that it fetches in the old space.
            for (table, level) in [(tables[0], 4), (tables[1], 3)] {
                for entry in (0..ENTRIES).filter(|entry| *entry != index(KERNEL_AREA, level)) {
                    self.zone.write_u64(slot(table, entry), 0);
                }
            }
            self.retired.extend(tables.drain(..2));
        }
        self.wipe(&mut tables);
        match self.kind {
            Kind::Pvm => self.quarantine.append(&mut tables),
            Kind::Ordinary => {
                stale.note_tables_freed();
                self.free.append(&mut tables);
            }
        }
    }

    /// Frees what destroyed spaces left, once the vCPU is in a live space.
    pub fn free_retired(&mut self) {
        if !self.retired.is_empty() {
            let mut retired = std::mem::take(&mut self.retired);
            self.wipe(&mut retired);
            self.free.append(&mut retired);
        }
    }

    fn wipe(&self, tables: &mut [u32]) {
        tables.sort_unstable();
        for run in tables.chunk_by(|left, right| left + 1 == *right) {
            self.zone.discard((run[0] as usize) << PAGE_SHIFT, run.len() << PAGE_SHIFT);
        }
    }

    /// Clears the accessed bit of every page of every space. Nothing may be cached of them: no virtual machine is
    /// there, or it has never run.
    pub fn clear_accessed(&mut self) {
        for entry in self.leaves() {
            let value = self.zone.read_u64(entry);
            if value & ACCESSED != 0 {
                self.zone.write_u64(entry, value & !ACCESSED);
            }
        }
    }

    /// Returns the frames of all pages that were accessed since [`Tables::clear_accessed`], in ascending order.
    pub fn accessed_frames(&self) -> Vec<u32> {
        let entries = self.leaves().into_iter().map(|entry| Entry(self.zone.read_u64(entry)));
        let mut frames: Vec<u32> =
            entries.filter(|entry| entry.may_be_cached()).map(|entry| entry.frame()).collect();
        frames.sort_unstable();
        frames.dedup();
        frames
    }

    /// Returns the places of all entries that hold a mapping.
    fn leaves(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for space in self.spaces.values() {
            for pml4_index in 0..=index(KERNEL_AREA, 4) {
                self.leaves_below(slot(space.tables[0], pml4_index), 3, &mut found);
            }
        }
        found
    }

    fn leaves_below(&self, parent: usize, level: u32, found: &mut Vec<usize>) {
        let Some(table) = self.child(parent) else { return };
        for entry in 0..ENTRIES {
            let at = slot(table, entry);
            if level > 1 {
                self.leaves_below(at, level - 1, found);
            } else if Entry(self.zone.read_u64(at)).is_held() {
                found.push(at);
            }
        }
    }

    /// Lets every entry name the new place of what it maps. As for [`Tables::clear_accessed`], nothing may be cached.
    pub fn move_places(&mut self, new_place: impl Fn(u32) -> u32) {
        for at in self.leaves() {
            let entry = Entry(self.zone.read_u64(at));
            let address = DATA_GPA + (u64::from(new_place(entry.frame())) << PAGE_SHIFT);
            self.zone.write_u64(at, entry.0 & !ADDRESS | address);
        }
    }

    /// Bytes of the table zone that were ever used.
    pub fn used_extent(&self) -> usize {
        (self.fresh as usize) << PAGE_SHIFT
    }

    /// Frees the quarantine. The caller must make KVM and the processor forget all cached translations before the
    /// guest runs again.
    pub fn end_quarantine(&mut self) {
        // Retired tables stay: the vCPU may be in them.
        self.free.append(&mut self.quarantine);
    }

    /// Frees the quarantine and every table of a live space that maps nothing, under the same condition as
    /// [`Tables::end_quarantine`].
    pub fn reclaim(&mut self) {
        self.end_quarantine();
        let mut spaces = std::mem::take(&mut self.spaces);
        for space in spaces.values_mut() {
            let mut empty = Vec::new();
            for pml4_index in 0..=index(KERNEL_AREA, 4) {
                self.prune(slot(space.tables[0], pml4_index), 3, &mut empty);
            }
            empty.sort_unstable();
            space.tables.retain(|table| empty.binary_search(table).is_err());
            self.free.append(&mut empty);
        }
        self.spaces = spaces;
    }

    /// Removes the table that the entry at `parent` names if nothing is left in it.
    fn prune(&self, parent: usize, level: u32, empty: &mut Vec<u32>) {
        let Some(table) = self.child(parent) else { return };
        let mut used = false;
        for entry in 0..ENTRIES {
            let at = slot(table, entry);
            if level > 1 {
                self.prune(at, level - 1, empty);
            }
            used |= self.zone.read_u64(at) != 0;
        }
        if !used {
            self.zone.write_u64(parent, 0);
            empty.push(table);
        }
    }

    /// Returns the table of this zone that an upper-level entry names.
    fn child(&self, entry: usize) -> Option<u32> {
        let bits = self.zone.read_u64(entry);
        let address = bits & ADDRESS;
        // The kernel area's page directory lies in the system zone and is nobody's to change.
        (bits & PRESENT != 0 && address >= TABLES_GPA).then(|| ((address - TABLES_GPA) >> PAGE_SHIFT) as u32)
    }

    /// Returns the offset of the leaf entry for an address, if the tables above it exist.
    fn leaf(&self, space: SpaceId, addr: UserAddr) -> Option<usize> {
        let mut table = self.space(space).tables[0];
        for level in [4, 3, 2] {
            table = self.child(slot(table, index(addr.0, level)))?;
        }
        Some(slot(table, index(addr.0, 1)))
    }

    fn leaf_or_new(&mut self, space: SpaceId, addr: UserAddr) -> Result<usize, PlatformError> {
        let mut table = self.space(space).tables[0];
        for level in [4, 3, 2] {
            let entry = slot(table, index(addr.0, level));
            table = match self.child(entry) {
                Some(child) => child,
                None => {
                    let child = self.allocate().ok_or(PlatformError::OutOfTables)?;
                    self.zone.write_u64(entry, gpa(child) | PRESENT | WRITABLE | USER | ACCESSED);
                    self.spaces.get_mut(&space).expect("seen above").tables.push(child);
                    child
                }
            };
        }
        Ok(slot(table, index(addr.0, 1)))
    }

    /// See [`lg_platform::Platform::map`].
    pub fn map(
        &mut self,
        space: SpaceId,
        addr: UserAddr,
        mapping: Mapping,
        stale: &mut Stale,
    ) -> Result<(), PlatformError> {
        assert!(addr.is_page_aligned() && addr < USER_END, "a mapping at {addr}");
        let entry = self.leaf_or_new(space, addr)?;
        let new = stale.note(Entry(self.zone.read_u64(entry)), Entry::of(mapping));
        self.zone.write_u64(entry, new.0);
        Ok(())
    }

    /// See [`lg_platform::Platform::unmap`].
    pub fn unmap(
        &mut self,
        space: SpaceId,
        range: UserRange,
        stale: &mut Stale,
        removed: &mut dyn FnMut(UserAddr, Mapping),
    ) {
        self.walk(space, range, &mut |addr, old, mapping| {
            removed(addr, mapping);
            Some(stale.note(old, Entry::EMPTY))
        });
    }

    /// See [`lg_platform::Platform::protect`].
    pub fn protect(
        &mut self,
        space: SpaceId,
        range: UserRange,
        stale: &mut Stale,
        prot: &mut dyn FnMut(UserAddr, Mapping) -> Prot,
    ) {
        self.walk(space, range, &mut |addr, old, mapping| {
            let wanted = prot(addr, mapping);
            if wanted == mapping.prot {
                return None;
            }
            Some(stale.note(old, old.with_prot(wanted)))
        });
    }

    /// See [`lg_platform::Platform::lookup`].
    pub fn lookup(&self, space: SpaceId, addr: UserAddr) -> Option<Mapping> {
        if addr >= USER_END {
            return None;
        }
        Entry(self.zone.read_u64(self.leaf(space, addr)?)).mapping()
    }

    /// See [`lg_platform::Platform::visit`].
    pub fn visit(&self, space: SpaceId, range: UserRange, visitor: &mut dyn FnMut(UserAddr, Mapping)) {
        self.walk(space, range, &mut |addr, _, mapping| {
            visitor(addr, mapping);
            None
        });
    }

    /// Calls `leaf` for each held entry in the range, ascending, and stores what it answers.
    fn walk(
        &self,
        space: SpaceId,
        range: UserRange,
        leaf: &mut dyn FnMut(UserAddr, Entry, Mapping) -> Option<Entry>,
    ) {
        assert!(range.end <= USER_END, "a range up to {}", range.end);
        assert!(range.start.is_page_aligned() && range.end.is_page_aligned());
        if !range.is_empty() {
            self.walk_table(self.space(space).tables[0], 4, range.start.0, range.end.0 - 1, leaf);
        }
    }

    /// Walks one table over the addresses `first..=last`, all of which it covers.
    fn walk_table(
        &self,
        table: u32,
        level: u32,
        first: u64,
        last: u64,
        leaf: &mut dyn FnMut(UserAddr, Entry, Mapping) -> Option<Entry>,
    ) {
        let shift = PAGE_SHIFT + 9 * (level - 1);
        for entry_index in index(first, level)..=index(last, level) {
            let entry = slot(table, entry_index);
            // The part of first..=last that this entry covers.
            let start = (first >> (shift + 9) << (shift + 9)) + (entry_index << shift);
            let from = first.max(start);
            let to = last.min(start + ((1 << shift) - 1));
            if level > 1 {
                if let Some(child) = self.child(entry) {
                    self.walk_table(child, level - 1, from, to, leaf);
                }
                continue;
            }
            let old = Entry(self.zone.read_u64(entry));
            if let Some(mapping) = old.mapping()
                && let Some(new) = leaf(UserAddr(from), old, mapping)
            {
                self.zone.write_u64(entry, new.0);
            }
        }
    }
}

/// Fills the kernel area's page directory and page table in the system zone.
pub fn install_kernel_area(system: &Region, kind: Kind) {
    let user = if kind == Kind::Pvm { USER } else { 0 };
    let pd = KERNEL_PD_PAGE * PAGE_SIZE + index(KERNEL_AREA, 2) as usize * 8;
    let upper = PRESENT | WRITABLE | ACCESSED | user;
    system.write_u64(pd, system_gpa(KERNEL_PT_PAGE) | upper);
    for page in 0..KERNEL_AREA_PAGES {
        // Accessed and dirty are set beforehand, so that nobody needs to write these tables.
        let rights = match page {
            SYSCALL_PAGE => user,
            STUB_PAGE => 0,
            STACK_PAGE => WRITABLE | NO_EXECUTE,
            MAILBOX_PAGE if kind == Kind::Pvm => user | WRITABLE | NO_EXECUTE,
            _ => NO_EXECUTE,
        };
        let entry = system_gpa(page) | PRESENT | ACCESSED | DIRTY | rights;
        let pt = KERNEL_PT_PAGE * PAGE_SIZE + index(kernel_page(page), 1) as usize * 8;
        system.write_u64(pt, entry);
    }
}

fn gpa(table: u32) -> u64 {
    TABLES_GPA + (u64::from(table) << PAGE_SHIFT)
}

fn slot(table: u32, entry: u64) -> usize {
    ((table as usize) << PAGE_SHIFT) + entry as usize * 8
}

fn index(addr: u64, level: u32) -> u64 {
    (addr >> (PAGE_SHIFT + 9 * (level - 1))) % ENTRIES
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Prot = Prot::READ.union(Prot::WRITE);

    fn tables(pages: usize) -> (Tables, Stale) {
        let zone = Region::reserve(pages * PAGE_SIZE).expect("a reservation");
        (Tables::new(zone, Kind::Pvm), Stale::new(Kind::Pvm))
    }

    #[test]
    fn a_permission_reads_back_as_it_was_given() {
        let (mut tables, mut stale) = tables(16);
        let space = tables.create().unwrap();
        for bits in 0..8 {
            let prot = Prot::from_bits_truncate(bits);
            tables.map(space, UserAddr(0x1000), Mapping::clean(Frame(7), prot), &mut stale).unwrap();
            let mapping = tables.lookup(space, UserAddr(0x1fff)).unwrap();
            assert_eq!(mapping, Mapping::clean(Frame(7), prot));
        }
        assert_eq!(tables.lookup(space, UserAddr(0x2000)), None);
        assert_eq!(tables.lookup(space, UserAddr(KERNEL_AREA)), None);
    }

    #[test]
    fn ranges_stop_at_their_ends_across_tables() {
        let (mut tables, mut stale) = tables(64);
        let space = tables.create().unwrap();
        // Around the borders of a table, a directory and a top-level entry.
        let borders = [0x20_0000u64, 0x4000_0000, 0x80_0000_0000];
        for border in borders {
            for addr in [border - 0x1000, border] {
                tables.map(space, UserAddr(addr), Mapping::clean(Frame(1), WRITE), &mut stale).unwrap();
            }
        }
        for border in borders {
            let range = UserRange::new(UserAddr(border - 0x2000), UserAddr(border));
            let mut seen = Vec::new();
            tables.unmap(space, range, &mut stale, &mut |addr, _| seen.push(addr.0));
            assert_eq!(seen, [border - 0x1000]);
            assert!(tables.lookup(space, UserAddr(border)).is_some());
        }
    }

    #[test]
    fn tables_of_a_destroyed_space_wait_for_a_reclaim() {
        let (mut tables, mut stale) = tables(4);
        let first = tables.create().unwrap();
        let second = tables.create().unwrap();
        tables.destroy(first, &mut stale);
        assert!(matches!(tables.create(), Err(PlatformError::OutOfTables)));
        assert!(tables.can_reclaim());
        tables.reclaim();
        let third = tables.create().unwrap();
        assert_ne!(third, first);
        assert_ne!(tables.root(third), tables.root(second));
    }

    #[test]
    fn a_reclaim_keeps_what_is_mapped_and_frees_empty_tables() {
        let (mut tables, mut stale) = tables(8);
        let space = tables.create().unwrap();
        let (kept, gone) = (UserAddr(0x40_0000_0000), UserAddr(0x1000));
        tables.map(space, kept, Mapping::clean(Frame(3), WRITE), &mut stale).unwrap();
        tables.map(space, gone, Mapping::clean(Frame(4), WRITE), &mut stale).unwrap();
        assert!(tables.create().is_err());
        let range = UserRange::new(gone, UserAddr(0x2000));
        tables.unmap(space, range, &mut stale, &mut |_, _| {});
        tables.reclaim();
        assert_eq!(tables.lookup(space, kept).map(|mapping| mapping.frame), Some(Frame(3)));
        assert_eq!(tables.lookup(space, gone), None);
        assert!(tables.create().is_ok());
    }
}
