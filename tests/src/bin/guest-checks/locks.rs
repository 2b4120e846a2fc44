//! Locks of files: the record locks of fcntl(2) in both kinds, flock(2), and leases.

use libc::*;

use crate::sys::{self, Answer, Errno, close, fd, file, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("lock_ranges", ranges),
    ("lock_places", places),
    ("lock_answers", answers),
    ("lock_ends", ends_of_locks),
    ("lock_heirs", heirs),
    ("lock_deadlock", deadlock),
    ("lock_waits", waits),
    ("lock_descriptions", descriptions),
    ("lock_whole_files", whole_files),
    ("lock_on_things", things),
    ("leases", leases),
];

/// fcntl(2) with a lock, which it answers as the call left it.
fn record(f: usize, command: i32, kind: i32, start: i64, len: i64) -> Result<flock, Errno> {
    let mut lock: flock = zeroed();
    (lock.l_type, lock.l_whence) = (kind as i16, SEEK_SET as i16);
    (lock.l_start, lock.l_len) = (start, len);
    sys!(SYS_fcntl, f, command, &raw mut lock).map(|_| lock)
}

/// F_SETLK.
fn set(f: usize, kind: i32, start: i64, len: i64) -> Answer {
    record(f, F_SETLK, kind, start, len).map(|_| 0)
}

/// Runs `body` in a child and returns what it has to say.
fn told(body: impl FnOnce() -> String) -> String {
    let (reader, writer) = sys::pipe(0);
    let pid = sys::child(|| {
        let text = body();
        write(writer, text.as_bytes()).unwrap();
        0
    });
    close(writer).unwrap();
    let text = read(reader, 4096).unwrap();
    sys::wait(pid);
    close(reader).unwrap();
    text
}

/// The locks that stand in the way of another process, from the first byte on: kind, first byte, length.
fn seen_by_others(f: usize) -> String {
    told(|| {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let lock = record(f, F_GETLK, F_WRLCK, from, 0).unwrap();
            if lock.l_type == F_UNLCK as i16 {
                break format!("{all:?}");
            }
            all.push((if lock.l_type == F_RDLCK as i16 { 'r' } else { 'w' }, lock.l_start, lock.l_len));
            if lock.l_len == 0 {
                break format!("{all:?}");
            }
            from = lock.l_start + lock.l_len;
        }
    })
}

fn ranges(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    let steps = [
        ("one", F_WRLCK, 10, 10),
        ("behind it", F_WRLCK, 20, 5),
        ("before it", F_WRLCK, 5, 5),
        ("apart", F_WRLCK, 40, 2),
        ("across the gap", F_WRLCK, 20, 25),
        ("a read lock inside", F_RDLCK, 15, 5),
        ("another beside it", F_RDLCK, 20, 3),
        ("the same once more", F_RDLCK, 20, 3),
        ("back", F_WRLCK, 15, 8),
        ("a hole", F_UNLCK, 12, 4),
        ("its edge", F_UNLCK, 11, 1),
        ("nothing there", F_UNLCK, 200, 4),
        ("to the end", F_RDLCK, 100, 0),
        ("the end grows down", F_RDLCK, 90, 10),
        ("a hole in the end", F_UNLCK, 1000, 1),
        ("the last byte", F_WRLCK, i64::MAX, 1),
        ("all read", F_RDLCK, 0, 0),
        ("all but the first", F_UNLCK, 1, 0),
        ("none", F_UNLCK, 0, 0),
    ];
    for (name, kind, start, len) in steps {
        r.see(name, (set(f, kind, start, len), seen_by_others(f)));
    }
    for n in 0..20 {
        set(f, F_WRLCK, n * 2, 1).unwrap();
    }
    r.see("many", seen_by_others(f));
    r.see("closed up", (set(f, F_WRLCK, 1, 38), seen_by_others(f)));
}

fn places(r: &mut Report) {
    file("f", "0123456789");
    let f = fd("f", O_RDWR);
    let at = |whence: i32, start: i64, len: i64| {
        let mut lock: flock = zeroed();
        (lock.l_type, lock.l_whence) = (F_WRLCK as i16, whence as i16);
        (lock.l_start, lock.l_len) = (start, len);
        let answer = sys!(SYS_fcntl, f, F_SETLK, &raw mut lock);
        let seen = seen_by_others(f);
        set(f, F_UNLCK, 0, 0).unwrap();
        (answer, seen)
    };
    sys::seek(f, 4, SEEK_SET).unwrap();
    for (name, whence) in [("start", SEEK_SET), ("position", SEEK_CUR), ("end", SEEK_END), ("bad", 9)] {
        for start in [0, 3, -3, -20, i64::MAX, i64::MIN] {
            for len in [0, 2, -2, -20, i64::MAX, i64::MIN] {
                r.see(format!("{name} {start} {len}"), at(whence, start, len));
            }
        }
    }
}

fn answers(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    let me = sys::pid();
    set(f, F_RDLCK, 10, 10).unwrap();
    set(f, F_WRLCK, 30, 10).unwrap();
    let ask = |kind: i32, start: i64, len: i64| {
        told(|| {
            let found = record(f, F_GETLK, kind, start, len);
            let shown =
                found.map(|it| (it.l_type, it.l_whence, it.l_start, it.l_len, (it.l_pid == me) as i32));
            format!("{shown:?}")
        })
    };
    r.see("read beside read", ask(F_RDLCK, 0, 20));
    r.see("write over read", ask(F_WRLCK, 0, 20));
    r.see("both", ask(F_WRLCK, 0, 0));
    r.see("the second", ask(F_RDLCK, 0, 0));
    r.see("between", ask(F_WRLCK, 20, 10));
    r.see("unlock", ask(F_UNLCK, 0, 0));
    r.see("bad kind", ask(7, 0, 0));
    let mut lock: flock = zeroed();
    (lock.l_type, lock.l_whence, lock.l_start, lock.l_pid) = (F_WRLCK as i16, SEEK_CUR as i16, 50, 77);
    sys!(SYS_fcntl, f, F_GETLK, &raw mut lock).unwrap();
    r.see("a free place is left alone", (lock.l_type, lock.l_whence, lock.l_start, lock.l_len, lock.l_pid));
    r.see("bad address", sys!(SYS_fcntl, f, F_GETLK, 1));
    r.see("bad address to lock", sys!(SYS_fcntl, f, F_SETLK, 1));
    let reader = fd("f", O_RDONLY);
    let writer = fd("f", O_WRONLY);
    r.see("write lock of a reader", set(reader, F_WRLCK, 0, 1));
    r.see("read lock of a writer", set(writer, F_RDLCK, 0, 1));
    r.see("a reader asks for a write lock", record(reader, F_GETLK, F_WRLCK, 0, 1).map(|it| it.l_type));
    r.see("a reader unlocks", set(reader, F_UNLCK, 0, 0));
}

fn ends_of_locks(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    let lock = |r: &mut Report, name: &str| {
        set(f, F_WRLCK, 0, 1).unwrap();
        r.see(name, seen_by_others(f));
    };
    lock(r, "held");
    let twin = sys!(SYS_dup, f).unwrap();
    close(twin).unwrap();
    r.see("a duplicate was closed", seen_by_others(f));
    lock(r, "again");
    close(fd("f", O_RDONLY)).unwrap();
    r.see("another open file was closed", seen_by_others(f));
    lock(r, "held once more");
    close(fd("f", O_PATH)).unwrap();
    r.see("a path was closed", seen_by_others(f));
    std::fs::hard_link("f", "g").unwrap();
    lock(r, "by one name");
    close(fd("g", O_RDONLY)).unwrap();
    r.see("closed by the other", seen_by_others(f));
    lock(r, "before dup2");
    let other = fd("f", O_RDONLY);
    sys!(SYS_dup2, f, other).unwrap();
    r.see("dup2 over an open file", seen_by_others(f));
    lock(r, "before close_range");
    let other = fd("f", O_RDONLY);
    sys!(SYS_close_range, other, other, 0).unwrap();
    r.see("close_range", seen_by_others(f));
    lock(r, "before a child closes");
    sys::ends(|| close(f).unwrap() as i32);
    r.see("a child closed it", seen_by_others(f));
    std::fs::remove_file("f").unwrap();
    std::fs::remove_file("g").unwrap();
    r.see("without a name", seen_by_others(f));
}

fn heirs(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    set(f, F_WRLCK, 0, 10).unwrap();
    r.see("a child has none of them", sys::ends(|| set(f, F_WRLCK, 0, 1).unwrap_or(99) as i32));
    r.see("nor can it give them back", sys::ends(|| set(f, F_UNLCK, 0, 0).is_err() as i32));
    r.see("still held", seen_by_others(f));
    // A child locks, and ends: with exit, killed, or in a program that it becomes.
    for how in ["exit", "kill"] {
        let pid = sys::child(|| {
            set(f, F_WRLCK, 50, 10).unwrap();
            if how == "kill" {
                sys::kill(sys::pid(), SIGKILL).unwrap();
            }
            0
        });
        r.see(how, (sys::wait(pid), seen_by_others(f)));
    }
    let (reader, writer) = sys::pipe(0);
    let (gate, opener) = sys::pipe(0);
    let pid = sys::child(|| {
        set(f, F_WRLCK, 50, 10).unwrap();
        close(opener).unwrap();
        sys!(SYS_dup2, gate, 0).unwrap();
        sys!(SYS_dup2, writer, 1).unwrap();
        // It says that it has begun, and waits to be told to end.
        let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), c"echo; read x".as_ptr(), std::ptr::null()];
        let environment: [*const c_char; 1] = [std::ptr::null()];
        let _ = sys!(SYS_execve, c"/bin/sh".as_ptr(), arguments.as_ptr(), environment.as_ptr());
        1
    });
    read(reader, 1).unwrap();
    r.see("a program keeps them", seen_by_others(f));
    write(opener, b"\n").unwrap();
    r.see("until it ends", (sys::wait(pid), seen_by_others(f)));
}

/// A pair of pipes by which two processes take turns.
struct Turns {
    there: (usize, usize),
    back: (usize, usize),
}

impl Turns {
    fn new() -> Turns {
        Turns { there: sys::pipe(0), back: sys::pipe(0) }
    }

    fn tell_child(&self) {
        write(self.there.1, b"x").unwrap();
    }

    fn hear_child(&self) -> String {
        read(self.back.0, 100).unwrap()
    }

    fn hear_parent(&self) {
        read(self.there.0, 1).unwrap();
    }

    fn tell_parent(&self, text: &str) {
        write(self.back.1, text.as_bytes()).unwrap();
    }
}

/// Says whether a process sleeps.
fn sleeps(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// Starts a child that waits for a lock of byte `at`, and returns when it sleeps.
fn waiter(f: usize, command: i32, own: i64, at: i64) -> (i32, Turns) {
    let turns = Turns::new();
    let pid = sys::child(|| {
        record(f, F_SETLK, F_WRLCK, own, 1).unwrap();
        turns.tell_parent("ready");
        turns.hear_parent();
        let answer = record(f, command, F_WRLCK, at, 1).map(|_| 0);
        turns.tell_parent(&format!("{answer:?}"));
        turns.hear_parent();
        0
    });
    turns.hear_child();
    (pid, turns)
}

fn go_and_sleep(pid: i32, turns: &Turns) -> bool {
    turns.tell_child();
    // First it sleeps in read(2), perhaps: after some time it can only be the lock.
    sys::sleep_ms(30);
    sys::eventually(|| sleeps(pid))
}

fn deadlock(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    // The child has byte 1 and wants byte 0, which is the parent's.
    set(f, F_WRLCK, 0, 1).unwrap();
    let (pid, turns) = waiter(f, F_SETLKW, 1, 0);
    r.see("it waits", go_and_sleep(pid, &turns));
    r.see("two", record(f, F_SETLKW, F_WRLCK, 1, 1).map(|_| 0));
    r.see("without waiting", set(f, F_WRLCK, 1, 1));
    set(f, F_UNLCK, 0, 0).unwrap();
    r.see("the other", turns.hear_child());
    turns.tell_child();
    r.see("and ends", sys::wait(pid));
    // A ring of four.
    set(f, F_WRLCK, 0, 1).unwrap();
    let ring: Vec<(i32, Turns)> = (1..4).map(|own| waiter(f, F_SETLKW, own, own - 1)).collect();
    for (pid, turns) in &ring {
        r.see("waits", go_and_sleep(*pid, turns));
    }
    r.see("four", record(f, F_SETLKW, F_WRLCK, 3, 1).map(|_| 0));
    set(f, F_UNLCK, 0, 0).unwrap();
    for (pid, turns) in &ring {
        r.see("then", turns.hear_child());
        turns.tell_child();
        r.see("ends", sys::wait(*pid));
    }
    r.see("nothing is left", (set(f, F_WRLCK, 0, 0), seen_by_others(f)));
}

extern "C" fn ignore(_signal: i32) {}

fn on_alarm(flags: i32) {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = ignore as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: the handler does nothing.
    unsafe { sigaction(SIGUSR1, &raw const action, std::ptr::null_mut()) };
}

/// A child that waits for `lock` and says how that went.
fn waiting(flags: i32, lock: impl FnOnce() -> Answer) -> (i32, usize) {
    let (reader, writer) = sys::pipe(0);
    let (ready, tell) = sys::pipe(0);
    let pid = sys::child(|| {
        on_alarm(flags);
        write(tell, b"x").unwrap();
        let answer = lock();
        write(writer, format!("{answer:?}").as_bytes()).unwrap();
        0
    });
    read(ready, 1).unwrap();
    close(writer).unwrap();
    sys::sleep_ms(30);
    sys::eventually(|| sleeps(pid));
    (pid, reader)
}

/// Locks a file, and waits for that or not.
type Lock<'a> = &'a dyn Fn(usize, bool) -> Answer;

fn waits(r: &mut Report) {
    let f = fd("f", O_RDWR | O_CREAT);
    let kinds: [(&str, Lock<'_>); 3] = [
        ("record", &|f, wait| record(f, if wait { F_SETLKW } else { F_SETLK }, F_WRLCK, 0, 1).map(|_| 0)),
        ("description", &|f, wait| {
            record(f, if wait { F_OFD_SETLKW } else { F_OFD_SETLK }, F_WRLCK, 0, 1).map(|_| 0)
        }),
        ("whole", &|f, wait| sys!(SYS_flock, f, if wait { LOCK_EX } else { LOCK_EX | LOCK_NB })),
    ];
    for (name, lock) in kinds {
        lock(f, false).unwrap();
        let held_elsewhere = || {
            close(f).unwrap();
            lock(fd("f", O_RDWR), true)
        };
        let (pid, answer) = waiting(0, held_elsewhere);
        sys::kill(pid, SIGUSR1).unwrap();
        r.see(format!("{name}: interrupted"), (sys::wait(pid), read(answer, 100)));
        let (pid, answer) = waiting(SA_RESTART, held_elsewhere);
        sys::kill(pid, SIGUSR1).unwrap();
        sys::sleep_ms(20);
        // The lock goes with its descriptor.
        let other = fd("f", O_RDWR);
        sys!(SYS_dup2, other, f).unwrap();
        close(other).unwrap();
        r.see(format!("{name}: begun again"), (sys::wait(pid), read(answer, 100)));
        lock(f, false).unwrap();
        let (pid, answer) = waiting(0, held_elsewhere);
        sys::kill(pid, SIGKILL).unwrap();
        r.see(format!("{name}: killed"), (sys::wait(pid), read(answer, 100)));
        let other = fd("f", O_RDWR);
        sys!(SYS_dup2, other, f).unwrap();
        close(other).unwrap();
        r.see(format!("{name}: free"), lock(f, false));
        let other = fd("f", O_RDWR);
        sys!(SYS_dup2, other, f).unwrap();
        close(other).unwrap();
    }
}

fn descriptions(r: &mut Report) {
    let (one, other) = (fd("f", O_RDWR | O_CREAT), fd("f", O_RDWR));
    let ofd = |f: usize, kind: i32, start: i64, len: i64| record(f, F_OFD_SETLK, kind, start, len).map(|_| 0);
    let ask = |f: usize, command: i32| {
        record(f, command, F_WRLCK, 0, 0).map(|it| (it.l_type, it.l_whence, it.l_start, it.l_len, it.l_pid))
    };
    r.see("one", ofd(one, F_WRLCK, 10, 10));
    r.see("the other, in the same process", ofd(other, F_WRLCK, 15, 1));
    r.see("beside it", ofd(other, F_RDLCK, 20, 5));
    r.see("asked by the other", ask(other, F_OFD_GETLK));
    r.see("asked by itself", ask(one, F_OFD_GETLK));
    r.see("asked by the process", ask(one, F_GETLK));
    r.see("a lock of the process", set(one, F_WRLCK, 12, 1));
    let twin = sys!(SYS_dup, one).unwrap();
    r.see("its duplicate has it", ofd(twin, F_RDLCK, 12, 2));
    r.see("split", seen_by_others(one));
    close(twin).unwrap();
    r.see("a duplicate was closed", seen_by_others(one));
    r.see("a child shares it", sys::ends(|| ofd(one, F_WRLCK, 10, 10).is_err() as i32));
    r.see("what the child made", seen_by_others(one));
    r.see("a child gives it back", sys::ends(|| ofd(one, F_UNLCK, 10, 5).is_err() as i32));
    r.see("in part", seen_by_others(other));
    close(one).unwrap();
    r.see("closed", seen_by_others(other));
    let mut lock: flock = zeroed();
    (lock.l_type, lock.l_pid) = (F_WRLCK as i16, 5);
    for command in [F_OFD_SETLK, F_OFD_SETLKW, F_OFD_GETLK] {
        r.see(format!("with a process number {command}"), sys!(SYS_fcntl, other, command, &raw mut lock));
    }
    // Two that wait for each other are not found.
    ofd(other, F_UNLCK, 0, 0).unwrap();
    ofd(other, F_WRLCK, 0, 1).unwrap();
    let turns = Turns::new();
    let pid = sys::child(|| {
        let mine = fd("f", O_RDWR);
        ofd(mine, F_WRLCK, 1, 1).unwrap();
        turns.tell_parent("ready");
        let answer = record(mine, F_OFD_SETLKW, F_WRLCK, 0, 1).map(|_| 0);
        turns.tell_parent(&format!("{answer:?}"));
        0
    });
    turns.hear_child();
    sys::sleep_ms(20);
    ofd(other, F_UNLCK, 0, 1).unwrap();
    r.see("a waiter gets it", (turns.hear_child(), sys::wait(pid)));
}

fn whole_files(r: &mut Report) {
    let (one, other) = (fd("f", O_RDWR | O_CREAT), fd("f", O_RDONLY));
    let lock = |f: usize, how: i32| sys!(SYS_flock, f, how);
    for how in [0, LOCK_NB, LOCK_SH | LOCK_EX, LOCK_UN | LOCK_SH, LOCK_UN | LOCK_NB, 16, 32, 64, 128, -1] {
        r.see(format!("operation {how}"), lock(one, how));
    }
    r.see("a reader locks for writing", lock(other, LOCK_EX | LOCK_NB));
    r.see("no record lock", record(one, F_GETLK, F_WRLCK, 0, 0).map(|it| it.l_type));
    r.see("a record lock beside it", (set(one, F_WRLCK, 0, 0), set(one, F_UNLCK, 0, 0)));
    r.see("refused", lock(one, LOCK_SH | LOCK_NB));
    r.see("shared by both", (lock(other, LOCK_SH | LOCK_NB), lock(one, LOCK_SH | LOCK_NB)));
    r.see("no upgrade", lock(one, LOCK_EX | LOCK_NB));
    // A conversion that fails has given up what there was.
    r.see("the other's upgrade", lock(other, LOCK_EX | LOCK_NB));
    lock(other, LOCK_UN).unwrap();
    lock(one, LOCK_EX).unwrap();
    let path = fd("f", O_PATH);
    r.see("of a path", lock(path, LOCK_SH));
    r.see("a child gives it back", sys::ends(|| lock(one, LOCK_UN).is_err() as i32));
    r.see("so it is free", lock(other, LOCK_EX | LOCK_NB));
    lock(other, LOCK_UN).unwrap();
    let twin = sys!(SYS_dup, one).unwrap();
    lock(one, LOCK_EX).unwrap();
    close(one).unwrap();
    r.see("a duplicate keeps it", lock(other, LOCK_SH | LOCK_NB));
    close(twin).unwrap();
    r.see("the last close ends it", lock(other, LOCK_SH | LOCK_NB));
}

fn things(r: &mut Report) {
    std::fs::create_dir("d").unwrap();
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()).unwrap();
    let (reader, writer) = sys::pipe(0);
    let descriptors = [
        ("directory", fd("d", O_RDONLY | O_DIRECTORY)),
        ("read end", reader),
        ("write end", writer),
        ("socket", pair[0] as usize),
        ("null", fd("/dev/null", O_RDWR)),
        ("eventfd", sys!(SYS_eventfd2, 0, 0).unwrap()),
        ("epoll", sys!(SYS_epoll_create1, 0).unwrap()),
        ("memfd", sys!(SYS_memfd_create, c"x".as_ptr(), 0).unwrap()),
    ];
    for (name, f) in descriptors {
        r.see(format!("{name}: read"), set(f, F_RDLCK, 0, 1));
        r.see(format!("{name}: write"), set(f, F_WRLCK, 0, 1));
        r.see(format!("{name}: whole"), sys!(SYS_flock, f, LOCK_EX | LOCK_NB));
        r.see(format!("{name}: description"), record(f, F_OFD_SETLK, F_WRLCK, 5, 1).map(|_| 0));
        close(f).unwrap();
    }
    r.see("closed", (set(99, F_RDLCK, 0, 1), sys!(SYS_flock, 99, LOCK_SH)));
    r.see("closed, and more wrong", [0, 16, 32].map(|how| sys!(SYS_flock, 99, how)));
    r.see("proc", set(fd("/proc/self/comm", O_RDWR), F_WRLCK, 0, 1));
}

fn leases(r: &mut Report) {
    file("f", "x");
    let f = fd("f", O_RDONLY);
    r.see("none", sys!(SYS_fcntl, f, F_GETLEASE));
    r.see("bad kind", sys!(SYS_fcntl, f, F_SETLEASE, 9));
    r.see("given back without one", sys!(SYS_fcntl, f, F_SETLEASE, F_UNLCK));
    r.see("of a directory", sys!(SYS_fcntl, fd(".", O_RDONLY), F_SETLEASE, F_RDLCK));
    r.see("of a pipe", sys!(SYS_fcntl, sys::pipe(0).0, F_SETLEASE, F_RDLCK));
    r.see("of a path", sys!(SYS_fcntl, fd("f", O_PATH), F_SETLEASE, F_RDLCK));
    r.see("of a path, asked", sys!(SYS_fcntl, fd("f", O_PATH), F_GETLEASE));
}
