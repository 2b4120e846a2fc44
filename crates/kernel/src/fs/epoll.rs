//! Watching many files at once (epoll(7)).
//!
//! An instance holds the open files that it watches weakly, so a file that is closed disappears from it. A
//! wait looks at every file watched; nothing is remembered of events but what edge-triggered watches have
//! reported. Edges are told by the counters of the files' wait queues.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::ops::Bound;
use std::rc::{Rc, Weak};

use lg_abi::raw::general::{EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT};
use lg_abi::{EpollEvent, Errno};

use crate::task::{HostEvent, WaitQueue};
use crate::vfs::{File, FileDescription, FsContext, Readiness, split_dev};

/// The most watches of all instances together: `/proc/sys/fs/epoll/max_user_watches`.
pub const MAX_WATCHES: u32 = 200_000;

/// The events that are always watched.
const ALWAYS: Readiness = Readiness::ERR.union(Readiness::HUP);

/// Counts the watches of all epoll instances of a kernel.
#[derive(Default)]
pub struct WatchQuota(Cell<u32>);

struct Watch {
    file: Weak<FileDescription>,
    /// What epoll_ctl(2) was given.
    events: u32,
    data: [u32; 2],
    /// The sum of the file's event counters when it was last looked at, and what it was ready for.
    seen: Cell<(u64, Readiness)>,
    /// A one-shot watch that has fired.
    spent: Cell<bool>,
}

impl Watch {
    fn new(file: &Rc<FileDescription>, event: &EpollEvent) -> Watch {
        Watch {
            file: Rc::downgrade(file),
            events: event.events,
            data: [event.data_low, event.data_high],
            seen: Cell::new((0, Readiness::empty())),
            spent: Cell::new(false),
        }
    }

    fn wanted(&self) -> Readiness {
        Readiness::from_bits_truncate(self.events) | ALWAYS
    }

    /// Returns what the watched file is ready for of what is wanted.
    fn ready(&self, cx: &FsContext<'_>, file: &FileDescription) -> Readiness {
        if self.spent.get() { Readiness::empty() } else { file.file.readiness(cx) & self.wanted() }
    }

    /// Returns what is to be reported now, and notes that it was.
    fn take(&self, cx: &FsContext<'_>, file: &FileDescription) -> Readiness {
        let ready = self.ready(cx, file);
        if self.events & EPOLLET != 0 {
            let count = file.file.queues().iter().fold(0u64, |sum, queue| sum.wrapping_add(queue.events()));
            let (old_count, old_ready) = self.seen.replace((count, ready));
            if count == old_count && old_ready.contains(ready) {
                return Readiness::empty();
            }
        }
        if !ready.is_empty() && self.events & EPOLLONESHOT != 0 {
            self.spent.set(true);
        }
        ready
    }
}

type Key = (u32, u64);

/// An epoll instance.
pub struct Epoll {
    watches: RefCell<BTreeMap<Key, Watch>>,
    /// Where the next look begins, so that no file is starved by those before it.
    next: Cell<Key>,
    /// Woken when what is watched changes.
    changed: Rc<WaitQueue>,
    /// How many instances watch this one.
    watchers: Cell<u32>,
    quota: Rc<WatchQuota>,
}

/// Returns the epoll instance that a file is.
///
/// Errors: EINVAL.
pub fn as_epoll(file: &Rc<dyn File>) -> Result<Rc<Epoll>, Errno> {
    let any: Rc<dyn Any> = file.clone();
    any.downcast::<Epoll>().map_err(|_| Errno::EINVAL)
}

impl Epoll {
    /// Returns the watched file that was at descriptor `fd`; of several of that number, the one after `skipped` others.
    pub fn target(&self, fd: u32, skipped: u32) -> Option<Rc<FileDescription>> {
        let watches = self.watches.borrow();
        let mut files = watches.range((fd, 0)..=(fd, u64::MAX)).filter_map(|(_, watch)| watch.file.upgrade());
        files.nth(skipped as usize)
    }

    /// Returns an instance that watches nothing.
    pub fn new(cx: &FsContext<'_>) -> Rc<Epoll> {
        Rc::new(Epoll {
            watches: RefCell::default(),
            next: Cell::default(),
            changed: Rc::default(),
            watchers: Cell::default(),
            quota: cx.vfs.watch_quota().clone(),
        })
    }

    /// Watches the file of a descriptor.
    ///
    /// Errors: EEXIST; EPERM for a file that is always ready; ELOOP for instances nested more than twice;
    /// ENOSPC when there are too many watches.
    pub fn add(&self, fd: u32, file: &Rc<FileDescription>, event: &EpollEvent) -> Result<(), Errno> {
        self.prune();
        if self.watches.borrow().contains_key(&(fd, file.id)) {
            return Err(Errno::EEXIST);
        }
        if !file.file.is_pollable() {
            return Err(Errno::EPERM);
        }
        if event.events & EPOLLEXCLUSIVE != 0 && event.events & EPOLLONESHOT != 0 {
            return Err(Errno::EINVAL);
        }
        if self.quota.0.get() >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        if let Ok(inner) = as_epoll(&file.file) {
            if inner.watches_epoll() || self.watchers.get() > 0 {
                return Err(Errno::ELOOP);
            }
            inner.watchers.set(inner.watchers.get() + 1);
        }
        self.quota.0.set(self.quota.0.get() + 1);
        self.watches.borrow_mut().insert((fd, file.id), Watch::new(file, event));
        self.changed.wake_all();
        Ok(())
    }

    /// Changes what is watched for.
    ///
    /// Errors: ENOENT.
    pub fn modify(&self, fd: u32, file: &Rc<FileDescription>, event: &EpollEvent) -> Result<(), Errno> {
        let mut watches = self.watches.borrow_mut();
        let watch = watches.get_mut(&(fd, file.id)).ok_or(Errno::ENOENT)?;
        if (watch.events | event.events) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        *watch = Watch::new(file, event);
        drop(watches);
        self.changed.wake_all();
        Ok(())
    }

    /// Watches a file no longer.
    ///
    /// Errors: ENOENT.
    pub fn remove(&self, fd: u32, file: &Rc<FileDescription>) -> Result<(), Errno> {
        self.watches.borrow_mut().remove(&(fd, file.id)).ok_or(Errno::ENOENT)?;
        self.uncount(1);
        if let Ok(inner) = as_epoll(&file.file) {
            inner.watchers.set(inner.watchers.get().saturating_sub(1));
        }
        Ok(())
    }

    fn uncount(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.quota.0.set(self.quota.0.get().saturating_sub(count));
    }

    fn watches_epoll(&self) -> bool {
        self.live().iter().any(|(_, file)| as_epoll(&file.file).is_ok())
    }

    /// Forgets files that were closed.
    fn prune(&self) {
        let mut watches = self.watches.borrow_mut();
        let before = watches.len();
        watches.retain(|_, watch| watch.file.strong_count() > 0);
        let gone = before - watches.len();
        drop(watches);
        self.uncount(gone);
    }

    fn live(&self) -> Vec<(Key, Rc<FileDescription>)> {
        let watches = self.watches.borrow();
        watches.iter().filter_map(|(key, watch)| Some((*key, watch.file.upgrade()?))).collect()
    }

    /// Returns up to `max` events.
    pub fn take_events(&self, cx: &FsContext<'_>, max: usize) -> Vec<EpollEvent> {
        self.prune();
        let next = self.next.get();
        let watches = self.watches.borrow();
        let from_next = watches.range((Bound::Included(next), Bound::Unbounded));
        let before_next = watches.range((Bound::Unbounded, Bound::Excluded(next)));
        let mut events = Vec::new();
        for (key, watch) in from_next.chain(before_next) {
            if events.len() >= max {
                self.next.set(*key);
                break;
            }
            let Some(file) = watch.file.upgrade() else { continue };
            let ready = watch.take(cx, &file);
            if !ready.is_empty() {
                let [data_low, data_high] = watch.data;
                events.push(EpollEvent { events: ready.bits(), data_low, data_high });
            }
        }
        events
    }
}

impl File for Epoll {
    fn has_position(&self) -> bool {
        false
    }

    /// As on Linux, the position can be set, and stays 0.
    fn seek(&self, _to: SeekFrom) -> Option<Result<u64, Errno>> {
        Some(Ok(0))
    }

    fn readiness(&self, cx: &FsContext<'_>) -> Readiness {
        // Instances nest only twice, so this does not recurse further than that.
        let watches = self.watches.borrow();
        let ready =
            |watch: &Watch| watch.file.upgrade().is_some_and(|file| !watch.ready(cx, &file).is_empty());
        if watches.values().any(ready) { Readiness::READABLE } else { Readiness::empty() }
    }

    /// A line for each file that is watched, as proc_pid_fdinfo(5) has it.
    fn info(&self, cx: &FsContext<'_>) -> String {
        let watches = self.watches.borrow();
        let live = watches.iter().filter_map(|((fd, _), watch)| Some((fd, watch, watch.file.upgrade()?)));
        let line = |(fd, watch, file): (&u32, &Watch, Rc<FileDescription>)| {
            let attr = file.inode().attr(cx).unwrap_or_default();
            let (major, minor) = split_dev(attr.dev);
            let events = watch.events | ALWAYS.bits();
            let data = u64::from(watch.data[1]) << 32 | u64::from(watch.data[0]);
            // Linux keeps a device number as 12 bits and 20.
            let dev = u64::from(major) << 20 | u64::from(minor);
            format!(
                "tfd: {fd:8} events: {events:8x} data: {data:16x}  pos:{} ino:{:x} sdev:{dev:x}\n",
                file.offset(),
                attr.ino
            )
        };
        live.map(line).collect()
    }

    fn ready_at_ns(&self) -> Option<u64> {
        self.live().iter().filter_map(|(_, file)| file.file.ready_at_ns()).min()
    }

    fn queues(&self) -> Vec<Rc<WaitQueue>> {
        let mut queues = vec![self.changed.clone()];
        self.live().iter().for_each(|(_, file)| queues.extend(file.file.queues()));
        queues
    }

    fn host_events(&self, _interest: Readiness) -> Vec<HostEvent> {
        let watches = self.watches.borrow();
        watches
            .values()
            .filter(|watch| !watch.spent.get())
            .filter_map(|watch| Some((watch.file.upgrade()?, watch.wanted())))
            .flat_map(|(file, wanted)| file.file.host_events(wanted))
            .collect()
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for (_, file) in self.live() {
            if let Ok(inner) = as_epoll(&file.file) {
                inner.watchers.set(inner.watchers.get().saturating_sub(1));
            }
        }
        self.uncount(self.watches.borrow().len());
    }
}
