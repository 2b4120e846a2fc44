//! What a run found, in words: by plain rules from the figures.

use super::document::short;
use crate::schema::{Concurrent, Scaling};

/// Throughput of a later agent count counts as more where it is so many times that of an earlier one.
const GROWTH: f64 = 1.05;
const NAMED_AGENTS: usize = 50;
/// A fit of a law that is off by more than this on average says little.
pub(super) const POOR_RESIDUAL: f64 = 0.15;

/// The first paragraph.
pub(super) fn found(scaling: &Scaling) -> String {
    let sentences = [
        Some(completion(scaling)),
        spawn(scaling),
        throughput(scaling),
        named(scaling),
        Some(criteria(scaling)),
        scaling
            .interrupted
            .then(|| "The run was interrupted: these are the repetitions until then.".to_owned()),
    ];
    sentences.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn completion(scaling: &Scaling) -> String {
    let results = &scaling.test_results;
    let failed: usize = results.iter().flat_map(|result| result.failures.values()).sum();
    let left = results.iter().any(|result| !result.leftovers.is_nothing());
    let (least, most) =
        (results.first().map_or(0, |r| r.agent_count), results.last().map_or(0, |r| r.agent_count));
    let lives: usize =
        results.iter().map(|result| result.agent_count * result.lives_each * result.repetitions).sum();
    let kind = kind(scaling);
    let counts = if least == most { format!("{most} at once") } else { format!("{least} to {most} at once") };
    let completed = match failed {
        0 => format!("all of {lives} timed lives completed, every answer was right"),
        failed => format!("{failed} lives failed, {lives} were timed"),
    };
    let left = if left { "something was left behind" } else { "nothing was left behind" };
    format!("Agents, {counts}, each {kind}: {completed}, and {left}.")
}

/// What an agent is.
pub(super) fn kind(scaling: &Scaling) -> &'static str {
    match scaling.environment.backend.as_str() {
        "warm" => "a micro-VM forked from a warm template",
        "cold" => "a micro-VM that starts cold",
        _ => "a plain process of the host",
    }
}

fn spawn(scaling: &Scaling) -> Option<String> {
    let of = |result: &Concurrent| Some((result.agent_count, result.spawn_ms?));
    let (_, alone) = scaling.test_results.iter().find(|result| result.agent_count == 1).and_then(of)?;
    let (most, many) = scaling.test_results.last().and_then(of)?;
    let alone = format!(
        "One agent alone has answered for the first time {} ms after it was asked for (median; 99th percentile {} ms)",
        short(alone.p50),
        short(alone.p99)
    );
    Some(match most {
        1 => format!("{alone}."),
        most => format!(
            "{alone}; of {most}, half have after {} ms and 99 % after {} ms.",
            short(many.p50),
            short(many.p99)
        ),
    })
}

fn throughput(scaling: &Scaling) -> Option<String> {
    let results = &scaling.test_results;
    let rate = |result: &&Concurrent| result.agents_per_second;
    let most = results.iter().map(|result| rate(&result)).fold(0.0, f64::max);
    let single = results.iter().find(|result| result.agent_count == 1)?;
    let single_rate = single.agents_per_second;
    if results.len() < 2 || single_rate <= 0.0 || most <= 0.0 {
        return None;
    }
    let knee = results.iter().find(|result| rate(result) * GROWTH >= most)?;
    let last = results.last()?;
    let ideal = knee.ideal_speedup.map_or(String::new(), |ideal| {
        format!(
            ", {} times that of one agent alone, where the machine allows {} times",
            short(most / single_rate),
            short(ideal)
        )
    });
    let grows = if knee.agent_count == last.agent_count {
        format!(
            "Throughput grows up to {} agents, the most that were measured: {} lives a second{ideal}.",
            last.agent_count,
            short(most)
        )
    } else {
        let then = if last.agents_per_second * GROWTH < most {
            format!("falls to {} with {} agents", short(last.agents_per_second), last.agent_count)
        } else {
            format!("holds up to {} agents", last.agent_count)
        };
        format!(
            "Throughput grows up to {} agents ({} lives a second{ideal}), then {then}.",
            knee.agent_count,
            short(rate(&knee))
        )
    };
    Some(grows)
}

fn named(scaling: &Scaling) -> Option<String> {
    let result = scaling.test_results.iter().find(|result| result.agent_count == NAMED_AGENTS)?;
    let target = scaling.criteria.iter().find(|c| c.unit == "ms" && c.name.starts_with("total time of 50"));
    let native = scaling.floors.native_burst.filter(|burst| burst.agent_count == NAMED_AGENTS);
    let mut text = format!(
        "{NAMED_AGENTS} agents take {} ms from the first request to the last clean-up",
        short(result.total_time_ms)
    );
    if let Some(criterion) = target {
        text.push_str(&format!(" (promised: {} ms)", criterion.target));
    }
    if let Some(native) = native {
        text.push_str(&format!(
            "; the same {NAMED_AGENTS} as plain processes take {} ms",
            short(native.total_time_ms.p50)
        ));
    }
    text.push('.');
    Some(text)
}

fn criteria(scaling: &Scaling) -> String {
    let missed: Vec<&str> = scaling
        .criteria
        .iter()
        .filter(|criterion| !criterion.passed)
        .map(|criterion| criterion.name.as_str())
        .collect();
    match (scaling.criteria.len(), missed.len()) {
        (0, _) => "Nothing was promised of this run.".to_owned(),
        (all, 0) => format!("All {all} criteria hold."),
        (all, count) => format!("{count} of {all} criteria are missed: {}.", missed.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_scaling;

    #[test]
    fn what_was_found_is_said_without_praise() {
        insta::assert_snapshot!(found(&sample_scaling()));
    }

    #[test]
    fn growth_a_plateau_and_a_fall_are_told_apart() {
        let said = |rates: [f64; 3]| {
            let mut scaling = sample_scaling();
            let last = scaling.test_results[1].clone();
            scaling.test_results.push(Concurrent { agent_count: 20, ..last });
            for (result, rate) in scaling.test_results.iter_mut().zip(rates) {
                result.agents_per_second = rate;
            }
            throughput(&scaling).unwrap()
        };
        assert!(said([10.0, 18.0, 30.0]).starts_with("Throughput grows up to 20 agents, the most"));
        assert!(said([10.0, 20.0, 19.9]).ends_with("then holds up to 20 agents."));
        assert!(said([10.0, 20.0, 12.0]).ends_with("then falls to 12.0 with 20 agents."));
        let mut none = sample_scaling();
        none.test_results.clear();
        none.criteria.clear();
        assert!(found(&none).contains("Nothing was promised"));
    }
}
