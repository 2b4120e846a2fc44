//! What the tests with guest programs share.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the command line, which is another package's, beside a guest program, and returns it; `None` without KVM.
pub fn luminaguard(guest: &Path) -> Option<PathBuf> {
    std::fs::File::options().read(true).write(true).open("/dev/kvm").ok()?;
    let directory = guest.parent().expect("a program lies in a directory");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--locked", "--package", "luminaguard", "--target-dir"]);
    build.arg(directory.parent().expect("target directory"));
    if directory.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo can be started").success(), "luminaguard can not be built");
    Some(directory.join("luminaguard"))
}
