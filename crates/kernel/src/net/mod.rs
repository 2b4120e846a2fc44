//! Sockets: between processes of the sandbox (unix(7)), over its own loopback (ip(7), ipv6(7)), and to ask the
//! kernel about that (netlink(7)).
//!
//! ```text
//!                  connect                       accept
//!   Socket (idle) ---------> Stream  <= channels =>  Stream <------- Listener
//!        |  ^                  tx ───> packets ───> rx                  ^
//!        |  |                  rx <─── packets <─── tx                  |
//!        |  +--- bind: a name, or a port, in [`Net`]                    |
//!        +------------------------ listen ------------------------------+
//! ```
//!
//! A [`Socket`] is the file behind a descriptor. What it does depends on its state: a [`Stream`] is one side of a
//! connection, a [`Listener`] has connections that nobody has accepted, a [`Datagrams`] has an inbox that anybody
//! may send to, a [`Netlink`] asks the kernel. All of them move packets by [`Channel`]s, bounded and counted, each with one reader.
//!
//! Nothing here reaches the host: there is no host descriptor, so a fork of the vmm takes its sockets along. Nothing
//! sleeps: what can not be done now answers with the queue to sleep on. What a peer is told when a socket goes, it is
//! told by the drop of its state.

mod address;
mod channel;
mod connect;
mod datagram;
mod files;
mod inet;
mod interfaces;
mod listener;
mod netlink;
mod options;
mod packet;
mod rights;
mod socket;
mod stream;
mod tcp_info;
mod unix;

pub use address::{Address, Family, Given, MAX_ADDRESS, UnixName};
pub use channel::{Channel, Incoming, Outgoing};
pub use connect::{Patience, accept, bind, connect, listen, new_pair};
pub use datagram::Datagrams;
pub use files::{as_socket, new_socket};
pub use inet::{any, is_local};
pub use interfaces::NAME as LOOPBACK_NAME;
pub use listener::{Listener, SOMAXCONN};
pub use netlink::{Netlink, NetlinkListener, SOL_NETLINK};
pub use options::{CONGESTION, OptionName, Options};
pub use packet::PacketFields;
pub use rights::Rights;
pub use socket::{Destination, Kind, ReceiveFlags, Socket};
pub use stream::{Direction, Stream};
pub use tcp_info::{tcp_info, tcp_state};
pub use unix::find as find_unix;

use std::rc::Rc;

use lg_abi::Ucred;

use crate::vfs::{FileDescription, FsContext, Quota};
use inet::Ports;
use netlink::NetlinkPorts;
use rights::Flight;
use unix::Names;

/// What may wait in all sockets of a sandbox together, in bytes with what it takes to keep them. Beyond it a channel
/// holds [`channel::LEAST`].
const TOTAL_BYTES: u64 = 64 << 20;

/// What the sockets of one kernel share.
pub struct Net {
    names: Names,
    tcp: Ports,
    udp: Ports,
    /// UDP-Lite (RFC 3828) has ports of its own. Over a loopback that damages nothing it is UDP by another name.
    udp_lite: Ports,
    netlink: NetlinkPorts,
    flight: Flight,
    bytes: Rc<Quota>,
}

impl Net {
    /// Returns a network without sockets.
    pub fn new() -> Rc<Net> {
        Rc::new(Net {
            names: Names::default(),
            tcp: Ports::new(),
            udp: Ports::new(),
            udp_lite: Ports::new(),
            netlink: NetlinkPorts::default(),
            flight: Flight::default(),
            bytes: Rc::new(Quota::new(TOTAL_BYTES)),
        })
    }

    /// Returns how many open files wait in sockets to be received.
    pub fn count_in_flight(&self) -> usize {
        self.flight.count()
    }

    /// Returns the open files that wait in sockets to be received (SCM_RIGHTS).
    pub fn files_in_flight(&self) -> Vec<Rc<FileDescription>> {
        self.flight.files()
    }
}

/// Returns who the asking task is, as unix(7) tells it to others.
pub fn credentials_of(cx: &FsContext<'_>) -> Ucred {
    let pid = cx.procs.pid_of(cx.tid.0).unwrap_or(0);
    Ucred { pid, uid: cx.creds.euid, gid: cx.creds.egid }
}
