//! Controlling terminals: sessions, foreground groups, the signals of keys, background access, hang-up.

use libc::*;

use crate::sys::{self, Answer, Errno, close, open, read, sys, write, zeroed};
use crate::terminals::{Pair, change, drain, master, pair, put, request, slave_path, take};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("controlling_terminal", acquire),
    ("controlling_terminal_request", acquire_by_request),
    ("controlling_terminal_given_up", give_up),
    ("controlling_terminal_in_proc", in_proc),
    ("terminal_keys", keys),
    ("terminal_keys_without_flush", keys_without_flush),
    ("terminal_size_signal", size_signal),
    ("terminal_foreground", foreground),
    ("terminal_background_reads", background_reads),
    ("terminal_background_writes", background_writes),
    ("terminal_background_changes", background_changes),
    ("terminal_stop_and_continue", stop_and_continue),
    ("terminal_hang_up", hang_up),
    ("orphaned_groups", orphaned_groups),
    ("terminal_leader_ends", leader_ends),
    ("terminal_simulated_input", simulated_input),
];

const GET_SESSION: u32 = 0x5429;
const GET_GROUP: u32 = TIOCGPGRP as u32;
const SET_GROUP: u32 = TIOCSPGRP as u32;
const SET_CONTROLLING: u32 = TIOCSCTTY as u32;
const GIVE_UP: u32 = TIOCNOTTY as u32;

/// Runs `body` as the leader of a session without a terminal, and shows how it ends.
fn leader(r: &mut Report, body: impl FnOnce(&mut Report)) {
    let pid = sys::child(|| {
        sys!(SYS_setsid).expect("a child can lead a session");
        body(r);
        i32::from(r.has_failed())
    });
    let end = sys::wait(pid);
    r.see("the leader", end);
}

/// Makes a pair the controlling terminal of the caller, a leader.
fn controlling() -> Pair {
    let pair = pair();
    request(pair.slave, SET_CONTROLLING, 0).expect("a leader can have a terminal");
    pair
}

fn has_terminal() -> Result<(), Errno> {
    open("/dev/tty", O_RDWR).and_then(close).map(|_| ())
}

fn block(signals: &[i32]) -> sigset_t {
    let mut set: sigset_t = zeroed();
    // SAFETY: the set lives until the calls return.
    unsafe {
        sigemptyset(&raw mut set);
        for signal in signals {
            sigaddset(&raw mut set, *signal);
        }
        sigprocmask(SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    set
}

fn ignore(signal: i32) {
    // SAFETY: no handler.
    unsafe { libc::signal(signal, SIG_IGN) };
}

/// The blocked signals that arrive until none has for a while, in ascending order.
fn arrived(set: &sigset_t) -> Vec<i32> {
    let mut all = Vec::new();
    let mut patience = timespec { tv_sec: 0, tv_nsec: 400_000_000 };
    let next = |patience: &timespec| {
        // SAFETY: set and time live until the call returns.
        unsafe { sigtimedwait(&raw const *set, std::ptr::null_mut(), &raw const *patience) }
    };
    while let signal @ 1.. = next(&patience) {
        all.push(signal);
        patience.tv_nsec = 50_000_000;
    }
    all.sort_unstable();
    all
}

/// Runs `body` in a child that is a process group of its own, in the background unless it is brought forward.
fn group(body: impl FnOnce() -> i32) -> i32 {
    let pid = sys::child(|| {
        sys!(SYS_setpgid, 0, 0).unwrap();
        body()
    });
    let _ = sys!(SYS_setpgid, pid, pid);
    pid
}

/// How a child ends, stops or goes on.
fn watch(pid: i32) -> String {
    let mut status = 0i32;
    match sys!(SYS_wait4, pid, &raw mut status, WUNTRACED | WCONTINUED, 0) {
        Ok(_) => sys::describe(status),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Watches what a child does, and ends it.
fn watch_and_kill(pid: i32) -> String {
    let seen = watch(pid);
    let _ = sys::kill(pid, SIGKILL);
    let _ = sys::wait(pid);
    seen
}

fn code(answer: Answer) -> i32 {
    answer.map_or_else(|errno| errno as i32, |_| 0)
}

/// Takes the terminal to another group, from wherever the caller is.
fn bring_forward(terminal: usize, group: i32) -> Answer {
    block(&[SIGTTOU]);
    put(terminal, SET_GROUP, group)
}

fn acquire(r: &mut Report) {
    leader(r, |r| {
        r.see("at first", has_terminal());
        let master = master();
        let path = slave_path(master);
        let slave = open(&path, O_RDWR | O_NOCTTY).unwrap();
        r.see("with O_NOCTTY", (has_terminal(), take::<i32>(slave, GET_GROUP)));
        r.see("the master sees none", (take::<i32>(master, GET_GROUP), take::<i32>(master, GET_SESSION)));
        r.see(
            "a child takes none",
            sys::ends(|| {
                open(&path, O_RDWR).unwrap();
                i32::from(has_terminal().is_ok())
            }),
        );
        let again = open(&path, O_RDWR).unwrap();
        r.see("without", has_terminal());
        let own = |it: Result<i32, Errno>| it.map(|pid| pid == sys::pid());
        r.see("group and session", (own(take(slave, GET_GROUP)), own(take(again, GET_SESSION))));
        r.see("from the master", (own(take(master, GET_GROUP)), own(take(master, GET_SESSION))));
        let tty = open("/dev/tty", O_RDWR | O_NONBLOCK).unwrap();
        r.see("through /dev/tty", (write(tty, b"hello"), drain(master)));
        r.see("group through /dev/tty", own(take(tty, GET_GROUP)));
        r.see("a child has it too", sys::ends(|| i32::from(has_terminal().is_err())));
        let second = pair();
        open(&slave_path(second.master), O_RDWR).unwrap();
        r.see("a second is not taken", take::<i32>(second.slave, GET_GROUP));
        r.see("nor on request", request(second.slave, SET_CONTROLLING, 0));
        r.see("nor by force", request(second.slave, SET_CONTROLLING, 1));
        r.see(
            "a new session has none",
            sys::ends(|| {
                sys!(SYS_setsid).unwrap();
                i32::from(has_terminal() == Err(Errno::ENXIO))
            }),
        );
        r.see(
            "opening masters takes none",
            sys::ends(|| {
                sys!(SYS_setsid).unwrap();
                open("/dev/ptmx", O_RDWR).unwrap();
                i32::from(has_terminal() == Err(Errno::ENXIO))
            }),
        );
    });
}

fn acquire_by_request(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = pair();
        r.see("no leader", sys::ends(|| code(request(slave, SET_CONTROLLING, 0))));
        r.see("leader", request(slave, SET_CONTROLLING, 0));
        r.see("twice", request(slave, SET_CONTROLLING, 0));
        r.see("has it", has_terminal());
        r.see(
            "of another session",
            sys::ends(|| {
                sys!(SYS_setsid).unwrap();
                code(request(slave, SET_CONTROLLING, 0))
            }),
        );
        r.see(
            "opened by another session",
            sys::ends(|| {
                sys!(SYS_setsid).unwrap();
                open(&slave_path(master), O_RDWR).unwrap();
                i32::from(has_terminal().is_ok())
            }),
        );
        r.see(
            "group for another session",
            sys::ends(|| {
                sys!(SYS_setsid).unwrap();
                code(take::<i32>(slave, GET_GROUP).map(|_| 0))
            }),
        );
        let null = open("/dev/null", O_RDWR).unwrap();
        r.see("no terminal", request(null, SET_CONTROLLING, 0));
        r.see(
            "the master",
            sys::ends(|| {
                sys!(SYS_setsid).unwrap();
                let pair = pair();
                let answer = code(request(pair.master, SET_CONTROLLING, 0));
                i32::from(has_terminal().is_ok()) * 200 + answer
            }),
        );
        if sys!(SYS_geteuid) == Ok(0) {
            r.see(
                "stolen",
                sys::ends(|| {
                    sys!(SYS_setsid).unwrap();
                    request(slave, SET_CONTROLLING, 1).unwrap();
                    i32::from(has_terminal().is_err())
                }),
            );
            r.see("gone", has_terminal());
        }
    });
}

fn give_up(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        let other = pair();
        r.see("another terminal", request(other.slave, GIVE_UP, 0));
        let set = block(&[SIGHUP, SIGCONT]);
        r.see("the leader", request(slave, GIVE_UP, 0));
        r.see("signals", arrived(&set));
        r.see("gone", (has_terminal(), take::<i32>(slave, GET_GROUP)));
        r.see("it works on", (write(slave, b"still"), drain(master)));
        r.see("twice", request(slave, GIVE_UP, 0));
        r.see("taken again", (request(slave, SET_CONTROLLING, 0), has_terminal()));
    });
}

fn in_proc(r: &mut Report) {
    // Fields behind the name: state, parent, group, session, terminal, foreground group.
    let fields = || -> Vec<i64> {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap();
        let rest = text.rsplit(')').next().unwrap().to_owned();
        rest.split_whitespace().skip(1).take(5).map(|it| it.parse().unwrap()).collect()
    };
    leader(r, |r| {
        let none = fields();
        r.see("no terminal", (none[3], none[4]));
        let Pair { slave, .. } = controlling();
        let some = fields();
        let device = sys::fstat(slave).unwrap().st_rdev;
        r.ensure("the terminal", some[3] == i64::try_from(device).unwrap());
        r.ensure("the foreground group", some[4] == i64::from(sys::pid()));
        let child = group(|| 0);
        bring_forward(slave, child).unwrap();
        r.ensure("another group", fields()[4] == i64::from(child));
        sys::wait(child);
    });
}

fn keys(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        let set = block(&[SIGINT, SIGQUIT, SIGTSTP]);
        for (name, key) in [("INTR", b"\x03"), ("QUIT", b"\x1c"), ("SUSP", b"\x1a")] {
            write(master, b"lost").unwrap();
            drain(master);
            write(master, key).unwrap();
            r.see(name, (arrived(&set), drain(master)));
            write(master, b"kept\n").unwrap();
            r.see(format!("input after {name}"), (drain(master), read(slave, 100)));
        }
        write(master, b"line\n\x03").unwrap();
        r.see("lines are lost", (arrived(&set), drain(master).1, read(slave, 100)));
        change(slave, |it| it.keys[VINTR] = b'i');
        write(master, b"\x03i").unwrap();
        r.see("another key", (arrived(&set), drain(master).0.ends_with('i')));
        change(slave, |it| it.local &= !ECHO);
        write(master, b"i").unwrap();
        r.see("without echo", (arrived(&set), drain(master)));
        change(slave, |it| it.local &= !ISIG);
        write(master, b"i\x1c\n").unwrap();
        r.see("without ISIG", (arrived(&set), read(slave, 100)));
        change(slave, |it| {
            it.local = ISIG;
            it.keys[VMIN] = 1;
        });
        write(master, b"xi\x1ay").unwrap();
        r.see("raw with ISIG", (arrived(&set), read(slave, 100)));
        change(slave, |it| it.local |= ICANON | ECHO);
        write(master, b"\x13\x1c").unwrap();
        r.see(
            "a signal lets output go on",
            (arrived(&set), write(slave, b"go"), drain(master).0.ends_with("go")),
        );
    });
}

fn keys_without_flush(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        change(slave, |it| it.local |= NOFLSH);
        let set = block(&[SIGINT]);
        write(master, b"one\ntw\x03o\n").unwrap();
        r.see("shown", (arrived(&set), drain(master)));
        r.see("read", (read(slave, 100), read(slave, 100)));
        r.see("no session", {
            let other = pair();
            write(other.master, b"ab\x03c\n").unwrap();
            (drain(other.master), read(other.slave, 100))
        });
    });
}

fn size_signal(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        let set = block(&[SIGWINCH]);
        let size = TIOCSWINSZ as u32;
        put(master, size, [10u16, 20, 0, 0]).unwrap();
        r.see("a new size", arrived(&set));
        put(master, size, [10u16, 20, 0, 0]).unwrap();
        r.see("the same", arrived(&set));
        put(slave, size, [11u16, 20, 0, 0]).unwrap();
        r.see("from the slave", arrived(&set));
        put(slave, size, [11u16, 20, 1, 0]).unwrap();
        r.see("pixels", arrived(&set));
        let child = group(|| {
            sys::sleep_ms(10_000);
            0
        });
        bring_forward(slave, child).unwrap();
        put(master, size, [12u16, 20, 0, 0]).unwrap();
        r.see("for the foreground only", arrived(&set));
        sys::kill(child, SIGKILL).unwrap();
        sys::wait(child);
    });
}

fn foreground(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        let child = group(|| {
            sys::sleep_ms(10_000);
            0
        });
        r.see("set", put(slave, SET_GROUP, child));
        r.see("is", (take(slave, GET_GROUP) == Ok(child), take(master, GET_GROUP) == Ok(child)));
        r.see("back", bring_forward(slave, sys::pid()));
        r.see("negative", put(slave, SET_GROUP, -5i32));
        r.see("zero", put(slave, SET_GROUP, 0i32));
        r.see("none such", put(slave, SET_GROUP, 4_194_000i32));
        r.see("another session's", put(slave, SET_GROUP, sys!(SYS_getppid).unwrap() as i32));
        r.see("bad addresses", (request(slave, SET_GROUP, 0x1000), request(slave, GET_GROUP, 0x1000)));
        r.see("through the master", put(master, SET_GROUP, child));
        r.see("then", take(slave, GET_GROUP) == Ok(child));
        write(master, b"\x03").unwrap();
        r.see("a key ends it", sys::wait(child));
        r.see("a group that is gone", take(slave, GET_GROUP) == Ok(child));
    });
}

fn background_reads(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        sys!(SYS_fcntl, slave, F_SETFL, O_RDWR).unwrap();
        write(master, b"line\n").unwrap();
        drain(master);
        r.see("stops", watch_and_kill(group(|| code(read(slave, 1).map(|_| 0)))));
        r.see(
            "ignored",
            watch_and_kill(group(|| {
                ignore(SIGTTIN);
                code(read(slave, 1).map(|_| 0))
            })),
        );
        r.see(
            "blocked",
            watch_and_kill(group(|| {
                block(&[SIGTTIN]);
                code(read(slave, 1).map(|_| 0))
            })),
        );
        r.see(
            "through /dev/tty",
            watch_and_kill(group(|| code(open("/dev/tty", O_RDWR).and_then(|it| read(it, 1)).map(|_| 0)))),
        );
        let (reader, writer) = sys::pipe(0);
        r.see("orphaned", {
            let middle = group(|| {
                sys::child(|| {
                    while sys!(SYS_getppid).unwrap() as i32 == sys!(SYS_getpgid, 0).unwrap() as i32 {
                        sys::sleep_ms(2);
                    }
                    let answer = format!("{:?}", read(slave, 1));
                    write(writer, answer.as_bytes()).unwrap();
                    0
                });
                0
            });
            (sys::wait(middle), read(reader, 100))
        });
        r.see("in the foreground", read(slave, 100));
        r.see("continued", {
            let pid = group(|| i32::from(read(slave, 20).as_deref() != Ok("more\n")));
            let stopped = watch(pid);
            bring_forward(slave, pid).unwrap();
            sys::kill(pid, SIGCONT).unwrap();
            write(master, b"more\n").unwrap();
            (stopped, watch(pid), watch(pid))
        });
    });
}

fn background_writes(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        r.see("may write", watch_and_kill(group(|| code(write(slave, b"x")))));
        r.see("shown", drain(master));
        change(slave, |it| it.local |= TOSTOP);
        r.see("stops", watch_and_kill(group(|| code(write(slave, b"x")))));
        r.see(
            "ignored",
            watch_and_kill(group(|| {
                ignore(SIGTTOU);
                code(write(slave, b"y"))
            })),
        );
        r.see(
            "blocked",
            watch_and_kill(group(|| {
                block(&[SIGTTOU]);
                code(write(slave, b"z"))
            })),
        );
        r.see("shown then", drain(master));
        r.see("in the foreground", (write(slave, b"fore"), drain(master)));
        let (reader, writer) = sys::pipe(0);
        r.see("orphaned", {
            let middle = group(|| {
                sys::child(|| {
                    while sys!(SYS_getppid).unwrap() as i32 == sys!(SYS_getpgid, 0).unwrap() as i32 {
                        sys::sleep_ms(2);
                    }
                    let answer = format!("{:?}", write(slave, b"o"));
                    write(writer, answer.as_bytes()).unwrap();
                    0
                });
                0
            });
            (sys::wait(middle), read(reader, 100))
        });
    });
}

fn background_changes(r: &mut Report) {
    leader(r, |r| {
        let Pair { slave, .. } = controlling();
        let settings = crate::terminals::get(slave);
        r.see("settings", watch_and_kill(group(|| code(put(slave, 0x5402, settings)))));
        r.see(
            "settings, ignored",
            watch_and_kill(group(|| {
                ignore(SIGTTOU);
                code(put(slave, 0x5402, settings))
            })),
        );
        r.see("asking", watch_and_kill(group(|| i32::from(crate::terminals::get(slave) != settings))));
        r.see("flush", watch_and_kill(group(|| code(request(slave, TCFLSH as u32, 2)))));
        r.see("flow", watch_and_kill(group(|| code(request(slave, TCXONC as u32, 1)))));
        r.see("break", watch_and_kill(group(|| code(request(slave, TCSBRK as u32, 1)))));
        r.see("group", watch_and_kill(group(|| code(put(slave, SET_GROUP, sys::pid())))));
        r.see("size", watch_and_kill(group(|| code(put(slave, TIOCSWINSZ as u32, [1u16, 2, 3, 4])))));
    });
}

fn stop_and_continue(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        let job = group(|| {
            sys::sleep_ms(20_000);
            0
        });
        bring_forward(slave, job).unwrap();
        write(master, b"\x1a").unwrap();
        r.see("SUSP", watch(job));
        bring_forward(slave, sys::pid()).unwrap();
        sys::kill(-job, SIGCONT).unwrap();
        r.see("in the background", watch(job));
        bring_forward(slave, job).unwrap();
        write(master, b"\x03").unwrap();
        r.see("INTR", watch(job));
        let job = group(|| {
            block(&[SIGTSTP, SIGQUIT]);
            ignore(SIGINT);
            write(slave, b"ready").unwrap();
            sys::sleep_ms(300);
            9
        });
        bring_forward(slave, job).unwrap();
        drain(master);
        write(master, b"\x1a\x1c\x03").unwrap();
        r.see("blocked and ignored", watch(job));
    });
}

fn hang_up(r: &mut Report) {
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        let set = block(&[SIGHUP, SIGCONT]);
        let (reader, writer) = sys::pipe(0);
        let job = group(|| {
            close(master).unwrap();
            write(writer, b"r").unwrap();
            let seen = arrived(&set);
            write(writer, format!("{seen:?}").as_bytes()).unwrap();
            0
        });
        bring_forward(slave, job).unwrap();
        read(reader, 1).unwrap();
        close(master).unwrap();
        r.see("the leader", arrived(&set));
        sys::wait(job);
        r.see("the foreground", read(reader, 100));
        r.see("the terminal", (read(slave, 5), write(slave, b"x"), has_terminal()));
    });
    leader(r, |r| {
        let Pair { master, .. } = controlling();
        close(master).unwrap();
        sys::sleep_ms(2000);
        r.ensure("not reached", false);
    });
}

fn leader_ends(r: &mut Report) {
    let (reader, writer) = sys::pipe(0);
    let Pair { master, slave } = pair();
    let set = block(&[SIGHUP, SIGCONT]);
    let lead = sys::child(|| {
        sys!(SYS_setsid).unwrap();
        request(slave, SET_CONTROLLING, 0).unwrap();
        let tell = |name: &str| {
            write(writer, b"r").unwrap();
            let seen = arrived(&set);
            let after = (read(slave, 5), write(slave, b"x"), has_terminal());
            sys::sleep_ms(if name == "fore" { 0 } else { 300 });
            write(writer, format!("{name} {seen:?} {after:?};").as_bytes()).unwrap();
            0
        };
        let fore = group(|| {
            sys::sleep_ms(100);
            tell("fore")
        });
        bring_forward(slave, fore).unwrap();
        group(|| tell("back"));
        let mut ready = 0;
        while ready < 1 {
            ready += read(reader, 1).unwrap().len();
        }
        sys::sleep_ms(150);
        0
    });
    r.see("leader", sys::wait(lead));
    close(writer).unwrap();
    let mut text = String::new();
    while let Ok(part) = read(reader, 500)
        && !part.is_empty()
    {
        text += &part;
    }
    let mut seen: Vec<_> = text.trim_start_matches('r').split(';').collect();
    seen.sort_unstable();
    r.see("its session", seen);
    r.see("others", (read(slave, 5), write(slave, b"y"), take::<i32>(slave, GET_SESSION)));
    let again = open(&slave_path(master), O_RDWR | O_NOCTTY | O_NONBLOCK).unwrap();
    drain(master);
    r.see("opened again", (write(again, b"z"), drain(master)));
}

fn simulated_input(r: &mut Report) {
    if sys!(SYS_geteuid) != Ok(0) {
        return;
    }
    // For the superuser only is it the same everywhere: see dev.tty.legacy_tiocsti.
    leader(r, |r| {
        let Pair { master, slave } = controlling();
        let simulate = |key: u8| put(slave, TIOCSTI as u32, key);
        r.see("keys", (simulate(b'a'), simulate(b'\n')));
        r.see("shown", drain(master));
        r.see("read", read(slave, 10));
        r.see("bad address", request(slave, TIOCSTI as u32, 0x1000));
    });
}

extern "C" fn tell(signal: c_int) {
    let byte = if signal == SIGHUP { b"h" } else { b"c" };
    let _ = write(TOLD.load(std::sync::atomic::Ordering::Relaxed), byte);
}

static TOLD: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// What a process hears when its parent ends: it is in a group of its own, or in its parent's, which is another one than
/// that of the session's leader, and it has stopped or not.
fn heard(own_group: bool, stops: bool) -> String {
    let (reader, writer) = sys::pipe(0);
    let parent = sys::child(|| {
        close(reader).unwrap();
        sys!(SYS_setpgid, 0, 0).unwrap();
        let parent = sys::pid();
        let child = sys::child(|| {
            TOLD.store(writer, std::sync::atomic::Ordering::Relaxed);
            for signal in [SIGHUP, SIGCONT] {
                // SAFETY: the handler only writes.
                unsafe { libc::signal(signal, tell as *const () as sighandler_t) };
            }
            if own_group {
                sys!(SYS_setpgid, 0, 0).unwrap();
            }
            if stops {
                sys::kill(sys::pid(), SIGSTOP).unwrap();
            }
            let orphaned = sys::eventually(|| sys!(SYS_getppid) != Ok(parent as usize));
            i32::from(!orphaned)
        });
        if stops {
            let mut status = 0;
            sys!(SYS_wait4, child, &raw mut status, WUNTRACED, 0).unwrap();
        }
        0
    });
    close(writer).unwrap();
    let end = sys::wait(parent);
    let mut told = String::new();
    loop {
        match sys::read(reader, 10) {
            Ok(text) if text.is_empty() => break,
            Ok(text) => told += &text,
            Err(errno) => panic!("{errno}"),
        }
    }
    let mut told: Vec<char> = told.chars().collect();
    told.sort_unstable();
    format!("{end}: {told:?}")
}

fn orphaned_groups(r: &mut Report) {
    leader(r, |r| {
        r.see("a stopped group of its own", heard(true, true));
        r.see("the stopped rest of a group", heard(false, true));
        r.see("a group that runs", heard(true, false));
    });
}
