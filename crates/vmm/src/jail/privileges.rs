//! What the process may no longer do: capabilities, new privileges, core dumps, being traced.

use std::io;

use lg_control::Wall;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::JailError;

/// Limits of resources that a vmm never needs. It locks no memory. The size of files is not limited: a standard
/// stream or a mount may be a large file; nor the number of processes, which is that of the user and not of a sandbox.
const LIMITS: [Resource; 2] = [Resource::Core, Resource::Memlock];

/// Gives up all privileges.
pub fn drop_all() -> Result<(), JailError> {
    let failed = |doing: &'static str| move |error: io::Error| JailError::new(Wall::Privileges, doing, error);
    drop_capabilities().map_err(failed("drop capabilities"))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    LIMITS
        .into_iter()
        .try_for_each(|resource| setrlimit(resource, none))
        .map_err(|errno| failed("lower resource limits")(errno.into()))?;
    set_no_new_privs(true).map_err(|errno| failed("refuse new privileges")(errno.into()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| failed("forbid tracing")(errno.into()))
}

/// Empties every set. The bounding set can be emptied by who has CAP_SETPCAP: everybody in a user namespace of his own. Where
/// that wall is waived it may stay, and means nothing without new privileges.
fn drop_capabilities() -> io::Result<()> {
    if capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
                Ok(()) => {}
                // Beyond the last that this kernel knows.
                Err(rustix::io::Errno::INVAL) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
