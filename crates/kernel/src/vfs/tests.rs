//! Behaviour of path walks, names and permissions.

use lg_abi::Errno;
use lg_abi::raw::general::*;

use super::testing::{World, user_creds};
use super::*;

fn tree() -> World {
    let world = World::new();
    world.mkdir("/a").unwrap();
    world.mkdir("/a/b").unwrap();
    world.write("/a/b/file", b"hello");
    world.symlink("b/file", "/a/link");
    world.symlink("/a/b", "/a/dirlink");
    world.symlink("loop", "/loop");
    world.symlink("nowhere", "/dangling");
    world
}

#[test]
fn walks_lead_where_linux_leads() {
    let world = tree();
    let cases: &[(&str, Result<&str, Errno>)] = &[
        ("/", Ok("/")),
        ("//a///b/./file", Ok("/a/b/file")),
        ("/a/link", Ok("/a/b/file")),
        ("/a/dirlink/file", Ok("/a/b/file")),
        ("/a/dirlink/../link", Ok("/a/b/file")),
        ("/../../a", Ok("/a")),
        ("a/b/", Ok("/a/b")),
        ("/a/b/.", Ok("/a/b")),
        ("/a/b/..", Ok("/a")),
        ("", Err(Errno::ENOENT)),
        ("/a/nothing", Err(Errno::ENOENT)),
        ("/a/b/file/", Err(Errno::ENOTDIR)),
        ("/a/b/file/.", Err(Errno::ENOTDIR)),
        ("/a/link/", Err(Errno::ENOTDIR)),
        ("/a/b/file/x", Err(Errno::ENOTDIR)),
        ("/loop", Err(Errno::ELOOP)),
        ("/dangling", Err(Errno::ENOENT)),
    ];
    for (path, expected) in cases {
        let got = world.path(path).map(|path| world.show(&path));
        assert_eq!(got, expected.map(str::to_string), "{path}");
    }
    let long = "x".repeat(256);
    assert_eq!(world.path(&long).err(), Some(Errno::ENAMETOOLONG));
    assert_eq!(world.path(&"a/../".repeat(1000)).err(), Some(Errno::ENAMETOOLONG));
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let world = World::new();
    world.write("/l0", b"end");
    for link in 1..=41 {
        world.symlink(&format!("l{}", link - 1), &format!("/l{link}"));
    }
    assert_eq!(world.text("/l40"), "end");
    assert_eq!(world.path("/l41").err(), Some(Errno::ELOOP));
}

#[test]
fn openat2_restrictions_hold() {
    let world = tree();
    let start = world.path("/a").unwrap();
    let cx = world.cx();
    let walk = |path: &str, resolve| {
        world
            .fs
            .walk(&cx, &start, path.as_bytes(), resolve)
            .and_then(|mut walk| walk.to_end(Final::Follow))
            .map(|path| world.show(&path))
    };
    assert_eq!(walk("b/file", Resolve::BENEATH), Ok("/a/b/file".into()));
    assert_eq!(walk("..", Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(walk("b/../..", Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(walk("/b", Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(walk("dirlink", Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(walk("/b/../../b", Resolve::IN_ROOT), Ok("/a/b".into()));
    assert_eq!(walk("dirlink", Resolve::IN_ROOT), Err(Errno::ENOENT));
    assert_eq!(walk("link", Resolve::NO_SYMLINKS), Err(Errno::ELOOP));
}

#[test]
fn open_creates_and_refuses_as_the_flags_say() {
    let world = tree();
    let open = |path: &str, flags| world.open(path, flags).err();
    assert_eq!(open("/a/new", O_WRONLY), Some(Errno::ENOENT));
    assert_eq!(open("/a/new", O_WRONLY | O_CREAT | O_EXCL), None);
    assert_eq!(open("/a/new", O_WRONLY | O_CREAT | O_EXCL), Some(Errno::EEXIST));
    assert_eq!(open("/dangling", O_WRONLY | O_CREAT | O_EXCL), Some(Errno::EEXIST));
    assert_eq!(open("/dangling", O_WRONLY | O_CREAT), None);
    assert!(world.attr("/nowhere").is_ok());
    assert_eq!(open("/a/link", O_RDONLY | O_NOFOLLOW), Some(Errno::ELOOP));
    assert_eq!(open("/a/link", O_PATH | O_NOFOLLOW), None);
    assert_eq!(open("/a/b/file", O_RDONLY | O_DIRECTORY), Some(Errno::ENOTDIR));
    assert_eq!(open("/a", O_WRONLY), Some(Errno::EISDIR));
    assert_eq!(open("/a", O_RDONLY | O_CREAT), Some(Errno::EISDIR));
    assert_eq!(open("/a/x/", O_WRONLY | O_CREAT), Some(Errno::EISDIR));
    assert_eq!(world.attr("/a/new").unwrap().mode & 0o7777, 0o644);
    world.open("/a/b/file", O_WRONLY | O_TRUNC).unwrap();
    assert_eq!(world.text("/a/b/file"), "");
}

#[test]
fn a_tmpfile_has_no_name_until_it_is_linked() {
    let world = tree();
    let file = world.open("/a", O_TMPFILE | O_RDWR).unwrap();
    file.file.write(&world.cx(), 0, b"secret").unwrap();
    assert_eq!(world.list("/a").unwrap(), ["b", "dirlink", "link"]);
    assert!(world.show(&file.path).ends_with(" (deleted)"));
    ops::link(&world.cx(), &world.fs, &file.path, &world.fs.cwd, b"/a/named").unwrap();
    assert_eq!(world.text("/a/named"), "secret");
}

#[test]
fn names_are_removed_and_renamed_as_linux_does() {
    let world = tree();
    assert_eq!(world.unlink("/a/b"), Err(Errno::EISDIR));
    assert_eq!(world.rmdir("/a/b"), Err(Errno::ENOTEMPTY));
    assert_eq!(world.rmdir("/a/b/file"), Err(Errno::ENOTDIR));
    assert_eq!(world.rmdir("/a/."), Err(Errno::EINVAL));
    assert_eq!(world.rmdir("/a/b/.."), Err(Errno::ENOTEMPTY));
    assert_eq!(world.rmdir("/"), Err(Errno::EBUSY));
    assert_eq!(world.rename("/a", "/a/b/c", 0), Err(Errno::EINVAL));
    assert_eq!(world.rename("/a/b", "/a", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(world.rename("/a/b/file", "/a/b", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(world.rename("/a/link", "/a/b", 0), Err(Errno::EISDIR));
    assert_eq!(world.rename("/a/b", "/a/link", 0), Err(Errno::ENOTDIR));
    assert_eq!(world.rename("/a/b", "/c", RENAME_NOREPLACE), Ok(()));
    assert_eq!(world.rename("/a/link", "/c", RENAME_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(world.text("/c/file"), "hello");
    assert_eq!(world.path("/a/dirlink").err(), Some(Errno::ENOENT));
    assert_eq!(world.rename("/c", "/a/link", RENAME_EXCHANGE), Ok(()));
    assert_eq!(world.text("/a/link/file"), "hello");
    assert_eq!(world.attr("/c").unwrap().mode & S_IFMT, S_IFLNK);
    assert_eq!(world.attr("/a").unwrap().nlink, 3);
    assert_eq!(world.attr("/").unwrap().nlink, 3);
}

#[test]
fn an_open_file_outlives_its_name() {
    let world = tree();
    let file = world.open("/a/b/file", O_RDONLY).unwrap();
    world.unlink("/a/b/file").unwrap();
    let mut buf = [0; 5];
    assert_eq!(file.file.read(&world.cx(), 0, &mut buf), Ok(5));
    assert_eq!(&buf, b"hello");
    assert_eq!(file.inode().attr(&world.cx()).unwrap().nlink, 0);
    assert_eq!(world.show(&file.path), "/a/b/file (deleted)");
}

#[test]
fn a_removed_working_directory_is_empty_and_has_no_path() {
    let mut world = tree();
    world.mkdir("/gone").unwrap();
    world.fs.cwd = world.path("/gone").unwrap();
    world.rmdir("/gone").unwrap();
    assert_eq!(world.vfs.show_cwd(&world.fs.root, &world.fs.cwd), Err(Errno::ENOENT));
    assert_eq!(world.mkdir("sub").err(), Some(Errno::ENOENT));
    assert_eq!(world.path("..").map(|path| world.show(&path)), Ok("/".into()));
}

#[test]
fn paths_follow_renames() {
    let mut world = tree();
    world.fs.cwd = world.path("/a/b").unwrap();
    world.rename("/a", "/moved", 0).unwrap();
    assert_eq!(world.vfs.show_cwd(&world.fs.root, &world.fs.cwd).unwrap(), b"/moved/b");
    assert_eq!(world.text("file"), "hello");
}

#[test]
fn permissions_of_others_hold() {
    let mut world = tree();
    world.mkdir("/open").unwrap();
    ops::chmod(&world.cx(), &world.path("/open").unwrap(), 0o1777).unwrap();
    world.write("/open/mine", b"x");
    world.write("/secret", b"x");
    ops::chmod(&world.cx(), &world.path("/secret").unwrap(), 0o600).unwrap();
    ops::chmod(&world.cx(), &world.path("/a/b").unwrap(), 0o700).unwrap();
    world.creds = user_creds(1000);
    assert_eq!(world.open("/secret", O_RDONLY).err(), Some(Errno::EACCES));
    assert_eq!(world.open("/a/b/file", O_RDONLY).err(), Some(Errno::EACCES));
    assert_eq!(world.open("/a/new", O_WRONLY | O_CREAT).err(), Some(Errno::EACCES));
    assert_eq!(world.unlink("/open/mine"), Err(Errno::EPERM));
    assert_eq!(ops::chmod(&world.cx(), &world.path("/open/mine").unwrap(), 0o777), Err(Errno::EPERM));
    world.write("/open/theirs", b"y");
    assert_eq!(world.attr("/open/theirs").unwrap().uid, 1000);
    assert_eq!(world.unlink("/open/theirs"), Ok(()));
}

#[test]
fn a_chroot_can_not_be_left_by_dot_dot() {
    let mut world = tree();
    world.fs.root = world.path("/a").unwrap();
    world.fs.cwd = world.fs.root.clone();
    assert_eq!(world.path("../../..").map(|path| world.show(&path)), Ok("/".into()));
    assert_eq!(world.path("/dirlink").err(), Some(Errno::ENOENT));
    assert_eq!(world.text("/b/file"), "hello");
    world.fs.cwd = world.vfs.root().unwrap();
    assert_eq!(world.vfs.show_cwd(&world.fs.root, &world.fs.cwd).unwrap(), b"(unreachable)/");
}

#[test]
fn mounts_are_crossed_both_ways() {
    let world = tree();
    let at = world.path("/a/b").unwrap();
    crate::fs::memfs::MemFs::mount_tmpfs(
        &world.cx(),
        &world.vfs,
        at,
        0o755,
        MountFlags::empty(),
        crate::fs::memfs::MemLimits::default(),
    )
    .unwrap();
    assert_eq!(world.list("/a/b").unwrap(), [""; 0]);
    world.write("/a/b/inside", b"x");
    assert_eq!(world.path("/a/b/..").map(|path| world.show(&path)), Ok("/a".into()));
    assert_eq!(world.show(&world.path("/a/b/inside").unwrap()), "/a/b/inside");
    assert_eq!(world.rename("/a/b/inside", "/a/x", 0), Err(Errno::EXDEV));
    assert_eq!(world.rmdir("/a/b"), Err(Errno::EBUSY));
    assert_eq!(world.rename("/a/b", "/z", 0), Err(Errno::EBUSY));
    assert_eq!(world.link("/a/b/inside", "/a/x"), Err(Errno::EXDEV));
}

#[test]
fn very_deep_trees_are_walked_shown_and_dropped_without_recursion() {
    let mut world = World::new();
    for _ in 0..50_000 {
        world.mkdir("d").unwrap();
        world.fs.cwd = world.path("d").unwrap();
    }
    assert_eq!(world.vfs.show_cwd(&world.fs.root, &world.fs.cwd), Err(Errno::ENAMETOOLONG));
    world.fs.cwd = world.fs.root.clone();
    world.rename("d", "e", 0).unwrap();
    drop(world);
}

#[test]
fn descriptors_are_the_lowest_free_ones_up_to_the_limit() {
    let world = World::new();
    world.write("/f", b"");
    let open = || world.open("/f", O_RDONLY).unwrap();
    let mut table = FdTable::new(&world.cx());
    for expected in 0..4 {
        assert_eq!(table.insert(open(), OnExec::Keep, 1024), Ok(expected));
    }
    table.remove(1).unwrap();
    table.remove(2).unwrap();
    assert_eq!(table.insert_from(2, open(), OnExec::Close, 1024), Ok(2));
    assert_eq!(table.insert(open(), OnExec::Keep, 1024), Ok(1));
    assert_eq!(table.insert(open(), OnExec::Keep, 4), Err(Errno::EMFILE));
    assert!(table.replace(9, open(), OnExec::Keep, 1024).unwrap().is_none());
    assert_eq!(table.replace(u32::MAX, open(), OnExec::Keep, u64::MAX).err(), Some(Errno::EBADF));
    assert_eq!(table.insert(open(), OnExec::Keep, 1024), Ok(4));
    let copy = table.fork(&world.cx()).unwrap();
    assert_eq!(table.remove_close_on_exec().len(), 1);
    assert_eq!(table.fds(), [0, 1, 3, 4, 9]);
    assert_eq!(copy.fds(), [0, 1, 2, 3, 4, 9]);
    assert_eq!(table.get(77).err(), Some(Errno::EBADF));
}

#[test]
fn locks_exclude_each_other_and_go_with_their_owner() {
    let world = World::new();
    world.write("/f", b"");
    let (one, two) = (world.open("/f", O_RDWR).unwrap(), world.open("/f", O_RDWR).unwrap());
    let locks = world.vfs.locks();
    let key = LockTable::key_of(&world.cx(), &one).unwrap();
    locks.flock(key, &one, Some(LockKind::Shared)).unwrap();
    locks.flock(key, &two, Some(LockKind::Shared)).unwrap();
    assert!(locks.flock(key, &one, Some(LockKind::Exclusive)).is_err());
    drop(two);
    locks.flock(key, &one, Some(LockKind::Exclusive)).unwrap();
    let record =
        |owner, start, last, kind| RecordLock { owner: LockOwner::Process(owner), pid: 1, start, last, kind };
    locks.lock_record(key, &one, record(1, 0, 99, LockKind::Exclusive)).unwrap();
    locks.unlock_record(key, &record(1, 40, 59, LockKind::Exclusive));
    locks.lock_record(key, &one, record(2, 40, 59, LockKind::Exclusive)).unwrap();
    assert!(locks.lock_record(key, &one, record(2, 39, 39, LockKind::Shared)).is_err());
    let found = locks.find_conflict(key, &record(3, 50, LAST_BYTE, LockKind::Shared)).unwrap();
    assert_eq!((found.start, found.last), (60, 99));
    locks.release_owner(1);
    locks.lock_record(key, &one, record(2, 0, LAST_BYTE, LockKind::Exclusive)).unwrap();
}

#[test]
fn the_first_error_on_the_way_is_the_one_that_counts() {
    let world = tree();
    let long = "x".repeat(256);
    let rename = |old: &str, new: &str| world.rename(old, new, 0);
    assert_eq!(rename(&long, "/nothing/x"), Err(Errno::ENOENT));
    assert_eq!(rename(&long, "/y"), Err(Errno::ENAMETOOLONG));
    assert_eq!(world.mkdir(&long).err(), Some(Errno::ENAMETOOLONG));
    assert_eq!(world.open("", O_RDONLY | O_CREAT | O_DIRECTORY).err(), Some(Errno::EINVAL));
    assert_eq!(world.open("", O_TMPFILE).err(), Some(Errno::EINVAL));
    assert_eq!(world.open("", O_RDONLY | O_CREAT).err(), Some(Errno::ENOENT));
}

#[test]
fn a_change_of_owner_clears_set_id_bits_of_all_but_directories() {
    let world = World::new();
    for (what, kept) in [(NewInode::File, 0o755), (NewInode::Fifo, 0o755), (NewInode::Dir, 0o2755)] {
        let path = world.create("/x", what.clone(), 0o755).unwrap();
        ops::chmod(&world.cx(), &path, 0o2755).unwrap();
        ops::chown(&world.cx(), &path, Some(5), None).unwrap();
        assert_eq!(world.attr("/x").unwrap().mode & 0o7777, kept, "{what:?}");
        let remove = if what == NewInode::Dir { World::rmdir } else { World::unlink };
        remove(&world, "/x").unwrap();
    }
}
