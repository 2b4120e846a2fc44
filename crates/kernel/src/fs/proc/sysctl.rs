//! The settings of the system, `/proc/sys` (proc_sys(5)): what programs read, with the values that hold here. None can be
//! changed.

use super::Entry;
use super::Kind::{Dir, File, Text};
use super::system::entry;
use crate::fs::inotify;
use crate::ipc::{MSGMAX, MSGMNB, MSGMNI, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SHMMAX, SHMMNI, mqueue};

pub(super) static SYSCTL: &[Entry] = &[
    entry("fs", Dir(SYSCTL_FS)),
    entry("kernel", Dir(SYSCTL_KERNEL)),
    entry("net", Dir(SYSCTL_NET)),
    entry("user", Dir(SYSCTL_USER)),
    entry("vm", Dir(SYSCTL_VM)),
];

static SYSCTL_FS: &[Entry] = &[
    entry("aio-max-nr", Text("65536\n")),
    entry("aio-nr", Text("0\n")),
    entry("epoll", Dir(&[entry("max_user_watches", Text("200000\n"))])),
    entry("file-max", File(|cx| format!("{}\n", cx.vfs.open_files().max()).into_bytes())),
    entry(
        "file-nr",
        File(|cx| {
            let open = cx.vfs.open_files();
            format!("{}\t0\t{}\n", open.used(), open.max()).into_bytes()
        }),
    ),
    entry(
        "inotify",
        Dir(&[
            entry("max_queued_events", File(|_| format!("{}\n", inotify::MAX_EVENTS).into_bytes())),
            entry("max_user_instances", File(|_| format!("{}\n", inotify::MAX_INSTANCES).into_bytes())),
            entry("max_user_watches", File(|_| format!("{}\n", inotify::MAX_WATCHES).into_bytes())),
        ]),
    ),
    entry("lease-break-time", Text("45\n")),
    entry("leases-enable", Text("0\n")),
    entry(
        "mqueue",
        Dir(&[
            entry("msg_default", File(|_| format!("{}\n", mqueue::MSG_MAX).into_bytes())),
            entry("msg_max", File(|_| format!("{}\n", mqueue::MSG_MAX).into_bytes())),
            entry("msgsize_default", File(|_| format!("{}\n", mqueue::MSGSIZE_MAX).into_bytes())),
            entry("msgsize_max", File(|_| format!("{}\n", mqueue::MSGSIZE_MAX).into_bytes())),
            entry("queues_max", File(|_| format!("{}\n", mqueue::QUEUES_MAX).into_bytes())),
        ]),
    ),
    entry("nr_open", Text("1048576\n")),
    entry("overflowgid", Text("65534\n")),
    entry("overflowuid", Text("65534\n")),
    entry("pipe-max-size", Text("1048576\n")),
    entry("pipe-user-pages-hard", Text("0\n")),
    entry("pipe-user-pages-soft", Text("16384\n")),
    entry("protected_fifos", Text("0\n")),
    entry("protected_hardlinks", Text("0\n")),
    entry("protected_regular", Text("0\n")),
    entry("protected_symlinks", Text("0\n")),
    entry("suid_dumpable", Text("0\n")),
];

static SYSCTL_KERNEL: &[Entry] = &[
    entry("cap_last_cap", Text("40\n")),
    entry("core_pattern", Text("core\n")),
    entry("core_pipe_limit", Text("0\n")),
    entry("core_uses_pid", Text("0\n")),
    entry("dmesg_restrict", Text("1\n")),
    entry("domainname", Text("(none)\n")),
    entry("hostname", File(|cx| [&cx.procs.system().hostname[..], b"\n"].concat())),
    entry("kptr_restrict", Text("1\n")),
    entry("msgmax", File(|_| format!("{MSGMAX}\n").into_bytes())),
    entry("msgmnb", File(|_| format!("{MSGMNB}\n").into_bytes())),
    entry("msgmni", File(|_| format!("{MSGMNI}\n").into_bytes())),
    entry("ngroups_max", Text("65536\n")),
    entry("numa_balancing", Text("0\n")),
    entry("osrelease", File(|cx| format!("{}\n", cx.procs.system().release).into_bytes())),
    entry("ostype", Text("Linux\n")),
    entry("overflowgid", Text("65534\n")),
    entry("overflowuid", Text("65534\n")),
    entry("panic", Text("0\n")),
    entry("perf_event_paranoid", Text("3\n")),
    entry("pid_max", File(|cx| format!("{}\n", cx.procs.system().pid_max).into_bytes())),
    entry("printk", Text("4\t4\t1\t7\n")),
    entry("random", Dir(SYSCTL_RANDOM)),
    entry("randomize_va_space", Text("2\n")),
    entry("sched_autogroup_enabled", Text("0\n")),
    entry("sched_rr_timeslice_ms", Text("100\n")),
    entry("seccomp", Dir(&[entry("actions_avail", Text("\n"))])),
    entry("sem", File(|_| format!("{SEMMSL}\t{SEMMNS}\t{SEMOPM}\t{SEMMNI}\n").into_bytes())),
    entry("shm_rmid_forced", Text("0\n")),
    entry("shmall", File(|_| format!("{SHMMAX}\n").into_bytes())),
    entry("shmmax", File(|_| format!("{SHMMAX}\n").into_bytes())),
    entry("shmmni", File(|_| format!("{SHMMNI}\n").into_bytes())),
    entry("tainted", Text("0\n")),
    entry("threads-max", File(|cx| format!("{}\n", cx.procs.system().threads_max).into_bytes())),
    entry("unprivileged_bpf_disabled", Text("2\n")),
    entry("unprivileged_userns_clone", Text("0\n")),
    entry("version", File(|cx| format!("{}\n", cx.procs.system().version).into_bytes())),
    entry("yama", Dir(&[entry("ptrace_scope", Text("1\n"))])),
];

static SYSCTL_RANDOM: &[Entry] = &[
    entry("boot_id", File(|cx| uuid(cx.procs.system().boot_id))),
    entry("entropy_avail", Text("256\n")),
    entry("poolsize", Text("256\n")),
    entry("uuid", File(|_| random_uuid())),
];

static SYSCTL_VM: &[Entry] = &[
    entry("dirty_background_bytes", Text("0\n")),
    entry("dirty_background_ratio", Text("10\n")),
    entry("dirty_bytes", Text("0\n")),
    entry("dirty_expire_centisecs", Text("3000\n")),
    entry("dirty_ratio", Text("20\n")),
    entry("dirty_writeback_centisecs", Text("500\n")),
    entry("laptop_mode", Text("0\n")),
    entry("legacy_va_layout", Text("0\n")),
    entry("max_map_count", Text("65530\n")),
    entry("mmap_min_addr", Text("65536\n")),
    entry("nr_hugepages", Text("0\n")),
    entry("nr_overcommit_hugepages", Text("0\n")),
    entry("oom_dump_tasks", Text("0\n")),
    entry("oom_kill_allocating_task", Text("0\n")),
    entry("overcommit_kbytes", Text("0\n")),
    entry("overcommit_memory", Text("0\n")),
    entry("overcommit_ratio", Text("50\n")),
    entry("page-cluster", Text("3\n")),
    entry("panic_on_oom", Text("0\n")),
    entry("swappiness", Text("0\n")),
    entry("unprivileged_userfaultfd", Text("0\n")),
    entry("vfs_cache_pressure", Text("100\n")),
    entry("zone_reclaim_mode", Text("0\n")),
];

/// The network: that of the loopback.
static SYSCTL_NET: &[Entry] = &[
    entry("core", Dir(SYSCTL_NET_CORE)),
    entry("ipv4", Dir(SYSCTL_NET_IPV4)),
    entry(
        "ipv6",
        Dir(&[entry(
            "conf",
            Dir(&[
                entry("all", Dir(SYSCTL_NET_IPV6)),
                entry("default", Dir(SYSCTL_NET_IPV6)),
                entry("lo", Dir(SYSCTL_NET_IPV6)),
            ]),
        )]),
    ),
    entry("unix", Dir(&[entry("max_dgram_qlen", Text("10\n"))])),
];

static SYSCTL_NET_CORE: &[Entry] = &[
    entry("default_qdisc", Text("pfifo_fast\n")),
    entry("netdev_max_backlog", Text("1000\n")),
    entry("optmem_max", Text("20480\n")),
    entry("rmem_default", Text("212992\n")),
    entry("rmem_max", Text("212992\n")),
    entry("somaxconn", Text("4096\n")),
    entry("wmem_default", Text("212992\n")),
    entry("wmem_max", Text("212992\n")),
];

static SYSCTL_NET_IPV4: &[Entry] = &[
    entry("icmp_echo_ignore_all", Text("0\n")),
    entry("ip_default_ttl", Text("64\n")),
    entry("ip_forward", Text("0\n")),
    entry("ip_local_port_range", Text("32768\t60999\n")),
    entry("ip_local_reserved_ports", Text("\n")),
    entry("ip_nonlocal_bind", Text("0\n")),
    entry("ip_unprivileged_port_start", Text("1024\n")),
    entry("ping_group_range", Text("1\t0\n")),
    entry("tcp_allowed_congestion_control", Text("reno cubic\n")),
    entry("tcp_available_congestion_control", Text("reno cubic\n")),
    entry("tcp_congestion_control", Text("cubic\n")),
    entry("tcp_ecn", Text("2\n")),
    entry("tcp_fastopen", Text("0\n")),
    entry("tcp_fin_timeout", Text("60\n")),
    entry("tcp_keepalive_intvl", Text("75\n")),
    entry("tcp_keepalive_probes", Text("9\n")),
    entry("tcp_keepalive_time", Text("7200\n")),
    entry("tcp_max_syn_backlog", Text("4096\n")),
    entry("tcp_mtu_probing", Text("0\n")),
    entry("tcp_no_metrics_save", Text("0\n")),
    entry("tcp_retries1", Text("3\n")),
    entry("tcp_retries2", Text("15\n")),
    entry("tcp_rfc1337", Text("0\n")),
    entry("tcp_rmem", Text("4096\t131072\t6291456\n")),
    entry("tcp_sack", Text("1\n")),
    entry("tcp_slow_start_after_idle", Text("1\n")),
    entry("tcp_syn_retries", Text("6\n")),
    entry("tcp_synack_retries", Text("5\n")),
    entry("tcp_syncookies", Text("1\n")),
    entry("tcp_timestamps", Text("1\n")),
    entry("tcp_tw_reuse", Text("2\n")),
    entry("tcp_window_scaling", Text("1\n")),
    entry("tcp_wmem", Text("4096\t16384\t4194304\n")),
    entry("udp_rmem_min", Text("4096\n")),
    entry("udp_wmem_min", Text("4096\n")),
];

static SYSCTL_NET_IPV6: &[Entry] =
    &[entry("disable_ipv6", Text("0\n")), entry("forwarding", Text("0\n")), entry("mtu", Text("65536\n"))];

/// How many namespaces a user may make: none.
static SYSCTL_USER: &[Entry] = &[
    entry("max_cgroup_namespaces", Text("0\n")),
    entry("max_ipc_namespaces", Text("0\n")),
    entry("max_mnt_namespaces", Text("0\n")),
    entry("max_net_namespaces", Text("0\n")),
    entry("max_pid_namespaces", Text("0\n")),
    entry("max_time_namespaces", Text("0\n")),
    entry("max_user_namespaces", Text("0\n")),
    entry("max_uts_namespaces", Text("0\n")),
];

fn random_uuid() -> Vec<u8> {
    let mut bytes = [0; 16];
    crate::syscall::fill_random(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    uuid(bytes)
}

fn uuid(bytes: [u8; 16]) -> Vec<u8> {
    let mut text = String::new();
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    text.into_bytes()
}
