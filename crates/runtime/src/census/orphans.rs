//! What LuminaGuard made on this machine and nobody owns any more: [`orphans()`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use lg_control::printable;
use serde::Serialize;

use super::{LOOK_EVERY, NAME, named_entries, walk};
use crate::proc::{self, ProcessEntry};

/// The names of processes that hold a VM, or are a template of such.
const VMM_NAMES: [&str; 3] = ["lg-vmm", "lg-keeper", "lg-init"];
/// Processes that adopt what others leave: init as it is called in containers, and those that
/// PR_SET_CHILD_SUBREAPER(2const) is known of. /proc does not show who is one.
const REAPERS: [&str; 12] = [
    "systemd",
    "init",
    "tini",
    "tini-static",
    "dumb-init",
    "docker-init",
    "catatonit",
    "conmon",
    "containerd-shim",
    "containerd-shim-runc-v2",
    "podman",
    "s6-svscan",
];
/// The longest name that /proc shows of a process.
const NAME_MAX: usize = 15;

/// What kind of thing was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanKind {
    /// A vmm or a template that runs on without the process that started it.
    Process,
    /// A vmm or a template that ended and was not reaped.
    Zombie,
    /// A control group without processes.
    Cgroup,
    /// Guest memory in a memfd, held by a process that has no VM.
    MemoryFile,
    /// A temporary file or directory, or shared memory with a name.
    File,
    /// A mount.
    Mount,
}

impl OrphanKind {
    /// As people read it.
    fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Zombie => "zombie",
            Self::Cgroup => "control group",
            Self::MemoryFile => "memory file",
            Self::File => "file",
            Self::Mount => "mount",
        }
    }
}

/// One thing that was left behind. Its `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Orphan {
    /// What it is.
    pub kind: OrphanKind,
    /// Its name, or its path.
    pub what: String,
    /// Where it is found: a parent, a holder, or a directory.
    #[serde(rename = "where")]
    pub place: String,
    /// The process that it is or that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Memory or storage that it holds, in bytes; 0 when this is not known.
    pub bytes: u64,
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever made it has chosen the name.
        let (what, place) = (printable(&self.what), printable(&self.place));
        write!(f, "{:<13}  {what}  {place}", self.kind.name())?;
        if let Some(pid) = self.pid {
            write!(f, "  pid {pid}")?;
        }
        if self.bytes > 0 {
            write!(f, "  {} KiB", self.bytes.div_ceil(1024))?;
        }
        Ok(())
    }
}

/// Looks at the whole machine, once, for what LuminaGuard made and nobody owns:
///
/// - processes named `lg-vmm`, `lg-keeper` or `lg-init` whose parent is init, another adopter of processes (known by
///   its name) or not alive, and zombies of that name;
/// - control groups named `luminaguard*` without a process in them or beneath them;
/// - memory files (memfd_create(2)) named `guest` or `luminaguard*` in processes that have no VM;
/// - `luminaguard*` in /dev/shm and `luminaguard-*` in the directory for temporary files, and mounts with
///   such a part in their path.
///
/// The last three and control groups are owned by a process if its id is the number behind `luminaguard-` in their
/// name; a file without such a number is owned by whoever has it open. A machine at work is never quite
/// still, and one look takes a zombie that is just being reaped for a leftover: [`lasting_orphans`] looks again.
pub fn orphans() -> Vec<Orphan> {
    Machine::this().orphans()
}

/// What [`orphans()`] finds again and again for as long as `within`. Returns at once when there is nothing; blocks
/// the thread otherwise.
pub fn lasting_orphans(within: Duration) -> Vec<Orphan> {
    lasting(within, orphans)
}

fn lasting(within: Duration, mut look: impl FnMut() -> Vec<Orphan>) -> Vec<Orphan> {
    /// What stays the same of a thing while its size may change.
    fn identity(orphan: &Orphan) -> (OrphanKind, String, Option<u32>) {
        (orphan.kind, orphan.what.clone(), orphan.pid)
    }
    let started = Instant::now();
    let mut left = look();
    while !left.is_empty() && started.elapsed() < within {
        thread::sleep(LOOK_EVERY.min(within));
        let earlier: BTreeSet<_> = left.iter().map(identity).collect();
        left = look();
        left.retain(|orphan| earlier.contains(&identity(orphan)));
    }
    left
}

/// Where to look.
#[derive(Debug)]
struct Machine {
    proc: PathBuf,
    cgroup: PathBuf,
    shared: PathBuf,
    temporary: PathBuf,
}

/// All processes by their id.
struct Processes(BTreeMap<u32, ProcessEntry>);

impl Processes {
    fn is_alive(&self, pid: u32) -> bool {
        self.0.get(&pid).is_some_and(|process| !process.is_zombie)
    }

    /// Why nobody owns `process`; `None` if somebody does.
    fn lost(&self, process: &ProcessEntry) -> Option<String> {
        let Some(parent) = self.0.get(&process.parent) else { return Some("without a parent".to_owned()) };
        if parent.is_zombie {
            return Some(format!("child of {}, which has ended", parent.pid));
        }
        if parent.pid == std::process::id() || is_luminaguard(&parent.name) {
            return None;
        }
        if is_vmm(&parent.name) {
            // Whoever has lost a template has lost its forks.
            return self.lost(parent).map(|_| format!("child of {} ({}), lost too", parent.pid, parent.name));
        }
        let adopts = REAPERS.iter().any(|name| name[..name.len().min(NAME_MAX)] == parent.name);
        (parent.pid == 1 || adopts).then(|| format!("adopted by {} ({})", parent.pid, parent.name))
    }

    /// Whether the first part of `path` that is named after LuminaGuard names a living owner.
    fn own(&self, path: &Path) -> bool {
        let name =
            path.components().map(|part| part.as_os_str()).find(|part| part.as_bytes().starts_with(NAME));
        name.and_then(|name| owner_in(name.to_str()?)).is_some_and(|pid| self.is_alive(pid))
    }
}

fn is_vmm(name: &str) -> bool {
    VMM_NAMES.contains(&name)
}

fn is_luminaguard(name: &str) -> bool {
    name.as_bytes().starts_with(NAME)
}

/// The process in a name such as `luminaguard-1234` or `luminaguard-1234-x`.
fn owner_in(name: &str) -> Option<u32> {
    let number = name.strip_prefix("luminaguard-")?.split(['-', '.']).next()?;
    number.parse().ok()
}

/// The name of a memory file of ours, in the link that a descriptor is.
fn memory_file(link: &str) -> Option<&str> {
    let name = link.strip_prefix("/memfd:")?;
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    (name == "guest" || is_luminaguard(name)).then_some(name)
}

impl Machine {
    fn this() -> Self {
        Self {
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
            shared: "/dev/shm".into(),
            temporary: std::env::temp_dir(),
        }
    }

    fn orphans(&self) -> Vec<Orphan> {
        let processes = Processes(
            proc::processes(&self.proc).into_iter().map(|process| (process.pid, process)).collect(),
        );
        let mut found = lost_processes(&processes);
        let held = self.descriptors(&processes, &mut found);
        self.cgroups(&processes, &mut found);
        self.files(&processes, &held, &mut found);
        self.mounts(&processes, &mut found);
        found.sort();
        found
    }

    /// Finds memory files. Answers all paths that any process has open, as far as they could be ours.
    fn descriptors(&self, processes: &Processes, found: &mut Vec<Orphan>) -> BTreeSet<PathBuf> {
        let (mut held, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for process in processes.0.values() {
            let directory = self.proc.join(process.pid.to_string());
            let entries = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
            let links: Vec<(PathBuf, PathBuf)> = entries
                .map(|entry| entry.path())
                .chain([directory.join("cwd")])
                .filter_map(|path| Some((fs::read_link(&path).ok()?, path)))
                .collect();
            held.extend(links.iter().map(|(link, _)| link).filter(|link| self.is_ours(link)).cloned());
            let has_vm = links.iter().any(|(link, _)| link == Path::new("anon_inode:kvm-vm"));
            if has_vm || is_vmm(&process.name) || is_luminaguard(&process.name) {
                continue;
            }
            for (link, path) in &links {
                let Some(name) = link.to_str().and_then(memory_file) else { continue };
                let metadata = fs::metadata(path).ok();
                let id = metadata.as_ref().map(|file| (file.dev(), file.ino()));
                if id.is_some_and(|id| !seen.insert(id)) {
                    continue;
                }
                found.push(Orphan {
                    kind: OrphanKind::MemoryFile,
                    what: name.to_owned(),
                    place: format!("held by {}", process.name),
                    pid: Some(process.pid),
                    bytes: metadata.map_or(0, |file| file.blocks() * 512),
                });
            }
        }
        held
    }

    fn is_ours(&self, path: &Path) -> bool {
        let beneath = |root: &Path| {
            let rest = path.strip_prefix(root).ok();
            rest.and_then(|rest| rest.iter().next()).is_some_and(|name| name.as_bytes().starts_with(NAME))
        };
        beneath(&self.shared) || beneath(&self.temporary)
    }

    fn cgroups(&self, processes: &Processes, found: &mut Vec<Orphan>) {
        let mut groups = Vec::new();
        walk(&self.cgroup, &mut |path, kind| {
            let is_named = path.file_name().is_some_and(|name| name.as_bytes().starts_with(NAME));
            if kind.is_dir() && is_named && !processes.own(path) && !is_populated(path) {
                groups.push(path.to_owned());
            }
        });
        found.extend(groups.into_iter().map(|path| {
            Orphan {
                kind: OrphanKind::Cgroup,
                bytes: ["memory.current", "memory.usage_in_bytes"]
                    .iter()
                    .find_map(|file| fs::read_to_string(path.join(file)).ok()?.trim().parse().ok())
                    .unwrap_or(0),
                what: path.display().to_string(),
                place: "without processes".to_owned(),
                pid: None,
            }
        }));
    }

    fn files(&self, processes: &Processes, held: &BTreeSet<PathBuf>, found: &mut Vec<Orphan>) {
        let shared = named_entries(&self.shared, NAME).map(|entry| ("shared memory", entry));
        let temporary = named_entries(&self.temporary, b"luminaguard-").map(|entry| ("temporary", entry));
        for (place, (path, kind)) in shared.chain(temporary) {
            let owner = path.file_name().and_then(|name| owner_in(name.to_str()?));
            let is_owned = match owner {
                Some(pid) => processes.is_alive(pid),
                None => held.iter().any(|open| open.starts_with(&path)),
            };
            if is_owned {
                continue;
            }
            let size = |path: &Path| fs::symlink_metadata(path).map_or(0, |file| file.blocks() * 512);
            let mut bytes = size(&path);
            if kind.is_dir() {
                walk(&path, &mut |path, _| bytes += size(path));
            }
            found.push(Orphan {
                kind: OrphanKind::File,
                what: path.display().to_string(),
                place: match owner {
                    Some(pid) => format!("{place}, its owner {pid} is gone"),
                    None => format!("{place}, nobody has it open"),
                },
                pid: None,
                bytes,
            });
        }
    }

    fn mounts(&self, processes: &Processes, found: &mut Vec<Orphan>) {
        let text = fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        // proc_pid_mountinfo(5): id, parent, device, root, mount point.
        for point in text.lines().filter_map(|line| line.split_ascii_whitespace().nth(4)) {
            let path = Path::new(point);
            let is_named = path.iter().any(|part| part.as_bytes().starts_with(NAME));
            if is_named && !processes.own(path) {
                found.push(Orphan {
                    kind: OrphanKind::Mount,
                    what: point.to_owned(),
                    place: "in this mount namespace".to_owned(),
                    pid: None,
                    bytes: 0,
                });
            }
        }
    }
}

fn lost_processes(processes: &Processes) -> Vec<Orphan> {
    let ours = processes.0.values().filter(|process| is_vmm(&process.name));
    ours.filter_map(|process| {
        let (kind, place) = if process.is_zombie {
            (OrphanKind::Zombie, format!("not reaped by {}", process.parent))
        } else {
            (OrphanKind::Process, processes.lost(process)?)
        };
        let bytes = proc::pss_bytes(&[process.pid]).unwrap_or(0);
        Some(Orphan { kind, what: process.name.clone(), place, pid: Some(process.pid), bytes })
    })
    .collect()
}

/// Whether a process is in the group or beneath it. What cannot be read counts as populated.
fn is_populated(group: &Path) -> bool {
    let has_processes =
        |group: &Path| !fs::read(group.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty());
    let mut populated = has_processes(group);
    walk(group, &mut |path, kind| populated |= kind.is_dir() && has_processes(path));
    populated
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine of files in a temporary directory.
    struct Fake {
        root: tempfile::TempDir,
        machine: Machine,
    }

    impl Fake {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            let machine =
                Machine { proc: at("proc"), cgroup: at("cgroup"), shared: at("shm"), temporary: at("tmp") };
            for directory in [&machine.proc, &machine.cgroup, &machine.shared, &machine.temporary] {
                fs::create_dir(directory).unwrap();
            }
            let fake = Self { root, machine };
            fake.process(1, "init", "S", 0);
            fake
        }

        fn process(&self, pid: u32, name: &str, state: &str, parent: u32) {
            let directory = self.machine.proc.join(pid.to_string());
            fs::create_dir_all(directory.join("fd")).unwrap();
            fs::write(directory.join("stat"), format!("{pid} ({name}) {state} {parent} 0 0")).unwrap();
        }

        fn descriptor(&self, pid: u32, number: u32, link: impl AsRef<Path>) {
            symlink(link, self.machine.proc.join(format!("{pid}/fd/{number}"))).unwrap();
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// What is found: kind, name without the directory, process.
        fn found(&self) -> Vec<(OrphanKind, String, Option<u32>)> {
            let root = format!("{}/", self.root.path().display());
            let orphans = self.machine.orphans().into_iter();
            orphans.map(|orphan| (orphan.kind, orphan.what.replace(&root, ""), orphan.pid)).collect()
        }
    }

    #[test]
    fn a_machine_with_nothing_of_ours_is_clean() {
        let fake = Fake::new();
        fake.process(10, "bash", "S", 1);
        fake.process(11, "sleep", "Z", 10);
        fake.descriptor(10, 3, "/memfd:other (deleted)");
        fake.file("tmp/somebody/file", "x");
        fake.file("cgroup/user.slice/cgroup.procs", "10\n");
        assert_eq!(fake.found(), []);
    }

    #[test]
    fn a_process_is_lost_when_its_parent_is_not_who_started_it() {
        let fake = Fake::new();
        fake.process(10, "server", "S", 1);
        fake.process(11, "lg-vmm", "S", 10);
        fake.process(20, "lg-vmm", "S", 1);
        fake.process(30, "tini", "S", 1);
        fake.process(31, "lg-keeper", "S", 30);
        fake.process(32, "lg-vmm", "S", 31);
        fake.process(40, "lg-keeper", "S", 10);
        fake.process(41, "lg-vmm", "S", 40);
        fake.process(50, "server", "Z", 1);
        fake.process(51, "lg-vmm", "S", 50);
        fake.process(60, "lg-vmm", "Z", 10);
        fake.process(70, "containerd-shim", "S", 1);
        fake.process(71, "lg-vmm", "S", 70);
        use OrphanKind::{Process, Zombie};
        let expected = [
            (Process, "lg-keeper", 31),
            (Process, "lg-vmm", 20),
            (Process, "lg-vmm", 71),
            (Process, "lg-vmm", 32),
            (Process, "lg-vmm", 51),
            (Zombie, "lg-vmm", 60),
        ];
        assert_eq!(fake.found(), expected.map(|(kind, name, pid)| (kind, name.to_owned(), Some(pid))));
    }

    #[test]
    fn a_server_that_is_itself_init_owns_its_sandboxes() {
        let fake = Fake::new();
        fake.process(1, "luminaguard", "S", 0);
        fake.process(20, "lg-vmm", "S", 1);
        assert_eq!(fake.found(), []);
    }

    #[test]
    fn memory_files_are_left_where_no_vm_is() {
        let fake = Fake::new();
        for (pid, name) in [(10, "lg-vmm"), (11, "embedder"), (12, "helper"), (13, "luminaguard")] {
            fake.process(pid, name, "S", 9);
            fake.descriptor(pid, 3, "/memfd:guest (deleted)");
        }
        fake.process(9, "server", "S", 1);
        fake.descriptor(11, 4, "anon_inode:kvm-vm");
        fake.descriptor(12, 4, "/memfd:luminaguard-template (deleted)");
        fake.descriptor(12, 5, "/memfd:guests (deleted)");
        let what = ["guest", "luminaguard-template"];
        assert_eq!(fake.found(), what.map(|name| (OrphanKind::MemoryFile, name.to_owned(), Some(12))));
    }

    #[test]
    fn files_are_left_when_their_owner_is_gone() {
        let fake = Fake::new();
        fake.process(10, "server", "S", 1);
        fake.file("shm/luminaguard-10", "x");
        fake.file("shm/luminaguard.sem", "x");
        fake.file("tmp/luminaguard-10-a/file", "x");
        fake.file("tmp/luminaguard-11-b/file", "x");
        fake.file("tmp/luminaguard-12ab/held", "x");
        fake.file("tmp/luminaguard-free", "x");
        fake.descriptor(10, 3, fake.machine.temporary.join("luminaguard-12ab/held"));
        let expected = ["shm/luminaguard.sem", "tmp/luminaguard-11-b", "tmp/luminaguard-free"];
        assert_eq!(fake.found(), expected.map(|name| (OrphanKind::File, name.to_owned(), None)));
        assert!(fake.machine.orphans().iter().all(|orphan| orphan.bytes > 0));
    }

    #[test]
    fn a_control_group_is_left_when_nobody_is_in_it() {
        let fake = Fake::new();
        fake.process(10, "server", "S", 1);
        fake.file("cgroup/pids/luminaguard/cgroup.procs", "");
        fake.file("cgroup/pids/luminaguard/sandbox-1/cgroup.procs", "10\n");
        fake.file("cgroup/pids/luminaguard-11/cgroup.procs", "");
        fake.file("cgroup/pids/luminaguard-11/memory.current", "4096\n");
        fake.file("cgroup/pids/luminaguard-10/cgroup.procs", "");
        let expected = [(OrphanKind::Cgroup, "cgroup/pids/luminaguard-11".to_owned(), None)];
        assert_eq!(fake.found(), expected);
        assert_eq!(fake.machine.orphans()[0].bytes, 4096);
    }

    #[test]
    fn mounts_are_left_when_their_owner_is_gone() {
        let fake = Fake::new();
        fake.process(10, "server", "S", 1);
        let line = |point: &str| format!("30 25 0:27 / {point} rw,relatime - tmpfs tmpfs rw\n");
        let points = ["/", "/run/luminaguard-10/root", "/run/luminaguard-11/root", "/run/luminaguard"];
        fake.file("proc/self/mountinfo", &points.map(line).concat());
        let expected = ["/run/luminaguard", "/run/luminaguard-11/root"];
        assert_eq!(fake.found(), expected.map(|name| (OrphanKind::Mount, name.to_owned(), None)));
    }

    #[test]
    fn only_what_lasts_is_left() {
        let orphan = |pid: u32, bytes: u64| Orphan {
            kind: OrphanKind::Process,
            what: "lg-vmm".to_owned(),
            place: "adopted by 1 (init)".to_owned(),
            pid: Some(pid),
            bytes,
        };
        let mut looks = 0;
        let left = lasting(Duration::from_millis(1), || {
            looks += 1;
            if looks == 1 { vec![orphan(7, 1), orphan(8, 1)] } else { vec![orphan(8, 2), orphan(9, 1)] }
        });
        assert_eq!(left, [orphan(8, 2)]);
        assert_eq!(lasting(Duration::from_secs(60), Vec::new), []);
    }

    #[test]
    fn an_orphan_is_one_line() {
        let mut orphan = Orphan {
            kind: OrphanKind::Process,
            what: "lg-vmm".to_owned(),
            place: "adopted by 1 (init)".to_owned(),
            pid: Some(20),
            bytes: 5000,
        };
        assert_eq!(orphan.to_string(), "process        lg-vmm  adopted by 1 (init)  pid 20  5 KiB");
        (orphan.pid, orphan.bytes, orphan.kind) = (None, 0, OrphanKind::Cgroup);
        assert_eq!(orphan.to_string(), "control group  lg-vmm  adopted by 1 (init)");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        // Whatever is found belongs to others; that looking works is all that can be said.
        for orphan in orphans() {
            assert!(!orphan.to_string().contains('\n'));
        }
    }
}
