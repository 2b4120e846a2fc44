//! Structures that cross between user memory and the kernel.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! user_structs {
    ($($(#[$meta:meta])* $name:ident, $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        #[expect(missing_docs, reason = "the fields have the names of the manual page")]
        pub struct $name {
            $(pub $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
        impl Default for $name {
            fn default() -> $name {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    )*};
}

user_structs! {
    /// `struct timespec` (timespec(3)).
    Timespec, 16 { tv_sec: i64, tv_nsec: i64 }

    /// `struct timeval` (timeval(3)).
    Timeval, 16 { tv_sec: i64, tv_usec: i64 }

    /// `struct itimerspec` (timer_settime(2)).
    Itimerspec, 32 { interval: Timespec, value: Timespec }

    /// `struct itimerval` (setitimer(2)).
    Itimerval, 32 { interval: Timeval, value: Timeval }

    /// `struct tms` (times(2)), in clock ticks of 10 ms.
    Tms, 32 { utime: i64, stime: i64, cutime: i64, cstime: i64 }

    /// `struct stat` (stat(2)).
    Stat, 144 {
        st_dev: u64, st_ino: u64, st_nlink: u64, st_mode: u32, st_uid: u32, st_gid: u32, pad0: u32,
        st_rdev: u64, st_size: i64, st_blksize: i64, st_blocks: i64,
        st_atim: Timespec, st_mtim: Timespec, st_ctim: Timespec, unused: [i64; 3],
    }

    /// `struct statx_timestamp` (statx(2)).
    StatxTimestamp, 16 { tv_sec: i64, tv_nsec: u32, pad: i32 }

    /// `struct statx` (statx(2)).
    Statx, 256 {
        stx_mask: u32, stx_blksize: u32, stx_attributes: u64, stx_nlink: u32, stx_uid: u32, stx_gid: u32,
        stx_mode: u16, pad0: u16, stx_ino: u64, stx_size: u64, stx_blocks: u64, stx_attributes_mask: u64,
        stx_atime: StatxTimestamp, stx_btime: StatxTimestamp, stx_ctime: StatxTimestamp,
        stx_mtime: StatxTimestamp, stx_rdev_major: u32, stx_rdev_minor: u32, stx_dev_major: u32,
        stx_dev_minor: u32, stx_mnt_id: u64, stx_dio_mem_align: u32, stx_dio_offset_align: u32,
        rest: [u64; 12],
    }

    /// `struct statfs` (statfs(2)).
    Statfs, 120 {
        f_type: i64, f_bsize: i64, f_blocks: u64, f_bfree: u64, f_bavail: u64, f_files: u64, f_ffree: u64,
        f_fsid: u64, f_namelen: i64, f_frsize: i64, f_flags: i64, spare: [i64; 4],
    }

    /// `struct iovec` (readv(2)).
    Iovec, 16 { base: u64, len: u64 }

    /// `struct pollfd` (poll(2)).
    PollFd, 8 { fd: i32, events: i16, revents: i16 }

    /// `struct rlimit64` (getrlimit(2)).
    Rlimit, 16 { cur: u64, max: u64 }

    /// `struct rusage` (getrusage(2)).
    Rusage, 144 {
        utime: Timeval, stime: Timeval, maxrss: i64, ixrss: i64, idrss: i64, isrss: i64, minflt: i64,
        majflt: i64, nswap: i64, inblock: i64, oublock: i64, msgsnd: i64, msgrcv: i64, nsignals: i64,
        nvcsw: i64, nivcsw: i64,
    }

    /// `struct new_utsname` (uname(2)): six NUL-terminated strings.
    Utsname, 390 {
        sysname: [u8; 65], nodename: [u8; 65], release: [u8; 65], version: [u8; 65], machine: [u8; 65],
        domainname: [u8; 65],
    }

    /// `struct sysinfo` (sysinfo(2)).
    Sysinfo, 112 {
        uptime: i64, loads: [u64; 3], totalram: u64, freeram: u64, sharedram: u64, bufferram: u64,
        totalswap: u64, freeswap: u64, procs: u16, pad0: u16, pad1: u32, totalhigh: u64, freehigh: u64,
        mem_unit: u32, pad2: u32,
    }

    /// The kernel's `struct sigaction` (rt_sigaction(2)).
    SigAction, 32 { handler: u64, flags: u64, restorer: u64, mask: u64 }

    /// `stack_t` (sigaltstack(2)).
    SigStack, 24 { ss_sp: u64, ss_flags: i32, pad: u32, ss_size: u64 }

    /// The kernel's `struct sigcontext` (asm/sigcontext.h), 64-bit layout.
    SigContext, 256 {
        r8: u64, r9: u64, r10: u64, r11: u64, r12: u64, r13: u64, r14: u64, r15: u64, rdi: u64, rsi: u64,
        rbp: u64, rbx: u64, rdx: u64, rax: u64, rcx: u64, rsp: u64, rip: u64, eflags: u64, cs: u16, gs: u16,
        fs: u16, ss: u16, err: u64, trapno: u64, oldmask: u64, cr2: u64, fpstate: u64, reserved: [u64; 8],
    }

    /// The kernel's `struct ucontext` (asm-generic/ucontext.h).
    UContext, 304 { flags: u64, link: u64, stack: SigStack, mcontext: SigContext, sigmask: u64 }

    /// `struct termios` of the kernel (TCGETS, ioctl_tty(2)).
    Termios, 36 { c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32, c_line: u8, c_cc: [u8; 19] }

    /// `struct termios2` of the kernel (TCGETS2).
    Termios2, 44 {
        c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32, c_line: u8, c_cc: [u8; 19], c_ispeed: u32,
        c_ospeed: u32,
    }

    /// `struct termio` of System V (TCGETA).
    Termio, 18 { c_iflag: u16, c_oflag: u16, c_cflag: u16, c_lflag: u16, c_line: u8, c_cc: [u8; 8], pad: u8 }

    /// `struct winsize` (TIOCGWINSZ).
    Winsize, 8 { ws_row: u16, ws_col: u16, ws_xpixel: u16, ws_ypixel: u16 }

    /// `struct sigevent` (sigevent(3type)); `tid` counts with SIGEV_THREAD_ID.
    Sigevent, 64 { value: u64, signo: i32, notify: i32, tid: i32, pad: [u32; 11] }

    /// `struct signalfd_siginfo` (signalfd(2)).
    SignalfdSiginfo, 128 {
        signo: u32, errno: i32, code: i32, pid: u32, uid: u32, fd: i32, tid: u32, band: u32, overrun: u32,
        trapno: u32, status: i32, int: i32, ptr: u64, utime: u64, stime: u64, addr: u64, addr_lsb: u16,
        pad0: u16, syscall: i32, call_addr: u64, arch: u32, pad1: [u32; 7],
    }

    /// `struct flock` (fcntl(2)).
    Flock, 32 { l_type: i16, l_whence: i16, pad0: u32, l_start: i64, l_len: i64, l_pid: i32, pad1: u32 }

    /// `struct epoll_event` (epoll_ctl(2)), which is packed: two words hold `data`.
    EpollEvent, 12 { events: u32, data_low: u32, data_high: u32 }

    /// `struct sched_attr` (sched_setattr(2)), all versions to date.
    SchedAttr, 56 {
        size: u32, policy: u32, flags: u64, nice: i32, priority: u32, runtime: u64, deadline: u64, period: u64,
        util_min: u32, util_max: u32,
    }

    /// `struct clone_args` (clone3(2)), all versions to date.
    CloneArgs, 88 {
        flags: u64, pidfd: u64, child_tid: u64, parent_tid: u64, exit_signal: u64, stack: u64,
        stack_size: u64, tls: u64, set_tid: u64, set_tid_size: u64, cgroup: u64,
    }

    /// `struct open_how` (openat2(2)).
    OpenHow, 24 { flags: u64, mode: u64, resolve: u64 }

    /// The header of `struct linux_dirent64` (getdents(2)); the name and a NUL follow, then padding to 8.
    Dirent64, 24 { d_ino: u64, d_off: i64, d_reclen: u16, d_type: u8, name0: [u8; 5] }

    /// `struct __user_cap_header_struct` (capget(2)).
    CapHeader, 8 { version: u32, pid: i32 }

    /// One of the two `struct __user_cap_data_struct` (capget(2)).
    CapData, 12 { effective: u32, permitted: u32, inheritable: u32 }

    /// `struct msghdr` as the kernel has it (sendmsg(2)).
    MsgHdr, 56 {
        name: u64, namelen: i32, pad0: u32, iov: u64, iovlen: u64, control: u64, controllen: u64, flags: u32,
        pad1: u32,
    }

    /// `struct mmsghdr` (sendmmsg(2)).
    MmsgHdr, 64 { hdr: MsgHdr, len: u32, pad: u32 }

    /// `struct cmsghdr` (cmsg(3)); its data follows, then padding to 8.
    CmsgHdr, 16 { len: u64, level: u32, kind: u32 }

    /// `struct ucred` (unix(7)).
    Ucred, 12 { pid: u32, uid: u32, gid: u32 }

    /// `struct linger` (socket(7)).
    Linger, 8 { onoff: i32, linger: i32 }

    /// `struct sockaddr_in` (ip(7)); port and address are in network byte order.
    SockaddrIn, 16 { family: u16, port: [u8; 2], addr: [u8; 4], zero: [u8; 8] }

    /// `struct sockaddr_in6` (ipv6(7)); port and address are in network byte order.
    SockaddrIn6, 28 { family: u16, port: [u8; 2], flowinfo: [u8; 4], addr: [u8; 16], scope_id: u32 }

    /// `struct sockaddr_nl` (netlink(7)).
    SockaddrNl, 12 { family: u16, pad: u16, pid: u32, groups: u32 }

    /// `struct ipc64_perm` (sysvipc(7)).
    IpcPerm, 48 {
        key: i32, uid: u32, gid: u32, cuid: u32, cgid: u32, mode: u32, seq: u16, pad0: u16, pad1: u32,
        unused: [u64; 2],
    }

    /// `struct shmid64_ds` (shmctl(2)).
    ShmidDs, 112 {
        shm_perm: IpcPerm, shm_segsz: u64, shm_atime: i64, shm_dtime: i64, shm_ctime: i64, shm_cpid: u32,
        shm_lpid: u32, shm_nattch: u64, unused: [u64; 2],
    }

    /// `struct shminfo64` (shmctl(2) IPC_INFO).
    Shminfo, 72 { shmmax: u64, shmmin: u64, shmmni: u64, shmseg: u64, shmall: u64, unused: [u64; 4] }

    /// `struct shm_info` (shmctl(2) SHM_INFO).
    ShmUsage, 48 {
        used_ids: i32, pad: u32, shm_tot: u64, shm_rss: u64, shm_swp: u64, swap_attempts: u64,
        swap_successes: u64,
    }

    /// `struct semid64_ds` (semctl(2)).
    SemidDs, 104 {
        sem_perm: IpcPerm, sem_otime: i64, unused1: u64, sem_ctime: i64, unused2: u64, sem_nsems: u64,
        unused3: [u64; 2],
    }

    /// `struct seminfo` (semctl(2) IPC_INFO).
    Seminfo, 40 {
        semmap: i32, semmni: i32, semmns: i32, semmnu: i32, semmsl: i32, semopm: i32, semume: i32,
        semusz: i32, semvmx: i32, semaem: i32,
    }

    /// `struct sembuf` (semop(2)).
    Sembuf, 6 { sem_num: u16, sem_op: i16, sem_flg: i16 }

    /// `struct msqid64_ds` (msgctl(2)).
    MsqidDs, 120 {
        msg_perm: IpcPerm, msg_stime: i64, msg_rtime: i64, msg_ctime: i64, msg_cbytes: u64, msg_qnum: u64,
        msg_qbytes: u64, msg_lspid: u32, msg_lrpid: u32, unused: [u64; 2],
    }

    /// `struct msginfo` (msgctl(2) IPC_INFO).
    Msginfo, 32 {
        msgpool: i32, msgmap: i32, msgmax: i32, msgmnb: i32, msgmni: i32, msgssz: i32, msgtql: i32,
        msgseg: u16, pad: u16,
    }

    /// `struct mq_attr` (mq_getattr(3)).
    MqAttr, 64 { mq_flags: i64, mq_maxmsg: i64, mq_msgsize: i64, mq_curmsgs: i64, reserved: [i64; 4] }
}

impl Timespec {
    /// Nanoseconds in a second.
    pub const NS_PER_SEC: u64 = 1_000_000_000;

    /// Returns the time as a timespec.
    pub fn from_ns(ns: u64) -> Timespec {
        Timespec { tv_sec: (ns / Self::NS_PER_SEC) as i64, tv_nsec: (ns % Self::NS_PER_SEC) as i64 }
    }

    /// Returns the time in nanoseconds, capped at `u64::MAX`, or `None` where a field is out of range.
    pub fn to_ns(self) -> Option<u64> {
        let sec = u64::try_from(self.tv_sec).ok()?;
        let nsec = u64::try_from(self.tv_nsec).ok().filter(|nsec| *nsec < Self::NS_PER_SEC)?;
        Some(sec.saturating_mul(Self::NS_PER_SEC).saturating_add(nsec))
    }
}

impl Timeval {
    /// Returns the time as a timeval, rounded down.
    pub fn from_ns(ns: u64) -> Timeval {
        Timeval { tv_sec: (ns / 1_000_000_000) as i64, tv_usec: (ns % 1_000_000_000 / 1000) as i64 }
    }

    /// Returns the time in nanoseconds, capped at `u64::MAX`, or `None` where a field is out of range.
    pub fn to_ns(self) -> Option<u64> {
        let sec = u64::try_from(self.tv_sec).ok()?;
        let usec = u64::try_from(self.tv_usec).ok().filter(|usec| *usec < 1_000_000)?;
        Some(sec.saturating_mul(1_000_000_000).saturating_add(usec * 1000))
    }
}
