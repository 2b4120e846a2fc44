//! The first process of the machine that `cargo xtask ordinary-kvm` boots: loads the modules, runs the
//! programs one after the other, says how many failed, and turns the machine off.

use std::ffi::CStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

fn main() {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")] {
        if let Err(error) = mount(kind, place, kind, MountFlags::empty(), None::<&CStr>) {
            println!("mounting {place}: {error}");
        }
    }
    for module in sorted("/modules") {
        let loaded =
            File::open(&module).and_then(|file| finit_module(&file, c"", 0).map_err(std::io::Error::from));
        if let Err(error) = loaded {
            println!("loading {}: {error}", module.display());
        }
    }
    let mut failed = 0;
    for program in sorted("/programs") {
        println!("=== {}", program.display());
        // One thread: the machine has one slow processor.
        match Command::new(&program).arg("--test-threads=1").env("RUST_BACKTRACE", "1").status() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                println!("=== {}: {status}", program.display());
                failed += 1;
            }
            Err(error) => {
                println!("=== {}: {error}", program.display());
                failed += 1;
            }
        }
    }
    println!("ordinary-kvm: failed programs: {failed}");
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        println!("power off: {error}");
    }
}

fn sorted(directory: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}
