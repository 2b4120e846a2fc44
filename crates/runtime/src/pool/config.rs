//! What a pool keeps ready and what it has done: [`PoolConfig`], [`PoolStats`].

use std::time::Duration;

use serde::Serialize;

/// How many items a pool keeps, for how long, and how it makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// The pool makes new items while fewer than this are ready. Default: 1.
    pub floor: usize,
    /// More are never ready. Default: 16.
    pub ceiling: usize,
    /// How many are made at once, off the critical path. With less than comes in while one is made, the pool cannot keep
    /// up. Default: 2.
    pub refill_at_once: usize,
    /// How many are retired at once. Default: 4.
    pub retire_at_once: usize,
    /// How old an item may become. The oldest one is looked at in every sweep, so that a pool that was filled in one
    /// go is not emptied in one. Default: 10 minutes.
    pub max_age: Duration,
    /// How often the items are looked at: dead ones and those of an earlier version go, and one that is too old, and one
    /// that is too many. Default: 1 s.
    pub sweep_every: Duration,
    /// How long making one may take. Default: 30 s.
    pub make_timeout: Duration,
    /// The pause after a refill that failed; it doubles with each further one. Default: 50 ms.
    pub backoff: Duration,
    /// The longest such pause. Default: 10 s.
    pub max_backoff: Duration,
    /// How long nothing is made after [`Pool::release_idle`](super::Pool::release_idle). Default: 1 s.
    pub pause_after_release: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            floor: 1,
            ceiling: 16,
            refill_at_once: 2,
            retire_at_once: 4,
            max_age: Duration::from_secs(600),
            sweep_every: Duration::from_secs(1),
            make_timeout: Duration::from_secs(30),
            backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(10),
            pause_after_release: Duration::from_secs(1),
        }
    }
}

impl PoolConfig {
    /// The pause after so many failures in a row.
    pub(super) fn backoff(&self, in_a_row: u32) -> Duration {
        let factor = 1 << in_a_row.saturating_sub(1).min(30);
        self.backoff.saturating_mul(factor).min(self.max_backoff)
    }
}

/// Why an item was given up instead of handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Aged,
    Outdated,
    Dead,
    Surplus,
    Released,
    Unfit,
    Abandoned,
    Shutdown,
}

/// How many items were given up instead of handed out, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Retired {
    /// Too old.
    pub aged: u64,
    /// Made from an earlier version of the template.
    pub outdated: u64,
    /// Found dead.
    pub dead: u64,
    /// More than are wanted now.
    pub surplus: u64,
    /// Given up to make room for others.
    pub released: u64,
    /// What was asked for could not be applied.
    pub unfit: u64,
    /// Its claim was given up, or passed its deadline, while it was made to fit.
    pub abandoned: u64,
    /// Left when the pool was shut down.
    pub shutdown: u64,
}

impl Retired {
    pub(super) fn count(&mut self, reason: Reason) {
        *match reason {
            Reason::Aged => &mut self.aged,
            Reason::Outdated => &mut self.outdated,
            Reason::Dead => &mut self.dead,
            Reason::Surplus => &mut self.surplus,
            Reason::Released => &mut self.released,
            Reason::Unfit => &mut self.unfit,
            Reason::Abandoned => &mut self.abandoned,
            Reason::Shutdown => &mut self.shutdown,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { aged, outdated, dead, surplus, released, unfit, abandoned, shutdown } = *self;
        aged + outdated + dead + surplus + released + unfit + abandoned + shutdown
    }
}

/// What a pool has, and what it has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PoolStats {
    /// Items that can be handed out.
    pub ready: usize,
    /// Items that are just being made ahead of need.
    pub making: usize,
    /// How many should be ready.
    pub target: usize,
    /// Claims, but for those after the shutdown.
    pub claims: u64,
    /// Claims that got a ready item.
    pub hits: u64,
    /// Claims that needed a fresh one.
    pub misses: u64,
    /// Fresh items that could not be made.
    pub fresh_failures: u64,
    /// Ready items that what was asked for could not be applied to; a fresh one was made instead.
    pub apply_failures: u64,
    /// Items that were made ahead of need.
    pub refills: u64,
    /// Items that could not be.
    pub refill_failures: u64,
    /// How often that failed since it last went well.
    pub refill_failures_in_a_row: u32,
    /// Items that were given up.
    pub retired: Retired,
    /// Claims per second, the latest counting most.
    pub claims_per_s: f64,
    /// How long making one takes, in milliseconds, the latest counting most; 0 while none was made.
    pub make_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_limit() {
        let config = PoolConfig::default();
        let pauses = [1, 2, 3, 8, 9, u32::MAX].map(|in_a_row| config.backoff(in_a_row).as_millis());
        assert_eq!(pauses, [50, 100, 200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn every_reason_has_its_count() {
        use Reason::*;
        let mut retired = Retired::default();
        let reasons = [Aged, Outdated, Dead, Surplus, Released, Unfit, Abandoned, Shutdown];
        reasons.into_iter().for_each(|reason| retired.count(reason));
        assert_eq!((retired.total(), retired.dead), (8, 1));
    }
}
