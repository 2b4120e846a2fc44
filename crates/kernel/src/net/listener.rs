//! Connections that nobody has accepted yet (listen(2)).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use lg_abi::Ucred;

use super::Socket;
use crate::task::{Stop, Wait, WaitQueue};
use crate::vfs::Readiness;

/// The most connections that wait at one socket, whatever listen(2) asks for: `/proc/sys/net/core/somaxconn`.
pub const SOMAXCONN: usize = 4096;

/// What a listening socket has.
pub struct Listener {
    waiting: RefCell<VecDeque<Rc<Socket>>>,
    backlog: Cell<usize>,
    /// Who listens: the peer of those who connect.
    pub creds: Ucred,
    /// Woken when there is room for another connection.
    room: Rc<WaitQueue>,
}

impl Listener {
    /// Returns a listener without connections.
    pub fn new(backlog: usize, creds: Ucred) -> Rc<Listener> {
        let backlog = Cell::new(backlog.min(SOMAXCONN));
        Rc::new(Listener { waiting: RefCell::default(), backlog, creds, room: WaitQueue::new() })
    }

    /// Changes how many connections may wait.
    pub fn set_backlog(&self, backlog: usize) {
        self.backlog.set(backlog.min(SOMAXCONN));
        self.room.wake_all();
    }

    /// Says whether another connection has to wait outside. As on Linux, one more may wait than was asked for.
    pub fn is_full(&self) -> bool {
        self.count_waiting() > self.backlog.get()
    }

    /// Returns how many connections may wait.
    pub fn backlog(&self) -> usize {
        self.backlog.get()
    }

    /// Returns how many connections wait.
    pub fn count_waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Returns the wait for room.
    pub fn wait_for_room(&self) -> Stop {
        Stop::Block(Wait::on([self.room.clone()]))
    }

    /// Adds a connection.
    pub fn push(&self, socket: Rc<Socket>) {
        self.waiting.borrow_mut().push_back(socket);
    }

    /// Takes the connection that has waited longest.
    pub fn pop(&self) -> Option<Rc<Socket>> {
        let socket = self.waiting.borrow_mut().pop_front()?;
        self.room.wake_all();
        Some(socket)
    }

    /// Returns the connections that wait.
    pub fn waiting(&self) -> Vec<Rc<Socket>> {
        self.waiting.borrow().iter().cloned().collect()
    }

    /// Returns what could be done now.
    pub fn readiness(&self) -> Readiness {
        if self.count_waiting() > 0 { Readiness::READABLE } else { Readiness::empty() }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.room.wake_all();
    }
}
