//! Paths as text: what getcwd(2) and `/proc` show.

use std::rc::Rc;

use lg_abi::Errno;

use super::walk::PATH_MAX;
use super::{Path, Vfs};

/// The text of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The absolute path.
    pub text: Vec<u8>,
    /// Whether the root that was asked for lies above it.
    pub reachable: bool,
    /// Whether its name, or that of a directory above it, was removed.
    pub deleted: bool,
}

impl Vfs {
    /// Returns the text of `path` as seen from `root`.
    ///
    /// Errors: ENAMETOOLONG where it is longer than PATH_MAX.
    pub fn show(&self, root: &Path, path: &Path) -> Result<Shown, Errno> {
        let mut names: Vec<Rc<[u8]>> = Vec::new();
        let mut len = 0usize;
        let mut deleted = path.dentry.is_deleted();
        let mut at = path.clone();
        let reachable = loop {
            if at.same(root) {
                break true;
            }
            if Rc::ptr_eq(&at.dentry, &at.mount.root) {
                match &at.mount.at {
                    Some(mount_point) => {
                        at = mount_point.clone();
                        continue;
                    }
                    None => break false,
                }
            }
            let Some(parent) = at.dentry.parent() else { break false };
            deleted |= at.dentry.is_deleted();
            let name = at.dentry.name();
            len = len.saturating_add(name.len() + 1);
            if len >= PATH_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            names.push(name);
            at = at.with(parent);
        };
        let mut text = Vec::with_capacity(len + 1);
        for name in names.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(name);
        }
        if text.is_empty() {
            text.push(b'/');
        }
        Ok(Shown { text, reachable, deleted })
    }

    /// Returns the text that the links and tables of `/proc` show for `path`: with ` (deleted)` behind a
    /// removed name, and for a nameless file its description.
    pub fn show_in_proc(&self, root: &Path, path: &Path) -> Result<Vec<u8>, Errno> {
        if self.is_nameless(path) {
            return Ok(path.dentry.name().to_vec());
        }
        let mut shown = self.show(root, path)?;
        if shown.deleted {
            shown.text.extend_from_slice(b" (deleted)");
        }
        if !shown.reachable {
            shown.text.splice(0..0, b"(unreachable)".iter().copied());
        }
        Ok(shown.text)
    }

    /// Returns the answer of getcwd(2).
    ///
    /// Errors: ENOENT where the directory was removed.
    pub fn show_cwd(&self, root: &Path, cwd: &Path) -> Result<Vec<u8>, Errno> {
        let mut shown = self.show(root, cwd)?;
        if shown.deleted {
            return Err(Errno::ENOENT);
        }
        if !shown.reachable {
            shown.text.splice(0..0, b"(unreachable)".iter().copied());
        }
        Ok(shown.text)
    }
}
