//! Whatever is sent to a real vmm, it answers or ends cleanly and says why; it never panics and never hangs.

#![forbid(unsafe_code)]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::time::Instant;

use common::{PATIENCE, trials};
use lg_control::frame::{HEADER_BYTES, Kind, header};
use lg_control::{
    Call, Event, FaultKind, ForkSpec, FrameError, Inbox, Limits, MAX_PAYLOAD_BYTES, Outcome, Program, Reply,
    Report, Request, SandboxSpec, SignalScope, Stats, Stdio, User, encode, recv, send_with,
};

fn main() -> std::process::ExitCode {
    common::main(trials![
        a_bad_first_message_is_named,
        a_bad_later_message_is_named_in_every_state,
        random_bytes_end_in_an_answer_or_a_clean_end,
        requests_out_of_order_are_refused_and_change_nothing,
        a_fork_that_cannot_be_says_so_on_its_own_socket,
        a_socket_that_closes_ends_the_vmm_in_every_state,
    ])
}

/// A vmm, and the control socket that it serves.
struct Vmm {
    child: Child,
    socket: UnixStream,
    inbox: Inbox,
    next_id: u32,
}

impl Vmm {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_luminaguard"))
            .arg("vmm")
            .stdin(OwnedFd::from(theirs))
            .stdout(ProcessStdio::null())
            .stderr(ProcessStdio::piped())
            .spawn()
            .unwrap();
        Self { child, socket, inbox: Inbox::default(), next_id: 1 }
    }

    /// A vmm with a VM in which nothing runs.
    fn ready() -> Self {
        let mut vmm = Self::start();
        vmm.send(start(nothing()), 0);
        assert!(matches!(vmm.event(), Event::Ready { .. }));
        vmm
    }

    fn in_state(state: &str) -> Self {
        let mut vmm = Self::ready();
        match state {
            "idle" => {}
            "busy" => drop(vmm.call(Request::Exec(Box::new(program(&["sh", "-c", "while :; do :; done"]))))),
            "paused" => drop(vmm.call(Request::Pause)),
            "frozen" => drop(vmm.call(Request::Freeze)),
            _ => unreachable!("{state}"),
        }
        vmm
    }

    fn send(&self, request: Request, descriptors: usize) {
        let null = std::fs::File::open("/dev/null").unwrap();
        self.send_with(request, &vec![null.as_fd(); descriptors]);
    }

    fn send_with(&self, request: Request, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        // A vmm that has ended says why in its report.
        let _ = send_with(&self.socket, &Call { id: 0, request }, descriptors);
    }

    fn raw(&self, bytes: &[u8]) {
        let _ = (&self.socket).write_all(bytes);
    }

    fn event(&mut self) -> Event {
        recv(&self.socket, &mut self.inbox).unwrap()
    }

    /// Makes a call; what else happens meanwhile is passed over.
    fn call(&mut self, request: Request) -> Result<Reply, lg_control::Fault> {
        let id = self.next_id;
        self.next_id += 1;
        self.raw(&encode(&Call { id, request }).unwrap());
        loop {
            match self.event() {
                Event::Reply { id: of, result } if of == id => return result,
                Event::Ended(report) => panic!("it ended: {report:?}"),
                _ => {}
            }
        }
    }

    /// The report, or none where the vmm did not send one; then the status it exits with. It must not have panicked.
    #[track_caller]
    fn end(mut self) -> (Option<Report>, i32) {
        let report = loop {
            match recv(&self.socket, &mut self.inbox) {
                Ok(Event::Ended(report)) => break Some(*report),
                Ok(_) => {}
                Err(FrameError::Closed | FrameError::Truncated) => break None,
                Err(error) => panic!("{error:?}"),
            }
        };
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(asked.elapsed() < PATIENCE, "it does not end after {report:?}");
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!said.contains("internal error"), "{said}");
        let code = status.code().unwrap_or_else(|| panic!("{status}: {said}"));
        assert!(matches!(code, 0 | 125), "{status}: {said}");
        (report, code)
    }

    /// It ends with a report that says this.
    #[track_caller]
    fn names(self, what: &str) {
        let (report, _) = self.end();
        let report = report.unwrap_or_else(|| panic!("no report, which should say {what:?}"));
        let message = report.outcome.failure_message().unwrap_or_default();
        assert!(message.contains(what), "{:?} should say {what:?}", report.outcome);
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(spec: SandboxSpec) -> Request {
    Request::Start(Box::new(spec))
}

fn nothing() -> SandboxSpec {
    SandboxSpec::new(std::iter::empty::<&str>())
}

fn program(command: &[&str]) -> Program {
    let SandboxSpec { command, env, workdir, .. } = SandboxSpec::new(command.iter().copied());
    Program { command, env, workdir, user: User::ROOT, stdio: vec![Stdio::Null, Stdio::Out, Stdio::Out] }
}

/// A frame around these bytes.
fn framed(payload: &[u8]) -> Vec<u8> {
    [&header(Kind::Request, payload.len()).unwrap()[..], payload].concat()
}

/// A message that is right but for one thing.
fn kill_but(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = encode(&Call { id: 0, request: Request::Kill }).unwrap();
    change(&mut bytes);
    bytes
}

/// Bytes that are no message, each with what the vmm must say of it.
fn bad_bytes() -> Vec<(Vec<u8>, &'static str)> {
    let ended = Event::Ended(Box::new(Report { outcome: Outcome::Killed, stats: Stats::default() }));
    vec![
        (b"GET / HTTP/1.1\r\nHost: luminaguard\r\n\r\n".to_vec(), "something else than messages"),
        (vec![0; 100], "something else than messages"),
        (kill_but(|bytes| bytes[4] = 99), "message of version 99"),
        (encode(&ended).unwrap(), "unexpected kind of message: 2"),
        (kill_but(|bytes| bytes[6] = 9), "unexpected kind of message: 9"),
        (
            kill_but(|bytes| {
                bytes[8..12].copy_from_slice(&(MAX_PAYLOAD_BYTES as u32 + 1).to_le_bytes());
            }),
            "message of 4194305 bytes",
        ),
        (kill_but(|bytes| bytes[8..12].copy_from_slice(&[0xff; 4])), "message of 4294967295 bytes"),
        (framed(&[]), "malformed message"),
        (framed(&[0xff; 64]), "malformed message"),
        (framed(&[0, 200]), "malformed message"),
        (framed(&encode(&Call { id: 0, request: Request::Kill }).unwrap()), "malformed message"),
        (
            framed(&[&kill_but(|_| {})[HEADER_BYTES..], &[0; 3]].concat()),
            "3 bytes after the end of a message",
        ),
        (framed(&vec![0xff; MAX_PAYLOAD_BYTES]), "malformed message"),
    ]
}

async fn a_bad_first_message_is_named() {
    for (bytes, what) in bad_bytes() {
        let vmm = Vmm::start();
        vmm.raw(&bytes);
        vmm.names(what);
    }
    for (request, descriptors, what) in [
        (Request::Freeze, 0, "does not start a sandbox"),
        (Request::Kill, 0, "does not start a sandbox"),
        (Request::Fork(Box::default()), 1, "does not start a sandbox"),
        (Request::Fork(Box::default()), 0, "needs 1 descriptors and came with 0"),
        (start(SandboxSpec::new(["true"])), 2, "needs 3 descriptors and came with 2"),
        (start(nothing().memory_bytes(1)), 0, "memory limit of 1 bytes is too small"),
        (start(nothing().memory_bytes(u64::MAX)), 0, "memory"),
        (start(nothing().mount("/no/such/source", "/x", lg_control::Access::ReadOnly)), 0, "/no/such/source"),
        (start(SandboxSpec::new([""])), 3, "no command"),
    ] {
        let vmm = Vmm::start();
        vmm.send(request.clone(), descriptors);
        vmm.names(what);
    }
    // Half a message, and nobody who will send the rest.
    let vmm = Vmm::start();
    vmm.raw(&encode(&Call { id: 0, request: start(nothing()) }).unwrap()[..30]);
    vmm.socket.shutdown(Shutdown::Write).unwrap();
    vmm.names("ended in the middle of a message");
}

async fn a_bad_later_message_is_named_in_every_state() {
    for (number, (bytes, what)) in bad_bytes().into_iter().enumerate() {
        // Every state with every other message; the path is the same.
        for state in [["idle", "busy"], ["paused", "frozen"]][number % 2] {
            let vmm = Vmm::in_state(state);
            vmm.raw(&bytes);
            vmm.names(what);
        }
    }
    for state in ["idle", "busy", "paused", "frozen"] {
        let vmm = Vmm::in_state(state);
        vmm.send(Request::Fork(Box::default()), 0);
        vmm.names("needs 1 descriptors and came with 0");
        let vmm = Vmm::in_state(state);
        for _ in 0..5 {
            vmm.send(Request::Stats, 16);
        }
        vmm.names("descriptors without messages");
    }
}

async fn random_bytes_end_in_an_answer_or_a_clean_end() {
    // A generator of its own, so that a failure comes again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let templates = [
        Request::Exec(Box::new(program(&["true"]))),
        Request::Signal { process: Some(1), signal: 15, scope: SignalScope::Tree },
        Request::WriteFile {
            path: b"/tmp/x".to_vec(),
            offset: 0,
            bytes: vec![7; 40],
            mode: lg_control::WriteMode::Replace,
            permissions: 0o644,
        },
        Request::SetLimits(Limits { memory_bytes: Some(64 << 20), ..Limits::default() }),
        Request::Taken { process: 1, fd: 1, bytes: 9 },
        Request::ListDir { path: b"/".to_vec(), cursor: 0 },
    ];
    for round in 0..12 {
        let vmm = Vmm::in_state(["idle", "busy", "frozen"][round % 3]);
        for _ in 0..20 {
            let request = templates[random() as usize % templates.len()].clone();
            let mut bytes = encode(&Call { id: 0, request }).unwrap();
            for _ in 0..random() % 3 {
                // In the payload, which is all that a whole frame can get wrong.
                let at = HEADER_BYTES + random() as usize % (bytes.len() - HEADER_BYTES);
                bytes[at] = random() as u8;
            }
            vmm.raw(&bytes);
        }
        vmm.raw(&kill_but(|_| {}));
        let (report, _) = vmm.end();
        let outcome = report.unwrap_or_else(|| panic!("no report in round {round}")).outcome;
        let is_clean = matches!(outcome, Outcome::Killed | Outcome::TimedOut | Outcome::LimitReached(_))
            || matches!(&outcome, Outcome::Failed(message) if message.contains("message") || message.contains("descriptors"));
        assert!(is_clean, "round {round}: {outcome:?}");
    }
}

async fn requests_out_of_order_are_refused_and_change_nothing() {
    let invalid = |change: fn(&mut Program)| {
        let mut program = program(&["true"]);
        change(&mut program);
        Request::Exec(Box::new(program))
    };
    let bad = [
        (start(nothing()), FaultKind::State),
        (Request::Resume, FaultKind::State),
        (invalid(|program| program.command.clear()), FaultKind::Invalid),
        (invalid(|program| program.stdio = vec![Stdio::Null; 100]), FaultKind::Invalid),
        (invalid(|program| program.stdio = vec![Stdio::Same(3)]), FaultKind::Invalid),
        (invalid(|program| program.workdir = "x".into()), FaultKind::Invalid),
        (Request::WriteStream { process: 99, fd: 0, bytes: vec![1] }, FaultKind::State),
        (Request::CloseStream { process: 99, fd: 0 }, FaultKind::State),
        (Request::Signal { process: Some(99), signal: 9, scope: SignalScope::Process }, FaultKind::Errno(3)),
        (Request::Signal { process: Some(1), signal: 200, scope: SignalScope::Process }, FaultKind::Invalid),
        (Request::Signal { process: Some(1), signal: 15, scope: SignalScope::Tree }, FaultKind::Invalid),
        (Request::ReadFile { path: b"/no".to_vec(), offset: u64::MAX, len: u32::MAX }, FaultKind::Errno(2)),
        (Request::ListDir { path: b"/etc/hosts".to_vec(), cursor: u64::MAX }, FaultKind::Errno(20)),
        (Request::SetLimits(Limits { max_processes: Some(0), ..Limits::default() }), FaultKind::Invalid),
        (Request::SetLimits(Limits { memory_bytes: Some(1 << 50), ..Limits::default() }), FaultKind::Limit),
        (Request::SetHostname("a b".to_owned()), FaultKind::Invalid),
    ];
    let mut vmm = Vmm::ready();
    for (request, kind) in &bad {
        let fault = vmm.call(request.clone()).unwrap_err();
        assert_eq!(fault.kind, *kind, "{request:?}: {fault}");
    }
    // It works as if nothing had been.
    assert!(matches!(vmm.call(Request::Pause), Ok(Reply::Done)));
    assert!(matches!(vmm.call(Request::Pause), Ok(Reply::Done)));
    assert!(matches!(vmm.call(Request::Resume), Ok(Reply::Done)));
    assert!(matches!(vmm.call(Request::Exec(Box::new(program(&["true"])))), Ok(Reply::Started { .. })));
    while !matches!(vmm.event(), Event::Exited { status: lg_control::ExitStatus::Exited(0), .. }) {}
    assert!(matches!(vmm.call(Request::Freeze), Ok(Reply::Frozen { .. })));
    for request in bad.into_iter().map(|(request, _)| request).chain([
        Request::Freeze,
        Request::Rehearse,
        Request::Pause,
        Request::Exec(Box::new(program(&["true"]))),
    ]) {
        let fault = vmm.call(request.clone()).unwrap_err();
        assert_eq!(fault.kind, FaultKind::State, "{request:?}: {fault}");
    }
    assert!(matches!(vmm.call(Request::Stats), Ok(Reply::Stats(_))));
    vmm.send(Request::Kill, 0);
    let (report, status) = vmm.end();
    assert_eq!((report.unwrap().outcome, status), (Outcome::Killed, 0));
}

async fn a_fork_that_cannot_be_says_so_on_its_own_socket() {
    for state in ["idle", "busy", "frozen"] {
        let mut vmm = Vmm::in_state(state);
        for (spec, what) in [
            (ForkSpec { hostname: Some("a b".to_owned()), ..ForkSpec::default() }, "host name"),
            (ForkSpec { cpus: Some(vec![4000]), ..ForkSpec::default() }, "4000"),
            (ForkSpec { cpus: Some(Vec::new()), ..ForkSpec::default() }, "processors []"),
            (
                ForkSpec {
                    limits: Limits { memory_bytes: Some(1 << 50), ..Limits::default() },
                    ..ForkSpec::default()
                },
                "pages of memory",
            ),
        ] {
            let (socket, theirs) = UnixStream::pair().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            vmm.send_with(Request::Fork(Box::new(spec)), &[theirs.as_fd()]);
            drop(theirs);
            let mut inbox = Inbox::default();
            let Event::Ended(report) = recv(&socket, &mut inbox).unwrap() else { panic!("{what}") };
            let message = report.outcome.failure_message().unwrap_or_default();
            assert!(message.contains(what), "{report:?} should say {what:?}");
            assert!(matches!(recv::<Event>(&socket, &mut inbox), Err(FrameError::Closed)));
            reap_fork(&vmm.child);
        }
        // What is no socket is nobody's end of a connection.
        vmm.send(Request::Fork(Box::default()), 1);
        reap_fork(&vmm.child);
        assert!(matches!(vmm.call(Request::Stats), Ok(Reply::Stats(_))));
        vmm.send(Request::Kill, 0);
        assert_eq!(vmm.end().1, 0);
    }
}

/// Waits for the one child of this process that is not the original, and expects it to have ended cleanly.
fn reap_fork(original: &Child) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let started = Instant::now();
    loop {
        for pid in common::children().into_iter().filter(|pid| *pid != original.id()) {
            let id = WaitId::Pid(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap());
            if let Some(status) = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).unwrap() {
                assert!(matches!(status.exit_status(), Some(0 | 125)), "{status:?}");
                return;
            }
        }
        assert!(started.elapsed() < PATIENCE, "the fork does not end");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

async fn a_socket_that_closes_ends_the_vmm_in_every_state() {
    for state in ["idle", "busy", "paused", "frozen"] {
        let vmm = Vmm::in_state(state);
        // In the middle of a message, too.
        vmm.raw(&kill_but(|_| {})[..7]);
        vmm.socket.shutdown(Shutdown::Both).unwrap();
        assert_eq!(vmm.end().1, 0, "{state}");
    }
    let vmm = Vmm::start();
    vmm.socket.shutdown(Shutdown::Both).unwrap();
    assert_eq!(vmm.end().1, 0);
}
