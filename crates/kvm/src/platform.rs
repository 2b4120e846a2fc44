//! [`KvmPlatform`]: the seam, put together from the other rooms.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;

use kvm_ioctls::Kvm;
use lg_platform::{
    Context, Frame, FrameStore, Mapping, PAGE_SHIFT, PAGE_SIZE, Platform, PlatformError, Prot, SpaceId, Trap,
    Tsc, USER_END, UserAddr, UserRange, Vector,
};

use crate::alarm::Alarm;
use crate::error::{Context as _, Kind, StartError};
use crate::layout::{DATA_GPA, SYSTEM_PAGES};
use crate::machine::{Machine, SpareVm, Zones};
use crate::polling::Polling;
use crate::probe::{self, Hardware};
use crate::ram::Ram;
use crate::region::{Region, Touch};
use crate::stale::Stale;
use crate::stubs;
use crate::tables::{self, Tables};
use crate::vcpu::Features;
use crate::working_set::WorkingSet;

/// Page tables may take this fraction of the memory size, on top of it.
const TABLES_FRACTION: u64 = 16;
/// The table zone has at least and at most so many bytes. Address space is reserved, not committed.
const TABLES_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=16 << 30;
/// The smallest guest.
const MIN_MEMORY: u64 = 1 << 20;

/// How to make a [`KvmPlatform`].
#[derive(Debug)]
pub struct KvmConfig {
    /// Guest memory in bytes: a multiple of the page size. It is committed when it is first used.
    pub memory_bytes: u64,
    /// This process's open /proc/self/pagemap; without it the platform opens it, where it can.
    pub pagemap: Option<std::fs::File>,
    /// An open /dev/kvm; without it the platform opens the device.
    pub kvm: Option<OwnedFd>,
    /// What [`crate::probe()`] found; without it the platform probes, which takes another VM.
    pub hardware: Option<Hardware>,
    /// Signals that end [`Platform::switch`]; see [`KvmPlatform::set_interrupting_signals`].
    pub interrupting_signals: Vec<i32>,
    /// Whether system calls may be answered without an exit, by a second thread (PVM only).
    pub polling: Polling,
}

impl KvmConfig {
    /// Returns a configuration that finds out everything but the memory size by itself.
    pub fn new(memory_bytes: u64) -> KvmConfig {
        KvmConfig {
            memory_bytes,
            pagemap: None,
            kvm: None,
            hardware: None,
            interrupting_signals: Vec::new(),
            polling: Polling::default(),
        }
    }

    /// Opens the device that the platform needs, for a process that can not open it when it makes it.
    ///
    /// # Errors
    /// Where /dev/kvm can not be opened.
    pub fn opened(self) -> Result<KvmConfig, StartError> {
        Ok(KvmConfig { kvm: Some(probe::open_device()?), ..self })
    }

    /// Opens the page map of the process that calls this, which must be the one that makes the platform, if it can.
    #[must_use]
    pub fn with_pagemap(self) -> KvmConfig {
        KvmConfig { pagemap: open_pagemap(), ..self }
    }
}

/// Opens this process's page map; a host without it, or without /proc, shows when it is needed.
fn open_pagemap() -> Option<std::fs::File> {
    std::fs::File::open("/proc/self/pagemap").ok()
}

/// Runs guest threads at ring 3 of a virtual machine without a guest kernel.
///
/// It belongs to the thread that made it. That thread has one platform at a time, since two would take each
/// other's deadline signal.
pub struct KvmPlatform {
    // Dropped in this order: the machine goes before the memory that it maps.
    /// Absent between a seal and the next revival.
    machine: Option<Machine>,
    /// What a sealed platform keeps instead, and forks do not have.
    spare: Option<SpareVm>,
    /// This process's /proc/self/pagemap, opened while it can be, until it was used.
    pagemap: Option<std::fs::File>,
    alarm: Alarm,
    stale: Stale,
    tables: Tables,
    system: Region,
    ram: Rc<Ram>,
    features: Features,
    hardware: Hardware,
    interrupting_signals: Vec<i32>,
    polling: Polling,
    /// How many system calls came without an exit, on machines that are gone.
    polled_calls: u64,
    /// What forks are expected to touch at once, once that was observed.
    expected: WorkingSet,
    /// Whether what is touched is observed.
    observing: bool,
    /// Bytes of the data zone up to the end of the highest frame that was ever mapped.
    mapped_end: usize,
    kvm: Kvm,
}

impl KvmPlatform {
    /// Makes the platform with all of its memory and one vCPU.
    ///
    /// Blocks [`crate::alarm_signal`] in the calling thread.
    pub fn new(config: KvmConfig) -> Result<KvmPlatform, StartError> {
        let kvm = match config.kvm {
            // SAFETY: the descriptor is owned, and its ownership moves into the Kvm.
            Some(fd) => unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) },
            None => probe::open()?,
        };
        probe::check(&kvm)?;
        let KvmConfig { memory_bytes, hardware, interrupting_signals, polling, pagemap, .. } = config;
        let mut platform = match hardware {
            Some(hardware) => Self::build(kvm, hardware, memory_bytes, interrupting_signals, polling),
            None => Self::build_and_probe(kvm, memory_bytes, interrupting_signals, polling),
        }?;
        platform.pagemap = pagemap.or_else(open_pagemap);
        Ok(platform)
    }

    /// Makes the platform as PVM needs it and finds out by its first system call whether this is PVM. If it
    /// is not, makes it anew: VMs cost more on PVM than elsewhere.
    fn build_and_probe(
        kvm: Kvm,
        memory_bytes: u64,
        interrupting_signals: Vec<i32>,
        polling: Polling,
    ) -> Result<KvmPlatform, StartError> {
        let assumed = Hardware { kind: Kind::Pvm, tsc_khz: None };
        let mut platform = Self::build(kvm, assumed, memory_bytes, interrupting_signals, polling)?;
        let hardware = probe::first_system_call(&mut platform)?;
        if hardware.kind == assumed.kind {
            platform.hardware = hardware;
            return Ok(platform);
        }
        let KvmPlatform { kvm, interrupting_signals, machine, alarm, .. } = platform;
        drop((machine, alarm));
        Self::build(kvm, hardware, memory_bytes, interrupting_signals, polling)
    }

    pub(crate) fn build(
        kvm: Kvm,
        hardware: Hardware,
        memory_bytes: u64,
        interrupting_signals: Vec<i32>,
        polling: Polling,
    ) -> Result<KvmPlatform, StartError> {
        let kind = hardware.kind;
        let features = Features::detect(&kvm)?;
        let max = (features.physical_end - DATA_GPA).min(u64::from(u32::MAX) * PAGE_SIZE as u64);
        let page = PAGE_SIZE as u64;
        if !(MIN_MEMORY..=max).contains(&memory_bytes) || !memory_bytes.is_multiple_of(page) {
            return Err(StartError::MemorySize { bytes: memory_bytes, max });
        }
        let tables_bytes =
            (memory_bytes / TABLES_FRACTION / page * page).clamp(*TABLES_BYTES.start(), *TABLES_BYTES.end());
        let system = Region::reserve(SYSTEM_PAGES * PAGE_SIZE).at_start("mmap of the system zone")?;
        stubs::install(&system, kind);
        tables::install_kernel_area(&system, kind);
        let tables = Region::reserve(tables_bytes as usize).at_start("mmap of the page tables")?;
        let ram = Region::reserve(memory_bytes as usize).at_start("mmap of guest memory")?;
        let zones = Zones { system: &system, tables: &tables, data: &ram };
        // SAFETY: the regions move into the platform below, whose fields are dropped after the machine.
        let mut machine = unsafe { Machine::new(&kvm, &features, kind, polling, zones, 0)? };
        let alarm = Alarm::new().at_start("timer_create")?;
        machine.let_through(&interrupting_signals).at_start("KVM_SET_SIGNAL_MASK")?;
        Ok(KvmPlatform {
            machine: Some(machine),
            spare: None,
            pagemap: None,
            alarm,
            stale: Stale::new(kind),
            tables: Tables::new(tables, kind),
            system,
            ram: Rc::new(Ram::new(ram)),
            features,
            hardware,
            interrupting_signals,
            polling,
            polled_calls: 0,
            expected: WorkingSet::default(),
            observing: false,
            mapped_end: 0,
            kvm,
        })
    }

    /// Returns what kind of KVM this is, and its clock.
    pub fn hardware(&self) -> Hardware {
        self.hardware
    }

    /// Sets which signals end [`Platform::switch`] with [`Trap::Interrupted`].
    ///
    /// The caller has blocked them in this thread, and takes them with sigtimedwait(2) or a signalfd when
    /// `switch` returns; while one is pending, guest code does not run, or makes a few more system calls if it
    /// makes them without an exit. Signals that the thread blocks and
    /// that are not named here stay blocked while the guest runs. Call it again when the thread's mask has
    /// changed.
    pub fn set_interrupting_signals(&mut self, signals: &[i32]) -> std::io::Result<()> {
        if let Some(machine) = &mut self.machine {
            machine.vcpu.leave(&self.system);
            machine.let_through(signals)?;
        }
        self.interrupting_signals = signals.to_vec();
        Ok(())
    }

    fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("a sealed platform is revived before it runs")
    }

    fn machine_mut(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("a sealed platform is revived before it runs")
    }

    /// For the probe: see [`crate::vcpu::Vcpu::first_system_call`].
    pub(crate) fn first_system_call(
        &mut self,
        space: SpaceId,
        context: &Context,
    ) -> Result<(Kind, u64), PlatformError> {
        let cr3 = self.tables.root(space);
        let machine = self.machine.as_mut().expect("the probe's platform is never sealed");
        machine.vcpu.load(context, cr3, false, &self.system)?;
        machine.vcpu.first_system_call(&context.regs, &self.system)
    }

    /// For the survey: how long a KVM_RUN takes that does not enter the guest.
    pub(crate) fn bare_run(&mut self) -> std::time::Duration {
        let start = std::time::Instant::now();
        // What it answers is of no interest here: a VM that cannot run shows elsewhere.
        let _ = self.machine_mut().vcpu.bare_run();
        start.elapsed()
    }

    /// For the probe: the rate of the guest's time-stamp counter.
    pub(crate) fn tsc_khz(&self) -> Option<u64> {
        self.machine().vcpu.fd().get_tsc_khz().ok().map(u64::from).filter(|khz| *khz > 0)
    }

    /// Takes the machine down, and remembers what it has counted.
    fn drop_machine(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.polled_calls += machine.vcpu.polled_calls();
        }
    }

    /// Makes a guest that waits for the answer to a system call without having left leave now, so that it runs
    /// nothing until the next switch.
    fn stop_guest(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.vcpu.leave(&self.system);
        }
    }

    /// Nothing that the guest may still use is given away while it may be running.
    fn stop_guest_if_stale(&mut self) {
        if self.stale.is_pending() {
            self.stop_guest();
        }
    }

    /// Runs `attempt`, and once more after a reclaim if it found no frame for a page table.
    fn with_tables<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Tables, &mut Stale) -> Result<T, PlatformError>,
    ) -> Result<T, PlatformError> {
        match attempt(&mut self.tables, &mut self.stale) {
            Err(PlatformError::OutOfTables) if self.tables.can_reclaim() => {}
            result => return result,
        }
        self.tables.reclaim();
        match self.hardware.kind {
            Kind::Ordinary => self.stale.note_tables_freed(),
            Kind::Pvm => {
                if let Some(machine) = &self.machine {
                    // SAFETY: it is the region that the machine was made with.
                    unsafe { machine.forget_shadows(self.tables.zone()) }
                        .at_run("KVM_SET_USER_MEMORY_REGION")?;
                }
            }
        }
        attempt(&mut self.tables, &mut self.stale)
    }
}

/// Makes what the tables hold, a place, what the seam speaks of: a frame.
fn seen(ram: &Ram, mapping: Mapping) -> Mapping {
    Mapping { frame: ram.frame(mapping.frame.0), ..mapping }
}

impl Platform for KvmPlatform {
    fn frames(&self) -> Rc<dyn FrameStore> {
        self.ram.clone()
    }

    fn create_space(&mut self) -> Result<SpaceId, PlatformError> {
        self.with_tables(|tables, _| tables.create())
    }

    fn destroy_space(&mut self, space: SpaceId) {
        self.stop_guest();
        self.tables.destroy(space, &mut self.stale);
    }

    fn map(&mut self, space: SpaceId, addr: UserAddr, mapping: Mapping) -> Result<(), PlatformError> {
        let (frame, count) = (mapping.frame, self.ram.frame_count());
        assert!(frame.0 < count, "frame {} of {count}", frame.0);
        let place = self.ram.place(frame);
        let end = (place as usize + 1) << PAGE_SHIFT;
        if let Some(machine) = self.machine.as_mut().filter(|machine| machine.covered() < end) {
            // SAFETY: it is the data zone that the machine was made with.
            unsafe { machine.cover(self.ram.region(), end) }.at_run("KVM_SET_USER_MEMORY_REGION")?;
        }
        self.mapped_end = self.mapped_end.max(end);
        self.with_tables(|tables, stale| {
            tables.map(space, addr, Mapping { frame: Frame(place), ..mapping }, stale)
        })?;
        self.stop_guest_if_stale();
        Ok(())
    }

    fn unmap(&mut self, space: SpaceId, range: UserRange, removed: &mut dyn FnMut(UserAddr, Mapping)) {
        let ram = self.ram.clone();
        let mut removed = |addr, mapping| removed(addr, seen(&ram, mapping));
        self.tables.unmap(space, range, &mut self.stale, &mut removed);
        self.stop_guest_if_stale();
    }

    fn protect(&mut self, space: SpaceId, range: UserRange, prot: &mut dyn FnMut(UserAddr, Mapping) -> Prot) {
        let ram = self.ram.clone();
        let mut prot = |addr, mapping| prot(addr, seen(&ram, mapping));
        self.tables.protect(space, range, &mut self.stale, &mut prot);
        self.stop_guest_if_stale();
    }

    fn lookup(&self, space: SpaceId, addr: UserAddr) -> Option<Mapping> {
        self.tables.lookup(space, addr).map(|mapping| seen(&self.ram, mapping))
    }

    fn visit(&self, space: SpaceId, range: UserRange, visitor: &mut dyn FnMut(UserAddr, Mapping)) {
        self.tables.visit(space, range, &mut |addr, mapping| visitor(addr, seen(&self.ram, mapping)));
    }

    fn switch(
        &mut self,
        space: SpaceId,
        context: &mut Context,
        deadline_ns: Option<u64>,
    ) -> Result<Trap, PlatformError> {
        if context.regs.rip >= USER_END.0 {
            return Ok(Trap::Exception { vector: Vector::GENERAL_PROTECTION, error_code: 0 });
        }
        let machine = self.machine.as_mut().expect("a sealed platform is revived before it runs");
        self.alarm.arm(deadline_ns).at_run("timer_settime")?;
        self.stale.invalidate(self.ram.region()).at_run("mprotect of guest memory")?;
        let flush = self.stale.take_flush();
        machine.vcpu.load(context, self.tables.root(space), flush, &self.system)?;
        let code = |address| {
            let addr = UserAddr(address);
            let mapping = seen(&self.ram, self.tables.lookup(space, addr)?);
            let mut byte = [0];
            self.ram.read(mapping.frame, addr.page_offset(), &mut byte);
            Some(byte[0])
        };
        let trap = machine.vcpu.run(&mut context.regs, &self.system, &code)?;
        if trap != Trap::Interrupted && !machine.vcpu.is_waiting() {
            self.tables.free_retired();
        }
        match trap {
            Trap::Interrupted => {
                self.alarm.consume();
                Ok(trap)
            }
            // A page that is held without any permission is not present to the processor.
            Trap::PageFault { addr, access, present: false } => {
                let present = self.tables.lookup(space, addr).is_some_and(|mapping| mapping.prot.is_empty());
                Ok(Trap::PageFault { addr, access, present })
            }
            _ => Ok(trap),
        }
    }

    fn sync(&mut self, context: &mut Context) -> Result<(), PlatformError> {
        match &mut self.machine {
            Some(machine) => machine.vcpu.sync(context, &self.system),
            // Nothing has run since the seal, before which everything was synced.
            None => Ok(()),
        }
    }

    fn seal(&mut self, used: &[std::ops::Range<u32>]) -> std::io::Result<()> {
        self.drop_machine();
        self.stale = Stale::new(self.hardware.kind);
        let mut first = Vec::new();
        self.expected = WorkingSet::default();
        if std::mem::take(&mut self.observing) {
            let region = self.ram.region();
            // An observation ends in the process that opened it.
            let pagemap = self.pagemap.take().ok_or(std::io::ErrorKind::NotFound)?;
            let written = region.written_pages(&pagemap, 0..region.len())?;
            (self.expected, first) = WorkingSet::new(&self.tables.accessed_frames(), &written);
        }
        let old_places = self.ram.seal(&first, used)?;
        let mut new_places = HashMap::with_capacity(old_places.len());
        for (new, old) in old_places.iter().enumerate() {
            new_places.insert(*old, new as u32);
        }
        // A page that is mapped is in use.
        self.tables.move_places(|old| new_places.get(&old).copied().unwrap_or(old));
        self.mapped_end = old_places.len() << PAGE_SHIFT;
        self.tables.reclaim();
        self.tables.seal()?;
        self.spare = SpareVm::new(&self.kvm).ok();
        Ok(())
    }

    fn observe(&mut self, used: &[std::ops::Range<u32>]) -> Result<(), PlatformError> {
        self.seal(used).at_run("sealing of guest memory")?;
        self.tables.clear_accessed();
        self.stale.observe();
        self.observing = true;
        let polled_calls = self.polled_calls;
        self.revive_after_fork()?;
        self.polled_calls = polled_calls;
        Ok(())
    }

    fn revive_after_fork(&mut self) -> Result<(), PlatformError> {
        self.machine = None;
        // A fork counts anew.
        self.polled_calls = 0;
        self.spare = None;
        if !self.observing {
            // It is of the process that opened it, and tells a fork nothing.
            self.pagemap = None;
        }
        // Before there is a virtual machine that the host would tell of each page.
        self.tables.zone().populate(0, self.tables.used_extent(), Touch::Read);
        self.expected.populate(self.ram.region());
        let kind = self.hardware.kind;
        let zones = Zones { system: &self.system, tables: self.tables.zone(), data: self.ram.region() };
        // SAFETY: the regions are the platform's own, and outlive its machine as before.
        let machine =
            unsafe { Machine::new(&self.kvm, &self.features, kind, self.polling, zones, self.mapped_end) };
        let mut machine = machine.map_err(PlatformError::revival)?;
        machine.let_through(&self.interrupting_signals).at_run("KVM_SET_SIGNAL_MASK")?;
        self.machine = Some(machine);
        self.alarm.renew().at_run("timer_create")?;
        // The new VM remembers nothing.
        self.stale.clear();
        self.tables.end_quarantine();
        Ok(())
    }

    fn xsave(&self) -> (usize, u64) {
        (self.features.format.len, self.features.format.xcr0)
    }

    fn table_bytes(&self) -> u64 {
        self.tables.used_bytes()
    }

    fn calls_without_exit(&self) -> u64 {
        self.polled_calls + self.machine.as_ref().map_or(0, |machine| machine.vcpu.polled_calls())
    }

    fn hwcap(&self) -> u64 {
        // PVM lets ring 3 see the host's CPUID, and the guest's own is made from what KVM supports of it.
        u64::from(std::arch::x86_64::__cpuid(1).edx)
    }

    fn tsc(&self) -> Option<Tsc> {
        // SAFETY: RDTSC has no preconditions; Linux does not disable it for user code (CR4.TSD).
        let ticks = unsafe { std::arch::x86_64::_rdtsc() };
        self.hardware.tsc_khz.map(|khz| Tsc { ticks, khz })
    }
}
