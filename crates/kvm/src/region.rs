//! A host mapping that backs one zone of guest-physical memory.
//!
//! Guest memory is only ever copied through raw pointers: no reference to it exists, so nothing the guest
//! or KVM does to it can break an assumption of the compiler. Every access is checked against the length.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use lg_platform::{PAGE_SHIFT, PAGE_SIZE};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

/// Sealed memory that is discarded is mapped anew, which takes no more time than to overwrite it and gives it back.
/// But a process has a limited number of mappings: once there are many sealed parts, pieces smaller than this are
/// overwritten with zeros.
const MIN_REMAP: usize = 16 * PAGE_SIZE;
const MANY_PARTS: usize = 512;

/// Nobody changes what forks share. The file was never mapped shared and writable, so the seal against future writes is
/// the seal against all; `F_SEAL_WRITE` would in addition wait until the host has let go of every page that was just
/// written, and answers `EBUSY` on a busy machine where that takes too long (fcntl(2), Linux memfd_wait_for_pins).
const SEALS: SealFlags =
    SealFlags::FUTURE_WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// How pages are going to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// They are read.
    Read,
    /// They are written.
    Write,
}

/// A private, lazily committed host mapping that reads as zero until written.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    /// The parts that [`Region::seal`] moved to a file, in byte offsets.
    sealed: RefCell<Vec<Range<usize>>>,
}

impl Region {
    /// Reserves `len` bytes, which must be a multiple of the page size and not zero.
    pub fn reserve(len: usize) -> io::Result<Region> {
        assert!(len > 0 && len.is_multiple_of(PAGE_SIZE), "a region of {len} bytes");
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address of a new mapping, so no existing one is touched.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, flags)? };
        let base = NonNull::new(base.cast()).expect("mmap returns no null pointer without MAP_FIXED");
        let region = Region { base, len, sealed: RefCell::default() };
        // Small pages keep a sandbox small, and a copy-on-write fault of a fork copies 4 KiB. A host
        // kernel without transparent huge pages answers EINVAL, which is as good.
        // SAFETY: the range is the mapping just made; the advice changes no contents.
        let _ = unsafe { rustix::mm::madvise(region.at(0, len), len, Advice::LinuxNoHugepage) };
        Ok(region)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Host address of the first byte, for the memslot.
    pub fn host_address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    fn check(&self, offset: usize, len: usize) {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(fits, "bytes {offset}+{len} of a region of {}", self.len);
    }

    /// Returns a pointer to `len` bytes at `offset` after checking that they lie in the mapping.
    fn at<T>(&self, offset: usize, len: usize) -> *mut T {
        self.check(offset, len);
        // SAFETY: the offset was just checked to lie in the mapping (or at its end for no bytes).
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, buf: &mut [u8]) {
        let from: *const u8 = self.at(offset, buf.len());
        // SAFETY: `at` checked the range; `buf` is host memory, which never overlaps the mapping.
        unsafe { std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let to: *mut u8 = self.at(offset, data.len());
        // SAFETY: `at` checked the range; `data` is host memory, which never overlaps the mapping.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) }
    }

    /// Reads an aligned 64-bit word. KVM and the processor change page-table entries while the guest runs.
    pub fn read_u64(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: `at` checked the range and the mapping is page-aligned, so the word is aligned.
        unsafe { self.at::<u64>(offset, 8).read_volatile() }
    }

    /// Writes an aligned 64-bit word.
    pub fn write_u64(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8));
        // SAFETY: `at` checked the range and the mapping is page-aligned, so the word is aligned.
        unsafe { self.at::<u64>(offset, 8).write_volatile(value) }
    }

    /// An aligned 32-bit word that another processor changes meanwhile.
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: `at` checked the range, and the mapping is page-aligned and lives as long as the region. Everybody
        // else, the guest among them, changes the word by instructions of the processor, which is what an atomic allows.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4)) }
    }

    /// Copies a page to another.
    pub fn copy_page(&self, from: usize, to: usize) {
        let source: *const u8 = self.at(from, PAGE_SIZE);
        let target: *mut u8 = self.at(to, PAGE_SIZE);
        // SAFETY: `at` checked both ranges; `copy` allows them to overlap.
        unsafe { std::ptr::copy(source, target, PAGE_SIZE) }
    }

    /// Fills with zeros.
    pub fn zero(&self, offset: usize, len: usize) {
        // SAFETY: `at` checked the range.
        unsafe { self.at::<u8>(offset, len).write_bytes(0, len) }
    }

    /// Makes whole pages read as zero and gives their memory back to the host.
    pub fn discard(&self, offset: usize, len: usize) {
        assert!(offset.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE));
        if len == 0 {
            return;
        }
        // Below, pages of a sealed part would show the file again.
        self.unseal(offset..offset + len);
        // SAFETY: `at` checked the range; pages of an anonymous private mapping read as zero afterwards,
        // and no reference to them exists.
        let dropped = unsafe { rustix::mm::madvise(self.at(offset, len), len, Advice::LinuxDontNeed) };
        if dropped.is_err() {
            // The promise is zeros; giving memory back is the lesser half.
            self.zero(offset, len);
        }
        for part in self.sealed.borrow().iter() {
            let (start, end) = (part.start.max(offset), part.end.min(offset + len));
            if start < end {
                self.zero(start, end - start);
            }
        }
    }

    /// Maps anonymous memory over the sealed parts of a range, where they are large enough or few.
    fn unseal(&self, range: Range<usize>) {
        let mut sealed = self.sealed.borrow_mut();
        let min_len = if sealed.len() < MANY_PARTS { PAGE_SIZE } else { MIN_REMAP };
        let mut left = Vec::with_capacity(sealed.len());
        for part in sealed.drain(..) {
            let (start, end) = (part.start.max(range.start), part.end.min(range.end));
            if start >= end || end - start < min_len || self.map_anonymous(start, end - start).is_err() {
                left.push(part);
                continue;
            }
            left.extend(without(&part, &range));
        }
        *sealed = left;
    }

    fn map_anonymous(&self, offset: usize, len: usize) -> io::Result<()> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: `at` checked that the range is this region's own, and no reference to its bytes exists.
        unsafe { rustix::mm::mmap_anonymous(self.at(offset, len), len, prot, flags) }?;
        Ok(())
    }

    /// Moves ranges of bytes, on page boundaries, to a sealed memory file that is mapped privately in their
    /// place.
    ///
    /// The contents stay the same. A fork of this process then need not copy the page-table entries of what
    /// nobody has written since, and shares the memory with all other forks.
    pub fn seal(&self, used: &[Range<usize>]) -> io::Result<()> {
        let file = rustix::fs::memfd_create(c"luminaguard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, self.len as u64)?;
        for range in used {
            assert!(range.start.is_multiple_of(PAGE_SIZE) && range.end.is_multiple_of(PAGE_SIZE));
            self.save(range.clone(), file.as_fd())?;
        }
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        for range in used {
            self.map_sealed(range.clone(), &file)?;
            let mut sealed = self.sealed.borrow_mut();
            *sealed = sealed.iter().flat_map(|part| without(part, range)).collect();
            sealed.push(range.clone());
        }
        Ok(())
    }

    /// Moves pages to the start of a sealed memory file that is mapped privately over the start of this region: the
    /// page at `old[n]` becomes page n. All other pages read as zero.
    pub fn seal_in_order(&self, old: &[u32]) -> io::Result<()> {
        let len = old.len() << PAGE_SHIFT;
        self.check(0, len);
        let file = rustix::fs::memfd_create(c"luminaguard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        let mut new = 0;
        for run in old.chunk_by(|left, right| left + 1 == *right) {
            let start = (run[0] as usize) << PAGE_SHIFT;
            self.save_at(start..start + (run.len() << PAGE_SHIFT), file.as_fd(), new)?;
            new += (run.len() << PAGE_SHIFT) as u64;
        }
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        self.map_anonymous(0, self.len)?;
        self.sealed.borrow_mut().clear();
        if len > 0 {
            self.map_sealed(0..len, &file)?;
            self.sealed.borrow_mut().push(0..len);
        }
        Ok(())
    }

    fn map_sealed(&self, range: Range<usize>, file: &impl AsFd) -> io::Result<()> {
        let len = range.end - range.start;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        let start = self.at(range.start, len);
        // SAFETY: the range is this region's own, and the file holds the bytes that are to be there.
        unsafe { rustix::mm::mmap(start, len, prot, flags, file, range.start as u64) }?;
        Ok(())
    }

    /// Writes a range of bytes to the same place of a file.
    fn save(&self, range: Range<usize>, file: BorrowedFd<'_>) -> io::Result<()> {
        let to = range.start as u64;
        self.save_at(range, file, to)
    }

    /// Writes a range of bytes to a file from byte `to` on.
    fn save_at(&self, range: Range<usize>, file: BorrowedFd<'_>, to: u64) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let from: *const libc::c_void = self.at(at, range.end - at);
            let to = libc::off_t::try_from(to + (at - range.start) as u64)
                .map_err(|_| io::ErrorKind::FileTooLarge)?;
            // SAFETY: `at` checked that so many bytes can be read there.
            let wrote = unsafe { libc::pwrite(file.as_raw_fd(), from, range.end - at, to) };
            match wrote {
                1.. => at += wrote as usize,
                0 => return Err(io::ErrorKind::WriteZero.into()),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Returns which of the sealed pages in a range were written since they were sealed, by page number.
    ///
    /// The host says so in `pagemap`, this process's /proc/self/pagemap (proc_pid_pagemap(5)): a page of a private
    /// mapping of a file is the file's until it is written, and then it is this process's own.
    pub fn written_pages(&self, pagemap: &std::fs::File, range: Range<usize>) -> io::Result<Vec<u32>> {
        const FILE_PAGE: u64 = 1 << 61;
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        let mut written = Vec::new();
        for part in self.sealed.borrow().iter() {
            let (start, end) = (part.start.max(range.start), part.end.min(range.end));
            if start >= end {
                continue;
            }
            let mut words = vec![0; (end - start) / PAGE_SIZE * 8];
            let address = self.base.as_ptr() as usize + start;
            pagemap.read_exact_at(&mut words, (address / PAGE_SIZE * 8) as u64)?;
            for (index, word) in words.chunks_exact(8).enumerate() {
                let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
                if word & (PRESENT | SWAPPED) != 0 && word & FILE_PAGE == 0 {
                    written.push((start / PAGE_SIZE + index) as u32);
                }
            }
        }
        written.sort_unstable();
        Ok(written)
    }

    /// Has the host map pages now rather than when they are touched: for `Touch::Write` copies of this process's own,
    /// for `Touch::Read` as they are. It is a matter of speed alone, so a host that cannot is as good.
    pub fn populate(&self, offset: usize, len: usize, touch: Touch) {
        assert!(offset.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE));
        let advice = match touch {
            Touch::Read => Advice::LinuxPopulateRead,
            Touch::Write => Advice::LinuxPopulateWrite,
        };
        // SAFETY: `at` checked the range; the advice changes no contents.
        let _ = unsafe { rustix::mm::madvise(self.at(offset, len), len, advice) };
    }

    /// Makes every MMU notifier of the process, KVM's among them, forget what it knows of these pages.
    ///
    /// Taking write permission away and giving it back changes nothing else: contents and later faults are
    /// the same. See `stale` for what it is needed for.
    pub fn invalidate(&self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE));
        let start = self.at(offset, len);
        // SAFETY: `at` checked the range. Nothing in this process touches the pages between the two
        // calls, and if the second fails the caller ends the platform.
        unsafe {
            rustix::mm::mprotect(start, len, MprotectFlags::READ)?;
            rustix::mm::mprotect(start, len, MprotectFlags::READ | MprotectFlags::WRITE)?;
        }
        Ok(())
    }

    /// Reads from a file at `file_offset` into `len` bytes at `offset`, until they are full or the file ends.
    pub fn load(
        &self,
        offset: usize,
        len: usize,
        file: BorrowedFd<'_>,
        file_offset: u64,
    ) -> io::Result<usize> {
        let start: *mut libc::c_void = self.at(offset, len);
        let mut done = 0;
        while done < len {
            let position = file_offset
                .checked_add(done as u64)
                .and_then(|position| libc::off_t::try_from(position).ok())
                .ok_or(io::ErrorKind::InvalidInput)?;
            // SAFETY: `at` checked `len` bytes at `start`, and `done` is less than `len`.
            let read = unsafe { libc::pread(file.as_raw_fd(), start.add(done), len - done, position) };
            match read {
                0 => break,
                1.. => done += read as usize,
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(done)
    }
}

/// Returns what is left of `part` without `hole`.
fn without(part: &Range<usize>, hole: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let before = part.start..part.end.min(hole.start);
    let after = part.start.max(hole.end)..part.end;
    [before, after].into_iter().filter(|rest| !rest.is_empty())
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's own, and with it go the only pointers to it. A memslot over
        // it is removed with the VM, which its owner drops first; KVM copes with either order.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(region: &Region, page: usize) -> u64 {
        region.read_u64(page * PAGE_SIZE)
    }

    #[test]
    fn what_forks_share_cannot_be_changed_through_its_file() {
        let file =
            rustix::fs::memfd_create(c"sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(rustix::io::pwrite(&file, &[1; PAGE_SIZE], 0).unwrap(), PAGE_SIZE);
        rustix::fs::fcntl_add_seals(&file, SEALS).unwrap();
        assert_eq!(rustix::io::pwrite(&file, &[2], 0), Err(rustix::io::Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&file, 0), Err(rustix::io::Errno::PERM));
        let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        assert_eq!(rustix::fs::fallocate(&file, hole, 0, PAGE_SIZE as u64), Err(rustix::io::Errno::PERM));
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at a place that the host chooses; none is made.
        let shared =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), PAGE_SIZE, prot, MapFlags::SHARED, &file, 0) };
        assert_eq!(shared.err(), Some(rustix::io::Errno::PERM));
    }

    #[test]
    fn pages_are_sealed_in_the_order_given() {
        let region = Region::reserve(64 * PAGE_SIZE).unwrap();
        (0..64).for_each(|page| region.write_u64(page * PAGE_SIZE, page as u64 + 1));
        region.seal_in_order(&[5, 6, 3, 60]).unwrap();
        let words = |pages: Range<usize>| pages.map(|page| word(&region, page)).collect::<Vec<_>>();
        assert_eq!(words(0..6), [6, 7, 4, 61, 0, 0]);
        region.write_u64(PAGE_SIZE, 9);
        region.write_u64(5 * PAGE_SIZE, 8);
        region.seal_in_order(&[5, 1, 0]).unwrap();
        assert_eq!(words(0..6), [8, 9, 6, 0, 0, 0]);
        region.seal_in_order(&[]).unwrap();
        assert_eq!(words(0..2), [0, 0]);
    }

    #[test]
    fn written_pages_of_a_sealed_region_are_known() {
        let region = Region::reserve(64 * PAGE_SIZE).unwrap();
        (0..32).for_each(|page| region.write_u64(page * PAGE_SIZE, 1));
        region.seal(std::slice::from_ref(&(0..32 * PAGE_SIZE))).unwrap();
        let all = 0..64 * PAGE_SIZE;
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        assert_eq!(region.written_pages(&pagemap, all.clone()).unwrap(), []);
        (0..32).for_each(|page| assert_eq!(word(&region, page), 1));
        region.write_u64(5 * PAGE_SIZE, 2);
        region.populate(9 * PAGE_SIZE, 2 * PAGE_SIZE, Touch::Write);
        region.populate(20 * PAGE_SIZE, 4 * PAGE_SIZE, Touch::Read);
        assert_eq!(region.written_pages(&pagemap, all).unwrap(), [5, 9, 10]);
        assert_eq!((word(&region, 5), word(&region, 9)), (2, 1));
    }

    #[test]
    fn a_sealed_region_keeps_its_contents_and_discards_read_as_zero() {
        let region = Region::reserve(128 * PAGE_SIZE).unwrap();
        (0..128).for_each(|page| region.write_u64(page * PAGE_SIZE, page as u64 + 1));
        for _ in 0..2 {
            // The second time over what is sealed already.
            region.seal(&[0..40 * PAGE_SIZE, 50 * PAGE_SIZE..100 * PAGE_SIZE]).unwrap();
            (0..128).for_each(|page| assert_eq!(word(&region, page), page as u64 + 1));
        }
        region.write_u64(60 * PAGE_SIZE, 7);
        assert_eq!(word(&region, 60), 7);
        region.write_u64(60 * PAGE_SIZE, 61);
        // A few sealed pages, many of two parts and some between them, and pages that never were.
        for pages in [2..4, 20..70, 99..103] {
            region.discard(pages.start * PAGE_SIZE, pages.len() * PAGE_SIZE);
            pages.clone().for_each(|page| assert_eq!(word(&region, page), 0));
            pages.for_each(|page| region.write_u64(page * PAGE_SIZE, page as u64 + 1));
            (0..128).for_each(|page| assert_eq!(word(&region, page), page as u64 + 1));
        }
    }

    #[test]
    fn discards_of_many_small_sealed_parts_read_as_zero_too() {
        let region = Region::reserve(2000 * PAGE_SIZE).unwrap();
        (0..2000).for_each(|page| region.write_u64(page * PAGE_SIZE, page as u64 + 1));
        let odd: Vec<_> = (0..1000).map(|at| (2 * at + 1) * PAGE_SIZE..(2 * at + 2) * PAGE_SIZE).collect();
        region.seal(&odd).unwrap();
        region.discard(3 * PAGE_SIZE, PAGE_SIZE);
        region.discard(10 * PAGE_SIZE, 50 * PAGE_SIZE);
        for page in 0..2000 {
            let discarded = page == 3 || (10..60).contains(&page);
            assert_eq!(word(&region, page), if discarded { 0 } else { page as u64 + 1 }, "page {page}");
        }
    }
}
