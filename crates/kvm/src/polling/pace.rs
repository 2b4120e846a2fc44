//! When to poll: a decision from what was measured lately, without a clock or a thread of its own.
//!
//! Polling takes a second processor. It pays while system calls come one upon the other and that processor is
//! free; where it does not pay it must cost next to nothing.

/// A system call that came sooner than this after the guest was entered, in nanoseconds, is one of a burst. Most of it is the exit.
const SHORT_NS: u64 = 45_000;
/// So many of them in a row are a burst.
const BURST: u32 = 2;
/// A session with fewer calls than this has not paid.
const PAYS: u32 = 6;
/// After sessions that did not pay the next one is put off, for longer each time.
const FIRST_REST_NS: u64 = 500_000;
const LONGEST_REST_NS: u64 = 64_000_000;

/// Whether a second thread may be used to answer system calls without an exit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Polling {
    /// While it pays: calls come one upon the other, and nobody else wants the processors.
    #[default]
    WhenItPays,
    /// Never.
    Never,
    /// As soon as a guest runs, whatever it costs: for tests.
    Always,
}

/// What is known of the guest's manners.
#[derive(Default, Debug)]
pub struct Pace {
    /// What was asked for.
    pub polling: Polling,
    short: u32,
    calls: u32,
    rest_ns: u64,
    resting_until_ns: u64,
}

impl Pace {
    /// Returns one that knows nothing yet.
    pub fn new(polling: Polling) -> Pace {
        Pace { polling, ..Pace::default() }
    }

    /// Notes that the guest, entered the ordinary way, came out with a system call after `ns`.
    pub fn ordinary_call(&mut self, ns: u64) {
        self.short = if ns < SHORT_NS { self.short + 1 } else { 0 };
    }

    /// Whether to begin a session now.
    pub fn wants_session(&self, now_ns: u64) -> bool {
        match self.polling {
            Polling::WhenItPays => self.short >= BURST && now_ns >= self.resting_until_ns,
            Polling::Never => false,
            Polling::Always => true,
        }
    }

    /// Notes that a system call came through the mailbox.
    pub fn polled_call(&mut self) {
        self.calls += 1;
    }

    /// Notes that a session is over. `contended`: somebody else wanted a processor.
    pub fn end_session(&mut self, now_ns: u64, contended: bool) {
        let paid = self.calls >= PAYS && !contended;
        self.rest_ns = match paid {
            true => self.rest_ns / 2,
            false => (self.rest_ns * 2).clamp(FIRST_REST_NS, LONGEST_REST_NS),
        };
        self.resting_until_ns = if paid && self.rest_ns < FIRST_REST_NS { 0 } else { now_ns + self.rest_ns };
        (self.short, self.calls) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(pace: &mut Pace) {
        (0..BURST).for_each(|_| pace.ordinary_call(SHORT_NS - 1));
    }

    #[test]
    fn a_session_begins_after_a_burst_and_not_after_calls_that_are_apart() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.ordinary_call(SHORT_NS - 1);
            pace.ordinary_call(SHORT_NS);
            assert!(!pace.wants_session(0));
        }
        burst(&mut pace);
        assert!(pace.wants_session(0));
    }

    #[test]
    fn sessions_that_do_not_pay_come_ever_more_seldom_and_at_last_sixteen_times_a_second() {
        let mut pace = Pace::default();
        let mut rests = Vec::new();
        for _ in 0..12 {
            pace.end_session(0, false);
            burst(&mut pace);
            let rest_ns = (0..40).map(|bit| 1u64 << bit).find(|&at_ns| pace.wants_session(at_ns)).unwrap();
            rests.push(rest_ns);
        }
        assert!(rests.is_sorted() && rests[0] < 1_100_000);
        assert_eq!(rests[11].next_power_of_two(), LONGEST_REST_NS.next_power_of_two());
    }

    #[test]
    fn sessions_that_pay_end_the_rests() {
        let mut pace = Pace::default();
        for _ in 0..4 {
            pace.end_session(0, true);
        }
        for _ in 0..4 {
            (0..PAYS).for_each(|_| pace.polled_call());
            pace.end_session(0, false);
        }
        burst(&mut pace);
        assert!(pace.wants_session(0));
    }

    #[test]
    fn a_session_while_others_want_the_processor_has_not_paid() {
        let mut pace = Pace::default();
        (0..1000).for_each(|_| pace.polled_call());
        pace.end_session(0, true);
        burst(&mut pace);
        assert!(!pace.wants_session(0));
    }
}
