//! Answers to the requests of rtnetlink(7).

use std::net::Ipv6Addr;

use lg_abi::Errno;
use lg_abi::raw::net::AF_INET6;

use super::loopback::{self, Facts};
use super::message::{self, Message, NLM_F_DUMP_FILTERED, NLM_F_MULTI, Request};
use crate::net::interfaces;

/// Types of messages (linux/rtnetlink.h). They come by fours: new, delete, get, set.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
/// The last type (RTM_MAX of Linux 6.1).
const RTM_MAX: u16 = 123;
const VERB: u16 = 3;
const GET: u16 = 2;

/// Lengths of `struct ifinfomsg` and `struct ifaddrmsg`, and where both have the number of an interface, in bytes.
const LINK_LEN: usize = 16;
const ADDRESS_LEN: usize = 8;
const INDEX_AT: usize = 4;
/// Attributes: of a link its name, of an address itself and the local one.
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// The longest name of an interface, in bytes.
const MAX_NAME: usize = 15;

/// Who asks.
pub struct Asker {
    pub port: u32,
    /// NETLINK_CAP_ACK
    pub caps_errors: bool,
    /// NETLINK_GET_STRICT_CHK
    pub is_strict: bool,
}

/// Returns the packets that answer what was sent, each made when it is asked for.
pub fn answer<'m>(asker: &'m Asker, bytes: &'m [u8]) -> impl Iterator<Item = Vec<u8>> {
    message::requests(bytes).flat_map(move |request| answer_one(asker, &request))
}

fn answer_one(asker: &Asker, request: &Request<'_>) -> Vec<Vec<u8>> {
    let is_for_us = request.has(message::NLM_F_REQUEST) && request.kind >= message::NLMSG_MIN_TYPE;
    let served = if is_for_us { serve(asker, request) } else { Ok(Served::Done) };
    let (mut packets, result) = match served {
        Ok(Served::Dump(packets)) => return packets,
        Ok(Served::One(packet)) => (vec![packet], Ok(())),
        Ok(Served::Done) => (Vec::new(), Ok(())),
        Err(errno) => (Vec::new(), Err(errno)),
    };
    if result.is_err() || request.has(message::NLM_F_ACK) {
        packets.push(message::outcome(request, asker.port, result, asker.caps_errors));
    }
    packets
}

enum Served {
    /// There is nothing to tell.
    Done,
    One(Vec<u8>),
    /// All of a kind, which end with a message of their own.
    Dump(Vec<Vec<u8>>),
}

/// Serves a request.
///
/// Errors: EPERM for a change; EOPNOTSUPP for what is not told; ENODEV, EADDRNOTAVAIL; EINVAL, ERANGE.
fn serve(asker: &Asker, request: &Request<'_>) -> Result<Served, Errno> {
    if request.kind > RTM_MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    let Some(&family) = request.body().first() else { return Ok(Served::Done) };
    if request.kind & VERB != GET {
        return Err(Errno::EPERM);
    }
    let is_dump = request.has(message::NLM_F_DUMP);
    match request.kind {
        RTM_GETLINK if is_dump => Ok(dump(asker, request, RTM_NEWLINK, vec![loopback::link()], 0)),
        RTM_GETLINK => {
            find_link(request.body())?;
            Ok(one(asker, request, RTM_NEWLINK, loopback::link()))
        }
        RTM_GETADDR if is_dump => {
            let flags = match filter_flags(asker, request.body()) {
                Ok(flags) => flags,
                // A dump that fails is ended with the error.
                Err((flags, errno)) => {
                    let ended = message::done(request, asker.port, flags, Err(errno));
                    return Ok(Served::Dump(vec![ended]));
                }
            };
            Ok(dump(asker, request, RTM_NEWADDR, loopback::addresses(family), flags))
        }
        RTM_GETADDR if u32::from(family) == AF_INET6 => {
            find_address(request.body())?;
            Ok(one(asker, request, RTM_NEWADDR, loopback::address_v6()))
        }
        RTM_GETROUTE if is_dump => Ok(dump(asker, request, RTM_NEWROUTE, loopback::routes(family), 0)),
        // There are no neighbours.
        RTM_GETNEIGH if is_dump => Ok(dump(asker, request, 0, Vec::new(), 0)),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn one(asker: &Asker, request: &Request<'_>, kind: u16, facts: Facts) -> Served {
    Served::One(write(asker, request, (kind, 0), &facts))
}

fn write(asker: &Asker, request: &Request<'_>, (kind, flags): (u16, u16), facts: &Facts) -> Vec<u8> {
    let message = Message::answer(request, asker.port, kind, flags);
    message.bytes(&facts.body).attributes(&facts.attributes).finish()
}

fn dump(asker: &Asker, request: &Request<'_>, kind: u16, all: Vec<Facts>, flags: u16) -> Served {
    let messages = all.iter().map(|facts| write(asker, request, (kind, NLM_F_MULTI | flags), facts));
    let packet: Vec<u8> = messages.flatten().collect();
    let done = message::done(request, asker.port, flags, Ok(()));
    // Linux ends a dump of IPv6 in the packet that tells the last.
    if all.last().is_some_and(|facts| ends_with_packet(request, facts)) {
        return Served::Dump(vec![[packet, done].concat()]);
    }
    Served::Dump([packet, done].into_iter().filter(|packet| !packet.is_empty()).collect())
}

fn ends_with_packet(request: &Request<'_>, last: &Facts) -> bool {
    let family = request.body().first().copied().map(u32::from);
    family == Some(AF_INET6) && last.body.first().copied().map(u32::from) == family
}

/// Finds the link that a request names by its number, or else by its name.
///
/// Errors: EINVAL for neither, ERANGE for a name that is too long, ENODEV.
fn find_link(body: &[u8]) -> Result<(), Errno> {
    let index = index_of(body.get(..LINK_LEN).ok_or(Errno::EINVAL)?)?;
    let name = message::attribute(&body[LINK_LEN..], IFLA_IFNAME);
    let name = name.map(|name| name.split(|byte| *byte == 0).next().unwrap_or_default());
    match (index, name) {
        (_, Some(name)) if name.len() > MAX_NAME => Err(Errno::ERANGE),
        (1.., _) if index == interfaces::INDEX as i32 => Ok(()),
        (0, Some(interfaces::NAME)) => Ok(()),
        (1.., _) | (0, Some(_)) => Err(Errno::ENODEV),
        _ => Err(Errno::EINVAL),
    }
}

fn index_of(body: &[u8]) -> Result<i32, Errno> {
    let index = body.get(INDEX_AT..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*index))
}

/// Finds the IPv6 address that a request names.
///
/// Errors: EINVAL, ERANGE for one that is too short, EADDRNOTAVAIL.
fn find_address(body: &[u8]) -> Result<(), Errno> {
    let attributes = body.get(ADDRESS_LEN..).ok_or(Errno::EINVAL)?;
    let given = [IFA_LOCAL, IFA_ADDRESS].into_iter().find_map(|kind| message::attribute(attributes, kind));
    let address: &[u8; 16] = given.ok_or(Errno::EINVAL)?.first_chunk().ok_or(Errno::ERANGE)?;
    if Ipv6Addr::from(*address).is_loopback() { Ok(()) } else { Err(Errno::EADDRNOTAVAIL) }
}

/// Returns the flags of a dump of addresses. A strict asker may want those of one interface only.
///
/// Errors, each with the flags of its message: EINVAL, ENODEV.
fn filter_flags(asker: &Asker, body: &[u8]) -> Result<u16, (u16, Errno)> {
    if !asker.is_strict {
        return Ok(0);
    }
    match index_of(body).map_err(|errno| (0, errno))? {
        0 => Ok(0),
        index if index == interfaces::INDEX as i32 => Ok(NLM_F_DUMP_FILTERED),
        _ => Err((NLM_F_DUMP_FILTERED, Errno::ENODEV)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Asker = Asker { port: 5, caps_errors: false, is_strict: true };

    fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let len = (message::HEADER + body.len()) as u32;
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], body].concat()
    }

    fn errno(packets: &[Vec<u8>]) -> Option<i32> {
        let [packet] = packets else { return None };
        packet.get(message::HEADER..)?.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
    }

    #[test]
    fn changes_are_refused_and_what_is_not_told_is_not_supported() {
        for (kind, errno_wanted) in [(RTM_NEWLINK, Errno::EPERM), (25, Errno::EPERM), (34, Errno::EOPNOTSUPP)]
        {
            let bytes = request(kind, message::NLM_F_REQUEST, &[2; 16]);
            let packets: Vec<_> = answer(&ASKER, &bytes).collect();
            assert_eq!(errno(&packets), Some(-errno_wanted.number()), "type {kind}");
        }
    }

    #[test]
    fn every_beginning_of_a_request_is_answered_or_passed_over() {
        for kind in 0..=u16::from(u8::MAX) {
            for flags in [message::NLM_F_REQUEST, message::NLM_F_REQUEST | message::NLM_F_DUMP] {
                for len in 0..40 {
                    let bytes = request(kind, flags, &vec![0xff; len]);
                    for end in 0..=bytes.len() {
                        let count = answer(&ASKER, &bytes[..end]).count();
                        assert!(end == bytes.len() || count == 0, "type {kind}, {end} of {len} bytes");
                    }
                }
            }
        }
    }
}
