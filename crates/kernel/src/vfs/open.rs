//! Opening files: open(2), openat2(2).

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{
    IN_OPEN, O_ACCMODE, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOATIME, O_NOFOLLOW, O_PATH, O_RDONLY,
    O_TMPFILE, O_TRUNC, O_WRONLY, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
};

use super::ops::{create_in, set_attr};
use super::permission::{Access, check_access, check_may_create, owns};
use super::{
    Attr, AttrChange, Dentry, DirFile, File, FileDescription, Final, FsContext, FsState, Last, MountFlags,
    NewInode, Path, PathFile, Resolve, Walk,
};
use crate::task::Stop;

/// What open(2) is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenRequest {
    /// `O_*` flags.
    pub flags: u32,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
    /// Restrictions on the walk.
    pub resolve: Resolve,
}

impl OpenRequest {
    /// Returns a request without restrictions.
    pub fn new(flags: u32, mode: u32) -> OpenRequest {
        // O_PATH leaves only these others in force.
        let flags =
            if flags & O_PATH != 0 { flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) } else { flags };
        OpenRequest { flags, mode: mode & 0o7777, resolve: Resolve::empty() }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }

    fn writes(&self) -> bool {
        self.flags & O_ACCMODE != O_RDONLY
    }

    fn access(&self) -> Access {
        let mut access = match self.flags & O_ACCMODE {
            O_RDONLY => Access::READ,
            O_WRONLY => Access::WRITE,
            _ => Access::READ | Access::WRITE,
        };
        if self.has(O_TRUNC) {
            access |= Access::WRITE;
        }
        access
    }
}

/// Opens what `path` names, relative to `start`.
pub fn open(
    cx: &FsContext<'_>,
    fs: &FsState,
    start: &Path,
    path: &[u8],
    request: &OpenRequest,
) -> Result<Rc<FileDescription>, Stop> {
    match find(cx, fs, start, path, request)? {
        Found::Made(description) => Ok(description),
        Found::There(path) => open_path(cx, &path, request),
    }
}

/// What there is to open.
pub enum Found {
    /// An object for [`open_path`], which may wait for something. Whoever waits keeps the path: the name may be
    /// another one's by then.
    There(Path),
    /// A new file, which is open.
    Made(Rc<FileDescription>),
}

/// Finds what `path` names, relative to `start`, or makes it if the request says so.
pub fn find(
    cx: &FsContext<'_>,
    fs: &FsState,
    start: &Path,
    path: &[u8],
    request: &OpenRequest,
) -> Result<Found, Stop> {
    let is_tmpfile = request.has(O_TMPFILE);
    let asks_tmpfile = request.flags & O_TMPFILE & !O_DIRECTORY != 0;
    if request.has(O_CREAT | O_DIRECTORY) || asks_tmpfile && !(is_tmpfile && request.writes()) {
        return Err(Errno::EINVAL.into());
    }
    let mut walk = fs.walk(cx, start, path, request.resolve)?;
    if is_tmpfile {
        return open_tmpfile(cx, fs, &mut walk, request).map(Found::Made);
    }
    if request.has(O_CREAT) {
        return find_or_create(cx, fs, &mut walk, request);
    }
    let link = if request.has(O_NOFOLLOW) { Final::NoFollow } else { Final::Follow };
    Ok(Found::There(walk.to_end(link)?))
}

fn find_or_create(
    cx: &FsContext<'_>,
    fs: &FsState,
    walk: &mut Walk<'_>,
    request: &OpenRequest,
) -> Result<Found, Stop> {
    let link = if request.has(O_NOFOLLOW) || request.has(O_EXCL) { Final::NoFollow } else { Final::Follow };
    loop {
        let last = walk.to_last()?;
        if walk.must_be_dir() {
            return Err(Errno::EISDIR.into());
        }
        if let Last::Name(name) = &last
            && walk.child(name).err() == Some(Errno::ENOENT)
        {
            let dir = walk.at();
            let path = create_in(cx, fs, dir, name, NewInode::File, request.mode)?;
            return open_checked(cx, &path, request).map(Found::Made);
        }
        if let Some(path) = walk.resolve_last(&last, link)? {
            return if request.has(O_EXCL) { Err(Errno::EEXIST.into()) } else { Ok(Found::There(path)) };
        }
    }
}

/// Opens an object that was found, with all checks.
pub fn open_path(
    cx: &FsContext<'_>,
    path: &Path,
    request: &OpenRequest,
) -> Result<Rc<FileDescription>, Stop> {
    let attr = path.inode().attr(cx)?;
    let file_type = attr.mode & S_IFMT;
    if request.has(O_DIRECTORY) && file_type != S_IFDIR {
        return Err(Errno::ENOTDIR.into());
    }
    if request.has(O_PATH) {
        return Ok(FileDescription::new(cx, Rc::new(PathFile), path.clone(), request.flags)?);
    }
    check_type(path, file_type, request)?;
    check_access(cx, &attr, request.access())?;
    if request.access().contains(Access::WRITE) && matches!(file_type, S_IFREG | S_IFDIR) {
        path.check_writable()?;
    }
    if request.access().contains(Access::WRITE) && file_type == S_IFREG && cx.procs.runs(path.inode()) {
        return Err(Errno::ETXTBSY.into());
    }
    if request.has(O_NOATIME) && !owns(cx, &attr) {
        return Err(Errno::EPERM.into());
    }
    if request.has(O_TRUNC) && file_type == S_IFREG {
        let change = AttrChange { size: Some(0), ..AttrChange::default() };
        set_attr(cx, path, &change)?;
    }
    open_checked(cx, path, request)
}

fn check_type(path: &Path, file_type: u32, request: &OpenRequest) -> Result<(), Errno> {
    match file_type {
        S_IFLNK => Err(Errno::ELOOP),
        S_IFDIR if request.writes() || request.has(O_CREAT) || request.has(O_TRUNC) => Err(Errno::EISDIR),
        S_IFSOCK => Err(Errno::ENXIO),
        S_IFCHR | S_IFBLK if path.mount.flags.contains(MountFlags::NO_DEV) => Err(Errno::EACCES),
        _ => Ok(()),
    }
}

fn open_checked(cx: &FsContext<'_>, path: &Path, request: &OpenRequest) -> Result<Rc<FileDescription>, Stop> {
    let is_dir = path.inode().attr(cx)?.mode & S_IFMT == S_IFDIR;
    let file: Rc<dyn File> =
        if is_dir { Rc::new(DirFile) } else { path.inode().clone().open(cx, request.flags)? };
    let description = FileDescription::new(cx, file, path.clone(), request.flags)?;
    description.tell(IN_OPEN);
    Ok(description)
}

fn open_tmpfile(
    cx: &FsContext<'_>,
    fs: &FsState,
    walk: &mut Walk<'_>,
    request: &OpenRequest,
) -> Result<Rc<FileDescription>, Stop> {
    let dir = walk.to_end(Final::Follow)?;
    let attr = dir.inode().attr(cx)?;
    if attr.mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOTDIR.into());
    }
    check_may_create(cx, &attr)?;
    dir.check_writable()?;
    let inode = dir.inode().create_tmpfile(cx, request.mode & !fs.umask, request.flags)?;
    let name = format!("#{}", inode.attr(cx)?.ino);
    let path = dir.with(Dentry::new_unlinked(inode, &dir.dentry, name.as_bytes()));
    open_checked(cx, &path, request)
}

/// Checks that a path may be executed: a regular file with an execute bit for the task, on a mount that
/// allows it.
///
/// Errors: EACCES.
pub fn check_executable(cx: &FsContext<'_>, path: &Path) -> Result<Attr, Errno> {
    let attr = path.inode().attr(cx)?;
    if attr.mode & S_IFMT != S_IFREG || path.mount.flags.contains(MountFlags::NO_EXEC) {
        return Err(Errno::EACCES);
    }
    check_access(cx, &attr, Access::EXEC)?;
    Ok(attr)
}
