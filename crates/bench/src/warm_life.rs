//! The life of a sandbox that is forked from a warm template: forked, asked, ended; timed, and the answer checked.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lg_runtime::{Report, Sandbox, Stats, Template};
use serde::Serialize;

use crate::floors::MeasuredFloors;
use crate::ms;
use crate::stats::Summary;
use crate::timing::Timings;

/// What one life measured, in milliseconds of wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WarmLife {
    /// From the request until the fork was there.
    pub fork_ms: f64,
    /// How much of that the vmm took, by its own clock.
    pub vmm_ms: f64,
    /// The first evaluation, or the first program, until its answer was there.
    pub evaluate_ms: f64,
    /// From the request until that answer.
    pub answered_ms: f64,
    /// From then until its vmm was reaped.
    pub destroy_ms: f64,
    /// The whole life.
    pub total_ms: f64,
}

/// The phases of many lives.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(transparent)]
pub struct Phases(Option<PhaseSummaries>);

#[derive(Debug, Clone, Copy, Serialize)]
struct PhaseSummaries {
    fork_ms: Summary,
    vmm_ms: Summary,
    evaluate_ms: Summary,
    answered_ms: Summary,
    destroy_ms: Summary,
    total_ms: Summary,
}

impl Phases {
    pub(crate) fn of(lives: &[WarmLife]) -> Self {
        let of = |of: fn(&WarmLife) -> f64| Summary::of(&lives.iter().map(of).collect::<Vec<_>>());
        let all = || {
            Some(PhaseSummaries {
                fork_ms: of(|life| life.fork_ms)?,
                vmm_ms: of(|life| life.vmm_ms)?,
                evaluate_ms: of(|life| life.evaluate_ms)?,
                answered_ms: of(|life| life.answered_ms)?,
                destroy_ms: of(|life| life.destroy_ms)?,
                total_ms: of(|life| life.total_ms)?,
            })
        };
        Self(all())
    }

    /// From the request to the answer.
    pub fn answered(&self) -> Option<Summary> {
        self.0.map(|all| all.answered_ms)
    }

    /// The whole life.
    pub fn total(&self) -> Option<Summary> {
        self.0.map(|all| all.total_ms)
    }

    /// Adds a row for each; the answer and the total are compared with the floors, if there are any.
    pub(crate) fn rows(&self, timings: &mut Timings, floors: Option<&MeasuredFloors>) {
        let Some(all) = self.0 else { return };
        let ratio = |summary| floors.and_then(|floors| floors.ratio(Some(summary)));
        timings.row("fork", Some(all.fork_ms));
        timings.row("  of it in the vmm", Some(all.vmm_ms));
        timings.row("evaluate", Some(all.evaluate_ms));
        timings.row_with("request to answer", Some(all.answered_ms), ratio(all.answered_ms));
        timings.row("destroy", Some(all.destroy_ms));
        timings.row_with("total", Some(all.total_ms), ratio(all.total_ms));
    }
}

/// Lives one life. `requested` is when it was asked for.
pub(crate) async fn live(template: &Template, requested: Instant) -> Result<WarmLife> {
    let mut sandbox = template.spawn().await.context("fork")?;
    let forked = requested.elapsed();
    let answer = answer(&mut sandbox).await;
    let answered = requested.elapsed();
    let (fork_ms, vmm_ms) = (ms(sandbox.spawn_latency()), ms(sandbox.vmm_latency()));
    end(sandbox).await?;
    let total = requested.elapsed();
    answer?;
    Ok(WarmLife {
        fork_ms,
        vmm_ms,
        evaluate_ms: ms(answered - forked),
        answered_ms: ms(answered),
        destroy_ms: ms(total - answered),
        total_ms: ms(total),
    })
}

/// Has a sandbox answer for the first time: its interpreter, if it has one, or a program.
pub(crate) async fn answer(sandbox: &mut Sandbox) -> Result<()> {
    let Some(context) = sandbox.context() else {
        let output = sandbox.program(["true"]).output().await.context("true")?;
        ensure!(output.status.is_success(), "true ended with {}", output.status);
        return Ok(());
    };
    let cell = context.evaluate("6*7").await.context("evaluate")?;
    match cell.text() {
        Some("42") => Ok(()),
        Some(text) => bail!("evaluate: 6*7 is {text:?}"),
        None => bail!("evaluate: 6*7 has no value: {:?}", cell.outcome),
    }
}

/// Ends a sandbox, and sees to it that it ended in order.
pub(crate) async fn end(mut sandbox: Sandbox) -> Result<()> {
    ended_in_order(&sandbox.kill().await.context("destroy")?)
}

/// Sees to it that a sandbox ended when it was told to, and for no reason of its own.
pub(crate) fn ended_in_order(report: &Report) -> Result<()> {
    // A vmm always says what it did, unless it had to be killed.
    ensure!(
        report.stats != Stats::default(),
        "destroy: the vmm did not end when it was told to, and was killed"
    );
    match report.outcome.failure_message() {
        Some(message) => bail!("destroy: {message}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floors::FloorSamples;

    fn life(total_ms: f64) -> WarmLife {
        WarmLife {
            fork_ms: 0.1,
            vmm_ms: 0.05,
            evaluate_ms: 0.2,
            answered_ms: 0.3,
            destroy_ms: total_ms - 0.3,
            total_ms,
        }
    }

    #[test]
    fn phases_are_told_apart_and_compared_with_the_floors() {
        let phases = Phases::of(&[life(1.0), life(3.0)]);
        assert_eq!(phases.total().unwrap().p50, 2.0);
        assert_eq!(phases.answered().unwrap().max, 0.3);
        let floors = MeasuredFloors::of(FloorSamples { process_ms: vec![0.6], kvm_ms: vec![0.4] });
        let mut timings = Timings::new();
        phases.rows(&mut timings, Some(&floors));
        let text = timings.to_string();
        assert!(text.contains("of it in the vmm") && text.contains("2.00"), "{text}");
        assert_eq!(serde_json::to_value(phases).unwrap()["fork_ms"]["p50"], 0.1);
    }

    #[test]
    fn no_lives_have_no_phases() {
        let phases = Phases::of(&[]);
        assert_eq!(phases.total(), None);
        assert_eq!(serde_json::to_value(phases).unwrap(), serde_json::Value::Null);
    }
}
