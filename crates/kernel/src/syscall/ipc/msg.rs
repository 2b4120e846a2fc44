//! Messages: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use std::rc::Rc;

use lg_abi::ipc::*;
use lg_abi::raw::general::CAP_SYS_RESOURCE;
use lg_abi::{Errno, Msginfo, MsqidDs};

use super::{caller, id_from};
use crate::ipc::{MSGMAX, MSGMNB, MSGMNI, Message, Object, Queue, READ, Receiver, Selection, WRITE};
use crate::syscall::Ctx;
use crate::task::{SysResult, Wait};

/// Where the text begins in `struct msgbuf`.
const TEXT: u64 = 8;

pub(in crate::syscall) fn sys_msgget(ctx: &mut Ctx<'_>, [key, flags, ..]: [u64; 6]) -> SysResult {
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let make = |permission| Ok(Queue::new(&caller, permission));
    let id = ctx.kernel.ipc.msg.get(&caller, key as i32, flags as u32, |_| Ok(()), make)?;
    Ok(id.into())
}

pub(in crate::syscall) fn sys_msgsnd(ctx: &mut Ctx<'_>, [id, addr, len, flags, ..]: [u64; 6]) -> SysResult {
    let kind: i64 = ctx.copy_in(addr)?;
    if len > MSGMAX || kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let id = id_from(id)?;
    let mut text = vec![0; len as usize];
    ctx.read_bytes(addr.wrapping_add(TEXT), &mut text)?;
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    // A call that has waited goes on with the queue that it found.
    let queue = match ctx.kept::<Queue>() {
        Some(queue) if queue.is_removed() => return Err(Errno::EIDRM.into()),
        Some(queue) => queue,
        None => ctx.kernel.ipc.msg.find(id)?,
    };
    queue.permission().check(&caller, WRITE)?;
    if !queue.has_room(len) {
        if flags as u32 & IPC_NOWAIT != 0 {
            return Err(Errno::EAGAIN.into());
        }
        let wait = Wait::on([queue.room.clone()]).interruptible();
        ctx.keep(queue);
        return ctx.block(wait);
    }
    let message = Message::new(kind, text, &ctx.kernel.ipc.message_bytes)?;
    queue.send(&caller, message);
    Ok(0)
}

pub(in crate::syscall) fn sys_msgrcv(
    ctx: &mut Ctx<'_>,
    [id, addr, len, kind, flags, _]: [u64; 6],
) -> SysResult {
    let (flags, kind) = (flags as u32, kind as i64);
    if let Some(receiver) = ctx.kept::<Receiver>() {
        return match receiver.take_outcome() {
            Some(outcome) => deliver(ctx, addr, len, &*outcome?),
            None => ctx.block(Wait::on([receiver.done.clone()]).interruptible()),
        };
    }
    let id = id_from(id)?;
    if i64::try_from(len).is_err() {
        return Err(Errno::EINVAL.into());
    }
    if flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        return Err(Errno::EINVAL.into());
    }
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let queue = ctx.kernel.ipc.msg.find(id)?;
    queue.permission().check(&caller, READ)?;
    let max_len = (flags & MSG_NOERROR == 0).then(|| usize::try_from(len).unwrap_or(usize::MAX));
    if flags & MSG_COPY != 0 {
        let message = queue.peek(u64::try_from(kind).map_err(|_| Errno::ENOMSG)?)?;
        if message.text.len() as u64 > len {
            // A copy is never cut off.
            return Err(if max_len.is_some() { Errno::E2BIG } else { Errno::EINVAL }.into());
        }
        return deliver(ctx, addr, len, &message);
    }
    let selection = match kind {
        0 => Selection::Any,
        kind if kind < 0 => Selection::AtMost(kind.checked_neg().unwrap_or(i64::MAX)),
        kind if flags & MSG_EXCEPT != 0 => Selection::NotEqual(kind),
        kind => Selection::Equal(kind),
    };
    let receiver = Receiver::new(selection, max_len, caller.pid);
    if let Some(message) = queue.receive(&caller, &receiver)? {
        return deliver(ctx, addr, len, &message);
    }
    if flags & IPC_NOWAIT != 0 {
        return Err(Errno::ENOMSG.into());
    }
    queue.wait(&receiver);
    let wait = Wait::on([receiver.done.clone()]).interruptible();
    ctx.keep(receiver);
    ctx.block(wait)
}

/// Copies a message out, cut off to `len` bytes. As on Linux, a bad address loses it.
fn deliver(ctx: &Ctx<'_>, addr: u64, len: u64, message: &Message) -> SysResult {
    ctx.copy_out(addr, &message.kind)?;
    let text = &message.text[..message.text.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
    ctx.write_bytes(addr.wrapping_add(TEXT), text)?;
    Ok(text.len() as u64)
}

pub(in crate::syscall) fn sys_msgctl(ctx: &mut Ctx<'_>, [id, command, addr, ..]: [u64; 6]) -> SysResult {
    let (id, command) = (id_from(id)?, id_from(command)?);
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let msg = &ctx.kernel.ipc.msg;
    match command {
        IPC_INFO | MSG_INFO => {
            ctx.copy_out(addr, &info(ctx, command))?;
            Ok(msg.highest_index())
        }
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => {
            let (found, queue) = if command == IPC_STAT { (id, msg.find(id)?) } else { msg.at(id)? };
            if command != MSG_STAT_ANY {
                queue.permission().check(&caller, READ)?;
            }
            ctx.copy_out(addr, &queue.show(found))?;
            Ok(if command == IPC_STAT { 0 } else { found.into() })
        }
        IPC_SET => {
            let wanted: MsqidDs = ctx.copy_in(addr)?;
            let queue: Rc<Queue> = msg.find(id)?;
            let mut permission = queue.permission();
            permission.check_owner(&caller)?;
            if wanted.msg_qbytes > MSGMNB && !creds.has_capability(CAP_SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            permission.set(&wanted.msg_perm)?;
            queue.set(&caller, permission, wanted.msg_qbytes);
            Ok(0)
        }
        IPC_RMID => {
            let queue = msg.find(id)?;
            queue.permission().check_owner(&caller)?;
            ctx.kernel.ipc.msg.remove(id);
            queue.end_waiting();
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn info(ctx: &Ctx<'_>, command: u32) -> Msginfo {
    let msg = &ctx.kernel.ipc.msg;
    let limits = Msginfo {
        msgpool: (MSGMNI as u64 * MSGMNB / 1024) as i32,
        msgmap: MSGMNB as i32,
        msgmax: MSGMAX as i32,
        msgmnb: MSGMNB as i32,
        msgmni: MSGMNI as i32,
        msgssz: 16,
        msgtql: MSGMNB as i32,
        msgseg: u16::MAX,
        pad: 0,
    };
    if command == IPC_INFO {
        return limits;
    }
    let (messages, bytes) = msg.iter().fold((0, 0), |(messages, bytes), (id, queue)| {
        let shown = queue.show(id);
        (messages + shown.msg_qnum, bytes + shown.msg_cbytes)
    });
    Msginfo { msgpool: msg.count() as i32, msgmap: messages as i32, msgtql: bytes as i32, ..limits }
}
