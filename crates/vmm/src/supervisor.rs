//! What reaches a sandbox from outside: signals of the host process and requests on the control socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use lg_kernel::Supervisor;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

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

/// The host's side of a running sandbox.
pub struct HostEvents<'c> {
    signals: SignalFd,
    control: Option<&'c UnixStream>,
}

impl<'c> HostEvents<'c> {
    /// Blocks the signals that are passed on; from here they are read from a descriptor.
    pub fn new(control: Option<&'c UnixStream>) -> Result<HostEvents<'c>, EventsError> {
        let mut set = SigSet::empty();
        PASSED_ON.iter().for_each(|(signal, _)| set.add(*signal));
        set.thread_block()?;
        // The end of a reader shows as EPIPE, which the program gets as a signal of its own.
        let mut pipe = SigSet::empty();
        pipe.add(Signal::SIGPIPE);
        pipe.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(HostEvents { signals, control })
    }

    /// Returns the signals that must interrupt guest code.
    pub fn signals(&self) -> Vec<i32> {
        PASSED_ON.iter().map(|(signal, _)| *signal as i32).collect()
    }

    fn take_signals(&mut self, requests: &mut Vec<lg_kernel::Request>) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let receiver = PASSED_ON.iter().find(|(signal, _)| *signal as u32 == info.ssi_signo);
            let signal = lg_kernel::Signal::new(u64::from(info.ssi_signo));
            if let (Some((_, receiver)), Some(signal)) = (receiver, signal) {
                requests.push(match receiver {
                    Receiver::Program => lg_kernel::Request::Signal(signal),
                    Receiver::Group => lg_kernel::Request::SignalGroup(signal),
                });
            }
        }
    }

    /// Takes what the control socket has. A closed or senseless socket ends the sandbox.
    fn take_control(&mut self, requests: &mut Vec<lg_kernel::Request>) {
        let Some(control) = self.control else { return };
        while is_readable(control.as_fd()) {
            match lg_control::recv::<lg_control::Request>(control) {
                Ok(lg_control::Request::Signal(number)) => {
                    if let Some(signal) = lg_kernel::Signal::new(u64::from(number)) {
                        requests.push(lg_kernel::Request::Signal(signal));
                    }
                }
                Ok(lg_control::Request::Kill | lg_control::Request::Start(_)) | Err(_) => {
                    requests.push(lg_kernel::Request::Kill);
                    self.control = None;
                    return;
                }
            }
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

impl Supervisor for HostEvents<'_> {
    fn event_fds(&self) -> Vec<BorrowedFd<'_>> {
        let control = self.control.map(AsFd::as_fd);
        std::iter::once(self.signals.as_fd()).chain(control).collect()
    }

    fn look_every_ns(&self) -> Option<u64> {
        // A request on a socket does not interrupt guest code as a signal does.
        self.control.map(|_| 50_000_000)
    }

    fn take_requests(&mut self) -> Vec<lg_kernel::Request> {
        let mut requests = Vec::new();
        self.take_signals(&mut requests);
        self.take_control(&mut requests);
        requests
    }
}
