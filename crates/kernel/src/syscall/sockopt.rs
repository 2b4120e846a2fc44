//! Socket options: getsockopt(2), setsockopt(2).

use lg_abi::raw::general::CAP_NET_RAW;
use lg_abi::raw::net as linux;
use lg_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use lg_abi::{Errno, Linger, Timeval, Ucred};

use super::socket::OpenSocket;
use super::{Ctx, multicast, netlink};
use crate::net::{CONGESTION, Family, Kind, LOOPBACK_NAME, SOL_NETLINK, Socket, tcp_info};
use crate::task::SysResult;

const SOCKET: u32 = linux::SOL_SOCKET;
const TCP: u32 = linux::IPPROTO_TCP as u32;

/// The levels at which a socket can be asked for an option; at another, setting one is ENOPROTOOPT.
const LEVELS: [u32; 7] = [
    SOCKET,
    SOL_NETLINK,
    linux::IPPROTO_IP as u32,
    TCP,
    linux::IPPROTO_UDP as u32,
    linux::IPPROTO_UDPLITE as u32,
    linux::IPPROTO_IPV6 as u32,
];

/// Who stands for nobody in SO_PEERCRED.
const NOBODY: Ucred = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };

pub(super) fn sys_getsockopt(ctx: &mut Ctx<'_>, [fd, level, name, addr, len_addr, _]: [u64; 6]) -> SysResult {
    let socket = OpenSocket::of(ctx, fd)?.socket;
    let (level, name) = (level as u32, name as u32);
    check_level(&socket, level)?;
    if !LEVELS.contains(&level) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let room: i32 = ctx.copy_in(len_addr)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let value = match (level, name) {
        (SOL_NETLINK, _) => netlink::get(&socket, name, room)?,
        (SOCKET, linux::SO_LINGER) => bytes(&socket.options.linger.get()),
        (SOCKET, linux::SO_RCVTIMEO_OLD | linux::SO_RCVTIMEO_NEW) => {
            timeval(socket.options.receive_timeout_ns.get())
        }
        (SOCKET, linux::SO_SNDTIMEO_OLD | linux::SO_SNDTIMEO_NEW) => {
            timeval(socket.options.send_timeout_ns.get())
        }
        (SOCKET, linux::SO_PEERCRED) => bytes(&peer_creds(&socket)),
        (SOCKET, linux::SO_BINDTODEVICE) => device(&socket, room)?,
        (TCP, linux::TCP_INFO | linux::TCP_CONGESTION) => tcp(&socket, name)?,
        _ => bytes(&number(&socket, level, name)?),
    };
    let len = value.len().min(room);
    ctx.write_bytes(addr, &value[..len])?;
    ctx.copy_out(len_addr, &(len as u32))?;
    Ok(0)
}

fn bytes<T: IntoBytes + Immutable>(value: &T) -> Vec<u8> {
    value.as_bytes().to_vec()
}

fn timeval(timeout_ns: Option<u64>) -> Vec<u8> {
    bytes(&Timeval::from_ns(timeout_ns.unwrap_or(0)))
}

fn peer_creds(socket: &Socket) -> Ucred {
    match (socket.stream(), socket.listener()) {
        (Some(stream), _) if socket.family == Family::Unix => stream.peer_creds,
        (_, Some(listener)) if socket.family == Family::Unix => listener.creds,
        _ => NOBODY,
    }
}

/// A unix socket has only the options of all sockets, a netlink socket its own too.
fn check_level(socket: &Socket, level: u32) -> Result<(), Errno> {
    match (socket.family, level) {
        (_, SOCKET) | (Family::Netlink, SOL_NETLINK) => Ok(()),
        (Family::Netlink, _) => Err(Errno::ENOPROTOOPT),
        (Family::Unix, _) => Err(Errno::EOPNOTSUPP),
        (Family::Inet | Family::Inet6, _) => Ok(()),
    }
}

/// Returns the value of an option that is a number.
fn number(socket: &Socket, level: u32, name: u32) -> Result<i32, Errno> {
    let length = |bytes| i32::try_from(bytes).unwrap_or(i32::MAX);
    Ok(match (level, name) {
        (SOCKET, linux::SO_TYPE) => socket.kind.number() as i32,
        (SOCKET, linux::SO_DOMAIN) => socket.family.number() as i32,
        (SOCKET, linux::SO_PROTOCOL) => socket.protocol as i32,
        (SOCKET, linux::SO_ERROR) => socket.take_error().map_or(0, Errno::number),
        (SOCKET, linux::SO_ACCEPTCONN) => i32::from(socket.listener().is_some()),
        (SOCKET, linux::SO_SNDBUF) => length(socket.options.send_space()),
        (SOCKET, linux::SO_RCVBUF) => length(socket.options.receive_space()),
        (SOCKET, linux::SO_SNDLOWAT) => 1,
        _ => socket.options.get((level, name))?,
    })
}

pub(super) fn sys_setsockopt(ctx: &mut Ctx<'_>, [fd, level, name, addr, len, _]: [u64; 6]) -> SysResult {
    let socket = OpenSocket::of(ctx, fd)?.socket;
    let (level, name, len) = (level as u32, name as u32, len as i32);
    if len < 0 {
        return Err(Errno::EINVAL.into());
    }
    check_level(&socket, level)?;
    let options = &socket.options;
    match (level, name) {
        (SOL_NETLINK, _) => netlink::set(ctx, &socket, name, addr, len)?,
        (SOCKET, linux::SO_BINDTODEVICE) => bind_to_device(ctx, &socket, addr, len)?,
        (TCP, linux::TCP_CONGESTION) => set_congestion(ctx, &socket, addr, len)?,
        _ if multicast::is_membership(level, name) => {
            return Err(multicast::refuse(ctx, &socket, (level, name), addr, len as usize).into());
        }
        (SOCKET, linux::SO_LINGER) => options.linger.set(read::<Linger>(ctx, addr, len)?),
        (SOCKET, linux::SO_RCVTIMEO_OLD | linux::SO_RCVTIMEO_NEW) => {
            options.receive_timeout_ns.set(read_timeout(ctx, addr, len)?);
        }
        (SOCKET, linux::SO_SNDTIMEO_OLD | linux::SO_SNDTIMEO_NEW) => {
            options.send_timeout_ns.set(read_timeout(ctx, addr, len)?);
        }
        (SOCKET, linux::SO_SNDBUF | linux::SO_SNDBUFFORCE) => options.set_send_space(read(ctx, addr, len)?),
        (SOCKET, linux::SO_RCVBUF | linux::SO_RCVBUFFORCE) => {
            options.set_receive_space(read(ctx, addr, len)?);
        }
        _ => {
            let is_v6_only = (level, name) == (linux::IPPROTO_IPV6 as u32, linux::IPV6_V6ONLY);
            let value = read(ctx, addr, len)?;
            if is_v6_only && socket.is_bound() {
                return Err(Errno::EINVAL.into());
            }
            // No bytes to wait for are one.
            let is_low_water = (level, name) == (SOCKET, linux::SO_RCVLOWAT);
            options.set((level, name), if is_low_water && value == 0 { 1 } else { value })?;
        }
    }
    socket.options_changed();
    Ok(0)
}

/// Longest names of an interface, and of a way to control congestion, in bytes.
const MAX_DEVICE: usize = 15;
const MAX_CONGESTION: usize = 15;

/// Returns the interface that SO_BINDTODEVICE has chosen.
///
/// Errors: EINVAL where there is less room than for any name.
fn device(socket: &Socket, room: usize) -> Result<Vec<u8>, Errno> {
    match socket.options.is_bound_to_loopback.get() {
        false => Ok(Vec::new()),
        true if room <= MAX_DEVICE => Err(Errno::EINVAL),
        true => Ok([LOOPBACK_NAME, b"\0"].concat()),
    }
}

/// Copies a name in, up to its NUL.
fn read_name(ctx: &Ctx<'_>, addr: u64, len: i32, longest: usize) -> Result<Vec<u8>, Errno> {
    let mut name = vec![0; usize::try_from(len).unwrap_or(0).min(longest)];
    ctx.read_bytes(addr, &mut name)?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(name)
}

/// Chooses an interface, or with no name all.
///
/// Errors: ENODEV; EPERM where one is chosen and the caller lacks CAP_NET_RAW; EFAULT.
fn bind_to_device(ctx: &Ctx<'_>, socket: &Socket, addr: u64, len: i32) -> Result<(), Errno> {
    let name = read_name(ctx, addr, len, MAX_DEVICE)?;
    if !name.is_empty() && name != LOOPBACK_NAME {
        return Err(Errno::ENODEV);
    }
    let bound = &socket.options.is_bound_to_loopback;
    if bound.get() && !ctx.task().creds.has_capability(CAP_NET_RAW) {
        return Err(Errno::EPERM);
    }
    bound.set(!name.is_empty());
    Ok(())
}

/// Returns a value of a TCP socket that is no number.
///
/// Errors: EOPNOTSUPP for another socket.
fn tcp(socket: &Socket, name: u32) -> Result<Vec<u8>, Errno> {
    if socket.kind != Kind::Stream {
        return Err(Errno::EOPNOTSUPP);
    }
    if name == linux::TCP_INFO {
        return Ok(tcp_info(socket));
    }
    let mut congestion = socket.options.congestion.get().as_bytes().to_vec();
    congestion.resize(MAX_CONGESTION + 1, 0);
    Ok(congestion)
}

/// Sets TCP_CONGESTION.
///
/// Errors: EINVAL for no name, ENOENT for one that is not known; ENOPROTOOPT for another socket; EFAULT.
fn set_congestion(ctx: &Ctx<'_>, socket: &Socket, addr: u64, len: i32) -> Result<(), Errno> {
    if socket.kind != Kind::Stream {
        return Err(Errno::ENOPROTOOPT);
    }
    if len < 1 {
        return Err(Errno::EINVAL);
    }
    let name = read_name(ctx, addr, len, MAX_CONGESTION)?;
    let known = CONGESTION.into_iter().find(|known| known.as_bytes() == name).ok_or(Errno::ENOENT)?;
    socket.options.congestion.set(known);
    Ok(())
}

fn read<T: FromBytes + IntoBytes>(ctx: &Ctx<'_>, addr: u64, len: i32) -> Result<T, Errno> {
    if (len as usize) < size_of::<T>() {
        return Err(Errno::EINVAL);
    }
    ctx.copy_in(addr)
}

/// Reads a time-out, where 0 is none.
///
/// Errors: EDOM for microseconds that are none.
fn read_timeout(ctx: &Ctx<'_>, addr: u64, len: i32) -> Result<Option<u64>, Errno> {
    let time: Timeval = read(ctx, addr, len)?;
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EDOM);
    }
    // A time in the past is over at once.
    if time.tv_sec < 0 {
        return Ok(Some(0));
    }
    Ok(time.to_ns().filter(|ns| *ns > 0))
}
