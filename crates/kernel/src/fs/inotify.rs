//! Instances of inotify(7): what they watch, and the events that wait to be read.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::SeekFrom;
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_abi::raw::general::{
    IN_ALL_EVENTS, IN_EXCL_UNLINK, IN_IGNORED, IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT, IN_Q_OVERFLOW,
};
use lg_abi::raw::ioctl::FIONREAD;

use crate::mm::UserMemory;
use crate::task::WaitQueue;
use crate::vfs::{
    Counted, File, FsContext, Inode, Mark, Notice, Notify, Quota, Readiness, Watcher, split_dev,
};

/// The most instances there can be: `/proc/sys/fs/inotify/max_user_instances`.
pub const MAX_INSTANCES: u64 = 128;
/// The most inodes that all instances watch together: `max_user_watches`.
pub const MAX_WATCHES: u64 = 32_768;
/// The most events that wait in an instance: `max_queued_events`.
pub const MAX_EVENTS: usize = 16_384;
/// The most bytes of events that wait in all instances together; beyond that their queues overflow.
const MAX_EVENT_BYTES: u64 = 16 << 20;

/// The parts of a watch's mask that can be seen again.
const KEPT: u32 = IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK;
/// Bytes of an event without its name (`struct inotify_event`).
const HEADER_LEN: usize = 16;

/// What all instances hold together.
pub struct InotifyQuota {
    instances: Rc<Quota>,
    watches: Rc<Quota>,
    event_bytes: Rc<Quota>,
}

impl Default for InotifyQuota {
    fn default() -> InotifyQuota {
        InotifyQuota {
            instances: Rc::new(Quota::new(MAX_INSTANCES)),
            watches: Rc::new(Quota::new(MAX_WATCHES)),
            event_bytes: Rc::new(Quota::new(MAX_EVENT_BYTES)),
        }
    }
}

#[derive(PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Box<[u8]>,
}

impl Event {
    /// Bytes of the name as it is read: with a NUL, and filled up with more of them.
    fn name_len(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER_LEN) }
    }

    fn len(&self) -> usize {
        HEADER_LEN + self.name_len()
    }

    /// Says whether this one tells nothing that `last` has not told.
    fn repeats(&self, last: &Event) -> bool {
        last.mask & IN_IGNORED == 0 && (self.wd, self.mask, &self.name) == (last.wd, last.mask, &last.name)
    }

    /// Writes the event as it is read; `out` is as long as it.
    fn write(&self, out: &mut [u8]) {
        let words = [self.wd as u32, self.mask, self.cookie, self.name_len() as u32];
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        out.fill(0);
        out[..HEADER_LEN].copy_from_slice(&header);
        out[HEADER_LEN..][..self.name.len()].copy_from_slice(&self.name);
    }
}

struct Watch {
    mark: Rc<Mark>,
    _count: Counted,
}

/// An instance.
pub struct Inotify {
    me: Weak<Inotify>,
    events: RefCell<VecDeque<Event>>,
    watches: RefCell<BTreeMap<i32, Watch>>,
    last_wd: Cell<i32>,
    changed: Rc<WaitQueue>,
    notify: Rc<Notify>,
    watch_quota: Rc<Quota>,
    event_bytes: Rc<Quota>,
    _count: Counted,
}

/// Returns the instance that a file is.
///
/// Errors: EINVAL.
pub fn as_inotify(file: &Rc<dyn File>) -> Result<Rc<Inotify>, Errno> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<Inotify>().map_err(|_| Errno::EINVAL)
}

impl Inotify {
    /// Returns an instance that watches nothing.
    ///
    /// Errors: EMFILE when there are too many.
    pub fn new(cx: &FsContext<'_>) -> Result<Rc<Inotify>, Errno> {
        let quota = cx.vfs.inotify_quota();
        let count = quota.instances.take_one().map_err(|_| Errno::EMFILE)?;
        Ok(Rc::new_cyclic(|me| Inotify {
            me: me.clone(),
            events: RefCell::default(),
            watches: RefCell::default(),
            last_wd: Cell::new(0),
            changed: WaitQueue::new(),
            notify: cx.vfs.notify().clone(),
            watch_quota: quota.watches.clone(),
            event_bytes: quota.event_bytes.clone(),
            _count: count,
        }))
    }

    /// Watches an inode, or changes what is wanted of one that is watched, and returns the number of the watch.
    /// `mask` is that of inotify_add_watch(2).
    ///
    /// Errors: EEXIST for IN_MASK_CREATE where there is a watch, ENOSPC when there are too many.
    pub fn add(&self, inode: &Rc<dyn Inode>, mask: u32) -> Result<i32, Errno> {
        let watcher: Weak<dyn Watcher> = self.me.clone();
        if let Some(mark) = self.notify.find(inode, &watcher) {
            if mask & IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let before = if mask & IN_MASK_ADD != 0 { mark.mask.get() } else { 0 };
            mark.mask.set(before | mask & KEPT);
            return Ok(mark.wd);
        }
        let count = self.watch_quota.take_one().map_err(|_| Errno::ENOSPC)?;
        let mut watches = self.watches.borrow_mut();
        let wd = self.free_wd(&watches);
        self.last_wd.set(wd);
        let mark = Rc::new(Mark { wd, mask: Cell::new(mask & KEPT), inode: inode.clone(), watcher });
        self.notify.add(&mark);
        watches.insert(wd, Watch { mark, _count: count });
        Ok(wd)
    }

    /// Returns the next number in turn; there are more than watches.
    fn free_wd(&self, watches: &BTreeMap<i32, Watch>) -> i32 {
        let mut wd = self.last_wd.get();
        loop {
            wd = wd.checked_add(1).unwrap_or(1);
            if !watches.contains_key(&wd) {
                return wd;
            }
        }
    }

    /// Ends a watch.
    ///
    /// Errors: EINVAL where there is none of this number.
    pub fn remove(&self, wd: i32) -> Result<(), Errno> {
        let watch = self.watches.borrow_mut().remove(&wd).ok_or(Errno::EINVAL)?;
        self.notify.remove(&watch.mark);
        self.queue(Event { wd, mask: IN_IGNORED, cookie: 0, name: [].into() });
        Ok(())
    }

    fn queue(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        let is_full = events.len() >= MAX_EVENTS;
        let event = if is_full || self.event_bytes.left() < event.len() as u64 {
            Event { wd: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: [].into() }
        } else {
            event
        };
        let is_overflow = event.mask == IN_Q_OVERFLOW;
        let known = if is_overflow {
            events.iter().rev().any(|queued| queued.mask == IN_Q_OVERFLOW)
        } else {
            events.back().is_some_and(|last| event.repeats(last))
        };
        if known {
            return;
        }
        self.event_bytes.take_over_limit(event.len() as u64);
        events.push_back(event);
        drop(events);
        self.changed.wake_all();
    }
}

impl Watcher for Inotify {
    fn notice(&self, mark: &Mark, notice: Notice<'_>) {
        self.queue(Event { wd: mark.wd, mask: notice.mask, cookie: notice.cookie, name: notice.name.into() });
        if mark.mask.get() & IN_ONESHOT != 0 {
            // One that is gone already was ended by an earlier event.
            let _ = self.remove(mark.wd);
        }
    }

    fn forget(&self, mark: &Mark) {
        let _ = self.remove(mark.wd);
    }
}

impl File for Inotify {
    fn read(&self, _cx: &FsContext<'_>, _offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut events = self.events.borrow_mut();
        if events.is_empty() {
            return Err(Errno::EAGAIN);
        }
        let mut done = 0;
        while let Some(event) = events.front() {
            let Some(out) = buf.get_mut(done..done + event.len()) else { break };
            event.write(out);
            done += event.len();
            self.event_bytes.give(event.len() as u64);
            events.pop_front();
        }
        if done == 0 { Err(Errno::EINVAL) } else { Ok(done) }
    }

    fn reads_records(&self) -> bool {
        true
    }

    fn has_position(&self) -> bool {
        false
    }

    /// It has no position, but says so to nobody.
    fn seek(&self, _to: SeekFrom) -> Option<Result<u64, Errno>> {
        Some(Ok(0))
    }

    fn readiness(&self, _cx: &FsContext<'_>) -> Readiness {
        if self.events.borrow().is_empty() { Readiness::empty() } else { Readiness::READABLE }
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        vec![self.changed.clone()]
    }

    fn ioctl(
        &self,
        _cx: &FsContext<'_>,
        user: &UserMemory,
        request: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        if request != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let waiting: usize = self.events.borrow().iter().map(Event::len).sum();
        user.copy_out(argument, &(waiting as u32))?;
        Ok(0)
    }

    fn info(&self, cx: &FsContext<'_>) -> String {
        let line = |watch: &Watch| {
            let attr = watch.mark.inode.attr(cx).ok()?;
            let (major, minor) = split_dev(attr.dev);
            let (wd, mask, ino) = (watch.mark.wd, watch.mark.mask.get(), attr.ino);
            let dev = major << 20 | minor;
            Some(format!("inotify wd:{wd:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0 \n"))
        };
        // The newest comes first.
        self.watches.borrow().values().rev().filter_map(line).collect()
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        for watch in self.watches.take().into_values() {
            self.notify.remove(&watch.mark);
        }
        self.event_bytes.give(self.events.borrow().iter().map(|event| event.len() as u64).sum());
    }
}
