//! The signals that bring a running guest back: a timer's for deadlines, and those the vmm names.
//!
//! The host thread keeps these signals blocked and lets them through only inside KVM_RUN
//! (KVM_SET_SIGNAL_MASK), so a signal that comes between two runs is not lost: the next run ends at once. No
//! handler ever runs.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Returns the real-time signal of the deadline timer. [`crate::KvmPlatform`] blocks it in its thread and
/// consumes it; nothing else may use it.
pub fn alarm_signal() -> i32 {
    libc::SIGRTMIN() + 7
}

/// Takes the signal away that is pending for the calling thread, if it is.
pub fn consume_here() -> bool {
    let set = signal_set(&[alarm_signal()]);
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set and the time are live; no information on the signal is asked for.
    unsafe { libc::sigtimedwait(&set, ptr::null_mut(), &now) == alarm_signal() }
}

/// Says whether one of the signals that end a run is pending for the calling thread.
pub fn is_pending(interrupting: &[i32]) -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call fills the set.
    if unsafe { libc::sigpending(pending.as_mut_ptr()) } != 0 {
        return true;
    }
    // SAFETY: the call succeeded, so the set is filled.
    let pending = unsafe { pending.assume_init() };
    // SAFETY: the set is initialised and the numbers are those of signals.
    let has = |signal: i32| unsafe { libc::sigismember(&pending, signal) } == 1;
    has(alarm_signal()) || interrupting.iter().any(|signal| has(*signal))
}

/// A POSIX timer on CLOCK_MONOTONIC that signals the thread that made it.
pub struct Alarm {
    timer: libc::timer_t,
    armed_ns: Option<u64>,
}

impl Alarm {
    /// Creates the timer and blocks its signal in the calling thread.
    pub fn new() -> io::Result<Alarm> {
        let set = signal_set(&[alarm_signal()]);
        // SAFETY: `set` is a valid signal set; no old one is asked for.
        check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) })?;
        Ok(Alarm { timer: create_timer(own_thread())?, armed_ns: None })
    }

    /// Makes a timer of this process's own after fork(2), which hands no timers on.
    pub fn renew(&mut self) -> io::Result<()> {
        self.timer = create_timer(own_thread())?;
        self.armed_ns = None;
        Ok(())
    }

    /// Sees to it that the signal comes at `deadline_ns` or before. Leaves an earlier time as it is: coming
    /// early is allowed, and most calls then cost nothing.
    pub fn arm(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        let Some(deadline_ns) = deadline_ns else { return Ok(()) };
        if self.armed_ns.is_some_and(|armed| armed <= deadline_ns) {
            return Ok(());
        }
        // Zero would disarm the timer.
        let at = deadline_ns.max(1);
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: (at / 1_000_000_000) as libc::time_t,
            tv_nsec: (at % 1_000_000_000) as libc::c_long,
        };
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the timer is this object's own, `spec` is live and no old value is asked for.
        check(unsafe { libc::timer_settime(self.timer, libc::TIMER_ABSTIME, &spec, ptr::null_mut()) })?;
        self.armed_ns = Some(deadline_ns);
        Ok(())
    }

    /// Takes the timer's signal away if it is pending.
    pub fn consume(&mut self) {
        if consume_here() {
            self.armed_ns = None;
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is this object's own and is not used again.
        unsafe { libc::timer_delete(self.timer) };
        self.consume();
    }
}

/// A timer that signals another thread of this process at once: what tgkill(2) would do, which can reach other processes
/// as well, and so is not allowed in the jail.
///
/// Dropping it leaves the timer: a fork has none of this number, or another one.
pub struct Kick {
    timer: libc::timer_t,
}

impl Kick {
    /// A timer for the thread of this process with this number.
    pub fn new(tid: i32) -> io::Result<Kick> {
        Ok(Kick { timer: create_timer(tid)? })
    }

    /// Signals the thread.
    pub fn send(&self) {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let soon = libc::itimerspec { it_interval: zero, it_value: libc::timespec { tv_nsec: 1, ..zero } };
        // SAFETY: the timer is this object's own, `soon` is live and no old value is asked for.
        unsafe { libc::timer_settime(self.timer, 0, &soon, ptr::null_mut()) };
    }

    /// Gives the timer back, in the process that made it.
    pub fn delete(self) {
        // SAFETY: the timer is this object's own and is not used again.
        unsafe { libc::timer_delete(self.timer) };
    }
}

fn own_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

fn create_timer(tid: i32) -> io::Result<libc::timer_t> {
    // SAFETY: sigevent is plain data for which zeros are valid.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = alarm_signal();
    event.sigev_notify_thread_id = tid;
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: both pointers are to live objects of the right types.
    check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
    Ok(timer)
}

/// Returns the signals to block during KVM_RUN, as the kernel's 64-bit set: what the thread blocks now, less
/// the timer's signal and the `interrupting` ones.
pub fn mask_while_running(interrupting: &[i32]) -> io::Result<u64> {
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: with no new set given, the call only fills `blocked`.
    check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), blocked.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the set is filled.
    let blocked = unsafe { blocked.assume_init() };
    let lets_through = |signal: &i32| *signal == alarm_signal() || interrupting.contains(signal);
    Ok((1..=64)
        .filter(|signal| !lets_through(signal))
        // SAFETY: the set is initialised and the number is in range.
        .filter(|signal| unsafe { libc::sigismember(&blocked, *signal) } == 1)
        .fold(0, |mask, signal| mask | 1 << (signal - 1)))
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; sigaddset then adds to it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Turns the answers of both conventions (-1 with errno, or an error number) into a result.
fn check(answer: i32) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
