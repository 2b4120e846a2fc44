//! Files of `/proc` about processes and settings, as far as they are the same on any machine.

use libc::*;

use crate::sys::{self, Answer, Errno, c, close, fd, fstat, open, read, stat, sys, text, write};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("proc_namespaces", namespaces),
    ("proc_small_files", small_files),
    ("proc_comm", comm),
    ("proc_smaps", smaps),
    ("proc_fdinfo", fdinfo),
    ("proc_directory_as_pidfd", directory_as_pidfd),
    ("proc_settings", settings),
    ("proc_counters", counters),
];

/// Text with all runs of digits that are one number replaced.
fn without_numbers(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        match letter {
            '0'..='9' if shown.ends_with('#') => {}
            '0'..='9' => shown.push('#'),
            other => shown.push(other),
        }
    }
    shown
}

fn link(path: &str) -> Result<String, Errno> {
    let mut buffer = [0u8; 100];
    let count = sys!(SYS_readlink, c(path).as_ptr(), buffer.as_mut_ptr(), buffer.len())?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

fn namespaces(r: &mut Report) {
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts", "time", "none"] {
        let path = format!("/proc/self/ns/{name}");
        let shown = link(&path);
        r.see(name, shown.as_ref().map(|text| without_numbers(text)));
        let number = stat(&path).map(|it| (it.st_ino, it.st_mode));
        let expected = number.map(|(ino, mode)| (Some(ino.to_string()), format!("{mode:o}")));
        let told = shown.ok().and_then(|text| Some(text.split_once('[')?.1.trim_end_matches(']').to_owned()));
        r.see(format!("{name}: its number"), expected.map(|(ino, mode)| (ino == told, mode)));
        let pid = sys::child(|| {
            let other = link(&format!("/proc/{}/ns/{name}", sys::pid()));
            i32::from(other != link(&path))
        });
        r.see(format!("{name}: a child's"), sys::wait(pid));
    }
    let net = open("/proc/self/ns/net", O_RDONLY);
    r.see("open", net.is_ok());
    r.see("read", net.and_then(|f| read(f, 10)));
    r.see(
        "of a thread",
        link(&format!("/proc/self/task/{}/ns/net", sys::pid())) == link("/proc/self/ns/net"),
    );
}

fn small_files(r: &mut Report) {
    for name in ["setgroups", "coredump_filter", "timens_offsets", "timerslack_ns", "uid_map", "projid_map"] {
        r.see(name, text(&format!("/proc/self/{name}")));
    }
    for name in ["schedstat", "wchan"] {
        r.see(name, text(&format!("/proc/self/{name}")).map(|text| without_numbers(&text)));
    }
    let names = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|it| it.0.trim().to_owned())
            .collect::<Vec<_>>()
    };
    r.see("io", names("/proc/self/io"));
    let sched = names("/proc/self/sched");
    for name in ["se.sum_exec_runtime", "nr_switches", "nr_voluntary_switches", "policy", "prio"] {
        r.see(format!("sched {name}"), sched.iter().any(|other| other == name));
    }
    // SAFETY: the arguments are numbers.
    unsafe { prctl(PR_SET_TIMERSLACK, 12_345) };
    r.see("timer slack", text("/proc/self/timerslack_ns"));
    r.see("of nobody", text("/proc/4194305/schedstat"));
}

fn comm(r: &mut Report) {
    let set = |path: &str, name: &str| -> Answer {
        let f = open(path, O_WRONLY)?;
        let answer = write(f, name.as_bytes());
        close(f)?;
        answer
    };
    let own = "/proc/self/comm";
    r.see("set", (set(own, "short"), text(own)));
    r.see("with a line end", (set(own, "line\n"), text(own)));
    r.see("too long", (set(own, "0123456789abcdefghij"), text(own)));
    let mut name = [0u8; 16];
    // SAFETY: the buffer has the 16 bytes that the call writes.
    unsafe { prctl(PR_GET_NAME, name.as_mut_ptr()) };
    r.see("the call says so", String::from_utf8_lossy(&name).replace('\0', "."));
    let parent = sys::pid();
    let pid = sys::child(|| match set(&format!("/proc/{parent}/comm"), "stolen") {
        Err(errno) => errno as i32,
        Ok(_) => 0,
    });
    r.see("of another process", (sys::wait(pid), text(own)));
    r.see("status", std::fs::read_to_string("/proc/self/status").unwrap().lines().next().map(str::to_owned));
}

fn smaps(r: &mut Report) {
    let keys = |text: &str| -> Vec<String> {
        let lines = text.lines().skip(1).map(|line| line.split(':').next().unwrap_or("").to_owned());
        lines.take_while(|key| key != "VmFlags").collect()
    };
    let wanted = [
        "Size",
        "KernelPageSize",
        "MMUPageSize",
        "Rss",
        "Pss",
        "Shared_Clean",
        "Shared_Dirty",
        "Private_Clean",
        "Private_Dirty",
        "Referenced",
        "Anonymous",
        "LazyFree",
        "AnonHugePages",
        "ShmemPmdMapped",
        "FilePmdMapped",
        "Shared_Hugetlb",
        "Private_Hugetlb",
        "Swap",
        "SwapPss",
        "Locked",
        "THPeligible",
    ];
    let found = keys(&std::fs::read_to_string("/proc/self/smaps").unwrap());
    for name in wanted {
        r.see(name, found.iter().any(|key| key == name));
    }
    let rollup = keys(&std::fs::read_to_string("/proc/self/smaps_rollup").unwrap());
    for name in &wanted[3..20] {
        r.see(format!("sum of {name}"), rollup.iter().any(|key| key == name));
    }
    let len = 64 * 4096;
    let at =
        sys!(SYS_mmap, 1usize << 36, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX, 0)
            .unwrap();
    for page in 0..64 {
        // SAFETY: the page lies in the new mapping.
        unsafe { ((at + page * 4096) as *mut u8).write_volatile(1) };
    }
    let area = || {
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mine = all[all.find(&format!("{at:08x}-")).unwrap()..].to_owned();
        let amount = |name: &str| {
            let line = mine.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or("");
            line.split_whitespace().nth(1).unwrap_or("").parse::<u64>().ok()
        };
        (amount("Size"), amount("Private_Dirty"), amount("Anonymous"), amount("Locked"), amount("Swap"))
    };
    r.see("written", area());
    sys!(SYS_mlock, at, len / 2).unwrap();
    let flags = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let flags = flags[flags.find(&format!("{at:08x}-")).unwrap()..].to_owned();
    let flags = flags.lines().find(|line| line.starts_with("VmFlags")).unwrap_or("").to_owned();
    r.see(
        "flags",
        ["rd", "wr", "ex", "sh", "mr", "mw", "lo"].map(|flag| flags.split_whitespace().any(|it| it == flag)),
    );
    r.see("locked", area());
}

fn fdinfo(r: &mut Report) {
    let info = |f: usize| std::fs::read_to_string(format!("/proc/self/fdinfo/{f}")).unwrap_or_default();
    // What follows the lines that all files have.
    let rest = |f: usize| -> Vec<String> {
        let all = info(f);
        let common = ["pos:", "flags:", "mnt_id:", "ino:"];
        all.lines()
            .filter(|line| !common.iter().any(|start| line.starts_with(start)))
            .map(str::to_owned)
            .collect()
    };
    let timer = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK).unwrap();
    r.see("timer", rest(timer));
    let setting = [5u64, 7, 1000, 0];
    sys!(SYS_timerfd_settime, timer, 0, setting.as_ptr(), 0).unwrap();
    r.see(
        "timer that is set",
        rest(timer)
            .iter()
            .map(|line| if line.starts_with("it_value") { without_numbers(line) } else { line.clone() })
            .collect::<Vec<_>>(),
    );
    let absolute = [0u64, 0, 0, 1];
    sys!(SYS_timerfd_settime, timer, 1, absolute.as_ptr(), 0).unwrap();
    r.see(
        "timer that has expired",
        rest(timer)
            .iter()
            .map(|line| if line.starts_with("it_value") { without_numbers(line) } else { line.clone() })
            .collect::<Vec<_>>(),
    );
    let real = sys!(SYS_timerfd_create, CLOCK_REALTIME, 0).unwrap();
    r.see("timer of real time", rest(real).first().cloned());
    let event = sys!(SYS_eventfd2, 7, 0).unwrap();
    let first = |f: usize| rest(f).first().cloned();
    r.see("eventfd", first(event));
    r.see("signalfd", first(sys!(SYS_signalfd4, usize::MAX, [0x1234u64].as_ptr(), 8, 0).unwrap()));
    let f = fd("f", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC);
    write(f, b"12345").unwrap();
    r.see("file", info(f).lines().take(2).map(str::to_owned).collect::<Vec<_>>());
    r.see("its inode", info(f).contains(&format!("ino:\t{}\n", fstat(f).unwrap().st_ino)));
    let pidfd = sys!(SYS_pidfd_open, sys::pid(), 0).unwrap();
    r.see("pidfd", rest(pidfd).first().map(|line| line.replace(&sys::pid().to_string(), "me")));
}

fn directory_as_pidfd(r: &mut Report) {
    let send = |f: usize, signal: i32| sys!(SYS_pidfd_send_signal, f, signal, 0, 0);
    let (reader, _writer) = sys::pipe(0);
    let pid = sys::child(|| {
        let _ = read(reader, 1);
        0
    });
    let directory = fd(&format!("/proc/{pid}"), O_RDONLY | O_DIRECTORY);
    r.see("no signal", send(directory, 0));
    r.see("of a path", send(fd(&format!("/proc/{pid}"), O_PATH), 0));
    r.see("of its tasks", send(fd(&format!("/proc/{pid}/task"), O_RDONLY), 0));
    r.see("of a task", send(fd(&format!("/proc/{pid}/task/{pid}"), O_RDONLY), 0));
    r.see("of /proc", send(fd("/proc", O_RDONLY), 0));
    r.see("a file", send(fd(&format!("/proc/{pid}/stat"), O_RDONLY), 0));
    r.see("bad signal", send(directory, 99));
    r.see("signal", (send(directory, SIGTERM), sys::wait(pid)));
    r.see("nobody any more", send(directory, 0));
    r.see("to get a descriptor", sys!(SYS_pidfd_getfd, directory, 0, 0));
}

fn settings(r: &mut Report) {
    // What no machine changes.
    for name in [
        "kernel/ostype",
        "kernel/ngroups_max",
        "kernel/overflowuid",
        "kernel/msgmax",
        "kernel/random/poolsize",
        "fs/overflowuid",
        "fs/mqueue/msg_default",
        "net/ipv4/ip_default_ttl",
    ] {
        r.see(name, text(&format!("/proc/sys/{name}")));
    }
    // What every machine has.
    for name in [
        "kernel/pid_max",
        "kernel/threads-max",
        "kernel/cap_last_cap",
        "kernel/osrelease",
        "kernel/random/boot_id",
        "kernel/random/uuid",
        "kernel/random/entropy_avail",
        "kernel/sched_rr_timeslice_ms",
        "kernel/tainted",
        "kernel/printk",
        "vm/overcommit_memory",
        "vm/max_map_count",
        "vm/swappiness",
        "vm/mmap_min_addr",
        "vm/dirty_ratio",
        "vm/vfs_cache_pressure",
        "fs/file-max",
        "fs/nr_open",
        "fs/aio-max-nr",
        "fs/pipe-max-size",
        "fs/pipe-user-pages-hard",
        "fs/inotify/max_user_watches",
        "fs/epoll/max_user_watches",
        "fs/mqueue/queues_max",
        "net/core/somaxconn",
        "net/core/rmem_max",
        "net/core/wmem_default",
        "net/ipv4/ip_local_port_range",
        "net/ipv4/tcp_rmem",
        "net/ipv4/tcp_keepalive_time",
        "net/ipv4/tcp_retries2",
        "net/ipv4/tcp_congestion_control",
        "net/ipv4/ip_unprivileged_port_start",
        "user/max_user_namespaces",
    ] {
        r.see(name, text(&format!("/proc/sys/{name}")).is_ok_and(|it| it.ends_with('\n')));
    }
    r.see("missing", text("/proc/sys/kernel/none"));
}

fn counters(r: &mut Report) {
    let lines = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let names = |path: &str| -> Vec<String> {
        lines(path).lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    };
    r.see("softirqs", names("/proc/softirqs"));
    r.see("interrupts name the processor", lines("/proc/interrupts").contains("CPU0"));
    r.see("errors are counted", names("/proc/interrupts").iter().any(|name| name == "ERR"));
}
