//! Time that does not pass for a sandbox: in a template, and while it is paused.

use crate::Kernel;
use crate::task::TaskState;

impl Kernel {
    /// Makes CLOCK_MONOTONIC stand still. No guest code may run until [`Kernel::resume_clock`].
    pub fn freeze_clock(&mut self) {
        self.clock.freeze();
    }

    /// Lets CLOCK_MONOTONIC go on from where it stood still, so that timers and the deadline have as much left as
    /// they had. CLOCK_REALTIME is the host's again.
    ///
    /// A timerfd on CLOCK_REALTIME that was set before fires that much later.
    pub fn resume_clock(&mut self) {
        if !self.clock.resume() {
            return;
        }
        if let (Some(pages), Some(time)) = (&self.vdso, self.clock.vdso()) {
            crate::vdso::update(pages, &self.frames, time);
        }
        // What sleeps until a certain CLOCK_REALTIME must reckon anew when that is: its call is made again.
        for task in self.tasks.values() {
            if let TaskState::Sleeping(sleep) = &task.state
                && sleep.wait.deadline_ns.is_some()
            {
                sleep.sleeper.wake();
            }
        }
    }
}
