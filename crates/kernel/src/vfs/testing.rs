//! A kernel small enough for tests of file systems: memory from the mock platform, no processes.

#![cfg_attr(not(test), allow(dead_code, reason = "tests use more of it than benches"))]

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use lg_abi::raw::general::{O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, S_IFMT, S_IFREG};
use lg_abi::{Errno, Timespec};
use lg_platform::Platform;
use lg_platform::mock::MockPlatform;

use super::open::OpenRequest;
use super::*;
use crate::fs::host::{Audience, HostTree};
use crate::fs::memfs::{MemFs, MemLimits};
use crate::mm::Frames;
use crate::task::{Credentials, Stop, Tid};

/// No processes.
pub struct NoProcs;

impl ProcSource for NoProcs {
    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }
    fn runs(&self, _inode: &Rc<dyn Inode>) -> bool {
        false
    }

    fn process(&self, _pid: u32) -> Option<ProcessFacts> {
        None
    }
    fn tids(&self, _pid: u32) -> Vec<u32> {
        Vec::new()
    }
    fn thread(&self, _pid: u32, _tid: u32) -> Option<ThreadFacts> {
        None
    }
    fn pid_of(&self, _tid: u32) -> Option<u32> {
        None
    }
    fn pending_signals(&self, _tid: u32) -> lg_abi::SigSet {
        lg_abi::SigSet::EMPTY
    }
    fn maps(&self, _pid: u32) -> Option<Vec<MapFacts>> {
        None
    }
    fn cmdline(&self, _pid: u32) -> Option<Vec<u8>> {
        None
    }
    fn environ(&self, _pid: u32) -> Option<Vec<u8>> {
        None
    }
    fn auxv(&self, _pid: u32) -> Option<Vec<u8>> {
        None
    }
    fn fds(&self, _pid: u32) -> Option<Rc<RefCell<FdTable>>> {
        None
    }
    fn fs_state(&self, _pid: u32) -> Option<Rc<RefCell<FsState>>> {
        None
    }
    fn exe(&self, _pid: u32) -> Option<Path> {
        None
    }
    fn system(&self) -> SystemFacts {
        SystemFacts::default()
    }
    fn ipc_table(&self, _table: crate::ipc::Table) -> String {
        String::new()
    }
    fn set_comm(&self, _asking: u32, _tid: u32, _comm: &[u8]) -> Result<(), Errno> {
        Err(Errno::ESRCH)
    }
    fn set_oom_score_adj(&self, _creds: &Credentials, _pid: u32, _value: i32) -> Result<(), Errno> {
        Err(Errno::ESRCH)
    }
}

/// The credentials of the superuser.
pub fn root_creds() -> Credentials {
    permission::superuser()
}

/// The credentials of an ordinary user.
pub fn user_creds(uid: u32) -> Credentials {
    Credentials::new(uid, uid)
}

/// A root file system and a task that looks at it.
pub struct World {
    pub frames: Rc<Frames>,
    pub vfs: Vfs,
    pub creds: Credentials,
    pub fs: FsState,
    pub now: Cell<i64>,
    pub procs: Box<dyn ProcSource>,
}

impl World {
    /// Returns a world whose root is an empty tmpfs.
    pub fn new() -> World {
        World::with_limits(4096, MemLimits::default(), None)
    }

    /// Returns a world whose root is an overlay on a host directory.
    pub fn over(dir: &TempDir) -> World {
        World::with_limits(4096, MemLimits::default(), Some(dir))
    }

    pub fn with_limits(frames: u32, limits: MemLimits, lower: Option<&TempDir>) -> World {
        World::with_memfs(frames, limits, lower).0
    }

    /// Returns the file system at the root, too.
    pub fn with_memfs(frames: u32, limits: MemLimits, lower: Option<&TempDir>) -> (World, Rc<MemFs>) {
        let frames = Frames::new(MockPlatform::new(frames).frames());
        let vfs = Vfs::new();
        let creds = root_creds();
        let cx = FsContext {
            creds: &creds,
            tid: Tid(1),
            now: Timespec { tv_sec: 1_000_000, tv_nsec: 0 },
            monotonic_ns: 0,
            frames: &frames,
            procs: &NoProcs,
            vfs: &vfs,
        };
        let lower = lower.map(|dir| {
            let root = crate::fs::host::open_root(&dir.0).unwrap();
            HostTree::new(root, Audience::Owner).root_dir(None).unwrap()
        });
        let (mem, root) = MemFs::new(&cx, limits, 0o755, lower).unwrap();
        let sb = mem.super_block("tmpfs");
        vfs.mount(sb, Dentry::new_root(root, b"/"), None, MountFlags::empty(), b"root").unwrap();
        let fs = FsState::new(vfs.root().unwrap());
        let world = World { frames, vfs, creds, fs, now: Cell::new(1_000_000), procs: Box::new(NoProcs) };
        (world, mem)
    }

    pub fn cx(&self) -> FsContext<'_> {
        FsContext {
            creds: &self.creds,
            tid: Tid(1),
            now: Timespec { tv_sec: self.now.get(), tv_nsec: 0 },
            monotonic_ns: 0,
            frames: &self.frames,
            procs: &*self.procs,
            vfs: &self.vfs,
        }
    }

    pub fn open(&self, path: &str, flags: u32) -> Result<Rc<FileDescription>, Errno> {
        self.try_open(path, flags).map_err(|stop| match stop {
            Stop::Errno(errno) => errno,
            other => panic!("{path}: {other:?}"),
        })
    }

    pub fn try_open(&self, path: &str, flags: u32) -> Result<Rc<FileDescription>, Stop> {
        let request = OpenRequest::new(flags, 0o666);
        open::open(&self.cx(), &self.fs, &self.fs.cwd, path.as_bytes(), &request)
    }

    pub fn write(&self, path: &str, data: &[u8]) {
        let file = self.open(path, O_WRONLY | O_CREAT | O_TRUNC).unwrap();
        let mut done = 0;
        while done < data.len() {
            done += file.file.write(&self.cx(), done as u64, &data[done..]).unwrap();
        }
    }

    pub fn write_at(&self, path: &str, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        self.open(path, O_RDWR)?.file.write(&self.cx(), offset, data)
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let file = self.open(path, O_RDONLY)?;
        let mut all = Vec::new();
        let mut buf = [0; 1000];
        loop {
            match file.file.read(&self.cx(), all.len() as u64, &mut buf)? {
                0 => return Ok(all),
                read => all.extend_from_slice(&buf[..read]),
            }
        }
    }

    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.read(path).unwrap_or_else(|errno| panic!("{path}: {errno}"))).unwrap()
    }

    pub fn path(&self, path: &str) -> Result<Path, Errno> {
        self.fs.lookup(&self.cx(), path.as_bytes(), Final::Follow)
    }

    pub fn link_path(&self, path: &str) -> Result<Path, Errno> {
        self.fs.lookup(&self.cx(), path.as_bytes(), Final::NoFollow)
    }

    pub fn attr(&self, path: &str) -> Result<Attr, Errno> {
        self.link_path(path)?.inode().attr(&self.cx())
    }

    pub fn create(&self, path: &str, what: NewInode, mode: u32) -> Result<Path, Errno> {
        ops::create(&self.cx(), &self.fs, &self.fs.cwd, path.as_bytes(), what, mode)
    }

    pub fn mkdir(&self, path: &str) -> Result<Path, Errno> {
        self.create(path, NewInode::Dir, 0o777)
    }

    pub fn symlink(&self, target: &str, path: &str) {
        self.create(path, NewInode::Symlink(target.into()), 0).unwrap();
    }

    pub fn link(&self, old: &str, new: &str) -> Result<(), Errno> {
        ops::link(&self.cx(), &self.fs, &self.link_path(old)?, &self.fs.cwd, new.as_bytes())
    }

    pub fn unlink(&self, path: &str) -> Result<(), Errno> {
        ops::unlink(&self.cx(), &self.fs, &self.fs.cwd, path.as_bytes())
    }

    pub fn rmdir(&self, path: &str) -> Result<(), Errno> {
        ops::rmdir(&self.cx(), &self.fs, &self.fs.cwd, path.as_bytes())
    }

    pub fn rename(&self, old: &str, new: &str, flags: u32) -> Result<(), Errno> {
        let at = &self.fs.cwd;
        ops::rename(&self.cx(), &self.fs, (at, old.as_bytes()), (at, new.as_bytes()), flags)
    }

    /// Returns the names in a directory, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        self.path(path)?.inode().read_dir(&self.cx(), 0, &mut |entry| {
            names.push(String::from_utf8(entry.name).unwrap());
            true
        })?;
        names.sort();
        Ok(names)
    }

    pub fn show(&self, path: &Path) -> String {
        String::from_utf8(self.vfs.show_in_proc(&self.fs.root, path).unwrap()).unwrap()
    }

    /// Writes down the whole tree: path, type and mode, contents.
    pub fn dump(&self, path: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut todo = vec![path.trim_end_matches('/').to_string()];
        while let Some(dir) = todo.pop() {
            for name in self.list(if dir.is_empty() { "/" } else { &dir }).unwrap() {
                let path = format!("{dir}/{name}");
                let attr = self.attr(&path).unwrap();
                match attr.mode & S_IFMT {
                    S_IFREG => lines.push(format!("{path} {:o} {}", attr.mode, self.text(&path))),
                    _ => lines.push(format!("{path} {:o}", attr.mode)),
                }
                if attr.mode & S_IFMT == lg_abi::raw::general::S_IFDIR {
                    todo.push(path);
                }
            }
        }
        lines.sort();
        lines
    }
}

/// A host directory that is removed with its last user.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lg-vfs-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        TempDir(dir)
    }

    pub fn write(&self, path: &str, data: impl AsRef<[u8]>) -> &TempDir {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
        self
    }

    pub fn symlink(&self, target: &str, path: &str) -> &TempDir {
        std::os::unix::fs::symlink(target, self.0.join(path)).unwrap();
        self
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
