//! What a sandbox is asked to be: [`SandboxSpec`], its defaults and its checks.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Wall;

/// The longest single argument or environment entry, in bytes: Linux's `MAX_ARG_STRLEN`.
pub const MAX_ARG_BYTES: usize = 128 * 1024;
/// The most bytes of arguments and environment together, as with Linux's default stack limit.
pub const MAX_ARGS_TOTAL_BYTES: usize = 2 * 1024 * 1024;
/// The most mounts of one sandbox.
pub const MAX_MOUNTS: usize = 256;
/// The least memory a sandbox can be given, in bytes.
pub const MIN_MEMORY_BYTES: u64 = 8 * 1024 * 1024;
/// The highest value of [`SandboxSpec::max_processes`].
pub const MAX_PROCESSES: u32 = 32_768;

const MAX_PATH_BYTES: usize = 4095;
const MAX_HOSTNAME_BYTES: usize = 64;
const DEFAULT_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
const DEFAULT_MAX_PROCESSES: u32 = 512;
const DEFAULT_MAX_OPEN_FILES: u32 = 65_536;
const DEFAULT_ENV: [(&str, &str); 4] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LC_CTYPE", "C.UTF-8"),
    ("TERM", "xterm-256color"),
];

/// Where the root file system of a sandbox comes from. It is always read only beneath an overlay in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// A view of the host's own programs and libraries, without its secrets.
    Host,
    /// A directory of the host, by absolute path.
    Dir(#[serde(with = "path_as_os_string")] PathBuf),
}

/// What a guest may do with a [`Mount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Read and execute.
    ReadOnly,
    /// Read, execute and write through to the host.
    ReadWrite,
}

/// A directory or file of the host shown in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// An absolute path on the host.
    #[serde(with = "path_as_os_string")]
    pub source: PathBuf,
    /// An absolute path in the guest, without `..`.
    #[serde(with = "path_as_os_string")]
    pub target: PathBuf,
    /// Whether the guest may write.
    pub access: Access,
}

/// Who the guest's first program runs as, inside the sandbox only. No right on the host follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

impl User {
    /// The root of the sandbox: uid 0, gid 0.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// Whether system calls are written to standard error as they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyscallTrace {
    /// Nothing is written.
    Off,
    /// One line per system call.
    Stderr,
}

/// Limits of a fork, where they are to differ from the original's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// See [`SandboxSpec::memory_bytes`]. At most that of the original.
    pub memory_bytes: Option<u64>,
    /// See [`SandboxSpec::max_processes`].
    pub max_processes: Option<u32>,
    /// See [`SandboxSpec::max_open_files`].
    pub max_open_files: Option<u32>,
    /// See [`SandboxSpec::file_bytes`].
    pub file_bytes: Option<u64>,
    /// See [`SandboxSpec::output_bytes`].
    pub output_bytes: Option<u64>,
    /// See [`SandboxSpec::cpu_time`].
    pub cpu_time: Option<Duration>,
    /// See [`SandboxSpec::timeout`]; it counts from the fork.
    pub timeout: Option<Duration>,
}

impl Limits {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what can be checked without the sandbox.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), SpecError> {
        if let Some(bytes) = self.memory_bytes.filter(|bytes| *bytes < MIN_MEMORY_BYTES) {
            return Err(SpecError::TooLittleMemory { bytes });
        }
        if let Some(count) = self.max_processes.filter(|count| *count == 0 || *count > MAX_PROCESSES) {
            return Err(SpecError::BadMaxProcesses { count });
        }
        if self.max_open_files == Some(0) {
            return Err(SpecError::NoOpenFiles);
        }
        if self.timeout.is_some_and(|time| time.is_zero()) || self.cpu_time.is_some_and(|time| time.is_zero())
        {
            return Err(SpecError::ZeroTimeout);
        }
        Ok(())
    }
}

/// Whether a sandbox starts with a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// It runs a program and ends with it.
    Program,
    /// Nothing runs until it is asked to.
    Nothing,
}

/// What to run in a sandbox, and within which limits.
///
/// ```
/// use lg_control::{Access, SandboxSpec};
///
/// let spec = SandboxSpec::new(["python3", "-c", "print(6*7)"])
///     .env("LANG", "C")
///     .mount("/srv/data", "/data", Access::ReadOnly)
///     .memory_bytes(64 << 20)
///     .timeout(std::time::Duration::from_secs(10));
/// spec.validate()?;
/// # Ok::<(), lg_control::SpecError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The root file system.
    pub image: Image,
    /// Host paths shown in the guest, in the order they are mounted.
    pub mounts: Vec<Mount>,
    /// The program, looked up in the guest's `PATH` unless it has a slash, and its arguments.
    pub command: Vec<OsString>,
    /// The whole environment of the program. Nothing of the host's is added.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, absolute, in the guest.
    #[serde(with = "path_as_os_string")]
    pub workdir: PathBuf,
    /// The host name the guest sees.
    pub hostname: String,
    /// The user the program runs as.
    pub user: User,
    /// Guest memory in bytes: programs, page cache and overlay together.
    pub memory_bytes: u64,
    /// The most processes and threads at one time.
    pub max_processes: u32,
    /// Wall-clock time from the first guest instruction until the sandbox is ended, or none.
    pub timeout: Option<Duration>,
    /// Processor time after which the sandbox is ended, or no limit.
    pub cpu_time: Option<Duration>,
    /// The most open files at one time.
    pub max_open_files: u32,
    /// The most bytes that files of the guest hold together; `None` is seven eighths of the memory.
    pub file_bytes: Option<u64>,
    /// The most bytes that programs may write to their streams, after which the sandbox is ended, or no limit.
    pub output_bytes: Option<u64>,
    /// Whether system calls are traced.
    pub syscall_trace: SyscallTrace,
    /// Walls of the vmm's jail that are not built. Every other one is, or the sandbox does not start; but see
    /// [`Wall::Landlock`].
    pub without_walls: Vec<Wall>,
}

impl SandboxSpec {
    /// A spec that runs `command` with the defaults: image `host`, no mounts, 512 MiB, 512 processes, no deadline,
    /// root of the sandbox, working directory `/`, and an environment of `PATH`, `HOME`, `LANG` and `TERM`.
    pub fn new<I, S>(command: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self {
            image: Image::Host,
            mounts: Vec::new(),
            command: command.into_iter().map(Into::into).collect(),
            env: DEFAULT_ENV.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            workdir: PathBuf::from("/"),
            hostname: "luminaguard".to_owned(),
            user: User::ROOT,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            max_processes: DEFAULT_MAX_PROCESSES,
            timeout: None,
            cpu_time: None,
            max_open_files: DEFAULT_MAX_OPEN_FILES,
            file_bytes: None,
            output_bytes: None,
            syscall_trace: SyscallTrace::Off,
            without_walls: Vec::new(),
        }
    }

    /// Sets the root file system.
    #[must_use]
    pub fn image(mut self, image: Image) -> Self {
        self.image = image;
        self
    }

    /// Adds a mount of the host's `source` at the guest's `target`.
    #[must_use]
    pub fn mount(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access) -> Self {
        self.mounts.push(Mount { source: source.into(), target: target.into(), access });
        self
    }

    /// Sets one variable of the guest's environment, replacing an earlier value.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.env.iter_mut().find(|(n, _)| *n == name) {
            Some(entry) => entry.1 = value,
            None => self.env.push((name, value)),
        }
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn workdir(mut self, workdir: impl Into<PathBuf>) -> Self {
        self.workdir = workdir.into();
        self
    }

    /// Sets the host name.
    #[must_use]
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = hostname.into();
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// Sets the memory limit in bytes.
    #[must_use]
    pub fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.memory_bytes = memory_bytes;
        self
    }

    /// Sets the most processes at one time.
    #[must_use]
    pub fn max_processes(mut self, max_processes: u32) -> Self {
        self.max_processes = max_processes;
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the most processor time.
    #[must_use]
    pub fn cpu_time(mut self, cpu_time: Duration) -> Self {
        self.cpu_time = Some(cpu_time);
        self
    }

    /// Sets the most open files at one time.
    #[must_use]
    pub fn max_open_files(mut self, max_open_files: u32) -> Self {
        self.max_open_files = max_open_files;
        self
    }

    /// Sets the most bytes in files.
    #[must_use]
    pub fn file_bytes(mut self, file_bytes: u64) -> Self {
        self.file_bytes = Some(file_bytes);
        self
    }

    /// Sets the most bytes of output.
    #[must_use]
    pub fn output_bytes(mut self, output_bytes: u64) -> Self {
        self.output_bytes = Some(output_bytes);
        self
    }

    /// Sets the tracing of system calls.
    #[must_use]
    pub fn syscall_trace(mut self, trace: SyscallTrace) -> Self {
        self.syscall_trace = trace;
        self
    }

    /// Leaves out a wall of the vmm's jail: for a host that forbids it, and a guest that is trusted.
    #[must_use]
    pub fn without_wall(mut self, wall: Wall) -> Self {
        if !self.without_walls.contains(&wall) {
            self.without_walls.push(wall);
        }
        self
    }

    /// The value of a variable in the guest's environment.
    pub fn env_value(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str())
    }

    /// Says whether it names a program to run.
    pub fn runs(&self) -> Runs {
        if self.command.is_empty() { Runs::Nothing } else { Runs::Program }
    }

    /// Checks everything that can be checked without looking at the host, of a sandbox that runs a program.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_with(Runs::Program)
    }

    /// Checks everything that can be checked without looking at the host.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate_with(&self, runs: Runs) -> Result<(), SpecError> {
        if runs == Runs::Program && self.command.first().is_none_or(|program| program.is_empty()) {
            return Err(SpecError::NoCommand);
        }
        validate_strings(&self.command, &self.env)?;
        if let Image::Dir(path) = &self.image {
            check_path("image directory", path)?;
        }
        self.validate_mounts()?;
        check_path("working directory", &self.workdir)?;
        check_hostname(&self.hostname)?;
        let limits = Limits {
            memory_bytes: Some(self.memory_bytes),
            max_processes: Some(self.max_processes),
            max_open_files: Some(self.max_open_files),
            timeout: self.timeout,
            cpu_time: self.cpu_time,
            file_bytes: self.file_bytes,
            output_bytes: self.output_bytes,
        };
        limits.validate()
    }

    /// Checks the memory limit against what the host has, both in bytes.
    ///
    /// # Errors
    /// [`SpecError::TooMuchMemory`] when the limit is above it.
    pub fn validate_memory(&self, host_memory_bytes: u64) -> Result<(), SpecError> {
        if self.memory_bytes > host_memory_bytes {
            return Err(SpecError::TooMuchMemory { bytes: self.memory_bytes, host_bytes: host_memory_bytes });
        }
        Ok(())
    }

    fn validate_mounts(&self) -> Result<(), SpecError> {
        if self.mounts.len() > MAX_MOUNTS {
            return Err(SpecError::TooManyMounts { count: self.mounts.len() });
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            check_path("mount source", &mount.source)?;
            check_path("mount target", &mount.target)?;
            if mount.target.components().any(|c| c == Component::ParentDir) {
                return Err(SpecError::MountTargetDotDot { path: mount.target.clone() });
            }
            if mount.target == Path::new("/") {
                return Err(SpecError::MountOverRoot);
            }
            if self.mounts[..index].iter().any(|m| m.target == mount.target) {
                return Err(SpecError::DuplicateMount { path: mount.target.clone() });
            }
        }
        Ok(())
    }
}

/// Checks the arguments and the environment of a program.
pub(crate) fn validate_strings(command: &[OsString], env: &[(OsString, OsString)]) -> Result<(), SpecError> {
    let mut total = 0usize;
    for arg in command {
        check_string("argument", arg, arg.len())?;
        total = total.saturating_add(arg.len() + 1);
    }
    for (name, value) in env {
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(SpecError::BadEnvName { name: name.clone() });
        }
        let len = name.len().saturating_add(value.len()).saturating_add(2);
        check_string("environment variable", name, len)?;
        check_string("environment variable", value, len)?;
        total = total.saturating_add(len);
    }
    if total > MAX_ARGS_TOTAL_BYTES {
        return Err(SpecError::ArgumentsTooLong { bytes: total });
    }
    Ok(())
}

fn check_string(what: &'static str, text: &OsStr, entry_len: usize) -> Result<(), SpecError> {
    if text.as_bytes().contains(&0) {
        return Err(SpecError::NulByte { what });
    }
    if entry_len >= MAX_ARG_BYTES {
        return Err(SpecError::StringTooLong { what, bytes: entry_len });
    }
    Ok(())
}

pub(crate) fn check_path(what: &'static str, path: &Path) -> Result<(), SpecError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(SpecError::NulByte { what });
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Err(SpecError::StringTooLong { what, bytes: bytes.len() });
    }
    if !path.is_absolute() {
        return Err(SpecError::RelativePath { what, path: path.to_owned() });
    }
    Ok(())
}

/// Checks that a host name can be one.
///
/// # Errors
/// [`SpecError::BadHostname`].
pub fn check_hostname(name: &str) -> Result<(), SpecError> {
    let fits = !name.is_empty() && name.len() <= MAX_HOSTNAME_BYTES;
    if !fits || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_') {
        return Err(SpecError::BadHostname { name: name.to_owned() });
    }
    Ok(())
}

/// Why a [`SandboxSpec`] cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no program to run.
    #[error("no command: give a program to run after `--`")]
    NoCommand,
    /// A string holds a NUL byte.
    #[error("{what} holds a NUL byte: remove it")]
    NulByte {
        /// Which kind of string.
        what: &'static str,
    },
    /// A string is longer than Linux allows.
    #[error("{what} is {bytes} bytes long: shorten it")]
    StringTooLong {
        /// Which kind of string.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// Arguments and environment together are longer than Linux allows.
    #[error("arguments and environment are {bytes} bytes together: keep them below {MAX_ARGS_TOTAL_BYTES}")]
    ArgumentsTooLong {
        /// Their length in bytes.
        bytes: usize,
    },
    /// A variable's name is empty or holds `=`.
    #[error("environment variable name {name:?} is not usable: give it as NAME=VALUE")]
    BadEnvName {
        /// The name.
        name: OsString,
    },
    /// A path that must be absolute is not.
    #[error("{what} {} is not absolute: start it with /", path.display())]
    RelativePath {
        /// Which path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A mount target holds `..`.
    #[error("mount target {} holds `..`: give the plain path", path.display())]
    MountTargetDotDot {
        /// The path.
        path: PathBuf,
    },
    /// A mount would replace the root file system.
    #[error("a mount cannot replace /: use --image dir:PATH for another root file system")]
    MountOverRoot,
    /// Two mounts have one target.
    #[error("two mounts at {}: remove one", path.display())]
    DuplicateMount {
        /// The path.
        path: PathBuf,
    },
    /// There are too many mounts.
    #[error("{count} mounts: at most {MAX_MOUNTS} are possible")]
    TooManyMounts {
        /// How many were asked for.
        count: usize,
    },
    /// The host name is empty, too long, or holds other characters than letters, digits, `-`, `_` and `.`.
    #[error("host name {name:?} is not usable: use 1 to 64 letters, digits, `-`, `_` or `.`")]
    BadHostname {
        /// The name.
        name: String,
    },
    /// The memory limit is below what a sandbox needs.
    #[error("a memory limit of {bytes} bytes is too small: give at least {}M", MIN_MEMORY_BYTES >> 20)]
    TooLittleMemory {
        /// The limit in bytes.
        bytes: u64,
    },
    /// The memory limit is above what the host has.
    #[error("a memory limit of {}M is more than this machine has: give at most {}M", bytes >> 20, host_bytes >> 20)]
    TooMuchMemory {
        /// The limit in bytes.
        bytes: u64,
        /// The host's memory in bytes.
        host_bytes: u64,
    },
    /// The process limit is zero or too high.
    #[error("a limit of {count} processes is not possible: give 1 to {MAX_PROCESSES}")]
    BadMaxProcesses {
        /// The limit.
        count: u32,
    },
    /// No file may be open.
    #[error("a limit of no open files is not possible: give at least 1")]
    NoOpenFiles,
    /// A program is to have more descriptors than possible.
    #[error("{count} descriptors for a program: at most {} are possible", crate::operation::MAX_STDIO)]
    TooManyDescriptors {
        /// How many were asked for.
        count: usize,
    },
    /// A descriptor is to be the same as a later one.
    #[error("a descriptor can only be the same as an earlier one")]
    LaterDescriptor,
    /// The deadline or the limit of processor time is zero.
    #[error("a timeout of zero ends nothing: give a positive duration, or leave it out for no deadline")]
    ZeroTimeout,
}

/// Paths travel as bytes: serde's own form refuses those that are not UTF-8.
pub(crate) mod path_as_os_string {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(deserializer).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(change: impl FnOnce(SandboxSpec) -> SandboxSpec) -> String {
        change(SandboxSpec::new(["true"])).validate().expect_err("the spec should be refused").to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let spec = SandboxSpec::new(["true"]);
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.memory_bytes, 512 << 20);
        assert_eq!(spec.timeout, None);
        assert_eq!(spec.env_value("HOME"), Some(OsStr::new("/root")));
    }

    #[test]
    fn a_later_variable_replaces_an_earlier_one() {
        let spec = SandboxSpec::new(["true"]).env("A", "1").env("A", "2");
        assert_eq!(spec.env_value("A"), Some(OsStr::new("2")));
        assert_eq!(spec.env.len(), DEFAULT_ENV.len() + 1);
    }

    #[test]
    fn each_rule_has_a_message_that_says_what_to_do() {
        let cases: [(String, &str); 13] = [
            (broken(|_| SandboxSpec::new::<_, &str>([])), "give a program"),
            (broken(|_| SandboxSpec::new([""])), "give a program"),
            (broken(|_| SandboxSpec::new(["a\0b"])), "NUL byte"),
            (broken(|s| s.env("A=B", "1")), "NAME=VALUE"),
            (broken(|s| s.env("A", "x".repeat(MAX_ARG_BYTES))), "shorten"),
            (broken(|s| s.workdir("src")), "start it with /"),
            (broken(|s| s.mount("/a", "/", Access::ReadOnly)), "--image dir:PATH"),
            (broken(|s| s.mount("/a", "/b/../c", Access::ReadOnly)), "plain path"),
            (
                broken(|s| s.mount("/a", "/b", Access::ReadOnly).mount("/c", "/b", Access::ReadOnly)),
                "remove one",
            ),
            (broken(|s| s.hostname("a b")), "letters, digits"),
            (broken(|s| s.memory_bytes(1 << 20)), "give at least 8M"),
            (broken(|s| s.max_processes(0)), "give 1 to 32768"),
            (broken(|s| s.timeout(Duration::ZERO)), "positive duration"),
        ];
        for (message, part) in cases {
            assert!(message.contains(part), "{message:?} should contain {part:?}");
            assert!(!message.contains('\n'), "{message:?} should be one line");
        }
    }

    #[test]
    fn more_memory_than_the_host_has_is_refused() {
        let spec = SandboxSpec::new(["true"]).memory_bytes(4 << 30);
        assert_eq!(spec.validate_memory(4 << 30), Ok(()));
        let error = spec.validate_memory(2 << 30).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a memory limit of 4096M is more than this machine has: give at most 2048M"
        );
    }
}
