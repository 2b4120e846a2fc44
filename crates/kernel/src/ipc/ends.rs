//! What the end of a process does to objects.

use std::cell::RefCell;
use std::rc::Rc;

use crate::Kernel;
use crate::mm::MemoryManager;
use crate::task::Tid;

impl Kernel {
    /// Notes that a process gives up its memory, and with it the segments that are attached in it.
    pub(crate) fn detach_segments(&self, mm: &Rc<RefCell<MemoryManager>>, process: Tid) {
        if Rc::strong_count(mm) > 1 {
            return;
        }
        let now = self.realtime_sec();
        mm.borrow().segments().for_each(|segment| segment.note_detach(process.0, now));
    }

    /// Undoes what the semaphore operations of a process left to be undone at its end.
    pub(crate) fn undo_semaphores(&mut self, process: Tid) {
        let now = self.realtime_sec();
        for (id, amounts) in self.ipc.undo.take(process) {
            if let Ok(set) = self.ipc.sem.find(id) {
                set.adjust(id, process, now, &amounts, &mut self.ipc.undo);
            }
        }
    }
}
