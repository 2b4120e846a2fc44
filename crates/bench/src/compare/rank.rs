//! Whether two sets of samples differ, without an assumption about how they are distributed.

/// Up to so many pairs of samples, p values are counted out exactly.
const EXACT_PAIRS: usize = 400;

/// What a comparison of ranks found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RankTest {
    /// The probability of a difference at least as great if both sets came from the same distribution: two-sided.
    pub(super) p: f64,
    /// Cliff's delta: how much more often a sample of the second set is greater than one of the first, than less. From -1 to 1.
    pub(super) delta: f64,
}

impl RankTest {
    /// The Mann-Whitney U test ("On a test of whether one of two random variables is stochastically larger than the other", 1947).
    /// `None` for an empty set.
    pub(super) fn of(first: &[f64], second: &[f64]) -> Option<Self> {
        if first.is_empty() || second.is_empty() {
            return None;
        }
        let (n, m) = (first.len(), second.len());
        let mut all: Vec<(f64, bool)> = first.iter().map(|x| (*x, false)).collect();
        all.extend(second.iter().map(|x| (*x, true)));
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (mut rank_sum, mut tie_term, mut before) = (0.0, 0.0, 0);
        for tied in all.chunk_by(|a, b| a.0 == b.0) {
            let len = tied.len() as f64;
            // The mean of the ranks that they share.
            let rank = before as f64 + (len + 1.0) / 2.0;
            rank_sum += rank * tied.iter().filter(|(_, is_second)| *is_second).count() as f64;
            tie_term += len * len * len - len;
            before += tied.len();
        }
        let u = rank_sum - (m * (m + 1)) as f64 / 2.0;
        let pairs = (n * m) as f64;
        let p = if tie_term == 0.0 && n * m <= EXACT_PAIRS {
            exact_p(n, m, u)
        } else {
            approximate_p(n as f64, m as f64, u, tie_term)
        };
        Some(Self { p, delta: 2.0 * u / pairs - 1.0 })
    }
}

/// From the number of orders in which U comes out as it may.
fn exact_p(n: usize, m: usize, u: f64) -> f64 {
    // of[j][v]: in how many orders of i of the first and j of the second set there are v pairs with the second greater. If
    // the greatest of all is of the first set, it is in no such pair; if it is of the second, it is in i of them.
    let width = n * m + 1;
    let mut of = vec![vec![0.0; width]; m + 1];
    of.iter_mut().for_each(|row| row[0] = 1.0);
    for i in 1..=n {
        for j in 1..=m {
            let (done, rest) = of.split_at_mut(j);
            for v in i..width {
                rest[0][v] += done[j - 1][v - i];
            }
        }
    }
    let orders = &of[m];
    let total: f64 = orders.iter().sum();
    let mean = (n * m) as f64 / 2.0;
    let distance = (u - mean).abs();
    let as_far = orders.iter().enumerate().filter(|(v, _)| (*v as f64 - mean).abs() >= distance - 1e-9);
    (as_far.map(|(_, count)| count).sum::<f64>() / total).min(1.0)
}

/// By the normal distribution, corrected for ties and for U being a whole number.
fn approximate_p(n: f64, m: f64, u: f64, tie_term: f64) -> f64 {
    let all = n + m;
    let variance = n * m / 12.0 * (all + 1.0 - tie_term / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - n * m / 2.0).abs() - 0.5).max(0.0);
    erfc(distance / variance.sqrt() / std::f64::consts::SQRT_2).min(1.0)
}

/// The complementary error function for x from 0 on, to seven digits (Abramowitz and Stegun, 7.1.26).
fn erfc(x: f64) -> f64 {
    const TERMS: [f64; 5] = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let sum = TERMS.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    sum * (-x * x).exp()
}

/// Holds back p values of many tests at once so that of those called different, at most the share `alpha` is expected to be
/// none (Benjamini and Hochberg, "Controlling the false discovery rate", 1995). Answers which are different.
pub(super) fn discoveries(p: &[f64], alpha: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|a, b| p[*a].total_cmp(&p[*b]));
    let holds = |(place, index): &(usize, &usize)| p[**index] <= alpha * (place + 1) as f64 / p.len() as f64;
    let last = order.iter().enumerate().filter(holds).map(|(place, _)| place).next_back();
    let mut found = vec![false; p.len()];
    if let Some(last) = last {
        order[..=last].iter().for_each(|index| found[*index] = true);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sets_are_counted_out() {
        // All of the second greater: 2 of the 20 orders of 3 and 3 are as extreme.
        let test = RankTest::of(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).unwrap();
        assert!((test.p - 0.1).abs() < 1e-12 && test.delta == 1.0, "{test:?}");
        // U = 5 of 9: of 20 orders, those with U <= 4 or >= 5, which are all.
        let test = RankTest::of(&[1.0, 4.0, 5.0], &[2.0, 3.0, 6.0]).unwrap();
        assert!((test.p - 1.0).abs() < 1e-12, "{test:?}");
        let all_less: Vec<f64> = (0..5).map(f64::from).collect();
        let all_more: Vec<f64> = (5..10).map(f64::from).collect();
        // 2 / 252
        assert!((RankTest::of(&all_more, &all_less).unwrap().p - 2.0 / 252.0).abs() < 1e-12);
        assert_eq!(RankTest::of(&[], &[1.0]), None);
    }

    #[test]
    fn large_sets_and_ties_go_by_the_normal_distribution() {
        // 40 equal pairs are no difference.
        let same = [3.0; 40];
        assert_eq!(RankTest::of(&same, &same).map(|test| (test.p, test.delta)), Some((1.0, 0.0)));
        // The exact and the approximate value agree where both are known.
        let (a, b): (Vec<f64>, Vec<f64>) =
            ((0..20).map(f64::from).collect(), (0..20).map(|n| f64::from(n) + 4.5).collect());
        let exact = RankTest::of(&a, &b).unwrap().p;
        let approximate =
            approximate_p(20.0, 20.0, 20.0 * 20.0 / 2.0 * (1.0 + RankTest::of(&a, &b).unwrap().delta), 0.0);
        assert!((exact - approximate).abs() < 0.005, "{exact} {approximate}");
        assert!((erfc(0.0) - 1.0).abs() < 1e-6 && (erfc(1.0) - 0.157_299_2).abs() < 1e-6);
    }

    #[test]
    fn of_many_tests_those_that_stand_out_are_found() {
        assert_eq!(discoveries(&[0.5, 0.001, 0.02, 0.9], 0.05), [false, true, true, false]);
        assert_eq!(discoveries(&[0.04, 0.04, 0.9], 0.05), [false, false, false]);
        assert_eq!(discoveries(&[0.04, 0.04], 0.05), [true, true]);
        assert!(discoveries(&[], 0.05).is_empty());
    }
}
