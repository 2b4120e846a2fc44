//! The process of one row: makes the resource scarce for itself, and asks for more than there is.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Context, Result};
use lg_runtime::admission::{
    Admission, AdmissionConfig, Cost, HostReadings, Permit, ProcHost, Readings, ReadingsError,
};
use lg_runtime::pool::{Ask, PoolConfig, SandboxPool, SandboxPoolConfig};
use lg_runtime::{Access, Census, Launcher, Limits, Template, TemplateSpec};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use super::crowd::{Answer, Crowd, Work};
use super::disk;
use super::plan::{Guard, Means, Plan, Task};
use super::row::{OverloadRow, Stage};
use crate::finding::PATIENCE;
use crate::interrupt::block_on;
use crate::ms;

/// What a guest may have beyond what it shares with its template, where it wants more than it may have.
const GUEST_BYTES: u64 = 48 << 20;
/// More sandboxes are never counted as room.
const MOST_CAPACITY: usize = 64;
/// Each sandbox is the process of its vmm and a thread of KVM's.
const PROCESSES_EACH: u64 = 2;

/// Does what `task` says and prints the row, as JSON. This process is good for nothing else afterwards.
///
/// # Errors
/// When the row cannot be measured.
pub fn overload_row(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task).context("the task is none")?;
    let plan = Plan::of(&task.name).with_context(|| format!("there is no row {:?}", task.name))?;
    // Nobody else would end it.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if let Some(group) = &task.group {
        let path = group.join("cgroup.procs");
        fs::write(&path, std::process::id().to_string())
            .with_context(|| format!("cannot move into {}", group.display()))?;
    }
    let row = block_on(measure(plan, &task))?;
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, &row)?;
    Ok(stdout.write_all(b"\n")?)
}

async fn measure(plan: &Plan, task: &Task) -> Result<OverloadRow> {
    let mut row = OverloadRow::new(plan);
    let mut spec = TemplateSpec::python();
    if plan.means == Means::FullDisk {
        spec.sandbox = spec.sandbox.mount(&task.directory, "/out", Access::ReadWrite);
    }
    let template = Arc::new(Template::build(&spec, &Launcher::current_exe()).await?);
    // Fills the caches of the host.
    crate::warm_life::live(&template, Instant::now()).await.context("the first life failed")?;
    let scarcity = Scarcity::make(plan, task, &template)?;
    let (capacity, limit, filler) = (scarcity.capacity, scarcity.limit.clone(), scarcity.filler.clone());
    let crowd = Arc::new(scarcity.crowd(plan, template));
    let before = Census::take_in(&task.directory);
    let requests = plan.times * capacity;
    // Beside the full disk there is a file to write for each sandbox.
    let results = filler.is_some().then(|| {
        let directory = task.directory.clone();
        tokio::task::spawn_blocking(move || write_results(&directory, requests))
    });
    crowd.ask(requests).await.into_iter().for_each(|answer| row.record(answer));
    if let (Some(results), Some(filler)) = (results, &filler) {
        results.await?.into_iter().for_each(|answer| row.record(answer));
        fs::remove_file(filler).context("cannot make room on the disk")?;
    }
    row.recovered(recover(&crowd, task, filler.is_some()).await.map_err(|error| format!("{error:#}")));
    crowd.pool.shutdown().await;
    row.leftovers = before.settle(PATIENCE).await;
    row.most_alive = crowd.most_alive.load(Relaxed);
    (row.capacity, row.limit) = (capacity, limit);
    row.summarise();
    Ok(row)
}

async fn recover(crowd: &Crowd, task: &Task, has_disk: bool) -> Result<f64> {
    let ms = crowd.recover().await?;
    if has_disk {
        let path = task.directory.join("result.json");
        crate::write_json(&path, &[ms])?;
        fs::remove_file(path)?;
    }
    Ok(ms)
}

/// Writes results to the full disk, which must be refused, and leave nothing under their names.
fn write_results(directory: &Path, count: usize) -> Vec<Answer> {
    let write = |number: usize| {
        let path = directory.join(format!("result-{number}.json"));
        let started = Instant::now();
        let written = crate::write_json(&path, &vec![number; 10_000]);
        let ms = ms(started.elapsed());
        match written {
            Err(error) if disk::is_full(&error) && !path.exists() => {
                Answer::Refused { reason: "host: room on the disk".to_owned(), ms }
            }
            Err(error) => Answer::Failed { stage: Stage::Asking, error: format!("{error:#}") },
            Ok(()) => Answer::Failed { stage: Stage::Asking, error: "the disk was not full".to_owned() },
        }
    };
    (0..count).map(write).collect()
}

/// A resource of which there is little.
struct Scarcity {
    /// In words.
    limit: String,
    capacity: usize,
    admission: Option<Admission>,
    pool: SandboxPoolConfig,
    limits: Limits,
    work: Work,
    /// The file that fills the disk.
    filler: Option<PathBuf>,
}

impl Scarcity {
    /// Makes it scarce, now that the template is there.
    fn make(plan: &Plan, task: &Task, template: &Template) -> Result<Self> {
        let at_once = task.at_once;
        let queue_len = plan.queue.saturating_mul(at_once).min(AdmissionConfig::default().queue_len);
        let mut config = AdmissionConfig { queue_len, ..AdmissionConfig::default() };
        // A pool that keeps none ready: every claim is a request.
        let mut pool = SandboxPoolConfig {
            pool: PoolConfig { floor: 0, ceiling: 0, ..PoolConfig::default() },
            ..SandboxPoolConfig::default()
        };
        let (mut limits, mut work, mut filler, mut budget) = (Limits::default(), Work::Answer, None, None);
        let limit = match plan.means {
            Means::MostAlive => {
                config.max_alive = Some(at_once);
                format!("{at_once} sandboxes")
            }
            Means::MemoryBudget => {
                let each = pool.cost.memory_bytes;
                // What is measured makes no sandbox smaller: only the promises of admission are counted here.
                pool.overhead_bytes = each;
                config.memory_reserve_bytes = Some(each);
                let all = each.saturating_mul(at_once as u64 + 1).saturating_add(each / 2);
                budget = Some(Budget { host: ProcHost::new(), memory_bytes: all });
                format!("{} MiB, {} of them in reserve", all >> 20, each >> 20)
            }
            Means::MemoryGroup => {
                work = Work::Fill;
                "a control group of 384 MiB around all".to_owned()
            }
            Means::GuestMemory => {
                config.max_alive = Some(at_once);
                limits.memory_bytes = Some(template.memory_bytes().saturating_add(GUEST_BYTES));
                work = Work::TakeAll;
                format!("{} MiB for each guest", GUEST_BYTES >> 20)
            }
            Means::Descriptors => {
                let each = pool.cost.descriptors;
                let most = few_descriptors(
                    each.saturating_mul(at_once as u64),
                    reserve(plan, config.descriptors_reserve),
                )?;
                format!("{most} open files")
            }
            Means::Processes => {
                let group = task.group.as_deref().context("there is no control group")?;
                let most = few_processes(
                    group,
                    PROCESSES_EACH * at_once as u64,
                    reserve(plan, config.processes_reserve),
                )?;
                format!("{most} processes and threads")
            }
            Means::FullDisk => {
                config.max_alive = Some(at_once);
                work = Work::WriteInVain;
                filler = Some(disk::fill(&task.directory)?);
                "a disk of 512 KiB, full".to_owned()
            }
        };
        let admission = match (plan.guard, budget) {
            (Guard::Nobody, _) => None,
            (Guard::Admission, Some(budget)) => Some(Admission::with_host(config, budget)),
            (Guard::Admission, None) => Some(Admission::new(config)),
        };
        let capacity = admission.as_ref().map_or(at_once, |admission| room(admission, pool.cost));
        Ok(Self { limit, capacity, admission, pool, limits, work, filler })
    }

    fn crowd(self, plan: &Plan, template: Arc<Template>) -> Crowd {
        let Self { admission, pool, limits, work, .. } = self;
        Crowd {
            pool: SandboxPool::new(template, SandboxPoolConfig { admission, ..pool }),
            ask: Ask { limits, ..Ask::default() },
            deadline: plan.deadline,
            guard: plan.guard,
            work,
            alive: AtomicUsize::new(0),
            most_alive: AtomicUsize::new(0),
        }
    }
}

/// What admission keeps free, where there is any.
fn reserve(plan: &Plan, reserve: u64) -> u64 {
    match plan.guard {
        Guard::Admission => reserve,
        Guard::Nobody => 0,
    }
}

/// How many sandboxes admission lets in at once; at least one is asked for in any case.
fn room(admission: &Admission, cost: Cost) -> usize {
    let permit = |_| {
        let mut permit = admission.try_admit(cost).ok()?;
        permit.started();
        Some(permit)
    };
    let permits: Vec<Permit> = (0..MOST_CAPACITY).map_while(permit).collect();
    permits.len().max(1)
}

/// Lowers this process's limit of open files to what it has, `reserve` and `room`. Answers the limit.
fn few_descriptors(room: u64, reserve: u64) -> Result<u64> {
    let used = fs::read_dir("/proc/self/fd")?.count() as u64;
    let most = used + reserve + room;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..getrlimit(Resource::Nofile) })?;
    Ok(most)
}

/// Lowers the limit of this process's control group to what it has, `reserve` and `room`. Answers the limit.
fn few_processes(group: &Path, room: u64, reserve: u64) -> Result<u64> {
    let used = fs::read_to_string(group.join("pids.current")).context("cannot count the processes")?;
    let most = used.trim().parse::<u64>()? + reserve + room;
    fs::write(group.join("pids.max"), most.to_string()).context("cannot limit the processes")?;
    Ok(most)
}

/// This machine, with so much memory, of which nothing else takes any.
struct Budget {
    host: ProcHost,
    memory_bytes: u64,
}

impl HostReadings for Budget {
    fn read(&self) -> Result<Readings, ReadingsError> {
        Ok(Readings {
            memory_available_bytes: self.memory_bytes,
            memory_total_bytes: self.memory_bytes,
            ..self.host.read()?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::plan::PLANS;

    #[test]
    fn room_is_what_admission_gives() {
        let config =
            AdmissionConfig { max_alive: Some(5), max_starting: Some(1), ..AdmissionConfig::default() };
        let cost = Cost { memory_bytes: 1, descriptors: 0, processes: 0 };
        let admission = Admission::new(config);
        assert_eq!((room(&admission, cost), admission.stats().alive), (5, 0));
        let huge = Cost { memory_bytes: u64::MAX, ..cost };
        assert_eq!(room(&admission, huge), 1);
    }

    #[test]
    fn a_task_that_is_none_is_an_error() {
        let task = |name: &str| {
            let directory = PathBuf::from("/nowhere");
            serde_json::to_string(&Task { name: name.to_owned(), at_once: 2, directory, group: None })
                .unwrap()
        };
        assert!(overload_row("{}").unwrap_err().to_string().contains("task"));
        assert!(overload_row(&task("no such")).unwrap_err().to_string().contains("no such"));
        assert!(PLANS.iter().all(|plan| Plan::of(plan.name).is_some()));
    }

    #[test]
    fn a_result_that_could_be_written_is_no_refusal() {
        let directory = tempfile::tempdir().unwrap();
        let answers = write_results(directory.path(), 2);
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Failed { .. })) && answers.len() == 2);
    }
}
