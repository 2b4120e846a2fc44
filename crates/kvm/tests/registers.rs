//! What a thread holds comes through system calls, faults, other threads and interruptions unchanged.

mod common;

use common::*;
use lg_platform::{Access, Context, Platform, Prot, Regs, Trap, UserAddr, Vector};

guest_code!(syscall_loop: "2: syscall", "jmp 2b");

fn numbered() -> Regs {
    Regs {
        rax: 0x1111_0000_0000_0001,
        rbx: 0x2222_0000_0000_0002,
        rcx: 0x3333_0000_0000_0003,
        rdx: 0x4444_0000_0000_0004,
        rsi: 0x5555_0000_0000_0005,
        rdi: 0x6666_0000_0000_0006,
        rbp: 0x7777_0000_0000_0007,
        rsp: STACK_TOP - 128,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
        rip: CODE.0,
        rflags: 0x202 | 0x8d5, // every arithmetic flag
        fs_base: 0,
        gs_base: 0,
    }
}

#[test]
fn a_system_call_comes_out_with_its_registers_and_goes_on_after_the_instruction() {
    let Some(mut guest) = guest(syscall_loop()) else { return };
    for round in 0..100u64 {
        guest.thread.regs.rax = round;
        guest.thread.regs.rdi = !round;
        guest.expect_syscall();
        let regs = guest.thread.regs;
        assert_eq!((regs.rax, regs.rdi, regs.rip), (round, !round, CODE.0 + 2));
        assert_eq!((regs.rcx, regs.r11), (regs.rip, regs.rflags));
    }
}

guest_code!(store_all:
    "push rsp", "pushfq", "push rax", "push rbx", "push rcx", "push rdx", "push rsi", "push rdi", "push rbp",
    "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
    "ud2", "syscall", "jmp 3f", "3: jmp 2f", "nop", "2: syscall",
);

#[test]
fn every_register_can_be_set_after_every_kind_of_trap() {
    let Some(mut guest) = guest(store_all()) else { return };
    let want = numbered();
    // What the code pushed, in the order of ascending addresses.
    let pushed = |regs: &Regs| {
        [
            regs.r15,
            regs.r14,
            regs.r13,
            regs.r12,
            regs.r11,
            regs.r10,
            regs.r9,
            regs.r8,
            regs.rbp,
            regs.rdi,
            regs.rsi,
            regs.rdx,
            regs.rcx,
            regs.rbx,
            regs.rax,
            regs.rflags,
            regs.rsp,
        ]
    };
    for round in 0..4 {
        guest.thread.regs = want;
        guest.expect_exception(Vector::INVALID_OPCODE);
        let got: Vec<u64> = (0..17).map(|slot| guest.read_u64(4, 4096 - 128 - 17 * 8 + slot * 8)).collect();
        assert_eq!(got, pushed(&want), "round {round}");
        let mut expected = want;
        (expected.rsp, expected.rip) = (want.rsp - 17 * 8, guest.thread.regs.rip);
        // A fault's frame has RF set (SDM volume 3, 6.8.3).
        expected.rflags |= 1 << 16;
        assert_eq!(guest.thread.regs, expected);
        if round % 2 == 1 {
            // Leave the virtual CPU behind a system call before the next round.
            guest.thread.regs.rip += 2;
            guest.expect_syscall();
        }
    }
}

guest_code!(load_and_store: "mov rax, [rdi]", "mov [rdi], rsi", "jmp rdi");

#[test]
fn page_faults_name_the_address_and_the_access() {
    let Some(mut guest) = guest(load_and_store()) else { return };
    let addr = UserAddr(0x7fff_bfff_f000);
    let fault = |access, present| Trap::PageFault { addr, access, present };
    guest.thread.regs.rdi = addr.0;
    assert_eq!(guest.run(), fault(Access::Read, false));
    assert_eq!(guest.thread.regs.rip, CODE.0);
    guest.map(addr, FREE, Prot::empty());
    assert_eq!(guest.run(), fault(Access::Read, true));
    guest.map(addr, FREE, Prot::READ);
    assert_eq!(guest.run(), fault(Access::Write, true));
    guest.map(addr, FREE, Prot::READ | Prot::WRITE);
    assert_eq!(guest.run(), fault(Access::Exec, true));
    guest.unmap(addr);
    assert_eq!(guest.run(), fault(Access::Exec, false));
    guest.frames.write(lg_platform::Frame(FREE), 0, &[0x0f, 0x05]);
    guest.map(addr, FREE, Prot::EXEC);
    guest.expect_syscall();
}

guest_code!(fpu_swap:
    // Adds to the first lanes of three kinds of registers.
    "2: vpaddq ymm7, ymm7, ymm6", "movq rbx, xmm7", "vextracti128 xmm5, ymm7, 1", "movq rdx, xmm5",
    "rdfsbase r8", "rdgsbase r9", "syscall", "jmp 2b",
);
guest_code!(fpu_load: "vmovdqu ymm7, [rdi]", "vmovdqu ymm6, [rdi + 32]", "wrfsbase rsi", "syscall");

#[test]
fn each_thread_has_its_own_vector_registers_and_segment_bases() {
    let mut code = fpu_swap().to_vec();
    code.resize(256, 0xcc);
    code.extend_from_slice(fpu_load());
    let Some(mut guest) = guest(&code) else { return };
    let mut threads: Vec<Context> = (0..3).map(|_| new_thread()).collect();
    for (number, thread) in threads.iter_mut().enumerate() {
        for lane in 0..4 {
            guest.write_u64(5, lane * 8, 1000 * number as u64);
            guest.write_u64(5, 32 + lane * 8, 1);
        }
        (thread.regs.rip, thread.regs.rdi) = (CODE.0 + 256, DATA.0);
        (thread.regs.rsi, thread.regs.gs_base) = (0x5000 + number as u64, 0x7000_0000_0000 + number as u64);
        assert_eq!(guest.platform.switch(guest.space, thread, None).unwrap(), Trap::Syscall);
        guest.platform.sync(thread).unwrap();
        assert_eq!(thread.regs.fs_base, 0x5000 + number as u64);
        thread.regs.rip = CODE.0;
    }
    for round in 1..20 {
        for (number, thread) in threads.iter_mut().enumerate() {
            assert_eq!(guest.platform.switch(guest.space, thread, None).unwrap(), Trap::Syscall);
            let want = 1000 * number as u64 + round;
            assert_eq!((thread.regs.rbx, thread.regs.rdx), (want, want), "thread {number}");
            assert_eq!(thread.regs.r8, 0x5000 + number as u64);
            assert_eq!(thread.regs.r9, 0x7000_0000_0000 + number as u64);
            guest.platform.sync(thread).unwrap();
        }
    }
    // What the caller changes after a sync counts.
    let thread = &mut threads[2];
    thread.fpu.0.clear();
    thread.regs.fs_base = 0x1234;
    assert_eq!(guest.platform.switch(guest.space, thread, None).unwrap(), Trap::Syscall);
    assert_eq!((thread.regs.rbx, thread.regs.r8), (0, 0x1234));
}

#[test]
fn entering_another_thread_before_a_sync_is_reported_as_a_bug() {
    let Some(mut guest) = guest(syscall_loop()) else { return };
    guest.expect_syscall();
    let mut other = new_thread();
    assert!(guest.platform.switch(guest.space, &mut other, None).is_err());
}

guest_code!(spin: "2: inc rbx", "jmp 2b");

#[test]
fn a_deadline_ends_an_endless_loop_and_the_loop_can_go_on() {
    let Some(mut guest) = guest(spin()) else { return };
    let mut last = 0;
    for _ in 0..5 {
        let start = now_ns();
        // On a busy machine a deadline may come before the guest has run at all.
        while guest.thread.regs.rbx == last {
            let deadline = Some(now_ns() + 5_000_000);
            let trap = guest.platform.switch(guest.space, &mut guest.thread, deadline).unwrap();
            assert_eq!(trap, Trap::Interrupted);
            assert!(now_ns() - start < 20_000_000_000, "the guest does not run");
        }
        assert!((CODE.0..CODE.0 + 5).contains(&guest.thread.regs.rip));
        last = guest.thread.regs.rbx;
    }
}
