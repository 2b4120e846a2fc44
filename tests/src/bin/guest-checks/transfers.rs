//! Bytes that are moved inside the kernel: sendfile(2), copy_file_range(2), splice(2), tee(2), vmsplice(2); and the
//! flags of preadv2(2) and pwritev2(2).

use libc::*;

use crate::sys::{self, Answer, Errno, c, close, fd, file, pread, read, seek, sys, text, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("sendfile", sendfiles),
    ("copy_file_range", copies),
    ("splice", splices),
    ("splice_waits", splice_waits),
    ("tee", tees),
    ("vmsplice", vmsplices),
    ("transfer_flags", transfer_flags),
    ("transfer_kinds", kinds),
];

const TEXT: &str = "0123456789abcdef";

fn source() -> usize {
    file("from", TEXT);
    fd("from", O_RDONLY)
}

fn target() -> usize {
    let _ = sys!(SYS_unlink, c("to").as_ptr());
    fd("to", O_RDWR | O_CREAT)
}

fn position(f: usize) -> Answer {
    seek(f, 0, SEEK_CUR)
}

fn sendfiles(r: &mut Report) {
    let send = |to: usize, from: usize, offset: Option<&mut i64>, count: usize| {
        let offset = offset.map_or(0, |offset| std::ptr::from_mut(offset) as usize);
        sys!(SYS_sendfile, to, from, offset, count)
    };
    let (from, to) = (source(), target());
    r.see("some", (send(to, from, None, 5), text("to"), position(from), position(to)));
    r.see("the rest", (send(to, from, None, 1000), text("to"), send(to, from, None, 1)));
    let mut offset = 3i64;
    let to = target();
    r.see("from an offset", (send(to, from, Some(&mut offset), 4), offset, position(from), text("to")));
    offset = 100;
    r.see("from behind the end", (send(to, from, Some(&mut offset), 4), offset));
    offset = -1;
    r.see("from before it", (send(to, from, Some(&mut offset), 4), offset));
    offset = i64::MAX;
    r.see("from the last", (send(to, from, Some(&mut offset), 4), offset));
    offset = 0;
    r.see("nothing", (send(to, from, Some(&mut offset), 0), offset));
    r.see("closed", (send(99, from, None, 1), send(to, 99, None, 1), send(99, 99, None, 1)));
    r.see("to a reader", send(from, from, None, 1));
    let only_writes = fd("to", O_WRONLY);
    r.see("from a writer", send(to, only_writes, None, 1));
    let appends = fd("to", O_WRONLY | O_APPEND);
    seek(from, 0, SEEK_SET).unwrap();
    r.see("to an appender", send(appends, from, None, 3));
    let (reader, writer) = sys::pipe(0);
    seek(from, 0, SEEK_SET).unwrap();
    r.see("to a pipe", (send(writer, from, None, 6), read(reader, 10), position(from)));
    write(writer, b"x").unwrap();
    r.see("from a pipe", send(to, reader, None, 1));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()).unwrap();
    seek(from, 2, SEEK_SET).unwrap();
    r.see("to a socket", (send(pair[0] as usize, from, None, 6), read(pair[1] as usize, 10)));
    r.see("from a socket", send(to, pair[1] as usize, None, 1));
    // A full pipe takes what there is room for.
    let (reader, writer) = sys::pipe(O_NONBLOCK);
    write(writer, &vec![b'.'; 65536 - 4096]).unwrap();
    file("big", &"b".repeat(10_000));
    let big = fd("big", O_RDONLY);
    r.see("to a pipe with little room", (send(writer, big, None, 10_000), position(big)));
    r.see("to a full pipe", (send(writer, big, None, 10_000), position(big)));
    close(reader).unwrap();
    // SAFETY: no handler is involved.
    unsafe { signal(SIGPIPE, SIG_IGN) };
    r.see("to a pipe without reader", (send(writer, big, None, 100), position(big)));
    let directory = fd(".", O_RDONLY);
    r.see("from a directory", send(to, directory, None, 1));
    let path = fd("from", O_PATH);
    r.see("of a path", (send(to, path, None, 1), send(path, from, None, 1)));
    r.see("bad offset", sys!(SYS_sendfile, to, from, 1, 1));
    r.see("count", [i64::MAX, i64::MIN, -1].map(|count| send(to, from, None, count as usize)));
}

fn copies(r: &mut Report) {
    let copy = |from: usize, at: Option<&mut i64>, to: usize, to_at: Option<&mut i64>, count: usize| {
        let at = at.map_or(0, |at| std::ptr::from_mut(at) as usize);
        let to_at = to_at.map_or(0, |at| std::ptr::from_mut(at) as usize);
        sys!(SYS_copy_file_range, from, at, to, to_at, count, 0)
    };
    let (from, to) = (source(), target());
    r.see("some", (copy(from, None, to, None, 5), text("to"), position(from), position(to)));
    let (mut at, mut to_at) = (10, 8);
    r.see("from and to offsets", (copy(from, Some(&mut at), to, Some(&mut to_at), 3), at, to_at, text("to")));
    r.see("positions stay", (position(from), position(to)));
    r.see("to the end", (copy(from, None, to, None, 1000), copy(from, None, to, None, 1000), text("to")));
    (at, to_at) = (100, 0);
    r.see("from behind the end", (copy(from, Some(&mut at), to, Some(&mut to_at), 3), at, to_at));
    for bad in [-1, i64::MIN, i64::MAX] {
        (at, to_at) = (bad, 0);
        r.see(format!("from {bad}"), (copy(from, Some(&mut at), to, Some(&mut to_at), 3), at, to_at));
        (at, to_at) = (0, bad);
        r.see(format!("to {bad}"), (copy(from, Some(&mut at), to, Some(&mut to_at), 3), at, to_at));
    }
    let both = fd("from", O_RDWR);
    (at, to_at) = (0, 4);
    r.see("overlapping", copy(both, Some(&mut at), both, Some(&mut to_at), 5));
    r.see("side by side", (copy(both, Some(&mut at), both, Some(&mut to_at), 4), text("from")));
    (at, to_at) = (4, 0);
    r.see("overlapping from above", copy(from, Some(&mut at), both, Some(&mut to_at), 5));
    (at, to_at) = (14, 20);
    r.see("short, as it ends", (copy(both, Some(&mut at), both, Some(&mut to_at), 100), text("from")));
    r.see("nothing", copy(from, None, to, None, 0));
    let appends = fd("to", O_WRONLY | O_APPEND);
    r.see("to an appender", copy(from, None, appends, None, 3));
    r.see("to a reader", copy(from, None, from, None, 3));
    let only_writes = fd("from", O_WRONLY);
    r.see("from a writer", copy(only_writes, None, to, None, 3));
    let (reader, writer) = sys::pipe(0);
    r.see("pipes", (copy(reader, None, to, None, 1), copy(from, None, writer, None, 1)));
    let directory = fd(".", O_RDONLY);
    r.see("directories", (copy(directory, None, to, None, 1), copy(from, None, directory, None, 1)));
    r.see("closed", (copy(99, None, to, None, 1), copy(from, None, 99, None, 1)));
    let null = fd("/dev/null", O_RDWR);
    r.see("devices", (copy(null, None, to, None, 1), copy(from, None, null, None, 1)));
    r.see("count", (copy(from, None, to, None, usize::MAX), copy(from, None, to, None, i64::MAX as usize)));
    r.see(
        "bad addresses",
        (sys!(SYS_copy_file_range, from, 1, to, 0, 1, 0), sys!(SYS_copy_file_range, from, 0, to, 1, 1, 0)),
    );
}

/// splice(2).
fn splice(from: usize, at: Option<&mut i64>, to: usize, to_at: Option<&mut i64>, count: usize) -> Answer {
    let at = at.map_or(0, |at| std::ptr::from_mut(at) as usize);
    let to_at = to_at.map_or(0, |at| std::ptr::from_mut(at) as usize);
    sys!(SYS_splice, from, at, to, to_at, count, SPLICE_F_NONBLOCK)
}

fn splices(r: &mut Report) {
    let (from, to) = (source(), target());
    let (reader, writer) = sys::pipe(0);
    r.see("in", (splice(from, None, writer, None, 5), position(from)));
    r.see("out", (splice(reader, None, to, None, 3), position(to), text("to")));
    r.see("what is left", read(reader, 10));
    let mut at = 10;
    r.see("in from an offset", (splice(from, Some(&mut at), writer, None, 4), at, position(from)));
    at = 6;
    r.see("out to an offset", (splice(reader, None, to, Some(&mut at), 100), at, position(to), text("to")));
    r.see("empty", splice(reader, None, to, None, 5));
    at = 100;
    r.see("in from behind the end", (splice(from, Some(&mut at), writer, None, 5), at));
    at = -1;
    r.see("in from before it", (splice(from, Some(&mut at), writer, None, 5), at));
    write(writer, b"pqrs").unwrap();
    at = -1;
    r.see("out to before it", (splice(reader, None, to, Some(&mut at), 5), at));
    at = 0;
    r.see("an offset of a pipe", splice(from, None, writer, Some(&mut at), 5));
    r.see("an offset of the other pipe", splice(reader, Some(&mut at), to, None, 5));
    let appends = fd("to", O_WRONLY | O_APPEND);
    r.see("out to an appender", splice(reader, None, appends, None, 5));
    r.see("to itself", splice(reader, None, writer, None, 5));
    let (other_reader, other_writer) = sys::pipe(0);
    r.see(
        "to another pipe",
        (splice(reader, None, other_writer, None, 2), read(other_reader, 10), read(reader, 10)),
    );
    r.see("nothing", splice(from, None, writer, None, 0));
    r.see("neither is a pipe", splice(from, None, to, None, 5));
    r.see("closed", (splice(99, None, writer, None, 5), splice(from, None, 99, None, 5)));
    r.see("wrong ends", (splice(from, None, reader, None, 5), splice(writer, None, to, None, 5)));
    let only_writes = fd("from", O_WRONLY);
    r.see("wrong files", (splice(only_writes, None, writer, None, 5), splice(reader, None, from, None, 5)));
    r.see(
        "directories",
        (splice(fd(".", O_RDONLY), None, writer, None, 5), splice(reader, None, fd(".", O_RDONLY), None, 5)),
    );
    r.see("flags", [16, 32, 1 << 31].map(|flags: u32| sys!(SYS_splice, from, 0, writer, 0, 1, flags)));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()).unwrap();
    write(pair[0] as usize, b"socket").unwrap();
    r.see("from a socket", (splice(pair[1] as usize, None, writer, None, 100), read(reader, 10)));
    write(writer, b"back").unwrap();
    r.see("to a socket", (splice(reader, None, pair[1] as usize, None, 100), read(pair[0] as usize, 10)));
    write(writer, b"null").unwrap();
    r.see("to a device", splice(reader, None, fd("/dev/null", O_WRONLY), None, 100));
    r.see("from a device", (splice(fd("/dev/zero", O_RDONLY), None, writer, None, 4), read(reader, 10)));
    close(other_reader).unwrap();
    // SAFETY: no handler is involved.
    unsafe { signal(SIGPIPE, SIG_IGN) };
    seek(from, 0, SEEK_SET).unwrap();
    r.see("without a reader", (splice(from, None, other_writer, None, 4), position(from)));
    close(writer).unwrap();
    r.see("the end", splice(reader, None, to, None, 5));
}

fn splice_waits(r: &mut Report) {
    let (reader, writer) = sys::pipe(0);
    let to = target();
    let pid = sys::child(|| {
        sys::sleep_ms(20);
        write(writer, b"later").unwrap();
        0
    });
    r.see("an empty pipe", (sys!(SYS_splice, reader, 0, to, 0, 100, 0), text("to"), sys::wait(pid)));
    let pid = sys::child(|| {
        close(writer).unwrap();
        sys::sleep_ms(20);
        0
    });
    close(writer).unwrap();
    r.see("the writer goes", (sys!(SYS_splice, reader, 0, to, 0, 100, 0), sys::wait(pid)));
    let (reader, writer) = sys::pipe(0);
    write(writer, &vec![b'.'; 65536]).unwrap();
    let from = source();
    let pid = sys::child(|| {
        sys::sleep_ms(20);
        read(reader, 65536).unwrap();
        0
    });
    r.see("a full pipe", (sys!(SYS_splice, from, 0, writer, 0, 4, 0), sys::wait(pid), read(reader, 10)));
    write(writer, &vec![b'.'; 65536]).unwrap();
    r.see("full, and not to wait", splice(from, None, writer, None, 4));
    sys!(SYS_fcntl, reader, F_SETFL, O_NONBLOCK).unwrap();
    read(reader, 65536).unwrap();
    r.see("empty, with O_NONBLOCK", sys!(SYS_splice, reader, 0, to, 0, 4, 0));
}

fn tees(r: &mut Report) {
    let tee = |from: usize, to: usize, count: usize| sys!(SYS_tee, from, to, count, SPLICE_F_NONBLOCK);
    let (reader, writer) = sys::pipe(0);
    let (other, into) = sys::pipe(0);
    r.see("empty", tee(reader, into, 5));
    write(writer, b"hello").unwrap();
    r.see("some", (tee(reader, into, 3), read(other, 10)));
    r.see("all", (tee(reader, into, 100), read(other, 10), read(reader, 10)));
    r.see("nothing", tee(reader, into, 0));
    write(writer, b"hello").unwrap();
    r.see("to itself", tee(reader, writer, 5));
    r.see("wrong ends", (tee(writer, into, 5), tee(reader, other, 5)));
    r.see("files", (tee(source(), into, 5), tee(reader, target(), 5)));
    r.see("closed", (tee(99, into, 5), tee(reader, 99, 5)));
    r.see("flags", sys!(SYS_tee, reader, into, 5, 16));
    for _ in 0..16 {
        write(into, &[b'.'; 4096]).unwrap();
    }
    r.see("into a full one", tee(reader, into, 5));
    close(other).unwrap();
    // SAFETY: no handler is involved.
    unsafe { signal(SIGPIPE, SIG_IGN) };
    r.see("without a reader", tee(reader, into, 5));
    let (_other, into) = sys::pipe(0);
    read(reader, 10).unwrap();
    close(writer).unwrap();
    r.see("the end", tee(reader, into, 5));
}

fn vmsplices(r: &mut Report) {
    let parts = |texts: &[&str]| -> Vec<iovec> {
        texts.iter().map(|it| iovec { iov_base: it.as_ptr() as *mut c_void, iov_len: it.len() }).collect()
    };
    let vmsplice =
        |f: usize, parts: &[iovec]| sys!(SYS_vmsplice, f, parts.as_ptr(), parts.len(), SPLICE_F_NONBLOCK);
    let (reader, writer) = sys::pipe(0);
    r.see("in", (vmsplice(writer, &parts(&["one", "", "two"])), read(reader, 10)));
    r.see("nothing", (vmsplice(writer, &[]), vmsplice(writer, &parts(&[""]))));
    write(writer, b"out of it").unwrap();
    let mut room = [0u8; 16];
    let out = [iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 6 }];
    r.see(
        "out",
        (vmsplice(reader, &out), String::from_utf8_lossy(&room[..6]).into_owned(), read(reader, 10)),
    );
    r.see("empty", vmsplice(reader, &out));
    r.see("files", (vmsplice(source(), &out), vmsplice(target(), &out), vmsplice(99, &out)));
    let bad = [iovec { iov_base: 8 as *mut c_void, iov_len: 6 }];
    r.see("bad memory", (vmsplice(writer, &bad), sys!(SYS_vmsplice, writer, 1, 1, 0)));
    r.see("too many", sys!(SYS_vmsplice, writer, out.as_ptr(), 1025, 0));
    r.see("flags", sys!(SYS_vmsplice, writer, out.as_ptr(), 1, 32));
    for _ in 0..16 {
        write(writer, &[b'.'; 4096]).unwrap();
    }
    r.see("full", vmsplice(writer, &parts(&["one"])));
    close(reader).unwrap();
    // SAFETY: no handler is involved.
    unsafe { signal(SIGPIPE, SIG_IGN) };
    r.see("without a reader", vmsplice(writer, &parts(&["one"])));
}

fn transfer_flags(r: &mut Report) {
    file("f", TEXT);
    let f = fd("f", O_RDWR);
    let mut room = [0u8; 4];
    let parts = [iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 4 }];
    let reads = |f: usize, offset: i64, flags: i32| sys!(SYS_preadv2, f, parts.as_ptr(), 1, offset, 0, flags);
    let data = [iovec { iov_base: c"wxyz".as_ptr() as *mut c_void, iov_len: 4 }];
    let writes =
        |f: usize, offset: i64, flags: i32| sys!(SYS_pwritev2, f, data.as_ptr(), 1, offset, 0, flags);
    for flags in [0, RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_APPEND] {
        r.see(format!("read {flags}"), (reads(f, 2, flags), position(f)));
    }
    for flags in [0, RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_APPEND] {
        r.see(format!("write {flags}"), (writes(f, 2, flags), position(f), text("f")));
    }
    r.see("append at the position", (writes(f, -1, RWF_APPEND), position(f), text("f")));
    // Not all file systems can tell whether they would wait.
    let answer = reads(f, 0, RWF_NOWAIT);
    r.ensure("read without waiting", matches!(answer, Ok(4) | Err(Errno::EAGAIN | Errno::EOPNOTSUPP)));
    r.see("at the position", (reads(f, -1, 0), position(f)));
    r.see("before the first byte", (reads(f, -2, 0), writes(f, -2, 0)));
    for bit in 9..32 {
        r.see(format!("bit {bit}"), (reads(f, 0, 1 << bit), writes(f, 0, 1 << bit)));
    }
    let (reader, writer) = sys::pipe(0);
    r.see("an empty pipe", reads(reader, -1, RWF_NOWAIT));
    r.see("a pipe", (writes(writer, -1, RWF_NOWAIT), reads(reader, -1, RWF_NOWAIT)));
    r.see("a pipe at an offset", (writes(writer, 0, 0), reads(reader, 0, 0)));
    r.see("a pipe, appended", (writes(writer, -1, RWF_APPEND), reads(reader, -1, 0)));
    for _ in 0..16 {
        write(writer, &[b'.'; 4096]).unwrap();
    }
    r.see("a full pipe", writes(writer, -1, RWF_NOWAIT));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()).unwrap();
    r.see("a socket", reads(pair[0] as usize, -1, RWF_NOWAIT));
    let appends = fd("f", O_RDWR | O_APPEND);
    r.see("an appender", (writes(appends, 0, 0), pread(appends, 100, 0)));
}

fn kinds(r: &mut Report) {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair.as_mut_ptr()).unwrap();
    let things = [
        ("directory", fd(".", O_RDONLY)),
        ("eventfd", sys!(SYS_eventfd2, 1, EFD_NONBLOCK).unwrap()),
        ("epoll", sys!(SYS_epoll_create1, 0).unwrap()),
        ("timerfd", sys!(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK).unwrap()),
        ("socket", pair[0] as usize),
        ("memfd", sys!(SYS_memfd_create, c"x".as_ptr(), 0).unwrap()),
        ("path", fd(".", O_PATH)),
    ];
    for (name, f) in things {
        let (reader, writer) = sys::pipe(O_NONBLOCK);
        r.see(format!("{name}: splice from"), splice(f, None, writer, None, 4));
        write(writer, b"12345678").unwrap();
        r.see(format!("{name}: splice to"), splice(reader, None, f, None, 8));
        let (from, to) = (source(), target());
        r.see(format!("{name}: sendfile from"), sys!(SYS_sendfile, to, f, 0, 4));
        r.see(format!("{name}: sendfile to"), sys!(SYS_sendfile, f, from, 0, 8));
        for g in [reader, writer, from, to] {
            close(g).unwrap();
        }
    }
}
