//! The two traits of the seam.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::{Context, Frame, UserAddr, UserRange};

bitflags::bitflags! {
    /// What user code may do with a page. Empty: the page is held but any access faults.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Prot: u8 {
        /// Loads.
        const READ = 1;
        /// Stores. Implies loads on x86-64.
        const WRITE = 2;
        /// Instruction fetches. Implies loads on x86-64.
        const EXEC = 4;
    }
}

/// The kind of access that faulted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

/// Names an address space of the platform.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpaceId(pub u32);

/// What an address space holds at one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The frame.
    pub frame: Frame,
    /// What user code may do with it.
    pub prot: Prot,
    /// Whether user code has stored to the page through this mapping since it was made, or it was made so.
    pub dirty: bool,
}

impl Mapping {
    /// A mapping that was not stored to.
    pub fn clean(frame: Frame, prot: Prot) -> Mapping {
        Mapping { frame, prot, dirty: false }
    }
}

/// An exception vector other than the page fault (Intel SDM volume 3, table 6-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vector(pub u8);

#[expect(missing_docs, reason = "the SDM's mnemonics spelt out")]
impl Vector {
    pub const DIVIDE_ERROR: Vector = Vector(0);
    pub const DEBUG: Vector = Vector(1);
    pub const BREAKPOINT: Vector = Vector(3);
    pub const OVERFLOW: Vector = Vector(4);
    pub const BOUND_RANGE: Vector = Vector(5);
    pub const INVALID_OPCODE: Vector = Vector(6);
    pub const DEVICE_NOT_AVAILABLE: Vector = Vector(7);
    pub const SEGMENT_NOT_PRESENT: Vector = Vector(11);
    pub const STACK_FAULT: Vector = Vector(12);
    pub const GENERAL_PROTECTION: Vector = Vector(13);
    pub const X87_FLOATING_POINT: Vector = Vector(16);
    pub const ALIGNMENT_CHECK: Vector = Vector(17);
    pub const SIMD_FLOATING_POINT: Vector = Vector(19);
}

/// Why a guest thread stopped running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// It executed `syscall`: the number is in `rax`, the arguments in `rdi rsi rdx r10 r8 r9`, and `rip`
    /// is that of the next instruction. `rcx` and `r11` are clobbered as the instruction does.
    Syscall,
    /// It touched a page that its address space does not hold, or not for this kind of access. `rip` is
    /// that of the faulting instruction.
    PageFault {
        /// The address touched; not necessarily in user space.
        addr: UserAddr,
        /// How it was touched.
        access: Access,
        /// Whether the page was there and only the protection forbade the access.
        present: bool,
    },
    /// It raised another exception. `rip` is as the SDM has it: for faults that of the instruction, for
    /// traps (`int3`, single step) that of the next one.
    Exception {
        /// Which.
        vector: Vector,
        /// The error code, 0 for vectors that have none.
        error_code: u64,
    },
    /// The deadline has come, or a signal is pending for the host thread.
    Interrupted,
}

/// Why guest code can not go on. Each ends the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The guest touched a guest-physical address that no memory backs.
    #[error("the guest touched the unbacked physical address {address:#x}")]
    UnbackedMemory {
        /// The address.
        address: u64,
    },
    /// The virtual CPU shut down: a triple fault.
    #[error("the virtual CPU shut down (triple fault)")]
    Shutdown,
    /// The hypervisor left the guest for a reason that can not happen in a sound sandbox.
    #[error("the hypervisor stopped the guest: {reason}")]
    Unexpected {
        /// The hypervisor's own words and numbers.
        reason: String,
    },
    /// No frame is left for a page table or an address space.
    #[error("no memory is left for page tables")]
    OutOfTables,
    /// A call to the host failed.
    #[error("{call} failed")]
    Host {
        /// The call.
        call: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// The platform could not be made this process's own after a fork.
    #[error("cannot make a virtual machine after the fork")]
    Revival(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl PlatformError {
    /// A failed [`Platform::revive_after_fork`].
    pub fn revival(error: impl std::error::Error + Send + Sync + 'static) -> PlatformError {
        PlatformError::Revival(Box::new(error))
    }
}

/// A reading of the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tsc {
    /// What `rdtsc` gives in the guest now.
    pub ticks: u64,
    /// How fast it counts, in kHz.
    pub khz: u64,
}

/// The memory of the guest: frames of [`crate::PAGE_SIZE`] bytes that read as zero until written.
///
/// Host memory is committed on first use. Which frames are in use, and for what, is the kernel's to know.
/// Methods panic when a frame or a range lies outside the store, which only a bug of the kernel can cause.
pub trait FrameStore {
    /// How many frames there are.
    fn frame_count(&self) -> u32;

    /// Copies `buf.len()` bytes at `offset` of the frame into `buf`; may not cross the frame's end.
    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]);

    /// Copies `data` to `offset` of the frame; may not cross the frame's end.
    fn write(&self, frame: Frame, offset: usize, data: &[u8]);

    /// Copies all of `from` to `to`.
    fn copy(&self, from: Frame, to: Frame);

    /// Fills the frame with zeros.
    fn zero(&self, frame: Frame);

    /// Makes the frames read as zero and gives their memory back to the host.
    fn discard(&self, frames: Range<u32>);

    /// Reads from a host file at byte `offset` into consecutive frames, as pread(2) does, until the range
    /// is full or the file ends. Returns the bytes read; what lies after them is unchanged.
    fn load(&self, frames: Range<u32>, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize>;
}

/// Runs guest threads at user level in address spaces.
pub trait Platform {
    /// Returns the guest memory. It stays the same for the life of the platform.
    fn frames(&self) -> Rc<dyn FrameStore>;

    /// Makes an empty address space.
    fn create_space(&mut self) -> Result<SpaceId, PlatformError>;

    /// Removes an address space with all of its mappings.
    fn destroy_space(&mut self, space: SpaceId);

    /// Maps the page at `addr`, in place of whatever was mapped there. What is mapped as dirty from the start, where nobody asks
    /// whether it was stored to, may cost less at its first store.
    ///
    /// Errors: [`PlatformError::OutOfTables`].
    fn map(&mut self, space: SpaceId, addr: UserAddr, mapping: Mapping) -> Result<(), PlatformError>;

    /// Removes every mapping in `range` and tells `removed` of each.
    fn unmap(&mut self, space: SpaceId, range: UserRange, removed: &mut dyn FnMut(UserAddr, Mapping));

    /// Gives every mapping in `range` the protection that `prot` answers for it.
    fn protect(&mut self, space: SpaceId, range: UserRange, prot: &mut dyn FnMut(UserAddr, Mapping) -> Prot);

    /// Returns the mapping of the page that holds `addr`.
    fn lookup(&self, space: SpaceId, addr: UserAddr) -> Option<Mapping>;

    /// Tells `visitor` of every mapping in `range`, in ascending order.
    fn visit(&self, space: SpaceId, range: UserRange, visitor: &mut dyn FnMut(UserAddr, Mapping));

    /// Runs the thread in the address space until it traps.
    ///
    /// `deadline_ns` is on the host's CLOCK_MONOTONIC; when it passes, or when a signal that the vmm has
    /// blocked becomes pending for the host thread, the trap is [`Trap::Interrupted`]. It may come early.
    /// Whatever the registers hold, the guest gets only what user level may have: flags are masked, and a
    /// `rip` that user code can not have raises a general-protection fault for the thread.
    fn switch(
        &mut self,
        space: SpaceId,
        context: &mut Context,
        deadline_ns: Option<u64>,
    ) -> Result<Trap, PlatformError>;

    /// Brings the lazy state of the context (FPU, segment bases) up to date in memory. Where the caller
    /// changes it afterwards, the next `switch` loads what the caller left there.
    fn sync(&mut self, context: &mut Context) -> Result<(), PlatformError>;

    /// Length in bytes of the XSAVE area of this processor, and its XCR0: what a signal frame must hold.
    fn xsave(&self) -> (usize, u64);

    /// Returns the memory that page tables and address spaces take now, in bytes.
    fn table_bytes(&self) -> u64;

    /// How many system calls [`Platform::switch`] returned for which the virtual CPU did not leave the guest. Zero where
    /// there is no such way.
    fn calls_without_exit(&self) -> u64 {
        0
    }

    /// The processor features of CPUID leaf 1, register EDX, as guest code sees them (`AT_HWCAP`).
    fn hwcap(&self) -> u64;

    /// Reads the guest's time-stamp counter; `None` where it can not serve as a clock.
    fn tsc(&self) -> Option<Tsc>;

    /// Gets ready to be forked many times: moves what is in use to where forks share it until they write, and
    /// gives the machinery for running up. Contents stay the same. Nothing runs until
    /// [`Platform::revive_after_fork`].
    ///
    /// `used` must cover every frame that is mapped or holds something, in ranges that do not overlap; all others
    /// read as zero afterwards. Every context must have been synced.
    fn seal(&mut self, used: &[Range<u32>]) -> io::Result<()>;

    /// Begins to observe which memory is touched, until the next [`Platform::seal`]; forks made after that are given
    /// what was touched at once. `used` is as there, and every context must have been synced. Running goes on.
    fn observe(&mut self, used: &[Range<u32>]) -> Result<(), PlatformError>;

    /// Makes the platform this process's own after fork(2), with new machinery for running over the same memory,
    /// which fork copied on write. All address spaces and frames are as they were.
    ///
    /// Every context must have been synced before the fork, since lazy state stays with the parent.
    fn revive_after_fork(&mut self) -> Result<(), PlatformError>;
}
