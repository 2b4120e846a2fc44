//! A system call and its arguments, as the tables have them.

/// An argument: its good value, and which bad ones there are.
#[derive(Clone, Copy)]
pub enum Arg {
    /// A descriptor of the `World`.
    Fd(usize),
    /// Memory that the call reads, with what lies in it.
    In(Data),
    /// Memory that the call writes.
    Out,
    /// The name of a file in the current directory.
    Path(&'static str),
    /// A length.
    Len(u64),
    /// The length of a piece of address space, which must not reach what the program lives in.
    Span(u64),
    /// A position in a file.
    Offset(u64),
    /// Bits: the good value, and all that the call knows.
    Flags(u64, u64),
    /// A number of 32 bits.
    Num(u64),
    /// What is always good: a number whose wrong values have checks of their own, or would hurt.
    Fixed(u64),
}

/// What lies in memory that a call reads.
#[derive(Clone, Copy)]
pub enum Data {
    /// These words.
    Words(&'static [u64]),
    /// Two pieces of memory (`struct iovec`).
    Iovec,
    /// A message with these pieces (`struct msghdr`, or the first of `struct mmsghdr`).
    Message,
}

/// A system call with its arguments.
pub struct Call {
    pub name: &'static str,
    pub number: i64,
    pub args: &'static [Arg],
}
