//! Why a claim got nothing: [`ClaimError`], and why a pool is not full: [`RefillFailure`].

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// Why one item could not be made ahead of need.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefillError<E: Error + 'static> {
    /// The source says so.
    #[error(transparent)]
    Source(E),
    /// It took too long and was given up.
    #[error("making one was given up after {} s", .after.as_secs_f64())]
    TimedOut {
        /// The limit of the pool.
        after: Duration,
    },
    /// The source panicked: a bug of it.
    #[error("making one panicked")]
    Panicked,
}

/// Refilling the pool fails at the moment. It is tried again, with growing pauses.
#[derive(Debug, thiserror::Error)]
#[error("refilling the pool failed {in_a_row} times in a row")]
pub struct RefillFailure<E: Error + 'static> {
    /// How often it failed since it last went well.
    pub in_a_row: u32,
    /// How it failed last.
    #[source]
    pub error: Arc<RefillError<E>>,
}

impl<E: Error + 'static> Clone for RefillFailure<E> {
    fn clone(&self) -> Self {
        Self { in_a_row: self.in_a_row, error: self.error.clone() }
    }
}

/// Why a claim got nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError<E: Error + 'static> {
    /// The pool hands out nothing any more.
    #[error("the pool is shut down")]
    ShutDown,
    /// None that fits was ready, and a fresh one could not be made.
    #[error("none that fits was ready, and a fresh one could not be made")]
    Failed {
        /// Why it could not be made.
        #[source]
        error: E,
        /// Why none was ready, if refilling fails too.
        refill: Option<RefillFailure<E>>,
    },
    /// None could be had until the deadline.
    #[error("none that fits could be had within {} ms", .waited.as_millis())]
    DeadlinePassed {
        /// How long the claim waited.
        waited: Duration,
        /// Why none was ready, if refilling fails.
        #[source]
        refill: Option<RefillFailure<E>>,
    },
}
