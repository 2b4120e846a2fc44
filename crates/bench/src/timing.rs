//! The table of times that every measurement shows.

use std::fmt;

use comfy_table::{CellAlignment, Table};

use crate::floors::{MeasuredFloors, Ratio};
use crate::report::TABLE_STYLE;
use crate::stats::Summary;

/// Rows of percentiles, in milliseconds.
pub(crate) struct Timings {
    table: Table,
}

impl Timings {
    pub(crate) fn new() -> Self {
        let mut table = Table::new();
        table.load_style(TABLE_STYLE);
        table.set_header(["ms", "min", "p50", "p90", "p99", "max", "p50 / floors", "p99 / floors"]);
        Self { table }
    }

    pub(crate) fn row(&mut self, name: &str, summary: Option<Summary>) {
        self.row_with(name, summary, None);
    }

    pub(crate) fn row_with(&mut self, name: &str, summary: Option<Summary>, ratio: Option<Ratio>) {
        let Some(s) = summary else { return };
        let mut cells = vec![name.to_owned()];
        cells.extend([s.min, s.p50, s.p90, s.p99, s.max].map(number));
        if let Some(Ratio { p50, p99 }) = ratio {
            cells.extend([p50, p99].map(|times| format!("{times:.2}")));
        }
        self.table.add_row(cells);
    }

    pub(crate) fn floors(&mut self, floors: &MeasuredFloors) {
        self.row("floor: a bare VM", floors.kvm_ms);
        self.row("floor: a process", floors.process_ms);
    }
}

/// Three digits that say something, down to a microsecond.
fn number(ms: f64) -> String {
    let digits = match ms {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{ms:.digits$}")
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = self.table.clone();
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        // Names that are indented lose nothing; the padding at the end of lines does.
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let cases = [(0.0024, "0.002"), (0.91, "0.910"), (1.234, "1.23"), (45.67, "45.7"), (1234.5, "1234")];
        for (ms, text) in cases {
            assert_eq!(number(ms), text);
        }
    }

    #[test]
    fn what_was_not_measured_has_no_row() {
        let mut timings = Timings::new();
        timings.row("nothing", None);
        timings.row_with("total", Summary::of(&[1.0]), Some(Ratio { p50: 1.5, p99: 2.0 }));
        let text = timings.to_string();
        assert!(!text.contains("nothing") && text.contains("1.50"), "{text}");
    }
}
