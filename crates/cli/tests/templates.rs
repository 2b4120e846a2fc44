//! Templates through the command line: `run --template`, `template`, `repl`. Each test that needs one says loudly that it is
//! skipped where there is no /dev/kvm.

mod needs_kvm;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use needs_kvm::needs_kvm;

fn luminaguard<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luminaguard"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs it with this input, expects this status and this output, and answers what was written to standard error.
#[track_caller]
fn check(words: &[&str], input: &str, status: i32, stdout: &str) -> String {
    let Output { status: found, stdout: out, stderr } = with_input(words, input);
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let out = String::from_utf8_lossy(&out).into_owned();
    assert_eq!((found.code(), &*out), (Some(status), stdout), "stderr: {stderr}");
    stderr
}

fn with_input(words: &[&str], input: &str) -> Output {
    let mut command = luminaguard(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().expect("luminaguard can be started");
    if let Some(mut stdin) = child.stdin.take() {
        // What ends early reads no more.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().unwrap()
}

#[track_caller]
fn python(args: &[&str], status: i32, stdout: &str) -> String {
    check(&[&["run", "--template", "python", "--"], args].concat(), "", status, stdout)
}

/// LuminaGuard itself refuses, in one line that holds `part`.
#[track_caller]
fn refused(words: &[&str], part: &str) {
    let stderr = check(words, "", 125, "");
    assert!(stderr.starts_with("luminaguard: ") && stderr.lines().count() == 1, "{stderr:?}");
    assert!(stderr.contains(part), "{stderr:?} should contain {part:?}");
}

fn file(directory: &tempfile::TempDir, text: &str) -> String {
    let path = directory.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_built_in_templates_are_listed_and_shown() {
    let output = luminaguard(&["template", "list"]).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(list.lines().any(|line| line.starts_with("base ")), "{list}");
    assert!(list.lines().any(|line| line.starts_with("python ") && line.contains("interpreter")), "{list}");
    let output = luminaguard(&["template", "show", "python"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.starts_with("name = \"python\"\n") && shown.contains("[warm-up]\npython = \"\"\n"),
        "{shown}"
    );
}

#[test]
fn what_is_shown_is_a_template_itself() {
    let directory = tempfile::tempdir().unwrap();
    let first = luminaguard(&["template", "show", "base"]).output().unwrap().stdout;
    let path = file(&directory, std::str::from_utf8(&first).unwrap());
    let second = luminaguard(&["template", "show", &path]).output().unwrap().stdout;
    assert_eq!(first, second);
}

#[test]
fn a_template_that_cannot_be_used_is_refused_in_one_line() {
    refused(&["template", "show", "node"], "there is no template `node`: use base, python, or a file");
    refused(&["template", "build", "/no/such.toml"], "cannot read /no/such.toml");
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "name = \"x\"\nmemroy = \"1G\"\n");
    refused(&["run", "--template", &path, "--", "true"], "unknown key `memroy`: did you mean `memory`?");
    refused(&["repl", "--template", &path], "`memroy`");
    let path = file(&directory, "name = \"x\"\nmemory = \"1M\"\n");
    refused(
        &["template", "show", &path],
        "cannot use `memory`: a memory limit of 1048576 bytes is too small",
    );
    refused(&["run", "--template", "base"], "give a program");
    refused(&["run", "--template", "base", "--strace", "--", "true"], "--strace");
}

#[test]
fn a_template_is_built_and_measured() {
    needs_kvm!();
    let output = luminaguard(&["template", "build", "python"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in ["template  python", "built     in ", "memory    ", "fork      ", "private   ", "answer    "]
    {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}: {text}");
    }
    let directory = tempfile::tempdir().unwrap();
    let warm_up = |rest: &str| file(&directory, &format!("name = \"x\"\n[warm-up]\n{rest}"));
    refused(&["template", "build", &warm_up("python = \"1 / 0\"")], "ZeroDivisionError: division by zero");
    let path = warm_up("command = [\"sh\", \"-c\", \"echo no disk >&2; exit 3\"]");
    refused(&["template", "build", &path], "exit status 3 before the template was ready: no disk");
    refused(&["template", "build", &warm_up("command = [\"no-such-program\"]")], "no-such-program: ");
    let path = warm_up("command = [\"sleep\", \"100\"]\nready.file = \"/x\"\nlimit = \"300ms\"");
    refused(&["template", "build", &path], "not ready within 300ms");
}

#[test]
fn code_is_evaluated_by_the_warm_interpreter() {
    needs_kvm!();
    python(&["-c", "import json; print(json.dumps({\"a\": 1}))"], 0, "{\"a\": 1}\n");
    python(&["-cprint(__name__); 6 * 7"], 0, "__main__\n");
    python(&["-c", "import sys; print(sys.argv)", "x", "--y", "ü\n"], 0, "['-c', 'x', '--y', 'ü\\n']\n");
    let stderr = python(&["-c", "print(1)\nprint(2, file=__import__('sys').stderr)"], 0, "1\n");
    assert_eq!(stderr, "2\n");
}

#[test]
fn the_exit_status_of_code_is_pythons() {
    needs_kvm!();
    let stderr = python(&["-c", "def f(): return 1 / 0\nf()"], 1, "");
    assert!(stderr.starts_with("Traceback (most recent call last):\n"), "{stderr}");
    assert!(stderr.ends_with("ZeroDivisionError: division by zero\n"), "{stderr}");
    assert!(python(&["-c", "1 +"], 1, "").ends_with("SyntaxError: invalid syntax\n"));
    python(&["-c", "raise SystemExit(7)"], 7, "");
    assert_eq!(python(&["-c", "import sys; sys.exit('no')"], 1, ""), "no\n");
    python(&["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], 137, "");
    assert!(python(&["-c", "raise KeyboardInterrupt"], 130, "").contains("KeyboardInterrupt"));
}

#[test]
fn code_ends_as_an_interpreter_does() {
    needs_kvm!();
    let code = "import atexit, threading, time\natexit.register(print, 'atexit')\n\
                threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\nprint('main')";
    python(&["-c", code], 0, "main\nthread\natexit\n");
}

#[test]
fn standard_input_reaches_code_and_programs() {
    needs_kvm!();
    let code = "import sys; print(sys.stdin.read().upper())";
    check(&["run", "--template", "python", "--", "-c", code], "a line\n", 0, "A LINE\n\n");
    python(&["-c", code], 0, "\n");
    let large = "x".repeat(1_000_000);
    let count = "import sys; print(len(sys.stdin.read()))";
    check(&["run", "--template", "python", "--", "-c", count], &large, 0, "1000000\n");
    check(&["run", "--template", "base", "--", "wc", "-c"], &large, 0, "1000000\n");
    check(&["run", "--template", "python"], "print(6 * 7)", 0, "42\n");
}

#[test]
fn what_else_python3_takes_is_launched_as_a_program() {
    needs_kvm!();
    python(&["-m", "json.tool", "/no-such-file"], 2, "");
    python(&["-I", "-c", "print(6 * 7)"], 0, "42\n");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("s.py"), "import sys\nprint(sys.argv)\nsys.exit(4)\n").unwrap();
    let mount = format!("{}:/src", directory.path().display());
    let words = ["run", "--template", "python", "--mount", &mount, "--", "/src/s.py", "a"];
    check(&words, "", 4, "['/src/s.py', 'a']\n");
}

#[test]
fn the_options_of_run_apply_to_a_fork() {
    needs_kvm!();
    let all = ["--hostname", "box", "--env", "A=b", "--workdir", "/tmp", "--user", "5:6"];
    let code = "import os, socket; print(os.uname().nodename, os.environ['A'], os.getcwd(), os.getuid(), os.getgid())";
    let words = |template, rest: &[&'static str]| {
        [&["run", "--template", template], &all[..], &["--"], rest].concat()
    };
    check(&words("python", &["-c", code]), "", 0, "box b /tmp 5 6\n");
    let script = "echo $(uname -n) $A $PWD $(id -u) $(id -g)";
    check(&words("base", &["sh", "-c", script]), "", 0, "box b /tmp 5 6\n");
    let slow = "import time; time.sleep(60)";
    check(&["run", "--template", "python", "--timeout", "500ms", "--", "-c", slow], "", 124, "");
    check(&["run", "--template", "base", "--timeout", "500ms", "--", "sleep", "60"], "", 124, "");
    let words = ["run", "--template", "base", "--stats=json", "--", "true"];
    let stats: serde_json::Value = serde_json::from_str(&check(&words, "", 0, "")).unwrap();
    assert_eq!((&stats["exit_status"], &stats["outcome"]["exited"]), (&0.into(), &0.into()), "{stats}");
    assert_ne!(stats["processes_created"], 0);
}

#[test]
fn the_exit_status_of_a_program_in_a_fork_is_that_of_run() {
    needs_kvm!();
    check(&["run", "--template", "base", "--", "sh", "-c", "echo out; exit 3"], "", 3, "out\n");
    check(&["run", "--template", "base", "--", "sh", "-c", "kill -TERM $$"], "", 143, "");
    check(&["run", "--template", "base", "--", "no-such-program"], "", 127, "");
    check(&["run", "--template", "base", "--", "/etc/passwd"], "", 126, "");
    check(&["run", "--template", "base", "--workdir", "/no", "--", "true"], "", 125, "");
}

#[test]
fn signals_reach_what_runs_in_a_fork() {
    needs_kvm!();
    let code = "import time\nprint('ready', flush=True)\ntime.sleep(60)";
    let cases: [(&[&str], i32, i32); 3] = [
        (&["--template", "python", "--", "-c", code], 2, 130),
        (&["--template", "python", "--", "-c", code], 15, 143),
        (&["--template", "base", "--", "sh", "-c", "trap 'exit 9' TERM; echo ready; sleep 60 & wait"], 15, 9),
    ];
    for (words, signal, status) in cases {
        let mut command = luminaguard(&[&["run"], words].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = rustix::process::Pid::from_child(&child);
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status), "{words:?}");
    }
}

#[test]
fn a_template_of_the_users_is_warmed_up_by_a_program() {
    needs_kvm!();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    std::fs::write(directory.path().join("data/in"), "from the host").unwrap();
    let path = file(
        &directory,
        r#"
        name = "service"
        memory = "64M"
        hostname = "box"

        [[mount]]
        source = "data"
        target = "/data"

        [env]
        MODE = "test"

        [warm-up]
        command = ["sh", "-c", "echo $MODE $(cat /data/in) > /warm; sleep 1000 & echo it is ready; wait"]
        ready = { line = "is ready" }
        "#,
    );
    let script = "cat /warm; uname -n; echo $MODE; cat /proc/[0-9]*/comm | grep sleep";
    let run = ["run", "--template", &path, "--", "sh", "-c", script];
    check(&run, "", 0, "test from the host\nbox\ntest\nsleep\n");
    let exits =
        file(&directory, "name = \"x\"\n[warm-up]\ncommand = [\"sh\", \"-c\", \"echo warm > /made\"]\n");
    check(&["run", "--template", &exits, "--", "cat", "/made"], "", 0, "warm\n");
    let cell =
        file(&directory, "name = \"x\"\n[warm-up]\npython = \"open('/made', 'w').write('by a cell')\"\n");
    check(&["run", "--template", &cell, "--", "cat", "/made"], "", 0, "by a cell");
    check(&["repl", "--template", &cell], "open('/made').read()\n", 0, "'by a cell'\n");
}

#[test]
fn a_session_evaluates_what_it_is_given() {
    needs_kvm!();
    let input = "x = 6\nx * 7\n\nfor i in range(2):\n    print(i)\n\n    print('-')\nprint('end')\n'''a\n:help\n'''\n";
    check(&["repl"], input, 0, "42\n0\n-\n1\n-\nend\n'a\\n:help\\n'\n");
    let input = "def f(a):\n    if a:\n        return 1\n    else:\n        return 2\nf(0), f(1)\n\
                 @staticmethod\ndef g(): return 3\ng()\nimport asyncio\ntry:\n    1/0\nexcept ZeroDivisionError:\n    print('caught')\n";
    check(&["repl"], input, 0, "(2, 1)\n3\ncaught\n");
    check(&["repl"], "print('no newline')", 0, "no newline\n");
    check(&["repl", "--template", "base"], "6 * 7\n", 0, "42\n");
}

#[test]
fn a_session_goes_on_after_an_exception_and_ends_with_status_1() {
    needs_kvm!();
    let stderr = check(&["repl"], "1 / 0\nx = (1 +\n2)\nx\n1 +\n'end'\n", 1, "3\n'end'\n");
    assert!(stderr.contains("ZeroDivisionError: division by zero\n"), "{stderr}");
    assert!(stderr.contains("SyntaxError: invalid syntax\n"), "{stderr}");
    let stderr = check(&["repl"], "def f():\n", 1, "");
    assert!(stderr.contains("IndentationError"), "{stderr}");
}

#[test]
fn a_cell_that_takes_too_long_is_interrupted_and_the_session_goes_on() {
    needs_kvm!();
    let input = "x = 1\nwhile True: x += 1\nx > 1\n";
    let stderr = check(&["repl", "--cell-timeout", "300ms"], input, 1, "True\n");
    assert!(stderr.contains("KeyboardInterrupt") && stderr.contains("more than 300ms"), "{stderr}");
    let stubborn = "import time; x = 1\nwhile True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt: pass\n'x' in globals()\n";
    let stderr = check(&["repl", "--cell-timeout", "300ms"], stubborn, 1, "False\n");
    assert!(stderr.contains("its interpreter was killed; a new one is started"), "{stderr}");
}

#[test]
fn an_interrupt_ends_the_cell_and_not_the_session() {
    needs_kvm!();
    let mut child = luminaguard(&["repl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Short sleeps: a signal that comes just before one does not end it, in any Python.
    stdin.write_all(b"import time; print('ready'); [time.sleep(0.1) for _ in range(600)]\n6 * 7\n").unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(stdout.next().unwrap().unwrap(), "ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(stdout.next().unwrap().unwrap(), "42");
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("KeyboardInterrupt"));
}

#[test]
fn an_interpreter_that_ends_is_replaced() {
    needs_kvm!();
    let input = "x = 1\nopen('/made', 'w').write('file')\nimport os; os._exit(3)\n'x' in globals(), open('/made').read()\n";
    let stderr = check(&["repl"], input, 1, "4\n(False, 'file')\n");
    assert!(stderr.contains("the interpreter ended: exit status 3; a new one is started"), "{stderr}");
}

#[test]
fn the_deadline_ends_a_session() {
    needs_kvm!();
    let stderr = check(&["repl", "--timeout", "500ms"], "import time; time.sleep(60)\n1\n", 124, "");
    assert!(stderr.contains("deadline"), "{stderr}");
}

#[test]
fn a_session_forks_and_goes_back() {
    needs_kvm!();
    let input = "x = 1\nopen('/f', 'w').write('before')\n:fork\nx += 1\nopen('/f', 'w').write('in the fork')\n:fork\nx += 1\nx\n\
                 :back\nx\n:back\nx, open('/f').read()\n:back\nx\n:reset\n'x' in globals()\n";
    let stderr = check(&["repl"], input, 1, "6\n11\n3\n2\n(1, 'before')\n1\nFalse\n");
    assert!(stderr.contains("nothing to go back to"), "{stderr}");
    let output =
        with_input(&["repl"], "open('/root/f', 'w').close()\n:files /root\n:stats\n:help\n:files /no\n");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        stdout.starts_with("f\n") && stdout.contains("system calls") && stdout.contains(":fork"),
        "{stdout}"
    );
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("cannot list /no"), "{stderr}");
}
