//! Looking at the KVM of this machine: is it there, what can it do, which kind is it, how fast is it.

use std::io;
use std::time::{Duration, Instant};

use kvm_ioctls::{Cap, Kvm};
use lg_platform::{Context, Frame, Mapping, Platform, Prot, Regs, Trap, UserAddr};

use crate::error::{Context as _, Kind, StartError};
use crate::platform::KvmPlatform;
use crate::polling::Polling;

const API_VERSION: i32 = 12;

/// What must be known of a KVM before a platform can be made on it. Any number of platforms may share it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hardware {
    /// The kind of KVM.
    pub kind: Kind,
    /// How fast the time-stamp counter counts, where guest and host share one that can serve as a clock.
    pub tsc_khz: Option<u64>,
}

/// The findings of [`survey`].
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// The kind of KVM, and its clock.
    pub hardware: Hardware,
    /// The XCR0 of guests.
    pub xcr0: u64,
    /// From nothing to a VM with memory, page tables and a vCPU ready to run.
    pub create: Duration,
    /// The first entry into a guest and its exit.
    pub first_exit: Duration,
    /// A system call of a guest: out of the guest and back in (median).
    pub round_trip: Duration,
    /// A KVM_RUN that returns at once (median): what of the round trip is not the guest's.
    pub bare_run: Duration,
    /// Taking a VM down.
    pub tear_down: Duration,
}

/// Opens /dev/kvm.
pub fn open() -> Result<Kvm, StartError> {
    Kvm::new().map_err(|error| {
        let source = io::Error::from(error);
        match source.kind() {
            io::ErrorKind::NotFound => StartError::Absent { source },
            io::ErrorKind::PermissionDenied => StartError::Forbidden { source },
            _ if source.raw_os_error() == Some(libc::ENODEV) => StartError::Absent { source },
            _ => StartError::Open { source },
        }
    })
}

/// Opens /dev/kvm, for somebody who is to have it.
pub fn open_device() -> Result<std::os::fd::OwnedFd, StartError> {
    let kvm = open()?;
    rustix::io::fcntl_dupfd_cloexec(kvm_fd(&kvm), 0).at_start("dup of /dev/kvm")
}

/// Checks the API version and the capabilities.
pub fn check(kvm: &Kvm) -> Result<(), StartError> {
    let found = kvm.get_api_version();
    if found < 0 {
        return Err(io::Error::last_os_error()).at_start("KVM_GET_API_VERSION");
    }
    if found != API_VERSION {
        return Err(StartError::ApiVersion { found });
    }
    let needed = [
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::SyncMmu, "KVM_CAP_SYNC_MMU"),
        (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        (Cap::Xcrs, "KVM_CAP_XCRS"),
        (Cap::Xsave2, "KVM_CAP_XSAVE2"),
    ];
    match needed.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, capability)) => Err(StartError::MissingCapability { capability }),
        None => Ok(()),
    }
}

/// Makes a bare VM, enters it, takes it down again, and answers how long that took: the floor of every sandbox.
pub fn bare_life(hardware: Hardware) -> Result<Duration, StartError> {
    let failed = |source| StartError::ProbeFailed { source };
    let kvm = open()?;
    let start = Instant::now();
    let mut platform = KvmPlatform::build(kvm, hardware, PROBE_MEMORY, Vec::new(), Polling::Never)?;
    let (space, mut context) = guest(&mut platform).map_err(failed)?;
    loop {
        match platform.switch(space, &mut context, None).map_err(failed)? {
            Trap::Syscall => break,
            // Something in this process wanted the thread.
            Trap::Interrupted => {}
            trap => {
                return Err(StartError::Probe { reason: format!("a system call came back as {trap:?}") });
            }
        }
    }
    drop(platform);
    Ok(start.elapsed())
}

const CODE: UserAddr = UserAddr(0x10_000);
const PROBE_MEMORY: u64 = 1 << 20;

/// `1: rdtsc; shl $32, %rdx; or %rdx, %rax; syscall; jmp 1b`
const RDTSC_LOOP: [u8; 13] = [0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x0f, 0x05, 0xeb, 0xf3];

/// Finds out the kind of KVM with a VM of its own.
pub fn hardware(kvm: &Kvm) -> Result<Hardware, StartError> {
    let assumed = Hardware { kind: Kind::Pvm, tsc_khz: None };
    let device = rustix::io::fcntl_dupfd_cloexec(kvm_fd(kvm), 0).at_start("dup of /dev/kvm")?;
    let mut platform = KvmPlatform::build(owned(device), assumed, PROBE_MEMORY, Vec::new(), Polling::Never)?;
    first_system_call(&mut platform)
}

/// Finds out the kind of KVM with a new platform, which is as it was afterwards.
///
/// Its memory is laid out as PVM needs it, which ordinary KVM can run as well; the two differ in the ring and
/// RIP that they report for the first system call.
pub(crate) fn first_system_call(platform: &mut KvmPlatform) -> Result<Hardware, StartError> {
    let failed = |source| StartError::ProbeFailed { source };
    let (space, mut context) = guest(platform).map_err(failed)?;
    let before = rdtsc();
    let (kind, ticks) = platform.first_system_call(space, &context).map_err(failed)?;
    let shared = (before..=rdtsc()).contains(&ticks) && has_invariant_tsc();
    let khz = platform.tsc_khz().filter(|_| shared);
    platform.sync(&mut context).map_err(failed)?;
    platform.destroy_space(space);
    platform.frames().discard(0..1);
    Ok(Hardware { kind, tsc_khz: khz })
}

/// Looks at this machine's KVM and measures it.
pub fn survey() -> Result<Survey, StartError> {
    let kvm = open()?;
    check(&kvm)?;
    let hardware = hardware(&kvm)?;
    let failed = |source| StartError::ProbeFailed { source };
    let start = Instant::now();
    let mut platform = KvmPlatform::build(kvm, hardware, PROBE_MEMORY, Vec::new(), Polling::Never)?;
    let (space, mut context) = guest(&mut platform).map_err(failed)?;
    let create = start.elapsed();
    let mut round = || -> Result<Duration, StartError> {
        let start = Instant::now();
        match platform.switch(space, &mut context, None).map_err(failed)? {
            Trap::Syscall => Ok(start.elapsed()),
            trap => Err(StartError::Probe { reason: format!("a system call came back as {trap:?}") }),
        }
    };
    let first_exit = round()?;
    let round_trip = median((0..400).map(|_| round()).collect::<Result<Vec<_>, _>>()?);
    let bare_run = median((0..400).map(|_| platform.bare_run()).collect());
    let (_, xcr0) = platform.xsave();
    let start = Instant::now();
    drop(platform);
    let tear_down = start.elapsed();
    Ok(Survey { hardware, xcr0, create, first_exit, round_trip, bare_run, tear_down })
}

/// Maps the little program of the probe and returns a thread that is about to run it.
fn guest(platform: &mut KvmPlatform) -> Result<(lg_platform::SpaceId, Context), lg_platform::PlatformError> {
    let space = platform.create_space()?;
    platform.frames().write(Frame(0), 0, &RDTSC_LOOP);
    platform.map(space, CODE, Mapping::clean(Frame(0), Prot::READ | Prot::EXEC))?;
    let regs = Regs { rip: CODE.0, ..Regs::default() };
    Ok((space, Context::new(regs)))
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn rdtsc() -> u64 {
    // SAFETY: RDTSC has no preconditions; Linux does not disable it for user code.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Whether the counter runs at one rate in every state of the processor (CPUID 0x8000_0007, EDX bit 8).
fn has_invariant_tsc() -> bool {
    std::arch::x86_64::__cpuid(0x8000_0000).eax >= 0x8000_0007
        && std::arch::x86_64::__cpuid(0x8000_0007).edx & 1 << 8 != 0
}

fn kvm_fd(kvm: &Kvm) -> std::os::fd::BorrowedFd<'_> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as the Kvm, whose lifetime the result carries.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(kvm.as_raw_fd()) }
}

fn owned(fd: std::os::fd::OwnedFd) -> Kvm {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the descriptor is owned, and its ownership moves into the Kvm.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}
