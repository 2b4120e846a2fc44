//! The limits of [`Admission`](super::Admission): [`AdmissionConfig`].

use std::time::Duration;

use super::host::Readings;

/// What is kept free, and how many may live, start and wait. `None` means that the default follows the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Memory that is never given to sandboxes. Default: a sixteenth of the machine's, at least 256 MiB, at most a
    /// quarter.
    pub memory_reserve_bytes: Option<u64>,
    /// Descriptors of this process that are never given to sandboxes. Default: 64.
    pub descriptors_reserve: u64,
    /// Processes that are never given to sandboxes. Default: 64.
    pub processes_reserve: u64,
    /// How many sandboxes may be there at once, starting ones included. Default: as many as fit.
    pub max_alive: Option<usize>,
    /// How many may be starting at once: more only make each other slower. Default: two for each core.
    pub max_starting: Option<usize>,
    /// How many may wait. With 0, nobody ever waits. Default: 10,000.
    pub queue_len: usize,
    /// How old a reading of the machine may be for a decision. What was promised since is counted in any case.
    /// Default: 10 ms.
    pub readings_max_age: Duration,
    /// How often the machine is read while somebody waits for what others than sandboxes may give back, such as memory.
    /// Default: 100 ms.
    pub reread_every: Duration,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            memory_reserve_bytes: None,
            descriptors_reserve: 64,
            processes_reserve: 64,
            max_alive: None,
            max_starting: None,
            queue_len: 10_000,
            readings_max_age: Duration::from_millis(10),
            reread_every: Duration::from_millis(100),
        }
    }
}

const LEAST_RESERVE_BYTES: u64 = 256 << 20;

impl AdmissionConfig {
    pub(super) fn memory_reserve_bytes(&self, readings: &Readings) -> u64 {
        let total = readings.memory_total_bytes;
        self.memory_reserve_bytes.unwrap_or_else(|| (total / 16).max(LEAST_RESERVE_BYTES).min(total / 4))
    }

    pub(super) fn max_alive(&self) -> usize {
        self.max_alive.unwrap_or(usize::MAX)
    }

    pub(super) fn max_starting(&self, readings: &Readings) -> usize {
        self.max_starting.unwrap_or(2 * readings.cores.max(1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_follow_the_machine() {
        let config = AdmissionConfig::default();
        let reserve_mib = |total_mib: u64| {
            let readings = Readings { memory_total_bytes: total_mib << 20, ..Readings::default() };
            config.memory_reserve_bytes(&readings) >> 20
        };
        assert_eq!([512, 2048, 16 << 10].map(reserve_mib), [128, 256, 1024]);
        assert_eq!(config.max_starting(&Readings { cores: 8, ..Readings::default() }), 16);
        assert_eq!(config.max_starting(&Readings { cores: 0, ..Readings::default() }), 2);
    }
}
