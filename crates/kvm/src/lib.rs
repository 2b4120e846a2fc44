//! The KVM platform: guest threads run at ring 3 of a virtual machine that has no guest kernel.
//!
//! Ring 0 of the virtual machine holds a few stubs that leave it ([`stubs`]); whatever a guest thread does
//! that needs a kernel becomes a [`lg_platform::Trap`] for the kernel outside. Two kinds of KVM are served,
//! see [`Kind`].
//!
//! ```no_run
//! use lg_kvm::{KvmConfig, KvmPlatform};
//! use lg_platform::{Context, Frame, Mapping, Platform, Prot, Regs, Trap, UserAddr};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut platform = KvmPlatform::new(KvmConfig::new(16 << 20))?;
//! let space = platform.create_space()?;
//! platform.frames().write(Frame(0), 0, &[0x0f, 0x05]); // syscall
//! let code = Mapping::clean(Frame(0), Prot::READ | Prot::EXEC);
//! platform.map(space, UserAddr(0x1000), code)?;
//! let mut thread = Context::new(Regs { rip: 0x1000, ..Regs::default() });
//! assert_eq!(platform.switch(space, &mut thread, None)?, Trap::Syscall);
//! # Ok(())
//! # }
//! ```
//!
//! This is the room where `unsafe` lives: every block says which invariant it rests on. The ones that recur
//! are that guest memory is only copied, never referenced ([`region`]), and that a zone of guest-physical
//! memory outlives the machine that maps it ([`platform`]).
//!
//! | module | subject |
//! |---|---|
//! | [`platform`] | [`KvmPlatform`], put together from the rest |
//! | [`machine`] | the VM and its memslots |
//! | [`vcpu`] | entering user code, decoding exits, lazy state |
//! | [`layout`], [`stubs`] | guest-physical zones, the kernel area and what is in it |
//! | [`polling`] | system calls without an exit: a second thread runs the vCPU while the first looks into a mailbox |
//! | [`region`], [`ram`] | host mappings, the frames of the seam |
//! | [`tables`], [`stale`] | address spaces, and what may still be cached of them |
//! | [`fpu`], [`flags`] | what a guest may have in XSAVE and RFLAGS |
//! | [`working_set`], [`order`] | what a fork touches at once, and that it lies together |
//! | [`alarm`] | deadlines and signals |
//! | [`mod@probe`] | what KVM this machine has |

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(rustdoc::private_intra_doc_links)]

mod alarm;
mod error;
mod flags;
mod fpu;
mod layout;
mod machine;
mod order;
mod platform;
mod polling;
mod probe;
mod ram;
mod region;
mod stale;
mod stubs;
mod tables;
mod vcpu;
mod working_set;

pub use alarm::alarm_signal;
pub use error::{Kind, StartError};
pub use platform::{KvmConfig, KvmPlatform};
pub use polling::Polling;
pub use probe::{Hardware, Survey, bare_life, survey};

/// Finds out what must be known of this machine's KVM before a platform can be made on it.
pub fn probe() -> Result<Hardware, StartError> {
    let kvm = probe::open()?;
    probe::check(&kvm)?;
    probe::hardware(&kvm)
}
