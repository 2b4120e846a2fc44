//! The runtime's end of the control socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use lg_control::frame::{self, HEADER_BYTES, Kind};
use lg_control::{Event, FrameError, Request, SandboxSpec, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Events come in here, requests go out. Receiving is cancel safe: a half-received event stays.
#[derive(Debug)]
pub(crate) struct Control {
    socket: UnixStream,
    received: Vec<u8>,
}

impl Control {
    /// A connected pair: this end, and the descriptor for the vmm.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self { socket: UnixStream::from_std(ours)?, received: Vec::new() }, theirs.into()))
    }

    /// Sends the spec with the guest's standard input.
    pub(crate) async fn send_start(&mut self, spec: &SandboxSpec, stdin: OwnedFd) -> Result<(), FrameError> {
        let bytes = encode(&Request::Start(Box::new(spec.clone())))?;
        let socket = &self.socket;
        let sent = socket
            .async_io(Interest::WRITABLE, || {
                lg_control::send_with_descriptor(socket.as_fd(), &bytes, stdin.as_fd())
            })
            .await?;
        drop(stdin);
        self.socket.write_all(&bytes[sent..]).await?;
        Ok(())
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), FrameError> {
        self.socket.write_all(&encode(request)?).await?;
        Ok(())
    }

    /// Receives the next event.
    pub(crate) async fn recv(&mut self) -> Result<Event, FrameError> {
        loop {
            if let Some(header) = self.received.first_chunk::<HEADER_BYTES>() {
                let end = HEADER_BYTES + frame::parse_header(Kind::Event, header)?;
                if let Some(payload) = self.received.get(HEADER_BYTES..end) {
                    let event = decode(payload)?;
                    self.received.drain(..end);
                    return Ok(event);
                }
            }
            match self.socket.read_buf(&mut self.received).await {
                Ok(0) if self.received.is_empty() => return Err(FrameError::Closed),
                Ok(0) => return Err(FrameError::Truncated),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(FrameError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
