//! What bounds a run: the floors of the machine, and the law of scaling.

use super::super::document::{Block, Table, short};
use super::super::floor_parts;
use super::super::words::POOR_RESIDUAL;
use super::{heading, paragraph};
use crate::schema::Scaling;
use crate::stats::Summary;

pub(super) fn floors(scaling: &Scaling) -> Vec<Block> {
    let floors = &scaling.floors;
    let mut all: Vec<(String, Summary)> =
        floor_parts(floors).into_iter().map(|(name, summary)| (name.to_owned(), summary)).collect();
    if let Some(burst) = floors.native_burst {
        all.push((format!("{} agents at once as plain processes", burst.agent_count), burst.total_time_ms));
    }
    let row = |(name, s): &(String, Summary)| {
        vec![name.clone(), s.n.to_string(), short(s.p50), short(s.p95), short(s.p99)]
    };
    vec![
        heading("Floors of the same run"),
        Table::new(&["floor", "#n", "#p50, ms", "#p95, ms", "#p99, ms"]).with_rows(all.iter().map(row)),
        paragraph(format!(
            "All {} processors together compute {} times what one computes alone. Where two processors share a core, that is less \
             than their number, and no program can make more of it: the ideal speedup is worked out with this figure.",
            scaling.environment.cores,
            short(floors.parallel_speedup)
        )),
    ]
}

pub(super) fn law(scaling: &Scaling) -> Vec<Block> {
    let Some(usl) = &scaling.usl else {
        return vec![
            heading("Universal Scalability Law"),
            paragraph("Not fitted: it takes at least four agent counts."),
        ];
    };
    let peak = match (usl.peak_agents, usl.peak_lives_per_second) {
        (Some(agents), Some(rate)) => {
            format!("throughput is greatest with {} agents, {} lives a second", short(agents), short(rate))
        }
        (None, Some(rate)) => {
            format!("throughput never falls and never passes {} lives a second", short(rate))
        }
        _ => "nothing bounds throughput".to_owned(),
    };
    let knee = usl.knee_agents.map_or(String::new(), |agents| {
        format!(" Half of the most is reached with {} agents: beyond this knee, more agents mostly wait for each other.", short(agents))
    });
    let poor = if usl.residual > POOR_RESIDUAL {
        " That is a poor fit: the law does not describe this run, and its parameters say little."
    } else {
        ""
    };
    vec![
        heading("Universal Scalability Law"),
        paragraph(format!(
            "Fitted to {} agent counts: `X(N) = {} N / (1 + sigma (N - 1) + kappa N (N - 1))` lives a second, with \
             sigma = {:.4} (contention: the share of a life in which agents wait for the same thing, processors above all) and kappa = {:.6} \
             (coherency: what each agent costs each other). By it, {peak}.{knee} The relative difference from what was \
             measured is {:.1} % (root mean square).{poor}",
            usl.points,
            short(usl.lambda),
            usl.sigma,
            usl.kappa,
            usl.residual * 100.0
        )),
    ]
}
