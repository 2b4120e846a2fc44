//! What travels on the control socket: everything that is sent arrives unchanged, everything else is refused.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use lg_control::{
    Access, Call, Event, ExitStatus, Exits, Fault, FaultKind, ForkSpec, FrameError, Image, Inbox, Limits,
    MAX_PAYLOAD_BYTES, Mount, Outcome, Program, Reply, Report, Request, SandboxSpec, SignalScope,
    StartFailureKind, Stats, Stdio, SyscallCount, SyscallTrace, Terminal, User, Waiting, Wall, WriteMode,
    decode, encode, encode_into, recv, recv_start, send, send_with,
};
use proptest::prelude::*;

fn bytes_as_os(range: std::ops::Range<usize>) -> impl Strategy<Value = OsString> {
    proptest::collection::vec(1u8..=255, range).prop_map(OsString::from_vec)
}

fn absolute_path() -> impl Strategy<Value = PathBuf> {
    bytes_as_os(0..40).prop_map(|name| {
        let mut path = OsString::from("/x");
        path.push(name);
        PathBuf::from(path)
    })
}

fn any_image() -> impl Strategy<Value = Image> {
    prop_oneof![Just(Image::Host), absolute_path().prop_map(Image::Dir)]
}

fn any_mount() -> impl Strategy<Value = Mount> {
    (absolute_path(), absolute_path(), prop_oneof![Just(Access::ReadOnly), Just(Access::ReadWrite)])
        .prop_map(|(source, target, access)| Mount { source, target, access })
}

prop_compose! {
    fn any_spec()(
        image in any_image(),
        mounts in proptest::collection::vec(any_mount(), 0..5),
        command in proptest::collection::vec(bytes_as_os(0..60), 0..6),
        env in proptest::collection::vec((bytes_as_os(0..10), bytes_as_os(0..60)), 0..6),
        workdir in absolute_path(),
        hostname in ".{0,20}",
        (uid, gid, memory_bytes, max_processes) in any::<(u32, u32, u64, u32)>(),
        (timeout, cpu_time) in any::<(Option<Duration>, Option<Duration>)>(),
        (max_open_files, file_bytes, output_bytes) in any::<(u32, Option<u64>, Option<u64>)>(),
        syscall_trace in prop_oneof![Just(SyscallTrace::Off), Just(SyscallTrace::Stderr)],
        without_walls in proptest::sample::subsequence(Wall::ALL.to_vec(), 0..=Wall::ALL.len()),
    ) -> SandboxSpec {
        SandboxSpec {
            image, mounts, command, env, workdir, hostname, user: User { uid, gid },
            memory_bytes, max_processes, timeout, cpu_time, max_open_files, file_bytes, output_bytes, syscall_trace,
            without_walls,
        }
    }
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u8>().prop_map(Outcome::Exited),
        any::<u8>().prop_map(Outcome::Signaled),
        Just(Outcome::TimedOut),
        "[a-z]{0,20}".prop_map(Outcome::LimitReached),
        Just(Outcome::Killed),
        ".{0,80}".prop_map(|m| Outcome::start_failed(StartFailureKind::Mount, m)),
        ".{0,80}".prop_map(Outcome::Failed),
    ]
}

prop_compose! {
    fn any_stats()(
        (syscalls, page_faults, exceptions, interrupts) in any::<(u64, u64, u64, u64)>(),
        calls in proptest::collection::vec(("[a-z_0-9]{1,20}", any::<u64>(), any::<u64>()), 0..20),
        unsupported_syscalls in proptest::collection::btree_map("[a-z_0-9]{1,20}", any::<u64>(), 0..5),
        (peak_memory_bytes, page_table_bytes, processes_created, polled_syscalls) in any::<(u64, u64, u64, u64)>(),
        (cpu_time_ns, spawn_ns, wall_ns, cleanup_ns) in any::<(u64, u64, u64, u64)>(),
        (peak_processes, peak_open_files, peak_file_bytes, output_bytes) in any::<(u64, u64, u64, u64)>(),
        walls in proptest::sample::subsequence(Wall::ALL.to_vec(), 0..=Wall::ALL.len()),
    ) -> Stats {
        Stats {
            exits: Exits { syscalls, page_faults, exceptions, interrupts },
            polled_syscalls,
            syscalls: calls.into_iter().map(|(name, count, errors)| SyscallCount { name, count, errors }).collect(),
            peak_processes, peak_open_files, peak_file_bytes, output_bytes,
            unsupported_syscalls, peak_memory_bytes, page_table_bytes, processes_created,
            cpu_time_ns, spawn_ns, wall_ns, cleanup_ns, walls,
        }
    }
}

fn any_path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..60)
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..2000)
}

fn any_terminal() -> impl Strategy<Value = Terminal> {
    any::<(u16, u16)>().prop_map(|(rows, columns)| Terminal { rows, columns })
}

fn any_stdio() -> impl Strategy<Value = Stdio> {
    prop_oneof![
        Just(Stdio::Null),
        Just(Stdio::In),
        Just(Stdio::Out),
        any::<u32>().prop_map(Stdio::Same),
        any_terminal().prop_map(Stdio::Terminal)
    ]
}

prop_compose! {
    fn any_program()(
        command in proptest::collection::vec(bytes_as_os(0..60), 0..6),
        env in proptest::collection::vec((bytes_as_os(0..10), bytes_as_os(0..60)), 0..6),
        workdir in absolute_path(),
        (uid, gid) in any::<(u32, u32)>(),
        stdio in proptest::collection::vec(any_stdio(), 0..20),
    ) -> Program {
        Program { command, env, workdir, user: User { uid, gid }, stdio }
    }
}

prop_compose! {
    fn any_limits()(
        (memory_bytes, max_processes, max_open_files) in any::<(Option<u64>, Option<u32>, Option<u32>)>(),
        (file_bytes, output_bytes) in any::<(Option<u64>, Option<u64>)>(),
        (cpu_time, timeout) in any::<(Option<Duration>, Option<Duration>)>(),
    ) -> Limits {
        Limits { memory_bytes, max_processes, max_open_files, file_bytes, output_bytes, cpu_time, timeout }
    }
}

/// A request that no descriptors come along with.
fn any_request() -> impl Strategy<Value = Request> {
    let scope = prop_oneof![Just(SignalScope::Process), Just(SignalScope::Group), Just(SignalScope::Tree)];
    let mode = prop_oneof![Just(WriteMode::Replace), Just(WriteMode::New), Just(WriteMode::Into)];
    prop_oneof![
        any_program().prop_map(|program| Request::Exec(Box::new(program))),
        (any::<(u32, u32)>(), any_bytes()).prop_map(|((process, fd), bytes)| Request::WriteStream {
            process,
            fd,
            bytes
        }),
        (any::<(u32, u32)>(), any_terminal())
            .prop_map(|((process, fd), terminal)| { Request::ResizeTerminal { process, fd, terminal } }),
        any::<(u32, u32, u32)>().prop_map(|(process, fd, bytes)| Request::Taken { process, fd, bytes }),
        (any::<(Option<u32>, u8)>(), scope).prop_map(|((process, signal), scope)| Request::Signal {
            process,
            signal,
            scope
        }),
        (any_path(), any::<(u64, u32)>()).prop_map(|(path, (offset, len))| Request::ReadFile {
            path,
            offset,
            len
        }),
        (any_path(), any_bytes(), mode, any::<(u64, u32)>()).prop_map(
            |(path, bytes, mode, (offset, permissions))| Request::WriteFile {
                path,
                offset,
                bytes,
                mode,
                permissions
            }
        ),
        (any_path(), any_path()).prop_map(|(from, to)| Request::Rename { from, to }),
        any_limits().prop_map(Request::SetLimits),
        ".{0,20}".prop_map(Request::SetHostname),
        Just(Request::Freeze),
        Just(Request::Kill),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any_outcome(), any_stats())
            .prop_map(|(outcome, stats)| Event::Ended(Box::new(Report { outcome, stats }))),
        any::<u64>().prop_map(|spawn_ns| Event::Ready { spawn_ns }),
        (any::<(u32, u32)>(), any_bytes()).prop_map(|((process, fd), bytes)| Event::Output {
            process,
            fd,
            bytes
        }),
        any::<(u32, u8)>()
            .prop_map(|(process, code)| Event::Exited { process, status: ExitStatus::Exited(code) }),
        (any::<u32>(), any_bytes())
            .prop_map(|(id, bytes)| Event::Reply { id, result: Ok(Reply::Bytes(bytes)) }),
        (any::<(u32, i32)>(), ".{0,40}").prop_map(|((id, errno), message)| Event::Reply {
            id,
            result: Err(Fault::new(FaultKind::Errno(errno), message))
        }),
    ]
}

fn start(spec: SandboxSpec) -> Call {
    Call { id: 0, request: Request::Start(Box::new(spec)) }
}

fn call(request: Request) -> Call {
    Call { id: 7, request }
}

proptest! {
    #[test]
    fn a_request_arrives_as_it_was_sent(request in any_request(), id in any::<u32>()) {
        let (a, b) = UnixStream::pair().unwrap();
        let call = Call { id, request };
        send(&a, &call).unwrap();
        prop_assert_eq!(recv::<Call>(&b, &mut Inbox::default()).unwrap(), call);
    }

    #[test]
    fn a_start_arrives_as_it_was_sent(spec in any_spec()) {
        let call = start(spec);
        prop_assert_eq!(decode::<Call>(&encode(&call).unwrap()[12..]).unwrap(), call);
    }

    #[test]
    fn a_fork_arrives_as_it_was_sent(limits in any_limits(), hostname in proptest::option::of(".{0,20}")) {
        let spec = ForkSpec { hostname, limits, notify: Some(18), cpus: Some(vec![1, 2]) };
        let call = call(Request::Fork(Box::new(spec)));
        prop_assert_eq!(decode::<Call>(&encode(&call).unwrap()[12..]).unwrap(), call);
    }

    #[test]
    fn an_event_arrives_as_it_was_sent(event in any_event()) {
        let (a, b) = UnixStream::pair().unwrap();
        send(&a, &event).unwrap();
        prop_assert_eq!(recv::<Event>(&b, &mut Inbox::default()).unwrap(), event);
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut(
        events in proptest::collection::vec(any_event(), 1..6),
        cuts in proptest::collection::vec(1usize..3000, 1..40),
    ) {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| encode_into(event, &mut bytes).unwrap());
        let (mut a, b) = UnixStream::pair().unwrap();
        let (mut inbox, mut got, mut rest) = (Inbox::default(), Vec::new(), bytes.as_slice());
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            a.write_all(piece).unwrap();
            rest = after;
            while inbox.fill(b.as_fd(), Waiting::Never).is_ok() {
                while let Some(event) = inbox.take::<Event>().unwrap() {
                    got.push(event);
                }
            }
        }
        prop_assert_eq!(got, events);
    }

    #[test]
    fn stats_survive_json(stats in any_stats()) {
        let text = serde_json::to_string(&stats).unwrap();
        prop_assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), stats);
    }

    #[test]
    fn hostile_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<Call>(&bytes);
        let _ = decode::<Event>(&bytes);
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&bytes).unwrap();
        drop(a);
        prop_assert!(recv::<Call>(&b, &mut Inbox::default()).is_err());
    }

    #[test]
    fn a_damaged_frame_is_another_message_or_an_error(spec in any_spec(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let call = start(spec);
        let mut bytes = encode(&call).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&bytes).unwrap();
        drop(a);
        if let Ok(other) = recv::<Call>(&b, &mut Inbox::default()) {
            prop_assert_ne!(other, call);
        }
    }

    #[test]
    fn a_cut_frame_is_truncated(spec in any_spec(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&start(spec)).unwrap();
        let (mut a, b) = UnixStream::pair().unwrap();
        let at = at.index(bytes.len());
        a.write_all(&bytes[..at]).unwrap();
        drop(a);
        let error = recv::<Call>(&b, &mut Inbox::default()).unwrap_err();
        prop_assert!(matches!(error, FrameError::Truncated | FrameError::Closed), "{error:?}");
        prop_assert_eq!(matches!(error, FrameError::Closed), at == 0);
    }

    #[test]
    fn validation_never_panics(spec in any_spec(), program in any_program(), limits in any_limits()) {
        let _ = (spec.validate(), spec.validate_with(spec.runs()), program.validate(), limits.validate());
    }
}

#[test]
fn descriptors_stay_with_their_messages() {
    let (host, vmm) = UnixStream::pair().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (other, _writer) = std::io::pipe().unwrap();
    let spec = SandboxSpec::new(["cat"]);
    send_with(&host, &start(spec.clone()), &[reader.as_fd(), other.as_fd(), other.as_fd()]).unwrap();
    send_with(&host, &call(Request::Fork(Box::default())), &[other.as_fd()]).unwrap();
    send(&host, &call(Request::Kill)).unwrap();
    drop(reader);
    let mut inbox = Inbox::default();
    let (received, streams) = recv_start(&vmm, &mut inbox).unwrap();
    assert_eq!((received, streams.len()), (spec, 3));
    writer.write_all(b"through the socket").unwrap();
    drop(writer);
    let stdin = streams.into_iter().next().unwrap();
    assert_eq!(std::io::read_to_string(std::fs::File::from(stdin)).unwrap(), "through the socket");
    let mut rest = Vec::new();
    while rest.len() < 2 {
        match inbox.take_call().unwrap() {
            Some((call, descriptors)) => rest.push((call.request, descriptors.len())),
            None => assert!(inbox.fill(vmm.as_fd(), Waiting::Blocks).unwrap() > 0),
        }
    }
    assert_eq!(rest, [(Request::Fork(Box::default()), 1), (Request::Kill, 0)]);
}

#[test]
fn a_start_larger_than_the_socket_buffer_arrives() {
    let (host, vmm) = UnixStream::pair().unwrap();
    let spec =
        (0..18).fold(SandboxSpec::new(["true"]), |spec, n| spec.env(format!("V{n}"), "x".repeat(100_000)));
    let expected = spec.clone();
    let stdin = std::io::stdin();
    let sender = std::thread::spawn(move || send_with(&host, &start(spec), &[stdin.as_fd(); 3]));
    let (received, _) = recv_start(&vmm, &mut Inbox::default()).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(received, expected);
}

#[test]
fn a_request_without_its_descriptors_is_refused() {
    let (host, vmm) = UnixStream::pair().unwrap();
    send(&host, &start(SandboxSpec::new(["true"]))).unwrap();
    let error = recv_start(&vmm, &mut Inbox::default()).unwrap_err();
    assert!(matches!(error, FrameError::Descriptors { wanted: 3, came: 0 }), "{error:?}");
}

#[test]
fn descriptors_that_nothing_needs_are_refused() {
    let (host, vmm) = UnixStream::pair().unwrap();
    let stdin = std::io::stdin();
    let mut inbox = Inbox::default();
    let failed = (0..20).find_map(|_| {
        send_with(&host, &call(Request::Kill), &[stdin.as_fd(); 8]).unwrap();
        let result = inbox.fill(vmm.as_fd(), Waiting::Blocks);
        while inbox.take_call().unwrap().is_some() {}
        result.err()
    });
    assert_eq!(failed.unwrap().kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn the_sender_is_told_by_the_hosts_kernel() {
    let (host, vmm) = UnixStream::pair().unwrap();
    lg_control::tell_senders(host.as_fd()).unwrap();
    send(&vmm, &Event::Ready { spawn_ns: 1 }).unwrap();
    let mut inbox = Inbox::default();
    recv::<Event>(&host, &mut inbox).unwrap();
    assert_eq!(inbox.sender(), Some(std::process::id()));
}

#[test]
fn a_start_whose_spec_breaks_a_rule_is_refused() {
    let (host, vmm) = UnixStream::pair().unwrap();
    let stdin = std::io::stdin();
    let spec = SandboxSpec::new(["true"]).memory_bytes(1 << 20);
    send_with(&host, &start(spec), &[stdin.as_fd(); 3]).unwrap();
    assert!(matches!(recv_start(&vmm, &mut Inbox::default()), Err(FrameError::Spec(_))));
}

#[test]
fn another_first_request_is_refused() {
    let (host, vmm) = UnixStream::pair().unwrap();
    send(&host, &call(Request::Freeze)).unwrap();
    assert!(matches!(recv_start(&vmm, &mut Inbox::default()), Err(FrameError::NotAStart)));
}

#[test]
fn a_message_of_the_wrong_direction_is_refused() {
    let (a, b) = UnixStream::pair().unwrap();
    send(&a, &call(Request::Kill)).unwrap();
    assert!(matches!(recv::<Event>(&b, &mut Inbox::default()), Err(FrameError::Kind { code: 1 })));
}

#[test]
fn another_version_is_named_in_the_error() {
    let mut bytes = encode(&call(Request::Kill)).unwrap();
    bytes[4] = 99;
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(&bytes).unwrap();
    assert!(matches!(recv::<Call>(&b, &mut Inbox::default()), Err(FrameError::Version { theirs: 99 })));
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_it_is_read() {
    let mut bytes = encode(&call(Request::Kill)).unwrap();
    bytes[8..12].copy_from_slice(&(MAX_PAYLOAD_BYTES as u32 + 1).to_le_bytes());
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(&bytes).unwrap();
    assert!(matches!(recv::<Call>(&b, &mut Inbox::default()), Err(FrameError::TooLong { .. })));
}

#[test]
fn bytes_after_the_message_in_its_frame_are_refused() {
    let payload = [encode(&call(Request::Kill)).unwrap()[12..].to_vec(), vec![0]].concat();
    assert!(matches!(decode::<Call>(&payload), Err(FrameError::Trailing { bytes: 1 })));
}

#[test]
fn a_message_that_is_too_long_leaves_what_was_encoded_before() {
    let mut bytes = encode(&call(Request::Kill)).unwrap();
    let before = bytes.clone();
    let long = Event::Output { process: 1, fd: 1, bytes: vec![0; MAX_PAYLOAD_BYTES + 1] };
    assert!(matches!(encode_into(&long, &mut bytes), Err(FrameError::TooLong { .. })));
    assert_eq!(bytes, before);
}

#[test]
fn the_bytes_of_a_frame_are_those_of_version_five() {
    // A golden frame: when this changes, `VERSION` must change too.
    let signal = Request::Signal { process: Some(300), signal: 15, scope: SignalScope::Group };
    let bytes = encode(&call(signal)).unwrap();
    assert_eq!(bytes, b"LGc\x01\x05\x00\x01\x00\x07\x00\x00\x00\x07\x06\x01\xac\x02\x0f\x01");
    assert_eq!(encode(&start(SandboxSpec::new(["true"]))).unwrap().len(), 179);
}
