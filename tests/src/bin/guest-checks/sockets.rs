//! Sockets: between processes, and over the loopback interface.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use libc::*;

use crate::sys::{self, close, pipe, read, sys, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("socket_pair", socket_pair),
    ("socket_packets", socket_packets),
    ("socket_names", socket_names),
    ("socket_rights", socket_rights),
    ("socket_calls", socket_calls),
    ("socket_lies", socket_lies),
    ("socket_options", socket_options),
    ("socket_readiness", socket_readiness),
    ("tcp_echo", tcp_echo),
    ("tcp_ports", tcp_ports),
    ("tcp_ends", tcp_ends),
    ("tcp_waits", tcp_waits),
    ("tcp6", tcp6),
    ("udp", udp),
];

/// What an operation came to, with the errno and without its text.
fn told<T>(result: std::io::Result<T>) -> Result<T, i32> {
    result.map_err(|error| {
        error.raw_os_error().unwrap_or(match error.kind() {
            ErrorKind::UnexpectedEof => -1,
            _ => -2,
        })
    })
}

fn fd_of(file: &impl AsRawFd) -> usize {
    file.as_raw_fd() as usize
}

fn pair(kind: c_int) -> (usize, usize) {
    let mut ends = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, ends.as_mut_ptr()).unwrap();
    (ends[0] as usize, ends[1] as usize)
}

fn socket_pair(r: &mut Report) {
    let (a, b) = pair(SOCK_STREAM);
    r.see("write", write(a, b"hello"));
    r.see("peek", sys!(SYS_recvfrom, b, [0u8; 3].as_mut_ptr(), 3, MSG_PEEK, 0, 0));
    let mut waiting: c_int = 0;
    r.see("FIONREAD", (sys!(SYS_ioctl, b, FIONREAD, &raw mut waiting), waiting));
    r.see("part, rest", (read(b, 2), read(b, 100)));
    r.see("both ways", (write(b, b"back"), read(a, 10)));
    r.see("writes are joined", (write(a, b"one"), write(a, b"two"), read(b, 100)));
    r.see("MSG_DONTWAIT", sys!(SYS_recvfrom, b, [0u8; 1].as_mut_ptr(), 1, MSG_DONTWAIT, 0, 0));
    r.see("nothing written", write(a, b""));
    // SAFETY: all zeros is a stat.
    let mut stat: stat = unsafe { std::mem::zeroed() };
    r.see("fstat", (sys!(SYS_fstat, a, &raw mut stat), stat.st_mode & S_IFMT == S_IFSOCK, stat.st_size));
    r.see(
        "link",
        std::fs::read_link(format!("/proc/self/fd/{a}"))
            .map(|link| link.to_string_lossy().starts_with("socket:["))
            .ok(),
    );
    r.see("seek", sys!(SYS_lseek, a, 0, SEEK_SET));
    r.see("half", sys!(SYS_shutdown, a, SHUT_WR));
    r.see("end", read(b, 10));
    r.see("the other half", (write(b, b"still"), read(a, 10)));
    r.see("write to the closed half", sys::ends(|| write(a, b"x").map_or(1, |_| 0)));
    r.see("MSG_NOSIGNAL", sys!(SYS_sendto, a, b"x".as_ptr(), 1, MSG_NOSIGNAL, 0, 0));
    close(b).unwrap();
    r.see("after the peer", read(a, 10));
    let (a, b) = pair(SOCK_STREAM);
    write(a, b"unread").unwrap();
    close(b).unwrap();
    r.see("reset by unread data", (read(a, 10), read(a, 10)));
    let (a, _b) = pair(SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
    r.see("flags", (sys!(SYS_fcntl, a, F_GETFD), sys!(SYS_fcntl, a, F_GETFL)));
    r.see("empty", read(a, 1));
    let mut sent = 0;
    let full = loop {
        match write(a, &[0; 1000]) {
            Ok(count) => sent += count,
            Err(errno) => break errno,
        }
    };
    r.see("full", (sent > 10_000, full));
}

fn socket_packets(r: &mut Report) {
    for (name, kind) in [("seqpacket", SOCK_SEQPACKET), ("datagram", SOCK_DGRAM)] {
        let (a, b) = pair(kind);
        write(a, b"first").unwrap();
        write(a, b"second").unwrap();
        r.see(format!("{name}: limits are kept"), (read(b, 100), read(b, 3)));
        write(a, b"third").unwrap();
        let mut buffer = [0u8; 2];
        let whole = sys!(SYS_recvfrom, b, buffer.as_mut_ptr(), 2, MSG_TRUNC, 0, 0);
        r.see(format!("{name}: MSG_TRUNC"), (whole, buffer));
        r.see(format!("{name}: empty"), sys!(SYS_recvfrom, b, buffer.as_mut_ptr(), 2, MSG_DONTWAIT, 0, 0));
        r.see(format!("{name}: an empty packet"), (write(a, b""), read(b, 10)));
        close(a).unwrap();
        if kind == SOCK_SEQPACKET {
            r.see(format!("{name}: end"), read(b, 10));
        }
    }
}

fn socket_names(r: &mut Report) {
    r.see("nobody", told(UnixStream::connect("none").map(drop)));
    let listener = UnixListener::bind("name").unwrap();
    r.see("type", std::fs::symlink_metadata("name").map(|m| m.mode_type()).ok());
    r.see("taken", told(UnixListener::bind("name").map(drop)));
    r.see("open", told(std::fs::File::open("name").map(drop)));
    let server = thread::spawn(move || {
        let (mut connection, address) = listener.accept().unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        connection.write_all(text.to_uppercase().as_bytes()).unwrap();
        address.is_unnamed()
    });
    let mut client = UnixStream::connect("name").unwrap();
    r.see("peer", client.peer_addr().ok().and_then(|peer| peer.as_pathname().map(|path| path.to_owned())));
    client.write_all(b"over a name").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    r.see("answer", answer);
    r.see("an unnamed client", server.join().unwrap());
    r.see("nobody listens", told(UnixStream::connect("name").map(drop)));
    std::fs::write("file", "").unwrap();
    r.see("a file", told(UnixStream::connect("file").map(drop)));
    let address = UnixAddr::from_abstract_name("luminaguard-check").unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    r.see("abstract, taken", told(UnixListener::bind_addr(&address).map(drop)));
    let mut client = UnixStream::connect_addr(&address).unwrap();
    let (mut connection, _) = listener.accept().unwrap();
    client.write_all(b"abstract").unwrap();
    drop(client);
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    r.see("abstract", text);
    let (one, two) = (UnixDatagram::bind("one").unwrap(), UnixDatagram::bind("two").unwrap());
    one.send_to(b"datagram", "two").unwrap();
    let mut buffer = [0; 20];
    let (len, from) = two.recv_from(&mut buffer).unwrap();
    r.see("datagram", (len, from.as_pathname().map(|path| path.to_owned())));
    r.see("to nobody", told(one.send_to(b"x", "none")));
    r.see("of another type", told(UnixStream::connect("two").map(drop)));
}

trait ModeType {
    fn mode_type(&self) -> u32;
}

impl ModeType for std::fs::Metadata {
    fn mode_type(&self) -> u32 {
        std::os::unix::fs::MetadataExt::mode(self) & S_IFMT
    }
}

/// Sends one byte and a descriptor.
fn send_descriptor(to: usize, fd: usize) -> sys::Answer {
    let mut byte = *b"d";
    let mut part = iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: these only compute lengths.
    let (space, len) = unsafe { (CMSG_SPACE(4) as usize, CMSG_LEN(4) as usize) };
    let mut control = [0u64; 8];
    // SAFETY: all zeros is a message header; the control buffer is aligned and large enough for one descriptor.
    unsafe {
        let mut message: msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = space;
        let header = CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = SOL_SOCKET;
        (*header).cmsg_type = SCM_RIGHTS;
        (*header).cmsg_len = len;
        CMSG_DATA(header).cast::<c_int>().write_unaligned(fd as c_int);
        sys!(SYS_sendmsg, to, &raw const message, 0)
    }
}

/// Receives one byte and a descriptor, with so much room for control messages: the answer, the flags, the descriptor.
fn receive_descriptor(from: usize, room: usize) -> (sys::Answer, c_int, Option<OwnedFd>) {
    let mut byte = [0u8; 1];
    let mut part = iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 8];
    // SAFETY: as above; a descriptor that came is this process's own.
    unsafe {
        let mut message: msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = room;
        let result = sys!(SYS_recvmsg, from, &raw mut message, 0);
        let header = CMSG_FIRSTHDR(&raw const message);
        let fd = (!header.is_null() && (*header).cmsg_type == SCM_RIGHTS)
            .then(|| OwnedFd::from_raw_fd(CMSG_DATA(header).cast::<c_int>().read_unaligned()));
        (result, message.msg_flags, fd)
    }
}

fn socket_rights(r: &mut Report) {
    let (a, b) = pair(SOCK_STREAM);
    let (reader, writer) = pipe(0);
    r.see("send", send_descriptor(a, writer));
    close(writer).unwrap();
    let (result, flags, received) = receive_descriptor(b, 64);
    r.see("receive", (result, flags, received.is_some()));
    let received = received.unwrap();
    r.see("it is the same file", (write(fd_of(&received), b"through"), read(reader, 20)));
    drop(received);
    r.see("the last copy", read(reader, 20));
    let (reader, writer) = pipe(0);
    send_descriptor(a, writer).unwrap();
    close(writer).unwrap();
    let (result, flags, received) = receive_descriptor(b, 0);
    r.see("no room for it", (result, flags == MSG_CTRUNC, received.is_none()));
    r.see("then it is closed", read(reader, 20));
    let (reader, writer) = pipe(0);
    send_descriptor(a, writer).unwrap();
    close(writer).unwrap();
    r.see("read(2) passes over it", (read(b, 10), read(reader, 20)));
    let (reader, writer) = pipe(0);
    send_descriptor(a, writer).unwrap();
    close(writer).unwrap();
    let pid = sys::child(|| {
        close(reader).unwrap();
        let (_, _, fd) = receive_descriptor(b, 64);
        i32::from(fd.is_none_or(|fd| write(fd_of(&fd), b"from a child").is_err()))
    });
    r.see("in a child", (sys::wait(pid), read(reader, 20)));
    r.see("a bad descriptor", send_descriptor(a, 1000));
    // A socket that waits in itself goes when nobody can reach it any more.
    let (c, d) = pair(SOCK_STREAM);
    let (reader, writer) = pipe(0);
    send_descriptor(c, d).unwrap();
    send_descriptor(c, writer).unwrap();
    close(c).unwrap();
    close(d).unwrap();
    close(writer).unwrap();
    sys::sleep_ms(20);
    r.see("a ring goes", read(reader, 1));
}

fn socket_calls(r: &mut Report) {
    r.see("family", sys!(SYS_socket, 99, SOCK_STREAM, 0));
    r.see("type", sys!(SYS_socket, AF_UNIX, 77, 0));
    r.see("protocol", sys!(SYS_socket, AF_INET, SOCK_STREAM, IPPROTO_UDP));
    r.see("pair", sys!(SYS_socketpair, AF_INET, SOCK_STREAM, 0, [0i32; 2].as_mut_ptr()));
    r.see("pair, bad address", sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, 8));
    let (reader, _writer) = pipe(0);
    for (name, call) in [("listen", SYS_listen), ("shutdown", SYS_shutdown)] {
        r.see(format!("{name}: no socket"), (sys!(call, reader, 0), sys!(call, 1000, 0)));
    }
    r.see("accept: no socket", sys!(SYS_accept, reader, 0, 0));
    let socket = sys!(SYS_socket, AF_INET, SOCK_STREAM, 0).unwrap();
    r.see("accept: not listening", sys!(SYS_accept, socket, 0, 0));
    r.see("not connected", (read(socket, 1), sys!(SYS_shutdown, socket, SHUT_WR)));
    r.see("send", sys!(SYS_sendto, socket, b"x".as_ptr(), 1, MSG_NOSIGNAL, 0, 0));
    let mut address = [0u8; 16];
    let mut len: socklen_t = 16;
    r.see("getpeername", sys!(SYS_getpeername, socket, address.as_mut_ptr(), &raw mut len));
    r.see("getsockname", (sys!(SYS_getsockname, socket, address.as_mut_ptr(), &raw mut len), len, address));
    len = 4;
    r.see("cut short", (sys!(SYS_getsockname, socket, address.as_mut_ptr(), &raw mut len), len));
    r.see("bad length", sys!(SYS_bind, socket, address.as_ptr(), 3));
    r.see("bad address", sys!(SYS_bind, socket, 8, 16));
    r.see("foreign address", {
        let foreign = [2u8, 0, 0, 0, 203, 0, 113, 77, 0, 0, 0, 0, 0, 0, 0, 0];
        sys!(SYS_bind, socket, foreign.as_ptr(), 16)
    });
    let (a, _b) = pair(SOCK_STREAM);
    r.see("a bad buffer", sys!(SYS_sendto, a, 8, 10, 0, 0, 0));
    r.see("connected twice", sys!(SYS_connect, a, [1u8, 0, b'x', 0].as_ptr(), 4));
    r.see("too many vectors", {
        // SAFETY: all zeros is a message header.
        let mut message: msghdr = unsafe { std::mem::zeroed() };
        message.msg_iovlen = 2000;
        message.msg_iov = [0u64; 2].as_mut_ptr().cast();
        sys!(SYS_sendmsg, a, &raw const message, 0)
    });
}

fn option(fd: usize, level: c_int, name: c_int) -> Result<c_int, sys::Errno> {
    let mut value: c_int = -1;
    let mut len: socklen_t = 4;
    sys!(SYS_getsockopt, fd, level, name, &raw mut value, &raw mut len).map(|_| value)
}

fn set_option(fd: usize, level: c_int, name: c_int, value: c_int) -> sys::Answer {
    sys!(SYS_setsockopt, fd, level, name, &raw const value, 4)
}

/// Sends one byte with control messages as they are given.
fn send_control(to: usize, control: &[u64], len: usize) -> sys::Answer {
    let mut byte = *b"c";
    let mut part = iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zeros is a message header.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_ptr().cast_mut().cast();
    message.msg_controllen = len;
    sys!(SYS_sendmsg, to, &raw const message, 0)
}

fn socket_lies(r: &mut Report) {
    let (a, b) = pair(SOCK_STREAM);
    let rights = u64::from(SCM_RIGHTS as u32) << 32 | SOL_SOCKET as u64;
    for (name, control, len) in [
        ("nothing", vec![], 0),
        ("less than a header", vec![16], 8),
        ("a length of zero", vec![0, rights, 0], 24),
        ("less than its header", vec![15, rights, 0], 24),
        ("more than there is", vec![1000, rights, 0], 24),
        ("the largest length", vec![u64::MAX, rights, 0], 24),
        ("no descriptor at all", vec![16, rights], 16),
        ("half a descriptor", vec![18, rights, 0], 24),
        ("a descriptor that is none", vec![20, rights, u64::MAX], 24),
        ("an unknown type", vec![16, 77 << 32 | SOL_SOCKET as u64], 16),
        ("an unknown level", vec![16, 1 << 32 | 77], 16),
        ("more than anybody reads", vec![20, rights, 0], 1 << 40),
    ] {
        r.see(name, send_control(a, &control, len));
    }
    r.see("what came", read(b, 100));
    let mut message = [0u64; 7];
    r.see("no header", (sys!(SYS_sendmsg, a, 8, 0), sys!(SYS_recvmsg, b, 8, MSG_DONTWAIT)));
    message[2] = 8;
    message[3] = 1;
    r.see("no vectors", sys!(SYS_sendmsg, a, message.as_ptr(), 0));
    let vectors = [[8u64, u64::MAX]];
    message[2] = vectors.as_ptr() as u64;
    r.see("a length below zero", sys!(SYS_sendmsg, a, message.as_ptr(), 0));
    let mut len: c_int = -1;
    let mut name = [0u8; 128];
    r.see("a name of negative length", sys!(SYS_getsockname, a, name.as_mut_ptr(), &raw mut len));
    r.see(
        "an option of negative length",
        sys!(SYS_getsockopt, a, SOL_SOCKET, SO_TYPE, name.as_mut_ptr(), &raw mut len),
    );
    r.see("a name that is too long", sys!(SYS_bind, a, name.as_ptr(), 111));
}

fn socket_options(r: &mut Report) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (listening, fd) = (fd_of(&listener), fd_of(&client));
    for (name, level, option_name) in [
        ("SO_TYPE", SOL_SOCKET, SO_TYPE),
        ("SO_DOMAIN", SOL_SOCKET, SO_DOMAIN),
        ("SO_PROTOCOL", SOL_SOCKET, SO_PROTOCOL),
        ("SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN),
        ("SO_ERROR", SOL_SOCKET, SO_ERROR),
        ("SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR),
        ("SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE),
        ("TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY),
    ] {
        r.see(name, (option(listening, level, option_name), option(fd, level, option_name)));
    }
    for (name, level, option_name, value) in [
        ("SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1),
        ("TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1),
        ("TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 77),
        ("SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 1),
    ] {
        r.see(
            format!("{name} set"),
            (set_option(fd, level, option_name, value), option(fd, level, option_name)),
        );
    }
    r.see("unknown", (set_option(fd, SOL_SOCKET, 9999, 1), option(fd, 77, 1)));
    r.see("short", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, [0u8; 1].as_ptr(), 1));
    client.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    r.see("SO_RCVTIMEO", (client.read_timeout().unwrap().is_some(), told((&client).read(&mut [0]))));
    let (a, _b) = pair(SOCK_STREAM);
    let mut creds = [0u32; 3];
    let mut len: socklen_t = 12;
    let got = sys!(SYS_getsockopt, a, SOL_SOCKET, SO_PEERCRED, creds.as_mut_ptr(), &raw mut len);
    r.see("SO_PEERCRED", (got, len, creds[0] == std::process::id()));
    r.see("TCP option of a unix socket", option(a, IPPROTO_TCP, TCP_NODELAY));
}

fn events(fd: usize, wanted: c_short) -> c_short {
    let mut entry = pollfd { fd: fd as c_int, events: wanted, revents: 0 };
    sys!(SYS_poll, &raw mut entry, 1, 0).unwrap();
    entry.revents
}

fn socket_readiness(r: &mut Report) {
    let all = POLLIN | POLLOUT | POLLRDHUP;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    r.see("listening", events(fd_of(&listener), all));
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    r.see("somebody has come", events(fd_of(&listener), all));
    let (mut server, _) = listener.accept().unwrap();
    r.see("accepted", (events(fd_of(&listener), all), events(fd_of(&client), all)));
    let queue = sys!(SYS_epoll_create1, 0).unwrap();
    let mut event = epoll_event { events: (EPOLLIN | EPOLLRDHUP | EPOLLET) as u32, u64: 7 };
    sys!(SYS_epoll_ctl, queue, EPOLL_CTL_ADD, fd_of(&client), &raw mut event).unwrap();
    let wait = |timeout: c_int| {
        let mut found = [epoll_event { events: 0, u64: 0 }; 4];
        let count = sys!(SYS_epoll_wait, queue, found.as_mut_ptr(), 4, timeout).unwrap();
        (count, found[0].events)
    };
    r.see("nothing yet", wait(0));
    server.write_all(b"data").unwrap();
    r.see("data, once", (wait(1000), wait(0)));
    server.write_all(b"more").unwrap();
    r.see("more data", wait(1000));
    server.shutdown(Shutdown::Write).unwrap();
    r.see("half closed", (wait(1000), events(fd_of(&client), all)));
    client.shutdown(Shutdown::Write).unwrap();
    sys::sleep_ms(20);
    r.see("both halves", events(fd_of(&client), all));
    let (a, b) = pair(SOCK_STREAM);
    r.see("pair", events(a, all));
    close(b).unwrap();
    r.see("the peer is gone", events(a, all));
    let idle = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).unwrap();
    r.see("idle", events(idle, all));
}

fn tcp_echo(r: &mut Report) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    r.ensure("a port of its own", address.port() >= 1024);
    let server = thread::spawn(move || {
        for _ in 0..3 {
            let (mut connection, peer) = listener.accept().unwrap();
            assert!(peer.ip().is_loopback() && connection.peer_addr().unwrap() == peer);
            let mut data = Vec::new();
            connection.read_to_end(&mut data).unwrap();
            data.reverse();
            connection.write_all(&data).unwrap();
        }
    });
    for size in [0, 10, 300_000] {
        let mut client = TcpStream::connect(address).unwrap();
        let data: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
        client.write_all(&data).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        answer.reverse();
        r.see(format!("{size} bytes"), answer == data);
    }
    server.join().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let pid = sys::child(move || {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        i32::from(client.write_all(b"from a child").is_err())
    });
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    r.see("another process, any address", (text, sys::wait(pid)));
}

fn tcp_ports(r: &mut Report) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    r.see("taken", told(TcpListener::bind(address).map(drop)));
    r.see(
        "another address",
        told(TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), address.port())).map(drop)),
    );
    r.see("any address", told(TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).map(drop)));
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    r.see(
        "the two names",
        (
            client.local_addr().unwrap() == server.peer_addr().unwrap(),
            client.peer_addr().unwrap() == address,
            server.local_addr().unwrap() == address,
        ),
    );
    drop(listener);
    r.see("nobody listens", told(TcpStream::connect(address).map(drop)));
    // std sets SO_REUSEADDR: a port with connections can be listened at again.
    r.see("again, beside a connection", told(TcpListener::bind(address).map(drop)));
    drop((client, server));
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn tcp_ends(r: &mut Report) {
    let (mut client, mut server) = connected();
    client.write_all(b"last words").unwrap();
    drop(client);
    let mut text = String::new();
    r.see("data before the end", (told(server.read_to_string(&mut text)), text));
    r.see("write after the end", told(server.write(b"x")));
    sys::sleep_ms(20);
    r.see("the answer to that", told(server.write(b"x")));
    let (client, mut server) = connected();
    server.write_all(b"nobody reads this").unwrap();
    drop(client);
    sys::sleep_ms(20);
    r.see("reset", (told(server.read(&mut [0; 10])), told(server.read(&mut [0; 10]))));
    let (client, server) = connected();
    let linger: [c_int; 2] = [1, 0];
    sys!(SYS_setsockopt, fd_of(&server), SOL_SOCKET, SO_LINGER, linger.as_ptr(), 8).unwrap();
    drop(server);
    sys::sleep_ms(20);
    r.see("SO_LINGER of 0", told((&client).read(&mut [0; 10])));
    let (mut client, server) = connected();
    server.shutdown(Shutdown::Read).unwrap();
    r.see("read half", (told((&server).read(&mut [0; 10])), told(client.write(b"x"))));
}

fn tcp_waits(r: &mut Report) {
    let (mut client, mut server) = connected();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 10];
        let got = sys!(SYS_recvfrom, fd_of(&server), buffer.as_mut_ptr(), 10, MSG_WAITALL, 0, 0);
        let early = told(server.read(&mut [0; 5]));
        (got, early)
    });
    for part in [&b"abc"[..], b"defg", b"hij"] {
        sys::sleep_ms(10);
        client.write_all(part).unwrap();
    }
    sys::sleep_ms(10);
    drop(client);
    r.see("MSG_WAITALL", reader.join().unwrap());
    let (client, mut server) = connected();
    let writer = thread::spawn(move || told((&client).write_all(&vec![7; 5_000_000])));
    let mut total = 0;
    let mut buffer = vec![0; 100_000];
    loop {
        match server.read(&mut buffer).unwrap() {
            0 => break,
            count => total += count,
        }
    }
    r.see("a writer waits for its reader", (total, writer.join().unwrap()));
    let (client, _server) = connected();
    client.set_nonblocking(true).unwrap();
    r.see("nonblocking", told((&client).read(&mut [0])));
    let full = loop {
        if let Err(error) = (&client).write(&[0; 65536]) {
            break error.kind();
        }
    };
    r.see("full", full);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    r.see("nobody has come", told(listener.accept().map(drop)));
}

fn tcp6(r: &mut Report) {
    let listener = match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(listener) => listener,
        // A machine without IPv6 has nothing to compare with.
        Err(_) => return,
    };
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    client.write_all(b"six").unwrap();
    let mut buffer = [0; 3];
    server.read_exact(&mut buffer).unwrap();
    r.see("over ::1", (buffer, peer.ip()));
    let any = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let port = any.local_addr().unwrap().port();
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (_, peer) = any.accept().unwrap();
    r.see("a caller by IPv4", peer.ip());
}

fn udp(r: &mut Report) {
    let a = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let b = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to: SocketAddr = b.local_addr().unwrap();
    r.see("send", told(a.send_to(b"datagram", to)));
    let mut buffer = [0; 20];
    let (len, from) = b.recv_from(&mut buffer).unwrap();
    r.see("receive", (len, from == a.local_addr().unwrap()));
    a.connect(to).unwrap();
    r.see(
        "connected",
        (told(a.send(b"to the peer")), told(b.recv(&mut buffer[..4])), a.peer_addr().unwrap() == to),
    );
    b.send_to(b"", from).unwrap();
    r.see("an empty datagram", told(a.recv(&mut buffer)));
    a.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    r.see("nothing comes", told(a.recv(&mut buffer)));
    drop(b);
    a.send(b"x").unwrap();
    sys::sleep_ms(20);
    r.see("nobody is there", told(a.send(b"x")));
}
