//! The files about one process or thread.

use std::rc::Rc;

use lg_abi::raw::general::{O_CLOEXEC, PROT_EXEC, PROT_READ, PROT_WRITE};
use lg_abi::{Errno, Rlimit};

use super::system::TICK_NS;
use super::{open_file, show, show_below, smaps};
use crate::PAGE_BYTES;
use crate::task::OomAdjust;
use crate::vfs::{
    FsContext, MapFacts, Mount, MountFlags, OnExec, Path, ProcessFacts, ThreadFacts, make_dev, split_dev,
};

/// A file in the directory of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PidFile {
    Auxv,
    Autogroup,
    Cgroup,
    Cmdline,
    Comm,
    CoredumpFilter,
    Cpuset,
    Environ,
    IdMap,
    Io,
    Limits,
    LoginUid,
    Maps,
    MountInfo,
    Mounts,
    MountStats,
    OomScore,
    OomScoreAdj,
    Personality,
    Sched,
    SchedStat,
    SetGroups,
    Smaps,
    SmapsRollup,
    Stack,
    Stat,
    Statm,
    Status,
    TimeOffsets,
    TimerSlack,
    Wchan,
}

/// The files by name.
pub(super) const FILES: &[(&str, PidFile)] = &[
    ("autogroup", PidFile::Autogroup),
    ("auxv", PidFile::Auxv),
    ("cgroup", PidFile::Cgroup),
    ("cmdline", PidFile::Cmdline),
    ("comm", PidFile::Comm),
    ("coredump_filter", PidFile::CoredumpFilter),
    ("cpuset", PidFile::Cpuset),
    ("environ", PidFile::Environ),
    ("gid_map", PidFile::IdMap),
    ("io", PidFile::Io),
    ("limits", PidFile::Limits),
    ("loginuid", PidFile::LoginUid),
    ("maps", PidFile::Maps),
    ("mountinfo", PidFile::MountInfo),
    ("mounts", PidFile::Mounts),
    ("mountstats", PidFile::MountStats),
    ("oom_score", PidFile::OomScore),
    ("oom_score_adj", PidFile::OomScoreAdj),
    ("personality", PidFile::Personality),
    ("projid_map", PidFile::IdMap),
    ("sched", PidFile::Sched),
    ("schedstat", PidFile::SchedStat),
    ("sessionid", PidFile::LoginUid),
    ("setgroups", PidFile::SetGroups),
    ("smaps", PidFile::Smaps),
    ("smaps_rollup", PidFile::SmapsRollup),
    ("stack", PidFile::Stack),
    ("stat", PidFile::Stat),
    ("statm", PidFile::Statm),
    ("status", PidFile::Status),
    ("timens_offsets", PidFile::TimeOffsets),
    ("timerslack_ns", PidFile::TimerSlack),
    ("uid_map", PidFile::IdMap),
    ("wchan", PidFile::Wchan),
];

impl PidFile {
    /// Returns the permission bits.
    pub(super) fn mode(self) -> u32 {
        match self {
            PidFile::Auxv | PidFile::Environ | PidFile::Io | PidFile::Personality | PidFile::Stack => 0o400,
            PidFile::MountStats => 0o400,
            PidFile::Comm | PidFile::OomScoreAdj => 0o644,
            _ => 0o444,
        }
    }

    /// Returns the text.
    ///
    /// Errors: ESRCH where the process is gone.
    pub(super) fn text(self, cx: &FsContext<'_>, pid: u32, tid: u32) -> Result<Vec<u8>, Errno> {
        let process = cx.procs.process(pid).ok_or(Errno::ESRCH)?;
        let thread = cx.procs.thread(pid, tid).ok_or(Errno::ESRCH)?;
        let text = match self {
            // A zombie has none of these.
            PidFile::Cmdline => return Ok(cx.procs.cmdline(pid).unwrap_or_default()),
            PidFile::Environ => return Ok(cx.procs.environ(pid).unwrap_or_default()),
            PidFile::Auxv => return Ok(cx.procs.auxv(pid).unwrap_or_default()),
            PidFile::Comm => return Ok([&thread.comm[..], b"\n"].concat()),
            PidFile::Maps => return Ok(maps(cx, pid, &thread)),
            PidFile::Smaps => return Ok(smaps::areas(cx, pid)),
            PidFile::Stat => return Ok(stat(cx, &process, &thread)),
            PidFile::Status => return Ok(status(cx, &process, &thread)),
            PidFile::Mounts => return Ok(mounts(cx, pid, mounts_line)),
            PidFile::MountInfo => return Ok(mounts(cx, pid, mountinfo_line)),
            PidFile::Autogroup => format!("/autogroup-1 nice {}\n", process.nice),
            PidFile::Cgroup => "0::/\n".into(),
            // Anonymous memory, ELF headers and private huge pages: what Linux starts with.
            PidFile::CoredumpFilter => "00000033\n".into(),
            PidFile::Cpuset => "/\n".into(),
            PidFile::IdMap => format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX),
            // Nobody has logged in.
            PidFile::LoginUid => u32::MAX.to_string(),
            PidFile::MountStats => return Ok(mounts(cx, pid, mountstats_line)),
            PidFile::Sched => sched(&process, &thread),
            PidFile::SchedStat => format!("{} 0 {}\n", thread.utime_ns, switches(&thread)),
            PidFile::SetGroups => "allow\n".into(),
            // There is no stack in the kernel to be shown.
            PidFile::Stack => return Err(Errno::EPERM),
            PidFile::TimeOffsets => {
                format!("{:<10} {:>10} {:>9}\n{:<10} {:>10} {:>9}\n", "monotonic", 0, 0, "boottime", 0, 0)
            }
            PidFile::TimerSlack => format!("{}\n", thread.timer_slack_ns),
            PidFile::Io => "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\n\
                            cancelled_write_bytes: 0\n"
                .into(),
            PidFile::Limits => limits(&process.limits),
            PidFile::OomScore => oom_score(cx, &process),
            PidFile::OomScoreAdj => format!("{}\n", process.oom_score_adj),
            PidFile::Personality => format!("{:08x}\n", thread.personality),
            PidFile::SmapsRollup => smaps::rollup(cx, pid),
            PidFile::Statm => statm(&process),
            PidFile::Wchan => "0".into(),
        };
        Ok(text.into_bytes())
    }

    /// Takes what a task writes.
    ///
    /// Errors: EINVAL; EPERM for a file that can not be written.
    pub(super) fn write(self, cx: &FsContext<'_>, pid: u32, tid: u32, data: &[u8]) -> Result<(), Errno> {
        match self {
            PidFile::Comm => {
                let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
                cx.procs.set_comm(cx.tid.0, tid, &data[..end.min(15)])
            }
            PidFile::OomScoreAdj => {
                let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
                let value = text.trim().parse().map_err(|_| Errno::EINVAL)?;
                cx.procs.set_oom_score_adj(cx.creds, pid, value)
            }
            _ => Err(Errno::EPERM),
        }
    }
}

fn switches(thread: &ThreadFacts) -> u64 {
    thread.voluntary_switches.saturating_add(thread.involuntary_switches)
}

/// Returns what the scheduler tells of a thread: the lines that programs look for.
fn sched(process: &ProcessFacts, thread: &ThreadFacts) -> String {
    let line = |name: &str, value: String| format!("{name:<45}:{value:>21}\n");
    let ms = |ns: u64| format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
    let head = format!(
        "{} ({}, #threads: {})\n",
        String::from_utf8_lossy(&thread.comm),
        thread.tid,
        process.threads
    );
    let lines = [
        line("se.exec_start", ms(thread.start_ns)),
        line("se.sum_exec_runtime", ms(thread.utime_ns)),
        line("nr_switches", switches(thread).to_string()),
        line("nr_voluntary_switches", thread.voluntary_switches.to_string()),
        line("nr_involuntary_switches", thread.involuntary_switches.to_string()),
        line("policy", "0".into()),
        line("prio", (120 + process.nice).to_string()),
    ];
    format!("{head}{}\n{}", "-".repeat(67), lines.concat())
}

/// Returns how likely the process is chosen when memory is used up, from 0 to 2000, as Linux reckons it.
fn oom_score(cx: &FsContext<'_>, process: &ProcessFacts) -> String {
    let total = (cx.procs.system().mem_total / PAGE_BYTES).max(1);
    let adjust = OomAdjust { score: process.oom_score_adj, ..OomAdjust::default() };
    let score = adjust
        .weight(process.rss_pages, total)
        .map_or(0, |weight| (1000 + weight * 1000 / total as i64) * 2 / 3);
    format!("{}\n", score.max(0))
}

fn stat(cx: &FsContext<'_>, process: &ProcessFacts, thread: &ThreadFacts) -> Vec<u8> {
    let is_process = process.pid == thread.tid;
    let (utime, stime) =
        if is_process { (process.utime_ns, process.stime_ns) } else { (thread.utime_ns, thread.stime_ns) };
    let state = if is_process { process.state } else { thread.state };
    let terminal = cx.vfs.ptys().of_session(process.session);
    let tty = terminal.as_ref().map_or(0, |pty| make_dev(136, pty.index));
    let foreground = terminal.map_or(-1, |pty| i64::from(pty.foreground()));
    let fields = [
        i64::from(process.ppid),
        i64::from(process.pgrp),
        i64::from(process.session),
        tty as i64,
        foreground,
        0x40_0000, // flags: PF_RANDOMIZE
        process.minor_faults as i64,
        0,
        process.major_faults as i64,
        0,
        (utime / TICK_NS) as i64,
        (stime / TICK_NS) as i64,
        (process.cutime_ns / TICK_NS) as i64,
        (process.cstime_ns / TICK_NS) as i64,
        20i64.saturating_add(i64::from(process.nice)),
        i64::from(process.nice),
        i64::from(process.threads),
        0,
        (thread.start_ns / TICK_NS) as i64,
        process.vsize as i64,
        process.rss_pages as i64,
    ];
    let rss_limit = process.limits.get(5).map_or(u64::MAX, |limit| limit.cur);
    let rest = [
        rss_limit,
        process.start_code,
        process.end_code,
        process.start_stack,
        0,
        0,
        thread.pending & 0x7fff_ffff,
        thread.blocked & 0x7fff_ffff,
        process.ignored & 0x7fff_ffff,
        process.caught & 0x7fff_ffff,
        0,
        0,
        0,
        17, // exit_signal: SIGCHLD
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        process.start_brk,
        0,
        0,
        0,
        0,
        process.exit_code as u64,
    ];
    let mut text = format!("{} (", thread.tid).into_bytes();
    text.extend_from_slice(&thread.comm);
    text.extend_from_slice(format!(") {}", state.letter().0).as_bytes());
    fields.iter().for_each(|field| text.extend_from_slice(format!(" {field}").as_bytes()));
    rest.iter().for_each(|field| text.extend_from_slice(format!(" {field}").as_bytes()));
    text.push(b'\n');
    text
}

fn statm(process: &ProcessFacts) -> String {
    let pages = |bytes: u64| bytes / 4096;
    format!(
        "{} {} {} {} 0 {} 0\n",
        pages(process.vsize),
        process.rss_pages,
        process.shared_pages,
        pages(process.text_bytes),
        pages(process.data_bytes.saturating_add(process.stack_bytes)),
    )
}

fn status(cx: &FsContext<'_>, process: &ProcessFacts, thread: &ThreadFacts) -> Vec<u8> {
    let state = if process.pid == thread.tid { process.state } else { thread.state };
    let (letter, word) = state.letter();
    let umask = cx
        .procs
        .fs_state(process.pid)
        .and_then(|fs| fs.try_borrow().ok().map(|fs| fs.umask))
        .unwrap_or(0o022);
    let ids = |ids: &[u32; 4]| format!("{}\t{}\t{}\t{}", ids[0], ids[1], ids[2], ids[3]);
    let groups: String = thread.groups.iter().map(|gid| format!("{gid} ")).collect();
    let kib = |bytes: u64| format!("{:>8} kB", bytes / 1024);
    let pages = |pages: u64| kib(pages.saturating_mul(4096));
    let [inheritable, permitted, effective, bounding, ambient] = thread.capabilities;
    let mut text = b"Name:\t".to_vec();
    text.extend(thread.comm.iter().map(|byte| if *byte == b'\n' { b'?' } else { *byte }));
    let mut rest = format!(
        "\nUmask:\t{umask:04o}\nState:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\n\
         TracerPid:\t0\nUid:\t{}\nGid:\t{}\nFDSize:\t256\nGroups:\t{groups}\n",
        process.pid,
        thread.tid,
        process.ppid,
        ids(&thread.uids),
        ids(&thread.gids),
    );
    if process.vsize > 0 {
        rest.push_str(&format!(
            "VmPeak:\t{}\nVmSize:\t{}\nVmLck:\t{}\nVmPin:\t{}\nVmHWM:\t{}\nVmRSS:\t{}\nRssAnon:\t{}\n\
             RssFile:\t{}\nRssShmem:\t{}\nVmData:\t{}\nVmStk:\t{}\nVmExe:\t{}\nVmLib:\t{}\nVmPTE:\t{}\n\
             VmSwap:\t{}\n",
            kib(process.vsize_peak),
            kib(process.vsize),
            kib(0),
            kib(0),
            pages(process.rss_peak_pages),
            pages(process.rss_pages),
            pages(process.rss_pages.saturating_sub(process.shared_pages)),
            pages(process.shared_pages),
            kib(0),
            kib(process.data_bytes),
            kib(process.stack_bytes),
            kib(process.text_bytes),
            kib(0),
            kib(0),
            kib(0),
        ));
    }
    rest.push_str(&format!(
        "Threads:\t{}\nSigQ:\t0/1024\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\n\
         SigIgn:\t{:016x}\nSigCgt:\t{:016x}\nCapInh:\t{inheritable:016x}\nCapPrm:\t{permitted:016x}\n\
         CapEff:\t{effective:016x}\nCapBnd:\t{bounding:016x}\nCapAmb:\t{ambient:016x}\nNoNewPrivs:\t{}\n\
         Seccomp:\t0\nSeccomp_filters:\t0\nCpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\n\
         Mems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        process.threads,
        thread.pending,
        process.shared_pending,
        thread.blocked,
        process.ignored,
        process.caught,
        u32::from(thread.no_new_privs),
        thread.voluntary_switches,
        thread.involuntary_switches,
    ));
    text.extend_from_slice(rest.as_bytes());
    text
}

const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

fn limits(limits: &[Rlimit; 16]) -> String {
    let mut text = format!("{:<26}{:<21}{:<21}{:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let value = |value| if value == u64::MAX { "unlimited".to_owned() } else { format!("{value}") };
    for (limit, (name, unit)) in limits.iter().zip(LIMITS) {
        text.push_str(&format!("{name:<26}{:<21}{:<21}{unit:<10}\n", value(limit.cur), value(limit.max)));
    }
    text
}

pub(super) fn map_line(cx: &FsContext<'_>, map: &MapFacts) -> Vec<u8> {
    let bit = |bit, letter| if map.prot & bit != 0 { letter } else { '-' };
    let attr = map.file.as_ref().and_then(|file| file.inode().attr(cx).ok()).unwrap_or_default();
    let (major, minor) = split_dev(attr.dev);
    let mut line = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {major:02x}:{minor:02x} {}",
        map.start,
        map.end,
        bit(PROT_READ, 'r'),
        bit(PROT_WRITE, 'w'),
        bit(PROT_EXEC, 'x'),
        if map.shared { 's' } else { 'p' },
        map.offset,
        attr.ino,
    )
    .into_bytes();
    let name = match &map.file {
        Some(file) => show(cx, file),
        None => map.label.as_bytes().to_vec(),
    };
    line.push(b' ');
    if !name.is_empty() {
        line.resize(line.len().max(73), b' ');
        for byte in name {
            if byte == b'\n' {
                line.extend_from_slice(b"\\012");
            } else {
                line.push(byte);
            }
        }
    }
    line.push(b'\n');
    line
}

fn maps(cx: &FsContext<'_>, pid: u32, _thread: &ThreadFacts) -> Vec<u8> {
    let maps = cx.procs.maps(pid).unwrap_or_default();
    maps.iter().flat_map(|map| map_line(cx, map)).collect()
}

/// Returns the table of mounts that the process can reach.
fn mounts(
    cx: &FsContext<'_>,
    pid: u32,
    line: fn(&FsContext<'_>, &Path, &Mount, &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let Some(fs) = cx.procs.fs_state(pid) else { return Vec::new() };
    let Ok(root) = fs.try_borrow().map(|fs| fs.root.clone()) else { return Vec::new() };
    let mut text = Vec::new();
    for mount in cx.vfs.mounts() {
        let at = Path::root_of(&mount);
        if let Some(place) = show_below(cx, &root, &at) {
            text.extend_from_slice(&line(cx, &root, &mount, &escape(&place)));
        }
    }
    text
}

/// Writes a path with its blanks and backslashes as octal numbers (fstab(5)).
fn escape(path: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => escaped.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => escaped.push(*byte),
        }
    }
    escaped
}

fn options(mount: &Mount) -> String {
    let mut options = if mount.flags.contains(MountFlags::READ_ONLY) { "ro" } else { "rw" }.to_owned();
    for (flag, name) in
        [(MountFlags::NO_SUID, ",nosuid"), (MountFlags::NO_DEV, ",nodev"), (MountFlags::NO_EXEC, ",noexec")]
    {
        if mount.flags.contains(flag) {
            options.push_str(name);
        }
    }
    options.push_str(",relatime");
    options
}

fn mounts_line(_cx: &FsContext<'_>, _root: &Path, mount: &Mount, place: &[u8]) -> Vec<u8> {
    let mut line = escape(&mount.source);
    line.push(b' ');
    line.extend_from_slice(place);
    line.extend_from_slice(format!(" {} {} 0 0\n", mount.sb.type_name, options(mount)).as_bytes());
    line
}

fn mountstats_line(_cx: &FsContext<'_>, _root: &Path, mount: &Mount, place: &[u8]) -> Vec<u8> {
    let mut line = [b"device ", &*escape(&mount.source), b" mounted on ", place].concat();
    line.extend_from_slice(format!(" with fstype {}\n", mount.sb.type_name).as_bytes());
    line
}

fn mountinfo_line(_cx: &FsContext<'_>, _root: &Path, mount: &Mount, place: &[u8]) -> Vec<u8> {
    let parent = mount.at.as_ref().map_or(mount.id, |at| at.mount.id);
    let (major, minor) = split_dev(mount.sb.dev);
    let mut line = format!("{} {parent} {major}:{minor} / ", mount.id).into_bytes();
    line.extend_from_slice(place);
    line.extend_from_slice(format!(" {} - {} ", options(mount), mount.sb.type_name).as_bytes());
    line.extend_from_slice(&escape(&mount.source));
    line.extend_from_slice(b" rw\n");
    line
}

/// Returns the text of `fdinfo/FD`.
pub(super) fn fd_info(cx: &FsContext<'_>, pid: u32, fd: u32) -> Result<Vec<u8>, Errno> {
    let (file, on_exec) = open_file(cx, pid, fd)?;
    let mut flags = file.shown_flags(cx.vfs);
    if on_exec == OnExec::Close {
        flags |= O_CLOEXEC;
    }
    let ino = file.inode().attr(cx).map_or(0, |attr| attr.ino);
    let mount = Rc::clone(&file.path.mount);
    let mut text =
        format!("pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{ino}\n", file.offset(), mount.id);
    text.push_str(&file.file.info(cx));
    Ok(text.into_bytes())
}
