//! Threads and futexes.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};

use libc::*;

use crate::sys::{self, sys};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("threads_compute", threads_compute),
    ("mutex_and_condvar", mutex_and_condvar),
    ("channels", channels),
    ("thread_locals", thread_locals),
    ("thread_ends", thread_ends),
    ("thread_signals", thread_signals),
    ("futex", futexes),
    ("futex_shared", futex_shared),
    ("robust_mutex", robust_mutex),
    ("threads_and_fork", threads_and_fork),
    ("many_threads", many_threads),
    ("spinning_thread", spinning_thread),
];

fn threads_compute(r: &mut Report) {
    let parts: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8u64)
            .map(|part| {
                scope.spawn(move || (part * 100_000..(part + 1) * 100_000).map(|n| n * n % 1009).sum::<u64>())
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    r.see("sums", parts);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100_000).for_each(|_| _ = total.fetch_add(1, SeqCst)));
        }
    });
    r.see("atomic", total.into_inner());
}

fn mutex_and_condvar(r: &mut Report) {
    let shared = Arc::new((Mutex::new(0u32), Condvar::new()));
    let workers: Vec<_> = (0..6u32)
        .map(|me| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                for round in 0..50 {
                    let mut turn = shared.0.lock().unwrap();
                    while *turn != round * 6 + me {
                        turn = shared.1.wait(turn).unwrap();
                    }
                    *turn += 1;
                    shared.1.notify_all();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    r.see("turns", *shared.0.lock().unwrap());
    let start = Instant::now();
    let timed = shared.1.wait_timeout(shared.0.lock().unwrap(), Duration::from_millis(30)).unwrap();
    r.see("timeout", timed.1.timed_out());
    r.ensure("not too soon", start.elapsed() >= Duration::from_millis(30));
    let barrier = Barrier::new(5);
    let leaders = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                for _ in 0..20 {
                    leaders.fetch_add(u32::from(barrier.wait().is_leader()), SeqCst);
                }
            });
        }
    });
    r.see("barrier", leaders.into_inner());
    let lock = RwLock::new(0u64);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let lock = &lock;
            scope.spawn(move || {
                for _ in 0..500 {
                    if n % 2 == 0 {
                        *lock.write().unwrap() += 1;
                    } else {
                        std::hint::black_box(*lock.read().unwrap());
                    }
                }
            });
        }
    });
    r.see("read-write lock", lock.into_inner().unwrap());
}

fn channels(r: &mut Report) {
    let (to_worker, from_main) = mpsc::sync_channel::<u64>(4);
    let (to_main, from_worker) = mpsc::channel::<u64>();
    let worker = std::thread::spawn(move || {
        for number in from_main {
            to_main.send(number * number).unwrap();
        }
    });
    let sender = std::thread::spawn(move || (0..2000).for_each(|number| to_worker.send(number).unwrap()));
    let squares: Vec<u64> = from_worker.iter().collect();
    r.see("count, sum", (squares.len(), squares.iter().sum::<u64>()));
    r.see("ends", (worker.join().is_ok(), sender.join().is_ok()));
}

fn thread_locals(r: &mut Report) {
    thread_local!(static OWN: Cell<u32> = const { Cell::new(1) });
    OWN.set(5);
    let others: Vec<u32> = (0..4)
        .map(|n| {
            std::thread::spawn(move || {
                let first = OWN.get();
                OWN.set(first + n);
                std::thread::sleep(Duration::from_millis(5));
                OWN.get()
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    r.see("others", others);
    r.see("own", OWN.get());
    r.see("after fork", sys::ends(|| OWN.get() as i32));
    let (main, other) =
        (sys!(SYS_gettid), std::thread::spawn(|| (sys!(SYS_gettid), sys!(SYS_getpid))).join().unwrap());
    r.see("numbers", (main == sys!(SYS_getpid), other.0 != main, other.1 == sys!(SYS_getpid)));
}

fn thread_ends(r: &mut Report) {
    r.see("panic is caught by join", {
        std::panic::set_hook(Box::new(|_| {}));
        let end = std::thread::spawn(|| panic!("on purpose")).join();
        drop(std::panic::take_hook());
        end.is_err()
    });
    r.see(
        "exit_group from a thread",
        sys::ends(|| {
            std::thread::spawn(|| sys!(SYS_exit_group, 17));
            loop {
                sys::sleep_ms(5);
            }
        }),
    );
    r.see(
        "the first thread leaves, another goes on",
        sys::ends(|| {
            std::thread::spawn(|| {
                sys::sleep_ms(30);
                sys!(SYS_exit_group, 18)
            });
            sys!(SYS_exit, 3).unwrap() as i32
        }),
    );
    r.see(
        "a fault in a thread ends all",
        sys::ends(|| {
            let none = rlimit { rlim_cur: 0, rlim_max: 0 };
            sys!(SYS_setrlimit, RLIMIT_CORE, &raw const none).unwrap();
            // SAFETY: the fault is wanted.
            std::thread::spawn(|| unsafe { *std::hint::black_box(std::ptr::null_mut::<u8>()) = 1 });
            loop {
                sys::sleep_ms(5);
            }
        }),
    );
    r.see(
        "exec by a thread with others asleep",
        sys::ends(|| {
            let (reader, _writer) = sys::pipe(0);
            for _ in 0..3 {
                std::thread::spawn(move || sys::read(reader, 1));
            }
            sys::sleep_ms(10);
            let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), c"exit 19".as_ptr(), std::ptr::null()];
            sys!(SYS_execve, c"/bin/sh".as_ptr(), arguments.as_ptr(), 0).map_or(99, |_| 99)
        }),
    );
}

fn thread_signals(r: &mut Report) {
    static HANDLED_BY: AtomicU32 = AtomicU32::new(0);
    extern "C" fn note(_: c_int) {
        HANDLED_BY.store(sys!(SYS_gettid).unwrap_or(0) as u32, SeqCst);
    }
    // SAFETY: the handler makes one system call and a store.
    unsafe { signal(SIGUSR1, note as *const () as usize) };
    let (sender, receiver) = mpsc::channel();
    let target = std::thread::spawn(move || {
        sender.send(sys!(SYS_gettid).unwrap()).unwrap();
        let start = Instant::now();
        while HANDLED_BY.load(SeqCst) == 0 && start.elapsed().as_secs() < 10 {
            std::hint::spin_loop();
        }
    });
    let tid = receiver.recv().unwrap();
    sys!(SYS_tgkill, sys::pid(), tid, SIGUSR1).unwrap();
    target.join().unwrap();
    r.see("to a thread", HANDLED_BY.load(SeqCst) as usize == tid);
    // A signal to the process goes to a thread that does not block it.
    HANDLED_BY.store(0, SeqCst);
    let mut set: sigset_t = sys::zeroed();
    // SAFETY: the set is valid.
    unsafe {
        sigaddset(&raw mut set, SIGUSR1);
        let (sender, receiver) = mpsc::channel();
        let open = std::thread::spawn(move || {
            sender.send(sys!(SYS_gettid).unwrap()).unwrap();
            sys::eventually(|| HANDLED_BY.load(SeqCst) != 0)
        });
        let tid = receiver.recv().unwrap();
        pthread_sigmask(SIG_BLOCK, &raw const set, std::ptr::null_mut());
        sys::kill(sys::pid(), SIGUSR1).unwrap();
        r.see("to the process", (open.join().unwrap(), HANDLED_BY.load(SeqCst) as usize == tid));
        pthread_sigmask(SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

fn futexes(r: &mut Report) {
    let word = AtomicU32::new(5);
    let at = word.as_ptr();
    let private = FUTEX_PRIVATE_FLAG;
    r.see("other value", sys!(SYS_futex, at, FUTEX_WAIT | private, 4, 0));
    let short = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let start = Instant::now();
    r.see("timeout", sys!(SYS_futex, at, FUTEX_WAIT | private, 5, &raw const short));
    r.ensure("not too soon", start.elapsed() >= Duration::from_millis(20));
    r.see("nobody to wake", sys!(SYS_futex, at, FUTEX_WAKE | private, 10));
    r.see("odd address", sys!(SYS_futex, at as usize + 1, FUTEX_WAIT | private, 5, 0));
    r.see("unmapped", sys!(SYS_futex, 4096, FUTEX_WAIT | private, 5, 0));
    let bad = timespec { tv_sec: 0, tv_nsec: -1 };
    r.see("bad time", sys!(SYS_futex, at, FUTEX_WAIT | private, 5, &raw const bad));
    r.see("unknown", sys!(SYS_futex, at, 77, 5, 0));
    let (sender, receiver) = mpsc::channel();
    let other = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let (at, other_at) = (at as usize, other.as_ptr() as usize);
        for _ in 0..3 {
            let sender = sender.clone();
            scope.spawn(move || sender.send(sys!(SYS_futex, at, FUTEX_WAIT | private, 5, 0)).unwrap());
        }
        sys::sleep_ms(30);
        r.see("wake one", sys!(SYS_futex, at, FUTEX_WAKE | private, 1));
        r.see("woken", receiver.recv().unwrap());
        r.see("requeue", sys!(SYS_futex, at, FUTEX_CMP_REQUEUE | private, 1, 10, other_at, 5));
        r.see("woken by it", receiver.recv().unwrap());
        r.see("nobody is left there", sys!(SYS_futex, at, FUTEX_WAKE | private, 10));
        r.see("but here", sys!(SYS_futex, other_at, FUTEX_WAKE | private, 10));
        r.see("woken elsewhere", receiver.recv().unwrap());
        r.see(
            "requeue with another value",
            sys!(SYS_futex, at, FUTEX_CMP_REQUEUE | private, 1, 1, other_at, 6),
        );
        let sender = sender.clone();
        scope.spawn(move || {
            sender.send(sys!(SYS_futex, at, FUTEX_WAIT_BITSET | private, 5, 0, 0, 2)).unwrap()
        });
        sys::sleep_ms(30);
        r.see("other bits", sys!(SYS_futex, at, FUTEX_WAKE_BITSET | private, 10, 0, 0, 1));
        r.see("its bits", sys!(SYS_futex, at, FUTEX_WAKE_BITSET | private, 10, 0, 0, 3));
        receiver.recv().unwrap().unwrap();
    });
    r.see("no bits", sys!(SYS_futex, at, FUTEX_WAIT_BITSET | private, 5, 0, 0, 0));
}

fn futex_shared(r: &mut Report) {
    let page = sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1i64, 0).unwrap();
    // SAFETY: the page is shared, aligned and lives until the end.
    let word = unsafe { &*(page as *const AtomicU32) };
    let pid = sys::child(|| {
        while word.load(SeqCst) == 0 {
            _ = sys!(SYS_futex, page, FUTEX_WAIT, 0, 0);
        }
        word.store(2, SeqCst);
        _ = sys!(SYS_futex, page, FUTEX_WAKE, 1);
        0
    });
    sys::sleep_ms(20);
    word.store(1, SeqCst);
    _ = sys!(SYS_futex, page, FUTEX_WAKE, 1);
    while word.load(SeqCst) == 1 {
        _ = sys!(SYS_futex, page, FUTEX_WAIT, 1, 0);
    }
    r.see("there and back", (word.load(SeqCst), sys::wait(pid)));
    // A file that two processes map at different addresses.
    std::fs::write("f", [0u8; 4096]).unwrap();
    let map = || {
        let f = sys::fd("f", O_RDWR);
        sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0).unwrap()
    };
    let first = map();
    let pid = sys::child(|| {
        let second = map();
        sys::eventually(|| sys!(SYS_futex, second, FUTEX_WAKE, 1) == Ok(1));
        i32::from(second == first)
    });
    r.see("through a file", (sys!(SYS_futex, first, FUTEX_WAIT, 0, 0), sys::wait(pid)));
}

fn robust_mutex(r: &mut Report) {
    let page = sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1i64, 0).unwrap();
    let mutex = page as *mut pthread_mutex_t;
    // SAFETY: the page is large enough, shared between the two processes, and initialised first.
    unsafe {
        let mut attributes: pthread_mutexattr_t = sys::zeroed();
        pthread_mutexattr_init(&raw mut attributes);
        pthread_mutexattr_setpshared(&raw mut attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&raw mut attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(mutex, &raw const attributes);
        r.see("the owner dies", sys::ends(|| pthread_mutex_lock(mutex)));
        r.see("the next is told", pthread_mutex_lock(mutex) == EOWNERDEAD);
        r.see("made consistent", pthread_mutex_consistent(mutex));
        r.see("and free", (pthread_mutex_unlock(mutex), pthread_mutex_lock(mutex)));
    }
}

fn threads_and_fork(r: &mut Report) {
    let stop = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while stop.load(SeqCst) == 0 {
                    sys::sleep_ms(1);
                }
            });
        }
        r.see(
            "only the caller is copied",
            sys::ends(|| std::fs::read_dir("/proc/self/task").map_or(99, |tasks| tasks.count() as i32)),
        );
        let ends: Vec<String> = std::thread::scope(|inner| {
            let workers: Vec<_> = (0..4).map(|n| inner.spawn(move || sys::ends(|| n))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        r.see("fork and wait in threads", ends);
        stop.store(1, SeqCst);
    });
}

fn many_threads(r: &mut Report) {
    let count = AtomicU32::new(0);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    count.fetch_add(1, SeqCst);
                    sys::sleep_ms(5);
                });
            }
        });
    }
    r.see("ran", count.into_inner());
    r.see(
        "left",
        sys::eventually(|| std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)),
    );
}

fn spinning_thread(r: &mut Report) {
    // A thread that waits for another without any system call.
    let flag = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while flag.load(SeqCst) != 1 {
                std::hint::spin_loop();
            }
            flag.store(2, SeqCst);
        });
        sys::sleep_ms(5);
        flag.store(1, SeqCst);
        while flag.load(SeqCst) != 2 {
            std::hint::spin_loop();
        }
    });
    r.see("flag", flag.into_inner());
}
