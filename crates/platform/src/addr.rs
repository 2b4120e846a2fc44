//! Address newtypes.

use std::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

/// The first address above user space.
///
/// Linux has 0x7fff_ffff_f000 here. The last gigabyte of the lower half belongs to the platform (entry
/// stubs, descriptor tables), so that the two never share a page-directory-pointer entry.
pub const USER_END: UserAddr = UserAddr(0x7fff_c000_0000);

/// A guest-virtual address. It may hold any value a guest comes up with, valid or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UserAddr(pub u64);

impl UserAddr {
    /// Returns the address `bytes` further on, or `None` where that wraps around.
    pub const fn checked_add(self, bytes: u64) -> Option<UserAddr> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(UserAddr(sum)),
            None => None,
        }
    }

    /// Returns the start of the page that holds this address.
    pub const fn page_floor(self) -> UserAddr {
        UserAddr(self.0 & !(PAGE_SIZE as u64 - 1))
    }

    /// Returns the first page boundary at or above this address, or `None` where there is none.
    pub const fn page_ceil(self) -> Option<UserAddr> {
        match self.0.checked_add(PAGE_SIZE as u64 - 1) {
            Some(sum) => Some(UserAddr(sum & !(PAGE_SIZE as u64 - 1))),
            None => None,
        }
    }

    /// Returns the offset of this address in its page.
    pub const fn page_offset(self) -> usize {
        (self.0 & (PAGE_SIZE as u64 - 1)) as usize
    }

    /// Says whether this address is a page boundary.
    pub const fn is_page_aligned(self) -> bool {
        self.page_offset() == 0
    }

    /// Returns `self - other` in bytes; `other` must not be above `self`.
    pub const fn bytes_from(self, other: UserAddr) -> u64 {
        self.0 - other.0
    }
}

impl fmt::Debug for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of user addresses. Wherever the seam takes one it is page-aligned at both ends,
/// `start <= end`, and ends at or below [`USER_END`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UserRange {
    /// First address of the range.
    pub start: UserAddr,
    /// First address after the range.
    pub end: UserAddr,
}

impl UserRange {
    /// Returns the range `start..end`.
    pub const fn new(start: UserAddr, end: UserAddr) -> UserRange {
        UserRange { start, end }
    }

    /// Returns the range of `len` bytes at `start`, or `None` where it does not end in user space.
    pub fn from_len(start: UserAddr, len: u64) -> Option<UserRange> {
        let end = start.checked_add(len)?;
        (end <= USER_END).then_some(UserRange { start, end })
    }

    /// Length in bytes.
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Says whether the range holds nothing.
    pub const fn is_empty(self) -> bool {
        self.start.0 >= self.end.0
    }

    /// Length in pages.
    pub const fn pages(self) -> u64 {
        self.len() >> PAGE_SHIFT
    }

    /// Says whether `addr` lies in the range.
    pub const fn contains(self, addr: UserAddr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }

    /// Returns what the two ranges share; empty where they are apart.
    pub fn intersect(self, other: UserRange) -> UserRange {
        let start = self.start.max(other.start);
        UserRange { start, end: self.end.min(other.end).max(start) }
    }

    /// Returns the address of each page in the range.
    pub fn page_addrs(self) -> impl Iterator<Item = UserAddr> {
        (self.start.0..self.end.0).step_by(PAGE_SIZE).map(UserAddr)
    }
}

/// The number of a 4 KiB frame of guest memory, from 0 to [`crate::FrameStore::frame_count`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frame(pub u32);
