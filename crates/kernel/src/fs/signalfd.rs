//! Signals that are read (signalfd(2)).

use std::any::Any;
use std::cell::Cell;
use std::io::SeekFrom;
use std::rc::Rc;

use lg_abi::raw::general::{SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGIO, SIGSEGV, SIGSYS, SIGTRAP};
use lg_abi::{Errno, SigInfo, SigSet, SignalfdSiginfo};

use crate::task::WaitQueue;
use crate::vfs::{File, FsContext, Readiness};

/// What reads signals of a set. It holds none itself: whoever reads takes those of its own thread and process.
pub struct SignalFd {
    wanted: Cell<SigSet>,
    arrived: Rc<WaitQueue>,
}

/// Returns the signal reader that a file is, if it is one.
pub fn as_signalfd(file: &Rc<dyn File>) -> Option<Rc<SignalFd>> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<SignalFd>().ok()
}

impl SignalFd {
    /// Returns a reader of the signals of a set; `arrived` is woken whenever a signal is sent.
    pub fn new(wanted: SigSet, arrived: Rc<WaitQueue>) -> Rc<SignalFd> {
        Rc::new(SignalFd { wanted: Cell::new(wanted), arrived })
    }

    /// Returns the signals that it reads.
    pub fn wanted(&self) -> SigSet {
        self.wanted.get()
    }

    /// Sets the signals that it reads.
    pub fn set_wanted(&self, wanted: SigSet) {
        self.wanted.set(wanted);
        self.arrived.wake_all();
    }
}

impl File for SignalFd {
    fn has_position(&self) -> bool {
        false
    }

    /// As on Linux, the position can be set, and stays 0.
    fn seek(&self, _to: SeekFrom) -> Option<Result<u64, Errno>> {
        Some(Ok(0))
    }

    fn readiness(&self, cx: &FsContext<'_>) -> Readiness {
        let waiting = cx.procs.pending_signals(cx.tid.0).intersect(self.wanted.get());
        if waiting.is_empty() { Readiness::empty() } else { Readiness::READABLE }
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.arrived.clone()]
    }

    fn info(&self, _cx: &FsContext<'_>) -> String {
        format!("sigmask:\t{:016x}\n", self.wanted.get().0)
    }
}

/// Which fields of a siginfo mean something (the kernel's `siginfo_layout`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// `si_pid` and `si_uid`.
    Sender,
    /// These and `si_value`.
    Value,
    /// `si_tid`, `si_overrun` and `si_value`.
    Timer,
    /// `si_band` and `si_fd`.
    Band,
    /// `si_addr`.
    Fault,
    /// Those of the sender, `si_status`, `si_utime` and `si_stime`.
    Child,
    /// `si_call_addr`, `si_syscall` and `si_arch`.
    Call,
}

impl Layout {
    /// The code of SIGIO that was queued by an old interface (`SI_SIGIO`).
    const SI_SIGIO: i32 = -5;
    /// The highest code of SIGIO (`POLL_HUP`).
    const POLL_HUP: i32 = 6;

    fn of(info: &SigInfo) -> Layout {
        match info.code {
            SigInfo::SI_TIMER => Layout::Timer,
            Self::SI_SIGIO => Layout::Band,
            ..=-1 => Layout::Value,
            1..SigInfo::SI_KERNEL => match info.signo as u32 {
                SIGILL | SIGFPE | SIGSEGV | SIGBUS | SIGTRAP => Layout::Fault,
                SIGCHLD => Layout::Child,
                SIGIO => Layout::Band,
                SIGSYS => Layout::Call,
                _ if info.code <= Self::POLL_HUP => Layout::Band,
                _ => Layout::Sender,
            },
            _ => Layout::Sender,
        }
    }
}

/// Returns a siginfo as a read gives it.
pub fn to_record(info: &SigInfo) -> SignalfdSiginfo {
    let halves = |field: u64| (field as u32, (field >> 32) as u32);
    let record = SignalfdSiginfo {
        signo: info.signo as u32,
        errno: info.errno,
        code: info.code,
        ..SignalfdSiginfo::default()
    };
    let (pid, uid) = halves(info.field0);
    match Layout::of(info) {
        Layout::Sender => SignalfdSiginfo { pid, uid, ..record },
        Layout::Value => SignalfdSiginfo { pid, uid, ptr: info.field1, int: info.field1 as i32, ..record },
        Layout::Timer => {
            SignalfdSiginfo { tid: pid, overrun: uid, ptr: info.field1, int: info.field1 as i32, ..record }
        }
        Layout::Band => SignalfdSiginfo { band: pid, fd: info.field1 as i32, ..record },
        Layout::Fault => SignalfdSiginfo { addr: info.field0, ..record },
        Layout::Child => SignalfdSiginfo {
            pid,
            uid,
            status: info.field1 as i32,
            utime: info.field2,
            stime: info.field3,
            ..record
        },
        Layout::Call => {
            let (number, arch) = halves(info.field1);
            SignalfdSiginfo { call_addr: info.field0, syscall: number as i32, arch, ..record }
        }
    }
}

#[cfg(test)]
mod tests {
    use lg_abi::Signal;

    use super::*;

    #[test]
    fn the_fields_of_a_record_are_those_that_mean_something() {
        let info = SigInfo { field1: 7, ..SigInfo::from_process(Signal::SIGUSR1, SigInfo::SI_QUEUE, 12, 34) };
        let queued = to_record(&info);
        assert_eq!((queued.pid, queued.uid, queued.int, queued.ptr), (12, 34, 7, 7));
        let sent = to_record(&SigInfo { code: SigInfo::SI_USER, ..info });
        assert_eq!((sent.pid, sent.uid, sent.int, sent.ptr), (12, 34, 0, 0));
        let timer = to_record(&SigInfo { code: SigInfo::SI_TIMER, ..info });
        assert_eq!((timer.pid, timer.tid, timer.overrun, timer.int), (0, 12, 34, 7));
        let child = to_record(&SigInfo::from_child(1, 12, 34, 3));
        assert_eq!((child.pid, child.uid, child.status, child.int), (12, 34, 3, 0));
        let fault = to_record(&SigInfo::from_fault(Signal::SIGSEGV, 1, 0x1234_5678_9abc));
        assert_eq!((fault.addr, fault.pid), (0x1234_5678_9abc, 0));
    }
}
