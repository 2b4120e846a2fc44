//! Programs launched in a running sandbox: [`ProgramBuilder`], [`GuestProgram`].

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use lg_control::{
    ExitStatus, MAX_CHUNK_BYTES, Program, Reply, Request, SandboxSpec, SignalScope, Stdio, Terminal, User,
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::CallError;
use crate::connection::Connection;

/// What the programs of a sandbox get unless they are given something else: what its spec says.
#[derive(Debug)]
pub(crate) struct ProgramDefaults {
    env: Vec<(OsString, OsString)>,
    workdir: PathBuf,
    user: User,
}

impl From<&SandboxSpec> for ProgramDefaults {
    fn from(spec: &SandboxSpec) -> Self {
        Self { env: spec.env.clone(), workdir: spec.workdir.clone(), user: spec.user }
    }
}

/// Collects what a program is to be; [`launch`](Self::launch) starts it. Standard input is empty, standard output and error
/// are piped, and environment, working directory and user are those of the sandbox's spec, unless something else is said.
#[derive(Debug)]
pub struct ProgramBuilder {
    connection: Arc<Connection>,
    program: Program,
    descriptors: Vec<OwnedFd>,
}

impl ProgramBuilder {
    pub(crate) fn new<I, S>(connection: Arc<Connection>, command: I, defaults: &ProgramDefaults) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let program = Program {
            command: command.into_iter().map(Into::into).collect(),
            env: defaults.env.clone(),
            workdir: defaults.workdir.clone(),
            user: defaults.user,
            stdio: vec![Stdio::Null, Stdio::Out, Stdio::Out],
        };
        Self { connection, program, descriptors: Vec::new() }
    }

    /// Sets one variable of its environment, replacing an earlier value.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.program.env.iter_mut().find(|(n, _)| *n == name) {
            Some(entry) => entry.1 = value,
            None => self.program.env.push((name, value)),
        }
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn workdir(mut self, workdir: impl Into<PathBuf>) -> Self {
        self.program.workdir = workdir.into();
        self
    }

    /// Sets who it runs as.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.program.user = user;
        self
    }

    /// Gives it a pipe as standard input, which [`GuestProgram::write`] fills.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.program.stdio[0] = Stdio::In;
        self
    }

    /// Sends its standard error where its standard output goes.
    #[must_use]
    pub fn merge_stderr(mut self) -> Self {
        self.program.stdio[2] = Stdio::Same(1);
        self
    }

    /// Gives it a terminal of its own as standard input, output and error, which is its controlling terminal: an interactive
    /// shell has job control, and editors and pagers draw. [`GuestProgram::write`] types, [`GuestProgram::stdout`] is what
    /// the terminal shows, echo included, and [`GuestProgram::resize`] changes its size. The end of the input is a key
    /// (Ctrl-D, byte 4), and so are signals (Ctrl-C, byte 3). What kind of terminal it is says the variable `TERM`.
    ///
    /// ```no_run
    /// # async fn example(sandbox: lg_runtime::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// use lg_runtime::Terminal;
    /// use tokio::io::AsyncReadExt;
    ///
    /// let mut shell = sandbox.program(["bash", "-i"]).terminal(Terminal { rows: 40, columns: 120 }).launch().await?;
    /// let mut screen = shell.stdout.take().ok_or("no terminal")?;
    /// shell.write(b"sleep 100\r\x03").await?;
    /// shell.resize(Terminal { rows: 50, columns: 132 }).await?;
    /// shell.write(b"stty size; exit\r").await?;
    /// let mut shown = Vec::new();
    /// screen.read_to_end(&mut shown).await?;
    /// assert!(String::from_utf8_lossy(&shown).contains("50 132"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn terminal(mut self, terminal: Terminal) -> Self {
        self.program.stdio.splice(..3, [Stdio::Terminal(terminal), Stdio::Same(0), Stdio::Same(0)]);
        self.descriptors.clear();
        self
    }

    /// Gives it descriptors of the host as standard input, output and error: pipes, terminals or files.
    #[must_use]
    pub fn descriptors(mut self, streams: [OwnedFd; 3]) -> Self {
        self.program.stdio.splice(..3, [Stdio::Descriptor; 3]);
        self.descriptors = streams.into();
        self
    }

    /// Says exactly what its descriptors 0, 1, 2… are, with the host's descriptors among them in their order.
    pub(crate) fn stdio(mut self, stdio: Vec<Stdio>) -> Self {
        self.program.stdio = stdio;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// See [`CallError`]: a program that is not there or can not be executed is refused.
    pub async fn launch(self) -> Result<GuestProgram, CallError> {
        let Self { connection, program, descriptors } = self;
        let stdio = program.stdio.clone();
        let reply = connection.call(Request::Exec(Box::new(program)), descriptors).await?;
        let Reply::Started { process } = reply else { return Err(CallError::Answer) };
        let output = |fd: u32| {
            let is_ours = matches!(stdio.get(fd as usize), Some(Stdio::Out | Stdio::Terminal(_)));
            is_ours.then(|| {
                connection.expect((process, fd));
                GuestOutput { connection: connection.clone(), process, fd }
            })
        };
        Ok(GuestProgram {
            stdout: output(0).or_else(|| output(1)),
            stderr: output(2),
            connection: connection.clone(),
            process,
        })
    }

    /// Starts it, collects what it writes, and waits for its end.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn output(self) -> Result<ProgramOutput, CallError> {
        self.launch().await?.output().await
    }
}

/// What a launched program wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output, if that was piped.
    pub stdout: Vec<u8>,
    /// All of its standard error, if that was piped.
    pub stderr: Vec<u8>,
}

/// A program that runs in a sandbox. Dropping this does not end it.
#[derive(Debug)]
pub struct GuestProgram {
    /// Its standard output, if it is piped; or all that its terminal shows.
    pub stdout: Option<GuestOutput>,
    /// Its standard error, if it is piped.
    pub stderr: Option<GuestOutput>,
    connection: Arc<Connection>,
    process: u32,
}

impl GuestProgram {
    /// Its process id in the guest.
    pub fn id(&self) -> u32 {
        self.process
    }

    /// Writes to its standard input, or types at its terminal; returns when all of it is in the pipe or was taken by the
    /// terminal.
    ///
    /// # Errors
    /// EPIPE when nobody reads it; see [`CallError`].
    pub async fn write(&self, bytes: &[u8]) -> Result<(), CallError> {
        for chunk in bytes.chunks(MAX_CHUNK_BYTES) {
            let request = Request::WriteStream { process: self.process, fd: 0, bytes: chunk.to_vec() };
            self.connection.call(request, Vec::new()).await?;
        }
        Ok(())
    }

    /// Changes the size of its terminal ([`ProgramBuilder::terminal`]); the foreground process group gets SIGWINCH.
    ///
    /// # Errors
    /// When it has none; see [`CallError`].
    pub async fn resize(&self, terminal: Terminal) -> Result<(), CallError> {
        let request = Request::ResizeTerminal { process: self.process, fd: 0, terminal };
        self.connection.call(request, Vec::new()).await.map(drop)
    }

    /// Closes its standard input: the program finds the end of the file.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn close_stdin(&self) -> Result<(), CallError> {
        self.connection
            .call(Request::CloseStream { process: self.process, fd: 0 }, Vec::new())
            .await
            .map(drop)
    }

    /// Sends it a signal, by its Linux number.
    ///
    /// # Errors
    /// ESRCH when it has ended; see [`CallError`].
    pub async fn signal(&self, signal: u8) -> Result<(), CallError> {
        let request = Request::Signal { process: Some(self.process), signal, scope: SignalScope::Process };
        self.connection.call(request, Vec::new()).await.map(drop)
    }

    /// Ends it and all that descends from it, with SIGKILL.
    ///
    /// # Errors
    /// ESRCH when it has ended; see [`CallError`].
    pub async fn kill(&self) -> Result<(), CallError> {
        let request = Request::Signal { process: Some(self.process), signal: 9, scope: SignalScope::Tree };
        self.connection.call(request, Vec::new()).await.map(drop)
    }

    /// Waits for its end. A second call answers the same.
    ///
    /// # Errors
    /// When the sandbox ends first.
    pub async fn wait(&self) -> Result<ExitStatus, CallError> {
        self.connection.exit_of(self.process).await
    }

    /// Collects what it writes until the end, and waits for its end.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn output(mut self) -> Result<ProgramOutput, CallError> {
        let (mut out, mut err) = (self.stdout.take(), self.stderr.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (status, _, _) =
            tokio::join!(self.wait(), read_to_end(&mut out, &mut stdout), read_to_end(&mut err, &mut stderr));
        Ok(ProgramOutput { status: status?, stdout, stderr })
    }
}

async fn read_to_end(output: &mut Option<GuestOutput>, into: &mut Vec<u8>) {
    if let Some(output) = output {
        // Reading ends with the stream or with the sandbox; it does not fail.
        let _ = output.read_to_end(into).await;
    }
}

/// What a program in a sandbox writes to one of its descriptors, an [`AsyncRead`]. Dropping it throws the rest away.
#[derive(Debug)]
pub struct GuestOutput {
    connection: Arc<Connection>,
    process: u32,
    fd: u32,
}

impl AsyncRead for GuestOutput {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_read((self.process, self.fd), cx, buf).map(Ok)
    }
}

impl Drop for GuestOutput {
    fn drop(&mut self) {
        self.connection.unwanted((self.process, self.fd));
    }
}
