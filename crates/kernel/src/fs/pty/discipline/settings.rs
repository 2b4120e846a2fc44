//! What a new terminal is set to, and where in `c_cc` its control characters are (termios(3)).

use lg_abi::Termios;
use lg_abi::raw::general as linux;

pub(super) const VINTR: usize = linux::VINTR as usize;
pub(super) const VQUIT: usize = linux::VQUIT as usize;
pub(super) const VERASE: usize = linux::VERASE as usize;
pub(super) const VKILL: usize = linux::VKILL as usize;
pub(super) const VEOF: usize = linux::VEOF as usize;
pub(super) const VTIME: usize = linux::VTIME as usize;
pub(super) const VMIN: usize = linux::VMIN as usize;
pub(super) const VSTART: usize = linux::VSTART as usize;
pub(super) const VSTOP: usize = linux::VSTOP as usize;
pub(super) const VSUSP: usize = linux::VSUSP as usize;
pub(super) const VEOL: usize = linux::VEOL as usize;
pub(super) const VREPRINT: usize = linux::VREPRINT as usize;
pub(super) const VWERASE: usize = linux::VWERASE as usize;
pub(super) const VLNEXT: usize = linux::VLNEXT as usize;
pub(super) const VEOL2: usize = linux::VEOL2 as usize;
const VDISCARD: usize = linux::VDISCARD as usize;

/// The control characters of a new terminal; the others are switched off.
const CHARACTERS: [(usize, u8); 13] = [
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
    (VDISCARD, 0x0f),
    (VWERASE, 0x17),
    (VLNEXT, 0x16),
];

/// Returns the settings of a new pseudo-terminal.
pub(super) fn initial() -> Termios {
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
    for (index, character) in CHARACTERS {
        settings.c_cc[index] = character;
    }
    settings
}
