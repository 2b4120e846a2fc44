//! Pipes.

use libc::*;

use crate::sys::{self, close, pipe, read, sys, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("pipe_ends", pipe_ends),
    ("pipe_nonblocking", pipe_nonblocking),
    ("pipe_blocking", pipe_blocking),
    ("pipe_atomic", pipe_atomic),
    ("pipe_large", pipe_large),
    ("pipeline", pipeline),
];

fn pipe_ends(r: &mut Report) {
    let (reader, writer) = pipe(0);
    r.see("write", write(writer, b"hello"));
    r.see("part", read(reader, 2));
    r.see("rest", read(reader, 100));
    r.see("read from the writer", read(writer, 1));
    r.see("write to the reader", write(reader, b"x"));
    write(writer, b"last").unwrap();
    close(writer).unwrap();
    r.see("what is left", read(reader, 100));
    r.see("end", (read(reader, 100), read(reader, 100)));
    let (reader, writer) = pipe(0);
    close(reader).unwrap();
    r.see("SIGPIPE", sys::ends(|| write(writer, b"x").map_or(1, |_| 0)));
    r.see("EPIPE when ignored", {
        // SAFETY: no handler.
        unsafe { signal(SIGPIPE, SIG_IGN) };
        write(writer, b"x")
    });
    r.see("nothing written is no error", write(writer, b""));
    r.see("bad flags", sys!(SYS_pipe2, [0i32; 2].as_mut_ptr(), 1));
    let (reader, _writer) = pipe(O_CLOEXEC);
    r.see("close on exec", sys!(SYS_fcntl, reader, F_GETFD));
}

fn pipe_nonblocking(r: &mut Report) {
    let (reader, writer) = pipe(O_NONBLOCK);
    r.see("empty", read(reader, 1));
    let block = [b'x'; 4096];
    let mut blocks = 0;
    let full = loop {
        match write(writer, &block) {
            Ok(count) => {
                assert_eq!(count, 4096);
                blocks += 1;
            }
            Err(errno) => break errno,
        }
    };
    r.see("full", (blocks, full));
    r.see("one byte", write(writer, b"x"));
    r.see("room for a page", (read(reader, 4096).map(|text| text.len()), write(writer, &block)));
    r.see("room for less", (read(reader, 100).map(|text| text.len()), write(writer, &block)));
    r.see("larger than PIPE_BUF", {
        read(reader, 8192).unwrap();
        write(writer, &[b'y'; 65536]).is_ok_and(|count| (4096..65536).contains(&count))
    });
}

fn pipe_blocking(r: &mut Report) {
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(writer).unwrap();
        i32::from(read(reader, 10).as_deref() != Ok("late"))
    });
    sys::sleep_ms(20);
    write(writer, b"late").unwrap();
    r.see("reader waits", sys::wait(pid));
    let pid = sys::child(|| {
        close(writer).unwrap();
        i32::from(read(reader, 10).as_deref() != Ok(""))
    });
    sys::sleep_ms(20);
    close(writer).unwrap();
    r.see("reader waits for the end", sys::wait(pid));
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(reader).unwrap();
        i32::from(write(writer, &vec![b'x'; 200_000]) != Ok(200_000))
    });
    close(writer).unwrap();
    let mut total = 0;
    loop {
        let text = read(reader, 10_000).unwrap();
        if text.is_empty() {
            break;
        }
        total += text.len();
    }
    r.see("writer waits", (total, sys::wait(pid)));
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(reader).unwrap();
        write(writer, &vec![b'x'; 200_000]).map_or(1, |_| 0)
    });
    sys::sleep_ms(20);
    close(writer).unwrap();
    close(reader).unwrap();
    r.see("writer waits and is killed", sys::wait(pid));
}

fn pipe_atomic(r: &mut Report) {
    // Writes of at most PIPE_BUF bytes are never mixed.
    let (reader, writer) = pipe(0);
    let pids: Vec<i32> = (0..4u8)
        .map(|n| {
            sys::child(|| {
                let block = [b'a' + n; 1000];
                i32::from((0..50).any(|_| write(writer, &block) != Ok(1000)))
            })
        })
        .collect();
    close(writer).unwrap();
    let mut text = String::new();
    loop {
        let part = read(reader, 65536).unwrap();
        if part.is_empty() {
            break;
        }
        text.push_str(&part);
    }
    r.see("length", text.len());
    r.ensure(
        "no write was split",
        text.as_bytes().chunks(1000).all(|part| part.iter().all(|it| it == &part[0])),
    );
    r.see("ends", pids.into_iter().map(sys::wait).collect::<Vec<_>>());
}

fn pipe_large(r: &mut Report) {
    let (reader, writer) = pipe(0);
    let pid = sys::child(|| {
        close(reader).unwrap();
        let mut value = 1u32;
        for _ in 0..300 {
            let block: Vec<u8> = (0..7001)
                .map(|_| {
                    value = value.wrapping_mul(1_103_515_245).wrapping_add(12345);
                    (value >> 16) as u8
                })
                .collect();
            assert_eq!(write(writer, &block), Ok(block.len()));
        }
        0
    });
    close(writer).unwrap();
    let (mut value, mut count, mut wrong) = (1u32, 0, 0);
    let mut buffer = vec![0u8; 5003];
    loop {
        let got = sys!(SYS_read, reader, buffer.as_mut_ptr(), buffer.len()).unwrap();
        if got == 0 {
            break;
        }
        for &byte in &buffer[..got] {
            value = value.wrapping_mul(1_103_515_245).wrapping_add(12345);
            wrong += u32::from(byte != (value >> 16) as u8);
            count += 1;
        }
    }
    r.see("bytes, wrong ones", (count, wrong));
    r.see("writer", sys::wait(pid));
}

fn pipeline(r: &mut Report) {
    // Five processes in a row, each adds one to each number.
    let (first, mut from) = {
        let (reader, writer) = pipe(0);
        (writer, reader)
    };
    let mut pids = Vec::new();
    for _ in 0..5 {
        let (reader, writer) = pipe(0);
        pids.push(sys::child(|| {
            close(first).unwrap();
            close(reader).unwrap();
            let mut byte = [0u8];
            while sys!(SYS_read, from, byte.as_mut_ptr(), 1) == Ok(1) {
                byte[0] += 1;
                write(writer, &byte).unwrap();
            }
            0
        }));
        close(from).unwrap();
        close(writer).unwrap();
        from = reader;
    }
    write(first, b"aAbB0").unwrap();
    close(first).unwrap();
    let mut text = String::new();
    loop {
        let part = read(from, 10).unwrap();
        if part.is_empty() {
            break;
        }
        text.push_str(&part);
    }
    r.see("text", text);
    r.see("ends", pids.into_iter().map(sys::wait).collect::<Vec<_>>());
}
