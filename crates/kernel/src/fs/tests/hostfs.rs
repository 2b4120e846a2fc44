//! Host directories passed through.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use lg_abi::Errno;
use lg_abi::raw::general::*;

use super::sandbox;
use crate::fs::host::Image;
use crate::fs::hostfs::HostAccess;
use crate::vfs::testing::{TempDir, World};
use crate::vfs::{NewInode, ops};

fn with_mount(access: HostAccess) -> (TempDir, World) {
    let dir = TempDir::new();
    dir.write("a/file", "old").symlink("a/file", "link").symlink("/etc", "out").symlink("../..", "up");
    let world = sandbox(Image::Dir(TempDir::new().0.clone()), &[(&dir.0, "/data/deep", access)]);
    (dir, world)
}

#[test]
fn both_sides_see_each_others_changes_at_once() {
    let (dir, world) = with_mount(HostAccess::ReadWrite);
    assert_eq!(world.text("/data/deep/link"), "old");
    world.write("/data/deep/a/new", b"from the sandbox");
    assert_eq!(std::fs::read_to_string(dir.0.join("a/new")).unwrap(), "from the sandbox");
    std::fs::write(dir.0.join("a/file"), "from the host").unwrap();
    std::fs::write(dir.0.join("a/appeared"), "x").unwrap();
    assert_eq!(world.text("/data/deep/a/file"), "from the host");
    assert_eq!(world.list("/data/deep/a").unwrap(), ["appeared", "file", "new"]);
    std::fs::remove_file(dir.0.join("a/appeared")).unwrap();
    assert_eq!(world.path("/data/deep/a/appeared").err(), Some(Errno::ENOENT));
    world.rename("/data/deep/a", "/data/deep/b", 0).unwrap();
    world.mkdir("/data/deep/b/sub").unwrap();
    world.link("/data/deep/b/file", "/data/deep/b/sub/hard").unwrap();
    assert_eq!(std::fs::metadata(dir.0.join("b/sub/hard")).unwrap().nlink(), 2);
    world.unlink("/data/deep/b/file").unwrap();
    assert!(!dir.0.join("b/file").exists());
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let (dir, world) = with_mount(HostAccess::ReadOnly);
    assert_eq!(world.text("/data/deep/a/file"), "old");
    assert_eq!(world.open("/data/deep/a/file", O_WRONLY).err(), Some(Errno::EROFS));
    assert_eq!(world.open("/data/deep/new", O_WRONLY | O_CREAT).err(), Some(Errno::EROFS));
    assert_eq!(world.mkdir("/data/deep/d").err(), Some(Errno::EROFS));
    assert_eq!(world.unlink("/data/deep/a/file"), Err(Errno::EROFS));
    assert_eq!(world.rename("/data/deep/a", "/data/deep/b", 0), Err(Errno::EROFS));
    let file = world.path("/data/deep/a/file").unwrap();
    assert_eq!(ops::chmod(&world.cx(), &file, 0o777), Err(Errno::EROFS));
    assert_eq!(ops::truncate(&world.cx(), &file, 0), Err(Errno::EROFS));
    // Nor is there a way around the flag of the mount.
    assert_eq!(file.inode().unlink(&world.cx(), b"x"), Err(Errno::EROFS));
    assert_eq!(std::fs::read_to_string(dir.0.join("a/file")).unwrap(), "old");
}

#[test]
fn links_lead_to_places_of_the_sandbox_only() {
    let (_dir, world) = with_mount(HostAccess::ReadWrite);
    assert_eq!(world.show(&world.path("/data/deep/out").unwrap()), "/etc");
    assert_eq!(world.text("/data/deep/out/hostname"), "box\n");
    assert_eq!(world.show(&world.path("/data/deep/up").unwrap()), "/");
    world.symlink("../../../../../../etc/passwd", "/data/deep/escape");
    assert_eq!(world.open("/data/deep/escape", O_RDONLY).err(), Some(Errno::ENOENT));
}

#[test]
fn set_id_bits_and_devices_do_not_reach_the_host() {
    let (dir, world) = with_mount(HostAccess::ReadWrite);
    let path = world.create("/data/deep/tool", NewInode::File, 0o6755).unwrap();
    ops::chmod(&world.cx(), &path, 0o6755).unwrap();
    let mode = std::fs::metadata(dir.0.join("tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    let device = NewInode::CharDevice(0x103);
    assert_eq!(world.create("/data/deep/null", device, 0o666).err(), Some(Errno::EPERM));
}

#[test]
fn mappings_reads_writes_and_the_host_agree() {
    let (dir, world) = with_mount(HostAccess::ReadWrite);
    world.write("/data/deep/m", &[1; 10_000]);
    let file = world.open("/data/deep/m", O_RDWR).unwrap();
    let frame = file.inode().page(1).unwrap();
    file.file.write(&world.cx(), 4096, b"written").unwrap();
    let mut buf = [0; 7];
    frame.read(0, &mut buf);
    assert_eq!(&buf, b"written");
    frame.write(0, b"mapped!");
    file.file.read(&world.cx(), 4096, &mut buf).unwrap();
    assert_eq!(&buf, b"mapped!");
    file.inode().page_dirtied(1);
    assert_eq!(&std::fs::read(dir.0.join("m")).unwrap()[4096..4103], b"mapped!");
    assert_eq!(file.inode().page(3).err(), Some(Errno::EFAULT));
    assert_eq!(std::fs::metadata(dir.0.join("m")).unwrap().len(), 10_000);
    drop(frame);
    std::fs::write(dir.0.join("m"), [2; 10_000]).unwrap();
    file.file.read(&world.cx(), 4096, &mut buf).unwrap();
    assert_eq!(buf, [2; 7]);
}

#[test]
fn an_open_file_can_be_used_when_its_name_is_gone() {
    let (_dir, world) = with_mount(HostAccess::ReadWrite);
    let file = world.open("/data/deep/a/file", O_RDWR).unwrap();
    world.unlink("/data/deep/a/file").unwrap();
    let change = crate::vfs::AttrChange { size: Some(1), mode: Some(0o600), ..Default::default() };
    file.inode().set_attr(&world.cx(), &change).unwrap();
    assert_eq!(file.inode().attr(&world.cx()).unwrap().size, 1);
}

#[test]
fn a_single_file_can_be_passed_through() {
    let dir = TempDir::new();
    dir.write("one", "1").write("two", "2");
    let world = sandbox(
        Image::Dir(TempDir::new().0.clone()),
        &[
            (&dir.0.join("one"), "/etc/one", HostAccess::ReadWrite),
            (&dir.0.join("two"), "/two", HostAccess::ReadOnly),
        ],
    );
    assert_eq!(world.text("/two"), "2");
    assert_eq!(world.open("/two", O_WRONLY).err(), Some(Errno::EROFS));
    world.write("/etc/one", b"changed");
    assert_eq!(std::fs::read_to_string(dir.0.join("one")).unwrap(), "changed");
    assert_eq!(world.unlink("/etc/one"), Err(Errno::EBUSY));
}

#[test]
fn deep_directories_are_left_without_recursion_and_descriptors_are_limited() {
    let (_dir, mut world) = with_mount(HostAccess::ReadWrite);
    world.fs.cwd = world.path("/data/deep").unwrap();
    let mut depth = 0;
    let errno = loop {
        match world.mkdir("d").and_then(|_| world.path("d")) {
            Ok(path) => world.fs.cwd = path,
            Err(errno) => break errno,
        }
        depth += 1;
        if depth == 500 {
            break Errno::ENFILE;
        }
    };
    assert_eq!(errno, Errno::ENFILE);
    world.fs.cwd = world.fs.root.clone();
}

#[test]
fn the_user_who_runs_the_sandbox_is_root_in_it() {
    let (_dir, world) = with_mount(HostAccess::ReadWrite);
    let attr = world.attr("/data/deep/a/file").unwrap();
    assert_eq!((attr.uid, attr.gid), (0, 0));
}

#[test]
fn a_file_found_by_another_name_lets_go_of_the_directory_of_the_first() {
    let (dir, world) = with_mount(HostAccess::ReadWrite);
    dir.write("b/x", "");
    std::fs::hard_link(dir.0.join("a/file"), dir.0.join("b/same")).unwrap();
    let inode = world.path("/data/deep/a/file").unwrap().inode().clone();
    let again = world.path("/data/deep/b/same").unwrap().inode().clone();
    assert!(std::rc::Rc::ptr_eq(&inode, &again));
    std::fs::remove_file(dir.0.join("a/file")).unwrap();
    assert_eq!(world.text("/data/deep/b/same"), "old");
}

#[test]
fn a_nameless_file_can_be_written_and_read() {
    let (_dir, world) = with_mount(HostAccess::ReadWrite);
    let file = world.open("/data/deep", O_TMPFILE | O_RDWR).unwrap();
    assert_eq!(file.file.write(&world.cx(), 0, b"abc"), Ok(3));
    assert_eq!(file.inode().attr(&world.cx()).unwrap().nlink, 0);
    assert_eq!(world.list("/data/deep").unwrap(), ["a", "link", "out", "up"]);
}
