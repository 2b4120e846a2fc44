//! System calls of every number with every kind of argument, one after the other in one process.

#![no_main]

use lg_kernel::Limits;
use lg_kernel::testing::Sandbox;
use libfuzzer_sys::fuzz_target;

/// Numbers above all that there are, and of the calls that end the process.
const NUMBERS: usize = 460;
const ENDS: [u32; 2] = [60, 231];

/// Texts that paths and names are taken from.
const TEXTS: [&[u8]; 12] = [
    b"/\0",
    b"/tmp\0",
    b"/tmp/a\0",
    b"/tmp/b\0",
    b"/init\0",
    b"/proc/self/fd\0",
    b"/proc/self/maps\0",
    b"/dev/null\0",
    b"/dev/ptmx\0",
    b"..\0",
    b"user.x\0",
    b"\0",
];

/// Addresses that are wrong, and lengths and flags at their extremes.
const EXTREMES: [u64; 12] = [
    0,
    1,
    u64::MAX,
    1 << 63,
    i64::MAX as u64,
    u32::MAX as u64,
    i32::MAX as u64,
    1 << 31,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0xffff_8000_0000_0000,
    4095,
];

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    /// An argument: `scratch` is where the process may write, `last` what the last call answered.
    fn argument(&mut self, scratch: u64, last: u64) -> Option<u64> {
        let kind = self.byte()?;
        Some(match kind >> 5 {
            0 => u64::from(kind & 31),
            1 => EXTREMES[usize::from(kind & 31) % EXTREMES.len()],
            2 => scratch + u64::from(kind & 31) * 8,
            3 => last,
            4 => 1 << (kind & 31),
            5 => u64::from(self.byte()?) << 8 | u64::from(self.byte()?),
            6 => self.word()?,
            _ => (kind as i8 as i64).wrapping_sub(-33) as u64,
        })
    }

    /// Makes one call; `None` when the input is used up or the process can go on no more.
    fn call(&mut self, sandbox: &mut Sandbox, last: &mut u64) -> Option<()> {
        let number = (usize::from(self.byte()?) << 8 | usize::from(self.byte()?)) % NUMBERS;
        if ENDS.contains(&(number as u32)) {
            return Some(());
        }
        let what = self.byte()?;
        let text = TEXTS[usize::from(what) % TEXTS.len()];
        let mut room = [0; 256];
        room[..text.len()].copy_from_slice(text);
        // Behind the text words that structures are made of.
        for slot in 4..4 + usize::from(what >> 5) {
            let word = self.argument(0x40_0800, *last)?;
            room[slot * 8..slot * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        let scratch = sandbox.try_place(&room)?;
        let mut arguments = [0; 6];
        for argument in arguments.iter_mut().take(usize::from(self.byte()?) % 7) {
            *argument = self.argument(scratch, *last)?;
        }
        if let Ok(value) = sandbox.try_call(number as u32, &arguments)? {
            *last = value;
        }
        Some(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut sandbox = Sandbox::new(Limits::with_memory(2048));
    let mut input = Input(bytes);
    let mut last = 0;
    while input.call(&mut sandbox, &mut last).is_some() {}
    // Everything that it took is given back without harm.
    drop(sandbox);
});
