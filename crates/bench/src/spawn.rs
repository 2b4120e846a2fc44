//! `luminaguard bench spawn`: forks of a warm template, from the request to the answered evaluation and to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use lg_runtime::{Template, TemplateSpec};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::burst::Burst;
use crate::finding::{Bed, Finding, Header, Tally, TemplateFacts};
use crate::floors::{InTurns, MeasuredFloors, Ratio};
use crate::footprint::Footprint;
use crate::interrupt::{Stop, block_on_to_stop};
use crate::progress::Count;
use crate::timing::Timings;
use crate::warm_life::{Phases, WarmLife, live};
use crate::{Bench, descriptors};

/// How many forks are alive when each one's memory is looked at.
const FOOTPRINT_FORKS: usize = 20;
/// How many forks are alive when the machine's memory is looked at.
const ALL_IN_FORKS: usize = 100;

/// What to measure.
#[derive(Debug, Clone)]
pub struct SpawnConfig {
    /// What forks it, and what it is compared with.
    pub bench: Bench,
    /// What is forked.
    pub template: TemplateSpec,
    /// How many lives.
    pub count: usize,
    /// How many of them at a time.
    pub concurrency: usize,
    /// How many requests at once in the section on bursts; 0 leaves it out.
    pub burst: usize,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct SpawnFinding {
    /// Where and when; the schema is `luminaguard.bench.spawn/1`.
    #[serde(flatten)]
    pub header: Header,
    /// Whether SIGINT or SIGTERM ended the run early: then this is what was found until there.
    pub interrupted: bool,
    /// What was forked.
    pub template: TemplateFacts,
    /// How many lives at a time.
    pub concurrency: usize,
    /// The phases of a life.
    pub phases: Phases,
    /// Measured in turns with the lives.
    pub floors: MeasuredFloors,
    /// From the request to the answer, in multiples of the floors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ratio: Option<Ratio>,
    /// The whole life, in multiples of the floors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ratio: Option<Ratio>,
    /// The memory of forks; absent when the run was interrupted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Footprint>,
    /// Many requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// What failed and what was left, in all sections.
    pub tally: Tally,
    /// All lives, in the order of their ends.
    pub samples: Vec<WarmLife>,
}

impl SpawnConfig {
    /// Measures everything.
    ///
    /// # Errors
    /// When the run cannot be done at all. A life that fails is no error but a finding.
    pub fn run(&self) -> Result<SpawnFinding> {
        ensure!(self.count > 0, "--count must be at least 1");
        ensure!(self.concurrency > 0, "--concurrency must be at least 1");
        descriptors::allow(self.concurrency.max(self.burst).max(ALL_IN_FORKS))?;
        block_on_to_stop(|stop| self.measure(stop))
    }

    async fn measure(&self, stop: Stop) -> Result<SpawnFinding> {
        let header = Header::new("spawn", &self.bench.bare_vm);
        let bed = Bed::make(&self.bench, &self.template).await?;
        let floors = Arc::new(InTurns::new(&self.bench.bare_vm, self.count));
        let mut tally = Tally::default();
        let samples = self.live_all(&bed.template, &floors, &mut tally, &stop).await?;
        let floors = floors.finish();
        let burst = match self.burst {
            _ if stop.is_requested() => None,
            0 => None,
            burst => Some(Burst::measure(&bed.template, burst, &mut tally).await),
        };
        let memory = match stop.is_requested() {
            true => None,
            false => {
                Some(Footprint::measure(&bed.template, FOOTPRINT_FORKS, ALL_IN_FORKS, &mut tally).await?)
            }
        };
        tally.leftovers = bed.leftovers().await;
        let phases = Phases::of(&samples);
        Ok(SpawnFinding {
            header,
            interrupted: stop.is_requested(),
            template: TemplateFacts::of(&bed.template),
            concurrency: self.concurrency,
            phases,
            answered_ratio: floors.ratio(phases.answered()),
            total_ratio: floors.ratio(phases.total()),
            floors,
            memory,
            burst,
            tally,
            samples,
        })
    }

    /// Lives all lives, so many at a time, and measures the floors in between.
    async fn live_all(
        &self,
        template: &Arc<Template>,
        floors: &Arc<InTurns>,
        tally: &mut Tally,
        stop: &Stop,
    ) -> Result<Vec<WarmLife>> {
        let next = Arc::new(AtomicUsize::new(0));
        let progress = Arc::new(Count::new("lives", self.count));
        let mut workers = JoinSet::new();
        for _ in 0..self.concurrency.min(self.count) {
            let (template, floors, next) = (template.clone(), floors.clone(), next.clone());
            let (progress, count, stop) = (progress.clone(), self.count, stop.clone());
            workers.spawn(async move {
                let mut lives = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || stop.is_requested() {
                        return Ok::<_, anyhow::Error>(lives);
                    }
                    floors.before(index)?;
                    let life = live(&template, Instant::now()).await;
                    lives.push((Instant::now(), life));
                    progress.step();
                }
            });
        }
        let mut lives = Vec::with_capacity(self.count);
        while let Some(worker) = workers.join_next().await {
            lives.append(&mut worker??);
        }
        lives.sort_by_key(|(ended, _)| *ended);
        Ok(lives.into_iter().filter_map(|(_, life)| tally.count(life)).collect())
    }
}

impl Finding for SpawnFinding {
    fn tables(&self) -> String {
        let mut timings = Timings::new();
        self.phases.rows(&mut timings, Some(&self.floors));
        timings.floors(&self.floors);
        let mut text = format!("{}\n{timings}\n", self.template.line());
        if let Some(burst) = &self.burst {
            text.push_str(&format!("\n{}\n", burst.lines()));
        }
        if let Some(memory) = &self.memory {
            text.push_str(&format!("\n{}\n", memory.lines()));
        }
        text.push_str(&format!("\n{}", self.tally.line()));
        text
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}
