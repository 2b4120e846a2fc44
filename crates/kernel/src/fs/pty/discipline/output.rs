//! Echo and what programs write, and where that takes the cursor.

use lg_abi::raw::general as linux;

use super::{Discipline, ECHO_BYTES, OUTPUT_BYTES, TAB};

impl Discipline {
    /// Shows a key: a control character as `^X` with ECHOCTL.
    pub(super) fn show(&mut self, byte: u8) {
        if self.local(linux::ECHOCTL) && is_control(byte) && byte != b'\t' {
            if self.output_bytes() < ECHO_BYTES {
                self.column += 2;
                self.put(b'^');
                self.put(byte ^ 0x40);
            }
        } else {
            self.show_plain(&[byte]);
        }
    }

    /// Shows bytes as a program would have written them.
    pub(super) fn show_plain(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.output_bytes() < ECHO_BYTES {
                self.process(byte);
            }
        }
    }

    /// Notes where the cursor is if the line begins here.
    pub(super) fn note_line_start(&mut self) {
        if self.line.is_empty() {
            self.line_column = self.column;
        }
    }

    /// Takes what programs write: as many bytes as there is room for.
    pub fn output(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for &byte in bytes {
            if !self.has_output_room() {
                break;
            }
            self.process(byte);
            taken += 1;
        }
        taken
    }

    /// Says whether programs can write.
    pub fn has_output_room(&self) -> bool {
        // A tab may become eight bytes.
        !self.stopped && self.output.len() + TAB <= OUTPUT_BYTES
    }

    /// Sends a byte to the other side, whatever is held back (TCIOFF, TCION).
    pub fn send(&mut self, byte: u8) {
        if self.output_bytes() < ECHO_BYTES {
            self.output.push_back(byte);
        }
    }

    /// Puts a byte into the output as the output modes say.
    fn process(&mut self, byte: u8) {
        if !self.output_flag(linux::OPOST) {
            self.put(byte);
            return;
        }
        match byte {
            b'\n' => {
                if self.output_flag(linux::ONLRET) {
                    self.column = 0;
                }
                if self.output_flag(linux::ONLCR) {
                    self.column = 0;
                    self.put(b'\r');
                }
                self.line_column = self.column;
                self.put(b'\n');
            }
            b'\r' if self.output_flag(linux::ONOCR) && self.column == 0 => {}
            b'\r' => {
                let becomes_newline = self.output_flag(linux::OCRNL);
                if !becomes_newline || self.output_flag(linux::ONLRET) {
                    (self.column, self.line_column) = (0, 0);
                }
                self.put(if becomes_newline { b'\n' } else { b'\r' });
            }
            b'\t' => self.process_tab(),
            b'\x08' => {
                self.column = self.column.saturating_sub(1);
                self.put(byte);
            }
            byte if is_control(byte) => self.put(byte),
            byte => {
                if !self.continues(byte) {
                    self.column = self.column.saturating_add(1);
                }
                self.put(if self.output_flag(linux::OLCUC) { to_upper(byte) } else { byte });
            }
        }
    }

    fn process_tab(&mut self) {
        let spaces = TAB - self.column % TAB;
        self.column = self.column.saturating_add(spaces);
        if self.settings.c_oflag & linux::TABDLY == linux::TAB3 {
            (0..spaces).for_each(|_| self.put(b' '));
        } else {
            self.put(b'\t');
        }
    }

    fn put(&mut self, byte: u8) {
        let to = if self.stopped { &mut self.held } else { &mut self.output };
        to.push_back(byte);
    }

    /// Says whether a byte continues a character of several (IUTF8).
    pub(super) fn continues(&self, byte: u8) -> bool {
        self.input_flag(linux::IUTF8) && byte & 0xc0 == 0x80
    }

    /// Moves output to `buf` and returns how much.
    pub fn take_output(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.output.len());
        for (to, byte) in buf.iter_mut().zip(self.output.drain(..count)) {
            *to = byte;
        }
        count
    }

    /// Bytes of output that can be taken.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Bytes of output that were not taken, those that are held back included.
    pub(super) fn output_bytes(&self) -> usize {
        self.output.len() + self.held.len()
    }

    /// Throws away what was written and not taken.
    pub fn flush_output(&mut self) {
        self.output.clear();
        self.held.clear();
    }

    /// Says whether output is held back.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Lets output go on, unless a program holds it back.
    pub(super) fn start(&mut self) {
        if !self.stopped_by_program {
            self.stopped = false;
            self.output.append(&mut self.held);
        }
    }

    /// Holds output back (TCOOFF) until [`Discipline::start_by_program`].
    pub fn stop_by_program(&mut self) {
        self.stopped_by_program = true;
        self.stop();
    }

    /// Lets output go on that a program holds back (TCOON).
    pub fn start_by_program(&mut self) {
        if std::mem::take(&mut self.stopped_by_program) {
            self.start();
        }
    }
}

pub(super) fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// Upper case, of Latin-1 as well.
fn to_upper(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | 0xdf..=0xf6 | 0xf8..=0xff => byte - 0x20,
        byte => byte,
    }
}
