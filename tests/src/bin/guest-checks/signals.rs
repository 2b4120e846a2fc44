//! Signals.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use libc::*;

use crate::sys::{self, Errno, c, close, kill, pipe, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("default_actions", default_actions),
    ("handlers", handlers),
    ("handler_masks", handler_masks),
    ("blocked_signals", blocked_signals),
    ("real_time_signals", real_time_signals),
    ("siginfo", siginfo_fields),
    ("restart", restart),
    ("interrupted_calls", interrupted_calls),
    ("alternate_stack", alternate_stack),
    ("sigsuspend", sigsuspend_waits),
    ("sigtimedwait", sigtimedwait_forms),
    ("timers_send_signals", timers_send_signals),
    ("sigreturn_changes_registers", sigreturn_changes_registers),
    ("nested_handlers", nested_handlers),
    ("faults", faults),
    ("sigaction_errors", sigaction_errors),
    ("child_signal", child_signal),
    ("kill_forms", kill_forms),
    ("signal_storm", signal_storm),
];

static COUNT: AtomicI32 = AtomicI32::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(signal: c_int) {
    COUNT.fetch_add(1, SeqCst);
    LAST.store(signal, SeqCst);
}

/// What the last call of [`inform`] was told.
struct Info(UnsafeCell<Option<siginfo_t>>);
// SAFETY: written by handlers of the only thread, read when none runs.
unsafe impl Sync for Info {}
static INFO: Info = Info(UnsafeCell::new(None));

extern "C" fn inform(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    count(signal);
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO; see `Info`.
    unsafe { *INFO.0.get() = Some(*info) };
}

fn info() -> siginfo_t {
    // SAFETY: see `Info`.
    unsafe { (*INFO.0.get()).expect("a handler has run") }
}

fn set(signals: &[i32]) -> sigset_t {
    let mut set: sigset_t = zeroed();
    // SAFETY: the set is valid.
    signals.iter().for_each(|&signal| unsafe {
        sigaddset(&raw mut set, signal);
    });
    set
}

fn handle(signal: i32, handler: usize, flags: i32, mask: &[i32]) {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    action.sa_mask = set(mask);
    // SAFETY: the handlers of this file only use atomics and what their comments say.
    assert_eq!(unsafe { sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
}

fn counting(signal: i32, flags: i32) {
    handle(signal, count as *const () as usize, flags, &[]);
}

fn mask(how: i32, signals: &[i32]) {
    let set = set(signals);
    // SAFETY: the set is valid.
    unsafe { sigprocmask(how, &raw const set, std::ptr::null_mut()) };
}

fn pending(signal: i32) -> bool {
    let mut set: sigset_t = zeroed();
    // SAFETY: the set is valid.
    unsafe {
        sigpending(&raw mut set);
        sigismember(&raw const set, signal) == 1
    }
}

fn raise(signal: i32) {
    sys!(SYS_tgkill, sys::pid(), sys!(SYS_gettid).unwrap(), signal).unwrap();
}

fn default_actions(r: &mut Report) {
    let none = rlimit { rlim_cur: 0, rlim_max: 0 };
    sys!(SYS_setrlimit, RLIMIT_CORE, &raw const none).unwrap();
    for signal in (1..32).filter(|signal| ![SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU].contains(signal)) {
        r.see(
            signal,
            sys::ends(|| {
                raise(signal);
                0
            }),
        );
    }
    for signal in [34, 50, 64] {
        r.see(
            signal,
            sys::ends(|| {
                raise(signal);
                0
            }),
        );
    }
}

fn handlers(r: &mut Report) {
    counting(SIGUSR1, 0);
    raise(SIGUSR1);
    r.see("called", (COUNT.load(SeqCst), LAST.load(SeqCst)));
    kill(sys::pid(), SIGUSR1).unwrap();
    r.see("by kill", COUNT.load(SeqCst));
    counting(SIGUSR2, SA_RESETHAND);
    raise(SIGUSR2);
    r.see("once", COUNT.load(SeqCst));
    r.see(
        "then the default",
        sys::ends(|| {
            raise(SIGUSR2);
            0
        }),
    );
    r.see(
        "inherited by fork",
        sys::ends(|| {
            raise(SIGUSR1);
            COUNT.load(SeqCst)
        }),
    );
    handle(SIGUSR1, SIG_IGN, 0, &[]);
    raise(SIGUSR1);
    r.see("ignored", COUNT.load(SeqCst));
    let mut old: sigaction = zeroed();
    // SAFETY: a null new action only asks.
    unsafe { sigaction(SIGUSR1, std::ptr::null(), &raw mut old) };
    r.see("asked for", old.sa_sigaction == SIG_IGN);
    handle(SIGHUP, inform as *const () as usize, SA_SIGINFO | SA_NODEFER, &[SIGINT, SIGTERM]);
    // SAFETY: as above.
    unsafe { sigaction(SIGHUP, std::ptr::null(), &raw mut old) };
    let has = |signal| {
        // SAFETY: the set is valid.
        unsafe { sigismember(&raw const old.sa_mask, signal) }
    };
    r.see(
        "flags and mask",
        (old.sa_flags & (SA_SIGINFO | SA_NODEFER) != 0, has(SIGINT), has(SIGTERM), has(SIGUSR1)),
    );
}

fn handler_masks(r: &mut Report) {
    extern "C" fn nested(_: c_int) {
        let before = COUNT.load(SeqCst);
        raise(SIGUSR1);
        raise(SIGUSR2);
        SEEN.store((COUNT.load(SeqCst) - before) as usize, SeqCst);
    }
    counting(SIGUSR1, 0);
    counting(SIGUSR2, 0);
    handle(SIGHUP, nested as *const () as usize, 0, &[SIGUSR1]);
    raise(SIGHUP);
    r.see("inside and after", (SEEN.load(SeqCst), COUNT.load(SeqCst)));
    r.see("nothing is blocked now", {
        let mut now: sigset_t = zeroed();
        // SAFETY: a null new set only asks.
        unsafe { sigprocmask(SIG_SETMASK, std::ptr::null(), &raw mut now) };
        // SAFETY: the set is valid.
        (1..32).filter(|&signal| unsafe { sigismember(&raw const now, signal) } == 1).count()
    });
    extern "C" fn own(signal: c_int) {
        if COUNT.fetch_add(1, SeqCst) < 3 {
            raise(signal);
            SEEN.fetch_max(COUNT.load(SeqCst) as usize, SeqCst);
        }
    }
    COUNT.store(0, SeqCst);
    SEEN.store(0, SeqCst);
    handle(SIGHUP, own as *const () as usize, 0, &[]);
    raise(SIGHUP);
    r.see("its own signal waits", (COUNT.load(SeqCst), SEEN.load(SeqCst)));
    COUNT.store(0, SeqCst);
    handle(SIGHUP, own as *const () as usize, SA_NODEFER, &[]);
    raise(SIGHUP);
    r.see("not with SA_NODEFER", (COUNT.load(SeqCst), SEEN.load(SeqCst)));
}

fn blocked_signals(r: &mut Report) {
    counting(SIGUSR1, 0);
    mask(SIG_BLOCK, &[SIGUSR1]);
    raise(SIGUSR1);
    kill(sys::pid(), SIGUSR1).unwrap();
    kill(sys::pid(), SIGUSR1).unwrap();
    r.see("waits", (COUNT.load(SeqCst), pending(SIGUSR1), pending(SIGUSR2)));
    mask(SIG_UNBLOCK, &[SIGUSR1]);
    r.see("delivered once for each queue", COUNT.load(SeqCst));
    mask(SIG_BLOCK, &[SIGUSR1]);
    raise(SIGUSR1);
    handle(SIGUSR1, SIG_IGN, 0, &[]);
    r.see("ignoring drops it", pending(SIGUSR1));
    mask(SIG_SETMASK, &[SIGKILL, SIGSTOP, SIGINT]);
    let mut now: sigset_t = zeroed();
    // SAFETY: a null new set only asks; the set is valid.
    let blocked: Vec<i32> = unsafe {
        sigprocmask(SIG_SETMASK, std::ptr::null(), &raw mut now);
        (1..65).filter(|&signal| sigismember(&raw const now, signal) == 1).collect()
    };
    r.see("what can be blocked", blocked);
    r.see("bad how", sys!(SYS_rt_sigprocmask, 9, &raw const now, 0, 8));
    r.see("bad size", sys!(SYS_rt_sigprocmask, SIG_BLOCK, &raw const now, 0, 16));
}

fn real_time_signals(r: &mut Report) {
    static ORDER: [AtomicI32; 16] = [const { AtomicI32::new(0) }; 16];
    extern "C" fn order(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
        let at = COUNT.fetch_add(1, SeqCst) as usize;
        // SAFETY: the kernel passes a valid siginfo, of sigqueue(3).
        let value = unsafe { (*info).si_value().sival_ptr as i32 };
        ORDER[at % 16].store(signal * 100 + value, SeqCst);
    }
    let all = [35, 36, SIGUSR1];
    for signal in all {
        handle(signal, order as *const () as usize, SA_SIGINFO, &all);
    }
    mask(SIG_BLOCK, &all);
    for (signal, value) in [(36, 1), (35, 1), (36, 2), (35, 2), (SIGUSR1, 1), (SIGUSR1, 2), (35, 3)] {
        let value = sigval { sival_ptr: value as *mut c_void };
        // SAFETY: a number stands in for a pointer that nobody follows.
        assert_eq!(unsafe { sigqueue(sys::pid(), signal, value) }, 0);
    }
    mask(SIG_UNBLOCK, &all);
    let count = COUNT.load(SeqCst) as usize;
    r.see("order", ORDER[..count].iter().map(|it| it.load(SeqCst)).collect::<Vec<_>>());
}

fn siginfo_fields(r: &mut Report) {
    for signal in [SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM] {
        handle(signal, inform as *const () as usize, SA_SIGINFO | SA_RESTART, &[]);
    }
    let own = sys::pid();
    // SAFETY: the union holds what the code says.
    let sender = |info: siginfo_t| unsafe { (info.si_pid() == own, info.si_uid() == getuid()) };
    kill(own, SIGUSR1).unwrap();
    r.see("kill", (info().si_signo, info().si_code, info().si_errno, sender(info())));
    raise(SIGUSR2);
    r.see("tgkill", (info().si_signo, info().si_code, sender(info())));
    // SAFETY: a number stands in for a pointer that nobody follows.
    unsafe { sigqueue(own, SIGUSR1, sigval { sival_ptr: 77 as *mut c_void }) };
    // SAFETY: sigqueue(3) sets the value.
    r.see("sigqueue", (info().si_code, unsafe { info().si_value().sival_ptr as usize }, sender(info())));
    let pid = sys::child(|| 5);
    sys::eventually(|| LAST.load(SeqCst) == SIGCHLD);
    // SAFETY: SIGCHLD has these fields.
    let child =
        |info: siginfo_t| unsafe { (info.si_signo, info.si_code, info.si_status(), info.si_pid() == pid) };
    r.see("child", (child(info()), sys::wait(pid)));
    LAST.store(0, SeqCst);
    let pid = sys::child(|| kill(sys::pid(), SIGKILL).unwrap() as i32);
    sys::eventually(|| LAST.load(SeqCst) == SIGCHLD);
    // SAFETY: SIGCHLD has these fields.
    let child =
        |info: siginfo_t| unsafe { (info.si_signo, info.si_code, info.si_status(), info.si_pid() == pid) };
    r.see("killed child", (child(info()), sys::wait(pid)));
    let soon = itimerval {
        it_interval: timeval { tv_sec: 0, tv_usec: 0 },
        it_value: timeval { tv_sec: 0, tv_usec: 1000 },
    };
    sys!(SYS_setitimer, ITIMER_REAL, &raw const soon, 0).unwrap();
    sys::eventually(|| LAST.load(SeqCst) == SIGALRM);
    r.see("alarm", (info().si_signo, info().si_code));
}

/// Sends `signal` to this process from a child, after a while. Returns the child.
fn soon(signal: i32) -> i32 {
    let parent = sys::pid();
    sys::child(|| {
        sys::sleep_ms(30);
        kill(parent, signal).unwrap();
        0
    })
}

fn restart(r: &mut Report) {
    let (reader, writer) = pipe(0);
    let parent = sys::pid();
    counting(SIGUSR1, SA_RESTART);
    let pid = sys::child(|| {
        sys::sleep_ms(30);
        kill(parent, SIGUSR1).unwrap();
        sys::sleep_ms(30);
        write(writer, b"data").unwrap();
        0
    });
    r.see("read goes on", (read(reader, 10), COUNT.load(SeqCst), sys::wait(pid)));
    let sleeper = sys::child(|| {
        sys::sleep_ms(80);
        7
    });
    let sender = soon(SIGUSR1);
    r.see("so does wait4", sys::wait(sleeper));
    sys::wait(sender);
    r.see("handled", COUNT.load(SeqCst));
    handle(SIGUSR1, SIG_IGN, 0, &[]);
    let sender = soon(SIGUSR1);
    let start = std::time::Instant::now();
    let short = timespec { tv_sec: 0, tv_nsec: 80_000_000 };
    r.see("an ignored signal interrupts nothing", sys!(SYS_nanosleep, &raw const short, 0));
    r.ensure("whole", start.elapsed().as_millis() >= 80);
    sys::wait(sender);
}

fn interrupted_calls(r: &mut Report) {
    counting(SIGUSR1, 0);
    let (reader, writer) = pipe(0);
    let mut interrupted = |what: &str, call: &dyn Fn() -> sys::Answer| {
        let sender = soon(SIGUSR1);
        r.see(what, call());
        sys::wait(sender);
    };
    interrupted("read", &|| read(reader, 1).map(|_| 0));
    let fds = [pollfd { fd: reader as i32, events: POLLIN, revents: 0 }];
    interrupted("poll", &|| sys!(SYS_poll, fds.as_ptr(), 1, -1i64));
    let long = timespec { tv_sec: 5, tv_nsec: 0 };
    let mut rest = timespec { tv_sec: 0, tv_nsec: 0 };
    let rest_at = &raw mut rest;
    interrupted("nanosleep", &|| sys!(SYS_nanosleep, &raw const long, rest_at));
    interrupted("clock_nanosleep", &|| sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &raw const long, 0));
    interrupted("select", &|| sys!(SYS_select, 0, 0, 0, 0, 0));
    interrupted("pause", &|| sys!(SYS_pause));
    let word = 1i32;
    interrupted("futex", &|| sys!(SYS_futex, &raw const word, FUTEX_WAIT, 1, 0, 0, 0));
    let sleeper = sys::child(|| {
        sys::sleep_ms(200);
        0
    });
    // The child that sends ends as well: wait for the other one.
    interrupted("wait4", &|| sys!(SYS_wait4, sleeper, 0, 0, 0));
    sys::wait(sleeper);
    let block = vec![b'x'; 100_000];
    interrupted("a write that has written something", &|| write(writer, &block));
    let seconds = |time: timespec| time.tv_sec;
    r.see("what was left of the sleep", seconds(rest));
    let (reader, writer) = pipe(0);
    let sender = soon(SIGUSR1);
    r.see("fifo", {
        sys!(SYS_mknod, c("fifo").as_ptr(), S_IFIFO | 0o600, 0).unwrap();
        sys::open("fifo", O_RDONLY)
    });
    sys::wait(sender);
    close(reader).unwrap();
    close(writer).unwrap();
}

fn alternate_stack(r: &mut Report) {
    extern "C" fn where_am_i(_: c_int) {
        let local = 0u8;
        SEEN.store((&raw const local) as usize, SeqCst);
        let mut now: stack_t = zeroed();
        // SAFETY: a null new stack only asks.
        unsafe { sigaltstack(std::ptr::null(), &raw mut now) };
        LAST.store(now.ss_flags, SeqCst);
    }
    let size = 65536;
    let place =
        sys!(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0).unwrap();
    let stack = stack_t { ss_sp: place as *mut c_void, ss_flags: 0, ss_size: size };
    let mut old: stack_t = zeroed();
    sys!(SYS_sigaltstack, &raw const stack, &raw mut old).unwrap();
    r.see("before", old.ss_flags != SS_DISABLE || old.ss_size > 0);
    handle(SIGUSR1, where_am_i as *const () as usize, SA_ONSTACK, &[]);
    raise(SIGUSR1);
    r.see("on it", ((place..place + size).contains(&SEEN.load(SeqCst)), LAST.load(SeqCst)));
    handle(SIGUSR2, where_am_i as *const () as usize, 0, &[]);
    raise(SIGUSR2);
    r.see("without SA_ONSTACK", ((place..place + size).contains(&SEEN.load(SeqCst)), LAST.load(SeqCst)));
    let small = stack_t { ss_sp: place as *mut c_void, ss_flags: 0, ss_size: 100 };
    r.see("too small", sys!(SYS_sigaltstack, &raw const small, 0));
    let odd = stack_t { ss_sp: place as *mut c_void, ss_flags: 77, ss_size: size };
    r.see("bad flags", sys!(SYS_sigaltstack, &raw const odd, 0));
    // What it is for: a stack that has overflown.
    extern "C" fn overflown(_: c_int) {
        sys::exit(44)
    }
    #[expect(unconditional_recursion, reason = "it is to overflow the stack")]
    fn recurse(depth: u64) -> u64 {
        let array = std::hint::black_box([depth; 64]);
        recurse(depth + 1) + array[3]
    }
    r.see(
        "overflow",
        sys::ends(|| {
            handle(SIGSEGV, overflown as *const () as usize, SA_ONSTACK, &[]);
            recurse(0) as i32
        }),
    );
    r.see(
        "overflow without it",
        sys::ends(|| {
            let off = stack_t { ss_sp: std::ptr::null_mut(), ss_flags: SS_DISABLE, ss_size: 0 };
            sys!(SYS_sigaltstack, &raw const off, 0).unwrap();
            let none = rlimit { rlim_cur: 0, rlim_max: 0 };
            sys!(SYS_setrlimit, RLIMIT_CORE, &raw const none).unwrap();
            handle(SIGSEGV, overflown as *const () as usize, SA_ONSTACK, &[]);
            recurse(0) as i32
        }),
    );
}

fn sigsuspend_waits(r: &mut Report) {
    counting(SIGUSR1, 0);
    counting(SIGUSR2, 0);
    mask(SIG_BLOCK, &[SIGUSR1, SIGUSR2]);
    raise(SIGUSR1);
    let only_second = set(&[SIGUSR2]);
    r.see("pending", sys!(SYS_rt_sigsuspend, &raw const only_second, 8));
    r.see("handled", (COUNT.load(SeqCst), LAST.load(SeqCst)));
    let sender = soon(SIGUSR1);
    r.see("later", sys!(SYS_rt_sigsuspend, &raw const only_second, 8));
    sys::wait(sender);
    raise(SIGUSR1);
    r.see("the mask is back", (COUNT.load(SeqCst), pending(SIGUSR1)));
}

fn sigtimedwait_forms(r: &mut Report) {
    mask(SIG_BLOCK, &[SIGUSR1, SIGUSR2, SIGCHLD]);
    let wait = |signals: &[i32], ms: i64| {
        let set = set(signals);
        let time = timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        let mut info: siginfo_t = zeroed();
        sys!(SYS_rt_sigtimedwait, &raw const set, &raw mut info, &raw const time, 8)
            .map(|it| (it, info.si_code))
    };
    r.see("nothing", wait(&[SIGUSR1], 0));
    raise(SIGUSR1);
    r.see("pending", wait(&[SIGUSR1], 0));
    r.see("taken", wait(&[SIGUSR1], 0));
    r.see("timeout", wait(&[SIGUSR1], 20));
    let sender = soon(SIGUSR2);
    r.see("waits", wait(&[SIGUSR1, SIGUSR2], 5000));
    sys::wait(sender);
    r.see("child", wait(&[SIGCHLD], 5000));
    counting(SIGHUP, 0);
    let sender = soon(SIGHUP);
    r.see("another signal", wait(&[SIGUSR1], 5000));
    sys::wait(sender);
    let bad = timespec { tv_sec: 0, tv_nsec: 2_000_000_000 };
    let one = set(&[SIGUSR1]);
    r.see("bad time", sys!(SYS_rt_sigtimedwait, &raw const one, 0, &raw const bad, 8));
}

fn timers_send_signals(r: &mut Report) {
    counting(SIGALRM, 0);
    // SAFETY: alarm(2) has no preconditions.
    let alarm = |seconds| unsafe { libc::alarm(seconds) };
    r.see("none", alarm(100));
    r.see("replaced", alarm(50) >= 99);
    r.see("cancelled", alarm(0) >= 49);
    let every = |first_us: i64, next_us: i64| itimerval {
        it_interval: timeval { tv_sec: 0, tv_usec: next_us },
        it_value: timeval { tv_sec: 0, tv_usec: first_us },
    };
    let (timer, off) = (every(5000, 5000), every(0, 0));
    r.see("set", sys!(SYS_setitimer, ITIMER_REAL, &raw const timer, 0));
    r.see("again and again", sys::eventually(|| COUNT.load(SeqCst) >= 5));
    let mut old = every(0, 0);
    sys!(SYS_setitimer, ITIMER_REAL, &raw const off, &raw mut old).unwrap();
    r.see("interval", old.it_interval.tv_usec);
    let before = COUNT.load(SeqCst);
    sys::sleep_ms(30);
    r.see("off", COUNT.load(SeqCst) == before);
    COUNT.store(0, SeqCst);
    let once = every(20_000, 0);
    sys!(SYS_setitimer, ITIMER_REAL, &raw const once, 0).unwrap();
    r.see("busy code is interrupted", {
        let start = std::time::Instant::now();
        while COUNT.load(SeqCst) == 0 && start.elapsed().as_secs() < 10 {
            std::hint::spin_loop();
        }
        COUNT.load(SeqCst)
    });
    r.see(
        "not inherited",
        sys::ends(|| {
            // SAFETY: as above.
            unsafe { libc::alarm(0) as i32 }
        }),
    );
    let bad = every(1_000_000, 0);
    r.see("bad microseconds", sys!(SYS_setitimer, ITIMER_REAL, &raw const bad, 0));
    r.see("bad timer", sys!(SYS_setitimer, 7, &raw const once, 0));
    counting(SIGPROF, 0);
    COUNT.store(0, SeqCst);
    let processor = every(10_000, 0);
    sys!(SYS_setitimer, ITIMER_PROF, &raw const processor, 0).unwrap();
    let start = std::time::Instant::now();
    while COUNT.load(SeqCst) == 0 && start.elapsed().as_secs() < 10 {
        std::hint::spin_loop();
    }
    r.see("processor time", COUNT.load(SeqCst));
}

fn sigreturn_changes_registers(r: &mut Report) {
    extern "C" fn change(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
        let context = context.cast::<ucontext_t>();
        // SAFETY: the kernel passes the interrupted context; the check's code is ready for both registers to
        // change, and skips the `ud2` of two bytes.
        unsafe {
            let registers = &mut (*context).uc_mcontext.gregs;
            registers[REG_RIP as usize] += 2;
            registers[REG_R12 as usize] = 0x1234_5678_9abc;
            registers[REG_R13 as usize] += 1;
        }
    }
    handle(SIGILL, change as *const () as usize, SA_SIGINFO, &[]);
    let (mut twelve, mut thirteen): (u64, u64) = (0, 41);
    // SAFETY: `ud2` raises SIGILL, whose handler changes the two registers that are named here.
    unsafe {
        std::arch::asm!("ud2", inout("r12") twelve, inout("r13") thirteen);
    }
    r.see("registers", (format!("{twelve:#x}"), thirteen));
    // All general registers and the flags come back from a handler.
    counting(SIGTRAP, 0);
    let flags: u64;
    let (mut a, mut b, mut c, mut d) = (11u64, 22u64, 33u64, 44u64);
    // SAFETY: `int3` raises SIGTRAP, whose handler counts. The carry flag is set before and read after.
    unsafe {
        std::arch::asm!(
            "stc", "int3", "pushfq", "pop {flags}",
            flags = out(reg) flags, inout("r8") a, inout("r9") b, inout("r14") c, inout("r15") d,
        );
    }
    r.see("kept", ([a, b, c, d], flags & 1, COUNT.load(SeqCst)));
}

fn nested_handlers(r: &mut Report) {
    extern "C" fn deeper(signal: c_int) {
        let depth = COUNT.fetch_add(1, SeqCst);
        if depth < 20 {
            raise(if signal == SIGUSR1 { SIGUSR2 } else { SIGUSR1 });
        }
        LAST.fetch_add(1, SeqCst);
    }
    for signal in [SIGUSR1, SIGUSR2] {
        handle(signal, deeper as *const () as usize, SA_NODEFER, &[]);
    }
    raise(SIGUSR1);
    r.see("in and out", (COUNT.load(SeqCst), LAST.load(SeqCst)));
}

fn faults(r: &mut Report) {
    extern "C" fn tell(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel passes a valid siginfo, and these are signals of faults.
        let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
        let expected = SEEN.load(SeqCst);
        let text = format!(
            "signal {signal} code {code} address as expected: {}\n",
            address == expected || expected == 1
        );
        let _ = write(LAST.load(SeqCst) as usize, text.as_bytes());
        sys::exit(0)
    }
    let (reader, writer) = pipe(0);
    LAST.store(writer as i32, SeqCst);
    let mut fault = |what: &str, address: usize, body: &dyn Fn()| {
        SEEN.store(address, SeqCst);
        let ends = sys::ends(|| {
            for signal in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP] {
                handle(signal, tell as *const () as usize, SA_SIGINFO, &[]);
            }
            body();
            9
        });
        let told = if ends == "exited 0" { read(reader, 200) } else { Ok(String::new()) };
        r.see(what, (ends, told));
    };
    // SAFETY: each is a fault, and the handler ends the process.
    unsafe {
        fault("null", 0, &|| _ = std::hint::black_box(*std::hint::black_box(std::ptr::null::<u8>())));
        fault("unmapped", 0x1234_5000, &|| *(0x1234_5000 as *mut u8) = 1);
        let page = |prot: i32| sys!(SYS_mmap, 0, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0).unwrap();
        let read_only = page(PROT_READ);
        fault("write to read-only", read_only + 5, &|| *((read_only + 5) as *mut u8) = 1);
        let none = page(PROT_NONE);
        fault("read of nothing", none, &|| _ = std::hint::black_box(*(none as *const u8)));
        let data = page(PROT_READ | PROT_WRITE);
        fault("execute data", data, &|| {
            let function: extern "C" fn() = std::mem::transmute(data);
            function();
        });
        fault("kernel address", 0, &|| _ = std::hint::black_box(*(0xffff_8000_0000_0000usize as *const u8)));
        fault("non-canonical", 0, &|| _ = std::hint::black_box(*(0x8000_0000_0000_0000usize as *const u8)));
        fault("undefined instruction", 1, &|| std::arch::asm!("ud2"));
        fault("divide by zero", 1, &|| {
            std::arch::asm!("xor ecx, ecx", "mov eax, 1", "cdq", "idiv ecx", out("eax") _, out("ecx") _, out("edx") _);
        });
        fault("breakpoint", 0, &|| std::arch::asm!("int3"));
        fault("privileged", 0, &|| std::arch::asm!("hlt"));
        fault("port", 0, &|| std::arch::asm!("out 0x80, al"));
        std::fs::write("f", "x").unwrap();
        let f = sys::fd("f", O_RDONLY);
        let file = sys!(SYS_mmap, 0, 8192, PROT_READ, MAP_PRIVATE, f, 0).unwrap();
        fault("beyond the end of a file", file + 4096, &|| {
            _ = std::hint::black_box(*((file + 4096) as *const u8))
        });
    }
    let none = rlimit { rlim_cur: 0, rlim_max: 0 };
    sys!(SYS_setrlimit, RLIMIT_CORE, &raw const none).unwrap();
    for signal in [SIGSEGV, SIGBUS, SIGFPE] {
        r.see(
            format!("blocked {signal}"),
            sys::ends(|| {
                mask(SIG_BLOCK, &[signal]);
                // SAFETY: a fault is wanted.
                unsafe {
                    if signal == SIGSEGV {
                        *std::hint::black_box(std::ptr::null_mut::<u8>()) = 1;
                    }
                }
                0
            }),
        );
    }
    r.see(
        "ignored",
        sys::ends(|| {
            handle(SIGSEGV, SIG_IGN, 0, &[]);
            // SAFETY: a fault is wanted.
            unsafe { *std::hint::black_box(std::ptr::null_mut::<u8>()) = 1 };
            0
        }),
    );
}

fn sigaction_errors(r: &mut Report) {
    let action: [usize; 4] = [SIG_IGN, 0, 0, 0];
    let set = |signal: i32, size: usize| sys!(SYS_rt_sigaction, signal, action.as_ptr(), 0, size);
    r.see("SIGKILL", set(SIGKILL, 8));
    r.see("SIGSTOP", set(SIGSTOP, 8));
    r.see("zero", set(0, 8));
    r.see("65", set(65, 8));
    r.see("bad size", set(SIGUSR1, 4));
    r.see("bad address", sys!(SYS_rt_sigaction, SIGUSR1, 8, 0, 8));
    r.see("ask for SIGKILL", sys!(SYS_rt_sigaction, SIGKILL, 0, [0usize; 4].as_mut_ptr(), 8));
}

fn child_signal(r: &mut Report) {
    counting(SIGCHLD, SA_RESTART);
    let pid = sys::child(|| 0);
    r.see("on exit", sys::eventually(|| COUNT.load(SeqCst) == 1));
    sys::wait(pid);
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(writer).unwrap();
        read(reader, 1).unwrap();
        0
    });
    kill(pid, SIGSTOP).unwrap();
    r.see("on stop", sys::eventually(|| COUNT.load(SeqCst) == 2));
    counting(SIGCHLD, SA_NOCLDSTOP | SA_RESTART);
    kill(pid, SIGCONT).unwrap();
    kill(pid, SIGSTOP).unwrap();
    let mut status = 0i32;
    sys!(SYS_wait4, pid, &raw mut status, WUNTRACED, 0).unwrap();
    let stops = COUNT.load(SeqCst);
    kill(pid, SIGCONT).unwrap();
    close(writer).unwrap();
    sys::wait(pid);
    sys::eventually(|| COUNT.load(SeqCst) > stops);
    r.see("on exit only", COUNT.load(SeqCst) - stops);
}

fn kill_forms(r: &mut Report) {
    let own = sys::pid();
    r.see("probe", kill(own, 0));
    r.see("nobody", kill(4_000_000, 0));
    r.see("bad signal", kill(own, 65));
    r.see("negative signal", kill(own, -1));
    r.see("nobody's group", kill(-4_000_000, SIGTERM));
    r.see("tgkill of another group", sys!(SYS_tgkill, 4_000_000, own, 0));
    r.see("tgkill of nobody", sys!(SYS_tgkill, own, 4_000_000, 0));
    r.see("tgkill of zero", sys!(SYS_tgkill, 0, own, 0));
    r.see(
        "own group",
        sys::ends(|| {
            sys!(SYS_setpgid, 0, 0).unwrap();
            kill(0, SIGTERM).unwrap();
            0
        }),
    );
    // SAFETY: this call only answers.
    if unsafe { geteuid() } == 0 {
        let (reader, writer) = pipe(0);
        let target = sys::child(|| {
            close(writer).unwrap();
            read(reader, 1).unwrap();
            0
        });
        r.see(
            "of another user",
            sys::ends(|| {
                sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
                kill(target, SIGTERM).map_or_else(|errno| errno as i32, |_| 0)
            }),
        );
        r.see(
            "SIGCONT in the same session",
            sys::ends(|| {
                sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
                kill(target, SIGCONT).map_or_else(|errno| errno as i32, |_| 0)
            }),
        );
        close(writer).unwrap();
        sys::wait(target);
    }
    r.see("forged code", {
        let mut info: siginfo_t = zeroed();
        info.si_signo = SIGUSR1;
        info.si_code = 0;
        let child = sys::child(|| {
            sys::sleep_ms(1000);
            0
        });
        let answer = sys!(SYS_rt_sigqueueinfo, child, SIGUSR1, &raw const info);
        kill(child, SIGKILL).unwrap();
        sys::wait(child);
        answer
    });
}

fn signal_storm(r: &mut Report) {
    counting(SIGUSR1, SA_RESTART);
    let parent = sys::pid();
    let (reader, writer) = pipe(0);
    let senders: Vec<i32> = (0..3)
        .map(|_| {
            sys::child(|| {
                for _ in 0..100 {
                    kill(parent, SIGUSR1).unwrap();
                }
                write(writer, b"x").unwrap();
                0
            })
        })
        .collect();
    // Work that must not be disturbed.
    let mut sum = 0u64;
    let mut done = 0;
    while done < 3 {
        for n in 0..10_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(n * n));
        }
        sum = 0;
        let mut waiting = 0i32;
        sys!(SYS_ioctl, reader, FIONREAD, &raw mut waiting).unwrap();
        done = waiting;
    }
    let ends: Vec<String> = senders.into_iter().map(sys::wait).collect();
    r.see("senders", ends);
    r.see("sum", sum);
    r.ensure("some arrived", (1..=300).contains(&COUNT.load(SeqCst)));
    r.see("errno", Errno::from_raw(0) == Errno::UnknownErrno);
}
