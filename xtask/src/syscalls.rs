//! `cargo xtask syscalls`: writes docs/syscalls.md from the kernel's system-call table.

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const PAGE: &str = "docs/syscalls.md";

/// What to do with the page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write it.
    Write,
    /// Fail if it is not what would be written.
    Check,
}

/// Makes the page; the kernel prints it, because the table is code.
pub fn run(mode: Mode) -> anyhow::Result<ExitCode> {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--package", "lg-kernel", "--example", "syscall-table"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("the system-call table can not be printed");
    }
    let path = crate::workspace_root().join(PAGE);
    match mode {
        Mode::Write => {
            std::fs::write(&path, &output.stdout).with_context(|| format!("writing {}", path.display()))?;
        }
        Mode::Check if std::fs::read(&path).is_ok_and(|page| page == output.stdout) => {}
        Mode::Check => bail!("{PAGE} is stale: run cargo xtask syscalls"),
    }
    Ok(ExitCode::SUCCESS)
}
