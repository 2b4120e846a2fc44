//! The task that makes, looks after and retires the items of a pool: [`keep`].

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::config::Reason;
use super::{Inner, PoolSource, Ready, RefillError, RefillFailure};

/// One attempt to make an item.
struct Made<S: PoolSource> {
    result: Result<S::Item, RefillError<S::Error>>,
    /// From before the attempt, so that a change in the middle is noticed.
    version: u64,
    took: Duration,
}

/// Runs until the pool is closed and every item that was not handed out is retired.
pub(super) async fn keep<S: PoolSource>(inner: Arc<Inner<S>>) {
    let _end = End(&inner);
    let mut makes: JoinSet<Made<S>> = JoinSet::new();
    let mut retirements = JoinSet::new();
    let mut next_sweep = Instant::now() + inner.config.sweep_every;
    loop {
        let now = Instant::now();
        if inner.is_due(now, next_sweep) {
            inner.sweep(now);
            next_sweep = now + inner.config.sweep_every;
        }
        while retirements.len() < inner.config.retire_at_once.max(1) {
            let Some(item) = inner.state().doomed.pop_front() else { break };
            let source = inner.source.clone();
            retirements.spawn(async move { source.retire(item).await });
        }
        let refill_at = inner.refill(now, &mut makes);
        if inner.is_drained() && makes.is_empty() && retirements.is_empty() {
            return;
        }
        tokio::select! {
            () = inner.nudge.notified() => {}
            Some(made) = makes.join_next() => inner.take_in(made),
            // One that panicked has dropped its item.
            Some(_) = retirements.join_next() => {}
            () = sleep_until(refill_at.map_or(next_sweep, |at| at.min(next_sweep))) => {}
        }
    }
}

/// Tells those who wait for the end, also when the task is dropped with its tokio runtime.
struct End<'a, S: PoolSource>(&'a Inner<S>);

impl<S: PoolSource> Drop for End<'_, S> {
    fn drop(&mut self) {
        self.0.is_over.send_replace(true);
    }
}

impl<S: PoolSource> Inner<S> {
    fn is_due(&self, now: Instant, next_sweep: Instant) -> bool {
        std::mem::take(&mut self.state().must_sweep) || now >= next_sweep
    }

    /// Whether nothing can come any more.
    fn is_drained(&self) -> bool {
        let state = self.state();
        self.is_closed.load(SeqCst) && state.doomed.is_empty() && self.lent.load(SeqCst) == 0
    }

    /// Retires what must not be handed out, and one item that is too old or too many. Takes the lock for one item at a
    /// time, so that claims do not wait.
    fn sweep(&self, now: Instant) {
        let mut index = 0;
        loop {
            let mut state = self.state();
            let Some(ready) = state.ready.get(index) else { break };
            match self.fault(ready, self.source.version()) {
                Some(reason) => {
                    let faulty = state.ready.remove(index);
                    faulty.into_iter().for_each(|ready| state.doom(ready.item, reason));
                }
                None => index += 1,
            }
        }
        let mut state = self.state();
        let is_surplus = state.ready.len() > state.target;
        let is_aged =
            |ready: &Ready<S::Item>| now.saturating_duration_since(ready.made_at) >= self.config.max_age;
        let reason = match state.ready.front() {
            Some(oldest) if is_aged(oldest) => Reason::Aged,
            Some(_) if is_surplus => Reason::Surplus,
            _ => return,
        };
        let oldest = state.ready.pop_front();
        oldest.into_iter().for_each(|ready| state.doom(ready.item, reason));
    }

    /// Starts to make what is missing. Answers when to look again, if something is missing and has to wait.
    fn refill(&self, now: Instant, makes: &mut JoinSet<Made<S>>) -> Option<Instant> {
        let mut state = self.state();
        let claims = std::mem::take(&mut state.new_claims);
        state.demand.claimed(claims, now);
        state.target = state.demand.target(&self.config);
        if self.is_closed.load(SeqCst) {
            return None;
        }
        let missing = state.target.saturating_sub(state.ready.len() + state.making);
        let from = state.refill_from();
        if missing > 0 && now < from {
            return Some(from);
        }
        let most = self.config.refill_at_once.max(1).saturating_sub(state.making);
        for _ in 0..missing.min(most) {
            state.making += 1;
            let (source, limit) = (self.source.clone(), self.config.make_timeout);
            makes.spawn(async move {
                let (version, started) = (source.version(), Instant::now());
                let result = match timeout(limit, source.make()).await {
                    Ok(result) => result.map_err(RefillError::Source),
                    Err(_) => Err(RefillError::TimedOut { after: limit }),
                };
                Made { result, version, took: started.elapsed() }
            });
        }
        None
    }

    fn take_in(&self, made: Result<Made<S>, JoinError>) {
        let mut state = self.state();
        state.making -= 1;
        // Nobody aborts these tasks.
        let (result, version, took) = match made {
            Ok(Made { result, version, took }) => (result, version, took),
            Err(_) => (Err(RefillError::Panicked), self.source.version(), Duration::ZERO),
        };
        let now = Instant::now();
        match result {
            Ok(item) => {
                state.demand.made(took);
                state.stats.refills += 1;
                state.failure = None;
                if version == self.source.version() {
                    self.shelve(&mut state, Ready { item, version, made_at: now });
                } else {
                    state.doom(item, Reason::Outdated);
                }
            }
            // The version that there is now has not failed.
            Err(_) if version != self.source.version() => state.stats.refill_failures += 1,
            Err(error) => {
                let in_a_row = state.failure.as_ref().map_or(0, |failure| failure.in_a_row).saturating_add(1);
                state.stats.refill_failures += 1;
                state.failure = Some(RefillFailure { in_a_row, error: Arc::new(error) });
                state.retry_from = state.retry_from.max(now + self.config.backoff(in_a_row));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }
}
