//! Capability sets: capset, ambient and bounding set, securebits (capabilities(7)).

use libc::*;

use crate::settings::{NOBODY, become_user, prctl};
use crate::sys::{self, Answer, Errno, sys};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("securebits", securebits),
    ("ambient_capabilities", ambient_capabilities),
    ("kept_capabilities", kept_capabilities),
    ("capability_header", capability_header),
];

fn securebits(r: &mut Report) {
    let get = || prctl([PR_GET_SECUREBITS as usize, 0, 0, 0, 0]);
    let set = |bits: usize| prctl([PR_SET_SECUREBITS as usize, bits, 0, 0, 0]);
    let keep = |value: usize| prctl([PR_SET_KEEPCAPS as usize, value, 0, 0, 0]);
    let keeps = || prctl([PR_GET_KEEPCAPS as usize, 0, 0, 0, 0]);
    r.see("first", (get(), keeps()));
    r.see("keep", (keep(1), get(), keeps(), keep(2), keep(0), get()));
    r.see("set", (set(0x10), keeps(), set(0x40), get()));
    r.see("no bits", (set(1 << 20), set(1 << 40)));
    r.see("lock", (set(0x20), keep(1), keep(0), set(0x30), set(0)));
    r.see(
        "user",
        sys::ends(|| {
            become_user();
            set(0x20).map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
}

fn ambient(operation: c_int, capability: usize) -> Answer {
    prctl([PR_CAP_AMBIENT as usize, operation as usize, capability, 0, 0])
}

/// The lines of `/proc/self/status` about capabilities, of the sets that a check has changed.
fn capability_lines(wanted: &[&str]) -> Vec<String> {
    let text = sys::text("/proc/self/status").unwrap_or_default();
    text.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

/// Makes a capability inheritable, by capset(2).
fn inherit(capability: u32) -> Answer {
    let head: [u32; 2] = [0x2008_0522, 0];
    let mut data = [0u32; 6];
    sys!(SYS_capget, head.as_ptr(), data.as_mut_ptr())?;
    data[(capability / 32 * 3 + 2) as usize] |= 1 << (capability % 32);
    sys!(SYS_capset, head.as_ptr(), data.as_ptr())
}

fn ambient_capabilities(r: &mut Report) {
    const NET_RAW: u32 = 13;
    let number = NET_RAW as usize;
    r.see("not inheritable", ambient(PR_CAP_AMBIENT_RAISE, number));
    r.see("inheritable", inherit(NET_RAW));
    r.see("raised", (ambient(PR_CAP_AMBIENT_RAISE, number), ambient(PR_CAP_AMBIENT_IS_SET, number)));
    r.see("in /proc", capability_lines(&["CapInh", "CapAmb"]));
    r.see("inherited", sys::ends(|| ambient(PR_CAP_AMBIENT_IS_SET, number).unwrap_or(9) as i32));
    r.see("lowered", (ambient(PR_CAP_AMBIENT_LOWER, number), ambient(PR_CAP_AMBIENT_IS_SET, number)));
    r.see("no capability", (ambient(PR_CAP_AMBIENT_RAISE, 63), ambient(PR_CAP_AMBIENT_IS_SET, 64)));
    r.see("no operation", (ambient(0, number), ambient(5, number)));
    r.see("clear", (ambient(PR_CAP_AMBIENT_CLEAR_ALL, 0), ambient(PR_CAP_AMBIENT_CLEAR_ALL, 1)));
    r.see("more arguments", prctl([PR_CAP_AMBIENT as usize, 1, number, 1, 0]));
    ambient(PR_CAP_AMBIENT_RAISE, number).unwrap();
    r.see(
        "gone with root",
        sys::ends(|| {
            become_user();
            ambient(PR_CAP_AMBIENT_IS_SET, number).unwrap_or(9) as i32
        }),
    );
    let bound = |option: c_int, capability: usize| prctl([option as usize, capability, 0, 0, 0]);
    r.see("bounds", (bound(PR_CAPBSET_READ, number), bound(PR_CAPBSET_READ, 63)));
    r.see(
        "bounds: dropped",
        sys::ends(|| {
            let answers =
                (bound(PR_CAPBSET_DROP, number), bound(PR_CAPBSET_READ, number), bound(PR_CAPBSET_DROP, 63));
            i32::from(answers != (Ok(0), Ok(0), Err(Errno::EINVAL)))
        }),
    );
    r.see(
        "bounds: a user",
        sys::ends(|| {
            become_user();
            bound(PR_CAPBSET_DROP, number).map_or_else(|errno| errno as i32, |_| 0)
        }),
    );
}

fn kept_capabilities(r: &mut Report) {
    let after = |bits: usize| {
        sys::ends(|| {
            prctl([PR_SET_SECUREBITS as usize, bits, 0, 0, 0]).unwrap();
            become_user();
            let lines = capability_lines(&["CapPrm", "CapEff"]);
            let holds = |at: usize| !lines[at].ends_with("0000000000000000");
            i32::from(holds(0)) + 2 * i32::from(holds(1))
        })
    };
    r.see("as usual", after(0));
    r.see("kept", after(0x10));
    r.see("left alone", after(0x04));
}

fn capability_header(r: &mut Report) {
    let mut data = [0u32; 6];
    let mut get = |version: u32, pid: i32| {
        let head = [version, pid as u32];
        let answer = sys!(SYS_capget, head.as_ptr(), data.as_mut_ptr());
        (answer, format!("{:#x}", head[0]))
    };
    r.see("self", get(0x2008_0522, 0).0);
    r.see("by number", get(0x2008_0522, sys::pid()).0);
    r.see("nobody", get(0x2008_0522, NOBODY));
    r.see("negative", get(0x2008_0522, -1));
    let set = |pid: i32| {
        let head = [0x2008_0522u32, pid as u32];
        let mut data = [0u32; 6];
        sys!(SYS_capget, [0x2008_0522u32, 0].as_ptr(), data.as_mut_ptr())?;
        sys!(SYS_capset, head.as_ptr(), data.as_ptr())
    };
    r.see("set of itself", (set(0), set(sys::pid())));
    r.see("set of others", (set(NOBODY), set(-1)));
    let more = |at: usize| {
        sys::ends(|| {
            become_user();
            let head = [0x2008_0522u32, 0];
            let mut data = [0u32; 6];
            data[at] = 1;
            sys!(SYS_capset, head.as_ptr(), data.as_ptr()).map_or_else(|errno| errno as i32, |_| 0)
        })
    };
    r.see("user: more", (more(0), more(1), more(2)));
}
