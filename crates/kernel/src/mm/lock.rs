//! Locked memory (mlock(2)). Nothing is ever swapped out, so a lock makes pages present, counts against
//! RLIMIT_MEMLOCK and forbids to give the pages back; and pages that are made present ahead of use.

use lg_abi::Errno;
use lg_platform::{Access, PAGE_SIZE, Prot, UserAddr, UserRange};

use super::{MemoryFault, MemoryManager, VmaFlags};

impl MemoryManager {
    /// Returns how many pages lie in locked areas.
    pub fn locked_pages(&self) -> u64 {
        let locked = self.areas.values().filter(|area| area.flags.contains(VmaFlags::LOCKED));
        locked.map(|area| area.range.pages()).sum()
    }

    /// Returns how many pages of `range` lie in locked areas.
    pub fn locked_in(&self, range: UserRange) -> u64 {
        let locked = self.areas_in(range).filter(|area| area.flags.contains(VmaFlags::LOCKED));
        locked.map(|area| area.range.intersect(range).pages()).sum()
    }

    /// Locks all areas, or unlocks them (mlockall(2)); `future` says whether new areas are locked too.
    pub fn set_all_locked(&mut self, current: Option<Locking>, future: Locking) {
        self.lock_future = future == Locking::Locked;
        if let Some(locking) = current {
            for area in self.areas.values_mut() {
                area.flags.set(VmaFlags::LOCKED, locking == Locking::Locked);
            }
        }
    }

    /// Returns the flag of a new area: whether mlockall(2) has asked for its lock.
    pub fn lock_of_new_areas(&self) -> VmaFlags {
        if self.lock_future { VmaFlags::LOCKED } else { VmaFlags::empty() }
    }

    /// Makes the pages of `range` accessible, in order, as far as that goes (MADV_POPULATE_READ and
    /// MADV_POPULATE_WRITE).
    pub fn populate(&mut self, range: UserRange, access: Access) -> Result<(), MemoryFault> {
        let needed = if access == Access::Write { Prot::WRITE } else { Prot::empty() };
        for page in range.page_addrs() {
            let mapping = self.machine.borrow().lookup(self.space, page);
            let is_there =
                mapping.is_some_and(|mapping| !mapping.prot.is_empty() && mapping.prot.contains(needed));
            if !is_there {
                self.fault(page, access)?;
            }
        }
        Ok(())
    }

    /// Makes the pages of `range` present as their use would: private memory that can be stored to is the
    /// process's own from then on (MAP_POPULATE, mlock(2)).
    pub fn populate_for_use(&mut self, range: UserRange) -> Result<(), MemoryFault> {
        let mut at = range.start;
        while at < range.end {
            let area = self.area_at(at).ok_or(MemoryFault::Unmapped)?;
            let stores = area.prot.contains(Prot::WRITE) && !area.flags.contains(VmaFlags::SHARED);
            let part = UserRange::new(at, area.range.end.min(range.end));
            self.populate(part, if stores { Access::Write } else { Access::Read })?;
            at = part.end;
        }
        Ok(())
    }

    /// Makes the pages of all areas present as far as that goes (mlockall(2)).
    pub fn populate_all(&mut self) {
        let ranges: Vec<UserRange> = self.areas.values().map(|area| area.range).collect();
        for range in ranges {
            // What can not be had now faults later.
            let _ = self.populate_for_use(range);
        }
    }

    /// Moves the pages of `old` to another place and leaves the area there, without its pages (mremap(2),
    /// MREMAP_DONTUNMAP). `place` is a hint, or with `Placement::Fixed` the place.
    ///
    /// Errors: EFAULT, EINVAL, ENOMEM.
    pub fn move_pages_away(
        &mut self,
        old: UserRange,
        place: UserAddr,
        placement: Placement,
    ) -> Result<UserAddr, Errno> {
        let area = self.area_at(old.start).ok_or(Errno::EFAULT)?.clone();
        if area.range.end < old.end || area.flags.contains(VmaFlags::KERNEL) {
            return Err(Errno::EFAULT);
        }
        let target = match placement {
            Placement::Fixed => self.clear_target(old, place, old.len())?,
            Placement::Hint => self.find_free(place.page_floor(), old.len())?,
        };
        let left = area.slice(old);
        let at = self.move_area(&area, old, target)?;
        self.insert(left);
        Ok(at)
    }
}

/// Whether memory is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locking {
    /// It is.
    Locked,
    /// It is not.
    Unlocked,
}

/// How an address is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// As a wish.
    Hint,
    /// As the place (MREMAP_FIXED).
    Fixed,
}

/// Returns how many pages `bytes` are, rounded down.
pub fn whole_pages(bytes: u64) -> u64 {
    bytes / PAGE_SIZE as u64
}
