//! What happens when the sandbox's memory is used up.

use lg_abi::Signal;

use super::{ExitStatus, Process, Tid};
use crate::Kernel;

impl Kernel {
    /// Ends the process that Linux would choose, so that `tid`, which needs a page, can have it: the one that uses
    /// most memory, adjusted by its `oom_score_adj`. A process that is about to end already goes first.
    pub(crate) fn out_of_memory(&mut self, tid: Tid) {
        let Some(own) = self.tasks.get(&tid).map(|task| task.tgid) else { return };
        let is_ending = |process: &&Process| process.exiting.is_some() && !process.threads.is_empty();
        let ending = self.processes.values().find(is_ending).map(|process| process.tgid);
        let Some(victim) = ending.or_else(|| self.heaviest_process()).or(Some(own)) else { return };
        let status = ExitStatus::Signaled { signal: Signal::SIGKILL.number(), core: false };
        self.trace_line(tid, &format!("--- out of memory: process {victim} is killed ---"));
        self.begin_exit(victim, status);
        // The caller's own process ends on its way back to user code, others would first need their turn.
        if victim != own {
            let threads = self.processes.get(&victim).map(|process| process.threads.clone());
            for thread in threads.unwrap_or_default() {
                self.end_task(thread, status);
            }
        }
    }

    /// Returns the process to end when memory is used up; `None` where none may be.
    fn heaviest_process(&self) -> Option<Tid> {
        let total = u64::from(self.frames.total());
        let weigh = |process: &Process| {
            let task = self.tasks.get(process.threads.first()?)?;
            let weight = process.oom.get().weight(task.mm.borrow().resident_pages(), total)?;
            Some((weight, process.tgid))
        };
        self.processes.values().filter_map(weigh).max_by_key(|(weight, _)| *weight).map(|(_, tgid)| tgid)
    }
}
