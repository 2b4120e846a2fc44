//! `luminaguard bench lives`: how many complete lives a second this machine sustains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lg_runtime::{Template, TemplateSpec};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::environment::cores;
use crate::finding::{Bed, Finding, Header, Tally, TemplateFacts};
use crate::floors::pairs_per_second;
use crate::interrupt::{Stop, block_on_to_stop};
use crate::progress::Count;
use crate::stats::{Summary, mean};
use crate::timing::Timings;
use crate::usage::CpuTime;
use crate::warm_life::{Phases, WarmLife, live};
use crate::{Bench, descriptors, proc};

/// How long each of the two measurements of the floor takes.
const FLOOR_PERIOD: Duration = Duration::from_secs(2);
/// So many lives may fail before a worker gives up.
const PATIENCE_FAILURES: usize = 20;

/// What to measure.
#[derive(Debug, Clone)]
pub struct LivesConfig {
    /// What it is compared with.
    pub bench: Bench,
    /// How long, in whole seconds.
    pub seconds: u64,
    /// How many lives at a time; `None`: two for each core.
    pub concurrency: Option<usize>,
}

/// One life, and when it ended.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SustainedLife {
    /// From the start of the run until its end, in seconds.
    pub ended_s: f64,
    /// Its phases.
    #[serde(flatten)]
    pub life: WarmLife,
}

/// Lives per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// Over the whole run.
    pub overall: f64,
    /// Of each second.
    pub windows: Vec<usize>,
    /// Over the seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Summary>,
    /// The mean of the last third of the seconds / that of the first third: below 1 it becomes slower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trend: Option<f64>,
}

/// What a bare VM and a process together allow, in lives per second at the same concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FloorRate {
    /// Before the run.
    pub before: f64,
    /// After it; absent when the run was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct LivesFinding {
    /// Where and when; the schema is `luminaguard.bench.lives/1`.
    #[serde(flatten)]
    pub header: Header,
    /// Whether SIGINT or SIGTERM ended the run early: then this is what was found until there.
    pub interrupted: bool,
    /// What was forked.
    pub template: TemplateFacts,
    /// How many lives at a time.
    pub concurrency: usize,
    /// How long, in seconds, until the last life that was begun in time had ended.
    pub seconds: f64,
    /// How many lives.
    pub lives_per_second: Rate,
    /// What the machine allows.
    pub floor_per_second: FloorRate,
    /// `lives_per_second.overall` / the mean of `floor_per_second`.
    pub of_floor: f64,
    /// CPU time of the forks' vmms per life, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmm_cpu_ms: Option<f64>,
    /// CPU time of the template's vmm, which forks them, per life, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_cpu_ms: Option<f64>,
    /// CPU time of this process per life, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harness_cpu_ms: Option<f64>,
    /// The phases of a life.
    pub phases: Phases,
    /// What failed and what was left.
    pub tally: Tally,
    /// All lives, in the order of their ends.
    pub samples: Vec<SustainedLife>,
}

impl LivesConfig {
    /// Measures everything.
    ///
    /// # Errors
    /// When the run cannot be done at all. A life that fails is no error but a finding.
    pub fn run(&self) -> Result<LivesFinding> {
        ensure!(self.seconds > 0, "--seconds must be at least 1");
        let concurrency = self.concurrency.unwrap_or(2 * cores());
        ensure!(concurrency > 0, "--concurrency must be at least 1");
        descriptors::allow(concurrency)?;
        block_on_to_stop(|stop| self.measure(concurrency, stop))
    }

    async fn measure(&self, concurrency: usize, stop: Stop) -> Result<LivesFinding> {
        let header = Header::new("lives", &self.bench.bare_vm);
        let bed = Bed::make(&self.bench, &TemplateSpec::python()).await?;
        let before = self.floor(concurrency).await?;
        let template_cpu = || proc::cpu_time(bed.template.vmm_pid());
        let (cpu, forking) = (CpuTime::now(), template_cpu());
        let (started, mut lives, mut tally) = self.live_all(&bed.template, concurrency, &stop).await?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu = CpuTime::now().zip(cpu).map(|(now, before)| now.since(before));
        let forking = template_cpu().zip(forking).map(|(now, before)| now.saturating_sub(before));
        let leftovers = bed.leftovers().await;
        let after = if stop.is_requested() { None } else { Some(self.floor(concurrency).await?) };
        tally.leftovers = leftovers.max(bed.leftovers().await);
        lives.sort_by(|a, b| a.ended_s.total_cmp(&b.ended_s));
        let each = |time: Duration| crate::ms(time) / tally.lives.max(1) as f64;
        let lives_per_second = Rate::of(&lives, (self.seconds as usize).min(seconds as usize), seconds);
        let floor_per_second = FloorRate { before, after };
        let phases = Phases::of(&lives.iter().map(|sustained| sustained.life).collect::<Vec<_>>());
        Ok(LivesFinding {
            header,
            interrupted: stop.is_requested(),
            template: TemplateFacts::of(&bed.template),
            concurrency,
            seconds,
            of_floor: lives_per_second.overall / after.map_or(before, |after| (before + after) / 2.0),
            lives_per_second,
            floor_per_second,
            vmm_cpu_ms: cpu.map(|cpu| each(cpu.children)),
            template_cpu_ms: forking.map(each),
            harness_cpu_ms: cpu.map(|cpu| each(cpu.own)),
            phases,
            tally,
            samples: lives,
        })
    }

    async fn floor(&self, concurrency: usize) -> Result<f64> {
        let bare_vm = self.bench.bare_vm.clone();
        let period = FLOOR_PERIOD.min(Duration::from_secs(self.seconds));
        tokio::task::spawn_blocking(move || pairs_per_second(&bare_vm, concurrency, period)).await?
    }

    async fn live_all(
        &self,
        template: &Arc<Template>,
        concurrency: usize,
        stop: &Stop,
    ) -> Result<(Instant, Vec<SustainedLife>, Tally)> {
        let period = Duration::from_secs(self.seconds);
        let progress = Count::new("seconds", self.seconds as usize);
        let mut workers = JoinSet::new();
        let started = Instant::now();
        for _ in 0..concurrency {
            let (template, stop) = (template.clone(), stop.clone());
            workers.spawn(async move {
                let (mut lives, mut tally) = (Vec::new(), Tally::default());
                while started.elapsed() < period && !stop.is_requested() && tally.failures < PATIENCE_FAILURES
                {
                    if let Some(life) = tally.count(live(&template, Instant::now()).await) {
                        lives.push(SustainedLife { ended_s: started.elapsed().as_secs_f64(), life });
                    }
                }
                (lives, tally)
            });
        }
        let (mut lives, mut tally) = (Vec::new(), Tally::default());
        let mut ticks =
            tokio::time::interval_at((started + Duration::from_secs(1)).into(), Duration::from_secs(1));
        loop {
            tokio::select! {
                worker = workers.join_next() => match worker {
                    Some(worker) => {
                        let (mut more, counts) = worker?;
                        lives.append(&mut more);
                        tally.add(counts);
                    }
                    None => return Ok((started, lives, tally)),
                },
                _ = ticks.tick() => progress.step(),
            }
        }
    }
}

impl Rate {
    /// Counts the lives of each of the whole `windows` seconds, and over `seconds` in all.
    fn of(lives: &[SustainedLife], windows: usize, seconds: f64) -> Self {
        let mut counts = vec![0; windows];
        for life in lives {
            if let Some(count) = counts.get_mut(life.ended_s as usize) {
                *count += 1;
            }
        }
        let rates: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
        let third = rates.len() / 3;
        let first = mean(&rates[..third]).filter(|first| *first > 0.0);
        let trend = first.zip(mean(&rates[rates.len() - third..])).map(|(first, last)| last / first);
        Self { overall: lives.len() as f64 / seconds, windows: counts, window: Summary::of(&rates), trend }
    }
}

impl Finding for LivesFinding {
    fn tables(&self) -> String {
        let mut timings = Timings::new();
        self.phases.rows(&mut timings, None);
        let rate = &self.lives_per_second;
        let windows = match rate.window {
            Some(s) => format!("of each second: min {:.0}, median {:.0}, max {:.0}", s.min, s.p50, s.max),
            None => "no whole second".to_owned(),
        };
        let trend =
            rate.trend.map_or(String::new(), |trend| format!(", last third / first third {trend:.3}"));
        let cpu =
            [("vmm", self.vmm_cpu_ms), ("template", self.template_cpu_ms), ("harness", self.harness_cpu_ms)];
        let cpu: Vec<String> =
            cpu.into_iter().filter_map(|(name, ms)| Some(format!("{name} {:.2} ms", ms?))).collect();
        let FloorRate { before, after } = self.floor_per_second;
        let after = after.map_or(String::new(), |after| format!(", {after:.0} after"));
        format!(
            "{}\n{:.1} lives a second over {:.1} s, {} at a time\n{windows}{trend}\n\
             floor, a bare VM and a process: {before:.0} a second before{after}; lives are {:.0}% of that\n\
             CPU per life: {}\n{timings}\n\n{}",
            self.template.line(),
            rate.overall,
            self.seconds,
            self.concurrency,
            self.of_floor * 100.0,
            cpu.join(", "),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn life(ended_s: f64) -> SustainedLife {
        let life = WarmLife {
            fork_ms: 0.1,
            vmm_ms: 0.1,
            evaluate_ms: 0.1,
            answered_ms: 0.2,
            destroy_ms: 0.1,
            total_ms: 0.3,
        };
        SustainedLife { ended_s, life }
    }

    #[test]
    fn lives_are_counted_in_the_second_of_their_end() {
        // Those that end after the last whole second count only over all.
        let lives: Vec<_> = [0.0, 0.999, 1.0, 2.5, 2.6, 2.7, 3.01].map(life).into();
        let rate = Rate::of(&lives, 3, 3.5);
        assert_eq!(rate.windows, [2, 1, 3]);
        assert_eq!(rate.overall, 2.0);
        assert_eq!(rate.trend, Some(1.5));
        assert_eq!(rate.window.unwrap().p50, 2.0);
    }

    #[test]
    fn a_short_run_has_no_trend() {
        assert_eq!(Rate::of(&[life(0.5)], 1, 1.0).trend, None);
        assert_eq!(Rate::of(&[], 3, 3.0).trend, None);
    }
}
