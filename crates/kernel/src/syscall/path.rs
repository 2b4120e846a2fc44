//! Names: opening, making, removing, renaming, links, directories.

use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::{Errno, OpenHow};

use super::Ctx;
use super::fd::install;
use crate::task::{Stop, SysResult, WaitQueue};
use crate::vfs::open::{Found, OpenRequest, find, open_path};
use crate::vfs::permission::{Access, check_access, has_capability};
use crate::vfs::{FileDescription, Final, FsState, LinkTarget, NewInode, Path, Resolve, ops};

const AT_FDCWD: u64 = linux::AT_FDCWD as u64;

/// Returns where a path given with a directory descriptor starts. An absolute path needs none.
pub(super) fn start_of(ctx: &Ctx<'_>, dir: u64, path: &[u8]) -> Result<Path, Errno> {
    let description =
        if dir as i32 == linux::AT_FDCWD || path.starts_with(b"/") { None } else { Some(ctx.fd(dir)?) };
    let fs = ctx.fs_state();
    let start = fs.borrow().start(description.as_deref());
    if let Some(description) = description {
        let mode = description.inode().attr(&ctx.fs())?.mode;
        if mode & linux::S_IFMT != linux::S_IFDIR && !path.is_empty() {
            return Err(Errno::ENOTDIR);
        }
    }
    Ok(start)
}

/// Copies in the path at `addr` and returns the object it names, as the `AT_` flags say.
pub(super) fn resolve_at(ctx: &Ctx<'_>, dir: u64, addr: u64, flags: u64) -> Result<Path, Errno> {
    let path = if addr == 0 && flags & u64::from(linux::AT_EMPTY_PATH) != 0 {
        Vec::new()
    } else {
        ctx.read_path(addr)?
    };
    resolve_path(ctx, dir, &path, flags)
}

/// Returns the object that `path` names, as the `AT_` flags say.
pub(super) fn resolve_path(ctx: &Ctx<'_>, dir: u64, path: &[u8], flags: u64) -> Result<Path, Errno> {
    if path.is_empty() {
        if flags & u64::from(linux::AT_EMPTY_PATH) == 0 {
            return Err(Errno::ENOENT);
        }
        if dir as i32 == linux::AT_FDCWD {
            return Ok(ctx.fs_state().borrow().cwd.clone());
        }
        return Ok(ctx.fd(dir)?.path.clone());
    }
    let start = start_of(ctx, dir, path)?;
    let last =
        if flags & u64::from(linux::AT_SYMLINK_NOFOLLOW) != 0 { Final::NoFollow } else { Final::Follow };
    let fs = ctx.fs_state();
    let fs = fs.borrow();
    fs.lookup_at(&ctx.fs(), &start, path, last)
}

fn check_flags(flags: u64, known: u32) -> Result<(), Errno> {
    if flags & 0xffff_ffff & !u64::from(known) != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn with_fs<T>(ctx: &Ctx<'_>, work: impl FnOnce(&FsState) -> T) -> T {
    let fs = ctx.fs_state();
    let fs = fs.borrow();
    work(&fs)
}

pub(super) fn sys_open(ctx: &mut Ctx<'_>, [path, flags, mode, ..]: [u64; 6]) -> SysResult {
    sys_openat(ctx, [AT_FDCWD, path, flags, mode, 0, 0])
}

pub(super) fn sys_creat(ctx: &mut Ctx<'_>, [path, mode, ..]: [u64; 6]) -> SysResult {
    let flags = linux::O_CREAT | linux::O_WRONLY | linux::O_TRUNC;
    sys_openat(ctx, [AT_FDCWD, path, u64::from(flags), mode, 0, 0])
}

pub(super) fn sys_openat(ctx: &mut Ctx<'_>, [dir, path, flags, mode, ..]: [u64; 6]) -> SysResult {
    open_at(ctx, dir, path, OpenRequest::new(flags as u32, mode as u32))
}

/// The flags that go with O_PATH.
const PATH_FLAGS: u32 = linux::O_PATH | linux::O_DIRECTORY | linux::O_NOFOLLOW | linux::O_CLOEXEC;
/// All flags of open(2).
const KNOWN_FLAGS: u32 = PATH_FLAGS
    | linux::O_ACCMODE
    | linux::O_CREAT
    | linux::O_EXCL
    | linux::O_NOCTTY
    | linux::O_TRUNC
    | linux::O_APPEND
    | linux::O_NONBLOCK
    | linux::O_DSYNC
    | linux::O_SYNC
    | linux::FASYNC
    | linux::O_DIRECT
    | linux::O_LARGEFILE
    | linux::O_NOATIME
    | linux::O_TMPFILE;

pub(super) fn sys_openat2(ctx: &mut Ctx<'_>, [dir, path, how, size, ..]: [u64; 6]) -> SysResult {
    let known = size_of::<OpenHow>() as u64;
    if size < known {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let mut rest = vec![0; (size - known) as usize];
    let how_value: OpenHow = ctx.copy_in(how)?;
    ctx.read_bytes(how.wrapping_add(known), &mut rest)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    let resolve = Resolve::from_bits(how_value.resolve).ok_or(Errno::EINVAL)?;
    let made = linux::O_CREAT | linux::O_TMPFILE & !linux::O_DIRECTORY;
    let has = |flags: u32| how_value.flags & u64::from(flags) != 0;
    let creates = has(made);
    if how_value.flags & !u64::from(KNOWN_FLAGS) != 0
        || has(linux::O_PATH) && how_value.flags & !u64::from(PATH_FLAGS) != 0
        || how_value.mode & !0o7777 != 0
        || (how_value.mode != 0 && !creates)
        || resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT)
    {
        return Err(Errno::EINVAL.into());
    }
    if resolve.contains(Resolve::CACHED) && has(made | linux::O_TRUNC) {
        return Err(Errno::EAGAIN.into());
    }
    let request = OpenRequest { resolve, ..OpenRequest::new(how_value.flags as u32, how_value.mode as u32) };
    open_at(ctx, dir, path, request)
}

/// An open(2) that waits. A FIFO tells by the queues that the call still does.
struct WaitingOpen {
    path: Path,
    _queues: Vec<Rc<WaitQueue>>,
}

fn open_at(ctx: &mut Ctx<'_>, dir: u64, addr: u64, request: OpenRequest) -> SysResult {
    let path = match ctx.kept::<WaitingOpen>() {
        Some(waiting) => waiting.path.clone(),
        None => {
            let path = ctx.read_path(addr)?;
            // In a root of its own even an absolute path starts at the directory.
            let relative: &[u8] = if request.resolve.contains(Resolve::IN_ROOT) { b"." } else { &path };
            let start = start_of(ctx, dir, relative)?;
            match with_fs(ctx, |fs| find(&ctx.fs(), fs, &start, &path, &request))? {
                Found::Made(description) => return install(ctx, description, request.flags),
                Found::There(path) => path,
            }
        }
    };
    let opened = open_path(&ctx.fs(), &path, &request);
    if let Err(Stop::Block(wait)) = &opened {
        ctx.keep(Rc::new(WaitingOpen { path, _queues: wait.queues.clone() }));
    }
    install(ctx, opened?, request.flags)
}

pub(super) fn sys_access(ctx: &mut Ctx<'_>, [path, mode, ..]: [u64; 6]) -> SysResult {
    sys_faccessat2(ctx, [AT_FDCWD, path, mode, 0, 0, 0])
}

pub(super) fn sys_faccessat(ctx: &mut Ctx<'_>, [dir, path, mode, ..]: [u64; 6]) -> SysResult {
    sys_faccessat2(ctx, [dir, path, mode, 0, 0, 0])
}

pub(super) fn sys_faccessat2(ctx: &mut Ctx<'_>, [dir, path, mode, flags, ..]: [u64; 6]) -> SysResult {
    check_flags(flags, linux::AT_EACCESS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH)?;
    if mode & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut creds = (*ctx.task().creds).clone();
    if flags & u64::from(linux::AT_EACCESS) == 0 {
        // The answer is for the real user, who started the program.
        (creds.fsuid, creds.fsgid) = (creds.uid, creds.gid);
        if creds.uid != 0 {
            creds.effective = 0;
        } else {
            creds.effective = creds.permitted;
        }
    }
    let found = resolve_at(ctx, dir, path, flags)?;
    let cx = ctx.kernel.fs_context_for(&creds, ctx.tid);
    let attr = found.inode().attr(&cx)?;
    let wanted = Access::from_bits_truncate(mode as u32);
    if wanted.contains(Access::WRITE) {
        found.check_writable()?;
    }
    if !wanted.is_empty() {
        check_access(&cx, &attr, wanted)?;
    }
    Ok(0)
}

pub(super) fn sys_readlink(ctx: &mut Ctx<'_>, [path, buf, len, ..]: [u64; 6]) -> SysResult {
    sys_readlinkat(ctx, [AT_FDCWD, path, buf, len, 0, 0])
}

pub(super) fn sys_readlinkat(ctx: &mut Ctx<'_>, [dir, path, buf, len, ..]: [u64; 6]) -> SysResult {
    if len as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let flags = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    let name = ctx.read_path(path)?;
    if name.is_empty() && dir as i32 == linux::AT_FDCWD {
        return Err(Errno::ENOENT.into());
    }
    let found = resolve_path(ctx, dir, &name, u64::from(flags))?;
    // A descriptor that is no link is not what an empty path can name.
    let wrong = |errno| if name.is_empty() && errno == Errno::EINVAL { Errno::ENOENT } else { errno };
    let mut target = match found.inode().read_link(&ctx.fs()).map_err(wrong)? {
        LinkTarget::Path(target) => target,
        LinkTarget::Magic { shown, .. } => shown,
    };
    target.truncate(len as usize);
    ctx.write_bytes(buf, &target)?;
    Ok(target.len() as u64)
}

pub(super) fn sys_mkdir(ctx: &mut Ctx<'_>, [path, mode, ..]: [u64; 6]) -> SysResult {
    create(ctx, AT_FDCWD, path, NewInode::Dir, mode)
}

pub(super) fn sys_mkdirat(ctx: &mut Ctx<'_>, [dir, path, mode, ..]: [u64; 6]) -> SysResult {
    create(ctx, dir, path, NewInode::Dir, mode)
}

pub(super) fn sys_mknod(ctx: &mut Ctx<'_>, [path, mode, device, ..]: [u64; 6]) -> SysResult {
    sys_mknodat(ctx, [AT_FDCWD, path, mode, device, 0, 0])
}

pub(super) fn sys_mknodat(ctx: &mut Ctx<'_>, [dir, path, mode, device, ..]: [u64; 6]) -> SysResult {
    let what = match mode as u32 & linux::S_IFMT {
        0 | linux::S_IFREG => NewInode::File,
        linux::S_IFIFO => NewInode::Fifo,
        linux::S_IFSOCK => NewInode::Socket,
        linux::S_IFCHR => NewInode::CharDevice(device),
        linux::S_IFBLK => NewInode::BlockDevice(device),
        linux::S_IFDIR => return Err(Errno::EPERM.into()),
        _ => return Err(Errno::EINVAL.into()),
    };
    create(ctx, dir, path, what, mode & 0o7777)
}

fn create(ctx: &mut Ctx<'_>, dir: u64, path: u64, what: NewInode, mode: u64) -> SysResult {
    let path = ctx.read_path(path)?;
    let start = start_of(ctx, dir, &path)?;
    with_fs(ctx, |fs| ops::create(&ctx.fs(), fs, &start, &path, what, mode as u32))?;
    Ok(0)
}

pub(super) fn sys_symlink(ctx: &mut Ctx<'_>, [target, path, ..]: [u64; 6]) -> SysResult {
    sys_symlinkat(ctx, [target, AT_FDCWD, path, 0, 0, 0])
}

pub(super) fn sys_symlinkat(ctx: &mut Ctx<'_>, [target, dir, path, ..]: [u64; 6]) -> SysResult {
    let target = ctx.read_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    create(ctx, dir, path, NewInode::Symlink(target), 0o777)
}

pub(super) fn sys_link(ctx: &mut Ctx<'_>, [old, new, ..]: [u64; 6]) -> SysResult {
    sys_linkat(ctx, [AT_FDCWD, old, AT_FDCWD, new, 0, 0])
}

pub(super) fn sys_linkat(ctx: &mut Ctx<'_>, [old_dir, old, new_dir, new, flags, _]: [u64; 6]) -> SysResult {
    check_flags(flags, linux::AT_SYMLINK_FOLLOW | linux::AT_EMPTY_PATH)?;
    if flags & u64::from(linux::AT_EMPTY_PATH) != 0
        && !has_capability(&ctx.task().creds, linux::CAP_DAC_READ_SEARCH)
    {
        return Err(Errno::ENOENT.into());
    }
    let follow = flags & u64::from(linux::AT_SYMLINK_FOLLOW) != 0;
    let nofollow = if follow { 0 } else { linux::AT_SYMLINK_NOFOLLOW };
    let target = resolve_at(ctx, old_dir, old, flags | u64::from(nofollow))?;
    let path = ctx.read_path(new)?;
    let start = start_of(ctx, new_dir, &path)?;
    with_fs(ctx, |fs| ops::link(&ctx.fs(), fs, &target, &start, &path))?;
    Ok(0)
}

pub(super) fn sys_unlink(ctx: &mut Ctx<'_>, [path, ..]: [u64; 6]) -> SysResult {
    sys_unlinkat(ctx, [AT_FDCWD, path, 0, 0, 0, 0])
}

pub(super) fn sys_rmdir(ctx: &mut Ctx<'_>, [path, ..]: [u64; 6]) -> SysResult {
    sys_unlinkat(ctx, [AT_FDCWD, path, u64::from(linux::AT_REMOVEDIR), 0, 0, 0])
}

pub(super) fn sys_unlinkat(ctx: &mut Ctx<'_>, [dir, path, flags, ..]: [u64; 6]) -> SysResult {
    check_flags(flags, linux::AT_REMOVEDIR)?;
    let path = ctx.read_path(path)?;
    let start = start_of(ctx, dir, &path)?;
    let remove = if flags == 0 { ops::unlink } else { ops::rmdir };
    with_fs(ctx, |fs| remove(&ctx.fs(), fs, &start, &path))?;
    Ok(0)
}

pub(super) fn sys_rename(ctx: &mut Ctx<'_>, [old, new, ..]: [u64; 6]) -> SysResult {
    sys_renameat2(ctx, [AT_FDCWD, old, AT_FDCWD, new, 0, 0])
}

pub(super) fn sys_renameat(ctx: &mut Ctx<'_>, [old_dir, old, new_dir, new, ..]: [u64; 6]) -> SysResult {
    sys_renameat2(ctx, [old_dir, old, new_dir, new, 0, 0])
}

pub(super) fn sys_renameat2(
    ctx: &mut Ctx<'_>,
    [old_dir, old, new_dir, new, flags, _]: [u64; 6],
) -> SysResult {
    let known = linux::RENAME_NOREPLACE | linux::RENAME_EXCHANGE | linux::RENAME_WHITEOUT;
    if flags as u32 & !known != 0 {
        return Err(Errno::EINVAL.into());
    }
    let old = ctx.read_path(old)?;
    let old_start = start_of(ctx, old_dir, &old)?;
    let new = ctx.read_path(new)?;
    let new_start = start_of(ctx, new_dir, &new)?;
    with_fs(ctx, |fs| ops::rename(&ctx.fs(), fs, (&old_start, &old), (&new_start, &new), flags as u32))?;
    Ok(0)
}

pub(super) fn sys_chdir(ctx: &mut Ctx<'_>, [path, ..]: [u64; 6]) -> SysResult {
    let dir = resolve_at(ctx, AT_FDCWD, path, 0)?;
    enter(ctx, dir)
}

pub(super) fn sys_fchdir(ctx: &mut Ctx<'_>, [fd, ..]: [u64; 6]) -> SysResult {
    let description: Rc<FileDescription> = ctx.fd(fd)?;
    enter(ctx, description.path.clone())
}

fn check_dir(ctx: &Ctx<'_>, dir: &Path) -> Result<(), Errno> {
    let attr = dir.inode().attr(&ctx.fs())?;
    if attr.mode & linux::S_IFMT != linux::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    check_access(&ctx.fs(), &attr, Access::EXEC)
}

fn enter(ctx: &mut Ctx<'_>, dir: Path) -> SysResult {
    check_dir(ctx, &dir)?;
    ctx.fs_state().borrow_mut().cwd = dir;
    Ok(0)
}

pub(super) fn sys_chroot(ctx: &mut Ctx<'_>, [path, ..]: [u64; 6]) -> SysResult {
    let dir = resolve_at(ctx, AT_FDCWD, path, 0)?;
    check_dir(ctx, &dir)?;
    if !has_capability(&ctx.task().creds, linux::CAP_SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    ctx.fs_state().borrow_mut().root = dir;
    Ok(0)
}

pub(super) fn sys_getcwd(ctx: &mut Ctx<'_>, [buf, len, ..]: [u64; 6]) -> SysResult {
    let mut path = with_fs(ctx, |fs| ctx.fs().vfs.show_cwd(&fs.root, &fs.cwd))?;
    path.push(0);
    if path.len() as u64 > len {
        return Err(Errno::ERANGE.into());
    }
    ctx.write_bytes(buf, &path)?;
    Ok(path.len() as u64)
}

pub(super) fn sys_umask(ctx: &mut Ctx<'_>, [mask, ..]: [u64; 6]) -> SysResult {
    let fs = ctx.fs_state();
    let before = std::mem::replace(&mut fs.borrow_mut().umask, mask as u32 & 0o777);
    Ok(u64::from(before))
}

/// One entry of a directory as getdents(2) or getdents64(2) lays it out.
fn dirent(layout: Layout, ino: u64, next: u64, file_type: u32, name: &[u8]) -> Vec<u8> {
    let kind = (file_type >> 12) as u8;
    let mut record = [ino.to_le_bytes(), next.to_le_bytes()].concat();
    record.extend([0, 0]);
    if layout == Layout::Wide {
        record.push(kind);
    }
    record.extend(name);
    record.push(0);
    // The old layout keeps the type in the record's last byte.
    let len = (record.len() + usize::from(layout == Layout::Old)).next_multiple_of(8);
    record.resize(len, 0);
    if layout == Layout::Old {
        record[len - 1] = kind;
    }
    let len_bytes = (len as u16).to_le_bytes();
    record[16..18].copy_from_slice(&len_bytes);
    record
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// `struct linux_dirent`.
    Old,
    /// `struct linux_dirent64`.
    Wide,
}

pub(super) fn sys_getdents(ctx: &mut Ctx<'_>, args: [u64; 6]) -> SysResult {
    list(ctx, args, Layout::Old)
}

pub(super) fn sys_getdents64(ctx: &mut Ctx<'_>, args: [u64; 6]) -> SysResult {
    list(ctx, args, Layout::Wide)
}

/// Lists a directory. Positions 0 and 1 are `.` and `..`; an inode's own cursors come two later.
fn list(ctx: &mut Ctx<'_>, [fd, buf, len, ..]: [u64; 6], layout: Layout) -> SysResult {
    const DOTS: u64 = 2;
    let description = ctx.open_fd(fd)?;
    let cx = ctx.fs();
    let attr = description.inode().attr(&cx)?;
    if attr.mode & linux::S_IFMT != linux::S_IFDIR {
        return Err(Errno::ENOTDIR.into());
    }
    if attr.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    let room = usize::try_from(len as i32).unwrap_or(0).min(1 << 20);
    let mut bytes = Vec::new();
    let mut position = description.offset();
    let mut full = false;
    for (at, name) in [(0, b".".as_slice()), (1, b"..")] {
        if position == at && !full {
            let parent = description.path.dentry.parent();
            let parent_ino = parent.and_then(|parent| parent.inode().attr(&cx).ok()).map(|attr| attr.ino);
            let ino = if at == 0 { attr.ino } else { parent_ino.unwrap_or(attr.ino) };
            let record = dirent(layout, ino, at + 1, linux::S_IFDIR, name);
            full = bytes.len() + record.len() > room;
            if !full {
                bytes.extend(record);
                position = at + 1;
            }
        }
    }
    if !full {
        description.inode().read_dir(&cx, position - DOTS, &mut |entry| {
            let next = entry.next.saturating_add(DOTS);
            let record = dirent(layout, entry.ino, next, entry.file_type, &entry.name);
            full = bytes.len() + record.len() > room;
            if !full {
                bytes.extend(record);
                position = next;
            }
            !full
        })?;
    }
    if full && bytes.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    ctx.write_bytes(buf, &bytes)?;
    description.tell(linux::IN_ACCESS);
    description.set_offset(position);
    Ok(bytes.len() as u64)
}
