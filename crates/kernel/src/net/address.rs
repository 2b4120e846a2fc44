//! Socket addresses, and how they lie in memory (sockaddr(3type)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lg_abi::raw::net::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, AF_UNSPEC};
use lg_abi::zerocopy::{FromBytes, IntoBytes};
use lg_abi::{Errno, SockaddrIn, SockaddrIn6, SockaddrNl};

/// Longest address (`struct sockaddr_storage`), in bytes.
pub const MAX_ADDRESS: usize = 128;
/// Longest `struct sockaddr_un`, in bytes.
const MAX_UNIX: usize = 110;
/// Shortest `struct sockaddr_in6`: the first ones had no scope.
const MIN_INET6: usize = 24;

/// A family of addresses, as socket(2) is given it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// AF_UNIX
    Unix,
    /// AF_INET
    Inet,
    /// AF_INET6
    Inet6,
    /// AF_NETLINK
    Netlink,
}

impl Family {
    /// Returns the family of that number.
    pub fn from_number(number: u32) -> Option<Family> {
        match number {
            AF_UNIX => Some(Family::Unix),
            AF_INET => Some(Family::Inet),
            AF_INET6 => Some(Family::Inet6),
            AF_NETLINK => Some(Family::Netlink),
            _ => None,
        }
    }

    /// Returns its number.
    pub fn number(self) -> u32 {
        match self {
            Family::Unix => AF_UNIX,
            Family::Inet => AF_INET,
            Family::Inet6 => AF_INET6,
            Family::Netlink => AF_NETLINK,
        }
    }

    /// Says whether it is one of the Internet Protocol.
    pub fn is_inet(self) -> bool {
        matches!(self, Family::Inet | Family::Inet6)
    }
}

/// The name of a unix socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnixName {
    /// It has none.
    Unnamed,
    /// A path.
    Path(Vec<u8>),
    /// A name outside of the file system, without its leading NUL.
    Abstract(Vec<u8>),
}

/// Where a socket is. IPv4 addresses are never written as IPv6 addresses here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// AF_UNIX
    Unix(UnixName),
    /// AF_INET and AF_INET6
    Inet(SocketAddr),
    /// AF_NETLINK
    Netlink {
        /// The number of a socket; 0 is the kernel.
        port: u32,
        /// Groups, the first as the lowest bit.
        groups: u32,
    },
}

/// An address argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given {
    /// AF_UNSPEC: none, to end a connection.
    Unspecified,
    /// One of the socket's family.
    Address(Address),
}

impl Address {
    /// Reads an address for a socket of `family`.
    ///
    /// Errors: EINVAL for a length that can not be; EAFNOSUPPORT for an address of another family (EINVAL where the
    /// socket is a unix or netlink socket).
    pub fn read(family: Family, bytes: &[u8]) -> Result<Given, Errno> {
        let number = bytes.first_chunk::<2>().map(|bytes| u32::from(u16::from_ne_bytes(*bytes)));
        let number = number.ok_or(Errno::EINVAL)?;
        if number == AF_UNSPEC {
            return Ok(Given::Unspecified);
        }
        let address = match family {
            Family::Unix if number == AF_UNIX => Address::Unix(read_unix(bytes)?),
            Family::Unix => return Err(Errno::EINVAL),
            Family::Netlink => read_netlink(bytes, number)?,
            Family::Inet => Address::Inet(read_inet(bytes, number)?),
            Family::Inet6 => Address::Inet(read_inet6(bytes, number)?),
        };
        Ok(Given::Address(address))
    }

    /// Returns the bytes of the address, as a socket of `family` shows it.
    pub fn write(&self, family: Family) -> Vec<u8> {
        match (self, family) {
            (Address::Unix(name), _) => write_unix(name),
            (Address::Netlink { port, groups }, _) => {
                SockaddrNl { family: AF_NETLINK as u16, pad: 0, pid: *port, groups: *groups }
                    .as_bytes()
                    .to_vec()
            }
            (Address::Inet(SocketAddr::V4(v4)), Family::Inet6) => {
                write_inet6(v4.ip().to_ipv6_mapped(), v4.port(), 0)
            }
            (Address::Inet(SocketAddr::V4(v4)), _) => {
                let addr = v4.ip().octets();
                let port = v4.port().to_be_bytes();
                SockaddrIn { family: AF_INET as u16, port, addr, zero: [0; 8] }.as_bytes().to_vec()
            }
            (Address::Inet(SocketAddr::V6(v6)), _) => write_inet6(*v6.ip(), v6.port(), v6.scope_id()),
        }
    }
}

fn read_unix(bytes: &[u8]) -> Result<UnixName, Errno> {
    if bytes.len() > MAX_UNIX {
        return Err(Errno::EINVAL);
    }
    match &bytes[2..] {
        [] => Ok(UnixName::Unnamed),
        [0, name @ ..] => Ok(UnixName::Abstract(name.to_vec())),
        path => {
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            Ok(UnixName::Path(path[..end].to_vec()))
        }
    }
}

fn read_netlink(bytes: &[u8], number: u32) -> Result<Address, Errno> {
    let (address, _) = SockaddrNl::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
    if number != AF_NETLINK {
        return Err(Errno::EINVAL);
    }
    Ok(Address::Netlink { port: address.pid, groups: address.groups })
}

fn write_unix(name: &UnixName) -> Vec<u8> {
    let family = (AF_UNIX as u16).to_ne_bytes();
    match name {
        UnixName::Unnamed => family.to_vec(),
        UnixName::Path(path) => [&family, path.as_slice(), &[0]].concat(),
        UnixName::Abstract(name) => [&family, [0].as_slice(), name].concat(),
    }
}

fn read_inet(bytes: &[u8], number: u32) -> Result<SocketAddr, Errno> {
    let (address, _) = SockaddrIn::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
    if number != AF_INET {
        return Err(Errno::EAFNOSUPPORT);
    }
    Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address.addr)), u16::from_be_bytes(address.port)))
}

fn read_inet6(bytes: &[u8], number: u32) -> Result<SocketAddr, Errno> {
    if bytes.len() < MIN_INET6 {
        return Err(Errno::EINVAL);
    }
    if number != AF_INET6 {
        return Err(Errno::EAFNOSUPPORT);
    }
    let mut whole = [0; size_of::<SockaddrIn6>()];
    let len = bytes.len().min(whole.len());
    whole[..len].copy_from_slice(&bytes[..len]);
    let address = SockaddrIn6::read_from_bytes(&whole).map_err(|_| Errno::EINVAL)?;
    let ip = Ipv6Addr::from(address.addr).to_canonical();
    Ok(SocketAddr::new(ip, u16::from_be_bytes(address.port)))
}

fn write_inet6(ip: Ipv6Addr, port: u16, scope_id: u32) -> Vec<u8> {
    let address = SockaddrIn6 {
        family: AF_INET6 as u16,
        port: port.to_be_bytes(),
        flowinfo: [0; 4],
        addr: ip.octets(),
        scope_id,
    };
    address.as_bytes().to_vec()
}
