//! netdevice(7): what ioctl(2) answers about network interfaces; and the socket options that name them.

use libc::*;

use crate::lonely::{enter, request};
use crate::sys::{Answer, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("interface_requests", interface_requests),
    ("interface_changes", interface_changes),
    ("interface_list", interface_list),
    ("multicast_options", multicast_options),
    ("tcp_options", tcp_options),
    ("tcp_info", tcp_info),
    ("socket_option_errors", socket_option_errors),
    ("low_water", low_water),
];

const SIOCGIFNAME: u64 = 0x8910;
const SIOCGIFCONF: u64 = 0x8912;

fn socket(family: c_int, kind: c_int) -> usize {
    sys!(SYS_socket, family, kind, 0).unwrap()
}

fn set(fd: usize, level: c_int, name: c_int, value: &[u8]) -> Answer {
    sys!(SYS_setsockopt, fd, level, name, value.as_ptr(), value.len())
}

fn set_int(fd: usize, level: c_int, name: c_int, value: c_int) -> Answer {
    set(fd, level, name, &value.to_ne_bytes())
}

fn get(fd: usize, level: c_int, name: c_int, room: u32) -> (Answer, Vec<u8>) {
    let (mut value, mut len) = ([0xaau8; 512], room);
    let answer = sys!(SYS_getsockopt, fd, level, name, value.as_mut_ptr(), &raw mut len);
    (answer, value[..(len as usize).min(value.len())].to_vec())
}

/// What is asked of an interface (linux/sockios.h).
const QUESTIONS: [(&str, u64); 14] = [
    ("SIOCGIFFLAGS", 0x8913),
    ("SIOCGIFADDR", 0x8915),
    ("SIOCGIFDSTADDR", 0x8917),
    ("SIOCGIFBRDADDR", 0x8919),
    ("SIOCGIFNETMASK", 0x891b),
    ("SIOCGIFMETRIC", 0x891d),
    ("SIOCGIFMEM", 0x891f),
    ("SIOCGIFMTU", 0x8921),
    ("SIOCGIFENCAP", 0x8925),
    ("SIOCGIFHWADDR", 0x8927),
    ("SIOCGIFSLAVE", 0x8929),
    ("SIOCGIFINDEX", 0x8933),
    ("SIOCGIFPFLAGS", 0x8935),
    ("SIOCGIFTXQLEN", 0x8942),
];

fn interface_requests(r: &mut Report) {
    enter();
    for (family, kind) in [
        (AF_INET, SOCK_DGRAM),
        (AF_INET, SOCK_STREAM),
        (AF_INET6, SOCK_DGRAM),
        (AF_UNIX, SOCK_STREAM),
        (AF_NETLINK, SOCK_RAW),
    ] {
        let fd = socket(family, kind);
        for (name, number) in QUESTIONS.into_iter().chain([("SIOCGIFMAP", 0x8970), ("none", 0x89ff)]) {
            for interface in ["lo", "nowhere", "lo:1", ""] {
                let mut request = request(interface, &[7; 24]);
                let answer = sys!(SYS_ioctl, fd, number, request.as_mut_ptr());
                r.see(format!("{family} {kind}: {name} of {interface}"), (answer, &request[16..]));
            }
        }
        for index in [0i32, 1, 99, -1] {
            let mut request = request("x", &index.to_ne_bytes());
            let answer = sys!(SYS_ioctl, fd, SIOCGIFNAME, request.as_mut_ptr());
            r.see(format!("{family} {kind}: name of {index}"), (answer, &request[..20]));
        }
        r.see(format!("{family} {kind}: no memory"), sys!(SYS_ioctl, fd, 0x8913, 8));
    }
    let mut unterminated = [b'l'; 40];
    r.see(
        "a name without an end",
        sys!(SYS_ioctl, socket(AF_INET, SOCK_DGRAM), 0x8913, unterminated.as_mut_ptr()),
    );
}

fn interface_changes(r: &mut Report) {
    enter();
    let changes: [(&str, u64); 16] = [
        ("SIOCSIFLINK", 0x8911),
        ("SIOCSIFFLAGS", 0x8914),
        ("SIOCSIFADDR", 0x8916),
        ("SIOCSIFDSTADDR", 0x8918),
        ("SIOCSIFBRDADDR", 0x891a),
        ("SIOCSIFNETMASK", 0x891c),
        ("SIOCSIFMETRIC", 0x891e),
        ("SIOCSIFMTU", 0x8922),
        ("SIOCSIFNAME", 0x8923),
        ("SIOCSIFHWADDR", 0x8924),
        ("SIOCADDMULTI", 0x8931),
        ("SIOCDELMULTI", 0x8932),
        ("SIOCSIFTXQLEN", 0x8943),
        ("SIOCDIFADDR", 0x8936),
        ("SIOCADDRT", 0x890b),
        ("SIOCDELRT", 0x890c),
    ];
    for family in [AF_INET, AF_INET6, AF_UNIX] {
        let fd = socket(family, SOCK_DGRAM);
        for (name, number) in changes {
            for interface in ["lo", "nowhere"] {
                let address = [2u8, 0, 0, 0, 10, 0, 0, 1];
                let mut request = [0u8; 128];
                request[..40].copy_from_slice(&crate::lonely::request(interface, &address));
                r.see(
                    format!("{family}: {name} of {interface}"),
                    sys!(SYS_ioctl, fd, number, request.as_mut_ptr()),
                );
            }
        }
    }
}

fn interface_list(r: &mut Report) {
    enter();
    for family in [AF_INET, AF_INET6, AF_UNIX] {
        let fd = socket(family, SOCK_DGRAM);
        for room in [0i32, 39, 40, 79, 80, -1] {
            let mut space = [0u8; 400];
            let mut list = ifconf { ifc_len: room, ifc_ifcu: zeroed() };
            list.ifc_ifcu.ifcu_buf = space.as_mut_ptr().cast();
            let answer = sys!(SYS_ioctl, fd, SIOCGIFCONF, &raw mut list);
            // Where another network can not be had there are more, after the loopback.
            r.see(format!("{family}: room for {room}"), (answer, list.ifc_len.min(40), &space[..40]));
        }
        let mut list = ifconf { ifc_len: 400, ifc_ifcu: zeroed() };
        r.see(format!("{family}: how much"), (sys!(SYS_ioctl, fd, SIOCGIFCONF, &raw mut list), list.ifc_len));
    }
}

fn multicast_options(r: &mut Report) {
    enter();
    let (v4, v6) = (socket(AF_INET, SOCK_DGRAM), socket(AF_INET6, SOCK_DGRAM));
    let (group, local, any): ([u8; 4], [u8; 4], [u8; 4]) = ([239, 1, 2, 3], [127, 0, 0, 1], [0; 4]);
    let members = [
        ("any interface", [group, any].concat()),
        ("another number", [group, any, 99u32.to_ne_bytes()].concat()),
        ("another address", [group, [10, 0, 0, 1]].concat()),
        ("no group", [local, local].concat()),
        ("short", vec![0; 7]),
    ];
    for (what, request) in &members {
        let join = set(v4, IPPROTO_IP, IP_ADD_MEMBERSHIP, request);
        r.see(what, (join, set(v4, IPPROTO_IP, IP_DROP_MEMBERSHIP, request)));
    }
    r.see("of a stream", set(socket(AF_INET, SOCK_STREAM), IPPROTO_IP, IP_ADD_MEMBERSHIP, &members[0].1));
    let mut group = [0u8; 16];
    (group[0], group[1], group[15]) = (0xff, 5, 9);
    for (what, group, index) in [("any", group, 0u32), ("another", group, 99), ("no group", [0; 16], 1)] {
        let request = [&group[..], &index.to_ne_bytes()].concat();
        let join = set(v6, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &request);
        r.see(format!("IPv6 {what}"), (join, set(v6, IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, &request)));
    }
    r.see("IPv6 short", set(v6, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &[0; 19]));
}

fn tcp_options(r: &mut Report) {
    let fd = socket(AF_INET, SOCK_STREAM);
    for name in [
        TCP_NODELAY,
        TCP_CORK,
        TCP_KEEPIDLE,
        TCP_KEEPINTVL,
        TCP_KEEPCNT,
        TCP_SYNCNT,
        TCP_LINGER2,
        TCP_DEFER_ACCEPT,
        TCP_WINDOW_CLAMP,
        TCP_QUICKACK,
        TCP_USER_TIMEOUT,
        TCP_NOTSENT_LOWAT,
        TCP_MAXSEG,
        TCP_FASTOPEN,
        TCP_FASTOPEN_CONNECT,
        TCP_THIN_LINEAR_TIMEOUTS,
        TCP_THIN_DUPACK,
    ] {
        r.see(format!("TCP {name}: at first"), get(fd, IPPROTO_TCP, name, 4));
        for value in [-1, 0, 1, 5, 100_000] {
            let answer = set_int(fd, IPPROTO_TCP, name, value);
            // The clock of time stamps, and units that depend on the clock of Linux.
            let shown = if [TCP_DEFER_ACCEPT, TCP_LINGER2, TCP_FASTOPEN].contains(&name) {
                None
            } else {
                Some(get(fd, IPPROTO_TCP, name, 4))
            };
            r.see(format!("TCP {name}: {value}"), (answer, shown));
        }
        r.see(
            format!("TCP {name}: short"),
            (set(fd, IPPROTO_TCP, name, &[1, 0, 0]), get(fd, IPPROTO_TCP, name, 2).0),
        );
    }
    r.see("congestion", get(fd, IPPROTO_TCP, TCP_CONGESTION, 4).0);
    r.see("reno", (set(fd, IPPROTO_TCP, TCP_CONGESTION, b"reno"), get(fd, IPPROTO_TCP, TCP_CONGESTION, 16)));
    r.see("none such", set(fd, IPPROTO_TCP, TCP_CONGESTION, b"nonesuch"));
    r.see("no name", set(fd, IPPROTO_TCP, TCP_CONGESTION, b""));
    // How much at most depends on the machine.
    for value in [0, 1, 100, 0, 7] {
        r.see(
            format!("SO_RCVLOWAT {value}"),
            (set_int(fd, SOL_SOCKET, SO_RCVLOWAT, value), get(fd, SOL_SOCKET, SO_RCVLOWAT, 4)),
        );
    }
    r.see("SO_SNDLOWAT", (set_int(fd, SOL_SOCKET, SO_SNDLOWAT, 1), get(fd, SOL_SOCKET, SO_SNDLOWAT, 4)));
}

fn tcp_info(r: &mut Report) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    use std::os::fd::AsRawFd;
    let idle = socket(AF_INET, SOCK_STREAM);
    let (client, server, listener) =
        (client.as_raw_fd() as usize, server.as_raw_fd() as usize, listener.as_raw_fd() as usize);
    for (what, fd) in [("idle", idle), ("listening", listener), ("client", client), ("server", server)] {
        let (answer, info) = get(fd, IPPROTO_TCP, TCP_INFO, 232);
        // State, congestion state, retransmits, probes, backoff.
        r.see(what, (answer, info.len(), &info[..5]));
    }
    for room in [0, 1, 8, 104, 200] {
        let (answer, info) = get(client, IPPROTO_TCP, TCP_INFO, room);
        r.see(format!("room for {room}"), (answer, info.len()));
    }
    r.see("set", set(client, IPPROTO_TCP, TCP_INFO, &[0; 104]));
    sys!(SYS_shutdown, client, SHUT_WR).unwrap();
    // The other side learns of it a moment later.
    let mut entry = pollfd { fd: server as c_int, events: POLLRDHUP, revents: 0 };
    sys!(SYS_poll, &raw mut entry, 1, 5000).unwrap();
    for _ in 0..1000 {
        if get(client, IPPROTO_TCP, TCP_INFO, 8).1[0] == 5 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    r.see("half closed", (get(client, IPPROTO_TCP, TCP_INFO, 1), get(server, IPPROTO_TCP, TCP_INFO, 1)));
    r.see("of a datagram socket", get(socket(AF_INET, SOCK_DGRAM), IPPROTO_TCP, TCP_INFO, 104).0);
    r.see("of a unix socket", get(socket(AF_UNIX, SOCK_STREAM), IPPROTO_TCP, TCP_INFO, 104).0);
}

fn socket_option_errors(r: &mut Report) {
    enter();
    for (family, kind) in
        [(AF_INET, SOCK_STREAM), (AF_INET, SOCK_DGRAM), (AF_UNIX, SOCK_STREAM), (AF_UNIX, SOCK_DGRAM)]
    {
        let fd = socket(family, kind);
        r.see(format!("{family} {kind}: no interface"), get(fd, SOL_SOCKET, SO_BINDTODEVICE, 2));
        for name in ["", "lo", "lo\0", "nowhere", "", "a name that is much too long"] {
            let answer = set(fd, SOL_SOCKET, SO_BINDTODEVICE, name.as_bytes());
            let got = get(fd, SOL_SOCKET, SO_BINDTODEVICE, 16);
            r.see(format!("{family} {kind}: SO_BINDTODEVICE {name:?}"), (answer, got));
        }
        r.see(format!("{family} {kind}: its room"), get(fd, SOL_SOCKET, SO_BINDTODEVICE, 2).0);
        for (name, option) in [("SO_MARK", SO_MARK), ("SO_DEBUG", SO_DEBUG), ("none", 99)] {
            let answer = set_int(fd, SOL_SOCKET, option, 1);
            r.see(format!("{family} {kind}: {name}"), (answer, get(fd, SOL_SOCKET, option, 4)));
        }
    }
}

/// A connection whose server wants ten bytes at a time.
fn low_water(r: &mut Report) {
    use std::os::fd::AsRawFd;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (from, to) = (client.as_raw_fd() as usize, server.as_raw_fd() as usize);
    set_int(to, SOL_SOCKET, SO_RCVLOWAT, 10).unwrap();
    let poll = |timeout_ms: c_int| {
        let mut entry = pollfd { fd: to as c_int, events: POLLIN, revents: 0 };
        (sys!(SYS_poll, &raw mut entry, 1, timeout_ms), entry.revents)
    };
    write(from, b"four").unwrap();
    r.see("too little", poll(50));
    r.see("as much as there is", read_now(to));
    write(from, b"0123456789").unwrap();
    r.see("enough", poll(10_000));
    r.see("a short buffer", (read(to, 4), read_now(to)));
    let writer = crate::sys::child(|| {
        crate::sys::sleep_ms(50);
        i32::from(write(from, b"0123456789ab").is_err())
    });
    r.see("waited for", read(to, 14));
    r.see("the writer", crate::sys::wait(writer));
    drop(client);
    r.see("the end", (poll(10_000), read(to, 10)));
}

/// A read that does not wait.
fn read_now(fd: usize) -> Result<String, crate::sys::Errno> {
    let mut bytes = [0u8; 64];
    let len = sys!(SYS_recvfrom, fd, bytes.as_mut_ptr(), 64, MSG_DONTWAIT, 0, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}
