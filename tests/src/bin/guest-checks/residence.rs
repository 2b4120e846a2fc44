//! Memory that is made present, locked, or moved; memory policies; what is there when memory is used up.

use libc::*;

use crate::sys::{self, Answer, Errno, child, fd, file, kill, peek, poke, read, sys, text, wait, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("populate", populate),
    ("populate_advice", populate_advice),
    ("mincore", mincore),
    ("mlock", mlock),
    ("mlock_limit", mlock_limit),
    ("mlockall", mlockall),
    ("mremap_keep", mremap_keep),
    ("madvise_errors", madvise_errors),
    ("msync_errors", msync_errors),
    ("memory_policy", memory_policy),
    ("memory_nodes", memory_nodes),
    ("protection_keys", protection_keys),
    ("memfd_seals", memfd_seals),
    ("oom_score_adj", oom_score_adj),
];

const PAGE: usize = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;
const ANONYMOUS: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

fn map(len: usize, prot: i32, flags: i32, fd: usize) -> Answer {
    sys!(SYS_mmap, 0, len, prot, flags, fd, 0)
}

fn fresh(len: usize) -> usize {
    map(len, RW, ANONYMOUS, usize::MAX).unwrap()
}

/// How many of so many pages from `at` on are in memory.
fn resident(at: usize, pages: usize) -> Result<usize, Errno> {
    let mut list = vec![0u8; pages];
    sys!(SYS_mincore, at, pages * PAGE, list.as_mut_ptr())?;
    Ok(list.iter().filter(|page| **page & 1 != 0).count())
}

fn populate(r: &mut Report) {
    const PAGES: usize = 300;
    let at = map(PAGES * PAGE, RW, ANONYMOUS | MAP_POPULATE, usize::MAX).unwrap();
    r.see("anonymous", resident(at, PAGES));
    let at = map(PAGES * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, usize::MAX).unwrap();
    r.see("shared", resident(at, PAGES));
    let at = map(PAGES * PAGE, PROT_NONE, ANONYMOUS | MAP_POPULATE, usize::MAX).unwrap();
    r.see("without access", resident(at, PAGES));
    file("f", &"f".repeat(PAGES * PAGE));
    let at = map(PAGES * PAGE, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd("f", O_RDONLY)).unwrap();
    r.see("file", (resident(at, PAGES), peek(at)));
    let at = map((PAGES + 2) * PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, fd("f", O_RDONLY));
    r.see("beyond the file", at.is_ok());
    let at = map(1 << 42, RW, ANONYMOUS | MAP_NORESERVE, usize::MAX).unwrap();
    poke(at + (1 << 41), 1);
    r.see("terabytes", (peek(at + (1 << 41)), peek(at + (1 << 41) + PAGE)));
}

fn populate_advice(r: &mut Report) {
    let advise = |at: usize, pages: usize, what: i32| sys!(SYS_madvise, at, pages * PAGE, what);
    let at = fresh(200 * PAGE);
    r.see("write", (advise(at, 200, MADV_POPULATE_WRITE), resident(at, 200)));
    let at = map(200 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, usize::MAX).unwrap();
    r.see("read", (advise(at, 200, MADV_POPULATE_READ), resident(at, 200)));
    sys!(SYS_mprotect, at, PAGE, PROT_READ).unwrap();
    r.see("write to read-only", advise(at, 1, MADV_POPULATE_WRITE));
    sys!(SYS_mprotect, at, PAGE, PROT_NONE).unwrap();
    r.see("no access", advise(at, 1, MADV_POPULATE_READ));
    sys!(SYS_munmap, at + PAGE, PAGE).unwrap();
    r.see("hole", (advise(at + PAGE, 1, MADV_POPULATE_READ), advise(at + 2 * PAGE, 1, MADV_POPULATE_READ)));
    r.see("nothing", advise(at + PAGE, 0, MADV_POPULATE_READ));
    file("f", "short");
    let at = map(2 * PAGE, PROT_READ, MAP_SHARED, fd("f", O_RDONLY)).unwrap();
    r.see("file", advise(at, 1, MADV_POPULATE_READ));
    r.see("beyond the file", advise(at, 2, MADV_POPULATE_READ));
}

fn mincore(r: &mut Report) {
    let at = fresh(PAGE);
    let mut list = [0u8; 4];
    r.see("odd address", sys!(SYS_mincore, at + 1, PAGE, list.as_mut_ptr()));
    r.see("bad list", sys!(SYS_mincore, at, PAGE, 8));
    r.see("nothing", sys!(SYS_mincore, at, 0, list.as_mut_ptr()));
    r.see("not mapped", sys!(SYS_mincore, 0x10_0000_0000usize, PAGE, list.as_mut_ptr()));
    r.see("too long", sys!(SYS_mincore, at, usize::MAX, list.as_mut_ptr()));
    poke(at, 1);
    r.see("touched", resident(at, 1));
}

fn mlock(r: &mut Report) {
    let lock = |at: usize, len: usize| sys!(SYS_mlock, at, len);
    let at = fresh(100 * PAGE);
    r.see("lock", (lock(at, 100 * PAGE), resident(at, 100)));
    r.see("inside a page", (lock(at + 5, 1), lock(at, 0)));
    r.see(
        "given back",
        [MADV_DONTNEED, MADV_FREE, MADV_REMOVE].map(|what| sys!(SYS_madvise, at, PAGE, what)),
    );
    r.see("invalidate", (sys!(SYS_msync, at, PAGE, MS_INVALIDATE), sys!(SYS_msync, at, PAGE, MS_SYNC)));
    r.see("unlock", (sys!(SYS_munlock, at, 100 * PAGE), sys!(SYS_madvise, at, PAGE, MADV_DONTNEED)));
    sys!(SYS_munmap, at + PAGE, PAGE).unwrap();
    r.see("hole", (lock(at, 3 * PAGE), sys!(SYS_munlock, at, 3 * PAGE)));
    let none = map(PAGE, PROT_NONE, ANONYMOUS, usize::MAX).unwrap();
    r.see("no access", lock(none, PAGE));
    r.see(
        "flags",
        (sys!(SYS_mlock2, at, PAGE, 2), sys!(SYS_mlock2, at, PAGE, 1), sys!(SYS_mlock2, at, PAGE, 0)),
    );
    let parent = fresh(PAGE);
    lock(parent, PAGE).unwrap();
    r.see("not inherited", sys::ends(|| i32::from(sys!(SYS_madvise, parent, PAGE, MADV_DONTNEED).is_err())));
    let locked = map(50 * PAGE, RW, ANONYMOUS | MAP_LOCKED, usize::MAX).unwrap();
    r.see("mapped so", (resident(locked, 50), sys!(SYS_madvise, locked, PAGE, MADV_DONTNEED)));
}

/// Runs `body` as a user who may lock `bytes`, and says which errno it answers.
fn as_user(bytes: u64, body: impl FnOnce() -> Answer) -> String {
    sys::ends(|| {
        let limit = rlimit { rlim_cur: bytes, rlim_max: bytes };
        sys!(SYS_setrlimit, RLIMIT_MEMLOCK, &raw const limit).unwrap();
        if sys!(SYS_geteuid) == Ok(0) {
            sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
        }
        body().err().map_or(0, |errno| errno as i32)
    })
}

fn mlock_limit(r: &mut Report) {
    let at = fresh(16 * PAGE);
    let limit = 8 * PAGE as u64;
    r.see("within", as_user(limit, || sys!(SYS_mlock, at, 8 * PAGE)));
    r.see("beyond", as_user(limit, || sys!(SYS_mlock, at, 8 * PAGE + 1)));
    r.see(
        "twice the same",
        as_user(limit, || {
            sys!(SYS_mlock, at, 8 * PAGE)?;
            sys!(SYS_mlock, at, 8 * PAGE)
        }),
    );
    r.see(
        "too much in two steps",
        as_user(limit, || {
            sys!(SYS_mlock, at, 6 * PAGE)?;
            sys!(SYS_mlock, at + 8 * PAGE, 3 * PAGE)
        }),
    );
    r.see(
        "unlocked first",
        as_user(limit, || {
            sys!(SYS_mlock, at, 6 * PAGE)?;
            sys!(SYS_munlock, at, 4 * PAGE)?;
            sys!(SYS_mlock, at + 8 * PAGE, 6 * PAGE)
        }),
    );
    r.see("none allowed", as_user(0, || sys!(SYS_mlock, at, PAGE)));
    r.see("none allowed, unlock", as_user(0, || sys!(SYS_munlock, at, PAGE)));
    r.see("none allowed, all", as_user(0, || sys!(SYS_mlockall, MCL_FUTURE)));
    r.see("all", as_user(limit, || sys!(SYS_mlockall, MCL_CURRENT)));
    r.see("map locked", as_user(limit, || map(8 * PAGE, RW, ANONYMOUS | MAP_LOCKED, usize::MAX)));
    r.see("map too much", as_user(limit, || map(9 * PAGE, RW, ANONYMOUS | MAP_LOCKED, usize::MAX)));
    r.see("map, none allowed", as_user(0, || map(PAGE, RW, ANONYMOUS | MAP_LOCKED, usize::MAX)));
    r.see(
        "map in future",
        as_user(limit, || {
            sys!(SYS_mlockall, MCL_FUTURE)?;
            map(9 * PAGE, RW, ANONYMOUS, usize::MAX)
        }),
    );
}

fn mlockall(r: &mut Report) {
    r.see("flags", [0, 4, 8, 16].map(|flags| sys!(SYS_mlockall, flags)));
    r.see("future", sys!(SYS_mlockall, MCL_FUTURE));
    let at = fresh(40 * PAGE);
    r.see("present", (resident(at, 40), sys!(SYS_madvise, at, PAGE, MADV_DONTNEED)));
    r.see("unlock", (sys!(SYS_munlockall), sys!(SYS_madvise, at, PAGE, MADV_DONTNEED)));
    let at = fresh(PAGE);
    r.see("no more", sys!(SYS_madvise, at, PAGE, MADV_DONTNEED));
}

fn mremap_keep(r: &mut Report) {
    const KEEP: i32 = 4;
    let remap =
        |at: usize, old: usize, new: usize, flags: i32, to: usize| sys!(SYS_mremap, at, old, new, flags, to);
    let at = fresh(4 * PAGE);
    for page in 0..4 {
        poke(at + page * PAGE, page as u8 + 1);
    }
    r.see("without may-move", remap(at, PAGE, PAGE, KEEP, 0));
    r.see("another length", remap(at, PAGE, 2 * PAGE, KEEP | MREMAP_MAYMOVE, 0));
    let moved = remap(at, 2 * PAGE, 2 * PAGE, KEEP | MREMAP_MAYMOVE, 0).unwrap();
    r.see("moved", (moved != at, peek(moved), peek(moved + PAGE)));
    r.see("left", (peek(at), peek(at + PAGE), peek(at + 2 * PAGE)));
    poke(at, 9);
    r.see("apart", (peek(at), peek(moved)));
    let target = fresh(2 * PAGE);
    let fixed = KEEP | MREMAP_MAYMOVE | MREMAP_FIXED;
    r.see("to a place", remap(at + 2 * PAGE, 2 * PAGE, 2 * PAGE, fixed, target) == Ok(target));
    r.see("there", (peek(target), peek(target + PAGE), peek(at + 2 * PAGE)));
    r.see("onto itself", remap(target, 2 * PAGE, 2 * PAGE, fixed, target + PAGE));
    r.see("odd place", remap(target, PAGE, PAGE, fixed, at + 1));
    r.see("not mapped", remap(0x10_0000_0000, PAGE, PAGE, KEEP | MREMAP_MAYMOVE, 0));
    let shared = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, usize::MAX).unwrap();
    poke(shared, 5);
    let other = remap(shared, PAGE, PAGE, KEEP | MREMAP_MAYMOVE, 0).unwrap();
    poke(other, 6);
    r.see("shared", (peek(shared), peek(other)));
}

fn madvise_errors(r: &mut Report) {
    let advise = |at: usize, what: i32| sys!(SYS_madvise, at, PAGE, what);
    file("f", "file");
    let private = fresh(PAGE);
    let shared = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, usize::MAX).unwrap();
    let of_file = map(PAGE, RW, MAP_PRIVATE, fd("f", O_RDWR)).unwrap();
    for (name, at) in [("private", private), ("shared", shared), ("file", of_file)] {
        let all = [
            MADV_FREE,
            MADV_DONTNEED,
            MADV_DONTFORK,
            MADV_DOFORK,
            MADV_KEEPONFORK,
            MADV_WIPEONFORK,
            MADV_COLD,
        ];
        r.see(name, all.map(|what| advise(at, what)));
    }
    r.see("remove", (advise(private, MADV_REMOVE), advise(shared, MADV_REMOVE)));
    r.see("bad", (advise(private, -1), advise(private, 5), advise(private, 1000)));
}

fn msync_errors(r: &mut Report) {
    let at = fresh(3 * PAGE);
    let sync = |at: usize, len: usize, flags: i32| sys!(SYS_msync, at, len, flags);
    r.see(
        "flags",
        [0, MS_ASYNC, MS_SYNC, MS_INVALIDATE, MS_ASYNC | MS_SYNC, 8].map(|flags| sync(at, PAGE, flags)),
    );
    r.see("odd address", sync(at + 1, PAGE, MS_SYNC));
    r.see("nothing", sync(at, 0, MS_SYNC));
    r.see("wrapping", sync(at, usize::MAX - PAGE, MS_SYNC));
    sys!(SYS_munmap, at + PAGE, PAGE).unwrap();
    r.see("hole", sync(at, 3 * PAGE, MS_SYNC));
    file("f", "before");
    let writer = fd("f", O_RDWR);
    let shared = map(PAGE, RW, MAP_SHARED, writer).unwrap();
    poke(shared, b'B');
    r.see("read sees it", sys::pread(writer, 6, 0));
    r.see("sync", (sync(shared, PAGE, MS_SYNC), text("f")));
    sys!(SYS_pwrite64, writer, b"AFTER".as_ptr(), 5, 0).unwrap();
    r.see("the mapping sees it", peek(shared));
}

fn memory_policy(r: &mut Report) {
    let get = |nodes: &mut [u64], addr: usize, flags: usize| {
        let mut mode = 77i32;
        let max = nodes.len() * 64;
        let list = if nodes.is_empty() { 0 } else { nodes.as_mut_ptr() as usize };
        sys!(SYS_get_mempolicy, &raw mut mode, list, max, addr, flags).map(|_| (mode, nodes.first().copied()))
    };
    let set = |mode: i32, nodes: u64, max: usize| sys!(SYS_set_mempolicy, mode, &raw const nodes, max);
    r.see("default", get(&mut [7; 16], 0, 0));
    r.see("allowed", get(&mut [7; 16], 0, 4));
    r.see("bad flags", (get(&mut [], 0, 8), get(&mut [], 0, 5), get(&mut [], 0, 1)));
    r.see("address without flag", get(&mut [], 4096, 0));
    let at = fresh(PAGE);
    poke(at, 1);
    r.see("of an address", get(&mut [7; 16], at, 2));
    r.see("node of an address", get(&mut [], at, 3));
    r.see("of nothing", get(&mut [], 0x10_0000_0000, 2));
    r.see("bad mode", (set(7, 1, 64), set(-1, 1, 64), set(3 << 14, 1, 64)));
    r.see("default with nodes", (set(0, 1, 64), set(0, 0, 64)));
    r.see("bind", (set(2, 1, 64), get(&mut [7; 16], 0, 0)));
    r.see("bind to none", (set(2, 0, 64), set(2, 2, 64), set(2, 3, 64)));
    r.see("inherited", sys::ends(|| get(&mut [7; 16], 0, 0).map_or(99, |(mode, _)| mode)));
    r.see("interleave", (set(3, 1, 64), get(&mut [7; 16], 0, 0)));
    r.see("preferred", (set(1, 1, 64), get(&mut [7; 16], 0, 0)));
    r.see("preferred none", (set(1, 0, 64), get(&mut [7; 16], 0, 0)));
    r.see("local", (set(4, 0, 0), set(4, 1, 64), get(&mut [7; 16], 0, 0)));
    r.see("bad list", (sys!(SYS_set_mempolicy, 2, 8, 64), sys!(SYS_get_mempolicy, 8, 0, 0, 0, 0)));
    r.see("long list", sys!(SYS_set_mempolicy, 2, at, 1 << 20));
    r.see("back", (sys!(SYS_set_mempolicy, 0, 0, 0), get(&mut [7; 16], 0, 0)));
}

fn memory_nodes(r: &mut Report) {
    let at = fresh(3 * PAGE);
    poke(at, 1);
    let bind = |at: usize, len: usize, mode: i32, nodes: u64, flags: i32| {
        sys!(SYS_mbind, at, len, mode, &raw const nodes, 64, flags)
    };
    r.see("bind", (bind(at, PAGE, 2, 1, 0), bind(at, PAGE, 0, 0, 0), bind(at, 0, 2, 1, 0)));
    r.see(
        "bind errors",
        (
            bind(at + 1, PAGE, 2, 1, 0),
            bind(at, PAGE, 2, 0, 0),
            bind(at, PAGE, 9, 1, 0),
            bind(at, PAGE, 2, 1, 64),
            bind(0x10_0000_0000, PAGE, 2, 1, 0),
        ),
    );
    let pages = [at, at + 2 * PAGE, 0x10_0000_0000];
    let mut status = [7i32; 3];
    r.see("where pages are", sys!(SYS_move_pages, 0, 1, pages.as_ptr(), 0, status.as_mut_ptr(), 0));
    r.see("node", status);
    r.see(
        "not mapped",
        (sys!(SYS_move_pages, 0, 1, &raw const pages[2], 0, status.as_mut_ptr(), 0), status[0]),
    );
    r.see("flags", sys!(SYS_move_pages, 0, 1, pages.as_ptr(), 0, status.as_mut_ptr(), 1));
    r.see("no such process", sys!(SYS_move_pages, 4_000_000, 1, pages.as_ptr(), 0, status.as_mut_ptr(), 0));
    r.see("bad list", sys!(SYS_move_pages, 0, 1, 8, 0, status.as_mut_ptr(), 0));
    let node = 1u64;
    r.see("migrate", sys!(SYS_migrate_pages, 0, 64, &raw const node, &raw const node));
    r.see("migrate nobody", sys!(SYS_migrate_pages, 4_000_000, 64, &raw const node, &raw const node));
}

fn protection_keys(r: &mut Report) {
    let at = fresh(PAGE);
    r.see("no key", sys!(SYS_pkey_mprotect, at, PAGE, PROT_READ, usize::MAX));
    r.see("done", sys!(SYS_read, 0, at, 1).is_ok_and(|count| count == 0));
    r.see("not a key", sys!(SYS_pkey_mprotect, at, PAGE, PROT_READ, 99));
    r.see("bad flags", (sys!(SYS_pkey_alloc, 1, 0), sys!(SYS_pkey_alloc, 0, 8)));
    r.see("free", sys!(SYS_pkey_free, 99));
}

fn memfd_seals(r: &mut Report) {
    let make = |flags: u32| sys!(SYS_memfd_create, c"name".as_ptr(), flags);
    let seals = |fd: usize| sys!(SYS_fcntl, fd, F_GET_SEALS);
    let seal = |fd: usize, seals: i32| sys!(SYS_fcntl, fd, F_ADD_SEALS, seals);
    r.see("flags", [0u32, 1, 2, 8, 16, 24, 32, 1 << 31].map(|flags| make(flags).err()));
    r.see(
        "bad name",
        (sys!(SYS_memfd_create, 8, 0), {
            let long = sys::c(&"n".repeat(250));
            sys!(SYS_memfd_create, long.as_ptr(), 0)
        }),
    );
    let plain = make(0).unwrap();
    r.see("without sealing", (seals(plain), seal(plain, F_SEAL_WRITE)));
    let no_exec = make(8).unwrap();
    r.see("not executable", (seals(no_exec), sys::fstat(no_exec).map(|stat| stat.st_mode)));
    r.see("made executable", sys!(SYS_fchmod, no_exec, 0o755));
    let exec = make(16).unwrap();
    r.see("executable", (seals(exec), sys::fstat(exec).map(|stat| stat.st_mode)));
    let fd = make(2).unwrap();
    write(fd, b"0123456789").unwrap();
    r.see("none yet", seals(fd));
    r.see("shrink", (seal(fd, F_SEAL_SHRINK), sys!(SYS_ftruncate, fd, 5), sys!(SYS_ftruncate, fd, 20)));
    r.see("grow", (seal(fd, F_SEAL_GROW), sys!(SYS_ftruncate, fd, 30), write(fd, &[0; 30])));
    let shared = map(PAGE, RW, MAP_SHARED, fd).unwrap();
    r.see("write while mapped", seal(fd, F_SEAL_WRITE));
    sys!(SYS_munmap, shared, PAGE).unwrap();
    r.see(
        "future write",
        (seal(fd, 16), map(PAGE, RW, MAP_SHARED, fd), map(PAGE, PROT_READ, MAP_SHARED, fd).is_ok()),
    );
    r.see("write", (seal(fd, F_SEAL_WRITE), write(fd, b"x"), map(PAGE, RW, MAP_SHARED, fd)));
    r.see("private", map(PAGE, RW, MAP_PRIVATE, fd).is_ok());
    r.see("all", seals(fd));
    r.see("seal", (seal(fd, F_SEAL_SEAL), seal(fd, F_SEAL_SEAL), seals(fd)));
    r.see("bad seal", (seal(make(2).unwrap(), 64), seal(fd, 0)));
    file("f", "x");
    r.see("of a file", seals(crate::sys::fd("f", O_RDWR)).is_err());
    r.see("of a pipe", (seals(sys::pipe(0).0), seal(99, 0)));
}

fn oom_score_adj(r: &mut Report) {
    const FILE: &str = "/proc/self/oom_score_adj";
    let set = |value: &str| std::fs::write(FILE, value).map_err(|error| error.raw_os_error());
    let before = text(FILE).unwrap();
    r.see("raise", (set("500"), text(FILE)));
    r.see("inherited", sys::ends(|| i32::from(text(FILE) != Ok("500\n".into()))));
    r.see("too high", (set("1001"), set("-1001"), set("x")));
    r.see("most", (set("1000"), text(FILE)));
    r.see("back", set(before.trim()));
    let user = child(|| {
        if sys!(SYS_geteuid) == Ok(0) {
            sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
        }
        i32::from(text("/proc/self/oom_score").is_err())
    });
    r.see("score", wait(user));
    let sleeper = child(|| {
        sys::sleep_ms(10_000);
        0
    });
    let other = format!("/proc/{sleeper}/oom_score_adj");
    r.see("of another", (std::fs::write(&other, "7").is_ok(), text(&other)));
    kill(sleeper, SIGKILL).unwrap();
    wait(sleeper);
    let _ = read(0, 0);
}
