//! The files about the whole system.

use super::Kind::{Dir, File, Link, Text};
use super::sysctl::SYSCTL;
use super::{Entry, cpu};
use crate::ipc::Table;
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
    entry("interrupts", Text("           CPU0       \nERR:          0\nMIS:          0\n")),
    entry("loadavg", File(loadavg)),
    entry("meminfo", File(meminfo)),
    entry("mounts", Link("self/mounts")),
    entry("net", Link("self/net")),
    entry("partitions", Text("")),
    entry("softirqs", File(|_| softirqs())),
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

/// Returns the counts of deferred work, of which a sandbox has none.
fn softirqs() -> Vec<u8> {
    let names =
        ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];
    let lines: String = names.map(|name| format!("{:>12} {:>10}\n", format!("{name}:"), 0)).concat();
    format!("                    CPU0       \n{lines}").into_bytes()
}
