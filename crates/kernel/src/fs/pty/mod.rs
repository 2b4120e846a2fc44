//! Pseudo-terminals (pty(7)): pairs of a master, which a program holds that is a terminal to others, and a slave,
//! which is the terminal of those others.
//!
//! | module | subject |
//! |---|---|
//! | [`discipline`] | what happens to the bytes between the two |
//! | [`control`] | sessions, foreground groups, and who may read and write |
//! | [`requests`] | ioctl_tty(2) |
//! | [`settings`] | its part about termios(3) |
//! | [`devpts`] | `/dev/pts` |

pub mod control;
pub mod devpts;
pub mod discipline;
mod requests;
mod settings;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};

use lg_abi::raw::general::{CAP_SYS_ADMIN, NOFLSH, O_NOCTTY};
use lg_abi::zerocopy::FromZeros as _;
use lg_abi::{Errno, Signal, Termios, Winsize};

use self::discipline::{Discipline, Key};
use crate::mm::UserMemory;
use crate::task::{Stop, WaitQueue};
use crate::vfs::permission::has_capability;
use crate::vfs::{Attr, File, FileDescription, Final, FsContext, FsState, Readiness, make_dev};

/// The most pseudo-terminals there can be. Each takes up to 16 KiB for what waits in it, and some 250 KiB at worst, when
/// thousands of lines of one byte do.
const MAX_PTYS: u32 = 256;
/// The device number of the slaves (devices.txt).
const SLAVE_MAJOR: u32 = 136;
/// The group of terminals, as Debian numbers it.
const TTY_GROUP: u32 = 5;

/// Whom a terminal sends a signal to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recipient {
    /// One process.
    Process(u32),
    /// All of a process group.
    Group(u32),
}

/// Signals that terminals want sent, until the kernel does.
pub type PostedSignals = Rc<RefCell<Vec<(Recipient, Signal)>>>;

/// Notes a signal for a process group; there is none with the number 0.
fn post_to_group(posted: &PostedSignals, group: u32, signal: Signal) {
    if group != 0 {
        posted.borrow_mut().push((Recipient::Group(group), signal));
    }
}

/// The foreground groups of sessions that have lost their terminal while their leader lives, by session. The
/// leader's end hangs them up.
type LostForegrounds = Rc<RefCell<BTreeMap<u32, u32>>>;

/// All pseudo-terminals of a sandbox.
#[derive(Default)]
pub struct Ptys {
    pairs: RefCell<BTreeMap<u32, Weak<Pty>>>,
    posted: PostedSignals,
    lost_foregrounds: LostForegrounds,
}

impl Ptys {
    /// Makes a pair that nobody has open.
    ///
    /// Errors: ENOSPC when there are too many.
    pub fn create(&self, cx: &FsContext<'_>) -> Result<Rc<Pty>, Errno> {
        let mut pairs = self.pairs.borrow_mut();
        pairs.retain(|_, pair| pair.strong_count() > 0);
        // The terminal of the host that the sandbox was given has the number 0.
        let first = u32::from(cx.vfs.terminal().is_some());
        let index = (first..MAX_PTYS).find(|index| !pairs.contains_key(index)).ok_or(Errno::ENOSPC)?;
        let pty = Rc::new(Pty::new(cx, index, self));
        pairs.insert(index, Rc::downgrade(&pty));
        Ok(pty)
    }

    /// Returns the pair of a number, while its master is open.
    pub fn get(&self, index: u32) -> Option<Rc<Pty>> {
        self.pairs.borrow().get(&index)?.upgrade().filter(|pty| pty.masters.get() > 0)
    }

    /// Returns the numbers of those whose master is open, in ascending order.
    pub fn indices(&self) -> Vec<u32> {
        self.live().map(|pty| pty.index).collect()
    }

    /// Returns the controlling terminal of a session.
    pub fn of_session(&self, session: u32) -> Option<Rc<Pty>> {
        self.live().find(|pty| pty.session.get() == session)
    }

    fn live(&self) -> impl Iterator<Item = Rc<Pty>> + use<> {
        let pairs: Vec<_> = self.pairs.borrow().values().filter_map(Weak::upgrade).collect();
        pairs.into_iter().filter(|pty| pty.masters.get() > 0)
    }

    /// Notes that the leader of a session has ended: the foreground process group is told (credentials(7)).
    pub fn leader_ended(&self, session: u32) {
        if let Some(pty) = self.of_session(session) {
            let group = pty.release();
            post_to_group(&self.posted, group, Signal::SIGHUP);
        }
        if let Some(group) = self.lost_foregrounds.borrow_mut().remove(&session) {
            post_to_group(&self.posted, group, Signal::SIGHUP);
            post_to_group(&self.posted, group, Signal::SIGCONT);
        }
    }

    /// Takes the signals that are to be sent.
    pub fn take_posted(&self) -> Vec<(Recipient, Signal)> {
        self.posted.take()
    }
}

/// A pseudo-terminal.
pub struct Pty {
    /// Its number.
    pub index: u32,
    discipline: RefCell<Discipline>,
    size: Cell<Winsize>,
    /// Flags that are set and keys that are not zero can not be changed.
    locked_settings: Cell<Termios>,
    /// The session whose controlling terminal it is, 0 for none.
    session: Cell<u32>,
    /// The foreground process group, 0 for none.
    foreground: Cell<u32>,
    masters: Cell<u32>,
    slaves: Cell<u32>,
    /// The last slave was closed, after one was open.
    slave_gone: Cell<bool>,
    locked: Cell<bool>,
    exclusive: Cell<bool>,
    /// What a master in packet mode is told next.
    packet: Cell<Option<u8>>,
    /// When a read without enough input ends, on the guest's CLOCK_MONOTONIC in ns (VTIME).
    read_until_ns: Cell<Option<u64>>,
    attr: Cell<Attr>,
    posted: PostedSignals,
    lost_foregrounds: LostForegrounds,
    /// Woken when there is something for the slave to read, or room for it to write.
    slave_event: Rc<WaitQueue>,
    /// Woken when there is something for the master.
    master_event: Rc<WaitQueue>,
}

impl Pty {
    fn new(cx: &FsContext<'_>, index: u32, ptys: &Ptys) -> Pty {
        let attr = Attr {
            mode: lg_abi::raw::general::S_IFCHR | 0o620,
            nlink: 1,
            uid: cx.creds.fsuid,
            gid: TTY_GROUP,
            rdev: make_dev(SLAVE_MAJOR, index),
            atime: cx.now,
            mtime: cx.now,
            ctime: cx.now,
            ..Attr::default()
        };
        Pty {
            index,
            discipline: RefCell::default(),
            size: Cell::default(),
            locked_settings: Cell::new(Termios::new_zeroed()),
            session: Cell::new(0),
            foreground: Cell::new(0),
            masters: Cell::new(0),
            slaves: Cell::new(0),
            slave_gone: Cell::new(false),
            locked: Cell::new(true),
            exclusive: Cell::new(false),
            packet: Cell::new(None),
            read_until_ns: Cell::new(None),
            attr: Cell::new(attr),
            posted: ptys.posted.clone(),
            lost_foregrounds: ptys.lost_foregrounds.clone(),
            slave_event: WaitQueue::new(),
            master_event: WaitQueue::new(),
        }
    }

    /// Opens the master.
    pub fn open_master(self: &Rc<Pty>) -> Rc<Master> {
        self.masters.set(self.masters.get() + 1);
        Rc::new(Master(self.clone()))
    }

    /// Opens the slave, which becomes the controlling terminal of a session leader that has none, unless
    /// O_NOCTTY says otherwise.
    ///
    /// Errors: EIO for one that is locked, EBUSY for one that is exclusive.
    pub fn open_slave(self: &Rc<Pty>, cx: &FsContext<'_>, flags: u32) -> Result<Rc<Slave>, Errno> {
        if self.locked.get() {
            return Err(Errno::EIO);
        }
        if self.exclusive.get() && !has_capability(cx.creds, CAP_SYS_ADMIN) {
            return Err(Errno::EBUSY);
        }
        if flags & O_NOCTTY == 0 {
            self.adopt(cx);
        }
        Ok(self.new_slave())
    }

    /// Opens the slave and describes it under its name in `/dev/pts`.
    ///
    /// Errors: as [`Pty::open_slave`]; ENOENT where that is not mounted.
    pub fn describe_slave(
        self: &Rc<Pty>,
        cx: &FsContext<'_>,
        flags: u32,
    ) -> Result<Rc<FileDescription>, Errno> {
        let fs = FsState::new(cx.vfs.root()?);
        let path = fs.lookup(cx, format!("/dev/pts/{}", self.index).as_bytes(), Final::NoFollow)?;
        FileDescription::new(cx, self.open_slave(cx, flags)?, path, flags)
    }

    fn new_slave(self: &Rc<Pty>) -> Rc<Slave> {
        self.slaves.set(self.slaves.get() + 1);
        self.slave_gone.set(false);
        Rc::new(Slave(self.clone()))
    }

    /// Gives the slave's node to a user.
    pub fn set_owner(&self, uid: u32) {
        self.attr.set(Attr { uid, ..self.attr.get() });
    }

    /// Returns how many bytes of output wait to be taken.
    pub fn output_len(&self) -> usize {
        self.discipline.borrow().output_len()
    }

    /// Lets slaves be opened (unlockpt(3)).
    pub fn unlock(&self) {
        self.locked.set(false);
    }

    fn wake(&self) {
        self.slave_event.wake_all();
        self.master_event.wake_all();
    }

    fn post(&self, group: u32, signal: Signal) {
        post_to_group(&self.posted, group, signal);
    }

    /// Takes bytes that were typed, as many as there is room for.
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        let mut discipline = self.discipline.borrow_mut();
        let was_stopped = discipline.is_stopped();
        let mut taken = 0;
        for &byte in bytes {
            if discipline.input_room() == 0 {
                break;
            }
            taken += 1;
            let signal = match discipline.input(byte) {
                None => continue,
                Some(Key::Interrupt) => Signal::SIGINT,
                Some(Key::Quit) => Signal::SIGQUIT,
                Some(Key::Suspend) => Signal::SIGTSTP,
            };
            if discipline.settings().c_lflag & NOFLSH == 0 {
                self.tell_packet(requests::TIOCPKT_FLUSHREAD | requests::TIOCPKT_FLUSHWRITE);
            }
            self.post(self.foreground.get(), signal);
        }
        self.tell_of_stop(was_stopped, discipline.is_stopped());
        drop(discipline);
        if taken > 0 {
            self.read_until_ns.set(None);
            self.wake();
        }
        taken
    }

    fn tell_of_stop(&self, before: bool, after: bool) {
        if before != after {
            self.tell_packet(if after { requests::TIOCPKT_STOP } else { requests::TIOCPKT_START });
        }
    }

    /// Notes something that a master in packet mode is told (ioctl_tty(2), TIOCPKT).
    fn tell_packet(&self, what: u8) {
        if let Some(told) = self.packet.get() {
            let undone = requests::PACKET_OPPOSITES.iter().fold(0, |undone, (one, other)| match what {
                _ if what & one != 0 => undone | other,
                _ if what & other != 0 => undone | one,
                _ => undone,
            });
            self.packet.set(Some(told & !undone | what));
        }
    }

    /// Moves what was written to the terminal to `buf`, and returns how much.
    pub fn take_output(&self, buf: &mut [u8]) -> usize {
        let count = self.discipline.borrow_mut().take_output(buf);
        if count > 0 {
            self.slave_event.wake_all();
        }
        count
    }

    /// Changes the size, and tells the foreground process group if that is another one.
    pub fn set_size(&self, size: Winsize) {
        if self.size.replace(size) != size {
            self.post(self.foreground.get(), Signal::SIGWINCH);
        }
    }

    fn is_hung_up(&self) -> bool {
        self.masters.get() == 0
    }

    fn master_closed(&self) {
        self.masters.set(self.masters.get() - 1);
        if self.is_hung_up() {
            // The session loses its terminal, and its leader is told.
            let leader = self.session.get();
            let group = self.release();
            if leader != 0 {
                self.lost_foregrounds.borrow_mut().insert(leader, group);
                let mut posted = self.posted.borrow_mut();
                posted.push((Recipient::Process(leader), Signal::SIGHUP));
                posted.push((Recipient::Process(leader), Signal::SIGCONT));
            }
            self.wake();
        }
    }

    fn slave_closed(&self) {
        self.slaves.set(self.slaves.get() - 1);
        if self.slaves.get() == 0 {
            self.slave_gone.set(true);
            self.exclusive.set(false);
            self.wake();
        }
    }

    /// Reads for a program: EAGAIN while there is not enough.
    fn read(&self, cx: &FsContext<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
        const TENTH_NS: u64 = 100_000_000;
        if self.is_hung_up() {
            return Ok(0);
        }
        self.check_may_read(cx)?;
        let mut discipline = self.discipline.borrow_mut();
        let (min, tenths) = discipline.patience(buf.len());
        let there = discipline.readable_len();
        let canonical = discipline.is_canonical();
        if canonical || there >= min.max(1) || min == 0 && tenths == 0 {
            let got = discipline.read(buf).ok_or(Errno::EAGAIN)?;
            drop(discipline);
            self.read_until_ns.set(None);
            self.master_event.wake_all();
            return Ok(got);
        }
        // The time begins with the call, or with the last byte where some must come.
        if tenths == 0 || min > 0 && there == 0 {
            return Err(Errno::EAGAIN);
        }
        let until_ns = self.read_until_ns.get();
        match until_ns {
            Some(until_ns) if cx.monotonic_ns >= until_ns => {
                self.read_until_ns.set(None);
                Ok(discipline.read(buf).unwrap_or(0))
            }
            Some(_) => Err(Errno::EAGAIN),
            None => {
                self.read_until_ns.set(Some(cx.monotonic_ns + u64::from(tenths) * TENTH_NS));
                Err(Errno::EAGAIN)
            }
        }
    }

    fn write(&self, cx: &FsContext<'_>, data: &[u8]) -> Result<usize, Errno> {
        if self.is_hung_up() {
            return Err(Errno::EIO);
        }
        self.check_may_write(cx)?;
        let taken = self.discipline.borrow_mut().output(data);
        if taken == 0 && !data.is_empty() {
            return Err(Errno::EAGAIN);
        }
        self.master_event.wake_all();
        Ok(taken)
    }
}

/// The side of the program that is a terminal to others.
pub struct Master(Rc<Pty>);

impl Master {
    /// Returns the pair.
    pub fn pty(&self) -> &Rc<Pty> {
        &self.0
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Master({})", self.0.index)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.0.master_closed();
    }
}

impl File for Master {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let pty = &self.0;
        if buf.is_empty() {
            return Ok(0);
        }
        if let Some(told) = pty.packet.get() {
            if told != 0 {
                pty.packet.set(Some(0));
                buf[0] = told;
                return Ok(1);
            }
            if pty.discipline.borrow().output_len() > 0 {
                buf[0] = 0;
                return Ok(pty.take_output(&mut buf[1..]) + 1);
            }
        } else {
            let count = pty.take_output(buf);
            if count > 0 {
                return Ok(count);
            }
        }
        if pty.slave_gone.get() { Err(Errno::EIO) } else { Err(Errno::EAGAIN) }
    }

    fn write(&self, _cx: &FsContext<'_>, _offset: u64, data: &[u8]) -> Result<usize, Errno> {
        match self.0.type_in(data) {
            0 if !data.is_empty() => Err(Errno::EAGAIN),
            taken => Ok(taken),
        }
    }

    fn has_position(&self) -> bool {
        false
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        let pty = &self.0;
        let mut ready = Readiness::empty();
        let discipline = pty.discipline.borrow();
        if discipline.output_len() > 0 || pty.packet.get().is_some_and(|told| told != 0) {
            ready |= Readiness::READABLE;
        }
        if pty.packet.get().is_some_and(|told| told != 0) {
            ready |= Readiness::PRI;
        }
        if discipline.input_room() > 0 {
            ready |= Readiness::WRITABLE;
        }
        if pty.slave_gone.get() {
            ready |= Readiness::HUP;
        }
        ready
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.0.master_event.clone()]
    }

    fn ioctl(
        &self,
        cx: &FsContext<'_>,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        requests::master(&self.0, cx, user, request, argument)
    }
}

/// The terminal.
pub struct Slave(Rc<Pty>);

impl Drop for Slave {
    fn drop(&mut self) {
        self.0.slave_closed();
    }
}

impl File for Slave {
    fn read(&self, cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if buf.is_empty() { Ok(0) } else { self.0.read(cx, buf) }
    }

    fn write(&self, cx: &FsContext<'_>, _offset: u64, data: &[u8]) -> Result<usize, Errno> {
        self.0.write(cx, data)
    }

    fn has_position(&self) -> bool {
        false
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        if self.0.is_hung_up() {
            return Readiness::READABLE | Readiness::WRITABLE | Readiness::ERR | Readiness::HUP;
        }
        let discipline = self.0.discipline.borrow();
        let mut ready = Readiness::empty();
        if discipline.is_readable() {
            ready |= Readiness::READABLE;
        }
        if discipline.has_output_room() {
            ready |= Readiness::WRITABLE;
        }
        ready
    }

    fn ready_at_ns(&self) -> Option<u64> {
        self.0.read_until_ns.get()
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.0.slave_event.clone()]
    }

    fn ioctl(
        &self,
        cx: &FsContext<'_>,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        requests::slave(&self.0, cx, user, request, argument)
    }
}

/// Opens `/dev/ptmx`: the master of a new pair.
pub fn open_ptmx(cx: &FsContext<'_>) -> Result<Rc<dyn File>, Stop> {
    Ok(cx.vfs.ptys().create(cx)?.open_master())
}

/// Returns the pair that a file is the master of.
pub fn as_master(file: &Rc<dyn File>) -> Option<Rc<Pty>> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<Master>().ok().map(|master| master.0.clone())
}

/// Says whether a file is the slave of a pair.
pub fn is_slave(file: &Rc<dyn File>) -> bool {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<Slave>().is_ok()
}
