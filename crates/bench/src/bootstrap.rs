//! Confidence intervals by resampling (Efron, "Bootstrap methods: another look at the jackknife", 1979).

use crate::random::Random;

/// How often the samples are drawn anew.
const RESAMPLES: usize = 1000;

/// The bounds of a 95 % confidence interval.
pub(crate) type Interval = [f64; 2];

/// The interval of `statistic`, which is worked out from repetitions. Whole repetitions are drawn, since what happened in one of
/// them is not independent. `None` for fewer than two repetitions.
pub(crate) fn interval<R>(repetitions: &[R], statistic: impl Fn(&[&R]) -> Option<f64>) -> Option<Interval> {
    if repetitions.len() < 2 {
        return None;
    }
    let mut random = Random::new(repetitions.len() as u64);
    let mut drawn = Vec::with_capacity(repetitions.len());
    let found = (0..RESAMPLES).filter_map(|_| {
        drawn.clear();
        drawn.extend((0..repetitions.len()).map(|_| &repetitions[random.below(repetitions.len())]));
        statistic(&drawn)
    });
    middle(found.collect())
}

/// The interval of the quantile `fraction` of all samples of all groups. Groups are drawn, and from each its samples: samples
/// of one repetition are more alike than those of two.
pub(crate) fn quantile_interval(groups: &[Vec<f64>], fraction: f64) -> Option<Interval> {
    if groups.len() < 2 || groups.iter().any(Vec::is_empty) {
        return None;
    }
    let mut random = Random::new(groups.len() as u64);
    let mut drawn: Vec<f64> = Vec::with_capacity(groups.iter().map(Vec::len).sum());
    let found = (0..RESAMPLES).map(|_| {
        drawn.clear();
        for _ in groups {
            let group = &groups[random.below(groups.len())];
            drawn.extend(group.iter().map(|_| group[random.below(group.len())]));
        }
        let place = (fraction * (drawn.len() - 1) as f64).round() as usize;
        *drawn.select_nth_unstable_by(place, f64::total_cmp).1
    });
    middle(found.collect())
}

/// The interval of how much greater the median of the second groups is than that of the first, as a share of the first. Groups are
/// drawn, and from each its samples.
pub(crate) fn difference_interval(first: &[Vec<f64>], second: &[Vec<f64>]) -> Option<Interval> {
    let mut random = Random::new((first.len() + second.len()) as u64);
    let mut drawn = Vec::new();
    let mut median_of = |groups: &[Vec<f64>]| {
        drawn.clear();
        for _ in groups {
            let group = &groups[random.below(groups.len())];
            drawn.extend(group.iter().map(|_| group[random.below(group.len())]));
        }
        let place = drawn.len().checked_sub(1)? / 2;
        Some(*drawn.select_nth_unstable_by(place, f64::total_cmp).1)
    };
    if [first, second].iter().any(|groups| groups.is_empty() || groups.iter().any(Vec::is_empty)) {
        return None;
    }
    let found = (0..RESAMPLES).filter_map(|_| {
        let (first, second) = (median_of(first)?, median_of(second)?);
        (first > 0.0).then(|| second / first - 1.0)
    });
    middle(found.collect())
}

/// What the middle 95 % of the resampled values lie between.
fn middle(mut found: Vec<f64>) -> Option<Interval> {
    if found.is_empty() {
        return None;
    }
    found.sort_unstable_by(f64::total_cmp);
    Some([0.025, 0.975].map(|fraction| crate::stats::percentile(&found, fraction)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{mean, median};

    #[test]
    fn an_interval_covers_the_truth_about_as_often_as_it_says() {
        let mut random = Random::new(7);
        let covered = (0..200).filter(|_| {
            let samples: Vec<f64> = (0..30).map(|_| random.unit() + random.unit()).collect();
            let interval = interval(&samples, |drawn| mean(&drawn.iter().map(|x| **x).collect::<Vec<_>>()));
            interval.is_some_and(|[low, high]| (low..=high).contains(&1.0))
        });
        let covered = covered.count();
        assert!((175..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn repetitions_that_differ_make_a_wide_interval() {
        let alike = [vec![1.0, 2.0, 3.0], vec![1.0, 2.0, 3.0], vec![1.0, 2.0, 3.0]];
        let different = [vec![1.0, 1.0, 1.0], vec![2.0, 2.0, 2.0], vec![9.0, 9.0, 9.0]];
        assert_eq!(quantile_interval(&different, 0.5), Some([1.0, 9.0]));
        let [low, high] = quantile_interval(&alike, 0.5).unwrap();
        assert!(low >= 1.0 && high <= 3.0 && low <= 2.0 && high >= 2.0);
    }

    #[test]
    fn a_difference_has_an_interval_around_it() {
        let groups =
            |factor: f64| vec![vec![10.0 * factor, 10.2 * factor], vec![10.1 * factor, 10.3 * factor]];
        let [low, high] = difference_interval(&groups(1.0), &groups(1.5)).unwrap();
        assert!(low < 0.5 && high > 0.5 && low > 0.4 && high < 0.6, "{low} {high}");
        assert_eq!(difference_interval(&[vec![]], &groups(1.0)), None);
    }

    #[test]
    fn one_repetition_has_no_interval() {
        assert_eq!(interval(&[1.0], |drawn| median(&[*drawn[0]])), None);
        assert_eq!(quantile_interval(&[vec![1.0, 2.0]], 0.5), None);
    }
}
