//! Headers of packets as control messages, UDP-Lite, and connections that are not waited for.

use std::net::{Ipv4Addr, TcpListener};

use libc::*;

use crate::sys::{close, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("packet_fields_v4", packet_fields_v4),
    ("packet_fields_v6", packet_fields_v6),
    ("packet_fields_lies", packet_fields_lies),
    ("udp_lite", udp_lite),
    ("connect_later", connect_later),
    ("connect_refused_later", connect_refused_later),
    ("peer_name_after_the_end", peer_name_after_the_end),
];

const IPPROTO_UDPLITE: c_int = 136;
const LOCAL4: [u8; 4] = [127, 0, 0, 1];

fn socket(family: c_int, kind: c_int, protocol: c_int) -> usize {
    sys!(SYS_socket, family, kind, protocol).unwrap()
}

fn set(fd: usize, level: c_int, name: c_int, value: c_int) -> crate::sys::Answer {
    sys!(SYS_setsockopt, fd, level, name, &raw const value, 4)
}

fn get(fd: usize, level: c_int, name: c_int) -> Result<c_int, crate::sys::Errno> {
    let (mut value, mut len): (c_int, socklen_t) = (-7, 4);
    sys!(SYS_getsockopt, fd, level, name, &raw mut value, &raw mut len).map(|_| value)
}

/// The loopback's address with a port, as bytes.
fn address(family: c_int, port: u16) -> Vec<u8> {
    let mut bytes = (family as u16).to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    if family == AF_INET {
        bytes.extend(LOCAL4);
        bytes.extend([0; 8]);
    } else {
        bytes.extend([0; 4 + 15]);
        bytes.extend([1, 0, 0, 0, 0]);
    }
    bytes
}

fn bind(fd: usize, family: c_int) -> u16 {
    let any = address(family, 0);
    sys!(SYS_bind, fd, any.as_ptr(), any.len()).unwrap();
    let (mut bytes, mut len) = ([0u8; 28], 28u32);
    sys!(SYS_getsockname, fd, bytes.as_mut_ptr(), &raw mut len).unwrap();
    u16::from_be_bytes([bytes[2], bytes[3]])
}

/// A control message with its padding.
fn control(level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn send(fd: usize, to: &[u8], text: &[u8], control: &[u8]) -> crate::sys::Answer {
    let part = iovec { iov_base: text.as_ptr() as *mut c_void, iov_len: text.len() };
    let mut message: msghdr = zeroed();
    message.msg_name = to.as_ptr() as *mut c_void;
    message.msg_namelen = to.len() as u32;
    message.msg_iov = &raw const part as *mut iovec;
    message.msg_iovlen = 1;
    message.msg_control = control.as_ptr() as *mut c_void;
    message.msg_controllen = control.len();
    sys!(SYS_sendmsg, fd, &raw const message, 0)
}

/// What recvmsg(2) answers, with how many bytes of control messages, those bytes, and whether some are missing.
fn receive(fd: usize, room: usize) -> (crate::sys::Answer, usize, Vec<u8>, bool) {
    let mut text = [0u8; 64];
    let mut space = vec![0u8; room];
    let part = iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
    let mut message: msghdr = zeroed();
    message.msg_iov = &raw const part as *mut iovec;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = room;
    let answer = sys!(SYS_recvmsg, fd, &raw mut message, MSG_DONTWAIT);
    space.truncate(message.msg_controllen);
    (answer, message.msg_controllen, space, message.msg_flags & MSG_CTRUNC != 0)
}

fn packet_fields_v4(r: &mut Report) {
    let (server, client) = (socket(AF_INET, SOCK_DGRAM, 0), socket(AF_INET, SOCK_DGRAM, 0));
    let to = address(AF_INET, bind(server, AF_INET));
    r.see("unasked", (send(client, &to, b"a", &[]), receive(server, 200)));
    for (name, option) in [("ttl", IP_RECVTTL), ("tos", IP_RECVTOS), ("info", IP_PKTINFO)] {
        r.see(
            format!("{name}: before, set, after"),
            (
                get(server, IPPROTO_IP, option),
                set(server, IPPROTO_IP, option, 5),
                get(server, IPPROTO_IP, option),
            ),
        );
        r.see(name, (send(client, &to, b"ab", &[]), receive(server, 200)));
    }
    set(client, IPPROTO_IP, IP_TTL, 9).unwrap();
    set(client, IPPROTO_IP, IP_TOS, 16).unwrap();
    r.see("by option", (send(client, &to, b"ab", &[]), receive(server, 200)));
    let both = [
        control(IPPROTO_IP, IP_TTL, &3i32.to_ne_bytes()),
        control(IPPROTO_IP, IP_TOS, &[32]),
        control(SOL_SOCKET, SCM_RIGHTS, &[]),
        control(IPPROTO_TCP, 77, &[1]),
    ]
    .concat();
    r.see("by message", (send(client, &to, b"abc", &both), receive(server, 200)));
    for room in [0, 8, 16, 18, 20, 24, 32, 47, 48, 100] {
        r.see(format!("room for {room}"), (send(client, &to, b"abc", &both), receive(server, room)));
    }
    let pktinfo = [1u32.to_ne_bytes(), LOCAL4, [0; 4]].concat();
    let source = control(IPPROTO_IP, IP_PKTINFO, &pktinfo);
    r.see("from an address", (send(client, &to, b"abc", &source), receive(server, 200)));
    sys!(SYS_connect, client, to.as_ptr(), to.len()).unwrap();
    r.see("connected", (send(client, &[], b"abc", &both), receive(server, 200)));
    r.see("nothing there", receive(server, 200).0);
}

fn packet_fields_v6(r: &mut Report) {
    let (server, client) = (socket(AF_INET6, SOCK_DGRAM, 0), socket(AF_INET6, SOCK_DGRAM, 0));
    let port = bind(server, AF_INET6);
    let to = address(AF_INET6, port);
    for (name, option) in
        [("hops", IPV6_RECVHOPLIMIT), ("class", IPV6_RECVTCLASS), ("info", IPV6_RECVPKTINFO)]
    {
        r.see(
            format!("{name}: before, set, after"),
            (
                get(server, IPPROTO_IPV6, option),
                set(server, IPPROTO_IPV6, option, 1),
                get(server, IPPROTO_IPV6, option),
            ),
        );
        r.see(name, (send(client, &to, b"ab", &[]), receive(server, 200)));
    }
    for (name, option) in [("IPV6_UNICAST_HOPS", IPV6_UNICAST_HOPS), ("IPV6_TCLASS", IPV6_TCLASS)] {
        for value in [-2, -1, 0, 1, 200, 255, 256] {
            r.see(
                format!("{name} {value}"),
                (set(client, IPPROTO_IPV6, option, value), get(client, IPPROTO_IPV6, option)),
            );
        }
        set(client, IPPROTO_IPV6, option, 40).unwrap();
    }
    r.see("by option", (send(client, &to, b"ab", &[]), receive(server, 200)));
    let field = |kind, value: i32| control(IPPROTO_IPV6, kind, &value.to_ne_bytes());
    let both = [field(IPV6_HOPLIMIT, 2), field(IPV6_TCLASS, 8)].concat();
    r.see("by message", (send(client, &to, b"ab", &both), receive(server, 200)));
    // What -1 means for IPV6_TCLASS depends on the version of Linux.
    let default = field(IPV6_HOPLIMIT, -1);
    r.see("by default", (send(client, &to, b"ab", &default), receive(server, 200)));
    for room in [0, 15, 16, 19, 20, 24, 40, 60, 61, 80] {
        r.see(format!("room for {room}"), (send(client, &to, b"abc", &both), receive(server, room)));
    }
}

fn packet_fields_lies(r: &mut Report) {
    for family in [AF_INET, AF_INET6] {
        let (server, client) = (socket(family, SOCK_DGRAM, 0), socket(family, SOCK_DGRAM, 0));
        let to = address(family, bind(server, family));
        let (level, hops, class) = if family == AF_INET {
            (IPPROTO_IP, IP_TTL, IP_TOS)
        } else {
            (IPPROTO_IPV6, IPV6_HOPLIMIT, IPV6_TCLASS)
        };
        for kind in [hops, class] {
            for value in [-2i32, -1, 0, 1, 255, 256, i32::MAX] {
                let message = control(level, kind, &value.to_ne_bytes());
                r.see(format!("{family} {kind}: {value}"), send(client, &to, b"x", &message));
            }
            for len in [0, 2, 3, 8] {
                r.see(
                    format!("{family} {kind}: {len} bytes"),
                    send(client, &to, b"x", &control(level, kind, &vec![1; len])),
                );
            }
        }
        r.see(format!("{family}: unknown kind"), send(client, &to, b"x", &control(level, 99, &[0; 4])));
        r.see(format!("{family}: of the socket"), send(client, &to, b"x", &control(SOL_SOCKET, 99, &[0; 4])));
        let mut long = control(level, hops, &1i32.to_ne_bytes());
        long[0] = 200;
        r.see(format!("{family}: too long"), send(client, &to, b"x", &long));
        long[0] = 3;
        r.see(format!("{family}: too short"), send(client, &to, b"x", &long));
        r.see(format!("{family}: less than a header"), send(client, &to, b"x", &long[..10]));
    }
}

fn udp_lite(r: &mut Report) {
    for family in [AF_INET, AF_INET6] {
        let lite = socket(family, SOCK_DGRAM, IPPROTO_UDPLITE);
        r.see(format!("{family}: SO_PROTOCOL"), get(lite, SOL_SOCKET, SO_PROTOCOL));
        let port = bind(lite, family);
        let to = address(family, port);
        let udp = socket(family, SOCK_DGRAM, 0);
        r.see(format!("{family}: ports are its own"), sys!(SYS_bind, udp, to.as_ptr(), to.len()));
        r.see(
            format!("{family}: not heard by udp"),
            (send(lite, &to, b"lite", &[]), receive(udp, 0).0, receive(lite, 0).0),
        );
        for name in [10, 11] {
            for value in [-1, 0, 1, 8, 20, 65535, 65536] {
                r.see(
                    format!("{family}: option {name}, {value}"),
                    (set(lite, IPPROTO_UDPLITE, name, value), get(lite, IPPROTO_UDPLITE, name)),
                );
            }
            r.see(format!("{family}: option {name} of udp"), set(udp, IPPROTO_UDPLITE, name, 8));
        }
    }
    r.see("as a stream", sys!(SYS_socket, AF_INET, SOCK_STREAM, IPPROTO_UDPLITE));
}

fn poll_of(fd: usize) -> (crate::sys::Answer, c_short) {
    let mut entry = pollfd { fd: fd as c_int, events: POLLIN | POLLOUT | POLLRDHUP, revents: 0 };
    (sys!(SYS_poll, &raw mut entry, 1, 1000), entry.revents)
}

fn connect_later(r: &mut Report) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = address(AF_INET, listener.local_addr().unwrap().port());
    let connect = |fd: usize| sys!(SYS_connect, fd, to.as_ptr(), to.len());
    let client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    r.see("before", poll_of(client));
    r.see("connect", connect(client));
    r.see("ready", poll_of(client));
    r.see("error", get(client, SOL_SOCKET, SO_ERROR));
    r.see("again", (connect(client), connect(client)));
    let (server, _) = listener.accept().unwrap();
    r.see("data", write(client, b"hello"));
    r.see("arrives", read(std::os::fd::AsRawFd::as_raw_fd(&server) as usize, 10));
    let client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    let nowhere = (AF_UNSPEC as u16).to_ne_bytes();
    let nowhere = [nowhere.to_vec(), vec![0; 14]].concat();
    r.see("undone", (connect(client), sys!(SYS_connect, client, nowhere.as_ptr(), nowhere.len())));
    r.see("anew", (connect(client), connect(client)));
    let waiting = socket(AF_INET, SOCK_STREAM, 0);
    r.see("waited for", (connect(waiting), connect(waiting)));
}

fn connect_refused_later(r: &mut Report) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = address(AF_INET, listener.local_addr().unwrap().port());
    drop(listener);
    let connect = |fd: usize| sys!(SYS_connect, fd, to.as_ptr(), to.len());
    let refused = || {
        let client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (client, connect(client))
    };
    let (client, first) = refused();
    r.see("connect", first);
    r.see("ready", poll_of(client));
    r.see("error, once", (get(client, SOL_SOCKET, SO_ERROR), get(client, SOL_SOCKET, SO_ERROR)));
    r.see("then", (poll_of(client), read(client, 1), connect(client)));
    let (client, _) = refused();
    r.see("told by connect", (connect(client), connect(client)));
    let (client, _) = refused();
    r.see("told by read", (read(client, 1), read(client, 1)));
    let (client, _) = refused();
    let send = || sys!(SYS_sendto, client, b"x".as_ptr(), 1, MSG_NOSIGNAL, 0, 0);
    r.see("told by send", (send(), send()));
    let waiting = socket(AF_INET, SOCK_STREAM, 0);
    r.see("waited for", (connect(waiting), connect(waiting)));
}

fn peer_name_after_the_end(r: &mut Report) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = address(AF_INET, listener.local_addr().unwrap().port());
    let pair = || {
        let client = socket(AF_INET, SOCK_STREAM, 0);
        sys!(SYS_connect, client, to.as_ptr(), to.len()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, std::os::fd::IntoRawFd::into_raw_fd(server) as usize)
    };
    let named = |fd: usize| {
        let (mut bytes, mut len) = ([0u8; 28], 28u32);
        sys!(SYS_getpeername, fd, bytes.as_mut_ptr(), &raw mut len).map(|_| len)
    };
    let (client, server) = pair();
    r.see("connected", (named(client), named(server)));
    sys!(SYS_shutdown, client, SHUT_WR).unwrap();
    r.see("half closed", (named(client), named(server)));
    let (client, server) = pair();
    write(client, b"data").unwrap();
    let linger: [c_int; 2] = [1, 0];
    sys!(SYS_setsockopt, client, SOL_SOCKET, SO_LINGER, linger.as_ptr(), 8).unwrap();
    close(client).unwrap();
    r.see("reset", named(server));
    r.see("data before the reset", (read(server, 10), read(server, 10), read(server, 10)));
}
