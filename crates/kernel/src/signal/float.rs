//! Why a floating-point instruction has failed.

use lg_abi::raw::general::{FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND};
use lg_platform::{FpuState, Vector};

/// Where the control word, the status word and MXCSR lie in the extended state (SDM volume 1, 10.5.1).
const CONTROL_WORD: usize = 0;
const STATUS_WORD: usize = 2;
const MXCSR: usize = 24;

/// The six exceptions of the status word, the control word and MXCSR (SDM volume 1, 8.1.3 and 10.2.3).
const EXCEPTIONS: u32 = 0x3f;

/// Returns the code of the SIGFPE that a floating-point exception sends, in the order in which Linux looks; 0 where
/// the state tells of none.
pub(crate) fn floating_point_code(state: &FpuState, vector: Vector) -> u32 {
    let raised = match vector {
        Vector::X87_FLOATING_POINT => word(state, STATUS_WORD) & !word(state, CONTROL_WORD),
        // Its masks lie seven bits above.
        _ => word(state, MXCSR) & !(word(state, MXCSR) >> 7),
    } & EXCEPTIONS;
    let codes = [
        (0x01, FPE_FLTINV),
        (0x04, FPE_FLTDIV),
        (0x08, FPE_FLTOVF),
        // Underflow, and an operand that is denormal.
        (0x12, FPE_FLTUND),
        (0x20, FPE_FLTRES),
    ];
    codes.iter().find(|(bits, _)| raised & bits != 0).map_or(0, |(_, code)| *code)
}

fn word(state: &FpuState, at: usize) -> u32 {
    let bytes = state.0.get(at..).and_then(|bytes| bytes.first_chunk::<2>());
    bytes.map_or(0, |bytes| u32::from(u16::from_le_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Control and status word, and MXCSR.
    fn state(control: u16, status: u16, mxcsr: u16) -> FpuState {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(&control.to_le_bytes());
        bytes[2..4].copy_from_slice(&status.to_le_bytes());
        bytes[24..26].copy_from_slice(&mxcsr.to_le_bytes());
        FpuState(bytes)
    }

    #[test]
    fn a_code_is_that_of_an_exception_that_is_not_masked() {
        let (x87, simd) = (Vector::X87_FLOATING_POINT, Vector::SIMD_FLOATING_POINT);
        assert_eq!(floating_point_code(&state(0x37b, 0x04, 0), x87), FPE_FLTDIV);
        assert_eq!(floating_point_code(&state(0x37f, 0x04, 0), x87), 0);
        assert_eq!(floating_point_code(&state(0x340, 0x09, 0), x87), FPE_FLTINV);
        assert_eq!(floating_point_code(&state(0, 0, 0x1f80 & !0x0400 | 0x28), simd), FPE_FLTOVF);
        assert_eq!(floating_point_code(&state(0, 0, 0x1f80 & !0x1000 | 0x20), simd), FPE_FLTRES);
        assert_eq!(floating_point_code(&FpuState::default(), simd), 0);
    }
}
