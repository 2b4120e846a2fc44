//! The table on standard output, and the same as JSON.

use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::judge::GroupVerdict;

/// Prints the first line of the table.
pub fn heading() {
    println!(
        "{:<28} {:>7} {:>8} {:>7} {:>6} {:>11}",
        "group", "native", "sandbox", "again", "known", "unexpected"
    );
}

/// Prints a line of the table, and below it what nobody expected.
pub fn row(verdict: &GroupVerdict) {
    line(&verdict.name, verdict);
    for (case, text) in &verdict.unexpected_failures {
        println!("    fails: {case}: {}", last_line(text));
    }
    for case in &verdict.unexpected_passes {
        println!("    passes, and is among the known failures: {case}");
    }
}

fn line(name: &str, verdict: &GroupVerdict) {
    println!(
        "{name:<28} {:>7} {:>8} {:>7} {:>6} {:>11}",
        verdict.native,
        verdict.sandbox,
        verdict.second_tries,
        verdict.known,
        verdict.unexpected_failures.len() + verdict.unexpected_passes.len()
    );
}

/// The line of a traceback that says what happened.
fn last_line(text: &str) -> &str {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("")
}

/// Prints the last lines, and returns whether all is as it must be.
pub fn conclusion(verdicts: &[GroupVerdict], target_percent: f64) -> bool {
    let sum = |count: fn(&GroupVerdict) -> usize| verdicts.iter().map(count).sum::<usize>();
    let (native, sandbox) = (sum(|verdict| verdict.native), sum(|verdict| verdict.sandbox));
    let unexpected = sum(|verdict| verdict.unexpected_failures.len() + verdict.unexpected_passes.len());
    println!(
        "{:<28} {native:>7} {sandbox:>8} {:>7} {:>6} {unexpected:>11}",
        "all",
        sum(|verdict| verdict.second_tries),
        sum(|verdict| verdict.known)
    );
    let percent = percent(sandbox, native);
    println!(
        "{percent:.2} % of the cases that pass natively pass in a sandbox (at least {target_percent} % must)"
    );
    native > 0 && unexpected == 0 && percent >= target_percent
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// Writes what the table says, with the names and the texts of all that was not expected.
///
/// # Errors
///
/// The file can not be written.
pub fn write_json(path: &Path, suite: &str, verdicts: &[GroupVerdict]) -> anyhow::Result<()> {
    let group = |verdict: &GroupVerdict| {
        let failures: Vec<_> = verdict
            .unexpected_failures
            .iter()
            .map(|(case, text)| json!({ "case": case, "text": text }))
            .collect();
        json!({
            "name": verdict.name,
            "native_passed": verdict.native,
            "sandbox_passed": verdict.sandbox,
            "passed_at_second_try": verdict.second_tries,
            "known_failures": verdict.known,
            "unexpected_failures": failures,
            "unexpected_passes": verdict.unexpected_passes,
        })
    };
    let native = verdicts.iter().map(|verdict| verdict.native).sum();
    let sandbox = verdicts.iter().map(|verdict| verdict.sandbox).sum();
    let document = json!({
        "suite": suite,
        "percent": percent(sandbox, native),
        "groups": verdicts.iter().map(group).collect::<Vec<_>>(),
    });
    std::fs::write(path, format!("{document:#}\n")).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(native: usize, sandbox: usize) -> GroupVerdict {
        GroupVerdict {
            name: "group".to_owned(),
            native,
            sandbox,
            second_tries: 0,
            known: native - sandbox,
            unexpected_failures: Vec::new(),
            unexpected_passes: Vec::new(),
        }
    }

    #[test]
    fn too_few_passes_a_surprise_or_nothing_at_all_is_a_failure() {
        assert!(conclusion(&[verdict(100, 97)], 97.0));
        assert!(!conclusion(&[verdict(100, 96)], 97.0));
        assert!(!conclusion(&[], 97.0));
        let surprise = GroupVerdict { unexpected_passes: vec!["case".to_owned()], ..verdict(100, 100) };
        assert!(!conclusion(&[surprise], 97.0));
    }

    #[test]
    fn the_json_document_names_the_failures() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        let failing =
            GroupVerdict { unexpected_failures: vec![("case".into(), "why".into())], ..verdict(4, 3) };
        write_json(&path, "suite", &[failing]).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(document["percent"], 75.0);
        assert_eq!(document["groups"][0]["unexpected_failures"][0]["case"], "case");
    }
}
