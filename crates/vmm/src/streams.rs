//! The pipes and terminals between programs inside and the runtime: what is on its way in either direction.

use std::collections::{BTreeMap, VecDeque};

use lg_control::{Event, Fault, FaultKind, Reply, STREAM_WINDOW_BYTES, Terminal};
use lg_kernel::operator::{Launched, StreamReader, StreamWriter};
use lg_kernel::{Errno, Kernel};

/// A process and one of its descriptors.
type Key = (u32, u32);

/// The most bytes of one output message.
const OUTPUT_BYTES: usize = 64 * 1024;
/// The most bytes that wait to be written to one stream.
const MAX_WAITING_BYTES: usize = 4 * lg_control::MAX_CHUNK_BYTES;

/// All streams of a sandbox.
#[derive(Debug, Default)]
pub struct Streams {
    outputs: BTreeMap<Key, Output>,
    inputs: BTreeMap<Key, Input>,
}

#[derive(Debug)]
struct Output {
    reader: StreamReader,
    /// Bytes that were sent and not taken yet.
    in_flight: usize,
}

#[derive(Debug)]
struct Input {
    writer: StreamWriter,
    waiting: VecDeque<Waiting>,
    closes: bool,
}

impl Input {
    /// Answers the calls that wait, which can not be served any more.
    fn refuse(self, errno: Errno, send: &mut dyn FnMut(Event)) {
        for Waiting { id, .. } in self.waiting.into_iter().filter(|waiting| waiting.id != 0) {
            send(Event::Reply { id, result: Err(fault(errno)) });
        }
    }
}

#[derive(Debug)]
struct Waiting {
    id: u32,
    bytes: Vec<u8>,
    written: usize,
}

/// Whether something of a process's output is still inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All that was written has been sent.
    Yes,
    /// The runtime has to take some first.
    No,
}

impl Streams {
    /// Takes charge of a program's streams.
    pub fn add(&mut self, launched: Launched) {
        let process = launched.process.0;
        for (fd, reader) in launched.readers {
            self.outputs.insert((process, fd), Output { reader, in_flight: 0 });
        }
        for (fd, writer) in launched.writers {
            self.inputs.insert((process, fd), Input { writer, waiting: VecDeque::new(), closes: false });
        }
    }

    /// Forgets who asked for what: a fork answers nobody for what the original was asked, and its runtime has taken
    /// nothing yet.
    pub fn forget_calls(&mut self) {
        self.outputs.values_mut().for_each(|output| output.in_flight = 0);
        for input in self.inputs.values_mut() {
            input.waiting.iter_mut().for_each(|waiting| waiting.id = 0);
        }
    }

    /// Notes bytes to be written to a stream; the call is answered when they are.
    pub fn write(&mut self, key: Key, id: u32, bytes: Vec<u8>) -> Result<(), Fault> {
        let input = self.input(key)?;
        let waiting: usize = input.waiting.iter().map(|waiting| waiting.bytes.len()).sum();
        if waiting + bytes.len() > MAX_WAITING_BYTES {
            let message = format!("{waiting} bytes wait already to be written to descriptor {}", key.1);
            return Err(Fault::new(FaultKind::State, message));
        }
        input.waiting.push_back(Waiting { id, bytes, written: 0 });
        Ok(())
    }

    /// Closes a stream once everything that waits is written.
    pub fn close(&mut self, key: Key) -> Result<(), Fault> {
        self.input(key)?.closes = true;
        Ok(())
    }

    /// Changes the size of a terminal.
    pub fn resize(&mut self, key: Key, terminal: Terminal) -> Result<(), Fault> {
        self.input(key)?.writer.resize(terminal.rows, terminal.columns).map_err(|_| {
            let (process, fd) = key;
            Fault::new(FaultKind::State, format!("descriptor {fd} of process {process} is no terminal"))
        })
    }

    fn input(&mut self, key: Key) -> Result<&mut Input, Fault> {
        let input = self.inputs.get_mut(&key).filter(|input| !input.closes);
        input.ok_or_else(|| {
            let (process, fd) = key;
            Fault::new(
                FaultKind::State,
                format!("descriptor {fd} of process {process} is not open for writing"),
            )
        })
    }

    /// Notes that the runtime has taken bytes of a stream.
    pub fn taken(&mut self, key: Key, bytes: u32) {
        if let Some(output) = self.outputs.get_mut(&key) {
            output.in_flight = output.in_flight.saturating_sub(bytes as usize);
        }
    }

    /// Moves into the sandbox what there is room for, and gives the answers to `send`.
    pub fn push_in(&mut self, kernel: &Kernel, send: &mut dyn FnMut(Event)) {
        self.inputs.retain(|_, input| {
            while let Some(waiting) = input.waiting.front_mut() {
                let written = input.writer.write(kernel, &waiting.bytes[waiting.written..]);
                let result = match written {
                    Ok(written) => {
                        waiting.written += written;
                        if waiting.written < waiting.bytes.len() {
                            return true;
                        }
                        Ok(Reply::Done)
                    }
                    Err(errno) => Err(fault(errno)),
                };
                if waiting.id != 0 {
                    send(Event::Reply { id: waiting.id, result });
                }
                input.waiting.pop_front();
            }
            !input.closes
        });
    }

    /// Gives to `send` what programs have written, as far as the runtime has room. Answers how many bytes that was.
    pub fn pull_out(&mut self, kernel: &Kernel, send: &mut dyn FnMut(Event)) -> usize {
        let mut total = 0;
        let mut buffer = Vec::new();
        let Streams { outputs, inputs } = self;
        outputs.retain(|&(process, fd), output| {
            loop {
                let room = STREAM_WINDOW_BYTES.saturating_sub(output.in_flight).min(OUTPUT_BYTES);
                if room == 0 {
                    return true;
                }
                // One byte where none is there: it tells the end from a pause.
                buffer.resize(output.reader.available().clamp(1, room), 0);
                match output.reader.read(kernel, &mut buffer) {
                    Ok(count) => {
                        output.in_flight += count;
                        total += count;
                        send(Event::Output { process, fd, bytes: buffer[..count].to_vec() });
                        if count == 0 {
                            return false;
                        }
                    }
                    Err(Errno::EAGAIN) => return true,
                    // The end as well: nothing more can come. Nobody has a terminal open any more, so it goes.
                    Err(errno) => {
                        if let Some(input) = inputs.remove(&(process, fd)) {
                            input.refuse(errno, send);
                        }
                        send(Event::Output { process, fd, bytes: Vec::new() });
                        return false;
                    }
                }
            }
        });
        total
    }

    /// Says whether everything that a process wrote has been sent, after [`Streams::pull_out`].
    pub fn drained(&self, process: u32) -> Drained {
        let full = |output: &Output| output.in_flight >= STREAM_WINDOW_BYTES;
        let mut outputs = self.outputs.range((process, 0)..=(process, u32::MAX));
        if outputs.any(|(_, output)| full(output)) { Drained::No } else { Drained::Yes }
    }
}

/// The fault of a request that the kernel refuses.
pub fn fault(errno: Errno) -> Fault {
    Fault::new(FaultKind::Errno(errno.number()), errno.to_string())
}
