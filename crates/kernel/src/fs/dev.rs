//! `/dev`: the devices of a sandbox, all of them made up (null(4), full(4), random(4), tty(4)).

use std::rc::Rc;

use lg_abi::Errno;

use super::pty;
use crate::task::Stop;
use crate::vfs::{File, FsContext, NewInode, make_dev};

/// A device node.
pub struct Device {
    /// Its name in `/dev`.
    pub name: &'static str,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
}

/// The character devices.
pub const DEVICES: &[Device] = &[
    Device { name: "null", number: (1, 3), mode: 0o666 },
    Device { name: "zero", number: (1, 5), mode: 0o666 },
    Device { name: "full", number: (1, 7), mode: 0o666 },
    Device { name: "random", number: (1, 8), mode: 0o666 },
    Device { name: "urandom", number: (1, 9), mode: 0o666 },
    Device { name: "tty", number: (5, 0), mode: 0o666 },
    Device { name: "ptmx", number: (5, 2), mode: 0o666 },
    Device { name: "console", number: (5, 1), mode: 0o600 },
];

/// The symbolic links.
pub const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

impl Device {
    /// Returns what to make for it.
    pub fn node(&self) -> NewInode {
        NewInode::CharDevice(make_dev(self.number.0, self.number.1))
    }
}

/// Opens the character device of a number.
///
/// Errors: ENXIO where there is no such device.
pub fn open(cx: &FsContext<'_>, rdev: u64, flags: u32) -> Result<Rc<dyn File>, Stop> {
    let kind = match crate::vfs::split_dev(rdev) {
        (1, 3) => Kind::Null,
        (1, 5) => Kind::Zero,
        (1, 7) => Kind::Full,
        (1, 8 | 9) => Kind::Random,
        (5, 2) => return pty::open_ptmx(cx),
        (5, 0) => return open_controlling(cx, flags),
        (5, 1) => return open_given(cx, flags),
        (136, index) => {
            return match cx.vfs.ptys().get(index) {
                Some(pty) => Ok(pty.open_slave(cx, flags)?),
                None if index == 0 => open_given(cx, flags),
                None => Err(Errno::EIO.into()),
            };
        }
        _ => return Err(Errno::ENXIO.into()),
    };
    Ok(Rc::new(MemDevice(kind)))
}

/// Opens the terminal of the host that the sandbox was given.
fn open_given(cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop> {
    cx.vfs.terminal().ok_or(Errno::ENXIO)?.open(cx, flags)
}

/// Opens the controlling terminal of the caller.
fn open_controlling(cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop> {
    let process = cx.procs.pid_of(cx.tid.0).and_then(|pid| cx.procs.process(pid));
    match process.and_then(|process| cx.vfs.ptys().of_session(process.session)) {
        Some(pty) => Ok(pty.open_slave(cx, flags)?),
        None => open_given(cx, flags),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

struct MemDevice(Kind);

impl File for MemDevice {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.0 {
            Kind::Null => return Ok(0),
            Kind::Zero | Kind::Full => buf.fill(0),
            Kind::Random => crate::syscall::fill_random(buf),
        }
        Ok(buf.len())
    }

    fn write(&self, _cx: &FsContext<'_>, _offset: u64, data: &[u8]) -> Result<usize, Errno> {
        match self.0 {
            Kind::Full => Err(Errno::ENOSPC),
            Kind::Null | Kind::Zero | Kind::Random => Ok(data.len()),
        }
    }

    fn seek(&self, _to: std::io::SeekFrom) -> Option<Result<u64, Errno>> {
        Some(Ok(0))
    }
}
