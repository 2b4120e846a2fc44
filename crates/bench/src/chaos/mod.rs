//! `luminaguard bench chaos`: agents at work while their host is mistreated, by a schedule that a seed says.
//!
//! ```text
//!   schedule.rs: seed -> what, when, whom            agents: life.rs, each in a sandbox of the pool
//!        |                                             |  claim, work, read all back, end
//!        v                                             v
//!   lanes.rs, a task for each kind of fault ──> ledger.rs: was it hit? then it may end with that one error
//!        |                                             |
//!   vmm.rs  other.rs  host.rs  disk.rs  greedy.rs      v
//!                                              finding.rs: what came of it
//! ```

mod disk;
mod events;
mod fault;
mod finding;
mod greedy;
mod host;
mod lanes;
mod ledger;
mod life;
mod other;
mod schedule;
mod vmm;
mod world;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lg_runtime::admission::{Admission, AdmissionConfig};
use lg_runtime::pool::{PoolConfig, SandboxPool, SandboxPoolConfig};
use lg_runtime::{Census, Leftovers, Template, TemplateSpec};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::fault::FaultKind;
pub use self::finding::ChaosFinding;
use self::finding::{Setting, ended};
use self::ledger::Ledger;
pub use self::other::{CHAOS_RUNTIME, serve_chaos_runtime};
use self::schedule::{Planned, plan};
use self::world::World;
use crate::environment::cores;
use crate::finding::{Header, PATIENCE, TemplateFacts};
use crate::interrupt::{Interruption, block_on_to_end};
use crate::progress::Count;
use crate::{Bench, descriptors};

/// How long agents that were hit may take to complete a life after the last fault.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// How long the pool may take to end what is ready.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);
/// How often the pool looks for dead ones among those that are ready.
const SWEEP_EVERY: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Debug, Clone)]
pub struct ChaosConfig {
    /// What starts the vmms.
    pub bench: Bench,
    /// For how long faults come, in whole seconds.
    pub seconds: u64,
    /// What the schedule is made from.
    pub seed: u64,
    /// How many agents at once; `None`: two for each core.
    pub concurrency: Option<usize>,
    /// Which faults come.
    pub faults: Vec<FaultKind>,
    /// The program, with its arguments, that calls [`serve_chaos_runtime`].
    pub other_runtime: Vec<OsString>,
}

impl ChaosConfig {
    /// Does everything. SIGINT and SIGTERM end it early, and then it answers what was found until then.
    ///
    /// # Errors
    /// When the run cannot be done at all. Whatever does not go as it must is no error but a finding.
    pub fn run(&self) -> Result<ChaosFinding> {
        ensure!(self.seconds > 0, "--seconds must be at least 1");
        ensure!(!self.faults.is_empty(), "--faults must name at least one");
        let concurrency = self.concurrency.unwrap_or(2 * cores());
        ensure!(concurrency > 0, "--concurrency must be at least 1");
        // Twice as many may be ready.
        descriptors::allow(4 * concurrency)?;
        block_on_to_end(self.unleash(concurrency))
    }

    async fn unleash(&self, concurrency: usize) -> Result<ChaosFinding> {
        let header = Header::new("chaos", &self.bench.bare_vm);
        let mut interruption = Interruption::new()?;
        let schedule = plan(self.seed, self.seconds, &self.faults);
        let before = Census::take();
        let spec = TemplateSpec::python();
        let template = Template::build(&spec, &self.bench.launcher).await;
        let template = Arc::new(template.with_context(|| format!("cannot make the template {}", spec.name))?);
        let setting = Setting {
            header,
            seed: self.seed,
            seconds: self.seconds,
            concurrency,
            template: TemplateFacts::of(&template),
            schedule,
        };
        let pool = pool(template, concurrency);
        pool.filled().await.context("the pool cannot be filled")?;
        let world = World::new(pool, self.seed, Ledger::new(concurrency, &setting.schedule));
        let world = Arc::new(world);
        self.run_all(&world, &setting, &mut interruption).await?;
        let is_interrupted = world.is_interrupted();
        let world = Arc::into_inner(world).context("a task outlives the run")?;
        let (leftovers, ledger) = take_down(world, &before).await;
        Ok(ended(setting, is_interrupted, ledger.close(), leftovers))
    }

    /// Lets agents live and faults come, until all is over.
    async fn run_all(
        &self,
        world: &Arc<World>,
        setting: &Setting,
        interruption: &mut Interruption,
    ) -> Result<()> {
        let mut work = JoinSet::new();
        for agent in 0..setting.concurrency {
            let world = world.clone();
            work.spawn(async move { world.live_on(agent).await });
        }
        let (keeper, launcher) = (world.clone(), self.bench.launcher.clone());
        work.spawn(async move { keeper.keep_template(&TemplateSpec::python(), &launcher).await });
        let faults = self.faults_come(world, &setting.schedule);
        let result = tokio::select! {
            result = until_recovered(world, faults) => result,
            never = interrupts(world, interruption) => never,
        };
        world.end_work();
        while let Some(task) = work.join_next().await {
            task?;
        }
        result
    }

    /// Waits for all faults, and for the end of the time.
    async fn faults_come(&self, world: &Arc<World>, schedule: &[Planned]) -> Result<()> {
        let other = Arc::new(self.other_runtime.clone());
        let end = world.started + Duration::from_secs(self.seconds);
        let mut lanes = JoinSet::new();
        for kind in FaultKind::ALL {
            let faults: Vec<Planned> = schedule.iter().filter(|fault| fault.fault == kind).copied().collect();
            lanes.spawn(lanes::run(world.clone(), faults, end, other.clone()));
        }
        let progress = Count::new("seconds", self.seconds as usize);
        for second in 1..=self.seconds {
            world.pause_until(world.started + Duration::from_secs(second)).await;
            progress.step();
        }
        let mut result = Ok(());
        while let Some(lane) = lanes.join_next().await {
            result = result.and(lane?);
        }
        result
    }
}

/// Notes every interruption, for as long as this is waited for.
async fn interrupts<T>(world: &World, interruption: &mut Interruption) -> T {
    loop {
        interruption.came().await;
        world.interrupt();
    }
}

/// Waits for the faults, and then until every agent that was hit has completed a life.
async fn until_recovered(world: &World, faults: impl Future<Output = Result<()>>) -> Result<()> {
    faults.await?;
    let until = Instant::now() + RECOVERY_LIMIT;
    while !world.is_interrupted() && !world.ledger().is_recovered() {
        if Instant::now() >= until {
            let text = format!("an agent that was hit has completed no life within {RECOVERY_LIMIT:?}");
            world.ledger().fail_run(text);
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn pool(template: Arc<Template>, concurrency: usize) -> SandboxPool {
    let pool = PoolConfig {
        // Half as many as there are agents: most vmms that a fault finds are at work.
        floor: concurrency.div_ceil(2),
        ceiling: 2 * concurrency,
        sweep_every: SWEEP_EVERY,
        ..PoolConfig::default()
    };
    let admission = Some(Admission::new(AdmissionConfig::default()));
    SandboxPool::new(template, SandboxPoolConfig { pool, admission, ..SandboxPoolConfig::default() })
}

/// Ends all that is left, and says what is still there.
async fn take_down(world: World, before: &Census) -> (Leftovers, Ledger) {
    let (pool, mut ledger) = world.close();
    if tokio::time::timeout(SHUTDOWN_LIMIT, pool.shutdown()).await.is_err() {
        ledger.fail_run(format!("the pool was not shut down within {SHUTDOWN_LIMIT:?}"));
    }
    // With the last of its forks' makers.
    drop(pool);
    (before.settle(PATIENCE).await, ledger)
}
