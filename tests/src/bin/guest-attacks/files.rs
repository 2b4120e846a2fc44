//! Ways to files of the host that were not granted, and to write where only reading was.

use std::os::unix::fs::PermissionsExt;

use libc::*;

use crate::sys::{self, Errno, c, sys};
use crate::{Attack, Verdict, must_fail, must_fail_with, told};

/// Reads what is at these paths. None of it may be there; the host side looks for the secret in what is said, too.
pub fn finds_no_secret(paths: &[String]) -> Verdict {
    let mut answers = std::collections::BTreeSet::new();
    for path in paths {
        match std::fs::read(path) {
            Ok(bytes) => return Err(format!("{path}: {}", String::from_utf8_lossy(&bytes))),
            Err(error) => answers.insert(error.kind().to_string()),
        };
    }
    Ok(format!("{answers:?}"))
}

/// A path in the writable directory, where the host put something or this attack does.
fn here(name: &str) -> String {
    format!("/rw/{name}")
}

/// Names of links that the host put into the writable directory, and that lead out of it there.
const LINKS_OF_THE_HOST: &[&str] =
    &["link-up", "link-absolute", "link-to-proc", "link-chain", "link-directory/secret"];

/// What a link made in the sandbox is made to point to.
fn targets() -> Vec<(&'static str, String)> {
    let secret = told("SECRET_PATH");
    let up = "../".repeat(40);
    vec![
        ("the secret", secret.clone()),
        ("the secret by way of ..", format!("{up}{secret}")),
        ("the secret below /proc/self/root", format!("/proc/self/root{secret}")),
        ("the secret below /proc/1/root", format!("/proc/1/root{secret}")),
        ("the secret below the working directory", format!("/proc/self/cwd/{up}{secret}")),
        ("a sibling of the granted directory", "../secret".to_owned()),
        ("a magic link to a directory", "/proc/self/fd/3/../secret".to_owned()),
    ]
}

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    for name in LINKS_OF_THE_HOST {
        all.push(Attack::new(format!("follow {name} of the host"), move || finds_no_secret(&[here(name)])));
    }
    // The list is made where nothing is told, too.
    for index in 0..7 {
        all.push(Attack::new(format!("a path out, {}", index + 1), move || {
            let (what, path) = &targets()[index];
            finds_no_secret(std::slice::from_ref(path)).map(|how| format!("{what}: {how}"))
        }));
        all.push(Attack::new(format!("a link out of a granted directory, {}", index + 1), move || {
            let (what, path) = &targets()[index];
            std::os::unix::fs::symlink(path, here("made")).map_err(|error| error.to_string())?;
            let verdict = finds_no_secret(&[here("made"), "/rw/made/../secret".to_owned()]);
            std::fs::remove_file(here("made")).map_err(|error| error.to_string())?;
            verdict.map(|how| format!("{what}: {how}"))
        }));
    }
    all.extend([
        Attack::new("above a granted directory that is held open", above_held_directory),
        Attack::new("below a directory that was moved", below_moved_directory),
        Attack::new("a magic link of a descriptor", magic_link),
        Attack::new("read a fifo of the host", || must_fail(sys::open(&here("fifo"), O_RDONLY | O_NONBLOCK))),
        Attack::new("write a fifo of the host", || {
            must_fail(sys::open(&here("fifo"), O_WRONLY | O_NONBLOCK))
        }),
        Attack::new("open a device node of the host", || must_fail(sys::open(&here("node"), O_RDWR))),
        Attack::new("open a socket of the host", || must_fail(sys::open(&here("socket"), O_RDWR))),
        Attack::new("make a device node in a granted directory", || {
            must_fail(make_node(&here("made"), 8, 0))
        }),
        Attack::new("make a fifo in a granted directory", || {
            must_fail(sys!(SYS_mknod, c(&here("made")).as_ptr(), S_IFIFO | 0o666, 0))
        }),
        Attack::new("make a set-user-id file in a granted directory", set_user_id),
        Attack::new("link a file of the image into a granted directory", || {
            link("/usr/bin/env", &here("made"))
        }),
        Attack::new("link a granted file elsewhere", || link(&here("file"), "/tmp/made")),
        Attack::new("link between granted directories", || link("/ro/file", &here("made"))),
        Attack::new("rename a file out of a granted directory", || rename(&here("file"), "/tmp/made")),
        Attack::new("rename a file between granted directories", || rename("/ro/file", &here("made"))),
        Attack::new("rename the granted directory itself", || rename("/rw", "/tmp/made")),
        Attack::new("remove the granted directory itself", || must_fail(sys!(SYS_rmdir, c("/rw").as_ptr()))),
        Attack::new("change the image", change_image),
    ]);
    all.extend(read_only().into_iter().map(|(name, attempt)| {
        Attack::new(format!("in a read-only directory, {name}"), move || must_fail(attempt()))
    }));
    all
}

fn link(from: &str, to: &str) -> Verdict {
    must_fail_with(
        sys!(SYS_link, c(from).as_ptr(), c(to).as_ptr()),
        &[Errno::EXDEV, Errno::EROFS, Errno::EPERM],
    )
}

fn rename(from: &str, to: &str) -> Verdict {
    let errors = [Errno::EXDEV, Errno::EROFS, Errno::EBUSY];
    must_fail_with(sys!(SYS_rename, c(from).as_ptr(), c(to).as_ptr()), &errors)
}

fn make_node(path: &str, major: u32, minor: u32) -> sys::Answer {
    sys!(SYS_mknod, c(path).as_ptr(), S_IFBLK | 0o666, makedev(major, minor))
}

fn above_held_directory() -> Verdict {
    let held = sys::fd("/rw", O_RDONLY | O_DIRECTORY);
    let mut answers = Vec::new();
    for flags in [O_RDONLY, O_PATH, O_RDONLY | O_NOFOLLOW] {
        for depth in 1..5 {
            let path = format!("{}secret", "../".repeat(depth));
            let answer = sys!(SYS_openat, held, c(&path).as_ptr(), flags);
            answers.push(must_fail(answer).map_err(|it| format!("{path}: {it}"))?);
        }
    }
    Ok(answers.concat())
}

/// A directory is held open while it is moved up; `..` from it must not lead beyond the granted directory.
fn below_moved_directory() -> Verdict {
    for directory in ["a", "a/b", "a/b/c"] {
        sys!(SYS_mkdir, c(&here(directory)).as_ptr(), 0o755).expect("a directory can be made");
    }
    let held = sys::fd(&here("a/b/c"), O_RDONLY | O_DIRECTORY);
    sys!(SYS_rename, c(&here("a/b/c")).as_ptr(), c(&here("c")).as_ptr()).expect("it can be moved");
    let answers: Vec<_> = (1..6)
        .map(|depth| sys!(SYS_openat, held, c(&format!("{}secret", "../".repeat(depth))).as_ptr(), O_RDONLY))
        .collect();
    for directory in ["c", "a/b", "a"] {
        let _ = sys!(SYS_rmdir, c(&here(directory)).as_ptr());
    }
    if answers.iter().all(Result::is_err) { Ok(format!("{answers:?}")) } else { Err(format!("{answers:?}")) }
}

fn magic_link() -> Verdict {
    let held = sys::fd("/rw", O_PATH | O_DIRECTORY);
    let paths = [format!("/proc/self/fd/{held}/../secret"), format!("/proc/self/fd/{held}/link-up")];
    finds_no_secret(&paths)
}

/// The bits may be set as the sandbox sees it; the host side checks that they are not on the host.
fn set_user_id() -> Verdict {
    std::fs::copy("/usr/bin/id", here("program")).map_err(|error| error.to_string())?;
    let answer = sys!(SYS_chmod, c(&here("program")).as_ptr(), 0o6755);
    let mode = std::fs::metadata(here("program")).map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o6000 == 0 { Ok(format!("{answer:?}, mode {mode:o}")) } else { Err(format!("mode {mode:o}")) }
}

/// What is written over the image stays in the sandbox: the host side compares.
fn change_image() -> Verdict {
    std::fs::write("/usr/bin/true", "changed").map_err(|error| error.to_string())?;
    std::fs::write("/etc/passwd", "root::0:0::/:/bin/sh\n").map_err(|error| error.to_string())?;
    std::fs::remove_file("/usr/bin/env").map_err(|error| error.to_string())?;
    Ok("in the sandbox alone".to_owned())
}

type Attempt = fn() -> sys::Answer;

fn read_only() -> Vec<(&'static str, Attempt)> {
    vec![
        ("write a file", || sys::open("/ro/file", O_WRONLY)),
        ("truncate at open", || sys::open("/ro/file", O_RDONLY | O_TRUNC)),
        ("make a file", || sys::open("/ro/made", O_RDWR | O_CREAT)),
        ("make a nameless file", || sys::open("/ro", O_RDWR | O_TMPFILE)),
        ("truncate", || sys!(SYS_truncate, c("/ro/file").as_ptr(), 0)),
        ("remove", || sys!(SYS_unlink, c("/ro/file").as_ptr())),
        ("make a directory", || sys!(SYS_mkdir, c("/ro/made").as_ptr(), 0o755)),
        ("remove a directory", || sys!(SYS_rmdir, c("/ro/directory").as_ptr())),
        ("make a link", || sys!(SYS_symlink, c("x").as_ptr(), c("/ro/made").as_ptr())),
        ("make a hard link", || sys!(SYS_link, c("/ro/file").as_ptr(), c("/ro/made").as_ptr())),
        ("rename", || sys!(SYS_rename, c("/ro/file").as_ptr(), c("/ro/made").as_ptr())),
        ("exchange", || {
            sys!(SYS_renameat2, AT_FDCWD, c("/ro/file").as_ptr(), AT_FDCWD, c("/ro/directory").as_ptr(), 2)
        }),
        ("change the mode", || sys!(SYS_chmod, c("/ro/file").as_ptr(), 0o777)),
        ("change the owner", || sys!(SYS_chown, c("/ro/file").as_ptr(), 1, 1)),
        ("change the times", || sys!(SYS_utimensat, AT_FDCWD, c("/ro/file").as_ptr(), 0, 0)),
        ("set an attribute", || {
            sys!(SYS_setxattr, c("/ro/file").as_ptr(), c("user.x").as_ptr(), c("y").as_ptr(), 1, 0)
        }),
        ("write through a descriptor of procfs", || {
            let fd = sys::fd("/ro/file", O_RDONLY);
            sys::open(&format!("/proc/self/fd/{fd}"), O_WRONLY)
        }),
        ("store through a shared mapping", || {
            let fd = sys::fd("/ro/file", O_RDONLY);
            sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        }),
        ("make a mapping writable later", || {
            let fd = sys::fd("/ro/file", O_RDONLY);
            let at = sys!(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, fd, 0).expect("it can be read");
            sys!(SYS_mprotect, at, 4096, PROT_READ | PROT_WRITE)
        }),
        ("punch a hole", || {
            let fd = sys::fd("/ro/file", O_RDONLY);
            sys!(SYS_fallocate, fd, 3, 0, 4096)
        }),
        ("copy into a file", || {
            let (from, to) = (sys::fd("/ro/file", O_RDONLY), sys::fd("/ro/file", O_RDONLY));
            sys!(SYS_copy_file_range, from, 0, to, 0, 4, 0)
        }),
    ]
}
