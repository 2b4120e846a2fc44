//! Who was hit by what, and what came of it: [`Ledger`].
//!
//! A life is *hit* when a fault was aimed at its vmm, or kept its claim from being served; only then may it end with an
//! error, and only with the one that names the reason. Faults of the whole host (memory, cores) *touch* every life under way
//! and hit none: those lives must end well like any other. Times are counted from the start of the run.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::events::Event;
use super::fault::FaultKind;
use super::schedule::Planned;
use super::vmm::VmmId;
use crate::ms;

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LifeEnd {
    /// How many acknowledged answers and writes were read back whole at its end.
    pub(super) read_back: usize,
    /// What came of it.
    pub(super) result: Result<Done, Ending>,
}

/// A life that did all its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// Its vmm ended when it was told to, and reported.
    Reported,
    /// Its vmm had to be killed, or was dead, when it was told to end.
    Silent,
}

/// Why a life did not do all its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The sandbox said that it is over, and that SIGKILL ended its vmm.
    VmmKilled(String),
    /// The claim said that the template is over, or that the fork died before it was there.
    NotForked(String),
    /// An answer was wrong.
    Wrong(String),
    /// Something that had been acknowledged was not there any more.
    Lost(String),
    /// It was not over in time.
    Hung(String),
    /// Any other error.
    Failed(String),
}

/// The lives of a run, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Lives that no fault hit, and how many of them did all their work.
    pub(super) not_hit: usize,
    pub(super) not_hit_completed: usize,
    /// Lives that were hit, and how they ended: all work done, the right error, anything else.
    pub(super) hit: usize,
    pub(super) hit_survived: usize,
    pub(super) hit_ended: usize,
    /// Over all lives.
    pub(super) wrong: usize,
    pub(super) lost: usize,
    pub(super) hung: usize,
    pub(super) read_back: usize,
}

/// A life that is under way.
#[derive(Debug)]
struct Life {
    began: Duration,
    vmm: Option<VmmId>,
    /// Events that hit it.
    hits: Vec<usize>,
    /// Events of the whole host that came meanwhile.
    touched: Vec<usize>,
}

/// One agent, whose lives follow each other.
#[derive(Debug, Default)]
struct Agent {
    life: Option<Life>,
    /// Events since which it has completed no life.
    waiting: BTreeSet<usize>,
}

/// The accounts of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    agents: Vec<Agent>,
    events: Vec<Event>,
    struck: BTreeMap<VmmId, usize>,
    counts: Counts,
    /// How long lives took that no fault hit, in milliseconds.
    life_ms: Vec<f64>,
    failures: Vec<String>,
}

impl Ledger {
    pub(super) fn new(agents: usize, schedule: &[Planned]) -> Self {
        Self {
            agents: std::iter::repeat_with(Agent::default).take(agents).collect(),
            events: schedule.iter().copied().map(Event::new).collect(),
            struck: BTreeMap::new(),
            counts: Counts::default(),
            life_ms: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// An agent begins a life, with a claim.
    pub(super) fn begin(&mut self, agent: usize, at: Duration) {
        let life = Life { began: at, vmm: None, hits: Vec::new(), touched: Vec::new() };
        self.agents[agent].life = Some(life);
    }

    /// Its claim was served.
    pub(super) fn claimed(&mut self, agent: usize, vmm: VmmId) {
        // It may have been struck while it was ready.
        let event = self.struck.get(&vmm).copied();
        let Some(life) = &mut self.agents[agent].life else { return };
        life.vmm = Some(vmm);
        if let Some(event) = event {
            self.hit(agent, event);
        }
    }

    /// A fault was aimed at one vmm.
    pub(super) fn strike(&mut self, event: usize, vmm: VmmId, at: Duration) {
        self.inject(event, at);
        self.struck.insert(vmm, event);
        let holder =
            self.agents.iter().position(|agent| agent.life.as_ref().is_some_and(|l| l.vmm == Some(vmm)));
        self.events[event].struck = Some(holder.map_or_else(|| "spare".to_owned(), |a| format!("agent {a}")));
        if let Some(agent) = holder {
            self.hit(agent, event);
        }
    }

    /// A fault of the whole host began.
    pub(super) fn touch_all(&mut self, event: usize, at: Duration) {
        self.inject(event, at);
        for agent in &mut self.agents {
            let Some(life) = &mut agent.life else { continue };
            life.touched.push(event);
            agent.waiting.insert(event);
            self.events[event].affected += 1;
        }
    }

    /// A fault began that is aimed at no agent in particular.
    pub(super) fn inject(&mut self, event: usize, at: Duration) {
        self.events[event].injected = Some(at);
    }

    /// The pool forks another template than the one that was killed.
    pub(super) fn replaced(&mut self, event: usize, at: Duration) {
        self.events[event].replaced = Some(at);
    }

    /// What a fault has brought down is up again.
    pub(super) fn restored(&mut self, event: usize, at: Duration) {
        self.events[event].restored = Some(at);
    }

    /// Has something noted of an event.
    pub(super) fn event(&mut self, event: usize) -> &mut Event {
        &mut self.events[event]
    }

    /// A fault did not go as it must.
    pub(super) fn fail(&mut self, event: usize, reason: &str) {
        let Planned { number, fault, .. } = self.events[event].planned;
        self.failures.push(format!("{fault} (number {number}): {reason}"));
        self.events[event].failure = Some(reason.to_owned());
    }

    /// Something else did not go as it must.
    pub(super) fn fail_run(&mut self, reason: String) {
        self.failures.push(reason);
    }

    /// Whether this vmm was killed by a fault.
    pub(super) fn was_killed(&self, vmm: VmmId) -> bool {
        let event = self.struck.get(&vmm);
        event.is_some_and(|&event| self.events[event].planned.fault == FaultKind::KillVmm)
    }

    /// Whether any vmm was killed since then.
    pub(super) fn has_killed_since(&self, since: Duration) -> bool {
        let is = |event: &Event| event.planned.fault == FaultKind::KillVmm && event.injected >= Some(since);
        self.events.iter().any(is)
    }

    /// Whether every agent has completed a life since the last fault that affected it.
    pub(super) fn is_recovered(&self) -> bool {
        self.agents.iter().all(|agent| agent.waiting.is_empty())
    }

    fn hit(&mut self, agent: usize, event: usize) {
        let agent = &mut self.agents[agent];
        let Some(life) = &mut agent.life else { return };
        life.hits.push(event);
        agent.waiting.insert(event);
        self.events[event].affected += 1;
    }

    /// A life is over.
    pub(super) fn end(&mut self, agent: usize, at: Duration, end: LifeEnd) {
        let Some(began) = self.agents[agent].life.as_ref().map(|life| life.began) else { return };
        if matches!(end.result, Err(Ending::NotForked(_)))
            && let Some(event) = self.cause_of_claim(began, at)
        {
            self.hit(agent, event);
        }
        let Some(life) = self.agents[agent].life.take() else { return };
        self.read_back(&life, &end);
        match &end.result {
            Ok(done) => self.completed(agent, &life, *done, at),
            Err(ending) => self.broken(agent, &life, ending),
        }
    }

    /// Which fault kept a claim between these times from being served: a template that was killed and not replaced, or
    /// else a kill that hit nobody else, and so this fork in the making.
    fn cause_of_claim(&self, began: Duration, at: Duration) -> Option<usize> {
        let is = |event: &Event| {
            let Some(injected) = event.injected else { return false };
            match event.planned.fault {
                FaultKind::KillTemplate => injected <= at && event.replaced.is_none_or(|at| at >= began),
                FaultKind::KillVmm => (began..=at).contains(&injected) && event.affected == 0,
                _ => false,
            }
        };
        let find = |fault| self.events.iter().rposition(|event| event.planned.fault == fault && is(event));
        find(FaultKind::KillTemplate).or_else(|| find(FaultKind::KillVmm))
    }

    /// The fault that explains how a life ended. Nothing explains a wrong answer, a loss, or a hang.
    fn cause_of_end(&self, life: &Life, ending: &Ending) -> Option<usize> {
        let latest = |is: fn(FaultKind) -> bool| {
            life.hits.iter().copied().rfind(|&event| is(self.events[event].planned.fault))
        };
        match ending {
            Ending::VmmKilled(_) => latest(|fault| fault == FaultKind::KillVmm),
            Ending::NotForked(_) => {
                latest(|fault| matches!(fault, FaultKind::KillVmm | FaultKind::KillTemplate))
            }
            Ending::Wrong(_) | Ending::Lost(_) | Ending::Hung(_) | Ending::Failed(_) => None,
        }
    }

    /// What was read back counts for every fault that came in that life.
    fn read_back(&mut self, life: &Life, end: &LifeEnd) {
        let is_lost = matches!(end.result, Err(Ending::Lost(_)));
        self.counts.read_back += end.read_back;
        for event in &mut self.events {
            if event.injected.is_some_and(|at| at >= life.began) {
                event.read_back += end.read_back;
                event.lost += usize::from(is_lost);
            }
        }
    }

    fn completed(&mut self, agent: usize, life: &Life, done: Done, at: Duration) {
        if life.hits.is_empty() {
            self.counts.not_hit += 1;
            if done == Done::Silent {
                let text = "the vmm did not end when it was told to, and was killed".to_owned();
                return self.failures.push(text);
            }
            self.counts.not_hit_completed += 1;
            self.life_ms.push(ms(at.saturating_sub(life.began)));
        } else {
            self.counts.hit += 1;
            self.counts.hit_survived += 1;
        }
        for &event in life.hits.iter().chain(&life.touched) {
            self.events[event].survived += 1;
        }
        for event in std::mem::take(&mut self.agents[agent].waiting) {
            let event = &mut self.events[event];
            let since = event.injected.unwrap_or_default();
            event.recover_ms.push(ms(at.saturating_sub(since)));
        }
    }

    fn broken(&mut self, agent: usize, life: &Life, ending: &Ending) {
        let (Ending::VmmKilled(text)
        | Ending::NotForked(text)
        | Ending::Wrong(text)
        | Ending::Lost(text)
        | Ending::Hung(text)
        | Ending::Failed(text)) = ending;
        let cause = self.cause_of_end(life, ending);
        self.counts.wrong += usize::from(matches!(ending, Ending::Wrong(_)));
        self.counts.lost += usize::from(matches!(ending, Ending::Lost(_)));
        self.counts.hung += usize::from(matches!(ending, Ending::Hung(_)));
        if life.hits.is_empty() {
            self.counts.not_hit += 1;
        } else {
            self.counts.hit += 1;
        }
        match cause {
            Some(event) => {
                self.counts.hit_ended += 1;
                self.events[event].ended += 1;
                *self.events[event].errors.entry(text.clone()).or_default() += 1;
            }
            None => self.failures.push(format!("agent {agent}: {text}")),
        }
    }

    /// What there is to tell in the end.
    pub(super) fn close(self) -> Closed {
        let Self { events, counts, life_ms, failures, .. } = self;
        Closed { events, counts, life_ms, failures }
    }
}

/// The accounts when a run is over.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) events: Vec<Event>,
    pub(super) counts: Counts,
    pub(super) life_ms: Vec<f64>,
    /// What did not go as it must, in words.
    pub(super) failures: Vec<String>,
}
