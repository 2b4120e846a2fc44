//! `/proc` and `/sys`, with two made-up processes.

use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::raw::general::*;
use lg_abi::{Errno, Rlimit};

use super::sandbox;
use crate::fs::host::Image;
use crate::vfs::testing::{TempDir, World, user_creds};
use crate::vfs::{
    FdTable, FsState, MapFacts, OnExec, Path, ProcSource, ProcessFacts, ProcessState, SystemFacts,
    ThreadFacts,
};

/// Process 1, which asks, has the threads 1 and 5; process 9 is another user's.
struct TwoProcesses {
    fds: Rc<RefCell<FdTable>>,
    fs: Rc<RefCell<FsState>>,
    exe: Path,
}

impl ProcSource for TwoProcesses {
    fn pids(&self) -> Vec<u32> {
        vec![1, 9]
    }
    fn runs(&self, _inode: &Rc<dyn crate::vfs::Inode>) -> bool {
        false
    }

    fn process(&self, pid: u32) -> Option<ProcessFacts> {
        [1, 9].contains(&pid).then(|| ProcessFacts {
            pid,
            ppid: pid - 1,
            state: ProcessState::Running,
            threads: 2,
            vsize: 8192,
            limits: [Rlimit { cur: 7, max: u64::MAX }; 16],
            ..ProcessFacts::default()
        })
    }
    fn tids(&self, pid: u32) -> Vec<u32> {
        if pid == 1 { vec![1, 5] } else { vec![9] }
    }
    fn thread(&self, pid: u32, tid: u32) -> Option<ThreadFacts> {
        let uids = [if pid == 1 { 0 } else { 1000 }; 4];
        self.tids(pid).contains(&tid).then(|| ThreadFacts {
            tid,
            comm: b"a (b) c".to_vec(),
            uids,
            gids: uids,
            ..ThreadFacts::default()
        })
    }
    fn pid_of(&self, tid: u32) -> Option<u32> {
        match tid {
            1 | 5 => Some(1),
            9 => Some(9),
            _ => None,
        }
    }
    fn pending_signals(&self, _tid: u32) -> lg_abi::SigSet {
        lg_abi::SigSet::EMPTY
    }
    fn maps(&self, _pid: u32) -> Option<Vec<MapFacts>> {
        let map = |file, label: &'static str| MapFacts {
            start: 0x1000,
            end: 0x3000,
            prot: PROT_READ | PROT_EXEC,
            shared: false,
            offset: 0x2000,
            file,
            label: label.into(),
            locked: false,
            rss_pages: 1,
        };
        Some(vec![map(Some(self.exe.clone()), ""), map(None, "[heap]")])
    }
    fn cmdline(&self, _pid: u32) -> Option<Vec<u8>> {
        Some(b"prog\0arg\0".to_vec())
    }
    fn environ(&self, _pid: u32) -> Option<Vec<u8>> {
        Some(b"SECRET=1\0".to_vec())
    }
    fn auxv(&self, _pid: u32) -> Option<Vec<u8>> {
        None
    }
    fn fds(&self, _pid: u32) -> Option<Rc<RefCell<FdTable>>> {
        Some(self.fds.clone())
    }
    fn fs_state(&self, _pid: u32) -> Option<Rc<RefCell<FsState>>> {
        Some(self.fs.clone())
    }
    fn exe(&self, _pid: u32) -> Option<Path> {
        Some(self.exe.clone())
    }
    fn system(&self) -> SystemFacts {
        SystemFacts {
            hostname: b"box".to_vec(),
            release: "6.1.0".into(),
            mem_total: 1 << 30,
            mem_free: 1 << 29,
            boot_id: [0xab; 16],
            ..SystemFacts::default()
        }
    }
    fn ipc_table(&self, table: crate::ipc::Table) -> String {
        format!("{table:?}\n")
    }
    fn set_comm(&self, _asking: u32, _tid: u32, comm: &[u8]) -> Result<(), Errno> {
        if comm == b"new" { Ok(()) } else { Err(Errno::EINVAL) }
    }
    fn set_oom_score_adj(
        &self,
        _creds: &crate::task::Credentials,
        _pid: u32,
        value: i32,
    ) -> Result<(), Errno> {
        if value == -5 { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

fn world() -> World {
    let mut world = sandbox(Image::Dir(TempDir::new().0.clone()), &[]);
    world.mkdir("/with blank").unwrap();
    world.write("/prog", b"x");
    world.fs.cwd = world.path("/with blank").unwrap();
    let mut fds = FdTable::new(&world.cx());
    for path in ["/prog", "/dev/null"] {
        fds.insert(world.open(path, O_RDONLY).unwrap(), OnExec::Close, 100).unwrap();
    }
    world.procs = Box::new(TwoProcesses {
        fds: Rc::new(RefCell::new(fds)),
        fs: Rc::new(RefCell::new(world.fs.clone())),
        exe: world.path("/prog").unwrap(),
    });
    world
}

#[test]
fn a_process_finds_itself_and_others() {
    let world = world();
    assert_eq!(world.show(&world.path("/proc/self").unwrap()), "/proc/1");
    assert_eq!(world.show(&world.path("/proc/thread-self").unwrap()), "/proc/1/task/1");
    assert_eq!(world.read("/proc/self/cmdline").unwrap(), b"prog\0arg\0");
    assert_eq!(world.text("/proc/self/comm"), "a (b) c\n");
    assert_eq!(world.list("/proc/1/task").unwrap(), ["1", "5"]);
    let names = world.list("/proc").unwrap();
    for name in ["1", "9", "self", "meminfo", "sys"] {
        assert!(names.iter().any(|there| there == name), "{name}");
    }
    assert!(!names.contains(&"5".to_owned()));
    for gone in ["/proc/5/x", "/proc/7", "/proc/01", "/proc/1/task/9", "/proc/+1"] {
        assert_eq!(world.path(gone).err(), Some(Errno::ENOENT), "{gone}");
    }
    let stat = world.text("/proc/self/stat");
    assert!(stat.starts_with("1 (a (b) c) R 0 "), "{stat}");
    assert_eq!(stat.rsplit(") ").next().unwrap().split(' ').count(), 50);
    assert!(world.text("/proc/self/status").contains("\nUid:\t0\t0\t0\t0\n"));
    assert!(world.text("/proc/self/limits").contains("Max open files            7 "));
}

#[test]
fn magic_links_lead_to_the_very_objects() {
    let world = world();
    assert_eq!(world.show(&world.path("/proc/self/cwd").unwrap()), "/with blank");
    assert_eq!(world.show(&world.path("/proc/self/exe").unwrap()), "/prog");
    assert_eq!(world.list("/proc/self/fd").unwrap(), ["0", "1"]);
    assert_eq!(world.text("/proc/self/fd/0"), "x");
    assert_eq!(world.text("/dev/stdin"), "x");
    world.unlink("/prog").unwrap();
    assert_eq!(world.text("/proc/self/fd/0"), "x");
    assert_eq!(world.show(&world.path("/proc/self/fd/0").unwrap()), "/prog (deleted)");
    assert_eq!(world.text("/proc/self/fdinfo/0").lines().nth(1).unwrap(), "flags:\t02100000");
    assert_eq!(world.path("/proc/self/fd/2").err(), Some(Errno::ENOENT));
}

#[test]
fn maps_and_mounts_have_the_format_of_linux() {
    let world = world();
    let maps = world.text("/proc/self/maps");
    let line = maps.lines().next().unwrap();
    assert!(line.starts_with("00001000-00003000 r-xp 00002000 00:"), "{line}");
    assert_eq!(line.find("/prog"), Some(73), "{line}");
    assert!(maps.lines().nth(1).unwrap().ends_with("[heap]"));
    let mounts = world.text("/proc/mounts");
    assert!(mounts.contains("\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n"), "{mounts}");
    assert_eq!(world.text("/proc/self/mountinfo").lines().count(), mounts.lines().count());
}

#[test]
fn others_can_not_look_into_a_process() {
    let mut world = world();
    assert_eq!(world.read("/proc/9/environ").unwrap(), b"SECRET=1\0");
    world.creds = user_creds(2000);
    assert_eq!(world.read("/proc/9/environ"), Err(Errno::EACCES));
    assert_eq!(world.path("/proc/9/exe").err(), Some(Errno::EACCES));
    assert_eq!(world.list("/proc/9/fd").map(|_| ()), Ok(()));
    assert_eq!(world.open("/proc/9/fd", O_RDONLY).err(), Some(Errno::EACCES));
    assert!(world.read("/proc/9/stat").is_ok());
    world.creds = user_creds(1000);
    assert!(world.read("/proc/9/environ").is_ok());
}

#[test]
fn only_what_may_be_set_can_be_set() {
    let world = world();
    let write = |path: &str, text: &str| {
        world.open(path, O_WRONLY | O_TRUNC)?.file.write(&world.cx(), 0, text.as_bytes())
    };
    assert_eq!(write("/proc/self/comm", "new\0rest"), Ok(8));
    assert_eq!(write("/proc/self/oom_score_adj", "-5\n"), Ok(3));
    assert_eq!(write("/proc/self/oom_score_adj", "much"), Err(Errno::EINVAL));
    assert_eq!(write("/proc/sys/kernel/hostname", "x"), Err(Errno::EPERM));
    assert_eq!(write("/proc/self/stat", "x"), Err(Errno::EPERM));
    assert_eq!(world.mkdir("/proc/new").err(), Some(Errno::EROFS));
    assert_eq!(world.unlink("/proc/version"), Err(Errno::EROFS));
}

#[test]
fn the_system_is_the_sandbox() {
    let world = world();
    assert!(
        world.text("/proc/meminfo").starts_with("MemTotal:        1048576 kB\nMemFree:          524288 kB\n")
    );
    assert_eq!(world.text("/proc/sys/kernel/hostname"), "box\n");
    assert_eq!(world.text("/proc/sys/kernel/random/boot_id"), "abababab-abab-abab-abab-abababababab\n");
    let uuid = || world.text("/proc/sys/kernel/random/uuid");
    assert_ne!(uuid(), uuid());
    assert_eq!(uuid().as_bytes()[14], b'4');
    assert_eq!(world.text("/proc/cpuinfo").matches("processor").count(), 1);
    assert_eq!(world.text("/sys/devices/system/cpu/online"), "0\n");
    let version = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_ne!(world.text("/proc/sys/kernel/random/boot_id"), version);
}

#[test]
fn every_file_can_be_read_and_every_link_be_shown() {
    let world = world();
    let mut files = 0;
    let mut todo = vec!["/proc".to_owned(), "/sys".to_owned()];
    while let Some(dir) = todo.pop() {
        for name in world.list(&dir).unwrap() {
            let path = format!("{dir}/{name}");
            match world.attr(&path).unwrap().mode & S_IFMT {
                S_IFDIR => todo.push(path),
                // There is no stack in the kernel to be shown.
                S_IFREG if name == "stack" => assert_eq!(world.read(&path).err(), Some(Errno::EPERM)),
                S_IFREG => drop(world.read(&path).unwrap_or_else(|errno| panic!("{path}: {errno}"))),
                _ => drop(world.link_path(&path).unwrap().inode().read_link(&world.cx()).map(|_| ())),
            }
            files += 1;
        }
    }
    assert!(files > 150, "{files}");
}
