//! Boots the emulated machine and reads its console.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

/// The init's last line, followed by how many programs failed.
const VERDICT: &str = "ordinary-kvm: failed programs: ";

/// Boots, shows the console, and turns the init's verdict into an exit code.
pub fn boot(kernel: &Path, initramfs: &Path) -> anyhow::Result<ExitCode> {
    let mut machine = Command::new("qemu-system-x86_64")
        // Nested pages and SVM of an emulated processor; the host's own KVM is of no use for them.
        .args(["-accel", "tcg", "-cpu", "max,+svm", "-smp", "1", "-m", "3G"])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nodefaults"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting qemu-system-x86_64 (Debian: apt-get install qemu-system-x86)")?;
    let console = machine.stdout.take().context("qemu has no console")?;
    let mut verdict = None;
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        println!("{line}");
        if let Some((_, count)) = line.split_once(VERDICT) {
            verdict = Some(count.trim().parse::<u32>().context("the verdict is no number")?);
        }
    }
    machine.wait()?;
    match verdict {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(_) => Ok(ExitCode::FAILURE),
        None => bail!("the machine stopped before it reached a verdict"),
    }
}
