//! Watching files: inotify(7).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libc::*;

use crate::sys::{self, Answer, c, close, fd, file, open, read, sys, text, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("inotify_errors", errors),
    ("inotify_names", names),
    ("inotify_contents", contents),
    ("inotify_attributes", attributes),
    ("inotify_renames", renames),
    ("inotify_ends", ends),
    ("inotify_directories", directories),
    ("inotify_masks", masks),
    ("inotify_reads", reads),
    ("inotify_overflow", overflow),
    ("inotify_waits", waits),
    ("inotify_programs", programs),
    ("inotify_proc", proc),
];

fn new() -> usize {
    sys!(SYS_inotify_init1, IN_NONBLOCK).unwrap()
}

fn watch(inotify: usize, path: &str, mask: u32) -> Answer {
    sys!(SYS_inotify_add_watch, inotify, c(path).as_ptr(), mask)
}

fn remove(inotify: usize, wd: usize) -> Answer {
    sys!(SYS_inotify_rm_watch, inotify, wd)
}

const NAMES: &[(u32, &str)] = &[
    (IN_ACCESS, "access"),
    (IN_MODIFY, "modify"),
    (IN_ATTRIB, "attrib"),
    (IN_CLOSE_WRITE, "close_write"),
    (IN_CLOSE_NOWRITE, "close_nowrite"),
    (IN_OPEN, "open"),
    (IN_MOVED_FROM, "moved_from"),
    (IN_MOVED_TO, "moved_to"),
    (IN_CREATE, "create"),
    (IN_DELETE, "delete"),
    (IN_DELETE_SELF, "delete_self"),
    (IN_MOVE_SELF, "move_self"),
    (IN_UNMOUNT, "unmount"),
    (IN_Q_OVERFLOW, "overflow"),
    (IN_IGNORED, "ignored"),
    (IN_ISDIR, "isdir"),
];

/// Reads into `room` bytes, and shows each event on a line: the watch, what happened, the name, which rename.
fn events_in(inotify: usize, room: usize) -> Result<Vec<String>, sys::Errno> {
    let mut bytes = vec![0xffu8; room];
    let len = sys!(SYS_read, inotify, bytes.as_mut_ptr(), room)?;
    let mut rest = &bytes[..len];
    let mut cookies = Vec::new();
    let mut shown = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        let (wd, mask, cookie, name_len) = (word(0) as i32, word(4), word(8), word(12) as usize);
        let name = String::from_utf8_lossy(&rest[16..16 + name_len]).replace('\0', ".");
        let known = NAMES.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name);
        let mut line = format!("{wd} {} {name}", known.collect::<Vec<_>>().join("+"));
        if cookie != 0 {
            if !cookies.contains(&cookie) {
                cookies.push(cookie);
            }
            line += &format!(" rename {}", cookies.iter().position(|known| *known == cookie).unwrap());
        }
        shown.push(line);
        rest = &rest[16 + name_len..];
    }
    Ok(shown)
}

fn events(inotify: usize) -> Result<Vec<String>, sys::Errno> {
    events_in(inotify, 1 << 16)
}

fn waiting(inotify: usize) -> i32 {
    let mut len = 0i32;
    sys!(SYS_ioctl, inotify, FIONREAD, &raw mut len).unwrap();
    len
}

fn errors(r: &mut Report) {
    r.see("unknown flags", sys!(SYS_inotify_init1, 1));
    r.see("old call", sys!(SYS_inotify_init).is_ok());
    let inotify = sys!(SYS_inotify_init1, IN_CLOEXEC | IN_NONBLOCK).unwrap();
    r.see("close on exec", sys!(SYS_fcntl, inotify, F_GETFD));
    r.see("status", sys!(SYS_fcntl, inotify, F_GETFL).map(|flags| flags & 0xfff));
    r.see("link", fs::read_link(format!("/proc/self/fd/{inotify}")).unwrap());
    r.see("write", write(inotify, b"x"));
    r.see("seek", sys::seek(inotify, 0, SEEK_SET));
    r.see("pread", sys::pread(inotify, 100, 0));
    r.see("empty", events(inotify));
    file("f", "text");
    sys!(SYS_symlink, c("f").as_ptr(), c("link").as_ptr()).unwrap();
    sys!(SYS_symlink, c("nowhere").as_ptr(), c("dangling").as_ptr()).unwrap();
    r.see("nothing wanted", watch(inotify, "f", 0));
    r.see("unknown bits", watch(inotify, "f", IN_OPEN | 0x1000));
    r.see("closed", watch(99, "f", IN_OPEN));
    r.see("mask before descriptor", watch(99, "f", 0));
    r.see("both", watch(inotify, "f", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE));
    r.see("both of another file", watch(0, "f", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE));
    r.see("another file", watch(fd("f", O_RDONLY), "f", IN_OPEN));
    r.see("a place", watch(fd("f", O_PATH), "f", IN_OPEN));
    r.see("missing", watch(inotify, "none", IN_OPEN));
    r.see("empty path", watch(inotify, "", IN_OPEN));
    r.see("bad address", sys!(SYS_inotify_add_watch, inotify, 8, IN_OPEN));
    r.see("no directory", watch(inotify, "f", IN_OPEN | IN_ONLYDIR));
    r.see("dangling", watch(inotify, "dangling", IN_OPEN));
    r.see("dangling itself", watch(inotify, "dangling", IN_OPEN | IN_DONT_FOLLOW));
    r.see("a link is no directory", watch(inotify, "link", IN_OPEN | IN_DONT_FOLLOW | IN_ONLYDIR));
    r.see("only flags", watch(inotify, "f", IN_ONLYDIR));
    r.see("only a flag", watch(inotify, "f", IN_EXCL_UNLINK));
    r.see("by link", watch(inotify, "link", IN_OPEN));
    r.see("no such watch", remove(inotify, 77));
    r.see("negative watch", remove(inotify, usize::MAX));
    r.see("of another file", remove(fd("f", O_RDONLY), 1));
    r.see("of no file", remove(99, 1));
    r.see("removed", remove(inotify, 1));
    r.see("twice", remove(inotify, 1));
    r.see("last", events(inotify));
    let refused = sys::ends(|| {
        sys!(SYS_chmod, c("f").as_ptr(), 0o200).unwrap();
        sys!(SYS_setresuid, 1000, 1000, 1000).unwrap();
        i32::from(watch(inotify, "f", IN_OPEN) != Err(sys::Errno::EACCES))
    });
    r.see("not readable", refused);
    let many: Vec<Answer> = (0..200).map(|_| sys!(SYS_inotify_init1, 0)).collect();
    r.see("too many", many.iter().find_map(|answer| answer.err()));
}

fn names(r: &mut Report) {
    let inotify = new();
    fs::create_dir("d").unwrap();
    r.see("watch", watch(inotify, "d", IN_ALL_EVENTS));
    file("d/f", "text");
    r.see("file", events(inotify));
    fs::create_dir("d/sub").unwrap();
    r.see("directory", events(inotify));
    file("d/sub/f", "");
    r.see("below is not watched", events(inotify));
    sys!(SYS_mknod, c("d/fifo").as_ptr(), S_IFIFO | 0o600, 0).unwrap();
    sys!(SYS_symlink, c("f").as_ptr(), c("d/symlink").as_ptr()).unwrap();
    r.see("fifo, symlink", events(inotify));
    sys!(SYS_link, c("d/f").as_ptr(), c("d/hard").as_ptr()).unwrap();
    r.see("link", events(inotify));
    r.see("failed", fs::create_dir("d/sub").is_err());
    r.see("nothing", events(inotify));
    fs::remove_file("d/hard").unwrap();
    fs::remove_file("d/f").unwrap();
    fs::remove_file("d/sub/f").unwrap();
    fs::remove_dir("d/sub").unwrap();
    r.see("removed", events(inotify));
    let open = fd("d/long-name-of-a-file", O_CREAT | O_RDWR);
    write(open, b"1").unwrap();
    close(open).unwrap();
    r.see("long name", events(inotify));
    fd("d/0123456789abcde", O_CREAT | O_RDWR);
    r.see("sixteen", waiting(inotify));
    r.see("name of fifteen", events(inotify));
    let _socket = std::os::unix::net::UnixListener::bind("d/socket").unwrap();
    r.see("socket", events(inotify));
    let unnamed = sys::open_mode("d", O_TMPFILE | O_RDWR, 0o600).unwrap();
    let _ = events(inotify);
    let link = format!("/proc/self/fd/{unnamed}");
    let args = (c(&link), c("d/named"));
    sys!(SYS_linkat, AT_FDCWD, args.0.as_ptr(), AT_FDCWD, args.1.as_ptr(), AT_SYMLINK_FOLLOW).unwrap();
    r.see("named", events(inotify));
}

fn contents(r: &mut Report) {
    let inotify = new();
    fs::create_dir("d").unwrap();
    file("d/f", "0123456789");
    file("other", "");
    watch(inotify, "d", IN_ALL_EVENTS).unwrap();
    watch(inotify, "d/f", IN_ALL_EVENTS).unwrap();
    let open = fd("d/f", O_RDWR);
    r.see("open", events(inotify));
    r.see("read", (read(open, 4), events(inotify)));
    r.see("twice is once", (read(open, 1), read(open, 1), events(inotify)));
    r.see("nothing to read", (sys::pread(open, 4, 100), events(inotify)));
    r.see("write", (write(open, b"x"), events(inotify)));
    r.see("write nothing", (write(open, b""), events(inotify)));
    r.see("pwrite", (sys!(SYS_pwrite64, open, b"xy".as_ptr(), 2, 0), events(inotify)));
    r.see("seek", (sys::seek(open, 0, SEEK_SET), events(inotify)));
    r.see("ftruncate", (sys!(SYS_ftruncate, open, 5), events(inotify)));
    r.see("truncate", (sys!(SYS_truncate, c("d/f").as_ptr(), 5), events(inotify)));
    r.see("fallocate", (sys!(SYS_fallocate, open, 0, 0, 100), events(inotify)));
    let other = fd("other", O_RDWR);
    r.see("sendfile", (sys!(SYS_sendfile, other, open, 0, 3), events(inotify)));
    sys::seek(other, 0, SEEK_SET).unwrap();
    r.see("copy to", (sys!(SYS_copy_file_range, other, 0, open, 0, 3, 0), events(inotify)));
    let copy = sys!(SYS_dup, open).unwrap();
    r.see("close of one", (close(open), events(inotify)));
    r.see("close of all", (close(copy), events(inotify)));
    let open = fd("d/f", O_RDONLY | O_TRUNC);
    // Which comes first depends on the release of Linux.
    let mut both = events(inotify).unwrap();
    both.sort();
    r.see("truncating open", both);
    let map = sys!(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, open, 0).unwrap();
    r.see("close of what is mapped", (close(open), events(inotify)));
    r.see("unmap", (sys!(SYS_munmap, map, 4096), events(inotify)));
    let place = fd("d/f", O_PATH);
    r.see("a place", (close(place), events(inotify)));
    r.see("refused", (open_as_nobody(), events(inotify)));
    sys!(SYS_mknod, c("d/fifo").as_ptr(), S_IFIFO | 0o600, 0).unwrap();
    let fifo = fd("d/fifo", O_RDWR);
    r.see("fifo", (close(fifo), events(inotify)));
}

fn open_as_nobody() -> String {
    sys::ends(|| {
        fs::set_permissions(".", fs::Permissions::from_mode(0o755)).unwrap();
        sys!(SYS_setresuid, 1000, 1000, 1000).unwrap();
        i32::from(open("d/f", O_WRONLY).is_ok())
    })
}

fn attributes(r: &mut Report) {
    let inotify = new();
    fs::create_dir("d").unwrap();
    file("d/f", "0123456789");
    watch(inotify, "d", IN_ALL_EVENTS).unwrap();
    watch(inotify, "d/f", IN_ALL_EVENTS).unwrap();
    let path = c("d/f");
    let path = path.as_ptr();
    r.see("chmod", (sys!(SYS_chmod, path, 0o600), events(inotify)));
    r.see("chmod of the directory", (sys!(SYS_chmod, c("d").as_ptr(), 0o700), events(inotify)));
    r.see("chown", (sys!(SYS_chown, path, 1, 1), events(inotify)));
    r.see("chown of nothing", (sys!(SYS_chown, path, -1i32, -1i32), events(inotify)));
    let times = |atime: i64, mtime: i64| {
        let times = [timespec { tv_sec: 1, tv_nsec: atime }, timespec { tv_sec: 1, tv_nsec: mtime }];
        sys!(SYS_utimensat, AT_FDCWD, path, times.as_ptr(), 0)
    };
    r.see("times", (times(0, 0), events(inotify)));
    r.see("now", (sys!(SYS_utimensat, AT_FDCWD, path, 0, 0), events(inotify)));
    r.see("atime", (times(0, UTIME_OMIT), events(inotify)));
    r.see("mtime", (times(UTIME_OMIT, 0), events(inotify)));
    r.see("no time", (times(UTIME_OMIT, UTIME_OMIT), events(inotify)));
    let name = c("trusted.x");
    r.see("xattr", (sys!(SYS_setxattr, path, name.as_ptr(), b"1".as_ptr(), 1, 0), events(inotify)));
    r.see("xattr removed", (sys!(SYS_removexattr, path, name.as_ptr()), events(inotify)));
    r.see("xattr missing", (sys!(SYS_removexattr, path, name.as_ptr()), events(inotify)));
    r.see("stat", (sys::stat("d/f").is_ok(), events(inotify)));
}

fn renames(r: &mut Report) {
    let inotify = new();
    for dir in ["a", "b", "a/sub"] {
        fs::create_dir(dir).unwrap();
    }
    file("a/f", "1");
    file("b/g", "2");
    for path in ["a", "b", "a/f", "b/g", "a/sub"] {
        r.see(path, watch(inotify, path, IN_ALL_EVENTS & !(IN_OPEN | IN_CLOSE)));
    }
    fs::rename("a/f", "a/f2").unwrap();
    r.see("in a directory", events(inotify));
    fs::rename("a/f2", "b/f").unwrap();
    r.see("to another", events(inotify));
    fs::rename("b/f", "b/g").unwrap();
    r.see("replacing", events(inotify));
    fs::rename("a/sub", "b/sub").unwrap();
    r.see("a directory", events(inotify));
    file("a/h", "");
    let _ = events(inotify);
    let paths = (c("a/h"), c("b/g"));
    let exchange =
        |flags: u32| sys!(SYS_renameat2, AT_FDCWD, paths.0.as_ptr(), AT_FDCWD, paths.1.as_ptr(), flags);
    r.see("exchange", (exchange(RENAME_EXCHANGE), events(inotify)));
    r.see("not replacing", (exchange(RENAME_NOREPLACE), events(inotify)));
    fs::rename("b/g", "outside").unwrap();
    fs::rename("outside", "b/inside").unwrap();
    r.see("out and in", events(inotify));
    sys!(SYS_link, c("b/inside").as_ptr(), c("b/same").as_ptr()).unwrap();
    let _ = events(inotify);
    fs::rename("b/inside", "b/same").unwrap();
    r.see("to itself", events(inotify));
    let open = fd("b/same", O_RDWR);
    fs::rename("b/inside", "b/last").unwrap();
    r.see("renamed while open", events(inotify));
    write(open, b"1").unwrap();
    r.see("its name", events(inotify));
}

fn ends(r: &mut Report) {
    let inotify = new();
    fs::create_dir("d").unwrap();
    for name in ["d/f", "d/g", "d/h"] {
        file(name, "1");
    }
    for path in ["d", "d/f", "d/g", "d/h"] {
        watch(inotify, path, IN_ALL_EVENTS).unwrap();
    }
    fs::remove_file("d/f").unwrap();
    r.see("removed", events(inotify));
    let open = fd("d/g", O_RDWR);
    fs::remove_file("d/g").unwrap();
    r.see("removed while open", events(inotify));
    write(open, b"1").unwrap();
    r.see("written without a name", events(inotify));
    close(open).unwrap();
    r.see("closed", events(inotify));
    sys!(SYS_link, c("d/h").as_ptr(), c("h2").as_ptr()).unwrap();
    fs::remove_file("d/h").unwrap();
    r.see("one name less", events(inotify));
    let open = fd("h2", O_RDONLY);
    file("h3", "");
    fs::rename("h3", "h2").unwrap();
    r.see("replaced while open", events(inotify));
    close(open).unwrap();
    r.see("closed at last", events(inotify));
    fs::remove_dir("d").unwrap();
    r.see("directory", events(inotify));
    fs::create_dir("w").unwrap();
    watch(inotify, "w", IN_ALL_EVENTS).unwrap();
    let here = fd(".", O_RDONLY);
    sys!(SYS_chdir, c("w").as_ptr()).unwrap();
    fs::remove_dir("../w").unwrap();
    r.see("working directory", events(inotify));
    sys!(SYS_fchdir, here).unwrap();
    r.see("left", events(inotify));
    r.see("watches that are gone", remove(inotify, 1));
}

fn directories(r: &mut Report) {
    let inotify = new();
    fs::create_dir_all("d/sub").unwrap();
    file("d/f", "");
    watch(inotify, "d", IN_ALL_EVENTS).unwrap();
    watch(inotify, "d/sub", IN_ALL_EVENTS).unwrap();
    let dir = fd("d/sub", O_RDONLY | O_DIRECTORY);
    r.see("open", events(inotify));
    let mut buffer = [0u8; 4096];
    r.see("list", sys!(SYS_getdents64, dir, buffer.as_mut_ptr(), 4096).is_ok());
    r.see("listed", events(inotify));
    close(dir).unwrap();
    r.see("close", events(inotify));
    r.see("chmod", (sys!(SYS_chmod, c("d/sub").as_ptr(), 0o711), events(inotify)));
    fs::rename("d/sub", "d/renamed").unwrap();
    r.see("rename", events(inotify));
    fs::remove_dir("d/renamed").unwrap();
    r.see("remove", events(inotify));
}

fn masks(r: &mut Report) {
    let inotify = new();
    fs::create_dir("d").unwrap();
    file("d/f", "");
    sys!(SYS_symlink, c("f").as_ptr(), c("d/link").as_ptr()).unwrap();
    let touch = || {
        let open = fd("d/f", O_RDWR);
        write(open, b"1").unwrap();
        close(open).unwrap();
    };
    r.see("open", watch(inotify, "d/f", IN_OPEN));
    touch();
    r.see("opened", events(inotify));
    r.see("replaced", watch(inotify, "d/f", IN_MODIFY));
    touch();
    r.see("modified", events(inotify));
    r.see("added", watch(inotify, "d/f", IN_OPEN | IN_MASK_ADD));
    touch();
    r.see("both", events(inotify));
    r.see("there already", watch(inotify, "d/f", IN_OPEN | IN_MASK_CREATE));
    r.see("not there", watch(inotify, "d", IN_OPEN | IN_MASK_CREATE));
    r.see("end", (remove(inotify, 2), events(inotify)));
    r.see("once", watch(inotify, "d/f", IN_MODIFY | IN_ONESHOT));
    touch();
    touch();
    r.see("one event", events(inotify));
    r.see("its number is not used again", watch(inotify, "d/f", IN_OPEN | IN_CLOSE));
    touch();
    r.see("after that", events(inotify));
    r.see("link", watch(inotify, "d/link", IN_ALL_EVENTS | IN_DONT_FOLLOW));
    touch();
    fs::remove_file("d/link").unwrap();
    r.see("of the link", events(inotify));
    r.see("without removed names", watch(inotify, "d", IN_ALL_EVENTS | IN_EXCL_UNLINK));
    let open = fd("d/f", O_RDWR);
    fs::remove_file("d/f").unwrap();
    let _ = events(inotify);
    write(open, b"1").unwrap();
    sys!(SYS_fchmod, open, 0o600).unwrap();
    close(open).unwrap();
    r.see("of the removed one", events(inotify));
    let two = new();
    file("g", "");
    r.see("two instances", (watch(inotify, "g", IN_OPEN), watch(two, "g", IN_OPEN)));
    fd("g", O_RDONLY);
    r.see("each hears", (events(inotify), events(two)));
    close(two).unwrap();
    fd("g", O_RDONLY);
    r.see("one is left", events(inotify));
}

fn reads(r: &mut Report) {
    let inotify = new();
    fs::create_dir("d").unwrap();
    watch(inotify, "d", IN_CREATE).unwrap();
    for index in 0..300 {
        file(&format!("d/{index}"), "");
    }
    r.see("waiting", waiting(inotify));
    r.see("too short", events_in(inotify, 31));
    r.see("one", events_in(inotify, 32));
    r.see("one and a half", events_in(inotify, 48));
    r.see("three", events_in(inotify, 96));
    r.see("the rest at once", events(inotify).map(|events| (events.len(), events.last().cloned())));
    r.see("none", (waiting(inotify), events(inotify)));
    file("d/a", "");
    file("d/b", "");
    file("d/c", "");
    let mut buffers = [[0u8; 32]; 3];
    let vectors =
        buffers.each_mut().map(|buffer| iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 32 });
    r.see("vectors", sys!(SYS_readv, inotify, vectors.as_ptr(), 3));
    r.see("in them", buffers.map(|buffer| buffer[16]));
    file("d/x", "");
    r.see("bad buffer", sys!(SYS_read, inotify, 8, 100));
    r.see("is lost", events(inotify));
}

fn overflow(r: &mut Report) {
    let inotify = new();
    let max: usize = text("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    file("f", "1");
    file("g", "1");
    watch(inotify, "f", IN_ATTRIB).unwrap();
    watch(inotify, "g", IN_ATTRIB).unwrap();
    let (f, g) = (fd("f", O_RDWR), fd("g", O_RDWR));
    for _ in 0..max / 2 + 5 {
        sys!(SYS_fchmod, f, 0o600).unwrap();
        sys!(SYS_fchmod, g, 0o600).unwrap();
    }
    r.ensure("all and one are waiting", waiting(inotify) as usize == (max + 1) * 16);
    let events = events_in(inotify, (max + 1) * 16).unwrap();
    r.ensure("as many", events.len() == max + 1);
    r.see("last", &events[max - 2..]);
    sys!(SYS_fchmod, f, 0o600).unwrap();
    r.see("after that", self::events(inotify));
}

fn waits(r: &mut Report) {
    let inotify = sys!(SYS_inotify_init1, 0).unwrap();
    file("f", "1");
    watch(inotify, "f", IN_ATTRIB).unwrap();
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    let event = epoll_event { events: (EPOLLIN | EPOLLOUT) as u32, u64: 7 };
    r.see("epoll", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, inotify, &raw const event));
    let wait = |ms: i32| {
        let mut event = epoll_event { events: 0, u64: 0 };
        let count = sys!(SYS_epoll_wait, epoll, &raw mut event, 1, ms);
        (count, { event.events })
    };
    let ready = || {
        let mut fds = [pollfd { fd: inotify as i32, events: POLLIN | POLLOUT, revents: 0 }];
        (sys!(SYS_poll, fds.as_mut_ptr(), 1, 0), fds[0].revents)
    };
    r.see("at first", (ready(), wait(0)));
    let change = || {
        sys::child(|| {
            sys::sleep_ms(20);
            sys!(SYS_chmod, c("f").as_ptr(), 0o600).map_or(1, |_| 0)
        })
    };
    let child = change();
    r.see("wait", (wait(10_000), ready(), events(inotify), sys::wait(child)));
    let child = change();
    r.see("read", (events(inotify), sys::wait(child)));
    r.see("after that", (ready(), wait(0)));
    let child = sys::child(|| {
        sys!(SYS_chmod, c("f").as_ptr(), 0o600).unwrap();
        i32::from(waiting(inotify) != 16)
    });
    r.see("a child has the same", (sys::wait(child), events(inotify)));
}

fn programs(r: &mut Report) {
    let inotify = new();
    fs::create_dir("d").unwrap();
    fs::copy("/proc/self/exe", "d/program").unwrap();
    fs::set_permissions("d/program", fs::Permissions::from_mode(0o755)).unwrap();
    watch(inotify, "d", IN_ALL_EVENTS).unwrap();
    let child = sys::child(|| {
        let (path, list) = (c("d/program"), c("--list"));
        let args = [path.as_ptr(), list.as_ptr(), std::ptr::null()];
        close(1).unwrap();
        fd("/dev/null", O_WRONLY);
        sys!(SYS_execve, path.as_ptr(), args.as_ptr(), 0).map_or(1, |_| 0)
    });
    r.see("child", sys::wait(child));
    r.see("opened, read, closed", events(inotify));
}

fn proc(r: &mut Report) {
    let number = |name: &str| text(&format!("/proc/sys/fs/inotify/{name}")).unwrap().trim().parse::<u64>();
    for name in ["max_queued_events", "max_user_instances", "max_user_watches"] {
        r.ensure(name, number(name).is_ok_and(|number| number > 0));
    }
    let inotify = new();
    file("f", "");
    watch(inotify, ".", IN_ALL_EVENTS | IN_ONLYDIR | IN_EXCL_UNLINK).unwrap();
    watch(inotify, "f", IN_OPEN | IN_ONESHOT | IN_DONT_FOLLOW).unwrap();
    let info = text(&format!("/proc/self/fdinfo/{inotify}")).unwrap();
    for line in info.lines().filter(|line| line.starts_with("inotify")) {
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or("none");
        let path = if word("wd:") == "1" { "." } else { "f" };
        let ino = format!("{:x}", sys::stat(path).unwrap().st_ino);
        r.see(word("wd:"), (word("mask:"), word("ignored_mask:"), word("ino:") == ino));
    }
}
