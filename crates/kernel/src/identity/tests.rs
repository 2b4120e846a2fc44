//! A template and its fork, without the fork(2): the template's kernel simply becomes one.

use lg_abi::raw::general::*;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::Limits;
use crate::task::{TaskState, Wait};
use crate::testing::{FRAMES, Sandbox};
use crate::time::Timer;

fn sandbox() -> Sandbox {
    Sandbox::new(Limits::with_memory(FRAMES))
}

fn named(hostname: &str) -> Identity {
    Identity { hostname: Some(hostname.into()) }
}

fn realtime_ns() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn pages(sandbox: &mut Sandbox, count: u64) -> u64 {
    let (prot, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    sandbox.call(__NR_mmap, &[0, count * 4096, prot.into(), flags.into(), u64::MAX, 0]).unwrap()
}

#[test]
fn a_fork_has_ids_and_a_name_of_its_own() {
    let mut sandbox = sandbox();
    let ids = |sandbox: &Sandbox| {
        let boot_id = sandbox.text("/proc/sys/kernel/random/boot_id").unwrap();
        (boot_id, sandbox.text("/etc/machine-id").unwrap())
    };
    let before = ids(&sandbox);
    let open = sandbox.open("/etc/machine-id", O_RDONLY).unwrap();
    let hosts = sandbox.text("/etc/hosts").unwrap();
    sandbox.kernel.become_fork(named("fork-7")).unwrap();
    let after = ids(&sandbox);
    assert_ne!(after.0, before.0);
    assert_ne!(after.1, before.1);
    assert!(after.1.len() == 33 && after.1.ends_with('\n'), "{}", after.1);
    // The template's file is another one, which an open descriptor still shows.
    assert_eq!(sandbox.read_fd(open), before.1);
    assert_eq!(sandbox.text("/etc/hostname").unwrap(), "fork-7\n");
    assert_eq!(sandbox.text("/proc/sys/kernel/hostname").unwrap(), "fork-7\n");
    assert_eq!(sandbox.text("/etc/hosts").unwrap(), hosts.replace("box", "fork-7"));
    let name = sandbox.place(&[0; 390]);
    sandbox.call(__NR_uname, &[name]).unwrap();
    assert_eq!(sandbox.peek(name + 65).to_le_bytes(), *b"fork-7\0\0");
}

#[test]
fn a_fork_without_a_new_name_keeps_the_old_one() {
    let mut sandbox = sandbox();
    sandbox.kernel.become_fork(Identity::default()).unwrap();
    assert_eq!(sandbox.text("/etc/hostname").unwrap(), "box\n");
    assert_eq!(sandbox.text("/proc/sys/kernel/hostname").unwrap(), "box\n");
}

#[test]
fn what_the_guest_made_of_its_etc_does_not_keep_it_from_forking() {
    let mut sandbox = sandbox();
    let mut path = |path: &str| sandbox.place(&[path.as_bytes(), b"\0"].concat());
    let (hostname, hosts, machine_id) = (path("/etc/hostname"), "/etc/hosts", "/etc/machine-id");
    sandbox.call(__NR_unlink, &[hostname]).unwrap();
    sandbox.call(__NR_mkdir, &[hostname, 0o755]).unwrap();
    let fd = sandbox.open(hosts, O_WRONLY | O_APPEND).unwrap();
    let line = sandbox.place(b"10.0.0.1 peer\n");
    sandbox.call(__NR_write, &[fd, line, 14]).unwrap();
    let at = sandbox.place([machine_id.as_bytes(), b"\0"].concat().as_slice());
    sandbox.call(__NR_unlink, &[at]).unwrap();
    sandbox.kernel.become_fork(named("fork")).unwrap();
    let hosts = sandbox.text(hosts).unwrap();
    assert!(hosts.contains("127.0.1.1\tfork\n") && hosts.ends_with("10.0.0.1 peer\n"), "{hosts}");
    assert_eq!(sandbox.text(machine_id).unwrap().len(), 33);
    // Without an /etc there is nothing to write to.
    let (etc, away) = ("/etc", "/gone");
    let both = sandbox.place(format!("{etc}\0{away}\0").as_bytes());
    sandbox.call(__NR_rename, &[both, both + 5]).unwrap();
    sandbox.kernel.become_fork(named("again")).unwrap();
    assert!(sandbox.text("/gone/hosts").unwrap().contains("\tfork\n"));
}

#[test]
fn areas_to_be_wiped_read_as_zero_in_every_process_of_a_fork_and_their_neighbours_do_not() {
    let mut sandbox = sandbox();
    let at = pages(&mut sandbox, 3);
    for page in 0..3 {
        sandbox.memory().write(at + page * 4096, &7u64.to_le_bytes()).unwrap();
    }
    let child = Tid(sandbox.call(__NR_fork, &[]).unwrap() as u32);
    for tid in [sandbox.main, child] {
        sandbox.call_as(tid, __NR_madvise, &[at + 4096, 4096, MADV_WIPEONFORK.into()]).unwrap();
    }
    let used = sandbox.kernel.frames().used();
    sandbox.kernel.become_fork(Identity::default()).unwrap();
    assert_eq!(sandbox.kernel.frames().used(), used - 1);
    for tid in [sandbox.main, child] {
        let memory = crate::mm::UserMemory::new(&sandbox.kernel.tasks[&tid].mm);
        let words = [0, 1, 2].map(|page| {
            let mut word = [9; 8];
            memory.read(at + page * 4096, &mut word).unwrap();
            u64::from_le_bytes(word)
        });
        assert_eq!(words, [7, 0, 7]);
    }
}

#[test]
fn the_monotonic_clock_goes_on_from_where_it_stood_and_real_time_is_right() {
    let mut sandbox = sandbox();
    sandbox.pass_ns(5_000_000_000);
    let before_ns = sandbox.kernel.clock.monotonic_ns();
    assert_eq!(before_ns, 5_000_000_000);
    sandbox.kernel.freeze_clock();
    sandbox.pass_ns(3600 * 1_000_000_000);
    assert_eq!(sandbox.kernel.clock.monotonic_ns(), before_ns);
    sandbox.kernel.resume_clock();
    assert_eq!(sandbox.kernel.clock.monotonic_ns(), before_ns);
    let off_ns = sandbox.kernel.clock.realtime_ns().abs_diff(realtime_ns());
    assert!(off_ns < 50_000_000, "real time is {off_ns} ns off");
    // The vDSO reckons the same.
    let [base, mult, realtime_base_ns] = sandbox.vdso_parameters();
    let ticks = sandbox.tsc.get().unwrap().ticks;
    assert_eq!(((u128::from(ticks - base) * u128::from(mult)) >> 32) as u64, before_ns);
    assert_eq!(realtime_base_ns, sandbox.kernel.clock.boot_realtime_ns());
    sandbox.pass_ns(7);
    assert_eq!(sandbox.kernel.clock.monotonic_ns(), before_ns + 7);
    // A host time is as far away as the sandbox's.
    let now_ns = clock_gettime(ClockId::Monotonic);
    let now_ns = now_ns.tv_sec as u64 * 1_000_000_000 + now_ns.tv_nsec as u64;
    let ahead_ns = sandbox.kernel.clock.to_host_ns(before_ns + 1_000_000_000).abs_diff(now_ns);
    assert!((900_000_000..=1_000_000_000).contains(&ahead_ns), "{ahead_ns}");
}

#[test]
fn the_clock_never_goes_back_over_a_stop_whatever_the_counter_s_rate() {
    for khz in [999_999, 1_000_000, 2_596_128, 3_000_001] {
        let mut sandbox = sandbox();
        let machine = sandbox.kernel.machine.clone();
        let tsc = sandbox.tsc.get().unwrap();
        sandbox.tsc.set(Some(lg_platform::Tsc { khz, ..tsc }));
        sandbox.kernel.clock = crate::time::Clock::start(&machine);
        for step in [1, 12_345, 999_999_999_999] {
            sandbox.pass_ns(step);
            let before_ns = sandbox.kernel.clock.monotonic_ns();
            sandbox.kernel.freeze_clock();
            sandbox.pass_ns(step * 3);
            sandbox.kernel.resume_clock();
            let after_ns = sandbox.kernel.clock.monotonic_ns();
            assert!((before_ns..=before_ns + 1).contains(&after_ns), "{khz} {step}");
        }
    }
}

#[test]
fn timers_have_as_much_left_after_a_stop_as_before() {
    let mut sandbox = sandbox();
    let first = sandbox.main;
    sandbox.pass_ns(1_000);
    sandbox.kernel.run_queue.remove(first);
    sandbox.kernel.put_to_sleep(first, Wait::default().until(Some(5_000)));
    sandbox.kernel.timers.add(5_000, Timer::Real(first));
    sandbox.kernel.freeze_clock();
    sandbox.pass_ns(1_000_000);
    sandbox.kernel.become_fork(Identity::default()).unwrap();
    assert_eq!(sandbox.kernel.clock.monotonic_ns(), 1_000);
    assert_eq!(sandbox.kernel.timers.next_ns(), Some(5_000));
    // The sleep may be until a real time, so the call is made again.
    sandbox.kernel.wake_ready();
    assert!(matches!(sandbox.kernel.tasks[&first].state, TaskState::Runnable));
}

#[test]
fn a_fork_counts_what_it_uses_itself() {
    let mut sandbox = sandbox();
    let at = pages(&mut sandbox, 1000);
    (0..1000).for_each(|page| sandbox.memory().write(at + page * 4096, &[1]).unwrap());
    sandbox.call(__NR_munmap, &[at, 1000 * 4096]).unwrap();
    sandbox.kernel.count_output(77).unwrap();
    sandbox.pass_ns(1_000_000_000);
    let started = sandbox.kernel.usage();
    assert!(started.peak_memory_bytes > 1000 * 4096 && started.wall_ns == 1_000_000_000);
    sandbox.kernel.become_fork(Identity::default()).unwrap();
    let usage = sandbox.kernel.usage();
    assert_eq!(usage.peak_memory_bytes, u64::from(sandbox.kernel.frames().used()) * 4096);
    assert_eq!((usage.output_bytes, usage.wall_ns, usage.peak_processes), (0, 0, 1));
    assert!(usage.cpu_ns < started.cpu_ns);
    assert_eq!(*sandbox.kernel.stats(), Stats::default());
    assert_eq!(sandbox.kernel.processes[&sandbox.main].started_ns, 1_000_000_000);
    // So does its deadline.
    let limits = Limits { deadline_ns: Some(500), ..Limits::with_memory(FRAMES) };
    sandbox.kernel.set_limits(limits).unwrap();
    assert_eq!(sandbox.kernel.deadline_ns(), Some(1_000_000_500));
}
