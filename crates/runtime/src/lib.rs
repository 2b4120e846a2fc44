//! Sandboxes as async values: start, talk to, wait for and end a program in a micro-VM.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use lg_runtime::{ForkOptions, Launcher, Template, TemplateSpec};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // A template is warmed up once. Sandboxes are forks of it: they begin warm, and share its memory.
//! let mut spec = TemplateSpec::python();
//! spec.sandbox = spec.sandbox.memory_bytes(256 << 20);
//! let template = Template::build(&spec, &Launcher::default()).await?;
//! let options = ForkOptions { hostname: Some("agent-1".to_owned()), ..ForkOptions::default() };
//! let mut sandbox = template.spawn_with(options).await?;
//!
//! // Evaluate Python. Names stay from cell to cell.
//! let context = sandbox.context().ok_or("no interpreter")?;
//! context.evaluate("import math\nr = 2").await?;
//! let cell = context.evaluate_within("math.pi * r ** 2", Duration::from_secs(10)).await?;
//! assert_eq!(cell.text(), Some("12.566370614359172"));
//!
//! // Write files, run programs, read files.
//! sandbox.files().write("/tmp/words", b"two\none\n").await?;
//! let sort = sandbox.program(["sh", "-c", "sort /tmp/words | tee /tmp/sorted"]).output().await?;
//! assert!(sort.status.is_success());
//! assert_eq!(sandbox.files().read("/tmp/sorted").await?, sort.stdout);
//!
//! // Fork it as it is now, and try something in each copy. They know nothing of each other.
//! for mut copy in sandbox.fork(2).await? {
//!     copy.context().ok_or("no interpreter")?.evaluate("r += 1; open('/tmp/sorted', 'w').close()").await?;
//!     copy.kill().await?;
//! }
//! let cell = sandbox.context().ok_or("no interpreter")?.evaluate("r").await?;
//! assert_eq!(cell.text(), Some("2"));
//!
//! let report = sandbox.kill().await?;
//! println!("{} system calls", report.stats.exits.syscalls);
//! template.end().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Sandbox::builder`] starts a single program in a VM of its own, without a template. Sandboxes that are made ahead of need are in
//! [`pool`]; how many may run at once is said by [`admission`], and where by [`placement`]. Templates of a user's own
//! are TOML files, see [`TemplateSpec::parse`].
//!
//! Each sandbox is one process of the host, the *vmm*, which holds the VM and its kernel. This crate starts that
//! process ([`Launcher`] says from which binary), talks to it over a control socket (`lg_control`), and
//! sees to it that it is gone:
//!
//! - [`Sandbox::wait`] and [`Sandbox::kill`] return when the vmm has been reaped.
//! - Dropping a [`Sandbox`] kills the vmm at once; a thread reaps it.
//! - When this process dies, even by SIGKILL, the kernel closes the control sockets and each vmm ends itself.
//! - A vmm and its forks are in a namespace of process numbers, which is ended with the last of them, or with this
//!   process: so nothing stays that a vmm has forked by itself.
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
mod namespace;
pub mod placement;
pub mod pool;
pub mod proc;
mod process;
mod program;
mod sandbox;
mod template;
pub mod units;

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
    ProcessInfo, Report, SandboxSpec, SpecError, StartFailure, StartFailureKind, Stats, SyscallTrace,
    Terminal, User, Wall,
};
pub use placement::{Assignment, CpuSet, Placement, PlacementError, Placer, Topology};
pub use process::settle;
pub use program::{GuestOutput, GuestProgram, ProgramBuilder, ProgramOutput};
pub use sandbox::{Output, Sandbox, Stderr, Stdin, Stdout};
pub use template::{ForkOptions, Ready, Template, TemplateError, TemplateFileError, TemplateSpec, WarmUp};

/// The memory of this machine in bytes, without swap.
pub fn host_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}
