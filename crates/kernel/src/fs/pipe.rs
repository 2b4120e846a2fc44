//! Pipes and FIFOs (pipe(7), fifo(7)).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_abi::raw::general::{O_ACCMODE, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, S_IFIFO};
use lg_abi::raw::ioctl::FIONREAD;

use super::anon::AnonInode;
use crate::mm::UserMemory;
use crate::task::{Stop, Tid, Wait, WaitQueue};
use crate::vfs::{Attr, AttrChange, File, FileDescription, FsContext, Inode, Readiness};

/// Writes of up to this many bytes are atomic.
pub const PIPE_BUF: usize = 4096;
/// The capacity of a new pipe.
const DEFAULT_CAPACITY: usize = 64 * 1024;
/// The largest capacity F_SETPIPE_SZ gives: `/proc/sys/fs/pipe-max-size`.
pub const MAX_CAPACITY: usize = 1 << 20;
/// The capacity of all pipes together; beyond it a new pipe holds one page.
const TOTAL_CAPACITY: usize = 64 << 20;

/// Counts the capacity of all pipes of a kernel.
#[derive(Default)]
pub struct PipeQuota(Cell<usize>);

/// A pipe, with or without a name.
#[derive(Default)]
pub struct Fifo {
    buffer: RefCell<VecDeque<u8>>,
    /// Zero until first opened.
    capacity: Cell<usize>,
    quota: RefCell<Option<Rc<PipeQuota>>>,
    readers: Cell<u32>,
    writers: Cell<u32>,
    /// How many times it was opened for writing.
    writer_opens: Cell<u64>,
    /// Woken when there is something to read, or no writer any more.
    readable: Rc<WaitQueue>,
    /// Woken when there is room to write, or no reader any more.
    writable: Rc<WaitQueue>,
    opening_readers: Rendezvous,
    opening_writers: Rendezvous,
}

/// Tasks that wait in open(2) for the other side. A task waits, or has met its other side and will soon know,
/// as long as its call is not over: so long it keeps the queue that it sleeps on.
#[derive(Default)]
struct Rendezvous {
    waiting: RefCell<HashMap<Tid, Weak<WaitQueue>>>,
    met: RefCell<HashMap<Tid, Weak<WaitQueue>>>,
}

impl Rendezvous {
    /// Lets every waiting task through; says whether there was any.
    fn release(&self) -> bool {
        let mut any = false;
        for (tid, waiting) in self.waiting.take() {
            if let Some(queue) = waiting.upgrade() {
                any = true;
                self.met.borrow_mut().insert(tid, waiting);
                queue.wake_all();
            }
        }
        any
    }

    fn take_met(&self, tid: Tid) -> bool {
        self.met.borrow_mut().remove(&tid).is_some_and(|queue| queue.strong_count() > 0)
    }

    /// Says whether a task is about to finish its open(2): it counts as having the pipe open.
    fn is_someone_coming(&self) -> bool {
        self.met.borrow().values().any(|queue| queue.strong_count() > 0)
    }

    fn wait(&self, tid: Tid) -> Stop {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|_, queue| queue.strong_count() > 0);
        let queue = waiting.get(&tid).and_then(Weak::upgrade).unwrap_or_default();
        waiting.insert(tid, Rc::downgrade(&queue));
        Stop::Block(Wait::on([queue]))
    }
}

/// Says whether open(2) waits for the other side of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meeting {
    /// It does: a FIFO.
    Wait,
    /// It does not: a nameless pipe.
    Skip,
}

impl Fifo {
    /// Returns a FIFO that nobody has opened.
    pub fn new() -> Rc<Fifo> {
        Rc::default()
    }

    /// Opens a FIFO by its name.
    pub fn open(self: &Rc<Fifo>, cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop> {
        self.open_with(cx, flags, Meeting::Wait)
    }

    fn open_with(
        self: &Rc<Fifo>,
        cx: &FsContext<'_>,
        flags: u32,
        meeting: Meeting,
    ) -> Result<Rc<dyn File>, Stop> {
        let meets = meeting == Meeting::Wait && flags & O_NONBLOCK == 0;
        self.forget_if_unused();
        match flags & O_ACCMODE {
            O_RDONLY if meets && self.writers.get() == 0 => {
                let met = self.opening_readers.take_met(cx.tid);
                if !self.opening_writers.release() && !met {
                    return Err(self.opening_readers.wait(cx.tid));
                }
            }
            O_WRONLY if meeting == Meeting::Wait && self.readers.get() == 0 => {
                if !meets {
                    return Err(Errno::ENXIO.into());
                }
                let met = self.opening_writers.take_met(cx.tid);
                if !self.opening_readers.release() && !met {
                    return Err(self.opening_writers.wait(cx.tid));
                }
            }
            O_RDONLY | O_WRONLY | O_RDWR => {}
            _ => return Err(Errno::EINVAL.into()),
        }
        Ok(self.end(cx, flags))
    }

    /// Returns one end, counted.
    fn end(self: &Rc<Fifo>, cx: &FsContext<'_>, flags: u32) -> Rc<PipeFile> {
        let access = flags & O_ACCMODE;
        let (reads, writes) = (access != O_WRONLY, access != O_RDONLY);
        if self.capacity.get() == 0 {
            let quota = cx.vfs.pipe_quota().clone();
            let room = quota.0.get() + DEFAULT_CAPACITY <= TOTAL_CAPACITY;
            *self.quota.borrow_mut() = Some(quota);
            self.set_capacity(if room { DEFAULT_CAPACITY } else { PIPE_BUF });
        }
        let end = PipeFile { pipe: self.clone(), reads, writes, writers_before: self.writer_opens.get() };
        if reads {
            self.readers.set(self.readers.get() + 1);
            self.opening_writers.release();
        }
        if writes {
            self.writers.set(self.writers.get() + 1);
            self.writer_opens.set(self.writer_opens.get() + 1);
            self.opening_readers.release();
        }
        Rc::new(end)
    }

    fn set_capacity(&self, capacity: usize) {
        if let Some(quota) = &*self.quota.borrow() {
            quota.0.set((quota.0.get() + capacity).saturating_sub(self.capacity.get()));
        }
        self.capacity.set(capacity);
    }

    fn has_readers(&self) -> bool {
        self.readers.get() > 0 || self.opening_readers.is_someone_coming()
    }

    fn has_writers(&self) -> bool {
        self.writers.get() > 0 || self.opening_writers.is_someone_coming()
    }

    /// What was written stays only as long as somebody has the pipe open.
    fn forget_if_unused(&self) {
        if !self.has_readers() && !self.has_writers() {
            self.buffer.take();
        }
    }

    fn len(&self) -> usize {
        self.buffer.borrow().len()
    }

    fn room(&self) -> usize {
        self.capacity.get().saturating_sub(self.len())
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        self.set_capacity(0);
    }
}

/// An open end of a pipe, or both.
pub struct PipeFile {
    pipe: Rc<Fifo>,
    reads: bool,
    writes: bool,
    /// How many writers had come before this end was opened: without one since, there is no hang-up.
    writers_before: u64,
}

impl PipeFile {
    /// Returns the capacity in bytes.
    pub fn capacity(&self) -> usize {
        self.pipe.capacity.get()
    }

    /// Changes the capacity to `bytes` rounded up to a power of two of pages (fcntl(2) F_SETPIPE_SZ).
    ///
    /// Errors: EBUSY where it holds more, EPERM beyond the limit.
    pub fn set_capacity(&self, bytes: u64) -> Result<usize, Errno> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_CAPACITY).ok_or(Errno::EPERM)?;
        let capacity = bytes.max(PIPE_BUF).next_power_of_two();
        if capacity < self.pipe.len() {
            return Err(Errno::EBUSY);
        }
        let grows = capacity.saturating_sub(self.capacity());
        if let Some(quota) = &*self.pipe.quota.borrow()
            && grows > 0
            && quota.0.get() + grows > TOTAL_CAPACITY
        {
            return Err(Errno::EPERM);
        }
        self.pipe.set_capacity(capacity);
        self.pipe.buffer.borrow_mut().shrink_to(capacity);
        self.pipe.writable.wake_all();
        Ok(capacity)
    }

    /// Copies what a read would give without taking it out (tee(2)).
    pub fn peek(&self, buf: &mut [u8]) -> usize {
        let buffer = self.pipe.buffer.borrow();
        let count = buf.len().min(buffer.len());
        for (to, from) in buf.iter_mut().zip(buffer.iter()) {
            *to = *from;
        }
        count
    }

    /// Says whether both are ends of one pipe.
    pub fn same_pipe(&self, other: &PipeFile) -> bool {
        Rc::ptr_eq(&self.pipe, &other.pipe)
    }

    /// Returns how many bytes can be read now.
    pub fn len(&self) -> usize {
        self.pipe.len()
    }

    /// Says whether nothing can be read now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes can be written now, and whether anybody could read them.
    pub fn room(&self) -> usize {
        self.pipe.room()
    }
}

/// Returns the pipe that a file is an end of, if it is one.
pub fn as_pipe(file: &Rc<dyn File>) -> Option<Rc<PipeFile>> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<PipeFile>().ok()
}

impl File for PipeFile {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if !self.reads {
            return Err(Errno::EBADF);
        }
        let mut buffer = self.pipe.buffer.borrow_mut();
        if buffer.is_empty() {
            return if buf.is_empty() || !self.pipe.has_writers() { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let count = std::io::Read::read(&mut *buffer, buf).unwrap_or(0);
        let count = if count < buf.len() {
            count + std::io::Read::read(&mut *buffer, &mut buf[count..]).unwrap_or(0)
        } else {
            count
        };
        drop(buffer);
        self.pipe.writable.wake_all();
        Ok(count)
    }

    fn write(&self, _cx: &FsContext<'_>, _offset: u64, data: &[u8]) -> Result<usize, Errno> {
        if !self.writes {
            return Err(Errno::EBADF);
        }
        if data.is_empty() {
            return Ok(0);
        }
        if !self.pipe.has_readers() {
            return Err(Errno::EPIPE);
        }
        let room = self.pipe.room();
        let count = data.len().min(room);
        if count == 0 || data.len() <= PIPE_BUF && count < data.len() {
            return Err(Errno::EAGAIN);
        }
        self.pipe.buffer.borrow_mut().extend(&data[..count]);
        self.pipe.readable.wake_all();
        Ok(count)
    }

    fn has_position(&self) -> bool {
        false
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        let pipe = &self.pipe;
        let mut ready = Readiness::empty();
        if self.reads {
            if pipe.len() > 0 {
                ready |= Readiness::READABLE;
            }
            if !pipe.has_writers() && pipe.writer_opens.get() != self.writers_before {
                ready |= Readiness::HUP;
            }
        }
        if self.writes {
            if pipe.room() >= PIPE_BUF.min(pipe.capacity.get()) {
                ready |= Readiness::WRITABLE;
            }
            if !pipe.has_readers() {
                ready |= Readiness::ERR;
            }
        }
        ready
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        let readable = self.reads.then(|| self.pipe.readable.clone());
        let writable = self.writes.then(|| self.pipe.writable.clone());
        readable.into_iter().chain(writable).collect()
    }

    fn ioctl(
        &self,
        _cx: &FsContext<'_>,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        match request {
            FIONREAD => {
                let len = i32::try_from(self.pipe.len()).unwrap_or(i32::MAX);
                user.write(argument, &len.to_ne_bytes()).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

impl Drop for PipeFile {
    fn drop(&mut self) {
        let pipe = &self.pipe;
        if self.reads {
            pipe.readers.set(pipe.readers.get().saturating_sub(1));
        }
        if self.writes {
            pipe.writers.set(pipe.writers.get().saturating_sub(1));
        }
        pipe.forget_if_unused();
        pipe.readable.wake_all();
        pipe.writable.wake_all();
    }
}

/// The inode of a nameless pipe.
struct PipeInode {
    anon: AnonInode,
    pipe: Rc<Fifo>,
}

impl Inode for PipeInode {
    fn attr(&self, _cx: &FsContext<'_>) -> Result<Attr, Errno> {
        Ok(self.anon.attr())
    }

    fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        self.anon.set_attr(cx, change)
    }

    fn open(self: Rc<Self>, cx: &FsContext<'_>, flags: u32) -> Result<Rc<dyn File>, Stop> {
        self.pipe.open_with(cx, flags, Meeting::Skip)
    }
}

/// Makes a pipe; returns the end to read and the end to write. `flags` may hold O_NONBLOCK and O_DIRECT.
pub fn new_pipe(cx: &FsContext<'_>, flags: u32) -> Result<(Rc<FileDescription>, Rc<FileDescription>), Errno> {
    let pipe = Fifo::new();
    let anon = AnonInode::new(cx, S_IFIFO | 0o600);
    let name = format!("pipe:[{}]", anon.ino());
    let inode: Rc<dyn Inode> = Rc::new(PipeInode { anon, pipe: pipe.clone() });
    let path = cx.vfs.nameless_path(inode, name.as_bytes());
    let reader = pipe.end(cx, O_RDONLY);
    let writer = pipe.end(cx, O_WRONLY);
    Ok((
        FileDescription::new(cx, reader, path.clone(), flags | O_RDONLY)?,
        FileDescription::new(cx, writer, path, flags | O_WRONLY)?,
    ))
}
