//! How much of a host file is read with one page that is wanted.

use std::collections::BTreeMap;
use std::ops::Range;

/// How many pages are read together, aligned to as many. An exit costs far more than the pages around.
const WINDOW: u64 = 32;

/// Returns the pages to read together with page `index` of a file that has `end` pages: those around it that are
/// not in `pages` and that no page there separates from it. It is never empty.
pub fn window<P>(pages: &BTreeMap<u64, P>, index: u64, end: u64) -> Range<u64> {
    let start = index - index % WINDOW;
    let first = pages.range(start..index).next_back().map_or(start, |(there, _)| there + 1);
    let end = end.min(start.saturating_add(WINDOW)).max(index.saturating_add(1));
    let last = pages.range(index..end).next().map_or(end, |(there, _)| *there);
    first..last.max(index.saturating_add(1))
}

/// Returns a page of each window of a range.
pub fn windows(range: Range<u64>) -> impl Iterator<Item = u64> {
    let first = range.start;
    (first - first % WINDOW..range.end).step_by(WINDOW as usize).map(move |index| index.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(there: &[u64], index: u64, end: u64) -> Range<u64> {
        window(&there.iter().map(|index| (*index, ())).collect(), index, end)
    }

    #[test]
    fn is_aligned_and_ends_with_the_file() {
        assert_eq!(around(&[], 40, 1000), 32..64);
        assert_eq!(around(&[], 32, 50), 32..50);
        assert_eq!(around(&[], 3, 4), 0..4);
        assert_eq!(around(&[], u64::MAX - 1, u64::MAX), u64::MAX - 31..u64::MAX);
    }

    #[test]
    fn has_a_page_of_each_window() {
        assert_eq!(windows(40..100).collect::<Vec<_>>(), [40, 64, 96]);
        assert_eq!(windows(64..65).collect::<Vec<_>>(), [64]);
        assert_eq!(windows(64..64).count(), 0);
    }

    #[test]
    fn stops_at_what_is_there() {
        assert_eq!(around(&[35, 45, 46], 40, 1000), 36..45);
        assert_eq!(around(&[39, 41], 40, 1000), 40..41);
    }
}
