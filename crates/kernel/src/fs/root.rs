//! The root namespace of a sandbox: image, devices, `/proc`, `/sys` and the directories passed through.

use std::path::PathBuf;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, S_IFMT, SYSFS_MAGIC};

use super::host::{Image, ImageError, OWN_IDS, populate};
use super::hostfs::{HostAccess, HostFs, HostShape};
use super::memfs::{MemFs, MemLimits};
use super::{dev, proc, pty};
use crate::vfs::{Dentry, Final, FsContext, FsState, MountFlags, NewInode, Path, SuperBlock, ops};

/// A host file or directory that the sandbox sees as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostMount {
    /// The path on the host.
    pub source: PathBuf,
    /// The absolute path in the sandbox; made where it does not exist.
    pub target: Vec<u8>,
    /// Whether it can be written.
    pub access: HostAccess,
}

/// What the root namespace is made of.
#[derive(Clone, Debug)]
pub struct RootConfig {
    /// The root file system.
    pub image: Image,
    /// What is mounted over it, in this order.
    pub mounts: Vec<HostMount>,
    /// The host name, for `/etc/hosts` and `/etc/hostname`.
    pub hostname: Vec<u8>,
    /// How much can be written to the root file system.
    pub limits: MemLimits,
    /// How much `/dev/shm` holds, in pages.
    pub shm_pages: u64,
}

/// Why the root namespace can not be made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The image can not be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file system that every sandbox has can not be mounted.
    #[error("cannot mount {target}: {errno}")]
    Mount {
        /// The path in the sandbox.
        target: String,
        /// Why.
        errno: Errno,
    },
    /// What is to be passed through can not be opened on the host.
    #[error("cannot open {source_path} to mount it: {errno}")]
    Source {
        /// The path on the host.
        source_path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The mount point of what is passed through can not be made.
    #[error("cannot make the mount point {target}: {errno}")]
    Target {
        /// The path in the sandbox.
        target: String,
        /// Why.
        errno: Errno,
    },
}

/// Makes the root namespace in `cx.vfs`, which must be empty, and returns its root. `cx` must be the
/// superuser's. Host paths are opened here and only here.
pub fn build_root(cx: &FsContext<'_>, config: &RootConfig) -> Result<Path, RootError> {
    std::sync::LazyLock::force(&OWN_IDS);
    let failed = |target: &str| {
        let target = target.to_owned();
        move |errno| RootError::Mount { target, errno }
    };
    let (mem, node) = config.image.root(cx, config.limits)?;
    let root_dentry = Dentry::new_root(node, b"/");
    cx.vfs
        .mount(mem.super_block("overlay"), root_dentry, None, MountFlags::NO_SUID, b"overlay")
        .map_err(failed("/"))?;
    let root = cx.vfs.root().map_err(failed("/"))?;
    populate(cx, &root, &config.hostname)?;
    let fs = FsState { umask: 0, ..FsState::new(root.clone()) };
    mount_dev(cx, &fs, config.shm_pages).map_err(failed("/dev"))?;
    mount_proc(cx, &fs).map_err(failed("/proc"))?;
    for mount in &config.mounts {
        mount_host(cx, &fs, mount)?;
    }
    Ok(root)
}

fn mount_dev(cx: &FsContext<'_>, fs: &FsState, shm_pages: u64) -> Result<(), Errno> {
    let safe = MountFlags::NO_SUID | MountFlags::NO_EXEC;
    let limits = MemLimits { pages: 256, units: 10_000 };
    let at = fs.lookup(cx, b"/dev", Final::Follow)?;
    let mount = MemFs::mount_tmpfs(cx, cx.vfs, at, 0o755, safe, limits)?;
    let dir = Path::root_of(&mount);
    for device in dev::DEVICES {
        ops::create(cx, fs, &dir, device.name.as_bytes(), device.node(), device.mode)?;
    }
    for (name, target) in dev::LINKS {
        ops::create(cx, fs, &dir, name.as_bytes(), NewInode::Symlink((*target).into()), 0o777)?;
    }
    let pts = ops::create(cx, fs, &dir, b"pts", NewInode::Dir, 0o755)?;
    pty::devpts::mount(cx, pts)?;
    let shm = ops::create(cx, fs, &dir, b"shm", NewInode::Dir, 0o755)?;
    let limits = MemLimits { pages: shm_pages, ..MemLimits::default() };
    MemFs::mount_tmpfs(cx, cx.vfs, shm, 0o1777, MountFlags::NO_SUID | MountFlags::NO_DEV, limits)?;
    Ok(())
}

fn mount_proc(cx: &FsContext<'_>, fs: &FsState) -> Result<(), Errno> {
    let safe = MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
    for (path, type_name, magic, tree) in [
        ("/proc", "proc", PROC_SUPER_MAGIC, proc::Tree::Proc),
        ("/sys", "sysfs", SYSFS_MAGIC, proc::Tree::Sys),
        ("/sys/fs/cgroup", "cgroup2", CGROUP2_SUPER_MAGIC, proc::Tree::Cgroup),
    ] {
        let dev = cx.vfs.new_dev();
        let sb = Rc::new(SuperBlock { type_name, magic, dev });
        let root = Dentry::new_root(proc::new_root(dev, tree), b"/");
        let at = fs.lookup(cx, path.as_bytes(), Final::Follow)?;
        cx.vfs.mount(sb, root, Some(at), safe, type_name.as_bytes())?;
    }
    Ok(())
}

fn mount_host(cx: &FsContext<'_>, fs: &FsState, mount: &HostMount) -> Result<(), RootError> {
    let target_name = String::from_utf8_lossy(&mount.target).into_owned();
    let source = |errno| RootError::Source { source_path: mount.source.clone(), errno };
    let target = |errno| RootError::Target { target: target_name.clone(), errno };
    let (host, root, shape) = HostFs::open(cx, &mount.source, mount.access).map_err(source)?;
    let at = make_mount_point(cx, fs, &mount.target, shape).map_err(target)?;
    let mut flags = MountFlags::NO_SUID | MountFlags::NO_DEV;
    if mount.access == HostAccess::ReadOnly {
        flags |= MountFlags::READ_ONLY;
    }
    cx.vfs
        .mount(host.super_block(), Dentry::new_root(root, b"/"), Some(at), flags, b"host")
        .map_err(|errno| RootError::Mount { target: target_name.clone(), errno })?;
    Ok(())
}

/// Makes the directories of a path, and at its end what a mount of that shape needs.
fn make_mount_point(cx: &FsContext<'_>, fs: &FsState, path: &[u8], shape: HostShape) -> Result<Path, Errno> {
    if path.first() != Some(&b'/') {
        return Err(Errno::EINVAL);
    }
    let mut done = Vec::new();
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    for (position, name) in names.iter().enumerate() {
        done.push(b'/');
        done.extend_from_slice(name);
        let is_last = position + 1 == names.len();
        let what = if is_last && shape == HostShape::File { NewInode::File } else { NewInode::Dir };
        let mode = if what == NewInode::Dir { 0o755 } else { 0o644 };
        match ops::create(cx, fs, &fs.root, &done, what, mode) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    let at = fs.lookup(cx, &done, Final::Follow)?;
    let is_dir = at.inode().attr(cx)?.mode & S_IFMT == lg_abi::raw::general::S_IFDIR;
    match (is_dir, shape) {
        (true, HostShape::Dir) | (false, HostShape::File) => Ok(at),
        (true, HostShape::File) => Err(Errno::EISDIR),
        (false, HostShape::Dir) => Err(Errno::ENOTDIR),
    }
}
