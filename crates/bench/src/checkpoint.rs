//! Points at which all agents of a sampled repetition wait for each other, so that a moment exists in which
//! all of them are alive.

use tokio::sync::{mpsc, watch};

/// The points, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The program has answered hello.
    Alive,
    /// All operations are done.
    Worked,
}

const STAGES: [Stage; 2] = [Stage::Alive, Stage::Worked];

/// An agent's side. In a timed repetition nothing ever waits here.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    gate: Option<Gate>,
}

#[derive(Debug)]
struct Gate {
    arrivals: mpsc::UnboundedSender<(Stage, Option<u32>)>,
    opened: watch::Receiver<Option<Stage>>,
    next: usize,
}

/// The sampler's side.
#[derive(Debug)]
pub(crate) struct Sampler {
    arrivals: mpsc::UnboundedReceiver<(Stage, Option<u32>)>,
    opened: watch::Sender<Option<Stage>>,
    agents: usize,
    arrived: [Vec<Option<u32>>; STAGES.len()],
}

/// One sampler and the checkpoints of `agents` agents.
pub(crate) fn checkpoints(agents: usize) -> (Sampler, Vec<Checkpoint>) {
    let (sender, arrivals) = mpsc::unbounded_channel();
    let (opened, receiver) = watch::channel(None);
    let gate = || Gate { arrivals: sender.clone(), opened: receiver.clone(), next: 0 };
    let checkpoints = (0..agents).map(|_| Checkpoint { gate: Some(gate()) }).collect();
    (Sampler { arrivals, opened, agents, arrived: Default::default() }, checkpoints)
}

impl Checkpoint {
    /// Says that this agent has come to `stage`, with the process that holds it, and waits until the sampler lets it go on.
    pub(crate) async fn reach(&mut self, stage: Stage, pid: Option<u32>) {
        let Some(gate) = &mut self.gate else { return };
        gate.next = stage as usize + 1;
        let _ = gate.arrivals.send((stage, pid));
        // An error means that the sampler is gone: nobody to wait for.
        let _ = gate.opened.wait_for(|opened| opened.is_some_and(|opened| opened >= stage)).await;
    }
}

impl Drop for Checkpoint {
    /// An agent that ends early counts as arrived everywhere, without a process.
    fn drop(&mut self) {
        let Some(gate) = &self.gate else { return };
        for stage in STAGES.into_iter().skip(gate.next) {
            let _ = gate.arrivals.send((stage, None));
        }
    }
}

impl Sampler {
    /// Waits until all agents have come to `stage` and answers the processes of those that are alive. Calls
    /// `meanwhile` ten times a second.
    pub(crate) async fn gather(&mut self, stage: Stage, mut meanwhile: impl FnMut()) -> Vec<u32> {
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(100));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.arrived[stage as usize].len() < self.agents {
            tokio::select! {
                arrival = self.arrivals.recv() => match arrival {
                    Some((at, pid)) => self.arrived[at as usize].push(pid),
                    None => break,
                },
                _ = interval.tick() => meanwhile(),
            }
        }
        self.arrived[stage as usize].iter().flatten().copied().collect()
    }

    /// Lets the agents that wait at `stage` go on.
    pub(crate) fn open(&self, stage: Stage) {
        let _ = self.opened.send(Some(stage));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sampler_sees_those_that_are_alive_and_waits_for_no_others() {
        let (mut sampler, checkpoints) = checkpoints(3);
        let agents = checkpoints.into_iter().zip([1u32, 2, 3]).map(|(mut checkpoint, pid)| async move {
            if pid == 2 {
                return; // This one fails before it is alive.
            }
            checkpoint.reach(Stage::Alive, Some(pid)).await;
            if pid == 3 {
                return; // This one fails at its work.
            }
            checkpoint.reach(Stage::Worked, Some(pid)).await;
        });
        let tasks: Vec<_> = agents.map(tokio::spawn).collect();
        let mut alive = sampler.gather(Stage::Alive, || {}).await;
        alive.sort_unstable();
        assert_eq!(alive, [1, 3]);
        sampler.open(Stage::Alive);
        assert_eq!(sampler.gather(Stage::Worked, || {}).await, [1]);
        sampler.open(Stage::Worked);
        for task in tasks {
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_agent_without_a_sampler_waits_for_nobody() {
        Checkpoint::default().reach(Stage::Alive, None).await;
        let (sampler, mut checkpoints) = checkpoints(1);
        drop(sampler);
        checkpoints[0].reach(Stage::Worked, None).await;
    }
}
