//! What is told of a sandbox after its end.

use lg_control::{Exits, Outcome, Stats, SyscallCount};
use lg_kernel::syscall::row;
use lg_kernel::task::ExitStatus;
use lg_kernel::{End, Kernel};

/// Returns the outcome that an end amounts to.
pub fn outcome(end: End) -> Outcome {
    match end {
        End::Exited(ExitStatus::Exited(code)) => Outcome::Exited(code),
        End::Exited(ExitStatus::Signaled { signal, .. }) => Outcome::Signaled(signal),
        End::TimedOut => Outcome::TimedOut,
        End::Killed => Outcome::Killed,
        End::LimitReached(limit) => Outcome::LimitReached(limit.to_string()),
    }
}

/// Returns how a program ended.
pub fn exit_status(status: ExitStatus) -> lg_control::ExitStatus {
    match status {
        ExitStatus::Exited(code) => lg_control::ExitStatus::Exited(code),
        ExitStatus::Signaled { signal, .. } => lg_control::ExitStatus::Signaled(signal),
    }
}

/// Returns what is told of a file.
pub fn file(facts: lg_kernel::operator::FileFacts) -> lg_control::FileFacts {
    let lg_kernel::operator::FileFacts { mode, size, uid, gid, modified_ns, link } = facts;
    lg_control::FileFacts { mode, size, uid, gid, modified_ns, link }
}

/// Returns what is told of a process.
pub fn process(summary: lg_kernel::operator::ProcessSummary) -> lg_control::ProcessInfo {
    lg_control::ProcessInfo {
        pid: summary.pid,
        parent: summary.parent,
        state: summary.state,
        threads: summary.threads,
        command: summary.command,
        memory_bytes: summary.resident_pages * lg_kernel::PAGE_BYTES,
        cpu_time: std::time::Duration::from_nanos(summary.cpu_ns),
    }
}

/// Copies the kernel's counters.
pub fn collect(kernel: &Kernel, stats: &mut Stats) {
    let counted = kernel.stats();
    stats.syscalls.clear();
    stats.polled_syscalls = kernel.calls_without_exit();
    stats.exits = Exits {
        syscalls: counted.syscall_traps.saturating_sub(stats.polled_syscalls),
        page_faults: counted.fault_exits,
        exceptions: counted.exception_exits,
        interrupts: counted.interrupt_exits,
    };
    for (number, call) in &counted.calls {
        let row = row(*number);
        let name = row.map_or_else(|| format!("syscall_{number}"), |row| row.name.to_owned());
        if row.is_none_or(|row| row.handler.is_none()) {
            stats.unsupported_syscalls.insert(name.clone(), call.calls);
        }
        stats.syscalls.push(SyscallCount { name, count: call.calls, errors: call.errors });
    }
    stats.syscalls.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    stats.peak_memory_bytes = kernel.peak_memory_bytes();
    stats.page_table_bytes = kernel.table_bytes();
    let used = kernel.usage();
    stats.peak_processes = u64::from(used.peak_processes);
    stats.peak_open_files = u64::from(used.peak_open_files);
    stats.peak_file_bytes = used.peak_file_bytes;
    stats.output_bytes = used.output_bytes;
    stats.processes_created = counted.tasks_created;
    stats.cpu_time_ns = kernel.cpu_time_ns();
}
