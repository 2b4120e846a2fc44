//! What rtnetlink(7) tells of the loopback: its link, its addresses, its routes, as Linux 6.1 has them in a network
//! with nothing else. What it has sent and received is not counted.

use std::net::{Ipv4Addr, Ipv6Addr};

use lg_abi::raw::net::{AF_INET, AF_INET6};

use crate::net::interfaces::{HARDWARE, INDEX, MTU, NAME, QUEUE_LEN};

const V4: u8 = AF_INET as u8;
const V6: u8 = AF_INET6 as u8;

/// Body and attributes of a message.
pub struct Facts {
    pub body: Vec<u8>,
    pub attributes: Vec<(u16, Vec<u8>)>,
}

/// IFF_UP, IFF_LOOPBACK, IFF_RUNNING and IFF_LOWER_UP
const FLAGS: u32 = 0x1_0049;

fn u32s(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn name() -> Vec<u8> {
    [NAME, b"\0"].concat()
}

/// Returns the link (`struct ifinfomsg`).
pub fn link() -> Facts {
    let body =
        [&[0, 0], &HARDWARE.to_ne_bytes()[..], &INDEX.to_ne_bytes(), &FLAGS.to_ne_bytes(), &[0; 4]].concat();
    // The names of linux/if_link.h, without IFLA_.
    let attributes = vec![
        (3, name()),
        // TXQLEN
        (13, u32s(QUEUE_LEN)),
        // OPERSTATE and LINKMODE: unknown, default
        (16, vec![0]),
        (17, vec![0]),
        (4, u32s(MTU)),
        // MIN_MTU and MAX_MTU
        (50, u32s(0)),
        (51, u32s(0)),
        // GROUP and PROMISCUITY
        (27, u32s(0)),
        (30, u32s(0)),
        // NUM_TX_QUEUES and NUM_RX_QUEUES
        (31, u32s(1)),
        (32, u32s(1)),
        // CARRIER, and how often it has changed
        (33, vec![1]),
        (35, u32s(0)),
        (47, u32s(0)),
        (48, u32s(0)),
        // PROTO_DOWN
        (39, vec![0]),
        // ADDRESS and BROADCAST
        (1, vec![0; 6]),
        (2, vec![0; 6]),
        // STATS64 and STATS
        (23, vec![0; 200]),
        (7, vec![0; 96]),
        // QDISC
        (6, b"noqueue\0".to_vec()),
        // MAP
        (14, vec![0; 32]),
    ];
    Facts { body, attributes }
}

/// Returns the addresses of a family, all for another (`struct ifaddrmsg`).
pub fn addresses(family: u8) -> Vec<Facts> {
    [address_v4(), address_v6()].into_iter().filter(|facts| is_wanted(family, facts)).collect()
}

/// Says whether a dump for `family` tells something. One for a family that has nothing of the kind is for all.
fn is_wanted(family: u8, facts: &Facts) -> bool {
    ![V4, V6].contains(&family) || facts.body.first() == Some(&family)
}

/// Permanent (IFA_F_PERMANENT).
const PERMANENT: u8 = 0x80;
/// RT_SCOPE_HOST and RT_SCOPE_LINK
const HOST: u8 = 254;
const LINK: u8 = 253;

fn address_body(family: u8, prefix: u8) -> Vec<u8> {
    [&[family, prefix, PERMANENT, HOST][..], &INDEX.to_ne_bytes()].concat()
}

/// IFA_CACHEINFO: it lasts for ever, and has been there from the start.
fn lasting() -> Vec<u8> {
    [[0xff; 8], [0; 8]].concat()
}

fn address_v4() -> Facts {
    let local = Ipv4Addr::LOCALHOST.octets().to_vec();
    let attributes =
        vec![(1, local.clone()), (2, local), (3, name()), (8, u32s(PERMANENT.into())), (6, lasting())];
    Facts { body: address_body(V4, 8), attributes }
}

/// Returns the IPv6 address.
pub fn address_v6() -> Facts {
    let local = Ipv6Addr::LOCALHOST.octets().to_vec();
    // The last says that the kernel set it (IFAPROT_KERNEL_LO).
    let attributes = vec![(1, local), (6, lasting()), (8, u32s(PERMANENT.into())), (11, vec![1])];
    Facts { body: address_body(V6, 128), attributes }
}

/// RT_TABLE_LOCAL, RTPROT_KERNEL; RTN_LOCAL and RTN_BROADCAST
const TABLE: u8 = 255;
const BY_KERNEL: u8 = 2;
const LOCAL: u8 = 2;
const BROADCAST: u8 = 3;

/// Returns the routes of a family, all for another (`struct rtmsg`).
pub fn routes(family: u8) -> Vec<Facts> {
    let v4 = |prefix, scope, kind, to: [u8; 4]| {
        let local = Ipv4Addr::LOCALHOST.octets().to_vec();
        let attributes = vec![(15, u32s(TABLE.into())), (1, to.to_vec()), (7, local), (4, u32s(INDEX))];
        Facts { body: vec![V4, prefix, 0, 0, TABLE, BY_KERNEL, scope, kind, 0, 0, 0, 0], attributes }
    };
    let v6 = Facts {
        body: vec![V6, 128, 0, 0, TABLE, BY_KERNEL, 0, LOCAL, 0, 0, 0, 0],
        attributes: vec![
            (15, u32s(TABLE.into())),
            (1, Ipv6Addr::LOCALHOST.octets().to_vec()),
            (6, u32s(0)),
            (4, u32s(INDEX)),
            // RTA_CACHEINFO and RTA_PREF
            (12, vec![0; 32]),
            (20, vec![0]),
        ],
    };
    let all = [
        v4(8, HOST, LOCAL, [127, 0, 0, 0]),
        v4(32, HOST, LOCAL, [127, 0, 0, 1]),
        v4(32, LINK, BROADCAST, [127, 255, 255, 255]),
        v6,
    ];
    all.into_iter().filter(|facts| is_wanted(family, facts)).collect()
}
