//! `luminaguard bench fork`: the live fork of a running agent that holds state.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lg_runtime::{Context, Sandbox, TemplateSpec};
use serde::Serialize;

use crate::finding::{Bed, Finding, Header, Tally};
use crate::floors::{InTurns, MeasuredFloors, Ratio};
use crate::interrupt::{Stop, block_on_to_stop};
use crate::progress::Count;
use crate::stats::Summary;
use crate::timing::Timings;
use crate::warm_life::end;
use crate::{Bench, descriptors, ms};

/// Every page of the state holds a number, so often.
const PAGE: u64 = 4096;
/// What the pages hold is the number of the page, modulo this.
const MODULUS: u64 = 251;
/// Memory that the interpreter has beside the state, at least.
const ROOM_BYTES: u64 = 256 << 20;
/// The least state.
const MIN_STATE_BYTES: u64 = PAGE;

/// What to measure.
#[derive(Debug, Clone)]
pub struct ForkConfig {
    /// What it is compared with.
    pub bench: Bench,
    /// How many forks, one after the other.
    pub count: usize,
    /// How much memory the agent has filled, in bytes.
    pub state_bytes: u64,
}

/// What one fork measured, in milliseconds of wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LiveFork {
    /// From the request until the fork was there.
    pub fork_ms: f64,
    /// How much of that the vmm took, by its own clock.
    pub vmm_ms: f64,
    /// From the request until the fork had answered what its state is: it reads all of it.
    pub answered_ms: f64,
    /// The original's next answer, from the moment that the fork was there.
    pub original_ms: f64,
    /// From the request until the fork's vmm was reaped, the original's answer taken out.
    pub total_ms: f64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct ForkFinding {
    /// Where and when; the schema is `luminaguard.bench.fork/1`.
    #[serde(flatten)]
    pub header: Header,
    /// Whether SIGINT or SIGTERM ended the run early: then this is what was found until there.
    pub interrupted: bool,
    /// How much memory the agent had filled, in MiB.
    pub state_mb: f64,
    /// The fork alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork_ms: Option<Summary>,
    /// How much of that the vmm took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmm_ms: Option<Summary>,
    /// From the request until the fork had answered what its state is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<Summary>,
    /// The original's next answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_ms: Option<Summary>,
    /// The life of a fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<Summary>,
    /// Measured in turns with the forks.
    pub floors: MeasuredFloors,
    /// From the request to the answer, in multiples of the floors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ratio: Option<Ratio>,
    /// What failed and what was left.
    pub tally: Tally,
    /// All forks, in order.
    pub samples: Vec<LiveFork>,
}

impl ForkConfig {
    /// Measures everything.
    ///
    /// # Errors
    /// When the run cannot be done at all, or the original does not answer. A fork that fails is no error but a finding.
    pub fn run(&self) -> Result<ForkFinding> {
        ensure!(self.count > 0, "--count must be at least 1");
        ensure!(self.state_bytes >= MIN_STATE_BYTES, "--state must be at least {MIN_STATE_BYTES} bytes");
        descriptors::allow(16)?;
        block_on_to_stop(|stop| self.measure(stop))
    }

    async fn measure(&self, stop: Stop) -> Result<ForkFinding> {
        let header = Header::new("fork", &self.bench.bare_vm);
        let mut spec = TemplateSpec::python();
        spec.sandbox.memory_bytes =
            spec.sandbox.memory_bytes.max(self.state_bytes.saturating_add(ROOM_BYTES));
        let bed = Bed::make(&self.bench, &spec).await?;
        let floors = Arc::new(InTurns::new(&self.bench.bare_vm, self.count));
        let (turns, template, config) = (floors.clone(), bed.template.clone(), self.clone());
        let stopping = stop.clone();
        let forks = tokio::spawn(async move {
            let original = template.spawn().await.context("the original")?;
            config.fork_all(original, &turns, &stopping).await
        });
        let (samples, mut tally) = forks.await??;
        tally.leftovers = bed.leftovers().await;
        let floors = floors.finish();
        let of = |of: fn(&LiveFork) -> f64| Summary::of(&samples.iter().map(of).collect::<Vec<_>>());
        let answered_ms = of(|fork| fork.answered_ms);
        Ok(ForkFinding {
            header,
            interrupted: stop.is_requested(),
            state_mb: self.state_bytes as f64 / (1 << 20) as f64,
            fork_ms: of(|fork| fork.fork_ms),
            vmm_ms: of(|fork| fork.vmm_ms),
            answered_ms,
            original_ms: of(|fork| fork.original_ms),
            total_ms: of(|fork| fork.total_ms),
            answered_ratio: floors.ratio(answered_ms),
            floors,
            tally,
            samples,
        })
    }

    async fn fork_all(
        &self,
        mut original: Sandbox,
        floors: &InTurns,
        stop: &Stop,
    ) -> Result<(Vec<LiveFork>, Tally)> {
        let context = original.context().context("the template has no interpreter")?;
        let fill = format!(
            "state = bytearray({})\nfor page in range(0, len(state), {PAGE}):\n    \
             state[page] = page // {PAGE} % {MODULUS}\nmoment = 0",
            self.state_bytes
        );
        let cell = context.evaluate(&fill).await.context("filling the state")?;
        cell.outcome.context("filling the state")?;
        let mut tally = Tally::default();
        let mut samples = Vec::with_capacity(self.count);
        let progress = Count::new("forks", self.count);
        // The first one is not counted: it moves the memory to where forks share it.
        let mut moment = 0;
        for index in 0..=self.count {
            if index > 0 && stop.is_requested() {
                break;
            }
            moment = index;
            let context = original.context().context("the original has no interpreter")?;
            expect(context, &format!("moment = {index}\nmoment"), &index.to_string()).await?;
            if index > 0 {
                floors.before(index - 1)?;
            }
            let fork = self.fork_once(&mut original, index).await?;
            if index > 0 {
                samples.extend(tally.count(fork));
                progress.step();
            } else {
                fork.context("the first fork failed")?;
            }
        }
        // What the forks wrote is not here.
        let context = original.context().context("the original has no interpreter")?;
        expect(context, CHECK, &self.answer(moment)).await.context("the original, at the end")?;
        end(original).await.context("the original")?;
        Ok((samples, tally))
    }

    /// Forks once. A fork that fails is the inner error; that the original does not answer is the outer one.
    async fn fork_once(&self, original: &mut Sandbox, moment: usize) -> Result<Result<LiveFork>> {
        let requested = Instant::now();
        let fork = original.fork(1).await.context("fork").and_then(|mut forks| forks.pop().context("fork"));
        let mut fork = match fork {
            Ok(fork) => fork,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self.answer(moment);
        let answered = match fork.context() {
            Some(context) => expect(context, CHECK, &answer).await.context("the fork"),
            None => Err(anyhow::anyhow!("the fork has no interpreter")),
        };
        let answered_at = requested.elapsed();
        let context = original.context().context("the original has no interpreter")?;
        expect(context, "moment", &moment.to_string()).await.context("the original, after a fork")?;
        let original_at = requested.elapsed();
        let (fork_ms, vmm_ms) = (ms(fork.spawn_latency()), ms(fork.vmm_latency()));
        let ended = end(fork).await;
        let original_time = original_at - answered_at;
        Ok(answered.and(ended).map(|()| LiveFork {
            fork_ms,
            vmm_ms,
            answered_ms: ms(answered_at),
            original_ms: ms(original_time),
            total_ms: ms(requested.elapsed() - original_time),
        }))
    }

    /// What [`CHECK`] answers.
    fn answer(&self, moment: usize) -> String {
        let pages = self.state_bytes.div_ceil(PAGE);
        let sum: u64 = (0..pages).map(|page| page % MODULUS).sum();
        format!("({}, {sum}, {moment})", self.state_bytes)
    }
}

/// Answers what the state is, and spoils it.
const CHECK: &str = "found = len(state), sum(state[::4096]), moment\nstate[0] = 1\nmoment = -1\nfound";

async fn expect(context: &mut Context, cell: &str, answer: &str) -> Result<()> {
    let cell = context.evaluate(cell).await?;
    match cell.text() {
        Some(text) => ensure!(text == answer, "answered {text}, expected {answer}"),
        None => {
            cell.outcome?;
            anyhow::bail!("no answer, expected {answer}");
        }
    }
    Ok(())
}

impl Finding for ForkFinding {
    fn tables(&self) -> String {
        let mut timings = Timings::new();
        timings.row("fork", self.fork_ms);
        timings.row("  of it in the vmm", self.vmm_ms);
        timings.row_with("request to checked state", self.answered_ms, self.answered_ratio);
        timings.row("the original's next answer", self.original_ms);
        timings.row_with("total", self.total_ms, self.floors.ratio(self.total_ms));
        timings.floors(&self.floors);
        format!(
            "live forks of an agent with {:.1} MiB of state\n{timings}\n\n{}",
            self.state_mb,
            self.tally.line()
        )
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BareVm;

    #[test]
    fn the_state_of_a_fork_is_known_beforehand() {
        let bench = Bench {
            launcher: lg_runtime::Launcher::default(),
            bare_vm: BareVm::new("pvm", || anyhow::bail!("none")),
        };
        let config = |state_bytes| ForkConfig { bench: bench.clone(), count: 1, state_bytes };
        // 253 pages, the last of them begun: 0 + 1 + ... + 250, then 0 and 1.
        assert_eq!(config(252 * PAGE + 1).answer(7), "(1032193, 31376, 7)");
        assert!(config(100).run().unwrap_err().to_string().contains("at least 4096"));
    }
}
