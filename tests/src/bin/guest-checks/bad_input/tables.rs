//! The calls that get bad input, with their arguments, and those that do not, with the reason.

use libc::*;

use super::Arg::{Fd, Fixed, Flags, In, Len, Num, Offset, Out, Path, Span};
use super::Data::{Iovec, Message, Words};
use super::world::*;
use super::{Arg, Call};

/// Calls of one family.
pub type Group = &'static [Call];

macro_rules! calls {
    ($($name:ident $number:ident [$($arg:expr),* $(,)?];)*) => {
        &[$(Call { name: stringify!($name), number: $number, args: &[$($arg),*] },)*]
    };
}

/// A relative time that is over at once.
const SHORT: Arg = In(Words(&[0, 1000]));
const SIGNALS: Arg = In(Words(&[0]));
const NULL: Arg = Fixed(0);
const ALL: u64 = u32::MAX as u64;

pub const IO: Group = calls! {
    read SYS_read [Fd(FILE), Out, Len(16)];
    write SYS_write [Fd(FILE), In(Words(&[7; 8])), Len(8)];
    pread64 SYS_pread64 [Fd(FILE), Out, Len(16), Offset(0)];
    pwrite64 SYS_pwrite64 [Fd(FILE), In(Words(&[7; 8])), Len(16), Offset(0)];
    readv SYS_readv [Fd(FILE), In(Iovec), Len(2)];
    writev SYS_writev [Fd(FILE), In(Iovec), Len(2)];
    preadv SYS_preadv [Fd(FILE), In(Iovec), Len(2), Offset(0)];
    pwritev SYS_pwritev [Fd(FILE), In(Iovec), Len(2), Offset(0)];
    preadv2 SYS_preadv2 [Fd(FILE), In(Iovec), Len(2), Offset(0), NULL, Flags(0, 0x1ff)];
    pwritev2 SYS_pwritev2 [Fd(FILE), In(Iovec), Len(2), Offset(0), NULL, Flags(0, 0x1ff)];
    lseek SYS_lseek [Fd(FILE), Offset(0), Num(0)];
    close SYS_close [Fd(FILE)];
    close_range SYS_close_range [Fixed(100), Fixed(101), Flags(0, 6)];
    dup SYS_dup [Fd(FILE)];
    dup2 SYS_dup2 [Fd(FILE), Fixed(160)];
    dup3 SYS_dup3 [Fd(FILE), Fixed(160), Flags(0, O_CLOEXEC as u64)];
    pipe SYS_pipe [Out];
    pipe2 SYS_pipe2 [Out, Flags(0, (O_CLOEXEC | O_NONBLOCK | O_DIRECT | O_EXCL) as u64)];
};

pub const FILES: Group = calls! {
    sendfile SYS_sendfile [Fd(OTHER), Fd(FILE), In(Words(&[0])), Len(16)];
    copy_file_range SYS_copy_file_range [Fd(FILE), NULL, Fd(OTHER), NULL, Len(16), Flags(0, 0)];
    splice SYS_splice [Fd(FILE), NULL, Fd(WRITE_END), NULL, Fixed(16), Flags(0, 15)];
    tee SYS_tee [Fd(READ_END), Fd(WRITE_END), Fixed(16), Flags(2, 15)];
    vmsplice SYS_vmsplice [Fd(WRITE_END), In(Iovec), Len(2), Flags(2, 15)];
    fsync SYS_fsync [Fd(FILE)];
    fdatasync SYS_fdatasync [Fd(FILE)];
    syncfs SYS_syncfs [Fd(FILE)];
    sync_file_range SYS_sync_file_range [Fd(FILE), Offset(0), Offset(0), Flags(0, 7)];
    fadvise64 SYS_fadvise64 [Fd(FILE), Offset(0), Offset(0), Num(0)];
    readahead SYS_readahead [Fd(FILE), Offset(0), Len(16)];
    fallocate SYS_fallocate [Fd(FILE), Fixed(0), Offset(0), Offset(16)];
    ftruncate SYS_ftruncate [Fd(FILE), Offset(4)];
    flock SYS_flock [Fd(FILE), Fixed((LOCK_SH | LOCK_NB) as u64)];
    fchmod SYS_fchmod [Fd(FILE), Fixed(0o644)];
    fchown SYS_fchown [Fd(FILE), Fixed(ALL), Fixed(ALL)];
    fstat SYS_fstat [Fd(FILE), Out];
    fstatfs SYS_fstatfs [Fd(FILE), Out];
    fchdir SYS_fchdir [Fd(DIRECTORY)];
    getdents SYS_getdents [Fd(DIRECTORY), Out, Len(1024)];
    getdents64 SYS_getdents64 [Fd(DIRECTORY), Out, Len(1024)];
    getrandom SYS_getrandom [Out, Len(16), Flags(0, 7)];
    memfd_create SYS_memfd_create [Path("name"), Flags(0, 0xfc00_001f)];
    kcmp SYS_kcmp [Fixed(0), Fixed(0), Num(0), Fd(FILE), Fd(FILE)];
};

pub const NAMES: Group = calls! {
    open SYS_open [Path("f"), Fixed(0), Fixed(0)];
    openat SYS_openat [Fd(DIRECTORY), Path("f"), Fixed(0), Fixed(0)];
    openat2 SYS_openat2 [Fd(DIRECTORY), Path("f"), In(Words(&[0, 0, 0])), Len(24)];
    creat SYS_creat [Path("new"), Fixed(0o644)];
    stat SYS_stat [Path("f"), Out];
    lstat SYS_lstat [Path("f"), Out];
    newfstatat SYS_newfstatat [Fd(DIRECTORY), Path("f"), Out, Flags(0, 0x7900)];
    statx SYS_statx [Fd(DIRECTORY), Path("f"), Flags(0, 0x7900), Flags(0x7ff, 0x7fff_ffff), Out];
    statfs SYS_statfs [Path("f"), Out];
    access SYS_access [Path("f"), Flags(0, 7)];
    faccessat SYS_faccessat [Fd(DIRECTORY), Path("f"), Flags(0, 7)];
    faccessat2 SYS_faccessat2 [Fd(DIRECTORY), Path("f"), Flags(0, 7), Flags(0, 0x1300)];
    truncate SYS_truncate [Path("f"), Offset(4)];
    getcwd SYS_getcwd [Out, Len(256)];
    chdir SYS_chdir [Path("d")];
    chroot SYS_chroot [Path("d")];
    rename SYS_rename [Path("f"), Path("new")];
    renameat SYS_renameat [Fd(DIRECTORY), Path("f"), Fd(DIRECTORY), Path("new")];
    renameat2 SYS_renameat2 [Fd(DIRECTORY), Path("f"), Fd(DIRECTORY), Path("new"), Flags(0, 7)];
    mkdir SYS_mkdir [Path("new"), Fixed(0o755)];
    mkdirat SYS_mkdirat [Fd(DIRECTORY), Path("new"), Fixed(0o755)];
    mknod SYS_mknod [Path("new"), Fixed(0o100_644), Fixed(0)];
    mknodat SYS_mknodat [Fd(DIRECTORY), Path("new"), Fixed(0o100_644), Fixed(0)];
    rmdir SYS_rmdir [Path("new")];
    link SYS_link [Path("f"), Path("new")];
    linkat SYS_linkat [Fd(DIRECTORY), Path("f"), Fd(DIRECTORY), Path("new"), Flags(0, 0x1400)];
    unlink SYS_unlink [Path("f")];
    unlinkat SYS_unlinkat [Fd(DIRECTORY), Path("f"), Flags(0, 0x200)];
    symlink SYS_symlink [Path("f"), Path("new")];
    symlinkat SYS_symlinkat [Path("f"), Fd(DIRECTORY), Path("new")];
    readlink SYS_readlink [Path("l"), Out, Len(64)];
    readlinkat SYS_readlinkat [Fd(DIRECTORY), Path("l"), Out, Len(64)];
    chmod SYS_chmod [Path("f"), Fixed(0o600)];
    fchmodat SYS_fchmodat [Fd(DIRECTORY), Path("f"), Fixed(0o600)];
    chown SYS_chown [Path("f"), Fixed(ALL), Fixed(ALL)];
    lchown SYS_lchown [Path("f"), Fixed(ALL), Fixed(ALL)];
    fchownat SYS_fchownat [Fd(DIRECTORY), Path("f"), Fixed(ALL), Fixed(ALL), Flags(0, 0x1100)];
};

pub const ATTRIBUTES: Group = calls! {
    utime SYS_utime [Path("f"), In(Words(&[1, 1]))];
    utimes SYS_utimes [Path("f"), In(Words(&[1, 1, 1, 1]))];
    futimesat SYS_futimesat [Fd(DIRECTORY), Path("f"), In(Words(&[1, 1, 1, 1]))];
    utimensat SYS_utimensat [Fd(DIRECTORY), Path("f"), In(Words(&[1, 1, 1, 1])), Flags(0, 0x1100)];
    setxattr SYS_setxattr [Path("f"), Path("user.a"), In(Words(&[7; 8])), Len(4), Flags(0, 3)];
    lsetxattr SYS_lsetxattr [Path("f"), Path("user.a"), In(Words(&[7; 8])), Len(4), Flags(0, 3)];
    fsetxattr SYS_fsetxattr [Fd(FILE), Path("user.a"), In(Words(&[7; 8])), Len(4), Flags(0, 3)];
    getxattr SYS_getxattr [Path("f"), Path("user.a"), Out, Len(16)];
    lgetxattr SYS_lgetxattr [Path("f"), Path("user.a"), Out, Len(16)];
    fgetxattr SYS_fgetxattr [Fd(FILE), Path("user.a"), Out, Len(16)];
    listxattr SYS_listxattr [Path("f"), Out, Len(64)];
    llistxattr SYS_llistxattr [Path("f"), Out, Len(64)];
    flistxattr SYS_flistxattr [Fd(FILE), Out, Len(64)];
    removexattr SYS_removexattr [Path("f"), Path("user.a")];
    lremovexattr SYS_lremovexattr [Path("f"), Path("user.a")];
    fremovexattr SYS_fremovexattr [Fd(FILE), Path("user.a")];
    execve SYS_execve [Path("f"), NULL, NULL];
    execveat SYS_execveat [Fd(DIRECTORY), Path("f"), NULL, NULL, Flags(0, 0x11100)];
};

pub const MEMORY: Group = calls! {
    mmap SYS_mmap [NULL, Span(4096), Fixed(1), Fixed(2), Fd(FILE), Offset(0)];
    munmap SYS_munmap [Out, Span(4096)];
    mprotect SYS_mprotect [Out, Span(4096), Flags(3, 0x300_000f)];
    pkey_mprotect SYS_pkey_mprotect [Out, Span(4096), Flags(3, 0x300_000f), Num(ALL)];
    pkey_free SYS_pkey_free [Fixed(ALL)];
    mremap SYS_mremap [Out, Span(4096), Span(4096), Flags(0, 7), NULL];
    msync SYS_msync [Out, Span(4096), Flags(4, 7)];
    mincore SYS_mincore [Out, Span(4096), Out];
    madvise SYS_madvise [Out, Span(4096), Num(0)];
    mlock SYS_mlock [Out, Span(4096)];
    mlock2 SYS_mlock2 [Out, Span(4096), Flags(0, 1)];
    munlock SYS_munlock [Out, Span(4096)];
    mlockall SYS_mlockall [Flags(1, 7)];
    mbind SYS_mbind [Out, Fixed(4096), Num(0), NULL, Fixed(0), Flags(0, 7)];
    set_mempolicy SYS_set_mempolicy [Num(0), NULL, Fixed(0)];
    get_mempolicy SYS_get_mempolicy [Out, Out, Fixed(1024), NULL, Flags(0, 7)];
    set_robust_list SYS_set_robust_list [Out, Len(24)];
    get_robust_list SYS_get_robust_list [Fixed(0), Out, Out];
    membarrier SYS_membarrier [Fixed(0), Flags(0, 0), Fixed(0)];
    futex_wait SYS_futex [In(Words(&[5])), Fixed(0), Fixed(6), SHORT];
    futex_wake SYS_futex [In(Words(&[5])), Fixed(1), Num(1)];
    futex_requeue SYS_futex [In(Words(&[5])), Fixed(3), Num(1), Num(1), In(Words(&[5]))];
    futex_wait_bitset SYS_futex [In(Words(&[5])), Fixed(9), Fixed(6), SHORT, NULL, Num(1)];
    set_tid_address SYS_set_tid_address [Out];
};

pub const EVENTS: Group = calls! {
    poll SYS_poll [In(Words(&[100 | 1 << 32])), Len(1), Fixed(0)];
    ppoll SYS_ppoll [In(Words(&[100 | 1 << 32])), Len(1), SHORT, SIGNALS, Len(8)];
    select SYS_select [Num(1), In(Words(&[0; 16])), In(Words(&[0; 16])), In(Words(&[0; 16])), SHORT];
    pselect6 SYS_pselect6 [Num(1), In(Words(&[0; 16])), In(Words(&[0; 16])), In(Words(&[0; 16])), SHORT, NULL];
    epoll_create SYS_epoll_create [Num(1)];
    inotify_init1 SYS_inotify_init1 [Flags(0, (O_CLOEXEC | O_NONBLOCK) as u64)];
    inotify_add_watch SYS_inotify_add_watch [Fd(FILE), Path("f"), Num(2)];
    inotify_rm_watch SYS_inotify_rm_watch [Fd(FILE), Num(1)];
    epoll_create1 SYS_epoll_create1 [Flags(0, O_CLOEXEC as u64)];
    epoll_ctl SYS_epoll_ctl [Fd(EPOLL), Num(1), Fd(EVENT), In(Words(&[1, 0]))];
    epoll_wait SYS_epoll_wait [Fd(EPOLL), Out, Num(4), Fixed(0)];
    epoll_pwait SYS_epoll_pwait [Fd(EPOLL), Out, Num(4), Fixed(0), SIGNALS, Len(8)];
    epoll_pwait2 SYS_epoll_pwait2 [Fd(EPOLL), Out, Num(4), SHORT, SIGNALS, Len(8)];
    eventfd SYS_eventfd [Num(0)];
    eventfd2 SYS_eventfd2 [Num(0), Flags(0, (O_CLOEXEC | O_NONBLOCK | 1) as u64)];
    signalfd SYS_signalfd [Fixed(ALL), SIGNALS, Len(8)];
    signalfd4 SYS_signalfd4 [Fixed(ALL), SIGNALS, Len(8), Flags(0, (O_CLOEXEC | O_NONBLOCK) as u64)];
    timerfd_create SYS_timerfd_create [Fixed(1), Flags(0, (O_CLOEXEC | O_NONBLOCK) as u64)];
    timerfd_settime SYS_timerfd_settime [Fd(TIMER), Flags(0, 3), In(Words(&[0, 0, 1000, 0])), Out];
    timerfd_gettime SYS_timerfd_gettime [Fd(TIMER), Out];
    rt_sigaction SYS_rt_sigaction [Num(10), In(Words(&[0; 4])), Out, Len(8)];
    rt_sigprocmask SYS_rt_sigprocmask [Num(0), SIGNALS, Out, Len(8)];
    rt_sigpending SYS_rt_sigpending [Out, Len(8)];
    rt_sigtimedwait SYS_rt_sigtimedwait [SIGNALS, Out, SHORT, Len(8)];
    sigaltstack SYS_sigaltstack [NULL, Out];
    pidfd_open SYS_pidfd_open [Num(1), Flags(0, (O_NONBLOCK | O_EXCL) as u64)];
    pidfd_send_signal SYS_pidfd_send_signal [Fd(PROCESS), Num(0), NULL, Flags(0, 7)];
    pidfd_getfd SYS_pidfd_getfd [Fd(PROCESS), Fd(FILE), Flags(0, 0)];
};

pub const SOCKETS: Group = calls! {
    socket SYS_socket [Num(1), Fixed(1), Num(0)];
    socketpair SYS_socketpair [Num(1), Fixed(1), Num(0), Out];
    connect SYS_connect [Fd(SOCKET), In(Words(&[1])), Num(8)];
    bind SYS_bind [Fd(SOCKET), In(Words(&[1])), Num(2)];
    listen SYS_listen [Fd(LISTENER), Num(1)];
    accept SYS_accept [Fd(LISTENER), Out, In(Words(&[16]))];
    accept4 SYS_accept4 [Fd(LISTENER), Out, In(Words(&[16])), Flags(0, (O_CLOEXEC | O_NONBLOCK) as u64)];
    shutdown SYS_shutdown [Fd(SOCKET), Num(0)];
    getsockname SYS_getsockname [Fd(SOCKET), Out, In(Words(&[16]))];
    getpeername SYS_getpeername [Fd(SOCKET), Out, In(Words(&[16]))];
    setsockopt SYS_setsockopt [Fd(SOCKET), Num(1), Num(9), In(Words(&[1])), Num(4)];
    getsockopt SYS_getsockopt [Fd(SOCKET), Num(1), Num(9), Out, In(Words(&[4]))];
    sendto SYS_sendto [Fd(SOCKET), In(Words(&[7; 8])), Fixed(8), Fixed(MSG_NOSIGNAL as u64), NULL, Fixed(0)];
    recvfrom SYS_recvfrom [Fd(SOCKET), Out, Fixed(8), Fixed(0), NULL, NULL];
    sendmsg SYS_sendmsg [Fd(SOCKET), In(Message), Fixed(MSG_NOSIGNAL as u64)];
    recvmsg SYS_recvmsg [Fd(SOCKET), In(Message), Fixed(0)];
    sendmmsg SYS_sendmmsg [Fd(SOCKET), In(Message), Num(1), Fixed(MSG_NOSIGNAL as u64)];
    recvmmsg SYS_recvmmsg [Fd(SOCKET), In(Message), Num(1), Fixed(0), NULL];
};

pub const PROCESSES: Group = calls! {
    wait4 SYS_wait4 [Fixed(ALL), Out, Flags(1, 0xe000_000b), Out];
    waitid SYS_waitid [Num(0), Fixed(0), Out, Flags(5, 0xe100_000f), Out];
    clone3 SYS_clone3 [In(Words(&[1, 0, 0, 0, 0, 0, 0, 0])), Len(0)];
    uname SYS_uname [Out];
    sysinfo SYS_sysinfo [Out];
    getrlimit SYS_getrlimit [Num(7), Out];
    setrlimit SYS_setrlimit [Num(4), In(Words(&[u64::MAX; 2]))];
    prlimit64 SYS_prlimit64 [Fixed(0), Num(4), In(Words(&[u64::MAX; 2])), Out];
    getrusage SYS_getrusage [Num(0), Out];
    times SYS_times [Out];
    getgroups SYS_getgroups [Fixed(0), Out];
    setgroups SYS_setgroups [Num(1), In(Words(&[0]))];
    getresuid SYS_getresuid [Out, Out, Out];
    getresgid SYS_getresgid [Out, Out, Out];
    capget SYS_capget [In(Words(&[0x2008_0522])), Out];
    capset SYS_capset [In(Words(&[0x2008_0522])), In(Words(&[0; 3]))];
    getpgid SYS_getpgid [Num(0)];
    getsid SYS_getsid [Num(0)];
    sched_getparam SYS_sched_getparam [Num(0), Out];
    sched_setparam SYS_sched_setparam [Fixed(0), In(Words(&[0]))];
    sched_setscheduler SYS_sched_setscheduler [Fixed(0), Num(0), In(Words(&[0]))];
    sched_getscheduler SYS_sched_getscheduler [Num(0)];
    sched_get_priority_max SYS_sched_get_priority_max [Num(0)];
    sched_get_priority_min SYS_sched_get_priority_min [Num(0)];
    sched_rr_get_interval SYS_sched_rr_get_interval [Num(0), Out];
    sched_setaffinity SYS_sched_setaffinity [Fixed(0), Len(8), In(Words(&[1]))];
    sched_getaffinity SYS_sched_getaffinity [Num(0), Len(128), Out];
    sched_setattr SYS_sched_setattr [Fixed(0), In(Words(&[48, 0, 0, 0, 0, 0])), Flags(0, 0)];
    sched_getattr SYS_sched_getattr [Num(0), Out, Len(48), Flags(0, 0)];
    getcpu SYS_getcpu [Out, Out, NULL];
    getpriority SYS_getpriority [Num(0), Fixed(0)];
    ioprio_get SYS_ioprio_get [Num(1), Fixed(0)];
    prctl_get_name SYS_prctl [Fixed(16), Out];
    prctl_set_name SYS_prctl [Fixed(15), Path("name")];
    prctl_unknown SYS_prctl [Fixed(0x7fff), Fixed(0)];
    arch_prctl SYS_arch_prctl [Fixed(0x1003), Out];
    personality SYS_personality [Fixed(ALL)];
};

pub const TIME: Group = calls! {
    gettimeofday SYS_gettimeofday [Out, Out];
    time SYS_time [Out];
    clock_gettime SYS_clock_gettime [Num(0), Out];
    clock_getres SYS_clock_getres [Num(0), Out];
    nanosleep SYS_nanosleep [SHORT, Out];
    clock_nanosleep SYS_clock_nanosleep [Num(1), Fixed(0), SHORT, Out];
    getitimer SYS_getitimer [Num(0), Out];
    setitimer SYS_setitimer [Num(1), In(Words(&[0, 0, 0, 0])), Out];
    timer_create SYS_timer_create [Num(1), NULL, Out];
    timer_settime SYS_timer_settime [Num(0), Num(0), In(Words(&[0; 4])), Out];
    timer_gettime SYS_timer_gettime [Num(0), Out];
    timer_getoverrun SYS_timer_getoverrun [Num(0)];
    timer_delete SYS_timer_delete [Num(0)];
};

pub const IPC: Group = calls! {
    shmget SYS_shmget [Fixed(0x4c47), Span(4096), Fixed(0)];
    shmat SYS_shmat [Fixed(ALL), NULL, Fixed(0)];
    shmctl SYS_shmctl [Fixed(ALL), Num(2), Out];
    shmdt SYS_shmdt [Out];
    semget SYS_semget [Fixed(1), Num(0), Fixed(0)];
    semop SYS_semop [Fixed(ALL), In(Words(&[0])), Len(1)];
    semtimedop SYS_semtimedop [Fixed(ALL), In(Words(&[0])), Len(1), SHORT];
    semctl SYS_semctl [Fixed(ALL), Num(0), Num(2), Out];
    msgsnd SYS_msgsnd [Fixed(ALL), In(Words(&[1; 8])), Len(8), Fixed(0o4000)];
    msgrcv SYS_msgrcv [Fixed(ALL), Out, Len(8), Fixed(0), Fixed(0o4000)];
    msgctl SYS_msgctl [Fixed(ALL), Num(2), Out];
    mq_unlink SYS_mq_unlink [Path("missing")];
    mq_open SYS_mq_open [Path("missing"), Fixed(0), Fixed(0), NULL];
    mq_timedsend SYS_mq_timedsend [Fd(FILE), In(Words(&[7; 8])), Len(8), Num(0), SHORT];
    mq_timedreceive SYS_mq_timedreceive [Fd(FILE), Out, Len(8), Out, SHORT];
    mq_notify SYS_mq_notify [Fd(FILE), NULL];
    mq_getsetattr SYS_mq_getsetattr [Fd(FILE), NULL, Out];
};

/// fcntl(2) and ioctl(2), command by command.
pub const CONTROL: Group = calls! {
    fcntl_unknown SYS_fcntl [Fd(FILE), Fixed(999), NULL];
    fcntl_dupfd SYS_fcntl [Fd(FILE), Fixed(F_DUPFD as u64), Num(0)];
    fcntl_dupfd_cloexec SYS_fcntl [Fd(FILE), Fixed(F_DUPFD_CLOEXEC as u64), Num(0)];
    fcntl_getfd SYS_fcntl [Fd(FILE), Fixed(F_GETFD as u64)];
    fcntl_setfd SYS_fcntl [Fd(FILE), Fixed(F_SETFD as u64), Num(0)];
    fcntl_getfl SYS_fcntl [Fd(FILE), Fixed(F_GETFL as u64)];
    fcntl_setfl SYS_fcntl [Fd(FILE), Fixed(F_SETFL as u64), Flags(0, O_DIRECT as u64)];
    fcntl_getlk SYS_fcntl [Fd(FILE), Fixed(F_GETLK as u64), In(Words(&[0, 0, 1, 0]))];
    fcntl_setlk SYS_fcntl [Fd(FILE), Fixed(F_SETLK as u64), In(Words(&[0, 0, 1, 0]))];
    fcntl_setlkw SYS_fcntl [Fd(FILE), Fixed(F_SETLKW as u64), In(Words(&[0, 0, 1, 0]))];
    fcntl_ofd_getlk SYS_fcntl [Fd(FILE), Fixed(F_OFD_GETLK as u64), In(Words(&[0, 0, 1, 0]))];
    fcntl_ofd_setlk SYS_fcntl [Fd(FILE), Fixed(F_OFD_SETLK as u64), In(Words(&[0, 0, 1, 0]))];
    fcntl_getown SYS_fcntl [Fd(FILE), Fixed(F_GETOWN as u64)];
    fcntl_setown SYS_fcntl [Fd(FILE), Fixed(F_SETOWN as u64), Num(0)];
    fcntl_getown_ex SYS_fcntl [Fd(FILE), Fixed(16), Out];
    fcntl_setown_ex SYS_fcntl [Fd(FILE), Fixed(15), In(Words(&[0]))];
    fcntl_getsig SYS_fcntl [Fd(FILE), Fixed(11)];
    fcntl_setsig SYS_fcntl [Fd(FILE), Fixed(10), Num(10)];
    fcntl_getlease SYS_fcntl [Fd(FILE), Fixed(F_GETLEASE as u64)];
    fcntl_setpipe_sz SYS_fcntl [Fd(READ_END), Fixed(F_SETPIPE_SZ as u64), Num(4096)];
    fcntl_getpipe_sz SYS_fcntl [Fd(READ_END), Fixed(F_GETPIPE_SZ as u64)];
    ioctl_unknown SYS_ioctl [Fd(FILE), Fixed(0xdead), NULL];
    ioctl_fioclex SYS_ioctl [Fd(FILE), Fixed(FIOCLEX), NULL];
    ioctl_fionclex SYS_ioctl [Fd(FILE), Fixed(FIONCLEX), NULL];
    ioctl_fionbio SYS_ioctl [Fd(FILE), Fixed(FIONBIO), In(Words(&[0]))];
    ioctl_fioasync SYS_ioctl [Fd(FILE), Fixed(FIOASYNC), In(Words(&[0]))];
    ioctl_fionread SYS_ioctl [Fd(READ_END), Fixed(FIONREAD), Out];
    ioctl_fioqsize SYS_ioctl [Fd(FILE), Fixed(0x5460), Out];
    ioctl_figetbsz SYS_ioctl [Fd(FILE), Fixed(2), Out];
    ioctl_tcgets SYS_ioctl [Fd(FILE), Fixed(TCGETS), Out];
    ioctl_tcsets SYS_ioctl [Fd(FILE), Fixed(TCSETS), In(Words(&[0; 8]))];
    ioctl_tiocgwinsz SYS_ioctl [Fd(FILE), Fixed(TIOCGWINSZ), Out];
    ioctl_tiocgpgrp SYS_ioctl [Fd(FILE), Fixed(TIOCGPGRP), Out];
    ioctl_tiocoutq SYS_ioctl [Fd(SOCKET), Fixed(TIOCOUTQ), Out];
    ioctl_siocgifflags SYS_ioctl [Fd(SOCKET), Fixed(0x8913), Path("lo")];
    ioctl_siocgifconf SYS_ioctl [Fd(SOCKET), Fixed(0x8912), In(Words(&[0, 0]))];
};

/// Lines that are not shown, since the answers differ for the reason given: the call, and the words behind it.
pub const NOT_SHOWN: &[(&str, &[&str], &str)] = &[
    ("ioctl_unknown", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_fionread", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_tcgets", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_tcsets", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_tiocgwinsz", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_tiocgpgrp", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_tiocoutq", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_siocgifflags", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("ioctl_siocgifconf", &["0 epoll"], "EINVAL is newer than Linux 6.1"),
    ("fchmod", &["0 epoll", "0 eventfd"], "EOPNOTSUPP is newer than Linux 6.1"),
    ("fchown", &["0 epoll", "0 eventfd"], "EOPNOTSUPP is newer than Linux 6.1"),
    ("mremap", &["2 to the end", "2 i64::MAX", "2 i64::MIN"], "EINVAL for too long is newer than Linux 6.1"),
    ("epoll_wait", &["0 and 1", "0 and 2"], "that the descriptor comes first is newer than Linux 6.1"),
    ("epoll_pwait", &["0 and 1", "0 and 2"], "that the descriptor comes first is newer than Linux 6.1"),
    ("epoll_pwait2", &["0 and 1", "0 and 2"], "that the descriptor comes first is newer than Linux 6.1"),
    ("select", &["0 i32::MAX"], "Linux stops at the size of its table of descriptors, which grows in steps"),
    (
        "pselect6",
        &["0 i32::MAX"],
        "Linux stops at the size of its table of descriptors, which grows in steps",
    ),
    ("pidfd_open", &["0 good", "0 with high bits", "1 good"], "process 1 of a sandbox is the kernel's own"),
    ("fcntl_setown", &["2 -1"], "process 1 of a sandbox is the kernel's own"),
    ("sendto", &["1 crossing"], "a sandbox sends what there is before the fault"),
    ("clock_nanosleep", &["0 i32::MIN", "0 and 2"], "a sandbox has no sleeps by processor time"),
    ("timer_create", &["0 and 2"], "Linux writes the number before there is a timer"),
];

/// Calls that get no bad input here, with the reason.
pub const LEFT_OUT: &[(&[&str], &str)] = &[
    (&["exit", "exit_group", "rt_sigreturn", "pause", "rt_sigsuspend"], "does not return"),
    (&["fork", "vfork", "clone"], "makes a process"),
    (
        &["kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"],
        "a wrong number is another process",
    ),
    (
        &["setpriority", "ioprio_set", "setpgid", "migrate_pages", "move_pages"],
        "a wrong number is another process",
    ),
    (&["sethostname", "clock_settime", "sync"], "changes the machine"),
    (
        &["brk", "pkey_alloc", "msgget", "set_mempolicy_home_node", "umask", "alarm", "restart_syscall"],
        "has no bad input",
    ),
    (&["getpid", "getppid", "gettid", "getpgrp", "setsid", "sched_yield", "munlockall"], "has no arguments"),
    (&["getuid", "geteuid", "getgid", "getegid", "inotify_init"], "has no arguments"),
    (&["rseq"], "the C library has made it already: a check of its own has what is left"),
    (&["setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"], "every number is good"),
    (&["setfsuid", "setfsgid"], "every number is good"),
    (&["fchmodat2"], "newer than Linux 6.1"),
];
