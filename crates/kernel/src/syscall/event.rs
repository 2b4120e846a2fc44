//! Files that stand for events: epoll(7), eventfd(2), timerfd_create(2).

use std::rc::Rc;

use lg_abi::raw::general::{
    EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD,
    O_NONBLOCK, O_RDWR, TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET,
};
use lg_abi::zerocopy::IntoBytes;
use lg_abi::{EpollEvent, Errno, Itimerspec, Timespec};

use super::Ctx;
use super::fd::install;
use super::io::check_spans;
use super::poll::{lend_mask, wait_or_time_out};
use crate::fs::anon::new_anon;
use crate::fs::epoll::{Epoll, as_epoll};
use crate::fs::eventfd::{EventFd, Taking};
use crate::fs::timerfd::{Setting, TimerFd, as_timer};
use crate::mm::Span;
use crate::task::{SysResult, Wait};
use crate::vfs::{File, Readiness};

/// The most events that one call may ask for (EP_MAX_EVENTS). It is given no more than an instance watches.
const MAX_EVENTS: usize = i32::MAX as usize / size_of::<EpollEvent>();

pub(super) fn install_anon(ctx: &mut Ctx<'_>, file: Rc<dyn File>, name: &str, flags: u32) -> SysResult {
    let description = new_anon(&ctx.fs(), file, name, O_RDWR | flags & O_NONBLOCK)?;
    install(ctx, description, flags)
}

/// Refuses with EINVAL what is not among the known flags.
pub(super) fn check_flags(flags: u64, known: u32) -> Result<u32, Errno> {
    let flags = flags as u32;
    if flags & !known != 0 { Err(Errno::EINVAL) } else { Ok(flags) }
}

/// Decodes a time-out in ms, where a negative one is none, to a deadline.
fn deadline_from_ms(ctx: &mut Ctx<'_>, ms: u64) -> Option<u64> {
    let ms = u64::try_from(ms as i32).ok()?;
    Some(ctx.deadline_after(ms * 1_000_000))
}

pub(super) fn sys_epoll_create(ctx: &mut Ctx<'_>, [size, ..]: [u64; 6]) -> SysResult {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    sys_epoll_create1(ctx, [0; 6])
}

pub(super) fn sys_epoll_create1(ctx: &mut Ctx<'_>, [flags, ..]: [u64; 6]) -> SysResult {
    let flags = check_flags(flags, EPOLL_CLOEXEC)?;
    let epoll = Epoll::new(&ctx.fs());
    install_anon(ctx, epoll, "[eventpoll]", flags)
}

pub(super) fn sys_epoll_ctl(ctx: &mut Ctx<'_>, [epfd, operation, fd, event, ..]: [u64; 6]) -> SysResult {
    let wanted: Option<EpollEvent> =
        if operation as u32 == EPOLL_CTL_DEL { None } else { Some(ctx.copy_in(event)?) };
    let instance = ctx.open_fd(epfd)?;
    let watched = ctx.open_fd(fd)?;
    if Rc::ptr_eq(&instance, &watched) {
        return Err(Errno::EINVAL.into());
    }
    let epoll = as_epoll(&instance.file)?;
    let number = fd as u32;
    match (operation as u32, wanted) {
        (EPOLL_CTL_DEL, None) => epoll.remove(number, &watched)?,
        (EPOLL_CTL_ADD, Some(event)) => epoll.add(number, &watched, &event)?,
        (EPOLL_CTL_MOD, Some(event)) => epoll.modify(number, &watched, &event)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

pub(super) fn sys_epoll_wait(ctx: &mut Ctx<'_>, [epfd, events, max, timeout, ..]: [u64; 6]) -> SysResult {
    let deadline_ns = deadline_from_ms(ctx, timeout);
    epoll_wait(ctx, epfd, events, max, deadline_ns)
}

pub(super) fn sys_epoll_pwait(
    ctx: &mut Ctx<'_>,
    [epfd, events, max, timeout, mask, size]: [u64; 6],
) -> SysResult {
    lend_mask(ctx, mask, size)?;
    let deadline_ns = deadline_from_ms(ctx, timeout);
    epoll_wait(ctx, epfd, events, max, deadline_ns)
}

pub(super) fn sys_epoll_pwait2(
    ctx: &mut Ctx<'_>,
    [epfd, events, max, timeout, mask, size]: [u64; 6],
) -> SysResult {
    let deadline_ns = ctx.deadline_from(timeout)?;
    lend_mask(ctx, mask, size)?;
    epoll_wait(ctx, epfd, events, max, deadline_ns)
}

fn epoll_wait(ctx: &mut Ctx<'_>, epfd: u64, addr: u64, max: u64, deadline_ns: Option<u64>) -> SysResult {
    let max =
        usize::try_from(max as i32).ok().filter(|max| (1..=MAX_EVENTS).contains(max)).ok_or(Errno::EINVAL)?;
    check_spans(&[Span { addr, len: (max * size_of::<EpollEvent>()) as u64 }])?;
    let instance = ctx.open_fd(epfd)?;
    let epoll = as_epoll(&instance.file)?;
    let events = epoll.take_events(&ctx.fs(), max);
    if events.is_empty() {
        let mut wait = Wait::on(epoll.queues()).until(epoll.ready_at_ns());
        wait.host = epoll.host_events(Readiness::all());
        wait_or_time_out(ctx, wait, deadline_ns)?;
        return Ok(0);
    }
    ctx.write_bytes(addr, events.as_bytes())?;
    Ok(events.len() as u64)
}

pub(super) fn sys_eventfd(ctx: &mut Ctx<'_>, [count, ..]: [u64; 6]) -> SysResult {
    make_eventfd(ctx, count, 0)
}

pub(super) fn sys_eventfd2(ctx: &mut Ctx<'_>, [count, flags, ..]: [u64; 6]) -> SysResult {
    make_eventfd(ctx, count, flags)
}

fn make_eventfd(ctx: &mut Ctx<'_>, count: u64, flags: u64) -> SysResult {
    let flags = check_flags(flags, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK)?;
    let taking = if flags & EFD_SEMAPHORE != 0 { Taking::One } else { Taking::Everything };
    let file = EventFd::new(u64::from(count as u32), taking);
    install_anon(ctx, file, "[eventfd]", flags)
}

pub(super) fn sys_timerfd_create(ctx: &mut Ctx<'_>, [clock, flags, ..]: [u64; 6]) -> SysResult {
    use lg_abi::raw::general::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME};
    let flags = check_flags(flags, TFD_CLOEXEC | TFD_NONBLOCK)?;
    if !matches!(clock as u32, CLOCK_REALTIME | CLOCK_MONOTONIC | CLOCK_BOOTTIME) {
        return Err(Errno::EINVAL.into());
    }
    install_anon(ctx, TimerFd::new(clock as u32), "[timerfd]", flags)
}

pub(super) fn sys_timerfd_settime(ctx: &mut Ctx<'_>, [fd, flags, new, old, ..]: [u64; 6]) -> SysResult {
    let spec: Itimerspec = ctx.copy_in(new)?;
    let flags = check_flags(flags, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)?;
    let description = ctx.open_fd(fd)?;
    let timer = as_timer(&description.file)?;
    let value_ns = spec.value.to_ns().ok_or(Errno::EINVAL)?;
    let interval_ns = spec.interval.to_ns().ok_or(Errno::EINVAL)?;
    let now_ns = ctx.fs().monotonic_ns;
    let before = timer.remaining(now_ns);
    let next_ns = if flags & TFD_TIMER_ABSTIME == 0 {
        now_ns.saturating_add(value_ns)
    } else if timer.is_realtime() {
        let realtime_ns = ctx.fs().now.to_ns().unwrap_or(0);
        now_ns.saturating_add(value_ns.saturating_sub(realtime_ns))
    } else {
        value_ns
    };
    timer.set((value_ns > 0).then_some(Setting { next_ns, interval_ns }), flags);
    ctx.copy_out_opt(old, &to_itimerspec(before))?;
    Ok(0)
}

pub(super) fn sys_timerfd_gettime(ctx: &mut Ctx<'_>, [fd, to, ..]: [u64; 6]) -> SysResult {
    let description = ctx.open_fd(fd)?;
    let timer = as_timer(&description.file)?;
    let remaining = timer.remaining(ctx.fs().monotonic_ns);
    ctx.copy_out(to, &to_itimerspec(remaining))?;
    Ok(0)
}

pub(super) fn to_itimerspec((value_ns, interval_ns): (u64, u64)) -> Itimerspec {
    Itimerspec { interval: Timespec::from_ns(interval_ns), value: Timespec::from_ns(value_ns) }
}
