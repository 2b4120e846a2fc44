//! POSIX message queues: mq_open(3), mq_send(3), mq_receive(3), mq_notify(3) as system calls.

use std::any::Any;
use std::rc::Rc;

use lg_abi::ipc::{NOTIFY_COOKIE_LEN, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD};
use lg_abi::raw::general::{
    CAP_FOWNER, CAP_SYS_RESOURCE, O_ACCMODE, O_CLOEXEC, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR,
    O_WRONLY, RLIMIT_MSGQUEUE,
};
use lg_abi::{Errno, MqAttr, SigInfo, Sigevent, Signal, Timespec};

use super::Ctx;
use super::fd::install;
use crate::ipc::mqueue::{
    HARD_QUEUES_MAX, MSG_MAX, MSGSIZE_MAX, Means, MqFile, MqQueue, Notification, PRIORITIES, QUEUES_MAX,
    Told, Waiter,
};
use crate::net::{NetlinkListener, as_socket};
use crate::signal::SignalTarget;
use crate::task::{Stop, SysResult, Wait};
use crate::vfs::permission::{Access, check_access};
use crate::vfs::{File, FileDescription, Inode};

/// Longest name of a queue.
const MAX_NAME: usize = 255;

/// Reads a name: one component, without the slash that mq_open(3) wants before it.
fn read_name(ctx: &Ctx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    let name = ctx.read_path(addr)?;
    match name.as_slice() {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        name if name.contains(&b'/') => Err(Errno::EACCES),
        name if name.len() > MAX_NAME => Err(Errno::ENAMETOOLONG),
        _ => Ok(name),
    }
}

pub(super) fn sys_mq_open(ctx: &mut Ctx<'_>, [name, flags, mode, attr, ..]: [u64; 6]) -> SysResult {
    let flags = flags as u32;
    let creates = flags & O_CREAT != 0;
    let wanted: Option<MqAttr> = if creates && attr != 0 { Some(ctx.copy_in(attr)?) } else { None };
    let name = read_name(ctx, name)?;
    let queue = match ctx.kernel.ipc.queues.get(&name).cloned() {
        Some(_) if creates && flags & O_EXCL != 0 => return Err(Errno::EEXIST.into()),
        Some(queue) => {
            let access = match flags & O_ACCMODE {
                O_RDONLY => Access::READ,
                O_WRONLY => Access::WRITE,
                O_RDWR => Access::READ | Access::WRITE,
                _ => return Err(Errno::EINVAL.into()),
            };
            check_access(&ctx.fs(), &queue.attributes(), access)?;
            queue
        }
        None if !creates => return Err(Errno::ENOENT.into()),
        None => create(ctx, &name, mode as u32, wanted)?,
    };
    let file = Rc::new(MqFile(queue));
    let shown = [b"/", name.as_slice()].concat();
    let inode: Rc<dyn Inode> = file.clone();
    let kept = flags & (O_ACCMODE | O_NONBLOCK);
    let description = FileDescription::nameless(&ctx.fs(), inode, file, &shown, kept)?;
    install(ctx, description, O_CLOEXEC)
}

fn create(ctx: &mut Ctx<'_>, name: &[u8], mode: u32, wanted: Option<MqAttr>) -> Result<Rc<MqQueue>, Errno> {
    let ipc = &ctx.kernel.ipc;
    let is_privileged = ctx.task().creds.has_capability(CAP_SYS_RESOURCE);
    let most = if is_privileged { HARD_QUEUES_MAX } else { QUEUES_MAX };
    if ipc.queues.len() >= most {
        return Err(Errno::ENOSPC);
    }
    let mode = mode & !ctx.fs_state().borrow().umask;
    let lengths = wanted.map_or((MSG_MAX, MSGSIZE_MAX), |attr| (attr.mq_maxmsg, attr.mq_msgsize));
    let limit = ctx.rlimit(RLIMIT_MSGQUEUE).cur;
    let queue = MqQueue::new(&ctx.fs(), mode, lengths, limit, &ipc.charges, &ipc.message_bytes)?;
    ctx.kernel.ipc.queues.insert(name.to_vec(), queue.clone());
    Ok(queue)
}

pub(super) fn sys_mq_unlink(ctx: &mut Ctx<'_>, [name, ..]: [u64; 6]) -> SysResult {
    let name = read_name(ctx, name)?;
    let queue = ctx.kernel.ipc.queues.get(&name).ok_or(Errno::ENOENT)?;
    let creds = &ctx.task().creds;
    // The directory of queues is root's and has the sticky bit.
    let may = [queue.attributes().uid, 0].contains(&creds.fsuid) || creds.has_capability(CAP_FOWNER);
    if !may {
        return Err(Errno::EPERM.into());
    }
    ctx.kernel.ipc.queues.remove(&name);
    Ok(0)
}

/// Returns an open queue. Errors: EBADF.
fn queue_of(ctx: &Ctx<'_>, fd: u64) -> Result<(Rc<FileDescription>, Rc<MqQueue>), Errno> {
    let description = ctx.fd(fd)?;
    let file: Rc<dyn File> = description.file.clone();
    let any: Rc<dyn Any> = file;
    let queue = any.downcast::<MqFile>().map_err(|_| Errno::EBADF)?;
    Ok((description, queue.0.clone()))
}

/// Reads a time on CLOCK_REALTIME until which a call waits, as a time on CLOCK_MONOTONIC.
///
/// Errors: EFAULT, EINVAL.
fn deadline(ctx: &Ctx<'_>, addr: u64) -> Result<Option<u64>, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    let until_ns = ctx.copy_in::<Timespec>(addr)?.to_ns().ok_or(Errno::EINVAL)?;
    Ok(Some(until_ns.saturating_sub(ctx.kernel.clock.boot_realtime_ns())))
}

fn check_time(ctx: &Ctx<'_>, deadline_ns: Option<u64>) -> Result<(), Errno> {
    let is_over = deadline_ns.is_some_and(|deadline_ns| ctx.now_ns() >= deadline_ns);
    if is_over { Err(Errno::ETIMEDOUT) } else { Ok(()) }
}

pub(super) fn sys_mq_timedsend(
    ctx: &mut Ctx<'_>,
    [fd, addr, len, priority, timeout, _]: [u64; 6],
) -> SysResult {
    let deadline_ns = deadline(ctx, timeout)?;
    let priority = priority as u32;
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL.into());
    }
    let (description, queue) = queue_of(ctx, fd)?;
    description.check_writable()?;
    if len > queue.max_len() {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut text = vec![0; len as usize];
    ctx.read_bytes(addr, &mut text)?;
    if queue.is_full() {
        if description.is_nonblocking() {
            return Err(Errno::EAGAIN.into());
        }
        check_time(ctx, deadline_ns)?;
        return ctx.block(Wait::on([queue.changed.clone()]).until(deadline_ns));
    }
    if let Some(told) = queue.send(priority, text)? {
        notify(ctx, told);
    }
    Ok(0)
}

/// Tells a process that a message has come.
fn notify(ctx: &mut Ctx<'_>, told: Notification) {
    told.send_packet(Told::WokenUp);
    let Means::Signal(number, value) = told.means else { return };
    let Some(signal) = u64::try_from(number).ok().and_then(Signal::new) else { return };
    let (pid, uid) = (ctx.task().tgid.0, ctx.task().creds.uid);
    let info = SigInfo { field1: value, ..SigInfo::from_process(signal, SigInfo::SI_MESGQ, pid, uid) };
    ctx.kernel.send_signal(SignalTarget::Process(told.process), signal, info);
}

pub(super) fn sys_mq_timedreceive(
    ctx: &mut Ctx<'_>,
    [fd, addr, len, priority, timeout, _]: [u64; 6],
) -> SysResult {
    let deadline_ns = deadline(ctx, timeout)?;
    if let Some(waiter) = ctx.kept::<Waiter>() {
        if let Some((of, text)) = waiter.take() {
            return deliver(ctx, addr, priority, of, &text);
        }
        check_time(ctx, deadline_ns)?;
        return ctx.block(Wait::on([waiter.done.clone()]).until(deadline_ns));
    }
    let (description, queue) = queue_of(ctx, fd)?;
    description.check_readable()?;
    if len < queue.max_len() {
        return Err(Errno::EMSGSIZE.into());
    }
    if let Some((of, text)) = queue.receive() {
        return deliver(ctx, addr, priority, of, &text);
    }
    if description.is_nonblocking() {
        return Err(Errno::EAGAIN.into());
    }
    check_time(ctx, deadline_ns)?;
    let waiter = queue.wait();
    ctx.keep(waiter.clone());
    Err(Stop::Block(Wait::on([waiter.done.clone()]).until(deadline_ns)))
}

/// Copies a message out. As on Linux, a bad address loses it.
fn deliver(ctx: &Ctx<'_>, addr: u64, priority_addr: u64, priority: u32, text: &[u8]) -> SysResult {
    ctx.copy_out_opt(priority_addr, &priority)?;
    ctx.write_bytes(addr, text)?;
    Ok(text.len() as u64)
}

pub(super) fn sys_mq_notify(ctx: &mut Ctx<'_>, [fd, event, ..]: [u64; 6]) -> SysResult {
    let event: Option<Sigevent> = if event == 0 { None } else { Some(ctx.copy_in(event)?) };
    let process = ctx.task().tgid;
    let told = match event {
        None => None,
        Some(event) => match event.notify {
            SIGEV_NONE => Some(Notification { process, means: Means::Nothing }),
            SIGEV_SIGNAL if (0..=i32::from(Signal::MAX)).contains(&event.signo) => {
                Some(Notification { process, means: Means::Signal(event.signo, event.value) })
            }
            SIGEV_THREAD => Some(Notification { process, means: read_thread(ctx, &event)? }),
            _ => return Err(Errno::EINVAL.into()),
        },
    };
    let (_, queue) = queue_of(ctx, fd)?;
    let is_living = |told: &Notification| {
        ctx.kernel.processes.get(&told.process).is_some_and(|owner| !owner.threads.is_empty())
    };
    match (queue.notification().filter(is_living), told) {
        (Some(before), None) if before.process == process => queue.cancel_notification(),
        (Some(_), Some(_)) => return Err(Errno::EBUSY.into()),
        (None, Some(told)) => queue.set_notification(told),
        _ => {}
    }
    Ok(0)
}

/// Reads what is told by SIGEV_THREAD: a packet, to a netlink socket whose descriptor takes the signal's place.
///
/// Errors: EFAULT, EBADF, ENOTSOCK; EINVAL for a socket of another family.
fn read_thread(ctx: &Ctx<'_>, event: &Sigevent) -> Result<Means, Errno> {
    let mut cookie = [0; NOTIFY_COOKIE_LEN];
    ctx.read_bytes(event.value, &mut cookie)?;
    let description = ctx.fd(event.signo as u64)?;
    let socket = as_socket(&description.file).ok_or(Errno::ENOTSOCK)?;
    let listener = NetlinkListener::new(&socket).ok_or(Errno::EINVAL)?;
    Ok(Means::Packet(listener, cookie))
}

pub(super) fn sys_mq_getsetattr(ctx: &mut Ctx<'_>, [fd, new, old, ..]: [u64; 6]) -> SysResult {
    let new: Option<MqAttr> = if new == 0 { None } else { Some(ctx.copy_in(new)?) };
    if new.is_some_and(|new| new.mq_flags & !i64::from(O_NONBLOCK) != 0) {
        return Err(Errno::EINVAL.into());
    }
    let (description, queue) = queue_of(ctx, fd)?;
    let flags = description.flags();
    let shown = MqAttr { mq_flags: i64::from(flags & O_NONBLOCK), ..queue.show() };
    if let Some(new) = new {
        description.set_flags(flags & !O_NONBLOCK | new.mq_flags as u32 & O_NONBLOCK);
    }
    ctx.copy_out_opt(old, &shown)?;
    Ok(0)
}
