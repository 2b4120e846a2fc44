//! Launching, streams, files and forks on the mock platform.

use std::io::{Read, Write};

use lg_abi::Errno;
use lg_abi::raw::general::{
    __NR_exit_group, __NR_fork, __NR_mknod, __NR_mmap, __NR_read, __NR_rt_sigaction, __NR_write, MAP_SHARED,
    O_RDONLY, PROT_READ, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG,
};

use super::{Depth, LaunchError, Launched, Parents, Stdio, StreamReader, WriteMode};
use crate::kernel::{FirstProgram, StartError};
use crate::task::{Credentials, ExitStatus, Tid};
use crate::testing::{FRAMES, Sandbox};
use crate::{Identity, Kernel, Limits, Signal};

/// Where the programs of [`Sandbox`] may keep bytes.
const BUFFER: u64 = 0x40_0800;

fn sandbox() -> Sandbox {
    Sandbox::new(Limits::with_memory(FRAMES))
}

fn program(name: &str) -> FirstProgram {
    FirstProgram {
        argv: vec![name.into()],
        envp: Vec::new(),
        search: vec![b"/".to_vec()],
        workdir: b"/".to_vec(),
        creds: Credentials::new(0, 0),
    }
}

fn launch(sandbox: &mut Sandbox, stdio: Vec<Stdio>) -> Launched {
    sandbox.kernel.launch_with(program("init"), stdio).unwrap()
}

fn drain(kernel: &Kernel, reader: &StreamReader) -> Result<Vec<u8>, Errno> {
    let mut buffer = [0; 100];
    reader.read(kernel, &mut buffer).map(|count| buffer[..count].to_vec())
}

impl Sandbox {
    fn write_as(&mut self, tid: Tid, fd: u64, bytes: &[u8]) -> Result<u64, Errno> {
        let memory = crate::mm::UserMemory::new(&self.kernel.tasks[&tid].mm);
        memory.write(BUFFER, bytes).unwrap();
        self.call_as(tid, __NR_write, &[fd, BUFFER, bytes.len() as u64])
    }

    fn read_as(&mut self, tid: Tid, fd: u64) -> Result<Vec<u8>, Errno> {
        let count = self.call_as(tid, __NR_read, &[fd, BUFFER, 100])?;
        let mut bytes = vec![0; count as usize];
        crate::mm::UserMemory::new(&self.kernel.tasks[&tid].mm).read(BUFFER, &mut bytes).unwrap();
        Ok(bytes)
    }

    /// Lets what has been begun (exits, signals) come to its end.
    fn settle(&mut self, tid: Tid) {
        if let Some(status) = self.kernel.processes.get(&tid).and_then(|process| process.exiting) {
            self.kernel.end_task(tid, status);
        }
    }
}

#[test]
fn a_launched_program_has_the_streams_it_was_given() {
    let mut sandbox = sandbox();
    let launched = launch(&mut sandbox, vec![Stdio::In, Stdio::Out, Stdio::Same(1), Stdio::Null]);
    let tid = launched.process;
    let [(0, writer)] = &launched.writers[..] else { panic!("{launched:?}") };
    let [(1, reader)] = &launched.readers[..] else { panic!("{launched:?}") };
    assert_eq!(writer.write(&sandbox.kernel, b"to you"), Ok(6));
    assert_eq!(sandbox.read_as(tid, 0).unwrap(), b"to you");
    assert_eq!(drain(&sandbox.kernel, reader), Err(Errno::EAGAIN));
    sandbox.write_as(tid, 1, b"out ").unwrap();
    sandbox.write_as(tid, 2, b"err").unwrap();
    assert_eq!(reader.available(), 7);
    assert_eq!(drain(&sandbox.kernel, reader).unwrap(), b"out err");
    assert_eq!(sandbox.read_as(tid, 3).unwrap(), b"");
    assert_eq!(sandbox.read_as(tid, 4), Err(Errno::EBADF));
}

#[test]
fn a_stream_ends_with_its_other_side() {
    let mut sandbox = sandbox();
    let Launched { process, writers, readers } = launch(&mut sandbox, vec![Stdio::In, Stdio::Out]);
    drop(writers);
    assert_eq!(sandbox.read_as(process, 0).unwrap(), b"");
    // It does not return.
    let _ = sandbox.call_as(process, __NR_exit_group, &[3]);
    sandbox.settle(process);
    assert_eq!(drain(&sandbox.kernel, &readers[0].1).unwrap(), b"");
    assert_eq!(sandbox.kernel.take_ended(), [(process, ExitStatus::Exited(3))]);
    assert_eq!(sandbox.kernel.take_ended(), []);
}

#[test]
fn a_full_stream_takes_what_there_is_room_for() {
    let mut sandbox = sandbox();
    let launched = launch(&mut sandbox, vec![Stdio::In]);
    let writer = &launched.writers[0].1;
    let data = vec![b'x'; 100_000];
    assert_eq!(writer.write(&sandbox.kernel, &data), Ok(65_536));
    assert_eq!(writer.write(&sandbox.kernel, &data[..10]), Ok(0));
    assert_eq!(sandbox.read_as(launched.process, 0).unwrap().len(), 100);
    assert_eq!(writer.write(&sandbox.kernel, &data), Ok(100));
}

#[test]
fn a_program_that_is_not_there_leaves_nothing() {
    let mut sandbox = sandbox();
    let (tasks, files) = (sandbox.kernel.tasks.len(), sandbox.kernel.usage().peak_open_files);
    let error = sandbox.kernel.launch_with(program("nothing"), Vec::new()).unwrap_err();
    assert!(matches!(error, LaunchError::Start(StartError::NotFound)), "{error:?}");
    assert_eq!(sandbox.kernel.tasks.len(), tasks);
    assert!(files > 0);
    let error = sandbox.kernel.launch_with(program("init"), vec![Stdio::Same(0)]).unwrap_err();
    assert!(matches!(error, LaunchError::Descriptor { fd: 0, errno: Errno::EBADF }), "{error:?}");
    assert_eq!(sandbox.kernel.take_ended(), []);
}

#[test]
fn signals_reach_processes_groups_and_trees() {
    let mut sandbox = sandbox();
    let process = launch(&mut sandbox, Vec::new()).process;
    let child = Tid(sandbox.call_as(process, __NR_fork, &[]).unwrap() as u32);
    let grandchild = Tid(sandbox.call_as(child, __NR_fork, &[]).unwrap() as u32);
    let kernel = &mut sandbox.kernel;
    let ends = |kernel: &Kernel, tid: Tid| kernel.processes[&tid].exiting.is_some();
    kernel.kill_tree(child).unwrap();
    assert_eq!([process, child, grandchild].map(|tid| ends(kernel, tid)), [false, true, true]);
    kernel.signal_process(process, Signal::SIGKILL).unwrap();
    assert!(ends(kernel, process) && !ends(kernel, sandbox.main));
    assert_eq!(kernel.signal_process(Tid(999), Signal::SIGTERM), Err(Errno::ESRCH));
    for tid in [grandchild, child, process] {
        sandbox.settle(tid);
    }
    assert_eq!(sandbox.kernel.signal_process(process, Signal::SIGTERM), Err(Errno::ESRCH));
}

#[test]
fn only_processes_with_a_handler_are_told_of_a_fork() {
    let mut sandbox = sandbox();
    let (with, without) = (launch(&mut sandbox, Vec::new()).process, sandbox.main);
    // struct sigaction: a handler, no flags, no restorer, no mask.
    let action = [0x40_0000u64, 0x400_0000, 0, 0].map(u64::to_le_bytes).concat();
    crate::mm::UserMemory::new(&sandbox.kernel.tasks[&with].mm).write(BUFFER, &action).unwrap();
    sandbox.call_as(with, __NR_rt_sigaction, &[18, BUFFER, 0, 8]).unwrap();
    sandbox.kernel.signal_handlers(Signal::SIGCONT);
    let pending = |tid: Tid| {
        let kernel = &sandbox.kernel;
        kernel.tasks[&tid].pending.set().union(kernel.processes[&tid].pending.set()).0 != 0
    };
    assert_eq!((pending(with), pending(without)), (true, false));
}

#[test]
fn processes_are_listed_with_what_they_use() {
    let mut sandbox = sandbox();
    let process = launch(&mut sandbox, Vec::new()).process;
    let list = sandbox.kernel.list_processes();
    let found = list.iter().find(|summary| summary.pid == process.0).unwrap();
    assert_eq!((found.parent, found.threads, found.state), (1, 1, 'R'));
    assert!(found.command.starts_with(b"init") || found.command.starts_with(b"/init"), "{found:?}");
    assert!(found.resident_pages > 0);
    assert_eq!(list.len(), 2);
}

#[test]
fn files_are_written_read_and_told_of() {
    let sandbox = sandbox();
    let kernel = &sandbox.kernel;
    kernel.make_dir(b"/made/deep/er", 0o750, Parents::Made).unwrap();
    kernel.make_dir(b"/made/deep/er", 0o750, Parents::Made).unwrap();
    assert_eq!(kernel.make_dir(b"/made/deep/er", 0o750, Parents::Required), Err(Errno::EEXIST));
    assert_eq!(kernel.make_dir(b"/none/at/all", 0o750, Parents::Required), Err(Errno::ENOENT));
    let path = b"/made/deep/er/file";
    assert_eq!(kernel.write_file(path, 0, b"x", WriteMode::Into, 0), Err(Errno::ENOENT));
    kernel.write_file(path, 0, b"hello world", WriteMode::New, 0o640).unwrap();
    assert_eq!(kernel.write_file(path, 0, b"x", WriteMode::New, 0o640), Err(Errno::EEXIST));
    kernel.write_file(path, 6, b"there", WriteMode::Into, 0).unwrap();
    assert_eq!(kernel.read_file(path, 0, 100).unwrap(), b"hello there");
    assert_eq!(kernel.read_file(path, 6, 3).unwrap(), b"the");
    assert_eq!(kernel.read_file(path, 50, 3).unwrap(), b"");
    let facts = kernel.stat_file(path).unwrap();
    assert_eq!((facts.mode, facts.size), (S_IFREG | 0o640, 11));
    kernel.write_file(path, 0, b"short", WriteMode::Replace, 0o600).unwrap();
    assert_eq!(kernel.read_file(path, 0, 100).unwrap(), b"short");
    kernel.rename_file(path, b"/made/other").unwrap();
    kernel.write_file(path, 0, b"new", WriteMode::New, 0o600).unwrap();
    assert_eq!(kernel.rename_file(path, b"/made/other"), Err(Errno::EEXIST));
    let (entries, next) = kernel.list_dir(b"/made", 0).unwrap();
    let mut names: Vec<_> = entries.iter().map(|entry| (&entry.name[..], entry.file_type)).collect();
    names.sort_unstable();
    assert_eq!((names, next), (vec![(&b"deep"[..], S_IFDIR), (b"other", S_IFREG)], None));
    assert_eq!(kernel.remove(b"/made", Depth::One), Err(Errno::ENOTEMPTY));
    kernel.remove(b"/made", Depth::All).unwrap();
    assert_eq!(kernel.stat_file(b"/made"), Err(Errno::ENOENT));
}

#[test]
fn a_mapping_shows_what_a_file_was_replaced_with() {
    let mut sandbox = sandbox();
    sandbox.kernel.write_file(b"/mapped", 0, b"old contents", WriteMode::New, 0o600).unwrap();
    let fd = sandbox.open("/mapped", O_RDONLY).unwrap();
    let at = sandbox.call(__NR_mmap, &[0, 4096, PROT_READ.into(), MAP_SHARED.into(), fd, 0]).unwrap();
    let seen = |sandbox: &Sandbox| {
        let mut bytes = [0; 12];
        sandbox.memory().read(at, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(&seen(&sandbox), b"old contents");
    sandbox.kernel.write_file(b"/mapped", 0, b"new ones", WriteMode::Replace, 0o600).unwrap();
    assert_eq!(&seen(&sandbox), b"new ones\0\0\0\0");
}

#[test]
fn a_very_deep_directory_is_removed_with_all_that_is_in_it() {
    let sandbox = sandbox();
    let path = format!("/top{}", "/d".repeat(1500));
    sandbox.kernel.make_dir(path.as_bytes(), 0o755, Parents::Made).unwrap();
    sandbox.kernel.remove(b"/top", Depth::All).unwrap();
    assert_eq!(sandbox.kernel.stat_file(b"/top"), Err(Errno::ENOENT));
}

#[test]
fn what_is_no_regular_file_is_refused_and_never_waited_for() {
    let mut sandbox = sandbox();
    let path = sandbox.place(b"/fifo\0");
    sandbox.call(__NR_mknod, &[path, u64::from(S_IFIFO | 0o600), 0]).unwrap();
    let kernel = &sandbox.kernel;
    assert_eq!(kernel.read_file(b"/fifo", 0, 10), Err(Errno::EINVAL));
    assert!(kernel.write_file(b"/fifo", 0, b"x", WriteMode::Into, 0).is_err());
    assert_eq!(kernel.read_file(b"/dev/zero", 0, 10), Err(Errno::EINVAL));
    assert_eq!(kernel.read_file(b"/", 0, 10), Err(Errno::EISDIR));
    assert_eq!(kernel.stat_file(b"/dev/stdin").unwrap().mode & S_IFMT, S_IFLNK);
    assert!(kernel.stat_file(b"/dev/stdin").unwrap().link.is_some());
}

#[test]
fn a_fork_has_no_streams_of_the_host() {
    let mut sandbox = sandbox();
    let (mut host_reader, guest_writer) = std::io::pipe().unwrap();
    let (guest_reader, mut host_writer) = std::io::pipe().unwrap();
    let stdio = vec![Stdio::Host(guest_reader.into()), Stdio::Host(guest_writer.into()), Stdio::Out];
    let launched = launch(&mut sandbox, stdio);
    let tid = launched.process;
    sandbox.write_as(tid, 1, b"before").unwrap();
    host_writer.write_all(b"unread").unwrap();
    sandbox.kernel.prepare_fork().unwrap();
    sandbox.kernel.after_fork().unwrap();
    sandbox.kernel.become_fork(Identity::default()).unwrap();
    assert_eq!(sandbox.read_as(tid, 0).unwrap(), b"");
    assert_eq!(sandbox.write_as(tid, 1, b"nowhere").unwrap(), 7);
    sandbox.write_as(tid, 2, b"a pipe stays").unwrap();
    assert_eq!(drain(&sandbox.kernel, &launched.readers[0].1).unwrap(), b"a pipe stays");
    // The other end is closed, so it reads to the end.
    let mut text = String::new();
    host_reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before");
}
