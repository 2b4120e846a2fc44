//! A network with nothing but its loopback, for the checks that look at all of it: a sandbox is one already.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use libc::*;

use crate::sys::{sys, zeroed};

/// A `struct ifreq`: a name, and 24 bytes for what is asked.
pub type Request = [u8; 40];

/// An ifreq with a name.
pub fn request(name: &str, argument: &[u8]) -> Request {
    let mut request = [0; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..16 + argument.len()].copy_from_slice(argument);
    request
}

/// Goes to a network of its own where the system has such, with the loopback up, and gives all capabilities up.
pub fn enter() {
    let is_new = [CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET]
        .into_iter()
        .any(|flags| sys!(SYS_unshare, flags).is_ok());
    if is_new {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a network has any address");
        let flags = (IFF_UP | IFF_LOOPBACK | IFF_RUNNING) as c_short;
        let up = request("lo", &flags.to_ne_bytes());
        sys!(SYS_ioctl, socket.as_raw_fd(), SIOCSIFFLAGS, up.as_ptr()).expect("the loopback can be set up");
    }
    let header: [u32; 2] = [0x2008_0522, 0];
    let none: [u32; 6] = zeroed();
    sys!(SYS_capset, header.as_ptr(), none.as_ptr()).expect("capabilities can be given up");
}
