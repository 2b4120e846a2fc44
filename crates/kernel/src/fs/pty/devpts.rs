//! `/dev/pts`: a node for each pseudo-terminal whose master is open.

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{DEVPTS_SUPER_MAGIC, S_IFCHR, S_IFDIR, S_IFMT};

use super::Pty;
use crate::task::Stop;
use crate::vfs::{
    Attr, AttrChange, Dentry, DirEntry, DirFile, File, FsContext, Inode, MountFlags, NewInode, Path,
    SuperBlock, make_dev,
};

const ROOT_INO: u64 = 1;
/// The inode number of pseudo-terminal 0; the others follow.
const FIRST_INO: u64 = 3;
const PTMX_INO: u64 = 2;
const PTMX: &[u8] = b"ptmx";

/// Mounts it.
pub fn mount(cx: &FsContext<'_>, at: Path) -> Result<(), Errno> {
    let dev = cx.vfs.new_dev();
    let sb = Rc::new(SuperBlock { type_name: "devpts", magic: DEVPTS_SUPER_MAGIC, dev });
    let root = Dentry::new_root(Rc::new(Directory { dev }), b"/");
    cx.vfs.mount(sb, root, Some(at), MountFlags::NO_SUID | MountFlags::NO_EXEC, b"devpts")?;
    Ok(())
}

struct Directory {
    dev: u64,
}

impl Directory {
    /// Returns what a name stands for.
    fn find(&self, cx: &FsContext<'_>, name: &[u8]) -> Option<Rc<dyn Inode>> {
        if name == PTMX {
            return Some(Rc::new(Ptmx { dev: self.dev }));
        }
        let index: u32 = std::str::from_utf8(name).ok()?.parse().ok()?;
        if index.to_string().as_bytes() != name {
            return None;
        }
        if let Some(pty) = cx.vfs.ptys().get(index) {
            return Some(Rc::new(Node { pty, dev: self.dev }));
        }
        cx.vfs.terminal().filter(|_| index == 0)
    }
}

impl Inode for Directory {
    fn attr(&self, cx: &FsContext<'_>) -> Result<Attr, Errno> {
        Ok(Attr {
            dev: self.dev,
            ino: ROOT_INO,
            mode: S_IFDIR | 0o755,
            nlink: 2,
            atime: cx.now,
            mtime: cx.now,
            ctime: cx.now,
            ..Attr::default()
        })
    }

    fn lookup(&self, cx: &FsContext<'_>, name: &[u8]) -> Result<Rc<dyn Inode>, Errno> {
        self.find(cx, name).ok_or(Errno::ENOENT)
    }

    fn caches_children(&self) -> bool {
        false
    }

    fn create(
        &self,
        _cx: &FsContext<'_>,
        _name: &[u8],
        what: NewInode,
        _mode: u32,
    ) -> Result<Rc<dyn Inode>, Errno> {
        Err(if what == NewInode::File { Errno::EACCES } else { Errno::EPERM })
    }

    fn unlink(&self, _cx: &FsContext<'_>, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    fn read_dir(
        &self,
        cx: &FsContext<'_>,
        cursor: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let mut names: Vec<(u64, Vec<u8>)> = vec![(PTMX_INO, PTMX.to_vec())];
        if cx.vfs.terminal().is_some() {
            names.push((FIRST_INO, b"0".to_vec()));
        }
        let ptys = cx.vfs.ptys().indices();
        names
            .extend(ptys.iter().map(|index| (FIRST_INO + u64::from(*index), index.to_string().into_bytes())));
        for (ino, name) in names {
            // An entry's place is its inode number, so that it stays where others come and go.
            if ino > cursor && !sink(DirEntry { ino, next: ino, file_type: S_IFCHR, name }) {
                break;
            }
        }
        Ok(())
    }

    fn open(self: Rc<Self>, _cx: &FsContext<'_>, _flags: u32) -> Result<Rc<dyn File>, Stop> {
        Ok(Rc::new(DirFile))
    }
}

struct Ptmx {
    dev: u64,
}

impl Inode for Ptmx {
    fn attr(&self, cx: &FsContext<'_>) -> Result<Attr, Errno> {
        let (ino, mode, rdev) = (PTMX_INO, S_IFCHR | 0o666, make_dev(5, 2));
        let now = cx.now;
        Ok(Attr {
            dev: self.dev,
            ino,
            mode,
            rdev,
            nlink: 1,
            atime: now,
            mtime: now,
            ctime: now,
            ..Attr::default()
        })
    }

    fn open(self: Rc<Self>, cx: &FsContext<'_>, _flags: u32) -> Result<Rc<dyn File>, Stop> {
        super::open_ptmx(cx)
    }
}

/// The slave of a pseudo-terminal.
struct Node {
    pty: Rc<Pty>,
    dev: u64,
}

impl Inode for Node {
    fn attr(&self, _cx: &FsContext<'_>) -> Result<Attr, Errno> {
        Ok(Attr { dev: self.dev, ino: FIRST_INO + u64::from(self.pty.index), ..self.pty.attr.get() })
    }

    fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        let mut attr = self.pty.attr.get();
        attr.mode = change.mode.map_or(attr.mode, |mode| attr.mode & S_IFMT | mode & 0o7777);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.unwrap_or(attr.atime);
        attr.mtime = change.mtime.unwrap_or(attr.mtime);
        attr.ctime = cx.now;
        self.pty.attr.set(attr);
        Ok(())
    }

    fn open(self: Rc<Self>, cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop> {
        Ok(self.pty.open_slave(cx, flags)?)
    }
}
