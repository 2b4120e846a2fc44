//! Counted frames of guest memory: what the memory limit counts.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use lg_abi::Errno;
use lg_platform::{Frame, FrameStore, PAGE_SIZE};

/// The allocator of guest memory. Every frame in use has a count of its owners: page-table entries, page
/// caches and [`FrameRef`]s. A frame without owners is free.
pub struct Frames {
    store: Rc<dyn FrameStore>,
    inner: RefCell<Inner>,
}

struct Inner {
    /// Owners of each frame.
    counts: Vec<u32>,
    /// Frames given back, to be zeroed before they are used again.
    free: Vec<Frame>,
    /// All frames from here on have never been used, so they are zero.
    fresh: u32,
    used: u32,
    peak: u32,
}

impl Frames {
    /// Returns the allocator of all of the platform's frames.
    pub fn new(store: Rc<dyn FrameStore>) -> Rc<Frames> {
        let counts = vec![0; store.frame_count() as usize];
        let inner = Inner { counts, free: Vec::new(), fresh: 0, used: 0, peak: 0 };
        Rc::new(Frames { store, inner: RefCell::new(inner) })
    }

    /// Allocates a frame that reads as zero.
    ///
    /// Errors: ENOMEM when every frame is in use.
    pub fn alloc(self: &Rc<Frames>) -> Result<FrameRef, Errno> {
        let frame = self.alloc_uncleared()?;
        if frame.was_used {
            self.store.zero(frame.frame.frame);
        }
        Ok(frame.frame)
    }

    /// Allocates a frame and copies `from` into it.
    pub fn alloc_copy(self: &Rc<Frames>, from: Frame) -> Result<FrameRef, Errno> {
        let frame = self.alloc_uncleared()?.frame;
        self.store.copy(from, frame.frame);
        Ok(frame)
    }

    fn alloc_uncleared(self: &Rc<Frames>) -> Result<Allocated, Errno> {
        let mut inner = self.inner.borrow_mut();
        let (frame, was_used) = match inner.free.pop() {
            Some(frame) => (frame, true),
            None if (inner.fresh as usize) < inner.counts.len() => {
                inner.fresh += 1;
                (Frame(inner.fresh - 1), false)
            }
            None => return Err(Errno::ENOMEM),
        };
        inner.counts[frame.0 as usize] = 1;
        inner.used += 1;
        inner.peak = inner.peak.max(inner.used);
        drop(inner);
        Ok(Allocated { frame: FrameRef { frames: self.clone(), frame }, was_used })
    }

    /// Allocates up to `count` frames and fills them from a host file at byte `offset`; what lies behind
    /// the end of the file is zero. Returns at least one frame.
    pub fn alloc_from_file(
        self: &Rc<Frames>,
        count: u32,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<Vec<FrameRef>, Errno> {
        let fresh = {
            let mut inner = self.inner.borrow_mut();
            let available = inner.counts.len() as u32 - inner.fresh;
            let count = count.min(available);
            let first = inner.fresh;
            inner.fresh += count;
            inner.used += count;
            inner.peak = inner.peak.max(inner.used);
            for frame in first..first + count {
                inner.counts[frame as usize] = 1;
            }
            first..first + count
        };
        if fresh.is_empty() {
            let frame = self.alloc()?;
            self.store.load(frame.frame.0..frame.frame.0 + 1, file, offset).map_err(host_errno)?;
            return Ok(vec![frame]);
        }
        let frames =
            fresh.clone().map(|frame| FrameRef { frames: self.clone(), frame: Frame(frame) }).collect();
        self.store.load(fresh, file, offset).map_err(host_errno)?;
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
            inner.free.push(frame);
        }
    }

    /// Returns the number of owners of a frame.
    pub fn owners(&self, frame: Frame) -> u32 {
        self.inner.borrow().counts[frame.0 as usize]
    }

    /// Returns the contents' store.
    pub fn store(&self) -> &dyn FrameStore {
        &*self.store
    }

    /// Returns ranges that cover every frame that holds something.
    pub fn used_ranges(&self) -> Vec<std::ops::Range<u32>> {
        vec![0..self.inner.borrow().fresh]
    }

    /// Returns how many frames there are.
    pub fn total(&self) -> u32 {
        self.store.frame_count()
    }

    /// Returns how many frames are in use.
    pub fn used(&self) -> u32 {
        self.inner.borrow().used
    }

    /// Returns how many frames are free.
    pub fn free(&self) -> u32 {
        self.total() - self.used()
    }

    /// Returns how many frames were in use at most.
    pub fn peak(&self) -> u32 {
        self.inner.borrow().peak
    }
}

struct Allocated {
    frame: FrameRef,
    was_used: bool,
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
