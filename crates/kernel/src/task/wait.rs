//! How tasks sleep and are woken.
//!
//! A system call that can not finish now answers [`Stop::Block`] with a [`Wait`]: the events of which any
//! one makes it worth another try. The task sleeps; when it is woken, the whole call runs again with the
//! same arguments. So a sleeping task has no stack in the kernel, only plain data.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use lg_abi::Errno;

use super::Tid;

/// Why a system call does not return a value.
#[derive(Debug)]
pub enum Stop {
    /// It fails.
    Errno(Errno),
    /// It can not finish now: the task sleeps until one of the events, then the call is made again.
    Block(Wait),
    /// The call has set the registers itself (sigreturn, exec) or the task is gone (exit).
    NoReturn,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

/// What a system call answers: the value of `rax`, or why there is none.
pub type SysResult = Result<u64, Stop>;

/// What happens to a sleeping call when a signal is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnSignal {
    /// It is made again after the handler if that has SA_RESTART, else it fails with EINTR.
    #[default]
    Restart,
    /// It fails with EINTR.
    Interrupt,
}

/// The events that end a sleep. Whichever comes first does.
#[derive(Default)]
pub struct Wait {
    /// Queues of objects in the kernel.
    pub queues: Vec<Rc<WaitQueue>>,
    /// Host descriptors that become readable or writable.
    pub host: Vec<HostEvent>,
    /// A time on the guest's CLOCK_MONOTONIC in ns.
    pub deadline_ns: Option<u64>,
    /// What a signal does.
    pub on_signal: OnSignal,
    /// Whether signals wait until the sleep is over.
    pub uninterruptible: bool,
}

impl Wait {
    /// Returns a wait for any of `queues`.
    pub fn on(queues: impl IntoIterator<Item = Rc<WaitQueue>>) -> Wait {
        Wait { queues: queues.into_iter().collect(), ..Wait::default() }
    }

    /// Adds a deadline.
    pub fn until(mut self, deadline_ns: Option<u64>) -> Wait {
        self.deadline_ns = deadline_ns;
        self
    }

    /// Makes any handled signal end the call with EINTR.
    pub fn interruptible(mut self) -> Wait {
        self.on_signal = OnSignal::Interrupt;
        self
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("queues", &self.queues.len())
            .field("host", &self.host)
            .field("deadline_ns", &self.deadline_ns)
            .finish()
    }
}

/// A host descriptor that the idle loop polls for a sleeping task.
#[derive(Clone, Debug)]
pub struct HostEvent {
    /// The descriptor.
    pub fd: Rc<OwnedFd>,
    /// Whether to wait for input or for room to write.
    pub interest: Interest,
}

/// A direction of readiness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Something to read, or the end of it.
    Read,
    /// Room to write, or nobody to read it.
    Write,
}

/// Tasks that became runnable, in order. The scheduler empties it.
pub type ReadyList = Rc<RefCell<Vec<Tid>>>;

/// A sleeping task as queues see it. The task holds it while it sleeps; queues hold it weakly, so that a
/// task that was woken by something else disappears from them by itself.
pub struct Sleeper {
    tid: Tid,
    woken: Cell<bool>,
    ready: ReadyList,
}

impl Sleeper {
    /// Returns a sleeper that puts `tid` on `ready` when it is woken.
    pub fn new(tid: Tid, ready: &ReadyList) -> Rc<Sleeper> {
        Rc::new(Sleeper { tid, woken: Cell::new(false), ready: ready.clone() })
    }

    /// Wakes the task; more than once is the same as once.
    pub fn wake(&self) {
        if !self.woken.replace(true) {
            self.ready.borrow_mut().push(self.tid);
        }
    }
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sleeper({}, woken: {})", self.tid, self.woken.get())
    }
}

/// A queue of sleeping tasks: part of each object that tasks can wait for.
#[derive(Default)]
pub struct WaitQueue {
    sleepers: RefCell<Vec<Weak<Sleeper>>>,
    events: Cell<u64>,
}

impl WaitQueue {
    /// Returns an empty queue.
    pub fn new() -> Rc<WaitQueue> {
        Rc::default()
    }

    /// Adds a sleeper.
    pub fn add(&self, sleeper: &Rc<Sleeper>) {
        let mut sleepers = self.sleepers.borrow_mut();
        sleepers.retain(|other| other.strong_count() > 0);
        sleepers.push(Rc::downgrade(sleeper));
    }

    /// Wakes every sleeper.
    pub fn wake_all(&self) {
        self.events.set(self.events.get().wrapping_add(1));
        for sleeper in self.sleepers.take() {
            if let Some(sleeper) = sleeper.upgrade() {
                sleeper.wake();
            }
        }
    }

    /// Counts the calls of [`WaitQueue::wake_all`]: how an edge-triggered observer tells that something new
    /// has happened.
    pub fn events(&self) -> u64 {
        self.events.get()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitQueue({} sleepers)", self.sleepers.borrow().len())
    }
}
