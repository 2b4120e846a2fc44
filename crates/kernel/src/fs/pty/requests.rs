//! ioctl_tty(2) on pseudo-terminals.

use std::rc::Rc;

use lg_abi::raw::general as linux;
use lg_abi::raw::ioctl::{
    FIONREAD, TCFLSH, TCSBRK, TCSBRKP, TCXONC, TIOCEXCL, TIOCGETD, TIOCGEXCL, TIOCGPGRP, TIOCGPKT,
    TIOCGPTLCK, TIOCGPTN, TIOCGSID, TIOCGWINSZ, TIOCNOTTY, TIOCNXCL, TIOCOUTQ, TIOCPKT, TIOCSCTTY, TIOCSETD,
    TIOCSPGRP, TIOCSPTLCK, TIOCSTI, TIOCSWINSZ,
};
use lg_abi::zerocopy::{FromBytes, IntoBytes};
use lg_abi::{Errno, Winsize};

use super::control::caller;
use super::{Pty, settings};
use crate::mm::UserMemory;
use crate::vfs::FsContext;
use crate::vfs::permission::has_capability;

/// What a master in packet mode is told (ioctl_tty(2), TIOCPKT).
pub(super) const TIOCPKT_FLUSHREAD: u8 = 1;
pub(super) const TIOCPKT_FLUSHWRITE: u8 = 2;
pub(super) const TIOCPKT_STOP: u8 = 4;
pub(super) const TIOCPKT_START: u8 = 8;
pub(super) const TIOCPKT_NOSTOP: u8 = 16;
pub(super) const TIOCPKT_DOSTOP: u8 = 32;
pub(super) const TIOCPKT_IOCTL: u8 = 64;
/// Of each of these only the last is told.
pub(super) const PACKET_OPPOSITES: [(u8, u8); 2] =
    [(TIOCPKT_STOP, TIOCPKT_START), (TIOCPKT_NOSTOP, TIOCPKT_DOSTOP)];

/// Which side asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Master,
    Slave,
}

pub(super) fn get<T: FromBytes + IntoBytes>(user: &UserMemory, at: u64) -> Result<T, Errno> {
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
        _ => return settings::request(pty, cx, user, request, argument),
    }
    Ok(0)
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
