//! System V IPC: shmget(2), semget(2), msgget(2) and their families.

mod msg;
mod sem;
mod shm;

pub(super) use msg::{sys_msgctl, sys_msgget, sys_msgrcv, sys_msgsnd};
pub(super) use sem::{sys_semctl, sys_semget, sys_semop, sys_semtimedop};
pub(super) use shm::{sys_shmat, sys_shmctl, sys_shmdt, sys_shmget};

use super::Ctx;
use crate::ipc::Caller;
use crate::task::Credentials;

use lg_abi::Errno;

/// Returns who makes the call, and when.
fn caller<'a>(ctx: &Ctx<'_>, creds: &'a Credentials) -> Caller<'a> {
    Caller { creds, pid: ctx.task().tgid.0, now: ctx.kernel.realtime_sec() }
}

/// Decodes an id, or an index of the *_STAT commands. Errors: EINVAL for a negative one.
fn id_from(word: u64) -> Result<u32, Errno> {
    u32::try_from(word as u32 as i32).map_err(|_| Errno::EINVAL)
}
