//! `report.html`: one file that needs no other, and no scripts.

use std::fmt::{Result, Write};

use super::document::{Block, Column, Document, Table, parts};

const STYLE: &str = include_str!("report.css");

/// Renders a report.
pub(super) fn render(document: &Document) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_document(&mut text, document);
    text
}

fn write_document(text: &mut String, document: &Document) -> Result {
    let title = escaped(&document.title);
    writeln!(
        text,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>"
    )?;
    document.blocks.iter().try_for_each(|block| write_block(text, block))?;
    writeln!(text, "</main>\n</body>\n</html>")
}

fn write_block(text: &mut String, block: &Block) -> Result {
    match block {
        Block::Heading(heading) => writeln!(text, "<h2>{}</h2>", inline(heading)),
        Block::Paragraph(paragraph) => writeln!(text, "<p>{}</p>", inline(paragraph)),
        Block::List(items) => {
            writeln!(text, "<ul>")?;
            items.iter().try_for_each(|item| writeln!(text, "<li>{}</li>", inline(item)))?;
            writeln!(text, "</ul>")
        }
        Block::Table(table) => write_table(text, table),
        Block::Plot(plot) => {
            let (svg, caption) = (&plot.svg, inline(&plot.caption));
            writeln!(text, "<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>")
        }
    }
}

fn write_table(text: &mut String, table: &Table) -> Result {
    let class = |column: &Column| if column.is_number { " class=\"number\"" } else { "" };
    writeln!(text, "<div class=\"table\"><table>\n<thead><tr>")?;
    for column in &table.columns {
        write!(text, "<th{}>{}</th>", class(column), inline(&column.name))?;
    }
    writeln!(text, "</tr></thead>\n<tbody>")?;
    for row in &table.rows {
        write!(text, "<tr>")?;
        for (column, cell) in table.columns.iter().zip(row) {
            write!(text, "<td{}>{}</td>", class(column), inline(cell))?;
        }
        writeln!(text, "</tr>")?;
    }
    writeln!(text, "</tbody>\n</table></div>")
}

fn inline(text: &str) -> String {
    let part = |(is_code, part): (bool, &str)| match is_code {
        true => format!("<code>{}</code>", escaped(part)),
        false => escaped(part),
    };
    parts(text).map(part).collect()
}

/// Plain text as it may stand between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '&' => result.push_str("&amp;"),
            '"' => result.push_str("&quot;"),
            '\'' => result.push_str("&#39;"),
            c => result.push(c),
        }
    }
    result
}
