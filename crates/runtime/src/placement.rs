//! On which CPUs a sandbox runs: a [`Placer`] gives each one an [`Assignment`].
//!
//! A sandbox is one thread that computes, so what placement can win is memory near the CPU, and CPUs left alone.
//!
//! - [`Placement::None`]: wherever the host's scheduler likes. The default.
//! - [`Placement::Spread`]: the NUMA nodes share the sandboxes evenly, by their number of CPUs. A sandbox may use *all*
//!   CPUs of its node: within a node the scheduler balances better than any fixed choice, since sandboxes sleep
//!   most of their lives and nobody knows when they will not. On a machine with one node nothing is restricted.
//! - [`Placement::Pack`]: as few CPUs as possible. A sandbox gets *one* CPU; the next CPU is used when the
//!   earlier ones have [`PACKED_PER_CPU`] sandboxes each, node by node, and the least loaded one when all are full. For
//!   hosts that have other work to do.
//! - [`Placement::Cpus`]: these and no others, for all sandboxes together.
//!
//! Only CPUs that this process itself may use (sched_setaffinity(2), cpuset(7)) are ever given. A set that does not
//! restrict anything is not given at all: [`Assignment::cpus`] is `None` then, and no system call is made.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::Pid;
use rustix::thread::{CpuSet as Affinity, sched_getaffinity, sched_setaffinity};

/// How many sandboxes a CPU gets with [`Placement::Pack`] before the next is used.
pub const PACKED_PER_CPU: usize = 4;

/// A set of CPUs, by their Linux numbers. Written and read as Linux does: `0-3,6`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CpuSet(BTreeSet<u32>);

impl CpuSet {
    /// The numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many CPUs are in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no CPU is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `cpu` is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// Those that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl FromStr for CpuSet {
    type Err = PlacementError;

    /// Reads the list format of cpuset(7), without strides. The empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, PlacementError> {
        let wrong = || PlacementError::NotAList { text: text.to_owned() };
        let number = |text: &str| {
            // parse() would take a sign.
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse::<u32>().ok()).flatten();
            number.filter(|cpu| (*cpu as usize) < Affinity::MAX_CPU).ok_or_else(wrong)
        };
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

/// Where sandboxes run; see the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Placement {
    /// Wherever the host's scheduler likes.
    #[default]
    None,
    /// Evenly over the NUMA nodes.
    Spread,
    /// On as few CPUs as possible.
    Pack,
    /// On these CPUs.
    Cpus(CpuSet),
}

impl FromStr for Placement {
    type Err = PlacementError;

    fn from_str(text: &str) -> Result<Self, PlacementError> {
        match text {
            "none" => Ok(Self::None),
            "spread" => Ok(Self::Spread),
            "pack" => Ok(Self::Pack),
            list => match list.parse::<CpuSet>() {
                Ok(cpus) if !cpus.is_empty() => Ok(Self::Cpus(cpus)),
                _ => Err(PlacementError::NotAPlacement { text: text.to_owned() }),
            },
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Spread => f.write_str("spread"),
            Self::Pack => f.write_str("pack"),
            Self::Cpus(cpus) => cpus.fmt(f),
        }
    }
}

/// Why sandboxes cannot be placed as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The text names no placement.
    #[error("`{text}` is no placement: write none, spread, pack, or CPUs as in 0-3,6")]
    NotAPlacement {
        /// What was given.
        text: String,
    },
    /// The text is no list of CPUs.
    #[error("`{text}` is no list of CPUs: write it as in 0-3,6")]
    NotAList {
        /// What was given.
        text: String,
    },
    /// No CPU was named.
    #[error("no CPU is named: at least one is needed")]
    NoCpu,
    /// The machine has no such CPUs, or they are switched off.
    #[error("CPU {missing} does not exist on this machine, whose CPUs are {existing}")]
    NoSuchCpu {
        /// Those that do not exist.
        missing: CpuSet,
        /// Those that do.
        existing: CpuSet,
    },
    /// This process may not use them, so its sandboxes may not either.
    #[error(
        "CPU {forbidden} may not be used by this process: it may use {allowed} (see taskset(1) and cpuset(7))"
    )]
    Forbidden {
        /// Those that may not be used.
        forbidden: CpuSet,
        /// Those that may.
        allowed: CpuSet,
    },
    /// The host does not say which CPUs this process may use.
    #[error("cannot find out which CPUs this process may use")]
    Affinity(#[source] io::Error),
}

/// The CPUs of a machine, as one process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    existing: CpuSet,
    allowed: CpuSet,
    /// The allowed CPUs of each node that has some. A node is known by its place in this list.
    nodes: Vec<CpuSet>,
}

impl Topology {
    /// The machine that this runs on.
    ///
    /// # Errors
    /// [`PlacementError::Affinity`].
    pub fn of_host() -> Result<Self, PlacementError> {
        let affinity =
            sched_getaffinity(None).map_err(|error| PlacementError::Affinity(io::Error::from(error)))?;
        let allowed: CpuSet =
            (0..Affinity::MAX_CPU).filter(|cpu| affinity.is_set(*cpu)).map(|cpu| cpu as u32).collect();
        Ok(Self::read(Path::new("/sys/devices/system"), allowed))
    }

    /// Reads what sysfs says of nodes and CPUs. A host without these files has one node, and the CPUs that are allowed.
    fn read(system: &Path, allowed: CpuSet) -> Self {
        let list = |path: &Path| fs::read_to_string(path).ok()?.parse::<CpuSet>().ok();
        let existing = list(&system.join("cpu/online")).unwrap_or_else(|| allowed.clone());
        let nodes = list(&system.join("node/online")).unwrap_or_default();
        let cpus_of = |node: u32| list(&system.join(format!("node/node{node}/cpulist")));
        Self::new(existing, allowed, nodes.iter().filter_map(cpus_of))
    }

    /// A machine with the CPUs `existing`, of which this process may use `allowed`, in `nodes`. CPUs that are in no node
    /// make one of their own.
    pub fn new(existing: CpuSet, allowed: CpuSet, nodes: impl IntoIterator<Item = CpuSet>) -> Self {
        let mut rest = allowed.clone();
        let mut usable: Vec<CpuSet> = Vec::new();
        for node in nodes {
            usable.push(node.intersection(&rest));
            rest = rest.difference(&node);
        }
        usable.push(rest);
        usable.retain(|node| !node.is_empty());
        Self { existing, allowed, nodes: usable }
    }

    /// The CPUs that this process may use.
    pub fn allowed(&self) -> &CpuSet {
        &self.allowed
    }

    /// The NUMA nodes, each with those of its CPUs that this process may use; nodes without any are left out.
    pub fn nodes(&self) -> &[CpuSet] {
        &self.nodes
    }
}

/// Assigns CPUs to sandboxes. Clones share their books.
#[derive(Debug, Clone)]
pub struct Placer {
    /// What can be assigned, in the order in which it is filled.
    slots: Arc<[Slot]>,
    /// How many sandboxes each slot has.
    load: Arc<Mutex<Vec<usize>>>,
    /// How many sandboxes a slot gets before the next is used; 0 when they are filled evenly.
    fill: usize,
}

#[derive(Debug)]
struct Slot {
    cpus: Arc<CpuSet>,
    /// Whether this is less than what the process may use anyway.
    restricts: bool,
}

impl Placer {
    /// A placer for sandboxes on `topology`.
    ///
    /// # Errors
    /// When named CPUs are none, do not exist or are forbidden.
    pub fn new(placement: &Placement, topology: &Topology) -> Result<Self, PlacementError> {
        let sets: Vec<CpuSet> = match placement {
            Placement::None => vec![topology.allowed.clone()],
            Placement::Spread => topology.nodes.clone(),
            Placement::Pack => {
                topology.nodes.iter().flat_map(CpuSet::iter).map(|cpu| CpuSet::from_iter([cpu])).collect()
            }
            Placement::Cpus(cpus) => {
                check(cpus, topology)?;
                vec![cpus.clone()]
            }
        };
        if sets.is_empty() {
            return Err(PlacementError::NoCpu);
        }
        let slot = |cpus: CpuSet| Slot { restricts: cpus != topology.allowed, cpus: Arc::new(cpus) };
        let slots: Arc<[Slot]> = sets.into_iter().map(slot).collect();
        let load = Arc::new(Mutex::new(vec![0; slots.len()]));
        Ok(Self { slots, load, fill: if *placement == Placement::Pack { PACKED_PER_CPU } else { 0 } })
    }

    /// Chooses CPUs for one more sandbox.
    pub fn assign(&self) -> Assignment {
        let mut load = lock(&self.load);
        let not_full = load.iter().position(|count| *count < self.fill);
        let slot = not_full.unwrap_or_else(|| self.least_loaded(&load));
        load[slot] += 1;
        Assignment { placer: self.clone(), slot }
    }

    /// The first of those with the fewest sandboxes for each CPU.
    fn least_loaded(&self, load: &[usize]) -> usize {
        // a/b < c/d, without fractions.
        let is_less =
            |a: usize, b: usize| load[a] * self.slots[b].cpus.len() < load[b] * self.slots[a].cpus.len();
        (1..load.len()).fold(0, |best, slot| if is_less(slot, best) { slot } else { best })
    }

    /// How many sandboxes have CPUs assigned.
    pub fn assigned(&self) -> usize {
        lock(&self.load).iter().sum()
    }
}

fn check(cpus: &CpuSet, topology: &Topology) -> Result<(), PlacementError> {
    if cpus.is_empty() {
        return Err(PlacementError::NoCpu);
    }
    let forbidden = cpus.difference(&topology.allowed);
    let missing = forbidden.difference(&topology.existing);
    if !missing.is_empty() {
        return Err(PlacementError::NoSuchCpu { missing, existing: topology.existing.clone() });
    }
    if !forbidden.is_empty() {
        return Err(PlacementError::Forbidden { forbidden, allowed: topology.allowed.clone() });
    }
    Ok(())
}

/// The counts are whole after every step, so a panic elsewhere does not spoil them.
fn lock(load: &Mutex<Vec<usize>>) -> MutexGuard<'_, Vec<usize>> {
    load.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The CPUs of one sandbox. Dropping it gives them back.
#[derive(Debug)]
#[must_use = "the CPUs are given back when this is dropped"]
pub struct Assignment {
    placer: Placer,
    slot: usize,
}

impl Assignment {
    /// The CPUs that the sandbox shall run on; `None` when it may run wherever this process may.
    pub fn cpus(&self) -> Option<&CpuSet> {
        let slot = &self.placer.slots[self.slot];
        slot.restricts.then_some(&*slot.cpus)
    }

    /// Binds the thread `thread` to the CPUs, or the first thread of a process, which its later threads and children
    /// inherit. Does nothing when nothing is restricted.
    ///
    /// # Errors
    /// Those of sched_setaffinity(2); then the sandbox must not run.
    pub fn apply_to(&self, thread: Pid) -> io::Result<()> {
        let Some(cpus) = self.cpus() else { return Ok(()) };
        let mut affinity = Affinity::new();
        cpus.iter().for_each(|cpu| affinity.set(cpu as usize));
        Ok(sched_setaffinity(Some(thread), &affinity)?)
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        lock(&self.placer.load)[self.slot] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    /// Two nodes: 0-3 and 4-5; CPU 6 exists but may not be used.
    fn two_nodes() -> Topology {
        Topology::new(set("0-6"), set("0-5"), [set("0-3"), set("4-6")])
    }

    fn assign(placer: &Placer, count: usize) -> (Vec<Assignment>, Vec<String>) {
        let assignments: Vec<_> = (0..count).map(|_| placer.assign()).collect();
        let texts = assignments
            .iter()
            .map(|assignment| assignment.cpus().map_or("any".to_owned(), ToString::to_string));
        let texts = texts.collect();
        (assignments, texts)
    }

    #[test]
    fn a_set_of_cpus_is_written_as_linux_does() {
        for (text, written) in [("0", "0"), ("3,1,2", "1-3"), ("0-3,6", "0-3,6"), ("0-1\n", "0-1"), ("", "")]
        {
            assert_eq!(set(text).to_string(), written);
        }
        for wrong in ["a", "1-", "-1", "3-1", "1,,2", "+1", "1 2", "99999", "0-4294967295"] {
            assert!(wrong.parse::<CpuSet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_placement_is_read_from_its_text() {
        for text in ["none", "spread", "pack", "0-3,6"] {
            assert_eq!(text.parse::<Placement>().unwrap().to_string(), text);
        }
        for wrong in ["", "all", "0-", "None"] {
            let message = wrong.parse::<Placement>().unwrap_err().to_string();
            assert!(message.contains("none, spread, pack"), "{message}");
        }
    }

    #[test]
    fn without_a_placement_nothing_is_restricted() {
        let placer = Placer::new(&Placement::None, &two_nodes()).unwrap();
        let (_assignments, cpus) = assign(&placer, 2);
        assert_eq!(cpus, ["any", "any"]);
    }

    #[test]
    fn spread_shares_the_nodes_by_their_cpus() {
        let placer = Placer::new(&Placement::Spread, &two_nodes()).unwrap();
        let (assignments, cpus) = assign(&placer, 6);
        assert_eq!(cpus, ["0-3", "4-5", "0-3", "0-3", "4-5", "0-3"]);
        assert_eq!(placer.assigned(), 6);
        drop(assignments);
        assert_eq!(placer.assigned(), 0);
    }

    #[test]
    fn spread_restricts_nothing_on_a_single_node() {
        let topology = Topology::new(set("0-3"), set("0-1"), [set("0-3")]);
        let placer = Placer::new(&Placement::Spread, &topology).unwrap();
        assert_eq!(placer.assign().cpus(), None);
    }

    #[test]
    fn pack_fills_one_cpu_after_the_other_and_then_evenly() {
        let topology = Topology::new(set("0-3"), set("1,3"), [set("0-3")]);
        let placer = Placer::new(&Placement::Pack, &topology).unwrap();
        let (mut assignments, cpus) = assign(&placer, 2 * PACKED_PER_CPU + 2);
        assert_eq!(cpus.concat(), "1111333313");
        // What is given back is used again first.
        drop(assignments.swap_remove(0));
        drop(assignments.pop());
        assignments.drain(..2);
        assert_eq!(placer.assign().cpus(), Some(&set("1")));
    }

    #[test]
    fn named_cpus_must_exist_and_be_allowed() {
        let place = |text: &str| Placer::new(&Placement::Cpus(set(text)), &two_nodes());
        assert_eq!(place("1,4").unwrap().assign().cpus(), Some(&set("1,4")));
        assert_eq!(place("0-5").unwrap().assign().cpus(), None);
        assert!(matches!(place(""), Err(PlacementError::NoCpu)));
        let message = place("5-7").unwrap_err().to_string();
        assert_eq!(message, "CPU 7 does not exist on this machine, whose CPUs are 0-6");
        let message = place("5-6").unwrap_err().to_string();
        assert!(message.starts_with("CPU 6 may not be used by this process: it may use 0-5"), "{message}");
    }

    #[test]
    fn the_nodes_are_read_from_sysfs() {
        let system = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = system.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let allowed = set("0-2");
        let plain = Topology::read(system.path(), allowed.clone());
        assert_eq!(plain, Topology::new(allowed.clone(), allowed.clone(), []));
        assert_eq!(plain.nodes(), [set("0-2")]);
        write("cpu/online", "0-7\n");
        write("node/online", "0,2-3\n");
        write("node/node0/cpulist", "0-1\n");
        write("node/node2/cpulist", "2-7\n");
        // Memory without CPUs.
        write("node/node3/cpulist", "\n");
        let topology = Topology::read(system.path(), allowed);
        assert_eq!(topology.nodes(), [set("0-1"), set("2")]);
        assert_eq!(topology.existing, set("0-7"));
    }

    #[test]
    fn this_machine_has_cpus_and_a_thread_can_be_bound() {
        let topology = Topology::of_host().unwrap();
        assert!(!topology.nodes().is_empty());
        let first = topology.allowed().iter().next().unwrap();
        let placer = Placer::new(&Placement::Cpus(CpuSet::from_iter([first])), &topology).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let bound = placer.assign().apply_to(Pid::from_child(&child));
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        bound.unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{first}\n")), "{status}");
    }
}
