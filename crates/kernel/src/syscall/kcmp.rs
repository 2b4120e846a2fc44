//! Whether two processes share something (kcmp(2)).

use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::CAP_SYS_PTRACE;

use super::Ctx;
use crate::fs::epoll::as_epoll;
use crate::task::{SysResult, Task, Tid};

/// What is compared (linux/kcmp.h).
mod kind {
    pub const FILE: u32 = 0;
    pub const VM: u32 = 1;
    pub const FILES: u32 = 2;
    pub const FS: u32 = 3;
    pub const SIGHAND: u32 = 4;
    pub const IO: u32 = 5;
    pub const SYSVSEM: u32 = 6;
    pub const EPOLL_TFD: u32 = 7;
}

/// Checks that the caller may look into a thread (ptrace(2), "access mode checking").
fn check_may_inspect(ctx: &Ctx<'_>, task: &Task) -> Result<(), Errno> {
    let (own, other) = (ctx.task(), task);
    let same_user =
        [other.creds.uid, other.creds.euid, other.creds.suid].iter().all(|uid| *uid == own.creds.uid)
            && [other.creds.gid, other.creds.egid, other.creds.sgid].iter().all(|gid| *gid == own.creds.gid);
    if own.tgid == other.tgid || same_user || own.creds.has_capability(CAP_SYS_PTRACE) {
        return Ok(());
    }
    Err(Errno::EPERM)
}

pub(super) fn sys_kcmp(ctx: &mut Ctx<'_>, [first, second, what, index1, index2, _]: [u64; 6]) -> SysResult {
    let task = |number: u64| ctx.kernel.tasks.get(&Tid(number as u32)).ok_or(Errno::ESRCH);
    let (a, b) = (task(first)?, task(second)?);
    check_may_inspect(ctx, a)?;
    check_may_inspect(ctx, b)?;
    let tasks = || ctx.kernel.tasks.values();
    // An object's place in the order is the lowest thread that has it: the same for all who share it.
    let lowest =
        |has: &dyn Fn(&Task) -> bool| tasks().find(|task| has(task)).map_or(0, |task| u64::from(task.tid.0));
    let (left, right) = match what as u32 {
        kind::FILE => (a.fds.borrow().get(index1)?.id, b.fds.borrow().get(index2)?.id),
        kind::VM => (lowest(&|t| Rc::ptr_eq(&t.mm, &a.mm)), lowest(&|t| Rc::ptr_eq(&t.mm, &b.mm))),
        kind::FILES => (lowest(&|t| Rc::ptr_eq(&t.fds, &a.fds)), lowest(&|t| Rc::ptr_eq(&t.fds, &b.fds))),
        kind::FS => (lowest(&|t| Rc::ptr_eq(&t.fs, &a.fs)), lowest(&|t| Rc::ptr_eq(&t.fs, &b.fs))),
        kind::SIGHAND => {
            (lowest(&|t| Rc::ptr_eq(&t.actions, &a.actions)), lowest(&|t| Rc::ptr_eq(&t.actions, &b.actions)))
        }
        // No thread has an I/O context or an undo list of its own.
        kind::IO | kind::SYSVSEM => (0, 0),
        kind::EPOLL_TFD => {
            // `struct kcmp_epoll_slot`: the instance, and the number that a file had with it.
            let [instance, fd, skipped]: [u32; 3] = ctx.copy_in(index2)?;
            let file = a.fds.borrow().get(index1)?;
            let instance = b.fds.borrow().get(u64::from(instance))?;
            let watched = as_epoll(&instance.file)?.target(fd, skipped).ok_or(Errno::ENOENT)?;
            (file.id, watched.id)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(match left.cmp(&right) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    })
}
