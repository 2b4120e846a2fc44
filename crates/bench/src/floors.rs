//! The least that this machine can do: what a sandbox is measured against.

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::stats::Summary;

const PROCESS_SAMPLES: usize = 50;

/// One bare virtual machine, made, entered and taken down.
#[derive(Debug, Clone)]
pub struct KvmSample {
    /// `ordinary` or `pvm`.
    pub kind: String,
    /// Its life in milliseconds: VM, memory, vCPU, one exit, and all taken down again.
    pub life_ms: f64,
    /// A system call of its guest, out of the guest and back in, without any kernel: median, in nanoseconds.
    pub round_trip_ns: f64,
}

/// Measures one bare virtual machine. The harness itself knows no KVM, so its caller brings this.
pub type KvmProbe = fn() -> Result<KvmSample>;

/// Makes bare virtual machines, for floors that are measured in turns with what stands on them. The harness itself knows
/// no KVM, so its caller brings this.
#[derive(Clone)]
pub struct BareVm {
    kind: String,
    life: Arc<dyn Fn() -> Result<Duration> + Send + Sync>,
}

impl BareVm {
    /// With the kind of KVM, and what makes a VM, enters it, takes it down and answers how long that took. It
    /// is called on several threads at once.
    pub fn new(kind: impl Into<String>, life: impl Fn() -> Result<Duration> + Send + Sync + 'static) -> Self {
        Self { kind: kind.into(), life: Arc::new(life) }
    }

    /// `ordinary` or `pvm`.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    fn life_ms(&self) -> Result<f64> {
        (self.life)().map(crate::ms).context("the life of a bare virtual machine")
    }
}

impl fmt::Debug for BareVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareVm").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Floors that are measured in turns with the lives that stand on them, so that whatever else the machine does falls on
/// both alike.
#[derive(Debug)]
pub(crate) struct InTurns {
    bare_vm: BareVm,
    every: usize,
    samples: Mutex<FloorSamples>,
}

/// How many samples of each floor a run should have.
const IN_TURNS_SAMPLES: usize = 50;

impl InTurns {
    /// For a run of `count` lives.
    pub(crate) fn new(bare_vm: &BareVm, count: usize) -> Self {
        let every = (count / IN_TURNS_SAMPLES).max(1);
        Self { bare_vm: bare_vm.clone(), every, samples: Mutex::default() }
    }

    /// Measures both floors once, if it is their turn before life number `index`. Needs a runtime with several threads.
    ///
    /// # Errors
    /// When one cannot be measured.
    pub(crate) fn before(&self, index: usize) -> Result<()> {
        if !index.is_multiple_of(self.every) {
            return Ok(());
        }
        tokio::task::block_in_place(|| {
            let kvm = self.bare_vm.life_ms()?;
            let process = process_life_ms()?;
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.kvm_ms.push(kvm);
            samples.process_ms.push(process);
            Ok(())
        })
    }

    /// What was measured.
    pub(crate) fn finish(&self) -> MeasuredFloors {
        MeasuredFloors::of(self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The samples of [`MeasuredFloors`], in the order they were taken.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FloorSamples {
    /// posix_spawn and wait of /bin/true.
    pub process_ms: Vec<f64>,
    /// A bare VM with a vCPU, one exit, and its end.
    pub kvm_ms: Vec<f64>,
}

/// The floors of one run with all samples, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct MeasuredFloors {
    /// posix_spawn and wait of /bin/true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_ms: Option<Summary>,
    /// A bare VM with a vCPU, one exit, and its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_ms: Option<Summary>,
    /// All samples.
    pub samples: FloorSamples,
}

impl MeasuredFloors {
    pub(crate) fn of(samples: FloorSamples) -> Self {
        Self { process_ms: Summary::of(&samples.process_ms), kvm_ms: Summary::of(&samples.kvm_ms), samples }
    }

    /// `summary` in multiples of a bare VM and a process together, percentile by percentile.
    pub(crate) fn ratio(&self, summary: Option<Summary>) -> Option<Ratio> {
        let (measured, process, kvm) = (summary?, self.process_ms?, self.kvm_ms?);
        Some(Ratio {
            p50: measured.p50 / (process.p50 + kvm.p50),
            p99: measured.p99 / (process.p99 + kvm.p99),
        })
    }
}

/// A time in multiples of the floors' sum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Median / sum of the floors' medians.
    pub p50: f64,
    /// 99th percentile / sum of the floors' 99th percentiles.
    pub p99: f64,
}

/// How many pairs of a bare VM's life and a process's life this machine does in a second, `concurrency` at once.
///
/// # Errors
/// When one cannot be measured.
pub(crate) fn pairs_per_second(bare_vm: &BareVm, concurrency: usize, period: Duration) -> Result<f64> {
    let started = Instant::now();
    let worker = || -> Result<usize> {
        let mut pairs = 0;
        while started.elapsed() < period {
            bare_vm.life_ms()?;
            process_life_ms()?;
            pairs += 1;
        }
        Ok(pairs)
    };
    let pairs = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..concurrency).map(|_| scope.spawn(worker)).collect();
        // A panic of the harness itself is passed on.
        let results = workers.into_iter().map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        results.sum::<Result<usize>>()
    })?;
    Ok(pairs as f64 / started.elapsed().as_secs_f64())
}

/// The floors of one run, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Floors {
    /// posix_spawn and wait of /bin/true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_ms: Option<Summary>,
    /// A bare VM with a vCPU, one exit, and its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_ms: Option<Summary>,
    /// The life of one agent alone as a plain process of the host, without isolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_agent_ms: Option<Summary>,
    /// As many agents at once as plain processes of the host, from the first request to the last end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_burst: Option<NativeBurst>,
    /// What all processors together compute, divided by what one computes alone: less than their number where
    /// two of them share a core.
    pub parallel_speedup: f64,
}

/// Agents at once as plain processes of the host.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NativeBurst {
    /// How many.
    pub agent_count: usize,
    /// Wall clock from the first request to the last end.
    pub total_time_ms: Summary,
}

/// What `threads` processors compute, divided by what one computes alone: the median of a few comparisons.
pub(crate) fn parallel_speedup(threads: usize) -> f64 {
    const ROUNDS: usize = 5;
    const PERIOD: Duration = Duration::from_millis(60);
    let rate = |threads: usize| {
        let started = Instant::now();
        let steps: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads).map(|n| scope.spawn(move || compute(n as u64, PERIOD))).collect();
            workers.into_iter().map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).sum()
        });
        steps as f64 / started.elapsed().as_secs_f64()
    };
    let ratios: Vec<f64> = (0..ROUNDS).map(|_| rate(threads) / rate(1)).collect();
    crate::stats::median(&ratios).unwrap_or(1.0).clamp(1.0, threads as f64)
}

/// How many steps of a computation one processor does in `period`.
fn compute(seed: u64, period: Duration) -> u64 {
    const BATCH: u64 = 20_000;
    let (started, mut random, mut steps) = (Instant::now(), crate::random::Random::new(seed), 0);
    while started.elapsed() < period {
        std::hint::black_box((0..BATCH).fold(0, |sum: u64, _| sum.wrapping_add(random.next())));
        steps += BATCH;
    }
    steps
}

/// How long a process takes from its start until it is reaped, in milliseconds, many times.
///
/// # Errors
/// When /bin/true cannot be run.
pub(crate) fn process_lives_ms() -> Result<Vec<f64>> {
    (0..PROCESS_SAMPLES).map(|_| process_life_ms()).collect()
}

fn process_life_ms() -> Result<f64> {
    time_command_ms(Command::new("/bin/true").env_clear())
}

/// How long `command` takes from its start until it is reaped, in milliseconds. It has no input, and its output
/// is thrown away. A status other than 0 is an error with the last line that it wrote to standard error.
pub(crate) fn time_command_ms(command: &mut Command) -> Result<f64> {
    let name = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {}", name.display()))?;
    let elapsed = started.elapsed();
    if !status.success() {
        // Once more, for what it says.
        let output = command.stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!(
            "{} failed ({status}): {}",
            name.display(),
            said.lines().next_back().unwrap_or("no message")
        );
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_compares_percentile_with_percentile() {
        let floors = MeasuredFloors::of(FloorSamples { process_ms: vec![1.0, 1.0], kvm_ms: vec![1.0, 3.0] });
        let ratio = floors.ratio(Summary::of(&[9.0])).unwrap();
        // Medians 1 and 2; 99th percentiles 1 and 2.98.
        assert!((ratio.p50 - 3.0).abs() < 1e-12);
        assert!((ratio.p99 - 9.0 / 3.98).abs() < 1e-12);
        assert_eq!(floors.ratio(None), None);
    }

    #[test]
    fn pairs_are_counted_over_all_threads() {
        let vm = BareVm::new("pvm", || Ok(Duration::from_millis(1)));
        let rate = pairs_per_second(&vm, 2, Duration::from_millis(50)).unwrap();
        assert!(rate > 1.0, "{rate}");
        let broken = BareVm::new("pvm", || anyhow::bail!("no"));
        assert!(pairs_per_second(&broken, 2, Duration::from_millis(50)).is_err());
    }

    #[test]
    fn processors_together_are_worth_one_to_all_of_them() {
        assert_eq!(parallel_speedup(1), 1.0);
        assert!((1.0..=2.0).contains(&parallel_speedup(2)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn floors_take_their_turns_over_the_whole_run() {
        let floors = InTurns::new(&BareVm::new("pvm", || Ok(Duration::from_millis(2))), 100);
        for index in 0..100 {
            floors.before(index).unwrap();
        }
        let floors = floors.finish();
        assert_eq!((floors.samples.kvm_ms.len(), floors.samples.process_ms.len()), (50, 50));
        assert_eq!(floors.kvm_ms.unwrap().p50, 2.0);
    }
}
