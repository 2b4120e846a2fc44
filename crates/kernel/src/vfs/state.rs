//! What processes share with CLONE_FS: root, working directory, umask.

use lg_abi::Errno;

use super::walk::{Final, Resolve, Walk};
use super::{FileDescription, FsContext, Path};

/// Root, working directory and file mode creation mask of a process.
#[derive(Clone, Debug)]
pub struct FsState {
    /// Where absolute paths start, and what `..` does not leave.
    pub root: Path,
    /// Where relative paths start.
    pub cwd: Path,
    /// The permission bits that new files do not get.
    pub umask: u32,
}

impl FsState {
    /// Returns the state of a process at the root of the tree.
    pub fn new(root: Path) -> FsState {
        FsState { cwd: root.clone(), root, umask: 0o022 }
    }

    /// Returns the existing object that `path` names, relative to the working directory.
    pub fn lookup(&self, cx: &FsContext<'_>, path: &[u8], last_link: Final) -> Result<Path, Errno> {
        self.lookup_at(cx, &self.cwd, path, last_link)
    }

    /// Returns the existing object that `path` names, relative to `start`.
    pub fn lookup_at(
        &self,
        cx: &FsContext<'_>,
        start: &Path,
        path: &[u8],
        last_link: Final,
    ) -> Result<Path, Errno> {
        self.walk(cx, start, path, Resolve::empty())?.to_end(last_link)
    }

    /// Starts a walk of `path`, relative to `start`.
    pub fn walk<'a>(
        &self,
        cx: &'a FsContext<'a>,
        start: &Path,
        path: &[u8],
        resolve: Resolve,
    ) -> Result<Walk<'a>, Errno> {
        Walk::new(cx, &self.root, start, path, resolve)
    }

    /// Returns where a relative path starts that is given with a descriptor (`None`: AT_FDCWD).
    pub fn start(&self, dir: Option<&FileDescription>) -> Path {
        dir.map_or_else(|| self.cwd.clone(), |dir| dir.path.clone())
    }
}
