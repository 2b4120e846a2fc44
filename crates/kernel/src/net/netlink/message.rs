//! The messages of netlink(7): headers, and attributes after them (netlink(3), rtnetlink(3)).

use lg_abi::Errno;

/// The length of a `struct nlmsghdr`, and of the header of an attribute, in bytes.
pub const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// Messages and attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Flags of a message (linux/netlink.h).
pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_MULTI: u16 = 2;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_DUMP_FILTERED: u16 = 0x20;
/// NLM_F_ROOT and NLM_F_MATCH
pub const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CAPPED: u16 = 0x100;

/// Types of messages that all families have.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The first type that is a family's own.
pub const NLMSG_MIN_TYPE: u16 = 16;

/// A message that was received.
pub struct Request<'m> {
    pub kind: u16,
    pub flags: u16,
    sequence: u32,
    /// The message with its header.
    whole: &'m [u8],
}

impl<'m> Request<'m> {
    /// Returns what follows the header.
    pub fn body(&self) -> &'m [u8] {
        &self.whole[HEADER..]
    }

    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// Cuts what was sent in messages, up to the first whose length can not be.
pub fn requests(mut bytes: &[u8]) -> impl Iterator<Item = Request<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(word(bytes, 0)?).ok()?;
        let whole = bytes.get(..len).filter(|whole| whole.len() >= HEADER)?;
        let request =
            Request { kind: half(whole, 4)?, flags: half(whole, 6)?, sequence: word(whole, 8)?, whole };
        bytes = bytes.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(request)
    })
}

/// Returns the data of the last attribute of a kind among those in `bytes`. What is left after the last whole one is
/// passed over, as by Linux where requests are not checked strictly.
pub fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut found = None;
    while let (Some(len), Some(this)) = (half(bytes, 0), half(bytes, 2)) {
        let Some(data) = bytes.get(ATTRIBUTE_HEADER..usize::from(len)) else { break };
        if this == kind {
            found = Some(data);
        }
        bytes = bytes.get(usize::from(len).next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    found
}

/// A message that is being written.
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Returns a message of `kind` to `port`, in answer to a request.
    pub fn answer(request: &Request<'_>, port: u32, kind: u16, flags: u16) -> Message {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(request.sequence.to_ne_bytes());
        bytes.extend(port.to_ne_bytes());
        Message { bytes }
    }

    /// Adds bytes, with padding.
    pub fn bytes(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// Adds attributes.
    pub fn attributes(self, attributes: &[(u16, Vec<u8>)]) -> Message {
        attributes.iter().fold(self, |message, (kind, data)| {
            let len = u16::try_from(ATTRIBUTE_HEADER + data.len()).unwrap_or(u16::MAX);
            message.bytes(&[&len.to_ne_bytes(), &kind.to_ne_bytes(), data.as_slice()].concat())
        })
    }

    /// Returns the message, with its length.
    pub fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }
}

/// Returns the message that ends several, with how that went (NLMSG_DONE).
pub fn done(request: &Request<'_>, port: u32, flags: u16, result: Result<(), Errno>) -> Vec<u8> {
    let errno = result.err().map_or(0, Errno::number);
    let message = Message::answer(request, port, NLMSG_DONE, NLM_F_MULTI | flags);
    message.bytes(&(-errno).to_ne_bytes()).finish()
}

/// Returns the message that tells how a request went (NLMSG_ERROR). It repeats the request where that failed, or only
/// its header with `is_capped`.
pub fn outcome(request: &Request<'_>, port: u32, result: Result<(), Errno>, is_capped: bool) -> Vec<u8> {
    let errno = result.err().map_or(0, Errno::number);
    let (told, flags) =
        if errno == 0 || is_capped { (&request.whole[..HEADER], NLM_F_CAPPED) } else { (request.whole, 0) };
    let message = Message::answer(request, port, NLMSG_ERROR, flags);
    message.bytes(&(-errno).to_ne_bytes()).bytes(told).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(len: u32, body: &[u8]) -> Vec<u8> {
        [&len.to_ne_bytes()[..], &18u16.to_ne_bytes(), &[1, 0], &7u32.to_ne_bytes(), &[0; 4], body].concat()
    }

    #[test]
    fn messages_end_at_the_first_length_that_can_not_be() {
        let two = [raw(17, &[9, 0, 0, 0]), raw(16, &[])].concat();
        let bodies: Vec<&[u8]> = requests(&two).map(|request| request.body()).collect();
        assert_eq!(bodies, [&[9][..], &[]]);
        for len in [0, 15, 21, u32::MAX] {
            assert_eq!(requests(&raw(len, &[0; 4])).count(), 0, "a length of {len}");
        }
        assert_eq!(requests(&[]).count() + requests(&[1, 0]).count(), 0);
    }

    #[test]
    fn the_last_attribute_of_a_kind_counts_and_lies_end_the_search() {
        let bytes = [5, 0, 3, 0, 1, 0, 0, 0, 5, 0, 3, 0, 2, 0, 0, 0];
        assert_eq!(attribute(&bytes, 3), Some(&[2][..]));
        assert_eq!(attribute(&bytes, 4), None);
        for len in [0, 3, 200] {
            assert_eq!(attribute(&[len, 0, 3, 0, 1, 0, 0, 0], 3), None, "a length of {len}");
        }
    }

    #[test]
    fn an_error_repeats_the_request_unless_it_is_capped() {
        let bytes = raw(20, &[1, 2, 3, 4]);
        let request = requests(&bytes).next().expect("a message");
        assert_eq!(outcome(&request, 5, Err(Errno::EPERM), false).len(), HEADER + 4 + 20);
        assert_eq!(outcome(&request, 5, Err(Errno::EPERM), true).len(), HEADER + 4 + HEADER);
        assert_eq!(outcome(&request, 5, Ok(()), false).len(), HEADER + 4 + HEADER);
    }
}
