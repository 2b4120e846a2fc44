//! The typed protocol between the runtime and the process around one VM (the *vmm*).
//!
//! ```text
//!   runtime                                     vmm (the same binary, hidden subcommand)
//!      | -- socketpair; one end is the vmm's descriptor 0 -->  |
//!      | -- Start(spec), with its standard streams ----------> |  builds the VM
//!      | <------------------------------ Event::Ready -------- |
//!      | -- Call { id, request } ----------------------------> |  exec, files, processes, signals, pause
//!      | <------------------------------ Event::Reply { id } - |
//!      | <------------------------------ Event::Output, Exited |  as they happen
//!      |                                                       |
//!      | -- Fork(spec), with the child's socket -------------> |  fork(2) ----> child
//!      | <-- Event::Ready, on that socket ---------------------------------------- |
//!      |                                                       |
//!      | -- Kill ---------------------------------------------> |
//!      | <------------------------------ Event::Ended -------- |  then the process exits
//! ```
//!
//! - [`SandboxSpec`] says what a sandbox is and within which limits; [`Report`] says how it ended and what it cost.
//! - A message is a [`frame`] with a magic, a version and a length, and everything that is not exactly such a frame
//!   is an error that ends the connection, and with it the sandbox.
//! - Calls are served in the order of their arrival. Number 0 wants no reply.
//! - Descriptors travel with the message that needs them (`SCM_RIGHTS`), see [`Inbox`].
//! - Of each stream the vmm sends at most [`STREAM_WINDOW_BYTES`] that the runtime has not said it has taken. So a
//!   program that floods a stream nobody reads waits, as with a pipe, and no buffer grows.
//!
//! # Death of the parent
//!
//! The vmm holds the only other end of the socket. When the runtime's process dies, in whatever way, the kernel
//! closes its end and the vmm's end becomes readable with `POLLHUP`. The vmm **must** therefore
//! include the socket whenever it sleeps in `poll`, and look at it (without waiting) at every time slice
//! while guest code runs; on end of file it ends the sandbox as if [`Request::Kill`] had arrived.
//! `PR_SET_PDEATHSIG` is not used: it is bound to the parent's *thread*, and threads of an async runtime come and go.
//!
//! # Compatibility
//!
//! Both ends are one binary, so there is one version and no negotiation: a frame of another [`VERSION`] is
//! refused. Everything is checked again after decoding, with [`SandboxSpec::validate`].

#![forbid(unsafe_code)]

pub mod frame;
mod message;
mod operation;
mod printable;
mod report;
mod spec;
mod wall;

pub use frame::{FrameError, MAX_PAYLOAD_BYTES, VERSION};
pub use message::{
    Call, Event, Inbox, MAX_CHUNK_BYTES, MAX_DESCRIPTORS, Request, STREAM_WINDOW_BYTES, Waiting, decode,
    encode, encode_into, recv, recv_start, send, send_with, send_with_descriptors, tell_senders,
};
pub use operation::{
    DirEntry, ExitStatus, Fault, FaultKind, FileFacts, ForkSpec, MAX_STDIO, ProcessInfo, Program, Reply,
    SignalScope, Stdio, Terminal, WriteMode,
};
pub use printable::{printable, printable_json};
pub use report::{
    EXIT_LUMINAGUARD, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_TIMED_OUT, Exits, Outcome, Report,
    StartFailure, StartFailureKind, Stats, SyscallCount,
};
pub use spec::{
    Access, Image, Limits, MAX_ARG_BYTES, MAX_ARGS_TOTAL_BYTES, MAX_MOUNTS, MAX_PROCESSES, MIN_MEMORY_BYTES,
    Mount, Runs, SandboxSpec, SpecError, SyscallTrace, User, check_hostname,
};
pub use wall::{UnknownWall, Wall};
