//! Races: what a path means is changed while it is walked, over and over.

use std::time::{Duration, Instant};

use libc::*;

use crate::sys::{self, c, sys};
use crate::{Attack, Verdict, told};

/// How long each race runs.
const LONG: Duration = Duration::from_millis(700);

/// What is walked, over and over.
type Walk = fn(&str);

pub fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("a directory becomes a link while it is walked", || {
            race(&["/rw/race/x"], exchange_directory_and_link, |_| {})
        }),
        Attack::new("a link changes while it is followed", || race(&["/rw/race-link"], change_link, |_| {})),
        Attack::new("a directory moves away while .. is walked", || {
            race(&["/rw/race/x/y/../../../secret"], move_directory, |_| {})
        }),
        Attack::new("a file becomes a link while it is written", || {
            race(&["/rw/race-file"], exchange_file_and_link, |path| {
                let _ = std::fs::write(path, "from the sandbox");
            })
        }),
        Attack::new("a name becomes a fifo while it is opened", || {
            race(&["/tmp/race-fifo"], exchange_file_and_fifo, |_| {})
        }),
        Attack::new("a directory is removed while files are made in it", || {
            race(&["/rw/race/x/made"], make_and_remove, |path| {
                let _ = std::fs::write(path, "from the sandbox");
            })
        }),
        Attack::new("a buffer changes while its path is read", changing_path),
    ]
}

/// Changes what `paths` mean in a child while they are opened and read here: no read may give the secret.
fn race(paths: &[&str], change: fn(), walk: Walk) -> Verdict {
    sys!(SYS_mkdir, c("/rw/race").as_ptr(), 0o755).map_err(|errno| errno.to_string())?;
    let changer = sys::child(move || {
        loop {
            change();
        }
    });
    let start = Instant::now();
    let (mut walks, mut found) = (0, None);
    while start.elapsed() < LONG && found.is_none() {
        for path in paths {
            for path in [(*path).to_owned(), format!("{path}/secret")] {
                walk(&path);
                let fd = sys::open(&path, O_RDONLY | O_NONBLOCK);
                if let Ok(fd) = fd {
                    let text = sys::read(fd, 100).unwrap_or_default();
                    sys::close(fd).expect("it is open");
                    if text.contains("secret of the host") {
                        found = Some(text);
                    }
                }
                walks += 1;
            }
        }
    }
    sys::kill(changer, SIGKILL).expect("it runs");
    sys::wait(changer);
    let _ = std::fs::remove_dir_all("/rw/race");
    for name in ["/rw/race-link", "/rw/race-file", "/rw/race-other"] {
        let _ = std::fs::remove_file(name);
    }
    match found {
        Some(text) => Err(text),
        None if walks < 20 => Err(format!("only {walks} walks")),
        None => Ok("every time".to_owned()),
    }
}

fn parent() -> String {
    let secret = told("SECRET_PATH");
    secret.rsplit_once('/').expect("an absolute path").0.to_owned()
}

fn exchange_directory_and_link() {
    let _ = sys!(SYS_mkdir, c("/rw/race/x").as_ptr(), 0o755);
    let _ = sys!(SYS_rmdir, c("/rw/race/x").as_ptr());
    let _ = std::os::unix::fs::symlink(parent(), "/rw/race/x");
    let _ = sys!(SYS_unlink, c("/rw/race/x").as_ptr());
    let _ = std::os::unix::fs::symlink("../..", "/rw/race/x");
    let _ = sys!(SYS_unlink, c("/rw/race/x").as_ptr());
}

fn change_link() {
    for target in ["/rw/file", "../secret", "/proc/self/root", &told("SECRET_PATH"), &parent()] {
        let _ = std::os::unix::fs::symlink(target, "/rw/race-link");
        let _ = sys!(SYS_unlink, c("/rw/race-link").as_ptr());
    }
}

fn move_directory() {
    let _ = sys!(SYS_mkdir, c("/rw/race/x").as_ptr(), 0o755);
    let _ = sys!(SYS_mkdir, c("/rw/race/x/y").as_ptr(), 0o755);
    let _ = sys!(SYS_rename, c("/rw/race/x/y").as_ptr(), c("/rw/race/y").as_ptr());
    let _ = sys!(SYS_rename, c("/rw/race/y").as_ptr(), c("/rw/race/x/y").as_ptr());
}

fn exchange_file_and_link() {
    let _ = std::os::unix::fs::symlink(told("SECRET_PATH"), "/rw/race-file");
    let _ = std::fs::write("/rw/race-other", "");
    let _ =
        sys!(SYS_renameat2, AT_FDCWD, c("/rw/race-file").as_ptr(), AT_FDCWD, c("/rw/race-other").as_ptr(), 2);
    let _ = sys!(SYS_unlink, c("/rw/race-file").as_ptr());
    let _ = sys!(SYS_rename, c("/rw/race-other").as_ptr(), c("/rw/race-file").as_ptr());
    let _ = sys!(SYS_unlink, c("/rw/race-file").as_ptr());
}

fn exchange_file_and_fifo() {
    let _ = std::fs::write("/tmp/race-fifo", "x");
    let _ = sys!(SYS_unlink, c("/tmp/race-fifo").as_ptr());
    let _ = sys!(SYS_mknod, c("/tmp/race-fifo").as_ptr(), S_IFIFO | 0o666, 0);
    let _ = sys!(SYS_unlink, c("/tmp/race-fifo").as_ptr());
}

fn make_and_remove() {
    let _ = sys!(SYS_mkdir, c("/rw/race/x").as_ptr(), 0o755);
    let _ = sys!(SYS_unlink, c("/rw/race/x/made").as_ptr());
    let _ = sys!(SYS_rmdir, c("/rw/race/x").as_ptr());
}

/// Another thread writes to the path, and to the vectors of a read, while the kernel uses them.
fn changing_path() -> Verdict {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
    let secret = told("SECRET_PATH");
    let path: Arc<Vec<AtomicU8>> =
        Arc::new(format!("/rw/file\0{secret}\0").bytes().map(AtomicU8::new).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let changer = std::thread::spawn({
        let (path, stop) = (path.clone(), stop.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                // Now the path ends after its first part, and now it goes on with the other.
                path[8].store(b'/', Ordering::Relaxed);
                path[8].store(0, Ordering::Relaxed);
            }
        }
    });
    let start = Instant::now();
    let mut wrong = None;
    while start.elapsed() < LONG {
        let text = sys!(SYS_open, path.as_ptr(), O_RDONLY).and_then(|fd| {
            let text = sys::read(fd, 100);
            sys::close(fd).expect("it is open");
            text
        });
        if text.as_ref().is_ok_and(|text| text != "granted") {
            wrong = Some(format!("{text:?}"));
        }
    }
    stop.store(true, Ordering::Relaxed);
    changer.join().expect("it ends");
    wrong.map_or_else(|| Ok("one or the other".to_owned()), Err)
}
