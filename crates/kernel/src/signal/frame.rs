//! The signal frame on the user stack, as x86-64 Linux lays it out (arch/x86 `struct rt_sigframe`).
//!
//! ```text
//!   higher addresses
//!     extended processor state, 64-byte aligned      <- sigcontext.fpstate
//!     siginfo           128 bytes
//!     ucontext          304 bytes
//!     return address    sa_restorer                  <- rsp at the handler's entry, 8 below a 16-byte boundary
//! ```

use lg_abi::raw::general as linux;
use lg_abi::zerocopy::IntoBytes;
use lg_abi::{Errno, SigAction, SigContext, SigInfo, SigSet, SigStack, Signal, UContext};
use lg_platform::{FpuState, Regs};

use crate::Kernel;
use crate::mm::UserMemory;
use crate::task::{Task, Tid};

/// Bytes below the stack pointer that belong to the interrupted function (System V ABI, section 3.2.2).
const RED_ZONE: u64 = 128;

/// Marks an extended state behind the legacy 512 bytes (asm/sigcontext.h).
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// Offset of `struct _fpx_sw_bytes` in the legacy area.
const SW_BYTES: usize = 464;

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

const SIGINFO_OFFSET: u64 = 8 + size_of::<UContext>() as u64;
const FRAME_SIZE: u64 = SIGINFO_OFFSET + size_of::<SigInfo>() as u64;

impl Kernel {
    /// Saves the task's state on its stack and points it at the handler.
    ///
    /// Errors: EFAULT where the stack has no room.
    pub(super) fn push_signal_frame(
        &mut self,
        tid: Tid,
        signal: Signal,
        info: &SigInfo,
        action: &SigAction,
    ) -> Result<(), Errno> {
        let (xsave_len, xcr0) = self.machine.borrow().xsave();
        self.sync_task(tid)?;
        let task = self.tasks.get_mut(&tid).ok_or(Errno::ESRCH)?;
        let user = UserMemory::new(&task.mm);
        let regs = task.context.regs;

        let top = if action.flags & u64::from(linux::SA_ONSTACK) != 0 && wants_alt_stack(task) {
            task.alt_stack.ss_sp.wrapping_add(task.alt_stack.ss_size)
        } else {
            regs.rsp.wrapping_sub(RED_ZONE)
        };
        let fpu = frame_fpu(&task.context.fpu, xsave_len, xcr0);
        let fpstate = top.wrapping_sub(fpu.len() as u64) & !63;
        let frame = (fpstate.wrapping_sub(FRAME_SIZE) & !15).wrapping_sub(8);

        let ucontext = UContext {
            flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            link: 0,
            stack: task.alt_stack,
            mcontext: SigContext { fpstate, ..save_regs(&regs) },
            sigmask: task.saved_mask.unwrap_or(task.mask).0,
        };
        user.write(fpstate, &fpu)?;
        user.copy_out(frame, &action.restorer)?;
        user.copy_out(frame.wrapping_add(8), &ucontext)?;
        user.copy_out(frame.wrapping_add(SIGINFO_OFFSET), info)?;

        task.saved_mask = None;
        // A handler starts with the state after power-up, whatever the code that it interrupts has set.
        task.context.fpu = FpuState::default();
        task.context.regs = Regs {
            rip: action.handler,
            rsp: frame,
            rdi: u64::from(signal.number()),
            rsi: frame.wrapping_add(SIGINFO_OFFSET),
            rdx: frame.wrapping_add(8),
            rax: 0,
            rflags: regs.rflags & !(DIRECTION | TRAP | RESUME),
            ..regs
        };
        Ok(())
    }

    /// Restores what [`Kernel::push_signal_frame`] saved (rt_sigreturn(2)). All of it comes from the guest.
    ///
    /// Errors: EFAULT where the frame can not be read: the task gets SIGSEGV.
    pub(crate) fn pop_signal_frame(&mut self, tid: Tid) -> Result<(), Errno> {
        let (xsave_len, _) = self.machine.borrow().xsave();
        self.sync_task(tid)?;
        let task = self.tasks.get_mut(&tid).ok_or(Errno::ESRCH)?;
        let user = UserMemory::new(&task.mm);
        let ucontext: UContext = user.copy_in(task.context.regs.rsp)?;
        let saved = &ucontext.mcontext;
        if saved.fpstate == 0 {
            task.context.fpu = FpuState::default();
        } else {
            let mut fpu = vec![0; xsave_len];
            user.read(saved.fpstate, &mut fpu[..512])?;
            let sw = |offset: usize| {
                u32::from_le_bytes(fpu[SW_BYTES + offset..SW_BYTES + offset + 4].try_into().expect("4 bytes"))
            };
            let (magic, size) = (sw(0), sw(16) as usize);
            if magic == FP_XSTATE_MAGIC1 && size == xsave_len {
                user.read(saved.fpstate.wrapping_add(512), &mut fpu[512..])?;
            } else {
                // The legacy state alone: x87 and SSE are in use, the rest is as after power-up.
                fpu[512..520].copy_from_slice(&3u64.to_le_bytes());
            }
            fpu[SW_BYTES..512].fill(0);
            task.context.fpu = FpuState(fpu);
        }
        let (fs_base, gs_base) = (task.context.regs.fs_base, task.context.regs.gs_base);
        task.context.regs = Regs { fs_base, gs_base, ..restore_regs(saved) };
        task.mask = SigSet(ucontext.sigmask).minus(SigSet::UNBLOCKABLE);
        task.alt_stack = ucontext.stack;
        Ok(())
    }
}

const DIRECTION: u64 = 1 << 10;
const TRAP: u64 = 1 << 8;
const RESUME: u64 = 1 << 16;

/// Says whether a handler with SA_ONSTACK shall switch stacks: there is one, and it is not in use.
fn wants_alt_stack(task: &Task) -> bool {
    let enabled = task.alt_stack.ss_size > 0 && task.alt_stack.ss_flags & linux::SS_DISABLE as i32 == 0;
    enabled && !on_alt_stack(&task.alt_stack, task.context.regs.rsp)
}

/// Says whether `rsp` is on the alternate stack.
pub(crate) fn on_alt_stack(stack: &SigStack, rsp: u64) -> bool {
    stack.ss_size > 0 && rsp > stack.ss_sp && rsp - stack.ss_sp <= stack.ss_size
}

/// Returns the extended state as a signal frame has it: with the software bytes that say how long it is,
/// and the second magic number after it.
fn frame_fpu(fpu: &FpuState, xsave_len: usize, xcr0: u64) -> Vec<u8> {
    let mut bytes = fpu.0.clone();
    if bytes.len() < 512 {
        bytes.resize(xsave_len, 0);
        bytes[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        bytes[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    }
    bytes.resize(xsave_len, 0);
    let extended_size = xsave_len as u32 + 4;
    bytes[SW_BYTES..512].fill(0);
    bytes[SW_BYTES..SW_BYTES + 4].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
    bytes[SW_BYTES + 4..SW_BYTES + 8].copy_from_slice(&extended_size.to_le_bytes());
    bytes[SW_BYTES + 8..SW_BYTES + 16].copy_from_slice(&xcr0.to_le_bytes());
    bytes[SW_BYTES + 16..SW_BYTES + 20].copy_from_slice(&(xsave_len as u32).to_le_bytes());
    bytes.extend_from_slice(FP_XSTATE_MAGIC2.as_bytes());
    bytes
}

fn save_regs(regs: &Regs) -> SigContext {
    SigContext {
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rdi: regs.rdi,
        rsi: regs.rsi,
        rbp: regs.rbp,
        rbx: regs.rbx,
        rdx: regs.rdx,
        rax: regs.rax,
        rcx: regs.rcx,
        rsp: regs.rsp,
        rip: regs.rip,
        eflags: regs.rflags,
        cs: 0x33,
        ss: 0x2b,
        ..SigContext::default()
    }
}

fn restore_regs(saved: &SigContext) -> Regs {
    Regs {
        r8: saved.r8,
        r9: saved.r9,
        r10: saved.r10,
        r11: saved.r11,
        r12: saved.r12,
        r13: saved.r13,
        r14: saved.r14,
        r15: saved.r15,
        rdi: saved.rdi,
        rsi: saved.rsi,
        rbp: saved.rbp,
        rbx: saved.rbx,
        rdx: saved.rdx,
        rax: saved.rax,
        rcx: saved.rcx,
        rsp: saved.rsp,
        rip: saved.rip,
        rflags: saved.eflags,
        ..Regs::default()
    }
}
