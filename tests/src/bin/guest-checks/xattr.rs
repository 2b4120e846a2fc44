//! Extended attributes.

use libc::*;

use crate::sys::{self, Answer, c, fd, file, open, pipe, sys};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("xattr", user_attributes),
    ("xattr_errors", errors),
    ("xattr_sizes", sizes),
    ("xattr_kinds", kinds_of_files),
    ("xattr_namespaces", namespaces),
    ("xattr_rights", rights),
];

fn set(path: &str, name: &str, value: &[u8], flags: i32) -> Answer {
    sys!(SYS_setxattr, c(path).as_ptr(), c(name).as_ptr(), value.as_ptr(), value.len(), flags)
}

fn get(path: &str, name: &str) -> Result<String, sys::Errno> {
    let mut bytes = vec![0u8; 4096];
    let len = sys!(SYS_getxattr, c(path).as_ptr(), c(name).as_ptr(), bytes.as_mut_ptr(), bytes.len())?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

fn remove(path: &str, name: &str) -> Answer {
    sys!(SYS_removexattr, c(path).as_ptr(), c(name).as_ptr())
}

/// The names in order: file systems differ in that. What a security module adds is left out.
fn list(path: &str) -> Result<Vec<String>, sys::Errno> {
    let mut bytes = vec![0u8; 4096];
    let len = sys!(SYS_listxattr, c(path).as_ptr(), bytes.as_mut_ptr(), bytes.len())?;
    let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
    let mut names: Vec<String> =
        text.split_terminator('\0').filter(|name| *name != "security.selinux").map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

fn user_attributes(r: &mut Report) {
    file("f", "x");
    r.see("none", (get("f", "user.a"), list("f")));
    r.see("set", set("f", "user.a", b"one", 0));
    r.see("get", get("f", "user.a"));
    r.see("again", (set("f", "user.a", b"longer than before", 0), get("f", "user.a")));
    r.see("create", set("f", "user.a", b"x", XATTR_CREATE));
    r.see("create another", set("f", "user.b", b"", XATTR_CREATE));
    r.see("empty", get("f", "user.b"));
    r.see("replace", (set("f", "user.b", b"two", XATTR_REPLACE), get("f", "user.b")));
    r.see("replace none", set("f", "user.c", b"x", XATTR_REPLACE));
    r.see("both", set("f", "user.a", b"x", XATTR_CREATE | XATTR_REPLACE));
    r.see("both of none", set("f", "user.c", b"x", XATTR_CREATE | XATTR_REPLACE));
    r.see("list", list("f"));
    r.see("capital letters", (set("f", "user.A", b"capital", 0), get("f", "user.A"), get("f", "user.a")));
    r.see("dots", (set("f", "user.a.b.c", b"dots", 0), get("f", "user.a.b.c")));
    r.see("remove", (remove("f", "user.a"), get("f", "user.a"), remove("f", "user.a")));
    std::fs::rename("f", "g").unwrap();
    r.see("renamed", list("g"));
    std::fs::hard_link("g", "h").unwrap();
    r.see("linked", get("h", "user.b"));
    std::fs::copy("g", "copy").unwrap();
    r.see("a copy has none", list("copy"));
    file("g", "written anew");
    r.see("written", get("g", "user.b"));
    let open_file = fd("g", O_RDONLY);
    let name = c("user.fd");
    r.see("by descriptor", sys!(SYS_fsetxattr, open_file, name.as_ptr(), c"v".as_ptr(), 1, 0));
    let mut byte = [0u8; 1];
    r.see("read", (sys!(SYS_fgetxattr, open_file, name.as_ptr(), byte.as_mut_ptr(), 1), byte[0]));
    r.see("listed", sys!(SYS_flistxattr, open_file, 0, 0).is_ok_and(|len| len >= 8));
    r.see("removed", sys!(SYS_fremovexattr, open_file, name.as_ptr()));
    r.see("by another", get("h", "user.fd"));
}

fn errors(r: &mut Report) {
    file("f", "x");
    set("f", "user.a", b"one", 0).unwrap();
    let (path, name) = (c("f"), c("user.a"));
    r.see("no file", (set("none", "user.a", b"x", 0), get("none", "user.a")));
    r.see("no file to list", (list("none"), remove("none", "user.a")));
    r.see("unknown flag", set("f", "user.a", b"x", 4));
    r.see("no name", (set("f", "", b"x", 0), get("f", ""), remove("f", "")));
    r.see("no namespace", (set("f", "name", b"x", 0), get("f", "name"), remove("f", "name")));
    r.see("a namespace alone", (set("f", "user.", b"x", 0), get("f", "user."), remove("f", "user.")));
    r.see("unknown namespace", (set("f", "other.a", b"x", 0), get("f", "other.a")));
    let longest = format!("user.{}", "n".repeat(250));
    r.see("longest name", (set("f", &longest, b"x", 0), get("f", &longest)));
    let too_long = format!("user.{}", "n".repeat(251));
    r.see("too long", (set("f", &too_long, b"x", 0), get("f", &too_long), remove("f", &too_long)));
    r.see("bad name", sys!(SYS_getxattr, path.as_ptr(), 1, 0, 0));
    r.see("bad path", sys!(SYS_getxattr, 1, name.as_ptr(), 0, 0));
    r.see("bad value", sys!(SYS_setxattr, path.as_ptr(), name.as_ptr(), 1, 5, 0));
    r.see("bad value of no length", sys!(SYS_setxattr, path.as_ptr(), name.as_ptr(), 1, 0, 0));
    set("f", "user.a", b"one", 0).unwrap();
    r.see("bad buffer", sys!(SYS_getxattr, path.as_ptr(), name.as_ptr(), 1, 100));
    r.see("bad buffer to list", sys!(SYS_listxattr, path.as_ptr(), 1, 1000));
    r.see("closed descriptor", sys!(SYS_fgetxattr, 99, name.as_ptr(), 0, 0));
    r.see("closed descriptor to list", sys!(SYS_flistxattr, 99, 0, 0));
    let path_only = fd("f", O_PATH);
    r.see("path only", sys!(SYS_fgetxattr, path_only, name.as_ptr(), 0, 0));
    r.see("path only, set", sys!(SYS_fsetxattr, path_only, name.as_ptr(), 0, 0, 0));
    r.see("path only, remove", sys!(SYS_fremovexattr, path_only, name.as_ptr()));
    r.see("path only, list", sys!(SYS_flistxattr, path_only, 0, 0));
}

fn sizes(r: &mut Report) {
    file("f", "x");
    let (path, name) = (c("f"), c("user.a"));
    set("f", "user.a", b"twelve bytes", 0).unwrap();
    let ask = |len: usize| {
        let mut bytes = [b'-'; 32];
        let answer = sys!(SYS_getxattr, path.as_ptr(), name.as_ptr(), bytes.as_mut_ptr(), len);
        (answer, String::from_utf8_lossy(&bytes).into_owned())
    };
    for len in [0, 1, 11, 12, 13, 32] {
        r.see(format_args!("value into {len}"), ask(len));
    }
    let list_into = |len: usize| {
        let mut bytes = [b'-'; 32];
        sys!(SYS_listxattr, path.as_ptr(), bytes.as_mut_ptr(), len)
    };
    r.see("names", [0, 1, 6, 7, 8, 32].map(list_into));
    let big = vec![b'b'; 2000];
    r.see("2000 bytes", (set("f", "user.big", &big, 0), get("f", "user.big").map(|value| value.len())));
    let huge = vec![0u8; 65_537];
    r.see("too large", set("f", "user.big", &huge, 0));
    r.see("much too large", sys!(SYS_setxattr, path.as_ptr(), name.as_ptr(), huge.as_ptr(), usize::MAX, 0));
    r.see("still there", get("f", "user.big").map(|value| value.len()));
    r.see("bytes of any kind", (set("f", "user.bin", &[0, 1, 255, 0], 0), ask(32).0));
}

fn kinds_of_files(r: &mut Report) {
    file("f", "x");
    sys!(SYS_mkdir, c("dir").as_ptr(), 0o755).unwrap();
    sys!(SYS_symlink, c("f").as_ptr(), c("link").as_ptr()).unwrap();
    sys!(SYS_mknod, c("fifo").as_ptr(), S_IFIFO | 0o644, 0).unwrap();
    r.see("directory", (set("dir", "user.a", b"d", 0), get("dir", "user.a"), list("dir")));
    r.see("through a link", (set("link", "user.a", b"f", 0), get("f", "user.a")));
    let (link, name) = (c("link"), c("user.a"));
    r.see("the link", sys!(SYS_lsetxattr, link.as_ptr(), name.as_ptr(), c"x".as_ptr(), 1, 0));
    r.see("of the link", sys!(SYS_lgetxattr, link.as_ptr(), name.as_ptr(), 0, 0));
    r.see("from the link", sys!(SYS_lremovexattr, link.as_ptr(), name.as_ptr()));
    r.see("in the link", sys!(SYS_llistxattr, link.as_ptr(), 0, 0));
    r.see("fifo", (set("fifo", "user.a", b"x", 0), get("fifo", "user.a"), remove("fifo", "user.a")));
    let (reader, _) = pipe(0);
    r.see("pipe", sys!(SYS_fsetxattr, reader, name.as_ptr(), c"x".as_ptr(), 1, 0));
    r.see("of a pipe", sys!(SYS_fgetxattr, reader, name.as_ptr(), 0, 0));
    r.see("proc", (set("/proc/version", "user.a", b"x", 0), get("/proc/version", "user.a")));
    r.see("device", (set("/dev/null", "user.a", b"x", 0), get("/dev/null", "user.a")));
    r.see("not a directory", get("f/x", "user.a"));
    let gone = open("gone", O_RDWR | O_CREAT).unwrap();
    std::fs::remove_file("gone").unwrap();
    r.see("removed", sys!(SYS_fsetxattr, gone, name.as_ptr(), c"x".as_ptr(), 1, 0));
    r.see("of a removed file", sys!(SYS_fgetxattr, gone, name.as_ptr(), 0, 0));
}

/// The user of the checks may be the superuser or not: the answers are the same natively.
fn namespaces(r: &mut Report) {
    file("f", "x");
    r.see("trusted", (set("f", "trusted.a", b"t", 0), get("f", "trusted.a"), list("f")));
    r.see("trusted alone", set("f", "trusted.", b"t", 0));
    r.see("security", (set("f", "security.other", b"s", 0), get("f", "security.other"), list("f")));
    r.see("remove security", (remove("f", "security.other"), get("f", "security.other")));
    r.see("no security", get("f", "security.none"));
    r.see("capabilities, none", get("f", "security.capability").err());
    r.see("capabilities, odd", set("f", "security.capability", b"odd", 0));
    let mut capability = [0u8; 20];
    capability[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    capability[4] = 1;
    r.see("capabilities", set("f", "security.capability", &capability, 0));
    let path = c("f");
    let name = c("security.capability");
    r.see("length", sys!(SYS_getxattr, path.as_ptr(), name.as_ptr(), 0, 0));
    r.see("trusted of a link", {
        sys!(SYS_symlink, c("f").as_ptr(), c("link").as_ptr()).unwrap();
        let (link, name) = (c("link"), c("trusted.l"));
        sys!(SYS_lsetxattr, link.as_ptr(), name.as_ptr(), c"x".as_ptr(), 1, 0)
    });
    r.see("system", set("f", "system.other", b"x", 0));
}

fn rights(r: &mut Report) {
    file("f", "x");
    set("f", "user.a", b"one", 0).unwrap();
    sys!(SYS_mkdir, c("sticky").as_ptr(), 0o1777).unwrap();
    sys!(SYS_chmod, c("sticky").as_ptr(), 0o1777).unwrap();
    sys!(SYS_chmod, c(".").as_ptr(), 0o755).unwrap();
    let as_another = |body: &dyn Fn() -> Result<(), sys::Errno>| {
        sys::ends(|| {
            if sys!(SYS_getuid) == Ok(0) {
                sys!(SYS_setresgid, 1234, 1234, 1234).unwrap();
                sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
            }
            body().map_or_else(|errno| errno as i32, |()| 0)
        })
    };
    sys!(SYS_chmod, c("f").as_ptr(), 0o644).unwrap();
    r.see("others read", as_another(&|| get("f", "user.a").map(drop)));
    if sys!(SYS_getuid) != Ok(0) {
        return;
    }
    r.see("others write", as_another(&|| set("f", "user.a", b"x", 0).map(drop)));
    r.see("others remove", as_another(&|| remove("f", "user.a").map(drop)));
    r.see("others list", as_another(&|| list("f").map(drop)));
    sys!(SYS_chmod, c("f").as_ptr(), 0o600).unwrap();
    r.see("others may not read", as_another(&|| get("f", "user.a").map(drop)));
    r.see("but list", as_another(&|| list("f").map(drop)));
    sys!(SYS_chmod, c("f").as_ptr(), 0o606).unwrap();
    r.see("others may write", as_another(&|| set("f", "user.a", b"x", 0).map(drop)));
    r.see("trusted", as_another(&|| set("f", "trusted.a", b"x", 0).map(drop)));
    set("f", "trusted.a", b"x", 0).unwrap();
    r.see("trusted is hidden", as_another(&|| get("f", "trusted.a").map(drop)));
    r.see(
        "trusted is not listed",
        as_another(&|| if list("f")? == ["user.a"] { Ok(()) } else { Err(sys::Errno::EBADMSG) }),
    );
    r.see("security", as_another(&|| set("f", "security.a", b"x", 0).map(drop)));
    r.see("sticky directory", as_another(&|| set("sticky", "user.a", b"x", 0).map(drop)));
    sys!(SYS_chmod, c("sticky").as_ptr(), 0o777).unwrap();
    r.see("no longer sticky", as_another(&|| set("sticky", "user.a", b"x", 0).map(drop)));
}
