//! Which place of the data zone each frame of the seam lies at.
//!
//! At first frame n lies at place n. When memory is sealed for forks, frames move: what forks write at once comes
//! first, then what they read at once, then the rest of what is in use. So a fork's working set is two runs of
//! host memory, however it was scattered by those who allocated it, and everything in use is one mapping.

use std::ops::Range;

use lg_platform::Frame;

/// A permutation of the first frames; the others lie at the place of their number.
#[derive(Default, Debug)]
pub struct Order {
    place_of: Vec<u32>,
    frame_at: Vec<u32>,
}

impl Order {
    /// Returns the place of a frame.
    pub fn place(&self, frame: Frame) -> u32 {
        self.place_of.get(frame.0 as usize).copied().unwrap_or(frame.0)
    }

    /// Returns the frame at a place.
    pub fn frame(&self, place: u32) -> Frame {
        Frame(self.frame_at.get(place as usize).copied().unwrap_or(place))
    }

    /// Returns the places of consecutive frames, as runs.
    pub fn runs(&self, frames: Range<u32>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let permuted = frames.start..frames.end.min(self.place_of.len() as u32).max(frames.start);
        for frame in permuted.clone() {
            let place = self.place(Frame(frame));
            match runs.last_mut() {
                Some(run) if run.end == place => run.end += 1,
                _ => runs.push(place..place + 1),
            }
        }
        if permuted.end < frames.end {
            runs.push(permuted.end..frames.end);
        }
        runs
    }

    /// Returns the order in which the places of `first` come first, as they are there, then those of `used` that are not
    /// among them, then the others. The second value is the old place of each that is used, by new place.
    pub fn rearranged(&self, first: &[u32], used: &[Range<u32>]) -> (Order, Vec<u32>) {
        let mut used: Vec<u32> =
            used.iter().flat_map(|frames| frames.clone().map(|frame| self.place(Frame(frame)))).collect();
        used.sort_unstable();
        let len = used.last().map_or(0, |last| last + 1).max(self.frame_at.len() as u32);
        let mut is_used = vec![false; len as usize];
        used.iter().for_each(|place| is_used[*place as usize] = true);
        let mut is_placed = vec![false; len as usize];
        let mut old_places = Vec::with_capacity(len as usize);
        for place in first.iter().chain(&used).copied() {
            let index = place as usize;
            if is_used.get(index) == Some(&true) && !is_placed[index] {
                is_placed[index] = true;
                old_places.push(place);
            }
        }
        let moved = old_places.len();
        old_places.extend((0..len).filter(|place| !is_placed[*place as usize]));
        let frame_at: Vec<u32> = old_places.iter().map(|place| self.frame(*place).0).collect();
        let mut place_of = vec![0; frame_at.len()];
        for (place, frame) in frame_at.iter().enumerate() {
            place_of[*frame as usize] = place as u32;
        }
        old_places.truncate(moved);
        (Order { place_of, frame_at }, old_places)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_that_come_first_and_frames_in_use_are_runs() {
        let (order, old) = Order::default().rearranged(&[7, 3], &[2..5, 7..9]);
        assert_eq!(old, [7, 3, 2, 4, 8]);
        assert_eq!((order.place(Frame(7)), order.place(Frame(3)), order.place(Frame(2))), (0, 1, 2));
        assert_eq!(order.frame(0), Frame(7));
        assert_eq!((order.place(Frame(9)), order.frame(100)), (9, Frame(100)));
        assert_eq!(order.runs(2..5), [2..3, 1..2, 3..4]);
        assert_eq!(order.runs(8..12), [4..5, 9..12]);
        assert_eq!(order.runs(20..22), vec![Range { start: 20, end: 22 }]);
        assert_eq!(order.runs(5..5), []);
        // Once more, over what was moved.
        let (again, old) = order.rearranged(&[4], &[2..5, 7..9]);
        assert_eq!(old, [4, 0, 1, 2, 3]);
        assert_eq!(again.place(Frame(8)), 0);
    }

    proptest! {
        #[test]
        fn every_order_is_a_permutation(
            rounds in proptest::collection::vec((proptest::collection::vec(0u32..60, 0..20), 0u32..30, 1u32..30), 1..5),
        ) {
            let mut order = Order::default();
            for (first, start, len) in rounds {
                let used = std::slice::from_ref(&(start..start + len)).to_vec();
                order = order.rearranged(&first, &used).0;
                for frame in 0..100 {
                    prop_assert_eq!(order.frame(order.place(Frame(frame))), Frame(frame));
                }
            }
        }
    }
}
