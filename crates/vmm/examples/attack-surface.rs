//! Prints docs/attack-surface.md; `cargo xtask attack-surface` calls it.

use lg_vmm::jail::{ABSENT, Check, Part, TABLE, Test};

const INTRODUCTION: &str = "\
<!-- Made by `cargo xtask attack-surface` from crates/vmm/src/jail/table.rs. Do not edit. -->
# Attack surface

What a vmm may ask of the host's kernel once its jail is closed, which is before the first guest instruction: all that
somebody finds who has broken out of the virtual machine and of the kernel in Rust. Any other system call ends the
process, and with it the sandbox, and so does one of these with other arguments. A call in two tables may have the arguments of both.
";

fn main() {
    print!("{INTRODUCTION}");
    for (part, title) in [
        (Part::All, "Every sandbox"),
        (Part::Served, "Sandboxes that are served over a control socket, in addition"),
        (Part::WritableMounts, "Sandboxes with a mount that may be written, in addition"),
    ] {
        let rows: Vec<_> = TABLE.iter().filter(|row| row.part == part).collect();
        println!("\n## {title}: {} calls\n", rows.len());
        println!("| call | what is checked | what it is for |");
        println!("|---|---|---|");
        for row in rows {
            let checks: Vec<String> = row.checks.iter().map(checked).collect();
            println!("| {} | {} | {} |", row.name, checks.join("; "), row.why);
        }
    }
    println!("\n## Calls that answer ENOSYS: {}\n", ABSENT.len());
    println!("| call | why nothing lacks it |");
    println!("|---|---|");
    for (name, _, why) in ABSENT {
        println!("| {name} | {why} |");
    }
}

fn checked(check: &Check) -> String {
    let names = |values: &[(&str, u64)]| values.iter().map(|value| value.0).collect::<Vec<_>>().join(", ");
    match check.test {
        Test::OneOf(values) | Test::Exactly(values) if values.len() > 1 => {
            format!("`{}` is one of {}", check.name, names(values))
        }
        Test::OneOf(values) | Test::Exactly(values) => format!("`{}` is {}", check.name, names(values)),
        Test::Without(bits, _) => format!("`{}` is without {bits}", check.name),
    }
}
