//! What TCP_INFO tells (tcp(7), linux/tcp.h).

use super::Socket;

/// The length of a `struct tcp_info` of Linux 6.1, in bytes.
const LEN: usize = 232;
/// Where it has how many connections wait, and how many may.
const UNACKED: usize = 24;
const SACKED: usize = 28;

/// States of TCP sockets (linux/tcp_states.h).
const ESTABLISHED: u8 = 1;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// Returns the state of a TCP socket.
pub fn tcp_state(socket: &Socket) -> u8 {
    if let Some(stream) = socket.stream() {
        return match (stream.rx().is_writer_closed(), stream.tx().is_writer_closed()) {
            (false, false) => ESTABLISHED,
            (true, false) => CLOSE_WAIT,
            (false, true) => FIN_WAIT2,
            (true, true) => CLOSE,
        };
    }
    if socket.listener().is_some() { LISTEN } else { CLOSE }
}

/// Returns a `struct tcp_info`: the state, and of a socket that listens how many connections wait and how many may.
/// All else is 0: nothing is lost on the way, sent again, or measured.
pub fn tcp_info(socket: &Socket) -> Vec<u8> {
    let mut info = vec![0; LEN];
    info[0] = tcp_state(socket);
    if let Some(listener) = socket.listener() {
        for (at, count) in [(UNACKED, listener.count_waiting()), (SACKED, listener.backlog())] {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            info[at..at + 4].copy_from_slice(&count.to_ne_bytes());
        }
    }
    info
}
