//! Two binaries, run in turns: whatever else the machine does falls on both alike.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use super::read::Run;
use crate::interrupt::{Interrupted, Interruption, block_on_to_end};
use crate::progress::Progress;

const MAX_ROUNDS: usize = 1000;
/// The verbs whose results can be compared.
const VERBS: [&str; 5] = ["spawn", "fork", "claim", "lives", "scale"];

/// Runs both so often, and answers what they measured: each run is a group of samples. Also whether somebody ended it early.
pub(super) fn run(paths: &[PathBuf; 2], words: &[String], rounds: usize) -> Result<([Run; 2], bool)> {
    ensure!((1..=MAX_ROUNDS).contains(&rounds), "--rounds {rounds}: from 1 to {MAX_ROUNDS} are possible");
    let verb = words.first().map_or("", String::as_str);
    if !VERBS.contains(&verb) {
        bail!(crate::suggest::no_such("verb with results to compare", verb, VERBS));
    }
    for path in paths {
        let metadata = std::fs::metadata(path).with_context(|| format!("cannot run {}", path.display()))?;
        ensure!(metadata.is_file(), "cannot run {}: it is no file", path.display());
    }
    block_on_to_end(run_in_turns(paths, words, rounds))
}

async fn run_in_turns(paths: &[PathBuf; 2], words: &[String], rounds: usize) -> Result<([Run; 2], bool)> {
    let mut interruption = Interruption::new()?;
    let progress = Progress::new(2 * rounds);
    let mut runs = [Run::default(), Run::default()];
    for round in 0..rounds {
        // A B, B A, A B: neither always comes first.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            progress.begin(&format!("round {} of {rounds}: {}", round + 1, paths[side].display()));
            let one = run_once(&paths[side], words);
            tokio::select! {
                biased;
                () = interruption.came() => {
                    let has_both = runs.iter().all(|run| !run.series.is_empty());
                    return if has_both { Ok((runs, true)) } else { Err(Interrupted.into()) };
                }
                run = one => runs[side].merge(run?),
            }
            progress.step();
        }
    }
    Ok((runs, false))
}

async fn run_once(path: &Path, words: &[String]) -> Result<Run> {
    let directory = tempfile::Builder::new().prefix("luminaguard-compare-").tempdir()?;
    let results = directory.path().join("results");
    let option = if words[0] == "scale" { "--out" } else { "--json" };
    let mut command = Command::new(path);
    command.arg("bench").args(words).arg(option).arg(&results);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("cannot run {}", path.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} bench {} failed ({}): {}",
        path.display(),
        words.join(" "),
        output.status,
        said.lines().next_back().unwrap_or("no message")
    );
    Run::read(&results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_run_is_refused() {
        let error = |path: &str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            format!("{:#}", run(&[path.into(), "/bin/true".into()], &words, 1).unwrap_err())
        };
        assert!(error("/nowhere", &["spawn"]).contains("cannot run /nowhere"));
        assert!(error("/bin", &["spawn"]).contains("it is no file"));
        assert!(error("/bin/true", &["spwan"]).contains("did you mean spawn?"));
        assert!(error("/bin/false", &["spawn"]).contains("/bin/false bench spawn failed (exit status: 1)"));
        // It succeeds, and writes nothing.
        assert!(error("/bin/true", &["spawn"]).contains("cannot read"));
    }
}
