//! System calls that reach for the machine, or for what another process has: as root of the sandbox.

use libc::*;

use crate::sys::{self, c, sys};
use crate::{Attack, Verdict, must_fail};

/// `struct file_handle` of inode 2, with eight bytes of handle.
static HANDLE: [u8; 16] = [8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];

/// Calls that must fail whatever the caller is: name, number, arguments. Texts are given by their address.
fn table() -> Vec<(&'static str, i64, Vec<usize>)> {
    fn text(text: &'static std::ffi::CStr) -> usize {
        text.as_ptr() as usize
    }
    let magic = (reboot_magic::FIRST, reboot_magic::SECOND);
    vec![
        ("mount a disk", SYS_mount, vec![text(c"/dev/sda1"), text(c"/tmp"), text(c"ext4"), 0, 0]),
        ("mount proc", SYS_mount, vec![text(c"proc"), text(c"/tmp"), text(c"proc"), 0, 0]),
        ("mount tmpfs", SYS_mount, vec![text(c"x"), text(c"/tmp"), text(c"tmpfs"), 0, 0]),
        ("bind mount", SYS_mount, vec![text(c"/"), text(c"/tmp"), 0, MS_BIND as usize, 0]),
        (
            "remount a directory for writing",
            SYS_mount,
            vec![0, text(c"/ro"), 0, (MS_REMOUNT | MS_BIND) as usize, 0],
        ),
        ("move a mount", SYS_mount, vec![text(c"/ro"), text(c"/tmp"), 0, MS_MOVE as usize, 0]),
        ("make mounts shared", SYS_mount, vec![0, text(c"/"), 0, (MS_SHARED | MS_REC) as usize, 0]),
        ("unmount /proc", SYS_umount2, vec![text(c"/proc"), MNT_DETACH as usize]),
        ("unmount a granted directory", SYS_umount2, vec![text(c"/ro"), MNT_DETACH as usize]),
        ("pivot_root", SYS_pivot_root, vec![text(c"/tmp"), text(c"/tmp")]),
        ("fsopen", SYS_fsopen, vec![text(c"tmpfs"), 0]),
        ("open_tree", SYS_open_tree, vec![AT_FDCWD as usize, text(c"/"), 1]),
        (
            "move_mount",
            SYS_move_mount,
            vec![AT_FDCWD as usize, text(c"/ro"), AT_FDCWD as usize, text(c"/tmp"), 0],
        ),
        ("mount_setattr", SYS_mount_setattr, vec![AT_FDCWD as usize, text(c"/ro"), 0, 0, 0]),
        ("swapon", SYS_swapon, vec![text(c"/tmp/x"), 0]),
        ("swapoff", SYS_swapoff, vec![text(c"/dev/sda2")]),
        ("reboot", SYS_reboot, vec![magic.0, magic.1, reboot_magic::RESTART, 0]),
        ("power off", SYS_reboot, vec![magic.0, magic.1, reboot_magic::POWER_OFF, 0]),
        ("load a module", SYS_init_module, vec![text(c"x"), 1, text(c"")]),
        ("load a module by descriptor", SYS_finit_module, vec![0, text(c""), 0]),
        ("unload a module", SYS_delete_module, vec![text(c"kvm"), 0]),
        ("kexec_load", SYS_kexec_load, vec![0, 0, 0, 0]),
        ("kexec_file_load", SYS_kexec_file_load, vec![0, 0, 0, 0, 0]),
        ("iopl", SYS_iopl, vec![3]),
        ("ioperm", SYS_ioperm, vec![0x60, 4, 1]),
        ("modify_ldt", SYS_modify_ldt, vec![1, text(c"0123456789abcdef"), 16]),
        ("ptrace of the parent", SYS_ptrace, vec![PTRACE_ATTACH as usize, 1, 0, 0]),
        ("perf_event_open", SYS_perf_event_open, vec![text(c""), 0, 0, usize::MAX, 0]),
        ("bpf", SYS_bpf, vec![0, text(c"0123456789abcdef0123456789abcdef"), 32]),
        ("userfaultfd", SYS_userfaultfd, vec![0]),
        ("io_uring_setup", SYS_io_uring_setup, vec![8, text(c"")]),
        ("add_key", SYS_add_key, vec![text(c"user"), text(c"x"), text(c"y"), 1, -3isize as usize]),
        ("request_key", SYS_request_key, vec![text(c"user"), text(c"x"), 0, -3isize as usize]),
        ("keyctl", SYS_keyctl, vec![0, -3isize as usize, 1]),
        ("a new user namespace", SYS_unshare, vec![CLONE_NEWUSER as usize]),
        ("a new mount namespace", SYS_unshare, vec![CLONE_NEWNS as usize]),
        ("a new network namespace", SYS_unshare, vec![CLONE_NEWNET as usize]),
        ("a new process namespace", SYS_unshare, vec![CLONE_NEWPID as usize]),
        ("a child in a new user namespace", SYS_clone, vec![(CLONE_NEWUSER | SIGCHLD) as usize, 0, 0, 0, 0]),
        ("enter a namespace", SYS_setns, vec![0, 0]),
        ("open_by_handle_at", SYS_open_by_handle_at, vec![AT_FDCWD as usize, HANDLE.as_ptr() as usize, 0]),
        ("quotactl", SYS_quotactl, vec![0x80_0007, text(c"/dev/sda1"), 0, 0]),
        ("acct", SYS_acct, vec![text(c"/tmp/x")]),
        ("read the log of the kernel", SYS_syslog, vec![3, text(c""), 0]),
        ("clear the log of the kernel", SYS_syslog, vec![5, 0, 0]),
        ("vhangup", SYS_vhangup, vec![]),
        ("set the clock", SYS_clock_settime, vec![CLOCK_REALTIME as usize, text(c"0123456789abcde")]),
        ("set the time of day", SYS_settimeofday, vec![text(c"0123456789abcde"), 0]),
        ("lookup_dcookie", SYS_lookup_dcookie, vec![0, text(c""), 0]),
        ("fanotify_init", SYS_fanotify_init, vec![0, 0]),
        ("memfd_secret", SYS_memfd_secret, vec![0]),
        ("signal process 1", SYS_kill, vec![1, SIGKILL as usize]),
        ("a signal to everybody else", SYS_kill, vec![usize::MAX, SIGKILL as usize]),
        ("a descriptor of process 1", SYS_pidfd_open, vec![1, 0]),
        ("raise the nice value of process 1", SYS_setpriority, vec![0, 1, -20isize as usize]),
        ("read the memory of process 1", SYS_process_vm_readv, vec![1, 0, 0, 0, 0, 1]),
        ("limits of process 1", SYS_prlimit64, vec![1, RLIMIT_NOFILE as usize, 0, 0]),
        ("a system call number beyond all", 100_000, vec![]),
        ("a negative system call number", -2, vec![]),
        ("a system call of the x32 interface", 0x4000_0000 + SYS_getpid, vec![]),
    ]
}

/// Numbers of reboot(2).
mod reboot_magic {
    pub const FIRST: usize = 0xfee1_dead;
    pub const SECOND: usize = 0x2812_1969;
    pub const RESTART: usize = 0x0123_4567;
    pub const POWER_OFF: usize = 0x4321_fedc;
}

pub fn attacks() -> Vec<Attack> {
    let mut all: Vec<Attack> = table()
        .into_iter()
        .map(|(name, number, arguments)| Attack::new(name, move || must_fail(sys::raw(number, &arguments))))
        .collect();
    all.push(Attack::new("capabilities come back after they were dropped", capabilities_come_back));
    all.push(Attack::new("a set-user-id program after no_new_privs", set_user_id));
    all.push(Attack::new("leave a changed root", leave_chroot));
    all
}

/// A process that gave its user away does not become root again.
fn capabilities_come_back() -> Verdict {
    let end = sys::ends(|| {
        sys!(SYS_setresgid, 1000, 1000, 1000).expect("root may");
        sys!(SYS_setresuid, 1000, 1000, 1000).expect("root may");
        let refused = [
            sys!(SYS_setuid, 0),
            sys!(SYS_setresuid, 0, 0, 0),
            sys!(SYS_setgid, 0),
            sys!(SYS_setgroups, 0, 0),
            sys!(SYS_chroot, c("/tmp").as_ptr()),
            sys::open("/etc/passwd", O_WRONLY),
            sys!(SYS_chown, c("/tmp").as_ptr(), 1000, 1000),
            sys!(SYS_prctl, PR_CAPBSET_DROP, 0, 0, 0, 0),
        ];
        i32::from(refused.iter().any(Result::is_ok))
    });
    if end == "exited 0" { Ok(end) } else { Err(end) }
}

fn set_user_id() -> Verdict {
    std::fs::copy("/usr/bin/id", "/tmp/id").map_err(|error| error.to_string())?;
    sys!(SYS_chmod, c("/tmp/id").as_ptr(), 0o4755).expect("one's own file");
    let end = sys::ends(|| {
        sys!(SYS_setresuid, 1000, 1000, 1000).expect("root may");
        sys!(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).expect("anybody may");
        let output = std::process::Command::new("/tmp/id").arg("-u").output().expect("it runs");
        i32::from(output.stdout != b"1000\n")
    });
    if end == "exited 0" { Ok(end) } else { Err(end) }
}

/// The old way out: a directory held open, a root below it, and many `..`. It leads to the root of the sandbox only.
fn leave_chroot() -> Verdict {
    let outside = sys::fd("/", O_RDONLY | O_DIRECTORY);
    sys!(SYS_mkdir, c("/tmp/jail").as_ptr(), 0o755).expect("/tmp can be written");
    sys!(SYS_chroot, c("/tmp/jail").as_ptr()).expect("root may");
    sys!(SYS_fchdir, outside).expect("it is open");
    for _ in 0..64 {
        let _ = sys!(SYS_chdir, c("..").as_ptr());
    }
    let _ = sys!(SYS_chroot, c(".").as_ptr());
    crate::files::finds_no_secret(&[crate::told("SECRET_PATH")])
}
