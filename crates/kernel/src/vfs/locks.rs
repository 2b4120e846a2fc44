//! Advisory file locks: flock(2), and the record locks of fcntl(2) in both kinds, POSIX and OFD.
//!
//! A lock that can not be had now is answered with the queue to sleep on; the call is then made again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};

use lg_abi::Errno;

use super::{FileDescription, FsContext};
use crate::task::{Stop, Wait, WaitQueue};

/// The most locks of all files together.
const MAX_LOCKS: usize = 65_536;

/// The last byte of a lock that reaches to the end of the file, however long that grows: the highest offset.
pub const LAST_BYTE: u64 = i64::MAX as u64;

/// How many owners a chain of waiters may have for a deadlock to be found. Linux looks as far.
const MAX_DEADLOCK: usize = 10;

/// A file as locks know it: device and inode number.
pub type LockKey = (u64, u64);

/// What a lock allows others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// Shared (read) locks of others.
    Shared,
    /// Nothing.
    Exclusive,
}

/// Who owns a record lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOwner {
    /// A process, by the owner number of its descriptor table.
    Process(u64),
    /// An open file description, by its id.
    Description(u64),
}

/// A lock of a range of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordLock {
    /// Who holds or wants it.
    pub owner: LockOwner,
    /// The process id that F_GETLK shows.
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// Last byte, [`LAST_BYTE`] for all to the end.
    pub last: u64,
    /// The kind.
    pub kind: LockKind,
}

impl RecordLock {
    fn overlaps(&self, other: &RecordLock) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    fn conflicts(&self, other: &RecordLock) -> bool {
        self.owner != other.owner
            && self.overlaps(other)
            && (self.kind == LockKind::Exclusive || other.kind == LockKind::Exclusive)
    }
}

/// A record lock that a sleeping call waits for. Whoever holds it is waiting.
#[derive(Debug)]
pub struct WaitingLock {
    key: LockKey,
    wanted: RecordLock,
}

#[derive(Default)]
struct FileLocks {
    whole: Vec<(u64, LockKind)>,
    /// The locks of an owner stand together, in order; owners in the order in which they came.
    records: Vec<RecordLock>,
    queue: Rc<WaitQueue>,
}

impl FileLocks {
    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.records.is_empty()
    }
}

/// Why a lock was not granted.
#[derive(Debug)]
pub enum LockError {
    /// Another holds it; the queue is woken when that may have changed.
    Conflict(Rc<WaitQueue>),
    /// There are too many locks.
    TooMany,
}

impl LockError {
    /// Returns what a call does that waits for the lock.
    pub fn or_wait(self) -> Stop {
        match self {
            LockError::Conflict(queue) => Stop::Block(Wait::on([queue])),
            LockError::TooMany => Errno::ENOLCK.into(),
        }
    }

    /// Returns the error of a call that does not wait.
    pub fn or_again(self) -> Stop {
        match self {
            LockError::Conflict(_) => Errno::EAGAIN.into(),
            LockError::TooMany => Errno::ENOLCK.into(),
        }
    }
}

/// The locks of all files.
#[derive(Default)]
pub struct LockTable {
    files: RefCell<HashMap<LockKey, FileLocks>>,
    count: Cell<usize>,
    waiting: RefCell<Vec<Weak<WaitingLock>>>,
}

impl LockTable {
    /// Returns the key of an open file.
    pub fn key_of(cx: &FsContext<'_>, description: &FileDescription) -> Result<LockKey, Errno> {
        let attr = description.inode().attr(cx)?;
        Ok((attr.dev, attr.ino))
    }

    /// Does flock(2): takes a lock of the kind for the open file, or releases it.
    pub fn flock(
        &self,
        key: LockKey,
        description: &FileDescription,
        kind: Option<LockKind>,
    ) -> Result<(), LockError> {
        let mut files = self.files.borrow_mut();
        let locks = files.entry(key).or_default();
        let before = locks.whole.len();
        // A lock is converted by giving it up first, as flock(2) warns.
        locks.whole.retain(|(id, _)| *id != description.id);
        let gave_up = before - locks.whole.len();
        let result = match kind {
            None => Ok(()),
            Some(kind) => {
                let conflict = locks
                    .whole
                    .iter()
                    .any(|(_, other)| kind == LockKind::Exclusive || *other == LockKind::Exclusive);
                if conflict {
                    Err(LockError::Conflict(locks.queue.clone()))
                } else if self.count.get() >= MAX_LOCKS {
                    Err(LockError::TooMany)
                } else {
                    locks.whole.push((description.id, kind));
                    description.mark_locked();
                    Ok(())
                }
            }
        };
        let wake = (gave_up > 0).then(|| locks.queue.clone());
        self.recount(before, locks.whole.len());
        if locks.is_empty() {
            files.remove(&key);
        }
        drop(files);
        if let Some(queue) = wake {
            queue.wake_all();
        }
        result
    }

    /// Returns the record lock that stands in the way of `wanted`, if any.
    pub fn find_conflict(&self, key: LockKey, wanted: &RecordLock) -> Option<RecordLock> {
        let files = self.files.borrow();
        files.get(&key)?.records.iter().find(|held| held.conflicts(wanted)).copied()
    }

    /// Takes a record lock.
    pub fn lock_record(
        &self,
        key: LockKey,
        description: &FileDescription,
        wanted: RecordLock,
    ) -> Result<(), LockError> {
        if self.count.get() >= MAX_LOCKS {
            return Err(LockError::TooMany);
        }
        let mut files = self.files.borrow_mut();
        let locks = files.entry(key).or_default();
        if locks.records.iter().any(|held| held.conflicts(&wanted)) {
            return Err(LockError::Conflict(locks.queue.clone()));
        }
        let before = locks.records.len();
        change_own(&mut locks.records, &wanted, |own| take(own, wanted));
        description.mark_locked();
        self.recount(before, locks.records.len());
        let queue = locks.queue.clone();
        drop(files);
        // A write lock may have become a read lock.
        queue.wake_all();
        Ok(())
    }

    /// Releases the range of `wanted` for its owner.
    pub fn unlock_record(&self, key: LockKey, wanted: &RecordLock) {
        self.change(key, |locks| change_own(&mut locks.records, wanted, |own| cut_out(own, wanted)));
    }

    /// Makes it known that a call is about to wait for a record lock, for as long as the answer lives.
    ///
    /// Errors: EDEADLK where it would wait for itself in the end. Locks of open file descriptions can not tell.
    pub fn wait_for(&self, key: LockKey, wanted: RecordLock) -> Result<Rc<WaitingLock>, Errno> {
        self.waiting.borrow_mut().retain(|other| other.strong_count() > 0);
        if matches!(wanted.owner, LockOwner::Process(_)) && self.is_deadlock(key, &wanted) {
            return Err(Errno::EDEADLK);
        }
        let waiting = Rc::new(WaitingLock { key, wanted });
        self.waiting.borrow_mut().push(Rc::downgrade(&waiting));
        Ok(waiting)
    }

    fn is_deadlock(&self, key: LockKey, wanted: &RecordLock) -> bool {
        let waiting: Vec<Rc<WaitingLock>> = self.waiting.borrow().iter().filter_map(Weak::upgrade).collect();
        let mut holder = self.find_conflict(key, wanted).map(|held| held.owner);
        for _ in 0..=MAX_DEADLOCK {
            let Some(owner) = holder else { return false };
            let next = waiting.iter().find(|other| other.wanted.owner == owner);
            holder = next.and_then(|next| self.find_conflict(next.key, &next.wanted)).map(|held| held.owner);
            if holder == Some(wanted.owner) {
                return true;
            }
        }
        false
    }

    /// Releases all POSIX locks of a process on the file of a description that it closed.
    pub(super) fn release_posix(&self, cx: &FsContext<'_>, owner: u64, description: &FileDescription) {
        let owner = LockOwner::Process(owner);
        let holds = |locks: &FileLocks| locks.records.iter().any(|lock| lock.owner == owner);
        if self.count.get() == 0 || !self.files.borrow().values().any(holds) {
            return;
        }
        if let Ok(key) = LockTable::key_of(cx, description) {
            self.change(key, |locks| locks.records.retain(|lock| lock.owner != owner));
        }
    }

    /// Releases all POSIX locks of a process.
    pub(super) fn release_owner(&self, owner: u64) {
        let owner = LockOwner::Process(owner);
        self.change_all(|locks| locks.records.retain(|lock| lock.owner != owner));
    }

    /// Releases all locks of an open file description.
    pub(super) fn release_description(&self, id: u64) {
        let owner = LockOwner::Description(id);
        self.change_all(|locks| {
            locks.whole.retain(|(holder, _)| *holder != id);
            locks.records.retain(|lock| lock.owner != owner);
        });
    }

    fn change_all(&self, change: impl Fn(&mut FileLocks)) {
        if self.count.get() == 0 {
            return;
        }
        let keys: Vec<LockKey> = self.files.borrow().keys().copied().collect();
        keys.into_iter().for_each(|key| self.change(key, &change));
    }

    fn change(&self, key: LockKey, change: impl FnOnce(&mut FileLocks)) {
        let mut files = self.files.borrow_mut();
        let Some(locks) = files.get_mut(&key) else { return };
        let before = locks.whole.len() + locks.records.len();
        change(locks);
        let after = locks.whole.len() + locks.records.len();
        self.recount(before, after);
        let queue = locks.queue.clone();
        if locks.is_empty() {
            files.remove(&key);
        }
        drop(files);
        queue.wake_all();
    }

    fn recount(&self, before: usize, after: usize) {
        self.count.set((self.count.get() + after).saturating_sub(before));
    }
}

/// Changes the locks of the owner of `of`, which stay where they are among those of others.
fn change_own(records: &mut Vec<RecordLock>, of: &RecordLock, change: impl FnOnce(&mut Vec<RecordLock>)) {
    let is_own = |lock: &RecordLock| lock.owner == of.owner;
    let first = records.iter().position(is_own).unwrap_or(records.len());
    let last =
        records[first..].iter().position(|lock| !is_own(lock)).map_or(records.len(), |len| first + len);
    let mut own = records[first..last].to_vec();
    change(&mut own);
    records.splice(first..last, own);
}

/// Takes the range of `hole` out of its owner's locks.
fn cut_out(own: &mut Vec<RecordLock>, hole: &RecordLock) {
    let mut kept = Vec::with_capacity(own.len() + 1);
    for lock in own.drain(..) {
        if !lock.overlaps(hole) {
            kept.push(lock);
            continue;
        }
        if lock.start < hole.start {
            kept.push(RecordLock { last: hole.start - 1, ..lock });
        }
        if lock.last > hole.last {
            kept.push(RecordLock { start: hole.last + 1, ..lock });
        }
    }
    *own = kept;
}

/// Adds a lock to its owner's, and makes one of it and those of its kind that it touches.
fn take(own: &mut Vec<RecordLock>, mut wanted: RecordLock) {
    cut_out(own, &wanted);
    own.retain(|lock| {
        let touches = lock.start == wanted.last + 1 || lock.last + 1 == wanted.start;
        let joins = touches && lock.kind == wanted.kind;
        if joins {
            wanted.start = wanted.start.min(lock.start);
            wanted.last = wanted.last.max(lock.last);
        }
        !joins
    });
    let at = own.partition_point(|lock| lock.start < wanted.start);
    own.insert(at, wanted);
}

impl fmt::Debug for LockTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockTable({} locks)", self.count.get())
    }
}
