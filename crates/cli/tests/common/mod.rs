//! What the tests of sandboxes as values share: each runs alone in this process, and nothing may be left after it.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test program uses some of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lg_runtime::{Census, Launcher, Sandbox, Template, TemplateSpec, WarmUp};
use libtest_mimic::{Arguments, Failed, Trial};

/// How long anything may take that must come about.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long anything that has ended may still be seen: a second, and more only for a machine that has much else to do.
pub const MOMENT: Duration = Duration::from_secs(3);

/// The trial of each named async function.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(common::trial(stringify!($name), || common::run($name()))),*]
    };
}
pub(crate) use trials;

pub fn main(trials: Vec<Trial>) -> std::process::ExitCode {
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, trials).exit_code()
}

pub fn trial(name: &str, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        if !Path::new("/dev/kvm").exists() {
            eprintln!("SKIPPED: there is no /dev/kvm on this machine");
            return Ok(());
        }
        test()
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Leaves a test of libtest where there is no KVM; runs it in an async runtime where there is.
pub fn with_kvm(test: impl Future<Output = ()>) {
    if !Path::new("/dev/kvm").exists() {
        eprintln!("SKIPPED: there is no /dev/kvm on this machine");
        return;
    }
    runtime().block_on(test);
}

/// Runs one test; then its processes and descriptors must be gone in a moment.
pub fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    // What tokio keeps for the whole process is there before anything is counted.
    drop(runtime());
    let before = Census::take();
    let runtime = runtime();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(test)));
    let ended = Instant::now();
    drop(runtime);
    result.map_err(|_| "the test panicked")?;
    loop {
        let left = Census::take().since(&before);
        if left.processes == 0 && left.descriptors == 0 {
            return Ok(());
        }
        if ended.elapsed() > MOMENT {
            return Err(format!("left behind: {left:?}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn launcher() -> Launcher {
    Launcher::new(env!("CARGO_BIN_EXE_luminaguard"), ["vmm"])
}

pub async fn template(spec: &TemplateSpec) -> Arc<Template> {
    Arc::new(Template::build(spec, &launcher()).await.unwrap())
}

pub async fn python() -> Arc<Template> {
    template(&TemplateSpec::python()).await
}

/// A Python template that evaluates `cell` to warm up.
pub async fn python_with(cell: &str) -> Arc<Template> {
    template(&TemplateSpec::new("python", WarmUp::Python { cell: Some(cell.to_owned()) })).await
}

/// The value of a cell as text.
#[track_caller]
pub fn value(sandbox: &mut Sandbox, source: &str) -> impl Future<Output = String> + Send {
    let place = std::panic::Location::caller();
    let source = source.to_owned();
    async move {
        let cell = sandbox.context().unwrap().evaluate(&source).await;
        let cell = cell.unwrap_or_else(|error| panic!("{place}: {source}: {error:?}"));
        cell.text().unwrap_or_else(|| panic!("{place}: {source}: {cell:?}")).to_owned()
    }
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool + Send) -> impl Future<Output = ()> + Send {
    let (what, place) = (what.to_owned(), std::panic::Location::caller());
    async move {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "{place}: it never came about that {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// An error with its causes.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Sends SIGKILL.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The vmms among the children of this process.
pub fn vmms() -> Vec<u32> {
    let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children().into_iter().filter(|pid| name(pid) == "lg-vmm\n").collect()
}

/// The children of this process.
pub fn children() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let texts = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let pids = |text: String| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>();
    texts.flat_map(pids).collect()
}
