//! Keys: translation, signals, flow control, ends of lines.

use lg_abi::raw::general as linux;

use super::settings::{
    VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT, VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VWERASE,
};
use super::{Discipline, INPUT_BYTES};

/// A control character that is switched off.
const DISABLED: u8 = 0;
/// What PARMRK doubles.
const MARK: u8 = 0xff;

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

impl Discipline {
    fn is(&self, index: usize, byte: u8) -> bool {
        byte != DISABLED && self.settings.c_cc[index] == byte
    }

    fn extended(&self, index: usize, byte: u8) -> bool {
        self.local(linux::IEXTEN) && self.is(index, byte)
    }

    /// Takes a byte from outside. Call it only while there is room.
    pub fn input(&mut self, byte: u8) -> Option<Key> {
        let mut byte = if self.input_flag(linux::ISTRIP) { byte & 0x7f } else { byte };
        if self.input_flag(linux::IUCLC) && self.local(linux::IEXTEN) {
            byte = to_lower(byte);
        }
        if self.local(linux::EXTPROC) {
            self.push(byte);
            return None;
        }
        if std::mem::take(&mut self.literal) {
            self.take(byte);
            return None;
        }
        if self.is_flow_control(byte) {
            return None;
        }
        if let Some(key) = self.signal_of(byte) {
            self.interrupt(byte);
            return Some(key);
        }
        if self.input_flag(linux::IXON) && self.input_flag(linux::IXANY) {
            self.start();
        }
        let byte = match byte {
            b'\r' if self.input_flag(linux::IGNCR) => return None,
            b'\r' if self.input_flag(linux::ICRNL) => b'\n',
            b'\n' if self.input_flag(linux::INLCR) => b'\r',
            byte => byte,
        };
        match self.is_canonical() {
            true => self.edit(byte),
            false => self.take(byte),
        }
        None
    }

    /// Holds output back or lets it go on where the key is one of those that do.
    fn is_flow_control(&mut self, byte: u8) -> bool {
        if !self.input_flag(linux::IXON) {
            return false;
        }
        if self.is(VSTART, byte) {
            self.start();
        } else if self.is(VSTOP, byte) {
            self.stop();
        } else {
            return false;
        }
        true
    }

    fn signal_of(&self, byte: u8) -> Option<Key> {
        let keys = [(VINTR, Key::Interrupt), (VQUIT, Key::Quit), (VSUSP, Key::Suspend)];
        let key = keys.into_iter().find(|(index, _)| self.is(*index, byte))?.1;
        self.local(linux::ISIG).then_some(key)
    }

    /// Does what a key of a signal does here: it throws away what waits, and lets output go on.
    fn interrupt(&mut self, byte: u8) {
        if !self.local(linux::NOFLSH) {
            self.flush_input();
            self.flush_output();
        }
        if self.input_flag(linux::IXON) {
            self.start();
        }
        if self.local(linux::ECHO) {
            self.show(byte);
        }
    }

    /// Canonical mode: editing keys, ends of lines, and everything else.
    fn edit(&mut self, byte: u8) {
        if self.is(VERASE, byte) {
            self.erase_character();
        } else if self.is(VKILL, byte) {
            self.kill(byte);
        } else if self.extended(VWERASE, byte) {
            self.erase_word();
        } else if self.extended(VLNEXT, byte) {
            self.literal = true;
            self.show_literal();
        } else if self.extended(VREPRINT, byte) && self.local(linux::ECHO) {
            self.reprint(byte);
        } else if byte == b'\n' {
            if self.local(linux::ECHO) || self.local(linux::ECHONL) {
                self.show_plain(b"\n");
            }
            self.line.push(byte);
            self.end_line();
        } else if self.is(VEOF, byte) {
            self.end_line();
        } else if self.is(VEOL, byte) || self.extended(VEOL2, byte) {
            if self.local(linux::ECHO) {
                self.note_line_start();
                self.show(byte);
            }
            self.mark(byte);
            self.line.push(byte);
            self.end_line();
        } else {
            self.take(byte);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.lines.push_back(line.into());
    }

    /// Takes a byte as it is.
    fn take(&mut self, byte: u8) {
        if self.local(linux::ECHO) {
            self.finish_erasing();
            self.note_line_start();
            self.show(byte);
        }
        self.mark(byte);
        self.push(byte);
    }

    fn mark(&mut self, byte: u8) {
        if byte == MARK && self.input_flag(linux::PARMRK) {
            self.push(byte);
        }
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
}

/// Lower case, of Latin-1 as well.
fn to_lower(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte + 0x20,
        byte => byte,
    }
}
