//! The messages themselves, and the functions that send and receive them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::frame::{self, FrameError, HEADER_BYTES, Kind};
use crate::{Report, SandboxSpec};

/// From the runtime to the vmm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Builds the VM and runs the program. The first request, once; see [`send_start`].
    Start(Box<SandboxSpec>),
    /// Sends a signal, by its Linux number, to the guest's first program.
    Signal(u8),
    /// Ends the sandbox now, whatever its programs do.
    Kill,
}

/// From the vmm to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The next thing to run is the first guest instruction.
    Ready {
        /// From the start of the vmm's work until now, in nanoseconds.
        spawn_ns: u64,
    },
    /// The sandbox is over. The last event; the process exits after it.
    Ended(Box<Report>),
}

mod sealed {
    pub trait Message {
        const KIND: super::Kind;
    }

    impl Message for super::Request {
        const KIND: super::Kind = super::Kind::Request;
    }

    impl Message for super::Event {
        const KIND: super::Kind = super::Kind::Event;
    }
}

/// The bytes of one message, header included.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<M: sealed::Message + Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(message, vec![0; HEADER_BYTES]).map_err(FrameError::Malformed)?;
    let header = frame::header(M::KIND, bytes.len() - HEADER_BYTES)?;
    bytes[..HEADER_BYTES].copy_from_slice(&header);
    Ok(bytes)
}

/// The message in a frame's payload (the bytes after the header).
///
/// # Errors
/// [`FrameError::Malformed`] or [`FrameError::Trailing`].
pub fn decode<M: sealed::Message + DeserializeOwned>(payload: &[u8]) -> Result<M, FrameError> {
    let (message, rest) = postcard::take_from_bytes(payload).map_err(FrameError::Malformed)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing { bytes: rest.len() });
    }
    Ok(message)
}

/// Sends one message, waiting until the socket has taken all of it.
///
/// # Errors
/// [`FrameError::TooLong`], or the socket's error.
pub fn send<M: sealed::Message + Serialize>(mut socket: &UnixStream, message: &M) -> Result<(), FrameError> {
    socket.write_all(&encode(message)?)?;
    Ok(())
}

/// Receives one message, waiting for it.
///
/// # Errors
/// [`FrameError::Closed`] when the other end is gone, everything that is not a message of this type otherwise.
pub fn recv<M: sealed::Message + DeserializeOwned>(mut socket: &UnixStream) -> Result<M, FrameError> {
    decode(&frame::read_payload(M::KIND, &mut socket)?)
}

/// Sends [`Request::Start`] together with the descriptor that becomes the guest's standard input.
///
/// # Errors
/// As [`send`].
pub fn send_start(
    mut socket: &UnixStream,
    spec: &SandboxSpec,
    stdin: BorrowedFd<'_>,
) -> Result<(), FrameError> {
    let bytes = encode(&Request::Start(Box::new(spec.clone())))?;
    let sent = send_with_descriptor(socket.as_fd(), &bytes, stdin)?;
    socket.write_all(&bytes[sent..])?;
    Ok(())
}

/// Sends the beginning of `bytes` with a descriptor attached, and answers how many were taken.
///
/// # Errors
/// The socket's error; on a non-blocking socket also `WouldBlock`.
pub fn send_with_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for the descriptor"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Receives [`Request::Start`] and the descriptor that came with it, and validates the spec.
///
/// # Errors
/// [`FrameError::NotAStart`] when it is another request or the descriptor is missing, [`FrameError::Spec`] when the
/// spec breaks a rule, else as [`recv`].
pub fn recv_start(socket: &UnixStream) -> Result<(SandboxSpec, OwnedFd), FrameError> {
    let mut reader = FirstDescriptor { socket, descriptor: None };
    let payload = frame::read_payload(Kind::Request, &mut reader)?;
    let (Request::Start(spec), Some(stdin)) = (decode(&payload)?, reader.descriptor) else {
        return Err(FrameError::NotAStart);
    };
    spec.validate()?;
    Ok((*spec, stdin))
}

/// Reads a socket and keeps the first descriptor that comes with the bytes. Others are closed at once.
struct FirstDescriptor<'a> {
    socket: &'a UnixStream,
    descriptor: Option<OwnedFd>,
}

impl Read for FirstDescriptor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            self.socket,
            &mut [IoSliceMut::new(buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                for descriptor in descriptors {
                    self.descriptor.get_or_insert(descriptor);
                }
            }
        }
        Ok(received.bytes)
    }
}
