//! What reaches a sandbox that this very process runs: the signals of the process.

use std::os::fd::{AsFd, BorrowedFd};

use lg_kernel::task::Interest;
use lg_kernel::{Kernel, KernelError, Supervisor};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that are passed on. Those that a terminal sends go to the program's process group, as they
/// would there; the others to the program.
const PASSED_ON: [(Signal, Receiver); 9] = [
    (Signal::SIGINT, Receiver::Group),
    (Signal::SIGQUIT, Receiver::Group),
    (Signal::SIGHUP, Receiver::Group),
    (Signal::SIGWINCH, Receiver::Group),
    (Signal::SIGCONT, Receiver::Group),
    (Signal::SIGTERM, Receiver::Program),
    (Signal::SIGUSR1, Receiver::Program),
    (Signal::SIGUSR2, Receiver::Program),
    (Signal::SIGALRM, Receiver::Program),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiver {
    Program,
    Group,
}

/// Why the host's events can not be had.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// A host call on signals failed.
    #[error("cannot take over the process's signals")]
    Signals(#[from] nix::Error),
}

/// The host's side of a sandbox that this very process runs.
pub struct HostEvents {
    signals: SignalFd,
}

impl HostEvents {
    /// Blocks the signals that are passed on; from here they are read from a descriptor.
    pub fn new() -> Result<HostEvents, EventsError> {
        let mut set = SigSet::empty();
        PASSED_ON.iter().for_each(|(signal, _)| set.add(*signal));
        set.thread_block()?;
        // The end of a reader shows as EPIPE, which the program gets as a signal of its own.
        let mut pipe = SigSet::empty();
        pipe.add(Signal::SIGPIPE);
        pipe.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(HostEvents { signals })
    }

    /// Returns the signals that must interrupt guest code.
    pub fn signals(&self) -> Vec<i32> {
        PASSED_ON.iter().map(|(signal, _)| *signal as i32).collect()
    }
}

impl Supervisor for HostEvents {
    fn event_fds(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        vec![(self.signals.as_fd(), Interest::Read)]
    }

    fn look_every_ns(&self) -> Option<u64> {
        // A signal ends guest code's turn by itself.
        None
    }

    fn serve(&mut self, kernel: &mut Kernel) -> Result<(), KernelError> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let receiver = PASSED_ON.iter().find(|(signal, _)| *signal as u32 == info.ssi_signo);
            let signal = lg_kernel::Signal::new(u64::from(info.ssi_signo));
            if let (Some((_, receiver)), Some(signal)) = (receiver, signal) {
                match receiver {
                    Receiver::Program => kernel.signal_main(signal),
                    Receiver::Group => kernel.signal_foreground(signal),
                }
            }
        }
        Ok(())
    }
}
