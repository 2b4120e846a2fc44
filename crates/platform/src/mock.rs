//! A platform without a processor: memory and address spaces are maps, guest code is a script of traps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::{
    Context, Frame, FrameStore, Mapping, PAGE_SIZE, Platform, PlatformError, Prot, SpaceId, Trap, Tsc,
    UserAddr, UserRange,
};

type Page = Box<[u8; PAGE_SIZE]>;

/// One step of a scripted guest: it changes the registers and traps.
pub type Step = Box<dyn FnMut(&mut Context) -> Trap>;

/// Guest memory of the mock.
#[derive(Default)]
pub struct MockFrames {
    count: u32,
    pages: RefCell<HashMap<u32, Page>>,
}

impl MockFrames {
    fn check(&self, frame: Frame, offset: usize, len: usize) {
        assert!(frame.0 < self.count, "frame {} of {}", frame.0, self.count);
        assert!(offset + len <= PAGE_SIZE, "bytes {offset}+{len} of a frame");
    }
}

impl FrameStore for MockFrames {
    fn frame_count(&self) -> u32 {
        self.count
    }

    fn read(&self, frame: Frame, offset: usize, buf: &mut [u8]) {
        self.check(frame, offset, buf.len());
        match self.pages.borrow().get(&frame.0) {
            Some(page) => buf.copy_from_slice(&page[offset..offset + buf.len()]),
            None => buf.fill(0),
        }
    }

    fn write(&self, frame: Frame, offset: usize, data: &[u8]) {
        self.check(frame, offset, data.len());
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(frame.0).or_insert_with(|| Box::new([0; PAGE_SIZE]));
        page[offset..offset + data.len()].copy_from_slice(data);
    }

    fn copy(&self, from: Frame, to: Frame) {
        let mut page = [0; PAGE_SIZE];
        self.read(from, 0, &mut page);
        self.write(to, 0, &page);
    }

    fn zero(&self, frame: Frame) {
        self.check(frame, 0, PAGE_SIZE);
        self.pages.borrow_mut().remove(&frame.0);
    }

    fn discard(&self, frames: Range<u32>) {
        frames.for_each(|frame| self.zero(Frame(frame)));
    }

    fn load(&self, frames: Range<u32>, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::from(file.try_clone_to_owned()?);
        let mut done = 0;
        for frame in frames {
            let mut page = [0; PAGE_SIZE];
            let mut filled = 0;
            while filled < PAGE_SIZE {
                match file.read_at(&mut page[filled..], offset + (done + filled) as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            self.write(Frame(frame), 0, &page[..filled]);
            done += filled;
            if filled < PAGE_SIZE {
                break;
            }
        }
        Ok(done)
    }
}

/// The mock platform. Guest code is the queue of [`Step`]s given to [`MockPlatform::script`]; when it is
/// empty, `switch` reports [`Trap::Interrupted`].
pub struct MockPlatform {
    frames: Rc<MockFrames>,
    spaces: HashMap<SpaceId, BTreeMap<UserAddr, Mapping>>,
    /// The lowest page tables of each space, by the 2 MiB that they are for.
    tables: HashSet<(SpaceId, u64)>,
    next_space: u32,
    steps: Rc<RefCell<VecDeque<Step>>>,
    tsc: Rc<Cell<Option<Tsc>>>,
    deadline_ns: Rc<Cell<Option<u64>>>,
    is_failing: Rc<Cell<bool>>,
}

impl MockPlatform {
    /// Returns a platform with so many frames of memory.
    pub fn new(frame_count: u32) -> MockPlatform {
        MockPlatform {
            frames: Rc::new(MockFrames { count: frame_count, pages: RefCell::default() }),
            spaces: HashMap::new(),
            tables: HashSet::new(),
            next_space: 0,
            steps: Rc::default(),
            tsc: Rc::default(),
            deadline_ns: Rc::default(),
            is_failing: Rc::default(),
        }
    }

    /// Returns the queue of what guest code will do, to be filled while the kernel owns the platform.
    pub fn script(&self) -> Rc<RefCell<VecDeque<Step>>> {
        self.steps.clone()
    }

    /// Returns the time-stamp counter, to be set while the kernel owns the platform. At first there is none.
    pub fn tsc_cell(&self) -> Rc<Cell<Option<Tsc>>> {
        self.tsc.clone()
    }

    /// Returns the deadline that the last `switch` was given.
    pub fn deadline_cell(&self) -> Rc<Cell<Option<u64>>> {
        self.deadline_ns.clone()
    }

    /// Returns whether the lazy state of a thread can not be had, to be set while the kernel owns the platform.
    pub fn failing_cell(&self) -> Rc<Cell<bool>> {
        self.is_failing.clone()
    }

    fn space_mut(&mut self, space: SpaceId) -> &mut BTreeMap<UserAddr, Mapping> {
        self.spaces.get_mut(&space).expect("a live address space")
    }
}

impl Platform for MockPlatform {
    fn frames(&self) -> Rc<dyn FrameStore> {
        self.frames.clone()
    }

    fn create_space(&mut self) -> Result<SpaceId, PlatformError> {
        let id = SpaceId(self.next_space);
        self.next_space += 1;
        self.spaces.insert(id, BTreeMap::new());
        Ok(id)
    }

    fn destroy_space(&mut self, space: SpaceId) {
        self.spaces.remove(&space).expect("a live address space");
        self.tables.retain(|(owner, _)| *owner != space);
    }

    fn map(&mut self, space: SpaceId, addr: UserAddr, mapping: Mapping) -> Result<(), PlatformError> {
        assert!(addr.is_page_aligned() && addr < crate::USER_END);
        assert!(mapping.frame.0 < self.frames.count);
        self.tables.insert((space, addr.0 >> 21));
        self.space_mut(space).insert(addr, mapping);
        Ok(())
    }

    fn unmap(&mut self, space: SpaceId, range: UserRange, removed: &mut dyn FnMut(UserAddr, Mapping)) {
        let table = self.space_mut(space);
        let gone: Vec<UserAddr> = table.range(range.start..range.end).map(|(addr, _)| *addr).collect();
        for addr in gone {
            let mapping = table.remove(&addr).expect("a key just seen");
            removed(addr, mapping);
        }
    }

    fn protect(&mut self, space: SpaceId, range: UserRange, prot: &mut dyn FnMut(UserAddr, Mapping) -> Prot) {
        for (addr, mapping) in self.space_mut(space).range_mut(range.start..range.end) {
            mapping.prot = prot(*addr, *mapping);
        }
    }

    fn lookup(&self, space: SpaceId, addr: UserAddr) -> Option<Mapping> {
        self.spaces[&space].get(&addr.page_floor()).copied()
    }

    fn visit(&self, space: SpaceId, range: UserRange, visitor: &mut dyn FnMut(UserAddr, Mapping)) {
        self.spaces[&space]
            .range(range.start..range.end)
            .for_each(|(addr, mapping)| visitor(*addr, *mapping));
    }

    fn switch(
        &mut self,
        _space: SpaceId,
        context: &mut Context,
        deadline_ns: Option<u64>,
    ) -> Result<Trap, PlatformError> {
        self.deadline_ns.set(deadline_ns);
        let step = self.steps.borrow_mut().pop_front();
        Ok(step.map_or(Trap::Interrupted, |mut step| step(context)))
    }

    fn sync(&mut self, _context: &mut Context) -> Result<(), PlatformError> {
        if self.is_failing.get() {
            return Err(PlatformError::Host { call: "sync", source: io::Error::from_raw_os_error(5) });
        }
        Ok(())
    }

    fn xsave(&self) -> (usize, u64) {
        (576, 3)
    }

    fn table_bytes(&self) -> u64 {
        (self.tables.len() * PAGE_SIZE) as u64
    }

    fn hwcap(&self) -> u64 {
        0
    }

    fn tsc(&self) -> Option<Tsc> {
        self.tsc.get()
    }

    fn seal(&mut self, _used: &[Range<u32>]) -> io::Result<()> {
        Ok(())
    }

    fn observe(&mut self, _used: &[Range<u32>]) -> Result<(), PlatformError> {
        Ok(())
    }

    fn revive_after_fork(&mut self) -> Result<(), PlatformError> {
        Ok(())
    }
}
