//! `cargo xtask ordinary-kvm`: hardware virtualisation for machines that have none.
//!
//! A machine whose /dev/kvm is PVM, or absent, can not show that the platform works on kvm-amd. So qemu
//! emulates a processor with SVM in software, boots a distribution's kernel in it with that kernel's own
//! kvm-amd module, and the tests, built as static binaries, run from its initial RAM disk.

mod cpio;
mod kernel;
mod qemu;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use cpio::Archive;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Packages whose tests need KVM.
const TESTED_PACKAGES: [&str; 1] = ["lg-kvm"];

/// Builds everything, boots, and reports how the programs ended. Succeeds if all of them did.
pub fn run(mut programs: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let work = crate::target_directory()?.join("ordinary-kvm");
    std::fs::create_dir_all(&work)?;
    let kernel = kernel::find(&work)?;
    for package in TESTED_PACKAGES {
        programs.extend(build(&work, &["test", "--no-run", "--release", "--package", package])?);
    }
    programs.push(build_one(&work, "xtask", "ordinary-kvm-smoke")?);
    let init = build_one(&work, "xtask", "ordinary-kvm-init")?;
    let luminaguard = build_one(&work, "luminaguard", "luminaguard")?;

    let mut archive = Archive::new();
    for directory in ["dev", "etc", "proc", "sys", "tmp", "usr", "usr/bin", "modules", "programs"] {
        archive.directory(directory);
    }
    archive.file("init", &std::fs::read(init)?);
    archive.file("usr/bin/luminaguard", &std::fs::read(luminaguard)?);
    // The init loads the modules and runs the programs in the order of their names.
    for (index, module) in kernel::module_closure(&kernel.modules, "kvm-amd")?.iter().enumerate() {
        archive.file(&format!("modules/{index:02}-{}", module.name), &module.contents);
    }
    for (index, program) in programs.iter().enumerate() {
        let name = program.file_name().context("a program without a name")?.to_string_lossy();
        let contents = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        archive.file(&format!("programs/{index:02}-{name}"), &contents);
    }
    let initramfs = work.join("initramfs.cpio");
    std::fs::write(&initramfs, archive.finish())?;
    qemu::boot(&kernel.image, &initramfs)
}

/// Builds one program of a package.
fn build_one(work: &Path, package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let programs = build(work, &["build", "--release", "--package", package, "--bin", name])?;
    match programs.as_slice() {
        [program] => Ok(program.clone()),
        programs => bail!("cargo built {} programs for {name}", programs.len()),
    }
}

/// Runs cargo for static binaries in a target directory of their own and returns the executables.
fn build(work: &Path, arguments: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--target", TARGET, "--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(work.join("target"))
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("cargo {arguments:?} failed");
    }
    let mut executables = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if let Some(path) = message["executable"].as_str() {
            executables.push(PathBuf::from(path));
        }
    }
    Ok(executables)
}
