//! Several pieces of memory as one stretch of bytes (readv(2)).

use super::UserMemory;

/// A part of user memory to be filled or written.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Where it begins.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// Where bytes are stored one after the other.
pub trait Sink {
    /// Returns how many bytes there is room for.
    fn room(&self) -> usize;

    /// Stores `data`, which is not more than there is room for, as far as that goes, and returns how far.
    fn put(&mut self, data: &[u8]) -> usize;
}

/// Where bytes are taken from one after the other.
pub trait Source {
    /// Returns how many bytes are left.
    fn left(&self) -> usize;

    /// Fills `buf`, which is not more than is left, as far as that goes, and returns how far.
    fn take(&mut self, buf: &mut [u8]) -> usize;
}

/// The buffers of a vectored call. Each byte is taken or stored once, from the first buffer to the last.
pub struct UserBuffers {
    user: UserMemory,
    spans: Vec<Span>,
    total: u64,
    done: u64,
    /// The span that comes next, and how much of it is done.
    at: (usize, u64),
}

impl UserBuffers {
    /// Returns these parts of a process's memory.
    pub fn new(user: UserMemory, spans: Vec<Span>) -> UserBuffers {
        let total = spans.iter().fold(0u64, |sum, span| sum.saturating_add(span.len));
        UserBuffers { user, spans, total, done: 0, at: (0, 0) }
    }

    /// Returns the length of all buffers together.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Passes over bytes that earlier tries of a call have moved.
    pub fn skip(&mut self, bytes: u64) {
        let mut left = bytes.min(self.total - self.done);
        while left > 0 {
            let Some((_, len)) = self.piece() else { break };
            let step = len.min(left);
            self.advance(step);
            left -= step;
        }
    }

    /// Returns the address and the length of the rest of the buffer that comes next.
    fn piece(&mut self) -> Option<(u64, u64)> {
        loop {
            let (index, within) = self.at;
            let span = self.spans.get(index)?;
            if within < span.len {
                return Some((span.addr.wrapping_add(within), span.len - within));
            }
            self.at = (index + 1, 0);
        }
    }

    fn advance(&mut self, by: u64) {
        self.at.1 += by;
        self.done += by;
    }

    fn remaining(&self) -> usize {
        usize::try_from(self.total - self.done).unwrap_or(usize::MAX)
    }

    /// Goes through the next `len` bytes: `step` gets the address and the range of each piece, and says how much
    /// of it could be done.
    fn walk(
        &mut self,
        len: usize,
        mut step: impl FnMut(&UserMemory, u64, std::ops::Range<usize>) -> usize,
    ) -> usize {
        let mut done = 0;
        while done < len {
            let Some((addr, piece)) = self.piece() else { break };
            let want = usize::try_from(piece).unwrap_or(usize::MAX).min(len - done);
            let got = step(&self.user, addr, done..done + want);
            self.advance(got as u64);
            done += got;
            if got < want {
                break;
            }
        }
        done
    }
}

impl Sink for UserBuffers {
    fn room(&self) -> usize {
        self.remaining()
    }

    fn put(&mut self, data: &[u8]) -> usize {
        self.walk(data.len(), |user, addr, range| user.write_partial(addr, &data[range]))
    }
}

impl Source for UserBuffers {
    fn left(&self) -> usize {
        self.remaining()
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        self.walk(buf.len(), |user, addr, range| user.read_partial(addr, &mut buf[range]))
    }
}

impl Sink for &mut [u8] {
    fn room(&self) -> usize {
        self.len()
    }

    fn put(&mut self, data: &[u8]) -> usize {
        let len = data.len().min(self.len());
        let (now, rest) = std::mem::take(self).split_at_mut(len);
        now.copy_from_slice(&data[..len]);
        *self = rest;
        len
    }
}

impl Source for &[u8] {
    fn left(&self) -> usize {
        self.len()
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let len = buf.len().min(self.len());
        let (now, rest) = self.split_at(len);
        buf[..len].copy_from_slice(now);
        *self = rest;
        len
    }
}
