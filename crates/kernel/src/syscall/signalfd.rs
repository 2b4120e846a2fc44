//! Reading signals from a descriptor (signalfd(2)).

use lg_abi::raw::general::{O_CLOEXEC as SFD_CLOEXEC, O_NONBLOCK as SFD_NONBLOCK};
use lg_abi::zerocopy::IntoBytes;
use lg_abi::{Errno, SigSet, SignalfdSiginfo};

use super::Ctx;
use super::event::{check_flags, install_anon};
use super::io::stop_or_wait;
use super::signal::check_sigset_len;
use crate::fs::signalfd::{SignalFd, as_signalfd, to_record};
use crate::mm::Span;
use crate::task::SysResult;
use crate::vfs::{FileDescription, Readiness};

/// Bytes of what a read gives for each signal.
const RECORD_LEN: u64 = size_of::<SignalfdSiginfo>() as u64;

pub(super) fn sys_signalfd(ctx: &mut Ctx<'_>, [fd, mask, len, ..]: [u64; 6]) -> SysResult {
    sys_signalfd4(ctx, [fd, mask, len, 0, 0, 0])
}

pub(super) fn sys_signalfd4(ctx: &mut Ctx<'_>, [fd, mask, len, flags, ..]: [u64; 6]) -> SysResult {
    check_sigset_len(len)?;
    let wanted = ctx.copy_in::<SigSet>(mask)?.minus(SigSet::UNBLOCKABLE);
    let flags = check_flags(flags, SFD_CLOEXEC | SFD_NONBLOCK)?;
    if fd as i32 == -1 {
        let file = SignalFd::new(wanted, ctx.kernel.signal_arrived.clone());
        return install_anon(ctx, file, "[signalfd]", flags);
    }
    let description = ctx.fd(fd)?;
    as_signalfd(&description.file).ok_or(Errno::EINVAL)?.set_wanted(wanted);
    Ok(u64::from(fd as u32))
}

/// Reads as many signals as the buffers have room for. Only the first one is waited for.
pub(super) fn read(
    ctx: &mut Ctx<'_>,
    description: &FileDescription,
    file: &SignalFd,
    spans: &[Span],
) -> SysResult {
    let mut moved = 0;
    for span in spans {
        let room = span.len / RECORD_LEN;
        if room == 0 {
            return if moved > 0 { Ok(moved) } else { Err(Errno::EINVAL.into()) };
        }
        for index in 0..room {
            let Some((_, info)) = ctx.kernel.take_pending(ctx.tid, file.wanted()) else {
                return if moved > 0 {
                    Ok(moved)
                } else {
                    stop_or_wait(ctx, description, Readiness::READABLE, 0)
                };
            };
            let addr = span.addr.wrapping_add(index * RECORD_LEN);
            // As on Linux, a signal that can not be stored is lost.
            if let Err(errno) = ctx.write_bytes(addr, to_record(&info).as_bytes()) {
                return if moved > 0 { Ok(moved) } else { Err(errno.into()) };
            }
            moved += RECORD_LEN;
        }
        if span.len % RECORD_LEN != 0 {
            return Ok(moved);
        }
    }
    // A call without any buffer reads nothing.
    Ok(moved)
}
