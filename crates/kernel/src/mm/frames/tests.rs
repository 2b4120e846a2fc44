//! The allocator against a model, and what it gives back to the host.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use lg_platform::mock::MockPlatform;
use lg_platform::{PAGE_SIZE, Platform};
use proptest::prelude::*;

use super::*;

const FRAMES: u32 = 300;

/// A store that knows which frames have an owner, and that counts what the host is given back.
struct Watched {
    store: Rc<dyn FrameStore>,
    owned: RefCell<BTreeSet<u32>>,
    discarded: RefCell<Vec<Range<u32>>>,
}

impl Watched {
    fn new() -> Rc<Watched> {
        let store = MockPlatform::new(FRAMES).frames();
        Rc::new(Watched { store, owned: RefCell::default(), discarded: RefCell::default() })
    }

    fn with_frames(reserve: Reserve) -> (Rc<Watched>, Rc<Frames>) {
        let store = Watched::new();
        (store.clone(), Frames::with_reserve(store, reserve))
    }
}

impl FrameStore for Watched {
    fn frame_count(&self) -> u32 {
        self.store.frame_count()
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        self.store.read(frame, offset, buf);
    }

    fn write(&self, frame: Frame, offset: usize, data: &[u8]) {
        self.store.write(frame, offset, data);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.store.copy(from, to);
    }

    fn zero(&self, frame: Frame) {
        assert!(!self.owned.borrow().contains(&frame.0), "frame {} is zeroed in use", frame.0);
        self.store.zero(frame);
    }

    fn discard(&self, frames: Range<u32>) {
        assert!(!frames.is_empty());
        let owned = self.owned.borrow();
        assert_eq!(owned.range(frames.clone()).next(), None, "{frames:?} are discarded in use");
        self.discarded.borrow_mut().push(frames.clone());
        self.store.discard(frames);
    }

    fn load(&self, frames: Range<u32>, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        self.store.load(frames, file, offset)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Alloc,
    Copy(usize),
    FromFile(u32),
    Retain(usize),
    Release(usize),
    GiveBack,
    Limit(u32),
    Tables(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Alloc),
        1 => any::<usize>().prop_map(Op::Copy),
        2 => (1u32..40).prop_map(Op::FromFile),
        2 => any::<usize>().prop_map(Op::Retain),
        6 => any::<usize>().prop_map(Op::Release),
        1 => Just(Op::GiveBack),
        1 => (0..FRAMES + 50).prop_map(Op::Limit),
        1 => (0u32..40).prop_map(Op::Tables),
    ]
}

/// What the frames should be: owners and first byte of each in use.
#[derive(Default)]
struct Model {
    owners: BTreeMap<u32, u32>,
    bytes: BTreeMap<u32, u8>,
    limit: u32,
    tables: u32,
}

impl Model {
    fn room(&self) -> u32 {
        self.limit.saturating_sub(self.owners.len() as u32 + self.tables)
    }

    fn pick(&self, choice: usize) -> Option<u32> {
        let count = self.owners.len();
        (count > 0).then(|| *self.owners.keys().nth(choice % count).expect("below the count"))
    }

    fn add(&mut self, store: &Watched, frame: FrameRef, byte: u8) {
        let number = frame.into_raw().0;
        assert_eq!(self.owners.insert(number, 1), None, "frame {number} has two owners");
        store.owned.borrow_mut().insert(number);
        self.bytes.insert(number, byte);
    }
}

fn content(store: &Watched, frame: Frame) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    store.read(frame, 0, &mut page);
    page
}

proptest! {
    #[test]
    fn frames_behave_as_the_model_does(ops in prop::collection::vec(op(), 1..400)) {
        let (store, frames) = Watched::with_frames(Reserve { kept: 5, batch: 7 });
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let mut model = Model { limit: FRAMES, ..Model::default() };
        for (step, op) in ops.into_iter().enumerate() {
            let mark = step as u8 | 1;
            match op {
                Op::Alloc => match frames.alloc() {
                    Ok(frame) => {
                        prop_assert!(model.room() > 0);
                        prop_assert_eq!(content(&store, frame.frame()), [0; PAGE_SIZE]);
                        frame.write(0, &[mark]);
                        model.add(&store, frame, mark);
                    }
                    Err(errno) => prop_assert_eq!((errno, model.room()), (Errno::ENOMEM, 0)),
                },
                Op::Copy(choice) => {
                    let Some(from) = model.pick(choice) else { continue };
                    if let Ok(frame) = frames.alloc_copy(Frame(from)) {
                        let byte = model.bytes[&from];
                        model.add(&store, frame, byte);
                    } else {
                        prop_assert_eq!(model.room(), 0);
                    }
                }
                Op::FromFile(count) => match frames.alloc_from_file(count, file.as_fd(), 0) {
                    Ok(got) => {
                        prop_assert!(!got.is_empty() && got.len() as u32 <= count.min(model.room()));
                        got.into_iter().for_each(|frame| {
                            frame.write(0, &[mark]);
                            model.add(&store, frame, mark);
                        });
                    }
                    Err(errno) => prop_assert_eq!((errno, model.room()), (Errno::ENOMEM, 0)),
                },
                Op::Retain(choice) => {
                    let Some(frame) = model.pick(choice) else { continue };
                    frames.retain(Frame(frame));
                    *model.owners.get_mut(&frame).unwrap() += 1;
                }
                Op::Release(choice) => {
                    let Some(frame) = model.pick(choice) else { continue };
                    let owners = model.owners.get_mut(&frame).unwrap();
                    *owners -= 1;
                    if *owners == 0 {
                        model.owners.remove(&frame);
                        store.owned.borrow_mut().remove(&frame);
                    }
                    frames.release(Frame(frame));
                }
                Op::GiveBack => {
                    frames.give_back();
                    prop_assert_eq!(frames.kept(), 0);
                    for frame in (0..FRAMES).filter(|frame| !model.owners.contains_key(frame)) {
                        prop_assert_eq!(content(&store, Frame(frame)), [0; PAGE_SIZE]);
                    }
                }
                Op::Limit(limit) => {
                    frames.set_total(limit);
                    model.limit = limit.min(FRAMES);
                }
                Op::Tables(tables) => {
                    frames.set_table_bytes(u64::from(tables) * PAGE_SIZE as u64);
                    model.tables = tables;
                }
            }
            for (frame, owners) in &model.owners {
                prop_assert_eq!(frames.owners(Frame(*frame)), *owners);
                prop_assert_eq!(content(&store, Frame(*frame))[0], model.bytes[frame]);
            }
            prop_assert_eq!(frames.used(), model.owners.len() as u32 + model.tables);
            prop_assert_eq!(frames.free(), model.room());
            prop_assert!(frames.kept() < 12 && frames.kept() <= model.room());
            check_ranges(&frames.used_ranges(), &model);
        }
    }
}

fn check_ranges(ranges: &[Range<u32>], model: &Model) {
    let used = |frame: u32| model.owners.contains_key(&frame);
    assert!(ranges.windows(2).all(|pair| pair[0].end + MAX_GAP < pair[1].start), "{ranges:?}");
    assert!(ranges.iter().all(|range| used(range.start) && used(range.end - 1)), "{ranges:?}");
    let covered = model.owners.keys().filter(|frame| ranges.iter().any(|range| range.contains(frame)));
    assert_eq!(covered.count(), model.owners.len(), "{ranges:?}");
}

#[test]
fn what_a_large_process_leaves_goes_back_in_a_few_runs() {
    let (store, frames) = Watched::with_frames(Reserve { kept: 20, batch: 100 });
    let held: Vec<FrameRef> = (0..FRAMES).map(|_| frames.alloc().unwrap()).collect();
    assert_eq!(frames.alloc().map(|_| ()), Err(Errno::ENOMEM));
    drop(held);
    let given: u32 = store.discarded.borrow().iter().map(|run| run.len() as u32).sum();
    assert!(store.discarded.borrow().len() <= 4, "{:?}", store.discarded);
    assert_eq!(given + frames.kept(), FRAMES);
    assert!(frames.kept() < 120);
    // The lowest of the kept ones are used again first, or were freed last.
    frames.give_back();
    assert_eq!(frames.alloc().unwrap().frame(), Frame(0));
    assert_eq!((frames.used(), frames.peak()), (0, FRAMES));
}

#[test]
fn page_tables_count_as_memory() {
    let (_, frames) = Watched::with_frames(RESERVE);
    frames.set_total(10);
    frames.set_table_bytes(7 * PAGE_SIZE as u64);
    let held: Vec<FrameRef> = std::iter::from_fn(|| frames.alloc().ok()).collect();
    assert_eq!((held.len(), frames.used(), frames.free(), frames.peak()), (3, 10, 0, 10));
    assert!(!frames.is_over_limit());
    frames.set_table_bytes(8 * PAGE_SIZE as u64);
    assert!(frames.is_over_limit());
    drop(held);
    frames.reset_peak();
    assert_eq!(frames.peak(), 8);
}
