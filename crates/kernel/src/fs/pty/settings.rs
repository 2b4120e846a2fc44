//! The settings of a pseudo-terminal (termios(3)) in the forms in which programs ask for them.

use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::raw::ioctl::{
    TCGETA, TCGETS, TCGETS2, TCSETA, TCSETAF, TCSETAW, TCSETS, TCSETS2, TCSETSF, TCSETSF2, TCSETSW, TCSETSW2,
    TIOCGLCKTRMIOS, TIOCSLCKTRMIOS,
};
use lg_abi::zerocopy::IntoBytes;
use lg_abi::{Errno, Termio, Termios, Termios2};

use super::Pty;
use super::requests::{TIOCPKT_DOSTOP, TIOCPKT_IOCTL, TIOCPKT_NOSTOP, get};
use crate::mm::UserMemory;
use crate::vfs::FsContext;
use crate::vfs::permission::has_capability;

/// The speeds that `c_cflag` names, in bits a second: B0 to B38400, then B57600 to B4000000.
const SPEEDS: [u32; 16] =
    [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19_200, 38_400];
const HIGH_SPEEDS: [u32; 15] = [
    57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
    2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

/// A request about settings.
///
/// Errors: ENOTTY for others, EIO and signals for a process in the background, EPERM, EFAULT.
pub fn request(
    pty: &Rc<Pty>,
    cx: &FsContext<'_>,
    user: &UserMemory,
    request: u32,
    argument: u64,
) -> Result<u64, Errno> {
    let current = *pty.discipline.borrow().settings();
    match request {
        TCGETS => user.write(argument, current.as_bytes())?,
        TCGETS2 => user.write(argument, settings2(&current).as_bytes())?,
        TCGETA => user.write(argument, to_termio(&current).as_bytes())?,
        TCSETS | TCSETSW | TCSETSF => {
            pty.check_not_background(cx)?;
            set(pty, get(user, argument)?, request == TCSETSF);
        }
        TCSETS2 | TCSETSW2 | TCSETSF2 => {
            pty.check_not_background(cx)?;
            let Termios2 { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc, .. } = get(user, argument)?;
            let settings = Termios { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc };
            set(pty, settings, request == TCSETSF2);
        }
        TCSETA | TCSETAW | TCSETAF => {
            pty.check_not_background(cx)?;
            set(pty, from_termio(&get(user, argument)?, &current), request == TCSETAF);
        }
        TIOCGLCKTRMIOS => user.write(argument, pty.locked_settings.get().as_bytes())?,
        TIOCSLCKTRMIOS if !has_capability(cx.creds, linux::CAP_SYS_ADMIN) => return Err(Errno::EPERM),
        TIOCSLCKTRMIOS => pty.locked_settings.set(get(user, argument)?),
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

/// Returns the settings as System V has them: the lower halves of the flags, and the first of the keys.
fn to_termio(settings: &Termios) -> Termio {
    let mut keys = [0; 8];
    keys.copy_from_slice(&settings.c_cc[..8]);
    Termio {
        c_iflag: settings.c_iflag as u16,
        c_oflag: settings.c_oflag as u16,
        c_cflag: settings.c_cflag as u16,
        c_lflag: settings.c_lflag as u16,
        c_line: settings.c_line,
        c_cc: keys,
        pad: 0,
    }
}

/// Returns settings of System V, with what they do not say as it is.
fn from_termio(wanted: &Termio, current: &Termios) -> Termios {
    let flags = |current: u32, wanted: u16| current & !0xffff | u32::from(wanted);
    let mut c_cc = current.c_cc;
    c_cc[..8].copy_from_slice(&wanted.c_cc);
    Termios {
        c_iflag: flags(current.c_iflag, wanted.c_iflag),
        c_oflag: flags(current.c_oflag, wanted.c_oflag),
        c_cflag: flags(current.c_cflag, wanted.c_cflag),
        c_lflag: flags(current.c_lflag, wanted.c_lflag),
        c_line: wanted.c_line,
        c_cc,
    }
}

/// Returns the settings that are wanted, but for those that are locked: they stay (TIOCSLCKTRMIOS, ioctl_tty(2)).
fn with_locked(wanted: Termios, current: &Termios, locked: &Termios) -> Termios {
    let flags = |wanted: u32, current: u32, locked: u32| current & locked | wanted & !locked;
    let mut c_cc = wanted.c_cc;
    for ((key, current), locked) in c_cc.iter_mut().zip(current.c_cc).zip(locked.c_cc) {
        if locked != 0 {
            *key = current;
        }
    }
    Termios {
        c_iflag: flags(wanted.c_iflag, current.c_iflag, locked.c_iflag),
        c_oflag: flags(wanted.c_oflag, current.c_oflag, locked.c_oflag),
        c_cflag: flags(wanted.c_cflag, current.c_cflag, locked.c_cflag),
        c_lflag: flags(wanted.c_lflag, current.c_lflag, locked.c_lflag),
        c_line: if locked.c_line == 0 { wanted.c_line } else { current.c_line },
        c_cc,
    }
}

fn settings2(settings: &Termios) -> Termios2 {
    let Termios { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc } = *settings;
    let c_ospeed = speed(c_cflag & linux::CBAUD);
    // Input is as fast as output where it has no speed of its own.
    let c_ispeed = match (c_cflag & linux::CIBAUD) >> linux::IBSHIFT {
        0 => c_ospeed,
        own => speed(own),
    };
    Termios2 { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc, c_ispeed, c_ospeed }
}

/// Returns what a CBAUD value means, in bits a second. One that is given as a number (BOTHER) is not kept, as
/// nothing is ever sent at it.
fn speed(named: u32) -> u32 {
    match named.checked_sub(linux::BOTHER) {
        None => SPEEDS[named as usize % SPEEDS.len()],
        Some(high) => {
            (high as usize).checked_sub(1).map_or(0, |index| HIGH_SPEEDS[index % HIGH_SPEEDS.len()])
        }
    }
}

/// Says whether output is held back and let go on by Ctrl-S and Ctrl-Q.
fn has_usual_flow_control(settings: &Termios) -> bool {
    let key = |index: u32| settings.c_cc[index as usize];
    settings.c_iflag & linux::IXON != 0 && key(linux::VSTOP) == 0x13 && key(linux::VSTART) == 0x11
}

fn set(pty: &Pty, wanted: Termios, flush_input: bool) {
    let mut discipline = pty.discipline.borrow_mut();
    let before = *discipline.settings();
    let wanted = with_locked(wanted, &before, &pty.locked_settings.get());
    // A pseudo-terminal has eight bits, no parity, and a receiver that is always on.
    let fixed = linux::CSIZE | linux::PARENB | linux::ADDRB;
    let wanted = Termios { c_cflag: wanted.c_cflag & !fixed | linux::CS8 | linux::CREAD, ..wanted };
    let was_stopped = discipline.is_stopped();
    if flush_input {
        discipline.flush_input();
    }
    discipline.set_settings(wanted);
    let is_stopped = discipline.is_stopped();
    drop(discipline);
    pty.tell_of_stop(was_stopped, is_stopped);
    if has_usual_flow_control(&before) != has_usual_flow_control(&wanted) {
        pty.tell_packet(if has_usual_flow_control(&wanted) { TIOCPKT_DOSTOP } else { TIOCPKT_NOSTOP });
    }
    if (before.c_lflag | wanted.c_lflag) & linux::EXTPROC != 0 {
        pty.tell_packet(TIOCPKT_IOCTL);
    }
    pty.wake();
}
