//! The virtual file system: what all file systems share.
//!
//! ```text
//!   FdTable ── fd ──> FileDescription ──> File   (read, write, poll, ioctl)
//!                          │
//!                          └─> Path = Mount + Dentry ──> Inode   (attributes, children, pages)
//! ```
//!
//! A [`Walk`] resolves a path to a [`Path`]; [`ops`] and [`open`] make, remove and open names with the
//! permission checks of Linux; file systems ([`crate::fs`]) implement [`Inode`] and [`File`] and know
//! nothing of names above them, mounts or permissions. [`Vfs`] holds what is one per kernel.
//!
//! Nothing here sleeps, and nothing here trusts a number or a name that a guest gave.

mod dentry;
mod description;
mod display;
mod fdtable;
mod inode;
mod locks;
mod mount;
mod notify;
pub mod open;
pub mod ops;
pub mod permission;
mod proc_source;
mod quota;
mod state;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod walk;
pub mod xattr;

pub use dentry::Dentry;
pub use description::{DirFile, FileDescription, FileOwner, PathFile};
pub use display::Shown;
pub use fdtable::{FdTable, NR_OPEN, OnExec, close_removed};
pub use inode::{
    Attr, AttrChange, DirEntry, Extent, File, FsContext, FsSpace, Inode, LinkTarget, NewInode, Readiness,
};
pub use locks::{LAST_BYTE, LockError, LockKey, LockKind, LockOwner, LockTable, RecordLock};
pub use mount::{
    DEFAULT_OPEN_FILES, Mount, MountFlags, PageCache, Path, SuperBlock, Vfs, make_dev, split_dev,
};
pub use notify::{Mark, Notice, Notify, Watcher};
pub use proc_source::{MapFacts, ProcSource, ProcessFacts, ProcessState, SystemFacts, ThreadFacts};
pub use quota::{Counted, OverQuota, Quota};
pub use state::FsState;
pub use walk::{Final, Last, NAME_MAX, PATH_MAX, Resolve, Walk};
