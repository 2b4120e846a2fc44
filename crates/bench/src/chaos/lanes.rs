//! The faults themselves. Those of a kind come one after the other, in a lane of their own; lanes do not wait for each other.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::disk::{self, SmallDisk};
use super::fault::FaultKind;
use super::greedy;
use super::life::{LIFE_LIMIT, value};
use super::other::{self, Adoption, GONE_LIMIT, OtherRuntime, READY_LIMIT};
use super::schedule::Planned;
use super::vmm::{self, Stopped, VmmId};
use super::world::World;
use crate::environment::cores;
use crate::ms;

/// Lets the faults of one kind come, each at its time or when the one before it is over, until `end` or until the run is
/// interrupted.
///
/// # Errors
/// When one cannot be done at all. What does not go as it must is noted in the accounts.
pub(super) async fn run(
    world: Arc<World>,
    faults: Vec<Planned>,
    end: Instant,
    other: Arc<Vec<OsString>>,
) -> Result<()> {
    let Some(kind) = faults.first().map(|first| first.fault) else { return Ok(()) };
    let mut lane = Lane { world: world.clone(), adoption: None, runtime: None, command: other };
    if kind == FaultKind::KillRuntime {
        lane.start_runtime().await?;
    }
    for fault in faults {
        world.pause_until(world.started + Duration::from_millis(fault.at_ms)).await;
        if world.is_interrupted() || Instant::now() >= end {
            break;
        }
        lane.fault(fault).await?;
    }
    lane.end().await
}

struct Lane {
    world: Arc<World>,
    // Dropped in this order: what is left of a runtime must still be adopted.
    runtime: Option<OtherRuntime>,
    adoption: Option<Adoption>,
    command: Arc<Vec<OsString>>,
}

impl Lane {
    async fn fault(&mut self, fault: Planned) -> Result<()> {
        let hold = Duration::from_millis(fault.hold_ms.unwrap_or_default());
        match fault.fault {
            FaultKind::KillVmm => {
                self.strike(fault, |vmm| vmm::strike(vmm, Signal::KILL).map(drop)).map(drop)
            }
            FaultKind::StopVmm => {
                let stopped = self.strike(fault, Stopped::new)?;
                self.world.pause(hold).await;
                drop(stopped);
                Ok(())
            }
            FaultKind::KillTemplate => self.kill_template(fault.number).await,
            FaultKind::KillRuntime => self.kill_runtime(fault.number).await,
            FaultKind::MemoryPressure => self.press_memory(fault.number, hold).await,
            FaultKind::FullDisk => self.fill_disk(fault.number, hold).await,
            FaultKind::BusyHost => {
                self.world.ledger().touch_all(fault.number, self.world.now());
                let world = self.world.clone();
                let busy = move || super::host::keep_busy(cores(), hold, || world.is_interrupted());
                Ok(spawn_blocking(busy).await?)
            }
        }
    }

    /// Aims at one of the vmms that are there. Nothing happens to the accounts between the blow and its entry.
    fn strike<T>(&self, fault: Planned, blow: impl Fn(VmmId) -> std::io::Result<T>) -> Result<Option<T>> {
        let mut ledger = self.world.ledger();
        let vmms = vmm::vmms(self.world.pool.template().vmm_pid());
        let first = usize::from(fault.victim.unwrap_or_default()) % vmms.len().max(1);
        // One that ends just now leaves its place to the next.
        for vmm in vmms.iter().cycle().skip(first).take(vmms.len()) {
            match blow(*vmm) {
                Ok(blow) => {
                    ledger.strike(fault.number, *vmm, self.world.now());
                    return Ok(Some(blow));
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error).context("cannot send a signal to a vmm"),
            }
        }
        ledger.event(fault.number).skipped = Some("no vmm was there".to_owned());
        Ok(None)
    }

    async fn kill_template(&self, number: usize) -> Result<()> {
        let world = &self.world;
        let template = world.pool.template();
        let version = template.version();
        {
            let mut ledger = world.ledger();
            let pid =
                Pid::from_raw(template.vmm_pid().cast_signed()).context("a template without a process")?;
            // It is not reaped before the template is dropped.
            kill_process(pid, Signal::KILL)?;
            ledger.inject(number, world.now());
        }
        drop(template);
        if !world.template_other_than(Some(version)).await {
            world.ledger().fail(number, "the pool has had no other template");
            return Ok(());
        }
        world.ledger().replaced(number, world.now());
        match self.first_claim().await {
            Ok(()) => world.ledger().restored(number, world.now()),
            Err(error) => world.ledger().fail(number, &format!("the new template does not serve: {error:#}")),
        }
        Ok(())
    }

    /// Claims until a sandbox has answered. Other faults hit this one like any other.
    async fn first_claim(&self) -> Result<()> {
        let ask = lg_runtime::pool::Ask::default();
        let until = Instant::now() + LIFE_LIMIT;
        let claim = async || {
            let mut sandbox = self.world.pool.claim(&ask, LIFE_LIMIT).await?;
            let answer = value(&mut sandbox, "6*7").await.map_err(|_| anyhow!("no answer"))?;
            // Its end is none of what this waits for.
            drop(sandbox);
            anyhow::ensure!(answer == "42", "6*7 is {answer}");
            Ok(())
        };
        loop {
            match tokio::time::timeout_at(until, claim()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() >= until => return Err(error),
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(_) => return Err(anyhow!("nothing for {LIFE_LIMIT:?}")),
            }
        }
    }

    /// Starts another runtime, and waits until it is at work.
    async fn start_runtime(&mut self) -> Result<()> {
        if self.adoption.is_none() {
            self.adoption = Some(other::adopt()?);
        }
        let adoption = self.adoption.as_ref().context("orphans are not adopted")?;
        let runtime = self.runtime.insert(OtherRuntime::start(&self.command, adoption)?);
        let words = runtime.words().context("another runtime without a standard output")?;
        let ready = spawn_blocking(move || words.wait_ready());
        match tokio::time::timeout(READY_LIMIT, ready).await {
            Ok(ready) => ready?,
            Err(_) => {
                // Its end is the end of what it says, and so of the thread that listens.
                self.runtime = None;
                Err(anyhow!("another runtime was not at work within {READY_LIMIT:?}"))
            }
        }
    }

    async fn kill_runtime(&mut self, number: usize) -> Result<()> {
        let Some(runtime) = self.runtime.take() else {
            self.world.ledger().event(number).skipped = Some("there is no other runtime".to_owned());
            return Ok(());
        };
        let began = self.world.now();
        let killed = match spawn_blocking(move || runtime.kill(GONE_LIMIT)).await? {
            Ok(killed) => killed,
            Err(error) => {
                let mut ledger = self.world.ledger();
                ledger.inject(number, began);
                ledger.fail(number, &format!("{error:#}"));
                return Ok(());
            }
        };
        let injected = killed.at.saturating_duration_since(self.world.started.into_std());
        {
            let mut ledger = self.world.ledger();
            ledger.inject(number, injected);
            let gone = format!("{} vmms gone after {:.0} ms", killed.vmms, ms(killed.gone_after));
            ledger.event(number).note = Some(gone);
        }
        match self.start_runtime().await {
            Ok(()) => self.restored(number, injected, self.world.now()),
            Err(error) => self.world.ledger().fail(number, &format!("no new runtime: {error:#}")),
        }
        Ok(())
    }

    async fn press_memory(&self, number: usize, hold: Duration) -> Result<()> {
        self.world.ledger().touch_all(number, self.world.now());
        let world = self.world.clone();
        let taking = spawn_blocking(move || super::host::take_memory(hold, || world.is_interrupted()));
        let (taken, greedy) = tokio::join!(taking, greedy::be_greedy(&self.world));
        let taken = taken?.context("cannot take memory")?;
        let mut ledger = self.world.ledger();
        ledger.event(number).note = Some(format!("{} MiB were taken", taken >> 20));
        if let Err(reason) = greedy {
            ledger.fail(number, &reason);
        }
        Ok(())
    }

    async fn fill_disk(&self, number: usize, hold: Duration) -> Result<()> {
        let disk = match SmallDisk::new() {
            Ok(disk) => disk,
            Err(error) => {
                self.world.ledger().event(number).skipped =
                    Some(format!("a file system cannot be mounted: {error}"));
                return Ok(());
            }
        };
        let (world, began) = (self.world.clone(), self.world.now());
        let filling = move || disk::fill(&disk, || disk::wait(hold, || world.is_interrupted()));
        let filled = spawn_blocking(filling).await?;
        let since_start =
            |at: std::time::Instant| at.saturating_duration_since(self.world.started.into_std());
        match filled {
            Ok(filled) => {
                self.world.ledger().inject(number, since_start(filled.full));
                self.restored(number, since_start(filled.full), since_start(filled.restored));
                self.world.ledger().event(number).read_back += filled.records;
            }
            Err(error) => {
                let mut ledger = self.world.ledger();
                ledger.inject(number, began);
                ledger.fail(number, &format!("{error:#}"));
            }
        }
        Ok(())
    }

    /// What no agent waits for is up again.
    fn restored(&self, number: usize, injected: Duration, at: Duration) {
        let mut ledger = self.world.ledger();
        ledger.restored(number, at);
        ledger.event(number).recover_ms.push(ms(at.saturating_sub(injected)));
    }

    /// Ends what was started beside.
    async fn end(self) -> Result<()> {
        let Self { runtime, adoption, .. } = self;
        spawn_blocking(move || drop(runtime)).await?;
        drop(adoption);
        Ok(())
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    // ESRCH has no kind of its own.
    error.kind() == std::io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}
