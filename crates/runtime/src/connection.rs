//! The runtime's end of a control connection: calls and their replies, streams, and the end of the sandbox.
//!
//! ```text
//!   any task: call() --> sent at once ----------------------> vmm
//!                        (what does not fit waits in line)
//!   one task per connection <---- replies, output, exits ---- vmm
//!        |
//!        +--> whoever waits: oneshots, streams, the final report
//! ```

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use lg_control::{
    Call, Event, ExitStatus, Fault, FrameError, Inbox, Outcome, Reply, Report, Request, STREAM_WINDOW_BYTES,
    Waiting, encode, send_with_descriptors,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::CallError;

/// A process of the guest and one of its descriptors.
pub(crate) type StreamKey = (u32, u32);

/// The most streams of one sandbox.
const MAX_STREAMS: usize = 4096;
/// The most programs of one sandbox whose end is kept without that anybody here has launched them.
const MAX_STRANGERS: usize = 4096;
/// Bytes are said to be taken once there are so many.
const TAKEN_AT: usize = STREAM_WINDOW_BYTES / 2;

/// How a connection ended.
#[derive(Debug, Clone)]
pub(crate) enum Closed {
    /// With the report of the sandbox.
    Ended(Box<Report>),
    /// Without one.
    Lost(Arc<FrameError>),
}

/// Something that a followed process did, in its order.
#[derive(Debug)]
pub(crate) enum Happening {
    /// It wrote; no bytes are the end of the stream.
    Output(u32, Vec<u8>),
    /// It ended.
    Exited(ExitStatus),
}

/// One end of a control connection. Dropping it closes the connection, which ends the sandbox.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Arc<Link>,
    reader: JoinHandle<()>,
}

/// What the reading task and those who call share.
#[derive(Debug)]
struct Link {
    socket: UnixStream,
    state: Mutex<State>,
    /// Wakes the task that sends what did not fit.
    unsent: Notify,
    closed: watch::Sender<Option<Closed>>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u32,
    calls: HashMap<u32, oneshot::Sender<Result<Reply, Fault>>>,
    streams: HashMap<StreamKey, Stream>,
    followed: HashMap<u32, Follower>,
    exits: HashMap<u32, Exit>,
    /// How many of `exits` are of programs that nobody here has launched or waits for.
    strangers: usize,
    outgoing: VecDeque<Outgoing>,
    ready: Option<oneshot::Sender<Ready>>,
}

/// What a vmm says when its sandbox is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// The process that said so, by the host's kernel.
    pub(crate) pid: Option<u32>,
    /// How long the vmm took.
    pub(crate) spawn_ns: u64,
}

#[derive(Debug, Default)]
struct Stream {
    buffer: VecDeque<u8>,
    ended: bool,
    unwanted: bool,
    /// Bytes that were taken, and that the vmm has not been told of.
    taken: usize,
    waker: Option<Waker>,
}

/// Whoever wants to have all that a process does.
#[derive(Debug)]
struct Follower {
    sender: mpsc::UnboundedSender<Happening>,
    /// Bytes of each stream that were sent to it and not taken yet.
    waiting: HashMap<u32, usize>,
}

#[derive(Debug, Default)]
struct Exit {
    status: Option<ExitStatus>,
    waiting: Vec<oneshot::Sender<ExitStatus>>,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Connection {
    /// A connected pair: this end, and the descriptor for the vmm. Needs a tokio context with I/O.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd, oneshot::Receiver<Ready>)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        lg_control::tell_senders(ours.as_fd())?;
        let (send_ready, ready) = oneshot::channel();
        let link = Arc::new(Link {
            socket: UnixStream::from_std(ours)?,
            state: Mutex::new(State { ready: Some(send_ready), ..State::default() }),
            unsent: Notify::new(),
            closed: watch::Sender::new(None),
        });
        let reader = tokio::spawn(serve(link.clone()));
        Ok((Self { link, reader }, theirs.into(), ready))
    }

    /// Makes a call and waits for the reply.
    pub(crate) async fn call(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Reply, CallError> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut state = self.link.state();
            // 0 wants no reply.
            state.next_id = state.next_id.wrapping_add(1).max(1);
            let id = state.next_id;
            state.calls.insert(id, sender);
            id
        };
        self.link.send(&Call { id, request }, descriptors)?;
        // The table of calls is emptied when the connection ends.
        if self.link.closed.borrow().is_some() {
            self.link.state().calls.clear();
        }
        match receiver.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(self.link.over()),
        }
    }

    /// Makes a call that wants no reply.
    pub(crate) fn tell(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<(), CallError> {
        self.link.send(&Call { id: 0, request }, descriptors)
    }

    /// Waits for the end of the sandbox.
    pub(crate) async fn closed(&self) -> Closed {
        let mut watcher = self.link.closed.subscribe();
        // The sender lives as long as the link.
        let closed = watcher.wait_for(Option::is_some).await;
        closed.ok().and_then(|closed| closed.clone()).unwrap_or(Closed::Lost(Arc::new(FrameError::Closed)))
    }

    /// The end of the sandbox, if it has come.
    pub(crate) fn end(&self) -> Option<Closed> {
        self.link.closed.borrow().clone()
    }

    /// Says that the sandbox is over, and why if that is not what it was meant to do.
    pub(crate) fn over(&self) -> CallError {
        self.link.over()
    }

    /// Waits for the end of a program that was launched.
    pub(crate) async fn exit_of(&self, process: u32) -> Result<ExitStatus, CallError> {
        let receiver = {
            let mut state = self.link.state();
            let exit = state.exits.entry(process).or_default();
            if let Some(status) = exit.status {
                return Ok(status);
            }
            let (sender, receiver) = oneshot::channel();
            exit.waiting.push(sender);
            receiver
        };
        if self.link.closed.borrow().is_some() {
            self.link.state().exits.values_mut().for_each(|exit| exit.waiting.clear());
        }
        receiver.await.map_err(|_| self.link.over())
    }

    /// Has everything that a process does from now on sent to one place, in its order.
    pub(crate) fn follow(&self, process: u32) -> mpsc::UnboundedReceiver<Happening> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut waiting = HashMap::new();
        let mut state = self.link.state();
        let keys: Vec<StreamKey> = state.streams.keys().filter(|key| key.0 == process).copied().collect();
        for key in keys {
            if let Some(stream) = state.streams.remove(&key) {
                waiting.insert(key.1, stream.buffer.len());
                let _ = sender.send(Happening::Output(key.1, stream.buffer.into()));
            }
        }
        if let Some(status) = state.exits.remove(&process).and_then(|exit| exit.status) {
            let _ = sender.send(Happening::Exited(status));
        }
        if self.link.closed.borrow().is_none() {
            state.followed.insert(process, Follower { sender, waiting });
        }
        receiver
    }

    /// Says that so many bytes of a followed process's stream have been taken.
    pub(crate) fn taken(&self, (process, fd): StreamKey, bytes: usize) {
        if let Some(follower) = self.link.state().followed.get_mut(&process)
            && let Some(waiting) = follower.waiting.get_mut(&fd)
        {
            *waiting = waiting.saturating_sub(bytes);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // A sandbox that is over needs not know.
        let _ = self.tell(Request::Taken { process, fd, bytes }, Vec::new());
    }

    /// Notes that a program has a stream.
    pub(crate) fn expect(&self, key: StreamKey) {
        self.link.state().streams.entry(key).or_default();
    }

    /// Throws away what comes of the streams that `original` has: for a fork, in which nobody holds their other ends.
    pub(crate) fn ignore_streams_of(&self, original: &Connection) {
        let keys: Vec<StreamKey> = {
            let state = original.link.state();
            state.streams.iter().filter(|(_, stream)| !stream.ended).map(|(key, _)| *key).collect()
        };
        let mut state = self.link.state();
        for key in keys {
            state.streams.entry(key).or_default().unwanted = true;
        }
    }

    /// Takes bytes of a stream.
    pub(crate) fn poll_read(
        &self,
        key: StreamKey,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<()> {
        let tell = {
            let mut state = self.link.state();
            let stream = state.streams.entry(key).or_default();
            if stream.buffer.is_empty() {
                if stream.ended || self.link.closed.borrow().is_some() || buf.remaining() == 0 {
                    return Poll::Ready(());
                }
                stream.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let (front, _) = stream.buffer.as_slices();
            let count = front.len().min(buf.remaining());
            buf.put_slice(&front[..count]);
            stream.buffer.drain(..count);
            stream.taken += count;
            (stream.taken >= TAKEN_AT).then(|| std::mem::take(&mut stream.taken))
        };
        if let Some(bytes) = tell {
            self.taken(key, bytes);
        }
        Poll::Ready(())
    }

    /// Says that nobody will read a stream: what comes is thrown away.
    pub(crate) fn unwanted(&self, key: StreamKey) {
        let pending = {
            let mut state = self.link.state();
            // Nothing may have come of it yet.
            let stream = state.streams.entry(key).or_default();
            stream.unwanted = true;
            let pending = std::mem::take(&mut stream.buffer).len() + std::mem::take(&mut stream.taken);
            if stream.ended {
                state.streams.remove(&key);
                return;
            }
            pending
        };
        if pending > 0 {
            self.taken(key, pending);
        }
    }
}

impl Connection {
    /// Stops listening. Whoever waits for something waits no longer.
    pub(crate) fn shut(&self) {
        self.reader.abort();
        self.link.close(Closed::Lost(Arc::new(FrameError::Closed)));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the sandbox is over, and why if the host failed it.
    fn over(&self) -> CallError {
        match &*self.closed.borrow() {
            Some(Closed::Ended(report)) => match &report.outcome {
                Outcome::Failed(message) => CallError::Failed(message.clone()),
                _ => CallError::Ended,
            },
            Some(Closed::Lost(error)) if !matches!(**error, FrameError::Closed | FrameError::Truncated) => {
                CallError::Failed(format!("cannot talk to the vmm: {}", with_causes(&**error)))
            }
            _ => CallError::Ended,
        }
    }

    /// Sends a call, now if the socket takes it.
    fn send(&self, call: &Call, descriptors: Vec<OwnedFd>) -> Result<(), CallError> {
        let outgoing = Outgoing { bytes: encode(call).map_err(CallError::Message)?, sent: 0, descriptors };
        if self.closed.borrow().is_some() {
            return Err(self.over());
        }
        let mut state = self.state();
        state.outgoing.push_back(outgoing);
        match flush(self.socket.as_fd(), &mut state.outgoing) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent.notify_one(),
            // The reader finds out what has become of the vmm; a last report may be waiting there.
            Err(error) if is_closed(&error) => state.outgoing.clear(),
            Err(error) => {
                // The caller is told that it was not sent, so it must not be sent later.
                if state.outgoing.back().is_some_and(|last| last.sent == 0) {
                    state.outgoing.pop_back();
                }
                return Err(CallError::Message(error.into()));
            }
        }
        Ok(())
    }

    /// Takes in one event.
    fn happened(&self, event: Event, sender: Option<u32>) -> Result<(), FrameError> {
        match event {
            Event::Ready { spawn_ns } => {
                if let Some(ready) = self.state().ready.take() {
                    // Whoever waited may have given up.
                    let _ = ready.send(Ready { pid: sender, spawn_ns });
                }
            }
            Event::Reply { id, result } => {
                let mut state = self.state();
                let waiting = state.calls.remove(&id);
                if let Some(waiting) = waiting {
                    if let Ok(Reply::Started { process }) = &result {
                        state.exits.entry(*process).or_default();
                    }
                    drop(state);
                    let _ = waiting.send(result);
                }
            }
            Event::Output { process, fd, bytes } => self.output(process, fd, bytes)?,
            Event::Exited { process, status } => {
                let mut state = self.state();
                match state.followed.get(&process) {
                    Some(follower) => {
                        let _ = follower.sender.send(Happening::Exited(status));
                    }
                    None => {
                        if !state.exits.contains_key(&process) {
                            state.strangers += 1;
                            if state.strangers > MAX_STRANGERS {
                                return Err(FrameError::Unexpected { what: "the ends of too many programs" });
                            }
                        }
                        let exit = state.exits.entry(process).or_default();
                        exit.status = Some(status);
                        for waiting in exit.waiting.drain(..) {
                            let _ = waiting.send(status);
                        }
                    }
                }
            }
            Event::Ended(report) => self.close(Closed::Ended(report)),
        }
        Ok(())
    }

    fn output(&self, process: u32, fd: u32, bytes: Vec<u8>) -> Result<(), FrameError> {
        let key = (process, fd);
        let mut state = self.state();
        if let Some(follower) = state.followed.get_mut(&process) {
            if follower.waiting.len() >= MAX_STREAMS && !follower.waiting.contains_key(&fd) {
                return Err(FrameError::Unexpected { what: "the output of too many streams" });
            }
            let waiting = follower.waiting.entry(fd).or_default();
            *waiting += bytes.len();
            if *waiting > STREAM_WINDOW_BYTES {
                return Err(FrameError::Unexpected { what: "more output than was asked for" });
            }
            let _ = follower.sender.send(Happening::Output(fd, bytes));
            return Ok(());
        }
        if state.streams.len() >= MAX_STREAMS && !state.streams.contains_key(&key) {
            return Err(FrameError::Unexpected { what: "the output of too many streams" });
        }
        let stream = state.streams.entry(key).or_default();
        if bytes.is_empty() && stream.unwanted {
            state.streams.remove(&key);
            return Ok(());
        } else if bytes.is_empty() {
            stream.ended = true;
        } else if stream.unwanted {
            drop(state);
            let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let taken = Request::Taken { process, fd, bytes };
            // A vmm that is gone shows when the socket is read.
            let _ = self.send(&Call { id: 0, request: taken }, Vec::new());
            return Ok(());
        } else if stream.buffer.len() + bytes.len() > STREAM_WINDOW_BYTES {
            return Err(FrameError::Unexpected { what: "more output than was asked for" });
        } else {
            stream.buffer.extend(bytes);
        }
        if let Some(waker) = stream.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Ends everything that waits. The first reason stays.
    fn close(&self, closed: Closed) {
        self.closed.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(closed);
            }
            first
        });
        let mut state = self.state();
        state.calls.clear();
        state.followed.clear();
        state.ready = None;
        state.exits.values_mut().for_each(|exit| exit.waiting.clear());
        for stream in state.streams.values_mut() {
            if let Some(waker) = stream.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Sends as much as the socket takes; `WouldBlock` where something is left.
fn flush(socket: BorrowedFd<'_>, outgoing: &mut VecDeque<Outgoing>) -> io::Result<()> {
    while let Some(front) = outgoing.front_mut() {
        let descriptors: Vec<BorrowedFd<'_>> = front.descriptors.iter().map(AsFd::as_fd).collect();
        let count = send_with_descriptors(socket, &front.bytes[front.sent..], &descriptors)?;
        front.sent += count;
        front.descriptors.clear();
        if front.sent == front.bytes.len() {
            outgoing.pop_front();
        }
    }
    Ok(())
}

/// The task of a connection: takes in events, and sends what did not fit at once.
async fn serve(link: Arc<Link>) {
    let mut inbox = Inbox::default();
    let error = loop {
        match inbox.take::<Event>() {
            Ok(Some(event)) => {
                let is_last = matches!(event, Event::Ended(_));
                if let Err(error) = link.happened(event, inbox.sender()) {
                    break error;
                }
                if is_last {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => break error,
        }
        let received = tokio::select! {
            received = link.socket.async_io(Interest::READABLE, || inbox.fill(link.socket.as_fd(), Waiting::Never)) => received,
            () = send_rest(&link) => continue,
        };
        match received {
            Ok(0) => break inbox.end(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break inbox.end(),
            Err(error) => break error.into(),
        }
    };
    link.close(Closed::Lost(Arc::new(error)));
}

/// Sends what did not fit at once. Given up half-way, it goes on where it was.
async fn send_rest(link: &Link) {
    while link.state().outgoing.is_empty() {
        link.unsent.notified().await;
    }
    let send = || flush(link.socket.as_fd(), &mut link.state().outgoing);
    if link.socket.async_io(Interest::WRITABLE, send).await.is_err() {
        // The reader finds out what has become of the vmm.
        link.state().outgoing.clear();
    }
}

/// An error with its causes, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An end of a connection that a test plays the vmm at.
    fn vmm() -> (Connection, std::os::unix::net::UnixStream) {
        let (connection, theirs, _) = Connection::pair().unwrap();
        (connection, std::os::unix::net::UnixStream::from(theirs))
    }

    async fn read(connection: &Connection, key: StreamKey) -> Vec<u8> {
        let mut bytes = [0; 100];
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
        std::future::poll_fn(|cx| connection.poll_read(key, cx, &mut buffer)).await;
        buffer.filled().to_vec()
    }

    fn output(process: u32, bytes: &[u8]) -> Event {
        Event::Output { process, fd: 1, bytes: bytes.to_vec() }
    }

    #[tokio::test]
    async fn output_that_is_unwanted_before_it_comes_is_taken_all_the_same() {
        let (connection, vmm) = vmm();
        connection.unwanted((7, 1));
        lg_control::send(&vmm, &output(7, b"xyz")).unwrap();
        let taken = tokio::task::spawn_blocking(move || {
            lg_control::recv::<Call>(&vmm, &mut Inbox::default()).unwrap().request
        });
        assert_eq!(taken.await.unwrap(), Request::Taken { process: 7, fd: 1, bytes: 3 });
    }

    #[tokio::test]
    async fn any_number_of_programs_may_have_written() {
        let (connection, vmm) = vmm();
        for process in 0..2 * MAX_STREAMS as u32 {
            lg_control::send(&vmm, &output(process, b"x")).unwrap();
            lg_control::send(&vmm, &output(process, b"")).unwrap();
            let key = (process, 1);
            assert_eq!(read(&connection, key).await, b"x");
            // Before or after the end has come.
            if process % 2 == 0 {
                assert_eq!(read(&connection, key).await, b"");
            }
            connection.unwanted(key);
        }
        assert!(connection.end().is_none());
        lg_control::send(&vmm, &output(0, b"y")).unwrap();
        assert_eq!(read(&connection, (0, 1)).await, b"y");
        assert!(connection.link.state().streams.len() < 10);
    }
}
