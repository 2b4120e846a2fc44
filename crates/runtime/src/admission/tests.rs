//! Admission with a machine of made-up numbers and, where time matters, with tokio's paused clock.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::*;

const COST: Cost = Cost { memory_bytes: 100, descriptors: 6, processes: 1 };

/// A machine whose memory can be changed.
#[derive(Debug, Clone, Default)]
struct FakeHost {
    memory_available_bytes: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
}

impl FakeHost {
    fn with_memory(bytes: u64) -> Self {
        let host = Self::default();
        host.memory_available_bytes.store(bytes, SeqCst);
        host
    }
}

impl HostReadings for FakeHost {
    fn read(&self) -> Result<Readings, ReadingsError> {
        self.reads.fetch_add(1, SeqCst);
        let memory_available_bytes = self.memory_available_bytes.load(SeqCst);
        if memory_available_bytes == u64::MAX {
            return Err(ReadingsError { path: "meminfo".into(), kind: std::io::ErrorKind::NotFound });
        }
        Ok(Readings {
            memory_available_bytes,
            memory_total_bytes: 1 << 40,
            descriptors_limit: 1 << 20,
            processes_limit: 1 << 20,
            cores: 2,
            ..Readings::default()
        })
    }
}

fn config(max_alive: usize) -> AdmissionConfig {
    AdmissionConfig {
        memory_reserve_bytes: Some(1000),
        max_alive: Some(max_alive),
        max_starting: Some(max_alive),
        ..AdmissionConfig::default()
    }
}

/// Plenty of everything, but at most `max_alive` sandboxes.
fn roomy(max_alive: usize) -> Admission {
    Admission::with_host(config(max_alive), FakeHost::with_memory(1 << 40))
}

fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Lets all tasks run until they wait, without moving the clock.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Asks in a task of its own.
fn ask(admission: &Admission, tenant: &str, deadline: Instant) -> JoinHandle<Result<Permit, Refused>> {
    let (admission, tenant) = (admission.clone(), Tenant::from(tenant));
    tokio::spawn(async move { admission.admit_for(&tenant, COST, deadline).await })
}

#[tokio::test(start_paused = true)]
async fn who_fits_is_admitted_at_once_and_the_next_when_one_ends() {
    let admission = roomy(1);
    let first = admission.admit(COST, in_ms(0)).await.unwrap();
    let second = ask(&admission, "", in_ms(1000));
    settle().await;
    assert_eq!(admission.stats().waiting, 1);
    drop(first);
    let second = second.await.unwrap().unwrap();
    let stats = admission.stats();
    assert_eq!((stats.alive, stats.starting, stats.waiting, stats.admitted), (1, 1, 0, 2));
    assert_eq!(stats.promised, COST);
    drop(second);
    assert_eq!(admission.stats().promised, Cost::default());
}

#[tokio::test(start_paused = true)]
async fn a_finished_start_lets_the_next_one_start() {
    let admission = Admission::with_host(
        AdmissionConfig { max_starting: Some(1), ..config(9) },
        FakeHost::with_memory(1 << 40),
    );
    let mut first = admission.admit(COST, in_ms(0)).await.unwrap();
    let second = ask(&admission, "", in_ms(1000));
    settle().await;
    assert!(!second.is_finished());
    first.started();
    first.started();
    let _second = second.await.unwrap().unwrap();
    assert_eq!((admission.stats().alive, admission.stats().starting), (2, 1));
    let refused = admission.try_admit(COST).unwrap_err();
    assert_eq!(refused.short(), Some(&Shortage::TooManyStarting { starting: 1, most: 1 }));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_hears_what_was_short() {
    let admission = roomy(1);
    let permit = admission.admit(COST, in_ms(0)).await.unwrap();
    let refused = admission.admit(COST, in_ms(50)).await.unwrap_err();
    let Refused::DeadlinePassed { waited, short, retry_after } = refused else { panic!("{refused}") };
    assert_eq!((waited, retry_after), (Duration::from_millis(50), None));
    assert_eq!(short, Shortage::TooManyAlive { alive: 1, most: 1 });
    drop(permit);
    // Now it is known how fast they end.
    let _permit = admission.admit(COST, in_ms(0)).await.unwrap();
    let refused = admission.admit(COST, in_ms(0)).await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_millis(50)));
    assert_eq!(admission.stats().refused, 2);
}

#[tokio::test(start_paused = true)]
async fn what_can_never_fit_is_refused_at_once() {
    let admission = roomy(1);
    let huge = Cost { memory_bytes: 1 << 41, ..COST };
    let refused = admission.admit(huge, in_ms(1000)).await.unwrap_err();
    assert!(matches!(refused, Refused::TooLarge { resource: Resource::Memory, .. }), "{refused}");
    assert_eq!(refused.retry_after(), None);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_none_at_all_says_what_is_short() {
    let admission =
        Admission::with_host(AdmissionConfig { queue_len: 1, ..config(1) }, FakeHost::with_memory(1 << 40));
    let _permit = admission.admit(COST, in_ms(0)).await.unwrap();
    let _second = ask(&admission, "", in_ms(1000));
    settle().await;
    let refused = admission.admit(COST, in_ms(1000)).await.unwrap_err();
    assert!(matches!(refused, Refused::QueueFull { length: 1, .. }), "{refused}");
    let admission =
        Admission::with_host(AdmissionConfig { queue_len: 0, ..config(1) }, FakeHost::with_memory(1 << 40));
    let _permit = admission.admit(COST, in_ms(0)).await.unwrap();
    let refused = admission.admit(COST, in_ms(1000)).await.unwrap_err();
    assert!(matches!(refused, Refused::Short { short: Shortage::TooManyAlive { .. }, .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn memory_is_read_again_slowly_while_somebody_waits_for_it() {
    let host = FakeHost::with_memory(1050);
    let admission = Admission::with_host(config(9), host.clone());
    let waiting = ask(&admission, "", in_ms(60_000));
    sleep(Duration::from_secs(10)).await;
    let reads = host.reads.load(SeqCst);
    assert!((95..=105).contains(&reads), "{reads} readings in 10 s");
    // Others give memory back.
    host.memory_available_bytes.store(1100, SeqCst);
    let before = Instant::now();
    let permit = waiting.await.unwrap().unwrap();
    assert!(before.elapsed() <= Duration::from_millis(100));
    // Nobody waits, nobody reads.
    let reads = host.reads.load(SeqCst);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(host.reads.load(SeqCst), reads);
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_an_ended_sandbox_is_noticed_soon() {
    let host = FakeHost::with_memory(1100);
    let admission = Admission::with_host(config(9), host.clone());
    let mut first = admission.admit(COST, in_ms(0)).await.unwrap();
    // What was promised is not given twice.
    let refused = admission.admit(COST, in_ms(0)).await.unwrap_err();
    let short = Shortage::NoMemory { needed_bytes: 100, available_bytes: 1000, reserve_bytes: 1000 };
    assert_eq!(refused.short(), Some(&short));
    // It dirties its memory, and a reading shows that.
    first.measured(100);
    host.memory_available_bytes.store(1000, SeqCst);
    let second = ask(&admission, "", in_ms(60_000));
    sleep(Duration::from_millis(150)).await;
    assert!(!second.is_finished());
    host.memory_available_bytes.store(1100, SeqCst);
    let before = Instant::now();
    drop(first);
    let _second = second.await.unwrap().unwrap();
    assert!(before.elapsed() <= Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_away_while_the_machine_cannot_be_read() {
    let host = FakeHost::with_memory(u64::MAX);
    let admission = Admission::with_host(config(9), host.clone());
    let refused = admission.admit(COST, in_ms(50)).await.unwrap_err();
    assert!(matches!(refused.short(), Some(Shortage::Unreadable(_))), "{refused}");
    let waiting = ask(&admission, "", in_ms(60_000));
    settle().await;
    host.memory_available_bytes.store(1 << 40, SeqCst);
    let _permit = waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_sandboxes_go_before_anybody_waits() {
    let admission = roomy(2);
    let idle = Arc::new(Mutex::new(Vec::new()));
    let (asked, shelf) = (Arc::new(AtomicUsize::new(0)), idle.clone());
    let count = asked.clone();
    admission.on_pressure(move |pressure| {
        count.fetch_add(1, SeqCst);
        assert!(matches!(pressure.short, Shortage::TooManyAlive { .. }));
        let given_up: Option<Permit> = shelf.lock().unwrap().pop();
        usize::from(given_up.is_some())
    });
    for _ in 0..2 {
        let permit = admission.try_admit(COST).unwrap();
        idle.lock().unwrap().push(permit);
    }
    // What is made ahead of need drives nobody out.
    assert!(admission.try_admit(COST).is_err());
    assert_eq!(asked.load(SeqCst), 0);
    let first = admission.admit(COST, in_ms(0)).await.unwrap();
    let second = admission.admit(COST, in_ms(0)).await.unwrap();
    assert_eq!((asked.load(SeqCst), idle.lock().unwrap().len()), (2, 0));
    assert!(admission.admit(COST, in_ms(0)).await.is_err());
    assert_eq!(asked.load(SeqCst), 3);
    // A sandbox that becomes idle while somebody waits goes too, once there is a reason to look.
    let (third, fourth) = (ask(&admission, "", in_ms(9000)), ask(&admission, "", in_ms(9000)));
    settle().await;
    idle.lock().unwrap().push(first);
    drop(second);
    let (third, fourth) = (third.await.unwrap().unwrap(), fourth.await.unwrap().unwrap());
    let asked_now = asked.load(SeqCst);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(asked.load(SeqCst), asked_now);
    drop((third, fourth));
}

#[tokio::test(start_paused = true)]
async fn a_large_one_is_not_passed_by_small_ones_and_holds_them_up_until_its_deadline_only() {
    let admission = Admission::with_host(config(99), FakeHost::with_memory(1500));
    let large = {
        let (admission, deadline) = (admission.clone(), in_ms(50));
        let cost = Cost { memory_bytes: 501, ..COST };
        tokio::spawn(async move { admission.admit(cost, deadline).await })
    };
    settle().await;
    let small = ask(&admission, "other", in_ms(1000));
    settle().await;
    assert!(!small.is_finished());
    let started = Instant::now();
    let _small = small.await.unwrap().unwrap();
    assert_eq!(started.elapsed().as_millis(), 50);
    assert!(large.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns() {
    let admission = roomy(1);
    let mut permit = admission.admit(COST, in_ms(0)).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for (number, tenant) in ["a", "a", "a", "b", "a", "b"].into_iter().enumerate() {
        let waiting = ask(&admission, tenant, in_ms(1000));
        let order = order.clone();
        tokio::spawn(async move {
            let permit = waiting.await.unwrap().unwrap();
            order.lock().unwrap().push((format!("{tenant}{number}"), permit));
        });
        settle().await;
    }
    for _ in 0..6 {
        drop(permit);
        settle().await;
        let next = order.lock().unwrap().last_mut().map(|(_, permit)| Permit {
            inner: permit.inner.clone(),
            cost: permit.cost,
            holding: permit.holding.take(),
        });
        permit = next.unwrap();
    }
    let order: Vec<String> = order.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(order.join(" "), "a0 b3 a1 b5 a2 a4");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_queue_and_passes_on_what_was_granted() {
    let admission = roomy(1);
    let permit = admission.admit(COST, in_ms(0)).await.unwrap();
    let (gone, next) = (ask(&admission, "", in_ms(1000)), ask(&admission, "", in_ms(1000)));
    settle().await;
    // It is granted and gives up before it is run again.
    drop(permit);
    gone.abort();
    let _permit = next.await.unwrap().unwrap();
    assert_eq!(admission.stats().alive, 1);
    let waiting = ask(&admission, "", in_ms(1000));
    settle().await;
    waiting.abort();
    settle().await;
    assert_eq!((admission.stats().waiting, admission.stats().abandoned), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_nobody_waits_and_nobody_is_admitted() {
    let admission = roomy(1);
    let permit = admission.admit(COST, in_ms(0)).await.unwrap();
    let waiting = ask(&admission, "", in_ms(1000));
    settle().await;
    admission.shutdown();
    assert_eq!(waiting.await.unwrap().unwrap_err(), Refused::ShuttingDown);
    drop(permit);
    assert_eq!(admission.admit(COST, in_ms(1000)).await.unwrap_err(), Refused::ShuttingDown);
    assert_eq!(admission.try_admit(COST).unwrap_err(), Refused::ShuttingDown);
}

#[test]
fn those_who_wait_are_looked_after_in_every_runtime() {
    let host = FakeHost::with_memory(1050);
    let admission = Admission::with_host(config(9), host.clone());
    let block = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // The first runtime ends with the steward in the middle of its work.
    block().block_on(async {
        ask(&admission, "", in_ms(60_000));
        settle().await;
    });
    host.memory_available_bytes.store(1100, SeqCst);
    let _permit = block().block_on(async { admission.admit(COST, in_ms(10_000)).await.unwrap() });
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What each of many callers met.
#[derive(Default)]
struct Tally {
    alive: AtomicUsize,
    most_alive: AtomicUsize,
    admitted: AtomicUsize,
    refused: AtomicUsize,
}

/// A stay on the machine. It ends before its permit is dropped, however the caller ends.
struct Stay(Arc<Tally>);

impl Stay {
    fn begin(tally: &Arc<Tally>) -> Self {
        tally.admitted.fetch_add(1, SeqCst);
        tally.most_alive.fetch_max(tally.alive.fetch_add(1, SeqCst) + 1, SeqCst);
        Self(tally.clone())
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, SeqCst);
    }
}

const CALLERS: u64 = 10_000;
const MAX_ALIVE: usize = 100;

#[tokio::test(start_paused = true)]
async fn ten_thousand_at_once_are_served_in_order_and_nobody_is_forgotten() {
    let config = AdmissionConfig { max_starting: Some(10), ..config(MAX_ALIVE) };
    let admission = Admission::with_host(config, FakeHost::with_memory(1 << 40));
    let (tally, order) = (Arc::new(Tally::default()), Arc::new(Mutex::new(Vec::new())));
    let (mut random, mut tasks) = (Random(42), JoinSet::new());
    let mut cancelled = BTreeSet::new();
    for number in 0..CALLERS {
        let (admission, tally, order) = (admission.clone(), tally.clone(), order.clone());
        let starts_in = Duration::from_micros(random.below(2000));
        let lives = Duration::from_micros(random.below(20_000));
        // One in ten has a deadline that it may not meet.
        let deadline = if random.below(10) == 0 { in_ms(1 + random.below(1500)) } else { in_ms(1_000_000) };
        let handle = tasks.spawn(async move {
            match admission.admit(COST, deadline).await {
                Ok(mut permit) => {
                    order.lock().unwrap().push(number);
                    let _stay = Stay::begin(&tally);
                    let starting = admission.stats().starting;
                    assert!(starting <= 10, "{starting} are starting");
                    sleep(starts_in).await;
                    permit.started();
                    sleep(lives).await;
                }
                Err(refused) => {
                    assert!(matches!(refused, Refused::DeadlinePassed { .. }), "{refused}");
                    assert!(refused.short().is_some());
                    tally.refused.fetch_add(1, SeqCst);
                }
            }
        });
        if random.below(10) == 0 {
            cancelled.insert(number);
            let after = Duration::from_micros(random.below(1_000_000));
            tokio::spawn(async move {
                sleep(after).await;
                handle.abort();
            });
        }
    }
    let mut aborted = 0;
    while let Some(result) = tasks.join_next().await {
        match result {
            Ok(()) => {}
            Err(error) if error.is_cancelled() => aborted += 1,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    let (admitted, refused) = (tally.admitted.load(SeqCst), tally.refused.load(SeqCst));
    assert!(tally.most_alive.load(SeqCst) <= MAX_ALIVE);
    assert!(admitted > 8000 && refused > 50 && aborted > 500, "{admitted} {refused} {aborted}");
    let order = order.lock().unwrap();
    assert!(order.is_sorted(), "not first in, first out");
    // Whoever was neither cancelled nor refused was admitted.
    let missing =
        (0..CALLERS).filter(|number| !cancelled.contains(number) && order.binary_search(number).is_err());
    assert!(missing.count() <= refused);
    let stats = admission.stats();
    assert_eq!((stats.alive, stats.starting, stats.waiting), (0, 0, 0));
    assert_eq!(stats.promised, Cost::default());
    assert_eq!(stats.admitted + stats.refused + stats.abandoned, CALLERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_at_once_on_several_threads_lose_no_wake_up() {
    let admission = roomy(MAX_ALIVE);
    let tally = Arc::new(Tally::default());
    let mut tasks = JoinSet::new();
    let mut random = Random(7);
    for number in 0..CALLERS {
        let (admission, tally) = (admission.clone(), tally.clone());
        let tenant = Tenant::from(["a", "b", "c"][number as usize % 3]);
        let is_impatient = random.below(4) == 0;
        let patience = Duration::from_micros(random.below(20_000));
        tasks.spawn(async move {
            let admit = admission.admit_for(&tenant, COST, in_ms(60_000));
            let permit = if is_impatient {
                match tokio::time::timeout(patience, admit).await {
                    Ok(permit) => permit,
                    Err(_) => return,
                }
            } else {
                admit.await
            };
            let mut permit = permit.unwrap();
            let _stay = Stay::begin(&tally);
            tokio::task::yield_now().await;
            permit.started();
        });
    }
    let all = async {
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("somebody waits for ever");
    assert!(tally.most_alive.load(SeqCst) <= MAX_ALIVE);
    let stats = admission.stats();
    assert_eq!((stats.alive, stats.waiting, stats.refused), (0, 0, 0));
    assert_eq!(stats.admitted + stats.abandoned, CALLERS);
    assert!(stats.admitted >= tally.admitted.load(SeqCst) as u64);
}
