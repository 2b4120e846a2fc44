//! The path walk, over a tree that the input makes and changes: links, renames, `..` and deep directories.

#![no_main]

use lg_kernel::Limits;
use lg_kernel::testing::Sandbox;
use libfuzzer_sys::fuzz_target;

/// Numbers of system calls that take one path, and of those that take two.
const ONE_PATH: [u32; 12] = [2, 4, 6, 21, 76, 80, 83, 84, 85, 87, 90, 161];
const TWO_PATHS: [u32; 3] = [82, 86, 88];

/// Parts of paths: a handful, so that they meet.
const PARTS: [&str; 12] = ["a", "b", "c", "d", "..", ".", "/", "//", "a/", "../..", "proc/self/root", "long"];

/// Bytes that fit where the process may write.
const ROOM: usize = 2000;

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<usize> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(usize::from(*first))
    }

    fn path(&mut self) -> Option<Vec<u8>> {
        let count = self.byte()? % 6;
        let mut path = Vec::new();
        for _ in 0..count {
            match PARTS[self.byte()? % PARTS.len()] {
                "long" => path.extend([b'x'; 300]),
                part => path.extend(part.as_bytes()),
            }
            path.push(b'/');
        }
        path.pop();
        path.push(0);
        Some(path)
    }

    /// Makes one call.
    fn call(&mut self, sandbox: &mut Sandbox) -> Option<()> {
        let which = self.byte()? % (ONE_PATH.len() + TWO_PATHS.len());
        let first = self.path()?;
        if let Some(number) = ONE_PATH.get(which) {
            let at = sandbox.place(&first);
            // For open: O_RDWR | O_CREAT | O_NONBLOCK; for mkdir and chmod: a mode; for stat and readlink: a place.
            let second = match number {
                2 => 0o4102,
                4 | 6 => at,
                76 => 5000,
                _ => 0o755,
            };
            if let Some(Ok(fd)) = sandbox.try_call(*number, &[at, second, 0o600])
                && *number == 2
            {
                sandbox.try_call(3, &[fd]);
            }
            return Some(());
        }
        let second = self.path()?;
        let both = [first.clone(), second].concat();
        if both.len() > ROOM {
            return Some(());
        }
        let at = sandbox.place(&both);
        sandbox.try_call(TWO_PATHS[which - ONE_PATH.len()], &[at, at + first.len() as u64]);
        Some(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut sandbox = Sandbox::new(Limits::with_memory(2048));
    let mut input = Input(bytes);
    while input.call(&mut sandbox).is_some() {}
    // The walk still works.
    let root = sandbox.place(b"/\0");
    assert_eq!(sandbox.try_call(80, &[root]), Some(Ok(0)));
});
