//! The system calls that a vmm may make once its jail is closed: [`TABLE`].
//!
//! docs/attack-surface.md is made from it. A call that is not here ends the process.

/// A system call that is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Its name, as in `man 2`.
    pub name: &'static str,
    /// Its number on x86-64.
    pub number: i64,
    /// What must hold of its arguments, all together.
    pub checks: &'static [Check],
    /// For which sandboxes.
    pub part: Part,
    /// What it is needed for.
    pub why: &'static str,
}

/// For which sandboxes a call is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// For all.
    All,
    /// For those that are served over a control socket: all but those of `luminaguard run` without a template.
    Served,
    /// For those that have a mount that may be written.
    WritableMounts,
}

/// What must hold of an argument.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Which argument, counted from 0.
    pub argument: u8,
    /// Its name in the manual page.
    pub name: &'static str,
    /// What is asked of it.
    pub test: Test,
}

/// A condition on an argument. Values come with their names.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// Its lower 32 bits are one of these values: the host looks at no more.
    OneOf(&'static [(&'static str, u64)]),
    /// All 64 bits are one of these values.
    Exactly(&'static [(&'static str, u64)]),
    /// It has none of these bits.
    Without(&'static str, u64),
}

const NO_EXEC: Test = Test::Without("PROT_EXEC", libc::PROT_EXEC as u64);

/// A thread as the C library starts it.
const THREAD: &[(&str, u64)] = &[(
    "flags of a thread",
    (libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID) as u64,
)];

const FCNTL: &[(&str, u64)] = &[
    ("F_DUPFD_CLOEXEC", libc::F_DUPFD_CLOEXEC as u64),
    ("F_GETFD", libc::F_GETFD as u64),
    ("F_GETFL", libc::F_GETFL as u64),
    ("F_SETFL", libc::F_SETFL as u64),
    ("F_ADD_SEALS", libc::F_ADD_SEALS as u64),
];

const REQUESTS: &[(&str, u64)] = &[
    ("KVM_CHECK_EXTENSION", 0xae03),
    ("KVM_CREATE_VM", 0xae01),
    ("KVM_GET_VCPU_MMAP_SIZE", 0xae04),
    ("KVM_CREATE_VCPU", 0xae41),
    ("KVM_SET_USER_MEMORY_REGION", 0x4020_ae46),
    ("KVM_RUN", 0xae80),
    ("KVM_GET_SREGS", 0x8138_ae83),
    ("KVM_SET_SREGS", 0x4138_ae84),
    ("KVM_SET_MSRS", 0x4008_ae89),
    ("KVM_SET_SIGNAL_MASK", 0x4004_ae8b),
    ("KVM_SET_CPUID2", 0x4008_ae90),
    ("KVM_GET_VCPU_EVENTS", 0x8040_ae9f),
    ("KVM_SET_VCPU_EVENTS", 0x4040_aea0),
    ("KVM_SET_XSAVE", 0x5000_aea5),
    ("KVM_SET_XCRS", 0x4188_aea7),
    ("KVM_GET_XSAVE2", 0x9000_aecf),
    ("KVM_SET_DEVICE_ATTR", 0x4018_aee1),
    ("TCGETS", libc::TCGETS),
    ("TCSETS", libc::TCSETS),
    ("TCSETSW", libc::TCSETSW),
    ("TCSETSF", libc::TCSETSF),
    ("TCGETS2", libc::TCGETS2),
    ("TCSETS2", libc::TCSETS2),
    ("TCSETSW2", libc::TCSETSW2),
    ("TCSETSF2", libc::TCSETSF2),
    ("TCFLSH", libc::TCFLSH),
    ("TIOCGWINSZ", libc::TIOCGWINSZ),
    ("TIOCSWINSZ", libc::TIOCSWINSZ),
    ("FIONREAD", libc::FIONREAD),
];

const fn row(
    name: &'static str,
    number: i64,
    part: Part,
    checks: &'static [Check],
    why: &'static str,
) -> Allowed {
    Allowed { name, number, checks, part, why }
}

/// Calls that answer ENOSYS, with why the C library can do without: it makes them at the start of each thread.
pub const ABSENT: &[(&str, i64, &str)] = &[
    ("clone3", libc::SYS_clone3, "a filter can not see its flags; clone is used then"),
    (
        "rt_sigaction",
        libc::SYS_rt_sigaction,
        "for the signals of setuid and of cancellation, which are not used",
    ),
    (
        "set_robust_list",
        libc::SYS_set_robust_list,
        "for locks that other processes share, of which there are none",
    ),
    (
        "sigaltstack",
        libc::SYS_sigaltstack,
        "for the message of an overflow of the stack, which ends the process as well",
    ),
];

/// All of them, in alphabetical order within their part. A call in two parts has the arguments of both.
pub const TABLE: &[Allowed] = &[
    row("brk", libc::SYS_brk, Part::All, &[], "memory of the allocator"),
    row(
        "clock_gettime",
        libc::SYS_clock_gettime,
        Part::All,
        &[],
        "processor time; other clocks where the vDSO has none",
    ),
    row(
        "clone",
        libc::SYS_clone,
        Part::All,
        &[Check { argument: 0, name: "flags", test: Test::Exactly(THREAD) }],
        "the thread that runs the virtual processor",
    ),
    row("close", libc::SYS_close, Part::All, &[], "descriptors that are no longer needed"),
    row("exit", libc::SYS_exit, Part::All, &[], "the end of the thread that runs the virtual processor"),
    row("exit_group", libc::SYS_exit_group, Part::All, &[], "the end of the process"),
    row(
        "fcntl",
        libc::SYS_fcntl,
        Part::All,
        &[Check { argument: 1, name: "cmd", test: Test::OneOf(FCNTL) }],
        "descriptors above the first three, seals of memory",
    ),
    row("fstat", libc::SYS_fstat, Part::All, &[], "facts about files of the image and mounts"),
    row("fstatfs", libc::SYS_fstatfs, Part::All, &[], "free space of a mount"),
    row(
        "ftruncate",
        libc::SYS_ftruncate,
        Part::All,
        &[],
        "the size of memory that is sealed; of a file in a writable mount",
    ),
    row(
        "futex",
        libc::SYS_futex,
        Part::All,
        &[],
        "the thread that runs the virtual processor; locks of the standard library",
    ),
    row("getdents64", libc::SYS_getdents64, Part::All, &[], "directories of the image and mounts"),
    row(
        "getpid",
        libc::SYS_getpid,
        Part::All,
        &[],
        "whether this is a fork; in a served one, whom to send the signal for input",
    ),
    row("getrandom", libc::SYS_getrandom, Part::All, &[], "entropy of the guest and of hash tables"),
    row(
        "getrusage",
        libc::SYS_getrusage,
        Part::All,
        &[],
        "processor time of the thread that runs the virtual processor",
    ),
    row("gettid", libc::SYS_gettid, Part::All, &[], "whom a timer belongs to"),
    row(
        "ioctl",
        libc::SYS_ioctl,
        Part::All,
        &[Check { argument: 1, name: "request", test: Test::OneOf(REQUESTS) }],
        "the virtual machine; settings of the terminal that a standard stream may be, but no input into it",
    ),
    row("lseek", libc::SYS_lseek, Part::All, &[], "holes of files; standard streams that are files"),
    row("madvise", libc::SYS_madvise, Part::All, &[], "memory that is given back or mapped ahead"),
    row(
        "memfd_create",
        libc::SYS_memfd_create,
        Part::All,
        &[],
        "memory that is sealed, so that forks share it",
    ),
    row(
        "mmap",
        libc::SYS_mmap,
        Part::All,
        &[Check { argument: 2, name: "prot", test: NO_EXEC }],
        "guest memory, the page shared with KVM, the allocator; never to be executed",
    ),
    row(
        "mprotect",
        libc::SYS_mprotect,
        Part::All,
        &[Check { argument: 2, name: "prot", test: NO_EXEC }],
        "makes KVM forget pages; stacks of threads; never to be executed",
    ),
    row("mremap", libc::SYS_mremap, Part::All, &[], "memory of the allocator that grows"),
    row("munmap", libc::SYS_munmap, Part::All, &[], "memory that is given back"),
    row("newfstatat", libc::SYS_newfstatat, Part::All, &[], "facts about files of the image and mounts"),
    row(
        "openat2",
        libc::SYS_openat2,
        Part::All,
        &[],
        "opens files of the image and mounts, beneath a directory that is held open",
    ),
    row(
        "ppoll",
        libc::SYS_ppoll,
        Part::All,
        &[],
        "sleeps until something happens; standard streams of the guest",
    ),
    row("pread64", libc::SYS_pread64, Part::All, &[], "files of the image and mounts"),
    row("pwrite64", libc::SYS_pwrite64, Part::All, &[], "memory that is sealed; files in writable mounts"),
    row("read", libc::SYS_read, Part::All, &[], "standard streams of the guest; signals"),
    row("readlinkat", libc::SYS_readlinkat, Part::All, &[], "symbolic links of the image and mounts"),
    row("recvmsg", libc::SYS_recvmsg, Part::All, &[], "requests on the control socket, with descriptors"),
    row(
        "restart_syscall",
        libc::SYS_restart_syscall,
        Part::All,
        &[],
        "the host goes on with a call after a stop",
    ),
    row(
        "rseq",
        libc::SYS_rseq,
        Part::All,
        &[],
        "the start of a thread, which the C library ends the process without",
    ),
    row("rt_sigpending", libc::SYS_rt_sigpending, Part::All, &[], "has the timer of a time slice expired?"),
    row("rt_sigprocmask", libc::SYS_rt_sigprocmask, Part::All, &[], "the start of a thread"),
    row("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, Part::All, &[], "takes the signal of a timer"),
    row(
        "sched_getaffinity",
        libc::SYS_sched_getaffinity,
        Part::All,
        &[],
        "is there a second processor for the thread that runs the virtual one?",
    ),
    row("sched_yield", libc::SYS_sched_yield, Part::All, &[], "waits for a thread that is about to answer"),
    row("sendmsg", libc::SYS_sendmsg, Part::All, &[], "replies and events on the control socket"),
    row(
        "timer_create",
        libc::SYS_timer_create,
        Part::All,
        &[],
        "time slices and deadlines; the end of a run of the virtual processor by another thread",
    ),
    row("timer_delete", libc::SYS_timer_delete, Part::All, &[], "the end of a timer"),
    row("timer_settime", libc::SYS_timer_settime, Part::All, &[], "time slices and deadlines"),
    row(
        "write",
        libc::SYS_write,
        Part::All,
        &[],
        "standard streams of the guest; a trace or the message of a panic",
    ),
    row(
        "clone",
        libc::SYS_clone,
        Part::Served,
        &[Check {
            argument: 0,
            name: "flags",
            test: Test::Exactly(&[("CLONE_PARENT", libc::CLONE_PARENT as u64)]),
        }],
        "a fork of the sandbox",
    ),
    row(
        "fcntl",
        libc::SYS_fcntl,
        Part::Served,
        &[Check { argument: 1, name: "cmd", test: Test::OneOf(&[("F_SETOWN", libc::F_SETOWN as u64)]) }],
        "the signal that says that something has arrived on the control socket",
    ),
    row(
        "sched_setaffinity",
        libc::SYS_sched_setaffinity,
        Part::Served,
        &[Check { argument: 0, name: "pid", test: Test::Exactly(&[("0", 0)]) }],
        "a fork that is to run on certain processors",
    ),
    row("fallocate", libc::SYS_fallocate, Part::WritableMounts, &[], "space of a file"),
    row("fchmod", libc::SYS_fchmod, Part::WritableMounts, &[], "modes"),
    row("fchown", libc::SYS_fchown, Part::WritableMounts, &[], "owners"),
    row("fsync", libc::SYS_fsync, Part::WritableMounts, &[], "files that must be on the disk"),
    row("linkat", libc::SYS_linkat, Part::WritableMounts, &[], "hard links"),
    row("mkdirat", libc::SYS_mkdirat, Part::WritableMounts, &[], "directories"),
    row("renameat2", libc::SYS_renameat2, Part::WritableMounts, &[], "other names"),
    row("symlinkat", libc::SYS_symlinkat, Part::WritableMounts, &[], "symbolic links"),
    row("unlinkat", libc::SYS_unlinkat, Part::WritableMounts, &[], "removal"),
    row("utimensat", libc::SYS_utimensat, Part::WritableMounts, &[], "times"),
];
