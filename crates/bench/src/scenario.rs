//! What agents do: a [`Scenario`] from a TOML file, and for each operation the answer computed here, in Rust.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const INTERPRETER: &str = include_str!("../scenarios/interpreter.toml");
const DRIVER: &str = include_str!("driver.py");

/// A program, and the operations that are asked of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name in reports.
    pub name: String,
    program: Vec<String>,
    parameters: BTreeMap<String, u64>,
    #[serde(rename = "operation")]
    operations: Vec<Operation>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    name: String,
    check: Check,
    cell: String,
}

/// Which function computes the answer that is expected.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Check {
    SumOfState,
    FoldOfState,
    LengthOfFile,
    HashOfFile,
    MostLines,
    LineOfLeastValue,
    Primes,
    Priced,
    HashOfEditedFile,
    Conclusion,
}

/// One operation as it is sent to one agent.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) cell: String,
    pub(crate) expected: Value,
}

impl Scenario {
    /// The default scenario: a warm Python interpreter that evaluates, writes, reads, pipes, computes and calls a tool.
    ///
    /// # Errors
    /// Never, unless the embedded file is broken.
    pub fn interpreter() -> Result<Self> {
        Self::parse(INTERPRETER).context("the embedded scenario interpreter.toml")
    }

    /// A scenario from the text of a TOML file.
    ///
    /// # Errors
    /// When it is not one, or when it lacks a parameter.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        ensure!(!scenario.operations.is_empty(), "a scenario needs at least one [[operation]]");
        ensure!(!scenario.program.is_empty(), "a scenario needs a program");
        scenario.steps(0, "/tmp")?;
        Ok(scenario)
    }

    /// How many operations an agent does.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// The command line of the agent's program.
    pub(crate) fn command(&self) -> Vec<String> {
        self.program.iter().map(|word| word.replace("{{driver}}", DRIVER)).collect()
    }

    /// What is asked of the agent with this seed, whose files are in `dir`.
    pub(crate) fn steps(&self, seed: u64, dir: &str) -> Result<Vec<Step>> {
        let answers = Answers::new(seed, &self.parameters)?;
        self.operations
            .iter()
            .map(|operation| {
                let mut cell = operation.cell.replace("{{seed}}", &seed.to_string()).replace("{{dir}}", dir);
                for (name, value) in &self.parameters {
                    cell = cell.replace(&format!("{{{{{name}}}}}"), &value.to_string());
                }
                if let Some(at) = cell.find("{{") {
                    bail!(
                        "operation {}: no such parameter: {}",
                        operation.name,
                        &cell[at..].lines().next().unwrap_or("")
                    );
                }
                Ok(Step { name: operation.name.clone(), cell, expected: answers.answer(operation.check) })
            })
            .collect()
    }
}

/// What the host's tool `name` answers. The answer is computed, so that a guest can only have it from here.
pub(crate) fn call_tool(name: &str, argument: &Value) -> Option<Value> {
    match (name, argument.get("item").and_then(Value::as_u64)) {
        ("price", Some(item)) => {
            let (cents, tax) = price(item);
            Some(json!({ "cents": cents, "tax": tax }))
        }
        _ => None,
    }
}

fn price(item: u64) -> (u64, u64) {
    let digest = Sha256::digest(item.to_le_bytes());
    (100 + u64::from(digest[0]) * 256 + u64::from(digest[1]), 1 + u64::from(digest[2]))
}

/// The answers of one agent's scenario, from its seed alone.
struct Answers {
    seed: u64,
    lines: u64,
    primes_below: u64,
    values: Vec<u64>,
}

impl Answers {
    fn new(seed: u64, parameters: &BTreeMap<String, u64>) -> Result<Self> {
        let parameter =
            |name: &str| parameters.get(name).copied().with_context(|| format!("no parameter `{name}`"));
        let values =
            std::iter::successors(Some(seed), |x| Some((x * 1_103_515_245 + 12_345) % 2_147_483_648));
        Ok(Self {
            seed,
            lines: parameter("lines")?,
            primes_below: parameter("primes_below")?,
            values: values.skip(1).take(usize::try_from(parameter("count")?)?).collect(),
        })
    }

    fn answer(&self, check: Check) -> Value {
        match check {
            Check::SumOfState => json!(self.values.iter().sum::<u64>()),
            Check::FoldOfState => {
                let mut sorted = self.values.clone();
                sorted.sort_unstable();
                json!((1..).zip(&sorted).fold(0, |sum, (place, value)| (sum + place * value) % 1_000_000_007))
            }
            Check::LengthOfFile => json!(self.file().len()),
            Check::HashOfFile => json!(hex_of_hash(&self.file())),
            Check::MostLines => json!(format!("{}\n", self.lines + self.seed % 1000)),
            Check::LineOfLeastValue => {
                let least = self.values.iter().enumerate().min_by_key(|(i, value)| (**value, *i));
                json!(least.map(|(i, value)| format!("{i:06} {value:010}\n")))
            }
            Check::Primes => json!(self.primes()),
            Check::Priced => {
                let (cents, tax) = price(self.seed);
                json!(cents * 3 + tax)
            }
            Check::HashOfEditedFile => json!(hex_of_hash(&self.file().replace('7', "seven"))),
            Check::Conclusion => json!({
                "count": self.values.len(),
                "most": self.values.iter().max(),
                "primes": self.primes(),
                "cents": price(self.seed).0,
                "files": ["data.txt"],
            }),
        }
    }

    fn file(&self) -> String {
        self.values.iter().enumerate().map(|(i, value)| format!("{i:06} {value:010}\n")).collect()
    }

    /// The number of primes, by the sieve of Eratosthenes (the guest divides).
    fn primes(&self) -> usize {
        let end = usize::try_from(self.primes_below + self.seed % 1000).unwrap_or(usize::MAX);
        let mut composite = vec![false; end];
        let mut count = 0;
        for n in 2..end {
            if !composite[n] {
                count += 1;
                composite.iter_mut().skip(n * n).step_by(n).for_each(|c| *c = true);
            }
        }
        count
    }
}

fn hex_of_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(seed: u64) -> Answers {
        let parameters = [("count", 3), ("lines", 10), ("primes_below", 100)];
        Answers::new(seed, &parameters.map(|(name, value)| (name.to_owned(), value)).into()).unwrap()
    }

    #[test]
    fn the_default_scenario_has_ten_operations() {
        let scenario = Scenario::interpreter().unwrap();
        assert_eq!(scenario.operations(), 10);
        assert!(scenario.command()[2].contains("names that are kept"));
    }

    #[test]
    fn answers_are_those_worked_out_by_hand() {
        // 1103527590, then (1103527590 * 1103515245 + 12345) mod 2^31, and once more.
        let one = answers(1);
        assert_eq!(one.values, [1_103_527_590, 377_401_575, 662_824_084]);
        assert_eq!(one.answer(Check::SumOfState), json!(2_143_753_249_u64));
        let fold = (377_401_575 + 2 * 662_824_084 + 3 * 1_103_527_590_u64) % 1_000_000_007;
        assert_eq!(one.answer(Check::FoldOfState), json!(fold));
        assert_eq!(one.file(), "000000 1103527590\n000001 0377401575\n000002 0662824084\n");
        assert_eq!(one.answer(Check::LengthOfFile), json!(54));
        assert_eq!(one.answer(Check::LineOfLeastValue), json!("000001 0377401575\n"));
        assert_eq!(one.answer(Check::MostLines), json!("11\n"));
        // 25 primes below 100, and 101 makes it one more from 102 on.
        assert_eq!(answers(0).primes(), 25);
        assert_eq!(answers(2).primes(), 26);
    }

    #[test]
    fn agents_with_other_seeds_have_other_answers() {
        let scenario = Scenario::interpreter().unwrap();
        let (a, b) = (scenario.steps(1, "/tmp").unwrap(), scenario.steps(2, "/tmp").unwrap());
        let different = a.iter().zip(&b).filter(|(a, b)| a.expected != b.expected).count();
        assert!(different >= 8, "only {different} answers differ");
    }

    #[test]
    fn a_tool_that_is_not_there_has_no_answer() {
        assert_eq!(call_tool("weather", &json!({"item": 1})), None);
        assert_eq!(call_tool("price", &json!("x")), None);
        let (cents, tax) = price(1);
        assert_eq!(call_tool("price", &json!({"item": 1})), Some(json!({"cents": cents, "tax": tax})));
    }

    #[test]
    fn a_broken_scenario_is_refused() {
        assert!(Scenario::parse("").is_err());
        let text = INTERPRETER.replace("{{lines}}", "{{rows}}");
        let error = Scenario::parse(&text).unwrap_err().to_string();
        assert!(error.contains("no such parameter: {{rows}}"), "{error}");
        assert!(Scenario::parse(&INTERPRETER.replace("\"primes\"", "\"prime_numbers\"")).is_err());
    }
}
