//! Who may do what to an object (sysvipc(7), "Resource access permissions").

use lg_abi::raw::general::{CAP_IPC_OWNER, CAP_SYS_ADMIN};
use lg_abi::{Errno, IpcPerm};

use crate::task::Credentials;

/// Who makes a call, and when.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Whose rights count.
    pub creds: &'a Credentials,
    /// The process.
    pub pid: u32,
    /// The time on CLOCK_REALTIME in seconds.
    pub now: i64,
}

/// Owner and mode of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names of sysvipc(7)")]
pub struct Permission {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
}

/// Ways of access, as the permission bits of one class.
pub const READ: u32 = 4;
/// See [`READ`].
pub const WRITE: u32 = 2;
/// See [`READ`]; only shmat(2) with SHM_EXEC asks for it.
pub const EXEC: u32 = 1;

impl Permission {
    /// Returns the permission of a new object.
    pub fn new(caller: &Caller<'_>, key: i32, flags: u32) -> Permission {
        let (uid, gid) = (caller.creds.euid, caller.creds.egid);
        Permission { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777 }
    }

    /// Checks the access that the nine lowest bits of `flags` ask for, whichever class they name.
    ///
    /// Errors: EACCES.
    pub fn check_flags(&self, caller: &Caller<'_>, flags: u32) -> Result<(), Errno> {
        self.check(caller, (flags >> 6 | flags >> 3 | flags) & 7)
    }

    /// Checks access in all of the ways of `want`.
    ///
    /// Errors: EACCES.
    pub fn check(&self, caller: &Caller<'_>, want: u32) -> Result<(), Errno> {
        let creds = caller.creds;
        let member = |gid| creds.egid == gid || creds.groups.contains(&gid);
        let shift = if [self.uid, self.cuid].contains(&creds.euid) {
            6
        } else if member(self.cgid) || member(self.gid) {
            3
        } else {
            0
        };
        if want & !(self.mode >> shift) & 7 == 0 || creds.has_capability(CAP_IPC_OWNER) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Checks that the caller may change or remove the object.
    ///
    /// Errors: EPERM.
    pub fn check_owner(&self, caller: &Caller<'_>) -> Result<(), Errno> {
        let owns = self.is_owner(caller) || caller.creds.has_capability(CAP_SYS_ADMIN);
        if owns { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Says whether the caller is owner or creator.
    pub fn is_owner(&self, caller: &Caller<'_>) -> bool {
        [self.uid, self.cuid].contains(&caller.creds.euid)
    }

    /// Takes owner and mode from what IPC_SET passes.
    ///
    /// Errors: EINVAL for the user or group -1.
    pub fn set(&mut self, from: &IpcPerm) -> Result<(), Errno> {
        if from.uid == u32::MAX || from.gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        (self.uid, self.gid) = (from.uid, from.gid);
        self.mode = self.mode & !0o777 | from.mode & 0o777;
        Ok(())
    }

    /// Returns what IPC_STAT shows of the object with this id.
    pub fn show(&self, id: u32) -> IpcPerm {
        let seq = (id >> super::ids::INDEX_BITS) as u16;
        let Permission { key, uid, gid, cuid, cgid, mode } = *self;
        IpcPerm { key, uid, gid, cuid, cgid, mode, seq, ..IpcPerm::default() }
    }
}
