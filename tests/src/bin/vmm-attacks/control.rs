//! What a vmm may tell the runtime: whatever it is, the runtime goes on, and that sandbox ends.

use lg_control::{Event, ExitStatus, FaultKind, MAX_PAYLOAD_BYTES, Outcome, Reply, Report, Stats, frame};
use nix::sys::signal::Signal;

use crate::captive::{Answer, Captive, End};
use crate::{Attack, Verdict, must_fail, process};

/// Messages of a flood: more than the runtime keeps of anything.
const FLOOD: u32 = 20_000;
/// `MSG_NOSIGNAL`.
const NO_SIGNAL: u64 = libc::MSG_NOSIGNAL as u64;

/// The control socket.
///
/// # Panics
/// When it has none.
pub fn socket(captive: &Captive) -> u64 {
    let descriptors = captive.descriptors();
    descriptors.iter().find(|(_, what)| what.starts_with("socket:")).expect("a control socket").0
}

/// All attacks of the group.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = malformed()
        .into_iter()
        .map(|(name, bytes)| {
            Attack::new(name, move |captive| {
                send(captive, &bytes).map(|sent| format!("{} bytes, {sent:?}", bytes.len()))
            })
        })
        .collect();
    let attack = |name: &str, make: fn(&Captive) -> Verdict| Attack::new(name, make);
    attacks.extend([
        attack("closed-early", |captive| match captive.call(libc::SYS_close, &[socket(captive)]) {
            Ok(0) => Ok("closed".to_owned()),
            other => Err(format!("{other:?}")),
        }),
        attack("ended-in-the-middle", |captive| {
            send(captive, &encoded(&exited(1))[..9])?;
            let end = captive.call(libc::SYS_exit_group, &[0]);
            if end == Err(End::Exit(0)) { Ok("half a header".to_owned()) } else { Err(format!("{end:?}")) }
        }),
        attack("claims-its-end-and-lives-on", |captive| {
            let report = Report { outcome: Outcome::Exited(0), stats: Stats::default() };
            send(captive, &encoded(&Event::Ended(Box::new(report))))?;
            // The runtime sees to it.
            Ok(format!("{:?}", captive.wait_for_end()))
        }),
        attack("replies-that-nobody-asked-for", |captive| {
            let replies = (0..FLOOD).map(|id| Event::Reply { id, result: Ok(Reply::Done) });
            let bytes: Vec<u8> = replies.flat_map(|reply| encoded(&reply)).collect();
            send(captive, &bytes).map(|sent| format!("{FLOOD} replies, {sent:?}"))
        }),
        attack("ready-again-and-again", |captive| {
            let ready = (0..FLOOD).map(|spawn_ns| Event::Ready { spawn_ns: u64::from(spawn_ns) });
            let bytes: Vec<u8> = ready.flat_map(|ready| encoded(&ready)).collect();
            send(captive, &bytes).map(|sent| format!("{FLOOD} times, {sent:?}"))
        }),
        attack("ends-of-programs-that-never-were", |captive| flood(captive, exited)),
        attack("output-of-programs-that-never-were", |captive| {
            flood(captive, |process| Event::Output { process, fd: 1, bytes: vec![b'x'; 16] })
        }),
        attack("output-that-was-not-asked-for", |captive| {
            flood(captive, |_| Event::Output { process: 1, fd: 1, bytes: vec![b'x'; 1 << 10] })
        }),
        attack("descriptors-attached", descriptors_attached),
        attack("the-number-of-another", |captive| {
            let credentials = |pid: u64| [pid as u32, 0, 0].map(u32::to_ne_bytes).concat();
            for target in ["RUNTIME", "TEMPLATE", "SIBLING"] {
                must_fail(send_with(captive, libc::SCM_CREDENTIALS, &credentials(process(target))))?;
            }
            Ok("EPERM".to_owned())
        }),
    ]);
    attacks
}

fn exited(process: u32) -> Event {
    Event::Exited { process, status: ExitStatus::Exited(0) }
}

fn encoded(event: &Event) -> Vec<u8> {
    lg_control::encode(event).expect("a short event")
}

/// Bytes that are no event.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let good = encoded(&exited(1));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let header = |len: usize| frame::header(frame::Kind::Event, len).expect("not too long").to_vec();
    let mut longest = header(0);
    longest[8..].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut trailing = header(good.len() - frame::HEADER_BYTES + 3);
    trailing.extend_from_slice(&good[frame::HEADER_BYTES..]);
    trailing.extend_from_slice(&[0; 3]);
    let fault = lg_control::Fault::new(FaultKind::Host, "\u{1b}[2J".repeat(1000));
    vec![
        ("wrong-magic", changed(0, b'X')),
        ("another-version", changed(4, 255)),
        ("a-request", changed(6, 1)),
        ("an-unknown-kind", changed(6, 77)),
        ("longer-than-may-be", longest),
        ("nothing-in-it", header(0)),
        ("an-unknown-event", [header(1), vec![0x7f]].concat()),
        ("shorter-than-it-says", [header(MAX_PAYLOAD_BYTES), vec![0; 1 << 16]].concat()),
        ("bytes-after-its-end", trailing),
        ("endless-numbers", [header(64), vec![0xff; 64]].concat()),
        ("a-list-longer-than-the-message", [header(8), vec![2, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat()),
        ("zeros", vec![0; 1 << 16]),
        ("a-fault-full-of-escapes", encoded(&Event::Reply { id: 1, result: Err(fault) })),
    ]
}

/// What became of bytes that were sent.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// The socket took all of them.
    All,
    /// The runtime closed its end, or has ended the vmm.
    Refused,
}

/// Sends bytes.
fn send(captive: &Captive, bytes: &[u8]) -> Result<Sent, String> {
    for chunk in bytes.chunks(1 << 16) {
        let mut rest = chunk;
        while !rest.is_empty() {
            match send_message(captive, rest, &[]) {
                Ok(count @ 1..) => rest = &rest[count as usize..],
                answer => return refused(answer),
            }
        }
    }
    Ok(Sent::All)
}

fn refused(answer: Answer) -> Result<Sent, String> {
    match answer {
        Err(End::Signal(Signal::SIGKILL)) => Ok(Sent::Refused),
        Ok(errno) if errno == -i64::from(libc::EPIPE) => Ok(Sent::Refused),
        other => Err(format!("sending answered {other:?}")),
    }
}

/// Sends more events than the runtime may keep: it must have closed its end before it has taken all.
fn flood(captive: &Captive, event: impl Fn(u32) -> Event) -> Verdict {
    let mut bytes = Vec::new();
    for number in 1..=FLOOD {
        bytes.extend(encoded(&event(number)));
    }
    // What fits into the socket is taken before anybody reads it.
    bytes.extend((0..FLOOD).flat_map(|_| encoded(&Event::Ready { spawn_ns: 0 })));
    match send(captive, &bytes)? {
        Sent::Refused => Ok("ended by the runtime".to_owned()),
        Sent::All => Err(format!("{FLOOD} events were taken")),
    }
}

/// Sends an event with one control message (cmsg(3)).
fn send_with(captive: &Captive, kind: i32, contents: &[u8]) -> Answer {
    let header_bytes = 16;
    let mut control = ((header_bytes + contents.len()) as u64).to_ne_bytes().to_vec();
    control.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.extend_from_slice(&kind.to_ne_bytes());
    control.extend_from_slice(contents);
    control.resize(control.len().next_multiple_of(8), 0);
    send_message(captive, &encoded(&Event::Ready { spawn_ns: 0 }), &control)
}

/// `sendmsg` on the control socket.
fn send_message(captive: &Captive, bytes: &[u8], control: &[u8]) -> Answer {
    let at = captive.put(&[]);
    // struct msghdr, then struct iovec, then what they point to.
    let (vector, control_at) = (at + 56, at + 72);
    let bytes_at = control_at + control.len() as u64;
    let header = [0, 0, vector, 1, control_at, control.len() as u64, 0, bytes_at, bytes.len() as u64];
    captive.put(&[&header.map(u64::to_ne_bytes).concat(), control, bytes].concat());
    captive.call(libc::SYS_sendmsg, &[socket(captive), at, NO_SIGNAL])
}

/// Passes all its descriptors to the runtime, which must not keep any: the test counts them.
fn descriptors_attached(captive: &Captive) -> Verdict {
    let all = captive.descriptors();
    let numbers: Vec<u8> = all.iter().take(100).flat_map(|(fd, _)| (*fd as i32).to_ne_bytes()).collect();
    for _ in 0..50 {
        match send_with(captive, libc::SCM_RIGHTS, &numbers) {
            Ok(1..) => {}
            answer => {
                refused(answer)?;
                break;
            }
        }
    }
    Ok(format!("{} descriptors, 50 times", numbers.len() / 4))
}
