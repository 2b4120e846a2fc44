//! The state of a guest thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// General-purpose registers, instruction pointer, flags and segment bases of a guest thread.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the registers' own names say it")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// The x87, SSE and AVX state of a guest thread in the standard (non-compacted) XSAVE format, which is
/// also the format of a Linux signal frame. Empty means the state after power-up.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FpuState(pub Vec<u8>);

/// All of a guest thread that a processor holds while the thread runs.
///
/// `regs` less the segment bases is up to date after every [`crate::Platform::switch`]. The FPU state and
/// the segment bases are *lazy*: they may stay in the virtual CPU. Call [`crate::Platform::sync`] before
/// reading or changing them, and before another context runs.
#[derive(Debug)]
pub struct Context {
    /// The registers.
    pub regs: Regs,
    /// The FPU state.
    pub fpu: FpuState,
    id: u64,
}

impl Context {
    /// Returns a context with these registers and the FPU state of power-up.
    pub fn new(regs: Regs) -> Context {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Context { regs, fpu: FpuState::default(), id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Returns a copy that is a thread of its own. The context must be synced.
    pub fn duplicate(&self) -> Context {
        let mut copy = Context::new(self.regs);
        copy.fpu.clone_from(&self.fpu);
        copy
    }

    /// Identifies the thread to the platform, which keeps the lazy state of one thread at a time.
    pub fn id(&self) -> u64 {
        self.id
    }
}
