//! Each limit, and what was used.

use lg_abi::Errno;
use lg_abi::raw::general::*;
use lg_platform::Trap;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::testing::{FRAMES, Nobody, Sandbox};

fn unlimited() -> Limits {
    Limits::with_memory(FRAMES)
}

/// Writes so many pages to a file, and says how many bytes that were.
fn fill(sandbox: &mut Sandbox, path: &str, pages: usize) -> Result<u64, Errno> {
    let fd = sandbox.open(path, O_RDWR | O_CREAT)?;
    let from = anonymous(sandbox, pages);
    let written = sandbox.call(__NR_write, &[fd, from, pages as u64 * 4096]);
    sandbox.call(__NR_munmap, &[from, pages as u64 * 4096]).unwrap();
    sandbox.call(__NR_close, &[fd]).unwrap();
    written
}

/// Maps pages of zeros.
fn anonymous(sandbox: &mut Sandbox, pages: usize) -> u64 {
    let (prot, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    sandbox.call(__NR_mmap, &[0, pages as u64 * 4096, prot.into(), flags.into(), u64::MAX, 0]).unwrap()
}

#[test]
fn memory_is_refused_beyond_the_limit_with_file_contents_and_page_tables_counted() {
    let mut sandbox = Sandbox::new(Limits { memory_pages: 300, ..unlimited() });
    let before = sandbox.kernel.frames().used();
    assert!(sandbox.kernel.table_bytes() > 0);
    assert_eq!(fill(&mut sandbox, "/tmp/a", 100), Ok(100 * 4096));
    // The pages that were written from are gone; their page tables stay.
    let used = sandbox.kernel.frames().used();
    assert!((before + 100..=before + 102).contains(&used), "{used} after {before}");
    let from = anonymous(&mut sandbox, 299);
    let room = sandbox.kernel.frames().free();
    let touched =
        (0..299).take_while(|page| sandbox.memory().write(from + page * 4096, &[1]).is_ok()).count();
    // These pages may need another page table.
    assert!((room - 1..=room).contains(&(touched as u32)), "{touched} of {room}");
    assert_eq!(sandbox.kernel.frames().used(), 300);
    let fd = sandbox.open("/tmp/b", O_RDWR | O_CREAT).unwrap();
    let byte = sandbox.place(b"x");
    // A clean page of the program's file makes room for one.
    assert_eq!(sandbox.call(__NR_pwrite64, &[fd, byte, 1, 0]), Ok(1));
    assert_eq!(sandbox.call(__NR_pwrite64, &[fd, byte, 1, 4096]), Err(Errno::ENOSPC));
    assert_eq!(sandbox.kernel.usage().peak_memory_bytes, 300 * 4096);
}

#[test]
fn sparse_use_of_addresses_can_not_make_page_tables_grow_past_the_limit() {
    let mut sandbox = Sandbox::new(Limits { memory_pages: 200, ..unlimited() });
    let fd = sandbox.open("/tmp/page", O_RDWR | O_CREAT).unwrap();
    sandbox.call(__NR_ftruncate, &[fd, 4096]).unwrap();
    let mut mapped = 0;
    for at in 0..400u64 {
        // One page of a file, over and over, each under a page table of its own.
        let addr = Sandbox::free_addr().0 + (at << 21);
        let flags = MAP_SHARED | MAP_FIXED;
        sandbox.call(__NR_mmap, &[addr, 4096, PROT_READ.into(), flags.into(), fd, 0]).unwrap();
        mapped += u32::from(sandbox.memory().read(addr, &mut [0]).is_ok());
    }
    assert!((50..200).contains(&mapped), "{mapped}");
    let used = sandbox.kernel.frames().used();
    assert!((200..=203).contains(&used), "{used}");
}

#[test]
fn open_files_of_all_processes_count_together() {
    let mut sandbox = Sandbox::new(Limits { open_files: 5, ..unlimited() });
    let fds: Vec<u64> = std::iter::from_fn(|| sandbox.open("/tmp", O_RDONLY).ok()).collect();
    // The program is the fifth.
    assert_eq!(fds.len(), 4);
    assert_eq!(sandbox.open("/tmp", O_RDONLY), Err(Errno::ENFILE));
    // A duplicate shares its description, and so does what a child inherits.
    assert!(sandbox.call(__NR_dup, &[fds[0]]).is_ok());
    let child = sandbox.call(__NR_fork, &[]).unwrap();
    sandbox.call(__NR_close, &[fds[1]]).unwrap();
    assert_eq!(sandbox.open("/tmp", O_RDONLY), Err(Errno::ENFILE));
    let child = crate::task::Tid(child as u32);
    sandbox.call_as(child, __NR_close, &[fds[1]]).unwrap();
    assert_eq!(sandbox.open("/tmp", O_RDONLY), Ok(fds[1]));
    assert_eq!(sandbox.kernel.usage().peak_open_files, 5);
}

#[test]
fn files_of_all_mounts_share_the_limit_of_bytes() {
    let start = Sandbox::new(unlimited()).kernel.vfs().file_bytes().used();
    let mut sandbox = Sandbox::new(Limits { file_bytes: start + 10 * 4096, ..unlimited() });
    assert_eq!(fill(&mut sandbox, "/root/a", 4), Ok(4 * 4096));
    assert_eq!(fill(&mut sandbox, "/tmp/b", 4), Ok(4 * 4096));
    // The write ends where the room does.
    assert_eq!(fill(&mut sandbox, "/dev/shm/c", 4), Ok(2 * 4096));
    assert_eq!(fill(&mut sandbox, "/var/d", 1), Err(Errno::ENOSPC));
    let path = sandbox.place(b"/root/a\0");
    sandbox.call(__NR_unlink, &[path]).unwrap();
    assert_eq!(fill(&mut sandbox, "/var/d", 1), Ok(4096));
    assert_eq!(sandbox.kernel.usage().peak_file_bytes, start + 10 * 4096);
    // A memfd is memory, not a file with a name.
    let name = sandbox.place(b"m\0");
    let memfd = sandbox.call(__NR_memfd_create, &[name, 0]).unwrap();
    let from = anonymous(&mut sandbox, 20);
    assert_eq!(sandbox.call(__NR_write, &[memfd, from, 20 * 4096]), Ok(20 * 4096));
}

#[test]
fn processes_count_until_somebody_has_waited_for_them() {
    let mut sandbox = Sandbox::new(Limits { processes: 3, ..unlimited() });
    let child = sandbox.call(__NR_fork, &[]).unwrap();
    sandbox.call(__NR_fork, &[]).unwrap();
    assert_eq!(sandbox.call(__NR_fork, &[]), Err(Errno::EAGAIN));
    sandbox.kernel.end_task(crate::task::Tid(child as u32), crate::task::ExitStatus::Exited(0));
    assert_eq!(sandbox.call(__NR_fork, &[]), Err(Errno::EAGAIN));
    assert_eq!(sandbox.call(__NR_wait4, &[child, 0, 0, 0]), Ok(child));
    assert!(sandbox.call(__NR_fork, &[]).is_ok());
    assert_eq!(sandbox.kernel.usage().peak_processes, 3);
}

#[test]
fn limits_change_but_not_to_less_than_is_in_use() {
    let mut sandbox = Sandbox::new(unlimited());
    sandbox.open("/tmp", O_RDONLY).unwrap();
    // A clean page of the program's file is dropped before the limit is refused.
    let used = u64::from(sandbox.kernel.frames().used()) - 1;
    let below = |resource, limit, used| Err(LimitError::BelowUse { resource, limit, used });
    let kernel = &mut sandbox.kernel;
    let too_much = Limits::with_memory(FRAMES + 1);
    let error = LimitError::NoSuchMemory { asked: FRAMES + 1, available: FRAMES };
    assert_eq!(kernel.set_limits(too_much), Err(error));
    assert_eq!(error.to_string(), "cannot allow 4097 pages of memory: the virtual machine has 4096");
    assert_eq!(kernel.set_limits(Limits::with_memory(1)), below(Resource::Memory, 1, used));
    let limits = Limits { processes: 0, ..unlimited() };
    assert_eq!(kernel.set_limits(limits), below(Resource::Processes, 0, 1));
    let limits = Limits { open_files: 1, ..unlimited() };
    assert_eq!(kernel.set_limits(limits), below(Resource::OpenFiles, 1, 2));
    let limits = Limits { file_bytes: 1, ..unlimited() };
    assert!(kernel.set_limits(limits).unwrap_err().to_string().ends_with("are in use"));
    let limits = Limits { cpu_ns: Some(1), ..unlimited() };
    assert!(matches!(
        kernel.set_limits(limits),
        Err(LimitError::BelowUse { resource: Resource::CpuTime, .. })
    ));
    assert_eq!(kernel.limits(), &unlimited());
    let lower = Limits { memory_pages: used as u32, ..unlimited() };
    assert_eq!(kernel.set_limits(lower), Ok(()));
    assert_eq!((kernel.frames().total(), kernel.frames().free()), (used as u32, 0));
    assert_eq!(kernel.set_limits(unlimited()), Ok(()));
}

#[test]
fn output_is_counted_and_too_much_of_it_ends_the_sandbox() {
    let mut sandbox = Sandbox::new(Limits { output_bytes: 10, ..unlimited() });
    let kernel = &mut sandbox.kernel;
    assert_eq!(kernel.count_output(10), Ok(()));
    kernel.check_limits();
    assert_eq!((kernel.end, kernel.usage().output_bytes), (None, 10));
    assert_eq!(kernel.count_output(1), Err(LimitReached(Limit::Output)));
    kernel.check_limits();
    assert_eq!(kernel.end, Some(End::LimitReached(Limit::Output)));
}

fn host_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Lets guest code spin until the deadline of each switch, as the real platform does.
fn spin(sandbox: &Sandbox) {
    for _ in 0..1000 {
        let deadline_ns = sandbox.deadline_ns.clone();
        sandbox.script.borrow_mut().push_back(Box::new(move |_| {
            let until = deadline_ns.get().expect("a spinning guest is interrupted");
            while host_ns(ClockId::Monotonic) < until {}
            Trap::Interrupted
        }));
    }
}

#[test]
fn a_spinning_guest_ends_soon_after_its_processor_time_is_used_up() {
    let mut sandbox = Sandbox::new(unlimited());
    // The clock is the host's.
    sandbox.tsc.set(None);
    let limit_ns = sandbox.kernel.usage().cpu_ns + 30_000_000;
    sandbox.kernel.set_limits(Limits { cpu_ns: Some(limit_ns), ..unlimited() }).unwrap();
    spin(&sandbox);
    assert_eq!(sandbox.kernel.run(&mut Nobody).unwrap(), End::LimitReached(Limit::CpuTime));
    let used_ns = sandbox.kernel.usage().cpu_ns;
    assert!((limit_ns..limit_ns + 10_000_000).contains(&used_ns), "{used_ns} of {limit_ns}");
}

#[test]
fn a_spinning_guest_ends_at_its_deadline() {
    let mut sandbox = Sandbox::new(unlimited());
    sandbox.tsc.set(None);
    let deadline_ns = sandbox.kernel.usage().wall_ns + 20_000_000;
    sandbox.kernel.set_limits(Limits { deadline_ns: Some(deadline_ns), ..unlimited() }).unwrap();
    spin(&sandbox);
    assert_eq!(sandbox.kernel.run(&mut Nobody).unwrap(), End::TimedOut);
    assert!(sandbox.kernel.usage().wall_ns >= deadline_ns);
}
