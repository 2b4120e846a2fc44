//! Who and where: credentials, limits, names, random numbers.

use libc::*;

use crate::sys::{self, Errno, sys, zeroed};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("credentials", credentials),
    ("credentials_of_nobody", credentials_of_nobody),
    ("uname", unames),
    ("limits", limits),
    ("getrandom", getrandoms),
    ("sysinfo", sysinfos),
    ("absent_calls", absent_calls),
    ("statfs", statfss),
];

fn credentials(r: &mut Report) {
    // SAFETY: this call only answers.
    if unsafe { geteuid() } != 0 {
        return;
    }
    r.see(
        "all three",
        sys::ends(|| {
            sys!(SYS_setresuid, 1, 2, 3).unwrap();
            let mut ids = [0u32; 3];
            sys!(SYS_getresuid, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2]).unwrap();
            i32::from(ids != [1, 2, 3])
        }),
    );
    r.see(
        "leave as it is",
        sys::ends(|| {
            sys!(SYS_setresuid, -1i64, 2, -1i64).unwrap();
            let mut ids = [0u32; 3];
            sys!(SYS_getresuid, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2]).unwrap();
            i32::from(ids != [0, 2, 0])
        }),
    );
    r.see(
        "for good",
        sys::ends(|| {
            sys!(SYS_setuid, 1234).unwrap();
            i32::from(
                sys!(SYS_setuid, 0) != Err(Errno::EPERM) || sys!(SYS_setresuid, 0, 0, 0) != Err(Errno::EPERM),
            )
        }),
    );
    r.see(
        "there and back",
        sys::ends(|| {
            sys!(SYS_setresuid, -1i64, 1234, 0).unwrap();
            let denied = sys!(SYS_setgroups, 0, 0) == Err(Errno::EPERM);
            let back = sys!(SYS_setresuid, -1i64, 0, -1i64).is_ok();
            i32::from(!denied || !back)
        }),
    );
    r.see(
        "groups",
        sys::ends(|| {
            let groups = [5u32, 6, 7];
            sys!(SYS_setgroups, 3, groups.as_ptr()).unwrap();
            let mut found = [0u32; 8];
            let count = sys!(SYS_getgroups, 8, found.as_mut_ptr()).unwrap();
            let small = sys!(SYS_getgroups, 1, found.as_mut_ptr()) == Err(Errno::EINVAL);
            let size = sys!(SYS_getgroups, 0, 0) == Ok(3);
            i32::from(found[..count] != groups || !small || !size)
        }),
    );
    r.see(
        "a group's file",
        sys::ends(|| {
            sys::file("f", "x");
            sys!(SYS_chmod, c".".as_ptr(), 0o755).unwrap();
            sys!(SYS_chown, c"f".as_ptr(), 0, 77).unwrap();
            sys!(SYS_chmod, c"f".as_ptr(), 0o640).unwrap();
            sys!(SYS_setgroups, 1, [77u32].as_ptr()).unwrap();
            sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
            let reads = sys::open("f", O_RDONLY).is_ok();
            let writes = sys::open("f", O_WRONLY).is_ok();
            i32::from(reads) + 2 * i32::from(writes)
        }),
    );
    r.see(
        "capabilities go with root",
        sys::ends(|| {
            sys!(SYS_setresuid, 1234, 1234, 1234).unwrap();
            let header: [u32; 2] = [0x2008_0522, 0];
            let mut data = [0xffu32; 6];
            sys!(SYS_capget, header.as_ptr(), data.as_mut_ptr()).unwrap();
            i32::from(data[0] != 0 || data[3] != 0)
        }),
    );
}

fn credentials_of_nobody(r: &mut Report) {
    let denied = |call: &dyn Fn() -> sys::Answer| {
        sys::ends(|| {
            let _ = sys!(SYS_setresgid, 1234, 1234, 1234);
            let _ = sys!(SYS_setresuid, 1234, 1234, 1234);
            call().map_or_else(|errno| errno as i32, |_| 0)
        })
    };
    r.see("setuid", denied(&|| sys!(SYS_setuid, 1)));
    r.see("setgid", denied(&|| sys!(SYS_setgid, 1)));
    r.see("setgroups", denied(&|| sys!(SYS_setgroups, 0, 0)));
    r.see("chroot", denied(&|| sys!(SYS_chroot, c"/".as_ptr())));
    r.see("sethostname", denied(&|| sys!(SYS_sethostname, c"x".as_ptr(), 1)));
    r.see("clock_settime", denied(&|| sys!(SYS_clock_settime, CLOCK_REALTIME, [0i64; 2].as_ptr())));
    r.see(
        "raise a limit",
        denied(&|| {
            let lower = rlimit { rlim_cur: 10, rlim_max: 10 };
            sys!(SYS_setrlimit, RLIMIT_CORE, &raw const lower).unwrap();
            let higher = rlimit { rlim_cur: 10, rlim_max: 20 };
            sys!(SYS_setrlimit, RLIMIT_CORE, &raw const higher)
        }),
    );
    r.see("own uid is allowed", denied(&|| sys!(SYS_setuid, 1234)));
    r.see(
        "mknod of a device",
        denied(&|| sys!(SYS_mknod, c"/tmp/guest-checks-device".as_ptr(), S_IFCHR | 0o666, 0x103)),
    );
}

fn unames(r: &mut Report) {
    let mut names: utsname = zeroed();
    r.see("answer", sys!(SYS_uname, &raw mut names));
    let text = |bytes: &[c_char]| {
        bytes.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8 as char).collect::<String>()
    };
    r.see("system, machine", (text(&names.sysname), text(&names.machine)));
    let release = text(&names.release);
    let major = release.split('.').next().and_then(|it| it.parse::<u32>().ok());
    r.ensure("release", major.is_some_and(|major| major >= 3));
    r.see(
        "host name in /proc",
        sys::text("/proc/sys/kernel/hostname") == Ok(format!("{}\n", text(&names.nodename))),
    );
    r.see("release in /proc", sys::text("/proc/sys/kernel/osrelease") == Ok(format!("{release}\n")));
    r.see("bad address", sys!(SYS_uname, 8));
}

fn limits(r: &mut Report) {
    for kind in 0..16 {
        let mut limit: rlimit = zeroed();
        let answer = sys!(SYS_prlimit64, 0, kind, 0, &raw mut limit);
        r.see(kind, (answer, limit.rlim_cur <= limit.rlim_max));
    }
    r.see("unknown", sys!(SYS_prlimit64, 0, 16, 0, 0));
    let wrong = rlimit { rlim_cur: 10, rlim_max: 5 };
    r.see("soft above hard", sys!(SYS_setrlimit, RLIMIT_CORE, &raw const wrong));
    let limit = rlimit { rlim_cur: 3, rlim_max: 9 };
    let mut found: rlimit = zeroed();
    r.see(
        "set",
        (
            sys!(SYS_prlimit64, 0, RLIMIT_CORE, &raw const limit, 0),
            sys!(SYS_getrlimit, RLIMIT_CORE, &raw mut found),
            found.rlim_cur,
            found.rlim_max,
        ),
    );
    r.see(
        "inherited",
        sys::ends(|| {
            let mut found: rlimit = zeroed();
            sys!(SYS_getrlimit, RLIMIT_CORE, &raw mut found).unwrap();
            found.rlim_max as i32
        }),
    );
    r.see(
        "file size",
        sys::ends(|| {
            // SAFETY: no handler.
            unsafe { signal(SIGXFSZ, SIG_IGN) };
            let limit = rlimit { rlim_cur: 100, rlim_max: 100 };
            sys!(SYS_setrlimit, RLIMIT_FSIZE, &raw const limit).unwrap();
            let f = sys::fd("f", O_RDWR | O_CREAT);
            let short = sys::write(f, &[0; 200]) == Ok(100);
            let none = sys::write(f, b"x") == Err(Errno::EFBIG);
            let grow = sys!(SYS_ftruncate, f, 101) == Err(Errno::EFBIG);
            i32::from(short) + 2 * i32::from(none) + 4 * i32::from(grow)
        }),
    );
    r.see(
        "processor time",
        sys::ends(|| {
            let limit = rlimit { rlim_cur: 1, rlim_max: 2 };
            sys!(SYS_setrlimit, RLIMIT_CPU, &raw const limit).unwrap();
            let none = rlimit { rlim_cur: 0, rlim_max: 0 };
            sys!(SYS_setrlimit, RLIMIT_CORE, &raw const none).unwrap();
            loop {
                std::hint::spin_loop();
            }
        }),
    );
}

fn getrandoms(r: &mut Report) {
    let (mut one, mut two) = ([0u8; 32], [0u8; 32]);
    r.see("answer", sys!(SYS_getrandom, one.as_mut_ptr(), 32, 0));
    sys!(SYS_getrandom, two.as_mut_ptr(), 32, GRND_NONBLOCK).unwrap();
    r.ensure("differs", one != two && one != [0; 32]);
    let mut large = vec![0u8; 100_000];
    r.see("large", sys!(SYS_getrandom, large.as_mut_ptr(), large.len(), 0));
    r.ensure("to the end", large[99_900..].iter().any(|&byte| byte != 0));
    r.see("nothing", sys!(SYS_getrandom, 0, 0, 0));
    r.see("bad flags", sys!(SYS_getrandom, one.as_mut_ptr(), 32, 0x100));
    r.see("bad address", sys!(SYS_getrandom, 8, 32, 0));
    let bytes = |limit: usize| large[..limit].iter().map(|byte| byte.count_ones()).sum::<u32>();
    r.ensure("half of the bits are set", (390_000..410_000).contains(&bytes(100_000)));
    r.see("a child draws others", {
        let (reader, writer) = sys::pipe(0);
        let draw = || {
            let mut bytes = [0u8; 8];
            sys!(SYS_getrandom, bytes.as_mut_ptr(), 8, 0).unwrap();
            bytes
        };
        let pid = sys::child(|| {
            sys::write(writer, &draw()).unwrap();
            0
        });
        let own = draw();
        let mut other = [0u8; 8];
        sys!(SYS_read, reader, other.as_mut_ptr(), 8).unwrap();
        (own != other, sys::wait(pid))
    });
}

fn sysinfos(r: &mut Report) {
    let mut it: sysinfo = zeroed();
    r.see("answer", sys!(SYS_sysinfo, &raw mut it));
    r.ensure("memory", it.totalram > 0 && it.freeram <= it.totalram && it.mem_unit > 0);
    r.ensure("uptime", it.uptime >= 0);
    let mut mask = [0u64; 128];
    r.see("affinity", sys!(SYS_sched_getaffinity, 0, 1024, mask.as_mut_ptr()).is_ok_and(|len| len >= 8));
    r.ensure("a processor", mask.iter().any(|&word| word != 0));
    r.see("affinity, small", sys!(SYS_sched_getaffinity, 0, 1, mask.as_mut_ptr()));
}

fn absent_calls(r: &mut Report) {
    r.see("no such call", (sys!(1_000), sys!(0x7fff_ffff), sys!(-1i64)));
    r.see("x32", sys!(0x4000_0000));
}

fn statfss(r: &mut Report) {
    let mut it: statfs = zeroed();
    r.see("answer", sys!(SYS_statfs, c"/".as_ptr(), &raw mut it));
    r.ensure(
        "numbers",
        it.f_bsize > 0 && it.f_blocks > 0 && it.f_bfree <= it.f_blocks && it.f_namelen == 255,
    );
    r.see("missing", sys!(SYS_statfs, c"/no/such".as_ptr(), &raw mut it));
    r.see("of /proc", (sys!(SYS_statfs, c"/proc".as_ptr(), &raw mut it), it.f_type == 0x9fa0));
    r.see("of a pipe", sys!(SYS_fstatfs, sys::pipe(0).0, &raw mut it));
}
