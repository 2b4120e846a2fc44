//! Who watches inodes, and what they are told (inotify(7)).
//!
//! A [`Mark`] says that a watcher wants to hear of an inode. Whatever changes or uses files tells [`Notify`], which
//! finds the marks of the inode and of the directory that its name is in. While there are no marks at all, telling is
//! one comparison.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};

use lg_abi::raw::general::{
    IN_ACCESS, IN_ALL_EVENTS, IN_ATTRIB, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_EXCL_UNLINK, IN_ISDIR,
    IN_MODIFY, IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO, S_IFDIR, S_IFMT,
};

use super::{AttrChange, Dentry, FsContext, Inode, Path};

/// What happened, as inotify(7) tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice<'a> {
    /// `IN_` bits.
    pub mask: u32,
    /// Ties the two ends of a rename together; 0 for anything else.
    pub cookie: u32,
    /// The name in the watched directory; empty where the watched inode itself is meant.
    pub name: &'a [u8],
}

/// Who is told of what happens.
pub trait Watcher {
    /// Takes notice of what happened to the inode of one of its marks.
    fn notice(&self, mark: &Mark, notice: Notice<'_>);

    /// Takes notice that a mark is gone, since its inode is.
    fn forget(&self, mark: &Mark);
}

/// That a watcher wants to hear of an inode. It keeps the inode.
pub struct Mark {
    /// The number by which the watcher knows it.
    pub wd: i32,
    /// What is wanted: `IN_` bits of events, and IN_ONESHOT and IN_EXCL_UNLINK.
    pub mask: Cell<u32>,
    /// The inode.
    pub inode: Rc<dyn Inode>,
    /// Who wants to hear.
    pub watcher: Weak<dyn Watcher>,
}

/// A place where an inode is, as a key.
type Key = *const ();

fn key(inode: &Rc<dyn Inode>) -> Key {
    Rc::as_ptr(inode).cast()
}

/// The marks of all inodes.
#[derive(Default)]
pub struct Notify {
    marks: RefCell<HashMap<Key, Vec<Rc<Mark>>>>,
    last_cookie: Cell<u32>,
}

/// Which files a mark with IN_EXCL_UNLINK is not told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// An open file, whose name may be gone.
    File,
    /// A name.
    Name,
}

impl Notify {
    /// Says whether anybody watches anything.
    pub fn is_active(&self) -> bool {
        !self.marks.borrow().is_empty()
    }

    /// Adds a mark.
    pub fn add(&self, mark: &Rc<Mark>) {
        self.marks.borrow_mut().entry(key(&mark.inode)).or_default().push(mark.clone());
    }

    /// Returns the mark that a watcher has on an inode.
    pub fn find(&self, inode: &Rc<dyn Inode>, watcher: &Weak<dyn Watcher>) -> Option<Rc<Mark>> {
        let address = |watcher: &Weak<dyn Watcher>| watcher.as_ptr().cast::<()>();
        let marks = self.marks.borrow();
        let of_inode = marks.get(&key(inode))?;
        of_inode.iter().find(|mark| address(&mark.watcher) == address(watcher)).cloned()
    }

    /// Removes a mark.
    pub fn remove(&self, mark: &Rc<Mark>) {
        let mut marks = self.marks.borrow_mut();
        let key = key(&mark.inode);
        if let Some(of_inode) = marks.get_mut(&key) {
            of_inode.retain(|other| !Rc::ptr_eq(other, mark));
            if of_inode.is_empty() {
                marks.remove(&key);
            }
        }
    }

    /// Returns those marks of an inode that want to hear of one of the events of `mask`.
    fn interested(&self, inode: &Rc<dyn Inode>, mask: u32) -> Vec<Rc<Mark>> {
        let marks = self.marks.borrow();
        let of_inode = marks.get(&key(inode)).map(Vec::as_slice).unwrap_or_default();
        of_inode.iter().filter(|mark| mark.mask.get() & mask & IN_ALL_EVENTS != 0).cloned().collect()
    }

    fn send(&self, inode: &Rc<dyn Inode>, notice: Notice<'_>) {
        self.send_unless(inode, notice, 0);
    }

    /// Tells those who watch an inode, but for marks that have one of the bits of `unless`.
    fn send_unless(&self, inode: &Rc<dyn Inode>, notice: Notice<'_>, unless: u32) {
        for mark in self.interested(inode, notice.mask) {
            if mark.mask.get() & unless == 0
                && let Some(watcher) = mark.watcher.upgrade()
            {
                watcher.notice(&mark, notice);
            }
        }
    }

    /// Tells those who watch the directory of a name, with the name, and then those who watch what it stands for.
    fn tell(&self, dentry: &Dentry, mask: u32, by: By) {
        let unless = if by == By::File && dentry.is_deleted() { IN_EXCL_UNLINK } else { 0 };
        let name = dentry.name();
        let parent = dentry.parent();
        let of_parent = parent.iter().map(|parent| (parent.inode(), &*name));
        for (inode, name) in of_parent.chain([(dentry.inode(), [].as_slice())]) {
            self.send_unless(inode, Notice { mask, cookie: 0, name }, unless);
        }
    }

    /// Tells what was done by way of an open file; `mask` has IN_ISDIR for a directory.
    pub fn file(&self, path: &Path, mask: u32) {
        if self.is_active() {
            self.tell(&path.dentry, mask, By::File);
        }
    }

    /// Tells that a name was made.
    pub fn created(&self, cx: &FsContext<'_>, dir: &Path, name: &[u8], inode: &Rc<dyn Inode>) {
        if self.is_active() {
            let mask = IN_CREATE | dir_bit(cx, inode);
            self.send(dir.inode(), Notice { mask, cookie: 0, name });
        }
    }

    /// Tells that there is another name of what had one.
    pub fn linked(&self, cx: &FsContext<'_>, dir: &Path, name: &[u8], inode: &Rc<dyn Inode>) {
        self.links_changed(inode);
        self.created(cx, dir, name, inode);
    }

    fn links_changed(&self, inode: &Rc<dyn Inode>) {
        self.send(inode, Notice { mask: IN_ATTRIB, cookie: 0, name: &[] });
    }

    /// Tells that a name was removed. What it stood for is gone with its last user, who may be this caller.
    pub fn removed(self: &Rc<Notify>, cx: &FsContext<'_>, dir: &Path, name: &[u8], victim: Path) {
        if !self.is_active() {
            return;
        }
        let is_dir = dir_bit(cx, victim.inode());
        if is_dir == 0 {
            self.links_changed(victim.inode());
        }
        self.await_end(cx, &victim);
        drop(victim);
        self.send(dir.inode(), Notice { mask: IN_DELETE | is_dir, cookie: 0, name });
    }

    /// Has the end of an inode that lost its last name told once nobody uses it.
    fn await_end(self: &Rc<Notify>, cx: &FsContext<'_>, victim: &Path) {
        if victim.inode().attr(cx).is_ok_and(|attr| attr.nlink == 0) {
            victim.dentry.tell_end(self.clone());
        }
    }

    /// Tells that a name was moved, and of what it replaced, which is gone with its last user as in
    /// [`Notify::removed`].
    pub fn moved(
        self: &Rc<Notify>,
        cx: &FsContext<'_>,
        (old_dir, old_name): (&Path, &[u8]),
        (new_dir, new_name): (&Path, &[u8]),
        moved: &Path,
        replaced: Option<Path>,
    ) {
        if !self.is_active() {
            return;
        }
        let cookie = self.last_cookie.get().wrapping_add(1);
        self.last_cookie.set(cookie);
        let is_dir = dir_bit(cx, moved.inode());
        self.send(old_dir.inode(), Notice { mask: IN_MOVED_FROM | is_dir, cookie, name: old_name });
        self.send(new_dir.inode(), Notice { mask: IN_MOVED_TO | is_dir, cookie, name: new_name });
        if let Some(replaced) = &replaced {
            self.links_changed(replaced.inode());
            self.await_end(cx, replaced);
        }
        self.send(moved.inode(), Notice { mask: IN_MOVE_SELF, cookie: 0, name: &[] });
    }

    /// Tells that attributes were changed.
    pub fn changed(&self, cx: &FsContext<'_>, path: &Path, change: &AttrChange) {
        if !self.is_active() {
            return;
        }
        let times = match (change.atime.is_some(), change.mtime.is_some()) {
            (true, true) => IN_ATTRIB,
            (true, false) => IN_ACCESS,
            (false, true) => IN_MODIFY,
            (false, false) => 0,
        };
        let is_attrib = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        let mask =
            times | if is_attrib { IN_ATTRIB } else { 0 } | if change.size.is_some() { IN_MODIFY } else { 0 };
        if mask != 0 {
            self.tell(&path.dentry, mask | dir_bit(cx, path.inode()), By::Name);
        }
    }

    /// Tells that extended attributes were changed.
    pub fn xattr_changed(&self, cx: &FsContext<'_>, path: &Path) {
        if self.is_active() {
            self.tell(&path.dentry, IN_ATTRIB | dir_bit(cx, path.inode()), By::Name);
        }
    }

    /// Tells that an inode without a name is no longer in use, and drops its marks.
    pub(super) fn ended(&self, inode: &Rc<dyn Inode>) {
        self.send(inode, Notice { mask: IN_DELETE_SELF, cookie: 0, name: &[] });
        let marks = self.marks.borrow_mut().remove(&key(inode)).unwrap_or_default();
        for mark in marks {
            if let Some(watcher) = mark.watcher.upgrade() {
                watcher.forget(&mark);
            }
        }
    }
}

/// Returns IN_ISDIR for a directory.
fn dir_bit(cx: &FsContext<'_>, inode: &Rc<dyn Inode>) -> u32 {
    let is_dir = inode.attr(cx).is_ok_and(|attr| attr.mode & S_IFMT == S_IFDIR);
    if is_dir { IN_ISDIR } else { 0 }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notify({} inodes)", self.marks.borrow().len())
    }
}
