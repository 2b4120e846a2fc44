//! A guest for tests: code pages, a stack, a data page, and one thread.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::rc::Rc;

use lg_kvm::{Hardware, KvmConfig, KvmPlatform, Polling, StartError};
use lg_platform::{
    Context, Frame, FrameStore, Mapping, PAGE_SIZE, Platform, Prot, Regs, SpaceId, Trap, UserAddr, UserRange,
    Vector,
};

/// Where the code of a guest begins.
pub const CODE: UserAddr = UserAddr(0x10_0000);
/// A page of data.
pub const DATA: UserAddr = UserAddr(0x20_0000);
/// The top of the stack page.
pub const STACK_TOP: u64 = 0x31_0000;
/// First frame that a test may use as it likes.
pub const FREE: u32 = 64;

/// Declares a function that returns a piece of guest machine code, given in the assembler's Intel syntax. It
/// must not depend on where it lies.
#[macro_export]
macro_rules! guest_code {
    ($name:ident: $($line:expr),+ $(,)?) => {
        fn $name() -> &'static [u8] {
            #[unsafe(naked)]
            extern "C" fn code() {
                core::arch::naked_asm!($($line),+, ".quad 0x5a5a444e45415a5a")
            }
            // SAFETY: the code is followed by the mark, within this function's own text.
            unsafe { $crate::common::until_mark(code as *const u8) }
        }
    };
}

/// # Safety
///
/// The mark must follow `start` within one object.
pub unsafe fn until_mark(start: *const u8) -> &'static [u8] {
    const MARK: [u8; 8] = 0x5a5a_444e_4541_5a5a_u64.to_le_bytes();
    let mut len = 0;
    loop {
        // SAFETY: the caller says that the mark comes before the end of the object.
        if unsafe { start.add(len).cast::<[u8; 8]>().read() } == MARK {
            // SAFETY: as above; text is never written.
            return unsafe { std::slice::from_raw_parts(start, len) };
        }
        len += 1;
    }
}

pub struct Guest {
    pub platform: KvmPlatform,
    pub frames: Rc<dyn FrameStore>,
    pub space: SpaceId,
    pub thread: Context,
    pub hardware: Hardware,
}

/// Returns a guest that is about to run `code`, or `None`, and says so, on a machine without KVM.
pub fn guest(code: &[u8]) -> Option<Guest> {
    guest_with(KvmConfig::new(64 << 20), code)
}

pub fn guest_with(config: KvmConfig, code: &[u8]) -> Option<Guest> {
    // All tests hold for polled system calls as well, which this is to show.
    let polling = match std::env::var_os("LG_KVM_TEST_POLLING") {
        Some(_) if config.polling == Polling::default() => Polling::Always,
        _ => config.polling,
    };
    let platform = match KvmPlatform::new(KvmConfig { polling, ..config }) {
        Ok(platform) => platform,
        Err(error @ (StartError::Absent { .. } | StartError::Forbidden { .. })) => {
            eprintln!("SKIPPED: this test needs /dev/kvm: {error}");
            return None;
        }
        Err(error) => panic!("the platform does not start: {error:?}"),
    };
    let hardware = platform.hardware();
    let frames = platform.frames();
    let mut guest =
        Guest { frames, space: SpaceId(0), thread: Context::new(Regs::default()), hardware, platform };
    guest.space = guest.new_space(code);
    guest.thread = new_thread();
    Some(guest)
}

pub fn new_thread() -> Context {
    Context::new(Regs { rip: CODE.0, rsp: STACK_TOP - 64, rflags: 0x202, ..Regs::default() })
}

impl Guest {
    /// Makes a space with the code (frames 0 to 3), a stack (frame 4) and a data page (frame 5).
    pub fn new_space(&mut self, code: &[u8]) -> SpaceId {
        let space = self.platform.create_space().expect("a space");
        for (index, page) in code.chunks(PAGE_SIZE).enumerate() {
            let frame = index as u32;
            self.frames.write(Frame(frame), 0, page);
            let code = Mapping::clean(Frame(frame), Prot::READ | Prot::EXEC);
            self.platform.map(space, page_at(CODE, index), code).expect("map");
        }
        let stack = UserAddr(STACK_TOP - PAGE_SIZE as u64);
        self.platform.map(space, stack, Mapping::clean(Frame(4), Prot::READ | Prot::WRITE)).expect("map");
        self.platform.map(space, DATA, Mapping::clean(Frame(5), Prot::READ | Prot::WRITE)).expect("map");
        space
    }

    pub fn map(&mut self, addr: UserAddr, frame: u32, prot: Prot) {
        self.platform.map(self.space, addr, Mapping::clean(Frame(frame), prot)).expect("map");
    }

    pub fn unmap(&mut self, addr: UserAddr) {
        self.platform.unmap(self.space, page_range(addr, 1), &mut |_, _| {});
    }

    pub fn protect(&mut self, addr: UserAddr, prot: Prot) {
        self.platform.protect(self.space, page_range(addr, 1), &mut |_, _| prot);
    }

    /// Runs until a trap other than an interruption.
    #[track_caller]
    pub fn run(&mut self) -> Trap {
        self.try_run().expect("the guest goes on")
    }

    pub fn try_run(&mut self) -> Result<Trap, lg_platform::PlatformError> {
        loop {
            match self.platform.switch(self.space, &mut self.thread, Some(in_10_seconds()))? {
                Trap::Interrupted => {
                    assert!(now_ns() < self.thread_deadline(), "the guest does not trap");
                }
                trap => return Ok(trap),
            }
        }
    }

    fn thread_deadline(&self) -> u64 {
        u64::MAX
    }

    #[track_caller]
    pub fn expect_syscall(&mut self) {
        let trap = self.run();
        assert_eq!(trap, Trap::Syscall, "registers {:x?}", self.thread.regs);
    }

    #[track_caller]
    pub fn expect_exception(&mut self, vector: Vector) {
        match self.run() {
            Trap::Exception { vector: got, .. } if got == vector => {}
            trap => panic!("{trap:?} in place of {vector:?}, registers {:x?}", self.thread.regs),
        }
    }

    /// Starts the thread over.
    pub fn restart(&mut self) {
        self.thread.regs = Regs {
            fs_base: self.thread.regs.fs_base,
            gs_base: self.thread.regs.gs_base,
            ..new_thread().regs
        };
    }

    pub fn read_u64(&self, frame: u32, offset: usize) -> u64 {
        let mut word = [0; 8];
        self.frames.read(Frame(frame), offset, &mut word);
        u64::from_le_bytes(word)
    }

    pub fn write_u64(&self, frame: u32, offset: usize, value: u64) {
        self.frames.write(Frame(frame), offset, &value.to_le_bytes());
    }
}

pub fn page_at(base: UserAddr, index: usize) -> UserAddr {
    UserAddr(base.0 + (index * PAGE_SIZE) as u64)
}

pub fn page_range(start: UserAddr, pages: usize) -> UserRange {
    UserRange::from_len(start, (pages * PAGE_SIZE) as u64).expect("a range of user space")
}

pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn in_10_seconds() -> u64 {
    now_ns() + 10_000_000_000
}
