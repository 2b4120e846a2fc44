//! Work as agents do it, with results that are checked, and what must not be left behind.

mod needs_kvm;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use needs_kvm::needs_kvm;

const LUMINAGUARD: &str = env!("CARGO_BIN_EXE_luminaguard");

fn run(words: &[&str]) -> Output {
    Command::new(LUMINAGUARD).arg("run").args(words).stdin(Stdio::null()).output().unwrap()
}

/// What a program prints that must succeed.
#[track_caller]
fn prints(words: &[&str]) -> String {
    let output = run(words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A script in `/bin/bash`, with what it must print.
#[track_caller]
fn script(text: &str, expected: &str) {
    assert_eq!(prints(&["--", "bash", "-ec", text]), expected, "{text}");
}

#[test]
fn git_works_on_a_mounted_repository() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let git = |words: &[&str]| {
        let identity =
            ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"];
        let status =
            Command::new("git").current_dir(directory.path()).args(identity).args(words).output().unwrap();
        assert!(status.status.success(), "{status:?}");
    };
    git(&["init", "--quiet"]);
    for n in 1..=4 {
        std::fs::write(directory.path().join("file"), format!("{n}\n")).unwrap();
        git(&["add", "file"]);
        git(&["commit", "--quiet", "-m", &format!("change {n}")]);
    }
    let mount = format!("{}:/src:ro", directory.path().display());
    let safe = [
        "--env",
        "GIT_CONFIG_COUNT=1",
        "--env",
        "GIT_CONFIG_KEY_0=safe.directory",
        "--env",
        "GIT_CONFIG_VALUE_0=*",
    ];
    let words = |command: &[&'static str]| {
        let mut words = vec!["--mount", &mount, "--workdir", "/src"];
        words.extend(safe);
        words.push("--");
        words.extend(command);
        prints(&words)
    };
    assert_eq!(words(&["git", "log", "--format=%s", "-3"]), "change 4\nchange 3\nchange 2\n");
    assert_eq!(words(&["git", "status", "--short"]), "");
    let diff = words(&["git", "diff", "HEAD~1", "--stat"]);
    assert!(diff.contains("1 insertion(+), 1 deletion(-)"), "{diff}");
}

#[test]
fn git_makes_a_repository_of_its_own() {
    needs_kvm!();
    script(
        "export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
         cd /tmp; git init -q -b main r; cd r; echo one > f; git add f; git commit -q -m one
         git checkout -q -b other; echo two >> f; git commit -q -a -m two; git checkout -q main
         git merge -q other; cat f; git clone -q . ../copy; cd ../copy; git log --format=%s; git fsck --full 2>&1",
        "one\ntwo\ntwo\none\n",
    );
}

#[test]
fn shells_and_tools_do_real_work() {
    needs_kvm!();
    script("seq 1 1000 | awk '{s+=$1} END {print s}'", "500500\n");
    script("for i in 3 1 2; do echo $i; done | sort | tr '\\n' ' '", "1 2 3 ");
    script("cd /tmp; mkdir -p a/b; echo x > a/b/c; tar cf t.tar a; rm -r a; tar xf t.tar; cat a/b/c", "x\n");
    script("echo hello | gzip | gzip -d; printf abc | sha256sum | cut -c1-8", "hello\nba7816bf\n");
    script(
        "find /etc/profile -newer /no/such 2>/dev/null || echo no; diff <(echo a) <(echo b) | tail -1",
        "no\n> b\n",
    );
    script("sleep 60 & p=$!; kill $p; wait $p || echo $?", "143\n");
    script("trap 'echo bye' EXIT; (exit 3) || echo $?", "3\nbye\n");
    script("x=$(for i in $(seq 1 50); do echo -n $i; done); echo ${#x}", "91\n");
    script("coproc cat; echo hi >&${COPROC[1]}; read -r line <&${COPROC[0]}; echo $line", "hi\n");
    script("ulimit -n 64; ulimit -n; cat <<< here; yes | head -2", "64\nhere\ny\ny\n");
    script(
        "seq 1 20 | xargs -P 4 -n 1 sh -c 'echo $0' | sort -n | tail -1; ls /proc/self/fd | wc -l",
        "20\n4\n",
    );
}

#[test]
fn python_does_real_work() {
    needs_kvm!();
    let python =
        |text: &str, expected: &str| assert_eq!(prints(&["--", "python3", "-c", text]), expected, "{text}");
    python(
        "import json, math; print(json.dumps({'a': math.factorial(20)}))",
        "{\"a\": 2432902008176640000}\n",
    );
    python(
        "import subprocess; print(subprocess.run(['sh', '-c', 'cat; exit 3'], input=b'hi', capture_output=True))",
        "CompletedProcess(args=['sh', '-c', 'cat; exit 3'], returncode=3, stdout=b'hi', stderr=b'')\n",
    );
    python(
        "from concurrent.futures import ThreadPoolExecutor as T\nwith T(8) as t: print(sum(t.map(lambda n: n * n, range(500))))",
        "41541750\n",
    );
    python(
        "import multiprocessing as m, sys\nq = m.get_context('fork').SimpleQueue()\n\
         p = [m.get_context('fork').Process(target=q.put, args=(n,)) for n in range(4)]\n\
         [x.start() for x in p]; [x.join() for x in p]\nprint(sorted(q.get() for _ in p))",
        "[0, 1, 2, 3]\n",
    );
    python(
        "import tempfile, os, sqlite3\nd = tempfile.mkdtemp()\nc = sqlite3.connect(d + '/db')\nc.execute('create table t(x)')\n\
         c.executemany('insert into t values(?)', [(n,) for n in range(1000)])\nc.commit()\n\
         print(sqlite3.connect(d + '/db').execute('select sum(x) from t').fetchone(), os.listdir(d))",
        "(499500,) ['db']\n",
    );
    python(
        "import signal, time\nsignal.signal(signal.SIGALRM, lambda *_: print('alarm'))\nsignal.setitimer(signal.ITIMER_REAL, 0.02)\ntime.sleep(0.1)",
        "alarm\n",
    );
    python("import mmap\nm = mmap.mmap(-1, 1 << 20)\nm[5:8] = b'abc'\nprint(m.find(b'abc'))", "5\n");
}

#[test]
fn ctrl_c_ends_the_pipeline_in_the_sandbox() {
    needs_kvm!();
    // As a terminal does it: the signal goes to the whole process group of the host.
    let mut child = Command::new(LUMINAGUARD)
        .args(["run", "--timeout", "30s", "--", "bash", "-c", "echo ready; sleep 60 | cat; echo not reached"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 6]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let started = Instant::now();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*rest), (Some(130), ""));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn closed_standard_streams_are_no_failure_of_ours() {
    needs_kvm!();
    for (redirection, command, expected) in [
        // The runtime of the binary opens /dev/null in their place.
        (">&-", "echo x", 0),
        ("<&-", "cat", 0),
        ("2>&-", "echo x >&2 || true", 0),
        (">/dev/full", "echo x", 1),
        ("<&- >&- 2>&-", "exit 5", 5),
    ] {
        let line = format!("\"$0\" run --timeout 20s -- sh -c '{command}' {redirection}");
        let output =
            Command::new("sh").args(["-c", &line, LUMINAGUARD]).stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("internal error"), "{redirection}: {errors}");
        if redirection != "<&-" {
            assert_eq!(output.status.code(), Some(expected), "{redirection}: {errors}");
        }
    }
}

#[test]
fn a_flood_of_processes_ends_at_its_limit_and_with_the_sandbox() {
    needs_kvm!();
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 1; echo alive";
    let output = run(&["--max-processes", "30", "--timeout", "20s", "--", "bash", "-c", bomb]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("internal error"), "{errors}");
    assert!(output.status.code().is_some());
}

#[test]
fn nothing_is_left_behind() {
    needs_kvm!();
    let count = |directory: &str| std::fs::read_dir(directory).unwrap().count();
    let names = |directory: &str| {
        let mut names: Vec<_> =
            std::fs::read_dir(directory).unwrap().flatten().map(|it| it.file_name()).collect();
        names.sort();
        names
    };
    let guarded = ["/", "/etc", "/usr", "/var", "/dev", "/root"];
    let before: Vec<_> = guarded.iter().map(|directory| names(directory)).collect();
    let descriptors = count("/proc/self/fd");
    let marker = format!("marker-{}", std::process::id());
    let command = format!(
        "mkdir /new /etc/new /var/new; echo x > /root/x; echo x > /dev/x; rm -rf /usr/bin/env; \
         (setsid sleep 100 {marker} &) ; sleep 100 & echo done; exit 4"
    );
    for words in [["--timeout", "30s"], ["--memory", "64M"]] {
        let mut all = words.to_vec();
        all.extend(["--", "bash", "-c", &command]);
        assert_eq!(run(&all).status.code(), Some(4));
    }
    run(&["--timeout", "200ms", "--", "bash", "-c", &command.replace("exit 4", "wait")]);
    let mut killed = Command::new(LUMINAGUARD)
        .args(["run", "--", "sleep", "100", &marker])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    killed.kill().unwrap();
    killed.wait().unwrap();
    for (directory, before) in guarded.iter().zip(before) {
        assert_eq!(names(directory), before, "{directory}");
    }
    assert_eq!(count("/proc/self/fd"), descriptors);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let left: Vec<_> = processes
        .filter(|process| {
            std::fs::read(process.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&marker))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_fifo_that_is_removed_meanwhile_is_still_what_a_waiting_task_opens() {
    needs_kvm!();
    let script = "\
import os, subprocess, time
os.mkfifo('/tmp/f')
writer = subprocess.Popen(['sh', '-c', 'echo hello > /tmp/f'])
while open(f'/proc/{writer.pid}/stat').read().split()[2] != 'S': time.sleep(0.01)
fd = os.open('/tmp/f', os.O_RDONLY)
os.unlink('/tmp/f')
print(os.read(fd, 10), os.path.exists('/tmp/f'), writer.wait())";
    assert_eq!(prints(&["--timeout", "20s", "--", "python3", "-c", script]), "b'hello\\n' False 0\n");
}
