//! netlink(7) and rtnetlink(7): what the loopback answers to those who ask for interfaces, addresses and routes.

use libc::*;

use crate::sys::{Answer, Errno, close, sys, zeroed};
use crate::{Check, Report, lonely};

pub const CHECKS: &[Check] = &[
    ("netlink_names", netlink_names),
    ("netlink_links", netlink_links),
    ("netlink_addresses", netlink_addresses),
    ("netlink_routes", netlink_routes),
    ("netlink_refusals", netlink_refusals),
    ("netlink_lies", netlink_lies),
    ("netlink_receiving", netlink_receiving),
    ("netlink_options", netlink_options),
    ("netlink_of_libraries", netlink_of_libraries),
];

const NETLINK_GET_STRICT_CHK: c_int = 12;
static STRICT: c_int = 1;
const HEADER: usize = 16;
const REQUEST: u16 = NLM_F_REQUEST as u16;
const ACK: u16 = NLM_F_ACK as u16;
const DUMP: u16 = NLM_F_DUMP as u16;

fn route() -> usize {
    sys!(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE).unwrap()
}

/// A message with its header and padding.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(77u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A body of `len` bytes that begins with these.
fn body(start: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = start.to_vec();
    bytes.resize(len, 0);
    bytes
}

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + data.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn send(fd: usize, bytes: &[u8]) -> Answer {
    sys!(SYS_sendto, fd, bytes.as_ptr(), bytes.len(), 0, 0, 0)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// Cuts what was received in messages.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let len = word(bytes, 0) as usize;
        found.push(bytes[..len].to_vec());
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

fn receive(fd: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; 1 << 16];
    let len = sys!(SYS_recvfrom, fd, bytes.as_mut_ptr(), bytes.len(), MSG_DONTWAIT, 0, 0)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// All messages that answer a request, up to the last.
fn ask(kind: u16, flags: u16, body: &[u8]) -> Vec<Vec<u8>> {
    let fd = route();
    send(fd, &message(kind, flags, body)).unwrap();
    let mut found = Vec::new();
    while let Ok(bytes) = receive(fd) {
        found.extend(messages(&bytes));
    }
    close(fd).unwrap();
    found
}

/// The attributes after `skipped` bytes, sorted by their type.
fn attributes(message: &[u8], skipped: usize) -> Vec<(u16, Vec<u8>)> {
    let mut rest = message.get(HEADER + skipped..).unwrap_or_default();
    let mut found = Vec::new();
    while rest.len() >= 4 {
        let len = usize::from(half(rest, 0));
        found.push((half(rest, 2), rest[4..len].to_vec()));
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    found.sort();
    found
}

/// Type, flags and number of a message, and whether it is for this process.
fn head(message: &[u8]) -> (u16, u16, u32, bool) {
    (half(message, 4), half(message, 6), word(message, 8), word(message, 12) == std::process::id())
}

/// What a message says of an error, with what it says of the request.
fn error(message: &[u8]) -> (u16, i32, usize, Vec<u8>) {
    let errno = message.get(HEADER..HEADER + 4).map_or(0, |_| word(message, HEADER) as i32);
    let named = message.get(HEADER + 4..HEADER + 16).unwrap_or_default().to_vec();
    (half(message, 4), errno, message.len(), named)
}

fn address(port: u32, groups: u32) -> [u32; 3] {
    [AF_NETLINK as u32, port, groups]
}

fn name(fd: usize, call: c_long) -> Result<(u32, u32, bool, u32), Errno> {
    let (mut bytes, mut len): ([u32; 3], u32) = ([7; 3], 12);
    sys!(call, fd, bytes.as_mut_ptr(), &raw mut len)?;
    Ok((len, bytes[0], bytes[1] == std::process::id(), bytes[2]))
}

fn bind(fd: usize, port: u32, groups: u32) -> Answer {
    sys!(SYS_bind, fd, address(port, groups).as_ptr(), 12)
}

fn netlink_names(r: &mut Report) {
    lonely::enter();
    let fd = route();
    r.see("before", (name(fd, SYS_getsockname), name(fd, SYS_getpeername)));
    r.see("bind", bind(fd, 0, 0));
    r.see("after", name(fd, SYS_getsockname));
    r.see("again", (bind(fd, 0, 0), bind(fd, std::process::id(), 0), bind(fd, 12345, 0)));
    let other = route();
    r.see("in use", bind(other, std::process::id(), 0));
    r.see("of its own", (bind(other, 0, 0), name(other, SYS_getsockname)));
    let third = route();
    r.see("by number", (bind(third, 4711, 0), name(third, SYS_getsockname).map(|name| name.0)));
    close(third).unwrap();
    let fourth = route();
    r.see("free again", bind(fourth, 4711, 0));
    r.see("groups", (bind(fourth, 4711, 0x51), name(fourth, SYS_getsockname).map(|name| name.3)));
    r.see("short", sys!(SYS_bind, fourth, address(0, 0).as_ptr(), 8));
    let wrong = [AF_INET as u32, 0, 0];
    r.see("another family", sys!(SYS_bind, fourth, wrong.as_ptr(), 12));
    r.see("long", sys!(SYS_bind, route(), body(&16u16.to_ne_bytes(), 100).as_ptr(), 100));
    let fifth = route();
    r.see("connect", sys!(SYS_connect, fifth, address(0, 0).as_ptr(), 12));
    r.see("connected", (name(fifth, SYS_getsockname), name(fifth, SYS_getpeername).map(|name| name.0)));
    r.see("connect to another", sys!(SYS_connect, fifth, address(99, 0).as_ptr(), 12));
    r.see("connect to a group", sys!(SYS_connect, fifth, address(0, 1).as_ptr(), 12));
    let nowhere = [AF_UNSPEC as u32, 0, 0];
    r.see("connect to nothing", sys!(SYS_connect, fifth, nowhere.as_ptr(), 12));
    r.see("listen", sys!(SYS_listen, fifth, 1));
    r.see("accept", sys!(SYS_accept, fifth, 0, 0));
    r.see("shutdown", sys!(SYS_shutdown, fifth, SHUT_RD));
    for (kind, protocol) in [
        (SOCK_DGRAM, 0),
        (SOCK_STREAM, 0),
        (SOCK_SEQPACKET, 0),
        (SOCK_RAW, 31),
        (SOCK_RAW, 32),
        (SOCK_RAW, -1),
    ] {
        let made = sys!(SYS_socket, AF_NETLINK, kind, protocol).map(|_| "made");
        r.see(format!("kind {kind}, protocol {protocol}"), made);
    }
    let mut pair = [0i32; 2];
    r.see("socketpair", sys!(SYS_socketpair, AF_NETLINK, SOCK_RAW, 0, pair.as_mut_ptr()));
}

/// The attributes of a link that are the same on all kernels that are served, and count nothing.
const SAME_OF_LINKS: [u16; 18] = [1, 2, 3, 4, 6, 13, 14, 16, 17, 27, 30, 31, 32, 33, 39, 50, 51, 43];

fn see_link(r: &mut Report, what: &str, link: &[u8]) {
    r.see(format!("{what}: head"), head(link));
    if half(link, 4) != 16 {
        return r.see(format!("{what}: error"), error(link));
    }
    r.see(format!("{what}: fields"), &link[HEADER..HEADER + 16]);
    for (kind, data) in attributes(link, 16).iter().filter(|(kind, _)| SAME_OF_LINKS.contains(kind)) {
        // XDP and the map of a device: there is none.
        if ![14, 43].contains(kind) {
            r.see(format!("{what}: attribute {kind}"), data);
        }
    }
    let statistics = attributes(link, 16).into_iter().filter(|(kind, _)| [7, 23].contains(kind));
    r.see(format!("{what}: kinds of statistics"), statistics.map(|(kind, _)| kind).collect::<Vec<_>>());
}

fn netlink_links(r: &mut Report) {
    lonely::enter();
    for (what, start, len) in [("all", vec![], 16), ("one byte", vec![17], 1), ("family", vec![2], 16)] {
        let answers = ask(RTM_GETLINK, REQUEST | DUMP, &body(&start, len));
        r.see(format!("{what}: how many"), answers.len());
        let of_loopback = answers.iter().filter(|link| half(link, 4) != 16 || word(link, HEADER + 4) == 1);
        for (index, answer) in of_loopback.enumerate() {
            if half(answer, 4) == NLMSG_DONE as u16 {
                r.see(format!("{what} {index}: done"), (head(answer), &answer[HEADER..HEADER + 4]));
            } else {
                see_link(r, &format!("{what} {index}"), answer);
            }
        }
    }
    let index = |index: u32| body(&[&[0; 4][..], &index.to_ne_bytes()].concat(), 16);
    let named = |name: &[u8]| [index(0), attribute(3, name)].concat();
    for (what, request) in [
        ("index 1", index(1)),
        ("index 99", index(99)),
        ("name lo", named(b"lo\0")),
        ("name nowhere", named(b"nowhere\0")),
        ("neither", index(0)),
        ("short", vec![0]),
        ("negative", index(u32::MAX)),
    ] {
        for flags in [REQUEST, REQUEST | ACK] {
            for answer in ask(RTM_GETLINK, flags, &request) {
                see_link(r, &format!("{what}, flags {flags}"), &answer);
            }
        }
    }
}

/// Whether a message is about the loopback, by the number at `at`, or about none.
fn see_all(r: &mut Report, what: &str, answers: &[Vec<u8>], kind: u16, skipped: usize, left_out: &[u16]) {
    r.see(format!("{what}: how many"), answers.len());
    for (index, answer) in answers.iter().enumerate() {
        r.see(format!("{what} {index}"), head(answer));
        if half(answer, 4) != kind {
            r.see(format!("{what} {index}: error"), error(answer));
            continue;
        }
        r.see(format!("{what} {index}: fields"), &answer[HEADER..HEADER + skipped]);
        for (attribute, data) in attributes(answer, skipped) {
            let shown = if left_out.contains(&attribute) { Vec::new() } else { data };
            r.see(format!("{what} {index}: attribute {attribute}"), shown);
        }
    }
}

fn netlink_addresses(r: &mut Report) {
    lonely::enter();
    for family in [AF_UNSPEC, AF_INET, AF_INET6, AF_PACKET, 200] {
        let answers = ask(RTM_GETADDR, REQUEST | DUMP, &body(&[family as u8], 8));
        // When an address was made is a time.
        see_all(r, &format!("family {family}"), &answers, 20, 8, &[6]);
    }
    for family in [AF_INET, AF_INET6] {
        let index = [family as u8, 0, 0, 0, 1, 0, 0, 0];
        for flags in [REQUEST, REQUEST | ACK] {
            let answers = ask(RTM_GETADDR, flags, &index);
            see_all(r, &format!("one of family {family}, flags {flags}"), &answers, 20, 8, &[6]);
        }
    }
    for index in [0u8, 1, 99] {
        let fd = route();
        sys!(SYS_setsockopt, fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &raw const STRICT, 4).unwrap();
        let wanted = body(&[AF_INET as u8, 0, 0, 0, index], 8);
        send(fd, &message(RTM_GETADDR, REQUEST | DUMP, &wanted)).unwrap();
        let mut found = Vec::new();
        while let Ok(bytes) = receive(fd) {
            found.extend(messages(&bytes));
        }
        see_all(r, &format!("strictly of {index}"), &found, 20, 8, &[6]);
        close(fd).unwrap();
    }
    let local = [vec![AF_INET6 as u8, 0, 0, 0, 0, 0, 0, 0], attribute(1, &body(&[0; 15], 15))].concat();
    see_all(r, "a short address", &ask(RTM_GETADDR, REQUEST, &local), 20, 8, &[6]);
}

fn netlink_routes(r: &mut Report) {
    lonely::enter();
    for family in [AF_UNSPEC, AF_INET, AF_INET6, AF_PACKET] {
        for flags in [REQUEST | DUMP, REQUEST | DUMP | ACK] {
            let answers = ask(RTM_GETROUTE, flags, &body(&[family as u8], 12));
            // What an IPv6 route's cache holds is of the moment.
            see_all(r, &format!("family {family}, flags {flags}"), &answers, 24, 12, &[12]);
        }
    }
}

fn netlink_refusals(r: &mut Report) {
    lonely::enter();
    let lengths: [(u16, usize); 16] = [
        (16, 16),
        (17, 16),
        (19, 16),
        (20, 8),
        (21, 8),
        (24, 12),
        (25, 12),
        (28, 12),
        (29, 12),
        (32, 12),
        (33, 12),
        (36, 20),
        (37, 20),
        (40, 20),
        (64, 4),
        (72, 4),
    ];
    for (kind, len) in lengths {
        for flags in [REQUEST, REQUEST | ACK] {
            let answers = ask(kind, flags, &body(&[AF_INET as u8], len));
            r.see(format!("{kind}, flags {flags}"), answers.iter().map(|a| error(a)).collect::<Vec<_>>());
        }
    }
    let neighbours = ask(RTM_GETNEIGH, REQUEST | DUMP, &body(&[AF_INET as u8], 12));
    r.see("neighbours", neighbours.iter().map(|a| error(a)).collect::<Vec<_>>());
    for kind in [0, 1, 2, 3, 15, 1000, u16::MAX] {
        let answers = ask(kind, REQUEST | ACK, &[0; 16]);
        r.see(format!("kind {kind}"), answers.iter().map(|a| error(a)).collect::<Vec<_>>());
    }
}

fn netlink_lies(r: &mut Report) {
    lonely::enter();
    let link = message(RTM_GETLINK, REQUEST | ACK, &body(&[], 16));
    let mut cases = vec![
        ("nothing".to_owned(), Vec::new()),
        ("no request".to_owned(), message(RTM_GETLINK, ACK, &body(&[], 16))),
        (
            "two".to_owned(),
            [message(RTM_NEWLINK, REQUEST, &[0; 16]), message(1, ACK | REQUEST, &[])].concat(),
        ),
        ("no body".to_owned(), message(RTM_GETLINK, REQUEST | ACK, &[])),
        ("attribute too long".to_owned(), {
            message(RTM_GETLINK, REQUEST | ACK, &[body(&[], 16), vec![200, 0, 3, 0]].concat())
        }),
        ("attribute of no length".to_owned(), {
            message(RTM_GETLINK, REQUEST | ACK, &[body(&[], 16), vec![0, 0, 3, 0]].concat())
        }),
    ];
    for len in [1, 15, 16, 17, 31] {
        cases.push((format!("cut to {len}"), link[..len].to_vec()));
    }
    for claimed in [0u32, 15, 16, 33, 1000, u32::MAX] {
        let mut lie = link.clone();
        lie[..4].copy_from_slice(&claimed.to_ne_bytes());
        cases.push((format!("claims {claimed}"), lie));
    }
    for (what, bytes) in cases {
        let fd = route();
        let sent = send(fd, &bytes);
        let mut answers = Vec::new();
        while let Ok(bytes) = receive(fd) {
            answers.extend(messages(&bytes).iter().map(|answer| error(answer)));
        }
        r.see(what, (sent, answers));
        close(fd).unwrap();
    }
    let fd = route();
    let ask = message(RTM_GETLINK, REQUEST | DUMP, &body(&[], 16));
    let send_to = |to: &[u32], len: usize| sys!(SYS_sendto, fd, ask.as_ptr(), ask.len(), 0, to.as_ptr(), len);
    r.see("to another", send_to(&address(999_999, 0), 12));
    r.see("to a group", send_to(&address(0, 1), 12));
    r.see("to the kernel", send_to(&address(0, 0), 12));
    r.see("by a short address", send_to(&address(0, 0), 8));
    r.see("to another family", send_to(&[AF_INET as u32, 0, 0], 12));
    r.see("out of band", sys!(SYS_sendto, fd, ask.as_ptr(), ask.len(), MSG_OOB, 0, 0));
    r.see("no memory", sys!(SYS_sendto, fd, 8, ask.len(), 0, 0, 0));
    let long = vec![0u8; 1 << 20];
    r.see("too long", send(fd, &long));
    r.see("unread", sys!(SYS_read, fd, 8, 100));
}

fn netlink_receiving(r: &mut Report) {
    lonely::enter();
    let fd = route();
    let mut bytes = [0u8; 4096];
    let poll = || {
        let mut entry = pollfd { fd: fd as c_int, events: POLLIN | POLLOUT, revents: 0 };
        (sys!(SYS_poll, &raw mut entry, 1, 0), entry.revents)
    };
    r.see("nothing yet", (receive(fd), poll()));
    let mut count: c_int = -1;
    r.see("FIONREAD", sys!(SYS_ioctl, fd, FIONREAD, &raw mut count));
    let ask = message(RTM_GETADDR, REQUEST | DUMP, &body(&[AF_INET6 as u8], 8));
    r.see("send", (send(fd, &ask), poll()));
    let mut receive_with = |room: usize, flags: c_int| {
        sys!(SYS_recvfrom, fd, bytes.as_mut_ptr(), room, flags | MSG_DONTWAIT, 0, 0)
    };
    r.see("peek", receive_with(10, MSG_PEEK));
    r.see("peek at the length", receive_with(0, MSG_PEEK | MSG_TRUNC));
    r.see("cut", receive_with(20, MSG_TRUNC));
    r.see("gone", receive_with(4096, 0));
    let mut from = [7u32; 3];
    let mut space = [0u8; 64];
    let part = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 40 };
    let mut header: msghdr = zeroed();
    header.msg_name = from.as_mut_ptr().cast();
    header.msg_namelen = 12;
    header.msg_iov = &raw const part as *mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = 64;
    let one: c_int = 1;
    r.see("SO_PASSCRED", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_PASSCRED, &raw const one, 4));
    send(fd, &ask).unwrap();
    r.see("recvmsg", sys!(SYS_recvmsg, fd, &raw mut header, 0));
    r.see("from", (header.msg_namelen, from, header.msg_flags));
    r.see("credentials", &space[..header.msg_controllen]);
    r.see("read", (send(fd, &ask), sys!(SYS_read, fd, bytes.as_mut_ptr(), 4096)));
    r.see("write", sys!(SYS_write, fd, ask.as_ptr(), ask.len()));
    r.see("ready", poll());
    r.see("into nothing", sys!(SYS_recvfrom, fd, 8, 100, 0, 0, 0));
}

fn netlink_options(r: &mut Report) {
    lonely::enter();
    let fd = route();
    for name in [SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_RCVBUF, SO_SNDBUF, SO_ERROR, SO_ACCEPTCONN] {
        let (mut value, mut len): (c_int, u32) = (-7, 4);
        let answer = sys!(SYS_getsockopt, fd, SOL_SOCKET, name, &raw mut value, &raw mut len);
        r.see(format!("SOL_SOCKET {name}"), (answer, value, len));
    }
    for name in 0..14 {
        for value in [0i32, 1, 5, 600] {
            // Groups are taken and left by number, and most are not known.
            let set = sys!(SYS_setsockopt, fd, SOL_NETLINK, name, &raw const value, 4);
            let (mut got, mut len): (c_int, u32) = (-7, 4);
            let answer = sys!(SYS_getsockopt, fd, SOL_NETLINK, name, &raw mut got, &raw mut len);
            if name == 9 {
                r.see(format!("SOL_NETLINK {name}, {value}"), (set, answer));
            } else {
                r.see(format!("SOL_NETLINK {name}, {value}"), (set, answer, got, len));
            }
        }
        r.see(
            format!("SOL_NETLINK {name}, short"),
            sys!(SYS_setsockopt, fd, SOL_NETLINK, name, [0u8; 4].as_ptr(), 3),
        );
    }
    // With NETLINK_CAP_ACK an error tells the head of the request only.
    for on in [0i32, 1] {
        let fd = route();
        sys!(SYS_setsockopt, fd, SOL_NETLINK, 10, &raw const on, 4).unwrap();
        send(fd, &message(RTM_NEWLINK, REQUEST, &[0; 16])).unwrap();
        let answers: Vec<_> = messages(&receive(fd).unwrap()).iter().map(|a| error(a)).collect();
        r.see(format!("an error, capped {on}"), answers);
    }
}

fn netlink_of_libraries(r: &mut Report) {
    lonely::enter();
    let mut names: Vec<String> = nix::net::if_::if_nameindex()
        .unwrap()
        .iter()
        .map(|interface| format!("{} {:?}", interface.index(), interface.name()))
        .collect();
    names.retain(|name| name.starts_with("1 "));
    r.see("if_nameindex", names);
    r.see("if_nametoindex", (nix::net::if_::if_nametoindex("lo"), nix::net::if_::if_nametoindex("no")));
    let shown = |address: Option<nix::sys::socket::SockaddrStorage>| {
        use nix::sys::socket::SockaddrLike;
        let address = address?;
        let v4 = address.as_sockaddr_in().map(|v4| v4.ip().to_string());
        let v6 = address.as_sockaddr_in6().map(|v6| v6.ip().to_string());
        Some((address.family(), v4.or(v6)))
    };
    let interfaces: Vec<_> = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|one| one.interface_name == "lo")
        .map(|one| (one.flags, shown(one.address), shown(one.netmask), shown(one.broadcast)))
        .collect();
    r.see("getifaddrs", interfaces);
}
