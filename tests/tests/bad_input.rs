//! Every system call that the kernel serves gets bad input in a check, or is left out by name.

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn every_call_gets_bad_input_or_is_left_out_by_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_guest-checks")).arg("--bad-input").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let known: BTreeSet<&str> = printed.lines().collect();
    let table = include_str!("../../docs/syscalls.md");
    let served: Vec<(&str, &str)> = table.lines().filter_map(served).collect();
    assert!(served.len() > 200, "the table of docs/syscalls.md has another form");
    let missing: Vec<_> =
        served.iter().filter(|(number, name)| known.contains(number) == known.contains(name)).collect();
    assert!(missing.is_empty(), "in none or in both of the tables of bad_input/tables.rs: {missing:?}");
}

/// Returns the number and the name of a row, if the call is served.
fn served(line: &'static str) -> Option<(&'static str, &'static str)> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    match cells[..] {
        ["", number, name, "full" | "partial", ..] => Some((number, name)),
        _ => None,
    }
}
