//! Sockets as open files.

use std::any::Any;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{O_RDWR, S_IFSOCK};
use lg_abi::raw::ioctl::{FIONREAD, SIOCATMARK, TIOCOUTQ};

use super::socket::State;
use super::{Kind, Outgoing, ReceiveFlags, Socket, credentials_of, interfaces};
use crate::fs::anon::AnonInode;
use crate::mm::UserMemory;
use crate::task::{Stop, WaitQueue};
use crate::vfs::{File, FileDescription, FsContext, Inode, Readiness};

/// Returns the open file of a socket; `flags` may hold O_NONBLOCK.
///
/// Errors: ENFILE.
pub fn new_socket(cx: &FsContext<'_>, socket: Rc<Socket>, flags: u32) -> Result<Rc<FileDescription>, Errno> {
    let anon = AnonInode::new(cx, S_IFSOCK | 0o777);
    let name = format!("socket:[{}]", anon.ino());
    let inode: Rc<dyn Inode> = Rc::new(anon);
    FileDescription::nameless(cx, inode, socket, name.as_bytes(), flags | O_RDWR)
}

/// Returns the socket that a file is, if it is one.
pub fn as_socket(file: &Rc<dyn File>) -> Option<Rc<Socket>> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<Socket>().ok()
}

fn without_waiting(stop: Stop) -> Errno {
    if let Stop::Errno(errno) = stop { errno } else { Errno::EAGAIN }
}

impl File for Socket {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, mut buf: &mut [u8]) -> Result<usize, Errno> {
        let received = self.receive(&mut buf, ReceiveFlags::empty());
        received.map(|incoming| incoming.stored).map_err(without_waiting)
    }

    fn write(&self, cx: &FsContext<'_>, _offset: u64, mut data: &[u8]) -> Result<usize, Errno> {
        let mut sent = Outgoing { creds: credentials_of(cx), ..Outgoing::default() };
        self.send(cx, &mut data, &mut sent, None).map_err(without_waiting)
    }

    fn has_position(&self) -> bool {
        false
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        self.ready_for()
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        self.wait_queues()
    }

    fn ioctl(
        &self,
        _cx: &FsContext<'_>,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        if let Some(answer) = interfaces::serve(self, user, request, argument) {
            return answer;
        }
        let state = self.state();
        let count = match (request, &state) {
            (_, State::Netlink(_)) => return Err(Errno::ENOTTY),
            (FIONREAD | TIOCOUTQ, State::Listening(_)) => return Err(Errno::EINVAL),
            (FIONREAD, State::Connected(stream)) if self.kind == Kind::Stream => stream.rx().bytes(),
            (FIONREAD, State::Connected(stream)) => stream.rx().next_len(),
            (FIONREAD, State::Datagrams(datagrams)) => datagrams.inbox().next_len(),
            (TIOCOUTQ, State::Connected(stream)) => stream.tx().bytes(),
            (FIONREAD | TIOCOUTQ | SIOCATMARK, _) => 0,
            _ => return Err(Errno::ENOTTY),
        };
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        user.write(argument, &count.to_ne_bytes()).map(|()| 0)
    }

    fn descriptor_closed(&self, _cx: &FsContext<'_>) {
        self.net.flight.collect(self);
    }
}
