//! How findings are shown: lines of progress, the table, `report.md`, and the files of a run.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;

use crate::Leftovers;
use crate::agent::Life;
use crate::floors::Floors;
use crate::scale::{Measurement, agent_id};
use crate::schema::{Concurrent, Scaling};
use crate::stats::Summary;

/// The files of one run in one directory.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    suffix: String,
}

/// One line of `samples.jsonl`.
#[derive(Serialize)]
struct Sample<'a> {
    agent_count: usize,
    repetition: usize,
    /// `timed`, or `memory`: the agents waited for each other, so that the times mean nothing.
    phase: &'static str,
    agent_id: String,
    #[serde(flatten)]
    life: &'a Life,
}

impl Files {
    pub(crate) fn new(directory: &Path, started: jiff::Timestamp) -> Self {
        Self { directory: directory.to_owned(), suffix: started.strftime("%Y%m%d_%H%M%S").to_string() }
    }

    /// Writes all files and answers their paths.
    pub(crate) fn write(&self, scaling: &Scaling, measurements: &[Measurement]) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for result in &scaling.test_results {
            paths.push(
                self.json(&format!("concurrent_{}_agents_{}.json", result.agent_count, self.suffix), result)?,
            );
        }
        paths.push(self.json(&format!("scaling_comprehensive_{}.json", self.suffix), scaling)?);
        paths.push(self.put("report.md", markdown(scaling).as_bytes())?);
        paths.push(self.samples(measurements)?);
        Ok(paths)
    }

    fn json(&self, name: &str, value: &impl Serialize) -> Result<PathBuf> {
        let mut text = serde_json::to_string_pretty(&rounded(serde_json::to_value(value)?))?;
        text.push('\n');
        self.put(name, text.as_bytes())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn samples(&self, measurements: &[Measurement]) -> Result<PathBuf> {
        let path = self.directory.join("samples.jsonl");
        let write = || -> Result<()> {
            let mut file = BufWriter::new(fs::File::create(&path)?);
            for m in measurements {
                let timed = m.timed.iter().map(|repetition| ("timed", repetition));
                for (number, (phase, repetition)) in timed.chain([("memory", &m.sampled)]).enumerate() {
                    for (index, life) in repetition.lives.iter().enumerate() {
                        let agent_id = agent_id(index, m.agents);
                        let repetition = number + 1;
                        let sample = Sample { agent_count: m.agents, repetition, phase, agent_id, life };
                        serde_json::to_writer(&mut file, &rounded(serde_json::to_value(sample)?))?;
                        file.write_all(b"\n")?;
                    }
                }
            }
            Ok(file.flush()?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// The same with at most four decimals: for milliseconds, finer than the clock is steady.
pub(crate) fn rounded(value: serde_json::Value) -> serde_json::Value {
    use serde_json::{Number, Value};
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(|x| (x * 1e4).round() / 1e4).and_then(Number::from_f64);
            Value::Number(rounded.unwrap_or(number))
        }
        Value::Array(values) => Value::Array(values.into_iter().map(rounded).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(k, v)| (k, rounded(v))).collect()),
        other => other,
    }
}

pub(crate) fn floors_line(floors: &Floors) -> String {
    let parts: Vec<String> = floor_parts(floors)
        .into_iter()
        .map(|(name, summary)| format!("{name} {:.2} ms", summary.p50))
        .collect();
    format!("floors (median): {}", parts.join(", "))
}

fn floor_parts(floors: &Floors) -> Vec<(&'static str, Summary)> {
    let all = [
        ("process", floors.process_ms),
        ("bare VM", floors.kvm_ms),
        ("one agent as a plain process", floors.native_agent_ms),
    ];
    all.into_iter().filter_map(|(name, summary)| Some((name, summary?))).collect()
}

pub(crate) fn measurement_line(m: &Measurement) -> String {
    let failed: usize = m.failures().values().sum();
    let lives: usize = m.timed.iter().chain([&m.sampled]).map(|r| r.lives.len()).sum();
    let left = if m.leftovers().is_nothing() { "nothing left" } else { "something left behind" };
    format!(
        "{} at once: {:.0} ms (median of {}), {} of {lives} lives completed, {left}",
        m.agents,
        m.total_ms(),
        m.timed.len(),
        lives - failed,
    )
}

/// One line beneath the header, nothing else.
pub(crate) const TABLE_STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('-'));

const COLUMNS: [&str; 13] = [
    "agents",
    "total ms",
    "spawn p50",
    "p99",
    "execute p50",
    "p99",
    "clean-up p50",
    "p99",
    "lives/s",
    "speedup",
    "of ideal",
    "MiB each",
    "failed/left",
];

fn row(result: &Concurrent) -> Vec<String> {
    let number =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |x| format!("{x:.digits$}"));
    let pair =
        |summary: Option<Summary>| [number(summary.map(|s| s.p50), 1), number(summary.map(|s| s.p99), 1)];
    let left = result.leftovers;
    let mut cells = vec![result.agent_count.to_string(), number(Some(result.total_time_ms), 1)];
    cells.extend(pair(result.spawn_ms));
    cells.extend(pair(result.execute_ms));
    cells.extend(pair(result.cleanup_ms));
    cells.extend([
        number(Some(result.agents_per_second), 1),
        number(result.speedup, 2),
        result.efficiency.map_or("-".to_owned(), |efficiency| format!("{:.0}%", efficiency * 100.0)),
        number(result.resources.memory_per_agent_mb, 1),
        format!(
            "{}/{}",
            result.failures.values().sum::<usize>(),
            if left.is_nothing() { "0" } else { "yes" }
        ),
    ]);
    cells
}

/// The table for a terminal.
pub(crate) fn table(results: &[Concurrent]) -> String {
    let mut table = Table::new();
    table.load_style(TABLE_STYLE).set_header(COLUMNS);
    table.add_rows(results.iter().map(row));
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// `report.md`.
fn markdown(scaling: &Scaling) -> String {
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
        scaling.test_results.first().map_or(0, |r| r.operation_ms.len()),
        scaling.scenario,
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

#[cfg(test)]
mod tests;
