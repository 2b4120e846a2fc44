//! Descriptors: duplicates, flags, limits.

use libc::*;

use crate::sys::{self, close, fd, fstat, open, read, seek, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("dup", dups),
    ("fcntl", fcntls),
    ("close_range", close_ranges),
    ("descriptor_limit", descriptor_limit),
    ("descriptors_after_fork", descriptors_after_fork),
];

fn dups(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    let twin = sys!(SYS_dup, f).unwrap();
    r.see("next", twin == f + 1);
    write(f, b"hello").unwrap();
    r.see("position is shared", seek(twin, 0, SEEK_CUR));
    sys!(SYS_fcntl, twin, F_SETFL, O_APPEND).unwrap();
    r.see("status flags are shared", sys!(SYS_fcntl, f, F_GETFL).map(|flags| flags & O_APPEND as usize != 0));
    sys!(SYS_fcntl, twin, F_SETFD, FD_CLOEXEC).unwrap();
    r.see("descriptor flags are not", sys!(SYS_fcntl, f, F_GETFD));
    r.see("dup2", sys!(SYS_dup2, f, 40));
    r.see("dup2 to itself", sys!(SYS_dup2, f, f).map(|it| it == f));
    r.see("dup2 of nothing", sys!(SYS_dup2, 90, 41));
    r.see("dup2 of nothing to itself", sys!(SYS_dup2, 90, 90));
    r.see("dup2 too high", sys!(SYS_dup2, f, 1 << 30));
    r.see("dup2 clears close-on-exec", (sys!(SYS_dup2, twin, 42), sys!(SYS_fcntl, 42, F_GETFD)));
    r.see("dup2 closes", {
        let (reader, writer) = sys::pipe(0);
        sys!(SYS_dup2, f, writer).unwrap();
        read(reader, 1)
    });
    r.see("dup3", (sys!(SYS_dup3, f, 43, O_CLOEXEC), sys!(SYS_fcntl, 43, F_GETFD)));
    r.see("dup3 to itself", sys!(SYS_dup3, f, f, 0));
    r.see("dup3 flags", sys!(SYS_dup3, f, 44, O_NONBLOCK));
    r.see("F_DUPFD", sys!(SYS_fcntl, f, F_DUPFD, 50));
    r.see("F_DUPFD above it", sys!(SYS_fcntl, f, F_DUPFD, 50));
    r.see("F_DUPFD_CLOEXEC", (sys!(SYS_fcntl, f, F_DUPFD_CLOEXEC, 60), sys!(SYS_fcntl, 60, F_GETFD)));
    r.see("F_DUPFD too high", sys!(SYS_fcntl, f, F_DUPFD, -1i64));
    r.see("close", (close(50), close(50)));
    r.see("the others stay open", fstat(51).is_ok());
}

fn fcntls(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT | O_CLOEXEC);
    r.see("close on exec", sys!(SYS_fcntl, f, F_GETFD));
    r.see("cleared", (sys!(SYS_fcntl, f, F_SETFD, 0), sys!(SYS_fcntl, f, F_GETFD)));
    // The access mode can not be changed, and flags of open(2) alone do not show.
    sys!(SYS_fcntl, f, F_SETFL, O_WRONLY | O_NONBLOCK | O_TRUNC | O_CREAT).unwrap();
    r.see("status", sys!(SYS_fcntl, f, F_GETFL).map(|flags| flags & !(O_LARGEFILE as usize | 0o100000)));
    r.see("unknown command", sys!(SYS_fcntl, f, 9999));
    r.see("bad descriptor", sys!(SYS_fcntl, 99, F_GETFL));
    let (reader, writer) = sys::pipe(O_NONBLOCK);
    r.see("pipe", (sys!(SYS_fcntl, reader, F_GETFL), sys!(SYS_fcntl, writer, F_GETFL)));
    r.see("pipe size", sys!(SYS_fcntl, writer, F_GETPIPE_SZ));
    write(writer, b"12345").unwrap();
    let mut waiting = 0i32;
    r.see("FIONREAD", (sys!(SYS_ioctl, reader, FIONREAD, &raw mut waiting), waiting));
    let off = 0i32;
    r.see("FIONBIO", sys!(SYS_ioctl, reader, FIONBIO, &raw const off));
    r.see("blocking now", sys!(SYS_fcntl, reader, F_GETFL));
    let mut size = [0u16; 4];
    r.see("terminal size of a file", sys!(SYS_ioctl, f, TIOCGWINSZ, size.as_mut_ptr()));
    r.see("terminal size of a pipe", sys!(SYS_ioctl, reader, TIOCGWINSZ, size.as_mut_ptr()));
    r.see("FIOCLEX", (sys!(SYS_ioctl, f, FIOCLEX), sys!(SYS_fcntl, f, F_GETFD)));
    let opath = fd("f", O_PATH);
    r.see("O_PATH", sys!(SYS_fcntl, opath, F_GETFL).map(|flags| flags & O_PATH as usize != 0));
    r.see("fsync", sys!(SYS_fsync, f));
    r.see("fsync of a pipe", sys!(SYS_fsync, reader));
}

fn close_ranges(r: &mut Report) {
    let null = fd("/dev/null", O_RDONLY);
    for n in 10..20 {
        sys!(SYS_dup2, null, n).unwrap();
    }
    r.see("close", sys!(SYS_close_range, 12, 14, 0));
    r.see("open", (10..20usize).filter(|&n| fstat(n).is_ok()).collect::<Vec<_>>());
    r.see("close on exec", sys!(SYS_close_range, 15, u32::MAX, CLOSE_RANGE_CLOEXEC));
    r.see("flag", (sys!(SYS_fcntl, 11, F_GETFD), sys!(SYS_fcntl, 16, F_GETFD)));
    r.see("backwards", sys!(SYS_close_range, 5, 4, 0));
    r.see("bad flags", sys!(SYS_close_range, 5, 6, 64));
}

fn descriptor_limit(r: &mut Report) {
    let limit = rlimit { rlim_cur: 20, rlim_max: 20 };
    r.see(
        "in a child",
        sys::ends(|| {
            sys!(SYS_setrlimit, RLIMIT_NOFILE, &raw const limit).unwrap();
            let mut last = 0;
            let errno = loop {
                match open("/dev/null", O_RDONLY) {
                    Ok(fd) => last = fd as i32,
                    Err(errno) => break errno,
                }
            };
            let dup = sys!(SYS_dup, 0).err();
            let dup2 = sys!(SYS_dup2, 0, 20).err();
            let mut found: rlimit = zeroed();
            sys!(SYS_getrlimit, RLIMIT_NOFILE, &raw mut found).unwrap();
            let holds = errno as i32 == EMFILE
                && dup.map(|it| it as i32) == Some(EMFILE)
                && dup2.map(|it| it as i32) == Some(EBADF)
                && found.rlim_max == 20;
            if holds { last } else { 100 }
        }),
    );
}

fn descriptors_after_fork(r: &mut Report) {
    std::fs::write("f", "0123456789").unwrap();
    let f = fd("f", O_RDONLY);
    r.see("child reads", sys::ends(|| i32::from(read(f, 4).as_deref() != Ok("0123"))));
    r.see("and the position is shared", read(f, 4));
    r.see("child closes", sys::ends(|| close(f).unwrap() as i32));
    r.see("and the parent's stays", read(f, 4));
    let before = open("/dev/null", O_RDONLY).unwrap();
    close(before).unwrap();
    sys::ends(|| fd("/dev/null", O_RDONLY) as i32);
    r.see("a child's open is its own", open("/dev/null", O_RDONLY).unwrap() == before);
}
