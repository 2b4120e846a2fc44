//! The machine and the program that a run was measured with.

use std::fs;

use serde::Serialize;

/// What a reader must know to judge the figures. What could not be found out is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// The processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// How many processors this process may use.
    pub cores: usize,
    /// The memory of the machine in MiB.
    pub memory_mb: u64,
    /// The release of the host's kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// `ordinary` or `pvm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_kind: Option<String>,
    /// 1 or 2, whichever has the memory controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_version: Option<u8>,
    /// The version of LuminaGuard.
    pub version: String,
    /// The commit it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// `release` or `debug`.
    pub build_profile: String,
    /// The command line of the run.
    pub command_line: Vec<String>,
    /// Where the agents ran: `warm` (forks of a template), `cold` (a new VM for each) or `native`.
    pub backend: String,
    /// The load averages over 1, 5 and 15 minutes before the run.
    pub load_average: [f64; 3],
}

impl Environment {
    /// Looks at this machine.
    pub fn look(backend: &str, kvm_kind: Option<String>) -> Self {
        let info = rustix::system::sysinfo();
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu_model: cpu_model(&read("/proc/cpuinfo")),
            cores: cores(),
            memory_mb: lg_runtime::host_memory_bytes() >> 20,
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
                .filter(|text| !text.is_empty()),
            kvm_kind,
            cgroup_version: cgroup_version(&read("/proc/self/mountinfo")),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("LUMINAGUARD_COMMIT").map(str::to_owned),
            build_profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            command_line: std::env::args().collect(),
            backend: backend.to_owned(),
            // The kernel's fixed-point numbers have 16 bits of fraction.
            load_average: info.loads.map(|load| load as f64 / 65536.0),
        }
    }
}

/// How many processors this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn cgroup_version(mountinfo: &str) -> Option<u8> {
    let types = || mountinfo.lines().filter_map(|line| line.split_once(" - ")?.1.split(' ').next());
    if types().any(|kind| kind == "cgroup") {
        Some(1)
    } else {
        types().any(|kind| kind == "cgroup2").then_some(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_and_the_cgroups_are_found() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\n").as_deref(), Some("AMD EPYC"));
        let two = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_version(two), Some(2));
        assert_eq!(
            cgroup_version(&format!("{two}31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw")),
            Some(1)
        );
        assert_eq!(cgroup_version(""), None);
    }

    #[test]
    fn this_machine_can_be_described() {
        let environment = Environment::look("native", None);
        assert!(environment.cores >= 1 && environment.memory_mb > 0);
    }
}
