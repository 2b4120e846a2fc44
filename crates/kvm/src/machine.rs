//! A KVM virtual machine over the three zones.

use std::os::fd::AsRawFd;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::alarm;
use crate::error::{Context as _, Kind, StartError};
use crate::layout::*;
use crate::polling::Polling;
use crate::region::Region;
use crate::vcpu::{Features, Vcpu};

/// KVM_SET_SIGNAL_MASK, which kvm-ioctls does not wrap: `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`.
const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;

/// Bytes that the first memslot of the data zone covers. Each further one covers as much as all before it.
///
/// KVM allocates some ten bytes a page for each memslot of a shadowed VM, at once: a slot over all that a guest
/// may ever use would cost more time and memory than all the rest of a small VM.
const FIRST_DATA_SLOT_BYTES: usize = 32 << 20;

/// The VM and its virtual CPU. KVM binds both to the process that made them, so a fork makes its own.
pub struct Machine {
    /// The virtual CPU.
    pub vcpu: Vcpu,
    vm: VmFd,
    /// Bytes of the data zone that memslots cover.
    covered: usize,
}

/// A virtual CPU without memory that never runs.
///
/// The host kernel patches its own code when the first vCPU without an interrupt controller comes and when the last
/// one goes, which takes longer than all the rest of a VM's making. While a template keeps this one, its forks are never
/// the first or the last.
pub struct SpareVm {
    _vcpu: VcpuFd,
    _vm: VmFd,
}

impl SpareVm {
    /// Makes it.
    pub fn new(kvm: &Kvm) -> std::io::Result<SpareVm> {
        let vm = create_vm(kvm)?;
        Ok(SpareVm { _vcpu: vm.create_vcpu(0)?, _vm: vm })
    }
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
    /// Creates the VM and its vCPU, with memslots over at least the first `data_bytes` of the data zone.
    ///
    /// # Safety
    ///
    /// The regions must outlive the machine.
    pub unsafe fn new(
        kvm: &Kvm,
        features: &Features,
        kind: Kind,
        polling: Polling,
        zones: Zones<'_>,
        data_bytes: usize,
    ) -> Result<Machine, StartError> {
        let vm = create_vm(kvm).at_start("KVM_CREATE_VM")?;
        let slots =
            [slot(SYSTEM_SLOT, SYSTEM_GPA, zones.system), slot(TABLES_SLOT, TABLES_GPA, zones.tables)];
        for region in slots {
            // SAFETY: the region is a live mapping of this length that only this crate knows, and the
            // caller keeps it alive for as long as the machine.
            unsafe { vm.set_user_memory_region(region) }.at_start("KVM_SET_USER_MEMORY_REGION")?;
        }
        let vcpu = Vcpu::new(&vm, features, kind, polling, 0)?;
        let mut machine = Machine { vcpu, vm, covered: 0 };
        // SAFETY: it is the data zone that the caller keeps alive.
        unsafe { machine.cover(zones.data, data_bytes) }.at_start("KVM_SET_USER_MEMORY_REGION")?;
        // The first KVM_RUN makes a thread of the host for the VM. Where there is no process left for it, that must show
        // now, and not when the guest runs.
        machine.vcpu.bare_run().at_start("KVM_RUN")?;
        Ok(machine)
    }

    /// Bytes of the data zone that memslots cover.
    pub fn covered(&self) -> usize {
        self.covered
    }

    /// Adds memslots until they cover the first `bytes` of the data zone.
    ///
    /// # Safety
    ///
    /// `data` must be the data zone that the machine was made with.
    pub unsafe fn cover(&mut self, data: &Region, bytes: usize) -> std::io::Result<()> {
        for (index, extent) in data_slots(data.len()).enumerate() {
            if extent.start < self.covered {
                continue;
            }
            if extent.start >= bytes.max(1) {
                break;
            }
            let region = kvm_userspace_memory_region {
                slot: DATA_SLOT + index as u32,
                flags: 0,
                guest_phys_addr: DATA_GPA + extent.start as u64,
                memory_size: extent.len() as u64,
                userspace_addr: data.host_address() + extent.start as u64,
            };
            // SAFETY: the extent lies in the live mapping of the data zone, which outlives the machine.
            unsafe { self.vm.set_user_memory_region(region) }?;
            self.covered = extent.end;
        }
        Ok(())
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
    pub fn let_through(&mut self, interrupting: &[i32]) -> std::io::Result<()> {
        #[repr(C, packed)]
        struct SignalMask {
            len: u32,
            blocked: u64,
        }
        let mask = SignalMask { len: 8, blocked: alarm::mask_while_running(interrupting)? };
        // SAFETY: KVM reads `len`, and so many bytes after it (KVM API, 4.21). The descriptor is a vCPU's.
        let answer = unsafe { libc::ioctl(self.vcpu.fd().as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) };
        if answer != 0 {
            return Err(std::io::Error::last_os_error());
        }
        self.vcpu.watch_for(interrupting);
        Ok(())
    }
}

/// Makes a VM. A signal that arrives meanwhile, for which the process has a handler, ends the call; then it is made again.
fn create_vm(kvm: &Kvm) -> std::io::Result<VmFd> {
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return Ok(result?),
        }
    }
}

/// The parts of a data zone of `len` bytes that have a memslot each.
fn data_slots(len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    std::iter::successors(Some(0..FIRST_DATA_SLOT_BYTES.min(len)), move |last| {
        (last.end < len).then(|| last.end..last.end.saturating_mul(2).min(len))
    })
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

#[cfg(test)]
mod tests {
    use super::data_slots;

    #[test]
    fn slots_cover_the_zone_without_gaps_and_double() {
        let mib = |ranges: Vec<std::ops::Range<usize>>| {
            ranges.iter().map(|range| (range.start >> 20, range.end >> 20)).collect::<Vec<_>>()
        };
        assert_eq!(mib(data_slots(8 << 20).collect()), [(0, 8)]);
        assert_eq!(mib(data_slots(32 << 20).collect()), [(0, 32)]);
        assert_eq!(mib(data_slots(100 << 20).collect()), [(0, 32), (32, 64), (64, 100)]);
        let slots: Vec<_> = data_slots(1 << 40).collect();
        assert!(slots.windows(2).all(|pair| pair[0].end == pair[1].start) && slots.len() < 20);
    }
}
