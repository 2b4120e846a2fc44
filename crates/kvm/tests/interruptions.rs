//! Deadlines, signals and forks.

mod common;

use common::*;
use lg_kvm::{KvmConfig, Polling, alarm_signal};
use lg_platform::{Platform, Prot, Trap, Vector};

guest_code!(spin: "2: inc rbx", "jmp 2b", "nop", "nop", "nop", "syscall");
// Every kind of trap in turn, with a count in rbx.
guest_code!(traps: "2: inc rbx", "syscall", "inc rbx", "ud2", "inc rbx", "mov rax, [rdi]", "jmp 2b");

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, sigaddset adds to it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: the set is initialised; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
}

fn send_to_this_thread(signal: i32) {
    // SAFETY: the signal is blocked in this thread, so nothing but its pending bit changes.
    unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
}

fn take(signal: i32) -> bool {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let set = set_of(&[signal]);
    // SAFETY: the set and the time are live.
    unsafe { libc::sigtimedwait(&set, std::ptr::null_mut(), &now) == signal }
}

#[test]
fn a_pending_signal_of_the_vmm_keeps_the_guest_from_running_until_it_is_taken() {
    let signal = libc::SIGUSR1;
    block(&[signal]);
    let config = KvmConfig {
        interrupting_signals: vec![signal],
        // A guest whose calls take no exit makes a few more.
        polling: Polling::Never,
        ..KvmConfig::new(64 << 20)
    };
    let Some(mut guest) = guest_with(config, spin()) else { return };
    for place in 0..4 {
        // From each place the virtual CPU can be in.
        guest.restart();
        match place {
            1 => {
                guest.thread.regs.rip = CODE.0 + 8;
                guest.expect_syscall();
                guest.restart();
            }
            2 => {
                guest.thread.regs.rip = 0x6000_0000;
                assert!(matches!(guest.run(), Trap::PageFault { .. }));
                guest.restart();
            }
            3 => {
                guest.thread.regs.rip = CODE.0 + 8;
                guest.expect_syscall();
            }
            _ => {}
        }
        let before = guest.thread.regs;
        send_to_this_thread(signal);
        for _ in 0..3 {
            let trap = guest.platform.switch(guest.space, &mut guest.thread, None).unwrap();
            assert_eq!(trap, Trap::Interrupted);
            assert_eq!(guest.thread.regs, before, "place {place}");
        }
        assert!(take(signal));
        if place == 3 {
            // The instruction after the system call is the end of the code: run something else.
            guest.restart();
        }
        let start = now_ns();
        while guest.thread.regs.rbx == 0 {
            let deadline = Some(now_ns() + 2_000_000);
            let trap = guest.platform.switch(guest.space, &mut guest.thread, deadline).unwrap();
            assert_eq!(trap, Trap::Interrupted);
            assert!(now_ns() - start < 20_000_000_000, "the guest does not run");
        }
    }
}

#[test]
fn a_signal_that_was_not_named_does_not_interrupt() {
    block(&[libc::SIGUSR2]);
    let Some(mut guest) = guest(spin()) else { return };
    send_to_this_thread(libc::SIGUSR2);
    let start = now_ns();
    let trap = guest.platform.switch(guest.space, &mut guest.thread, Some(start + 20_000_000)).unwrap();
    assert_eq!(trap, Trap::Interrupted);
    assert!(now_ns() - start >= 20_000_000, "the deadline ended the run");
    assert!(take(libc::SIGUSR2));
}

#[test]
fn a_deadline_in_the_past_ends_the_run_soon() {
    let Some(mut guest) = guest(spin()) else { return };
    for deadline in [0, 1, now_ns() - 1] {
        let start = now_ns();
        let trap = guest.platform.switch(guest.space, &mut guest.thread, Some(deadline)).unwrap();
        assert_eq!(trap, Trap::Interrupted);
        assert!(now_ns() - start < 1_000_000_000);
    }
}

enum Spaces {
    One,
    Two,
}

#[test]
fn interruptions_at_any_instruction_lose_and_repeat_nothing() {
    count_traps(Spaces::One);
}

#[test]
fn interruptions_on_the_way_into_another_space_lose_and_repeat_nothing() {
    count_traps(Spaces::Two);
}

fn count_traps(spaces: Spaces) {
    let Some(mut guest) = guest(traps()) else { return };
    let mut other = match spaces {
        Spaces::One => guest.space,
        Spaces::Two => guest.new_space(traps()),
    };
    guest.thread.regs.rdi = 0x6000_0000;
    let mut count = 0;
    let mut interruptions = 0;
    let mut pause = 1;
    while count < 3000 {
        // Deadlines of all lengths, so that some come within the stubs.
        pause = pause * 7 % 60_013;
        let deadline = Some(now_ns() + pause);
        std::mem::swap(&mut guest.space, &mut other);
        match guest.platform.switch(guest.space, &mut guest.thread, deadline).unwrap() {
            Trap::Interrupted => {
                interruptions += 1;
                continue;
            }
            Trap::Syscall => assert_eq!(count % 3, 0),
            Trap::Exception { vector: Vector::INVALID_OPCODE, .. } => {
                assert_eq!(count % 3, 1);
                guest.thread.regs.rip += 2;
            }
            Trap::PageFault { .. } => {
                assert_eq!(count % 3, 2);
                guest.thread.regs.rip += 3;
            }
            trap => panic!("{trap:?}"),
        }
        count += 1;
        assert_eq!(guest.thread.regs.rbx, count);
    }
    eprintln!("{interruptions} interruptions in {count} traps");
    assert!(interruptions > 0);
}

enum Sealed {
    Yes,
    No,
}

#[test]
fn a_fork_goes_on_with_a_machine_of_its_own_and_leaves_the_parent_alone() {
    fork_with_memory(Sealed::No);
}

#[test]
fn a_fork_of_a_sealed_platform_goes_on_in_the_same_way() {
    fork_with_memory(Sealed::Yes);
}

fn fork_with_memory(sealed: Sealed) {
    guest_code!(add: "2: add [rdi], rsi", "mov rax, [rdi]", "syscall", "jmp 2b");
    let Some(mut guest) = guest(add()) else { return };
    guest.thread.regs.rdi = DATA.0;
    guest.thread.regs.rsi = 1;
    for _ in 0..3 {
        guest.expect_syscall();
    }
    guest.platform.sync(&mut guest.thread).unwrap();
    if let Sealed::Yes = sealed {
        guest.platform.seal(std::slice::from_ref(&(0..FREE))).unwrap();
    }
    // SAFETY: the child only runs the guest and leaves with _exit; it uses no lock that another thread of the
    // test may hold but the allocator's, which glibc makes usable again in the child.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let code = match guest.platform.revive_after_fork() {
            Ok(()) => {
                guest.thread.regs.rsi = 100;
                let traps = [guest.try_run(), guest.try_run()];
                let fresh = guest.platform.create_space().is_ok();
                let spun = guest.platform.switch(guest.space, &mut guest.thread, Some(1));
                let fine = traps.iter().all(|trap| matches!(trap, Ok(Trap::Syscall)));
                i32::from(!(fine && fresh && spun.is_ok() && guest.thread.regs.rax >= 203))
            }
            Err(_) => 2,
        };
        // SAFETY: ends the child without running the test harness's clean-up.
        unsafe { libc::_exit(code) };
    }
    if let Sealed::Yes = sealed {
        // A sealed platform has nothing to run with; its own process may revive it as well.
        guest.platform.revive_after_fork().unwrap();
    }
    guest.expect_syscall();
    assert_eq!(guest.thread.regs.rax, 4);
    let mut status = 0;
    // SAFETY: the child is this process's own.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with {status:#x}");
    guest.map(DATA, FREE, Prot::READ | Prot::WRITE);
    guest.expect_syscall();
    assert_eq!(guest.thread.regs.rax, 1);
}

#[test]
fn the_deadline_signal_stays_blocked_and_none_is_left_behind() {
    let Some(mut guest) = guest(spin()) else { return };
    let _ = guest.platform.switch(guest.space, &mut guest.thread, Some(now_ns() + 100_000)).unwrap();
    let _ = guest.platform.switch(guest.space, &mut guest.thread, Some(1)).unwrap();
    drop(guest);
    assert!(!take(alarm_signal()));
}
