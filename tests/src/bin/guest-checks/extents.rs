//! Where files in memory have data and where they have holes: fallocate(2), lseek(2), MADV_REMOVE, mincore(2).

use libc::*;

use crate::sys::{self, Answer, close, fd, fstat, pread, seek, sys, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("fallocate_modes", modes),
    ("fallocate_lies", lies),
    ("holes", holes),
    ("holes_elsewhere", holes_elsewhere),
    ("remove_advice", remove_advice),
    ("advice", advice),
];

const PAGE: i64 = 4096;

/// A file in memory of so many pages, each full of its number's letter.
fn pages(count: usize) -> usize {
    let path = format!("/dev/shm/guest-checks-{}", sys::pid());
    let f = fd(&path, O_RDWR | O_CREAT | O_EXCL);
    std::fs::remove_file(&path).unwrap();
    for page in 0..count {
        write(f, &[b'a' + page as u8; PAGE as usize]).unwrap();
    }
    f
}

/// The parts of a file: data or hole, with its first byte, and the length of the whole.
fn map(f: usize) -> (String, i64, i64) {
    let (mut text, mut at) = (String::new(), 0);
    loop {
        match seek(f, at, SEEK_DATA) {
            Ok(data) => {
                let hole = seek(f, data as i64, SEEK_HOLE).unwrap();
                text += &format!("{data}-{hole} ");
                at = hole as i64;
            }
            Err(errno) => {
                text += &format!("{errno:?}");
                break;
            }
        }
    }
    let stat = fstat(f).unwrap();
    (text, stat.st_size, stat.st_blocks)
}

fn first_bytes(f: usize, count: usize) -> String {
    (0..count).map(|page| pread(f, 1, page * PAGE as usize).unwrap()).collect()
}

fn modes(r: &mut Report) {
    let (keep, punch, zero) = (FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE);
    let modes = [
        ("none", 0),
        ("keep", keep),
        ("punch", punch),
        ("punch and keep", punch | keep),
        ("collapse", FALLOC_FL_COLLAPSE_RANGE),
        ("insert", FALLOC_FL_INSERT_RANGE),
        ("unshare", FALLOC_FL_UNSHARE_RANGE),
        ("no hide stale", 4),
        ("punch and zero", punch | zero | keep),
        ("unknown", 0x100),
        ("all", 0xffff),
    ];
    let ranges = [
        ("within", PAGE, PAGE),
        ("odd", PAGE + 100, 2 * PAGE),
        ("in one page", 10, 5),
        ("across the end", 3 * PAGE, 3 * PAGE),
        ("behind it", 6 * PAGE, PAGE),
        ("all", 0, 4 * PAGE),
    ];
    for (mode_name, mode) in modes {
        // Where room is reserved beyond what was written is shown in more than one way.
        let is_shown = mode != 0 && mode != keep;
        for (name, start, len) in ranges {
            let f = pages(4);
            let answer = sys!(SYS_fallocate, f, mode, start, len);
            let odd = pread(f, 8, (start + 2) as usize).unwrap_or_default();
            let size = fstat(f).map(|it| it.st_size);
            let shown = is_shown.then(|| map(f));
            r.see(format!("{mode_name}, {name}"), (answer, size, shown, first_bytes(f, 4), odd));
            close(f).unwrap();
        }
    }
}

fn lies(r: &mut Report) {
    let f = pages(1);
    let tries = [(0, 0), (-1, 1), (0, -1), (i64::MAX, 1), (1, i64::MAX), (i64::MAX - 10, 100), (i64::MIN, 1)];
    for mode in [0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, 0x100] {
        for (start, len) in tries {
            r.see(format!("mode {mode} at {start}, {len}"), sys!(SYS_fallocate, f, mode, start, len));
        }
    }
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()).unwrap();
    let sealed = sys!(SYS_memfd_create, c"x".as_ptr(), MFD_ALLOW_SEALING).unwrap();
    write(sealed, b"text").unwrap();
    sys!(SYS_fcntl, sealed, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK).unwrap();
    let things = [
        ("directory", fd(".", O_RDONLY)),
        ("null", fd("/dev/null", O_RDWR)),
        ("socket", pair[0] as usize),
        ("pipe", sys::pipe(0).1),
        ("eventfd", sys!(SYS_eventfd2, 0, 0).unwrap()),
        ("path", fd(".", O_PATH)),
        ("closed", 99),
        ("sealed", sealed),
    ];
    for (name, f) in things {
        r.see(
            name,
            (
                sys!(SYS_fallocate, f, 0, 0, 10),
                sys!(SYS_fallocate, f, 3, 0, 2),
                sys!(SYS_fallocate, f, 0, 0, 0),
            ),
        );
    }
}

fn holes(r: &mut Report) {
    let f = pages(0);
    r.see("empty", map(f));
    sys!(SYS_ftruncate, f, 10 * PAGE + 5).unwrap();
    r.see("all hole", map(f));
    sys!(SYS_pwrite64, f, b"x".as_ptr(), 1, 3 * PAGE + 7).unwrap();
    r.see("a byte", map(f));
    sys!(SYS_pwrite64, f, b"x".as_ptr(), 1, 4 * PAGE).unwrap();
    r.see("and another", map(f));
    sys!(SYS_pwrite64, f, b"x".as_ptr(), 1, 10 * PAGE).unwrap();
    r.see("at the end", map(f));
    sys!(SYS_ftruncate, f, 3 * PAGE + 100).unwrap();
    r.see("cut", map(f));
    let mut byte = [0u8; 1];
    sys!(SYS_pread64, f, byte.as_mut_ptr(), 1, PAGE).unwrap();
    r.see("reading fills none", map(f));
    let at = sys!(SYS_mmap, 0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0).unwrap();
    // SAFETY: the page lies within the file and the mapping.
    unsafe { (at as *mut u8).write_volatile(1) };
    r.see("a store does", map(f));
    let places = [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 99, 3 * PAGE + 100, 3 * PAGE + 101];
    for place in places {
        r.see(format!("from {place}"), (seek(f, place, SEEK_DATA), seek(f, place, SEEK_HOLE)));
    }
    for place in [-1, i64::MIN, i64::MAX] {
        r.see(format!("from {place}"), (seek(f, place, SEEK_DATA), seek(f, place, SEEK_HOLE)));
    }
    r.see("the position", seek(f, 0, SEEK_CUR));
}

fn holes_elsewhere(r: &mut Report) {
    let (reader, _writer) = sys::pipe(0);
    let things = [
        ("pipe", reader),
        ("directory", fd("/dev/shm", O_RDONLY)),
        ("null", fd("/dev/null", O_RDONLY)),
        ("eventfd", sys!(SYS_eventfd2, 0, 0).unwrap()),
        ("proc", fd("/proc/self/status", O_RDONLY)),
        ("path", fd(".", O_PATH)),
    ];
    for (name, f) in things {
        for whence in [SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE, 5, -1] {
            r.see(format!("{name} {whence}"), seek(f, 0, whence));
        }
    }
}

fn remove_advice(r: &mut Report) {
    let advise = |at: usize, len: i64, advice: i32| sys!(SYS_madvise, at, len, advice);
    let peek = |at: usize| {
        // SAFETY: the checks pass addresses that are mapped readable.
        unsafe { (at as *const u8).read_volatile() as char }
    };
    let f = pages(4);
    let at = sys!(SYS_mmap, 0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0).unwrap();
    r.see("before", (peek(at), peek(at + PAGE as usize)));
    r.see("one page", (advise(at + PAGE as usize, PAGE, MADV_REMOVE), map(f), first_bytes(f, 4)));
    r.see("seen", peek(at + PAGE as usize) as u32);
    r.see("odd length", (advise(at, 10, MADV_REMOVE), map(f)));
    r.see("odd address", advise(at + 10, PAGE, MADV_REMOVE));
    let second = sys!(SYS_mmap, 0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f, 2 * PAGE).unwrap();
    r.see("with an offset", (advise(second + PAGE as usize, PAGE, MADV_REMOVE), map(f), first_bytes(f, 4)));
    let private = sys!(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 0).unwrap();
    r.see("private", advise(private, PAGE, MADV_REMOVE));
    let anonymous =
        sys!(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX, 0).unwrap();
    r.see("anonymous", advise(anonymous, PAGE, MADV_REMOVE));
    let shared =
        sys!(SYS_mmap, 0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, usize::MAX, 0)
            .unwrap();
    // SAFETY: it is mapped writable.
    unsafe { (shared as *mut u8).write_volatile(b'x') };
    r.see("shared anonymous", (advise(shared, PAGE, MADV_REMOVE), peek(shared) as u32));
    let path = format!("/proc/self/fd/{f}");
    let reader = fd(&path, O_RDONLY);
    let read_only = sys!(SYS_mmap, 0, PAGE, PROT_READ, MAP_SHARED, reader, 0).unwrap();
    r.see("of a reader", advise(read_only, PAGE, MADV_REMOVE));
    sys!(SYS_munmap, shared + PAGE as usize, PAGE).unwrap();
    r.see("with a gap", advise(shared, 2 * PAGE, MADV_REMOVE));
    sys!(SYS_mlock, second, PAGE).unwrap();
    r.see("locked", advise(second, PAGE, MADV_REMOVE));
}

fn advice(r: &mut Report) {
    let mappings = [
        ("anonymous", MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX),
        ("shared", MAP_SHARED | MAP_ANONYMOUS, usize::MAX),
        ("file", MAP_PRIVATE, pages(2)),
        ("shared file", MAP_SHARED, pages(2)),
    ];
    for (name, flags, f) in mappings {
        // What needs a kernel with certain features, or poisons memory, is left out.
        for advice in (0..=27).filter(|advice| ![9, 12, 13, 14, 15, 25].contains(advice)) {
            let at = sys!(SYS_mmap, 0, 2 * PAGE, PROT_READ | PROT_WRITE, flags, f, 0).unwrap();
            let one = |len: i64| -> Answer { sys!(SYS_madvise, at, len, advice) };
            r.see(format!("{name} {advice}"), (one(PAGE), one(0), one(1)));
            sys!(SYS_munmap, at, 2 * PAGE).unwrap();
        }
    }
    for advice in [-1, 28, 99, 1000, i32::MIN, i32::MAX] {
        let at = sys!(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX, 0).unwrap();
        r.see(
            format!("advice {advice}"),
            (sys!(SYS_madvise, at, PAGE, advice), sys!(SYS_madvise, at, 0, advice)),
        );
    }
}
