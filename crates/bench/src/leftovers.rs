//! What remains after a run: counted, not assumed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::proc;

/// How long something may take to go away before it counts as left.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was there before and is not part of the run, or was made by it and is still there. Fields that this host
/// does not let us count are absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    /// Child processes, alive or zombies.
    pub processes: usize,
    /// Descriptors of this process.
    pub descriptors: usize,
    /// Mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<usize>,
    /// Control groups beneath that of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<usize>,
    /// Files in the run's temporary directory and in /dev/shm.
    pub files: usize,
    /// Memory that processes which should be gone still hold, and System V shared memory, in bytes.
    pub memory_bytes: u64,
}

impl Leftovers {
    /// Whether nothing is left.
    pub fn is_nothing(&self) -> bool {
        let Self { processes, descriptors, mounts, cgroups, files, memory_bytes } = *self;
        processes + descriptors + mounts.unwrap_or(0) + cgroups.unwrap_or(0) + files == 0 && memory_bytes == 0
    }

    /// The greater of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            processes: self.processes.max(other.processes),
            descriptors: self.descriptors.max(other.descriptors),
            mounts: self.mounts.max(other.mounts),
            cgroups: self.cgroups.max(other.cgroups),
            files: self.files.max(other.files),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }
}

/// What is there at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    temporary: PathBuf,
    processes: BTreeSet<u32>,
    descriptors: usize,
    mounts: Option<BTreeSet<String>>,
    cgroups: Option<BTreeSet<PathBuf>>,
    files: BTreeSet<PathBuf>,
    shared_memory_bytes: u64,
}

impl Snapshot {
    /// Looks around; `temporary` is the directory in which the run may make files.
    pub(crate) fn take(temporary: &Path) -> Self {
        let mut files = BTreeSet::new();
        for root in [temporary, Path::new("/dev/shm")] {
            walk(root, &mut |path, _| {
                files.insert(path.to_owned());
            });
        }
        Self {
            temporary: temporary.to_owned(),
            processes: proc::children().into_iter().collect(),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .ok()
                .map(|text| text.lines().map(str::to_owned).collect()),
            cgroups: cgroups(),
            files,
            shared_memory_bytes: shared_memory_bytes(),
        }
    }

    /// What is there now that was not there then. Waits a moment for what is just going away.
    pub(crate) async fn left(&self) -> Leftovers {
        let started = Instant::now();
        loop {
            let left = self.compare(&Self::take(&self.temporary));
            if left.is_nothing() || started.elapsed() > PATIENCE {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn compare(&self, now: &Self) -> Leftovers {
        let processes: Vec<u32> = now.processes.difference(&self.processes).copied().collect();
        let memory = proc::pss_bytes(&processes).unwrap_or(0);
        Leftovers {
            descriptors: now.descriptors.saturating_sub(self.descriptors),
            mounts: grown(&self.mounts, &now.mounts),
            cgroups: grown(&self.cgroups, &now.cgroups),
            files: now.files.difference(&self.files).count(),
            memory_bytes: memory + now.shared_memory_bytes.saturating_sub(self.shared_memory_bytes),
            processes: processes.len(),
        }
    }
}

/// How many are there now that were not there before.
fn grown<T: Ord>(before: &Option<BTreeSet<T>>, now: &Option<BTreeSet<T>>) -> Option<usize> {
    Some(now.as_ref()?.difference(before.as_ref()?).count())
}

/// Calls `each` for everything beneath `root`, without following links.
fn walk(root: &Path, each: &mut impl FnMut(&Path, fs::FileType)) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        each(&entry.path(), kind);
        if kind.is_dir() {
            walk(&entry.path(), each);
        }
    }
}

/// The control groups beneath those of this process, in every hierarchy. Where this process is in the root group, all of
/// the machine's are beneath it; then only those named after LuminaGuard count.
fn cgroups() -> Option<BTreeSet<PathBuf>> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut groups = BTreeSet::new();
    let mut readable = false;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let controllers = controllers.strip_prefix("name=").unwrap_or(controllers);
        let root = Path::new("/sys/fs/cgroup").join(controllers).join(path.trim_start_matches('/'));
        if !root.join("cgroup.procs").exists() {
            continue;
        }
        readable = true;
        walk(&root, &mut |group, kind| {
            let named =
                || group.components().any(|part| part.as_os_str().as_bytes().starts_with(b"luminaguard"));
            if kind.is_dir() && (path != "/" || named()) {
                groups.insert(group.to_owned());
            }
        });
    }
    readable.then_some(groups)
}

fn shared_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(3)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn everything_that_was_left_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let before = Snapshot::take(directory.path());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::create_dir(directory.path().join("agent")).unwrap();
        fs::write(directory.path().join("agent/file"), "x").unwrap();
        let left = block(before.left());
        // Other tests of this process open and close descriptors meanwhile, so those are not looked at here.
        assert!(left.processes >= 1 && left.files == 2, "{left:?}");
        assert!(!left.is_nothing());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
