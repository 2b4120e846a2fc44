//! Images: what the root file system shows before anything is changed.

use std::ffi::OsString;
use std::io;
use std::path::{Path as HostPath, PathBuf};
use std::rc::Rc;

use lg_abi::Errno;
use rustix::fs::{AtFlags, CWD};

use super::own_files::OwnFiles;
use super::tree::{AllowList, Audience, HostTree, open_root, to_errno};
use crate::fs::memfs::{MemFs, MemLimits, MemNode};
use crate::vfs::{FsContext, FsState, Inode, NewInode, Path, ops};

/// A root file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Image {
    /// A vetted view of the host: its programs and libraries, and the harmless part of `/etc`.
    Host,
    /// The files below a directory.
    Dir(PathBuf),
}

/// Why an image can not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A directory of the host can not be opened.
    #[error("cannot open the directory {path} for the image: {errno}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// A file or directory that every sandbox has can not be made in it.
    #[error("cannot make {path} in the root file system: {errno}")]
    Make {
        /// The path in the sandbox.
        path: String,
        /// Why.
        errno: Errno,
    },
}

/// Directories that the view of the host shows whole.
const WHOLE: &[&str] = &["usr", "opt"];

/// Directories that are, on a merged system, symbolic links into `/usr`.
const PROGRAMS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What the view of the host shows of `/etc`. Anything that may hold a secret, a name of the host or a rule
/// about its users is left out.
const ETC: AllowList = &[
    "alternatives",
    "apache2/mime.types",
    "bash.bashrc",
    "bash_completion.d",
    "bindresvport.blacklist",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "dictionaries-common",
    "dpkg/origins",
    "emacs",
    "ethertypes",
    "fonts",
    "gai.conf",
    "groff",
    "group",
    "host.conf",
    "inputrc",
    "issue",
    "java*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "locale.gen",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "magic.mime",
    "mailcap",
    "manpath.config",
    "mime.types",
    "nanorc",
    "networks",
    "nsswitch.conf",
    "opt",
    "os-release",
    "passwd",
    "perl",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "profile",
    "profile.d",
    "protocols",
    "python*",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "skel",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vim",
    "wgetrc",
    "xattr.conf",
    "xml",
];

/// Directories that every sandbox has, with their modes. In the view of the host these are empty.
const DIRECTORIES: &[(&str, u32)] = &[
    ("/boot", 0o755),
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
];

impl Image {
    /// Makes the root file system: the image under a copy-on-write layer in memory.
    pub fn root(
        &self,
        cx: &FsContext<'_>,
        limits: MemLimits,
    ) -> Result<(Rc<MemFs>, Rc<MemNode>), ImageError> {
        let making = |errno| ImageError::Make { path: "/".into(), errno };
        let (fs, root) = match self {
            Image::Dir(path) => {
                let tree = open_tree(path, Audience::Owner)?;
                let lower = tree.root_dir(None).map_err(making)?;
                MemFs::new(cx, limits, 0o755, Some(lower)).map_err(making)?
            }
            Image::Host => MemFs::new(cx, limits, 0o755, None).map_err(making)?,
        };
        fs.number_above_host();
        if *self == Image::Host {
            add_host_directories(cx, &root)?;
        }
        Ok((fs, root))
    }
}

/// The absolute paths of the host that [`Image::Host`] shows, as far as they are there and can be reached: what a process
/// must be able to reach to make that image. Symbolic links among them are to be seen as such.
///
/// # Errors
/// The first path that the host can not look at, with what it said.
pub fn host_paths() -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let root = HostPath::new("/");
    let mut paths: Vec<PathBuf> = WHOLE.iter().chain(PROGRAMS).map(|name| root.join(name)).collect();
    for entry in ETC {
        let path = root.join("etc").join(entry);
        let Some(start) = entry.strip_suffix('*') else {
            paths.push(path);
            continue;
        };
        let (dir, start) = start.rsplit_once('/').unwrap_or(("", start));
        let dir = root.join("etc").join(dir);
        let names = names_in(&dir).map_err(|error| (dir.clone(), error))?;
        let named_so = |name: &OsString| name.as_encoded_bytes().starts_with(start.as_bytes());
        paths.extend(names.into_iter().filter(named_so).map(|name| dir.join(name)));
    }
    let mut there = Vec::new();
    for path in paths {
        match path.symlink_metadata() {
            Ok(_) => there.push(path),
            Err(error) if is_unreachable(&error) => {}
            Err(error) => return Err((path, error)),
        }
    }
    Ok(there)
}

/// The names in a directory; none where it is not there.
fn names_in(dir: &HostPath) -> io::Result<Vec<OsString>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if is_unreachable(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether an error says that there is nothing for this user to see.
fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn open_tree(path: &HostPath, audience: Audience) -> Result<Rc<HostTree>, ImageError> {
    match open_root(path) {
        Ok(root) => Ok(HostTree::new(root, audience)),
        Err(errno) => Err(ImageError::Open { path: path.to_owned(), errno }),
    }
}

fn add_host_directories(cx: &FsContext<'_>, root: &MemNode) -> Result<(), ImageError> {
    for name in WHOLE.iter().chain(PROGRAMS) {
        let path = HostPath::new("/").join(name);
        let making = |errno| ImageError::Make { path: format!("/{name}"), errno };
        match rustix::fs::readlinkat(CWD, &path, Vec::new()) {
            Ok(target) => {
                root.create(cx, name.as_bytes(), NewInode::Symlink(target.into_bytes()), 0o777)
                    .map_err(making)?;
                continue;
            }
            Err(rustix::io::Errno::INVAL) => {}
            Err(rustix::io::Errno::NOENT) => continue,
            Err(errno) => return Err(ImageError::Open { path, errno: to_errno(errno) }),
        }
        let lower = open_tree(&path, Audience::Everyone)?.root_dir(None).map_err(making)?;
        root.graft(cx, name.as_bytes(), lower).map_err(making)?;
    }
    let etc = HostPath::new("/etc");
    match rustix::fs::statat(CWD, etc, AtFlags::empty()) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(ImageError::Open { path: etc.to_owned(), errno: to_errno(errno) }),
    }
    let making = |errno| ImageError::Make { path: "/etc".into(), errno };
    let lower = open_tree(etc, Audience::Everyone)?.root_dir(Some(ETC)).map_err(making)?;
    root.graft(cx, b"etc", lower).map_err(making)?;
    Ok(())
}

/// Makes what every sandbox has: the usual directories, and the files of `/etc` that name this one.
pub fn populate(cx: &FsContext<'_>, root: &Path, hostname: &[u8]) -> Result<(), ImageError> {
    let fs = FsState { umask: 0, ..FsState::new(root.clone()) };
    for (path, mode) in DIRECTORIES {
        match ops::create(cx, &fs, root, path.as_bytes(), NewInode::Dir, *mode) {
            Ok(dir) => ops::chmod(cx, &dir, *mode),
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
        .map_err(|errno| ImageError::Make { path: (*path).to_owned(), errno })?;
    }
    OwnFiles::new(cx, root)
        .write_all(hostname)
        .map_err(|(path, errno)| ImageError::Make { path: path.to_owned(), errno })?;
    let mtab = NewInode::Symlink(b"/proc/mounts".to_vec());
    match ops::create(cx, &fs, root, b"/etc/mtab", mtab, 0o777) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(ImageError::Make { path: "/etc/mtab".into(), errno }),
    }
}
