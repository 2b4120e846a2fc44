//! Which pages a fork is going to touch at once, as observed in a rehearsal.
//!
//! A fork's virtual machine begins with empty shadow tables, over memory that it shares with the others. Each page
//! that it touches first costs a fault of KVM, a fault of the host behind it, and for a store a copy: on PVM some 5 us
//! a page, and hundreds of pages until an interpreter has answered. So the working set lies together (see
//! [`crate::order`]) and the host maps and copies it beforehand, in two calls. KVM then maps up to eight neighbours
//! with one fault of its own, if their entries have the accessed bit, which those of the working set keep.

use lg_platform::PAGE_SHIFT;

use crate::region::{Region, Touch};

/// The working set of forks: the first places of the data zone.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WorkingSet {
    /// So many places from the first on are written.
    pub written: usize,
    /// So many after those are read.
    pub read: usize,
}

impl WorkingSet {
    /// Returns the set of the places that were accessed and of those that were written, both in ascending order, and the
    /// order in which they should lie.
    pub fn new(accessed: &[u32], written: &[u32]) -> (WorkingSet, Vec<u32>) {
        let read = accessed.iter().filter(|place| written.binary_search(place).is_err());
        let order: Vec<u32> = written.iter().chain(read).copied().collect();
        (WorkingSet { written: written.len(), read: order.len() - written.len() }, order)
    }

    /// Has the host map the pages.
    pub fn populate(self, data: &Region) {
        let bytes = |pages: usize| pages << PAGE_SHIFT;
        if self.written > 0 {
            data.populate(0, bytes(self.written), Touch::Write);
        }
        if self.read > 0 {
            data.populate(bytes(self.written), bytes(self.read), Touch::Read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_before_what_is_only_read() {
        let (set, order) = WorkingSet::new(&[1, 2, 3, 20, 30], &[2, 3, 4]);
        assert_eq!(set, WorkingSet { written: 3, read: 3 });
        assert_eq!(order, [2, 3, 4, 1, 20, 30]);
    }
}
