//! Semaphore sets (semget(2), semop(2), semctl(2)).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use lg_abi::ipc::SEM_UNDO;
use lg_abi::{Errno, Sembuf, SemidDs};

use super::{Caller, Object, Permission, SEMMSL, SEMVMX, UndoLists};
use crate::task::{Tid, WaitQueue};
use crate::vfs::Quota;

#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: i32,
    /// The process that operated on it last.
    pid: u32,
}

/// A set of semaphores.
pub struct SemSet {
    permission: Cell<Permission>,
    semaphores: RefCell<Vec<Semaphore>>,
    waiting: RefCell<Vec<Weak<Operation>>>,
    operation_time: Cell<i64>,
    change_time: Cell<i64>,
    total: Rc<Quota>,
}

/// A semop(2) that a task has asked for. While it can not be carried out, the task sleeps on `done`.
pub struct Operation {
    /// The process that asks.
    pub process: Tid,
    /// What it asks for.
    pub parts: Vec<Sembuf>,
    /// Woken once there is an outcome.
    pub done: Rc<WaitQueue>,
    /// Which part it waits for.
    blocked_on: Cell<usize>,
    outcome: Cell<Option<Result<(), Errno>>>,
}

impl Operation {
    /// Returns an operation that has not been tried.
    pub fn new(process: Tid, parts: Vec<Sembuf>) -> Rc<Operation> {
        Rc::new(Operation {
            process,
            parts,
            done: WaitQueue::new(),
            blocked_on: Cell::new(0),
            outcome: Cell::new(None),
        })
    }

    /// Says whether it would change a semaphore.
    pub fn alters(&self) -> bool {
        self.parts.iter().any(|part| part.sem_op != 0)
    }

    /// Returns what has come of it; `None` while it waits.
    pub fn outcome(&self) -> Option<Result<(), Errno>> {
        self.outcome.get()
    }

    fn finish(&self, outcome: Result<(), Errno>) {
        self.outcome.set(Some(outcome));
        self.done.wake_all();
    }
}

/// What came of trying an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// It is done.
    Done,
    /// The part of this index can not be done now, and nothing has changed.
    Blocks(usize),
}

impl SemSet {
    /// Returns a set of semaphores at 0, which count in `total`.
    ///
    /// Errors: EINVAL for none or more than SEMMSL, ENOSPC.
    pub fn new(
        caller: &Caller<'_>,
        permission: Permission,
        count: u32,
        total: &Rc<Quota>,
    ) -> Result<Rc<SemSet>, Errno> {
        if count == 0 || count > SEMMSL {
            return Err(Errno::EINVAL);
        }
        total.take(count.into()).map_err(|_| Errno::ENOSPC)?;
        Ok(Rc::new(SemSet {
            permission: Cell::new(permission),
            semaphores: RefCell::new(vec![Semaphore::default(); count as usize]),
            waiting: RefCell::default(),
            operation_time: Cell::new(0),
            change_time: Cell::new(caller.now),
            total: total.clone(),
        }))
    }

    /// Returns how many semaphores there are.
    pub fn count(&self) -> usize {
        self.semaphores.borrow().len()
    }

    /// Changes owner and mode.
    pub fn set_permission(&self, caller: &Caller<'_>, permission: Permission) {
        self.permission.set(permission);
        self.change_time.set(caller.now);
    }

    /// Returns what IPC_STAT shows.
    pub fn show(&self, id: u32) -> SemidDs {
        SemidDs {
            sem_perm: self.permission.get().show(id),
            sem_otime: self.operation_time.get(),
            sem_ctime: self.change_time.get(),
            sem_nsems: self.count() as u64,
            ..SemidDs::default()
        }
    }

    /// Returns all values.
    pub fn values(&self) -> Vec<u16> {
        self.semaphores.borrow().iter().map(|semaphore| semaphore.value as u16).collect()
    }

    /// Returns value and last process of a semaphore; `None` where there is none of this number.
    pub fn value_and_pid(&self, number: usize) -> Option<(i32, u32)> {
        self.semaphores.borrow().get(number).map(|semaphore| (semaphore.value, semaphore.pid))
    }

    /// Counts the tasks that wait for a semaphore to become larger (`ForMore`) or 0.
    pub fn count_waiting(&self, number: usize, what: Awaited) -> u64 {
        let waiting = self.waiting.borrow();
        let parts = waiting.iter().filter_map(|operation| {
            let operation = operation.upgrade().filter(|operation| operation.outcome().is_none())?;
            operation.parts.get(operation.blocked_on.get()).copied()
        });
        parts
            .filter(|part| {
                usize::from(part.sem_num) == number && (part.sem_op == 0) == (what == Awaited::Zero)
            })
            .count() as u64
    }

    /// Sets semaphores from `first` on to these values, and carries out what waited for that.
    pub fn set_values(
        &self,
        id: u32,
        caller: &Caller<'_>,
        first: usize,
        values: &[u16],
        undo: &mut UndoLists,
    ) {
        for (semaphore, value) in self.semaphores.borrow_mut().iter_mut().skip(first).zip(values) {
            *semaphore = Semaphore { value: i32::from(*value), pid: caller.pid };
        }
        self.change_time.set(caller.now);
        self.update(id, caller.now, undo);
    }

    /// Tries an operation; where it changes something, what waited for that is carried out too.
    ///
    /// Errors: EFBIG, ERANGE, ENOSPC.
    pub fn operate(
        &self,
        id: u32,
        now: i64,
        operation: &Operation,
        undo: &mut UndoLists,
    ) -> Result<Attempt, Errno> {
        let attempt = self.attempt(id, operation, undo)?;
        if attempt == Attempt::Done {
            self.operation_time.set(now);
            if operation.alters() {
                self.update(id, now, undo);
            }
        }
        Ok(attempt)
    }

    /// Puts an operation with those that wait, to be carried out by whoever makes that possible.
    pub fn wait(&self, operation: &Rc<Operation>, part: usize) {
        operation.blocked_on.set(part);
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|other| other.strong_count() > 0);
        waiting.push(Rc::downgrade(operation));
    }

    /// Undoes what a process that ends has left to be undone.
    pub fn adjust(&self, id: u32, process: Tid, now: i64, amounts: &[(u16, i32)], undo: &mut UndoLists) {
        for (number, amount) in amounts {
            if let Some(semaphore) = self.semaphores.borrow_mut().get_mut(usize::from(*number)) {
                semaphore.value = (semaphore.value + amount).clamp(0, SEMVMX);
                semaphore.pid = process.0;
            }
        }
        self.operation_time.set(now);
        self.update(id, now, undo);
    }

    /// Ends every waiting operation with EIDRM: the set has been removed.
    pub fn end_waiting(&self) {
        for operation in self.waiting.take().iter().filter_map(Weak::upgrade) {
            operation.finish(Err(Errno::EIDRM));
        }
    }

    fn attempt(&self, id: u32, operation: &Operation, undo: &mut UndoLists) -> Result<Attempt, Errno> {
        let mut semaphores = self.semaphores.borrow_mut();
        let mut values: BTreeMap<u16, i32> = BTreeMap::new();
        let mut undone: BTreeMap<u16, i32> = BTreeMap::new();
        for (index, part) in operation.parts.iter().enumerate() {
            let before = semaphores.get(usize::from(part.sem_num)).ok_or(Errno::EFBIG)?.value;
            let value = values.entry(part.sem_num).or_insert(before);
            let after = *value + i32::from(part.sem_op);
            if (part.sem_op == 0 && *value != 0) || after < 0 {
                return Ok(Attempt::Blocks(index));
            }
            if after > SEMVMX {
                return Err(Errno::ERANGE);
            }
            *value = after;
            if part.sem_flg as u16 & SEM_UNDO as u16 != 0 {
                *undone.entry(part.sem_num).or_insert(0) -= i32::from(part.sem_op);
            }
        }
        undo.check(operation.process, id, &undone)?;
        undo.add(operation.process, id, &undone);
        for (number, value) in values {
            semaphores[usize::from(number)] = Semaphore { value, pid: operation.process.0 };
        }
        Ok(Attempt::Done)
    }

    /// Carries out waiting operations, the oldest first, until none can be.
    fn update(&self, id: u32, now: i64, undo: &mut UndoLists) {
        loop {
            let mut changed = false;
            let waiting = self.waiting.borrow().clone();
            for operation in waiting.iter().filter_map(Weak::upgrade) {
                match self.attempt(id, &operation, undo) {
                    Ok(Attempt::Blocks(part)) => {
                        operation.blocked_on.set(part);
                        continue;
                    }
                    Ok(Attempt::Done) => {
                        changed |= operation.alters();
                        self.operation_time.set(now);
                        operation.finish(Ok(()));
                    }
                    Err(errno) => operation.finish(Err(errno)),
                }
                self.waiting
                    .borrow_mut()
                    .retain(|other| other.upgrade().is_some_and(|other| !Rc::ptr_eq(&other, &operation)));
            }
            if !changed {
                return;
            }
        }
    }
}

/// What a task waits for a semaphore to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// Larger (GETNCNT).
    More,
    /// 0 (GETZCNT).
    Zero,
}

impl Object for SemSet {
    fn permission(&self) -> Permission {
        self.permission.get()
    }

    fn forget_key(&self) {
        self.permission.set(Permission { key: 0, ..self.permission.get() });
    }
}

impl Drop for SemSet {
    fn drop(&mut self) {
        self.total.give(self.count() as u64);
    }
}
