//! The standard streams.

use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use lg_abi::Errno;
use lg_abi::raw::general::{S_IFIFO, S_IFMT, S_IFREG};

use crate::fs::hostio::open_stream;
use crate::fs::terminal::Terminal;
use crate::vfs::testing::{TempDir, World};
use crate::vfs::{FileDescription, Readiness};

fn stream(world: &World, host: impl Into<OwnedFd>) -> std::rc::Rc<FileDescription> {
    open_stream(&world.cx(), host.into(), "stdin", &Terminal::new()).unwrap()
}

#[test]
fn a_host_pipe_never_blocks_the_sandbox() {
    let world = World::new();
    let cx = world.cx();
    let (from_host, mut to_sandbox) = std::io::pipe().unwrap();
    let stdin = stream(&world, from_host);
    let mut buf = [0; 10];
    assert_eq!(stdin.file.read(&cx, 0, &mut buf), Err(Errno::EAGAIN));
    assert_eq!(stdin.file.host_events(Readiness::READABLE).len(), 1);
    to_sandbox.write_all(b"hello").unwrap();
    assert!(stdin.file.readiness(&cx).contains(Readiness::IN));
    assert_eq!(stdin.file.read(&cx, 0, &mut buf), Ok(5));
    drop(to_sandbox);
    assert_eq!(stdin.file.read(&cx, 0, &mut buf), Ok(0));
    let (mut from_sandbox, to_host) = std::io::pipe().unwrap();
    let stdout = stream(&world, to_host);
    assert_eq!(stdout.file.write(&cx, 0, &[7; 1 << 20]), Ok(65_536));
    assert_eq!(stdout.file.write(&cx, 0, &[7]), Err(Errno::EAGAIN));
    from_sandbox.read_exact(&mut [0; 4096]).unwrap();
    assert_eq!(stdout.file.write(&cx, 0, &[7]), Ok(1));
    drop(from_sandbox);
    assert_eq!(stdout.file.write(&cx, 0, &[7]), Err(Errno::EPIPE));
    let attr = stdout.inode().attr(&cx).unwrap();
    assert_eq!((attr.mode & S_IFMT, attr.dev), (S_IFIFO, cx.vfs.nameless_dev()));
}

#[test]
fn a_regular_file_shares_its_position_with_the_host() {
    let world = World::new();
    let cx = world.cx();
    let dir = TempDir::new();
    dir.write("f", "0123456789");
    let mut host = std::fs::File::options().read(true).write(true).open(dir.0.join("f")).unwrap();
    let stdin = stream(&world, host.try_clone().unwrap());
    let mut buf = [0; 4];
    assert_eq!(stdin.file.read(&cx, 0, &mut buf), Ok(4));
    assert_eq!(host.stream_position().unwrap(), 4);
    assert_eq!(stdin.file.seek(std::io::SeekFrom::Current(-2)), Some(Ok(2)));
    assert_eq!(stdin.file.write(&cx, 0, b"ab"), Ok(2));
    assert_eq!(std::fs::read_to_string(dir.0.join("f")).unwrap(), "01ab456789");
    let attr = stdin.inode().attr(&cx).unwrap();
    assert_eq!((attr.mode & S_IFMT, attr.size), (S_IFREG, 10));
}

#[test]
fn directories_are_no_streams() {
    let world = World::new();
    let dir = TempDir::new();
    let host: OwnedFd = std::fs::File::open(&dir.0).unwrap().into();
    assert_eq!(open_stream(&world.cx(), host, "stdin", &Terminal::new()).err(), Some(Errno::EINVAL));
}
