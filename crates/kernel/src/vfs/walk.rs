//! Path resolution (path_resolution(7)).
//!
//! The walker goes through a path component by component without recursion: what is left to do is a list of
//! bytes that symbolic links are spliced into. It stops before the last component, and its caller decides
//! what that is to be: something that exists, or a name to make or remove.

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{
    RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV, S_IFDIR, S_IFLNK, S_IFMT,
};

use super::permission::{Access, check_access};
use super::{FsContext, LinkTarget, Path};

/// The longest name of one component.
pub const NAME_MAX: usize = 255;
/// The longest path with its NUL.
pub const PATH_MAX: usize = 4096;
/// How many symbolic links one resolution follows.
const MAX_LINKS: u32 = 40;

bitflags::bitflags! {
    /// Restrictions on a walk: `resolve` of openat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Resolve: u64 {
        /// Stay on the mount.
        const NO_XDEV = RESOLVE_NO_XDEV as u64;
        /// Follow no magic link.
        const NO_MAGICLINKS = RESOLVE_NO_MAGICLINKS as u64;
        /// Follow no symbolic link.
        const NO_SYMLINKS = RESOLVE_NO_SYMLINKS as u64;
        /// Stay below the start.
        const BENEATH = RESOLVE_BENEATH as u64;
        /// The start is the root.
        const IN_ROOT = RESOLVE_IN_ROOT as u64;
        /// Use only what is cached; everything here is, in the sense of the manual.
        const CACHED = RESOLVE_CACHED as u64;
    }
}

/// What becomes of a symbolic link in the last component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Final {
    /// It is followed.
    Follow,
    /// It is the result.
    NoFollow,
}

/// The last component of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Last {
    /// A name in the directory reached.
    Name(Vec<u8>),
    /// `.`, or nothing at all: the directory reached itself.
    Dot,
    /// `..`.
    DotDot,
}

/// A resolution in progress.
pub struct Walk<'a> {
    cx: &'a FsContext<'a>,
    root: Path,
    at: Path,
    /// What is left of the path; the next component starts at `position`.
    rest: Vec<u8>,
    position: usize,
    links: u32,
    resolve: Resolve,
    slash_after_last: bool,
}

impl<'a> Walk<'a> {
    /// Starts a walk of `path`, from `root` where it is absolute and from `start` where it is not.
    ///
    /// Errors: ENOENT for an empty path, ENAMETOOLONG.
    pub fn new(
        cx: &'a FsContext<'a>,
        root: &Path,
        start: &Path,
        path: &[u8],
        resolve: Resolve,
    ) -> Result<Walk<'a>, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let scoped = resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
        let root = if scoped { start.clone() } else { root.clone() };
        let mut walk = Walk {
            cx,
            root,
            at: start.clone(),
            rest: path.to_vec(),
            position: 0,
            links: 0,
            resolve,
            slash_after_last: false,
        };
        if path.first() == Some(&b'/') {
            walk.jump_to_root()?;
        }
        Ok(walk)
    }

    /// Returns where the walk is: after [`Walk::to_last`] the directory of the last component.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Says whether the last component had a slash after it, so that it must be a directory.
    pub fn must_be_dir(&self) -> bool {
        self.slash_after_last
    }

    fn jump_to_root(&mut self) -> Result<(), Errno> {
        if self.resolve.contains(Resolve::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let root = self.root.clone();
        self.move_to(root)
    }

    fn move_to(&mut self, path: Path) -> Result<(), Errno> {
        if self.resolve.contains(Resolve::NO_XDEV) && !Rc::ptr_eq(&path.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = path;
        Ok(())
    }

    /// Takes the next component off the rest; `None` when nothing but slashes is left.
    fn next_component(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        let rest = self.rest.get(self.position..).unwrap_or_default();
        let Some(start) = rest.iter().position(|byte| *byte != b'/') else { return Ok(None) };
        let rest = &rest[start..];
        let len = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let name = rest[..len].to_vec();
        self.position += start + len;
        Ok(Some(name))
    }

    fn is_at_end(&self) -> bool {
        self.rest.get(self.position..).unwrap_or_default().iter().all(|byte| *byte == b'/')
    }

    /// Walks up to the last component and returns that.
    pub fn to_last(&mut self) -> Result<Last, Errno> {
        loop {
            let Some(name) = self.next_component()? else { return Ok(Last::Dot) };
            self.check_search()?;
            if self.is_at_end() {
                if self.position < self.rest.len() {
                    self.slash_after_last = true;
                }
                return Ok(match name.as_slice() {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name(name),
                });
            }
            match name.as_slice() {
                b"." => {}
                b".." => self.climb()?,
                _ => {
                    let next = self.child(&name)?;
                    self.enter(next, Final::Follow)?;
                }
            }
        }
    }

    /// Walks to the end.
    pub fn to_end(&mut self, last_link: Final) -> Result<Path, Errno> {
        loop {
            let last = self.to_last()?;
            if let Some(path) = self.resolve_last(&last, last_link)? {
                return Ok(path);
            }
        }
    }

    /// Looks up the last component. `None`: it was a symbolic link, which is now spliced into the walk, so
    /// call [`Walk::to_last`] again.
    pub fn resolve_last(&mut self, last: &Last, last_link: Final) -> Result<Option<Path>, Errno> {
        match last {
            Last::Dot => {}
            Last::DotDot => self.climb()?,
            Last::Name(name) => {
                let next = self.child(name)?;
                let follow = if self.slash_after_last { Final::Follow } else { last_link };
                if self.enter(next, follow)? == Entered::Link {
                    return Ok(None);
                }
            }
        }
        if self.slash_after_last {
            self.check_is_dir()?;
        }
        Ok(Some(self.at.clone()))
    }

    /// Looks up a name in the directory reached, going up to what is mounted there.
    ///
    /// Errors: ENOENT, ENAMETOOLONG, and those of the file system.
    pub fn child(&self, name: &[u8]) -> Result<Path, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let dentry = self.at.dentry.child(self.cx, name)?;
        Ok(self.cx.vfs.cross_mounts(self.at.with(dentry)))
    }

    /// Goes to a child, or through it where it is a symbolic link to be followed.
    fn enter(&mut self, next: Path, link: Final) -> Result<Entered, Errno> {
        if link == Final::Follow && next.inode().attr(self.cx)?.mode & S_IFMT == S_IFLNK {
            self.follow(&next)?;
            return Ok(Entered::Link);
        }
        self.move_to(next)?;
        Ok(Entered::Object)
    }

    fn follow(&mut self, link: &Path) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS || self.resolve.contains(Resolve::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        match link.inode().read_link(self.cx)? {
            LinkTarget::Magic { to, .. } => {
                if self.resolve.contains(Resolve::NO_MAGICLINKS) {
                    return Err(Errno::ELOOP);
                }
                if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT) {
                    return Err(Errno::EXDEV);
                }
                self.move_to(to)
            }
            LinkTarget::Path(mut target) => {
                if target.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if target.first() == Some(&b'/') {
                    self.jump_to_root()?;
                }
                target.extend_from_slice(self.rest.get(self.position..).unwrap_or_default());
                self.rest = target;
                self.position = 0;
                Ok(())
            }
        }
    }

    fn climb(&mut self) -> Result<(), Errno> {
        let mut at = self.at.clone();
        loop {
            if at.same(&self.root) {
                return if self.resolve.contains(Resolve::BENEATH) { Err(Errno::EXDEV) } else { Ok(()) };
            }
            if !Rc::ptr_eq(&at.dentry, &at.mount.root) {
                break;
            }
            // The root of a mount: its parent is that of the mount point.
            match &at.mount.at {
                Some(mount_point) => at = mount_point.clone(),
                None => return Ok(()),
            }
        }
        if let Some(parent) = at.dentry.parent() {
            let parent = self.cx.vfs.cross_mounts(at.with(parent));
            self.move_to(parent)?;
        }
        Ok(())
    }

    fn check_is_dir(&self) -> Result<(), Errno> {
        match self.at.inode().attr(self.cx)?.mode & S_IFMT {
            S_IFDIR => Ok(()),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn check_search(&self) -> Result<(), Errno> {
        let attr = self.at.inode().attr(self.cx)?;
        if attr.mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        check_access(self.cx, &attr, Access::EXEC)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entered {
    Object,
    Link,
}
