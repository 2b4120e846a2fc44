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
    /// Set once, never cleared: an exec gains no rights (prctl PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
}

impl Credentials {
    /// All capabilities of Linux (capability.h, up to CAP_CHECKPOINT_RESTORE).
    pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

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
        let had_root = [before.uid, before.euid, before.suid].contains(&0);
        if had_root && ![self.uid, self.euid, self.suid].contains(&0) {
            (self.permitted, self.effective) = (0, 0);
        }
        if before.euid == 0 && self.euid != 0 {
            self.effective = 0;
        } else if before.euid != 0 && self.euid == 0 {
            self.effective = self.permitted;
        }
    }

    /// Adjusts the capabilities for an exec: root has all, others none.
    pub fn follow_exec(&mut self) {
        let all = if self.euid == 0 || self.uid == 0 { Credentials::ALL_CAPABILITIES } else { 0 };
        (self.suid, self.fsuid, self.sgid, self.fsgid) = (self.euid, self.euid, self.egid, self.egid);
        self.permitted = all;
        self.effective = if self.euid == 0 { all } else { 0 };
    }
}
