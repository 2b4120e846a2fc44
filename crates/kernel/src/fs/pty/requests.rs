//! ioctl_tty(2) on pseudo-terminals.

use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::raw::ioctl::{
    FIONREAD, TCFLSH, TCGETS, TCGETS2, TCSBRK, TCSBRKP, TCSETS, TCSETS2, TCSETSF, TCSETSF2, TCSETSW,
    TCSETSW2, TCXONC, TIOCEXCL, TIOCGETD, TIOCGEXCL, TIOCGPGRP, TIOCGPKT, TIOCGPTLCK, TIOCGPTN, TIOCGSID,
    TIOCGWINSZ, TIOCNOTTY, TIOCNXCL, TIOCOUTQ, TIOCPKT, TIOCSCTTY, TIOCSETD, TIOCSPGRP, TIOCSPTLCK, TIOCSTI,
    TIOCSWINSZ,
};
use lg_abi::zerocopy::{FromBytes, IntoBytes};
use lg_abi::{Errno, Termios, Termios2, Winsize};

use super::Pty;
use super::control::caller;
use crate::mm::UserMemory;
use crate::vfs::FsContext;
use crate::vfs::permission::has_capability;

/// What a master in packet mode is told (ioctl_tty(2), TIOCPKT).
pub(super) const TIOCPKT_FLUSHREAD: u8 = 1;
pub(super) const TIOCPKT_FLUSHWRITE: u8 = 2;
pub(super) const TIOCPKT_STOP: u8 = 4;
pub(super) const TIOCPKT_START: u8 = 8;
const TIOCPKT_NOSTOP: u8 = 16;
const TIOCPKT_DOSTOP: u8 = 32;
const TIOCPKT_IOCTL: u8 = 64;
/// Of each of these only the last is told.
pub(super) const PACKET_OPPOSITES: [(u8, u8); 2] =
    [(TIOCPKT_STOP, TIOCPKT_START), (TIOCPKT_NOSTOP, TIOCPKT_DOSTOP)];

/// The speeds that `c_cflag` names, in bits a second: B0 to B38400, then B57600 to B4000000.
const SPEEDS: [u32; 16] =
    [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19_200, 38_400];
const HIGH_SPEEDS: [u32; 15] = [
    57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
    2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

/// Which side asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Master,
    Slave,
}

fn get<T: FromBytes + IntoBytes>(user: &UserMemory, at: u64) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    user.read(at, value.as_mut_bytes())?;
    Ok(value)
}

/// A request on the master.
pub fn master(
    pty: &Rc<Pty>,
    cx: &FsContext<'_>,
    user: &UserMemory,
    request: u32,
    argument: u64,
) -> Result<u64, Errno> {
    match request {
        TIOCGPTN => user.write(argument, &pty.index.to_ne_bytes())?,
        TIOCSPTLCK => pty.locked.set(get::<i32>(user, argument)? != 0),
        TIOCGPTLCK => user.write(argument, &i32::from(pty.locked.get()).to_ne_bytes())?,
        TIOCPKT => {
            let on = get::<i32>(user, argument)? != 0;
            pty.packet.set(match (on, pty.packet.get()) {
                (true, told) => Some(told.unwrap_or(0)),
                (false, _) => None,
            });
        }
        TIOCGPKT => user.write(argument, &i32::from(pty.packet.get().is_some()).to_ne_bytes())?,
        FIONREAD => {
            let count = pty.discipline.borrow().output_len() as i32;
            user.write(argument, &count.to_ne_bytes())?;
        }
        request => return common(pty, Side::Master, cx, user, request, argument),
    }
    Ok(0)
}

/// A request on the slave.
pub fn slave(
    pty: &Rc<Pty>,
    cx: &FsContext<'_>,
    user: &UserMemory,
    request: u32,
    argument: u64,
) -> Result<u64, Errno> {
    if pty.is_hung_up() {
        return Err(if request == TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
    }
    match request {
        FIONREAD => {
            let count = pty.discipline.borrow().readable_len() as i32;
            user.write(argument, &count.to_ne_bytes())?;
            Ok(0)
        }
        request => common(pty, Side::Slave, cx, user, request, argument),
    }
}

fn common(
    pty: &Rc<Pty>,
    side: Side,
    cx: &FsContext<'_>,
    user: &UserMemory,
    request: u32,
    argument: u64,
) -> Result<u64, Errno> {
    match request {
        TCGETS => user.write(argument, pty.discipline.borrow().settings().as_bytes())?,
        TCGETS2 => user.write(argument, settings2(pty.discipline.borrow().settings()).as_bytes())?,
        TCSETS | TCSETSW | TCSETSF => {
            pty.check_not_background(cx)?;
            set_settings(pty, get(user, argument)?, request == TCSETSF);
        }
        TCSETS2 | TCSETSW2 | TCSETSF2 => {
            pty.check_not_background(cx)?;
            let Termios2 { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc, .. } = get(user, argument)?;
            let settings = Termios { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc };
            set_settings(pty, settings, request == TCSETSF2);
        }
        TIOCGWINSZ => user.write(argument, pty.size.get().as_bytes())?,
        TIOCSWINSZ => pty.set_size(get::<Winsize>(user, argument)?),
        TIOCGPGRP => {
            if side == Side::Slave {
                pty.check_controls_caller(cx)?;
            }
            user.write(argument, &pty.foreground.get().to_ne_bytes())?;
        }
        TIOCSPGRP => pty.set_foreground(cx, get::<i32>(user, argument)?)?,
        TIOCGSID => {
            if side == Side::Slave {
                pty.check_controls_caller(cx)?;
            }
            match pty.session.get() {
                0 => return Err(Errno::ENOTTY),
                session => user.write(argument, &session.to_ne_bytes())?,
            }
        }
        TIOCSCTTY => pty.set_controlling(cx, argument == 1)?,
        TIOCNOTTY => pty.give_up(cx)?,
        TIOCOUTQ => user.write(argument, &0i32.to_ne_bytes())?,
        TCFLSH => {
            pty.check_not_background(cx)?;
            flush(pty, argument)?;
        }
        TCXONC => {
            pty.check_not_background(cx)?;
            hold(pty, argument)?;
        }
        // A break means nothing to a pseudo-terminal, and its output is at the master already.
        TCSBRK | TCSBRKP => pty.check_not_background(cx)?,
        // Only the slave can be opened again.
        TIOCEXCL | TIOCNXCL if side == Side::Master => {}
        TIOCGEXCL if side == Side::Master => user.write(argument, &0i32.to_ne_bytes())?,
        TIOCEXCL => pty.exclusive.set(true),
        TIOCNXCL => pty.exclusive.set(false),
        TIOCGEXCL => user.write(argument, &i32::from(pty.exclusive.get()).to_ne_bytes())?,
        TIOCGETD => user.write(argument, &0i32.to_ne_bytes())?,
        TIOCSETD if get::<i32>(user, argument)? == 0 => {}
        TIOCSETD => return Err(Errno::EINVAL),
        TIOCSTI => {
            let is_own = caller(cx).is_some_and(|process| pty.controls(&process));
            if !is_own && !has_capability(cx.creds, linux::CAP_SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            pty.type_in(&[get::<u8>(user, argument)?]);
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
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

fn set_settings(pty: &Pty, wanted: Termios, flush_input: bool) {
    // A pseudo-terminal has eight bits, no parity, and a receiver that is always on.
    let fixed = linux::CSIZE | linux::PARENB | linux::ADDRB;
    let wanted = Termios { c_cflag: wanted.c_cflag & !fixed | linux::CS8 | linux::CREAD, ..wanted };
    let mut discipline = pty.discipline.borrow_mut();
    let before = *discipline.settings();
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

fn flush(pty: &Pty, which: u64) -> Result<(), Errno> {
    let (input, output) = match which {
        0 => (true, false),
        1 => (false, true),
        2 => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    let mut discipline = pty.discipline.borrow_mut();
    if input {
        discipline.flush_input();
        pty.tell_packet(TIOCPKT_FLUSHREAD);
    }
    if output {
        discipline.flush_output();
        pty.tell_packet(TIOCPKT_FLUSHWRITE);
    }
    drop(discipline);
    pty.wake();
    Ok(())
}

/// TCXONC: holds output back or lets it go on; or sends the keys that do so at the other side.
fn hold(pty: &Pty, what: u64) -> Result<(), Errno> {
    let mut discipline = pty.discipline.borrow_mut();
    let before = discipline.is_stopped();
    let character = |index: u32| discipline.settings().c_cc[index as usize];
    match what {
        0 => discipline.stop_by_program(),
        1 => discipline.start_by_program(),
        2 | 3 => {
            let key = character(if what == 2 { linux::VSTOP } else { linux::VSTART });
            if key != 0 {
                discipline.send(key);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    let after = discipline.is_stopped();
    drop(discipline);
    pty.tell_of_stop(before, after);
    pty.wake();
    Ok(())
}
