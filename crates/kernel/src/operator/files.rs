//! Files, read and written in chunks.

use lg_abi::Errno;
use lg_abi::raw::general::{
    O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_TRUNC, O_WRONLY, RENAME_NOREPLACE, S_IFDIR, S_IFLNK, S_IFMT,
};

use super::programs::is_regular;
use crate::Kernel;
use crate::task::Stop;
use crate::vfs::open::{OpenRequest, open};
use crate::vfs::{Attr, FileDescription, Final, FsContext, FsState, LinkTarget, NewInode, Path, ops};

/// The most bytes that are read or written at once.
pub const MAX_CHUNK: usize = 1 << 20;

/// The most entries that one listing answers.
const MAX_ENTRIES: usize = 4096;

/// How a chunk is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteMode {
    /// The file is made or emptied first.
    Replace,
    /// The file must not be there yet.
    New,
    /// The file must be there; the rest of it stays.
    Into,
}

/// What is told of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileFacts {
    /// File type and permission bits, as in stat(2).
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents, in ns since 1970.
    pub modified_ns: u64,
    /// Where a symbolic link leads.
    pub link: Option<Vec<u8>>,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its type, as in the mode of stat(2).
    pub file_type: u32,
}

impl Kernel {
    fn at_root<T>(&self, act: impl FnOnce(&FsContext<'_>, &FsState) -> Result<T, Errno>) -> Result<T, Errno> {
        self.as_superuser(|cx| {
            let root = cx.vfs.root()?;
            act(cx, &FsState::new(root))
        })
    }

    /// Reads up to `len` bytes (at most [`MAX_CHUNK`]) of a regular file from `offset` on; fewer only at its end.
    ///
    /// Errors: those of open(2); EISDIR, and EINVAL for other special files.
    pub fn read_file(&self, path: &[u8], offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        self.at_root(|cx, fs| {
            let description = open_regular(cx, fs, path, O_RDONLY, 0)?;
            let mut bytes = vec![0; len.min(MAX_CHUNK)];
            let mut done = 0;
            while done < bytes.len() {
                match description.file.read(cx, offset.saturating_add(done as u64), &mut bytes[done..])? {
                    0 => break,
                    got => done += got,
                }
            }
            bytes.truncate(done);
            Ok(bytes)
        })
    }

    /// Writes a chunk of a regular file at `offset`. A file that is made has these permission bits.
    ///
    /// Errors: those of open(2) and write(2).
    pub fn write_file(
        &self,
        path: &[u8],
        offset: u64,
        data: &[u8],
        mode: WriteMode,
        permissions: u32,
    ) -> Result<(), Errno> {
        self.at_root(|cx, fs| {
            let flags = match mode {
                WriteMode::Replace => O_CREAT,
                WriteMode::New => O_CREAT | O_EXCL,
                WriteMode::Into => 0,
            };
            let fs = FsState { umask: 0, ..fs.clone() };
            let description = open_regular(cx, &fs, path, O_WRONLY | flags, permissions)?;
            if mode == WriteMode::Replace {
                // Not O_TRUNC: mappings of the file must notice.
                ops::truncate(cx, &description.path, 0)?;
                self.file_truncated(description.inode(), 0);
            }
            let mut done = 0;
            while done < data.len() {
                match description.file.write(cx, offset.saturating_add(done as u64), &data[done..])? {
                    0 => return Err(Errno::ENOSPC),
                    wrote => done += wrote,
                }
            }
            Ok(())
        })
    }

    /// Tells of what is at a path, without following a last link.
    pub fn stat_file(&self, path: &[u8]) -> Result<FileFacts, Errno> {
        self.at_root(|cx, fs| {
            let path = fs.lookup(cx, path, Final::NoFollow)?;
            let attr = path.inode().attr(cx)?;
            let link = match attr.mode & S_IFMT {
                S_IFLNK => match path.inode().read_link(cx)? {
                    LinkTarget::Path(target) => Some(target),
                    LinkTarget::Magic { shown, .. } => Some(shown),
                },
                _ => None,
            };
            Ok(facts(&attr, link))
        })
    }

    /// Lists a directory from `cursor` on; 0 is the start. Answers the entries and where to go on, if there is more.
    pub fn list_dir(&self, path: &[u8], cursor: u64) -> Result<(Vec<Entry>, Option<u64>), Errno> {
        self.at_root(|cx, fs| {
            let dir = fs.lookup(cx, path, Final::Follow)?;
            let (mut entries, mut next): (Vec<Entry>, Option<u64>) = (Vec::new(), None);
            dir.inode().read_dir(cx, cursor, &mut |entry| {
                next = Some(entry.next);
                entries.push(Entry { name: entry.name, file_type: entry.file_type });
                entries.len() < MAX_ENTRIES
            })?;
            let next = next.filter(|_| entries.len() >= MAX_ENTRIES);
            Ok((entries, next))
        })
    }

    /// Makes a directory, and with `parents` those above it that are missing; then one that is there is fine.
    pub fn make_dir(&self, path: &[u8], permissions: u32, parents: Parents) -> Result<(), Errno> {
        self.at_root(|cx, fs| {
            let fs = FsState { umask: 0, ..fs.clone() };
            if parents == Parents::Required {
                return ops::create(cx, &fs, &fs.root, path, NewInode::Dir, permissions).map(drop);
            }
            let mut done = Vec::new();
            for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                done.push(b'/');
                done.extend_from_slice(name);
                match ops::create(cx, &fs, &fs.root, &done, NewInode::Dir, permissions) {
                    Ok(_) => {}
                    Err(Errno::EEXIST) => {
                        let at = fs.lookup(cx, &done, Final::Follow)?;
                        if at.inode().attr(cx)?.mode & S_IFMT != S_IFDIR {
                            return Err(Errno::ENOTDIR);
                        }
                    }
                    Err(errno) => return Err(errno),
                }
            }
            Ok(())
        })
    }

    /// Removes a file or an empty directory, and with [`Depth::All`] a directory with all that is in it.
    pub fn remove(&self, path: &[u8], depth: Depth) -> Result<(), Errno> {
        self.at_root(|cx, fs| {
            let at = fs.lookup(cx, path, Final::NoFollow)?;
            if at.inode().attr(cx)?.mode & S_IFMT != S_IFDIR {
                return ops::unlink(cx, fs, &fs.root, path);
            }
            if depth == Depth::All {
                remove_children(cx, fs, &at)?;
            }
            ops::rmdir(cx, fs, &fs.root, path)
        })
    }

    /// Gives a file another name; nothing may have that name yet.
    pub fn rename_file(&self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        self.at_root(|cx, fs| ops::rename(cx, fs, (&fs.root, from), (&fs.root, to), RENAME_NOREPLACE))
    }
}

/// Whether the directories above must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parents {
    /// They must.
    Required,
    /// They are made.
    Made,
}

/// How much is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// A file or an empty directory.
    One,
    /// A directory with all that is in it, too.
    All,
}

/// Empties a directory. It goes down one directory at a time and starts again above, so that no depth is too great.
fn remove_children(cx: &FsContext<'_>, fs: &FsState, top: &Path) -> Result<(), Errno> {
    let mut stack = vec![top.clone()];
    while let Some(dir) = stack.last().cloned() {
        let mut entries = Vec::new();
        dir.inode().read_dir(cx, 0, &mut |entry| {
            entries.push(entry);
            true
        })?;
        let mut below = None;
        for entry in entries {
            if entry.file_type != S_IFDIR {
                ops::unlink(cx, fs, &dir, &entry.name)?;
                continue;
            }
            match ops::rmdir(cx, fs, &dir, &entry.name) {
                Ok(()) => {}
                Err(Errno::ENOTEMPTY) => {
                    below = Some(fs.lookup_at(cx, &dir, &entry.name, Final::NoFollow)?);
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        match below {
            Some(path) => stack.push(path),
            None => {
                stack.pop();
            }
        }
    }
    Ok(())
}

fn facts(attr: &Attr, link: Option<Vec<u8>>) -> FileFacts {
    let seconds = u64::try_from(attr.mtime.tv_sec).unwrap_or(0);
    let modified_ns = seconds.saturating_mul(1_000_000_000).saturating_add(attr.mtime.tv_nsec as u64);
    FileFacts { mode: attr.mode, size: attr.size, uid: attr.uid, gid: attr.gid, modified_ns, link }
}

fn open_regular(
    cx: &FsContext<'_>,
    fs: &FsState,
    path: &[u8],
    flags: u32,
    permissions: u32,
) -> Result<std::rc::Rc<FileDescription>, Errno> {
    debug_assert_eq!(flags & O_TRUNC, 0);
    // With O_NONBLOCK a FIFO does not wait for its other side.
    let request = OpenRequest::new(flags | O_NONBLOCK, permissions);
    let description = open(cx, fs, &fs.root, path, &request).map_err(|stop| match stop {
        Stop::Errno(errno) => errno,
        _ => Errno::EINVAL,
    })?;
    let mode = description.inode().attr(cx)?.mode;
    match mode & S_IFMT {
        S_IFDIR => Err(Errno::EISDIR),
        _ if is_regular(mode) => Ok(description),
        _ => Err(Errno::EINVAL),
    }
}
