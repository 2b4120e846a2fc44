//! `report.md`.

use std::fmt::{Result, Write};

use super::document::{Block, Column, Document, Table, parts};

/// Renders a report.
pub(super) fn render(document: &Document) -> String {
    let mut text = format!("# {}\n", escaped(&document.title));
    for block in &document.blocks {
        // Writing to a string cannot fail.
        let _ = write_block(&mut text, block);
    }
    text
}

fn write_block(text: &mut String, block: &Block) -> Result {
    match block {
        Block::Heading(heading) => writeln!(text, "\n## {}", inline(heading)),
        Block::Paragraph(paragraph) => writeln!(text, "\n{}", inline(paragraph)),
        Block::List(items) => {
            writeln!(text)?;
            items.iter().try_for_each(|item| writeln!(text, "- {}", inline(item)))
        }
        Block::Table(table) => write_table(text, table),
        Block::Plot(plot) => {
            writeln!(
                text,
                "\n![{}](plots/{}.svg)\n\n{}",
                escaped(&plot.title),
                plot.name,
                inline(&plot.caption)
            )
        }
    }
}

fn write_table(text: &mut String, table: &Table) -> Result {
    let names: Vec<String> = table.columns.iter().map(|column| inline(&column.name)).collect();
    let rule = |column: &Column| if column.is_number { "--:" } else { "---" };
    let rules: Vec<&str> = table.columns.iter().map(rule).collect();
    writeln!(text, "\n| {} |\n|{}|", names.join(" | "), rules.join("|"))?;
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|cell| inline(cell)).collect();
        writeln!(text, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

fn inline(text: &str) -> String {
    let part = |(is_code, part): (bool, &str)| match is_code {
        true => format!("`{}`", part.replace('|', "\\|").replace('\n', " ")),
        false => escaped(part),
    };
    parts(text).map(part).collect()
}

/// Plain text: nothing of it is a table, a link, a tag or emphasis.
fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => result.push(' '),
            '<' => result.push_str("&lt;"),
            '&' => result.push_str("&amp;"),
            '|' | '*' | '_' | '[' | ']' | '\\' | '`' => result.extend(['\\', c]),
            c => result.push(c),
        }
    }
    result
}
