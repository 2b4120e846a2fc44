//! Sockets: what is common to all kinds, and what their states do.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_abi::raw::net::{SO_PASSCRED, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET};

use super::channel::{BySender, Taking};
use super::inet::BoundPort;
use super::stream::Transport;
use super::unix::BoundName;
use super::{
    Address, Channel, Datagrams, Direction, Family, Incoming, Listener, Net, Netlink, Options, Outgoing,
    Stream,
};
use crate::mm::{Sink, Source};
use crate::task::{Stop, WaitQueue};
use crate::vfs::{Counted, FsContext, Readiness};

/// A kind of socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// SOCK_STREAM
    Stream,
    /// SOCK_SEQPACKET
    SeqPacket,
    /// SOCK_DGRAM
    Datagram,
    /// SOCK_RAW, of netlink sockets only: datagrams by another number.
    Raw,
}

impl Kind {
    /// Returns the number that socket(2) is given for it.
    pub fn number(self) -> u32 {
        match self {
            Kind::Stream => SOCK_STREAM,
            Kind::SeqPacket => SOCK_SEQPACKET,
            Kind::Datagram => SOCK_DGRAM,
            Kind::Raw => SOCK_RAW,
        }
    }
}

/// Where a datagram is sent.
pub enum Destination {
    /// To a unix socket that was found by its name.
    Unix(Rc<Socket>),
    /// To an address.
    Inet(SocketAddr),
    /// An address that a connection has no use for.
    Unused,
}

bitflags::bitflags! {
    /// How something is received, with the bits of recv(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ReceiveFlags: u32 {
        /// It stays to be received again.
        const PEEK = lg_abi::raw::net::MSG_PEEK;
    }
}

/// What a socket is used for.
#[derive(Clone)]
pub(super) enum State {
    /// Nothing yet, or nothing any more.
    Idle,
    /// It waits for connections.
    Listening(Rc<Listener>),
    /// It is one side of a connection.
    Connected(Rc<Stream>),
    /// It takes and sends datagrams.
    Datagrams(Rc<Datagrams>),
    /// It asks the kernel.
    Netlink(Rc<Netlink>),
}

/// How far the connection is that a connect(2) without waiting began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// There is none, or its outcome was told.
    None,
    /// It is there; the next connect(2) says so.
    Made,
    /// It was refused.
    Failed,
}

/// What keeps a socket's name or port.
pub(super) enum Bound {
    /// A name of unix(7).
    Name(#[expect(dead_code, reason = "kept for its drop")] BoundName),
    /// A port.
    Port(#[expect(dead_code, reason = "kept for its drop")] BoundPort),
}

/// A socket.
pub struct Socket {
    /// Its address family.
    pub family: Family,
    /// Its kind.
    pub kind: Kind,
    /// The number of its protocol.
    pub protocol: u32,
    /// Its options.
    pub options: Options,
    pub(super) net: Rc<Net>,
    pub(super) state: RefCell<State>,
    pub(super) local: RefCell<Option<Address>>,
    pub(super) peer: RefCell<Option<Address>>,
    pub(super) bound: RefCell<Option<Bound>>,
    /// Counts a connection that nobody has accepted among the open files.
    pub(super) counted: RefCell<Option<Counted>>,
    /// What went wrong, told once.
    pub(super) error: Cell<Option<Errno>>,
    pub(super) attempt: Cell<Attempt>,
    /// Woken when there is something to receive or to accept.
    pub(super) readable: Rc<WaitQueue>,
    /// Woken when there is room to send.
    pub(super) writable: Rc<WaitQueue>,
    me: Weak<Socket>,
}

impl Socket {
    /// Returns a socket without a name and without a peer.
    pub fn new(net: &Rc<Net>, family: Family, kind: Kind, protocol: u32) -> Rc<Socket> {
        Socket::with_options(net, Options::new(family, kind, protocol), (family, kind, protocol))
    }

    /// Returns such a socket with these options.
    pub(super) fn with_options(
        net: &Rc<Net>,
        options: Options,
        (family, kind, protocol): (Family, Kind, u32),
    ) -> Rc<Socket> {
        let (readable, writable) = (WaitQueue::new(), WaitQueue::new());
        let state = if family == Family::Netlink {
            State::Netlink(Netlink::new(net, &readable, options.receive_space()))
        } else if kind == Kind::Datagram {
            State::Datagrams(Datagrams::new(net, &readable, options.receive_space()))
        } else {
            State::Idle
        };
        Rc::new_cyclic(|me| Socket {
            family,
            kind,
            protocol,
            options,
            net: net.clone(),
            state: RefCell::new(state),
            local: RefCell::default(),
            peer: RefCell::default(),
            bound: RefCell::default(),
            counted: RefCell::default(),
            error: Cell::new(None),
            attempt: Cell::new(Attempt::None),
            readable,
            writable,
            me: me.clone(),
        })
    }

    /// Returns the socket, counted.
    pub(super) fn counted_self(&self) -> Option<Rc<Socket>> {
        self.me.upgrade()
    }

    pub(super) fn transport(&self) -> Transport {
        if self.family == Family::Unix { Transport::Unix } else { Transport::Tcp }
    }

    /// Changes the state. What the old one was is told to its peers after that.
    pub(super) fn set_state(&self, state: State) {
        drop(self.state.replace(state));
        self.wake_all();
    }

    pub(super) fn wake_all(&self) {
        self.readable.wake_all();
        self.writable.wake_all();
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Returns its side of the connection, if it has one.
    pub fn stream(&self) -> Option<Rc<Stream>> {
        if let State::Connected(stream) = &*self.state.borrow() { Some(stream.clone()) } else { None }
    }

    /// Returns its connections that wait, if it listens.
    pub fn listener(&self) -> Option<Rc<Listener>> {
        if let State::Listening(listener) = &*self.state.borrow() { Some(listener.clone()) } else { None }
    }

    /// Returns its datagrams, if it is a datagram socket.
    pub fn datagrams(&self) -> Option<Rc<Datagrams>> {
        if let State::Datagrams(datagrams) = &*self.state.borrow() { Some(datagrams.clone()) } else { None }
    }

    /// Returns what it has as a netlink socket, if it is one.
    pub fn netlink(&self) -> Option<Rc<Netlink>> {
        if let State::Netlink(netlink) = &*self.state.borrow() { Some(netlink.clone()) } else { None }
    }

    /// Returns the channels that only this socket reads.
    pub(super) fn inboxes(&self) -> Vec<Rc<Channel>> {
        match self.state() {
            State::Idle => Vec::new(),
            State::Connected(stream) => vec![stream.rx().clone()],
            State::Datagrams(datagrams) => vec![datagrams.inbox().clone()],
            State::Netlink(netlink) => vec![netlink.inbox().clone()],
            State::Listening(listener) => {
                listener.waiting().iter().filter_map(|socket| Some(socket.stream()?.rx().clone())).collect()
            }
        }
    }

    /// Returns its own address (getsockname(2)).
    pub fn local(&self) -> Address {
        match self.netlink() {
            Some(netlink) => netlink.local(),
            None => self.local.borrow().clone().unwrap_or_else(|| self.no_address()),
        }
    }

    /// Says whether it was given a name or a port.
    pub fn is_bound(&self) -> bool {
        self.bound.borrow().is_some()
    }

    /// Returns the address of a socket of this family that has none.
    pub fn no_address(&self) -> Address {
        match self.family {
            Family::Unix => Address::Unix(super::UnixName::Unnamed),
            Family::Netlink => Address::Netlink { port: 0, groups: 0 },
            family => Address::Inet(SocketAddr::new(super::inet::any(family), 0)),
        }
    }

    /// Returns the address of its peer as long as there is a connection (getpeername(2)).
    ///
    /// Errors: ENOTCONN.
    pub fn connected_peer(&self) -> Result<Address, Errno> {
        if self.stream().is_some_and(|stream| stream.is_over()) { Err(Errno::ENOTCONN) } else { self.peer() }
    }

    /// Returns the address of its peer, even one that is gone.
    ///
    /// Errors: ENOTCONN.
    pub fn peer(&self) -> Result<Address, Errno> {
        // That of a netlink socket is always the kernel.
        let kernel = (self.family == Family::Netlink).then(|| self.no_address());
        self.peer.borrow().clone().or(kernel).ok_or(Errno::ENOTCONN)
    }

    /// Sends what there is room for: of a stream a part, of others all or nothing.
    ///
    /// Errors: those of send(2); blocks while there is no room.
    pub fn send(
        &self,
        cx: &FsContext<'_>,
        source: &mut dyn Source,
        sent: &mut Outgoing,
        to: Option<&Destination>,
    ) -> Result<usize, Stop> {
        let is_unix = self.family == Family::Unix;
        match self.state() {
            State::Connected(_) if is_unix && self.kind == Kind::Stream && to.is_some() => {
                Err(Errno::EISCONN.into())
            }
            State::Connected(stream) => {
                if self.kind == Kind::SeqPacket && source.left() > self.largest_packet() {
                    return Err(Errno::EMSGSIZE.into());
                }
                stream.send(source, sent)
            }
            State::Datagrams(datagrams) => datagrams.send(cx, self, source, sent, to),
            State::Netlink(netlink) => netlink.send(cx, self, source),
            State::Idle | State::Listening(_) if !is_unix => {
                Err(self.error.take().unwrap_or(Errno::EPIPE).into())
            }
            _ if self.kind == Kind::Stream && to.is_some() => Err(Errno::EOPNOTSUPP.into()),
            _ => Err(Errno::ENOTCONN.into()),
        }
    }

    /// Returns the longest packet that may be sent, in bytes.
    pub(super) fn largest_packet(&self) -> usize {
        match self.family {
            Family::Unix | Family::Netlink => self.options.send_space() - 32,
            // What fits a packet of the Internet Protocol, without its headers.
            _ => 65_507,
        }
    }

    /// Receives what there is. Nothing from a stream is its end.
    ///
    /// Errors: those of recv(2); blocks while there is nothing.
    pub fn receive(&self, sink: &mut dyn Sink, flags: ReceiveFlags) -> Result<Incoming, Stop> {
        let taking = if flags.contains(ReceiveFlags::PEEK) { Taking::Peek } else { Taking::Take };
        if let Some(error) = self.error.take() {
            return Err(error.into());
        }
        match self.state() {
            State::Connected(stream) => {
                let split = self.options.is_set(SOL_SOCKET, SO_PASSCRED);
                stream.receive(sink, taking, if split { BySender::Split } else { BySender::Joined })
            }
            State::Datagrams(datagrams) => datagrams.receive(sink, taking),
            State::Netlink(netlink) => netlink.receive(sink, taking),
            State::Idle | State::Listening(_) if self.family == Family::Unix && self.kind == Kind::Stream => {
                Err(Errno::EINVAL.into())
            }
            State::Idle if self.attempt.get() == Attempt::Failed => Ok(Incoming::default()),
            State::Idle | State::Listening(_) => Err(Errno::ENOTCONN.into()),
        }
    }

    /// Shuts down halves of a connection (shutdown(2)).
    ///
    /// Errors: ENOTCONN, but not for a unix socket; EOPNOTSUPP for a netlink socket.
    pub fn shut_down(&self, directions: Direction) -> Result<(), Errno> {
        match self.state() {
            State::Connected(stream) => stream.shut_down(directions),
            State::Datagrams(datagrams) => {
                if self.family != Family::Unix && datagrams.inet_peer().is_none() {
                    return Err(Errno::ENOTCONN);
                }
                datagrams.shut_down(directions);
            }
            State::Netlink(_) => return Err(Errno::EOPNOTSUPP),
            State::Listening(_) if directions.contains(Direction::READ) => self.set_state(State::Idle),
            State::Listening(_) => {}
            State::Idle if self.family == Family::Unix => {}
            State::Idle => return Err(Errno::ENOTCONN),
        }
        self.wake_all();
        Ok(())
    }

    /// Returns and clears what went wrong (SO_ERROR).
    pub fn take_error(&self) -> Option<Errno> {
        self.error.take().or_else(|| self.stream()?.take_error())
    }

    /// Tells the channels what the options say.
    pub fn options_changed(&self) {
        match self.state() {
            State::Connected(stream) => {
                stream.tx().set_write_space(self.options.send_space());
                if self.transport() == Transport::Tcp {
                    stream.rx().set_read_space(self.options.receive_space());
                }
                stream.resets_on_close.set(self.options.resets_on_close());
            }
            State::Datagrams(datagrams) => datagrams.inbox().set_write_space(self.options.receive_space()),
            State::Netlink(netlink) => netlink.inbox().set_write_space(self.options.receive_space()),
            State::Idle | State::Listening(_) => {}
        }
    }

    /// Returns what could be done now.
    pub(super) fn ready_for(&self) -> Readiness {
        let ready = match self.state() {
            State::Idle if self.attempt.get() == Attempt::Failed => {
                Readiness::READABLE | Readiness::WRITABLE | Readiness::RDHUP | Readiness::HUP
            }
            State::Idle => Readiness::WRITABLE | Readiness::HUP,
            State::Listening(listener) => listener.readiness(),
            State::Connected(stream) => self.above_low_water(&stream),
            State::Datagrams(datagrams) => datagrams.readiness(),
            State::Netlink(netlink) => netlink.readiness(),
        };
        if self.error.get().is_some() { ready | Readiness::ERR } else { ready }
    }

    /// Returns what could be done now with a connection. A TCP socket whose SO_RCVLOWAT waits for more is not readable,
    /// unless nothing more can come or no more has room.
    fn above_low_water(&self, stream: &Stream) -> Readiness {
        let ready = stream.readiness();
        let wanted = self.options.receive_low_water().min(self.options.receive_space() / 2);
        let is_over = ready.intersects(Readiness::RDHUP | Readiness::ERR);
        if self.family.is_inet() && !is_over && stream.rx().bytes() < wanted {
            return ready - Readiness::READABLE;
        }
        ready
    }

    /// Returns the queues that are woken when that changes.
    pub(super) fn wait_queues(&self) -> Vec<Rc<WaitQueue>> {
        let mut queues = vec![self.readable.clone(), self.writable.clone()];
        if let Some(datagrams) = self.datagrams() {
            queues.extend(datagrams.room_queue());
        }
        queues
    }
}
