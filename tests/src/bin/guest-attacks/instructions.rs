//! Instructions that are not for user code, each in a child that must die of it, and ways into the kernel area.

use std::arch::asm;

use crate::{Attack, Verdict, must_die};

/// `forbidden!("name": "instruction", ...)`: instructions of which the program must die.
macro_rules! forbidden {
    ($($name:literal: $($line:literal),+;)+) => {
        vec![$(Attack::new($name, || must_die(|| {
            // SAFETY: none of this comes back: the program dies, which is what is tested, and it is a child.
            unsafe { asm!($($line),+) }
        }))),+]
    };
}

pub fn attacks() -> Vec<Attack> {
    let mut all = forbidden! {
        "out to the system-call port": "out 0xd0, al";
        "out to the exception port": "out 0xd1, al";
        "out to the serial port": "mov edx, 0x3f8", "out dx, al";
        "out to the reset port": "mov edx, 0xcf9", "mov al, 6", "out dx, al";
        "in from the system-call port": "in eax, 0xd0";
        "in from the keyboard": "in al, 0x64";
        "rep outsb": "mov edx, 0xd0", "lea rsi, [rip]", "mov ecx, 4096", "rep outsb";
        "rep insb": "mov edx, 0xd0", "lea rdi, [rsp - 4096]", "mov ecx, 16", "rep insb";
        "hlt": "hlt";
        "cli": "cli";
        "sti": "sti";
        "clts": "clts";
        "invd": "invd";
        "wbinvd": "wbinvd";
        "invlpg": "invlpg [rsp]";
        "read cr0": "mov rax, cr0";
        "read cr3": "mov rax, cr3";
        "write cr3": "xor eax, eax", "mov cr3, rax";
        "write cr4": "xor eax, eax", "mov cr4, rax";
        "write dr7": "mov eax, 0x700", "mov dr7, rax";
        "read the LSTAR register": "mov ecx, 0xc0000082", "rdmsr";
        "write the LSTAR register": "mov ecx, 0xc0000082", "xor eax, eax", "xor edx, edx", "wrmsr";
        "write the EFER register": "mov ecx, 0xc0000080", "xor eax, eax", "xor edx, edx", "wrmsr";
        "lgdt": "lgdt [rsp]";
        "lidt": "lidt [rsp]";
        "lldt": "mov eax, 0x28", "lldt ax";
        "ltr": "mov eax, 0x28", "ltr ax";
        "lmsw": "mov eax, 1", "lmsw ax";
        "swapgs": "swapgs";
        "sysretq": "lea rcx, [rip]", "sysretq";
        "sysenter": "sysenter";
        "xsetbv": "xor ecx, ecx", "mov eax, 1", "xor edx, edx", "xsetbv";
        "kernel data as stack segment": "mov eax, 0x10", "mov ss, ax";
        "kernel data as data segment": "mov eax, 0x10", "mov ds, ax";
        "kernel code as fs": "mov eax, 0x08", "mov fs, ax";
        "far return to kernel code": "lea rax, [rip]", "push 0x08", "push rax", "retfq";
        "interrupt return to kernel code": "lea rax, [rip]", "push 0x10", "push rsp", "push 0x2", "push 0x08", "push rax", "iretq";
        "system call of the 32-bit interface": "mov eax, 20", "int 0x80";
        "software double fault": "int 8";
        "software general protection": "int 13";
        "software page fault": "int 14";
        "software interrupt of a device": "int 32";
        "jump to a non-canonical address": "mov rax, 0x800000000000", "jmp rax";
        "jump to the kernel half": "mov rax, -4096", "jmp rax";
        "system call on a stack in the kernel half": "mov rsp, -4096", "push rax";
        "non-canonical fs base": "mov rax, 0x800000000000", "wrfsbase rax";
        "IOPL 3, then cli": "push 0x3202", "popfq", "cli";
        "IOPL 3, then out": "push 0x3202", "popfq", "out 0xd1, al";
        "nested task flag, then iret": "push 0x4202", "popfq", "hlt";
        "virtual 8086 flag, then hlt": "push 0x20202", "popfq", "hlt";
        "monitor": "monitor";
        "vmxon": "vmxon [rsp]";
        "vmlaunch": "vmlaunch";
        "invept": "invept rax, [rsp]";
        "vmrun": ".byte 0x0f, 0x01, 0xd8";
        "skinit": ".byte 0x0f, 0x01, 0xde";
        "encls": ".byte 0x0f, 0x01, 0xcf";
    };
    all.push(Attack::new("hypercalls", hypercalls));
    all.push(Attack::new("sgdt and sidt tell no address that can be read", descriptor_tables));
    all
}

/// Hypercalls of every number from user code: KVM refuses them to ring 3, or takes them for invalid.
fn hypercalls() -> Verdict {
    let mut ends = std::collections::BTreeSet::new();
    for number in [0u64, 1, 5, 9, 10, 11, 12, 0x1000, u64::MAX] {
        for vm in [true, false] {
            let end = crate::sys::ends(move || {
                let answer: i64;
                // SAFETY: a hypercall from user code has no effect, or the child dies.
                unsafe {
                    if vm {
                        asm!("vmmcall", inout("rax") number => answer, options(nostack));
                    } else {
                        asm!("vmcall", inout("rax") number => answer, options(nostack));
                    }
                }
                // Minus EPERM, or the number as it was.
                i32::from(answer >= 0 && answer as u64 != number)
            });
            if end != "exited 0" && !end.starts_with("killed by") {
                return Err(format!("number {number:#x}: {end}"));
            }
            ends.insert(end);
        }
    }
    Ok(format!("{ends:?}"))
}

/// Where user code may ask for the place of the tables, what is there can not be read or written.
fn descriptor_tables() -> Verdict {
    let mut told = Vec::new();
    for which in 0..2 {
        let end = crate::sys::ends(move || {
            let mut table = [0u8; 10];
            // SAFETY: the instruction stores ten bytes there, or faults.
            unsafe {
                if which == 0 {
                    asm!("sgdt [{}]", in(reg) table.as_mut_ptr());
                } else {
                    asm!("sidt [{}]", in(reg) table.as_mut_ptr());
                }
            }
            let mut base = [0; 8];
            base.copy_from_slice(&table[2..]);
            let base = usize::from_ne_bytes(base) as *mut u64;
            // SAFETY: none: the child must die here.
            unsafe { base.write_volatile(base.read_volatile()) };
            0
        });
        if !end.starts_with("killed by") {
            return Err(format!("table {which}: {end}"));
        }
        told.push(end);
    }
    Ok(format!("{told:?}"))
}
