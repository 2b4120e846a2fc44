//! How, where and with what limits a run was made.

use super::super::document::{Block, Table, foreign, short};
use super::super::words;
use super::heading;
use crate::schema::Scaling;

/// So many samples make a 99th percentile more than the greatest of them.
const ENOUGH_FOR_P99: usize = 100;

pub(super) fn method(scaling: &Scaling) -> Vec<Block> {
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

pub(super) fn limits(scaling: &Scaling) -> Vec<Block> {
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

pub(super) fn environment(scaling: &Scaling) -> Vec<Block> {
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
