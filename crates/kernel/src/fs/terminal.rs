//! The terminal of a sandbox: that of the host which its standard streams are connected to.
//!
//! Settings and sizes are the host terminal's own (ioctl_tty(2)). Process groups and sessions are the
//! sandbox's: they are kept here and mean nothing to the host.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use lg_abi::raw::ioctl::{
    FIONREAD, TCFLSH, TCGETS, TCSBRK, TCSBRKP, TCSETS, TCSETSF, TCSETSW, TCXONC, TIOCGPGRP, TIOCGSID,
    TIOCGWINSZ, TIOCNOTTY, TIOCOUTQ, TIOCSCTTY, TIOCSPGRP, TIOCSWINSZ,
};
use lg_abi::zerocopy::IntoBytes;
use lg_abi::{Errno, Termios, Winsize};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, QueueSelector, SpecialCodeIndex,
};

use super::host::to_errno;
use crate::mm::UserMemory;
use crate::vfs::{FsContext, ProcessFacts};

/// The control characters of a terminal in the order of `c_cc` (asm-generic/termbits.h).
const CONTROL_CHARACTERS: [SpecialCodeIndex; 17] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VTIME,
    SpecialCodeIndex::VMIN,
    SpecialCodeIndex::VSWTC,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VEOL,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
    SpecialCodeIndex::VEOL2,
];

/// What all descriptors of the terminal share.
#[derive(Default, Debug)]
pub struct Terminal {
    /// The foreground process group of the sandbox; 0 until one is set.
    foreground: Cell<u32>,
}

impl Terminal {
    /// Returns a terminal without a foreground process group.
    pub fn new() -> Rc<Terminal> {
        Rc::default()
    }

    /// Returns the foreground process group: who the terminal's signals are for. 0: not set yet.
    pub fn foreground(&self) -> u32 {
        self.foreground.get()
    }

    /// Does an ioctl(2) on a host terminal.
    pub fn ioctl(
        &self,
        cx: &FsContext<'_>,
        host: &OwnedFd,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        match request {
            TCGETS => user.write(argument, get_settings(host)?.as_bytes())?,
            TCSETS => set_settings(host, OptionalActions::Now, user, argument)?,
            TCSETSW => set_settings(host, OptionalActions::Drain, user, argument)?,
            TCSETSF => set_settings(host, OptionalActions::Flush, user, argument)?,
            TIOCGWINSZ => user.write(argument, get_size(host)?.as_bytes())?,
            TIOCSWINSZ => set_size(host, user, argument)?,
            TIOCGPGRP => {
                let group = match self.foreground.get() {
                    0 => caller(cx).ok_or(Errno::ENOTTY)?.pgrp,
                    group => group,
                };
                user.write(argument, &group.to_ne_bytes())?;
            }
            TIOCSPGRP => {
                let mut group = [0; 4];
                user.read(argument, &mut group)?;
                self.set_foreground(cx, u32::from_ne_bytes(group))?;
            }
            TIOCGSID => {
                let session = caller(cx).ok_or(Errno::ENOTTY)?.session;
                user.write(argument, &session.to_ne_bytes())?;
            }
            TIOCSCTTY | TIOCNOTTY => {}
            FIONREAD => {
                let available = rustix::io::ioctl_fionread(host).map_err(to_errno)?;
                let available = i32::try_from(available).unwrap_or(i32::MAX);
                user.write(argument, &available.to_ne_bytes())?;
            }
            TIOCOUTQ => user.write(argument, &0i32.to_ne_bytes())?,
            TCFLSH => {
                let queue = match argument {
                    0 => QueueSelector::IFlush,
                    1 => QueueSelector::OFlush,
                    2 => QueueSelector::IOFlush,
                    _ => return Err(Errno::EINVAL),
                };
                rustix::termios::tcflush(host, queue).map_err(to_errno)?;
            }
            // A break means nothing to a pseudo-terminal, and output is not held back here.
            TCSBRK | TCSBRKP | TCXONC => {}
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    fn set_foreground(&self, cx: &FsContext<'_>, group: u32) -> Result<(), Errno> {
        let session = caller(cx).ok_or(Errno::ENOTTY)?.session;
        let members = |pid| cx.procs.process(pid).filter(|process| process.pgrp == group);
        let member = cx.procs.pids().into_iter().find_map(members).ok_or(Errno::ESRCH)?;
        if member.session != session {
            return Err(Errno::EPERM);
        }
        self.foreground.set(group);
        Ok(())
    }
}

fn caller(cx: &FsContext<'_>) -> Option<ProcessFacts> {
    cx.procs.process(cx.procs.pid_of(cx.tid.0)?)
}

fn get_settings(host: &OwnedFd) -> Result<Termios, Errno> {
    let settings = rustix::termios::tcgetattr(host).map_err(to_errno)?;
    let mut termios = Termios {
        c_iflag: settings.input_modes.bits(),
        c_oflag: settings.output_modes.bits(),
        c_cflag: settings.control_modes.bits(),
        c_lflag: settings.local_modes.bits(),
        c_line: settings.line_discipline,
        ..Termios::default()
    };
    for (to, index) in termios.c_cc.iter_mut().zip(CONTROL_CHARACTERS) {
        *to = settings.special_codes[index];
    }
    Ok(termios)
}

fn set_settings(
    host: &OwnedFd,
    when: OptionalActions,
    user: &UserMemory,
    argument: u64,
) -> Result<(), Errno> {
    let mut wanted = Termios::default();
    user.read(argument, wanted.as_mut_bytes())?;
    let mut settings = rustix::termios::tcgetattr(host).map_err(to_errno)?;
    settings.input_modes = InputModes::from_bits_retain(wanted.c_iflag);
    settings.output_modes = OutputModes::from_bits_retain(wanted.c_oflag);
    settings.local_modes = LocalModes::from_bits_retain(wanted.c_lflag);
    // The line speed stays the host's.
    let speed = lg_abi::raw::general::CBAUD | lg_abi::raw::general::CIBAUD;
    let control = settings.control_modes.bits() & speed | wanted.c_cflag & !speed;
    settings.control_modes = ControlModes::from_bits_retain(control);
    for (from, index) in wanted.c_cc.iter().zip(CONTROL_CHARACTERS) {
        settings.special_codes[index] = *from;
    }
    rustix::termios::tcsetattr(host, when, &settings).map_err(to_errno)
}

fn get_size(host: &OwnedFd) -> Result<Winsize, Errno> {
    let size = rustix::termios::tcgetwinsize(host).map_err(to_errno)?;
    Ok(Winsize {
        ws_row: size.ws_row,
        ws_col: size.ws_col,
        ws_xpixel: size.ws_xpixel,
        ws_ypixel: size.ws_ypixel,
    })
}

fn set_size(host: &OwnedFd, user: &UserMemory, argument: u64) -> Result<(), Errno> {
    let mut size = Winsize::default();
    user.read(argument, size.as_mut_bytes())?;
    let size = rustix::termios::Winsize {
        ws_row: size.ws_row,
        ws_col: size.ws_col,
        ws_xpixel: size.ws_xpixel,
        ws_ypixel: size.ws_ypixel,
    };
    rustix::termios::tcsetwinsize(host, size).map_err(to_errno)
}
