//! Datagram sockets: of unix(7), which wait for room, and udp(7), which lose what finds none.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use lg_abi::Errno;

use super::channel::Taking;
use super::connect::bind_any;
use super::{Address, Channel, Destination, Direction, Family, Incoming, Net, Outgoing, Socket, inet};
use crate::mm::{Sink, Source};
use crate::task::{Stop, Wait, WaitQueue};
use crate::vfs::{FsContext, Readiness};

/// Where datagrams go that are sent without an address.
enum Peer {
    Unix(Weak<Socket>),
    Inet(SocketAddr),
}

/// What a datagram socket has.
pub struct Datagrams {
    inbox: Rc<Channel>,
    peer: RefCell<Option<Peer>>,
    read_shut: Cell<bool>,
    write_shut: Cell<bool>,
}

impl Datagrams {
    /// Returns an empty inbox of `space` bytes that wakes `readable`.
    pub fn new(net: &Rc<Net>, readable: &Rc<WaitQueue>, space: usize) -> Rc<Datagrams> {
        let inbox = Channel::new(net, readable, &WaitQueue::new());
        inbox.set_write_space(space);
        Rc::new(Datagrams {
            inbox,
            peer: RefCell::default(),
            read_shut: Cell::new(false),
            write_shut: Cell::new(false),
        })
    }

    /// Returns what it receives from.
    pub fn inbox(&self) -> &Rc<Channel> {
        &self.inbox
    }

    /// Sets where datagrams go without an address, and whose alone are received.
    pub fn set_unix_peer(&self, peer: &Rc<Socket>) {
        *self.peer.borrow_mut() = Some(Peer::Unix(Rc::downgrade(peer)));
    }

    /// Sets the same to an address.
    pub fn set_inet_peer(&self, peer: SocketAddr) {
        *self.peer.borrow_mut() = Some(Peer::Inet(peer));
    }

    /// Forgets the peer.
    pub fn disconnect(&self) {
        *self.peer.borrow_mut() = None;
    }

    /// Returns the address of the peer.
    pub fn inet_peer(&self) -> Option<SocketAddr> {
        if let Some(Peer::Inet(peer)) = &*self.peer.borrow() { Some(*peer) } else { None }
    }

    /// Says whether the socket takes nothing from `sender`, since it has another peer.
    fn refuses(&self, sender: &Socket) -> bool {
        match &*self.peer.borrow() {
            Some(Peer::Unix(peer)) => !std::ptr::eq(peer.as_ptr(), sender),
            _ => false,
        }
    }

    /// Returns the queue that is woken when the peer has room.
    pub fn room_queue(&self) -> Option<Rc<WaitQueue>> {
        Some(self.unix_peer()?.datagrams()?.inbox.writable().clone())
    }

    fn unix_peer(&self) -> Option<Rc<Socket>> {
        if let Some(Peer::Unix(peer)) = &*self.peer.borrow() { peer.upgrade() } else { None }
    }

    /// Sends a datagram.
    ///
    /// Errors: EMSGSIZE; ECONNREFUSED, EPERM, ENOTCONN, EDESTADDRREQ; EPIPE after a shutdown; EFAULT.
    pub fn send(
        &self,
        cx: &FsContext<'_>,
        socket: &Socket,
        source: &mut dyn Source,
        sent: &mut Outgoing,
        to: Option<&Destination>,
    ) -> Result<usize, Stop> {
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        if self.write_shut.get() {
            return Err(Errno::EPIPE.into());
        }
        if source.left() > socket.largest_packet() {
            return Err(Errno::EMSGSIZE.into());
        }
        if socket.family == Family::Unix {
            return self.send_unix(socket, source, sent, to);
        }
        let to = match to {
            Some(Destination::Inet(to)) => inet::destination(socket, *to)?,
            _ => self.inet_peer().ok_or(Errno::EDESTADDRREQ)?,
        };
        if to.port() == 0 {
            return Err(Errno::EINVAL.into());
        }
        self.send_inet(cx, socket, source, sent, to)
    }

    fn send_unix(
        &self,
        socket: &Socket,
        source: &mut dyn Source,
        sent: &mut Outgoing,
        to: Option<&Destination>,
    ) -> Result<usize, Stop> {
        let to = match to {
            Some(Destination::Unix(to)) => to.clone(),
            _ => self.living_peer(socket)?,
        };
        let receiver = to.datagrams().ok_or(Errno::ECONNREFUSED)?;
        if receiver.refuses(socket) {
            return Err(Errno::EPERM.into());
        }
        if receiver.read_shut.get() {
            return Err(Errno::EPIPE.into());
        }
        sent.from = socket.local.borrow().clone();
        receiver.inbox.push_packet(source, sent)
    }

    /// Returns the peer. One that is gone is told of once, and then forgotten.
    fn living_peer(&self, socket: &Socket) -> Result<Rc<Socket>, Errno> {
        if self.peer.borrow().is_none() {
            return Err(Errno::ENOTCONN);
        }
        self.unix_peer().ok_or_else(|| {
            self.disconnect();
            *socket.peer.borrow_mut() = None;
            Errno::ECONNREFUSED
        })
    }

    fn send_inet(
        &self,
        cx: &FsContext<'_>,
        socket: &Socket,
        source: &mut dyn Source,
        sent: &mut Outgoing,
        to: SocketAddr,
    ) -> Result<usize, Stop> {
        let me = socket.counted_self().ok_or(Errno::ENOTCONN)?;
        let local = bind_any(cx, &me)?;
        let ip = match sent.fields.from {
            Some(asked) => asked,
            None if local.ip().is_unspecified() => inet::source_of(to.ip()),
            None => local.ip(),
        };
        let from = SocketAddr::new(ip, local.port());
        let len = source.left();
        let Some(receiver) = socket.net.datagrams_at(socket, to, from).and_then(|socket| socket.datagrams())
        else {
            // Whoever is connected hears that nobody is there.
            if self.inet_peer().is_some() {
                socket.error.set(Some(Errno::ECONNREFUSED));
                socket.wake_all();
            }
            return Ok(source.take(&mut vec![0; len]));
        };
        sent.from = Some(Address::Inet(from));
        sent.fields = sent.fields.completed(&socket.options, to.ip());
        match receiver.inbox.push_packet(source, sent) {
            Ok(len) => Ok(len),
            // There is no room: it is lost.
            Err(Stop::Block(_) | Stop::Errno(Errno::ENOBUFS)) => Ok(source.take(&mut vec![0; len])),
            Err(other) => Err(other),
        }
    }

    /// Receives a datagram.
    ///
    /// Blocks while there is none.
    pub fn receive(&self, sink: &mut dyn Sink, taking: Taking) -> Result<Incoming, Stop> {
        match self.inbox.pull_packet(sink, taking) {
            Some(incoming) => Ok(incoming),
            None if self.read_shut.get() => Ok(Incoming::default()),
            None => Err(Stop::Block(Wait::on([self.inbox.readable().clone()]))),
        }
    }

    /// Shuts down receiving or sending.
    pub fn shut_down(&self, directions: Direction) {
        if directions.contains(Direction::READ) {
            self.read_shut.set(true);
            self.inbox.writable().wake_all();
        }
        if directions.contains(Direction::WRITE) {
            self.write_shut.set(true);
        }
    }

    /// Returns what could be done now.
    pub fn readiness(&self) -> Readiness {
        let mut ready = Readiness::empty();
        if self.read_shut.get() {
            ready |= Readiness::RDHUP;
        }
        if self.read_shut.get() && self.write_shut.get() {
            ready |= Readiness::HUP;
        }
        if self.read_shut.get() || !self.inbox.is_empty() {
            ready |= Readiness::READABLE;
        }
        let receiver = self.unix_peer().and_then(|peer| peer.datagrams());
        if receiver.is_none_or(|receiver| receiver.inbox.is_writable()) {
            ready |= Readiness::WRITABLE;
        }
        ready
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // Who waits for room hears that nobody is there.
        self.inbox.writable().wake_all();
    }
}
