//! Which pages a fork is going to touch at once, as observed in a rehearsal.
//!
//! A fork's virtual machine begins with empty shadow tables, over memory that it shares with the others. Each page
//! that it touches first costs a fault of KVM, a fault of the host behind it, and for a store a copy: on PVM some 5 us
//! a page, and hundreds of pages until an interpreter has answered. Having the host map and copy the pages of
//! the working set beforehand, range by range, takes a tenth of that; and KVM then maps up to eight neighbours
//! with one fault of its own, if their entries have the accessed bit, which those of the working set keep.

use std::ops::Range;

use lg_platform::PAGE_SHIFT;

use crate::region::{Region, Touch};

/// Ranges this close are populated together: a call to the host costs more than a few pages too many.
const MAX_READ_GAP: u32 = 8;
/// The same for pages that are written, where each costs a copy.
const MAX_WRITE_GAP: u32 = 1;

/// Frames that forks touch at once.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct WorkingSet {
    read: Vec<Range<u32>>,
    written: Vec<Range<u32>>,
}

impl WorkingSet {
    /// Makes the set of the frames that were accessed and of those that were written, both in ascending order.
    pub fn new(accessed: &[u32], written: &[u32]) -> WorkingSet {
        let read: Vec<u32> =
            accessed.iter().copied().filter(|frame| written.binary_search(frame).is_err()).collect();
        WorkingSet { read: ranges(&read, MAX_READ_GAP), written: ranges(written, MAX_WRITE_GAP) }
    }

    /// Has the host map the pages.
    pub fn populate(&self, data: &Region) {
        for (set, touch) in [(&self.read, Touch::Read), (&self.written, Touch::Write)] {
            for range in set {
                data.populate((range.start as usize) << PAGE_SHIFT, range.len() << PAGE_SHIFT, touch);
            }
        }
    }
}

/// Collects frame numbers into ranges, over gaps of up to `max_gap`.
fn ranges(frames: &[u32], max_gap: u32) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for &frame in frames {
        match ranges.last_mut() {
            Some(last) if frame <= last.end + max_gap => last.end = frame + 1,
            _ => ranges.push(frame..frame + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_not_only_read() {
        let set = WorkingSet::new(&[1, 2, 3, 20, 30], &[2, 3, 4]);
        assert_eq!(set.written, [2..5]);
        assert_eq!(set.read, [1..2, 20..21, 30..31]);
        assert_eq!(ranges(&[5, 6, 8, 11], 1), [5..9, 11..12]);
    }
}
