//! Pseudo-terminals: pairs, settings, the line discipline, sessions and job control.

use libc::*;

use crate::sys::{
    self, Answer, child, close, ends, eventually, fd, fstat, open, read, seek, sleep_ms, sys, wait, write,
    zeroed,
};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("pty_pair", pairs),
    ("pty_lines", lines),
    ("pty_editing", editing),
    ("pty_raw", raws),
    ("pty_output", outputs),
    ("pty_settings", settings),
    ("pty_sizes", sizes),
    ("pty_poll", polls),
    ("pty_hangup", hangups),
    ("pty_session", sessions),
    ("pty_keys", keys),
    ("pty_background", background),
    ("pty_leader_ends", leader_ends),
    ("pty_packet", packets),
    ("pty_bad_requests", bad_requests),
    ("pty_nodes", nodes),
];

/// A master that is unlocked, and its slave.
fn pair() -> (usize, usize) {
    let master = fd("/dev/ptmx", O_RDWR | O_NOCTTY);
    let slave = open_slave(master, O_RDWR | O_NOCTTY).unwrap();
    (master, slave)
}

fn ioctl(fd: usize, request: u64, argument: usize) -> Answer {
    sys!(SYS_ioctl, fd, request as usize, argument)
}

fn name(master: usize) -> String {
    let mut index = 0u32;
    ioctl(master, TIOCGPTN, &raw mut index as usize).unwrap();
    format!("/dev/pts/{index}")
}

fn unlock(master: usize) {
    let zero = 0i32;
    ioctl(master, TIOCSPTLCK, &raw const zero as usize).unwrap();
}

fn open_slave(master: usize, flags: i32) -> Answer {
    unlock(master);
    open(&name(master), flags)
}

/// The settings as the kernel has them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Settings {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    line: u8,
    characters: [u8; 19],
}

fn get(fd: usize) -> Settings {
    let mut settings: Settings = zeroed();
    ioctl(fd, TCGETS, &raw mut settings as usize).unwrap();
    settings
}

fn set(fd: usize, settings: &Settings) -> Answer {
    ioctl(fd, TCSETS, std::ptr::from_ref(settings) as usize)
}

fn change(fd: usize, how: impl FnOnce(&mut Settings)) {
    let mut settings = get(fd);
    how(&mut settings);
    set(fd, &settings).unwrap();
}

fn non_blocking(fd: usize) {
    sys!(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK).unwrap();
}

fn readable(fd: usize) -> i32 {
    let mut count = -1i32;
    ioctl(fd, FIONREAD, &raw mut count as usize).unwrap();
    count
}

fn pairs(r: &mut Report) {
    let master = fd("/dev/ptmx", O_RDWR | O_NOCTTY);
    let mut locked = 7i32;
    r.see("asked for the lock", (ioctl(master, TIOCGPTLCK, &raw mut locked as usize), locked));
    r.see("locked", open(&name(master), O_RDWR | O_NOCTTY));
    unlock(master);
    let slave = fd(&name(master), O_RDWR | O_NOCTTY);
    r.see("one way", (write(slave, b"to the master\n"), read(master, 100)));
    r.see("other way", (write(master, b"to the slave\n"), read(slave, 100), read(master, 100)));
    r.see("seek", (seek(master, 0, SEEK_CUR), seek(slave, 0, SEEK_SET)));
    r.see("pread", sys!(SYS_pread64, slave, [0u8; 4].as_mut_ptr(), 4usize, 0usize));
    r.see("no bytes", (write(slave, b""), sys!(SYS_read, slave, [0u8; 1].as_mut_ptr(), 0usize)));
    let peer = ioctl(master, TIOCGPTPEER, (O_RDWR | O_NOCTTY) as usize).unwrap();
    r.see("peer", (write(peer, b"again\n"), read(master, 100)));
    r.ensure("the peer is the slave", fstat(peer).unwrap().st_ino == fstat(slave).unwrap().st_ino);
    r.see("of the slave", ioctl(slave, TIOCGPTPEER, O_RDWR as usize));
    r.see("kind", fstat(slave).unwrap().st_mode & S_IFMT);
    let link = std::fs::read_link(format!("/proc/self/fd/{slave}")).unwrap();
    r.ensure("the link names it", link.to_str() == Some(&name(master)));
    let other = fd("/dev/ptmx", O_RDWR | O_NOCTTY);
    r.ensure("another number", name(other) != name(master));
    r.see(
        "tty without one",
        ends(|| {
            sys!(SYS_setsid).unwrap();
            open("/dev/tty", O_RDWR).err().map_or(0, |errno| errno.0)
        }),
    );
}

fn lines(r: &mut Report) {
    let (master, slave) = pair();
    non_blocking(slave);
    non_blocking(master);
    r.see("nothing", read(slave, 10));
    write(master, b"unfinished").unwrap();
    r.see("unfinished", (read(slave, 10), readable(slave)));
    write(master, b" line\r").unwrap();
    r.see("finished", (readable(slave), read(slave, 100)));
    r.see("echo", read(master, 100));
    write(master, b"one\ntwo\nthree").unwrap();
    r.see("there", readable(slave));
    r.see("part of a line", (read(slave, 2), read(slave, 100), read(slave, 100), read(slave, 100)));
    write(master, b"\x04").unwrap();
    r.see("end of file in a line", (read(slave, 100), read(slave, 100)));
    write(master, b"\x04").unwrap();
    r.see("end of file", (read(slave, 100), read(slave, 100)));
    read(master, 4096).unwrap();
    let long = vec![b'x'; 5000];
    let taken = sys!(SYS_write, master, long.as_ptr(), long.len());
    r.see("too long a line", taken);
    while read(master, 4096).is_ok() {}
    write(master, b"\n").unwrap();
    r.see("is cut", read(slave, 10_000).map(|line| (line.len(), line.ends_with('\n'))));
}

fn editing(r: &mut Report) {
    let (master, slave) = pair();
    non_blocking(master);
    non_blocking(slave);
    let mut ask = |what: &str, keys: &[u8]| {
        write(master, keys).unwrap();
        r.see(what, (read(slave, 1000), read(master, 4000)));
    };
    ask("erase", b"abx\x7fc\n");
    ask("erase nothing", b"\x7f\x7fa\n");
    ask("kill", b"gone\x15kept\n");
    ask("word", b"one two  \x17three\n");
    ask("words and signs", b"a.b-c d\x17\x17e\n");
    ask("literal", b"\x16\x03\x16\x04\x16\x16\n");
    ask("erase a control character", b"\x16\x01\x7fa\n");
    ask("erase a tab", b"a\tb\x7f\x7fc\n");
    ask("control characters", b"\x01\x1b\x02\n");
    ask("reprint", b"abc\x12d\n");
    ask("eight bits", "h\u{e4}\x7f\n".as_bytes());
    change(slave, |settings| settings.input |= IUTF8);
    ask("characters of several bytes", "h\u{e4}\u{20ac}\x7f\x7fi\n".as_bytes());
    change(slave, |settings| settings.local &= !ECHOE);
    ask("erase that is shown as it is", b"ab\x7fc\n");
    change(slave, |settings| settings.local &= !ECHOKE);
    ask("kill that is shown as it is", b"ab\x15c\n");
    change(slave, |settings| settings.local &= !(ECHO | ECHONL));
    ask("no echo", b"secret\x7f\n");
    change(slave, |settings| settings.local |= ECHONL);
    ask("only the end of the line", b"secret\n");
    change(slave, |settings| settings.local = (settings.local | ECHO) & !ECHOCTL);
    ask("control characters as they are", b"a\x01b\n");
    change(slave, |settings| settings.characters[VEOL] = b';');
    ask("another end of line", b"a;b\n");
    change(slave, |settings| settings.input = (settings.input & !ICRNL) | INLCR);
    ask("new line to carriage return", b"a\nb\x04");
    change(slave, |settings| settings.input |= IGNCR);
    ask("carriage returns ignored", b"a\rb\x04");
    change(slave, |settings| settings.input |= ISTRIP);
    ask("seven bits", b"\xe1\x04");
    change(slave, |settings| settings.characters[VERASE] = 0);
    ask("no erase key", b"a\x7f\x04");
}

fn raw(fd: usize, min: u8, time: u8) {
    change(fd, |settings| {
        settings.input = 0;
        settings.output = 0;
        settings.local = 0;
        settings.characters[VMIN] = min;
        settings.characters[VTIME] = time;
    });
}

fn raws(r: &mut Report) {
    let (master, slave) = pair();
    write(master, b"line\nhalf").unwrap();
    raw(slave, 1, 0);
    r.see("what was typed before", read(slave, 100));
    write(master, b"\x03\x04\r\n\x7f").unwrap();
    r.see("as it is", (readable(slave), read(slave, 100)));
    raw(slave, 0, 0);
    r.see("at once", read(slave, 10));
    write(master, b"ab").unwrap();
    r.see("what there is", (read(slave, 1), read(slave, 10)));
    raw(slave, 0, 1);
    r.see("after a while", read(slave, 10));
    write(master, b"c").unwrap();
    r.see("before that", read(slave, 10));
    raw(slave, 3, 0);
    let writer = child(|| {
        for byte in [b"x", b"y", b"z"] {
            write(master, byte).unwrap();
            sleep_ms(20);
        }
        0
    });
    r.see("three", read(slave, 10));
    r.see("writer", wait(writer));
    raw(slave, 3, 1);
    write(master, b"1").unwrap();
    r.see("until nothing more comes", read(slave, 10));
    write(master, b"ab").unwrap();
    change(slave, |settings| settings.local |= ICANON);
    non_blocking(slave);
    r.see("back to lines", read(slave, 10));
    raw(slave, 1, 0);
    non_blocking(master);
    let mut taken = 0;
    while let Ok(count) = write(master, &[b'x'; 100]) {
        taken += count;
    }
    r.ensure("a full input is bounded", (2000..20_000).contains(&taken));
    let mut given = 0;
    while let Ok(text) = read(slave, 1000) {
        given += text.len();
    }
    r.ensure("and all of it comes", given == taken);
}

fn outputs(r: &mut Report) {
    let (master, slave) = pair();
    non_blocking(master);
    let mut ask = |what: &str, flags: u32, text: &[u8]| {
        change(slave, |settings| settings.output = flags);
        write(slave, text).unwrap();
        r.see(what, read(master, 1000));
    };
    ask("as it comes", OPOST | ONLCR, b"a\nb\tc\r");
    ask("not at all", 0, b"a\nb\tc\r");
    ask("no new lines", OPOST, b"a\nb\r");
    ask("carriage return to new line", OPOST | OCRNL, b"a\rb\r\n");
    ask("none at column 0", OPOST | ONOCR, b"\n\r\ra\r\rb\r");
    ask("tabs", OPOST | ONLCR | TAB3, b"\n\tx\tabcdefg\ty\n12345678\tz\n");
    ask("upper case", OPOST | OLCUC, b"Hello\n");
    change(slave, |settings| settings.output = 0);
    non_blocking(slave);
    write(master, b"\x13").unwrap();
    r.see("held back", write(slave, b"x"));
    write(master, b"\x11").unwrap();
    r.see("goes on", (write(slave, b"x"), read(master, 10)));
    r.see("held back by a program", (ioctl(slave, TCXONC, TCOOFF as usize), write(slave, b"y")));
    r.see("and let go on", (ioctl(slave, TCXONC, TCOON as usize), write(slave, b"y"), read(master, 10)));
    r.see("stop key sent", (ioctl(slave, TCXONC, TCIOFF as usize), read(master, 10)));
    r.see("start key sent", (ioctl(slave, TCXONC, TCION as usize), read(master, 10)));
    r.see("neither", ioctl(slave, TCXONC, 9));
    let mut taken = 0;
    while let Ok(count) = write(slave, &[b'x'; 100]) {
        taken += count;
    }
    r.ensure("a full output is bounded", (2000..100_000).contains(&taken));
    let mut given = 0;
    while let Ok(text) = read(master, 1000) {
        given += text.len();
    }
    r.ensure("and all of it comes", given == taken);
    write(slave, b"lost").unwrap();
    write(master, b"lost\n").unwrap();
    r.see("drained", ioctl(slave, TCSBRK, 1));
    r.see("flush", (ioctl(slave, TCFLSH, TCIFLUSH as usize), read(slave, 10)));
    r.see("bad flush", ioctl(slave, TCFLSH, 9));
}

fn settings(r: &mut Report) {
    let (master, slave) = pair();
    let first = get(slave);
    r.see("at first", first);
    r.ensure("the master shows them too", get(master) == first);
    let mut wanted = first;
    wanted.local &= !ECHO;
    wanted.control = CS7 | PARENB;
    r.see("set", set(slave, &wanted));
    let now = get(slave);
    r.see("some stay as they must", now.control & (CSIZE | PARENB | CREAD));
    r.see("by the master", (set(master, &first), get(slave).local == first.local));
    let mut extended = [0u8; 44];
    r.see("TCGETS2", ioctl(slave, 0x802c_542a, extended.as_mut_ptr() as usize));
    r.see("the first part is the same", extended[..4] == first.input.to_ne_bytes());
    r.see("TCSETS2", ioctl(slave, 0x402c_542b, extended.as_ptr() as usize));
    write(master, b"typed\n").unwrap();
    non_blocking(slave);
    let mut settings = first;
    settings.local &= !ICANON;
    r.see("after what is there", ioctl(slave, TCSETSW, &raw const settings as usize));
    r.see("is still there", read(slave, 100));
    write(master, b"typed\n").unwrap();
    r.see("and without it", ioctl(slave, TCSETSF, &raw const settings as usize));
    r.see("is gone", read(slave, 100));
}

fn sizes(r: &mut Report) {
    let (master, slave) = pair();
    let mut size: winsize = zeroed();
    let ask = |fd: usize, size: &mut winsize| {
        let answer = ioctl(fd, TIOCGWINSZ, std::ptr::from_mut(size) as usize);
        (answer, size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel)
    };
    r.see("none", ask(slave, &mut size));
    let wanted = winsize { ws_row: 40, ws_col: 132, ws_xpixel: 1, ws_ypixel: 2 };
    r.see("set", ioctl(master, TIOCSWINSZ, &raw const wanted as usize));
    r.see("at the other side", ask(slave, &mut size));
    let got = ends(|| {
        sys!(SYS_setsid).unwrap();
        ioctl(slave, TIOCSCTTY, 0).unwrap();
        let mut set: sigset_t = zeroed();
        // SAFETY: the set is this function's own.
        unsafe {
            sigemptyset(&mut set);
            sigaddset(&mut set, SIGWINCH);
            sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
        }
        ioctl(slave, TIOCSWINSZ, &raw const wanted as usize).unwrap();
        let now = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        // SAFETY: the set and the time are live.
        let same = unsafe { sigtimedwait(&set, std::ptr::null_mut(), &now) };
        let other = winsize { ws_row: 41, ..wanted };
        ioctl(master, TIOCSWINSZ, &raw const other as usize).unwrap();
        // SAFETY: as above.
        let changed = unsafe { sigtimedwait(&set, std::ptr::null_mut(), &now) };
        i32::from(same == -1) + 2 * i32::from(changed == SIGWINCH)
    });
    r.see("told only of a change", got);
}

fn poll(fd: usize) -> (Answer, i16) {
    let mut one = pollfd { fd: fd as i32, events: POLLIN | POLLOUT | POLLPRI, revents: 0 };
    (sys!(SYS_poll, &raw mut one, 1usize, 0usize), one.revents)
}

fn polls(r: &mut Report) {
    let (master, slave) = pair();
    r.see("at first", (poll(master), poll(slave)));
    write(master, b"half").unwrap();
    r.see("half a line", (poll(master), poll(slave)));
    write(master, b"\n").unwrap();
    r.see("a line", (poll(master), poll(slave)));
    read(slave, 100).unwrap();
    read(master, 100).unwrap();
    r.see("read", (poll(master), poll(slave)));
    raw(slave, 2, 0);
    write(master, b"x").unwrap();
    r.see("less than enough", poll(slave));
    write(master, b"x").unwrap();
    r.see("enough", poll(slave));
    close(slave).unwrap();
    r.see("slave closed", poll(master));
}

fn hangups(r: &mut Report) {
    let (master, slave) = pair();
    write(slave, b"last words").unwrap();
    close(slave).unwrap();
    r.see("what was written, and the end", (read(master, 100), read(master, 100)));
    let slave = fd(&name(master), O_RDWR | O_NOCTTY);
    r.see("another slave", (write(slave, b"hello"), read(master, 100)));
    let path = name(master);
    write(master, b"unread\n").unwrap();
    close(master).unwrap();
    r.see("read", read(slave, 100));
    r.see("write", write(slave, b"x"));
    r.see("poll", poll(slave));
    let mut word = 0u32;
    r.see("settings", ioctl(slave, TCGETS, &raw mut word as usize));
    r.see("group", ioctl(slave, TIOCSPGRP, &raw mut word as usize));
    r.see("the name is gone", open(&path, O_RDWR | O_NOCTTY));
    let (master, slave) = pair();
    let status = ends(|| {
        sys!(SYS_setsid).unwrap();
        ioctl(slave, TIOCSCTTY, 0).unwrap();
        close(master).unwrap();
        sleep_ms(5000);
        0
    });
    // The parent has the master open as well.
    r.see("not hung up while somebody has the master", status);
    let leader = child(|| {
        sys!(SYS_setsid).unwrap();
        ioctl(slave, TIOCSCTTY, 0).unwrap();
        close(master).unwrap();
        loop {
            sleep_ms(1000);
        }
    });
    let mut session = 0i32;
    eventually(|| ioctl(master, TIOCGSID, &raw mut session as usize).is_ok());
    r.ensure("the session is the child's", session == leader);
    sleep_ms(20);
    close(master).unwrap();
    r.see("the leader", wait(leader));
}

fn sessions(r: &mut Report) {
    let (master, slave) = pair();
    let mut word = 0i32;
    let at = &raw mut word as usize;
    r.see("not ours", (ioctl(slave, TIOCGPGRP, at), ioctl(slave, TIOCGSID, at)));
    r.see("nobody's", (ioctl(master, TIOCGPGRP, at), word, ioctl(master, TIOCGSID, at)));
    let path = name(master);
    let status = ends(|| {
        let mut word = 0i32;
        let at = &raw mut word as usize;
        let mut score = 0;
        let mut check = |bit: i32, holds: bool| score |= if holds { 0 } else { 1 << bit };
        sys!(SYS_setsid).unwrap();
        check(0, open("/dev/tty", O_RDWR).is_err());
        let mine = open(&path, O_RDWR).unwrap();
        check(1, open("/dev/tty", O_RDWR).is_ok());
        check(2, ioctl(mine, TIOCGSID, at).is_ok() && word == sys::pid());
        check(3, ioctl(mine, TIOCGPGRP, at).is_ok() && word == sys::pid());
        check(4, ioctl(master, TIOCGPGRP, at).is_ok() && word == sys::pid());
        word = 1 << 20;
        check(5, ioctl(mine, TIOCSPGRP, at).is_err());
        check(6, ioctl(mine, TIOCSCTTY, 0).is_ok());
        check(7, ioctl(mine, TIOCNOTTY, 0).is_ok() || open("/dev/tty", O_RDWR).is_ok());
        score
    });
    r.see("a leader", status);
    let other = ends(|| {
        sys!(SYS_setsid).unwrap();
        let (_master, second) = pair();
        ioctl(second, TIOCSCTTY, 0).unwrap();
        // Has one already.
        ioctl(slave, TIOCSCTTY, 0).err().map_or(0, |errno| errno.0)
    });
    r.see("a second terminal", other);
    let no_leader = ends(|| {
        sys!(SYS_setsid).unwrap();
        let pid = child(|| ioctl(slave, TIOCSCTTY, 0).err().map_or(0, |errno| errno.0));
        println!("{}", wait(pid));
        0
    });
    r.see("no leader", no_leader);
}

/// Runs `body` in a new session whose controlling terminal is the slave.
fn in_session(slave: usize, body: impl FnOnce() -> i32) -> i32 {
    child(|| {
        sys!(SYS_setsid).unwrap();
        ioctl(slave, TIOCSCTTY, 0).unwrap();
        body()
    })
}

fn keys(r: &mut Report) {
    for (what, key) in [("interrupt", b"\x03"), ("quit", b"\x1c"), ("suspend", b"\x1a")] {
        let (master, slave) = pair();
        let (ready, go) = sys::pipe(0);
        let pid = in_session(slave, || {
            // In a group of its own that somebody watches, so that it can be stopped.
            let worker = child(|| {
                write(go, b"x").unwrap();
                sleep_ms(10_000);
                0
            });
            sys!(SYS_setpgid, worker, 0).unwrap();
            let group = worker;
            ends_of_foreground(slave, group);
            read(ready, 1).unwrap();
            write(go, b"y").unwrap();
            let mut status = 0;
            sys!(SYS_wait4, worker, &raw mut status, WUNTRACED, 0).unwrap();
            sys::kill(worker, SIGKILL).unwrap();
            println!("{what}: {}", sys::describe(status));
            0
        });
        sleep_ms(50);
        r.see(format!("{what} typed"), write(master, key));
        r.see(what, wait(pid));
        r.see(format!("{what} echo"), read(master, 100));
    }
    let (master, slave) = pair();
    change(slave, |settings| settings.local &= !ISIG);
    write(master, b"\x03\x1a\n").unwrap();
    r.see("no signals", read(slave, 100));
}

/// Makes a group the foreground one, whoever asks.
fn ends_of_foreground(slave: usize, group: i32) {
    // SAFETY: no handler is set, the signal is ignored.
    unsafe { signal(SIGTTOU, SIG_IGN) };
    ioctl(slave, TIOCSPGRP, &raw const group as usize).unwrap();
}

fn background(r: &mut Report) {
    let (master, slave) = pair();
    type Act = fn(usize) -> Answer;
    let acts: [(&str, Act); 4] = [
        ("read", |slave| sys!(SYS_read, slave, [0u8; 10].as_mut_ptr(), 10usize)),
        ("write", |slave| write(slave, b"x")),
        ("settings", |slave| set(slave, &get(slave))),
        ("flush", |slave| ioctl(slave, TCFLSH, 0)),
    ];
    for (what, act) in acts {
        for tostop in [false, true] {
            change(slave, |settings| {
                settings.local = if tostop { settings.local | TOSTOP } else { settings.local & !TOSTOP };
            });
            let pid = in_session(slave, || {
                let worker = child(|| {
                    sys!(SYS_setpgid, 0, 0).unwrap();
                    act(slave).err().map_or(0, |errno| errno.0)
                });
                let mut status = 0;
                sys!(SYS_wait4, worker, &raw mut status, WUNTRACED, 0).unwrap();
                println!("{what}, {tostop}: {}", sys::describe(status));
                sys::kill(worker, SIGKILL).unwrap();
                let ignoring = child(|| {
                    // SAFETY: no handler is set, the signals are ignored.
                    unsafe {
                        signal(SIGTTIN, SIG_IGN);
                        signal(SIGTTOU, SIG_IGN);
                    }
                    sys!(SYS_setpgid, 0, 0).unwrap();
                    act(slave).err().map_or(0, |errno| errno.0)
                });
                println!("{what}, {tostop}, ignored: {}", wait(ignoring));
                0
            });
            r.see(format!("{what} {tostop}"), wait(pid));
        }
    }
    non_blocking(master);
    let _ = read(master, 4096);
}

fn leader_ends(r: &mut Report) {
    let (_master, slave) = pair();
    let (reader, writer) = sys::pipe(0);
    let pid = in_session(slave, || {
        let worker = child(|| {
            write(writer, b"x").unwrap();
            loop {
                sleep_ms(1000);
            }
        });
        let _ = worker;
        read(reader, 1).unwrap();
        0
    });
    r.see("leader", wait(pid));
    close(writer).unwrap();
    // The worker got SIGHUP, so nobody has the pipe open any more.
    r.see("worker", read(reader, 1));
    let mut word = 0i32;
    r.see("nobody's again", ioctl(slave, TIOCGSID, &raw mut word as usize));
}

fn packets(r: &mut Report) {
    let (master, slave) = pair();
    let on = 1i32;
    r.see("on", ioctl(master, TIOCPKT, &raw const on as usize));
    let mut is_on = 0i32;
    r.see("asked", (ioctl(master, TIOCGPKT, &raw mut is_on as usize), is_on));
    write(slave, b"data").unwrap();
    r.see("data", read(master, 100));
    ioctl(slave, TCFLSH, 2).unwrap();
    r.see("flush", (poll(master), read(master, 100)));
    ioctl(slave, TCXONC, 0).unwrap();
    r.see("stop", read(master, 100));
    ioctl(slave, TCXONC, 1).unwrap();
    r.see("start", read(master, 100));
    non_blocking(master);
    r.see("nothing", read(master, 100));
    let off = 0i32;
    r.see("off", ioctl(master, TIOCPKT, &raw const off as usize));
    write(slave, b"data").unwrap();
    r.see("bare", read(master, 100));
}

fn bad_requests(r: &mut Report) {
    let (master, slave) = pair();
    let requests = [
        ("TCGETS", TCGETS),
        ("TCSETS", TCSETS),
        ("TIOCGWINSZ", TIOCGWINSZ),
        ("TIOCSWINSZ", TIOCSWINSZ),
        ("TIOCSPGRP", TIOCSPGRP),
        ("TIOCGPTN", TIOCGPTN),
        ("TIOCSPTLCK", TIOCSPTLCK),
        ("TIOCPKT", TIOCPKT),
        ("FIONREAD", FIONREAD),
        ("TIOCOUTQ", TIOCOUTQ),
        ("TIOCGETD", TIOCGETD),
        ("TIOCSETD", TIOCSETD),
        ("TIOCSTI", TIOCSTI),
        ("TIOCGEXCL", TIOCGEXCL),
    ];
    for (what, request) in requests {
        r.see(format!("{what} null"), (ioctl(master, request, 0), ioctl(slave, request, 0)));
        r.see(format!("{what} kernel"), ioctl(slave, request, 0xffff_8000_0000_0000));
        let file = fd("/dev/null", O_RDWR);
        r.see(format!("{what} of no terminal"), ioctl(file, request, 0));
        close(file).unwrap();
    }
    let line = 77i32;
    r.see("no such discipline", ioctl(slave, TIOCSETD, &raw const line as usize));
    r.see("no such request", (ioctl(slave, 0x54fe, 0), ioctl(master, 0x54fe, 0)));
    r.see("exclusive", ioctl(slave, TIOCEXCL, 0));
    let mut word = 0i32;
    r.see("asked", (ioctl(slave, TIOCGEXCL, &raw mut word as usize), word));
    r.see("not any more", ioctl(slave, TIOCNXCL, 0));
}

fn nodes(r: &mut Report) {
    let (master, slave) = pair();
    let path = name(master);
    let node = sys::stat(&path).unwrap();
    r.see("mode", node.st_mode);
    r.ensure("owner", node.st_uid == 0);
    r.ensure("number", node.st_rdev == fstat(slave).unwrap().st_rdev);
    r.see("chmod", sys!(SYS_chmod, sys::c(&path).as_ptr(), 0o600));
    r.see("changed", fstat(slave).unwrap().st_mode & 0o777);
    let listed =
        std::fs::read_dir("/dev/pts").unwrap().any(|entry| entry.unwrap().path().to_str() == Some(&path));
    r.ensure("listed", listed);
    r.see(
        "no such",
        (open("/dev/pts/4000", O_RDWR), open("/dev/pts/x", O_RDWR), open("/dev/pts/01", O_RDWR)),
    );
    r.see("make", open("/dev/pts/new", O_RDWR | O_CREAT));
    r.see("remove", sys!(SYS_unlink, sys::c(&path).as_ptr()));
    close(slave).unwrap();
    close(master).unwrap();
    r.see("gone", sys::stat(&path).map(|stat| stat.st_mode));
}
