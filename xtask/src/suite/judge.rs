//! Known failures, and what they make of the results of a group.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::cases::{Cases, Outcome};

/// The file expected.toml: cases that pass natively and fail in a sandbox.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ExpectedFile {
    #[serde(default)]
    known: Vec<KnownEntry>,
}

/// Failures with one cause.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownEntry {
    reason: String,
    /// The cases may pass, too: they depend on time, or on what the native side saw.
    #[serde(default)]
    sometimes: bool,
    cases: Vec<String>,
}

/// The known failures of a suite.
#[derive(Default)]
pub struct Known {
    /// By case: does it fail only sometimes?
    sometimes: BTreeMap<String, bool>,
}

impl Known {
    /// Reads expected.toml.
    ///
    /// # Errors
    ///
    /// The file can not be read or understood, an entry has no reason, or a case is there twice.
    pub fn read(path: &Path) -> anyhow::Result<Known> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Known::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Known> {
        let file: ExpectedFile = toml::from_str(text)?;
        let mut known = Known::default();
        for entry in file.known {
            ensure!(!entry.reason.trim().is_empty(), "an entry has no reason");
            for case in entry.cases {
                let twice = known.sometimes.insert(case.clone(), entry.sometimes).is_some();
                ensure!(!twice, "{case} is there twice");
            }
        }
        Ok(known)
    }

    /// Tells whether a case may fail.
    pub fn contains(&self, case: &str) -> bool {
        self.sometimes.contains_key(case)
    }
}

/// What became of a group.
#[derive(Debug, PartialEq, Eq)]
pub struct GroupVerdict {
    pub name: String,
    /// Cases that passed natively.
    pub native: usize,
    /// Of these, those that passed in the sandbox.
    pub sandbox: usize,
    /// Of those, the ones that needed a second try.
    pub second_tries: usize,
    /// Failures that were expected.
    pub known: usize,
    /// Failures that were not, with what was said about them.
    pub unexpected_failures: Vec<(String, String)>,
    /// Cases that passed, and should have failed.
    pub unexpected_passes: Vec<String>,
}

/// Compares what passed natively with what passed in the sandbox.
pub fn judge(
    name: &str,
    native: &Cases,
    sandbox: &Cases,
    known: &Known,
    second_tries: usize,
) -> GroupVerdict {
    let mut verdict = GroupVerdict {
        name: name.to_owned(),
        native: 0,
        sandbox: 0,
        second_tries,
        known: 0,
        unexpected_failures: Vec::new(),
        unexpected_passes: Vec::new(),
    };
    for case in native.passed() {
        verdict.native += 1;
        let text = match sandbox.outcome(case) {
            Some(Outcome::Passed) => {
                verdict.sandbox += 1;
                if known.sometimes.get(case) == Some(&false) {
                    verdict.unexpected_passes.push(case.to_owned());
                }
                continue;
            }
            Some(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
            Some(Outcome::Failed(text)) => text.clone(),
            Some(Outcome::Started) => "it did not end".to_owned(),
            None => "it did not begin".to_owned(),
        };
        if known.contains(case) {
            verdict.known += 1;
        } else {
            verdict.unexpected_failures.push((case.to_owned(), text));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(list: &[(&str, Outcome)]) -> Cases {
        let mut cases = Cases::default();
        list.iter().for_each(|(case, outcome)| cases.note(case, outcome.clone()));
        cases
    }

    #[test]
    fn only_what_passes_natively_counts_and_both_surprises_are_named() {
        let known = Known::parse(
            "[[known]]\nreason = 'no device'\ncases = ['known', 'better']\n\
             [[known]]\nreason = 'a clock'\nsometimes = true\ncases = ['clock']\n",
        )
        .unwrap();
        let failed = Outcome::Failed("why".to_owned());
        let native = cases(&[
            ("good", Outcome::Passed),
            ("known", Outcome::Passed),
            ("better", Outcome::Passed),
            ("clock", Outcome::Passed),
            ("bad", Outcome::Passed),
            ("hung", Outcome::Passed),
            ("never", Outcome::Passed),
            ("broken", failed.clone()),
        ]);
        let sandbox = cases(&[
            ("good", Outcome::Passed),
            ("known", failed.clone()),
            ("better", Outcome::Passed),
            ("clock", Outcome::Passed),
            ("bad", failed.clone()),
            ("hung", Outcome::Started),
            ("broken", failed),
        ]);
        let verdict = judge("group", &native, &sandbox, &known, 0);
        assert_eq!((verdict.native, verdict.sandbox, verdict.known), (7, 3, 1));
        assert_eq!(verdict.unexpected_passes, ["better"]);
        let said = |case: &str, text: &str| (case.to_owned(), text.to_owned());
        assert_eq!(
            verdict.unexpected_failures,
            [said("bad", "why"), said("hung", "it did not end"), said("never", "it did not begin")]
        );
    }

    #[test]
    fn a_known_failure_needs_a_reason_and_one_place() {
        assert!(Known::parse("[[known]]\nreason = ' '\ncases = ['a']\n").is_err());
        assert!(Known::parse("[[known]]\nreason = 'x'\ncases = ['a', 'a']\n").is_err());
        assert!(Known::parse("[[known]]\nreason = 'x'\ncases = ['a']\ncase = 1\n").is_err());
        assert!(Known::parse("").is_ok());
    }
}
