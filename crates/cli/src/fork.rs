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
use lg_control::{ExitStatus, FaultKind, Outcome, Report};
use lg_runtime::{CallError, CellEvent, EvaluateError, Sandbox, Template, TemplateSpec};

use crate::signals::{SIGINT, Signals};
use crate::{template, vm};

const SIGPIPE: u8 = 13;
/// Where the interpreter finds this process's standard input, for a moment.
const STDIN_FIFO: &str = "/tmp/.luminaguard-stdin";

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
pub(crate) fn run(spec: &TemplateSpec, command: &[OsString], is_python: bool) -> Result<Report> {
    crate::async_runtime()?.block_on(async {
        let template = template::make(spec).await?;
        let report = run_in(&template, command, is_python).await;
        template.end().await.context("cannot end the template")?;
        report
    })
}

async fn run_in(template: &Template, command: &[OsString], is_python: bool) -> Result<Report> {
    let mut sandbox = template.spawn().await.context("cannot fork the template")?;
    // From here on they are the program's.
    let mut signals = Signals::new()?;
    let call = if is_python { python_call(command) } else { PythonCall::Program };
    let result = match call {
        PythonCall::Code { code, args } => run_code(&mut sandbox, &mut signals, code, &args).await,
        PythonCall::Program => {
            let interpreter = is_python.then(|| OsString::from("python3"));
            let command: Vec<OsString> = interpreter.into_iter().chain(command.iter().cloned()).collect();
            run_program(&sandbox, &mut signals, command).await
        }
    };
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
    matches!(error.downcast_ref(), Some(CallError::Ended))
        || matches!(error.downcast_ref(), Some(EvaluateError::Call(CallError::Ended)))
}

fn ended(status: ExitStatus) -> Outcome {
    match status {
        ExitStatus::Exited(code) => Outcome::Exited(code),
        ExitStatus::Signaled(signal) => Outcome::Signaled(signal),
    }
}

/// Runs a program to its end.
async fn run_program(sandbox: &Sandbox, signals: &mut Signals, command: Vec<OsString>) -> Result<Outcome> {
    let program = match sandbox.program(command).descriptors(vm::streams()?).launch().await {
        Ok(program) => program,
        Err(CallError::Refused(fault)) => {
            return Ok(match fault.kind {
                FaultKind::Start(kind) => Outcome::start_failed(kind, fault.message),
                _ => Outcome::Failed(fault.message),
            });
        }
        Err(error) => return Err(error.into()),
    };
    loop {
        tokio::select! {
            status = program.wait() => return Ok(ended(status?)),
            signal = signals.next() => match program.signal(signal).await {
                // It is just ending.
                Err(error) if error.errno().is_some() => {}
                result => result?,
            },
        }
    }
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
