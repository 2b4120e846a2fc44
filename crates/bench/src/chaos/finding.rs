//! What a run of chaos found, as tables and as JSON: [`ChaosFinding`].

use comfy_table::{CellAlignment, Table};
use lg_runtime::Leftovers;
use serde::Serialize;

use super::events::{Event, FaultSummary};
use super::fault::FaultKind;
use super::ledger::{Closed, Counts};
use super::schedule::Planned;
use crate::finding::{Finding, Header, Tally, TemplateFacts};
use crate::report::TABLE_STYLE;
use crate::stats::Summary;

/// So many events are shown; the file has all.
const SHOWN_EVENTS: usize = 200;

/// What a run begins with.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// Where and when; the schema is `luminaguard.bench.chaos/1`.
    #[serde(flatten)]
    pub header: Header,
    /// What the schedule was made from.
    pub seed: u64,
    /// For how long faults came.
    pub seconds: u64,
    /// How many agents at once.
    pub concurrency: usize,
    /// The first template.
    pub template: TemplateFacts,
    /// Which faults were to come: the same for the same seed, seconds and kinds.
    pub schedule: Vec<Planned>,
}

/// The lives of a run, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lives {
    /// Those that no fault hit.
    pub not_hit: usize,
    /// How many of them did all their work.
    pub not_hit_completed: usize,
    /// The one / the other; it must be 1. Absent without such lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// Those that a fault hit.
    pub hit: usize,
    /// How many of them did all their work nevertheless.
    pub hit_survived: usize,
    /// How many ended with the error that names the reason. The others failed.
    pub hit_ended: usize,
    /// Lives with a wrong answer.
    pub wrong_answers: usize,
    /// Lives in which something acknowledged was not there any more.
    pub lost: usize,
    /// Lives that were not over in time.
    pub hung: usize,
    /// Acknowledged answers and writes that were read back whole.
    pub read_back: usize,
}

impl From<Counts> for Lives {
    fn from(counts: Counts) -> Self {
        let Counts { not_hit, not_hit_completed, hit, hit_survived, hit_ended, .. } = counts;
        Self {
            not_hit,
            not_hit_completed,
            success_rate: (not_hit > 0).then(|| not_hit_completed as f64 / not_hit as f64),
            hit,
            hit_survived,
            hit_ended,
            wrong_answers: counts.wrong,
            lost: counts.lost,
            hung: counts.hung,
            read_back: counts.read_back,
        }
    }
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct ChaosFinding {
    /// What it began with.
    #[serde(flatten)]
    pub setting: Setting,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// What became of the agents' lives.
    pub lives: Lives,
    /// How long those took that no fault hit, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life_ms: Option<Summary>,
    /// Each kind of fault.
    pub faults: Vec<FaultSummary>,
    /// Each fault, in the order of the schedule.
    pub events: Vec<Event>,
    /// All lives, whatever did not go as it must, and what was left behind.
    pub tally: Tally,
}

/// What was found, when all is over.
pub(super) fn ended(
    setting: Setting,
    interrupted: bool,
    closed: Closed,
    leftovers: Leftovers,
) -> ChaosFinding {
    let Closed { events, counts, life_ms, failures, .. } = closed;
    let mut tally = Tally { lives: counts.hit + counts.not_hit, leftovers, ..Tally::default() };
    tally.failures = failures.len();
    failures.into_iter().for_each(|failure| tally.note(failure));
    let mut kinds: Vec<FaultKind> = setting.schedule.iter().map(|planned| planned.fault).collect();
    kinds.sort_unstable();
    kinds.dedup();
    ChaosFinding {
        interrupted,
        lives: counts.into(),
        life_ms: Summary::of(&life_ms),
        faults: kinds.into_iter().map(|kind| FaultSummary::of(kind, &events)).collect(),
        events,
        tally,
        setting,
    }
}

impl ChaosFinding {
    fn fault_table(&self) -> String {
        let mut table = Table::new();
        table.load_style(TABLE_STYLE);
        table.set_header([
            "fault",
            "count",
            "affected",
            "survived",
            "ended",
            "lost",
            "recover ms: mean",
            "p50",
            "p95",
            "max",
        ]);
        for fault in &self.faults {
            let counts = [fault.count, fault.affected, fault.survived, fault.ended, fault.lost];
            let mut cells = vec![fault.fault.name().to_owned()];
            cells.extend(counts.map(|count| count.to_string()));
            let times = fault.recover_ms.map(|s| [s.mean, s.p50, s.p95, s.max]);
            cells.extend(times.into_iter().flatten().map(|ms| format!("{ms:.0}")));
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let text = table.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for fault in &self.faults {
            let name = fault.fault;
            remarks.extend(fault.skipped.iter().map(|reason| format!("{name} SKIPPED: {reason}")));
            if let Some(s) = fault.refilled_ms {
                remarks.push(format!(
                    "{name}: a fork of another template answers after {:.0} ms (median), {:.0} ms at most",
                    s.p50, s.max
                ));
            }
            let errors = fault.errors.iter();
            remarks.extend(errors.map(|(text, count)| format!("{name}: {count} ended with: {text}")));
        }
        remarks
    }
}

impl Finding for ChaosFinding {
    fn tables(&self) -> String {
        let Setting { seed, seconds, concurrency, template, .. } = &self.setting;
        let mut lines = vec![
            template.line(),
            format!(
                "seed {seed}, {seconds} s, {concurrency} agents at once; the schedule, and what came of it:"
            ),
        ];
        lines.extend(self.events.iter().take(SHOWN_EVENTS).map(|event| event.line().trim_end().to_owned()));
        if let Some(more) = self.events.len().checked_sub(SHOWN_EVENTS).filter(|more| *more > 0) {
            lines.push(format!("and {more} more"));
        }
        lines.extend([String::new(), self.fault_table()]);
        lines.extend(self.remarks());
        let lives = &self.lives;
        lines.push(String::new());
        if self.interrupted {
            lines.push("interrupted: this is what was found until then".to_owned());
        }
        lines.push(format!(
            "not hit: {} lives, {} completed; hit: {} lives, {} survived, {} ended with the right error",
            lives.not_hit, lives.not_hit_completed, lives.hit, lives.hit_survived, lives.hit_ended
        ));
        lines.push(format!(
            "{} wrong answers, {} hung, {} lost something; {} acknowledged answers and writes read back whole",
            lives.wrong_answers, lives.hung, lives.lost, lives.read_back
        ));
        if let Some(s) = self.life_ms {
            lines.push(format!(
                "a life that was not hit: median {:.0} ms, p95 {:.0} ms, max {:.0} ms",
                s.p50, s.p95, s.max
            ));
        }
        lines.push(self.tally.line());
        lines.join("\n")
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn complaints(&self) -> Vec<String> {
        let Tally { failures, errors, leftovers, .. } = &self.tally;
        let failed = (*failures > 0).then(|| format!("{failures} things did not go as they must"));
        let left = (!leftovers.is_nothing()).then(|| format!("something is left behind: {leftovers:?}"));
        failed.into_iter().chain(errors.iter().cloned()).chain(left).collect()
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}
