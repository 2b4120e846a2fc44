//! What reaches a terminal: the program's own bytes as they are, and no control character of somebody else's choice in what
//! LuminaGuard says.

#![forbid(unsafe_code)]

mod needs_kvm;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use needs_kvm::needs_kvm;

/// Clears the screen, sets a title, a C1 control sequence, and DEL.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{7f}";

fn luminaguard(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luminaguard"));
    command.args(words).stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> Output {
    luminaguard(words).output().unwrap()
}

/// Text without a control character, line ends apart.
#[track_caller]
fn tame(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text:?}");
    text
}

#[test]
fn a_program_writes_what_it_writes() {
    needs_kvm!();
    let run = output(&["run", "--", "printf", "%s", EVIL]);
    assert_eq!((run.status.code(), &*run.stdout), (Some(0), EVIL.as_bytes()));
}

#[test]
fn errors_name_what_they_name_without_its_control_characters() {
    needs_kvm!();
    let missing = format!("/no/{EVIL}\n");
    for words in [
        &["run", "--", &missing][..],
        &["run", "--workdir", &missing, "--", "true"],
        &["run", "--mount", &format!("{missing}:/m"), "--", "true"],
        &["run", "--image", &format!("dir:{missing}"), "--", "true"],
        &["run", "--template", &missing, "--", "true"],
        &["run", "--memory", &missing, "--", "true"],
        &["template", "show", &missing],
    ] {
        let run = output(words);
        let said = tame(&run.stderr);
        assert!(run.status.code().is_some_and(|code| code >= 125), "{words:?}: {said}");
        assert!(said.starts_with("luminaguard: ") && said.lines().count() == 1, "{words:?}: {said:?}");
        // The reader of options leaves out the sequences that it knows by itself.
        assert!(said.contains("\\u{9b}31m"), "{words:?}: {said:?}");
    }
}

#[test]
fn statistics_and_traces_hold_none() {
    needs_kvm!();
    let missing = format!("/no/{EVIL}");
    let run = output(&["run", "--stats=json", "--", &missing]);
    let said = tame(&run.stderr);
    let (_, json) = said.split_once('\n').unwrap();
    let stats: serde_json::Value = serde_json::from_str(json).unwrap();
    assert!(stats["outcome"].to_string().contains("\\u001b[2J"), "{stats}");
    let run = output(&["run", "--strace", "--stats", "--", "cat", &missing]);
    let own: Vec<u8> = run
        .stderr
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| !line.starts_with(b"cat:"))
        .flatten()
        .copied()
        .collect();
    let said = tame(&own);
    assert!(said.contains("openat(AT_FDCWD, \"/no/\\x1b[2J"), "{said}");
}

#[test]
fn names_of_files_in_a_session_hold_none() {
    needs_kvm!();
    let mut child = luminaguard(&["repl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input =
        "import os; os.mkdir('/d'); open('/d/\\x1b[2Jname', 'w').close()\n:files /d\n:files /no/\u{1b}[2J\n";
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let session = child.wait_with_output().unwrap();
    assert_eq!(tame(&session.stdout), "\\u{1b}[2Jname\n");
    assert!(tame(&session.stderr).contains("cannot list /no/\\u{1b}[2J"));
}
