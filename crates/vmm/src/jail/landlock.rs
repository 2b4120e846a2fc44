//! Landlock: a second hold on files, whatever is mounted where, and on TCP, abstract sockets and signals.

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use lg_control::{Access, Wall};

use super::JailError;
use super::grants::Grants;

/// The newest set of rights that is asked for; an older host enforces what it knows.
const RIGHTS: ABI = ABI::V6;

/// A directory that is granted in part: the image `host` lists it and shows what may be seen. In a root of the vmm's own it
/// holds nothing else.
const LISTED: [&str; 1] = ["/etc"];

/// Restricts this process to what was granted. Says whether the host enforces any of it.
pub fn restrict(grants: &Grants) -> Result<bool, JailError> {
    let status = enforce(grants)
        .map_err(|error| JailError::new(Wall::Landlock, "restrict itself", io::Error::other(error)))?;
    Ok(status != RulesetStatus::NotEnforced)
}

fn enforce(grants: &Grants) -> Result<RulesetStatus, RulesetError> {
    let paths = |access| grants.iter().filter(move |grant| grant.1 == access).map(|grant| grant.0);
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let write: BitFlags<AccessFs> = AccessFs::from_all(RIGHTS) & !AccessFs::Execute;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?
        .add_rules(path_beneath_rules(paths(Access::ReadOnly), read))?
        .add_rules(path_beneath_rules(paths(Access::ReadWrite), write))?
        .add_rules(path_beneath_rules(LISTED, AccessFs::ReadDir))?
        .restrict_self()?;
    Ok(status.ruleset)
}
