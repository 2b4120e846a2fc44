//! `luminaguard run --template`: a program in a fork of a template, with this process's standard streams.
//!
//! ```text
//!   template ──fork──> sandbox ── a program with this process's streams            base, and templates of the user
//!                         |   └── python3 ARGS, the same way                       python, but for -c
//!                         └────── a cell of the warm interpreter                   python -c CODE
//! ```
//!
//! Code of `-c` is to behave as under `python3 -c`: its arguments, its standard input, the threads that are waited for at the
//! end, what atexit has, and the exit status are seen to here. Tracebacks name a cell instead of `<string>`.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use lg_control::{ExitStatus, FaultKind, Outcome, Report, SandboxSpec};
use lg_runtime::{
    CallError, CellEvent, EvaluateError, GuestProgram, Launcher, ProgramBuilder, Sandbox, SandboxBuilder,
    Template, TemplateSpec,
};
use tokio::io::AsyncReadExt;

use crate::signals::{SIGHUP, SIGINT, Signals};
use crate::terminal::{HostTerminal, Input};
use crate::{template, vm};

const SIGPIPE: u8 = 13;
/// Where the interpreter finds this process's standard input, for a moment.
const STDIN_FIFO: &str = "/tmp/.luminaguard-stdin";

/// How much of what a program wrote is shown at once.
const SCREEN_BYTES: usize = 64 << 10;

/// Where a program is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    /// Its standard streams are this process's.
    Streams,
    /// It has a terminal of its own, which this process's terminal shows.
    Terminal,
}

/// What the arguments of `python3` ask for.
#[derive(Debug, PartialEq, Eq)]
enum PythonCall<'a> {
    /// `-c CODE ARGS`.
    Code { code: &'a str, args: Vec<&'a str> },
    /// Anything else, such as a script, or what is no UTF-8.
    Program,
}

fn python_call(args: &[OsString]) -> PythonCall<'_> {
    let Some(words) = args.iter().map(|arg| arg.to_str()).collect::<Option<Vec<&str>>>() else {
        return PythonCall::Program;
    };
    match words[..] {
        ["-c", code, ref args @ ..] => PythonCall::Code { code, args: args.to_vec() },
        [first, ref args @ ..] => match first.strip_prefix("-c").filter(|code| !code.is_empty()) {
            Some(code) => PythonCall::Code { code, args: args.to_vec() },
            None => PythonCall::Program,
        },
        [] => PythonCall::Program,
    }
}

/// Makes the template and a fork of it, and runs the command there. `is_python` says that it is the arguments of `python3`.
pub(crate) fn run(
    spec: &TemplateSpec,
    command: &[OsString],
    is_python: bool,
    screen: Screen,
) -> Result<Report> {
    crate::async_runtime()?.block_on(async {
        let template = template::make(spec).await?;
        let report = run_in(&template, command, is_python, screen).await;
        template.end().await.context("cannot end the template")?;
        report
    })
}

/// Runs the command of a spec in a VM of its own, with a terminal of its own.
pub(crate) fn run_in_terminal(spec: &SandboxSpec) -> Result<Report> {
    let mut empty = spec.clone();
    let command = std::mem::take(&mut empty.command);
    crate::async_runtime()?.block_on(async {
        let builder = SandboxBuilder::from(empty).launcher(Launcher::current_exe()).without_program();
        let mut sandbox = builder.spawn().await.context("cannot start the sandbox")?;
        let mut signals = Signals::new()?;
        let result = run_program(&sandbox, &mut signals, command, Screen::Terminal).await;
        report(&mut sandbox, result).await
    })
}

async fn run_in(
    template: &Template,
    command: &[OsString],
    is_python: bool,
    screen: Screen,
) -> Result<Report> {
    let mut sandbox = template.spawn().await.context("cannot fork the template")?;
    // From here on they are the program's.
    let mut signals = Signals::new()?;
    // The warm interpreter has no terminal.
    let is_cell = is_python && screen == Screen::Streams;
    let call = if is_cell { python_call(command) } else { PythonCall::Program };
    let result = match call {
        PythonCall::Code { code, args } => run_code(&mut sandbox, &mut signals, code, &args).await,
        PythonCall::Program => {
            let interpreter = is_python.then(|| OsString::from("python3"));
            let command: Vec<OsString> = interpreter.into_iter().chain(command.iter().cloned()).collect();
            run_program(&sandbox, &mut signals, command, screen).await
        }
    };
    report(&mut sandbox, result).await
}

/// Ends the sandbox, and tells how its program ended.
async fn report(sandbox: &mut Sandbox, result: Result<Outcome>) -> Result<Report> {
    match result {
        Ok(outcome) => {
            let stats = sandbox.kill().await.context("cannot end the sandbox")?.stats;
            Ok(Report { outcome, stats })
        }
        // The sandbox says why it is over.
        Err(error) if is_over(&error) => Ok(sandbox.wait().await?),
        Err(error) => {
            // What went wrong first is what is told.
            let _ = sandbox.kill().await;
            Err(error)
        }
    }
}

fn is_over(error: &anyhow::Error) -> bool {
    let call = match error.downcast_ref() {
        Some(EvaluateError::Call(call)) => Some(call),
        _ => error.downcast_ref::<CallError>(),
    };
    call.is_some_and(CallError::is_over)
}

fn ended(status: ExitStatus) -> Outcome {
    match status {
        ExitStatus::Exited(code) => Outcome::Exited(code),
        ExitStatus::Signaled(signal) => Outcome::Signaled(signal),
    }
}

/// Runs a program to its end.
async fn run_program(
    sandbox: &Sandbox,
    signals: &mut Signals,
    command: Vec<OsString>,
    screen: Screen,
) -> Result<Outcome> {
    let program = sandbox.program(command);
    match screen {
        Screen::Streams => match launch(program.descriptors(vm::streams()?)).await? {
            Ok(program) => follow(&program, signals).await,
            Err(outcome) => Ok(outcome),
        },
        Screen::Terminal => {
            let mut terminal = HostTerminal::enter()?;
            match launch(program.terminal(terminal.size())).await? {
                Ok(program) => show(program, signals, &mut terminal).await,
                Err(outcome) => Ok(outcome),
            }
        }
    }
}

/// Launches a program; or says how that ended, if the sandbox has refused it.
async fn launch(program: ProgramBuilder) -> Result<Result<GuestProgram, Outcome>> {
    match program.launch().await {
        Ok(program) => Ok(Ok(program)),
        Err(CallError::Refused(fault)) => Ok(Err(match fault.kind {
            FaultKind::Start(kind) => Outcome::start_failed(kind, fault.message),
            _ => Outcome::Failed(fault.message),
        })),
        Err(error) => Err(error.into()),
    }
}

async fn follow(program: &GuestProgram, signals: &mut Signals) -> Result<Outcome> {
    loop {
        tokio::select! {
            status = program.wait() => return Ok(ended(status?)),
            signal = signals.next() => done_or_ended(program.signal(signal).await)?,
        }
    }
}

/// Passes keys, sizes and signals on to a program, and shows what it writes, until it has ended and all is shown.
async fn show(
    mut program: GuestProgram,
    signals: &mut Signals,
    terminal: &mut HostTerminal,
) -> Result<Outcome> {
    let mut screen = program.stdout.take().context("the program has no terminal")?;
    let mut bytes = vec![0; SCREEN_BYTES];
    let mut keys: Vec<u8> = Vec::new();
    loop {
        let event = {
            // Keys may have to wait for room in the sandbox: the screen goes on all the same.
            let typed = async {
                match keys.is_empty() {
                    true => std::future::pending().await,
                    false => program.write(&keys).await,
                }
            };
            tokio::pin!(typed);
            loop {
                tokio::select! {
                    // All that a program wrote has arrived before its end does, and is shown before.
                    biased;
                    count = screen.read(&mut bytes) => match count? {
                        0 => return follow(&program, signals).await,
                        count => terminal.show(&bytes[..count])?,
                    },
                    status = program.wait() => return Ok(ended(status?)),
                    result = &mut typed => break Event::Typed(result),
                    signal = signals.next() => done_or_ended(program.signal(signal).await)?,
                    input = terminal.next(), if keys.is_empty() => break Event::Input(input?),
                }
            }
        };
        match event {
            Event::Typed(result) => {
                keys.clear();
                done_or_ended(result)?;
            }
            Event::Input(Input::Keys(more)) => keys = more,
            Event::Input(Input::Resized(size)) => done_or_ended(program.resize(size).await)?,
            Event::Input(Input::HungUp) => done_or_ended(program.signal(SIGHUP).await)?,
        }
    }
}

/// Lets pass that a program which is just ending takes no more.
fn done_or_ended(result: Result<(), CallError>) -> Result<()> {
    match result {
        Err(CallError::Refused(_)) => Ok(()),
        result => Ok(result?),
    }
}

/// What happens while a program is shown.
enum Event {
    Typed(Result<(), CallError>),
    Input(Input),
}

/// Evaluates code as `python3 -c` would.
async fn run_code(
    sandbox: &mut Sandbox,
    signals: &mut Signals,
    code: &str,
    args: &[&str],
) -> Result<Outcome> {
    let input = standard_input()?;
    let argv = serde_json::to_string(&[&["-c"], args].concat())?;
    let mut set_up = format!("import sys\nsys.argv[:] = {argv}\ndel sys\n");
    if input.is_some() {
        set_up += &format!("import os\nos.mkfifo({STDIN_FIFO:?}, 0o600)\ndel os\n");
    }
    if let Some(outcome) = evaluate(sandbox, signals, &set_up).await?.outcome() {
        return Ok(outcome);
    }
    if let Some(streams) = input {
        // A running interpreter cannot be given a descriptor, so a program passes the bytes on.
        let pump = ["sh", "-c", "exec cat > \"$0\"", STDIN_FIFO];
        sandbox.program(pump).descriptors(streams).launch().await.context("cannot pass standard input on")?;
        let open = format!(
            "import os\nfd = os.open({STDIN_FIFO:?}, os.O_RDONLY)\nos.dup2(fd, 0)\nos.close(fd)\nos.unlink({STDIN_FIFO:?})\ndel os, fd\n"
        );
        if let Some(outcome) = evaluate(sandbox, signals, &open).await?.outcome() {
            return Ok(outcome);
        }
    }
    let status = match evaluate(sandbox, signals, code).await? {
        CellEnd::Done => 0,
        CellEnd::Raised => 1,
        CellEnd::Interrupted => 128 + SIGINT,
        CellEnd::Over(outcome) => return Ok(outcome),
    };
    // What an interpreter does at its end; the last line lets the driver run what atexit has.
    let finish = format!(
        "import threading\nfor thread in threading.enumerate():\n    if thread is not threading.main_thread() and not thread.daemon:\n        thread.join()\nraise SystemExit({status})\n"
    );
    Ok(match evaluate(sandbox, signals, &finish).await? {
        CellEnd::Done => Outcome::Exited(status),
        CellEnd::Raised => Outcome::Exited(1),
        CellEnd::Interrupted => Outcome::Exited(128 + SIGINT),
        CellEnd::Over(outcome) => outcome,
    })
}

/// How a cell ended.
enum CellEnd {
    Done,
    Raised,
    Interrupted,
    /// With its interpreter.
    Over(Outcome),
}

impl CellEnd {
    /// How the program ended, if a cell that only prepares did not end well.
    fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Done => None,
            Self::Raised => Some(Outcome::Failed("the interpreter could not be prepared".to_owned())),
            Self::Interrupted => Some(Outcome::Exited(128 + SIGINT)),
            Self::Over(outcome) => Some(outcome),
        }
    }
}

/// Evaluates a cell, with its output to this process's streams as it comes.
async fn evaluate(sandbox: &mut Sandbox, signals: &mut Signals, source: &str) -> Result<CellEnd> {
    let context = sandbox.context().context("the template has no interpreter")?;
    let mut evaluation = context.start(source).await?;
    loop {
        let event = tokio::select! {
            event = evaluation.next() => event,
            signal = signals.next() => {
                evaluation.signal(signal)?;
                continue;
            }
        };
        let written = match event {
            Some(Ok(CellEvent::Stdout(bytes))) => write(std::io::stdout(), &bytes),
            Some(Ok(CellEvent::Stderr(bytes))) => write(std::io::stderr(), &bytes),
            Some(Ok(CellEvent::Display(data))) => {
                write(std::io::stdout(), format!("{}\n", data.text().unwrap_or_default()).as_bytes())
            }
            Some(Ok(CellEvent::Ended(Err(error)))) => {
                write(std::io::stderr(), error.traceback.as_bytes())?;
                let is_interrupt = error.name == "KeyboardInterrupt";
                return Ok(if is_interrupt { CellEnd::Interrupted } else { CellEnd::Raised });
            }
            Some(Err(EvaluateError::InterpreterEnded(status))) => return Ok(CellEnd::Over(ended(status))),
            Some(Err(error)) => return Err(error.into()),
            None | Some(Ok(_)) => return Ok(CellEnd::Done),
        };
        if written.is_err() {
            // Whoever read it is gone, as a program learns from SIGPIPE.
            return Ok(CellEnd::Over(Outcome::Signaled(SIGPIPE)));
        }
    }
}

fn write(mut stream: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

/// The streams of a program that passes standard input on; `None` if that is /dev/null.
fn standard_input() -> Result<Option<[OwnedFd; 3]>> {
    let [stdin, _, stderr] = vm::streams()?;
    let null: OwnedFd = std::fs::File::options().write(true).open("/dev/null")?.into();
    let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_rdev);
    if device(stdin.as_fd())? == device(null.as_fd())? {
        return Ok(None);
    }
    Ok(Some([stdin, null, stderr]))
}
