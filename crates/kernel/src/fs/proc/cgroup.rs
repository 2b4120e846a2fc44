//! `/sys/fs/cgroup`: the control group that the sandbox is, as the root of a cgroup namespace shows it (cgroups(7),
//! version 2). Its limits are those of the sandbox; it can not be divided.

use super::Entry;
use super::Kind::{File, Text};
use super::system::entry;
use crate::vfs::{FsContext, SystemFacts};

pub(super) static CGROUP: &[Entry] = &[
    entry("cgroup.controllers", Text("cpu memory pids\n")),
    entry("cgroup.events", Text("populated 1\nfrozen 0\n")),
    entry("cgroup.freeze", Text("0\n")),
    entry("cgroup.max.depth", Text("0\n")),
    entry("cgroup.max.descendants", Text("0\n")),
    entry("cgroup.procs", File(|cx| lines(cx.procs.pids()))),
    entry("cgroup.stat", Text("nr_descendants 0\nnr_dying_descendants 0\n")),
    entry("cgroup.subtree_control", Text("\n")),
    entry("cgroup.threads", File(|cx| lines(all_tids(cx)))),
    entry("cgroup.type", Text("domain\n")),
    entry("cpu.max", Text("max 100000\n")),
    entry("cpu.stat", File(cpu_stat)),
    entry("cpu.weight", Text("100\n")),
    entry("memory.current", File(|cx| number(used(&cx.procs.system())))),
    entry("memory.high", Text("max\n")),
    entry("memory.low", Text("0\n")),
    entry("memory.max", File(|cx| number(cx.procs.system().mem_total))),
    entry("memory.min", Text("0\n")),
    entry("memory.stat", File(memory_stat)),
    entry("memory.swap.current", Text("0\n")),
    entry("memory.swap.max", Text("0\n")),
    entry("pids.current", File(|cx| number(all_tids(cx).len() as u64))),
    entry("pids.max", File(|cx| number(cx.procs.system().threads_max.into()))),
];

fn number(value: u64) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

fn lines(ids: Vec<u32>) -> Vec<u8> {
    ids.into_iter().map(|id| format!("{id}\n")).collect::<String>().into_bytes()
}

fn all_tids(cx: &FsContext<'_>) -> Vec<u32> {
    cx.procs.pids().into_iter().flat_map(|pid| cx.procs.tids(pid)).collect()
}

fn used(system: &SystemFacts) -> u64 {
    system.mem_total.saturating_sub(system.mem_free)
}

fn cpu_stat(cx: &FsContext<'_>) -> Vec<u8> {
    let system = cx.procs.system();
    let (user, kernel) = (system.user_ns / 1000, system.system_ns / 1000);
    format!(
        "usage_usec {}\nuser_usec {user}\nsystem_usec {kernel}\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
        user.saturating_add(kernel)
    )
    .into_bytes()
}

fn memory_stat(cx: &FsContext<'_>) -> Vec<u8> {
    let system = cx.procs.system();
    let anonymous = used(&system).saturating_sub(system.mem_cached);
    format!(
        "anon {anonymous}\nfile {}\nshmem {}\ninactive_anon 0\nactive_anon {anonymous}\ninactive_file 0\n\
         active_file {}\nunevictable 0\n",
        system.mem_cached, system.mem_shared, system.mem_cached
    )
    .into_bytes()
}
