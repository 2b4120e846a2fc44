//! The entries of a directory: those made here, over those of a host directory where there is one.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{S_IFDIR, S_IFMT};

use super::{MemFs, MemNode};
use crate::fs::host::LowerDir;
use crate::vfs::DirEntry;

/// What a directory knows of a name.
pub enum Slot {
    /// A child.
    Node(Child),
    /// A name of the lower directory that was listed and not looked up yet.
    Listed {
        /// Position in listings.
        cookie: u64,
        /// `S_IFMT` bits.
        file_type: u32,
        /// Inode number.
        ino: u64,
    },
    /// The lower directory has no such name: a look-up remembered.
    Absent,
    /// The lower directory has the name, and it was removed here.
    Whiteout,
}

/// A child of a directory.
pub struct Child {
    /// The inode.
    pub node: Rc<MemNode>,
    /// Position in listings.
    cookie: u64,
    /// Whether the lower directory has the name too, so that removing it leaves a whiteout.
    hides_lower: bool,
    /// Whether the name counts against the limit of the file system.
    charged: bool,
}

/// The entries of a directory.
pub struct Entries {
    lower: Option<Rc<LowerDir>>,
    /// Whether every name of the lower directory is in `slots`.
    listed: bool,
    slots: HashMap<Rc<[u8]>, Slot>,
    /// The visible names by cookie: the order of listings.
    order: BTreeMap<u64, Rc<[u8]>>,
    next_cookie: u64,
}

impl Entries {
    /// Returns the entries of a new directory, over a host directory where given.
    pub fn new(lower: Option<Rc<LowerDir>>) -> Entries {
        Entries {
            listed: lower.is_none(),
            lower,
            slots: HashMap::new(),
            order: BTreeMap::new(),
            next_cookie: 1,
        }
    }

    /// Returns a child.
    pub fn find(&mut self, fs: &Rc<MemFs>, name: &[u8]) -> Result<Rc<MemNode>, Errno> {
        match self.slots.get(name) {
            Some(Slot::Node(child)) => return Ok(child.node.clone()),
            Some(Slot::Absent | Slot::Whiteout) => return Err(Errno::ENOENT),
            None if self.listed => return Err(Errno::ENOENT),
            None | Some(Slot::Listed { .. }) => {}
        }
        let Some(lower) = self.lower.clone() else { return Err(Errno::ENOENT) };
        let Some(stat) = lower.lookup(name)? else {
            match self.slots.get(name) {
                // The host has removed it since it was listed.
                Some(Slot::Listed { .. }) => self.remove_slot(name),
                _ if fs.count_negative() => drop(self.slots.insert(name.into(), Slot::Absent)),
                _ => {}
            }
            return Err(Errno::ENOENT);
        };
        let node = MemNode::from_lower(fs, &lower, name, &stat)?;
        let cookie = match self.slots.get(name) {
            Some(Slot::Listed { cookie, .. }) => *cookie,
            _ => self.take_cookie(),
        };
        self.put(fs, name, Child { node: node.clone(), cookie, hides_lower: true, charged: false });
        Ok(node)
    }

    fn take_cookie(&mut self) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie = cookie.saturating_add(1);
        cookie
    }

    fn put(&mut self, fs: &MemFs, name: &[u8], child: Child) {
        let name: Rc<[u8]> = name.into();
        self.order.insert(child.cookie, name.clone());
        if let Some(Slot::Absent) = self.slots.insert(name, Slot::Node(child)) {
            fs.uncount_negative();
        }
    }

    fn remove_slot(&mut self, name: &[u8]) {
        if let Some(Slot::Listed { cookie, .. } | Slot::Node(Child { cookie, .. })) = self.slots.remove(name)
        {
            self.order.remove(&cookie);
        }
    }

    /// Adds a child under a name that [`Entries::find`] has just found to be free.
    ///
    /// Errors: ENOSPC.
    pub fn add(&mut self, fs: &MemFs, name: &[u8], node: Rc<MemNode>) -> Result<(), Errno> {
        fs.charge_units(1)?;
        let hides_lower = matches!(self.slots.get(name), Some(Slot::Whiteout));
        let cookie = self.take_cookie();
        self.put(fs, name, Child { node, cookie, hides_lower, charged: true });
        Ok(())
    }

    /// Puts another node under a name that has a child; returns the child that had it.
    pub fn replace(&mut self, name: &[u8], node: Rc<MemNode>) -> Option<Rc<MemNode>> {
        match self.slots.get_mut(name) {
            Some(Slot::Node(child)) => Some(std::mem::replace(&mut child.node, node)),
            _ => None,
        }
    }

    /// Takes a child out.
    pub fn remove(&mut self, fs: &MemFs, name: &[u8]) -> Option<Rc<MemNode>> {
        let (key, slot) = self.slots.remove_entry(name)?;
        let Slot::Node(child) = slot else {
            self.slots.insert(key, slot);
            return None;
        };
        self.order.remove(&child.cookie);
        if child.charged {
            fs.uncharge_units(1);
        }
        if child.hides_lower {
            self.slots.insert(key, Slot::Whiteout);
        }
        Some(child.node)
    }

    /// Says whether there are no children.
    pub fn is_empty(&mut self, fs: &MemFs) -> Result<bool, Errno> {
        self.list_lower(fs)?;
        Ok(self.order.is_empty())
    }

    /// Brings every name of the lower directory in.
    fn list_lower(&mut self, fs: &MemFs) -> Result<(), Errno> {
        if self.listed {
            return Ok(());
        }
        if let Some(lower) = self.lower.clone() {
            for entry in lower.list()? {
                match self.slots.get(&*entry.name) {
                    None => {}
                    Some(Slot::Absent) => fs.uncount_negative(),
                    Some(_) => continue,
                }
                let file_type = match entry.file_type {
                    0 => match lower.lookup(&entry.name)? {
                        Some(stat) => stat.mode & S_IFMT,
                        None => continue,
                    },
                    known => known,
                };
                let cookie = self.take_cookie();
                let name: Rc<[u8]> = entry.name.into();
                let ino = fs.lower_ino(lower.dev(), entry.ino);
                self.order.insert(cookie, name.clone());
                self.slots.insert(name, Slot::Listed { cookie, file_type, ino });
            }
        }
        self.listed = true;
        Ok(())
    }

    /// Lists the directory from a cursor on.
    pub fn list(
        &mut self,
        fs: &MemFs,
        cursor: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        self.list_lower(fs)?;
        for (cookie, name) in self.order.range(cursor..) {
            let (ino, file_type) = match self.slots.get(name) {
                Some(Slot::Node(child)) => (child.node.ino(), child.node.file_type()),
                Some(Slot::Listed { file_type, ino, .. }) => (*ino, *file_type),
                _ => continue,
            };
            let next = cookie.saturating_add(1);
            if !sink(DirEntry { ino, file_type, name: name.to_vec(), next }) {
                break;
            }
        }
        Ok(())
    }

    /// Forgets everything, as the directory was removed.
    pub fn close(&mut self, fs: &MemFs) {
        self.lower = None;
        self.listed = true;
        drop(self.take_children(fs));
    }

    /// Returns the child directories.
    pub fn dirs(&self) -> Vec<Rc<MemNode>> {
        self.children().filter(|node| node.file_type() == S_IFDIR).cloned().collect()
    }

    fn children(&self) -> impl Iterator<Item = &Rc<MemNode>> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Node(child) => Some(&child.node),
            _ => None,
        })
    }

    /// Drops what can be looked up again: remembered absences, and children that only show the lower layer
    /// and that nothing uses.
    pub fn shrink(&mut self, fs: &MemFs) {
        let listed = self.listed;
        let mut forgotten = Vec::new();
        self.slots.retain(|_, slot| match slot {
            Slot::Absent => {
                fs.uncount_negative();
                false
            }
            Slot::Node(child) if child.hides_lower && child.node.is_disposable() => {
                if listed {
                    let (file_type, ino) = (child.node.file_type(), child.node.ino());
                    *slot = Slot::Listed { cookie: child.cookie, file_type, ino };
                    true
                } else {
                    forgotten.push(child.cookie);
                    false
                }
            }
            _ => true,
        });
        forgotten.iter().for_each(|cookie| drop(self.order.remove(cookie)));
    }

    /// Says whether the directory is just as the lower one is, and holds no child.
    pub fn only_shows_lower(&self) -> bool {
        self.lower.is_some()
            && self.slots.values().all(|slot| matches!(slot, Slot::Listed { .. } | Slot::Absent))
    }

    /// Takes the children out, for an iterative drop, and gives back what is counted for the names.
    pub fn take_children(&mut self, fs: &MemFs) -> Vec<Rc<MemNode>> {
        self.order.clear();
        let mut children = Vec::new();
        for (_, slot) in self.slots.drain() {
            match slot {
                Slot::Node(child) => {
                    fs.uncharge_units(u64::from(child.charged));
                    children.push(child.node);
                }
                Slot::Absent => fs.uncount_negative(),
                Slot::Listed { .. } | Slot::Whiteout => {}
            }
        }
        children
    }
}
