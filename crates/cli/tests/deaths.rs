//! The process that holds sandboxes is killed, at every step of their lives: within a moment nothing of them is left.

#![forbid(unsafe_code)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{MOMENT, PATIENCE, launcher, python, trials, value};
use lg_runtime::admission::{Admission, AdmissionConfig};
use lg_runtime::pool::{Ask, SandboxPool, SandboxPoolConfig};
use lg_runtime::{Sandbox, Stream, Template, TemplateSpec};
use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};

/// Where in the life of sandboxes their owner is killed.
const STEPS: [&str; 12] = [
    "before the template",
    "while the template starts",
    "while it warms up",
    "template ready",
    "fork requested",
    "fork ready",
    "while evaluating",
    "while paused",
    "while streaming",
    "while it is forked",
    "while a program starts",
    "while ending",
];

fn main() -> std::process::ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("live") => common::runtime().block_on(live()),
        Some("churn") => common::runtime().block_on(churn()),
        _ => {
            // What a killed owner leaves comes here instead of to init, so that all of it can be waited for.
            set_child_subreaper(Some(getpid())).unwrap();
            return common::main(trials![
                an_owner_that_is_killed_at_any_step_leaves_nothing,
                an_owner_that_is_killed_at_any_time_leaves_nothing,
            ]);
        }
    }
    std::process::ExitCode::SUCCESS
}

/// Says that a step is about to be taken.
fn at(step: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{step}").and_then(|()| out.flush()).unwrap();
}

/// The life of some sandboxes, step by step. Never returns by itself.
async fn live() {
    let mut steps = STEPS.iter();
    let mut next = || at(steps.next().unwrap());
    next();
    let base = tokio::spawn(async { Template::build(&TemplateSpec::base(), &launcher()).await.unwrap() });
    next();
    let base = base.await.unwrap();
    let warm = tokio::spawn(python());
    next();
    let template = warm.await.unwrap();
    next();
    let forks: Vec<_> = (0..3)
        .map(|_| {
            let template = template.clone();
            tokio::spawn(async move { template.spawn().await.unwrap() })
        })
        .collect();
    next();
    let mut sandboxes = Vec::new();
    for fork in forks {
        sandboxes.push(fork.await.unwrap());
    }
    next();
    let [mut busy, paused, streaming] = <[Sandbox; 3]>::try_from(sandboxes).unwrap();
    let mut context = busy.take_context().unwrap();
    let evaluation = context.start("while True: pass").await.unwrap();
    next();
    paused.pause().await.unwrap();
    next();
    let yes = streaming.program(["yes"]).launch().await.unwrap();
    next();
    let forks = tokio::spawn(async move {
        let forks = busy.fork(3).await.unwrap();
        (busy, forks)
    });
    next();
    let program = Sandbox::builder(["sleep", "1000"]).launcher(launcher()).stdin(Stream::Piped).spawn();
    let program = tokio::spawn(program);
    next();
    let forked = forks.await.unwrap();
    let ending = (paused, base.spawn().await.unwrap(), program.await.unwrap().unwrap());
    next();
    drop(ending);
    // The one who was to kill is gone.
    let _ = std::io::read_to_string(std::io::stdin());
    drop((forked, evaluation, yes, streaming, template));
}

/// A pool at full work, until its input ends.
async fn churn() {
    at("before the template");
    let template = python().await;
    let limits = AdmissionConfig { max_alive: Some(6), ..AdmissionConfig::default() };
    let mut config =
        SandboxPoolConfig { admission: Some(Admission::new(limits)), ..SandboxPoolConfig::default() };
    config.pool.floor = 3;
    let pool = std::sync::Arc::new(SandboxPool::new(template, config));
    for agent in 0..8 {
        let pool = pool.clone();
        tokio::spawn(async move {
            loop {
                let Ok(mut sandbox) = pool.claim(&Ask::default(), PATIENCE).await else { continue };
                value(&mut sandbox, "sum(range(1000))").await;
                if agent % 2 == 0 {
                    drop(sandbox.fork(1).await);
                    drop(sandbox);
                } else {
                    let _ = sandbox.end().await;
                }
            }
        });
    }
    let _ = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await;
}

/// Starts this program in a process group of its own, which all that it starts are in.
fn owner(role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .arg(role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Kills the owner, and waits for everything that was in its group.
#[track_caller]
fn kill_and_reap(mut owner: Child, when: &str) -> usize {
    let group = Pid::from_child(&owner);
    owner.kill().unwrap();
    let killed = Instant::now();
    owner.wait().unwrap();
    let mut reaped = 0;
    loop {
        match waitid(WaitId::Pgid(Some(group)), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) => reaped += 1,
            Ok(None) => {
                assert!(killed.elapsed() < MOMENT, "killed {when}, something is left: {}", names_of(group));
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(rustix::io::Errno::CHILD) => break,
            Err(error) => panic!("{error}"),
        }
    }
    // Nobody has left the group either.
    let others = common::children();
    assert!(others.is_empty(), "killed {when}, these are left outside of its group: {others:?}");
    reaped
}

/// The processes of a group, by name.
fn names_of(group: Pid) -> String {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let of_group = stats.filter(|stat| {
        let of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(2));
        of == Some(&group.as_raw_nonzero().to_string())
    });
    of_group
        .map(|stat| stat.split_ascii_whitespace().take(4).collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

async fn an_owner_that_is_killed_at_any_step_leaves_nothing() {
    let mut reaped = Vec::new();
    for step in STEPS {
        // At once, and a little later.
        for delay in [0, 3].map(Duration::from_millis) {
            let mut owner = owner("live");
            let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
            while lines.next().unwrap_or_else(|| panic!("it did not come to {step:?}")).unwrap() != step {}
            std::thread::sleep(delay);
            reaped.push((step, kill_and_reap(owner, &format!("{delay:?} after {step:?}"))));
        }
    }
    // The steps are what they say: vmms were there.
    let most = reaped.iter().map(|(_, count)| *count).max();
    assert!(most >= Some(5), "{reaped:?}");
}

async fn an_owner_that_is_killed_at_any_time_leaves_nothing() {
    // Spread over the time that it takes to get to full work, and on.
    for round in 0..10 {
        let mut owner = owner("churn");
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let delay = Duration::from_micros(17_300 * round + 1_700);
        std::thread::sleep(delay);
        kill_and_reap(owner, &format!("{delay:?} after its start"));
    }
}
