//! Memory areas at their edges: how they split, join, grow and show one object in many places.

use libc::*;

use crate::sys::{self, Answer, c, fate, fd, file, peek, poke, sys};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("areas_that_grow_down", growing_down),
    ("areas_of_shared_objects", shared_objects),
    ("areas_remapped_together", remapped_together),
    ("areas_protected_in_part", protected_in_part),
    ("areas_removed_for_everyone", removed_for_everyone),
    ("areas_that_can_only_be_written", write_only),
    ("names_exchanged_with_a_slash", exchanged_with_a_slash),
];

const PAGE: usize = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;
const SHARED: i32 = MAP_SHARED | MAP_ANONYMOUS;
const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

fn map(at: usize, pages: usize, prot: i32, flags: i32, fd: usize) -> Answer {
    sys!(SYS_mmap, at, pages * PAGE, prot, flags, fd, 0)
}

fn anonymous(pages: usize, prot: i32, flags: i32) -> usize {
    map(0, pages, prot, flags, usize::MAX).expect("address space")
}

fn remap(at: usize, old: usize, new: usize, flags: i32) -> Answer {
    sys!(SYS_mremap, at, old * PAGE, new * PAGE, flags, 0)
}

fn growing_down(r: &mut Report) {
    file("f", "some text");
    let open = fd("f", O_RDWR);
    r.see("private file", map(0, 1, RW, MAP_PRIVATE | MAP_GROWSDOWN, open));
    r.see("shared file", map(0, 1, RW, MAP_SHARED | MAP_GROWSDOWN, open));
    r.see("shared memory", map(0, 1, RW, SHARED | MAP_GROWSDOWN, usize::MAX));
    r.see("private memory", map(0, 1, RW, PRIVATE | MAP_GROWSDOWN, usize::MAX).is_ok());
}

fn shared_objects(r: &mut Report) {
    let at = anonymous(1, RW, SHARED);
    let at = remap(at, 1, 3, MREMAP_MAYMOVE).expect("room");
    let at = remap(at, 3, 5, MREMAP_MAYMOVE).expect("one area");
    poke(at, 7);
    r.see("kept", peek(at));
    r.see("behind the object", fate(|| poke(at + PAGE, 1)));
    let again = remap(at, 0, 1, MREMAP_MAYMOVE).expect("a second view");
    poke(again, 8);
    r.see("through both", peek(at));
}

fn remapped_together(r: &mut Report) {
    let at = anonymous(8, RW, PRIVATE);
    let split = || sys!(SYS_mprotect, at + 2 * PAGE, PAGE, PROT_READ);
    r.see("split", split());
    r.see("as large as before", remap(at, 4, 4, 0) == Ok(at));
    r.see("larger", remap(at, 4, 5, 0));
    r.see("smaller", remap(at, 4, 1, 0) == Ok(at));
    r.see("cut off", fate(|| _ = peek(at + PAGE)));
    r.see("not cut off", peek(at + 4 * PAGE));
    r.see("over a hole", remap(at, 6, 1, 0) == Ok(at));
    r.see("from a hole", remap(at + PAGE, 4, 1, 0));
}

fn protected_in_part(r: &mut Report) {
    file("f", "some text");
    let reader = fd("f", O_RDONLY);
    let at = anonymous(3, PROT_READ, PRIVATE);
    r.see("a file", map(at + PAGE, 1, PROT_READ, MAP_SHARED | MAP_FIXED, reader) == Ok(at + PAGE));
    r.see("refused", sys!(SYS_mprotect, at, 3 * PAGE, RW));
    r.see("what lies before", fate(|| poke(at, 1)));
    r.see("the file", fate(|| poke(at + PAGE, 1)));
    r.see("what lies behind", fate(|| poke(at + 2 * PAGE, 1)));
}

fn removed_for_everyone(r: &mut Report) {
    let at = anonymous(2, RW, SHARED);
    poke(at, 7);
    poke(at + PAGE, 8);
    let end = sys::ends(|| {
        poke(at, 9);
        i32::from(sys!(SYS_madvise, at, PAGE, MADV_REMOVE).is_err())
    });
    r.see("removed by a child", end);
    r.see("seen by its parent", (peek(at), peek(at + PAGE)));
    poke(at, 5);
    r.see("seen by another child", sys::ends(|| peek(at).into()));
}

fn write_only(r: &mut Report) {
    let at = anonymous(1, PROT_WRITE, PRIVATE);
    poke(at, 3);
    r.see("a child reads", sys::ends(|| peek(at).into()));
    r.see("its parent, too", peek(at));
    let (read, write) = sys::pipe(0);
    let sent = sys::child(|| i32::from(sys!(SYS_write, write, at, 1) != Ok(1)));
    r.see("a call of a child", sys::wait(sent));
    r.see("reads", sys::read(read, 1).map(|text| text.into_bytes()));
}

fn exchanged_with_a_slash(r: &mut Report) {
    file("f", "f");
    file("g", "g");
    let _ = sys!(SYS_mkdir, c("d").as_ptr(), 0o755);
    for (old, new) in [("f", "g/"), ("f/", "g"), ("d", "f/"), ("d/", "f")] {
        let (from, to) = (c(old), c(new));
        let answer = sys!(SYS_renameat2, AT_FDCWD, from.as_ptr(), AT_FDCWD, to.as_ptr(), RENAME_EXCHANGE);
        r.see(format!("{old} and {new}"), answer);
    }
    r.see(
        "in the end",
        (sys::stat("d").map(|it| it.st_mode & S_IFMT), sys::stat("f").map(|it| it.st_mode & S_IFMT)),
    );
}
