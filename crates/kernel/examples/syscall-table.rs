//! Prints docs/syscalls.md; `cargo xtask syscalls` calls it.

use lg_kernel::syscall::{Support, TABLE};

fn main() {
    let count = |wanted: fn(&Support) -> bool| TABLE.iter().filter(|row| wanted(&row.support)).count();
    let full = count(|support| matches!(support, Support::Full));
    let partial = count(|support| matches!(support, Support::Partial(_)));
    let absent = count(|support| matches!(support, Support::Absent(_)));
    println!("<!-- Made by `cargo xtask syscalls` from crates/kernel/src/syscall/table.rs. Do not edit. -->");
    println!("# System calls");
    println!();
    println!(
        "What programs in a sandbox find of the system calls of Linux x86-64: {full} are there in full,"
    );
    println!(
        "{partial} in part, {absent} are absent. An absent call answers ENOSYS; `luminaguard run --stats` counts it."
    );
    println!("*Full* means: all that a program can tell from Linux on a machine with one processor.");
    println!();
    println!("| number | name | support | what is missing, or why |");
    println!("|---:|---|---|---|");
    for row in TABLE {
        let (support, note) = match row.support {
            Support::Full => ("full", ""),
            Support::Partial(note) => ("partial", note),
            Support::Absent(note) => ("absent", note),
        };
        println!("| {} | {} | {support} | {} |", row.number, row.name, note.replace('|', "\\|"));
    }
}
