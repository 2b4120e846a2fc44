//! The line discipline: what happens to bytes between the two sides of a terminal (termios(3), N_TTY).
//!
//! ```text
//!               input()                         read()
//!   outside ---------------> [line] -> [ready] ---------> programs
//!      ^                        | echo                        |
//!      +------- [output] <------+----------- output() --------+
//! ```
//!
//! A plain state machine: it neither sleeps nor knows of processes. Keys that mean a signal come out as
//! [`Key`]s for the caller to act on.
//!
//! | module | subject |
//! |---|---|
//! | `settings` | what a new terminal is set to, and the places of the control characters |
//! | `input` | keys: translation, signals, flow control, ends of lines |
//! | `edit` | keys that erase, and how that is shown |
//! | `output` | echo and what programs write, and where the cursor is |

mod edit;
mod input;
mod output;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use lg_abi::Termios;
use lg_abi::raw::general as linux;

pub use self::input::Key;
use self::settings::{VMIN, VTIME};

/// The most bytes of input that wait to be read, the unfinished line included.
pub const INPUT_BYTES: usize = 4096;
/// The most bytes of output that wait to be taken.
pub const OUTPUT_BYTES: usize = 4096;
/// Echo may go so far beyond that; what would go further is lost.
const ECHO_BYTES: usize = OUTPUT_BYTES + 4096;
/// Tabs are at multiples of so many columns.
const TAB: usize = 8;

/// A line discipline with its queues.
pub struct Discipline {
    settings: Termios,
    /// The line that is being edited.
    line: Vec<u8>,
    /// Finished lines, in canonical mode. A line without bytes is an end of file.
    lines: VecDeque<VecDeque<u8>>,
    /// Input in raw mode.
    raw: VecDeque<u8>,
    output: VecDeque<u8>,
    /// Echo of what was typed while output is held back.
    held: VecDeque<u8>,
    /// The next character is taken as it is (VLNEXT).
    literal: bool,
    /// Erased characters are being shown between a backslash and a slash (ECHOPRT).
    erasing: bool,
    /// Output is held back.
    stopped: bool,
    /// It is so by a program (TCOOFF): no key lets it go on.
    stopped_by_program: bool,
    /// Where the cursor is.
    column: usize,
    /// Where the line that is being edited began.
    line_column: usize,
}

impl Default for Discipline {
    fn default() -> Discipline {
        Discipline {
            settings: settings::initial(),
            line: Vec::new(),
            lines: VecDeque::new(),
            raw: VecDeque::new(),
            output: VecDeque::new(),
            held: VecDeque::new(),
            literal: false,
            erasing: false,
            stopped: false,
            stopped_by_program: false,
            column: 0,
            line_column: 0,
        }
    }
}

impl Discipline {
    /// Returns the settings.
    pub fn settings(&self) -> &Termios {
        &self.settings
    }

    /// Changes the settings. What was typed stays: a line that is not finished is input for raw mode, and raw
    /// input is a line for canonical mode.
    pub fn set_settings(&mut self, settings: Termios) {
        let (was_canonical, had_flow_control) = (self.is_canonical(), self.input_flag(linux::IXON));
        self.settings = settings;
        match (was_canonical, self.is_canonical()) {
            (true, false) => {
                for line in self.lines.drain(..) {
                    self.raw.extend(line);
                }
                self.raw.extend(self.line.drain(..));
            }
            (false, true) if !self.raw.is_empty() => self.lines.push_back(std::mem::take(&mut self.raw)),
            _ => {}
        }
        if was_canonical != self.is_canonical() {
            (self.literal, self.erasing) = (false, false);
        }
        if had_flow_control && !self.input_flag(linux::IXON) {
            self.start();
        }
    }

    /// Says whether input is read line by line.
    pub fn is_canonical(&self) -> bool {
        self.local(linux::ICANON)
    }

    fn local(&self, flag: u32) -> bool {
        self.settings.c_lflag & flag != 0
    }

    fn input_flag(&self, flag: u32) -> bool {
        self.settings.c_iflag & flag != 0
    }

    fn output_flag(&self, flag: u32) -> bool {
        self.settings.c_oflag & flag != 0
    }

    /// Bytes of input that were not read.
    fn input_len(&self) -> usize {
        // An end of file takes room as well.
        self.raw.len() + self.line.len() + self.lines.iter().map(|line| line.len().max(1)).sum::<usize>()
    }

    /// Says how many bytes of input are taken now. A line that grows too long is taken and lost, so that the
    /// key that ends it is still heard.
    pub fn input_room(&self) -> usize {
        let room = (INPUT_BYTES - 1).saturating_sub(self.input_len());
        match self.is_canonical() && self.lines.is_empty() {
            true => room.max(1),
            false => room,
        }
    }

    /// How many bytes a read(2) of at most `len` waits for, and the tenths of a second that it does (VMIN,
    /// VTIME).
    pub fn patience(&self, len: usize) -> (usize, u8) {
        match self.is_canonical() {
            true => (1, 0),
            false => (usize::from(self.settings.c_cc[VMIN]).min(len), self.settings.c_cc[VTIME]),
        }
    }

    /// Says whether poll(2) shows that there is input.
    pub fn is_readable(&self) -> bool {
        match self.is_canonical() {
            true => !self.lines.is_empty(),
            false => {
                let (min, time) = self.patience(usize::MAX);
                self.raw.len() >= if time == 0 { min.max(1) } else { 1 }
            }
        }
    }

    /// Bytes that can be read now (FIONREAD).
    pub fn readable_len(&self) -> usize {
        match self.is_canonical() {
            true => self.lines.iter().map(VecDeque::len).sum(),
            false => self.raw.len(),
        }
    }

    /// Reads: a line or a part of it, or what there is in raw mode. `None`: there is no line.
    pub fn read(&mut self, buf: &mut [u8]) -> Option<usize> {
        let from = match self.is_canonical() {
            true => self.lines.front_mut()?,
            false => &mut self.raw,
        };
        let count = buf.len().min(from.len());
        for (to, byte) in buf.iter_mut().zip(from.drain(..count)) {
            *to = byte;
        }
        if self.is_canonical() && self.lines.front().is_some_and(VecDeque::is_empty) {
            self.lines.pop_front();
        }
        Some(count)
    }

    /// Throws away what was not read.
    pub fn flush_input(&mut self) {
        self.line.clear();
        self.lines.clear();
        self.raw.clear();
        (self.literal, self.erasing) = (false, false);
    }
}
