//! Event counters, timers and epoll instances.

use lg_abi::raw::general::*;
use lg_abi::{EpollEvent, Errno};

use crate::fs::anon::new_anon;
use crate::fs::epoll::{Epoll, as_epoll};
use crate::fs::eventfd::{EventFd, Taking};
use crate::fs::pipe::new_pipe;
use crate::fs::timerfd::{Setting, TimerFd};
use crate::vfs::testing::World;
use crate::vfs::{File, FsContext, Readiness};

fn event(events: u32, data: u32) -> EpollEvent {
    EpollEvent { events, data_low: data, data_high: 0 }
}

fn taken(epoll: &Epoll, cx: &FsContext<'_>) -> Vec<u32> {
    epoll.take_events(cx, 10).into_iter().map(|event| event.data_low).collect()
}

#[test]
fn a_level_triggered_watch_reports_as_long_as_there_is_something() {
    let world = World::new();
    let cx = world.cx();
    let (reader, writer) = new_pipe(&cx, 0).unwrap();
    let epoll = Epoll::new(&cx);
    epoll.add(3, &reader, &event(EPOLLIN, 7)).unwrap();
    assert_eq!(epoll.add(3, &reader, &event(EPOLLIN, 7)), Err(Errno::EEXIST));
    assert!(taken(&epoll, &cx).is_empty());
    writer.file.write(&cx, 0, b"x").unwrap();
    assert_eq!(taken(&epoll, &cx), [7]);
    assert_eq!(taken(&epoll, &cx), [7]);
    reader.file.read(&cx, 0, &mut [0; 9]).unwrap();
    assert!(taken(&epoll, &cx).is_empty());
    drop(writer);
    assert_eq!(epoll.take_events(&cx, 9)[0].events, EPOLLHUP);
    drop(reader);
    assert!(taken(&epoll, &cx).is_empty());
}

#[test]
fn an_edge_triggered_watch_reports_each_arrival_once() {
    let world = World::new();
    let cx = world.cx();
    let (reader, writer) = new_pipe(&cx, 0).unwrap();
    let epoll = Epoll::new(&cx);
    epoll.add(3, &reader, &event(EPOLLIN | EPOLLET, 7)).unwrap();
    writer.file.write(&cx, 0, b"x").unwrap();
    assert_eq!(taken(&epoll, &cx), [7]);
    assert!(taken(&epoll, &cx).is_empty());
    writer.file.write(&cx, 0, b"y").unwrap();
    assert_eq!(taken(&epoll, &cx), [7]);
    assert!(taken(&epoll, &cx).is_empty());
}

#[test]
fn a_one_shot_watch_reports_once_until_it_is_armed_again() {
    let world = World::new();
    let cx = world.cx();
    let (reader, writer) = new_pipe(&cx, 0).unwrap();
    let epoll = Epoll::new(&cx);
    epoll.add(3, &reader, &event(EPOLLIN | EPOLLONESHOT, 7)).unwrap();
    writer.file.write(&cx, 0, b"x").unwrap();
    assert_eq!(taken(&epoll, &cx), [7]);
    assert!(taken(&epoll, &cx).is_empty());
    epoll.modify(3, &reader, &event(EPOLLIN, 8)).unwrap();
    assert_eq!(taken(&epoll, &cx), [8]);
    epoll.remove(3, &reader).unwrap();
    assert_eq!(epoll.remove(3, &reader), Err(Errno::ENOENT));
    assert!(taken(&epoll, &cx).is_empty());
}

#[test]
fn no_watched_file_is_starved_by_those_before_it() {
    let world = World::new();
    let cx = world.cx();
    let epoll = Epoll::new(&cx);
    let pipes: Vec<_> = (0..5).map(|_| new_pipe(&cx, 0).unwrap()).collect();
    for (number, (reader, writer)) in (0u32..).zip(&pipes) {
        writer.file.write(&cx, 0, b"x").unwrap();
        epoll.add(number, reader, &event(EPOLLIN, number)).unwrap();
    }
    let mut seen: Vec<u32> =
        (0..3).flat_map(|_| epoll.take_events(&cx, 2)).map(|event| event.data_low).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn epoll_instances_nest_twice_and_never_in_a_circle() {
    let world = World::new();
    let cx = world.cx();
    let make = || new_anon(&cx, Epoll::new(&cx), "[eventpoll]", O_RDWR).unwrap();
    let (inner, outer, third) = (make(), make(), make());
    let add = |to: &std::rc::Rc<crate::vfs::FileDescription>, what| {
        as_epoll(&to.file).unwrap().add(5, what, &event(EPOLLIN, 1))
    };
    add(&outer, &inner).unwrap();
    assert_eq!(add(&inner, &outer), Err(Errno::ELOOP));
    assert_eq!(add(&third, &outer), Err(Errno::ELOOP));
    assert_eq!(add(&inner, &third), Err(Errno::ELOOP));
    let (reader, writer) = new_pipe(&cx, 0).unwrap();
    add(&inner, &reader).unwrap();
    writer.file.write(&cx, 0, b"x").unwrap();
    assert_eq!(taken(&as_epoll(&outer.file).unwrap(), &cx), [1]);
}

#[test]
fn regular_files_can_not_be_watched() {
    let world = World::new();
    world.write("/f", b"");
    let file = world.open("/f", O_RDONLY).unwrap();
    assert_eq!(Epoll::new(&world.cx()).add(3, &file, &event(EPOLLIN, 0)), Err(Errno::EPERM));
}

#[test]
fn event_counters_add_up_and_are_taken_whole_or_by_one() {
    let world = World::new();
    let cx = world.cx();
    let mut buf = [0; 8];
    let all = EventFd::new(2, Taking::Everything);
    assert_eq!(all.write(&cx, 0, &3u64.to_ne_bytes()), Ok(8));
    assert_eq!(all.write(&cx, 0, &u64::MAX.to_ne_bytes()), Err(Errno::EINVAL));
    assert_eq!(all.write(&cx, 0, &(u64::MAX - 4).to_ne_bytes()), Err(Errno::EAGAIN));
    assert_eq!(all.read(&cx, 0, &mut buf[..7]), Err(Errno::EINVAL));
    assert_eq!(all.read(&cx, 0, &mut buf), Ok(8));
    assert_eq!(u64::from_ne_bytes(buf), 5);
    assert_eq!(all.read(&cx, 0, &mut buf), Err(Errno::EAGAIN));
    let one = EventFd::new(2, Taking::One);
    one.read(&cx, 0, &mut buf).unwrap();
    one.read(&cx, 0, &mut buf).unwrap();
    assert_eq!(u64::from_ne_bytes(buf), 1);
    assert_eq!(one.readiness(&cx), Readiness::WRITABLE);
}

#[test]
fn timers_expire_repeatedly_and_say_when_next() {
    let world = World::new();
    let at = |monotonic_ns| FsContext { monotonic_ns, ..world.cx() };
    let timer = TimerFd::new(1);
    let mut buf = [0; 8];
    assert_eq!(timer.read(&at(0), 0, &mut buf), Err(Errno::EAGAIN));
    timer.set(Some(Setting { next_ns: 100, interval_ns: 50 }), 0);
    assert_eq!(timer.ready_at_ns(), Some(100));
    assert!(timer.readiness(&at(99)).is_empty());
    assert_eq!(timer.remaining(70), (30, 50));
    assert_eq!(timer.read(&at(220), 0, &mut buf), Ok(8));
    assert_eq!(u64::from_ne_bytes(buf), 3);
    assert_eq!(timer.ready_at_ns(), Some(250));
    assert_eq!(timer.remaining(220), (30, 50));
    timer.set(Some(Setting { next_ns: u64::MAX, interval_ns: u64::MAX }), 0);
    assert_eq!(timer.read(&at(u64::MAX), 0, &mut buf), Ok(8));
    timer.set(None, 0);
    assert!(timer.readiness(&at(u64::MAX)).is_empty());
}
