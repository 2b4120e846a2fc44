//! What a process does with each signal.

use lg_abi::raw::general as linux;
use lg_abi::{SigAction, SigSet, Signal};

/// What a signal does to a process that has set nothing (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    /// It ends the process.
    Terminate,
    /// It ends the process; Linux could write a core dump.
    CoreDump,
    /// Nothing.
    Ignore,
    /// It stops the process.
    Stop,
    /// It lets a stopped process go on.
    Continue,
}

impl DefaultAction {
    /// Returns the default action of `signal`.
    pub fn of(signal: Signal) -> DefaultAction {
        match signal {
            Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => DefaultAction::Ignore,
            Signal::SIGCONT => DefaultAction::Continue,
            Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => DefaultAction::Stop,
            Signal::SIGQUIT
            | Signal::SIGILL
            | Signal::SIGTRAP
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGFPE
            | Signal::SIGSEGV
            | Signal::SIGXCPU
            | Signal::SIGXFSZ
            | Signal::SIGSYS => DefaultAction::CoreDump,
            _ => DefaultAction::Terminate,
        }
    }
}

/// What a process does with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// The default action.
    Default(DefaultAction),
    /// Nothing.
    Ignore,
    /// It runs a handler.
    Handle(SigAction),
}

/// The handlers of a process (or of several that share them, CLONE_SIGHAND).
#[derive(Clone)]
pub struct SignalActions([SigAction; Signal::MAX as usize]);

impl Default for SignalActions {
    fn default() -> SignalActions {
        SignalActions([SigAction::default(); Signal::MAX as usize])
    }
}

impl SignalActions {
    /// `sa_handler` for the default action.
    pub const SIG_DFL: u64 = 0;
    /// `sa_handler` to ignore the signal.
    pub const SIG_IGN: u64 = 1;

    /// Returns what sigaction(2) set.
    pub fn get(&self, signal: Signal) -> SigAction {
        self.0[usize::from(signal.number()) - 1]
    }

    /// Sets what sigaction(2) asks for. The signals that can not be blocked are taken out of the mask.
    pub fn set(&mut self, signal: Signal, mut action: SigAction) {
        action.mask = SigSet(action.mask).minus(SigSet::UNBLOCKABLE).0;
        self.0[usize::from(signal.number()) - 1] = action;
    }

    /// Returns what the signal does.
    pub fn disposition(&self, signal: Signal) -> Disposition {
        let action = self.get(signal);
        match action.handler {
            Self::SIG_DFL => Disposition::Default(DefaultAction::of(signal)),
            Self::SIG_IGN => Disposition::Ignore,
            _ => Disposition::Handle(action),
        }
    }

    /// Says whether the signal does nothing.
    pub fn ignores(&self, signal: Signal) -> bool {
        matches!(self.disposition(signal), Disposition::Ignore | Disposition::Default(DefaultAction::Ignore))
    }

    /// Puts every handler back to the default, as execve(2) does; what is ignored stays ignored.
    pub fn reset_for_exec(&mut self) {
        for action in &mut self.0 {
            let handler = if action.handler == Self::SIG_IGN { Self::SIG_IGN } else { Self::SIG_DFL };
            *action = SigAction { handler, ..SigAction::default() };
        }
    }

    /// Says whether ended children of this process leave no zombie (SIGCHLD ignored or SA_NOCLDWAIT).
    pub fn reaps_children(&self) -> bool {
        let action = self.get(Signal::SIGCHLD);
        action.handler == Self::SIG_IGN || action.flags & u64::from(linux::SA_NOCLDWAIT) != 0
    }
}
