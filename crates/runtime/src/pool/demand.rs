//! How many items should be ready: [`Demand`].

use std::time::Duration;

use tokio::time::Instant;

use super::config::PoolConfig;

/// A claim that is so long ago counts a third of one that comes now.
const TIME_CONSTANT: Duration = Duration::from_secs(5);
/// Claims do not come evenly: so many times the mean of what comes while one item is made should be there.
const BURSTINESS: f64 = 2.0;
/// How much the latest item counts in the time to make one.
const WEIGHT: f64 = 0.2;

/// The rate of claims and the time to make an item, both exponentially weighted.
#[derive(Debug)]
pub(super) struct Demand {
    claims_per_s: f64,
    at: Instant,
    make_s: Option<f64>,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self { claims_per_s: 0.0, at: now, make_s: None }
    }

    /// So many claims came since the last call.
    pub(super) fn claimed(&mut self, claims: u64, now: Instant) {
        let elapsed_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let constant_s = TIME_CONSTANT.as_secs_f64();
        let decay = (-elapsed_s / constant_s).exp();
        // The weight of a claim that came some time within `elapsed_s`.
        let weight = if elapsed_s > 0.0 { (1.0 - decay) / elapsed_s } else { 1.0 / constant_s };
        self.claims_per_s = self.claims_per_s * decay + claims as f64 * weight;
    }

    /// Making one took so long.
    pub(super) fn made(&mut self, took: Duration) {
        let took_s = took.as_secs_f64();
        self.make_s = Some(self.make_s.map_or(took_s, |mean| mean + WEIGHT * (took_s - mean)));
    }

    /// Making one for a claim took so long. That counts only while none was made ahead of need: more was asked of it, at a
    /// busier time.
    pub(super) fn made_fresh(&mut self, took: Duration) {
        self.make_s.get_or_insert(took.as_secs_f64());
    }

    /// What comes while one is made, with room for bursts, between floor and ceiling.
    pub(super) fn target(&self, config: &PoolConfig) -> usize {
        let expected = self.claims_per_s * self.make_s.unwrap_or(0.0);
        // A cast of a float saturates.
        let wanted = (expected * BURSTINESS).ceil() as usize;
        wanted.max(config.floor).min(config.ceiling)
    }

    pub(super) fn claims_per_s(&self) -> f64 {
        self.claims_per_s
    }

    pub(super) fn make_ms(&self) -> f64 {
        self.make_s.unwrap_or(0.0) * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_follows_the_claims_and_the_time_to_make_one() {
        let config = PoolConfig { floor: 2, ceiling: 50, ..PoolConfig::default() };
        let mut now = Instant::now();
        let mut demand = Demand::new(now);
        assert_eq!(demand.target(&config), 2);
        demand.made(Duration::from_millis(100));
        // 100 claims each second, for long.
        for _ in 0..600 {
            now += Duration::from_millis(100);
            demand.claimed(10, now);
        }
        assert!((demand.claims_per_s() - 100.0).abs() < 1.0, "{demand:?}");
        assert!((20..=21).contains(&demand.target(&config)), "{demand:?}");
        (0..100).for_each(|_| demand.made(Duration::from_secs(1)));
        assert_eq!(demand.target(&config), 50);
        demand.claimed(0, now + Duration::from_secs(60));
        assert_eq!(demand.target(&config), 2);
    }

    #[test]
    fn the_rate_does_not_depend_on_how_often_it_is_asked_for() {
        let start = Instant::now();
        let (mut often, mut seldom) = (Demand::new(start), Demand::new(start));
        for ms in 1..=10_000 {
            often.claimed(1, start + Duration::from_millis(ms));
        }
        seldom.claimed(10_000, start + Duration::from_secs(10));
        assert!((often.claims_per_s() - seldom.claims_per_s()).abs() < 1.0, "{often:?} {seldom:?}");
        // All at one moment.
        let mut burst = Demand::new(start);
        burst.claimed(10, start);
        assert_eq!(burst.claims_per_s(), 2.0);
    }

    #[test]
    fn a_ceiling_below_the_floor_wins() {
        let config = PoolConfig { floor: 5, ceiling: 0, ..PoolConfig::default() };
        assert_eq!(Demand::new(Instant::now()).target(&config), 0);
    }
}
