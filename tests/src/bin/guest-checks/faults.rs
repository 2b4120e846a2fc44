//! Faults and traps: which signal, which code, and which address.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use libc::*;

use crate::sys::{self, pipe, read, sys, write, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("floating_point_faults", floating_point_faults),
    ("traps", traps),
    ("fault_order", fault_order),
    ("file_faults", file_faults),
];

/// Where the handler writes to, and what an address is told relative to.
static WRITER: AtomicUsize = AtomicUsize::new(0);
static BASE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn tell(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo and context, and these are signals of faults.
    let (code, address, rip, flags) = unsafe {
        let registers = &(*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let (rip, flags) = (registers[REG_RIP as usize] as usize, registers[REG_EFL as usize]);
        ((*info).si_code, (*info).si_addr() as usize, rip, flags)
    };
    let address = match address {
        0 => "none".to_owned(),
        address if address == rip => "the instruction".to_owned(),
        address => format!("{:#x}", address.wrapping_sub(BASE.load(SeqCst))),
    };
    let text = format!("signal {signal} code {code} address {address} trap flag {}", flags >> 8 & 1);
    let _ = write(WRITER.load(SeqCst), text.as_bytes());
    sys::exit(0)
}

/// What a child's handler is told of a fault.
fn told(body: impl FnOnce()) -> (String, String) {
    let (reader, writer) = pipe(0);
    WRITER.store(writer, SeqCst);
    let ends = sys::ends(|| {
        for signal in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP] {
            let mut action: sigaction = zeroed();
            action.sa_sigaction = tell as *const () as usize;
            action.sa_flags = SA_SIGINFO;
            // SAFETY: the handler only makes system calls.
            unsafe { sigaction(signal, &raw const action, std::ptr::null_mut()) };
        }
        body();
        9
    });
    sys::close(writer).expect("a pipe can be closed");
    let text = read(reader, 200).unwrap_or_default();
    sys::close(reader).expect("a pipe can be closed");
    (ends, text)
}

/// Divides or multiplies with these exceptions of SSE not masked.
fn simd(unmasked: u32, a: f64, b: f64, divide: bool) -> (String, String) {
    told(|| {
        let mask = 0x1f80 & !(unmasked << 7);
        // SAFETY: a fault is wanted; nothing else is computed in this process.
        unsafe {
            if divide {
                std::arch::asm!("ldmxcsr [{m}]", "divsd {a}, {b}", m = in(reg) &raw const mask,
                    a = inout(xmm_reg) a => _, b = in(xmm_reg) b);
            } else {
                std::arch::asm!("ldmxcsr [{m}]", "mulsd {a}, {b}", m = in(reg) &raw const mask,
                    a = inout(xmm_reg) a => _, b = in(xmm_reg) b);
            }
        }
    })
}

/// Divides on the x87 with these exceptions not masked.
fn x87(unmasked: u16, a: f64, b: f64) -> (String, String) {
    told(|| {
        let control = 0x37f & !unmasked;
        // SAFETY: as above. The fault is told of by `fwait`.
        unsafe {
            std::arch::asm!("fninit", "fld qword ptr [{a}]", "fld qword ptr [{b}]", "fldcw word ptr [{c}]",
                "fdivp st(1), st", "fwait",
                a = in(reg) &raw const a, b = in(reg) &raw const b, c = in(reg) &raw const control,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _);
        }
    })
}

fn floating_point_faults(r: &mut Report) {
    r.see("SSE: division by zero", simd(0x04, 1.0, 0.0, true));
    r.see("SSE: invalid", simd(0x01, 0.0, 0.0, true));
    r.see("SSE: overflow", simd(0x08, f64::MAX, 2.0, false));
    r.see("SSE: underflow", simd(0x10, f64::MIN_POSITIVE, 0.3, false));
    r.see("SSE: denormal operand", simd(0x02, f64::MIN_POSITIVE / 2.0, 1.0, false));
    r.see("SSE: inexact", simd(0x20, 1.0, 3.0, true));
    r.see("SSE: all masked", simd(0, 1.0, 0.0, true));
    r.see("x87: division by zero", x87(0x04, 1.0, 0.0));
    r.see("x87: invalid", x87(0x01, 0.0, 0.0));
    r.see("x87: inexact", x87(0x20, 1.0, 3.0));
    r.see("x87: all masked", x87(0, 1.0, 0.0));
    r.see(
        "integer overflow",
        told(|| {
            // SAFETY: a fault is wanted.
            unsafe {
                std::arch::asm!("idiv {d:e}", d = in(reg) -1i32, inout("eax") i32::MIN => _, inout("edx") -1i32 => _);
            }
        }),
    );
}

fn traps(r: &mut Report) {
    // SAFETY: each is a trap, and the handler ends the process.
    unsafe {
        r.see(
            "single step",
            told(|| {
                std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop");
            }),
        );
        r.see(
            "single step over a call",
            told(|| {
                // The step ends after the instruction behind `popfq`, which is the system call.
                std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "syscall", "nop",
                inout("rax") SYS_getpid => _, out("rcx") _, out("r11") _);
            }),
        );
        r.see("breakpoint", told(|| std::arch::asm!("int3")));
        r.see("int 4", told(|| std::arch::asm!("int 4")));
        r.see("int 0", told(|| std::arch::asm!("int 0")));
        r.see("int 14", told(|| std::arch::asm!("int 14")));
        r.see("int 0x20", told(|| std::arch::asm!("int 0x20")));
        r.see("int 0x81", told(|| std::arch::asm!("int 0x81")));
        r.see("int 0xff", told(|| std::arch::asm!("int 0xff")));
        r.see("undefined instruction", told(|| std::arch::asm!("ud2")));
        r.see("privileged instruction", told(|| std::arch::asm!("cli")));
    }
}

fn fault_order(r: &mut Report) {
    let page = |prot: i32| sys!(SYS_mmap, 0, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0).unwrap();
    let both =
        sys!(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i64, 0).unwrap();
    sys!(SYS_munmap, both + 4096, 4096).unwrap();
    BASE.store(both, SeqCst);
    // SAFETY: a fault is wanted.
    unsafe {
        r.see("across the end", told(|| *((both + 4092) as *mut [u8; 8]) = [1; 8]));
        r.see("second page", told(|| *((both + 4096 + 17) as *mut u8) = 1));
        let none = page(PROT_NONE);
        BASE.store(none, SeqCst);
        r.see("store to nothing", told(|| *((none + 3) as *mut u8) = 1));
        let gone = page(PROT_READ | PROT_WRITE);
        *(gone as *mut u8) = 1;
        sys!(SYS_mprotect, gone, 4096, PROT_READ).unwrap();
        BASE.store(gone, SeqCst);
        r.see("store after mprotect", told(|| *((gone + 9) as *mut u8) = 1));
        sys!(SYS_munmap, gone, 4096).unwrap();
        r.see("load after munmap", told(|| _ = std::hint::black_box(*((gone + 9) as *const u8))));
    }
}

fn file_faults(r: &mut Report) {
    std::fs::write("f", vec![7; 5000]).unwrap();
    let file = sys::fd("f", O_RDWR);
    for (what, flags) in [("private", MAP_PRIVATE), ("shared", MAP_SHARED)] {
        let at = sys!(SYS_mmap, 0, 5 * 4096, PROT_READ | PROT_WRITE, flags, file, 0).unwrap();
        BASE.store(at, SeqCst);
        // SAFETY: faults are wanted where the file ends; before that there is memory.
        unsafe {
            r.see(
                format!("{what}: the last page"),
                (*((at + 5001) as *const u8), *((at + 4999) as *const u8)),
            );
            r.see(
                format!("{what}: load beyond"),
                told(|| _ = std::hint::black_box(*((at + 8200) as *const u8))),
            );
            r.see(format!("{what}: store beyond"), told(|| *((at + 3 * 4096) as *mut u8) = 1));
            r.see(format!("{what}: behind the mapping's file, cut"), {
                _ = std::hint::black_box(*((at + 4096) as *const u8));
                sys!(SYS_ftruncate, file, 100).unwrap();
                let told = told(|| _ = std::hint::black_box(*((at + 4097) as *const u8)));
                sys!(SYS_ftruncate, file, 5000).unwrap();
                told
            });
        }
    }
    let (reader, writer) = pipe(0);
    let at = sys!(SYS_mmap, 0, 5 * 4096, PROT_READ, MAP_SHARED, file, 0).unwrap();
    r.see("a call's buffer", sys!(SYS_write, writer, at + 8200, 1));
    r.see("not written", (sys::close(writer), read(reader, 1)));
}
