//! Shared-memory segments (shmget(2), shmat(2), shmctl(2)).

use std::cell::Cell;
use std::rc::Rc;

use lg_abi::ipc::SHM_DEST;
use lg_abi::{Errno, ShmidDs};

use super::{Caller, Object, Permission, SHMMAX};
use crate::PAGE_BYTES;
use crate::mm::SharedPages;
use crate::vfs::Quota;

/// A segment.
pub struct Segment {
    /// Key, owner and mode, with SHM_DEST and SHM_LOCKED.
    pub permission: Cell<Permission>,
    /// Length in bytes as it was asked for.
    pub bytes: u64,
    /// Its pages.
    pub pages: Rc<SharedPages>,
    attached: Cell<u64>,
    /// When it was last attached, detached and changed.
    attach_time: Cell<i64>,
    detach_time: Cell<i64>,
    change_time: Cell<i64>,
    creator: u32,
    last_user: Cell<u32>,
    total: Rc<Quota>,
}

impl Segment {
    /// Returns a segment of zeros, whose pages count in `total`.
    ///
    /// Errors: EINVAL, ENOSPC.
    pub fn new(
        caller: &Caller<'_>,
        permission: Permission,
        bytes: u64,
        total: &Rc<Quota>,
    ) -> Result<Rc<Segment>, Errno> {
        if bytes == 0 || bytes > SHMMAX {
            return Err(Errno::EINVAL);
        }
        total.take(bytes.div_ceil(PAGE_BYTES)).map_err(|_| Errno::ENOSPC)?;
        Ok(Rc::new(Segment {
            permission: Cell::new(permission),
            bytes,
            pages: Rc::new(SharedPages::new(bytes.div_ceil(PAGE_BYTES))),
            attached: Cell::new(0),
            attach_time: Cell::new(0),
            detach_time: Cell::new(0),
            change_time: Cell::new(caller.now),
            creator: caller.pid,
            last_user: Cell::new(0),
            total: total.clone(),
        }))
    }

    /// Notes an attach.
    pub fn note_attach(&self, caller: &Caller<'_>) {
        self.attach_time.set(caller.now);
        self.last_user.set(caller.pid);
    }

    /// Notes a detach.
    pub fn note_detach(&self, pid: u32, now: i64) {
        self.detach_time.set(now);
        self.last_user.set(pid);
    }

    /// Changes owner and mode.
    pub fn set_permission(&self, caller: &Caller<'_>, permission: Permission) {
        self.permission.set(permission);
        self.change_time.set(caller.now);
    }

    /// Returns how many areas of memory show the segment.
    pub fn attached(&self) -> u64 {
        self.attached.get()
    }

    /// Returns its length in pages.
    pub fn len_pages(&self) -> u64 {
        self.bytes.div_ceil(PAGE_BYTES)
    }

    /// Returns what IPC_STAT shows.
    pub fn show(&self, id: u32) -> ShmidDs {
        ShmidDs {
            shm_perm: self.permission.get().show(id),
            shm_segsz: self.bytes,
            shm_atime: self.attach_time.get(),
            shm_dtime: self.detach_time.get(),
            shm_ctime: self.change_time.get(),
            shm_cpid: self.creator,
            shm_lpid: self.last_user.get(),
            shm_nattch: self.attached.get(),
            ..ShmidDs::default()
        }
    }
}

impl Object for Segment {
    fn permission(&self) -> Permission {
        self.permission.get()
    }

    fn forget_key(&self) {
        let permission = self.permission.get();
        self.permission.set(Permission { key: 0, mode: permission.mode | SHM_DEST, ..permission });
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.total.give(self.len_pages());
    }
}

/// A segment as an area of memory shows it: each counts in `shm_nattch`.
pub struct Attachment(Rc<Segment>);

impl Attachment {
    /// Attaches a segment once more.
    pub fn new(segment: &Rc<Segment>) -> Attachment {
        segment.attached.set(segment.attached.get() + 1);
        Attachment(segment.clone())
    }

    /// Returns the segment.
    pub fn segment(&self) -> &Rc<Segment> {
        &self.0
    }
}

impl Clone for Attachment {
    fn clone(&self) -> Attachment {
        Attachment::new(&self.0)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.0.attached.set(self.0.attached.get().saturating_sub(1));
    }
}
