//! How often something happens: [`Rate`], for hints when to try again.

use std::time::Duration;

use tokio::time::Instant;

/// How much the latest interval counts.
const WEIGHT: f64 = 0.1;
/// No hint is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// No hint is shorter.
const SHORTEST: Duration = Duration::from_millis(1);

/// The mean time between events, of which the latest count most.
#[derive(Debug)]
pub(super) struct Rate {
    last: Instant,
    mean_seconds: Option<f64>,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, mean_seconds: None }
    }

    pub(super) fn note(&mut self, now: Instant) {
        let interval = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        self.mean_seconds =
            Some(self.mean_seconds.map_or(interval, |mean| mean + WEIGHT * (interval - mean)));
    }

    /// How long `events` of them may take from now on; `None` when there was none yet.
    pub(super) fn time_for(&self, events: usize, now: Instant) -> Option<Duration> {
        // A long silence says more than what was before it.
        let silence = now.saturating_duration_since(self.last).as_secs_f64();
        let seconds = self.mean_seconds?.max(silence) * events as f64;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_follows_the_rate_and_the_silence() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut rate = Rate::new(start);
        assert_eq!(rate.time_for(1, at(5)), None);
        (1..=50).for_each(|event| rate.note(at(event * 10)));
        let hint = rate.time_for(3, at(500)).unwrap();
        assert!((29..=31).contains(&hint.as_millis()), "{hint:?}");
        assert_eq!(rate.time_for(1, at(2500)), Some(Duration::from_secs(2)));
        assert_eq!(rate.time_for(usize::MAX, at(500)), Some(LONGEST));
        assert_eq!(rate.time_for(0, at(500)), Some(SHORTEST));
    }
}
