//! The standard streams of a sandbox: descriptors that the host gives it.
//!
//! Their open file descriptions are shared with other host processes, so O_NONBLOCK is never set on them.
//! Instead each transfer first asks poll(2), and writes no more at once than what then can not block.
//!
//! In a fork of the sandbox they are detached, since they belong to whoever started the original: reads find
//! the end of the file, and what is written is thrown away.

use std::any::Any;
use std::cell::RefCell;
use std::io::SeekFrom;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{
    O_ACCMODE, O_APPEND, O_RDONLY, O_RDWR, O_WRONLY, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK,
};
use lg_abi::raw::ioctl::FIONREAD;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno as HostErrno;

use super::anon::AnonInode;
use super::host::to_errno;
use super::terminal::Terminal;
use crate::mm::UserMemory;
use crate::task::{HostEvent, Interest, Stop, WaitQueue};
use crate::vfs::{
    Attr, AttrChange, File, FileDescription, Final, FsContext, FsState, Inode, Path, Readiness, make_dev,
};

/// How much a pipe or a terminal takes at least when poll(2) says that it is writable.
const SAFE_WRITE: usize = 4096;

/// The device number of the sandbox's terminal: the first pseudo-terminal.
const TERMINAL: u64 = make_dev(136, 0);

/// A host descriptor as a file of the sandbox.
pub struct HostStream {
    /// None once it is detached.
    host: RefCell<Option<Rc<OwnedFd>>>,
    file_type: u32,
    terminal: Option<Rc<Terminal>>,
    /// Woken by each transfer: an edge-triggered watcher must look again after it.
    transfers: Rc<WaitQueue>,
}

impl HostStream {
    /// Returns the host descriptor if it is a terminal.
    pub fn terminal(&self) -> Option<&Rc<Terminal>> {
        self.terminal.as_ref()
    }

    /// Lets go of the host's descriptor.
    pub fn detach(&self) {
        self.host.take();
        self.transfers.wake_all();
    }

    fn host(&self) -> Option<Rc<OwnedFd>> {
        self.host.borrow().clone()
    }

    fn is_regular(&self) -> bool {
        self.file_type == S_IFREG
    }

    fn poll(host: &OwnedFd, wanted: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(host, wanted)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }
}

impl HostStream {
    fn write_to(&self, host: &OwnedFd, data: &[u8]) -> Result<usize, Errno> {
        if self.is_regular() {
            return retry(|| rustix::io::write(host, data));
        }
        self.transfers.wake_all();
        let mut done = 0;
        for chunk in data.chunks(SAFE_WRITE) {
            if Self::poll(host, PollFlags::OUT).is_empty() {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            match retry(|| rustix::io::write(host, chunk)) {
                Ok(written) => done += written,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, HostErrno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(HostErrno::INTR) => {}
            result => return result.map_err(to_errno),
        }
    }
}

impl File for HostStream {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.transfers.wake_all();
        let Some(host) = self.host() else { return Ok(0) };
        if !self.is_regular() && Self::poll(&host, PollFlags::IN).is_empty() {
            return Err(Errno::EAGAIN);
        }
        retry(|| rustix::io::read(&*host, &mut *buf))
    }

    fn write(&self, cx: &FsContext<'_>, _offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let Some(host) = self.host() else { return Ok(data.len()) };
        let written = self.write_to(&host, data)?;
        // Beyond the limit the kernel ends the sandbox by itself.
        cx.vfs.output().take_over_limit(written as u64);
        Ok(written)
    }

    fn has_position(&self) -> bool {
        false
    }

    fn is_pollable(&self) -> bool {
        !self.is_regular()
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.transfers.clone()]
    }

    fn seek(&self, to: SeekFrom) -> Option<Result<u64, Errno>> {
        if !self.is_regular() {
            return None;
        }
        let to = match to {
            SeekFrom::Start(offset) => rustix::fs::SeekFrom::Start(offset),
            SeekFrom::End(offset) => rustix::fs::SeekFrom::End(offset),
            SeekFrom::Current(offset) => rustix::fs::SeekFrom::Current(offset),
        };
        let host = self.host()?;
        Some(rustix::fs::seek(&*host, to).map_err(to_errno))
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        let Some(host) = self.host().filter(|_| !self.is_regular()) else { return Readiness::ALWAYS };
        let ready = Self::poll(&host, PollFlags::IN | PollFlags::OUT);
        let mut readiness = Readiness::from_bits_truncate(u32::from(ready.bits()));
        if readiness.contains(Readiness::IN) {
            readiness |= Readiness::RDNORM;
        }
        if readiness.contains(Readiness::OUT) {
            readiness |= Readiness::WRNORM;
        }
        readiness
    }

    fn host_events(&self, interest: Readiness) -> Vec<HostEvent> {
        let Some(host) = self.host().filter(|_| !self.is_regular()) else { return Vec::new() };
        let mut events = Vec::new();
        for (wanted, direction) in
            [(Readiness::READABLE, Interest::Read), (Readiness::WRITABLE, Interest::Write)]
        {
            if interest.intersects(wanted) {
                events.push(HostEvent { fd: host.clone(), interest: direction });
            }
        }
        events
    }

    fn ioctl(
        &self,
        cx: &FsContext<'_>,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        let Some(host) = self.host() else { return Err(Errno::ENOTTY) };
        if let Some(terminal) = &self.terminal {
            return terminal.ioctl(cx, &host, user, request, argument);
        }
        match request {
            FIONREAD => {
                let available = rustix::io::ioctl_fionread(&*host).map_err(to_errno)?;
                let available = i32::try_from(available).unwrap_or(i32::MAX);
                user.write(argument, &available.to_ne_bytes()).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// The inode of a standard stream. Device and inode number are the sandbox's own.
pub struct HostStreamInode {
    anon: AnonInode,
    stream: Rc<HostStream>,
}

impl Inode for HostStreamInode {
    fn attr(&self, _cx: &FsContext<'_>) -> Result<Attr, Errno> {
        let mut attr = self.anon.attr();
        if self.stream.is_regular()
            && let Some(host) = self.stream.host()
            && let Ok(stat) = rustix::fs::fstat(&*host)
        {
            attr.size = u64::try_from(stat.st_size).unwrap_or(0);
            attr.blocks = attr.size.div_ceil(512);
        }
        Ok(attr)
    }

    fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        if let Some(size) = change.size {
            if !self.stream.is_regular() {
                return Err(Errno::EINVAL);
            }
            let Some(host) = self.stream.host() else { return Ok(()) };
            return rustix::fs::ftruncate(&*host, size).map_err(to_errno);
        }
        self.anon.set_attr(cx, change)
    }

    fn open(self: Rc<Self>, _cx: &FsContext<'_>, _flags: u32) -> Result<Rc<dyn File>, Stop> {
        Ok(self.stream.clone())
    }
}

/// Returns the terminal that a file is, if it is one.
pub fn as_terminal(file: &Rc<dyn File>) -> Option<Rc<Terminal>> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<HostStream>().ok().and_then(|stream| stream.terminal.clone())
}

/// Returns the device node of the terminal, `/dev/pts/0`, which is there once the sandbox has the terminal.
fn terminal_node(cx: &FsContext<'_>) -> Result<Path, Errno> {
    const NODE: &[u8] = b"/dev/pts/0";
    let root = cx.vfs.root()?;
    FsState::new(root).lookup(cx, NODE, Final::NoFollow)
}

/// Makes a stream of a host descriptor. Where that is a terminal it becomes the sandbox's, `terminal`.
///
/// Errors: EBADF for a descriptor that is not open; EINVAL for one that is no stream, such as a directory.
pub fn open_stream(
    cx: &FsContext<'_>,
    host: OwnedFd,
    name: &str,
    terminal: &Rc<Terminal>,
) -> Result<Rc<FileDescription>, Errno> {
    let stat = rustix::fs::fstat(&host).map_err(to_errno)?;
    let file_type = stat.st_mode & S_IFMT;
    if !matches!(file_type, S_IFREG | S_IFIFO | S_IFCHR | S_IFSOCK) {
        return Err(Errno::EINVAL);
    }
    let host_flags = rustix::fs::fcntl_getfl(&host).map_err(to_errno)?.bits();
    let access = match host_flags & O_ACCMODE {
        access @ (O_RDONLY | O_WRONLY | O_RDWR) => access,
        _ => return Err(Errno::EINVAL),
    };
    let is_terminal = file_type == S_IFCHR && rustix::termios::isatty(&host);
    let stream = Rc::new(HostStream {
        host: RefCell::new(Some(Rc::new(host))),
        file_type,
        terminal: is_terminal.then(|| terminal.clone()),
        transfers: WaitQueue::new(),
    });
    let mode = if is_terminal { S_IFCHR | 0o620 } else { file_type | 0o600 };
    let anon = AnonInode::new(cx, mode);
    if is_terminal {
        anon.set_rdev(TERMINAL);
    } else if file_type == S_IFCHR {
        anon.set_rdev(stat.st_rdev);
    }
    let shown = match file_type {
        _ if is_terminal => "/dev/tty".to_owned(),
        S_IFIFO => format!("pipe:[{}]", anon.ino()),
        S_IFSOCK => format!("socket:[{}]", anon.ino()),
        S_IFCHR => "/dev/null".to_owned(),
        _ => format!("/dev/{name}"),
    };
    let inode: Rc<dyn Inode> = Rc::new(HostStreamInode { anon, stream: stream.clone() });
    if is_terminal {
        if cx.vfs.terminal().is_none() {
            cx.vfs.set_terminal(Some(inode.clone()));
        }
        // ttyname(3) wants to find the terminal as a device node.
        if let Ok(path) = terminal_node(cx) {
            return FileDescription::new(cx, stream, path, access);
        }
    }
    FileDescription::nameless(cx, inode, stream, shown.as_bytes(), access | host_flags & O_APPEND)
}
