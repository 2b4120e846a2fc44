//! `luminaguard bench claim`: claims from a pool of ready sandboxes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lg_runtime::pool::{Applied, Claimed, Origin, Pool, PoolConfig, PoolSource};
use lg_runtime::{Sandbox, SpawnError, Template, TemplateSpec};
use serde::Serialize;
use tokio::time::Instant;

use crate::finding::{Bed, Finding, Header, Tally, TemplateFacts};
use crate::floors::{InTurns, MeasuredFloors, Ratio};
use crate::interrupt::{Stop, block_on_to_stop};
use crate::progress::Count;
use crate::stats::Summary;
use crate::timing::Timings;
use crate::warm_life::{answer, end};
use crate::{Bench, descriptors, ms};

/// How long a claim may take.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Debug, Clone)]
pub struct ClaimConfig {
    /// What it is compared with.
    pub bench: Bench,
    /// How many claims, one after the other; the pool is full again before each.
    pub count: usize,
    /// How many sandboxes are kept ready.
    pub ready: usize,
}

/// What one claim measured, in milliseconds of wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClaimSample {
    /// From the claim until the sandbox was handed out.
    pub claim_ms: f64,
    /// From the claim until the sandbox's first answer. The pool makes another one meanwhile.
    pub answered_ms: f64,
    /// From the claim until the sandbox's vmm was reaped.
    pub total_ms: f64,
    /// `ready` is a hit, `fresh` a miss.
    pub origin: Origin,
}

/// What was found. Times are of hits.
#[derive(Debug, Serialize)]
pub struct ClaimFinding {
    /// Where and when; the schema is `luminaguard.bench.claim/1`.
    #[serde(flatten)]
    pub header: Header,
    /// Whether SIGINT or SIGTERM ended the run early: then this is what was found until there.
    pub interrupted: bool,
    /// What the pool's sandboxes were forked from.
    pub template: TemplateFacts,
    /// How many were kept ready.
    pub ready: usize,
    /// Claims that got a ready sandbox.
    pub hits: usize,
    /// Claims that got one made for them.
    pub misses: usize,
    /// Until the sandbox was handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_ms: Option<Summary>,
    /// Until its first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<Summary>,
    /// Until it was gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<Summary>,
    /// Measured in turns with the claims.
    pub floors: MeasuredFloors,
    /// Until the first answer, in multiples of the floors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ratio: Option<Ratio>,
    /// What failed and what was left.
    pub tally: Tally,
    /// All claims, in order.
    pub samples: Vec<ClaimSample>,
}

/// Forks of a template, as a pool keeps them.
struct Forks(Arc<Template>);

impl PoolSource for Forks {
    type Item = Sandbox;
    type Error = SpawnError;
    type Ask = ();

    fn version(&self) -> u64 {
        self.0.version()
    }

    async fn make(&self) -> Result<Sandbox, SpawnError> {
        self.0.spawn().await
    }

    async fn apply(&self, _: &mut Sandbox, (): &()) -> Result<Applied, SpawnError> {
        Ok(Applied::Done)
    }

    async fn make_fresh(&self, (): &()) -> Result<Sandbox, SpawnError> {
        self.0.spawn().await
    }

    async fn retire(&self, mut sandbox: Sandbox) {
        // What cannot be waited for shows among the leftovers.
        let _ = sandbox.kill().await;
    }

    fn is_alive(&self, sandbox: &Sandbox) -> bool {
        !sandbox.is_over()
    }
}

impl ClaimConfig {
    /// Measures everything.
    ///
    /// # Errors
    /// When the run cannot be done at all. A claim that fails is no error but a finding.
    pub fn run(&self) -> Result<ClaimFinding> {
        ensure!(self.count > 0, "--count must be at least 1");
        ensure!(self.ready > 0, "--ready must be at least 1");
        descriptors::allow(self.ready)?;
        block_on_to_stop(|stop| self.measure(stop))
    }

    async fn measure(&self, stop: Stop) -> Result<ClaimFinding> {
        let header = Header::new("claim", &self.bench.bare_vm);
        let bed = Bed::make(&self.bench, &TemplateSpec::python()).await?;
        let floors = Arc::new(InTurns::new(&self.bench.bare_vm, self.count));
        let config = PoolConfig { floor: self.ready, ceiling: self.ready, ..PoolConfig::default() };
        let pool = Pool::new(Forks(bed.template.clone()), config);
        let (turns, count, stopping) = (floors.clone(), self.count, stop.clone());
        let claims = tokio::spawn(async move {
            let result = claim_all(&pool, count, &turns, &stopping).await;
            pool.shutdown().await;
            result
        });
        let (samples, mut tally) = claims.await??;
        tally.leftovers = bed.leftovers().await;
        let hits: Vec<&ClaimSample> = samples.iter().filter(|claim| claim.origin == Origin::Ready).collect();
        let of = |of: fn(&ClaimSample) -> f64| {
            Summary::of(&hits.iter().map(|claim| of(claim)).collect::<Vec<_>>())
        };
        let floors = floors.finish();
        let answered_ms = of(|claim| claim.answered_ms);
        Ok(ClaimFinding {
            header,
            interrupted: stop.is_requested(),
            template: TemplateFacts::of(&bed.template),
            ready: self.ready,
            hits: hits.len(),
            misses: samples.len() - hits.len(),
            claim_ms: of(|claim| claim.claim_ms),
            answered_ms,
            total_ms: of(|claim| claim.total_ms),
            answered_ratio: floors.ratio(answered_ms),
            floors,
            tally,
            samples,
        })
    }
}

async fn claim_all(
    pool: &Pool<Forks>,
    count: usize,
    floors: &InTurns,
    stop: &Stop,
) -> Result<(Vec<ClaimSample>, Tally)> {
    let (mut samples, mut tally) = (Vec::with_capacity(count), Tally::default());
    let progress = Count::new("claims", count);
    for index in 0..count {
        if stop.is_requested() {
            break;
        }
        pool.filled().await.context("the pool cannot be filled")?;
        floors.before(index)?;
        samples.extend(tally.count(claim(pool).await));
        progress.step();
    }
    Ok((samples, tally))
}

async fn claim(pool: &Pool<Forks>) -> Result<ClaimSample> {
    let claimed = Instant::now();
    let Claimed { item: mut sandbox, origin } =
        pool.claim(&(), claimed + CLAIM_LIMIT).await.context("claim")?;
    let claim = claimed.elapsed();
    let answer = answer(&mut sandbox).await;
    let answered = claimed.elapsed();
    end(sandbox).await?;
    let total = claimed.elapsed();
    answer?;
    Ok(ClaimSample { claim_ms: ms(claim), answered_ms: ms(answered), total_ms: ms(total), origin })
}

impl Finding for ClaimFinding {
    fn tables(&self) -> String {
        let mut timings = Timings::new();
        timings.row("claim", self.claim_ms);
        timings.row_with("claim to answer", self.answered_ms, self.answered_ratio);
        timings.row("claim to destroyed", self.total_ms);
        timings.floors(&self.floors);
        format!(
            "{}\n{} kept ready; {} claims were hits, {} misses; times are of hits\n{timings}\n\n{}",
            self.template.line(),
            self.ready,
            self.hits,
            self.misses,
            self.tally.line(),
        )
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}
