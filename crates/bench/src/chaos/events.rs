//! One fault and what came of it: [`Event`]; and all of a kind: [`FaultSummary`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::fault::FaultKind;
use super::schedule::Planned;
use crate::ms;
use crate::stats::Summary;

/// Faults of a kind wait for each other; what is later than this is told.
const TOLD_LATE: Duration = Duration::from_millis(100);

/// One fault, and what came of it. Times are in milliseconds from the start of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// What was planned.
    #[serde(flatten)]
    pub planned: Planned,
    /// When it came; absent when it did not, since the run was over or the one before it of its kind took too long.
    #[serde(rename = "injected_ms", serialize_with = "as_ms", skip_serializing_if = "Option::is_none")]
    pub injected: Option<Duration>,
    /// Who had the vmm that it was aimed at: `agent N`, or `spare` for one that no agent had: ready, in the making, or ending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub struck: Option<String>,
    /// When the pool had another template.
    #[serde(rename = "replaced_ms", serialize_with = "as_ms", skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Duration>,
    /// When what it had brought down was up again: the pool full, the runtime at work, the disk written to.
    #[serde(rename = "restored_ms", serialize_with = "as_ms", skip_serializing_if = "Option::is_none")]
    pub restored: Option<Duration>,
    /// How many lives it hit, or touched.
    pub affected: usize,
    /// How many of them did all their work.
    pub survived: usize,
    /// How many ended with the error that names the reason.
    pub ended: usize,
    /// Those errors, with how often each came.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, usize>,
    /// From the fault until its agent has completed a life; for a runtime or a disk until it is restored. In milliseconds.
    pub recover_ms: Vec<f64>,
    /// Acknowledged answers and writes that were read back whole after it.
    pub read_back: usize,
    /// Lives in which something acknowledged was not there any more.
    pub lost: usize,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it could not be done here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What did not go as it must.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

fn as_ms<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(ms).serialize(serializer)
}

impl Event {
    pub(super) fn new(planned: Planned) -> Self {
        Self {
            planned,
            injected: None,
            struck: None,
            replaced: None,
            restored: None,
            affected: 0,
            survived: 0,
            ended: 0,
            errors: BTreeMap::new(),
            recover_ms: Vec::new(),
            read_back: 0,
            lost: 0,
            note: None,
            skipped: None,
            failure: None,
        }
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let outcome = match (&self.failure, &self.skipped, self.injected) {
            (Some(failure), ..) => format!("FAILED: {failure}"),
            (None, Some(reason), _) => format!("skipped: {reason}"),
            (None, None, None) => "did not come".to_owned(),
            (None, None, Some(_)) => self.outcome(),
        };
        format!("{} {outcome}", self.planned)
    }

    fn outcome(&self) -> String {
        let mut parts: Vec<String> = self.struck.iter().cloned().collect();
        let planned = Duration::from_millis(self.planned.at_ms);
        let late = self.injected.map_or(Duration::ZERO, |at| at.saturating_sub(planned));
        if late >= TOLD_LATE {
            parts.push(format!("{:.1} s late", late.as_secs_f64()));
        }
        for (count, what) in [(self.survived, "survived"), (self.ended, "ended with the right error")] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if let Some(restored) = self.restored.zip(self.injected).map(|(at, from)| at.saturating_sub(from)) {
            parts.push(format!("restored after {:.0} ms", ms(restored)));
        }
        parts.extend(self.note.clone());
        parts.join(", ")
    }
}

/// All faults of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct FaultSummary {
    /// Which.
    pub fault: FaultKind,
    /// How many came.
    pub count: usize,
    /// Why some, or all, could not be done here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// How many lives they hit, or touched.
    pub affected: usize,
    /// How many of those did all their work.
    pub survived: usize,
    /// How many ended with the error that names the reason.
    pub ended: usize,
    /// Those errors, with how often each came.
    pub errors: BTreeMap<String, usize>,
    /// From a fault until its agent has completed a life, and the like; see [`Event::recover_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover_ms: Option<Summary>,
    /// From the kill of a template until the pool is full of forks of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refilled_ms: Option<Summary>,
    /// Acknowledged answers and writes that were read back whole after such a fault.
    pub read_back: usize,
    /// Lives in which something acknowledged was not there any more.
    pub lost: usize,
    /// How many faults did not go as they must.
    pub failures: usize,
}

impl FaultSummary {
    /// Sums up the events of one kind.
    pub(super) fn of(fault: FaultKind, events: &[Event]) -> Self {
        let events = || events.iter().filter(|event| event.planned.fault == fault);
        let sum = |of: fn(&Event) -> usize| events().map(of).sum();
        let mut errors = BTreeMap::new();
        for (text, count) in events().flat_map(|event| &event.errors) {
            *errors.entry(text.clone()).or_default() += count;
        }
        let recover_ms: Vec<f64> = events().flat_map(|event| event.recover_ms.iter().copied()).collect();
        let refilled = events().filter(|event| event.replaced.is_some());
        let refilled_ms: Vec<f64> =
            refilled.filter_map(|event| Some(ms(event.restored?.saturating_sub(event.injected?)))).collect();
        Self {
            fault,
            count: events().filter(|event| event.injected.is_some()).count(),
            skipped: events().find_map(|event| event.skipped.clone()),
            affected: sum(|event| event.affected),
            survived: sum(|event| event.survived),
            ended: sum(|event| event.ended),
            errors,
            recover_ms: Summary::of(&recover_ms),
            refilled_ms: Summary::of(&refilled_ms),
            read_back: sum(|event| event.read_back),
            lost: sum(|event| event.lost),
            failures: events().filter(|event| event.failure.is_some()).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::plan;
    use super::*;

    #[test]
    fn the_events_of_a_kind_are_summed_up() {
        let schedule = plan(1, 10, &[FaultKind::KillVmm, FaultKind::KillTemplate]);
        let mut events: Vec<Event> = schedule.into_iter().map(Event::new).collect();
        for (number, event) in events.iter_mut().filter(|e| e.planned.fault == FaultKind::KillVmm).enumerate()
        {
            if number < 2 {
                event.injected = Some(Duration::from_millis(100));
                (event.affected, event.ended, event.read_back) = (1, 1, 7);
                event.errors.insert("signal 9".to_owned(), 1);
                event.recover_ms = vec![10.0 + number as f64];
            }
        }
        let template = events.iter_mut().find(|e| e.planned.fault == FaultKind::KillTemplate).unwrap();
        template.injected = Some(Duration::from_millis(200));
        template.replaced = Some(Duration::from_millis(300));
        template.restored = Some(Duration::from_millis(450));
        assert!(template.line().contains("restored after 250 ms"), "{}", template.line());
        let summary = FaultSummary::of(FaultKind::KillVmm, &events);
        assert_eq!((summary.count, summary.affected, summary.ended, summary.read_back), (2, 2, 2, 14));
        assert_eq!((summary.errors["signal 9"], summary.recover_ms.unwrap().mean), (2, 10.5));
        assert_eq!(FaultSummary::of(FaultKind::KillTemplate, &events).refilled_ms.unwrap().p50, 250.0);
        assert_eq!(FaultSummary::of(FaultKind::BusyHost, &events).count, 0);
        assert!(events.last().unwrap().line().ends_with("did not come"), "{}", events.last().unwrap().line());
    }
}
