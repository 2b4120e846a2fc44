//! `report.md`.

use std::fmt::Write as _;

use super::{COLUMNS, floor_parts, row};
use crate::Leftovers;
use crate::schema::{Concurrent, Scaling};

/// `report.md`.
pub(crate) fn report(scaling: &Scaling) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_markdown(&mut text, scaling);
    text
}

fn write_markdown(text: &mut String, scaling: &Scaling) -> std::fmt::Result {
    let environment = &scaling.environment;
    writeln!(text, "# Agents at once\n")?;
    writeln!(text, "Measured {} with `{}`.\n", scaling.timestamp, environment.command_line.join(" "))?;
    markdown_table(text, &COLUMNS, scaling.test_results.iter().map(row))?;
    writeln!(
        text,
        "\nTimes in milliseconds of wall clock. Each agent is {}, and does the {} operations of the scenario `{}`; \
         every answer is checked. *Spawn*: from the request until the agent's interpreter answered for the first time. \
         *Clean-up*: until its process on the host is reaped. *Total*: from the first request to the last clean-up, \
         median over the repetitions. *Speedup*: the time of N agents one after the other (measured at N = 1), \
         divided by the total. *Of ideal*: the speedup divided by what the cores allow; more than 100% where an agent \
         alone needs more CPU time than one among many. *MiB each*: the sum of PSS while all N were alive, divided by N.\n",
        match environment.backend.as_str() {
            "warm" => "a micro-VM forked from a warm template",
            "cold" => "a micro-VM that starts cold",
            _ => "a plain process",
        },
        scaling.scenario.operations,
        scaling.scenario.name,
    )?;

    writeln!(text, "## What remained\n")?;
    let leftovers =
        scaling.test_results.iter().map(|result| leftover_row(result.agent_count, result.leftovers));
    let columns = ["agents", "processes", "descriptors", "mounts", "cgroups", "files", "bytes of memory"];
    markdown_table(text, &columns, leftovers)?;

    writeln!(text, "\n## Floors of the same run\n")?;
    let floors = floor_parts(&scaling.floors);
    markdown_table(
        text,
        &["floor", "p50 ms", "p95 ms", "p99 ms"],
        floors.iter().map(|(name, s)| {
            vec![
                (*name).to_owned(),
                format!("{:.3}", s.p50),
                format!("{:.3}", s.p95),
                format!("{:.3}", s.p99),
            ]
        }),
    )?;

    writeln!(text, "\n## Operations, p50 / p99 in milliseconds\n")?;
    let counts = scaling.test_results.iter().map(|result| format!("N = {}", result.agent_count));
    let header: Vec<String> = std::iter::once("operation".to_owned()).chain(counts).collect();
    let names = scaling.test_results.first().into_iter().flat_map(|result| result.operation_ms.keys());
    let rows = names.map(|name| {
        let cells = scaling.test_results.iter().map(|result| match result.operation_ms.get(name) {
            Some(summary) => format!("{:.1} / {:.1}", summary.p50, summary.p99),
            None => "-".to_owned(),
        });
        std::iter::once(name.clone()).chain(cells).collect()
    });
    markdown_table(text, &header.iter().map(String::as_str).collect::<Vec<_>>(), rows)?;

    writeln!(text, "\n## Resources\n")?;
    let columns = [
        "agents",
        "CPU %",
        "CPU s each",
        "MiB",
        "peak MiB",
        "threads",
        "system calls each",
        "page faults each",
    ];
    markdown_table(text, &columns, scaling.test_results.iter().map(resource_row))?;

    write_failures(text, scaling)?;
    writeln!(text, "\n## Environment\n")?;
    write_environment(text, scaling)
}

fn leftover_row(agents: usize, left: Leftovers) -> Vec<String> {
    let optional = |count: Option<usize>| count.map_or("not counted".to_owned(), |count| count.to_string());
    vec![
        agents.to_string(),
        left.processes.to_string(),
        left.descriptors.to_string(),
        optional(left.mounts),
        optional(left.cgroups),
        left.files.to_string(),
        left.memory_bytes.to_string(),
    ]
}

fn resource_row(result: &Concurrent) -> Vec<String> {
    let number =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |x| format!("{x:.digits$}"));
    let resources = &result.resources;
    vec![
        result.agent_count.to_string(),
        number(resources.cpu_percent, 0),
        number(resources.cpu_seconds_per_agent, 3),
        number(resources.memory_mb, 1),
        number(resources.memory_peak_mb, 1),
        resources.threads_active.map_or("-".to_owned(), |threads| threads.to_string()),
        number(result.exits.map(|exits| exits.syscalls), 0),
        number(result.exits.map(|exits| exits.page_faults), 0),
    ]
}

fn write_failures(text: &mut String, scaling: &Scaling) -> std::fmt::Result {
    let mut failures = scaling.test_results.iter().flat_map(|result| {
        result
            .agent_results
            .iter()
            .filter_map(|agent| Some((result.agent_count, &agent.agent_id, agent.error.as_ref()?)))
    });
    if let Some(first) = failures.next() {
        writeln!(text, "\n## Failures\n")?;
        for (agents, agent_id, error) in std::iter::once(first).chain(failures) {
            writeln!(text, "- {agents} agents, {agent_id}: {}", error.replace('\n', " "))?;
        }
    }
    Ok(())
}

fn write_environment(text: &mut String, scaling: &Scaling) -> std::fmt::Result {
    let environment = &scaling.environment;
    let unknown = || "unknown".to_owned();
    let [one, five, fifteen] = environment.load_average;
    let rows = [
        (
            "processor",
            format!("{}, {} cores", environment.cpu_model.clone().unwrap_or_else(unknown), environment.cores),
        ),
        ("memory", format!("{} MiB", environment.memory_mb)),
        ("host kernel", environment.kernel.clone().unwrap_or_else(unknown)),
        ("KVM", environment.kvm_kind.clone().unwrap_or_else(|| "not used".to_owned())),
        (
            "LuminaGuard",
            format!(
                "{} ({}), {} build",
                environment.version,
                environment.commit.clone().unwrap_or_else(|| "commit unknown".to_owned()),
                environment.build_profile
            ),
        ),
        ("load average before", format!("{one:.2}, {five:.2}, {fifteen:.2}")),
    ];
    markdown_table(text, &["", ""], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]))
}

fn markdown_table(
    text: &mut String,
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> std::fmt::Result {
    writeln!(text, "| {} |", header.join(" | "))?;
    writeln!(text, "|{}", "---|".repeat(header.len()))?;
    for row in rows {
        writeln!(text, "| {} |", row.join(" | "))?;
    }
    Ok(())
}
