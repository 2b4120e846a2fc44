//! The TOML file of a scenario.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use toml::{Table, Value};

use super::answers::Check;
use super::{Action, Scenario};
use crate::suggest::no_such;

const KEYS: [&str; 5] = ["name", "about", "think_ms", "parameters", "operation"];
const OPERATION_KEYS: [&str; 6] = ["name", "check", "cell", "shell", "measure", "repeat"];
const MAX_REPEAT: usize = 1000;
const MAX_THINK_MS: u64 = 3_600_000;

#[derive(Debug, Deserialize)]
struct File {
    name: String,
    about: String,
    #[serde(default)]
    think_ms: u64,
    #[serde(default)]
    parameters: BTreeMap<String, u64>,
    operation: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    check: String,
    cell: Option<String>,
    shell: Option<String>,
    measure: Option<String>,
    #[serde(default = "once")]
    repeat: usize,
}

fn once() -> usize {
    1
}

/// An operation before the agent's own values are filled in.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) check: Check,
    pub(super) measure: Option<String>,
    pub(super) action: Action,
}

pub(super) fn parse(text: &str) -> Result<Scenario> {
    let table: Table = text.parse()?;
    check_keys(&table, &KEYS, "key")?;
    for (place, operation) in
        table.get("operation").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let operation =
            operation.as_table().context("`operation` must be a list of tables: [[operation]]")?;
        check_keys(operation, &OPERATION_KEYS, "key").with_context(|| format!("operation {}", place + 1))?;
    }
    let file: File = table.try_into()?;
    ensure!(!file.operation.is_empty(), "a scenario needs at least one [[operation]]");
    ensure!(file.think_ms <= MAX_THINK_MS, "think_ms is at most {MAX_THINK_MS}");
    let mut operations = Vec::new();
    for entry in file.operation {
        let repeat = entry.repeat;
        ensure!(
            (1..=MAX_REPEAT).contains(&repeat),
            "operation {}: repeat is from 1 to {MAX_REPEAT}",
            entry.name
        );
        let operation = entry.operation()?;
        operations.extend(std::iter::repeat_n(operation, repeat));
    }
    Ok(Scenario {
        name: file.name,
        about: file.about,
        think: Duration::from_millis(file.think_ms),
        parameters: file.parameters,
        operations,
    })
}

impl Entry {
    fn operation(self) -> Result<Operation> {
        let action = match (self.cell, self.shell) {
            (Some(cell), None) => Action::Cell(cell),
            (None, Some(shell)) => Action::Shell(shell),
            _ => bail!("operation {}: it needs either `cell` or `shell`", self.name),
        };
        if let (Some(_), Action::Shell(_)) = (&self.measure, &action) {
            bail!("operation {}: only a cell can measure", self.name);
        }
        let check = Check::named(&self.check).with_context(|| format!("operation {}", self.name))?;
        Ok(Operation { name: self.name, check, measure: self.measure, action })
    }
}

pub(crate) fn check_keys(table: &Table, known: &[&str], what: &str) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => bail!(no_such(what, key, known.iter().copied())),
        None => Ok(()),
    }
}
