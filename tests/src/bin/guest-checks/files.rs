//! What is in files: reading, writing, sizes, holes, attributes.

use libc::*;

use crate::sys::{
    self, as_nobody, c, close, fd, file, fstat, open, pread, read, seek, stat, sys, text, write, zeroed,
};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("open_flags", open_flags),
    ("append", append),
    ("truncate", truncate),
    ("sparse", sparse),
    ("seek", seeking),
    ("vectors", vectors),
    ("bad_buffers", bad_buffers),
    ("big_file", big_file),
    ("stat_fields", stat_fields),
    ("times_of_files", times_of_files),
    ("statx", statx_fields),
    ("umask", umask_applies),
    ("permissions", permissions),
    ("access", access_checks),
    ("suid_bits", suid_bits),
    ("fallocate", fallocate_ranges),
    ("record_locks", record_locks),
    ("flock", flocks),
    ("memfd", memfd),
    ("copying", copying),
    ("devices", devices),
];

fn open_flags(r: &mut Report) {
    r.see("missing", open("no", O_RDONLY).err());
    r.see("empty path", open("", O_RDONLY).err());
    file("f", "hello");
    std::fs::create_dir("d").unwrap();
    std::os::unix::fs::symlink("f", "link").unwrap();
    std::os::unix::fs::symlink("target", "dangling").unwrap();
    r.see("O_EXCL on a file", open("f", O_CREAT | O_EXCL | O_RDWR).err());
    r.see("O_EXCL on a dangling link", open("dangling", O_CREAT | O_EXCL | O_RDWR).err());
    r.see("O_DIRECTORY on a file", open("f", O_DIRECTORY).err());
    r.see("write to a directory", open("d", O_WRONLY).err());
    r.see("O_CREAT on a directory", open("d", O_CREAT | O_RDWR).err());
    r.see("O_NOFOLLOW on a link", open("link", O_NOFOLLOW).err());
    r.see("file with a slash", open("f/", O_RDONLY).err());
    r.see("beneath a file", open("f/x", O_RDONLY).err());
    r.see("new file with a slash", open("new/", O_CREAT | O_RDWR).err());
    r.see("long name", open(&"n".repeat(256), O_RDONLY).err());
    r.see("longest name", open(&"n".repeat(255), O_CREAT | O_WRONLY).is_ok());
    r.see("long path", open(&"d/".repeat(2048), O_RDONLY).err());
    r.see("null path", sys!(SYS_open, 0, O_RDONLY, 0));
    r.see("bad directory descriptor", sys!(SYS_openat, 99, c("f").as_ptr(), 0));
    r.see("file as directory descriptor", sys!(SYS_openat, fd("f", O_RDONLY), c("f").as_ptr(), 0));
    r.see("both ways", sys!(SYS_openat, 99, c("/dev/null").as_ptr(), 0).is_ok());
    let through = fd("dangling", O_CREAT | O_WRONLY);
    write(through, b"x").unwrap();
    r.see("O_CREAT through a dangling link", text("target"));
    let reader = fd("f", O_RDONLY);
    r.see("write to a reader", write(reader, b"x"));
    let writer = fd("f", O_WRONLY);
    r.see("read from a writer", read(writer, 1));
    let path = fd("link", O_PATH | O_NOFOLLOW);
    r.see("O_PATH of a link", fstat(path).map(|stat| stat.st_mode & S_IFMT == S_IFLNK));
    r.see("read from O_PATH", read(path, 1));
    let truncated = fd("f", O_WRONLY | O_TRUNC);
    r.see("O_TRUNC", fstat(truncated).map(|stat| stat.st_size));
    r.see("lowest descriptor", {
        close(reader).unwrap();
        open("f", O_RDONLY).unwrap() == reader
    });
    r.see("flags", sys!(SYS_fcntl, fd("f", O_RDWR | O_APPEND | O_NONBLOCK), F_GETFL).map(|f| f & !0o100000));
}

fn append(r: &mut Report) {
    file("f", "one");
    let first = fd("f", O_WRONLY | O_APPEND);
    let second = fd("f", O_RDWR | O_APPEND);
    write(first, b" two").unwrap();
    write(second, b" three").unwrap();
    seek(first, 0, SEEK_SET).unwrap();
    write(first, b" four").unwrap();
    r.see("text", text("f"));
    r.see("position", seek(first, 0, SEEK_CUR));
    r.see("pwrite appends", sys!(SYS_pwrite64, first, b"!".as_ptr(), 1, 0));
    r.see("after it", text("f"));
    r.see("read from the start", read(second, 3));
    sys!(SYS_fcntl, second, F_SETFL, 0).unwrap();
    sys!(SYS_pwrite64, second, b"ONE".as_ptr(), 3, 0).unwrap();
    r.see("without O_APPEND", text("f"));
}

fn truncate(r: &mut Report) {
    file("f", "0123456789");
    let f = fd("f", O_RDWR);
    seek(f, 8, SEEK_SET).unwrap();
    r.see("shrink", sys!(SYS_ftruncate, f, 4));
    r.see("read beyond", read(f, 4));
    r.see("write beyond", write(f, b"x"));
    r.see("gap", text("f"));
    r.see("grow", sys!(SYS_ftruncate, f, 12));
    r.see("zeros", text("f"));
    r.see("shrink and grow again", (sys!(SYS_ftruncate, f, 2), sys!(SYS_ftruncate, f, 5), text("f")));
    r.see("negative", sys!(SYS_ftruncate, f, -1i64));
    r.see("reader", sys!(SYS_ftruncate, fd("f", O_RDONLY), 0));
    r.see("directory", sys!(SYS_truncate, c(".").as_ptr(), 0));
    r.see("missing", sys!(SYS_truncate, c("no").as_ptr(), 0));
    r.see("by path", (sys!(SYS_truncate, c("f").as_ptr(), 1), text("f")));
    let (reader, _) = sys::pipe(0);
    r.see("pipe", sys!(SYS_ftruncate, reader, 0));
}

fn sparse(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    let far = 1 << 20;
    sys!(SYS_pwrite64, f, b"end".as_ptr(), 3, far).unwrap();
    r.see("size", fstat(f).map(|stat| stat.st_size));
    r.see("blocks are few", fstat(f).map(|stat| stat.st_blocks < 64));
    r.see("hole reads as zeros", pread(f, 4, far / 2));
    r.see("across its edge", pread(f, 8, far - 4));
    r.see("first data", seek(f, 0, SEEK_DATA));
    r.see("first hole", seek(f, 0, SEEK_HOLE));
    r.see("hole at the end", seek(f, far as i64, SEEK_HOLE));
    r.see("data beyond the end", seek(f, far as i64 + 3, SEEK_DATA));
}

fn seeking(r: &mut Report) {
    file("f", "0123456789");
    let f = fd("f", O_RDWR);
    r.see("end", seek(f, -3, SEEK_END));
    r.see("read", read(f, 2));
    r.see("current", seek(f, -4, SEEK_CUR));
    r.see("before the start", seek(f, -1, SEEK_SET));
    r.see("unchanged", seek(f, 0, SEEK_CUR));
    r.see("beyond the end", seek(f, 100, SEEK_SET));
    r.see("read there", read(f, 1));
    r.see("bad whence", seek(f, 0, 17));
    r.see("pipe", seek(sys::pipe(0).0, 0, SEEK_CUR));
    r.see("bad descriptor", seek(99, 0, SEEK_CUR));
    r.see("pread leaves it", (pread(f, 2, 3), seek(f, 0, SEEK_CUR)));
    r.see("pread before the start", sys!(SYS_pread64, f, 0, 0, -1i64));
    r.see("pread of a pipe", pread(sys::pipe(0).0, 1, 0));
    let twin = sys!(SYS_dup, f).unwrap();
    seek(twin, 5, SEEK_SET).unwrap();
    r.see("dup shares the position", read(f, 1));
    r.see("a second open does not", read(fd("f", O_RDONLY), 1));
}

fn vectors(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    let part = |text: &'static [u8]| iovec { iov_base: text.as_ptr() as *mut c_void, iov_len: text.len() };
    let parts = [part(b"one "), part(b""), part(b"two "), part(b"three")];
    r.see("writev", sys!(SYS_writev, f, parts.as_ptr(), parts.len()));
    r.see("text", text("f"));
    let (mut first, mut second) = ([0u8; 5], [0u8; 20]);
    let into = [
        iovec { iov_base: first.as_mut_ptr().cast(), iov_len: first.len() },
        iovec { iov_base: second.as_mut_ptr().cast(), iov_len: second.len() },
    ];
    r.see("preadv", sys!(SYS_preadv, f, into.as_ptr(), 2, 2, 0));
    r.see("first", String::from_utf8_lossy(&first).into_owned());
    r.see("second", String::from_utf8_lossy(&second[..6]).into_owned());
    r.see("too many", sys!(SYS_readv, f, into.as_ptr(), 1025));
    r.see("none", sys!(SYS_writev, f, into.as_ptr(), 0));
    let huge = [iovec { iov_base: first.as_mut_ptr().cast(), iov_len: usize::MAX }];
    r.see("negative length", sys!(SYS_readv, f, huge.as_ptr(), 1));
    r.see("bad address", sys!(SYS_readv, f, 8, 1));
    r.see("pwritev", (sys!(SYS_pwritev, f, parts.as_ptr(), 1, 4, 0), text("f")));
}

fn bad_buffers(r: &mut Report) {
    file("f", "0123456789");
    let f = fd("f", O_RDWR);
    r.see("read to null", sys!(SYS_read, f, 0, 1));
    r.see("read to the kernel", sys!(SYS_read, f, 0xffff_8000_0000_0000usize, 1));
    r.see("read to nowhere", sys!(SYS_read, f, 0x7fff_ffff_e000usize, 16));
    r.see("write from null", sys!(SYS_write, f, 0, 1));
    r.see("write from a wrapping range", sys!(SYS_write, f, usize::MAX - 4, 8));
    r.see("nothing from null", sys!(SYS_write, f, 0, 0));
    r.see("bad descriptor", read(77, 1));
    r.see("stat to null", sys!(SYS_fstat, f, 0));
    r.see("pipe to null", sys!(SYS_pipe2, 0, 0));
    r.see("getcwd to null", sys!(SYS_getcwd, 0, 100));
    r.see("path at the end of memory", sys!(SYS_chdir, 0x7fff_ffff_efffusize));
    r.see("time to the first page", sys!(SYS_clock_gettime, 1, 16));
    // Only the first of two pages is there.
    let two = sys!(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0).unwrap();
    sys!(SYS_munmap, two + 4096, 4096).unwrap();
    r.see("read over the edge", sys!(SYS_read, f, two + 4092, 10));
    r.see("position after it", seek(f, 0, SEEK_CUR));
    r.see("stat over the edge", sys!(SYS_fstat, f, two + 4090));
    r.see("text up to the edge", {
        // SAFETY: the first page was mapped above, writable, and nothing else uses it.
        unsafe { std::ptr::copy_nonoverlapping(c"f".as_ptr().cast::<u8>(), (two + 4094) as *mut u8, 2) };
        sys!(SYS_access, two + 4094, R_OK)
    });
    r.see("text over the edge", {
        // SAFETY: as above.
        unsafe { *((two + 4095) as *mut u8) = b'f' };
        sys!(SYS_access, two + 4095, R_OK)
    });
}

fn big_file(r: &mut Report) {
    let pattern: Vec<u8> = (0..8_000_003u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let f = fd("f", O_RDWR | O_CREAT);
    for part in pattern.chunks(70_001) {
        assert_eq!(write(f, part), Ok(part.len()));
    }
    r.see("size", fstat(f).map(|stat| stat.st_size));
    r.ensure("reads back", std::fs::read("f").is_ok_and(|bytes| bytes == pattern));
    let map = sys!(SYS_mmap, 0, pattern.len(), PROT_READ, MAP_SHARED, f, 0).unwrap();
    // SAFETY: the mapping has this length, and nobody writes to the file while the slice is in use.
    let mapped = unsafe { std::slice::from_raw_parts(map as *const u8, pattern.len()) };
    r.ensure("maps", mapped == pattern);
    std::fs::remove_file("f").unwrap();
    r.see("still there", pread(f, 3, pattern.len() - 1).map(|text| text.len()));
}

fn stat_fields(r: &mut Report) {
    file("f", "12345");
    let it = stat("f").unwrap();
    let type_of = |mode: u32| mode & S_IFMT;
    r.see("mode", format!("{:o}", it.st_mode));
    r.see("size, links", (it.st_size, it.st_nlink));
    // SAFETY: these calls only answer.
    let owner = unsafe { (geteuid(), getegid()) };
    r.ensure("owner", (it.st_uid, it.st_gid) == owner);
    r.see("blocks", it.st_blocks > 0);
    r.see("directory", format!("{:o}", stat(".").unwrap().st_mode));
    std::fs::create_dir("d").unwrap();
    r.see("null", {
        let null = stat("/dev/null").unwrap();
        (type_of(null.st_mode) == S_IFCHR, major(null.st_rdev), minor(null.st_rdev))
    });
    r.see("pipe", type_of(fstat(sys::pipe(0).0).unwrap().st_mode) == S_IFIFO);
    r.see("same device", stat("d").unwrap().st_dev == it.st_dev);
    r.see("other inode", stat("d").unwrap().st_ino != it.st_ino);
    r.see("root is its own parent", stat("/").unwrap().st_ino == stat("/..").unwrap().st_ino);
    r.see("missing", stat("no").err());
    r.see("by descriptor", {
        let mut found: libc::stat = zeroed();
        let f = fd("f", O_RDONLY);
        sys!(SYS_newfstatat, f, c("").as_ptr(), &raw mut found, AT_EMPTY_PATH)
            .map(|_| found.st_ino == it.st_ino)
    });
    r.see("empty path without the flag", sys!(SYS_newfstatat, 0, c("").as_ptr(), &raw const it, 0));
    std::os::unix::fs::symlink("12345678", "l").unwrap();
    let link = sys::lstat("l").unwrap();
    r.see("link", (format!("{:o}", link.st_mode), link.st_size));
}

fn times_of_files(r: &mut Report) {
    file("f", "x");
    let set = |access: (i64, i64), change: (i64, i64)| {
        let times = [
            timespec { tv_sec: access.0, tv_nsec: access.1 },
            timespec { tv_sec: change.0, tv_nsec: change.1 },
        ];
        sys!(SYS_utimensat, AT_FDCWD, c("f").as_ptr(), times.as_ptr(), 0)
    };
    let times = || stat("f").map(|it| ((it.st_atime, it.st_atime_nsec), (it.st_mtime, it.st_mtime_nsec)));
    r.see("set", (set((1000, 5), (2000, 999_999_999)), times()));
    r.see("omit", (set((0, UTIME_OMIT), (3000, 0)), times()));
    r.see("bad nanoseconds", set((0, 1_000_000_000), (0, 0)));
    let before = stat("f").unwrap();
    sys::sleep_ms(20);
    let f = fd("f", O_WRONLY);
    write(f, b"y").unwrap();
    let after = stat("f").unwrap();
    r.see("a write changes mtime", after.st_mtime > before.st_mtime);
    r.see("and not atime", after.st_atime == before.st_atime);
    sys::sleep_ms(20);
    sys!(SYS_fchmod, f, 0o600).unwrap();
    let moded = stat("f").unwrap();
    let ctime = |it: &libc::stat| (it.st_ctime, it.st_ctime_nsec);
    r.see("chmod changes ctime", ctime(&moded) > ctime(&after));
    r.see("and not mtime", (moded.st_mtime, moded.st_mtime_nsec) == (after.st_mtime, after.st_mtime_nsec));
    sys!(SYS_utimensat, f, 0, 0, 0).unwrap();
    let now = stat("f").unwrap();
    r.see("now", now.st_atime == now.st_mtime && now.st_atime > 1_600_000_000);
    let directory = stat(".").unwrap();
    sys::sleep_ms(20);
    file("g", "");
    let changed = stat(".").unwrap();
    r.see(
        "a new name changes its directory",
        (changed.st_mtime, changed.st_mtime_nsec) > (directory.st_mtime, directory.st_mtime_nsec),
    );
}

fn statx_fields(r: &mut Report) {
    file("f", "12345");
    let mut it: statx = zeroed();
    r.see("answer", sys!(SYS_statx, AT_FDCWD, c("f").as_ptr(), 0, STATX_BASIC_STATS, &raw mut it));
    r.see("mask", it.stx_mask & STATX_BASIC_STATS == STATX_BASIC_STATS);
    r.see("fields", (it.stx_size, it.stx_nlink, format!("{:o}", it.stx_mode)));
    let old = stat("f").unwrap();
    r.see("inode", it.stx_ino == old.st_ino);
    r.see("device", makedev(it.stx_dev_major, it.stx_dev_minor) == old.st_dev);
    r.see(
        "time",
        (it.stx_mtime.tv_sec, i64::from(it.stx_mtime.tv_nsec)) == (old.st_mtime, old.st_mtime_nsec),
    );
    r.see("bad flags", sys!(SYS_statx, AT_FDCWD, c("f").as_ptr(), 0x8000_0000u32, 0x7ff, &raw mut it));
    r.see("reserved mask", sys!(SYS_statx, AT_FDCWD, c("f").as_ptr(), 0, 0x8000_0000u32, &raw mut it));
}

fn umask_applies(r: &mut Report) {
    let mode = |path: &str| format!("{:o}", stat(path).unwrap().st_mode);
    r.see("previous", sys!(SYS_umask, 0o027));
    sys::open_mode("f", O_CREAT | O_RDWR, 0o777).unwrap();
    r.see("file", mode("f"));
    sys!(SYS_mkdir, c("d").as_ptr(), 0o777).unwrap();
    r.see("directory", mode("d"));
    sys!(SYS_mknod, c("p").as_ptr(), S_IFIFO | 0o666, 0).unwrap();
    r.see("fifo", mode("p"));
    sys!(SYS_chmod, c("f").as_ptr(), 0o666).unwrap();
    r.see("chmod ignores it", mode("f"));
    r.see("masked", sys!(SYS_umask, 0o7777));
    r.see("only permission bits", sys!(SYS_umask, 0));
    r.see("child inherits", {
        sys!(SYS_umask, 0o011).unwrap();
        sys::ends(|| sys!(SYS_umask, 0).unwrap() as i32)
    });
    sys::open_mode("s", O_CREAT | O_RDWR, 0o4755).unwrap();
    r.see("set-user-id survives", mode("s"));
    std::fs::create_dir("unreadable").unwrap();
    let f = sys::open_mode("write-only", O_CREAT | O_RDWR, 0).unwrap();
    r.see("the creator may write all the same", write(f, b"x"));
}

fn permissions(r: &mut Report) {
    let fresh = |name: &str, mode: u32| {
        file(name, "#!/bin/sh\n");
        sys!(SYS_chmod, c(name).as_ptr(), mode).unwrap();
    };
    sys!(SYS_chmod, c(".").as_ptr(), 0o755).unwrap();
    for mode in [0o000, 0o400, 0o004, 0o006, 0o001] {
        let name = format!("f{mode:o}");
        fresh(&name, mode);
        r.see(
            format!("owner, mode {mode:o}"),
            (open(&name, O_RDONLY).is_ok(), open(&name, O_WRONLY).is_ok()),
        );
        let seen = as_nobody(|| format!("{:?} {:?}", open(&name, O_RDONLY).err(), open(&name, O_RDWR).err()));
        r.see(format!("other, mode {mode:o}"), seen);
    }
    for mode in [0o700, 0o711, 0o744, 0o777, 0o1777] {
        let name = format!("d{mode:o}");
        std::fs::create_dir(&name).unwrap();
        file(&format!("{name}/f"), "x");
        sys!(SYS_chmod, c(&format!("{name}/f")).as_ptr(), 0o666).unwrap();
        sys!(SYS_chmod, c(&name).as_ptr(), mode).unwrap();
        let seen = as_nobody(|| {
            let inside = c(&format!("{name}/f"));
            format!(
                "list {:?}, open {:?}, create {:?}, unlink {:?}",
                open(&name, O_RDONLY).err(),
                open(&format!("{name}/f"), O_RDWR).err(),
                open(&format!("{name}/new"), O_RDWR | O_CREAT).err(),
                sys!(SYS_unlink, inside.as_ptr()).err(),
            )
        });
        r.see(format!("directory, mode {mode:o}"), seen);
    }
    fresh("theirs", 0o666);
    let seen = as_nobody(|| {
        let path = c("theirs");
        format!(
            "chmod {:?}, chown {:?}, utimes now {:?}, utimes {:?}",
            sys!(SYS_chmod, path.as_ptr(), 0o777),
            sys!(SYS_chown, path.as_ptr(), 1234, 1234),
            sys!(SYS_utimensat, AT_FDCWD, path.as_ptr(), 0, 0),
            sys!(SYS_utimensat, AT_FDCWD, path.as_ptr(), [timespec { tv_sec: 1, tv_nsec: 0 }; 2].as_ptr(), 0),
        )
    });
    r.see("not the owner", seen);
}

fn access_checks(r: &mut Report) {
    file("f", "x");
    let access = |path: &str, mode: i32| sys!(SYS_access, c(path).as_ptr(), mode);
    r.see("read", access("f", R_OK));
    r.see("execute a plain file", access("f", X_OK));
    sys!(SYS_chmod, c("f").as_ptr(), 0o100).unwrap();
    r.see("execute", access("f", X_OK));
    r.see("search a directory", access(".", X_OK | R_OK | W_OK));
    r.see("missing", access("no", F_OK));
    r.see("bad mode", access("f", 8));
    r.see("effective", sys!(SYS_faccessat2, AT_FDCWD, c("f").as_ptr(), X_OK, AT_EACCESS));
    std::os::unix::fs::symlink("no", "dangling").unwrap();
    r.see("dangling", access("dangling", F_OK));
    let link = c("dangling");
    r.see("link itself", sys!(SYS_faccessat2, AT_FDCWD, link.as_ptr(), F_OK, AT_SYMLINK_NOFOLLOW));
    file("private", "x");
    sys!(SYS_chmod, c("private").as_ptr(), 0o600).unwrap();
    sys!(SYS_chmod, c(".").as_ptr(), 0o755).unwrap();
    r.see("other", as_nobody(|| format!("{:?} {:?}", access("private", R_OK), access("private", F_OK))));
}

fn suid_bits(r: &mut Report) {
    let mode = |path: &str| format!("{:o}", stat(path).unwrap().st_mode);
    sys!(SYS_chmod, c(".").as_ptr(), 0o777).unwrap();
    let seen = as_nobody(|| {
        file("f", "x");
        sys!(SYS_chmod, c("f").as_ptr(), 0o6777).unwrap();
        let before = mode("f");
        write(fd("f", O_WRONLY), b"y").unwrap();
        format!("{before} {}", mode("f"))
    });
    r.see("a write takes them away", seen);
    let seen = as_nobody(|| {
        file("g", "x");
        sys!(SYS_chmod, c("g").as_ptr(), 0o6777).unwrap();
        sys!(SYS_chown, c("g").as_ptr(), 1234, 1234).unwrap();
        mode("g")
    });
    r.see("so does chown", seen);
    sys!(SYS_mkdir, c("d").as_ptr(), 0o777).unwrap();
    sys!(SYS_chmod, c("d").as_ptr(), 0o2777).unwrap();
    std::fs::create_dir("d/sub").unwrap();
    r.see("set-group-id is handed down", mode("d/sub"));
}

fn fallocate_ranges(r: &mut Report) {
    file("f", "0123456789");
    let f = fd("f", O_RDWR);
    r.see("extend", (sys!(SYS_fallocate, f, 0, 0, 20), fstat(f).map(|it| it.st_size), text("f")));
    r.see("keep size", (sys!(SYS_fallocate, f, FALLOC_FL_KEEP_SIZE, 0, 100), fstat(f).map(|it| it.st_size)));
    let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    r.see("punch", (sys!(SYS_fallocate, f, punch, 2, 3), text("f")));
    r.see("nothing", sys!(SYS_fallocate, f, 0, 0, 0));
    r.see("negative", sys!(SYS_fallocate, f, 0, -1i64, 1));
    r.see("reader", sys!(SYS_fallocate, fd("f", O_RDONLY), 0, 0, 1));
    r.see("pipe", sys!(SYS_fallocate, sys::pipe(0).1, 0, 0, 1));
}

fn record_lock(kind: i32, start: i64, len: i64) -> libc::flock {
    let mut lock: libc::flock = zeroed();
    lock.l_type = kind as i16;
    lock.l_whence = SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn record_locks(r: &mut Report) {
    file("f", "0123456789");
    let f = fd("f", O_RDWR);
    let lock = |command: i32, kind: i32, start: i64, len: i64| {
        let mut lock = record_lock(kind, start, len);
        sys!(SYS_fcntl, f, command, &raw mut lock).map(|_| lock)
    };
    lock(F_SETLK, F_WRLCK, 2, 4).unwrap();
    let parent = sys::pid();
    let mine = |start, len| sys::ends(|| lock(F_SETLK, F_WRLCK, start, len).err().map_or(0, |e| e as i32));
    r.see("overlap", mine(5, 1));
    r.see("beside", mine(6, 2));
    r.see("who", {
        sys::ends(|| {
            let found = lock(F_GETLK, F_RDLCK, 0, 0).unwrap();
            let expected = (F_WRLCK as i16, 2, 4, parent);
            i32::from((found.l_type, found.l_start, found.l_len, found.l_pid) != expected)
        })
    });
    r.see("own locks do not count", lock(F_GETLK, F_WRLCK, 0, 0).map(|found| found.l_type == F_UNLCK as i16));
    lock(F_SETLK, F_UNLCK, 3, 1).unwrap();
    r.see("a hole in it", (mine(3, 1), mine(2, 1), mine(4, 1)));
    let (reader, writer) = sys::pipe(0);
    let pid = sys::child(|| {
        write(writer, b"x").unwrap();
        i32::from(lock(F_SETLKW, F_WRLCK, 2, 4).is_err())
    });
    read(reader, 1).unwrap();
    sys::sleep_ms(20);
    lock(F_SETLK, F_UNLCK, 0, 0).unwrap();
    r.see("waiting", sys::wait(pid));
    lock(F_SETLK, F_WRLCK, 0, 0).unwrap();
    close(fd("f", O_RDONLY)).unwrap();
    r.see("any close drops them", mine(0, 0));
    r.see("bad kind", lock(F_SETLK, 9, 0, 0).err());
    r.see("write lock of a reader", {
        let mut wanted = record_lock(F_WRLCK, 0, 0);
        sys!(SYS_fcntl, fd("f", O_RDONLY), F_SETLK, &raw mut wanted)
    });
}

fn flocks(r: &mut Report) {
    let first = fd("f", O_RDWR | O_CREAT);
    let second = fd("f", O_RDWR);
    let lock = |f: usize, how: i32| sys!(SYS_flock, f, how);
    r.see("exclusive", lock(first, LOCK_EX | LOCK_NB));
    r.see("twice", lock(second, LOCK_SH | LOCK_NB));
    r.see("a child shares it", sys::ends(|| i32::from(lock(first, LOCK_EX | LOCK_NB).is_err())));
    r.see("downgrade", lock(first, LOCK_SH | LOCK_NB));
    r.see("shared", lock(second, LOCK_SH | LOCK_NB));
    r.see("upgrade", lock(second, LOCK_EX | LOCK_NB));
    close(first).unwrap();
    r.see("after close", lock(second, LOCK_EX | LOCK_NB));
    r.see("bad operation", lock(second, 64));
}

fn memfd(r: &mut Report) {
    let f = sys!(SYS_memfd_create, c"name".as_ptr(), MFD_ALLOW_SEALING | MFD_CLOEXEC).unwrap();
    r.see("write", write(f, b"hello"));
    r.see("name", std::fs::read_link(format!("/proc/self/fd/{f}")).map(|it| it.display().to_string()).ok());
    r.see("seals", sys!(SYS_fcntl, f, F_GET_SEALS));
    r.see("seal", sys!(SYS_fcntl, f, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
    r.see("shrink", sys!(SYS_ftruncate, f, 1));
    r.see("grow", sys!(SYS_ftruncate, f, 100));
    r.see("seal writes", sys!(SYS_fcntl, f, F_ADD_SEALS, F_SEAL_WRITE));
    r.see("write sealed", sys!(SYS_pwrite64, f, b"x".as_ptr(), 1, 0));
    r.see("map sealed", sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0).err());
    r.see("read", pread(f, 10, 0));
    let unsealable = sys!(SYS_memfd_create, c"x".as_ptr(), 0).unwrap();
    r.see("without sealing", sys!(SYS_fcntl, unsealable, F_ADD_SEALS, F_SEAL_GROW));
    r.see("bad flags", sys!(SYS_memfd_create, c"x".as_ptr(), 0x100));
}

fn copying(r: &mut Report) {
    file("from", "0123456789");
    let from = fd("from", O_RDONLY);
    let to = fd("to", O_RDWR | O_CREAT);
    r.see("sendfile", sys!(SYS_sendfile, to, from, 0, 4));
    let mut offset = 7i64;
    r.see("with an offset", (sys!(SYS_sendfile, to, from, &raw mut offset, 100), offset));
    r.see("position", seek(from, 0, SEEK_CUR));
    r.see("text", text("to"));
    r.see("copy_file_range", sys!(SYS_copy_file_range, from, 0, to, 0, 3, 0));
    r.see("then", text("to"));
    r.see("flags", sys!(SYS_copy_file_range, from, 0, to, 0, 3, 1));
    let (reader, writer) = sys::pipe(0);
    r.see("sendfile to a pipe", (sys!(SYS_sendfile, writer, from, 0, 2), read(reader, 10)));
    r.see("splice", (sys!(SYS_splice, from, 0, writer, 0, 100, 0), read(reader, 10)));
    write(writer, b"piped").unwrap();
    r.see("splice out", (sys!(SYS_splice, reader, 0, to, 0, 5, 0), text("to")));
    r.see("splice of files", sys!(SYS_splice, from, 0, to, 0, 5, 0));
}

fn devices(r: &mut Report) {
    let null = fd("/dev/null", O_RDWR);
    r.see("null", (write(null, b"hello"), read(null, 5)));
    let zero = fd("/dev/zero", O_RDWR);
    r.see("zero", (write(zero, b"hello"), read(zero, 5)));
    let full = fd("/dev/full", O_RDWR);
    r.see("full", (write(full, b"hello"), read(full, 5)));
    let random = |path: &str| {
        let mut bytes = [0u8; 64];
        let count = sys!(SYS_read, fd(path, O_RDONLY), bytes.as_mut_ptr(), 64);
        (count, bytes.iter().any(|&byte| byte != bytes[0]))
    };
    r.see("urandom", random("/dev/urandom"));
    r.see("random", random("/dev/random"));
    r.see("random differs", {
        let bytes = || {
            let mut bytes = [0u8; 16];
            sys!(SYS_read, fd("/dev/urandom", O_RDONLY), bytes.as_mut_ptr(), 16).unwrap();
            bytes
        };
        bytes() != bytes()
    });
    let private = sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    // SAFETY: the mapping is one page, readable.
    r.see("zero maps", private.map(|at| unsafe { *(at as *const u64) }));
    r.see("descriptors", std::fs::read_link("/dev/fd").map(|it| it.display().to_string()).ok());
    r.see("standard output", std::fs::read_link("/dev/stdout").map(|it| it.display().to_string()).ok());
    file("f", "through /dev/fd");
    let f = fd("f", O_RDONLY);
    r.see("open through /dev/fd", text(&format!("/dev/fd/{f}")));
    let shared = "/dev/shm/guest-checks";
    file(shared, "shm");
    r.see("shm", text(shared));
    std::fs::remove_file(shared).unwrap();
}
