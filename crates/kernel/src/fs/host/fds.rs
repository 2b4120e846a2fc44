//! A bounded cache of host descriptors.
//!
//! A guest looks at thousands of files; the host process may hold only so many descriptors. What is open is
//! therefore a cache, and everything in it can be opened again beneath the root of its tree.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Descriptors by key, the least recently used of which is closed when there are too many.
pub struct FdCache<K> {
    capacity: usize,
    inner: RefCell<Inner<K>>,
}

struct Inner<K> {
    clock: u64,
    open: HashMap<K, (Rc<OwnedFd>, u64)>,
}

impl<K: Copy + Eq + Hash> FdCache<K> {
    /// Returns an empty cache of at most `capacity` descriptors.
    pub fn new(capacity: usize) -> FdCache<K> {
        FdCache { capacity, inner: RefCell::new(Inner { clock: 0, open: HashMap::new() }) }
    }

    /// Returns the descriptor of the key if it is open.
    pub fn get(&self, key: K) -> Option<Rc<OwnedFd>> {
        let mut inner = self.inner.borrow_mut();
        inner.clock += 1;
        let clock = inner.clock;
        let (fd, used) = inner.open.get_mut(&key)?;
        *used = clock;
        Some(fd.clone())
    }

    /// Adds a descriptor.
    pub fn insert(&self, key: K, fd: OwnedFd) -> Rc<OwnedFd> {
        let fd = Rc::new(fd);
        let mut inner = self.inner.borrow_mut();
        if inner.open.len() >= self.capacity {
            let oldest = inner.open.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                inner.open.remove(&oldest);
            }
        }
        inner.clock += 1;
        let clock = inner.clock;
        inner.open.insert(key, (fd.clone(), clock));
        fd
    }

    /// Returns how many descriptors are open.
    pub fn count(&self) -> usize {
        self.inner.borrow().open.len()
    }
}
