//! What travels on the control socket: everything that is sent arrives unchanged, everything else is refused.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use lg_control::{
    Access, Event, Exits, FrameError, Image, MAX_PAYLOAD_BYTES, Mount, Outcome, Report, Request, SandboxSpec,
    StartFailureKind, Stats, SyscallCount, SyscallTrace, User, decode, encode, recv, recv_start, send,
    send_start,
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
        timeout in proptest::option::of(any::<Duration>()),
        syscall_trace in prop_oneof![Just(SyscallTrace::Off), Just(SyscallTrace::Stderr)],
    ) -> SandboxSpec {
        SandboxSpec {
            image, mounts, command, env, workdir, hostname, user: User { uid, gid },
            memory_bytes, max_processes, timeout, syscall_trace,
        }
    }
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u8>().prop_map(Outcome::Exited),
        any::<u8>().prop_map(Outcome::Signaled),
        Just(Outcome::TimedOut),
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
        (peak_memory_bytes, page_table_bytes, processes_created) in any::<(u64, u64, u64)>(),
        (cpu_time_ns, spawn_ns, wall_ns, cleanup_ns) in any::<(u64, u64, u64, u64)>(),
    ) -> Stats {
        Stats {
            exits: Exits { syscalls, page_faults, exceptions, interrupts },
            syscalls: calls.into_iter().map(|(name, count, errors)| SyscallCount { name, count, errors }).collect(),
            unsupported_syscalls, peak_memory_bytes, page_table_bytes, processes_created,
            cpu_time_ns, spawn_ns, wall_ns, cleanup_ns,
        }
    }
}

proptest! {
    #[test]
    fn a_request_arrives_as_it_was_sent(spec in any_spec()) {
        let (a, b) = UnixStream::pair().unwrap();
        let request = Request::Start(Box::new(spec));
        send(&a, &request).unwrap();
        prop_assert_eq!(recv::<Request>(&b).unwrap(), request);
    }

    #[test]
    fn an_event_arrives_as_it_was_sent(outcome in any_outcome(), stats in any_stats()) {
        let (a, b) = UnixStream::pair().unwrap();
        let event = Event::Ended(Box::new(Report { outcome, stats }));
        send(&a, &event).unwrap();
        prop_assert_eq!(recv::<Event>(&b).unwrap(), event);
    }

    #[test]
    fn stats_survive_json(stats in any_stats()) {
        let text = serde_json::to_string(&stats).unwrap();
        prop_assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), stats);
    }

    #[test]
    fn hostile_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Event>(&bytes);
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&bytes).unwrap();
        drop(a);
        prop_assert!(recv::<Request>(&b).is_err());
    }

    #[test]
    fn a_damaged_frame_is_another_message_or_an_error(spec in any_spec(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let request = Request::Start(Box::new(spec));
        let mut bytes = encode(&request).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&bytes).unwrap();
        drop(a);
        if let Ok(other) = recv::<Request>(&b) {
            prop_assert_ne!(other, request);
        }
    }

    #[test]
    fn a_cut_frame_is_truncated(spec in any_spec(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&Request::Start(Box::new(spec))).unwrap();
        let (mut a, b) = UnixStream::pair().unwrap();
        let at = at.index(bytes.len());
        a.write_all(&bytes[..at]).unwrap();
        drop(a);
        let error = recv::<Request>(&b).unwrap_err();
        prop_assert!(matches!(error, FrameError::Truncated | FrameError::Closed), "{error:?}");
        prop_assert_eq!(matches!(error, FrameError::Closed), at == 0);
    }

    #[test]
    fn validation_never_panics(spec in any_spec()) {
        let _ = spec.validate();
    }
}

#[test]
fn the_start_request_carries_the_standard_input() {
    let (host, vmm) = UnixStream::pair().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let spec = SandboxSpec::new(["cat"]);
    send_start(&host, &spec, reader.as_fd()).unwrap();
    drop(reader);
    let (received, stdin) = recv_start(&vmm).unwrap();
    assert_eq!(received, spec);
    writer.write_all(b"through the socket").unwrap();
    drop(writer);
    let text = std::io::read_to_string(std::fs::File::from(stdin)).unwrap();
    assert_eq!(text, "through the socket");
}

#[test]
fn a_start_larger_than_the_socket_buffer_arrives() {
    let (host, vmm) = UnixStream::pair().unwrap();
    let spec =
        (0..18).fold(SandboxSpec::new(["true"]), |spec, n| spec.env(format!("V{n}"), "x".repeat(100_000)));
    let expected = spec.clone();
    let sender = std::thread::spawn(move || send_start(&host, &spec, std::io::stdin().as_fd()));
    let (received, _) = recv_start(&vmm).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(received, expected);
}

#[test]
fn a_start_without_a_descriptor_is_refused() {
    let (host, vmm) = UnixStream::pair().unwrap();
    send(&host, &Request::Start(Box::new(SandboxSpec::new(["true"])))).unwrap();
    assert!(matches!(recv_start(&vmm), Err(FrameError::NotAStart)));
}

#[test]
fn a_start_whose_spec_breaks_a_rule_is_refused() {
    let (host, vmm) = UnixStream::pair().unwrap();
    send_start(&host, &SandboxSpec::new(["true"]).memory_bytes(1 << 20), std::io::stdin().as_fd()).unwrap();
    assert!(matches!(recv_start(&vmm), Err(FrameError::Spec(_))));
}

#[test]
fn a_message_of_the_wrong_direction_is_refused() {
    let (a, b) = UnixStream::pair().unwrap();
    send(&a, &Request::Kill).unwrap();
    assert!(matches!(recv::<Event>(&b), Err(FrameError::Kind { code: 1 })));
}

#[test]
fn another_version_is_named_in_the_error() {
    let mut bytes = encode(&Request::Kill).unwrap();
    bytes[4] = 99;
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(&bytes).unwrap();
    assert!(matches!(recv::<Request>(&b), Err(FrameError::Version { theirs: 99 })));
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_it_is_read() {
    let mut bytes = encode(&Request::Kill).unwrap();
    bytes[8..12].copy_from_slice(&(MAX_PAYLOAD_BYTES as u32 + 1).to_le_bytes());
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(&bytes).unwrap();
    assert!(matches!(recv::<Request>(&b), Err(FrameError::TooLong { .. })));
}

#[test]
fn bytes_after_the_message_in_its_frame_are_refused() {
    let payload = [encode(&Request::Kill).unwrap()[12..].to_vec(), vec![0]].concat();
    assert!(matches!(decode::<Request>(&payload), Err(FrameError::Trailing { bytes: 1 })));
}

#[test]
fn the_bytes_of_a_frame_are_those_of_version_one() {
    // A golden frame: when this changes, `VERSION` must change too.
    assert_eq!(encode(&Request::Signal(15)).unwrap(), b"LGc\x01\x01\x00\x01\x00\x02\x00\x00\x00\x01\x0f");
    let spec = SandboxSpec::new(["true"]);
    let bytes = encode(&Request::Start(Box::new(spec))).unwrap();
    assert_eq!(bytes.len(), 167);
}
