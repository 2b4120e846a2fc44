use std::collections::BTreeMap;
use std::rc::Rc;

use lg_abi::ipc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use lg_abi::{Errno, Sembuf};

use super::*;
use crate::task::{Credentials, Tid};

fn root() -> Credentials {
    Credentials::new(0, 0)
}

fn caller(creds: &Credentials) -> Caller<'_> {
    Caller { creds, pid: 7, now: 1_000_000_000 }
}

fn queue(ids: &mut Ids<Queue>, key: i32, flags: u32) -> Result<u32, Errno> {
    let creds = root();
    let caller = caller(&creds);
    ids.get(&caller, key, flags, |_| Ok(()), |permission| Ok(Queue::new(&caller, permission)))
}

#[test]
fn an_id_does_not_come_back_before_all_others_were_given_out() {
    let mut ids = Ids::new(MSGMNI);
    let first = queue(&mut ids, IPC_PRIVATE, 0o600).unwrap();
    ids.remove(first);
    for _ in 0..40_000 {
        let id = queue(&mut ids, IPC_PRIVATE, 0o600).unwrap();
        assert_ne!(id, first);
        assert_eq!(ids.find(first).err(), Some(Errno::EINVAL));
        ids.remove(id);
    }
    assert_eq!(ids.count(), 0);
}

#[test]
fn a_table_has_no_more_objects_than_it_may() {
    let mut ids = Ids::new(3);
    let all: Vec<u32> = (1..=3).map(|key| queue(&mut ids, key, IPC_CREAT).unwrap()).collect();
    assert_eq!(queue(&mut ids, 4, IPC_CREAT), Err(Errno::ENOSPC));
    assert_eq!(queue(&mut ids, 2, 0), Ok(all[1]));
    assert_eq!(queue(&mut ids, 2, IPC_CREAT | IPC_EXCL), Err(Errno::EEXIST));
    ids.remove(all[0]);
    assert!(queue(&mut ids, 4, IPC_CREAT).is_ok());
}

#[test]
fn a_removed_segment_lives_while_it_is_attached() {
    let creds = root();
    let caller = caller(&creds);
    let mut ipc = Ipc::default();
    let pages = ipc.shm_pages.clone();
    let make = |permission| Segment::new(&caller, permission, 5000, &pages);
    let id = ipc.shm.get(&caller, 1, IPC_CREAT | 0o600, |_| Ok(()), make).unwrap();
    let attachment = Attachment::new(&ipc.shm.find(id).unwrap());
    let second = attachment.clone();
    ipc.shm.remove(id);
    assert_eq!(ipc.shm.find(id).unwrap().attached(), 2);
    assert_eq!(ipc.shm_pages.used(), 2);
    drop((attachment, second));
    assert_eq!(ipc.shm.find(id).err(), Some(Errno::EINVAL));
    assert_eq!(ipc.shm_pages.used(), 0);
}

#[test]
fn messages_and_semaphores_count_until_they_are_gone() {
    let creds = root();
    let caller = caller(&creds);
    let ipc = Ipc::default();
    let permission = Permission::new(&caller, 0, 0o600);
    let queue = Queue::new(&caller, permission);
    for kind in 1..=3 {
        queue.send(&caller, Message::new(kind, vec![0; 100], &ipc.message_bytes).unwrap());
    }
    let receiver = Receiver::new(Selection::Equal(2), None, 7);
    let message = queue.receive(&caller, &receiver).unwrap().unwrap();
    assert_eq!((message.kind, ipc.message_bytes.used()), (2, 3 * 164));
    drop(message);
    queue.end_waiting();
    assert_eq!(ipc.message_bytes.used(), 0);
    let too_long = vec![0; MESSAGE_TOTAL as usize];
    assert_eq!(Message::new(1, too_long, &ipc.message_bytes).err(), Some(Errno::ENOMEM));

    let set = SemSet::new(&caller, permission, 5, &ipc.semaphores).unwrap();
    assert_eq!(ipc.semaphores.used(), 5);
    drop(set);
    assert_eq!(ipc.semaphores.used(), 0);
}

#[test]
fn what_is_to_be_undone_is_bounded_and_forgotten() {
    let mut undo = UndoLists::new(2);
    let amounts = |pairs: &[(u16, i32)]| pairs.iter().copied().collect::<BTreeMap<u16, i32>>();
    let (first, second) = (Tid(1), Tid(2));
    undo.check(first, 5, &amounts(&[(0, 3), (1, -3)])).unwrap();
    undo.add(first, 5, &amounts(&[(0, 3), (1, -3)]));
    assert_eq!(undo.check(second, 5, &amounts(&[(0, 1)])), Err(Errno::ENOSPC));
    assert_eq!(undo.check(first, 5, &amounts(&[(0, SEMVMX)])), Err(Errno::ERANGE));
    // What comes to nothing is not kept, and makes room.
    undo.add(first, 5, &amounts(&[(0, -3)]));
    undo.check(second, 5, &amounts(&[(0, 1)])).unwrap();
    assert_eq!(undo.take(first), BTreeMap::from([(5, vec![(1, -3)])]));
    undo.add(second, 5, &amounts(&[(0, 1), (1, 1)]));
    undo.forget(5, Some(0));
    assert_eq!(undo.take(second), BTreeMap::from([(5, vec![(1, 1)])]));
    assert!(undo.check(second, 5, &amounts(&[(0, 1), (1, 1)])).is_ok());
}

#[test]
fn who_makes_an_operation_possible_carries_it_out() {
    let creds = root();
    let caller = caller(&creds);
    let mut ipc = Ipc::default();
    let set = SemSet::new(&caller, Permission::new(&caller, 0, 0o600), 1, &ipc.semaphores).unwrap();
    let operation = |amount| Operation::new(Tid(1), vec![Sembuf { sem_num: 0, sem_op: amount, sem_flg: 0 }]);
    let taker: Rc<Operation> = operation(-1);
    assert_eq!(set.operate(0, 1, &taker, &mut ipc.undo), Ok(Attempt::Blocks(0)));
    set.wait(&taker, 0);
    assert_eq!(set.count_waiting(0, Awaited::More), 1);
    assert_eq!(set.operate(0, 1, &operation(1), &mut ipc.undo), Ok(Attempt::Done));
    assert_eq!((taker.outcome(), set.values()), (Some(Ok(())), vec![0]));
    assert_eq!(set.operate(0, 1, &operation(-1), &mut ipc.undo), Ok(Attempt::Blocks(0)));
    assert_eq!(set.count_waiting(0, Awaited::More), 0);
}
