//! The Universal Scalability Law (Gunther, "Guerrilla Capacity Planning", 2007): throughput with N agents at once is
//! `X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1))`.

use serde::Serialize;

/// The law as it fits what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usl {
    /// Throughput of one agent, as fitted, in lives per second.
    pub lambda: f64,
    /// Contention: the share of a life in which agents wait for the same thing. From 0 on.
    pub sigma: f64,
    /// Coherency: the cost of each agent to each other. From 0 on.
    pub kappa: f64,
    /// Where throughput is greatest, in agents; absent where it never falls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_agents: Option<f64>,
    /// The most throughput that the law allows, in lives per second; absent where nothing bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_lives_per_second: Option<f64>,
    /// Where half of that is reached: the knee, in agents. Beyond it agents mostly wait for each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knee_agents: Option<f64>,
    /// The root mean square of the relative differences between the law and what was measured.
    pub residual: f64,
    /// How many agent counts it was fitted to.
    pub points: usize,
}

/// With fewer points three parameters fit anything.
const MIN_POINTS: usize = 4;

impl Usl {
    /// Fits the law to pairs of N and lives per second: least squares of relative differences of the time per life,
    /// `N/X = (1 + sigma (N-1) + kappa N (N-1)) / lambda`, which is linear in its three coefficients; none of them may be negative.
    pub(crate) fn fit(points: &[(usize, f64)]) -> Option<Self> {
        let points: Vec<(f64, f64)> =
            points.iter().filter(|(_, x)| *x > 0.0).map(|(n, x)| (*n as f64, *x)).collect();
        if points.len() < MIN_POINTS {
            return None;
        }
        let subsets: [&[usize]; 4] = [&[0, 1, 2], &[0, 1], &[0, 2], &[0]];
        let fits = subsets.iter().filter_map(|terms| coefficients(&points, terms));
        let best = fits
            .filter(|[a, b, c]| *a > 0.0 && *b >= 0.0 && *c >= 0.0)
            .map(|fit| (squares(&points, &fit), fit))
            .min_by(|x, y| x.0.total_cmp(&y.0));
        let (_, [a, b, c]) = best?;
        let negligible = |x: f64| if x < 1e-9 { 0.0 } else { x };
        let (lambda, sigma, kappa) = (1.0 / a, negligible(b / a), negligible(c / a));
        let at = |n: f64| lambda * n / (1.0 + sigma * (n - 1.0) + kappa * n * (n - 1.0));
        let relative = points.iter().map(|(n, x)| ((at(*n) - x) / x).powi(2)).sum::<f64>();
        let peak_agents = (kappa > 0.0 && sigma < 1.0).then(|| ((1.0 - sigma) / kappa).sqrt().max(1.0));
        let bound = (sigma > 0.0).then(|| lambda / sigma);
        let peak_lives_per_second = peak_agents.map(at).or(bound);
        Some(Self {
            lambda,
            sigma,
            kappa,
            peak_agents,
            peak_lives_per_second,
            knee_agents: peak_lives_per_second.and_then(|peak| knee(at, peak / 2.0)),
            residual: (relative / points.len() as f64).sqrt(),
            points: points.len(),
        })
    }

    /// Throughput of `agents` at once, in lives per second.
    pub fn at(&self, agents: f64) -> f64 {
        let Self { lambda, sigma, kappa, .. } = self;
        lambda * agents / (1.0 + sigma * (agents - 1.0) + kappa * agents * (agents - 1.0))
    }
}

/// The least number of agents, 1 or more, with so much throughput; it grows up to there.
fn knee(at: impl Fn(f64) -> f64, throughput: f64) -> Option<f64> {
    const MOST_AGENTS: f64 = 1e6;
    let (mut low, mut high) = (1.0, 1.0);
    while at(high) < throughput {
        high *= 1.1;
        if high > MOST_AGENTS {
            return None;
        }
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at(middle) < throughput { low = middle } else { high = middle }
    }
    Some(high)
}

/// What is fitted: the terms of the time per life.
fn terms(n: f64) -> [f64; 3] {
    [1.0, n - 1.0, n * (n - 1.0)]
}

fn squares(points: &[(f64, f64)], fit: &[f64; 3]) -> f64 {
    let difference = |(n, x): &(f64, f64)| {
        let fitted: f64 = terms(*n).iter().zip(fit).map(|(term, coefficient)| term * coefficient).sum();
        (fitted * x / n - 1.0).powi(2)
    };
    points.iter().map(difference).sum()
}

/// The coefficients of the `chosen` terms by the normal equations; the others are 0.
fn coefficients(points: &[(f64, f64)], chosen: &[usize]) -> Option<[f64; 3]> {
    let size = chosen.len();
    let mut rows = vec![vec![0.0; size + 1]; size];
    for (n, x) in points {
        let weighted = terms(*n).map(|term| term * x / n);
        for (i, row) in rows.iter_mut().enumerate() {
            for j in 0..size {
                row[j] += weighted[chosen[i]] * weighted[chosen[j]];
            }
            row[size] += weighted[chosen[i]];
        }
    }
    let solution = solve(rows)?;
    let mut all = [0.0; 3];
    chosen.iter().zip(solution).for_each(|(term, value)| all[*term] = value);
    Some(all)
}

/// Gaussian elimination with pivots; each row ends with its right side.
fn solve(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let size = rows.len();
    for column in 0..size {
        let pivot =
            (column..size).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        let lead = rows[column].clone();
        if lead[column].abs() < f64::MIN_POSITIVE {
            return None;
        }
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column] / lead[column];
            row.iter_mut().zip(&lead).for_each(|(value, lead)| *value -= factor * lead);
        }
    }
    Some((0..size).map(|i| rows[i][size] / rows[i][i]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(lambda: f64, sigma: f64, kappa: f64) -> Vec<(usize, f64)> {
        let at = |n: usize| {
            let n = n as f64;
            lambda * n / (1.0 + sigma * (n - 1.0) + kappa * n * (n - 1.0))
        };
        [1, 5, 10, 25, 50, 100, 200].map(|n| (n, at(n))).into()
    }

    #[test]
    fn the_law_is_found_again() {
        let usl = Usl::fit(&law(20.0, 0.05, 0.001)).unwrap();
        assert!((usl.lambda - 20.0).abs() < 1e-6 && (usl.sigma - 0.05).abs() < 1e-6, "{usl:?}");
        assert!((usl.kappa - 0.001).abs() < 1e-8 && usl.residual < 1e-9, "{usl:?}");
        // sqrt(0.95 / 0.001)
        assert!((usl.peak_agents.unwrap() - 30.822).abs() < 0.001);
        assert!((usl.at(usl.knee_agents.unwrap()) - usl.peak_lives_per_second.unwrap() / 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_law_without_coherency_is_bounded_and_has_no_peak() {
        let usl = Usl::fit(&law(10.0, 0.5, 0.0)).unwrap();
        assert!(usl.kappa < 1e-9 && (usl.sigma - 0.5).abs() < 1e-6, "{usl:?}");
        assert!((usl.peak_lives_per_second.unwrap() - 20.0).abs() < 1e-3, "{usl:?}");
    }

    #[test]
    fn no_coefficient_is_negative_where_throughput_grows_beyond_n() {
        let points: Vec<(usize, f64)> = [1, 2, 4, 8, 16].map(|n| (n, (n as f64).powf(1.1))).into();
        let usl = Usl::fit(&points).unwrap();
        assert_eq!((usl.sigma, usl.kappa, usl.peak_agents), (0.0, 0.0, None));
        assert!(usl.residual > 0.01);
        assert_eq!(Usl::fit(&points[..3]), None);
    }
}
