//! Why a platform can not start, and the two kinds of KVM.

use std::fmt;
use std::io;

/// The kinds of KVM that run guests in different ways.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Hardware virtualisation: kvm_intel or kvm_amd.
    Ordinary,
    /// Software virtualisation by shadow paging (the `kvm_pvm` module): ring 3 runs natively, ring 0 is
    /// interpreted, and a system call enters its stub without a change of ring.
    Pvm,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Ordinary => "hardware virtualisation",
            Kind::Pvm => "PVM (software virtualisation)",
        })
    }
}

/// Why the platform can not start on this machine or with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no KVM device.
    #[error("there is no /dev/kvm: load a KVM module, or run on a machine that offers virtualisation")]
    Absent {
        /// What open(2) said.
        #[source]
        source: io::Error,
    },
    /// The KVM device may not be opened.
    #[error("/dev/kvm may not be opened: add this user to the group that owns it")]
    Forbidden {
        /// What open(2) said.
        #[source]
        source: io::Error,
    },
    /// The device could not be opened for another reason.
    #[error("/dev/kvm can not be opened")]
    Open {
        /// What open(2) said.
        #[source]
        source: io::Error,
    },
    /// KVM speaks another version of its API; 12 is the only one since Linux 2.6.22.
    #[error("KVM speaks API version {found}, not 12")]
    ApiVersion {
        /// The version found.
        found: i32,
    },
    /// KVM lacks something that is needed.
    #[error("this KVM lacks {capability}: a host kernel of version 5.17 or later has it")]
    MissingCapability {
        /// The name of the capability.
        capability: &'static str,
    },
    /// The processor that KVM offers lacks something that is needed.
    #[error("the virtual processor lacks {feature}")]
    MissingFeature {
        /// The name of the feature.
        feature: &'static str,
    },
    /// The memory size makes no sense.
    #[error("a guest memory of {bytes} bytes: it must be a multiple of 4096 from 1 MiB up to {max}")]
    MemorySize {
        /// What was asked for.
        bytes: u64,
        /// The largest size that the virtual processor can address.
        max: u64,
    },
    /// A call to the host failed.
    #[error("{call} failed")]
    Host {
        /// The call.
        call: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// The guest did not behave as either kind of KVM does.
    #[error("the probe of KVM failed: {reason}")]
    Probe {
        /// What was seen.
        reason: String,
    },
    /// The platform failed under the probe.
    #[error("the probe of KVM failed")]
    ProbeFailed {
        /// What failed.
        #[source]
        source: lg_platform::PlatformError,
    },
}

/// Names the call that a KVM or host error came from.
pub(crate) trait Context<T> {
    /// For what fails at start-up.
    fn at_start(self, call: &'static str) -> Result<T, StartError>;
    /// For what fails while the platform runs.
    fn at_run(self, call: &'static str) -> Result<T, lg_platform::PlatformError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn at_start(self, call: &'static str) -> Result<T, StartError> {
        self.map_err(|error| StartError::Host { call, source: error.into() })
    }

    fn at_run(self, call: &'static str) -> Result<T, lg_platform::PlatformError> {
        self.map_err(|error| lg_platform::PlatformError::Host { call, source: error.into() })
    }
}
