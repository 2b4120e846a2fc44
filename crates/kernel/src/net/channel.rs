//! One direction between sockets: packets, from whoever may write to one reader.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use lg_abi::{Errno, Ucred};

use super::rights::Rights;
use super::{Address, Net, PacketFields};
use crate::mm::{Sink, Source};
use crate::task::{Stop, Wait, WaitQueue};

/// What a packet takes apart from its bytes, as it is counted.
const OVERHEAD: usize = 256;
/// What a channel can hold even when all together hold too much: as much as makes progress.
pub const LEAST: usize = 4096;
/// The bytes of a stream travel in packets of at most this many.
const PIECE: usize = 64 << 10;
/// Small writes of a stream are joined to packets of up to this many bytes.
const JOINED: usize = 16 << 10;

/// What is sent.
#[derive(Default)]
pub struct Outgoing {
    /// Open files that go along (SCM_RIGHTS).
    pub rights: Rights,
    /// Who sends.
    pub creds: Ucred,
    /// The sender's address, for datagrams.
    pub from: Option<Address>,
    /// The header of the packet, for datagrams.
    pub fields: PacketFields,
}

/// What was received.
#[derive(Default)]
pub struct Incoming {
    /// How many bytes were stored.
    pub stored: usize,
    /// How long the packet was, if packets are whole.
    pub whole: usize,
    /// Whether memory could not take all that there was room for.
    pub faulted: bool,
    /// Open files that came along.
    pub rights: Rights,
    /// Who sent it.
    pub creds: Ucred,
    /// Where it is from, if its sender has an address.
    pub from: Option<Address>,
    /// The header of the packet, for datagrams.
    pub fields: PacketFields,
}

struct Packet {
    data: Vec<u8>,
    /// How much has been received already.
    read: usize,
    sent: Outgoing,
}

impl Packet {
    fn unread(&self) -> &[u8] {
        &self.data[self.read..]
    }

    /// Says whether bytes may be added that are sent like this.
    fn may_join(&self, len: usize, sent: &Outgoing) -> bool {
        self.data.len() + len <= JOINED
            && self.sent.rights.is_empty()
            && sent.rights.is_empty()
            && self.sent.creds == sent.creds
    }
}

/// Packets on their way.
pub struct Channel {
    net: Rc<Net>,
    packets: RefCell<VecDeque<Packet>>,
    bytes: Cell<usize>,
    /// The bytes and what it takes to keep them.
    charge: Cell<usize>,
    /// How much may be charged: what the writer allows (SO_SNDBUF), and what the reader adds to it (SO_RCVBUF).
    write_space: Cell<usize>,
    read_space: Cell<usize>,
    /// Nothing more comes.
    writer_closed: Cell<bool>,
    /// Nobody takes anything any more.
    reader_closed: Cell<bool>,
    /// The connection was broken off; what the reader is told of it, once, after the data.
    reset: Cell<bool>,
    error: Cell<Option<Errno>>,
    /// Whether somebody has found no room since there last was some.
    starved: Cell<bool>,
    readable: Rc<WaitQueue>,
    writable: Rc<WaitQueue>,
}

impl Channel {
    /// Returns an empty channel that wakes `readable` when there is something to receive, and `writable` when there
    /// is room.
    pub fn new(net: &Rc<Net>, readable: &Rc<WaitQueue>, writable: &Rc<WaitQueue>) -> Rc<Channel> {
        Rc::new(Channel {
            net: net.clone(),
            packets: RefCell::default(),
            bytes: Cell::new(0),
            charge: Cell::new(0),
            write_space: Cell::new(0),
            read_space: Cell::new(0),
            writer_closed: Cell::new(false),
            reader_closed: Cell::new(false),
            reset: Cell::new(false),
            error: Cell::new(None),
            starved: Cell::new(false),
            readable: readable.clone(),
            writable: writable.clone(),
        })
    }

    /// Sets what the writer allows to wait, in bytes.
    pub fn set_write_space(&self, bytes: usize) {
        self.write_space.set(bytes);
        self.room_changed();
    }

    /// Sets what the reader allows to wait on top of that, in bytes.
    pub fn set_read_space(&self, bytes: usize) {
        self.read_space.set(bytes);
        self.room_changed();
    }

    fn capacity(&self) -> usize {
        self.write_space.get().saturating_add(self.read_space.get())
    }

    /// Returns how much may be charged now.
    fn room(&self) -> usize {
        let own = self.capacity().saturating_sub(self.charge.get());
        let left = usize::try_from(self.net.bytes.left()).unwrap_or(usize::MAX);
        if left < own && self.charge.get() == 0 { own.min(left.max(LEAST + OVERHEAD)) } else { own.min(left) }
    }

    /// Says whether there is room enough that a writer should be told: a third, as for a TCP socket of Linux.
    pub fn is_writable(&self) -> bool {
        let writable = self.charge.get() == 0 || self.room() >= self.capacity() / 3;
        if !writable {
            self.starved.set(true);
        }
        writable
    }

    fn room_changed(&self) {
        if self.starved.get() && self.is_writable() {
            self.starved.set(false);
            self.writable.wake_all();
        }
    }

    /// Answers that there is no room.
    fn no_room(&self) -> Stop {
        self.starved.set(true);
        Stop::Block(Wait::on([self.writable.clone()]))
    }

    fn count(&self, bytes: usize, charge: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.charge.set(self.charge.get() + charge);
        self.net.bytes.take_over_limit(charge as u64);
    }

    fn uncount(&self, bytes: usize, charge: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        self.charge.set(self.charge.get().saturating_sub(charge));
        self.net.bytes.give(charge as u64);
    }

    /// Takes as many bytes from `source` as there is room for. The rights of `sent` go with the first of them, and
    /// are gone from it then.
    ///
    /// Errors: EFAULT; blocks while there is no room.
    pub fn push_stream(
        self: &Rc<Channel>,
        source: &mut dyn Source,
        sent: &mut Outgoing,
    ) -> Result<usize, Stop> {
        let mut moved = 0;
        while source.left() > 0 {
            let wanted = source.left().min(PIECE);
            let joins = self.packets.borrow().back().is_some_and(|last| last.may_join(wanted, sent));
            let overhead = if joins { 0 } else { OVERHEAD };
            let len = wanted.min(self.room().saturating_sub(overhead));
            if len == 0 && moved == 0 {
                return Err(self.no_room());
            }
            if len == 0 {
                break;
            }
            let got = if joins { self.join(source, len) } else { self.append(source, len, sent) };
            moved += got;
            if got < len {
                break;
            }
        }
        if moved == 0 && source.left() > 0 {
            return Err(Errno::EFAULT.into());
        }
        self.readable.wake_all();
        Ok(moved)
    }

    fn join(&self, source: &mut dyn Source, len: usize) -> usize {
        let mut packets = self.packets.borrow_mut();
        let Some(last) = packets.back_mut() else { return 0 };
        let before = last.data.len();
        last.data.resize(before + len, 0);
        let got = source.take(&mut last.data[before..]);
        last.data.truncate(before + got);
        self.count(got, got);
        got
    }

    fn append(self: &Rc<Channel>, source: &mut dyn Source, len: usize, sent: &mut Outgoing) -> usize {
        let mut data = vec![0; len];
        let got = source.take(&mut data);
        data.truncate(got);
        if got > 0 {
            let rights = std::mem::take(&mut sent.rights);
            let sent = Outgoing { rights, creds: sent.creds, ..Outgoing::default() };
            self.push(Packet { data, read: 0, sent });
        }
        got
    }

    fn push(self: &Rc<Channel>, packet: Packet) {
        if !packet.sent.rights.is_empty() {
            self.net.flight.carry(self);
        }
        self.count(packet.data.len(), packet.data.len() + OVERHEAD);
        self.packets.borrow_mut().push_back(packet);
    }

    /// Takes all of `source` as one packet.
    ///
    /// Errors: EFAULT; ENOBUFS when all sockets together hold too much; blocks while there is no room.
    pub fn push_packet(
        self: &Rc<Channel>,
        source: &mut dyn Source,
        sent: &mut Outgoing,
    ) -> Result<usize, Stop> {
        let len = source.left();
        let charge = len + OVERHEAD;
        if self.charge.get() > 0 && charge > self.capacity().saturating_sub(self.charge.get()) {
            return Err(self.no_room());
        }
        if charge as u64 > self.net.bytes.left() && (self.charge.get() > 0 || len > LEAST) {
            return Err(Errno::ENOBUFS.into());
        }
        let mut data = vec![0; len];
        if source.take(&mut data) < len {
            return Err(Errno::EFAULT.into());
        }
        self.push(Packet { data, read: 0, sent: std::mem::take(sent) });
        self.readable.wake_all();
        Ok(len)
    }

    /// Stores bytes of a stream, up to those that bring rights, and in `BySender::Split` not those of another sender.
    /// Nothing stored is no end: the caller has seen that there is something.
    pub fn pull_stream(&self, sink: &mut dyn Sink, taking: Taking, senders: BySender) -> Incoming {
        let mut incoming = Incoming::default();
        let mut packets = self.packets.borrow_mut();
        let mut index = 0;
        let mut is_first = true;
        while let Some(packet) = packets.get_mut(index) {
            if !is_first && (senders == BySender::Split && packet.sent.creds != incoming.creds) {
                break;
            }
            let want = packet.unread().len().min(sink.room());
            if want == 0 && !is_first {
                break;
            }
            let stored = sink.put(&packet.unread()[..want]);
            incoming.stored += stored;
            incoming.faulted = stored < want;
            if is_first {
                incoming.creds = packet.sent.creds;
                is_first = false;
            }
            if stored > 0 || want == 0 {
                incoming.rights = match taking {
                    Taking::Peek => packet.sent.rights.copy(),
                    Taking::Take => std::mem::take(&mut packet.sent.rights),
                };
            }
            let is_spent = stored == packet.unread().len();
            match taking {
                Taking::Peek => index += 1,
                Taking::Take => {
                    packet.read += stored;
                    let overhead = if is_spent { OVERHEAD } else { 0 };
                    self.uncount(stored, stored + overhead);
                    if is_spent {
                        packets.pop_front();
                    }
                }
            }
            if !is_spent || !incoming.rights.is_empty() {
                break;
            }
        }
        drop(packets);
        self.room_changed();
        incoming.whole = incoming.stored;
        incoming
    }

    /// Stores a packet, or as much of it as there is room for, if there is one.
    pub fn pull_packet(&self, sink: &mut dyn Sink, taking: Taking) -> Option<Incoming> {
        let mut packets = self.packets.borrow_mut();
        let packet = packets.front_mut()?;
        let whole = packet.data.len();
        let want = whole.min(sink.room());
        let stored = sink.put(&packet.data[..want]);
        let rights = match taking {
            Taking::Peek => packet.sent.rights.copy(),
            Taking::Take => std::mem::take(&mut packet.sent.rights),
        };
        let (creds, from) = (packet.sent.creds, packet.sent.from.clone());
        let fields = packet.sent.fields;
        let incoming = Incoming { stored, whole, faulted: stored < want, rights, creds, from, fields };
        if taking == Taking::Take {
            packets.pop_front();
            self.uncount(whole, whole + OVERHEAD);
            drop(packets);
            self.room_changed();
        }
        Some(incoming)
    }

    /// Says that nothing more is written. What has been can still be received.
    pub fn close_writer(&self) {
        self.writer_closed.set(true);
        self.wake_both();
    }

    /// Says that nothing more is received; what waits stays for whoever has begun to receive it.
    pub fn close_reader(&self) {
        self.reader_closed.set(true);
        self.wake_both();
    }

    /// Breaks the connection off: the reader is told `error` after the data.
    pub fn break_off(&self, error: Errno) {
        self.reset.set(true);
        self.error.set(Some(error));
        self.close_writer();
    }

    fn wake_both(&self) {
        self.readable.wake_all();
        self.writable.wake_all();
    }

    /// Throws away what waits.
    pub fn clear(&self) {
        let packets = self.packets.take();
        self.uncount(self.bytes.get(), self.charge.get());
        drop(packets);
    }

    /// Takes the rights out of all packets.
    pub(super) fn take_rights(&self) -> Vec<Rights> {
        let mut packets = self.packets.borrow_mut();
        packets.iter_mut().map(|packet| std::mem::take(&mut packet.sent.rights)).collect()
    }

    /// Shows the rights of each packet.
    pub(super) fn for_each_rights(&self, mut see: impl FnMut(&Rights)) {
        self.packets.borrow().iter().for_each(|packet| see(&packet.sent.rights));
    }

    /// Returns and clears what the reader is to be told after the data.
    pub fn take_error(&self) -> Option<Errno> {
        self.error.take()
    }

    /// Says whether there is something that the reader is to be told.
    pub fn has_error(&self) -> bool {
        self.error.get().is_some()
    }

    /// Says whether the connection was broken off.
    pub fn is_reset(&self) -> bool {
        self.reset.get()
    }

    /// Says whether nothing more comes.
    pub fn is_writer_closed(&self) -> bool {
        self.writer_closed.get()
    }

    /// Says whether nobody receives any more.
    pub fn is_reader_closed(&self) -> bool {
        self.reader_closed.get()
    }

    /// Says whether no packet waits.
    pub fn is_empty(&self) -> bool {
        self.packets.borrow().is_empty()
    }

    /// Returns how many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Returns how long the packet is that comes next; 0 for none.
    pub fn next_len(&self) -> usize {
        self.packets.borrow().front().map_or(0, |packet| packet.unread().len())
    }

    /// Returns the queue that is woken when there is something to receive.
    pub fn readable(&self) -> &Rc<WaitQueue> {
        &self.readable
    }

    /// Returns the queue that is woken when there is room.
    pub fn writable(&self) -> &Rc<WaitQueue> {
        &self.writable
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Whether what is received stays to be received again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taking {
    /// It does not.
    Take,
    /// It does (MSG_PEEK).
    Peek,
}

/// What a stream does where the sender changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BySender {
    /// It goes on.
    Joined,
    /// It stops there (SO_PASSCRED).
    Split,
}
