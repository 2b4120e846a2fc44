//! Means, medians and percentiles, exact from the samples.

use serde::{Deserialize, Serialize};

/// What is said about a set of samples; all in the unit of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many samples.
    pub n: usize,
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The standard deviation of the sample (divided by n - 1); 0 for one sample.
    pub stddev: f64,
}

impl Summary {
    /// Describes `samples`; `None` for none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let mean = mean(&sorted)?;
        let squares: f64 = sorted.iter().map(|x| (x - mean).powi(2)).sum();
        let stddev = if sorted.len() > 1 { (squares / (sorted.len() - 1) as f64).sqrt() } else { 0.0 };
        let at = |fraction| percentile(&sorted, fraction);
        let n = sorted.len();
        Some(Self { n, min, p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), max, mean, stddev })
    }
}

/// The value below which `fraction` of the samples lie, between two samples in proportion (as numpy does by default).
/// `sorted` must be sorted and not empty.
pub(crate) fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

/// The arithmetic mean; `None` for no samples.
pub(crate) fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// The median; `None` for no samples.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    Summary::of(samples).map(|s| s.p50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_agrees_with_hand_computed_values() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0, 10.0]).unwrap();
        assert_eq!(summary.min, 1.0);
        assert_eq!(summary.max, 10.0);
        assert_eq!(summary.p50, 3.0);
        assert_eq!(summary.mean, 4.0);
        // Place 0.9 * 4 = 3.6: six tenths of the way from 4 to 10.
        assert!((summary.p90 - 7.6).abs() < 1e-12);
        assert!((summary.p99 - 9.76).abs() < 1e-12);
        // Squares 0 + 9 + 1 + 4 + 36 = 50, divided by 4.
        assert!((summary.stddev - 12.5f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn an_even_number_of_samples_has_its_median_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 3.0, 10.0]), Some(2.5));
    }

    #[test]
    fn one_sample_is_all_of_its_percentiles() {
        let summary = Summary::of(&[7.5]).unwrap();
        assert_eq!((summary.min, summary.p50, summary.p99, summary.max), (7.5, 7.5, 7.5, 7.5));
        assert_eq!(summary.stddev, 0.0);
    }

    #[test]
    fn no_samples_have_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(mean(&[]), None);
    }
}
