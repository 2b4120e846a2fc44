//! `luminaguard`: runs programs in micro-VMs, looks at whether this machine can, and measures it.
//!
//! The same binary is the vmm process of every sandbox (hidden subcommand `vmm`) and the probe that runs inside one
//! (`guest-probe`). `run` without a template holds the VM in its own process: no threads, no async runtime, nothing
//! initialised that it does not need. Errors are printed here, once, in one line; the exit status is
//! documented in [`args::EXIT_STATUS_HELP`].

#![forbid(unsafe_code)]

mod args;
mod bench;
mod bench_args;
mod doctor;
mod fork;
mod guest_probe;
mod repl;
mod run;
mod signals;
mod template;
mod terminal;
mod vm;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;
use lg_control::{EXIT_LUMINAGUARD, printable};

use crate::args::{Arguments, Verb};

/// How long the last sandboxes may take to be gone.
const REAP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

fn main() -> ExitCode {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        let payload = info.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        complain(&format!("internal error{place}: {}", text.unwrap_or("unknown").replace('\n', " ")));
    }));
    let status = match panic::catch_unwind(AssertUnwindSafe(dispatch)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            complain(&format!("{error:#}"));
            EXIT_LUMINAGUARD
        }
        // The hook has said what happened.
        Err(_) => EXIT_LUMINAGUARD,
    };
    // What was dropped is being reaped.
    lg_runtime::settle(REAP_PATIENCE);
    ExitCode::from(status)
}

fn dispatch() -> anyhow::Result<u8> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            help.print()?;
            return Ok(EXIT_LUMINAGUARD);
        }
        Err(error) if error.use_stderr() => {
            complain(&args::one_line(&error));
            return Ok(EXIT_LUMINAGUARD);
        }
        Err(help) => {
            help.print()?;
            return Ok(0);
        }
    };
    match arguments.verb {
        Verb::Run(options) => run::run(options),
        Verb::Repl(options) => repl::run(options),
        Verb::Template(verb) => template::run(verb),
        Verb::Doctor(options) => doctor::run(&options),
        Verb::Bench(verb) => bench::run(verb),
        Verb::Vmm => lg_vmm::serve_stdin().map(|()| 0).map_err(Into::into),
        Verb::ChaosRuntime => bench::chaos_runtime(),
        Verb::GuestProbe(probe) => guest_probe::run(&probe),
        Verb::OverloadRow { task } => bench::overload_row(&task),
    }
}

/// What the library needs: one thread does for one sandbox and its template.
fn async_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// Says what is wrong, in one line. When standard error is gone, nobody is left to be told.
fn complain(message: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "luminaguard: {}", printable(message));
}

/// Text of several lines for a terminal: no names and messages from elsewhere in it may command that.
fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}
