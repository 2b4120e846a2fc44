//! The mailbox of system calls: what it saves, what comes through it, and what a guest can do to it.

mod common;

use std::time::Duration;

use lg_kvm::{Kind, KvmConfig, Polling};
use lg_platform::{Access, Platform, Prot, Trap, Vector};

use common::*;

/// Where the kernel area keeps the mailbox and the stub.
const MAILBOX: u64 = 0x7fff_f000_4000;
const STATE: u64 = MAILBOX + 128;
const REQUEST: u64 = 1;

guest_code!(calls: "2: syscall", "jmp 2b");

/// Returns a guest if this is a KVM with a mailbox.
fn guest_of_pvm(code: &[u8]) -> Option<Guest> {
    let config = KvmConfig { polling: Polling::Always, ..KvmConfig::new(64 << 20) };
    let guest = guest_with(config, code)?;
    if guest.hardware.kind != Kind::Pvm {
        eprintln!("SKIPPED: only PVM has a mailbox");
        return None;
    }
    Some(guest)
}

fn has_two_processors() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)
}

#[test]
fn nearly_all_calls_of_a_loop_take_no_exit() {
    let Some(mut guest) = guest_of_pvm(calls()) else { return };
    for _ in 0..10_000 {
        guest.expect_syscall();
    }
    let polled = guest.platform.calls_without_exit();
    assert!(polled <= 10_000);
    assert!(!has_two_processors() || polled > 5_000, "{polled} of 10000");
}

#[test]
fn no_call_is_polled_where_that_is_not_wanted() {
    let config = KvmConfig { polling: Polling::Never, ..KvmConfig::new(64 << 20) };
    let Some(mut guest) = guest_with(config, calls()) else { return };
    for _ in 0..200 {
        guest.expect_syscall();
    }
    assert_eq!(guest.platform.calls_without_exit(), 0);
}

#[test]
fn a_guest_that_nobody_answers_leaves_by_itself_and_goes_on_all_the_same() {
    let Some(mut guest) = guest_of_pvm(calls()) else { return };
    for round in 0..30u64 {
        guest.expect_syscall();
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        guest.thread.regs.rax = round;
        guest.thread.regs.r15 = !round;
        guest.expect_syscall();
        assert_eq!((guest.thread.regs.rax, guest.thread.regs.r15), (round, !round));
    }
}

guest_code!(flags:
    "2: push rdi", "popfq", "syscall", "pushfq", "pop rsi", "syscall", "jmp 2b",
);

#[test]
fn flags_come_through_a_system_call() {
    let Some(mut guest) = guest_of_pvm(flags()) else { return };
    // Arithmetic flags; direction; alignment check; identification.
    for flag in [0, 1, 4, 0x10, 0x40, 0x80, 0x800, 0x8d5, 0x400, 0x4_0000, 0x20_0000] {
        for _ in 0..3 {
            guest.thread.regs.rdi = 0x202 | flag;
            guest.expect_syscall();
            assert_eq!(guest.thread.regs.r11 & !0x200, 2 | flag);
            guest.expect_syscall();
            assert_eq!(guest.thread.regs.rsi & !0x200, 2 | flag, "{flag:#x}");
            guest.thread.regs.rflags = 0x202;
            guest.thread.regs.r11 = 0x202;
        }
    }
}

guest_code!(forges:
    // Says that there is a call, and goes on without waiting: it counts in R12 and stores to the page at RBX.
    "2: mov dword ptr [r15], 1",
    "3: inc r12", "mov [rbx], r12", "cmp r12, r13", "jb 3b",
    "syscall", "jmp 2b",
);

/// A guest that has said that there is a call and runs on.
fn forger() -> Option<Guest> {
    let mut guest = guest_of_pvm(forges())?;
    guest.map(PAGE, FREE, Prot::READ | Prot::WRITE);
    guest.thread.regs.r15 = STATE;
    guest.thread.regs.rbx = PAGE.0;
    guest.thread.regs.r13 = u64::MAX;
    Some(guest)
}

const PAGE: lg_platform::UserAddr = lg_platform::UserAddr(0x50_0000);

#[test]
fn a_call_that_the_guest_has_only_said_to_make_is_as_good_as_one_that_it_made() {
    let Some(mut guest) = forger() else { return };
    // What is in the mailbox is zero: a call with a return address of zero.
    for _ in 0..20 {
        match guest.run() {
            Trap::Syscall => guest.restart_forging(),
            trap => panic!("{trap:?}"),
        }
    }
    guest.works_afterwards();
}

trait Forging {
    fn restart_forging(&mut self);
    fn works_afterwards(&mut self);
}

impl Forging for Guest {
    fn restart_forging(&mut self) {
        let (r15, rbx, r13) = (STATE, PAGE.0, u64::MAX);
        self.restart();
        (self.thread.regs.r15, self.thread.regs.rbx, self.thread.regs.r13) = (r15, rbx, r13);
    }

    /// The thread makes true calls with its registers in order.
    fn works_afterwards(&mut self) {
        self.restart();
        (self.thread.regs.r15, self.thread.regs.rbx, self.thread.regs.r13) = (DATA.0, DATA.0, 5);
        self.expect_syscall();
        assert_eq!(self.thread.regs.r12, 5);
    }
}

#[test]
fn a_page_that_is_taken_from_a_guest_that_only_pretends_to_wait_is_gone_at_once() {
    let Some(mut guest) = forger() else { return };
    for round in 0..50 {
        assert_eq!(guest.run(), Trap::Syscall);
        // It may be storing to the page at this moment.
        guest.unmap(PAGE);
        guest.write_u64(FREE, 0, 0xdead);
        let until = std::time::Instant::now() + Duration::from_micros(200);
        while std::time::Instant::now() < until {
            assert_eq!(guest.read_u64(FREE, 0), 0xdead, "round {round}");
        }
        guest.restart();
        (guest.thread.regs.r15, guest.thread.regs.rbx) = (DATA.0, PAGE.0);
        let trap = guest.run();
        assert!(matches!(trap, Trap::PageFault { addr: PAGE, access: Access::Write, .. }), "{trap:?}");
        guest.map(PAGE, FREE, Prot::READ | Prot::WRITE);
        guest.restart_forging();
    }
    guest.works_afterwards();
}

#[test]
fn a_call_that_a_thread_has_said_to_make_is_not_taken_for_another_threads() {
    let Some(mut guest) = forger() else { return };
    for _ in 0..100 {
        guest.unmap(PAGE);
        // It faults right after, before the call is seen or afterwards.
        guest.restart_forging();
        let trap = guest.run();
        assert!(matches!(trap, Trap::PageFault { .. } | Trap::Syscall), "{trap:?}");
        guest.platform.sync(&mut guest.thread).unwrap();
        guest.thread = new_thread();
        guest.works_afterwards();
        guest.map(PAGE, FREE, Prot::READ | Prot::WRITE);
    }
}

#[test]
fn what_lies_in_the_mailbox_is_not_another_threads_to_read() {
    let Some(mut guest) = guest_of_pvm(reads()) else { return };
    guest.thread.regs.rdi = DATA.0;
    guest.thread.regs.r12 = 0x5ec2_e700_5ec2_e700;
    for _ in 0..3 {
        guest.expect_syscall();
    }
    guest.platform.sync(&mut guest.thread).unwrap();
    guest.thread = new_thread();
    // The place of R12.
    guest.thread.regs.rdi = MAILBOX + 12 * 8;
    guest.expect_syscall();
    assert_eq!(guest.thread.regs.rax, 0);
}

guest_code!(reads: "2: mov rax, [rdi]", "syscall", "jmp 2b");

guest_code!(scribbles:
    // Fills the mailbox with what RSI and the state say, and makes a call.
    "2: mov rcx, 64", "mov rdi, rbx", "mov rax, rsi", "rep stosq", "mov [r15], r14d", "syscall", "jmp 2b",
);

#[test]
fn no_contents_of_the_mailbox_confuse_the_next_call() {
    let Some(mut guest) = guest_of_pvm(scribbles()) else { return };
    for state in [0, 1, 2, 3, 4, 5, 6, u64::from(u32::MAX)] {
        for filling in [0, u64::MAX, 0x7fff_f000_2040, 0x8000_0000_0000] {
            guest.restart();
            guest.thread.regs.rbx = MAILBOX;
            guest.thread.regs.r15 = STATE;
            (guest.thread.regs.r14, guest.thread.regs.rsi) = (state, filling);
            for _ in 0..3 {
                // A forged request with a return address that is none faults when it is answered.
                match guest.run() {
                    Trap::Syscall if state == REQUEST => {}
                    Trap::Exception { vector: Vector::GENERAL_PROTECTION, .. } if state == REQUEST => break,
                    Trap::PageFault { .. } if state == REQUEST => break,
                    Trap::Syscall => assert_eq!(guest.thread.regs.rsi, filling),
                    trap => panic!("state {state}, filling {filling:#x}: {trap:?}"),
                }
            }
        }
    }
}

#[test]
fn a_pending_signal_ends_polling_after_a_few_calls() {
    let signal = libc::SIGUSR1;
    // SAFETY: the set is this function's own, and it is initialised before it is used.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    };
    let config = KvmConfig {
        polling: Polling::Always,
        interrupting_signals: vec![signal],
        ..KvmConfig::new(64 << 20)
    };
    let Some(mut guest) = guest_with(config, calls()) else { return };
    for _ in 0..20 {
        (0..100).for_each(|_| guest.expect_syscall());
        // SAFETY: the signal is blocked.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal) };
        let trap_of =
            |guest: &mut Guest| guest.platform.switch(guest.space, &mut guest.thread, None).unwrap();
        let calls = (0..100).take_while(|_| trap_of(&mut guest) == Trap::Syscall).count();
        assert!(calls <= 16, "{calls}");
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time are live.
        assert_eq!(unsafe { libc::sigtimedwait(&set, std::ptr::null_mut(), &now) }, signal);
    }
}
