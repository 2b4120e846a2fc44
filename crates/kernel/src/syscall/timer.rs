//! POSIX timers: timer_create, timer_settime, timer_gettime, timer_getoverrun, timer_delete.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Itimerspec, Sigevent, Signal};

use super::Ctx;
use super::event::to_itimerspec;
use crate::task::{SysResult, Tid};
use crate::time::{IntervalTimer, Notify, TimerClock};

/// Returns the clock of a new timer.
///
/// Errors: EINVAL for what is no clock, EOPNOTSUPP for one without timers.
fn timer_clock(ctx: &Ctx<'_>, number: u64) -> Result<TimerClock, Errno> {
    match number as u32 {
        linux::CLOCK_REALTIME | linux::CLOCK_TAI => Ok(TimerClock::Realtime),
        linux::CLOCK_MONOTONIC | linux::CLOCK_BOOTTIME => Ok(TimerClock::Monotonic),
        linux::CLOCK_PROCESS_CPUTIME_ID => Ok(TimerClock::ProcessCpu),
        linux::CLOCK_THREAD_CPUTIME_ID => Ok(TimerClock::ThreadCpu(ctx.tid)),
        // The machine has no clock that wakes it up, as the two clocks of alarms need one.
        linux::CLOCK_MONOTONIC_RAW
        | linux::CLOCK_REALTIME_COARSE
        | linux::CLOCK_MONOTONIC_COARSE
        | linux::CLOCK_REALTIME_ALARM
        | linux::CLOCK_BOOTTIME_ALARM => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}

/// Returns what a `struct sigevent` asks for.
///
/// Errors: EINVAL, also for a thread of another process.
fn notify(ctx: &Ctx<'_>, event: &Sigevent) -> Result<Notify, Errno> {
    let signal = || Signal::new(u64::from(event.signo as u32)).ok_or(Errno::EINVAL);
    match event.notify as u32 {
        linux::SIGEV_NONE => Ok(Notify::Nobody),
        // SIGEV_THREAD is a matter of the C library; the kernel takes it for SIGEV_SIGNAL.
        linux::SIGEV_SIGNAL | linux::SIGEV_THREAD => signal().map(Notify::Process),
        linux::SIGEV_THREAD_ID => {
            let tid = Tid(event.tid as u32);
            let tgid = ctx.kernel.tasks.get(&tid).map(|task| task.tgid);
            if tgid != Some(ctx.task().tgid) {
                return Err(Errno::EINVAL);
            }
            signal().map(|signal| Notify::Thread(tid, signal))
        }
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn sys_timer_create(ctx: &mut Ctx<'_>, [clock, event, id, ..]: [u64; 6]) -> SysResult {
    let event = if event == 0 { None } else { Some(ctx.copy_in::<Sigevent>(event)?) };
    let clock = timer_clock(ctx, clock)?;
    let (notify, value) = match event {
        None => (Notify::Process(Signal::SIGALRM), None),
        Some(event) => (notify(ctx, &event)?, Some(event.value)),
    };
    let tgid = ctx.task().tgid;
    let timer = ctx.kernel.create_posix_timer(tgid, clock, notify, value)?;
    if let Err(errno) = ctx.copy_out(id, &timer) {
        ctx.kernel.delete_posix_timer(tgid, timer)?;
        return Err(errno.into());
    }
    Ok(0)
}

pub(super) fn sys_timer_settime(ctx: &mut Ctx<'_>, [id, flags, new, old, ..]: [u64; 6]) -> SysResult {
    if new == 0 {
        return Err(Errno::EINVAL.into());
    }
    let wanted: Itimerspec = ctx.copy_in(new)?;
    let value_ns = wanted.value.to_ns().ok_or(Errno::EINVAL)?;
    let interval_ns = wanted.interval.to_ns().ok_or(Errno::EINVAL)?;
    let (id, tgid) = (id as i32, ctx.task().tgid);
    let clock = ctx.kernel.posix_timer_clock(tgid, id)?;
    let before = ctx.kernel.posix_timer_left(tgid, id)?;
    let next_ns = if flags & u64::from(linux::TIMER_ABSTIME) == 0 {
        ctx.kernel.timer_clock_ns(tgid, clock).saturating_add(value_ns)
    } else if clock == TimerClock::Realtime {
        value_ns.saturating_sub(ctx.kernel.clock.boot_realtime_ns())
    } else {
        value_ns
    };
    let setting = if value_ns > 0 {
        IntervalTimer { next_ns: Some(next_ns), interval_ns }
    } else {
        IntervalTimer::default()
    };
    ctx.kernel.set_posix_timer(tgid, id, setting)?;
    ctx.copy_out_opt(old, &to_itimerspec(before))?;
    Ok(0)
}

pub(super) fn sys_timer_gettime(ctx: &mut Ctx<'_>, [id, to, ..]: [u64; 6]) -> SysResult {
    let tgid = ctx.task().tgid;
    let left = ctx.kernel.posix_timer_left(tgid, id as i32)?;
    ctx.copy_out(to, &to_itimerspec(left))?;
    Ok(0)
}

pub(super) fn sys_timer_getoverrun(ctx: &mut Ctx<'_>, [id, ..]: [u64; 6]) -> SysResult {
    let tgid = ctx.task().tgid;
    Ok(ctx.kernel.posix_timer_overrun(tgid, id as i32)? as u64)
}

pub(super) fn sys_timer_delete(ctx: &mut Ctx<'_>, [id, ..]: [u64; 6]) -> SysResult {
    let tgid = ctx.task().tgid;
    ctx.kernel.delete_posix_timer(tgid, id as i32)?;
    Ok(0)
}
