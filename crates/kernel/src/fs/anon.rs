//! Inodes of files that have no name: pipes, event counters, epoll instances.

use std::cell::Cell;
use std::rc::Rc;

use lg_abi::raw::general::S_IFMT;
use lg_abi::{Errno, Timespec};

use crate::task::Stop;
use crate::vfs::{Attr, AttrChange, File, FileDescription, FsContext, Inode};

/// The attributes of a nameless file.
pub struct AnonInode {
    attr: Cell<Attr>,
}

impl AnonInode {
    /// Returns new attributes, owned by the asking task.
    pub fn new(cx: &FsContext<'_>, mode: u32) -> AnonInode {
        let now: Timespec = cx.now;
        AnonInode {
            attr: Cell::new(Attr {
                dev: cx.vfs.nameless_dev(),
                ino: cx.vfs.new_ino(),
                mode,
                nlink: 1,
                uid: cx.creds.fsuid,
                gid: cx.creds.fsgid,
                atime: now,
                mtime: now,
                ctime: now,
                ..Attr::default()
            }),
        }
    }

    /// Returns the inode number.
    pub fn ino(&self) -> u64 {
        self.attr.get().ino
    }

    /// Returns the attributes.
    pub fn attr(&self) -> Attr {
        self.attr.get()
    }

    /// Sets the number of the device that the file is.
    pub fn set_rdev(&self, rdev: u64) {
        self.attr.set(Attr { rdev, ..self.attr.get() });
    }

    /// Changes mode, owner and times.
    pub fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut attr = self.attr.get();
        attr.mode = change.mode.map_or(attr.mode, |mode| attr.mode & S_IFMT | mode & 0o7777);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.unwrap_or(attr.atime);
        attr.mtime = change.mtime.unwrap_or(attr.mtime);
        attr.ctime = cx.now;
        self.attr.set(attr);
        Ok(())
    }
}

impl Inode for AnonInode {
    fn attr(&self, _cx: &FsContext<'_>) -> Result<Attr, Errno> {
        Ok(AnonInode::attr(self))
    }

    fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        AnonInode::set_attr(self, cx, change)
    }

    /// Such files can not be opened a second time by way of `/proc/PID/fd`.
    fn open(self: Rc<Self>, _cx: &FsContext<'_>, _flags: u32) -> Result<Rc<dyn File>, Stop> {
        Err(Errno::ENXIO.into())
    }
}

/// Returns the description of a file of the anon_inode kind, shown as `anon_inode:[name]`.
pub fn new_anon(
    cx: &FsContext<'_>,
    file: Rc<dyn File>,
    name: &str,
    flags: u32,
) -> Result<Rc<FileDescription>, Errno> {
    let inode: Rc<dyn Inode> = Rc::new(AnonInode::new(cx, 0o600));
    FileDescription::nameless(cx, inode, file, format!("anon_inode:{name}").as_bytes(), flags)
}
