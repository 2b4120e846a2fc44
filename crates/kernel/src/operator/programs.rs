//! Launching programs, talking to them through pipes, and learning of their ends.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use lg_abi::raw::general::{O_RDWR, S_IFMT, S_IFREG};
use lg_abi::{Errno, SigInfo, Signal, Winsize};

use crate::Kernel;
use crate::fs::hostio::{as_terminal, open_stream};
use crate::fs::pipe::{as_pipe, new_pipe};
use crate::fs::pty::{Master, Pty};
use crate::fs::terminal::Terminal;
use crate::kernel::{FirstProgram, StartError};
use crate::signal::SignalTarget;
use crate::task::{ExitStatus, ProcessState, Stop, Tid};
use crate::vfs::open::{OpenRequest, open};
use crate::vfs::{FdTable, File, FileDescription, FsContext, FsState, OnExec};

/// The most descriptors that a launched program is given.
const MAX_DESCRIPTORS: u64 = 64;

/// What one descriptor of a launched program is.
#[derive(Debug)]
pub enum Stdio {
    /// `/dev/null`.
    Null,
    /// A pipe that the program reads and the operator writes.
    In,
    /// A pipe that the program writes and the operator reads.
    Out,
    /// A terminal, whose other side the operator has: it reads what the program writes, echo included, and writes
    /// what is typed. The first one of a program is its controlling terminal.
    Terminal {
        /// Its size in characters.
        rows: u16,
        /// Its size in characters.
        columns: u16,
    },
    /// A descriptor of the host: a pipe, a terminal, a regular file, a socket or a character device.
    Host(OwnedFd),
    /// The same as an earlier descriptor of the program.
    Same(u32),
}

/// Why a program could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program can not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A descriptor can not be made.
    #[error("descriptor {fd} cannot be made: {errno}")]
    Descriptor {
        /// Its number in the program.
        fd: usize,
        /// Why.
        errno: Errno,
    },
}

/// A program that was launched, with the operator's ends of its pipes by descriptor number.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub process: Tid,
    /// For each [`Stdio::In`] and [`Stdio::Terminal`].
    pub writers: Vec<(u32, StreamWriter)>,
    /// For each [`Stdio::Out`] and [`Stdio::Terminal`].
    pub readers: Vec<(u32, StreamReader)>,
}

/// What the operator's ends are ends of.
#[derive(Clone, Debug)]
enum Channel {
    Pipe(Rc<FileDescription>),
    Terminal(Rc<Master>),
}

/// The operator's end of a pipe that programs write, or of a terminal.
#[derive(Debug)]
pub struct StreamReader(Channel);

impl StreamReader {
    /// Returns how many bytes are there.
    pub fn available(&self) -> usize {
        match &self.0 {
            Channel::Pipe(pipe) => as_pipe(&pipe.file).map_or(0, |pipe| pipe.len()),
            Channel::Terminal(master) => master.pty().output_len(),
        }
    }

    /// Takes what is there, up to `buf.len()` bytes. 0 is the end: no program has the pipe open any more.
    ///
    /// Errors: EAGAIN where nothing is there now; EIO where no program has the terminal open any more.
    pub fn read(&self, kernel: &Kernel, buf: &mut [u8]) -> Result<usize, Errno> {
        kernel.as_superuser(|cx| match &self.0 {
            Channel::Pipe(pipe) => pipe.file.read(cx, 0, buf),
            Channel::Terminal(master) => master.read(cx, 0, buf),
        })
    }
}

/// The operator's end of a pipe that programs read, or of a terminal. Dropping that of a pipe gives them the end of
/// the file; a terminal is hung up when its reader is dropped as well.
#[derive(Debug)]
pub struct StreamWriter(Channel);

impl StreamWriter {
    /// Writes as much of `data` as there is room for; answers how much that was.
    ///
    /// Errors: EPIPE where nobody can read it.
    pub fn write(&self, kernel: &Kernel, data: &[u8]) -> Result<usize, Errno> {
        match &self.0 {
            Channel::Pipe(pipe) => {
                // A short write to a full pipe is all or nothing; here it need not be one piece.
                let room = as_pipe(&pipe.file).map_or(0, |pipe| pipe.room());
                let data = &data[..data.len().min(room.max(1))];
                match kernel.as_superuser(|cx| pipe.file.write(cx, 0, data)) {
                    Err(Errno::EAGAIN) => Ok(0),
                    result => result,
                }
            }
            Channel::Terminal(master) => Ok(master.pty().type_in(data)),
        }
    }

    /// Changes the size of the terminal, and tells its foreground process group (SIGWINCH).
    ///
    /// Errors: ENOTTY where it is a pipe.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Errno> {
        let Channel::Terminal(master) = &self.0 else { return Err(Errno::ENOTTY) };
        master.pty().set_size(Winsize { ws_row: rows, ws_col: columns, ..Winsize::default() });
        Ok(())
    }
}

/// Makes a terminal that belongs to a user; nobody has it open yet.
fn new_terminal(cx: &FsContext<'_>, owner: u32, rows: u16, columns: u16) -> Result<Rc<Pty>, Errno> {
    let pty = cx.vfs.ptys().create(cx)?;
    pty.unlock();
    pty.set_owner(owner);
    pty.set_size(Winsize { ws_row: rows, ws_col: columns, ..Winsize::default() });
    Ok(pty)
}

impl Kernel {
    /// Launches a program whose descriptors 0, 1, 2… are as `stdio` says.
    pub fn launch_with(&mut self, program: FirstProgram, stdio: Vec<Stdio>) -> Result<Launched, LaunchError> {
        let (mut writers, mut readers) = (Vec::new(), Vec::new());
        let terminal = Terminal::new();
        let owner = program.creds.uid;
        let mut controlling: Option<Rc<Pty>> = None;
        let mut fds = self.as_superuser(FdTable::new);
        for (fd, stdio) in stdio.into_iter().enumerate() {
            let number = fd as u32;
            let description = self.as_superuser(|cx| match stdio {
                Stdio::Null => {
                    let fs = FsState::new(cx.vfs.root()?);
                    open(cx, &fs, &fs.root, b"/dev/null", &OpenRequest::new(O_RDWR, 0)).map_err(|stop| {
                        match stop {
                            Stop::Errno(errno) => errno,
                            _ => Errno::EIO,
                        }
                    })
                }
                Stdio::In => {
                    let (reader, writer) = new_pipe(cx, 0)?;
                    writers.push((number, StreamWriter(Channel::Pipe(writer))));
                    Ok(reader)
                }
                Stdio::Out => {
                    let (reader, writer) = new_pipe(cx, 0)?;
                    readers.push((number, StreamReader(Channel::Pipe(reader))));
                    Ok(writer)
                }
                Stdio::Terminal { rows, columns } => {
                    let pty = new_terminal(cx, owner, rows, columns)?;
                    let master = pty.open_master();
                    writers.push((number, StreamWriter(Channel::Terminal(master.clone()))));
                    readers.push((number, StreamReader(Channel::Terminal(master))));
                    let slave = pty.describe_slave(cx, O_RDWR)?;
                    controlling.get_or_insert(pty);
                    Ok(slave)
                }
                Stdio::Host(host) => {
                    let name = match number {
                        0 => "stdin",
                        1 => "stdout",
                        _ => "stderr",
                    };
                    open_stream(cx, host, name, &terminal)
                }
                Stdio::Same(other) => fds.get(u64::from(other)),
            });
            let made = description.and_then(|description| {
                if let Some(terminal) = as_terminal(&description.file) {
                    self.set_terminal(terminal);
                }
                fds.insert(description, OnExec::Keep, MAX_DESCRIPTORS)
            });
            made.map_err(|errno| LaunchError::Descriptor { fd, errno })?;
        }
        let process = self.launch(fds, program)?;
        if let Some(pty) = controlling {
            pty.set_session(process.0, process.0);
        }
        Ok(Launched { process, writers, readers })
    }

    /// Takes the launched processes that have ended since the last call.
    pub fn take_ended(&mut self) -> Vec<(Tid, ExitStatus)> {
        let ended: Vec<(Tid, ExitStatus)> =
            self.launched.iter().filter_map(|(tid, status)| Some((*tid, (*status)?))).collect();
        for (tid, _) in &ended {
            self.launched.remove(tid);
        }
        ended
    }

    /// Sends a signal to a process.
    ///
    /// Errors: ESRCH where there is none of that number, or it has ended.
    pub fn signal_process(&mut self, process: Tid, signal: Signal) -> Result<(), Errno> {
        self.alive(process)?;
        self.send_signal(SignalTarget::Process(process), signal, SigInfo::new(signal, SigInfo::SI_KERNEL));
        Ok(())
    }

    /// Sends a signal to every process of a process's group.
    ///
    /// Errors: as [`Kernel::signal_process`].
    pub fn signal_group_of(&mut self, process: Tid, signal: Signal) -> Result<(), Errno> {
        let group = self.alive(process)?;
        self.signal_group(group, signal);
        Ok(())
    }

    /// Sends a signal to the foreground process group of the terminal, as its keys do; without a terminal to the
    /// group of the process that the sandbox ends with.
    pub fn signal_foreground(&mut self, signal: Signal) {
        let has_members = |group: &Tid| self.processes.values().any(|process| process.pgid == *group);
        let foreground = self.terminal.as_ref().map(|terminal| Tid(terminal.foreground()));
        let group = foreground.filter(has_members).or_else(|| {
            let main = self.main.and_then(|main| self.processes.get(&main));
            main.map(|process| process.pgid)
        });
        if let Some(group) = group {
            self.signal_group(group, signal);
        }
    }

    /// Sends a signal to the process that the sandbox ends with, if there is one.
    pub fn signal_main(&mut self, signal: Signal) {
        if let Some(main) = self.main {
            // One that is gone needs no signal.
            let _ = self.signal_process(main, signal);
        }
    }

    /// Sends SIGKILL to a process and to everything that descends from it.
    ///
    /// Errors: as [`Kernel::signal_process`].
    pub fn kill_tree(&mut self, process: Tid) -> Result<(), Errno> {
        self.alive(process)?;
        let mut tree = HashSet::from([process]);
        loop {
            let children: Vec<Tid> = self
                .processes
                .values()
                .filter(|child| tree.contains(&child.parent) && !tree.contains(&child.tgid))
                .map(|child| child.tgid)
                .collect();
            if children.is_empty() {
                break;
            }
            tree.extend(children);
        }
        for process in tree {
            // A zombie among them needs none.
            let _ = self.signal_process(process, Signal::SIGKILL);
        }
        Ok(())
    }

    /// Returns the group of a living process.
    fn alive(&self, process: Tid) -> Result<Tid, Errno> {
        let process = self.processes.get(&process).filter(|process| process.state == ProcessState::Alive);
        process.map(|process| process.pgid).ok_or(Errno::ESRCH)
    }

    pub(crate) fn signal_group(&mut self, group: Tid, signal: Signal) {
        let members: Vec<Tid> = self
            .processes
            .values()
            .filter(|process| process.pgid == group)
            .map(|process| process.tgid)
            .collect();
        for tgid in members {
            self.send_signal(SignalTarget::Process(tgid), signal, SigInfo::new(signal, SigInfo::SI_KERNEL));
        }
    }
}

/// Says whether a mode is that of a regular file.
pub(super) fn is_regular(mode: u32) -> bool {
    mode & S_IFMT == S_IFREG
}
