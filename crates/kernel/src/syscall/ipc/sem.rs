//! Semaphores: semget(2), semop(2), semtimedop(2), semctl(2).

use lg_abi::ipc::*;
use lg_abi::zerocopy::{FromZeros, IntoBytes};
use lg_abi::{Errno, Sembuf, SemidDs, Seminfo, Timespec};

use super::{caller, id_from};
use crate::ipc::{
    Attempt, Awaited, Object, Operation, READ, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SEMVMX, SemSet, WRITE,
};
use crate::syscall::Ctx;
use crate::task::{SysResult, Wait};

/// `semusz` of IPC_INFO: the size of an undo structure, which is of no use to anybody.
const SEMUSZ: i32 = 20;

pub(in crate::syscall) fn sys_semget(ctx: &mut Ctx<'_>, [key, count, flags, ..]: [u64; 6]) -> SysResult {
    let count = u32::try_from(count as i32).ok().filter(|count| *count <= SEMMSL).ok_or(Errno::EINVAL)?;
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let ipc = &mut ctx.kernel.ipc;
    let total = ipc.semaphores.clone();
    let suits = |set: &SemSet| if count as usize > set.count() { Err(Errno::EINVAL) } else { Ok(()) };
    let make = |permission| SemSet::new(&caller, permission, count, &total);
    Ok(u64::from(ipc.sem.get(&caller, key as i32, flags as u32, suits, make)?))
}

pub(in crate::syscall) fn sys_semop(ctx: &mut Ctx<'_>, [id, parts, count, ..]: [u64; 6]) -> SysResult {
    semtimedop(ctx, id, parts, count, 0)
}

pub(in crate::syscall) fn sys_semtimedop(
    ctx: &mut Ctx<'_>,
    [id, parts, count, timeout, ..]: [u64; 6],
) -> SysResult {
    semtimedop(ctx, id, parts, count, timeout)
}

fn semtimedop(ctx: &mut Ctx<'_>, id: u64, parts: u64, count: u64, timeout: u64) -> SysResult {
    if let Some(operation) = ctx.kept::<Operation>() {
        return await_operation(ctx, &operation);
    }
    let timeout: Option<Timespec> = if timeout == 0 { None } else { Some(ctx.copy_in(timeout)?) };
    let count = u64::from(count as u32);
    if count > SEMOPM {
        return Err(Errno::E2BIG.into());
    }
    let mut list = vec![Sembuf::new_zeroed(); count as usize];
    ctx.read_bytes(parts, list.as_mut_slice().as_mut_bytes())?;
    let id = id_from(id)?;
    if list.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    let timeout_ns = timeout.map(|timeout| timeout.to_ns().ok_or(Errno::EINVAL)).transpose()?;
    let operation = Operation::new(ctx.task().tgid, list);
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let ipc = &mut ctx.kernel.ipc;
    let set = ipc.sem.find(id)?;
    if operation.parts.iter().any(|part| usize::from(part.sem_num) >= set.count()) {
        return Err(Errno::EFBIG.into());
    }
    set.permission().check(&caller, if operation.alters() { WRITE } else { READ })?;
    let part = match set.operate(id, caller.now, &operation, &mut ipc.undo)? {
        Attempt::Done => return Ok(0),
        Attempt::Blocks(part) => part,
    };
    if u32::from(operation.parts[part].sem_flg as u16) & IPC_NOWAIT != 0 {
        return Err(Errno::EAGAIN.into());
    }
    if let Some(timeout_ns) = timeout_ns {
        ctx.deadline_after(timeout_ns);
    }
    set.wait(&operation, part);
    ctx.keep(operation.clone());
    await_operation(ctx, &operation)
}

/// Answers what has come of an operation that had to wait, or sleeps on.
fn await_operation(ctx: &mut Ctx<'_>, operation: &Operation) -> SysResult {
    if let Some(outcome) = operation.outcome() {
        outcome?;
        return Ok(0);
    }
    let deadline_ns = ctx.task().call.as_ref().and_then(|call| call.deadline_ns);
    if deadline_ns.is_some_and(|deadline| ctx.now_ns() >= deadline) {
        return Err(Errno::EAGAIN.into());
    }
    ctx.block(Wait::on([operation.done.clone()]).until(deadline_ns).interruptible())
}

pub(in crate::syscall) fn sys_semctl(
    ctx: &mut Ctx<'_>,
    [id, number, command, argument, ..]: [u64; 6],
) -> SysResult {
    let id = id_from(id)?;
    match command as u32 {
        IPC_INFO | SEM_INFO => info(ctx, command as u32, argument),
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => status(ctx, id, command as u32, argument),
        IPC_SET => change(ctx, id, argument),
        IPC_RMID => remove(ctx, id),
        SETVAL => set_value(ctx, id, number, argument as i32),
        SETALL => set_all(ctx, id, argument),
        command @ (GETALL | GETVAL | GETPID | GETNCNT | GETZCNT) => look(ctx, id, number, command, argument),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn info(ctx: &mut Ctx<'_>, command: u32, addr: u64) -> SysResult {
    let ipc = &ctx.kernel.ipc;
    let semmns = SEMMNS as i32;
    let (semusz, semaem) = if command == SEM_INFO {
        (ipc.sem.count() as i32, ipc.semaphores.used() as i32)
    } else {
        (SEMUSZ, SEMVMX)
    };
    let info = Seminfo {
        semmap: semmns,
        semmni: SEMMNI as i32,
        semmns,
        semmnu: semmns,
        semmsl: SEMMSL as i32,
        semopm: SEMOPM as i32,
        semume: SEMOPM as i32,
        semusz,
        semvmx: SEMVMX,
        semaem,
    };
    ctx.copy_out(addr, &info)?;
    Ok(ctx.kernel.ipc.sem.highest_index())
}

fn status(ctx: &mut Ctx<'_>, id: u32, command: u32, addr: u64) -> SysResult {
    let creds = ctx.task().creds.clone();
    let sem = &ctx.kernel.ipc.sem;
    let (found, set) = if command == IPC_STAT { (id, sem.find(id)?) } else { sem.at(id)? };
    if command != SEM_STAT_ANY {
        set.permission().check(&caller(ctx, &creds), READ)?;
    }
    ctx.copy_out(addr, &set.show(found))?;
    Ok(if command == IPC_STAT { 0 } else { found.into() })
}

fn change(ctx: &mut Ctx<'_>, id: u32, addr: u64) -> SysResult {
    let wanted: SemidDs = ctx.copy_in(addr)?;
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let set = ctx.kernel.ipc.sem.find(id)?;
    let mut permission = set.permission();
    permission.check_owner(&caller)?;
    permission.set(&wanted.sem_perm)?;
    set.set_permission(&caller, permission);
    Ok(0)
}

fn remove(ctx: &mut Ctx<'_>, id: u32) -> SysResult {
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let ipc = &mut ctx.kernel.ipc;
    let set = ipc.sem.find(id)?;
    set.permission().check_owner(&caller)?;
    ipc.sem.remove(id);
    ipc.undo.forget(id, None);
    set.end_waiting();
    Ok(0)
}

fn set_value(ctx: &mut Ctx<'_>, id: u32, number: u64, value: i32) -> SysResult {
    let value = u16::try_from(value).ok().filter(|value| i32::from(*value) <= SEMVMX).ok_or(Errno::ERANGE)?;
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let ipc = &mut ctx.kernel.ipc;
    let set = ipc.sem.find(id)?;
    let number = usize::try_from(number as i32).ok().filter(|number| *number < set.count());
    let number = number.ok_or(Errno::EINVAL)?;
    set.permission().check(&caller, WRITE)?;
    ipc.undo.forget(id, Some(number as u16));
    set.set_values(id, &caller, number, &[value], &mut ipc.undo);
    Ok(0)
}

fn set_all(ctx: &mut Ctx<'_>, id: u32, addr: u64) -> SysResult {
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let set = ctx.kernel.ipc.sem.find(id)?;
    set.permission().check(&caller, WRITE)?;
    let mut values = vec![0u16; set.count()];
    ctx.read_bytes(addr, values.as_mut_slice().as_mut_bytes())?;
    if values.iter().any(|value| i32::from(*value) > SEMVMX) {
        return Err(Errno::ERANGE.into());
    }
    let ipc = &mut ctx.kernel.ipc;
    ipc.undo.forget(id, None);
    set.set_values(id, &caller, 0, &values, &mut ipc.undo);
    Ok(0)
}

fn look(ctx: &mut Ctx<'_>, id: u32, number: u64, command: u32, addr: u64) -> SysResult {
    let creds = ctx.task().creds.clone();
    let caller = caller(ctx, &creds);
    let set = ctx.kernel.ipc.sem.find(id)?;
    set.permission().check(&caller, READ)?;
    if command == GETALL {
        ctx.write_bytes(addr, set.values().as_bytes())?;
        return Ok(0);
    }
    let number = usize::try_from(number as i32).map_err(|_| Errno::EINVAL)?;
    let (value, pid) = set.value_and_pid(number).ok_or(Errno::EINVAL)?;
    Ok(match command {
        GETPID => pid.into(),
        GETNCNT => set.count_waiting(number, Awaited::More),
        GETZCNT => set.count_waiting(number, Awaited::Zero),
        _ => value as u64,
    })
}
