//! What calls with bad input are made in: files, descriptors of each kind and memory of each kind.

use libc::*;

use super::{Arg, Data};
use crate::sys::{self, c, sys};

pub const FILE: usize = 100;
pub const DIRECTORY: usize = 101;
pub const READ_END: usize = 102;
pub const WRITE_END: usize = 103;
pub const SOCKET: usize = 104;
pub const EPOLL: usize = 105;
pub const EVENT: usize = 106;
pub const PATH: usize = 107;
pub const TIMER: usize = 108;
pub const LISTENER: usize = 109;
pub const OTHER: usize = 110;
pub const PROCESS: usize = 111;
/// The number of none.
pub const CLOSED: usize = 150;

/// Descriptors of each kind.
pub const KINDS: &[(&str, usize)] = &[
    ("file", FILE),
    ("directory", DIRECTORY),
    ("read end", READ_END),
    ("write end", WRITE_END),
    ("socket", SOCKET),
    ("epoll", EPOLL),
    ("eventfd", EVENT),
    ("O_PATH", PATH),
];

const PAGE: usize = 4096;
/// An address with much room behind it.
const HINT: usize = 1 << 36;
/// A page for each argument, and one for what an argument points to.
const SLOTS: usize = 7;

/// Memory: a page for each argument, a page that can only be read, and one that is not there.
pub struct World {
    base: usize,
}

impl World {
    pub fn new() -> World {
        // Room on both sides, so that nothing of the program's lies near.
        let whole = sys!(SYS_mmap, HINT, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0)
            .expect("address space");
        let base = whole + 16 * PAGE;
        sys!(SYS_mprotect, base, (SLOTS + 2) * PAGE, PROT_READ | PROT_WRITE).expect("memory");
        sys!(SYS_munmap, base + (SLOTS + 2) * PAGE, PAGE).expect("a hole");
        World { base }
    }

    /// Makes the memory anew, whatever became of it.
    #[allow(dead_code, reason = "the checks never harm it")]
    pub fn renew(&self) {
        let fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        let len = (SLOTS + 2) * PAGE;
        let _ = sys!(SYS_mmap, self.base, len, PROT_READ | PROT_WRITE, fixed, -1i64, 0);
        let _ = sys!(SYS_munmap, self.base + len, PAGE);
    }

    fn slot(&self, at: usize) -> usize {
        self.base + at * PAGE
    }

    pub fn unaligned(&self) -> u64 {
        (self.slot(SLOTS) + 33) as u64
    }

    pub fn read_only(&self) -> u64 {
        self.slot(SLOTS + 1) as u64
    }

    pub fn hole(&self) -> u64 {
        self.slot(SLOTS + 2) as u64
    }

    /// Two bytes before the end of memory.
    pub fn crossing(&self) -> u64 {
        self.hole() - 2
    }

    /// Makes the files and descriptors, in a child: the parent's are closed.
    pub fn set_up(&self) {
        for name in ["new", "f", "l", "h"] {
            let _ = sys!(SYS_unlink, c(name).as_ptr());
            let _ = sys!(SYS_rmdir, c(name).as_ptr());
        }
        sys::file("f", "some text in a file, of which calls read and write the beginning");
        let _ = sys!(SYS_mkdir, c"d".as_ptr(), 0o755);
        let _ = sys!(SYS_symlink, c"f".as_ptr(), c"l".as_ptr());
        let at = |wanted: usize, fd: usize| {
            sys!(SYS_dup2, fd, wanted).expect("a descriptor");
            sys::close(fd).expect("its first number");
        };
        at(FILE, sys::fd("f", O_RDWR));
        at(OTHER, sys::fd("new", O_RDWR | O_CREAT));
        let _ = sys!(SYS_unlink, c"new".as_ptr());
        at(DIRECTORY, sys::fd(".", O_RDONLY | O_DIRECTORY));
        let (read, write) = sys::pipe(O_NONBLOCK);
        at(READ_END, read);
        at(WRITE_END, write);
        let mut pair = [0i32; 2];
        let _ = sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair.as_mut_ptr());
        at(SOCKET, pair[0] as usize);
        at(EPOLL, sys!(SYS_epoll_create1, 0).expect("epoll"));
        at(EVENT, sys!(SYS_eventfd2, 1, EFD_NONBLOCK).expect("eventfd"));
        at(PATH, sys::fd("f", O_PATH));
        at(TIMER, sys!(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK).expect("timerfd"));
        let listener = sys!(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0).expect("socket");
        let address = AF_UNIX as u16;
        let _ = sys!(SYS_bind, listener, &raw const address, 2);
        let _ = sys!(SYS_listen, listener, 1);
        at(LISTENER, listener);
        at(PROCESS, sys!(SYS_pidfd_open, sys::pid(), 0).expect("pidfd"));
    }

    /// Returns the good value of the argument in place `at`, with what it points to in its page.
    pub fn good(&self, at: usize, arg: Arg) -> u64 {
        match arg {
            Arg::Fd(fd) => fd as u64,
            Arg::Len(value) | Arg::Span(value) | Arg::Offset(value) => value,
            Arg::Flags(value, _) | Arg::Num(value) | Arg::Fixed(value) => value,
            Arg::Out | Arg::Path(_) | Arg::In(_) => {
                self.put(self.slot(at), &self.bytes(arg));
                self.slot(at) as u64
            }
        }
    }

    /// Puts what an argument points to into the other kinds of memory, too.
    pub fn copy(&self, arg: Arg) {
        let bytes = self.bytes(arg);
        self.put(self.unaligned() as usize, &bytes);
        let page = self.read_only() as usize;
        let _ = sys!(SYS_mprotect, page, PAGE, PROT_READ | PROT_WRITE);
        self.put(page, &bytes);
        self.put(self.crossing() as usize, b"xx");
        let _ = sys!(SYS_mprotect, page, PAGE, PROT_READ);
    }

    fn bytes(&self, arg: Arg) -> Vec<u8> {
        match arg {
            Arg::Out => vec![0; 256],
            Arg::Path(name) => [name.as_bytes(), b"\0"].concat(),
            Arg::In(data) => self.words(data).iter().flat_map(|word| word.to_ne_bytes()).collect(),
            _ => Vec::new(),
        }
    }

    fn words(&self, data: Data) -> Vec<u64> {
        let buffer = self.slot(6) as u64;
        let pieces = [buffer, 8, buffer + 8, 16];
        match data {
            Data::Words(words) => words.to_vec(),
            Data::Iovec => pieces.to_vec(),
            Data::Message => {
                self.put(buffer as usize + 64, &pieces.map(u64::to_ne_bytes).concat());
                vec![0, 0, buffer + 64, 2, 0, 0, 0, 0]
            }
        }
    }

    fn put(&self, address: usize, bytes: &[u8]) {
        assert!(address >= self.base && address + bytes.len() <= self.hole() as usize);
        // SAFETY: it lies in this world's memory, which nothing else refers to and which can be written now.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    }
}
