//! One running sandbox: [`Sandbox`].

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lg_control::{
    ForkSpec, FrameError, Limits, Outcome, ProcessInfo, Reply, Report, Request, SignalScope, Stats,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::connection::{Closed, Connection, Ready};
use crate::context::{Context, EvaluateError, Place};
use crate::files::Files;
use crate::namespace::Namespace;
use crate::process::{VmmProcess, reap_strays};
use crate::program::{ProgramBuilder, ProgramDefaults};
use crate::{CallError, SandboxBuilder, SpawnError, WaitError, host_memory_bytes};

/// The host's end of the guest's standard input, an [`AsyncWrite`](tokio::io::AsyncWrite).
pub type Stdin = pipe::Sender;
/// The host's end of the guest's standard output, an [`AsyncRead`].
pub type Stdout = pipe::Receiver;
/// The host's end of the guest's standard error, an [`AsyncRead`].
pub type Stderr = pipe::Receiver;

/// How long a vmm that was asked to end has before it is killed.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// A micro-VM with what runs in it. Dropping it ends it.
///
/// It comes from [`Sandbox::builder`], which starts a VM for one program and ends with it; from
/// [`Template::spawn`](crate::Template::spawn), a fork of a warm VM that ends when it is told to; or from
/// [`Sandbox::fork`], a copy of a running one.
#[derive(Debug)]
pub struct Sandbox {
    /// The standard input of the program that it was built for, if it is piped. Drop it to give the guest an end of file.
    pub stdin: Option<Stdin>,
    /// The standard output of that program, if it is piped.
    pub stdout: Option<Stdout>,
    /// The standard error of that program, if it is piped.
    pub stderr: Option<Stderr>,
    connection: Arc<Connection>,
    process: VmmProcess,
    /// What this sandbox and its forks are in, if that wall stands.
    namespace: Option<Arc<Namespace>>,
    spawn_latency: Duration,
    vmm_latency: Duration,
    report: Option<Report>,
    context: Option<Context>,
    /// Where the interpreter is; the context itself may be taken.
    place: Option<Arc<Place>>,
    defaults: Arc<ProgramDefaults>,
}

/// What a program wrote, with how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended and what it cost.
    pub report: Report,
    /// All of its standard output, if that was piped.
    pub stdout: Vec<u8>,
    /// All of its standard error, if that was piped.
    pub stderr: Vec<u8>,
}

impl Sandbox {
    /// A builder for `command` with the defaults of [`lg_control::SandboxSpec::new`].
    pub fn builder<I, S>(command: I) -> SandboxBuilder
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        lg_control::SandboxSpec::new(command).into()
    }

    pub(crate) async fn spawn(builder: SandboxBuilder) -> Result<Self, SpawnError> {
        let started = Instant::now();
        let SandboxBuilder { spec, launcher, stdin, stdout, stderr, is_empty_allowed } = builder;
        let runs = if is_empty_allowed { spec.runs() } else { lg_control::Runs::Program };
        spec.validate_with(runs)?;
        spec.validate_memory(host_memory_bytes())?;
        let defaults = Arc::new(ProgramDefaults::from(&spec));
        let (connection, theirs, ready) = Connection::pair().map_err(SpawnError::Launch)?;
        let (mut descriptors, mut ours): (Vec<OwnedFd>, (Option<OwnedFd>, Option<OwnedFd>, Option<OwnedFd>)) =
            Default::default();
        if runs == lg_control::Runs::Program {
            let (guest, host) = stdin.into_input().map_err(SpawnError::Launch)?;
            descriptors.push(guest);
            ours.0 = host;
            let (guest, host) = stdout.into_output(&io::stdout()).map_err(SpawnError::Launch)?;
            descriptors.push(guest);
            ours.1 = host;
            let (guest, host) = stderr.into_output(&io::stderr()).map_err(SpawnError::Launch)?;
            descriptors.push(guest);
            ours.2 = host;
        }
        let mut namespace = launcher.start(theirs).map_err(SpawnError::Launch)?;
        connection.tell(Request::Start(Box::new(spec)), descriptors).map_err(|error| match error {
            CallError::Message(error) => SpawnError::Control(Arc::new(error)),
            _ => SpawnError::OriginalEnded,
        })?;
        let ready = match wait_ready(&connection, ready).await {
            Ok(ready) => ready,
            Err(closed) => {
                // The process that was started may be the vmm, or wait for it.
                namespace.cut();
                reap_strays();
                let status = match namespace.keeper() {
                    Some(started) => match tokio::time::timeout(KILL_GRACE, started.wait()).await {
                        Ok(status) => status,
                        Err(_) => started.kill().await,
                    },
                    None => Err(io::ErrorKind::NotFound.into()),
                };
                let status = status.map_err(SpawnError::Launch)?;
                return Err(match closed {
                    Closed::Ended(report) => not_started(*report),
                    Closed::Lost(error) => match *error {
                        FrameError::Closed | FrameError::Truncated => SpawnError::VmmDied(status),
                        _ => SpawnError::Control(error),
                    },
                });
            }
        };
        let (process, namespace) = vmm_of(namespace, ready.pid)?;
        let receiver = |fd: Option<OwnedFd>| fd.map(pipe::Receiver::from_owned_fd).transpose();
        Ok(Self {
            stdin: ours.0.map(pipe::Sender::from_owned_fd).transpose().map_err(SpawnError::Launch)?,
            stdout: receiver(ours.1).map_err(SpawnError::Launch)?,
            stderr: receiver(ours.2).map_err(SpawnError::Launch)?,
            connection: Arc::new(connection),
            process,
            namespace,
            spawn_latency: started.elapsed(),
            vmm_latency: Duration::from_nanos(ready.spawn_ns),
            report: None,
            context: None,
            place: None,
            defaults,
        })
    }

    /// Asks the vmm to fork, and waits until the fork is there. It goes on when the caller gives up: a fork that
    /// nobody waits for is ended and reaped.
    pub(crate) fn fork_one(
        &self,
        spec: ForkSpec,
    ) -> impl Future<Output = Result<Self, SpawnError>> + Send + 'static {
        let shared = (self.place.clone(), self.namespace.clone(), self.defaults.clone());
        Self::fork_of(self.connection.clone(), spec, shared)
    }

    async fn fork_of(
        original: Arc<Connection>,
        spec: ForkSpec,
        (place, namespace, defaults): (Option<Arc<Place>>, Option<Arc<Namespace>>, Arc<ProgramDefaults>),
    ) -> Result<Self, SpawnError> {
        let started = Instant::now();
        spec.limits.validate()?;
        let (connection, theirs, ready) = Connection::pair().map_err(SpawnError::Launch)?;
        connection.ignore_streams_of(&original);
        original.tell(Request::Fork(Box::new(spec)), vec![theirs]).map_err(|error| match error {
            CallError::Message(error) => SpawnError::Control(Arc::new(error)),
            _ => SpawnError::OriginalEnded,
        })?;
        let finish = async move {
            let ready = match wait_ready(&connection, ready).await {
                Ok(ready) => ready,
                Err(Closed::Ended(report)) => {
                    // The fork, if there is one, ends by itself a little later.
                    reap_strays();
                    return Err(not_started(*report));
                }
                Err(Closed::Lost(error)) => {
                    reap_strays();
                    let ended = matches!(*error, FrameError::Closed | FrameError::Truncated);
                    return Err(if ended { SpawnError::ForkDied } else { SpawnError::Control(error) });
                }
            };
            let pid = ready.pid.ok_or(SpawnError::ForkDied)?;
            let mut process = VmmProcess::new(pid).map_err(SpawnError::Launch)?;
            if let Some(namespace) = &namespace {
                process.hold(Box::new(namespace.clone()));
            }
            let connection = Arc::new(connection);
            let context = place.map(|original| Context::attach(&connection, &original));
            let place = context.as_ref().map(|context| context.place().clone());
            Ok(Self {
                stdin: None,
                stdout: None,
                stderr: None,
                connection,
                process,
                namespace,
                spawn_latency: started.elapsed(),
                vmm_latency: Duration::from_nanos(ready.spawn_ns),
                report: None,
                context,
                place,
                defaults,
            })
        };
        // In a task of its own, so that it is not cancelled with the caller.
        match tokio::spawn(finish).await {
            Ok(result) => result,
            Err(_) => Err(SpawnError::ForkDied),
        }
    }

    /// From the request until the sandbox was there.
    pub fn spawn_latency(&self) -> Duration {
        self.spawn_latency
    }

    /// How much of [`spawn_latency`](Self::spawn_latency) the vmm took, by its own clock.
    pub fn vmm_latency(&self) -> Duration {
        self.vmm_latency
    }

    /// The process id of the vmm.
    pub fn vmm_pid(&self) -> u32 {
        self.process.id()
    }

    /// Has something given back when the vmm has been reaped, however that comes about.
    pub(crate) fn hold_until_reaped(&mut self, held: Box<dyn Send + Sync>) {
        self.process.hold(held);
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The code context: the interpreter that evaluates cells. Forks of a Python template have one.
    pub fn context(&mut self) -> Option<&mut Context> {
        self.context.as_mut()
    }

    /// Takes the code context out, to evaluate a cell while the sandbox is forked, say.
    pub fn take_context(&mut self) -> Option<Context> {
        self.context.take()
    }

    /// Starts a new Python interpreter, in place of the one that there is or was: its cells know no earlier names. The old
    /// one, if it still runs, is not ended.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub async fn start_context(&mut self) -> Result<&mut Context, EvaluateError> {
        let context = Context::start_in(&self.connection, &self.defaults).await?;
        self.place = Some(context.place().clone());
        Ok(self.context.insert(context))
    }

    /// A program to launch beside what runs already.
    pub fn program<I, S>(&self, command: I) -> ProgramBuilder
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        ProgramBuilder::new(self.connection.clone(), command, &self.defaults)
    }

    /// The files of the sandbox.
    pub fn files(&self) -> Files {
        Files::new(self.connection.clone())
    }

    /// Forks the sandbox `count` times, from the present moment: memory, processes, threads, files, pipes and timers
    /// are as they are now, in each fork for itself. This sandbox goes on.
    ///
    /// Descriptors of the host that programs hold are not in the forks: reads find the end of the file, and what
    /// is written is thrown away. So is what programs write that were launched with pipes, since nobody holds the other ends;
    /// only the code context goes on in each fork. Every process that has a handler for SIGCONT gets that signal first, so that it can make
    /// new what must not be the same twice; pages marked MADV_WIPEONFORK read as zeros.
    ///
    /// # Errors
    /// The first that failed; forks that were made by then are ended.
    pub async fn fork(&self, count: usize) -> Result<Vec<Sandbox>, SpawnError> {
        let spec = ForkSpec { notify: Some(SIGCONT), ..ForkSpec::default() };
        let mut forks = Vec::with_capacity(count);
        let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(self.fork_one(spec.clone()))).collect();
        for task in tasks {
            forks.push(task.await.map_err(|_| SpawnError::ForkDied)??);
        }
        Ok(forks)
    }

    /// Stops all guest code, and the guest's clocks, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn pause(&self) -> Result<(), CallError> {
        self.done(Request::Pause).await
    }

    /// Lets guest code go on.
    ///
    /// # Errors
    /// See [`CallError`]; also when it is not paused.
    pub async fn resume(&self) -> Result<(), CallError> {
        self.done(Request::Resume).await
    }

    /// Changes the limits that are given; the others stay. Time and processor time count from now.
    ///
    /// # Errors
    /// See [`CallError`]. A limit that cannot be had, such as memory below what is in use, is a
    /// [`Fault`](crate::Fault) of the kind [`FaultKind::Limit`](crate::FaultKind::Limit) that names it; then nothing has
    /// changed.
    pub async fn set_limits(&self, limits: &Limits) -> Result<(), CallError> {
        self.done(Request::SetLimits(*limits)).await
    }

    /// Changes the host name.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn set_hostname(&self, hostname: impl Into<String>) -> Result<(), CallError> {
        self.done(Request::SetHostname(hostname.into())).await
    }

    /// Lists the processes of the guest.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>, CallError> {
        match self.connection.call(Request::ListProcesses, Vec::new()).await? {
            Reply::Processes(list) => Ok(list),
            _ => Err(CallError::Answer),
        }
    }

    /// Tells what the sandbox has used so far.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn stats(&self) -> Result<Stats, CallError> {
        match self.connection.call(Request::Stats, Vec::new()).await? {
            Reply::Stats(stats) => Ok(*stats),
            _ => Err(CallError::Answer),
        }
    }

    async fn done(&self, request: Request) -> Result<(), CallError> {
        self.connection.call(request, Vec::new()).await.map(drop)
    }

    /// Sends a signal, by its Linux number, to the program that the sandbox was built for.
    ///
    /// # Errors
    /// When the vmm cannot be reached; a sandbox that is over ignores signals.
    pub async fn signal(&mut self, signal: u8) -> Result<(), CallError> {
        let request = Request::Signal { process: None, signal, scope: SignalScope::Process };
        match self.connection.tell(request, Vec::new()) {
            Err(error) if error.is_over() => Ok(()),
            result => result,
        }
    }

    /// Waits for the end of the sandbox and until its vmm is reaped. Closes the guest's standard input first, so that
    /// neither waits for the other. Cancel safe; a second call answers the same report.
    ///
    /// # Errors
    /// When the vmm ended without a report. It is reaped all the same.
    pub async fn wait(&mut self) -> Result<Report, WaitError> {
        self.stdin = None;
        if let Some(report) = &self.report {
            return Ok(report.clone());
        }
        match self.connection.closed().await {
            Closed::Ended(report) => {
                // Giving back a VM takes a moment, but never long.
                let status = match tokio::time::timeout(KILL_GRACE, self.process.wait()).await {
                    Ok(status) => status,
                    Err(_) => self.process.kill().await,
                };
                status.map_err(WaitError::Wait)?;
                Ok(self.report.insert(*report).clone())
            }
            Closed::Lost(error) if matches!(*error, FrameError::Closed | FrameError::Truncated) => {
                let status = match tokio::time::timeout(KILL_GRACE, self.process.wait()).await {
                    Ok(status) => status,
                    Err(_) => self.process.kill().await,
                };
                Err(WaitError::VmmDied(status.map_err(WaitError::Wait)?))
            }
            Closed::Lost(error) => {
                self.process.kill().await.map_err(WaitError::Wait)?;
                Err(WaitError::Control(error))
            }
        }
    }

    /// Ends the sandbox now and waits until its vmm is reaped. A vmm that does not end itself within two seconds
    /// is killed; its statistics are lost then.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn kill(&mut self) -> Result<Report, WaitError> {
        // A vmm that is over already does not read this; its report is waiting.
        let _ = self.connection.tell(Request::Kill, Vec::new());
        if let Ok(Ok(report)) = tokio::time::timeout(KILL_GRACE, self.wait()).await {
            return Ok(report);
        }
        self.process.kill().await.map_err(WaitError::Wait)?;
        let report = Report { outcome: Outcome::Killed, stats: Stats::default() };
        Ok(self.report.insert(report).clone())
    }

    /// Says whether the sandbox is over.
    pub fn is_over(&self) -> bool {
        self.connection.end().is_some()
    }

    /// Collects the piped output until its end, then waits as [`wait`](Self::wait) does.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and when a pipe cannot be read.
    pub async fn output(&mut self) -> Result<Output, WaitError> {
        self.stdin = None;
        let (mut out, mut err) = (self.stdout.take(), self.stderr.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (read_out, read_err) =
            tokio::join!(read_all(&mut out, &mut stdout), read_all(&mut err, &mut stderr));
        read_out.and(read_err).map_err(WaitError::Output)?;
        Ok(Output { report: self.wait().await?, stdout, stderr })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Handles of programs and files may live on; they find that the sandbox is over.
        self.connection.shut();
    }
}

/// Tells processes that they are a fork.
pub(crate) const SIGCONT: u8 = 18;

async fn wait_ready(connection: &Connection, ready: oneshot::Receiver<Ready>) -> Result<Ready, Closed> {
    match ready.await {
        Ok(ready) => Ok(ready),
        Err(_) => Err(connection.closed().await),
    }
}

/// The vmm of a sandbox that is there: the process that was started, or another one in the namespace that it keeps.
fn vmm_of(
    mut namespace: Namespace,
    said_so: Option<u32>,
) -> Result<(VmmProcess, Option<Arc<Namespace>>), SpawnError> {
    let started = namespace.keeper().map(|keeper| keeper.id());
    match said_so.filter(|pid| Some(*pid) != started) {
        Some(pid) => {
            let namespace = Arc::new(namespace);
            let mut process = VmmProcess::new(pid).map_err(SpawnError::Launch)?;
            process.hold(Box::new(namespace.clone()));
            Ok((process, Some(namespace)))
        }
        None => Ok((namespace.into_vmm().ok_or(SpawnError::OriginalEnded)?, None)),
    }
}

fn not_started(report: Report) -> SpawnError {
    match report.outcome {
        Outcome::StartFailed(failure) => SpawnError::Start(failure),
        outcome => SpawnError::Failed(outcome.failure_message().unwrap_or("the sandbox ended").to_owned()),
    }
}

async fn read_all(stream: &mut Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    if let Some(stream) = stream {
        stream.read_to_end(into).await?;
    }
    Ok(())
}
