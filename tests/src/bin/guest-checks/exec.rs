//! Executing programs: arguments, environment, what stays and what goes, scripts, failures.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use libc::*;

use crate::sys::{self, Answer, c, fd, file, fstat, pipe, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("exec_arguments", exec_arguments),
    ("exec_failures", exec_failures),
    ("exec_descriptors", exec_descriptors),
    ("exec_signals", exec_signals),
    ("exec_identity", exec_identity),
    ("scripts", scripts),
    ("exec_large", exec_large),
    ("exec_of_a_thread", exec_of_a_thread),
    ("exec_of_running", running),
    ("auxiliary_vector", auxiliary_vector),
    ("fexecve", fexecve_works),
];

fn own_path() -> String {
    std::fs::read_link("/proc/self/exe")
        .map_or_else(|_| "/guest/guest-checks".to_owned(), |it| it.display().to_string())
}

/// Replaces the process.
pub fn execute(path: &str, arguments: &[&str], environment: &[&str]) -> Answer {
    let list = |words: &[&str]| words.iter().map(|word| c(word)).collect::<Vec<CString>>();
    let (arguments, environment) = (list(arguments), list(environment));
    let pointers = |words: &[CString]| {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    sys!(SYS_execve, c(path).as_ptr(), pointers(&arguments).as_ptr(), pointers(&environment).as_ptr())
}

/// Runs this program in a role, in a child, and answers its output and its end.
pub fn role(words: &[&str], environment: &[&str], before: impl FnOnce()) -> (String, String) {
    let (reader, writer) = pipe(O_CLOEXEC);
    let path = own_path();
    let pid = sys::child(|| {
        before();
        sys!(SYS_dup2, writer, 1).unwrap();
        let words: Vec<&str> = ["guest-checks", "--role"].iter().chain(words).copied().collect();
        let errno = execute(&path, &words, environment);
        eprintln!("execve: {errno:?}");
        99
    });
    sys::close(writer).unwrap();
    let mut text = String::new();
    loop {
        let part = read(reader, 65536).unwrap();
        if part.is_empty() {
            return (text, sys::wait(pid));
        }
        text.push_str(&part);
    }
}

/// What the program does when a check has executed it.
pub fn play(words: &[String]) -> ExitCode {
    match words.first().map(String::as_str) {
        Some("echo") => {
            let environment: Vec<_> = std::env::vars().collect();
            print!("{:?} {environment:?}", &words[1..]);
        }
        Some("count") => {
            let bytes: usize = words.iter().map(String::len).sum();
            print!("{} words of {bytes} bytes", words.len());
        }
        Some("descriptors") => {
            let open: Vec<usize> = (0..30).filter(|&fd| fstat(fd).is_ok()).collect();
            print!("{open:?}");
        }
        Some("signals") => {
            let mut mask: sigset_t = zeroed();
            let mut pending: sigset_t = zeroed();
            // SAFETY: the sets are filled in by these calls; an action is only read.
            unsafe {
                sigprocmask(SIG_SETMASK, std::ptr::null(), &raw mut mask);
                sigpending(&raw mut pending);
                let disposition = |signal: i32| {
                    let mut action: sigaction = zeroed();
                    sigaction(signal, std::ptr::null(), &raw mut action);
                    action.sa_sigaction
                };
                print!(
                    "mask {} pending {} ignored {} handled {}",
                    sigismember(&raw const mask, SIGUSR1),
                    sigismember(&raw const pending, SIGUSR1),
                    disposition(SIGUSR2),
                    disposition(SIGHUP)
                );
            }
        }
        Some("identity") => print!(
            "{:?} {:?} {:?} {:?}",
            sys::pid(),
            sys!(SYS_getppid).map(|it| it as i32),
            std::env::current_dir().map(|it| it.file_name().map(|it| it.to_string_lossy().into_owned())).ok(),
            sys!(SYS_umask, 0)
        ),
        Some("show") => print!("{}", words.get(1).and_then(|path| sys::text(path).ok()).unwrap_or_default()),
        Some("numbers") => {
            let tasks = std::fs::read_dir("/proc/self/task").map(|tasks| tasks.flatten().count());
            print!("{} {tasks:?}", sys!(SYS_gettid) == Ok(sys::pid() as usize));
        }
        Some("rseq") => crate::rseq::play(),
        Some("exit") => return ExitCode::from(words.get(1).and_then(|it| it.parse().ok()).unwrap_or(1)),
        other => {
            eprintln!("guest-checks: no role {other:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn exec_arguments(r: &mut Report) {
    r.see("words", role(&["echo", "one", "", "two words", "ü"], &["A=1", "B=", "C=x=y"], || {}));
    r.see("no environment", role(&["echo"], &[], || {}));
    r.see("status", role(&["exit", "42"], &[], || {}));
    r.see("name", {
        let pid =
            sys::child(|| execute("/bin/sh", &["a-name", "-c", "test $0 = a-name"], &[]).map_or(9, |_| 9));
        sys::wait(pid)
    });
}

fn exec_failures(r: &mut Report) {
    let try_exec = |path: &str| execute(path, &["x"], &[]);
    r.see("missing", try_exec("/no/such/program"));
    r.see("directory", try_exec("/"));
    r.see("empty path", try_exec(""));
    sys::file("plain", "x");
    r.see("not executable", try_exec("./plain"));
    r.see("beneath a file", try_exec("./plain/x"));
    let make = |name: &str, bytes: &[u8]| {
        std::fs::write(name, bytes).unwrap();
        sys!(SYS_chmod, c(name).as_ptr(), 0o755).unwrap();
    };
    make("empty", b"");
    r.see("empty", try_exec("./empty"));
    make("text", b"no program\n");
    r.see("text", try_exec("./text"));
    make("magic", b"\x7fELF");
    r.see("a magic number alone", try_exec("./magic"));
    make("nowhere", b"#!/no/such/interpreter\n");
    r.see("missing interpreter", try_exec("./nowhere"));
    make("nothing", b"#!\n");
    r.see("no interpreter", try_exec("./nothing"));
    make("loop", b"#!./loop\n");
    r.see("its own interpreter", try_exec("./loop"));
    make("directory", b"#!/usr\n");
    r.see("a directory as interpreter", try_exec("./directory"));
    let elf = std::fs::read(own_path()).unwrap();
    make("short", &elf[..200]);
    r.see("cut in its headers", try_exec("./short"));
    let mut other = elf[..4096].to_vec();
    other[18] = 183;
    make("other", &other);
    r.see("another machine", try_exec("./other"));
    r.see("null path", sys!(SYS_execve, 0, 0, 0));
    r.see("bad arguments", sys!(SYS_execve, c("/bin/true").as_ptr(), 8, 0));
    std::os::unix::fs::symlink("link", "link").unwrap();
    r.see("loop of links", try_exec("./link"));
    let long = "x".repeat(200_000);
    r.see("a word that is too long", execute("/bin/true", &["true", &long], &[]));
    let many: Vec<&str> = std::iter::repeat_n("0123456789", 800_000).collect();
    r.see("too many words", execute("/bin/true", &many, &[]));
    r.see("still alive", sys::pid() > 0);
    let busy = fd("text", O_WRONLY);
    r.see("open for writing", try_exec("./text"));
    sys::close(busy).unwrap();
}

fn exec_descriptors(r: &mut Report) {
    r.see(
        "inherited",
        role(&["descriptors"], &[], || {
            let f = fd("/dev/null", O_RDONLY);
            sys!(SYS_dup2, f, 10).unwrap();
            sys!(SYS_dup3, f, 11, O_CLOEXEC).unwrap();
            sys!(SYS_dup2, f, 12).unwrap();
            sys!(SYS_fcntl, 12, F_SETFD, FD_CLOEXEC).unwrap();
            sys!(SYS_dup2, f, 13).unwrap();
            sys!(SYS_close_range, 3, 9, 0).unwrap();
            // The pipe's writer is still open, close-on-exec.
        })
        .0
        .replace("[0, 1, 2, ", "["),
    );
}

fn exec_signals(r: &mut Report) {
    extern "C" fn handler(_: c_int) {}
    r.see(
        "signals",
        role(&["signals"], &[], || {
            // SAFETY: the handler does nothing, and the set is initialised.
            unsafe {
                let mut set: sigset_t = zeroed();
                sigaddset(&raw mut set, SIGUSR1);
                sigprocmask(SIG_BLOCK, &raw const set, std::ptr::null_mut());
                raise(SIGUSR1);
                signal(SIGUSR2, SIG_IGN);
                signal(SIGHUP, handler as *const () as usize);
            }
        }),
    );
}

fn exec_identity(r: &mut Report) {
    let (reader, writer) = pipe(O_CLOEXEC);
    let parent = sys::pid();
    let path = own_path();
    sys!(SYS_umask, 0o031).unwrap();
    let pid = sys::child(|| {
        sys!(SYS_dup2, writer, 1).unwrap();
        execute(&path, &["x", "--role", "identity"], &[]).map_or(99, |_| 99)
    });
    let text = read(reader, 1000).unwrap();
    sys::wait(pid);
    r.see("same process", text.starts_with(&format!("{pid} Ok({parent}) ")));
    r.see("directory and umask", text.split_once(") ").map(|it| it.1.contains("exec_identity\"")));
    r.see("umask", text.rsplit(' ').next().map(str::to_owned));
}

fn scripts(r: &mut Report) {
    let run = |name: &str, text: &str, arguments: &[&str]| {
        sys::file(name, text);
        sys!(SYS_chmod, c(name).as_ptr(), 0o755).unwrap();
        let (reader, writer) = pipe(O_CLOEXEC);
        let pid = sys::child(|| {
            sys!(SYS_dup2, writer, 1).unwrap();
            let words: Vec<&str> = std::iter::once("zero").chain(arguments.iter().copied()).collect();
            execute(&format!("./{name}"), &words, &["PATH=/usr/bin:/bin"])
                .map_or_else(|errno| errno as i32, |_| 99)
        });
        sys::close(writer).unwrap();
        let mut all = String::new();
        while let Ok(part) = read(reader, 4096)
            && !part.is_empty()
        {
            all.push_str(&part);
        }
        (all, sys::wait(pid))
    };
    r.see("plain", run("a", "#!/bin/sh\necho $0 $# \"$@\"\n", &["one", "two words"]));
    r.see("with an option", run("b", "#! /bin/sh -e  \nfalse\necho no\n", &[]));
    r.see("one option only", run("c", "#!/bin/echo one two\n", &["three"]));
    r.see("through env", run("d", "#!/usr/bin/env sh\necho env\n", &[]));
    r.see("a script as interpreter", run("e", "#!./a\n", &["x"]));
    r.see("no newline", run("f", "#!/bin/echo", &["x"]));
    r.see("carriage return", run("g", "#!/bin/sh\r\necho no\n", &[]));
}

fn exec_large(r: &mut Report) {
    let word = "x".repeat(100_000);
    let words: Vec<&str> = std::iter::once("count").chain(std::iter::repeat_n(&*word, 10)).collect();
    r.see("a megabyte", role(&words, &[], || {}));
    let words: Vec<&str> = std::iter::once("count").chain(std::iter::repeat_n("y", 20_000)).collect();
    r.see("twenty thousand words", role(&words, &[], || {}));
}

fn exec_of_a_thread(r: &mut Report) {
    let path = own_path();
    r.see(
        "the whole process becomes the program",
        sys::ends(|| {
            std::thread::spawn(|| {
                loop {
                    sys::sleep_ms(5)
                }
            });
            let worker = std::thread::spawn(move || {
                sys::sleep_ms(10);
                execute(&path, &["x", "--role", "exit", "33"], &[])
            });
            worker.join().map_or(98, |_| 99)
        }),
    );
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        sys!(SYS_dup2, writer, 1).unwrap();
        let path = own_path();
        let worker = std::thread::spawn(move || execute(&path, &["x", "--role", "numbers"], &[]));
        worker.join().map_or(98, |_| 99)
    });
    r.see("its thread has the number of the process", (sys::wait(pid), read(reader, 100)));
    let pid = sys::child(|| {
        let path = own_path();
        std::thread::spawn(move || {
            // The first thread is gone by then.
            sys::sleep_ms(20);
            execute(&path, &["x", "--role", "exit", "34"], &[])
        });
        sys!(SYS_exit, 7).map_or(98, |_| 99)
    });
    r.see("without the first thread", sys::wait(pid));
}

/// A program that runs can not be changed.
fn running(r: &mut Report) {
    std::fs::copy("/bin/sh", "sh").unwrap();
    file("script", "#!./sh\nwhile :; do :; done\n");
    std::fs::set_permissions("script", std::fs::Permissions::from_mode(0o755)).unwrap();
    let start = |program: &str, words: &[&str]| {
        let child = sys::child(|| execute(program, words, &[]).map_or(99, |_| 99));
        let link = format!("/proc/{child}/exe");
        let runs = || std::fs::read_link(&link).is_ok_and(|path| path.ends_with("sh"));
        assert!(sys::eventually(runs), "a program starts");
        child
    };
    let direct: &[&str] = &["sh", "-c", "while :; do :; done"];
    for (program, words) in [("./sh", direct), ("./script", &["script"])] {
        let child = start(program, words);
        r.see(format!("{program}, write"), sys::open("sh", O_WRONLY));
        r.see("both", sys::open("sh", O_RDWR | O_CREAT));
        r.see("cut off", sys::open("sh", O_RDONLY | O_TRUNC));
        r.see("truncate", sys!(SYS_truncate, sys::c("sh").as_ptr(), 0));
        r.see("read", sys::open("sh", O_RDONLY).is_ok());
        r.see("mode", sys!(SYS_chmod, sys::c("sh").as_ptr(), 0o700));
        r.see("the script", sys::open("script", O_WRONLY).and_then(sys::close));
        sys::kill(child, SIGKILL).unwrap();
        r.see("end", sys::wait(child));
        r.see("after that", sys::open("sh", O_WRONLY).and_then(sys::close));
    }
    let child = start("./sh", direct);
    std::fs::remove_file("sh").unwrap();
    r.see("a new file of the name", sys::open("sh", O_WRONLY | O_CREAT).is_ok());
    sys::kill(child, SIGKILL).unwrap();
    r.see("the end", sys::wait(child));
}

fn auxiliary_vector(r: &mut Report) {
    // SAFETY: getauxval only reads.
    let value = |kind: u64| unsafe { getauxval(kind) };
    r.see("page size", value(AT_PAGESZ));
    r.see("clock ticks", value(AT_CLKTCK));
    r.see("secure", value(AT_SECURE));
    r.see("program header size", value(AT_PHENT));
    r.see("program headers", value(AT_PHNUM) > 4);
    r.see("entry", value(AT_ENTRY) != 0);
    r.see("loader", value(AT_BASE) != 0);
    r.see("vDSO", value(AT_SYSINFO_EHDR) != 0);
    // SAFETY: these calls only answer.
    let ids = unsafe { (getuid().into(), geteuid().into(), getgid().into(), getegid().into()) };
    r.ensure("ids", ids == (value(AT_UID), value(AT_EUID), value(AT_GID), value(AT_EGID)));
    let text = |at: u64| {
        // SAFETY: the kernel put a string that ends with NUL there.
        (at != 0)
            .then(|| unsafe { std::ffi::CStr::from_ptr(at as *const c_char) }.to_string_lossy().into_owned())
    };
    r.see("platform", text(value(AT_PLATFORM)));
    r.see("file name", text(value(AT_EXECFN)).map(|it| it.ends_with("guest-checks")));
    let random = value(AT_RANDOM) as *const [u8; 16];
    // SAFETY: sixteen bytes, as getauxval(3) says.
    r.see("random bytes", unsafe { *random }.iter().any(|&byte| byte != 0));
    r.see("hardware", value(AT_HWCAP) != 0);
}

fn fexecve_works(r: &mut Report) {
    let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), c"exit 11".as_ptr(), std::ptr::null()];
    r.see(
        "by descriptor",
        sys::ends(|| {
            let f = fd("/bin/sh", O_RDONLY | O_CLOEXEC);
            sys!(SYS_execveat, f, c("").as_ptr(), arguments.as_ptr(), 0, AT_EMPTY_PATH).map_or(99, |_| 99)
        }),
    );
    r.see(
        "beneath a directory",
        sys::ends(|| {
            let f = fd("/bin", O_RDONLY | O_DIRECTORY);
            sys!(SYS_execveat, f, c("sh").as_ptr(), arguments.as_ptr(), 0, 0).map_or(99, |_| 99)
        }),
    );
    r.see("of a memory file", {
        let program = std::fs::read("/bin/true").unwrap();
        let f = sys!(SYS_memfd_create, c"program".as_ptr(), MFD_CLOEXEC).unwrap();
        write(f, &program).unwrap();
        sys::ends(|| {
            sys!(SYS_execveat, f, c("").as_ptr(), arguments.as_ptr(), 0, AT_EMPTY_PATH).map_or(99, |_| 99)
        })
    });
    r.see("without the flag", sys!(SYS_execveat, 0, c("").as_ptr(), arguments.as_ptr(), 0, 0));
}
