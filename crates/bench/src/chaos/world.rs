//! What agents and faults share: [`World`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Error, Result};
use fastrand::Rng;
use lg_runtime::pool::SandboxPool;
use lg_runtime::{Launcher, Template, TemplateSpec};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::{Ending, Ledger};
use super::life::{LIFE_LIMIT, live};
use super::vmm::VmmId;

/// The pause of an agent after a life that did not end well.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a template may fail to be made, since its vmm is hit like any other.
const ATTEMPTS: usize = 5;

/// A pool with its agents, the accounts, and when it is over.
pub(super) struct World {
    pub(super) pool: SandboxPool,
    pub(super) started: Instant,
    seed: u64,
    ledger: Mutex<Ledger>,
    /// No fault begins any more, and those that hold end.
    interrupted: watch::Sender<bool>,
    /// No life begins any more.
    over: watch::Sender<bool>,
}

impl World {
    pub(super) fn new(pool: SandboxPool, seed: u64, ledger: Ledger) -> Self {
        Self {
            pool,
            seed,
            started: Instant::now(),
            ledger: Mutex::new(ledger),
            interrupted: watch::Sender::new(false),
            over: watch::Sender::new(false),
        }
    }

    /// The accounts. Never held across an await.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(self) -> (SandboxPool, Ledger) {
        (self.pool, self.ledger.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time by the clock of the run.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn interrupt(&self) {
        self.interrupted.send_replace(true);
    }

    pub(super) fn is_interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }

    pub(super) fn end_work(&self) {
        self.over.send_replace(true);
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits until then, or until the run is interrupted.
    pub(super) async fn pause_until(&self, at: Instant) {
        let mut interrupted = self.interrupted.subscribe();
        tokio::select! {
            // The sender is in `self`, so this cannot fail.
            _ = interrupted.wait_for(|interrupted| *interrupted) => {}
            () = tokio::time::sleep_until(at) => {}
        }
    }

    /// Waits for so long, or until the run is interrupted.
    pub(super) async fn pause(&self, time: Duration) {
        self.pause_until(Instant::now() + time).await;
    }

    /// Lives one life after the other, until there is no more work.
    pub(super) async fn live_on(&self, agent: usize) {
        let mut rng = Rng::with_seed(self.seed.wrapping_add(1 + agent as u64));
        let hostname = format!("agent-{agent}");
        while !self.is_over() {
            self.ledger().begin(agent, self.now());
            let claimed = |pid| {
                if let Some(vmm) = VmmId::of(pid) {
                    self.ledger().claimed(agent, vmm);
                }
            };
            let end = live(&self.pool, &mut rng, &hostname, claimed).await;
            let (is_well, is_not_forked) =
                (end.result.is_ok(), matches!(end.result, Err(Ending::NotForked(_))));
            self.ledger().end(agent, self.now(), end);
            if !is_well {
                tokio::time::sleep(PAUSE).await;
            }
            if is_not_forked {
                self.template_other_than(None).await;
            }
        }
    }

    /// Waits until the pool has a template that is alive, and another version than that.
    pub(super) async fn template_other_than(&self, version: Option<u64>) -> bool {
        let wait = async {
            loop {
                let template = self.pool.template();
                if !template.is_over() && Some(template.version()) != version {
                    return;
                }
                drop(template);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIFE_LIMIT, wait).await.is_ok()
    }

    /// Gives the pool another template whenever its own is over, as whoever runs a pool must.
    pub(super) async fn keep_template(&self, spec: &TemplateSpec, launcher: &Launcher) {
        let mut over = self.over.subscribe();
        loop {
            let template = self.pool.template();
            tokio::select! {
                () = template.ended() => {}
                _ = over.wait_for(|over| *over) => return,
            }
            drop(template);
            match self.make_template(spec, launcher).await {
                Ok(template) => self.pool.replace_template(template.into()),
                Err(error) => return self.ledger().fail_run(format!("no other template: {error:#}")),
            }
        }
    }

    /// Makes one, again if its vmm was killed meanwhile.
    async fn make_template(&self, spec: &TemplateSpec, launcher: &Launcher) -> Result<Template> {
        let mut attempts = 1;
        loop {
            let began = self.now();
            match Template::build(spec, launcher).await {
                Ok(template) => return Ok(template),
                Err(_) if attempts < ATTEMPTS && self.ledger().has_killed_since(began) => attempts += 1,
                Err(error) => return Err(Error::from(error)),
            }
        }
    }
}
