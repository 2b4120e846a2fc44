//! From a spec to a kernel that is ready to run.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use lg_control::{Access, Image, Outcome, SandboxSpec, StartFailureKind, SyscallTrace};
use lg_kernel::fs::host::{Image as KernelImage, ImageError};
use lg_kernel::fs::hostfs::HostAccess;
use lg_kernel::fs::hostio::{as_terminal, open_streams};
use lg_kernel::fs::memfs::MemLimits;
use lg_kernel::fs::root::{HostMount, RootConfig, RootError, build_root};
use lg_kernel::task::{Credentials, Tid};
use lg_kernel::vfs::{FdTable, OnExec};
use lg_kernel::{FirstProgram, Kernel, KernelConfig, Limits, StartError};
use lg_kvm::{KvmConfig, KvmPlatform};

use crate::{Streams, describe};

/// How many descriptors the three streams take.
const STREAM_LIMIT: u64 = 3;

/// One unit of bookkeeping of the root file system (an inode, a name) for so many bytes of memory. A unit takes
/// some 300 bytes of the host's.
const BYTES_PER_UNIT: u64 = 2048;

/// Builds the VM, the kernel, its files and its first program.
pub fn build(spec: &SandboxSpec, streams: Streams, signals: Vec<i32>) -> Result<Kernel, Outcome> {
    spec.validate().map_err(|error| failed(StartFailureKind::Spec, &error))?;
    let config =
        KvmConfig { interrupting_signals: signals, ..KvmConfig::new(page_multiple(spec.memory_bytes)) };
    let platform = KvmPlatform::new(config).map_err(|error| failed(StartFailureKind::Kvm, &error))?;
    let trace: Option<Box<dyn FnMut(&str)>> = match spec.syscall_trace {
        SyscallTrace::Off => None,
        SyscallTrace::Stderr => Some(Box::new(|line| eprintln!("{line}"))),
    };
    let mut kernel = Kernel::new(
        Box::new(platform),
        KernelConfig { hostname: spec.hostname.clone().into_bytes(), limits: limits(spec), trace },
    )
    .map_err(|error| failed(StartFailureKind::Memory, &error))?;
    let superuser = Credentials::new(0, 0);
    let (root, fds, terminal) = {
        let cx = kernel.fs_context_for(&superuser, Tid(0));
        let root = build_root(&cx, &root_config(spec)).map_err(|error| match &error {
            RootError::Image(ImageError::Open { .. }) | RootError::Mount { .. } => {
                failed(StartFailureKind::Image, &error)
            }
            RootError::Source { .. } | RootError::Target { .. } => failed(StartFailureKind::Mount, &error),
            _ => failed(StartFailureKind::Image, &error),
        })?;
        let mut fds = FdTable::new(&cx);
        let stream_failed =
            |error: lg_kernel::Errno| Outcome::Failed(format!("cannot pass a standard stream on: {error}"));
        let mut terminal = None;
        for stream in open_streams(&cx, streams).map_err(stream_failed)? {
            terminal = terminal.or(as_terminal(&stream.file));
            fds.insert(stream, OnExec::Keep, STREAM_LIMIT).map_err(stream_failed)?;
        }
        (root, fds, terminal)
    };
    if let Some(terminal) = terminal {
        kernel.set_terminal(terminal);
    }
    kernel.start(&root, fds, first_program(spec)).map_err(|error| start_failure(spec, &error))?;
    Ok(kernel)
}

fn limits(spec: &SandboxSpec) -> Limits {
    let memory_pages = u32::try_from(spec.memory_bytes / 4096).unwrap_or(u32::MAX);
    Limits {
        processes: spec.max_processes,
        deadline_ns: spec.timeout.map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)),
        ..Limits::with_memory(memory_pages)
    }
}

fn page_multiple(bytes: u64) -> u64 {
    bytes & !4095
}

fn failed(kind: StartFailureKind, error: &dyn std::error::Error) -> Outcome {
    Outcome::start_failed(kind, describe(error))
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

fn first_program(spec: &SandboxSpec) -> FirstProgram {
    let path = spec.env_value("PATH").map(|path| path.as_bytes().to_vec()).unwrap_or_default();
    FirstProgram {
        argv: spec.command.iter().map(|word| word.clone().into_vec()).collect(),
        envp: spec
            .env
            .iter()
            .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
            .collect(),
        search: path.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect(),
        workdir: spec.workdir.as_os_str().as_bytes().to_vec(),
        creds: Credentials::new(spec.user.uid, spec.user.gid),
    }
}

fn start_failure(spec: &SandboxSpec, error: &StartError) -> Outcome {
    let kind = match error {
        StartError::NotFound => StartFailureKind::NotFound,
        StartError::NotExecutable(_) => StartFailureKind::NotExecutable,
        StartError::OutOfMemory => StartFailureKind::Memory,
        StartError::BadWorkdir(_) => StartFailureKind::Workdir,
    };
    let name = match error {
        StartError::BadWorkdir(_) => spec.workdir.as_os_str(),
        _ => spec.command.first().map(|word| word.as_os_str()).unwrap_or_default(),
    };
    Outcome::start_failed(kind, format!("{}: {error}", name.to_string_lossy()))
}
