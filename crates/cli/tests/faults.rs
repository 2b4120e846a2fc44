//! What goes wrong with templates, forks and vmms ends in a typed error, and leaves nothing.

#![forbid(unsafe_code)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{MOMENT, PATIENCE, kill, launcher, python, python_with, template, told, trials, until, value};
use lg_runtime::admission::{
    Admission, AdmissionConfig, Cost, HostReadings, Readings, ReadingsError, Refused, Shortage,
};
use lg_runtime::pool::{Ask, SandboxPool, SandboxPoolConfig};
use lg_runtime::{
    CallError, Census, Cgroup, CgroupLimits, EvaluateError, ExitStatus, Limits, Ready, Sandbox, SpawnError,
    StartFailureKind, Template, TemplateError, TemplateSpec, WaitError, WarmUp,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

const MS: Duration = Duration::from_millis(1);

fn main() -> std::process::ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("with-few-descriptors") => {
            with_few_descriptors();
            return std::process::ExitCode::SUCCESS;
        }
        Some("with-no-process-left") => {
            with_no_process_left(Path::new(&std::env::args().nth(2).unwrap()));
            return std::process::ExitCode::SUCCESS;
        }
        _ => {}
    }
    common::main(trials![
        a_warm_up_that_fails_says_how,
        a_warm_up_that_hangs_is_ended,
        a_warm_up_may_leave_a_process_behind,
        a_warm_up_may_write_more_than_anybody_reads,
        a_program_that_was_forked_writes_on_though_nobody_can_read_it,
        forks_of_forks_are_made_while_they_work,
        a_template_that_is_killed_takes_no_fork_with_it,
        forks_outlive_their_template,
        a_vmm_that_is_killed_is_a_typed_error_in_every_state,
        descriptors_that_run_out_are_a_typed_error,
        processes_that_run_out_are_a_typed_error,
        a_sandbox_ends_in_order_when_no_process_is_left,
        descriptors_that_run_out_are_refused_by_admission,
        memory_that_runs_out_is_refused_by_admission,
        a_guest_without_memory_ends_its_own_program_only,
    ])
}

fn program(command: &[&str], ready: Ready) -> WarmUp {
    WarmUp::Program { command: command.iter().map(|&word| word.to_owned()).collect(), ready }
}

fn shell(script: &str, ready: Ready) -> WarmUp {
    program(&["sh", "-c", script], ready)
}

fn cell(source: &str) -> WarmUp {
    WarmUp::Python { cell: Some(source.to_owned()) }
}

fn line() -> Ready {
    Ready::Line("ready".to_owned())
}

async fn fails(warm_up: WarmUp, limit: Duration) -> TemplateError {
    let spec = TemplateSpec { warm_up_limit: limit, ..TemplateSpec::new("faulty", warm_up.clone()) };
    match Template::build(&spec, &launcher()).await {
        Ok(_) => panic!("{warm_up:?} became a template"),
        Err(error) => error,
    }
}

async fn a_warm_up_that_fails_says_how() {
    let ended = |error: &TemplateError, expected| matches!(error, TemplateError::WarmUpFailed { status, .. } if *status == expected);
    let no_luck = shell("echo luck >&2; echo no luck >&2; exit 3", Ready::Exits);
    let error = fails(no_luck, PATIENCE).await;
    assert!(ended(&error, ExitStatus::Exited(3)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the warm-up ended with exit status 3 before the template was ready: no luck"
    );
    for (warm_up, status) in [
        (shell("kill -9 $$", Ready::Exits), ExitStatus::Signaled(9)),
        (shell("echo not yet", line()), ExitStatus::Exited(0)),
        (shell("exec >&-; exit 2", line()), ExitStatus::Exited(2)),
        (shell("exit 0", Ready::File("/tmp/ready".into())), ExitStatus::Exited(0)),
    ] {
        let error = fails(warm_up.clone(), PATIENCE).await;
        assert!(ended(&error, status), "{warm_up:?}: {error:?}");
    }
    for (warm_up, named) in [
        (program(&["/no/such/program"], Ready::Exits), "cannot make the template: /no/such/program: "),
        (program(&[], Ready::Exits), "cannot make the template: no command"),
        (cell("1 / 0"), "the warm-up cell raised ZeroDivisionError"),
        (cell("if"), "the warm-up cell raised SyntaxError"),
        (cell("bytearray(4 << 30)"), "the warm-up cell raised MemoryError"),
        (cell("import os; os._exit(4)"), "the interpreter ended: exit status 4"),
        (cell("import os; os.kill(os.getpid(), 9)"), "the interpreter ended: signal 9"),
    ] {
        let error = fails(warm_up.clone(), PATIENCE).await;
        assert!(told(&error).contains(named), "{warm_up:?}: {}", told(&error));
    }
}

async fn a_warm_up_that_hangs_is_ended() {
    let started = Instant::now();
    let cases = [
        program(&["sleep", "1000"], Ready::Exits),
        shell("while :; do :; done", line()),
        program(&["yes"], line()),
        program(&["sleep", "1000"], Ready::File("/tmp/ready".into())),
        cell("while True: pass"),
        cell("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"),
        // The cell ends; what comes after it does not.
        cell("import time\ndef print(*a, **k): time.sleep(1000)"),
    ];
    let mut hanging = JoinSet::new();
    for warm_up in cases {
        hanging.spawn(async move { (fails(warm_up.clone(), 1000 * MS).await, warm_up) });
    }
    while let Some(result) = hanging.join_next().await {
        let (error, warm_up) = result.unwrap();
        let is_limit = matches!(&error, TemplateError::WarmUpTimedOut { limit, .. } if *limit == 1000 * MS);
        assert!(is_limit, "{warm_up:?}: {error:?}");
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    let error = fails(shell("echo stuck >&2; sleep 1000", Ready::Exits), 300 * MS).await;
    assert_eq!(error.to_string(), "the template was not ready within 300ms: stuck");
}

async fn a_warm_up_may_leave_a_process_behind() {
    for (script, ready) in [
        ("sleep 1000 &", Ready::Exits),
        ("sleep 1000 & echo ready", line()),
        (
            "setsid sh -c 'echo $$ > /tmp/pid; exec sleep 1000' & touch /tmp/ready",
            Ready::File("/tmp/ready".into()),
        ),
    ] {
        let template = template(&TemplateSpec::new("left", shell(script, ready))).await;
        for _ in 0..2 {
            let sandbox = template.spawn().await.unwrap();
            // It may be on its way there, and goes on.
            let started = Instant::now();
            loop {
                let processes = sandbox.processes().await.unwrap();
                if processes.iter().any(|process| process.command.starts_with(b"sleep\0")) {
                    break;
                }
                assert!(started.elapsed() < PATIENCE, "{script}: {processes:?}");
                tokio::time::sleep(MS).await;
            }
        }
    }
}

async fn a_warm_up_may_write_more_than_anybody_reads() {
    const MUCH: &str = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2;";
    for (script, ready) in [
        (MUCH.to_owned(), Ready::Exits),
        (format!("{MUCH} touch /tmp/ready; {MUCH}"), Ready::File("/tmp/ready".into())),
        (format!("{MUCH} echo; echo ready; {MUCH}"), line()),
    ] {
        let template = template(&TemplateSpec::new("loud", shell(&script, ready))).await;
        let sandbox = template.spawn().await.unwrap();
        assert_eq!(sandbox.program(["echo", "42"]).output().await.unwrap().stdout, b"42\n");
    }
}

async fn a_program_that_was_forked_writes_on_though_nobody_can_read_it() {
    const LOUD: &str =
        "echo ready; n=0; while :; do head -c 100000 /dev/zero; n=$((n+1)); echo $n > /tmp/n; done";
    async fn goes_on(sandbox: &Sandbox) {
        let count = || async {
            let text = sandbox.files().read("/tmp/n").await.unwrap_or_default();
            String::from_utf8(text).unwrap().trim().parse().unwrap_or(0)
        };
        let (first, started): (u32, _) = (count().await, Instant::now());
        // Far more than the window of a stream, and than a pipe holds.
        while count().await < first + 10 {
            assert!(started.elapsed() < PATIENCE, "it waits for a reader");
            tokio::time::sleep(2 * MS).await;
        }
    }
    let template = template(&TemplateSpec::new("loud", shell(LOUD, line()))).await;
    let fork = template.spawn().await.unwrap();
    goes_on(&fork).await;
    // A program that nobody has read from yet, and one that somebody reads.
    let _unread = fork.program(["sh", "-c", &LOUD.replace("/tmp/n", "/tmp/m")]).launch().await.unwrap();
    let again = fork.fork(1).await.unwrap().remove(0);
    goes_on(&again).await;
    let output = again.program(["echo", "42"]).output().await.unwrap();
    assert_eq!(output.stdout, b"42\n");
}

async fn forks_of_forks_are_made_while_they_work() {
    let mut root = python().await.spawn().await.unwrap();
    value(&mut root, "import random, threading, time\nline = ['root']\n0").await;
    // A thread that never rests is in every fork.
    value(&mut root, "n = 0\ndef count():\n  global n\n  while True: n += 1; time.sleep(0.0005)\nthreading.Thread(target=count, daemon=True).start()\n0").await;
    let mut context = root.take_context().unwrap();
    let root = Arc::new(root);
    // It is forked in the middle of a cell, by several at once, and so are the forks.
    let cell = context
        .start("t = time.time()\nwhile time.time() < t + 0.2: random.random()\nlen(line)")
        .await
        .unwrap();
    let mut families = JoinSet::new();
    for family in 0..3 {
        let root = root.clone();
        families.spawn(async move {
            let mut seen = BTreeSet::new();
            for (child, mut fork) in root.fork(2).await.unwrap().into_iter().enumerate() {
                value(&mut fork, &format!("line.append('{family}{child}')\n0")).await;
                let (grandchildren, own) = {
                    let mut context = fork.take_context().unwrap();
                    let evaluation = context.start("time.sleep(0.05)\nrandom.random()").await.unwrap();
                    let grandchildren = fork.fork(2).await.unwrap();
                    drop(evaluation);
                    let own = context.evaluate("' '.join(line)").await.unwrap();
                    (grandchildren, own.text().unwrap().to_owned())
                };
                assert_eq!(own, format!("'root {family}{child}'"));
                for mut grandchild in grandchildren {
                    assert_eq!(value(&mut grandchild, "line[-1]").await, format!("'{family}{child}'"));
                    assert_eq!(value(&mut grandchild, "m = n; time.sleep(0.05); n > m").await, "True");
                    seen.insert(value(&mut grandchild, "random.random()").await);
                }
            }
            seen
        });
    }
    let seen: Vec<BTreeSet<String>> = families.join_all().await;
    assert_eq!(seen.iter().flatten().collect::<BTreeSet<_>>().len(), 3 * 2 * 2, "two forks drew the same");
    drop(cell);
    let cell = context.evaluate("' '.join(line)").await.unwrap();
    assert_eq!(cell.text(), Some("'root'"));
}

async fn a_template_that_is_killed_takes_no_fork_with_it() {
    let (mut lived, mut failed) = (0, 0);
    for delay_us in [0, 300, 1000, 2500, 5000, 10_000, 20_000] {
        let template = python_with("x = 6").await;
        let mut forks = JoinSet::new();
        for _ in 0..20 {
            let template = template.clone();
            forks.spawn(async move { template.spawn().await });
        }
        tokio::time::sleep(Duration::from_micros(delay_us)).await;
        kill(template.vmm_pid());
        for fork in forks.join_all().await {
            match fork {
                Ok(mut fork) => {
                    assert_eq!(value(&mut fork, "x * 7").await, "42");
                    lived += 1;
                }
                Err(SpawnError::OriginalEnded | SpawnError::ForkDied) => failed += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        until("the template is over", || template.is_over()).await;
        assert!(matches!(template.spawn().await, Err(SpawnError::OriginalEnded)));
    }
    assert!(lived > 0 && failed > 0, "{lived} lived, {failed} failed: nothing was killed in the middle");
}

async fn forks_outlive_their_template() {
    let template = Template::build(&TemplateSpec::python(), &launcher()).await.unwrap();
    let mut fork = template.spawn().await.unwrap();
    template.end().await.unwrap();
    assert_eq!(value(&mut fork, "sum(bytearray(b'\\1' * (8 << 20)))").await, "8388608");
    let mut forks = fork.fork(2).await.unwrap();
    drop(fork);
    assert_eq!(value(&mut forks[1], "6 * 7").await, "42");
}

/// Brings a sandbox to a state, kills its vmm, and expects what comes of it.
async fn a_vmm_that_is_killed_is_a_typed_error_in_every_state() {
    let template = python().await;
    let over = |error: &CallError| matches!(error, CallError::Ended);
    // Idle.
    let mut sandbox = template.spawn().await.unwrap();
    kill(sandbox.vmm_pid());
    let error = sandbox.context().unwrap().evaluate("1").await.unwrap_err();
    assert!(matches!(&error, EvaluateError::Call(error) if over(error)), "{error:?}");
    is_dead(sandbox).await;
    // Evaluating, and waiting for everything that can be waited for.
    let mut sandbox = template.spawn().await.unwrap();
    let program = sandbox.program(["sleep", "1000"]).launch().await.unwrap();
    let pid = sandbox.vmm_pid();
    let mut context = sandbox.take_context().unwrap();
    let mut evaluation = context.start("print('here')\nwhile True: pass").await.unwrap();
    evaluation.next().await.unwrap().unwrap();
    let (waited, killed) = tokio::join!(program.wait(), async {
        kill(pid);
        evaluation.next().await
    });
    assert!(over(&waited.unwrap_err()));
    let error = killed.unwrap().unwrap_err();
    assert!(matches!(&error, EvaluateError::Call(error) if over(error)), "{error:?}");
    is_dead(sandbox).await;
    // Paused.
    let sandbox = template.spawn().await.unwrap();
    sandbox.pause().await.unwrap();
    kill(sandbox.vmm_pid());
    assert!(over(&sandbox.resume().await.unwrap_err()));
    is_dead(sandbox).await;
    // Streaming, with a reader and with a writer.
    let sandbox = template.spawn().await.unwrap();
    let mut yes = sandbox.program(["yes"]).launch().await.unwrap();
    let mut cat = sandbox.program(["cat"]).with_stdin().launch().await.unwrap();
    let (mut yes_out, mut cat_out) = (yes.stdout.take().unwrap(), cat.stdout.take().unwrap());
    let mut buffer = vec![0; 100_000];
    yes_out.read_exact(&mut buffer).await.unwrap();
    let pid = sandbox.vmm_pid();
    let write = async {
        loop {
            if let Err(error) = cat.write(&buffer).await {
                return error;
            }
        }
    };
    let read = async {
        cat_out.read_exact(&mut [0; 1000]).await.unwrap();
        kill(pid);
        yes_out.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let (error, ()) = tokio::join!(write, read);
    assert!(over(&error), "{error:?}");
    is_dead(sandbox).await;
    // A frozen template.
    kill(template.vmm_pid());
    let error = template.spawn().await.unwrap_err();
    assert!(matches!(error, SpawnError::OriginalEnded | SpawnError::ForkDied), "{error:?}");
    let template = Arc::into_inner(template).unwrap();
    template.end().await.unwrap();
}

async fn is_dead(mut sandbox: Sandbox) {
    let error = sandbox.wait().await.unwrap_err();
    let WaitError::VmmDied(status) = error else { panic!("{error:?}") };
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    for error in [
        sandbox.pause().await.unwrap_err(),
        sandbox.processes().await.unwrap_err(),
        sandbox.files().read("/etc/hostname").await.unwrap_err(),
        sandbox.program(["true"]).launch().await.unwrap_err(),
        sandbox.set_limits(&Limits::default()).await.unwrap_err(),
    ] {
        assert!(matches!(error, CallError::Ended), "{error:?}");
    }
    assert!(matches!(sandbox.fork(2).await, Err(SpawnError::OriginalEnded)));
    assert!(sandbox.is_over());
}

async fn descriptors_that_run_out_are_a_typed_error() {
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me)
        .arg("with-few-descriptors")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// In a process of its own, since all of it has too few.
fn with_few_descriptors() {
    drop(common::runtime());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(80), ..limit }).unwrap();
    let before = Census::take();
    let runtime = common::runtime();
    runtime.block_on(async {
        let template = python().await;
        for _ in 0..3 {
            let mut spawning = JoinSet::new();
            for _ in 0..100 {
                let template = template.clone();
                spawning.spawn(async move { template.spawn().await });
            }
            let (mut alive, mut failed) = (Vec::new(), 0);
            for result in spawning.join_all().await {
                match result {
                    Ok(sandbox) => alive.push(sandbox),
                    Err(SpawnError::Launch(error)) => {
                        assert_eq!(error.raw_os_error(), Some(24), "{error:?}");
                        failed += 1;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            assert!(!alive.is_empty() && failed > 0, "{} alive, {failed} failed", alive.len());
            for sandbox in &mut alive {
                assert_eq!(value(sandbox, "6 * 7").await, "42");
            }
            let fork = alive[0].fork(50).await;
            assert!(matches!(&fork, Err(SpawnError::Launch(_))), "{fork:?}");
            // Whole vmms, which need more of them, fail alike.
            while let Ok(sandbox) = template.spawn().await {
                alive.push(sandbox);
            }
            let error = Sandbox::builder(["true"]).launcher(launcher()).spawn().await.unwrap_err();
            assert!(matches!(error, SpawnError::Launch(_)), "{error:?}");
            drop(alive);
            until("one can be spawned again", || before_is_reached(&before)).await;
            let mut again = template.spawn().await.unwrap();
            assert_eq!(value(&mut again, "6 * 7").await, "42");
        }
    });
    drop(runtime);
    let started = Instant::now();
    loop {
        let left = Census::take().since(&before);
        if left.processes == 0 && left.descriptors == 0 {
            return;
        }
        assert!(started.elapsed() < MOMENT, "{left:?}");
        std::thread::sleep(10 * MS);
    }
}

/// A control group of the host for so many processes and threads; says loudly when there is none.
fn process_group(processes: u64) -> Option<Cgroup> {
    match Cgroup::create(&CgroupLimits { processes: Some(processes), ..CgroupLimits::default() }) {
        Ok(group) => Some(group),
        Err(error) => {
            eprintln!("SKIPPED: {}", told(&error));
            None
        }
    }
}

async fn processes_that_run_out_are_a_typed_error() {
    // A vmm has two: itself and a thread of KVM's. The template has two more, that keep its namespace.
    let Some(group) = process_group(4 + 2 * 4) else { return };
    let launcher = launcher().cgroup(Arc::new(group));
    let template = Arc::new(Template::build(&TemplateSpec::python(), &launcher).await.unwrap());
    for _ in 0..3 {
        let mut spawning = JoinSet::new();
        for _ in 0..20 {
            let template = template.clone();
            spawning.spawn(async move { template.spawn().await });
        }
        let (mut alive, mut failed) = (Vec::new(), 0);
        for result in spawning.join_all().await {
            match result {
                Ok(sandbox) => alive.push(sandbox),
                Err(SpawnError::Start(failure)) if failure.kind == StartFailureKind::Processes => failed += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(alive.len() <= 4 && failed >= 16, "{} alive, {failed} failed", alive.len());
        // What is there has all that it needs.
        for sandbox in &mut alive {
            assert_eq!(value(sandbox, "6 * 7").await, "42");
        }
        drop(alive);
        // A moment later there is room.
        let started = Instant::now();
        let mut again = loop {
            match template.spawn().await {
                Ok(sandbox) => break sandbox,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error:?}"),
            }
            tokio::time::sleep(MS).await;
        };
        assert_eq!(value(&mut again, "6 * 7").await, "42");
    }
}

async fn a_sandbox_ends_in_order_when_no_process_is_left() {
    let Some(group) = process_group(1000) else { return };
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me)
        .arg("with-no-process-left")
        .arg(&group.directories()[0])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// In a process of its own, since all of it goes into the group.
fn with_no_process_left(group: &Path) {
    std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    common::runtime().block_on(async {
        let mut config = SandboxPoolConfig::default();
        (config.pool.floor, config.pool.ceiling) = (0, 0);
        let pool = SandboxPool::new(template(&TemplateSpec::base()).await, config);
        let sandbox = pool.claim(&Ask::default(), PATIENCE).await.unwrap();
        let now = std::fs::read_to_string(group.join("pids.current")).unwrap();
        std::fs::write(group.join("pids.max"), now).unwrap();
        let error = pool.claim(&Ask::default(), PATIENCE).await.unwrap_err();
        assert!(told(&error).contains("cannot fork the vmm process"), "{error:?}");
        // It is measured before it ends, which takes a thread where there is one.
        let report = sandbox.end().await.unwrap();
        assert_eq!(report.outcome.failure_message(), None);
        std::fs::write(group.join("pids.max"), "max").unwrap();
        pool.claim(&Ask::default(), PATIENCE).await.unwrap().end().await.unwrap();
        pool.shutdown().await;
    });
    assert!(lg_runtime::settle(MOMENT));
}

/// Whether only the template is there, with the keeper of its namespace.
fn before_is_reached(before: &Census) -> bool {
    Census::take().since(before).processes == 2
}

/// A machine that is as it is said to be.
#[derive(Clone, Copy)]
struct Machine(Readings);

impl HostReadings for Machine {
    fn read(&self) -> Result<Readings, ReadingsError> {
        Ok(self.0)
    }
}

const MACHINE: Readings = Readings {
    memory_available_bytes: 1000 << 20,
    memory_total_bytes: 2000 << 20,
    descriptors_used: 100,
    descriptors_limit: 1000,
    processes_used: 100,
    processes_limit: 1000,
    cores: 2,
};

/// Claims until one is refused, and again when one has ended.
async fn is_refused(machine: Readings, cost: Cost) -> Refused {
    let config = AdmissionConfig {
        memory_reserve_bytes: Some(100 << 20),
        // It is read once, since nothing that starts shows in it.
        readings_max_age: 10 * PATIENCE,
        ..AdmissionConfig::default()
    };
    let admission = Some(Admission::with_host(config, Machine(machine)));
    let mut config = SandboxPoolConfig { admission, cost, ..SandboxPoolConfig::default() };
    config.pool.floor = 0;
    // Nothing is measured meanwhile.
    config.pool.sweep_every = 10 * PATIENCE;
    let pool = SandboxPool::new(template(&TemplateSpec::base()).await, config);
    let mut held = Vec::new();
    let refused = loop {
        match pool.claim(&Ask::default(), 50 * MS).await {
            Ok(sandbox) => held.push(sandbox),
            Err(error) => break error.refused().unwrap_or_else(|| panic!("{error:?}")).clone(),
        }
    };
    assert_eq!(held.len(), 3, "{refused:?}");
    held.pop().unwrap().end().await.unwrap();
    held.push(pool.claim(&Ask::default(), PATIENCE).await.unwrap());
    drop(held);
    pool.shutdown().await;
    refused
}

async fn memory_that_runs_out_is_refused_by_admission() {
    let cost = Cost { memory_bytes: 250 << 20, descriptors: 3, processes: 1 };
    let refused = is_refused(MACHINE, cost).await;
    assert_eq!(
        refused.short(),
        Some(&Shortage::NoMemory {
            needed_bytes: 250 << 20,
            available_bytes: 250 << 20,
            reserve_bytes: 100 << 20
        })
    );
}

async fn descriptors_that_run_out_are_refused_by_admission() {
    let cost = Cost { memory_bytes: 1 << 20, descriptors: 250, processes: 1 };
    let refused = is_refused(MACHINE, cost).await;
    assert!(matches!(refused.short(), Some(Shortage::NoDescriptors { needed: 250, .. })), "{refused:?}");
}

async fn a_guest_without_memory_ends_its_own_program_only() {
    let template = python().await;
    let limits = Limits { memory_bytes: Some(template.memory_bytes() + (48 << 20)), ..Limits::default() };
    let spawn = || async {
        template.spawn_with(lg_runtime::ForkOptions { limits, ..Default::default() }).await.unwrap()
    };
    let (mut greedy, mut sibling) = (spawn().await, spawn().await);
    // Address space is promised freely; pages are not there when they are touched.
    let source = "import mmap\nm = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
                  for at in range(0, 1 << 30, 4096): m[at] = 1";
    let output = greedy.program(["python3", "-c", source]).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_out = output.status == ExitStatus::Signaled(9)
        || output.status == ExitStatus::Exited(1)
            && (stderr.contains("allocate") || stderr.contains("Memory"));
    assert!(is_out, "{output:?}");
    assert_eq!(value(&mut greedy, "6 * 7").await, "42");
    assert_eq!(value(&mut sibling, "len(bytearray(16 << 20))").await, "16777216");
}
