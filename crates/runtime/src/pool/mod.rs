//! Sandboxes made ahead of need: [`SandboxPool`], the forks of a template, and [`Pool`], which it is made of.
//!
//! ```text
//!                       make()                    claim: apply()
//!   the keeper, a task ───────> ready (some) ──────────────────────> handed out
//!        ^   |                     |    ^                |
//!        |   +─────────────────────+    +────────────────+ does not fit: stays ready,
//!        |     retire(): too old, dead, outdated,          and make_fresh() serves the claim
//!        |     too many, given up
//!        +── nudged by claims, a timer, and the shutdown
//! ```
//!
//! What is made ahead must not be less than what is made on demand. So what a claim asks for (limits, policies) is
//! applied *before* the item is handed out; if the source cannot apply it to one that is ready, a fresh one is made with it;
//! and if neither works, the claim fails. There is no fourth way out.
//!
//! A hit costs one lock and one pop, and whatever `apply` does. Everything else is done by the keeper, a task of its own: it
//! makes new items, follows the demand between a floor and a ceiling, and retires what is no longer good. An item is
//! always in exactly one place: being made, ready, with one claim, handed out, or being retired. Dropping a claim halfway
//! gives its item to the keeper to retire, since what was asked may be half applied.
//!
//! The pool knows nothing of admission. A [`PoolSource`] asks for a permit where it makes something, keeps it in the item, and
//! bounds with it how many fresh ones are made at once; see [`crate::admission`]. For `make`, use
//! [`Admission::try_admit`](crate::admission::Admission::try_admit), which drives out nobody, and let
//! [`Admission::on_pressure`](crate::admission::Admission::on_pressure) call [`Pool::release_idle`] through a weak reference.

mod config;
mod demand;
mod error;
mod keeper;
mod sandboxes;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use self::config::Reason;
pub use self::config::{PoolConfig, PoolStats, Retired};
use self::demand::Demand;
pub use self::error::{ClaimError, RefillError, RefillFailure};
pub use self::sandboxes::{Ask, MakeError, PooledSandbox, SandboxPool, SandboxPoolConfig};

/// Makes and keeps what a [`Pool`] hands out.
///
/// Its futures may be dropped at any point, and must leave nothing behind then. Only `retire` is always
/// awaited to its end, unless the tokio runtime ends.
pub trait PoolSource: Send + Sync + 'static {
    /// What is handed out. Dropping it must give back what it holds, too.
    type Item: Send + 'static;
    /// Why one cannot be made or made to fit.
    type Error: Error + Send + Sync + 'static;
    /// What a claim asks for, such as limits and policies.
    type Ask: Clone + Default + Send + Sync + 'static;

    /// The version of what items are made from. Items of another version are not handed out. Called with a lock held,
    /// so it must be quick.
    fn version(&self) -> u64;

    /// Makes one ahead of need.
    fn make(&self) -> impl Future<Output = Result<Self::Item, Self::Error>> + Send;

    /// Makes a ready item fit what is asked for. After [`Applied::NeedsFresh`] it must be as it was before; after an error it
    /// is retired.
    fn apply(
        &self,
        item: &mut Self::Item,
        ask: &Self::Ask,
    ) -> impl Future<Output = Result<Applied, Self::Error>> + Send;

    /// Makes one for this claim, with what is asked for.
    fn make_fresh(&self, ask: &Self::Ask) -> impl Future<Output = Result<Self::Item, Self::Error>> + Send;

    /// Ends an item and waits until nothing of it is left.
    fn retire(&self, item: Self::Item) -> impl Future<Output = ()> + Send;

    /// Whether an item can still be handed out. Called with a lock held, so it must be quick.
    fn is_alive(&self, item: &Self::Item) -> bool;
}

/// Whether what was asked for could be applied to a ready item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// All of it.
    Done,
    /// Some of it can only be had when an item is made, and nothing was changed.
    NeedsFresh,
}

/// Where a claimed item came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It was ready.
    Ready,
    /// It was made for this claim.
    Fresh,
}

/// What a claim gets. What it asked for is in force.
#[derive(Debug)]
pub struct Claimed<T> {
    /// The item.
    pub item: T,
    /// Where it came from.
    pub origin: Origin,
}

/// Keeps items ready to be handed out; see the [module](self). Dropping it retires them, without waiting.
pub struct Pool<S: PoolSource> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: PoolSource> {
    source: Arc<S>,
    config: PoolConfig,
    state: Mutex<State<S>>,
    /// Items that claims are just making fit. Grows only with the lock held.
    lent: AtomicUsize,
    hits: AtomicU64,
    /// Set once, with the lock held.
    is_closed: AtomicBool,
    /// Wakes the keeper.
    nudge: Notify,
    /// Wakes those who wait for the pool to be full.
    changed: Notify,
    /// Whether the keeper has ended.
    is_over: watch::Sender<bool>,
}

struct Ready<T> {
    item: T,
    version: u64,
    made_at: Instant,
}

struct State<S: PoolSource> {
    /// The oldest first. The newest is handed out first: its memory is the warmest, and what is too many ages.
    ready: VecDeque<Ready<S::Item>>,
    making: usize,
    /// Items that wait to be retired.
    doomed: VecDeque<S::Item>,
    target: usize,
    demand: Demand,
    /// Since `demand` heard of claims.
    new_claims: u64,
    failure: Option<RefillFailure<S::Error>>,
    /// After a refill that failed, nothing is made before.
    retry_from: Instant,
    /// After items were given up to make room, nothing is made before.
    paused_until: Instant,
    must_sweep: bool,
    /// The counts; what the fields above say is filled in when they are asked for.
    stats: PoolStats,
}

impl<S: PoolSource> Pool<S> {
    /// Makes a pool and begins to fill it. Needs a tokio context with time, in which its keeper runs until the pool is shut
    /// down or dropped.
    pub fn new(source: S, config: PoolConfig) -> Self {
        Self::with_shared(Arc::new(source), config)
    }

    /// As [`new`](Self::new), with a source that others use too.
    pub fn with_shared(source: Arc<S>, config: PoolConfig) -> Self {
        let now = Instant::now();
        let demand = Demand::new(now);
        let state = State {
            ready: VecDeque::new(),
            making: 0,
            doomed: VecDeque::new(),
            target: demand.target(&config),
            demand,
            new_claims: 0,
            failure: None,
            retry_from: now,
            paused_until: now,
            must_sweep: false,
            stats: PoolStats::default(),
        };
        let inner = Arc::new(Inner {
            source,
            config,
            state: Mutex::new(state),
            lent: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            nudge: Notify::new(),
            changed: Notify::new(),
            is_over: watch::Sender::new(false),
        });
        tokio::spawn(keeper::keep(inner.clone()));
        Self { inner }
    }

    /// Where the items come from.
    pub fn source(&self) -> &S {
        &self.inner.source
    }

    /// Hands out a ready item that was made to fit `ask`, or else a fresh one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub async fn claim(
        &self,
        ask: &S::Ask,
        deadline: Instant,
    ) -> Result<Claimed<S::Item>, ClaimError<S::Error>> {
        let (inner, started) = (&*self.inner, Instant::now());
        let late = || ClaimError::DeadlinePassed {
            waited: started.elapsed(),
            refill: inner.state().failure.clone(),
        };
        if let Some(mut lent) = inner.lend(started)? {
            match timeout_at(deadline, inner.source.apply(&mut lent.ready_mut().item, ask)).await {
                Ok(Ok(Applied::Done)) => return Ok(lent.hand_out()),
                Ok(Ok(Applied::NeedsFresh)) => lent.put_back(),
                Ok(Err(_)) => {
                    // A fresh one says better what is wrong, if something is wrong with what is asked for.
                    inner.state().stats.apply_failures += 1;
                    lent.doom(Reason::Unfit);
                }
                Err(_) => return Err(late()),
            }
        }
        inner.state().stats.misses += 1;
        let making = Instant::now();
        match timeout_at(deadline, inner.source.make_fresh(ask)).await {
            Ok(Ok(item)) => {
                inner.state().demand.made_fresh(making.elapsed());
                Ok(Claimed { item, origin: Origin::Fresh })
            }
            Ok(Err(error)) => {
                let mut state = inner.state();
                state.stats.fresh_failures += 1;
                Err(ClaimError::Failed { error, refill: state.failure.clone() })
            }
            Err(_) => Err(late()),
        }
    }

    /// Gives up as many as `count` ready items, the oldest first, to make room for others. Answers how many; they are
    /// gone a little later. Nothing is made for a while then.
    pub fn release_idle(&self, count: usize) -> usize {
        let mut state = self.inner.state();
        let count = count.min(state.ready.len());
        for _ in 0..count {
            if let Some(ready) = state.ready.pop_front() {
                state.doom(ready.item, Reason::Released);
            }
        }
        if count > 0 {
            let until = Instant::now() + self.inner.config.pause_after_release;
            state.paused_until = state.paused_until.max(until);
        }
        drop(state);
        self.inner.nudge.notify_one();
        count
    }

    /// Goes over to a new version of the source at once. That items of an earlier one could not be made says nothing of the
    /// new one: [`filled`](Self::filled) and claims tell it no more, and the pause after it is over.
    pub fn renew(&self) {
        let mut state = self.inner.state();
        state.failure = None;
        state.retry_from = Instant::now();
        drop(state);
        self.sweep();
    }

    /// Looks at all items now instead of with the next sweep: some may have died.
    pub fn sweep(&self) {
        self.inner.state().must_sweep = true;
        self.inner.nudge.notify_one();
    }

    /// Waits until as many items are ready as should be. Returns at once when the pool is shut down.
    ///
    /// # Errors
    /// As soon as one cannot be made.
    pub async fn filled(&self) -> Result<(), RefillFailure<S::Error>> {
        loop {
            let mut changed = std::pin::pin!(self.inner.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.inner.state();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if state.ready.len() >= state.target || self.inner.is_closed.load(SeqCst) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Hands out nothing any more, and waits until every item that is not handed out is retired. Claims that are just making an
    /// item fit are waited for; they still get it. May be called more than once.
    pub async fn shutdown(&self) {
        self.inner.close();
        // The sender is in `inner`, so this cannot fail.
        let _ = self.inner.is_over.subscribe().wait_for(|is_over| *is_over).await;
    }

    /// What the pool has, and what it has done.
    pub fn stats(&self) -> PoolStats {
        let state = self.inner.state();
        PoolStats {
            ready: state.ready.len(),
            making: state.making,
            target: state.target,
            hits: self.inner.hits.load(SeqCst),
            refill_failures_in_a_row: state.failure.as_ref().map_or(0, |failure| failure.in_a_row),
            claims_per_s: state.demand.claims_per_s(),
            make_ms: state.demand.make_ms(),
            ..state.stats
        }
    }
}

impl<S: PoolSource> Drop for Pool<S> {
    fn drop(&mut self) {
        self.inner.close();
    }
}

impl<S: PoolSource> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.inner.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<S: PoolSource> State<S> {
    /// When the next item may be made.
    fn refill_from(&self) -> Instant {
        self.retry_from.max(self.paused_until)
    }

    fn doom(&mut self, item: S::Item, reason: Reason) {
        self.stats.retired.count(reason);
        self.doomed.push_back(item);
    }
}

impl<S: PoolSource> Inner<S> {
    /// Every change is whole when the lock is given back, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the newest item that is good. The one lock of a hit.
    fn lend(&self, now: Instant) -> Result<Option<Lent<'_, S>>, ClaimError<S::Error>> {
        let mut state = self.state();
        if self.is_closed.load(SeqCst) {
            return Err(ClaimError::ShutDown);
        }
        state.stats.claims += 1;
        state.new_claims += 1;
        let version = self.source.version();
        let ready = loop {
            match state.ready.pop_back() {
                Some(ready) => match self.fault(&ready, version) {
                    Some(reason) => state.doom(ready.item, reason),
                    None => break Some(ready),
                },
                None => break None,
            }
        };
        let lent = ready.map(|ready| {
            self.lent.fetch_add(1, SeqCst);
            Lent { inner: self, ready: Some(ready) }
        });
        let is_wanted = state.ready.len() < state.target && now >= state.refill_from();
        let needs_keeper = !state.doomed.is_empty() || is_wanted && state.making < self.config.refill_at_once;
        drop(state);
        if needs_keeper {
            self.nudge.notify_one();
        }
        Ok(lent)
    }

    /// Why an item must not be handed out.
    fn fault(&self, ready: &Ready<S::Item>, version: u64) -> Option<Reason> {
        if ready.version != version {
            Some(Reason::Outdated)
        } else if !self.source.is_alive(&ready.item) {
            Some(Reason::Dead)
        } else {
            None
        }
    }

    /// Takes an item back, or in; it is retired if there is no place for it.
    fn shelve(&self, state: &mut State<S>, ready: Ready<S::Item>) {
        if self.is_closed.load(SeqCst) {
            state.doom(ready.item, Reason::Shutdown);
        } else if state.ready.len() >= self.config.ceiling {
            state.doom(ready.item, Reason::Surplus);
        } else {
            state.ready.push_back(ready);
        }
    }

    fn close(&self) {
        let mut state = self.state();
        self.is_closed.store(true, SeqCst);
        while let Some(ready) = state.ready.pop_front() {
            state.doom(ready.item, Reason::Shutdown);
        }
        drop(state);
        self.nudge.notify_one();
        self.changed.notify_waiters();
    }
}

/// An item that a claim is making fit. Dropping it has it retired.
struct Lent<'a, S: PoolSource> {
    inner: &'a Inner<S>,
    /// `Some` until it is given away.
    ready: Option<Ready<S::Item>>,
}

impl<S: PoolSource> Lent<'_, S> {
    fn ready_mut(&mut self) -> &mut Ready<S::Item> {
        self.ready.as_mut().expect("it is given away only by methods that consume this")
    }

    fn take(&mut self) -> Ready<S::Item> {
        self.ready.take().expect("it is given away only by methods that consume this")
    }

    fn hand_out(mut self) -> Claimed<S::Item> {
        self.inner.hits.fetch_add(1, SeqCst);
        Claimed { item: self.take().item, origin: Origin::Ready }
    }

    fn put_back(mut self) {
        let ready = self.take();
        self.inner.shelve(&mut self.inner.state(), ready);
    }

    fn doom(mut self, reason: Reason) {
        let item = self.take().item;
        self.inner.state().doom(item, reason);
        self.inner.nudge.notify_one();
    }
}

impl<S: PoolSource> Drop for Lent<'_, S> {
    fn drop(&mut self) {
        let abandoned = self.ready.take();
        let was_abandoned = abandoned.is_some();
        if let Some(ready) = abandoned {
            self.inner.state().doom(ready.item, Reason::Abandoned);
        }
        self.inner.lent.fetch_sub(1, SeqCst);
        // A keeper that is about to end waits for this.
        if was_abandoned || self.inner.is_closed.load(SeqCst) {
            self.inner.nudge.notify_one();
        }
    }
}
