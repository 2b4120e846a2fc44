//! POSIX message queues (mq_overview(7)): messages by priority, behind descriptors, found by name.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};

use lg_abi::ipc::NOTIFY_COOKIE_LEN;
use lg_abi::raw::general::S_IFREG;
use lg_abi::{Errno, MqAttr};

use crate::fs::anon::AnonInode;
use crate::net::NetlinkListener;
use crate::task::{Stop, Tid, WaitQueue};
use crate::vfs::{Attr, AttrChange, File, FsContext, Inode, Quota, Readiness};

/// Most messages in a queue, and bytes in a message, that a user may ask for (`fs.mqueue.msg_max`, `msgsize_max`).
pub const MSG_MAX: i64 = 10;
/// See [`MSG_MAX`].
pub const MSGSIZE_MAX: i64 = 8192;
/// The same for who has CAP_SYS_RESOURCE.
pub const HARD_MSG_MAX: i64 = 65_536;
/// See [`HARD_MSG_MAX`].
pub const HARD_MSGSIZE_MAX: i64 = 16 << 20;
/// Most queues (`fs.mqueue.queues_max`).
pub const QUEUES_MAX: usize = 256;
/// Most queues in any case.
pub const HARD_QUEUES_MAX: usize = 4096;
/// Priorities are below this (MQ_PRIO_MAX).
pub const PRIORITIES: u32 = 32_768;

/// What Linux counts for each message beside its text, and for each priority.
const MESSAGE_BYTES: u64 = 48;
/// What stat(2) shows as the length of a queue.
const SHOWN_BYTES: u64 = 80;

/// Who is told of a message that comes to an empty queue, and how.
#[derive(Clone)]
pub struct Notification {
    /// The process.
    pub process: Tid,
    /// How it is told.
    pub means: Means,
}

/// How a process is told of a message (sigevent(3type)).
#[derive(Clone)]
pub enum Means {
    /// Not at all (SIGEV_NONE).
    Nothing,
    /// By a signal with a value (SIGEV_SIGNAL).
    Signal(i32, u64),
    /// By a packet to a netlink socket, which a thread of the C library reads (SIGEV_THREAD).
    Packet(NetlinkListener, [u8; NOTIFY_COOKIE_LEN]),
}

/// What the last byte of such a packet says (linux/mqueue.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// A message has come.
    WokenUp = 1,
    /// Nothing more is told.
    Removed = 2,
}

impl Notification {
    /// Sends the packet, if that is how the process is told.
    pub fn send_packet(&self, told: Told) {
        if let Means::Packet(listener, mut packet) = self.means.clone() {
            packet[NOTIFY_COOKIE_LEN - 1] = told as u8;
            listener.tell(&packet);
        }
    }
}

/// Bytes of queues by user, against RLIMIT_MSGQUEUE.
pub type Charges = Rc<RefCell<BTreeMap<u32, u64>>>;

/// A msgrcv-like call that waits for a message, which a sender hands to it.
pub struct Waiter {
    message: RefCell<Option<(u32, Vec<u8>)>>,
    /// Woken once it has its message.
    pub done: Rc<WaitQueue>,
}

impl Waiter {
    /// Takes the message that was handed over.
    pub fn take(&self) -> Option<(u32, Vec<u8>)> {
        self.message.take()
    }
}

/// A queue.
pub struct MqQueue {
    attr: AnonInode,
    max_messages: i64,
    max_len: i64,
    messages: RefCell<BTreeMap<u32, VecDeque<Vec<u8>>>>,
    count: Cell<i64>,
    bytes: Cell<u64>,
    waiters: RefCell<Vec<Weak<Waiter>>>,
    notification: RefCell<Option<Notification>>,
    /// Woken when a message comes or goes.
    pub changed: Rc<WaitQueue>,
    charge: (u32, u64),
    charges: Charges,
    total: Rc<Quota>,
}

impl MqQueue {
    /// Makes a queue whose owner may have `limit` bytes in queues.
    ///
    /// Errors: EINVAL and EOVERFLOW for lengths that can not be, EMFILE beyond the limit.
    pub fn new(
        cx: &FsContext<'_>,
        mode: u32,
        (max_messages, max_len): (i64, i64),
        limit: u64,
        charges: &Charges,
        total: &Rc<Quota>,
    ) -> Result<Rc<MqQueue>, Errno> {
        let is_privileged = cx.creds.has_capability(lg_abi::raw::general::CAP_SYS_RESOURCE);
        let (most, longest) =
            if is_privileged { (HARD_MSG_MAX, HARD_MSGSIZE_MAX) } else { (MSG_MAX, MSGSIZE_MAX) };
        if !(1..=most).contains(&max_messages) || !(1..=longest).contains(&max_len) {
            return Err(Errno::EINVAL);
        }
        let (messages, len) = (max_messages as u64, max_len as u64);
        let tree = messages * MESSAGE_BYTES + messages.min(u64::from(PRIORITIES)) * MESSAGE_BYTES;
        let bytes = messages.checked_mul(len).and_then(|bytes| bytes.checked_add(tree));
        let bytes = bytes.ok_or(Errno::EOVERFLOW)?;
        let uid = cx.creds.uid;
        let charged = charges.borrow().get(&uid).copied().unwrap_or(0);
        if charged.saturating_add(bytes) > limit {
            return Err(Errno::EMFILE);
        }
        charges.borrow_mut().insert(uid, charged + bytes);
        Ok(Rc::new(MqQueue {
            attr: AnonInode::new(cx, S_IFREG | mode & 0o7777),
            max_messages,
            max_len,
            messages: RefCell::default(),
            count: Cell::new(0),
            bytes: Cell::new(0),
            waiters: RefCell::default(),
            notification: RefCell::default(),
            changed: WaitQueue::new(),
            charge: (uid, bytes),
            charges: charges.clone(),
            total: total.clone(),
        }))
    }

    /// Returns owner and mode.
    pub fn attributes(&self) -> Attr {
        Attr { size: SHOWN_BYTES, ..self.attr.attr() }
    }

    /// Returns what mq_getattr(3) shows, but for the flags of the open file.
    pub fn show(&self) -> MqAttr {
        MqAttr {
            mq_maxmsg: self.max_messages,
            mq_msgsize: self.max_len,
            mq_curmsgs: self.count.get(),
            ..MqAttr::default()
        }
    }

    /// Returns the most bytes in a message.
    pub fn max_len(&self) -> u64 {
        self.max_len as u64
    }

    /// Says whether no message has room.
    pub fn is_full(&self) -> bool {
        self.count.get() >= self.max_messages
    }

    /// Hands a message to who waits for one, or puts it in; there must be room. Returns who is to be told.
    ///
    /// Errors: ENOMEM.
    pub fn send(&self, priority: u32, text: Vec<u8>) -> Result<Option<Notification>, Errno> {
        let waiters = self.waiters.take();
        let mut live = waiters.into_iter().filter(|waiter| waiter.strong_count() > 0);
        let first = live.next().and_then(|waiter| waiter.upgrade());
        *self.waiters.borrow_mut() = live.collect();
        if let Some(waiter) = first {
            *waiter.message.borrow_mut() = Some((priority, text));
            waiter.done.wake_all();
            return Ok(None);
        }
        let bytes = text.len() as u64 + MESSAGE_BYTES;
        self.total.take(bytes).map_err(|_| Errno::ENOMEM)?;
        self.bytes.set(self.bytes.get() + bytes);
        self.messages.borrow_mut().entry(priority).or_default().push_back(text);
        self.count.set(self.count.get() + 1);
        self.changed.wake_all();
        Ok(if self.count.get() == 1 { self.notification.take() } else { None })
    }

    /// Takes out the oldest message of the highest priority.
    pub fn receive(&self) -> Option<(u32, Vec<u8>)> {
        let mut messages = self.messages.borrow_mut();
        let mut highest = messages.last_entry()?;
        let priority = *highest.key();
        let text = highest.get_mut().pop_front();
        if highest.get().is_empty() {
            highest.remove();
        }
        let text = text?;
        let bytes = text.len() as u64 + MESSAGE_BYTES;
        self.total.give(bytes);
        self.bytes.set(self.bytes.get() - bytes);
        self.count.set(self.count.get() - 1);
        self.changed.wake_all();
        Some((priority, text))
    }

    /// Returns a new waiter for a message.
    pub fn wait(&self) -> Rc<Waiter> {
        let waiter = Rc::new(Waiter { message: RefCell::new(None), done: WaitQueue::new() });
        self.waiters.borrow_mut().push(Rc::downgrade(&waiter));
        waiter
    }

    /// Returns who is to be told of the next message.
    pub fn notification(&self) -> Option<Notification> {
        self.notification.borrow().clone()
    }

    /// Sets who is to be told.
    pub fn set_notification(&self, notification: Notification) {
        *self.notification.borrow_mut() = Some(notification);
    }

    /// Has nobody told any more, and says so to who would have been told by a packet.
    pub fn cancel_notification(&self) {
        if let Some(cancelled) = self.notification.take() {
            cancelled.send_packet(Told::Removed);
        }
    }

    /// Returns the text that read(2) gives.
    fn text(&self) -> String {
        let bytes: u64 = self.messages.borrow().values().flatten().map(|text| text.len() as u64).sum();
        let told = self.notification();
        let (kind, signal) = match told.as_ref().map(|told| &told.means) {
            Some(Means::Signal(signal, _)) => (lg_abi::ipc::SIGEV_SIGNAL, *signal),
            Some(Means::Packet(..)) => (lg_abi::ipc::SIGEV_THREAD, 0),
            Some(Means::Nothing) => (lg_abi::ipc::SIGEV_NONE, 0),
            None => (0, 0),
        };
        let pid = told.map_or(0, |told| told.process.0);
        format!("QSIZE:{bytes:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n")
    }
}

impl Drop for MqQueue {
    fn drop(&mut self) {
        self.total.give(self.bytes.get());
        let (uid, bytes) = self.charge;
        let mut charges = self.charges.borrow_mut();
        if let Some(charged) = charges.get_mut(&uid) {
            *charged = charged.saturating_sub(bytes);
            if *charged == 0 {
                charges.remove(&uid);
            }
        }
    }
}

/// A queue as an inode and as an open file.
pub struct MqFile(pub Rc<MqQueue>);

impl Inode for MqFile {
    fn attr(&self, _cx: &FsContext<'_>) -> Result<Attr, Errno> {
        Ok(self.0.attributes())
    }

    fn set_attr(&self, cx: &FsContext<'_>, change: &AttrChange) -> Result<(), Errno> {
        self.0.attr.set_attr(cx, change)
    }

    fn open(self: Rc<Self>, _cx: &FsContext<'_>, _flags: u32) -> Result<Rc<dyn File>, Stop> {
        Ok(self)
    }
}

impl File for MqFile {
    fn read(&self, _cx: &FsContext<'_>, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let text = self.0.text();
        let rest = usize::try_from(offset).ok().and_then(|offset| text.as_bytes().get(offset..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        let mut ready = Readiness::empty();
        if self.0.count.get() > 0 {
            ready |= Readiness::READABLE;
        }
        if !self.0.is_full() {
            ready |= Readiness::WRITABLE;
        }
        ready
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.0.changed.clone()]
    }

    /// A process that closes a descriptor is told of messages no more.
    fn descriptor_closed(&self, cx: &FsContext<'_>) {
        let process = cx.procs.pid_of(cx.tid.0).unwrap_or(cx.tid.0);
        if self.0.notification().is_some_and(|told| told.process.0 == process) {
            self.0.cancel_notification();
        }
    }
}
