//! Settings of a thread or process (prctl(2)).

use lg_abi::raw::{general as linux, prctl};
use lg_abi::{Errno, Signal};
use lg_platform::{PAGE_SIZE, USER_END, UserAddr, UserRange};

use super::Ctx;
use super::identity::change;
use crate::mm::Backing;
use crate::task::{Credentials, SysResult};

/// Longest name of a memory area, with its NUL.
const MAX_AREA_NAME: usize = 80;

/// Fails with an error unless something holds.
fn refuse_unless(holds: bool, errno: Errno) -> Result<(), Errno> {
    if holds { Ok(()) } else { Err(errno) }
}

pub(super) fn sys_prctl(ctx: &mut Ctx<'_>, [option, arg, arg3, arg4, arg5, _]: [u64; 6]) -> SysResult {
    match option as u32 {
        prctl::PR_SET_NAME => set_name(ctx, arg),
        prctl::PR_GET_NAME => {
            let mut name = [0; 16];
            let comm = ctx.task().comm.borrow().clone();
            let len = comm.len().min(15);
            name[..len].copy_from_slice(&comm[..len]);
            ctx.write_bytes(arg, &name)?;
            Ok(0)
        }
        prctl::PR_SET_PDEATHSIG => {
            refuse_unless(arg <= u64::from(Signal::MAX), Errno::EINVAL)?;
            ctx.task_mut().parent_death_signal = arg as u32;
            Ok(0)
        }
        prctl::PR_GET_PDEATHSIG => tell(ctx, arg, ctx.task().parent_death_signal),
        prctl::PR_GET_DUMPABLE => Ok(u64::from(ctx.process().dumpable)),
        prctl::PR_SET_DUMPABLE => {
            refuse_unless(arg <= 1, Errno::EINVAL)?;
            ctx.process_mut().dumpable = arg as u32;
            Ok(0)
        }
        prctl::PR_SET_NO_NEW_PRIVS => {
            refuse_unless(arg == 1 && arg3 | arg4 | arg5 == 0, Errno::EINVAL)?;
            change(ctx, |creds| {
                creds.no_new_privs = true;
                Ok(())
            })
        }
        prctl::PR_GET_NO_NEW_PRIVS => {
            refuse_unless(arg | arg3 | arg4 | arg5 == 0, Errno::EINVAL)?;
            Ok(u64::from(ctx.task().creds.no_new_privs))
        }
        prctl::PR_SET_CHILD_SUBREAPER => {
            ctx.process_mut().is_subreaper = arg != 0;
            Ok(0)
        }
        prctl::PR_GET_CHILD_SUBREAPER => tell(ctx, arg, u32::from(ctx.process().is_subreaper)),
        prctl::PR_SET_TIMERSLACK => {
            let settings = &mut ctx.task_mut().settings;
            settings.timer_slack_ns = if arg == 0 { settings.default_timer_slack_ns } else { arg };
            Ok(0)
        }
        prctl::PR_GET_TIMERSLACK => Ok(ctx.task().settings.timer_slack_ns),
        prctl::PR_SET_THP_DISABLE => {
            refuse_unless(arg3 | arg4 | arg5 == 0, Errno::EINVAL)?;
            ctx.process_mut().huge_pages_disabled = arg != 0;
            Ok(0)
        }
        prctl::PR_GET_THP_DISABLE => {
            refuse_unless(arg | arg3 | arg4 | arg5 == 0, Errno::EINVAL)?;
            Ok(u64::from(ctx.process().huge_pages_disabled))
        }
        // There is no seccomp, so nothing is filtered.
        prctl::PR_GET_SECCOMP => Ok(0),
        prctl::PR_GET_TSC => tell(ctx, arg, prctl::PR_TSC_ENABLE),
        prctl::PR_SET_TSC => {
            refuse_unless(arg == u64::from(prctl::PR_TSC_ENABLE), Errno::EINVAL)?;
            Ok(0)
        }
        prctl::PR_SET_VMA => {
            refuse_unless(arg == u64::from(prctl::PR_SET_VMA_ANON_NAME), Errno::EINVAL)?;
            name_area(ctx, arg3, arg4, arg5)
        }
        prctl::PR_CAPBSET_READ | prctl::PR_CAPBSET_DROP => bounding_set(ctx, option as u32, arg),
        prctl::PR_CAP_AMBIENT => ambient_set(ctx, arg, arg3, arg4 | arg5),
        prctl::PR_GET_SECUREBITS => Ok(u64::from(ctx.task().creds.securebits)),
        prctl::PR_SET_SECUREBITS => set_securebits(ctx, arg),
        prctl::PR_GET_KEEPCAPS => Ok(u64::from(ctx.task().creds.securebits & Credentials::KEEP_CAPS != 0)),
        prctl::PR_SET_KEEPCAPS => set_keep_capabilities(ctx, arg),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn tell(ctx: &Ctx<'_>, to: u64, value: u32) -> SysResult {
    ctx.copy_out(to, &value)?;
    Ok(0)
}

fn set_name(ctx: &mut Ctx<'_>, addr: u64) -> SysResult {
    let mut name = ctx.user().read_string(addr, 16).or_else(|errno| match errno {
        Errno::ENAMETOOLONG => {
            let mut name = vec![0; 15];
            ctx.read_bytes(addr, &mut name).map(|()| name)
        }
        other => Err(other),
    })?;
    name.truncate(15);
    ctx.task().comm.replace(name);
    Ok(0)
}

/// Names anonymous memory. The name is checked and not kept.
///
/// Errors: EFAULT, EINVAL; ENOMEM where something in the range is not mapped; EBADF where a file is.
fn name_area(ctx: &Ctx<'_>, start: u64, len: u64, name: u64) -> SysResult {
    if name != 0 {
        let name = ctx.user().read_string(name, MAX_AREA_NAME).map_err(|errno| match errno {
            Errno::ENAMETOOLONG => Errno::EINVAL,
            other => other,
        })?;
        let is_allowed = |byte: &u8| (b' '..=b'~').contains(byte) && !b"\\`$[]".contains(byte);
        refuse_unless(name.iter().all(is_allowed), Errno::EINVAL)?;
    }
    let page = PAGE_SIZE as u64;
    refuse_unless(start.is_multiple_of(page), Errno::EINVAL)?;
    let len = len.checked_next_multiple_of(page).ok_or(Errno::EINVAL)?;
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    if len == 0 {
        return Ok(0);
    }
    refuse_unless(end <= USER_END.0, Errno::ENOMEM)?;
    let range = UserRange::new(UserAddr(start), UserAddr(end));
    let mm = ctx.task().mm.borrow();
    let mut mapped = 0;
    for area in mm.areas().filter(|area| !area.range.intersect(range).is_empty()) {
        let is_anonymous = matches!(area.backing, Backing::Anonymous | Backing::Shared(_));
        refuse_unless(is_anonymous, Errno::EBADF)?;
        mapped += area.range.intersect(range).len();
    }
    refuse_unless(mapped == len, Errno::ENOMEM)?;
    Ok(0)
}

/// Returns the bit of a capability. Errors: EINVAL for a number that is none.
fn capability_bit(number: u64) -> Result<u64, Errno> {
    let bit = u32::try_from(number).ok().and_then(|number| 1u64.checked_shl(number)).unwrap_or(0);
    if bit & Credentials::ALL_CAPABILITIES != 0 { Ok(bit) } else { Err(Errno::EINVAL) }
}

/// Reads the bounding set, or takes a capability out of it.
///
/// Errors: EINVAL, EPERM.
fn bounding_set(ctx: &mut Ctx<'_>, option: u32, capability: u64) -> SysResult {
    if option == prctl::PR_CAPBSET_READ {
        let bit = capability_bit(capability)?;
        return Ok(u64::from(ctx.task().creds.bounding & bit != 0));
    }
    refuse_unless(ctx.task().creds.has_capability(linux::CAP_SETPCAP), Errno::EPERM)?;
    let bit = capability_bit(capability)?;
    change(ctx, |creds| {
        creds.bounding &= !bit;
        Ok(())
    })
}

/// Reads or changes the ambient set; `rest` holds the arguments that must be zero.
///
/// Errors: EINVAL, EPERM.
fn ambient_set(ctx: &mut Ctx<'_>, operation: u64, capability: u64, rest: u64) -> SysResult {
    if operation == u64::from(prctl::PR_CAP_AMBIENT_CLEAR_ALL) {
        refuse_unless(capability | rest == 0, Errno::EINVAL)?;
        return change(ctx, |creds| {
            creds.ambient = 0;
            Ok(())
        });
    }
    refuse_unless(rest == 0, Errno::EINVAL)?;
    let bit = capability_bit(capability)?;
    match u32::try_from(operation).map_err(|_| Errno::EINVAL)? {
        prctl::PR_CAP_AMBIENT_IS_SET => Ok(u64::from(ctx.task().creds.ambient & bit != 0)),
        prctl::PR_CAP_AMBIENT_RAISE => change(ctx, |creds| {
            let forbidden = creds.securebits & Credentials::NO_AMBIENT_RAISE != 0;
            refuse_unless(creds.permitted & creds.inheritable & bit != 0 && !forbidden, Errno::EPERM)?;
            creds.ambient |= bit;
            Ok(())
        }),
        prctl::PR_CAP_AMBIENT_LOWER => change(ctx, |creds| {
            creds.ambient &= !bit;
            Ok(())
        }),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Sets all securebits.
///
/// Errors: EPERM for bits that are locked or none, and without CAP_SETPCAP.
fn set_securebits(ctx: &mut Ctx<'_>, wanted: u64) -> SysResult {
    change(ctx, |creds| {
        let locks = creds.securebits & Credentials::ALL_SECUREBIT_LOCKS;
        let wanted = u32::try_from(wanted).map_err(|_| Errno::EPERM)?;
        let known = Credentials::ALL_SECUREBITS | Credentials::ALL_SECUREBIT_LOCKS;
        let changes_locked = (locks >> 1) & (creds.securebits ^ wanted) != 0 || locks & !wanted != 0;
        let allowed = !changes_locked && wanted & !known == 0 && creds.has_capability(linux::CAP_SETPCAP);
        refuse_unless(allowed, Errno::EPERM)?;
        creds.securebits = wanted;
        Ok(())
    })
}

/// Sets or clears SECBIT_KEEP_CAPS.
///
/// Errors: EINVAL, EPERM where it is locked.
fn set_keep_capabilities(ctx: &mut Ctx<'_>, keep: u64) -> SysResult {
    refuse_unless(keep <= 1, Errno::EINVAL)?;
    change(ctx, |creds| {
        refuse_unless(creds.securebits & Credentials::KEEP_CAPS << 1 == 0, Errno::EPERM)?;
        creds.securebits &= !Credentials::KEEP_CAPS;
        creds.securebits |= Credentials::KEEP_CAPS * keep as u32;
        Ok(())
    })
}
