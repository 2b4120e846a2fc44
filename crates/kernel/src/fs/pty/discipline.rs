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

use std::collections::VecDeque;

use lg_abi::Termios;
use lg_abi::raw::general as linux;

/// The most bytes of input that wait to be read, the unfinished line included.
pub const INPUT_BYTES: usize = 4096;
/// The most bytes of output that wait to be taken.
pub const OUTPUT_BYTES: usize = 4096;
/// Echo may go so far beyond that; what would go further is lost.
const ECHO_BYTES: usize = OUTPUT_BYTES + 4096;
const TAB: usize = 8;

/// A control character that is switched off.
const DISABLED: u8 = 0;

/// Indices of `c_cc`.
const VINTR: usize = linux::VINTR as usize;
const VQUIT: usize = linux::VQUIT as usize;
const VERASE: usize = linux::VERASE as usize;
const VKILL: usize = linux::VKILL as usize;
const VEOF: usize = linux::VEOF as usize;
const VTIME: usize = linux::VTIME as usize;
const VMIN: usize = linux::VMIN as usize;
const VSTART: usize = linux::VSTART as usize;
const VSTOP: usize = linux::VSTOP as usize;
const VSUSP: usize = linux::VSUSP as usize;
const VEOL: usize = linux::VEOL as usize;
const VREPRINT: usize = linux::VREPRINT as usize;
const VWERASE: usize = linux::VWERASE as usize;
const VLNEXT: usize = linux::VLNEXT as usize;
const VEOL2: usize = linux::VEOL2 as usize;

/// What a key asks for besides input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// SIGINT for the foreground process group.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGTSTP.
    Suspend,
}

/// Returns the settings of a new pseudo-terminal.
pub fn initial_settings() -> Termios {
    let mut settings = Termios {
        c_iflag: linux::ICRNL | linux::IXON,
        c_oflag: linux::OPOST | linux::ONLCR,
        c_cflag: linux::B38400 | linux::CS8 | linux::CREAD,
        c_lflag: linux::ISIG
            | linux::ICANON
            | linux::ECHO
            | linux::ECHOE
            | linux::ECHOK
            | linux::ECHOCTL
            | linux::ECHOKE
            | linux::IEXTEN,
        ..Termios::default()
    };
    let characters: [(usize, u8); 14] = [
        (VINTR, 3),
        (VQUIT, 0x1c),
        (VERASE, 0x7f),
        (VKILL, 0x15),
        (VEOF, 4),
        (VMIN, 1),
        (VSTART, 0x11),
        (VSTOP, 0x13),
        (VSUSP, 0x1a),
        (VREPRINT, 0x12),
        (linux::VDISCARD as usize, 0x0f),
        (VWERASE, 0x17),
        (VLNEXT, 0x16),
        (VTIME, 0),
    ];
    for (index, character) in characters {
        settings.c_cc[index] = character;
    }
    settings
}

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
    /// The next character is taken as it is.
    literal: bool,
    /// Output is held back (VSTOP).
    stopped: bool,
    /// Where the cursor is, for tabs and erasure.
    column: usize,
    /// Where the line that is being edited began.
    line_column: usize,
}

impl Default for Discipline {
    fn default() -> Discipline {
        Discipline {
            settings: initial_settings(),
            line: Vec::new(),
            lines: VecDeque::new(),
            raw: VecDeque::new(),
            output: VecDeque::new(),
            literal: false,
            stopped: false,
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
        let was_canonical = self.is_canonical();
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
        if !self.input_flag(linux::IXON) {
            self.stopped = false;
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

    fn is(&self, index: usize, byte: u8) -> bool {
        byte != DISABLED && self.settings.c_cc[index] == byte
    }

    fn extended(&self, index: usize, byte: u8) -> bool {
        self.local(linux::IEXTEN) && self.is(index, byte)
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

    /// Takes a byte from outside. Call it only while there is room.
    pub fn input(&mut self, byte: u8) -> Option<Key> {
        let byte = if self.input_flag(linux::ISTRIP) { byte & 0x7f } else { byte };
        if std::mem::take(&mut self.literal) {
            self.echo(byte);
            self.push(byte);
            return None;
        }
        if self.input_flag(linux::IXON) {
            if self.is(VSTART, byte) {
                self.stopped = false;
                return None;
            }
            if self.is(VSTOP, byte) {
                self.stopped = true;
                return None;
            }
        }
        if self.local(linux::ISIG) {
            let keys = [(VINTR, Key::Interrupt), (VQUIT, Key::Quit), (VSUSP, Key::Suspend)];
            if let Some((_, key)) = keys.into_iter().find(|(index, _)| self.is(*index, byte)) {
                if !self.local(linux::NOFLSH) {
                    self.flush_input();
                    self.flush_output();
                }
                self.stopped = false;
                self.echo(byte);
                return Some(key);
            }
        }
        if self.stopped && self.input_flag(linux::IXANY) {
            self.stopped = false;
        }
        let byte = match byte {
            b'\r' if self.input_flag(linux::IGNCR) => return None,
            b'\r' if self.input_flag(linux::ICRNL) => b'\n',
            b'\n' if self.input_flag(linux::INLCR) => b'\r',
            byte => byte,
        };
        match self.is_canonical() {
            true => self.edit(byte),
            false => {
                self.echo(byte);
                self.push(byte);
            }
        }
        None
    }

    /// Canonical mode: editing keys, ends of lines, and everything else.
    fn edit(&mut self, byte: u8) {
        if self.is(VERASE, byte) {
            self.erase_last();
        } else if self.is(VKILL, byte) {
            self.kill(byte);
        } else if self.extended(VWERASE, byte) {
            self.erase_word();
        } else if self.extended(VLNEXT, byte) {
            self.literal = true;
            if self.local(linux::ECHO) && self.local(linux::ECHOCTL) {
                self.put_echo(b"^\x08");
            }
        } else if self.extended(VREPRINT, byte) && self.local(linux::ECHO) {
            self.reprint(byte);
        } else if byte == b'\n' {
            if self.local(linux::ECHO) || self.local(linux::ECHONL) {
                self.put_echo_processed(b'\n');
            }
            self.line.push(byte);
            self.end_line();
        } else if self.is(VEOF, byte) {
            self.end_line();
        } else if self.is(VEOL, byte) || self.extended(VEOL2, byte) {
            self.echo(byte);
            self.line.push(byte);
            self.end_line();
        } else {
            self.echo(byte);
            self.push(byte);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.lines.push_back(line.into());
        self.line_column = self.column;
    }

    fn push(&mut self, byte: u8) {
        if self.input_len() >= INPUT_BYTES - 1 {
            return;
        }
        match self.is_canonical() {
            true => self.line.push(byte),
            false => self.raw.push_back(byte),
        }
    }

    fn erase_last(&mut self) {
        let Some(mut length) = self.last_character() else { return };
        while length > 0 {
            self.line.pop();
            length -= 1;
        }
        self.echo_erased();
    }

    /// Returns how many bytes the last character of the line has (IUTF8).
    fn last_character(&self) -> Option<usize> {
        let continued = |byte: &u8| byte & 0xc0 == 0x80;
        match self.input_flag(linux::IUTF8) {
            _ if self.line.is_empty() => None,
            true => Some(
                (self.line.iter().rev().take_while(|byte| continued(byte)).count() + 1).min(self.line.len()),
            ),
            false => Some(1),
        }
    }

    fn erase_word(&mut self) {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        let mut seen = false;
        while let Some(&last) = self.line.last() {
            if seen && !is_word(last) {
                break;
            }
            seen |= is_word(last);
            self.erase_last();
        }
    }

    fn kill(&mut self, byte: u8) {
        if self.local(linux::ECHOK) && self.local(linux::ECHOKE) && self.local(linux::ECHOE) {
            while !self.line.is_empty() {
                self.erase_last();
            }
            return;
        }
        self.line.clear();
        self.echo(byte);
        if self.local(linux::ECHO) && self.local(linux::ECHOK) {
            self.put_echo_processed(b'\n');
        }
    }

    fn reprint(&mut self, byte: u8) {
        self.echo(byte);
        self.put_echo_processed(b'\n');
        for byte in self.line.clone() {
            self.echo(byte);
        }
    }

    /// Wipes what was shown of a character that is gone from the line.
    fn echo_erased(&mut self) {
        if !self.local(linux::ECHO) {
            return;
        }
        if !self.local(linux::ECHOE) {
            let erase = self.settings.c_cc[VERASE];
            self.echo(erase);
            return;
        }
        // What is left shows where the cursor was before the character.
        let target = self.line.iter().fold(self.line_column, |column, byte| self.column_after(column, *byte));
        for _ in 0..self.column.saturating_sub(target).min(TAB) {
            self.put_echo(b"\x08 \x08");
        }
    }

    /// Returns where the cursor is once `byte` was echoed at `column`.
    fn column_after(&self, column: usize, byte: u8) -> usize {
        match byte {
            b'\t' => column / TAB * TAB + TAB,
            byte if is_control(byte) => column + if self.local(linux::ECHOCTL) { 2 } else { 0 },
            byte if self.input_flag(linux::IUTF8) && byte & 0xc0 == 0x80 => column,
            _ => column + 1,
        }
    }

    fn echo(&mut self, byte: u8) {
        if !self.local(linux::ECHO) {
            return;
        }
        if self.line.is_empty() && self.is_canonical() {
            self.line_column = self.column;
        }
        if self.local(linux::ECHOCTL) && is_control(byte) && byte != b'\t' {
            self.put_echo(&[b'^', byte ^ 0x40]);
        } else {
            self.put_echo_processed(byte);
        }
    }

    fn put_echo(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.output.len() < ECHO_BYTES {
                self.move_cursor(byte);
                self.output.push_back(byte);
            }
        }
    }

    fn put_echo_processed(&mut self, byte: u8) {
        if self.output.len() < ECHO_BYTES {
            self.process(byte);
        }
    }

    /// Takes what programs write: as many bytes as there is room for.
    pub fn output(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for &byte in bytes {
            // A tab may become eight bytes.
            if self.stopped || self.output.len() + TAB > OUTPUT_BYTES {
                break;
            }
            self.process(byte);
            taken += 1;
        }
        taken
    }

    /// Says whether programs can write.
    pub fn has_output_room(&self) -> bool {
        !self.stopped && self.output.len() + TAB <= OUTPUT_BYTES
    }

    /// Puts a byte into the output as the output modes say.
    fn process(&mut self, byte: u8) {
        if !self.output_flag(linux::OPOST) {
            self.move_cursor(byte);
            self.output.push_back(byte);
            return;
        }
        match byte {
            b'\n' if self.output_flag(linux::ONLCR) => {
                self.column = 0;
                self.output.extend(b"\r\n");
            }
            b'\r' if self.output_flag(linux::ONOCR) && self.column == 0 => {}
            b'\r' if self.output_flag(linux::OCRNL) => {
                if self.output_flag(linux::ONLRET) {
                    self.column = 0;
                }
                self.output.push_back(b'\n');
            }
            b'\t' if self.settings.c_oflag & linux::TABDLY == linux::TAB3 => {
                let spaces = TAB - self.column % TAB;
                self.column += spaces;
                self.output.extend(std::iter::repeat_n(b' ', spaces));
            }
            byte => {
                let byte = if self.output_flag(linux::OLCUC) { byte.to_ascii_uppercase() } else { byte };
                self.move_cursor(byte);
                self.output.push_back(byte);
            }
        }
    }

    fn move_cursor(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            b'\n' if self.output_flag(linux::ONLRET) => self.column = 0,
            b'\x08' => self.column = self.column.saturating_sub(1),
            b'\t' => self.column = self.column / TAB * TAB + TAB,
            byte if is_control(byte) => {}
            byte if self.input_flag(linux::IUTF8) && byte & 0xc0 == 0x80 => {}
            _ => self.column = self.column.saturating_add(1),
        }
    }

    /// Moves output to `buf` and returns how much.
    pub fn take_output(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.output.len());
        for (to, byte) in buf.iter_mut().zip(self.output.drain(..count)) {
            *to = byte;
        }
        count
    }

    /// Bytes of output that were not taken.
    pub fn output_len(&self) -> usize {
        self.output.len()
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

    /// Holds output back, or lets it go on (TCXONC).
    pub fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Says whether output is held back.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Throws away what was not read.
    pub fn flush_input(&mut self) {
        self.line.clear();
        self.lines.clear();
        self.raw.clear();
    }

    /// Throws away what was written and not taken.
    pub fn flush_output(&mut self) {
        self.output.clear();
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(discipline: &mut Discipline, keys: &[u8]) -> Vec<Key> {
        keys.iter().filter_map(|key| discipline.input(*key)).collect()
    }

    fn shown(discipline: &mut Discipline) -> String {
        let mut buf = vec![0; 10_000];
        let count = discipline.take_output(&mut buf);
        String::from_utf8_lossy(&buf[..count]).into_owned()
    }

    fn line(discipline: &mut Discipline) -> Option<String> {
        let mut buf = [0; 5000];
        let count = discipline.read(&mut buf)?;
        Some(String::from_utf8_lossy(&buf[..count]).into_owned())
    }

    fn raw() -> Discipline {
        let mut discipline = Discipline::default();
        let mut settings = *discipline.settings();
        settings.c_lflag = 0;
        settings.c_iflag = 0;
        settings.c_oflag = 0;
        discipline.set_settings(settings);
        discipline
    }

    #[test]
    fn a_line_can_be_read_once_it_is_finished() {
        let mut tty = Discipline::default();
        typed(&mut tty, b"ab");
        assert!(!tty.is_readable() && line(&mut tty).is_none());
        typed(&mut tty, b"c\rnext");
        assert!(tty.is_readable());
        assert_eq!(line(&mut tty).as_deref(), Some("abc\n"));
        assert!(!tty.is_readable());
        assert_eq!(shown(&mut tty), "abc\r\nnext");
    }

    #[test]
    fn a_read_takes_no_more_than_one_line_and_leaves_what_does_not_fit() {
        let mut tty = Discipline::default();
        typed(&mut tty, b"hello\nworld\n");
        let mut buf = [0; 3];
        assert_eq!(tty.read(&mut buf), Some(3));
        assert_eq!(&buf, b"hel");
        assert_eq!(line(&mut tty).as_deref(), Some("lo\n"));
        assert_eq!(line(&mut tty).as_deref(), Some("world\n"));
    }

    #[test]
    fn the_end_of_file_key_ends_a_line_without_a_character() {
        let mut tty = Discipline::default();
        typed(&mut tty, b"ab\x04\x04");
        assert_eq!(line(&mut tty).as_deref(), Some("ab"));
        assert_eq!(line(&mut tty).as_deref(), Some(""));
        assert_eq!(line(&mut tty), None);
    }

    #[test]
    fn editing_keys_change_the_line_and_what_is_shown() {
        let mut tty = Discipline::default();
        typed(&mut tty, b"abx\x7fc one two\x17\n");
        assert_eq!(line(&mut tty).as_deref(), Some("abc one \n"));
        assert!(shown(&mut tty).starts_with("abx\x08 \x08c one two\x08 \x08"));
        typed(&mut tty, b"gone\x15kept\n");
        assert_eq!(line(&mut tty).as_deref(), Some("kept\n"));
        typed(&mut tty, b"\x7f\x17\x15a\n");
        assert_eq!(line(&mut tty).as_deref(), Some("a\n"));
    }

    #[test]
    fn erasing_a_tab_or_a_control_character_wipes_all_that_it_took() {
        let mut tty = Discipline::default();
        typed(&mut tty, b"a\t\x7f");
        assert_eq!(shown(&mut tty), format!("a\t{}", "\x08 \x08".repeat(7)));
        typed(&mut tty, b"\x16\x01\x7f");
        assert_eq!(shown(&mut tty), "^\x08^A\x08 \x08\x08 \x08");
    }

    #[test]
    fn keys_of_signals_come_out_and_throw_input_away() {
        let mut tty = Discipline::default();
        assert_eq!(typed(&mut tty, b"lost\x03"), [Key::Interrupt]);
        assert_eq!(shown(&mut tty), "^C");
        assert_eq!(typed(&mut tty, b"\x1c\x1a"), [Key::Quit, Key::Suspend]);
        typed(&mut tty, b"kept\n");
        assert_eq!(line(&mut tty).as_deref(), Some("kept\n"));
    }

    #[test]
    fn the_literal_key_takes_the_next_one_as_it_is() {
        let mut tty = Discipline::default();
        assert_eq!(typed(&mut tty, b"\x16\x03\x16\x7f\n"), []);
        assert_eq!(line(&mut tty).as_deref(), Some("\x03\x7f\n"));
    }

    #[test]
    fn raw_mode_changes_nothing() {
        let mut tty = raw();
        assert_eq!(typed(&mut tty, b"\x03\r\n\x04"), []);
        assert_eq!(line(&mut tty).as_deref(), Some("\x03\r\n\x04"));
        assert_eq!(tty.output(b"a\nb"), 3);
        assert_eq!(shown(&mut tty), "a\nb");
    }

    #[test]
    fn what_was_typed_survives_a_change_of_mode() {
        let mut tty = Discipline::default();
        typed(&mut tty, b"one\ntwo");
        let canonical = *tty.settings();
        tty.set_settings(*raw().settings());
        assert_eq!(tty.readable_len(), 7);
        tty.set_settings(canonical);
        assert_eq!(line(&mut tty).as_deref(), Some("one\ntwo"));
    }

    #[test]
    fn output_is_held_back_by_its_key_and_bounded() {
        let mut tty = Discipline::default();
        typed(&mut tty, b"\x13");
        assert_eq!(tty.output(b"x"), 0);
        typed(&mut tty, b"\x11");
        let taken = tty.output(&[b'x'; 10_000]);
        assert!(taken < OUTPUT_BYTES && !tty.has_output_room());
        shown(&mut tty);
        assert!(tty.has_output_room());
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_its_end_is_still_heard() {
        let mut tty = Discipline::default();
        for _ in 0..3 * INPUT_BYTES {
            assert!(tty.input_room() > 0);
            tty.input(b'x');
        }
        tty.input(b'\n');
        assert_eq!(line(&mut tty).unwrap().len(), INPUT_BYTES);
        assert!(shown(&mut tty).len() <= ECHO_BYTES);
    }

    #[test]
    fn raw_input_waits_when_it_is_full() {
        let mut tty = raw();
        let mut count = 0;
        while tty.input_room() > 0 {
            tty.input(b'x');
            count += 1;
        }
        assert_eq!(count, INPUT_BYTES - 1);
    }

    proptest::proptest! {
        #[test]
        fn no_input_and_no_settings_make_it_grow_or_fail(
            steps in proptest::collection::vec(
                (proptest::prelude::any::<(u32, u32, u32, [u8; 19])>(), proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)),
                0..12,
            )
        ) {
            let mut tty = Discipline::default();
            for ((c_iflag, c_oflag, c_lflag, c_cc), bytes) in steps {
                tty.set_settings(Termios { c_iflag, c_oflag, c_lflag, c_cc, ..Termios::default() });
                for byte in &bytes {
                    if tty.input_room() > 0 {
                        tty.input(*byte);
                    }
                }
                tty.output(&bytes);
                proptest::prop_assert!(tty.input_len() <= INPUT_BYTES);
                proptest::prop_assert!(tty.output_len() <= ECHO_BYTES + TAB);
                tty.read(&mut [0; 7]);
            }
        }
    }
}
