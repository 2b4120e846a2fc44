//! The table of one kind of object: by id, and by key.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_abi::ipc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};

use super::{Caller, Permission};

/// An id is the index in the table with a sequence number above it, so that an old id is not taken for a new object.
pub const INDEX_BITS: u32 = 15;

const INDEXES: u32 = 1 << INDEX_BITS;

/// The greatest sequence number: ids stay positive.
const MAX_SEQUENCE: u32 = (1 << (31 - INDEX_BITS)) - 1;

/// What a table holds.
pub trait Object {
    /// Returns key, owner and mode.
    fn permission(&self) -> Permission;

    /// Forgets the key: nobody finds the object by it any more.
    fn forget_key(&self) {}
}

/// An object of the table.
enum Held<T> {
    Here(Rc<T>),
    /// Removed, and there for as long as somebody uses it (shared memory).
    Removed(Weak<T>),
}

struct Slot<T> {
    id: u32,
    held: Held<T>,
}

impl<T> Slot<T> {
    fn object(&self) -> Option<Rc<T>> {
        match &self.held {
            Held::Here(object) => Some(object.clone()),
            Held::Removed(object) => object.upgrade(),
        }
    }
}

/// A table of objects.
pub struct Ids<T> {
    slots: BTreeMap<u32, Slot<T>>,
    max: usize,
    last_index: Option<u32>,
    sequence: u32,
}

impl<T: Object> Ids<T> {
    /// Returns an empty table for up to `max` objects.
    pub fn new(max: usize) -> Ids<T> {
        Ids { slots: BTreeMap::new(), max, last_index: None, sequence: 0 }
    }

    /// Finds the object of a key or makes it, as shmget(2), semget(2) and msgget(2) do, and returns its id. `suits`
    /// checks one that is there, `make` makes one.
    ///
    /// Errors: ENOENT, EEXIST, EACCES, ENOSPC, and those of `suits` and `make`.
    pub fn get(
        &mut self,
        caller: &Caller<'_>,
        key: i32,
        flags: u32,
        suits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(Permission) -> Result<Rc<T>, Errno>,
    ) -> Result<u32, Errno> {
        let found = if key == IPC_PRIVATE { None } else { self.with_key(key) };
        match found {
            Some((id, object)) => {
                if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                    return Err(Errno::EEXIST);
                }
                suits(&object)?;
                object.permission().check_flags(caller, flags)?;
                Ok(id)
            }
            None if key != IPC_PRIVATE && flags & IPC_CREAT == 0 => Err(Errno::ENOENT),
            None => {
                let object = make(Permission::new(caller, key, flags))?;
                self.insert(object)
            }
        }
    }

    fn with_key(&self, key: i32) -> Option<(u32, Rc<T>)> {
        self.slots.values().find_map(|slot| match &slot.held {
            Held::Here(object) if object.permission().key == key => Some((slot.id, object.clone())),
            _ => None,
        })
    }

    /// Puts an object in and returns its id. Indexes are given out in turn, so that ids come back late.
    fn insert(&mut self, object: Rc<T>) -> Result<u32, Errno> {
        self.sweep();
        if self.slots.len() >= self.max {
            return Err(Errno::ENOSPC);
        }
        let start = self.last_index.map_or(0, |last| (last + 1) % INDEXES);
        let is_free = |index: &u32| !self.slots.contains_key(index);
        let index = (start..INDEXES).chain(0..start).find(is_free).ok_or(Errno::ENOSPC)?;
        if self.last_index.is_some_and(|last| index <= last) {
            self.sequence = (self.sequence + 1) & MAX_SEQUENCE;
        }
        self.last_index = Some(index);
        let id = self.sequence << INDEX_BITS | index;
        self.slots.insert(index, Slot { id, held: Held::Here(object) });
        Ok(id)
    }

    /// Drops the slots of removed objects that nobody uses any more.
    fn sweep(&mut self) {
        self.slots.retain(|_, slot| match &slot.held {
            Held::Here(_) => true,
            Held::Removed(object) => object.strong_count() > 0,
        });
    }

    /// Returns the object of an id. Errors: EINVAL.
    pub fn find(&self, id: u32) -> Result<Rc<T>, Errno> {
        let slot = self.slots.get(&(id % INDEXES)).filter(|slot| slot.id == id).ok_or(Errno::EINVAL)?;
        slot.object().ok_or(Errno::EINVAL)
    }

    /// Returns the object at an index of the table with its id (SHM_STAT and the like). Errors: EINVAL.
    pub fn at(&self, index: u32) -> Result<(u32, Rc<T>), Errno> {
        let slot = self.slots.get(&(index % INDEXES)).ok_or(Errno::EINVAL)?;
        Ok((slot.id, slot.object().ok_or(Errno::EINVAL)?))
    }

    /// Removes an object. It can still be found by its id while somebody uses it, but not by its key.
    pub fn remove(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&(id % INDEXES)).filter(|slot| slot.id == id) else { return };
        if let Held::Here(object) = &slot.held {
            object.forget_key();
            slot.held = Held::Removed(Rc::downgrade(object));
        }
        self.sweep();
    }

    /// Returns all objects with their ids, in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Rc<T>)> {
        self.slots.values().filter_map(|slot| Some((slot.id, slot.object()?)))
    }

    /// Returns how many objects there are.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// Returns the highest index in use, 0 where there is none.
    pub fn highest_index(&self) -> u64 {
        self.iter().last().map_or(0, |(id, _)| u64::from(id % INDEXES))
    }
}
