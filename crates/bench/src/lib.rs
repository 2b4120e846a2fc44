//! The scale harness: agents that do real work, N at once, measured from outside; and what a warm sandbox takes.
//!
//! - [`ScaleConfig::run`] is `luminaguard bench scale`: the life of an agent is *spawn* (from the request until its
//!   interpreter answered for the first time), *execute* (the operations of a [`Scenario`], every answer checked
//!   against one computed here) and *clean-up* (until its process is reaped).
//! - [`SpawnConfig::run`], [`ForkConfig::run`], [`ClaimConfig::run`] and [`LivesConfig::run`] are `bench spawn`, `fork`, `claim`
//!   and `lives`: forks of a warm template, with the floors of the machine in the same run. Each answers a [`Finding`].
//! - [`ChaosConfig::run`] is `bench chaos`: agents at work while their host is mistreated.
//! - [`FiguresConfig::run`] is `luminaguard bench figures`: single programs in a sandbox against the same natively.
//! - [`ProgramsConfig::run`] is `luminaguard bench programs`: what programs do inside one sandbox, against the same natively.
//! - [`PeersConfig::run`] is `luminaguard bench peers`: one program in a sandbox, and in other ways to isolate it.
//! - [`OverloadConfig::run`] is `luminaguard bench overload`: more sandboxes are asked for than there is room for.
//!
//! Nothing is estimated: a figure that cannot be measured on this host is absent from the result files. Times come
//! from repetitions in which no agent waits for another. Memory needs a moment at which all
//! N are alive, so it is sampled in one more repetition, whose times count nowhere.

#![forbid(unsafe_code)]

mod agent;
mod backend;
mod bootstrap;
mod burst;
mod cell_driver;
mod chaos;
mod checkpoint;
mod claim;
mod compare;
mod descriptors;
mod environment;
mod figures;
mod finding;
mod floors;
mod footprint;
mod fork;
mod interrupt;
mod line_driver;
mod lives;
mod overload;
mod peers;
mod proc;
mod programs;
mod progress;
mod random;
mod report;
mod scale;
mod scenario;
mod schema;
mod spawn;
mod stats;
mod suggest;
mod timing;
mod usage;
mod usl;
mod warm_life;

pub use agent::{Life, OperationSample, Outcome, Phase, SandboxSample};
pub use backend::Backend;
pub use burst::Burst;
pub use chaos::{CHAOS_RUNTIME, ChaosConfig, ChaosFinding, FaultKind, serve_chaos_runtime};
pub use claim::{ClaimConfig, ClaimFinding, ClaimSample};
pub use compare::{CompareConfig, CompareFinding, Comparison, Sides, Verdict};
pub use environment::Environment;
pub use figures::{Figure, Figures, FiguresConfig, GUEST_PROBE};
pub use finding::{Finding, Header, Skipped, Tally, TemplateFacts, check_json_path, write_json};
pub use floors::{BareVm, FloorSamples, Floors, KvmProbe, KvmSample, MeasuredFloors, NativeBurst, Ratio};
pub use footprint::{Footprint, Held};
pub use fork::{ForkConfig, ForkFinding, LiveFork};
pub use interrupt::Interrupted;
pub use lg_runtime::Leftovers;
pub use lives::{FloorRate, LivesConfig, LivesFinding, Rate, SustainedLife};
pub use overload::{
    OVERLOAD_ROW, OverloadConfig, OverloadFinding, OverloadRow, RowSamples, Scarce, overload_row,
};
pub use peers::{PeerFigure, PeerProgram, PeersConfig, PeersFinding};
pub use programs::ProgramsConfig;
pub use scale::{Arrival, Criteria, Extras, ScaleConfig, ScaleOutcome};
pub use scenario::Scenario;
pub use schema::{
    AgentResult, Bound, Concurrent, Criterion, MeanExits, Overload, Peers, PhaseMean, Resources, Scaling,
    ScenarioFacts,
};
pub use spawn::{SpawnConfig, SpawnFinding};
pub use stats::Summary;
pub use usl::Usl;
pub use warm_life::{Phases, WarmLife};

/// What every measurement of warm sandboxes needs.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Starts the vmms of templates.
    pub launcher: lg_runtime::Launcher,
    /// Measures the floor.
    pub bare_vm: BareVm,
}

/// A duration in milliseconds.
fn ms(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
