//! Making a platform: sizes, what can be handed in, and what is refused.

mod common;

use common::*;
use lg_kvm::{KvmConfig, KvmPlatform, StartError};
use lg_platform::{Access, Frame, Mapping, Platform, Prot, Trap};

guest_code!(load_and_store: "mov rax, [rdi]", "mov [rdi], rsi", "syscall");

#[test]
fn sizes_that_make_no_sense_are_refused() {
    if guest(load_and_store()).is_none() {
        return;
    }
    for bytes in [0, 4096, (1 << 20) + 1, 1 << 52, 1 << 63, u64::MAX, !4095] {
        let start = KvmPlatform::new(KvmConfig::new(bytes));
        assert!(matches!(start, Err(StartError::MemorySize { .. })), "{bytes} bytes");
    }
}

#[test]
fn the_last_frame_of_a_large_memory_is_usable_and_nothing_is_committed_before() {
    let Some(mut guest) = guest_with(KvmConfig::new(16 << 30), load_and_store()) else { return };
    let last = guest.frames.frame_count() - 1;
    assert_eq!(last, (16 << 18) - 1);
    guest.write_u64(last, 4088, 77);
    guest.map(DATA, last, Prot::READ | Prot::WRITE);
    (guest.thread.regs.rdi, guest.thread.regs.rsi) = (DATA.0 + 4088, 78);
    guest.expect_syscall();
    assert_eq!((guest.thread.regs.rax, guest.read_u64(last, 4088)), (77, 78));
}

#[test]
fn a_platform_can_be_made_from_an_open_device_and_what_a_probe_found() {
    let Some(first) = guest(load_and_store()) else { return };
    let device = std::fs::File::options().read(true).write(true).open("/dev/kvm").expect("opened before");
    let config =
        KvmConfig { kvm: Some(device.into()), hardware: Some(first.hardware), ..KvmConfig::new(1 << 20) };
    drop(first);
    let mut second = guest_with(config, load_and_store()).expect("opened before");
    second.thread.regs.rdi = DATA.0;
    second.expect_syscall();
    assert_eq!(lg_kvm::probe().expect("probed before"), second.hardware);
}

#[test]
fn the_time_stamp_counter_is_the_one_the_guest_reads() {
    guest_code!(rdtsc: "2: rdtsc", "shl rdx, 32", "or rax, rdx", "syscall", "jmp 2b");
    let Some(mut guest) = guest(rdtsc()) else { return };
    let Some(before) = guest.platform.tsc() else {
        return eprintln!("SKIPPED: this machine's counter can not serve as a clock");
    };
    guest.expect_syscall();
    let after = guest.platform.tsc().expect("it has one");
    assert!((before.ticks..=after.ticks).contains(&guest.thread.regs.rax));
    assert_eq!(before.khz, after.khz);
}

#[test]
fn the_state_that_processors_add_beyond_avx_belongs_to_one_thread_too() {
    guest_code!(write: "vmovdqu64 zmm20, [rdi]", "kmovw k3, esi", "syscall");
    guest_code!(read: "vmovdqu64 [rdi], zmm20", "kmovw eax, k3", "syscall");
    let mut code = write().to_vec();
    code.resize(64, 0xcc);
    code.extend_from_slice(read());
    let Some(mut guest) = guest(&code) else { return };
    let (_, xcr0) = guest.platform.xsave();
    if xcr0 & 0xe0 != 0xe0 {
        return eprintln!("SKIPPED: this processor has no AVX-512");
    }
    let mut threads = [new_thread(), new_thread()];
    for (number, thread) in threads.iter_mut().enumerate() {
        guest.frames.write(Frame(5), 0, &[number as u8 + 1; 64]);
        (thread.regs.rdi, thread.regs.rsi) = (DATA.0, number as u64 + 1);
        assert_eq!(guest.platform.switch(guest.space, thread, None).unwrap(), Trap::Syscall);
        guest.platform.sync(thread).unwrap();
    }
    for (number, thread) in threads.iter_mut().enumerate() {
        thread.regs.rip = CODE.0 + 64;
        assert_eq!(guest.platform.switch(guest.space, thread, None).unwrap(), Trap::Syscall);
        guest.platform.sync(thread).unwrap();
        let mut lanes = [0; 64];
        guest.frames.read(Frame(5), 0, &mut lanes);
        assert_eq!(lanes, [number as u8 + 1; 64]);
        assert_eq!(thread.regs.rax, number as u64 + 1);
    }
}

#[test]
fn a_frame_or_an_address_that_is_not_the_guests_is_a_bug_of_the_caller() {
    let Some(mut guest) = guest(load_and_store()) else { return };
    let count = guest.frames.frame_count();
    let mut refused = |addr, frame| {
        let map = std::panic::AssertUnwindSafe(|| {
            guest.platform.map(guest.space, addr, Mapping::clean(Frame(frame), Prot::READ)).is_ok()
        });
        std::panic::catch_unwind(map).is_err()
    };
    assert!(refused(DATA, count));
    assert!(refused(DATA, u32::MAX));
    assert!(refused(lg_platform::USER_END, FREE));
    assert!(refused(lg_platform::UserAddr(DATA.0 + 1), FREE));
    assert!(refused(lg_platform::UserAddr(0xffff_8000_0000_0000), FREE));
    guest.unmap(DATA);
    guest.thread.regs.rdi = DATA.0;
    assert_eq!(guest.run(), Trap::PageFault { addr: DATA, access: Access::Read, present: false });
}
