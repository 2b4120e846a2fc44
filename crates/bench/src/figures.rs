//! Single programs in a sandbox against the same natively: `luminaguard bench figures`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::environment::Environment;
use crate::finding::Skipped;
use crate::floors::{KvmProbe, time_command_ms};
use crate::interrupt::{Stop, measure_to_stop};
use crate::ms;
use crate::peers::{PEERS, PeerProgram, command_of, display, run_command};
use crate::progress::Progress;
use crate::report::TABLE_STYLE;
use crate::stats::Summary;

/// The hidden subcommand that measures inside a sandbox: `guest-probe getppid COUNT` prints nanoseconds per call.
pub const GUEST_PROBE: &str = "guest-probe";

const GETPPID_CALLS: u32 = 20_000;
const PROBE_IN_GUEST: &str = "/luminaguard-probe";
/// Counts primes for about half a second, and says how long that took by its own clock.
const CPU_BOUND: &str = "\
import time
def work(end):
    count = 0
    for n in range(3, end, 2):
        d = 3
        while d * d <= n:
            if n % d == 0:
                break
            d += 2
        else:
            count += 1
    return count
start = time.perf_counter()
assert work(500000) == 41537
print(time.perf_counter() - start)
";

/// What to measure.
#[derive(Debug, Clone)]
pub struct FiguresConfig {
    /// The binary whose `run` is measured.
    pub luminaguard: PathBuf,
    /// How often the whole-process figures are measured, in turns.
    pub rounds: usize,
    /// Measures a bare virtual machine.
    pub kvm: KvmProbe,
}

/// One figure with its samples.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// What was run.
    pub command: String,
    /// The unit of summary, samples and target.
    pub unit: &'static str,
    /// What the samples say.
    pub summary: Summary,
    /// All samples, in the order they were taken.
    pub samples: Vec<f64>,
    /// What the median shall not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// Whether it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
}

/// All figures of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// When the run started, RFC 3339.
    pub timestamp: String,
    /// `luminaguard.figures/1`.
    pub schema: String,
    /// Where it was measured.
    pub environment: Environment,
    /// Whether SIGINT or SIGTERM ended the run early: then this is what was found until there.
    pub interrupted: bool,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What was not.
    pub skipped: Vec<Skipped>,
}

impl Figures {
    /// Whether every figure that has a target reaches it, and each of those was measured.
    pub fn targets_hold(&self) -> bool {
        self.figures.iter().all(|figure| figure.passed != Some(false))
            && !self.skipped.iter().any(|skipped| !skipped.name.starts_with("peer"))
    }

    /// The table for a terminal.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(TABLE_STYLE);
        table.set_header(["figure", "median", "p95", "unit", "target", "", "command"]);
        for figure in &self.figures {
            let number = |x: f64| match x {
                100.0.. => format!("{x:.0}"),
                0.1.. => format!("{x:.2}"),
                _ => format!("{x:.3}"),
            };
            table.add_row([
                figure.name.clone(),
                number(figure.summary.p50),
                number(figure.summary.p95),
                figure.unit.to_owned(),
                figure.target.map_or(String::new(), |target| format!("<= {target}")),
                figure.passed.map_or("", |passed| if passed { "ok" } else { "missed" }).to_owned(),
                figure.command.clone(),
            ]);
        }
        for index in [1, 2, 4] {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = table.to_string();
        for Skipped { name, reason } in &self.skipped {
            text.push_str(&format!("\nskipped: {name}: {reason}"));
        }
        text
    }
}

/// A command whose whole life is timed.
struct Whole {
    name: String,
    command: Vec<OsString>,
    target_ms: Option<f64>,
    samples: Vec<f64>,
}

impl FiguresConfig {
    /// Measures everything. Shows progress on standard error.
    ///
    /// # Errors
    /// When what must be there for all figures is missing; a single figure that cannot be measured is skipped,
    /// with its reason.
    pub fn run(&self) -> Result<Figures> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let config = self.clone();
        measure_to_stop(move |stop| config.measure(stop))
    }

    fn measure(&self, stop: &Stop) -> Result<Figures> {
        let kvm = (self.kvm)().context("cannot make a virtual machine")?;
        let mut figures = Figures::begin(Environment::look("sandbox", Some(kvm.kind)));
        let progress = Progress::new(3);
        progress.begin("whole processes");
        self.whole_processes(&mut figures, stop)?;
        progress.done("whole processes: done");
        progress.begin("CPU-bound Python");
        self.cpu_bound(&mut figures, stop);
        progress.done("CPU-bound Python: done");
        progress.begin("system calls");
        self.system_calls(&mut figures, stop);
        progress.done("system calls: done");
        figures.interrupted = stop.is_requested();
        Ok(figures)
    }

    fn run_command(&self, options: &[&str], command: &[&str]) -> Vec<OsString> {
        run_command(&self.luminaguard, options, command)
    }

    fn whole_processes(&self, figures: &mut Figures, stop: &Stop) -> Result<()> {
        let python = ["python3", "-c", "print(1)"];
        let bundle = tempfile::Builder::new().prefix("luminaguard-").tempdir()?;
        let native = |words: &[&str]| words.iter().map(OsString::from).collect();
        let whole = |name: &str, command, target_ms| Whole {
            name: name.to_owned(),
            command,
            target_ms,
            samples: Vec::new(),
        };
        let mut all = vec![
            whole("true, native", native(&["/bin/true"]), None),
            whole("true, sandbox", self.run_command(&[], &["/bin/true"]), Some(8.0)),
            whole("python, native", native(&python), None),
            whole("python, sandbox", self.run_command(&[], &python), Some(60.0)),
        ];
        for peer in &PEERS {
            let name = format!("peer {}", peer.name);
            match peer.command(PeerProgram::True, bundle.path()) {
                Ok(command) => all.push(whole(&name, command, None)),
                Err(error) => figures.skipped.push(Skipped { name, reason: format!("{error:#}") }),
            }
        }
        // In turns, so that whatever else the machine does falls on all alike. The first round fills caches.
        for round in 0..=self.rounds {
            if stop.is_requested() {
                break;
            }
            all.retain_mut(|whole| match time_command_ms(&mut command_of(&whole.command)) {
                Ok(ms) => {
                    if round > 0 {
                        whole.samples.push(ms);
                    }
                    true
                }
                // The interruption may have ended it.
                Err(_) if stop.is_requested() => true,
                Err(error) => {
                    let reason = format!("{error:#}");
                    figures.skipped.push(Skipped { name: whole.name.clone(), reason });
                    false
                }
            });
        }
        for Whole { name, command, target_ms, samples } in all {
            figures.add(&name, &display(&command), "ms", samples, target_ms);
        }
        Ok(())
    }

    fn cpu_bound(&self, figures: &mut Figures, stop: &Stop) {
        let script = ["python3", "-c", CPU_BOUND];
        let mut measure = || -> Result<()> {
            let (mut native, mut guest, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..(self.rounds / 4).max(3) {
                if stop.is_requested() {
                    break;
                }
                let a = own_time(&mut command_of(&script.map(OsString::from)), 1.0)?;
                let b = own_time(&mut command_of(&self.run_command(&[], &script)), 1.0)?;
                native.push(a * 1e3);
                guest.push(b * 1e3);
                ratios.push(b / a);
            }
            figures.add("CPU-bound python, native", "python3 -c PRIMES", "ms", native, None);
            figures.add(
                "CPU-bound python, sandbox",
                "luminaguard run -- python3 -c PRIMES",
                "ms",
                guest,
                None,
            );
            figures.add(
                "CPU-bound python, sandbox / native",
                "the two above, in pairs",
                "ratio",
                ratios,
                Some(1.05),
            );
            Ok(())
        };
        if let Err(error) = measure()
            && !stop.is_requested()
        {
            let reason = format!("{error:#}");
            figures.skipped.push(Skipped { name: "CPU-bound python".to_owned(), reason });
        }
    }

    fn system_calls(&self, figures: &mut Figures, stop: &Stop) {
        let count = GETPPID_CALLS.to_string();
        let mut measure = || -> Result<()> {
            let exe = std::fs::canonicalize(&self.luminaguard)?;
            let mount = format!(
                "{}:{PROBE_IN_GUEST}:ro",
                exe.to_str().context("the path of the binary is not UTF-8")?
            );
            let in_guest =
                self.run_command(&["--mount", &mount], &[PROBE_IN_GUEST, GUEST_PROBE, "getppid", &count]);
            let native: Vec<OsString> = vec![
                self.luminaguard.clone().into(),
                GUEST_PROBE.into(),
                "getppid".into(),
                count.clone().into(),
            ];
            let (mut natively, mut guest, mut bare, mut ratios) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let calls = f64::from(GETPPID_CALLS);
            for _ in 0..(self.rounds / 2).max(3) {
                if stop.is_requested() {
                    break;
                }
                natively.push(own_time(&mut command_of(&native), calls * 1e-9)? / calls * 1e9);
                let floor = (self.kvm)()?.round_trip_ns;
                let call = own_time(&mut command_of(&in_guest), calls * 1e-9)? / calls * 1e9;
                bare.push(floor);
                guest.push(call);
                ratios.push(call / floor);
            }
            figures.add("getppid, native", "getppid in a loop", "ns", natively, None);
            figures.add("getppid, sandbox", "getppid in a loop in a sandbox", "ns", guest, None);
            figures.add("bare exit", "a VM without a kernel: out of the guest and back", "ns", bare, None);
            figures.add(
                "getppid, sandbox / bare exit",
                "the two above, in pairs",
                "ratio",
                ratios,
                Some(1.3),
            );
            Ok(())
        };
        if let Err(error) = measure()
            && !stop.is_requested()
        {
            figures.skipped.push(Skipped { name: "system calls".to_owned(), reason: format!("{error:#}") });
        }
    }
}

impl Figures {
    /// Returns none yet.
    pub(crate) fn begin(environment: Environment) -> Figures {
        Figures {
            timestamp: crate::report::seconds(jiff::Timestamp::now()),
            schema: "luminaguard.figures/1".to_owned(),
            environment,
            interrupted: false,
            figures: Vec::new(),
            skipped: Vec::new(),
        }
    }

    pub(crate) fn add(
        &mut self,
        name: &str,
        command: &str,
        unit: &'static str,
        samples: Vec<f64>,
        target: Option<f64>,
    ) {
        let Some(summary) = Summary::of(&samples) else { return };
        let passed = target.map(|target| summary.p50 <= target);
        let (name, command) = (name.to_owned(), command.to_owned());
        self.figures.push(Figure { name, command, unit, summary, samples, target, passed });
    }
}

/// What [`time_inside`] answers, where the rest of the process takes less than a second.
fn own_time(command: &mut Command, scale: f64) -> Result<f64> {
    let started = Instant::now();
    let seconds = time_inside(command, scale)?;
    ensure_clocks_agree(seconds + 1.0 >= started.elapsed().as_secs_f64(), seconds, started.elapsed())?;
    Ok(seconds)
}

fn ensure_clocks_agree(agree: bool, inside: f64, whole: std::time::Duration) -> Result<()> {
    ensure!(
        agree,
        "the clock in the sandbox disagrees: {inside} s inside, {:.0} ms in all outside",
        ms(whole)
    );
    Ok(())
}

/// The number that `command` prints, in seconds after `scale`: a time by the clock of the program itself. By the host's clock
/// the whole process must not have taken less.
pub(crate) fn time_inside(command: &mut Command, scale: f64) -> Result<f64> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    let whole = started.elapsed();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the program failed ({}): {}", output.status, errors.trim());
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = scale * text.trim().parse::<f64>().with_context(|| format!("not a number: {text:?}"))?;
    ensure_clocks_agree(seconds > 0.0 && seconds <= whole.as_secs_f64(), seconds, whole)?;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        command_of(&["sh", "-c", script].map(OsString::from))
    }

    #[test]
    fn a_program_that_says_how_long_it_took_is_believed_within_reason() {
        assert_eq!(own_time(&mut shell("sleep 0.05; echo 0.01"), 1.0).unwrap(), 0.01);
        let error = own_time(&mut shell("echo 5"), 1.0).unwrap_err().to_string();
        assert!(error.contains("clock"), "{error}");
        let error = own_time(&mut shell("echo no >&2; exit 3"), 1.0).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no"), "{error}");
        assert!(own_time(&mut shell("echo word"), 1.0).is_err());
    }

    #[test]
    fn a_figure_passes_by_its_median() {
        let mut figures = Figures::begin(Environment::look("sandbox", None));
        figures.add("a", "a", "ms", vec![1.0, 2.0, 30.0], Some(2.0));
        figures.add("none", "none", "ms", Vec::new(), Some(2.0));
        assert!(figures.targets_hold() && figures.figures.len() == 1);
        figures.add("b", "b", "ms", vec![3.0], Some(2.0));
        assert!(!figures.targets_hold());
        assert!(figures.table().contains("missed"));
    }
}
