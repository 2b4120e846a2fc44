//! A whole kernel for tests: the mock platform, a root file system, and a process whose system calls the test
//! makes.

#![allow(missing_docs, reason = "what is public here is so for tests and benches alone")]
#![cfg_attr(not(test), allow(dead_code, reason = "tests use more of it than benches"))]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::O_RDONLY;
use lg_platform::mock::{MockPlatform, Step};
use lg_platform::{Tsc, USER_END, UserAddr};

use crate::fs::host::Image;
use crate::fs::memfs::MemLimits;
use crate::fs::root::{RootConfig, build_root};
use crate::mm::UserMemory;
use crate::task::{Credentials, Interest, Tid};
use crate::vfs::open::{OpenRequest, open};
use crate::vfs::testing::TempDir;
use crate::vfs::{FdTable, FsState};
use crate::{FirstProgram, Kernel, KernelConfig, KernelError, Limits, Supervisor};

/// Frames of the platform.
pub const FRAMES: u32 = 4096;

/// Where the program is, in a page that it may write to.
const PROGRAM: u64 = 0x40_0000;

/// A sandbox with one process in it.
pub struct Sandbox {
    pub kernel: Kernel,
    /// Its process.
    pub main: Tid,
    /// What guest code does next.
    pub script: Rc<RefCell<VecDeque<Step>>>,
    pub tsc: Rc<Cell<Option<Tsc>>>,
    pub deadline_ns: Rc<Cell<Option<u64>>>,
    /// Whether the platform fails to give a task's lazy state.
    pub is_failing: Rc<Cell<bool>>,
    image: TempDir,
}

impl Sandbox {
    /// Returns a sandbox with these limits, on a platform whose time-stamp counter counts nanoseconds.
    pub fn new(limits: Limits) -> Sandbox {
        let platform = MockPlatform::new(FRAMES);
        let (script, tsc, deadline_ns) = (platform.script(), platform.tsc_cell(), platform.deadline_cell());
        let is_failing = platform.failing_cell();
        tsc.set(Some(Tsc { ticks: 1 << 40, khz: 1_000_000 }));
        let config = KernelConfig { hostname: b"box".to_vec(), limits, trace: None };
        let mut kernel = Kernel::new(Box::new(platform), config).unwrap();
        let image = TempDir::new();
        image.write("init", program());
        let creds = Credentials::new(0, 0);
        let fds = {
            let cx = kernel.fs_context_for(&creds, Tid(0));
            let config = RootConfig {
                image: Image::Dir(image.0.clone()),
                mounts: Vec::new(),
                hostname: b"box".to_vec(),
                limits: MemLimits::default(),
                shm_pages: 1000,
            };
            build_root(&cx, &config).unwrap();
            FdTable::new(&cx)
        };
        std::fs::set_permissions(image.0.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let program = FirstProgram {
            argv: vec![b"/init".to_vec()],
            envp: Vec::new(),
            search: Vec::new(),
            workdir: b"/".to_vec(),
            creds,
        };
        let main = kernel.launch(fds, program).unwrap();
        kernel.end_with(main);
        Sandbox { kernel, main, script, tsc, deadline_ns, is_failing, image }
    }

    /// Makes a system call of the first process. It must not sleep.
    pub fn call(&mut self, number: u32, args: &[u64]) -> Result<u64, Errno> {
        let tid = self.main;
        self.call_as(tid, number, args)
    }

    /// Makes a system call of a task. It must not sleep.
    pub fn call_as(&mut self, tid: Tid, number: u32, args: &[u64]) -> Result<u64, Errno> {
        self.attempt(tid, number, args).unwrap_or_else(|| panic!("call {number} sleeps"))
    }

    /// Makes a system call of the first process; `None` if it sleeps, or if the process is asleep or has ended.
    pub fn try_call(&mut self, number: u32, args: &[u64]) -> Option<Result<u64, Errno>> {
        self.attempt(self.main, number, args)
    }

    fn attempt(&mut self, tid: Tid, number: u32, args: &[u64]) -> Option<Result<u64, Errno>> {
        let task = self.kernel.tasks.get_mut(&tid).filter(|task| task.call.is_none())?;
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let regs = &mut task.context.regs;
        [regs.rax, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] =
            [number.into(), all[0], all[1], all[2], all[3], all[4], all[5]];
        self.kernel.begin_call(tid);
        let task = self.kernel.tasks.get(&tid).filter(|task| task.call.is_none())?;
        Some(match task.context.regs.rax as i64 {
            error @ -4095..0 => Err(Errno::from_host(-error as i32)),
            value => Ok(value as u64),
        })
    }

    /// Executes these bytes as a program in the first process.
    pub fn execute(&mut self, program: &[u8]) -> Option<Result<u64, Errno>> {
        std::fs::write(self.image.0.join("program"), program).unwrap();
        std::fs::set_permissions(
            self.image.0.join("program"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let path = self.place(b"/program\0");
        self.try_call(lg_abi::raw::general::__NR_execve, &[path, 0, 0])
    }

    /// Puts bytes where the process may write, and returns the address.
    pub fn place(&mut self, bytes: &[u8]) -> u64 {
        self.try_place(bytes).unwrap()
    }

    /// Puts bytes where the process may write, if it still may, and returns the address.
    pub fn try_place(&mut self, bytes: &[u8]) -> Option<u64> {
        let task = self.kernel.tasks.get(&self.main)?;
        UserMemory::new(&task.mm).write(PROGRAM + 2048, bytes).ok()?;
        Some(PROGRAM + 2048)
    }

    /// Returns the memory of the first process.
    pub fn memory(&self) -> UserMemory {
        UserMemory::new(&self.kernel.tasks[&self.main].mm)
    }

    /// Reads a word of the first process.
    pub fn peek(&self, addr: u64) -> u64 {
        let mut word = [0; 8];
        self.memory().read(addr, &mut word).unwrap();
        u64::from_le_bytes(word)
    }

    /// Opens a file as the first process does.
    pub fn open(&mut self, path: &str, flags: u32) -> Result<u64, Errno> {
        let path = self.place(&[path.as_bytes(), b"\0"].concat());
        self.call(lg_abi::raw::general::__NR_open, &[path, flags.into(), 0o644])
    }

    /// Reads an open file of the first process from byte 0 on.
    pub fn read_fd(&mut self, fd: u64) -> String {
        let buf = self.place(&[0; 1024]);
        let len = self.call(lg_abi::raw::general::__NR_pread64, &[fd, buf, 1024, 0]).unwrap();
        let mut bytes = vec![0; len as usize];
        self.memory().read(buf, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Returns the contents of a file.
    pub fn text(&self, path: &str) -> Result<String, Errno> {
        let creds = Credentials::new(0, 0);
        let cx = self.kernel.fs_context_for(&creds, Tid(0));
        let fs = FsState::new(cx.vfs.root()?);
        let request = OpenRequest::new(O_RDONLY, 0);
        let file = open(&cx, &fs, &fs.root, path.as_bytes(), &request).map_err(|_| Errno::ENOENT)?;
        let mut buf = vec![0; 4096];
        let len = file.file.read(&cx, 0, &mut buf)?;
        buf.truncate(len);
        Ok(String::from_utf8(buf).unwrap())
    }

    /// Returns the first words of the page that the vDSO reads.
    pub fn vdso_parameters(&self) -> [u64; 3] {
        let page = self.kernel.vdso.as_ref().unwrap().page(&self.kernel.frames, 0).unwrap();
        let mut bytes = [0; 24];
        page.read(0, &mut bytes);
        [0, 8, 16].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
    }

    /// Lets so much time pass on the time-stamp counter.
    pub fn pass_ns(&self, ns: u64) {
        let tsc = self.tsc.get().unwrap();
        self.tsc.set(Some(Tsc { ticks: tsc.ticks + ns, ..tsc }));
    }

    /// Finds an address where nothing is mapped.
    pub fn free_addr() -> UserAddr {
        UserAddr(USER_END.0 / 2)
    }
}

/// The smallest program: one page at [`PROGRAM`].
fn program() -> Vec<u8> {
    let header = [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        [2u16, 62].map(u16::to_le_bytes).concat(),
        1u32.to_le_bytes().to_vec(),
        [PROGRAM, 64, 0].map(u64::to_le_bytes).concat(),
        0u32.to_le_bytes().to_vec(),
        [64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat(),
        [1u32, 7].map(u32::to_le_bytes).concat(),
        [0, PROGRAM, PROGRAM, 4096, 4096, 4096].map(u64::to_le_bytes).concat(),
    ];
    let mut file = header.concat();
    file.resize(4096, 0);
    file
}

/// A supervisor that asks for nothing.
pub struct Nobody;

impl Supervisor for Nobody {
    fn event_fds(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        Vec::new()
    }

    fn look_every_ns(&self) -> Option<u64> {
        None
    }

    fn serve(&mut self, _kernel: &mut Kernel) -> Result<(), KernelError> {
        Ok(())
    }
}
