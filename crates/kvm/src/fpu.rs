//! The extended state of the processor in the standard XSAVE format (SDM volume 1, 13.4).
//!
//! What goes into KVM may be the guest's own words, by way of a signal frame. It is made well-formed first,
//! so that KVM has nothing to refuse and nothing of another thread's state survives.

use kvm_bindings::Xsave;

const FCW: usize = 0;
const FTW_AND_X87: std::ops::Range<usize> = 2..24;
const MXCSR: usize = 24;
const X87_REGISTERS: std::ops::Range<usize> = 32..160;
const XMM_REGISTERS: std::ops::Range<usize> = 160..416;
const SW_RESERVED: usize = 464;
const XSTATE_BV: usize = 512;
const HEADER_REST: std::ops::Range<usize> = 520..576;

/// Bytes in the legacy region and the header.
const MIN_BYTES: usize = 576;

const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
/// Components that are never enabled: MPX, which is gone, and AMX, whose state a sandbox would pay 8 KiB for.
const NEVER: u64 = 1 << 3 | 1 << 4 | 1 << 17 | 1 << 18;

/// The power-up x87 control word and MXCSR (SDM volume 1, 8.1.5 and 10.2.3).
const FCW_INIT: u16 = 0x37f;
const MXCSR_INIT: u32 = 0x1f80;

/// `FP_XSTATE_MAGIC1` of Linux's signal frames.
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;

/// The format of the extended state on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Bytes in a guest's XSAVE area.
    pub len: usize,
    /// The guest's XCR0.
    pub xcr0: u64,
    mxcsr_mask: u32,
}

impl Format {
    /// Works out the format from the host's XCR0, of which `supported` may be used.
    pub fn detect(supported: u64) -> Format {
        let xcr0 = (host_xcr0() & supported & !NEVER) | X87 | SSE;
        let len = (2..63)
            .filter(|component| xcr0 & 1 << component != 0)
            .map(|component| {
                // SDM volume 2, CPUID: leaf 0xd, sub-leaf i > 1: EAX the size, EBX the offset of component i.
                let leaf = std::arch::x86_64::__cpuid_count(0xd, component);
                leaf.eax as usize + leaf.ebx as usize
            })
            .fold(MIN_BYTES, usize::max);
        Format { len, xcr0, mxcsr_mask: host_mxcsr_mask() }
    }

    /// Writes `state` as the guest may have it into `area`, which is at least [`Format::len`] bytes long.
    /// An empty `state` is that of power-up; bytes that are missing count as zero.
    pub fn sanitise(&self, state: &[u8], area: &mut [u8]) {
        area.fill(0);
        let len = state.len().min(self.len);
        area[..len].copy_from_slice(&state[..len]);
        let mut present = u64_at(area, XSTATE_BV) & self.xcr0;
        if state.is_empty() {
            put(area, MXCSR, &MXCSR_INIT.to_le_bytes());
        }
        // A component whose bit is clear has its initial value. KVM would keep MXCSR as it is when it sees
        // neither SSE nor AVX, so the legacy state is always spelt out.
        if present & X87 == 0 {
            put(area, FCW, &FCW_INIT.to_le_bytes());
            area[FTW_AND_X87].fill(0);
            area[X87_REGISTERS].fill(0);
        }
        if present & SSE == 0 {
            area[XMM_REGISTERS].fill(0);
        }
        present |= X87 | SSE;
        let mxcsr = u32_at(area, MXCSR) & self.mxcsr_mask;
        put(area, MXCSR, &mxcsr.to_le_bytes());
        put(area, MXCSR + 4, &self.mxcsr_mask.to_le_bytes());
        put(area, XSTATE_BV, &present.to_le_bytes());
        // XCOMP_BV is zero in the standard format, and the rest is reserved.
        area[HEADER_REST].fill(0);
    }

    /// Copies what KVM reported into `state`, with the words that a Linux signal frame has for its reader
    /// (`struct _fpx_sw_bytes`).
    pub fn export(&self, area: &[u8], state: &mut Vec<u8>) {
        state.clear();
        state.extend_from_slice(&area[..self.len]);
        let len = self.len as u32;
        put(state, SW_RESERVED, &FP_XSTATE_MAGIC1.to_le_bytes());
        put(state, SW_RESERVED + 4, &(len + 4).to_le_bytes());
        put(state, SW_RESERVED + 8, &self.xcr0.to_le_bytes());
        put(state, SW_RESERVED + 16, &len.to_le_bytes());
    }
}

/// Returns a zeroed buffer for KVM_GET_XSAVE2 and KVM_SET_XSAVE, as long as KVM's copy, which is `kvm_len`
/// bytes and never less than 4096.
pub fn new_area(kvm_len: usize) -> Option<Xsave> {
    let base = size_of::<kvm_bindings::kvm_xsave>();
    Xsave::new(kvm_len.saturating_sub(base).div_ceil(4)).ok()
}

/// Returns the bytes of the buffer.
pub fn area_bytes(area: &mut Xsave) -> &mut [u8] {
    let words = area.as_fam_struct_ref().len;
    let len = size_of::<kvm_bindings::kvm_xsave>() + words * 4;
    let whole = area.as_mut_fam_struct_ptr();
    // SAFETY: the pointer is to the wrapper's own structure; only the address of a field is taken.
    let start = unsafe { &raw mut (*whole).xsave }.cast::<u8>();
    // SAFETY: the wrapper allocated a kvm_xsave followed by `len` 32-bit words, all of them initialised, and
    // the slice borrows the wrapper.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}

fn host_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: XGETBV with ECX 0 reads XCR0 (SDM volume 2). CPUID said that the host has XSAVE enabled: the
    // caller checked it, since KVM offers XSAVE to a guest only then.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

fn host_mxcsr_mask() -> u32 {
    #[repr(align(16))]
    struct Image([u8; 512]);
    let mut image = Image([0; 512]);
    // SAFETY: every x86-64 processor has FXSAVE; the image has its size and alignment.
    unsafe { std::arch::x86_64::_fxsave64(image.0.as_mut_ptr()) };
    match u32_at(&image.0, MXCSR + 4) {
        // SDM volume 1, 11.6.6.
        0 => 0xffbf,
        mask => mask,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { len: 832, xcr0: 7, mxcsr_mask: 0xffff };

    #[test]
    fn an_empty_state_is_the_one_of_power_up() {
        let mut area = vec![0xaa; 4096];
        FORMAT.sanitise(&[], &mut area);
        assert_eq!(area[FCW..2], FCW_INIT.to_le_bytes());
        assert_eq!(u32_at(&area, MXCSR), MXCSR_INIT);
        assert_eq!(u64_at(&area, XSTATE_BV), 3);
        assert!(area[XMM_REGISTERS].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn hostile_headers_are_made_well_formed() {
        let mut area = vec![0; 4096];
        FORMAT.sanitise(&[0xff; 9000], &mut area);
        assert_eq!(u64_at(&area, XSTATE_BV), 7);
        assert!(area[HEADER_REST].iter().all(|byte| *byte == 0));
        assert_eq!(u32_at(&area, MXCSR), 0xffff);
        assert!(area[832..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_component_marked_absent_does_not_smuggle_its_bytes() {
        let mut state = vec![0xff; 832];
        put(&mut state, XSTATE_BV, &0u64.to_le_bytes());
        let mut area = vec![0; 4096];
        FORMAT.sanitise(&state, &mut area);
        assert!(area[XMM_REGISTERS].iter().all(|byte| *byte == 0));
        assert!(area[X87_REGISTERS].iter().all(|byte| *byte == 0));
    }
}
