//! The served end of a control connection: requests in, replies and events out, between two turns of the kernel.
//!
//! ```text
//!              Freeze                       Fork: a child of the runtime
//!   running ----------> frozen (template) -----------------------------> running
//!    ^   |  Fork: the same, from the middle of whatever it does             ^
//!    |   +------------------------------------------------------------------+
//!    |   Pause
//!    +----------> paused          Kill, or the end of the connection: the sandbox ends
//!       Resume
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use lg_control::{
    Call, Event, Fault, FaultKind, ForkSpec, FrameError, Inbox, Outcome, Reply, Report, Request, SignalScope,
    Stats, Waiting, Wall, encode_into, send_with_descriptors,
};
use lg_kernel::operator::{Depth, Parents};
use lg_kernel::task::{Interest, Tid};
use lg_kernel::{Kernel, KernelError, Signal, Supervisor};
use nix::sys::signal::{SigSet, Signal as HostSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::host::{self, Side};
use crate::streams::{Drained, Streams, fault};
use crate::{build, describe, nanoseconds, report};

/// Programs are not asked for more output while so many bytes wait for the socket.
const OUTBOX_BYTES: usize = 1 << 20;
/// How often programs are asked for output while guest code runs on, in ns.
const LOOK_EVERY_NS: u64 = 10_000_000;

/// How often a message is sent again for which the host has no memory, where nothing else is to be done.
const MOST_SENDS: u32 = 1000;
/// Between two of these, in ns.
const SEND_AGAIN_NS: i64 = 1_000_000;

/// The host signal that says that something has arrived. It is blocked, and lets KVM_RUN return.
pub const INPUT_SIGNAL: i32 = HostSignal::SIGIO as i32;

/// What the sandbox is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Guest code runs.
    Running,
    /// It is stopped until it is told to go on.
    Paused,
    /// It is a template.
    Frozen,
}

/// One end of a control connection, with everything that is under way.
pub struct Server {
    socket: UnixStream,
    inbox: Inbox,
    /// Events that the socket has not taken yet, encoded.
    outbox: Vec<u8>,
    /// Takes the signal that says that something has arrived.
    input_signal: SignalFd,
    streams: Streams,
    /// Programs that have ended and have output inside.
    ended: Vec<(u32, lg_control::ExitStatus)>,
    mode: Mode,
    /// Whether anybody listens.
    open: bool,
    /// Why the connection was given up, if it was.
    broken: Option<FrameError>,
    /// What the sandbox has cost, as far as the vmm knows.
    stats: Stats,
    /// When the sandbox began to run.
    running_since: Instant,
}

/// Why the host does not let a connection be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The signal for input can not be had.
    #[error("cannot be told of requests")]
    Signal(#[source] io::Error),
}

impl Server {
    /// Serves the connection; `inbox` is what has arrived on it, and `input_signal` what [`input_signal`] answered for it.
    pub fn new(socket: UnixStream, inbox: Inbox, input_signal: SignalFd) -> Server {
        Server {
            socket,
            inbox,
            outbox: Vec::new(),
            input_signal,
            streams: Streams::default(),
            ended: Vec::new(),
            mode: Mode::Running,
            open: true,
            broken: None,
            stats: Stats::default(),
            running_since: Instant::now(),
        }
    }

    /// Notes which walls stand. Forks have the same. This may be another process than the one that was begun in.
    ///
    /// # Errors
    /// When it can not be told of requests.
    pub fn jailed(&mut self, walls: Vec<Wall>) -> Result<(), ServerError> {
        self.stats.walls = walls;
        host::signal_on_input(self.socket.as_fd()).map_err(ServerError::Signal)
    }

    /// Says that the sandbox is there.
    pub fn ready(&mut self, spawn_ns: u64) {
        self.stats.spawn_ns = spawn_ns;
        self.running_since = Instant::now();
        self.queue(Event::Ready { spawn_ns });
        self.flush(Waiting::Never);
    }

    /// Says that the sandbox is over: the last of what programs wrote, then the report.
    pub fn finish(mut self, kernel: Option<&mut Kernel>, outcome: Outcome) {
        if let Some(kernel) = kernel {
            self.stats.wall_ns = nanoseconds(self.running_since);
            // What has failed ends as no program would.
            if !matches!(outcome, Outcome::Failed(_)) {
                self.collect(kernel);
            }
            report::collect(kernel, &mut self.stats);
        }
        let outcome = match &self.broken {
            Some(error) => Outcome::Failed(describe(error)),
            None => outcome,
        };
        let report = Report { outcome, stats: std::mem::take(&mut self.stats) };
        self.queue(Event::Ended(Box::new(report)));
        self.flush(Waiting::Blocks);
    }

    fn queue(&mut self, event: Event) {
        if let Err(error) = encode_into(&event, &mut self.outbox) {
            // The runtime would wait for it for ever.
            self.broken.get_or_insert(error);
        }
    }

    /// Sends what waits. A runtime that is gone shows when the socket is read.
    fn flush(&mut self, waiting: Waiting) {
        let (mut sent, mut tries) = (0, 0);
        while sent < self.outbox.len() {
            let rest = &self.outbox[sent..];
            let result = match waiting {
                Waiting::Blocks => send_with_descriptors(self.socket.as_fd(), rest, &[]),
                Waiting::Never => send_now(self.socket.as_fd(), rest),
            };
            match result {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_short_of_memory(&error) && waiting == Waiting::Never => break,
                Err(error) if is_short_of_memory(&error) && tries < MOST_SENDS => {
                    tries += 1;
                    pause();
                }
                Err(_) => {
                    sent = self.outbox.len();
                    self.open = false;
                }
            }
        }
        self.outbox.drain(..sent);
    }

    /// Receives and serves everything that has arrived, in a fork nothing more of the original's.
    fn receive(&mut self, kernel: &mut Kernel, mut waiting: Waiting) -> Result<(), KernelError> {
        while self.open && self.broken.is_none() {
            if self.outbox.len() >= OUTBOX_BYTES {
                self.flush(waiting);
                if self.outbox.len() >= OUTBOX_BYTES {
                    // Who does not take the answers gets no more of them.
                    return Ok(());
                }
            }
            match self.inbox.take_call() {
                Ok(Some((call, descriptors))) => {
                    waiting = Waiting::Never;
                    if self.call(kernel, call, descriptors)? == Side::Fork {
                        return Ok(());
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    self.broken = Some(error);
                    return Ok(());
                }
            }
            match self.inbox.fill(self.socket.as_fd(), waiting) {
                Ok(0) => self.open = false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.open = false,
                Err(error) => self.broken = Some(error.into()),
            }
        }
        Ok(())
    }

    /// Serves one call. Answers on which side of a fork this process is afterwards.
    fn call(
        &mut self,
        kernel: &mut Kernel,
        call: Call,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Side, KernelError> {
        let id = call.id;
        let result = match call.request {
            Request::Fork(spec) => return Ok(self.fork(kernel, &spec, descriptors)),
            Request::Kill => {
                kernel.kill_all();
                Ok(Reply::Done)
            }
            Request::WriteStream { process, fd, bytes } => {
                match self.streams.write((process, fd), id, bytes) {
                    // The reply comes when it is written.
                    Ok(()) => return Ok(Side::Original),
                    Err(fault) => Err(fault),
                }
            }
            request => self.answer(kernel, request, descriptors),
        };
        if id != 0 {
            self.queue(Event::Reply { id, result });
        }
        Ok(Side::Original)
    }

    fn answer(
        &mut self,
        kernel: &mut Kernel,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, Fault> {
        let wrong_state = |message: &str| Fault::new(FaultKind::State, message);
        let invalid = |error: &lg_control::SpecError| Fault::new(FaultKind::Invalid, error.to_string());
        let done = |result: Result<(), lg_kernel::Errno>| result.map(|()| Reply::Done).map_err(fault);
        if self.mode == Mode::Frozen && !matches!(request, Request::Stats) {
            return Err(wrong_state("the sandbox is a template: it can only be forked"));
        }
        match request {
            Request::Exec(program) => {
                program.validate().map_err(|error| invalid(&error))?;
                let launched = build::launch(kernel, &program, descriptors)?;
                let process = launched.process.0;
                self.streams.add(launched);
                Ok(Reply::Started { process })
            }
            Request::CloseStream { process, fd } => self.streams.close((process, fd)).map(|()| Reply::Done),
            Request::ResizeTerminal { process, fd, terminal } => {
                self.streams.resize((process, fd), terminal).map(|()| Reply::Done)
            }
            Request::Taken { process, fd, bytes } => {
                self.streams.taken((process, fd), bytes);
                Ok(Reply::Done)
            }
            Request::Signal { process, signal, scope } => {
                let Some(signal) = Signal::new(u64::from(signal)) else {
                    return Err(Fault::new(FaultKind::Invalid, format!("there is no signal {signal}")));
                };
                match (process, scope) {
                    (None, _) => {
                        kernel.signal_main(signal);
                        Ok(Reply::Done)
                    }
                    (Some(process), SignalScope::Process) => {
                        done(kernel.signal_process(Tid(process), signal))
                    }
                    (Some(process), SignalScope::Group) => done(kernel.signal_group_of(Tid(process), signal)),
                    (Some(process), SignalScope::Tree) if signal == Signal::SIGKILL => {
                        done(kernel.kill_tree(Tid(process)))
                    }
                    (Some(_), SignalScope::Tree) => {
                        Err(Fault::new(FaultKind::Invalid, "only SIGKILL can be sent to a tree of processes"))
                    }
                }
            }
            Request::ReadFile { path, offset, len } => {
                let len = (len as usize).min(lg_control::MAX_CHUNK_BYTES);
                kernel.read_file(&path, offset, len).map(Reply::Bytes).map_err(fault)
            }
            Request::WriteFile { path, offset, bytes, mode, permissions } => {
                let mode = match mode {
                    lg_control::WriteMode::Replace => lg_kernel::operator::WriteMode::Replace,
                    lg_control::WriteMode::New => lg_kernel::operator::WriteMode::New,
                    lg_control::WriteMode::Into => lg_kernel::operator::WriteMode::Into,
                };
                done(kernel.write_file(&path, offset, &bytes, mode, permissions))
            }
            Request::StatFile { path } => {
                kernel.stat_file(&path).map(|facts| Reply::File(report::file(facts))).map_err(fault)
            }
            Request::ListDir { path, cursor } => kernel
                .list_dir(&path, cursor)
                .map(|(entries, next)| Reply::Entries {
                    entries: entries
                        .into_iter()
                        .map(|entry| lg_control::DirEntry { name: entry.name, file_type: entry.file_type })
                        .collect(),
                    next,
                })
                .map_err(fault),
            Request::MakeDir { path, permissions, parents } => {
                let parents = if parents { Parents::Made } else { Parents::Required };
                done(kernel.make_dir(&path, permissions, parents))
            }
            Request::Remove { path, recursive } => {
                done(kernel.remove(&path, if recursive { Depth::All } else { Depth::One }))
            }
            Request::Rename { from, to } => done(kernel.rename_file(&from, &to)),
            Request::ListProcesses => {
                let list = kernel.list_processes();
                Ok(Reply::Processes(list.into_iter().map(report::process).collect()))
            }
            Request::Stats => {
                let mut stats = self.stats.clone();
                stats.wall_ns = nanoseconds(self.running_since);
                report::collect(kernel, &mut stats);
                Ok(Reply::Stats(Box::new(stats)))
            }
            Request::Pause => {
                kernel.freeze_clock();
                self.mode = Mode::Paused;
                Ok(Reply::Done)
            }
            Request::Resume if self.mode == Mode::Paused => {
                kernel.resume_clock();
                self.mode = Mode::Running;
                Ok(Reply::Done)
            }
            Request::Resume => Err(wrong_state("the sandbox is not paused")),
            Request::SetLimits(limits) => {
                limits.validate().map_err(|error| invalid(&error))?;
                build::set_limits_from_now(kernel, &limits)
                    .map_err(|error| Fault::new(FaultKind::Limit, error.to_string()))?;
                Ok(Reply::Done)
            }
            Request::SetHostname(hostname) => {
                lg_control::check_hostname(&hostname).map_err(|error| invalid(&error))?;
                kernel
                    .set_hostname(hostname.into_bytes())
                    .map_err(|error| Fault::new(FaultKind::Host, describe(&error)))?;
                Ok(Reply::Done)
            }
            Request::Rehearse => {
                kernel.rehearse().map_err(|error| Fault::new(FaultKind::Host, describe(&error)))?;
                Ok(Reply::Done)
            }
            Request::Freeze => {
                kernel.seal().map_err(|error| Fault::new(FaultKind::Host, describe(&error)))?;
                self.mode = Mode::Frozen;
                // Nothing of a template is for anybody to read.
                self.streams.pull_out(kernel, &mut drop);
                Ok(Reply::Frozen { memory_bytes: u64::from(kernel.frames().used()) * lg_kernel::PAGE_BYTES })
            }
            Request::Start(_) => Err(wrong_state("the sandbox has been started")),
            Request::Fork(_) | Request::Kill | Request::WriteStream { .. } => {
                Err(Fault::new(FaultKind::Invalid, "unexpected request"))
            }
        }
    }

    /// Forks the sandbox. In the fork this very server goes on with the new connection.
    fn fork(&mut self, kernel: &mut Kernel, spec: &ForkSpec, descriptors: Vec<OwnedFd>) -> Side {
        let start = Instant::now();
        // A fork comes with one descriptor, or the call would not have been taken.
        let Some(socket) = descriptors.into_iter().next() else { return Side::Original };
        let socket = UnixStream::from(socket);
        let prepared = match self.mode {
            Mode::Frozen => Ok(()),
            Mode::Running | Mode::Paused => {
                kernel.prepare_fork().map_err(|error| Outcome::Failed(describe(&error)))
            }
        };
        // What waits to be sent is the original's, and must not be sent twice.
        self.flush(Waiting::Never);
        let side = prepared.and_then(|()| {
            host::fork_sibling().map_err(|error| {
                let message = format!("cannot fork the vmm process: {error}");
                match build::lacking(&error) {
                    Some(kind) => Outcome::start_failed(kind, message),
                    None => Outcome::Failed(message),
                }
            })
        });
        match side {
            Ok(Side::Original) => Side::Original,
            Ok(Side::Fork) => {
                self.begin_fork(socket);
                match self.become_fork(kernel, spec) {
                    Ok(()) => self.ready(nanoseconds(start)),
                    Err(outcome) => {
                        self.stats = Stats::default();
                        self.queue(Event::Ended(Box::new(Report { outcome, stats: Stats::default() })));
                        self.flush(Waiting::Blocks);
                        host::leave()
                    }
                }
                Side::Fork
            }
            Err(outcome) => {
                let report = Report { outcome, stats: Stats::default() };
                let ended = Event::Ended(Box::new(report));
                if let Ok(bytes) = lg_control::encode(&ended) {
                    // Nobody may be listening any more.
                    let _ = send_with_descriptors(socket.as_fd(), &bytes, &[]);
                }
                Side::Original
            }
        }
    }

    /// Takes the new connection in place of the original's.
    fn begin_fork(&mut self, socket: UnixStream) {
        self.socket = socket;
        self.inbox = Inbox::default();
        self.outbox.clear();
        self.ended.clear();
        self.streams.forget_calls();
        self.mode = Mode::Running;
        self.open = true;
        self.broken = None;
        self.stats = Stats { walls: std::mem::take(&mut self.stats.walls), ..Stats::default() };
    }

    fn become_fork(&mut self, kernel: &mut Kernel, spec: &ForkSpec) -> Result<(), Outcome> {
        use lg_control::StartFailureKind as Kind;
        host::signal_on_input(self.socket.as_fd()).map_err(|error| {
            Outcome::start_failed(Kind::Kvm, format!("cannot be told of requests: {error}"))
        })?;
        if let Some(cpus) = &spec.cpus {
            build::run_on(cpus)?;
        }
        kernel.after_fork().map_err(|error| build::host_failed(&error))?;
        build::apply_fork(kernel, spec)
    }

    /// Sends what programs have written, and which have ended.
    fn collect(&mut self, kernel: &mut Kernel) {
        let Server { streams, outbox, broken, .. } = self;
        let mut send = |event| {
            if let Err(error) = encode_into(&event, outbox) {
                broken.get_or_insert(error);
            }
        };
        streams.push_in(kernel, &mut send);
        let output = streams.pull_out(kernel, &mut send);
        if output > 0 {
            // Beyond the limit the kernel ends the sandbox by itself.
            let _ = kernel.count_output(output as u64);
        }
        for (process, status) in kernel.take_ended() {
            self.ended.push((process.0, report::exit_status(status)));
        }
        let streams = &self.streams;
        let (gone, waiting): (Vec<_>, Vec<_>) =
            self.ended.drain(..).partition(|(process, _)| streams.drained(*process) == Drained::Yes);
        self.ended = waiting;
        for (process, status) in gone {
            self.queue(Event::Exited { process, status });
        }
    }
}

impl Supervisor for Server {
    fn event_fds(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        let mut fds = Vec::with_capacity(2);
        if self.outbox.len() < OUTBOX_BYTES {
            fds.push((self.socket.as_fd(), Interest::Read));
        }
        if !self.outbox.is_empty() {
            fds.push((self.socket.as_fd(), Interest::Write));
        }
        fds
    }

    fn look_every_ns(&self) -> Option<u64> {
        Some(LOOK_EVERY_NS)
    }

    fn serve(&mut self, kernel: &mut Kernel) -> Result<(), KernelError> {
        // The signal has done its work; while it is pending no guest code runs.
        let _ = self.input_signal.read_signal();
        self.receive(kernel, Waiting::Never)?;
        loop {
            if !self.open || self.broken.is_some() {
                kernel.kill_all();
                return Ok(());
            }
            if self.outbox.len() < OUTBOX_BYTES && self.mode != Mode::Frozen {
                self.collect(kernel);
            }
            if kernel.is_ending() {
                return Ok(());
            }
            if self.mode == Mode::Running {
                self.flush(Waiting::Never);
                return Ok(());
            }
            self.flush(Waiting::Blocks);
            self.receive(kernel, Waiting::Blocks)?;
        }
    }
}

/// Blocks the signals that mean something else to a vmm, and has the host send one whenever something arrives on the
/// connection; answers the descriptor that takes it.
pub fn input_signal(socket: &UnixStream) -> Result<SignalFd, ServerError> {
    let failed = |errno: nix::Error| ServerError::Signal(errno.into());
    let mut set = SigSet::empty();
    set.add(HostSignal::SIGIO);
    set.thread_block().map_err(failed)?;
    // What a closed pipe of the host means is said by EPIPE; and what a terminal's keys mean is for the
    // runtime to say, whose process group this one may be in.
    let mut others = SigSet::empty();
    for signal in [HostSignal::SIGPIPE, HostSignal::SIGINT, HostSignal::SIGQUIT, HostSignal::SIGHUP] {
        others.add(signal);
    }
    others.thread_block().map_err(failed)?;
    let signal =
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)?;
    host::signal_on_input(socket.as_fd()).map_err(ServerError::Signal)?;
    Ok(signal)
}

/// Says whether the host was short of memory for a message: it may have some a moment later (send(2)).
fn is_short_of_memory(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOMEM | Errno::NOBUFS))
}

/// Lets a moment pass.
fn pause() {
    let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: SEND_AGAIN_NS };
    // It waits for nothing but the time, and an earlier end does no harm.
    let _ = rustix::event::poll(&mut [], Some(&moment));
}

/// Sends without waiting.
fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
    // Not send(2): that takes an address, and nothing else here needs it.
    let mut none = rustix::net::SendAncillaryBuffer::default();
    loop {
        match rustix::net::sendmsg(socket, &[io::IoSlice::new(bytes)], &mut none, flags) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
