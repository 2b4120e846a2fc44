//! A read-only view of a host directory tree: the lower layer of the root file system.
//!
//! Everything is opened beneath one held descriptor, with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_MAGICLINKS)`; look-ups below an opened directory name one component and never follow it. So no
//! name that a guest or an image comes up with leaves the tree. Symbolic links are read and given to the
//! guest's own path walk.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::LazyLock;

use lg_abi::raw::general::{S_IFDIR, S_IFMT, S_IFREG};
use lg_abi::{Errno, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno as HostErrno;

use super::fds::FdCache;

/// How often an open is tried again that a rename on the host got in the way of.
const MOST_OPENS: u32 = 100;

/// How many descriptors of the view are open at a time.
const OPEN_FDS: usize = 192;

/// The uid that a user namespace shows for ids it does not map.
const OVERFLOW_ID: u32 = 65_534;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Dir(u64),
    File(u64, u64),
}

/// What may be seen of a directory: paths in it, each with all that is below. A `*` at the end of a path
/// stands for any rest of the last name.
pub type AllowList = &'static [&'static str];

/// Whose files of a tree can be read. The host process may run as a user who can read more than the sandbox
/// is meant to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// What every user of the host may read.
    Everyone,
    /// What the host process may read.
    Owner,
}

/// A host directory tree.
pub struct HostTree {
    root: OwnedFd,
    audience: Audience,
    fds: FdCache<Key>,
    next_dir: Cell<u64>,
}

/// Turns an error of rustix into the guest's.
pub fn to_errno(errno: HostErrno) -> Errno {
    Errno::from_host(errno.raw_os_error())
}

/// How views of the host resolve their own paths.
fn resolve_flags() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS
}

/// Opens a path beneath a directory of the host, and follows no link.
///
/// Errors: EIO where renames on the host keep getting in its way, which openat2(2) tells with EAGAIN: to a reader of the
/// guest that would mean that it is to wait.
pub fn open_beneath(dir: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    for _ in 0..MOST_OPENS {
        match rustix::fs::openat2(&dir, path, flags, mode, resolve_flags()) {
            Err(HostErrno::AGAIN) => {}
            result => return result.map_err(to_errno),
        }
    }
    Err(Errno::EIO)
}

impl HostTree {
    /// Returns the tree below an open directory (O_PATH is enough).
    pub fn new(root: OwnedFd, audience: Audience) -> Rc<HostTree> {
        Rc::new(HostTree { root, audience, fds: FdCache::new(OPEN_FDS), next_dir: Cell::new(1) })
    }

    /// Returns the directory at the root of the tree. Only what `allow` names is seen in it, where given.
    pub fn root_dir(self: &Rc<HostTree>, allow: Option<AllowList>) -> Result<Rc<LowerDir>, Errno> {
        let stat = rustix::fs::fstat(&self.root).map_err(to_errno)?;
        Ok(self.dir(b".".to_vec(), stat.st_dev, stat.st_mode, allow))
    }

    fn dir(
        self: &Rc<HostTree>,
        path: Vec<u8>,
        dev: u64,
        mode: u32,
        allow: Option<AllowList>,
    ) -> Rc<LowerDir> {
        let id = self.next_dir.get();
        self.next_dir.set(id.wrapping_add(1));
        let is_open = self.audience == Audience::Owner || mode & 0o005 == 0o005;
        Rc::new(LowerDir { tree: self.clone(), path: path.into(), id, dev, is_open, allow })
    }

    /// Returns how many descriptors are open.
    pub fn open_fds(&self) -> usize {
        self.fds.count()
    }
}

/// The user and the group of this process, which do not change. `build_root` asks for them, while the process may still
/// ask.
pub(crate) static OWN_IDS: LazyLock<(u32, u32)> =
    LazyLock::new(|| (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()));

/// What stat(2) tells of a host file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names of stat(3)")]
pub struct LowerStat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
}

impl LowerStat {
    /// Returns the facts, with owners as the guest sees them: the user who runs the sandbox, and who a user
    /// namespace can not name, are root.
    pub fn from_host(stat: &Stat) -> LowerStat {
        let time = |sec: i64, nsec: i64| Timespec { tv_sec: sec, tv_nsec: nsec };
        let (uid, gid) = *OWN_IDS;
        LowerStat {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: if stat.st_uid == uid || stat.st_uid == OVERFLOW_ID { 0 } else { stat.st_uid },
            gid: if stat.st_gid == gid || stat.st_gid == OVERFLOW_ID { 0 } else { stat.st_gid },
            rdev: stat.st_rdev,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            atime: time(stat.st_atime, stat.st_atime_nsec as i64),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// Returns the `S_IFMT` bits.
    pub fn file_type(&self) -> u32 {
        self.mode & S_IFMT
    }
}

/// A name in a host directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LowerEntry {
    /// The name.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u64,
    /// `S_IFMT` bits, 0 where the host does not say.
    pub file_type: u32,
}

/// A directory of a host tree.
pub struct LowerDir {
    tree: Rc<HostTree>,
    /// Relative to the root of the tree.
    path: Box<[u8]>,
    id: u64,
    dev: u64,
    /// Whether the audience of the tree may list it and look up names.
    is_open: bool,
    allow: Option<AllowList>,
}

impl LowerDir {
    /// Returns the host's number of the device that holds the directory.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    fn fd(&self) -> Result<Rc<OwnedFd>, Errno> {
        if let Some(fd) = self.tree.fds.get(Key::Dir(self.id)) {
            return Ok(fd);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open_beneath(&self.tree.root, &self.path, flags, Mode::empty())?;
        Ok(self.tree.fds.insert(Key::Dir(self.id), fd))
    }

    /// Returns the facts about the directory itself.
    pub fn stat(&self) -> Result<LowerStat, Errno> {
        let fd = self.fd()?;
        rustix::fs::fstat(&*fd).map(|stat| LowerStat::from_host(&stat)).map_err(to_errno)
    }

    fn check_open(&self) -> Result<(), Errno> {
        if self.is_open { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Returns the path of a name relative to the root of the tree.
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if &*self.path == b"." { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() }
    }

    fn allows(&self, name: &[u8]) -> bool {
        let Some(allow) = self.allow else { return true };
        let path = self.path_of(name);
        allow.iter().any(|allowed| {
            allow_matches(allowed.as_bytes(), &path)
                || allowed.as_bytes().strip_prefix(path.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        })
    }

    /// Returns the facts about a name, or `None` where there is none (or it may not be seen).
    pub fn lookup(&self, name: &[u8]) -> Result<Option<LowerStat>, Errno> {
        self.check_open()?;
        if !self.allows(name) {
            return Ok(None);
        }
        match rustix::fs::statat(&*self.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(LowerStat::from_host(&stat))),
            Err(HostErrno::NOENT | HostErrno::ACCESS) => Ok(None),
            Err(errno) => Err(to_errno(errno)),
        }
    }

    /// Returns the directory of that name.
    pub fn subdir(&self, name: &[u8], stat: &LowerStat) -> Rc<LowerDir> {
        let path = self.path_of(name);
        // Below what is allowed as a whole, nothing is hidden.
        let is_whole =
            |allow: &AllowList| allow.iter().any(|allowed| allow_matches(allowed.as_bytes(), &path));
        let allow = self.allow.filter(|allow| !is_whole(allow));
        self.tree.dir(path, stat.dev, stat.mode, allow)
    }

    /// Returns the target of the symbolic link of that name.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        rustix::fs::readlinkat(&*self.fd()?, name, Vec::new())
            .map(|target| target.into_bytes())
            .map_err(to_errno)
    }

    /// Returns the file of that name, to be read later.
    pub fn file(self: &Rc<LowerDir>, name: &[u8], stat: &LowerStat) -> LowerFile {
        LowerFile { dir: self.clone(), name: name.into(), dev: stat.dev, ino: stat.ino }
    }

    /// Lists the directory.
    pub fn list(&self) -> Result<Vec<LowerEntry>, Errno> {
        self.check_open()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&*self.fd()?, ".", flags, Mode::empty(), resolve_flags());
        let fd = fd.map_err(to_errno)?;
        let mut entries = read_host_dir(&fd)?;
        entries.retain(|entry| self.allows(&entry.name));
        Ok(entries)
    }
}

/// Says whether an entry of an allow-list names just this path.
fn allow_matches(allowed: &[u8], path: &[u8]) -> bool {
    match allowed.split_last() {
        Some((b'*', prefix)) => path.strip_prefix(prefix).is_some_and(|rest| !rest.contains(&b'/')),
        _ => allowed == path,
    }
}

/// Lists an open host directory, without `.` and `..`.
pub fn read_host_dir(fd: impl AsFd) -> Result<Vec<LowerEntry>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut raw = RawDir::new(fd, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry.map_err(to_errno)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        entries.push(LowerEntry {
            name: name.to_vec(),
            ino: entry.ino(),
            file_type: match entry.file_type() {
                rustix::fs::FileType::Unknown => 0,
                known => known.as_raw_mode(),
            },
        });
    }
    Ok(entries)
}

/// A regular file of a host tree.
pub struct LowerFile {
    dir: Rc<LowerDir>,
    name: Box<[u8]>,
    dev: u64,
    ino: u64,
}

impl LowerFile {
    /// Returns a descriptor for reading.
    ///
    /// Errors: ESTALE where the host has put another file in its place.
    pub fn open(&self) -> Result<Rc<OwnedFd>, Errno> {
        let key = Key::File(self.dev, self.ino);
        if let Some(fd) = self.dir.tree.fds.get(key) {
            return Ok(fd);
        }
        // O_NONBLOCK: a FIFO put there meanwhile must not hold the sandbox up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = open_beneath(&*self.dir.fd()?, &self.name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd).map_err(to_errno)?;
        if (stat.st_dev, stat.st_ino) != (self.dev, self.ino) || stat.st_mode & S_IFMT != S_IFREG {
            return Err(Errno::ESTALE);
        }
        if self.dir.tree.audience == Audience::Everyone && stat.st_mode & 0o004 == 0 {
            return Err(Errno::EACCES);
        }
        Ok(self.dir.tree.fds.insert(key, fd))
    }

    /// Fills `buf` from byte `offset` on; what lies behind the end of the file becomes zero.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        let fd = self.open()?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::EOVERFLOW)?;
            match rustix::io::pread(&*fd, &mut buf[done..], at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(HostErrno::INTR) => {}
                Err(errno) => return Err(to_errno(errno)),
            }
        }
        buf[done..].fill(0);
        Ok(())
    }
}

/// Opens a host directory to be the root of a tree.
pub fn open_root(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(to_errno)?;
    let stat = rustix::fs::fstat(&fd).map_err(to_errno)?;
    if stat.st_mode & S_IFMT == S_IFDIR { Ok(fd) } else { Err(Errno::ENOTDIR) }
}
