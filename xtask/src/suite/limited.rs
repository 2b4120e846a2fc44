//! Programs with a time limit.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

const POLL: Duration = Duration::from_millis(10);

/// Runs a command with its output going to `log`, and kills it with its process group after `limit`.
///
/// Returns `None` if it had to be killed.
///
/// # Errors
///
/// The log can not be made, or the command not started.
pub fn run(command: &mut Command, log: &Path, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            break None;
        }
        std::thread::sleep(POLL);
    };
    // Also after a good end: a child of the program may have stayed. That the group is gone is no error.
    let _ = rustix::process::kill_process_group(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::KILL,
    );
    if status.is_none() {
        child.wait()?;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        assert!(run(&mut command, &log, Duration::from_millis(300)).unwrap().is_none());
        let child = std::fs::read_to_string(&log).unwrap();
        let gone = || {
            std::fs::read_to_string(format!("/proc/{}/stat", child.trim()))
                .map_or(true, |stat| stat.contains(") Z "))
        };
        assert!((0..100).any(|_| gone() || {
            std::thread::sleep(POLL);
            false
        }));
    }

    #[test]
    fn a_program_that_ends_gives_its_status_and_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let status = run(&mut command, &log, Duration::from_secs(60)).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(3));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\nerr\n");
    }
}
