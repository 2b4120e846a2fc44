//! Names: directories, links, renames, listings, the working directory.

use libc::*;

use crate::sys::{self, Answer, Errno, c, close, fd, file, fstat, lstat, open, read, stat, sys, text};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("mkdir", mkdir_and_rmdir),
    ("rename", renames),
    ("rename_flags", rename_flags),
    ("links", links),
    ("symlinks", symlinks),
    ("unlinked_files", unlinked_files),
    ("listing", listing),
    ("listing_while_changing", listing_while_changing),
    ("working_directory", working_directory),
    ("fifo", fifo),
    ("proc_self", proc_self),
    ("root_listing", root_listing),
    ("openat2", openat2_resolve),
];

fn rename(from: &str, to: &str) -> Answer {
    sys!(SYS_rename, c(from).as_ptr(), c(to).as_ptr())
}

fn unlink(path: &str) -> Answer {
    sys!(SYS_unlink, c(path).as_ptr())
}

fn mkdir(path: &str) -> Answer {
    sys!(SYS_mkdir, c(path).as_ptr(), 0o755)
}

fn rmdir(path: &str) -> Answer {
    sys!(SYS_rmdir, c(path).as_ptr())
}

fn names(path: &str) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(path).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn mkdir_and_rmdir(r: &mut Report) {
    r.see("make", mkdir("d"));
    r.see("again", mkdir("d"));
    r.see("with a slash", mkdir("e/"));
    r.see("without parent", mkdir("no/d"));
    file("f", "");
    r.see("beneath a file", mkdir("f/d"));
    r.see("over a file", mkdir("f"));
    r.see("of nothing", mkdir(""));
    r.see("of the root", mkdir("/"));
    r.see("of dot", mkdir("."));
    r.see("remove", rmdir("e"));
    r.see("remove again", rmdir("e"));
    r.see("remove a file", rmdir("f"));
    mkdir("d/sub").unwrap();
    r.see("remove what is not empty", rmdir("d"));
    r.see("remove dot", rmdir("d/."));
    r.see("remove dot dot", rmdir("d/sub/.."));
    r.see("remove the root", rmdir("/"));
    r.see("unlinkat", sys!(SYS_unlinkat, AT_FDCWD, c("d/sub").as_ptr(), AT_REMOVEDIR));
    let held = fd("d", O_RDONLY | O_DIRECTORY);
    rmdir("d").unwrap();
    r.see("links of the removed", fstat(held).map(|it| it.st_nlink));
    r.see("create in the removed", sys!(SYS_openat, held, c("f").as_ptr(), O_CREAT | O_RDWR, 0o600));
    r.see("names", names("."));
}

fn renames(r: &mut Report) {
    file("a", "a");
    file("b", "b");
    let inode = stat("a").unwrap().st_ino;
    let old = fd("b", O_RDONLY);
    r.see("file over file", rename("a", "b"));
    r.see("text", text("b"));
    r.see("same inode", stat("b").unwrap().st_ino == inode);
    r.see("the old one is still open", read(old, 10));
    r.see("missing", rename("a", "c"));
    mkdir("d").unwrap();
    mkdir("e").unwrap();
    r.see("directory over an empty one", rename("d", "e"));
    mkdir("d").unwrap();
    file("e/f", "");
    r.see(
        "directory over a full one",
        rename("d", "e").map_err(|e| matches!(e, Errno::ENOTEMPTY | Errno::EEXIST)),
    );
    r.see("file over directory", rename("b", "d"));
    r.see("directory over file", rename("d", "b"));
    r.see("into itself", rename("e", "e/sub"));
    r.see("onto its parent", rename("e/f", "e").map_err(|e| matches!(e, Errno::ENOTEMPTY | Errno::EISDIR)));
    r.see("to itself", rename("b", "b"));
    r.see("dot", rename(".", "x").map_err(|e| matches!(e, Errno::EBUSY | Errno::EINVAL)));
    r.see("file with a slash", rename("b", "z/"));
    std::fs::hard_link("b", "twin").unwrap();
    r.see("onto a link to the same file", (rename("b", "twin"), names(".")));
    r.see("into a directory", rename("b", "e/b"));
    r.see("directory moves", (mkdir("e/sub"), rename("e/sub", "sub")));
    r.see("its parent", stat("sub/..").unwrap().st_ino == stat(".").unwrap().st_ino);
    r.see("beneath a file", rename("twin", "e/f/x"));
    std::os::unix::fs::symlink("no", "link").unwrap();
    r.see("a link itself", (rename("link", "moved"), lstat("moved").map(|it| it.st_size)));
    r.see("names", (names("."), names("e")));
}

fn rename_flags(r: &mut Report) {
    let rename = |from: &str, to: &str, flags: u32| {
        sys!(SYS_renameat2, AT_FDCWD, c(from).as_ptr(), AT_FDCWD, c(to).as_ptr(), flags)
    };
    file("a", "a");
    file("b", "b");
    mkdir("d").unwrap();
    r.see("no replace", rename("a", "b", RENAME_NOREPLACE));
    r.see("no replace needed", rename("a", "c", RENAME_NOREPLACE));
    r.see("exchange", (rename("b", "c", RENAME_EXCHANGE), text("b"), text("c")));
    r.see("exchange with a directory", rename("b", "d", RENAME_EXCHANGE));
    r.see("types", (stat("b").unwrap().st_mode & S_IFMT == S_IFDIR, text("d")));
    r.see("exchange with nothing", rename("c", "no", RENAME_EXCHANGE));
    r.see("both", rename("c", "d", RENAME_EXCHANGE | RENAME_NOREPLACE));
    r.see("unknown", rename("c", "d", 64));
}

fn links(r: &mut Report) {
    file("f", "x");
    let link = |from: &str, to: &str| sys!(SYS_link, c(from).as_ptr(), c(to).as_ptr());
    r.see("link", link("f", "g"));
    r.see("count", stat("f").unwrap().st_nlink);
    r.see("one inode", stat("f").unwrap().st_ino == stat("g").unwrap().st_ino);
    r.see("exists", link("f", "g"));
    r.see("missing", link("no", "h"));
    mkdir("d").unwrap();
    r.see("directory", link("d", "h"));
    r.see("into nowhere", link("f", "no/h"));
    unlink("f").unwrap();
    r.see("after unlink", (stat("g").unwrap().st_nlink, text("g")));
    std::os::unix::fs::symlink("g", "s").unwrap();
    r.see("to a symbolic link", (link("s", "t"), lstat("t").unwrap().st_mode & S_IFMT == S_IFLNK));
    let follow = sys!(SYS_linkat, AT_FDCWD, c("s").as_ptr(), AT_FDCWD, c("u").as_ptr(), AT_SYMLINK_FOLLOW);
    r.see("followed", (follow, lstat("u").unwrap().st_mode & S_IFMT == S_IFREG));
    r.see("unlink a directory", unlink("d"));
    r.see("unlink twice", (unlink("u"), unlink("u")));
    r.see("unlink with a slash", unlink("g/"));
    r.see("unlink dot", unlink("."));
}

fn symlinks(r: &mut Report) {
    let link = |target: &str, path: &str| sys!(SYS_symlink, c(target).as_ptr(), c(path).as_ptr());
    let readlink = |path: &str, len: usize| {
        let mut buffer = vec![0u8; 100];
        let count = sys!(SYS_readlink, c(path).as_ptr(), buffer.as_mut_ptr(), len)?;
        Ok::<_, Errno>(String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    r.see("make", link("some/where", "l"));
    r.see("exists", link("x", "l"));
    r.see("empty target", link("", "e"));
    r.see("empty path", link("x", ""));
    r.see("read", readlink("l", 100));
    r.see("cut", readlink("l", 4));
    r.see("no room", readlink("l", 0));
    file("f", "text");
    r.see("read a file", readlink("f", 100));
    link("loop2", "loop1").unwrap();
    link("loop1", "loop2").unwrap();
    r.see("loop", open("loop1", O_RDONLY));
    link("f", "chain0").unwrap();
    for n in 0..40 {
        link(&format!("chain{n}"), &format!("chain{}", n + 1)).unwrap();
    }
    // Linux goes on counting when it has to walk a path once more, so a chain of 40 may fail there.
    r.see("chain of 20", text("chain19"));
    r.see("chain of 41", text("chain40"));
    mkdir("d").unwrap();
    file("d/f", "in d");
    link("d", "dir").unwrap();
    r.see("through a directory", text("dir/f"));
    r.see("with a slash", lstat("dir/").unwrap().st_mode & S_IFMT == S_IFDIR);
    r.see("without", lstat("dir").unwrap().st_mode & S_IFMT == S_IFLNK);
    link("../f", "d/up").unwrap();
    r.see("relative to its own directory", text("d/up"));
    r.see("dot dot after a link", text("dir/../f"));
    r.see("remove a link to a directory", (rmdir("dir"), unlink("dir")));
    link("f/", "slashed").unwrap();
    r.see("target with a slash", text("slashed"));
    r.see("mkdir over a dangling link", mkdir("l"));
    r.see("mode", format!("{:o}", lstat("l").unwrap().st_mode));
}

fn unlinked_files(r: &mut Report) {
    file("f", "still here");
    let f = fd("f", O_RDWR);
    unlink("f").unwrap();
    r.see("read", read(f, 20));
    r.see("links", fstat(f).map(|it| it.st_nlink));
    r.see("through /proc", text(&format!("/proc/self/fd/{f}")));
    let name = std::fs::read_link(format!("/proc/self/fd/{f}")).unwrap().display().to_string();
    r.see("its name", name.rsplit('/').next().map(str::to_owned));
    file("f", "new");
    r.see("another file of that name", (text("f"), fstat(f).unwrap().st_ino != stat("f").unwrap().st_ino));
}

/// An entry of getdents64(2): name, inode, type, offset.
fn entries(f: usize, len: usize) -> Result<Vec<(String, u64, u8, i64)>, Errno> {
    let mut all = Vec::new();
    loop {
        let mut buffer = vec![0u8; len];
        let count = sys!(SYS_getdents64, f, buffer.as_mut_ptr(), len)?;
        if count == 0 {
            return Ok(all);
        }
        let mut at = 0;
        while at < count {
            let word = |from: usize| u64::from_le_bytes(buffer[at + from..at + from + 8].try_into().unwrap());
            let record = usize::from(u16::from_le_bytes(buffer[at + 16..at + 18].try_into().unwrap()));
            let name = &buffer[at + 19..at + record];
            let name = &name[..name.iter().position(|&byte| byte == 0).unwrap()];
            all.push((String::from_utf8_lossy(name).into_owned(), word(0), buffer[at + 18], word(8) as i64));
            at += record;
        }
    }
}

fn listing(r: &mut Report) {
    mkdir("d").unwrap();
    for n in 0..300 {
        file(&format!("d/file-{n:03}"), "");
    }
    mkdir("d/sub").unwrap();
    std::os::unix::fs::symlink("x", "d/link").unwrap();
    sys!(SYS_mknod, c("d/fifo").as_ptr(), S_IFIFO | 0o600, 0).unwrap();
    let f = fd("d", O_RDONLY | O_DIRECTORY);
    let mut all = entries(f, 1000).unwrap();
    r.see("at the end", entries(f, 1000).map(|more| more.len()));
    let third = all[3].3;
    let after: Vec<String> = all[4..].iter().map(|entry| entry.0.clone()).collect();
    sys::seek(f, third, SEEK_SET).unwrap();
    let again: Vec<String> = entries(f, 32768).unwrap().into_iter().map(|entry| entry.0).collect();
    r.see("from a remembered place", again == after);
    sys::seek(f, 0, SEEK_SET).unwrap();
    r.see("rewound", entries(f, 32768).unwrap().len() == all.len());
    all.sort();
    r.see(
        "names",
        all.iter().map(|entry| &entry.0).filter(|name| !name.starts_with("file-1")).collect::<Vec<_>>(),
    );
    r.see("count", all.len());
    let kinds = all.iter().filter(|entry| !entry.0.starts_with("file-0") && !entry.0.starts_with("file-1"));
    r.see(
        "types",
        kinds.map(|entry| (&entry.0, entry.2)).filter(|it| !it.0.starts_with("file-2")).collect::<Vec<_>>(),
    );
    r.see(
        "inodes",
        all.iter()
            .filter(|entry| entry.0 != "..")
            .all(|entry| lstat(&format!("d/{}", entry.0)).unwrap().st_ino == entry.1),
    );
    r.see("small buffer", sys!(SYS_getdents64, fd("d", O_RDONLY), addr_of_buffer().as_mut_ptr(), 10));
    r.see("file", entries(fd("d/file-000", O_RDONLY), 1000));
    r.see("read a directory", read(f, 10).is_err());
    r.see("bad descriptor", entries(99, 1000));
    mkdir("gone").unwrap();
    let gone = fd("gone", O_RDONLY);
    rmdir("gone").unwrap();
    r.see("removed", entries(gone, 1000));
}

fn addr_of_buffer() -> [u8; 64] {
    [0; 64]
}

fn listing_while_changing(r: &mut Report) {
    mkdir("d").unwrap();
    for n in 0..200 {
        file(&format!("d/{n}"), "");
    }
    // rm -r: what is listed is removed before the next part of the listing is read.
    let f = fd("d", O_RDONLY);
    let mut buffer = vec![0u8; 512];
    let mut removed = 0;
    loop {
        let count = sys!(SYS_getdents64, f, buffer.as_mut_ptr(), buffer.len()).unwrap();
        if count == 0 {
            break;
        }
        let mut at = 0;
        while at < count {
            let record = usize::from(u16::from_le_bytes(buffer[at + 16..at + 18].try_into().unwrap()));
            let name = &buffer[at + 19..at + record];
            let name =
                String::from_utf8_lossy(&name[..name.iter().position(|&b| b == 0).unwrap()]).into_owned();
            if name != "." && name != ".." {
                unlink(&format!("d/{name}")).unwrap();
                removed += 1;
            }
            at += record;
        }
    }
    r.see("removed", removed);
    r.see("empty now", rmdir("d"));
}

fn working_directory(r: &mut Report) {
    let cwd = || std::env::current_dir().map(|it| it.file_name().unwrap().to_string_lossy().into_owned());
    let cwd = || cwd().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    mkdir("d").unwrap();
    mkdir("d/e").unwrap();
    r.see("change", (sys!(SYS_chdir, c("d/e").as_ptr()), cwd()));
    r.see("up", (sys!(SYS_chdir, c("..").as_ptr()), cwd()));
    file("f", "");
    r.see("file", sys!(SYS_chdir, c("f").as_ptr()));
    r.see("missing", sys!(SYS_chdir, c("no").as_ptr()));
    let e = fd("e", O_RDONLY | O_DIRECTORY);
    r.see("by descriptor", (sys!(SYS_fchdir, e), cwd()));
    r.see("by a file's descriptor", sys!(SYS_fchdir, fd("../f", O_RDONLY)));
    let mut small = [0u8; 4];
    r.see("small buffer", sys!(SYS_getcwd, small.as_mut_ptr(), small.len()));
    r.see("a child's own", sys::ends(|| sys!(SYS_chdir, c("/").as_ptr()).unwrap() as i32));
    r.see("unchanged", cwd());
    rename("../e", "../renamed").unwrap();
    r.see("renamed", cwd());
    rmdir("../renamed").unwrap();
    r.see("removed", cwd());
    r.see("create in it", open("x", O_CREAT | O_RDWR));
    r.see("dot", stat(".").map(|it| it.st_nlink));
    r.see("out of it", sys!(SYS_chdir, c("..").as_ptr()));
}

fn fifo(r: &mut Report) {
    r.see("make", sys!(SYS_mknod, c("p").as_ptr(), S_IFIFO | 0o644, 0));
    r.see("type", stat("p").unwrap().st_mode & S_IFMT == S_IFIFO);
    r.see("writer without reader", open("p", O_WRONLY | O_NONBLOCK).err());
    let reader = fd("p", O_RDONLY | O_NONBLOCK);
    r.see("read without writer", read(reader, 10));
    let writer = fd("p", O_WRONLY);
    r.see("empty", read(reader, 10));
    r.see("write", (sys::write(writer, b"hello"), read(reader, 10)));
    close(writer).unwrap();
    r.see("end", read(reader, 10));
    close(reader).unwrap();
    // Each waits in open(2) for the other.
    let pid = sys::child(|| {
        let writer = fd("p", O_WRONLY);
        i32::from(sys::write(writer, b"from the child").is_err())
    });
    sys::sleep_ms(10);
    let reader = fd("p", O_RDONLY);
    r.see("met", (read(reader, 20), sys::wait(pid)));
    r.see("end again", read(reader, 20));
}

fn proc_self(r: &mut Report) {
    let link = |path: &str| std::fs::read_link(path).map(|it| it.display().to_string()).ok();
    let last = |text: Option<String>| text.and_then(|it| it.rsplit('/').next().map(str::to_owned));
    r.see("exe", last(link("/proc/self/exe")));
    r.see("cwd", last(link("/proc/self/cwd")).map(|it| it.ends_with("-proc_self")));
    r.see("root", link("/proc/self/root"));
    r.see("self", link("/proc/self") == Some(sys::pid().to_string()));
    r.see("comm", text("/proc/self/comm"));
    r.see("cmdline ends", text("/proc/self/cmdline").map(|it| it.ends_with("guest-checks.proc_self.")));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|it| it.strip_prefix(name))
            .map(|it| it.trim_start_matches(':').trim().to_owned())
    };
    r.see("Name", field("Name"));
    r.see("Pid", field("Pid") == Some(sys::pid().to_string()));
    r.see("Threads", field("Threads"));
    r.see("Umask", field("Umask"));
    r.see("VmRSS is there", field("VmRSS").is_some());
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    r.see("fields of stat", stat.split_whitespace().count());
    r.see("state", stat.split_whitespace().nth(2).map(str::to_owned));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    r.see("stack", maps.contains("[stack]"));
    r.see("program", maps.lines().any(|line| line.contains("r-xp") && line.ends_with("guest-checks")));
    let f = fd("/dev/null", O_RDONLY);
    r.see("descriptor", link(&format!("/proc/self/fd/{f}")));
    r.see(
        "fdinfo",
        std::fs::read_to_string(format!("/proc/self/fdinfo/{f}")).is_ok_and(|it| it.contains("flags:")),
    );
    r.see("environ", std::fs::read("/proc/self/environ").is_ok());
    r.see("no such process", open("/proc/4194305/stat", O_RDONLY));
    r.see("mounts", std::fs::read_to_string("/proc/self/mounts").is_ok_and(|it| it.contains(" / ")));
    r.see("thread", std::fs::read_dir("/proc/self/task").unwrap().count());
    for path in
        ["/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/version"]
    {
        r.see(path, text(path).is_ok_and(|it| !it.is_empty()));
    }
    r.see("write to a read-only file", open("/proc/uptime", O_WRONLY).is_ok());
}

fn root_listing(r: &mut Report) {
    let all = names("/");
    for name in ["bin", "dev", "etc", "lib", "proc", "root", "tmp", "usr", "var"] {
        r.see(name, all.iter().any(|it| it == name));
    }
    r.see("tmp", format!("{:o}", stat("/tmp").unwrap().st_mode));
    r.see("dot dot of the root", names("/..") == all);
}

fn openat2_resolve(r: &mut Report) {
    mkdir("d").unwrap();
    file("d/f", "x");
    file("out", "x");
    std::os::unix::fs::symlink("/", "d/root").unwrap();
    std::os::unix::fs::symlink("../out", "d/up").unwrap();
    let d = fd("d", O_RDONLY | O_DIRECTORY);
    let try_open = |path: &str, resolve: u64| {
        let how: [u64; 3] = [O_RDONLY as u64, 0, resolve];
        sys!(SYS_openat2, d, c(path).as_ptr(), how.as_ptr(), 24).map(close)
    };
    for (name, resolve) in [
        ("beneath", RESOLVE_BENEATH),
        ("in root", RESOLVE_IN_ROOT),
        ("no links", RESOLVE_NO_SYMLINKS),
        ("no magic", RESOLVE_NO_MAGICLINKS),
    ] {
        for path in ["f", "../out", "up", "root", "/", "/f"] {
            r.see(format!("{name} {path}"), try_open(path, resolve));
        }
    }
    r.see("unknown bit", try_open("f", 1 << 40));
    r.see("small structure", sys!(SYS_openat2, d, c("f").as_ptr(), [0u64; 2].as_ptr(), 16));
}
