//! The page through which user code and the vmm hand each other a system call without leaving the guest.
//!
//! The stub at LSTAR, while the vmm is looking, puts the registers into the mailbox and waits there for the
//! answer. Without an answer in time, or when it is told to, it puts the registers back and leaves by the
//! `out` of the ordinary stub.
//!
//! ```text
//!            stub                 vmm                    stub
//! IDLE ----------------> REQUEST -----> TAKEN -> DONE ---------> user code
//!                           |             |  \
//!                           |             |   -> LEAVE --------> `out`: the call is the vmm's already
//!                           +-> PARKED <--+ -------------------> `out`: it is the vmm's if it was TAKEN
//! ```
//!
//! The stub runs at ring 3, so user code can write whatever it likes to this page, at any time. The vmm copies
//! the registers once, and takes them for what they are: those of a system call that user code could as well
//! have made. It relies on nothing else in it. That the guest really waits is not known, so whatever must not
//! be done while it runs is done after [`LEAVE`].

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::kvm_regs;
use lg_platform::{PAGE_SIZE, Regs};

use crate::layout::{MAILBOX_PAGE, SYSCALL_PAGE, SYSCALL_STUB, kernel_page};
use crate::region::Region;

/// There is nothing in the mailbox.
const IDLE: u32 = 0;
/// The stub has put a system call into the mailbox.
pub const REQUEST: u32 = 1;
/// The vmm has taken it.
pub const TAKEN: u32 = 2;
/// The answer is in the mailbox.
pub const DONE: u32 = 3;
/// The stub shall leave the guest.
pub const LEAVE: u32 = 4;
/// The stub leaves the guest, since it has waited long enough.
pub const PARKED: u32 = 5;

/// Offset in the mailbox page of the state. It has a cache line of its own.
const STATE: usize = 128;
/// Rounds of the stub's waiting. A round takes some 20 to 50 ns: `pause` takes as long as the processor likes.
const ROUNDS: u32 = 2000;
/// Flags with which the stub does not deal: trap, direction, alignment check.
const FLAGS_TO_LEAVE_WITH: u32 = 1 << 8 | 1 << 10 | 1 << 18;

/// Offset in the system-call page of the stub.
const STUB_OFFSET: usize = 64;
/// Offset in the system-call page, which user code reads and can not write, of the byte that says whether the
/// vmm is looking.
const OPEN_OFFSET: usize = 2048;
/// The stub that tries the mailbox first: LSTAR on PVM.
pub const MAILBOX_STUB: u64 = SYSCALL_STUB + STUB_OFFSET as u64;

// The stub, as it lies in its page. RCX holds the return address and R11 the flags.
std::arch::global_asm!(
    ".pushsection .rodata.lg_mailbox_stub, \"a\"",
    ".globl lg_mailbox_stub",
    ".hidden lg_mailbox_stub",
    "lg_mailbox_stub:",
    "cmp byte ptr [rip + lg_mailbox_stub + {open}], 0",
    "je 9f",
    "test r11d, {odd}",
    "jnz 9f",
    "mov [rip + lg_mailbox_stub + {page} + 0], rax",
    "mov [rip + lg_mailbox_stub + {page} + 8], rbx",
    "mov [rip + lg_mailbox_stub + {page} + 16], rcx",
    "mov [rip + lg_mailbox_stub + {page} + 24], rdx",
    "mov [rip + lg_mailbox_stub + {page} + 32], rsi",
    "mov [rip + lg_mailbox_stub + {page} + 40], rdi",
    "mov [rip + lg_mailbox_stub + {page} + 48], rbp",
    "mov [rip + lg_mailbox_stub + {page} + 56], rsp",
    "mov [rip + lg_mailbox_stub + {page} + 64], r8",
    "mov [rip + lg_mailbox_stub + {page} + 72], r9",
    "mov [rip + lg_mailbox_stub + {page} + 80], r10",
    "mov [rip + lg_mailbox_stub + {page} + 88], r11",
    "mov [rip + lg_mailbox_stub + {page} + 96], r12",
    "mov [rip + lg_mailbox_stub + {page} + 104], r13",
    "mov [rip + lg_mailbox_stub + {page} + 112], r14",
    "mov [rip + lg_mailbox_stub + {page} + 120], r15",
    ".globl lg_mailbox_stub_posts",
    ".hidden lg_mailbox_stub_posts",
    "lg_mailbox_stub_posts:",
    "mov dword ptr [rip + lg_mailbox_stub + {page} + {state}], {request}",
    // Waits. RAX and RCX are in the mailbox.
    "1: mov ecx, {rounds}",
    "2: pause",
    "mov eax, [rip + lg_mailbox_stub + {page} + {state}]",
    "cmp eax, {done}",
    "jae 3f",
    // Whatever it was that the guest began with, if it has jumped here.
    "dec ecx",
    "jg 2b",
    "mov ecx, {parked}",
    "lock cmpxchg [rip + lg_mailbox_stub + {page} + {state}], ecx",
    "jne 1b",
    // Leaves.
    "8: mov rax, [rip + lg_mailbox_stub + {page} + 0]",
    "mov rcx, [rip + lg_mailbox_stub + {page} + 16]",
    ".globl lg_mailbox_stub_leaves",
    ".hidden lg_mailbox_stub_leaves",
    "lg_mailbox_stub_leaves:",
    "9: jmp lg_mailbox_stub - {offset}",
    "3: jne 8b",
    ".globl lg_mailbox_stub_restores",
    ".hidden lg_mailbox_stub_restores",
    "lg_mailbox_stub_restores:",
    "mov rbx, [rip + lg_mailbox_stub + {page} + 8]",
    "mov rcx, [rip + lg_mailbox_stub + {page} + 16]",
    "mov rdx, [rip + lg_mailbox_stub + {page} + 24]",
    "mov rsi, [rip + lg_mailbox_stub + {page} + 32]",
    "mov rdi, [rip + lg_mailbox_stub + {page} + 40]",
    "mov rbp, [rip + lg_mailbox_stub + {page} + 48]",
    "mov r8, [rip + lg_mailbox_stub + {page} + 64]",
    "mov r9, [rip + lg_mailbox_stub + {page} + 72]",
    "mov r10, [rip + lg_mailbox_stub + {page} + 80]",
    "mov r11, [rip + lg_mailbox_stub + {page} + 88]",
    "mov r12, [rip + lg_mailbox_stub + {page} + 96]",
    "mov r13, [rip + lg_mailbox_stub + {page} + 104]",
    "mov r14, [rip + lg_mailbox_stub + {page} + 112]",
    "mov r15, [rip + lg_mailbox_stub + {page} + 120]",
    // A little stack of the mailbox's own for the flags: nothing is known of the user's.
    "lea rsp, [rip + lg_mailbox_stub + {page} + {top}]",
    "push r11",
    "popfq",
    "mov rax, [rip + lg_mailbox_stub + {page} + 0]",
    "mov rsp, [rip + lg_mailbox_stub + {page} + 56]",
    "jmp rcx",
    ".globl lg_mailbox_stub_end",
    ".hidden lg_mailbox_stub_end",
    "lg_mailbox_stub_end:",
    ".popsection",
    open = const OPEN_OFFSET - STUB_OFFSET,
    odd = const FLAGS_TO_LEAVE_WITH,
    page = const (MAILBOX_PAGE - SYSCALL_PAGE) * PAGE_SIZE - STUB_OFFSET,
    state = const STATE,
    request = const REQUEST,
    rounds = const ROUNDS,
    done = const DONE,
    parked = const PARKED,
    offset = const STUB_OFFSET,
    top = const PAGE_SIZE,
);

unsafe extern "C" {
    static lg_mailbox_stub: u8;
    static lg_mailbox_stub_posts: u8;
    static lg_mailbox_stub_leaves: u8;
    static lg_mailbox_stub_restores: u8;
    static lg_mailbox_stub_end: u8;
}

/// Where in the stub user code was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Within {
    /// Its registers are the thread's, and the call is about to be made: on the way in, or on the way to the `out`.
    Before,
    /// The registers are in the mailbox.
    Waiting,
    /// On the way back to user code, with some registers or all.
    Returning,
}

/// Tells where in the stub `rip` is.
pub fn within(rip: u64) -> Option<Within> {
    let (start, posts, leaves, restores, end) = (
        &raw const lg_mailbox_stub,
        &raw const lg_mailbox_stub_posts,
        &raw const lg_mailbox_stub_leaves,
        &raw const lg_mailbox_stub_restores,
        &raw const lg_mailbox_stub_end,
    );
    let offset = rip.checked_sub(MAILBOX_STUB)?;
    let of = |label: *const u8| (label.addr() - start.addr()) as u64;
    match offset {
        _ if offset <= of(posts) => Some(Within::Before),
        // Whoever finds the mailbox closed comes here directly: what is in it is of a call long ago.
        _ if offset == of(leaves) => Some(Within::Before),
        _ if offset < of(restores) => Some(Within::Waiting),
        _ if offset < of(end) => Some(Within::Returning),
        _ => None,
    }
}

/// Puts the stub into its page.
pub fn install(system: &Region) {
    // SAFETY: both labels are in one section, in this order; what lies between is never written.
    let code = unsafe {
        let start = &raw const lg_mailbox_stub;
        let len = (&raw const lg_mailbox_stub_end).addr() - start.addr();
        std::slice::from_raw_parts(start, len)
    };
    assert!(STUB_OFFSET + code.len() <= OPEN_OFFSET);
    system.write(SYSCALL_PAGE * PAGE_SIZE + STUB_OFFSET, code);
    system.write(SYSCALL_PAGE * PAGE_SIZE + OPEN_OFFSET, &[0]);
}

const REGISTERS: Range<usize> = MAILBOX_PAGE * PAGE_SIZE..MAILBOX_PAGE * PAGE_SIZE + 128;
const _: () = assert!(kernel_page(MAILBOX_PAGE) - kernel_page(SYSCALL_PAGE) < 1 << 31);

/// The vmm's view of the mailbox.
#[derive(Clone, Copy)]
pub struct Mailbox<'a> {
    system: &'a Region,
}

impl<'a> Mailbox<'a> {
    pub fn new(system: &'a Region) -> Mailbox<'a> {
        Mailbox { system }
    }

    fn state_word(&self) -> &AtomicU32 {
        self.system.atomic_u32(MAILBOX_PAGE * PAGE_SIZE + STATE)
    }

    pub fn state(&self) -> u32 {
        self.state_word().load(Ordering::Acquire)
    }

    pub fn change(&self, from: u32, to: u32) -> bool {
        self.state_word().compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Forgets a call that is in it, before a thread runs that has not made it.
    pub fn empty(&self) {
        self.state_word().store(IDLE, Ordering::Release);
    }

    /// Lets the stub use the mailbox, or not.
    pub fn open(&self, open: bool) {
        self.system.write(SYSCALL_PAGE * PAGE_SIZE + OPEN_OFFSET, &[u8::from(open)]);
    }

    /// Forgets what is in it, so that another thread does not find it.
    pub fn clear(&self) {
        self.system.zero(REGISTERS.start, PAGE_SIZE);
    }

    /// The registers as the stub found them.
    pub fn registers(&self) -> kvm_regs {
        let mut words = [0u64; 16];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.system.read_u64(REGISTERS.start + index * 8);
        }
        let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = words;
        kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: rcx,
            rflags: r11,
        }
    }

    /// Gives the stub the registers to go on with, and lets it. Says whether it was still waiting.
    pub fn answer(&self, regs: &Regs) -> bool {
        let words = [
            regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp, regs.r8, regs.r9,
            regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ];
        for (index, word) in words.iter().enumerate() {
            self.system.write_u64(REGISTERS.start + index * 8, *word);
        }
        self.change(TAKEN, DONE)
    }
}

/// Whether the stub can go on with these registers: it returns as `sysretq` does.
pub fn can_return(regs: &Regs) -> bool {
    regs.rcx == regs.rip
        && regs.r11 == regs.rflags
        && regs.rflags & u64::from(FLAGS_TO_LEAVE_WITH | 1 << 16) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_registers_are_is_known_at_each_part_of_the_stub() {
        let start = &raw const lg_mailbox_stub;
        let at =
            |label: *const u8, past: u64| within(MAILBOX_STUB + (label.addr() - start.addr()) as u64 + past);
        assert_eq!(within(MAILBOX_STUB - 1), None);
        assert_eq!(at(&raw const lg_mailbox_stub, 0), Some(Within::Before));
        assert_eq!(at(&raw const lg_mailbox_stub_posts, 0), Some(Within::Before));
        assert_eq!(at(&raw const lg_mailbox_stub_posts, 1), Some(Within::Waiting));
        assert_eq!(at(&raw const lg_mailbox_stub_leaves, 0), Some(Within::Before));
        assert_eq!(at(&raw const lg_mailbox_stub_restores, 0), Some(Within::Returning));
        assert_eq!(at(&raw const lg_mailbox_stub_end, 0), None);
    }
}
