//! The root namespace.

use lg_abi::Errno;
use lg_abi::raw::general::*;

use super::sandbox;
use crate::fs::host::Image;
use crate::vfs::testing::{TempDir, user_creds};

#[test]
fn the_view_of_the_host_has_programs_and_no_secrets() {
    let world = sandbox(Image::Host, &[]);
    for there in ["/usr/bin/env", "/bin/sh", "/etc/passwd", "/tmp", "/root", "/dev/null", "/proc/version"] {
        assert!(world.path(there).is_ok(), "{there}");
    }
    for hidden in
        ["/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/sudoers", "/etc/ssl/private", "/etc/gitconfig"]
    {
        assert_eq!(world.path(hidden).err(), Some(Errno::ENOENT), "{hidden}");
    }
    let etc = world.list("/etc").unwrap();
    assert!(!etc.iter().any(|name| name.contains("shadow") || name == "ssh"), "{etc:?}");
    for empty in ["/root", "/home", "/srv", "/mnt", "/boot", "/var/lib", "/tmp", "/var/tmp"] {
        assert!(world.list(empty).unwrap().is_empty(), "{empty}");
    }
    assert_eq!(world.text("/etc/hostname"), "box\n");
    // The machine's id is the sandbox's own.
    let id = world.text("/etc/machine-id");
    assert!(id.len() == 33 && id.trim_end().bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    assert_ne!(Some(id), std::fs::read_to_string("/etc/machine-id").ok());
    assert_eq!(world.attr("/tmp").unwrap().mode & 0o7777, 0o1777);
    assert_eq!(world.attr("/root").unwrap().mode & 0o7777, 0o700);
}

#[test]
fn a_nested_allow_list_shows_only_the_way_to_what_it_names() {
    let world = sandbox(Image::Host, &[]);
    if let Ok(names) = world.list("/etc/ssl") {
        let allowed = ["cert.pem", "certs", "openssl.cnf"];
        assert!(names.iter().all(|name| allowed.contains(&name.as_str())), "{names:?}");
    }
}

#[test]
fn files_that_not_every_host_user_may_read_can_not_be_read_in_the_view() {
    use std::os::unix::fs::PermissionsExt;

    use crate::fs::host::{Audience, HostTree, open_root};
    use crate::fs::memfs::{MemFs, MemLimits};
    use crate::vfs::testing::World;
    use crate::vfs::{Dentry, Path};
    let dir = TempDir::new();
    dir.write("open", "x").write("secret", "x").write("closed/inner", "x");
    let chmod = |name, mode| {
        std::fs::set_permissions(dir.0.join(name), std::fs::Permissions::from_mode(mode)).unwrap()
    };
    chmod("secret", 0o600);
    chmod("closed", 0o700);
    let world = World::new();
    let tree = HostTree::new(open_root(&dir.0).unwrap(), Audience::Everyone);
    let lower = tree.root_dir(None).unwrap();
    let at = world.mkdir("/view").unwrap();
    let (fs, root) = MemFs::new(&world.cx(), MemLimits::default(), 0o755, Some(lower)).unwrap();
    let flags = crate::vfs::MountFlags::empty();
    let dentry = Dentry::new_root(root, b"/");
    let mount = world.vfs.mount(fs.super_block("overlay"), dentry, Some(at), flags, b"x").unwrap();
    assert!(Path::root_of(&mount).inode().attr(&world.cx()).is_ok());
    assert_eq!(world.text("/view/open"), "x");
    assert_eq!(world.read("/view/secret"), Err(Errno::EACCES));
    assert_eq!(world.read("/view/closed/inner"), Err(Errno::EACCES));
    assert_eq!(world.list("/view/closed"), Err(Errno::EACCES));
    chmod("closed", 0o755);
}

#[test]
fn devices_do_what_their_pages_say() {
    let world = sandbox(Image::Dir(TempDir::new().0.clone()), &[]);
    let mut buf = [7; 8];
    let open = |name: &str| world.open(name, O_RDWR).unwrap();
    assert_eq!(open("/dev/null").file.read(&world.cx(), 0, &mut buf), Ok(0));
    assert_eq!(open("/dev/null").file.write(&world.cx(), 0, b"abc"), Ok(3));
    assert_eq!(open("/dev/zero").file.read(&world.cx(), 5, &mut buf), Ok(8));
    assert_eq!(buf, [0; 8]);
    assert_eq!(open("/dev/full").file.write(&world.cx(), 0, b"abc"), Err(Errno::ENOSPC));
    assert_eq!(open("/dev/urandom").file.read(&world.cx(), 0, &mut buf), Ok(8));
    assert_eq!(world.open("/dev/tty", O_RDWR).err(), Some(Errno::ENXIO));
    assert_eq!(world.attr("/dev/null").unwrap().rdev, 0x103);
}

#[test]
fn an_image_directory_gets_the_usual_directories() {
    let dir = TempDir::new();
    dir.write("bin/tool", "t").write("etc/hosts", "the image's").write("etc/passwd", "root");
    let world = sandbox(Image::Dir(dir.0.clone()), &[]);
    assert_eq!(world.text("/bin/tool"), "t");
    assert!(world.text("/etc/hosts").contains("localhost"));
    assert_eq!(world.text("/etc/passwd"), "root");
    assert!(world.list("/").unwrap().contains(&"proc".to_owned()));
    assert_eq!(std::fs::read_to_string(dir.0.join("etc/hosts")).unwrap(), "the image's");
}

#[test]
fn shared_memory_is_limited_and_open_to_all() {
    let mut world = sandbox(Image::Dir(TempDir::new().0.clone()), &[]);
    world.creds = user_creds(1000);
    world.write("/dev/shm/x", &[1; 4096 * 16]);
    assert_eq!(world.write_at("/dev/shm/x", 4096 * 16, b"y"), Err(Errno::ENOSPC));
}
