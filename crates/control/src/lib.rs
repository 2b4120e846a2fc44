//! The typed protocol between the runtime and the process around one VM (the *vmm*).
//!
//! ```text
//!   runtime                                     vmm (the same binary, hidden subcommand)
//!      | -- socketpair; one end is the vmm's descriptor 0 -->  |
//!      | -- Request::Start(spec), with the guest's stdin ----> |  builds the VM
//!      | <------------------------------ Event::Ready -------- |  first guest instruction is next
//!      | -- Request::Signal(n), Request::Kill ---------------> |
//!      | <------------------------------ Event::Ended -------- |  then the process exits
//! ```
//!
//! - [`SandboxSpec`] says what to run and within which limits; [`Report`] says how it ended and what it cost.
//! - [`send_start`] and [`recv_start`] pass the spec together with the descriptor that becomes the guest's
//!   standard input (`SCM_RIGHTS`); the vmm's own descriptors 1 and 2 are the guest's standard output and error.
//! - [`send`] and [`recv`] pass every later message. A message is a [`frame`] with a magic, a version
//!   and a length, and everything that is not exactly such a frame is an error.
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
mod report;
mod spec;

pub use frame::{FrameError, MAX_PAYLOAD_BYTES, VERSION};
pub use message::{Event, Request, decode, encode, recv, recv_start, send, send_start, send_with_descriptor};
pub use report::{
    EXIT_LUMINAGUARD, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_TIMED_OUT, Exits, Outcome, Report,
    StartFailure, StartFailureKind, Stats, SyscallCount,
};
pub use spec::{
    Access, Image, MAX_ARG_BYTES, MAX_ARGS_TOTAL_BYTES, MAX_MOUNTS, MAX_PROCESSES, MIN_MEMORY_BYTES, Mount,
    SandboxSpec, SpecError, SyscallTrace, User,
};
