//! What `/proc` is told of the processes and of the system.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::{Errno, Rlimit, SigSet};
use lg_platform::{PAGE_SIZE, Prot, UserRange};

use crate::Kernel;
use crate::ipc::Table;
use crate::mm::{Backing, MemoryManager, UserMemory, VmaFlags};
use crate::signal::{Disposition, SignalActions};
use crate::syscall::{RELEASE, VERSION};
use crate::task::{Credentials, OomAdjust, Process, ProcessState as Life, Task, TaskState, Tid};
use crate::vfs::{
    FdTable, FsState, MapFacts, Path, ProcSource, ProcessFacts, ProcessState, SystemFacts, ThreadFacts,
};

/// Longest argument or environment area that `/proc` shows, in bytes.
const MAX_STRINGS: u64 = 2 << 20;

impl Kernel {
    fn living(&self, pid: u32) -> Option<(&Process, &Task)> {
        let process = self.processes.get(&Tid(pid))?;
        let task = process.threads.first().and_then(|tid| self.tasks.get(tid))?;
        Some((process, task))
    }

    fn user_range(&self, pid: u32, pick: fn(&MemoryManager) -> UserRange) -> Option<Vec<u8>> {
        let (_, task) = self.living(pid)?;
        let range = pick(&task.mm.borrow());
        let mut bytes = vec![0; range.len().min(MAX_STRINGS) as usize];
        let got = UserMemory::new(&task.mm).read_partial(range.start.0, &mut bytes);
        bytes.truncate(got);
        Some(bytes)
    }
}

fn state_of(task: &Task) -> ProcessState {
    match task.state {
        TaskState::Runnable => ProcessState::Running,
        TaskState::Sleeping(_) => ProcessState::Sleeping,
        TaskState::Stopped => ProcessState::Stopped,
    }
}

fn caught_and_ignored(actions: &SignalActions) -> (u64, u64) {
    let (mut caught, mut ignored) = (0, 0);
    for number in 1..=u64::from(lg_abi::Signal::MAX) {
        let Some(signal) = lg_abi::Signal::new(number) else { continue };
        match actions.disposition(signal) {
            Disposition::Handle(_) => caught |= 1 << (number - 1),
            Disposition::Ignore => ignored |= 1 << (number - 1),
            Disposition::Default(_) => {}
        }
    }
    (caught, ignored)
}

impl ProcSource for Kernel {
    fn pids(&self) -> Vec<u32> {
        self.processes.keys().map(|tid| tid.0).collect()
    }

    fn runs(&self, inode: &Rc<dyn crate::vfs::Inode>) -> bool {
        self.processes.values().any(|process| {
            process.state == Life::Alive
                && process.exe.as_ref().is_some_and(|exe| Rc::ptr_eq(exe.inode(), inode))
        })
    }

    fn process(&self, pid: u32) -> Option<ProcessFacts> {
        let process = self.processes.get(&Tid(pid))?;
        let mut limits = [Rlimit::default(); 16];
        for (resource, limit) in limits.iter_mut().enumerate() {
            *limit = process.rlimits.get(resource as u64).unwrap_or_default();
        }
        let mut facts = ProcessFacts {
            pid,
            ppid: process.parent.0,
            pgrp: process.pgid.0,
            session: process.sid.0,
            threads: process.threads.len() as u32,
            utime_ns: process.used.cpu_ns,
            cutime_ns: process.children_used.cpu_ns,
            minor_faults: process.used.faults,
            start_ns: process.started_ns,
            shared_pending: process.pending.set().0,
            oom_score_adj: process.oom.get().score,
            limits,
            ..ProcessFacts::default()
        };
        match process.state {
            Life::Zombie(status) => {
                facts.state = ProcessState::Zombie;
                facts.exit_code = status.to_wait_status() as i32;
            }
            Life::Alive => {
                let (_, task) = self.living(pid)?;
                facts.state = state_of(task);
                facts.nice = task.settings.nice;
                facts.utime_ns += process
                    .threads
                    .iter()
                    .filter_map(|tid| self.tasks.get(tid))
                    .map(|task| task.cpu_ns)
                    .sum::<u64>();
                (facts.caught, facts.ignored) = caught_and_ignored(&task.actions.borrow());
                let mm = task.mm.borrow();
                facts.vsize = mm.mapped_bytes();
                facts.vsize_peak = facts.vsize;
                facts.rss_pages = mm.resident_pages();
                facts.rss_peak_pages = facts.rss_pages.max(process.used.max_resident_pages);
                facts.start_brk = mm.heap().start.0;
                for area in mm.areas() {
                    let len = area.range.len();
                    if area.prot.contains(Prot::EXEC) {
                        facts.text_bytes += len;
                        if facts.start_code == 0 {
                            (facts.start_code, facts.end_code) = (area.range.start.0, area.range.end.0);
                        }
                    } else if area.flags.contains(VmaFlags::GROWS_DOWN) {
                        facts.stack_bytes += len;
                        facts.start_stack = area.range.end.0;
                    } else if area.prot.contains(Prot::WRITE) {
                        facts.data_bytes += len;
                    }
                }
            }
        }
        Some(facts)
    }

    fn tids(&self, pid: u32) -> Vec<u32> {
        match self.processes.get(&Tid(pid)) {
            Some(process) if process.state == Life::Alive => {
                process.threads.iter().map(|tid| tid.0).collect()
            }
            Some(_) => vec![pid],
            None => Vec::new(),
        }
    }

    fn thread(&self, pid: u32, tid: u32) -> Option<ThreadFacts> {
        let Some(task) = self.tasks.get(&Tid(tid)) else {
            let process = self.processes.get(&Tid(pid)).filter(|_| pid == tid)?;
            return Some(ThreadFacts {
                tid,
                state: ProcessState::Zombie,
                start_ns: process.started_ns,
                ..ThreadFacts::default()
            });
        };
        if task.tgid != Tid(pid) {
            return None;
        }
        let creds = &task.creds;
        Some(ThreadFacts {
            tid,
            comm: task.comm.borrow().clone(),
            state: state_of(task),
            uids: [creds.uid, creds.euid, creds.suid, creds.fsuid],
            gids: [creds.gid, creds.egid, creds.sgid, creds.fsgid],
            groups: creds.groups.clone(),
            capabilities: [
                creds.inheritable,
                creds.permitted,
                creds.effective,
                creds.bounding,
                creds.ambient,
            ],
            no_new_privs: creds.no_new_privs,
            personality: task.settings.personality,
            timer_slack_ns: task.settings.timer_slack_ns,
            pending: task.pending.set().0,
            blocked: task.mask.0,
            utime_ns: task.cpu_ns,
            start_ns: self.processes.get(&Tid(pid)).map_or(0, |process| process.started_ns),
            ..ThreadFacts::default()
        })
    }

    fn pid_of(&self, tid: u32) -> Option<u32> {
        self.tasks.get(&Tid(tid)).map(|task| task.tgid.0)
    }

    fn pending_signals(&self, tid: u32) -> SigSet {
        let Some(task) = self.tasks.get(&Tid(tid)) else { return SigSet::EMPTY };
        let of_process =
            self.processes.get(&task.tgid).map_or(SigSet::EMPTY, |process| process.pending.set());
        task.pending.set().union(of_process)
    }

    fn maps(&self, pid: u32) -> Option<Vec<MapFacts>> {
        let (_, task) = self.living(pid)?;
        let mm = task.mm.borrow();
        let heap = mm.heap();
        let maps = mm.areas().map(|area| {
            let mut prot = 0;
            for (bit, value) in [
                (Prot::READ, linux::PROT_READ),
                (Prot::WRITE, linux::PROT_WRITE),
                (Prot::EXEC, linux::PROT_EXEC),
            ] {
                if area.prot.contains(bit) {
                    prot |= value;
                }
            }
            let is_heap = !area.range.intersect(heap).is_empty();
            let (file, label) = match &area.backing {
                Backing::File { description, .. } => (Some(description.path.clone()), Cow::Borrowed("")),
                Backing::Kernel(label, _) => (None, Cow::Borrowed(*label)),
                Backing::Segment(_, attachment) => {
                    let key = attachment.segment().permission.get().key;
                    (None, Cow::Owned(format!("/SYSV{key:08x} (deleted)")))
                }
                Backing::Anonymous if area.flags.contains(VmaFlags::GROWS_DOWN) => {
                    (None, Cow::Borrowed("[stack]"))
                }
                Backing::Anonymous if is_heap => (None, Cow::Borrowed("[heap]")),
                Backing::Anonymous | Backing::Shared(_) => (None, Cow::Borrowed("")),
            };
            let offset = if file.is_some() { area.offset_pages * PAGE_SIZE as u64 } else { 0 };
            MapFacts {
                start: area.range.start.0,
                end: area.range.end.0,
                prot,
                shared: area.flags.contains(VmaFlags::SHARED) && !matches!(area.backing, Backing::Kernel(..)),
                offset,
                file,
                label,
                locked: area.flags.contains(VmaFlags::LOCKED),
                rss_pages: mm.resident_in(area.range),
            }
        });
        Some(maps.collect())
    }

    fn cmdline(&self, pid: u32) -> Option<Vec<u8>> {
        self.user_range(pid, |mm| mm.arguments)
    }

    fn environ(&self, pid: u32) -> Option<Vec<u8>> {
        self.user_range(pid, |mm| mm.environment)
    }

    fn auxv(&self, pid: u32) -> Option<Vec<u8>> {
        let (_, task) = self.living(pid)?;
        Some(task.mm.borrow().auxv.clone())
    }

    fn fds(&self, pid: u32) -> Option<Rc<RefCell<FdTable>>> {
        self.living(pid).map(|(_, task)| task.fds.clone())
    }

    fn fs_state(&self, pid: u32) -> Option<Rc<RefCell<FsState>>> {
        self.living(pid).map(|(_, task)| task.fs.clone())
    }

    fn exe(&self, pid: u32) -> Option<Path> {
        self.living(pid).and_then(|(process, _)| process.exe.clone())
    }

    fn system(&self) -> SystemFacts {
        let page = PAGE_SIZE as u64;
        let runnable = self.tasks.values().filter(|task| matches!(task.state, TaskState::Runnable)).count();
        let mem_total = u64::from(self.frames.total()) * page;
        SystemFacts {
            hostname: self.hostname.clone(),
            release: RELEASE.to_owned(),
            version: VERSION.to_owned(),
            mem_total,
            mem_free: mem_total - u64::from(self.frames.used()) * page,
            uptime_ns: self.clock.monotonic_ns(),
            user_ns: self.usage().cpu_ns,
            boot_time_sec: self.clock.boot_realtime_ns() / 1_000_000_000,
            forks: self.stats.tasks_created,
            runnable: runnable as u32,
            context_switches: self.stats.task_switches,
            last_pid: self.last_tid,
            pid_max: crate::kernel::MAX_TID,
            threads_max: self.limits.processes,
            boot_id: self.boot_id,
            ..SystemFacts::default()
        }
    }

    fn ipc_table(&self, table: Table) -> String {
        self.ipc.show(table)
    }

    fn set_comm(&self, asking: u32, tid: u32, comm: &[u8]) -> Result<(), Errno> {
        let task = self.tasks.get(&Tid(tid)).ok_or(Errno::ESRCH)?;
        if self.tasks.get(&Tid(asking)).is_none_or(|other| other.tgid != task.tgid) {
            return Err(Errno::EINVAL);
        }
        task.comm.replace(comm.to_vec());
        Ok(())
    }

    fn set_oom_score_adj(&self, creds: &Credentials, pid: u32, value: i32) -> Result<(), Errno> {
        if !(OomAdjust::NEVER..=OomAdjust::MAX).contains(&value) {
            return Err(Errno::EINVAL);
        }
        let process = self.processes.get(&Tid(pid)).ok_or(Errno::ESRCH)?;
        let OomAdjust { least, .. } = process.oom.get();
        let is_privileged = creds.has_capability(linux::CAP_SYS_RESOURCE);
        if value < least && !is_privileged {
            return Err(Errno::EACCES);
        }
        process.oom.set(OomAdjust { score: value, least: if is_privileged { value } else { least } });
        Ok(())
    }
}
