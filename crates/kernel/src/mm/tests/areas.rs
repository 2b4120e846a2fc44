//! Random sequences of what programs do to their memory, made to the memory manager and to the model.

use std::cell::RefCell;
use std::rc::Rc;

use lg_abi::Errno;
use lg_abi::raw::general::{O_RDONLY, O_RDWR};
use lg_platform::mock::MockPlatform;
use lg_platform::{PAGE_SIZE, Prot, USER_END, UserAddr, UserRange};
use proptest::prelude::*;

use super::super::*;
use super::model::{Area, Contents, FILE_PAGES, Model, OBJECT_PAGES, Object, Page, STACK_PAGES, first_byte};
use crate::vfs::FileDescription;
use crate::vfs::testing::World;

/// Where most of it happens, in pages: a window small enough that areas meet.
const WINDOW: u64 = 0x1_0000;
const WINDOW_PAGES: u64 = 40;
/// The program break starts in the window, too.
const BRK: u64 = WINDOW + 8;
/// Stacks lie below this page, with room to grow.
const STACK_TOP: u64 = WINDOW + 0x1000;
const TOP: u64 = STACK_TOP + 0x1000;

/// What an area is made of.
#[derive(Clone, Copy, Debug)]
enum What {
    Anonymous,
    Stack,
    Private(u64),
    File(u64),
    ReadOnlyFile(u64),
    NewShared,
    /// A shared object that there is, from this page on.
    Shared(usize, u64),
}

#[derive(Clone, Copy, Debug)]
enum Where {
    Anywhere,
    Hint(u64),
    Fixed(u64),
    NoReplace(u64),
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Map(Where, u64, Prot, What),
    Unmap(u64, u64),
    Protect(u64, u64, Prot),
    Remap(u64, u64, u64, bool),
    RemapTo(u64, u64, u64, u64),
    MoveAway(u64, u64, u64),
    Brk(u64),
    Forget(u64, u64),
    Remove(u64, u64),
    SetFlags(u64, u64, VmaFlags, VmaFlags),
    Store(u64, u8),
    Load(u64),
    TouchStack(u64),
    Fork,
    /// Another process goes on, or ends where the second says so.
    Switch(usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let at = || WINDOW..WINDOW + WINDOW_PAGES;
    let len = || 1u64..9;
    let prot = || {
        prop_oneof![
            3 => Just(Prot::READ | Prot::WRITE),
            1 => (0u8..8).prop_map(Prot::from_bits_truncate),
        ]
    };
    let what = prop_oneof![
        4 => Just(What::Anonymous),
        2 => (0..FILE_PAGES + 4).prop_map(What::Private),
        2 => (0..FILE_PAGES + 4).prop_map(What::File),
        1 => (0..FILE_PAGES).prop_map(What::ReadOnlyFile),
        1 => Just(What::NewShared),
        2 => (0usize..4, 0u64..4).prop_map(|(id, index)| What::Shared(id, index)),
    ];
    let place = prop_oneof![
        Just(Where::Anywhere),
        at().prop_map(Where::Hint),
        at().prop_map(Where::Fixed),
        at().prop_map(Where::NoReplace),
    ];
    let flags = || prop_oneof![Just(VmaFlags::empty()), Just(VmaFlags::DONT_FORK)];
    prop_oneof![
        8 => (place, len(), prot(), what).prop_map(|(place, len, prot, what)| Op::Map(place, len, prot, what)),
        1 => (1u64..20, 1u64..5).prop_map(|(below, len)| {
            Op::Map(Where::Fixed(STACK_TOP - below), len, Prot::READ | Prot::WRITE, What::Stack)
        }),
        4 => (at(), len()).prop_map(|(at, len)| Op::Unmap(at, len)),
        5 => (at(), len(), prot()).prop_map(|(at, len, prot)| Op::Protect(at, len, prot)),
        5 => (at(), 0u64..9, len(), any::<bool>()).prop_map(|(at, old, new, moves)| Op::Remap(at, old, new, moves)),
        3 => (at(), 0u64..9, len(), at()).prop_map(|(at, old, new, to)| Op::RemapTo(at, old, new, to)),
        1 => (at(), len(), at()).prop_map(|(at, len, to)| Op::MoveAway(at, len, to)),
        2 => (BRK - 2..BRK + 12).prop_map(Op::Brk),
        2 => (at(), len()).prop_map(|(at, len)| Op::Forget(at, len)),
        1 => (at(), len()).prop_map(|(at, len)| Op::Remove(at, len)),
        2 => (at(), len(), flags(), flags()).prop_map(|(at, len, set, clear)| Op::SetFlags(at, len, set, clear)),
        10 => (at(), any::<u8>()).prop_map(|(at, value)| Op::Store(at, value)),
        4 => at().prop_map(Op::Load),
        2 => (1u64..900).prop_map(|below| Op::TouchStack(STACK_TOP - below)),
        2 => Just(Op::Fork),
        2 => (0usize..4, prop::bool::weighted(0.3)).prop_map(|(which, ends)| Op::Switch(which, ends)),
    ]
}

fn addr(page: u64) -> UserAddr {
    UserAddr(page * PAGE_SIZE as u64)
}

fn range(at: u64, len: u64) -> UserRange {
    UserRange::new(addr(at), addr(at + len))
}

/// A process twice: as it is and as it should be.
struct Process {
    mm: Rc<RefCell<MemoryManager>>,
    model: Model,
}

struct Bench {
    machine: Machine,
    private: Rc<FileDescription>,
    file: Rc<FileDescription>,
    shared: Vec<Rc<SharedPages>>,
    contents: Contents,
    processes: Vec<Process>,
    current: usize,
}

impl Bench {
    fn new(world: &World) -> Bench {
        let machine: Machine = Rc::new(RefCell::new(Box::new(MockPlatform::new(world.frames.total()))));
        let mut mm = MemoryManager::new(&machine, &world.frames, addr(TOP)).unwrap();
        mm.set_layout(addr(BRK), STACK_PAGES * PAGE_SIZE as u64);
        let model = Model {
            pages: Default::default(),
            lowest: 16,
            top: TOP,
            end: USER_END.0 >> 12,
            brk_start: BRK,
            brk: BRK,
        };
        Bench {
            machine,
            private: world.open("/private", O_RDONLY).unwrap(),
            file: world.open("/file", O_RDWR).unwrap(),
            shared: Vec::new(),
            contents: Contents::default(),
            processes: vec![Process { mm: Rc::new(RefCell::new(mm)), model }],
            current: 0,
        }
    }

    /// Returns what a new area is, as the manager and as the model want it.
    fn make(&mut self, what: What, prot: Prot) -> (Vma, Page) {
        let file = |description: &Rc<FileDescription>| Backing::File {
            inode: description.inode().clone(),
            description: description.clone(),
        };
        let (flags, backing, object) = match what {
            What::Anonymous => (VmaFlags::empty(), Backing::Anonymous, Object::Anonymous),
            What::Stack => (VmaFlags::GROWS_DOWN, Backing::Anonymous, Object::Anonymous),
            What::Private(index) => (VmaFlags::empty(), file(&self.private), Object::Private(index)),
            What::File(index) => (VmaFlags::SHARED, file(&self.file), Object::File(index)),
            What::ReadOnlyFile(index) => {
                (VmaFlags::SHARED | VmaFlags::NEVER_WRITE, file(&self.file), Object::File(index))
            }
            What::Shared(id, index) if id < self.shared.len() => {
                (VmaFlags::SHARED, Backing::Shared(self.shared[id].clone()), Object::Shared(id, index))
            }
            What::NewShared | What::Shared(..) => {
                let pages = Rc::new(SharedPages::new(OBJECT_PAGES));
                self.shared.push(pages.clone());
                (VmaFlags::SHARED, Backing::Shared(pages), Object::Shared(self.shared.len() - 1, 0))
            }
        };
        let prot = if flags.contains(VmaFlags::NEVER_WRITE) { prot - Prot::WRITE } else { prot };
        let offset_pages = match object {
            Object::Anonymous => 0,
            Object::Private(index) | Object::File(index) | Object::Shared(_, index) => index,
        };
        let nowhere = UserRange::new(UserAddr(0), UserAddr(0));
        let vma = Vma { range: nowhere, prot, flags, backing, offset_pages };
        (vma, Page { prot, flags, object, own: None })
    }

    /// Does it both ways and returns what both say.
    fn run(&mut self, op: Op) -> (Result<u64, Errno>, Result<u64, Errno>) {
        let page_of = |addr: UserAddr| addr.0 >> 12;
        let made = match op {
            Op::Map(_, _, prot, what) => Some(self.make(what, prot)),
            _ => None,
        };
        let may_fork = self.processes.len() < 4;
        let process = &mut self.processes[self.current];
        let (mm, model) = (process.mm.clone(), &mut process.model);
        let nothing = |answer: Result<(), Errno>| answer.map(|()| 0);
        match op {
            Op::Map(place, len, ..) => {
                let place = match place {
                    Where::Anywhere => Place::Anywhere(UserAddr(0)),
                    Where::Hint(at) => Place::Anywhere(addr(at)),
                    Where::Fixed(at) => Place::Fixed(addr(at)),
                    Where::NoReplace(at) => Place::FixedNoReplace(addr(at)),
                };
                let (vma, page) = made.expect("made above");
                let is = mm.borrow_mut().map(place, len * PAGE_SIZE as u64, vma);
                (is.map(page_of), model.map(place, len, page))
            }
            Op::Unmap(at, len) => {
                model.unmap(at, len);
                (nothing(mm.borrow_mut().unmap(range(at, len))), Ok(0))
            }
            Op::Protect(at, len, prot) => (
                nothing(mm.borrow_mut().protect(range(at, len), prot)),
                nothing(model.protect(at, len, prot)),
            ),
            Op::Remap(at, old, new, moves) => {
                let growth = if moves { Growth::MayMove } else { Growth::InPlace };
                let is = mm.borrow_mut().remap(range(at, old), new * PAGE_SIZE as u64, growth);
                (is.map(page_of), model.remap(at, old, new, growth))
            }
            Op::RemapTo(at, old, new, to) => {
                let growth = Growth::MoveTo(addr(to));
                let is = mm.borrow_mut().remap(range(at, old), new * PAGE_SIZE as u64, growth);
                (is.map(page_of), model.remap(at, old, new, growth))
            }
            Op::MoveAway(at, len, to) => {
                let is = mm.borrow_mut().move_pages_away(range(at, len), addr(to), Placement::Fixed);
                (is.map(page_of), model.move_away(at, len, to))
            }
            Op::Brk(brk) => {
                let is = mm.borrow_mut().set_brk(addr(brk), u64::MAX);
                (Ok(page_of(is)), Ok(model.set_brk(brk)))
            }
            Op::Forget(at, len) => {
                (nothing(mm.borrow_mut().forget(range(at, len))), nothing(model.forget(at, len)))
            }
            Op::Remove(at, len) => {
                (nothing(remove(&mm, range(at, len))), nothing(model.remove(&mut self.contents, at, len)))
            }
            Op::SetFlags(at, len, set, clear) => (
                nothing(mm.borrow_mut().set_flags(range(at, len), set, clear)),
                nothing(model.set_flags(at, len, set, clear)),
            ),
            Op::Store(at, value) => (
                nothing(UserMemory::new(&mm).write(addr(at).0, &[value])),
                nothing(model.store(&mut self.contents, at, value)),
            ),
            Op::Load(at) | Op::TouchStack(at) => self.load(self.current, at),
            Op::Fork if may_fork => {
                let child = mm.borrow_mut().fork().unwrap();
                let model = model.fork();
                self.processes.push(Process { mm: Rc::new(RefCell::new(child)), model });
                (Ok(0), Ok(0))
            }
            Op::Fork => (Ok(0), Ok(0)),
            Op::Switch(which, ends) => {
                drop(mm);
                if ends && self.processes.len() > 1 {
                    self.processes.remove(self.current);
                }
                self.current = which % self.processes.len();
                (Ok(0), Ok(0))
            }
        }
    }

    fn load(&mut self, which: usize, at: u64) -> (Result<u64, Errno>, Result<u64, Errno>) {
        let process = &mut self.processes[which];
        let mut byte = [0];
        let is = UserMemory::new(&process.mm).read(addr(at).0, &mut byte).map(|()| u64::from(byte[0]));
        (is, process.model.load(&self.contents, at).map(u64::from))
    }

    /// Says what the areas of a process are.
    fn areas(&self, process: &Process) -> Vec<Area> {
        let as_area = |area: &Vma| {
            let object = match &area.backing {
                Backing::Anonymous => Object::Anonymous,
                Backing::Shared(pages) => {
                    let id = self.shared.iter().position(|known| Rc::ptr_eq(known, pages));
                    Object::Shared(id.expect("an object of the test"), area.offset_pages)
                }
                Backing::File { inode, .. } if Rc::ptr_eq(inode, self.private.inode()) => {
                    Object::Private(area.offset_pages)
                }
                Backing::File { .. } => Object::File(area.offset_pages),
                Backing::Segment(..) | Backing::Kernel(..) => unreachable!("the test makes none"),
            };
            let (start, end) = (area.range.start.0 >> 12, area.range.end.0 >> 12);
            Area { start, end, prot: area.prot, flags: area.flags, object }
        };
        process.mm.borrow().areas().map(as_area).collect()
    }

    /// Compares every process with its model, and what is mapped with its areas.
    fn check(&self) -> Result<(), TestCaseError> {
        for process in &self.processes {
            prop_assert_eq!(self.areas(process), process.model.areas());
            let mut wrong = Vec::new();
            let everything = UserRange::new(UserAddr(0), USER_END);
            self.machine.borrow().visit(process.mm.borrow().space(), everything, &mut |addr, mapping| {
                let page = process.model.pages.get(&(addr.0 >> 12));
                // What allows anything can be read on x86.
                let allowed = |prot: Prot| if prot.is_empty() { prot } else { prot | Prot::READ };
                if page.is_none_or(|page| !allowed(page.prot).contains(mapping.prot)) {
                    wrong.push((addr, mapping.prot, page.copied()));
                }
            });
            prop_assert!(wrong.is_empty(), "mapped where no area allows it: {:x?}", wrong);
        }
        Ok(())
    }

    /// Compares every byte.
    fn check_contents(&mut self) -> Result<(), TestCaseError> {
        for which in 0..self.processes.len() {
            let pages: Vec<u64> = self.processes[which].model.pages.keys().copied().collect();
            for at in pages {
                let (is, should_be) = self.load(which, at);
                prop_assert_eq!(is, should_be, "page {:#x} of process {}", at, which);
            }
        }
        Ok(())
    }
}

fn world() -> World {
    let world = World::new();
    let bytes: Vec<u8> = (0..FILE_PAGES).flat_map(|index| [first_byte(index); PAGE_SIZE]).collect();
    world.write("/private", &bytes);
    world.write("/file", &bytes);
    world
}

fn sequence(ops: &[Op]) -> Result<(), TestCaseError> {
    let world = world();
    let before = world.frames.used();
    let mut bench = Bench::new(&world);
    for op in ops {
        let (is, should_be) = bench.run(*op);
        prop_assert_eq!(is, should_be, "{:x?}", op);
        bench.check()?;
    }
    bench.check_contents()?;
    bench.check()?;
    drop(bench);
    prop_assert_eq!(world.frames.used(), before, "frames are left");
    Ok(())
}

/// Drops the contents of shared areas, if no others are in the range.
fn remove(mm: &RefCell<MemoryManager>, range: UserRange) -> Result<(), Errno> {
    let parts = mm.borrow().parts(range);
    let shared: Option<Vec<_>> = parts.iter().map(|part| part.backing.shared_pages()).collect();
    for (part, pages) in parts.iter().zip(shared.ok_or(Errno::EINVAL)?) {
        mm.borrow_mut().remove_shared(part, pages);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_what_a_model_says_after_every_call(ops in prop::collection::vec(op(), 1..60)) {
        sequence(&ops)?;
    }
}

/// Makes the calls and expects that memory is what the model says.
fn expect_equal(ops: &[Op]) {
    sequence(ops).unwrap_or_else(|error| panic!("{error}"));
}

const RW: Prot = Prot::READ.union(Prot::WRITE);

#[test]
fn a_shared_area_that_grew_is_one_area() {
    expect_equal(&[
        Op::Map(Where::Fixed(WINDOW), 1, RW, What::NewShared),
        Op::Remap(WINDOW, 1, 3, false),
        Op::Remap(WINDOW, 3, 5, false),
    ]);
}

#[test]
fn a_range_of_several_areas_can_shrink() {
    expect_equal(&[
        Op::Map(Where::Fixed(WINDOW), 4, RW, What::Anonymous),
        Op::Protect(WINDOW + 2, 1, Prot::READ),
        Op::Remap(WINDOW, 4, 1, false),
    ]);
}

#[test]
fn a_protection_that_is_refused_holds_for_what_lies_before() {
    expect_equal(&[
        Op::Map(Where::Fixed(WINDOW), 1, Prot::READ, What::Anonymous),
        Op::Map(Where::Fixed(WINDOW + 1), 1, Prot::READ, What::ReadOnlyFile(0)),
        Op::Protect(WINDOW, 2, RW),
    ]);
}

#[test]
fn pages_removed_from_a_shared_object_are_gone_for_everyone() {
    expect_equal(&[
        Op::Map(Where::Fixed(WINDOW), 2, RW, What::NewShared),
        Op::Store(WINDOW, 7),
        Op::Fork,
        Op::Store(WINDOW, 8),
        Op::Switch(1, false),
        Op::Load(WINDOW),
        Op::Remove(WINDOW, 1),
        Op::Switch(0, false),
        Op::Load(WINDOW),
        Op::Store(WINDOW, 9),
        Op::Switch(1, false),
        Op::Load(WINDOW),
    ]);
}

#[test]
fn a_shared_area_can_be_larger_than_its_object_and_can_not_be_used_there() {
    expect_equal(&[
        Op::Map(Where::Fixed(WINDOW), OBJECT_PAGES, RW, What::NewShared),
        Op::Remap(WINDOW, OBJECT_PAGES, OBJECT_PAGES + 1, false),
        Op::Store(WINDOW + OBJECT_PAGES - 1, 1),
        Op::Store(WINDOW + OBJECT_PAGES, 1),
    ]);
}

#[test]
fn what_can_only_be_written_can_be_read_after_a_fork_too() {
    expect_equal(&[
        Op::Map(Where::Fixed(WINDOW), 1, Prot::WRITE, What::Anonymous),
        Op::Store(WINDOW, 3),
        Op::Fork,
        Op::Load(WINDOW),
    ]);
}

#[test]
fn memory_can_be_given_back_when_there_are_as_many_areas_as_can_be() {
    let machine: Machine = Rc::new(RefCell::new(Box::new(MockPlatform::new(64))));
    let frames = Frames::new(machine.borrow().frames());
    let mut mm = MemoryManager::new(&machine, &frames, addr(TOP)).unwrap();
    mm.set_layout(addr(WINDOW / 2), 0);
    let area = |prot| Vma {
        range: UserRange::new(UserAddr(0), UserAddr(0)),
        prot,
        flags: VmaFlags::empty(),
        backing: Backing::Anonymous,
        offset_pages: 0,
    };
    let map = |mm: &mut MemoryManager, at: u64, pages: u64, prot| {
        mm.map(Place::Fixed(addr(at)), pages * PAGE_SIZE as u64, area(prot))
    };
    let mut at = WINDOW;
    map(&mut mm, at - 4, 3, Prot::READ).unwrap();
    while map(&mut mm, at, 1, if at.is_multiple_of(2) { Prot::READ } else { RW }).is_ok() {
        at += 1;
    }
    let count = mm.areas().count();
    assert_eq!(mm.unmap(range(WINDOW - 3, 1)), Err(Errno::ENOMEM));
    assert_eq!(mm.set_brk(addr(WINDOW / 2 + 1), u64::MAX), addr(WINDOW / 2));
    assert_eq!(mm.areas().count(), count);
    mm.unmap(range(WINDOW + 10, 1)).unwrap();
    assert_eq!(mm.areas().count(), count - 1);
}
