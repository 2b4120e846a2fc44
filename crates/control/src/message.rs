//! The messages themselves, and the functions that send and receive them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::frame::{self, FrameError, HEADER_BYTES, Kind, MAX_PAYLOAD_BYTES};
use crate::operation::{Fault, ForkSpec, Program, Reply, SignalScope, Terminal, WriteMode};
use crate::{Limits, Report, SandboxSpec};

/// The most descriptors that come with one message.
pub const MAX_DESCRIPTORS: usize = 16;

/// The most bytes of a stream or a file that one message carries.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;

/// How many bytes of one stream the vmm sends before the runtime says that it has taken some
/// ([`Request::Taken`]).
pub const STREAM_WINDOW_BYTES: usize = 256 * 1024;

/// A request with its number. The vmm answers it with [`Event::Reply`] of the same number; number 0 wants no reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the runtime.
    pub id: u32,
    /// What is asked for.
    pub request: Request,
}

/// From the runtime to the vmm. Paths are absolute, in the guest, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Builds the VM. The first request, once. With a command in the spec its program runs, with the three
    /// descriptors that come along as its standard streams, and the sandbox ends with it; without one nothing
    /// runs yet, and no descriptors come along.
    Start(Box<SandboxSpec>),
    /// Launches a program, with a descriptor for each [`crate::Stdio::Descriptor`].
    Exec(Box<Program>),
    /// Writes to a stream that is [`crate::Stdio::In`], or types at a terminal. The reply comes when all of it is in the
    /// pipe or was taken by the terminal.
    WriteStream {
        /// The program's process.
        process: u32,
        /// Its descriptor.
        fd: u32,
        /// At most [`MAX_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    /// Closes a stream that is [`crate::Stdio::In`], once everything before is in the pipe.
    CloseStream {
        /// The program's process.
        process: u32,
        /// Its descriptor.
        fd: u32,
    },
    /// Changes the size of a terminal ([`crate::Stdio::Terminal`]); its foreground process group gets SIGWINCH.
    ResizeTerminal {
        /// The program's process.
        process: u32,
        /// Its descriptor.
        fd: u32,
        /// The new size.
        terminal: Terminal,
    },
    /// Says that so many bytes of a stream have been taken: the vmm may send as many more.
    Taken {
        /// The program's process.
        process: u32,
        /// Its descriptor.
        fd: u32,
        /// How many.
        bytes: u32,
    },
    /// Sends a signal, by its Linux number.
    Signal {
        /// To whom; `None` is the program that the sandbox ends with.
        process: Option<u32>,
        /// The number.
        signal: u8,
        /// To whom else.
        scope: SignalScope,
    },
    /// Reads a chunk of a regular file: [`Reply::Bytes`], shorter than asked for only at its end.
    ReadFile {
        /// The file.
        path: Vec<u8>,
        /// Where to begin.
        offset: u64,
        /// How much, at most [`MAX_CHUNK_BYTES`].
        len: u32,
    },
    /// Writes a chunk of a regular file.
    WriteFile {
        /// The file.
        path: Vec<u8>,
        /// Where to begin.
        offset: u64,
        /// At most [`MAX_CHUNK_BYTES`].
        bytes: Vec<u8>,
        /// Whether it may or must be there.
        mode: WriteMode,
        /// The permission bits of a new file.
        permissions: u32,
    },
    /// Tells of a file: [`Reply::File`].
    StatFile {
        /// The file; a last link is not followed.
        path: Vec<u8>,
    },
    /// Lists a directory: [`Reply::Entries`].
    ListDir {
        /// The directory.
        path: Vec<u8>,
        /// 0, or where an earlier reply said to go on.
        cursor: u64,
    },
    /// Makes a directory.
    MakeDir {
        /// The directory.
        path: Vec<u8>,
        /// Its permission bits.
        permissions: u32,
        /// Whether missing ones above are made too; then one that is there is fine.
        parents: bool,
    },
    /// Removes a file or a directory.
    Remove {
        /// What.
        path: Vec<u8>,
        /// Whether a directory goes with all that is in it.
        recursive: bool,
    },
    /// Gives a file another name, which must be free.
    Rename {
        /// The old name.
        from: Vec<u8>,
        /// The new name.
        to: Vec<u8>,
    },
    /// Lists the processes: [`Reply::Processes`].
    ListProcesses,
    /// Tells what the sandbox has used so far: [`Reply::Stats`].
    Stats,
    /// Stops all guest code, and the guest's clocks, until [`Request::Resume`].
    Pause,
    /// Lets guest code go on.
    Resume,
    /// Sets the limits that are given; the others stay. Time and processor time count from now. When one cannot be had, nothing
    /// changes, and the fault is of the kind [`crate::FaultKind::Limit`].
    SetLimits(Limits),
    /// Sets the host name.
    SetHostname(String),
    /// Begins a rehearsal of what forks will do first. Memory that is touched from here until [`Request::Freeze`] is made
    /// ready in each fork.
    Rehearse,
    /// Makes the sandbox a template: guest code never runs again here, and forks share its memory:
    /// [`Reply::Frozen`].
    Freeze,
    /// Forks the sandbox. The descriptor that comes along is the child's control socket. Success is told there, by
    /// [`Event::Ready`]; a failure there too, by [`Event::Ended`].
    Fork(Box<ForkSpec>),
    /// Ends the sandbox now, whatever its programs do.
    Kill,
}

impl Request {
    /// How many descriptors come along with it.
    pub fn descriptors(&self) -> usize {
        match self {
            Request::Start(spec) if !spec.command.is_empty() => 3,
            Request::Exec(program) => program.descriptors(),
            Request::Fork(_) => 1,
            _ => 0,
        }
    }
}

/// From the vmm to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The sandbox is there: the next thing to run is guest code.
    Ready {
        /// From the start of the vmm's work, or from the fork, until now, in nanoseconds.
        spawn_ns: u64,
    },
    /// The answer to a call.
    Reply {
        /// The call's number.
        id: u32,
        /// What came of it.
        result: Result<Reply, Fault>,
    },
    /// What a program wrote to a stream that is [`crate::Stdio::Out`] or [`crate::Stdio::Terminal`]. No bytes: the end.
    Output {
        /// The program's process.
        process: u32,
        /// Its descriptor.
        fd: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A program that was launched has ended. All that it wrote was sent before.
    Exited {
        /// Its process.
        process: u32,
        /// How it ended.
        status: crate::ExitStatus,
    },
    /// The sandbox is over. The last event; the process exits after it.
    Ended(Box<Report>),
}

mod sealed {
    pub trait Message {
        const KIND: super::Kind;
    }

    impl Message for super::Call {
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
    let mut bytes = Vec::new();
    encode_into(message, &mut bytes)?;
    Ok(bytes)
}

/// Appends the bytes of one message, header included, to `bytes`, which stays as it was on an error.
///
/// # Errors
/// As [`encode`].
pub fn encode_into<M: sealed::Message + Serialize>(
    message: &M,
    bytes: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let start = bytes.len();
    bytes.resize(start + HEADER_BYTES, 0);
    let mut extended = postcard::to_extend(message, std::mem::take(bytes)).map_err(FrameError::Malformed)?;
    let header = frame::header(M::KIND, extended.len() - start - HEADER_BYTES);
    match header {
        Ok(header) => extended[start..start + HEADER_BYTES].copy_from_slice(&header),
        Err(error) => {
            extended.truncate(start);
            *bytes = extended;
            return Err(error);
        }
    }
    *bytes = extended;
    Ok(())
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

/// Sends one message with descriptors, waiting until the socket has taken all of it.
///
/// # Errors
/// As [`send`].
pub fn send_with(
    mut socket: &UnixStream,
    call: &Call,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), FrameError> {
    let bytes = encode(call)?;
    let sent = send_with_descriptors(socket.as_fd(), &bytes, descriptors)?;
    socket.write_all(&bytes[sent..])?;
    Ok(())
}

/// Sends the beginning of `bytes` with descriptors attached, and answers how many bytes were taken.
///
/// # Errors
/// The socket's error; on a non-blocking socket also `WouldBlock`.
pub fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// What has arrived on a control socket and is not yet taken: bytes, and the descriptors that came with them.
///
/// Descriptors keep the order of the messages they came with, so a message takes as many from the front as
/// [`Request::descriptors`] says.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where the first message that was not taken begins.
    start: usize,
    descriptors: VecDeque<OwnedFd>,
    sender: Option<u32>,
}

/// How [`Inbox::fill`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Until something arrives.
    Blocks,
    /// Not at all: `WouldBlock` where nothing is there.
    Never,
}

impl Inbox {
    /// Receives once from the socket. 0 is its end.
    ///
    /// # Errors
    /// The socket's error; `InvalidData` when more descriptors arrive than any message has.
    pub fn fill(&mut self, socket: BorrowedFd<'_>, waiting: Waiting) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let used = self.bytes.len();
        // Doubles as bytes arrive, so that a header alone cannot claim memory.
        self.bytes.resize(used + used.clamp(4096, MAX_PAYLOAD_BYTES), 0);
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = match waiting {
            Waiting::Blocks => RecvFlags::CMSG_CLOEXEC,
            Waiting::Never => RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        };
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut self.bytes[used..])];
            match rustix::net::recvmsg(socket, &mut buffers, &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result.map(|received| received.bytes),
            }
        };
        self.bytes.truncate(used + received.unwrap_or(0));
        for message in ancillary.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(descriptors) => self.descriptors.extend(descriptors),
                RecvAncillaryMessage::ScmCredentials(credentials) => {
                    self.sender = Some(credentials.pid.as_raw_nonzero().get().cast_unsigned());
                }
                _ => {}
            }
        }
        if self.descriptors.len() > 4 * MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors without messages"));
        }
        Ok(received?)
    }

    /// The process that sent what arrived last, as the host's kernel says it: known once the socket has
    /// [`tell_senders`] set.
    pub fn sender(&self) -> Option<u32> {
        self.sender
    }

    /// Takes the next message, if all of it is there.
    ///
    /// # Errors
    /// Whatever makes it another thing than a message of this type.
    pub fn take<M: sealed::Message + DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let waiting = &self.bytes[self.start..];
        let Some(header) = waiting.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let end = HEADER_BYTES + frame::parse_header(M::KIND, header)?;
        let Some(payload) = waiting.get(HEADER_BYTES..end) else { return Ok(None) };
        let message = decode(payload)?;
        self.start += end;
        Ok(Some(message))
    }

    /// Takes the next call together with its descriptors, if all of it is there.
    ///
    /// # Errors
    /// As [`Inbox::take`]; [`FrameError::Descriptors`] when there are fewer than it needs.
    pub fn take_call(&mut self) -> Result<Option<(Call, Vec<OwnedFd>)>, FrameError> {
        let Some(call) = self.take::<Call>()? else { return Ok(None) };
        let wanted = call.request.descriptors();
        if wanted > self.descriptors.len() {
            return Err(FrameError::Descriptors { wanted, came: self.descriptors.len() });
        }
        Ok(Some((call, self.descriptors.drain(..wanted).collect())))
    }

    /// What the end of the socket means here.
    pub fn end(&self) -> FrameError {
        if self.start == self.bytes.len() { FrameError::Closed } else { FrameError::Truncated }
    }
}

/// Makes the host's kernel say of everything that arrives which process sent it (SO_PASSCRED, unix(7)).
///
/// # Errors
/// The socket's error.
pub fn tell_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_passcred(socket, true)?)
}

/// Receives one message, waiting for it.
///
/// # Errors
/// [`FrameError::Closed`] when the other end is gone, everything that is not a message of this type otherwise.
pub fn recv<M: sealed::Message + DeserializeOwned>(
    socket: &UnixStream,
    inbox: &mut Inbox,
) -> Result<M, FrameError> {
    loop {
        if let Some(message) = inbox.take()? {
            return Ok(message);
        }
        fill_or_fail(socket, inbox)?;
    }
}

/// Receives [`Request::Start`] and the descriptors that came with it, and validates the spec.
///
/// # Errors
/// [`FrameError::NotAStart`] when it is another request, [`FrameError::Spec`] when the spec breaks a rule, else as
/// [`recv`].
pub fn recv_start(socket: &UnixStream, inbox: &mut Inbox) -> Result<(SandboxSpec, Vec<OwnedFd>), FrameError> {
    loop {
        if let Some((call, descriptors)) = inbox.take_call()? {
            let Request::Start(spec) = call.request else { return Err(FrameError::NotAStart) };
            spec.validate_with(spec.runs())?;
            return Ok((*spec, descriptors));
        }
        fill_or_fail(socket, inbox)?;
    }
}

fn fill_or_fail(socket: &UnixStream, inbox: &mut Inbox) -> Result<(), FrameError> {
    match inbox.fill(socket.as_fd(), Waiting::Blocks) {
        Ok(0) => Err(inbox.end()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(inbox.end()),
        Err(error) => Err(error.into()),
    }
}
