//! Signals to vmms of this process: to the one that is meant, or to none.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, getpgrp, pidfd_open, pidfd_send_signal};

/// What a vmm is called, a template's too.
const VMM: &str = "lg-vmm";

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VmmId {
    pub(super) pid: u32,
    /// When it started, in ticks of the host since its boot.
    pub(super) started: u64,
}

impl VmmId {
    /// The process with this number now; zombies count.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| stat.id)
    }
}

/// A line of /proc/PID/stat, proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) id: VmmId,
    pub(super) name: String,
    pub(super) is_zombie: bool,
    pub(super) parent: u32,
    pub(super) group: u32,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        // A name may be no UTF-8.
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        // The third field is the first of these.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            id: VmmId { pid: pid.parse().ok()?, started: field(22)?.parse().ok()? },
            name: name.to_owned(),
            is_zombie: matches!(field(3)?, "Z" | "X"),
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
        })
    }

    /// All processes of the host that can be seen, by number.
    pub(super) fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut all: Vec<Self> = pids.filter_map(Self::read).collect();
        all.sort_by_key(|stat| stat.id);
        all
    }

    /// Whether it is a living vmm that this process is the runtime of. What was left by other runtimes has another group.
    fn is_ours(&self) -> bool {
        self.parent == std::process::id()
            && self.group == getpgrp().as_raw_nonzero().get().cast_unsigned()
            && self.name == VMM
            && !self.is_zombie
    }
}

/// The living vmms of this process but that of the template, by number.
pub(super) fn vmms(template: u32) -> Vec<VmmId> {
    let ours = Stat::all().into_iter().filter(Stat::is_ours).map(|stat| stat.id);
    ours.filter(|vmm| vmm.pid != template).collect()
}

/// Sends a signal to a vmm of this process. Answers a descriptor of it, for further signals.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when it is not there any more.
pub(super) fn strike(vmm: VmmId, signal: Signal) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(vmm.pid.cast_signed()).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    // Only now is the number bound to one process: is it still the one that is meant?
    if !Stat::read(vmm.pid).is_some_and(|stat| stat.id == vmm && stat.is_ours()) {
        return Err(io::ErrorKind::NotFound.into());
    }
    pidfd_send_signal(&pidfd, signal)?;
    Ok(pidfd)
}

/// A vmm that is stopped, until this is dropped.
pub(super) struct Stopped(OwnedFd);

impl Stopped {
    /// Stops it.
    ///
    /// # Errors
    /// As [`strike`].
    pub(super) fn new(vmm: VmmId) -> io::Result<Self> {
        strike(vmm, Signal::STOP).map(Self)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It can only fail for a process that has ended.
        let _ = pidfd_send_signal(&self.0, Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_behind_any_name() {
        let text = "12 (a) b) S 34 56 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 10 11";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.id, &*stat.name), (VmmId { pid: 12, started: 9876 }, "a) b"));
        assert_eq!((stat.parent, stat.group, stat.is_zombie), (34, 56, false));
        for text in ["", "12 (x", "12 (x) Z", "12 (x) Z 1 2"] {
            assert_eq!(Stat::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_a_vmm_of_this_process_is_struck() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = VmmId::of(child.id()).unwrap();
        // It is a child, and no vmm.
        assert_eq!(strike(id, Signal::KILL).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!vmms(0).contains(&id));
        // A later process with the same number.
        let other = VmmId { started: id.started + 1, ..id };
        assert_eq!(strike(other, Signal::KILL).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(VmmId::of(id.pid).filter(|now| *now == id), None);
    }
}
