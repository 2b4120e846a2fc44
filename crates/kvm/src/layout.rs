//! Where things lie: the guest-physical zones, the kernel area of every address space, selectors, ports.
//!
//! ```text
//! guest-physical                              guest-virtual
//!   1 MiB   system zone: descriptors, stubs,    0 .. 0x7fff_c000_0000             user space
//!           kernel stack, kernel-area tables    0x7fff_f000_0000 + page * 4 KiB   kernel area
//!   4 GiB   table zone: page tables
//!  32 GiB   data zone: the frames of the seam
//! ```
//!
//! Each zone is a memslot and a host mapping of its own. The seam's frame numbers index the data zone only,
//! so no frame number names a page table or a stub.

use lg_platform::{PAGE_SIZE, USER_END};

/// First guest-physical address of the system zone.
pub const SYSTEM_GPA: u64 = 1 << 20;
/// First guest-physical address of the table zone.
pub const TABLES_GPA: u64 = 4 << 30;
/// First guest-physical address of the data zone.
pub const DATA_GPA: u64 = 32 << 30;

/// Memslot numbers.
pub const SYSTEM_SLOT: u32 = 0;
/// See [`SYSTEM_SLOT`].
pub const TABLES_SLOT: u32 = 1;
/// See [`SYSTEM_SLOT`].
pub const DATA_SLOT: u32 = 2;

/// Pages of the system zone, in order. The first [`KERNEL_AREA_PAGES`] are mapped in the kernel area at
/// `KERNEL_AREA + index * PAGE_SIZE`; the other two are the kernel area's own page directory and page table.
pub const DESCRIPTOR_PAGE: usize = 0;
/// Exception stubs and the `iretq` stub; supervisor, executable.
pub const STUB_PAGE: usize = 1;
/// The system-call stub; on PVM user code must be able to read it.
pub const SYSCALL_PAGE: usize = 2;
/// The only page of the kernel area that ring 0 writes: its stack.
pub const STACK_PAGE: usize = 3;
/// On PVM the page through which system calls are handed over without an exit, which user code may write.
pub const MAILBOX_PAGE: usize = 4;
/// How many pages of the system zone the kernel area maps.
pub const KERNEL_AREA_PAGES: usize = 5;
/// Page directory of the kernel area.
pub const KERNEL_PD_PAGE: usize = 5;
/// Page table of the kernel area.
pub const KERNEL_PT_PAGE: usize = 6;
/// Pages in the system zone.
pub const SYSTEM_PAGES: usize = 7;

/// First address of the kernel area.
pub const KERNEL_AREA: u64 = 0x7fff_f000_0000;
const _: () = assert!(KERNEL_AREA >= USER_END.0 && KERNEL_AREA >> 30 == USER_END.0 >> 30);

/// Returns the guest-virtual address of a page of the kernel area.
pub const fn kernel_page(page: usize) -> u64 {
    KERNEL_AREA + (page * PAGE_SIZE) as u64
}

/// Returns the guest-physical address of a page of the system zone.
pub const fn system_gpa(page: usize) -> u64 {
    SYSTEM_GPA + (page * PAGE_SIZE) as u64
}

/// Offsets in the descriptor page.
pub const GDT_OFFSET: usize = 0;
/// See [`GDT_OFFSET`].
pub const IDT_OFFSET: usize = 0x200;
/// See [`GDT_OFFSET`].
pub const TSS_OFFSET: usize = 0x400;

/// Bytes in the interrupt descriptor table: the 32 vectors of the architecture.
pub const IDT_BYTES: usize = 32 * 16;
/// Bytes in the task-state segment (SDM volume 3, 8.7), before the I/O permission bitmap.
pub const TSS_BYTES: usize = 104;
/// Bytes in the I/O permission bitmap, which covers the ports up to the two of the stubs, and one byte of
/// ones after it (SDM volume 1, 19.5.2). Ports beyond it are forbidden.
pub const IO_BITMAP_BYTES: usize = PORT_EXCEPTION as usize / 8 + 1 + 1;

/// Segment selectors. SYSRET wants user data at STAR\[63:48\]+8 and 64-bit user code at +16 (SDM volume 2).
pub const KERNEL_CS: u16 = 0x08;
/// See [`KERNEL_CS`].
pub const KERNEL_SS: u16 = 0x10;
/// See [`KERNEL_CS`].
pub const USER_SS: u16 = 0x18 | 3;
/// See [`KERNEL_CS`].
pub const USER_CS: u16 = 0x20 | 3;
/// See [`KERNEL_CS`].
pub const TSS_SELECTOR: u16 = 0x28;
/// Bytes in the global descriptor table: five descriptors of 8 bytes and the TSS's of 16.
pub const GDT_BYTES: usize = 0x38;

/// Top of the stack that exceptions from ring 3 switch to (RSP0).
pub const STACK_TOP: u64 = kernel_page(STACK_PAGE) + PAGE_SIZE as u64;
/// Top of the stack of vectors that must never use the interrupted stack pointer (IST1): debug, NMI,
/// double fault and machine check, of which the first may arrive between `mov %ss` and `syscall`.
pub const IST_TOP: u64 = STACK_TOP - 0x800;
/// Bytes of RIP, CS, RFLAGS, RSP and SS as an exception pushes them and `iretq` pops them.
pub const FRAME_BYTES: u64 = 40;

/// The port that the system-call stub writes to. Neither port is 0x7e, which KVM treats in a way of its own.
pub const PORT_SYSCALL: u8 = 0xd0;
/// The port that the exception stubs write to.
pub const PORT_EXCEPTION: u8 = 0xd1;

/// Bytes from one exception stub to the next.
pub const STUB_STRIDE: u64 = 16;
/// First exception stub.
pub const EXCEPTION_STUBS: u64 = kernel_page(STUB_PAGE);
/// The `iretq` stub, after those of the 32 vectors.
pub const IRETQ_STUB: u64 = EXCEPTION_STUBS + 32 * STUB_STRIDE;
/// The stub that changes the address space, and then pops RAX and returns as the `iretq` stub does.
pub const CR3_STUB: u64 = IRETQ_STUB + STUB_STRIDE;
/// The system-call stub (LSTAR): the `out`.
pub const SYSCALL_STUB: u64 = kernel_page(SYSCALL_PAGE);
/// Length of `out %al, $imm8`.
pub const OUT_BYTES: u64 = 2;
/// The `sysretq` after the `out` of the system-call stub.
pub const SYSRETQ_STUB: u64 = SYSCALL_STUB + OUT_BYTES;

/// Says whether an exception stub pushes an error code before the frame (SDM volume 3, table 6-1).
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// Says whether a vector runs on the stack of [`IST_TOP`].
pub const fn uses_ist(vector: u8) -> bool {
    matches!(vector, 1 | 2 | 8 | 18)
}
