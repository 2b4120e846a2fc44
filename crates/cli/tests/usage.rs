//! What the command line says without any VM.

use std::process::{Command, Stdio};

fn luminaguard(words: &[&str]) -> (Option<i32>, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_luminaguard")).args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn wrong_usage_is_one_line_and_status_125() {
    let cases: [&[&str]; 7] = [
        &["fly"],
        &["run"],
        &["run", "--memroy", "1G", "--", "true"],
        &["run", "--mount", ":/b", "--", "true"],
        &["run", "--memory", "1M", "--", "true"],
        &["run", "--timeout", "0s", "--", "true"],
        &["bench", "scale", "--agents", "five"],
    ];
    for words in cases {
        let (status, stdout, stderr) = luminaguard(words);
        assert_eq!((status, &*stdout), (Some(125), ""), "{words:?}: {stderr}");
        assert!(stderr.starts_with("luminaguard: ") && stderr.lines().count() == 1, "{words:?}: {stderr:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for words in [&["--help"][..], &["run", "--help"], &["--version"], &["bench", "scale", "-h"]] {
        let (status, stdout, stderr) = luminaguard(words);
        assert_eq!((status, &*stderr), (Some(0), ""), "{words:?}");
        assert!(stdout.contains("luminaguard"), "{words:?}: {stdout}");
    }
}

#[test]
fn no_verb_at_all_shows_the_help_and_fails() {
    let (status, stdout, stderr) = luminaguard(&[]);
    assert_eq!((status, &*stdout), (Some(125), ""));
    assert!(stderr.contains("Usage: luminaguard"), "{stderr}");
}

#[test]
fn the_vmm_is_not_for_people() {
    let (status, _, stderr) = luminaguard(&["vmm"]);
    assert_eq!(status, Some(125));
    assert!(stderr.contains("started by LuminaGuard itself") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn doctor_counts_what_is_left_behind() {
    let (status, stdout, _) = luminaguard(&["doctor", "--leftovers", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["schema"], "luminaguard.leftovers/1");
    assert_eq!(found["count"] == 0, status == Some(0), "{stdout}");
    assert_eq!(found["left"].as_array().unwrap().len() as u64, found["count"]);
}

#[test]
fn doctor_answers_in_json_too() {
    let (status, stdout, _) = luminaguard(&["doctor", "--json"]);
    let findings: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(findings["schema"], "luminaguard.doctor/1");
    assert_eq!(findings["ok"], status == Some(0));
    assert!(!findings["checks"].as_array().unwrap().is_empty());
}
