//! The frames of the seam, over the data zone.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use lg_platform::{Frame, FrameStore, PAGE_SHIFT, PAGE_SIZE};

use crate::region::Region;

/// Guest memory as the kernel sees it.
pub struct Ram {
    region: Region,
    count: u32,
}

impl Ram {
    /// Wraps a region of at most 2^32 - 1 pages.
    pub fn new(region: Region) -> Ram {
        let count = u32::try_from(region.len() >> PAGE_SHIFT).expect("the size was validated");
        Ram { region, count }
    }

    /// Returns the host mapping.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Moves frames to a sealed file; see [`Region::seal`].
    pub fn seal(&self, used: &[Range<u32>]) -> io::Result<()> {
        let ranges = used.iter().filter(|frames| !frames.is_empty()).map(|frames| {
            let (start, len) = self.extent(frames);
            start..start + len
        });
        self.region.seal(&ranges.collect::<Vec<_>>())
    }

    fn offset(&self, frame: Frame, offset: usize, len: usize) -> usize {
        assert!(frame.0 < self.count, "frame {} of {}", frame.0, self.count);
        let fits = offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE);
        assert!(fits, "bytes {offset}+{len} of a frame");
        ((frame.0 as usize) << PAGE_SHIFT) + offset
    }

    fn extent(&self, frames: &Range<u32>) -> (usize, usize) {
        assert!(
            frames.start <= frames.end && frames.end <= self.count,
            "frames {frames:?} of {}",
            self.count
        );
        let start = (frames.start as usize) << PAGE_SHIFT;
        (start, ((frames.end as usize) << PAGE_SHIFT) - start)
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
        let (start, len) = self.extent(&frames);
        self.region.discard(start, len);
    }

    fn load(&self, frames: Range<u32>, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let (start, len) = self.extent(&frames);
        self.region.load(start, len, file, offset)
    }
}
