//! Signals, signal sets and `siginfo_t`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A signal number from 1 to 64 (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident = $number:literal)*) => {
        #[expect(missing_docs, reason = "signal(7) says what each means")]
        impl Signal {
            $(pub const $name: Signal = Signal($number);)*
        }
        const NAMES: &[(u8, &str)] = &[$(($number, stringify!($name)),)*];
    };
}

signals! {
    SIGHUP = 1 SIGINT = 2 SIGQUIT = 3 SIGILL = 4 SIGTRAP = 5 SIGABRT = 6 SIGBUS = 7 SIGFPE = 8 SIGKILL = 9
    SIGUSR1 = 10 SIGSEGV = 11 SIGUSR2 = 12 SIGPIPE = 13 SIGALRM = 14 SIGTERM = 15 SIGSTKFLT = 16 SIGCHLD = 17
    SIGCONT = 18 SIGSTOP = 19 SIGTSTP = 20 SIGTTIN = 21 SIGTTOU = 22 SIGURG = 23 SIGXCPU = 24 SIGXFSZ = 25
    SIGVTALRM = 26 SIGPROF = 27 SIGWINCH = 28 SIGIO = 29 SIGPWR = 30 SIGSYS = 31
}

impl Signal {
    /// The highest signal number.
    pub const MAX: u8 = 64;

    /// The lowest real-time signal number.
    pub const RT_MIN: u8 = 32;

    /// Returns the signal of that number, or `None` where there is none.
    pub const fn new(number: u64) -> Option<Signal> {
        if number >= 1 && number <= Signal::MAX as u64 { Some(Signal(number as u8)) } else { None }
    }

    /// Returns the number, from 1 to 64.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Says whether this is a real-time signal, of which several can be queued.
    pub const fn is_realtime(self) -> bool {
        self.0 >= Signal::RT_MIN
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "SIGRT_{}", self.0 - Signal::RT_MIN),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A set of signals: the kernel's `sigset_t`, 8 bytes on x86-64. Bit n-1 stands for signal n.
#[derive(Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);

    /// The two signals that can be neither caught nor blocked.
    pub const UNBLOCKABLE: SigSet = SigSet(1 << (Signal::SIGKILL.0 - 1) | 1 << (Signal::SIGSTOP.0 - 1));

    /// Returns the set of just `signal`.
    pub const fn only(signal: Signal) -> SigSet {
        SigSet(1 << (signal.0 - 1))
    }

    /// Says whether `signal` is in the set.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & SigSet::only(signal).0 != 0
    }

    /// Returns the signals of either set.
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// Returns the signals of this set that are not in the other.
    pub const fn minus(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// Returns the signals of both sets.
    pub const fn intersect(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// Says whether no signal is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds `signal`.
    pub const fn insert(&mut self, signal: Signal) {
        self.0 |= SigSet::only(signal).0;
    }

    /// Takes `signal` out.
    pub const fn remove(&mut self, signal: Signal) {
        self.0 &= !SigSet::only(signal).0;
    }

    /// Returns the signal of the set with the lowest number.
    pub fn lowest(self) -> Option<Signal> {
        (self.0 != 0).then(|| Signal(self.0.trailing_zeros() as u8 + 1))
    }

    /// Returns each signal of the set in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=Signal::MAX).map(Signal).filter(move |signal| self.contains(*signal))
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// `siginfo_t` (sigaction(2)): 128 bytes, of which the three header words and the first union words are
/// named; which union member they are depends on `code` and `signo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names of sigaction(2)")]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pub pad: u32,
    /// `si_pid` and `si_uid` (low and high half), `si_addr`, or `si_tid` and `si_overrun`.
    pub field0: u64,
    /// `si_status` or `si_value`.
    pub field1: u64,
    /// `si_utime`.
    pub field2: u64,
    /// `si_stime`.
    pub field3: u64,
    pub rest: [u64; 10],
}

impl SigInfo {
    /// Sent by kill(2).
    pub const SI_USER: i32 = 0;
    /// Sent by the kernel.
    pub const SI_KERNEL: i32 = 0x80;
    /// Sent by sigqueue(3).
    pub const SI_QUEUE: i32 = -1;
    /// Sent by a POSIX timer.
    pub const SI_TIMER: i32 = -2;
    /// Sent by mq_notify(3).
    pub const SI_MESGQ: i32 = -3;
    /// Sent by tgkill(2).
    pub const SI_TKILL: i32 = -6;

    /// Returns a siginfo with all union fields zero.
    pub fn new(signal: Signal, code: i32) -> SigInfo {
        SigInfo {
            signo: i32::from(signal.number()),
            errno: 0,
            code,
            pad: 0,
            field0: 0,
            field1: 0,
            field2: 0,
            field3: 0,
            rest: [0; 10],
        }
    }

    /// Returns the siginfo of a signal that a process sent.
    pub fn from_process(signal: Signal, code: i32, pid: u32, uid: u32) -> SigInfo {
        SigInfo { field0: u64::from(pid) | u64::from(uid) << 32, ..SigInfo::new(signal, code) }
    }

    /// Returns the siginfo of a POSIX timer's expiry. `round` tells the settings of a timer apart and is not 0; it lies
    /// where Linux has `si_sys_private`, and no process sees it ([`SigInfo::take_timer`]).
    pub fn from_timer(signal: Signal, id: i32, value: u64, round: u64) -> SigInfo {
        let head = SigInfo::new(signal, SigInfo::SI_TIMER);
        SigInfo { field0: u64::from(id as u32), field1: value, field2: round, ..head }
    }

    /// Returns number and round of the timer that sent the signal; `None` where none did.
    pub fn timer(&self) -> Option<(i32, u64)> {
        (self.code == SigInfo::SI_TIMER && self.field2 != 0)
            .then_some((self.field0 as u32 as i32, self.field2))
    }

    /// Returns what [`SigInfo::timer`] does, and takes out of the siginfo what no process may see.
    pub fn take_timer(&mut self) -> Option<(i32, u64)> {
        let timer = self.timer()?;
        self.field2 = 0;
        Some(timer)
    }

    /// Adds to `si_overrun` as far as its type goes, and returns the sum.
    pub fn add_overrun(&mut self, more: u64) -> i32 {
        let sum = (self.field0 >> 32).saturating_add(more).min(i32::MAX as u64);
        self.field0 = self.field0 & 0xffff_ffff | sum << 32;
        sum as i32
    }

    /// Returns the siginfo of a fault at `addr`.
    pub fn from_fault(signal: Signal, code: i32, addr: u64) -> SigInfo {
        SigInfo { field0: addr, ..SigInfo::new(signal, code) }
    }

    /// Returns the siginfo of a SIGCHLD; `status` is an exit status or a signal number, as `code` says.
    pub fn from_child(code: i32, pid: u32, uid: u32, status: i32) -> SigInfo {
        SigInfo { field1: u64::from(status as u32), ..SigInfo::from_process(Signal::SIGCHLD, code, pid, uid) }
    }
}
