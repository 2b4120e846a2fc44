//! The files of `/etc` that say which sandbox this is.

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{O_CREAT, O_NOFOLLOW, O_RDONLY, O_TRUNC, O_WRONLY, S_IFDIR, S_IFMT, S_IFREG};

use crate::vfs::open::{OpenRequest, open};
use crate::vfs::{Final, FsContext, FsState, Path, ops};

const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/etc/hostname";
const MACHINE_ID: &str = "/etc/machine-id";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the line of `/etc/hosts` with the sandbox's own name starts with, as on Debian.
const OWN_LINE: &[u8] = b"127.0.1.1\t";

/// The most of `/etc/hosts` that is kept when the host name changes.
const MAX_HOSTS: usize = 1 << 16;

/// Writes the files. Errors come with the path.
pub struct OwnFiles<'a> {
    cx: &'a FsContext<'a>,
    fs: FsState,
}

type Written = Result<(), (&'static str, Errno)>;

impl<'a> OwnFiles<'a> {
    /// Returns the writer for this root directory; `cx` must be the superuser's.
    pub fn new(cx: &'a FsContext<'a>, root: &Path) -> OwnFiles<'a> {
        OwnFiles { cx, fs: FsState { umask: 0, ..FsState::new(root.clone()) } }
    }

    /// Writes all of them, in place of whatever the image has there.
    pub fn write_all(&self, hostname: &[u8]) -> Written {
        self.write(HOSTS, &[b"127.0.0.1\tlocalhost\n", OWN_LINE, hostname, b"\n::1\tlocalhost\n"].concat())?;
        self.write(HOSTNAME, &[hostname, b"\n"].concat())?;
        self.write(RESOLV_CONF, b"# This sandbox has no name server.\n")?;
        self.write_machine_id()
    }

    /// Makes the sandbox another machine to those who ask for its identity (machine-id(5)).
    pub fn write_machine_id(&self) -> Written {
        let mut id = [0; 16];
        crate::syscall::fill_random(&mut id);
        let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        self.write(MACHINE_ID, format!("{digits}\n").as_bytes())
    }

    /// Changes the host name. Of `/etc/hosts`, which may have other lines by now, only the one with the name.
    pub fn rename_host(&self, hostname: &[u8]) -> Written {
        self.write(HOSTNAME, &[hostname, b"\n"].concat())?;
        let Some(old) = self.read(HOSTS) else { return Ok(()) };
        let new: Vec<&[u8]> = old
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(|line| match line.starts_with(OWN_LINE) {
                true => [OWN_LINE, hostname, b"\n"],
                false => [line, b"", b""],
            })
            .collect();
        let new = new.concat();
        if new == old { Ok(()) } else { self.write(HOSTS, &new) }
    }

    /// Says whether a path is or can be a file of the sandbox's own root file system: what is mounted there may
    /// be the host's.
    fn is_own(&self, path: &str) -> bool {
        let own = |path: &Path| Rc::ptr_eq(&path.mount, &self.fs.root.mount);
        let is_dir = |path: &Path| path.inode().attr(self.cx).is_ok_and(|attr| attr.mode & S_IFMT == S_IFDIR);
        let Ok(dir) = self.fs.lookup(self.cx, b"/etc", Final::Follow) else { return false };
        own(&dir)
            && self
                .fs
                .lookup(self.cx, path.as_bytes(), Final::NoFollow)
                .map_or(true, |file| own(&file) && !is_dir(&file))
    }

    /// Returns the contents of a regular file of a moderate size, if it is one.
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let at = self.fs.lookup(self.cx, path.as_bytes(), Final::NoFollow).ok()?;
        let attr = at.inode().attr(self.cx).ok()?;
        if attr.mode & S_IFMT != S_IFREG || attr.size > MAX_HOSTS as u64 {
            return None;
        }
        let request = OpenRequest::new(O_RDONLY | O_NOFOLLOW, 0);
        let file = open(self.cx, &self.fs, &self.fs.root, path.as_bytes(), &request).ok()?;
        let mut text = vec![0; attr.size as usize];
        let len = file.file.read(self.cx, 0, &mut text).ok()?;
        text.truncate(len);
        Some(text)
    }

    /// Writes a new file in place of whatever is there, which may be a link to a place that is not in the image.
    fn write(&self, path: &'static str, text: &[u8]) -> Written {
        if !self.is_own(path) {
            return Ok(());
        }
        self.replace(path, text).map_err(|errno| (path, errno))
    }

    fn replace(&self, path: &str, text: &[u8]) -> Result<(), Errno> {
        let (cx, fs) = (self.cx, &self.fs);
        if fs.lookup(cx, path.as_bytes(), Final::NoFollow).is_ok() {
            ops::unlink(cx, fs, &fs.root, path.as_bytes())?;
        }
        let request = OpenRequest::new(O_WRONLY | O_CREAT | O_TRUNC, 0o644);
        let file = open(cx, fs, &fs.root, path.as_bytes(), &request).map_err(|_| Errno::EIO)?;
        let written = file.file.write(cx, 0, text)?;
        if written == text.len() { Ok(()) } else { Err(Errno::ENOSPC) }
    }
}
