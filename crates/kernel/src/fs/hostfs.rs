//! Host directories and files passed through (`--mount`).
//!
//! Names and attributes are not cached: what the host changes is seen at once, and what the sandbox writes is on the
//! host at once. Each inode in use holds an O_PATH descriptor; every access names one component beneath the
//! descriptor of a directory and follows no link, so nothing leads out of the mount. Symbolic links are read
//! and given to the guest's own path walk.
//!
//! Mappings show frames that are loaded from the host file. Stores to shared mappings reach the host when the
//! memory manager reports them ([`Inode::page_dirtied`]); reads and writes of the sandbox see mapped frames. Frames of
//! a file that has not changed since are mapped again without being read again ([`pages`]).

mod pages;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path as HostPath;
use std::rc::{Rc, Weak};

use lg_abi::raw::general::{
    O_ACCMODE, O_APPEND, O_CREAT, O_DSYNC, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_SYNC, O_WRONLY,
    RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
};
use lg_abi::{Errno, Timespec};
use lg_platform::PAGE_SIZE;
use rustix::fs::{AtFlags, FallocateFlags, Gid, Mode, OFlags, RenameFlags, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno as HostErrno;

use self::pages::{HostPages, KeptPages};
use super::host::{LowerStat, OWN_IDS, open_beneath, read_host_dir, to_errno};
use super::read_ahead;
use crate::mm::{FrameRef, Frames};
use crate::task::Stop;
use crate::vfs::{
    Attr, AttrChange, DirEntry, DirFile, Extent, File, FsContext, FsSpace, Inode, LinkTarget, NewInode,
    PageCache, SuperBlock,
};

const PAGE: u64 = PAGE_SIZE as u64;
/// How many host descriptors one mount holds at most.
const MAX_FDS: u32 = 4096;

/// Whether what is passed through can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostAccess {
    /// It can not.
    ReadOnly,
    /// It can, as far as the host lets the user who runs the sandbox.
    ReadWrite,
}

/// What is passed through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostShape {
    /// A directory with all that is below.
    Dir,
    /// A single regular file.
    File,
}

/// What the inodes of one mount share.
pub struct HostFs {
    dev: u64,
    frames: Rc<Frames>,
    access: HostAccess,
    fds: Cell<u32>,
    inodes: RefCell<HashMap<(u64, u64), Weak<HostNode>>>,
    kept: KeptPages,
    /// Host devices seen, so that inode numbers of different ones stay apart.
    host_devs: RefCell<Vec<u64>>,
}

/// A file of the host that is in use.
pub struct HostNode {
    fs: Rc<HostFs>,
    /// Opened with O_PATH.
    fd: OwnedFd,
    key: (u64, u64),
    file_type: u32,
    /// The directory and the name by which it was last found; `None` for the root.
    place: RefCell<Option<(Rc<HostNode>, Vec<u8>)>>,
    pages: HostPages,
    /// For writing mapped pages back; opened with the first open for writing.
    writer: RefCell<Option<Rc<OwnedFd>>>,
    reader: RefCell<Option<Rc<OwnedFd>>>,
}

impl HostFs {
    /// Opens a host file or directory and returns its file system, root and shape.
    ///
    /// Errors: those of open(2); EINVAL for what is neither a directory nor a regular file.
    pub fn open(
        cx: &FsContext<'_>,
        path: &HostPath,
        access: HostAccess,
    ) -> Result<(Rc<HostFs>, Rc<HostNode>, HostShape), Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(to_errno)?;
        let stat = rustix::fs::fstat(&fd).map_err(to_errno)?;
        let shape = match stat.st_mode & S_IFMT {
            S_IFDIR => HostShape::Dir,
            S_IFREG => HostShape::File,
            _ => return Err(Errno::EINVAL),
        };
        let fs = Rc::new(HostFs {
            dev: cx.vfs.new_dev(),
            frames: cx.frames.clone(),
            access,
            fds: Cell::new(0),
            inodes: RefCell::default(),
            kept: KeptPages::default(),
            host_devs: RefCell::default(),
        });
        cx.vfs.add_page_cache(Rc::downgrade(&fs) as Weak<dyn PageCache>);
        let root = fs.node(fd, (stat.st_dev, stat.st_ino), stat.st_mode & S_IFMT, None)?;
        if shape == HostShape::File {
            // A file alone has no directory to be opened from again: open it now.
            let flags = if access == HostAccess::ReadWrite { OFlags::RDWR } else { OFlags::RDONLY };
            let file = rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
                .map_err(to_errno)?;
            let again = rustix::fs::fstat(&file).map_err(to_errno)?;
            if (again.st_dev, again.st_ino) != root.key {
                return Err(Errno::ESTALE);
            }
            let file = Rc::new(file);
            if access == HostAccess::ReadWrite {
                *root.writer.borrow_mut() = Some(file.clone());
            }
            *root.reader.borrow_mut() = Some(file);
        }
        Ok((fs, root, shape))
    }

    /// Returns the super block.
    pub fn super_block(&self) -> Rc<SuperBlock> {
        let magic = lg_abi::raw::general::V9FS_MAGIC;
        Rc::new(SuperBlock { type_name: "hostfs", magic, dev: self.dev })
    }

    fn node(
        self: &Rc<HostFs>,
        fd: OwnedFd,
        key: (u64, u64),
        file_type: u32,
        place: Option<(Rc<HostNode>, Vec<u8>)>,
    ) -> Result<Rc<HostNode>, Errno> {
        let known = self.inodes.borrow().get(&key).and_then(Weak::upgrade);
        if let Some(known) = known {
            known.set_place(place);
            return Ok(known);
        }
        if self.fds.get() >= MAX_FDS {
            return Err(Errno::ENFILE);
        }
        self.fds.set(self.fds.get() + 1);
        let node = Rc::new(HostNode {
            fs: self.clone(),
            fd,
            key,
            file_type,
            place: RefCell::new(place),
            pages: self.kept.take(key),
            writer: RefCell::default(),
            reader: RefCell::default(),
        });
        self.inodes.borrow_mut().insert(key, Rc::downgrade(&node));
        Ok(node)
    }

    fn ino(&self, (dev, ino): (u64, u64)) -> u64 {
        let mut devs = self.host_devs.borrow_mut();
        let index = devs.iter().position(|known| *known == dev).unwrap_or_else(|| {
            devs.push(dev);
            devs.len() - 1
        });
        ino ^ (index as u64) << 56
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.access == HostAccess::ReadOnly { Err(Errno::EROFS) } else { Ok(()) }
    }
}

impl PageCache for HostFs {
    fn reclaim(&self, max: u32) -> u32 {
        let dropped = self.kept.reclaim(max);
        let nodes: Vec<_> = self.inodes.borrow().values().filter_map(Weak::upgrade).collect();
        nodes.iter().fold(dropped, |dropped, node| dropped + node.pages.drop_unmapped(max - dropped))
    }
}

impl Drop for HostNode {
    fn drop(&mut self) {
        self.fs.fds.set(self.fs.fds.get().saturating_sub(1));
        let mut inodes = self.fs.inodes.borrow_mut();
        if inodes.get(&self.key).is_some_and(|node| node.strong_count() == 0) {
            inodes.remove(&self.key);
            self.fs.kept.keep(self.key, std::mem::take(&mut self.pages));
        }
        drop(inodes);
        // Drops the ancestors that only this node held one by one, as a guest chooses how deep it goes.
        let mut next = self.place.get_mut().take();
        while let Some((parent, _)) = next {
            next = Rc::into_inner(parent).and_then(|mut parent| parent.place.get_mut().take());
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, HostErrno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(HostErrno::INTR) => {}
            result => return result.map_err(to_errno),
        }
    }
}

impl HostNode {
    /// Notes where the file was found. What is dropped with the old place is dropped with nothing borrowed.
    fn set_place(&self, place: Option<(Rc<HostNode>, Vec<u8>)>) {
        let old = self.place.replace(place);
        drop(old);
    }

    fn stat(&self) -> Result<LowerStat, Errno> {
        rustix::fs::fstat(&self.fd).map(|stat| LowerStat::from_host(&stat)).map_err(to_errno)
    }

    /// Opens the file for reading or writing.
    ///
    /// Errors: ESTALE where another file has its name now.
    fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let place = self.place.borrow().clone();
        let fd = match &place {
            Some((parent, name)) => open_beneath(&parent.fd, name, flags, Mode::empty())?,
            None if self.file_type == S_IFDIR => open_beneath(&self.fd, b".", flags, Mode::empty())?,
            None => {
                let wants_write = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
                let held = if wants_write { self.writer.borrow() } else { self.reader.borrow() };
                let held = held.as_ref().ok_or(if wants_write { Errno::EROFS } else { Errno::EIO })?;
                return rustix::io::fcntl_dupfd_cloexec(&**held, 3).map_err(to_errno);
            }
        };
        let stat = rustix::fs::fstat(&fd).map_err(to_errno)?;
        if (stat.st_dev, stat.st_ino) == self.key { Ok(fd) } else { Err(Errno::ESTALE) }
    }

    fn reader(&self) -> Result<Rc<OwnedFd>, Errno> {
        if let Some(reader) = &*self.reader.borrow() {
            return Ok(reader.clone());
        }
        let reader = Rc::new(self.reopen(OFlags::RDONLY)?);
        *self.reader.borrow_mut() = Some(reader.clone());
        Ok(reader)
    }

    fn writer(&self) -> Result<Rc<OwnedFd>, Errno> {
        self.fs.check_writable()?;
        if let Some(writer) = &*self.writer.borrow() {
            return Ok(writer.clone());
        }
        let writer = Rc::new(self.reopen(OFlags::WRONLY)?);
        *self.writer.borrow_mut() = Some(writer.clone());
        Ok(writer)
    }

    /// Opens the child of that name with O_PATH.
    fn find(self: &Rc<HostNode>, name: &[u8]) -> Result<Rc<HostNode>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A link is opened itself, so it is not among what is refused to be resolved.
        let fd = open_beneath(&self.fd, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd).map_err(to_errno)?;
        let place = Some((self.clone(), name.to_vec()));
        self.fs.node(fd, (stat.st_dev, stat.st_ino), stat.st_mode & S_IFMT, place)
    }

    fn this(&self) -> Result<Rc<HostNode>, Errno> {
        self.fs.inodes.borrow().get(&self.key).and_then(Weak::upgrade).ok_or(Errno::ESTALE)
    }

    /// Reads, with the frames of mapped pages in place of the host's bytes.
    fn read_at(&self, fd: &OwnedFd, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let read = retry(|| rustix::io::pread(fd, &mut *buf, offset))?;
        self.pages.for_mapped(offset, read, |frame, within, range| {
            if let Some(part) = buf.get_mut(range) {
                frame.read(within, part);
            }
        });
        Ok(read)
    }

    /// Writes to the host, and to the frames of mapped pages.
    fn write_at(&self, fd: &OwnedFd, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let written = retry(|| rustix::io::pwrite(fd, data, offset))?;
        self.pages.for_mapped(offset, written, |frame, within, range| {
            if let Some(part) = data.get(range) {
                frame.write(within, part);
            }
        });
        Ok(written)
    }

    fn set_times(&self, change: &AttrChange) -> Result<(), Errno> {
        let omitted = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let time = |time: Option<Timespec>| {
            time.map_or(omitted, |time| rustix::fs::Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec })
        };
        let times = Timestamps { last_access: time(change.atime), last_modification: time(change.mtime) };
        let place = self.place.borrow().clone();
        let result = match &place {
            Some((parent, name)) => {
                rustix::fs::utimensat(&parent.fd, name.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW)
            }
            None => rustix::fs::utimensat(&self.fd, "", &times, AtFlags::EMPTY_PATH),
        };
        result.map_err(to_errno)
    }

    /// Sets the permission bits. The set-id bits stay off: on the host they would give away the rights of the
    /// user who runs the sandbox.
    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode & 0o1777);
        rustix::fs::fchmod(&*self.any_fd()?, mode).map_err(to_errno)
    }

    /// Returns a descriptor for calls that need one opened with more than O_PATH: it works for a file without
    /// a name if the file is open.
    fn any_fd(&self) -> Result<Rc<OwnedFd>, Errno> {
        let held = self.writer.borrow().clone().or_else(|| self.reader.borrow().clone());
        if let Some(held) = held {
            return Ok(held);
        }
        let fd = match self.reopen(OFlags::RDONLY) {
            Err(Errno::EACCES) => self.reopen(OFlags::WRONLY)?,
            result => result?,
        };
        Ok(Rc::new(fd))
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let stat = self.stat()?;
        let uid = uid.filter(|uid| *uid != stat.uid);
        let gid = gid.filter(|gid| *gid != stat.gid);
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        let fd = self.any_fd()?;
        let own = |id, own: u32| if id == 0 { own } else { id };
        let uid = uid.map(|uid| Uid::from_raw(own(uid, OWN_IDS.0)));
        let gid = gid.map(|gid| Gid::from_raw(own(gid, OWN_IDS.1)));
        rustix::fs::fchown(&*fd, uid, gid).map_err(to_errno)
    }
}

fn as_host(inode: &Rc<dyn Inode>) -> Result<Rc<HostNode>, Errno> {
    let any: Rc<dyn Any> = inode.clone();
    any.downcast::<HostNode>().map_err(|_| Errno::EXDEV)
}

impl Inode for HostNode {
    fn attr(&self, _cx: &FsContext<'_>) -> Result<Attr, Errno> {
        let stat = self.stat()?;
        Ok(Attr {
            dev: self.fs.dev,
            ino: self.fs.ino(self.key),
            mode: stat.mode,
            nlink: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            rdev: stat.rdev,
            size: stat.size,
            blocks: stat.size.div_ceil(512),
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            btime: None,
        })
    }

    fn set_attr(&self, _cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        self.fs.check_writable()?;
        if let Some(size) = change.size {
            rustix::fs::ftruncate(&*self.writer()?, size).map_err(to_errno)?;
            self.pages.truncate(size);
        }
        if change.uid.is_some() || change.gid.is_some() {
            self.set_owner(change.uid, change.gid)?;
        }
        if let Some(mode) = change.mode {
            self.set_mode(mode)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            self.set_times(change)?;
        }
        Ok(())
    }

    fn lookup(&self, _cx: &FsContext<'_>, name: &[u8]) -> Result<Rc<dyn Inode>, Errno> {
        Ok(self.this()?.find(name)?)
    }

    fn caches_children(&self) -> bool {
        false
    }

    fn create(
        &self,
        _cx: &FsContext<'_>,
        name: &[u8],
        what: NewInode,
        mode: u32,
    ) -> Result<Rc<dyn Inode>, Errno> {
        self.fs.check_writable()?;
        let this = self.this()?;
        let host_mode = Mode::from_raw_mode(mode & 0o1777);
        match what {
            NewInode::File => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = open_beneath(&self.fd, name, flags, host_mode)?;
                // The umask of the host process does not count, only the sandbox's.
                rustix::fs::fchmod(&fd, host_mode).map_err(to_errno)?;
            }
            NewInode::Dir => {
                rustix::fs::mkdirat(&self.fd, name, host_mode).map_err(to_errno)?;
                let _ = this.find(name)?.set_mode(mode);
            }
            NewInode::Symlink(target) => {
                rustix::fs::symlinkat(target.as_slice(), &self.fd, name).map_err(to_errno)?;
            }
            NewInode::Fifo | NewInode::Socket | NewInode::CharDevice(_) | NewInode::BlockDevice(_) => {
                return Err(Errno::EPERM);
            }
        }
        Ok(this.find(name)?)
    }

    /// The file can not be given a name later.
    fn create_tmpfile(&self, _cx: &FsContext<'_>, mode: u32, _flags: u32) -> Result<Rc<dyn Inode>, Errno> {
        self.fs.check_writable()?;
        let mode = Mode::from_raw_mode(mode & 0o777);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = open_beneath(&self.fd, b".", flags, mode)?;
        rustix::fs::fchmod(&fd, mode).map_err(to_errno)?;
        let stat = rustix::fs::fstat(&fd).map_err(to_errno)?;
        let open = Rc::new(rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(to_errno)?);
        let node = self.fs.node(fd, (stat.st_dev, stat.st_ino), S_IFREG, None)?;
        *node.reader.borrow_mut() = Some(open.clone());
        *node.writer.borrow_mut() = Some(open);
        Ok(node)
    }

    fn link(&self, _cx: &FsContext<'_>, name: &[u8], target: &Rc<dyn Inode>) -> Result<(), Errno> {
        self.fs.check_writable()?;
        let target = as_host(target)?;
        let (parent, old) = target.place.borrow().clone().ok_or(Errno::EXDEV)?;
        rustix::fs::linkat(&parent.fd, old.as_slice(), &self.fd, name, AtFlags::empty()).map_err(to_errno)
    }

    fn unlink(&self, _cx: &FsContext<'_>, name: &[u8]) -> Result<(), Errno> {
        self.fs.check_writable()?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(to_errno)
    }

    fn rmdir(&self, _cx: &FsContext<'_>, name: &[u8]) -> Result<(), Errno> {
        self.fs.check_writable()?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(to_errno)
    }

    fn rename(
        &self,
        _cx: &FsContext<'_>,
        name: &[u8],
        new_dir: &Rc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        self.fs.check_writable()?;
        let new_dir = as_host(new_dir)?;
        if !Rc::ptr_eq(&self.fs, &new_dir.fs) {
            return Err(Errno::EXDEV);
        }
        if flags & RENAME_WHITEOUT != 0 {
            return Err(Errno::EINVAL);
        }
        let mut host_flags = RenameFlags::empty();
        if flags & RENAME_NOREPLACE != 0 {
            host_flags |= RenameFlags::NOREPLACE;
        }
        if flags & RENAME_EXCHANGE != 0 {
            host_flags |= RenameFlags::EXCHANGE;
        }
        let moved = self.this()?.find(name)?;
        let replaced = new_dir.find(new_name).ok();
        rustix::fs::renameat_with(&self.fd, name, &new_dir.fd, new_name, host_flags).map_err(to_errno)?;
        moved.set_place(Some((new_dir.clone(), new_name.to_vec())));
        if let Some(replaced) = replaced
            && flags & RENAME_EXCHANGE != 0
        {
            replaced.set_place(Some((self.this()?, name.to_vec())));
        }
        Ok(())
    }

    fn read_dir(
        &self,
        _cx: &FsContext<'_>,
        cursor: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let fd = self.reopen(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let dev = self.key.0;
        // The order of the host stays while nothing changes; names are counted, so that a change between two
        // calls can at worst show a name twice or not at all, as readdir(3) allows.
        let skip = usize::try_from(cursor).unwrap_or(usize::MAX);
        for (position, entry) in read_host_dir(&fd)?.into_iter().enumerate().skip(skip) {
            let entry = DirEntry {
                ino: self.fs.ino((dev, entry.ino)),
                file_type: entry.file_type,
                name: entry.name,
                next: position as u64 + 1,
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, _cx: &FsContext<'_>) -> Result<LinkTarget, Errno> {
        if self.file_type != S_IFLNK {
            return Err(Errno::EINVAL);
        }
        let target = rustix::fs::readlinkat(&self.fd, "", Vec::new()).map_err(to_errno)?;
        Ok(LinkTarget::Path(target.into_bytes()))
    }

    fn open(self: Rc<Self>, _cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop> {
        match self.file_type {
            S_IFREG => {}
            S_IFDIR => return Ok(Rc::new(DirFile)),
            S_IFLNK => return Err(Errno::ELOOP.into()),
            _ => return Err(Errno::ENXIO.into()),
        }
        let access = match flags & O_ACCMODE {
            O_RDONLY => OFlags::RDONLY,
            O_WRONLY => OFlags::WRONLY,
            O_RDWR => OFlags::RDWR,
            _ => return Err(Errno::EINVAL.into()),
        };
        if access != OFlags::RDONLY {
            self.fs.check_writable()?;
        }
        if self.fs.fds.get() >= MAX_FDS {
            return Err(Errno::ENFILE.into());
        }
        let kept = flags & (O_APPEND | O_SYNC | O_DSYNC) & !(O_CREAT | O_EXCL | O_NONBLOCK);
        let fd = Rc::new(self.reopen(access | OFlags::from_bits_retain(kept))?);
        // While it is open, what needs a descriptor works even if the name goes.
        if access == OFlags::RDONLY {
            self.reader.borrow_mut().get_or_insert_with(|| fd.clone());
        } else if flags & O_APPEND == 0 {
            self.writer.borrow_mut().get_or_insert_with(|| fd.clone());
        } else {
            self.writer()?;
        }
        self.fs.fds.set(self.fs.fds.get() + 1);
        Ok(Rc::new(HostFile { node: self, fd }))
    }

    fn page(&self, index: u64) -> Result<FrameRef, Errno> {
        if self.file_type != S_IFREG {
            return Err(Errno::ENODEV);
        }
        let (stat, reader) = (self.stat()?, self.reader()?);
        self.pages.page(&self.fs.frames, reader.as_fd(), &stat, index)
    }

    fn resident_pages(&self, range: Range<u64>) -> Vec<(u64, FrameRef)> {
        self.stat().map_or_else(|_| Vec::new(), |stat| self.pages.resident(stat.size, range))
    }

    fn read_ahead(&self, range: Range<u64>) {
        for index in read_ahead::windows(range) {
            if self.page(index).is_err() {
                return;
            }
        }
    }

    fn page_dirtied(&self, index: u64) {
        let Some(frame) = self.pages.get(index) else { return };
        let Some(start) = index.checked_mul(PAGE) else { return };
        let (Ok(writer), Ok(stat)) = (self.writer(), self.stat()) else { return };
        let len = usize::try_from(stat.size.saturating_sub(start)).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let mut page = [0; PAGE_SIZE];
        let Some(bytes) = page.get_mut(..len) else { return };
        frame.read(0, bytes);
        // The host may refuse, as a disk does that is full: the store is lost then, as Linux loses it.
        let _ = retry(|| rustix::io::pwrite(&*writer, &*bytes, start));
    }

    fn space(&self, _cx: &FsContext<'_>) -> FsSpace {
        let Ok(space) = rustix::fs::fstatfs(&self.fd) else { return FsSpace::default() };
        let scale = u64::try_from(space.f_bsize).unwrap_or(PAGE);
        let blocks = |count: u64| count.saturating_mul(scale) / PAGE;
        FsSpace {
            blocks: blocks(space.f_blocks),
            blocks_free: blocks(space.f_bavail),
            files: space.f_files,
            files_free: space.f_ffree,
        }
    }
}

/// An open host file.
struct HostFile {
    node: Rc<HostNode>,
    fd: Rc<OwnedFd>,
}

impl File for HostFile {
    fn read(&self, _cx: &FsContext<'_>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        self.node.read_at(&self.fd, offset, buf)
    }

    fn write(&self, _cx: &FsContext<'_>, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        self.node.write_at(&self.fd, offset, data)
    }

    fn seek_hole(&self, offset: u64, wanted: Extent) -> Option<Result<u64, Errno>> {
        let to = match wanted {
            Extent::Data => rustix::fs::SeekFrom::Data(offset),
            Extent::Hole => rustix::fs::SeekFrom::Hole(offset),
        };
        Some(rustix::fs::seek(&*self.fd, to).map_err(to_errno))
    }

    fn allocate(&self, _cx: &FsContext<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        rustix::fs::fallocate(&*self.fd, mode, offset, len).map_err(to_errno)
    }

    fn sync(&self, _cx: &FsContext<'_>) -> Result<(), Errno> {
        retry(|| rustix::fs::fsync(&*self.fd))
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        self.node.fs.fds.set(self.node.fs.fds.get().saturating_sub(1));
    }
}
