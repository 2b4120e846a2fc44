//! Whatever a guest tries, it gets a fault of its own, and the sandbox goes on.

mod common;

use common::*;
use lg_kvm::Kind;
use lg_platform::{Access, PAGE_SIZE, Platform, Prot, Trap, USER_END, UserAddr, Vector};

/// First address of the kernel area, and its pages (see `layout`).
const KERNEL_AREA: u64 = 0x7fff_f000_0000;
const KERNEL_AREA_PAGES: u64 = 5;
/// On PVM, the page that user code may write: it belongs to the stub that runs at ring 3 there.
const MAILBOX_PAGE: u64 = 4;

const IF: u64 = 1 << 9;
const TF: u64 = 1 << 8;
const AC: u64 = 1 << 18;
/// IOPL, NT, VM, VIF, VIP.
const NEVER_USER: u64 = 3 << 12 | 1 << 14 | 1 << 17 | 1 << 19 | 1 << 20;

guest_code!(plain_syscall: "syscall", "nop", "pushfq", "pop rax", "syscall", "nop", "int3", "nop");
const PUSH_FLAGS: u64 = CODE.0 + 3;

/// A guest whose code page holds `attack`, with an honest system call in the page after it.
fn attacker(attack: &[u8]) -> Option<Guest> {
    let mut code = attack.to_vec();
    code.resize(PAGE_SIZE, 0xf4);
    code.extend_from_slice(plain_syscall());
    guest(&code)
}

/// Proves that the guest still works: system calls, exceptions and page faults come out as they should.
#[track_caller]
fn still_works(guest: &mut Guest) {
    guest.restart();
    guest.thread.regs.rip = CODE.0 + PAGE_SIZE as u64;
    guest.thread.regs.rax = 42;
    guest.expect_syscall();
    assert_eq!(guest.thread.regs.rax, 42);
    guest.thread.regs.rip = CODE.0 + PAGE_SIZE as u64 + 8;
    guest.expect_exception(Vector::BREAKPOINT);
    guest.expect_syscall_after_jump();
}

trait More {
    fn expect_syscall_after_jump(&mut self);
}

impl More for Guest {
    #[track_caller]
    fn expect_syscall_after_jump(&mut self) {
        self.thread.regs.rip = 0x6666_0000;
        let addr = UserAddr(0x6666_0000);
        assert_eq!(self.run(), Trap::PageFault { addr, access: Access::Exec, present: false });
        self.thread.regs.rip = CODE.0 + PAGE_SIZE as u64;
        self.expect_syscall();
    }
}

/// Whether the host is qemu without hardware virtualisation, whose processor is simpler in places.
fn emulated() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == b"TCGTCGTCGTCG"
}

const GP: &[Vector] = &[Vector::GENERAL_PROTECTION];
const UD: &[Vector] = &[Vector::INVALID_OPCODE];
/// Where hardware and interpretation, or Intel and AMD, answer differently.
const GP_OR_UD: &[Vector] = &[Vector::GENERAL_PROTECTION, Vector::INVALID_OPCODE];

guest_code!(out_syscall_port: "out 0xd0, al");
guest_code!(out_exception_port: "out 0xd1, al");
guest_code!(out_other_port: "mov edx, 0x3f8", "out dx, eax");
guest_code!(out_dx_syscall_port: "mov edx, 0xd0", "out dx, ax");
guest_code!(in_syscall_port: "in eax, 0xd0");
guest_code!(in_dx: "mov edx, 0xd0", "in al, dx");
guest_code!(in_exception_port: "in al, 0xd1");
guest_code!(rep_outs: "mov edx, 0xd0", "mov rsi, rdi", "mov rcx, -1", "rep outsb");
guest_code!(rep_ins: "mov edx, 0xd0", "mov rcx, -1", "rep insb");
guest_code!(outs: "mov edx, 0xd1", "mov rsi, rdi", "outsd");
guest_code!(hlt: "hlt");
guest_code!(cli: "cli");
guest_code!(sti: "sti");
guest_code!(write_cr3: "xor eax, eax", "mov cr3, rax");
guest_code!(read_cr0: "mov rax, cr0");
guest_code!(write_dr7: "mov eax, 0x700", "mov dr7, rax");
guest_code!(wrmsr: "mov ecx, 0xc0000082", "xor eax, eax", "xor edx, edx", "wrmsr");
guest_code!(rdmsr: "mov ecx, 0xc0000082", "rdmsr");
guest_code!(lgdt: "lgdt [rdi]");
guest_code!(lidt: "lidt [rdi]");
guest_code!(ltr: "mov eax, 0x28", "ltr ax");
guest_code!(lldt: "mov eax, 0x28", "lldt ax");
guest_code!(invlpg: "invlpg [rdi]");
guest_code!(wbinvd: "wbinvd");
guest_code!(clts: "clts");
guest_code!(swapgs: "swapgs");
guest_code!(sysretq: "mov rcx, rdi", "sysretq");
guest_code!(sysenter: "sysenter");
guest_code!(xsetbv: "xor ecx, ecx", "xgetbv", "xsetbv");
guest_code!(mov_kernel_data_to_ss: "mov eax, 0x10", "mov ss, ax");
guest_code!(mov_kernel_data_to_ds: "mov eax, 0x10", "mov ds, ax");
guest_code!(mov_kernel_code_to_fs: "mov eax, 0x08", "mov fs, ax");
guest_code!(mov_tss_to_gs: "mov eax, 0x28", "mov gs, ax");
guest_code!(far_return_to_kernel: "lea rax, [rip]", "push 0x08", "push rax", "retfq");
guest_code!(iret_to_kernel: "lea rax, [rip]", "push 0x10", "push rsp", "push 0x2", "push 0x08", "push rax", "iretq");
guest_code!(far_return_beyond_the_table: "lea rax, [rip]", "push 0x3b", "push rax", "retfq");
guest_code!(int_80: "int 0x80");
guest_code!(int_0: "int 0");
guest_code!(int_2: "int 2");
guest_code!(int_8: "int 8");
guest_code!(int_13: "int 13");
guest_code!(int_14: "int 14");
guest_code!(int_32: "int 32");
guest_code!(int_255: "int 255");
guest_code!(ud2: "ud2");
guest_code!(divide_by_zero: "xor ecx, ecx", "div ecx");
guest_code!(jump_non_canonical: "mov rax, 0x800000000000", "jmp rax");
guest_code!(load_non_canonical: "mov rax, 0x8000000000000000", "mov rax, [rax]");
guest_code!(push_non_canonical: "mov rsp, 0x8000000000000008", "push rax");
guest_code!(fs_base_non_canonical: "mov rax, 0x800000000000", "wrfsbase rax");
guest_code!(pop_iopl_and_cli: "push 0x3202", "popfq", "cli");
guest_code!(pop_iopl_and_out: "push 0x3202", "popfq", "out 0xd1, al");

#[test]
fn instructions_that_are_not_user_codes_fault() {
    let cases: &[(&str, &[u8], &[Vector])] = &[
        ("out to the system-call port", out_syscall_port(), GP),
        ("out to the exception port", out_exception_port(), GP),
        ("out to another port", out_other_port(), GP),
        ("out dx to the system-call port", out_dx_syscall_port(), GP),
        ("in from the system-call port", in_syscall_port(), GP),
        ("in from dx", in_dx(), GP),
        ("in from the exception port", in_exception_port(), GP),
        ("rep outsb", rep_outs(), GP),
        ("rep insb", rep_ins(), GP),
        ("outsd", outs(), GP),
        ("hlt", hlt(), GP),
        ("cli", cli(), GP),
        ("sti", sti(), GP),
        ("mov to cr3", write_cr3(), GP),
        ("mov from cr0", read_cr0(), GP),
        ("mov to dr7", write_dr7(), GP),
        ("wrmsr", wrmsr(), GP),
        ("rdmsr", rdmsr(), GP),
        ("lgdt", lgdt(), GP),
        ("lidt", lidt(), GP),
        ("ltr", ltr(), GP),
        ("lldt", lldt(), GP),
        ("invlpg", invlpg(), GP),
        ("wbinvd", wbinvd(), GP),
        ("clts", clts(), GP),
        ("swapgs", swapgs(), GP),
        ("sysretq", sysretq(), GP_OR_UD),
        ("sysenter", sysenter(), GP_OR_UD),
        ("xsetbv", xsetbv(), GP),
        ("mov of kernel data to ss", mov_kernel_data_to_ss(), GP),
        ("mov of kernel data to ds", mov_kernel_data_to_ds(), GP),
        ("mov of kernel code to fs", mov_kernel_code_to_fs(), GP),
        ("far return to kernel code", far_return_to_kernel(), GP),
        ("iret to kernel code", iret_to_kernel(), GP),
        ("far return beyond the table", far_return_beyond_the_table(), GP),
        ("int 0x80", int_80(), GP_OR_UD),
        ("int 0", int_0(), GP_OR_UD),
        ("int 2", int_2(), GP_OR_UD),
        ("int 8", int_8(), GP_OR_UD),
        ("int 13", int_13(), GP_OR_UD),
        ("int 14", int_14(), GP_OR_UD),
        ("int 32", int_32(), GP_OR_UD),
        ("int 255", int_255(), GP_OR_UD),
        ("ud2", ud2(), UD),
        ("division by zero", divide_by_zero(), &[Vector::DIVIDE_ERROR]),
        ("jump to a non-canonical address", jump_non_canonical(), GP),
        ("load from a non-canonical address", load_non_canonical(), GP),
        (
            "push to a non-canonical address",
            push_non_canonical(),
            &[Vector::STACK_FAULT, Vector::GENERAL_PROTECTION],
        ),
        ("wrfsbase of a non-canonical address", fs_base_non_canonical(), GP),
        ("popfq of iopl 3, then cli", pop_iopl_and_cli(), GP),
        ("popfq of iopl 3, then out", pop_iopl_and_out(), GP),
    ];
    let mut wrong = Vec::new();
    for (name, code, expected) in cases {
        let Some(mut guest) = attacker(code) else { return };
        // Once as the first thing, once after a system call, once after an exception.
        for round in 0..3 {
            guest.restart();
            guest.thread.regs.rdi = DATA.0;
            match guest.try_run() {
                Ok(Trap::Exception { vector, .. }) if expected.contains(&vector) => {
                    let rip = guest.thread.regs.rip;
                    // Interpreters put the end of the instruction here now and then.
                    let at_fault = (CODE.0..=CODE.0 + code.len() as u64).contains(&rip);
                    if !at_fault && rip != 0x8000_0000_0000 {
                        wrong.push(format!("{name}: fault at {rip:#x}"));
                    }
                }
                // Its far returns pop with the rights of the supervisor, and meet SMAP.
                Ok(Trap::PageFault { .. })
                    if emulated() && (name.starts_with("far") || name.starts_with("iret")) => {}
                other => wrong.push(format!("{name}, round {round}: {other:x?}")),
            }
            if wrong.is_empty() {
                still_works(&mut guest);
            }
            if round == 1 {
                guest.restart();
                guest.thread.regs.rip = CODE.0 + PAGE_SIZE as u64 + 8;
                guest.expect_exception(Vector::BREAKPOINT);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// PVM loads segments from the host's own table, where 0x23 is 32-bit user code and 0x33 the 64-bit one.
guest_code!(far_return_to: "lea rax, [rip + 2f]", "push 0x23", "push rax", "retfq", "2: syscall");
guest_code!(far_return_to_33: "lea rax, [rip + 2f]", "push 0x33", "push rax", "retfq", "2: syscall");
// In 32-bit mode: mov eax, 1; int 0x80; then sysenter, at the end hlt.
guest_code!(far_return_to_compatibility_mode:
    "lea rax, [rip + 2f]", "push 0x23", "push rax", "retfq",
    "2: .byte 0xb8, 1, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x34, 0xf4");
guest_code!(vmmcall: "vmmcall");
guest_code!(vmcall: "vmcall");
guest_code!(sgdt: "sgdt [rdi]");
guest_code!(rdpmc: "xor ecx, ecx", "rdpmc");
guest_code!(monitor: "monitor");
guest_code!(icebp: ".byte 0xf1");
guest_code!(lock_prefix: "lock nop");
guest_code!(null_segments: "xor eax, eax", "mov ds, ax", "mov es, ax", "mov fs, ax", "mov gs, ax", "syscall");
guest_code!(long_instruction: ".fill 20, 1, 0x66", "nop");
guest_code!(mov_ss_trap: "mov eax, ss", "push 0x302", "popfq", "mov ss, eax", "syscall");
guest_code!(mov_ss_int3: "mov eax, ss", "push 0x302", "popfq", "mov ss, eax", "int3");
guest_code!(mov_ss_kernel_stack: "mov rsp, 0x7ffff0004000", "mov eax, ss", "mov ss, eax", "syscall");
guest_code!(syscall_on_kernel_stack: "mov rsp, 0x7ffff0001000", "syscall");
guest_code!(wrgsbase_kernel: "mov rax, 0xffffffffffffffff", "wrgsbase rax", "mov gs:[0], rax");
guest_code!(xbegin: "xbegin 2f", "2: syscall");
guest_code!(enter_kernel_area: "mov rsp, 0x7ffff0004000", "mov rbp, rsp", "enter 64, 1");
guest_code!(xsave_to_kernel_area: "mov rdi, 0x7ffff0000000", "mov eax, -1", "mov edx, -1", "xsave [rdi]");

#[test]
fn odd_instructions_do_no_harm() {
    for code in [
        mov_tss_to_gs(),
        far_return_to(),
        far_return_to_33(),
        far_return_to_compatibility_mode(),
        vmmcall(),
        vmcall(),
        sgdt(),
        rdpmc(),
        monitor(),
        icebp(),
        lock_prefix(),
        null_segments(),
        long_instruction(),
        mov_ss_trap(),
        mov_ss_int3(),
        mov_ss_kernel_stack(),
        syscall_on_kernel_stack(),
        wrgsbase_kernel(),
        xbegin(),
        enter_kernel_area(),
        xsave_to_kernel_area(),
    ] {
        let Some(mut guest) = attacker(code) else { return };
        for _ in 0..3 {
            guest.restart();
            guest.thread.regs.rdi = DATA.0;
            let trap = guest.try_run();
            assert!(trap.is_ok(), "{code:02x?}: {trap:?}");
            still_works(&mut guest);
        }
    }
}

#[test]
fn int3_and_into_style_gates_are_open_to_user_code() {
    guest_code!(gates: "int3", ".byte 0xcd, 3", "int 4");
    let Some(mut guest) = guest(gates()) else { return };
    for (vector, rip) in [(Vector::BREAKPOINT, 1), (Vector::BREAKPOINT, 3), (Vector::OVERFLOW, 5)] {
        guest.expect_exception(vector);
        assert_eq!(guest.thread.regs.rip, CODE.0 + rip);
    }
}

guest_code!(jump: "jmp rdi");

#[test]
fn jumping_anywhere_into_the_kernel_area_ends_in_a_trap_of_the_guest() {
    let Some(mut guest) = attacker(jump()) else { return };
    for page in 0..KERNEL_AREA_PAGES + 1 {
        // Every byte where there may be a stub, some bytes elsewhere.
        for offset in (0..600).chain((600..4096).step_by(97)).chain([4094, 4095]) {
            let target = KERNEL_AREA + page * 4096 + offset;
            guest.restart();
            guest.thread.regs.rdi = target;
            // As if it came from a system call, to return to places that are not user code's.
            let lure = [0x8000_0000_0000, KERNEL_AREA, 0xffff_8000_0000_0000, 0][offset as usize % 4];
            (guest.thread.regs.rcx, guest.thread.regs.r11) = (lure, !TF);
            let trap = guest.run();
            match trap {
                Trap::PageFault { .. } | Trap::Exception { .. } => {}
                Trap::Syscall if guest.hardware.kind == Kind::Pvm && page == 2 => {}
                trap => panic!("{target:#x}: {trap:?}"),
            }
            if guest.hardware.kind == Kind::Ordinary && page < KERNEL_AREA_PAGES {
                let addr = UserAddr(target);
                assert_eq!(trap, Trap::PageFault { addr, access: Access::Exec, present: true });
            }
            assert_eq!(guest.thread.regs.rflags & NEVER_USER, 0);
            // Wherever that left the thread, entering it again is safe.
            let again = guest.run();
            assert!(!matches!(again, Trap::Syscall) || guest.hardware.kind == Kind::Pvm, "{again:?}");
        }
        still_works(&mut guest);
    }
}

guest_code!(load: "mov rax, [rdi]", "syscall");
guest_code!(store: "mov [rdi], rsi", "syscall");

#[test]
fn only_the_mailbox_of_pvm_can_be_written_and_only_that_and_the_stub_can_be_read() {
    for (code, access) in [(load(), Access::Read), (store(), Access::Write)] {
        let Some(mut guest) = attacker(code) else { return };
        for page in 0..KERNEL_AREA_PAGES {
            let addr = UserAddr(KERNEL_AREA + page * 4096);
            guest.restart();
            guest.thread.regs.rdi = addr.0;
            let trap = guest.run();
            let readable = guest.hardware.kind == Kind::Pvm
                && (page == MAILBOX_PAGE || page == 2 && access == Access::Read);
            match trap {
                Trap::Syscall if readable => {}
                Trap::PageFault { addr: at, access: kind, .. }
                    if at == addr && kind == access && !readable => {}
                trap => panic!("page {page}, {access:?}: {trap:?}"),
            }
            still_works(&mut guest);
        }
    }
}

#[test]
fn addresses_outside_user_space_fault() {
    let Some(mut guest) = attacker(load()) else { return };
    for address in [
        USER_END.0,
        USER_END.0 + 0x1000,
        KERNEL_AREA - 0x1000,
        KERNEL_AREA + KERNEL_AREA_PAGES * 4096,
        0x7fff_ffff_f000,
        0x8000_0000_0000,
        0xffff_8000_0000_0000,
        0xffff_ffff_8000_0000,
        0xffff_ffff_ff60_0000,
        0xffff_c900_0000_0000,
        0xffff_ffff_ffff_fff8,
        0x10_0000_0000,
    ] {
        guest.restart();
        guest.thread.regs.rdi = address;
        match guest.run() {
            Trap::PageFault { access: Access::Read, .. } => {}
            Trap::Exception { vector: Vector::GENERAL_PROTECTION, .. } => {}
            trap => panic!("{address:#x}: {trap:?}, rax {:#x}", guest.thread.regs.rax),
        }
        still_works(&mut guest);
    }
}

#[test]
fn a_context_with_an_address_that_is_not_user_codes_faults_without_running() {
    let Some(mut guest) = attacker(plain_syscall()) else { return };
    for rip in [USER_END.0, KERNEL_AREA, KERNEL_AREA + 0x2000, 0x8000_0000_0000, 0xffff_8000_0000_0000, !0] {
        for prepare in 0..3 {
            guest.restart();
            match prepare {
                1 => guest.expect_syscall(),
                2 => {
                    guest.thread.regs.rip = CODE.0 + PAGE_SIZE as u64 + 8;
                    guest.expect_exception(Vector::BREAKPOINT);
                }
                _ => {}
            }
            (guest.thread.regs.rip, guest.thread.regs.rcx) = (rip, rip);
            let before = guest.thread.regs;
            guest.expect_exception(Vector::GENERAL_PROTECTION);
            assert_eq!(guest.thread.regs, before);
            still_works(&mut guest);
        }
    }
}

#[test]
fn a_system_call_at_the_very_end_of_user_space_does_not_return_beyond_it() {
    let Some(mut guest) = attacker(plain_syscall()) else { return };
    let last = UserAddr(USER_END.0 - 4096);
    guest.frames.write(lg_platform::Frame(FREE), 4094, &[0x0f, 0x05]);
    guest.map(last, FREE, Prot::READ | Prot::EXEC);
    guest.thread.regs.rip = USER_END.0 - 2;
    guest.expect_syscall();
    assert_eq!(guest.thread.regs.rip, USER_END.0);
    guest.expect_exception(Vector::GENERAL_PROTECTION);
    still_works(&mut guest);
}

#[test]
fn flags_are_masked_on_every_way_into_user_code() {
    let Some(mut guest) = attacker(plain_syscall()) else { return };
    for flags in [!TF, NEVER_USER, 0, 1 << 63 | 1 << 12] {
        for way in 0..4 {
            guest.restart();
            guest.thread.regs.rip = CODE.0;
            match way {
                // The return of a system call, as sysretq does it and with all registers.
                0 | 1 => guest.expect_syscall(),
                2 => {
                    guest.thread.regs.rip = CODE.0 + PAGE_SIZE as u64 + 8;
                    guest.expect_exception(Vector::BREAKPOINT);
                }
                _ => {}
            }
            guest.thread.regs.rip = PUSH_FLAGS;
            guest.thread.regs.rflags = flags;
            if way == 0 {
                (guest.thread.regs.rcx, guest.thread.regs.r11) = (PUSH_FLAGS, flags);
            }
            // Alignment checks are user code's own, so keep the stack aligned.
            guest.expect_syscall();
            let seen = guest.thread.regs.rax;
            assert_eq!(seen & NEVER_USER, 0, "way {way}, flags {flags:#x}: saw {seen:#x}");
            assert_ne!(seen & IF, 0, "way {way}, flags {flags:#x}: saw {seen:#x}");
            assert_eq!(seen & AC, flags & AC);
            still_works(&mut guest);
        }
    }
}

guest_code!(pop_flags: "push rdi", "popfq", "pushfq", "pop rax", "syscall");

#[test]
fn flags_that_user_code_pops_are_masked_when_they_come_out() {
    let Some(mut guest) = attacker(pop_flags()) else { return };
    for flags in [!TF, NEVER_USER, 3 << 12] {
        guest.restart();
        guest.thread.regs.rdi = flags;
        guest.expect_syscall();
        assert_eq!(guest.thread.regs.rflags & NEVER_USER, 0);
        // IOPL, VIF and VIP can not be popped at ring 3; NT can.
        assert_eq!(guest.thread.regs.rax & (NEVER_USER & !(1 << 14)), 0);
        still_works(&mut guest);
    }
}

#[test]
fn single_stepping_traps_after_each_instruction_and_through_system_calls() {
    guest_code!(steps: "nop", "nop", "syscall", "nop", "nop");
    let Some(mut guest) = attacker(steps()) else { return };
    guest.thread.regs.rflags = TF;
    for rip in [1, 2] {
        guest.expect_exception(Vector::DEBUG);
        assert_eq!(guest.thread.regs.rip, CODE.0 + rip);
    }
    guest.expect_syscall();
    assert_ne!(guest.thread.regs.rflags & TF, 0);
    guest.expect_exception(Vector::DEBUG);
    assert!((CODE.0 + 4..=CODE.0 + 5).contains(&guest.thread.regs.rip));
    still_works(&mut guest);
}

#[test]
fn unaligned_accesses_fault_when_the_thread_asks_for_it() {
    if emulated() {
        return eprintln!("SKIPPED: qemu's emulated processor checks no alignment");
    }
    let Some(mut guest) = attacker(load()) else { return };
    guest.thread.regs.rflags = AC;
    guest.thread.regs.rdi = DATA.0 + 1;
    guest.expect_exception(Vector::ALIGNMENT_CHECK);
    still_works(&mut guest);
}

#[test]
fn floating_point_exceptions_arrive_as_themselves() {
    guest_code!(x87: "push 0x300", "fldcw [rsp]", "fldz", "fld1", "fdiv st(0), st(1)", "fwait");
    guest_code!(sse: "push 0", "ldmxcsr [rsp]", "pxor xmm0, xmm0", "divss xmm0, xmm0");
    for (code, vector) in [(x87(), Vector::X87_FLOATING_POINT), (sse(), Vector::SIMD_FLOATING_POINT)] {
        if vector == Vector::SIMD_FLOATING_POINT && emulated() {
            return eprintln!("SKIPPED: qemu's emulated processor raises no SIMD exceptions");
        }
        let Some(mut guest) = attacker(code) else { return };
        guest.expect_exception(vector);
        guest.platform.sync(&mut guest.thread).unwrap();
        guest.thread.fpu.0.clear();
        still_works(&mut guest);
    }
}

#[test]
fn hostile_xsave_images_are_taken_without_an_error() {
    guest_code!(read_mxcsr: "push 0", "stmxcsr [rsp]", "pop rax", "syscall");
    let Some(mut guest) = attacker(read_mxcsr()) else { return };
    let (len, xcr0) = guest.platform.xsave();
    let mut seed = 0x1234_5678_9abc_def0_u64;
    for round in 0..300usize {
        guest.platform.sync(&mut guest.thread).unwrap();
        let image = &mut guest.thread.fpu.0;
        *image = match round {
            0 => vec![0xff; len],
            1 => vec![0xff; 10],
            2 => vec![0xff; 1 << 16],
            3 => vec![0; len],
            _ => (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    (seed >> 56) as u8
                })
                .collect(),
        };
        guest.restart();
        guest.expect_syscall();
        assert_eq!(guest.thread.regs.rax >> 18, 0, "MXCSR {:#x}", guest.thread.regs.rax);
        guest.platform.sync(&mut guest.thread).unwrap();
        let image = &guest.thread.fpu.0;
        assert_eq!(image.len(), len);
        let present = u64::from_le_bytes(image[512..520].try_into().unwrap());
        assert_eq!(present & !xcr0, 0);
        assert!(image[520..576].iter().all(|byte| *byte == 0));
    }
    guest.thread.fpu.0.clear();
    still_works(&mut guest);
}
