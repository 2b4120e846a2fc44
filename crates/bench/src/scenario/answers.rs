//! The answer that each operation must have, from the agent's seed alone.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::suggest::no_such;

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

/// A function that computes an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check(fn(&Answers<'_>) -> Result<Value>);

impl Check {
    /// The check that a scenario names.
    pub(super) fn named(name: &str) -> Result<Self> {
        match CHECKS.iter().find(|(known, _)| *known == name) {
            Some((_, check)) => Ok(Self(*check)),
            None => bail!(no_such("check", name, CHECKS.iter().map(|(name, _)| *name))),
        }
    }
}

/// The values of one agent.
pub(super) struct Answers<'a> {
    seed: u64,
    parameters: &'a BTreeMap<String, u64>,
    values: Vec<u64>,
}

/// All checks by name. `values` are the numbers that the agent's generator makes, `file` is the file of a line for each
/// of them, `lines` is the file of the numbers from 1 on.
const CHECKS: [(&str, fn(&Answers<'_>) -> Result<Value>); 24] = [
    ("sum_of_values", |a| Ok(json!(a.values.iter().sum::<u64>()))),
    ("fold_of_values", |a| {
        let mut sorted = a.values.clone();
        sorted.sort_unstable();
        Ok(json!((1..).zip(&sorted).fold(0, |sum, (place, value)| (sum + place * value) % 1_000_000_007)))
    }),
    ("length_of_file", |a| Ok(json!(a.file().len()))),
    ("length_of_doubled_file", |a| Ok(json!(2 * a.file().len()))),
    ("hash_of_file", |a| Ok(json!(hex_of_hash(&a.file())))),
    ("hash_of_edited_file", |a| Ok(json!(hex_of_hash(&a.file().replace('7', "seven"))))),
    ("hash_of_half_file", |a| {
        let file = a.file();
        Ok(json!(hex_of_hash(&file[..file.len() / 2])))
    }),
    ("hash_of_last_lines", |a| {
        let file = a.file();
        let lines: Vec<&str> = file.lines().rev().take(100).collect();
        Ok(json!(hex_of_hash(&lines.concat())))
    }),
    ("line_of_least_value", |a| {
        let least = a.values.iter().enumerate().min_by_key(|(i, value)| (**value, *i));
        Ok(json!(least.map(|(i, value)| format!("{i:06} {value:010}\n"))))
    }),
    ("files", |a| Ok(json!(a.parameter("files")?))),
    ("files_as_text", |a| Ok(json!(format!("{}\n", a.parameter("files")?)))),
    ("sum_of_files", |a| {
        let files = usize::try_from(a.parameter("files")?)?;
        Ok(json!(a.values.iter().take(files).sum::<u64>()))
    }),
    ("nothing", |_| Ok(json!(0))),
    ("most_lines", |a| Ok(json!(format!("{}\n", a.top()?)))),
    ("sum_of_lines", |a| Ok(json!(format!("{}\n", a.top()? * (a.top()? + 1) / 2)))),
    ("lines_with_seven", |a| {
        let sevens = (1..=a.top()?).filter(|n| n.to_string().contains('7')).count();
        Ok(json!(format!("{sevens}\n")))
    }),
    ("hash_of_lines", |a| Ok(json!(format!("{}\n", hex_of_hash(&a.lines()?))))),
    ("hash_of_edited_lines", |a| Ok(json!(format!("{}\n", hex_of_hash(&a.lines()?.replace('7', "seven")))))),
    ("last_lines", |a| {
        let top = a.top()?;
        Ok(json!(format!("{} {} {} ", top - 2, top - 1, top)))
    }),
    ("primes", |a| Ok(json!(a.primes()?))),
    ("priced", |a| {
        let (cents, tax) = price(a.seed);
        Ok(json!(cents * 3 + tax))
    }),
    ("basket", |a| {
        let items = a.parameter("items")?;
        Ok(json!((0..items).map(|item| price(a.seed + item).0 * (item + 1)).sum::<u64>()))
    }),
    ("echoed", |a| {
        let bytes = a.parameter("rounds")? * a.parameter("message_bytes")?;
        Ok(json!({ "bytes": bytes, "seed": a.seed }))
    }),
    ("conclusion", |a| {
        Ok(json!({
            "count": a.values.len(),
            "most": a.values.iter().max(),
            "primes": a.primes()?,
            "cents": price(a.seed).0,
            "files": ["data.txt"],
        }))
    }),
];

impl<'a> Answers<'a> {
    pub(super) fn new(seed: u64, parameters: &'a BTreeMap<String, u64>) -> Result<Self> {
        const MAX_VALUES: u64 = 10_000_000;
        let count = parameters.get("count").copied().unwrap_or(0);
        if count > MAX_VALUES {
            bail!("the parameter `count` is at most {MAX_VALUES}");
        }
        let next = |x: &u64| Some((x * 1_103_515_245 + 12_345) % 2_147_483_648);
        let values = std::iter::successors(Some(seed), next).skip(1).take(usize::try_from(count)?).collect();
        Ok(Self { seed, parameters, values })
    }

    pub(super) fn answer(&self, check: Check) -> Result<Value> {
        (check.0)(self)
    }

    fn parameter(&self, name: &str) -> Result<u64> {
        self.parameters.get(name).copied().with_context(|| format!("no parameter `{name}`"))
    }

    fn file(&self) -> String {
        self.values.iter().enumerate().map(|(i, value)| format!("{i:06} {value:010}\n")).collect()
    }

    /// The greatest number of the agent's lines.
    fn top(&self) -> Result<u64> {
        let lines = self.parameter("lines")?;
        if !(3..=10_000_000).contains(&lines) {
            bail!("the parameter `lines` is from 3 to 10000000");
        }
        Ok(lines + self.seed % 1000)
    }

    fn lines(&self) -> Result<String> {
        Ok((1..=self.top()?).map(|n| format!("{n}\n")).collect())
    }

    /// The number of primes, by the sieve of Eratosthenes (the guest divides).
    fn primes(&self) -> Result<usize> {
        let below = self.parameter("primes_below")?;
        if below > 10_000_000 {
            bail!("the parameter `primes_below` is at most 10000000");
        }
        let end = usize::try_from(below + self.seed % 1000)?;
        let mut composite = vec![false; end];
        let mut count = 0;
        for n in 2..end {
            if !composite[n] {
                count += 1;
                composite.iter_mut().skip(n * n).step_by(n).for_each(|c| *c = true);
            }
        }
        Ok(count)
    }
}

fn hex_of_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> BTreeMap<String, u64> {
        [("count", 3), ("lines", 10), ("primes_below", 100)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    fn answer(seed: u64, check: &str) -> Value {
        let parameters = parameters();
        Answers::new(seed, &parameters).unwrap().answer(Check::named(check).unwrap()).unwrap()
    }

    #[test]
    fn answers_are_those_worked_out_by_hand() {
        // 1103527590, then (1103527590 * 1103515245 + 12345) mod 2^31, and once more.
        let parameters = parameters();
        let one = Answers::new(1, &parameters).unwrap();
        assert_eq!(one.values, [1_103_527_590, 377_401_575, 662_824_084]);
        assert_eq!(one.file(), "000000 1103527590\n000001 0377401575\n000002 0662824084\n");
        assert_eq!(answer(1, "sum_of_values"), json!(2_143_753_249_u64));
        let fold = (377_401_575 + 2 * 662_824_084 + 3 * 1_103_527_590_u64) % 1_000_000_007;
        assert_eq!(answer(1, "fold_of_values"), json!(fold));
        assert_eq!(answer(1, "length_of_file"), json!(54));
        assert_eq!(answer(1, "line_of_least_value"), json!("000001 0377401575\n"));
        assert_eq!(answer(1, "most_lines"), json!("11\n"));
        assert_eq!(answer(1, "sum_of_lines"), json!("66\n"));
        assert_eq!(answer(7, "lines_with_seven"), json!("2\n"));
        assert_eq!(answer(1, "last_lines"), json!("9 10 11 "));
        // 25 primes below 100, and 101 makes it one more from 102 on.
        assert_eq!((answer(0, "primes"), answer(2, "primes")), (json!(25), json!(26)));
    }

    #[test]
    fn a_missing_parameter_and_an_unknown_check_are_named() {
        let none = BTreeMap::new();
        let answers = Answers::new(1, &none).unwrap();
        let error = answers.answer(Check::named("files").unwrap()).unwrap_err().to_string();
        assert!(error.contains("no parameter `files`"), "{error}");
        let error = Check::named("prime").unwrap_err().to_string();
        assert_eq!(error, "no such check: prime; did you mean primes?");
    }

    #[test]
    fn a_tool_that_is_not_there_has_no_answer() {
        assert_eq!(call_tool("weather", &json!({"item": 1})), None);
        assert_eq!(call_tool("price", &json!("x")), None);
        let (cents, tax) = price(1);
        assert_eq!(call_tool("price", &json!({"item": 1})), Some(json!({"cents": cents, "tax": tax})));
    }
}
