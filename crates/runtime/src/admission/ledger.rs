//! The books: what was read, what was promised since, and whether one more fits. Pure arithmetic, without a clock.

use super::config::AdmissionConfig;
use super::cost::Cost;
use super::host::Readings;
use super::refused::{Refused, Resource, Shortage};

/// What is held by sandboxes.
///
/// A reading shows what sandboxes use, not what they were promised and will use soon, nor what changed since it was taken.
/// So next to the reading stand two sums: `promised`, of what is not used yet, and `settling`, of what came into use
/// since the reading. The next reading shows the latter, and it starts again at zero.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    readings: Readings,
    /// Counts the readings.
    epoch: u64,
    alive: usize,
    starting: usize,
    promised: Cost,
    settling: Cost,
}

/// What one sandbox holds.
#[derive(Debug)]
pub(super) struct Holding {
    is_starting: bool,
    promised: Cost,
    memory_used_bytes: u64,
    settled: Cost,
    /// The reading since which `settled` came into use.
    epoch: u64,
}

impl Ledger {
    pub(super) fn read(&mut self, readings: Readings) {
        self.readings = readings;
        self.epoch += 1;
        self.settling = Cost::default();
    }

    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    pub(super) fn starting(&self) -> usize {
        self.starting
    }

    pub(super) fn promised(&self) -> Cost {
        self.promised
    }

    /// Whether the machine could hold `cost` if nothing else were on it.
    pub(super) fn could_ever_fit(&self, config: &AdmissionConfig, cost: &Cost) -> Result<(), Refused> {
        let Readings { memory_total_bytes, descriptors_limit, processes_limit, .. } = self.readings;
        let reserve_bytes = config.memory_reserve_bytes(&self.readings);
        let most_alive = config.max_alive().min(config.max_starting(&self.readings)) as u64;
        let checks = [
            (Resource::Memory, cost.memory_bytes, memory_total_bytes.saturating_sub(reserve_bytes)),
            (
                Resource::Descriptors,
                cost.descriptors,
                descriptors_limit.saturating_sub(config.descriptors_reserve),
            ),
            (Resource::Processes, cost.processes, processes_limit.saturating_sub(config.processes_reserve)),
            (Resource::Sandboxes, 1, most_alive),
        ];
        match checks.into_iter().find(|(_, needed, most)| needed > most) {
            Some((resource, needed, most)) => Err(Refused::TooLarge { resource, needed, most }),
            None => Ok(()),
        }
    }

    /// Whether `cost` fits now. What lasts longest is said first.
    pub(super) fn room(&self, config: &AdmissionConfig, cost: &Cost) -> Result<(), Shortage> {
        let readings = &self.readings;
        let held = self.promised.plus(self.settling);
        if self.alive >= config.max_alive() {
            return Err(Shortage::TooManyAlive { alive: self.alive, most: config.max_alive() });
        }
        let available_bytes = readings.memory_available_bytes.saturating_sub(held.memory_bytes);
        let reserve_bytes = config.memory_reserve_bytes(readings);
        if cost.memory_bytes.saturating_add(reserve_bytes) > available_bytes {
            return Err(Shortage::NoMemory {
                needed_bytes: cost.memory_bytes,
                available_bytes,
                reserve_bytes,
            });
        }
        let fits = |needed: u64, used: u64, limit: u64, reserve: u64| {
            needed.saturating_add(used).saturating_add(reserve) <= limit
        };
        let (needed, used) = (cost.descriptors, readings.descriptors_used.saturating_add(held.descriptors));
        let (limit, reserve) = (readings.descriptors_limit, config.descriptors_reserve);
        if !fits(needed, used, limit, reserve) {
            return Err(Shortage::NoDescriptors { needed, used, limit, reserve });
        }
        let (needed, used) = (cost.processes, readings.processes_used.saturating_add(held.processes));
        let (limit, reserve) = (readings.processes_limit, config.processes_reserve);
        if !fits(needed, used, limit, reserve) {
            return Err(Shortage::NoProcesses { needed, used, limit, reserve });
        }
        let most = config.max_starting(readings);
        if self.starting >= most {
            return Err(Shortage::TooManyStarting { starting: self.starting, most });
        }
        Ok(())
    }

    /// Books one more sandbox, which begins to start.
    pub(super) fn take(&mut self, cost: Cost) -> Holding {
        self.alive += 1;
        self.starting += 1;
        self.promised = self.promised.plus(cost);
        Holding {
            is_starting: true,
            promised: cost,
            memory_used_bytes: 0,
            settled: Cost::default(),
            epoch: self.epoch,
        }
    }

    /// The sandbox has started: its descriptors and processes are there. Answers whether it had not before.
    pub(super) fn started(&mut self, holding: &mut Holding) -> bool {
        if !holding.is_starting {
            return false;
        }
        holding.is_starting = false;
        self.starting -= 1;
        self.settle(holding, Cost { memory_bytes: 0, ..holding.promised });
        true
    }

    /// The sandbox uses so much memory, as far as this is more than before.
    pub(super) fn measured(&mut self, holding: &mut Holding, used_bytes: u64) {
        let more = used_bytes.saturating_sub(holding.memory_used_bytes);
        holding.memory_used_bytes += more;
        let memory_bytes = more.min(holding.promised.memory_bytes);
        self.settle(holding, Cost { memory_bytes, ..Cost::default() });
    }

    fn settle(&mut self, holding: &mut Holding, part: Cost) {
        if holding.epoch != self.epoch {
            holding.epoch = self.epoch;
            holding.settled = Cost::default();
        }
        holding.promised = holding.promised.minus(part);
        holding.settled = holding.settled.plus(part);
        self.promised = self.promised.minus(part);
        self.settling = self.settling.plus(part);
    }

    /// The sandbox is gone.
    pub(super) fn give_back(&mut self, holding: &Holding) {
        self.alive -= 1;
        self.starting -= usize::from(holding.is_starting);
        self.promised = self.promised.minus(holding.promised);
        if holding.epoch == self.epoch {
            self.settling = self.settling.minus(holding.settled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { memory_bytes: 100, descriptors: 6, processes: 1 };

    fn config() -> AdmissionConfig {
        AdmissionConfig {
            memory_reserve_bytes: Some(1000),
            descriptors_reserve: 10,
            processes_reserve: 10,
            max_alive: Some(1000),
            max_starting: Some(1000),
            ..AdmissionConfig::default()
        }
    }

    fn readings() -> Readings {
        Readings {
            memory_available_bytes: 1250,
            memory_total_bytes: 5000,
            descriptors_used: 10,
            descriptors_limit: 1000,
            processes_used: 100,
            processes_limit: 1000,
            cores: 2,
        }
    }

    fn ledger(readings: Readings) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.read(readings);
        ledger
    }

    #[test]
    fn memory_that_was_promised_counts_until_a_reading_shows_it() {
        let (config, mut ledger) = (config(), ledger(readings()));
        let mut first = ledger.take(COST);
        let mut second = ledger.take(COST);
        // 50 are left above the reserve.
        let short = Shortage::NoMemory { needed_bytes: 100, available_bytes: 1050, reserve_bytes: 1000 };
        assert_eq!(ledger.room(&config, &COST), Err(short.clone()));
        // Used memory is still not in the reading.
        ledger.measured(&mut first, 30);
        assert_eq!(ledger.room(&config, &COST), Err(short.clone()));
        ledger.read(Readings { memory_available_bytes: 1220, ..readings() });
        assert_eq!(ledger.room(&config, &COST), Err(short.clone()));
        // The first one ends, and its 30 are back with the next reading.
        ledger.give_back(&first);
        ledger.read(readings());
        assert_eq!(ledger.room(&config, &COST), Ok(()));
        // More than was promised is no promise any more.
        ledger.measured(&mut second, 500);
        ledger.measured(&mut second, 20);
        ledger.read(readings());
        assert_eq!(ledger.promised(), Cost { memory_bytes: 0, ..COST });
    }

    #[test]
    fn what_settled_since_the_reading_is_given_back_with_the_sandbox() {
        let mut ledger = ledger(readings());
        let mut holding = ledger.take(COST);
        ledger.measured(&mut holding, 60);
        assert!(ledger.started(&mut holding));
        assert!(!ledger.started(&mut holding));
        ledger.give_back(&holding);
        assert_eq!((ledger.promised, ledger.settling), (Cost::default(), Cost::default()));
        assert_eq!((ledger.alive(), ledger.starting()), (0, 0));
    }

    #[test]
    fn what_settled_before_the_reading_is_given_back_only_by_the_next() {
        let mut ledger = ledger(readings());
        let (mut old, mut new) = (ledger.take(COST), ledger.take(COST));
        ledger.started(&mut old);
        ledger.read(readings());
        ledger.started(&mut new);
        ledger.give_back(&old);
        assert_eq!(ledger.settling, Cost { memory_bytes: 0, ..COST });
    }

    #[test]
    fn each_shortage_is_said_by_name() {
        let mut config = config();
        config.max_starting = Some(1);
        let mut ledger = ledger(readings());
        let mut holding = ledger.take(COST);
        let room =
            |ledger: &Ledger, config: &AdmissionConfig, cost: Cost| ledger.room(config, &cost).unwrap_err();
        let small = Cost { memory_bytes: 0, ..COST };
        assert_eq!(room(&ledger, &config, small), Shortage::TooManyStarting { starting: 1, most: 1 });
        ledger.started(&mut holding);
        assert_eq!(
            room(&ledger, &config, Cost { descriptors: 979, ..small }),
            Shortage::NoDescriptors { needed: 979, used: 16, limit: 1000, reserve: 10 }
        );
        assert_eq!(
            room(&ledger, &config, Cost { processes: 890, ..small }),
            Shortage::NoProcesses { needed: 890, used: 101, limit: 1000, reserve: 10 }
        );
        assert_eq!(ledger.room(&config, &Cost { processes: 889, ..small }), Ok(()));
        config.max_alive = Some(1);
        assert_eq!(room(&ledger, &config, small), Shortage::TooManyAlive { alive: 1, most: 1 });
    }

    #[test]
    fn what_can_never_fit_is_known_at_once() {
        let ledger = ledger(readings());
        let too_large =
            |config: &AdmissionConfig, cost: Cost| ledger.could_ever_fit(config, &cost).unwrap_err();
        let cases = [
            (Cost { memory_bytes: 4001, ..COST }, Resource::Memory, 4001, 4000),
            (Cost { descriptors: 991, ..COST }, Resource::Descriptors, 991, 990),
            (Cost { processes: u64::MAX, ..COST }, Resource::Processes, u64::MAX, 990),
        ];
        for (cost, resource, needed, most) in cases {
            assert_eq!(too_large(&config(), cost), Refused::TooLarge { resource, needed, most });
        }
        let none = AdmissionConfig { max_alive: Some(0), ..config() };
        let expected = Refused::TooLarge { resource: Resource::Sandboxes, needed: 1, most: 0 };
        assert_eq!(too_large(&none, COST), expected);
        // What does not fit now may fit later.
        assert_eq!(ledger.could_ever_fit(&config(), &Cost { memory_bytes: 4000, ..COST }), Ok(()));
    }
}
