//! System V shared memory as areas of a process (shmat(2), shmdt(2)).

use std::rc::Rc;

use lg_abi::Errno;
use lg_platform::{PAGE_SIZE, UserAddr, UserRange};

use super::{Backing, MemoryManager, Vma};
use crate::ipc::Segment;

impl MemoryManager {
    /// Takes out the segment that was attached at `start`, and returns it.
    ///
    /// Errors: EINVAL where there is none.
    pub fn detach(&mut self, start: UserAddr) -> Result<Rc<Segment>, Errno> {
        if !start.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        let in_place =
            |area: &Vma| area.range.start.bytes_from(start) / PAGE_SIZE as u64 == area.offset_pages;
        let found = self.areas.range(start..).find_map(|(_, area)| match &area.backing {
            Backing::Segment(_, attachment) if in_place(area) => Some(attachment.segment().clone()),
            _ => None,
        });
        let segment = found.ok_or(Errno::EINVAL)?;
        // It may have been split, and parts of it unmapped or mapped over.
        let end = UserAddr(start.0.saturating_add(segment.len_pages() * PAGE_SIZE as u64));
        let parts: Vec<UserRange> = self
            .areas
            .range(start..end)
            .filter(|(_, area)| in_place(area) && is_of(area, &segment))
            .map(|(_, area)| area.range)
            .collect();
        for part in parts {
            self.unmap(part)?;
        }
        Ok(segment)
    }

    /// Returns the segments that are attached, once for each area.
    pub fn segments(&self) -> impl Iterator<Item = &Rc<Segment>> {
        self.areas.values().filter_map(|area| match &area.backing {
            Backing::Segment(_, attachment) => Some(attachment.segment()),
            _ => None,
        })
    }
}

fn is_of(area: &Vma, segment: &Rc<Segment>) -> bool {
    matches!(&area.backing, Backing::Segment(_, attachment) if Rc::ptr_eq(attachment.segment(), segment))
}
