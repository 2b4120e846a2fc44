//! Runs the command line on the machine that `cargo xtask ordinary-kvm` boots: the same static binary is the
//! vmm outside and the program inside.

use std::process::{Command, Output, exit};

const LUMINAGUARD: &str = "/usr/bin/luminaguard";

fn main() {
    let checks: [(&str, &[&str], fn(&Output) -> bool); 4] = [
        ("a program runs and its output comes through", &["run", "--", LUMINAGUARD, "--version"], |output| {
            output.status.success() && output.stdout.starts_with(b"luminaguard ")
        }),
        ("the program's exit status comes through", &["run", "--", LUMINAGUARD, "no-such-verb"], |output| {
            output.status.code() == Some(125)
        }),
        (
            "ten thousand system calls return",
            &["run", "--stats", "--", LUMINAGUARD, "guest-probe", "getppid", "10000"],
            |output| output.status.success(),
        ),
        ("a command that is not there is said to be so", &["run", "--", "no-such-program"], |output| {
            output.status.code() == Some(127)
        }),
    ];
    let mut failed = 0;
    for (name, arguments, holds) in checks {
        let output = match Command::new(LUMINAGUARD).args(arguments).output() {
            Ok(output) => output,
            Err(error) => {
                println!("{LUMINAGUARD}: {error}");
                exit(1);
            }
        };
        let good = holds(&output);
        println!("{} {name}", if good { "ok    " } else { "FAILED" });
        if !good {
            failed += 1;
            println!("{:?}: {}", arguments, output.status);
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    println!("{} passed, {failed} failed", 4 - failed);
    exit(i32::from(failed > 0));
}
