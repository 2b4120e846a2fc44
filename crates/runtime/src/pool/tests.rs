//! A pool with a source that makes numbers, and tokio's paused clock where time matters.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::*;
use crate::admission::{Admission, AdmissionConfig, Cost, Permit, Refused};

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, thiserror::Error)]
#[error("no {0}")]
struct Failure(&'static str);

/// Knows its number, and what was asked of it.
#[derive(Debug)]
struct Item {
    number: usize,
    version: u64,
    asked: Ask,
    existing: Arc<AtomicUsize>,
}

impl Drop for Item {
    fn drop(&mut self) {
        self.existing.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Ask {
    /// Applied at once.
    #[default]
    Plain,
    /// Applied at once.
    Limit(u32),
    /// Applied after 10 ms.
    Slow,
    /// Only fresh.
    Fresh,
    /// Refused by ready ones and by fresh ones.
    Impossible,
}

#[derive(Debug, Default)]
struct Source {
    made: AtomicUsize,
    existing: Arc<AtomicUsize>,
    retired: AtomicUsize,
    version: AtomicU64,
    is_broken: AtomicBool,
    panics: AtomicBool,
    hangs: AtomicBool,
    make_ms: AtomicU64,
    attempts: AtomicUsize,
    dead: Mutex<Vec<usize>>,
}

impl Source {
    fn item(&self, asked: Ask) -> Item {
        self.existing.fetch_add(1, SeqCst);
        let number = self.made.fetch_add(1, SeqCst);
        Item { number, version: self.version.load(SeqCst), asked, existing: self.existing.clone() }
    }
}

impl PoolSource for Source {
    type Item = Item;
    type Error = Failure;
    type Ask = Ask;

    fn version(&self) -> u64 {
        self.version.load(SeqCst)
    }

    async fn make(&self) -> Result<Item, Failure> {
        self.attempts.fetch_add(1, SeqCst);
        assert!(!self.panics.load(SeqCst), "as the test wants it");
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        let item = self.item(Ask::Plain);
        sleep(MS * self.make_ms.load(SeqCst) as u32).await;
        if self.is_broken.load(SeqCst) { Err(Failure("template")) } else { Ok(item) }
    }

    async fn apply(&self, item: &mut Item, ask: &Ask) -> Result<Applied, Failure> {
        match ask {
            Ask::Fresh => return Ok(Applied::NeedsFresh),
            Ask::Impossible => return Err(Failure("such limit")),
            Ask::Slow => sleep(10 * MS).await,
            Ask::Plain | Ask::Limit(_) => {}
        }
        item.asked = *ask;
        Ok(Applied::Done)
    }

    async fn make_fresh(&self, ask: &Ask) -> Result<Item, Failure> {
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if *ask == Ask::Impossible {
            return Err(Failure("such limit for a fresh one"));
        }
        sleep(MS * self.make_ms.load(SeqCst) as u32).await;
        if self.is_broken.load(SeqCst) { Err(Failure("fresh one")) } else { Ok(self.item(*ask)) }
    }

    async fn retire(&self, item: Item) {
        sleep(MS).await;
        drop(item);
        self.retired.fetch_add(1, SeqCst);
    }

    fn is_alive(&self, item: &Item) -> bool {
        !self.dead.lock().unwrap().contains(&item.number)
    }
}

fn config(floor: usize, ceiling: usize) -> PoolConfig {
    PoolConfig { floor, ceiling, refill_at_once: 1, ..PoolConfig::default() }
}

async fn full(floor: usize, ceiling: usize) -> Pool<Source> {
    let pool = Pool::new(Source::default(), config(floor, ceiling));
    pool.filled().await.unwrap();
    pool
}

fn soon() -> Instant {
    Instant::now() + 1000 * MS
}

async fn claim(pool: &Pool<Source>, ask: Ask) -> Result<Claimed<Item>, ClaimError<Failure>> {
    pool.claim(&ask, soon()).await
}

fn existing(pool: &Pool<Source>) -> usize {
    pool.source().existing.load(SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_ready_item_with_what_it_asked_for_and_another_is_made() {
    let pool = full(3, 8).await;
    let Claimed { item, origin } = claim(&pool, Ask::Limit(7)).await.unwrap();
    assert_eq!((origin, item.asked, item.number), (Origin::Ready, Ask::Limit(7), 2));
    pool.filled().await.unwrap();
    let stats = pool.stats();
    assert_eq!((stats.ready, stats.claims, stats.hits, stats.misses, stats.refills), (3, 1, 1, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn an_empty_pool_makes_a_fresh_one() {
    let pool = Pool::new(Source::default(), config(0, 8));
    let Claimed { item, origin } = claim(&pool, Ask::Limit(7)).await.unwrap();
    assert_eq!((origin, item.asked), (Origin::Fresh, Ask::Limit(7)));
    assert_eq!((pool.stats().hits, pool.stats().misses), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_applied_is_made_fresh_and_the_ready_one_stays() {
    let pool = full(2, 8).await;
    let Claimed { item, origin } = claim(&pool, Ask::Fresh).await.unwrap();
    assert_eq!((origin, item.asked), (Origin::Fresh, Ask::Fresh));
    let stats = pool.stats();
    assert_eq!((stats.ready, stats.misses, stats.retired.total()), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_at_all_is_an_error() {
    let pool = full(2, 8).await;
    let error = claim(&pool, Ask::Impossible).await.unwrap_err();
    let ClaimError::Failed { error, refill: None } = error else { panic!("{error}") };
    assert_eq!(error.to_string(), "no such limit for a fresh one");
    sleep(10 * MS).await;
    let stats = pool.stats();
    assert_eq!((stats.apply_failures, stats.fresh_failures, stats.retired.unfit), (1, 1, 1));
    assert_eq!((stats.ready, existing(&pool)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_dropped_halfway_loses_nothing() {
    let pool = Arc::new(full(2, 8).await);
    let halfway = {
        let pool = pool.clone();
        tokio::spawn(async move { claim(&pool, Ask::Slow).await })
    };
    sleep(5 * MS).await;
    halfway.abort();
    sleep(100 * MS).await;
    let stats = pool.stats();
    assert_eq!((stats.retired.abandoned, stats.ready, existing(&pool)), (1, 2, 2));
    // So does one that is too slow.
    let error = pool.claim(&Ask::Slow, Instant::now() + 5 * MS).await.unwrap_err();
    let ClaimError::DeadlinePassed { waited, refill: None } = error else { panic!("{error}") };
    assert_eq!(waited, 5 * MS);
    sleep(100 * MS).await;
    assert_eq!((pool.stats().retired.abandoned, existing(&pool)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refill_that_fails_is_tried_again_with_pauses_and_claims_hear_of_it() {
    let source = Source::default();
    source.is_broken.store(true, SeqCst);
    let pool = Pool::new(source, config(2, 8));
    let failure = pool.filled().await.unwrap_err();
    assert_eq!((failure.in_a_row, &*failure.error.to_string()), (1, "no template"));
    sleep(60_000 * MS).await;
    let attempts = pool.source().attempts.load(SeqCst);
    assert!((10..=20).contains(&attempts), "{attempts} attempts in a minute");
    let error = claim(&pool, Ask::Plain).await.unwrap_err();
    let ClaimError::Failed { error, refill: Some(refill) } = error else { panic!("{error}") };
    assert_eq!(error.to_string(), "no fresh one");
    assert_eq!((refill.in_a_row as usize, existing(&pool)), (attempts, 0));
    // It gets well again.
    pool.source().is_broken.store(false, SeqCst);
    sleep(10_000 * MS).await;
    assert_eq!((pool.stats().ready, pool.stats().refill_failures_in_a_row), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_or_panics_stops_nothing_for_ever() {
    let source = Source::default();
    source.hangs.store(true, SeqCst);
    let pool = Pool::new(source, config(1, 8));
    let error = pool.claim(&Ask::Plain, soon()).await.unwrap_err();
    assert!(matches!(error, ClaimError::DeadlinePassed { refill: None, .. }), "{error}");
    let failure = pool.filled().await.unwrap_err();
    assert!(matches!(*failure.error, RefillError::TimedOut { .. }), "{failure}");
    pool.source().hangs.store(false, SeqCst);
    pool.source().panics.store(true, SeqCst);
    sleep(1000 * MS).await;
    assert!(matches!(*pool.filled().await.unwrap_err().error, RefillError::Panicked));
    pool.source().panics.store(false, SeqCst);
    sleep(20_000 * MS).await;
    assert_eq!((pool.stats().ready, pool.stats().making), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dead_ones_are_replaced_and_never_handed_out() {
    let pool = full(3, 8).await;
    // The newest would be next.
    pool.source().dead.lock().unwrap().extend([0, 2]);
    assert_eq!(claim(&pool, Ask::Plain).await.unwrap().item.number, 1);
    sleep(2000 * MS).await;
    assert_eq!((pool.stats().retired.dead, pool.stats().ready, existing(&pool)), (2, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_new_version_replaces_all_and_none_of_the_old_is_handed_out() {
    let pool = full(3, 8).await;
    pool.source().version.store(1, SeqCst);
    let Claimed { item, origin } = claim(&pool, Ask::Plain).await.unwrap();
    assert_eq!((item.version, origin), (1, Origin::Fresh));
    pool.filled().await.unwrap();
    assert_eq!((pool.stats().retired.outdated, claim(&pool, Ask::Plain).await.unwrap().item.version), (3, 1));
    // Without claims the sweep finds it, at once when told.
    pool.filled().await.unwrap();
    pool.source().version.store(2, SeqCst);
    pool.renew();
    sleep(100 * MS).await;
    assert_eq!((pool.stats().retired.outdated, pool.stats().ready), (6, 3));
    // One that was being made meanwhile is of the old version.
    pool.source().make_ms.store(50, SeqCst);
    drop(claim(&pool, Ask::Plain).await.unwrap());
    sleep(10 * MS).await;
    pool.source().version.store(3, SeqCst);
    sleep(3000 * MS).await;
    assert_eq!((pool.stats().retired.outdated, pool.stats().ready), (9, 3));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_version_failed_in_does_not_hold_up_a_new_one() {
    let pool = full(2, 8).await;
    pool.source().make_ms.store(50, SeqCst);
    pool.source().is_broken.store(true, SeqCst);
    drop((claim(&pool, Ask::Plain).await.unwrap(), claim(&pool, Ask::Plain).await.unwrap()));
    sleep(30_000 * MS).await;
    assert!(pool.stats().refill_failures_in_a_row > 5 && pool.filled().await.is_err());
    let renew = |version| {
        pool.source().version.store(version, SeqCst);
        pool.source().is_broken.store(false, SeqCst);
        pool.renew();
    };
    let started = Instant::now();
    renew(1);
    pool.filled().await.unwrap();
    // Two are made, one after the other, and none was waited for.
    assert_eq!((started.elapsed(), pool.stats().refill_failures_in_a_row), (100 * MS, 0));
    // One that is just being made of the earlier version, and fails, changes nothing.
    drop((claim(&pool, Ask::Plain).await.unwrap(), claim(&pool, Ask::Plain).await.unwrap()));
    sleep(10 * MS).await;
    let failures = pool.stats().refill_failures;
    pool.source().version.store(2, SeqCst);
    pool.renew();
    pool.source().is_broken.store(true, SeqCst);
    sleep(45 * MS).await;
    pool.source().is_broken.store(false, SeqCst);
    assert_eq!(pool.stats().refill_failures, failures + 1);
    pool.filled().await.unwrap();
    assert_eq!((pool.stats().refill_failures_in_a_row, pool.stats().ready), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_new_version_does_not_end_the_pause_that_others_need() {
    let pool = full(3, 8).await;
    assert_eq!(pool.release_idle(3), 3);
    pool.source().version.store(1, SeqCst);
    pool.renew();
    sleep(900 * MS).await;
    assert_eq!(pool.stats().ready, 0);
    sleep(200 * MS).await;
    assert_eq!(pool.stats().ready, 3);
}

#[tokio::test(start_paused = true)]
async fn items_age_and_go_one_by_one() {
    let pool = full(3, 8).await;
    sleep(Duration::from_secs(599)).await;
    assert_eq!(pool.stats().retired.aged, 0);
    sleep(Duration::from_secs(10)).await;
    let stats = pool.stats();
    assert_eq!((stats.retired.aged, stats.ready, stats.refills), (3, 3, 6));
}

#[tokio::test(start_paused = true)]
async fn the_pool_follows_the_demand_up_and_down() {
    let pool = Pool::new(Source::default(), PoolConfig { refill_at_once: 4, ..config(1, 10) });
    pool.source().make_ms.store(100, SeqCst);
    // A claim each 50 ms: two come while one is made, so some are fresh at first.
    for _ in 0..200 {
        drop(claim(&pool, Ask::Plain).await.unwrap());
        sleep(50 * MS).await;
    }
    let stats = pool.stats();
    assert!((3..=5).contains(&stats.target) && stats.hits > 150, "{stats:?}");
    assert!(
        (10.0..25.0).contains(&stats.claims_per_s) && (90.0..110.0).contains(&stats.make_ms),
        "{stats:?}"
    );
    sleep(Duration::from_secs(60)).await;
    let stats = pool.stats();
    assert_eq!((stats.target, stats.ready), (1, 1));
    assert!(stats.retired.surplus > 0, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_a_floor_learns_from_fresh_ones() {
    let pool = Pool::new(Source::default(), config(0, 10));
    pool.source().make_ms.store(100, SeqCst);
    for _ in 0..200 {
        drop(claim(&pool, Ask::Plain).await.unwrap());
        sleep(50 * MS).await;
    }
    let stats = pool.stats();
    assert!(stats.hits > 50 && stats.target >= 3, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn idle_ones_are_given_up_and_not_made_again_at_once() {
    let pool = full(3, 8).await;
    assert_eq!(pool.release_idle(2), 2);
    sleep(900 * MS).await;
    let stats = pool.stats();
    assert_eq!((stats.ready, stats.retired.released, existing(&pool)), (1, 2, 1));
    sleep(200 * MS).await;
    assert_eq!(pool.stats().ready, 3);
    assert_eq!((pool.release_idle(9), pool.release_idle(9)), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn the_shutdown_waits_until_nothing_is_left() {
    let pool = Arc::new(full(8, 8).await);
    pool.source().make_ms.store(100, SeqCst);
    let item = claim(&pool, Ask::Plain).await.unwrap().item;
    let halfway = {
        let pool = pool.clone();
        tokio::spawn(async move { claim(&pool, Ask::Slow).await })
    };
    sleep(MS).await;
    assert_eq!(pool.stats().making, 1);
    pool.shutdown().await;
    // The claim that was on its way got its item; what was just being made is gone too.
    let late = halfway.await.unwrap().unwrap().item;
    assert_eq!((existing(&pool), pool.stats().retired.shutdown), (2, 7));
    let error = claim(&pool, Ask::Plain).await.unwrap_err();
    assert!(matches!(error, ClaimError::ShutDown), "{error}");
    pool.filled().await.unwrap();
    pool.shutdown().await;
    drop((item, late));
    assert_eq!(pool.stats().ready, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_dropped_retires_its_items() {
    let source = Arc::new(Source::default());
    let pool = Pool::with_shared(source.clone(), config(5, 8));
    pool.filled().await.unwrap();
    drop(pool);
    sleep(100 * MS).await;
    assert_eq!((source.existing.load(SeqCst), source.retired.load(SeqCst)), (0, 5));
    assert_eq!(Arc::strong_count(&source), 1);
}

#[test]
fn the_shutdown_does_not_wait_for_a_runtime_that_is_gone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let pool = runtime().block_on(full(2, 8));
    runtime().block_on(pool.shutdown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_claims_at_once_each_get_one_item_or_are_dropped() {
    const CLAIMS: usize = 10_000;
    let pool = Arc::new(full(64, 64).await);
    let mut tasks = JoinSet::new();
    for number in 0..CLAIMS {
        let pool = pool.clone();
        tasks.spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(60);
            match number % 10 {
                0 => drop(tokio::time::timeout(MS, pool.claim(&Ask::Slow, deadline)).await),
                1 => assert_eq!(pool.claim(&Ask::Fresh, deadline).await.unwrap().item.asked, Ask::Fresh),
                2 => drop(pool.claim(&Ask::Impossible, deadline).await.unwrap_err()),
                _ => {
                    let ask = Ask::Limit(number as u32);
                    assert_eq!(pool.claim(&ask, deadline).await.unwrap().item.asked, ask);
                }
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    pool.shutdown().await;
    let stats = pool.stats();
    assert_eq!((existing(&pool), stats.claims), (0, CLAIMS as u64));
    // What was made ahead was either handed out or retired.
    assert_eq!(stats.refills, stats.hits + stats.retired.total(), "{stats:?}");
    assert_eq!(pool.source().retired.load(SeqCst) as u64, stats.retired.total());
    assert!(stats.hits > 0 && stats.fresh_failures == CLAIMS as u64 / 10, "{stats:?}");
}

/// A source whose items hold permits.
struct Admitted(Admission);

const COST: Cost = Cost { memory_bytes: 0, descriptors: 0, processes: 0 };

impl PoolSource for Admitted {
    type Item = Permit;
    type Error = Refused;
    type Ask = ();

    fn version(&self) -> u64 {
        0
    }

    async fn make(&self) -> Result<Permit, Refused> {
        let mut permit = self.0.try_admit(COST)?;
        permit.started();
        Ok(permit)
    }

    async fn apply(&self, _: &mut Permit, (): &()) -> Result<Applied, Refused> {
        Ok(Applied::Done)
    }

    async fn make_fresh(&self, (): &()) -> Result<Permit, Refused> {
        self.0.admit(COST, soon()).await
    }

    async fn retire(&self, permit: Permit) {
        sleep(MS).await;
        drop(permit);
    }

    fn is_alive(&self, _: &Permit) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn idle_ones_make_way_for_whoever_asks_admission() {
    let limits = AdmissionConfig {
        max_alive: Some(4),
        max_starting: Some(4),
        // Whatever else this machine does.
        memory_reserve_bytes: Some(0),
        descriptors_reserve: 0,
        processes_reserve: 0,
        ..AdmissionConfig::default()
    };
    let admission = Admission::new(limits);
    let pool = Arc::new(Pool::new(Admitted(admission.clone()), config(9, 9)));
    let weak = Arc::downgrade(&pool);
    admission.on_pressure(move |pressure| {
        weak.upgrade().map_or(0, |pool| pool.release_idle(pressure.idle_to_give_up(&COST)))
    });
    // The pool takes what there is and drives nobody out.
    sleep(500 * MS).await;
    assert_eq!((pool.stats().ready, admission.stats().alive), (4, 4));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(admission.admit(COST, soon()).await.unwrap());
        assert_eq!(admission.stats().alive, 4);
    }
    let refused = admission.admit(COST, soon()).await.unwrap_err();
    assert!(matches!(refused, Refused::DeadlinePassed { .. }), "{refused}");
    // A claim says the same, and what keeps the pool empty.
    let error = pool.claim(&(), Instant::now() + 9000 * MS).await.unwrap_err();
    let ClaimError::Failed { error, refill: Some(refill) } = error else { panic!("{error}") };
    assert!(matches!(error, Refused::DeadlinePassed { .. }), "{error}");
    assert!(matches!(&*refill.error, RefillError::Source(Refused::Short { .. })), "{refill}");
    held.clear();
    sleep(10_000 * MS).await;
    assert_eq!((pool.stats().ready, pool.stats().retired.released), (4, 4));
    pool.shutdown().await;
    assert_eq!(admission.stats().alive, 0);
}
