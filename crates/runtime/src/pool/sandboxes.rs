//! A pool of forks of one template: [`SandboxPool`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use lg_control::{FaultKind, Limits, Report, check_hostname};
use rustix::process::Pid;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Applied, ClaimError, Claimed, Origin, Pool, PoolConfig, PoolSource, PoolStats, RefillFailure};
use crate::admission::{Admission, Cost, CostEstimate, Permit, Refused, Tenant};
use crate::placement::{Assignment, Placer};
use crate::{CallError, ForkOptions, Sandbox, SpawnError, Template, WaitError, proc};

/// Who was admitted in time may take so much longer for the fork.
const FORK_GRACE: Duration = Duration::from_millis(250);
/// Longer deadlines are cut to this.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// After so many measured ends, only every [`MEASURED_ENDS`]th is.
const FIRST_ENDS: u64 = 64;
const MEASURED_ENDS: u64 = 16;
/// How many sandboxes at work are measured in one round.
const MEASURED_AT_ONCE: usize = 4;

/// How a [`SandboxPool`] keeps its forks.
#[derive(Debug, Clone)]
pub struct SandboxPoolConfig {
    /// How many, and for how long.
    pub pool: PoolConfig,
    /// Who is asked before each fork, if anybody. Without one, nothing bounds how many forks claims make.
    pub admission: Option<Admission>,
    /// On which CPUs they run; `None`: on those of the template.
    pub placer: Option<Placer>,
    /// What one is taken to cost until enough are measured. Default: 32 MiB, 3 descriptors, 2 processes.
    pub cost: Cost,
    /// What the host's kernel keeps for each VM beside the memory of its process, in bytes. Default: 1 MiB.
    pub overhead_bytes: u64,
}

impl Default for SandboxPoolConfig {
    fn default() -> Self {
        Self {
            pool: PoolConfig::default(),
            admission: None,
            placer: None,
            // A control socket, a descriptor of the process, and while it is forked the other end of the socket. The vmm,
            // and the thread that KVM has for its VM, which counts as a process of the vmm's.
            cost: Cost { memory_bytes: 32 << 20, descriptors: 3, processes: 2 },
            overhead_bytes: 1 << 20,
        }
    }
}

/// What a claim asks for.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Limits that differ from the template's. Time and processor time count from the claim.
    pub limits: Limits,
    /// The host name; `None`: the template's.
    pub hostname: Option<String>,
    /// On whose behalf: tenants take turns when there is too little for all.
    pub tenant: Tenant,
    /// On which CPUs it runs; `None`: as the pool says.
    pub placer: Option<Placer>,
}

/// Why a sandbox could not be made, or not be made to fit. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// There is no room for it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be forked. A limit that a fork cannot have is named here.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A ready one did not become what was asked for.
    #[error("cannot make a ready sandbox fit")]
    Fit(#[source] CallError),
    /// A ready one could not be moved to its CPUs.
    #[error("cannot move a ready sandbox to its CPUs")]
    Placement(#[source] io::Error),
}

impl ClaimError<MakeError> {
    /// Why admission refused, if it did.
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Failed { error: MakeError::Refused(refused), .. } => Some(refused),
            _ => None,
        }
    }

    /// When it is worth trying again, if admission refused and knows; see [`Refused::retry_after`].
    pub fn retry_after(&self) -> Option<Duration> {
        self.refused()?.retry_after()
    }
}

/// Keeps forks of one [`Template`] ready, each with a permit of admission. Dropping it ends those that are not handed out.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use lg_runtime::admission::{Admission, AdmissionConfig};
/// use lg_runtime::pool::{Ask, SandboxPool, SandboxPoolConfig};
/// use lg_runtime::{Launcher, Limits, Template, TemplateSpec};
///
/// let template = Arc::new(Template::build(&TemplateSpec::python(), &Launcher::default()).await?);
/// let admission = Some(Admission::new(AdmissionConfig::default()));
/// let pool = SandboxPool::new(template, SandboxPoolConfig { admission, ..SandboxPoolConfig::default() });
/// let limits = Limits { timeout: Some(Duration::from_secs(30)), ..Limits::default() };
/// let mut sandbox = pool.claim(&Ask { limits, ..Ask::default() }, Duration::from_secs(1)).await?;
/// let cell = sandbox.context().ok_or("no interpreter")?.evaluate("6 * 7").await?;
/// assert_eq!(cell.text(), Some("42"));
/// sandbox.end().await?;
/// pool.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SandboxPool {
    pool: Arc<Pool<Forks>>,
}

impl SandboxPool {
    /// Makes a pool and begins to fill it. Needs a tokio context with I/O and time.
    pub fn new(template: Arc<Template>, config: SandboxPoolConfig) -> Self {
        let SandboxPoolConfig { pool, admission, placer, cost, overhead_bytes } = config;
        let every = pool.sweep_every;
        let forks = Forks {
            template: RwLock::new(template),
            admission: admission.clone(),
            placer,
            usage: Arc::new(Usage {
                costs: CostEstimate::new(cost).with_overhead_bytes(overhead_bytes),
                ends: AtomicU64::new(0),
                at_work: Mutex::new(VecDeque::new()),
            }),
        };
        let pool = Arc::new(Pool::new(forks, pool));
        if let Some(admission) = admission {
            let weak = Arc::downgrade(&pool);
            admission.on_pressure_while(move |pressure| {
                let pool = weak.upgrade()?;
                let cost = pool.source().usage.costs.cost();
                Some(pool.release_idle(pressure.idle_to_give_up(&cost)))
            });
        }
        tokio::spawn(measure(Arc::downgrade(&pool), every));
        Self { pool }
    }

    /// Hands out a sandbox with what is asked for in force: a ready one if there is one that can be made to fit, else a fresh
    /// fork, for which admission is waited for at most until the deadline.
    ///
    /// Its live forks ([`Sandbox::fork`]) are not the pool's, and admission does not know of them.
    ///
    /// # Errors
    /// See [`ClaimError`]; [`ClaimError::refused`] says whether and why admission refused.
    pub async fn claim(&self, ask: &Ask, deadline: Duration) -> Result<PooledSandbox, ClaimError<MakeError>> {
        let asked = Asked::new(ask, deadline);
        asked.check().map_err(|error| ClaimError::Failed { error, refill: None })?;
        let until = asked.until.unwrap_or_else(Instant::now);
        let grace = self.pool.source().admission.as_ref().map_or(Duration::ZERO, |_| FORK_GRACE);
        let Claimed { mut item, origin } = self.pool.claim(&asked, until + grace).await?;
        item.origin = origin;
        self.pool.source().usage.note(&item);
        Ok(item)
    }

    /// Forks a sandbox for this caller as a claim does that finds none ready.
    ///
    /// # Errors
    /// See [`MakeError`].
    pub async fn spawn_fresh(&self, ask: &Ask, deadline: Duration) -> Result<PooledSandbox, MakeError> {
        let asked = Asked::new(ask, deadline);
        asked.check()?;
        let sandbox = self.pool.source().make_fresh(&asked).await?;
        self.pool.source().usage.note(&sandbox);
        Ok(sandbox)
    }

    /// Goes over to another template. Forks of the earlier one that are ready are ended, and not handed out from now on;
    /// those that are handed out stay. The pool is filled again at once, also when the earlier one could not be forked any
    /// more: [`Template::ended`] says when it is time for this.
    pub fn replace_template(&self, template: Arc<Template>) {
        let earlier = {
            let mut current = self.pool.source().template.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, template)
        };
        drop(earlier);
        self.pool.renew();
    }

    /// The template that forks are made of now.
    pub fn template(&self) -> Arc<Template> {
        self.pool.source().template()
    }

    /// Waits until as many are ready as should be.
    ///
    /// # Errors
    /// As soon as one cannot be made.
    pub async fn filled(&self) -> Result<(), RefillFailure<MakeError>> {
        self.pool.filled().await
    }

    /// Ends as many as `count` that are ready; see [`Pool::release_idle`].
    pub fn release_idle(&self, count: usize) -> usize {
        self.pool.release_idle(count)
    }

    /// Hands out nothing any more, and waits until everything that is not handed out has been ended and reaped.
    pub async fn shutdown(&self) {
        self.pool.shutdown().await;
    }

    /// What the pool has, and what it has done.
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// What the next sandbox is expected to cost.
    pub fn cost(&self) -> Cost {
        self.pool.source().usage.costs.cost()
    }
}

/// A sandbox from a [`SandboxPool`]. Its permit and its CPUs are given back when its vmm has been reaped, however it ends;
/// dropping it ends it.
#[derive(Debug)]
pub struct PooledSandbox {
    sandbox: Sandbox,
    seat: Weak<Mutex<Seat>>,
    /// The limits of time that it has when nothing else is asked for.
    times: Limits,
    origin: Origin,
    usage: Arc<Usage>,
}

impl PooledSandbox {
    /// Whether it was ready, or made for this claim.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Ends it and waits until its vmm is reaped.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn end(mut self) -> Result<Report, WaitError> {
        if self.usage.wants_end() && !self.sandbox.is_over() {
            self.usage.measure(&self.seat, self.sandbox.vmm_pid()).await;
        }
        self.sandbox.kill().await
    }

    /// The sandbox itself; what it holds is still given back at its end.
    pub fn into_sandbox(self) -> Sandbox {
        self.sandbox
    }
}

impl Deref for PooledSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl DerefMut for PooledSandbox {
    fn deref_mut(&mut self) -> &mut Sandbox {
        &mut self.sandbox
    }
}

/// What a sandbox holds until its vmm is reaped.
#[derive(Debug)]
struct Seat {
    permit: Option<Permit>,
    assignment: Option<Assignment>,
}

/// What sandboxes turn out to use.
struct Usage {
    costs: CostEstimate,
    ends: AtomicU64,
    /// Those that were handed out, with their vmms; whose turn it is to be measured first.
    at_work: Mutex<VecDeque<(Weak<Mutex<Seat>>, u32)>>,
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").field("costs", &self.costs).finish_non_exhaustive()
    }
}

impl Usage {
    /// Whether an end is one of those that are measured.
    fn wants_end(&self) -> bool {
        let number = self.ends.fetch_add(1, Relaxed);
        number < FIRST_ENDS || number.is_multiple_of(MEASURED_ENDS)
    }

    fn note(&self, sandbox: &PooledSandbox) {
        let mut at_work = self.at_work();
        while at_work.front().is_some_and(|(seat, _)| seat.strong_count() == 0) {
            at_work.pop_front();
        }
        at_work.push_back((sandbox.seat.clone(), sandbox.sandbox.vmm_pid()));
    }

    /// Some that are at work, each in its turn.
    fn next(&self) -> Vec<(Weak<Mutex<Seat>>, u32)> {
        let mut at_work = self.at_work();
        at_work.retain(|(seat, _)| seat.strong_count() > 0);
        let count = at_work.len().min(MEASURED_AT_ONCE);
        let next: Vec<_> = at_work.iter().take(count).cloned().collect();
        at_work.rotate_left(count);
        next
    }

    /// Reads what a vmm uses and learns from it.
    async fn measure(&self, seat: &Weak<Mutex<Seat>>, pid: u32) {
        let bytes = private_bytes(pid).await;
        // A process that was reaped meanwhile may not have been the one that was read.
        if let (Some(bytes), Some(seat)) = (bytes, seat.upgrade()) {
            self.costs.observe(bytes);
            let mut seat = seat.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(permit) = &mut seat.permit {
                permit.measured(bytes);
            }
        }
    }

    fn at_work(&self) -> MutexGuard<'_, VecDeque<(Weak<Mutex<Seat>>, u32)>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`proc::private_bytes`], which takes some tenths of a millisecond, on a thread of its own. Tokio's threads for
/// blocking work are not used: where the host has no thread left, asking for one panics. Then nothing is known.
async fn private_bytes(pid: u32) -> Option<u64> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("lg-measure".to_owned()).stack_size(64 * 1024);
    thread.spawn(move || sender.send(proc::private_bytes(pid))).ok()?;
    receiver.await.ok()?
}

/// Measures those at work, a few at a time, as long as there is a pool.
async fn measure(pool: Weak<Pool<Forks>>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(usage) = pool.upgrade().map(|pool| pool.source().usage.clone()) else { return };
        for (seat, pid) in usage.next() {
            usage.measure(&seat, pid).await;
        }
    }
}

/// What a claim asks for, and until when.
#[derive(Debug, Clone, Default)]
struct Asked {
    ask: Ask,
    until: Option<Instant>,
}

impl Asked {
    fn new(ask: &Ask, deadline: Duration) -> Self {
        Self { ask: ask.clone(), until: Some(Instant::now() + deadline.min(LONGEST)) }
    }

    /// Checks what needs no sandbox.
    fn check(&self) -> Result<(), MakeError> {
        self.ask.limits.validate().map_err(SpawnError::from)?;
        if let Some(hostname) = &self.ask.hostname {
            check_hostname(hostname).map_err(SpawnError::from)?;
        }
        Ok(())
    }
}

/// Where the sandboxes of a pool come from.
#[derive(Debug)]
struct Forks {
    template: RwLock<Arc<Template>>,
    admission: Option<Admission>,
    placer: Option<Placer>,
    usage: Arc<Usage>,
}

impl Forks {
    fn template(&self) -> Arc<Template> {
        self.template.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forks in a task of its own: given up half-way, the fork is ended, and its permit given back when it is.
    async fn fork(
        &self,
        template: Arc<Template>,
        mut options: ForkOptions,
        permit: Option<Permit>,
        placer: Option<&Placer>,
    ) -> Result<PooledSandbox, MakeError> {
        let assignment = placer.map(Placer::assign);
        // Numbers of CPUs fit: Linux has no more than 8192 of them.
        options.cpus = assignment
            .as_ref()
            .and_then(Assignment::cpus)
            .map(|cpus| cpus.iter().map(|cpu| u16::try_from(cpu).unwrap_or(u16::MAX)).collect());
        let (usage, times) = (self.usage.clone(), template.with_times(Limits::default()));
        let mut seat = Seat { permit, assignment };
        let task = tokio::spawn(async move {
            let mut sandbox = template.spawn_timeless(options).await?;
            if let Some(permit) = &mut seat.permit {
                permit.started();
            }
            let seat = Arc::new(Mutex::new(seat));
            let pooled = Arc::downgrade(&seat);
            sandbox.hold_until_reaped(Box::new(seat));
            Ok(PooledSandbox { sandbox, seat: pooled, times, origin: Origin::Fresh, usage })
        });
        task.await.unwrap_or(Err(MakeError::Spawn(SpawnError::ForkDied)))
    }
}

impl PoolSource for Forks {
    type Item = PooledSandbox;
    type Error = MakeError;
    type Ask = Asked;

    fn version(&self) -> u64 {
        self.template.read().unwrap_or_else(PoisonError::into_inner).version()
    }

    /// Its clocks do not run: limits of time are set when it is claimed.
    async fn make(&self) -> Result<PooledSandbox, MakeError> {
        let permit = match &self.admission {
            Some(admission) => Some(admission.try_admit(self.usage.costs.cost())?),
            None => None,
        };
        self.fork(self.template(), ForkOptions::default(), permit, self.placer.as_ref()).await
    }

    async fn apply(&self, item: &mut PooledSandbox, asked: &Asked) -> Result<Applied, MakeError> {
        let Asked { ask: Ask { limits, hostname, placer, .. }, .. } = asked;
        let assignment = placer.as_ref().map(Placer::assign);
        if assignment.as_ref().is_some_and(|assignment| assignment.cpus().is_none()) && item.is_bound() {
            // Nothing here says on which CPUs it could run otherwise.
            return Ok(Applied::NeedsFresh);
        }
        let limits = Limits {
            timeout: limits.timeout.or(item.times.timeout),
            cpu_time: limits.cpu_time.or(item.times.cpu_time),
            ..*limits
        };
        if !limits.is_empty() {
            match item.sandbox.set_limits(&limits).await {
                Ok(()) => {}
                Err(CallError::Refused(fault)) if fault.kind == FaultKind::Limit => {
                    return Ok(Applied::NeedsFresh);
                }
                Err(error) => return Err(MakeError::Fit(error)),
            }
        }
        if let Some(hostname) = hostname {
            item.sandbox.set_hostname(hostname.clone()).await.map_err(MakeError::Fit)?;
        }
        if let Some(assignment) = assignment {
            item.bind(assignment).map_err(MakeError::Placement)?;
        }
        Ok(Applied::Done)
    }

    async fn make_fresh(&self, asked: &Asked) -> Result<PooledSandbox, MakeError> {
        let Asked { ask: Ask { limits, hostname, tenant, placer }, until } = asked;
        let permit = match &self.admission {
            Some(admission) => {
                let until = until.unwrap_or_else(Instant::now);
                Some(admission.admit_for(tenant, self.usage.costs.cost(), until).await?)
            }
            None => None,
        };
        let template = self.template();
        let limits = template.with_times(*limits);
        let options = ForkOptions { hostname: hostname.clone(), limits, cpus: None };
        self.fork(template, options, permit, placer.as_ref().or(self.placer.as_ref())).await
    }

    async fn retire(&self, item: PooledSandbox) {
        let mut sandbox = item.sandbox;
        // A vmm that cannot be waited for is killed and reaped by the drop.
        let _ = sandbox.kill().await;
    }

    fn is_alive(&self, item: &PooledSandbox) -> bool {
        !item.sandbox.is_over()
    }
}

impl PooledSandbox {
    /// Whether it may run on some CPUs only.
    fn is_bound(&self) -> bool {
        let Some(seat) = self.seat.upgrade() else { return false };
        let seat = seat.lock().unwrap_or_else(PoisonError::into_inner);
        seat.assignment.as_ref().is_some_and(|assignment| assignment.cpus().is_some())
    }

    /// Moves it to other CPUs.
    fn bind(&mut self, assignment: Assignment) -> io::Result<()> {
        // The vmm is not reaped while its seat is there, so the number is its own.
        let Some(seat) = self.seat.upgrade() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut seat = seat.lock().unwrap_or_else(PoisonError::into_inner);
        let vmm = Pid::from_raw(self.sandbox.vmm_pid().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        assignment.apply_to(vmm)?;
        seat.assignment = Some(assignment);
        Ok(())
    }
}
