//! Memory that is not the program's: the kernel area, the kernel half, what lies between mappings, the vDSO.

use libc::*;

use crate::sys::{self, Errno, c, sys};
use crate::{Attack, Verdict, must_die, must_fail, must_fail_with};

/// Where the kernel's stubs, tables and, where it is needed, the mailbox lie, and pages around.
const KERNEL_AREA: usize = 0x7fff_f000_0000;
const PAGE: usize = 4096;
/// The stub of system calls: where ring-3 code enters it, it may be read. And the mailbox, which may be written.
const STUB_PAGE: usize = 2;
const MAILBOX_PAGE: usize = 4;

const ADDRESSES: &[(&str, usize)] = &[
    ("null", 0),
    ("the page before the kernel area", KERNEL_AREA - PAGE),
    ("page 0 of the kernel area", KERNEL_AREA),
    ("page 1 of the kernel area", KERNEL_AREA + PAGE),
    ("page 3 of the kernel area", KERNEL_AREA + 3 * PAGE),
    ("page 5 of the kernel area", KERNEL_AREA + 5 * PAGE),
    ("the page after the kernel area", KERNEL_AREA + 16 * PAGE),
    ("the last page of the lower half", 0x7fff_ffff_f000),
    ("the first non-canonical address", 0x8000_0000_0000),
    ("the start of the upper half", 0xffff_8000_0000_0000),
    ("the direct map of Linux", 0xffff_8880_0000_0000),
    ("the text of Linux", 0xffff_ffff_8100_0000),
    ("the vsyscall page", 0xffff_ffff_ff60_0000),
    ("the last page", 0xffff_ffff_ffff_f000),
];

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    for &(name, address) in ADDRESSES {
        // Linux, too, lets programs call the vsyscall page.
        all.push(Attack::new(format!("load from {name}"), move || must_die(|| load(address))));
        all.push(Attack::new(format!("store to {name}"), move || must_die(|| store(address))));
        all.push(Attack::new(format!("jump to {name}"), move || must_die(|| jump(address))));
        all.push(Attack::new(format!("have the kernel write to {name}"), move || kernel_writes(address)));
        all.push(Attack::new(format!("have the kernel read from {name}"), move || kernel_reads(address)));
    }
    all.push(Attack::new("store to the stub of system calls", || {
        must_die(|| store(KERNEL_AREA + STUB_PAGE * PAGE))
    }));
    all.push(Attack::new("garbage in the mailbox", mailbox_garbage));
    all.push(Attack::new("jumps into the stub", jumps_into_the_stub));
    all.push(Attack::new("map over the kernel area", || over_kernel_area(map_fixed)));
    all.push(Attack::new("unmap the kernel area", || {
        over_kernel_area(|at| sys!(SYS_munmap, at, PAGE).and_then(|_| still_there(at)))
    }));
    all.push(Attack::new("protect the kernel area anew", || {
        over_kernel_area(|at| sys!(SYS_mprotect, at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC))
    }));
    all.push(Attack::new("move the kernel area", || {
        over_kernel_area(|at| sys!(SYS_mremap, at, PAGE, PAGE, MREMAP_MAYMOVE))
    }));
    all.push(Attack::new("move memory onto the kernel area", || over_kernel_area(move_onto)));
    all.push(Attack::new("grow a stack into the kernel area", || over_kernel_area(grow_into)));
    all.push(Attack::new("advise the kernel area away", || {
        over_kernel_area(|at| sys!(SYS_madvise, at, PAGE, MADV_DONTNEED).and_then(|_| still_there(at)))
    }));
    all.push(Attack::new("map a file over the kernel area", || over_kernel_area(map_file)));
    all.push(Attack::new("attach shared memory at the kernel area", || over_kernel_area(attach)));
    all.push(Attack::new("the program break into the kernel area", || {
        let before = sys!(SYS_brk, 0).map_err(|errno| errno.to_string())?;
        match sys!(SYS_brk, KERNEL_AREA + PAGE) {
            Ok(after) if after == before => Ok("unchanged".to_owned()),
            other => Err(format!("{other:x?}")),
        }
    }));
    all.push(Attack::new("write the kernel area through /proc/self/mem", through_proc_mem));
    all.push(Attack::new("write to the vDSO", || must_die(|| store(vdso()))));
    all.push(Attack::new("a changed vDSO stays the changer's own", changed_vdso));
    all.push(Attack::new("write another process' memory", other_process));
    all.extend([
        Attack::new("find memory of a process that has ended", || {
            left_by(|| {
                let at = anonymous(24 << 20);
                fill(at, 24 << 20);
            })
        }),
        Attack::new("find memory that was given back", || {
            left_by(|| {
                for _ in 0..4 {
                    let at = anonymous(8 << 20);
                    fill(at, 8 << 20);
                    sys!(SYS_madvise, at, 8 << 20, MADV_DONTNEED).expect("it is mapped");
                    sys!(SYS_munmap, at, 8 << 20).expect("it is mapped");
                }
            })
        }),
        Attack::new("find the contents of a removed file", || {
            left_by(|| {
                std::fs::write("/tmp/mine", MARK.repeat(20 << 17)).expect("/tmp can be written");
                std::fs::remove_file("/tmp/mine").expect("it is there");
            })
        }),
        Attack::new("find what was in a file before it was cut", || {
            left_by(|| {
                let fd = sys::fd("/tmp/cut", O_RDWR | O_CREAT);
                sys::write(fd, &MARK.repeat(4000)).expect("/tmp can be written");
                for size in [20_001, 100, 1 << 20] {
                    sys!(SYS_ftruncate, fd, size).expect("a file can be cut");
                }
                let text = sys::pread(fd, 1 << 20, 100).expect("it can be read");
                assert!(!text.contains("LEFTOVER"), "what was cut came back");
            })
        }),
        Attack::new("find what went through a pipe", || {
            left_by(|| {
                for _ in 0..200 {
                    let (_reader, writer) = sys::pipe(O_NONBLOCK);
                    let _ = sys::write(writer, &MARK.repeat(8192));
                }
            })
        }),
        Attack::new("find the arguments of another program", || {
            left_by(|| {
                let word = c(&"LEFTOVER".repeat(10_000));
                let words = [word.as_ptr() as usize, 0];
                let _ = sys!(SYS_execve, c("/usr/bin/true").as_ptr(), words.as_ptr(), words.as_ptr());
            })
        }),
    ]);
    all
}

fn load(address: usize) {
    // SAFETY: none: the child that does this must die of it.
    std::hint::black_box(unsafe { (address as *const u64).read_volatile() });
}

fn store(address: usize) {
    // SAFETY: as above.
    unsafe { (address as *mut u64).write_volatile(0xf4f4_f4f4_f4f4_f4f4) };
}

fn jump(address: usize) {
    // SAFETY: as above.
    unsafe { std::arch::asm!("jmp {}", in(reg) address) };
}

fn kernel_writes(address: usize) -> Verdict {
    let (reader, writer) = sys::pipe(O_NONBLOCK);
    sys::write(writer, b"12345678").expect("a pipe takes bytes");
    must_fail_with(sys!(SYS_read, reader, address, 8), &[Errno::EFAULT])?;
    must_fail_with(sys!(SYS_getcwd, address, PAGE), &[Errno::EFAULT])?;
    must_fail_with(sys!(SYS_clock_gettime, CLOCK_MONOTONIC, address), &[Errno::EFAULT])
}

fn kernel_reads(address: usize) -> Verdict {
    let (_reader, writer) = sys::pipe(O_NONBLOCK);
    must_fail_with(sys!(SYS_write, writer, address, 8), &[Errno::EFAULT])?;
    must_fail_with(sys!(SYS_open, address, O_RDONLY), &[Errno::EFAULT])?;
    must_fail_with(sys!(SYS_futex, address, FUTEX_WAIT, 0, 0), &[Errno::EFAULT])
}

/// Tries something on each page of the kernel area; what it answers must be an error.
fn over_kernel_area(what: impl Fn(usize) -> sys::Answer) -> Verdict {
    let mut answers = std::collections::BTreeSet::new();
    for page in 0..6 {
        answers
            .insert(must_fail(what(KERNEL_AREA + page * PAGE)).map_err(|it| format!("page {page}: {it}"))?);
    }
    Ok(format!("{answers:?}"))
}

/// An error if system calls still work, as they do only if their stub is there.
fn still_there(_: usize) -> sys::Answer {
    sys!(SYS_getppid).expect("getppid can not fail");
    Err(Errno::EINVAL)
}

fn map_fixed(at: usize) -> sys::Answer {
    sys!(SYS_mmap, at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1i32, 0)
}

fn map_file(at: usize) -> sys::Answer {
    let file = sys::fd("/proc/self/exe", O_RDONLY);
    sys!(SYS_mmap, at, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file, 0)
}

fn anonymous(len: usize) -> usize {
    sys!(SYS_mmap, 0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1i32, 0)
        .expect("memory can be had")
}

fn move_onto(at: usize) -> sys::Answer {
    sys!(SYS_mremap, anonymous(PAGE), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at)
}

fn grow_into(at: usize) -> sys::Answer {
    let grows = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED;
    sys!(SYS_mmap, at, 64 * PAGE, PROT_READ | PROT_WRITE, grows, -1i32, 0)
}

fn attach(at: usize) -> sys::Answer {
    let id = sys!(SYS_shmget, IPC_PRIVATE, PAGE, IPC_CREAT | 0o600).expect("a segment can be made");
    let answer = sys!(SYS_shmat, id, at, SHM_RND | SHM_REMAP);
    sys!(SYS_shmctl, id, IPC_RMID, 0).expect("a segment can be removed");
    answer
}

fn through_proc_mem() -> Verdict {
    let mem = sys::open("/proc/self/mem", O_RDWR);
    let Ok(mem) = mem else { return must_fail(mem) };
    over_kernel_area(|at| sys!(SYS_pwrite64, mem, b"12345678".as_ptr(), 8, at))?;
    over_kernel_area(|at| sys!(SYS_pread64, mem, [0u8; 8].as_mut_ptr(), 8, at))
}

fn vdso() -> usize {
    // SAFETY: the auxiliary vector is only read.
    unsafe { getauxval(AT_SYSINFO_EHDR) as usize }
}

/// A process that may change its copy of the vDSO changes it for nobody else.
fn changed_vdso() -> Verdict {
    let at = vdso();
    let end = sys::ends(|| {
        match sys!(SYS_mprotect, at, PAGE, PROT_READ | PROT_WRITE) {
            Ok(_) => store(at),
            Err(_) => return 3,
        }
        0
    });
    // SAFETY: the vDSO begins with an ELF header, which can be read.
    let magic = unsafe { (at as *const [u8; 4]).read_volatile() };
    if magic == *b"\x7fELF" { Ok(format!("the changer {end}")) } else { Err(format!("{magic:x?}")) }
}

/// Random words in the page that the platform reads requests from, while system calls are made.
fn mailbox_garbage() -> Verdict {
    let at = KERNEL_AREA + MAILBOX_PAGE * PAGE;
    let mut ends = std::collections::BTreeSet::new();
    for seed in 0..40u64 {
        let end = sys::ends(move || {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            for round in 0..2000 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let word = at + (state as usize % (PAGE / 8)) * 8;
                let value = if round % 3 == 0 { state % 8 } else { state };
                // SAFETY: the page is for user code to write, or the child dies.
                unsafe { (word as *mut u64).write_volatile(value) };
                if sys!(SYS_getppid).is_err() {
                    return 1;
                }
            }
            0
        });
        ends.insert(end);
    }
    crate::must_go_on(format!("{ends:?}"))
}

/// The stub is entered at each of its bytes, with registers as if the kernel had left them.
fn jumps_into_the_stub() -> Verdict {
    let mut ends = std::collections::BTreeSet::new();
    for offset in (0..256).step_by(3) {
        let end = sys::ends(move || {
            // SAFETY: none: what follows is the child's own problem.
            unsafe {
                std::arch::asm!(
                    "mov rcx, {lure}", "mov r11, 0x3202", "jmp {target}",
                    lure = in(reg) KERNEL_AREA, target = in(reg) KERNEL_AREA + STUB_PAGE * PAGE + offset,
                    out("rcx") _, out("r11") _,
                );
            }
            0
        });
        ends.insert(end);
    }
    crate::must_go_on(format!("{ends:?}"))
}

/// What is left in memory to be found.
const MARK: &[u8; 8] = b"LEFTOVER";

fn fill(at: usize, len: usize) {
    for word in (at..at + len).step_by(8) {
        // SAFETY: the range was just mapped for writing.
        unsafe { (word as *mut [u8; 8]).write_volatile(*MARK) };
    }
}

/// Lets a child leave marks behind, then takes all the memory there is: each page must be zero.
fn left_by(body: impl FnOnce()) -> Verdict {
    let end = sys::ends(|| {
        body();
        0
    });
    if end != "exited 0" {
        return Err(end);
    }
    let end = sys::ends(|| {
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        loop {
            let at = anonymous(1 << 20);
            for word in (at..at + (1 << 20)).step_by(8) {
                // SAFETY: the range was just mapped.
                if unsafe { (word as *const u64).read_volatile() } != 0 {
                    return 1;
                }
            }
            fill(at, 1 << 20);
        }
    });
    // It ends when there is no more, or with a page that was not zero.
    if end == "killed by 9" || end == "exited 101" { Ok("zeros alone".to_owned()) } else { Err(end) }
}

/// A user's process does not write to that of root.
fn other_process() -> Verdict {
    let value = Box::new(7u64);
    let target = (&raw const *value) as usize;
    let parent = sys::pid();
    let end = sys::ends(move || {
        sys!(SYS_setresuid, 1000, 1000, 1000).expect("root becomes a user");
        let word = 9u64;
        let local = [(&raw const word) as usize, 8];
        let remote = [target, 8];
        let wrote = sys!(SYS_process_vm_writev, parent, local.as_ptr(), 1, remote.as_ptr(), 1, 0).is_ok();
        let opened = sys::open(&format!("/proc/{parent}/mem"), O_RDWR).is_ok();
        i32::from(wrote || opened)
    });
    // SAFETY: it is there.
    let after = unsafe { (target as *const u64).read_volatile() };
    if end == "exited 0" && after == 7 { Ok(end) } else { Err(format!("{end}, value {after}")) }
}
