//! Message queues (msgget(2), msgop(2), msgctl(2)).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use lg_abi::{Errno, MsqidDs};

use super::{Caller, MSGMNB, Object, Permission};
use crate::task::WaitQueue;
use crate::vfs::Quota;

/// What a message takes beside its text, in bytes.
const BOOKKEEPING: u64 = 64;

/// A message.
pub struct Message {
    /// Its type, at least 1.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
    total: Rc<Quota>,
}

impl Message {
    /// Returns a message, which counts in `total`. Errors: ENOMEM.
    pub fn new(kind: i64, text: Vec<u8>, total: &Rc<Quota>) -> Result<Rc<Message>, Errno> {
        total.take(text.len() as u64 + BOOKKEEPING).map_err(|_| Errno::ENOMEM)?;
        Ok(Rc::new(Message { kind, text, total: total.clone() }))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.total.give(self.text.len() as u64 + BOOKKEEPING);
    }
}

/// Which message a receiver wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// The oldest.
    Any,
    /// The oldest of this type.
    Equal(i64),
    /// The oldest of another type (MSG_EXCEPT).
    NotEqual(i64),
    /// The oldest of the lowest type up to this one.
    AtMost(i64),
}

impl Selection {
    fn accepts(self, kind: i64) -> bool {
        match self {
            Selection::Any => true,
            Selection::Equal(wanted) => kind == wanted,
            Selection::NotEqual(unwanted) => kind != unwanted,
            Selection::AtMost(most) => kind <= most,
        }
    }
}

/// A msgrcv(2) that waits: a sender hands it its message.
pub struct Receiver {
    /// Which message it wants.
    pub selection: Selection,
    /// The longest text that it takes, in bytes; `None` where it cuts off the rest (MSG_NOERROR).
    pub max_len: Option<usize>,
    /// The process that waits.
    pub pid: u32,
    /// Woken once there is an outcome.
    pub done: Rc<WaitQueue>,
    outcome: RefCell<Option<Result<Rc<Message>, Errno>>>,
}

impl Receiver {
    /// Returns a receiver that has not got anything.
    pub fn new(selection: Selection, max_len: Option<usize>, pid: u32) -> Rc<Receiver> {
        Rc::new(Receiver { selection, max_len, pid, done: WaitQueue::new(), outcome: RefCell::new(None) })
    }

    /// Takes what has come of it; `None` while it waits.
    pub fn take_outcome(&self) -> Option<Result<Rc<Message>, Errno>> {
        self.outcome.take()
    }

    fn finish(&self, outcome: Result<Rc<Message>, Errno>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.done.wake_all();
    }

    fn takes(&self, message: &Message) -> Result<(), Errno> {
        if self.max_len.is_some_and(|max| message.text.len() > max) { Err(Errno::E2BIG) } else { Ok(()) }
    }
}

/// A queue.
pub struct Queue {
    permission: Cell<Permission>,
    messages: RefCell<VecDeque<Rc<Message>>>,
    bytes: Cell<u64>,
    max_bytes: Cell<u64>,
    receivers: RefCell<Vec<Weak<Receiver>>>,
    /// Woken when there is room, and when the queue is removed.
    pub room: Rc<WaitQueue>,
    removed: Cell<bool>,
    send_time: Cell<i64>,
    receive_time: Cell<i64>,
    change_time: Cell<i64>,
    last_sender: Cell<u32>,
    last_receiver: Cell<u32>,
}

impl Queue {
    /// Returns an empty queue.
    pub fn new(caller: &Caller<'_>, permission: Permission) -> Rc<Queue> {
        Rc::new(Queue {
            permission: Cell::new(permission),
            messages: RefCell::default(),
            bytes: Cell::new(0),
            max_bytes: Cell::new(MSGMNB),
            receivers: RefCell::default(),
            room: WaitQueue::new(),
            removed: Cell::new(false),
            send_time: Cell::new(0),
            receive_time: Cell::new(0),
            change_time: Cell::new(caller.now),
            last_sender: Cell::new(0),
            last_receiver: Cell::new(0),
        })
    }

    /// Changes owner, mode and the most bytes of text that the queue holds.
    pub fn set(&self, caller: &Caller<'_>, permission: Permission, max_bytes: u64) {
        self.permission.set(permission);
        self.max_bytes.set(max_bytes);
        self.change_time.set(caller.now);
        self.room.wake_all();
    }

    /// Returns what IPC_STAT shows.
    pub fn show(&self, id: u32) -> MsqidDs {
        MsqidDs {
            msg_perm: self.permission.get().show(id),
            msg_stime: self.send_time.get(),
            msg_rtime: self.receive_time.get(),
            msg_ctime: self.change_time.get(),
            msg_cbytes: self.bytes.get(),
            msg_qnum: self.messages.borrow().len() as u64,
            msg_qbytes: self.max_bytes.get(),
            msg_lspid: self.last_sender.get(),
            msg_lrpid: self.last_receiver.get(),
            ..MsqidDs::default()
        }
    }

    /// Says whether the queue is gone for those who have waited for it.
    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// Says whether a message of this many bytes has room. Each message counts as a byte at least.
    pub fn has_room(&self, len: u64) -> bool {
        let messages = self.messages.borrow().len() as u64;
        len + self.bytes.get() <= self.max_bytes.get() && messages < self.max_bytes.get()
    }

    /// Gives a message to the first receiver that waits for it, or puts it in the queue.
    pub fn send(&self, caller: &Caller<'_>, message: Rc<Message>) {
        self.last_sender.set(caller.pid);
        self.send_time.set(caller.now);
        let waiting = self.receivers.take();
        let mut message = Some(message);
        let mut left = Vec::new();
        for waiter in waiting {
            let Some(receiver) = waiter.upgrade() else { continue };
            match message.take_if(|message| receiver.selection.accepts(message.kind)) {
                None => left.push(waiter),
                Some(offered) => match receiver.takes(&offered) {
                    Ok(()) => {
                        self.last_receiver.set(receiver.pid);
                        self.receive_time.set(caller.now);
                        receiver.finish(Ok(offered));
                    }
                    Err(errno) => {
                        receiver.finish(Err(errno));
                        message = Some(offered);
                    }
                },
            }
        }
        *self.receivers.borrow_mut() = left;
        if let Some(message) = message {
            self.bytes.set(self.bytes.get() + message.text.len() as u64);
            self.messages.borrow_mut().push_back(message);
        }
    }

    /// Takes out the message that a receiver wants; `None` where there is none.
    ///
    /// Errors: E2BIG, and then the message stays.
    pub fn receive(&self, caller: &Caller<'_>, receiver: &Receiver) -> Result<Option<Rc<Message>>, Errno> {
        let Some(index) = self.find(receiver.selection) else { return Ok(None) };
        let mut messages = self.messages.borrow_mut();
        receiver.takes(&messages[index])?;
        let Some(message) = messages.remove(index) else { return Ok(None) };
        self.bytes.set(self.bytes.get() - message.text.len() as u64);
        self.last_receiver.set(caller.pid);
        self.receive_time.set(caller.now);
        self.room.wake_all();
        Ok(Some(message))
    }

    /// Returns the message at a place in the queue, which stays there (MSG_COPY). Errors: ENOMSG.
    pub fn peek(&self, place: u64) -> Result<Rc<Message>, Errno> {
        let place = usize::try_from(place).map_err(|_| Errno::ENOMSG)?;
        self.messages.borrow().get(place).cloned().ok_or(Errno::ENOMSG)
    }

    /// Puts a receiver with those that wait.
    pub fn wait(&self, receiver: &Rc<Receiver>) {
        let mut receivers = self.receivers.borrow_mut();
        receivers.retain(|other| other.strong_count() > 0);
        receivers.push(Rc::downgrade(receiver));
    }

    /// Ends every waiting call with EIDRM: the queue has been removed.
    pub fn end_waiting(&self) {
        self.removed.set(true);
        self.room.wake_all();
        for receiver in self.receivers.take().iter().filter_map(Weak::upgrade) {
            receiver.finish(Err(Errno::EIDRM));
        }
        self.messages.borrow_mut().clear();
        self.bytes.set(0);
    }

    fn find(&self, selection: Selection) -> Option<usize> {
        let messages = self.messages.borrow();
        let mut accepted = messages.iter().enumerate().filter(|(_, message)| selection.accepts(message.kind));
        let found = match selection {
            // The first of the equals.
            Selection::AtMost(_) => accepted.min_by_key(|(_, message)| message.kind),
            _ => accepted.next(),
        };
        found.map(|(index, _)| index)
    }
}

impl Object for Queue {
    fn permission(&self) -> Permission {
        self.permission.get()
    }

    fn forget_key(&self) {
        self.permission.set(Permission { key: 0, ..self.permission.get() });
    }
}
