//! What leaves the guest: a system call, a page fault.

#[path = "../tests/common/mod.rs"]
mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use lg_platform::Trap;

// Makes system calls for ever.
guest_code!(calls: "2: syscall", "jmp 2b");
// Stores to the page at 0x40_0000, where nothing is.
guest_code!(touches: "mov rax, 0x400000", "mov byte ptr [rax], 1");

fn exits(criterion: &mut Criterion) {
    let Some(mut guest) = common::guest(calls()) else { return };
    criterion.bench_function("system call, out of the guest and back", |bencher| {
        bencher.iter(|| guest.expect_syscall());
    });
    let Some(mut guest) = common::guest(touches()) else { return };
    // The page never comes, so the same store faults each time.
    criterion.bench_function("page fault, out of the guest and back", |bencher| {
        bencher.iter(|| assert!(matches!(guest.run(), Trap::PageFault { present: false, .. })));
    });
}

criterion_group!(benches, exits);
criterion_main!(benches);
