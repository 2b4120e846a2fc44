//! Restartable sequences (rseq(2)): user code that must not be interrupted half way starts again if it is.
//!
//! A thread registers an area (`struct rseq`), where it finds the number of its processor, and where it names the
//! sequence that it is in (`struct rseq_cs`). When a signal is delivered, or another thread has run, a thread that is
//! inside its sequence goes on at the sequence's abort handler.

use lg_abi::{Errno, SigInfo, Signal};
use lg_platform::USER_END;

use super::Tid;
use crate::Kernel;
use crate::mm::UserMemory;

/// Bytes of the shortest area, which begins at a multiple of this.
const RSEQ_LEN: u32 = 32;

/// `cpu_id` while nothing is registered.
const UNINITIALIZED: u32 = u32::MAX;
/// Where an area names the sequence.
const SEQUENCE_OFFSET: u64 = 8;
/// Where an area has its flags, all of which are of no use now.
const FLAGS_OFFSET: u64 = 16;

/// The area that a thread has registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rseq {
    /// Its address.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// The word in front of each abort handler.
    pub signature: u32,
}

impl Rseq {
    /// Says whether an area of this length can be at its address: EINVAL or EFAULT where not.
    pub fn check(self) -> Result<(), Errno> {
        if self.len < RSEQ_LEN || !self.addr.is_multiple_of(u64::from(RSEQ_LEN)) {
            return Err(Errno::EINVAL);
        }
        let end = self.addr.checked_add(u64::from(self.len)).ok_or(Errno::EFAULT)?;
        if end > USER_END.0 { Err(Errno::EFAULT) } else { Ok(()) }
    }

    /// Writes to the area which processor the thread runs on: the only one, which is on the only memory node.
    pub fn show_processor(self, user: &UserMemory) -> Result<(), Errno> {
        self.write(user, 0)
    }

    /// Writes to the area that it is registered no longer.
    pub fn show_none(self, user: &UserMemory) -> Result<(), Errno> {
        self.write(user, UNINITIALIZED)
    }

    /// Writes `cpu_id_start` and `cpu_id`, and `node_id` and `mm_cid`.
    fn write(self, user: &UserMemory, cpu: u32) -> Result<(), Errno> {
        user.copy_out(self.addr, &[0u32, cpu])?;
        user.copy_out(self.addr + 20, &[0u32; 2])
    }

    /// Returns where a thread at `ip` goes on that was interrupted, and notes that it is in no sequence any more.
    ///
    /// Errors: EFAULT and EINVAL for what is no sequence.
    fn resume_at(self, user: &UserMemory, ip: u64) -> Result<u64, Errno> {
        let at = self.addr + SEQUENCE_OFFSET;
        let sequence: u64 = user.copy_in(at)?;
        if sequence == 0 {
            return Ok(ip);
        }
        let [version_and_flags, start, len, abort]: [u64; 4] = user.copy_in(sequence)?;
        let (version, flags) = (version_and_flags as u32, version_and_flags >> 32);
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        let is_user = |addr: u64| addr < USER_END.0;
        if !is_user(start) || !is_user(end) || !is_user(abort) || version > 0 {
            return Err(Errno::EINVAL);
        }
        let inside = |addr: u64| addr.wrapping_sub(start) < len;
        let signature: u32 = user.copy_in(abort.wrapping_sub(4))?;
        if inside(abort) || signature != self.signature {
            return Err(Errno::EINVAL);
        }
        if inside(ip) && (flags != 0 || user.copy_in::<u32>(self.addr + FLAGS_OFFSET)? != 0) {
            return Err(Errno::EINVAL);
        }
        user.copy_out(at, &0u64)?;
        Ok(if inside(ip) { abort } else { ip })
    }
}

impl Kernel {
    /// Moves a thread that was interrupted inside a sequence to its abort handler. What is no sequence is SIGSEGV.
    pub(crate) fn abort_sequence(&mut self, tid: Tid) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let Some(rseq) = task.rseq else { return };
        match rseq.resume_at(&UserMemory::new(&task.mm), task.context.regs.rip) {
            Ok(rip) => task.context.regs.rip = rip,
            Err(_) => {
                self.force_signal(tid, Signal::SIGSEGV, SigInfo::new(Signal::SIGSEGV, SigInfo::SI_KERNEL))
            }
        }
    }
}
