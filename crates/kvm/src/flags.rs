//! RFLAGS as user code may have them (SDM volume 1, 3.4.3).

const FIXED: u64 = 1 << 1;
const INTERRUPTS: u64 = 1 << 9;
/// The flags of ring 0: none but the fixed one.
pub const KERNEL: u64 = FIXED;
/// The flag that `sysretq` can not give back.
pub const RESUME: u64 = 1 << 16;

/// CF PF AF ZF SF TF DF OF RF AC ID: what Linux lets a signal frame restore, and RF.
const USER: u64 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | RESUME | 1 << 18 | 1 << 21;

/// Returns `rflags` with interrupts enabled and without what is not user code's: IOPL, NT, VM, VIF, VIP.
pub const fn sanitise(rflags: u64) -> u64 {
    (rflags & USER) | FIXED | INTERRUPTS
}
