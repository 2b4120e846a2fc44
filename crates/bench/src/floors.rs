//! The least that this machine can do: what a sandbox is measured against.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::stats::Summary;

const PROCESS_SAMPLES: usize = 50;

/// One bare virtual machine, made, entered and taken down.
#[derive(Debug, Clone)]
pub struct KvmSample {
    /// `ordinary` or `pvm`.
    pub kind: String,
    /// Its life in milliseconds: VM, memory, vCPU, one exit, and all taken down again.
    pub life_ms: f64,
    /// A system call of its guest, out of the guest and back in, without any kernel: median, in nanoseconds.
    pub round_trip_ns: f64,
}

/// Measures one bare virtual machine. The harness itself knows no KVM, so its caller brings this.
pub type KvmProbe = fn() -> Result<KvmSample>;

/// The floors of one run, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Floors {
    /// posix_spawn and wait of /bin/true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_ms: Option<Summary>,
    /// A bare VM with a vCPU, one exit, and its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_ms: Option<Summary>,
    /// The life of one agent alone as a plain process of the host, without isolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_agent_ms: Option<Summary>,
}

/// How long a process takes from its start until it is reaped, in milliseconds, many times.
///
/// # Errors
/// When /bin/true cannot be run.
pub(crate) fn process_lives_ms() -> Result<Vec<f64>> {
    (0..PROCESS_SAMPLES).map(|_| time_command_ms(Command::new("/bin/true").env_clear())).collect()
}

/// How long `command` takes from its start until it is reaped, in milliseconds. It has no input, and its output
/// is thrown away. A status other than 0 is an error with the last line that it wrote to standard error.
pub(crate) fn time_command_ms(command: &mut Command) -> Result<f64> {
    let name = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {}", name.display()))?;
    let elapsed = started.elapsed();
    if !status.success() {
        // Once more, for what it says.
        let output = command.stderr(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!(
            "{} failed ({status}): {}",
            name.display(),
            said.lines().next_back().unwrap_or("no message")
        );
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}
