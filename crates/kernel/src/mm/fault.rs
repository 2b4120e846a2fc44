//! Page faults: demand paging, fault-around and copy-on-write.

use std::ops::Range;
use std::rc::Rc;

use lg_abi::Errno;
use lg_platform::{Access, Frame, Mapping, PAGE_SIZE, Prot, UserAddr, UserRange};

use super::manager::{map_page, mapping_of, page_prot, table_errno};
use super::{Backing, FrameRef, Frames, MemoryManager, SharedPages, Vma, VmaFlags};
use crate::vfs::Inode;

/// A fault maps this many pages, aligned to as much in the file or, for anonymous memory, in the address
/// space. A page more costs far less than an exit more.
const AROUND_PAGES: u64 = 32;

/// Pages of a file that are in memory already are mapped this many at a time, aligned in the file: as many as one page
/// table maps.
const RESIDENT_PAGES: u64 = 512;

/// New areas of up to this many pages are made present at once.
const PREFAULT_PAGES: u64 = 64;

/// Sequential faults map twice as much each time, up to this many pages.
const MAX_WINDOW_PAGES: u64 = 256;

/// Of a shared object sequential faults make only this part of what they map: what is made counts for the file, touched or not.
const MADE_PART: u64 = 8;

/// A store to a page that a fork shares copies this many, aligned to as many: what a process stores to soon after a
/// fork lies close together, and a copy costs far less than an exit.
const COPY_PAGES: u64 = 16;

/// It does so this often after each fork. The stores of a process that lives on are farther apart.
pub(super) const COPIES_AROUND: u32 = 32;

/// The distance below a stack area at which a touch makes it grow.
const STACK_GAP: u64 = 8 << 20;

/// Why a page can not be had: what signal the program gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryFault {
    /// SIGSEGV, SEGV_MAPERR: nothing is mapped there.
    Unmapped,
    /// SIGSEGV, SEGV_ACCERR: the area forbids it.
    Forbidden,
    /// SIGBUS, BUS_ADRERR: behind the end of the file.
    BeyondFile,
    /// SIGKILL: no memory is left.
    OutOfMemory,
}

impl From<MemoryFault> for Errno {
    fn from(fault: MemoryFault) -> Errno {
        match fault {
            MemoryFault::OutOfMemory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        }
    }
}

impl MemoryManager {
    /// Makes the page at `addr` accessible, or says why it can not be.
    pub fn fault(&mut self, addr: UserAddr, access: Access) -> Result<(), MemoryFault> {
        let page = addr.page_floor();
        if self.area_at(page).is_none() {
            self.grow_stack(page)?;
        }
        let area = self.area_at(page).ok_or(MemoryFault::Unmapped)?.clone();
        let needed = match access {
            Access::Read => area.prot.intersects(Prot::READ | Prot::WRITE | Prot::EXEC),
            Access::Write => area.prot.contains(Prot::WRITE),
            Access::Exec => area.prot.contains(Prot::EXEC),
        };
        if !needed {
            return Err(MemoryFault::Forbidden);
        }
        let present = self.machine.borrow().lookup(self.space, page);
        match present {
            Some(mapping) => {
                let prot = page_prot(&area, &self.frames, mapping);
                if access == Access::Write && !prot.contains(Prot::WRITE) {
                    self.copy(&area, page, mapping.frame)?;
                    self.copy_around(&area, page);
                    return Ok(());
                }
                self.machine
                    .borrow_mut()
                    .map(self.space, page, Mapping { prot, ..mapping })
                    .map_err(|error| out_of_memory(table_errno(error)))?;
                if access == Access::Write {
                    self.allow_stores_around(&area, page);
                }
                Ok(())
            }
            None if area.flags.contains(VmaFlags::SHARED) => self.populate_from_object(&area, page),
            None => match &area.backing {
                Backing::Anonymous => self.populate_anonymous(&area, page),
                _ => self.populate_from_object(&area, page),
            },
        }
    }

    /// Makes the pages of a small new area present before they are touched: programs use most of them at
    /// once, and a fault costs far more than a page. Where memory is short, nothing is lost.
    pub fn prefault(&mut self, range: UserRange) {
        let Some(area) = self.area_at(range.start) else { return };
        let never_touched = area.prot.is_empty() || area.flags.contains(VmaFlags::SHARED);
        if range.pages() > PREFAULT_PAGES || never_touched {
            return;
        }
        let access = if area.prot.contains(Prot::WRITE) { Access::Write } else { Access::Read };
        for page in range.page_addrs() {
            if !self.is_resident(page) && self.fault(page, access).is_err() {
                return;
            }
        }
    }

    /// Gives a page a frame of its own in place of one that others have, too.
    fn copy(&mut self, area: &Vma, page: UserAddr, frame: Frame) -> Result<(), MemoryFault> {
        let copy = self.frames.alloc_copy(frame).map_err(out_of_memory)?;
        self.install(area, page, copy, area.prot)?;
        self.frames.release(frame);
        Ok(())
    }

    /// Copies what is shared around a page that was copied, soon after a fork.
    fn copy_around(&mut self, area: &Vma, page: UserAddr) {
        let Some(left) = self.copies_around.checked_sub(1) else { return };
        self.copies_around = left;
        for around in aligned_window(page, COPY_PAGES).intersect(area.range).page_addrs() {
            let Some(mapping) = self.machine.borrow().lookup(self.space, around) else { continue };
            let is_shared = !page_prot(area, &self.frames, mapping).contains(Prot::WRITE);
            // A courtesy: what is not copied now faults later.
            if is_shared && self.copy(area, around, mapping.frame).is_err() {
                return;
            }
        }
    }

    /// Makes pages around a page writable that became this space's own again, as that page did: after a fork whose child has
    /// ended or executed something else, they all fault one by one otherwise.
    fn allow_stores_around(&mut self, area: &Vma, page: UserAddr) {
        let machine = &mut **self.machine.borrow_mut();
        for around in aligned_window(page, AROUND_PAGES).intersect(area.range).page_addrs() {
            let Some(mapping) = machine.lookup(self.space, around) else { continue };
            let prot = page_prot(area, &self.frames, mapping);
            // A courtesy: what is not raised now faults later.
            if prot.contains(Prot::WRITE) && !mapping.prot.contains(Prot::WRITE) {
                let _ = machine.map(self.space, around, Mapping { prot, ..mapping });
            }
        }
    }

    /// Maps a frame that the address space becomes an owner of. What was mapped there keeps its count.
    fn install(
        &mut self,
        area: &Vma,
        page: UserAddr,
        frame: FrameRef,
        prot: Prot,
    ) -> Result<(), MemoryFault> {
        let mapping = mapping_of(area, frame.frame(), prot);
        let machine = &mut **self.machine.borrow_mut();
        map_page(machine, &self.frames, self.space, page, mapping).map_err(out_of_memory)?;
        frame.into_raw();
        Ok(())
    }

    /// Maps zeroed pages at `page` and around it: more after each fault that continues the one before.
    fn populate_anonymous(&mut self, area: &Vma, page: UserAddr) -> Result<(), MemoryFault> {
        let window = self.continued_window(page).unwrap_or(aligned_window(page, AROUND_PAGES));
        let window = window.intersect(area.range);
        let frame = self.frames.alloc().map_err(out_of_memory)?;
        self.install(area, page, frame, area.prot)?;
        for around in window.page_addrs().filter(|around| *around != page) {
            if self.is_resident(around) {
                continue;
            }
            // The pages around are a courtesy: where memory runs short, the fault has still been served.
            let Ok(frame) = self.frames.alloc() else { break };
            if self.install(area, around, frame, area.prot).is_err() {
                break;
            }
        }
        self.next_sequential = window.end;
        Ok(())
    }

    /// Returns what to map for a fault at `page` if it continues the one before: twice as much each time.
    fn continued_window(&mut self, page: UserAddr) -> Option<UserRange> {
        if page != self.next_sequential {
            self.window_pages = AROUND_PAGES;
            return None;
        }
        self.window_pages = (self.window_pages * 2).clamp(AROUND_PAGES, MAX_WINDOW_PAGES);
        Some(UserRange::new(page, UserAddr(page.0 + self.window_pages * PAGE_SIZE as u64)))
    }

    /// Maps a page of a file or shared object, and cheap ones around it.
    fn populate_from_object(&mut self, area: &Vma, page: UserAddr) -> Result<(), MemoryFault> {
        let Some(object) = Object::of(area) else { return self.populate_anonymous(area, page) };
        let is_shared = area.flags.contains(VmaFlags::SHARED);
        let private_copy = !is_shared && area.prot.contains(Prot::WRITE);
        let frame = object.page(&self.frames, area.page_index(page))?;
        // The data of a program is stored to soon after it is read (relocations, reference counts), so
        // writable private pages are copied at once.
        self.install_object_page(area, page, frame, private_copy)?;
        let ahead = self.continued_window(page).map(|window| window.intersect(area.range));
        if let Some(ahead) = ahead {
            let (first, end) = (area.page_index(page), area.page_index(ahead.end));
            object.read_ahead(first..end);
            if is_shared && area.prot.contains(Prot::WRITE) {
                object.make_ahead(&self.frames, first..end.min(first + self.window_pages / MADE_PART));
            }
        }
        // What is in memory already costs only its entry. A copy costs more than that.
        let window = match ahead {
            _ if !private_copy => file_window(area, page, RESIDENT_PAGES),
            Some(ahead) => ahead,
            None => file_window(area, page, AROUND_PAGES),
        };
        let first = area.page_index(window.start);
        let mut next = page;
        for (index, frame) in object.resident_pages(first..first + window.pages()) {
            let around = UserAddr(window.start.0 + (index - first) * PAGE_SIZE as u64);
            if !self.is_resident(around)
                && self.install_object_page(area, around, frame, private_copy).is_err()
            {
                break;
            }
            if around == next {
                next = UserAddr(around.0 + PAGE_SIZE as u64);
            }
        }
        self.next_sequential = next;
        Ok(())
    }

    fn install_object_page(
        &mut self,
        area: &Vma,
        page: UserAddr,
        frame: FrameRef,
        copy: bool,
    ) -> Result<(), MemoryFault> {
        if area.flags.contains(VmaFlags::SHARED) {
            self.install(area, page, frame, area.prot)
        } else if copy {
            let copy = self.frames.alloc_copy(frame.frame()).map_err(out_of_memory)?;
            self.install(area, page, copy, area.prot)
        } else {
            self.install(area, page, frame, area.prot - Prot::WRITE)
        }
    }

    /// Extends the stack area above `page` down to it, within the stack limit.
    fn grow_stack(&mut self, page: UserAddr) -> Result<(), MemoryFault> {
        let (start, above) = self.areas.range(page..).next().ok_or(MemoryFault::Unmapped)?;
        let grows = above.flags.contains(VmaFlags::GROWS_DOWN)
            && start.bytes_from(page) <= STACK_GAP
            && above.range.end.bytes_from(page) <= self.stack_limit;
        let guard = UserAddr(page.0.saturating_sub(256 * PAGE_SIZE as u64));
        let clear = self.areas.range(..page).next_back().is_none_or(|(_, below)| below.range.end <= guard);
        if !grows || !clear {
            return Err(MemoryFault::Unmapped);
        }
        let start = *start;
        let mut area = self.areas.remove(&start).expect("a key just seen");
        area.range.start = page;
        self.areas.insert(page, area);
        Ok(())
    }
}

/// What an area shows that is not its own.
enum Object<'a> {
    File(&'a dyn Inode),
    Memory(&'a Rc<SharedPages>),
}

impl Object<'_> {
    fn of(area: &Vma) -> Option<Object<'_>> {
        match &area.backing {
            Backing::File { inode, .. } => Some(Object::File(&**inode)),
            Backing::Shared(pages) | Backing::Kernel(_, pages) => Some(Object::Memory(pages)),
            Backing::Segment(_, attachment) => Some(Object::Memory(&attachment.segment().pages)),
            Backing::Anonymous => None,
        }
    }

    fn page(&self, frames: &Rc<Frames>, index: u64) -> Result<FrameRef, MemoryFault> {
        let page = match self {
            Object::File(inode) => inode.page(index),
            Object::Memory(pages) => pages.page(frames, index),
        };
        page.map_err(object_fault)
    }

    fn resident_pages(&self, range: Range<u64>) -> Vec<(u64, FrameRef)> {
        match self {
            Object::File(inode) => inode.resident_pages(range),
            Object::Memory(pages) => pages.resident(range),
        }
    }

    fn read_ahead(&self, range: Range<u64>) {
        if let Object::File(inode) = self {
            inode.read_ahead(range);
        }
    }

    /// Makes pages that are not there yet, for stores that come one after the other, as far as that goes.
    fn make_ahead(&self, frames: &Rc<Frames>, mut range: Range<u64>) {
        let _ = range.try_for_each(|index| self.page(frames, index).map(drop));
    }
}

/// The pages of an area around `page` that are in the same `pages`, a power of two, of its file.
fn file_window(area: &Vma, page: UserAddr, pages: u64) -> UserRange {
    let index = area.page_index(page);
    let first = (index & !(pages - 1)).max(area.offset_pages);
    let start = page.0 - (index - first) * PAGE_SIZE as u64;
    let end = page.0 + (pages - index % pages) * PAGE_SIZE as u64;
    UserRange::new(UserAddr(start), UserAddr(end)).intersect(area.range)
}

fn aligned_window(page: UserAddr, pages: u64) -> UserRange {
    let bytes = pages * PAGE_SIZE as u64;
    let start = page.0 & !(bytes - 1);
    UserRange::new(UserAddr(start), UserAddr(start + bytes))
}

fn object_fault(errno: Errno) -> MemoryFault {
    match errno {
        Errno::ENOMEM => MemoryFault::OutOfMemory,
        _ => MemoryFault::BeyondFile,
    }
}

fn out_of_memory(_: Errno) -> MemoryFault {
    MemoryFault::OutOfMemory
}
