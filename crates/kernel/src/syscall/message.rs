//! Sending and receiving: send(2), recv(2), their forms with messages, and read(2) and write(2) of sockets.

use std::cell::Cell;

use lg_abi::raw::general::O_CLOEXEC;
use lg_abi::raw::net as linux;
use lg_abi::{Errno, MmsgHdr, MsgHdr, Signal};

use super::Ctx;
use super::control::{ControlWriter, deliver, read_control, read_messages};
use super::io::{MAX_VECTORS, check_spans, read_vectors, span};
use super::packet::read_fields;
use super::socket::{OpenSocket, read_address, sleep, write_address};
use crate::mm::{Source, Span, UserBuffers};
use crate::net::{
    Address, Destination, Family, Given, Incoming, Kind, MAX_ADDRESS, Netlink, Outgoing, ReceiveFlags,
    UnixName, credentials_of, find_unix,
};
use crate::task::{Stop, SysResult};

/// Most messages of one call.
const MAX_MESSAGES: u64 = 1024;

/// recvmmsg(2): wait for the first message only (linux/socket.h).
const MSG_WAITFORONE: u32 = 0x1_0000;

/// Where the fields of a `struct msghdr` are that a call changes, and the length in a `struct mmsghdr`.
const NAMELEN: u64 = 8;
const CONTROLLEN: u64 = 40;
const FLAGS: u64 = 48;
const MMSG_LEN: u64 = 56;

fn buffers(ctx: &Ctx<'_>, spans: Vec<Span>) -> UserBuffers {
    UserBuffers::new(ctx.user(), spans)
}

fn may_wait(ctx: &Ctx<'_>, open: &OpenSocket, flags: u32) -> bool {
    ctx.may_sleep() && !open.description.is_nonblocking() && flags & linux::MSG_DONTWAIT == 0
}

/// Reads from a socket as read(2) does. Open files that come along are closed.
pub(super) fn read(ctx: &mut Ctx<'_>, open: &OpenSocket, spans: &[Span]) -> SysResult {
    if spans.iter().all(|span| span.len == 0) {
        return Ok(0);
    }
    let mut to = buffers(ctx, spans.to_vec());
    receive(ctx, open, &mut to, 0, 0).map(|incoming| incoming.stored as u64)
}

/// Writes to a socket as write(2) does.
pub(super) fn write(ctx: &mut Ctx<'_>, open: &OpenSocket, spans: &[Span]) -> SysResult {
    let mut from = buffers(ctx, spans.to_vec());
    let mut outgoing = plain(ctx);
    let resume = *ctx.progress();
    send(ctx, open, &mut from, &mut outgoing, &Sending { to: None, flags: 0 }, resume)
}

/// Something to be sent without open files, by the caller.
fn plain(ctx: &Ctx<'_>) -> Outgoing {
    Outgoing { creds: credentials_of(&ctx.fs()), ..Outgoing::default() }
}

/// Receives once; from a stream until SO_RCVLOWAT is reached, or with MSG_WAITALL until the buffers are full. `resume` is how much earlier tries have stored.
fn receive(
    ctx: &mut Ctx<'_>,
    open: &OpenSocket,
    to: &mut UserBuffers,
    flags: u32,
    resume: u64,
) -> Result<Incoming, Stop> {
    use crate::mm::Sink;
    if flags & linux::MSG_OOB != 0 {
        let is_inet = open.socket.family.is_inet();
        return Err(if !is_inet { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into());
    }
    if flags & linux::MSG_ERRQUEUE != 0 {
        return Err(Errno::EAGAIN.into());
    }
    let peek = ReceiveFlags::from_bits_truncate(flags);
    let wanted = wanted(open, to.room() as u64, flags);
    let wants_more = wanted > 1 && peek.is_empty();
    let mut moved = resume;
    to.skip(resume);
    loop {
        match open.socket.receive(to, peek) {
            Ok(incoming) if incoming.faulted && (moved + incoming.stored as u64 == 0 || is_whole(open)) => {
                return Err(Errno::EFAULT.into());
            }
            Ok(incoming) => {
                moved += incoming.stored as u64;
                let is_over = incoming.stored == 0 || incoming.faulted || !incoming.rights.is_empty();
                if !wants_more || is_over || moved >= wanted || to.room() == 0 {
                    return Ok(if wants_more { with_length(incoming, moved) } else { incoming });
                }
            }
            Err(Stop::Block(wait)) => {
                let timeout_ns = open.socket.options.receive_timeout_ns.get();
                let moved = sleep(ctx, wait, may_wait(ctx, open, flags), timeout_ns, moved)?;
                return Ok(with_length(Incoming::default(), moved));
            }
            Err(_) if moved > 0 => return Ok(with_length(Incoming::default(), moved)),
            Err(stop) => return Err(stop),
        }
    }
}

/// Returns how many bytes of a stream a call that may wait is to receive, of `room`.
fn wanted(open: &OpenSocket, room: u64, flags: u32) -> u64 {
    if is_whole(open) {
        return 1;
    }
    let least = open.socket.options.receive_low_water() as u64;
    if flags & linux::MSG_WAITALL != 0 { room } else { least.min(room) }
}

fn is_whole(open: &OpenSocket) -> bool {
    open.socket.kind != Kind::Stream
}

fn with_length(incoming: Incoming, moved: u64) -> Incoming {
    let stored = usize::try_from(moved).unwrap_or(usize::MAX);
    Incoming { stored, whole: stored, ..incoming }
}

/// How something is sent.
struct Sending {
    to: Option<Destination>,
    flags: u32,
}

/// Sends all, or as much as can be without waiting. `resume` is how much earlier tries have sent.
fn send(
    ctx: &mut Ctx<'_>,
    open: &OpenSocket,
    from: &mut UserBuffers,
    outgoing: &mut Outgoing,
    sending: &Sending,
    resume: u64,
) -> SysResult {
    if sending.flags & linux::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut moved = resume;
    from.skip(resume);
    loop {
        let sent = open.socket.send(&ctx.fs(), from, outgoing, sending.to.as_ref());
        match sent {
            Ok(0) if from.left() > 0 && moved == 0 => return Err(Errno::EFAULT.into()),
            Ok(len) => {
                moved += len as u64;
                if len == 0 || from.left() == 0 || is_whole(open) {
                    return Ok(moved);
                }
            }
            Err(Stop::Block(wait)) => {
                let timeout_ns = open.socket.options.send_timeout_ns.get();
                return sleep(ctx, wait, may_wait(ctx, open, sending.flags), timeout_ns, moved);
            }
            Err(_) if moved > 0 => return Ok(moved),
            Err(Stop::Errno(Errno::EPIPE)) => {
                if open.socket.kind == Kind::Stream && sending.flags & linux::MSG_NOSIGNAL == 0 {
                    ctx.signal_self(Signal::SIGPIPE);
                }
                return Err(Errno::EPIPE.into());
            }
            Err(stop) => return Err(stop),
        }
    }
}

/// Finds where something is to be sent; `None` where no address is given.
fn destination(ctx: &Ctx<'_>, open: &OpenSocket, addr: u64, len: u64) -> Result<Option<Destination>, Errno> {
    if addr == 0 || len as u32 == 0 {
        return Ok(None);
    }
    let socket = &open.socket;
    if !matches!(socket.kind, Kind::Datagram | Kind::Raw) {
        return Ok(Some(Destination::Unused));
    }
    let found = match read_address(ctx, socket.family, addr, len)? {
        Given::Unspecified => return Err(Errno::EINVAL),
        Given::Address(Address::Netlink { port, groups }) => {
            Netlink::check_is_kernel(port, groups)?;
            Destination::Unused
        }
        Given::Address(Address::Inet(to)) => Destination::Inet(to),
        Given::Address(Address::Unix(name)) => {
            let fs = ctx.fs_state();
            let fs = fs.borrow();
            Destination::Unix(find_unix(&ctx.fs(), &fs, socket.kind, &name)?)
        }
    };
    Ok(Some(found))
}

pub(super) fn sys_sendto(ctx: &mut Ctx<'_>, [fd, buf, len, flags, addr, addr_len]: [u64; 6]) -> SysResult {
    let bytes = span(buf, len);
    check_spans(&[bytes])?;
    let open = OpenSocket::of(ctx, fd)?;
    let to = destination(ctx, &open, addr, addr_len)?;
    let mut from = buffers(ctx, vec![bytes]);
    let mut outgoing = plain(ctx);
    let resume = *ctx.progress();
    send(ctx, &open, &mut from, &mut outgoing, &Sending { to, flags: flags as u32 }, resume)
}

pub(super) fn sys_recvfrom(ctx: &mut Ctx<'_>, [fd, buf, len, flags, addr, addr_len]: [u64; 6]) -> SysResult {
    let room = span(buf, len);
    check_spans(&[room])?;
    let open = OpenSocket::of(ctx, fd)?;
    let mut to = buffers(ctx, vec![room]);
    let resume = *ctx.progress();
    let incoming = receive(ctx, &open, &mut to, flags as u32, resume)?;
    if addr != 0 {
        write_address(ctx, &sender(&open, &incoming), addr, addr_len)?;
    }
    Ok(length(&open, &incoming, flags as u32))
}

/// Returns the bytes of the address that something is from; none where it has none.
fn sender(open: &OpenSocket, incoming: &Incoming) -> Vec<u8> {
    let peer = || open.socket.peer().ok().filter(|_| incoming.stored > 0);
    let from = match (open.socket.family, open.socket.kind) {
        (_, Kind::Datagram | Kind::Raw) => incoming.from.clone(),
        (Family::Unix, _) => peer(),
        _ => None,
    };
    match from {
        None | Some(Address::Unix(UnixName::Unnamed)) => Vec::new(),
        Some(address) => address.write(open.socket.family),
    }
}

/// Returns what the call answers: with MSG_TRUNC how long a packet was, stored or not.
fn length(open: &OpenSocket, incoming: &Incoming, flags: u32) -> u64 {
    let whole = is_whole(open) && flags & linux::MSG_TRUNC != 0;
    (if whole { incoming.whole } else { incoming.stored }) as u64
}

fn read_header(ctx: &Ctx<'_>, addr: u64) -> Result<(MsgHdr, Vec<Span>), Errno> {
    let header: MsgHdr = ctx.copy_in(addr)?;
    if header.namelen < 0 {
        return Err(Errno::EINVAL);
    }
    if header.iovlen > MAX_VECTORS {
        return Err(Errno::EMSGSIZE);
    }
    let spans = read_vectors(ctx, header.iov, header.iovlen)?;
    Ok((header, spans))
}

pub(super) fn sys_sendmsg(ctx: &mut Ctx<'_>, [fd, message, flags, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    let resume = *ctx.progress();
    send_message(ctx, &open, message, flags as u32, resume)
}

fn send_message(ctx: &mut Ctx<'_>, open: &OpenSocket, addr: u64, flags: u32, resume: u64) -> SysResult {
    let (header, spans) = read_header(ctx, addr)?;
    let name_len = header.namelen.min(MAX_ADDRESS as i32) as u64;
    let to = destination(ctx, open, header.name, name_len)?;
    let mut outgoing = plain(ctx);
    if !open.socket.family.is_inet() {
        read_control(ctx, header.control, header.controllen, &mut outgoing)?;
    } else if open.socket.kind == Kind::Datagram {
        let messages = read_messages(ctx, header.control, header.controllen)?;
        let to = match &to {
            Some(Destination::Inet(to)) => Some(to.ip()),
            _ => open.socket.datagrams().and_then(|datagrams| datagrams.inet_peer()).map(|peer| peer.ip()),
        };
        if let Some(to) = to {
            outgoing.fields = read_fields(&messages, to)?;
        }
    }
    if resume > 0 {
        // They went with the first byte.
        outgoing.rights = Default::default();
    }
    let mut from = buffers(ctx, spans);
    send(ctx, open, &mut from, &mut outgoing, &Sending { to, flags }, resume)
}

pub(super) fn sys_recvmsg(ctx: &mut Ctx<'_>, [fd, message, flags, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    let resume = *ctx.progress();
    receive_message(ctx, &open, message, flags as u32, resume)
}

fn receive_message(ctx: &mut Ctx<'_>, open: &OpenSocket, addr: u64, flags: u32, resume: u64) -> SysResult {
    let (header, spans) = read_header(ctx, addr)?;
    let mut to = buffers(ctx, spans);
    let incoming = receive(ctx, open, &mut to, flags, resume)?;
    let answer = length(open, &incoming, flags);
    if header.name != 0 {
        let name = sender(open, &incoming);
        let room = usize::try_from(header.namelen).unwrap_or(0);
        ctx.write_bytes(header.name, &name[..name.len().min(room)])?;
        ctx.copy_out(addr.wrapping_add(NAMELEN), &(name.len() as u32))?;
    }
    let mut told = flags & linux::MSG_CMSG_CLOEXEC;
    if incoming.whole > incoming.stored {
        told |= linux::MSG_TRUNC;
    }
    let mut control = ControlWriter::new(header.control, header.controllen);
    let cloexec = if flags & linux::MSG_CMSG_CLOEXEC != 0 { O_CLOEXEC } else { 0 };
    deliver(ctx, &open.socket, incoming, &mut control, cloexec)?;
    if control.is_truncated() {
        told |= linux::MSG_CTRUNC;
    }
    ctx.copy_out(addr.wrapping_add(CONTROLLEN), &control.written())?;
    ctx.copy_out(addr.wrapping_add(FLAGS), &told)?;
    Ok(answer)
}

/// How far a call with several messages is: how many are done, and how much of the next.
#[derive(Default)]
struct Progress {
    messages: Cell<u64>,
    bytes: Cell<u64>,
}

/// Does one message after the other. An error after the first ends the call with how many were done; so does a wait,
/// unless `waits_for_all`.
fn each_message(
    ctx: &mut Ctx<'_>,
    messages: u64,
    count: u64,
    waits_for_all: impl Fn(u64) -> bool,
    mut one: impl FnMut(&mut Ctx<'_>, u64, u64, u64) -> SysResult,
) -> SysResult {
    let progress = ctx.kept::<Progress>().unwrap_or_default();
    let mut done = progress.messages.get();
    while done < count.min(MAX_MESSAGES) {
        let at =
            done.checked_mul(size_of::<MmsgHdr>() as u64).and_then(|offset| messages.checked_add(offset));
        let at = at.ok_or(Errno::EFAULT)?;
        let result = one(ctx, at, done, progress.bytes.take());
        match result {
            Ok(len) => {
                ctx.copy_out(at.wrapping_add(MMSG_LEN), &(len as u32))?;
                done += 1;
            }
            Err(Stop::Block(wait)) if done == 0 || waits_for_all(done) => {
                progress.messages.set(done);
                progress.bytes.set(*ctx.progress());
                *ctx.progress() = done;
                ctx.keep(progress);
                return Err(Stop::Block(wait));
            }
            Err(_) if done > 0 => break,
            Err(stop) => return Err(stop),
        }
    }
    Ok(done)
}

pub(super) fn sys_sendmmsg(ctx: &mut Ctx<'_>, [fd, messages, count, flags, ..]: [u64; 6]) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    each_message(
        ctx,
        messages,
        count & 0xffff_ffff,
        |_| true,
        |ctx, at, _, resume| send_message(ctx, &open, at, flags as u32, resume),
    )
}

/// As on Linux, the time-out is looked at after each message only.
pub(super) fn sys_recvmmsg(
    ctx: &mut Ctx<'_>,
    [fd, messages, count, flags, timeout, _]: [u64; 6],
) -> SysResult {
    let open = OpenSocket::of(ctx, fd)?;
    let flags = flags as u32;
    let deadline_ns = match timeout {
        0 => None,
        addr => {
            let timeout: lg_abi::Timespec = ctx.copy_in(addr)?;
            Some(ctx.now_ns().saturating_add(timeout.to_ns().ok_or(Errno::EINVAL)?))
        }
    };
    let for_one = flags & MSG_WAITFORONE != 0;
    each_message(
        ctx,
        messages,
        count & 0xffff_ffff,
        |_| !for_one,
        |ctx, at, done, resume| {
            if done > 0 && deadline_ns.is_some_and(|deadline_ns| ctx.now_ns() >= deadline_ns) {
                return Err(Errno::EAGAIN.into());
            }
            let after_first = if for_one && done > 0 { linux::MSG_DONTWAIT } else { 0 };
            receive_message(ctx, &open, at, flags & !MSG_WAITFORONE | after_first, resume)
        },
    )
}
