//! What a user of the library waits for: a fork of a template, a live fork, a claim from a pool.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use lg_runtime::pool::{Ask, PoolConfig, SandboxPool, SandboxPoolConfig};
use lg_runtime::{Launcher, Sandbox, Template, TemplateSpec};
use tokio::runtime::Runtime;

const READY: usize = 4;

fn sandboxes(criterion: &mut Criterion) {
    if !Path::new("/dev/kvm").exists() {
        eprintln!("SKIPPED: there is no /dev/kvm on this machine");
        return;
    }
    let tokio = Runtime::new().expect("a runtime");
    let launcher = Launcher::new(env!("CARGO_BIN_EXE_luminaguard"), ["vmm"]);
    let template = tokio.block_on(Template::build(&TemplateSpec::python(), &launcher)).expect("a template");
    let template = Arc::new(template);
    criterion.bench_function("fork of a warm template, without its end", |bencher| {
        bencher.iter_custom(|count| tokio.block_on(forks(&template, count)));
    });
    let original = tokio.block_on(template.spawn()).expect("a sandbox");
    let mut original = Some(original);
    criterion.bench_function("live fork, without its end", |bencher| {
        let original = original.as_mut().expect("it is there");
        bencher.iter_custom(|count| tokio.block_on(live_forks(original, count)));
    });
    drop(original.take());
    criterion.bench_function("claim of a ready sandbox", |bencher| {
        bencher.iter_custom(|count| tokio.block_on(claims(&template, count)));
    });
}

async fn forks(template: &Template, count: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let started = Instant::now();
        let mut sandbox = template.spawn().await.expect("a fork");
        total += started.elapsed();
        sandbox.kill().await.expect("it ends");
    }
    total
}

async fn live_forks(original: &mut Sandbox, count: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let started = Instant::now();
        let forks = original.fork(1).await.expect("a fork");
        total += started.elapsed();
        for mut fork in forks {
            fork.kill().await.expect("it ends");
        }
    }
    total
}

async fn claims(template: &Arc<Template>, count: u64) -> Duration {
    let pool = PoolConfig { floor: READY, ceiling: READY, ..PoolConfig::default() };
    let pool = SandboxPool::new(template.clone(), SandboxPoolConfig { pool, ..SandboxPoolConfig::default() });
    let mut total = Duration::ZERO;
    for _ in 0..count {
        pool.filled().await.expect("ready sandboxes");
        let started = Instant::now();
        let claimed = pool.claim(&Ask::default(), Duration::from_secs(5)).await.expect("a sandbox");
        total += started.elapsed();
        drop(claimed);
    }
    pool.shutdown().await;
    total
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5));
    targets = sandboxes
}
criterion_main!(benches);
