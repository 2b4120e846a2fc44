//! What the processor, or KVM on its behalf, may still remember of page-table entries that were lowered.
//!
//! The page tables are written from the host, which neither the processor's TLB nor KVM notices. Raising an
//! entry (not present to present, read-only to writable) needs nothing: the stale translation faults, and
//! the fault walks the tables anew. Lowering one (unmap, less permission, another frame, a cleared dirty
//! bit) needs a remedy before the guest runs again, unless the accessed bit is clear: nothing caches a
//! translation without setting that bit first (SDM volume 3, 4.8; KVM's shadow walker does the same).
//!
//! - Ordinary KVM walks the guest's tables in hardware, so a flush of the guest's TLB is enough.
//! - PVM keeps shadow tables, keyed by guest frame. Changing the host protection of the frame that the old
//!   entry mapped makes KVM's MMU notifier remove every shadow entry for it. Adjacent frames go together, and
//!   where too many are apart, all of guest memory goes at once.
//!
//! On PVM a writable entry whose dirty bit is clear needs no remedy when only write permission goes: the
//! shadow entry stays read-only until the first store has set the bit.

use std::io;

use lg_platform::PAGE_SHIFT;

use crate::error::Kind;
use crate::region::Region;
use crate::tables::Entry;

/// One invalidation of all guest memory makes the guest refault every page that it uses, at some 2.5 us each,
/// where a range of its own takes some 15 us. So it is for more ranges than one in so many frames.
const FRAMES_PER_RANGE: usize = 8;

/// Frames at most this far apart are invalidated together, for the same reason.
const MAX_GAP: u32 = 4;

/// Collects what has become stale since the guest last ran.
pub struct Stale {
    kind: Kind,
    /// Whether entries have the accessed bit from the start: PVM, when a page is touched, then maps up to seven
    /// neighbours as well, at no further fault. What was never touched may be cached then, so lowering it takes a remedy.
    accessed_from_start: bool,
    frames: Vec<u32>,
    flush_tlb: bool,
}

impl Stale {
    /// Returns an empty collection.
    pub fn new(kind: Kind) -> Stale {
        Stale { kind, accessed_from_start: kind == Kind::Pvm, frames: Vec::new(), flush_tlb: false }
    }

    /// From now on the accessed bit tells what is accessed.
    pub fn observe(&mut self) {
        self.accessed_from_start = false;
    }

    /// Notes that an entry of a live address space changes from `old` to `new`, and returns what to store:
    /// `new` with the accessed bit as long as something may cache the old entry, or where all have it.
    pub fn note(&mut self, old: Entry, new: Entry) -> Entry {
        let first = if self.accessed_from_start && new.is_present() { new.accessed() } else { new };
        if !old.may_be_cached() {
            return first;
        }
        let same_frame = new.is_present() && new.frame() == old.frame();
        let keeps_exec = !old.is_executable() || new.is_executable();
        let keeps_dirty = !old.is_dirty() || new.is_dirty();
        let keeps_write =
            !old.is_writable() || new.is_writable() || (self.kind == Kind::Pvm && !old.is_dirty());
        if same_frame && keeps_exec && keeps_dirty && keeps_write {
            return new.accessed();
        }
        match self.kind {
            Kind::Ordinary => self.flush_tlb = true,
            Kind::Pvm => self.frames.push(old.frame()),
        }
        first
    }

    /// Notes that page-table frames are about to be reused (ordinary KVM only: the TLB's paging-structure
    /// caches may hold them).
    pub fn note_tables_freed(&mut self) {
        self.flush_tlb = true;
    }

    /// Says whether anything that the guest may still use was lowered.
    pub fn is_pending(&self) -> bool {
        self.flush_tlb || !self.frames.is_empty()
    }

    /// Forgets everything, for a virtual CPU and a VM that have never run.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.flush_tlb = false;
    }

    /// Says whether the guest's TLB must be flushed, and takes the flag away.
    pub fn take_flush(&mut self) -> bool {
        std::mem::take(&mut self.flush_tlb)
    }

    /// Returns the frames whose shadow entries are stale.
    #[cfg(test)]
    pub fn frames(&self) -> &[u32] {
        &self.frames
    }

    /// Makes KVM drop its shadow entries for every stale frame.
    pub fn invalidate(&mut self, data: &Region) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        self.frames.sort_unstable();
        let ranges = coalesce(&self.frames);
        let result = if ranges.len() > (data.len() >> PAGE_SHIFT) / FRAMES_PER_RANGE {
            data.invalidate(0, data.len())
        } else {
            ranges.iter().try_for_each(|&(start, end)| {
                let offset = (start as usize) << PAGE_SHIFT;
                data.invalidate(offset, ((end as usize) << PAGE_SHIFT) - offset)
            })
        };
        self.frames.clear();
        result
    }
}

/// Turns sorted frame numbers into half-open ranges.
fn coalesce(frames: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &frame in frames {
        match ranges.last_mut() {
            Some((_, end)) if frame <= end.saturating_add(MAX_GAP) => *end = (*end).max(frame + 1),
            _ => ranges.push((frame, frame + 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::coalesce;

    #[test]
    fn adjacent_and_repeated_frames_become_one_range() {
        assert_eq!(coalesce(&[1, 1, 2, 6, 12]), [(1, 7), (12, 13)]);
        assert_eq!(coalesce(&[]), []);
    }
}
