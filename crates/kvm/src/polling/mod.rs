//! System calls without an exit, on PVM: while a guest makes one call upon the other and a processor is free, a
//! second thread runs the vCPU, and the first looks into a mailbox for the next call.
//!
//! An exit takes 26 us there, and a call by the mailbox less than one. Both threads spin, so a session ends as soon as
//! nothing came for a while, and there is none while others want the processors ([`pace`]).

pub mod mailbox;
mod pace;
pub mod runner;

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use rustix::thread::sched_getaffinity;

use self::mailbox::Mailbox;
use self::pace::Pace;
pub use self::pace::Polling;
use self::runner::Runner;
use crate::alarm;
use crate::region::Region;

/// A guest that makes no call for so long is left to itself. To end a session and to begin another one takes about as
/// long.
const QUIET: Duration = Duration::from_micros(200);
/// What it may take until the first call: the second thread has to wake, and its processor to learn what it runs.
const WAKING: Duration = Duration::from_micros(250);
/// How often signals are looked for.
const SIGNALS: Duration = Duration::from_micros(8);
/// How many calls there may be between two such looks.
const CALLS: u64 = 16;
/// Rounds between two looks at the clock.
const ROUNDS: u32 = 32;

/// What came of looking into the mailbox.
pub enum Seen {
    /// A system call is in it.
    Call,
    /// The vCPU has come out of the guest, with this errno or 0.
    Exit(i32),
    /// Neither; the vCPU was taken back, and can be run on.
    Nothing,
}

/// The first thread's side.
#[derive(Default)]
pub struct Poller {
    /// Whether the guest waits for the answer to a system call, so that the other thread is inside KVM_RUN.
    pub waiting: bool,
    /// The signals that end a run.
    pub interrupting: Vec<i32>,
    pace: Pace,
    session: bool,
    runner: Option<Runner>,
    /// There can be none here.
    impossible: bool,
    entered: Option<Instant>,
    /// Calls that came by the mailbox.
    pub calls: u64,
    /// `calls` when the session began.
    calls_before: u64,
    /// Involuntary context switches when they were last asked for.
    switches: Option<i64>,
    origin: Option<Instant>,
}

impl Poller {
    /// Returns one that has not begun.
    pub fn new(polling: Polling) -> Poller {
        Poller { pace: Pace::new(polling), ..Poller::default() }
    }

    fn now_ns(&mut self) -> u64 {
        self.origin.get_or_insert_with(Instant::now).elapsed().as_nanos() as u64
    }

    /// Notes that the guest is entered by this thread.
    pub fn entered(&mut self) {
        self.entered = Some(Instant::now());
    }

    /// Notes that it came out, with a system call or something else.
    pub fn came_out(&mut self, with_call: bool) {
        if let Some(entered) = self.entered.take()
            && with_call
        {
            self.pace.ordinary_call(entered.elapsed().as_nanos() as u64);
        }
    }

    /// Lets the other thread run the vCPU, whose registers are set, if this is the time for it.
    ///
    /// # Safety
    ///
    /// `vcpu` must be the descriptor of a vCPU, always the same, which stays open until the poller is dropped.
    pub unsafe fn begin(&mut self, vcpu: RawFd, system: &Region) -> bool {
        if self.impossible {
            return false;
        }
        let now_ns = self.now_ns();
        if !self.session && !self.pace.wants_session(now_ns) {
            return false;
        }
        if alarm::is_pending(&self.interrupting) {
            // This thread's own run ends at once.
            Mailbox::new(system).open(false);
            self.session = false;
            return false;
        }
        if !self.session && self.pace.polling == Polling::WhenItPays && self.is_contended() {
            self.pace.end_session(now_ns, true);
            return false;
        }
        if self.runner.is_none() && has_two_processors() {
            // SAFETY: the caller says so.
            self.runner = unsafe { Runner::start(vcpu) }.ok();
        }
        let Some(runner) = &self.runner else {
            self.impossible = true;
            return false;
        };
        if !self.session {
            self.session = true;
            self.calls_before = self.calls;
            Mailbox::new(system).open(true);
        }
        Mailbox::new(system).empty();
        runner.go();
        true
    }

    /// Whether a signal wants the thread, which is asked for every few calls.
    pub fn is_wanted(&self) -> bool {
        self.calls.is_multiple_of(CALLS) && alarm::is_pending(&self.interrupting)
    }

    /// Waits until the guest makes a system call or leaves.
    pub fn watch(&mut self, system: &Region) -> Seen {
        let mailbox = Mailbox::new(system);
        let runner = self.runner.as_ref().expect("a session has a thread");
        let start = Instant::now();
        let mut looked = start;
        let mut rounds = 0u32;
        loop {
            if mailbox.state() == mailbox::REQUEST && mailbox.change(mailbox::REQUEST, mailbox::TAKEN) {
                self.waiting = true;
                self.pace.polled_call();
                self.calls += 1;
                return Seen::Call;
            }
            if let Some(errno) = runner.is_back() {
                return Seen::Exit(errno);
            }
            rounds += 1;
            if !rounds.is_multiple_of(ROUNDS) {
                std::hint::spin_loop();
                continue;
            }
            let now = Instant::now();
            let patience = if self.calls > self.calls_before { QUIET } else { WAKING };
            if now - start > patience && self.pace.polling != Polling::Always {
                break;
            }
            if now - looked > SIGNALS {
                looked = now;
                if alarm::is_pending(&self.interrupting) {
                    break;
                }
            }
        }
        self.take_back(system)
    }

    /// Ends the session, and takes the vCPU back from the other thread.
    fn take_back(&mut self, system: &Region) -> Seen {
        Mailbox::new(system).open(false);
        self.session = false;
        let contended = self.is_contended();
        let now_ns = self.now_ns();
        self.pace.end_session(now_ns, contended);
        let runner = self.runner.as_ref().expect("a session has a thread");
        if runner.withdraw() {
            return Seen::Nothing;
        }
        runner.kick();
        match runner.wait() {
            libc::EINTR => {
                // A call that has come meanwhile comes out the ordinary way, at once.
                Mailbox::new(system).change(mailbox::REQUEST, mailbox::LEAVE);
                Seen::Nothing
            }
            errno => Seen::Exit(errno),
        }
    }

    /// Makes a waiting guest leave. Returns the errno of the run, or 0.
    pub fn dismiss(&mut self, system: &Region) -> i32 {
        self.waiting = false;
        Mailbox::new(system).change(mailbox::TAKEN, mailbox::LEAVE);
        self.runner.as_ref().expect("a session has a thread").wait_or_kick()
    }

    /// Whether this thread lost its processor to another since this was last asked.
    fn is_contended(&mut self) -> bool {
        let switches = involuntary_switches();
        self.switches.replace(switches).is_some_and(|before| before < switches)
    }
}

fn has_two_processors() -> bool {
    sched_getaffinity(None).is_ok_and(|set| set.count() > 1)
}

/// How often the calling thread was made to give up its processor (getrusage(2), `ru_nivcsw`).
fn involuntary_switches() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the call fills the structure.
    match unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } {
        // SAFETY: it did.
        0 => unsafe { usage.assume_init() }.ru_nivcsw,
        _ => 0,
    }
}
