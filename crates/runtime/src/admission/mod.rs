//! Whether one more sandbox may start: [`Admission`].
//!
//! ```text
//!              fits now                    started()                 dropped
//!   admit ───────────────────> starting ─────────────> alive ──────────────────> gone
//!     |                           ^                                                |
//!     | too little                | its turn, and it fits                          | makes room
//!     v                           |                                                v
//!   idle sandboxes are asked ──> waiting ──> refused: the deadline passed    who is next?
//!   to go, and then ...           |
//!                                 +──> gone: the caller gave up
//! ```
//!
//! A machine that takes one sandbox too many fails them all, so each sandbox needs a [`Permit`] first. One is given when
//! the machine has memory, descriptors and processes left beyond a reserve ([`HostReadings`]), and neither too many
//! sandboxes are there nor too many just starting ([`AdmissionConfig`]). What was promised to a sandbox counts until a
//! reading shows that it is used. What a sandbox costs is learned: [`CostEstimate`].
//!
//! If there is too little, idle sandboxes are given up first ([`Admission::on_pressure`]). Then the caller waits until its
//! deadline, or is [`Refused`] with what was short and when to try again. Tenants take turns; within a
//! [`Tenant`], the first to ask is the first to get. The order is strict: when the next does not fit, nobody behind
//! it goes first, or else a large sandbox would wait for ever while small ones pass. It holds the others up no longer
//! than until its own deadline.
//!
//! Nobody polls. Each end and each finished start wakes whoever is next. Only while the next one waits for something that
//! others than sandboxes may give back, a task reads the machine again from time to time; it ends with the queue.

mod config;
mod cost;
mod host;
mod ledger;
mod queue;
mod rate;
mod refused;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub use self::config::AdmissionConfig;
pub use self::cost::{Cost, CostEstimate};
pub use self::host::{HostReadings, ProcHost, Readings, ReadingsError};
use self::ledger::{Holding, Ledger};
pub use self::queue::Tenant;
use self::queue::{FairQueue, Ticket};
use self::rate::Rate;
pub use self::refused::{Pressure, Refused, Resource, Shortage};

/// Decides whether one more sandbox may start; see the [module](self). Clones share everything.
///
/// ```no_run
/// # use lg_runtime::admission::{Admission, AdmissionConfig, Cost, CostEstimate};
/// # use std::time::Duration;
/// # use tokio::time::Instant;
/// # async fn example() -> Result<(), lg_runtime::admission::Refused> {
/// let admission = Admission::new(AdmissionConfig::default());
/// let estimate = CostEstimate::new(Cost { memory_bytes: 64 << 20, descriptors: 6, processes: 1 });
/// let mut permit = admission.admit(estimate.cost(), Instant::now() + Duration::from_secs(1)).await?;
/// // ... the sandbox is started ...
/// permit.started();
/// // ... it works, and is measured ...
/// let private_bytes = 3 << 20;
/// permit.measured(private_bytes);
/// estimate.observe(private_bytes);
/// // ... it is gone, and the next may come ...
/// drop(permit);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admission {
    inner: Arc<Inner>,
}

/// Answers how many idle sandboxes it gives up; `None` when it never will again.
type Hook = dyn Fn(&Pressure) -> Option<usize> + Send + Sync;

struct Inner {
    config: AdmissionConfig,
    host: Box<dyn HostReadings>,
    state: Mutex<State>,
    hooks: Mutex<Vec<Arc<Hook>>>,
    /// Wakes the steward.
    nudge: Notify,
}

struct State {
    ledger: Ledger,
    queue: FairQueue<Waiter>,
    /// What the next in the queue is short of; `Some` exactly while somebody waits, as of the last look.
    blocked: Option<Shortage>,
    /// When the machine was last read.
    read_at: Option<Instant>,
    /// Why that failed.
    unreadable: Option<ReadingsError>,
    /// Whether a sandbox has ended since.
    is_outdated: bool,
    is_closed: bool,
    has_steward: bool,
    ends: Rate,
    starts: Rate,
    admitted: u64,
    refused: u64,
    abandoned: u64,
}

struct Waiter {
    cost: Cost,
    grant: oneshot::Sender<Result<Permit, Refused>>,
}

/// What happened so far, and what is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AdmissionStats {
    /// Sandboxes that have a permit, starting ones included.
    pub alive: usize,
    /// Of those, the ones that have not started yet.
    pub starting: usize,
    /// How many wait.
    pub waiting: usize,
    /// What was promised and is not used yet.
    pub promised: Cost,
    /// How many were ever admitted.
    pub admitted: u64,
    /// How many were ever refused.
    pub refused: u64,
    /// How many ever gave up waiting before their deadline.
    pub abandoned: u64,
}

/// Why there is no permit yet.
enum Setback {
    Refused(Refused),
    Short {
        short: Shortage,
        /// Whether nobody else is before the caller.
        is_next: bool,
        refused: Refused,
    },
    Queued(Waiting),
}

impl Admission {
    /// Admission to the machine that this runs on.
    pub fn new(config: AdmissionConfig) -> Self {
        Self::with_host(config, ProcHost::new())
    }

    /// Admission to a machine that `host` reads.
    pub fn with_host(config: AdmissionConfig, host: impl HostReadings) -> Self {
        let now = Instant::now();
        let state = State {
            ledger: Ledger::default(),
            queue: FairQueue::new(),
            blocked: None,
            read_at: None,
            unreadable: None,
            is_outdated: false,
            is_closed: false,
            has_steward: false,
            ends: Rate::new(now),
            starts: Rate::new(now),
            admitted: 0,
            refused: 0,
            abandoned: 0,
        };
        let inner = Inner {
            config,
            host: Box::new(host),
            state: Mutex::new(state),
            hooks: Mutex::new(Vec::new()),
            nudge: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Adds somebody who is asked to give up idle sandboxes before anybody has to wait, or is refused, for lack of memory, descriptors,
    /// processes or because too many are alive; and again while somebody waits. It answers how many it gives up; their
    /// permits may be dropped at once or later. Of several, those added later are asked only when the others give up none. It
    /// is called from async code, so it must not block. It may drop permits, but must not call `admit`.
    ///
    /// It should hold no strong reference to this admission, or neither is ever freed.
    pub fn on_pressure(&self, hook: impl Fn(&Pressure) -> usize + Send + Sync + 'static) {
        self.on_pressure_while(move |pressure| Some(hook(pressure)));
    }

    /// As [`on_pressure`](Self::on_pressure), until the hook answers `None`.
    pub(crate) fn on_pressure_while(
        &self,
        hook: impl Fn(&Pressure) -> Option<usize> + Send + Sync + 'static,
    ) {
        self.inner.hooks().push(Arc::new(hook));
    }

    /// Waits until a sandbox that costs `cost` may start, at most until `deadline`. With a deadline that has passed it
    /// never waits. Dropping the future gives up.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn admit(&self, cost: Cost, deadline: Instant) -> Result<Permit, Refused> {
        self.admit_for(&Tenant::default(), cost, deadline).await
    }

    /// As [`admit`](Self::admit), on behalf of `tenant`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn admit_for(&self, tenant: &Tenant, cost: Cost, deadline: Instant) -> Result<Permit, Refused> {
        let started = Instant::now();
        let mut result = self.inner.attempt(cost, None);
        if let Err(Setback::Short { short, is_next: true, .. }) = &result
            && self.inner.relieve(short)
        {
            result = self.inner.attempt(cost, None);
        }
        if let Err(Setback::Short { .. }) = &result
            && self.inner.config.queue_len > 0
            && started < deadline
        {
            result = self.inner.attempt(cost, Some(tenant));
        }
        let refused = match result {
            Ok(permit) => return Ok(permit),
            Err(Setback::Queued(waiting)) => return waiting.wait(started, deadline).await,
            Err(Setback::Short { refused, .. } | Setback::Refused(refused)) => refused,
        };
        self.inner.state().refused += 1;
        Err(refused)
    }

    /// A permit if there is room now, nobody waits, and no idle sandbox has to go for it: for sandboxes that are
    /// made ahead of need.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn try_admit(&self, cost: Cost) -> Result<Permit, Refused> {
        match self.inner.attempt(cost, None) {
            Ok(permit) => Ok(permit),
            Err(Setback::Short { refused, .. } | Setback::Refused(refused)) => Err(refused),
            // Without a tenant nobody is queued.
            Err(Setback::Queued(_)) => Err(Refused::ShuttingDown),
        }
    }

    /// Admits nobody any more. Who waits is refused now; permits that were given stay good.
    pub fn shutdown(&self) {
        let waiters: Vec<Waiter> = {
            let mut state = self.inner.state();
            state.is_closed = true;
            state.blocked = None;
            let waiters: Vec<Waiter> = std::iter::from_fn(|| state.queue.pop()).collect();
            state.refused += waiters.len() as u64;
            waiters
        };
        for waiter in waiters {
            // Who is no longer there need not be told.
            let _ = waiter.grant.send(Err(Refused::ShuttingDown));
        }
        self.inner.nudge.notify_one();
    }

    /// What happened so far, and what is now.
    pub fn stats(&self) -> AdmissionStats {
        let state = self.inner.state();
        AdmissionStats {
            alive: state.ledger.alive(),
            starting: state.ledger.starting(),
            waiting: state.queue.len(),
            promised: state.ledger.promised(),
            admitted: state.admitted,
            refused: state.refused,
            abandoned: state.abandoned,
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("config", &self.inner.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The right of one sandbox to be there. Dropping it, when nothing of the sandbox is left, makes room for the next.
#[must_use = "the room is given back when this is dropped"]
pub struct Permit {
    inner: Arc<Inner>,
    cost: Cost,
    /// `Some` until it is given back.
    holding: Option<Holding>,
}

impl Permit {
    /// The sandbox has started: the next may. Counts once.
    pub fn started(&mut self) {
        let Some(holding) = &mut self.holding else { return };
        self.inner.change(|state, now| {
            if state.ledger.started(holding) {
                state.starts.note(now);
            }
        });
    }

    /// The sandbox was seen to use `private_bytes` of memory: so much less of what it was promised is still to come.
    pub fn measured(&mut self, private_bytes: u64) {
        if let Some(holding) = &mut self.holding {
            self.inner.state().ledger.measured(holding, private_bytes);
        }
    }

    /// What it was given for.
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(holding) = self.holding.take() {
            self.inner.change(|state, now| state.give_back(&holding, now));
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("cost", &self.cost)
            .field("holding", &self.holding)
            .finish_non_exhaustive()
    }
}

impl State {
    fn give_back(&mut self, holding: &Holding, now: Instant) {
        self.ledger.give_back(holding);
        self.ends.note(now);
        self.is_outdated = true;
    }

    /// When whoever comes last now may hope for what is short.
    fn retry_after(&self, short: &Shortage, now: Instant) -> Option<std::time::Duration> {
        let rate = if matches!(short, Shortage::TooManyStarting { .. }) { &self.starts } else { &self.ends };
        rate.time_for(self.queue.len() + 1, now)
    }
}

type Granted = Vec<(oneshot::Sender<Result<Permit, Refused>>, Permit)>;

impl Inner {
    /// Every change is whole when the lock is given back, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `cost` fits, by a reading that is young enough.
    fn room(&self, state: &mut State, cost: &Cost, now: Instant) -> Result<(), Shortage> {
        let age = state.read_at.map(|read_at| now.saturating_duration_since(read_at));
        if age.is_none_or(|age| age >= self.config.readings_max_age) {
            match self.host.read() {
                Ok(readings) => {
                    state.ledger.read(readings);
                    state.unreadable = None;
                }
                Err(error) => state.unreadable = Some(error),
            }
            state.read_at = Some(now);
            state.is_outdated = false;
        }
        match &state.unreadable {
            Some(error) => Err(Shortage::Unreadable(error.clone())),
            None => state.ledger.room(&self.config, cost),
        }
    }

    fn permit(self: &Arc<Self>, state: &mut State, cost: Cost) -> Permit {
        state.admitted += 1;
        Permit { inner: self.clone(), cost, holding: Some(state.ledger.take(cost)) }
    }

    /// Takes from the queue whoever fits, in order, until one does not.
    fn dispatch(self: &Arc<Self>, state: &mut State, now: Instant) -> Granted {
        let mut granted = Vec::new();
        loop {
            let Some(cost) = state.queue.peek().map(|waiter| waiter.cost) else {
                state.blocked = None;
                return granted;
            };
            if let Err(short) = self.room(state, &cost, now) {
                state.blocked = Some(short);
                return granted;
            }
            if let Some(waiter) = state.queue.pop() {
                granted.push((waiter.grant, self.permit(state, cost)));
            }
        }
    }

    /// Hands out permits, without the lock. What nobody takes goes to the next.
    fn deliver(self: &Arc<Self>, mut granted: Granted) {
        while !granted.is_empty() {
            let mut unwanted = Vec::new();
            for (grant, permit) in granted {
                if let Err(Ok(mut permit)) = grant.send(Ok(permit)) {
                    unwanted.extend(permit.holding.take());
                }
            }
            if unwanted.is_empty() {
                return;
            }
            let (now, mut state) = (Instant::now(), self.state());
            // They were counted as admitted, and nobody came.
            state.admitted -= unwanted.len() as u64;
            state.abandoned += unwanted.len() as u64;
            unwanted.iter().for_each(|holding| state.ledger.give_back(holding));
            granted = self.dispatch(&mut state, now);
        }
    }

    /// Changes the books and lets go whoever fits then.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant)) {
        let granted = {
            let (now, mut state) = (Instant::now(), self.state());
            change(&mut state, now);
            self.dispatch(&mut state, now)
        };
        self.deliver(granted);
        let needs_steward = {
            let state = self.state();
            let matters = |short: &Shortage| short.is_of_the_machine() || short.is_helped_by_idle();
            state.has_steward && state.blocked.as_ref().is_none_or(matters)
        };
        if needs_steward {
            self.nudge.notify_one();
        }
    }

    /// Tries to get a permit. When there is no room and a tenant is given, it gets a place in the queue under the
    /// same lock, so that no end of a sandbox can be missed in between.
    fn attempt(self: &Arc<Self>, cost: Cost, tenant: Option<&Tenant>) -> Result<Permit, Setback> {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        if state.is_closed {
            return Err(Setback::Refused(Refused::ShuttingDown));
        }
        // Who waits is first.
        let granted = self.dispatch(state, now);
        let result = self.attempt_last(state, cost, tenant, now);
        drop(guard);
        self.deliver(granted);
        result
    }

    fn attempt_last(
        self: &Arc<Self>,
        state: &mut State,
        cost: Cost,
        tenant: Option<&Tenant>,
        now: Instant,
    ) -> Result<Permit, Setback> {
        let room = self.room(state, &cost, now);
        if state.unreadable.is_none() {
            state.ledger.could_ever_fit(&self.config, &cost).map_err(Setback::Refused)?;
        }
        let (short, is_next) = match (state.blocked.clone(), room) {
            (Some(before), _) => (before, false),
            (None, Err(short)) => (short, true),
            (None, Ok(())) => return Ok(self.permit(state, cost)),
        };
        let retry_after = state.retry_after(&short, now);
        let Some(tenant) = tenant else {
            let refused = Refused::Short { short: short.clone(), retry_after };
            return Err(Setback::Short { short, is_next, refused });
        };
        let length = state.queue.len();
        if length >= self.config.queue_len {
            return Err(Setback::Refused(Refused::QueueFull { length, short, retry_after }));
        }
        let (grant, granted) = oneshot::channel();
        let ticket = state.queue.push(tenant.clone(), Waiter { cost, grant });
        state.blocked = Some(short);
        if !std::mem::replace(&mut state.has_steward, true) {
            tokio::spawn(self.clone().steward());
        } else if is_next {
            // It may be about to end with the queue.
            self.nudge.notify_one();
        }
        Err(Setback::Queued(Waiting { inner: self.clone(), ticket, granted }))
    }

    /// Asks for idle sandboxes to be given up. Answers whether some are. Called without the lock.
    fn relieve(&self, short: &Shortage) -> bool {
        if !short.is_helped_by_idle() {
            return false;
        }
        let (hooks, pressure) = (self.hooks().clone(), Pressure { short: short.clone() });
        hooks.iter().any(|hook| match hook(&pressure) {
            Some(count) => count > 0,
            None => {
                self.hooks().retain(|other| !Arc::ptr_eq(other, hook));
                false
            }
        })
    }

    fn hooks(&self) -> MutexGuard<'_, Vec<Arc<Hook>>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after those who wait: reads the machine again where that may help, and asks for idle sandboxes. Ends with
    /// the queue.
    async fn steward(self: Arc<Self>) {
        let mut service = Service { inner: &self, is_over: false };
        loop {
            let look_again = {
                let mut state = self.state();
                if state.queue.is_empty() {
                    state.has_steward = false;
                    service.is_over = true;
                    return;
                }
                let of_the_machine = state.blocked.as_ref().is_some_and(Shortage::is_of_the_machine);
                let AdmissionConfig { readings_max_age, reread_every, .. } = self.config;
                let every =
                    if state.is_outdated { readings_max_age } else { reread_every.max(readings_max_age) };
                state.read_at.filter(|_| of_the_machine).map(|read_at| read_at + every)
            };
            let timer = async {
                match look_again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.nudge.notified() => {}
                () = timer => {}
            }
            self.look();
            let short = self.state().blocked.clone();
            if let Some(short) = short
                && self.relieve(&short)
            {
                self.look();
            }
        }
    }

    fn look(self: &Arc<Self>) {
        let granted = self.dispatch(&mut self.state(), Instant::now());
        self.deliver(granted);
    }
}

/// Says that there is no steward any more when its task is dropped in the middle, as at the end of a tokio runtime.
struct Service<'a> {
    inner: &'a Inner,
    is_over: bool,
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.inner.state().has_steward = false;
        }
    }
}

/// A place in the queue. Dropping it leaves the queue; a permit that was just granted goes to the next.
struct Waiting {
    inner: Arc<Inner>,
    ticket: Ticket,
    granted: oneshot::Receiver<Result<Permit, Refused>>,
}

impl Waiting {
    async fn wait(mut self, started: Instant, deadline: Instant) -> Result<Permit, Refused> {
        tokio::select! {
            biased;
            granted = &mut self.granted => return granted.unwrap_or(Err(Refused::ShuttingDown)),
            () = tokio::time::sleep_until(deadline) => {}
        }
        let mut refused = None;
        self.inner.change(|state, now| {
            let short = state.blocked.clone();
            if let (Some(_), Some(short)) = (state.queue.remove(&self.ticket), short) {
                let retry_after = state.retry_after(&short, now);
                state.refused += 1;
                refused = Some(Refused::DeadlinePassed { waited: now - started, short, retry_after });
            }
        });
        match refused {
            Some(refused) => Err(refused),
            // It was granted at the last moment, and is on its way.
            None => (&mut self.granted).await.unwrap_or(Err(Refused::ShuttingDown)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.inner.state();
            let removed = state.queue.remove(&self.ticket).is_some();
            state.abandoned += u64::from(removed);
            removed
        };
        if removed {
            self.inner.change(|_, _| {});
        }
    }
}
