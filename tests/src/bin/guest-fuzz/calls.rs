//! Which system call comes next, and with which arguments: those that the tables of bad input hold to be good, with some of
//! them spoilt; or any number with anything.

#[path = "../guest-checks/bad_input/call.rs"]
#[allow(dead_code, reason = "the checks use the rest")]
mod call;
#[path = "../guest-checks/bad_input/tables.rs"]
#[allow(dead_code, reason = "the checks use the rest")]
mod tables;
#[path = "../guest-checks/bad_input/world.rs"]
#[allow(dead_code, reason = "the checks use the rest")]
mod world;

use libc::*;

pub use self::call::{Arg, Call, Data};
use self::tables::Group;
pub use self::world::World;
use crate::random::Random;
use crate::sys;

/// The groups of the tables.
const GROUPS: &[Group] = &[
    tables::IO,
    tables::FILES,
    tables::NAMES,
    tables::ATTRIBUTES,
    tables::MEMORY,
    tables::EVENTS,
    tables::SOCKETS,
    tables::PROCESSES,
    tables::TIME,
    tables::IPC,
];

/// Descriptors that are open: those of the [`World`], and those of [`crate::worker`] behind them.
pub const DESCRIPTORS: std::ops::Range<u64> = 100..130;

/// Numbers above all that there are.
const NUMBERS: u64 = 480;

/// Calls that send signals: their targets stay within the worker's own processes, else the run would end early.
const SENDERS: &[i64] = &[SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo];

/// Calls that end what makes them: rarely worth it.
const ENDS: &[i64] = &[SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_vfork, SYS_execve, SYS_execveat];

/// None of them is a directory that programs need: the superuser may take it away.
const PATHS: &[&str] = &[
    "f",
    "new",
    "l",
    "d",
    "h",
    ".",
    "..",
    "/",
    "",
    "d/",
    "f/",
    "d/../f",
    "/rw",
    "/rw/file",
    "/rw/x",
    "/rw/link-up",
    "/rw/link-absolute",
    "/ro/file",
    "/ro/x",
    "/tmp",
    "/tmp/x",
    "/dev/shm/x",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/ptmx",
    "/dev/tty",
    "/dev/pts/0",
    "/dev/fd/100",
    "/proc/self/mem",
    "/proc/self/maps",
    "/proc/self/fd/101",
    "/proc/self/exe",
    "/proc/self/root",
    "/proc/self/cwd/f",
    "/proc/self/stat",
    "/proc/self/comm",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/self/task",
    "/sys/fs/cgroup",
    "/etc/passwd",
    "/usr/bin/true",
    "/usr/lib/os-release",
    "user.b",
];

const EXTREMES: &[u64] = &[
    0,
    1,
    2,
    7,
    16,
    4095,
    4096,
    4097,
    1 << 16,
    1 << 20,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    1 << 47,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

const REQUESTS: &[i32] = &[
    0x5401, 0x5402, 0x5403, 0x5404, 0x540b, 0x540e, 0x540f, 0x5410, 0x5411, 0x5412, 0x5413, 0x5414, 0x541b,
    0x5421, 0x5422, 0x5423, 0x5429, 0x5430, 0x5431, 0x5441, 0x5450, 0x5451, 0x5452, 0x5460, 0x8910, 0x8912,
    0x8913, 0x8927,
];

/// A call with the words that it is made with.
#[derive(Clone, Copy)]
pub struct Made {
    pub number: i64,
    pub words: [u64; 6],
}

/// Returns the next call; `last` is what the one before answered. What its arguments point to lies in `world`.
pub fn next(random: &mut Random, world: &World, last: u64) -> Made {
    let mut made = match random.below(16) {
        0..2 => wild(random, world, last),
        2 => descriptor_call(random, world, last),
        _ => {
            let group = random.one_of(GROUPS);
            let call = &group[random.below(group.len() as u64) as usize];
            let mut words = [0; 6];
            for (at, arg) in call.args.iter().enumerate() {
                words[at] = argument(random, world, at, *arg, last);
            }
            Made { number: call.number, words }
        }
    };
    if made.number == SYS_reboot || ENDS.contains(&made.number) && !random.once_in(20) {
        made.number = SYS_getpid;
    }
    if SENDERS.contains(&made.number) {
        let own = sys::pid() as u64;
        made.words[0] = random.one_of(&[0, own, own, own.wrapping_neg(), 1 << 30]);
    }
    made
}

/// Any number with anything.
fn wild(random: &mut Random, world: &World, last: u64) -> Made {
    let number = if random.once_in(30) { random.word() } else { random.below(NUMBERS) };
    let words = std::array::from_fn(|_| word(random, world, last));
    Made { number: number as i64, words }
}

/// ioctl(2) and fcntl(2), whose arguments depend on the second.
fn descriptor_call(random: &mut Random, world: &World, last: u64) -> Made {
    let fd = argument(random, world, 0, Arg::Fd(100), last);
    let argument = word(random, world, last);
    if random.once_in(2) {
        let request = random.one_of(REQUESTS) as u64;
        return Made { number: SYS_ioctl, words: [fd, request, argument, 0, 0, 0] };
    }
    let command = random.below(17) + if random.once_in(2) { 1024 } else { 0 };
    Made { number: SYS_fcntl, words: [fd, command, argument, 0, 0, 0] }
}

/// An argument: good more often than not.
fn argument(random: &mut Random, world: &World, at: usize, arg: Arg, last: u64) -> u64 {
    let is_good = !random.once_in(4);
    match arg {
        Arg::Fd(good) if is_good && random.once_in(2) => good as u64,
        Arg::Fd(_) if is_good => DESCRIPTORS.start + random.below(DESCRIPTORS.end - DESCRIPTORS.start),
        Arg::Fd(_) => {
            random.one_of(&[last, 0, 3, 4, 5, 150, AT_FDCWD as u32 as u64, u64::MAX, 1 << 32 | 100])
        }
        Arg::Path(_) if is_good => path(random, world, at),
        Arg::In(_) | Arg::Out if is_good => {
            let address = world.good(at, arg);
            if random.once_in(3) {
                spoil(random, world, address, last);
            }
            address
        }
        Arg::Path(_) | Arg::In(_) | Arg::Out => pointer(random, world, at),
        Arg::Flags(good, known) if is_good => good | random.word() & random.word() & known,
        Arg::Fixed(good) if is_good => good,
        Arg::Num(_) if is_good => random.below(40),
        Arg::Offset(_) if is_good => random.below(1 << 14),
        Arg::Span(_) if is_good => random.below(8) << 12,
        Arg::Len(good) if is_good => good + random.below(600),
        _ => word(random, world, last),
    }
}

fn path(random: &mut Random, world: &World, at: usize) -> u64 {
    let address = world.good(at, Arg::Out);
    let text = random.one_of(PATHS);
    let long = if random.once_in(40) { 3000 } else { 0 };
    let bytes = std::iter::repeat_n(b'x', long).chain(text.bytes()).chain([0]);
    bytes.enumerate().for_each(|(index, byte)| poke(address + index as u64, byte));
    address
}

/// Addresses of every kind.
fn pointer(random: &mut Random, world: &World, at: usize) -> u64 {
    match random.below(12) {
        0 => 0,
        1 => 1,
        2 => world.unaligned(),
        3 => world.read_only(),
        4 => world.crossing(),
        5 => world.hole(),
        6 => world.hole() - random.below(64),
        7 => 0xffff_8000_0000_1000,
        8 => 0x0080_0000_0000_0000,
        9 => u64::MAX - random.below(16),
        10 => 0x7fff_ffff_f000 - random.below(1 << 31),
        _ => world.good(at, Arg::Out),
    }
}

/// A word that may mean something.
fn word(random: &mut Random, world: &World, last: u64) -> u64 {
    match random.below(9) {
        0 => random.one_of(EXTREMES),
        1 => random.below(64),
        2 => 1 << random.below(64),
        3 => DESCRIPTORS.start + random.below(DESCRIPTORS.end - DESCRIPTORS.start),
        4 => last,
        5 => random.word(),
        6 => random.one_of(EXTREMES).wrapping_neg(),
        slot => pointer(random, world, slot as usize - 6),
    }
}

/// Puts other words where a call reads a structure.
fn spoil(random: &mut Random, world: &World, address: u64, last: u64) {
    for _ in 0..=random.below(3) {
        let at = address + random.below(12) * 8;
        let value = word(random, world, last);
        value.to_ne_bytes().iter().enumerate().for_each(|(index, byte)| poke(at + index as u64, *byte));
    }
}

/// Stores a byte in the memory of the [`World`].
fn poke(address: u64, value: u8) {
    // SAFETY: the address lies in a page of the world's for arguments. Where a call has unmapped it, the worker ends with
    // SIGSEGV, as it may.
    unsafe { (address as *mut u8).write_volatile(value) };
}
