//! System V IPC: shared memory, semaphores, messages.

use libc::*;

use crate::sys::{self, Answer, Errno, child, ends, eventually, kill, peek, poke, sys, text, wait, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("shm_get", shm_get),
    ("shm_attach", shm_attach),
    ("shm_lifetime", shm_lifetime),
    ("shm_control", shm_control),
    ("shm_split", shm_split),
    ("sem_get", sem_get),
    ("sem_values", sem_values),
    ("sem_operations", sem_operations),
    ("sem_waiting", sem_waiting),
    ("sem_undo", sem_undo),
    ("sem_removal", sem_removal),
    ("msg_get", msg_get),
    ("msg_order", msg_order),
    ("msg_errors", msg_errors),
    ("msg_waiting", msg_waiting),
    ("msg_control", msg_control),
    ("sysv_permission", permission),
    ("sysv_tables", tables),
];

const PAGE: usize = 4096;
const RW: i32 = 0o600;

/// A key that no other run has.
fn key(n: i32) -> i32 {
    sys::pid() << 4 | n
}

fn shmget(key: i32, len: usize, flags: i32) -> Answer {
    sys!(SYS_shmget, key, len, flags)
}

fn shmat(id: usize, at: usize, flags: i32) -> Answer {
    sys!(SYS_shmat, id, at, flags)
}

fn shmctl(id: usize, command: i32, to: usize) -> Answer {
    sys!(SYS_shmctl, id, command, to)
}

fn shm_stat(id: usize) -> Result<shmid_ds, Errno> {
    let mut ds: shmid_ds = zeroed();
    shmctl(id, IPC_STAT, &raw mut ds as usize)?;
    Ok(ds)
}

fn attached(id: usize) -> Result<u64, Errno> {
    shm_stat(id).map(|ds| ds.shm_nattch)
}

fn shm_get(r: &mut Report) {
    let id = shmget(key(1), 100, IPC_CREAT | IPC_EXCL | RW).unwrap();
    r.see("again", shmget(key(1), 100, RW) == Ok(id));
    r.see("of no length", shmget(key(1), 0, 0) == Ok(id));
    r.see("too long for it", shmget(key(1), 101, 0));
    r.see("exclusive", shmget(key(1), 100, IPC_CREAT | IPC_EXCL | RW));
    r.see("exclusive alone", shmget(key(1), 100, IPC_EXCL) == Ok(id));
    r.see("missing", shmget(key(2), 100, RW));
    r.see("new without length", shmget(key(2), 0, IPC_CREAT | RW));
    r.see("new too long", shmget(key(2), usize::MAX, IPC_CREAT | RW));
    let private = shmget(IPC_PRIVATE, PAGE, RW).unwrap();
    r.see(
        "private is new",
        private != id
            && shmget(IPC_PRIVATE, PAGE, RW)
                .is_ok_and(|other| shmctl(other, IPC_RMID, 0).is_ok() && other != private),
    );
    r.see("remove", (shmctl(id, IPC_RMID, 0), shmctl(private, IPC_RMID, 0)));
    r.see("gone", shmctl(id, IPC_RMID, 0));
    r.see("key is free", shmget(key(1), 100, 0));
}

fn shm_attach(r: &mut Report) {
    let id = shmget(IPC_PRIVATE, 3 * PAGE - 1, RW).unwrap();
    let at = shmat(id, 0, 0).unwrap();
    poke(at + PAGE, 7);
    let reader = shmat(id, 0, SHM_RDONLY).unwrap();
    r.see("same bytes", (peek(reader + PAGE), peek(reader)));
    r.see("attached twice", attached(id));
    r.see(
        "store to a reader",
        ends(|| {
            poke(reader, 1);
            0
        }),
    );
    r.see("reader made writable", sys!(SYS_mprotect, reader, PAGE, PROT_READ | PROT_WRITE));
    r.see("at a taken place", shmat(id, at, 0));
    r.see("over it", shmat(id, at, SHM_REMAP) == Ok(at));
    r.see("kept", peek(at + PAGE));
    r.see("odd place", shmat(id, at + 1, 0));
    r.see("odd place rounded, taken", shmat(id, at + 1, SHM_RND));
    r.see("odd place rounded, over", shmat(id, at + 1, SHM_RND | SHM_REMAP) == Ok(at));
    r.see("remap nowhere", shmat(id, 0, SHM_REMAP));
    r.see("bad id", (shmat(usize::MAX, 0, 0), shmat(0x7fff_ffff, 0, 0)));
    r.see("detach inside", sys!(SYS_shmdt, at + PAGE));
    r.see("detach odd", sys!(SYS_shmdt, at + 1));
    r.see("detach", (sys!(SYS_shmdt, at), sys!(SYS_shmdt, at), sys!(SYS_shmdt, reader)));
    r.see("detach nothing", sys!(SYS_shmdt, 0));
    r.see("none attached", attached(id));
    let again = shmat(id, 0, 0).unwrap();
    r.see("contents stay", peek(again + PAGE));
    r.see("munmap detaches", (sys!(SYS_munmap, again, 3 * PAGE), attached(id)));
    shmctl(id, IPC_RMID, 0).unwrap();
}

fn shm_lifetime(r: &mut Report) {
    let id = shmget(key(3), PAGE, IPC_CREAT | RW).unwrap();
    let at = shmat(id, 0, 0).unwrap();
    poke(at, 1);
    let status = ends(|| {
        poke(at, peek(at) + 1);
        attached(id).map_or(99, |count| count as i32)
    });
    r.see("fork attaches", status);
    r.see("exit detaches", (attached(id), peek(at)));
    r.see("remove while attached", shmctl(id, IPC_RMID, 0));
    let ds = shm_stat(id).unwrap();
    r.see("marked", (ds.shm_perm.mode & 0o7777, ds.shm_perm.__key, ds.shm_nattch, peek(at)));
    r.see("key is free", shmget(key(3), PAGE, 0));
    let second = shmat(id, 0, 0);
    r.see("attach by id", second.is_ok());
    r.see("detach one", (sys!(SYS_shmdt, second.unwrap()), attached(id)));
    r.see("detach the last", (sys!(SYS_shmdt, at), attached(id)));
    let id = shmget(IPC_PRIVATE, PAGE, RW).unwrap();
    shmat(id, 0, 0).unwrap();
    r.see(
        "after exec",
        ends(|| {
            let pid = child(|| {
                // SAFETY: the strings live until the call, which does not return where it succeeds.
                unsafe { execl(c"/bin/true".as_ptr(), c"true".as_ptr(), std::ptr::null::<c_char>()) };
                1
            });
            wait(pid);
            attached(id).map_or(99, |count| count as i32)
        }),
    );
    r.see("after all", attached(id));
    shmctl(id, IPC_RMID, 0).unwrap();
}

fn shm_control(r: &mut Report) {
    let id = shmget(IPC_PRIVATE, 5000, 0o640).unwrap();
    let ds = shm_stat(id).unwrap();
    r.see("new", (ds.shm_segsz, ds.shm_perm.mode, ds.shm_nattch, ds.shm_atime, ds.shm_dtime, ds.shm_lpid));
    r.see("creator", ds.shm_cpid == sys::pid());
    r.see("times", ds.shm_ctime > 1_000_000_000);
    let at = shmat(id, 0, 0).unwrap();
    sys!(SYS_shmdt, at).unwrap();
    let ds = shm_stat(id).unwrap();
    r.see("used", (ds.shm_atime > 0, ds.shm_dtime >= ds.shm_atime, ds.shm_lpid == sys::pid()));
    let mut wanted = ds;
    wanted.shm_perm.mode = 0o7604;
    r.see("set mode", shmctl(id, IPC_SET, &raw const wanted as usize));
    r.see("mode", shm_stat(id).map(|ds| ds.shm_perm.mode));
    wanted.shm_perm.uid = u32::MAX;
    r.see("set bad user", shmctl(id, IPC_SET, &raw const wanted as usize));
    r.see("lock", (shmctl(id, SHM_LOCK, 0), shm_stat(id).map(|ds| ds.shm_perm.mode)));
    r.see("unlock", (shmctl(id, SHM_UNLOCK, 0), shm_stat(id).map(|ds| ds.shm_perm.mode)));
    r.see("bad address", (shmctl(id, IPC_STAT, 8), shmctl(id, IPC_SET, 8)));
    r.see("bad command", (shmctl(id, 77, 0), shmctl(id, -1, 0)));
    r.see("bad id", (shmctl(usize::MAX, IPC_STAT, 0), shmctl(id + 1, IPC_STAT, 0)));
    let mut info = [0u64; 9];
    r.see("limits", shmctl(0, IPC_INFO, info.as_mut_ptr() as usize).is_ok());
    r.see("of", info);
    let mut usage = [0u64; 6];
    r.see("usage", shmctl(0, 14, usage.as_mut_ptr() as usize).is_ok());
    r.ensure("counts", usage[0] as u32 >= 1 && usage[1] >= 2);
    shmctl(id, IPC_RMID, 0).unwrap();
}

fn shm_split(r: &mut Report) {
    let id = shmget(IPC_PRIVATE, 4 * PAGE, RW).unwrap();
    let at = shmat(id, 0, 0).unwrap();
    for page in 0..4 {
        poke(at + page * PAGE, page as u8 + 1);
    }
    r.see("protect the middle", sys!(SYS_mprotect, at + PAGE, PAGE, PROT_READ));
    r.see("parts count", attached(id));
    r.see("unmap one", (sys!(SYS_munmap, at + 2 * PAGE, PAGE), attached(id)));
    r.see("values", (peek(at), peek(at + PAGE), peek(at + 3 * PAGE)));
    r.see("detach all", (sys!(SYS_shmdt, at), attached(id)));
    let at = shmat(id, 0, 0).unwrap();
    let moved = sys!(SYS_mremap, at, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    r.see("shrink", (moved == Ok(at), attached(id)));
    r.see("detach the rest", (sys!(SYS_shmdt, at), attached(id)));
    let at = shmat(id, 0, 0).unwrap();
    r.see("give back", sys!(SYS_madvise, at, PAGE, MADV_REMOVE));
    r.see("then", (peek(at), peek(at + PAGE)));
    shmctl(id, IPC_RMID, 0).unwrap();
}

fn semget(key: i32, count: i32, flags: i32) -> Answer {
    sys!(SYS_semget, key, count, flags)
}

fn semctl(id: usize, number: i32, command: i32, argument: usize) -> Answer {
    sys!(SYS_semctl, id, number, command, argument)
}

fn op(number: u16, amount: i16, flags: i32) -> sembuf {
    sembuf { sem_num: number, sem_op: amount, sem_flg: flags as i16 }
}

fn semop(id: usize, parts: &[sembuf]) -> Answer {
    sys!(SYS_semop, id, parts.as_ptr(), parts.len())
}

fn timed(id: usize, parts: &[sembuf], sec: i64, nsec: i64) -> Answer {
    let timeout = timespec { tv_sec: sec, tv_nsec: nsec };
    sys!(SYS_semtimedop, id, parts.as_ptr(), parts.len(), &raw const timeout)
}

fn values(id: usize, count: usize) -> Result<Vec<u16>, Errno> {
    let mut values = vec![0u16; count];
    semctl(id, 0, GETALL, values.as_mut_ptr() as usize)?;
    Ok(values)
}

fn sem_get(r: &mut Report) {
    let id = semget(key(1), 3, IPC_CREAT | IPC_EXCL | RW).unwrap();
    r.see("again", semget(key(1), 3, 0) == Ok(id));
    r.see("fewer", (semget(key(1), 2, 0) == Ok(id), semget(key(1), 0, 0) == Ok(id)));
    r.see("more", semget(key(1), 4, 0));
    r.see("exclusive", semget(key(1), 3, IPC_CREAT | IPC_EXCL));
    r.see("missing", semget(key(2), 1, 0));
    r.see("new of none", semget(key(2), 0, IPC_CREAT | RW));
    r.see("negative", semget(key(2), -1, IPC_CREAT | RW));
    r.see("too many", semget(key(2), 32001, IPC_CREAT | RW));
    let most = semget(IPC_PRIVATE, 32000, RW);
    r.see("the most", most.is_ok());
    r.see("remove it", semctl(most.unwrap(), 0, IPC_RMID, 0));
    r.see("remove", (semctl(id, 0, IPC_RMID, 0), semctl(id, 0, IPC_RMID, 0)));
}

fn sem_values(r: &mut Report) {
    let id = semget(IPC_PRIVATE, 3, RW).unwrap();
    r.see("new", values(id, 3));
    r.see(
        "set",
        (
            semctl(id, 1, SETVAL, 5),
            semctl(id, 1, GETVAL, 0),
            semctl(id, 1, GETPID, 0) == Ok(sys::pid() as usize),
        ),
    );
    r.see("untouched pid", semctl(id, 0, GETPID, 0));
    r.see(
        "set too much",
        (semctl(id, 1, SETVAL, 32768), semctl(id, 1, SETVAL, usize::MAX), semctl(id, 1, SETVAL, 32767)),
    );
    r.see(
        "no such semaphore",
        (semctl(id, 3, SETVAL, 1), semctl(id, 3, GETVAL, 0), semctl(id, -1, GETVAL, 0)),
    );
    let all = [1u16, 2, 3];
    r.see("set all", (semctl(id, 0, SETALL, all.as_ptr() as usize), values(id, 3)));
    let bad = [1u16, 40000, 3];
    r.see("set all too much", (semctl(id, 0, SETALL, bad.as_ptr() as usize), values(id, 3)));
    r.see(
        "bad address",
        (
            semctl(id, 0, SETALL, 8),
            semctl(id, 0, GETALL, 8),
            semctl(id, 0, IPC_STAT, 8),
            semctl(id, 0, IPC_SET, 8),
        ),
    );
    r.see("bad command", (semctl(id, 0, 99, 0), semctl(id, 0, -1, 0)));
    r.see(
        "bad id",
        (semctl(usize::MAX, 0, GETVAL, 0), semctl(id + 1, 0, GETVAL, 0), semctl(usize::MAX, 0, 99, 0)),
    );
    let mut ds: semid_ds = zeroed();
    r.see("stat", semctl(id, 0, IPC_STAT, &raw mut ds as usize));
    r.see("shows", (ds.sem_nsems, ds.sem_otime, ds.sem_ctime > 0, ds.sem_perm.mode));
    semop(id, &[op(0, 1, 0)]).unwrap();
    semctl(id, 0, IPC_STAT, &raw mut ds as usize).unwrap();
    r.see("operation time", ds.sem_otime > 0);
    ds.sem_perm.mode = 0o7444;
    r.see(
        "set mode",
        (
            semctl(id, 0, IPC_SET, &raw mut ds as usize),
            semctl(id, 0, IPC_STAT, &raw mut ds as usize),
            ds.sem_perm.mode,
        ),
    );
    let mut info = [0i32; 10];
    r.see("limits", semctl(0, 0, IPC_INFO, info.as_mut_ptr() as usize).is_ok());
    r.see("of", (info[1], info[4], info[5], info[6], info[7], info[8], info[9]));
    r.ensure(
        "counts",
        semctl(0, 0, SEM_INFO, info.as_mut_ptr() as usize).is_ok() && info[7] >= 1 && info[9] >= 3,
    );
    semctl(id, 0, IPC_RMID, 0).unwrap();
}

const SEM_INFO: i32 = 19;

fn sem_operations(r: &mut Report) {
    let id = semget(IPC_PRIVATE, 3, RW).unwrap();
    r.see("up", (semop(id, &[op(0, 2, 0), op(1, 3, 0)]), values(id, 3)));
    r.see("down", (semop(id, &[op(0, -1, 0), op(1, -3, 0)]), values(id, 3)));
    r.see("all or nothing", (semop(id, &[op(0, -1, 0), op(1, -1, IPC_NOWAIT)]), values(id, 3)));
    r.see("zero", (semop(id, &[op(1, 0, 0)]), semop(id, &[op(0, 0, IPC_NOWAIT)])));
    r.see("in order", (semop(id, &[op(2, 1, 0), op(2, -1, 0), op(2, 0, 0)]), values(id, 3)));
    r.see("down before up", semop(id, &[op(2, -1, IPC_NOWAIT), op(2, 1, 0)]));
    r.see("too much", (semop(id, &[op(0, 32767, 0)]), values(id, 3)));
    r.see("the most", (semop(id, &[op(2, 32767, 0)]), values(id, 3)));
    r.see("undo too much", semop(id, &[op(1, -32767, IPC_NOWAIT | SEM_UNDO)]));
    r.see("no such semaphore", semop(id, &[op(3, 1, 0)]));
    r.see("none", sys!(SYS_semop, id, 0, 0));
    r.see("too many", semop(id, &vec![op(0, 0, 0); 501]));
    r.see("many", (semop(id, &vec![op(1, 1, 0); 500]), values(id, 3)));
    r.see("bad address", (sys!(SYS_semop, id, 8, 1), sys!(SYS_semop, usize::MAX, 8, 1)));
    r.see("bad id", (semop(usize::MAX, &[op(0, 1, 0)]), semop(id + 1, &[op(0, 1, 0)])));
    r.see("time is up", timed(id, &[op(0, -100, 0)], 0, 1_000_000));
    r.see("no time", timed(id, &[op(0, -100, 0)], 0, 0));
    r.see("in time", timed(id, &[op(0, -1, 0)], 0, 0));
    r.see("bad time", (timed(id, &[op(0, 1, 0)], -1, 0), timed(id, &[op(0, 1, 0)], 0, 1_000_000_000)));
    r.see("bad address of the time", sys!(SYS_semtimedop, id, [op(0, 1, 0)].as_ptr(), 1, 8));
    r.see("left", values(id, 3));
    semctl(id, 0, IPC_RMID, 0).unwrap();
}

/// Waits until so many tasks wait for the semaphore.
fn waiting(id: usize, number: i32, what: i32, count: usize) -> bool {
    eventually(|| semctl(id, number, what, 0) == Ok(count))
}

fn sem_waiting(r: &mut Report) {
    let id = semget(IPC_PRIVATE, 2, RW).unwrap();
    let first = child(|| i32::from(semop(id, &[op(0, -2, 0)]).is_err()));
    r.see("waits for more", waiting(id, 0, GETNCNT, 1));
    let second = child(|| i32::from(semop(id, &[op(0, -1, 0), op(1, 1, 0)]).is_err()));
    r.see("two wait", waiting(id, 0, GETNCNT, 2));
    r.see("none for zero", semctl(id, 0, GETZCNT, 0));
    semop(id, &[op(0, 1, 0)]).unwrap();
    r.see("the second goes", (wait(second), values(id, 2)));
    semop(id, &[op(0, 5, 0)]).unwrap();
    r.see("the first goes", (wait(first), values(id, 2)));
    let zero = child(|| i32::from(semop(id, &[op(0, 0, 0), op(0, 9, 0)]).is_err()));
    r.see("waits for zero", (waiting(id, 0, GETZCNT, 1), semctl(id, 0, GETNCNT, 0)));
    semctl(id, 0, SETVAL, 0).unwrap();
    r.see("goes", (wait(zero), values(id, 2)));
    // Handed over at once: who gives can not take it back.
    semctl(id, 0, SETVAL, 0).unwrap();
    let taker = child(|| i32::from(semop(id, &[op(0, -1, 0)]).is_err()));
    waiting(id, 0, GETNCNT, 1);
    semop(id, &[op(0, 1, 0)]).unwrap();
    r.see("nothing left", semop(id, &[op(0, -1, IPC_NOWAIT)]));
    r.see("taken", wait(taker));
    let interrupted = child(|| {
        // SAFETY: the handler does nothing.
        unsafe { signal(SIGUSR1, nothing as *const () as usize) };
        let answer = semop(id, &[op(0, -1, 0)]);
        i32::from(answer != Err(Errno::EINTR))
    });
    waiting(id, 0, GETNCNT, 1);
    kill(interrupted, SIGUSR1).unwrap();
    r.see("interrupted", wait(interrupted));
    r.see("waits no more", waiting(id, 0, GETNCNT, 0));
    let killed = child(|| i32::from(semop(id, &[op(0, -1, 0)]).is_err()));
    waiting(id, 0, GETNCNT, 1);
    kill(killed, SIGKILL).unwrap();
    r.see("killed", (wait(killed), semctl(id, 0, GETNCNT, 0)));
    semctl(id, 0, IPC_RMID, 0).unwrap();
}

extern "C" fn nothing(_: i32) {}

fn sem_undo(r: &mut Report) {
    let id = semget(IPC_PRIVATE, 2, RW).unwrap();
    semctl(id, 0, SETVAL, 5).unwrap();
    r.see(
        "takes",
        ends(|| {
            semop(id, &[op(0, -2, SEM_UNDO), op(1, 3, SEM_UNDO)]).unwrap();
            semop(id, &[op(0, -1, 0)]).unwrap();
            0
        }),
    );
    r.see("undone", values(id, 2));
    r.see(
        "killed",
        ends(|| {
            semop(id, &[op(0, -4, SEM_UNDO)]).unwrap();
            kill(sys::pid(), SIGKILL).unwrap();
            0
        }),
    );
    r.see("undone too", values(id, 2));
    let waiter = child(|| {
        let holder = child(|| {
            semop(id, &[op(0, -4, SEM_UNDO)]).unwrap();
            waiting(id, 0, GETNCNT, 1);
            0
        });
        eventually(|| semctl(id, 0, GETVAL, 0) == Ok(0));
        let answer = semop(id, &[op(0, -3, 0)]);
        wait(holder);
        i32::from(answer.is_err())
    });
    r.see("the end wakes", (wait(waiter), values(id, 2)));
    r.see(
        "set meanwhile",
        ends(|| {
            semop(id, &[op(0, 7, SEM_UNDO), op(1, 1, SEM_UNDO)]).unwrap();
            semctl(id, 0, SETVAL, 9).unwrap();
            0
        }),
    );
    r.see("not undone", values(id, 2));
    r.see(
        "below zero",
        ends(|| {
            semop(id, &[op(1, 2, SEM_UNDO)]).unwrap();
            semop(id, &[op(1, -2, 0)]).unwrap();
            0
        }),
    );
    r.see("at zero", values(id, 2));
    r.see(
        "inherited",
        ends(|| {
            semop(id, &[op(1, 4, SEM_UNDO)]).unwrap();
            ends(|| 0);
            i32::from(semctl(id, 1, GETVAL, 0) != Ok(4))
        }),
    );
    r.see(
        "range",
        ends(|| {
            semop(id, &[op(1, 30000, SEM_UNDO)]).unwrap();
            semctl(id, 0, SETVAL, 0).unwrap();
            semop(id, &[op(1, -30000, 0)]).unwrap();
            i32::from(semop(id, &[op(1, 30000, SEM_UNDO)]) != Err(Errno::ERANGE))
        }),
    );
    semctl(id, 0, IPC_RMID, 0).unwrap();
}

fn sem_removal(r: &mut Report) {
    let id = semget(IPC_PRIVATE, 1, RW).unwrap();
    let waiter = child(|| i32::from(semop(id, &[op(0, -1, 0)]) != Err(Errno::EIDRM)));
    waiting(id, 0, GETNCNT, 1);
    r.see("remove", semctl(id, 0, IPC_RMID, 0));
    r.see("waiter", wait(waiter));
    r.see("then", semop(id, &[op(0, 1, 0)]));
}

fn msgget(key: i32, flags: i32) -> Answer {
    sys!(SYS_msgget, key, flags)
}

fn msgctl(id: usize, command: i32, to: usize) -> Answer {
    sys!(SYS_msgctl, id, command, to)
}

fn send(id: usize, kind: i64, text: &str, flags: i32) -> Answer {
    let message = [&kind.to_ne_bytes()[..], text.as_bytes()].concat();
    sys!(SYS_msgsnd, id, message.as_ptr(), text.len(), flags)
}

fn receive(id: usize, len: usize, kind: i64, flags: i32) -> Result<(i64, String), Errno> {
    let mut message = vec![0u8; 8 + len];
    let count = sys!(SYS_msgrcv, id, message.as_mut_ptr(), len, kind, flags)?;
    let kind = i64::from_ne_bytes(message[..8].try_into().unwrap());
    Ok((kind, String::from_utf8_lossy(&message[8..8 + count]).into_owned()))
}

fn msg_stat(id: usize) -> Result<(u64, u64, u64), Errno> {
    let mut ds: msqid_ds = zeroed();
    msgctl(id, IPC_STAT, &raw mut ds as usize)?;
    Ok((ds.__msg_cbytes, ds.msg_qnum, ds.msg_qbytes))
}

fn msg_get(r: &mut Report) {
    let id = msgget(key(1), IPC_CREAT | IPC_EXCL | RW).unwrap();
    r.see("again", msgget(key(1), 0) == Ok(id));
    r.see("exclusive", msgget(key(1), IPC_CREAT | IPC_EXCL | RW));
    r.see("missing", msgget(key(2), RW));
    r.see("remove", (msgctl(id, IPC_RMID, 0), msgctl(id, IPC_RMID, 0), msgget(key(1), 0)));
}

fn msg_order(r: &mut Report) {
    let id = msgget(IPC_PRIVATE, RW).unwrap();
    for (kind, text) in [(5, "five"), (3, "three"), (9, "nine"), (3, "more"), (1, "")] {
        r.see(text, send(id, kind, text, 0));
    }
    r.see("state", msg_stat(id));
    r.see("copies", (0..6).map(|n| receive(id, 10, n, MSG_COPY | IPC_NOWAIT)).collect::<Vec<_>>());
    r.see("of a type", receive(id, 10, 3, 0));
    r.see("of another type", receive(id, 10, 5, MSG_EXCEPT));
    r.see("lowest", receive(id, 10, -4, 0));
    r.see("lowest again", receive(id, 10, -4, 0));
    r.see("none so low", receive(id, 10, -4, IPC_NOWAIT));
    r.see("oldest", receive(id, 10, 0, 0));
    r.see("none", receive(id, 10, 0, IPC_NOWAIT));
    send(id, 2, "b", 0).unwrap();
    send(id, 1, "a", 0).unwrap();
    r.see("lowest of all", receive(id, 10, i64::MIN, 0));
    r.see("state at the end", msg_stat(id));
    msgctl(id, IPC_RMID, 0).unwrap();
}

const MSG_COPY: i32 = 0o40000;

fn msg_errors(r: &mut Report) {
    let id = msgget(IPC_PRIVATE, RW).unwrap();
    r.see("bad type", (send(id, 0, "x", 0), send(id, -1, "x", 0)));
    r.see("longest", send(id, 1, &"x".repeat(8192), 0));
    r.see("too long", send(id, 1, &"x".repeat(8193), 0));
    r.see("bad length", sys!(SYS_msgsnd, id, [1i64, 0].as_ptr(), usize::MAX, 0));
    r.see("bad address", (sys!(SYS_msgsnd, id, 8, 1, 0), sys!(SYS_msgsnd, id, 8, usize::MAX, 0)));
    r.see("bad id", (send(usize::MAX, 1, "x", 0), send(id + 1, 1, "x", 0)));
    r.see(
        "full",
        (send(id, 1, &"x".repeat(8192), 0), send(id, 1, "x", IPC_NOWAIT), send(id, 1, "", IPC_NOWAIT)),
    );
    r.see("too small", receive(id, 8191, 0, 0));
    r.see("cut", receive(id, 5, 0, MSG_NOERROR));
    r.see("gone with its rest", msg_stat(id));
    r.see("receive bad length", sys!(SYS_msgrcv, id, 8, usize::MAX, 0, 0));
    r.see("receive bad id", (receive(usize::MAX, 1, 0, 0), receive(id + 1, 1, 0, 0)));
    r.see("copy and except", receive(id, 1, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT));
    r.see("copy and wait", receive(id, 1, 0, MSG_COPY));
    r.see("copy too small", receive(id, 1, 0, MSG_COPY | IPC_NOWAIT));
    r.see("copy cut", receive(id, 1, 0, MSG_COPY | IPC_NOWAIT | MSG_NOERROR));
    r.see("bad address loses it", (sys!(SYS_msgrcv, id, 8, 9000, 0, 0), msg_stat(id)));
    r.see(
        "bad commands",
        (msgctl(id, 99, 0), msgctl(id, -1, 0), msgctl(id, IPC_STAT, 8), msgctl(id, IPC_SET, 8)),
    );
    msgctl(id, IPC_RMID, 0).unwrap();
}

fn msg_waiting(r: &mut Report) {
    let id = msgget(IPC_PRIVATE, RW).unwrap();
    let receiver = child(|| i32::from(receive(id, 10, 7, 0) != Ok((7, "seven".into()))));
    sys::sleep_ms(20);
    send(id, 6, "six", 0).unwrap();
    send(id, 7, "seven", 0).unwrap();
    r.see("receiver", (wait(receiver), msg_stat(id)));
    let small = child(|| i32::from(receive(id, 1, 8, 0) != Err(Errno::E2BIG)));
    sys::sleep_ms(20);
    send(id, 8, "eight", 0).unwrap();
    r.see("too small", (wait(small), msg_stat(id)));
    r.see("fill", (send(id, 1, &"x".repeat(8192), 0), send(id, 1, &"x".repeat(8184), 0)));
    let sender = child(|| i32::from(send(id, 2, "late", 0).is_err()));
    sys::sleep_ms(20);
    r.see("room", receive(id, 10, 6, 0));
    r.see("still full", msg_stat(id));
    r.see("more room", receive(id, 10, 8, 0));
    r.see("sender", (wait(sender), msg_stat(id)));
    let interrupted = child(|| {
        // SAFETY: the handler does nothing.
        unsafe { signal(SIGALRM, nothing as *const () as usize) };
        sys!(SYS_alarm, 1).unwrap();
        i32::from(receive(id, 10, 99, 0) != Err(Errno::EINTR))
    });
    r.see("interrupted", wait(interrupted));
    let removed = child(|| i32::from(receive(id, 10, 99, 0) != Err(Errno::EIDRM)));
    let blocked = child(|| i32::from(send(id, 1, &"y".repeat(8192), 0) != Err(Errno::EIDRM)));
    sys::sleep_ms(50);
    msgctl(id, IPC_RMID, 0).unwrap();
    r.see("removed", (wait(removed), wait(blocked)));
}

fn msg_control(r: &mut Report) {
    let id = msgget(IPC_PRIVATE, 0o640).unwrap();
    let mut ds: msqid_ds = zeroed();
    msgctl(id, IPC_STAT, &raw mut ds as usize).unwrap();
    r.see(
        "new",
        (ds.msg_perm.mode, ds.msg_stime, ds.msg_rtime, ds.msg_ctime > 0, ds.msg_lspid, ds.msg_lrpid),
    );
    send(id, 1, "x", 0).unwrap();
    receive(id, 1, 0, 0).unwrap();
    msgctl(id, IPC_STAT, &raw mut ds as usize).unwrap();
    let pid = sys::pid();
    r.see("used", (ds.msg_stime > 0, ds.msg_rtime > 0, ds.msg_lspid == pid, ds.msg_lrpid == pid));
    ds.msg_qbytes = 4;
    ds.msg_perm.mode = 0o7600;
    r.see("set", msgctl(id, IPC_SET, &raw mut ds as usize));
    r.see("small", (send(id, 1, "12345", IPC_NOWAIT), send(id, 1, "1234", IPC_NOWAIT), msg_stat(id)));
    let mut info = [0i32; 8];
    r.see("limits", (msgctl(0, IPC_INFO, info.as_mut_ptr() as usize).is_ok(), info));
    r.ensure("counts", msgctl(0, 12, info.as_mut_ptr() as usize).is_ok() && info[0] >= 1 && info[1] >= 1);
    msgctl(id, IPC_RMID, 0).unwrap();
}

fn permission(r: &mut Report) {
    let shm = shmget(key(5), PAGE, IPC_CREAT | 0o604).unwrap();
    let sem = semget(key(5), 1, IPC_CREAT | 0o600).unwrap();
    let msg = msgget(key(5), IPC_CREAT | 0o602).unwrap();
    let shared = key(5);
    // A child prints for itself, so that the parent keeps its rights.
    let pid = child(|| {
        let (uid, gid) = (1234, 1234);
        if sys::pid() > 0
            && (sys!(SYS_setresgid, gid, gid, gid).is_err() || sys!(SYS_setresuid, uid, uid, uid).is_err())
        {
            println!("sysv_permission: not root");
            return 0;
        }
        let mut out = String::new();
        let mut see = |what: &str, value: String| out += &format!("other: {what}: {value}\n");
        see("shm for reading", format!("{:?}", shmget(shared, 0, 0o444) == Ok(shm)));
        see("shm for writing", format!("{:?}", shmget(shared, 0, 0o222)));
        see("attach reader", format!("{:?}", shmat(shm, 0, SHM_RDONLY).is_ok()));
        see("attach writer", format!("{:?}", shmat(shm, 0, 0)));
        see("remove", format!("{:?}", shmctl(shm, IPC_RMID, 0)));
        see("lock", format!("{:?}", shmctl(shm, SHM_LOCK, 0)));
        see("sem", format!("{:?}", (semget(shared, 0, 0) == Ok(sem), semget(shared, 0, 0o400))));
        see(
            "sem look",
            format!("{:?}", (semctl(sem, 0, GETVAL, 0), semctl(sem, 0, SETVAL, 1), values(sem, 1))),
        );
        see("sem operate", format!("{:?}", (semop(sem, &[op(0, 1, 0)]), semop(sem, &[op(0, 0, 0)]))));
        see("sem remove", format!("{:?}", semctl(sem, 0, IPC_RMID, 0)));
        see("msg send", format!("{:?}", send(msg, 1, "x", 0)));
        see("msg receive", format!("{:?}", (receive(msg, 1, 0, IPC_NOWAIT), msg_stat(msg))));
        see("msg remove", format!("{:?}", msgctl(msg, IPC_RMID, 0)));
        let own = msgget(IPC_PRIVATE, 0o600).unwrap();
        let mut ds: msqid_ds = zeroed();
        msgctl(own, IPC_STAT, &raw mut ds as usize).unwrap();
        ds.msg_qbytes = 1 << 20;
        see("queue too large", format!("{:?}", msgctl(own, IPC_SET, &raw mut ds as usize)));
        msgctl(own, IPC_RMID, 0).unwrap();
        print!("{out}");
        use std::io::Write;
        std::io::stdout().flush().unwrap();
        0
    });
    r.see("child", wait(pid));
    shmctl(shm, IPC_RMID, 0).unwrap();
    semctl(sem, 0, IPC_RMID, 0).unwrap();
    msgctl(msg, IPC_RMID, 0).unwrap();
}

fn tables(r: &mut Report) {
    for name in ["msg", "sem", "shm"] {
        let table = text(&format!("/proc/sysvipc/{name}")).unwrap();
        r.see(name, table.lines().next().map(str::to_owned));
    }
    for name in ["shmmax", "shmall", "shmmni", "msgmax", "msgmnb", "msgmni"] {
        r.see(name, text(&format!("/proc/sys/kernel/{name}")));
    }
    let id = shmget(key(6), 100, IPC_CREAT | 0o640).unwrap();
    let at = shmat(id, 0, 0).unwrap();
    let table = text("/proc/sysvipc/shm").unwrap();
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&id.to_string()));
    let fields: Vec<&str> = line.unwrap().split_whitespace().collect();
    r.see("a segment", (fields.len(), &fields[2..4], fields[6], fields[0] == key(6).to_string()));
    let maps = text("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.starts_with(&format!("{at:x}-"))).unwrap().to_owned();
    let expected = format!("/SYSV{:08x} (deleted)", key(6));
    r.see("in maps", (line.split_whitespace().nth(1), line.ends_with(&expected)));
    shmctl(id, IPC_RMID, 0).unwrap();
    let id = semget(key(6), 7, IPC_CREAT | 0o640).unwrap();
    let table = text("/proc/sysvipc/sem").unwrap();
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&id.to_string()));
    r.see("a set", line.unwrap().split_whitespace().skip(2).take(2).collect::<Vec<_>>());
    semctl(id, 0, IPC_RMID, 0).unwrap();
}
