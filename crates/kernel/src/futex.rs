//! Futexes (futex(2)): sleep while a word in memory has a value, until somebody wakes the address.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use lg_abi::Errno;
use lg_platform::{Access, Prot, UserAddr};

use crate::Kernel;
use crate::mm::{Backing, MemoryManager, UserMemory, VmaFlags};
use crate::task::{Tid, WaitQueue};

/// What identifies a futex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FutexKey {
    /// An address of one memory.
    Private(u64, u64),
    /// A frame that several memories may map, and the offset in it.
    Shared(u32, usize),
}

/// A sleeper on a futex. The task's call holds it; the table holds it weakly.
pub struct FutexWaiter {
    key: Cell<FutexKey>,
    bitset: u32,
    woken: Cell<bool>,
    /// Keeps a shared futex's frame from being used for something else.
    queue: Rc<WaitQueue>,
}

impl FutexWaiter {
    /// Says whether it has been woken.
    pub fn is_woken(&self) -> bool {
        self.woken.get()
    }

    /// Returns the queue that is woken with it.
    pub fn queue(&self) -> &Rc<WaitQueue> {
        &self.queue
    }
}

/// All sleepers on futexes.
#[derive(Default)]
pub struct FutexTable {
    waiters: HashMap<FutexKey, Vec<Weak<FutexWaiter>>>,
}

impl FutexTable {
    /// Adds a sleeper.
    pub fn wait(&mut self, key: FutexKey, bitset: u32) -> Rc<FutexWaiter> {
        let waiter = Rc::new(FutexWaiter {
            key: Cell::new(key),
            bitset,
            woken: Cell::new(false),
            queue: WaitQueue::new(),
        });
        let list = self.waiters.entry(key).or_default();
        list.retain(|other| other.strong_count() > 0);
        list.push(Rc::downgrade(&waiter));
        waiter
    }

    /// Wakes up to `count` sleepers whose bitset shares a bit with `bitset`; returns how many.
    pub fn wake(&mut self, key: FutexKey, count: u64, bitset: u32) -> u64 {
        let Some(list) = self.waiters.get_mut(&key) else { return 0 };
        let mut woken = 0;
        list.retain(|waiter| {
            let Some(waiter) = waiter.upgrade() else { return false };
            if woken >= count || waiter.bitset & bitset == 0 {
                return true;
            }
            waiter.woken.set(true);
            waiter.queue.wake_all();
            woken += 1;
            false
        });
        if list.is_empty() {
            self.waiters.remove(&key);
        }
        woken
    }

    /// Moves up to `count` sleepers from one futex to another; returns how many.
    pub fn requeue(&mut self, from: FutexKey, to: FutexKey, count: u64) -> u64 {
        if from == to {
            return 0;
        }
        let Some(mut list) = self.waiters.remove(&from) else { return 0 };
        list.retain(|waiter| waiter.strong_count() > 0);
        let rest = list.split_off(list.len().min(usize::try_from(count).unwrap_or(usize::MAX)));
        if !rest.is_empty() {
            self.waiters.insert(from, rest);
        }
        let moved = list.len() as u64;
        for waiter in &list {
            if let Some(waiter) = waiter.upgrade() {
                waiter.key.set(to);
            }
        }
        self.waiters.entry(to).or_default().extend(list);
        moved
    }

    /// Wakes sleepers on a private or shared futex at an address, for the end of a thread.
    pub fn wake_address(&mut self, mm: &Rc<RefCell<MemoryManager>>, addr: u64, count: u64) {
        self.wake(FutexKey::Private(mm.borrow().id(), addr), count, u32::MAX);
        if let Ok(key) = shared_key(mm, addr) {
            self.wake(key, count, u32::MAX);
        }
    }
}

/// Returns the key of the futex at `addr`. Only in memory that is shared does the frame count.
///
/// Errors: EINVAL for a misaligned address, EFAULT.
pub fn futex_key(mm: &Rc<RefCell<MemoryManager>>, addr: u64, is_private: Sharing) -> Result<FutexKey, Errno> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if is_private == Sharing::Private {
        return Ok(FutexKey::Private(mm.borrow().id(), addr));
    }
    shared_key(mm, addr)
}

/// Whether a futex call says that only this process uses the futex (FUTEX_PRIVATE_FLAG).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Only this process.
    Private,
    /// Whoever maps the memory.
    Shared,
}

fn shared_key(mm: &Rc<RefCell<MemoryManager>>, addr: u64) -> Result<FutexKey, Errno> {
    let mut mm = mm.borrow_mut();
    let area = mm.area_at(UserAddr(addr)).ok_or(Errno::EFAULT)?;
    // Nobody can change what nobody may write: a futex there makes no sense, and Linux refuses it.
    if matches!(area.backing, Backing::Anonymous) && !area.prot.contains(Prot::WRITE) {
        return Err(Errno::EFAULT);
    }
    let is_shared = area.flags.contains(VmaFlags::SHARED) && !matches!(area.backing, Backing::Kernel(..));
    if !is_shared {
        return Ok(FutexKey::Private(mm.id(), addr));
    }
    let frame = mm.access(UserAddr(addr), Access::Read).ok_or(Errno::EFAULT)?;
    Ok(FutexKey::Shared(frame.0, UserAddr(addr).page_offset()))
}

/// Most entries of a robust list that are followed (Linux's ROBUST_LIST_LIMIT).
const ROBUST_LIMIT: usize = 2048;

const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

impl Kernel {
    /// Marks the robust futexes that an ending thread holds, and wakes one waiter of each
    /// (set_robust_list(2)). The list is the guest's and may hold anything.
    pub(crate) fn release_robust_futexes(&mut self, tid: Tid) {
        let Some(task) = self.tasks.get(&tid) else { return };
        let head = task.robust_list;
        if head == 0 {
            return;
        }
        let mm = task.mm.clone();
        let user = UserMemory::new(&mm);
        let Ok([first, offset, pending]) = user.copy_in::<[u64; 3]>(head) else { return };
        let mut entry = first;
        for _ in 0..ROBUST_LIMIT {
            if entry & !1 == head || entry == 0 {
                break;
            }
            if entry != pending {
                self.release_robust(&mm, tid, (entry & !1).wrapping_add(offset));
            }
            match user.copy_in::<u64>(entry & !1) {
                Ok(next) => entry = next,
                Err(_) => break,
            }
        }
        if pending != 0 {
            self.release_robust(&mm, tid, (pending & !1).wrapping_add(offset));
        }
    }

    fn release_robust(&mut self, mm: &Rc<RefCell<MemoryManager>>, tid: Tid, addr: u64) {
        let user = UserMemory::new(mm);
        let Ok(word) = user.copy_in::<u32>(addr) else { return };
        if word & FUTEX_TID_MASK != tid.0 {
            return;
        }
        let _ = user.copy_out(addr, &(word & FUTEX_WAITERS | FUTEX_OWNER_DIED));
        if word & FUTEX_WAITERS != 0 {
            self.futexes.wake_address(mm, addr, 1);
        }
    }
}
