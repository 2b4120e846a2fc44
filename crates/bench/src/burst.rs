//! Many requests at the same moment.

use std::sync::Arc;
use std::time::Instant;

use lg_runtime::Template;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::finding::Tally;
use crate::ms;
use crate::stats::Summary;
use crate::timing::Timings;
use crate::warm_life::{WarmLife, live};

/// How many bursts.
const REPETITIONS: usize = 5;

/// Several bursts of so many requests at once. Each life counts from the burst's start, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Burst {
    /// Requests at once.
    pub requests: usize,
    /// From the burst's start until an answer, over all bursts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<Summary>,
    /// From the burst's start until a sandbox was gone, over all bursts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<Summary>,
    /// From the burst's start until all had answered, over the bursts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_answered_ms: Option<Summary>,
    /// From the burst's start until all were spawned, had executed, and were destroyed, over the bursts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_done_ms: Option<Summary>,
    /// The lives of each burst, in the order of their requests.
    pub samples: Vec<Vec<WarmLife>>,
}

impl Burst {
    pub(crate) async fn measure(template: &Arc<Template>, requests: usize, tally: &mut Tally) -> Self {
        let (mut samples, mut all_done) = (Vec::new(), Vec::new());
        for _ in 0..REPETITIONS {
            let mut tasks = JoinSet::new();
            let started = Instant::now();
            for index in 0..requests {
                let template = template.clone();
                tasks.spawn(async move { (index, live(&template, started).await) });
            }
            let mut lives = tasks.join_all().await;
            all_done.push(ms(started.elapsed()));
            lives.sort_unstable_by_key(|(index, _)| *index);
            samples.push(lives.into_iter().filter_map(|(_, life)| tally.count(life)).collect::<Vec<_>>());
        }
        Self::of(requests, samples, &all_done)
    }

    fn of(requests: usize, samples: Vec<Vec<WarmLife>>, all_done_ms: &[f64]) -> Self {
        let over_all =
            |of: fn(&WarmLife) -> f64| Summary::of(&samples.iter().flatten().map(of).collect::<Vec<_>>());
        let last_answers: Vec<f64> = samples
            .iter()
            .filter_map(|lives| lives.iter().map(|life| life.answered_ms).reduce(f64::max))
            .collect();
        Self {
            requests,
            answered_ms: over_all(|life| life.answered_ms),
            total_ms: over_all(|life| life.total_ms),
            all_answered_ms: Summary::of(&last_answers),
            all_done_ms: Summary::of(all_done_ms),
            samples,
        }
    }

    /// The table for a terminal.
    pub(crate) fn lines(&self) -> String {
        let mut timings = Timings::new();
        timings.row("burst to answer", self.answered_ms);
        timings.row("burst to destroyed", self.total_ms);
        timings.row("burst to all answered", self.all_answered_ms);
        timings.row("burst to all destroyed", self.all_done_ms);
        format!("{} requests at once, {} times\n{timings}", self.requests, self.samples.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_answered_when_its_last_request_is() {
        let life = |answered_ms| WarmLife {
            fork_ms: 1.0,
            vmm_ms: 0.5,
            evaluate_ms: 1.0,
            answered_ms,
            destroy_ms: 1.0,
            total_ms: answered_ms + 1.0,
        };
        let burst = Burst::of(2, vec![vec![life(2.0), life(5.0)], vec![life(3.0), life(1.0)]], &[6.5, 4.5]);
        assert_eq!(burst.all_answered_ms.unwrap().p50, 4.0);
        assert_eq!(burst.all_done_ms.unwrap().max, 6.5);
        assert_eq!(burst.answered_ms.unwrap().min, 1.0);
        assert!(burst.lines().starts_with("2 requests at once, 2 times\n"));
    }
}
