//! Sandboxes as async values: start, talk to, wait for and end a program in a micro-VM.
//!
//! ```no_run
//! use lg_runtime::{Sandbox, Stream};
//! use tokio::io::AsyncReadExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut sandbox = Sandbox::builder(["python3", "-c", "print(6*7)"])
//!     .memory_bytes(128 << 20)
//!     .stdout(Stream::Piped)
//!     .spawn()
//!     .await?;
//! let mut text = String::new();
//! sandbox.stdout.take().expect("stdout is piped").read_to_string(&mut text).await?;
//! let report = sandbox.wait().await?;
//! assert_eq!(text, "42\n");
//! println!("{} system calls, ready after {:?}", report.stats.exits.syscalls, sandbox.spawn_latency());
//! # Ok(())
//! # }
//! ```
//!
//! Each sandbox is one process of the host, the *vmm*, which holds the VM and its kernel. This crate starts that
//! process ([`Launcher`] says from which binary), talks to it over a control socket (`lg_control`), and
//! sees to it that it is gone:
//!
//! - [`Sandbox::wait`] and [`Sandbox::kill`] return when the vmm has been reaped.
//! - Dropping a [`Sandbox`] kills the vmm at once; a thread reaps it.
//! - When this process dies, even by SIGKILL, the kernel closes the control sockets and each vmm ends itself.
//!
//! Nothing here runs guest code, and nothing of a guest is trusted: what it writes arrives as bytes of a pipe,
//! what its vmm reports is decoded with limits.

#![forbid(unsafe_code)]

pub mod admission;
mod builder;
mod census;
mod cgroup;
mod connection;
mod context;
mod error;
mod files;
mod launcher;
pub mod placement;
pub mod pool;
pub mod proc;
mod process;
mod program;
mod sandbox;
mod template;

pub use builder::{SandboxBuilder, Stream};
pub use census::{Census, Leftovers, Orphan, OrphanKind, lasting_orphans, orphans};
pub use cgroup::{Cgroup, CgroupError, CgroupLimits};
#[doc(hidden)]
pub use context::PYTHON_DRIVER;
pub use context::{Cell, CellError, CellEvent, Context, EvaluateError, Evaluation, Representation};
pub use error::{CallError, SpawnError, WaitError};
pub use files::Files;
pub use launcher::Launcher;
pub use lg_control::{
    Access, DirEntry, ExitStatus, Exits, Fault, FaultKind, FileFacts, Image, Limits, Mount, Outcome,
    ProcessInfo, Report, SandboxSpec, SpecError, StartFailure, StartFailureKind, Stats, SyscallTrace, User,
};
pub use placement::{Assignment, CpuSet, Placement, PlacementError, Placer, Topology};
pub use program::{GuestOutput, GuestProgram, ProgramBuilder, ProgramOutput};
pub use sandbox::{Output, Sandbox, Stderr, Stdin, Stdout};
pub use template::{ForkOptions, Ready, Template, TemplateError, TemplateSpec, WarmUp};

/// The memory of this machine in bytes, without swap.
pub fn host_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}
