//! CPython's own regression tests (package libpython3.11-testsuite), by module.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::cases::{Cases, Outcome};
use super::{Group, Selection, Side, Suite, data_directory, limited, luminaguard, output_directory};

const PYTHON: &str = "/usr/bin/python3.11";
const TESTS: &str = "/usr/lib/python3.11/test/test_os.py";
const DRIVER: &str = "run_module.py";

/// The file modules.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModulesFile {
    /// How long a module may take on either side.
    limit_s: u64,
    /// The resources that the tests may use: the option `-u` of `python3 -m test`.
    resources: String,
    left_out: Vec<LeftOut>,
    modules: Vec<Module>,
}

/// Cases that are not run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    /// Of the names of the cases, as the option `-i` of `python3 -m test` takes it.
    pattern: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    name: String,
    #[serde(default)]
    slow: bool,
    /// In place of those of all modules.
    resources: Option<String>,
}

/// The suite `cpython`.
pub struct Cpython {
    file: ModulesFile,
    luminaguard: PathBuf,
    output: PathBuf,
}

/// A line that the driver writes.
#[derive(Deserialize)]
struct Line {
    case: String,
    outcome: String,
    #[serde(default)]
    text: String,
}

impl Cpython {
    /// Reads modules.toml and looks for what is needed.
    ///
    /// # Errors
    ///
    /// The file is wrong, or CPython's tests or the release build are missing.
    pub fn new() -> anyhow::Result<Cpython> {
        if !Path::new(TESTS).exists() {
            bail!("{TESTS} is missing: install the package libpython3.11-testsuite");
        }
        let path = data_directory(Self::NAME).join("modules.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let file: ModulesFile = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        ensure!(
            file.left_out.iter().all(|entry| !entry.reason.trim().is_empty()),
            "cases are left out without a reason"
        );
        Ok(Cpython { file, luminaguard: luminaguard()?, output: output_directory(Self::NAME)? })
    }

    /// The words after the name of the driver, but for the file of results.
    fn arguments(&self, module: &str, selection: Selection<'_>) -> Vec<String> {
        let own = self.file.modules.iter().find(|entry| entry.name == module);
        let resources = own.and_then(|entry| entry.resources.as_ref()).unwrap_or(&self.file.resources);
        let mut words: Vec<String> =
            [module, "-v", "-u", resources].iter().map(|word| (*word).to_owned()).collect();
        for entry in &self.file.left_out {
            words.extend(["-i".to_owned(), entry.pattern.clone()]);
        }
        if let Selection::Only(cases) = selection {
            for case in cases {
                words.extend(["-m".to_owned(), case.clone()]);
            }
        }
        words
    }

    fn native(&self, results: &Path, scratch: &Path) -> Command {
        let mut command = Command::new(PYTHON);
        command
            .arg("-I")
            .arg(data_directory(Self::NAME).join(DRIVER))
            .arg(results)
            .current_dir(scratch)
            .env_clear()
            .envs([
                ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
                ("LC_CTYPE", "C.UTF-8"),
            ])
            .envs([("HOME", scratch), ("TMPDIR", scratch)]);
        command
    }

    fn sandbox(&self, results: &Path) -> anyhow::Result<Command> {
        let directory = results.parent().context("results lie in a directory")?;
        let name = results.file_name().context("results have a name")?;
        let mount = |source: &Path, rest: &str| {
            let mut word = OsString::from(source);
            word.push(rest);
            word
        };
        let mut command = Command::new(&self.luminaguard);
        command
            .args([
                "run",
                "--memory",
                "2G",
                "--workdir",
                "/tmp",
                "--env",
                "HOME=/tmp",
                "--env",
                "TMPDIR=/tmp",
            ])
            .arg("--timeout")
            .arg(format!("{}s", self.file.limit_s))
            .arg("--mount")
            .arg(mount(&data_directory(Self::NAME), ":/suite:ro"))
            .arg("--mount")
            .arg(mount(directory, ":/results:rw"))
            .args(["--", PYTHON, "-I"])
            .arg(Path::new("/suite").join(DRIVER))
            .arg(Path::new("/results").join(name));
        Ok(command)
    }
}

impl Suite for Cpython {
    const NAME: &'static str = "cpython";
    const TARGET_PERCENT: f64 = 97.0;

    fn groups(&self) -> Vec<Group> {
        let group = |module: &Module| Group { name: module.name.clone(), slow: module.slow };
        self.file.modules.iter().map(group).collect()
    }

    fn run(&self, side: Side, group: &Group, selection: Selection<'_>) -> anyhow::Result<Cases> {
        let scratch = tempfile::tempdir().context("making a scratch directory")?;
        let again = if matches!(selection, Selection::Only(_)) { ".again" } else { "" };
        let stem = format!("{}.{}{again}", group.name, side.word());
        let results = self.output.join(format!("{stem}.jsonl"));
        std::fs::write(&results, "").with_context(|| format!("creating {}", results.display()))?;
        let limit = Duration::from_secs(self.file.limit_s);
        // The sandbox has the limit itself; beyond it, the vmm hangs.
        let (mut command, limit) = match side {
            Side::Native => (self.native(&results, scratch.path()), limit),
            Side::Sandbox => (self.sandbox(&results)?, limit + Duration::from_secs(20)),
        };
        command.args(self.arguments(&group.name, selection));
        limited::run(&mut command, &self.output.join(format!("{stem}.log")), limit)?;
        parse(&std::fs::read_to_string(&results)?)
    }
}

/// Reads what the driver wrote. A last line that was cut off, by the end of the sandbox, says nothing.
fn parse(text: &str) -> anyhow::Result<Cases> {
    let mut cases = Cases::default();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let line: Line = serde_json::from_str(line).with_context(|| format!("a line of results: {line}"))?;
        let outcome = match line.outcome.as_str() {
            "started" => Outcome::Started,
            "passed" => Outcome::Passed,
            "skipped" => Outcome::Skipped(line.text),
            "failed" => Outcome::Failed(line.text),
            other => bail!("an unknown outcome: {other}"),
        };
        cases.note(&line.case, outcome);
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_results_become_cases_and_a_cut_line_is_passed_over() {
        let text = "{\"case\": \"a\", \"outcome\": \"started\"}\n{\"case\": \"a\", \"outcome\": \"passed\"}\n\
                    {\"case\": \"b\", \"outcome\": \"skipped\", \"text\": \"why\"}\n\
                    {\"case\": \"c\", \"outcome\": \"started\"}\n{\"case\": \"c\", \"outc";
        let cases = parse(text).unwrap();
        assert_eq!(cases.outcome("a"), Some(&Outcome::Passed));
        assert_eq!(cases.outcome("b"), Some(&Outcome::Skipped("why".to_owned())));
        assert_eq!(cases.outcome("c"), Some(&Outcome::Started));
        assert!(parse("{\"case\": \"a\", \"outcome\": \"lost\"}\n").is_err());
        assert!(parse("nonsense\n").is_err());
    }
}
