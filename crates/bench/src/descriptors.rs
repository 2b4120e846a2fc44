//! Room for the open files of many sandboxes.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What one sandbox needs of this process: control socket, three pipes, a pidfd, and some room.
const DESCRIPTORS_EACH: u64 = 8;

/// Raises this process's own limit of open files as far as `sandboxes` at once need it.
///
/// # Errors
/// When the hard limit is lower.
pub(crate) fn allow(sandboxes: usize) -> Result<()> {
    let needed = 256 + sandboxes as u64 * DESCRIPTORS_EACH;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        ensure!(
            current >= needed,
            "{sandboxes} sandboxes at once need {needed} open files, the limit is {current}: \
             raise it with `ulimit -Hn {needed}`"
        );
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum })?;
    }
    Ok(())
}
