//! `/proc/PID/ns` (namespaces(7)): all processes of a sandbox are in the same namespaces, which have names and nothing else.

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::S_IFREG;

use crate::task::Stop;
use crate::vfs::{Attr, File, FsContext, Inode, Path};

/// A namespace: its link, its kind, and its number. As in a container, all are its own but those of users and of time,
/// which have the numbers that the first ones have on every machine.
pub(super) struct Namespace {
    pub(super) link: &'static str,
    kind: &'static str,
    ino: u64,
}

const fn namespace(link: &'static str, kind: &'static str, ino: u64) -> Namespace {
    Namespace { link, kind, ino }
}

pub(super) static NAMESPACES: &[Namespace] = &[
    namespace("cgroup", "cgroup", 4_026_532_200),
    namespace("ipc", "ipc", 4_026_532_201),
    namespace("mnt", "mnt", 4_026_532_202),
    namespace("net", "net", 4_026_532_203),
    namespace("pid", "pid", 4_026_532_204),
    namespace("pid_for_children", "pid", 4_026_532_204),
    namespace("time", "time", 4_026_531_834),
    namespace("time_for_children", "time", 4_026_531_834),
    namespace("user", "user", 4_026_531_837),
    namespace("uts", "uts", 4_026_532_205),
];

impl Namespace {
    /// Returns what the link shows.
    pub(super) fn shown(&self) -> Vec<u8> {
        format!("{}:[{}]", self.kind, self.ino).into_bytes()
    }

    /// Returns where the link leads.
    pub(super) fn path(&'static self, cx: &FsContext<'_>) -> Path {
        cx.vfs.nameless_path(Rc::new(NsInode(self)), &self.shown())
    }
}

/// What a link leads to: a file without contents.
struct NsInode(&'static Namespace);

impl Inode for NsInode {
    fn attr(&self, cx: &FsContext<'_>) -> Result<Attr, Errno> {
        let (atime, mtime, ctime) = (cx.now, cx.now, cx.now);
        let mode = S_IFREG | 0o444;
        let dev = cx.vfs.nameless_dev();
        Ok(Attr { dev, ino: self.0.ino, mode, nlink: 1, atime, mtime, ctime, ..Attr::default() })
    }

    fn open(self: Rc<Self>, _cx: &FsContext<'_>, _flags: u32) -> Result<Rc<dyn File>, Stop> {
        Ok(Rc::new(NsFile))
    }
}

struct NsFile;

impl File for NsFile {}
