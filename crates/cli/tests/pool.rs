//! Pools of real sandboxes: what a claim asks for is in force, what is refused says why, and nothing is left.

#![forbid(unsafe_code)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{PATIENCE, kill, python, python_with, template, told, trials, until, value, vmms};
use lg_runtime::admission::{Admission, AdmissionConfig, Cost, Refused, Shortage, Tenant};
use lg_runtime::pool::{Ask, ClaimError, Origin, PoolConfig, SandboxPool, SandboxPoolConfig};
use lg_runtime::{
    CallError, FaultKind, Limits, Outcome, Placement, Placer, Template, TemplateSpec, Topology, WarmUp,
};
use tokio::task::JoinSet;

const MS: Duration = Duration::from_millis(1);

fn main() -> std::process::ExitCode {
    common::main(trials![
        a_ready_sandbox_becomes_what_was_asked_for,
        a_limit_that_cannot_be_had_is_named_and_costs_no_ready_one,
        the_limits_of_a_running_sandbox_can_change,
        the_time_of_a_ready_sandbox_counts_from_the_claim,
        another_template_retires_the_forks_of_the_earlier_one,
        a_claim_after_the_shutdown_is_refused,
        a_dead_one_is_not_handed_out,
        a_pool_whose_template_is_killed_goes_on_with_another,
        a_permit_comes_back_however_a_sandbox_ends,
        idle_ones_of_every_pool_make_way,
        what_sandboxes_use_is_learned,
        sandboxes_run_where_they_are_placed,
        three_times_as_many_as_fit_all_have_their_turn,
        what_is_refused_says_why_and_when_to_try_again,
        ten_thousand_claims_at_once_are_all_answered,
    ])
}

/// A machine that has room for as many.
fn admission(max_alive: usize) -> Admission {
    with_room(AdmissionConfig { max_alive: Some(max_alive), ..AdmissionConfig::default() })
}

fn with_room(config: AdmissionConfig) -> Admission {
    // Whatever else this machine does.
    Admission::new(AdmissionConfig { memory_reserve_bytes: Some(0), processes_reserve: 0, ..config })
}

fn config(floor: usize) -> SandboxPoolConfig {
    let pool = PoolConfig { floor, ceiling: floor, sweep_every: 20 * MS, ..PoolConfig::default() };
    // As good as nothing: the tests that care set what counts.
    SandboxPoolConfig { pool, cost: Cost { memory_bytes: 1 << 20, ..cost() }, ..SandboxPoolConfig::default() }
}

fn cost() -> Cost {
    SandboxPoolConfig::default().cost
}

async fn full(template: &Arc<Template>, config: SandboxPoolConfig) -> SandboxPool {
    let pool = SandboxPool::new(template.clone(), config);
    pool.filled().await.unwrap();
    pool
}

fn asking(limits: Limits) -> Ask {
    Ask { limits, ..Ask::default() }
}

async fn a_ready_sandbox_becomes_what_was_asked_for() {
    let template = python().await;
    let pool = full(&template, config(2)).await;
    let limits = Limits {
        memory_bytes: Some(template.memory_bytes() + (32 << 20)),
        max_processes: Some(1),
        max_open_files: Some(40),
        file_bytes: Some(1 << 20),
        ..Limits::default()
    };
    let ask = Ask { hostname: Some("claimed".to_owned()), ..asking(limits) };
    let mut sandbox = pool.claim(&ask, PATIENCE).await.unwrap();
    assert_eq!(sandbox.origin(), Origin::Ready);
    let cases = [
        ("import os, socket; socket.gethostname()", "'claimed'"),
        ("open('/etc/hostname').read()", "'claimed\\n'"),
        ("'claimed' in open('/etc/hosts').read()", "True"),
        ("try: bytearray(100 << 20)\nexcept MemoryError as e: r = type(e).__name__\nr", "'MemoryError'"),
        ("try: os.fork()\nexcept OSError as e: r = e.errno\nr", "11"),
        ("f = []\ntry:\n while True: f.append(open('/dev/null'))\nexcept OSError as e: r = e.errno\nr", "23"),
        ("del f\ntry: open('/tmp/f', 'wb').write(bytes(4 << 20))\nexcept OSError as e: r = e.errno\nr", "28"),
    ];
    for (source, expected) in cases {
        assert_eq!(value(&mut sandbox, source).await, expected, "{source}");
    }
    // What one is given, the next does not have.
    let mut other = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
    assert_eq!(value(&mut other, "import os; os.uname().nodename").await, "'luminaguard'");
    assert_eq!(value(&mut other, "len(bytearray(100 << 20))").await, "104857600");
    for limits in [
        Limits { cpu_time: Some(100 * MS), ..Limits::default() },
        Limits { output_bytes: Some(1000), ..Limits::default() },
    ] {
        let mut sandbox = pool.claim(&asking(limits), PATIENCE).await.unwrap();
        sandbox.context().unwrap().evaluate("while True: print('x' * 100)").await.unwrap_err();
        let outcome = sandbox.wait().await.unwrap().outcome;
        assert!(matches!(outcome, Outcome::LimitReached(_)), "{limits:?}: {outcome:?}");
    }
    pool.shutdown().await;
}

async fn a_limit_that_cannot_be_had_is_named_and_costs_no_ready_one() {
    let template = python().await;
    let pool = full(&template, config(1)).await;
    let cases = [
        (Limits { memory_bytes: Some(1 << 40), ..Limits::default() }, "pages of memory"),
        (Limits { memory_bytes: Some(8 << 20), ..Limits::default() }, "pages of memory"),
        (Limits { memory_bytes: Some(1), ..Limits::default() }, "memory limit of 1 bytes"),
        (Limits { max_processes: Some(0), ..Limits::default() }, "limit of 0 processes"),
        (Limits { max_open_files: Some(1), ..Limits::default() }, "open files"),
        (Limits { timeout: Some(Duration::ZERO), ..Limits::default() }, "timeout of zero"),
    ];
    for (limits, named) in cases {
        let error = pool.claim(&asking(limits), PATIENCE).await.unwrap_err();
        assert!(matches!(error, ClaimError::Failed { .. }), "{limits:?}: {error:?}");
        assert!(told(&error).contains(named), "{limits:?}: {}", told(&error));
    }
    let ask = Ask { hostname: Some("a b".to_owned()), ..Ask::default() };
    assert!(told(&pool.claim(&ask, PATIENCE).await.unwrap_err()).contains("host name"));
    let stats = pool.stats();
    let retired = (stats.retired.unfit, stats.retired.abandoned, stats.retired.dead);
    assert_eq!((stats.ready, retired, stats.apply_failures), (1, (0, 0, 0), 0));
    assert_eq!(pool.claim(&Ask::default(), PATIENCE).await.unwrap().origin(), Origin::Ready);
    pool.shutdown().await;
}

async fn the_limits_of_a_running_sandbox_can_change() {
    let mut sandbox = python().await.spawn().await.unwrap();
    value(&mut sandbox, "import subprocess; p = [subprocess.Popen(['sleep', '60']) for _ in 'ab']\n0").await;
    let one = Limits { max_processes: Some(1), output_bytes: Some(1), ..Limits::default() };
    let error = sandbox.set_limits(&one).await.unwrap_err();
    let CallError::Refused(fault) = error else { panic!("{error:?}") };
    assert_eq!(fault.kind, FaultKind::Limit);
    assert_eq!(fault.message, "cannot lower the limit to 1 processes and threads: 3 are in use");
    // Nothing has changed, not even what could be had.
    let cell = sandbox.context().unwrap().evaluate("print('more than one byte')").await.unwrap();
    assert_eq!(cell.stdout, b"more than one byte\n");
    let none = Limits { max_processes: Some(0), ..Limits::default() };
    let error = sandbox.set_limits(&none).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused(fault) if fault.kind == FaultKind::Invalid), "{error:?}");
    // Time counts from now, and the next request replaces it.
    for (time, started) in [(60_000 * MS, Instant::now()), (100 * MS, Instant::now())] {
        sandbox.set_limits(&Limits { timeout: Some(time), ..Limits::default() }).await.unwrap();
        assert!(time > 1000 * MS || sandbox.wait().await.unwrap().outcome == Outcome::TimedOut);
        assert!(time > 1000 * MS || started.elapsed() >= time);
    }
    assert!(matches!(sandbox.set_limits(&none).await, Err(CallError::Ended)));
}

async fn the_time_of_a_ready_sandbox_counts_from_the_claim() {
    let mut spec = TemplateSpec::python();
    spec.sandbox.timeout = Some(300 * MS);
    let pool = full(&template(&spec).await, config(1)).await;
    // Longer than it may live.
    tokio::time::sleep(400 * MS).await;
    for (ask, least) in [
        (Ask::default(), 300 * MS),
        (asking(Limits { timeout: Some(150 * MS), ..Limits::default() }), 150 * MS),
    ] {
        pool.filled().await.unwrap();
        let started = Instant::now();
        let mut sandbox = pool.claim(&ask, PATIENCE).await.unwrap();
        assert_eq!(sandbox.origin(), Origin::Ready);
        assert_eq!(sandbox.wait().await.unwrap().outcome, Outcome::TimedOut);
        assert!(started.elapsed() >= least, "{least:?}: {:?}", started.elapsed());
    }
    pool.shutdown().await;
}

async fn another_template_retires_the_forks_of_the_earlier_one() {
    let pool = full(&python_with("which = 'first'").await, config(2)).await;
    let mut early = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
    pool.filled().await.unwrap();
    pool.replace_template(python_with("which = 'second'").await);
    for _ in 0..4 {
        let mut sandbox = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
        assert_eq!(value(&mut sandbox, "which").await, "'second'");
    }
    until("the earlier ones are retired", || pool.stats().retired.outdated == 2).await;
    // What was handed out outlives its template.
    assert_eq!(value(&mut early, "which").await, "'first'");
    pool.shutdown().await;
}

async fn a_claim_after_the_shutdown_is_refused() {
    let pool = full(&python().await, config(3)).await;
    let mut held = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
    pool.shutdown().await;
    assert_eq!(pool.stats().ready, 0);
    let error = pool.claim(&Ask::default(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClaimError::ShutDown), "{error:?}");
    assert_eq!(value(&mut held, "6 * 7").await, "42");
    assert_eq!(held.end().await.unwrap().outcome, Outcome::Killed);
}

async fn a_dead_one_is_not_handed_out() {
    let template = python().await;
    let pool = full(&template, config(1)).await;
    let idle = vmms().into_iter().find(|pid| *pid != template.vmm_pid()).unwrap();
    kill(idle);
    until("the dead one is found", || pool.stats().retired.dead == 1).await;
    let mut sandbox = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
    assert_eq!(value(&mut sandbox, "6 * 7").await, "42");
    // Without its template the pool says why it cannot serve.
    kill(template.vmm_pid());
    until("the template is over", || template.is_over()).await;
    let mut taken = Vec::new();
    let error = loop {
        match pool.claim(&Ask::default(), PATIENCE).await {
            Ok(ready) => taken.push(ready),
            Err(error) => break error,
        }
    };
    assert!(told(&error).contains("the original is over"), "{}", told(&error));
    assert_eq!(value(&mut sandbox, "7 * 7").await, "49");
    drop(taken);
    pool.shutdown().await;
}

async fn a_pool_whose_template_is_killed_goes_on_with_another() {
    let template = python_with("which = 'first'").await;
    // A pause that nobody could wait for.
    let mut config = config(2);
    config.pool.backoff = 10 * PATIENCE;
    config.pool.max_backoff = 10 * PATIENCE;
    config.pool.pause_after_release = Duration::ZERO;
    let pool = full(&template, config).await;
    let mut early = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
    pool.filled().await.unwrap();
    kill(template.vmm_pid());
    tokio::time::timeout(PATIENCE, template.ended()).await.unwrap();
    assert!(template.is_over());
    pool.release_idle(2);
    until("the pool cannot be filled", || pool.stats().refill_failures_in_a_row > 0).await;
    let failure = pool.filled().await.unwrap_err();
    assert!(told(&failure).contains("the original is over"), "{}", told(&failure));
    pool.replace_template(python_with("which = 'second'").await);
    tokio::time::timeout(PATIENCE, pool.filled()).await.unwrap().unwrap();
    let mut sandbox = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
    assert_eq!(sandbox.origin(), Origin::Ready);
    assert_eq!(value(&mut sandbox, "which").await, "'second'");
    assert_eq!(value(&mut early, "which").await, "'first'");
    drop(template);
    pool.shutdown().await;
}

async fn a_permit_comes_back_however_a_sandbox_ends() {
    let template = python().await;
    let admission = admission(4);
    let pool =
        SandboxPool::new(template, SandboxPoolConfig { admission: Some(admission.clone()), ..config(0) });
    let alive = || admission.stats().alive;
    let claim = || async { pool.claim(&Ask::default(), PATIENCE).await.unwrap() };
    let mut sandbox = claim().await;
    assert_eq!((alive(), admission.stats().starting), (1, 0));
    sandbox.kill().await.unwrap();
    assert_eq!(alive(), 0, "it was killed");
    drop(sandbox);
    claim().await.end().await.unwrap();
    assert_eq!(alive(), 0, "it was ended");
    let mut sandbox = claim().await;
    sandbox.set_limits(&Limits { timeout: Some(MS), ..Limits::default() }).await.unwrap();
    sandbox.wait().await.unwrap();
    assert_eq!(alive(), 0, "it was waited for");
    let mut sandbox = claim().await;
    kill(sandbox.vmm_pid());
    sandbox.wait().await.unwrap_err();
    assert_eq!(alive(), 0, "its vmm was killed");
    let sandbox = claim().await.into_sandbox();
    assert_eq!(alive(), 1);
    drop(sandbox);
    until("a dropped one is reaped", || alive() == 0).await;
    // A claim that is given up in the middle leaves nothing either.
    for wait in 0..8 {
        let _ = tokio::time::timeout(wait * MS / 4, pool.claim(&Ask::default(), PATIENCE)).await;
    }
    until("what nobody waits for is reaped", || alive() == 0).await;
    pool.shutdown().await;
}

async fn idle_ones_of_every_pool_make_way() {
    let template = python().await;
    let admission = admission(3);
    let config = |floor| SandboxPoolConfig { admission: Some(admission.clone()), ..config(floor) };
    let none = full(&template, config(0)).await;
    let gone = SandboxPool::new(template.clone(), config(0));
    gone.shutdown().await;
    drop(gone);
    let pool = full(&template, config(3)).await;
    assert_eq!(admission.stats().alive, 3);
    let mut sandbox = none.claim(&Ask::default(), PATIENCE).await.unwrap();
    assert_eq!(value(&mut sandbox, "6 * 7").await, "42");
    let other = none.spawn_fresh(&Ask::default(), PATIENCE).await.unwrap();
    assert_eq!(pool.stats().retired.released, 2);
    assert_eq!((admission.stats().alive, admission.stats().waiting), (3, 0));
    drop((sandbox, other));
    tokio::join!(none.shutdown(), pool.shutdown());
}

async fn what_sandboxes_use_is_learned() {
    let admission = admission(4);
    let guess = Cost { memory_bytes: 400 << 20, ..cost() };
    let pool = SandboxPool::new(
        python().await,
        SandboxPoolConfig { admission: Some(admission.clone()), cost: guess, ..config(0) },
    );
    assert_eq!(pool.cost(), guess);
    // Those at work are measured too: what was promised to them counts once only.
    let mut at_work = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
    value(&mut at_work, "x = bytearray(8 << 20); len(x)").await;
    until("it is measured", || admission.stats().promised.memory_bytes <= (400 - 8) << 20).await;
    for _ in 0..40 {
        pool.claim(&Ask::default(), PATIENCE).await.unwrap().end().await.unwrap();
    }
    let learned = pool.cost().memory_bytes;
    assert!((1 << 20..64 << 20).contains(&learned), "{learned} bytes");
    drop(at_work);
    pool.shutdown().await;
}

async fn sandboxes_run_where_they_are_placed() {
    let topology = Topology::of_host().unwrap();
    if topology.allowed().len() < 2 {
        eprintln!("SKIPPED: this machine has one CPU only");
        return;
    }
    let all = topology.allowed().to_string();
    let on = |text: &str| Placer::new(&text.parse().unwrap(), &topology).unwrap();
    let mut cpus = topology.allowed().iter();
    let (first, second) = (cpus.next().unwrap().to_string(), cpus.next().unwrap().to_string());
    let (pooled, own) = (on(&first), on(&second));
    let pool = full(&python().await, SandboxPoolConfig { placer: Some(pooled.clone()), ..config(2) }).await;
    let ask = |placer: &Placer| Ask { placer: Some(placer.clone()), ..Ask::default() };
    let free = Placer::new(&Placement::None, &topology).unwrap();
    for (ask, origin, expected) in [
        (Ask::default(), Origin::Ready, &first),
        (ask(&own), Origin::Ready, &second),
        (ask(&free), Origin::Fresh, &all),
    ] {
        pool.filled().await.unwrap();
        let sandbox = pool.claim(&ask, PATIENCE).await.unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.vmm_pid())).unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
        assert_eq!((sandbox.origin(), list), (origin, &**expected));
    }
    until("CPUs are given back", || own.assigned() == 0 && free.assigned() == 0).await;
    pool.shutdown().await;
    assert_eq!(pooled.assigned(), 0);
}

/// What one agent does: it claims, computes, lives a while and ends. Answers how long it waited.
async fn agent(pool: &SandboxPool, number: usize, deadline: Duration) -> Result<Duration, Refused> {
    let ask = Ask { tenant: Tenant::from(["a", "b", "c"][number % 3]), ..Ask::default() };
    let started = Instant::now();
    let mut sandbox = match pool.claim(&ask, deadline).await {
        Ok(sandbox) => sandbox,
        Err(error) => return Err(error.refused().unwrap_or_else(|| panic!("{error:?}")).clone()),
    };
    let waited = started.elapsed();
    assert_eq!(value(&mut sandbox, &format!("{number} * 2")).await, (number * 2).to_string());
    tokio::time::sleep(50 * MS).await;
    assert_eq!(sandbox.end().await.unwrap().outcome, Outcome::Killed);
    Ok(waited)
}

async fn agents(pool: &Arc<SandboxPool>, count: usize, deadline: Duration) -> Vec<Result<Duration, Refused>> {
    let mut agents = JoinSet::new();
    for number in 0..count {
        let pool = pool.clone();
        agents.spawn(async move { agent(&pool, number, deadline).await });
    }
    agents.join_all().await
}

async fn three_times_as_many_as_fit_all_have_their_turn() {
    let admission = admission(8);
    let config = SandboxPoolConfig { admission: Some(admission.clone()), ..config(4) };
    let pool = Arc::new(full(&python().await, config).await);
    let started = Instant::now();
    let results = agents(&pool, 24, PATIENCE).await;
    let took = started.elapsed();
    let mut waits: Vec<Duration> = results.into_iter().map(|result| result.unwrap()).collect();
    waits.sort();
    // Three waves: nobody waits for longer than all of them take, and nobody lived for nothing.
    assert!(took >= 150 * MS, "more than 8 were there at once: {took:?}");
    assert!(waits[23] < took && waits[23] < PATIENCE / 2, "{waits:?}");
    let stats = admission.stats();
    assert_eq!((stats.refused, stats.waiting, stats.starting), (0, 0, 0));
    pool.shutdown().await;
    until("all permits are back", || admission.stats().alive == 0).await;
}

async fn what_is_refused_says_why_and_when_to_try_again() {
    let limits = AdmissionConfig {
        max_alive: Some(8),
        max_starting: Some(8),
        queue_len: 6,
        ..AdmissionConfig::default()
    };
    let admission = with_room(limits);
    let config = SandboxPoolConfig { admission: Some(admission.clone()), ..config(2) };
    let pool = Arc::new(full(&python().await, config).await);
    // How fast sandboxes end is known from then on.
    assert!(agents(&pool, 8, PATIENCE).await.iter().all(Result::is_ok));
    let results = agents(&pool, 24, PATIENCE).await;
    let (served, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(served.len() >= 8 + 6 - 2, "{} were served", served.len());
    assert!(!refused.is_empty(), "all were served");
    for refused in refused.into_iter().map(Result::unwrap_err) {
        assert!(matches!(refused, Refused::QueueFull { .. }), "{refused:?}");
        let hint = refused.retry_after().unwrap_or_else(|| panic!("no hint: {refused:?}"));
        assert!(hint < PATIENCE, "{hint:?}");
    }
    // Whoever waits too short is told what was short at the end.
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(pool.claim(&Ask::default(), PATIENCE).await.unwrap());
    }
    let error = pool.claim(&Ask::default(), 20 * MS).await.unwrap_err();
    let Some(Refused::DeadlinePassed { short, waited, .. }) = error.refused() else { panic!("{error:?}") };
    assert_eq!(*short, Shortage::TooManyAlive { alive: 8, most: 8 });
    assert!(*waited >= 20 * MS && error.retry_after().is_some(), "{error:?}");
    drop(held);
    pool.shutdown().await;
}

async fn ten_thousand_claims_at_once_are_all_answered() {
    let admission =
        with_room(AdmissionConfig { max_alive: Some(4), queue_len: 2000, ..AdmissionConfig::default() });
    let config = SandboxPoolConfig { admission: Some(admission.clone()), ..config(2) };
    let warm = TemplateSpec::new("base", WarmUp::Nothing);
    let pool = Arc::new(full(&template(&warm).await, config).await);
    let mut claims = JoinSet::new();
    for _ in 0..10_000 {
        let pool = pool.clone();
        claims.spawn(async move {
            match pool.claim(&Ask::default(), 500 * MS).await {
                Ok(sandbox) => {
                    sandbox.end().await.unwrap();
                    Ok(())
                }
                Err(error) => Err(error.refused().unwrap_or_else(|| panic!("{error:?}")).clone()),
            }
        });
    }
    let results = claims.join_all().await;
    let served = results.iter().filter(|result| result.is_ok()).count();
    let of = |is: fn(&Refused) -> bool| {
        results.iter().flat_map(|result| result.as_ref().err()).filter(|r| is(r)).count()
    };
    let full = of(|refused| matches!(refused, Refused::QueueFull { .. }));
    let late = of(|refused| matches!(refused, Refused::DeadlinePassed { .. }));
    assert_eq!(served + full + late, 10_000, "{results:?}");
    assert!(served >= 4 && full > 0, "{served} were served, {full} found the queue full, {late} were late");
    pool.shutdown().await;
    until("all permits are back", || admission.stats().alive == 0).await;
}
