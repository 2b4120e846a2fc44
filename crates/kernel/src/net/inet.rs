//! Addresses and ports of the sandbox's loopback (ip(7), ipv6(7)).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_abi::raw::general::CAP_NET_BIND_SERVICE;
use lg_abi::raw::net::{IPPROTO_IPV6, IPPROTO_UDPLITE, IPV6_V6ONLY, SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET};

use super::{Family, Kind, Net, Socket};
use crate::vfs::FsContext;

/// The ports that are given to who asks for any: `/proc/sys/net/ipv4/ip_local_port_range`.
pub const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;
/// Ports below this need CAP_NET_BIND_SERVICE.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The ports of one transport.
pub struct Ports {
    bound: RefCell<BTreeMap<u16, Vec<Entry>>>,
    next_port: Cell<u16>,
    next_id: Cell<u64>,
}

struct Entry {
    id: u64,
    place: Place,
    socket: Weak<Socket>,
}

/// An address that a socket receives at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    ip: IpAddr,
    /// Whether `::` stands for IPv6 addresses only.
    v6_only: bool,
}

impl Place {
    /// Says whether what is sent to `ip` arrives here.
    fn covers(&self, ip: IpAddr) -> bool {
        match self.ip {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.is_ipv4(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => ip.is_ipv6() || !self.v6_only,
            own => own == ip,
        }
    }

    fn overlaps(&self, other: &Place) -> bool {
        self.covers(other.ip) || other.covers(self.ip)
    }
}

impl Ports {
    /// Returns ports that are all free. Which one is given first is left to chance.
    pub fn new() -> Ports {
        let mut random = [0; 2];
        crate::syscall::fill_random(&mut random);
        let span = EPHEMERAL.end() - EPHEMERAL.start() + 1;
        let first = EPHEMERAL.start() + u16::from_ne_bytes(random) % span;
        Ports { bound: RefCell::default(), next_port: Cell::new(first), next_id: Cell::new(0) }
    }

    fn is_free(&self, socket: &Socket, port: u16, place: Place, purpose: Purpose) -> bool {
        let bound = self.bound.borrow();
        let Some(entries) = bound.get(&port) else { return true };
        entries.iter().filter(|entry| entry.place.overlaps(&place)).all(|entry| {
            let Some(other) = entry.socket.upgrade() else { return true };
            std::ptr::eq(Rc::as_ptr(&other), socket) || may_share(socket, &other, purpose)
        })
    }

    fn free_ephemeral(&self, socket: &Socket, place: Place) -> Option<u16> {
        for _ in EPHEMERAL {
            let port = self.next_port.get();
            self.next_port.set(if port >= *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 });
            // Sharing is for who asks for a port by its number.
            if !self.bound.borrow().contains_key(&port) && self.is_free(socket, port, place, Purpose::Bind) {
                return Some(port);
            }
        }
        None
    }

    /// Returns the sockets that receive at an address, the most exact first.
    fn at(&self, to: SocketAddr) -> Vec<Rc<Socket>> {
        let bound = self.bound.borrow();
        let entries = bound.get(&to.port()).map_or(&[][..], Vec::as_slice);
        let (exact, wild): (Vec<&Entry>, Vec<&Entry>) = entries
            .iter()
            .filter(|entry| entry.place.covers(to.ip()))
            .partition(|entry| entry.place.ip == to.ip());
        exact.into_iter().chain(wild).filter_map(|entry| entry.socket.upgrade()).collect()
    }
}

/// What a port is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Bind,
    Listen,
}

/// Says whether two sockets may have the same port: both ask for that, and for TCP neither listens unless both ask
/// for just that (socket(7), SO_REUSEADDR and SO_REUSEPORT).
fn may_share(new: &Socket, old: &Socket, purpose: Purpose) -> bool {
    let both = |name| new.options.is_set(SOL_SOCKET, name) && old.options.is_set(SOL_SOCKET, name);
    let listens = old.listener().is_some();
    match purpose {
        Purpose::Bind if both(SO_REUSEADDR) && !listens => true,
        Purpose::Listen if !listens => true,
        _ => both(SO_REUSEPORT),
    }
}

/// A port that a socket has. It is free when this is dropped.
pub struct BoundPort {
    net: Rc<Net>,
    kind: Kind,
    protocol: u32,
    port: u16,
    id: u64,
}

impl Drop for BoundPort {
    fn drop(&mut self) {
        let mut bound = self.net.ports(self.kind, self.protocol).bound.borrow_mut();
        if let Some(entries) = bound.get_mut(&self.port) {
            entries.retain(|entry| entry.id != self.id);
            if entries.is_empty() {
                bound.remove(&self.port);
            }
        }
    }
}

impl Net {
    fn ports(&self, kind: Kind, protocol: u32) -> &Ports {
        match kind {
            Kind::Datagram if protocol == IPPROTO_UDPLITE as u32 => &self.udp_lite,
            Kind::Datagram => &self.udp,
            Kind::Stream | Kind::SeqPacket | Kind::Raw => &self.tcp,
        }
    }

    /// Returns the socket that listens at an address: of several the one with the fewest connections that wait.
    pub(super) fn listening_at(&self, to: SocketAddr) -> Option<Rc<Socket>> {
        let listening = self
            .tcp
            .at(to)
            .into_iter()
            .filter_map(|socket| Some((socket.listener()?.count_waiting(), socket)));
        listening.min_by_key(|(waiting, _)| *waiting).map(|(_, socket)| socket)
    }

    /// Returns the socket that gets a datagram of `sender`.
    pub(super) fn datagrams_at(
        &self,
        sender: &Socket,
        to: SocketAddr,
        from: SocketAddr,
    ) -> Option<Rc<Socket>> {
        let sockets = self.ports(sender.kind, sender.protocol).at(to);
        let peer = |socket: &Rc<Socket>| socket.datagrams().and_then(|datagrams| datagrams.inet_peer());
        let connected = sockets.iter().find(|socket| peer(socket) == Some(from));
        connected.or_else(|| sockets.iter().find(|socket| peer(socket).is_none())).cloned()
    }

    /// Checks that a bound socket may listen: sockets that share a port may not all do so.
    ///
    /// Errors: EADDRINUSE.
    pub(super) fn check_may_listen(&self, socket: &Socket, at: SocketAddr) -> Result<(), Errno> {
        let place = place_of(socket, at.ip());
        if self.tcp.is_free(socket, at.port(), place, Purpose::Listen) {
            Ok(())
        } else {
            Err(Errno::EADDRINUSE)
        }
    }
}

fn place_of(socket: &Socket, ip: IpAddr) -> Place {
    Place { ip, v6_only: socket.options.is_set(IPPROTO_IPV6 as u32, IPV6_V6ONLY) }
}

/// Gives a socket an address, with any free port for port 0.
///
/// Errors: EADDRNOTAVAIL for an address that is not the sandbox's, EADDRINUSE, EACCES; EINVAL for an IPv4 address
/// where the socket is for IPv6 only.
pub fn bind(
    cx: &FsContext<'_>,
    socket: &Rc<Socket>,
    wanted: SocketAddr,
) -> Result<(SocketAddr, BoundPort), Errno> {
    let net = cx.vfs.net();
    let place = place_of(socket, wanted.ip());
    if socket.family == Family::Inet6 && wanted.is_ipv4() && place.v6_only {
        return Err(Errno::EINVAL);
    }
    if !is_local(wanted.ip()) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    let ports = net.ports(socket.kind, socket.protocol);
    let port = match wanted.port() {
        0 => ports.free_ephemeral(socket, place).ok_or(Errno::EADDRINUSE)?,
        port if port < FIRST_UNPRIVILEGED && !cx.creds.has_capability(CAP_NET_BIND_SERVICE) => {
            return Err(Errno::EACCES);
        }
        port if ports.is_free(socket, port, place, Purpose::Bind) => port,
        _ => return Err(Errno::EADDRINUSE),
    };
    let id = ports.next_id.get();
    ports.next_id.set(id + 1);
    let entry = Entry { id, place, socket: Rc::downgrade(socket) };
    ports.bound.borrow_mut().entry(port).or_default().push(entry);
    let bound = BoundPort { net: net.clone(), kind: socket.kind, protocol: socket.protocol, port, id };
    Ok((SocketAddr::new(wanted.ip(), port), bound))
}

/// Says whether an address is the sandbox's own: it has only a loopback.
pub fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

/// Returns where something sent to an address goes: to no address means to the loopback.
///
/// Errors: ENETUNREACH for what is not the sandbox's, or not of the socket's family.
pub fn destination(socket: &Socket, to: SocketAddr) -> Result<SocketAddr, Errno> {
    let v6_only = socket.options.is_set(IPPROTO_IPV6 as u32, IPV6_V6ONLY);
    if !is_local(to.ip()) || to.is_ipv4() && v6_only {
        return Err(Errno::ENETUNREACH);
    }
    let ip = if to.ip().is_unspecified() { source_of(to.ip()) } else { to.ip() };
    Ok(SocketAddr::new(ip, to.port()))
}

/// Returns the address that something sent to `to` comes from.
pub fn source_of(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Returns the address that stands for all of the socket's own.
pub fn any(family: Family) -> IpAddr {
    if family == Family::Inet6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}
