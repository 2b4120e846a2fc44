//! A chart of lines, as an SVG.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::series::{DashedLineSeries, LineSeries};
use plotters::style::{Color, RGBColor, TextStyle};

use crate::report::html::escaped;

/// Small, so that its text can be read where it is shown on a phone.
const SIZE: (u32, u32) = (560, 420);
/// Stands for the colour of text, which depends on where the plot is seen; replaced when the plot is done.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_WRITTEN: &str = "#010203";
const FONT: &str = "system-ui, sans-serif";
const TEXT_SIZE: i32 = 15;

/// Colours that those with colour-blindness can tell apart (Okabe and Ito, "Color universal design", 2008), and that
/// are seen on white and on black.
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

/// How values are laid out along an axis.
#[derive(Debug, Clone)]
pub(super) enum Axis {
    /// Agent counts, as powers: with a tick for each.
    Counts(Vec<usize>),
    /// Powers of ten.
    Log,
    /// Evenly, from 0 on.
    Linear,
}

/// One line, with its points.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Which of [`COLOURS`].
    pub(super) colour: usize,
    pub(super) style: Style,
    /// Intervals: where, from, to.
    pub(super) intervals: Vec<(f64, [f64; 2])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// What was measured: with a mark at each point.
    Marked,
    /// Samples so many that marks would hide the line.
    Plain,
    /// What was worked out, not measured.
    Dashed,
}

impl Line {
    pub(super) fn new(name: impl Into<String>, colour: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, colour, style: Style::Marked, intervals: Vec::new() }
    }

    pub(super) fn styled(mut self, style: Style) -> Self {
        self.style = style;
        self
    }
}

/// A stack of bars for one agent count: the parts, from the bottom up.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    pub(super) label: String,
    pub(super) parts: Vec<f64>,
}

#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_title: String,
    pub(super) y_title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

impl Axis {
    /// Where a value is; nowhere, if the axis has no place for it.
    fn place(&self, value: f64) -> Option<f64> {
        match self {
            Self::Linear => value.is_finite().then_some(value),
            Self::Counts(_) | Self::Log => (value > 0.0 && value.is_finite()).then(|| value.log10()),
        }
    }

    fn scale<'a>(&self, places: impl Iterator<Item = f64>, label: &'a dyn Fn(f64) -> String) -> Scale<'a> {
        let (range, ticks) = self.range(places);
        Scale { range, ticks, label }
    }

    /// The range that shows all places, and the places of the ticks.
    fn range(&self, places: impl Iterator<Item = f64>) -> (Range<f64>, Vec<f64>) {
        let (low, high) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        match self {
            Self::Linear => {
                let high = if high > 0.0 { high * 1.08 } else { 1.0 };
                let step = even_step(high / 6.0);
                (0.0..high, (0..).map(|n| f64::from(n) * step).take_while(|at| *at <= high).collect())
            }
            Self::Counts(counts) => {
                let room = ((high - low) * 0.05).max(0.1);
                (low - room..high + room, counts.iter().map(|count| (*count as f64).log10()).collect())
            }
            Self::Log => {
                let room = ((high - low) * 0.05).max(0.05);
                let (low, high) = (low - room, high + room);
                (low..high, log_ticks(low, high))
            }
        }
    }

    fn label(&self, place: f64) -> String {
        let value = match self {
            Self::Linear => place,
            Self::Counts(_) | Self::Log => 10f64.powf(place),
        };
        let rounded = (value * 1e4).round() / 1e4;
        if rounded >= 10.0 { format!("{}", rounded.round()) } else { format!("{rounded}") }
    }
}

/// A step of 1, 2 or 5 times a power of ten, at least `least`.
fn even_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= least).unwrap_or(power)
}

/// 1, 2 and 5 times each power of ten where there are few powers, else the powers alone.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let each: &[f64] = if high - low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = low.floor() as i32..=high.ceil() as i32;
    let ticks = powers.flat_map(|power| each.iter().map(move |n| n.log10() + f64::from(power)));
    ticks.filter(|at| (low..=high).contains(at)).collect()
}

/// An axis with its range, its ticks and how they are labelled.
struct Scale<'a> {
    range: Range<f64>,
    ticks: Vec<f64>,
    label: &'a dyn Fn(f64) -> String,
}

impl Ranged for Scale<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Scale<'_> {
    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

type Canvas<'a, 'b, 'c> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Scale<'c>, Scale<'c>>>;

impl Chart {
    /// Draws it.
    pub(super) fn svg(&self) -> Result<String> {
        let placed: Vec<Line> = self.lines.iter().map(|line| self.placed(line)).collect();
        let points = || placed.iter().flat_map(|line| &line.points);
        let ends = placed.iter().flat_map(|line| &line.intervals).flat_map(|(_, interval)| interval).copied();
        let (label_x, label_y) = (|x| self.x.label(x), |y| self.y.label(y));
        let x = self.x.scale(points().map(|(x, _)| *x), &label_x);
        let y = self.y.scale(points().map(|(_, y)| *y).chain(ends), &label_y);
        let legend: Vec<Key<'_>> = placed
            .iter()
            .map(|line| Key { name: &line.name, colour: line.colour, style: line.style })
            .collect();
        drawn(&self.title, &legend, |area| {
            let mut chart = builder(area).build_cartesian_2d(x, y)?;
            mesh(&mut chart, &self.x_title, &self.y_title)?;
            placed.iter().try_for_each(|line| draw_line(&mut chart, line))
        })
    }

    fn placed(&self, line: &Line) -> Line {
        let place = |(x, y): &(f64, f64)| Some((self.x.place(*x)?, self.y.place(*y)?));
        let interval = |(x, [low, high]): &(f64, [f64; 2])| {
            Some((self.x.place(*x)?, [self.y.place(*low)?, self.y.place(*high)?]))
        };
        Line {
            points: line.points.iter().filter_map(place).collect(),
            intervals: line.intervals.iter().filter_map(interval).collect(),
            ..line.clone()
        }
    }
}

/// Draws stacks of bars side by side, with the names of their parts.
pub(super) fn stacks_svg(
    title: &str,
    x_title: &str,
    y_title: &str,
    names: &[&str],
    stacks: &[Stack],
) -> Result<String> {
    let highest = stacks.iter().map(|stack| stack.parts.iter().sum::<f64>());
    let label_y = |y| Axis::Linear.label(y);
    let y = Axis::Linear.scale(highest, &label_y);
    let places: Vec<f64> = (0..stacks.len()).map(|n| n as f64).collect();
    let label_x =
        |x: f64| stacks.get(x.round().max(0.0) as usize).map_or(String::new(), |stack| stack.label.clone());
    let range = -0.6..(stacks.len().max(1) as f64 - 0.4);
    let x = Scale { range, ticks: places.clone(), label: &label_x };
    let legend: Vec<Key<'_>> =
        names.iter().enumerate().map(|(colour, name)| Key { name, colour, style: Style::Marked }).collect();
    drawn(title, &legend, |area| {
        let mut chart = builder(area).build_cartesian_2d(x, y)?;
        mesh(&mut chart, x_title, y_title)?;
        for part in 0..names.len() {
            let colour = COLOURS[part % COLOURS.len()];
            let bars = stacks.iter().zip(&places).filter_map(|(stack, x)| {
                let bottom: f64 = stack.parts.iter().take(part).sum();
                let top = bottom + stack.parts.get(part)?;
                Some(Rectangle::new([(x - 0.35, bottom), (x + 0.35, top)], colour.filled()))
            });
            chart.draw_series(bars)?;
        }
        Ok(())
    })
}

type Area<'b> = DrawingArea<SVGBackend<'b>, Shift>;

fn builder<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(6).margin_right(18).x_label_area_size(46).y_label_area_size(62);
    builder
}

fn text(size: i32) -> TextStyle<'static> {
    TextStyle::from((FONT, size)).color(&INK)
}

fn mesh(chart: &mut Canvas<'_, '_, '_>, x_title: &str, y_title: &str) -> Result<()> {
    chart
        .configure_mesh()
        .x_desc(x_title)
        .y_desc(y_title)
        .axis_desc_style(text(TEXT_SIZE))
        .label_style(text(TEXT_SIZE - 1))
        .axis_style(INK.mix(0.6))
        .bold_line_style(INK.mix(0.15))
        .light_line_style(INK.mix(0.0))
        .draw()
        .map_err(|error| anyhow!("a plot: {error}"))
}

fn draw_line(chart: &mut Canvas<'_, '_, '_>, line: &Line) -> Result<()> {
    let colour = COLOURS[line.colour % COLOURS.len()];
    let stroke = colour.stroke_width(2);
    match line.style {
        Style::Dashed => {
            chart.draw_series(DashedLineSeries::new(line.points.iter().copied(), 6, 5, stroke))?
        }
        Style::Marked | Style::Plain => {
            chart.draw_series(LineSeries::new(line.points.iter().copied(), stroke))?
        }
    };
    if line.style == Style::Marked {
        chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
    }
    let bar = |(x, [low, high]): &(f64, [f64; 2])| PathElement::new([(*x, *low), (*x, *high)], stroke);
    chart.draw_series(line.intervals.iter().map(bar))?;
    Ok(())
}

/// A line of a legend.
struct Key<'a> {
    name: &'a str,
    colour: usize,
    style: Style,
}

const ROW_HEIGHT: i32 = 21;
const KEY_WIDTH: i32 = 22;

/// Where the keys of a legend are, beneath the title and above the plot: as many in a row as there is room for.
fn places(legend: &[Key<'_>]) -> Vec<(i32, i32)> {
    let (mut x, mut y) = (12, ROW_HEIGHT + 22);
    let place = |key: &Key<'_>| {
        // There are no fonts here to ask: letters are this wide on average.
        let width = KEY_WIDTH + 20 + key.name.chars().count() as i32 * TEXT_SIZE * 13 / 25;
        if x > 12 && x + width > SIZE.0 as i32 {
            (x, y) = (12, y + ROW_HEIGHT);
        }
        let at = (x, y);
        x += width;
        at
    };
    legend.iter().map(place).collect()
}

fn draw_legend(area: &Area<'_>, legend: &[Key<'_>], places: &[(i32, i32)]) -> Result<()> {
    for (key, (x, y)) in legend.iter().zip(places) {
        let colour = COLOURS[key.colour % COLOURS.len()];
        let parts: &[(i32, i32)] = if key.style == Style::Dashed { &[(0, 7), (11, 18)] } else { &[(0, 18)] };
        for (from, to) in parts {
            area.draw(&PathElement::new([(x + from, *y), (x + to, *y)], colour.stroke_width(4)))?;
        }
        area.draw(&Text::new(key.name.to_owned(), (x + KEY_WIDTH, y - TEXT_SIZE / 2), text(TEXT_SIZE - 1)))?;
    }
    Ok(())
}

/// A title, a legend and beneath them what `draw` draws: with a title for those who do not see it, as wide as there is room,
/// in the colours of its surroundings.
fn drawn(title: &str, legend: &[Key<'_>], draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    let places = places(legend);
    let head = places.last().map_or(ROW_HEIGHT + 8, |(_, y)| y + ROW_HEIGHT / 2 + 4);
    let (width, height) = (SIZE.0, SIZE.1 + head.unsigned_abs());
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let (above, below) = area.split_vertically(head);
        above.draw(&Text::new(title.to_owned(), (12, 8), text(TEXT_SIZE + 2)))?;
        draw_legend(&above, legend, &places)?;
        draw(&below)?;
        area.present()?;
    }
    let start = svg.find("<svg").ok_or_else(|| anyhow!("a plot without an svg element"))?;
    let body = svg[start..].find('>').map(|end| &svg[start + end + 1..]).unwrap_or_default();
    let head = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>",
        escaped(title)
    );
    Ok(format!("{head}{}", body.trim_end()).replace(INK_WRITTEN, "currentColor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_where_readers_expect_them() {
        assert_eq!([0.7, 1.0, 3.0, 60.0].map(even_step), [1.0, 1.0, 5.0, 100.0]);
        let labels = |low: f64, high: f64| {
            log_ticks(low, high).into_iter().map(|at| Axis::Log.label(at)).collect::<Vec<_>>()
        };
        assert_eq!(labels(0.0, 1.4), ["1", "2", "5", "10", "20"]);
        assert_eq!(labels(-1.0, 3.0), ["0.1", "1", "10", "100", "1000"]);
    }

    #[test]
    fn what_an_axis_has_no_place_for_is_left_out() {
        let line = Line::new("a <line>", 0, vec![(1.0, 0.0), (5.0, 10.0), (10.0, f64::NAN)]);
        let chart = Chart {
            title: "a & b".to_owned(),
            x_title: "N".to_owned(),
            y_title: "ms".to_owned(),
            x: Axis::Counts(vec![1, 5, 10]),
            y: Axis::Log,
            lines: vec![line.clone()],
        };
        let svg = chart.svg().unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let title = document.descendants().find(|node| node.has_tag_name("title")).unwrap();
        assert_eq!(title.text(), Some("a & b"));
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("circle")).count(), 1);
        assert!(svg.contains("a &lt;line&gt;") && svg.contains("currentColor") && !svg.contains(INK_WRITTEN));
        let empty = Chart { lines: Vec::new(), ..chart };
        roxmltree::Document::parse(&empty.svg().unwrap()).unwrap();
    }

    #[test]
    fn stacks_stand_on_each_other() {
        let stacks = [Stack { label: "1".to_owned(), parts: vec![1.0, 2.0] }];
        let svg = stacks_svg("t", "x", "y", &["below", "above"], &stacks).unwrap();
        roxmltree::Document::parse(&svg).unwrap();
        assert!(svg.contains("below") && svg.contains("above"));
        roxmltree::Document::parse(&stacks_svg("t", "x", "y", &[], &[]).unwrap()).unwrap();
    }
}
