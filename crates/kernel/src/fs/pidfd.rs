//! Descriptors that stand for processes (pidfd_open(2)).

use std::any::Any;
use std::rc::{Rc, Weak};

use crate::task::{Process, Tid, WaitQueue};
use crate::vfs::{File, FsContext, Readiness};

/// A process, named for good: its number may go to another, this stays with it.
pub struct PidFd {
    tgid: Tid,
    /// The queue of the process, which is woken once: when it ends. It goes when the process has been waited for.
    ended: Weak<WaitQueue>,
}

/// Returns the process descriptor that a file is, if it is one.
pub fn as_pidfd(file: &Rc<dyn File>) -> Option<Rc<PidFd>> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<PidFd>().ok()
}

impl PidFd {
    /// Returns what stands for the process of this number, which wakes `ended` at its end.
    pub fn new(tgid: Tid, ended: &Rc<WaitQueue>) -> Rc<PidFd> {
        Rc::new(PidFd { tgid, ended: Rc::downgrade(ended) })
    }

    /// Returns the number of the process.
    pub fn tgid(&self) -> Tid {
        self.tgid
    }

    /// Says whether it stands for this process.
    pub fn is_of(&self, process: &Process) -> bool {
        std::ptr::eq(self.ended.as_ptr(), Rc::as_ptr(&process.ended))
    }
}

impl File for PidFd {
    fn has_position(&self) -> bool {
        false
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        let has_ended = self.ended.upgrade().is_none_or(|ended| ended.events() > 0);
        if has_ended { Readiness::READABLE } else { Readiness::empty() }
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        self.ended.upgrade().into_iter().collect()
    }

    fn info(&self, _cx: &FsContext<'_>) -> String {
        let number = match self.ended.upgrade() {
            Some(_) => self.tgid.to_string(),
            None => "-1".to_owned(),
        };
        format!("Pid:\t{number}\nNSpid:\t{number}\n")
    }
}
