//! Whose turn it is.

use std::collections::VecDeque;

use super::Tid;

/// How long a task may run while others wait, in ns.
pub const SLICE_NS: u64 = 5_000_000;

/// The runnable tasks in the order of their turns. A task that uses up its slice goes to the end; so does
/// one that wakes, which is fair and starves nobody.
#[derive(Default)]
pub struct RunQueue {
    queue: VecDeque<Tid>,
}

impl RunQueue {
    /// Puts a task at the end.
    pub fn push(&mut self, tid: Tid) {
        debug_assert!(!self.queue.contains(&tid), "task {tid} is queued twice");
        self.queue.push_back(tid);
    }

    /// Takes the task whose turn it is.
    pub fn pop(&mut self) -> Option<Tid> {
        self.queue.pop_front()
    }

    /// Says whether nobody waits for the processor.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes a task out wherever it is.
    pub fn remove(&mut self, tid: Tid) {
        self.queue.retain(|other| *other != tid);
    }

    /// Returns how many tasks wait for the processor.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}
