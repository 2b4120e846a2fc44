//! The census of leftovers: nothing remains of a sandbox, and this is counted, not assumed.
//!
//! - [`Census`] compares two moments: what is there now that was not there before a run. It looks at what belongs
//!   to this process.
//! - [`orphans()`] needs no earlier look: it finds whatever LuminaGuard made anywhere on this machine and nobody owns
//!   any more. `luminaguard doctor --leftovers` prints it.
//!
//! Neither changes anything, and neither needs privileges: what this user may not see is not counted.

mod orphans;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::orphans::{Orphan, OrphanKind, lasting_orphans, orphans};
use crate::proc;

/// What everything that LuminaGuard names is named after.
const NAME: &[u8] = b"luminaguard";
/// Between two looks of [`Census::settle`].
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was made since an earlier look and is still there. Fields that this host does not let us count are absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Files in the temporary directory and in /dev/shm.
    pub files: usize,
    /// Memory that processes which should be gone still hold, and System V shared memory, in bytes.
    pub memory_bytes: u64,
}

impl Leftovers {
    /// Whether nothing is left.
    pub fn is_nothing(&self) -> bool {
        self.things() == 0
    }

    /// How many things are left; memory is one of them.
    pub fn things(&self) -> usize {
        let Self { processes, descriptors, mounts, cgroups, files, memory_bytes } = *self;
        let memory = usize::from(memory_bytes > 0);
        processes + descriptors + mounts.unwrap_or(0) + cgroups.unwrap_or(0) + files + memory
    }

    /// The greater of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
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
///
/// ```no_run
/// # use lg_runtime::Census;
/// # use std::time::Duration;
/// # async fn example() {
/// let before = Census::take();
/// // ... sandboxes live and end ...
/// let left = before.settle(Duration::from_secs(1)).await;
/// assert!(left.is_nothing(), "{left:?}");
/// # }
/// ```
#[derive(Debug)]
pub struct Census {
    /// The directory of which everything counts, if there is one.
    directory: Option<PathBuf>,
    processes: BTreeSet<u32>,
    descriptors: usize,
    mounts: Option<BTreeSet<String>>,
    cgroups: Option<BTreeSet<PathBuf>>,
    files: BTreeSet<PathBuf>,
    shared_memory_bytes: u64,
}

impl Census {
    /// Looks around. Of the directory for temporary files, only what is named `luminaguard-*` counts.
    pub fn take() -> Self {
        Self::look(None)
    }

    /// Looks around. Of temporary files, those in `directory` count, whatever their names.
    pub fn take_in(directory: &Path) -> Self {
        Self::look(Some(directory.to_owned()))
    }

    fn look(directory: Option<PathBuf>) -> Self {
        let mut files = BTreeSet::new();
        let mut note = |path: &Path, _: fs::FileType| {
            files.insert(path.to_owned());
        };
        walk(Path::new("/dev/shm"), &mut note);
        match &directory {
            Some(directory) => walk(directory, &mut note),
            None => named_entries(&std::env::temp_dir(), b"luminaguard-").for_each(|(path, kind)| {
                note(&path, kind);
                if kind.is_dir() {
                    walk(&path, &mut note);
                }
            }),
        }
        let me = std::process::id();
        let children = proc::processes(Path::new("/proc")).into_iter().filter(|child| child.parent == me);
        Self {
            directory,
            processes: children.map(|child| child.pid).collect(),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .ok()
                .map(|text| text.lines().map(str::to_owned).collect()),
            cgroups: cgroups(),
            files,
            shared_memory_bytes: shared_memory_bytes(),
        }
    }

    /// What is there in this look that was not there in the earlier one.
    pub fn since(&self, before: &Self) -> Leftovers {
        let processes: Vec<u32> = self.processes.difference(&before.processes).copied().collect();
        let memory = proc::pss_bytes(&processes).unwrap_or(0);
        Leftovers {
            descriptors: self.descriptors.saturating_sub(before.descriptors),
            mounts: grown(&before.mounts, &self.mounts),
            cgroups: grown(&before.cgroups, &self.cgroups),
            files: self.files.difference(&before.files).count(),
            memory_bytes: memory + self.shared_memory_bytes.saturating_sub(before.shared_memory_bytes),
            processes: processes.len(),
        }
    }

    /// What is there now that was not there in this look. Waits up to `within` for what is just going away.
    pub async fn settle(&self, within: Duration) -> Leftovers {
        let started = Instant::now();
        loop {
            let left = Self::look(self.directory.clone()).since(self);
            if left.is_nothing() || started.elapsed() >= within {
                return left;
            }
            tokio::time::sleep(LOOK_EVERY).await;
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

/// What is directly in `directory` and has a name that begins with `prefix`.
fn named_entries(directory: &Path, prefix: &'static [u8]) -> impl Iterator<Item = (PathBuf, fs::FileType)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_name().as_bytes().starts_with(prefix))
        .filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)))
}

/// The control groups beneath those of this process, in every hierarchy. Where this process is in the root group, all of
/// the machine's are beneath it; then only those named after LuminaGuard count.
fn cgroups() -> Option<BTreeSet<PathBuf>> {
    let own = proc::own_cgroups(&[]);
    let mut groups = BTreeSet::new();
    for cgroup in &own {
        let is_root = cgroup.path.as_os_str().is_empty();
        walk(&cgroup.mount.join(&cgroup.path), &mut |group, kind| {
            let named = || group.components().any(|part| part.as_os_str().as_bytes().starts_with(NAME));
            if kind.is_dir() && (!is_root || named()) {
                groups.insert(group.to_owned());
            }
        });
    }
    (!own.is_empty()).then_some(groups)
}

fn shared_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(3)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_that_was_left_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let before = Census::take_in(directory.path());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::create_dir(directory.path().join("agent")).unwrap();
        fs::write(directory.path().join("agent/file"), "x").unwrap();
        let left = before.settle(Duration::from_millis(30)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // Other tests of this process open and close descriptors meanwhile, so those are not looked at here.
        assert!(left.processes >= 1 && left.files == 2, "{left:?}");
        assert!(!left.is_nothing() && left.things() >= 3, "{left:?}");
    }

    #[tokio::test]
    async fn what_goes_away_in_time_is_not_left() {
        let directory = tempfile::tempdir().unwrap();
        let before = Census::take_in(directory.path());
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        let removal = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            fs::remove_file(&file).unwrap();
        };
        let settled = async {
            loop {
                // Other tests of this process have children and descriptors of their own.
                let left = before.settle(Duration::ZERO).await;
                if left.files == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::join!(removal, settled);
    }

    #[test]
    fn the_worst_of_several_runs_is_the_greater_of_each() {
        let one = Leftovers { processes: 2, mounts: Some(0), ..Leftovers::default() };
        let other = Leftovers { descriptors: 3, mounts: None, memory_bytes: 1, ..Leftovers::default() };
        let worst = one.max(other);
        assert_eq!(
            (worst.processes, worst.descriptors, worst.mounts, worst.memory_bytes),
            (2, 3, Some(0), 1)
        );
        assert_eq!(worst.things(), 6);
        assert!(Leftovers::default().is_nothing());
    }
}
