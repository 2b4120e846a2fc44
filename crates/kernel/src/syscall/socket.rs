//! Sockets: socket(2), socketpair(2), bind(2), listen(2), accept(2), connect(2), shutdown(2), names.

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{O_CLOEXEC, O_NONBLOCK};
use lg_abi::raw::net::{
    AF_UNIX, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET,
    SOCK_STREAM,
};

use super::Ctx;
use super::fd::{fd_limit, install};
use crate::net::{
    self, Address, Direction, Family, Given, Kind, MAX_ADDRESS, Patience, Socket, as_socket, new_socket,
};
use crate::task::{Stop, SysResult, Wait};
use crate::vfs::{FileDescription, OnExec};

/// The bits of a socket type that are no flags.
const TYPE_MASK: u32 = 0xf;
/// The first number that is no type (linux/net.h).
const SOCK_MAX: u32 = 11;
/// SOCK_NONBLOCK and SOCK_CLOEXEC have the values of open(2).
const SOCK_FLAGS: u32 = O_NONBLOCK | O_CLOEXEC;

/// An open socket.
#[derive(Clone)]
pub(super) struct OpenSocket {
    pub description: Rc<FileDescription>,
    pub socket: Rc<Socket>,
}

impl OpenSocket {
    /// Returns the socket of a descriptor.
    ///
    /// Errors: EBADF, ENOTSOCK.
    pub fn of(ctx: &Ctx<'_>, fd: u64) -> Result<OpenSocket, Errno> {
        let description = ctx.open_fd(fd)?;
        let socket = as_socket(&description.file).ok_or(Errno::ENOTSOCK)?;
        Ok(OpenSocket { description, socket })
    }
}

/// Sleeps as a call on a socket does that can not go on: not at all where it may not wait, and until the time-out of
/// the socket. `moved` is what has been done so far, which a later try goes on from.
pub(super) fn sleep(
    ctx: &mut Ctx<'_>,
    wait: Wait,
    may_wait: bool,
    timeout_ns: Option<u64>,
    moved: u64,
) -> SysResult {
    let deadline_ns = timeout_ns.map(|timeout_ns| ctx.deadline_after(timeout_ns));
    let is_late = deadline_ns.is_some_and(|deadline_ns| ctx.now_ns() >= deadline_ns);
    if !may_wait || is_late {
        return if moved > 0 { Ok(moved) } else { Err(Errno::EAGAIN.into()) };
    }
    *ctx.progress() = moved;
    // With a time-out a call is not made again after a signal (signal(7)), but tells what it has done.
    let wait = if deadline_ns.is_some() && moved == 0 { wait.interruptible() } else { wait };
    Err(Stop::Block(wait.until(deadline_ns)))
}

/// What socket(2) is asked for.
struct Wanted {
    family: Family,
    kind: Kind,
    protocol: u32,
    flags: u32,
}

/// Decodes the arguments of socket(2).
///
/// Errors: EINVAL, EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT; EPERM for raw sockets.
fn wanted(domain: u64, socket_type: u64, protocol: u64) -> Result<Wanted, Errno> {
    let (socket_type, protocol) = (socket_type as u32, protocol as u32);
    let (number, flags) = (socket_type & TYPE_MASK, socket_type & !TYPE_MASK);
    if flags & !SOCK_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let family = Family::from_number(domain as u32);
    if number >= SOCK_MAX {
        return Err(Errno::EINVAL);
    }
    let family = family.ok_or(Errno::EAFNOSUPPORT)?;
    let (kind, protocol) = match family {
        Family::Unix => (unix_kind(number, protocol)?, 0),
        Family::Netlink => (netlink_kind(number, protocol)?, protocol),
        Family::Inet | Family::Inet6 => inet_kind(number, protocol)?,
    };
    Ok(Wanted { family, kind, protocol, flags })
}

fn unix_kind(number: u32, protocol: u32) -> Result<Kind, Errno> {
    if protocol != 0 && protocol != AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match number {
        SOCK_STREAM => Ok(Kind::Stream),
        // What BSD calls raw is a datagram here.
        SOCK_DGRAM | SOCK_RAW => Ok(Kind::Datagram),
        SOCK_SEQPACKET => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Only NETLINK_ROUTE, which is 0, is there.
fn netlink_kind(number: u32, protocol: u32) -> Result<Kind, Errno> {
    match number {
        SOCK_RAW | SOCK_DGRAM if protocol != 0 => Err(Errno::EPROTONOSUPPORT),
        SOCK_RAW => Ok(Kind::Raw),
        SOCK_DGRAM => Ok(Kind::Datagram),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

fn inet_kind(number: u32, protocol: u32) -> Result<(Kind, u32), Errno> {
    let (kind, own) = match number {
        SOCK_STREAM => (Kind::Stream, IPPROTO_TCP as u32),
        SOCK_DGRAM if protocol == IPPROTO_UDPLITE as u32 => (Kind::Datagram, protocol),
        SOCK_DGRAM => (Kind::Datagram, IPPROTO_UDP as u32),
        SOCK_RAW if protocol != 0 => return Err(Errno::EPERM),
        SOCK_RAW => return Err(Errno::EPROTONOSUPPORT),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    if protocol == IPPROTO_IP as u32 || protocol == own {
        Ok((kind, own))
    } else {
        Err(Errno::EPROTONOSUPPORT)
    }
}

pub(super) fn sys_socket(ctx: &mut Ctx<'_>, [domain, socket_type, protocol, ..]: [u64; 6]) -> SysResult {
    let wanted = wanted(domain, socket_type, protocol)?;
    let description = {
        let cx = ctx.fs();
        let socket = Socket::new(cx.vfs.net(), wanted.family, wanted.kind, wanted.protocol);
        new_socket(&cx, socket, wanted.flags & O_NONBLOCK)?
    };
    install(ctx, description, wanted.flags)
}

pub(super) fn sys_socketpair(
    ctx: &mut Ctx<'_>,
    [domain, socket_type, protocol, addr, ..]: [u64; 6],
) -> SysResult {
    if socket_type as u32 & !(TYPE_MASK | SOCK_FLAGS) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let limit = fd_limit(ctx);
    let table = ctx.fds();
    // The numbers are told before there is a pair, as Linux does.
    let numbers = table.borrow().next_two(limit)?;
    ctx.copy_out(addr, &numbers)?;
    let wanted = wanted(domain, socket_type, protocol)?;
    if wanted.family != Family::Unix {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (a, b) = {
        let cx = ctx.fs();
        let (a, b) = net::new_pair(&cx, wanted.kind);
        let flags = wanted.flags & O_NONBLOCK;
        (new_socket(&cx, a, flags)?, new_socket(&cx, b, flags)?)
    };
    let on_exec = OnExec::from_flags(wanted.flags, O_CLOEXEC);
    let first = table.borrow_mut().insert(a, on_exec, limit)?;
    if let Err(errno) = table.borrow_mut().insert(b, on_exec, limit) {
        let closed = table.borrow_mut().remove(u64::from(first));
        drop(closed);
        return Err(errno.into());
    }
    Ok(0)
}

/// Copies an address argument in.
///
/// Errors: EINVAL, EFAULT, EAFNOSUPPORT.
pub(super) fn read_address(ctx: &Ctx<'_>, family: Family, addr: u64, len: u64) -> Result<Given, Errno> {
    let len = usize::try_from(len as i32).ok().filter(|len| *len <= MAX_ADDRESS).ok_or(Errno::EINVAL)?;
    let mut bytes = [0; MAX_ADDRESS];
    ctx.read_bytes(addr, &mut bytes[..len])?;
    Address::read(family, &bytes[..len])
}

/// Writes an address, or the beginning of it, where `len_addr` says how much room there is, and how long it is.
///
/// Errors: EFAULT; EINVAL for a negative length.
pub(super) fn write_address(ctx: &Ctx<'_>, bytes: &[u8], addr: u64, len_addr: u64) -> Result<(), Errno> {
    let room: i32 = ctx.copy_in(len_addr)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    ctx.write_bytes(addr, &bytes[..bytes.len().min(room)])?;
    ctx.copy_out(len_addr, &(bytes.len() as u32))
}

pub(super) fn sys_bind(ctx: &mut Ctx<'_>, [fd, addr, len, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    let to = read_address(ctx, open.socket.family, addr, len)?;
    let fs = ctx.fs_state();
    net::bind(&ctx.fs(), &fs.borrow(), &open.socket, to)?;
    Ok(0)
}

pub(super) fn sys_listen(ctx: &mut Ctx<'_>, [fd, backlog, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    // Linux compares without a sign: what is negative is very much.
    net::listen(&ctx.fs(), &open.socket, backlog as u32 as usize)?;
    Ok(0)
}

pub(super) fn sys_connect(ctx: &mut Ctx<'_>, [fd, addr, len, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    let to = read_address(ctx, open.socket.family, addr, len)?;
    let waits = !open.description.is_nonblocking();
    let patience = if waits { Patience::Waits } else { Patience::DoesNotWait };
    let fs = ctx.fs_state();
    let connected = net::connect(&ctx.fs(), &fs.borrow(), &open.socket, to, patience);
    match connected {
        Ok(()) => Ok(0),
        Err(Stop::Block(wait)) => {
            let timeout_ns = open.socket.options.send_timeout_ns.get();
            sleep(ctx, wait, waits, timeout_ns, 0)
        }
        Err(stop) => Err(stop),
    }
}

pub(super) fn sys_accept(ctx: &mut Ctx<'_>, [fd, addr, len_addr, ..]: [u64; 6]) -> SysResult {
    accept(ctx, fd, addr, len_addr, 0)
}

pub(super) fn sys_accept4(ctx: &mut Ctx<'_>, [fd, addr, len_addr, flags, ..]: [u64; 6]) -> SysResult {
    ctx.fd(fd)?;
    let flags = flags as u32;
    if flags & !SOCK_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    accept(ctx, fd, addr, len_addr, flags)
}

fn accept(ctx: &mut Ctx<'_>, fd: u64, addr: u64, len_addr: u64, flags: u32) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    if ctx.fds().borrow().is_full(fd_limit(ctx)) {
        return Err(Errno::EMFILE.into());
    }
    let accepted = match net::accept(&open.socket) {
        Ok(accepted) => accepted,
        Err(Stop::Block(wait)) => {
            let timeout_ns = open.socket.options.receive_timeout_ns.get();
            return sleep(ctx, wait, !open.description.is_nonblocking(), timeout_ns, 0);
        }
        Err(stop) => return Err(stop),
    };
    if addr != 0 {
        let bytes = accepted.peer().unwrap_or_else(|_| accepted.no_address()).write(accepted.family);
        write_address(ctx, &bytes, addr, len_addr)?;
    }
    let description = new_socket(&ctx.fs(), accepted, flags & O_NONBLOCK)?;
    install(ctx, description, flags)
}

pub(super) fn sys_getsockname(ctx: &mut Ctx<'_>, [fd, addr, len_addr, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    write_address(ctx, &open.socket.local().write(open.socket.family), addr, len_addr)?;
    Ok(0)
}

pub(super) fn sys_getpeername(ctx: &mut Ctx<'_>, [fd, addr, len_addr, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    write_address(ctx, &open.socket.connected_peer()?.write(open.socket.family), addr, len_addr)?;
    Ok(0)
}

pub(super) fn sys_shutdown(ctx: &mut Ctx<'_>, [fd, how, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    let directions = match how as u32 {
        0 => Direction::READ,
        1 => Direction::WRITE,
        2 => Direction::all(),
        _ => return Err(Errno::EINVAL.into()),
    };
    open.socket.shut_down(directions)?;
    Ok(0)
}
