//! Places in the file system: nameless files (O_TMPFILE), descriptors of places (O_PATH), limits of names and paths,
//! sticky directories, time stamps, and what statx(2) tells.

use libc::*;

use crate::sys::{
    self, Answer, Errno, as_nobody, c, close, fd, file, fstat, lstat, open, open_mode, read, seek, stat, sys,
    text, zeroed,
};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("nameless_files", nameless_files),
    ("path_descriptors", path_descriptors),
    ("name_limits", name_limits),
    ("link_limits", link_limits),
    ("whiteout", whiteout),
    ("exchange", exchange),
    ("sticky", sticky),
    ("rename_directories", rename_directories),
    ("set_id_clearing", set_id_clearing),
    ("time_stamps", time_stamps),
    ("modes_of_new_files", modes_of_new_files),
    ("statx_masks", statx_masks),
    ("open_how", open_how),
    ("places_in_listings", places_in_listings),
    ("system_attributes", system_attributes),
];

fn linkat(from: usize, old: &str, new: &str, flags: i32) -> Answer {
    sys!(SYS_linkat, from, c(old).as_ptr(), AT_FDCWD, c(new).as_ptr(), flags)
}

const HERE: usize = AT_FDCWD as usize;

fn nameless_files(r: &mut Report) {
    let f = open_mode(".", O_TMPFILE | O_RDWR, 0o640).unwrap();
    sys::write(f, b"nameless").unwrap();
    r.see("links and mode", fstat(f).map(|it| (it.st_nlink, format!("{:o}", it.st_mode))));
    r.see("flags", sys!(SYS_fcntl, f, F_GETFL).map(|flags| flags & O_TMPFILE as usize == O_TMPFILE as usize));
    let own = format!("/proc/self/fd/{f}");
    r.see(
        "named",
        (linkat(HERE, &own, "named", AT_SYMLINK_FOLLOW), text("named"), fstat(f).map(|it| it.st_nlink)),
    );
    r.see("twice", linkat(HERE, &own, "named", AT_SYMLINK_FOLLOW));
    r.see("another name", (linkat(HERE, &own, "other", AT_SYMLINK_FOLLOW), fstat(f).map(|it| it.st_nlink)));
    let f = open_mode(".", O_TMPFILE | O_RDWR, 0o600).unwrap();
    r.see("by descriptor", linkat(f, "", "empty", AT_EMPTY_PATH));
    let f = open_mode(".", O_TMPFILE | O_RDWR | O_EXCL, 0o600).unwrap();
    r.see("never named", linkat(f, "", "never", AT_EMPTY_PATH));
    r.see("to read", open_mode(".", O_TMPFILE | O_RDONLY, 0o600).err());
    file("f", "x");
    r.see("in a file", open_mode("f", O_TMPFILE | O_RDWR, 0o600).err());
    r.see("in nothing", open_mode("none", O_TMPFILE | O_RDWR, 0o600).err());
    r.see("with O_CREAT", open_mode(".", O_TMPFILE | O_RDWR | O_CREAT, 0o600).err());
    r.see("the bit alone", open_mode(".", (O_TMPFILE & !O_DIRECTORY) | O_RDWR, 0o600).err());
    r.see("in /proc", open_mode("/proc", O_TMPFILE | O_RDWR, 0o600).err());
    std::fs::remove_file("f").unwrap();
    let f = fd("named", O_RDONLY);
    std::fs::remove_file("named").unwrap();
    std::fs::remove_file("other").unwrap();
    r.see("without a name again", linkat(f, "", "back", AT_EMPTY_PATH));
}

fn path_descriptors(r: &mut Report) {
    std::fs::create_dir("d").unwrap();
    file("d/f", "text");
    std::os::unix::fs::symlink("d", "l").unwrap();
    let file_path = fd("d/f", O_PATH);
    let dir = fd("d", O_PATH);
    let link = fd("l", O_PATH | O_NOFOLLOW);
    r.see("flags", [file_path, dir, link].map(|f| sys!(SYS_fcntl, f, F_GETFL)));
    r.see(
        "extra flags",
        sys!(SYS_fcntl, fd("d/f", O_PATH | O_RDWR | O_APPEND | O_NONBLOCK | O_TRUNC), F_GETFL),
    );
    r.see("kept its text", text("d/f"));
    let mut byte = [0u8; 8];
    let at = byte.as_mut_ptr();
    r.see(
        "read",
        (sys!(SYS_read, file_path, at, 1), sys!(SYS_write, file_path, at, 1), seek(file_path, 0, 0)),
    );
    r.see(
        "change",
        (
            sys!(SYS_fchmod, file_path, 0o600),
            sys!(SYS_fchown, file_path, u32::MAX, u32::MAX),
            sys!(SYS_ftruncate, file_path, 0),
        ),
    );
    r.see("sync", (sys!(SYS_fsync, file_path), sys!(SYS_fdatasync, file_path), sys!(SYS_syncfs, file_path)));
    r.see("list", sys!(SYS_getdents64, dir, at, 8));
    r.see("map", sys!(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, file_path, 0));
    r.see("ioctl", sys!(SYS_ioctl, file_path, FIONREAD, at));
    r.see("poll", {
        let mut waits = [pollfd { fd: file_path as i32, events: POLLIN, revents: 0 }];
        (sys!(SYS_poll, waits.as_mut_ptr(), 1, 0), waits[0].revents)
    });
    r.see("stat", fstat(file_path).map(|it| it.st_size));
    r.see("of the link", fstat(link).map(|it| it.st_mode & S_IFMT == S_IFLNK));
    r.see("read the link", sys!(SYS_readlinkat, link, c"".as_ptr(), at, 8));
    r.see("read no link", sys!(SYS_readlinkat, file_path, c"".as_ptr(), at, 8));
    r.see("open beneath", sys!(SYS_openat, dir, c("f").as_ptr(), O_RDONLY).map(|f| read(f, 10)));
    r.see("open beneath a file", sys!(SYS_openat, file_path, c("f").as_ptr(), O_RDONLY));
    r.see(
        "chdir",
        (
            sys!(SYS_fchdir, file_path),
            sys!(SYS_fchdir, link),
            sys!(SYS_fchdir, dir),
            stat("f").map(|it| it.st_size),
        ),
    );
    r.see("reopen", text(&format!("/proc/self/fd/{file_path}")));
    r.see("reopen the link", open(&format!("/proc/self/fd/{link}"), O_RDONLY));
    r.see("duplicate", sys!(SYS_fcntl, file_path, F_DUPFD, 0).map(close));
    r.see(
        "flag of the descriptor",
        (sys!(SYS_fcntl, file_path, F_SETFD, 1), sys!(SYS_fcntl, file_path, F_GETFD)),
    );
    r.see("set flags", sys!(SYS_fcntl, file_path, F_SETFL, O_APPEND));
    r.see("fstatfs", {
        let mut fs: statfs = zeroed();
        sys!(SYS_fstatfs, file_path, &raw mut fs)
    });
    r.see("link", linkat(file_path, "", "linked", AT_EMPTY_PATH));
    r.see("chmod by it", sys!(SYS_chmod, c(&format!("/proc/self/fd/{file_path}")).as_ptr(), 0o600));
    r.see("O_CREAT", open("new", O_PATH | O_CREAT).err());
    r.see("not a directory", open("f", O_PATH | O_DIRECTORY).err());
    r.see("without rights", as_nobody(|| format!("{:?}", open("f", O_PATH).is_ok())));
}

fn name_limits(r: &mut Report) {
    let name = |len: usize| "n".repeat(len);
    for len in [254, 255, 256, 300] {
        r.see(format!("name of {len}"), open(&name(len), O_CREAT | O_RDWR).map(close));
        r.see(
            format!("directory of {len}"),
            sys!(SYS_mkdir, c(&format!("d{}", name(len - 1))).as_ptr(), 0o755),
        );
        r.see(format!("missing of {len}"), stat(&format!("x{}", name(len - 1))).err());
        r.see(
            format!("link to {len}"),
            sys!(SYS_symlink, c("x").as_ptr(), c(&format!("l{}", name(len - 1))).as_ptr()),
        );
        r.see(format!("beneath {len}"), open(&format!("{}/f", name(len)), O_RDONLY).err());
        r.see(format!("rename to {len}"), sys!(SYS_rename, c("none").as_ptr(), c(&name(len)).as_ptr()));
    }
    file("f", "x");
    for len in [4093, 4094, 4095, 4096, 4097, 5000] {
        // Slashes as many as it takes.
        let path = format!(".{}f", "/".repeat(len - 2));
        r.see(format!("path of {len}"), stat(&path).err());
        let target = "t".repeat(len);
        r.see(
            format!("target of {len}"),
            (
                sys!(SYS_symlink, c(&target).as_ptr(), c(&format!("s{len}")).as_ptr()),
                lstat(&format!("s{len}")).map(|it| it.st_size),
            ),
        );
    }
    r.see("chdir", sys!(SYS_chdir, c(&"a/".repeat(2100)).as_ptr()));
    r.see("through a long target", stat("s4095").err());
    // A path of more than PATH_MAX, step by step.
    let part = name(200);
    let mut made = 0;
    for _ in 0..25 {
        made += usize::from(
            sys!(SYS_mkdir, c(&part).as_ptr(), 0o755).is_ok() && sys!(SYS_chdir, c(&part).as_ptr()).is_ok(),
        );
    }
    let mut buffer = [0u8; 8192];
    r.see("deep", (made, sys!(SYS_getcwd, buffer.as_mut_ptr(), buffer.len()).err()));
    r.see("a file there", open("deep", O_CREAT | O_RDWR).map(close));
}

fn link_limits(r: &mut Report) {
    let link = |target: &str, path: &str| sys!(SYS_symlink, c(target).as_ptr(), c(path).as_ptr()).unwrap();
    file("f", "text");
    link("f", "c1");
    for n in 1..45 {
        link(&format!("c{n}"), &format!("c{}", n + 1));
    }
    // Linux goes on counting when it has to walk a path once more.
    for n in [1, 20, 41, 42] {
        r.see(format!("chain of {n}"), stat(&format!("c{n}")).map(|it| it.st_size));
        r.see(format!("chain of {n}, not followed"), lstat(&format!("c{n}")).is_ok());
    }
    std::fs::create_dir("d").unwrap();
    file("d/f", "text");
    link("d", "l");
    link(".", "d/dot");
    for n in [19, 20, 41] {
        r.see(format!("{n} in a path"), stat(&format!("d/{}f", "dot/".repeat(n))).map(|it| it.st_size));
    }
    link("self", "self");
    r.see(
        "itself",
        (stat("self").err(), open("self", O_RDONLY | O_NOFOLLOW).err(), open("self", O_CREAT | O_RDWR).err()),
    );
    r.see("itself with a slash", (lstat("self/").err(), stat("self/x").err()));
    r.see("O_NOFOLLOW of a directory link", open("l", O_RDONLY | O_NOFOLLOW | O_DIRECTORY).err());
    r.see("O_NOFOLLOW in the middle", open("l/f", O_RDONLY | O_NOFOLLOW).is_ok());
    link("gone", "dangling");
    r.see("created through a link", (open("dangling", O_CREAT | O_RDWR).is_ok(), stat("gone").is_ok()));
    link("gone2", "dangling2");
    r.see("exclusively", open("dangling2", O_CREAT | O_EXCL | O_RDWR).err());
    link("nowhere/x", "dangling3");
    r.see("without parent", open("dangling3", O_CREAT | O_RDWR).err());
    link("d/", "slash");
    r.see("made behind a slash", open("slash", O_CREAT | O_RDWR).err());
}

fn rename2(from: &str, to: &str, flags: u32) -> Answer {
    sys!(SYS_renameat2, AT_FDCWD, c(from).as_ptr(), AT_FDCWD, c(to).as_ptr(), flags)
}

const WHITEOUT: u32 = 4;

fn whiteout(r: &mut Report) {
    let kind = |path: &str| lstat(path).map(|it| (format!("{:o}", it.st_mode), it.st_rdev, it.st_nlink));
    file("a", "a");
    file("b", "b");
    r.see("moved", (rename2("a", "c", WHITEOUT), kind("a"), text("c")));
    r.see("over another", (rename2("c", "b", WHITEOUT), kind("c"), text("b")));
    r.see("not over another", rename2("b", "a", WHITEOUT | RENAME_NOREPLACE));
    r.see("to a free name", (rename2("b", "free", WHITEOUT | RENAME_NOREPLACE), kind("b")));
    r.see("exchange", rename2("free", "a", WHITEOUT | RENAME_EXCHANGE));
    std::fs::create_dir("d").unwrap();
    r.see("directory", (rename2("d", "e", WHITEOUT), kind("d")));
    r.see("missing", rename2("none", "x", WHITEOUT));
    r.see("open", open("a", O_RDONLY).err());
    r.see("not privileged", {
        sys!(SYS_chmod, c(".").as_ptr(), 0o777).unwrap();
        as_nobody(|| {
            file("mine", "x");
            format!("{:?} {:?}", rename2("mine", "yours", WHITEOUT), kind("mine").is_ok())
        })
    });
}

fn exchange(r: &mut Report) {
    std::fs::create_dir_all("d/e").unwrap();
    std::fs::create_dir_all("x/y").unwrap();
    file("d/e/f", "inner");
    file("g", "outer");
    file("x/h", "h");
    r.see(
        "with one's own inside",
        (rename2("d", "d/e", RENAME_EXCHANGE), rename2("d/e", "d", RENAME_EXCHANGE)),
    );
    r.see("a file and a directory", (rename2("g", "d/e", RENAME_EXCHANGE), text("d/e"), text("g/f")));
    r.see("links", (stat("d").unwrap().st_nlink, stat(".").unwrap().st_nlink));
    r.see(
        "two directories",
        (rename2("d", "x/y", RENAME_EXCHANGE), stat("x").unwrap().st_nlink, stat("x/y/e").is_ok()),
    );
    r.see("its parent", stat("x/y/..").unwrap().st_ino == stat("x").unwrap().st_ino);
    r.see("with itself", rename2("x", "x", RENAME_EXCHANGE));
    r.see("missing", (rename2("no", "x", RENAME_EXCHANGE), rename2("x", "no", RENAME_EXCHANGE)));
    r.see("slashes", (rename2("x/h/", "g", RENAME_EXCHANGE), rename2("x/h", "g/", RENAME_EXCHANGE)));
    r.see(
        "dots",
        (
            rename2("x/.", "g", RENAME_EXCHANGE),
            rename2("g", "x/..", RENAME_EXCHANGE),
            rename2("g", ".", RENAME_NOREPLACE),
        ),
    );
    std::os::unix::fs::symlink("nowhere", "link").unwrap();
    r.see(
        "a link",
        (rename2("link", "x/h", RENAME_EXCHANGE), lstat("x/h").map(|it| it.st_mode & S_IFMT == S_IFLNK)),
    );
}

fn sticky(r: &mut Report) {
    std::fs::create_dir("t").unwrap();
    sys!(SYS_chmod, c(".").as_ptr(), 0o755).unwrap();
    sys!(SYS_chmod, c("t").as_ptr(), 0o1777).unwrap();
    file("t/theirs", "x");
    std::fs::create_dir("t/dir").unwrap();
    sys!(SYS_chmod, c("t/theirs").as_ptr(), 0o666).unwrap();
    let seen = as_nobody(|| {
        file("t/mine", "y");
        [
            ("unlink", sys!(SYS_unlink, c("t/theirs").as_ptr())),
            ("rename", rename2("t/theirs", "t/new", 0)),
            ("over", rename2("t/mine", "t/theirs", 0)),
            ("exchange", rename2("t/mine", "t/theirs", RENAME_EXCHANGE)),
            ("rmdir", sys!(SYS_rmdir, c("t/dir").as_ptr())),
            ("link", linkat(HERE, "t/theirs", "t/linked", 0)),
            ("mine", rename2("t/mine", "t/renamed", 0)),
            ("unlink mine", sys!(SYS_unlink, c("t/renamed").as_ptr())),
        ]
        .map(|(name, answer)| format!("{name} {answer:?}"))
        .join(", ")
    });
    r.see("in another's", seen);
    let _ = sys!(SYS_chown, c("t").as_ptr(), 1234, 1234);
    r.see("in one's own", as_nobody(|| format!("{:?}", sys!(SYS_unlink, c("t/theirs").as_ptr()))));
    sys!(SYS_chmod, c("t").as_ptr(), 0o3777).unwrap();
    let _ = sys!(SYS_chown, c("t").as_ptr(), 0, 4321);
    let seen = as_nobody(|| {
        file("t/in", "x");
        std::fs::create_dir("t/sub").unwrap();
        format!(
            "{:?}",
            ["t/in", "t/sub"].map(|it| stat(it).map(|it| (it.st_gid, format!("{:o}", it.st_mode))))
        )
    });
    r.see("of the directory's group", seen);
}

fn rename_directories(r: &mut Report) {
    let rename = |from: &str, to: &str| rename2(from, to, 0);
    std::fs::create_dir_all("a/b/c").unwrap();
    std::fs::create_dir_all("empty").unwrap();
    std::fs::create_dir_all("full/x").unwrap();
    file("f", "x");
    r.see("beneath itself", (rename("a", "a/b"), rename("a", "a/b/c/d"), rename("a", "a/new")));
    r.see("onto its parents", (rename("a/b/c", "a/b"), rename("a/b/c", "a")));
    r.see("over full", rename("empty", "full"));
    r.see("over a file", (rename("empty", "f"), rename("f", "empty")));
    r.see("slashes", (rename("empty/", "moved/"), rename("moved", "empty")));
    r.see("links before", (stat("full").unwrap().st_nlink, stat("a").unwrap().st_nlink));
    r.see(
        "into another",
        (rename("a/b", "full/b"), stat("full").unwrap().st_nlink, stat("a").unwrap().st_nlink),
    );
    r.see("over an empty one", (rename("full/x", "empty"), stat("full").unwrap().st_nlink));
    let here = fd("full", O_RDONLY | O_DIRECTORY);
    sys!(SYS_fchdir, here).unwrap();
    r.see(
        "the working directory",
        (rename("../full", "../elsewhere"), stat("b").is_ok(), stat("../elsewhere/b").is_ok()),
    );
    r.see("dots", (rename(".", "../x"), rename("..", "x"), rename("../f", "."), rename("../f", "..")));
    r.see("root", (rename("/", "x"), rename("../f", "/")));
}

/// Changes an open file.
type Change = fn(usize) -> Answer;

fn set_id_clearing(r: &mut Report) {
    let mode = |path: &str| format!("{:o}", stat(path).unwrap().st_mode & 0o7777);
    sys!(SYS_chmod, c(".").as_ptr(), 0o777).unwrap();
    let ways: [(&str, Change); 7] = [
        ("write", |f| sys::write(f, b"x")),
        ("write of nothing", |f| sys::write(f, b"")),
        ("truncate", |f| sys!(SYS_ftruncate, f, 1)),
        ("truncate to the same", |f| sys!(SYS_ftruncate, f, 3)),
        ("fallocate", |f| sys!(SYS_fallocate, f, 0, 0, 10)),
        ("chown to nobody", |f| sys!(SYS_fchown, f, u32::MAX, u32::MAX)),
        ("chown", |f| sys!(SYS_fchown, f, 1234, 1234)),
    ];
    for bits in [0o6777, 0o6766, 0o4755, 0o2755, 0o2745, 0o2644] {
        for (name, way) in ways {
            let body = || {
                file("f", "abc");
                sys!(SYS_chmod, c("f").as_ptr(), bits).unwrap();
                let answer = way(fd("f", O_RDWR)).map(|_| 0);
                let text = format!("{answer:?} {}", mode("f"));
                std::fs::remove_file("f").unwrap();
                text
            };
            r.see(format!("{bits:o}, {name}"), (as_nobody(body), body()));
        }
    }
    file("g", "x");
    sys!(SYS_chmod, c("g").as_ptr(), 0o6777).unwrap();
    let _ = sys!(SYS_chown, c("g").as_ptr(), 1234, 999);
    r.see(
        "a group that one is not in",
        as_nobody(|| format!("{:?} {}", sys!(SYS_chmod, c("g").as_ptr(), 0o6777), mode("g"))),
    );
}

fn time_stamps(r: &mut Report) {
    file("f", "x");
    let set = |atime: (i64, i64), mtime: (i64, i64)| {
        let times = [atime, mtime].map(|(tv_sec, tv_nsec)| timespec { tv_sec, tv_nsec });
        sys!(SYS_utimensat, AT_FDCWD, c("f").as_ptr(), times.as_ptr(), 0)
    };
    let shown = || {
        let it = stat("f").unwrap();
        let show = |s: i64, ns: i64| {
            if s > 1_000_000_000 && s < 4_000_000_000 { "now".to_owned() } else { format!("{s}.{ns}") }
        };
        (show(it.st_atime, it.st_atime_nsec), show(it.st_mtime, it.st_mtime_nsec))
    };
    let (now, omit) = (UTIME_NOW, UTIME_OMIT);
    r.see("numbers", (set((100, 5), (200, 999_999_999)), shown()));
    r.see("omit one", (set((7, omit), (300, 0)), shown()));
    r.see("omit the other", (set((400, 0), (7, omit)), shown()));
    r.see("omit both", (set((1, omit), (2, omit)), shown()));
    r.see("now", (set((1, now), (2, omit)), shown()));
    r.see("both now", (set((1, now), (2, now)), shown()));
    r.see("before 1970", (set((-5, 1), (-1, 999_999_999)), shown()));
    r.see("bad", (set((0, 1_000_000_000), (0, 0)), set((0, 0), (0, -1)), set((0, omit + 1), (0, 0))));
    r.see(
        "of nothing",
        sys!(
            SYS_utimensat,
            AT_FDCWD,
            c("none").as_ptr(),
            [timespec { tv_sec: 0, tv_nsec: omit }; 2].as_ptr(),
            0
        ),
    );
    let f = fd("f", O_RDONLY);
    r.see("by descriptor", (sys!(SYS_utimensat, f, 0, 0, 0), shown()));
    r.see("no path at all", sys!(SYS_utimensat, AT_FDCWD, 0, 0, 0));
    r.see("flags", sys!(SYS_utimensat, AT_FDCWD, c("f").as_ptr(), 0, 0x200));
    r.see("empty path", sys!(SYS_utimensat, f, c("").as_ptr(), 0, AT_EMPTY_PATH));
    std::os::unix::fs::symlink("f", "l").unwrap();
    let times = [timespec { tv_sec: 50, tv_nsec: 0 }; 2];
    r.see(
        "a link",
        (
            sys!(SYS_utimensat, AT_FDCWD, c("l").as_ptr(), times.as_ptr(), AT_SYMLINK_NOFOLLOW),
            lstat("l").map(|it| it.st_mtime),
            shown(),
        ),
    );
    let old = [timeval { tv_sec: 60, tv_usec: 7 }, timeval { tv_sec: 61, tv_usec: 8 }];
    r.see("utimes", (sys!(SYS_utimes, c("f").as_ptr(), old.as_ptr()), shown()));
    let bad = [timeval { tv_sec: 60, tv_usec: 1_000_000 }; 2];
    r.see("utimes, bad", sys!(SYS_utimes, c("f").as_ptr(), bad.as_ptr()));
    r.see("futimesat", (sys!(SYS_futimesat, f, 0, old.as_ptr()), shown()));
    sys!(SYS_chmod, c(".").as_ptr(), 0o755).unwrap();
    sys!(SYS_chmod, c("f").as_ptr(), 0o666).unwrap();
    r.see(
        "of another",
        as_nobody(|| {
            format!("{:?}", [(now, now), (now, omit), (omit, omit), (0, 0)].map(|(a, m)| set((1, a), (1, m))))
        }),
    );
    sys!(SYS_chmod, c("f").as_ptr(), 0o644).unwrap();
    r.see(
        "of another, read only",
        as_nobody(|| format!("{:?}", [(now, now), (omit, omit)].map(|(a, m)| set((1, a), (1, m))))),
    );
}

fn modes_of_new_files(r: &mut Report) {
    let mode = |path: &str| lstat(path).map(|it| format!("{:o}", it.st_mode));
    let mut n = 0;
    for mask in [0, 0o022, 0o077, 0o777, 0o7777] {
        // SAFETY: umask takes any number.
        let before = unsafe { umask(mask) };
        r.see(format!("mask before {mask:o}"), format!("{before:o}"));
        for wanted in [0o644, 0o777, 0o7777, 0o17777] {
            n += 1;
            let name = |kind: &str| format!("{kind}{n}");
            let _ = open_mode(&name("f"), O_CREAT | O_RDWR, wanted).map(close);
            let _ = sys!(SYS_mkdir, c(&name("d")).as_ptr(), wanted);
            let _ = sys!(SYS_mknod, c(&name("p")).as_ptr(), S_IFIFO | wanted & 0o7777, 0);
            let _ = sys!(SYS_symlink, c("x").as_ptr(), c(&name("l")).as_ptr());
            r.see(format!("{mask:o} {wanted:o}"), ["f", "d", "p", "l"].map(|kind| mode(&name(kind))));
        }
    }
    // SAFETY: as above.
    r.see("mask kept", format!("{:o}", unsafe { umask(0o022) }));
    for kind in [0, S_IFREG, S_IFDIR, S_IFLNK, S_IFSOCK, S_IFIFO, S_IFMT, 0o30000] {
        let name = format!("kind{kind:o}");
        r.see(&name, (sys!(SYS_mknod, c(&name).as_ptr(), kind | 0o644, 0), mode(&name)));
    }
    r.see("devices of nobody", {
        sys!(SYS_chmod, c(".").as_ptr(), 0o777).unwrap();
        as_nobody(|| {
            format!(
                "{:?} {:?}",
                sys!(SYS_mknod, c("chr").as_ptr(), S_IFCHR | 0o644, 0),
                sys!(SYS_mknod, c("blk").as_ptr(), S_IFBLK | 0o644, 5)
            )
        })
    });
}

fn statx_masks(r: &mut Report) {
    file("f", "text");
    let ask = |path: &str, flags: i32, mask: u32| {
        let mut all: statx = zeroed();
        sys!(SYS_statx, AT_FDCWD, c(path).as_ptr(), flags, mask, &raw mut all).map(|_| all)
    };
    // What a file system has beyond these differs.
    let basic = STATX_BASIC_STATS;
    let always = basic & !(STATX_CTIME | STATX_MTIME);
    for mask in [0, STATX_TYPE, STATX_SIZE, STATX_BASIC_STATS, STATX_ALL, 0x7fff_ffff] {
        r.see(format!("mask {mask:#x}"), ask("f", 0, mask).map(|it| it.stx_mask & always == always));
    }
    r.see(
        "birth",
        ask("f", 0, STATX_BTIME)
            .map(|it| (it.stx_mask & STATX_BTIME != 0, it.stx_btime.tv_sec > 1_000_000_000)),
    );
    r.see("mount", ask("f", 0, STATX_MNT_ID).map(|it| (it.stx_mask & STATX_MNT_ID != 0, it.stx_mnt_id > 0)));
    r.see(
        "one mount",
        ask("f", 0, STATX_MNT_ID).unwrap().stx_mnt_id == ask(".", 0, STATX_MNT_ID).unwrap().stx_mnt_id,
    );
    r.see(
        "another mount",
        ask("f", 0, STATX_MNT_ID).unwrap().stx_mnt_id != ask("/proc", 0, STATX_MNT_ID).unwrap().stx_mnt_id,
    );
    let root = STATX_ATTR_MOUNT_ROOT as u64;
    for path in ["f", "/proc", "/", "/proc/self"] {
        r.see(
            format!("root of a mount {path}"),
            ask(path, 0, basic).map(|it| (it.stx_attributes_mask & root != 0, it.stx_attributes & root != 0)),
        );
    }
    r.see("reserved", ask("f", 0, 0x8000_0000).err());
    r.see(
        "sync types",
        [AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC, AT_STATX_SYNC_TYPE]
            .map(|flags| ask("f", flags, basic).err()),
    );
    r.see("flags", [0x1, 0x200, 0x400, 0x10000].map(|flags| ask("f", flags, basic).err()));
    r.see("empty path", ask("", AT_EMPTY_PATH, basic).map(|it| u32::from(it.stx_mode) & S_IFMT == S_IFDIR));
    r.see("no path", sys!(SYS_statx, AT_FDCWD, 0, 0, basic, 0));
    r.see("no automount", ask("f", AT_NO_AUTOMOUNT, basic).map(|it| it.stx_size));
    r.see(
        "numbers",
        ask("f", 0, basic)
            .map(|it| (it.stx_nlink, it.stx_size, it.stx_blksize, u32::from(it.stx_mode) & 0o7777)),
    );
    r.see("of a device", ask("/dev/null", 0, basic).map(|it| (it.stx_rdev_major, it.stx_rdev_minor)));
}

fn open_how(r: &mut Report) {
    file("f", "x");
    std::os::unix::fs::symlink("f", "l").unwrap();
    let how = |path: &str, flags: u64, mode: u64, resolve: u64| {
        let how = [flags, mode, resolve];
        sys!(SYS_openat2, AT_FDCWD, c(path).as_ptr(), how.as_ptr(), 24).map(|f| close(f).map(|_| 0))
    };
    let (create, path, temporary) = (O_CREAT as u64 | O_RDWR as u64, O_PATH as u64, O_TMPFILE as u64 | 2);
    r.see("mode without creating", how("f", 0, 0o644, 0));
    r.see(
        "mode",
        (how("new", create, 0o644, 0), how("new", create, 0o7777, 0), how("new", create, 0o10000, 0)),
    );
    r.see("mode of a nameless file", (how(".", temporary, 0o600, 0), how(".", temporary, 0o10000, 0)));
    r.see("flags", [1 << 32, 1 << 40, 1 << 63, 0x4000_0000, 3].map(|flags| how("f", flags, 0, 0)));
    r.see(
        "path and more",
        (
            how("f", path | 2, 0, 0),
            how("f", path | O_NOFOLLOW as u64, 0, 0),
            how("f", path | O_APPEND as u64, 0, 0),
        ),
    );
    r.see("resolve bits", [1, 2, 4, 8, 16, 32, 64, 1 << 32].map(|bits| how("f", 0, 0, bits)));
    r.see("cached and creating", how("new2", create, 0o600, RESOLVE_CACHED));
    r.see("beneath and in root", how("f", 0, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
    r.see(
        "another mount",
        (how("/proc/version", 0, 0, RESOLVE_NO_XDEV), how("/proc/self/root", 0, 0, RESOLVE_NO_XDEV)),
    );
    r.see(
        "magic",
        (
            how("/proc/self/exe", 0, 0, RESOLVE_NO_MAGICLINKS),
            how("/proc/self", 0, 0, RESOLVE_NO_MAGICLINKS),
            how("/proc/self/cwd/f", 0, 0, RESOLVE_NO_MAGICLINKS),
        ),
    );
    r.see(
        "the link itself",
        (how("l", path | O_NOFOLLOW as u64, 0, RESOLVE_NO_SYMLINKS), how("l", 0, 0, RESOLVE_NO_SYMLINKS)),
    );
    let mut long = [0u64; 8];
    let with = |words: &[u64], size: usize| {
        sys!(SYS_openat2, AT_FDCWD, c("f").as_ptr(), words.as_ptr(), size).map(|f| close(f).map(|_| 0))
    };
    r.see("longer, of zeros", with(&long, 64));
    long[7] = 1;
    r.see("longer, with more", with(&long, 64));
    r.see("sizes", [0, 8, 23, 24, 25].map(|size| with(&long, size)));
    r.see("too long", with(&long, 4097));
}

fn places_in_listings(r: &mut Report) {
    std::fs::create_dir("d").unwrap();
    for n in 0..20 {
        file(&format!("d/f{n:02}"), "");
    }
    let list = |f: usize, len: usize| {
        let mut buffer = vec![0u8; len];
        let count = sys!(SYS_getdents64, f, buffer.as_mut_ptr(), len)?;
        let (mut at, mut all) = (0, Vec::new());
        while at < count {
            let record = usize::from(u16::from_le_bytes(buffer[at + 16..at + 18].try_into().unwrap()));
            let place = i64::from_le_bytes(buffer[at + 8..at + 16].try_into().unwrap());
            let name = &buffer[at + 19..at + record];
            let end = name.iter().position(|&byte| byte == 0).unwrap();
            all.push((String::from_utf8_lossy(&name[..end]).into_owned(), place));
            at += record;
        }
        Ok::<_, Errno>(all)
    };
    let f = fd("d", O_RDONLY | O_DIRECTORY);
    let first = list(f, 24 * 8).unwrap();
    let place = seek(f, 0, SEEK_CUR).unwrap() as i64;
    r.see("the position is the last place", place == first.last().unwrap().1);
    let rest = list(f, 4096).unwrap();
    seek(f, place, SEEK_SET).unwrap();
    r.see("back to it", list(f, 4096).unwrap() == rest);
    // What goes or comes does not move what stays.
    for (name, _) in rest.iter().take(3) {
        std::fs::remove_file(format!("d/{name}")).unwrap();
    }
    file("d/new", "");
    seek(f, place, SEEK_SET).unwrap();
    let mut again: Vec<String> =
        list(f, 4096).unwrap().into_iter().map(|it| it.0).filter(|it| it != "new").collect();
    let mut expected: Vec<String> = rest.iter().skip(3).map(|it| it.0.clone()).collect();
    again.sort_unstable();
    expected.sort_unstable();
    r.see("what stays is there once", again == expected);
    seek(f, 0, SEEK_SET).unwrap();
    r.see("rewound", list(f, 4096).unwrap().len());
    r.see("negative", seek(f, -1, SEEK_SET));
    let twin = sys!(SYS_dup, f).unwrap();
    seek(f, 0, SEEK_SET).unwrap();
    r.see("shared", (list(twin, 4096).unwrap().len(), list(f, 4096).unwrap().len()));
}

fn system_attributes(r: &mut Report) {
    let path = format!("/dev/shm/guest-checks-acl-{}", sys::pid());
    file(&path, "x");
    sys!(SYS_chmod, c(&path).as_ptr(), 0o640).unwrap();
    let mut room = [0u8; 64];
    for name in ["system.other", "security.capability"] {
        let get = sys!(SYS_getxattr, c(&path).as_ptr(), c(name).as_ptr(), room.as_mut_ptr(), 64);
        let remove = sys!(SYS_removexattr, c(&path).as_ptr(), c(name).as_ptr());
        r.see(name, (get, remove));
    }
    std::fs::remove_file(&path).unwrap();
}
