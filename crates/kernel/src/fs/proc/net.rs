//! `/proc/PID/net` (proc_pid_net(5)): the sockets that somebody has a descriptor of, and the loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::Entry;
use super::Kind::{File, Text};
use super::system::entry;
use crate::net::{Address, Family, Kind, Socket, UnixName, as_socket, tcp_state};
use crate::vfs::FsContext;

/// The loopback counts nothing.
const DEVICES: &str = "Inter-|   Receive                                                |  Transmit\n \
    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";

pub(super) static NET: &[Entry] = &[
    entry("dev", Text(DEVICES)),
    entry("if_inet6", Text("00000000000000000000000000000001 01 80 10 80       lo\n")),
    entry(
        "route",
        File(|_| {
            let header =
                "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
            format!("{header:<127}\n").into_bytes()
        }),
    ),
    entry("sockstat", File(|cx| sockstat(cx, Family::Inet))),
    entry("sockstat6", File(|cx| sockstat(cx, Family::Inet6))),
    entry("tcp", File(|cx| tcp(cx, Family::Inet))),
    entry("tcp6", File(|cx| tcp(cx, Family::Inet6))),
    entry("udp", File(|cx| udp(cx, Family::Inet))),
    entry("udp6", File(|cx| udp(cx, Family::Inet6))),
    entry("unix", File(unix)),
];

/// States of UDP sockets, which have the numbers of TCP's (linux/tcp_states.h).
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
/// A TCP socket that listens.
const LISTEN: u8 = 10;

/// A socket with what stat(2) says of it.
struct Seen {
    ino: u64,
    uid: u32,
    socket: Rc<Socket>,
}

/// Returns the sockets of a family and kind that have a descriptor, once each.
fn sockets(cx: &FsContext<'_>, family: Family) -> Vec<Seen> {
    let mut seen = BTreeMap::new();
    for table in cx.procs.pids().into_iter().filter_map(|pid| cx.procs.fds(pid)) {
        let Ok(table) = table.try_borrow() else { continue };
        for description in table.fds().into_iter().filter_map(|fd| table.get(fd.into()).ok()) {
            let Some(socket) = as_socket(&description.file).filter(|socket| socket.family == family) else {
                continue;
            };
            let attr = description.inode().attr(cx).unwrap_or_default();
            seen.insert(attr.ino, Seen { ino: attr.ino, uid: attr.uid, socket });
        }
    }
    seen.into_values().collect()
}

/// Returns the sockets of a transport, each with its state; TCP sockets that are neither connected nor listen, and UDP
/// sockets without a port are in no table.
fn with_states(cx: &FsContext<'_>, family: Family, kind: Kind) -> Vec<(u8, Seen)> {
    let of_kind = sockets(cx, family).into_iter().filter(|seen| seen.socket.kind == kind);
    of_kind.filter_map(|seen| Some((state(&seen.socket)?, seen))).collect()
}

fn state(socket: &Socket) -> Option<u8> {
    if socket.stream().is_some() || socket.listener().is_some() {
        return Some(tcp_state(socket));
    }
    let is_bound = socket.kind == Kind::Datagram && socket.is_bound();
    is_bound.then(|| if socket.peer().is_ok() { ESTABLISHED } else { CLOSE })
}

/// Returns what waits to be taken: connections, or bytes.
fn waiting(socket: &Socket) -> usize {
    match (socket.listener(), socket.stream(), socket.datagrams()) {
        (Some(listener), ..) => listener.count_waiting(),
        (_, Some(stream), _) => stream.rx().bytes(),
        (_, _, Some(datagrams)) => datagrams.inbox().bytes(),
        _ => 0,
    }
}

/// Writes an address as the tables have it: in words of the processor's byte order.
fn hexadecimal(address: Option<Address>, family: Family) -> String {
    let zero = SocketAddr::new(crate::net::any(family), 0);
    let at = match address {
        Some(Address::Inet(at)) => at,
        _ => zero,
    };
    let words = |bytes: &[u8]| -> String {
        let word = |word: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*word));
        bytes.as_chunks().0.iter().map(word).collect()
    };
    let ip = match (at.ip(), family) {
        (IpAddr::V4(ip), Family::Inet6) => words(&ip.to_ipv6_mapped().octets()),
        (IpAddr::V4(ip), _) => words(&ip.octets()),
        (IpAddr::V6(ip), _) => words(&ip.octets()),
    };
    format!("{ip}:{:04X}", at.port())
}

/// Writes the columns that TCP and UDP have in common.
fn columns(state: u8, seen: &Seen, family: Family) -> String {
    let socket = &seen.socket;
    format!(
        "{} {} {state:02X} 00000000:{:08X} 00:00000000 00000000 {:5}        0 {}",
        hexadecimal(Some(socket.local()), family),
        hexadecimal(socket.peer().ok(), family),
        waiting(socket),
        seen.uid,
        seen.ino,
    )
}

fn address_header(family: Family) -> &'static str {
    if family == Family::Inet6 {
        "local_address                         remote_address                       "
    } else {
        "local_address rem_address  "
    }
}

fn tcp(cx: &FsContext<'_>, family: Family) -> Vec<u8> {
    let width = if family == Family::Inet6 { 0 } else { 149 };
    let header = format!(
        "  sl  {} st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        address_header(family)
    );
    let mut text = format!("{header:<width$}\n");
    for (number, (state, seen)) in with_states(cx, family, Kind::Stream).iter().enumerate() {
        let tail = if *state == LISTEN { "100 0 0 10 0" } else { "20 4 30 10 -1" };
        let row = format!("{number:4}: {} 1 0000000000000000 {tail}", columns(*state, seen, family));
        text.push_str(&format!("{row:<width$}\n"));
    }
    text.into_bytes()
}

fn udp(cx: &FsContext<'_>, family: Family) -> Vec<u8> {
    let width = if family == Family::Inet6 { 0 } else { 127 };
    let indent = if family == Family::Inet6 { "  " } else { "   " };
    let header = format!(
        "{indent}sl  {} st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops",
        address_header(family)
    );
    let mut text = format!("{header:<width$}\n");
    for (number, (state, seen)) in with_states(cx, family, Kind::Datagram).iter().enumerate() {
        let row = format!("{number:5}: {} 2 0000000000000000 0", columns(*state, seen, family));
        text.push_str(&format!("{row:<width$}\n"));
    }
    text.into_bytes()
}

fn unix(cx: &FsContext<'_>) -> Vec<u8> {
    let mut text = b"Num       RefCount Protocol Flags    Type St Inode Path\n".to_vec();
    for Seen { ino, socket, .. } in sockets(cx, Family::Unix) {
        let flags = if socket.listener().is_some() { 0x10000 } else { 0 };
        // SS_UNCONNECTED and SS_CONNECTED.
        let state = if socket.peer().is_ok() { 3 } else { 1 };
        let row = format!(
            "0000000000000000: 00000002 00000000 {flags:08X} {:04X} {state:02X} {ino:5}",
            socket.kind.number()
        );
        text.extend_from_slice(row.as_bytes());
        match socket.local() {
            Address::Unix(UnixName::Path(path)) => text.extend_from_slice(&[b" ", &path[..]].concat()),
            Address::Unix(UnixName::Abstract(name)) => {
                text.extend_from_slice(b" @");
                text.extend(name.iter().map(|byte| if *byte == 0 { b'@' } else { *byte }));
            }
            _ => {}
        }
        text.push(b'\n');
    }
    text
}

fn sockstat(cx: &FsContext<'_>, family: Family) -> Vec<u8> {
    let count = |family, kind| with_states(cx, family, kind).len();
    let (tcp, udp) = (count(family, Kind::Stream), count(family, Kind::Datagram));
    if family == Family::Inet6 {
        return format!(
            "TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n"
        )
        .into_bytes();
    }
    let used: usize =
        [Family::Unix, Family::Inet, Family::Inet6].map(|family| sockets(cx, family).len()).iter().sum();
    format!(
        "sockets: used {used}\nTCP: inuse {tcp} orphan 0 tw 0 alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\n\
         UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
    )
    .into_bytes()
}
