//! The virtual CPU: entering user code with any register state, and telling why it came back.
//!
//! ```text
//!                 SREGS written (another thread or space)
//!        +----------------------------------------------------+
//!        v                                                    |
//!   +---------+  syscall: LSTAR stub, `out`   +-------------------------+
//!   |         | ----------------------------> | Kernel, after a syscall |--+
//!   |  User   |          (ordinary KVM)       +-------------------------+  |
//!   | ring 3  | <----- sysretq: same registers -----------+                |
//!   |         |                                                            |
//!   |         |  exception: IDT stub, `out`   +---------------+            |
//!   |         | ----------------------------> |    Kernel     | <----------+
//!   |         | <---------------------------- | on RSP0 stack |
//!   +---------+   iretq: any registers, and   +---------------+
//!     |    ^      on ordinary KVM any space
//!     +----+  syscall on PVM, interrupted by a signal: still ring 3, registers set directly
//! ```
//!
//! RIP never points to user code while the vCPU is in ring 0.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_OUT,
    KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, Msrs, Xsave, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_xcr,
    kvm_xcrs,
};
use kvm_ioctls::{Kvm, SyncReg, VcpuFd, VmFd};
use lg_platform::{Access, Context, PlatformError, Regs, Trap, USER_END, UserAddr, Vector};

use crate::error::{Context as _, Kind, StartError};
use crate::flags;
use crate::fpu::{self, Format};
use crate::layout::*;
use crate::polling::mailbox::{self, Mailbox, Within};
use crate::polling::{Poller, Polling, Seen, runner};
use crate::region::Region;

const CR0: u64 = 0x8005_0033; // PG AM WP NE ET MP PE
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11; // SCE LME LMA NXE

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;
/// TF, IF, DF, IOPL, NT and AC are clear in ring 0.
const FMASK: u64 = 0x4_7700;

/// Page-fault error code bits (SDM volume 3, 4.7).
const PF_PRESENT: u64 = 1 << 0;
const PF_WRITE: u64 = 1 << 1;
const PF_RESERVED: u64 = 1 << 3;
const PF_FETCH: u64 = 1 << 4;

/// Which kvm-ioctls wraps for other architectures only: `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`.
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;

const CR3_STUB_END: u64 = CR3_STUB + STUB_STRIDE;

/// The CPUID leaves with the features, the state components and the address sizes.
const KNOWN_TO_KVM: [u32; 7] = [0, 1, 7, 0xd, 0x8000_0000, 0x8000_0001, 0x8000_0008];

/// How many times an interrupted I/O instruction may come back before it is given up.
const MAX_DRAINS: usize = 16;

/// What KVM offers to the virtual CPU.
pub struct Features {
    /// KVM_GET_SUPPORTED_CPUID.
    pub cpuid: kvm_bindings::CpuId,
    /// The part of `cpuid` by which KVM itself decides what the special registers may hold. On PVM no guest sees
    /// any of it, and KVM takes 1.5 us for each entry.
    known_to_kvm: kvm_bindings::CpuId,
    /// The extended state.
    pub format: Format,
    /// Bytes in KVM's XSAVE buffer.
    pub xsave_len: usize,
    /// Whether the virtual CPU has SMEP, and SMAP.
    pub smep: bool,
    /// See `smep`.
    pub smap: bool,
    /// A feature that is needed and not offered, if there is one. PVM does not offer all that ring 3 has: there
    /// the host's own CPUID and CR4 count.
    pub missing: Option<&'static str>,
    /// First guest-physical address that it can not address.
    pub physical_end: u64,
}

impl Features {
    /// Asks KVM.
    pub fn detect(kvm: &Kvm) -> Result<Features, StartError> {
        let cpuid = kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .at_start("KVM_GET_SUPPORTED_CPUID")?;
        let leaf = |function: u32, index: u32| {
            cpuid.as_slice().iter().find(|entry| entry.function == function && entry.index == index)
        };
        let seven = leaf(7, 0).map_or(0, |entry| entry.ebx);
        let missing = [
            (leaf(1, 0).is_some_and(|entry| entry.ecx & 1 << 26 != 0), "XSAVE"),
            (seven & 1 << 0 != 0, "FSGSBASE"),
            (leaf(0x8000_0001, 0).is_some_and(|entry| entry.edx & 1 << 20 != 0), "no-execute pages"),
        ]
        .iter()
        .find_map(|(present, feature)| (!present).then_some(*feature));
        let supported = leaf(0xd, 0).map_or(3, |entry| u64::from(entry.edx) << 32 | u64::from(entry.eax));
        let physical_bits = leaf(0x8000_0008, 0).map_or(36, |entry| entry.eax & 0xff).clamp(36, 52);
        let xsave_len = kvm.check_extension_int(kvm_ioctls::Cap::Xsave2).max(4096) as usize;
        let format = Format::detect(supported);
        let known: Vec<_> =
            cpuid.as_slice().iter().filter(|entry| KNOWN_TO_KVM.contains(&entry.function)).copied().collect();
        let known_to_kvm = kvm_bindings::CpuId::from_entries(&known)
            .map_err(|_| StartError::MissingCapability { capability: "a CPUID of usual length" })?;
        Ok(Features {
            cpuid,
            known_to_kvm,
            format,
            xsave_len,
            smep: seven & 1 << 7 != 0,
            smap: seven & 1 << 20 != 0,
            missing,
            physical_end: 1 << physical_bits,
        })
    }
}

/// Where the vCPU stands between two runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// In ring 3: registers may be set directly.
    User,
    /// In ring 0, in the system-call stub, before its `sysretq`.
    KernelAfterSyscall,
    /// In ring 0 elsewhere in the stubs.
    Kernel,
}

/// The thread whose FPU state and segment bases are in the vCPU.
struct Resident {
    id: u64,
    /// Whether it was synced since it last ran.
    synced: bool,
    fs_base: u64,
    gs_base: u64,
}

/// What came back from one run.
enum Exit {
    /// A system call, by the mailbox: the guest has not left.
    Mail,
    Io(u8, u16),
    Halt,
    Interrupted,
}

const DIRECTION_OUT: u8 = KVM_EXIT_IO_OUT as u8;

/// The virtual CPU.
pub struct Vcpu {
    /// Dropped before the descriptor that its thread runs.
    poller: Option<Poller>,
    /// What went wrong where nobody could be told.
    failed: Option<PlatformError>,
    fd: VcpuFd,
    kind: Kind,
    format: Format,
    place: Place,
    /// Special registers as they were last written.
    sregs: kvm_sregs,
    /// Whether the guest still has to load the CR3 of `sregs`, on its way to ring 3.
    change_space: bool,
    resident: Option<Resident>,
    xsave: Xsave,
    /// The FPU state that the resident thread was last given or synced to.
    last_fpu: Vec<u8>,
}

impl Vcpu {
    /// Makes the vCPU of a VM whose memslots are there, with the address space at `cr3` to begin in.
    pub fn new(
        vm: &VmFd,
        features: &Features,
        kind: Kind,
        polling: Polling,
        cr3: u64,
    ) -> Result<Vcpu, StartError> {
        if kind == Kind::Ordinary
            && let Some(feature) = features.missing
        {
            return Err(StartError::MissingFeature { feature });
        }
        let mut fd = vm.create_vcpu(0).at_start("KVM_CREATE_VCPU")?;
        match kind {
            Kind::Ordinary => fd.set_cpuid2(&features.cpuid),
            Kind::Pvm => fd.set_cpuid2(&features.known_to_kvm),
        }
        .at_start("KVM_SET_CPUID2")?;
        let mut sregs = fd.get_sregs().at_start("KVM_GET_SREGS")?;
        sregs.cr0 = CR0;
        sregs.cr3 = cr3;
        sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_OSXSAVE;
        if kind == Kind::Ordinary {
            sregs.cr4 |= if features.smep { CR4_SMEP } else { 0 };
            sregs.cr4 |= if features.smap { CR4_SMAP } else { 0 };
        }
        sregs.efer = EFER;
        sregs.cs = code_segment(USER_CS);
        sregs.ss = data_segment(USER_SS);
        (sregs.ds, sregs.es) = (sregs.ss, sregs.ss);
        (sregs.fs, sregs.gs) = (sregs.ss, sregs.ss);
        sregs.gdt.base = kernel_page(DESCRIPTOR_PAGE) + GDT_OFFSET as u64;
        sregs.gdt.limit = GDT_BYTES as u16 - 1;
        sregs.idt.base = kernel_page(DESCRIPTOR_PAGE) + IDT_OFFSET as u64;
        sregs.idt.limit = IDT_BYTES as u16 - 1;
        sregs.tr = kvm_segment {
            base: kernel_page(DESCRIPTOR_PAGE) + TSS_OFFSET as u64,
            limit: (TSS_BYTES + IO_BITMAP_BYTES) as u32 - 1,
            selector: TSS_SELECTOR,
            type_: 0xb,
            present: 1,
            ..kvm_segment::default()
        };
        sregs.ldt = kvm_segment { unusable: 1, ..kvm_segment::default() };
        fd.set_sregs(&sregs).at_start("KVM_SET_SREGS")?;
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..kvm_xcrs::default() };
        xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: features.format.xcr0 };
        fd.set_xcrs(&xcrs).at_start("KVM_SET_XCRS")?;
        let lstar = match kind {
            Kind::Ordinary => SYSCALL_STUB,
            Kind::Pvm => mailbox::MAILBOX_STUB,
        };
        set_msrs(&fd, lstar)?;
        share_the_hosts_tsc(&fd);
        fd.set_sync_valid_reg(SyncReg::Register);
        if kind == Kind::Pvm {
            // There an ioctl costs some 5 us, and this next to nothing. Hardware keeps the segments where
            // it takes a while to read them, so ordinary KVM is asked when they are needed.
            fd.set_sync_valid_reg(SyncReg::SystemRegister);
        }
        let xsave = fpu::new_area(features.xsave_len)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
            .at_start("the XSAVE buffer")?;
        Ok(Vcpu {
            // Elsewhere an exit takes no longer than a second thread's attention.
            poller: (kind == Kind::Pvm && polling != Polling::Never).then(|| Poller::new(polling)),
            failed: None,
            fd,
            kind,
            format: features.format,
            place: Place::User,
            sregs,
            change_space: false,
            resident: None,
            xsave,
            last_fpu: Vec::new(),
        })
    }

    /// Returns the descriptor, for what is asked of it seldom.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Makes the thread and the address space the ones that the next run is for.
    ///
    /// `flush_tlb` also makes the processor forget what it knows of the address space.
    pub fn load(
        &mut self,
        context: &Context,
        cr3: u64,
        flush_tlb: bool,
        system: &Region,
    ) -> Result<(), PlatformError> {
        let regs = &context.regs;
        let (same_bases, same_fpu) = match &self.resident {
            Some(resident) if resident.id == context.id() => {
                let same = regs.fs_base == resident.fs_base && regs.gs_base == resident.gs_base;
                // Between two syncs the vCPU's own values count.
                (!resident.synced || same, !resident.synced || context.fpu.0 == self.last_fpu)
            }
            Some(resident) if !resident.synced => {
                let reason = format!(
                    "bug: thread {} was entered, but thread {} was not synced after it ran",
                    context.id(),
                    resident.id
                );
                return Err(PlatformError::Unexpected { reason });
            }
            _ => (false, false),
        };
        let new_space = cr3 != self.sregs.cr3 || flush_tlb;
        if !same_fpu || !same_bases || new_space {
            self.leave(system);
        }
        if self.resident.as_ref().is_some_and(|resident| resident.id != context.id()) && self.poller.is_some()
        {
            Mailbox::new(system).clear();
        }
        if !same_fpu {
            self.format.sanitise(&context.fpu.0, fpu::area_bytes(&mut self.xsave));
            // SAFETY: the buffer is as long as KVM_CAP_XSAVE2 says, which is what KVM reads.
            unsafe { self.fd.set_xsave2(&self.xsave) }.at_run("KVM_SET_XSAVE")?;
            self.last_fpu.clone_from(&context.fpu.0);
        }
        // CR3 can be written along with the other special registers. But hardware KVM may then take down
        // all it has built for the guest (its own page tables, before Linux 6.4), so there the guest does
        // it, in ring 0, once it has an address space to do it in.
        let by_guest = new_space && self.kind == Kind::Ordinary && self.sregs.cr3 != 0;
        if !same_bases || (new_space && !by_guest) || (by_guest && self.place == Place::User) {
            if let Some(resident) = &self.resident
                && !resident.synced
            {
                // The same thread in another space, or after a flush: its bases are in the vCPU only.
                let now = self.special_registers()?;
                (self.sregs.fs.base, self.sregs.gs.base) = (now.fs.base, now.gs.base);
            } else {
                // KVM would take any value, and hardware refuses to run with a non-canonical one.
                self.sregs.fs.base = canonical(regs.fs_base);
                self.sregs.gs.base = canonical(regs.gs_base);
            }
            if !by_guest {
                self.sregs.cr3 = cr3;
            }
            let (code, data) = if by_guest { (KERNEL_CS, KERNEL_SS) } else { (USER_CS, USER_SS) };
            (self.sregs.cs, self.sregs.ss) = (code_segment(code), data_segment(data));
            self.place = if by_guest { Place::Kernel } else { Place::User };
            self.change_space = false;
            // The next KVM_RUN takes them along.
            self.fd.sync_regs_mut().sregs = self.sregs;
            self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        }
        if by_guest {
            self.sregs.cr3 = cr3;
            self.change_space = true;
        }
        self.resident =
            Some(Resident { id: context.id(), synced: false, fs_base: regs.fs_base, gs_base: regs.gs_base });
        Ok(())
    }

    /// Brings the lazy state of the context up to date, if it is in the vCPU.
    pub fn sync(&mut self, context: &mut Context, system: &Region) -> Result<(), PlatformError> {
        match &self.resident {
            Some(resident) if resident.id == context.id() && !resident.synced => {}
            _ => return Ok(()),
        }
        self.leave(system);
        let sregs = self.special_registers()?;
        // SAFETY: the buffer is as long as KVM_CAP_XSAVE2 says, which is what KVM writes.
        unsafe { self.fd.get_xsave2(&mut self.xsave) }.at_run("KVM_GET_XSAVE2")?;
        self.format.export(fpu::area_bytes(&mut self.xsave), &mut context.fpu.0);
        self.last_fpu.clone_from(&context.fpu.0);
        let (fs_base, gs_base) = (sregs.fs.base, sregs.gs.base);
        (context.regs.fs_base, context.regs.gs_base) = (fs_base, gs_base);
        self.resident = Some(Resident { id: context.id(), synced: true, fs_base, gs_base });
        Ok(())
    }

    /// Runs a thread that is about to make a system call, and tells by the way it comes out which kind of
    /// KVM this is. Returns the kind and RAX.
    pub fn first_system_call(&mut self, regs: &Regs, system: &Region) -> Result<(Kind, u64), PlatformError> {
        self.prepare(regs, system);
        let exit = self.run_once()?;
        let raw = self.fd.sync_regs().regs;
        let ring = self.fd.get_sregs().at_run("KVM_GET_SREGS")?.cs.selector & 3;
        let at_port = matches!(exit, Exit::Io(DIRECTION_OUT, port) if port == u16::from(PORT_SYSCALL));
        match (at_port, ring, raw.rip) {
            (true, 0, SYSCALL_STUB) => Ok((Kind::Ordinary, raw.rax)),
            (true, 3, SYSRETQ_STUB) => Ok((Kind::Pvm, raw.rax)),
            _ => {
                let at = system.read_u64(stack_offset(STACK_TOP - FRAME_BYTES));
                let rip = raw.rip;
                let reason = format!("a system call ended in ring {ring} at {rip:#x}, on the stack {at:#x}");
                Err(PlatformError::Unexpected { reason })
            }
        }
    }

    /// A KVM_RUN that returns before it enters the guest.
    pub fn bare_run(&mut self) -> io::Result<()> {
        self.fd.set_kvm_immediate_exit(1);
        let errno = runner::kvm_run(self.fd.as_raw_fd());
        self.fd.set_kvm_immediate_exit(0);
        match errno {
            0 | libc::EINTR => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Runs the loaded thread until it traps. `regs.rip` must be below [`USER_END`]. `code` reads a byte of
    /// the thread's memory.
    pub fn run(
        &mut self,
        regs: &mut Regs,
        system: &Region,
        code: &dyn Fn(u64) -> Option<u8>,
    ) -> Result<Trap, PlatformError> {
        assert!(regs.rip < USER_END.0);
        let exit = self.enter(regs, system)?;
        self.trap(exit, regs, system, code)
    }

    /// Tells what it is that the guest came out with, and takes its registers.
    fn trap(
        &mut self,
        exit: Exit,
        regs: &mut Regs,
        system: &Region,
        code: &dyn Fn(u64) -> Option<u8>,
    ) -> Result<Trap, PlatformError> {
        match exit {
            Exit::Mail => Ok(syscall(regs, &Mailbox::new(system).registers())),
            Exit::Io(DIRECTION_OUT, port) => {
                let raw = self.fd.sync_regs().regs;
                if self.is_syscall(port, raw.rip)? {
                    self.place = match self.kind {
                        Kind::Ordinary => Place::KernelAfterSyscall,
                        Kind::Pvm => Place::User,
                    };
                    return Ok(syscall(regs, &raw));
                }
                if port == u16::from(PORT_EXCEPTION)
                    && let Some(vector) = exception_stub(raw.rip)
                {
                    return self.exception(vector, &raw, regs, system);
                }
                let start = start_of_out(raw.rip, raw.rdx, port, code);
                self.own_instruction(regs, &raw, start, Some(port))
            }
            Exit::Io(_, port) => {
                let raw = self.fd.sync_regs().regs;
                self.own_instruction(regs, &raw, raw.rip, Some(port))
            }
            Exit::Halt => {
                let raw = self.fd.sync_regs().regs;
                self.own_instruction(regs, &raw, raw.rip, None)
            }
            Exit::Interrupted => self.interrupted(regs, system),
        }
    }

    /// How many system calls came without an exit.
    pub fn polled_calls(&self) -> u64 {
        self.poller.as_ref().map_or(0, |poller| poller.calls)
    }

    /// Whether the guest made a system call without leaving, and waits for the answer.
    pub fn is_waiting(&self) -> bool {
        self.poller.as_ref().is_some_and(|poller| poller.waiting)
    }

    /// Sets the signals that end a run.
    pub fn watch_for(&mut self, interrupting: &[i32]) {
        if let Some(poller) = &mut self.poller {
            poller.interrupting = interrupting.to_vec();
        }
    }

    /// Sets the guest going with these registers, until something comes of it.
    fn enter(&mut self, regs: &Regs, system: &Region) -> Result<Exit, PlatformError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.is_waiting() {
            let poller = self.poller.as_mut().expect("somebody waits");
            let can_return = regs.rflags == flags::sanitise(regs.rflags) && mailbox::can_return(regs);
            if can_return && !poller.is_wanted() && Mailbox::new(system).answer(regs) {
                poller.waiting = false;
                return self.poll(system);
            }
            self.leave(system);
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
        }
        self.prepare(regs, system);
        let vcpu = self.fd.as_raw_fd();
        // SAFETY: the poller is dropped before the descriptor is closed.
        let polled = self.poller.as_mut().is_some_and(|poller| unsafe { poller.begin(vcpu, system) });
        if polled {
            return self.poll(system);
        }
        let Some(poller) = &mut self.poller else { return self.run_once() };
        poller.entered();
        let exit = self.run_once()?;
        let is_call = matches!(exit, Exit::Io(DIRECTION_OUT, port) if port == u16::from(PORT_SYSCALL));
        if let Some(poller) = &mut self.poller {
            poller.came_out(is_call);
        }
        Ok(exit)
    }

    /// Looks into the mailbox while the other thread runs the vCPU.
    fn poll(&mut self, system: &Region) -> Result<Exit, PlatformError> {
        let poller = self.poller.as_mut().expect("only with a poller is there anything to poll");
        match poller.watch(system) {
            Seen::Call => Ok(Exit::Mail),
            Seen::Exit(errno) => self.exit(errno),
            // This thread goes on with it.
            Seen::Nothing => self.run_once(),
        }
    }

    /// Makes a guest leave that waits for the answer to a system call. Its registers are those of the context
    /// already, and whatever else it comes out with is of no interest.
    pub fn leave(&mut self, system: &Region) {
        let Some(poller) = self.poller.as_mut().filter(|poller| poller.waiting) else { return };
        let errno = poller.dismiss(system);
        let left = self.exit(errno).and_then(|exit| self.trap(exit, &mut Regs::default(), system, &|_| None));
        if let Err(error) = left {
            self.failed = Some(error);
        }
    }

    /// Gives the vCPU the user registers, by the way that leads from where it stands to ring 3.
    fn prepare(&mut self, regs: &Regs, system: &Region) {
        let rflags = flags::sanitise(regs.rflags);
        let mut raw = kvm_regs {
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rbp: regs.rbp,
            rsp: regs.rsp,
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
            rip: regs.rip,
            rflags,
        };
        match self.place {
            Place::User => assert!(!self.change_space),
            Place::KernelAfterSyscall
                if !self.change_space
                    && regs.rcx == regs.rip
                    && regs.r11 == rflags
                    && rflags & flags::RESUME == 0 =>
            {
                raw.rip = SYSRETQ_STUB;
                raw.rflags = flags::KERNEL;
            }
            Place::KernelAfterSyscall | Place::Kernel => {
                let frame = [regs.rip, u64::from(USER_CS), rflags, regs.rsp, u64::from(USER_SS)];
                let at = stack_offset(STACK_TOP - FRAME_BYTES);
                for (index, word) in frame.iter().enumerate() {
                    system.write_u64(at + index * 8, *word);
                }
                raw.rip = IRETQ_STUB;
                raw.rsp = STACK_TOP - FRAME_BYTES;
                raw.rflags = flags::KERNEL;
                if std::mem::take(&mut self.change_space) {
                    system.write_u64(at - 8, regs.rax);
                    raw.rip = CR3_STUB;
                    raw.rsp -= 8;
                    raw.rax = self.sregs.cr3;
                }
            }
        }
        self.fd.sync_regs_mut().regs = raw;
        self.fd.set_sync_dirty_reg(SyncReg::Register);
    }

    /// Returns the special registers as the last run left them.
    fn special_registers(&self) -> Result<kvm_sregs, PlatformError> {
        match self.kind {
            Kind::Pvm => Ok(self.fd.sync_regs().sregs),
            Kind::Ordinary => self.fd.get_sregs().at_run("KVM_GET_SREGS"),
        }
    }

    /// One KVM_RUN.
    fn run_once(&mut self) -> Result<Exit, PlatformError> {
        let errno = runner::kvm_run(self.fd.as_raw_fd());
        self.exit(errno)
    }

    /// Tells how a KVM_RUN ended that returned `errno`, 0 for success.
    fn exit(&mut self, errno: i32) -> Result<Exit, PlatformError> {
        match errno {
            0 => {}
            libc::EINTR => return Ok(Exit::Interrupted),
            errno => {
                let source = io::Error::from_raw_os_error(errno);
                return Err(PlatformError::Host { call: "KVM_RUN", source });
            }
        }
        let run = self.fd.get_kvm_run();
        let exit = run.__bindgen_anon_1;
        let reason = match run.exit_reason {
            KVM_EXIT_IO => {
                // SAFETY: the exit reason says that this member of the union was written.
                let io = unsafe { exit.io };
                return Ok(Exit::Io(io.direction, io.port));
            }
            KVM_EXIT_HLT => return Ok(Exit::Halt),
            KVM_EXIT_INTR => return Ok(Exit::Interrupted),
            KVM_EXIT_MMIO => {
                // SAFETY: as above.
                let address = unsafe { exit.mmio.phys_addr };
                return Err(PlatformError::UnbackedMemory { address });
            }
            KVM_EXIT_SHUTDOWN => return Err(PlatformError::Shutdown),
            KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: as above.
                let entry = unsafe { exit.fail_entry };
                let (cpu, reason) = (entry.cpu, entry.hardware_entry_failure_reason);
                format!("entry failed on processor {cpu}, hardware reason {reason:#x}")
            }
            KVM_EXIT_INTERNAL_ERROR => self.internal_error(),
            other => format!("exit reason {other}"),
        };
        Err(PlatformError::Unexpected { reason })
    }

    fn internal_error(&mut self) -> String {
        let rip = self.fd.sync_regs().regs.rip;
        let run = self.fd.get_kvm_run();
        debug_assert_eq!(run.exit_reason, KVM_EXIT_INTERNAL_ERROR);
        // SAFETY: the exit reason says that this member of the union was written.
        let error = unsafe { run.__bindgen_anon_1.internal };
        let data = &error.data[..(error.ndata as usize).min(error.data.len())];
        format!("internal error {} at rip {rip:#x}, data {data:x?}", error.suberror)
    }

    /// Says whether an `out` was the system-call stub's. On PVM it is checked that the stub ran in ring 3,
    /// since RIP will point to user code next; on ordinary KVM only ring 0 can have fetched it.
    fn is_syscall(&self, port: u16, rip: u64) -> Result<bool, PlatformError> {
        Ok(port == u16::from(PORT_SYSCALL)
            && match self.kind {
                Kind::Ordinary => rip == SYSCALL_STUB,
                Kind::Pvm => rip == SYSRETQ_STUB && self.special_registers()?.cs.selector & 3 == 3,
            })
    }

    /// The vCPU is in the stub of `vector`: the frame on the stack tells the state of the user code.
    fn exception(
        &mut self,
        vector: u8,
        raw: &kvm_regs,
        regs: &mut Regs,
        system: &Region,
    ) -> Result<Trap, PlatformError> {
        let sregs = self.special_registers()?;
        let top = if uses_ist(vector) { IST_TOP } else { STACK_TOP };
        let pushed = FRAME_BYTES + if has_error_code(vector) { 8 } else { 0 };
        let ring = sregs.cs.selector & 3;
        let unexpected = |what: &str| {
            let (rip, rsp) = (raw.rip, raw.rsp);
            let reason = format!("vector {vector} {what} (ring {ring}, rip {rip:#x}, rsp {rsp:#x})");
            Err(PlatformError::Unexpected { reason })
        };
        if ring != 0 || raw.rsp != top - pushed {
            return unexpected("was not entered by the processor");
        }
        let word = |index: u64| system.read_u64(stack_offset(top - FRAME_BYTES + index * 8));
        let (rip, cs, rflags, rsp) = (word(0), word(1), word(2), word(3));
        if cs != u64::from(USER_CS) {
            return unexpected(&format!("was raised in ring 0 at {rip:#x}"));
        }
        let error_code = match has_error_code(vector) {
            true => system.read_u64(stack_offset(top - pushed)),
            false => 0,
        };
        self.place = Place::Kernel;
        general(regs, raw);
        (regs.rip, regs.rflags, regs.rsp) = (rip, flags::sanitise(rflags), rsp);
        match vector {
            // Above user space PVM's own tables show through; below there are only ours.
            14 if error_code & PF_RESERVED != 0 && sregs.cr2 < USER_END.0 => {
                unexpected("found a reserved bit in a page table")
            }
            14 => Ok(Trap::PageFault {
                addr: UserAddr(sregs.cr2),
                access: match error_code {
                    code if code & PF_FETCH != 0 => Access::Exec,
                    code if code & PF_WRITE != 0 => Access::Write,
                    _ => Access::Read,
                },
                present: error_code & PF_PRESENT != 0,
            }),
            2 | 8 | 18 => unexpected("ends the sandbox"),
            _ => Ok(Trap::Exception { vector: Vector(vector), error_code }),
        }
    }

    /// User code executed an instruction that KVM handed over though it is not user code's: `in`, `out`,
    /// `hlt`. The thread gets the general-protection fault that the processor should have raised.
    fn own_instruction(
        &mut self,
        regs: &mut Regs,
        raw: &kvm_regs,
        start: u64,
        port: Option<u16>,
    ) -> Result<Trap, PlatformError> {
        let sregs = self.special_registers()?;
        if sregs.cs.selector & 3 != 3 {
            let reason = format!("an exit in ring 0 at rip {:#x}, port {port:x?}", raw.rip);
            return Err(PlatformError::Unexpected { reason });
        }
        self.place = Place::User;
        general(regs, raw);
        (regs.rip, regs.rflags, regs.rsp) = (start, flags::sanitise(raw.rflags), raw.rsp);
        self.drain(raw)?;
        Ok(Trap::Exception { vector: Vector::GENERAL_PROTECTION, error_code: 0 })
    }

    /// Lets KVM finish the instruction it is in the middle of, without running the guest (KVM API, 5,
    /// "immediate_exit"). Its effects are overwritten when the registers are next set.
    fn drain(&mut self, raw: &kvm_regs) -> Result<(), PlatformError> {
        for _ in 0..MAX_DRAINS {
            // A repeated string instruction takes what KVM has read for it, which only a last round of it
            // does, and ends.
            self.fd.sync_regs_mut().regs = kvm_regs { rcx: 1, ..*raw };
            self.fd.set_sync_dirty_reg(SyncReg::Register);
            self.fd.set_kvm_immediate_exit(1);
            let exit = self.run_once();
            self.fd.set_kvm_immediate_exit(0);
            if let Exit::Interrupted = exit? {
                return Ok(());
            }
        }
        let reason = format!("an i/o instruction at rip {:#x} does not end", raw.rip);
        Err(PlatformError::Unexpected { reason })
    }

    /// Takes an exception away that user code has raised but that is not delivered yet: something else came
    /// in its way, and KVM would deliver it at the next entry, whichever thread and ring that is for.
    fn take_undelivered_exception(&mut self) -> Result<Option<Vector>, PlatformError> {
        let mut events = self.fd.get_vcpu_events().at_run("KVM_GET_VCPU_EVENTS")?;
        if events.exception.injected == 0 && events.exception.pending == 0 {
            return Ok(None);
        }
        let vector = Vector(events.exception.nr);
        (events.exception.injected, events.exception.pending) = (0, 0);
        self.fd.set_vcpu_events(&events).at_run("KVM_SET_VCPU_EVENTS")?;
        Ok(Some(vector))
    }

    /// A signal ended the run, in user code or at any instruction of the stubs.
    fn interrupted(&mut self, regs: &mut Regs, system: &Region) -> Result<Trap, PlatformError> {
        let raw = self.fd.sync_regs().regs;
        let sregs = self.special_registers()?;
        let ring = sregs.cs.selector & 3;
        if ring == 3
            && self.kind == Kind::Pvm
            && let Some(within) = mailbox::within(raw.rip)
        {
            self.place = Place::User;
            return Ok(interrupted_within(within, regs, &raw, Mailbox::new(system)));
        }
        match raw.rip {
            SYSCALL_STUB => {
                // Before the `out`: the system call counts as made.
                self.place = if ring == 3 { Place::User } else { Place::KernelAfterSyscall };
                Ok(syscall(regs, &raw))
            }
            rip if ring == 3 => {
                // In user code. If it went somewhere in the kernel area its next step faults.
                let undelivered = self.take_undelivered_exception()?;
                self.place = Place::User;
                general(regs, &raw);
                (regs.rip, regs.rflags, regs.rsp) = (rip, flags::sanitise(raw.rflags), raw.rsp);
                match undelivered {
                    // The instruction of a fault comes again, and so does the fault. That of a trap does not.
                    Some(vector @ Vector::DEBUG) => Ok(Trap::Exception { vector, error_code: 0 }),
                    _ => Ok(Trap::Interrupted),
                }
            }
            SYSRETQ_STUB | IRETQ_STUB => {
                // On the way out: the thread has not run, its registers are as they were.
                self.place = Place::Kernel;
                Ok(Trap::Interrupted)
            }
            CR3_STUB..CR3_STUB_END => {
                // Also on the way out; once more is not too often.
                self.place = Place::Kernel;
                self.change_space = true;
                Ok(Trap::Interrupted)
            }
            rip => match exception_stub(rip) {
                Some(vector) => self.exception(vector, &raw, regs, system),
                None => {
                    let reason = format!("interrupted in ring 0 at rip {rip:#x}");
                    Err(PlatformError::Unexpected { reason })
                }
            },
        }
    }
}

/// A signal ended the run in the mailbox's stub.
fn interrupted_within(within: Within, regs: &mut Regs, raw: &kvm_regs, mailbox: Mailbox<'_>) -> Trap {
    match within {
        Within::Before => syscall(regs, raw),
        Within::Waiting if mailbox.state() != mailbox::DONE => syscall(regs, &mailbox.registers()),
        // The thread has not run since it was given its registers.
        Within::Waiting | Within::Returning => Trap::Interrupted,
    }
}

/// Tells which vector's stub is at, or just before, `rip`: an exit happens before or after the `out`,
/// depending on how KVM executed it.
fn exception_stub(rip: u64) -> Option<u8> {
    let offset = rip.checked_sub(EXCEPTION_STUBS)?;
    let vector = offset / STUB_STRIDE;
    (vector < 32 && matches!(offset % STUB_STRIDE, 0 | OUT_BYTES)).then_some(vector as u8)
}

/// Returns where an `out` to `port` begins when KVM stopped after it, at `rip`. Where the code does not say (it
/// was changed, or has prefixes), that is `rip` itself.
fn start_of_out(rip: u64, rdx: u64, port: u16, code: &dyn Fn(u64) -> Option<u8>) -> u64 {
    let before = |bytes| rip.checked_sub(bytes).and_then(code);
    match (before(2), before(1)) {
        (_, Some(0x6e | 0x6f | 0xee | 0xef)) if rdx as u16 == port => rip - 1,
        (Some(0xe6 | 0xe7), Some(immediate)) if u16::from(immediate) == port => rip - 2,
        _ => rip,
    }
}

/// Decodes the registers of a system call: RCX holds the return address and R11 the flags.
fn syscall(regs: &mut Regs, raw: &kvm_regs) -> Trap {
    general(regs, raw);
    (regs.rip, regs.rflags, regs.rsp) = (raw.rcx, flags::sanitise(raw.r11), raw.rsp);
    Trap::Syscall
}

/// Copies the registers that mean the same in the stubs as in user code.
fn general(regs: &mut Regs, raw: &kvm_regs) {
    regs.rax = raw.rax;
    regs.rbx = raw.rbx;
    regs.rcx = raw.rcx;
    regs.rdx = raw.rdx;
    regs.rsi = raw.rsi;
    regs.rdi = raw.rdi;
    regs.rbp = raw.rbp;
    regs.r8 = raw.r8;
    regs.r9 = raw.r9;
    regs.r10 = raw.r10;
    regs.r11 = raw.r11;
    regs.r12 = raw.r12;
    regs.r13 = raw.r13;
    regs.r14 = raw.r14;
    regs.r15 = raw.r15;
}

/// Returns the offset in the system zone of an address on the kernel stack.
fn stack_offset(address: u64) -> usize {
    (address - KERNEL_AREA) as usize
}

/// Returns the address, or 0 in place of one that is not canonical (SDM volume 1, 3.3.7.1).
fn canonical(address: u64) -> u64 {
    let sign_extended = ((address << 16) as i64 >> 16) as u64;
    if sign_extended == address { address } else { 0 }
}

fn code_segment(selector: u16) -> kvm_segment {
    kvm_segment { type_: 0xb, l: 1, db: 0, ..data_segment(selector) }
}

fn data_segment(selector: u16) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_: 3,
        present: 1,
        dpl: (selector & 3) as u8,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

fn set_msrs(fd: &VcpuFd, lstar: u64) -> Result<(), StartError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    let msrs = [
        entry(MSR_STAR, u64::from(KERNEL_SS) << 48 | u64::from(KERNEL_CS) << 32),
        entry(MSR_LSTAR, lstar),
        entry(MSR_FMASK, FMASK),
    ];
    let count = msrs.len();
    let msrs = Msrs::from_entries(&msrs).expect("three entries fit");
    let set = fd.set_msrs(&msrs).at_start("KVM_SET_MSRS")?;
    if set != count {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(StartError::Host { call: "KVM_SET_MSRS", source });
    }
    Ok(())
}

/// Makes the guest's time-stamp counter the host's, where KVM can (KVM API, KVM_VCPU_TSC_OFFSET). Where it
/// can not, [`crate::KvmPlatform`] finds out and offers no TSC clock.
fn share_the_hosts_tsc(fd: &VcpuFd) {
    let zero = 0u64;
    let attribute = kvm_bindings::kvm_device_attr {
        flags: 0,
        group: kvm_bindings::KVM_VCPU_TSC_CTRL,
        attr: u64::from(kvm_bindings::KVM_VCPU_TSC_OFFSET),
        addr: &raw const zero as u64,
    };
    // SAFETY: the descriptor is a vCPU's, and KVM reads eight bytes at `addr`, which lives in this frame.
    unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) };
}
