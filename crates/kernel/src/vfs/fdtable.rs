//! Descriptor tables.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use lg_abi::Errno;

use super::quota::{Counted, Quota};
use super::{FileDescription, FsContext, LockTable};

/// The most descriptors a table holds, whatever RLIMIT_NOFILE says: `/proc/sys/fs/nr_open`.
pub const NR_OPEN: u64 = 1 << 20;

/// Whether a descriptor survives execve(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExec {
    /// It stays open.
    Keep,
    /// It is closed.
    Close,
}

impl OnExec {
    /// Returns what a set of flags asks for, given the bit that stands for close-on-exec in it.
    pub const fn from_flags(flags: u32, cloexec_bit: u32) -> OnExec {
        if flags & cloexec_bit != 0 { OnExec::Close } else { OnExec::Keep }
    }
}

struct Entry {
    description: Rc<FileDescription>,
    on_exec: OnExec,
    _counted: Counted,
}

/// The descriptors of a process.
///
/// The table is never borrowed while a file system runs: callers take an `Rc` out of it and let go.
pub struct FdTable {
    entries: BTreeMap<u32, Entry>,
    /// No descriptor below this one is free.
    lowest_free: u32,
    /// Owns the POSIX locks of the process.
    owner: u64,
    locks: Rc<LockTable>,
    count: Rc<Quota>,
}

impl FdTable {
    /// Returns an empty table.
    pub fn new(cx: &FsContext<'_>) -> FdTable {
        FdTable {
            entries: BTreeMap::new(),
            lowest_free: 0,
            owner: cx.vfs.new_lock_owner(),
            locks: cx.vfs.locks().clone(),
            count: cx.vfs.descriptors().clone(),
        }
    }

    /// Returns the copy that a forked process gets. It owns none of the locks.
    ///
    /// Errors: ENOMEM where all tables would hold too many descriptors.
    pub fn fork(&self, cx: &FsContext<'_>) -> Result<FdTable, Errno> {
        if self.entries.len() as u64 > self.count.left() {
            return Err(Errno::ENOMEM);
        }
        Ok(self.copy(cx))
    }

    /// Returns a copy even where there are too many descriptors then, for what can not fail any more.
    pub fn copy(&self, cx: &FsContext<'_>) -> FdTable {
        let copy = |(fd, entry): (&u32, &Entry)| {
            let description = entry.description.clone();
            let counted = self.count.take_one_over_limit();
            (*fd, Entry { description, on_exec: entry.on_exec, _counted: counted })
        };
        FdTable {
            entries: self.entries.iter().map(copy).collect(),
            lowest_free: self.lowest_free,
            owner: cx.vfs.new_lock_owner(),
            locks: self.locks.clone(),
            count: self.count.clone(),
        }
    }

    /// Returns the owner of the process's POSIX locks.
    pub fn lock_owner(&self) -> u64 {
        self.owner
    }

    /// Returns what a descriptor stands for.
    ///
    /// Errors: EBADF.
    pub fn get(&self, fd: u64) -> Result<Rc<FileDescription>, Errno> {
        self.entry(fd).map(|entry| entry.description.clone())
    }

    fn entry(&self, fd: u64) -> Result<&Entry, Errno> {
        // A descriptor is an int: the upper half of the register does not count.
        self.entries.get(&(fd as u32)).ok_or(Errno::EBADF)
    }

    /// Says whether a descriptor is closed by execve(2).
    ///
    /// Errors: EBADF.
    pub fn on_exec(&self, fd: u64) -> Result<OnExec, Errno> {
        self.entry(fd).map(|entry| entry.on_exec)
    }

    /// Sets whether a descriptor is closed by execve(2).
    ///
    /// Errors: EBADF.
    pub fn set_on_exec(&mut self, fd: u64, on_exec: OnExec) -> Result<(), Errno> {
        let entry = self.entries.get_mut(&(fd as u32)).ok_or(Errno::EBADF)?;
        entry.on_exec = on_exec;
        Ok(())
    }

    /// Puts a description at the lowest free descriptor that is at least `min` and below `limit`
    /// (RLIMIT_NOFILE).
    ///
    /// Errors: EMFILE; ENFILE where all tables hold too many.
    pub fn insert_from(
        &mut self,
        min: u32,
        description: Rc<FileDescription>,
        on_exec: OnExec,
        limit: u64,
    ) -> Result<u32, Errno> {
        let fd = self.free_from(min);
        if u64::from(fd) >= limit.min(NR_OPEN) {
            return Err(Errno::EMFILE);
        }
        let counted = self.count.take_one().map_err(|_| Errno::ENFILE)?;
        self.entries.insert(fd, Entry { description, on_exec, _counted: counted });
        if fd == self.lowest_free {
            self.lowest_free = self.free_from(fd);
        }
        Ok(fd)
    }

    /// Puts a description at the lowest free descriptor below `limit`.
    ///
    /// Errors: EMFILE.
    pub fn insert(
        &mut self,
        description: Rc<FileDescription>,
        on_exec: OnExec,
        limit: u64,
    ) -> Result<u32, Errno> {
        self.insert_from(0, description, on_exec, limit)
    }

    fn free_from(&self, min: u32) -> u32 {
        let mut free = min.max(self.lowest_free);
        for (&fd, _) in self.entries.range(free..) {
            if fd != free {
                break;
            }
            free = free.saturating_add(1);
        }
        free
    }

    /// Says whether no more descriptors can be had.
    pub fn is_full(&self, limit: u64) -> bool {
        u64::from(self.free_from(0)) >= limit.min(NR_OPEN)
    }

    /// Returns the next two descriptors, for calls that make a pair.
    ///
    /// Errors: EMFILE.
    pub fn next_two(&self, limit: u64) -> Result<[u32; 2], Errno> {
        let first = self.free_from(0);
        let second = self.free_from(first.saturating_add(1));
        if u64::from(second) < limit.min(NR_OPEN) { Ok([first, second]) } else { Err(Errno::EMFILE) }
    }

    /// Puts a description at `fd` and returns what was there, for the caller to close ([`close_removed`]).
    ///
    /// Errors: EBADF where `fd` is not below `limit`; ENFILE where all tables hold too many.
    pub fn replace(
        &mut self,
        fd: u32,
        description: Rc<FileDescription>,
        on_exec: OnExec,
        limit: u64,
    ) -> Result<Option<Rc<FileDescription>>, Errno> {
        if u64::from(fd) >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let counted = self.count.take_one().map_err(|_| Errno::ENFILE)?;
        let old = self.entries.insert(fd, Entry { description, on_exec, _counted: counted });
        if fd == self.lowest_free {
            self.lowest_free = self.free_from(fd);
        }
        Ok(old.map(|entry| entry.description))
    }

    /// Takes a descriptor out of the table, for the caller to close ([`close_removed`]).
    ///
    /// Errors: EBADF.
    pub fn remove(&mut self, fd: u64) -> Result<Rc<FileDescription>, Errno> {
        let entry = self.entries.remove(&(fd as u32)).ok_or(Errno::EBADF)?;
        self.lowest_free = self.lowest_free.min(fd as u32);
        Ok(entry.description)
    }

    /// Takes all descriptors of `first..=last` out of the table, for the caller to close.
    pub fn remove_range(&mut self, first: u32, last: u32) -> Vec<Rc<FileDescription>> {
        let fds: Vec<u32> = self.range(first, last).collect();
        fds.into_iter().filter_map(|fd| self.remove(u64::from(fd)).ok()).collect()
    }

    /// Marks all descriptors of `first..=last` to be closed by execve(2).
    pub fn close_range_on_exec(&mut self, first: u32, last: u32) {
        if first <= last {
            self.entries.range_mut(first..=last).for_each(|(_, entry)| entry.on_exec = OnExec::Close);
        }
    }

    /// Takes out what execve(2) closes, for the caller to close.
    pub fn remove_close_on_exec(&mut self) -> Vec<Rc<FileDescription>> {
        let fds: Vec<u32> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.on_exec == OnExec::Close)
            .map(|(fd, _)| *fd)
            .collect();
        fds.into_iter().filter_map(|fd| self.remove(u64::from(fd)).ok()).collect()
    }

    fn range(&self, first: u32, last: u32) -> impl Iterator<Item = u32> {
        let last = if first <= last { Some(last) } else { None };
        last.into_iter().flat_map(move |last| self.entries.range(first..=last).map(|(fd, _)| *fd))
    }

    /// Returns the open descriptors in ascending order.
    pub fn fds(&self) -> Vec<u32> {
        self.entries.keys().copied().collect()
    }

    /// Returns the first open descriptor at or above `fd`.
    pub fn next_open(&self, fd: u32) -> Option<u32> {
        self.entries.range(fd..).next().map(|(fd, _)| *fd)
    }

    /// Returns how many descriptors are open.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether no descriptor is open.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Finishes the close of a description that was taken out of a table: POSIX locks of the process on that
/// file go, whichever descriptor they were made by (fcntl(2)). The table must not be borrowed.
pub fn close_removed(cx: &FsContext<'_>, owner: u64, description: Rc<FileDescription>) {
    if !description.is_path_only() {
        cx.vfs.locks().release_posix(cx, owner, &description);
    }
    description.file.descriptor_closed(cx);
}

impl Drop for FdTable {
    fn drop(&mut self) {
        self.locks.release_owner(self.owner);
    }
}

impl fmt::Debug for FdTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|(fd, entry)| (fd, &entry.description))).finish()
    }
}
