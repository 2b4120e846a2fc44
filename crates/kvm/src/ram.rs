//! The frames of the seam, over the data zone.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use lg_platform::{Frame, FrameStore, PAGE_SHIFT, PAGE_SIZE};

use crate::order::Order;
use crate::region::Region;

/// Guest memory as the kernel sees it.
pub struct Ram {
    region: Region,
    count: u32,
    order: RefCell<Order>,
}

impl Ram {
    /// Wraps a region of at most 2^32 - 1 pages.
    pub fn new(region: Region) -> Ram {
        let count = u32::try_from(region.len() >> PAGE_SHIFT).expect("the size was validated");
        Ram { region, count, order: RefCell::default() }
    }

    /// Returns the host mapping.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Returns the place of a frame in the region.
    pub fn place(&self, frame: Frame) -> u32 {
        self.order.borrow().place(frame)
    }

    /// Returns the frame at a place of the region.
    pub fn frame(&self, place: u32) -> Frame {
        self.order.borrow().frame(place)
    }

    /// Moves the frames in use to a sealed file, those at the places of `first` before the others. All other
    /// frames read as zero. Returns the old place of each frame by its new one.
    pub fn seal(&self, first: &[u32], used: &[Range<u32>]) -> io::Result<Vec<u32>> {
        used.iter()
            .for_each(|frames| assert!(frames.end <= self.count, "frames {frames:?} of {}", self.count));
        let (order, old_places) = self.order.borrow().rearranged(first, used);
        self.region.seal_in_order(&old_places)?;
        *self.order.borrow_mut() = order;
        Ok(old_places)
    }

    fn offset(&self, frame: Frame, offset: usize, len: usize) -> usize {
        assert!(frame.0 < self.count, "frame {} of {}", frame.0, self.count);
        let fits = offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE);
        assert!(fits, "bytes {offset}+{len} of a frame");
        ((self.place(frame) as usize) << PAGE_SHIFT) + offset
    }

    /// Returns where the frames are in the region, as runs of bytes.
    fn extents(&self, frames: &Range<u32>) -> impl Iterator<Item = (usize, usize)> + use<> {
        assert!(
            frames.start <= frames.end && frames.end <= self.count,
            "frames {frames:?} of {}",
            self.count
        );
        let runs = self.order.borrow().runs(frames.clone());
        runs.into_iter().map(|run| ((run.start as usize) << PAGE_SHIFT, run.len() << PAGE_SHIFT))
    }
}

impl FrameStore for Ram {
    fn frame_count(&self) -> u32 {
        self.count
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        self.region.read(self.offset(frame, offset, buf.len()), buf);
    }

    fn write(&self, frame: Frame, offset: usize, data: &[u8]) {
        self.region.write(self.offset(frame, offset, data.len()), data);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.region.copy_page(self.offset(from, 0, PAGE_SIZE), self.offset(to, 0, PAGE_SIZE));
    }

    fn zero(&self, frame: Frame) {
        self.region.zero(self.offset(frame, 0, PAGE_SIZE), PAGE_SIZE);
    }

    fn discard(&self, frames: Range<u32>) {
        for (start, len) in self.extents(&frames) {
            self.region.discard(start, len);
        }
    }

    fn load(&self, frames: Range<u32>, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let mut done = 0;
        for (start, len) in self.extents(&frames) {
            let loaded = self.region.load(start, len, file, offset.saturating_add(done as u64))?;
            done += loaded;
            if loaded < len {
                break;
            }
        }
        Ok(done)
    }
}
