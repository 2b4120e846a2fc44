//! Counts with a limit.

use std::cell::Cell;
use std::rc::Rc;

/// How much there is of something, how much there was at most, and how much there may be.
#[derive(Debug)]
pub struct Quota {
    used: Cell<u64>,
    peak: Cell<u64>,
    max: Cell<u64>,
}

/// There would be more than there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverQuota;

impl Quota {
    /// Returns a count of nothing that may go up to `max`.
    pub fn new(max: u64) -> Quota {
        Quota { used: Cell::new(0), peak: Cell::new(0), max: Cell::new(max) }
    }

    /// Counts `amount` more, unless that is too much.
    pub fn take(&self, amount: u64) -> Result<(), OverQuota> {
        if amount > self.left() {
            return Err(OverQuota);
        }
        self.take_over_limit(amount);
        Ok(())
    }

    /// Counts `amount` more, even where that is too much.
    pub fn take_over_limit(&self, amount: u64) {
        self.used.set(self.used.get().saturating_add(amount));
        self.peak.set(self.peak.get().max(self.used.get()));
    }

    /// Counts `amount` less.
    pub fn give(&self, amount: u64) {
        self.used.set(self.used.get().saturating_sub(amount));
    }

    /// Counts one more for as long as the answer lives.
    pub fn take_one(self: &Rc<Quota>) -> Result<Counted, OverQuota> {
        self.take(1)?;
        Ok(Counted(self.clone()))
    }

    /// Counts one more for as long as the answer lives, even where that is too much.
    pub fn take_one_over_limit(self: &Rc<Quota>) -> Counted {
        self.take_over_limit(1);
        Counted(self.clone())
    }

    /// Returns how much there is.
    pub fn used(&self) -> u64 {
        self.used.get()
    }

    /// Returns how much there was at most.
    pub fn peak(&self) -> u64 {
        self.peak.get()
    }

    /// Returns how much there may be.
    pub fn max(&self) -> u64 {
        self.max.get()
    }

    /// Returns how much more there may be.
    pub fn left(&self) -> u64 {
        self.max.get().saturating_sub(self.used.get())
    }

    /// Says whether there is too much.
    pub fn is_over(&self) -> bool {
        self.used.get() > self.max.get()
    }

    /// Sets how much there may be.
    pub fn set_max(&self, max: u64) {
        self.max.set(max);
    }

    /// Forgets what there was before.
    pub fn reset_peak(&self) {
        self.peak.set(self.used.get());
    }
}

impl Default for Quota {
    /// Returns a count without a limit.
    fn default() -> Quota {
        Quota::new(u64::MAX)
    }
}

/// One in a count.
#[derive(Debug)]
pub struct Counted(Rc<Quota>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.give(1);
    }
}
