//! Replacing a process's program: execve(2).

use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::{Errno, SigStack};
use lg_platform::{FpuState, PAGE_SIZE, Prot, Regs, USER_END, UserAddr, UserRange};

use super::{Stop, Tid};
use crate::Kernel;
use crate::loader::{AuxFacts, ElfHeader, ElfKind, HEAD_LEN, build_stack, load, parse_script, stack_bytes};
use crate::mm::{Backing, MemoryManager, Place, UserMemory, Vma, VmaFlags};
use crate::vfs::open::check_executable;
use crate::vfs::{FileDescription, Final, Inode, Path, close_removed};

/// How many `#!` interpreters may stand in line.
const MAX_INTERPRETERS: u32 = 5;

/// Longest argument or environment string (Linux's MAX_ARG_STRLEN).
pub const MAX_STRING: usize = 32 * PAGE_SIZE;

/// Bytes that arguments and environment may have together.
const MAX_ARGUMENTS: u64 = 2 << 20;

/// What execve(2) asks for.
pub struct ExecRequest {
    /// Path of the program, relative to the working directory.
    pub path: Vec<u8>,
    /// The open program, where the caller has it (execveat(2) with AT_EMPTY_PATH).
    pub file: Option<Program>,
    /// Its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Its environment.
    pub envp: Vec<Vec<u8>>,
}

/// An open program.
#[derive(Clone)]
pub struct Program {
    /// Its inode.
    pub inode: Rc<dyn Inode>,
    /// It, opened for reading.
    pub description: Rc<FileDescription>,
    /// Its name.
    pub path: Path,
}

impl ExecRequest {
    /// Returns the request to run the program at `path`.
    pub fn from_path(path: Vec<u8>, argv: Vec<Vec<u8>>, envp: Vec<Vec<u8>>) -> ExecRequest {
        ExecRequest { path, file: None, argv, envp }
    }
}

impl Kernel {
    /// Replaces the program of the task's process. After an error before the old memory is given up the
    /// old program goes on; an error after that ends the process.
    ///
    /// Errors: as execve(2).
    pub fn exec(&mut self, tid: Tid, request: ExecRequest) -> Result<(), Stop> {
        let ExecRequest { path, file, mut argv, envp } = request;
        if argv.is_empty() {
            argv.push(Vec::new());
        }
        let mut program = match file {
            Some(program) => program,
            None => self.open_program(tid, &path)?,
        };
        let mut shown_path = path;
        let mut interpreters = 0;
        let comm = shown_path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        let header = loop {
            let mut head = [0; HEAD_LEN];
            let got = self.read_program(tid, &program, 0, &mut head)?;
            let Some(script) = parse_script(&head[..got])? else {
                let reader = |offset: u64, buf: &mut [u8]| self.read_program(tid, &program, offset, buf);
                break ElfHeader::parse(&reader)?;
            };
            interpreters += 1;
            if interpreters >= MAX_INTERPRETERS {
                return Err(Errno::ELOOP.into());
            }
            let rest = argv.split_off(1);
            argv = vec![script.interpreter.clone()];
            argv.extend(script.argument);
            argv.push(std::mem::replace(&mut shown_path, script.interpreter));
            argv.extend(rest);
            program = self.open_program(tid, &shown_path)?;
        };
        let exe = program.path.clone();
        if stack_bytes(&shown_path, &argv, &envp) > MAX_ARGUMENTS {
            return Err(Errno::E2BIG.into());
        }
        let interpreter = match &header.interpreter {
            None => None,
            Some(path) => {
                let interpreter = self.open_program(tid, path)?;
                let reader = |offset: u64, buf: &mut [u8]| self.read_program(tid, &interpreter, offset, buf);
                let header = ElfHeader::parse(&reader).map_err(|errno| match errno {
                    // As Linux: a broken interpreter is a bad library.
                    Errno::ENOEXEC => Errno::ELIBBAD,
                    other => other,
                })?;
                Some((interpreter, header))
            }
        };
        let image =
            self.build_image(tid, &program, &header, interpreter.as_ref(), &shown_path, &argv, &envp)?;
        self.commit_exec(tid, image, &exe, comm);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what a program is made of")]
    fn build_image(
        &mut self,
        tid: Tid,
        program: &Program,
        header: &ElfHeader,
        interpreter: Option<&(Program, ElfHeader)>,
        path: &[u8],
        argv: &[Vec<u8>],
        envp: &[Vec<u8>],
    ) -> Result<Image, Errno> {
        let task = self.tasks.get(&tid).ok_or(Errno::ESRCH)?;
        let (creds, settings) = (task.creds.clone(), task.settings);
        let process = self.processes.get(&task.tgid).ok_or(Errno::ESRCH)?;
        let stack_limit = process.rlimits.current(linux::RLIMIT_STACK).clamp(1 << 17, 1 << 30);
        let mut random = [0; 16 + 24];
        crate::syscall::fill_random(&mut random);
        let word = |at: usize| u64::from_le_bytes(random[at..at + 8].try_into().expect("8 bytes"));
        // As much randomness as keeps the tables few: stack, mappings and program move by up to 16 MiB.
        let fixed = settings.has_fixed_addresses();
        let pages = |at: usize| if fixed { 0 } else { (word(at) & 0xfff) * PAGE_SIZE as u64 };
        let stack_top = UserAddr(USER_END.0 - PAGE_SIZE as u64 - pages(16));
        let mmap_top =
            UserAddr((stack_top.0 - stack_limit - (1 << 20) - pages(24)) & !(PAGE_SIZE as u64 - 1));

        let mm = MemoryManager::new(&self.machine, &self.frames, mmap_top)?;
        let mm = Rc::new(RefCell::new(mm));
        let base = match header.kind {
            ElfKind::Fixed => None,
            // An interpreter started by hand goes where libraries go, so that it does not sit in the way
            // of the program that it loads.
            ElfKind::PositionIndependent if header.interpreter.is_none() => None,
            ElfKind::PositionIndependent => Some(UserAddr(0x5555_5555_4000 + pages(32))),
        };
        let loaded = load(&mm, header, &program.inode, &program.description, base)?;
        let loaded_interpreter = match interpreter {
            None => None,
            Some((program, header)) => Some(load(&mm, header, &program.inode, &program.description, None)?),
        };
        mm.borrow_mut().set_layout(loaded.end, stack_limit);
        let vdso = match &self.vdso {
            None => 0,
            Some(pages) => crate::vdso::map(&mut mm.borrow_mut(), pages)?,
        };
        let (xsave_len, _) = self.machine.borrow().xsave();
        let facts = AuxFacts {
            header,
            program: loaded,
            interpreter_base: loaded_interpreter.map_or(0, |interpreter| interpreter.bias),
            vdso,
            creds: &creds,
            random: random[..16].try_into().expect("16 bytes"),
            hwcap: self.machine.borrow().hwcap(),
            min_sigstack: xsave_len as u64 + 1024,
        };
        let stack = build_stack(stack_top, path, argv, envp, &facts);
        let start = UserAddr(stack.rsp - (128 << 10)).page_floor();
        mm.borrow_mut().map(
            Place::FixedNoReplace(start),
            stack_top.0 - start.0,
            Vma {
                range: UserRange::new(start, stack_top),
                prot: Prot::READ | Prot::WRITE,
                flags: VmaFlags::GROWS_DOWN,
                backing: Backing::Anonymous,
                offset_pages: 0,
            },
        )?;
        UserMemory::new(&mm).write(stack.rsp, &stack.bytes).map_err(|_| Errno::ENOMEM)?;
        mm.borrow_mut().arguments = stack.arguments;
        mm.borrow_mut().environment = stack.environment;
        mm.borrow_mut().auxv = stack.auxv;
        let entry = loaded_interpreter.map_or(loaded.entry, |interpreter| interpreter.entry);
        Ok(Image { mm, regs: Regs { rip: entry, rsp: stack.rsp, rflags: 0x202, ..Regs::default() } })
    }

    fn commit_exec(&mut self, tid: Tid, image: Image, exe: &Path, mut comm: Vec<u8>) {
        self.end_other_threads(tid);
        if self.loaded == Some(tid) {
            // The old state is not wanted.
            self.discard_loaded();
        }
        self.close_on_exec(tid);
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        comm.truncate(15);
        let old = std::mem::replace(&mut task.mm, image.mm);
        task.context.regs = image.regs;
        task.context.fpu = FpuState::default();
        task.comm.replace(comm);
        let mut creds = (*task.creds).clone();
        creds.follow_exec();
        task.creds = Rc::new(creds);
        task.alt_stack = SigStack { ss_flags: linux::SS_DISABLE as i32, ..SigStack::default() };
        task.clear_child_tid = 0;
        task.robust_list = 0;
        task.rseq = None;
        let mut actions = task.actions.borrow().clone();
        actions.reset_for_exec();
        task.actions = Rc::new(RefCell::new(actions));
        if let Some(done) = task.vfork_done.take() {
            done.wake_all();
        }
        task.pending.discard_timers();
        let tgid = task.tgid;
        self.drop_posix_timers(tgid);
        if let Some(process) = self.processes.get_mut(&tgid) {
            process.pending.discard_timers();
            process.exe = Some(exe.clone());
            process.has_execed = true;
            process.dumpable = 1;
        }
        self.detach_segments(&old, tgid);
        if tid != tgid {
            self.become_leader(tid, tgid);
        }
    }

    /// Gives the only thread of a process the number of the first one.
    fn become_leader(&mut self, tid: Tid, tgid: Tid) {
        let Some(mut task) = self.tasks.remove(&tid) else { return };
        // The call returns to nobody of this number.
        if let Some(call) = task.call.take() {
            self.trace_call(tid, crate::syscall::row(call.number), &call, None);
        }
        task.tid = tgid;
        self.tasks.insert(tgid, task);
        if let Some(process) = self.processes.get_mut(&tgid) {
            process.threads = vec![tgid];
        }
        self.run_queue.push(tgid);
    }

    /// Opens a program by path, with the checks of execve(2).
    fn open_program(&self, tid: Tid, path: &[u8]) -> Result<Program, Stop> {
        let task = self.tasks.get(&tid).ok_or(Errno::ESRCH)?;
        let cx = self.fs_context(task);
        let path = task.fs.borrow().lookup(&cx, path, Final::Follow)?;
        self.program_at(tid, path)
    }

    /// Opens the program that lies at a path.
    pub(crate) fn program_at(&self, tid: Tid, path: Path) -> Result<Program, Stop> {
        let task = self.tasks.get(&tid).ok_or(Errno::ESRCH)?;
        let cx = self.fs_context(task);
        check_executable(&cx, &path)?;
        let inode = path.inode().clone();
        if self.is_open_for_writing(&inode) {
            return Err(Errno::ETXTBSY.into());
        }
        let file = inode.clone().open(&cx, linux::O_RDONLY)?;
        let description = FileDescription::new(&cx, file, path.clone(), linux::O_RDONLY)?;
        description.tell(linux::IN_OPEN);
        Ok(Program { inode, description, path })
    }

    /// Says whether some process has the file open for writing. A memory file has no name by which others
    /// could run it, and may be written while it runs.
    fn is_open_for_writing(&self, inode: &Rc<dyn Inode>) -> bool {
        self.tasks.values().any(|task| {
            let fds = task.fds.borrow();
            fds.fds().into_iter().filter_map(|fd| fds.get(u64::from(fd)).ok()).any(|description| {
                Rc::ptr_eq(description.inode(), inode)
                    && description.check_writable().is_ok()
                    && !self.vfs.is_nameless(&description.path)
            })
        })
    }

    fn read_program(&self, tid: Tid, program: &Program, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let task = self.tasks.get(&tid).ok_or(Errno::ESRCH)?;
        let got = program.description.file.read(&self.fs_context(task), offset, buf)?;
        program.description.tell(linux::IN_ACCESS);
        Ok(got)
    }

    /// Closes the descriptors that do not survive an exec.
    fn close_on_exec(&mut self, tid: Tid) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        if Rc::strong_count(&task.fds) > 1 {
            // Other processes go on with the table; this one gets its own.
            let shared = task.fds.clone();
            let task = &self.tasks[&tid];
            let copy = shared.borrow().copy(&self.fs_context(task));
            if let Some(task) = self.tasks.get_mut(&tid) {
                task.fds = Rc::new(RefCell::new(copy));
            }
        }
        let Some(task) = self.tasks.get(&tid) else { return };
        let (owner, closed) = {
            let mut fds = task.fds.borrow_mut();
            (fds.lock_owner(), fds.remove_close_on_exec())
        };
        let cx = self.fs_context(task);
        closed.into_iter().for_each(|description| close_removed(&cx, owner, description));
    }
}

/// A program ready to run.
struct Image {
    mm: Rc<RefCell<MemoryManager>>,
    regs: Regs,
}
