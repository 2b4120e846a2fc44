//! Memory: mappings, sharing, protection, growth.

use libc::*;

use crate::sys::{self, Answer, close, fate, fd, file, peek, poke, pread, read, sys, text, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("mmap_anonymous", anonymous),
    ("mmap_errors", mmap_errors),
    ("mmap_fixed", mmap_fixed),
    ("mmap_file", mmap_file),
    ("mmap_shared", mmap_shared),
    ("munmap", munmaps),
    ("mprotect", mprotects),
    ("mremap", mremaps),
    ("madvise", madvises),
    ("brk", brks),
    ("copy_on_write", copy_on_write),
    ("shared_after_fork", shared_after_fork),
    ("stack_growth", stack_growth),
    ("beyond_the_file", beyond_the_file),
    ("many_mappings", many_mappings),
    ("address_space_limit", address_space_limit),
    ("executable_memory", executable_memory),
];

const PAGE: usize = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;
const ANONYMOUS: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

fn map(at: usize, len: usize, prot: i32, flags: i32, fd: usize, offset: usize) -> Answer {
    sys!(SYS_mmap, at, len, prot, flags, fd, offset)
}

fn fresh(len: usize) -> usize {
    map(0, len, RW, ANONYMOUS, usize::MAX, 0).unwrap()
}

fn anonymous(r: &mut Report) {
    let len = 64 << 20;
    let at = fresh(len);
    r.see("aligned", at % PAGE);
    r.see("zero", (peek(at), peek(at + len / 2), peek(at + len - 1)));
    for offset in (0..len).step_by(1 << 20) {
        poke(at + offset, (offset >> 20) as u8);
    }
    r.see("kept", (0..len).step_by(1 << 20).all(|offset| peek(at + offset) == (offset >> 20) as u8));
    r.see("in between", peek(at + (1 << 20) + 1));
    r.see("give back", sys!(SYS_munmap, at, len));
    let huge = map(0, 1 << 40, PROT_NONE, ANONYMOUS | MAP_NORESERVE, usize::MAX, 0).unwrap();
    r.see("reserve a terabyte", sys!(SYS_munmap, huge, 1usize << 40));
    let shared = map(0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, usize::MAX, 0).unwrap();
    r.see("shared", peek(shared));
}

fn mmap_errors(r: &mut Report) {
    file("f", "x");
    let reader = fd("f", O_RDONLY);
    let writer = fd("f", O_WRONLY);
    r.see("no length", map(0, 0, RW, ANONYMOUS, usize::MAX, 0).err());
    r.see("neither shared nor private", map(0, PAGE, RW, MAP_ANONYMOUS, usize::MAX, 0).err());
    r.see("too long", map(0, 1 << 48, RW, ANONYMOUS, usize::MAX, 0).err());
    r.see("wrapping", map(0, usize::MAX - 10, RW, ANONYMOUS, usize::MAX, 0).err());
    r.see("odd offset", map(0, PAGE, PROT_READ, MAP_PRIVATE, reader, 100).err());
    r.see("bad descriptor", map(0, PAGE, PROT_READ, MAP_PRIVATE, 99, 0).err());
    r.see("write to a reader", map(0, PAGE, RW, MAP_SHARED, reader, 0).err());
    r.see("private write to a reader", map(0, PAGE, RW, MAP_PRIVATE, reader, 0).is_ok());
    r.see("writer alone", map(0, PAGE, PROT_READ, MAP_PRIVATE, writer, 0).err());
    r.see("pipe", map(0, PAGE, PROT_READ, MAP_PRIVATE, sys::pipe(0).0, 0).err());
    r.see("directory", map(0, PAGE, PROT_READ, MAP_PRIVATE, fd(".", O_RDONLY), 0).err());
    r.see("odd fixed address", map(0x1_0000_0001, PAGE, RW, ANONYMOUS | MAP_FIXED, usize::MAX, 0).err());
    r.see("kernel address", map(0xffff_8000_0000_0000, PAGE, RW, ANONYMOUS | MAP_FIXED, usize::MAX, 0).err());
    r.see("last page", map(0x7fff_ffff_f000, PAGE, RW, ANONYMOUS | MAP_FIXED, usize::MAX, 0).err());
    r.see("mprotect of nothing", sys!(SYS_mprotect, 0x10_0000_0000usize, PAGE, PROT_READ));
    r.see("mprotect at an odd address", sys!(SYS_mprotect, 0x10_0000_0001usize, PAGE, PROT_READ));
    r.see("munmap of nothing", sys!(SYS_munmap, 0x10_0000_0000usize, PAGE));
    r.see("munmap at an odd address", sys!(SYS_munmap, 1, PAGE));
    r.see("munmap of no length", sys!(SYS_munmap, 0x10_0000_0000usize, 0));
    r.see("msync of nothing", sys!(SYS_msync, 0x10_0000_0000usize, PAGE, MS_SYNC));
}

fn mmap_fixed(r: &mut Report) {
    let at = fresh(8 * PAGE);
    poke(at + PAGE, 1);
    poke(at + 2 * PAGE, 2);
    poke(at + 3 * PAGE, 3);
    let over = map(at + 2 * PAGE, PAGE, RW, ANONYMOUS | MAP_FIXED, usize::MAX, 0);
    r.see("over another", over == Ok(at + 2 * PAGE));
    r.see("neighbours stay", (peek(at + PAGE), peek(at + 2 * PAGE), peek(at + 3 * PAGE)));
    let no_replace = ANONYMOUS | MAP_FIXED_NOREPLACE;
    r.see("no replace", map(at + PAGE, PAGE, RW, no_replace, usize::MAX, 0).err());
    sys!(SYS_munmap, at + PAGE, PAGE).unwrap();
    r.see("into the gap", map(at + PAGE, PAGE, RW, no_replace, usize::MAX, 0) == Ok(at + PAGE));
    sys!(SYS_munmap, at + PAGE, PAGE).unwrap();
    r.see("a hint that is free", map(at + PAGE, PAGE, RW, ANONYMOUS, usize::MAX, 0) == Ok(at + PAGE));
    r.see(
        "a hint that is taken",
        map(at + PAGE, PAGE, RW, ANONYMOUS, usize::MAX, 0).is_ok_and(|it| it != at + PAGE),
    );
    r.see("low", map(0x40_0000_0000, PAGE, RW, no_replace, usize::MAX, 0) == Ok(0x40_0000_0000));
}

fn mmap_file(r: &mut Report) {
    let bytes: Vec<u8> = (0..3 * PAGE + 100).map(|n| (n / 7) as u8).collect();
    std::fs::write("f", &bytes).unwrap();
    let f = fd("f", O_RDWR);
    let at = map(0, 4 * PAGE, RW, MAP_PRIVATE, f, 0).unwrap();
    r.see("contents", (0..bytes.len()).all(|n| peek(at + n) == bytes[n]));
    r.see("zeros after the end", (bytes.len()..4 * PAGE).all(|n| peek(at + n) == 0));
    poke(at + 5, 200);
    r.see("private", (peek(at + 5), pread(f, 1, 5).map(|it| it.into_bytes()[0] == bytes[5])));
    let second = map(0, PAGE, PROT_READ, MAP_PRIVATE, f, 2 * PAGE).unwrap();
    r.see("with an offset", (0..PAGE).all(|n| peek(second + n) == bytes[2 * PAGE + n]));
    close(f).unwrap();
    r.see("after close", peek(at + 100) == bytes[100]);
    std::fs::remove_file("f").unwrap();
    r.see("after unlink", peek(at + 3 * PAGE) == bytes[3 * PAGE]);
    r.see("program text", {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let f = fd("/proc/self/exe", O_RDONLY);
        let at = map(0, own.len(), PROT_READ, MAP_PRIVATE, f, 0).unwrap();
        (0..own.len()).step_by(997).all(|n| peek(at + n) == own[n])
    });
}

fn mmap_shared(r: &mut Report) {
    file("f", &"x".repeat(2 * PAGE));
    let f = fd("f", O_RDWR);
    let one = map(0, 2 * PAGE, RW, MAP_SHARED, f, 0).unwrap();
    let two = map(0, 2 * PAGE, PROT_READ, MAP_SHARED, f, 0).unwrap();
    poke(one + 3, b'y');
    r.see("the other mapping", peek(two + 3));
    r.see("read", pread(f, 5, 0));
    sys!(SYS_pwrite64, f, b"ZZ".as_ptr(), 2, PAGE + 1).unwrap();
    r.see("write", (peek(one + PAGE + 1), peek(two + PAGE + 2)));
    r.see("msync", sys!(SYS_msync, one, 2 * PAGE, MS_SYNC));
    r.see("bad msync", sys!(SYS_msync, one, PAGE, MS_SYNC | MS_ASYNC));
    r.see(
        "a child's store",
        (
            sys::ends(|| {
                poke(one + 9, b'c');
                0
            }),
            peek(two + 9),
        ),
    );
    r.see(
        "upgrade",
        (sys!(SYS_mprotect, two, PAGE, RW), {
            poke(two + 1, b'u');
            peek(one + 1)
        }),
    );
    let reader = map(0, PAGE, PROT_READ, MAP_SHARED, fd("f", O_RDONLY), 0).unwrap();
    r.see("upgrade of a reader", sys!(SYS_mprotect, reader, PAGE, RW));
    sys!(SYS_munmap, one, 2 * PAGE).unwrap();
    r.see("after unmapping", text("f").map(|it| it[..12].to_owned()));
    sys!(SYS_ftruncate, f, PAGE).unwrap();
    sys!(SYS_ftruncate, f, 2 * PAGE).unwrap();
    r.see("truncated and grown", peek(reader + 1) == b'u' && pread(f, 1, PAGE) == Ok(".".to_owned()));
}

fn munmaps(r: &mut Report) {
    let at = fresh(5 * PAGE);
    for page in 0..5 {
        poke(at + page * PAGE, page as u8 + 1);
    }
    r.see("the middle", sys!(SYS_munmap, at + 2 * PAGE, PAGE));
    r.see("the rest", (peek(at + PAGE), peek(at + 3 * PAGE)));
    r.see("touch it", fate(|| poke(at + 2 * PAGE, 1)));
    r.see("read it", fate(|| _ = peek(at + 2 * PAGE)));
    r.see("over holes", sys!(SYS_munmap, at, 5 * PAGE));
    r.see("touch the first", fate(|| poke(at, 1)));
    let again = fresh(5 * PAGE);
    r.see("fresh memory is zero", (0..5).all(|page| peek(again + page * PAGE) == 0));
    // A page that was written is given back and mapped again, many times.
    r.see(
        "again and again",
        (0..300).all(|_| {
            let at = fresh(PAGE);
            let zero = peek(at) == 0;
            poke(at, 1);
            sys!(SYS_munmap, at, PAGE).unwrap();
            zero
        }),
    );
}

fn mprotects(r: &mut Report) {
    let at = fresh(4 * PAGE);
    poke(at + PAGE, 7);
    r.see("read only", sys!(SYS_mprotect, at + PAGE, PAGE, PROT_READ));
    r.see("read", peek(at + PAGE));
    r.see("write", fate(|| poke(at + PAGE, 1)));
    r.see("write beside", fate(|| poke(at + 2 * PAGE, 1)));
    r.see("nothing", sys!(SYS_mprotect, at + PAGE, PAGE, PROT_NONE));
    r.see("read nothing", fate(|| _ = peek(at + PAGE)));
    r.see("system call reads nothing", sys!(SYS_write, 1, at + PAGE, 1));
    r.see("system call writes to read-only", {
        sys!(SYS_mprotect, at, PAGE, PROT_READ).unwrap();
        sys!(SYS_getrandom, at, 8, 0)
    });
    r.see("back", (sys!(SYS_mprotect, at, 4 * PAGE, RW), peek(at + PAGE)));
    poke(at + PAGE, 8);
    r.see("written", peek(at + PAGE));
    r.see("over a hole", {
        sys!(SYS_munmap, at + 2 * PAGE, PAGE).unwrap();
        sys!(SYS_mprotect, at, 4 * PAGE, PROT_READ)
    });
    r.see("up to the hole it was done", fate(|| poke(at, 1)));
    r.see("write only can be read", {
        let at = map(0, PAGE, PROT_WRITE, ANONYMOUS, usize::MAX, 0).unwrap();
        poke(at, 5);
        peek(at)
    });
    // Raised and lowered in turn, with a store each time.
    r.see(
        "in turn",
        (0..200u8).all(|n| {
            let at = at + PAGE;
            sys!(SYS_mprotect, at, PAGE, RW).unwrap();
            poke(at, n);
            sys!(SYS_mprotect, at, PAGE, PROT_READ).unwrap();
            peek(at) == n
        }),
    );
    r.see("read-only at the end", fate(|| poke(at + PAGE, 1)));
}

fn mremaps(r: &mut Report) {
    let remap =
        |at: usize, old: usize, new: usize, flags: i32, to: usize| sys!(SYS_mremap, at, old, new, flags, to);
    let at = fresh(4 * PAGE);
    for page in 0..4 {
        poke(at + page * PAGE, page as u8 + 1);
    }
    r.see("shrink", remap(at, 4 * PAGE, 2 * PAGE, 0, 0) == Ok(at));
    r.see("cut off", fate(|| _ = peek(at + 2 * PAGE)));
    r.see("grow in place", remap(at, 2 * PAGE, 3 * PAGE, 0, 0) == Ok(at));
    r.see("new part", (peek(at + PAGE), peek(at + 2 * PAGE)));
    let block = map(at + 3 * PAGE, PAGE, RW, ANONYMOUS | MAP_FIXED, usize::MAX, 0).unwrap();
    r.see("no room", remap(at, 3 * PAGE, 4 * PAGE, 0, 0));
    let moved = remap(at, 3 * PAGE, 100 * PAGE, MREMAP_MAYMOVE, 0).unwrap();
    r.see("moved", (moved != at, peek(moved), peek(moved + PAGE), peek(moved + 99 * PAGE)));
    r.see("the old place", fate(|| _ = peek(at)));
    let target = fresh(2 * PAGE);
    let fixed = remap(moved, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    r.see("to a place", (fixed == Ok(target), peek(target), peek(target + PAGE)));
    r.see("odd address", remap(target + 1, PAGE, PAGE, 0, 0));
    r.see("no new length", remap(target, PAGE, 0, 0, 0));
    r.see("not mapped", remap(0x10_0000_0000, PAGE, 2 * PAGE, 0, 0));
    r.see("fixed without may-move", remap(target, PAGE, PAGE, MREMAP_FIXED, at));
    r.see("onto itself", remap(target, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target));
    r.see("neighbour", peek(block));
    // What realloc(3) does with large blocks.
    let mut vector: Vec<u64> = Vec::new();
    for n in 0..3_000_000u64 {
        vector.push(n);
    }
    r.see("a vector that grows", vector.iter().sum::<u64>());
}

fn madvises(r: &mut Report) {
    let advise = |at: usize, len: usize, what: i32| sys!(SYS_madvise, at, len, what);
    let at = fresh(4 * PAGE);
    poke(at, 1);
    poke(at + PAGE, 2);
    r.see("don't need", advise(at, PAGE, MADV_DONTNEED));
    r.see("zero again", (peek(at), peek(at + PAGE)));
    poke(at, 9);
    r.see("and writable", peek(at));
    file("f", &"f".repeat(PAGE));
    let private = map(0, PAGE, RW, MAP_PRIVATE, fd("f", O_RDWR), 0).unwrap();
    poke(private, b'p');
    r.see("of a file", (advise(private, PAGE, MADV_DONTNEED), peek(private)));
    let shared = map(0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, usize::MAX, 0).unwrap();
    poke(shared, 5);
    r.see("of shared memory", (advise(shared, PAGE, MADV_DONTNEED), peek(shared)));
    r.see("odd address", advise(at + 1, PAGE, MADV_DONTNEED));
    r.see("not mapped", advise(0x10_0000_0000, PAGE, MADV_DONTNEED));
    r.see("unknown", advise(at, PAGE, 9999));
    r.see(
        "hints",
        [MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED].map(|what| advise(at, PAGE, what)),
    );
    r.see("free", advise(at, PAGE, MADV_FREE));
    let secret = fresh(PAGE);
    poke(secret, 3);
    r.see("don't fork", (advise(secret, PAGE, MADV_DONTFORK), fate(|| _ = peek(secret)), peek(secret)));
    r.see("wipe on fork", {
        let wiped = fresh(PAGE);
        poke(wiped, 4);
        (advise(wiped, PAGE, MADV_WIPEONFORK), sys::ends(|| i32::from(peek(wiped))), peek(wiped))
    });
    r.see("keep on fork again", {
        let kept = fresh(PAGE);
        poke(kept, 5);
        (
            advise(kept, PAGE, MADV_WIPEONFORK),
            advise(kept, PAGE, MADV_KEEPONFORK),
            sys::ends(|| i32::from(peek(kept))),
        )
    });
    r.see("wipe of shared memory on fork", advise(shared, PAGE, MADV_WIPEONFORK));
}

fn brks(r: &mut Report) {
    let brk = |at: usize| sys!(SYS_brk, at).unwrap();
    let start = brk(0);
    let end = start.next_multiple_of(PAGE) + 10 * PAGE;
    r.see("grow", brk(end) == end);
    r.see("zero", peek(end - 1));
    poke(end - 1, 1);
    r.see("shrink", brk(end - 5 * PAGE) == end - 5 * PAGE);
    r.see("gone", fate(|| _ = peek(end - 1)));
    r.see("grow again", (brk(end) == end, peek(end - 1)));
    r.see("too far", brk(usize::MAX / 2) == end);
    r.see("below the start", brk(4096) == end);
    r.see("back", brk(start) == start);
    r.see("a child's own", sys::ends(|| i32::from(brk(start + PAGE) != start + PAGE)));
    r.see("unchanged", brk(0) == start);
}

fn copy_on_write(r: &mut Report) {
    let pages = 500;
    let at = fresh(pages * PAGE);
    for page in 0..pages {
        poke(at + page * PAGE, page as u8);
    }
    let sum = || (0..pages).map(|page| u64::from(peek(at + page * PAGE))).sum::<u64>();
    let expected = sum();
    let (reader, writer) = sys::pipe(0);
    let (go_on, told) = sys::pipe(0);
    let pid = sys::child(|| {
        let before = sum();
        (0..pages).for_each(|page| poke(at + page * PAGE, 1));
        let after = sum();
        write(writer, b"x").unwrap();
        read(go_on, 1).unwrap();
        i32::from(before != expected || after != pages as u64 || sum() != pages as u64)
    });
    read(reader, 1).unwrap();
    r.see("parent sees its own", sum() == expected);
    (0..pages).step_by(2).for_each(|page| poke(at + page * PAGE, 2));
    write(told, b"x").unwrap();
    r.see("child sees its own", sys::wait(pid));
    // Generations, each with a store of its own.
    fn generation(at: usize, depth: u8) -> i32 {
        poke(at, depth);
        if depth < 8 && sys::ends(|| generation(at, depth + 1)) != "exited 0" {
            return 1;
        }
        i32::from(peek(at) != depth)
    }
    r.see("generations", sys::ends(|| generation(at, 1)));
    r.see("system calls copy too", {
        let pid = sys::child(|| {
            let count = sys!(SYS_read, fd("/dev/zero", O_RDONLY), at, PAGE).unwrap();
            i32::from(count != PAGE || peek(at + 1) != 0)
        });
        poke(at + 1, 77);
        (sys::wait(pid), peek(at + 1))
    });
}

fn shared_after_fork(r: &mut Report) {
    let at = map(0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, usize::MAX, 0).unwrap();
    poke(at, 1);
    r.see(
        "child",
        sys::ends(|| {
            let seen = peek(at);
            poke(at, 2);
            // Nobody has touched this page before.
            poke(at + PAGE, 3);
            i32::from(seen)
        }),
    );
    r.see("parent", (peek(at), peek(at + PAGE)));
    // SAFETY: the page is shared, aligned and lives until the end.
    let counter = unsafe { &*(at as *const std::sync::atomic::AtomicU32) };
    counter.store(0, std::sync::atomic::Ordering::SeqCst);
    let pids: Vec<i32> = (0..4)
        .map(|_| {
            sys::child(|| {
                for _ in 0..50_000 {
                    counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
                0
            })
        })
        .collect();
    r.see("ends", pids.into_iter().map(sys::wait).collect::<Vec<_>>());
    r.see("count", counter.load(std::sync::atomic::Ordering::SeqCst));
}

fn stack_growth(r: &mut Report) {
    fn use_stack(kib: usize) -> usize {
        let array = std::hint::black_box([kib as u8; 1024]);
        if kib == 0 { 0 } else { use_stack(kib - 1) + usize::from(array[500] == kib as u8) }
    }
    r.see("four megabytes", use_stack(4000));
    r.see(
        "limit",
        fate(|| {
            let small = rlimit { rlim_cur: 1 << 20, rlim_max: 8 << 20 };
            sys!(SYS_setrlimit, RLIMIT_STACK, &raw const small).unwrap();
            use_stack(3000);
        }),
    );
}

fn beyond_the_file(r: &mut Report) {
    file("f", "x");
    let f = fd("f", O_RDWR);
    let shared = map(0, 3 * PAGE, RW, MAP_SHARED, f, 0).unwrap();
    let private = map(0, 3 * PAGE, RW, MAP_PRIVATE, f, 0).unwrap();
    r.see("within the page", peek(shared + 100));
    r.see("shared", fate(|| _ = peek(shared + PAGE)));
    r.see("private", fate(|| poke(private + 2 * PAGE, 1)));
    r.see("system call", sys!(SYS_write, 1, shared + PAGE, 1));
    sys!(SYS_ftruncate, f, 2 * PAGE).unwrap();
    r.see("grown", (peek(shared + PAGE), fate(|| _ = peek(shared + 2 * PAGE))));
    poke(shared + PAGE, 1);
    poke(private + PAGE, 1);
    sys!(SYS_ftruncate, f, 10).unwrap();
    r.see("shrunk, shared", fate(|| _ = peek(shared + PAGE)));
    r.see("shrunk, private copy", fate(|| _ = peek(private + PAGE)));
    let empty = map(0, PAGE, PROT_READ, MAP_PRIVATE, fd("/dev/null", O_RDWR), 0).err();
    r.see("null device", empty);
}

fn many_mappings(r: &mut Report) {
    let at = fresh(2000 * PAGE);
    for page in (0..2000).step_by(2) {
        sys!(SYS_mprotect, at + page * PAGE, PAGE, PROT_READ).unwrap();
    }
    r.see("every other page", (fate(|| poke(at + 1998 * PAGE, 1)), fate(|| poke(at + 1999 * PAGE, 1))));
    sys!(SYS_mprotect, at, 2000 * PAGE, RW).unwrap();
    poke(at + 1998 * PAGE, 1);
    r.see("joined", std::fs::read_to_string("/proc/self/maps").unwrap().lines().count() < 200);
    for page in (0..2000).step_by(2) {
        sys!(SYS_munmap, at + page * PAGE, PAGE).unwrap();
    }
    r.see("holes", fate(|| _ = peek(at + 1000 * PAGE)));
    r.see("not a hole", peek(at + 1001 * PAGE));
}

fn address_space_limit(r: &mut Report) {
    r.see(
        "RLIMIT_AS",
        sys::ends(|| {
            let limit = rlimit { rlim_cur: 256 << 20, rlim_max: 256 << 20 };
            sys!(SYS_setrlimit, RLIMIT_AS, &raw const limit).unwrap();
            let large = map(0, 512 << 20, RW, ANONYMOUS, usize::MAX, 0).err().map_or(0, |errno| errno as i32);
            let small = map(0, 1 << 20, RW, ANONYMOUS, usize::MAX, 0).is_ok();
            if small { large } else { 99 }
        }),
    );
    r.see(
        "RLIMIT_DATA",
        sys::ends(|| {
            let limit = rlimit { rlim_cur: 0, rlim_max: 0 };
            sys!(SYS_setrlimit, RLIMIT_DATA, &raw const limit).unwrap();
            let start = sys!(SYS_brk, 0).unwrap();
            i32::from(sys!(SYS_brk, start + (1 << 20)) != Ok(start))
        }),
    );
}

fn executable_memory(r: &mut Report) {
    // What a just-in-time compiler does.
    let at = fresh(PAGE);
    let put = |value: u8| {
        // mov eax, value; ret
        for (n, byte) in [0xb8, value, 0, 0, 0, 0xc3].into_iter().enumerate() {
            poke(at + n, byte);
        }
    };
    let call = || {
        // SAFETY: the page holds the function that `put` wrote.
        let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(at) };
        function()
    };
    put(42);
    sys!(SYS_mprotect, at, PAGE, PROT_READ | PROT_EXEC).unwrap();
    r.see("made executable", call());
    sys!(SYS_mprotect, at, PAGE, RW).unwrap();
    put(43);
    sys!(SYS_mprotect, at, PAGE, PROT_READ | PROT_EXEC).unwrap();
    r.see("changed", call());
    sys!(SYS_mprotect, at, PAGE, RW | PROT_EXEC).unwrap();
    r.see(
        "both at once",
        (44..60).all(|value| {
            put(value);
            call() == i32::from(value)
        }),
    );
    sys!(SYS_mprotect, at, PAGE, RW).unwrap();
    r.see("no longer", fate(|| _ = call()));
}
