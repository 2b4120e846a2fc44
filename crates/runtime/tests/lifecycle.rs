//! The life of a sandbox seen from the runtime, with a vmm that only plays its part: this test program starts
//! itself as the vmm, so no virtual machine is needed.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lg_control::{Call, Event, Inbox, Request, recv, recv_start, send};
use lg_runtime::{
    Launcher, Outcome, Report, Sandbox, SandboxBuilder, SpawnError, StartFailureKind, Stats, Stream,
    WaitError,
};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("vmm") {
        play_vmm();
        return std::process::ExitCode::SUCCESS;
    }
    // What tokio keeps for the whole process (its signal sockets) is there before anything is counted.
    let _ = run(async { drop(sandbox(&["exit", "0"]).spawn().await.unwrap()) });
    let trials = vec![
        trial("the_exit_status_arrives", || run(the_exit_status_arrives())),
        trial("input_and_output_are_streams", || run(input_and_output_are_streams())),
        trial("output_is_collected_while_the_program_runs", || {
            run(output_is_collected_while_the_program_runs())
        }),
        trial("waiting_twice_answers_the_same", || run(waiting_twice_answers_the_same())),
        trial("waiting_can_be_given_up_and_taken_up", || run(waiting_can_be_given_up_and_taken_up())),
        trial("a_signal_reaches_the_program", || run(a_signal_reaches_the_program())),
        trial("killing_brings_the_statistics", || run(killing_brings_the_statistics())),
        trial("a_vmm_that_ignores_the_end_is_killed", || run(a_vmm_that_ignores_the_end_is_killed())),
        trial("dropping_leaves_no_process", || run(dropping_leaves_no_process())),
        trial("a_start_failure_keeps_its_kind_and_message", || {
            run(a_start_failure_keeps_its_kind_and_message())
        }),
        trial("a_vmm_that_dies_early_is_an_error", || run(a_vmm_that_dies_early_is_an_error())),
        trial("a_vmm_that_dies_late_is_an_error", || run(a_vmm_that_dies_late_is_an_error())),
        trial("a_vmm_that_talks_nonsense_is_an_error", || run(a_vmm_that_talks_nonsense_is_an_error())),
        trial("a_missing_binary_is_an_error", || run(a_missing_binary_is_an_error())),
        trial("a_bad_spec_starts_nothing", || run(a_bad_spec_starts_nothing())),
        trial("more_memory_than_the_host_has_starts_nothing", || {
            run(more_memory_than_the_host_has_starts_nothing())
        }),
        trial("a_large_environment_arrives", || run(a_large_environment_arrives())),
        trial("fifty_at_once_leave_nothing", || run(fifty_at_once_leave_nothing())),
    ];
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, trials).exit_code()
}

fn trial(name: &str, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(name, test)
}

/// Runs one test, then counts this process's children and descriptors.
fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    let before = descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(test)));
    drop(runtime);
    result.map_err(|_| "the test panicked")?;
    for _ in 0..100 {
        if children().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if !children().is_empty() {
        return Err(format!("processes left: {:?}", children()).into());
    }
    let after = descriptors();
    if after > before {
        return Err(format!("{before} descriptors before, {after} after").into());
    }
    Ok(())
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The children of this process, zombies included.
fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&me)
    })
    .collect()
}

fn sandbox(command: &[&str]) -> SandboxBuilder {
    Sandbox::builder(command.iter().copied())
        .launcher(Launcher::current_exe())
        .stdin(Stream::Piped)
        .stdout(Stream::Piped)
        .memory_bytes(16 << 20)
}

async fn the_exit_status_arrives() {
    let mut sandbox = sandbox(&["exit", "7"]).spawn().await.unwrap();
    assert!(sandbox.spawn_latency() > Duration::ZERO);
    let report = sandbox.wait().await.unwrap();
    assert_eq!(report.outcome, Outcome::Exited(7));
    assert_eq!(report.stats.processes_created, 1);
}

async fn input_and_output_are_streams() {
    let mut sandbox = sandbox(&["cat"]).spawn().await.unwrap();
    let (mut stdin, mut stdout) = (sandbox.stdin.take().unwrap(), sandbox.stdout.take().unwrap());
    let mut buffer = [0; 5];
    for word in ["first", "other"] {
        stdin.write_all(word.as_bytes()).await.unwrap();
        stdout.read_exact(&mut buffer).await.unwrap();
        assert_eq!(buffer, word.as_bytes());
    }
    drop(stdin);
    assert_eq!(stdout.read(&mut buffer).await.unwrap(), 0);
    assert!(sandbox.wait().await.unwrap().outcome.is_success());
}

async fn output_is_collected_while_the_program_runs() {
    let output = sandbox(&["flood", "1000000"]).spawn().await.unwrap().output().await.unwrap();
    assert_eq!(output.stdout.len(), 1_000_000);
    assert!(output.stderr.is_empty());
}

async fn waiting_twice_answers_the_same() {
    let mut sandbox = sandbox(&["exit", "3"]).spawn().await.unwrap();
    let first = sandbox.wait().await.unwrap();
    assert_eq!(sandbox.wait().await.unwrap(), first);
    assert_eq!(sandbox.kill().await.unwrap(), first);
}

async fn waiting_can_be_given_up_and_taken_up() {
    let mut sandbox = sandbox(&["sleep", "150"]).spawn().await.unwrap();
    for _ in 0..5 {
        assert!(tokio::time::timeout(Duration::from_millis(10), sandbox.wait()).await.is_err());
    }
    assert!(sandbox.wait().await.unwrap().outcome.is_success());
}

async fn a_signal_reaches_the_program() {
    let mut sandbox = sandbox(&["until-signal"]).spawn().await.unwrap();
    sandbox.signal(15).await.unwrap();
    assert_eq!(sandbox.wait().await.unwrap().outcome, Outcome::Signaled(15));
    sandbox.signal(15).await.unwrap();
}

async fn killing_brings_the_statistics() {
    let mut sandbox = sandbox(&["until-signal"]).spawn().await.unwrap();
    let report = sandbox.kill().await.unwrap();
    assert_eq!(report.outcome, Outcome::Killed);
    assert_eq!(report.stats.processes_created, 1);
}

async fn a_vmm_that_ignores_the_end_is_killed() {
    let mut sandbox = sandbox(&["sleep", "60000"]).spawn().await.unwrap();
    let started = Instant::now();
    assert_eq!(sandbox.kill().await.unwrap().outcome, Outcome::Killed);
    assert!(started.elapsed() < Duration::from_secs(10));
}

async fn dropping_leaves_no_process() {
    for _ in 0..3 {
        drop(sandbox(&["sleep", "60000"]).spawn().await.unwrap());
    }
}

async fn a_start_failure_keeps_its_kind_and_message() {
    let error = sandbox(&["no-such-program"]).spawn().await.unwrap_err();
    assert_eq!(error.to_string(), "no-such-program: not found in PATH");
    assert!(matches!(error, SpawnError::Start(failure) if failure.kind == StartFailureKind::NotFound));
}

async fn a_vmm_that_dies_early_is_an_error() {
    let error = sandbox(&["die-early"]).spawn().await.unwrap_err();
    assert!(matches!(error, SpawnError::VmmDied(status) if status.code() == Some(9)), "{error:?}");
}

async fn a_vmm_that_dies_late_is_an_error() {
    let error = sandbox(&["die-late"]).spawn().await.unwrap().wait().await.unwrap_err();
    assert!(matches!(error, WaitError::VmmDied(status) if status.code() == Some(9)), "{error:?}");
}

async fn a_vmm_that_talks_nonsense_is_an_error() {
    let started = Instant::now();
    let error = sandbox(&["nonsense"]).spawn().await.unwrap_err();
    assert!(matches!(error, SpawnError::Control(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

async fn a_missing_binary_is_an_error() {
    let launcher = Launcher::new("/no/such/binary", ["vmm"]);
    let error = sandbox(&["exit", "0"]).launcher(launcher).spawn().await.unwrap_err();
    assert!(matches!(error, SpawnError::Launch(_)), "{error:?}");
}

async fn a_bad_spec_starts_nothing() {
    let error = sandbox(&["exit", "0"]).max_processes(0).spawn().await.unwrap_err();
    assert!(matches!(error, SpawnError::Spec(_)), "{error:?}");
}

async fn more_memory_than_the_host_has_starts_nothing() {
    let error = sandbox(&["exit", "0"]).memory_bytes(u64::MAX).spawn().await.unwrap_err();
    assert!(matches!(error, SpawnError::Spec(_)), "{error:?}");
}

async fn a_large_environment_arrives() {
    let mut builder = sandbox(&["count-env"]);
    for n in 0..16 {
        builder = builder.env(format!("BIG{n}"), "x".repeat(100_000));
    }
    let report = builder.spawn().await.unwrap().wait().await.unwrap();
    assert_eq!(report.outcome, Outcome::Exited(20));
}

async fn fifty_at_once_leave_nothing() {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50u8 {
        tasks.spawn(async move {
            let mut sandbox = sandbox(&["exit", &n.to_string()]).spawn().await.unwrap();
            (n, sandbox.wait().await.unwrap().outcome)
        });
    }
    while let Some(result) = tasks.join_next().await {
        let (n, outcome) = result.unwrap();
        assert_eq!(outcome, Outcome::Exited(n));
    }
}

/// What a vmm does, without a VM: the command says what shall happen.
fn play_vmm() {
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut inbox = Inbox::default();
    let (spec, streams) = recv_start(&control, &mut inbox).unwrap();
    let [stdin, stdout, _stderr]: [_; 3] = streams.try_into().unwrap();
    let words: Vec<&str> = spec.command.iter().map(|w| w.to_str().unwrap()).collect();
    let end = |outcome| {
        let stats = Stats { processes_created: 1, ..Stats::default() };
        send(&control, &Event::Ended(Box::new(Report { outcome, stats }))).unwrap();
    };
    match words[..] {
        ["no-such-program"] => {
            let message = "no-such-program: not found in PATH";
            return end(Outcome::start_failed(StartFailureKind::NotFound, message));
        }
        ["die-early"] => std::process::exit(9),
        ["nonsense"] => {
            (&control).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
        _ => {}
    }
    send(&control, &Event::Ready { spawn_ns: 1 }).unwrap();
    let mut stdout = std::fs::File::from(stdout);
    match words[..] {
        ["exit", code] => end(Outcome::Exited(code.parse().unwrap())),
        ["cat"] => {
            let mut stdin = std::fs::File::from(stdin);
            let mut buffer = [0; 64];
            while let Ok(n @ 1..) = stdin.read(&mut buffer) {
                stdout.write_all(&buffer[..n]).unwrap();
                stdout.flush().unwrap();
            }
            end(Outcome::Exited(0));
        }
        ["flood", count] => {
            stdout.write_all(&vec![b'x'; count.parse().unwrap()]).unwrap();
            stdout.flush().unwrap();
            end(Outcome::Exited(0));
        }
        ["sleep", ms] => {
            std::thread::sleep(Duration::from_millis(ms.parse().unwrap()));
            end(Outcome::Exited(0));
        }
        ["until-signal"] => match recv(&control, &mut inbox) {
            Ok(Call { request: Request::Signal { signal, .. }, .. }) => end(Outcome::Signaled(signal)),
            _ => end(Outcome::Killed),
        },
        ["count-env"] => end(Outcome::Exited(u8::try_from(spec.env.len()).unwrap())),
        _ => std::process::exit(9),
    }
}
