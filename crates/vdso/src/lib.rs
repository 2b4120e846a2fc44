//! The machine code of the vDSO (vdso(7)): functions that run in the guest and answer from a page of
//! parameters, without an exit.
//!
//! The code is position-independent. It finds its parameters at a fixed distance before itself: it must be
//! placed [`CODE_OFFSET`] bytes into the page that follows the parameter page. The parameters are four
//! 64-bit words: the time-stamp counter at time 0, nanoseconds a tick times 2^32, CLOCK_REALTIME at time 0
//! in nanoseconds, and a word in reserve.
//!
//! This crate has unsafe code only to name the bytes that the assembler made.

use std::arch::global_asm;

/// Where the code lies in its page.
pub const CODE_OFFSET: usize = 0x800;

global_asm!(
    r#"
    .pushsection .rodata.lg_vdso, "a", @progbits
    // Leaves the nanoseconds since time 0 in rax and the parameters' address in r9; clobbers rdx.
    .macro lg_vdso_monotonic
        lea     r9, [rip + lg_vdso_start - 0x1800]
        lfence
        rdtsc
        shl     rdx, 32
        or      rax, rdx
        sub     rax, qword ptr [r9]
        jae     77f
        xor     eax, eax
    77: mul     qword ptr [r9 + 8]
        shrd    rax, rdx, 32
    .endm

    .balign 64
    .globl lg_vdso_start
    .hidden lg_vdso_start
    lg_vdso_start:

    // int clock_gettime(clockid_t edi, struct timespec *rsi)
    .globl lg_vdso_clock_gettime
    .hidden lg_vdso_clock_gettime
    lg_vdso_clock_gettime:
        cmp     edi, 11
        ja      9f
        mov     ecx, edi
        mov     r8d, 1
        shl     r8d, cl
        // Clocks 0, 5 and 11 tell real time; 1, 4, 6 and 7 monotonic time.
        test    r8d, 2081 + 210
        jz      9f
        lg_vdso_monotonic
        test    r8d, 2081
        jz      2f
        add     rax, qword ptr [r9 + 16]
    2:  xor     edx, edx
        mov     ecx, 1000000000
        div     rcx
        mov     qword ptr [rsi], rax
        mov     qword ptr [rsi + 8], rdx
        xor     eax, eax
        ret
    9:  mov     eax, 228
        syscall
        ret

    // int gettimeofday(struct timeval *rdi, struct timezone *rsi)
    .globl lg_vdso_gettimeofday
    .hidden lg_vdso_gettimeofday
    .balign 16
    lg_vdso_gettimeofday:
        test    rsi, rsi
        jz      1f
        mov     qword ptr [rsi], 0
    1:  test    rdi, rdi
        jz      3f
        lg_vdso_monotonic
        add     rax, qword ptr [r9 + 16]
        xor     edx, edx
        mov     ecx, 1000000000
        div     rcx
        mov     qword ptr [rdi], rax
        mov     eax, edx
        xor     edx, edx
        mov     ecx, 1000
        div     rcx
        mov     qword ptr [rdi + 8], rax
    3:  xor     eax, eax
        ret

    // time_t time(time_t *rdi)
    .globl lg_vdso_time
    .hidden lg_vdso_time
    .balign 16
    lg_vdso_time:
        lg_vdso_monotonic
        add     rax, qword ptr [r9 + 16]
        xor     edx, edx
        mov     ecx, 1000000000
        div     rcx
        test    rdi, rdi
        jz      2f
        mov     qword ptr [rdi], rax
    2:  ret

    // int getcpu(unsigned *rdi, unsigned *rsi, void *)
    .globl lg_vdso_getcpu
    .hidden lg_vdso_getcpu
    .balign 16
    lg_vdso_getcpu:
        xor     eax, eax
        test    rdi, rdi
        jz      1f
        mov     dword ptr [rdi], eax
    1:  test    rsi, rsi
        jz      2f
        mov     dword ptr [rsi], eax
    2:  ret

    .globl lg_vdso_end
    .hidden lg_vdso_end
    lg_vdso_end:
    .purgem lg_vdso_monotonic
    .popsection
    "#
);

/// A function of the vDSO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// The name that programs look up.
    pub name: &'static str,
    /// Its offset in the code.
    pub offset: usize,
}

/// Returns the machine code.
pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const lg_vdso_start, &raw const lg_vdso_end);
    // SAFETY: the assembler put both labels into one section, `start` before `end`, and nothing writes to
    // the bytes between them, which are part of the program's read-only data.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// Returns the functions in it.
pub fn functions() -> [Function; 4] {
    let start = (&raw const lg_vdso_start).addr();
    [
        ("__vdso_clock_gettime", &raw const lg_vdso_clock_gettime),
        ("__vdso_gettimeofday", &raw const lg_vdso_gettimeofday),
        ("__vdso_time", &raw const lg_vdso_time),
        ("__vdso_getcpu", &raw const lg_vdso_getcpu),
    ]
    .map(|(name, label)| Function { name, offset: label.addr() - start })
}

// SAFETY: these are labels that the assembler defines above; they are only ever used for their addresses.
unsafe extern "C" {
    static lg_vdso_start: u8;
    static lg_vdso_clock_gettime: u8;
    static lg_vdso_gettimeofday: u8;
    static lg_vdso_time: u8;
    static lg_vdso_getcpu: u8;
    static lg_vdso_end: u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_fits_behind_its_offset_and_every_function_starts_inside_it() {
        assert!(CODE_OFFSET + code().len() <= 4096);
        assert!(functions().iter().all(|function| function.offset < code().len()));
        assert_eq!(functions()[0].offset, 0);
    }
}
