//! Priorities: nice values and I/O priorities of threads, groups and users. They are kept and told; every task
//! gets its turn whatever they are.

use lg_abi::Errno;
use lg_abi::raw::general as linux;

use super::Ctx;
use crate::task::{Settings, SysResult, Task, Tid};

/// Whom a call is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whom {
    /// One thread.
    Thread(Tid),
    /// All threads of a process group.
    Group(Tid),
    /// All threads of a user.
    User(u32),
}

impl Whom {
    /// Decodes `who`, where 0 is the caller's own; `kind` counts from 0: thread, group, user.
    ///
    /// Errors: EINVAL.
    fn new(ctx: &Ctx<'_>, kind: Option<u32>, who: u64) -> Result<Whom, Errno> {
        let who = who as u32;
        Ok(match kind {
            Some(0) => Whom::Thread(if who == 0 { ctx.tid } else { Tid(who) }),
            Some(1) => Whom::Group(if who == 0 { ctx.process().pgid } else { Tid(who) }),
            Some(2) => Whom::User(if who == 0 { ctx.task().creds.uid } else { who }),
            _ => return Err(Errno::EINVAL),
        })
    }

    fn includes(self, ctx: &Ctx<'_>, task: &Task) -> bool {
        match self {
            Whom::Thread(tid) => task.tid == tid,
            Whom::Group(pgid) => {
                ctx.kernel.processes.get(&task.tgid).is_some_and(|process| process.pgid == pgid)
            }
            Whom::User(uid) => task.creds.uid == uid,
        }
    }

    /// Returns the threads.
    ///
    /// Errors: ESRCH where there is none.
    fn threads(self, ctx: &Ctx<'_>) -> Result<Vec<Tid>, Errno> {
        let tasks = ctx.kernel.tasks.values();
        let found: Vec<Tid> = tasks.filter(|task| self.includes(ctx, task)).map(|task| task.tid).collect();
        if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
    }
}

/// Says whether the caller may give a thread this nice value (getrlimit(2), RLIMIT_NICE).
pub(super) fn may_have_nice(ctx: &Ctx<'_>, task: &Task, nice: i32) -> bool {
    let limit = ctx.kernel.processes.get(&task.tgid).map_or(0, |p| p.rlimits.current(linux::RLIMIT_NICE));
    (20 - nice) as u64 <= limit || ctx.task().creds.has_capability(linux::CAP_SYS_NICE)
}

pub(super) fn sys_getpriority(ctx: &mut Ctx<'_>, [which, who, ..]: [u64; 6]) -> SysResult {
    let threads = Whom::new(ctx, Some(which as u32), who)?.threads(ctx)?;
    let nice =
        threads.iter().filter_map(|tid| ctx.kernel.tasks.get(tid)).map(|task| task.settings.nice).min();
    // The kernel answers 20 less the nice value, so that no answer looks like an errno.
    Ok((20 - nice.ok_or(Errno::ESRCH)?) as u64)
}

pub(super) fn sys_setpriority(ctx: &mut Ctx<'_>, [which, who, nice, ..]: [u64; 6]) -> SysResult {
    let threads = Whom::new(ctx, Some(which as u32), who)?.threads(ctx)?;
    let nice = (nice as i32).clamp(-20, 19);
    let mut result = Ok(0);
    for tid in threads {
        let Some(task) = ctx.kernel.tasks.get(&tid) else { continue };
        let (own, others) = (&ctx.task().creds, &task.creds);
        if ![others.uid, others.euid].contains(&own.euid) && !own.has_capability(linux::CAP_SYS_NICE) {
            result = Err(Errno::EPERM.into());
        } else if nice < task.settings.nice && !may_have_nice(ctx, task, nice) {
            result = Err(Errno::EACCES.into());
        } else if let Some(task) = ctx.kernel.tasks.get_mut(&tid) {
            task.settings.nice = nice;
        }
    }
    result
}

/// The classes of I/O priorities (ioprio_set(2)).
mod class {
    pub const NONE: u16 = 0;
    pub const REAL_TIME: u16 = 1;
    pub const BEST_EFFORT: u16 = 2;
    pub const IDLE: u16 = 3;
}

/// Where the class begins in an I/O priority.
const CLASS_SHIFT: u32 = 13;

/// Levels of a class.
const LEVELS: u16 = 8;

/// Checks an I/O priority.
///
/// Errors: EINVAL, EPERM.
fn check_io_priority(ctx: &Ctx<'_>, value: u64) -> Result<u16, Errno> {
    let value = u16::try_from(value as u32).map_err(|_| Errno::EINVAL)?;
    let level = value & ((1 << CLASS_SHIFT) - 1);
    let creds = &ctx.task().creds;
    match value >> CLASS_SHIFT {
        class::REAL_TIME
            if !creds.has_capability(linux::CAP_SYS_ADMIN) && !creds.has_capability(linux::CAP_SYS_NICE) =>
        {
            Err(Errno::EPERM)
        }
        class::REAL_TIME | class::BEST_EFFORT if level < LEVELS => Ok(value),
        class::IDLE => Ok(value),
        class::NONE if level == 0 => Ok(value),
        _ => Err(Errno::EINVAL),
    }
}

/// Returns the I/O priority that is in force: the one that was set, or the one that follows from policy and
/// nice value.
fn io_priority_in_force(settings: &Settings) -> u16 {
    if settings.io_priority >> CLASS_SHIFT != class::NONE {
        return settings.io_priority;
    }
    let by_policy = if settings.policy == linux::SCHED_IDLE { class::IDLE } else { class::BEST_EFFORT };
    (by_policy << CLASS_SHIFT) | ((settings.nice + 20) as u16 / 5)
}

pub(super) fn sys_ioprio_set(ctx: &mut Ctx<'_>, [which, who, value, ..]: [u64; 6]) -> SysResult {
    let value = check_io_priority(ctx, value)?;
    let threads = Whom::new(ctx, (which as u32).checked_sub(1), who)?.threads(ctx)?;
    for tid in threads {
        let Some(task) = ctx.kernel.tasks.get(&tid) else { continue };
        let own = &ctx.task().creds;
        if ![own.euid, own.uid].contains(&task.creds.uid) && !own.has_capability(linux::CAP_SYS_NICE) {
            return Err(Errno::EPERM.into());
        }
        if let Some(task) = ctx.kernel.tasks.get_mut(&tid) {
            task.settings.io_priority = value;
        }
    }
    Ok(0)
}

pub(super) fn sys_ioprio_get(ctx: &mut Ctx<'_>, [which, who, ..]: [u64; 6]) -> SysResult {
    let whom = Whom::new(ctx, (which as u32).checked_sub(1), who)?;
    let threads = whom.threads(ctx)?;
    let settings = threads.iter().filter_map(|tid| ctx.kernel.tasks.get(tid)).map(|task| task.settings);
    // Of one thread the value that was set is told, of several the best that is in force.
    let best = match whom {
        Whom::Thread(_) => settings.map(|settings| settings.io_priority).min(),
        Whom::Group(_) | Whom::User(_) => settings.map(|settings| io_priority_in_force(&settings)).min(),
    };
    Ok(u64::from(best.ok_or(Errno::ESRCH)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_priority_that_was_not_set_follows_from_the_nice_value() {
        let settings = Settings::default();
        assert_eq!(io_priority_in_force(&settings), class::BEST_EFFORT << CLASS_SHIFT | 4);
        assert_eq!(
            io_priority_in_force(&Settings { nice: -20, ..settings }),
            class::BEST_EFFORT << CLASS_SHIFT
        );
        assert_eq!(
            io_priority_in_force(&Settings { nice: 19, policy: linux::SCHED_IDLE, ..settings }),
            class::IDLE << CLASS_SHIFT | 7
        );
        assert_eq!(io_priority_in_force(&Settings { io_priority: 0x2001, ..settings }), 0x2001);
    }
}
