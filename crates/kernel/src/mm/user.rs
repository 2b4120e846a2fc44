//! Copies between the kernel and user memory.

use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use lg_platform::{Access, PAGE_SIZE, Prot, USER_END, UserAddr};

use super::MemoryManager;

/// The memory of one process as the kernel reads and writes it. All of it is by copy: nothing here ever
/// refers to guest memory.
#[derive(Clone)]
pub struct UserMemory {
    mm: Rc<RefCell<MemoryManager>>,
}

impl UserMemory {
    /// Returns the access to `mm`.
    pub fn new(mm: &Rc<RefCell<MemoryManager>>) -> UserMemory {
        UserMemory { mm: mm.clone() }
    }

    /// Fills `buf` from user memory at `addr`.
    ///
    /// Errors: EFAULT where a byte can not be read.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        if self.read_partial(addr, buf) == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Writes `data` to user memory at `addr`.
    ///
    /// Errors: EFAULT where a byte can not be written; those before it have been.
    pub fn write(&self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        if self.write_partial(addr, data) == data.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Fills `buf` as far as user memory at `addr` can be read, and returns how far that was.
    pub fn read_partial(&self, addr: u64, buf: &mut [u8]) -> usize {
        let mut mm = self.mm.borrow_mut();
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = UserAddr(addr).checked_add(done as u64) else { break };
            let len = (PAGE_SIZE - at.page_offset()).min(buf.len() - done);
            let Some(frame) = mm.access(at, Access::Read) else { break };
            mm.frames.store().read(frame, at.page_offset(), &mut buf[done..done + len]);
            done += len;
        }
        done
    }

    /// Writes `data` as far as user memory at `addr` can be written, and returns how far that was.
    pub fn write_partial(&self, addr: u64, data: &[u8]) -> usize {
        let mut mm = self.mm.borrow_mut();
        let mut done = 0;
        while done < data.len() {
            let Some(at) = UserAddr(addr).checked_add(done as u64) else { break };
            let len = (PAGE_SIZE - at.page_offset()).min(data.len() - done);
            let Some(frame) = mm.access(at, Access::Write) else { break };
            mm.frames.store().write(frame, at.page_offset(), &data[done..done + len]);
            mm.note_store(at);
            done += len;
        }
        done
    }

    /// Copies a value in.
    pub fn copy_in<T: FromBytes + IntoBytes>(&self, addr: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read(addr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value out.
    pub fn copy_out<T: IntoBytes + Immutable + ?Sized>(&self, addr: u64, value: &T) -> Result<(), Errno> {
        self.write(addr, value.as_bytes())
    }

    /// Copies a string in, without its NUL.
    ///
    /// Errors: EFAULT; ENAMETOOLONG where there is no NUL in the first `max` bytes.
    pub fn read_string(&self, addr: u64, max: usize) -> Result<Vec<u8>, Errno> {
        let mut string = Vec::new();
        let mut chunk = [0; 256];
        while string.len() < max {
            let at = UserAddr(addr).checked_add(string.len() as u64).ok_or(Errno::EFAULT)?;
            let len = (PAGE_SIZE - at.page_offset()).min(chunk.len()).min(max - string.len());
            self.read(at.0, &mut chunk[..len])?;
            match chunk[..len].iter().position(|byte| *byte == 0) {
                Some(end) => {
                    string.extend_from_slice(&chunk[..end]);
                    return Ok(string);
                }
                None => string.extend_from_slice(&chunk[..len]),
            }
        }
        Err(Errno::ENAMETOOLONG)
    }
}

impl MemoryManager {
    /// Returns the frame behind `addr` once it may be accessed so, or `None` where it never may.
    pub(crate) fn access(&mut self, addr: UserAddr, access: Access) -> Option<lg_platform::Frame> {
        if addr >= USER_END {
            return None;
        }
        let needed = if access == Access::Write { Prot::WRITE } else { Prot::READ };
        for _ in 0..2 {
            let mapping = self.machine.borrow().lookup(self.space, addr.page_floor());
            if let Some(mapping) = mapping
                && (mapping.prot.contains(needed) || (needed == Prot::READ && !mapping.prot.is_empty()))
            {
                return Some(mapping.frame);
            }
            self.fault(addr, access).ok()?;
        }
        None
    }

    /// Tells a file that the kernel stored to a shared mapping of it: the processor's dirty bit does not.
    fn note_store(&mut self, addr: UserAddr) {
        if let Some(area) = self.area_at(addr)
            && area.flags.contains(super::VmaFlags::SHARED)
            && let super::Backing::File { inode, .. } = &area.backing
        {
            inode.page_dirtied(area.page_index(addr.page_floor()));
        }
    }
}
