//! The sections of a report, in their order.

mod circumstances;
mod laws;
mod others;

use anyhow::Result;

use super::criterion_cells;
use super::document::{Block, Document, Plot, Table, foreign, number, short, with_interval};
use super::plots::{self, Spawns};
use super::words;
use crate::Leftovers;
use crate::schema::{Concurrent, Scaling};
use crate::stats::Summary;

/// So many failures are told in words.
const KEPT_FAILURES: usize = 100;

/// The whole report, and its plots once more.
pub(super) fn report(scaling: &Scaling, spawns: &Spawns) -> Result<(Document, Vec<Plot>)> {
    let plots = plots::all(scaling, spawns)?;
    let mut blocks = vec![Block::Paragraph(words::found(scaling))];
    blocks.extend(criteria(scaling));
    blocks.extend(agents(scaling));
    blocks.push(heading("Plots"));
    blocks.extend(plots.iter().cloned().map(Block::Plot));
    for section in [
        spawn,
        operations,
        resources,
        laws::floors,
        laws::law,
        others::peers,
        others::overload,
        leftovers,
        failures,
        circumstances::method,
        circumstances::limits,
        circumstances::environment,
    ] {
        blocks.extend(section(scaling));
    }
    Ok((Document { title: title(scaling), blocks }, plots))
}

fn title(scaling: &Scaling) -> String {
    format!("Agents at once: {}", scaling.scenario.name)
}

fn heading(text: &str) -> Block {
    Block::Heading(text.to_owned())
}

fn paragraph(text: impl Into<String>) -> Block {
    Block::Paragraph(text.into())
}

fn rows<'a>(
    scaling: &'a Scaling,
    row: impl Fn(&'a Concurrent) -> Vec<String> + 'a,
) -> impl Iterator<Item = Vec<String>> + 'a {
    scaling.test_results.iter().map(move |result| {
        let mut cells = vec![result.agent_count.to_string()];
        cells.extend(row(result));
        cells
    })
}

fn criteria(scaling: &Scaling) -> Vec<Block> {
    if scaling.criteria.is_empty() {
        return Vec::new();
    }
    let table = Table::new(&["criterion", "#agents", "#target", "#measured", "unit", ""]);
    vec![
        heading("Criteria"),
        paragraph(
            "The worst agent count that a criterion is about decides; it is named in the second column.",
        ),
        table.with_rows(scaling.criteria.iter().map(criterion_cells)),
    ]
}

fn agents(scaling: &Scaling) -> Vec<Block> {
    let columns = [
        "#agents",
        "#n",
        "#total, ms",
        "#spawn p50, ms",
        "#spawn p99, ms",
        "#execute p50, ms",
        "#clean-up p50, ms",
        "#lives/s",
        "#speedup",
        "#of ideal",
        "#scaling factor",
        "#MiB each",
        "#failed",
    ];
    let row = |result: &Concurrent| {
        let interval = |name: &str| result.intervals_95.get(name);
        let quantile = |summary: Option<Summary>, name: &str, of: fn(Summary) -> f64| {
            with_interval(summary.map(of), interval(name))
        };
        vec![
            result.agent_ms.map_or(0, |summary| summary.n).to_string(),
            with_interval(Some(result.total_time_ms), interval("total_time_ms")),
            quantile(result.spawn_ms, "spawn_ms.p50", |s| s.p50),
            quantile(result.spawn_ms, "spawn_ms.p99", |s| s.p99),
            quantile(result.execute_ms, "execute_ms.p50", |s| s.p50),
            quantile(result.cleanup_ms, "cleanup_ms.p50", |s| s.p50),
            with_interval(Some(result.agents_per_second), interval("agents_per_second")),
            with_interval(result.speedup, interval("speedup")),
            with_interval(result.efficiency, interval("efficiency")),
            number(result.scaling_factor, 3),
            number(result.resources.memory_per_agent_mb, 1),
            result.failures.values().sum::<usize>().to_string(),
        ]
    };
    vec![
        heading("Agents at once"),
        Table::new(&columns).with_rows(rows(scaling, row)),
        paragraph(
            "In brackets: 95 % intervals, by bootstrap over the repetitions. n: completed lives whose times count. Total: from the \
             first request to the last clean-up, median over the repetitions. Spawn: from the request until the agent's interpreter has \
             answered for the first time. Clean-up: from the last answer until the agent's process on the host is reaped. Speedup: \
             the time of N agents one after the other, as one alone took it in the same round, divided by the total. Of ideal: \
             the speedup divided by what the machine allows, which is N or, where processors are the limit, what all \
             processors together are worth, times the life of one agent alone over its processor time.",
        ),
        paragraph(
            "Scaling factor: total / (mean life x N). It says how much lives overlap and nothing about efficiency: 1/N is perfect \
             overlap, 1 is one after the other.",
        ),
    ]
}

fn spawn(scaling: &Scaling) -> Vec<Block> {
    let Some(first) = scaling.test_results.iter().find(|result| !result.spawn_phases_ms.is_empty()) else {
        return Vec::new();
    };
    let names = first.spawn_phases_ms.iter().map(|phase| format!("#{}, ms", phase.name));
    let columns: Vec<String> =
        std::iter::once("#agents".to_owned()).chain(names).chain(["#mean spawn, ms".to_owned()]).collect();
    let row = |result: &Concurrent| {
        let phases = result.spawn_phases_ms.iter().map(|phase| short(phase.mean_ms));
        phases.chain([result.spawn_ms.map_or("-".to_owned(), |summary| short(summary.mean))]).collect()
    };
    let table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    let all = rows(scaling, row).filter(|cells| cells.len() == columns.len());
    vec![
        heading("What a spawn consists of"),
        paragraph("Means over all agents. The phases follow each other and add up to the mean spawn."),
        table.with_rows(all),
    ]
}

fn operations(scaling: &Scaling) -> Vec<Block> {
    let counts = scaling.test_results.iter().map(|result| format!("#N = {}", result.agent_count));
    let columns: Vec<String> = std::iter::once("operation".to_owned()).chain(counts).collect();
    let names = scaling.test_results.first().into_iter().flat_map(|result| result.operation_ms.keys());
    let of_operations = names.map(|name| {
        let cells = scaling.test_results.iter().map(|result| match result.operation_ms.get(name) {
            Some(summary) => format!("{} / {}", short(summary.p50), short(summary.p99)),
            None => "-".to_owned(),
        });
        std::iter::once(foreign(name)).chain(cells).collect()
    });
    let mut blocks = vec![
        heading("Operations"),
        paragraph("From the request until the answer, p50 / p99 in milliseconds."),
        Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>()).with_rows(of_operations),
    ];
    if scaling.test_results.iter().any(|result| result.network_latency_ms.is_some()) {
        let row = |result: &Concurrent| {
            let summary = result.network_latency_ms;
            let of = |value: fn(Summary) -> f64| number(summary.map(value), 3);
            vec![summary.map_or(0, |s| s.n).to_string(), of(|s| s.p50), of(|s| s.p99), of(|s| s.max)]
        };
        let table = Table::new(&["#agents", "#n", "#p50, ms", "#p99, ms", "#most, ms"]);
        blocks.push(paragraph(
            "Round trips over the sandbox's own loopback, as the program in the sandbox timed them:",
        ));
        blocks.push(table.with_rows(rows(scaling, row)));
    }
    blocks
}

fn resources(scaling: &Scaling) -> Vec<Block> {
    let used = [
        "#agents",
        "#CPU, %",
        "#CPU each, s",
        "#harness each, s",
        "#MiB",
        "#peak MiB",
        "#threads",
        "#read MiB",
        "#written MiB",
    ];
    let use_row = |result: &Concurrent| {
        let r = &result.resources;
        vec![
            number(r.cpu_percent, 0),
            number(r.cpu_seconds_per_agent, 4),
            number(r.harness_cpu_seconds_per_agent, 4),
            number(r.memory_mb, 1),
            number(r.memory_peak_mb, 1),
            r.threads_active.map_or("-".to_owned(), |threads| threads.to_string()),
            number(r.disk_read_mb, 1),
            number(r.disk_write_mb, 1),
        ]
    };
    let exits =
        ["#agents", "#system calls", "#page faults", "#exceptions", "#interrupts", "#waits", "#preemptions"];
    let exit_row = |result: &Concurrent| {
        let exit = |of: fn(&crate::schema::MeanExits) -> f64| number(result.exits.as_ref().map(of), 0);
        vec![
            exit(|e| e.syscalls),
            exit(|e| e.page_faults),
            exit(|e| e.exceptions),
            exit(|e| e.interrupts),
            number(result.resources.voluntary_switches_per_agent, 0),
            number(result.resources.involuntary_switches_per_agent, 0),
        ]
    };
    vec![
        heading("Resources"),
        Table::new(&used).with_rows(rows(scaling, use_row)),
        paragraph(
            "CPU: of all processors, agents and harness together. Harness: the processor time of the process that asks, checks \
             and times, for each life; it runs on the same machine and takes its share. MiB: the sum of PSS while all N were alive; peak: \
             the greatest that was seen, ten times a second.",
        ),
        paragraph(
            "Exits of the guest by kind, and context switches of its process on the host, for each life:",
        ),
        Table::new(&exits).with_rows(rows(scaling, exit_row)),
    ]
}

fn leftovers(scaling: &Scaling) -> Vec<Block> {
    let optional = |count: Option<usize>| count.map_or("not counted".to_owned(), |count| count.to_string());
    let row = |result: &Concurrent| {
        let left: Leftovers = result.leftovers;
        vec![
            left.processes.to_string(),
            left.descriptors.to_string(),
            optional(left.mounts),
            optional(left.cgroups),
            left.files.to_string(),
            left.memory_bytes.to_string(),
        ]
    };
    let columns =
        ["#agents", "#processes", "#descriptors", "#mounts", "#cgroups", "#files", "#bytes of shared memory"];
    vec![
        heading("What remained"),
        paragraph("Counted after each repetition; the most of any."),
        Table::new(&columns).with_rows(rows(scaling, row)),
    ]
}

fn failures(scaling: &Scaling) -> Vec<Block> {
    let failures = scaling.test_results.iter().flat_map(|result| {
        let failed =
            result.agent_results.iter().filter_map(|agent| Some((&agent.agent_id, agent.error.as_ref()?)));
        failed.map(|(id, error)| format!("{} agents, {id}: {}", result.agent_count, foreign(error)))
    });
    let mut items: Vec<String> = failures.collect();
    if items.is_empty() {
        return Vec::new();
    }
    let more = items.len().saturating_sub(KEPT_FAILURES);
    items.truncate(KEPT_FAILURES);
    if more > 0 {
        items.push(format!("and {more} more; all are in samples.jsonl"));
    }
    vec![heading("Failures"), Block::List(items)]
}
