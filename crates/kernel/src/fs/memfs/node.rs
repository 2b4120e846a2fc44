//! The inodes of the file system in memory.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use lg_abi::raw::general::{
    CAP_FSETID, F_SEAL_EXEC, O_EXCL, O_NOATIME, RENAME_EXCHANGE, RENAME_WHITEOUT, S_IFBLK, S_IFCHR, S_IFDIR,
    S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID,
};
use lg_abi::{Errno, Timespec};

use super::MemFs;
use super::contents::Contents;
use super::dir::Entries;
use super::xattr::Xattrs;
use crate::fs::host::{LowerDir, LowerStat};
use crate::fs::pipe::Fifo;
use crate::mm::FrameRef;
use crate::task::Stop;
use crate::vfs::ops::without_set_id;
use crate::vfs::permission::has_capability;
use crate::vfs::xattr::XattrStore;
use crate::vfs::{Attr, AttrChange, DirEntry, Extent, File, FsContext, FsSpace, Inode, LinkTarget, NewInode};

/// An inode of the file system in memory.
pub struct MemNode {
    fs: Rc<MemFs>,
    ino: u64,
    meta: Cell<Meta>,
    body: Body,
    /// Units charged for the inode; 0 for one of the lower layer.
    units: u64,
    from_lower: bool,
    /// Whether it differs from the lower layer, in itself or in its place, so that it must be kept.
    changed: Cell<bool>,
    /// Whether a nameless file may still get a name (O_TMPFILE).
    linkable: Cell<bool>,
    /// Whether it is among the files that hold pages of the lower layer.
    cached: Cell<bool>,
    pub(super) xattrs: Xattrs,
}

#[derive(Clone, Copy)]
struct Meta {
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
    btime: Option<Timespec>,
}

enum Body {
    File(Contents),
    Dir(RefCell<Entries>),
    Symlink(Box<[u8]>),
    Fifo(Rc<Fifo>),
    Device(u64),
    Socket,
    /// A device, FIFO or socket of the host, which is shown and can not be opened.
    Foreign(u64),
}

impl MemNode {
    /// Returns the inode of a name of a host directory.
    pub(super) fn from_lower(
        fs: &Rc<MemFs>,
        lower: &Rc<LowerDir>,
        name: &[u8],
        stat: &LowerStat,
    ) -> Result<Rc<MemNode>, Errno> {
        let body = match stat.file_type() {
            S_IFREG => Body::File(Contents::of_lower(lower.file(name, stat), stat.size)),
            S_IFDIR => Body::Dir(RefCell::new(Entries::new(Some(lower.subdir(name, stat))))),
            S_IFLNK => Body::Symlink(lower.read_link(name)?.into()),
            _ => Body::Foreign(stat.rdev),
        };
        Ok(MemNode::with_lower_stat(fs, stat, body))
    }

    /// Returns the inode of a host directory.
    pub fn from_lower_dir(fs: &Rc<MemFs>, lower: Rc<LowerDir>) -> Result<Rc<MemNode>, Errno> {
        let stat = lower.stat()?;
        Ok(MemNode::with_lower_stat(fs, &stat, Body::Dir(RefCell::new(Entries::new(Some(lower))))))
    }

    fn with_lower_stat(fs: &Rc<MemFs>, stat: &LowerStat, body: Body) -> Rc<MemNode> {
        fs.count_lower_node();
        Rc::new(MemNode {
            fs: fs.clone(),
            ino: fs.lower_ino(stat.dev, stat.ino),
            meta: Cell::new(Meta {
                mode: stat.mode,
                nlink: stat.nlink,
                uid: stat.uid,
                gid: stat.gid,
                atime: stat.atime,
                mtime: stat.mtime,
                ctime: stat.ctime,
                btime: None,
            }),
            body,
            units: 0,
            from_lower: true,
            changed: Cell::new(false),
            linkable: Cell::new(false),
            cached: Cell::new(false),
            xattrs: Xattrs::default(),
        })
    }

    /// Returns the root directory of a file system without a lower layer.
    pub(super) fn new_root(fs: &Rc<MemFs>, mode: u32, cx: &FsContext<'_>) -> Result<Rc<MemNode>, Errno> {
        MemNode::new(fs, cx, mode, 2, cx.creds.fsgid, Body::Dir(RefCell::new(Entries::new(None))))
    }

    fn new(
        fs: &Rc<MemFs>,
        cx: &FsContext<'_>,
        mode: u32,
        nlink: u32,
        gid: u32,
        body: Body,
    ) -> Result<Rc<MemNode>, Errno> {
        let units = match &body {
            Body::Symlink(target) => 1 + target.len() as u64 / 512,
            _ => 1,
        };
        fs.charge_units(units)?;
        let now = cx.now;
        let (atime, mtime, ctime, btime) = (now, now, now, Some(now));
        let meta = Meta { mode, nlink, uid: cx.creds.fsuid, gid, atime, mtime, ctime, btime };
        Ok(Rc::new(MemNode {
            fs: fs.clone(),
            ino: fs.new_ino(),
            meta: Cell::new(meta),
            body,
            units,
            from_lower: false,
            changed: Cell::new(true),
            linkable: Cell::new(false),
            cached: Cell::new(false),
            xattrs: Xattrs::default(),
        }))
    }

    fn new_child(&self, cx: &FsContext<'_>, what: NewInode, mode: u32) -> Result<Rc<MemNode>, Errno> {
        let (file_type, nlink, body) = match what {
            NewInode::File => (S_IFREG, 1, Body::File(Contents::empty())),
            NewInode::Dir => (S_IFDIR, 2, Body::Dir(RefCell::new(Entries::new(None)))),
            NewInode::Symlink(target) => (S_IFLNK, 1, Body::Symlink(target.into())),
            NewInode::Fifo => (S_IFIFO, 1, Body::Fifo(Fifo::new())),
            NewInode::Socket => (S_IFSOCK, 1, Body::Socket),
            NewInode::CharDevice(rdev) => (S_IFCHR, 1, Body::Device(rdev)),
            NewInode::BlockDevice(rdev) => (S_IFBLK, 1, Body::Device(rdev)),
        };
        let dir = self.meta.get();
        let mut mode = mode & !S_IFMT | file_type;
        let mut gid = cx.creds.fsgid;
        if dir.mode & S_ISGID != 0 {
            gid = dir.gid;
            if file_type == S_IFDIR {
                mode |= S_ISGID;
            }
        }
        MemNode::new(&self.fs, cx, mode, nlink, gid, body)
    }

    /// Returns the inode number.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Returns the `S_IFMT` bits.
    pub fn file_type(&self) -> u32 {
        self.meta.get().mode & S_IFMT
    }

    /// Returns the file system.
    pub fn fs(&self) -> &Rc<MemFs> {
        &self.fs
    }

    /// Adds a host directory as a child of this directory.
    pub fn graft(&self, cx: &FsContext<'_>, name: &[u8], lower: Rc<LowerDir>) -> Result<Rc<MemNode>, Errno> {
        let node = MemNode::from_lower_dir(&self.fs, lower)?;
        node.changed.set(true);
        self.entries()?.borrow_mut().add(&self.fs, name, node.clone())?;
        self.change(|dir| dir.nlink = counted(dir.nlink, 1));
        self.touch(cx);
        Ok(node)
    }

    fn entries(&self) -> Result<&RefCell<Entries>, Errno> {
        match &self.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn contents(&self) -> Result<&Contents, Errno> {
        match &self.body {
            Body::File(contents) => Ok(contents),
            _ => Err(Errno::EINVAL),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Meta)) {
        let mut meta = self.meta.get();
        change(&mut meta);
        self.meta.set(meta);
        self.changed.set(true);
    }

    /// Notes a change of the contents.
    fn touch(&self, cx: &FsContext<'_>) {
        self.change(|meta| (meta.mtime, meta.ctime) = (cx.now, cx.now));
    }

    pub(super) fn touch_inode(&self, cx: &FsContext<'_>) {
        self.change(|meta| meta.ctime = cx.now);
    }

    /// Notes a read, as `relatime` of mount(8) does. Files of the lower layer keep their time.
    fn touch_atime(&self, cx: &FsContext<'_>) {
        let meta = self.meta.get();
        let time = |time: Timespec| (time.tv_sec, time.tv_nsec);
        let stale = time(meta.atime) <= time(meta.mtime).max(time(meta.ctime))
            || cx.now.tv_sec.saturating_sub(meta.atime.tv_sec) > 24 * 3600;
        if self.changed.get() && stale {
            self.change(|meta| meta.atime = cx.now);
        }
    }

    /// Notes that a name of this inode was removed.
    fn lose_link(&self, cx: &FsContext<'_>) {
        let is_dir = self.file_type() == S_IFDIR;
        self.change(|meta| {
            meta.nlink = if is_dir { 0 } else { meta.nlink.saturating_sub(1) };
            meta.ctime = cx.now;
        });
        if let Body::Dir(entries) = &self.body {
            entries.borrow_mut().close(&self.fs);
        }
    }

    /// Notes a read of the file.
    fn read(&self, cx: &FsContext<'_>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        self.contents()?.read(offset, buf).inspect(|_| self.touch_atime(cx))
    }

    fn write(&self, cx: &FsContext<'_>, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let written = self.contents()?.write(&self.fs, offset, data)?;
        self.touch(cx);
        self.drop_set_id(cx);
        Ok(written)
    }

    fn drop_set_id(&self, cx: &FsContext<'_>) {
        if let Some(mode) = without_set_id(self.meta.get().mode)
            && !has_capability(cx.creds, CAP_FSETID)
        {
            self.change(|meta| meta.mode = meta.mode & S_IFMT | mode);
        }
    }

    /// Says whether the node can be dropped and looked up again: it only shows the lower layer, and only
    /// its directory holds it.
    pub(super) fn is_disposable(self: &Rc<MemNode>) -> bool {
        self.from_lower
            && !self.changed.get()
            && Rc::strong_count(self) == 1
            && match &self.body {
                Body::Dir(entries) => entries.try_borrow().is_ok_and(|entries| entries.only_shows_lower()),
                _ => true,
            }
    }

    pub(super) fn child_dirs(&self) -> Vec<Rc<MemNode>> {
        match &self.body {
            Body::Dir(entries) => entries.try_borrow().map(|entries| entries.dirs()).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    pub(super) fn shrink_entries(&self) {
        if let Body::Dir(entries) = &self.body
            && let Ok(mut entries) = entries.try_borrow_mut()
        {
            entries.shrink(&self.fs);
        }
    }

    pub(super) fn drop_clean_pages(&self, max: u32) -> u32 {
        match &self.body {
            Body::File(contents) => contents.drop_clean(&self.fs, max),
            _ => 0,
        }
    }

    /// Gives back what is charged for the entries, and returns the children.
    fn take_children(&mut self) -> Vec<Rc<MemNode>> {
        match &mut self.body {
            Body::Dir(entries) => entries.get_mut().take_children(&self.fs),
            _ => Vec::new(),
        }
    }

    fn find(&self, name: &[u8]) -> Result<Rc<MemNode>, Errno> {
        self.fs.shrink_if_large();
        self.entries()?.borrow_mut().find(&self.fs, name)
    }

    fn exists(&self, name: &[u8]) -> Result<bool, Errno> {
        match self.find(name) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Takes a child's name away, or gives it to what stands for the child from now on.
    fn leave(&self, name: &[u8], instead: Option<Rc<MemNode>>) -> Result<(), Errno> {
        let mut entries = self.entries()?.borrow_mut();
        match instead {
            Some(node) => drop(entries.replace(name, node)),
            None => drop(entries.remove(&self.fs, name)),
        }
        Ok(())
    }

    fn check_alive(&self) -> Result<(), Errno> {
        if self.meta.get().nlink == 0 { Err(Errno::ENOENT) } else { Ok(()) }
    }
}

/// Returns a directory's link count after `change` children directories came or went. Host file systems that
/// do not count them show 1, which stays.
fn counted(nlink: u32, change: i32) -> u32 {
    if nlink < 2 { nlink } else { nlink.saturating_add_signed(change).max(2) }
}

fn as_node(inode: &Rc<dyn Inode>) -> Result<Rc<MemNode>, Errno> {
    let any: Rc<dyn Any> = inode.clone();
    any.downcast::<MemNode>().map_err(|_| Errno::EXDEV)
}

impl Inode for MemNode {
    fn xattrs(&self) -> Option<&dyn XattrStore> {
        Some(self)
    }

    fn attr(&self, _cx: &FsContext<'_>) -> Result<Attr, Errno> {
        let meta = self.meta.get();
        let (size, blocks, rdev) = match &self.body {
            Body::File(contents) => (contents.size(), contents.blocks(), 0),
            Body::Symlink(target) => (target.len() as u64, 0, 0),
            Body::Dir(_) => (4096, 8, 0),
            Body::Device(rdev) | Body::Foreign(rdev) => (0, 0, *rdev),
            Body::Fifo(_) | Body::Socket => (0, 0, 0),
        };
        Ok(Attr {
            dev: self.fs.dev,
            ino: self.ino,
            mode: meta.mode,
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev,
            size,
            blocks,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: meta.btime,
        })
    }

    fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        if let Some(mode) = change.mode
            && (mode ^ self.meta.get().mode) & 0o111 != 0
            && self.contents().ok().and_then(|contents| contents.seals()).unwrap_or(0) & F_SEAL_EXEC != 0
        {
            return Err(Errno::EPERM);
        }
        if let Some(size) = change.size {
            self.contents()?.truncate(&self.fs, size)?;
            self.touch(cx);
            self.drop_set_id(cx);
        }
        self.change(|meta| {
            meta.mode = change.mode.map_or(meta.mode, |mode| meta.mode & S_IFMT | mode & 0o7777);
            meta.uid = change.uid.unwrap_or(meta.uid);
            meta.gid = change.gid.unwrap_or(meta.gid);
            meta.atime = change.atime.unwrap_or(meta.atime);
            meta.mtime = change.mtime.unwrap_or(meta.mtime);
            meta.ctime = cx.now;
        });
        Ok(())
    }

    fn lookup(&self, _cx: &FsContext<'_>, name: &[u8]) -> Result<Rc<dyn Inode>, Errno> {
        Ok(self.find(name)?)
    }

    fn create(
        &self,
        cx: &FsContext<'_>,
        name: &[u8],
        what: NewInode,
        mode: u32,
    ) -> Result<Rc<dyn Inode>, Errno> {
        self.check_alive()?;
        if self.exists(name)? {
            return Err(Errno::EEXIST);
        }
        let is_dir = what == NewInode::Dir;
        let node = self.new_child(cx, what, mode)?;
        self.entries()?.borrow_mut().add(&self.fs, name, node.clone())?;
        self.touch(cx);
        if is_dir {
            self.change(|dir| dir.nlink = counted(dir.nlink, 1));
        }
        Ok(node)
    }

    fn create_tmpfile(&self, cx: &FsContext<'_>, mode: u32, flags: u32) -> Result<Rc<dyn Inode>, Errno> {
        let node = self.new_child(cx, NewInode::File, mode)?;
        node.change(|meta| meta.nlink = 0);
        node.linkable.set(flags & O_EXCL == 0);
        Ok(node)
    }

    fn link(&self, cx: &FsContext<'_>, name: &[u8], target: &Rc<dyn Inode>) -> Result<(), Errno> {
        let target = as_node(target)?;
        if !Rc::ptr_eq(&self.fs, &target.fs) {
            return Err(Errno::EXDEV);
        }
        self.check_alive()?;
        if target.meta.get().nlink == 0 && !target.linkable.get() {
            return Err(Errno::ENOENT);
        }
        if self.exists(name)? {
            return Err(Errno::EEXIST);
        }
        self.entries()?.borrow_mut().add(&self.fs, name, target.clone())?;
        target.change(|meta| {
            meta.nlink = meta.nlink.saturating_add(1);
            meta.ctime = cx.now;
        });
        self.touch(cx);
        Ok(())
    }

    fn unlink(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<(), Errno> {
        let node = self.find(name)?;
        if node.file_type() == S_IFDIR {
            return Err(Errno::EISDIR);
        }
        self.entries()?.borrow_mut().remove(&self.fs, name);
        node.lose_link(cx);
        node.linkable.set(false);
        self.touch(cx);
        Ok(())
    }

    fn rmdir(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<(), Errno> {
        let node = self.find(name)?;
        if !node.entries()?.borrow_mut().is_empty(&self.fs)? {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries()?.borrow_mut().remove(&self.fs, name);
        node.lose_link(cx);
        self.change(|dir| dir.nlink = counted(dir.nlink, -1));
        self.touch(cx);
        Ok(())
    }

    fn rename(
        &self,
        cx: &FsContext<'_>,
        name: &[u8],
        new_dir: &Rc<dyn Inode>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let new_dir = as_node(new_dir)?;
        if !Rc::ptr_eq(&self.fs, &new_dir.fs) {
            return Err(Errno::EXDEV);
        }
        new_dir.check_alive()?;
        let node = self.find(name)?;
        let is_dir = node.file_type() == S_IFDIR;
        let target = match new_dir.find(new_name) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        let exchange = flags & RENAME_EXCHANGE != 0;
        // A device that stands for a name that is gone, as overlayfs has them.
        let whiteout = match flags & RENAME_WHITEOUT {
            0 => None,
            _ => Some(self.new_child(cx, NewInode::CharDevice(0), 0)?),
        };
        match target {
            Some(target) if exchange => {
                let target_is_dir = target.file_type() == S_IFDIR;
                self.entries()?.borrow_mut().replace(name, target.clone());
                new_dir.entries()?.borrow_mut().replace(new_name, node.clone());
                target.touch_inode(cx);
                let gained = i32::from(target_is_dir) - i32::from(is_dir);
                self.change(|dir| dir.nlink = counted(dir.nlink, gained));
                new_dir.change(|dir| dir.nlink = counted(dir.nlink, -gained));
            }
            None if exchange => return Err(Errno::ENOENT),
            Some(target) => {
                if let Body::Dir(entries) = &target.body
                    && !entries.borrow_mut().is_empty(&self.fs)?
                {
                    return Err(Errno::ENOTEMPTY);
                }
                new_dir.entries()?.borrow_mut().replace(new_name, node.clone());
                self.leave(name, whiteout)?;
                target.lose_link(cx);
                if is_dir {
                    // One directory came and one went.
                    self.change(|dir| dir.nlink = counted(dir.nlink, -1));
                }
            }
            None => {
                new_dir.entries()?.borrow_mut().add(&self.fs, new_name, node.clone())?;
                self.leave(name, whiteout)?;
                if is_dir {
                    self.change(|dir| dir.nlink = counted(dir.nlink, -1));
                    new_dir.change(|dir| dir.nlink = counted(dir.nlink, 1));
                }
            }
        }
        node.touch_inode(cx);
        self.touch(cx);
        new_dir.touch(cx);
        Ok(())
    }

    fn read_dir(
        &self,
        cx: &FsContext<'_>,
        cursor: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        self.entries()?.borrow_mut().list(&self.fs, cursor, sink)?;
        self.touch_atime(cx);
        Ok(())
    }

    fn read_link(&self, _cx: &FsContext<'_>) -> Result<LinkTarget, Errno> {
        match &self.body {
            Body::Symlink(target) => Ok(LinkTarget::Path(target.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Rc<Self>, cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop> {
        match &self.body {
            Body::File(_) => {
                self.note_cached();
                Ok(Rc::new(MemFile { node: self.clone(), flags }))
            }
            Body::Dir(_) => Ok(Rc::new(crate::vfs::DirFile)),
            Body::Symlink(_) => Err(Errno::ELOOP.into()),
            Body::Fifo(fifo) => fifo.open(cx, flags),
            Body::Device(rdev) if self.file_type() == S_IFCHR => crate::fs::dev::open(cx, *rdev, flags),
            Body::Device(_) | Body::Socket => Err(Errno::ENXIO.into()),
            Body::Foreign(_) => Err(Errno::EACCES.into()),
        }
    }

    fn page(&self, index: u64) -> Result<FrameRef, Errno> {
        let contents = self.contents().map_err(|_| Errno::ENODEV)?;
        contents.page(&self.fs, index)
    }

    fn resident_pages(&self, range: Range<u64>) -> Vec<(u64, FrameRef)> {
        self.contents().map(|contents| contents.resident_pages(range)).unwrap_or_default()
    }

    fn read_ahead(&self, range: Range<u64>) {
        if let Ok(contents) = self.contents() {
            contents.read_ahead(&self.fs, range);
        }
    }

    fn page_dirtied(&self, index: u64) {
        if let Ok(contents) = self.contents() {
            contents.page_dirtied(&self.fs, index);
            self.changed.set(true);
        }
    }

    fn space(&self, _cx: &FsContext<'_>) -> FsSpace {
        let fs = &self.fs;
        let (blocks, blocks_free) = fs.room();
        FsSpace {
            blocks,
            blocks_free,
            files: fs.limits.units / 2,
            files_free: fs.limits.units.saturating_sub(fs.units.get()) / 2,
        }
    }
}

impl Drop for MemNode {
    /// Drops what is below iteratively: a guest chooses how deep the tree is.
    fn drop(&mut self) {
        self.fs.uncharge_units(self.units);
        self.xattrs.uncharge(&self.fs);
        if self.from_lower {
            self.fs.uncount_lower_node();
        }
        if let Body::File(contents) = &self.body {
            self.fs.uncharge_pages(contents.dirty_pages());
        }
        let mut children = self.take_children();
        while let Some(child) = children.pop() {
            if let Some(mut child) = Rc::into_inner(child) {
                children.append(&mut child.take_children());
            }
        }
    }
}

/// An open regular file.
struct MemFile {
    node: Rc<MemNode>,
    flags: u32,
}

impl File for MemFile {
    fn read(&self, cx: &FsContext<'_>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if self.flags & O_NOATIME != 0 {
            return self.node.contents()?.read(offset, buf);
        }
        self.node.read(cx, offset, buf)
    }

    fn write(&self, cx: &FsContext<'_>, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        self.node.write(cx, offset, data)
    }

    fn seek_hole(&self, offset: u64, wanted: Extent) -> Option<Result<u64, Errno>> {
        self.node.contents().ok().map(|contents| contents.seek_hole(offset, wanted))
    }

    fn allocate(&self, cx: &FsContext<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        use lg_abi::raw::general::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};
        let contents = self.node.contents()?;
        let fs = &self.node.fs;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let keep_size = mode & FALLOC_FL_KEEP_SIZE != 0;
        match mode & !FALLOC_FL_KEEP_SIZE {
            0 => contents.reserve_within(fs, offset, end, keep_size)?,
            FALLOC_FL_PUNCH_HOLE if keep_size => contents.zero_range(fs, offset, len)?,
            FALLOC_FL_ZERO_RANGE => {
                contents.zero_range(fs, offset, len)?;
                contents.reserve_within(fs, offset, end, keep_size)?;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.node.touch(cx);
        self.node.drop_set_id(cx);
        Ok(())
    }
}

/// Returns the nameless file of memfd_create(2).
pub fn new_memfd(cx: &FsContext<'_>, seals: u32, mode: u32) -> Result<Rc<dyn Inode>, Errno> {
    let node = cx.vfs.nameless_files(cx)?.new_child(cx, NewInode::File, mode)?;
    node.change(|meta| meta.nlink = 0);
    node.contents()?.set_seals(seals);
    Ok(node)
}

/// Returns the seals of a file, `None` where it can not have any. With `add`, adds some first.
///
/// Errors: EPERM where the seals are sealed.
pub fn seals(inode: &Rc<dyn Inode>, add: Option<u32>) -> Result<Option<u32>, Errno> {
    let Ok(node) = as_node(inode) else { return Ok(None) };
    let Ok(contents) = node.contents() else { return Ok(None) };
    let (Some(old), Some(add)) = (contents.seals(), add) else { return Ok(contents.seals()) };
    if old & lg_abi::raw::general::F_SEAL_SEAL != 0 {
        return Err(Errno::EPERM);
    }
    contents.set_seals(old | add);
    Ok(contents.seals())
}

impl MemNode {
    /// Notes that the file holds pages of the lower layer, which can be dropped when memory runs short.
    fn note_cached(self: &Rc<MemNode>) {
        if self.from_lower && !self.cached.replace(true) {
            self.fs.note_cached(self);
        }
    }
}
