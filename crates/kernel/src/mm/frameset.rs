//! Which frames hold something: a set that finds its lowest absent number fast.

use std::ops::Range;

/// A set of numbers below a bound, as a tree of bitmaps. A bit of the lowest level stands for a number, a bit
/// above for 64 bits below that are all set. Words that were never set are never touched, so the set takes
/// host memory for what was in it and not for what could be.
pub struct FrameSet {
    /// From the numbers up to one word.
    levels: Vec<Vec<u64>>,
    bound: u32,
    /// No number from here on was ever in the set.
    end: u32,
}

impl FrameSet {
    /// Returns an empty set of numbers below `bound`.
    pub fn new(bound: u32) -> FrameSet {
        let mut levels = Vec::new();
        let mut len = bound as usize;
        loop {
            len = len.div_ceil(64).max(1);
            levels.push(vec![0; len]);
            if len == 1 {
                return FrameSet { levels, bound, end: 0 };
            }
        }
    }

    /// Says whether a number is in the set.
    #[cfg(test)]
    pub fn contains(&self, number: u32) -> bool {
        self.levels[0][number as usize / 64] & bit(number) != 0
    }

    /// Adds the numbers of a range.
    pub fn insert(&mut self, numbers: Range<u32>) {
        debug_assert!(numbers.end <= self.bound);
        self.end = self.end.max(numbers.end);
        for number in numbers {
            let mut number = number;
            for level in &mut self.levels {
                let word = &mut level[number as usize / 64];
                *word |= bit(number);
                if *word != u64::MAX {
                    break;
                }
                number /= 64;
            }
        }
    }

    /// Takes out the numbers of a range.
    pub fn remove(&mut self, numbers: Range<u32>) {
        for number in numbers {
            let mut number = number;
            for level in &mut self.levels {
                let word = &mut level[number as usize / 64];
                let was_full = *word == u64::MAX;
                *word &= !bit(number);
                if !was_full {
                    break;
                }
                number /= 64;
            }
        }
    }

    /// Returns the lowest number that is not in the set.
    pub fn first_absent(&self) -> Option<u32> {
        let mut index = 0;
        for level in self.levels.iter().rev() {
            let word = level.get(index)?;
            if *word == u64::MAX {
                return None;
            }
            index = index * 64 + word.trailing_ones() as usize;
        }
        u32::try_from(index).ok().filter(|number| *number < self.bound)
    }

    /// Returns up to `count` consecutive numbers that are not in the set: the lowest such run among the first
    /// few gaps, or else numbers that were never in it, or else the longest of those gaps.
    pub fn absent_run(&self, count: u32) -> Range<u32> {
        const GAPS: usize = 16;
        let Some(mut start) = self.first_absent() else { return 0..0 };
        let mut longest = start..start;
        for _ in 0..GAPS {
            let limit = start.saturating_add(count).min(self.bound);
            let end = self.next(start, Bit::Set, limit);
            if end - start > longest.end - longest.start {
                longest = start..end;
            }
            if end - start == count || start >= self.end {
                return longest;
            }
            start = self.next(end, Bit::Clear, self.bound);
        }
        let fresh = self.end..self.end.saturating_add(count).min(self.bound);
        if fresh.len() > longest.len() { fresh } else { longest }
    }

    /// Returns the maximal runs of numbers in the set, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u32>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, Bit::Set, self.end);
            at = self.next(start, Bit::Clear, self.end);
            (start < at).then_some(start..at)
        })
    }

    /// Returns the first number from `from` on that is in the set, or is not, or `limit` where none is below it.
    fn next(&self, from: u32, wanted: Bit, limit: u32) -> u32 {
        let flip = if wanted == Bit::Set { 0 } else { u64::MAX };
        let words = &self.levels[0];
        let mut mask = u64::MAX << (from % 64);
        for index in from / 64..limit.min(self.end).div_ceil(64) {
            let found = (words[index as usize] ^ flip) & mask;
            if found != 0 {
                return (index * 64 + found.trailing_zeros()).min(limit);
            }
            mask = u64::MAX;
        }
        if wanted == Bit::Set { limit } else { from.max(self.end).min(limit) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bit {
    Set,
    Clear,
}

fn bit(number: u32) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::FrameSet;

    #[test]
    fn the_lowest_absent_number_is_found_at_every_level_of_the_tree() {
        for bound in [1, 63, 64, 65, 4096, 4097, 300_000] {
            let mut set = FrameSet::new(bound);
            set.insert(0..bound);
            assert_eq!(set.first_absent(), None, "{bound}");
            for number in [0, bound / 2, bound - 1] {
                set.remove(number..number + 1);
                assert_eq!(set.first_absent(), Some(number), "{bound}");
                set.insert(number..number + 1);
            }
        }
    }

    #[test]
    fn a_run_is_the_lowest_that_is_long_enough() {
        let mut set = FrameSet::new(200);
        set.insert(0..100);
        set.remove(10..13);
        set.remove(50..60);
        assert_eq!(set.absent_run(3), 10..13);
        assert_eq!(set.absent_run(8), 50..58);
        assert_eq!(set.absent_run(32), 100..132);
        set.insert(100..190);
        assert_eq!(set.absent_run(32), 50..60);
        assert_eq!(set.absent_run(1), 10..11);
        set.insert(0..200);
        assert_eq!(set.absent_run(4), 0..0);
    }

    #[test]
    fn runs_are_maximal_and_in_order() {
        let mut set = FrameSet::new(1000);
        assert_eq!(set.runs().count(), 0);
        for range in [0..1, 63..65, 128..700, 999..1000] {
            set.insert(range);
        }
        set.remove(200..201);
        assert_eq!(set.runs().collect::<Vec<_>>(), [0..1, 63..65, 128..200, 201..700, 999..1000]);
        assert!(set.contains(999) && !set.contains(200));
    }
}
