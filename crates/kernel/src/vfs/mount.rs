//! Mounts and paths.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};

use lg_abi::Errno;

use super::{Dentry, FsContext, Inode, LockTable, Notify, Quota};
use crate::fs::epoll::WatchQuota;
use crate::fs::inotify::InotifyQuota;
use crate::fs::memfs::{MemFs, MemLimits, MemNode};
use crate::fs::pipe::PipeQuota;
use crate::fs::pty::Ptys;
use crate::net::Net;

bitflags::bitflags! {
    /// What a mount forbids (mount(2)), with the bits that statfs(2) shows.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// No writes.
        const READ_ONLY = 1;
        /// Set-id bits do not count.
        const NO_SUID = 2;
        /// Device nodes can not be opened.
        const NO_DEV = 4;
        /// Nothing can be executed.
        const NO_EXEC = 8;
    }
}

/// A file system: what its mounts share.
#[derive(Debug)]
pub struct SuperBlock {
    /// What `/proc/mounts` calls the type.
    pub type_name: &'static str,
    /// `f_type` of statfs(2).
    pub magic: u32,
    /// Device number.
    pub dev: u64,
}

/// A file system, or a part of one, at its place in the tree.
pub struct Mount {
    /// The file system.
    pub sb: Rc<SuperBlock>,
    /// The directory (or file) that is shown at the mount point.
    pub root: Rc<Dentry>,
    /// Where it is mounted; `None` for the root of the tree and for the mount of nameless files.
    pub at: Option<Path>,
    /// What it forbids.
    pub flags: MountFlags,
    /// Unique number.
    pub id: u32,
    /// What `/proc/mounts` shows as the device.
    pub source: Vec<u8>,
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(at) = &self.at {
            at.dentry.remove_mount();
        }
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mount({} {})", self.id, self.sb.type_name)
    }
}

/// A place in the tree that a task sees: a dentry by way of a mount.
#[derive(Clone, Debug)]
pub struct Path {
    /// The mount.
    pub mount: Rc<Mount>,
    /// The dentry, at or below the mount's root.
    pub dentry: Rc<Dentry>,
}

impl Path {
    /// Returns the root of a mount.
    pub fn root_of(mount: &Rc<Mount>) -> Path {
        Path { mount: mount.clone(), dentry: mount.root.clone() }
    }

    /// Returns another dentry of the same mount.
    pub fn with(&self, dentry: Rc<Dentry>) -> Path {
        Path { mount: self.mount.clone(), dentry }
    }

    /// Returns the inode.
    pub fn inode(&self) -> &Rc<dyn Inode> {
        self.dentry.inode()
    }

    /// Says whether both are the same place.
    pub fn same(&self, other: &Path) -> bool {
        Rc::ptr_eq(&self.mount, &other.mount) && Rc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// Refuses with EROFS where the mount is read-only.
    pub fn check_writable(&self) -> Result<(), Errno> {
        if self.mount.flags.contains(MountFlags::READ_ONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }
}

/// The most mounts there can be.
const MAX_MOUNTS: usize = 1000;

/// How many open file descriptions there may be where nothing else is said.
pub const DEFAULT_OPEN_FILES: u32 = 65_536;
/// How many descriptors all tables hold together: each takes some 40 bytes of the vmm, many can be of one file, and a fork
/// doubles them.
const MAX_DESCRIPTORS: u64 = 1 << 18;

/// What all file systems of one kernel share: the mounts, the numbers given out, the file locks.
pub struct Vfs {
    mounts: RefCell<HashMap<(u32, *const Dentry), Rc<Mount>>>,
    root: RefCell<Option<Rc<Mount>>>,
    nameless: Rc<Mount>,
    next_mount: Cell<u32>,
    next_dev: Cell<u32>,
    next_ino: Cell<u64>,
    next_owner: Cell<u64>,
    open_files: Rc<Quota>,
    descriptors: Rc<Quota>,
    file_bytes: Rc<Quota>,
    output: Rc<Quota>,
    locks: Rc<LockTable>,
    terminal: RefCell<Option<Rc<dyn Inode>>>,
    page_caches: RefCell<Vec<Weak<dyn PageCache>>>,
    pipe_quota: Rc<PipeQuota>,
    watch_quota: Rc<WatchQuota>,
    notify: Rc<Notify>,
    inotify_quota: InotifyQuota,
    net: Rc<Net>,
    ptys: Ptys,
    nameless_files: RefCell<Option<Rc<MemNode>>>,
}

/// A file system that keeps pages it could read again.
pub trait PageCache {
    /// Drops up to `max` such pages that nothing maps, and returns how many.
    fn reclaim(&self, max: u32) -> u32;
}

impl Vfs {
    /// Returns a VFS with no mounts.
    pub fn new() -> Vfs {
        let nameless_root: Rc<dyn Inode> = Rc::new(Nowhere);
        let nameless = Rc::new(Mount {
            sb: Rc::new(SuperBlock {
                type_name: "anon_inodefs",
                magic: lg_abi::raw::general::ANON_INODE_FS_MAGIC,
                dev: 1,
            }),
            root: Dentry::new_root(nameless_root, b"/"),
            at: None,
            flags: MountFlags::NO_SUID | MountFlags::NO_DEV,
            id: 1,
            source: b"none".to_vec(),
        });
        Vfs {
            mounts: RefCell::default(),
            root: RefCell::default(),
            nameless,
            next_mount: Cell::new(20),
            next_dev: Cell::new(20),
            next_ino: Cell::new(1),
            next_owner: Cell::new(1),
            open_files: Rc::new(Quota::new(DEFAULT_OPEN_FILES.into())),
            descriptors: Rc::new(Quota::new(MAX_DESCRIPTORS)),
            file_bytes: Rc::default(),
            output: Rc::default(),
            locks: Rc::default(),
            terminal: RefCell::default(),
            page_caches: RefCell::default(),
            pipe_quota: Rc::default(),
            watch_quota: Rc::default(),
            notify: Rc::default(),
            inotify_quota: InotifyQuota::default(),
            net: Net::new(),
            ptys: Ptys::default(),
            nameless_files: RefCell::default(),
        }
    }

    /// Drops up to `max` pages of file caches that could be read again, and returns how many: call it when
    /// frames run out.
    pub fn reclaim(&self, max: u32) -> u32 {
        let caches: Vec<Rc<dyn PageCache>> =
            self.page_caches.borrow().iter().filter_map(Weak::upgrade).collect();
        caches.iter().fold(0, |done, cache| done + cache.reclaim(max.saturating_sub(done)))
    }

    /// Adds a cache to those that [`Vfs::reclaim`] asks.
    pub fn add_page_cache(&self, cache: Weak<dyn PageCache>) {
        let mut caches = self.page_caches.borrow_mut();
        caches.retain(|cache| cache.strong_count() > 0);
        caches.push(cache);
    }

    /// Returns the count of the capacity of all pipes.
    pub fn pipe_quota(&self) -> &Rc<PipeQuota> {
        &self.pipe_quota
    }

    /// Returns the count of what all epoll instances watch.
    pub fn watch_quota(&self) -> &Rc<WatchQuota> {
        &self.watch_quota
    }

    /// Returns who watches inodes.
    pub fn notify(&self) -> &Rc<Notify> {
        &self.notify
    }

    /// Returns the counts of what all inotify instances hold.
    pub fn inotify_quota(&self) -> &InotifyQuota {
        &self.inotify_quota
    }

    /// Returns the pseudo-terminals.
    pub fn ptys(&self) -> &Ptys {
        &self.ptys
    }

    /// Returns what all sockets share.
    pub fn net(&self) -> &Rc<Net> {
        &self.net
    }

    /// Returns the root of the tmpfs, mounted nowhere, that holds memfds and shared anonymous memory.
    pub fn nameless_files(&self, cx: &FsContext<'_>) -> Result<Rc<MemNode>, Errno> {
        if let Some(root) = &*self.nameless_files.borrow() {
            return Ok(root.clone());
        }
        let (_, root) = MemFs::with_quota(cx, Rc::default(), MemLimits::default(), 0o700, None)?;
        *self.nameless_files.borrow_mut() = Some(root.clone());
        Ok(root)
    }

    /// Returns a device number for a new file system.
    pub fn new_dev(&self) -> u64 {
        let minor = self.next_dev.get();
        self.next_dev.set(minor.wrapping_add(1));
        make_dev(0, minor)
    }

    /// Returns an inode number for a nameless file.
    pub fn new_ino(&self) -> u64 {
        let ino = self.next_ino.get();
        self.next_ino.set(ino.wrapping_add(1));
        ino
    }

    /// Returns a number that no other owner of file locks has.
    pub fn new_lock_owner(&self) -> u64 {
        let owner = self.next_owner.get();
        self.next_owner.set(owner.wrapping_add(1));
        owner
    }

    /// Returns the device number of nameless files.
    pub fn nameless_dev(&self) -> u64 {
        self.nameless.sb.dev
    }

    /// Returns the path of a file that has no place in the tree, shown as `name` (`pipe:[7]`).
    pub fn nameless_path(&self, inode: Rc<dyn Inode>, name: &[u8]) -> Path {
        Path { mount: self.nameless.clone(), dentry: Dentry::new_root(inode, name) }
    }

    /// Says whether `path` is that of a nameless file.
    pub fn is_nameless(&self, path: &Path) -> bool {
        Rc::ptr_eq(&path.mount, &self.nameless)
    }

    /// Mounts `root` at `at`, or as the root of the tree where `at` is `None`.
    ///
    /// Errors: ENOSPC when there are too many mounts, EBUSY when the tree already has a root.
    pub fn mount(
        &self,
        sb: Rc<SuperBlock>,
        root: Rc<Dentry>,
        at: Option<Path>,
        flags: MountFlags,
        source: &[u8],
    ) -> Result<Rc<Mount>, Errno> {
        if self.mounts.borrow().len() >= MAX_MOUNTS {
            return Err(Errno::ENOSPC);
        }
        if at.is_none() && self.root.borrow().is_some() {
            return Err(Errno::EBUSY);
        }
        let id = self.next_mount.get();
        self.next_mount.set(id.wrapping_add(1));
        let key = at.as_ref().map(|at| (at.mount.id, Rc::as_ptr(&at.dentry)));
        if let Some(at) = &at {
            at.dentry.add_mount();
        }
        let mount = Rc::new(Mount { sb, root, at, flags, id, source: source.to_vec() });
        match key {
            Some(key) => drop(self.mounts.borrow_mut().insert(key, mount.clone())),
            None => *self.root.borrow_mut() = Some(mount.clone()),
        }
        Ok(mount)
    }

    /// Returns the root of the tree.
    ///
    /// Errors: ENOENT while nothing is mounted.
    pub fn root(&self) -> Result<Path, Errno> {
        self.root.borrow().as_ref().map(Path::root_of).ok_or(Errno::ENOENT)
    }

    /// Returns every mount, parents first.
    pub fn mounts(&self) -> Vec<Rc<Mount>> {
        let mut mounts: Vec<Rc<Mount>> = self.root.borrow().iter().cloned().collect();
        mounts.extend(self.mounts.borrow().values().cloned());
        mounts.sort_by_key(|mount| mount.id);
        mounts
    }

    /// Goes up to the file systems mounted at `path`, if any.
    pub fn cross_mounts(&self, mut path: Path) -> Path {
        while path.dentry.is_mount_point() {
            let mounts = self.mounts.borrow();
            let Some(mount) = mounts.get(&(path.mount.id, Rc::as_ptr(&path.dentry))) else { break };
            path = Path::root_of(mount);
        }
        path
    }

    /// Returns the table of file locks.
    pub fn locks(&self) -> &Rc<LockTable> {
        &self.locks
    }

    /// Returns the count of open file descriptions (`/proc/sys/fs/file-max`).
    pub fn open_files(&self) -> &Rc<Quota> {
        &self.open_files
    }

    /// Returns the count of the descriptors in all tables.
    pub fn descriptors(&self) -> &Rc<Quota> {
        &self.descriptors
    }

    /// Returns the count of the bytes that files with a name hold in memory.
    pub fn file_bytes(&self) -> &Rc<Quota> {
        &self.file_bytes
    }

    /// Returns the count of the bytes written to host streams.
    pub fn output(&self) -> &Rc<Quota> {
        &self.output
    }

    /// Returns the inode of the terminal that `/dev/tty` and `/dev/console` stand for, if there is one.
    pub fn terminal(&self) -> Option<Rc<dyn Inode>> {
        self.terminal.borrow().clone()
    }

    /// Sets the terminal.
    pub fn set_terminal(&self, terminal: Option<Rc<dyn Inode>>) {
        *self.terminal.borrow_mut() = terminal;
    }
}

impl Default for Vfs {
    fn default() -> Vfs {
        Vfs::new()
    }
}

impl fmt::Debug for Vfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vfs({} mounts, {} open files)", self.mounts.borrow().len(), self.open_files.used())
    }
}

/// The root of the mount of nameless files, which nobody ever sees.
struct Nowhere;

impl Inode for Nowhere {
    fn attr(&self, _cx: &FsContext<'_>) -> Result<super::Attr, Errno> {
        Err(Errno::ENOENT)
    }

    fn open(
        self: Rc<Self>,
        _cx: &FsContext<'_>,
        _flags: u32,
    ) -> Result<Rc<dyn super::File>, crate::task::Stop> {
        Err(Errno::ENOENT.into())
    }
}

/// Returns the device number as stat(2) encodes it (makedev(3)).
pub const fn make_dev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & !0xff) << 12
}

/// Returns the major and minor number of a device number (makedev(3)).
pub const fn split_dev(dev: u64) -> (u32, u32) {
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
    let minor = (dev & 0xff) | (dev >> 12 & !0xff);
    (major as u32, minor as u32)
}
