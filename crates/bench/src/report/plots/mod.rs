//! The pictures of a report.

mod chart;

use anyhow::Result;

use super::document::Plot;
use crate::schema::{Concurrent, Scaling};
use crate::stats::Summary;
use chart::{Axis, COLOURS, Chart, Line, Stack, Style, stacks_svg};

/// The spawns of each agent count, in milliseconds: all samples.
pub(super) type Spawns = Vec<(usize, Vec<f64>)>;

const AGENTS: &str = "agents at once";
/// So many points make a curve look like one.
const CURVE_POINTS: usize = 60;

/// All plots, in the order of the report.
pub(super) fn all(scaling: &Scaling, spawns: &Spawns) -> Result<Vec<Plot>> {
    let mut plots = vec![latency(scaling)?, throughput(scaling)?, efficiency(scaling)?];
    plots.extend([phases(scaling)?, memory(scaling)?, distribution(spawns)?]);
    Ok(plots)
}

fn over_agents(scaling: &Scaling, title: &str, y_title: &str, y: Axis, lines: Vec<Line>) -> Chart {
    let counts = scaling.test_results.iter().map(|result| result.agent_count).collect();
    Chart {
        title: title.to_owned(),
        x_title: AGENTS.to_owned(),
        y_title: y_title.to_owned(),
        x: Axis::Counts(counts),
        y,
        lines,
    }
}

/// The points of a figure that not every agent count has.
fn points(scaling: &Scaling, of: impl Fn(&Concurrent) -> Option<f64>) -> Vec<(f64, f64)> {
    scaling.test_results.iter().filter_map(|result| Some((result.agent_count as f64, of(result)?))).collect()
}

fn intervals(scaling: &Scaling, name: &str) -> Vec<(f64, [f64; 2])> {
    let one = |result: &Concurrent| Some((result.agent_count as f64, *result.intervals_95.get(name)?));
    scaling.test_results.iter().filter_map(one).collect()
}

/// Agent counts from the least to the most, evenly on a logarithmic axis.
fn curve(scaling: &Scaling, of: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let counts = || scaling.test_results.iter().map(|result| (result.agent_count as f64).ln());
    let (low, high) = (counts().fold(f64::INFINITY, f64::min), counts().fold(0.0, f64::max));
    if low > high {
        return Vec::new();
    }
    let at = |n: usize| (low + (high - low) * n as f64 / CURVE_POINTS as f64).exp();
    (0..=CURVE_POINTS).map(|n| (at(n), of(at(n)))).collect()
}

fn latency(scaling: &Scaling) -> Result<Plot> {
    let figures: [(&str, fn(&Concurrent) -> Option<Summary>, fn(Summary) -> f64); 6] = [
        ("spawn p50", |r| r.spawn_ms, |s| s.p50),
        ("spawn p90", |r| r.spawn_ms, |s| s.p90),
        ("spawn p99", |r| r.spawn_ms, |s| s.p99),
        ("whole life p50", |r| r.agent_ms, |s| s.p50),
        ("whole life p90", |r| r.agent_ms, |s| s.p90),
        ("whole life p99", |r| r.agent_ms, |s| s.p99),
    ];
    let line = |(place, (name, summary, value)): (
        usize,
        (&str, fn(&Concurrent) -> Option<Summary>, fn(Summary) -> f64),
    )| { Line::new(name, place, points(scaling, |result| summary(result).map(value))) };
    let lines = figures.into_iter().enumerate().map(line).collect();
    let title = "How long a spawn and a whole life take";
    Ok(Plot {
        name: "latency",
        title: title.to_owned(),
        caption: "Both axes grow by powers: a line that rises as steeply as the counts do means that agents wait their turn. \
                  The distance of p99 from p50 is how unequal agents fare."
            .to_owned(),
        svg: over_agents(scaling, title, "ms", Axis::Log, lines).svg()?,
    })
}

fn throughput(scaling: &Scaling) -> Result<Plot> {
    let mut measured = Line::new("measured", 0, points(scaling, |result| Some(result.agents_per_second)));
    measured.intervals = intervals(scaling, "agents_per_second");
    let mut lines = vec![measured];
    let single = scaling.test_results.iter().find(|result| result.agent_count == 1);
    if let Some(single) = single {
        let ideal = points(scaling, |result| Some(single.agents_per_second * result.ideal_speedup?));
        lines.push(Line::new("ideal: what the processors allow", 2, ideal).styled(Style::Dashed));
    }
    if let Some(usl) = &scaling.usl {
        lines.push(Line::new("fitted law", 3, curve(scaling, |n| usl.at(n))).styled(Style::Dashed));
    }
    let title = "How many lives a second";
    Ok(Plot {
        name: "throughput",
        title: title.to_owned(),
        caption: "Complete lives per second, with 95 % intervals. Where the line is flat the processors are busy; where it falls, \
                  agents hinder each other."
            .to_owned(),
        svg: over_agents(scaling, title, "lives per second", Axis::Linear, lines).svg()?,
    })
}

fn efficiency(scaling: &Scaling) -> Result<Plot> {
    let mut measured = Line::new("measured", 0, points(scaling, |result| result.efficiency));
    measured.intervals = intervals(scaling, "efficiency");
    let mut lines = vec![measured];
    if let Some(usl) = &scaling.usl {
        let single = scaling.test_results.iter().find(|result| result.agent_count == 1);
        if let Some(single) = single.filter(|single| single.agents_per_second > 0.0) {
            let law = points(scaling, |result| {
                Some(usl.at(result.agent_count as f64) / single.agents_per_second / result.ideal_speedup?)
            });
            lines.push(Line::new("fitted law", 3, law).styled(Style::Dashed));
        }
    }
    let title = "Efficiency: speedup divided by what the machine allows";
    Ok(Plot {
        name: "efficiency",
        title: title.to_owned(),
        caption: "1 is all that the processors give, with 95 % intervals. More than 1 is possible: an agent alone needs more processor \
                  time than one among many."
            .to_owned(),
        svg: over_agents(scaling, title, "share", Axis::Linear, lines).svg()?,
    })
}

fn phases(scaling: &Scaling) -> Result<Plot> {
    let names: Vec<&str> = scaling
        .test_results
        .iter()
        .map(|result| &result.spawn_phases_ms)
        .find(|phases| !phases.is_empty())
        .map_or(Vec::new(), |phases| phases.iter().map(|phase| phase.name).collect());
    // Shares: in milliseconds, most counts would be too small to be seen beside the greatest.
    let stack = |result: &Concurrent| Stack {
        label: result.agent_count.to_string(),
        parts: result.spawn_phases_ms.iter().map(|phase| phase.share * 100.0).collect(),
    };
    let stacks: Vec<Stack> = scaling.test_results.iter().map(stack).collect();
    let title = "What a spawn consists of";
    debug_assert!(names.len() <= COLOURS.len());
    Ok(Plot {
        name: "phases",
        title: title.to_owned(),
        caption: "Shares of the mean spawn; the table has the milliseconds. The parts follow each other and add up to the whole."
            .to_owned(),
        svg: stacks_svg(title, AGENTS, "% of the mean spawn", &names, &stacks)?,
    })
}

fn memory(scaling: &Scaling) -> Result<Plot> {
    let lines = vec![
        Line::new("all, when all are alive", 0, points(scaling, |r| r.resources.memory_mb)),
        Line::new("all, at most", 3, points(scaling, |r| r.resources.memory_peak_mb)),
        Line::new("each, when all are alive", 2, points(scaling, |r| r.resources.memory_per_agent_mb)),
    ];
    let title = "Memory";
    Ok(Plot {
        name: "memory",
        title: title.to_owned(),
        caption: "Sums of PSS: memory that agents share counts once. A line for each agent that falls means that more of it is \
                  shared by more."
            .to_owned(),
        svg: over_agents(scaling, title, "MiB", Axis::Log, lines).svg()?,
    })
}

fn distribution(spawns: &Spawns) -> Result<Plot> {
    let lines = spawns.iter().enumerate().map(|(place, (agents, samples))| {
        let mut sorted = samples.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        // A few hundred points are as good as thousands.
        let step = count.div_ceil(300).max(1);
        let points = (0..count).filter(|n| n % step == 0 || n + 1 == count);
        let points = points.map(|n| (sorted[n], (n + 1) as f64 / count as f64)).collect();
        let style = if place < COLOURS.len() { Style::Plain } else { Style::Dashed };
        Line::new(format!("{agents} at once (n = {count})"), place, points).styled(style)
    });
    let title = "Spawns: how many were faster than so many milliseconds";
    let chart = Chart {
        title: title.to_owned(),
        x_title: "ms".to_owned(),
        y_title: "share of all spawns".to_owned(),
        x: Axis::Log,
        y: Axis::Linear,
        lines: lines.collect(),
    };
    Ok(Plot {
        name: "spawn_cdf",
        title: title.to_owned(),
        caption: "All samples of all timed repetitions. A steep line is a spawn that always takes as long; a long way to the right at \
                  the top is a tail."
            .to_owned(),
        svg: chart.svg()?,
    })
}

/// A plot as a file of its own: it brings its colours along.
pub(super) fn stand_alone(plot: &Plot) -> String {
    const STYLE: &str = "<style>svg { color: #1d2126; background: #ffffff } \
        @media (prefers-color-scheme: dark) { svg { color: #e3e7ec; background: #14171b } }</style>";
    let end_of_title = plot.svg.find("</title>").map_or(0, |at| at + "</title>".len());
    let (head, body) = plot.svg.split_at(end_of_title);
    format!("{head}\n{STYLE}{body}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_scaling;

    fn texts(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        texts.filter_map(|node| Some(node.text()?.trim().to_owned())).collect()
    }

    #[test]
    fn every_plot_is_a_picture_with_its_lines() {
        let spawns = vec![(1, vec![11.0, 12.0]), (5, (0..1000).map(f64::from).collect())];
        let plots = all(&sample_scaling(), &spawns).unwrap();
        assert_eq!(plots.len(), 6);
        for plot in &plots {
            assert!(texts(&plot.svg).contains(&plot.title), "{}", plot.name);
            roxmltree::Document::parse(&stand_alone(plot)).unwrap();
        }
        let named = |name: &str| texts(&plots.iter().find(|plot| plot.name == name).unwrap().svg);
        assert!(
            named("latency").contains(&"spawn p99".to_owned()) && named("latency").contains(&"5".to_owned())
        );
        assert!(named("phases").contains(&"fork in the vmm".to_owned()));
        assert!(named("spawn_cdf").contains(&"5 at once (n = 1000)".to_owned()));
    }

    #[test]
    fn a_run_without_anything_can_be_drawn() {
        let mut scaling = sample_scaling();
        scaling.test_results.truncate(1);
        let result = &mut scaling.test_results[0];
        (result.spawn_ms, result.agent_ms, result.efficiency, result.agents_per_second) =
            (None, None, None, 0.0);
        result.intervals_95.clear();
        result.spawn_phases_ms.clear();
        result.resources = crate::schema::Resources::default();
        all(&scaling, &vec![(1, Vec::new())]).unwrap();
        scaling.test_results.clear();
        all(&scaling, &Vec::new()).unwrap();
    }
}
