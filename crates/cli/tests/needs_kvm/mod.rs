//! What tests through the command line begin with.

/// Leaves the test, loudly, where there is no KVM.
macro_rules! needs_kvm {
    () => {
        if !std::path::Path::new("/dev/kvm").exists() {
            eprintln!("SKIPPED: there is no /dev/kvm on this machine");
            return;
        }
    };
}
pub(crate) use needs_kvm;
