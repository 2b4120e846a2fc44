//! Pseudo-terminals: pairs, requests and the line discipline (pty(7), ioctl_tty(2), termios(3)).

use libc::*;

use crate::sys::{self, Answer, Errno, close, open, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("terminal_pairs", pairs),
    ("terminal_nodes", nodes),
    ("terminal_settings", settings),
    ("terminal_settings_refused", settings_refused),
    ("terminal_settings_of_system_v", settings_of_system_v),
    ("terminal_settings_locked", settings_locked),
    ("terminal_size", sizes),
    ("terminal_lines", lines),
    ("terminal_editing", editing),
    ("terminal_keys_translated", translated_input),
    ("terminal_output_modes", output_modes),
    ("terminal_raw_reads", raw_reads),
    ("terminal_mode_change", mode_change),
    ("terminal_flow", flow),
    ("terminal_full", full),
    ("terminal_packets", packets),
    ("terminal_poll", polls),
    ("terminal_flush", flushes),
    ("terminal_exclusive", exclusive),
    ("terminal_counts", counts),
    ("terminal_requests_refused", requests_refused),
    ("terminal_slave_closed", slave_closed),
    ("terminal_master_closed", master_closed),
    ("terminal_seek", seeks),
];

/// Requests of ioctl_tty(2) that not every version of the library names.
const GET_NUMBER: u32 = 0x8004_5430;
const SET_LOCK: u32 = 0x4004_5431;
const GET_LOCK: u32 = 0x8004_5439;
const GET_PEER: u32 = 0x5441;
const GET_EXCLUSIVE: u32 = 0x8004_5440;
const SET_PACKET: u32 = 0x5420;
const GET_PACKET: u32 = 0x8004_5438;
const GET_SETTINGS: u32 = 0x5401;
const SET_SETTINGS: u32 = 0x5402;
const SET_SETTINGS_DRAIN: u32 = 0x5403;
const SET_SETTINGS_FLUSH: u32 = 0x5404;
const GET_SETTINGS2: u32 = 0x802c_542a;
const SET_SETTINGS2: u32 = 0x402c_542b;
const BAD: usize = 0x1000;

/// `struct termios` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub input: u32,
    pub output: u32,
    pub control: u32,
    pub local: u32,
    line: u8,
    pub keys: [u8; 19],
}

/// `struct termios2` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Settings2 {
    settings: Settings,
    speeds: [u32; 2],
}

/// A master and its slave.
pub struct Pair {
    pub master: usize,
    pub slave: usize,
}

/// Makes a pair; neither side waits, nor becomes anybody's controlling terminal.
pub fn pair() -> Pair {
    let master = master();
    let slave = open(&slave_path(master), O_RDWR | O_NOCTTY | O_NONBLOCK).expect("a slave can be opened");
    Pair { master, slave }
}

/// Opens a master whose slave is not locked.
pub fn master() -> usize {
    let master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK).expect("/dev/ptmx can be opened");
    put(master, SET_LOCK, 0i32).expect("a pair can be unlocked");
    master
}

/// The node of a master's slave.
pub fn slave_path(master: usize) -> String {
    format!("/dev/pts/{}", take::<i32>(master, GET_NUMBER).expect("a master has a number"))
}

/// ioctl(2) with a number or an address.
pub fn request(fd: usize, request: u32, argument: usize) -> Answer {
    sys!(SYS_ioctl, fd, request, argument)
}

/// ioctl(2) that is given a value.
pub fn put<T>(fd: usize, number: u32, value: T) -> Answer {
    request(fd, number, (&raw const value).addr())
}

/// ioctl(2) that answers a value.
pub fn take<T: Copy>(fd: usize, number: u32) -> Result<T, Errno> {
    let mut value: T = zeroed();
    request(fd, number, (&raw mut value).addr()).map(|_| value)
}

/// The settings of a terminal.
pub fn get(fd: usize) -> Settings {
    take(fd, GET_SETTINGS).expect("a terminal has settings")
}

/// Changes the settings of a terminal.
pub fn change(fd: usize, change: impl FnOnce(&mut Settings)) {
    let mut settings = get(fd);
    change(&mut settings);
    put(fd, SET_SETTINGS, settings).expect("settings can be changed");
}

fn make_raw(settings: &mut Settings) {
    (settings.input, settings.output, settings.local) = (0, 0, 0);
    (settings.keys[VMIN], settings.keys[VTIME]) = (1, 0);
}

/// Waits up to `ms` for poll(2) to see something.
fn wait_for(fd: usize, events: i16, ms: i32) -> i16 {
    let mut entry = pollfd { fd: fd as i32, events, revents: 0 };
    match sys!(SYS_poll, &raw mut entry, 1, ms) {
        Ok(_) => entry.revents,
        Err(errno) => panic!("poll: {errno}"),
    }
}

/// All that comes out of a descriptor that does not wait, until nothing has come for a while; and how it ends.
pub fn drain(fd: usize) -> (String, Option<Errno>) {
    let mut text = String::new();
    let mut patience_ms = 400;
    while wait_for(fd, POLLIN, patience_ms) != 0 {
        match read(fd, 4096) {
            Ok(part) if part.is_empty() => return (text, None),
            Ok(part) => text += &part,
            Err(Errno::EAGAIN) => break,
            Err(errno) => return (text, Some(errno)),
        }
        patience_ms = 80;
    }
    (text, None)
}

/// What reads give one after another, until one fails.
fn reads(fd: usize) -> Vec<Result<String, Errno>> {
    // What was typed reaches the other side a little later.
    wait_for(fd, POLLIN, 150);
    let mut all = Vec::new();
    for _ in 0..20 {
        let answer = read(fd, 200);
        let failed = answer.is_err();
        all.push(answer);
        if failed {
            break;
        }
    }
    all
}

/// Types keys into a fresh terminal with these settings; shows the echo and what is read.
fn try_keys(r: &mut Report, what: &str, set: impl FnOnce(&mut Settings), keys: &[u8]) {
    let Pair { master, slave } = pair();
    change(slave, set);
    r.see(format!("{what}: typed"), write(master, keys));
    r.see(format!("{what}: shown"), drain(master));
    r.see(format!("{what}: read"), reads(slave));
    close(slave).unwrap();
    close(master).unwrap();
}

fn pairs(r: &mut Report) {
    let master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK).unwrap();
    let path = slave_path(master);
    r.see("locked", take::<i32>(master, GET_LOCK));
    r.see("a locked slave", open(&path, O_RDWR | O_NOCTTY));
    r.see("a locked peer", request(master, GET_PEER, O_RDWR as usize | O_NOCTTY as usize));
    r.see("unlock", put(master, SET_LOCK, 0i32));
    r.see("unlocked", take::<i32>(master, GET_LOCK));
    let slave = open(&path, O_RDWR | O_NOCTTY | O_NONBLOCK).unwrap();
    r.see("to the slave", (write(master, b"in\n"), drain(master), drain(slave)));
    r.see("to the master", (write(slave, b"out\n"), drain(master)));
    let peer = request(master, GET_PEER, (O_RDWR | O_NOCTTY | O_NONBLOCK) as usize).unwrap();
    r.see("the peer is the same terminal", (write(peer, b"peer"), drain(master)));
    r.ensure("and has its number", sys::fstat(peer).unwrap().st_rdev == sys::fstat(slave).unwrap().st_rdev);
    r.see("flags of the peer", sys!(SYS_fcntl, peer, F_GETFL).map(|it| it as i32 & (O_ACCMODE | O_NONBLOCK)));
    r.see("peer of a slave", request(slave, GET_PEER, O_RDWR as usize).err());
    r.see("number of a slave", take::<i32>(slave, GET_NUMBER).err());
    r.see("lock of a slave", put(slave, SET_LOCK, 0i32).err());
    let second = open("/dev/ptmx", O_RDWR | O_NOCTTY).unwrap();
    r.ensure("another pair has another number", slave_path(second) != path);
    r.see("bad addresses", (request(master, GET_NUMBER, BAD), request(master, SET_LOCK, BAD)));
}

fn nodes(r: &mut Report) {
    let Pair { master, slave } = pair();
    let path = slave_path(master);
    let stat = sys::stat(&path).unwrap();
    r.see("type", stat.st_mode & S_IFMT);
    r.see("device", (major(stat.st_rdev), stat.st_nlink));
    r.ensure("owner", stat.st_uid == u32::try_from(sys!(SYS_geteuid).unwrap()).unwrap());
    r.ensure("the descriptor is the node", sys::fstat(slave).unwrap().st_ino == stat.st_ino);
    let ptmx = sys::stat("/dev/ptmx").unwrap();
    r.see("ptmx", (ptmx.st_mode & S_IFMT, major(ptmx.st_rdev), minor(ptmx.st_rdev)));
    let ptmx = sys::stat("/dev/pts/ptmx").unwrap();
    r.see("pts/ptmx", (ptmx.st_mode & S_IFMT, major(ptmx.st_rdev), minor(ptmx.st_rdev)));
    let named =
        |name: &str| std::fs::read_dir("/dev/pts").unwrap().any(|it| *it.unwrap().file_name() == *name);
    let number = path.rsplit('/').next().unwrap().to_owned();
    r.see("listed", named(&number));
    let link = |fd: usize| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    r.ensure("name of the slave", link(slave).as_os_str() == path.as_str());
    r.ensure("name of the master", link(master).ends_with("ptmx"));
    r.see("make a file", open("/dev/pts/x", O_CREAT | O_WRONLY));
    r.see("another way to write a number", open(&format!("/dev/pts/0{number}"), O_RDWR | O_NOCTTY));
    r.see("remove", sys!(SYS_unlink, sys::c(&path).as_ptr()));
    r.see("make a directory", sys!(SYS_mkdir, sys::c("/dev/pts/x").as_ptr(), 0o755));
    r.see("no such", open("/dev/pts/99999", O_RDWR));
    r.see("not a number", open("/dev/pts/no", O_RDWR));
    let mut magic: statfs64 = zeroed();
    r.see("statfs", sys!(SYS_statfs, sys::c("/dev/pts").as_ptr(), &raw mut magic).map(|_| magic.f_type));
    r.see("chmod", sys!(SYS_chmod, sys::c(&path).as_ptr(), 0o622));
    r.see("mode", sys::stat(&path).unwrap().st_mode & 0o7777);
    close(slave).unwrap();
    r.see("the slave is closed", (named(&number), sys::stat(&path).is_ok()));
    close(master).unwrap();
    r.see("the master is closed", (named(&number), sys::stat(&path).err()));
}

fn settings(r: &mut Report) {
    let Pair { master, slave } = pair();
    r.see("of a new slave", get(slave));
    r.see("of a new master", get(master));
    let mut wanted = get(slave);
    make_raw(&mut wanted);
    wanted.keys[VINTR] = 7;
    r.see("set", put(slave, SET_SETTINGS, wanted));
    r.see("after", get(slave));
    r.see("the master sees them", get(master) == get(slave));
    r.see("through the master", put(master, SET_SETTINGS_DRAIN, Settings { local: ECHO | ICANON, ..wanted }));
    r.see("the slave sees them", get(slave).local);
    let two: Settings2 = take(slave, GET_SETTINGS2).unwrap();
    r.see("with speeds", two);
    r.see("set speeds", put(slave, SET_SETTINGS2, Settings2 { speeds: [9600, 9600], ..two }));
    r.see("speeds", take::<Settings2>(slave, GET_SETTINGS2).map(|it| it.speeds));
    r.see(
        "all bits",
        put(slave, SET_SETTINGS, Settings { control: !0, input: !0, output: !0, local: !0, ..wanted }),
    );
    let all = get(slave);
    r.see("what is kept", (all.input, all.output, all.control, all.local));
    r.see(
        "no bits",
        put(slave, SET_SETTINGS, Settings { control: 0, input: 0, output: 0, local: 0, ..wanted }),
    );
    let none = get(slave);
    r.see("what remains", (none.input, none.output, none.control, none.local));
    let Pair { master, slave } = pair();
    write(master, b"lost\n").unwrap();
    drain(master);
    r.see("flush", put(slave, SET_SETTINGS_FLUSH, get(slave)));
    r.see("nothing is left", reads(slave));
    r.see("line discipline", take::<i32>(slave, 0x5424));
    r.see("set line discipline", (put(slave, 0x5423, 0i32), put(slave, 0x5423, 77i32)));
}

/// `struct termio`: bytes 18 and 19 are behind it.
type Termio = [u8; 20];

fn settings_of_system_v(r: &mut Report) {
    let Pair { master, slave } = pair();
    let mut old: Termio = [0xee; 20];
    r.see("get", (request(slave, TCGETA as u32, (&raw mut old).addr()), old));
    change(slave, |it| it.input |= IUTF8);
    let [mut iflag, mut keys] = [old; 2];
    (iflag[0], iflag[1]) = (0xff, 0x7f);
    keys[9 + VINTR] = 7;
    for (name, wanted) in [("flags", iflag), ("keys", keys), ("as it was", old)] {
        r.see(name, (put(slave, TCSETA as u32, wanted), get(slave), take::<Termio>(master, TCGETA as u32)));
    }
    write(master, b"lost\n").unwrap();
    drain(master);
    r.see("drain", put(slave, TCSETAW as u32, old));
    r.see("a line", reads(slave).len());
    write(master, b"lost\n").unwrap();
    drain(master);
    r.see("flush", (put(slave, TCSETAF as u32, old), reads(slave)));
    for number in [TCGETA, TCSETA, TCSETAW, TCSETAF] {
        r.see("bad address", (request(slave, number as u32, BAD), request(0, number as u32, BAD).is_err()));
    }
}

fn settings_locked(r: &mut Report) {
    let Pair { master, slave } = pair();
    let mut lock: Settings = take(slave, TIOCGLCKTRMIOS as u32).unwrap();
    r.see("at first", lock);
    lock.local = ECHO | ICANON;
    lock.keys[VINTR] = 1;
    r.see("lock", put(slave, TIOCSLCKTRMIOS as u32, lock));
    r.see("told", take::<Settings>(master, TIOCGLCKTRMIOS as u32) == Ok(lock));
    change(slave, |it| {
        it.local = 0;
        it.keys[VINTR] = 7;
        it.keys[VQUIT] = 8;
    });
    r.see("what is kept", get(slave));
    lock.local = 0;
    r.see("unlock", put(slave, TIOCSLCKTRMIOS as u32, lock));
    change(slave, |it| it.local = 0);
    r.see("then", get(slave));
    for number in [TIOCGLCKTRMIOS, TIOCSLCKTRMIOS] {
        r.see("bad address", request(slave, number as u32, BAD));
    }
    let refused = sys::child(|| {
        sys!(SYS_setresuid, 1000, 1000, 1000).unwrap();
        let answer = put(slave, TIOCSLCKTRMIOS as u32, lock);
        i32::from(answer != Err(Errno::EPERM))
    });
    r.see("a user", sys::wait(refused));
}

fn settings_refused(r: &mut Report) {
    let Pair { master, slave } = pair();
    let requests = [
        ("get", GET_SETTINGS),
        ("set", SET_SETTINGS),
        ("set and drain", SET_SETTINGS_DRAIN),
        ("set and flush", SET_SETTINGS_FLUSH),
        ("get 2", GET_SETTINGS2),
        ("set 2", SET_SETTINGS2),
        ("get the size", TIOCGWINSZ as u32),
        ("set the size", TIOCSWINSZ as u32),
        ("count", FIONREAD as u32),
        ("count output", TIOCOUTQ as u32),
        ("packets", SET_PACKET),
        ("get the exclusive mode", GET_EXCLUSIVE),
        ("get the packet mode", GET_PACKET),
        ("get the lock", GET_LOCK),
    ];
    let null = open("/dev/null", O_RDWR).unwrap();
    let (reader, _) = sys::pipe(0);
    let file = open("file", O_RDWR | O_CREAT).unwrap();
    for (name, number) in requests {
        r.see(format!("{name}: bad address"), (request(slave, number, BAD), request(master, number, BAD)));
        if number != FIONREAD as u32 {
            r.see(format!("{name}: no terminal"), (null, reader, file).map3(|fd| request(fd, number, BAD)));
        }
        r.see(format!("{name}: no descriptor"), request(999, number, BAD));
    }
}

/// Applies to each of three.
trait Map3 {
    fn map3(self, f: impl Fn(usize) -> Answer) -> [Answer; 3];
}

impl Map3 for (usize, usize, usize) {
    fn map3(self, f: impl Fn(usize) -> Answer) -> [Answer; 3] {
        [f(self.0), f(self.1), f(self.2)]
    }
}

fn sizes(r: &mut Report) {
    let Pair { master, slave } = pair();
    let size = |fd| take::<[u16; 4]>(fd, TIOCGWINSZ as u32);
    r.see("at first", (size(master), size(slave)));
    r.see("set", put(master, TIOCSWINSZ as u32, [24u16, 80, 3, 4]));
    r.see("after", (size(master), size(slave)));
    r.see("from the slave", put(slave, TIOCSWINSZ as u32, [65535u16, 0, 0, 0]));
    r.see("then", (size(master), size(slave)));
}

fn lines(r: &mut Report) {
    let Pair { master, slave } = pair();
    r.see("nothing", read(slave, 10));
    write(master, b"unfinished").unwrap();
    r.see("shown", drain(master));
    r.see("no line", (read(slave, 10), read(slave, 0)));
    write(master, b"\nsecond\nthird").unwrap();
    r.see("shown then", drain(master));
    r.see("a part", read(slave, 4));
    r.see("the rest", read(slave, 100));
    r.see("the second", read(slave, 7));
    r.see("none", read(slave, 7));
    write(master, b"\x04").unwrap();
    drain(master);
    r.see("ended by EOF", reads(slave));
    write(master, b"\x04").unwrap();
    r.see("end of file", reads(slave));
    write(master, b"a\x04b\n\x04c\n").unwrap();
    r.see("EOF between", (drain(master), reads(slave)));
    write(master, b"exact\x04").unwrap();
    drain(master);
    r.see("a read as long as the line", (read(slave, 5), read(slave, 5)));
    write(master, b"exact\n").unwrap();
    drain(master);
    r.see("all but its end", (read(slave, 5), read(slave, 5), read(slave, 5)));
    change(slave, |it| {
        it.keys[VEOL] = b';';
        it.keys[VEOL2] = b',';
    });
    write(master, b"x;y,z\n").unwrap();
    r.see("other ends", (drain(master), reads(slave)));
    change(slave, |it| it.local &= !IEXTEN);
    write(master, b"x;y,z\n").unwrap();
    r.see("without extensions", (drain(master), reads(slave)));
}

fn editing(r: &mut Report) {
    let none = |_: &mut Settings| {};
    try_keys(r, "erase", none, b"abc\x7f\x7fx\n");
    try_keys(r, "erase nothing", none, b"\x7f\x7fx\n");
    try_keys(r, "erase word", none, b"one two-three  \x17\x17x\n");
    try_keys(r, "erase word at punctuation", none, b"a_b9.,; \x17x\n");
    try_keys(r, "kill", none, b"gone\x15x\n");
    try_keys(r, "kill nothing", none, b"\x15x\n");
    try_keys(r, "kill without ECHOKE", |it| it.local &= !ECHOKE, b"gone\x15x\n");
    try_keys(r, "kill without ECHOK", |it| it.local &= !(ECHOKE | ECHOK), b"gone\x15x\n");
    try_keys(r, "kill without ECHOE", |it| it.local &= !ECHOE, b"gone\x15x\n");
    try_keys(r, "erase without ECHOE", |it| it.local &= !ECHOE, b"ab\x7fx\n");
    try_keys(r, "erase with ECHOPRT", |it| it.local |= ECHOPRT, b"abc\x7f\x7fx\n");
    try_keys(r, "kill with ECHOPRT", |it| it.local |= ECHOPRT, b"abc\x15x\n");
    try_keys(r, "literal", none, b"\x16\x7f\x16\x16\x16\nx\n");
    try_keys(r, "literal without ECHOCTL", |it| it.local &= !ECHOCTL, b"\x16\x7fx\n");
    try_keys(r, "reprint", none, b"ab\x12c\n");
    try_keys(r, "reprint without echo", |it| it.local &= !ECHO, b"ab\x12c\n");
    try_keys(r, "control characters", none, b"\x01\x02\x1b[A\x7f\x00z\x80\xff\n");
    try_keys(r, "erase a control character", none, b"a\x01\x7fb\n");
    try_keys(r, "erase it without ECHOCTL", |it| it.local &= !ECHOCTL, b"a\x01\x7fb\n");
    try_keys(r, "erase a tab", none, b"a\tb\x7f\x7fc\n");
    try_keys(r, "erase two tabs", none, b"\t\t\x7f\x7fc\n");
    try_keys(r, "erase a tab behind a control character", none, b"ab\x01\t\x7fc\n");
    try_keys(r, "erase a literal", none, b"\x16\x03\x7fx\n");
    try_keys(r, "UTF-8", |it| it.input |= IUTF8, "a\u{e4}\u{20ac}\u{1f600}\x7f\x7fx\n".as_bytes());
    try_keys(r, "UTF-8 word", |it| it.input |= IUTF8, "a \u{e4}\u{e4}\x17x\n".as_bytes());
    try_keys(r, "bytes", none, "a\u{e4}\x7fx\n".as_bytes());
    try_keys(r, "no echo", |it| it.local &= !ECHO, b"abc\x7f\n");
    try_keys(r, "echo of newlines", |it| it.local = it.local & !ECHO | ECHONL, b"abc\x7f\nx");
    try_keys(r, "no extensions", |it| it.local &= !IEXTEN, b"a b\x17\x16\x12\n");
    try_keys(r, "disabled keys", |it| it.keys = [0; 19], b"a\x00\x7f\x04\x15\n");
    try_keys(r, "EOF is not shown", none, b"ab\x04");
    try_keys(r, "EOF as another key", |it| it.keys[VEOF] = b'q', b"abqcq");
    try_keys(r, "erase after output", none, b"abc\x7f\x7f\x7f\x7f");
}

fn translated_input(r: &mut Report) {
    try_keys(r, "as it is", |it| it.input = 0, b"a\rb\n");
    try_keys(r, "ICRNL", |it| it.input = ICRNL, b"a\rb\n");
    try_keys(r, "INLCR", |it| it.input = INLCR, b"a\rb\nc\r\n");
    try_keys(r, "IGNCR", |it| it.input = IGNCR | ICRNL, b"a\rb\n");
    try_keys(r, "ISTRIP", |it| it.input = ISTRIP, b"\xe1\xe2\n");
    try_keys(r, "IUCLC", |it| it.input = 0x200, b"ABc\n");
    try_keys(r, "IUCLC without IEXTEN", |it| (it.input, it.local) = (0x200, it.local & !IEXTEN), b"ABc\n");
    try_keys(r, "INLCR and ICRNL", |it| it.input = INLCR | ICRNL, b"a\rb\nc");
    try_keys(r, "PARMRK", |it| it.input = PARMRK, b"a\xffb\n");
    try_keys(r, "PARMRK and ISTRIP", |it| it.input = PARMRK | ISTRIP, b"a\xffb\n");
    try_keys(r, "raw with ICRNL", |it| (it.input, it.local) = (ICRNL, ECHO), b"a\rb\n\x04\x7f");
    try_keys(r, "raw with PARMRK", |it| (it.input, it.local) = (PARMRK, 0), b"a\xffb");
    try_keys(r, "raw with signals off", |it| (it.input, it.local) = (0, ECHO), b"\x03\x1a\x1c\x11\x13x");
    try_keys(r, "raw with ECHOCTL", |it| (it.input, it.local) = (0, ECHO | ECHOCTL), b"\x01\t\n\x7f\xffx");
    try_keys(r, "raw with ECHONL", |it| (it.input, it.local) = (0, ECHONL), b"a\nb");
    try_keys(r, "raw with literal", |it| (it.input, it.local) = (0, ECHO | IEXTEN), b"\x16\x03x");
    try_keys(
        r,
        "raw with all echo",
        |it| (it.input, it.local) = (0, ECHO | ECHOE | ECHOK | ECHOKE),
        b"ab\x7f\x15",
    );
}

fn output_modes(r: &mut Report) {
    let cases: &[(&str, u32, &[u8])] = &[
        ("none", 0, b"a\nb\rc\td\x08e\n"),
        ("OPOST", OPOST, b"a\nb\rc\td\x08e\n"),
        ("ONLCR", OPOST | ONLCR, b"a\nb\r\n"),
        ("ONLCR without OPOST", ONLCR, b"a\nb\r\n"),
        ("OCRNL", OPOST | OCRNL, b"a\rb\n"),
        ("OCRNL and ONLRET", OPOST | OCRNL | ONLRET, b"a\rb\n\tc"),
        ("ONOCR", OPOST | ONOCR, b"\ra\r\rb\n\rc"),
        ("ONOCR and OCRNL", OPOST | ONOCR | OCRNL, b"\ra\r\rb"),
        ("ONLRET", OPOST | ONLRET | ONOCR, b"ab\n\rc\r"),
        ("tabs", OPOST | TAB3, b"\ta\tab\tabcdefg\tabcdefgh\t|\n\t|"),
        ("tabs after return", OPOST | TAB3, b"abc\r\t|"),
        ("tabs after back", OPOST | TAB3, b"abc\x08\x08\t|"),
        ("tabs after control", OPOST | TAB3, b"\x01\x02\x03\t|\x1b[m\t|"),
        ("tabs after newline", OPOST | TAB3, b"abc\n\t|"),
        ("tabs after newline with ONLCR", OPOST | ONLCR | TAB3, b"abc\n\t|"),
        ("upper case", OPOST | OLCUC, b"aBc\xe4\n"),
        ("fill", OPOST | OFILL, b"a\n\tb"),
        ("delays", OPOST | NLDLY | CRDLY | BSDLY | VTDLY | FFDLY, b"a\n\r\x08\x0b\x0cb"),
    ];
    for (name, flags, bytes) in cases {
        let Pair { master, slave } = pair();
        change(slave, |it| it.output = *flags);
        r.see(format!("{name}: written"), write(slave, bytes));
        r.see(format!("{name}: shown"), drain(master));
        close(slave).unwrap();
        close(master).unwrap();
    }
    let Pair { master, slave } = pair();
    change(slave, |it| (it.output, it.input) = (OPOST | ONLCR | TAB3, IUTF8));
    r.see("UTF-8: written", write(slave, "\u{e4}\u{20ac}\t|\n".as_bytes()));
    r.see("UTF-8: shown", drain(master));
    r.see("echo: typed", write(master, b"a\tb\n"));
    r.see("echo: shown", drain(master));
    r.see("an empty write", (write(slave, b""), write(master, b"")));
    r.see("bad addresses", (sys!(SYS_write, slave, BAD, 5), sys!(SYS_write, master, BAD, 5)));
    write(master, b"x\n").unwrap();
    drain(master);
    r.see("a read to a bad address", sys!(SYS_read, slave, BAD, 5));
}

fn raw_reads(r: &mut Report) {
    let Pair { master, slave } = pair();
    let patience = |min: u8, tenths: u8| {
        change(slave, |it| {
            make_raw(it);
            (it.keys[VMIN], it.keys[VTIME]) = (min, tenths);
        });
    };
    let type_in = |bytes: &[u8]| {
        write(master, bytes).unwrap();
        assert!(sys::eventually(|| take::<i32>(slave, FIONREAD as u32).unwrap() as usize >= bytes.len()));
    };
    patience(1, 0);
    r.see("nothing", read(slave, 5));
    type_in(b"abcdef");
    r.see("some", (read(slave, 2), read(slave, 100), read(slave, 100)));
    sys!(SYS_fcntl, slave, F_SETFL, O_RDWR).unwrap();
    patience(0, 0);
    r.see("never waits", read(slave, 5));
    type_in(b"xy");
    r.see("what there is", (read(slave, 5), read(slave, 5)));
    patience(0, 1);
    r.see("a tenth of a second", read(slave, 5));
    type_in(b"z");
    r.see("at once", read(slave, 5));
    patience(3, 0);
    let pid = sys::child(|| {
        for byte in [b"1", b"2", b"3", b"4"] {
            sys::sleep_ms(30);
            write(master, byte).unwrap();
        }
        0
    });
    r.see("three at least", read(slave, 10).map(|text| text.starts_with("123")));
    sys::wait(pid);
    patience(0, 0);
    wait_for(slave, POLLIN, 200);
    r.see("the fourth or nothing", read(slave, 10).is_ok());
    patience(10, 1);
    type_in(b"few");
    r.see("too few, and then none", read(slave, 20));
    patience(3, 0);
    type_in(b"ab");
    r.see("poll wants VMIN", wait_for(slave, POLLIN, 50));
    r.see("a short read is content", read(slave, 2));
    patience(3, 1);
    type_in(b"a");
    r.see("poll with both", wait_for(slave, POLLIN, 50));
}

fn mode_change(r: &mut Report) {
    let Pair { master, slave } = pair();
    write(master, b"one\ntwo").unwrap();
    drain(master);
    change(slave, |it| it.local &= !ICANON);
    r.see("lines to raw", reads(slave));
    write(master, b"raw").unwrap();
    drain(master);
    change(slave, |it| it.local |= ICANON);
    r.see("raw to lines", reads(slave));
    write(master, b"more\n").unwrap();
    drain(master);
    r.see("then", reads(slave));
    write(master, b"a\x04b\n").unwrap();
    drain(master);
    change(slave, |it| it.local &= !ICANON);
    r.see("with an end of file", reads(slave).len() > 1);
}

fn flow(r: &mut Report) {
    let Pair { master, slave } = pair();
    write(master, b"\x13").unwrap();
    r.see("stop is not shown", drain(master));
    r.see("held", write(slave, b"held"));
    r.see("poll", wait_for(slave, POLLOUT, 50));
    write(master, b"x\x11").unwrap();
    r.see("echo after", drain(master));
    r.see("poll then", wait_for(slave, POLLOUT, 50));
    r.see("goes on", (write(slave, b"on"), drain(master)));
    r.see("hold by request", request(slave, TCXONC as u32, TCOOFF as usize));
    r.see("held by request", write(slave, b"held"));
    r.see("on by request", request(slave, TCXONC as u32, TCOON as usize));
    r.see("goes on by request", (write(slave, b"on"), drain(master)));
    r.see("send stop", request(slave, TCXONC as u32, TCIOFF as usize));
    r.see("stop was sent", drain(master));
    r.see("send start", request(slave, TCXONC as u32, TCION as usize));
    r.see("start was sent", drain(master));
    r.see("bad", request(slave, TCXONC as u32, 4));
    change(slave, |it| it.input |= IXANY);
    write(master, b"\x13").unwrap();
    sys::sleep_ms(50);
    r.see("held again", write(slave, b"held"));
    write(master, b"k").unwrap();
    sys::sleep_ms(50);
    r.see("any key", (write(slave, b"on"), drain(master)));
    write(master, b"\x13").unwrap();
    sys::sleep_ms(50);
    change(slave, |it| it.input &= !IXON);
    r.see("IXON off", (write(slave, b"on"), drain(master)));
    r.see("break", (request(slave, TCSBRK as u32, 1), request(slave, TCSBRKP as u32, 1)));
}

fn full(r: &mut Report) {
    let Pair { master, slave } = pair();
    change(slave, |it| it.local &= !ECHO);
    let long = vec![b'x'; 3000];
    let mut fits = write(master, &long).unwrap();
    sys::sleep_ms(50);
    fits += write(master, &long).unwrap_or(0);
    sys::sleep_ms(50);
    r.see("a long line is taken", fits);
    write(master, b"\n").unwrap();
    sys::sleep_ms(50);
    r.see("and cut", read(slave, 8000).map(|text| (text.len(), text.ends_with('\n'))));
    let Pair { master, slave } = pair();
    change(slave, make_raw);
    let mut total = 0;
    loop {
        match write(master, &[b'y'; 1000]) {
            Ok(count) => total += count,
            Err(errno) => {
                sys::sleep_ms(50);
                if let Ok(count) = write(master, b"y") {
                    total += count;
                    continue;
                }
                r.see("raw input is full", errno);
                break;
            }
        }
    }
    r.ensure("after some thousand bytes", (4000..400_000).contains(&total));
    r.see("poll", wait_for(master, POLLOUT, 20));
    let (mut got, mut rest) = (0, 1);
    while rest > 0 {
        wait_for(slave, POLLIN, 200);
        rest = read(slave, 4000).map_or(0, |text| text.len());
        got += rest;
    }
    r.see("nothing is lost", got == total);
    r.see("poll then", wait_for(master, POLLOUT, 200));
    let mut written = 0;
    while let Ok(count) = write(slave, &[b'z'; 1000]) {
        written += count;
    }
    r.ensure("output is bounded", (4000..400_000).contains(&written));
    let shown = drain(master).0.len();
    r.see("no output is lost", shown == written);
    r.see("poll of the slave then", wait_for(slave, POLLOUT, 200));
}

fn packets(r: &mut Report) {
    let Pair { master, slave } = pair();
    r.see("off", take::<i32>(master, GET_PACKET));
    r.see("turn on", put(master, SET_PACKET, 1i32));
    r.see("on", take::<i32>(master, GET_PACKET));
    r.see("of a slave", put(slave, SET_PACKET, 1i32));
    r.see("nothing", drain(master));
    write(slave, b"data").unwrap();
    r.see("data", drain(master));
    write(slave, b"data").unwrap();
    wait_for(master, POLLIN, 400);
    r.see("a short read", (read(master, 1), read(master, 3), read(master, 9)));
    let told = |what: &str, r: &mut Report| {
        r.see(format!("{what}: poll"), wait_for(master, POLLIN | POLLPRI, 200));
        let text = read(master, 100).map(|text| text.into_bytes());
        r.see(format!("{what}: told"), text);
    };
    request(slave, TCFLSH as u32, TCIFLUSH as usize).unwrap();
    told("flush input", r);
    request(slave, TCFLSH as u32, TCOFLUSH as usize).unwrap();
    told("flush output", r);
    request(slave, TCFLSH as u32, TCIOFLUSH as usize).unwrap();
    told("flush both", r);
    request(slave, TCXONC as u32, TCOOFF as usize).unwrap();
    told("stop", r);
    request(slave, TCXONC as u32, TCOON as usize).unwrap();
    told("start", r);
    change(slave, |it| it.input &= !IXON);
    told("no more flow control", r);
    change(slave, |it| it.input |= IXON);
    told("flow control", r);
    change(slave, |it| it.local &= !ECHO);
    told("a change of echo", r);
    change(slave, |it| it.local |= EXTPROC);
    told("external processing", r);
    change(slave, |it| it.local &= !ECHOE);
    told("a change in external processing", r);
    r.see("turn off", (put(master, SET_PACKET, 0i32), take::<i32>(master, GET_PACKET)));
}

fn polls(r: &mut Report) {
    const ALL: i16 = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;
    let Pair { master, slave } = pair();
    r.see("at first", (wait_for(master, ALL, 0), wait_for(slave, ALL, 0)));
    write(master, b"part").unwrap();
    drain(master);
    r.see("a part of a line", wait_for(slave, ALL, 0));
    write(master, b"\n").unwrap();
    drain(master);
    r.see("a line", wait_for(slave, ALL, 0));
    write(slave, b"x").unwrap();
    wait_for(master, POLLIN, 200);
    r.see("output", wait_for(master, ALL, 0));
    let epoll = sys!(SYS_epoll_create1, 0).unwrap();
    let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 7 };
    r.see("epoll takes both", {
        let second = sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, slave, &raw mut event);
        (sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, master, &raw mut event), second)
    });
    drain(master);
    let mut events: [epoll_event; 4] = zeroed();
    let mut seen = || sys!(SYS_epoll_wait, epoll, events.as_mut_ptr(), 4, 200);
    while seen() != Ok(0) {}
    write(master, b"again\n").unwrap();
    r.ensure("epoll sees input", seen().is_ok_and(|count| count > 0));
    close(slave).unwrap();
    drain(master);
    r.see("the slave is closed", wait_for(master, ALL, 0));
    let Pair { master, slave } = pair();
    close(master).unwrap();
    r.see("the master is closed", wait_for(slave, ALL, 0));
}

fn flushes(r: &mut Report) {
    let Pair { master, slave } = pair();
    write(master, b"line\nrest").unwrap();
    drain(master);
    r.see("bad", (request(slave, TCFLSH as u32, 3), request(master, TCFLSH as u32, 3)));
    r.see("input", request(slave, TCFLSH as u32, TCIFLUSH as usize));
    r.see("nothing is left", reads(slave));
    write(master, b"new\n").unwrap();
    r.see("new", (drain(master), reads(slave)));
    write(slave, b"lost").unwrap();
    wait_for(master, POLLIN, 200);
    r.see("output", request(slave, TCFLSH as u32, TCOFLUSH as usize));
    r.see("nothing is shown", drain(master).1);
    write(slave, b"kept").unwrap();
    r.see("then", drain(master).0.ends_with("kept"));
}

fn exclusive(r: &mut Report) {
    let Pair { master, slave } = pair();
    let path = slave_path(master);
    r.see("not", take::<i32>(slave, GET_EXCLUSIVE));
    r.see("set", request(slave, TIOCEXCL as u32, 0));
    r.see("is", (take::<i32>(slave, GET_EXCLUSIVE), take::<i32>(master, GET_EXCLUSIVE)));
    if sys!(SYS_geteuid) != Ok(0) {
        return;
    }
    r.see("the superuser may", open(&path, O_RDWR | O_NOCTTY).is_ok());
    r.see(
        "others",
        sys::ends(|| {
            sys!(SYS_chmod, sys::c(&path).as_ptr(), 0o666).unwrap();
            sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
            open(&path, O_RDWR | O_NOCTTY).map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
    r.see("not any more", request(slave, TIOCNXCL as u32, 0));
    r.see(
        "others may",
        sys::ends(|| {
            sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
            open(&path, O_RDWR | O_NOCTTY).map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
}

fn counts(r: &mut Report) {
    let Pair { master, slave } = pair();
    let count = |fd: usize, number| take::<i32>(fd, number);
    let input = FIONREAD as u32;
    r.see("none", (count(slave, input), count(master, input), count(slave, TIOCOUTQ as u32)));
    write(master, b"abc").unwrap();
    wait_for(master, POLLIN, 200);
    r.see("a part of a line", (count(slave, input), count(master, input)));
    drain(master);
    write(master, b"\nde\n\x04f").unwrap();
    drain(master);
    r.see("lines", count(slave, input));
    read(slave, 2).unwrap();
    r.see("a part of it", count(slave, input));
    change(slave, |it| it.local &= !ICANON);
    r.see("raw", count(slave, input).is_ok_and(|count| count >= 5));
    r.see("output", {
        write(slave, b"12345").unwrap();
        sys::sleep_ms(50);
        (count(master, input), count(slave, TIOCOUTQ as u32))
    });
}

fn requests_refused(r: &mut Report) {
    let Pair { master, slave } = pair();
    for (name, number) in [
        ("group", TIOCGPGRP as u32),
        ("session", 0x5429),
        ("no such", 0x54ff),
        ("not a terminal's", 0x8910),
        ("modem", TIOCMGET as u32),
        ("bits", 0x541e),
    ] {
        let mut value = [0u32; 16];
        let at = (&raw mut value).addr();
        r.see(name, (request(slave, number, at), request(master, number, at)));
    }
    r.see("set the group", put(slave, TIOCSPGRP as u32, sys::pid()));
    r.see("give up", request(slave, TIOCNOTTY as u32, 0));
    r.see(
        "of no session's leader",
        sys::ends(|| request(slave, TIOCSCTTY as u32, 0).map_or_else(|errno| errno as i32, |_| 0)),
    );
}

fn slave_closed(r: &mut Report) {
    let m = master();
    r.see("never opened", (read(m, 5), wait_for(m, POLLIN | POLLOUT, 0)));
    r.see("write to nobody", write(m, b"early\n"));
    let path = slave_path(m);
    let slave = open(&path, O_RDWR | O_NOCTTY | O_NONBLOCK).unwrap();
    r.see("an early line", reads(slave).len());
    write(slave, b"last words").unwrap();
    close(slave).unwrap();
    r.see("what is left", drain(m));
    r.see("closed", read(m, 5));
    r.see("write then", write(m, b"x"));
    let slave = open(&path, O_RDWR | O_NOCTTY | O_NONBLOCK).unwrap();
    // The echo of what was typed meanwhile may come a little later.
    r.see("opened again", (wait_for(m, POLLIN, 2000), read(m, 5)));
    let again = open(&path, O_RDWR | O_NOCTTY | O_NONBLOCK).unwrap();
    close(slave).unwrap();
    r.see("one of two closed", read(m, 500).err().is_none_or(|it| it == Errno::EAGAIN));
    close(again).unwrap();
    r.see("both closed", drain(m).1);
    let Pair { master, slave } = pair();
    sys!(SYS_fcntl, master, F_SETFL, O_RDWR).unwrap();
    let pid = sys::child(|| {
        close(master).unwrap();
        sys::sleep_ms(50);
        0
    });
    close(slave).unwrap();
    r.see("a reader learns of it", read(master, 5));
    sys::wait(pid);
}

fn master_closed(r: &mut Report) {
    let Pair { master, slave } = pair();
    let path = slave_path(master);
    write(master, b"unread\n").unwrap();
    drain(master);
    close(master).unwrap();
    r.see("read", (read(slave, 20), read(slave, 20)));
    r.see("write", write(slave, b"x"));
    r.see("settings", take::<Settings>(slave, GET_SETTINGS).err());
    r.see("size", take::<[u16; 4]>(slave, TIOCGWINSZ as u32).err());
    r.see("count", take::<i32>(slave, FIONREAD as u32).err());
    r.see("group", take::<i32>(slave, TIOCGPGRP as u32).err());
    r.see("set the group", put(slave, TIOCSPGRP as u32, sys::pid()).err());
    r.see("open", open(&path, O_RDWR | O_NOCTTY));
    let Pair { master, slave } = pair();
    sys!(SYS_fcntl, slave, F_SETFL, O_RDWR).unwrap();
    let pid = sys::child(|| {
        close(slave).unwrap();
        sys::sleep_ms(50);
        0
    });
    close(master).unwrap();
    // Which of the two depends on whether the reader sleeps by then.
    r.ensure("a reader learns of it", matches!(read(slave, 5).as_deref(), Ok("") | Err(Errno::EIO)));
    sys::wait(pid);
}

fn seeks(r: &mut Report) {
    let Pair { master, slave } = pair();
    r.see("seek", (sys::seek(master, 0, SEEK_SET), sys::seek(slave, 0, SEEK_END)));
    r.see("pread", (sys::pread(slave, 1, 0), sys::pread(master, 1, 0)));
    r.see("truncate", (sys!(SYS_ftruncate, slave, 0), sys!(SYS_ftruncate, master, 0)));
    r.see("sync", (sys!(SYS_fsync, slave), sys!(SYS_fsync, master)));
    r.see("only to read", {
        let reader = open(&slave_path(master), O_RDONLY | O_NOCTTY | O_NONBLOCK).unwrap();
        (write(reader, b"x"), read(reader, 1))
    });
    r.see("only to write", {
        let writer = open(&slave_path(master), O_WRONLY | O_NOCTTY | O_NONBLOCK).unwrap();
        (write(writer, b"x"), read(writer, 1), drain(master))
    });
}
