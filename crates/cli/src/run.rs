//! `luminaguard run`: one program in a VM that this very process holds, or in a fork of a template.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use lg_control::{Image, Outcome, Report, SandboxSpec, SpecError, Stats, SyscallTrace};
use lg_runtime::TemplateSpec;
use serde::Serialize;

use crate::args::{RunOptions, StatsFormat};
use crate::{complain, fork, template, terminal, vm};

/// Runs the program and answers the exit status.
pub(crate) fn run(options: RunOptions) -> Result<u8> {
    let format = options.stats.unwrap_or(StatsFormat::Text);
    let wants_stats = options.stats.is_some() || options.stats_file.is_some();
    // Made before the program runs: afterwards it would be too late to say that it cannot be.
    let mut stats_file = options.stats_file.as_deref().map(create).transpose()?;
    if options.tty {
        terminal::check()?;
    }
    let report = match &options.template {
        Some(name) => run_in_fork(&template::find(name)?, name == "python", options)?,
        None => {
            let is_in_terminal = options.tty;
            let spec = spec(options);
            spec.validate()?;
            spec.validate_memory(lg_runtime::host_memory_bytes())?;
            if is_in_terminal { fork::run_in_terminal(&spec)? } else { vm::run_here(&spec)? }
        }
    };
    if let Some(message) = report.outcome.failure_message() {
        complain(message);
    }
    if wants_stats {
        let text = match format {
            StatsFormat::Text => text(&report),
            StatsFormat::Json => json(&report)?,
        };
        match &mut stats_file {
            Some(file) => file.write_all(text.as_bytes()).context("cannot write the statistics")?,
            None => std::io::stderr().write_all(text.as_bytes())?,
        }
    }
    Ok(report.outcome.exit_status())
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write the statistics to {}", path.display()))
}

fn spec(options: RunOptions) -> SandboxSpec {
    let spec = SandboxSpec::new(options.command)
        .image(options.image.unwrap_or(Image::Host))
        .syscall_trace(if options.strace { SyscallTrace::Stderr } else { SyscallTrace::Off });
    options.sandbox.apply(if options.tty { with_host_term(spec) } else { spec })
}

/// The spec with the kind of terminal that this process has.
fn with_host_term(spec: SandboxSpec) -> SandboxSpec {
    match std::env::var_os("TERM") {
        Some(kind) => spec.env("TERM", kind),
        None => spec,
    }
}

fn run_in_fork(template: &TemplateSpec, is_python: bool, options: RunOptions) -> Result<Report> {
    if options.command.is_empty() && !is_python {
        return Err(SpecError::NoCommand.into());
    }
    let mut template = template.clone();
    if options.tty {
        template.sandbox = with_host_term(template.sandbox);
    }
    template.sandbox = options.sandbox.apply(template.sandbox);
    let screen = if options.tty { fork::Screen::Terminal } else { fork::Screen::Streams };
    fork::run(&template, &options.command, is_python, screen)
}

#[derive(Serialize)]
struct StatsFile<'a> {
    schema: &'static str,
    outcome: &'a Outcome,
    exit_status: u8,
    #[serde(flatten)]
    stats: &'a Stats,
}

fn json(report: &Report) -> Result<String> {
    let file = StatsFile {
        schema: "luminaguard.stats/1",
        outcome: &report.outcome,
        exit_status: report.outcome.exit_status(),
        stats: &report.stats,
    };
    Ok(lg_control::printable_json(&serde_json::to_string_pretty(&file)?).into_owned() + "\n")
}

/// The statistics for people.
fn text(report: &Report) -> String {
    let Stats { exits, .. } = &report.stats;
    let stats = &report.stats;
    let ms = |ns: u64| format!("{:.2} ms", ns as f64 / 1e6);
    let ended = match &report.outcome {
        Outcome::Exited(code) => format!("exited with status {code}"),
        Outcome::Signaled(signal) => format!("ended by signal {signal}"),
        Outcome::TimedOut => "ended by its deadline".to_owned(),
        Outcome::LimitReached(limit) => format!("ended by its limit of {limit}"),
        Outcome::Killed => "killed".to_owned(),
        Outcome::StartFailed(_) => "did not start".to_owned(),
        Outcome::Failed(_) => "failed".to_owned(),
    };
    let mut lines = vec![
        format!("--- {ended}"),
        format!(
            "times     spawn {}, run {}, clean-up {}, CPU {}",
            ms(stats.spawn_ns),
            ms(stats.wall_ns),
            ms(stats.cleanup_ns),
            ms(stats.cpu_time_ns)
        ),
        format!(
            "memory    {:.1} MiB at most, {} KiB of page tables, {} processes and threads in all",
            stats.peak_memory_bytes as f64 / (1 << 20) as f64,
            stats.page_table_bytes >> 10,
            stats.processes_created
        ),
        format!(
            "exits     {}: {} system calls, {} page faults, {} exceptions, {} interruptions",
            exits.total(),
            exits.syscalls,
            exits.page_faults,
            exits.exceptions,
            exits.interrupts
        ),
    ];
    let walls: Vec<_> = stats.walls.iter().map(|wall| wall.name()).collect();
    lines.push(format!("walls     {}", if walls.is_empty() { "none".to_owned() } else { walls.join(", ") }));
    if stats.polled_syscalls > 0 {
        lines.push(format!("no exit   {} system calls", stats.polled_syscalls));
    }
    if !stats.syscalls.is_empty() {
        lines.push("   calls   errors  system call".to_owned());
    }
    lines.extend(stats.syscalls.iter().map(|call| match call.errors {
        0 => format!("{:>8}           {}", call.count, call.name),
        errors => format!("{:>8} {errors:>8}  {}", call.count, call.name),
    }));
    if !stats.unsupported_syscalls.is_empty() {
        let names = stats.unsupported_syscalls.iter().map(|(name, count)| format!("{name} ({count})"));
        lines.push(format!("not there {}", names.collect::<Vec<_>>().join(", ")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lg_control::{Exits, SyscallCount};

    use super::*;
    use crate::args::{Arguments, Verb};

    fn report() -> Report {
        let call = |name: &str, count, errors| SyscallCount { name: name.to_owned(), count, errors };
        let stats = Stats {
            exits: Exits { syscalls: 596, page_faults: 107, exceptions: 0, interrupts: 3 },
            polled_syscalls: 1200,
            syscalls: vec![call("read", 120, 0), call("newfstatat", 99, 17)],
            unsupported_syscalls: [("rseq".to_owned(), 1)].into(),
            peak_memory_bytes: 12 << 20,
            peak_processes: 1,
            peak_open_files: 7,
            peak_file_bytes: 4096,
            output_bytes: 12,
            page_table_bytes: 64 << 10,
            processes_created: 1,
            cpu_time_ns: 38_000_000,
            spawn_ns: 900_000,
            wall_ns: 41_000_000,
            cleanup_ns: 400_000,
            walls: vec![lg_control::Wall::Namespaces, lg_control::Wall::Seccomp],
        };
        Report { outcome: Outcome::Exited(3), stats }
    }

    #[test]
    fn the_statistics_for_people_read_as_before() {
        insta::assert_snapshot!(text(&report()));
    }

    #[test]
    fn the_statistics_for_programs_have_their_fields() {
        insta::assert_snapshot!(json(&report()).unwrap());
    }

    #[test]
    fn options_become_a_spec() {
        let words = "luminaguard run --memory 64M --timeout 2s --env LANG=C --env X=1 --workdir /tmp --mount /a:/b:rw \
                     --image dir:/srv --hostname box --max-processes 9 --user 5:6 --strace -- prog -x";
        let Verb::Run(options) = Arguments::try_parse_from(words.split_whitespace()).unwrap().verb else {
            panic!("not a run")
        };
        let expected = SandboxSpec::new(["prog", "-x"])
            .memory_bytes(64 << 20)
            .timeout(std::time::Duration::from_secs(2))
            .env("LANG", "C")
            .env("X", "1")
            .workdir("/tmp")
            .mount("/a", "/b", lg_control::Access::ReadWrite)
            .image(Image::Dir("/srv".into()))
            .hostname("box")
            .max_processes(9)
            .user(lg_control::User { uid: 5, gid: 6 })
            .syscall_trace(SyscallTrace::Stderr);
        assert_eq!(spec(options), expected);
    }
}
