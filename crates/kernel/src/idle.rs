//! What a sandbox that has nothing to do gives back to the host.

use crate::Kernel;

/// How long a sandbox has nothing to do before its free memory goes back to the host. Between the steps of a
/// busy program it would only be fetched again, at 1.6 us a page.
const GIVE_BACK_AFTER_NS: u64 = 20_000_000;

impl Kernel {
    /// Notes that no task can run, and returns when the kernel has something to do of its own accord.
    pub(crate) fn idle_until_ns(&mut self) -> Option<u64> {
        let event_ns = self.next_event_ns();
        let now_ns = self.clock.monotonic_ns();
        let give_back_ns = self.idle_since_ns.get_or_insert(now_ns).saturating_add(GIVE_BACK_AFTER_NS);
        if self.frames.kept() == 0 {
            return event_ns;
        }
        if now_ns >= give_back_ns {
            self.frames.give_back();
            return event_ns;
        }
        Some(event_ns.map_or(give_back_ns, |event_ns| event_ns.min(give_back_ns)))
    }
}
