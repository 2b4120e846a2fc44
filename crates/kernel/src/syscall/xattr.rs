//! Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2) and their variants.

use lg_abi::Errno;
use lg_abi::raw::general as linux;
use lg_abi::raw::general::{XATTR_CREATE, XATTR_REPLACE};

use super::Ctx;
use super::path::resolve_at;
use crate::task::SysResult;
use crate::vfs::Path;
use crate::vfs::xattr::{self, Presence, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX};

/// How a call names the file.
#[derive(Clone, Copy)]
enum By {
    Path,
    PathNoFollow,
    Fd,
}

fn target(ctx: &Ctx<'_>, by: By, at: u64) -> Result<Path, Errno> {
    let cwd = linux::AT_FDCWD as u64;
    match by {
        By::Path => resolve_at(ctx, cwd, at, 0),
        By::PathNoFollow => resolve_at(ctx, cwd, at, u64::from(linux::AT_SYMLINK_NOFOLLOW)),
        By::Fd => Ok(ctx.open_fd(at)?.path.clone()),
    }
}

/// Copies the name of an attribute in. Errors: EFAULT, ERANGE.
fn read_name(ctx: &Ctx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    match ctx.user().read_string(addr, XATTR_NAME_MAX + 1) {
        Ok(name) if !name.is_empty() => Ok(name),
        Ok(_) | Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        Err(errno) => Err(errno),
    }
}

fn set(ctx: &mut Ctx<'_>, by: By, [at, name, value, len, flags, _]: [u64; 6]) -> SysResult {
    let flags = flags as u32;
    if flags & !(XATTR_CREATE | XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = read_name(ctx, name)?;
    let len = usize::try_from(len).ok().filter(|len| *len <= XATTR_SIZE_MAX).ok_or(Errno::E2BIG)?;
    let mut bytes = vec![0; len];
    ctx.read_bytes(value, &mut bytes)?;
    let path = target(ctx, by, at)?;
    let presence = match (flags & XATTR_CREATE != 0, flags & XATTR_REPLACE != 0) {
        (false, false) => Presence::Any,
        (true, false) => Presence::Absent,
        (false, true) => Presence::Present,
        // One that is there must not be, one that is not must be.
        (true, true) => {
            let is_there = xattr::get(&ctx.fs(), &path, &name).is_ok();
            if is_there { Presence::Absent } else { Presence::Present }
        }
    };
    xattr::set(&ctx.fs(), &path, &name, &bytes, presence)?;
    Ok(0)
}

fn get(ctx: &mut Ctx<'_>, by: By, [at, name, to, len, ..]: [u64; 6]) -> SysResult {
    let name = read_name(ctx, name)?;
    let path = target(ctx, by, at)?;
    let value = xattr::get(&ctx.fs(), &path, &name)?;
    answer(ctx, &value, to, len, XATTR_SIZE_MAX)
}

fn list(ctx: &mut Ctx<'_>, by: By, [at, to, len, ..]: [u64; 6]) -> SysResult {
    let path = target(ctx, by, at)?;
    let names = xattr::list(&ctx.fs(), &path)?;
    answer(ctx, &names, to, len, XATTR_LIST_MAX)
}

fn remove(ctx: &mut Ctx<'_>, by: By, [at, name, ..]: [u64; 6]) -> SysResult {
    let name = read_name(ctx, name)?;
    let path = target(ctx, by, at)?;
    xattr::remove(&ctx.fs(), &path, &name)?;
    Ok(0)
}

/// Copies bytes out to a buffer of this length; a length of 0 asks how many there are.
///
/// Errors: ERANGE for a buffer that is too short, E2BIG for what is longer than `max`, EFAULT.
fn answer(ctx: &Ctx<'_>, bytes: &[u8], to: u64, len: u64, max: usize) -> SysResult {
    if bytes.len() > max {
        return Err(Errno::E2BIG.into());
    }
    if len != 0 {
        if bytes.len() as u64 > len {
            return Err(Errno::ERANGE.into());
        }
        ctx.write_bytes(to, bytes)?;
    }
    Ok(bytes.len() as u64)
}

macro_rules! calls {
    ($($name:ident $what:ident $by:ident;)*) => {$(
        pub(super) fn $name(ctx: &mut Ctx<'_>, args: [u64; 6]) -> SysResult {
            $what(ctx, By::$by, args)
        }
    )*};
}

calls! {
    sys_setxattr set Path;
    sys_lsetxattr set PathNoFollow;
    sys_fsetxattr set Fd;
    sys_getxattr get Path;
    sys_lgetxattr get PathNoFollow;
    sys_fgetxattr get Fd;
    sys_listxattr list Path;
    sys_llistxattr list PathNoFollow;
    sys_flistxattr list Fd;
    sys_removexattr remove Path;
    sys_lremovexattr remove PathNoFollow;
    sys_fremovexattr remove Fd;
}
