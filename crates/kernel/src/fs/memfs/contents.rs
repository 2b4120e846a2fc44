//! The contents of a regular file: frames, over a host file where there is one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsFd;

use lg_abi::Errno;
use lg_abi::raw::general::{F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE};
use lg_platform::PAGE_SIZE;

use super::MemFs;
use crate::fs::host::LowerFile;
use crate::fs::read_ahead;
use crate::mm::FrameRef;
use crate::vfs::Extent;

const PAGE: u64 = PAGE_SIZE as u64;
/// The largest length of a file, as Linux has it on x86-64.
pub const MAX_LEN: u64 = i64::MAX as u64;

struct Page {
    frame: FrameRef,
    /// Whether it differs from the lower file, so that it can not be dropped.
    dirty: bool,
}

/// The pages of a file. Pages that are neither here nor in the lower file read as zero.
pub struct Contents {
    pages: RefCell<BTreeMap<u64, Page>>,
    size: Cell<u64>,
    lower: Option<LowerFile>,
    /// Bytes of the lower file that still count: less than its length after a truncation.
    lower_len: Cell<u64>,
    seals: Cell<Option<u32>>,
}

impl Contents {
    /// Returns the contents of a new file.
    pub fn empty() -> Contents {
        Contents {
            pages: RefCell::default(),
            size: Cell::new(0),
            lower: None,
            lower_len: Cell::new(0),
            seals: Cell::new(None),
        }
    }

    /// Returns the contents of a host file.
    pub fn of_lower(file: LowerFile, len: u64) -> Contents {
        let len = len.min(MAX_LEN);
        Contents { size: Cell::new(len), lower: Some(file), lower_len: Cell::new(len), ..Contents::empty() }
    }

    /// Returns the length in bytes.
    pub fn size(&self) -> u64 {
        self.size.get()
    }

    /// Returns the length on disk in units of 512 bytes.
    pub fn blocks(&self) -> u64 {
        let own = self.pages.borrow().len() as u64 * (PAGE / 512);
        own.max(self.lower_len.get().div_ceil(512))
    }

    /// Returns how many pages count as the file system's.
    pub fn dirty_pages(&self) -> u64 {
        self.pages.borrow().values().filter(|page| page.dirty).count() as u64
    }

    /// Returns the seals, `None` for files that can not have any.
    pub fn seals(&self) -> Option<u32> {
        self.seals.get()
    }

    /// Sets the seals (memfd_create(2), fcntl(2) F_ADD_SEALS).
    pub fn set_seals(&self, seals: u32) {
        self.seals.set(Some(seals));
    }

    fn is_sealed(&self, seals: u32) -> bool {
        self.seals.get().is_some_and(|set| set & seals != 0)
    }

    /// Says whether page `index` is to be read from the lower file when it is not here.
    fn is_lower(&self, index: u64) -> bool {
        index.checked_mul(PAGE).is_some_and(|start| start < self.lower_len.get())
    }

    /// Reads at `offset`; less than asked for only at the end of the file.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let left = self.size.get().saturating_sub(offset);
        let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buf = &mut buf[..len];
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let (index, within) = (at / PAGE, (at % PAGE) as usize);
            let run = self.run_without_page(index, (at + (len - done) as u64 - 1) / PAGE);
            if run == 0 {
                let count = (PAGE_SIZE - within).min(len - done);
                if let Some(page) = self.pages.borrow().get(&index) {
                    page.frame.read(within, &mut buf[done..done + count]);
                }
                done += count;
                continue;
            }
            let count = usize::try_from(run * PAGE - within as u64).unwrap_or(usize::MAX).min(len - done);
            let part = &mut buf[done..done + count];
            let from_lower = self.lower_len.get().saturating_sub(at);
            let from_lower = usize::try_from(from_lower).unwrap_or(usize::MAX).min(count);
            let (host, zero) = part.split_at_mut(from_lower);
            if !host.is_empty()
                && let Some(lower) = &self.lower
            {
                lower.read_exact_at(at, host)?;
            }
            zero.fill(0);
            done += count;
        }
        Ok(len)
    }

    /// Returns how many pages from `first` to `last` are not here, up to the first that is.
    fn run_without_page(&self, first: u64, last: u64) -> u64 {
        match self.pages.borrow().range(first..=last).next() {
            Some((index, _)) => index - first,
            None => last - first + 1,
        }
    }

    /// Writes at `offset`. Less than all is written when the room ends in between.
    ///
    /// Errors: ENOSPC, EFBIG, EPERM for a sealed file.
    pub fn write(&self, fs: &MemFs, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let mut data = data;
        if self.is_sealed(F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        if self.is_sealed(F_SEAL_GROW) {
            let size = self.size.get();
            // What is written to the page in which the file would grow, is written wholly or not at all.
            let end = offset.saturating_add(data.len() as u64);
            let room =
                if end <= size { data.len() as u64 } else { (size - size % PAGE).saturating_sub(offset) };
            if room == 0 && !data.is_empty() {
                return Err(Errno::EPERM);
            }
            data = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        }
        let room = usize::try_from(MAX_LEN.saturating_sub(offset)).unwrap_or(usize::MAX);
        if room == 0 && !data.is_empty() {
            return Err(Errno::EFBIG);
        }
        let data = &data[..data.len().min(room)];
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (index, within) = (at / PAGE, (at % PAGE) as usize);
            let count = (PAGE_SIZE - within).min(data.len() - done);
            // A page that is overwritten wholly need not be read first.
            let load = if count == PAGE_SIZE { Load::Zero } else { Load::Lower };
            let frame = match self.frame_to_write(fs, index, load) {
                Ok(frame) => frame,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            frame.write(within, &data[done..done + count]);
            done += count;
            self.size.set(self.size.get().max(at + count as u64));
        }
        Ok(done)
    }

    fn frame_to_write(&self, fs: &MemFs, index: u64, load: Load) -> Result<FrameRef, Errno> {
        if let Some(page) = self.pages.borrow_mut().get_mut(&index) {
            if !page.dirty {
                fs.charge_page()?;
                page.dirty = true;
            }
            return Ok(page.frame.clone());
        }
        fs.charge_page()?;
        let frame = match self.new_frame(fs, index, load) {
            Ok(frame) => frame,
            Err(errno) => {
                fs.uncharge_pages(1);
                return Err(if errno == Errno::ENOMEM { Errno::ENOSPC } else { errno });
            }
        };
        self.pages.borrow_mut().insert(index, Page { frame: frame.clone(), dirty: true });
        Ok(frame)
    }

    fn new_frame(&self, fs: &MemFs, index: u64, load: Load) -> Result<FrameRef, Errno> {
        if load == Load::Lower && self.is_lower(index) {
            let mut frames = self.load(fs, index, 1)?;
            return frames.pop().ok_or(Errno::EIO);
        }
        fs.with_reclaim(|| fs.frames().alloc())
    }

    /// Loads pages of the lower file; at least one.
    fn load(&self, fs: &MemFs, index: u64, count: u64) -> Result<Vec<FrameRef>, Errno> {
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        let fd = lower.open()?;
        let start = index.checked_mul(PAGE).ok_or(Errno::EFBIG)?;
        let count = u32::try_from(count).unwrap_or(1);
        let frames = fs.with_reclaim(|| fs.frames().alloc_from_file(count, fd.as_fd(), start))?;
        // The file may be longer on the host than what still counts of it here.
        let end = self.lower_len.get().saturating_sub(start);
        for (frame, frame_start) in frames.iter().zip((0u64..).step_by(PAGE_SIZE)) {
            let valid = end.saturating_sub(frame_start);
            if valid < PAGE {
                frame.zero_from(valid as usize);
            }
        }
        Ok(frames)
    }

    /// Returns the frame of a page for a mapping.
    ///
    /// Errors: EFAULT wholly behind the end, ENOSPC.
    pub fn page(&self, fs: &MemFs, index: u64) -> Result<FrameRef, Errno> {
        if index >= self.size.get().div_ceil(PAGE) {
            return Err(Errno::EFAULT);
        }
        if let Some(page) = self.pages.borrow().get(&index) {
            return Ok(page.frame.clone());
        }
        if !self.is_lower(index) {
            return self.frame_to_write(fs, index, Load::Zero);
        }
        let window = read_ahead::window(&self.pages.borrow(), index, self.lower_len.get().div_ceil(PAGE));
        let frames = self.load(fs, window.start, window.end - window.start)?;
        let mut pages = self.pages.borrow_mut();
        let mut wanted = None;
        for (at, frame) in window.zip(frames) {
            if at == index {
                wanted = Some(frame.clone());
            }
            pages.entry(at).or_insert(Page { frame, dirty: false });
        }
        drop(pages);
        match wanted {
            Some(frame) => Ok(frame),
            // Memory was too short for the pages before it.
            None => {
                let frame = self.load(fs, index, 1)?.pop().ok_or(Errno::EIO)?;
                self.pages.borrow_mut().insert(index, Page { frame: frame.clone(), dirty: false });
                Ok(frame)
            }
        }
    }

    /// Loads the pages of a range that are those of the lower file.
    pub fn read_ahead(&self, fs: &MemFs, range: Range<u64>) {
        for index in read_ahead::windows(range) {
            if !self.is_lower(index) || self.page(fs, index).is_err() {
                return;
            }
        }
    }

    /// Returns the pages of a range that are here.
    pub fn resident_pages(&self, range: Range<u64>) -> Vec<(u64, FrameRef)> {
        let end = self.size.get().div_ceil(PAGE).min(range.end).max(range.start);
        let pages = self.pages.borrow();
        pages.range(range.start..end).map(|(at, page)| (*at, page.frame.clone())).collect()
    }

    /// Notes that a page was stored to through a mapping.
    pub fn page_dirtied(&self, fs: &MemFs, index: u64) {
        if let Some(page) = self.pages.borrow_mut().get_mut(&index)
            && !page.dirty
        {
            page.dirty = true;
            fs.charge_page_over_limit();
        }
    }

    /// Changes the length.
    ///
    /// Errors: EFBIG, EPERM for a sealed file.
    pub fn truncate(&self, fs: &MemFs, size: u64) -> Result<(), Errno> {
        let old = self.size.get();
        if size > MAX_LEN {
            return Err(Errno::EFBIG);
        }
        if size < old && self.is_sealed(F_SEAL_SHRINK) || size > old && self.is_sealed(F_SEAL_GROW) {
            return Err(Errno::EPERM);
        }
        if size < old {
            self.drop_pages(fs, size.div_ceil(PAGE), u64::MAX);
            if !size.is_multiple_of(PAGE)
                && let Some(page) = self.pages.borrow().get(&(size / PAGE))
            {
                page.frame.zero_from((size % PAGE) as usize);
            }
            self.lower_len.set(self.lower_len.get().min(size));
        }
        self.size.set(size);
        Ok(())
    }

    fn drop_pages(&self, fs: &MemFs, first: u64, end: u64) {
        let mut pages = self.pages.borrow_mut();
        let gone: Vec<u64> = pages.range(first..end).map(|(index, _)| *index).collect();
        for index in gone {
            if pages.remove(&index).is_some_and(|page| page.dirty) {
                fs.uncharge_pages(1);
            }
        }
    }

    /// Makes `len` bytes from `offset` on zero without changing the length of the file.
    pub fn zero_range(&self, fs: &MemFs, offset: u64, len: u64) -> Result<(), Errno> {
        if self.is_sealed(F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        let end = offset.saturating_add(len).min(self.size.get());
        let mut at = offset;
        while at < end {
            let (index, within) = (at / PAGE, (at % PAGE) as usize);
            if within == 0 && end - at >= PAGE && !self.is_lower(index) {
                // Whole pages over a hole: skip to the end of the run in one step.
                let last = end / PAGE;
                self.drop_pages(fs, index, last);
                at = last * PAGE;
                continue;
            }
            let count = (PAGE_SIZE - within).min(usize::try_from(end - at).unwrap_or(PAGE_SIZE));
            let frame = self.frame_to_write(fs, index, Load::Lower)?;
            frame.write(within, &[0; PAGE_SIZE][..count]);
            at += count as u64;
        }
        Ok(())
    }

    /// Takes room for `offset..end`, and makes the file that long unless its size is to be kept.
    pub fn reserve_within(&self, fs: &MemFs, offset: u64, end: u64, keep_size: bool) -> Result<(), Errno> {
        if keep_size {
            return self.reserve(fs, offset, end.min(self.size.get()).saturating_sub(offset));
        }
        if end > self.size.get() && self.is_sealed(F_SEAL_GROW) {
            return Err(Errno::EPERM);
        }
        self.reserve(fs, offset, end.saturating_sub(offset))?;
        self.size.set(self.size.get().max(end));
        Ok(())
    }

    /// Takes room for all pages of a range now.
    fn reserve(&self, fs: &MemFs, offset: u64, len: u64) -> Result<(), Errno> {
        let end = offset.checked_add(len).filter(|end| *end <= MAX_LEN).ok_or(Errno::EFBIG)?;
        let (first, last) = (offset / PAGE, end.div_ceil(PAGE));
        if last - first > u64::from(fs.frames().total()) {
            return Err(Errno::ENOSPC);
        }
        for index in first..last {
            if !self.is_lower(index) {
                self.frame_to_write(fs, index, Load::Zero)?;
            }
        }
        Ok(())
    }

    /// Finds data or a hole (lseek(2)).
    pub fn seek_hole(&self, offset: u64, wanted: Extent) -> Result<u64, Errno> {
        let size = self.size.get();
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let lower_end = self.lower_len.get();
        let pages = self.pages.borrow();
        match wanted {
            Extent::Data if offset < lower_end => Ok(offset),
            Extent::Data => match pages.range(offset / PAGE..).next() {
                Some((index, _)) if index * PAGE < size => Ok(offset.max(index * PAGE)),
                _ => Err(Errno::ENXIO),
            },
            Extent::Hole => {
                let mut index = offset.max(lower_end.next_multiple_of(PAGE)) / PAGE;
                for (at, _) in pages.range(index..) {
                    if *at != index {
                        break;
                    }
                    index += 1;
                }
                Ok((index * PAGE).clamp(offset, size))
            }
        }
    }

    /// Drops up to `max` pages that only repeat the lower file and that nothing maps; returns how many.
    pub fn drop_clean(&self, fs: &MemFs, max: u32) -> u32 {
        let Ok(mut pages) = self.pages.try_borrow_mut() else { return 0 };
        let clean: Vec<u64> = pages
            .iter()
            .filter(|(_, page)| !page.dirty && fs.frames().owners(page.frame.frame()) == 1)
            .map(|(index, _)| *index)
            .take(max as usize)
            .collect();
        clean.iter().for_each(|index| drop(pages.remove(index)));
        clean.len() as u32
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    /// Start from the lower file's bytes.
    Lower,
    /// Start from zeros.
    Zero,
}
