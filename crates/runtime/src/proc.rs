//! What the host says of processes, in `/proc` (proc_pid_smaps(5), proc_pid_stat(5)). Whatever cannot be read is
//! left out by the callers.

use std::fs;
use std::path::{Path, PathBuf};

/// The sum over `pids` of their proportional share of memory, in bytes. Processes that ended count nothing;
/// `None` when no process could be read.
pub fn pss_bytes(pids: &[u32]) -> Option<u64> {
    pids.iter()
        .filter_map(|pid| Some(field(&rollup(*pid)?, "Pss:")? << 10))
        .reduce(|sum, bytes| sum.saturating_add(bytes))
}

/// The memory in bytes that `pid` shares with nobody: what its end gives back. This is what a fork of a template has
/// dirtied, and what [`CostEstimate::observe`](crate::admission::CostEstimate::observe) wants to hear.
pub fn private_bytes(pid: u32) -> Option<u64> {
    let text = rollup(pid)?;
    Some((field(&text, "Private_Clean:")? + field(&text, "Private_Dirty:")?) << 10)
}

fn rollup(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()
}

/// The number behind `name` at the beginning of a line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

/// One process, as `/proc/PID/stat` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessEntry {
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) is_zombie: bool,
    pub(crate) parent: u32,
}

impl ProcessEntry {
    /// Reads a line of `/proc/PID/stat`. The name in parentheses may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(')')?;
        let mut words = rest.split_ascii_whitespace();
        let state = words.next()?;
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            is_zombie: matches!(state, "Z" | "X"),
            parent: words.next()?.parse().ok()?,
        })
    }
}

/// All processes beneath `proc`, which is `/proc`. Those that end meanwhile may be missing.
pub(crate) fn processes(proc: &Path) -> Vec<ProcessEntry> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // A name may be no UTF-8.
            let stat = fs::read(proc.join(pid.to_string()).join("stat")).ok()?;
            ProcessEntry::parse(&String::from_utf8_lossy(&stat))
        })
        .collect()
}

/// The directories of this process's control groups: in every hierarchy of version 1 that has one of
/// `controllers`, or has any when none is named, and that of version 2. A group that is not mounted where it is usually
/// found is left out. With each goes its path within the hierarchy, and the mount point.
pub(crate) fn own_cgroups(controllers: &[&str]) -> Vec<Cgroup> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroups_of(&text, controllers, Path::new("/sys/fs/cgroup"))
}

/// A control group of this process in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// The group's path in it, without the leading slash.
    pub(crate) path: PathBuf,
    /// Whether it is of version 2.
    pub(crate) unified: bool,
}

impl Cgroup {
    /// The group itself, then the groups that it is in.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = PathBuf> {
        self.path.ancestors().map(|path| self.mount.join(path))
    }
}

fn cgroups_of(text: &str, controllers: &[&str], root: &Path) -> Vec<Cgroup> {
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        let unified = names.is_empty();
        if !unified && !controllers.is_empty() && !names.split(',').any(|name| controllers.contains(&name)) {
            continue;
        }
        // Version 2 is mounted at the root, or beside version 1 in `unified`.
        let directory = if unified { "unified" } else { names.strip_prefix("name=").unwrap_or(names) };
        let path = PathBuf::from(path.trim_start_matches('/'));
        let mounts = [root.join(directory), root.to_owned()];
        let mut mounts = mounts.into_iter().take(if unified { 2 } else { 1 });
        if let Some(mount) = mounts.find(|mount| mount.join(&path).join("cgroup.procs").exists()) {
            groups.push(Cgroup { mount, path, unified });
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_of_its_own() {
        let me = std::process::id();
        assert!(pss_bytes(&[me]).is_none_or(|bytes| bytes > 4096));
        assert!(private_bytes(me).is_none_or(|bytes| bytes > 4096));
        assert_eq!(pss_bytes(&[]), None);
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        let entry = ProcessEntry::parse("12 (a) b (c)) Z 34 5 6").unwrap();
        let expected = ProcessEntry { pid: 12, name: "a) b (c)".to_owned(), is_zombie: true, parent: 34 };
        assert_eq!(entry, expected);
        assert_eq!(ProcessEntry::parse(""), None);
        assert_eq!(ProcessEntry::parse("12 (x"), None);
    }

    #[test]
    fn a_child_is_listed_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let (me, pid) = (std::process::id(), child.id());
        let is_listed = || processes(Path::new("/proc")).iter().any(|p| p.pid == pid && p.parent == me);
        assert!(is_listed());
        child.wait().unwrap();
        assert!(!is_listed());
    }

    #[test]
    fn control_groups_are_found_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["pids/a/b", "unified/c", "cpu,cpuacct"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
            fs::write(root.path().join(directory).join("cgroup.procs"), "").unwrap();
        }
        let text = "8:pids:/a/b\n4:memory:/gone\n2:cpu,cpuacct:/\n0::/c\n";
        let found = |controllers: &[&str]| cgroups_of(text, controllers, root.path());
        let pids = Cgroup { mount: root.path().join("pids"), path: "a/b".into(), unified: false };
        let unified = Cgroup { mount: root.path().join("unified"), path: "c".into(), unified: true };
        assert_eq!(found(&["pids"]), [pids.clone(), unified]);
        assert_eq!(found(&[]).len(), 3);
        assert_eq!(found(&["memory"]).len(), 1);
        let ancestors: Vec<_> = pids.ancestors().collect();
        assert_eq!(ancestors, ["pids/a/b", "pids/a", "pids"].map(|path| root.path().join(path)));
    }
}
