//! Every system call of Linux x86-64: who serves it, and how completely.

use lg_abi::raw::general as linux;

use super::Ctx;
use super::{
    event, exec, fd, file_lock, futex, identity, inotify, io, ipc, kcmp, lock, memory, mempolicy, message,
    mqueue, path, pidfd, poll, prctl, priority, process, random, rseq, schedule, signal, signalfd, socket,
    sockopt, stat, system, time, timer, xattr,
};
use crate::task::SysResult;
use ArgKind::{Fd, Flags, Int, Len, Octal, Path, Pointer, Signal};
use Support::{Absent, Full, Partial};

/// How an argument is shown in the log of system calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArgKind {
    /// A descriptor.
    Fd,
    /// A 32-bit number.
    Int,
    /// A 64-bit length or offset.
    Len,
    /// A string in memory.
    Path,
    /// An address.
    Pointer,
    /// A set of bits.
    Flags,
    /// Permission bits.
    Octal,
    /// A signal number.
    Signal,
}

/// How much of a call there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// All that programs can tell from Linux on one processor.
    Full,
    /// With the exceptions named.
    Partial(&'static str),
    /// None: it answers ENOSYS, for the reason named.
    Absent(&'static str),
}

/// Serves a call; gets the six argument registers as they are.
pub type Handler = fn(&mut Ctx<'_>, [u64; 6]) -> SysResult;

/// A system call.
pub struct Row {
    /// Its number in `rax`.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// How its arguments are shown.
    pub args: &'static [ArgKind],
    /// How much of it there is.
    pub support: Support,
    /// Who serves it, if it is not absent.
    pub handler: Option<Handler>,
}

/// Returns the row of a number.
pub fn row(number: u64) -> Option<&'static Row> {
    let number = u32::try_from(number).ok()?;
    TABLE.binary_search_by_key(&number, |row| row.number).ok().and_then(|at| TABLE.get(at))
}

/// Lists calls: the name, the constant of its number, its arguments, how much of it there is, and who serves it.
macro_rules! table {
    ($($name:ident $number:ident [$($arg:ident)*] $support:expr $(=> $handler:path)?;)*) => {
        /// All calls, in the order of their numbers.
        pub static TABLE: &[Row] = &[$(Row {
            number: linux::$number,
            name: stringify!($name),
            args: &[$($arg),*],
            support: $support,
            handler: table!(@handler $($handler)?),
        },)*];
    };
    (@handler) => { None };
    (@handler $handler:path) => { Some($handler) };
}

table! {
    read __NR_read [Fd Pointer Len] Full => io::sys_read;
    write __NR_write [Fd Pointer Len] Full => io::sys_write;
    open __NR_open [Path Flags Octal] Full => path::sys_open;
    close __NR_close [Fd] Full => fd::sys_close;
    stat __NR_stat [Path Pointer] Full => stat::sys_stat;
    fstat __NR_fstat [Fd Pointer] Full => stat::sys_fstat;
    lstat __NR_lstat [Path Pointer] Full => stat::sys_lstat;
    poll __NR_poll [Pointer Int Int] Full => poll::sys_poll;
    lseek __NR_lseek [Fd Len Int] Full => io::sys_lseek;
    mmap __NR_mmap [Pointer Len Flags Flags Fd Flags] Partial("no huge pages, no MAP_SYNC") => memory::sys_mmap;
    mprotect __NR_mprotect [Pointer Len Flags] Full => memory::sys_mprotect;
    munmap __NR_munmap [Pointer Len] Full => memory::sys_munmap;
    brk __NR_brk [Pointer] Full => memory::sys_brk;
    rt_sigaction __NR_rt_sigaction [Signal Pointer Pointer] Full => signal::sys_rt_sigaction;
    rt_sigprocmask __NR_rt_sigprocmask [Int Pointer Pointer] Full => signal::sys_rt_sigprocmask;
    rt_sigreturn __NR_rt_sigreturn [] Full => signal::sys_rt_sigreturn;
    ioctl __NR_ioctl [Fd Flags Pointer] Full => fd::sys_ioctl;
    pread64 __NR_pread64 [Fd Pointer Len Len] Full => io::sys_pread64;
    pwrite64 __NR_pwrite64 [Fd Pointer Len Len] Full => io::sys_pwrite64;
    readv __NR_readv [Fd Pointer Int] Full => io::sys_readv;
    writev __NR_writev [Fd Pointer Int] Full => io::sys_writev;
    access __NR_access [Path Octal] Full => path::sys_access;
    pipe __NR_pipe [Pointer] Full => fd::sys_pipe;
    select __NR_select [Int Pointer Pointer Pointer Pointer] Full => poll::sys_select;
    sched_yield __NR_sched_yield [] Full => schedule::sys_sched_yield;
    mremap __NR_mremap [Pointer Len Len Flags Pointer] Full => memory::sys_mremap;
    msync __NR_msync [Pointer Len Flags] Full => memory::sys_msync;
    mincore __NR_mincore [Pointer Len Pointer] Full => memory::sys_mincore;
    madvise __NR_madvise [Pointer Len Int] Partial("hints are without effect") => memory::sys_madvise;
    shmget __NR_shmget [Int Len Octal] Full => ipc::sys_shmget;
    shmat __NR_shmat [Int Pointer Flags] Full => ipc::sys_shmat;
    shmctl __NR_shmctl [Int Int Pointer] Full => ipc::sys_shmctl;
    dup __NR_dup [Fd] Full => fd::sys_dup;
    dup2 __NR_dup2 [Fd Fd] Full => fd::sys_dup2;
    pause __NR_pause [] Full => signal::sys_pause;
    nanosleep __NR_nanosleep [Pointer Pointer] Full => time::sys_nanosleep;
    getitimer __NR_getitimer [Int Pointer] Full => time::sys_getitimer;
    alarm __NR_alarm [Int] Full => time::sys_alarm;
    setitimer __NR_setitimer [Int Pointer Pointer] Partial("ITIMER_VIRTUAL and ITIMER_PROF are checked at the end of a time slice") => time::sys_setitimer;
    getpid __NR_getpid [] Full => process::sys_getpid;
    sendfile __NR_sendfile [Fd Fd Pointer Len] Full => io::sys_sendfile;
    socket __NR_socket [Int Flags Int] Partial("AF_UNIX, AF_INET and AF_INET6 over the sandbox's own loopback, and AF_NETLINK to ask for its link, addresses and routes; no raw sockets (EPERM), no other netlink families (EPROTONOSUPPORT), no other families (EAFNOSUPPORT)") => socket::sys_socket;
    connect __NR_connect [Fd Pointer Int] Partial("beyond the loopback: ENETUNREACH") => socket::sys_connect;
    accept __NR_accept [Fd Pointer Pointer] Full => socket::sys_accept;
    sendto __NR_sendto [Fd Pointer Len Flags Pointer Int] Partial("no urgent data (MSG_OOB)") => message::sys_sendto;
    recvfrom __NR_recvfrom [Fd Pointer Len Flags Pointer Pointer] Partial("no urgent data (MSG_OOB); MSG_TRUNC of a stream and MSG_WAITALL with MSG_PEEK are without effect") => message::sys_recvfrom;
    sendmsg __NR_sendmsg [Fd Pointer Flags] Partial("as sendto; control messages of AF_UNIX only: SCM_RIGHTS, SCM_CREDENTIALS") => message::sys_sendmsg;
    recvmsg __NR_recvmsg [Fd Pointer Flags] Partial("as recvfrom; control messages of AF_UNIX only") => message::sys_recvmsg;
    shutdown __NR_shutdown [Fd Int] Full => socket::sys_shutdown;
    bind __NR_bind [Fd Pointer Int] Partial("a port is free again as soon as its sockets are closed; no names in host directories (EPERM)") => socket::sys_bind;
    listen __NR_listen [Fd Int] Full => socket::sys_listen;
    getsockname __NR_getsockname [Fd Pointer Pointer] Full => socket::sys_getsockname;
    getpeername __NR_getpeername [Fd Pointer Pointer] Full => socket::sys_getpeername;
    socketpair __NR_socketpair [Int Flags Int Pointer] Full => socket::sys_socketpair;
    setsockopt __NR_setsockopt [Fd Int Int Pointer Int] Partial("what has no meaning on a loopback is kept and told again; time stamps and filters: ENOPROTOOPT; joining a multicast group: ENODEV, even over the loopback") => sockopt::sys_setsockopt;
    getsockopt __NR_getsockopt [Fd Int Int Pointer Pointer] Partial("as setsockopt; TCP_INFO tells the state, and of a socket that listens its connections") => sockopt::sys_getsockopt;
    clone __NR_clone [Flags Pointer Pointer Pointer Pointer] Partial("no namespaces (EPERM)") => process::sys_clone;
    fork __NR_fork [] Full => process::sys_fork;
    vfork __NR_vfork [] Full => process::sys_vfork;
    execve __NR_execve [Path Pointer Pointer] Partial("set-user-id bits give no rights; a thread other than the first keeps its number") => exec::sys_execve;
    exit __NR_exit [Int] Full => process::sys_exit;
    wait4 __NR_wait4 [Int Pointer Flags Pointer] Full => process::sys_wait4;
    kill __NR_kill [Int Signal] Partial("process 1, which takes in orphans, is the kernel's own and can not be named (ESRCH)") => signal::sys_kill;
    uname __NR_uname [] Full => system::sys_uname;
    semget __NR_semget [Int Int Octal] Partial("256,000 semaphores in all") => ipc::sys_semget;
    semop __NR_semop [Int Pointer Int] Partial("what SEM_UNDO keeps belongs to the process, with or without CLONE_SYSVSEM") => ipc::sys_semop;
    semctl __NR_semctl [Int Int Int Pointer] Full => ipc::sys_semctl;
    shmdt __NR_shmdt [Pointer] Full => ipc::sys_shmdt;
    msgget __NR_msgget [Int Octal] Full => ipc::sys_msgget;
    msgsnd __NR_msgsnd [Int Pointer Len Flags] Partial("16 MiB of messages in all, beyond which ENOMEM") => ipc::sys_msgsnd;
    msgrcv __NR_msgrcv [Int Pointer Len Len Flags] Full => ipc::sys_msgrcv;
    msgctl __NR_msgctl [Int Int Pointer] Full => ipc::sys_msgctl;
    fcntl __NR_fcntl [Fd Int Flags] Partial("no leases, no directory notices and no write hints (F_SETLEASE, F_NOTIFY, F_SET_RW_HINT: EINVAL); O_ASYNC and owners are kept and send no signals") => fd::sys_fcntl;
    flock __NR_flock [Fd Flags] Full => file_lock::sys_flock;
    fsync __NR_fsync [Fd] Full => fd::sys_fsync;
    fdatasync __NR_fdatasync [Fd] Full => fd::sys_fdatasync;
    truncate __NR_truncate [Path Len] Full => stat::sys_truncate;
    ftruncate __NR_ftruncate [Fd Len] Full => stat::sys_ftruncate;
    getdents __NR_getdents [Fd Pointer Len] Full => path::sys_getdents;
    getcwd __NR_getcwd [Pointer Len] Full => path::sys_getcwd;
    chdir __NR_chdir [Path] Full => path::sys_chdir;
    fchdir __NR_fchdir [Fd] Full => path::sys_fchdir;
    rename __NR_rename [Path Path] Full => path::sys_rename;
    mkdir __NR_mkdir [Path Octal] Full => path::sys_mkdir;
    rmdir __NR_rmdir [Path] Full => path::sys_rmdir;
    creat __NR_creat [Path Octal] Full => path::sys_creat;
    link __NR_link [Path Path] Full => path::sys_link;
    unlink __NR_unlink [Path] Full => path::sys_unlink;
    symlink __NR_symlink [Path Path] Full => path::sys_symlink;
    readlink __NR_readlink [Path Pointer Len] Full => path::sys_readlink;
    chmod __NR_chmod [Path Octal] Full => stat::sys_chmod;
    fchmod __NR_fchmod [Fd Octal] Full => stat::sys_fchmod;
    chown __NR_chown [Path Int Int] Full => stat::sys_chown;
    fchown __NR_fchown [Fd Int Int] Full => stat::sys_fchown;
    lchown __NR_lchown [Path Int Int] Full => stat::sys_lchown;
    umask __NR_umask [Octal] Full => path::sys_umask;
    gettimeofday __NR_gettimeofday [Pointer Pointer] Full => time::sys_gettimeofday;
    getrlimit __NR_getrlimit [Int Pointer] Full => system::sys_getrlimit;
    getrusage __NR_getrusage [Int Pointer] Partial("all processor time counts as user time") => system::sys_getrusage;
    sysinfo __NR_sysinfo [Pointer] Full => system::sys_sysinfo;
    times __NR_times [Pointer] Partial("all processor time counts as user time") => time::sys_times;
    ptrace __NR_ptrace [] Absent("no tracing");
    getuid __NR_getuid [] Full => identity::sys_getuid;
    syslog __NR_syslog [] Absent("belongs to the host");
    getgid __NR_getgid [] Full => identity::sys_getgid;
    setuid __NR_setuid [] Full => identity::sys_setuid;
    setgid __NR_setgid [] Full => identity::sys_setgid;
    geteuid __NR_geteuid [] Full => identity::sys_geteuid;
    getegid __NR_getegid [] Full => identity::sys_getegid;
    setpgid __NR_setpgid [Int Int] Full => process::sys_setpgid;
    getppid __NR_getppid [] Full => process::sys_getppid;
    getpgrp __NR_getpgrp [] Full => process::sys_getpgrp;
    setsid __NR_setsid [] Full => process::sys_setsid;
    setreuid __NR_setreuid [] Full => identity::sys_setreuid;
    setregid __NR_setregid [] Full => identity::sys_setregid;
    getgroups __NR_getgroups [] Full => identity::sys_getgroups;
    setgroups __NR_setgroups [] Full => identity::sys_setgroups;
    setresuid __NR_setresuid [] Full => identity::sys_setresuid;
    getresuid __NR_getresuid [] Full => identity::sys_getresuid;
    setresgid __NR_setresgid [] Full => identity::sys_setresgid;
    getresgid __NR_getresgid [] Full => identity::sys_getresgid;
    getpgid __NR_getpgid [Int] Full => process::sys_getpgid;
    setfsuid __NR_setfsuid [] Full => identity::sys_setfsuid;
    setfsgid __NR_setfsgid [] Full => identity::sys_setfsgid;
    getsid __NR_getsid [Int] Full => process::sys_getsid;
    capget __NR_capget [] Full => identity::sys_capget;
    capset __NR_capset [Pointer Pointer] Full => identity::sys_capset;
    rt_sigpending __NR_rt_sigpending [] Full => signal::sys_rt_sigpending;
    rt_sigtimedwait __NR_rt_sigtimedwait [Pointer Pointer Pointer Len] Full => signal::sys_rt_sigtimedwait;
    rt_sigqueueinfo __NR_rt_sigqueueinfo [] Full => signal::sys_rt_sigqueueinfo;
    rt_sigsuspend __NR_rt_sigsuspend [Pointer Len] Full => signal::sys_rt_sigsuspend;
    sigaltstack __NR_sigaltstack [Pointer Pointer] Full => signal::sys_sigaltstack;
    utime __NR_utime [] Full => stat::sys_utime;
    mknod __NR_mknod [] Full => path::sys_mknod;
    uselib __NR_uselib [] Absent("obsolete; absent in Linux too");
    personality __NR_personality [Flags] Partial("kept and told; ADDR_NO_RANDOMIZE and the machine name of PER_LINUX32 have an effect, other flags none") => system::sys_personality;
    ustat __NR_ustat [] Absent("obsolete; absent in Linux too");
    statfs __NR_statfs [Path Pointer] Full => stat::sys_statfs;
    fstatfs __NR_fstatfs [Fd Pointer] Full => stat::sys_fstatfs;
    sysfs __NR_sysfs [] Absent("obsolete; absent in Linux too");
    getpriority __NR_getpriority [Int Int] Full => priority::sys_getpriority;
    setpriority __NR_setpriority [Int Int Int] Partial("kept and told; every task gets the same turns") => priority::sys_setpriority;
    sched_setparam __NR_sched_setparam [] Full => schedule::sys_sched_setparam;
    sched_getparam __NR_sched_getparam [] Full => schedule::sys_sched_getparam;
    sched_setscheduler __NR_sched_setscheduler [Int Int Pointer] Partial("SCHED_OTHER, SCHED_BATCH and SCHED_IDLE, which are kept and all the same here; no real-time policies (EPERM)") => schedule::sys_sched_setscheduler;
    sched_getscheduler __NR_sched_getscheduler [] Full => schedule::sys_sched_getscheduler;
    sched_get_priority_max __NR_sched_get_priority_max [] Full => schedule::sys_sched_get_priority_max;
    sched_get_priority_min __NR_sched_get_priority_min [] Full => schedule::sys_sched_get_priority_min;
    sched_rr_get_interval __NR_sched_rr_get_interval [] Full => schedule::sys_sched_rr_get_interval;
    mlock __NR_mlock [Pointer Len] Full => lock::sys_mlock;
    munlock __NR_munlock [Pointer Len] Full => lock::sys_munlock;
    mlockall __NR_mlockall [Flags] Full => lock::sys_mlockall;
    munlockall __NR_munlockall [] Full => lock::sys_munlockall;
    vhangup __NR_vhangup [] Absent("belongs to the host");
    modify_ldt __NR_modify_ldt [] Absent("obsolete; absent in Linux too");
    pivot_root __NR_pivot_root [] Absent("mounts are fixed when the sandbox starts");
    _sysctl __NR__sysctl [] Absent("obsolete; absent in Linux too");
    prctl __NR_prctl [Int Flags Flags] Partial("names, dumpable, no_new_privs, subreaper, parent death signal, capability sets, securebits, timer slack, huge pages, TSC; names of memory areas are checked and not shown; no seccomp, no speculation control") => prctl::sys_prctl;
    arch_prctl __NR_arch_prctl [Flags Pointer] Partial("FS and GS bases only") => system::sys_arch_prctl;
    adjtimex __NR_adjtimex [] Absent("belongs to the host");
    setrlimit __NR_setrlimit [Int Pointer] Full => system::sys_setrlimit;
    chroot __NR_chroot [] Full => path::sys_chroot;
    sync __NR_sync [] Full => fd::sys_sync;
    acct __NR_acct [] Absent("belongs to the host");
    settimeofday __NR_settimeofday [] Absent("belongs to the host");
    mount __NR_mount [] Absent("mounts are fixed when the sandbox starts");
    umount2 __NR_umount2 [] Absent("mounts are fixed when the sandbox starts");
    swapon __NR_swapon [] Absent("belongs to the host");
    swapoff __NR_swapoff [] Absent("belongs to the host");
    reboot __NR_reboot [] Absent("belongs to the host");
    sethostname __NR_sethostname [] Full => system::sys_sethostname;
    setdomainname __NR_setdomainname [] Absent("belongs to the host");
    iopl __NR_iopl [] Absent("belongs to the host");
    ioperm __NR_ioperm [] Absent("belongs to the host");
    create_module __NR_create_module [] Absent("belongs to the host");
    init_module __NR_init_module [] Absent("belongs to the host");
    delete_module __NR_delete_module [] Absent("belongs to the host");
    get_kernel_syms __NR_get_kernel_syms [] Absent("belongs to the host");
    query_module __NR_query_module [] Absent("belongs to the host");
    quotactl __NR_quotactl [] Absent("belongs to the host");
    nfsservctl __NR_nfsservctl [] Absent("belongs to the host");
    getpmsg __NR_getpmsg [] Absent("obsolete; absent in Linux too");
    putpmsg __NR_putpmsg [] Absent("obsolete; absent in Linux too");
    afs_syscall __NR_afs_syscall [] Absent("obsolete; absent in Linux too");
    tuxcall __NR_tuxcall [] Absent("obsolete; absent in Linux too");
    security __NR_security [] Absent("obsolete; absent in Linux too");
    gettid __NR_gettid [] Full => process::sys_gettid;
    readahead __NR_readahead [] Full => fd::sys_readahead;
    setxattr __NR_setxattr [Path Pointer Pointer Len Flags] Partial("user, trusted and security attributes of files in memory and of the image; other file systems and namespaces: EOPNOTSUPP") => xattr::sys_setxattr;
    lsetxattr __NR_lsetxattr [Path Pointer Pointer Len Flags] Partial("user, trusted and security attributes of files in memory and of the image; other file systems and namespaces: EOPNOTSUPP") => xattr::sys_lsetxattr;
    fsetxattr __NR_fsetxattr [Fd Pointer Pointer Len Flags] Partial("user, trusted and security attributes of files in memory and of the image; other file systems and namespaces: EOPNOTSUPP") => xattr::sys_fsetxattr;
    getxattr __NR_getxattr [Path Pointer Pointer Len] Partial("as setxattr; those that the image's own files have are not shown") => xattr::sys_getxattr;
    lgetxattr __NR_lgetxattr [Path Pointer Pointer Len] Partial("as setxattr; those that the image's own files have are not shown") => xattr::sys_lgetxattr;
    fgetxattr __NR_fgetxattr [Fd Pointer Pointer Len] Partial("as setxattr; those that the image's own files have are not shown") => xattr::sys_fgetxattr;
    listxattr __NR_listxattr [Path Pointer Len] Partial("as getxattr") => xattr::sys_listxattr;
    llistxattr __NR_llistxattr [Path Pointer Len] Partial("as getxattr") => xattr::sys_llistxattr;
    flistxattr __NR_flistxattr [Fd Pointer Len] Partial("as getxattr") => xattr::sys_flistxattr;
    removexattr __NR_removexattr [Path Pointer] Partial("as setxattr") => xattr::sys_removexattr;
    lremovexattr __NR_lremovexattr [Path Pointer] Partial("as setxattr") => xattr::sys_lremovexattr;
    fremovexattr __NR_fremovexattr [Fd Pointer] Partial("as setxattr") => xattr::sys_fremovexattr;
    tkill __NR_tkill [Int Signal] Full => signal::sys_tkill;
    time __NR_time [] Full => time::sys_time;
    futex __NR_futex [Pointer Int Int Pointer Pointer Int] Partial("no priority inheritance (FUTEX_LOCK_PI and its family: ENOSYS)") => futex::sys_futex;
    sched_setaffinity __NR_sched_setaffinity [] Partial("there is one processor") => schedule::sys_sched_setaffinity;
    sched_getaffinity __NR_sched_getaffinity [] Full => schedule::sys_sched_getaffinity;
    set_thread_area __NR_set_thread_area [] Absent("obsolete; absent in Linux too");
    io_setup __NR_io_setup [] Absent("asynchronous I/O is refused; programs fall back on threads");
    io_destroy __NR_io_destroy [] Absent("asynchronous I/O is refused; programs fall back on threads");
    io_getevents __NR_io_getevents [] Absent("asynchronous I/O is refused; programs fall back on threads");
    io_submit __NR_io_submit [] Absent("asynchronous I/O is refused; programs fall back on threads");
    io_cancel __NR_io_cancel [] Absent("asynchronous I/O is refused; programs fall back on threads");
    get_thread_area __NR_get_thread_area [] Absent("obsolete; absent in Linux too");
    lookup_dcookie __NR_lookup_dcookie [] Absent("belongs to the host");
    epoll_create __NR_epoll_create [] Full => event::sys_epoll_create;
    epoll_ctl_old __NR_epoll_ctl_old [] Absent("obsolete; absent in Linux too");
    epoll_wait_old __NR_epoll_wait_old [] Absent("obsolete; absent in Linux too");
    remap_file_pages __NR_remap_file_pages [] Absent("obsolete; absent in Linux too");
    getdents64 __NR_getdents64 [Fd Pointer Len] Full => path::sys_getdents64;
    set_tid_address __NR_set_tid_address [Pointer] Full => process::sys_set_tid_address;
    restart_syscall __NR_restart_syscall [] Full => signal::sys_restart_syscall;
    semtimedop __NR_semtimedop [Int Pointer Int Pointer] Partial("as semop") => ipc::sys_semtimedop;
    fadvise64 __NR_fadvise64 [Fd Len Len Int] Full => fd::sys_fadvise64;
    timer_create __NR_timer_create [Int Pointer Pointer] Partial("timers of processor time are checked at the end of a time slice; no clocks of other threads and processes") => timer::sys_timer_create;
    timer_settime __NR_timer_settime [Int Flags Pointer Pointer] Full => timer::sys_timer_settime;
    timer_gettime __NR_timer_gettime [Int Pointer] Full => timer::sys_timer_gettime;
    timer_getoverrun __NR_timer_getoverrun [Int] Full => timer::sys_timer_getoverrun;
    timer_delete __NR_timer_delete [Int] Full => timer::sys_timer_delete;
    clock_settime __NR_clock_settime [] Full => time::sys_clock_settime;
    clock_gettime __NR_clock_gettime [Int Pointer] Full => time::sys_clock_gettime;
    clock_getres __NR_clock_getres [Int Pointer] Full => time::sys_clock_getres;
    clock_nanosleep __NR_clock_nanosleep [Int Int Pointer Pointer] Full => time::sys_clock_nanosleep;
    exit_group __NR_exit_group [Int] Full => process::sys_exit_group;
    epoll_wait __NR_epoll_wait [Fd Pointer Int Int] Full => event::sys_epoll_wait;
    epoll_ctl __NR_epoll_ctl [Fd Int Fd Pointer] Full => event::sys_epoll_ctl;
    tgkill __NR_tgkill [Int Int Signal] Full => signal::sys_tgkill;
    utimes __NR_utimes [] Full => stat::sys_utimes;
    vserver __NR_vserver [] Absent("obsolete; absent in Linux too");
    mbind __NR_mbind [Pointer Len Int Pointer Len Flags] Partial("one memory node; a policy is checked and not kept") => mempolicy::sys_mbind;
    set_mempolicy __NR_set_mempolicy [Int Pointer Len] Full => mempolicy::sys_set_mempolicy;
    get_mempolicy __NR_get_mempolicy [Pointer Pointer Len Pointer Flags] Partial("areas have no policies of their own") => mempolicy::sys_get_mempolicy;
    mq_open __NR_mq_open [Path Flags Octal Pointer] Full => mqueue::sys_mq_open;
    mq_unlink __NR_mq_unlink [Path] Full => mqueue::sys_mq_unlink;
    mq_timedsend __NR_mq_timedsend [Fd Pointer Len Int Pointer] Partial("16 MiB of messages in all, beyond which ENOMEM") => mqueue::sys_mq_timedsend;
    mq_timedreceive __NR_mq_timedreceive [Fd Pointer Len Pointer Pointer] Full => mqueue::sys_mq_timedreceive;
    mq_notify __NR_mq_notify [Fd Pointer] Full => mqueue::sys_mq_notify;
    mq_getsetattr __NR_mq_getsetattr [Fd Pointer Pointer] Full => mqueue::sys_mq_getsetattr;
    kexec_load __NR_kexec_load [] Absent("belongs to the host");
    waitid __NR_waitid [Int Int Pointer Flags Pointer] Full => process::sys_waitid;
    add_key __NR_add_key [] Absent("no keyrings");
    request_key __NR_request_key [] Absent("no keyrings");
    keyctl __NR_keyctl [] Absent("no keyrings");
    ioprio_set __NR_ioprio_set [Int Int Flags] Partial("kept and told") => priority::sys_ioprio_set;
    ioprio_get __NR_ioprio_get [Int Int] Full => priority::sys_ioprio_get;
    inotify_init __NR_inotify_init [] Full => inotify::sys_inotify_init;
    inotify_add_watch __NR_inotify_add_watch [Fd Path Flags] Partial("changes that the host makes to its directories, and /proc, are not watched; 16 MiB of events in all, beyond which a queue overflows") => inotify::sys_inotify_add_watch;
    inotify_rm_watch __NR_inotify_rm_watch [Fd Int] Full => inotify::sys_inotify_rm_watch;
    migrate_pages __NR_migrate_pages [Int Len Pointer Pointer] Full => mempolicy::sys_migrate_pages;
    openat __NR_openat [Fd Path Flags Octal] Full => path::sys_openat;
    mkdirat __NR_mkdirat [Fd Path Octal] Full => path::sys_mkdirat;
    mknodat __NR_mknodat [Fd Path Octal Flags] Full => path::sys_mknodat;
    fchownat __NR_fchownat [Fd Path Int Int Flags] Full => stat::sys_fchownat;
    futimesat __NR_futimesat [] Full => stat::sys_futimesat;
    newfstatat __NR_newfstatat [Fd Path Pointer Flags] Full => stat::sys_newfstatat;
    unlinkat __NR_unlinkat [Fd Path Flags] Full => path::sys_unlinkat;
    renameat __NR_renameat [Fd Path Fd Path] Full => path::sys_renameat;
    linkat __NR_linkat [Fd Path Fd Path Flags] Full => path::sys_linkat;
    symlinkat __NR_symlinkat [Path Fd Path] Full => path::sys_symlinkat;
    readlinkat __NR_readlinkat [Fd Path Pointer Len] Full => path::sys_readlinkat;
    fchmodat __NR_fchmodat [Fd Path Octal] Full => stat::sys_fchmodat;
    faccessat __NR_faccessat [Fd Path Octal] Full => path::sys_faccessat;
    pselect6 __NR_pselect6 [Int Pointer Pointer Pointer Pointer Pointer] Full => poll::sys_pselect6;
    ppoll __NR_ppoll [Pointer Int Pointer Pointer] Full => poll::sys_ppoll;
    unshare __NR_unshare [] Absent("a sandbox has no namespaces of its own");
    set_robust_list __NR_set_robust_list [Pointer Len] Full => futex::sys_set_robust_list;
    get_robust_list __NR_get_robust_list [] Full => futex::sys_get_robust_list;
    splice __NR_splice [] Full => io::sys_splice;
    tee __NR_tee [] Full => io::sys_tee;
    sync_file_range __NR_sync_file_range [] Full => fd::sys_sync_file_range;
    vmsplice __NR_vmsplice [] Full => io::sys_vmsplice;
    move_pages __NR_move_pages [Int Len Pointer Pointer Pointer Flags] Full => mempolicy::sys_move_pages;
    utimensat __NR_utimensat [Fd Path Pointer Flags] Full => stat::sys_utimensat;
    epoll_pwait __NR_epoll_pwait [Fd Pointer Int Int Pointer] Full => event::sys_epoll_pwait;
    signalfd __NR_signalfd [Fd Pointer Len] Full => signalfd::sys_signalfd;
    timerfd_create __NR_timerfd_create [] Full => event::sys_timerfd_create;
    eventfd __NR_eventfd [Int] Full => event::sys_eventfd;
    fallocate __NR_fallocate [Fd Int Len Len] Full => fd::sys_fallocate;
    timerfd_settime __NR_timerfd_settime [] Full => event::sys_timerfd_settime;
    timerfd_gettime __NR_timerfd_gettime [] Full => event::sys_timerfd_gettime;
    accept4 __NR_accept4 [Fd Pointer Pointer Flags] Full => socket::sys_accept4;
    signalfd4 __NR_signalfd4 [Fd Pointer Len Flags] Full => signalfd::sys_signalfd4;
    eventfd2 __NR_eventfd2 [Int Flags] Full => event::sys_eventfd2;
    epoll_create1 __NR_epoll_create1 [Flags] Full => event::sys_epoll_create1;
    dup3 __NR_dup3 [Fd Fd Flags] Full => fd::sys_dup3;
    pipe2 __NR_pipe2 [Pointer Flags] Full => fd::sys_pipe2;
    inotify_init1 __NR_inotify_init1 [Flags] Full => inotify::sys_inotify_init1;
    preadv __NR_preadv [Fd Pointer Int Len] Full => io::sys_preadv;
    pwritev __NR_pwritev [Fd Pointer Int Len] Full => io::sys_pwritev;
    rt_tgsigqueueinfo __NR_rt_tgsigqueueinfo [] Full => signal::sys_rt_tgsigqueueinfo;
    perf_event_open __NR_perf_event_open [] Absent("belongs to the host");
    recvmmsg __NR_recvmmsg [Fd Pointer Int Flags Pointer] Partial("as recvmsg") => message::sys_recvmmsg;
    fanotify_init __NR_fanotify_init [] Absent("no fanotify");
    fanotify_mark __NR_fanotify_mark [] Absent("no fanotify");
    prlimit64 __NR_prlimit64 [Int Int Pointer Pointer] Full => system::sys_prlimit64;
    name_to_handle_at __NR_name_to_handle_at [] Absent("no file handles");
    open_by_handle_at __NR_open_by_handle_at [] Absent("no file handles");
    clock_adjtime __NR_clock_adjtime [] Absent("belongs to the host");
    syncfs __NR_syncfs [] Full => fd::sys_syncfs;
    sendmmsg __NR_sendmmsg [Fd Pointer Int Flags] Partial("as sendmsg") => message::sys_sendmmsg;
    setns __NR_setns [] Absent("a sandbox has no namespaces of its own");
    getcpu __NR_getcpu [] Full => schedule::sys_getcpu;
    process_vm_readv __NR_process_vm_readv [] Absent("no tracing");
    process_vm_writev __NR_process_vm_writev [] Absent("no tracing");
    kcmp __NR_kcmp [Int Int Int Len Len] Full => kcmp::sys_kcmp;
    finit_module __NR_finit_module [] Absent("belongs to the host");
    sched_setattr __NR_sched_setattr [Int Pointer Flags] Partial("as sched_setscheduler and setpriority; no SCHED_DEADLINE (EPERM), no utilization clamping (EOPNOTSUPP)") => schedule::sys_sched_setattr;
    sched_getattr __NR_sched_getattr [Int Pointer Int Flags] Full => schedule::sys_sched_getattr;
    renameat2 __NR_renameat2 [Fd Path Fd Path Flags] Full => path::sys_renameat2;
    seccomp __NR_seccomp [] Absent("no seccomp inside a sandbox yet");
    getrandom __NR_getrandom [Pointer Len Flags] Full => random::sys_getrandom;
    memfd_create __NR_memfd_create [Path Flags] Full => fd::sys_memfd_create;
    kexec_file_load __NR_kexec_file_load [] Absent("belongs to the host");
    bpf __NR_bpf [] Absent("belongs to the host");
    execveat __NR_execveat [Fd Path Pointer Pointer Flags] Partial("as execve") => exec::sys_execveat;
    userfaultfd __NR_userfaultfd [] Absent("no fault handling in user code");
    membarrier __NR_membarrier [] Partial("no MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ and no registration of core serialisation") => memory::sys_membarrier;
    mlock2 __NR_mlock2 [Pointer Len Flags] Full => lock::sys_mlock2;
    copy_file_range __NR_copy_file_range [Fd Pointer Fd Pointer Len Flags] Full => io::sys_copy_file_range;
    preadv2 __NR_preadv2 [] Full => io::sys_preadv2;
    pwritev2 __NR_pwritev2 [] Full => io::sys_pwritev2;
    pkey_mprotect __NR_pkey_mprotect [Pointer Len Flags Int] Partial("as on a machine without protection keys") => memory::sys_pkey_mprotect;
    pkey_alloc __NR_pkey_alloc [Flags Flags] Partial("as on a machine without protection keys: ENOSPC") => memory::sys_pkey_alloc;
    pkey_free __NR_pkey_free [Int] Partial("as on a machine without protection keys: EINVAL") => memory::sys_pkey_free;
    statx __NR_statx [Fd Path Flags Flags Pointer] Full => stat::sys_statx;
    io_pgetevents __NR_io_pgetevents [] Absent("asynchronous I/O is refused; programs fall back on threads");
    rseq __NR_rseq [Pointer Int Flags Int] Full => rseq::sys_rseq;
    uretprobe __NR_uretprobe [] Absent("newer than the Linux release that uname shows");
    pidfd_send_signal __NR_pidfd_send_signal [Fd Signal Pointer Flags] Full => pidfd::sys_pidfd_send_signal;
    io_uring_setup __NR_io_uring_setup [] Absent("asynchronous I/O is refused; programs fall back on threads");
    io_uring_enter __NR_io_uring_enter [] Absent("asynchronous I/O is refused; programs fall back on threads");
    io_uring_register __NR_io_uring_register [] Absent("asynchronous I/O is refused; programs fall back on threads");
    open_tree __NR_open_tree [] Absent("mounts are fixed when the sandbox starts");
    move_mount __NR_move_mount [] Absent("mounts are fixed when the sandbox starts");
    fsopen __NR_fsopen [] Absent("mounts are fixed when the sandbox starts");
    fsconfig __NR_fsconfig [] Absent("mounts are fixed when the sandbox starts");
    fsmount __NR_fsmount [] Absent("mounts are fixed when the sandbox starts");
    fspick __NR_fspick [] Absent("mounts are fixed when the sandbox starts");
    pidfd_open __NR_pidfd_open [Int Flags] Full => pidfd::sys_pidfd_open;
    clone3 __NR_clone3 [Pointer Len] Partial("no set_tid, no namespaces (EPERM)") => process::sys_clone3;
    close_range __NR_close_range [Fd Fd Flags] Full => fd::sys_close_range;
    openat2 __NR_openat2 [Fd Path Pointer Len] Full => path::sys_openat2;
    pidfd_getfd __NR_pidfd_getfd [Fd Fd Flags] Full => pidfd::sys_pidfd_getfd;
    faccessat2 __NR_faccessat2 [Fd Path Octal Flags] Full => path::sys_faccessat2;
    process_madvise __NR_process_madvise [] Absent("hints about the memory of others would be without effect");
    epoll_pwait2 __NR_epoll_pwait2 [] Full => event::sys_epoll_pwait2;
    mount_setattr __NR_mount_setattr [] Absent("mounts are fixed when the sandbox starts");
    quotactl_fd __NR_quotactl_fd [] Absent("belongs to the host");
    landlock_create_ruleset __NR_landlock_create_ruleset [] Absent("no Landlock inside a sandbox");
    landlock_add_rule __NR_landlock_add_rule [] Absent("no Landlock inside a sandbox");
    landlock_restrict_self __NR_landlock_restrict_self [] Absent("no Landlock inside a sandbox");
    memfd_secret __NR_memfd_secret [] Absent("no secret memory");
    process_mrelease __NR_process_mrelease [] Absent("a process that is killed gives its memory back at once");
    futex_waitv __NR_futex_waitv [] Absent("futex is there");
    set_mempolicy_home_node __NR_set_mempolicy_home_node [Pointer Len Int Flags] Partial("areas have no policies of their own") => mempolicy::sys_set_mempolicy_home_node;
    cachestat __NR_cachestat [] Absent("newer than the Linux release that uname shows");
    fchmodat2 __NR_fchmodat2 [Fd Path Octal Flags] Full => stat::sys_fchmodat2;
    map_shadow_stack __NR_map_shadow_stack [] Absent("newer than the Linux release that uname shows");
    futex_wake __NR_futex_wake [] Absent("newer than the Linux release that uname shows");
    futex_wait __NR_futex_wait [] Absent("newer than the Linux release that uname shows");
    futex_requeue __NR_futex_requeue [] Absent("newer than the Linux release that uname shows");
    statmount __NR_statmount [] Absent("mounts are fixed when the sandbox starts");
    listmount __NR_listmount [] Absent("mounts are fixed when the sandbox starts");
    lsm_get_self_attr __NR_lsm_get_self_attr [] Absent("newer than the Linux release that uname shows");
    lsm_set_self_attr __NR_lsm_set_self_attr [] Absent("newer than the Linux release that uname shows");
    lsm_list_modules __NR_lsm_list_modules [] Absent("newer than the Linux release that uname shows");
    mseal __NR_mseal [] Absent("newer than the Linux release that uname shows");
    setxattrat __NR_setxattrat [] Absent("newer than the Linux release that uname shows");
    getxattrat __NR_getxattrat [] Absent("newer than the Linux release that uname shows");
    listxattrat __NR_listxattrat [] Absent("newer than the Linux release that uname shows");
    removexattrat __NR_removexattrat [] Absent("newer than the Linux release that uname shows");
    open_tree_attr __NR_open_tree_attr [] Absent("mounts are fixed when the sandbox starts");
    file_getattr __NR_file_getattr [] Absent("newer than the Linux release that uname shows");
    file_setattr __NR_file_setattr [] Absent("newer than the Linux release that uname shows");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_numbers() {
        assert!(TABLE.is_sorted_by_key(|row| row.number));
    }

    #[test]
    fn a_call_has_a_handler_unless_it_is_absent() {
        for row in TABLE {
            assert_eq!(row.handler.is_none(), matches!(row.support, Absent(_)), "{}", row.name);
        }
    }
}
