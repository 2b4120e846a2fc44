//! The contents of the kernel area: descriptor tables and the few ring-0 instructions there are.
//!
//! Ring 0 holds an `out` that leaves the guest, the `sysretq` and `iretq` that go back to user code, and a `mov` to CR3.
//! Everything here but the stack is mapped read-only, and CR0.WP is set, so that a push to a stack pointer
//! of the guest's choosing can not change a descriptor. The accessed and busy bits that the processor would
//! set in descriptors are set beforehand.

use lg_platform::PAGE_SIZE;

use crate::error::Kind;
use crate::layout::*;
use crate::polling::mailbox;
use crate::region::Region;

const OUT_IMM8: u8 = 0xe6; // out %al, $imm8
const SYSRETQ: [u8; 3] = [0x48, 0x0f, 0x07];
const IRETQ: [u8; 2] = [0x48, 0xcf];
const MOV_RAX_TO_CR3: [u8; 3] = [0x0f, 0x22, 0xd8];
const POP_RAX: [u8; 1] = [0x58];
const UD2: [u8; 2] = [0x0f, 0x0b];

/// Fills the descriptor and stub pages of the system zone. The zone must be zero.
pub fn install(system: &Region, kind: Kind) {
    write_descriptors(system);
    write_io_bitmap(system, kind);
    write_exception_stubs(system);
    write_syscall_stub(system);
    if kind == Kind::Pvm {
        mailbox::install(system);
    }
}

fn write_descriptors(system: &Region) {
    let page = DESCRIPTOR_PAGE * PAGE_SIZE;
    // SDM volume 3, 3.4.5 and 8.2.3. Type 0xb: code, readable, accessed. Type 3: data, writable, accessed.
    let tss = kernel_page(DESCRIPTOR_PAGE) + TSS_OFFSET as u64;
    let gdt: [u64; GDT_BYTES / 8] = [
        0,
        0x00af_9b00_0000_ffff, // 0x08 kernel code: L, present, DPL 0
        0x00cf_9300_0000_ffff, // 0x10 kernel data
        0x00cf_f300_0000_ffff, // 0x18 user data: DPL 3
        0x00af_fb00_0000_ffff, // 0x20 user code: L, DPL 3
        // 0x28 TSS: present, busy 64-bit TSS (type 0xb); the base is spread over both quadwords.
        (TSS_BYTES as u64 + IO_BITMAP_BYTES as u64 - 1)
            | (tss & 0xff_ffff) << 16
            | 0x8b << 40
            | ((tss >> 24) & 0xff) << 56,
        tss >> 32,
    ];
    for (index, descriptor) in gdt.iter().enumerate() {
        system.write_u64(page + GDT_OFFSET + index * 8, *descriptor);
    }
    for vector in 0..32u8 {
        // SDM volume 3, 6.14.1. An interrupt gate (type 0xe); `int n` may reach only 3 and 4 from ring 3.
        let stub = EXCEPTION_STUBS + u64::from(vector) * STUB_STRIDE;
        let dpl = if matches!(vector, 3 | 4) { 3 } else { 0 };
        let ist = u64::from(uses_ist(vector));
        let low = (stub & 0xffff)
            | u64::from(KERNEL_CS) << 16
            | ist << 32
            | (0x8e | dpl << 5) << 40
            | ((stub >> 16) & 0xffff) << 48;
        let gate = page + IDT_OFFSET + usize::from(vector) * 16;
        system.write_u64(gate, low);
        system.write_u64(gate + 8, stub >> 32);
    }
    // SDM volume 3, 8.7.
    system.write(page + TSS_OFFSET + 4, &STACK_TOP.to_le_bytes());
    system.write(page + TSS_OFFSET + 0x24, &IST_TOP.to_le_bytes());
    system.write(page + TSS_OFFSET + 0x66, &(TSS_BYTES as u16).to_le_bytes());
}

/// Forbids every port to ring 3, but for that of the system-call stub on PVM, which runs the stub at ring 3.
fn write_io_bitmap(system: &Region, kind: Kind) {
    let at = DESCRIPTOR_PAGE * PAGE_SIZE + TSS_OFFSET + TSS_BYTES;
    let mut bitmap = [0xff; IO_BITMAP_BYTES];
    if kind == Kind::Pvm {
        bitmap[usize::from(PORT_SYSCALL / 8)] &= !(1 << (PORT_SYSCALL % 8));
    }
    system.write(at, &bitmap);
}

fn write_exception_stubs(system: &Region) {
    let page = STUB_PAGE * PAGE_SIZE;
    fill_with_ud2(system, page);
    for vector in 0..32 {
        system.write(page + vector * STUB_STRIDE as usize, &[OUT_IMM8, PORT_EXCEPTION]);
    }
    system.write(page + (IRETQ_STUB - EXCEPTION_STUBS) as usize, &IRETQ);
    let change_space = [&MOV_RAX_TO_CR3[..], &POP_RAX, &IRETQ].concat();
    system.write(page + (CR3_STUB - EXCEPTION_STUBS) as usize, &change_space);
}

fn write_syscall_stub(system: &Region) {
    let page = SYSCALL_PAGE * PAGE_SIZE;
    fill_with_ud2(system, page);
    system.write(page, &[OUT_IMM8, PORT_SYSCALL]);
    system.write(page + OUT_BYTES as usize, &SYSRETQ);
    // `sysretq` has an odd length: realign the filling after it.
    system.write(page + OUT_BYTES as usize + SYSRETQ.len(), &[0xcc]);
}

fn fill_with_ud2(system: &Region, page: usize) {
    for offset in (0..PAGE_SIZE).step_by(2) {
        system.write(page + offset, &UD2);
    }
}
