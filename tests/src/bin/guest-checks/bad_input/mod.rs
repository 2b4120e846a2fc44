//! Bad input: each system call of [`tables`] with good arguments but one, and with two bad ones, which shows the
//! error that comes first. Each call is made by a child, in a [`World`] of its own, that a wrong answer can not
//! spoil for the next.
//!
//! ```text
//! bad_input_io/read 1 null: EFAULT
//! ```

mod call;
mod tables;
mod world;

use libc::*;

pub use self::call::{Arg, Call, Data};
use self::tables::Group;
use self::world::{CLOSED, World};
use crate::sys::{self, Errno, raw};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("bad_input_io", |r| run(r, tables::IO)),
    ("bad_input_files", |r| run(r, tables::FILES)),
    ("bad_input_names", |r| run(r, tables::NAMES)),
    ("bad_input_attributes", |r| run(r, tables::ATTRIBUTES)),
    ("bad_input_memory", |r| run(r, tables::MEMORY)),
    ("bad_input_events", |r| run(r, tables::EVENTS)),
    ("bad_input_sockets", |r| run(r, tables::SOCKETS)),
    ("bad_input_processes", |r| run(r, tables::PROCESSES)),
    ("bad_input_time", |r| run(r, tables::TIME)),
    ("bad_input_ipc", |r| run(r, tables::IPC)),
    ("bad_input_control", |r| run(r, tables::CONTROL)),
];

/// Prints the numbers of the calls that get bad input, and the names of those that are left out.
pub fn print_calls() {
    use tables::*;
    for call in [IO, FILES, NAMES, ATTRIBUTES, MEMORY, EVENTS, SOCKETS, PROCESSES, TIME, IPC, CONTROL]
        .into_iter()
        .flatten()
    {
        println!("{}", call.number);
    }
    tables::LEFT_OUT.iter().flat_map(|(names, _)| *names).for_each(|name| println!("{name}"));
}

const KERNEL: u64 = 0xffff_8000_0000_1000;
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000 >> 8;

fn run(r: &mut Report, group: Group) {
    let world = World::new();
    for call in group {
        for at in 0..call.args.len() {
            one_bad(r, &world, call, at);
        }
        for first in 0..call.args.len() {
            for second in first + 1..call.args.len() {
                two_bad(r, &world, call, first, second);
            }
        }
    }
}

/// Shows the answers when one argument is bad, in all its ways.
fn one_bad(r: &mut Report, world: &World, call: &Call, at: usize) {
    show(r, call, format!("{at} good"), || answer(world, call, |_| ()));
    for (class, value) in bad_values(world, call.args[at]) {
        show(r, call, format!("{at} {class}"), || {
            answer(world, call, |values| {
                world.copy(call.args[at]);
                values[at] = value;
            })
        });
    }
    if let Arg::Flags(good, known) = call.args[at] {
        let mut seen: Vec<(String, u32)> = Vec::new();
        for bit in (0..32).map(|bit| 1u64 << bit).filter(|bit| bit & known == 0) {
            let text = answer(world, call, |values| values[at] = good | bit);
            match seen.iter_mut().find(|(other, _)| *other == text) {
                Some((_, bits)) => *bits |= bit as u32,
                None => seen.push((text, bit as u32)),
            }
        }
        for (text, bits) in seen {
            show(r, call, format!("{at} undefined bits {bits:#x}"), || text);
        }
    }
}

/// Shows which of two errors comes first.
fn two_bad(r: &mut Report, world: &World, call: &Call, first: usize, second: usize) {
    let (Some(one), Some(other)) = (worst(call.args[first]), worst(call.args[second])) else { return };
    show(r, call, format!("{first} and {second}"), || {
        answer(world, call, |values| {
            values[first] = one;
            values[second] = other;
        })
    });
}

/// Shows an answer, unless it is one of [`tables::NOT_SHOWN`].
fn show(r: &mut Report, call: &Call, what: String, answer: impl FnOnce() -> String) {
    let is_left_out =
        |(name, lines, _): &(&str, &[&str], &str)| *name == call.name && lines.contains(&&*what);
    if !tables::NOT_SHOWN.iter().any(is_left_out) {
        r.see(format!("{} {what}", call.name), Shown(answer()));
    }
}

/// Text without quotation marks.
struct Shown(String);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of an argument that no order of checks should let pass.
fn worst(arg: Arg) -> Option<u64> {
    Some(match arg {
        Arg::Fd(_) => CLOSED as u64,
        Arg::In(_) | Arg::Out | Arg::Path(_) => KERNEL,
        Arg::Len(_) | Arg::Span(_) | Arg::Offset(_) => u64::MAX,
        Arg::Flags(_, known) if known as u32 == u32::MAX => return None,
        Arg::Flags(_, known) => 1 << (known as u32).trailing_ones(),
        Arg::Num(_) => u64::from(u32::MAX),
        Arg::Fixed(_) => return None,
    })
}

fn bad_values(world: &World, arg: Arg) -> Vec<(&'static str, u64)> {
    match arg {
        Arg::Fd(good) => {
            let mut values = vec![
                ("-1", u64::MAX),
                ("closed", CLOSED as u64),
                ("huge", i32::MAX as u64),
                ("with high bits", 1 << 32 | good as u64),
            ];
            values.extend(world::KINDS.iter().map(|(kind, fd)| (*kind, *fd as u64)));
            values
        }
        Arg::In(_) | Arg::Out | Arg::Path(_) => vec![
            ("null", 0),
            ("one", 1),
            ("unaligned", world.unaligned()),
            ("read only", world.read_only()),
            ("crossing", world.crossing()),
            ("unmapped", world.hole()),
            ("kernel", KERNEL),
            ("non-canonical", NON_CANONICAL),
            ("last", u64::MAX - 7),
        ],
        Arg::Len(_) => vec![
            ("0", 0),
            ("1", 1),
            ("odd", 7),
            ("i32::MAX", i32::MAX as u64),
            ("i32::MIN", i32::MIN as u32 as u64),
            ("u32::MAX", u64::from(u32::MAX)),
            ("i64::MAX", i64::MAX as u64),
            ("i64::MIN", i64::MIN as u64),
            ("u64::MAX", u64::MAX),
        ],
        Arg::Span(_) => vec![
            ("0", 0),
            ("1", 1),
            ("to the end", u64::MAX - 4095),
            ("i64::MAX", i64::MAX as u64),
            ("i64::MIN", i64::MIN as u64),
            ("u64::MAX", u64::MAX),
        ],
        Arg::Offset(_) => vec![("1", 1), ("-1", u64::MAX), ("i64::MIN", i64::MIN as u64)],
        Arg::Num(good) => vec![
            ("0", 0),
            ("-1", u64::from(u32::MAX)),
            ("i32::MAX", i32::MAX as u64),
            ("i32::MIN", i32::MIN as u32 as u64),
            ("with high bits", 1 << 32 | good),
        ],
        Arg::Flags(..) | Arg::Fixed(_) => Vec::new(),
    }
}

/// Makes a call in a child, with what `spoil` makes of its good arguments, and tells the answer.
fn answer(world: &World, call: &Call, spoil: impl FnOnce(&mut [u64; 6])) -> String {
    let pid = sys::child(|| {
        world.set_up();
        let mut values = [0; 6];
        for (at, arg) in call.args.iter().enumerate() {
            values[at] = world.good(at, *arg);
        }
        spoil(&mut values);
        // SAFETY: the alarm's default action ends this child, should the call wait.
        unsafe { alarm(1) };
        match raw(call.number, &values.map(|value| value as usize)) {
            Ok(_) => 0,
            Err(errno) => errno as i32,
        }
    });
    let mut status = 0i32;
    while raw(SYS_wait4, &[pid as usize, &raw mut status as usize, 0, 0]) == Err(Errno::EINTR) {}
    match status {
        status if !WIFEXITED(status) => sys::describe(status),
        status if WEXITSTATUS(status) == 0 => "ok".to_owned(),
        status => format!("{:?}", Errno::from_raw(WEXITSTATUS(status))),
    }
}
