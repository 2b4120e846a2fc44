//! How sockets get names and peers: bind(2), listen(2), connect(2), accept(2), socketpair(2).

use std::net::SocketAddr;
use std::rc::Rc;

use lg_abi::{Errno, Ucred};

use super::address::Given;
use super::socket::{Attempt, Bound, State};
use super::stream::Framing;
use super::{
    Address, Channel, Family, Kind, Listener, Netlink, Socket, Stream, UnixName, credentials_of, inet, unix,
};
use crate::task::{Stop, Wait};
use crate::vfs::{FsContext, FsState};

/// Whether a connect may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It may.
    Waits,
    /// It may not (O_NONBLOCK).
    DoesNotWait,
}

/// Gives a socket a name or a port.
///
/// Errors: EINVAL where it has one; those of [`unix::bind`] and [`inet::bind`].
pub fn bind(cx: &FsContext<'_>, fs: &FsState, socket: &Rc<Socket>, to: Given) -> Result<(), Errno> {
    let (local, bound) = match to {
        Given::Unspecified if !socket.family.is_inet() => return Err(Errno::EINVAL),
        Given::Unspecified => return Err(Errno::EAFNOSUPPORT),
        Given::Address(Address::Netlink { port, groups }) => {
            let netlink = socket.netlink().ok_or(Errno::EINVAL)?;
            return netlink.bind(cx, port, groups);
        }
        Given::Address(_) if socket.bound.borrow().is_some() => return Err(Errno::EINVAL),
        Given::Address(Address::Unix(name)) => {
            let (name, bound) = unix::bind(cx, fs, socket, name)?;
            (Address::Unix(name), Bound::Name(bound))
        }
        Given::Address(Address::Inet(wanted)) => {
            let (address, bound) = inet::bind(cx, socket, wanted)?;
            (Address::Inet(address), Bound::Port(bound))
        }
    };
    *socket.local.borrow_mut() = Some(local);
    *socket.bound.borrow_mut() = Some(bound);
    Ok(())
}

/// Returns the address of an internet socket, which gets any free port if it has none.
///
/// Errors: EADDRINUSE when no port is free.
pub(super) fn bind_any(cx: &FsContext<'_>, socket: &Rc<Socket>) -> Result<SocketAddr, Errno> {
    if let Some(Address::Inet(local)) = &*socket.local.borrow()
        && local.port() != 0
    {
        return Ok(*local);
    }
    let (address, bound) = inet::bind(cx, socket, SocketAddr::new(inet::any(socket.family), 0))?;
    *socket.local.borrow_mut() = Some(Address::Inet(address));
    *socket.bound.borrow_mut() = Some(Bound::Port(bound));
    Ok(address)
}

/// Makes a socket wait for connections, or changes how many may wait.
///
/// Errors: EOPNOTSUPP for datagrams; EINVAL for one that is connected, and for a unix socket without a name;
/// EADDRINUSE where another listens at the same port.
pub fn listen(cx: &FsContext<'_>, socket: &Rc<Socket>, backlog: usize) -> Result<(), Errno> {
    match socket.state() {
        State::Datagrams(_) | State::Netlink(_) => return Err(Errno::EOPNOTSUPP),
        State::Connected(_) => return Err(Errno::EINVAL),
        State::Listening(listener) => {
            listener.set_backlog(backlog);
            return Ok(());
        }
        State::Idle => {}
    }
    if socket.family == Family::Unix {
        if socket.local.borrow().is_none() {
            return Err(Errno::EINVAL);
        }
    } else {
        let at = bind_any(cx, socket)?;
        socket.net.check_may_listen(socket, at)?;
    }
    socket.set_state(State::Listening(Listener::new(backlog, credentials_of(cx))));
    Ok(())
}

/// Connects a socket.
///
/// Errors: those of connect(2); EINPROGRESS where a TCP connection may not be waited for, though it is made or
/// refused at once; blocks while too many connections wait at the other side.
pub fn connect(
    cx: &FsContext<'_>,
    fs: &FsState,
    socket: &Rc<Socket>,
    to: Given,
    patience: Patience,
) -> Result<(), Stop> {
    match (socket.state(), to) {
        (State::Netlink(_), Given::Unspecified) => Ok(()),
        (State::Netlink(netlink), Given::Address(Address::Netlink { port, groups })) => {
            Netlink::check_is_kernel(port, groups)?;
            Ok(netlink.bind_any(cx)?)
        }
        (State::Datagrams(datagrams), Given::Unspecified) => {
            datagrams.disconnect();
            *socket.peer.borrow_mut() = None;
            Ok(())
        }
        (State::Datagrams(_), Given::Address(to)) => Ok(connect_datagrams(cx, fs, socket, to)?),
        (State::Idle | State::Connected(_), Given::Unspecified) if socket.family != Family::Unix => {
            disconnect(socket);
            Ok(())
        }
        (_, Given::Unspecified) => Err(Errno::EINVAL.into()),
        (State::Connected(_) | State::Idle, _) if socket.attempt.get() != Attempt::None => {
            match socket.attempt.replace(Attempt::None) {
                Attempt::Failed => Err(socket.take_error().unwrap_or(Errno::ECONNABORTED).into()),
                Attempt::Made | Attempt::None => Ok(()),
            }
        }
        (State::Connected(_), to) => {
            if let Given::Address(Address::Unix(name)) = &to {
                unix::find(cx, fs, socket.kind, name)?;
            }
            Err(Errno::EISCONN.into())
        }
        (State::Listening(_), _) if socket.family == Family::Unix => Err(Errno::EINVAL.into()),
        (State::Listening(_), _) => Err(Errno::EISCONN.into()),
        (State::Idle, Given::Address(Address::Unix(name))) => connect_unix(cx, fs, socket, &name),
        (State::Idle, Given::Address(Address::Inet(to))) => begin_tcp(cx, socket, to, patience),
        (State::Netlink(_), _) | (_, Given::Address(Address::Netlink { .. })) => Err(Errno::EINVAL.into()),
    }
}

/// Ends a TCP connection so that the socket can be used for another.
fn disconnect(socket: &Socket) {
    if let Some(stream) = socket.stream() {
        stream.resets_on_close.set(true);
    }
    *socket.peer.borrow_mut() = None;
    socket.attempt.set(Attempt::None);
    socket.set_state(State::Idle);
}

/// Connects a TCP socket. Who may not wait learns the outcome later, as on Linux, where even the loopback answers
/// only after the call.
fn begin_tcp(
    cx: &FsContext<'_>,
    socket: &Rc<Socket>,
    to: SocketAddr,
    patience: Patience,
) -> Result<(), Stop> {
    let outcome = connect_tcp(cx, socket, to, patience);
    let attempt = match outcome {
        Ok(()) => Attempt::Made,
        Err(Stop::Errno(Errno::ECONNREFUSED)) => Attempt::Failed,
        Err(_) => return outcome,
    };
    if patience == Patience::Waits {
        return outcome;
    }
    socket.attempt.set(attempt);
    if attempt == Attempt::Failed {
        socket.error.set(Some(Errno::ECONNREFUSED));
        socket.wake_all();
    }
    Err(Errno::EINPROGRESS.into())
}

fn connect_datagrams(
    cx: &FsContext<'_>,
    fs: &FsState,
    socket: &Rc<Socket>,
    to: Address,
) -> Result<(), Errno> {
    let datagrams = socket.datagrams().ok_or(Errno::EINVAL)?;
    match &to {
        Address::Netlink { .. } => return Err(Errno::EINVAL),
        Address::Unix(name) => datagrams.set_unix_peer(&unix::find(cx, fs, socket.kind, name)?),
        Address::Inet(address) => {
            let to = inet::destination(socket, *address)?;
            let local = bind_any(cx, socket)?;
            if local.ip().is_unspecified() {
                let from = SocketAddr::new(inet::source_of(to.ip()), local.port());
                *socket.local.borrow_mut() = Some(Address::Inet(from));
            }
            datagrams.set_inet_peer(to);
            *socket.peer.borrow_mut() = Some(Address::Inet(to));
            socket.wake_all();
            return Ok(());
        }
    }
    *socket.peer.borrow_mut() = Some(to);
    socket.wake_all();
    Ok(())
}

fn connect_unix(cx: &FsContext<'_>, fs: &FsState, socket: &Rc<Socket>, name: &UnixName) -> Result<(), Stop> {
    let server = unix::find(cx, fs, socket.kind, name)?;
    let listener = server.listener().ok_or(Errno::ECONNREFUSED)?;
    if listener.is_full() {
        return Err(listener.wait_for_room());
    }
    let accepted = Socket::new(&socket.net, server.family, server.kind, server.protocol);
    *accepted.local.borrow_mut() = server.local.borrow().clone();
    *accepted.peer.borrow_mut() = Some(socket.local());
    *socket.peer.borrow_mut() = Some(server.local());
    Ok(admit(cx, socket, &server, &listener, accepted)?)
}

fn connect_tcp(
    cx: &FsContext<'_>,
    socket: &Rc<Socket>,
    to: SocketAddr,
    patience: Patience,
) -> Result<(), Stop> {
    let to = inet::destination(socket, to)?;
    let server = socket.net.listening_at(to).ok_or(Errno::ECONNREFUSED)?;
    let listener = server.listener().ok_or(Errno::ECONNREFUSED)?;
    if listener.is_full() {
        // Linux lets the connection go on by itself and tries again; here it is let in, up to the largest backlog.
        match patience {
            Patience::Waits => return Err(listener.wait_for_room()),
            Patience::DoesNotWait if listener.count_waiting() > super::SOMAXCONN => {
                return Err(Errno::EAGAIN.into());
            }
            Patience::DoesNotWait => {}
        }
    }
    let local = bind_any(cx, socket).map_err(|_| Errno::EADDRNOTAVAIL)?;
    let ip = if local.ip().is_unspecified() { inet::source_of(to.ip()) } else { local.ip() };
    let from = SocketAddr::new(ip, local.port());
    let what = (server.family, server.kind, server.protocol);
    let accepted = Socket::with_options(&socket.net, server.options.clone(), what);
    *accepted.local.borrow_mut() = Some(Address::Inet(to));
    *accepted.peer.borrow_mut() = Some(Address::Inet(from));
    *socket.local.borrow_mut() = Some(Address::Inet(from));
    *socket.peer.borrow_mut() = Some(Address::Inet(to));
    Ok(admit(cx, socket, &server, &listener, accepted)?)
}

/// Connects `client` with `accepted`, which waits at the listener from then on.
fn admit(
    cx: &FsContext<'_>,
    client: &Rc<Socket>,
    server: &Rc<Socket>,
    listener: &Listener,
    accepted: Rc<Socket>,
) -> Result<(), Errno> {
    let Ok(counted) = cx.vfs.open_files().take_one() else {
        *client.peer.borrow_mut() = None;
        return Err(Errno::ENFILE);
    };
    *accepted.counted.borrow_mut() = Some(counted);
    join(client, &accepted, (credentials_of(cx), listener.creds));
    if let Some(stream) = accepted.stream() {
        stream.set_accepted(false);
    }
    listener.push(accepted);
    server.readable.wake_all();
    Ok(())
}

/// Makes two sockets the sides of a connection. `creds` are those of `a` and `b`.
fn join(a: &Rc<Socket>, b: &Rc<Socket>, creds: (Ucred, Ucred)) {
    let framing = if a.kind == Kind::Stream { Framing::Bytes } else { Framing::Packets };
    let transport = a.transport();
    let to_b = Channel::new(&a.net, &b.readable, &a.writable);
    let to_a = Channel::new(&a.net, &a.readable, &b.writable);
    let a_side = Stream::new(transport, framing, (to_a.clone(), to_b.clone()), creds.1);
    let b_side = Stream::new(transport, framing, (to_b, to_a), creds.0);
    for (socket, side) in [(a, a_side), (b, b_side)] {
        socket.set_state(State::Connected(side));
        socket.options_changed();
    }
}

/// Takes a connection that waits.
///
/// Errors: EINVAL where the socket does not listen, EOPNOTSUPP for datagrams; blocks while no connection waits.
pub fn accept(socket: &Socket) -> Result<Rc<Socket>, Stop> {
    let listener = match socket.state() {
        State::Listening(listener) => listener,
        State::Datagrams(_) | State::Netlink(_) => return Err(Errno::EOPNOTSUPP.into()),
        State::Idle | State::Connected(_) => return Err(Errno::EINVAL.into()),
    };
    let Some(accepted) = listener.pop() else {
        return Err(Stop::Block(Wait::on([socket.readable.clone()])));
    };
    if let Some(stream) = accepted.stream() {
        stream.set_accepted(true);
    }
    accepted.counted.borrow_mut().take();
    Ok(accepted)
}

/// Returns two unix sockets that are connected with each other.
pub fn new_pair(cx: &FsContext<'_>, kind: Kind) -> (Rc<Socket>, Rc<Socket>) {
    let net = cx.vfs.net();
    let [a, b] = [(); 2].map(|()| Socket::new(net, Family::Unix, kind, 0));
    match (a.datagrams(), b.datagrams()) {
        (Some(to_a), Some(to_b)) => {
            to_a.set_unix_peer(&b);
            to_b.set_unix_peer(&a);
        }
        _ => join(&a, &b, (credentials_of(cx), credentials_of(cx))),
    }
    for socket in [&a, &b] {
        *socket.peer.borrow_mut() = Some(socket.no_address());
    }
    (a, b)
}
