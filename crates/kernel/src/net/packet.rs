//! What a packet of the Internet Protocol carries besides its data and is told with it (ip(7), ipv6(7), RFC 3542).

use std::net::IpAddr;

use lg_abi::raw::net as linux;

use super::Options;

const IP: u32 = linux::IPPROTO_IP as u32;
const IPV6: u32 = linux::IPPROTO_IPV6 as u32;

/// Fields of a packet's header. A sender may set them for one datagram; where it does not, its options say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketFields {
    /// IP_TTL or IPV6_HOPLIMIT, 0 to 255.
    pub hop_limit: Option<u8>,
    /// IP_TOS or IPV6_TCLASS, 0 to 255.
    pub traffic_class: Option<u8>,
    /// Where it is to come from (IP_PKTINFO, IPV6_PKTINFO).
    pub from: Option<IpAddr>,
    /// Where the packet was sent, known once it is.
    pub to: Option<IpAddr>,
}

impl PacketFields {
    /// Returns the fields of a packet to `to`, as the sender's options complete them.
    pub fn completed(self, options: &Options, to: IpAddr) -> PacketFields {
        let names = match to {
            IpAddr::V4(_) => [(IP, linux::IP_TTL), (IP, linux::IP_TOS)],
            IpAddr::V6(_) => [(IPV6, linux::IPV6_UNICAST_HOPS), (IPV6, linux::IPV6_TCLASS)],
        };
        let [hop_limit, traffic_class] =
            names.map(|name| options.get(name).ok().and_then(|value| u8::try_from(value).ok()));
        PacketFields {
            hop_limit: self.hop_limit.or(hop_limit),
            traffic_class: self.traffic_class.or(traffic_class),
            from: self.from,
            to: Some(to),
        }
    }
}
