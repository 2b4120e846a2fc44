//! A KVM virtual machine over the three zones.

use std::os::fd::AsRawFd;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};

use crate::alarm;
use crate::error::{Context as _, Kind, StartError};
use crate::layout::*;
use crate::region::Region;
use crate::vcpu::{Features, Vcpu};

/// KVM_SET_SIGNAL_MASK, which kvm-ioctls does not wrap: `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`.
const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;

/// The VM and its virtual CPU. KVM binds both to the process that made them, so a fork makes its own.
pub struct Machine {
    /// The virtual CPU.
    pub vcpu: Vcpu,
    vm: VmFd,
}

/// The host memory behind the three zones.
#[derive(Clone, Copy)]
pub struct Zones<'a> {
    /// Descriptors, stubs and the kernel stack.
    pub system: &'a Region,
    /// Page tables.
    pub tables: &'a Region,
    /// Frames.
    pub data: &'a Region,
}

impl Machine {
    /// Creates the VM and its vCPU.
    ///
    /// # Safety
    ///
    /// The regions must outlive the machine.
    pub unsafe fn new(
        kvm: &Kvm,
        features: &Features,
        kind: Kind,
        zones: Zones<'_>,
    ) -> Result<Machine, StartError> {
        let vm = kvm.create_vm().at_start("KVM_CREATE_VM")?;
        let slots = [
            slot(SYSTEM_SLOT, SYSTEM_GPA, zones.system),
            slot(TABLES_SLOT, TABLES_GPA, zones.tables),
            slot(DATA_SLOT, DATA_GPA, zones.data),
        ];
        for region in slots {
            // SAFETY: the region is a live mapping of this length that only this crate knows, and the
            // caller keeps it alive for as long as the machine.
            unsafe { vm.set_user_memory_region(region) }.at_start("KVM_SET_USER_MEMORY_REGION")?;
        }
        let vcpu = Vcpu::new(&vm, features, kind, 0)?;
        Ok(Machine { vcpu, vm })
    }

    /// Makes KVM drop every shadow page of the VM, by removing the memslot of the page tables and putting
    /// it back (`kvm_arch_flush_shadow_memslot` in the host kernel).
    ///
    /// # Safety
    ///
    /// `tables` must be the region that the machine was made with.
    pub unsafe fn forget_shadows(&self, tables: &Region) -> std::io::Result<()> {
        let present = slot(TABLES_SLOT, TABLES_GPA, tables);
        let absent = kvm_userspace_memory_region { memory_size: 0, ..present };
        for region in [absent, present] {
            // SAFETY: as in `new`; the caller says that it is the same region.
            unsafe { self.vm.set_user_memory_region(region) }?;
        }
        Ok(())
    }

    /// Sets which signals end a run: the deadline timer's and these.
    pub fn let_through(&self, interrupting: &[i32]) -> std::io::Result<()> {
        #[repr(C, packed)]
        struct SignalMask {
            len: u32,
            blocked: u64,
        }
        let mask = SignalMask { len: 8, blocked: alarm::mask_while_running(interrupting)? };
        // SAFETY: KVM reads `len`, and so many bytes after it (KVM API, 4.21). The descriptor is a vCPU's.
        let answer = unsafe { libc::ioctl(self.vcpu.fd().as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) };
        if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

fn slot(number: u32, gpa: u64, region: &Region) -> kvm_userspace_memory_region {
    kvm_userspace_memory_region {
        slot: number,
        flags: 0,
        guest_phys_addr: gpa,
        memory_size: region.len() as u64,
        userspace_addr: region.host_address(),
    }
}
