//! Pipes and FIFOs.

use lg_abi::Errno;
use lg_abi::raw::general::*;

use crate::fs::pipe::{as_pipe, new_pipe};
use crate::task::{Stop, Tid};
use crate::vfs::testing::World;
use crate::vfs::{FsContext, NewInode, Readiness};

#[test]
fn a_pipe_keeps_order_and_capacity_and_tells_of_its_ends() {
    let world = World::new();
    let cx = world.cx();
    let (reader, writer) = new_pipe(&cx, 0).unwrap();
    let mut buf = [0; 100];
    assert_eq!(reader.file.read(&cx, 0, &mut buf), Err(Errno::EAGAIN));
    assert_eq!(writer.file.write(&cx, 0, b"one"), Ok(3));
    assert_eq!(writer.file.write(&cx, 0, b"two"), Ok(3));
    assert_eq!(reader.file.read(&cx, 0, &mut buf[..4]), Ok(4));
    assert_eq!(&buf[..4], b"onet");
    assert_eq!(writer.file.write(&cx, 0, &[0; 100_000]), Ok(65_534));
    assert_eq!(writer.file.write(&cx, 0, &[0]), Err(Errno::EAGAIN));
    assert!(!writer.file.readiness(&cx).intersects(Readiness::WRITABLE));
    drop(writer);
    assert!(reader.file.readiness(&cx).contains(Readiness::IN | Readiness::HUP));
    let mut all = vec![0; 70_000];
    assert_eq!(reader.file.read(&cx, 0, &mut all), Ok(65_536));
    assert_eq!(reader.file.read(&cx, 0, &mut all), Ok(0));
    let (reader, writer) = new_pipe(&cx, 0).unwrap();
    drop(reader);
    assert_eq!(writer.file.write(&cx, 0, b"x"), Err(Errno::EPIPE));
    assert!(writer.file.readiness(&cx).contains(Readiness::ERR));
}

#[test]
fn small_writes_are_whole_or_not_at_all() {
    let world = World::new();
    let cx = world.cx();
    let (reader, writer) = new_pipe(&cx, 0).unwrap();
    let pipe = as_pipe(&writer.file).unwrap();
    assert_eq!(pipe.set_capacity(1), Ok(4096));
    assert_eq!(writer.file.write(&cx, 0, &[1; 4000]), Ok(4000));
    assert_eq!(writer.file.write(&cx, 0, &[2; 97]), Err(Errno::EAGAIN));
    assert_eq!(writer.file.write(&cx, 0, &[2; 96]), Ok(96));
    assert_eq!(pipe.set_capacity(1 << 21), Err(Errno::EPERM));
    assert_eq!(pipe.set_capacity(100_000), Ok(131_072));
    assert_eq!(writer.file.write(&cx, 0, &[3; 200_000]), Ok(131_072 - 4096));
    assert_eq!(pipe.set_capacity(4096), Err(Errno::EBUSY));
    drop((reader, writer, pipe));
}

#[test]
fn all_pipes_together_have_a_limit() {
    let world = World::new();
    let cx = world.cx();
    let pipes: Vec<_> = (0..1100).map(|_| new_pipe(&cx, 0).unwrap()).collect();
    let (_, last) = pipes.last().unwrap();
    assert_eq!(as_pipe(&last.file).unwrap().capacity(), 4096);
    drop(pipes);
    let (_, again) = new_pipe(&cx, 0).unwrap();
    assert_eq!(as_pipe(&again.file).unwrap().capacity(), 65_536);
}

#[test]
fn the_two_sides_of_a_fifo_wait_for_each_other() {
    let world = World::new();
    world.create("/fifo", NewInode::Fifo, 0o644).unwrap();
    let inode = world.path("/fifo").unwrap().inode().clone();
    let open = |tid, flags| {
        let cx = FsContext { tid: Tid(tid), ..world.cx() };
        inode.clone().open(&cx, flags)
    };
    assert!(matches!(open(1, O_WRONLY | O_NONBLOCK), Err(Stop::Errno(Errno::ENXIO))));
    let Err(Stop::Block(waiting)) = open(1, O_RDONLY) else { panic!("the reader does not wait") };
    let Ok(writer) = open(2, O_WRONLY) else { panic!("the writer does not meet the reader") };
    // The reader has not come back yet, and still it counts.
    assert_eq!(writer.write(&world.cx(), 0, b"hello"), Ok(5));
    let Ok(reader) = open(1, O_RDONLY) else { panic!("the reader does not meet the writer") };
    drop(waiting);
    let mut buf = [0; 9];
    assert_eq!(reader.read(&world.cx(), 0, &mut buf), Ok(5));
    drop(writer);
    assert_eq!(reader.read(&world.cx(), 0, &mut buf), Ok(0));
}

#[test]
fn what_a_writer_left_in_a_fifo_waits_for_the_reader_that_it_met() {
    let world = World::new();
    world.create("/fifo", NewInode::Fifo, 0o644).unwrap();
    let inode = world.path("/fifo").unwrap().inode().clone();
    let open = |tid, flags| inode.clone().open(&FsContext { tid: Tid(tid), ..world.cx() }, flags);
    let mut buf = [0; 9];
    for gives_up in [false, true] {
        let Err(Stop::Block(waiting)) = open(1, O_RDONLY) else { panic!("the reader does not wait") };
        let Ok(writer) = open(2, O_WRONLY) else { panic!("the writer does not meet the reader") };
        assert_eq!(writer.write(&world.cx(), 0, b"hello"), Ok(5));
        drop(writer);
        if gives_up {
            // Then nobody has it any more, and the next reader finds it empty.
            drop(waiting);
            let Ok(reader) = open(3, O_RDONLY | O_NONBLOCK) else { panic!("the reader waits") };
            assert_eq!(reader.read(&world.cx(), 0, &mut buf), Ok(0));
        } else {
            let Ok(reader) = open(1, O_RDONLY) else { panic!("the reader does not know the writer") };
            assert_eq!(reader.read(&world.cx(), 0, &mut buf), Ok(5));
            assert_eq!(reader.read(&world.cx(), 0, &mut buf), Ok(0));
        }
    }
}

#[test]
fn a_task_that_gave_up_waiting_for_a_fifo_is_not_met() {
    let world = World::new();
    world.create("/fifo", NewInode::Fifo, 0o644).unwrap();
    let Err(Stop::Block(waiting)) = world.try_open("/fifo", O_RDONLY) else { panic!() };
    drop(waiting);
    assert!(matches!(world.try_open("/fifo", O_WRONLY), Err(Stop::Block(_))));
}

#[test]
fn a_fifo_opened_without_waiting_hangs_up_only_after_a_writer() {
    let world = World::new();
    world.create("/fifo", NewInode::Fifo, 0o644).unwrap();
    let reader = world.open("/fifo", O_RDONLY | O_NONBLOCK).unwrap();
    let mut buf = [0; 9];
    assert_eq!(reader.file.read(&world.cx(), 0, &mut buf), Ok(0));
    assert!(reader.file.readiness(&world.cx()).is_empty());
    let writer = world.open("/fifo", O_WRONLY).unwrap();
    drop(writer);
    assert_eq!(reader.file.readiness(&world.cx()), Readiness::HUP);
}
