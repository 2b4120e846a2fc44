//! What the machine has left: [`HostReadings`], and [`ProcHost`], which reads `/proc` and control groups.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::proc::{self, Cgroup, field};

/// What a machine has, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readings {
    /// Memory that can be had without swapping.
    pub memory_available_bytes: u64,
    /// All memory that could ever be had.
    pub memory_total_bytes: u64,
    /// Descriptors that this process has open.
    pub descriptors_used: u64,
    /// How many it may have.
    pub descriptors_limit: u64,
    /// Processes and threads that count against the limit below.
    pub processes_used: u64,
    /// The limit of those that has the least left.
    pub processes_limit: u64,
    /// Cores that this process may use.
    pub cores: u32,
}

/// A file that says how the machine is could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {}: {kind}", path.display())]
pub struct ReadingsError {
    /// The file.
    pub path: PathBuf,
    /// How it failed; [`io::ErrorKind::InvalidData`] when it does not say what it should.
    pub kind: io::ErrorKind,
}

/// Reads how the machine is. Tests feed numbers through it.
///
/// Called from async code with a lock held, so it must take well below a millisecond.
pub trait HostReadings: Send + Sync + 'static {
    /// Reads it anew.
    ///
    /// # Errors
    /// When something is not known. Nothing is admitted then.
    fn read(&self) -> Result<Readings, ReadingsError>;
}

/// The machine that this runs on. One reading takes one or two tenths of a millisecond.
///
/// - memory: MemAvailable and MemTotal of proc_meminfo(5), and the limits of the control groups of memory that this process
///   is in, less what they use and cannot drop
/// - descriptors: /proc/self/fd against RLIMIT_NOFILE
/// - processes: all tasks against kernel.pid_max and kernel.threads-max, the user's against RLIMIT_NPROC (which does not
///   bind root), and the control groups' against pids.max
///
/// The control groups are those in which this process was when this was made, and the cores those that it might use then.
#[derive(Debug)]
pub struct ProcHost {
    proc: PathBuf,
    memory_groups: Vec<Cgroup>,
    process_groups: Vec<Cgroup>,
    /// RLIMIT_NPROC, unless it does not bind.
    user_processes: Option<u64>,
    uid: u32,
    cores: u32,
}

impl ProcHost {
    /// Finds the control groups of this process.
    pub fn new() -> Self {
        let uid = rustix::process::geteuid();
        Self {
            proc: "/proc".into(),
            memory_groups: proc::own_cgroups(&["memory"]),
            process_groups: proc::own_cgroups(&["pids"]),
            // A limit that is not told is found out where it is reached.
            user_processes: if uid.is_root() { None } else { limit(Resource::RLIMIT_NPROC).ok().flatten() },
            uid: uid.as_raw(),
            cores: std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        }
    }

    fn text(&self, name: &str) -> Result<String, ReadingsError> {
        let path = self.proc.join(name);
        fs::read_to_string(&path).map_err(|error| ReadingsError { kind: error.kind(), path })
    }

    /// Available and total memory, in bytes.
    fn memory(&self) -> Result<(u64, u64), ReadingsError> {
        let text = self.text("meminfo")?;
        let bytes = |name: &str| Some(field(&text, name)? << 10);
        let memory = bytes("MemAvailable:").zip(bytes("MemTotal:"));
        let host = memory.ok_or_else(|| self.nonsense("meminfo"))?;
        let groups = self.memory_groups.iter().flat_map(|group| {
            group.ancestors().filter_map(|directory| memory_of_group(&directory, group.unified, host.1))
        });
        // The tightest of all holds.
        Ok(groups.fold(host, |(available, total), group| (available.min(group.0), total.min(group.1))))
    }

    fn descriptors_used(&self) -> Result<u64, ReadingsError> {
        let path = self.proc.join("self/fd");
        let fail = |error: io::Error| ReadingsError { kind: error.kind(), path: path.clone() };
        // Since Linux 6.2 the size of the directory is their number; listing ten thousand takes milliseconds.
        match fs::metadata(&path).map_err(fail)?.size() {
            0 => Ok(fs::read_dir(&path).map_err(fail)?.count() as u64),
            count => Ok(count),
        }
    }

    /// Used and limit of what has the fewest processes left.
    fn processes(&self) -> Result<(u64, u64), ReadingsError> {
        let number = |name: &str| self.text(name)?.trim().parse().map_err(|_| self.nonsense(name));
        let most: u64 = number("sys/kernel/pid_max")?;
        let most = most.min(number("sys/kernel/threads-max")?);
        // proc_loadavg(5): "0.20 0.18 0.12 1/80 11206"; behind the slash are all tasks.
        let tasks = self.text("loadavg")?.split_ascii_whitespace().nth(3).and_then(|word| {
            let (_, tasks) = word.split_once('/')?;
            tasks.parse::<u64>().ok()
        });
        let tasks = tasks.ok_or_else(|| self.nonsense("loadavg"))?;
        let mut nearest = (tasks, most);
        let mut consider = |used: u64, limit: u64| {
            if limit.saturating_sub(used) < nearest.1.saturating_sub(nearest.0) {
                nearest = (used, limit);
            }
        };
        for group in &self.process_groups {
            for directory in group.ancestors() {
                let number = |name: &str| fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok();
                if let (Some(limit), Some(used)) = (number("pids.max"), number("pids.current")) {
                    consider(used, limit);
                }
            }
        }
        if let Some(limit) = self.user_processes {
            // The user has no more than all tasks. Only where that is near the limit they are counted.
            let used = if tasks.saturating_mul(2) < limit { tasks } else { self.tasks_of_user() };
            consider(used, limit);
        }
        Ok(nearest)
    }

    fn tasks_of_user(&self) -> u64 {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
            .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == self.uid))
            .filter_map(|entry| field(&fs::read_to_string(entry.path().join("status")).ok()?, "Threads:"))
            .sum()
    }

    fn nonsense(&self, name: &str) -> ReadingsError {
        ReadingsError { path: self.proc.join(name), kind: io::ErrorKind::InvalidData }
    }
}

impl Default for ProcHost {
    fn default() -> Self {
        Self::new()
    }
}

impl HostReadings for ProcHost {
    fn read(&self) -> Result<Readings, ReadingsError> {
        let (memory_available_bytes, memory_total_bytes) = self.memory()?;
        let (processes_used, processes_limit) = self.processes()?;
        Ok(Readings {
            memory_available_bytes,
            memory_total_bytes,
            descriptors_used: self.descriptors_used()?,
            descriptors_limit: limit(Resource::RLIMIT_NOFILE)
                .map_err(|error| ReadingsError { kind: error.kind(), path: self.proc.join("self/limits") })?
                .unwrap_or(u64::MAX),
            processes_used,
            processes_limit,
            cores: self.cores,
        })
    }
}

/// A limit of this process; `None` where it has none (getrlimit(2)).
fn limit(resource: Resource) -> io::Result<Option<u64>> {
    let (current, _) = getrlimit(resource)?;
    Ok(Some(current).filter(|current| *current != RLIM_INFINITY))
}

/// Available memory and limit of a control group in bytes; `None` if it has no limit below `total_bytes`. See the kernel's cgroup-v2.rst and
/// cgroup-v1/memory.rst.
fn memory_of_group(directory: &Path, unified: bool, total_bytes: u64) -> Option<(u64, u64)> {
    let (limit, usage, reclaimable) = if unified {
        ("memory.max", "memory.current", "inactive_file ")
    } else {
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
    };
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    // "max" is no number. Version 1 says a very large one; the other files are slow to read.
    let limit = read(limit)?.trim().parse::<u64>().ok().filter(|limit| *limit < total_bytes)?;
    let usage: u64 = read(usage)?.trim().parse().ok()?;
    let reclaimable = field(&read("memory.stat").unwrap_or_default(), reclaimable).unwrap_or(0);
    Some((limit.saturating_sub(usage.saturating_sub(reclaimable)), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fake.write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\n");
            fake.write("proc/sys/kernel/pid_max", "4000\n");
            fake.write("proc/sys/kernel/threads-max", "3000\n");
            fake.write("proc/loadavg", "0.1 0.2 0.3 2/150 999\n");
            fake.write("proc/self/fd/0", "");
            fake
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn group(&self, unified: bool) -> Vec<Cgroup> {
            vec![Cgroup { mount: self.0.path().join("cgroup"), path: "a/b".into(), unified }]
        }

        fn host(&self) -> ProcHost {
            ProcHost {
                proc: self.0.path().join("proc"),
                memory_groups: Vec::new(),
                process_groups: Vec::new(),
                user_processes: None,
                uid: fs::metadata(self.0.path()).unwrap().uid(),
                cores: 2,
            }
        }
    }

    #[test]
    fn a_machine_without_control_groups_is_read() {
        let readings = Fake::new().host().read().unwrap();
        assert_eq!((readings.memory_available_bytes, readings.memory_total_bytes), (600 << 10, 1000 << 10));
        assert_eq!((readings.processes_used, readings.processes_limit), (150, 3000));
        assert!(readings.descriptors_used > 0 && readings.cores == 2);
    }

    #[test]
    fn the_tightest_control_group_of_memory_holds() {
        let fake = Fake::new();
        fake.write("cgroup/a/memory.max", "500000\n");
        fake.write("cgroup/a/memory.current", "450000\n");
        fake.write("cgroup/a/memory.stat", "anon 1\ninactive_file 50000\n");
        fake.write("cgroup/a/b/memory.max", "max\n");
        fake.write("cgroup/a/b/memory.current", "1\n");
        let host = ProcHost { memory_groups: fake.group(true), ..fake.host() };
        assert_eq!(host.memory(), Ok((100_000, 500_000)));

        fake.write("cgroup/memory.limit_in_bytes", "9223372036854771712\n");
        fake.write("cgroup/memory.usage_in_bytes", "5\n");
        fake.write("cgroup/a/b/memory.limit_in_bytes", "300000\n");
        fake.write("cgroup/a/b/memory.usage_in_bytes", "290000\n");
        let host = ProcHost { memory_groups: fake.group(false), ..fake.host() };
        assert_eq!(host.memory(), Ok((10_000, 300_000)));
    }

    #[test]
    fn the_nearest_limit_of_processes_holds() {
        let fake = Fake::new();
        fake.write("cgroup/a/pids.max", "200\n");
        fake.write("cgroup/a/pids.current", "20\n");
        fake.write("cgroup/a/b/pids.max", "max\n");
        let host = ProcHost { process_groups: fake.group(true), ..fake.host() };
        assert_eq!(host.processes(), Ok((20, 200)));
        // All tasks of the machine are a good enough measure while the limit is far away.
        let host = ProcHost { user_processes: Some(301), ..fake.host() };
        assert_eq!(host.processes(), Ok((150, 301)));
        fake.write("proc/77/status", "Name:\tx\nThreads:\t40\n");
        let host = ProcHost { user_processes: Some(100), ..fake.host() };
        assert_eq!(host.processes(), Ok((40, 100)));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_the_file() {
        let fake = Fake::new();
        fake.write("proc/meminfo", "MemTotal: 1000 kB\n");
        let error = fake.host().read().unwrap_err();
        assert!(error.path.ends_with("proc/meminfo") && error.kind == io::ErrorKind::InvalidData, "{error}");
        fs::remove_file(fake.0.path().join("proc/meminfo")).unwrap();
        let error = fake.host().read().unwrap_err();
        assert!(error.to_string().ends_with("proc/meminfo: entity not found"), "{error}");
    }

    #[test]
    fn this_machine_is_read() {
        let host = ProcHost::new();
        let readings = host.read().unwrap();
        assert!(readings.memory_available_bytes > 0, "{readings:?}");
        assert!(readings.memory_available_bytes <= readings.memory_total_bytes, "{readings:?}");
        assert!((3..readings.descriptors_limit).contains(&readings.descriptors_used), "{readings:?}");
        assert!((1..readings.processes_limit).contains(&readings.processes_used), "{readings:?}");
        assert!(readings.cores > 0, "{readings:?}");
    }
}
