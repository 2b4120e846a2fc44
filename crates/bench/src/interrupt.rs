//! Running a measurement until it is done, or until somebody interrupts it.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT or SIGTERM came. Nothing of the run is left, and nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// How long ending what is left may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `work` on a runtime of its own. It is dropped, with all sandboxes that it has, on SIGINT and SIGTERM.
///
/// # Errors
/// [`Interrupted`], and what `work` says.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let result = block_on_to_end(until_interrupted(work));
    if result.as_ref().is_err_and(|error| error.is::<Interrupted>()) {
        reap_all();
    }
    result
}

/// Runs `work` on a runtime of its own. What it is to do about signals it sees to itself, see [`Interruption`].
///
/// # Errors
/// What `work` says.
pub(crate) fn block_on_to_end<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // Tasks that are left hold sandboxes: they go with the runtime.
    runtime.shutdown_timeout(PATIENCE);
    result
}

/// Whether a run is to end early, with what it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether somebody asked for it.
    pub(crate) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs `work` on a runtime of its own. After the first SIGINT or SIGTERM it should end soon, with what it has; at the second
/// one it is dropped.
///
/// # Errors
/// [`Interrupted`], and what `work` says.
pub(crate) fn block_on_to_stop<T, W: Future<Output = Result<T>>>(work: impl FnOnce(Stop) -> W) -> Result<T> {
    let result = block_on_to_end(async {
        let stop = Stop::default();
        let mut interruption = Interruption::new()?;
        let mut work = pin!(work(stop.clone()));
        tokio::select! {
            biased;
            () = interruption.came() => stop.0.store(true, Ordering::Relaxed),
            result = &mut work => return result,
        }
        tokio::select! {
            biased;
            () = interruption.came() => Err(Interrupted.into()),
            result = &mut work => result,
        }
    });
    if result.as_ref().is_err_and(|error| error.is::<Interrupted>()) {
        reap_all();
    }
    result
}

/// Does `work`, which blocks, in a thread of its own, so that an interruption is heard meanwhile.
///
/// # Errors
/// As [`block_on_to_stop`].
pub(crate) fn measure_to_stop<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T> + Send + 'static,
) -> Result<T> {
    block_on_to_stop(|stop| async move { tokio::task::spawn_blocking(move || work(&stop)).await? })
}

async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut interruption = Interruption::new()?;
    tokio::select! {
        biased;
        () = interruption.came() => Err(Interrupted.into()),
        result = work => result,
    }
}

/// SIGINT and SIGTERM. From its making on they end this process no more.
pub(crate) struct Interruption {
    interrupt: Signal,
    terminate: Signal,
}

impl Interruption {
    /// Needs a tokio context with I/O.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of them. Cancel safe.
    pub(crate) async fn came(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until all children of this process have ended, and reaps them: they were told to end, and nobody else asks for
/// their statuses any more.
fn reap_all() {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: a signal is heard by all who listen in this process.
    #[tokio::test]
    async fn an_interrupt_ends_the_work() {
        assert_eq!(until_interrupted(async { Ok(42) }).await.unwrap(), 42);
        let error = until_interrupted(async {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT)?;
            std::future::pending::<Result<()>>().await
        });
        assert!(error.await.unwrap_err().is::<Interrupted>());
    }
}
