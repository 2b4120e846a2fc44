//! Clocks, sleeping and interval timers.

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Itimerval, Timespec, Timeval, Tms};

use super::Ctx;
use crate::task::{SysResult, Tid, Wait};
use crate::time::{ClockId, IntervalTimer, Timer};

/// Clock ticks a second (`_SC_CLK_TCK`).
const TICKS: u64 = 100;

/// Returns the time of a clock.
///
/// Errors: EINVAL for the processor time of what is no process, or no thread of the caller's process.
fn clock_ns(ctx: &mut Ctx<'_>, clock: ClockId) -> Result<u64, Errno> {
    Ok(match clock {
        ClockId::Realtime => ctx.kernel.clock.realtime_ns(),
        ClockId::Monotonic => ctx.now_ns(),
        ClockId::ThreadCpu => {
            ctx.kernel.charge_cpu();
            ctx.task().cpu_ns
        }
        ClockId::ProcessCpu | ClockId::ProcessCpuOf(0) => process_cpu_ns(ctx),
        ClockId::ProcessCpuOf(id) => {
            let tgid = Tid(id);
            ctx.kernel.processes.get(&tgid).ok_or(Errno::EINVAL)?;
            ctx.kernel.process_cpu_ns(tgid)
        }
        ClockId::ThreadCpuOf(id) => {
            ctx.kernel.charge_cpu();
            let tid = if id == 0 { ctx.task().tid } else { Tid(id) };
            let thread = ctx.kernel.tasks.get(&tid).filter(|task| task.tgid == ctx.task().tgid);
            thread.ok_or(Errno::EINVAL)?.cpu_ns
        }
    })
}

/// Returns the processor time of the calling process.
pub(super) fn process_cpu_ns(ctx: &mut Ctx<'_>) -> u64 {
    let tgid = ctx.task().tgid;
    ctx.kernel.process_cpu_ns(tgid)
}

pub(super) fn sys_clock_gettime(ctx: &mut Ctx<'_>, [clock, to, ..]: [u64; 6]) -> SysResult {
    let clock = ClockId::new(clock).ok_or(Errno::EINVAL)?;
    let now = Timespec::from_ns(clock_ns(ctx, clock)?);
    ctx.copy_out(to, &now)?;
    Ok(0)
}

pub(super) fn sys_clock_getres(ctx: &mut Ctx<'_>, [clock, to, ..]: [u64; 6]) -> SysResult {
    let id = ClockId::new(clock).ok_or(Errno::EINVAL)?;
    clock_ns(ctx, id)?;
    // The coarse clocks tick like Linux's at 250 Hz; the others count nanoseconds.
    let ns = if matches!(clock, 5 | 6) { 4_000_000 } else { 1 };
    ctx.copy_out_opt(to, &Timespec::from_ns(ns))?;
    Ok(0)
}

pub(super) fn sys_clock_settime(_ctx: &mut Ctx<'_>, _args: [u64; 6]) -> SysResult {
    Err(Errno::EPERM.into())
}

pub(super) fn sys_gettimeofday(ctx: &mut Ctx<'_>, [tv, tz, ..]: [u64; 6]) -> SysResult {
    let now_ns = ctx.kernel.clock.realtime_ns();
    ctx.copy_out_opt(tv, &Timeval::from_ns(now_ns))?;
    ctx.copy_out_opt(tz, &0u64)?;
    Ok(0)
}

pub(super) fn sys_time(ctx: &mut Ctx<'_>, [to, ..]: [u64; 6]) -> SysResult {
    let now = ctx.kernel.clock.realtime_ns() / Timespec::NS_PER_SEC;
    ctx.copy_out_opt(to, &now)?;
    Ok(now)
}

pub(super) fn sys_nanosleep(ctx: &mut Ctx<'_>, [span, remaining, ..]: [u64; 6]) -> SysResult {
    let ns = ctx.copy_in::<Timespec>(span)?.to_ns().ok_or(Errno::EINVAL)?;
    let deadline_ns = ctx.deadline_after(ns);
    sleep_until(ctx, deadline_ns, remaining)
}

pub(super) fn sys_clock_nanosleep(
    ctx: &mut Ctx<'_>,
    [clock, flags, span, remaining, ..]: [u64; 6],
) -> SysResult {
    let clock = ClockId::new(clock).ok_or(Errno::EINVAL)?;
    if !matches!(clock, ClockId::Realtime | ClockId::Monotonic) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let ns = ctx.copy_in::<Timespec>(span)?.to_ns().ok_or(Errno::EINVAL)?;
    if flags & u64::from(linux::TIMER_ABSTIME) == 0 {
        let deadline_ns = ctx.deadline_after(ns);
        return sleep_until(ctx, deadline_ns, remaining);
    }
    let deadline_ns = match clock {
        ClockId::Realtime => ns.saturating_sub(ctx.kernel.clock.boot_realtime_ns()),
        _ => ns,
    };
    sleep_until(ctx, deadline_ns, 0)
}

/// Sleeps; `remaining` is told what a signal leaves of the sleep.
fn sleep_until(ctx: &mut Ctx<'_>, deadline_ns: u64, remaining: u64) -> SysResult {
    let now_ns = ctx.now_ns();
    if now_ns >= deadline_ns {
        return Ok(0);
    }
    if ctx.signal_pending() {
        ctx.copy_out_opt(remaining, &Timespec::from_ns(deadline_ns - now_ns))?;
    }
    ctx.block(Wait::default().until(Some(deadline_ns)).interruptible())
}

pub(super) fn sys_times(ctx: &mut Ctx<'_>, [to, ..]: [u64; 6]) -> SysResult {
    let tick_ns = Timespec::NS_PER_SEC / TICKS;
    let own = process_cpu_ns(ctx) / tick_ns;
    let children = ctx.process().children_used.cpu_ns / tick_ns;
    let times = Tms { utime: own as i64, stime: 0, cutime: children as i64, cstime: 0 };
    ctx.copy_out_opt(to, &times)?;
    Ok(ctx.now_ns() / tick_ns)
}

pub(super) fn sys_alarm(ctx: &mut Ctx<'_>, [seconds, ..]: [u64; 6]) -> SysResult {
    let value_ns = (seconds as u32 as u64) * Timespec::NS_PER_SEC;
    let (left_ns, _) = set_real_timer(ctx, value_ns, 0);
    Ok(left_ns.div_ceil(Timespec::NS_PER_SEC))
}

/// Sets ITIMER_REAL and returns what was left of it, and its interval.
fn set_real_timer(ctx: &mut Ctx<'_>, value_ns: u64, interval_ns: u64) -> (u64, u64) {
    let now_ns = ctx.now_ns();
    let tgid = ctx.task().tgid;
    let before = ctx.process().timers.real;
    if let Some(next_ns) = before.next_ns {
        ctx.kernel.timers.remove(next_ns, Timer::Real(tgid));
    }
    let next_ns = (value_ns > 0).then(|| now_ns.saturating_add(value_ns));
    if let Some(next_ns) = next_ns {
        ctx.kernel.timers.add(next_ns, Timer::Real(tgid));
    }
    ctx.process_mut().timers.real = IntervalTimer { next_ns, interval_ns };
    (before.next_ns.map_or(0, |next_ns| next_ns.saturating_sub(now_ns).max(1)), before.interval_ns)
}

fn to_itimerval(left_ns: u64, interval_ns: u64) -> Itimerval {
    Itimerval { interval: Timeval::from_ns(interval_ns), value: Timeval::from_ns(left_ns) }
}

pub(super) fn sys_setitimer(ctx: &mut Ctx<'_>, [which, new, old, ..]: [u64; 6]) -> SysResult {
    let wanted: Itimerval = if new == 0 { Itimerval::default() } else { ctx.copy_in(new)? };
    let value_ns = wanted.value.to_ns().ok_or(Errno::EINVAL)?;
    let interval_ns = wanted.interval.to_ns().ok_or(Errno::EINVAL)?;
    let (left_ns, old_interval_ns) = match which as u32 {
        linux::ITIMER_REAL => set_real_timer(ctx, value_ns, interval_ns),
        linux::ITIMER_VIRTUAL | linux::ITIMER_PROF => {
            let now_ns = process_cpu_ns(ctx);
            let process = ctx.process_mut();
            let timer = if which as u32 == linux::ITIMER_PROF {
                &mut process.timers.prof
            } else {
                &mut process.timers.virtual_
            };
            let before = *timer;
            let next_ns = (value_ns > 0).then(|| now_ns.saturating_add(value_ns));
            *timer = IntervalTimer { next_ns, interval_ns };
            let left_ns = before.next_ns.map_or(0, |next_ns| next_ns.saturating_sub(now_ns).max(1));
            (left_ns, before.interval_ns)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    ctx.copy_out_opt(old, &to_itimerval(left_ns, old_interval_ns))?;
    Ok(0)
}

pub(super) fn sys_getitimer(ctx: &mut Ctx<'_>, [which, to, ..]: [u64; 6]) -> SysResult {
    let (timer, now_ns) = match which as u32 {
        linux::ITIMER_REAL => (ctx.process().timers.real, ctx.now_ns()),
        linux::ITIMER_VIRTUAL => (ctx.process().timers.virtual_, process_cpu_ns(ctx)),
        linux::ITIMER_PROF => (ctx.process().timers.prof, process_cpu_ns(ctx)),
        _ => return Err(Errno::EINVAL.into()),
    };
    let left_ns = timer.next_ns.map_or(0, |next_ns| next_ns.saturating_sub(now_ns).max(1));
    ctx.copy_out(to, &to_itimerval(left_ns, timer.interval_ns))?;
    Ok(0)
}
