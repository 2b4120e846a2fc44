//! Behaviour of the file system in memory, alone and over a host directory.

use std::os::unix::fs::PermissionsExt;

use lg_abi::Errno;
use lg_abi::raw::general::*;

use super::MemLimits;
use crate::vfs::testing::{TempDir, World};
use crate::vfs::{AttrChange, Extent, NewInode};

fn lower() -> TempDir {
    let dir = TempDir::new();
    dir.write("etc/conf", "old").write("usr/bin/tool", "#!").write("usr/lib/a", "A").write("usr/lib/b", "B");
    dir.symlink("usr/bin", "bin").symlink("../../../../../../etc/passwd", "usr/escape");
    dir.write("big", vec![7; 300_000]);
    dir
}

#[test]
fn the_lower_tree_shows_through() {
    let dir = lower();
    let world = World::over(&dir);
    assert_eq!(world.list("/").unwrap(), ["big", "bin", "etc", "usr"]);
    assert_eq!(world.text("/bin/tool"), "#!");
    assert_eq!(world.read("/big").unwrap(), vec![7; 300_000]);
    assert_eq!(world.attr("/big").unwrap().size, 300_000);
    assert_eq!(world.path("/nothing").err(), Some(Errno::ENOENT));
}

#[test]
fn host_links_lead_nowhere_outside_the_tree() {
    let dir = lower();
    let world = World::over(&dir);
    assert_eq!(world.open("/usr/escape", O_RDONLY).err(), Some(Errno::ENOENT));
    dir.symlink("/etc", "usr/absolute");
    assert_eq!(world.text("/usr/absolute/conf"), "old");
}

#[test]
fn changes_stay_in_memory() {
    let dir = lower();
    let before =
        std::process::Command::new("find").arg(&dir.0).args(["-printf", "%p %s %m %T@\n"]).output().unwrap();
    let world = World::over(&dir);
    world.write("/etc/conf", b"new");
    world.write_at("/big", 5000, b"patch").unwrap();
    world.unlink("/usr/lib/a").unwrap();
    world.write("/usr/lib/c", b"C");
    world.rename("/usr/lib/b", "/usr/lib/a", 0).unwrap();
    world.rename("/usr/bin", "/usr/sbin", 0).unwrap();
    world.mkdir("/usr/bin").unwrap();
    assert_eq!(world.text("/etc/conf"), "new");
    assert_eq!(world.list("/usr/lib").unwrap(), ["a", "c"]);
    assert_eq!(world.text("/usr/lib/a"), "B");
    assert_eq!(world.text("/usr/sbin/tool"), "#!");
    assert_eq!(world.list("/usr/bin").unwrap(), [""; 0]);
    let big = world.read("/big").unwrap();
    assert_eq!((big.len(), &big[4998..5007]), (300_000, &b"\x07\x07patch\x07\x07"[..]));
    let after =
        std::process::Command::new("find").arg(&dir.0).args(["-printf", "%p %s %m %T@\n"]).output().unwrap();
    assert_eq!(before.stdout, after.stdout);
}

#[test]
fn a_removed_name_stays_removed_and_can_be_made_again() {
    let dir = lower();
    let world = World::over(&dir);
    world.unlink("/usr/lib/a").unwrap();
    assert_eq!(world.path("/usr/lib/a").err(), Some(Errno::ENOENT));
    assert_eq!(world.list("/usr/lib").unwrap(), ["b"]);
    world.write("/usr/lib/a", b"again");
    world.unlink("/usr/lib/a").unwrap();
    assert_eq!(world.path("/usr/lib/a").err(), Some(Errno::ENOENT));
    world.unlink("/usr/lib/b").unwrap();
    world.rmdir("/usr/lib").unwrap();
    world.mkdir("/usr/lib").unwrap();
    assert_eq!(world.list("/usr/lib").unwrap(), [""; 0]);
}

#[test]
fn a_shorter_lower_file_does_not_come_back_when_it_grows() {
    let dir = lower();
    let world = World::over(&dir);
    let set_size = |size| {
        let change = AttrChange { size: Some(size), ..AttrChange::default() };
        world.path("/big").unwrap().inode().set_attr(&world.cx(), &change).unwrap();
    };
    set_size(5000);
    set_size(20_000);
    let big = world.read("/big").unwrap();
    assert!(big[..5000].iter().all(|byte| *byte == 7));
    assert!(big[5000..].iter().all(|byte| *byte == 0));
    let inode = world.path("/big").unwrap().inode().clone();
    let mut page = [1; 4096];
    inode.page(1).unwrap().read(0, &mut page);
    assert!(page[..904].iter().all(|byte| *byte == 7) && page[904..].iter().all(|byte| *byte == 0));
}

#[test]
fn mappings_and_writes_see_the_same_frames() {
    let dir = lower();
    let world = World::over(&dir);
    let inode = world.path("/big").unwrap().inode().clone();
    let frame = inode.page(2).unwrap();
    assert!(inode.resident_pages(0..100).len() > 16);
    world.write_at("/big", 2 * 4096, b"written").unwrap();
    let mut buf = [0; 7];
    frame.read(0, &mut buf);
    assert_eq!(&buf, b"written");
    frame.write(0, b"mapped!");
    inode.page_dirtied(2);
    assert_eq!(&world.read("/big").unwrap()[8192..8199], b"mapped!");
    assert_eq!(inode.page(300_000 / 4096 + 1).err(), Some(Errno::EFAULT));
}

#[test]
fn clean_pages_are_dropped_when_memory_runs_short_and_dirty_ones_are_not() {
    let dir = lower();
    let world = World::with_limits(40, MemLimits::default(), Some(&dir));
    world.write_at("/big", 0, b"dirty").unwrap();
    let file = world.open("/big", O_RDONLY).unwrap();
    for index in 0..70 {
        file.inode().page(index).unwrap();
    }
    assert_eq!(&world.read("/big").unwrap()[..5], b"dirty");
    assert!(world.vfs.reclaim(1000) > 0);
    assert_eq!(world.frames.used(), 1);
}

#[test]
fn writes_end_with_enospc_when_frames_run_out() {
    let world = World::with_limits(10, MemLimits::default(), None);
    let file = world.open("/f", O_RDWR | O_CREAT).unwrap();
    assert_eq!(file.file.write(&world.cx(), 0, &[1; 100_000]), Ok(40_960));
    assert_eq!(file.file.write(&world.cx(), 40_960, &[1]), Err(Errno::ENOSPC));
    world.unlink("/f").unwrap();
    drop(file);
    assert_eq!(world.frames.used(), 0);
}

#[test]
fn inodes_names_and_pages_are_limited_and_given_back() {
    let world = World::with_limits(100, MemLimits { pages: 2, units: 20 }, None);
    let mut made = 0;
    let errno = loop {
        match world.create(&format!("/f{made}"), NewInode::File, 0o644) {
            Ok(_) => made += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!((errno, made), (Errno::ENOSPC, 9));
    (0..made).for_each(|number| world.unlink(&format!("/f{number}")).unwrap());
    let long = "x".repeat(4000);
    world.symlink(&long, "/l");
    assert_eq!(world.create("/m", NewInode::Symlink(long.into()), 0).err(), None);
    assert_eq!(world.create("/n", NewInode::File, 0).err(), Some(Errno::ENOSPC));
    world.unlink("/l").unwrap();
    world.write("/n", &[1; 8192]);
    assert_eq!(world.write_at("/n", 8192, b"x"), Err(Errno::ENOSPC));
}

#[test]
fn unused_lower_nodes_can_be_dropped_and_come_back_the_same() {
    let dir = lower();
    let world = World::over(&dir);
    let before = world.dump("/");
    let ino = world.attr("/usr/lib/b").unwrap().ino;
    world.write("/usr/lib/c", b"kept");
    let held = world.open("/usr/bin/tool", O_RDONLY).unwrap();
    let root = world.vfs.root().unwrap();
    let any: std::rc::Rc<dyn std::any::Any> = root.inode().clone();
    let fs = any.downcast::<super::MemNode>().unwrap().fs().clone();
    let many = fs.lower_nodes();
    fs.shrink();
    assert!(fs.lower_nodes() < many, "{} of {many}", fs.lower_nodes());
    assert_eq!(world.attr("/usr/lib/b").unwrap().ino, ino);
    assert_eq!(world.text("/usr/lib/c"), "kept");
    world.unlink("/usr/lib/c").unwrap();
    assert_eq!(world.dump("/"), before);
    assert_eq!(held.inode().attr(&world.cx()).unwrap().ino, world.attr("/usr/bin/tool").unwrap().ino);
}

#[test]
fn holes_are_found_punched_and_filled() {
    let world = World::new();
    let file = world.open("/f", O_RDWR | O_CREAT).unwrap();
    file.file.write(&world.cx(), 0, &[1; 4096]).unwrap();
    file.file.write(&world.cx(), 40_960, &[2; 4096]).unwrap();
    let seek = |offset, wanted| file.file.seek_hole(offset, wanted).unwrap();
    assert_eq!(seek(0, Extent::Hole), Ok(4096));
    assert_eq!(seek(4096, Extent::Data), Ok(40_960));
    assert_eq!(seek(40_960, Extent::Hole), Ok(45_056));
    assert_eq!(seek(45_056, Extent::Data), Err(Errno::ENXIO));
    let used = world.frames.used();
    file.file.allocate(&world.cx(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192).unwrap();
    assert_eq!(world.frames.used(), used - 1);
    assert_eq!(world.read("/f").unwrap()[..10], [0; 10]);
    file.file.allocate(&world.cx(), 0, 50_000, 100).unwrap();
    assert_eq!(world.attr("/f").unwrap().size, 50_100);
    let huge = file.file.allocate(&world.cx(), 0, 0, 1 << 62);
    assert_eq!(huge, Err(Errno::ENOSPC));
}

#[test]
fn modes_and_owners_of_the_lower_layer_are_kept() {
    let dir = lower();
    std::fs::set_permissions(dir.0.join("usr/bin/tool"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    let world = World::over(&dir);
    let attr = world.attr("/usr/bin/tool").unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid), (S_IFREG | 0o4755, 0, 0));
}

#[test]
fn the_view_keeps_few_host_descriptors() {
    let dir = TempDir::new();
    for number in 0..400 {
        dir.write(&format!("d{number}/f"), number.to_string());
    }
    let world = World::over(&dir);
    let held: Vec<_> =
        (0..400).map(|number| world.open(&format!("/d{number}/f"), O_RDONLY).unwrap()).collect();
    for (number, file) in held.iter().enumerate() {
        let mut buf = [0; 8];
        let read = file.file.read(&world.cx(), 0, &mut buf).unwrap();
        assert_eq!(buf[..read], *number.to_string().as_bytes());
    }
    // Other tests of the process have descriptors too, of other directories.
    let of_this_view = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.and_then(|entry| std::fs::read_link(entry.path())).is_ok_and(|path| path.starts_with(&dir.0))
    };
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(of_this_view).filter(|of_it| *of_it).count();
    assert!((1..250).contains(&open), "{open} descriptors of the view are open");
}

#[test]
fn a_listing_goes_on_while_names_come_and_go() {
    let world = World::new();
    for number in 0..20 {
        world.write(&format!("/f{number}"), b"");
    }
    let root = world.vfs.root().unwrap();
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let mut batch = Vec::new();
        root.inode()
            .read_dir(&world.cx(), cursor, &mut |entry| {
                cursor = entry.next;
                batch.push(String::from_utf8(entry.name).unwrap());
                batch.len() < 3
            })
            .unwrap();
        if batch.is_empty() {
            break;
        }
        batch.iter().for_each(|name| world.unlink(&format!("/{name}")).unwrap());
        seen.append(&mut batch);
    }
    assert_eq!(seen.len(), 20);
    assert!(world.list("/").unwrap().is_empty());
}
