//! Memory page by page: what a [`MemoryManager`](super::super::MemoryManager) must look like from outside.

use std::collections::BTreeMap;

use lg_abi::Errno;
use lg_platform::Prot;

use super::super::{Growth, Place, VmaFlags};

/// Where a page's contents come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    /// Zeros.
    Anonymous,
    /// This page of the file that is only mapped privately.
    Private(u64),
    /// This page of the file that is mapped shared.
    File(u64),
    /// This page of an object without a file.
    Shared(usize, u64),
}

impl Object {
    /// Returns the object of the page that lies `pages` further on.
    pub fn after(self, pages: u64) -> Object {
        match self {
            Object::Anonymous => Object::Anonymous,
            Object::Private(index) => Object::Private(index + pages),
            Object::File(index) => Object::File(index + pages),
            Object::Shared(id, index) => Object::Shared(id, index + pages),
        }
    }
}

/// A page that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    pub prot: Prot,
    pub flags: VmaFlags,
    pub object: Object,
    /// What was stored to it, if it is private.
    pub own: Option<u8>,
}

/// Consecutive pages that one area must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    pub start: u64,
    pub end: u64,
    pub prot: Prot,
    pub flags: VmaFlags,
    pub object: Object,
}

/// What is behind shared pages.
#[derive(Default)]
pub struct Contents {
    pub file: BTreeMap<u64, u8>,
    pub shared: BTreeMap<(usize, u64), u8>,
}

/// Pages in both files.
pub const FILE_PAGES: u64 = 40;
/// Pages in each object without a file.
pub const OBJECT_PAGES: u64 = 6;
/// Most pages of a stack.
pub const STACK_PAGES: u64 = 600;
/// Pages below a stack that its growth leaves free.
const GUARD_PAGES: u64 = 256;

/// The memory of a process. All numbers are of pages.
#[derive(Clone)]
pub struct Model {
    pub pages: BTreeMap<u64, Page>,
    pub lowest: u64,
    pub top: u64,
    pub end: u64,
    pub brk_start: u64,
    pub brk: u64,
}

impl Model {
    /// Returns the areas: as few as there can be.
    pub fn areas(&self) -> Vec<Area> {
        let mut areas: Vec<Area> = Vec::new();
        for (&at, page) in &self.pages {
            match areas.last_mut() {
                Some(area)
                    if area.end == at
                        && (area.prot, area.flags) == (page.prot, page.flags)
                        && area.object.after(at - area.start) == page.object =>
                {
                    area.end += 1;
                }
                _ => areas.push(Area {
                    start: at,
                    end: at + 1,
                    prot: page.prot,
                    flags: page.flags,
                    object: page.object,
                }),
            }
        }
        areas
    }

    fn is_free(&self, start: u64, len: u64) -> bool {
        self.pages.range(start..start + len).next().is_none()
    }

    fn is_mapped(&self, start: u64, len: u64) -> bool {
        self.pages.range(start..start + len).count() as u64 == len
    }

    fn find_free(&self, hint: u64, len: u64) -> u64 {
        if hint >= self.lowest && hint + len <= self.end && self.is_free(hint, len) {
            return hint;
        }
        let mut start = self.top - len;
        while let Some((last, _)) = self.pages.range(start..start + len).next_back() {
            start = last - len;
        }
        start
    }

    fn put(&mut self, start: u64, len: u64, first: Page) {
        for page in 0..len {
            self.pages.insert(start + page, Page { object: first.object.after(page), ..first });
        }
    }

    /// mmap(2)
    pub fn map(&mut self, place: Place, len: u64, first: Page) -> Result<u64, Errno> {
        let start = match place {
            Place::Anywhere(hint) => self.find_free(hint.0 >> 12, len),
            Place::Fixed(at) => at.0 >> 12,
            Place::FixedNoReplace(at) if !self.is_free(at.0 >> 12, len) => return Err(Errno::EEXIST),
            Place::FixedNoReplace(at) => at.0 >> 12,
        };
        self.put(start, len, first);
        Ok(start)
    }

    /// munmap(2)
    pub fn unmap(&mut self, start: u64, len: u64) {
        self.pages.retain(|at, _| *at < start || *at >= start + len);
    }

    /// mprotect(2)
    pub fn protect(&mut self, start: u64, len: u64, prot: Prot) -> Result<(), Errno> {
        for at in start..start + len {
            let page = self.pages.get_mut(&at).ok_or(Errno::ENOMEM)?;
            if page.flags.contains(VmaFlags::NEVER_WRITE) && prot.contains(Prot::WRITE) {
                return Err(Errno::EACCES);
            }
            page.prot = prot;
        }
        Ok(())
    }

    /// mremap(2)
    pub fn remap(&mut self, start: u64, old: u64, new: u64, growth: Growth) -> Result<u64, Errno> {
        let first = *self.pages.get(&start).ok_or(Errno::EFAULT)?;
        if let Growth::MoveTo(target) = growth {
            let target = target.0 >> 12;
            self.check_whole(start, old)?;
            if old > 0 && target < start + old && start < target + new {
                return Err(Errno::EINVAL);
            }
            self.unmap(target, new);
            self.relocate(start, old, target, new, first);
            return Ok(target);
        }
        if old == 0 {
            self.check_whole(start, old)?;
        }
        if new <= old {
            self.unmap(start + new, old - new);
            return Ok(start);
        }
        self.check_whole(start, old)?;
        let area = self.area_of(start);
        if start + old == area.end && self.is_free(area.end, new - old) {
            let more = Page { object: first.object.after(old), own: None, ..first };
            self.put(area.end, new - old, more);
            return Ok(start);
        }
        if growth == Growth::InPlace {
            return Err(Errno::ENOMEM);
        }
        let target = self.find_free(0, new);
        self.relocate(start, old, target, new, first);
        Ok(target)
    }

    fn area_of(&self, at: u64) -> Area {
        self.areas().into_iter().find(|area| (area.start..area.end).contains(&at)).expect("a mapped page")
    }

    /// What is moved or grows must lie in one area, and what is mapped once more must be shared.
    fn check_whole(&self, start: u64, len: u64) -> Result<(), Errno> {
        let area = self.area_of(start);
        if start + len > area.end {
            return Err(Errno::EFAULT);
        }
        if len == 0 && !area.flags.contains(VmaFlags::SHARED) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn relocate(&mut self, start: u64, old: u64, target: u64, new: u64, first: Page) {
        let moved: Vec<Option<u8>> =
            (start..start + old).map(|at| self.pages.remove(&at).expect("checked before").own).collect();
        self.put(target, new, Page { own: None, ..first });
        for (page, own) in (0..new).zip(moved) {
            self.pages.get_mut(&(target + page)).expect("just put").own = own;
        }
    }

    /// mremap(2) with MREMAP_DONTUNMAP to a fixed place
    pub fn move_away(&mut self, start: u64, len: u64, target: u64) -> Result<u64, Errno> {
        let first = *self.pages.get(&start).ok_or(Errno::EFAULT)?;
        if start + len > self.area_of(start).end {
            return Err(Errno::EFAULT);
        }
        if target < start + len && start < target + len {
            return Err(Errno::EINVAL);
        }
        self.unmap(target, len);
        self.relocate(start, len, target, len, first);
        self.put(start, len, Page { own: None, ..first });
        Ok(target)
    }

    /// brk(2)
    pub fn set_brk(&mut self, brk: u64) -> u64 {
        let grows = brk > self.brk;
        if brk < self.brk_start || grows && !self.is_free(self.brk, brk - self.brk) {
            return self.brk;
        }
        if grows {
            let prot = Prot::READ | Prot::WRITE;
            let page = Page { prot, flags: VmaFlags::empty(), object: Object::Anonymous, own: None };
            self.put(self.brk, brk - self.brk, page);
        } else {
            self.unmap(brk, self.brk - brk);
        }
        self.brk = brk;
        brk
    }

    /// MADV_DONTNEED
    pub fn forget(&mut self, start: u64, len: u64) -> Result<(), Errno> {
        self.pages.range_mut(start..start + len).for_each(|(_, page)| page.own = None);
        if self.is_mapped(start, len) { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// MADV_REMOVE
    pub fn remove(&self, contents: &mut Contents, start: u64, len: u64) -> Result<(), Errno> {
        let pages = || self.pages.range(start..start + len).map(|(_, page)| page.object);
        if pages().any(|object| !matches!(object, Object::Shared(..))) {
            return Err(Errno::EINVAL);
        }
        for object in pages() {
            if let Object::Shared(id, index) = object {
                contents.shared.remove(&(id, index));
            }
        }
        Ok(())
    }

    /// MADV_DONTFORK and the like
    pub fn set_flags(&mut self, start: u64, len: u64, set: VmaFlags, clear: VmaFlags) -> Result<(), Errno> {
        if !self.is_mapped(start, len) {
            return Err(Errno::ENOMEM);
        }
        for (_, page) in self.pages.range_mut(start..start + len) {
            page.flags = (page.flags | set) - clear;
        }
        Ok(())
    }

    /// fork(2)
    pub fn fork(&self) -> Model {
        let mut child = self.clone();
        child.pages.retain(|_, page| !page.flags.contains(VmaFlags::DONT_FORK));
        for page in child.pages.values_mut().filter(|page| page.flags.contains(VmaFlags::WIPE_ON_FORK)) {
            page.own = None;
        }
        child
    }

    /// Grows a stack down to the page, if there is one that may.
    fn grow_stack(&mut self, at: u64) {
        if self.pages.contains_key(&at) {
            return;
        }
        let Some((&above, page)) = self.pages.range(at..).next() else { return };
        let clear = self.pages.range(..at).next_back().is_none_or(|(below, _)| below + 1 + GUARD_PAGES <= at);
        let fits = self.area_of(above).end - at <= STACK_PAGES;
        if page.flags.contains(VmaFlags::GROWS_DOWN) && clear && fits {
            let page = Page { own: None, ..*page };
            self.put(at, above - at, page);
        }
    }

    /// A store of a byte.
    pub fn store(&mut self, contents: &mut Contents, at: u64, value: u8) -> Result<(), Errno> {
        self.grow_stack(at);
        let page =
            self.pages.get_mut(&at).filter(|page| page.prot.contains(Prot::WRITE)).ok_or(Errno::EFAULT)?;
        match page.object {
            Object::Private(index) | Object::File(index) if index >= FILE_PAGES => return Err(Errno::EFAULT),
            Object::Anonymous | Object::Private(_) => page.own = Some(value),
            Object::File(index) => drop(contents.file.insert(index, value)),
            Object::Shared(_, index) if index >= OBJECT_PAGES => return Err(Errno::EFAULT),
            Object::Shared(id, index) => drop(contents.shared.insert((id, index), value)),
        }
        Ok(())
    }

    /// What a load sees.
    pub fn load(&mut self, contents: &Contents, at: u64) -> Result<u8, Errno> {
        self.grow_stack(at);
        let page = self.pages.get(&at).filter(|page| !page.prot.is_empty()).ok_or(Errno::EFAULT)?;
        Ok(match page.object {
            Object::Private(index) | Object::File(index) if index >= FILE_PAGES => return Err(Errno::EFAULT),
            Object::Anonymous => page.own.unwrap_or(0),
            Object::Private(index) => page.own.unwrap_or(first_byte(index)),
            Object::File(index) => contents.file.get(&index).copied().unwrap_or(first_byte(index)),
            Object::Shared(_, index) if index >= OBJECT_PAGES => return Err(Errno::EFAULT),
            Object::Shared(id, index) => contents.shared.get(&(id, index)).copied().unwrap_or(0),
        })
    }
}

/// What a page of the files starts with.
pub fn first_byte(index: u64) -> u8 {
    index as u8 + 100
}
