//! The frames that show pages of a host file, as long as the file stays what it was when they were read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use lg_abi::{Errno, Timespec};
use rustix::time::ClockId;

use super::PAGE;
use crate::fs::host::LowerStat;
use crate::fs::read_ahead;
use crate::mm::{FrameRef, Frames};

/// A file that was changed this shortly before it was read may change again without its times telling: they are those
/// of a coarse clock, and on a network file system of another machine's.
const RACY_S: i64 = 2;

/// What tells that a file was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Version {
    size: u64,
    mtime: Timespec,
    ctime: Timespec,
}

impl Version {
    fn of(stat: &LowerStat) -> Version {
        Version { size: stat.size, mtime: stat.mtime, ctime: stat.ctime }
    }

    fn is_racy(&self) -> bool {
        let now_s = rustix::time::clock_gettime(ClockId::Realtime).tv_sec;
        self.mtime.tv_sec.max(self.ctime.tv_sec) > now_s.saturating_sub(RACY_S)
    }
}

/// The pages of one file that are in memory.
#[derive(Default)]
pub struct HostPages {
    pages: RefCell<BTreeMap<u64, FrameRef>>,
    version: Cell<Option<Version>>,
    /// Some of them may have been read before the last change.
    outdated: Cell<bool>,
}

impl HostPages {
    /// Drops the pages that no mapping holds if the file was changed after they were read.
    fn check(&self, stat: &LowerStat) {
        let version = Version::of(stat);
        if self.version.replace(Some(version)) != Some(version) || self.outdated.get() {
            self.drop_unmapped(u32::MAX);
            self.outdated.set(!self.pages.borrow().is_empty());
        }
    }

    /// Returns a page, which is read with those around it if it is not there.
    ///
    /// Errors: EFAULT behind the end, ENOMEM, and those of read(2).
    pub fn page(
        &self,
        frames: &Rc<Frames>,
        file: BorrowedFd<'_>,
        stat: &LowerStat,
        index: u64,
    ) -> Result<FrameRef, Errno> {
        let end = stat.size.div_ceil(PAGE);
        if index >= end {
            return Err(Errno::EFAULT);
        }
        self.check(stat);
        if let Some(frame) = self.pages.borrow().get(&index) {
            return Ok(frame.clone());
        }
        self.outdated.set(self.outdated.get() || Version::of(stat).is_racy());
        let window = read_ahead::window(&self.pages.borrow(), index, end);
        self.read(frames, file, window)?;
        if let Some(frame) = self.pages.borrow().get(&index) {
            return Ok(frame.clone());
        }
        // Memory was too short for the pages before it.
        self.read(frames, file, index..index + 1)?;
        self.pages.borrow().get(&index).cloned().ok_or(Errno::EIO)
    }

    fn read(&self, frames: &Rc<Frames>, file: BorrowedFd<'_>, window: Range<u64>) -> Result<(), Errno> {
        let count = u32::try_from(window.end - window.start).unwrap_or(1);
        let start = window.start.checked_mul(PAGE).ok_or(Errno::EFAULT)?;
        let read = frames.alloc_from_file(count, file, start)?;
        let mut pages = self.pages.borrow_mut();
        for (at, frame) in window.zip(read) {
            pages.entry(at).or_insert(frame);
        }
        Ok(())
    }

    /// Returns the pages of a range that are there, of a file of that many bytes.
    pub fn resident(&self, size: u64, range: Range<u64>) -> Vec<(u64, FrameRef)> {
        let end = size.div_ceil(PAGE).min(range.end).max(range.start);
        let pages = self.pages.borrow();
        pages.range(range.start..end).map(|(at, frame)| (*at, frame.clone())).collect()
    }

    /// Returns a page, if it is there.
    pub fn get(&self, index: u64) -> Option<FrameRef> {
        self.pages.borrow().get(&index).cloned()
    }

    /// Calls `each` for every mapped page of a range of bytes, with the offset in it and the range of bytes.
    pub fn for_mapped(&self, offset: u64, len: usize, mut each: impl FnMut(&FrameRef, usize, Range<usize>)) {
        if len == 0 {
            return;
        }
        let end = offset.saturating_add(len as u64);
        for (index, frame) in self.pages.borrow().range(offset / PAGE..=(end - 1) / PAGE) {
            if !frame.is_shared() {
                continue;
            }
            let page_start = index.saturating_mul(PAGE);
            let from = page_start.max(offset);
            let to = page_start.saturating_add(PAGE).min(end);
            each(frame, (from - page_start) as usize, (from - offset) as usize..(to - offset) as usize);
        }
    }

    /// Makes what is behind a new end of the file zero, or drops it.
    pub fn truncate(&self, size: u64) {
        let mut pages = self.pages.borrow_mut();
        if !size.is_multiple_of(PAGE)
            && let Some(frame) = pages.get(&(size / PAGE))
        {
            frame.zero_from((size % PAGE) as usize);
        }
        pages.split_off(&size.div_ceil(PAGE));
    }

    /// Drops up to `max` pages that no mapping holds, and returns how many.
    pub fn drop_unmapped(&self, max: u32) -> u32 {
        let mut dropped = 0;
        self.pages.borrow_mut().retain(|_, frame| {
            let keep = dropped >= max || frame.is_shared();
            dropped += u32::from(!keep);
            keep
        });
        dropped
    }
}

/// The pages of files that nobody uses at the moment, by file: a program that is started again, and its libraries, are
/// not read again.
#[derive(Default)]
pub struct KeptPages(RefCell<HashMap<(u64, u64), HostPages>>);

impl KeptPages {
    /// Takes the pages of a file.
    pub fn take(&self, key: (u64, u64)) -> HostPages {
        self.0.borrow_mut().remove(&key).unwrap_or_default()
    }

    /// Keeps the pages of a file, unless its times can not tell whether they are still right.
    pub fn keep(&self, key: (u64, u64), pages: HostPages) {
        if !pages.outdated.get() && !pages.pages.borrow().is_empty() {
            self.0.borrow_mut().insert(key, pages);
        }
    }

    /// Drops up to `max` pages, and returns how many.
    pub fn reclaim(&self, max: u32) -> u32 {
        let mut dropped = 0;
        self.0.borrow_mut().retain(|_, pages| {
            dropped += pages.drop_unmapped(max - dropped);
            !pages.pages.borrow().is_empty()
        });
        dropped
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use lg_platform::Platform as _;
    use lg_platform::mock::MockPlatform;

    use super::*;
    use crate::vfs::testing::TempDir;

    struct Scene {
        frames: Rc<Frames>,
        file: File,
        stat: LowerStat,
        dir: TempDir,
    }

    impl Scene {
        /// A file of three pages that was last changed at a time, in seconds.
        fn new(changed_s: i64) -> Scene {
            let dir = TempDir::new();
            dir.write("file", "a".repeat(3 * PAGE as usize));
            let file = File::open(dir.0.join("file")).unwrap();
            let mut stat = LowerStat::from_host(&rustix::fs::fstat(&file).unwrap());
            let changed = Timespec { tv_sec: changed_s, tv_nsec: 0 };
            (stat.mtime, stat.ctime) = (changed, changed);
            Scene { frames: Frames::new(MockPlatform::new(64).frames()), file, stat, dir }
        }

        fn first_byte(&self, pages: &HostPages, index: u64) -> u8 {
            let frame = pages.page(&self.frames, self.file.as_fd(), &self.stat, index).unwrap();
            let mut byte = [0];
            frame.read(0, &mut byte);
            byte[0]
        }

        /// Changes the bytes of the file; `tells` says whether its times change.
        fn change(&mut self, tells: bool) {
            self.dir.write("file", "b".repeat(3 * PAGE as usize));
            self.stat.mtime.tv_sec += i64::from(tells);
        }
    }

    const KEY: (u64, u64) = (1, 2);

    #[test]
    fn are_kept_while_the_file_is_the_same() {
        let mut scene = Scene::new(1000);
        let (kept, pages) = (KeptPages::default(), HostPages::default());
        assert_eq!(scene.first_byte(&pages, 1), b'a');
        assert_eq!(pages.resident(scene.stat.size, 0..9).len(), 3, "those around it were read, too");
        kept.keep(KEY, pages);
        // What was read is not read again.
        scene.change(false);
        let pages = kept.take(KEY);
        assert_eq!(scene.first_byte(&pages, 0), b'a');
        // And is when the file tells.
        scene.change(true);
        assert_eq!(scene.first_byte(&pages, 0), b'b');
        assert!(kept.take(KEY).get(0).is_none(), "they were taken");
    }

    #[test]
    fn are_not_kept_if_the_file_has_just_changed() {
        let now_s = rustix::time::clock_gettime(ClockId::Realtime).tv_sec;
        let scene = Scene::new(now_s);
        let (kept, pages) = (KeptPages::default(), HostPages::default());
        assert_eq!(scene.first_byte(&pages, 1), b'a');
        kept.keep(KEY, pages);
        assert!(kept.take(KEY).get(1).is_none());
    }

    #[test]
    fn a_mapping_holds_its_page_and_no_other() {
        let mut scene = Scene::new(1000);
        let (kept, pages) = (KeptPages::default(), HostPages::default());
        let mapped = pages.page(&scene.frames, scene.file.as_fd(), &scene.stat, 0).unwrap();
        scene.change(true);
        assert_eq!((scene.first_byte(&pages, 0), scene.first_byte(&pages, 1)), (b'a', b'b'));
        // Its page is of before the change, so none is kept.
        drop(mapped);
        kept.keep(KEY, pages);
        assert!(kept.take(KEY).get(1).is_none());
    }

    #[test]
    fn go_when_memory_is_short() {
        let scene = Scene::new(1000);
        let (kept, pages) = (KeptPages::default(), HostPages::default());
        scene.first_byte(&pages, 0);
        kept.keep(KEY, pages);
        assert_eq!((kept.reclaim(2), kept.reclaim(9), kept.reclaim(9)), (2, 1, 0));
    }

    #[test]
    fn behind_the_end_there_are_none() {
        let scene = Scene::new(1000);
        let pages = HostPages::default();
        let beyond = pages.page(&scene.frames, scene.file.as_fd(), &scene.stat, 3);
        assert_eq!(beyond.err(), Some(Errno::EFAULT));
        scene.first_byte(&pages, 2);
        pages.truncate(PAGE + 1);
        assert_eq!(pages.resident(scene.stat.size, 0..9).len(), 2);
        let mut bytes = [1; 2];
        pages.get(1).unwrap().read(0, &mut bytes);
        assert_eq!(bytes, [b'a', 0]);
    }
}
