//! Socket options (socket(7), tcp(7), ip(7), ipv6(7)).
//!
//! Most are numbers that are kept and told again: over a loopback that loses nothing they change nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use lg_abi::raw::net as linux;
use lg_abi::{Errno, Linger};

use super::{Family, Kind, SOL_NETLINK};

/// Level and name of an option, as setsockopt(2) is given them.
pub type OptionName = (u32, u32);

const SOCKET: u32 = linux::SOL_SOCKET;
const TCP: u32 = linux::IPPROTO_TCP as u32;
const IP: u32 = linux::IPPROTO_IP as u32;
const IPV6: u32 = linux::IPPROTO_IPV6 as u32;
const UDP_LITE: u32 = linux::IPPROTO_UDPLITE as u32;

/// Options of RFC 3828 (linux/udp.h).
const UDPLITE_SEND_CSCOV: u32 = 10;
const UDPLITE_RECV_CSCOV: u32 = 11;
/// The header of UDP-Lite, which is always covered, in bytes.
const UDPLITE_HEADER: i32 = 8;

/// SO_SNDBUF and SO_RCVBUF of a new socket.
const DEFAULT_SPACE: usize = 212_992;
/// The most that may be asked for (`/proc/sys/net/core/wmem_max`); twice that is set.
const MAX_SPACE: i32 = 212_992;
/// The least TCP_WINDOW_CLAMP: half the least space to receive in.
const MIN_WINDOW: i32 = MIN_RECEIVE_SPACE as i32 / 2;
/// The least that is set.
const MIN_SEND_SPACE: usize = 4608;
const MIN_RECEIVE_SPACE: usize = 2304;

/// Which sockets have an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    /// Unix and netlink sockets, whose senders have credentials.
    Local,
    Ip,
    Ipv6,
    Tcp,
    UdpLite,
    Netlink,
}

/// What may be set.
#[derive(Clone, Copy)]
enum Value {
    /// Anything, which counts as 0 or 1.
    Flag,
    /// A number from the first to the last.
    Range(i32, i32),
    /// The same, or -1 for the default.
    RangeOrDefault(i32, i32),
    /// 0, or a number that is brought into a range.
    ZeroOrClamped(i32, i32),
    /// The same from the first to the last, or 0 for the default.
    RangeOrZero(i32, i32),
    /// Any, where what is negative counts as this.
    Negative(i32),
    /// One of the range, which is not kept.
    Ignored(i32, i32),
    /// 0 only; another is this error, as for who lacks a capability.
    Refused(Errno),
}

struct Row {
    name: OptionName,
    of: Of,
    value: Value,
    default: i32,
}

const fn row(level: u32, name: u32, of: Of, value: Value, default: i32) -> Row {
    Row { name: (level, name), of, value, default }
}

/// How many bytes a checksum covers: 0 for all, and else no less than the header.
const COVERAGE: Value = Value::ZeroOrClamped(UDPLITE_HEADER, u16::MAX as i32);

/// The options that are numbers.
static ROWS: &[Row] = &[
    row(SOCKET, linux::SO_REUSEADDR, Of::All, Value::Flag, 0),
    row(SOCKET, linux::SO_REUSEPORT, Of::Ip, Value::Flag, 0),
    row(SOCKET, linux::SO_KEEPALIVE, Of::All, Value::Flag, 0),
    row(SOCKET, linux::SO_BROADCAST, Of::All, Value::Flag, 0),
    row(SOCKET, linux::SO_DONTROUTE, Of::All, Value::Flag, 0),
    row(SOCKET, linux::SO_OOBINLINE, Of::All, Value::Flag, 0),
    row(SOCKET, linux::SO_PRIORITY, Of::All, Value::Range(0, 6), 0),
    row(SOCKET, linux::SO_RCVLOWAT, Of::All, Value::Negative(i32::MAX), 1),
    row(SOCKET, linux::SO_MARK, Of::All, Value::Refused(Errno::EPERM), 0),
    row(SOCKET, linux::SO_DEBUG, Of::All, Value::Refused(Errno::EACCES), 0),
    row(SOCKET, linux::SO_PASSCRED, Of::Local, Value::Flag, 0),
    row(TCP, linux::TCP_NODELAY, Of::Tcp, Value::Flag, 0),
    row(TCP, linux::TCP_CORK, Of::Tcp, Value::Flag, 0),
    row(TCP, linux::TCP_QUICKACK, Of::Tcp, Value::Flag, 1),
    row(TCP, linux::TCP_KEEPIDLE, Of::Tcp, Value::Range(1, 32_767), 7200),
    row(TCP, linux::TCP_KEEPINTVL, Of::Tcp, Value::Range(1, 32_767), 75),
    row(TCP, linux::TCP_KEEPCNT, Of::Tcp, Value::Range(1, 127), 9),
    row(TCP, linux::TCP_SYNCNT, Of::Tcp, Value::Range(1, 255), 6),
    row(TCP, linux::TCP_LINGER2, Of::Tcp, Value::Range(-1, i32::MAX), 60),
    row(TCP, linux::TCP_DEFER_ACCEPT, Of::Tcp, Value::Negative(0), 0),
    row(TCP, linux::TCP_WINDOW_CLAMP, Of::Tcp, Value::ZeroOrClamped(MIN_WINDOW, i32::MAX), 0),
    row(TCP, linux::TCP_MAXSEG, Of::Tcp, Value::RangeOrZero(88, 32_767), 536),
    row(TCP, linux::TCP_FASTOPEN, Of::Tcp, Value::Range(0, i32::MAX), 0),
    row(TCP, linux::TCP_FASTOPEN_CONNECT, Of::Tcp, Value::Range(0, 1), 0),
    row(TCP, linux::TCP_THIN_LINEAR_TIMEOUTS, Of::Tcp, Value::Range(0, 1), 0),
    row(TCP, linux::TCP_THIN_DUPACK, Of::Tcp, Value::Ignored(0, 1), 0),
    row(TCP, linux::TCP_USER_TIMEOUT, Of::Tcp, Value::Range(0, i32::MAX), 0),
    row(TCP, linux::TCP_NOTSENT_LOWAT, Of::Tcp, Value::Range(i32::MIN, i32::MAX), 0),
    row(IP, linux::IP_TOS, Of::Ip, Value::Range(0, 255), 0),
    row(IP, linux::IP_TTL, Of::Ip, Value::Range(1, 255), 64),
    row(IP, linux::IP_PKTINFO, Of::Ip, Value::Flag, 0),
    row(IP, linux::IP_RECVTTL, Of::Ip, Value::Flag, 0),
    row(IP, linux::IP_RECVTOS, Of::Ip, Value::Flag, 0),
    row(IP, linux::IP_MTU_DISCOVER, Of::Ip, Value::Range(0, 5), 1),
    row(IP, linux::IP_RECVERR, Of::Ip, Value::Flag, 0),
    row(IP, linux::IP_FREEBIND, Of::Ip, Value::Flag, 0),
    row(IP, linux::IP_BIND_ADDRESS_NO_PORT, Of::Ip, Value::Flag, 0),
    row(IP, linux::IP_MULTICAST_TTL, Of::Ip, Value::Range(0, 255), 1),
    row(IP, linux::IP_MULTICAST_LOOP, Of::Ip, Value::Flag, 1),
    row(IPV6, linux::IPV6_V6ONLY, Of::Ipv6, Value::Flag, 0),
    row(IPV6, linux::IPV6_UNICAST_HOPS, Of::Ipv6, Value::RangeOrDefault(0, 255), 64),
    row(IPV6, linux::IPV6_MULTICAST_HOPS, Of::Ipv6, Value::RangeOrDefault(0, 255), 1),
    row(IPV6, linux::IPV6_MULTICAST_LOOP, Of::Ipv6, Value::Flag, 1),
    row(IPV6, linux::IPV6_MTU_DISCOVER, Of::Ipv6, Value::Range(0, 5), 1),
    row(IPV6, linux::IPV6_RECVERR, Of::Ipv6, Value::Flag, 0),
    row(IPV6, linux::IPV6_TCLASS, Of::Ipv6, Value::RangeOrDefault(0, 255), 0),
    row(IPV6, linux::IPV6_RECVPKTINFO, Of::Ipv6, Value::Flag, 0),
    row(IPV6, linux::IPV6_RECVHOPLIMIT, Of::Ipv6, Value::Flag, 0),
    row(IPV6, linux::IPV6_RECVTCLASS, Of::Ipv6, Value::Flag, 0),
    // NETLINK_PKTINFO, _BROADCAST_ERROR, _NO_ENOBUFS, _CAP_ACK, _EXT_ACK and _GET_STRICT_CHK
    row(SOL_NETLINK, 3, Of::Netlink, Value::Flag, 0),
    row(SOL_NETLINK, 4, Of::Netlink, Value::Flag, 0),
    row(SOL_NETLINK, 5, Of::Netlink, Value::Flag, 0),
    row(SOL_NETLINK, 10, Of::Netlink, Value::Flag, 0),
    row(SOL_NETLINK, 11, Of::Netlink, Value::Flag, 0),
    row(SOL_NETLINK, 12, Of::Netlink, Value::Flag, 0),
    row(UDP_LITE, UDPLITE_SEND_CSCOV, Of::UdpLite, COVERAGE, 0),
    row(UDP_LITE, UDPLITE_RECV_CSCOV, Of::UdpLite, COVERAGE, 0),
];

/// The options of a socket.
#[derive(Clone)]
pub struct Options {
    family: Family,
    kind: Kind,
    protocol: u32,
    /// Those that were set.
    numbers: RefCell<BTreeMap<OptionName, i32>>,
    /// SO_SNDBUF and SO_RCVBUF, in bytes.
    send_space: Cell<usize>,
    receive_space: Cell<usize>,
    /// SO_SNDTIMEO and SO_RCVTIMEO, in ns; `None` for no time-out.
    pub send_timeout_ns: Cell<Option<u64>>,
    /// See [`Options::send_timeout_ns`].
    pub receive_timeout_ns: Cell<Option<u64>>,
    /// SO_LINGER
    pub linger: Cell<Linger>,
    /// TCP_CONGESTION: nothing is ever lost, so each does the same.
    pub congestion: Cell<&'static str>,
    /// Whether the loopback was chosen by SO_BINDTODEVICE. There is no other interface.
    pub is_bound_to_loopback: Cell<bool>,
}

/// What TCP_CONGESTION may be set to, as the names of Linux; the first is that of a new socket.
pub const CONGESTION: [&str; 2] = ["cubic", "reno"];

impl Options {
    /// Returns the options of a new socket.
    pub fn new(family: Family, kind: Kind, protocol: u32) -> Options {
        Options {
            family,
            kind,
            protocol,
            numbers: RefCell::default(),
            send_space: Cell::new(DEFAULT_SPACE),
            receive_space: Cell::new(DEFAULT_SPACE),
            send_timeout_ns: Cell::new(None),
            receive_timeout_ns: Cell::new(None),
            linger: Cell::default(),
            congestion: Cell::new(CONGESTION[0]),
            is_bound_to_loopback: Cell::new(false),
        }
    }

    fn row(&self, name: OptionName) -> Result<&'static Row, Errno> {
        let is_ours = |row: &&Row| {
            row.name == name
                && match row.of {
                    Of::All => true,
                    Of::Local => !self.family.is_inet(),
                    Of::Netlink => self.family == Family::Netlink,
                    Of::Ip => self.family.is_inet(),
                    Of::Ipv6 => self.family == Family::Inet6,
                    Of::UdpLite => self.family.is_inet() && self.protocol == UDP_LITE,
                    Of::Tcp => self.family.is_inet() && self.kind == Kind::Stream,
                }
        };
        ROWS.iter().find(is_ours).ok_or(Errno::ENOPROTOOPT)
    }

    /// Returns the value of an option that is a number.
    ///
    /// Errors: ENOPROTOOPT.
    pub fn get(&self, name: OptionName) -> Result<i32, Errno> {
        let row = self.row(name)?;
        Ok(self.numbers.borrow().get(&name).copied().unwrap_or(row.default))
    }

    /// Says whether a flag is set.
    pub fn is_set(&self, level: u32, name: u32) -> bool {
        self.get((level, name)).is_ok_and(|value| value != 0)
    }

    /// Sets an option that is a number.
    ///
    /// Errors: ENOPROTOOPT, EINVAL.
    pub fn set(&self, name: OptionName, value: i32) -> Result<(), Errno> {
        let row = self.row(name)?;
        let value = match row.value {
            Value::Flag => i32::from(value != 0),
            Value::Range(first, last) | Value::RangeOrDefault(first, last)
                if (first..=last).contains(&value) =>
            {
                value
            }
            Value::RangeOrDefault(..) if value == -1 => row.default,
            Value::Range(..) | Value::RangeOrDefault(..) => return Err(Errno::EINVAL),
            Value::ZeroOrClamped(..) if value == 0 => 0,
            Value::ZeroOrClamped(first, last) => value.clamp(first, last),
            Value::RangeOrZero(first, last) if (first..=last).contains(&value) => value,
            Value::RangeOrZero(..) if value == 0 => row.default,
            Value::Ignored(first, last) if (first..=last).contains(&value) => row.default,
            Value::RangeOrZero(..) | Value::Ignored(..) => return Err(Errno::EINVAL),
            Value::Negative(instead) => {
                if value < 0 {
                    instead
                } else {
                    value
                }
            }
            Value::Refused(errno) if value != 0 => return Err(errno),
            Value::Refused(_) => 0,
        };
        self.numbers.borrow_mut().insert(name, value);
        Ok(())
    }

    /// Returns SO_SNDBUF.
    pub fn send_space(&self) -> usize {
        self.send_space.get()
    }

    /// Returns SO_RCVBUF.
    pub fn receive_space(&self) -> usize {
        self.receive_space.get()
    }

    /// Sets SO_SNDBUF to twice what is asked for, within limits, as Linux does.
    pub fn set_send_space(&self, asked: i32) {
        self.send_space.set(doubled(asked).max(MIN_SEND_SPACE));
    }

    /// Sets SO_RCVBUF alike.
    pub fn set_receive_space(&self, asked: i32) {
        self.receive_space.set(doubled(asked).max(MIN_RECEIVE_SPACE));
    }

    /// Returns how many bytes of a stream must wait before it counts as readable (SO_RCVLOWAT).
    pub fn receive_low_water(&self) -> usize {
        let asked = self.get((SOCKET, linux::SO_RCVLOWAT)).unwrap_or(1).max(1);
        usize::try_from(asked).unwrap_or(1)
    }

    /// Says whether a close breaks the connection off: SO_LINGER with a time of 0.
    pub fn resets_on_close(&self) -> bool {
        let linger = self.linger.get();
        self.family.is_inet() && linger.onoff != 0 && linger.linger == 0
    }
}

fn doubled(asked: i32) -> usize {
    // Linux compares without a sign: what is negative is very much.
    let asked = if asked < 0 { MAX_SPACE } else { asked.min(MAX_SPACE) };
    2 * asked as usize
}
