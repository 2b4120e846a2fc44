//! Restartable sequences: rseq(2).

use lg_abi::{Errno, SigInfo, Signal};

use super::Ctx;
use crate::task::{Rseq, SysResult};

/// RSEQ_FLAG_UNREGISTER (linux/rseq.h).
const UNREGISTER: u64 = 1;

pub(super) fn sys_rseq(ctx: &mut Ctx<'_>, [addr, len, flags, signature, ..]: [u64; 6]) -> SysResult {
    let asked = Rseq { addr, len: len as u32, signature: signature as u32 };
    let registered = ctx.task().rseq;
    let flags = u64::from(flags as u32);
    if flags & !UNREGISTER != 0 {
        return Err(Errno::EINVAL.into());
    }
    let is_same = registered.is_some_and(|known| (known.addr, known.len) == (asked.addr, asked.len));
    let is_signed = registered.is_some_and(|known| known.signature == asked.signature);
    let unregister = flags & UNREGISTER != 0;
    if (registered.is_some() || unregister) && !is_same {
        return Err(Errno::EINVAL.into());
    }
    if registered.is_some() && !is_signed {
        return Err(Errno::EPERM.into());
    }
    if unregister {
        asked.show_none(&ctx.user())?;
        ctx.task_mut().rseq = None;
        return Ok(0);
    }
    if registered.is_some() {
        return Err(Errno::EBUSY.into());
    }
    asked.check()?;
    ctx.task_mut().rseq = Some(asked);
    if asked.show_processor(&ctx.user()).is_err() {
        // As on Linux, the call succeeds, and the way back to user code does not.
        let info = SigInfo::new(Signal::SIGSEGV, SigInfo::SI_KERNEL);
        ctx.kernel.force_signal(ctx.tid, Signal::SIGSEGV, info);
    }
    Ok(0)
}
