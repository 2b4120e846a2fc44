//! An interpreter in a sandbox that evaluates cells: [`Context`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lg_control::{ExitStatus, MAX_CHUNK_BYTES, Request, STREAM_WINDOW_BYTES, SignalScope, Stdio};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::message::{DriverMessage, DriverRequest, LineBuffer, MessageError};
use super::{CellError, PYTHON_DRIVER, Representation};
use crate::CallError;
use crate::connection::{Connection, Happening};
use crate::program::{ProgramBuilder, ProgramDefaults};

/// The driver's descriptors: what cells print, requests, answers.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const REQUESTS: u32 = 3;
const ANSWERS: u32 = 4;

/// Bytes of a stream are said to be taken once there are so many.
const TAKEN_AT: usize = STREAM_WINDOW_BYTES / 2;
/// The most output that [`Context::evaluate`] keeps of one cell, in bytes of each stream.
const MAX_KEPT_BYTES: usize = 16 << 20;
/// How long a cell that was interrupted has before its interpreter is killed.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// How long an interpreter may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

const SIGINT: u8 = 2;
const SIGKILL: u8 = 9;

/// Numbers of cells are never used twice, in no context: so the answer to a cell of an original is not taken for one
/// of its fork's.
static NEXT_CELL: AtomicU64 = AtomicU64::new(1);

/// A Python interpreter in a sandbox. Names stay from cell to cell.
///
/// ```no_run
/// # async fn example(sandbox: &mut lg_runtime::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
/// let context = sandbox.context().ok_or("a sandbox without an interpreter")?;
/// context.evaluate("import math\nr = 2").await?;
/// let cell = context.evaluate("math.pi * r ** 2").await?;
/// assert_eq!(cell.text(), Some("12.566370614359172"));
/// let error = context.evaluate("1 / 0").await?.outcome.unwrap_err();
/// assert_eq!(error.name, "ZeroDivisionError");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Context {
    connection: Arc<Connection>,
    place: Arc<Place>,
    happenings: mpsc::UnboundedReceiver<Happening>,
    lines: LineBuffer,
    /// Bytes that were taken of each stream, and that the vmm has not been told of.
    taken: HashMap<u32, usize>,
    /// What goes before the next request.
    greeting: Vec<u8>,
    ended: Option<ExitStatus>,
}

/// Where an interpreter is, and what it is at: what a fork must know.
#[derive(Debug)]
pub(crate) struct Place {
    process: u32,
    /// The cell that runs, or 0.
    current: AtomicU64,
}

/// What became of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cell {
    /// What it wrote to standard output, up to 16 MiB.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, up to 16 MiB.
    pub stderr: Vec<u8>,
    /// What it displayed, in order.
    pub displays: Vec<Representation>,
    /// The value of its last expression, if it has one that is not None; or the exception that ended it.
    pub outcome: Result<Option<Representation>, CellError>,
    /// Whether it was interrupted because its time was up.
    pub timed_out: bool,
    /// Whether it wrote more than was kept.
    pub truncated: bool,
}

impl Cell {
    /// The value of its last expression as text.
    pub fn text(&self) -> Option<&str> {
        self.outcome.as_ref().ok()?.as_ref()?.text()
    }
}

/// Something that a running cell did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CellEvent {
    /// It wrote to standard output.
    Stdout(Vec<u8>),
    /// It wrote to standard error.
    Stderr(Vec<u8>),
    /// It displayed something.
    Display(Representation),
    /// It ended: with the value of its last expression, or with an exception. The last event.
    Ended(Result<Option<Representation>, CellError>),
}

/// Why a cell could not be evaluated to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The cell, or something else in the sandbox, ended the interpreter.
    #[error("the interpreter ended: {0}")]
    InterpreterEnded(ExitStatus),
    /// The cell did not stop when it was interrupted, and its interpreter was killed.
    #[error("the cell did not end within {limit:?}, nor when it was interrupted: its interpreter was killed")]
    Killed {
        /// The time that it had.
        limit: Duration,
    },
    /// The interpreter said something that is no message.
    #[error("cannot understand the interpreter")]
    Message(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The interpreter did not start in time.
    #[error("the interpreter did not start within {START_LIMIT:?}")]
    StartTimedOut,
    /// The sandbox is over, or refuses.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<MessageError> for EvaluateError {
    fn from(error: MessageError) -> Self {
        Self::Message(Box::new(error))
    }
}

impl Context {
    /// Starts an interpreter in a sandbox.
    pub(crate) async fn start_in(
        connection: &Arc<Connection>,
        defaults: &ProgramDefaults,
    ) -> Result<Self, EvaluateError> {
        let program = ProgramBuilder::new(connection.clone(), ["python3", "-c", PYTHON_DRIVER], defaults)
            .stdio(vec![Stdio::Null, Stdio::Out, Stdio::Out, Stdio::In, Stdio::Out])
            .launch()
            .await?;
        let process = program.id();
        let mut context = Self::at(connection, Place { process, current: AtomicU64::new(0) });
        let ready = async {
            loop {
                match context.next_message().await? {
                    Spoken::Message(DriverMessage::Ready { .. }) => return Ok(()),
                    Spoken::Message(DriverMessage::Error { error, .. }) => {
                        return Err(EvaluateError::Message(Box::new(error)));
                    }
                    _ => {}
                }
            }
        };
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(result) => result?,
            Err(_) => return Err(EvaluateError::StartTimedOut),
        }
        drop(program);
        Ok(context)
    }

    /// The interpreter of a sandbox that has just been forked.
    pub(crate) fn attach(connection: &Arc<Connection>, original: &Place) -> Self {
        let current = AtomicU64::new(original.current.load(Ordering::Relaxed));
        let mut context = Self::at(connection, Place { process: original.process, current });
        context.greeting = DriverRequest::Fork.encode();
        context
    }

    /// Lets the next cell be preceded by what a fork's first one is.
    pub(crate) fn rehearse_fork(&mut self) {
        self.greeting = DriverRequest::Fork.encode();
    }

    fn at(connection: &Arc<Connection>, place: Place) -> Self {
        Self {
            happenings: connection.follow(place.process),
            connection: connection.clone(),
            place: Arc::new(place),
            lines: LineBuffer::default(),
            taken: HashMap::new(),
            greeting: Vec::new(),
            ended: None,
        }
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The interpreter's process id in the guest.
    pub fn process_id(&self) -> u32 {
        self.place.process
    }

    /// Evaluates a cell and collects what it does.
    ///
    /// # Errors
    /// See [`EvaluateError`]. An exception of the cell's is no error but its outcome.
    pub async fn evaluate(&mut self, source: &str) -> Result<Cell, EvaluateError> {
        collect(self.start(source).await?).await
    }

    /// Evaluates a cell that may take so long. Then it is interrupted, with KeyboardInterrupt; if it goes on
    /// for two more seconds, its interpreter is killed.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub async fn evaluate_within(&mut self, source: &str, limit: Duration) -> Result<Cell, EvaluateError> {
        collect(self.start_within(source, limit).await?).await
    }

    /// Starts a cell, whose events then come as they happen. Where an earlier cell still runs, it waits for its end.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub async fn start(&mut self, source: &str) -> Result<Evaluation<'_>, EvaluateError> {
        if let Some(status) = self.ended {
            return Err(EvaluateError::InterpreterEnded(status));
        }
        while self.place.current.load(Ordering::Relaxed) != 0 {
            // What an abandoned cell does is nobody's.
            let spoken = self.next_message().await?;
            self.note_end(&spoken);
        }
        let id = NEXT_CELL.fetch_add(1, Ordering::Relaxed);
        let mut line = std::mem::take(&mut self.greeting);
        line.extend(DriverRequest::Cell { id, source }.encode());
        self.place.current.store(id, Ordering::Relaxed);
        let (process, fd) = (self.place.process, REQUESTS);
        let mut chunks = line.chunks(MAX_CHUNK_BYTES).peekable();
        while let Some(chunk) = chunks.next() {
            let request = Request::WriteStream { process, fd, bytes: chunk.to_vec() };
            match chunks.peek() {
                // A pipe takes only so much at once; the last piece needs no answer of its own.
                Some(_) => drop(self.connection.call(request, Vec::new()).await?),
                None => self.connection.tell(request, Vec::new())?,
            }
        }
        Ok(Evaluation {
            context: self,
            id,
            is_over: false,
            limit: Duration::MAX,
            act_at: None,
            stage: Stage::Free,
        })
    }

    /// Starts a cell that may take so long, with its events as they happen. What becomes of one that takes longer is said
    /// at [`evaluate_within`](Self::evaluate_within), and done while the next event is waited for.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub async fn start_within(
        &mut self,
        source: &str,
        limit: Duration,
    ) -> Result<Evaluation<'_>, EvaluateError> {
        let mut evaluation = self.start(source).await?;
        evaluation.limit = limit;
        // A limit beyond what there are clocks for is none.
        evaluation.act_at = Instant::now().checked_add(limit);
        Ok(evaluation)
    }

    /// Interrupts the cell that runs, with KeyboardInterrupt. Without one it does nothing.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn interrupt(&self) -> Result<(), CallError> {
        self.signal(SIGINT, SignalScope::Process)
    }

    fn signal(&self, signal: u8, scope: SignalScope) -> Result<(), CallError> {
        let process = Some(self.place.process);
        self.connection.tell(Request::Signal { process, signal, scope }, Vec::new())
    }

    /// Notes the end of a cell that somebody gave up.
    fn note_end(&mut self, spoken: &Spoken) {
        let current = self.place.current.load(Ordering::Relaxed);
        let is_end = match spoken {
            Spoken::Message(DriverMessage::Result { id, .. }) => *id == current,
            Spoken::Message(DriverMessage::Error { id, .. }) => *id == Some(current),
            _ => false,
        };
        if is_end {
            self.place.current.store(0, Ordering::Relaxed);
        }
    }

    /// Waits for the next thing that the interpreter says. Cancel safe.
    async fn next_message(&mut self) -> Result<Spoken, EvaluateError> {
        loop {
            if let Some(line) = self.lines.next_line() {
                return Ok(Spoken::Message(DriverMessage::decode(line)?));
            }
            if let Some(status) = self.ended {
                return Err(EvaluateError::InterpreterEnded(status));
            }
            match self.happenings.recv().await {
                Some(Happening::Output(fd, bytes)) => {
                    if bytes.is_empty() {
                        continue;
                    }
                    self.take(fd, bytes.len());
                    match fd {
                        ANSWERS => {
                            let pushed = self.lines.push(&bytes);
                            pushed.map_err(|error| EvaluateError::Message(Box::new(error)))?;
                        }
                        STDOUT => return Ok(Spoken::Stdout(bytes)),
                        STDERR => return Ok(Spoken::Stderr(bytes)),
                        _ => {}
                    }
                }
                Some(Happening::Exited(status)) => self.ended = Some(status),
                None => return Err(self.connection.over().into()),
            }
        }
    }

    fn take(&mut self, fd: u32, bytes: usize) {
        let taken = self.taken.entry(fd).or_default();
        *taken += bytes;
        if *taken >= TAKEN_AT {
            let bytes = std::mem::take(taken);
            self.connection.taken((self.place.process, fd), bytes);
        }
    }
}

/// Something that the interpreter or its cell said.
enum Spoken {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Message(DriverMessage),
}

/// A cell that runs. Dropping this interrupts it.
#[derive(Debug)]
pub struct Evaluation<'c> {
    context: &'c mut Context,
    id: u64,
    is_over: bool,
    limit: Duration,
    /// When something is to be done about a cell that takes too long.
    act_at: Option<Instant>,
    stage: Stage,
}

/// What has been done about a cell that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing.
    Free,
    /// It was interrupted.
    Interrupted,
    /// Its interpreter was killed.
    Killed,
}

impl Evaluation<'_> {
    /// Waits for the next event; `None` after the last. Cancel safe.
    ///
    /// # Errors
    /// See [`EvaluateError`]. Nothing comes after one.
    pub async fn next(&mut self) -> Option<Result<CellEvent, EvaluateError>> {
        if self.is_over {
            return None;
        }
        loop {
            let spoken = match self.next_spoken().await {
                Ok(spoken) => spoken,
                Err(error) => {
                    self.over();
                    return Some(Err(match (error, self.stage) {
                        (EvaluateError::InterpreterEnded(_), Stage::Killed) => {
                            EvaluateError::Killed { limit: self.limit }
                        }
                        (error, _) => error,
                    }));
                }
            };
            let event = match spoken {
                Spoken::Stdout(bytes) => CellEvent::Stdout(bytes),
                Spoken::Stderr(bytes) => CellEvent::Stderr(bytes),
                Spoken::Message(DriverMessage::Display { id, data }) if id == self.id => {
                    CellEvent::Display(data)
                }
                Spoken::Message(DriverMessage::Result { id, data }) if id == self.id => {
                    CellEvent::Ended(Ok(data))
                }
                Spoken::Message(DriverMessage::Error { id, error }) if id == Some(self.id) => {
                    CellEvent::Ended(Err(error))
                }
                // Of another cell, or of none.
                Spoken::Message(_) => continue,
            };
            if matches!(event, CellEvent::Ended(_)) {
                self.over();
            }
            return Some(Ok(event));
        }
    }

    /// Waits for what the interpreter says next, and sees to it that it says something in time.
    async fn next_spoken(&mut self) -> Result<Spoken, EvaluateError> {
        loop {
            let Some(at) = self.act_at else { return self.context.next_message().await };
            // A cell that never stops to write must not keep the time from being looked at.
            if Instant::now() < at
                && let Ok(spoken) = timeout_at(at, self.context.next_message()).await
            {
                return spoken;
            }
            if self.stage == Stage::Free {
                self.stage = Stage::Interrupted;
                self.act_at = Some(Instant::now() + INTERRUPT_GRACE);
                self.interrupt()?;
            } else {
                self.stage = Stage::Killed;
                self.act_at = None;
                self.context.signal(SIGKILL, SignalScope::Tree)?;
            }
        }
    }

    /// Whether the cell was interrupted because its time was up.
    pub fn timed_out(&self) -> bool {
        self.stage != Stage::Free
    }

    /// Interrupts the cell, with KeyboardInterrupt.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn interrupt(&self) -> Result<(), CallError> {
        self.context.interrupt()
    }

    /// Sends the interpreter a signal, by its Linux number. SIGINT is what [`interrupt`](Self::interrupt) sends.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn signal(&self, signal: u8) -> Result<(), CallError> {
        self.context.signal(signal, SignalScope::Process)
    }

    fn over(&mut self) {
        self.is_over = true;
        self.context.place.current.store(0, Ordering::Relaxed);
    }
}

impl Drop for Evaluation<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // A sandbox that is over needs no interrupt.
            let _ = self.context.interrupt();
        }
    }
}

/// Collects the events of a cell.
async fn collect(mut evaluation: Evaluation<'_>) -> Result<Cell, EvaluateError> {
    let mut cell = Cell {
        stdout: Vec::new(),
        stderr: Vec::new(),
        displays: Vec::new(),
        outcome: Ok(None),
        timed_out: false,
        truncated: false,
    };
    while let Some(event) = evaluation.next().await {
        match event? {
            CellEvent::Stdout(bytes) => cell.truncated |= !keep(&mut cell.stdout, &bytes),
            CellEvent::Stderr(bytes) => cell.truncated |= !keep(&mut cell.stderr, &bytes),
            CellEvent::Display(data) => cell.displays.push(data),
            CellEvent::Ended(outcome) => cell.outcome = outcome,
        }
    }
    cell.timed_out = evaluation.timed_out();
    Ok(cell)
}

/// Keeps what there is room for; says whether that was all.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let room = MAX_KEPT_BYTES.saturating_sub(kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..room]);
    room == bytes.len()
}
