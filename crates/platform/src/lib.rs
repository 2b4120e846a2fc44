//! The seam between the kernel and whatever runs guest code.
//!
//! The kernel sees guest memory as numbered [`Frame`]s, address spaces as tables that map user pages to
//! frames, and guest execution as [`Platform::switch`], which runs a thread at user level until it traps.
//! Nothing here says how that is done: the `lg-kvm` crate does it with KVM, [`mock::MockPlatform`] does it
//! with a script for unit tests.
//!
//! Everything runs on one thread. While a method of the platform is not running guest code, no guest code
//! runs at all, so memory read through [`FrameStore`] cannot change under the reader.

mod addr;
mod context;
pub mod mock;
mod seam;

pub use addr::{Frame, PAGE_SHIFT, PAGE_SIZE, USER_END, UserAddr, UserRange};
pub use context::{Context, FpuState, Regs};
pub use seam::{Access, FrameStore, Mapping, Platform, PlatformError, Prot, SpaceId, Trap, Tsc, Vector};
