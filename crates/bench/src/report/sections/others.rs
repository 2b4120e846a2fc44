//! What was measured beside the agents: peers, and what happens beyond capacity.

use super::super::document::{Block, Table, foreign, short};
use super::{heading, paragraph};
use crate::finding::Skipped;
use crate::overload::OverloadRow;
use crate::peers::PeerFigure;
use crate::schema::Scaling;
use crate::stats::Summary;

fn skipped(skipped: &[Skipped]) -> Option<Block> {
    let item = |Skipped { name, reason }: &Skipped| format!("not measured: {name}: {}", foreign(reason));
    (!skipped.is_empty()).then(|| Block::List(skipped.iter().map(item).collect()))
}

pub(super) fn peers(scaling: &Scaling) -> Vec<Block> {
    let Some(peers) = &scaling.peers else { return Vec::new() };
    let row = |peer: &PeerFigure| {
        let s = peer.life_ms;
        let command = format!("`{}`", foreign(&peer.command));
        vec![
            foreign(&peer.name),
            s.n.to_string(),
            short(s.p50),
            short(s.p95),
            short(peer.of_process),
            command,
        ]
    };
    let columns = ["way", "#n", "#p50, ms", "#p95, ms", "#of a process", "command"];
    let mut blocks = vec![
        heading("Other ways to isolate a program"),
        paragraph(format!(
            "The same program, from its start until it was reaped, {} times in turns in each. They isolate by other means and not all \
             as strongly: bubblewrap, crun and runc share the kernel of the host.",
            peers.rounds
        )),
        Table::new(&columns).with_rows(peers.measured.iter().map(row)),
    ];
    blocks.extend(skipped(&peers.skipped));
    blocks
}

pub(super) fn overload(scaling: &Scaling) -> Vec<Block> {
    let Some(overload) = &scaling.overload else { return Vec::new() };
    let row = |row: &OverloadRow| {
        let p99 = |summary: Option<Summary>| summary.map_or("-".to_owned(), |summary| short(summary.p99));
        let reasons: Vec<String> =
            row.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        vec![
            row.name.clone(),
            row.capacity.to_string(),
            row.requested.to_string(),
            row.completed.to_string(),
            row.refused.values().sum::<usize>().to_string(),
            row.failed.to_string(),
            p99(row.admitted_ms),
            p99(row.refused_ms),
            row.recovery_ms.map_or("none".to_owned(), short),
            row.leftovers.things().to_string(),
            foreign(&reasons.join(", ")),
        ]
    };
    let columns = [
        "what is scarce",
        "#room",
        "#asked",
        "#completed",
        "#refused",
        "#failed",
        "#answered p99, ms",
        "#refused p99, ms",
        "#recovery, ms",
        "#left",
        "refused because",
    ];
    let mut blocks = vec![
        heading("Beyond capacity"),
        paragraph(
            "More sandboxes are asked for at the same moment than there is room for, with one thing after the other made scarce. What is \
             let in must complete, everything else must be refused for a reason, nothing may be left, and a fresh sandbox must answer right \
             after (recovery).",
        ),
        Table::new(&columns).with_rows(overload.rows.iter().map(row)),
    ];
    blocks.extend(skipped(&overload.skipped));
    blocks
}
