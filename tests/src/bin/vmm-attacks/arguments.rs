//! Allowed calls with arguments that are not.

use crate::{Attack, all_in_forks, must_die};

const ANY: u64 = u64::MAX;
/// A readable and writable protection.
const DATA: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const CODE: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
/// An anonymous mapping.
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;

/// A call that must end the process: what it is, its number and arguments.
type Forbidden = (&'static str, i64, &'static [u64]);

/// Groups of calls by what would be had from them.
const FORBIDDEN: &[(&str, &[Forbidden])] = &[
    (
        "executable-memory",
        &[
            ("mmap READ|EXEC", libc::SYS_mmap, &[0, 4096, CODE, ANONYMOUS, ANY, 0]),
            ("mmap EXEC", libc::SYS_mmap, &[0, 4096, libc::PROT_EXEC as u64, ANONYMOUS, ANY, 0]),
            ("mmap with all rights", libc::SYS_mmap, &[0, 4096, DATA | CODE, ANONYMOUS, ANY, 0]),
            ("mmap with upper bits", libc::SYS_mmap, &[0, 4096, CODE | 1 << 32, ANONYMOUS, ANY, 0]),
            ("mprotect READ|EXEC", libc::SYS_mprotect, &[0x1000, 4096, CODE]),
            ("mprotect with all rights", libc::SYS_mprotect, &[0x1000, 4096, DATA | CODE]),
            ("mprotect GROWSDOWN|EXEC", libc::SYS_mprotect, &[0x1000, 4096, CODE | 0x0100_0000]),
            ("pkey_mprotect", libc::SYS_pkey_mprotect, &[0x1000, 4096, CODE, ANY]),
            ("remap_file_pages", libc::SYS_remap_file_pages, &[0x1000, 4096, 0, 0, 0]),
        ],
    ),
    (
        "processes-that-are-not-forks",
        &[
            ("vfork", libc::SYS_clone, &[(libc::CLONE_VM | libc::CLONE_VFORK) as u64]),
            ("memory shared", libc::SYS_clone, &[libc::CLONE_VM as u64]),
            ("files shared", libc::SYS_clone, &[(libc::CLONE_PARENT | libc::CLONE_FILES) as u64]),
            ("a child of its own", libc::SYS_clone, &[libc::SIGCHLD as u64]),
            ("another signal", libc::SYS_clone, &[(libc::CLONE_PARENT | libc::SIGKILL) as u64]),
            ("untraced", libc::SYS_clone, &[(libc::CLONE_PARENT | libc::CLONE_UNTRACED) as u64]),
            ("upper bits", libc::SYS_clone, &[libc::CLONE_PARENT as u64 | 1 << 33]),
        ],
    ),
    (
        "namespaces",
        &[
            ("user", libc::SYS_clone, &[(libc::CLONE_PARENT | libc::CLONE_NEWUSER) as u64]),
            ("mounts", libc::SYS_clone, &[(libc::CLONE_PARENT | libc::CLONE_NEWNS) as u64]),
            ("processes", libc::SYS_clone, &[(libc::CLONE_PARENT | libc::CLONE_NEWPID) as u64]),
            ("network", libc::SYS_clone, &[(libc::CLONE_PARENT | libc::CLONE_NEWNET) as u64]),
            ("unshare", libc::SYS_unshare, &[libc::CLONE_NEWUSER as u64]),
            ("setns", libc::SYS_setns, &[0, 0]),
        ],
    ),
    (
        "devices",
        &[
            ("TIOCSTI", libc::SYS_ioctl, &[0, libc::TIOCSTI]),
            ("TIOCLINUX", libc::SYS_ioctl, &[0, 0x541c]),
            ("TIOCSCTTY", libc::SYS_ioctl, &[0, libc::TIOCSCTTY]),
            ("TIOCSETD", libc::SYS_ioctl, &[0, 0x5423]),
            ("TIOCCONS", libc::SYS_ioctl, &[0, 0x541d]),
            ("TUNSETIFF", libc::SYS_ioctl, &[0, 0x4004_54ca]),
            ("SIOCGIFCONF", libc::SYS_ioctl, &[0, 0x8912]),
            ("SIOCSPGRP", libc::SYS_ioctl, &[0, 0x8902]),
            ("FIOSETOWN", libc::SYS_ioctl, &[0, 0x8901]),
            ("FIOASYNC", libc::SYS_ioctl, &[0, libc::FIOASYNC]),
            ("FICLONE", libc::SYS_ioctl, &[0, 0x4004_9409]),
            ("FS_IOC_SETFLAGS", libc::SYS_ioctl, &[0, 0x4008_6602]),
            ("FS_IOC_ADD_ENCRYPTION_KEY", libc::SYS_ioctl, &[0, 0xc050_6617]),
            ("NS_GET_PARENT", libc::SYS_ioctl, &[0, 0xb702]),
            ("SECCOMP_IOCTL_NOTIF_RECV", libc::SYS_ioctl, &[0, 0xc050_2100]),
        ],
    ),
    (
        "the-rest-of-kvm",
        &[
            ("KVM_GET_API_VERSION", libc::SYS_ioctl, &[0, 0xae00]),
            ("KVM_GET_SUPPORTED_CPUID", libc::SYS_ioctl, &[0, 0xc008_ae05]),
            ("KVM_CREATE_IRQCHIP", libc::SYS_ioctl, &[0, 0xae60]),
            ("KVM_CREATE_DEVICE", libc::SYS_ioctl, &[0, 0xc00c_aee0]),
            ("KVM_IRQFD", libc::SYS_ioctl, &[0, 0x4020_ae76]),
            ("KVM_IOEVENTFD", libc::SYS_ioctl, &[0, 0x4040_ae79]),
            ("KVM_ENABLE_CAP", libc::SYS_ioctl, &[0, 0x4068_aea3]),
            ("KVM_SET_USER_MEMORY_REGION2", libc::SYS_ioctl, &[0, 0x40a0_ae49]),
            ("KVM_MEMORY_ENCRYPT_OP", libc::SYS_ioctl, &[0, 0xc008_aeba]),
            ("KVM_GET_DIRTY_LOG", libc::SYS_ioctl, &[0, 0x4010_ae42]),
            ("KVM_SET_GSI_ROUTING", libc::SYS_ioctl, &[0, 0x4008_ae6a]),
            ("KVM_GET_NESTED_STATE", libc::SYS_ioctl, &[0, 0xc080_aebe]),
        ],
    ),
    (
        "descriptors",
        &[
            ("F_DUPFD", libc::SYS_fcntl, &[0, libc::F_DUPFD as u64]),
            ("F_SETFD", libc::SYS_fcntl, &[0, libc::F_SETFD as u64]),
            ("F_SETLK", libc::SYS_fcntl, &[0, libc::F_SETLK as u64]),
            ("F_SETSIG", libc::SYS_fcntl, &[0, 10, 9]),
            ("F_SETOWN_EX", libc::SYS_fcntl, &[0, 15]),
            ("F_SETLEASE", libc::SYS_fcntl, &[0, libc::F_SETLEASE as u64]),
            ("F_NOTIFY", libc::SYS_fcntl, &[0, libc::F_NOTIFY as u64]),
            ("F_SETPIPE_SZ", libc::SYS_fcntl, &[0, libc::F_SETPIPE_SZ as u64, 1 << 20]),
            ("F_SET_RW_HINT", libc::SYS_fcntl, &[0, 1036]),
        ],
    ),
    (
        "sockets",
        &[
            ("sendto an address", libc::SYS_sendto, &[0, 0, 0, 0, 0x1000, 16]),
            ("socket", libc::SYS_socket, &[libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0]),
            ("vsock", libc::SYS_socket, &[libc::AF_VSOCK as u64, libc::SOCK_STREAM as u64, 0]),
            ("connect", libc::SYS_connect, &[0, 0, 0]),
        ],
    ),
    (
        "signals-and-itself",
        &[
            ("PR_SET_DUMPABLE", libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as u64, 1]),
            ("PR_SET_PTRACER", libc::SYS_prctl, &[libc::PR_SET_PTRACER as u64, ANY]),
            ("PR_SET_SECCOMP", libc::SYS_prctl, &[libc::PR_SET_SECCOMP as u64, 2]),
            ("PR_SET_MM", libc::SYS_prctl, &[libc::PR_SET_MM as u64, 1]),
            ("PR_SET_PDEATHSIG", libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, 0]),
            ("PR_SET_CHILD_SUBREAPER", libc::SYS_prctl, &[libc::PR_SET_CHILD_SUBREAPER as u64, 1]),
            ("PR_TASK_PERF_EVENTS_ENABLE", libc::SYS_prctl, &[32]),
        ],
    ),
];

/// All attacks of the group.
pub fn attacks() -> Vec<Attack> {
    let attack = |(name, calls): &'static (&str, &[Forbidden])| {
        Attack::new(*name, move |captive| {
            let name = |call: &&Forbidden| call.0.to_owned();
            all_in_forks(captive, calls.iter(), name, |fork, call| must_die(fork.call(call.1, call.2)))
        })
    };
    FORBIDDEN.iter().map(attack).collect()
}
