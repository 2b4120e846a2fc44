//! All of `/sys` (sysfs(5)): one processor, one node of memory, the loopback.

use super::Entry;
use super::Kind::{Dir, File, Link, Text};
use super::system::{entry, memory_lines};

pub(super) static SYS: &[Entry] = &[
    entry("block", Dir(&[])),
    entry("bus", Dir(&[])),
    entry("class", Dir(&[entry("net", Dir(&[entry("lo", Link("../../devices/virtual/net/lo"))]))])),
    entry("dev", Dir(&[])),
    entry(
        "devices",
        Dir(&[
            entry("system", Dir(&[entry("cpu", Dir(CPU)), entry("node", Dir(NODES))])),
            entry("virtual", Dir(&[entry("net", Dir(&[entry("lo", Dir(LOOPBACK))]))])),
        ]),
    ),
    entry("firmware", Dir(&[])),
    entry("fs", Dir(&[entry("cgroup", Dir(&[]))])),
    entry("kernel", Dir(&[entry("mm", Dir(&[entry("transparent_hugepage", Dir(HUGE_PAGES))]))])),
    entry("module", Dir(&[])),
];

static CPU: &[Entry] = &[
    entry("cpu0", Dir(&[entry("node0", Link("../../node/node0")), entry("topology", Dir(TOPOLOGY))])),
    entry("isolated", Text("\n")),
    entry("kernel_max", Text("0\n")),
    entry("offline", Text("\n")),
    entry("online", Text("0\n")),
    entry("possible", Text("0\n")),
    entry("present", Text("0\n")),
    entry("smt", Dir(&[entry("active", Text("0\n")), entry("control", Text("notsupported\n"))])),
];

static TOPOLOGY: &[Entry] = &[
    entry("cluster_cpus", Text("1\n")),
    entry("cluster_cpus_list", Text("0\n")),
    entry("cluster_id", Text("0\n")),
    entry("core_cpus", Text("1\n")),
    entry("core_cpus_list", Text("0\n")),
    entry("core_id", Text("0\n")),
    entry("core_siblings", Text("1\n")),
    entry("core_siblings_list", Text("0\n")),
    entry("die_cpus", Text("1\n")),
    entry("die_cpus_list", Text("0\n")),
    entry("die_id", Text("0\n")),
    entry("package_cpus", Text("1\n")),
    entry("package_cpus_list", Text("0\n")),
    entry("physical_package_id", Text("0\n")),
    entry("thread_siblings", Text("1\n")),
    entry("thread_siblings_list", Text("0\n")),
];

static NODES: &[Entry] = &[
    entry("has_cpu", Text("0\n")),
    entry("has_memory", Text("0\n")),
    entry("has_normal_memory", Text("0\n")),
    entry(
        "node0",
        Dir(&[
            entry("cpu0", Link("../../cpu/cpu0")),
            entry("cpulist", Text("0\n")),
            entry("cpumap", Text("1\n")),
            entry("distance", Text("10\n")),
            entry(
                "meminfo",
                File(|cx| {
                    let wanted = ["MemTotal", "MemFree", "AnonPages", "Mapped", "Shmem"];
                    let lines = memory_lines(cx).into_iter().filter(|(name, _)| wanted.contains(name));
                    let line = |(name, bytes)| format!("Node 0 {name}: {:>14} kB\n", bytes / 1024);
                    lines.map(line).collect::<String>().into_bytes()
                }),
            ),
        ]),
    ),
    entry("online", Text("0\n")),
    entry("possible", Text("0\n")),
];

static HUGE_PAGES: &[Entry] = &[
    entry("defrag", Text("always defer defer+madvise madvise [never]\n")),
    entry("enabled", Text("always madvise [never]\n")),
    entry("hpage_pmd_size", Text("2097152\n")),
    entry("shmem_enabled", Text("always within_size advise [never] deny force\n")),
];

/// The loopback, as Linux shows it.
static LOOPBACK: &[Entry] = &[
    entry("addr_assign_type", Text("0\n")),
    entry("addr_len", Text("6\n")),
    entry("address", Text("00:00:00:00:00:00\n")),
    entry("broadcast", Text("00:00:00:00:00:00\n")),
    entry("carrier", Text("1\n")),
    entry("dev_id", Text("0x0\n")),
    entry("dev_port", Text("0\n")),
    entry("dormant", Text("0\n")),
    entry("flags", Text("0x9\n")),
    entry("ifalias", Text("\n")),
    entry("ifindex", Text("1\n")),
    entry("iflink", Text("1\n")),
    entry("link_mode", Text("0\n")),
    entry("mtu", Text("65536\n")),
    entry("netdev_group", Text("0\n")),
    entry("operstate", Text("unknown\n")),
    entry("tx_queue_len", Text("1000\n")),
    entry("type", Text("772\n")),
    entry("uevent", Text("INTERFACE=lo\nIFINDEX=1\n")),
];
