//! Socket options: getsockopt(2), setsockopt(2).

use lg_abi::raw::net as linux;
use lg_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use lg_abi::{Errno, Linger, Timeval, Ucred};

use super::Ctx;
use super::socket::OpenSocket;
use crate::net::{Family, Socket};
use crate::task::SysResult;

const SOCKET: u32 = linux::SOL_SOCKET;

/// The levels at which a socket can be asked for an option; at another, setting one is ENOPROTOOPT.
const LEVELS: [u32; 6] = [
    SOCKET,
    linux::IPPROTO_IP as u32,
    linux::IPPROTO_TCP as u32,
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
        (SOCKET, linux::SO_LINGER) => bytes(&socket.options.linger.get()),
        (SOCKET, linux::SO_RCVTIMEO_OLD | linux::SO_RCVTIMEO_NEW) => {
            timeval(socket.options.receive_timeout_ns.get())
        }
        (SOCKET, linux::SO_SNDTIMEO_OLD | linux::SO_SNDTIMEO_NEW) => {
            timeval(socket.options.send_timeout_ns.get())
        }
        (SOCKET, linux::SO_PEERCRED) => bytes(&peer_creds(&socket)),
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

/// A unix socket has only the options of all sockets.
fn check_level(socket: &Socket, level: u32) -> Result<(), Errno> {
    if socket.family == Family::Unix && level != SOCKET { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
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
        (SOCKET, linux::SO_RCVLOWAT | linux::SO_SNDLOWAT) => 1,
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
            options.set((level, name), value)?;
        }
    }
    socket.options_changed();
    Ok(0)
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
