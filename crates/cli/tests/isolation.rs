//! What one fork writes is never seen in another, wherever it is written: marks in memory, files, caches, pipes and
//! shared memory, and a search for them in all that a sandbox can read.

#![forbid(unsafe_code)]

mod common;

use std::collections::BTreeSet;

use common::{python_with, trials, value};
use lg_runtime::Sandbox;

/// How many forks live at one time, and how many times that there are.
const ALIVE: usize = 12;
const ROUNDS: usize = 12;

fn main() -> std::process::ExitCode {
    common::main(trials![no_fork_sees_what_another_wrote])
}

/// What the template holds, and what its forks do with it: `mark` writes the name of the sandbox everywhere, `marks`
/// searches for names, if need be also in memory that can not be written, which takes long.
const WARM_UP: &str = r#"
import ctypes, mmap, os, random, re, socket
block = bytearray(b"." * (2 << 20))
shared = mmap.mmap(-1, 1 << 20)
memory_file = os.memfd_create("shared")
os.write(memory_file, b"." * 65536)
open("/tmp/file", "wb").write(b"." * 65536)
file = open("/tmp/file", "r+b", buffering=0)
reader, writer = os.pipe()
left, right = socket.socketpair()
lists = [["x"] * 100 for _ in range(2000)]
open("/usr/share/common-licenses/GPL-3", "rb").read() if os.path.exists("/usr/share/common-licenses/GPL-3") else None

def mark(name):
    text = ("MARK-" + name + ";").encode()
    place = lambda size: random.randrange(size - len(text))
    for _ in range(20):
        at = place(len(block)); block[at:at + len(text)] = text
        at = place(1 << 20); shared[at:at + len(text)] = text
        os.pwrite(memory_file, text, place(65536))
        os.pwrite(file.fileno(), text, place(65536))
        random.choice(lists)[random.randrange(100)] = text.decode()
    os.write(writer, text)
    left.send(text)
    open("/tmp/" + name, "wb").write(text)
    with open("/etc/passwd", "ab") as passwd:
        passwd.write(text)
    with open("/dev/shm/" + name, "wb") as segment:
        segment.write(text)
    os.environ["MARK"] = text.decode()
    return os.urandom(16).hex()

def marks(everything):
    found = set()
    look = lambda data: found.update(re.findall(rb"MARK-([0-9a-z]+);", data))
    for line in open("/proc/self/maps").read().splitlines():
        ends, rights = line.split()[:2]
        first, last = (int(end, 16) for end in ends.split("-"))
        if not everything and "w" not in rights:
            continue
        while rights.startswith("r") and first < last:
            size = min(last - first, 1 << 20)
            look(ctypes.string_at(first, size))
            first += size
    for directory in ["/tmp", "/dev/shm", "/etc", "/root", "/run"]:
        for path, _, names in os.walk(directory):
            for name in names:
                try:
                    look(name.encode() + b";" + open(os.path.join(path, name), "rb").read(1 << 20))
                except OSError:
                    pass
    look(os.pread(memory_file, 1 << 20, 0))
    os.set_blocking(reader, False)
    right.setblocking(False)
    for take in [lambda: os.read(reader, 65536), lambda: right.recv(65536)]:
        try:
            data = take()
        except BlockingIOError:
            continue
        look(data)
        # It is for the forks of this one, too.
        os.write(writer, data) if data.startswith(b"MARK") else None
    return " ".join(sorted(name.decode() for name in found))
"#;

/// A sandbox, and the marks that were written in it or before it was forked.
struct Marked {
    sandbox: Sandbox,
    expected: BTreeSet<String>,
}

impl Marked {
    /// Writes a new mark, and returns the randomness that the sandbox gives.
    async fn mark(&mut self, name: &str) -> String {
        self.expected.insert(name.to_owned());
        value(&mut self.sandbox, &format!("mark({name:?})")).await
    }

    async fn check(&mut self, everything: bool) {
        let cell = if everything { "marks(True)" } else { "marks(False)" };
        let found = value(&mut self.sandbox, cell).await;
        let found: BTreeSet<String> =
            found.trim_matches('\'').split_whitespace().map(str::to_owned).collect();
        assert_eq!(found, self.expected);
    }
}

async fn no_fork_sees_what_another_wrote() {
    let template = python_with(WARM_UP).await;
    let mut seed = fastrand::Rng::with_seed(0x5eed);
    let mut entropy = BTreeSet::new();
    let mut names = (0..).map(|number| format!("{number:06x}{:08x}", seed.u32(..)));
    for round in 0..ROUNDS {
        let mut all = Vec::new();
        for _ in 0..ALIVE {
            all.push(Marked { sandbox: template.spawn().await.unwrap(), expected: BTreeSet::new() });
        }
        for marked in &mut all {
            let random = marked.mark(&names.next().unwrap()).await;
            assert!(entropy.insert(random), "the same entropy twice");
        }
        // Forks of forks know what the first wrote before, and nothing of what comes then.
        let parent = round % ALIVE;
        let expected = all[parent].expected.clone();
        for sandbox in all[parent].sandbox.fork(2).await.unwrap() {
            all.push(Marked { sandbox, expected: expected.clone() });
        }
        let others = [parent, ALIVE, ALIVE + 1];
        for other in others {
            let random = all[other].mark(&names.next().unwrap()).await;
            assert!(entropy.insert(random), "the same entropy twice");
        }
        for (index, marked) in all.iter_mut().enumerate() {
            marked.check(index % ALIVE == parent).await;
        }
        // And none of it is in the template.
        let mut fresh = Marked { sandbox: template.spawn().await.unwrap(), expected: BTreeSet::new() };
        fresh.check(true).await;
        all.push(fresh);
        for mut marked in all {
            marked.sandbox.kill().await.unwrap();
        }
    }
}
