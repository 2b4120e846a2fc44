//! The files about the whole system.

use super::Kind::{Dir, File, Link, Text};
use super::{Entry, cpu};
use crate::fs::inotify;
use crate::ipc::{MSGMAX, MSGMNB, MSGMNI, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SHMMAX, SHMMNI, Table, mqueue};
use crate::vfs::FsContext;

/// Ticks of `/proc` per second: USER_HZ.
pub(super) const TICK_NS: u64 = 10_000_000;

pub(super) const fn entry(name: &'static str, kind: super::Kind) -> Entry {
    Entry { name, kind }
}

/// The fixed part of `/proc`.
pub(super) static PROC: &[Entry] = &[
    entry(
        "cgroups",
        Text("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t1\npids\t0\t1\t1\n"),
    ),
    entry("cmdline", Text("luminaguard\n")),
    entry("cpuinfo", File(|_| cpu::cpuinfo())),
    entry("devices", Text("Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n")),
    entry("diskstats", Text("")),
    entry(
        "filesystems",
        Text("nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\tpipefs\nnodev\toverlay\n"),
    ),
    entry("loadavg", File(loadavg)),
    entry("meminfo", File(meminfo)),
    entry("mounts", Link("self/mounts")),
    entry("net", Link("self/net")),
    entry("partitions", Text("")),
    entry("stat", File(stat)),
    entry("swaps", Text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
    entry("sys", Dir(SYSCTL)),
    entry("sysvipc", Dir(SYSVIPC)),
    entry("uptime", File(uptime)),
    entry("version", File(version)),
    entry("vmstat", File(vmstat)),
];

static SYSVIPC: &[Entry] = &[
    entry("msg", File(|cx| cx.procs.ipc_table(Table::Messages).into_bytes())),
    entry("sem", File(|cx| cx.procs.ipc_table(Table::Semaphores).into_bytes())),
    entry("shm", File(|cx| cx.procs.ipc_table(Table::SharedMemory).into_bytes())),
];

static SYSCTL: &[Entry] = &[
    entry("fs", Dir(SYSCTL_FS)),
    entry("kernel", Dir(SYSCTL_KERNEL)),
    entry("net", Dir(&[entry("core", Dir(&[entry("somaxconn", Text("4096\n"))]))])),
    entry("vm", Dir(SYSCTL_VM)),
];

static SYSCTL_FS: &[Entry] = &[
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
    entry("pipe-max-size", Text("1048576\n")),
    entry("pipe-user-pages-soft", Text("16384\n")),
    entry("protected_hardlinks", Text("0\n")),
    entry("protected_symlinks", Text("0\n")),
    entry("suid_dumpable", Text("0\n")),
];

static SYSCTL_KERNEL: &[Entry] = &[
    entry("cap_last_cap", Text("40\n")),
    entry("core_pattern", Text("core\n")),
    entry("domainname", Text("(none)\n")),
    entry("hostname", File(|cx| [&cx.procs.system().hostname[..], b"\n"].concat())),
    entry("msgmax", File(|_| format!("{MSGMAX}\n").into_bytes())),
    entry("msgmnb", File(|_| format!("{MSGMNB}\n").into_bytes())),
    entry("msgmni", File(|_| format!("{MSGMNI}\n").into_bytes())),
    entry("ngroups_max", Text("65536\n")),
    entry("osrelease", File(|cx| format!("{}\n", cx.procs.system().release).into_bytes())),
    entry("ostype", Text("Linux\n")),
    entry("overflowgid", Text("65534\n")),
    entry("overflowuid", Text("65534\n")),
    entry("perf_event_paranoid", Text("3\n")),
    entry("pid_max", File(|cx| format!("{}\n", cx.procs.system().pid_max).into_bytes())),
    entry("random", Dir(SYSCTL_RANDOM)),
    entry("randomize_va_space", Text("2\n")),
    entry("seccomp", Dir(&[entry("actions_avail", Text("\n"))])),
    entry("sem", File(|_| format!("{SEMMSL}\t{SEMMNS}\t{SEMOPM}\t{SEMMNI}\n").into_bytes())),
    entry("shmall", File(|_| format!("{SHMMAX}\n").into_bytes())),
    entry("shmmax", File(|_| format!("{SHMMAX}\n").into_bytes())),
    entry("shmmni", File(|_| format!("{SHMMNI}\n").into_bytes())),
    entry("threads-max", File(|cx| format!("{}\n", cx.procs.system().threads_max).into_bytes())),
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
    entry("max_map_count", Text("65530\n")),
    entry("mmap_min_addr", Text("65536\n")),
    entry("nr_hugepages", Text("0\n")),
    entry("overcommit_memory", Text("0\n")),
    entry("overcommit_ratio", Text("50\n")),
    entry("swappiness", Text("0\n")),
];

fn loadavg(cx: &FsContext<'_>) -> Vec<u8> {
    let system = cx.procs.system();
    let tasks: usize = cx.procs.pids().into_iter().map(|pid| cx.procs.tids(pid).len()).sum();
    // The load is what runs now: no average is kept.
    let running = system.runnable.max(1);
    let load = format!("{}.00", running - 1);
    format!("{load} {load} {load} {running}/{tasks} {}\n", system.last_pid).into_bytes()
}

/// Returns the lines of `/proc/meminfo` that are amounts, in bytes.
pub(super) fn memory_lines(cx: &FsContext<'_>) -> [(&'static str, u64); 23] {
    let system = cx.procs.system();
    let available = system.mem_free.saturating_add(system.mem_cached);
    [
        ("MemTotal", system.mem_total),
        ("MemFree", system.mem_free),
        ("MemAvailable", available.min(system.mem_total)),
        ("Buffers", 0),
        ("Cached", system.mem_cached),
        ("SwapCached", 0),
        ("Active", system.mem_total.saturating_sub(system.mem_free)),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", system.mem_total.saturating_sub(available)),
        ("Mapped", system.mem_cached),
        ("Shmem", system.mem_shared),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("PageTables", 0),
        ("CommitLimit", system.mem_total),
        ("Committed_AS", system.mem_total.saturating_sub(system.mem_free)),
        ("VmallocTotal", 0),
        ("VmallocUsed", 0),
    ]
}

fn meminfo(cx: &FsContext<'_>) -> Vec<u8> {
    let mut text = String::new();
    for (name, bytes) in memory_lines(cx) {
        text.push_str(&format!("{:<16}{:>8} kB\n", format!("{name}:"), bytes / 1024));
    }
    text.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
    text.into_bytes()
}

fn stat(cx: &FsContext<'_>) -> Vec<u8> {
    let system = cx.procs.system();
    let busy = system.user_ns.saturating_add(system.system_ns);
    let idle_ns = system.idle_ns.max(system.uptime_ns.saturating_sub(busy));
    let cpu = format!(
        "{} 0 {} {} 0 0 0 0 0 0",
        system.user_ns / TICK_NS,
        system.system_ns / TICK_NS,
        idle_ns / TICK_NS
    );
    format!(
        "cpu  {cpu}\ncpu0 {cpu}\nintr 0\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\n\
         softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        system.context_switches,
        system.boot_time_sec,
        system.forks,
        system.runnable.max(1),
    )
    .into_bytes()
}

fn uptime(cx: &FsContext<'_>) -> Vec<u8> {
    let system = cx.procs.system();
    let busy = system.user_ns.saturating_add(system.system_ns);
    let idle_ns = system.idle_ns.max(system.uptime_ns.saturating_sub(busy));
    let centis = |ns: u64| format!("{}.{:02}", ns / 1_000_000_000, ns / TICK_NS % 100);
    format!("{} {}\n", centis(system.uptime_ns), centis(idle_ns)).into_bytes()
}

fn version(cx: &FsContext<'_>) -> Vec<u8> {
    let system = cx.procs.system();
    format!("Linux version {} (luminaguard@luminaguard) {}\n", system.release, system.version).into_bytes()
}

fn vmstat(cx: &FsContext<'_>) -> Vec<u8> {
    let system = cx.procs.system();
    format!("nr_free_pages {}\nnr_file_pages {}\n", system.mem_free / 4096, system.mem_cached / 4096)
        .into_bytes()
}

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
