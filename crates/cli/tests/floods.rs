//! Whoever floods or does not read waits: memory stays bounded, others are served, and limits of time hold.

#![forbid(unsafe_code)]

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, template, trials};
use lg_control::{Call, Event, Inbox, Reply, Request, SandboxSpec, WriteMode, encode, recv};
use lg_runtime::TemplateSpec;

/// Writes one byte with each call, for ever.
const DRIP: &str = "while :; do printf x; done";
/// How much more memory a process may take than before, in KiB: one message of each kind, and some room.
const GROWTH_KIB: u64 = 16 << 10;

fn main() -> std::process::ExitCode {
    common::main(trials![
        a_deadline_ends_a_program_whose_reader_sleeps,
        a_program_that_drips_ends_with_its_reader,
        streams_that_nobody_reads_hold_up_nobody_else,
        a_client_that_takes_no_answers_gets_no_more_of_them,
    ])
}

fn run(words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_luminaguard"))
        .arg("run")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end of a process.
#[track_caller]
fn ends(child: &mut Child) -> ExitStatus {
    let asked = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(asked.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The memory of a process in KiB, without what it shares with files (proc_pid_status(5)).
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn a_deadline_ends_a_program_whose_reader_sleeps() {
    let mut child = run(&["--timeout", "1500ms", "--", "sh", "-c", DRIP]);
    // Nobody reads: what a pipe holds is all that comes out.
    let status = ends(&mut child);
    assert_eq!(status.code(), Some(124), "{status}");
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    assert!(!out.is_empty() && out.iter().all(|&byte| byte == b'x'), "{} bytes", out.len());
}

async fn a_program_that_drips_ends_with_its_reader() {
    let mut child = run(&["--timeout", "60s", "--", "sh", "-c", DRIP]);
    let mut out = child.stdout.take().unwrap();
    let mut byte = [0];
    out.read_exact(&mut byte).unwrap();
    let before = memory_kib(child.id());
    for _ in 0..300 {
        out.read_exact(&mut byte).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let after = memory_kib(child.id());
    assert!(after < before + GROWTH_KIB, "from {before} KiB to {after} KiB");
    drop(out);
    let status = ends(&mut child);
    // The signal is the program's, and the sandbox ends with it in order.
    let sigpipe = 13;
    assert_eq!((status.code(), status.signal()), (Some(128 + sigpipe), None));
}

async fn streams_that_nobody_reads_hold_up_nobody_else() {
    let template = template(&TemplateSpec::base()).await;
    let (loud, calm) = (template.spawn().await.unwrap(), template.spawn().await.unwrap());
    let pids = [std::process::id(), loud.vmm_pid()];
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(loud.program(["yes"]).launch().await.unwrap());
        unread.push(loud.program(["sh", "-c", DRIP]).launch().await.unwrap());
    }
    // Once the windows are full, all of it waits.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = pids.map(memory_kib);
    for round in 0..20 {
        for sandbox in [&loud, &calm] {
            let output = sandbox.program(["echo", "42"]).output();
            let output = tokio::time::timeout(PATIENCE, output).await.expect("nobody is held up").unwrap();
            assert_eq!(output.stdout, b"42\n", "round {round}");
        }
    }
    let after = pids.map(memory_kib);
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + GROWTH_KIB, "from {before} KiB to {after} KiB");
    }
    drop(unread);
    assert_eq!(loud.program(["echo", "6"]).output().await.unwrap().stdout, b"6\n");
}

async fn a_client_that_takes_no_answers_gets_no_more_of_them() {
    const REQUESTS: u32 = 2000;
    const FILE_BYTES: usize = 256 << 10;
    let (socket, theirs) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut vmm = Command::new(env!("CARGO_BIN_EXE_luminaguard"))
        .arg("vmm")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut inbox = Inbox::default();
    let spec = SandboxSpec::new(std::iter::empty::<&str>());
    let send = |id, request| (&socket).write_all(&encode(&Call { id, request }).unwrap()).unwrap();
    send(0, Request::Start(Box::new(spec)));
    let mut next = || recv::<Event>(&socket, &mut inbox).unwrap();
    assert!(matches!(next(), Event::Ready { .. }));
    let file = || b"/tmp/file".to_vec();
    let bytes = vec![7; FILE_BYTES];
    send(1, Request::WriteFile { path: file(), offset: 0, bytes, mode: WriteMode::New, permissions: 0o600 });
    assert!(matches!(next(), Event::Reply { id: 1, result: Ok(Reply::Done) }));
    let before = memory_kib(vmm.id());
    std::thread::scope(|scope| {
        // Half a gigabyte of answers is asked for before the first is taken.
        scope.spawn(|| {
            for id in 2..2 + REQUESTS {
                send(id, Request::ReadFile { path: file(), offset: 0, len: FILE_BYTES as u32 });
            }
        });
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) {
            let now = memory_kib(vmm.id());
            assert!(now < before + GROWTH_KIB, "from {before} KiB to {now} KiB");
            std::thread::sleep(Duration::from_millis(5));
        }
        for expected in 2..2 + REQUESTS {
            match next() {
                Event::Reply { id, result: Ok(Reply::Bytes(bytes)) } => {
                    assert_eq!((id, bytes.len()), (expected, FILE_BYTES));
                }
                other => panic!("{expected}: {other:?}"),
            }
        }
    });
    drop(socket);
    assert!(ends(&mut vmm).success());
}
