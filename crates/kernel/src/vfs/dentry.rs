//! Names in a file system: the tree of dentries.
//!
//! A dentry stands for one name of one inode. It holds its parent strongly and its children weakly, so the
//! dentries alive at any time are those in use (working directories, open files, mount points) and their
//! ancestors: the tree can not grow beyond what tasks hold. What makes repeated look-ups cheap are the
//! caches of the inodes below.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};

use lg_abi::Errno;

use super::{FsContext, Inode, Notify};

/// A name in a file system.
pub struct Dentry {
    inode: Rc<dyn Inode>,
    place: RefCell<Place>,
    children: RefCell<HashMap<Rc<[u8]>, Weak<Dentry>>>,
    /// How many mounts have this dentry as their mount point.
    mounts: Cell<u32>,
}

struct Place {
    parent: Option<Rc<Dentry>>,
    name: Rc<[u8]>,
    deleted: bool,
    /// Who is told when a name that was removed goes out of use.
    told_of_end: Option<Rc<Notify>>,
}

impl Dentry {
    /// Returns the root of a tree, or a nameless object that is shown as `name` (`pipe:[7]`).
    pub fn new_root(inode: Rc<dyn Inode>, name: &[u8]) -> Rc<Dentry> {
        Dentry::new(inode, None, name.into())
    }

    /// Returns a dentry below `parent` that no look-up finds: an O_TMPFILE.
    pub fn new_unlinked(inode: Rc<dyn Inode>, parent: &Rc<Dentry>, name: &[u8]) -> Rc<Dentry> {
        let dentry = Dentry::new(inode, Some(parent.clone()), name.into());
        dentry.place.borrow_mut().deleted = true;
        dentry
    }

    fn new(inode: Rc<dyn Inode>, parent: Option<Rc<Dentry>>, name: Rc<[u8]>) -> Rc<Dentry> {
        Rc::new(Dentry {
            inode,
            place: RefCell::new(Place { parent, name, deleted: false, told_of_end: None }),
            children: RefCell::default(),
            mounts: Cell::new(0),
        })
    }

    /// Returns the inode.
    pub fn inode(&self) -> &Rc<dyn Inode> {
        &self.inode
    }

    /// Returns the directory that holds the name; `None` for the root of a tree.
    pub fn parent(&self) -> Option<Rc<Dentry>> {
        self.place.borrow().parent.clone()
    }

    /// Returns the name in the parent.
    pub fn name(&self) -> Rc<[u8]> {
        self.place.borrow().name.clone()
    }

    /// Says whether the name was removed.
    pub fn is_deleted(&self) -> bool {
        self.place.borrow().deleted
    }

    /// Has it told when this name, which was the last one of its inode and is removed, goes out of use.
    pub(super) fn tell_end(&self, notify: Rc<Notify>) {
        self.place.borrow_mut().told_of_end = Some(notify);
    }

    /// Says whether anything is mounted here in any namespace.
    pub fn is_mount_point(&self) -> bool {
        self.mounts.get() > 0
    }

    pub(super) fn add_mount(&self) {
        self.mounts.set(self.mounts.get().saturating_add(1));
    }

    pub(super) fn remove_mount(&self) {
        self.mounts.set(self.mounts.get().saturating_sub(1));
    }

    /// Looks up a child.
    pub fn child(self: &Rc<Dentry>, cx: &FsContext<'_>, name: &[u8]) -> Result<Rc<Dentry>, Errno> {
        let known = self.live_child(name);
        if let Some(known) = &known
            && self.inode.caches_children()
        {
            return Ok(known.clone());
        }
        let inode = self.inode.lookup(cx, name)?;
        match known {
            Some(known) if Rc::ptr_eq(&known.inode, &inode) => Ok(known),
            _ => Ok(self.add_child(name, inode)),
        }
    }

    /// Returns the child if it is in use.
    pub fn live_child(&self, name: &[u8]) -> Option<Rc<Dentry>> {
        self.children.borrow().get(name).and_then(Weak::upgrade)
    }

    /// Adds a child that was just made or looked up.
    pub fn add_child(self: &Rc<Dentry>, name: &[u8], inode: Rc<dyn Inode>) -> Rc<Dentry> {
        let name: Rc<[u8]> = name.into();
        let child = Dentry::new(inode, Some(self.clone()), name.clone());
        self.children.borrow_mut().insert(name, Rc::downgrade(&child));
        child
    }

    /// Notes that the name of a child was removed.
    pub fn forget_child(&self, name: &[u8]) {
        let gone = self.children.borrow_mut().remove(name).and_then(|child| child.upgrade());
        if let Some(gone) = gone {
            gone.place.borrow_mut().deleted = true;
        }
    }

    /// Notes that a child was renamed; a child of the new name is gone, or takes the old name when the two
    /// are exchanged.
    pub fn move_child(self: &Rc<Dentry>, name: &[u8], new_dir: &Rc<Dentry>, new_name: &[u8], exchange: bool) {
        let moved = self.children.borrow_mut().remove(name).and_then(|child| child.upgrade());
        let replaced = new_dir.children.borrow_mut().remove(new_name).and_then(|child| child.upgrade());
        if let Some(replaced) = replaced {
            if exchange {
                self.adopt(&replaced, name);
            } else {
                replaced.place.borrow_mut().deleted = true;
            }
        }
        if let Some(moved) = moved {
            new_dir.adopt(&moved, new_name);
        }
    }

    fn adopt(self: &Rc<Dentry>, child: &Rc<Dentry>, name: &[u8]) {
        let name: Rc<[u8]> = name.into();
        let old_parent = {
            let mut place = child.place.borrow_mut();
            place.name = name.clone();
            place.parent.replace(self.clone())
        };
        self.children.borrow_mut().insert(name, Rc::downgrade(child));
        drop(old_parent);
    }

    /// Says whether `self` is `other` or lies below it.
    pub fn is_within(self: &Rc<Dentry>, other: &Rc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Rc::ptr_eq(&at, other) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// Takes this dentry out of its parent's children, and returns the parent.
    fn leave_parent(&mut self) -> Option<Rc<Dentry>> {
        let place = self.place.get_mut();
        let parent = place.parent.take()?;
        if !place.deleted
            && let Ok(mut children) = parent.children.try_borrow_mut()
            && children.get(&place.name).is_some_and(|child| child.strong_count() == 0)
        {
            children.remove(&place.name);
        }
        Some(parent)
    }
}

impl Drop for Dentry {
    /// Drops the ancestors that only this dentry held one by one: a guest chooses how deep the tree is.
    fn drop(&mut self) {
        if let Some(notify) = self.place.get_mut().told_of_end.take() {
            notify.ended(&self.inode);
        }
        let mut next = self.leave_parent();
        while let Some(parent) = next {
            next = match Rc::try_unwrap(parent) {
                Ok(mut parent) => parent.leave_parent(),
                Err(_) => None,
            };
        }
    }
}

impl fmt::Debug for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dentry({})", String::from_utf8_lossy(&self.place.borrow().name))
    }
}
