//! What agents do: a [`Scenario`] from a TOML file, and for each operation the answer computed here, in Rust.

mod answers;
mod file;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::random::Random;
use crate::suggest::no_such;
use answers::Answers;
pub(crate) use answers::call_tool;
use file::Operation;
pub(crate) use file::check_keys;

/// The scenarios that come with the program: their names and their files.
const SHIPPED: [(&str, &str); 7] = [
    ("interpreter", include_str!("../../scenarios/interpreter.toml")),
    ("shell", include_str!("../../scenarios/shell.toml")),
    ("files", include_str!("../../scenarios/files.toml")),
    ("cpu", include_str!("../../scenarios/cpu.toml")),
    ("think", include_str!("../../scenarios/think.toml")),
    ("tools", include_str!("../../scenarios/tools.toml")),
    ("network", include_str!("../../scenarios/network.toml")),
];
const MAX_OPERATIONS: usize = 10_000;

/// The operations that are asked of each agent.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name in reports.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// How long an agent waits before each operation, as if for a model's answer: on average over its operations.
    pub think: Duration,
    parameters: std::collections::BTreeMap<String, u64>,
    operations: Vec<Operation>,
}

/// One operation as it is sent to one agent.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Whether the answer holds samples of something that the operation measures, under which name.
    pub(crate) measure: Option<String>,
    pub(crate) action: Action,
    pub(crate) expected: Value,
    /// How long to wait before.
    pub(crate) think: Duration,
}

/// What an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Python source for the agent's interpreter; the answer is what it leaves in `result`.
    Cell(String),
    /// A command line for `sh -c`; the answer is what it writes to standard output.
    Shell(String),
}

impl Scenario {
    /// The names of the scenarios that come with the program.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// The scenario of this name, or of the file of this path (it ends in `.toml`).
    ///
    /// # Errors
    /// When there is none, or when it is none.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::parse(text).with_context(|| format!("the scenario {name}"));
        }
        ensure!(
            name.ends_with(".toml"),
            "{}, or the path of a .toml file",
            no_such("scenario", name, Self::names())
        );
        let text =
            std::fs::read_to_string(name).with_context(|| format!("cannot read the scenario {name}"))?;
        Self::parse(&text).with_context(|| format!("the scenario {name}"))
    }

    /// A scenario from the text of a TOML file.
    ///
    /// # Errors
    /// When it is not one: an unknown key or check is named with the nearest that there is.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario = file::parse(text)?;
        scenario.steps(0, "/tmp")?;
        Ok(scenario)
    }

    /// With so many operations for each agent: the first ones, and from the beginning again when there are no more.
    ///
    /// # Errors
    /// When `count` is 0 or absurd.
    pub fn with_operations(mut self, count: usize) -> Result<Self> {
        ensure!(
            (1..=MAX_OPERATIONS).contains(&count),
            "--operations {count}: from 1 to {MAX_OPERATIONS} are possible"
        );
        self.operations = self.operations.iter().cycle().take(count).cloned().collect();
        Ok(self)
    }

    /// How many operations an agent does.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// What is asked of the agent with this seed, whose files are in `dir`.
    pub(crate) fn steps(&self, seed: u64, dir: &str) -> Result<Vec<Step>> {
        let answers = Answers::new(seed, &self.parameters)?;
        let fill = |operation: &Operation, text: &str| {
            let mut text = text.replace("{{seed}}", &seed.to_string()).replace("{{dir}}", dir);
            for (name, value) in &self.parameters {
                text = text.replace(&format!("{{{{{name}}}}}"), &value.to_string());
            }
            match text.find("{{") {
                Some(at) => {
                    let rest = text[at..].lines().next().unwrap_or("");
                    bail!("operation {}: no such parameter: {rest}", operation.name)
                }
                None => Ok(text),
            }
        };
        let thinking = self.thinking(seed);
        let steps = self.operations.iter().zip(thinking).map(|(operation, think)| {
            let action = match &operation.action {
                Action::Cell(text) => Action::Cell(fill(operation, text)?),
                Action::Shell(text) => Action::Shell(fill(operation, text)?),
            };
            let (name, measure) = (operation.name.clone(), operation.measure.clone());
            let expected = answers.answer(operation.check)?;
            Ok(Step { name, measure, action, expected, think })
        });
        steps.collect()
    }

    /// The waits of the agent with this seed: they differ by up to three times, and all agents wait equally long in all, so that
    /// the luck of the draw is no difference between agents.
    fn thinking(&self, seed: u64) -> Vec<Duration> {
        let mut random = Random::new(seed);
        let weights: Vec<f64> = self.operations.iter().map(|_| 0.5 + random.unit()).collect();
        let total: f64 = weights.iter().sum();
        let each = self.think.as_secs_f64() * weights.len() as f64;
        weights.iter().map(|weight| Duration::from_secs_f64(each * weight / total)).collect()
    }
}

#[cfg(test)]
mod tests;
