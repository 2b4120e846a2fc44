//! Control messages of datagrams of the Internet Protocol: fields of a packet's header (ip(7), ipv6(7), RFC 3542).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lg_abi::Errno;
use lg_abi::raw::net as linux;

use super::Ctx;
use super::control::{ControlMessage, ControlWriter};
use crate::net::{Family, PacketFields, Socket, is_local};

const IP: u32 = linux::IPPROTO_IP as u32;
const IPV6: u32 = linux::IPPROTO_IPV6 as u32;

/// The number of the only network interface, the loopback.
const LOOPBACK: u32 = 1;

/// SCM_RIGHTS and SCM_CREDENTIALS mean nothing here and are passed over; what else a socket can be told is refused.
const PASSED_OVER: [u32; 2] = [1, 2];

/// Returns the fields that control messages set for one datagram to `to`.
///
/// Errors: EINVAL for types that are not known, and for lengths and values that can not be; ENODEV for another
/// interface than the loopback.
pub(super) fn read_fields(messages: &[ControlMessage], to: IpAddr) -> Result<PacketFields, Errno> {
    let mut fields = PacketFields::default();
    for message in messages {
        let data = message.data.as_slice();
        match (message.level, to) {
            (linux::SOL_SOCKET, _) if PASSED_OVER.contains(&message.kind) => {}
            (linux::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            (IP, IpAddr::V4(_)) => read_ip(message.kind, data, &mut fields)?,
            (IPV6, IpAddr::V6(_)) => read_ipv6(message.kind, data, &mut fields)?,
            _ => {}
        }
    }
    Ok(fields)
}

fn read_ip(kind: u32, data: &[u8], fields: &mut PacketFields) -> Result<(), Errno> {
    match kind {
        linux::IP_TTL => fields.hop_limit = Some(byte(int(data)?, 1)?),
        linux::IP_TOS => {
            let value = if let [byte] = data { i32::from(*byte) } else { int(data)? };
            fields.traffic_class = Some(byte(value, 0)?);
        }
        linux::IP_PKTINFO => {
            let info: &[u8; 12] = data.try_into().map_err(|_| Errno::EINVAL)?;
            let [index, source, _] = parts(info);
            fields.from = source_address(index, Ipv4Addr::from(source).into())?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn read_ipv6(kind: u32, data: &[u8], fields: &mut PacketFields) -> Result<(), Errno> {
    match kind {
        // Linux keeps 16 bits of it before it looks.
        linux::IPV6_HOPLIMIT => fields.hop_limit = byte_or_default(i32::from(int(data)? as i16))?,
        linux::IPV6_TCLASS => fields.traffic_class = byte_or_default(int(data)?)?,
        linux::IPV6_PKTINFO => {
            let (source, index) = data.split_first_chunk::<16>().ok_or(Errno::EINVAL)?;
            let index = index.first_chunk::<4>().ok_or(Errno::EINVAL)?;
            fields.from = source_address(*index, Ipv6Addr::from(*source).into())?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// Cuts a `struct in_pktinfo` in its three fields.
fn parts(info: &[u8; 12]) -> [[u8; 4]; 3] {
    let (fields, _) = info.as_chunks::<4>();
    [fields[0], fields[1], fields[2]]
}

/// Checks what a sender asks for as the source of a packet; no address leaves it open.
fn source_address(index: [u8; 4], source: IpAddr) -> Result<Option<IpAddr>, Errno> {
    if ![0, LOOPBACK].contains(&u32::from_ne_bytes(index)) {
        return Err(Errno::ENODEV);
    }
    match source {
        source if source.is_unspecified() => Ok(None),
        source if is_local(source) => Ok(Some(source)),
        _ => Err(Errno::EINVAL),
    }
}

fn int(data: &[u8]) -> Result<i32, Errno> {
    data.try_into().map(i32::from_ne_bytes).map_err(|_| Errno::EINVAL)
}

fn byte(value: i32, first: u8) -> Result<u8, Errno> {
    u8::try_from(value).ok().filter(|value| *value >= first).ok_or(Errno::EINVAL)
}

/// Reads a field where -1 leaves the value to the socket's options.
fn byte_or_default(value: i32) -> Result<Option<u8>, Errno> {
    if value == -1 { Ok(None) } else { byte(value, 0).map(Some) }
}

/// Writes the fields of a packet that the socket's options ask for, in Linux's order.
pub(super) fn put_fields(
    ctx: &Ctx<'_>,
    socket: &Socket,
    fields: PacketFields,
    control: &mut ControlWriter,
) -> Result<(), Errno> {
    let Some(to) = fields.to else { return Ok(()) };
    let wants = |level, name| socket.options.is_set(level, name);
    let hop_limit = i32::from(fields.hop_limit.unwrap_or_default());
    let traffic_class = fields.traffic_class.unwrap_or_default();
    if socket.family == Family::Inet6 && wants(IPV6, linux::IPV6_RECVPKTINFO) {
        let shown = match to {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let info = [&shown.octets()[..], &LOOPBACK.to_ne_bytes()].concat();
        control.put(ctx, (IPV6, linux::IPV6_PKTINFO), &info)?;
    }
    match to {
        IpAddr::V6(_) => {
            if wants(IPV6, linux::IPV6_RECVHOPLIMIT) {
                control.put(ctx, (IPV6, linux::IPV6_HOPLIMIT), &hop_limit.to_ne_bytes())?;
            }
            if wants(IPV6, linux::IPV6_RECVTCLASS) {
                let value = i32::from(traffic_class).to_ne_bytes();
                control.put(ctx, (IPV6, linux::IPV6_TCLASS), &value)?;
            }
        }
        IpAddr::V4(v4) => {
            if wants(IP, linux::IP_PKTINFO) {
                let info = [LOOPBACK.to_ne_bytes(), v4.octets(), v4.octets()].concat();
                control.put(ctx, (IP, linux::IP_PKTINFO), &info)?;
            }
            if wants(IP, linux::IP_RECVTTL) {
                control.put(ctx, (IP, linux::IP_TTL), &hop_limit.to_ne_bytes())?;
            }
            if wants(IP, linux::IP_RECVTOS) {
                control.put(ctx, (IP, linux::IP_TOS), &[traffic_class])?;
            }
        }
    }
    Ok(())
}
