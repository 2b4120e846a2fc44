//! What became of the requests of one row, and the table of all.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table};
use lg_runtime::Leftovers;
use serde::{Deserialize, Serialize};

use super::plan::{Plan, Scarce};
use crate::finding::Tally;
use crate::report::TABLE_STYLE;
use crate::stats::Summary;

/// One way to make a resource scarce, and what became of those who asked for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OverloadRow {
    /// Its name.
    pub name: String,
    /// What was scarce.
    pub scarce: Scarce,
    /// What there was of it, in words.
    pub limit: String,
    /// How many sandboxes there was room for at once.
    pub capacity: usize,
    /// How many were asked for, all at the same moment: `completed`, the sum of `refused`, and `failed`.
    pub requested: usize,
    /// How many were given: those that completed, and of those that failed the ones that failed later.
    pub admitted: usize,
    /// How many of them answered rightly and ended in order.
    pub completed: usize,
    /// How many were refused, by reason.
    pub refused: BTreeMap<String, usize>,
    /// How many neither completed nor were refused for a reason.
    pub failed: usize,
    /// How they failed, and why nothing could be had afterwards: the first ten.
    pub errors: Vec<String>,
    /// The most that were there at one time.
    pub most_alive: usize,
    /// From the request until the answer, in milliseconds, of those that completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admitted_ms: Option<Summary>,
    /// From the request until the refusal, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_ms: Option<Summary>,
    /// From the end of the pressure until a fresh sandbox has answered, in milliseconds; absent if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_ms: Option<f64>,
    /// What remained.
    pub leftovers: Leftovers,
    /// All samples.
    pub samples: RowSamples,
}

/// The samples of an [`OverloadRow`] in milliseconds, in the order of their ends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RowSamples {
    /// From the request until the answer.
    pub admitted_ms: Vec<f64>,
    /// From the request until the refusal.
    pub refused_ms: Vec<f64>,
}

/// So many errors of a row are kept in words.
const KEPT_ERRORS: usize = 10;

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It got nothing, and no reason.
    Asking,
    /// Afterwards.
    Admitted,
}

impl OverloadRow {
    /// A row in which nothing has happened yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            name: plan.name.to_owned(),
            scarce: plan.scarce,
            limit: String::new(),
            capacity: 0,
            requested: 0,
            admitted: 0,
            completed: 0,
            refused: BTreeMap::new(),
            failed: 0,
            errors: Vec::new(),
            most_alive: 0,
            admitted_ms: None,
            refused_ms: None,
            recovery_ms: None,
            leftovers: Leftovers::default(),
            samples: RowSamples::default(),
        }
    }

    /// A row whose process did not say what it found.
    pub(crate) fn lost(plan: &Plan, error: String) -> Self {
        Self { errors: vec![error], ..Self::new(plan) }
    }

    pub(crate) fn complete(&mut self, ms: f64) {
        self.requested += 1;
        self.admitted += 1;
        self.completed += 1;
        self.samples.admitted_ms.push(ms);
    }

    pub(crate) fn refuse(&mut self, reason: String, ms: f64) {
        self.requested += 1;
        *self.refused.entry(reason).or_default() += 1;
        self.samples.refused_ms.push(ms);
    }

    pub(crate) fn fail(&mut self, stage: Stage, error: String) {
        self.requested += 1;
        self.admitted += usize::from(stage == Stage::Admitted);
        self.failed += 1;
        self.note(error);
    }

    /// Says how long it took until a fresh sandbox answered, or why none did.
    pub(crate) fn recovered(&mut self, ms: Result<f64, String>) {
        match ms {
            Ok(ms) => self.recovery_ms = Some(ms),
            Err(error) => self.note(format!("afterwards: {error}")),
        }
    }

    fn note(&mut self, error: String) {
        if self.errors.len() < KEPT_ERRORS {
            self.errors.push(error);
        }
    }

    /// Says what the samples say.
    pub(crate) fn summarise(&mut self) {
        self.admitted_ms = Summary::of(&self.samples.admitted_ms);
        self.refused_ms = Summary::of(&self.samples.refused_ms);
    }

    /// What counts against the run.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            lives: self.admitted,
            // What does not recover has failed as well.
            failures: self.failed + usize::from(self.recovery_ms.is_none()),
            errors: self.errors.iter().map(|error| format!("{}: {error}", self.name)).collect(),
            leftovers: self.leftovers,
        }
    }

    fn refusals(&self) -> usize {
        self.refused.values().sum()
    }

    /// The refusals in words.
    pub(crate) fn reasons(&self) -> String {
        let one = |(reason, count): (&String, &usize)| format!("{count} {reason}");
        self.refused.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// One line for whoever waits.
    pub(crate) fn line(&self) -> String {
        let Self { name, requested, completed, failed, .. } = self;
        format!(
            "{name}: {requested} asked, {completed} completed, {} refused, {failed} failed",
            self.refusals()
        )
    }
}

/// The table for a terminal.
pub(crate) fn table(rows: &[OverloadRow]) -> String {
    let mut table = Table::new();
    table.load_style(TABLE_STYLE);
    table.set_header([
        "ms",
        "room",
        "asked",
        "admitted",
        "completed",
        "refused",
        "failed",
        "answered p50",
        "p99",
        "refused p50",
        "p99",
        "recovery",
        "left",
        "limit",
    ]);
    for row in rows {
        let pair = |summary: Option<Summary>| {
            summary.map_or([String::new(), String::new()], |s| [s.p50, s.p99].map(|ms| format!("{ms:.0}")))
        };
        let counts = [row.capacity, row.requested, row.admitted, row.completed, row.refusals(), row.failed];
        let mut cells = vec![row.name.clone()];
        cells.extend(counts.map(|count| count.to_string()));
        cells.extend(pair(row.admitted_ms));
        cells.extend(pair(row.refused_ms));
        cells.push(row.recovery_ms.map_or("never".to_owned(), |ms| format!("{ms:.0}")));
        cells.push(row.leftovers.things().to_string());
        cells.push(row.limit.clone());
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1).take(12) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::plan::PLANS;

    fn row() -> OverloadRow {
        let mut row = OverloadRow::new(&PLANS[0]);
        row.complete(10.0);
        row.complete(30.0);
        row.refuse("queue full: sandboxes".to_owned(), 1.0);
        row.refuse("queue full: sandboxes".to_owned(), 2.0);
        row.refuse("deadline passed: sandboxes".to_owned(), 300.0);
        row
    }

    #[test]
    fn every_request_is_completed_or_refused_or_failed() {
        let mut row = row();
        row.fail(Stage::Asking, "the fork ended".to_owned());
        row.fail(Stage::Admitted, "6*7 is 41".to_owned());
        assert_eq!((row.requested, row.admitted, row.completed, row.failed), (7, 3, 2, 2));
        assert_eq!(row.requested, row.completed + row.refusals() + row.failed);
        assert_eq!(row.reasons(), "1 deadline passed: sandboxes, 2 queue full: sandboxes");
        let tally = row.tally();
        assert_eq!((tally.lives, tally.failures), (3, 3));
        assert_eq!(tally.errors, ["counts x3: the fork ended", "counts x3: 6*7 is 41"]);
    }

    #[test]
    fn a_row_that_does_not_recover_has_failed() {
        let mut row = row();
        assert_eq!(row.tally().failures, 1);
        row.recovered(Err("no room".to_owned()));
        assert_eq!((row.tally().failures, &*row.errors), (1, &["afterwards: no room".to_owned()][..]));
        row.recovered(Ok(3.0));
        assert_eq!((row.tally().failures, row.failed), (0, 0));
    }

    #[test]
    fn a_row_is_the_same_when_its_process_has_told_it() {
        let mut row = row();
        row.summarise();
        row.recovery_ms = Some(4.5);
        let text = serde_json::to_string(&row).unwrap();
        let told: OverloadRow = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&told).unwrap(), text);
        assert_eq!(told.admitted_ms.unwrap().p50, 20.0);
        assert!(told.tally().is_clean());
    }

    #[test]
    fn what_never_recovers_is_seen_in_the_table() {
        let text = table(&[row(), OverloadRow::lost(&PLANS[1], "no row".to_owned())]);
        assert!(text.contains("never") && text.contains("counts x10"), "{text}");
    }
}
