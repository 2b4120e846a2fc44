//! The network interfaces as netdevice(7) shows them: the loopback, which nobody can change.

use lg_abi::Errno;

use super::{Family, Socket};
use crate::mm::UserMemory;

/// The loopback's number, name, largest packet in bytes, and how many packets may wait to be sent.
pub const INDEX: u32 = 1;
/// See [`INDEX`].
pub const NAME: &[u8] = b"lo";
/// See [`INDEX`].
pub const MTU: u32 = 65_536;
/// See [`INDEX`].
pub const QUEUE_LEN: u32 = 1000;

/// Lengths of a `struct ifreq`, of the name at its start, and of the longest name, in bytes.
const REQUEST_LEN: usize = 40;
const NAME_ROOM: usize = 16;

/// IFF_UP, IFF_LOOPBACK and IFF_RUNNING
const FLAGS: u16 = 0x49;
/// ARPHRD_LOOPBACK
pub const HARDWARE: u16 = 772;

/// Requests (linux/sockios.h).
const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFPFLAGS: u32 = 0x8935;
/// The first and last of those that drivers define for themselves; the loopback's defines none.
const SIOCDEVPRIVATE: u32 = 0x89f0;
const SIOCDEVPRIVATE_LAST: u32 = 0x89ff;

/// What is written of the loopback for a request about any interface.
const FACTS: &[(u32, &[u8])] = &[
    // SIOCGIFFLAGS, SIOCGIFMETRIC, SIOCGIFMTU
    (0x8913, &FLAGS.to_ne_bytes()),
    (0x891d, &[0; 4]),
    (0x8921, &MTU.to_ne_bytes()),
    // SIOCGIFHWADDR: a type and six bytes of address
    (0x8927, &{
        let [low, high] = HARDWARE.to_ne_bytes();
        [low, high, 0, 0, 0, 0, 0, 0]
    }),
    // SIOCGIFINDEX, SIOCGIFTXQLEN, SIOCGIFMAP
    (0x8933, &INDEX.to_ne_bytes()),
    (0x8942, &QUEUE_LEN.to_ne_bytes()),
    (0x8970, &[0; 21]),
];
/// SIOCGIFSLAVE: known, and no slave.
const SIOCGIFSLAVE: u32 = 0x8929;

/// What only sockets of AF_INET answer: addresses (a `struct sockaddr_in`).
const ADDRESSES: &[(u32, [u8; 4])] = &[
    // SIOCGIFADDR, SIOCGIFDSTADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK
    (0x8915, [127, 0, 0, 1]),
    (0x8917, [127, 0, 0, 1]),
    (0x8919, [0, 0, 0, 0]),
    (0x891b, [255, 0, 0, 0]),
];

/// Changes, which are refused to sockets of all families: SIOCSIFFLAGS, SIOCSIFMETRIC, SIOCSIFMTU, SIOCSIFNAME,
/// SIOCSIFHWADDR, SIOCADDMULTI, SIOCDELMULTI, SIOCSIFTXQLEN.
const CHANGES: [u32; 8] = [0x8914, 0x891e, 0x8922, 0x8923, 0x8924, 0x8931, 0x8932, 0x8943];
/// Those of AF_INET: SIOCADDRT, SIOCDELRT, SIOCSIFADDR, SIOCSIFDSTADDR, SIOCSIFBRDADDR, SIOCSIFNETMASK.
const CHANGES_V4: [u32; 6] = [0x890b, 0x890c, 0x8916, 0x8918, 0x891a, 0x891c];
/// Those of AF_INET6: SIOCADDRT, SIOCDELRT, SIOCSIFADDR, SIOCDIFADDR.
const CHANGES_V6: [u32; 4] = [0x890b, 0x890c, 0x8916, 0x8936];
/// Its SIOCSIFDSTADDR makes a tunnel of an interface that there is not.
const TUNNEL_V6: u32 = 0x8918;

/// A `struct sockaddr_in` of an address.
fn sockaddr(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(Family::Inet.number() as u16).to_ne_bytes());
    bytes[4..8].copy_from_slice(&address);
    bytes
}

/// The name in a request, cut where Linux cuts it, and whether it has an alias after a colon.
fn named(request: &[u8; REQUEST_LEN]) -> (&[u8], bool) {
    let name = &request[..NAME_ROOM - 1];
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    match name.iter().position(|byte| *byte == b':') {
        Some(colon) => (&name[..colon], true),
        None => (name, false),
    }
}

/// Answers a request of netdevice(7) about interfaces; `None` for another request.
///
/// Errors: ENODEV for an interface that there is not; EPERM for a change; EADDRNOTAVAIL for the address of an alias;
/// EOPNOTSUPP and EINVAL for what the loopback does not have; ENOTTY for what the socket's family does not answer;
/// EFAULT.
pub fn serve(socket: &Socket, user: &UserMemory, request: u32, argument: u64) -> Option<Result<u64, Errno>> {
    let family = socket.family;
    let is_change = CHANGES.contains(&request)
        || family == Family::Inet && CHANGES_V4.contains(&request)
        || family == Family::Inet6 && CHANGES_V6.contains(&request);
    if is_change {
        return Some(Err(Errno::EPERM));
    }
    if family == Family::Inet6 && request == TUNNEL_V6 {
        return Some(Err(Errno::ENODEV));
    }
    let asks_address = ADDRESSES.iter().find(|(number, _)| *number == request);
    if let Some((_, address)) = asks_address {
        if family != Family::Inet {
            return Some(Err(Errno::ENOTTY));
        }
        return Some(tell_address(user, argument, *address));
    }
    match request {
        SIOCGIFCONF => Some(list(user, argument)),
        SIOCGIFNAME => Some(tell_name(user, argument)),
        // Only for sockets of AF_INET, whose interface has to be another.
        SIOCGIFPFLAGS if family == Family::Inet => Some(Err(Errno::EINVAL)),
        SIOCGIFSLAVE => Some(find(user, argument).and(Err(Errno::EINVAL))),
        SIOCDEVPRIVATE..=SIOCDEVPRIVATE_LAST => Some(find(user, argument).and(Err(Errno::EOPNOTSUPP))),
        _ => {
            let (_, fact) = FACTS.iter().find(|(number, _)| *number == request)?;
            Some(find(user, argument).and_then(|_| tell(user, argument, fact)))
        }
    }
}

/// Reads a request, which must name the loopback, and says whether it names an alias.
fn find(user: &UserMemory, argument: u64) -> Result<bool, Errno> {
    let mut request = [0; REQUEST_LEN];
    user.read(argument, &mut request)?;
    let (name, is_alias) = named(&request);
    if name == NAME { Ok(is_alias) } else { Err(Errno::ENODEV) }
}

/// Writes what is asked after the name.
fn tell(user: &UserMemory, argument: u64, fact: &[u8]) -> Result<u64, Errno> {
    user.write(argument.wrapping_add(NAME_ROOM as u64), fact).map(|()| 0)
}

fn tell_address(user: &UserMemory, argument: u64, address: [u8; 4]) -> Result<u64, Errno> {
    if find(user, argument)? {
        return Err(Errno::EADDRNOTAVAIL);
    }
    tell(user, argument, &sockaddr(address))
}

fn tell_name(user: &UserMemory, argument: u64) -> Result<u64, Errno> {
    let mut index = [0; 4];
    user.read(argument.wrapping_add(NAME_ROOM as u64), &mut index)?;
    if u32::from_ne_bytes(index) != INDEX {
        return Err(Errno::ENODEV);
    }
    let mut name = [0; NAME_ROOM];
    name[..NAME.len()].copy_from_slice(NAME);
    user.write(argument, &name).map(|()| 0)
}

/// Writes the interfaces that have an IPv4 address where a `struct ifconf` says, as far as they fit, and how many
/// bytes they take; without a place, how many they would take.
fn list(user: &UserMemory, argument: u64) -> Result<u64, Errno> {
    let mut given = [0; 16];
    user.read(argument, &mut given)?;
    let (room, place) = given.split_at(8);
    let room = i32::from_ne_bytes(room.first_chunk().copied().unwrap_or_default());
    let place = u64::from_ne_bytes(place.first_chunk().copied().unwrap_or_default());
    let mut entry = [0; REQUEST_LEN];
    entry[..NAME.len()].copy_from_slice(NAME);
    entry[NAME_ROOM..NAME_ROOM + 16].copy_from_slice(&sockaddr([127, 0, 0, 1]));
    let fits = usize::try_from(room).is_ok_and(|room| room >= REQUEST_LEN);
    if place != 0 && fits {
        user.write(place, &entry)?;
    }
    let told = if place == 0 || fits { REQUEST_LEN as i32 } else { 0 };
    user.write(argument, &told.to_ne_bytes()).map(|()| 0)
}
