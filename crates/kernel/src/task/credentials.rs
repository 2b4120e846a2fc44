//! User and group identity.

/// Who a task acts as (credentials(7)). Inside the sandbox only: no host right hangs on any of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names of credentials(7)")]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Vec<u32>,
    /// Capabilities in force (capabilities(7)).
    pub effective: u64,
    /// Capabilities that can be put in force.
    pub permitted: u64,
    /// Capabilities that an exec keeps if the program's file allows it; none does but root's.
    pub inheritable: u64,
    /// Capabilities that an exec keeps.
    pub ambient: u64,
    /// Capabilities that an exec can give at most.
    pub bounding: u64,
    /// How capabilities follow from the user: the `SECBIT_` bits (capabilities(7), "The securebits flags").
    pub securebits: u32,
    /// Set once, never cleared: an exec gains no rights (prctl PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
}

impl Credentials {
    /// All capabilities of Linux (capability.h, up to CAP_CHECKPOINT_RESTORE).
    pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

    /// SECBIT_NOROOT: an exec gives root nothing for being root.
    pub const NO_ROOT: u32 = 1 << 0;
    /// SECBIT_NO_SETUID_FIXUP: a change of user ids leaves the capabilities as they are.
    pub const NO_SETUID_FIXUP: u32 = 1 << 2;
    /// SECBIT_KEEP_CAPS: the permitted capabilities outlive the change to users other than root.
    pub const KEEP_CAPS: u32 = 1 << 4;
    /// SECBIT_NO_CAP_AMBIENT_RAISE: no capability becomes ambient.
    pub const NO_AMBIENT_RAISE: u32 = 1 << 6;
    /// The bits that can be set.
    pub const ALL_SECUREBITS: u32 = 0x55;
    /// For each of them the bit above it, which keeps it as it is for good.
    pub const ALL_SECUREBIT_LOCKS: u32 = Self::ALL_SECUREBITS << 1;

    /// Returns the credentials of a user with just this group.
    pub fn new(uid: u32, gid: u32) -> Credentials {
        Credentials {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: Vec::new(),
            effective: if uid == 0 { Credentials::ALL_CAPABILITIES } else { 0 },
            permitted: if uid == 0 { Credentials::ALL_CAPABILITIES } else { 0 },
            inheritable: 0,
            ambient: 0,
            bounding: Credentials::ALL_CAPABILITIES,
            securebits: 0,
            no_new_privs: false,
        }
    }

    /// Says whether a capability is in force, by its number.
    pub fn has_capability(&self, capability: u32) -> bool {
        1u64.checked_shl(capability).is_some_and(|bit| self.effective & bit != 0)
    }

    /// Adjusts the capabilities after a change of user ids from those in `before` (capabilities(7), "Effect
    /// of user ID changes on capabilities").
    pub fn follow_user_change(&mut self, before: &Credentials) {
        if self.securebits & Credentials::NO_SETUID_FIXUP != 0 {
            return;
        }
        let had_root = [before.uid, before.euid, before.suid].contains(&0);
        if had_root && ![self.uid, self.euid, self.suid].contains(&0) {
            if self.securebits & Credentials::KEEP_CAPS == 0 {
                (self.permitted, self.effective) = (0, 0);
            }
            self.ambient = 0;
        }
        if before.euid == 0 && self.euid != 0 {
            self.effective = 0;
        } else if before.euid != 0 && self.euid == 0 {
            self.effective = self.permitted;
        }
    }

    /// Adjusts the capabilities for an exec: root has all within its bounds, others keep what is ambient
    /// (capabilities(7), "Transformation of capabilities during execve()").
    pub fn follow_exec(&mut self) {
        let is_root = |uid: u32| uid == 0 && self.securebits & Credentials::NO_ROOT == 0;
        let gives_all = is_root(self.euid) || is_root(self.uid);
        let permitted = if gives_all { self.inheritable | self.bounding } else { self.ambient };
        let effective = if is_root(self.euid) { permitted } else { self.ambient };
        (self.suid, self.fsuid, self.sgid, self.fsgid) = (self.euid, self.euid, self.egid, self.egid);
        (self.permitted, self.effective) = (permitted, effective);
        self.securebits &= !Credentials::KEEP_CAPS;
    }
}
