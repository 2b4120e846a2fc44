//! The system calls of a host that vmm and runtime make, and how each may fail by its manual page.

use std::fmt;

use nix::errno::Errno::{self, *};
use nix::libc::{self, c_long};

/// How a call may fail.
#[derive(Debug, Clone, Copy)]
pub enum Fails {
    /// With one of these errors, and then it has done nothing.
    With(&'static [Errno]),
    /// With one of these errors, and it has done its work nevertheless: close(2).
    AfterAll(&'static [Errno]),
    /// It does not, or only for arguments that are wrong; or the C library makes it, and leaves nobody to be told.
    Never,
}

/// A call of the host.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub number: c_long,
    pub fails: Fails,
}

/// What is counted together: a call, for some also what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    number: i64,
    asked: Option<u64>,
}

impl Kind {
    /// The kind of a call with its first three arguments.
    pub fn of(number: i64, [first, second, third]: [u64; 3]) -> Self {
        let asked = match number {
            libc::SYS_read | libc::SYS_write => (third == COUNTER_BYTES).then_some(third),
            libc::SYS_ioctl | libc::SYS_fcntl | libc::SYS_epoll_ctl => Some(second & 0xffff_ffff),
            libc::SYS_futex => Some(second & 0x7f),
            libc::SYS_prctl | libc::SYS_seccomp => Some(first),
            // The process is the calling one.
            libc::SYS_prlimit64 => Some(second),
            _ => None,
        };
        Self { number, asked }
    }

    /// What is known of the call.
    pub fn row(&self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.number == self.number)
    }

    /// The errors that it may answer.
    pub fn errnos(&self) -> Option<&'static [Errno]> {
        let special = match (self.number, self.asked) {
            (libc::SYS_read | libc::SYS_write, Some(COUNTER_BYTES)) => Some(&[][..]),
            (libc::SYS_ioctl, Some(KVM_RUN)) => Some(&[EINTR, EFAULT, ENOMEM][..]),
            (libc::SYS_ioctl, Some(KVM_CHECK_EXTENSION)) => Some(&[][..]),
            (libc::SYS_ioctl, Some(KVM_CREATE_VM | KVM_CREATE_VCPU)) => Some(&[EMFILE, ENOMEM, EINTR][..]),
            (libc::SYS_fcntl, Some(F_DUPFD_CLOEXEC)) => Some(&[EMFILE][..]),
            (libc::SYS_fcntl, Some(F_GETFD | F_GETFL)) => Some(&[][..]),
            (libc::SYS_fcntl, Some(F_ADD_SEALS)) => Some(&[EBUSY, EPERM][..]),
            (libc::SYS_futex, Some(asked)) if !FUTEX_WAITS.contains(&asked) => Some(&[][..]),
            (libc::SYS_epoll_ctl, Some(EPOLL_CTL_ADD)) => Some(&[ENOMEM, ENOSPC][..]),
            (libc::SYS_epoll_ctl, Some(_)) => Some(&[ENOMEM][..]),
            (libc::SYS_prctl, Some(PR_SET_NAME)) => Some(&[EFAULT][..]),
            _ => None,
        };
        special.or_else(|| {
            Some(match self.row()?.fails {
                Fails::With(errnos) | Fails::AfterAll(errnos) => errnos,
                Fails::Never => &[],
            })
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.name)?,
            None => write!(f, "call {}", self.number)?,
        }
        match self.asked {
            Some(asked) => write!(f, "({asked:#x})"),
            None => Ok(()),
        }
    }
}

/// What a counter of eventfd(2) takes, and gives: it does neither wait nor fail.
const COUNTER_BYTES: u64 = 8;
const KVM_RUN: u64 = 0xae80;
const KVM_CREATE_VM: u64 = 0xae01;
const KVM_CHECK_EXTENSION: u64 = 0xae03;
const KVM_CREATE_VCPU: u64 = 0xae41;
const F_DUPFD_CLOEXEC: u64 = libc::F_DUPFD_CLOEXEC as u64;
const F_GETFD: u64 = libc::F_GETFD as u64;
const F_GETFL: u64 = libc::F_GETFL as u64;
const F_ADD_SEALS: u64 = libc::F_ADD_SEALS as u64;
const EPOLL_CTL_ADD: u64 = libc::EPOLL_CTL_ADD as u64;
const PR_SET_NAME: u64 = libc::PR_SET_NAME as u64;
/// FUTEX_WAIT, FUTEX_WAIT_BITSET: one that wakes and fails would be a bug of the host.
const FUTEX_WAITS: [u64; 2] = [0, 9];

const fn with(name: &'static str, number: c_long, errnos: &'static [Errno]) -> Row {
    Row { name, number, fails: Fails::With(errnos) }
}

const fn never(name: &'static str, number: c_long) -> Row {
    Row { name, number, fails: Fails::Never }
}

/// All of them.
const ROWS: &[Row] = &[
    // Descriptors and files.
    with("read", libc::SYS_read, &[EINTR, EIO]),
    with("write", libc::SYS_write, &[EINTR, EIO, ENOSPC]),
    with("writev", libc::SYS_writev, &[EINTR, EIO, ENOSPC]),
    with("pread64", libc::SYS_pread64, &[EIO, EINTR]),
    with("pwrite64", libc::SYS_pwrite64, &[ENOSPC, EIO, EINTR]),
    with("open", libc::SYS_open, &[EMFILE, ENOMEM, EIO]),
    with("openat", libc::SYS_openat, &[EMFILE, ENOMEM, EIO]),
    with("openat2", libc::SYS_openat2, &[EMFILE, EIO, EAGAIN]),
    Row { name: "close", number: libc::SYS_close, fails: Fails::AfterAll(&[EIO, EINTR]) },
    never("close_range", libc::SYS_close_range),
    with("fstat", libc::SYS_fstat, &[ENOMEM, EIO]),
    with("newfstatat", libc::SYS_newfstatat, &[ENOMEM, EIO]),
    with("statx", libc::SYS_statx, &[ENOMEM, EIO]),
    with("fstatfs", libc::SYS_fstatfs, &[EIO, ENOMEM]),
    with("statfs", libc::SYS_statfs, &[EIO, ENOMEM]),
    with("lseek", libc::SYS_lseek, &[EOVERFLOW]),
    with("getdents64", libc::SYS_getdents64, &[EIO, ENOMEM]),
    with("readlink", libc::SYS_readlink, &[EIO, ENOMEM]),
    with("readlinkat", libc::SYS_readlinkat, &[EIO, ENOMEM]),
    with("access", libc::SYS_access, &[EIO]),
    with("faccessat2", libc::SYS_faccessat2, &[EIO]),
    with("getcwd", libc::SYS_getcwd, &[ENOMEM]),
    with("chdir", libc::SYS_chdir, &[ENOMEM, EIO]),
    with("fchdir", libc::SYS_fchdir, &[EIO]),
    with("fcntl", libc::SYS_fcntl, &[EPERM]),
    with("dup", libc::SYS_dup, &[EMFILE]),
    with("dup2", libc::SYS_dup2, &[EMFILE, EBUSY, EINTR]),
    with("dup3", libc::SYS_dup3, &[EMFILE, EBUSY, EINTR]),
    with("pipe2", libc::SYS_pipe2, &[EMFILE, ENFILE]),
    with("ioctl", libc::SYS_ioctl, &[ENOMEM, EIO, EINTR]),
    with("ftruncate", libc::SYS_ftruncate, &[EIO, EINTR]),
    with("fallocate", libc::SYS_fallocate, &[ENOSPC, EINTR]),
    with("fsync", libc::SYS_fsync, &[EIO, ENOSPC]),
    with("fchmod", libc::SYS_fchmod, &[EIO]),
    with("fchown", libc::SYS_fchown, &[EIO]),
    with("linkat", libc::SYS_linkat, &[ENOSPC, EIO]),
    with("mkdir", libc::SYS_mkdir, &[ENOSPC, ENOMEM]),
    with("mkdirat", libc::SYS_mkdirat, &[ENOSPC, ENOMEM]),
    with("rmdir", libc::SYS_rmdir, &[EBUSY]),
    with("renameat2", libc::SYS_renameat2, &[ENOSPC, EIO]),
    with("symlinkat", libc::SYS_symlinkat, &[ENOSPC, ENOMEM]),
    with("unlink", libc::SYS_unlink, &[EIO]),
    with("unlinkat", libc::SYS_unlinkat, &[EIO, EBUSY]),
    with("utimensat", libc::SYS_utimensat, &[EROFS]),
    with("memfd_create", libc::SYS_memfd_create, &[EMFILE, ENOMEM]),
    // Memory. A failing brk(2) answers the old end, and the C library then uses mmap(2).
    never("brk", libc::SYS_brk),
    with("mmap", libc::SYS_mmap, &[ENOMEM, EAGAIN]),
    with("mremap", libc::SYS_mremap, &[ENOMEM]),
    with("munmap", libc::SYS_munmap, &[ENOMEM]),
    with("mprotect", libc::SYS_mprotect, &[ENOMEM]),
    with("madvise", libc::SYS_madvise, &[ENOMEM, EAGAIN]),
    // Processes and threads.
    with("clone", libc::SYS_clone, &[EAGAIN, ENOMEM]),
    with("clone3", libc::SYS_clone3, &[EAGAIN, ENOMEM]),
    with("vfork", libc::SYS_vfork, &[EAGAIN, ENOMEM]),
    with("execve", libc::SYS_execve, &[ENOMEM, EIO]),
    with("waitid", libc::SYS_waitid, &[EINTR]),
    with("wait4", libc::SYS_wait4, &[EINTR]),
    with("pidfd_open", libc::SYS_pidfd_open, &[EMFILE, ENOMEM]),
    never("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    never("kill", libc::SYS_kill),
    never("tgkill", libc::SYS_tgkill),
    never("exit", libc::SYS_exit),
    never("exit_group", libc::SYS_exit_group),
    never("getpid", libc::SYS_getpid),
    never("getppid", libc::SYS_getppid),
    never("gettid", libc::SYS_gettid),
    never("getuid", libc::SYS_getuid),
    never("geteuid", libc::SYS_geteuid),
    never("getgid", libc::SYS_getgid),
    never("getegid", libc::SYS_getegid),
    never("getrusage", libc::SYS_getrusage),
    never("sysinfo", libc::SYS_sysinfo),
    never("uname", libc::SYS_uname),
    never("set_robust_list", libc::SYS_set_robust_list),
    never("set_tid_address", libc::SYS_set_tid_address),
    never("rseq", libc::SYS_rseq),
    never("arch_prctl", libc::SYS_arch_prctl),
    never("membarrier", libc::SYS_membarrier),
    with("sched_getaffinity", libc::SYS_sched_getaffinity, &[ESRCH]),
    with("sched_setaffinity", libc::SYS_sched_setaffinity, &[EINVAL]),
    never("sched_yield", libc::SYS_sched_yield),
    with("prlimit64", libc::SYS_prlimit64, &[EPERM]),
    with("futex", libc::SYS_futex, &[EINTR, EAGAIN]),
    // Signals and time. The standard library aborts where a thread gets no stack for signals.
    never("sigaltstack", libc::SYS_sigaltstack),
    never("rt_sigaction", libc::SYS_rt_sigaction),
    never("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    never("rt_sigreturn", libc::SYS_rt_sigreturn),
    never("rt_sigpending", libc::SYS_rt_sigpending),
    with("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, &[EINTR, EAGAIN]),
    never("restart_syscall", libc::SYS_restart_syscall),
    never("clock_gettime", libc::SYS_clock_gettime),
    with("clock_nanosleep", libc::SYS_clock_nanosleep, &[EINTR]),
    with("timer_create", libc::SYS_timer_create, &[EAGAIN, ENOMEM]),
    never("timer_settime", libc::SYS_timer_settime),
    never("timer_delete", libc::SYS_timer_delete),
    with("signalfd4", libc::SYS_signalfd4, &[EMFILE, ENOMEM]),
    with("getrandom", libc::SYS_getrandom, &[EINTR]),
    // Waiting and sockets.
    with("poll", libc::SYS_poll, &[EINTR, ENOMEM]),
    with("ppoll", libc::SYS_ppoll, &[EINTR, ENOMEM]),
    with("epoll_create1", libc::SYS_epoll_create1, &[EMFILE, ENOMEM]),
    with("epoll_ctl", libc::SYS_epoll_ctl, &[ENOMEM]),
    with("epoll_wait", libc::SYS_epoll_wait, &[EINTR]),
    with("eventfd2", libc::SYS_eventfd2, &[EMFILE, ENOMEM]),
    with("socketpair", libc::SYS_socketpair, &[EMFILE, ENFILE]),
    with("setsockopt", libc::SYS_setsockopt, &[ENOMEM]),
    with("getsockopt", libc::SYS_getsockopt, &[ENOMEM]),
    with("sendmsg", libc::SYS_sendmsg, &[ENOMEM, EINTR, ENOBUFS]),
    with("sendto", libc::SYS_sendto, &[ENOMEM, EINTR, ENOBUFS]),
    with("recvmsg", libc::SYS_recvmsg, &[ENOMEM, EINTR]),
    with("recvfrom", libc::SYS_recvfrom, &[ENOMEM, EINTR]),
    with("shutdown", libc::SYS_shutdown, &[ENOTCONN]),
    // The jail.
    with("unshare", libc::SYS_unshare, &[ENOSPC, ENOMEM]),
    with("setgroups", libc::SYS_setgroups, &[EPERM, ENOMEM]),
    with("capget", libc::SYS_capget, &[EPERM]),
    with("capset", libc::SYS_capset, &[EPERM]),
    with("prctl", libc::SYS_prctl, &[EPERM, EINVAL]),
    with("seccomp", libc::SYS_seccomp, &[ENOMEM, EINVAL]),
    with("mount", libc::SYS_mount, &[ENOMEM, EPERM]),
    with("umount2", libc::SYS_umount2, &[EBUSY, ENOMEM]),
    with("pivot_root", libc::SYS_pivot_root, &[EBUSY, EPERM]),
    with("open_tree", libc::SYS_open_tree, &[EMFILE, ENOMEM]),
    with("move_mount", libc::SYS_move_mount, &[ENOMEM, EBUSY]),
    with("mount_setattr", libc::SYS_mount_setattr, &[EBUSY, EPERM]),
    with("fsopen", libc::SYS_fsopen, &[EMFILE, ENOMEM]),
    with("fsconfig", libc::SYS_fsconfig, &[ENOMEM, EBUSY]),
    with("fsmount", libc::SYS_fsmount, &[EMFILE, ENOMEM]),
    with("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, &[ENOMEM, EOPNOTSUPP]),
    with("landlock_add_rule", libc::SYS_landlock_add_rule, &[ENOMEM, EOPNOTSUPP]),
    with("landlock_restrict_self", libc::SYS_landlock_restrict_self, &[E2BIG, EPERM]),
];
