//! Cases by name, with what became of them.

use std::collections::BTreeMap;

/// What became of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It began and has not ended.
    Started,
    Passed,
    /// It did not apply, for a reason of its own.
    Skipped(String),
    Failed(String),
}

impl Outcome {
    /// Of the lines about one case that with the highest rank counts.
    fn rank(&self) -> u8 {
        match self {
            Outcome::Started => 0,
            Outcome::Passed => 1,
            Outcome::Skipped(_) => 2,
            Outcome::Failed(_) => 3,
        }
    }
}

/// The cases of a group that began.
#[derive(Default, Debug)]
pub struct Cases(BTreeMap<String, Outcome>);

impl Cases {
    /// Takes note of one more thing about a case: the worst counts.
    pub fn note(&mut self, case: &str, outcome: Outcome) {
        match self.0.get_mut(case) {
            Some(known) if known.rank() < outcome.rank() => *known = outcome,
            Some(_) => {}
            None => self.set(case, outcome),
        }
    }

    /// Replaces what is known about a case.
    pub fn set(&mut self, case: &str, outcome: Outcome) {
        self.0.insert(case.to_owned(), outcome);
    }

    /// Returns what became of a case, or `None` if it never began.
    pub fn outcome(&self, case: &str) -> Option<&Outcome> {
        self.0.get(case)
    }

    /// Returns the names of the cases that passed.
    pub fn passed(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, outcome)| **outcome == Outcome::Passed).map(|(case, _)| case.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_that_is_said_about_a_case_counts() {
        let mut cases = Cases::default();
        for outcome in [Outcome::Started, Outcome::Failed("a subtest".to_owned()), Outcome::Passed] {
            cases.note("case", outcome);
        }
        assert_eq!(cases.outcome("case"), Some(&Outcome::Failed("a subtest".to_owned())));
        assert_eq!(cases.passed().count(), 0);
    }
}
