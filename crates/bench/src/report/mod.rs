//! How findings are shown: lines of progress, the table, `report.md`, and the files of a run.

mod document;
mod files;
mod html;
mod markdown;
mod plots;
#[cfg(test)]
mod sample;
mod sections;
mod words;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use crate::floors::Floors;
use crate::scale::Measurement;
use crate::schema::{Bound, Concurrent, Criterion};
use crate::stats::Summary;

pub(crate) use files::Files;
#[cfg(test)]
pub(crate) use sample::scaling as sample_scaling;

/// A moment as the files give it: RFC 3339, to the second.
pub(crate) fn seconds(timestamp: jiff::Timestamp) -> String {
    timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The same with at most four decimals, which for milliseconds is finer than the clock is steady; small numbers keep four
/// digits.
pub(crate) fn rounded(value: serde_json::Value) -> serde_json::Value {
    use serde_json::{Number, Value};
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(round).and_then(Number::from_f64);
            Value::Number(rounded.unwrap_or(number))
        }
        Value::Array(values) => Value::Array(values.into_iter().map(rounded).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(k, v)| (k, rounded(v))).collect()),
        other => other,
    }
}

fn round(x: f64) -> f64 {
    let digits = (3.0 - x.abs().log10().floor()).clamp(4.0, 15.0);
    let scale = 10f64.powf(if x == 0.0 { 4.0 } else { digits });
    (x * scale).round() / scale
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
    let lives = m.lived();
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

/// Whether the criteria hold, for a terminal.
pub(crate) fn criteria_table(criteria: &[Criterion]) -> String {
    let mut table = Table::new();
    table.load_style(TABLE_STYLE).set_header(["criterion", "agents", "target", "measured", "unit", ""]);
    table.add_rows(criteria.iter().map(criterion_cells));
    for index in [1, 2, 3] {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

pub(crate) fn criterion_cells(criterion: &Criterion) -> Vec<String> {
    vec![
        criterion.name.clone(),
        criterion.agent_count.map_or("-".to_owned(), |count| count.to_string()),
        format!("{} {}", bound_sign(criterion.bound), criterion.target),
        criterion.measured.map_or("not measured".to_owned(), |value| format!("{value:.2}")),
        criterion.unit.clone(),
        if criterion.passed { "holds" } else { "missed" }.to_owned(),
    ]
}

fn bound_sign(bound: Bound) -> &'static str {
    match bound {
        Bound::AtMost => "<=",
        Bound::AtLeast => ">=",
    }
}

/// A criterion that does not hold, in a line.
pub(crate) fn criterion_line(criterion: &Criterion) -> String {
    let Criterion { name, target, bound, unit, .. } = criterion;
    let measured = criterion.measured.map_or("not measured".to_owned(), |value| format!("{value:.2} {unit}"));
    let at = criterion.agent_count.map_or(String::new(), |count| format!(" with {count} at once"));
    format!("missed: {name}: {measured}{at}, should be {} {target}", bound_sign(*bound))
}

#[cfg(test)]
mod tests;
