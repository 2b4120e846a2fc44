//! Broken and hostile programs: whatever their headers say, there is an exit status and no internal error.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PAGE: u64 = 4096;
const LOAD: u32 = 1;
const INTERP: u32 = 3;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// A little code: `exit(7)`.
const CODE: [u8; 12] = [0xbf, 7, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

/// A program header (elf(5)).
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

impl Segment {
    /// Code at `address`, which the file has at the start.
    fn code(address: u64) -> Segment {
        let len = (HEADER_BYTES + 4 * PROGRAM_HEADER_BYTES + CODE.len()) as u64;
        Segment { kind: LOAD, flags: 5, offset: 0, address, file_bytes: len, memory_bytes: len, align: PAGE }
    }
}

/// A program of at most four segments; its code follows the headers.
fn program(kind: u16, segments: &[Segment]) -> Vec<u8> {
    let code_at = HEADER_BYTES + 4 * PROGRAM_HEADER_BYTES;
    let entry = segments.first().map_or(0, |first| first.address).wrapping_add(code_at as u64);
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([kind, 62].map(u16::to_le_bytes).concat());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([entry, HEADER_BYTES as u64, 0].map(u64::to_le_bytes).concat());
    bytes.extend(0u32.to_le_bytes());
    let count = u16::try_from(segments.len()).unwrap();
    bytes.extend([64, 56, count, 0, 0, 0].map(u16::to_le_bytes).concat());
    for it in segments {
        bytes.extend([it.kind, it.flags].map(u32::to_le_bytes).concat());
        let words = [it.offset, it.address, it.address, it.file_bytes, it.memory_bytes, it.align];
        bytes.extend(words.map(u64::to_le_bytes).concat());
    }
    bytes.resize(code_at, 0);
    bytes.extend(CODE);
    bytes
}

fn put(directory: &Path, name: &str, bytes: &[u8]) {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(directory: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luminaguard"))
        .args(["run", "--memory", "64M", "--timeout", "60s", "--mount"])
        .arg(format!("{}:/data:ro", directory.display()))
        .arg("--")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn no_internal_error(name: &str, output: &Output) -> i32 {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked") && !errors.contains("internal error"), "{name}: {errors}");
    output.status.code().unwrap_or_else(|| panic!("{name}: {:?}, {errors}", output.status))
}

fn has_kvm() -> bool {
    let found = Path::new("/dev/kvm").exists();
    if !found {
        eprintln!("SKIPPED: there is no /dev/kvm on this machine");
    }
    found
}

/// Numbers that look random and are the same each time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Numbers that arithmetic goes wrong with.
const EDGES: [u64; 12] = [
    0,
    1,
    PAGE - 1,
    PAGE,
    0x7fff_ffff_f000,
    0x7fff_f000_0000,
    0x8000_0000_0000,
    1 << 63,
    i64::MAX as u64,
    u64::MAX,
    u64::MAX - PAGE + 1,
    0xffff_8000_0000_0000,
];

/// A copy of `original` with a few fields or bytes changed; most changes are in the headers.
fn mutated(original: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let headers = HEADER_BYTES + count * PROGRAM_HEADER_BYTES;
    for _ in 0..=numbers.below(3) {
        match numbers.below(4) {
            // A word of a program header becomes an edge.
            0 | 1 => {
                let at =
                    HEADER_BYTES + numbers.below(count) * PROGRAM_HEADER_BYTES + 8 * (1 + numbers.below(6));
                bytes[at..at + 8].copy_from_slice(&EDGES[numbers.below(EDGES.len())].to_le_bytes());
            }
            2 => {
                let at = 4 + numbers.below(headers - 4);
                bytes[at] = numbers.next() as u8;
            }
            _ => {
                let at = numbers.below(bytes.len());
                bytes[at] ^= 1 << numbers.below(8);
            }
        }
    }
    if numbers.below(8) == 0 {
        bytes.truncate(numbers.below(original.len()));
    }
    bytes
}

#[test]
fn segments_that_can_not_be_meant_are_refused_or_end_the_program() {
    if !has_kvm() {
        return;
    }
    let code = Segment::code(0x40_0000);
    let with = |change: fn(&mut Segment)| {
        let mut segment = code;
        change(&mut segment);
        segment
    };
    let second = |change: fn(&mut Segment)| {
        let mut segment = Segment { address: 0x60_0000, flags: 6, ..code };
        change(&mut segment);
        vec![code, segment]
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no segments", program(2, &[])),
        ("at zero", program(2, &[with(|it| it.address = 0)])),
        ("at the end of memory", program(2, &[with(|it| it.address = u64::MAX - 4095)])),
        ("in the kernel area", program(2, &[with(|it| it.address = 0x7fff_f000_0000)])),
        ("up to the kernel area", program(2, &[with(|it| it.memory_bytes = 0x7fff_efff_f000 - 0x40_0000)])),
        ("in the upper half", program(2, &[with(|it| it.address = 0xffff_8000_0000_0000)])),
        ("odd address", program(2, &[with(|it| it.address += 5)])),
        ("more file than memory", program(2, &[with(|it| it.memory_bytes = 10)])),
        (
            "more than the file",
            program(2, &[with(|it| (it.file_bytes, it.memory_bytes) = (1 << 30, 1 << 30))]),
        ),
        ("a terabyte of zeros", program(2, &second(|it| it.memory_bytes = 1 << 40))),
        ("wrapping length", program(2, &second(|it| it.memory_bytes = u64::MAX))),
        ("wrapping offset", program(2, &second(|it| it.offset = u64::MAX - 4095))),
        ("overlapping", program(2, &second(|it| it.address = 0x40_0000))),
        ("out of order", program(2, &second(|it| it.address = 0x10_0000))),
        ("far away", program(2, &second(|it| it.address = 0x7ff0_0000_0000))),
        ("far away, movable", program(3, &second(|it| it.address = 0x7ff0_0000_0000))),
        ("wrapping, movable", program(3, &second(|it| it.address = u64::MAX - 4095))),
        ("not executable", program(2, &[with(|it| it.flags = 4)])),
        (
            "interpreter beyond the file",
            program(2, &[code, Segment { kind: INTERP, offset: 1 << 40, ..code }]),
        ),
        ("endless interpreter", program(2, &[code, Segment { kind: INTERP, file_bytes: u64::MAX, ..code }])),
        ("no name for the interpreter", program(2, &[code, Segment { kind: INTERP, file_bytes: 0, ..code }])),
        ("a header as interpreter", program(2, &[code, Segment { kind: INTERP, file_bytes: 20, ..code }])),
        ("huge alignment", program(3, &[with(|it| it.align = 1 << 63)])),
        ("odd alignment", program(3, &[with(|it| it.align = 12345)])),
        ("a core file", program(4, &[code])),
    ];
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "good", &program(2, &[code]));
    put(directory.path(), "movable", &program(3, &[Segment::code(0)]));
    for name in ["good", "movable"] {
        let output = run(directory.path(), &[&format!("/data/{name}")]);
        assert_eq!(no_internal_error(name, &output), 7, "{output:?}");
    }
    for (name, bytes) in cases {
        put(directory.path(), "case", &bytes);
        let output = run(directory.path(), &["/data/case"]);
        let status = no_internal_error(name, &output);
        // Refused, killed by a fault, out of memory, or harmless after all: but never a failure of ours.
        assert!(matches!(status, 126 | 127 | 128.. | 7), "{name}: status {status}, {output:?}");
        // The same in execve(2), where the old program is gone by the time the segments are mapped.
        let output = run(directory.path(), &["sh", "-c", "/data/case; echo survived $?"]);
        no_internal_error(name, &output);
        assert!(String::from_utf8_lossy(&output.stdout).contains("survived"), "{name}: {output:?}");
    }
}

#[test]
fn a_program_may_be_cut_anywhere() {
    if !has_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let whole = std::fs::read("/bin/true").unwrap();
    let mut lengths: Vec<usize> = (0..130).collect();
    lengths.extend((0..100).map(|n| 130 + n * whole.len() / 101));
    for len in &lengths {
        put(directory.path(), &format!("cut-{len}"), &whole[..*len]);
    }
    let script = "for f in /data/cut-*; do timeout -s KILL 5 $f </dev/null; done 2>/dev/null; echo survived";
    let output = run(directory.path(), &["sh", "-c", script]);
    no_internal_error("cut programs", &output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "survived\n", "{output:?}");
    for len in [0, 1, 4, 63, 64, 65, 120, 700, 5000, 20_000] {
        put(directory.path(), "cut", &whole[..len]);
        let status = no_internal_error("cut", &run(directory.path(), &["/data/cut"]));
        assert!(matches!(status, 126 | 128..), "{len} bytes: status {status}");
    }
}

#[test]
fn mutated_programs_end_somehow() {
    if !has_kvm() {
        return;
    }
    let original = std::fs::read("/bin/true").unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let directory = tempfile::tempdir().unwrap();
    for n in 0..300 {
        put(directory.path(), &format!("m-{n:03}"), &mutated(&original, &mut numbers));
    }
    let script =
        "for f in /data/m-*; do timeout -s KILL 2 $f </dev/null; done >/dev/null 2>&1; echo survived";
    let output = run(directory.path(), &["sh", "-c", script]);
    no_internal_error("mutated programs", &output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "survived\n", "{output:?}");
    // As first programs, and with the dynamic linker mutated in the same way.
    for n in 0..60 {
        put(directory.path(), "m", &mutated(&original, &mut numbers));
        let output = run(directory.path(), &["timeout", "-s", "KILL", "2", "/data/m"]);
        no_internal_error(&format!("mutation {n}"), &output);
        let output = run(directory.path(), &[&format!("/data/m-{n:03}")]);
        no_internal_error(&format!("first program {n}"), &output);
    }
}
