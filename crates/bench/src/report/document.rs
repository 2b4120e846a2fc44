//! A report as it is before it has a format: what `markdown.rs` and `html.rs` render.

/// A whole report.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) title: String,
    pub(super) blocks: Vec<Block>,
}

/// A piece of a report. Text between backticks is code; everything else is plain text and may come from anywhere.
#[derive(Debug)]
pub(super) enum Block {
    Heading(String),
    Paragraph(String),
    List(Vec<String>),
    Table(Table),
    Plot(Plot),
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<String>>,
}

/// A column; numbers stand at the right.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) is_number: bool,
}

/// A picture.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// Of its file, without the ending.
    pub(super) name: &'static str,
    pub(super) title: String,
    /// How to read it, in a sentence.
    pub(super) caption: String,
    /// An `svg` element.
    pub(super) svg: String,
}

impl Table {
    /// Names of columns; those that begin with `#` are of numbers.
    pub(super) fn new(columns: &[&str]) -> Self {
        let column = |name: &&str| match name.strip_prefix('#') {
            Some(name) => Column { name: name.to_owned(), is_number: true },
            None => Column { name: (*name).to_owned(), is_number: false },
        };
        Self { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(super) fn with_rows(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Block {
        self.rows.extend(rows);
        Block::Table(self)
    }
}

/// A number with so many decimals, or a dash for none.
pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |x| format!("{x:.digits$}"))
}

/// A duration in milliseconds with as many digits as say something.
pub(super) fn short(value: f64) -> String {
    let digits = match value.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// A value with its 95 % interval, if there is one.
pub(super) fn with_interval(value: Option<f64>, interval: Option<&[f64; 2]>) -> String {
    match (value, interval) {
        (None, _) => "-".to_owned(),
        (Some(value), None) => short(value),
        (Some(value), Some([low, high])) => format!("{} [{}, {}]", short(value), short(*low), short(*high)),
    }
}

/// The parts of a text: plain, code, plain, code and so on.
pub(super) fn parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
    text.split('`').enumerate().map(|(place, part)| (place % 2 == 1, part))
}

/// Text from elsewhere, such as an error of an agent, as it may stand in a block: on one line and without backticks.
pub(super) fn foreign(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                ' '
            } else if c == '`' {
                '\''
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        assert_eq!([1234.5, 12.34, 1.234, 0.0123].map(short), ["1234", "12.3", "1.23", "0.012"]);
        assert_eq!(with_interval(Some(1.0), Some(&[0.5, 20.0])), "1.00 [0.50, 20.0]");
        assert_eq!((number(None, 1), with_interval(None, None)), ("-".to_owned(), "-".to_owned()));
    }

    #[test]
    fn foreign_text_is_one_line_without_code() {
        assert_eq!(foreign("a`b\nc\u{1b}[31m"), "a'b c [31m");
        assert_eq!(parts("run `x` now").collect::<Vec<_>>(), [(false, "run "), (true, "x"), (false, " now")]);
    }
}
