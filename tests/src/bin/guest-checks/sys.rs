//! System calls without a wrapper's opinion, and small helpers for the checks.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use nix::errno::Errno;

/// What a system call answers.
pub type Answer = Result<usize, Errno>;

/// Makes a system call.
///
/// It is not `unsafe` to call although a wrong argument is undefined behaviour: wrong arguments are what this
/// program is about, and nothing but itself can come to harm.
pub fn raw(number: i64, given: &[usize]) -> Answer {
    let mut args = [0; 6];
    args[..given.len()].copy_from_slice(given);
    // SAFETY: see above: each check passes buffers that live until the call returns, or addresses that the
    // kernel must refuse.
    let value = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if value == -1 { Err(Errno::last()) } else { Ok(value as usize) }
}

/// `sys!(SYS_read, fd, buffer, len)`: a system call with its arguments as they are.
macro_rules! sys {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        // One expression, so that a path made on the spot lives until the call returns.
        $crate::sys::raw($number, &[$($arg as usize),*])
    };
}
pub(crate) use sys;

/// A path as the kernel wants it.
pub fn c(path: &str) -> CString {
    CString::new(path).expect("no NUL in a path")
}

/// open(2) with mode 0644.
pub fn open(path: &str, flags: i32) -> Answer {
    open_mode(path, flags, 0o644)
}

/// open(2).
pub fn open_mode(path: &str, flags: i32, mode: u32) -> Answer {
    sys!(libc::SYS_open, c(path).as_ptr(), flags, mode)
}

/// open(2) of what must be there, or must be creatable.
#[track_caller]
pub fn fd(path: &str, flags: i32) -> usize {
    open(path, flags).expect("a file can be opened")
}

/// close(2).
pub fn close(fd: usize) -> Answer {
    sys!(libc::SYS_close, fd)
}

/// write(2).
pub fn write(fd: usize, bytes: &[u8]) -> Answer {
    sys!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// read(2) of at most `len` bytes, as text.
pub fn read(fd: usize, len: usize) -> Result<String, Errno> {
    let mut bytes = vec![0; len];
    let count = sys!(libc::SYS_read, fd, bytes.as_mut_ptr(), len)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).replace('\0', "."))
}

/// pread(2) of at most `len` bytes, as text.
pub fn pread(fd: usize, len: usize, offset: usize) -> Result<String, Errno> {
    let mut bytes = vec![0; len];
    let count = sys!(libc::SYS_pread64, fd, bytes.as_mut_ptr(), len, offset)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).replace('\0', "."))
}

/// lseek(2).
pub fn seek(fd: usize, offset: i64, whence: i32) -> Answer {
    sys!(libc::SYS_lseek, fd, offset, whence)
}

/// Makes a file with this text.
#[track_caller]
pub fn file(path: &str, text: &str) {
    std::fs::write(path, text).expect("a file can be written");
}

/// The whole of a file, as text.
pub fn text(path: &str) -> Result<String, Errno> {
    let fd = open(path, libc::O_RDONLY)?;
    let answer = read(fd, 1 << 16);
    close(fd)?;
    answer
}

/// A structure of zeros.
pub fn zeroed<T: Copy>() -> T {
    // SAFETY: used for the C structures of system calls only, all of integers and addresses, for which zero
    // is a value.
    unsafe { std::mem::zeroed() }
}

/// fstat(2).
pub fn fstat(fd: usize) -> Result<libc::stat, Errno> {
    let mut stat: libc::stat = zeroed();
    sys!(libc::SYS_fstat, fd, &raw mut stat)?;
    Ok(stat)
}

/// stat(2).
pub fn stat(path: &str) -> Result<libc::stat, Errno> {
    let mut stat: libc::stat = zeroed();
    sys!(libc::SYS_stat, c(path).as_ptr(), &raw mut stat)?;
    Ok(stat)
}

/// lstat(2).
pub fn lstat(path: &str) -> Result<libc::stat, Errno> {
    let mut stat: libc::stat = zeroed();
    sys!(libc::SYS_lstat, c(path).as_ptr(), &raw mut stat)?;
    Ok(stat)
}

/// Both ends of a new pipe: to read from, to write to.
pub fn pipe(flags: i32) -> (usize, usize) {
    let mut fds = [0i32; 2];
    sys!(libc::SYS_pipe2, fds.as_mut_ptr(), flags).expect("a pipe can be made");
    (fds[0] as usize, fds[1] as usize)
}

/// Runs `body` in a child process, whose exit status it answers, and returns the child's number.
pub fn child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the checks that fork have one thread, so the child may do all that its parent could.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", Errno::last()),
        0 => {
            let status = body();
            exit(status)
        }
        pid => pid,
    }
}

/// _exit(2): without the handlers and buffers of the library, which are the parent's.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// How a child ended, in words.
pub fn wait(pid: i32) -> String {
    let mut status = 0i32;
    loop {
        match sys!(libc::SYS_wait4, pid, &raw mut status, 0, 0) {
            Ok(_) => return describe(status),
            Err(Errno::EINTR) => {}
            Err(errno) => return format!("{errno:?}"),
        }
    }
}

/// A wait status in words.
pub fn describe(status: i32) -> String {
    if libc::WIFEXITED(status) {
        format!("exited {}", libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        format!("killed by {}", libc::WTERMSIG(status))
    } else if libc::WIFSTOPPED(status) {
        format!("stopped by {}", libc::WSTOPSIG(status))
    } else if libc::WIFCONTINUED(status) {
        "continued".to_owned()
    } else {
        format!("status {status:#x}")
    }
}

/// Runs `body` in a child and says how that ended.
pub fn ends(body: impl FnOnce() -> i32) -> String {
    let pid = child(body);
    wait(pid)
}

/// kill(2).
pub fn kill(pid: i32, signal: i32) -> Answer {
    sys!(libc::SYS_kill, pid, signal)
}

/// getpid(2).
pub fn pid() -> i32 {
    sys!(libc::SYS_getpid).expect("getpid can not fail") as i32
}

/// Sleeps, whatever signals come.
pub fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Waits until `holds` does, for ten seconds at most, and says whether it does.
pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > Duration::from_secs(10) {
            return false;
        }
        sleep_ms(2);
    }
    true
}

/// Computes until `holds` does, for ten seconds at most, and says whether it does.
pub fn eventually_busy(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > Duration::from_secs(10) {
            return false;
        }
        (0..10_000u64).for_each(|number| {
            std::hint::black_box(number);
        });
    }
    true
}

/// Puts the process into the state that checks expect, whatever it inherited.
pub fn start_afresh() {
    // SAFETY: no handler is involved, and umask takes any number.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::umask(0o022);
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    // What is left open by whoever started this.
    let _ = sys!(libc::SYS_close_range, 3, u32::MAX, 0);
}

/// Makes a directory for a check, goes there and returns its path.
pub fn enter_new_directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(format!("/tmp/guest-checks-{}-{name}", std::process::id()));
    std::fs::create_dir(&directory).expect("/tmp can be written");
    std::env::set_current_dir(&directory).expect("a new directory can be entered");
    directory
}

/// Loads a byte of memory.
pub fn peek(at: usize) -> u8 {
    // SAFETY: the checks pass addresses that are mapped readable, or run in a child that may die.
    unsafe { (at as *const u8).read_volatile() }
}

/// Stores a byte to memory.
pub fn poke(at: usize, value: u8) {
    // SAFETY: the checks pass addresses that are mapped writable, or run in a child that may die.
    unsafe { (at as *mut u8).write_volatile(value) };
}

/// How a process ends that does this.
pub fn fate(body: impl FnOnce()) -> String {
    ends(|| {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        sys!(libc::SYS_setrlimit, libc::RLIMIT_CORE, &raw const none).unwrap();
        body();
        0
    })
}

/// Runs `body` as an ordinary user, where that is possible, and returns what it answers.
pub fn as_nobody(body: impl FnOnce() -> String) -> String {
    let (reader, writer) = pipe(0);
    let pid = child(|| {
        let groups: [u32; 0] = [];
        let _ = sys!(libc::SYS_setgroups, 0, groups.as_ptr());
        let _ = sys!(libc::SYS_setresgid, 1234, 1234, 1234);
        let _ = sys!(libc::SYS_setresuid, 1234, 1234, 1234);
        let text = body();
        write(writer, text.as_bytes()).unwrap();
        0
    });
    wait(pid);
    read(reader, 4096).unwrap()
}
