//! A control group of the host around vmms: [`Cgroup`].
//!
//! The limits of a sandbox are enforced by its own kernel. A control group stands behind them, around all that a
//! template and its forks take of the host together: a fork is born in the group of its template, so it costs
//! nothing when a sandbox is spawned. Both versions are served (cgroups(7)): version 2 where the controllers are in the
//! one hierarchy, else version 1.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long the processes of a group have to be gone when it is removed.
const REMOVE_PATIENCE: Duration = Duration::from_secs(3);
/// The period of a processor quota, in microseconds: the host's default.
const CPU_PERIOD_US: u64 = 100_000;

/// What the processes of a group may use together. At least one must be given.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CgroupLimits {
    /// Memory of the host, page tables and kernel memory included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the host. Each sandbox is one process, a thread of KVM's, and on PVM, while it makes many
    /// system calls, a second thread of its own.
    pub processes: Option<u64>,
    /// Processors: 1.5 is one and a half.
    pub cpus: Option<f64>,
}

/// Why there is no control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No limit was given, or one that is none.
    #[error("a control group needs at least one limit, and each above zero")]
    NoLimit,
    /// The host has no hierarchy with this controller.
    #[error("the host has no control groups with the controller `{controller}`")]
    NoController {
        /// Its name.
        controller: &'static str,
    },
    /// The host refuses.
    #[error("cannot {doing} {}: run as a user who may, or without a control group", path.display())]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// A control group made by this process. Dropping it removes it, once its processes are gone.
#[derive(Debug)]
pub struct Cgroup {
    /// One directory for each hierarchy.
    directories: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes a group with these limits, beneath that of this process.
    ///
    /// # Errors
    /// See [`CgroupError`]. Nothing is left behind then.
    pub fn create(limits: &CgroupLimits) -> Result<Self, CgroupError> {
        Self::create_in(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/cgroup"), limits)
    }

    fn create_in(root: &Path, membership: &Path, limits: &CgroupLimits) -> Result<Self, CgroupError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let settings = limits.settings()?;
        let name = format!("luminaguard-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut group = Self { directories: Vec::new() };
        for setting in settings {
            let (directory, files) = locate(root, membership, &name, &setting)?;
            if !group.directories.contains(&directory) {
                refused("make", &directory, fs::create_dir(&directory))?;
                group.directories.push(directory.clone());
            }
            for (file, value) in files {
                let path = directory.join(file);
                refused("write", &path, fs::write(&path, value))?;
            }
        }
        Ok(group)
    }

    /// Moves a process into the group. What it forks from then on is born there.
    pub(crate) fn add(&self, pid: u32) -> Result<(), CgroupError> {
        for directory in &self.directories {
            let path = directory.join("cgroup.procs");
            refused("move a process to", &path, fs::write(&path, pid.to_string()))?;
        }
        Ok(())
    }

    /// Where it is, one directory for each hierarchy.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that are just ending keep it busy for a moment; whatever else is in the way may pass as well.
        let started = std::time::Instant::now();
        while !self.directories.is_empty() {
            self.directories.retain(|directory| {
                matches!(fs::remove_dir(directory), Err(error) if error.kind() != io::ErrorKind::NotFound)
            });
            if started.elapsed() > REMOVE_PATIENCE {
                return;
            }
            if !self.directories.is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// One limit, as both versions write it.
struct Setting {
    controller: &'static str,
    v1: Vec<(&'static str, String)>,
    v2: Vec<(&'static str, String)>,
}

impl CgroupLimits {
    fn settings(&self) -> Result<Vec<Setting>, CgroupError> {
        let mut settings = Vec::new();
        if let Some(bytes) = self.memory_bytes {
            settings.push(Setting {
                controller: "memory",
                v1: vec![("memory.limit_in_bytes", bytes.to_string())],
                v2: vec![("memory.max", bytes.to_string())],
            });
        }
        if let Some(count) = self.processes {
            let max = vec![("pids.max", count.to_string())];
            settings.push(Setting { controller: "pids", v1: max.clone(), v2: max });
        }
        if let Some(cpus) = self.cpus {
            let quota = (cpus * CPU_PERIOD_US as f64) as u64;
            settings.push(Setting {
                controller: "cpu",
                v1: vec![
                    ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
                    ("cpu.cfs_quota_us", quota.to_string()),
                ],
                v2: vec![("cpu.max", format!("{quota} {CPU_PERIOD_US}"))],
            });
        }
        let is_zero = self.memory_bytes == Some(0)
            || self.processes == Some(0)
            || self.cpus.is_some_and(|cpus| !cpus.is_finite() || cpus < 0.01);
        if settings.is_empty() || is_zero {
            return Err(CgroupError::NoLimit);
        }
        Ok(settings)
    }
}

/// Finds out where the group of a setting is to be, and what to write there.
fn locate(
    root: &Path,
    membership: &Path,
    name: &str,
    setting: &Setting,
) -> Result<(PathBuf, Vec<(&'static str, String)>), CgroupError> {
    let controller = setting.controller;
    let membership = refused("read", membership, fs::read_to_string(membership))?;
    let own = |wanted: &dyn Fn(&str, &str) -> bool| {
        membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(number, controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    // Version 2: the controller must be given to the children of this process's group.
    if let Some(path) = own(&|number, controllers| number == "0" && controllers.is_empty()) {
        let parent = root.join(path);
        let listed = |file: &str| {
            let path = parent.join(file);
            let text = if_there(&path, fs::read_to_string(&path))?.unwrap_or_default();
            Ok(text.split_ascii_whitespace().any(|word| word == controller))
        };
        if listed("cgroup.controllers")? {
            if !listed("cgroup.subtree_control")? {
                let file = parent.join("cgroup.subtree_control");
                refused("write", &file, fs::write(&file, format!("+{controller}")))?;
            }
            return Ok((parent.join(name), setting.v2.clone()));
        }
    }
    let has = |_: &str, controllers: &str| controllers.split(',').any(|word| word == controller);
    let path = own(&has).ok_or(CgroupError::NoController { controller })?;
    let mounted = root.join(controller).join(path);
    let processes = mounted.join("cgroup.procs");
    if if_there(&processes, processes.metadata())?.is_none() {
        return Err(CgroupError::NoController { controller });
    }
    Ok((mounted.join(name), setting.v1.clone()))
}

/// What the host answers about a file, if it is there.
fn if_there<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, CgroupError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => refused("read", path, result).map(Some),
    }
}

fn refused<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, CgroupError> {
    result.map_err(|source| CgroupError::Refused { doing, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> CgroupLimits {
        CgroupLimits { memory_bytes: Some(1 << 30), processes: Some(100), cpus: Some(1.5) }
    }

    fn host(membership: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let file = directory.path().join("self-cgroup");
        fs::write(&file, membership).unwrap();
        (directory, file)
    }

    #[test]
    fn version_two_has_one_directory_for_all() {
        let (root, membership) = host(
            "0::/slice/me\n",
            &[
                ("slice/me/cgroup.controllers", "cpu memory pids"),
                ("slice/me/cgroup.subtree_control", "cpu memory pids"),
            ],
        );
        let group = Cgroup::create_in(root.path(), &membership, &limits()).unwrap();
        let [directory] = group.directories() else { panic!("{group:?}") };
        assert_eq!(directory.parent(), Some(&*root.path().join("slice/me")));
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!((read("memory.max"), read("pids.max")), ("1073741824".to_owned(), "100".to_owned()));
        assert_eq!(read("cpu.max"), "150000 100000");
    }

    #[test]
    fn version_one_has_a_directory_for_each_hierarchy() {
        let (root, membership) = host(
            "5:pids:/\n4:cpu,cpuacct:/a\n2:memory:/b\n",
            &[("pids/cgroup.procs", ""), ("cpu/a/cgroup.procs", ""), ("memory/b/cgroup.procs", "")],
        );
        let group = Cgroup::create_in(root.path(), &membership, &limits()).unwrap();
        assert_eq!(group.directories().len(), 3);
        let quota = group.directories()[2].join("cpu.cfs_quota_us");
        assert_eq!(fs::read_to_string(quota).unwrap(), "150000");
        assert!(group.directories()[0].starts_with(root.path().join("memory/b")));
    }

    #[test]
    fn a_limit_that_cannot_be_had_is_an_error_and_leaves_nothing() {
        let (root, membership) = host("2:memory:/\n", &[("memory/cgroup.procs", "")]);
        let error = Cgroup::create_in(root.path(), &membership, &limits()).unwrap_err();
        assert!(matches!(error, CgroupError::NoController { controller: "pids" }), "{error}");
        // What was made has files in it, which a real group has not: so it stays here.
        for limits in [
            CgroupLimits::default(),
            CgroupLimits { processes: Some(0), ..CgroupLimits::default() },
            CgroupLimits { cpus: Some(f64::NAN), ..CgroupLimits::default() },
        ] {
            let error = Cgroup::create_in(root.path(), &membership, &limits).unwrap_err();
            assert!(matches!(error, CgroupError::NoLimit), "{error}");
        }
    }

    #[test]
    fn a_group_of_this_host_holds_a_process_and_goes_again() {
        let limits = CgroupLimits { processes: Some(10), ..CgroupLimits::default() };
        let group = match Cgroup::create(&limits) {
            Ok(group) => group,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let directory = group.directories()[0].clone();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        group.add(child.id()).unwrap();
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), child.id().to_string());
        child.kill().unwrap();
        child.wait().unwrap();
        drop(group);
        assert!(!directory.exists());
    }
}
