//! Other processes: the runtime, the template, other forks of it.

use crate::captive::{Answer, Captive};
use crate::{Attack, Scene, Verdict, all_in_forks, must_die, must_fail, process};

/// The signal that ends a time slice.
const SLICE_SIGNAL: u64 = 41;
const SIGEV_THREAD_ID: i32 = 4;
/// How many forks are left behind.
const LEFT: usize = 8;

/// Calls that no vmm makes, with the place of the target's number among their arguments.
const FORBIDDEN: &[(&str, i64, usize)] = &[
    ("kill", libc::SYS_kill, 0),
    ("tkill", libc::SYS_tkill, 0),
    ("rt-sigqueueinfo", libc::SYS_rt_sigqueueinfo, 0),
    ("rt-tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo, 0),
    ("ptrace", libc::SYS_ptrace, 1),
    ("process-vm-readv", libc::SYS_process_vm_readv, 0),
    ("process-vm-writev", libc::SYS_process_vm_writev, 0),
    ("pidfd-open", libc::SYS_pidfd_open, 0),
    ("pidfd-getfd", libc::SYS_pidfd_getfd, 0),
    ("pidfd-send-signal", libc::SYS_pidfd_send_signal, 0),
    ("process-madvise", libc::SYS_process_madvise, 0),
    ("prlimit64", libc::SYS_prlimit64, 0),
    ("setpriority", libc::SYS_setpriority, 1),
    ("sched-setscheduler", libc::SYS_sched_setscheduler, 0),
    ("migrate-pages", libc::SYS_migrate_pages, 0),
    ("get-robust-list", libc::SYS_get_robust_list, 0),
    ("perf-event-open", libc::SYS_perf_event_open, 1),
    ("kcmp", libc::SYS_kcmp, 1),
    ("setpgid", libc::SYS_setpgid, 0),
    ("wait4", libc::SYS_wait4, 0),
];

/// All attacks of the group.
pub fn attacks() -> Vec<Attack> {
    let forbidden = FORBIDDEN.iter().map(|(name, number, place)| {
        Attack::new(*name, move |captive| {
            each_target(captive, |fork, target| {
                let mut arguments = [0; 4];
                arguments[*place] = target;
                must_die(fork.call(*number, &arguments))
            })
        })
    });
    let attack = |name: &str, make: fn(&Captive, u64) -> Verdict| {
        Attack::new(name, move |captive| each_target(captive, make)).on(Scene::Quiet)
    };
    let restricted = [
        attack("signal-of-time-slices", |fork, target| {
            must_fail(fork.call(libc::SYS_tgkill, &[target, target, SLICE_SIGNAL]))
        }),
        attack("other-signals-to-a-thread", |fork, target| {
            must_die(fork.call(libc::SYS_tgkill, &[target, target, libc::SIGKILL as u64]))
        }),
        attack("input-signal", |fork, target| must_fail(own_input(fork, target))),
        attack("input-signal-to-a-group", |fork, target| must_fail(own_input(fork, target.wrapping_neg()))),
        attack("timer-for-another", |fork, target| must_fail(timer_for(fork, target))),
        attack("clock-of-another", |fork, target| {
            // MAKE_PROCESS_CPUCLOCK of the kernel's include/linux/posix-timers_types.h.
            let clock = u64::from(!(target as u32) << 3 | 2);
            must_fail(fork.call(libc::SYS_clock_gettime, &[clock, fork.put(&[0; 16])]))
        }),
        attack("processors-of-another", |fork, target| {
            must_fail(fork.call(libc::SYS_sched_setaffinity, &[target, 8, fork.put(&1u64.to_ne_bytes())]))
        }),
        Attack::new("forks-left-behind", |captive| {
            for _ in 0..LEFT {
                captive.fork().and_then(Captive::leave_behind).map_err(|error| error.to_string())?;
            }
            Ok(format!("{LEFT} forks, which may not outlive the template"))
        })
        .on(Scene::Quiet),
    ];
    forbidden.chain(restricted).collect()
}

fn each_target(captive: &Captive, make: impl Fn(&Captive, u64) -> Verdict) -> Verdict {
    let name = |target: &&str| (*target).to_owned();
    all_in_forks(captive, ["RUNTIME", "TEMPLATE", "SIBLING"], name, |fork, target| {
        make(fork, process(target))
    })
}

/// Has the signal for input on the control socket sent to somebody else.
fn own_input(captive: &Captive, target: u64) -> Answer {
    let socket = crate::control::socket(captive);
    captive.call(libc::SYS_fcntl, &[socket, libc::F_SETOWN as u64, target])
}

/// Makes a timer that signals a thread of somebody else.
fn timer_for(captive: &Captive, target: u64) -> Answer {
    // struct sigevent: a value, the signal, how, and whom.
    let mut event = [0; 64];
    event[8..12].copy_from_slice(&libc::SIGKILL.to_ne_bytes());
    event[12..16].copy_from_slice(&SIGEV_THREAD_ID.to_ne_bytes());
    event[16..20].copy_from_slice(&(target as i32).to_ne_bytes());
    let at = captive.put(&event);
    captive.call(libc::SYS_timer_create, &[libc::CLOCK_MONOTONIC as u64, at, at + 64])
}
