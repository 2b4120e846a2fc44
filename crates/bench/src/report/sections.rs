//! The sections of a report, in their order.

use anyhow::Result;

use super::document::{Block, Document, Plot, Table, foreign, number, short, with_interval};
use super::plots::{self, Spawns};
use super::words::{self, POOR_RESIDUAL};
use super::{criterion_cells, floor_parts};
use crate::Leftovers;
use crate::finding::Skipped;
use crate::overload::OverloadRow;
use crate::peers::PeerFigure;
use crate::schema::{Concurrent, Scaling};
use crate::stats::Summary;

/// So many samples make a 99th percentile more than the greatest of them.
const ENOUGH_FOR_P99: usize = 100;
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
        floors,
        law,
        peers,
        overload,
        leftovers,
        failures,
        method,
        limits,
        environment,
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

fn floors(scaling: &Scaling) -> Vec<Block> {
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

fn law(scaling: &Scaling) -> Vec<Block> {
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

fn skipped(skipped: &[Skipped]) -> Option<Block> {
    let item = |Skipped { name, reason }: &Skipped| format!("not measured: {name}: {}", foreign(reason));
    (!skipped.is_empty()).then(|| Block::List(skipped.iter().map(item).collect()))
}

fn peers(scaling: &Scaling) -> Vec<Block> {
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

fn overload(scaling: &Scaling) -> Vec<Block> {
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

fn method(scaling: &Scaling) -> Vec<Block> {
    let scenario = &scaling.scenario;
    let think = match scenario.think_ms {
        0.0 => String::new(),
        ms => format!(
            " Before each, the agent waits, {} ms on average and equally long in all for every agent.",
            short(ms)
        ),
    };
    let arrival = match scenario.arrival.as_str() {
        "burst" => "All N are asked for at the same moment.".to_owned(),
        "closed" => "N live at a time: whenever one has ended another begins.".to_owned(),
        other => format!(
            "Agents are asked for at random moments (`{other}` a second), and times count from the planned moment: \
             an agent that had to wait for the harness has waited."
        ),
    };
    let repetitions = scaling.test_results.iter().map(|result| result.repetitions);
    let (fewest, most) = (repetitions.clone().min().unwrap_or(0), repetitions.max().unwrap_or(0));
    let repetitions = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    vec![
        heading("How it was measured"),
        Block::List(vec![
            format!(
                "The scenario `{}`: {} Each agent does {} operations.{think} The harness works out every answer on its own and compares.",
                foreign(&scenario.name),
                foreign(&scenario.about),
                scenario.operations
            ),
            format!("Each agent is {}. {arrival}", words::kind(scaling)),
            format!(
                "{repetitions} timed repetitions of each agent count, in rounds over all counts in random order (seed {}), so that \
                 whatever else the machine does falls on all alike. One life before is not counted.",
                scenario.seed
            ),
            "Figures of a repetition (total, lives per second, speedup) are medians over the repetitions. Percentiles are those of all \
             samples of all repetitions, exactly; no sample is left out, however far out it lies."
                .to_owned(),
            "Intervals are 95 % bootstrap intervals of 1,000 resamples; whole repetitions are drawn, since lives of one repetition are \
             not independent."
                .to_owned(),
            "Memory is sampled in one more repetition in which agents wait for each other, so that a moment exists at which all are \
             alive; its times count nowhere."
                .to_owned(),
            "Every sample is in `samples.jsonl`.".to_owned(),
        ]),
    ]
}

fn limits(scaling: &Scaling) -> Vec<Block> {
    let environment = &scaling.environment;
    let few: Vec<String> = scaling
        .test_results
        .iter()
        .filter(|result| result.agent_ms.is_some_and(|summary| summary.n < ENOUGH_FOR_P99))
        .map(|result| result.agent_count.to_string())
        .collect();
    let some = |holds: bool, text: &str| holds.then(|| text.to_owned());
    let items = [
        some(true, "One machine, one run. Another machine has other figures, and on a machine that is shared with others, so has the next run."),
        some(true, "The host's caches were warm: files of the image had been read before."),
        some(
            true,
            "One scenario. Others (`--scenario`) load other parts: the shell, files, the loopback, waiting.",
        ),
        some(
            environment.kvm_kind.as_deref() == Some("pvm"),
            "KVM here is PVM, which does without hardware virtualisation. An exit of the guest takes some 26 us; with hardware \
             virtualisation it takes one or two. Figures of ordinary KVM were not measured.",
        ),
        (!few.is_empty()).then(|| {
            format!(
                "With {} agents at once fewer than {ENOUGH_FOR_P99} lives were timed: their 99th percentile is hardly more than their \
                 greatest sample.",
                few.join(", ")
            )
        }),
        some(
            scaling.test_results.iter().all(|result| result.intervals_95.is_empty()),
            "There is no interval: that takes more than one repetition.",
        ),
        some(
            scaling.test_results.iter().any(|result| result.repetitions < 5),
            "Few repetitions: intervals over fewer than five are rough.",
        ),
        some(environment.build_profile == "debug", "This is a debug build, which is slower than a release build."),
        some(scaling.interrupted, "The run was interrupted before its end."),
        some(
            environment.load_average[0] > 0.5 * environment.cores as f64,
            "The machine was busy with something else before the run began (see the load average).",
        ),
        some(true, "Not measured: energy, network beyond the sandbox (there is none), disks (agents' files are in memory), more than one NUMA node."),
    ];
    vec![heading("Limits"), Block::List(items.into_iter().flatten().collect())]
}

fn environment(scaling: &Scaling) -> Vec<Block> {
    let environment = &scaling.environment;
    let unknown = || "unknown".to_owned();
    let [one, five, fifteen] = environment.load_average;
    let rows = [
        ("measured", scaling.timestamp.clone()),
        ("command", format!("`{}`", foreign(&environment.command_line.join(" ")))),
        (
            "processor",
            format!(
                "{}, {} processors",
                environment.cpu_model.clone().unwrap_or_else(unknown),
                environment.cores
            ),
        ),
        ("memory", format!("{} MiB", environment.memory_mb)),
        ("host kernel", environment.kernel.clone().unwrap_or_else(unknown)),
        ("KVM", environment.kvm_kind.clone().unwrap_or_else(|| "not used".to_owned())),
        (
            "cgroups",
            environment.cgroup_version.map_or("none".to_owned(), |version| format!("version {version}")),
        ),
        (
            "LuminaGuard",
            format!(
                "{} ({}), {} build",
                environment.version,
                environment.commit.clone().unwrap_or_else(|| "commit unknown".to_owned()),
                environment.build_profile
            ),
        ),
        (
            "template",
            scaling.template.as_ref().map_or("none".to_owned(), |template| foreign(&template.line())),
        ),
        ("load average before", format!("{one:.2}, {five:.2}, {fifteen:.2}")),
    ];
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    vec![heading("Environment"), Table::new(&["", ""]).with_rows(rows)]
}
