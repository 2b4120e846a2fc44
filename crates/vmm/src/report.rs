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
        End::LimitReached(limit) => Outcome::Failed(format!("the limit of {limit} is reached")),
    }
}

/// Copies the kernel's counters.
pub fn collect(kernel: &Kernel, stats: &mut Stats) {
    let counted = kernel.stats();
    stats.exits = Exits {
        syscalls: counted.syscall_exits,
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
    stats.processes_created = counted.tasks_created;
    stats.cpu_time_ns = kernel.cpu_time_ns();
}
