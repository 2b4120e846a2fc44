//! What agents use, sampled while all of them are alive.

use std::sync::Arc;
use std::time::Instant;

use crate::agent::{self, Life, Plan};
use crate::checkpoint::{Sampler, Stage, checkpoints};
use crate::proc;
use crate::schema::Resources;

const MIB: f64 = (1 << 20) as f64;

/// Gathers all agents, once they are alive and once they have worked, and looks at their processes meanwhile.
pub(super) async fn sample(mut sampler: Sampler) -> Resources {
    let alive = sampler.gather(Stage::Alive, || {}).await;
    let memory = proc::pss_bytes(&alive);
    let threads = proc::threads(&alive);
    let mut peak = memory;
    sampler.open(Stage::Alive);
    let worked = sampler.gather(Stage::Worked, || peak = peak.max(proc::pss_bytes(&alive))).await;
    peak = peak.max(proc::pss_bytes(&worked));
    let disk = proc::disk_bytes(&worked);
    sampler.open(Stage::Worked);
    Resources {
        memory_mb: memory.map(|bytes| bytes as f64 / MIB),
        memory_per_agent_mb: memory.map(|bytes| bytes as f64 / MIB / alive.len().max(1) as f64),
        memory_peak_mb: peak.map(|bytes| bytes as f64 / MIB),
        threads_active: threads,
        disk_read_mb: disk.map(|(read, _)| read as f64 / MIB),
        disk_write_mb: disk.map(|(_, written)| written as f64 / MIB),
        ..Resources::default()
    }
}

/// Lives one agent's life, and says how much memory of its own its process had when its work was done, in bytes.
pub(super) async fn live_and_weigh(plan: Arc<Plan>, seed: u64) -> (Life, Option<u64>) {
    let (mut sampler, mut checkpoints) = checkpoints(1);
    let checkpoint = checkpoints.pop().unwrap_or_default();
    let weigh = async {
        sampler.gather(Stage::Alive, || {}).await;
        sampler.open(Stage::Alive);
        let worked = sampler.gather(Stage::Worked, || {}).await;
        let bytes = worked.first().and_then(|pid| proc::private_bytes(*pid));
        sampler.open(Stage::Worked);
        bytes
    };
    tokio::join!(agent::live(plan, seed, Instant::now(), checkpoint), weigh)
}

/// The memory that the host can still give, in bytes: `MemAvailable` of /proc/meminfo.
pub(super) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(proc::field(&text, "MemAvailable:")? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_host_has_memory() {
        assert!(super::available_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
