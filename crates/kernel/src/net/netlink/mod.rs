//! Netlink sockets (netlink(7)) of the family NETLINK_ROUTE (rtnetlink(7)): what there is to know of the loopback.
//!
//! ```text
//!   send ──> messages of the request ──> route::answer ──> inbox ──> receive
//! ```
//!
//! A [`Netlink`] is what a socket of the family AF_NETLINK has: a port, the groups it hears, and an inbox. Each
//! request is answered before its send(2) returns; the answers wait in the inbox, which is bounded and counted as
//! those of other sockets. Nothing can be changed, so no group is ever told anything, and a socket speaks with the
//! kernel alone: sending to another port or to a group is EPERM, as for who lacks CAP_NET_ADMIN.

mod loopback;
mod message;
mod route;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};

use lg_abi::Errno;

use super::channel::Taking;
use super::{Address, Channel, Incoming, Net, Outgoing, Socket};
use crate::mm::{Sink, Source};
use crate::task::{Stop, Wait, WaitQueue};
use crate::vfs::{FsContext, Readiness};

/// The level of the options of netlink sockets (linux/netlink.h).
pub const SOL_NETLINK: u32 = 270;
/// Sets whether an error repeats only the header of what it answers.
pub const NETLINK_CAP_ACK: u32 = 10;
/// Sets whether requests are checked strictly, and then filter what is told.
pub const NETLINK_GET_STRICT_CHK: u32 = 12;
/// The highest group of NETLINK_ROUTE (RTNLGRP_MAX of Linux 6.1).
const LAST_GROUP: u32 = 36;

/// The port numbers that netlink sockets have.
#[derive(Default)]
pub struct NetlinkPorts {
    taken: RefCell<BTreeSet<u32>>,
}

impl NetlinkPorts {
    /// Takes a port. Errors: EADDRINUSE.
    fn take(&self, port: u32) -> Result<u32, Errno> {
        if self.taken.borrow_mut().insert(port) { Ok(port) } else { Err(Errno::EADDRINUSE) }
    }

    /// Takes the port with the number of a process, or one that can be no process's.
    fn take_any(&self, pid: u32) -> Result<u32, Errno> {
        let first = [pid].into_iter().filter(|pid| *pid != 0);
        // As Linux, which begins to search at -4097.
        first
            .chain((1 << 31..=u32::MAX - 4096).rev())
            .find_map(|port| self.take(port).ok())
            .ok_or(Errno::EADDRINUSE)
    }
}

/// What a netlink socket has.
pub struct Netlink {
    net: Rc<Net>,
    inbox: Rc<Channel>,
    /// Its own number; 0 before it has one.
    port: Cell<u32>,
    /// The groups that it hears, the first as the lowest bit.
    groups: Cell<u64>,
}

impl Netlink {
    /// Returns an empty inbox of `space` bytes that wakes `readable`.
    pub fn new(net: &Rc<Net>, readable: &Rc<WaitQueue>, space: usize) -> Rc<Netlink> {
        let inbox = Channel::new(net, readable, &WaitQueue::new());
        inbox.set_write_space(space);
        Rc::new(Netlink { net: net.clone(), inbox, port: Cell::new(0), groups: Cell::new(0) })
    }

    /// Returns what it receives from.
    pub fn inbox(&self) -> &Rc<Channel> {
        &self.inbox
    }

    /// Returns its port and its groups, the first 32 of them.
    pub fn local(&self) -> Address {
        Address::Netlink { port: self.port.get(), groups: self.groups.get() as u32 }
    }

    /// Gives it a port, any for 0, and sets its first 32 groups.
    ///
    /// Errors: EINVAL where it has another port; EADDRINUSE.
    pub fn bind(&self, cx: &FsContext<'_>, port: u32, groups: u32) -> Result<(), Errno> {
        if self.port.get() == 0 && port != 0 {
            self.port.set(self.net.netlink.take(port)?);
        }
        if port == 0 && self.port.get() == 0 {
            self.bind_any(cx)?;
        } else if self.port.get() != port {
            return Err(Errno::EINVAL);
        }
        self.groups.set(self.groups.get() & !u64::from(u32::MAX) | u64::from(groups));
        Ok(())
    }

    /// Gives it a port if it has none.
    ///
    /// Errors: EADDRINUSE when all are taken.
    pub fn bind_any(&self, cx: &FsContext<'_>) -> Result<(), Errno> {
        if self.port.get() == 0 {
            let pid = cx.procs.pid_of(cx.tid.0).unwrap_or(0);
            self.port.set(self.net.netlink.take_any(pid)?);
        }
        Ok(())
    }

    /// Joins a group, or leaves it (NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP).
    ///
    /// Errors: EINVAL for a number that is no group's.
    pub fn set_member(&self, group: u32, joins: bool) -> Result<(), Errno> {
        if !(1..=LAST_GROUP).contains(&group) {
            return Err(Errno::EINVAL);
        }
        let bit = 1 << (group - 1);
        self.groups.set(if joins { self.groups.get() | bit } else { self.groups.get() & !bit });
        Ok(())
    }

    /// Returns its groups, the first as the lowest bit (NETLINK_LIST_MEMBERSHIPS).
    pub fn groups(&self) -> u64 {
        self.groups.get()
    }

    /// Checks that something is for the kernel.
    ///
    /// Errors: EPERM.
    pub fn check_is_kernel(port: u32, groups: u32) -> Result<(), Errno> {
        if port == 0 && groups == 0 { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Sends requests to the kernel, which answers them. An answer without room is lost, and the socket has the error
    /// ENOBUFS.
    ///
    /// Errors: ENODATA for nothing, EMSGSIZE, EFAULT, EADDRINUSE.
    pub fn send(&self, cx: &FsContext<'_>, socket: &Socket, source: &mut dyn Source) -> Result<usize, Stop> {
        self.bind_any(cx)?;
        let len = source.left();
        if len == 0 {
            return Err(Errno::ENODATA.into());
        }
        if len > socket.largest_packet() {
            return Err(Errno::EMSGSIZE.into());
        }
        let mut bytes = vec![0; len];
        if source.take(&mut bytes) < len {
            return Err(Errno::EFAULT.into());
        }
        let asker = route::Asker {
            port: self.port.get(),
            caps_errors: socket.options.is_set(SOL_NETLINK, NETLINK_CAP_ACK),
            is_strict: socket.options.is_set(SOL_NETLINK, NETLINK_GET_STRICT_CHK),
        };
        for answer in route::answer(&asker, &bytes) {
            if self.put(&answer).is_err() {
                socket.error.set(Some(Errno::ENOBUFS));
                socket.wake_all();
                break;
            }
        }
        Ok(len)
    }

    /// Puts a packet of the kernel in the inbox.
    ///
    /// Errors: ENOBUFS where there is no room.
    pub fn put(&self, mut packet: &[u8]) -> Result<(), Errno> {
        let from = Some(Address::Netlink { port: 0, groups: 0 });
        let mut sent = Outgoing { from, ..Outgoing::default() };
        self.inbox.push_packet(&mut packet, &mut sent).map(|_| ()).map_err(|_| Errno::ENOBUFS)
    }

    /// Receives a packet.
    ///
    /// Blocks while there is none.
    pub fn receive(&self, sink: &mut dyn Sink, taking: Taking) -> Result<Incoming, Stop> {
        let incoming = self.inbox.pull_packet(sink, taking);
        incoming.ok_or_else(|| Stop::Block(Wait::on([self.inbox.readable().clone()])))
    }

    /// Returns what could be done now.
    pub fn readiness(&self) -> Readiness {
        let readable = if self.inbox.is_empty() { Readiness::empty() } else { Readiness::READABLE };
        readable | Readiness::WRITABLE
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.net.netlink.taken.borrow_mut().remove(&self.port.get());
    }
}

/// A netlink socket that is told of something later, if it still is there.
#[derive(Clone)]
pub struct NetlinkListener(Weak<Socket>);

impl NetlinkListener {
    /// Returns a listener; `None` for a socket of another family.
    pub fn new(socket: &Rc<Socket>) -> Option<NetlinkListener> {
        socket.netlink().map(|_| NetlinkListener(Rc::downgrade(socket)))
    }

    /// Sends it a packet. What finds no room is lost.
    pub fn tell(&self, packet: &[u8]) {
        if let Some(netlink) = self.0.upgrade().and_then(|socket| socket.netlink()) {
            let _ = netlink.put(packet);
        }
    }
}
