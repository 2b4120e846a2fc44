//! The traits of file systems: inodes and open files.

use std::any::Any;
use std::io::SeekFrom;
use std::ops::Range;
use std::rc::Rc;

use lg_abi::{Errno, Stat, Timespec};

use super::xattr::XattrStore;
use super::{ProcSource, Vfs};
use crate::mm::{FrameRef, Frames, UserMemory};
use crate::task::{Credentials, HostEvent, Stop, Tid, WaitQueue};

/// What a file-system operation knows of the kernel and of the task that asks for it.
#[derive(Clone, Copy)]
pub struct FsContext<'a> {
    /// Who asks, for permission checks and the ownership of new files.
    pub creds: &'a Credentials,
    /// The asking thread.
    pub tid: Tid,
    /// The time on CLOCK_REALTIME, for time stamps.
    pub now: Timespec,
    /// The time on the guest's CLOCK_MONOTONIC in ns, for timers.
    pub monotonic_ns: u64,
    /// Where the contents of files in memory live.
    pub frames: &'a Rc<Frames>,
    /// The processes, for `/proc`.
    pub procs: &'a dyn ProcSource,
    /// What all file systems of the kernel share.
    pub vfs: &'a Vfs,
}

/// What stat(2) tells of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attr {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number, unique in the file system.
    pub ino: u64,
    /// File type and permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Length on disk in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of the contents.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// When the inode was made, where that is known.
    pub btime: Option<Timespec>,
}

impl Attr {
    /// Returns the attributes as stat(2) writes them.
    pub fn to_stat(self) -> Stat {
        Stat {
            st_dev: self.dev,
            st_ino: self.ino,
            st_nlink: u64::from(self.nlink),
            st_mode: self.mode,
            st_uid: self.uid,
            st_gid: self.gid,
            st_rdev: self.rdev,
            st_size: self.size as i64,
            st_blksize: 4096,
            st_blocks: self.blocks as i64,
            st_atim: self.atime,
            st_mtim: self.mtime,
            st_ctim: self.ctime,
            ..Stat::default()
        }
    }
}

/// Changes to an inode's attributes; `None` leaves one as it is. Permission has been checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttrChange {
    /// New permission bits (with set-id and sticky bits).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes.
    pub size: Option<u64>,
    /// New time of last access.
    pub atime: Option<Timespec>,
    /// New time of last change.
    pub mtime: Option<Timespec>,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Inode number.
    pub ino: u64,
    /// File type as in the mode (`S_IFMT` bits).
    pub file_type: u32,
    /// Name, without NUL or slash.
    pub name: Vec<u8>,
    /// What to pass to [`Inode::read_dir`] to go on after this entry.
    pub next: u64,
}

/// What a new inode is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NewInode {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket name.
    Socket,
    /// A character device of that number.
    CharDevice(u64),
    /// A block device of that number.
    BlockDevice(u64),
}

/// A file-system object. Names, permission checks and mounts are the VFS's: an inode only holds the object.
/// Every name passed in is one component: not empty, no `/`, not `.` or `..`, at most 255 bytes.
#[expect(unused_variables, reason = "the parameters of defaults that refuse")]
pub trait Inode: Any {
    /// Returns the attributes.
    fn attr(&self, cx: &FsContext<'_>) -> Result<Attr, Errno>;

    /// Changes attributes, and the inode's time stamps as Linux does.
    fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Returns the child of that name in a directory.
    fn lookup(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<Rc<dyn Inode>, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Says whether a child, once looked up, stays valid until changed through this kernel, so that the
    /// dentry may be cached.
    fn caches_children(&self) -> bool {
        true
    }

    /// Makes a child. EEXIST where the name is taken.
    fn create(
        &self,
        cx: &FsContext<'_>,
        name: &[u8],
        what: NewInode,
        mode: u32,
    ) -> Result<Rc<dyn Inode>, Errno> {
        Err(Errno::EROFS)
    }

    /// Makes a hard link to `target`, an inode of the same file system.
    fn link(&self, cx: &FsContext<'_>, name: &[u8], target: &Rc<dyn Inode>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Removes a child that is no directory.
    fn unlink(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Removes an empty child directory.
    fn rmdir(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Moves a child to another directory of the same file system (or the same), replacing what is there
    /// as rename(2) does; `flags` are those of renameat2(2).
    fn rename(
        &self,
        cx: &FsContext<'_>,
        name: &[u8],
        new_dir: &Rc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }

    /// Lists a directory from `cursor` on (0 is the start), without `.` and `..`, giving entries to `sink`
    /// until it answers false.
    fn read_dir(
        &self,
        cx: &FsContext<'_>,
        cursor: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Returns the target of a symbolic link.
    fn read_link(&self, cx: &FsContext<'_>) -> Result<LinkTarget, Errno> {
        Err(Errno::EINVAL)
    }

    /// Opens the inode: what read, write, poll and ioctl act on. `flags` are those of open(2), permission
    /// has been checked, O_CREAT, O_EXCL and O_TRUNC have been done. Opening a FIFO may have to wait for the
    /// other side.
    fn open(self: Rc<Self>, cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop>;

    /// Returns the frame that holds page `index` of the contents, which mappings of the file share. A page
    /// wholly behind the end of the file is EFAULT (the task gets SIGBUS).
    fn page(&self, index: u64) -> Result<FrameRef, Errno> {
        Err(Errno::ENODEV)
    }

    /// Returns those of the pages in a range that are in memory already, for fault-around: their numbers, in order, and
    /// their frames.
    fn resident_pages(&self, range: Range<u64>) -> Vec<(u64, FrameRef)> {
        Vec::new()
    }

    /// Brings pages of a range into memory that have to be read from the host, as far as that goes.
    fn read_ahead(&self, range: Range<u64>) {}

    /// Tells the inode that page `index` was stored to through a shared mapping. Call it while the page is
    /// still held: when a mapping goes away, at msync(2), and whenever else the stores should become lasting.
    fn page_dirtied(&self, index: u64) {}

    /// Returns where the extended attributes are kept, `None` on a file system without.
    fn xattrs(&self) -> Option<&dyn XattrStore> {
        None
    }

    /// Returns the space and the number of inodes of the file system.
    fn space(&self, cx: &FsContext<'_>) -> FsSpace {
        FsSpace::default()
    }

    /// Makes a nameless regular file (O_TMPFILE) in this directory's file system. With O_EXCL among the `flags` of
    /// open(2) it never gets a name.
    fn create_tmpfile(&self, cx: &FsContext<'_>, mode: u32, flags: u32) -> Result<Rc<dyn Inode>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// The space of a file system, as statfs(2) tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FsSpace {
    /// Length in blocks of 4 KiB.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// How many inodes there can be.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// Where a symbolic link leads.
pub enum LinkTarget {
    /// To a path, to be resolved as usual.
    Path(Vec<u8>),
    /// Straight to an open file or directory (the magic links of `/proc/PID/fd`); the bytes are what
    /// readlink(2) shows.
    Magic {
        /// What readlink(2) shows.
        shown: Vec<u8>,
        /// Where following it leads.
        to: super::Path,
    },
}

bitflags::bitflags! {
    /// Readiness, with the bits of poll(2) (POLLIN, POLLOUT …), which epoll(7) shares.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Readiness: u32 {
        /// Something to read, or end of file.
        const IN = 0x001;
        /// Urgent data.
        const PRI = 0x002;
        /// Room to write.
        const OUT = 0x004;
        /// An error; for the write end of a pipe: no reader.
        const ERR = 0x008;
        /// The other end is closed.
        const HUP = 0x010;
        /// The descriptor is not open.
        const NVAL = 0x020;
        /// As IN.
        const RDNORM = 0x040;
        /// As OUT.
        const WRNORM = 0x100;
        /// The peer shut down its writing half.
        const RDHUP = 0x2000;
        /// What regular files always are.
        const ALWAYS = 0x145;
        /// All that says there is something to read.
        const READABLE = 0x041;
        /// All that says there is room to write.
        const WRITABLE = 0x104;
    }
}

/// The behaviour of an open file. One is shared by all descriptors that stand for the same open(2).
///
/// Nothing here sleeps: an operation that would have to answers EAGAIN, and the system call then fails with
/// it (O_NONBLOCK) or sleeps on [`File::queues`] and [`File::host_events`] and tries again.
#[expect(unused_variables, reason = "the parameters of defaults that refuse")]
pub trait File: Any {
    /// Reads into `buf` at `offset` (which files without a position ignore). 0 is the end of the file.
    fn read(&self, cx: &FsContext<'_>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes `data` at `offset`.
    fn write(&self, cx: &FsContext<'_>, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Says whether the file has a position (lseek, pread); pipes, sockets and terminals have none.
    fn has_position(&self) -> bool {
        true
    }

    /// Says whether a read takes whole records, as many as there is room for, so that it gets its buffer in one piece.
    fn reads_records(&self) -> bool {
        false
    }

    /// Says whether epoll(7) can watch the file: not where it is always ready.
    fn is_pollable(&self) -> bool {
        !self.has_position()
    }

    /// Returns what could be done now without sleeping.
    fn readiness(&self, cx: &FsContext<'_>) -> Readiness {
        Readiness::ALWAYS
    }

    /// Returns the time on the guest's CLOCK_MONOTONIC at which the readiness changes by itself (timerfd).
    fn ready_at_ns(&self) -> Option<u64> {
        None
    }

    /// Returns the queues that are woken when the readiness changes; none for files that are always ready.
    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        Vec::new()
    }

    /// Returns the host descriptors whose readiness this file's depends on, with the direction that
    /// `interest` asks for.
    fn host_events(&self, interest: Readiness) -> Vec<HostEvent> {
        Vec::new()
    }

    /// Does a device-specific request. ENOTTY where the file knows none.
    fn ioctl(
        &self,
        cx: &FsContext<'_>,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        Err(Errno::ENOTTY)
    }

    /// Moves the position of a file that keeps its own, shared with others outside (lseek(2)); `None` for
    /// files whose position is the description's.
    fn seek(&self, to: SeekFrom) -> Option<Result<u64, Errno>> {
        None
    }

    /// Returns where the next data (or the next hole) is at or after `offset` (SEEK_DATA, SEEK_HOLE of
    /// lseek(2)), `None` for a file that does not know holes.
    fn seek_hole(&self, offset: u64, wanted: Extent) -> Option<Result<u64, Errno>> {
        None
    }

    /// Reserves or frees room (fallocate(2)).
    fn allocate(&self, cx: &FsContext<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Brings what was written to where it is kept (fsync(2)).
    fn sync(&self, cx: &FsContext<'_>) -> Result<(), Errno> {
        Ok(())
    }

    /// Returns what `/proc/PID/fdinfo` shows of the file besides what it shows of all: whole lines.
    fn info(&self, cx: &FsContext<'_>) -> String {
        String::new()
    }

    /// Called when O_NONBLOCK or O_APPEND of the open file changes.
    fn flags_changed(&self, flags: u32) {}

    /// Called when one of the descriptors of this open file is closed by a process (flush).
    fn descriptor_closed(&self, cx: &FsContext<'_>) {}
}

/// What [`File::seek_hole`] looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Bytes that were written.
    Data,
    /// A run of zeros that takes no room, or the end of the file.
    Hole,
}
