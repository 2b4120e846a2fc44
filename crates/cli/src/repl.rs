//! `luminaguard repl`: Python in a sandbox, line by line.
//!
//! ```text
//!   lines ──> pending ──complete?──> cell ──> output, value, traceback
//!                         |                       ^
//!                         └── asked of the guest's codeop, in a cell that leaves no trace
//! ```
//!
//! `:fork` goes on in a live fork and keeps the sandbox as it was, paused, to go back to. Whatever a cell does, the
//! session goes on: an interpreter that ended is replaced.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use lg_control::Outcome;
use lg_runtime::proc::private_bytes;
use lg_runtime::units::format_duration;
use lg_runtime::{CellEvent, Context, EvaluateError, Sandbox, Template};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::ReplOptions;
use crate::{complain, template};

const HELP: &str = "\
:fork         go on in a fork; what there is now is kept to go back to
:back         go back to where :fork was last used
:files PATH   list a directory of the sandbox
:stats        say what the sandbox has used
:reset        begin anew, in a fresh fork of the template
:help         this
Ctrl-C interrupts, Ctrl-D ends.
";
/// Defines what says whether a source is a whole statement, where no cell finds it by chance: it raises an EOFError if
/// not, and leaves no trace in the session's names.
const LOOK_MODULE: &str = "luminaguard_repl";
const LOOK: &str = r#"
def install():
    import ast, codeop, sys, types
    def look(source):
        compiler = codeop.CommandCompiler()
        compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        if compiler(source, "<input>", "single") is None:
            try:
                compile(source, "<input>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
            except SyntaxError:
                raise EOFError("open") from None
            raise EOFError("may go on")
    module = sys.modules["luminaguard_repl"] = types.ModuleType("luminaguard_repl")
    module.look = look
install()
del install
"#;
/// How long that may take: a cell may have made anything of what it uses.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
const FILE_TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// Whether what was written can be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completeness {
    /// It is a whole statement, or wrong.
    Complete,
    /// It goes on.
    Open,
    /// It is a block that may go on.
    MayGoOn,
    /// It is wrong.
    Wrong,
}

/// What to do after a line.
enum Next {
    Line,
    /// The session is over, with this exit status.
    End(u8),
}

struct Session {
    template: Template,
    sandbox: Sandbox,
    /// Paused sandboxes to go back to, the latest last.
    checkpoints: Vec<Sandbox>,
    /// Lines that are no whole statement yet.
    pending: String,
    cell_timeout: Duration,
    /// Whether a cell raised an exception or ended its interpreter.
    failed: bool,
    interrupts: Signal,
}

/// Answers the exit status.
pub(crate) fn run(options: ReplOptions) -> Result<u8> {
    let mut spec = template::find(&options.template)?;
    spec.sandbox = options.sandbox.apply(spec.sandbox);
    let cell_timeout = options.cell_timeout.unwrap_or(Duration::MAX);
    crate::async_runtime()?.block_on(async {
        let template = template::make(&spec).await?;
        let sandbox = fresh(&template).await?;
        let mut session = Session {
            template,
            sandbox,
            checkpoints: Vec::new(),
            pending: String::new(),
            cell_timeout,
            failed: false,
            interrupts: signal(SignalKind::interrupt()).context("cannot listen to signals")?,
        };
        let status = session.run().await;
        let Session { template, mut sandbox, checkpoints, .. } = session;
        for mut checkpoint in checkpoints {
            // Like the others it is gone either way.
            let _ = checkpoint.kill().await;
        }
        let ended = sandbox.kill().await;
        template.end().await.context("cannot end the template")?;
        ended.context("cannot end the sandbox")?;
        status
    })
}

/// A fork of the template with an interpreter.
async fn fresh(template: &Template) -> Result<Sandbox> {
    let mut sandbox = template.spawn().await.context("cannot fork the template")?;
    prepare(&mut sandbox, Interpreter::Present).await.context("cannot start an interpreter")?;
    Ok(sandbox)
}

/// The lines of standard input, read by a thread that ends with this process.
fn lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned());
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Session {
    async fn run(&mut self) -> Result<u8> {
        let is_terminal = std::io::stdin().is_terminal();
        let mut lines = lines();
        if is_terminal {
            print("Python in a sandbox; :help for more\n")?;
        }
        loop {
            if is_terminal {
                print(if self.pending.is_empty() { ">>> " } else { "... " })?;
            }
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = self.interrupts.recv() => {
                    if !is_terminal {
                        return Ok(130);
                    }
                    print("\n")?;
                    self.pending.clear();
                    continue;
                }
            };
            let next = match line {
                Some(line) => self.take(&line.context("cannot read standard input")?, is_terminal).await?,
                None => {
                    if is_terminal {
                        print("\n")?;
                    }
                    match self.evaluate_pending().await? {
                        Next::Line => Next::End(u8::from(self.failed && !is_terminal)),
                        end => end,
                    }
                }
            };
            if let Next::End(status) = next {
                return Ok(status);
            }
        }
    }

    /// Takes in one line.
    async fn take(&mut self, line: &str, is_terminal: bool) -> Result<Next> {
        let before = self.pending.len();
        if before == 0 {
            if let Some(command) = line.strip_prefix(':') {
                return self.command(command).await;
            }
            if line.trim().is_empty() {
                return Ok(Next::Line);
            }
        }
        self.pending += line;
        self.pending.push('\n');
        if before > 0 && line.trim().is_empty() && !is_terminal {
            // Files have empty lines in their blocks.
            return Ok(Next::Line);
        }
        let mut found = self.look_at(self.pending.len()).await?;
        let ends_block = before > 0 && !line.starts_with([' ', '\t']);
        if found == Completeness::Wrong
            && ends_block
            && matches!(self.look_at(before).await?, Completeness::Complete | Completeness::MayGoOn)
        {
            self.pending.truncate(before);
            if let Next::End(status) = self.evaluate_pending().await? {
                return Ok(Next::End(status));
            }
            if let Some(command) = line.strip_prefix(':') {
                return self.command(command).await;
            }
            self.pending = format!("{line}\n");
            found = self.look_at(self.pending.len()).await?;
        }
        match found {
            Completeness::Open | Completeness::MayGoOn => Ok(Next::Line),
            Completeness::Complete | Completeness::Wrong => self.evaluate_pending().await,
        }
    }

    /// Has the guest look whether the first so many bytes of what is pending are a whole statement.
    async fn look_at(&mut self, len: usize) -> Result<Completeness> {
        let source = &self.pending[..len];
        let source = serde_json::to_string(source.strip_suffix('\n').unwrap_or(source))?;
        let cell = format!("__import__({LOOK_MODULE:?}).look({source})");
        let look = context(&mut self.sandbox)?.evaluate_within(&cell, LOOK_LIMIT);
        Ok(match look.await.map(|cell| cell.outcome) {
            Ok(Err(error)) if error.name == "EOFError" && error.value == "open" => Completeness::Open,
            Ok(Err(error)) if error.name == "EOFError" => Completeness::MayGoOn,
            Ok(Err(_)) => Completeness::Wrong,
            // What is wrong with the sandbox shows when the statement is evaluated.
            Ok(Ok(_)) | Err(_) => Completeness::Complete,
        })
    }

    /// Evaluates what is pending, and shows what it does.
    async fn evaluate_pending(&mut self) -> Result<Next> {
        let source = std::mem::take(&mut self.pending);
        if source.trim().is_empty() {
            return Ok(Next::Line);
        }
        match self.evaluate(&source).await? {
            Ok(()) => Ok(Next::Line),
            Err(error) => self.recover(error).await,
        }
    }

    /// Evaluates a cell, and shows what it does as it does it.
    async fn evaluate(&mut self, source: &str) -> Result<Result<(), EvaluateError>> {
        let mut evaluation = match context(&mut self.sandbox)?.start_within(source, self.cell_timeout).await {
            Ok(evaluation) => evaluation,
            Err(error) => return Ok(Err(error)),
        };
        let end = loop {
            let event = tokio::select! {
                event = evaluation.next() => event,
                _ = self.interrupts.recv() => {
                    // A sandbox that is over says so next.
                    let _ = evaluation.interrupt();
                    continue;
                }
            };
            match event {
                Some(Ok(CellEvent::Stdout(bytes))) => write(std::io::stdout(), &bytes)?,
                Some(Ok(CellEvent::Stderr(bytes))) => write(std::io::stderr(), &bytes)?,
                Some(Ok(CellEvent::Display(data) | CellEvent::Ended(Ok(Some(data))))) => {
                    print(&format!("{}\n", data.text().unwrap_or_default()))?;
                }
                Some(Ok(CellEvent::Ended(Err(error)))) => {
                    self.failed = true;
                    write(std::io::stderr(), error.traceback.as_bytes())?;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            }
        };
        if end.is_ok() && evaluation.timed_out() {
            complain(&format!("interrupted: it took more than {}", format_duration(self.cell_timeout)));
        }
        Ok(end)
    }

    /// Goes on after an interpreter that answers no more, if the sandbox still runs.
    async fn recover(&mut self, error: EvaluateError) -> Result<Next> {
        self.failed = true;
        if matches!(&error, EvaluateError::Call(error) if error.is_over()) {
            return self.sandbox_ended().await;
        }
        complain(&format!("{:#}; a new one is started, and names are gone", anyhow::Error::new(error)));
        match prepare(&mut self.sandbox, Interpreter::New).await {
            Err(EvaluateError::Call(error)) if error.is_over() => self.sandbox_ended().await,
            result => {
                result.context("cannot start an interpreter")?;
                Ok(Next::Line)
            }
        }
    }

    async fn sandbox_ended(&mut self) -> Result<Next> {
        let outcome = self.sandbox.wait().await?.outcome;
        complain(&match &outcome {
            Outcome::TimedOut => "the sandbox was ended by its deadline".to_owned(),
            Outcome::LimitReached(limit) => format!("the sandbox was ended by its limit of {limit}"),
            other => format!("the sandbox ended: {}", other.failure_message().unwrap_or("it was killed")),
        });
        Ok(Next::End(outcome.exit_status()))
    }

    /// Does what a line with a colon says. What it cannot do is said, and the session goes on.
    async fn command(&mut self, command: &str) -> Result<Next> {
        let (verb, argument) = command.trim().split_once(char::is_whitespace).unwrap_or((command.trim(), ""));
        let done = match verb {
            "fork" => self.fork().await,
            "back" => self.back().await,
            "files" => self.files(argument.trim()).await,
            "stats" => self.stats().await,
            "reset" => self.reset().await,
            "help" => print(HELP),
            _ => Err(anyhow!("there is no `:{verb}`: try :help")),
        };
        if let Err(error) = done {
            if self.sandbox.is_over() {
                return self.sandbox_ended().await;
            }
            self.failed = true;
            complain(&format!("{error:#}"));
        }
        Ok(Next::Line)
    }

    async fn fork(&mut self) -> Result<()> {
        let fork = self.sandbox.fork(1).await?.pop().context("no fork was made")?;
        let latency = fork.spawn_latency();
        let original = std::mem::replace(&mut self.sandbox, fork);
        original.pause().await?;
        self.checkpoints.push(original);
        note(&format!("in a fork, made in {:.2} ms; :back leads to before", latency.as_secs_f64() * 1e3));
        Ok(())
    }

    async fn back(&mut self) -> Result<()> {
        let checkpoint = self.checkpoints.pop().context("nothing to go back to: use :fork before")?;
        checkpoint.resume().await?;
        let mut left = std::mem::replace(&mut self.sandbox, checkpoint);
        left.kill().await?;
        note(&format!("as before the fork; {} to go back to", self.checkpoints.len()));
        Ok(())
    }

    async fn files(&mut self, path: &str) -> Result<()> {
        let path = if path.is_empty() { "/" } else { path };
        let mut text = String::new();
        for entry in self.sandbox.files().list(path).await.with_context(|| format!("cannot list {path}"))? {
            text += &lg_control::printable(&String::from_utf8_lossy(&entry.name));
            text += match entry.file_type & FILE_TYPE {
                DIRECTORY => "/\n",
                SYMLINK => "@\n",
                _ => "\n",
            };
        }
        print(&text)
    }

    async fn stats(&mut self) -> Result<()> {
        let stats = self.sandbox.stats().await?;
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let mut text = format!(
            "{} system calls, {} page faults, {:.1} ms of processor time, {:.1} MiB of guest memory at most\n",
            stats.exits.syscalls + stats.polled_syscalls,
            stats.exits.page_faults,
            stats.cpu_time_ns as f64 / 1e6,
            mib(stats.peak_memory_bytes),
        );
        if let Some(bytes) = private_bytes(self.sandbox.vmm_pid()) {
            text += &format!("{:.1} MiB of the host's memory for this sandbox alone\n", mib(bytes));
        }
        print(&text)
    }

    async fn reset(&mut self) -> Result<()> {
        let fresh = fresh(&self.template).await?;
        let mut left = std::mem::replace(&mut self.sandbox, fresh);
        self.checkpoints.clear();
        left.kill().await?;
        note("a fresh fork of the template");
        Ok(())
    }
}

fn context(sandbox: &mut Sandbox) -> Result<&mut Context> {
    sandbox.context().context("the sandbox has no interpreter")
}

/// Whether an interpreter that is there will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interpreter {
    Present,
    New,
}

/// Sees to it that there is an interpreter with what the session needs.
async fn prepare(sandbox: &mut Sandbox, interpreter: Interpreter) -> Result<(), EvaluateError> {
    if interpreter == Interpreter::New || sandbox.context().is_none() {
        sandbox.start_context().await?;
    }
    if let Some(context) = sandbox.context() {
        context.evaluate(LOOK).await?;
    }
    Ok(())
}

/// Says something of the session's own; results alone go to standard output.
fn note(message: &str) {
    // When standard error is gone, nobody is left to be told.
    let _ = writeln!(std::io::stderr(), "{message}");
}

fn print(text: &str) -> Result<()> {
    write(std::io::stdout(), text.as_bytes())
}

fn write(mut stream: impl Write, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).and_then(|()| stream.flush()).context("cannot write")
}
