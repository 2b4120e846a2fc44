//! Prints what this machine's KVM is and what the operations of the platform cost on it.
//!
//! `cargo run --release -p lg-kvm --example costs`

use std::time::{Duration, Instant};

use lg_kvm::{KvmConfig, KvmPlatform};
use lg_platform::{
    Context, Frame, Mapping, PAGE_SIZE, Platform, PlatformError, Prot, Regs, SpaceId, Trap, UserAddr,
    UserRange,
};

const CODE: UserAddr = UserAddr(0x10_0000);
const PAGES: UserAddr = UserAddr(0x4000_0000);
const ROUNDS: usize = 400;
const WRITE: Prot = Prot::READ.union(Prot::WRITE);

/// `1: syscall; jmp 1b` and, at 16, `1: movb $1, (%rdi); add $4096, %rdi; dec %rsi; jnz 1b; syscall; jmp 1b`
const GUEST: [u8; 36] = [
    0x0f, 0x05, 0xeb, 0xfc, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xc6,
    0x07, 0x01, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x48, 0xff, 0xce, 0x75, 0xf1, 0x0f, 0x05, 0xeb,
    0xed, 0x90,
];
const TOUCH: u64 = CODE.0 + 16;

struct Guest {
    platform: KvmPlatform,
    space: SpaceId,
    thread: Context,
}

impl Guest {
    fn new() -> Result<Guest, Box<dyn std::error::Error>> {
        let mut platform = KvmPlatform::new(KvmConfig::new(64 << 20))?;
        let space = platform.create_space()?;
        platform.frames().write(Frame(0), 0, &GUEST);
        platform.map(space, CODE, Mapping::clean(Frame(0), Prot::READ | Prot::EXEC))?;
        let thread = Context::new(Regs { rip: CODE.0, ..Regs::default() });
        Ok(Guest { platform, space, thread })
    }

    fn map(&mut self, pages: usize) -> Result<(), PlatformError> {
        for index in 0..pages {
            let addr = UserAddr(PAGES.0 + (index * PAGE_SIZE) as u64);
            self.platform.map(self.space, addr, Mapping::clean(Frame(64 + index as u32), WRITE))?;
        }
        Ok(())
    }

    fn range(pages: usize) -> UserRange {
        UserRange::new(PAGES, UserAddr(PAGES.0 + (pages * PAGE_SIZE) as u64))
    }

    /// Stores to each of the pages and makes a system call.
    fn touch(&mut self, pages: usize) -> Result<Trap, PlatformError> {
        self.thread.regs.rip = TOUCH;
        (self.thread.regs.rdi, self.thread.regs.rsi) = (PAGES.0, pages as u64);
        self.platform.switch(self.space, &mut self.thread, None)
    }

    fn syscall(&mut self) -> Result<Trap, PlatformError> {
        self.thread.regs.rip = CODE.0;
        self.platform.switch(self.space, &mut self.thread, None)
    }
}

/// Runs `prepare` and then `timed`, over and over, and prints what the latter took.
fn measure(
    guest: &mut Guest,
    name: &str,
    mut prepare: impl FnMut(&mut Guest) -> Result<(), PlatformError>,
    mut timed: impl FnMut(&mut Guest) -> Result<(), PlatformError>,
) -> Result<(), PlatformError> {
    let mut samples = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        prepare(guest)?;
        let start = Instant::now();
        timed(guest)?;
        samples.push(start.elapsed());
    }
    samples.sort_unstable();
    let us = |sample: Duration| sample.as_secs_f64() * 1e6;
    println!("{name:<58} {:>9.2} {:>9.2}", us(samples[ROUNDS / 2]), us(samples[ROUNDS * 95 / 100]));
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let survey = lg_kvm::survey()?;
    println!("{survey:#?}\n");
    let guest = &mut Guest::new()?;
    println!("{:<58} {:>9} {:>9}", "microseconds", "median", "p95");
    measure(guest, "system call round trip", |_| Ok(()), |guest| guest.syscall().map(drop))?;
    measure(
        guest,
        "system call round trip, with a deadline armed",
        |_| Ok(()),
        |guest| guest.platform.switch(guest.space, &mut guest.thread, Some(u64::MAX / 2)).map(drop),
    )?;
    measure(
        guest,
        "sync of a thread",
        |guest| guest.syscall().map(drop),
        |guest| guest.platform.sync(&mut guest.thread),
    )?;
    let mut other = Context::new(Regs { rip: CODE.0, ..Regs::default() });
    measure(
        guest,
        "system call round trip, other thread, with both syncs",
        |guest| guest.syscall().map(drop),
        |guest| {
            guest.platform.sync(&mut guest.thread)?;
            other.regs.rip = CODE.0;
            guest.platform.switch(guest.space, &mut other, None)?;
            guest.platform.sync(&mut other)
        },
    )?;
    measure(
        guest,
        "page fault that reaches the kernel, to its trap",
        |guest| guest.syscall().map(drop),
        |guest| guest.touch(1).map(drop),
    )?;
    measure(
        guest,
        "return from a page fault, to the next system call",
        |guest| guest.touch(1).map(drop),
        |guest| guest.syscall().map(drop),
    )?;
    for pages in [1, 16, 64] {
        guest.map(64)?;
        guest.touch(64)?;
        measure(
            guest,
            &format!("first touch of {pages} mapped pages, with a system call"),
            |guest| {
                guest.platform.unmap(guest.space, Guest::range(64), &mut |_, _| {});
                guest.map(64)?;
                guest.syscall().map(drop)
            },
            |guest| guest.touch(pages).map(drop),
        )?;
        measure(
            guest,
            &format!("unmap of {pages} used pages, with a system call"),
            |guest| {
                guest.map(64)?;
                guest.touch(64).map(drop)
            },
            |guest| {
                guest.platform.unmap(guest.space, Guest::range(pages), &mut |_, _| {});
                guest.syscall().map(drop)
            },
        )?;
        measure(
            guest,
            &format!("write-protection of {pages} dirty pages, with a system call"),
            |guest| {
                guest.map(64)?;
                guest.touch(64).map(drop)
            },
            |guest| {
                guest.platform.protect(guest.space, Guest::range(pages), &mut |_, _| Prot::READ);
                guest.syscall().map(drop)
            },
        )?;
    }
    recycling(guest)?;
    measure(
        guest,
        "space: create, map a page, destroy",
        |_| Ok(()),
        |guest| {
            let space = guest.platform.create_space()?;
            guest.platform.map(space, CODE, Mapping::clean(Frame(0), Prot::READ | Prot::EXEC))?;
            guest.platform.destroy_space(space);
            Ok(())
        },
    )?;
    measure(
        guest,
        "space: the same, with a system call in it",
        |guest| guest.platform.sync(&mut guest.thread),
        |guest| {
            let space = guest.platform.create_space()?;
            guest.platform.map(space, CODE, Mapping::clean(Frame(0), Prot::READ | Prot::EXEC))?;
            guest.thread.regs.rip = CODE.0;
            guest.platform.switch(space, &mut guest.thread, None)?;
            guest.platform.destroy_space(space);
            Ok(())
        },
    )?;
    for sealed in [false, true] {
        forks(sealed)?;
    }
    Ok(())
}

/// What it costs to give freed frames back to the host, against zeroing them for their next use.
fn recycling(guest: &mut Guest) -> Result<(), PlatformError> {
    let frames = guest.platform.frames();
    for pages in [1, 4, 16, 64, 256] {
        // As an unmap leaves them: used by the guest until just now.
        let freed = |guest: &mut Guest| {
            guest.map(pages)?;
            guest.touch(pages)?;
            guest.platform.unmap(guest.space, Guest::range(pages), &mut |_, _| {});
            guest.syscall().map(drop)
        };
        let range = 64..64 + pages as u32;
        let each = |action: &dyn Fn(Frame)| range.clone().for_each(|frame| action(Frame(frame)));
        measure(guest, &format!("zeroing of {pages} freed pages"), freed, |_| {
            each(&|frame| frames.zero(frame));
            Ok(())
        })?;
        measure(guest, &format!("discard of {pages} freed pages"), freed, |_| {
            frames.discard(range.clone());
            Ok(())
        })?;
        let discarded = |guest: &mut Guest| {
            freed(guest)?;
            frames.discard(range.clone());
            Ok(())
        };
        measure(guest, &format!("first store of the kernel to {pages} discarded pages"), discarded, |_| {
            each(&|frame| frames.write(frame, 0, &[1]));
            Ok(())
        })?;
        let name = |what| format!("first touch of {pages} {what} pages by the guest");
        let zeroed = |guest: &mut Guest| {
            freed(guest)?;
            each(&|frame| frames.zero(frame));
            guest.map(pages)
        };
        measure(guest, &name("zeroed"), zeroed, |guest| guest.touch(pages).map(drop))?;
        let mapped = |guest: &mut Guest| {
            discarded(guest)?;
            guest.map(pages)
        };
        measure(guest, &name("discarded"), mapped, |guest| guest.touch(pages).map(drop))?;
    }
    Ok(())
}

/// Forks a guest that uses 40 MiB, and prints what fork(2) takes the parent, and how long it is until the
/// child has made its own machine and a system call has come out of it.
fn forks(sealed: bool) -> Result<(), Box<dyn std::error::Error>> {
    const USED: u32 = (40 << 20 >> 12) + 64;
    let mut guest = Guest::new()?;
    let frames = guest.platform.frames();
    (0..USED).for_each(|frame| frames.write(Frame(frame), 4000, &[1]));
    guest.syscall()?;
    guest.platform.sync(&mut guest.thread)?;
    if sealed {
        guest.platform.seal(std::slice::from_ref(&(0..USED)))?;
    }
    let (mut forking, mut until_trap) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let start = Instant::now();
        // SAFETY: this process has one thread, so the child may do what it likes.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let trap = guest.platform.revive_after_fork().is_ok() && guest.syscall().is_ok();
            // In units of 20 microseconds, as far as an exit status goes.
            let status = start.elapsed().as_micros() / 20;
            // SAFETY: ends the child at once, as a benchmark wants it.
            unsafe { libc::_exit(if trap { status.min(255) as i32 } else { 255 }) };
        }
        forking.push(start.elapsed());
        let mut status = 0;
        // SAFETY: the child is this process's own, and `status` is live.
        unsafe { libc::waitpid(child, &mut status, 0) };
        until_trap.push(Duration::from_micros(libc::WEXITSTATUS(status) as u64 * 20));
    }
    for (what, samples) in
        [("in the parent", &mut forking), ("until the child's first trap", &mut until_trap)]
    {
        samples.sort_unstable();
        let (median, p95) = (samples[25].as_secs_f64() * 1e6, samples[47].as_secs_f64() * 1e6);
        let how = if sealed { "sealed " } else { "" };
        println!("{:<58} {median:>9.2} {p95:>9.2}", format!("fork with {how}40 MiB in use, {what}"));
    }
    Ok(())
}
