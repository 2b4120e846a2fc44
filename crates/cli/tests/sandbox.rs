//! Real programs through the command line. Each test says loudly that it is skipped where there is no /dev/kvm.

mod needs_kvm;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use needs_kvm::needs_kvm;

const LUMINAGUARD: &str = env!("CARGO_BIN_EXE_luminaguard");

fn luminaguard<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(LUMINAGUARD);
    command.arg("run").args(words).stdin(Stdio::null());
    command
}

fn run<S: AsRef<OsStr>>(words: &[S]) -> Output {
    luminaguard(words).output().expect("luminaguard can be started")
}

/// Runs it, expects this status and this output, and answers what was written to standard error.
#[track_caller]
fn check<S: AsRef<OsStr>>(words: &[S], status: i32, stdout: &str) -> String {
    let output = run(words);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), &*found), (Some(status), stdout), "stderr: {stderr}");
    stderr
}

/// LuminaGuard itself refuses, in one line that holds `part`.
#[track_caller]
fn refused<S: AsRef<OsStr>>(words: &[S], status: i32, part: &str) {
    let stderr = check(words, status, "");
    assert!(stderr.starts_with("luminaguard: ") && stderr.lines().count() == 1, "{stderr:?}");
    assert!(stderr.contains(part), "{stderr:?} should contain {part:?}");
}

#[test]
fn programs_of_the_host_run_unmodified() {
    needs_kvm!();
    check(&["--", "python3", "-c", "print(6*7)"], 0, "42\n");
    check(&["--", "bash", "-c", "seq 1 100000 | sort -rn | head -1"], 0, "100000\n");
    check(&["--", "sh", "-c", "echo $((6*7)); exit 3"], 3, "42\n");
}

#[test]
fn the_exit_status_is_the_programs() {
    needs_kvm!();
    check(&["--", "true"], 0, "");
    check(&["--", "false"], 1, "");
    check(&["--", "sh", "-c", "exit 125"], 125, "");
    check(&["--", "sh", "-c", "kill -TERM $$"], 143, "");
    check(&["--", "sh", "-c", "kill -KILL $$"], 137, "");
}

#[test]
fn input_passes_through_as_a_stream() {
    needs_kvm!();
    let mut child = luminaguard(&["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut buffer = [0; 4];
    for word in ["one ", "two ", "end "] {
        stdin.write_all(word.as_bytes()).unwrap();
        stdout.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, word.as_bytes());
    }
    drop(stdin);
    assert_eq!(stdout.read(&mut buffer).unwrap(), 0);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_large_output_arrives_whole() {
    needs_kvm!();
    let output = run(&["--", "python3", "-c", "import sys; sys.stdout.write('x' * 5_000_000)"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), 5_000_000);
    assert!(output.stdout.iter().all(|&byte| byte == b'x'));
}

#[test]
fn a_reader_that_goes_away_ends_the_writer() {
    needs_kvm!();
    let mut command = luminaguard(&["--timeout", "60s", "--", "yes"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    drop(stdout);
    let status = wait(&mut child, Duration::from_secs(20));
    assert_ne!(status, Some(124), "`yes` should have ended by SIGPIPE or EPIPE");
}

#[test]
fn writes_stay_in_the_sandbox() {
    needs_kvm!();
    let before = std::fs::read("/etc/hosts").unwrap_or_default();
    check(&["--", "sh", "-c", "echo x > /etc/hosts; cat /etc/hosts"], 0, "x\n");
    assert_eq!(std::fs::read("/etc/hosts").unwrap_or_default(), before);
    check(&["--", "sh", "-c", "echo y > /new; cat /new"], 0, "y\n");
    assert!(!Path::new("/new").exists());
}

#[test]
fn secrets_of_the_host_are_not_there() {
    needs_kvm!();
    for path in ["/etc/shadow", "/etc/gshadow", "/root/.ssh/authorized_keys", "/home/nobody/x"] {
        let output = run(&["--", "cat", path]);
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{path}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No such file"), "{path}");
    }
    // What is in /proc is the sandbox's own.
    let mut command = luminaguard(&["--", "sh", "-c", "cat /proc/*/environ /proc/*/cmdline"]);
    let output = command.env("LUMINAGUARD_TEST_SECRET", "1").output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("LUMINAGUARD_TEST_SECRET"));
}

#[test]
fn the_environment_is_the_guests_own() {
    needs_kvm!();
    let output =
        luminaguard(&["--env", "A=b c", "--", "env"]).env("LUMINAGUARD_TEST_SECRET", "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expected = [
        "A=b c",
        "HOME=/root",
        "LC_CTYPE=C.UTF-8",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=xterm-256color",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn options_shape_the_sandbox() {
    needs_kvm!();
    check(&["--workdir", "/usr", "--", "pwd"], 0, "/usr\n");
    check(&["--hostname", "box", "--", "uname", "-n"], 0, "box\n");
    check(&["--", "id", "-u"], 0, "0\n");
    check(&["--user", "1000:100", "--", "sh", "-c", "id -u; id -g"], 0, "1000\n100\n");
}

#[test]
fn mounts_show_the_host_as_asked() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "from the host\n").unwrap();
    let source = directory.path().to_str().unwrap();
    let read_only = format!("{source}:/data:ro");
    check(&["--mount", &read_only, "--", "cat", "/data/file"], 0, "from the host\n");
    let output = run(&["--mount", &read_only, "--", "sh", "-c", "echo x > /data/file"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"), "{output:?}");
    assert_eq!(std::fs::read_to_string(directory.path().join("file")).unwrap(), "from the host\n");
    let writable = format!("{source}:/data:rw");
    let words = ["--mount", &writable, "--workdir", "/data", "--", "sh", "-c", "echo new > other && rm file"];
    check(&words, 0, "");
    assert_eq!(std::fs::read_to_string(directory.path().join("other")).unwrap(), "new\n");
    assert!(!directory.path().join("file").exists());
}

#[test]
fn a_mount_does_not_lead_out_of_itself() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("secret"), "not yours\n").unwrap();
    std::fs::create_dir(directory.path().join("shown")).unwrap();
    std::os::unix::fs::symlink("../secret", directory.path().join("shown/link")).unwrap();
    std::os::unix::fs::symlink(directory.path().join("secret"), directory.path().join("shown/absolute"))
        .unwrap();
    let mount = format!("{}:/data:ro", directory.path().join("shown").to_str().unwrap());
    for path in ["/data/link", "/data/absolute", "/data/../data/../secret"] {
        let output = run(&["--mount", &mount, "--", "cat", path]);
        assert_eq!(output.status.code(), Some(1), "{path}: {output:?}");
        assert!(output.stdout.is_empty(), "{path}: {output:?}");
    }
}

#[test]
fn the_deadline_ends_the_sandbox() {
    needs_kvm!();
    let scripts = [
        "sleep 60",
        "while :; do :; done",
        "trap '' TERM INT; while :; do sleep 1; done",
        "sleep 60 & sleep 60 & wait",
    ];
    for script in scripts {
        let started = Instant::now();
        check(&["--timeout", "500ms", "--", "sh", "-c", script], 124, "");
        assert!(started.elapsed() >= Duration::from_millis(500), "{script}");
        assert!(started.elapsed() < Duration::from_secs(10), "{script}");
    }
}

#[test]
fn signals_reach_the_program() {
    needs_kvm!();
    for (signal, script, status) in [
        ("TERM", "echo ready; exec sleep 60", 143),
        ("INT", "echo ready; exec sleep 60", 130),
        ("TERM", "trap 'exit 7' TERM; echo ready; while :; do :; done", 7),
    ] {
        let mut command = luminaguard(&["--timeout", "30s", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        assert_eq!(wait(&mut child, Duration::from_secs(20)), Some(status), "{signal} {script}");
    }
}

#[test]
fn what_cannot_run_says_so() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8], mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let elf = std::fs::read("/bin/true").unwrap();
    let mut other_machine = elf.clone();
    other_machine[18..20].copy_from_slice(&183u16.to_le_bytes());
    // The first loadable segment of the program headers gets an address at the very end of the address space.
    let mut wrapping = elf.clone();
    let headers = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
    let load = (0..8).map(|n| headers + n * 56).find(|&at| elf[at] == 1).unwrap();
    wrapping[load + 16..load + 24].copy_from_slice(&u64::MAX.to_le_bytes());
    put("truncated", &elf[..100], 0o755);
    put("other-machine", &other_machine, 0o755);
    put("wrapping", &wrapping, 0o755);
    put("text", b"no program\n", 0o644);
    put("empty-interpreter", b"#!\n", 0o755);
    put("no-interpreter", b"#!/no/such/interpreter\n", 0o755);
    let mount = format!("{}:/data:ro", directory.path().to_str().unwrap());
    refused(&["--", "no-such-program"], 127, "no-such-program");
    refused(&["--", "/no/such/program"], 127, "/no/such/program");
    refused(&["--", "/usr"], 126, "/usr");
    for name in ["truncated", "other-machine", "text", "empty-interpreter", "wrapping"] {
        refused(&["--mount", &mount, "--", &format!("/data/{name}")], 126, name);
    }
    let output = run(&["--mount", &mount, "--", "/data/no-interpreter"]);
    assert!(matches!(output.status.code(), Some(126 | 127)), "{output:?}");
}

#[test]
fn what_cannot_be_had_says_so() {
    needs_kvm!();
    refused(&["--memory", "1M", "--", "true"], 125, "give at least");
    refused(&["--memory", "1000T", "--", "true"], 125, "more than this machine has");
    refused(&["--mount", "/no/such/source:/data", "--", "true"], 125, "/no/such/source");
    refused(&["--mount", "/etc:data", "--", "true"], 125, "start it with /");
    refused(&["--image", "dir:/no/such/image", "--", "true"], 125, "/no/such/image");
    refused(&["--workdir", "/no/such/directory", "--", "true"], 125, "/no/such/directory");
    refused(&["--stats-file", "/no/such/directory/file", "--", "true"], 125, "/no/such/directory/file");
}

#[test]
fn a_guest_that_takes_without_end_meets_its_limits() {
    needs_kvm!();
    let scripts = [
        "x = b'x' * 200_000_000",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "f = open('/tmp/f', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    ];
    // Python gets ENOMEM, or the program is killed.
    for script in scripts {
        let output = run(&["--memory", "64M", "--timeout", "60s", "--", "python3", "-c", script]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 137)), "{script}: {:?} {stderr}", output.status);
        assert!(!stderr.contains("internal error"), "{stderr}");
    }
    let bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError as e: os.write(1, b'no more\\n'); break";
    let output = run(&["--max-processes", "20", "--timeout", "20s", "--", "python3", "-c", bomb]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("no more"), "{output:?}");
}

#[test]
fn the_process_that_linux_would_choose_dies_when_memory_is_used_up() {
    needs_kvm!();
    // A small process lives on beside one that takes all, unless it has volunteered.
    let script = "import os, signal, sys
hold, let_go = os.pipe()
ready, say = os.pipe()
small = os.fork()
if small == 0:
    os.close(let_go)
    with open('/proc/self/oom_score_adj', 'w') as f: f.write(sys.argv[1])
    os.write(say, b'x')
    os.read(hold, 1)
    os._exit(5)
os.close(hold)
os.read(ready, 1)
big = os.fork()
if big == 0:
    os.close(let_go)
    blocks = []
    while True: blocks.append(bytearray(b'x' * (4 << 20)))
big = os.waitpid(big, 0)[1]
os.close(let_go)
print(big, os.waitpid(small, 0)[1])";
    for (adjust, expected) in [("0", "9 1280\n"), ("-1000", "9 1280\n"), ("1000", "9 9\n")] {
        let output = run(&["--memory", "128M", "--timeout", "60s", "--", "python3", "-c", script, adjust]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{adjust}: {output:?}");
        assert_eq!(output.status.code(), Some(0), "{adjust}");
    }
}

#[test]
fn statistics_are_written_where_they_were_asked_for() {
    needs_kvm!();
    let stderr = check(&["--stats", "--", "true"], 0, "");
    assert!(stderr.contains("exited with status 0") && stderr.contains("exit_group"), "{stderr}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stats.json");
    let words = ["--stats=json", "--stats-file", file.to_str().unwrap(), "--", "sh", "-c", "exit 5"];
    assert_eq!(check(&words, 5, ""), "");
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(stats["exit_status"], 5);
    assert_eq!(stats["outcome"]["exited"], 5);
    assert!(stats["exits"]["syscalls"].as_u64().unwrap() > 10);
    assert!(stats["peak_memory_bytes"].as_u64().unwrap() > 4096);
    for time in ["spawn_ns", "wall_ns", "cpu_time_ns"] {
        assert!(stats[time].as_u64().unwrap() > 0, "{time}");
    }
}

#[test]
fn system_calls_can_be_traced() {
    needs_kvm!();
    let stderr = check(&["--strace", "--", "sh", "-c", "exit 0"], 0, "");
    assert!(stderr.contains("exit_group"), "{stderr}");
}

#[test]
fn the_death_of_the_harness_ends_its_sandboxes() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Command::new(LUMINAGUARD)
        .args(["bench", "scale", "--agents", "4", "--repetitions", "50", "--out"])
        .arg(directory.path())
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let mut vmms = Vec::new();
    while vmms.len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "the harness started no sandboxes");
        std::thread::sleep(Duration::from_millis(5));
        vmms = vmms_of(harness.id());
    }
    harness.kill().unwrap();
    harness.wait().unwrap();
    let killed = Instant::now();
    while vmms.iter().any(|pid| is_vmm(*pid)) {
        assert!(killed.elapsed() < Duration::from_secs(5), "a vmm outlived the harness");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The vmm processes whose parent is `parent`.
fn vmms_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        of == Some(parent) && is_vmm(*pid)
    })
    .collect()
}

fn is_vmm(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).nth(1) == Some(b"vmm")
}

/// The exit status, waited for with a limit.
#[track_caller]
fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if started.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the program did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
