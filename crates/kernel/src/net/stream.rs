//! One side of a connection: stream and seqpacket sockets of unix(7), and tcp(7).

use std::cell::Cell;
use std::rc::Rc;

use lg_abi::{Errno, Ucred};

use super::channel::{BySender, Taking};
use super::{Channel, Incoming, Outgoing};
use crate::mm::{Sink, Source};
use crate::task::{Stop, Wait};
use crate::vfs::Readiness;

/// What carries a connection, which decides how its end is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// AF_UNIX: each side sees at once what the other has shut down.
    Unix,
    /// TCP: a side learns that nobody receives any more by writing.
    Tcp,
}

/// Whether a connection keeps the limits between what was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// It is a stream of bytes.
    Bytes,
    /// It is a sequence of packets (SOCK_SEQPACKET).
    Packets,
}

bitflags::bitflags! {
    /// Directions of a connection, with the bits of shutdown(2) plus one.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Direction: u32 {
        /// SHUT_RD
        const READ = 1;
        /// SHUT_WR
        const WRITE = 2;
    }
}

/// One side of a connection. When it is dropped, the other learns of it.
pub struct Stream {
    transport: Transport,
    framing: Framing,
    rx: Rc<Channel>,
    tx: Rc<Channel>,
    /// Who is at the other end.
    pub peer_creds: Ucred,
    /// Whether a program has it: it was not dropped by the listener.
    accepted: Cell<bool>,
    /// Whether its close breaks the connection off (SO_LINGER with a time of 0).
    pub resets_on_close: Cell<bool>,
    /// Whether its own reading half is shut down.
    read_shut: Cell<bool>,
    /// A TCP peer that is gone has been written to; the error is told once.
    broken: Cell<bool>,
    error: Cell<Option<Errno>>,
}

impl Stream {
    /// Returns a side that reads from `rx` and writes to `tx`.
    pub fn new(
        transport: Transport,
        framing: Framing,
        (rx, tx): (Rc<Channel>, Rc<Channel>),
        peer_creds: Ucred,
    ) -> Rc<Stream> {
        Rc::new(Stream {
            transport,
            framing,
            rx,
            tx,
            peer_creds,
            accepted: Cell::new(true),
            resets_on_close: Cell::new(false),
            read_shut: Cell::new(false),
            broken: Cell::new(false),
            error: Cell::new(None),
        })
    }

    /// Returns what it reads from.
    pub fn rx(&self) -> &Rc<Channel> {
        &self.rx
    }

    /// Returns what it writes to.
    pub fn tx(&self) -> &Rc<Channel> {
        &self.tx
    }

    /// Says whether a program has this side already.
    pub fn set_accepted(&self, accepted: bool) {
        self.accepted.set(accepted);
    }

    /// Sends as much as there is room for.
    ///
    /// Errors: EPIPE, ECONNRESET, EFAULT; EMSGSIZE for a packet that never fits; blocks while there is no room.
    pub fn send(&self, source: &mut dyn Source, sent: &mut Outgoing) -> Result<usize, Stop> {
        if self.transport == Transport::Tcp
            && let Some(error) = self.take_error()
        {
            return Err(error.into());
        }
        if self.tx.is_writer_closed() || self.rx.is_reset() || self.broken.get() {
            return Err(Errno::EPIPE.into());
        }
        if self.tx.is_reader_closed() {
            return match self.transport {
                Transport::Unix => Err(Errno::EPIPE.into()),
                Transport::Tcp => Ok(self.send_to_nobody(source)),
            };
        }
        match self.framing {
            Framing::Bytes if source.left() == 0 => Ok(0),
            Framing::Bytes => self.tx.push_stream(source, sent),
            Framing::Packets => self.tx.push_packet(source, sent),
        }
    }

    /// The peer's answer to this is that there is no such connection.
    fn send_to_nobody(&self, source: &mut dyn Source) -> usize {
        let mut lost = vec![0; source.left().min(4096)];
        let mut total = 0;
        while source.left() > 0 {
            let len = source.left().min(lost.len());
            let got = source.take(&mut lost[..len]);
            total += got;
            if got < len {
                break;
            }
        }
        if total > 0 {
            self.broken.set(true);
            self.error.set(Some(Errno::EPIPE));
            self.rx.readable().wake_all();
            self.tx.writable().wake_all();
        }
        total
    }

    /// Receives what there is; nothing is the end.
    ///
    /// Errors: ECONNRESET; blocks while there is nothing.
    pub fn receive(&self, sink: &mut dyn Sink, taking: Taking, senders: BySender) -> Result<Incoming, Stop> {
        if self.rx.is_empty() {
            if let Some(error) = self.rx.take_error() {
                return Err(error.into());
            }
            if self.is_read_shut() {
                return Ok(Incoming::default());
            }
            return Err(Stop::Block(Wait::on([self.rx.readable().clone()])));
        }
        match self.framing {
            Framing::Bytes => Ok(self.rx.pull_stream(sink, taking, senders)),
            Framing::Packets => Ok(self.rx.pull_packet(sink, taking).unwrap_or_default()),
        }
    }

    /// Returns and clears what went wrong (SO_ERROR).
    pub fn take_error(&self) -> Option<Errno> {
        self.rx.take_error().or_else(|| self.error.take())
    }

    /// Shuts down halves of the connection (shutdown(2)).
    pub fn shut_down(&self, directions: Direction) {
        if directions.contains(Direction::READ) {
            self.read_shut.set(true);
            if self.transport == Transport::Unix {
                self.rx.close_reader();
            }
            self.rx.readable().wake_all();
        }
        if directions.contains(Direction::WRITE) {
            self.tx.close_writer();
        }
    }

    /// Says whether a TCP connection is no more: it was broken off.
    pub fn is_over(&self) -> bool {
        self.transport == Transport::Tcp && (self.rx.is_reset() || self.broken.get())
    }

    fn is_read_shut(&self) -> bool {
        self.read_shut.get() || self.rx.is_writer_closed()
    }

    fn is_write_shut(&self) -> bool {
        let by_peer = match self.transport {
            Transport::Unix => self.tx.is_reader_closed(),
            Transport::Tcp => self.rx.is_reset() || self.broken.get(),
        };
        self.tx.is_writer_closed() || by_peer
    }

    /// Returns what could be done now.
    pub fn readiness(&self) -> Readiness {
        let (read_shut, write_shut) = (self.is_read_shut(), self.is_write_shut());
        let mut ready = Readiness::empty();
        if self.rx.has_error() || self.error.get().is_some() {
            ready |= Readiness::ERR;
        }
        if read_shut && write_shut {
            ready |= Readiness::HUP;
        }
        if read_shut {
            ready |= Readiness::RDHUP;
        }
        if read_shut || !self.rx.is_empty() {
            ready |= Readiness::READABLE;
        }
        if write_shut || self.tx.is_reader_closed() || self.tx.is_writable() {
            ready |= Readiness::WRITABLE;
        }
        ready
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let unread = !self.rx.is_empty();
        self.rx.close_reader();
        self.rx.clear();
        if !self.accepted.get() || self.resets_on_close.get() || unread {
            self.tx.break_off(Errno::ECONNRESET);
        } else {
            self.tx.close_writer();
        }
    }
}
