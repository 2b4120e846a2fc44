//! Keys that erase, and how that is shown: ECHOE, ECHOPRT, ECHOK, ECHOKE.

use lg_abi::raw::general as linux;

use super::output::is_control;
use super::settings::VERASE;
use super::{Discipline, TAB};

impl Discipline {
    pub(super) fn erase_character(&mut self) {
        if let Some(character) = self.pop_character() {
            self.show_erased(&character, Erasing::Character);
        }
        self.finish_if_empty();
    }

    pub(super) fn erase_word(&mut self) {
        let mut seen = false;
        while let Some(first) = self.last_character().map(|start| self.line[start]) {
            if seen && !is_word(first) {
                break;
            }
            seen |= is_word(first);
            if let Some(character) = self.pop_character() {
                self.show_erased(&character, Erasing::More);
            }
        }
        self.finish_if_empty();
    }

    pub(super) fn kill(&mut self, byte: u8) {
        if self.line.is_empty() {
            return;
        }
        let wipes = self.local(linux::ECHOK) && self.local(linux::ECHOKE) && self.local(linux::ECHOE);
        if !self.local(linux::ECHO) {
            self.line.clear();
        } else if wipes {
            while let Some(character) = self.pop_character() {
                self.show_erased(&character, Erasing::More);
            }
            self.finish_if_empty();
        } else {
            self.line.clear();
            self.finish_erasing();
            self.show(byte);
            if self.local(linux::ECHOK) {
                self.show_plain(b"\n");
            }
        }
    }

    pub(super) fn reprint(&mut self, byte: u8) {
        self.finish_erasing();
        self.show(byte);
        self.show_plain(b"\n");
        for byte in self.line.clone() {
            self.show(byte);
        }
    }

    /// Shows that the next key is taken as it is.
    pub(super) fn show_literal(&mut self) {
        if self.local(linux::ECHO) {
            self.finish_erasing();
            if self.local(linux::ECHOCTL) {
                self.show_plain(b"^\x08");
            }
        }
    }

    /// Ends what ECHOPRT shows of erased characters.
    pub(super) fn finish_erasing(&mut self) {
        if std::mem::take(&mut self.erasing) {
            self.show_plain(b"/");
        }
    }

    fn finish_if_empty(&mut self) {
        if self.line.is_empty() && self.local(linux::ECHO) {
            self.finish_erasing();
        }
    }

    /// Returns where in the line its last character begins: of several bytes with IUTF8. `None` where there is no
    /// whole character.
    fn last_character(&self) -> Option<usize> {
        let start = self.line.iter().rposition(|byte| !self.continues(*byte))?;
        Some(start)
    }

    fn pop_character(&mut self) -> Option<Vec<u8>> {
        let start = self.last_character()?;
        Some(self.line.split_off(start))
    }

    /// Shows that a character is gone from the end of the line.
    fn show_erased(&mut self, character: &[u8], erasing: Erasing) {
        if !self.local(linux::ECHO) {
            return;
        }
        let first = character[0];
        if self.local(linux::ECHOPRT) {
            if !std::mem::replace(&mut self.erasing, true) {
                self.show_plain(b"\\");
            }
            self.show(first);
            self.show_plain(&character[1..]);
        } else if erasing == Erasing::Character && !self.local(linux::ECHOE) {
            self.show(self.settings.c_cc[VERASE]);
        } else if first == b'\t' {
            let back = TAB - self.columns_since_tab() % TAB;
            self.show_plain(&[0x08; TAB][..back]);
        } else {
            if is_control(first) && self.local(linux::ECHOCTL) {
                self.show_plain(b"\x08 \x08");
            }
            if !is_control(first) || self.local(linux::ECHOCTL) {
                self.show_plain(b"\x08 \x08");
            }
        }
    }

    /// Returns how many columns the line takes behind its last tab, or behind the start of the terminal's line
    /// where it has none.
    fn columns_since_tab(&self) -> usize {
        let mut columns = 0;
        for &byte in self.line.iter().rev() {
            match byte {
                b'\t' => return columns,
                byte if is_control(byte) => columns += if self.local(linux::ECHOCTL) { 2 } else { 0 },
                byte if self.continues(byte) => {}
                _ => columns += 1,
            }
        }
        columns + self.line_column
    }
}

/// What a key erases.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Erasing {
    Character,
    /// A word or the line.
    More,
}

/// Says whether a character that begins so belongs to a word: letters, of Latin-1 as well, digits and `_`.
fn is_word(first: u8) -> bool {
    first.is_ascii_alphanumeric() || first == b'_' || first >= 0xc0 && !matches!(first, 0xd7 | 0xf7)
}
