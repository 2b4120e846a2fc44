//! Files of the host that were not granted, or not for writing.

use crate::captive::{Answer, Captive};
use crate::{Attack, Scene, Verdict, all_in_forks, must_fail, told};

/// The current directory, as a descriptor.
const HERE: u64 = libc::AT_FDCWD as u64;
const PATH: u64 = libc::O_PATH as u64;
const READ: u64 = libc::O_RDONLY as u64;
const WRITE: u64 = libc::O_WRONLY as u64;
const CREATE: u64 = (libc::O_WRONLY | libc::O_CREAT) as u64;
const TRUNCATE: u64 = libc::O_TRUNC as u64;

/// Paths of the host that no sandbox was granted.
const ELSEWHERE: [&str; 16] = [
    "/etc/shadow",
    "/root",
    "/home",
    "/var",
    "/run",
    "/boot",
    "/proc",
    "/proc/self/mem",
    "/proc/self/fd/0",
    "/proc/1/root",
    "/proc/sys/kernel/core_pattern",
    "/sys",
    "/dev",
    "/dev/kvm",
    "/dev/mem",
    "/dev/null",
];

/// All attacks of the group.
pub fn attacks() -> Vec<Attack> {
    let attack = |name: &str, make: fn(&Captive) -> Verdict| Attack::new(name, make).on(Scene::Granted);
    vec![
        attack("absolute-paths", |captive| {
            let paths =
                ELSEWHERE.iter().map(|path| (*path).to_owned()).chain([in_root("secret"), in_root("")]);
            none(paths.filter(|path| path != "/dev/null"), |path| open2(captive, HERE, path, READ))
        }),
        attack("absolute-paths-by-openat", |captive| {
            let paths = ELSEWHERE.iter().map(|path| (*path).to_owned()).chain([in_root("secret")]);
            all_in_forks(captive, paths, String::clone, |fork, path| must_fail(open(fork, HERE, path, READ)))
        }),
        attack("up-from-each-descriptor", up_from_each_descriptor),
        attack("links-in-granted-directories", |captive| {
            let links =
                ["rw/link-up", "rw/link-absolute", "rw/link-to-proc", "rw/link-to-device"].map(in_root);
            none(links, |path| open2(captive, HERE, path, READ))
        }),
        attack("a-link-of-its-own", a_link_of_its_own),
        attack("writing-where-reading-was-granted", |captive| {
            let files =
                [in_root("ro/file"), in_root("ro/directory"), "/usr/bin/env".into(), "/etc/passwd".into()];
            let flags = [
                WRITE,
                libc::O_RDWR as u64,
                READ | TRUNCATE,
                WRITE | TRUNCATE,
                WRITE | libc::O_APPEND as u64,
            ];
            let ways = files.into_iter().flat_map(|file| flags.map(|flags| (file.clone(), flags)));
            none(ways, |(path, flags)| open2(captive, HERE, path, *flags))
        }),
        attack("creating-where-reading-was-granted", creating),
        attack("changing-what-was-opened-for-reading", changing),
        attack("moving-between-granted-directories", moving),
        attack("unnamed-files-in-the-root", |captive| {
            let flags = libc::O_TMPFILE as u64 | libc::O_RDWR as u64;
            none(["/".to_owned(), "/usr".to_owned(), in_root("ro")], |path| open2(captive, HERE, path, flags))
        }),
        attack("device-nodes", |captive| {
            let node = captive.put_text(&in_root("rw/new-node"));
            must_fail(captive.call(libc::SYS_mknodat, &[HERE, node, u64::from(libc::S_IFCHR | 0o666), 0x105]))
        }),
    ]
}

fn in_root(name: &str) -> String {
    format!("{}/{name}", told("ROOT"))
}

/// `openat` without more ado.
fn open(captive: &Captive, directory: u64, path: &str, flags: u64) -> Answer {
    captive.call(libc::SYS_openat, &[directory, captive.put_text(path), flags, 0o600])
}

/// `openat2` with nothing that would hold it beneath a directory.
fn open2(captive: &Captive, directory: u64, path: &str, flags: u64) -> Answer {
    let mode = if flags & CREATE == CREATE { 0o600u64 } else { 0 };
    let how = [flags, mode, 0].map(u64::to_ne_bytes).concat();
    let at = captive.put(&[&how, path.as_bytes(), &[0]].concat());
    captive.call(libc::SYS_openat2, &[directory, at + how.len() as u64, at, how.len() as u64])
}

/// The verdict on many attempts, none of which may succeed.
fn none<T: std::fmt::Debug>(attempts: impl IntoIterator<Item = T>, make: impl Fn(&T) -> Answer) -> Verdict {
    let mut count = 0;
    for attempt in attempts {
        must_fail(make(&attempt)).map_err(|what| format!("{attempt:?}: {what}"))?;
        count += 1;
    }
    Ok(format!("{count} attempts"))
}

fn up_from_each_descriptor(captive: &Captive) -> Verdict {
    let secret = in_root("secret");
    let up = format!("{}{}", "../".repeat(24), &secret[1..]);
    let paths = [up, "../secret".to_owned(), format!("{}etc/shadow", "../".repeat(24)), secret];
    let descriptors = captive.descriptors();
    let ways = descriptors.iter().flat_map(|(fd, what)| paths.iter().map(move |path| (*fd, what, path)));
    none(ways, |(fd, _, path)| open2(captive, *fd, path, READ))
}

fn a_link_of_its_own(captive: &Captive) -> Verdict {
    let directory = open2(captive, HERE, &in_root("rw"), PATH).map_err(|end| format!("{end:?}"))?;
    for (index, target) in [in_root("secret"), "../secret".into(), "/proc/self/fd".into()].iter().enumerate()
    {
        let name = format!("own-link-{index}");
        let at = captive.put(&[target.as_bytes(), &[0], name.as_bytes(), &[0]].concat());
        let link = at + target.len() as u64 + 1;
        let made = captive.call(libc::SYS_symlinkat, &[at, directory.cast_unsigned(), link]);
        if made != Ok(0) {
            return Err(format!("a link in a writable directory: {made:?}"));
        }
        must_fail(open2(captive, directory.cast_unsigned(), &name, READ))?;
    }
    Ok("3 links".to_owned())
}

fn creating(captive: &Captive) -> Verdict {
    let places = [in_root("ro/new"), "/new".into(), "/usr/new".into(), "/etc/new".into(), in_root("new")];
    none(places.clone(), |path| open2(captive, HERE, path, CREATE))?;
    none(places, |path| captive.call(libc::SYS_mkdirat, &[HERE, captive.put_text(path), 0o700]))?;
    none([in_root("ro/file"), "/usr/bin/env".into(), in_root("secret")], |path| {
        captive.call(libc::SYS_unlinkat, &[HERE, captive.put_text(path), 0])
    })
}

fn changing(captive: &Captive) -> Verdict {
    let mut count = 0;
    for path in [in_root("ro/file"), "/usr/bin/env".to_owned(), "/etc/passwd".to_owned()] {
        let fd = match open2(captive, HERE, &path, READ) {
            Ok(fd @ 0..) => fd.cast_unsigned(),
            other => return Err(format!("{path} was granted for reading: {other:?}")),
        };
        let bytes = captive.put(b"changed\0");
        let calls: [(i64, &[u64]); 8] = [
            (libc::SYS_pwrite64, &[fd, bytes, 7, 0]),
            (libc::SYS_write, &[fd, bytes, 7]),
            (libc::SYS_ftruncate, &[fd, 0]),
            (libc::SYS_fallocate, &[fd, 0, 0, 1 << 16]),
            (libc::SYS_fchmod, &[fd, 0o666]),
            (libc::SYS_fchown, &[fd, 12345, 12345]),
            (libc::SYS_utimensat, &[fd, 0, 0, 0]),
            (
                libc::SYS_mmap,
                &[0, 4096, (libc::PROT_READ | libc::PROT_WRITE) as u64, libc::MAP_SHARED as u64, fd, 0],
            ),
        ];
        for (number, arguments) in calls {
            must_fail(captive.call(number, arguments))
                .map_err(|what| format!("call {number} on {path}: {what}"))?;
            count += 1;
        }
    }
    Ok(format!("{count} attempts"))
}

fn moving(captive: &Captive) -> Verdict {
    let (rw, exchange) = (in_root("rw/moved"), 2);
    let mut count = 0;
    for from in [in_root("ro/file"), "/usr/bin/env".to_owned(), in_root("secret")] {
        let at = captive.put(&[from.as_bytes(), &[0], rw.as_bytes(), &[0]].concat());
        let to = at + from.len() as u64 + 1;
        for (number, flags) in [
            (libc::SYS_linkat, 0),
            (libc::SYS_linkat, libc::AT_SYMLINK_FOLLOW as u64),
            (libc::SYS_renameat2, 0),
            (libc::SYS_renameat2, exchange),
        ] {
            must_fail(captive.call(number, &[HERE, at, HERE, to, flags]))
                .map_err(|what| format!("{from}: {what}"))?;
            count += 1;
        }
    }
    Ok(format!("{count} attempts"))
}
