//! Open file descriptions (open(2)): what descriptors stand for.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{
    IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_ISDIR, O_ACCMODE, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECT, O_EXCL,
    O_LARGEFILE, O_NOATIME, O_NOCTTY, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY,
};

use super::{Counted, File, FsContext, Inode, LockTable, Notify, Path, Vfs};

/// FASYNC: signal-driven I/O, which is accepted and never signals.
const O_ASYNC: u32 = 0o20000;

/// The flags that fcntl(2) F_SETFL changes.
const SETTABLE: u32 = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC;

/// Who gets signals about an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FileOwner {
    /// Nobody.
    #[default]
    Nobody,
    /// A thread, by its number.
    Thread(u32),
    /// A process.
    Process(u32),
    /// All processes of a group.
    Group(u32),
}

/// An open file: shared by all descriptors that were duplicated or inherited from one open(2).
pub struct FileDescription {
    /// What read, write, poll and ioctl act on.
    pub file: Rc<dyn File>,
    /// Where the file is.
    pub path: Path,
    /// Unique number, which owns flock(2) and OFD locks.
    pub id: u64,
    flags: Cell<u32>,
    offset: Cell<u64>,
    owner: Cell<FileOwner>,
    signal: Cell<u32>,
    locks: Rc<LockTable>,
    locked: Cell<bool>,
    notify: Rc<Notify>,
    _count: Counted,
}

impl FileDescription {
    /// Returns a new description with the flags of open(2).
    ///
    /// Errors: ENFILE when there are too many.
    pub fn new(
        cx: &FsContext<'_>,
        file: Rc<dyn File>,
        path: Path,
        flags: u32,
    ) -> Result<Rc<FileDescription>, Errno> {
        let count = cx.vfs.open_files().take_one().map_err(|_| Errno::ENFILE)?;
        let kept = flags & !(O_CLOEXEC | O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY);
        Ok(Rc::new(FileDescription {
            file,
            path,
            id: cx.vfs.new_lock_owner(),
            flags: Cell::new(kept),
            offset: Cell::new(0),
            owner: Cell::default(),
            signal: Cell::new(0),
            locks: cx.vfs.locks().clone(),
            locked: Cell::new(false),
            notify: cx.vfs.notify().clone(),
            _count: count,
        }))
    }

    /// Returns the description of a nameless file, shown as `name`.
    pub fn nameless(
        cx: &FsContext<'_>,
        inode: Rc<dyn Inode>,
        file: Rc<dyn File>,
        name: &[u8],
        flags: u32,
    ) -> Result<Rc<FileDescription>, Errno> {
        let path = cx.vfs.nameless_path(inode, name);
        FileDescription::new(cx, file, path, flags)
    }

    /// Returns the inode.
    pub fn inode(&self) -> &Rc<dyn Inode> {
        self.path.inode()
    }

    /// Returns access mode and status flags, as F_GETFL does.
    pub fn flags(&self) -> u32 {
        self.flags.get()
    }

    /// Returns the flags as they are told: with O_LARGEFILE, which open(2) sets for every file. Pipes and their like
    /// were never opened.
    pub fn shown_flags(&self, vfs: &Vfs) -> u32 {
        let is_plain = self.is_path_only() || vfs.is_nameless(&self.path);
        self.flags.get() | if is_plain { 0 } else { O_LARGEFILE }
    }

    /// Changes the status flags that F_SETFL may change.
    pub fn set_flags(&self, flags: u32) {
        self.flags.set(self.flags.get() & !SETTABLE | flags & SETTABLE);
        self.file.flags_changed(self.flags.get());
    }

    /// Says whether an operation that can not finish at once fails with EAGAIN.
    pub fn is_nonblocking(&self) -> bool {
        self.flags.get() & O_NONBLOCK != 0
    }

    /// Says whether the description only names a place (O_PATH).
    pub fn is_path_only(&self) -> bool {
        self.flags.get() & O_PATH != 0
    }

    /// Checks that the description was opened for reading.
    ///
    /// Errors: EBADF.
    pub fn check_readable(&self) -> Result<(), Errno> {
        let readable = matches!(self.flags.get() & O_ACCMODE, O_RDONLY | O_RDWR);
        if readable && !self.is_path_only() { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// Checks that the description was opened for writing.
    ///
    /// Errors: EBADF.
    pub fn check_writable(&self) -> Result<(), Errno> {
        let writable = matches!(self.flags.get() & O_ACCMODE, O_WRONLY | O_RDWR);
        if writable && !self.is_path_only() { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// Returns the position.
    pub fn offset(&self) -> u64 {
        self.offset.get()
    }

    /// Sets the position.
    pub fn set_offset(&self, offset: u64) {
        self.offset.set(offset);
    }

    /// Returns who gets SIGIO and SIGURG (F_GETOWN).
    pub fn owner(&self) -> FileOwner {
        self.owner.get()
    }

    /// Sets who gets SIGIO and SIGURG (F_SETOWN); nothing sends them.
    pub fn set_owner(&self, owner: FileOwner) {
        self.owner.set(owner);
    }

    /// Returns the signal that is to be sent in place of SIGIO, 0 for that itself (F_GETSIG).
    pub fn signal(&self) -> u32 {
        self.signal.get()
    }

    /// Sets the signal that is to be sent in place of SIGIO (F_SETSIG).
    pub fn set_signal(&self, signal: u32) {
        self.signal.set(signal);
    }

    /// Tells those who watch the file what was done with it: an `IN_` bit of inotify(7).
    pub fn tell(&self, event: u32) {
        if self.notify.is_active() && !self.is_path_only() {
            let file: &dyn Any = &*self.file;
            let is_dir = if file.is::<DirFile>() { IN_ISDIR } else { 0 };
            self.notify.file(&self.path, event | is_dir);
        }
    }

    /// Notes that the description may hold locks, to be released with it.
    pub(super) fn mark_locked(&self) {
        self.locked.set(true);
    }
}

impl Drop for FileDescription {
    fn drop(&mut self) {
        let writes = self.check_writable().is_ok();
        self.tell(if writes { IN_CLOSE_WRITE } else { IN_CLOSE_NOWRITE });
        if self.locked.get() {
            self.locks.release_description(self.id);
        }
    }
}

impl fmt::Debug for FileDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileDescription({:?}, {:#o})", self.path.dentry, self.flags.get())
    }
}

/// The file of a descriptor opened with O_PATH: it does nothing.
pub struct PathFile;

impl File for PathFile {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }

    fn write(&self, _cx: &FsContext<'_>, _offset: u64, _data: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }
}

/// An open directory: it is listed by way of its inode.
pub struct DirFile;

impl File for DirFile {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn write(&self, _cx: &FsContext<'_>, _offset: u64, _data: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }
}
