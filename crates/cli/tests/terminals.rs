//! `luminaguard run -t` on a terminal: each test makes a pseudo-terminal, types at it, and reads what it shows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long anything may take that must come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a program at it, whose screen is kept.
struct Session {
    keys: File,
    slave: OwnedFd,
    shown: Receiver<Vec<u8>>,
    screen: String,
    /// How much of the screen was waited for already.
    seen: usize,
    child: Child,
}

impl Session {
    /// Runs a command with `luminaguard run -t`; `None`, said loudly, where it cannot run.
    fn start(command: &[&str]) -> Option<Session> {
        let has = |program: &&str| {
            ["/bin", "/usr/bin"].iter().any(|directory| Path::new(directory).join(program).exists())
        };
        if !Path::new("/dev/kvm").exists() || !command.first().is_some_and(has) {
            eprintln!("SKIPPED: there is no /dev/kvm or no {command:?} on this machine");
            return None;
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || {
            File::options().read(true).write(true).open(name.to_str().unwrap()).map(OwnedFd::from).unwrap()
        };
        let slave = open();
        tcsetwinsize(&slave, size(30, 100)).unwrap();
        let mut luminaguard = Command::new(env!("CARGO_BIN_EXE_luminaguard"));
        luminaguard.args(["run", "-t", "--timeout", "60s", "--"]).args(command).env("TERM", "xterm");
        let child = luminaguard
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .unwrap();
        let keys = File::from(master);
        let mut output = keys.try_clone().unwrap();
        let (sender, shown) = channel();
        // It ends with the test, at the latest when the last slave is closed.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Some(Session { keys, slave, shown, screen: String::new(), seen: 0, child })
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Waits until a text is shown that was not waited for before.
    fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            match self.shown.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.screen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} was not shown after {:?}", &self.screen),
            }
        }
    }

    /// Types a line for a shell, once it asks for one: what is typed before is shown twice.
    fn command(&mut self, line: &str) {
        self.expect("# ");
        self.press(line.as_bytes());
        self.press(b"\r");
    }

    /// Waits for the end of the command.
    fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end: {:?}", self.screen);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // One that has ended can not be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn a_shell_in_a_terminal_has_job_control() {
    let Some(mut shell) = Session::start(&["bash", "--norc", "-i"]) else { return };
    // The job says when the terminal is its own, with words that are not in the line as it is shown.
    let job =
        r#"until [ $(cut -d" " -f8 /proc/$$/stat) = $$ ]; do sleep 0.05; done; echo in fr""ont; sleep 100"#;
    shell.command(&format!("stty size; tty; bash -c '{job}' & jobs"));
    shell.expect("30 100\r\n/dev/pts/0\r\n");
    shell.expect("Running");
    shell.command("fg");
    shell.expect("in front\r\n");
    shell.press(b"\x1a");
    shell.expect("Stopped");
    shell.command("bg");
    shell.expect("sleep 100' &\r\n");
    shell.command("kill %1; wait");
    shell.expect("Terminated");
    shell.command("echo ready; cat; echo caught=$?");
    // What is typed while the shell still has its own settings is not shown by the terminal.
    shell.expect("ready\r\n");
    shell.press(b"lines come back\r");
    shell.expect("back\r\nlines come back\r\n");
    shell.press(b"\x03");
    shell.expect("^C");
    shell.command("exit 7");
    shell.expect("exit");
    assert_eq!(shell.end().code(), Some(7));
}

#[test]
fn another_size_reaches_the_program() {
    let Some(mut shell) = Session::start(&[
        "bash",
        "--norc",
        "-c",
        "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done",
    ]) else {
        return;
    };
    shell.expect("ready");
    // It tells this process, which is not at this terminal, by hand.
    tcsetwinsize(&shell.slave, size(50, 132)).unwrap();
    let pid = rustix::process::Pid::from_raw(shell.child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    shell.expect("50 132");
    shell.press(b"\x03");
    assert_eq!(shell.end().code(), Some(130));
}

#[test]
fn the_terminal_gets_its_settings_back_at_every_end() {
    for (command, keys, status) in [
        ("echo ready; read line; exit 3", &b"\r"[..], 3),
        ("echo ready; kill -KILL $$", b"", 137),
        ("echo ready; sleep 100", b"\x03", 130),
    ] {
        let Some(mut shell) = Session::start(&["bash", "--norc", "-c", command]) else { return };
        shell.expect("ready");
        shell.press(keys);
        assert_eq!(shell.end().code(), Some(status), "{command}");
        let after = tcgetattr(&shell.slave).unwrap().local_modes;
        assert!(
            after.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG),
            "{command}: {after:?}"
        );
    }
}

#[test]
fn an_editor_saves_a_file() {
    let Some(mut shell) = Session::start(&["bash", "--norc", "-i"]) else { return };
    if lacks("vi") {
        return;
    }
    shell.press(b"vi -u NONE /tmp/note; wc -c < /tmp/note; cat /tmp/note; exit\r");
    shell.expect("/tmp/note\"");
    shell.press(b"ihello from vi\x1b:wq\r");
    shell.expect("14\r\nhello from vi\r\n");
    assert_eq!(shell.end().code(), Some(0));
}

/// Says, loudly, if a program is not on this machine.
fn lacks(program: &str) -> bool {
    let lacks = !Path::new("/usr/bin").join(program).exists();
    if lacks {
        eprintln!("SKIPPED: there is no {program} on this machine");
    }
    lacks
}

#[test]
fn a_pager_shows_pages() {
    let Some(mut shell) = Session::start(&["bash", "--norc", "-i"]) else { return };
    if lacks("less") {
        return;
    }
    shell.command("seq 1000 1200 | less");
    shell.expect("1000\r\n1001");
    shell.expect("1028");
    shell.press(b" ");
    shell.expect("1057");
    shell.press(b"/1150\r");
    shell.expect("1178");
    shell.press(b"q");
    shell.command("exit");
    assert_eq!(shell.end().code(), Some(0));
}

#[test]
fn programs_make_terminals_of_their_own() {
    let Some(mut shell) = Session::start(&["bash", "--norc", "-i"]) else { return };
    if lacks("script") || lacks("python3") {
        return;
    }
    shell.command("script -qc 'tty; stty size' /tmp/log; grep -c pts /tmp/log");
    shell.expect("/dev/pts/1\r\n30 100\r\n");
    shell.expect("2\r\n");
    shell.command("python3 -c \"import pty; print(pty.spawn(['sh', '-c', 'tty; read line; exit 3']))\"");
    shell.expect("/dev/pts/1\r\n");
    shell.press(b"a line\r");
    shell.expect("768\r\n");
    shell.command("stty -a < /dev/tty | head -n 1; exit");
    shell.expect("speed 38400 baud; rows 30; columns 100;");
    assert_eq!(shell.end().code(), Some(0));
}

#[test]
fn a_multiplexer_is_left_and_found_again() {
    let Some(mut shell) = Session::start(&["bash", "--norc", "-i"]) else { return };
    if lacks("tmux") {
        return;
    }
    shell.command("export LC_ALL=C.UTF-8; tmux -f /dev/null new-session 'exec bash --norc -i'");
    shell.command("tty; echo in the p\"\"ane");
    shell.expect("/dev/pts/1");
    shell.expect("in the pane");
    shell.press(b"\x02d");
    shell.expect("[detached (from session 0)]");
    shell.command("echo count=$(tmux capture-pane -p | grep -c '^in the pane'); tmux kill-server; exit 4");
    shell.expect("count=1\r\n");
    assert_eq!(shell.end().code(), Some(4));
}

#[test]
fn without_a_terminal_it_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_luminaguard"))
        .args(["run", "-t", "--", "true"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        message,
        "luminaguard: --tty needs a terminal as standard input: leave it out, or run this in a terminal\n"
    );
}
