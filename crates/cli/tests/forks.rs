//! Forks of templates and of running sandboxes: what they share, and what each has for itself. Each test says loudly that it is
//! skipped where there is no /dev/kvm.

mod common;

use std::time::Duration;

use common::{launcher, with_kvm};
use lg_runtime::{ForkOptions, Sandbox, Template, TemplateSpec, WarmUp};

async fn template(spec: &TemplateSpec) -> Template {
    Template::build(spec, &launcher()).await.unwrap()
}

async fn python() -> Template {
    template(&TemplateSpec::python()).await
}

/// Evaluates a cell that must not fail; answers the text of its last value.
#[track_caller]
fn text(sandbox: &mut Sandbox, source: &str) -> impl Future<Output = String> {
    let place = std::panic::Location::caller();
    async move {
        let cell = sandbox.context().expect("an interpreter").evaluate(source).await;
        let cell = cell.unwrap_or_else(|error| panic!("{place}: {error}"));
        match &cell.outcome {
            Ok(value) => value.as_ref().and_then(|value| value.text()).unwrap_or_default().to_owned(),
            Err(error) => panic!("{place}: {}", error.traceback),
        }
    }
}

async fn end(mut sandbox: Sandbox) {
    sandbox.kill().await.unwrap();
}

/// What must not be the same in two sandboxes.
const OWN: [(&str, &str); 8] = [
    ("the generator of random", "import random; random.random()"),
    ("a random UUID", "import uuid; uuid.uuid4()"),
    ("a UUID of time and node", "import uuid; uuid.uuid1()"),
    ("a secret token", "import secrets; secrets.token_hex()"),
    ("the entropy of the system", "import os; os.urandom(16)"),
    ("the name of a temporary file", "import tempfile; tempfile.mkstemp()[1]"),
    ("the boot id", "open('/proc/sys/kernel/random/boot_id').read()"),
    ("the machine id", "open('/etc/machine-id').read()"),
];

#[test]
fn two_forks_of_a_template_are_two_machines() {
    with_kvm(async {
        let template = python().await;
        let (mut one, mut two) = tokio::try_join!(template.spawn(), template.spawn()).unwrap();
        for (what, cell) in OWN {
            assert_ne!(text(&mut one, cell).await, text(&mut two, cell).await, "{what}");
        }
        end(one).await;
        end(two).await;
        template.end().await.unwrap();
    });
}

#[test]
fn two_forks_of_a_running_sandbox_are_two_machines_and_so_is_the_original() {
    with_kvm(async {
        let template = python().await;
        let mut original = template.spawn().await.unwrap();
        // Whatever these keep between two calls is there before the fork.
        for (_, cell) in OWN {
            text(&mut original, cell).await;
        }
        let mut all = original.fork(2).await.unwrap();
        all.push(original);
        for (what, cell) in OWN {
            let mut found = Vec::new();
            for sandbox in &mut all {
                found.push(text(sandbox, cell).await);
            }
            assert!(
                found[0] != found[1] && found[1] != found[2] && found[0] != found[2],
                "{what}: {found:?}"
            );
        }
        for sandbox in all {
            end(sandbox).await;
        }
        template.end().await.unwrap();
    });
}

#[test]
fn a_fork_has_the_host_name_and_the_limits_that_it_is_given() {
    with_kvm(async {
        let template = python().await;
        let options = || ForkOptions { hostname: Some("fork-7".to_owned()), ..ForkOptions::default() };
        let mut fork = template.spawn_with(options()).await.unwrap();
        let name = "import os, socket; os.uname().nodename, open('/etc/hostname').read()";
        assert_eq!(text(&mut fork, name).await, "('fork-7', 'fork-7\\n')");
        let mut plain = template.spawn().await.unwrap();
        assert_eq!(text(&mut plain, "import os; os.uname().nodename").await, "'luminaguard'");
        let mut short = options();
        short.limits.timeout = Some(Duration::from_millis(200));
        let mut short = template.spawn_with(short).await.unwrap();
        assert_eq!(short.wait().await.unwrap().outcome, lg_runtime::Outcome::TimedOut);
        let mut wrong = options();
        wrong.hostname = Some("a b".to_owned());
        let message = template.spawn_with(wrong).await.unwrap_err().to_string();
        assert!(message.contains("host name"), "{message}");
        end(fork).await;
        end(plain).await;
        template.end().await.unwrap();
    });
}

/// A program with everything that a fork takes along: variables, an open file, a pipe with bytes in it, a thread that counts,
/// and a process that writes.
const BUSY: &str = r#"
import os, subprocess, threading, time
numbers = [1, 2, 3]
file = open("/tmp/log", "w+")
file.write("before\n"), file.flush()
reader, writer = os.pipe()
os.write(writer, b"in the pipe")
count = 0
def tick():
    global count
    while True:
        count += 1
        time.sleep(0.005)
threading.Thread(target=tick, daemon=True).start()
child = subprocess.Popen(["sh", "-c", "while read line; do echo got $line; done"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def ask(line):
    child.stdin.write(line + "\n"), child.stdin.flush()
    return child.stdout.readline()
ask("one")
"#;

#[test]
fn a_live_fork_takes_everything_along_and_the_original_goes_on_unchanged() {
    with_kvm(async {
        let template = python().await;
        let mut original = template.spawn().await.unwrap();
        text(&mut original, BUSY).await;
        let mut fork = original.fork(1).await.unwrap().remove(0);

        // Each does something else, and does not see what the other does.
        for (sandbox, word) in [(&mut fork, "fork"), (&mut original, "original")] {
            assert_eq!(text(sandbox, "numbers").await, "[1, 2, 3]");
            assert_eq!(text(sandbox, "os.read(reader, 100)").await, "b'in the pipe'");
            text(sandbox, &format!("numbers.append('{word}')\nfile.write('{word}'), file.flush()")).await;
            assert_eq!(text(sandbox, &format!("ask('{word}')")).await, format!("'got {word}\\n'"));
            assert_eq!(text(sandbox, "child.poll() is None").await, "True");
            assert_eq!(text(sandbox, "seen = count\ntime.sleep(0.2)\ncount > seen").await, "True");
        }
        for (sandbox, word) in [(&mut fork, "fork"), (&mut original, "original")] {
            assert_eq!(text(sandbox, "numbers").await, format!("[1, 2, 3, '{word}']"));
            let log = sandbox.files().read("/tmp/log").await.unwrap();
            assert_eq!(String::from_utf8(log).unwrap(), format!("before\n{word}"));
            assert_eq!(text(sandbox, "file.seek(0)\nfile.read()").await, format!("'before\\n{word}'"));
        }
        // Neither needs the other.
        end(original).await;
        assert_eq!(text(&mut fork, "ask('last')").await, "'got last\\n'");
        template.end().await.unwrap();
        assert_eq!(text(&mut fork, "ask('after the template')").await, "'got after the template\\n'");
        end(fork).await;
    });
}

#[test]
fn forks_of_forks_are_forks() {
    with_kvm(async {
        let template = python().await;
        let mut sandbox = template.spawn().await.unwrap();
        text(&mut sandbox, "depth = 0").await;
        for depth in 1..=5 {
            let next = sandbox.fork(1).await.unwrap().remove(0);
            end(std::mem::replace(&mut sandbox, next)).await;
            assert_eq!(text(&mut sandbox, "depth += 1\ndepth").await, depth.to_string());
        }
        end(sandbox).await;
        template.end().await.unwrap();
    });
}

#[test]
fn a_sandbox_is_forked_in_the_middle_of_a_cell() {
    with_kvm(async {
        let template = python().await;
        let mut original = template.spawn().await.unwrap();
        let mut context = original.take_context().unwrap();
        let cell = "import time\nfor n in range(100): time.sleep(0.01)\nprint('done')\nn";
        let running = tokio::spawn(async move { context.evaluate(cell).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut fork = original.fork(1).await.unwrap().remove(0);
        // The fork's cell goes on as well; its answer is nobody's, and the next cell comes after it.
        assert_eq!(text(&mut fork, "n").await, "99");
        let cell = running.await.unwrap().unwrap();
        assert_eq!((cell.text(), &*cell.stdout), (Some("99"), &b"done\n"[..]));
        end(fork).await;
        end(original).await;
        template.end().await.unwrap();
    });
}

#[test]
fn programs_have_what_the_template_says() {
    with_kvm(async {
        let command = ["sh", "-c", "echo $MODE $PWD $(id -u) > /tmp/warm"].map(str::to_owned).to_vec();
        let warm_up = WarmUp::Program { command, ready: lg_runtime::Ready::Exits };
        let mut spec = TemplateSpec::new("own", warm_up);
        spec.sandbox =
            spec.sandbox.env("MODE", "test").workdir("/tmp").user(lg_runtime::User { uid: 7, gid: 7 });
        let template = template(&spec).await;
        let sandbox = template.spawn().await.unwrap();
        let fork = sandbox.fork(1).await.unwrap().remove(0);
        for sandbox in [&sandbox, &fork] {
            assert_eq!(sandbox.files().read("/tmp/warm").await.unwrap(), b"test /tmp 7\n");
            let script = ["sh", "-c", "echo $MODE $PWD $(id -u)"];
            assert_eq!(sandbox.program(script).output().await.unwrap().stdout, b"test /tmp 7\n");
            let other = sandbox.program(script).env("MODE", "own").workdir("/").output().await.unwrap();
            assert_eq!(other.stdout, b"own / 7\n");
        }
        end(fork).await;
        end(sandbox).await;
        template.end().await.unwrap();
    });
}
