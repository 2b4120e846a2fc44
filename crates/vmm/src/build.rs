//! From a spec to a kernel that is ready to run.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use lg_control::{
    Access, Fault, FaultKind, ForkSpec, Image, Outcome, Program, SandboxSpec, StartFailureKind, Stdio,
    SyscallTrace, Wall,
};
use lg_kernel::fs::host::Image as KernelImage;
use lg_kernel::fs::hostfs::HostAccess;
use lg_kernel::fs::memfs::MemLimits;
use lg_kernel::fs::root::{HostMount, RootConfig, RootError, build_root};
use lg_kernel::operator::{LaunchError, Launched, Stdio as KernelStdio};
use lg_kernel::task::{Credentials, Tid};
use lg_kernel::{FirstProgram, Identity, Kernel, KernelConfig, LimitError, StartError};
use lg_kvm::{KvmConfig, KvmPlatform};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::jail::{self, Jail, Role};
use crate::{Streams, describe};

/// One unit of bookkeeping of the root file system (an inode, a name) for so many bytes of memory. A unit takes
/// some 300 bytes of the host's.
const BYTES_PER_UNIT: u64 = 2048;

/// Builds the VM, the kernel and its files, and the jail around this process; nothing of the guest runs yet. Returns the
/// walls that stand, too. Another process may go on, see [`Jail::begin`].
pub fn build(spec: &SandboxSpec, signals: Vec<i32>, role: Role) -> Result<(Kernel, Vec<Wall>), Outcome> {
    spec.validate_with(spec.runs()).map_err(|error| failed(StartFailureKind::Spec, &error))?;
    let spec = &jail::resolved(spec.clone());
    let config =
        KvmConfig { interrupting_signals: signals, ..KvmConfig::new(page_multiple(spec.memory_bytes)) };
    let config = config.opened().map_err(|error| host_failed(&error))?;
    // A VM comes later: the host's kernel may give it a thread of this process, and only a process with one thread
    // can enter a user namespace.
    let jail = Jail::begin(spec, role).map_err(|error| failed(StartFailureKind::Policy, &error))?;
    let config = config.with_pagemap();
    // What follows sees of the host what was granted.
    let jail = jail.enter().map_err(|error| failed(StartFailureKind::Policy, &error))?;
    let platform = KvmPlatform::new(config).map_err(|error| host_failed(&error))?;
    let trace: Option<Box<dyn FnMut(&str)>> = match spec.syscall_trace {
        SyscallTrace::Off => None,
        // A trace that nobody takes any more keeps no guest from running.
        SyscallTrace::Stderr => {
            Some(Box::new(|line| drop(writeln!(std::io::stderr(), "{}", lg_control::printable(line)))))
        }
    };
    let kernel = Kernel::new(
        Box::new(platform),
        KernelConfig { hostname: spec.hostname.clone().into_bytes(), limits: limits(spec), trace },
    )
    .map_err(|error| failed(StartFailureKind::Memory, &error))?;
    let superuser = Credentials::new(0, 0);
    let cx = kernel.fs_context_for(&superuser, Tid(0));
    build_root(&cx, &root_config(spec)).map_err(|error| match &error {
        RootError::Source { .. } | RootError::Target { .. } => failed(StartFailureKind::Mount, &error),
        _ => failed(StartFailureKind::Image, &error),
    })?;
    let walls = jail.lock().map_err(|error| failed(StartFailureKind::Policy, &error))?;
    Ok((kernel, walls))
}

/// Starts the program of the spec; the sandbox ends with it.
pub fn start(kernel: &mut Kernel, spec: &SandboxSpec, streams: Streams) -> Result<(), Outcome> {
    let program = Program {
        command: spec.command.clone(),
        env: spec.env.clone(),
        workdir: spec.workdir.clone(),
        user: spec.user,
        stdio: vec![Stdio::Descriptor; streams.len()],
    };
    let launched = launch(kernel, &program, streams.into()).map_err(|fault| match fault.kind {
        FaultKind::Start(kind) => Outcome::start_failed(kind, fault.message),
        _ => Outcome::Failed(fault.message),
    })?;
    kernel.end_with(launched.process);
    Ok(())
}

/// Launches a program with the descriptors that came with it, of which there are as many as it needs.
pub fn launch(kernel: &mut Kernel, program: &Program, descriptors: Vec<OwnedFd>) -> Result<Launched, Fault> {
    let mut descriptors = descriptors.into_iter();
    let stdio = program.stdio.iter().map(|stdio| {
        Ok(match stdio {
            Stdio::Null => KernelStdio::Null,
            Stdio::In => KernelStdio::In,
            Stdio::Out => KernelStdio::Out,
            Stdio::Terminal(terminal) => {
                KernelStdio::Terminal { rows: terminal.rows, columns: terminal.columns }
            }
            Stdio::Same(fd) => KernelStdio::Same(*fd),
            Stdio::Descriptor => KernelStdio::Host(
                descriptors
                    .next()
                    .ok_or_else(|| Fault::new(FaultKind::Invalid, "a descriptor is missing"))?,
            ),
        })
    });
    let stdio = stdio.collect::<Result<Vec<_>, Fault>>()?;
    kernel.launch_with(first_program(program), stdio).map_err(|error| match &error {
        LaunchError::Start(start) => launch_failure(program, start),
        LaunchError::Descriptor { errno, .. } => {
            Fault::new(FaultKind::Errno(errno.number()), format!("cannot pass a stream on: {error}"))
        }
    })
}

/// Moves this process to some of the host's processors.
pub fn run_on(cpus: &[u16]) -> Result<(), Outcome> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if usize::from(*cpu) >= CpuSet::MAX_CPU {
            let message = format!("processor {cpu} is beyond the {} that can be named", CpuSet::MAX_CPU);
            return Err(Outcome::start_failed(StartFailureKind::Policy, message));
        }
        set.set(usize::from(*cpu));
    }
    sched_setaffinity(None, &set).map_err(|error| {
        Outcome::start_failed(StartFailureKind::Policy, format!("cannot run on processors {cpus:?}: {error}"))
    })
}

/// Gives a fork its own limits and identity.
pub fn apply_fork(kernel: &mut Kernel, spec: &ForkSpec) -> Result<(), Outcome> {
    if let Some(hostname) = &spec.hostname {
        lg_control::check_hostname(hostname).map_err(|error| failed(StartFailureKind::Spec, &error))?;
    }
    let hostname = spec.hostname.as_ref().map(|name| name.clone().into_bytes());
    kernel.become_fork(Identity { hostname }).map_err(|error| failed(StartFailureKind::Image, &error))?;
    if !spec.limits.is_empty() {
        set_limits(kernel, &spec.limits)
            .map_err(|error| Outcome::start_failed(StartFailureKind::Policy, describe(&error)))?;
    }
    if let Some(signal) = spec.notify.and_then(|number| lg_kernel::Signal::new(u64::from(number))) {
        kernel.signal_handlers(signal);
    }
    Ok(())
}

/// Sets the limits that are given; the others stay.
pub fn set_limits(kernel: &mut Kernel, limits: &lg_control::Limits) -> Result<(), LimitError> {
    let lg_control::Limits {
        memory_bytes,
        max_processes,
        max_open_files,
        file_bytes,
        output_bytes,
        cpu_time,
        timeout,
    } = limits;
    let now = *kernel.limits();
    kernel.set_limits(lg_kernel::Limits {
        memory_pages: memory_bytes.map_or(now.memory_pages, pages),
        processes: max_processes.unwrap_or(now.processes),
        open_files: max_open_files.unwrap_or(now.open_files),
        file_bytes: file_bytes.unwrap_or(now.file_bytes),
        output_bytes: output_bytes.unwrap_or(now.output_bytes),
        cpu_ns: cpu_time.map(nanoseconds).or(now.cpu_ns),
        deadline_ns: timeout.map(nanoseconds).or(now.deadline_ns),
    })
}

/// Sets the limits that are given, of time and processor time counted from now.
pub fn set_limits_from_now(kernel: &mut Kernel, limits: &lg_control::Limits) -> Result<(), LimitError> {
    let usage = kernel.usage();
    let from_now = |time: Option<Duration>, used_ns: u64| {
        time.map(|time| time.saturating_add(Duration::from_nanos(used_ns)))
    };
    let limits = lg_control::Limits {
        cpu_time: from_now(limits.cpu_time, usage.cpu_ns),
        timeout: from_now(limits.timeout, usage.wall_ns),
        ..*limits
    };
    set_limits(kernel, &limits)
}

/// What part of the memory files leave to programs where nothing else is asked for: who fills the file system gets ENOSPC, and
/// whoever is to clear it up can run.
const PROGRAMS_PART: u64 = 8;

fn limits(spec: &SandboxSpec) -> lg_kernel::Limits {
    lg_kernel::Limits {
        processes: spec.max_processes,
        open_files: spec.max_open_files,
        file_bytes: spec.file_bytes.unwrap_or(spec.memory_bytes - spec.memory_bytes / PROGRAMS_PART),
        output_bytes: spec.output_bytes.unwrap_or(u64::MAX),
        cpu_ns: spec.cpu_time.map(nanoseconds),
        deadline_ns: spec.timeout.map(nanoseconds),
        ..lg_kernel::Limits::with_memory(pages(spec.memory_bytes))
    }
}

fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / lg_kernel::PAGE_BYTES).unwrap_or(u32::MAX)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn page_multiple(bytes: u64) -> u64 {
    bytes & !4095
}

fn failed(kind: StartFailureKind, error: &dyn std::error::Error) -> Outcome {
    Outcome::start_failed(kind, describe(error))
}

/// A start that the host did not allow: for lack of something, or since its virtual machines are not usable.
pub fn host_failed(error: &(dyn std::error::Error + 'static)) -> Outcome {
    Outcome::start_failed(lacking(error).unwrap_or(StartFailureKind::Kvm), describe(error))
}

/// What the host had too little of, if that is why a system call failed, by its errno: fork(2), open(2), mmap(2).
pub fn lacking(error: &(dyn std::error::Error + 'static)) -> Option<StartFailureKind> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut errnos = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error());
    errnos.find_map(|errno| match Errno::from_raw_os_error(errno) {
        Errno::AGAIN => Some(StartFailureKind::Processes),
        Errno::MFILE | Errno::NFILE => Some(StartFailureKind::Descriptors),
        Errno::NOMEM => Some(StartFailureKind::Memory),
        _ => None,
    })
}

fn root_config(spec: &SandboxSpec) -> RootConfig {
    let mounts = spec.mounts.iter().map(|mount| HostMount {
        source: mount.source.clone(),
        target: mount.target.as_os_str().as_bytes().to_vec(),
        access: match mount.access {
            Access::ReadOnly => HostAccess::ReadOnly,
            Access::ReadWrite => HostAccess::ReadWrite,
        },
    });
    RootConfig {
        image: match &spec.image {
            Image::Host => KernelImage::Host,
            Image::Dir(path) => KernelImage::Dir(path.clone()),
        },
        mounts: mounts.collect(),
        hostname: spec.hostname.clone().into_bytes(),
        limits: MemLimits { units: spec.memory_bytes / BYTES_PER_UNIT, ..MemLimits::default() },
        shm_pages: spec.memory_bytes / 2 / 4096,
    }
}

fn first_program(program: &Program) -> FirstProgram {
    let path = program.env.iter().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, value)| value.as_bytes().to_vec()).unwrap_or_default();
    FirstProgram {
        argv: program.command.iter().map(|word| word.clone().into_vec()).collect(),
        envp: program
            .env
            .iter()
            .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
            .collect(),
        search: path.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect(),
        workdir: program.workdir.as_os_str().as_bytes().to_vec(),
        creds: Credentials::new(program.user.uid, program.user.gid),
    }
}

fn launch_failure(program: &Program, error: &StartError) -> Fault {
    let kind = match error {
        StartError::NotFound => StartFailureKind::NotFound,
        StartError::NotExecutable(_) => StartFailureKind::NotExecutable,
        StartError::OutOfMemory | StartError::TooManyProcesses => StartFailureKind::Memory,
        StartError::BadWorkdir(_) => StartFailureKind::Workdir,
    };
    let name = match error {
        StartError::BadWorkdir(_) => program.workdir.as_os_str(),
        _ => program.command.first().map(|word| word.as_os_str()).unwrap_or_default(),
    };
    Fault::new(FaultKind::Start(kind), format!("{}: {error}", name.to_string_lossy()))
}
