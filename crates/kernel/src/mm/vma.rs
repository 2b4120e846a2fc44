//! Virtual memory areas.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use lg_abi::Errno;
use lg_platform::{PAGE_SIZE, Prot, UserAddr, UserRange};

use super::{FrameRef, Frames};
use crate::ipc::Attachment;
use crate::vfs::{FileDescription, Inode};

bitflags::bitflags! {
    /// Properties of an area.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmaFlags: u8 {
        /// Stores are seen by everyone who maps the same object (MAP_SHARED).
        const SHARED = 1;
        /// The area grows towards lower addresses when the page below it is touched (MAP_GROWSDOWN).
        const GROWS_DOWN = 2;
        /// A fork leaves the area out (MADV_DONTFORK).
        const DONT_FORK = 4;
        /// A fork's child sees zeros (MADV_WIPEONFORK).
        const WIPE_ON_FORK = 8;
        /// The mapping may never become writable: shared, and the file was opened for reading only.
        const NEVER_WRITE = 16;
        /// The pages belong to the kernel (vDSO) and can be neither changed nor given back.
        const KERNEL = 32;
        /// Its pages are locked (mlock(2)).
        const LOCKED = 64;
    }
}

/// Where the contents of an area come from.
#[derive(Clone)]
pub enum Backing {
    /// Zeros.
    Anonymous,
    /// Zeros at first, then one set of pages for everyone (MAP_SHARED | MAP_ANONYMOUS).
    Shared(Rc<SharedPages>),
    /// A System V shared-memory segment with its id.
    Segment(u32, Attachment),
    /// A file's contents.
    File {
        /// The inode.
        inode: Rc<dyn Inode>,
        /// The open file, for the path that `/proc/PID/maps` shows.
        description: Rc<FileDescription>,
    },
    /// A page of the kernel's with this name in `/proc/PID/maps`.
    Kernel(&'static str, Rc<SharedPages>),
}

impl Backing {
    /// Returns the object of a shared area that no file stands behind.
    pub fn shared_pages(&self) -> Option<&Rc<SharedPages>> {
        match self {
            Backing::Shared(pages) => Some(pages),
            Backing::Segment(_, attachment) => Some(&attachment.segment().pages),
            _ => None,
        }
    }
}

/// An area: consecutive pages with the same protection and backing.
#[derive(Clone)]
pub struct Vma {
    /// Where it lies.
    pub range: UserRange,
    /// What the program may do with it.
    pub prot: Prot,
    /// Its properties.
    pub flags: VmaFlags,
    /// Where its contents come from.
    pub backing: Backing,
    /// Offset of its first byte in the backing, in pages.
    pub offset_pages: u64,
}

impl Vma {
    /// Returns the page number in the backing of the page at `addr`.
    pub fn page_index(&self, addr: UserAddr) -> u64 {
        self.offset_pages + (addr.bytes_from(self.range.start) / PAGE_SIZE as u64)
    }

    /// Returns the part of the area in `range`, which must overlap it.
    pub fn slice(&self, range: UserRange) -> Vma {
        let range = self.range.intersect(range);
        Vma { range, offset_pages: self.page_index(range.start), ..self.clone() }
    }

    /// Says whether `next` continues this area, so that one can stand for both.
    pub fn merges_with(&self, next: &Vma) -> bool {
        let continues = || self.offset_pages + self.range.pages() == next.offset_pages;
        self.range.end == next.range.start
            && self.prot == next.prot
            && self.flags == next.flags
            && match (&self.backing, &next.backing) {
                (Backing::Anonymous, Backing::Anonymous) => true,
                (Backing::File { inode: a, .. }, Backing::File { inode: b, .. }) => {
                    Rc::ptr_eq(a, b) && continues()
                }
                (Backing::Shared(a), Backing::Shared(b)) => Rc::ptr_eq(a, b) && continues(),
                (Backing::Segment(_, a), Backing::Segment(_, b)) => {
                    Rc::ptr_eq(a.segment(), b.segment()) && continues()
                }
                _ => false,
            }
    }
}

/// Pages that several areas share, allocated when first touched.
pub struct SharedPages {
    len_pages: u64,
    pages: RefCell<BTreeMap<u64, FrameRef>>,
}

impl SharedPages {
    /// Returns an object of so many pages, none of which has been made.
    pub fn new(len_pages: u64) -> SharedPages {
        SharedPages { len_pages, pages: RefCell::default() }
    }

    /// Returns the object of these pages.
    pub fn with_pages(pages: impl IntoIterator<Item = FrameRef>) -> Rc<SharedPages> {
        let pages: BTreeMap<u64, FrameRef> = (0..).zip(pages).collect();
        Rc::new(SharedPages { len_pages: pages.len() as u64, pages: RefCell::new(pages) })
    }

    /// Returns page `index`, making it if need be.
    ///
    /// Errors: EFAULT behind the end, as an area can be larger than its object (mremap(2)); ENOMEM.
    pub fn page(&self, frames: &Rc<Frames>, index: u64) -> Result<FrameRef, Errno> {
        if index >= self.len_pages {
            return Err(Errno::EFAULT);
        }
        if let Some(page) = self.pages.borrow().get(&index) {
            return Ok(page.clone());
        }
        let page = frames.alloc()?;
        self.pages.borrow_mut().insert(index, page.clone());
        Ok(page)
    }

    /// Returns those of the pages in a range that have been made, with their numbers, in order.
    pub fn resident(&self, range: Range<u64>) -> Vec<(u64, FrameRef)> {
        self.pages.borrow().range(range).map(|(index, page)| (*index, page.clone())).collect()
    }

    /// Returns the bytes of the pages that have been made.
    pub fn resident_bytes(&self) -> u64 {
        self.pages.borrow().len() as u64 * PAGE_SIZE as u64
    }

    /// Drops the contents of the pages in the range of indices (MADV_REMOVE). Those that someone has mapped stay, as
    /// zeros.
    pub fn remove(&self, first: u64, count: u64) {
        let mut pages = self.pages.borrow_mut();
        let mut unused = Vec::new();
        for (index, page) in pages.range(first..first.saturating_add(count)) {
            if page.is_shared() {
                page.zero_from(0);
            } else {
                unused.push(*index);
            }
        }
        unused.iter().for_each(|index| drop(pages.remove(index)));
    }

    /// Identifies the object, for shared futexes.
    pub fn id(self: &Rc<SharedPages>) -> usize {
        Rc::as_ptr(self) as usize
    }
}
