//! The file system in memory: tmpfs, and the copy-on-write overlay over host directories.
//!
//! A directory may have a host directory below it. Children come into memory when they are looked up, and
//! stay the host's until something changes them: a regular file's pages are read from the host file until
//! they are written, a removed name leaves a whiteout, and what was made here is simply there. So one
//! implementation is both file systems, and an unchanged tree costs only what was looked at, which can be
//! dropped again ([`MemFs::shrink`]).
//!
//! What a guest can make grow is counted: pages of contents against [`MemLimits::pages`] (and all frames
//! against the guest's memory, and those of all mounts against [`Vfs::file_bytes`]), inodes, names and long link targets against [`MemLimits::units`].

mod contents;
mod dir;
mod node;
#[cfg(test)]
mod tests;
mod xattr;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_abi::raw::general::{S_IFDIR, TMPFS_MAGIC};
use lg_platform::PAGE_SIZE;

pub use node::{MemNode, new_memfd, seals};

use super::host::LowerDir;
use crate::mm::Frames;
use crate::vfs::{Dentry, FsContext, Quota, SuperBlock, Vfs};

/// What a file system in memory may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemLimits {
    /// Pages of contents that differ from the lower layer.
    pub pages: u64,
    /// Units of bookkeeping, some 300 bytes each: one per inode, one per name, one per 512 bytes of a
    /// symbolic link, one per extended attribute and one more per 512 bytes of it.
    pub units: u64,
}

impl Default for MemLimits {
    fn default() -> MemLimits {
        MemLimits { pages: u64::MAX, units: 1 << 20 }
    }
}

/// How many nodes that only show the lower layer are kept before unused ones are dropped.
const KEPT_LOWER_NODES: usize = 50_000;

/// How many look-ups of nothing are remembered.
const KEPT_NEGATIVES: usize = 50_000;

/// How many pages are dropped at a time when memory runs short.
const RECLAIM_BATCH: u32 = 256;

/// What the nodes of one file system share.
pub struct MemFs {
    dev: u64,
    frames: Rc<Frames>,
    /// Bytes of contents of all file systems in memory.
    quota: Rc<Quota>,
    limits: MemLimits,
    pages: Cell<u64>,
    units: Cell<u64>,
    next_ino: Cell<u64>,
    /// Host devices seen, so that inode numbers of different ones stay apart.
    host_devs: RefCell<Vec<u64>>,
    lower_nodes: Cell<usize>,
    shrink_at: Cell<usize>,
    negatives: Cell<usize>,
    root: RefCell<Weak<MemNode>>,
    /// Files that hold pages of the lower layer.
    cached: RefCell<Vec<Weak<MemNode>>>,
}

impl MemFs {
    /// Returns a new file system and its root directory, which has this mode and is over a host directory
    /// where one is given.
    pub fn new(
        cx: &FsContext<'_>,
        limits: MemLimits,
        mode: u32,
        lower: Option<Rc<LowerDir>>,
    ) -> Result<(Rc<MemFs>, Rc<MemNode>), Errno> {
        MemFs::with_quota(cx, cx.vfs.file_bytes().clone(), limits, mode, lower)
    }

    /// Does the same, with a count of its own for the bytes of contents.
    pub fn with_quota(
        cx: &FsContext<'_>,
        quota: Rc<Quota>,
        limits: MemLimits,
        mode: u32,
        lower: Option<Rc<LowerDir>>,
    ) -> Result<(Rc<MemFs>, Rc<MemNode>), Errno> {
        let fs = Rc::new(MemFs {
            dev: cx.vfs.new_dev(),
            frames: cx.frames.clone(),
            quota,
            limits,
            pages: Cell::new(0),
            units: Cell::new(0),
            next_ino: Cell::new(1),
            host_devs: RefCell::default(),
            lower_nodes: Cell::new(0),
            shrink_at: Cell::new(KEPT_LOWER_NODES),
            negatives: Cell::new(0),
            root: RefCell::default(),
            cached: RefCell::default(),
        });
        let root = match lower {
            Some(lower) => MemNode::from_lower_dir(&fs, lower)?,
            None => MemNode::new_root(&fs, S_IFDIR | mode, cx)?,
        };
        *fs.root.borrow_mut() = Rc::downgrade(&root);
        cx.vfs.add_page_cache(Rc::downgrade(&fs) as Weak<dyn crate::vfs::PageCache>);
        Ok((fs, root))
    }

    /// Makes inode numbers of new files start far above those of any host file system.
    pub fn number_above_host(&self) {
        self.next_ino.set(self.next_ino.get().max(1 << 48));
    }

    /// Returns a super block of this file system.
    pub fn super_block(&self, type_name: &'static str) -> Rc<SuperBlock> {
        Rc::new(SuperBlock { type_name, magic: TMPFS_MAGIC, dev: self.dev })
    }

    /// Mounts a new, empty tmpfs.
    pub fn mount_tmpfs(
        cx: &FsContext<'_>,
        vfs: &Vfs,
        at: crate::vfs::Path,
        mode: u32,
        flags: crate::vfs::MountFlags,
        limits: MemLimits,
    ) -> Result<Rc<crate::vfs::Mount>, Errno> {
        let (fs, root) = MemFs::new(cx, limits, mode, None)?;
        vfs.mount(fs.super_block("tmpfs"), Dentry::new_root(root, b"/"), Some(at), flags, b"tmpfs")
    }

    /// Returns where the contents live.
    pub fn frames(&self) -> &Rc<Frames> {
        &self.frames
    }

    /// Returns how many pages of contents are the file system's own.
    pub fn used_pages(&self) -> u64 {
        self.pages.get()
    }

    /// Returns how many units of bookkeeping are in use.
    pub fn used_units(&self) -> u64 {
        self.units.get()
    }

    /// Returns how many nodes only show the lower layer.
    pub fn lower_nodes(&self) -> usize {
        self.lower_nodes.get()
    }

    fn new_ino(&self) -> u64 {
        let ino = self.next_ino.get();
        self.next_ino.set(ino.wrapping_add(1));
        ino
    }

    /// Returns the inode number that stands for a host file.
    fn lower_ino(&self, dev: u64, ino: u64) -> u64 {
        let mut devs = self.host_devs.borrow_mut();
        let index = devs.iter().position(|known| *known == dev).unwrap_or_else(|| {
            devs.push(dev);
            devs.len() - 1
        });
        ino ^ (index as u64) << 56
    }

    fn charge_page(&self) -> Result<(), Errno> {
        if self.pages.get() >= self.limits.pages || self.quota.left() < PAGE_SIZE as u64 {
            return Err(Errno::ENOSPC);
        }
        self.charge_page_over_limit();
        Ok(())
    }

    fn charge_page_over_limit(&self) {
        self.pages.set(self.pages.get().saturating_add(1));
        self.quota.take_over_limit(PAGE_SIZE as u64);
    }

    fn uncharge_pages(&self, count: u64) {
        self.pages.set(self.pages.get().saturating_sub(count));
        self.quota.give(count.saturating_mul(PAGE_SIZE as u64));
    }

    fn charge_units(&self, count: u64) -> Result<(), Errno> {
        let units = self.units.get().saturating_add(count);
        if units > self.limits.units {
            return Err(Errno::ENOSPC);
        }
        self.units.set(units);
        Ok(())
    }

    fn uncharge_units(&self, count: u64) {
        self.units.set(self.units.get().saturating_sub(count));
    }

    /// Counts one more remembered absence, if there is room for it.
    fn count_negative(&self) -> bool {
        let count = self.negatives.get();
        let room = count < KEPT_NEGATIVES;
        if room {
            self.negatives.set(count + 1);
        }
        room
    }

    fn uncount_negative(&self) {
        self.negatives.set(self.negatives.get().saturating_sub(1));
    }

    /// Returns how many pages of contents there may be, and how many more.
    fn room(&self) -> (u64, u64) {
        let page = PAGE_SIZE as u64;
        let total = self.limits.pages.min(self.quota.max() / page).min(self.frames.total().into());
        let left = self.limits.pages.saturating_sub(self.pages.get());
        (total, left.min(self.quota.left() / page).min(self.frames.free().into()))
    }

    fn count_lower_node(&self) {
        self.lower_nodes.set(self.lower_nodes.get() + 1);
    }

    fn uncount_lower_node(&self) {
        self.lower_nodes.set(self.lower_nodes.get().saturating_sub(1));
    }

    /// Drops unused nodes when there are many. No directory may be borrowed.
    fn shrink_if_large(&self) {
        if self.lower_nodes.get() >= self.shrink_at.get() || self.negatives.get() >= KEPT_NEGATIVES {
            self.shrink();
            self.shrink_at.set(KEPT_LOWER_NODES.max(self.lower_nodes.get().saturating_mul(2)));
        }
    }

    /// Drops every node that only shows the lower layer and that nothing uses.
    pub fn shrink(&self) {
        let Some(root) = self.root.borrow().upgrade() else { return };
        // Parents come before children in the list, so taking from its end does children first.
        let mut dirs = vec![root];
        let mut next = 0;
        while let Some(dir) = dirs.get(next).cloned() {
            dirs.extend(dir.child_dirs());
            next += 1;
        }
        while let Some(dir) = dirs.pop() {
            dir.shrink_entries();
        }
    }

    /// Remembers a file that holds pages of the lower layer.
    fn note_cached(&self, node: &Rc<MemNode>) {
        let mut cached = self.cached.borrow_mut();
        if cached.len() == cached.capacity() {
            cached.retain(|node| node.strong_count() > 0);
        }
        cached.push(Rc::downgrade(node));
    }

    /// Makes an allocation, and once more after dropping clean pages where memory has run out.
    fn with_reclaim<T>(&self, allocate: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match allocate() {
            Err(Errno::ENOMEM) if self.drop_clean_pages(RECLAIM_BATCH) > 0 => allocate(),
            result => result,
        }
    }

    /// Drops up to `max` pages that only repeat host files and that nothing maps. Returns how many.
    pub fn drop_clean_pages(&self, max: u32) -> u32 {
        let nodes: Vec<Rc<MemNode>> = self.cached.borrow().iter().filter_map(Weak::upgrade).collect();
        let mut dropped = 0;
        for node in nodes {
            if dropped >= max {
                break;
            }
            dropped += node.drop_clean_pages(max - dropped);
        }
        dropped
    }
}

impl crate::vfs::PageCache for MemFs {
    fn reclaim(&self, max: u32) -> u32 {
        self.drop_clean_pages(max)
    }
}

impl fmt::Debug for MemFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemFs")
            .field("dev", &self.dev)
            .field("pages", &self.pages.get())
            .field("units", &self.units.get())
            .finish()
    }
}
