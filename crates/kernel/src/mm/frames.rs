//! Counted frames of guest memory: what the memory limit counts.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use lg_abi::Errno;
use lg_platform::{Frame, FrameStore, PAGE_SIZE};

use super::frameset::FrameSet;

/// How many freed frames are kept for their next use when others go back to the host, and how many more it
/// takes for that. Measured on a PVM machine: zeroing a kept frame takes 0.05 us; giving one back 2 us for each
/// run of adjacent frames and 0.2 us for each frame, and its next use 1.6 us. So the frames of a process that
/// ends are kept for the next one, and the host gets what is more than that, or what stays unused
/// ([`Frames::give_back`]).
const RESERVE: Reserve = Reserve { kept: 2048, batch: 2048 };

struct Reserve {
    kept: usize,
    batch: usize,
}

/// Ranges of frames in use that lie as near to each other as this are told as one.
const MAX_GAP: u32 = 16;

/// The allocator of guest memory. Every frame in use has a count of its owners: page-table entries, page
/// caches and [`FrameRef`]s. A frame without owners is free.
///
/// ```text
///            alloc                   last release
///   clean ----------> in use -----------------------> kept
///     ^                  ^----------- alloc ------------|
///     |                                                 |
///     +------------- discard, to the host --------------+
/// ```
///
/// Clean frames read as zero and take no host memory. Kept ones come first when frames are allocated, then the
/// clean one with the lowest number, so that what is in use stays close together. Nothing here touches host
/// memory in proportion to the size of the guest: a fork of the vmm copies little.
pub struct Frames {
    store: Rc<dyn FrameStore>,
    reserve: Reserve,
    inner: RefCell<Inner>,
}

struct Inner {
    /// Owners of each frame.
    counts: Vec<u32>,
    /// Frames that are not clean.
    touched: FrameSet,
    /// Free frames that are not clean. The one freed last, which caches know best, is used first.
    kept: Vec<u32>,
    used: u32,
    /// Frames' worth of page tables, which the platform has elsewhere.
    tables: u32,
    /// How many frames and tables there may be.
    limit: u32,
    /// How many frames and tables there were at most.
    peak: u32,
}

impl Inner {
    fn room(&self) -> u32 {
        self.limit.saturating_sub(self.used.saturating_add(self.tables))
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.used.saturating_add(self.tables));
    }

    /// Counts clean frames as used by one owner each.
    fn take_clean(&mut self, frames: Range<u32>) {
        self.touched.insert(frames.clone());
        self.used += frames.len() as u32;
        self.note_peak();
        frames.for_each(|frame| self.counts[frame as usize] = 1);
    }
}

impl Frames {
    /// Returns the allocator of all of the platform's frames.
    pub fn new(store: Rc<dyn FrameStore>) -> Rc<Frames> {
        Frames::with_reserve(store, RESERVE)
    }

    fn with_reserve(store: Rc<dyn FrameStore>, reserve: Reserve) -> Rc<Frames> {
        let total = store.frame_count();
        let inner = Inner {
            counts: vec![0; total as usize],
            touched: FrameSet::new(total),
            kept: Vec::new(),
            used: 0,
            tables: 0,
            limit: total,
            peak: 0,
        };
        Rc::new(Frames { store, reserve, inner: RefCell::new(inner) })
    }

    /// Allocates a frame that reads as zero.
    ///
    /// Errors: ENOMEM at the limit.
    pub fn alloc(self: &Rc<Frames>) -> Result<FrameRef, Errno> {
        let Allocated { frame, is_clean } = self.alloc_uncleared()?;
        if !is_clean {
            self.store.zero(frame.frame);
        }
        Ok(frame)
    }

    /// Allocates a frame and copies `from` into it.
    pub fn alloc_copy(self: &Rc<Frames>, from: Frame) -> Result<FrameRef, Errno> {
        let frame = self.alloc_uncleared()?.frame;
        self.store.copy(from, frame.frame);
        Ok(frame)
    }

    fn alloc_uncleared(self: &Rc<Frames>) -> Result<Allocated, Errno> {
        let mut inner = self.inner.borrow_mut();
        if inner.room() == 0 {
            return Err(Errno::ENOMEM);
        }
        let (frame, is_clean) = match inner.kept.pop() {
            Some(frame) => {
                inner.counts[frame as usize] = 1;
                inner.used += 1;
                inner.note_peak();
                (frame, false)
            }
            None => {
                let frame = inner.touched.first_absent().ok_or(Errno::ENOMEM)?;
                inner.take_clean(frame..frame + 1);
                (frame, true)
            }
        };
        drop(inner);
        Ok(Allocated { frame: FrameRef { frames: self.clone(), frame: Frame(frame) }, is_clean })
    }

    /// Allocates up to `count` frames and fills them from a host file at byte `offset`; what lies behind
    /// the end of the file is zero. Returns at least one frame.
    pub fn alloc_from_file(
        self: &Rc<Frames>,
        count: u32,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<Vec<FrameRef>, Errno> {
        let taken = {
            let mut inner = self.inner.borrow_mut();
            let run = inner.touched.absent_run(count.min(inner.room()));
            inner.take_clean(run.clone());
            self.keep_within_limit(&mut inner);
            run
        };
        if taken.is_empty() {
            let frame = self.alloc()?;
            self.store.load(frame.frame.0..frame.frame.0 + 1, file, offset).map_err(host_errno)?;
            return Ok(vec![frame]);
        }
        let frames =
            taken.clone().map(|frame| FrameRef { frames: self.clone(), frame: Frame(frame) }).collect();
        self.store.load(taken, file, offset).map_err(host_errno)?;
        Ok(frames)
    }

    /// Adds an owner to a frame in use.
    pub fn retain(&self, frame: Frame) {
        let count = &mut self.inner.borrow_mut().counts[frame.0 as usize];
        debug_assert!(*count > 0, "frame {} is free", frame.0);
        *count = count.checked_add(1).expect("fewer than 2^32 owners of a frame");
    }

    /// Takes an owner from a frame in use, and frees it with the last one.
    pub fn release(&self, frame: Frame) {
        let mut inner = self.inner.borrow_mut();
        let count = &mut inner.counts[frame.0 as usize];
        *count = count.checked_sub(1).expect("a frame in use");
        if *count == 0 {
            inner.used -= 1;
            inner.kept.push(frame.0);
            if inner.kept.len() >= self.reserve.kept + self.reserve.batch {
                self.discard_all_but(&mut inner, self.reserve.kept);
            }
            self.keep_within_limit(&mut inner);
        }
    }

    /// Gives all free frames back to the host: for a sandbox that has nothing to do, and for a template.
    pub fn give_back(&self) {
        self.discard_all_but(&mut self.inner.borrow_mut(), 0);
    }

    /// Returns how many free frames still take host memory.
    pub fn kept(&self) -> u32 {
        self.inner.borrow().kept.len() as u32
    }

    /// Sees to it that kept frames and those in use are together no more than the limit.
    fn keep_within_limit(&self, inner: &mut Inner) {
        let room = inner.room() as usize;
        if inner.kept.len() > room {
            self.discard_all_but(inner, room / 2);
        }
    }

    /// Makes kept frames clean, those with the highest numbers first.
    fn discard_all_but(&self, inner: &mut Inner, keep: usize) {
        // In descending order, so that the lowest of the rest is used first.
        inner.kept.sort_unstable_by(|a, b| b.cmp(a));
        let count = inner.kept.len().saturating_sub(keep);
        for run in inner.kept[..count].chunk_by(|above, below| below + 1 == *above) {
            let (Some(last), Some(first)) = (run.first(), run.last()) else { continue };
            self.store.discard(*first..last + 1);
            inner.touched.remove(*first..last + 1);
        }
        inner.kept.drain(..count);
        if keep == 0 {
            inner.kept = Vec::new();
        }
    }

    /// Returns ranges, in ascending order, that together hold every frame in use. Small gaps between them are
    /// in the ranges too, since a mapping costs more than a page. Call [`Frames::give_back`] first: kept
    /// frames hold what was in them.
    pub fn used_ranges(&self) -> Vec<Range<u32>> {
        let inner = self.inner.borrow();
        let mut kept = inner.kept.clone();
        kept.sort_unstable();
        let mut ranges: Vec<Range<u32>> = Vec::new();
        let mut add = |range: Range<u32>| match ranges.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end + MAX_GAP => last.end = range.end,
            _ => ranges.push(range),
        };
        let mut kept = kept.into_iter().peekable();
        for run in inner.touched.runs() {
            let mut start = run.start;
            while let Some(free) = kept.next_if(|free| *free < run.end) {
                add(start..free);
                start = free + 1;
            }
            add(start..run.end);
        }
        ranges
    }

    /// Returns the number of owners of a frame.
    pub fn owners(&self, frame: Frame) -> u32 {
        self.inner.borrow().counts[frame.0 as usize]
    }

    /// Returns the contents' store.
    pub fn store(&self) -> &dyn FrameStore {
        &*self.store
    }

    /// Returns how many frames and page tables there may be: what the guest sees as the size of its memory.
    pub fn total(&self) -> u32 {
        self.inner.borrow().limit
    }

    /// Sets how many frames and page tables there may be.
    pub fn set_total(&self, limit: u32) {
        let mut inner = self.inner.borrow_mut();
        inner.limit = limit.min(self.store.frame_count());
        self.keep_within_limit(&mut inner);
    }

    /// Tells how much page tables take, which counts as frames in use.
    pub fn set_table_bytes(&self, bytes: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.tables = u32::try_from(bytes / PAGE_SIZE as u64).unwrap_or(u32::MAX);
        inner.note_peak();
        self.keep_within_limit(&mut inner);
    }

    /// Says whether frames and page tables are more than there may be.
    pub fn is_over_limit(&self) -> bool {
        let inner = self.inner.borrow();
        inner.used.saturating_add(inner.tables) > inner.limit
    }

    /// Returns how many frames are in use, with page tables.
    pub fn used(&self) -> u32 {
        let inner = self.inner.borrow();
        inner.used.saturating_add(inner.tables)
    }

    /// Returns how many more frames can be allocated.
    pub fn free(&self) -> u32 {
        self.inner.borrow().room()
    }

    /// Returns how many frames were in use at most, with page tables.
    pub fn peak(&self) -> u32 {
        self.inner.borrow().peak
    }

    /// Forgets how many frames were in use before.
    pub fn reset_peak(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.peak = inner.used.saturating_add(inner.tables);
    }
}

struct Allocated {
    frame: FrameRef,
    is_clean: bool,
}

/// Turns the error of a host call into the errno that the guest sees.
pub fn host_errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_host)
}

/// An owner of a frame.
pub struct FrameRef {
    frames: Rc<Frames>,
    frame: Frame,
}

impl FrameRef {
    /// Returns the frame's number, valid as long as this owner or another lives.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// Says whether somebody else owns the frame, too: a mapping.
    pub fn is_shared(&self) -> bool {
        self.frames.owners(self.frame) > 1
    }

    /// Copies bytes at `offset` of the frame into `buf`; may not cross its end.
    pub fn read(&self, offset: usize, buf: &mut [u8]) {
        self.frames.store.read(self.frame, offset, buf);
    }

    /// Copies `data` to `offset` of the frame; may not cross its end.
    pub fn write(&self, offset: usize, data: &[u8]) {
        self.frames.store.write(self.frame, offset, data);
    }

    /// Zeroes the frame from `offset` to its end.
    pub fn zero_from(&self, offset: usize) {
        if offset == 0 {
            self.frames.store.zero(self.frame);
        } else {
            self.write(offset, &[0; PAGE_SIZE][offset..]);
        }
    }

    /// Gives the ownership to the caller, who must [`Frames::release`] the frame.
    pub fn into_raw(self) -> Frame {
        let frame = self.frame;
        self.frames.retain(frame);
        frame
    }
}

impl Clone for FrameRef {
    fn clone(&self) -> FrameRef {
        self.frames.retain(self.frame);
        FrameRef { frames: self.frames.clone(), frame: self.frame }
    }
}

impl Drop for FrameRef {
    fn drop(&mut self) {
        self.frames.release(self.frame);
    }
}

impl fmt::Debug for FrameRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameRef({})", self.frame.0)
    }
}

#[cfg(test)]
mod tests;
