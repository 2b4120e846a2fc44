//! The options of netlink sockets (netlink(7)).

use lg_abi::Errno;

use super::Ctx;
use crate::net::{SOL_NETLINK, Socket};

/// Options that are no flags (linux/netlink.h).
const NETLINK_ADD_MEMBERSHIP: u32 = 1;
const NETLINK_DROP_MEMBERSHIP: u32 = 2;
const NETLINK_LISTEN_ALL_NSID: u32 = 8;
const NETLINK_LIST_MEMBERSHIPS: u32 = 9;
const INT: usize = size_of::<i32>();

/// Returns the value of an option.
///
/// Errors: ENOPROTOOPT; EINVAL where there is not room for a number.
pub(super) fn get(socket: &Socket, name: u32, room: usize) -> Result<Vec<u8>, Errno> {
    let netlink = socket.netlink().ok_or(Errno::EOPNOTSUPP)?;
    let number = match name {
        NETLINK_LIST_MEMBERSHIPS => return Ok(netlink.groups().to_ne_bytes().to_vec()),
        NETLINK_LISTEN_ALL_NSID => 0,
        _ => socket.options.get((SOL_NETLINK, name))?,
    };
    if room < INT { Err(Errno::EINVAL) } else { Ok(number.to_ne_bytes().to_vec()) }
}

/// Sets an option. A value that is too short counts as 0.
///
/// Errors: ENOPROTOOPT; EINVAL for a number that is no group's; EPERM for other name spaces' messages; EFAULT.
pub(super) fn set(ctx: &Ctx<'_>, socket: &Socket, name: u32, addr: u64, len: i32) -> Result<(), Errno> {
    let netlink = socket.netlink().ok_or(Errno::ENOPROTOOPT)?;
    let value: i32 = if len >= INT as i32 { ctx.copy_in(addr)? } else { 0 };
    match name {
        NETLINK_ADD_MEMBERSHIP => netlink.set_member(value as u32, true),
        NETLINK_DROP_MEMBERSHIP => netlink.set_member(value as u32, false),
        NETLINK_LISTEN_ALL_NSID => Err(Errno::EPERM),
        _ => socket.options.set((SOL_NETLINK, name), value),
    }
}
