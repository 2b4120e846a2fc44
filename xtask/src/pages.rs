//! Pages of the documentation that are made from tables in the code: docs/syscalls.md and docs/attack-surface.md.

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

/// A page, and the example that prints it: the tables are code.
pub struct Page {
    verb: &'static str,
    path: &'static str,
    package: &'static str,
    example: &'static str,
}

/// The system calls that guests find.
pub const SYSCALLS: Page =
    Page { verb: "syscalls", path: "docs/syscalls.md", package: "lg-kernel", example: "syscall-table" };

/// The system calls that a vmm may make.
pub const ATTACK_SURFACE: Page = Page {
    verb: "attack-surface",
    path: "docs/attack-surface.md",
    package: "lg-vmm",
    example: "attack-surface",
};

/// What to do with the page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write it.
    Write,
    /// Fail if it is not what would be written.
    Check,
}

/// Makes the page.
pub fn run(page: &Page, mode: Mode) -> anyhow::Result<ExitCode> {
    let Page { verb, path, package, example } = page;
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--package", package, "--example", example])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("{path} can not be printed");
    }
    let file = crate::workspace_root().join(path);
    match mode {
        Mode::Write => {
            std::fs::write(&file, &output.stdout).with_context(|| format!("writing {}", file.display()))?;
        }
        Mode::Check if std::fs::read(&file).is_ok_and(|found| found == output.stdout) => {}
        Mode::Check => bail!("{path} is stale: run cargo xtask {verb}"),
    }
    Ok(ExitCode::SUCCESS)
}
