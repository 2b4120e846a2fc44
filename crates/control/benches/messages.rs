//! Messages between the runtime and a vmm.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use criterion::{Criterion, criterion_group, criterion_main};
use lg_control::{Call, Inbox, Request, Waiting, encode, send};

fn messages(criterion: &mut Criterion) {
    let small = || Call { id: 7, request: Request::Stats };
    let large =
        || Call { id: 7, request: Request::WriteStream { process: 3, fd: 0, bytes: vec![b'x'; 64 << 10] } };
    criterion.bench_function("encode a small call", |bencher| bencher.iter(|| encode(black_box(&small()))));
    criterion.bench_function("encode 64 KiB of a stream", |bencher| {
        let call = large();
        bencher.iter(|| encode(black_box(&call)));
    });
    let (sender, receiver) = UnixStream::pair().expect("a socket pair");
    for (name, call) in
        [("a small call through a socket", small()), ("64 KiB of a stream through a socket", large())]
    {
        let mut inbox = Inbox::default();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                send(&sender, &call).expect("it is sent");
                loop {
                    if let Some((call, _)) = inbox.take_call().expect("a call") {
                        break black_box(call);
                    }
                    inbox.fill(receiver.as_fd(), Waiting::Blocks).expect("it comes");
                }
            });
        });
    }
}

criterion_group!(benches, messages);
criterion_main!(benches);
