//! What semop(2) with SEM_UNDO leaves to be undone at the end of a process.

use std::collections::BTreeMap;

use lg_abi::Errno;

use super::SEMVMX;
use crate::task::Tid;
use crate::vfs::Quota;

/// The adjustments of all processes. One that is 0 is not kept.
pub struct UndoLists {
    lists: BTreeMap<Tid, BTreeMap<(u32, u16), i32>>,
    entries: Quota,
}

impl UndoLists {
    /// Returns empty lists for up to `max` adjustments.
    pub fn new(max: u64) -> UndoLists {
        UndoLists { lists: BTreeMap::new(), entries: Quota::new(max) }
    }

    /// Checks that a process may add these amounts, semaphore by semaphore, to its adjustments of a set.
    ///
    /// Errors: ERANGE beyond SEMAEM, ENOSPC where there are too many adjustments.
    pub fn check(&self, process: Tid, set: u32, amounts: &BTreeMap<u16, i32>) -> Result<(), Errno> {
        let list = self.lists.get(&process);
        let mut new = 0;
        for (number, amount) in amounts {
            let before = list.and_then(|list| list.get(&(set, *number))).copied();
            let after = before.unwrap_or(0) + amount;
            if !(-SEMVMX - 1..=SEMVMX).contains(&after) {
                return Err(Errno::ERANGE);
            }
            new += u64::from(before.is_none());
        }
        if new > self.entries.left() { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// Adds amounts that [`UndoLists::check`] has approved.
    pub fn add(&mut self, process: Tid, set: u32, amounts: &BTreeMap<u16, i32>) {
        for (number, amount) in amounts.iter().filter(|(_, amount)| **amount != 0) {
            let list = self.lists.entry(process).or_default();
            let before = list.remove(&(set, *number));
            let after = before.unwrap_or(0) + amount;
            if after != 0 {
                list.insert((set, *number), after);
            }
            match (before.is_some(), after != 0) {
                (false, true) => self.entries.take_over_limit(1),
                (true, false) => self.entries.give(1),
                _ => {}
            }
        }
    }

    /// Forgets the adjustments of a set, or of one semaphore of it: it was set to a value, or removed.
    pub fn forget(&mut self, set: u32, number: Option<u16>) {
        for list in self.lists.values_mut() {
            let before = list.len();
            list.retain(|(of, other), _| *of != set || number.is_some_and(|number| number != *other));
            self.entries.give((before - list.len()) as u64);
        }
        self.lists.retain(|_, list| !list.is_empty());
    }

    /// Takes out the adjustments of a process that ends: by set, each with its semaphores and amounts.
    pub fn take(&mut self, process: Tid) -> BTreeMap<u32, Vec<(u16, i32)>> {
        let mut by_set: BTreeMap<u32, Vec<(u16, i32)>> = BTreeMap::new();
        for ((set, number), amount) in self.lists.remove(&process).unwrap_or_default() {
            self.entries.give(1);
            by_set.entry(set).or_default().push((number, amount));
        }
        by_set
    }
}
