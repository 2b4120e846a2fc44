//! The kernel's own part of system calls, on the mock platform: no guest runs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lg_abi::raw::general as linux;
use lg_kernel::Limits;
use lg_kernel::testing::{FRAMES, Sandbox};

const PAGE: u64 = 4096;

fn calls(criterion: &mut Criterion) {
    let mut sandbox = Sandbox::new(Limits::with_memory(FRAMES));
    criterion.bench_function("getppid", |bencher| {
        bencher.iter(|| black_box(sandbox.call(linux::__NR_getppid, &[])));
    });
    let mut path = String::new();
    for name in ["tmp", "a", "b", "c", "d", "e"] {
        path += &format!("/{name}");
        let address = sandbox.place(format!("{path}\0").as_bytes());
        let _ = sandbox.call(linux::__NR_mkdir, &[address, 0o755]);
    }
    let stat = sandbox.call(linux::__NR_mmap, &anonymous(1)).expect("a page");
    let address = sandbox.place(format!("{path}\0").as_bytes());
    criterion.bench_function("stat of a path of six names", |bencher| {
        bencher.iter(|| sandbox.call(linux::__NR_stat, &[address, stat]).expect("it is there"));
    });
    let absent = sandbox.place(format!("{path}/none\0").as_bytes());
    criterion.bench_function("stat of a name that is not there", |bencher| {
        bencher.iter(|| sandbox.call(linux::__NR_stat, &[absent, stat]).expect_err("it is not there"));
    });
}

fn anonymous(pages: u64) -> [u64; 6] {
    let (prot, flags) = (linux::PROT_READ | linux::PROT_WRITE, linux::MAP_PRIVATE | linux::MAP_ANONYMOUS);
    [0, pages * PAGE, prot.into(), flags.into(), u64::MAX, 0]
}

fn areas(criterion: &mut Criterion) {
    for others in [10, 1000] {
        let mut sandbox = Sandbox::new(Limits::with_memory(FRAMES));
        // Every second page of a range, so that no two areas become one.
        let [_, _, prot, ..] = anonymous(1);
        let range = sandbox.call(linux::__NR_mmap, &reserved(2 * others)).expect("room");
        for n in 0..others {
            sandbox.call(linux::__NR_mprotect, &[range + 2 * n * PAGE, PAGE, prot]).expect("an area");
        }
        criterion.bench_function(&format!("map, protect and unmap beside {others} areas"), |bencher| {
            bencher.iter(|| {
                let at = sandbox.call(linux::__NR_mmap, &reserved(16)).expect("room");
                sandbox.call(linux::__NR_mprotect, &[at + PAGE, PAGE, prot]).expect("an area of its own");
                sandbox.call(linux::__NR_munmap, &[at, 16 * PAGE]).expect("it goes");
            });
        });
        criterion.bench_function(
            &format!("first touch and return of 16 pages beside {others} areas"),
            |bencher| {
                bencher.iter(|| {
                    let at = sandbox.call(linux::__NR_mmap, &anonymous(16)).expect("room");
                    sandbox.memory().write(at + 3 * PAGE, b"touched").expect("memory");
                    sandbox.call(linux::__NR_munmap, &[at, 16 * PAGE]).expect("it goes");
                });
            },
        );
    }
}

/// Areas without a page.
fn reserved(pages: u64) -> [u64; 6] {
    let [at, len, _, flags, fd, offset] = anonymous(pages);
    [at, len, 0, flags | u64::from(linux::MAP_NORESERVE), fd, offset]
}

criterion_group!(benches, calls, areas);
criterion_main!(benches);
