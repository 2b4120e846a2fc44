//! Replacing the program: execve(2) and execveat(2).

use lg_abi::Errno;
use lg_abi::raw::general as linux;

use super::Ctx;
use crate::task::{ExecRequest, MAX_STRING, Stop, SysResult};
use crate::vfs::Final;

/// Most strings in an argument or environment list.
const MAX_STRINGS: usize = 0x2_0000;

pub(super) fn sys_execve(ctx: &mut Ctx<'_>, [path, argv, envp, ..]: [u64; 6]) -> SysResult {
    let path = ctx.read_path(path)?;
    if path.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let request = ExecRequest::from_path(path, read_strings(ctx, argv)?, read_strings(ctx, envp)?);
    ctx.kernel.exec(ctx.tid, request)?;
    Err(Stop::NoReturn)
}

pub(super) fn sys_execveat(ctx: &mut Ctx<'_>, [dir, path, argv, envp, flags, _]: [u64; 6]) -> SysResult {
    let has = |flag: u32| flags & u64::from(flag) != 0;
    let path = ctx.read_path(path)?;
    if flags & !u64::from(linux::AT_EMPTY_PATH | linux::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (argv, envp) = (read_strings(ctx, argv)?, read_strings(ctx, envp)?);
    let at_cwd = dir as i32 == linux::AT_FDCWD;
    if at_cwd || path.starts_with(b"/") {
        if path.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        if !has(linux::AT_SYMLINK_NOFOLLOW) {
            ctx.kernel.exec(ctx.tid, ExecRequest::from_path(path, argv, envp))?;
            return Err(Stop::NoReturn);
        }
    }
    let start = if at_cwd { None } else { Some(ctx.fd(dir)?) };
    let found = if path.is_empty() {
        if !has(linux::AT_EMPTY_PATH) {
            return Err(Errno::ENOENT.into());
        }
        start.as_ref().ok_or(Errno::ENOENT)?.path.clone()
    } else {
        let fs = ctx.fs_state();
        let fs = fs.borrow();
        let last = if has(linux::AT_SYMLINK_NOFOLLOW) { Final::NoFollow } else { Final::Follow };
        fs.lookup_at(&ctx.fs(), &fs.start(start.as_deref()), &path, last)?
    };
    let program = ctx.kernel.program_at(ctx.tid, found)?;
    let shown = match (path.is_empty(), dir as u32) {
        (true, fd) => format!("/dev/fd/{fd}").into_bytes(),
        (false, fd) => [format!("/dev/fd/{fd}/").into_bytes(), path].concat(),
    };
    ctx.kernel.exec(ctx.tid, ExecRequest { path: shown, file: Some(program), argv, envp })?;
    Err(Stop::NoReturn)
}

/// Copies a NULL-terminated list of strings in; NULL itself is the empty list.
fn read_strings(ctx: &Ctx<'_>, list: u64) -> Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    let mut total = 0;
    if list == 0 {
        return Ok(strings);
    }
    loop {
        let at = list.checked_add(8 * strings.len() as u64).ok_or(Errno::EFAULT)?;
        let pointer: u64 = ctx.copy_in(at)?;
        if pointer == 0 {
            return Ok(strings);
        }
        let string = ctx.user().read_string(pointer, MAX_STRING).map_err(|errno| match errno {
            Errno::ENAMETOOLONG => Errno::E2BIG,
            other => other,
        })?;
        total += string.len() + 1;
        if strings.len() >= MAX_STRINGS || total > 2 << 20 {
            return Err(Errno::E2BIG);
        }
        strings.push(string);
    }
}
