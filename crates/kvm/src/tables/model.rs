//! The tables against a model of them: a map from page to frame for each space, and what a processor, or KVM on its
//! behalf, has cached of it.

use std::collections::{BTreeMap, BTreeSet};

use lg_platform::{
    Frame, Mapping, PAGE_SHIFT, PAGE_SIZE, PlatformError, Prot, SpaceId, USER_END, UserAddr, UserRange,
};
use proptest::prelude::*;

use super::*;

/// Frames of the data zone.
const FRAMES: u32 = 64;
/// Tables: so few that they run out.
const TABLES: usize = 24;

/// Pages around the borders of tables, directories and top-level entries, and the last ones.
const BASES: [u64; 5] = [0, 0x20_0000, 0x4000_0000, 0x80_0000_0000, USER_END.0 - 4 * PAGE_SIZE as u64];

#[derive(Clone, Copy, Debug)]
enum Op {
    Create,
    Destroy(usize),
    Map(usize, u64, Mapping),
    Unmap(usize, u64, u64),
    Protect(usize, u64, u64, Prot),
    /// The guest loads from a page, or stores to it.
    Load(usize, u64),
    Store(usize, u64),
    /// The guest runs: what is stale is remedied before.
    Run,
    FreeRetired,
    Reclaim,
    /// Nothing is cached any more, and frames change their places.
    Move,
}

fn mapping(prot: impl Strategy<Value = Prot>) -> impl Strategy<Value = Mapping> {
    (0..FRAMES, prot, any::<bool>()).prop_map(|(frame, prot, dirty)| Mapping {
        frame: Frame(frame),
        prot,
        dirty,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let space = || 0usize..3;
    let page = || {
        (prop::sample::select(&BASES[..]), 0u64..4).prop_map(|(base, page)| {
            let below = if base == 0 || base == BASES[4] { 0 } else { 2 };
            base + page * PAGE_SIZE as u64 - below * PAGE_SIZE as u64
        })
    };
    let prot = || (0u8..8).prop_map(Prot::from_bits_truncate);
    let end = || page().prop_map(|page| page + PAGE_SIZE as u64);
    prop_oneof![
        2 => Just(Op::Create),
        1 => space().prop_map(Op::Destroy),
        8 => (space(), page(), mapping(prot())).prop_map(|(space, page, mapping)| Op::Map(space, page, mapping)),
        3 => (space(), page(), end()).prop_map(|(space, start, end)| Op::Unmap(space, start, end)),
        4 => (space(), page(), end(), prot()).prop_map(|(space, start, end, prot)| Op::Protect(space, start, end, prot)),
        6 => (space(), page()).prop_map(|(space, page)| Op::Load(space, page)),
        6 => (space(), page()).prop_map(|(space, page)| Op::Store(space, page)),
        5 => Just(Op::Run),
        1 => Just(Op::FreeRetired),
        1 => Just(Op::Reclaim),
        1 => Just(Op::Move),
    ]
}

/// What is cached of an entry.
#[derive(Clone, Copy, Debug)]
struct Cached {
    frame: u32,
    writable: bool,
    executable: bool,
    dirty: bool,
}

struct Bench {
    kind: Kind,
    tables: Tables,
    stale: Stale,
    spaces: Vec<(SpaceId, BTreeMap<u64, Mapping>)>,
    cached: BTreeMap<(u32, u64), Cached>,
}

impl Bench {
    fn new(kind: Kind) -> Bench {
        let zone = Region::reserve(TABLES * PAGE_SIZE).expect("a reservation");
        Bench {
            kind,
            tables: Tables::new(zone, kind),
            stale: Stale::new(kind),
            spaces: Vec::new(),
            cached: BTreeMap::new(),
        }
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Create => match self.tables.create() {
                Ok(space) => {
                    prop_assert!(self.spaces.iter().all(|(known, _)| *known != space));
                    self.spaces.push((space, BTreeMap::new()));
                }
                Err(error) => prop_assert!(matches!(error, PlatformError::OutOfTables)),
            },
            Op::Run => self.run()?,
            Op::FreeRetired => {
                // The virtual processor is in a live space: it has run there.
                self.run()?;
                self.tables.free_retired();
            }
            Op::Reclaim => {
                self.forget_cached();
                self.tables.reclaim();
            }
            Op::Move => {
                self.forget_cached();
                self.tables.clear_accessed();
                self.tables.move_places(|place| place ^ 1);
                let mappings = self.spaces.iter_mut().flat_map(|(_, pages)| pages.values_mut());
                mappings.for_each(|mapping| mapping.frame.0 ^= 1);
            }
            Op::Destroy(which)
            | Op::Map(which, ..)
            | Op::Unmap(which, ..)
            | Op::Protect(which, ..)
            | Op::Load(which, _)
            | Op::Store(which, _) => {
                if !self.spaces.is_empty() {
                    self.apply_to(which % self.spaces.len(), op)?;
                }
            }
        }
        Ok(())
    }

    fn apply_to(&mut self, which: usize, op: Op) -> Result<(), TestCaseError> {
        let (space, pages) = &mut self.spaces[which];
        let space = *space;
        let range = |start: u64, end: u64| UserRange::new(UserAddr(start), UserAddr(end.max(start)));
        match op {
            Op::Map(_, page, mapping) => {
                match self.tables.map(space, UserAddr(page), mapping, &mut self.stale) {
                    Ok(()) => drop(pages.insert(page, mapping)),
                    Err(error) => prop_assert!(matches!(error, PlatformError::OutOfTables)),
                }
            }
            Op::Unmap(_, start, end) => {
                let range = range(start, end);
                let mut seen = Vec::new();
                self.tables
                    .unmap(space, range, &mut self.stale, &mut |addr, mapping| seen.push((addr.0, mapping)));
                let expected: Vec<_> = pages.extract_if(range.start.0..range.end.0, |_, _| true).collect();
                prop_assert_eq!(seen, expected);
            }
            Op::Protect(_, start, end, prot) => {
                let range = range(start, end);
                let mut seen = Vec::new();
                self.tables.protect(space, range, &mut self.stale, &mut |addr, mapping| {
                    seen.push((addr.0, mapping));
                    prot
                });
                let inside = || range.start.0..range.end.0;
                let expected: Vec<_> =
                    pages.range(inside()).map(|(page, mapping)| (*page, *mapping)).collect();
                prop_assert_eq!(seen, expected);
                pages.range_mut(inside()).for_each(|(_, mapping)| mapping.prot = prot);
            }
            Op::Load(_, page) => self.touch(which, page, false),
            Op::Store(_, page) => self.touch(which, page, true),
            _ => {
                self.spaces.remove(which);
                self.tables.destroy(space, &mut self.stale);
                if self.kind == Kind::Pvm {
                    // Nothing reaches the shadow of a space whose root is put aside.
                    self.cached.retain(|(owner, _), _| *owner != space.0);
                }
            }
        }
        Ok(())
    }

    /// Walks as the processor does for an access of the guest, sets the bits that it sets and caches what it found.
    fn touch(&mut self, which: usize, page: u64, stores: bool) {
        let (space, pages) = &mut self.spaces[which];
        let Some(mapping) = pages.get_mut(&page) else { return };
        let at = self.tables.leaf(*space, UserAddr(page)).expect("it is mapped");
        let entry = Entry(self.tables.zone.read_u64(at));
        if !entry.is_present() || stores && !entry.is_writable() {
            return;
        }
        mapping.dirty |= stores;
        let dirty = if stores { DIRTY } else { 0 };
        let entry = Entry(entry.0 | ACCESSED | dirty);
        self.tables.zone.write_u64(at, entry.0);
        let space = *space;
        self.cache(space, page, entry);
        if self.kind == Kind::Pvm {
            // It caches neighbours that have the accessed bit, too.
            let first = page & !(8 * PAGE_SIZE as u64 - 1);
            for neighbour in (first..).step_by(PAGE_SIZE).take(8).filter(|neighbour| *neighbour != page) {
                let Some(at) = self.tables.leaf(space, UserAddr(neighbour)) else { continue };
                let entry = Entry(self.tables.zone.read_u64(at));
                if entry.may_be_cached() {
                    self.cache(space, neighbour, entry);
                }
            }
        }
    }

    fn cache(&mut self, space: SpaceId, page: u64, entry: Entry) {
        let cached = Cached {
            frame: entry.frame(),
            // A shadow entry becomes writable with the first store.
            writable: entry.is_writable() && (self.kind == Kind::Ordinary || entry.is_dirty()),
            executable: entry.is_executable(),
            dirty: entry.is_dirty(),
        };
        self.cached.insert((space.0, page), cached);
    }

    fn forget_cached(&mut self) {
        self.cached.clear();
        self.stale.clear();
    }

    /// Remedies what is stale: after that nothing is cached that the tables do not allow.
    fn run(&mut self) -> Result<(), TestCaseError> {
        if self.stale.take_flush() {
            self.cached.clear();
        }
        let dropped: BTreeSet<u32> = self.stale.frames().iter().copied().collect();
        self.cached.retain(|_, cached| !dropped.contains(&cached.frame));
        self.stale.clear();
        for ((space, page), cached) in &self.cached {
            let pages = self.spaces.iter().find(|(known, _)| known.0 == *space).map(|(_, pages)| pages);
            let mapping = pages.and_then(|pages| pages.get(page)).copied();
            let allowed = mapping.is_some_and(|mapping| {
                !mapping.prot.is_empty()
                    && mapping.frame.0 == cached.frame
                    && (!cached.writable || mapping.prot.contains(Prot::WRITE))
                    && (!cached.executable || mapping.prot.contains(Prot::EXEC))
                    && (!cached.dirty || mapping.dirty)
            });
            prop_assert!(
                allowed,
                "{:?} of page {:#x} is cached, and the tables say {:?}",
                cached,
                page,
                mapping
            );
        }
        Ok(())
    }

    /// Walks all tables as the processor does and compares what they map with the model. Every table has one owner.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut owned: Vec<u32> = [&self.tables.free, &self.tables.quarantine, &self.tables.retired]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for (space, pages) in &self.spaces {
            let mut leaves = BTreeMap::new();
            self.walk(self.tables.root(*space), 4, 0, &mut leaves, &mut owned)?;
            let expected: BTreeMap<u64, u64> = pages
                .iter()
                .filter(|(_, mapping)| !mapping.prot.is_empty())
                .map(|(page, mapping)| (*page, bits_of(*mapping)))
                .collect();
            prop_assert_eq!(leaves, expected);
            for (page, mapping) in pages {
                prop_assert_eq!(self.tables.lookup(*space, UserAddr(*page)), Some(*mapping));
            }
        }
        owned.sort_unstable();
        let all: Vec<u32> = (0..self.tables.fresh).collect();
        prop_assert_eq!(owned, all, "a table is lost or has two owners");
        Ok(())
    }

    fn walk(
        &self,
        table_gpa: u64,
        level: u32,
        base: u64,
        leaves: &mut BTreeMap<u64, u64>,
        owned: &mut Vec<u32>,
    ) -> Result<(), TestCaseError> {
        let zone = TABLES_GPA..TABLES_GPA + (TABLES * PAGE_SIZE) as u64;
        prop_assert!(zone.contains(&table_gpa), "a table at {:#x}", table_gpa);
        let table = ((table_gpa - TABLES_GPA) >> PAGE_SHIFT) as u32;
        owned.push(table);
        for index in 0..ENTRIES {
            let bits = self.tables.zone.read_u64(slot(table, index));
            let addr = base + (index << (PAGE_SHIFT + 9 * (level - 1)));
            if bits & PRESENT == 0 {
                continue;
            }
            if level == 1 {
                let data = DATA_GPA..DATA_GPA + (u64::from(FRAMES) << PAGE_SHIFT);
                prop_assert!(data.contains(&(bits & ADDRESS)), "{:#x} is mapped at {:#x}", bits, addr);
                leaves.insert(addr, bits & (ADDRESS | WRITABLE | USER | NO_EXECUTE | DIRTY));
            } else if bits & ADDRESS == system_gpa(KERNEL_PD_PAGE) {
                prop_assert_eq!((level, addr), (3, KERNEL_AREA >> 30 << 30));
            } else {
                self.walk(bits & ADDRESS, level - 1, addr, leaves, owned)?;
            }
        }
        Ok(())
    }
}

/// What the entry of a mapping must say to the processor.
fn bits_of(mapping: Mapping) -> u64 {
    let mut bits = (DATA_GPA + (u64::from(mapping.frame.0) << PAGE_SHIFT)) | USER;
    for (flag, set) in [
        (WRITABLE, mapping.prot.contains(Prot::WRITE)),
        (NO_EXECUTE, !mapping.prot.contains(Prot::EXEC)),
        (DIRTY, mapping.dirty),
    ] {
        bits |= if set { flag } else { 0 };
    }
    bits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_map_what_the_model_says(ops in prop::collection::vec(op(), 1..80), pvm in any::<bool>()) {
        let mut bench = Bench::new(if pvm { Kind::Pvm } else { Kind::Ordinary });
        for op in ops {
            bench.apply(op)?;
            bench.check()?;
        }
        bench.run()?;
    }
}
