//! Groups of IP multicast (ip(7), ipv6(7)): there is no interface that carries any, so none can be joined.

use lg_abi::Errno;
use lg_abi::raw::net as linux;

use super::Ctx;
use crate::net::{Family, Kind, Socket};

const IP: u32 = linux::IPPROTO_IP as u32;
const IPV6: u32 = linux::IPPROTO_IPV6 as u32;

/// Lengths of `struct ip_mreq`, `struct ip_mreqn` and `struct ipv6_mreq`, in bytes.
const MREQ: usize = 8;
const MREQN: usize = 12;
const MREQ6: usize = 20;

/// Says whether an option joins or leaves a group.
pub(super) fn is_membership(level: u32, name: u32) -> bool {
    matches!(
        (level, name),
        (IP, linux::IP_ADD_MEMBERSHIP | linux::IP_DROP_MEMBERSHIP)
            | (IPV6, linux::IPV6_ADD_MEMBERSHIP | linux::IPV6_DROP_MEMBERSHIP)
    )
}

/// Answers the joining or leaving of a group, which never succeeds.
///
/// Errors: ENODEV for joining; EADDRNOTAVAIL for leaving, or ENODEV where no interface is named; EINVAL for a request
/// that is too short or names no group; EPROTO for a stream; ENOPROTOOPT for IPv6 where the socket is for IPv4; EFAULT.
pub(super) fn refuse(
    ctx: &Ctx<'_>,
    socket: &Socket,
    (level, name): (u32, u32),
    addr: u64,
    len: usize,
) -> Errno {
    if level == IPV6 && socket.family != Family::Inet6 {
        return Errno::ENOPROTOOPT;
    }
    if socket.kind == Kind::Stream {
        return Errno::EPROTO;
    }
    let outcome = if level == IP { v4(ctx, name, addr, len) } else { v6(ctx, name, addr, len) };
    outcome.unwrap_or_else(|errno| errno)
}

fn v4(ctx: &Ctx<'_>, name: u32, addr: u64, len: usize) -> Result<Errno, Errno> {
    if len < MREQ {
        return Err(Errno::EINVAL);
    }
    let mut request = [0; MREQN];
    let len = if len < MREQN { MREQ } else { MREQN };
    ctx.read_bytes(addr, &mut request[..len])?;
    let is_group = (224..240).contains(&request[0]);
    let names_interface = request[4..] != [0; MREQN - 4];
    Ok(match name {
        linux::IP_ADD_MEMBERSHIP if !is_group => Errno::EINVAL,
        linux::IP_DROP_MEMBERSHIP if names_interface => Errno::EADDRNOTAVAIL,
        _ => Errno::ENODEV,
    })
}

fn v6(ctx: &Ctx<'_>, name: u32, addr: u64, len: usize) -> Result<Errno, Errno> {
    if len < MREQ6 {
        return Err(Errno::EINVAL);
    }
    let mut request = [0; MREQ6];
    ctx.read_bytes(addr, &mut request)?;
    Ok(match name {
        _ if request[0] != 0xff => Errno::EINVAL,
        linux::IPV6_DROP_MEMBERSHIP => Errno::EADDRNOTAVAIL,
        _ => Errno::ENODEV,
    })
}
