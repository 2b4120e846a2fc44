//! The processes of the sandbox, as `ps` would list them.

use crate::Kernel;
use crate::vfs::ProcSource;

/// One process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessSummary {
    /// Its number.
    pub pid: u32,
    /// Its parent's; 1 where nobody inside is.
    pub parent: u32,
    /// The letter of its state (proc_pid_stat(5)).
    pub state: char,
    /// How many threads it has.
    pub threads: u32,
    /// Its arguments, each with its NUL; its name where it has none.
    pub command: Vec<u8>,
    /// Its memory in pages.
    pub resident_pages: u64,
    /// The processor time that it has used, in ns.
    pub cpu_ns: u64,
}

impl Kernel {
    /// Lists the processes, in the order of their numbers.
    pub fn list_processes(&mut self) -> Vec<ProcessSummary> {
        let mut list = Vec::new();
        for pid in self.pids() {
            let cpu_ns = self.process_cpu_ns(crate::task::Tid(pid));
            let Some(facts) = self.process(pid) else { continue };
            let task =
                self.processes[&crate::task::Tid(pid)].threads.first().and_then(|tid| self.tasks.get(tid));
            let comm = task.map(|task| task.comm.borrow().clone()).unwrap_or_default();
            list.push(ProcessSummary {
                pid,
                parent: facts.ppid,
                state: facts.state.letter().0,
                threads: facts.threads,
                resident_pages: task.map_or(0, |task| task.mm.borrow().resident_pages()),
                command: self.cmdline(pid).filter(|line| !line.is_empty()).unwrap_or(comm),
                cpu_ns,
            });
        }
        list
    }
}
