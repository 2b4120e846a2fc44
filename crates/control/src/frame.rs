//! The envelope of a message on the control socket.
//!
//! ```text
//!   offset  size  field (little endian)
//!   0       4     magic "LGc\x01"
//!   4       2     version
//!   6       2     kind: 1 request, 2 event
//!   8       4     length of the payload in bytes, at most MAX_PAYLOAD_BYTES
//!   12      ...   payload, postcard
//! ```

use std::io;

/// The version of frames and payloads. It changes with every change of either.
pub const VERSION: u16 = 5;
/// The longest payload in bytes: the longest arguments and environment, with room for the rest.
pub const MAX_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;
/// The length of the header in bytes.
pub const HEADER_BYTES: usize = 12;

const MAGIC: [u8; 4] = *b"LGc\x01";

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the runtime to the vmm.
    Request,
    /// From the vmm to the runtime.
    Event,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Event => 2,
        }
    }
}

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The other end closed the socket between two frames.
    #[error("the other end closed the control socket")]
    Closed,
    /// The socket ended inside a frame.
    #[error("the control socket ended in the middle of a message")]
    Truncated,
    /// The first bytes are not those of a frame.
    #[error("the control socket carries something else than messages")]
    BadMagic,
    /// The other end speaks another version.
    #[error("message of version {theirs}, this binary speaks {VERSION}: start both ends from one binary")]
    Version {
        /// The version of the frame.
        theirs: u16,
    },
    /// A request came where an event was expected, the other way round, or neither.
    #[error("unexpected kind of message: {code}")]
    Kind {
        /// The code in the frame.
        code: u16,
    },
    /// The payload is longer than [`MAX_PAYLOAD_BYTES`].
    #[error("message of {bytes} bytes: at most {MAX_PAYLOAD_BYTES} are possible")]
    TooLong {
        /// The length in bytes.
        bytes: usize,
    },
    /// The payload is not a message.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the message inside its frame.
    #[error("{bytes} bytes after the end of a message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A request came without the descriptors that it needs.
    #[error("a request needs {wanted} descriptors and came with {came}")]
    Descriptors {
        /// How many it needs.
        wanted: usize,
        /// How many came.
        came: usize,
    },
    /// The other end did what the protocol does not let it.
    #[error("the other end of the control socket sent {what}")]
    Unexpected {
        /// What it sent.
        what: &'static str,
    },
    /// The first request was not [`crate::Request::Start`].
    #[error("the first message does not start a sandbox")]
    NotAStart,
    /// The spec in the message is not valid.
    #[error("the spec is not valid")]
    Spec(#[from] crate::SpecError),
    /// The socket failed.
    #[error("the control socket failed")]
    Io(#[from] io::Error),
}

/// The header for a payload of `len` bytes.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn header(kind: Kind, len: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    if len > MAX_PAYLOAD_BYTES {
        return Err(FrameError::TooLong { bytes: len });
    }
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[6..8].copy_from_slice(&kind.code().to_le_bytes());
    // The cast keeps the value: MAX_PAYLOAD_BYTES is far below u32::MAX.
    bytes[8..].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// Checks a header and answers the length of its payload in bytes.
///
/// # Errors
/// Whatever makes it another thing than a header of `kind`.
pub fn parse_header(kind: Kind, bytes: &[u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    let [m0, m1, m2, m3, v0, v1, k0, k1, l0, l1, l2, l3] = *bytes;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(FrameError::BadMagic);
    }
    let theirs = u16::from_le_bytes([v0, v1]);
    if theirs != VERSION {
        return Err(FrameError::Version { theirs });
    }
    let code = u16::from_le_bytes([k0, k1]);
    if code != kind.code() {
        return Err(FrameError::Kind { code });
    }
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len > MAX_PAYLOAD_BYTES {
        return Err(FrameError::TooLong { bytes: len });
    }
    Ok(len)
}
