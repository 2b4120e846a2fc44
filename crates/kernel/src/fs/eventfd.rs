//! Event counters (eventfd(2)).

use std::cell::Cell;
use std::io::SeekFrom;
use std::rc::Rc;

use lg_abi::Errno;

use crate::task::WaitQueue;
use crate::vfs::{File, FsContext, Readiness};

/// The largest value of a counter.
const MAX: u64 = u64::MAX - 1;

/// What a read takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taking {
    /// All of it.
    Everything,
    /// One (EFD_SEMAPHORE).
    One,
}

/// An event counter.
pub struct EventFd {
    count: Cell<u64>,
    taking: Taking,
    changed: Rc<WaitQueue>,
}

impl EventFd {
    /// Returns a counter.
    pub fn new(count: u64, taking: Taking) -> Rc<EventFd> {
        Rc::new(EventFd { count: Cell::new(count), taking, changed: WaitQueue::new() })
    }

    /// Adds to the counter from inside the kernel; it stays at its largest value.
    pub fn signal(&self, count: u64) {
        self.count.set(self.count.get().saturating_add(count).min(MAX));
        self.changed.wake_all();
    }
}

impl File for EventFd {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let out = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let taken = match (self.count.get(), self.taking) {
            (0, _) => return Err(Errno::EAGAIN),
            (_, Taking::One) => 1,
            (count, Taking::Everything) => count,
        };
        out.copy_from_slice(&taken.to_ne_bytes());
        self.count.set(self.count.get() - taken);
        self.changed.wake_all();
        Ok(8)
    }

    fn write(&self, _cx: &FsContext<'_>, _offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let bytes = data.first_chunk::<8>().ok_or(Errno::EINVAL)?;
        let added = u64::from_ne_bytes(*bytes);
        if added > MAX {
            return Err(Errno::EINVAL);
        }
        let sum = self.count.get().checked_add(added).filter(|sum| *sum <= MAX).ok_or(Errno::EAGAIN)?;
        self.count.set(sum);
        self.changed.wake_all();
        Ok(8)
    }

    fn has_position(&self) -> bool {
        false
    }

    /// As on Linux, the position can be set, and stays 0.
    fn seek(&self, _to: SeekFrom) -> Option<Result<u64, Errno>> {
        Some(Ok(0))
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        let mut ready = Readiness::empty();
        if self.count.get() > 0 {
            ready |= Readiness::READABLE;
        }
        if self.count.get() < MAX {
            ready |= Readiness::WRITABLE;
        }
        ready
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.changed.clone()]
    }

    fn info(&self, _cx: &FsContext<'_>) -> String {
        format!("eventfd-count: {:16x}\n", self.count.get())
    }
}
