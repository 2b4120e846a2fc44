//! The stressors of stress-ng (package stress-ng), by class, each run for a moment with `--verify`.
//!
//! Both sides run as the user *nobody*, so that no stressor can harm the host; those that need more are skipped
//! natively and do not count.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::cases::{Cases, Outcome};
use super::{Group, Selection, Side, Suite, data_directory, limited, luminaguard, output_directory};

const PROGRAM: &str = "/usr/bin/stress-ng";
const NOBODY: u32 = 65534;
/// Exit statuses of stress-ng(1), "EXIT STATUS".
const NO_RESOURCE: i32 = 3;
const NOT_IMPLEMENTED: i32 = 4;

/// The file classes.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassesFile {
    /// How long a stressor works.
    timeout_s: u64,
    /// How long a run may take in all, on either side.
    limit_s: u64,
    /// A stressor belongs to the first class that has it.
    classes: Vec<String>,
    left_out: Vec<LeftOut>,
}

/// Stressors that are not run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    reason: String,
    stressors: Vec<String>,
}

/// A class with the stressors that belong to it.
struct Class {
    name: String,
    stressors: Vec<String>,
}

/// The suite `stress-ng`.
pub struct StressNg {
    file: ClassesFile,
    classes: Vec<Class>,
    luminaguard: PathBuf,
    output: PathBuf,
}

impl StressNg {
    /// Reads classes.toml and asks stress-ng for the stressors of the classes.
    ///
    /// # Errors
    ///
    /// The file is wrong, stress-ng or the release build is missing, or this is not root, who alone can become nobody.
    pub fn new() -> anyhow::Result<StressNg> {
        if !Path::new(PROGRAM).exists() {
            bail!("{PROGRAM} is missing: install the package stress-ng");
        }
        ensure!(rustix::process::geteuid().is_root(), "only root can run stressors as nobody");
        let path = data_directory(Self::NAME).join("classes.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let file: ClassesFile = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let classes = classes(&file)?;
        Ok(StressNg { file, classes, luminaguard: luminaguard()?, output: output_directory(Self::NAME)? })
    }

    fn command(&self, side: Side, stressor: &str, scratch: &Path) -> Command {
        let (mut command, directory) = match side {
            Side::Native => {
                let mut command = Command::new(PROGRAM);
                command.current_dir(scratch).uid(NOBODY).gid(NOBODY);
                (command, scratch)
            }
            Side::Sandbox => {
                let mut command = Command::new(&self.luminaguard);
                command
                    .args(["run", "--memory", "2G", "--workdir", "/tmp"])
                    .args(["--user", &format!("{NOBODY}:{NOBODY}")])
                    .args(["--timeout", &format!("{}s", self.file.limit_s), "--", PROGRAM]);
                (command, Path::new("/tmp"))
            }
        };
        command
            .arg("--temp-path")
            .arg(directory)
            .args(["--verify", "--timeout", &format!("{}s", self.file.timeout_s)])
            .args([&format!("--{stressor}"), "1"]);
        command
    }

    fn run_one(&self, side: Side, stressor: &str) -> anyhow::Result<Outcome> {
        let scratch = tempfile::tempdir().context("making a scratch directory")?;
        std::os::unix::fs::chown(scratch.path(), Some(NOBODY), Some(NOBODY))?;
        let log = self.output.join(format!("{stressor}.{}.log", side.word()));
        // The sandbox has the limit itself; beyond it, the vmm hangs.
        let more = if side == Side::Sandbox { 20 } else { 0 };
        let limit = Duration::from_secs(self.file.limit_s + more);
        let status = limited::run(&mut self.command(side, stressor, scratch.path()), &log, limit)?;
        Ok(outcome(status, &String::from_utf8_lossy(&std::fs::read(&log)?)))
    }
}

impl Suite for StressNg {
    const NAME: &'static str = "stress-ng";
    const TARGET_PERCENT: f64 = 93.0;

    fn groups(&self) -> Vec<Group> {
        self.classes
            .iter()
            .map(|class| Group { name: class.name.clone(), slow: class.name == "os" })
            .collect()
    }

    fn run(&self, side: Side, group: &Group, selection: Selection<'_>) -> anyhow::Result<Cases> {
        let class =
            self.classes.iter().find(|class| class.name == group.name).context("a class of the file")?;
        let stressors = match selection {
            Selection::All => &class.stressors,
            Selection::Only(cases) => cases,
        };
        let mut cases = Cases::default();
        for stressor in stressors {
            cases.set(stressor, self.run_one(side, stressor).with_context(|| format!("running {stressor}"))?);
        }
        Ok(cases)
    }
}

/// Asks stress-ng for the stressors of each class, without those that are left out.
fn classes(file: &ClassesFile) -> anyhow::Result<Vec<Class>> {
    let mut seen = BTreeSet::new();
    for entry in &file.left_out {
        ensure!(!entry.reason.trim().is_empty(), "stressors are left out without a reason");
        seen.extend(entry.stressors.iter().cloned());
    }
    let mut classes = Vec::new();
    for name in &file.classes {
        let mut question = OsString::from(name);
        question.push("?");
        let output =
            Command::new(PROGRAM).arg("--class").arg(question).output().context("starting stress-ng")?;
        let text = String::from_utf8(output.stdout)?;
        let stressors: Vec<String> = stressors(&text, name)
            .with_context(|| format!("stress-ng names no stressors of the class {name}"))?
            .filter(|stressor| seen.insert((*stressor).to_owned()))
            .map(str::to_owned)
            .collect();
        classes.push(Class { name: name.clone(), stressors });
    }
    Ok(classes)
}

/// Reads the answer to `stress-ng --class NAME?`.
fn stressors<'a>(text: &'a str, class: &str) -> Option<impl Iterator<Item = &'a str>> {
    let words = text.lines().find_map(|line| line.strip_prefix(&format!("class '{class}' stressors: ")))?;
    Some(words.split_whitespace())
}

/// What a run of one stressor came to, from its status and its last words.
fn outcome(status: Option<ExitStatus>, log: &str) -> Outcome {
    let line = |words: &[&str]| log.lines().find(|line| words.iter().any(|word| line.contains(word)));
    let skipped = line(&["skipped", "skipping"]);
    match (status.and_then(|status| status.code()), skipped) {
        (Some(0 | NO_RESOURCE | NOT_IMPLEMENTED), Some(reason)) => Outcome::Skipped(reason.to_owned()),
        (Some(0), _) if line(&[" successful run completed"]).is_some() => Outcome::Passed,
        (Some(code), _) => {
            let complaint = line(&[" fail: ", " error: "]).unwrap_or("no complaint");
            Outcome::Failed(format!("exit status {code}: {complaint}"))
        }
        (None, _) => Outcome::Failed("it was killed, at the end of its time or by a signal".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_answer_about_a_class_becomes_its_stressors() {
        let text = "class 'pipe' stressors: fifo pipe\nclass 'vm' stressors: bigheap\n";
        assert_eq!(stressors(text, "vm").unwrap().collect::<Vec<_>>(), ["bigheap"]);
        assert!(stressors(text, "cpu").is_none());
    }

    #[test]
    fn a_stressor_passes_only_if_it_ran_and_says_so() {
        let exit = |code: i32| Some(ExitStatus::from_raw(code << 8));
        let passed = "stress-ng: info:  [1] successful run completed in 1.00s\n";
        assert_eq!(outcome(exit(0), passed), Outcome::Passed);
        assert!(matches!(outcome(exit(0), ""), Outcome::Failed(_)));
        assert!(matches!(
            outcome(exit(0), "stress-ng: info:  [1] rawsock stressor will be skipped\n"),
            Outcome::Skipped(_)
        ));
        let Outcome::Failed(text) = outcome(exit(2), "stress-ng: fail: [2] pipe: wrong byte\n") else {
            panic!()
        };
        assert!(text.contains("wrong byte"), "{text}");
        assert!(matches!(outcome(None, passed), Outcome::Failed(_)));
    }
}
