//! `luminaguard bench compare`: whether one run, or one binary, is faster than another.

mod binaries;
mod rank;
mod read;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::bootstrap::difference_interval;
use crate::report::TABLE_STYLE;
use crate::stats::median;
use rank::{RankTest, discoveries};
use read::{Groups, Key, Run};

/// With so many repetitions on both sides, medians of repetitions are compared: samples of one repetition are more alike than
/// those of two, and comparing them all would call the weather of a minute a difference.
const ENOUGH_GROUPS: usize = 5;
/// Fewer samples than this say nothing.
const FEWEST: usize = 4;

/// What to compare, and when it counts.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// The two sides.
    pub sides: Sides,
    /// The share of differences that may be none, over all figures together.
    pub alpha: f64,
    /// The least relative difference of medians that counts.
    pub threshold: f64,
}

/// What is compared.
#[derive(Debug, Clone)]
pub enum Sides {
    /// Two results: directories of `bench scale`, or files.
    Results([PathBuf; 2]),
    /// Two binaries, run in turns.
    Binaries {
        /// The two.
        paths: [PathBuf; 2],
        /// The words after `bench`: a verb and its options.
        words: Vec<String>,
        /// How often each is run.
        rounds: usize,
    },
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct CompareFinding {
    /// `luminaguard.bench.compare/1`.
    pub schema: &'static str,
    /// The two sides by name.
    pub sides: [String; 2],
    /// What is not the same on both sides although it should be, and what was left out.
    pub warnings: Vec<String>,
    /// See [`CompareConfig::alpha`].
    pub alpha: f64,
    /// See [`CompareConfig::threshold`].
    pub threshold: f64,
    /// Whether somebody ended it early.
    pub interrupted: bool,
    /// All figures that both sides have: those that differ first.
    pub comparisons: Vec<Comparison>,
}

/// One figure on both sides. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// What it is.
    pub metric: String,
    /// With how many agents at once, where that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<u64>,
    /// How many samples there are on each side.
    pub samples: [usize; 2],
    /// How many values were tested: medians of repetitions, or all samples.
    pub tested: [usize; 2],
    /// The medians of all samples.
    pub median_ms: [f64; 2],
    /// How much greater the second median is than the first: a share of the first.
    pub difference: f64,
    /// The 95 % bootstrap interval of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_95: Option<[f64; 2]>,
    /// The two-sided p value of the Mann-Whitney U test.
    pub p: f64,
    /// Cliff's delta: positive where the second side is greater.
    pub cliffs_delta: f64,
    /// What follows.
    pub verdict: Verdict,
}

/// What a comparison comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second side takes longer.
    Slower,
    /// It takes less time.
    Faster,
    /// Either there is none, or it is too small to be told from chance.
    NoDifferenceSeen,
    /// There are not enough samples to say anything.
    TooFewSamples,
}

impl CompareConfig {
    /// Compares. With binaries, runs them first, and shows progress on standard error.
    ///
    /// # Errors
    /// When a side cannot be read or run, or when there is nothing that both have.
    pub fn run(&self) -> Result<CompareFinding> {
        ensure!(self.alpha > 0.0 && self.alpha < 1.0, "--alpha must be between 0 and 1");
        ensure!(self.threshold >= 0.0 && self.threshold.is_finite(), "--threshold must not be negative");
        let name = |path: &Path| path.display().to_string();
        match &self.sides {
            Sides::Results([first, second]) => {
                let runs = [Run::read(first)?, Run::read(second)?];
                self.compare([name(first), name(second)], runs, false)
            }
            Sides::Binaries { paths, words, rounds } => {
                let (runs, interrupted) = binaries::run(paths, words, *rounds)?;
                self.compare([name(&paths[0]), name(&paths[1])], runs, interrupted)
            }
        }
    }

    fn compare(
        &self,
        sides: [String; 2],
        [first, second]: [Run; 2],
        interrupted: bool,
    ) -> Result<CompareFinding> {
        ensure!(
            first.schema == second.schema,
            "{} and {} are not of one kind: {} and {}",
            sides[0],
            sides[1],
            first.schema,
            second.schema
        );
        let mut warnings = differences(&first, &second);
        // Operations of the same name need not be the same in two scenarios, and neither do whole lives.
        let same_work = ["scenario", "arrival", "operations"]
            .iter()
            .all(|name| first.circumstances.get(name) == second.circumstances.get(name));
        let is_fair = |key: &Key| same_work || ["spawn", "clean-up"].contains(&key.metric.as_str());
        if !same_work {
            warnings.push("only what means the same in both is compared: spawn and clean-up".to_owned());
        }
        let mut comparisons: Vec<Comparison> = Vec::new();
        let mut is_by_sample = false;
        for (key, groups) in first.series.iter().filter(|(key, _)| is_fair(key)) {
            let Some(others) = second.series.get(key) else { continue };
            is_by_sample |= !has_enough_groups(groups, others);
            comparisons.extend(compared(key, groups, others));
        }
        warnings.extend(left_out(&first, &second));
        ensure!(!comparisons.is_empty(), "{} and {} have no figure in common", sides[0], sides[1]);
        if is_by_sample {
            warnings.push(format!(
                "with fewer than {ENOUGH_GROUPS} repetitions all samples are tested as if they were independent, which \
                 sees differences too easily"
            ));
        }
        let p: Vec<f64> = comparisons.iter().map(|comparison| comparison.p).collect();
        for (comparison, is_different) in comparisons.iter_mut().zip(discoveries(&p, self.alpha)) {
            comparison.verdict = self.verdict(comparison, is_different);
        }
        comparisons.sort_by(|a, b| {
            let rank = |c: &Comparison| (c.verdict, c.agents, c.metric.clone());
            rank(a).cmp(&rank(b))
        });
        let schema = "luminaguard.bench.compare/1";
        let (alpha, threshold) = (self.alpha, self.threshold);
        Ok(CompareFinding { schema, sides, warnings, alpha, threshold, interrupted, comparisons })
    }

    fn verdict(&self, comparison: &Comparison, is_different: bool) -> Verdict {
        if comparison.tested.iter().any(|tested| *tested < FEWEST) {
            return Verdict::TooFewSamples;
        }
        match comparison.difference {
            difference if is_different && difference > self.threshold => Verdict::Slower,
            difference if is_different && difference < -self.threshold => Verdict::Faster,
            _ => Verdict::NoDifferenceSeen,
        }
    }
}

/// What should be the same and is not, a line for each.
fn differences(first: &Run, second: &Run) -> Vec<String> {
    let names = first
        .circumstances
        .keys()
        .chain(second.circumstances.keys())
        .collect::<std::collections::BTreeSet<_>>();
    let unknown = "unknown".to_owned();
    let lines = names.into_iter().filter_map(|name| {
        let [a, b] = [first, second].map(|run| run.circumstances.get(name).unwrap_or(&unknown));
        (a != b).then(|| format!("{name} differs: {a} and {b}"))
    });
    lines.collect()
}

/// Agent counts that only one side has.
fn left_out(first: &Run, second: &Run) -> Option<String> {
    let counts = |run: &Run| {
        run.series.keys().filter_map(|key| key.agents).collect::<std::collections::BTreeSet<u64>>()
    };
    let (a, b) = (counts(first), counts(second));
    let only: Vec<String> = a.symmetric_difference(&b).map(u64::to_string).collect();
    (!only.is_empty())
        .then(|| format!("measured on one side only, and left out: {} agents at once", only.join(", ")))
}

fn has_enough_groups(first: &Groups, second: &Groups) -> bool {
    first.len().min(second.len()) >= ENOUGH_GROUPS
}

fn compared(key: &Key, first: &Groups, second: &Groups) -> Option<Comparison> {
    let all = [first.concat(), second.concat()];
    let medians = |groups: &Groups| groups.iter().filter_map(|group| median(group)).collect::<Vec<f64>>();
    let tested =
        if has_enough_groups(first, second) { [medians(first), medians(second)] } else { all.clone() };
    let test = RankTest::of(&tested[0], &tested[1])?;
    let median_ms = [median(&all[0])?, median(&all[1])?];
    Some(Comparison {
        metric: key.metric.clone(),
        agents: key.agents,
        samples: [all[0].len(), all[1].len()],
        tested: [tested[0].len(), tested[1].len()],
        median_ms,
        difference: if median_ms[0] > 0.0 { median_ms[1] / median_ms[0] - 1.0 } else { 0.0 },
        interval_95: difference_interval(first, second),
        p: test.p,
        cliffs_delta: test.delta,
        verdict: Verdict::NoDifferenceSeen,
    })
}

impl CompareFinding {
    /// Whether anything became slower.
    pub fn is_slower(&self) -> bool {
        self.comparisons.iter().any(|comparison| comparison.verdict == Verdict::Slower)
    }

    /// What was found in a sentence, the table, and the warnings.
    pub fn tables(&self) -> String {
        let count = |verdict| self.comparisons.iter().filter(|c| c.verdict == verdict).count();
        let mut text = format!(
            "{} against {}: of {} figures {} are slower, {} faster, in {} no difference is seen, {} have too few samples\n\n",
            self.sides[1],
            self.sides[0],
            self.comparisons.len(),
            count(Verdict::Slower),
            count(Verdict::Faster),
            count(Verdict::NoDifferenceSeen),
            count(Verdict::TooFewSamples)
        );
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", self.table());
        let _ = write!(
            text,
            "\nA difference counts if the Mann-Whitney U test finds it (false discovery rate {}) and it is more than {} %. \
             In brackets: 95 % bootstrap intervals. Effect: Cliff's delta.",
            self.alpha,
            self.threshold * 100.0
        );
        for warning in &self.warnings {
            let _ = write!(text, "\nwarning: {warning}");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(TABLE_STYLE);
        table.set_header([
            "figure",
            "agents",
            "n",
            "median ms",
            "median ms",
            "difference %",
            "p",
            "effect",
            "verdict",
        ]);
        for c in &self.comparisons {
            let percent = |share: f64| format!("{:+.1}", share * 100.0);
            let interval = c.interval_95.map(|[low, high]| format!(" [{}, {}]", percent(low), percent(high)));
            table.add_row([
                c.metric.clone(),
                c.agents.map_or("-".to_owned(), |agents| agents.to_string()),
                format!("{}, {}", c.samples[0], c.samples[1]),
                format!("{:.3}", c.median_ms[0]),
                format!("{:.3}", c.median_ms[1]),
                percent(c.difference) + &interval.unwrap_or_default(),
                if c.p < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", c.p) },
                format!("{:+.2}", c.cliffs_delta),
                match c.verdict {
                    Verdict::Slower => "slower",
                    Verdict::Faster => "faster",
                    Verdict::NoDifferenceSeen => "no difference seen",
                    Verdict::TooFewSamples => "too few samples",
                }
                .to_owned(),
            ]);
        }
        for column in table.column_iter_mut().skip(1).take(7) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

#[cfg(test)]
mod tests;
