//! `cargo xtask suite`: test suites that others wrote, natively and in sandboxes, compared case by case.
//!
//! A [`Suite`] knows its groups of cases and how to run one of them on one [`Side`]. The rest is the same for all:
//!
//! ```text
//! run natively ──> run in a sandbox ──> try again what failed ──> judge against expected.toml ──> table
//! ```
//!
//! Only cases that pass natively count. One that fails in the sandbox must be among the known failures, and a known
//! failure must fail: so the file says what is true. Exit status: 0 if so and enough passes, 1 if not.

mod cases;
mod cpython;
mod judge;
mod limited;
mod report;
mod stress_ng;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use cases::{Cases, Outcome};
use judge::{GroupVerdict, Known};

/// Where cases run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Native,
    Sandbox,
}

impl Side {
    /// The word for it in names of files.
    fn word(self) -> &'static str {
        match self {
            Side::Native => "native",
            Side::Sandbox => "sandbox",
        }
    }
}

/// Which cases of a group to run.
#[derive(Clone, Copy)]
pub enum Selection<'a> {
    All,
    Only(&'a [String]),
}

/// Cases that run together and are shown in one row.
pub struct Group {
    pub name: String,
    /// Left out by `--quick`.
    pub slow: bool,
}

/// A suite of tests that others wrote.
pub trait Suite {
    /// Its name on the command line, and of its folder in tests/suites.
    const NAME: &'static str;
    /// The least part of the cases that pass natively and must pass in a sandbox.
    const TARGET_PERCENT: f64;

    /// Returns all groups, in the order of the table.
    fn groups(&self) -> Vec<Group>;

    /// Runs cases of a group. A case that a hang or a crash kept from running is missing, or [`Outcome::Started`].
    fn run(&self, side: Side, group: &Group, selection: Selection<'_>) -> anyhow::Result<Cases>;
}

/// What the command line says.
#[derive(Default)]
struct Options {
    groups: Vec<String>,
    quick: bool,
    json: Option<PathBuf>,
}

/// Failures of a group that are worth a second try; with more, something is broken, and it would only take time.
const MOST_SECOND_TRIES: usize = 12;

/// Runs the verb: `suite NAME [GROUP...] [--quick] [--json FILE]`.
pub fn run(words: &[&str]) -> anyhow::Result<ExitCode> {
    let Some((name, words)) = words.split_first() else { bail!("which suite? cpython or stress-ng") };
    let options = options(words)?;
    match *name {
        cpython::Cpython::NAME => run_suite(&cpython::Cpython::new()?, &options),
        stress_ng::StressNg::NAME => run_suite(&stress_ng::StressNg::new()?, &options),
        other => bail!("there is no suite {other}: cpython or stress-ng"),
    }
}

fn options(words: &[&str]) -> anyhow::Result<Options> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => options.quick = true,
            "--json" => options.json = Some(words.next().context("--json needs a file")?.into()),
            option if option.starts_with('-') => bail!("unknown option {option}"),
            group => options.groups.push(group.to_owned()),
        }
    }
    Ok(options)
}

fn run_suite<S: Suite>(suite: &S, options: &Options) -> anyhow::Result<ExitCode> {
    let known = Known::read(&data_directory(S::NAME).join("expected.toml"))?;
    let mut groups = suite.groups();
    if let Some(unknown) = options.groups.iter().find(|name| groups.iter().all(|group| group.name != **name))
    {
        bail!("the suite {} has no group {unknown}", S::NAME);
    }
    groups.retain(|group| match options.groups.as_slice() {
        [] => !(options.quick && group.slow),
        names => names.contains(&group.name),
    });
    report::heading();
    let mut verdicts = Vec::new();
    for group in &groups {
        let verdict = run_group(suite, group, &known).with_context(|| format!("running {}", group.name))?;
        report::row(&verdict);
        verdicts.push(verdict);
    }
    let good = report::conclusion(&verdicts, S::TARGET_PERCENT);
    if let Some(path) = &options.json {
        report::write_json(path, S::NAME, &verdicts)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a group on both sides, gives failures that nobody expects a second try, and judges.
fn run_group<S: Suite>(suite: &S, group: &Group, known: &Known) -> anyhow::Result<GroupVerdict> {
    let native = suite.run(Side::Native, group, Selection::All)?;
    let mut sandbox = suite.run(Side::Sandbox, group, Selection::All)?;
    let failures: Vec<String> = native
        .passed()
        .filter(|case| sandbox.outcome(case) != Some(&Outcome::Passed) && !known.contains(case))
        .map(str::to_owned)
        .collect();
    let mut second_tries = 0;
    if (1..=MOST_SECOND_TRIES).contains(&failures.len()) {
        let again = suite.run(Side::Sandbox, group, Selection::Only(&failures))?;
        for case in failures.iter().filter(|case| again.outcome(case) == Some(&Outcome::Passed)) {
            sandbox.set(case, Outcome::Passed);
            second_tries += 1;
        }
    }
    Ok(judge::judge(&group.name, &native, &sandbox, known, second_tries))
}

/// Where the data of a suite lies.
fn data_directory(suite: &str) -> PathBuf {
    crate::workspace_root().join("tests/suites").join(suite)
}

/// Makes and returns the directory for what runs of a suite leave: results and the output of the programs.
fn output_directory(suite: &str) -> anyhow::Result<PathBuf> {
    let path = crate::target_directory()?.join("suites").join(suite);
    std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    Ok(path)
}

/// Returns the release build of `luminaguard`, which the suites run.
fn luminaguard() -> anyhow::Result<PathBuf> {
    let path = crate::target_directory()?.join("release/luminaguard");
    if !path.exists() {
        bail!("{} is missing: run cargo build --release", path.display());
    }
    Ok(path)
}
