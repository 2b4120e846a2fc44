//! What objects of a guest cost the vmm, measured from the host: its heap, and the memory of the guest with its page tables,
//! for few and for many of a kind. docs/design/memory-and-limits.md has the results; they must not become much larger than
//! that.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

const GUEST: &str = env!("CARGO_BIN_EXE_guest-costs");
const DOCUMENT: &str = include_str!("../../docs/design/memory-and-limits.md");
/// How many are made: what differs between the two costs is divided by the difference.
const FEW: usize = 100;
const MANY: usize = 800;
/// A mapping of the vmm from this size on is the guest's memory.
const GUEST_MEMORY_KIB: u64 = 256 << 10;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let Some(luminaguard) = common::luminaguard(Path::new(GUEST)) else {
        eprintln!("SKIPPED: /dev/kvm can not be opened, so no costs can be measured");
        return ExitCode::SUCCESS;
    };
    let list = Command::new(GUEST).arg("--list").output().expect("the guest program can be started");
    let kinds = String::from_utf8(list.stdout).expect("names are text");
    let trials = kinds.lines().filter(|kind| *kind != "nothing").map(|kind| {
        let (kind, luminaguard) = (kind.to_owned(), luminaguard.clone());
        Trial::test(kind.clone(), move || check(&luminaguard, &kind))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    conclusion.exit_code()
}

/// Bytes of the vmm.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// Its own.
    heap: u64,
    /// Frames of the guest, and page tables.
    guest: u64,
}

/// Measures a kind and compares it with the document.
fn check(luminaguard: &Path, kind: &str) -> Result<(), Failed> {
    let few = measure(luminaguard, kind, FEW)?;
    let many = measure(luminaguard, kind, MANY)?;
    let each = |few: u64, many: u64| many.saturating_sub(few) / (MANY - FEW) as u64;
    let found = Costs { heap: each(few.heap, many.heap), guest: each(few.guest, many.guest) };
    println!("| {kind} | {} | {} |", found.heap, found.guest);
    let told = told(kind).ok_or("docs/design/memory-and-limits.md does not tell what it costs")?;
    // Allocators round, and pages are whole.
    let bound = |told: u64| told + told / 2 + 100;
    if found.heap > bound(told.heap) || found.guest > bound(told.guest) {
        return Err(format!("it costs {found:?}, and docs/design/memory-and-limits.md tells {told:?}").into());
    }
    Ok(())
}

/// What the document tells.
fn told(kind: &str) -> Option<Costs> {
    DOCUMENT.lines().find_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            ["", name, heap, guest, ""] if name == kind => {
                Some(Costs { heap: heap.parse().ok()?, guest: guest.parse().ok()? })
            }
            _ => None,
        }
    })
}

/// Makes so many in a sandbox and looks at the memory of the vmm.
fn measure(luminaguard: &Path, kind: &str, count: usize) -> Result<Costs, Failed> {
    let image = tempfile::tempdir().map_err(|error| error.to_string())?;
    if kind.contains("host") {
        fill(image.path());
    }
    let guest = Path::new(GUEST).parent().expect("a program lies in a directory");
    let mut child = Command::new(luminaguard)
        .args(["run", "--timeout", "120s", "--max-processes", "4000", "--memory", "512M"])
        .args(["--mount", &format!("{}:/guest:ro", guest.display())])
        .args(["--mount", &format!("{}:/image:ro", image.path().display())])
        .args(["--", "/guest/guest-costs", kind, &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
    let read = said.read_line(&mut line);
    let costs = memory_of(child.id());
    drop(child.stdin.take());
    let status = child.wait();
    if read.is_err() || line != "ready\n" {
        return Err(format!("{count} can not be made: {status:?}").into());
    }
    Ok(costs)
}

/// Files of the host to look up, and a large one to read.
fn fill(directory: &Path) {
    let at = |name: &str| -> PathBuf { directory.join(name) };
    (0..MANY).for_each(|number| std::fs::write(at(&format!("{number:08}")), "").expect("it is new"));
    std::fs::write(at("large"), vec![7; MANY * 4096]).expect("it is new");
}

/// Adds up the memory of a vmm that no file stands behind (`/proc/PID/smaps`).
fn memory_of(pid: u32) -> Costs {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut costs = Costs { heap: 0, guest: 0 };
    let mut size = 0;
    for line in maps.lines() {
        let kib =
            |key: &str| -> Option<u64> { line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok() };
        if let Some(kib) = kib("Size:") {
            size = kib;
        }
        if let Some(kib) = kib("Anonymous:") {
            let counted = if size >= GUEST_MEMORY_KIB { &mut costs.guest } else { &mut costs.heap };
            *counted += kib * 1024;
        }
    }
    costs
}
